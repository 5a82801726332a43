//! Every thread, core, ring and cell. The only place that spawns and wires.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::builder::block::Heads;

/// What every thread may look at without asking anyone.
pub struct Shared {
    /// The chain's tip. Written by the builder core.
    pub heads: ArcSwap<Heads>,
    /// Sequence of the newest durable record. Nothing that depends on a later one leaves the process. Written by the journal's owner.
    pub durable_seq: AtomicU64,
    /// Per shard: it has subscribers and wants its bell rung when there is news. Written by the shard.
    pub wants_events: Box<[AtomicBool]>,
    /// Open connections in the process. Written by the shards.
    pub connection_count: AtomicU64,
    stopping: AtomicBool,
}

impl Shared {
    #[must_use]
    pub fn new(heads: std::sync::Arc<Heads>, shard_count: usize) -> Self {
        Self {
            durable_seq: AtomicU64::new(heads.latest.sequence.0),
            heads: ArcSwap::new(heads),
            wants_events: (0..shard_count).map(|_| AtomicBool::new(false)).collect(),
            connection_count: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        }
    }

    /// Whether the process was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}
