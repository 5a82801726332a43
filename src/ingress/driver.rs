//! The shard's thread: glommio sockets, timers and rings around [`super::connection`] and [`crate::rpc`], no protocol of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crossbeam::channel::Sender;
use crossbeam::queue::ArrayQueue;

use crate::config::{HttpConfig, Wait};
use crate::messages::{BuilderReply, IngressMessage, QueryJob, QueryReply};
use crate::primitives::ShardId;
use crate::ring::{Consumer, Doorbell, Producer};
use crate::runtime::slab::{Slab, TxHandle};
use crate::topology::Shared;

/// What a shard knows of the process from the start.
#[derive(Clone, Debug)]
pub struct ShardSettings {
    pub http: HttpConfig,
    pub chain_id: u64,
    pub wait: Wait,
    /// Core to be pinned to; `None`: the scheduler decides.
    pub core: Option<usize>,
    /// Time of one heavy read, from its arrival.
    pub query_timeout_ns: u64,
    /// Chunks of the slab that may be out at once, from allocation until their handle is back: the slots of `freed`.
    pub chunks_max: usize,
    /// What the RPC methods know of the process.
    pub rpc: crate::rpc::view::Settings,
}

/// Everything that one shard owns, and its ends of everything shared.
pub struct ShardSeat {
    pub id: ShardId,
    pub settings: ShardSettings,
    pub slab: Slab,
    /// On full: `Reject` with −32005; the shard counts what is in flight (`limits::IN_FLIGHT_PER_SHARD_MAX`).
    pub to_builder: Producer<IngressMessage>,
    pub from_builder: Consumer<BuilderReply>,
    pub freed: Consumer<TxHandle>,
    /// On full: `Reject` with −32005.
    pub to_query: Sender<QueryJob>,
    /// As many slots as the shard may have queries in flight (`limits::QUERIES_PER_SHARD_MAX`).
    pub from_query: Arc<ArrayQueue<QueryReply>>,
    /// Rung by builder and query threads.
    pub doorbell: Arc<Doorbell>,
    pub shared: Arc<Shared>,
    /// Says once whether the listener is bound, and where.
    pub bound: SyncSender<Result<SocketAddr, String>>,
}

/// Runs the shard until `Shared::is_closed`.
///
/// # Errors
/// What the executor could not be given: the process must stop.
pub fn run(seat: ShardSeat) -> Result<(), String> {
    let _ = seat;
    Err("not written yet".to_owned())
}
