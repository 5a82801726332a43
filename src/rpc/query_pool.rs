//! The query pool's worker loop.

use std::sync::Arc;

use crossbeam::channel::Receiver;
use crossbeam::queue::ArrayQueue;

use crate::chain::ChainReader;
use crate::config::genesis::ChainSpec;
use crate::messages::{QueryJob, QueryReply};
use crate::ring::Doorbell;
use crate::rpc::Settings;
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
pub fn run(seat: &QuerySeat) {
    let _ = seat;
}
