//! What the process counts about itself: cells beside the threads that write them → a page for Prometheus.
//!
//! Each thread has a meter of its own and is its only writer; a scrape merges what several threads of a kind have. A meter costs its thread a
//! load and a store a number, never a lock, an allocation or a system call; durations come from clocks that are read anyway, once a turn, a group
//! or a block, never once a transaction. What already stands in a cell elsewhere (heads, the gate, the status of settlement) is read there when
//! somebody scrapes. The table of names is [`registry::REGISTRY`]. Deliberately absent: rates, percentiles, labels with an open set of values.

pub mod block_times;
pub mod cells;
pub mod exposition;
pub mod reasons;
pub mod registry;

use std::sync::{Arc, OnceLock};

use crate::rpc::Method;
use block_times::BlockTimes;
use cells::{Counter, Gauge, Histogram};
use reasons::{CloseLabel, DropReason, IngressReason, RefusalReason};

/// Most query threads that a process may have (`query.threads`).
pub const QUERY_THREADS_MAX: usize = 64;

/// Every meter of the process.
#[derive(Debug)]
pub struct Metrics {
    /// By number of the shard.
    pub shards: Box<[ShardMeter]>,
    pub builder: BuilderMeter,
    pub journal: JournalMeter,
    pub state: StateMeter,
    pub chain: ChainMeter,
    /// By number of the thread.
    pub queries: Box<[QueryMeter]>,
    pub execution: ExecutionMeter,
    pub l1: L1Meter,
    pub l1_client: Arc<L1ClientMeter>,
    pub settle: SettleMeter,
}

impl Metrics {
    #[must_use]
    pub fn new(shard_count: usize) -> Self {
        Self {
            shards: (0..shard_count).map(|_| ShardMeter::default()).collect(),
            builder: BuilderMeter::default(),
            journal: JournalMeter::default(),
            state: StateMeter::default(),
            chain: ChainMeter::default(),
            queries: (0..QUERY_THREADS_MAX).map(|_| QueryMeter::default()).collect(),
            execution: ExecutionMeter::default(),
            l1: L1Meter::default(),
            l1_client: Arc::default(),
            settle: SettleMeter::default(),
        }
    }
}

type LinesDropped = Box<dyn Fn() -> u64 + Send + Sync>;

/// Of the process's one log.
static LOG: OnceLock<LinesDropped> = OnceLock::new();

/// Tells where the lines are counted that the log's writer had no room for; the first one counts.
pub fn watch_log(dropped: impl Fn() -> u64 + Send + Sync + 'static) {
    // A second log of one process is a test's.
    let _ = LOG.set(Box::new(dropped));
}

/// Lines of the log that were dropped.
#[must_use]
pub fn log_lines_dropped() -> u64 {
    LOG.get().map_or(0, |dropped| dropped())
}

/// A counter for each label of a closed list.
#[derive(Debug)]
pub struct Counters<const N: usize>([Counter; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const N: usize> Counters<N> {
    /// Runs on: the one writer.
    #[inline]
    pub fn increment(&self, label: usize) {
        self.0[label].increment();
    }

    #[must_use]
    pub fn get(&self, label: usize) -> u64 {
        self.0[label].get()
    }
}

/// Of an ingress shard. A line of its own in the cache: a neighbour's writes do not take it away.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardMeter {
    /// From the turn that read a transaction's last byte to the turn that writes the durable answer.
    pub accepted: Histogram,
    pub recover: Histogram,
    pub recovered: Counter,
    pub rejected: Counters<{ IngressReason::NAMES.len() }>,
    pub limited: Counters<{ RATE_LIMITS.len() }>,
    pub requests: Counters<{ Method::ALL.len() }>,
}

/// Labels of requests that a rate limit refused.
pub const RATE_LIMITS: &[&str] = &["address", "all"];

/// Of the builder core.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BuilderMeter {
    pub turn: Histogram,
    /// Monotonic time at which the newest turn began; 0: there was none.
    pub turned_ns: Gauge,
    /// Newest record that was made.
    pub recorded: Gauge,
    /// Since when the oldest record that the journal was given and has not made durable is the oldest, monotonic; 0: there is none.
    pub journal_since_ns: Gauge,
    pub admitted: Counter,
    pub placed: Counter,
    pub sealed: Counter,
    pub rejected: Counters<{ RefusalReason::NAMES.len() }>,
    pub dropped: Counters<{ DropReason::NAMES.len() }>,
    pub closed: Counters<{ CloseLabel::NAMES.len() }>,
    pub pool_ready: Gauge,
    pub pool_queued: Gauge,
    pub pool_bytes: Gauge,
}

/// Of the journal thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct JournalMeter {
    pub write: Histogram,
    pub written_bytes: Counter,
}

/// Of the state thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct StateMeter {
    pub seal: Histogram,
}

/// Of the chain thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ChainMeter {
    pub append: Histogram,
    pub preconfirmed: Histogram,
    pub sealed: Histogram,
    pub transactions: Counter,
    pub gas: Counter,
    /// For the tiers that come later.
    pub block_times: BlockTimes,
}

/// Of a query thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct QueryMeter {
    pub run: Histogram,
}

/// Of the control thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ExecutionMeter {
    pub calls: [Histogram; EXECUTION_METHODS.len()],
    pub failed: Counters<{ EXECUTION_METHODS.len() }>,
}

/// Labels of calls to the execution client.
pub const EXECUTION_METHODS: &[&str] = &["new_payload", "forkchoice_updated", "other"];

/// Of the `l1` thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct L1Meter {
    pub posted: Histogram,
    pub safe: Histogram,
    pub finalized: Histogram,
    pub sent: Counters<{ SEND_OUTCOMES.len() }>,
}

/// Of every client of L1 on the `l1` thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct L1ClientMeter {
    pub call: Histogram,
    pub failed: Counters<{ L1_FAILURES.len() }>,
}

/// Labels of why an endpoint of L1 did not give what was asked for.
pub const L1_FAILURES: &[&str] = &["unreachable", "timed_out", "http", "malformed", "rpc", "lied", "withheld"];
/// The place of `withheld` among them.
pub const L1_WITHHELD: usize = 6;
/// Labels of what L1 said to an ExecuteTx.
pub const SEND_OUTCOMES: &[&str] =
    &["accepted", "nonce_too_low", "underpriced", "insufficient_funds", "away", "refused"];

/// Of the `settle` thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct SettleMeter {
    pub jobs: [Histogram; SETTLE_JOBS.len()],
}

/// Labels of the jobs of the `settle` thread.
pub const SETTLE_JOBS: &[&str] = &["cut", "check", "keep"];
