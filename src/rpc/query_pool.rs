//! The query pool's worker loop.

use std::sync::Arc;

use crossbeam::channel::Receiver;
use crossbeam::queue::ArrayQueue;

use crate::chain::ChainReader;
use crate::config::genesis::ChainSpec;
use crate::engine_api::blocking::{BlockingClient, BlockingSettings};
use crate::engine_api::types::{CallError, Method};
use crate::messages::{QueryJob, QueryReply};
use crate::primitives::{Sequence, ShardId};
use crate::ring::Doorbell;
use crate::rpc::error::{RpcError, code};
use crate::rpc::method::Class;
use crate::rpc::query::{QueryBounds, QueryCache, QueryContext, execute};
use crate::rpc::view::{Settings, View};
use crate::runtime::clock;
use crate::topology::Shared;

/// Where the replies of one shard go.
pub struct QueryShard {
    /// The shard counts what it has in flight, so there is always a slot.
    pub replies: Arc<ArrayQueue<QueryReply>>,
    pub doorbell: Arc<Doorbell>,
}

/// Everything that one query thread needs.
pub struct QuerySeat {
    pub jobs: Receiver<QueryJob>,
    pub shards: Arc<[QueryShard]>,
    pub shared: Arc<Shared>,
    pub chain: ChainReader,
    pub spec: ChainSpec,
    pub settings: Settings,
    pub gas_max: u64,
    pub timeout_ns: u64,
    /// The execution client, where there is one.
    pub proxy: Option<BlockingSettings>,
}

/// Runs until every sender of jobs is gone.
///
/// Runs on: query thread; blocks while there is no job.
pub fn run(seat: &QuerySeat) {
    let mut cache = QueryCache::default();
    let mut client = None;
    let fork_at = |timestamp| seat.spec.fork_at(timestamp);
    while let Ok(job) = seat.jobs.recv() {
        // Before the heads: what is durable was published before.
        let durable = seat.shared.gate.durable();
        let heads = seat.shared.heads.load_full();
        let context = QueryContext {
            view: View { heads: &heads, durable, settings: &seat.settings },
            history: &seat.chain,
            bounds: QueryBounds { gas_max: seat.gas_max, duration_ns_max: seat.timeout_ns },
            now_ns: &clock::monotonic_ns,
            now_unix_s: clock::wall_unix_ns() / 1_000_000_000,
            fork_at: &fork_at,
            deposit_contract: seat.spec.deposit_contract,
        };
        let ShardId(shard) = job.shard;
        let reply = match job.method.class() {
            Class::Proxy => pass_on(seat, &mut client, &job),
            _ => execute(&context, &mut cache, &job),
        };
        let Some(shard) = seat.shards.get(usize::from(shard)) else { continue };
        let pushed = shard.replies.push(reply);
        assert!(pushed.is_ok(), "a shard has at most as many queries in flight as its queue has slots");
        shard.doorbell.ring();
    }
}

/// Asks the execution client. It knows only blocks that are durable here, so its answer waits for nothing.
fn pass_on(seat: &QuerySeat, client: &mut Option<BlockingClient>, job: &QueryJob) -> QueryReply {
    let QueryJob { token, method, params, deadline_ns, .. } = job;
    let outcome = if clock::monotonic_ns() > *deadline_ns {
        Err(RpcError::limit("the query waited too long for a free thread"))
    } else {
        ask_client(seat, client, method.name(), params)
    };
    QueryReply { token: *token, outcome, gate: Sequence(0) }
}

fn ask_client(
    seat: &QuerySeat,
    client: &mut Option<BlockingClient>,
    name: &'static str,
    params: &[u8],
) -> Result<Vec<u8>, RpcError> {
    // Written anew, so that only what is an array of JSON values gets into the request.
    let values: Vec<serde_json::Value> = match params {
        [] => Vec::new(),
        _ => serde_json::from_slice(params).map_err(|error| RpcError::invalid_params(error.to_string()))?,
    };
    let params = serde_json::to_vec(&values).map_err(|error| RpcError::internal(error.to_string()))?;
    if client.is_none() {
        let settings = seat.proxy.clone().ok_or_else(|| RpcError::method_not_found(name.as_bytes()))?;
        *client = Some(BlockingClient::new(settings).map_err(|error| RpcError::internal(error.to_string()))?);
    }
    let Some(client) = client else { return Err(RpcError::method_not_found(name.as_bytes())) };
    match client.ask(Method::Proxied(name), params) {
        Ok(value) => serde_json::to_vec(&value).map_err(|error| RpcError::internal(error.to_string())),
        Err(CallError::Rpc { number, message, .. }) => {
            Err(RpcError::new(i32::try_from(number).unwrap_or(code::INTERNAL), message))
        }
        Err(error) => Err(RpcError::server(format!("the execution client does not answer: {error}"))),
    }
}
