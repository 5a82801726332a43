//! The query pool's worker loop.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Receiver;
use crossbeam::queue::ArrayQueue;

use crate::chain::ChainReader;
use crate::config::genesis::ChainSpec;
use crate::engine_api::blocking::{BlockingClient, BlockingSettings};
use crate::engine_api::types::{CallError, Method as EngineMethod};
use crate::messages::{MeasureJob, MeasuredWitness, QueryJob, QueryReply};
use crate::primitives::{B256, Sequence, ShardId};
use crate::ring::Doorbell;
use crate::rpc::error::{RpcError, code};
use crate::rpc::method::{Class, Method};
use crate::rpc::query::{QueryBounds, QueryCache, QueryContext, execute};
use crate::rpc::query_l1::{self, L1View};
use crate::rpc::query_witness::measure;
use crate::rpc::view::{Settings, View};
use crate::runtime::clock;
use crate::settlement::pass_on::L1Door;
use crate::state::files::sync::StateCells;
use crate::topology::Shared;
use crate::topology::cold::touch;

/// Where the replies of one shard go.
pub struct QueryShard {
    /// The shard counts what it has in flight, so there is always a slot.
    pub replies: Arc<ArrayQueue<QueryReply>>,
    pub doorbell: Arc<Doorbell>,
}

/// Everything that one query thread needs.
pub struct QuerySeat {
    /// Number of the thread, from 0.
    pub index: usize,
    pub jobs: Receiver<QueryJob>,
    pub shards: Arc<[QueryShard]>,
    pub builder_bell: Arc<Doorbell>,
    pub shared: Arc<Shared>,
    pub chain: ChainReader,
    pub states: Arc<StateCells>,
    pub spec: ChainSpec,
    pub settings: Settings,
    pub gas_max: u64,
    pub timeout_ns: u64,
    pub door: L1Door,
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
    let kept_state = |number, root: &B256| seat.states.retained(number, root);
    while let Some(work) = next_work(seat) {
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
            kept_state: &kept_state,
        };
        let job = match work {
            Work::Query(job) => job,
            Work::Measure(job) => {
                let (hash, bytes) = (job.hash, measure(&context, job));
                seat.shared.measures.answer(MeasuredWitness { hash, bytes });
                seat.builder_bell.ring();
                continue;
            }
        };
        let ShardId(shard) = job.shard;
        let start_ns = clock::monotonic_ns();
        let reply = match job.method.class() {
            Class::Proxy => pass_on(seat, &mut client, &job),
            _ if seat.settings.state_is_remote && job.method.reads_state() => pass_on(seat, &mut client, &job),
            Class::Settlement | Class::Submit => reply(&job, concern_l1(seat, &context, &job)),
            _ => {
                let reply = execute(&context, &mut cache, &job);
                about_execute_tx(seat, &job, reply)
            }
        };
        seat.shared.metrics.queries[seat.index].run.record(clock::monotonic_ns() - start_ns);
        let Some(shard) = seat.shards.get(usize::from(shard)) else { continue };
        let pushed = shard.replies.push(reply);
        assert!(pushed.is_ok(), "a shard has at most as many queries in flight as its queue has slots");
        shard.doorbell.ring();
    }
}

/// What the `l1` thread shows depends on blocks that were durable before it saw them.
fn reply(job: &QueryJob, outcome: Result<Vec<u8>, RpcError>) -> QueryReply {
    QueryReply { token: job.token, outcome, told: None, gate: Sequence(0) }
}

fn l1_view(seat: &QuerySeat) -> L1View<'_> {
    L1View {
        cells: &seat.shared.settlement,
        door: &seat.door,
        rollup: seat.spec.native_rollup.as_ref(),
        limit: Duration::from_nanos(seat.timeout_ns),
    }
}

/// How settlement stands, and transactions for L1.
fn concern_l1(seat: &QuerySeat, context: &QueryContext<'_>, job: &QueryJob) -> Result<Vec<u8>, RpcError> {
    let l1 = l1_view(seat);
    if clock::monotonic_ns() > job.deadline_ns {
        return Err(RpcError::busy("the query waited too long for a free thread", 1_000));
    }
    match job.method.class() {
        Class::Submit => query_l1::send(&l1, &job.params),
        _ => query_l1::status(context, &l1, job.method, &job.params),
    }
}

/// A question that our own chain has no answer to may be about an ExecuteTx, which L1 knows.
fn about_execute_tx(seat: &QuerySeat, job: &QueryJob, reply: QueryReply) -> QueryReply {
    let asks_for_tx = matches!(
        job.method,
        Method::GetTransactionByHash
            | Method::GetRawTransactionByHash
            | Method::GetTransactionReceipt
            | Method::GetTransactionStatus
    );
    let is_unknown = reply.outcome.as_ref().is_ok_and(|result| result == b"null");
    if !asks_for_tx || !is_unknown || !seat.door.is_open() {
        return reply;
    }
    match query_l1::question(&l1_view(seat), job.method, &job.params) {
        Ok(None) => reply,
        Ok(Some(result)) => QueryReply { outcome: Ok(result), ..reply },
        Err(error) => QueryReply { outcome: Err(error), ..reply },
    }
}

enum Work {
    Query(QueryJob),
    Measure(MeasureJob),
}

/// What is to be done next; accounts that the builder core is going to need are read on the way. `None`: every sender of queries is gone.
fn next_work(seat: &QuerySeat) -> Option<Work> {
    loop {
        let accounts = crossbeam::channel::select_biased! {
            recv(seat.shared.measures.jobs()) -> job => return job.ok().map(Work::Measure),
            recv(seat.jobs) -> job => return job.ok().map(Work::Query),
            recv(seat.shared.cold.batches()) -> accounts => accounts.ok()?,
        };
        if let Some(newest) = seat.states.newest()
            && let Err(error) = touch(&newest, &accounts)
        {
            tracing::error!(%error, "an account cannot be read");
        }
    }
}

/// Asks the execution client. It knows only blocks that are durable here, so its answer waits for nothing.
fn pass_on(seat: &QuerySeat, client: &mut Option<BlockingClient>, job: &QueryJob) -> QueryReply {
    let QueryJob { token, method, params, deadline_ns, .. } = job;
    let outcome = if clock::monotonic_ns() > *deadline_ns {
        Err(RpcError::busy("the query waited too long for a free thread", 1_000))
    } else {
        ask_client(seat, client, method.name(), params)
    };
    QueryReply { token: *token, outcome, told: None, gate: Sequence(0) }
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
    match client.ask(EngineMethod::Proxied(name), params) {
        Ok(value) => serde_json::to_vec(&value).map_err(|error| RpcError::internal(error.to_string())),
        Err(CallError::Rpc { number, message, .. }) => {
            Err(RpcError::new(i32::try_from(number).unwrap_or(code::INTERNAL), message))
        }
        Err(error) => Err(RpcError::server(format!("the execution client does not answer: {error}"))),
    }
}
