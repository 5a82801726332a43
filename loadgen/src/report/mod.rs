//! The result of a run: engine and tier data → one serialisable report.
//!
//! JSON field names carry their units. `docs` of each field are the documentation of the format.

pub mod asserts;

pub mod hdr_log;

pub mod html;

pub mod json;

pub mod series;

pub mod summary;

pub mod svg;

pub mod table;

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::client::Protocol;
use crate::engine::queue::NEVER;
use crate::engine::replies::Outcome;
use crate::engine::{EngineResult, TransactionRecord};
use crate::error::{Error, Result};
use crate::mend::Resent;
use crate::process::ProcessUsage;
use crate::schedule::Tempo;
use crate::taxonomy::Category;
use crate::tiers::Tier;

/// Version of the JSON format; `compare` refuses others.
pub const FORMAT: u32 = 2;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub format: u32,
    pub loadgen_version: String,
    pub command: Vec<String>,
    /// Wall clock at the start, in milliseconds since 1970.
    pub started_unix_ms: u64,
    pub machine: String,
    pub node: NodeReport,
    pub load: LoadReport,
    pub counts: Counts,
    /// What became of each planned transaction, in words; adds up to `counts.planned`.
    pub ends: BTreeMap<String, u64>,
    /// Of them, those that the node accepted, does not know any more and gives no reason for.
    pub unexplained: u64,
    /// Errors by kind.
    pub categories: BTreeMap<Category, u64>,
    /// JSON-RPC errors by code and masked text.
    pub rejections: BTreeMap<String, u64>,
    /// HTTP errors, broken connections and replies that make no sense, by kind.
    pub transport_errors: BTreeMap<String, u64>,
    pub tiers: BTreeMap<Tier, TierReport>,
    pub rates: Rates,
    pub generator: Generator,
    pub cpu: CpuUse,
    /// Only with `--server-pid`.
    pub server: Option<Server>,
    pub fees: FeeReport,
    /// Transactions sent again to senders that were stuck; only where blocks are watched.
    pub resent: Option<Resent>,
    pub series: series::Series,
    /// The steps of `find-max`.
    pub search: Vec<SearchStep>,
    /// What a reader has to know to read the figures right.
    pub notes: Vec<String>,
    pub asserts: Vec<asserts::Verdict>,
    /// Only with `--verify`.
    pub verification: Option<crate::verify::Verification>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Of set-up and tiers, and of the load where no more are named.
    pub url: String,
    /// Where the load goes.
    pub targets: Vec<String>,
    pub protocol: Protocol,
    pub client: String,
    pub chain_id: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    pub workload: String,
    pub seed: u64,
    pub transactions: u64,
    pub accounts: u64,
    pub recipients: u64,
    pub connections: u64,
    /// Requests in flight per connection, pipelined.
    pub outstanding_max: u64,
    /// Calls per request.
    pub batch: u64,
    pub pace: Pace,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "loop", rename_all = "lowercase")]
pub enum Pace {
    Open {
        #[serde(flatten)]
        tempo: Tempo,
    },
    Closed,
}

/// Transactions by what became of them. `planned` = `sent` + `dropped`, and
/// `sent` = `accepted` + `rejected` + `transport_errors` + `unanswered`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub planned: u64,
    pub sent: u64,
    pub accepted: u64,
    pub rejected: u64,
    pub transport_errors: u64,
    pub unanswered: u64,
    /// Never sent before the end.
    pub dropped: u64,
    /// Sent more than 1 ms after the intended time.
    pub late: u64,
}

impl Counts {
    /// Everything that was sent and not accepted.
    pub const fn errors(&self) -> u64 {
        self.rejected + self.transport_errors + self.unanswered
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum TierReport {
    Measured {
        source: String,
        latency: Latency,
        /// Latency by percentile: (share, nanoseconds).
        curve: series::Curve,
        /// Accepted transactions that did not arrive while the run waited; those that were to be replaced are not meant to.
        missing: u64,
        /// Executed and reverted, where the tier tells.
        reverted: Option<u64>,
        /// What cut the watching short.
        problem: Option<String>,
    },
    /// The node's answer.
    NotOffered { reason: String },
}

impl TierReport {
    pub const fn missing(&self) -> u64 {
        match self {
            Self::Measured { missing, .. } => *missing,
            Self::NotOffered { .. } => 0,
        }
    }

    pub const fn reverted(&self) -> Option<u64> {
        match self {
            Self::Measured { reverted, .. } => *reverted,
            Self::NotOffered { .. } => None,
        }
    }
}

/// Cores used from the start to the last reply, on the machine of the generator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuUse {
    /// How many there are.
    pub cores: f64,
    pub busy: f64,
    /// Taken by the hypervisor for somebody else.
    pub stolen: f64,
    pub generator: f64,
    /// Only with `--server-pid`, as are its busiest threads.
    pub node: Option<f64>,
    pub node_threads: Vec<ThreadUse>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadUse {
    pub name: String,
    pub cores: f64,
}

/// One step of `find-max`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchStep {
    pub rate_per_s: f64,
    pub accepted_per_s: f64,
    pub p99_ns: u64,
    pub passed: bool,
    pub verdict: String,
}

/// Times from the intended send time, in nanoseconds; all 0 when the count is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    pub count: u64,
    pub min_ns: u64,
    pub mean_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

impl Latency {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let quantile = |q| histogram.value_at_quantile(q);
        Self {
            count: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean() as u64,
            p50_ns: quantile(0.5),
            p90_ns: quantile(0.9),
            p99_ns: quantile(0.99),
            p999_ns: quantile(0.999),
            max_ns: histogram.max(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// From the first intended time to the last reply.
    pub wall_s: f64,
    pub sent_per_s: f64,
    pub accepted_per_s: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// CPU time of the whole process during the run, tiers and progress bar included, per transaction sent.
    pub cpu_ns_per_transaction: u64,
    /// CPU time of the sending threads alone, per transaction sent.
    pub sender_cpu_ns_per_transaction: u64,
    pub sender_threads: u64,
    /// Wake-ups of the sending threads per transaction sent.
    pub sender_turns_per_transaction: f64,
    /// How late the generator itself was in noticing that a request was due (open loop).
    pub lag: Latency,
    /// The run is invalid when the p99 of the lag is above this: 1 ms, or a tenth of the mean distance of requests.
    pub lag_limit_ns: u64,
    pub valid: bool,
}

/// The node's own memory, RssAnon + RssShmem, once a second from the start until every tier was complete.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    pub samples_bytes: Vec<u64>,
    /// Of a line through the samples after the first two minutes; missing where they are too few.
    pub slope_bytes_per_minute: Option<f64>,
}

/// Memory may grow while caches and pools fill: the slope counts from here.
const SLOPE_FROM_S: usize = 120;

impl Memory {
    pub fn new(samples_bytes: Vec<u64>) -> Self {
        let slope_bytes_per_minute = series::slope_per_minute(&samples_bytes, SLOPE_FROM_S);
        Self { samples_bytes, slope_bytes_per_minute }
    }

    /// What the samples say, as a sentence with a blank before it; nothing where there are none.
    pub fn text(&self) -> String {
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let (Some(&first), Some(&last)) = (self.samples_bytes.first(), self.samples_bytes.last()) else {
            return String::new();
        };
        let highest = self.samples_bytes.iter().copied().max().unwrap_or(last);
        let slope = match self.slope_bytes_per_minute {
            Some(slope) => format!("{:+.3} MiB a minute after minute two", mib(slope)),
            None => "too short for a slope: it counts from minute two".to_owned(),
        };
        let [first, last, highest] = [first, last, highest].map(|bytes| mib(bytes as f64));
        format!(" From {first:.1} to {last:.1} MiB, at most {highest:.1}; {slope}.")
    }
}

/// Cost of the node's process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub memory: Memory,
    /// From the start to the last reply.
    pub accepting: ProcessUsage,
    /// From the start until every watched tier was complete.
    pub settled: ProcessUsage,
    pub accepting_cpu_ns_per_transaction: u64,
    pub settled_cpu_ns_per_transaction: u64,
    /// Voluntary context switches per transaction until the last reply: how often a thread went to sleep and was woken.
    pub wakeups_per_transaction: f64,
}

impl Server {
    pub fn new(accepting: ProcessUsage, settled: ProcessUsage, transactions: u64, memory: Memory) -> Self {
        let transactions = transactions.max(1);
        Self {
            memory,
            accepting,
            settled,
            accepting_cpu_ns_per_transaction: accepting.cpu_ns / transactions,
            settled_cpu_ns_per_transaction: settled.cpu_ns / transactions,
            wakeups_per_transaction: accepting.voluntary_switches as f64 / transactions as f64,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeeReport {
    pub base_fee_before_wei: u128,
    /// Missing when the node did not answer any more.
    pub base_fee_after_wei: Option<u128>,
    pub fee_cap_wei: u128,
    pub tip_wei: u128,
    /// The base fee has grown past what the transactions offer: later ones could not be placed.
    pub cap_exceeded: bool,
}

impl FeeReport {
    pub fn new(base_fee_before_wei: u128, base_fee_after_wei: Option<u128>, fee_cap_wei: u128, tip_wei: u128) -> Self {
        let cap_exceeded = base_fee_after_wei.is_some_and(|after_wei| after_wei > fee_cap_wei);
        Self { base_fee_before_wei, base_fee_after_wei, fee_cap_wei, tip_wei, cap_exceeded }
    }
}

impl Report {
    pub fn from_file(path: &str) -> Result<Self> {
        let failed = |reason: String| Error::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let report: Self = serde_json::from_str(&text).map_err(|e| failed(format!("not a report of loadgen: {e}")))?;
        if report.format != FORMAT {
            return Err(failed(format!("report format {}, this loadgen reads format {FORMAT}", report.format)));
        }
        Ok(report)
    }

    pub fn write_file(&self, path: &str) -> Result<()> {
        let value = serde_json::to_value(self).expect("a report has only string keys");
        std::fs::write(path, json::pretty(&value))
            .map_err(|e| Error::File { path: path.to_owned(), reason: e.to_string() })
    }

    /// Every error with its kind, the most frequent first.
    pub fn errors(&self) -> Vec<(Category, &str, u64)> {
        let rejections =
            self.rejections.iter().map(|(text, &count)| (Category::of_rejection(text), text.as_str(), count));
        let transport = self.transport_errors.iter();
        let transport = transport.map(|(text, &count)| (Category::of_transport(text), text.as_str(), count));
        let mut errors: Vec<_> = rejections.chain(transport).collect();
        errors.sort_by_key(|&(category, text, count)| (std::cmp::Reverse(count), category, text));
        errors
    }

    pub fn latency(&self, tier: Tier) -> Option<&Latency> {
        match self.tiers.get(&tier)? {
            TierReport::Measured { latency, .. } => Some(latency),
            TierReport::NotOffered { .. } => None,
        }
    }
}

/// Counts what became of the transactions. In a closed loop with an end in time, what was left at the end was not planned.
pub fn count(result: &EngineResult, ends_in_time: bool) -> Counts {
    let mut counts = Counts { planned: result.transactions.len() as u64, late: result.late, ..Counts::default() };
    for transaction in &result.transactions {
        if transaction.history.sent_ns == NEVER {
            counts.dropped += 1;
            continue;
        }
        counts.sent += 1;
        match transaction.outcome {
            Outcome::Accepted => counts.accepted += 1,
            Outcome::Rejected => counts.rejected += 1,
            Outcome::TransportError => counts.transport_errors += 1,
            Outcome::None => counts.unanswered += 1,
        }
    }
    if ends_in_time {
        (counts.planned, counts.dropped) = (counts.sent, 0);
    }
    counts
}

/// Latency of an accepted transaction at a tier: from its intended time, or from that of the transaction that it has to wait
/// for, where that is later, since before it no node can go on with it.
pub fn latency_ns(transactions: &[TransactionRecord], index: usize, ready_with: usize, arrived_ns: u64) -> Option<u64> {
    let intended_ns = |index: usize| transactions[index].history.intended_ns;
    let is_counted = transactions[index].outcome == Outcome::Accepted && arrived_ns != NEVER;
    let filler_ns = if intended_ns(ready_with) == NEVER { 0 } else { intended_ns(ready_with) };
    is_counted.then(|| arrived_ns.saturating_sub(intended_ns(index).max(filler_ns)).max(1))
}

/// What makes a run of an open loop invalid: a generator that is late by more than 1 ms, or by more than a tenth of the
/// mean distance between requests where that is larger, in more than one request of a hundred.
pub fn lag_limit_ns(pace: Pace, batch: u64) -> u64 {
    match pace {
        Pace::Open { tempo } => ((batch as f64 / tempo.rate_per_s * 1e8) as u64).max(1_000_000),
        Pace::Closed => u64::MAX,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::engine::queue::Record;
    use crate::engine::replies::ErrorClasses;
    use crate::engine::sender::latency_histogram;
    use crate::schedule::Arrival;

    /// Compares a text with the committed one; with `LOADGEN_GOLDEN=write` it is written instead.
    #[track_caller]
    pub fn check_golden(name: &str, text: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/golden").join(name);
        if std::env::var("LOADGEN_GOLDEN").as_deref() == Ok("write") {
            std::fs::write(&path, text).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        let different = text.lines().zip(golden.lines()).find(|(now, then)| now != then);
        assert!(text == golden, "{name} has changed (LOADGEN_GOLDEN=write accepts it): {different:?}");
    }

    fn latency(base: u64) -> Latency {
        Latency {
            count: 1_000,
            min_ns: base,
            mean_ns: base * 2,
            p50_ns: base * 2,
            p90_ns: base * 3,
            p99_ns: base * 4,
            p999_ns: base * 5,
            max_ns: base * 6,
        }
    }

    fn sample_tiers() -> BTreeMap<Tier, TierReport> {
        let measured = |base: u64| TierReport::Measured {
            source: "s".into(),
            latency: latency(base),
            curve: vec![
                (0.0, base),
                (0.5, base * 2),
                (0.9, base * 3),
                (0.99, base * 4),
                (0.999, base * 5),
                (1.0, base * 6),
            ],
            missing: 0,
            reverted: None,
            problem: None,
        };
        BTreeMap::from([
            (Tier::Accepted, measured(1_000_000)),
            (Tier::Preconfirmed, TierReport::NotOffered { reason: "no such subscription".into() }),
            (Tier::Sealed, measured(500_000_000)),
        ])
    }

    fn sample_series() -> series::Series {
        let tier_series = |base: u64| series::TierSeries {
            arrived: vec![90, 110, 100],
            p50_ns: vec![base * 2, base, base * 2],
            p99_ns: vec![base * 4, base * 3, base * 4],
        };
        series::Series {
            interval_ms: 1_000,
            sent: vec![340, 330, 340],
            failed: vec![10, 0, 0],
            tiers: BTreeMap::from([(Tier::Accepted, tier_series(1_000_000)), (Tier::Sealed, tier_series(500_000_000))]),
        }
    }

    fn sample_costs() -> (CpuUse, Server) {
        let usage = |cpu_ns, voluntary_switches, involuntary_switches| ProcessUsage {
            cpu_ns,
            voluntary_switches,
            involuntary_switches,
        };
        let memory = Memory::new(vec![100 << 20, 101 << 20, 101 << 20]);
        let server = Server::new(usage(100_000_000, 2_000, 5), usage(200_000_000, 3_000, 9), 1_000, memory);
        let node_threads = vec![ThreadUse { name: "builder".into(), cores: 0.2 }];
        (CpuUse { cores: 2.0, busy: 0.9, stolen: 0.01, generator: 0.3, node: Some(0.5), node_threads }, server)
    }

    pub fn sample() -> Report {
        let (cpu, server) = sample_costs();
        Report {
            format: FORMAT,
            loadgen_version: "0.1.0".into(),
            command: vec!["loadgen".into(), "run".into()],
            started_unix_ms: 1,
            machine: "m".into(),
            node: NodeReport {
                url: "http://127.0.0.1:6197".into(),
                targets: vec!["http://127.0.0.1:6197".into()],
                protocol: Protocol::Http,
                client: "c".into(),
                chain_id: 61972,
            },
            load: LoadReport {
                workload: "transfer".into(),
                seed: 1,
                transactions: 1_010,
                accounts: 10,
                recipients: 10,
                connections: 4,
                outstanding_max: 1,
                batch: 1,
                pace: Pace::Open { tempo: Tempo::steady(Arrival::Poisson, 1_000.0) },
            },
            counts: Counts { planned: 1_010, sent: 1_010, accepted: 1_000, rejected: 10, ..Counts::default() },
            ends: BTreeMap::from([("in a block".into(), 1_000), ("refused".into(), 10)]),
            unexplained: 0,
            categories: BTreeMap::from([(Category::Nonce, 10)]),
            rejections: BTreeMap::from([("-32000: nonce too low".into(), 10)]),
            transport_errors: BTreeMap::new(),
            tiers: sample_tiers(),
            rates: Rates { wall_s: 1.0, sent_per_s: 1_010.0, accepted_per_s: 1_000.0 },
            generator: Generator {
                cpu_ns_per_transaction: 20_000,
                sender_cpu_ns_per_transaction: 15_000,
                sender_threads: 1,
                sender_turns_per_transaction: 1.5,
                lag: latency(1_000),
                lag_limit_ns: 1_000_000,
                valid: true,
            },
            server: Some(server),
            cpu,
            resent: None,
            series: sample_series(),
            search: vec![],
            notes: vec![],
            fees: FeeReport::new(1_000_000, Some(2_000_000), 2_000_000_000, 1_000_000_000),
            asserts: vec![],
            verification: None,
        }
    }

    #[test]
    fn a_report_survives_json() {
        let report = sample();
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }

    #[test]
    fn counts_add_up() {
        let record = |sent_ns, outcome| TransactionRecord {
            history: Record { intended_ns: 0, sent_ns, answered_ns: 10 },
            outcome,
        };
        let result = EngineResult {
            transactions: vec![
                record(1, Outcome::Accepted),
                record(1, Outcome::Rejected),
                record(1, Outcome::TransportError),
                record(1, Outcome::None),
                record(NEVER, Outcome::None),
            ],
            rejections: ErrorClasses::default(),
            transport_errors: ErrorClasses::default(),
            given_up: 0,
            lag: latency_histogram(),
            late: 0,
            sender_cpu_ns: 0,
            loop_turns: 0,
            end_ns: 0,
        };
        let counts = count(&result, false);
        assert_eq!((counts.planned, counts.sent, counts.dropped), (5, 4, 1));
        assert_eq!(counts.sent, counts.accepted + counts.errors());
        let timed = count(&result, true);
        assert_eq!((timed.planned, timed.sent, timed.dropped), (4, 4, 0));
    }

    #[test]
    fn a_gap_is_no_fault_of_the_node() {
        let record = |intended_ns, outcome| TransactionRecord {
            history: Record { intended_ns, sent_ns: intended_ns, answered_ns: intended_ns + 1 },
            outcome,
        };
        let transactions =
            [record(10, Outcome::Accepted), record(500, Outcome::Accepted), record(5, Outcome::Rejected)];
        assert_eq!(latency_ns(&transactions, 0, 0, 700), Some(690));
        assert_eq!(latency_ns(&transactions, 0, 1, 700), Some(200));
        assert_eq!(latency_ns(&transactions, 1, 0, 700), Some(200));
        assert_eq!(latency_ns(&transactions, 0, 0, NEVER), None);
        assert_eq!(latency_ns(&transactions, 2, 2, 700), None);
    }

    #[test]
    fn the_lag_limit_is_the_larger_one() {
        let open = |rate_per_s| Pace::Open { tempo: Tempo::steady(Arrival::Constant, rate_per_s) };
        assert_eq!(lag_limit_ns(open(10_000.0), 1), 1_000_000);
        assert_eq!(lag_limit_ns(open(10.0), 1), 10_000_000);
        assert_eq!(lag_limit_ns(open(1_000.0), 100), 10_000_000);
        assert_eq!(lag_limit_ns(Pace::Closed, 1), u64::MAX);
    }
}
