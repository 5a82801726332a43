//! The measured part: prepared requests and a loop mode → what happened to every request and transaction.
//!
//! Owner: the sending threads, each with its own connections, epoll set and share of the schedule. They share nothing
//! but the counters of the progress bar.

pub mod connection;

pub mod queue;

pub mod replies;

pub mod sender;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use alloy_primitives::B256;
use hdrhistogram::Histogram;

use self::connection::{Connection, Target};
use self::queue::{NEVER, Record, RequestQueue};
use self::replies::{ErrorClasses, Outcome};
use self::sender::{Sender, SenderConfig, SenderResult, latency_histogram};
use crate::limits::LATE_NS;
use crate::workload::ConnectionLoad;

/// Counters that the progress bar shows while the run goes on; relaxed, and no decision depends on them.
#[derive(Debug, Default)]
pub struct Live {
    pub sent: AtomicU64,
    pub accepted: AtomicU64,
    pub failed: AtomicU64,
    pub p99_ns: AtomicU64,
}

/// The outcome of each transaction while the run goes on, written once by its sending thread; read by who sends again.
#[derive(Debug, Default)]
pub struct Outcomes(Vec<AtomicU8>);

impl Outcomes {
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicU8::new(Outcome::None as u8)).collect())
    }

    pub fn set(&self, index: u32, outcome: Outcome) {
        // ORDERING: a value by itself; threads are joined before the report reads all of them.
        self.0[index as usize].store(outcome as u8, Ordering::Relaxed);
    }

    pub fn get(&self, index: usize) -> Outcome {
        Outcome::from_byte(self.0[index].load(Ordering::Relaxed))
    }
}

#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Connection c leads to target c modulo their number.
    pub targets: Vec<Arc<Target>>,
    /// Intended times of the requests of an open loop; `None` closes the loop.
    pub intended_ns: Option<Vec<u64>>,
    /// Requests in flight per connection.
    pub outstanding_max: usize,
    pub stop_sending_ns: u64,
    pub drain_ns: u64,
    pub thread_count: usize,
    pub pin_core: Option<usize>,
    pub start: Instant,
}

/// What happened to one transaction. Times are nanoseconds after the start, `NEVER` where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionRecord {
    pub history: Record,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub struct EngineResult {
    /// By transaction index.
    pub transactions: Vec<TransactionRecord>,
    pub rejections: ErrorClasses,
    pub transport_errors: ErrorClasses,
    /// Transactions that were not sent because the node had closed their connection too often.
    pub given_up: u64,
    pub lag: Histogram<u64>,
    /// Transactions that left more than `LATE_NS` after their intended time.
    pub late: u64,
    pub sender_cpu_ns: u64,
    pub loop_turns: u64,
    /// Time of the last reply, or of the end of sending when there was none.
    pub end_ns: u64,
}

/// Open connections and laid-out requests, ready to go.
#[derive(Debug)]
pub struct Engine {
    senders: Vec<Sender>,
    outcomes: Arc<Outcomes>,
}

/// What the sending threads share with the rest of the run.
#[derive(Clone, Debug)]
pub struct Shared {
    pub hashes: Arc<Vec<B256>>,
    pub outcomes: Arc<Outcomes>,
    pub live: Arc<Live>,
}

impl Shared {
    pub fn new(hashes: Vec<B256>) -> Self {
        let outcomes = Arc::new(Outcomes::new(hashes.len()));
        Self { hashes: Arc::new(hashes), outcomes, live: Arc::default() }
    }
}

impl Engine {
    /// Opens every connection; nothing is sent yet.
    pub fn build(config: &EngineConfig, loads: &[Arc<ConnectionLoad>], shared: &Shared) -> std::io::Result<Self> {
        Ok(Self { senders: build_senders(config, loads, shared)?, outcomes: Arc::clone(&shared.outcomes) })
    }

    /// Runs the load; blocks until it is over.
    pub fn run(self) -> std::io::Result<EngineResult> {
        let results: Vec<std::io::Result<SenderResult>> = std::thread::scope(|scope| {
            let spawn = |(index, sender): (usize, Sender)| {
                let builder = std::thread::Builder::new().name(format!("sender-{index}"));
                builder.spawn_scoped(scope, move || sender.run())
            };
            let threads: Vec<_> = self.senders.into_iter().enumerate().map(spawn).collect();
            threads.into_iter().map(|t| t.and_then(|t| t.join().expect("sending threads do not panic"))).collect()
        });
        let untouched = TransactionRecord {
            history: Record { intended_ns: NEVER, sent_ns: NEVER, answered_ns: NEVER },
            outcome: Outcome::None,
        };
        let mut merged = EngineResult {
            transactions: vec![untouched; self.outcomes.0.len()],
            rejections: ErrorClasses::default(),
            transport_errors: ErrorClasses::default(),
            given_up: 0,
            lag: latency_histogram(),
            late: 0,
            sender_cpu_ns: 0,
            loop_turns: 0,
            end_ns: 0,
        };
        for result in results {
            merge(&mut merged, result?);
        }
        for (index, transaction) in merged.transactions.iter_mut().enumerate() {
            transaction.outcome = self.outcomes.get(index);
        }
        Ok(merged)
    }
}

fn build_senders(
    config: &EngineConfig,
    loads: &[Arc<ConnectionLoad>],
    shared: &Shared,
) -> std::io::Result<Vec<Sender>> {
    let (connection_count, thread_count) = (loads.len(), config.thread_count.clamp(1, loads.len()));
    let mut connections: Vec<Vec<Connection>> = (0..thread_count).map(|_| Vec::new()).collect();
    for (index, load) in loads.iter().enumerate() {
        let queue = match &config.intended_ns {
            Some(times) => {
                let own = times.iter().copied().skip(index).step_by(connection_count);
                RequestQueue::open(own, config.outstanding_max)
            }
            None => RequestQueue::closed(load.requests.len(), config.outstanding_max),
        };
        let target = Arc::clone(&config.targets[index % config.targets.len()]);
        connections[index % thread_count].push(Connection::open(Arc::clone(load), queue, target)?);
    }
    let mut schedules = vec![Vec::new(); thread_count];
    for (request, &intended_ns) in config.intended_ns.iter().flatten().enumerate() {
        let connection = request % connection_count;
        // Connections are below 2^16: each needs a port.
        schedules[connection % thread_count].push((intended_ns, (connection / thread_count) as u32));
    }
    let sender_config = |index: usize| SenderConfig {
        start: config.start,
        stop_sending_ns: config.stop_sending_ns,
        drain_ns: config.drain_ns,
        pin_core: config.pin_core.map(|core| core + index),
        shared: shared.clone(),
    };
    let parts = connections.into_iter().zip(schedules).enumerate();
    parts.map(|(index, (connections, schedule))| Sender::new(sender_config(index), connections, schedule)).collect()
}

fn merge(merged: &mut EngineResult, result: SenderResult) {
    for (first, count, record) in result.requests {
        if record.sent_ns != NEVER {
            let late = record.sent_ns.saturating_sub(record.intended_ns) > LATE_NS;
            merged.late += if late { u64::from(count) } else { 0 };
            merged.end_ns =
                merged.end_ns.max(if record.answered_ns == NEVER { record.sent_ns } else { record.answered_ns });
        }
        for tx in first..first + count {
            merged.transactions[tx as usize].history = record;
        }
    }
    merged.given_up += result.given_up;
    merged.rejections.merge(result.rejections);
    merged.transport_errors.merge(result.transport_errors);
    merged.lag.add(&result.lag).expect("both histograms have the same bounds");
    merged.sender_cpu_ns += result.cpu_ns;
    merged.loop_turns += result.loop_turns;
}
