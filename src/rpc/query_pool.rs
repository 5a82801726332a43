//! The query pool's worker loop.

use std::sync::Arc;

use crossbeam::channel::Receiver;
use crossbeam::queue::ArrayQueue;

use crate::chain::ChainReader;
use crate::config::genesis::ChainSpec;
use crate::messages::{QueryJob, QueryReply};
use crate::primitives::ShardId;
use crate::ring::Doorbell;
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
}

/// Runs until every sender of jobs is gone.
///
/// Runs on: query thread; blocks while there is no job.
pub fn run(seat: &QuerySeat) {
    let mut cache = QueryCache::default();
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
        let reply = execute(&context, &mut cache, &job);
        let Some(shard) = seat.shards.get(usize::from(shard)) else { continue };
        let pushed = shard.replies.push(reply);
        assert!(pushed.is_ok(), "a shard has at most as many queries in flight as its queue has slots");
        shard.doorbell.ring();
    }
}
