//! The JSON-RPC methods: a name and raw parameters in, the bytes of a result out.
//!
//! Owner: nobody. Shards call `plan` and the renderers, query threads call `execute`; everything here is pure except `query_pool.rs`.
//! Invariants: nothing is shown that is newer than the durable sequence of the view it is read through, or it carries the sequence
//! that the shard must wait for. Deliberately absent: sockets, HTTP, the envelope (`jsonrpc`, `id`).

pub mod method;

pub mod error;
pub mod json;
pub mod limits;
pub mod params;

pub mod source;
pub mod view;

pub mod encode;

pub mod chain_history;
pub mod history;

pub mod log_filter;

pub mod plan;
pub mod reply;
pub mod subscription;

pub mod filter;

pub mod query;
pub mod query_call;
pub mod query_fees;
pub mod query_filters;
pub mod query_l1;
pub mod query_logs;
pub mod query_pool;
pub mod query_pool_content;
mod query_witness;

pub mod access_list;
pub mod call;
pub mod call_request;
pub mod call_state;

pub use error::RpcError;
pub use filter::{FilterAnswer, FilterAsk, FilterCall, FilterId, FilterKind, FilterRead, Filters, Lease, Position};
pub use method::{Class, Method};
pub use plan::{Plan, Rendered, SubmitRequest, plan, render_builder_answer};
pub use query::{QueryCache, QueryContext, execute};
pub use reply::{
    end_error, refusal_error, render_admitted, render_execution_status, render_preconfirmed, unready_error,
};
pub use subscription::{ConnectionKey, NotificationSink, Progress, SubscriptionId, SubscriptionKind, Subscriptions};
pub use view::{Settings, View};

#[cfg(test)]
mod tests;
