//! From what was measured to the report: tiers, curves, ends and costs.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use alloy_primitives::B256;

use crate::client::rpc::RpcClient;
use crate::engine::EngineResult;
use crate::engine::queue::NEVER;
use crate::engine::replies::Outcome;
use crate::engine::sender::latency_histogram;
use crate::error::Result;
use crate::fate;
use crate::process;
use crate::report::hdr_log::{self, TierTimes};
use crate::report::series::{self, Latencies, Series};
use crate::report::{
    self, CpuUse, FeeReport, Generator, Latency, LoadReport, Memory, NodeReport, Rates, Report, Server, ThreadUse,
    TierReport,
};
use crate::run::{self, Job, Measured, Ready};
use crate::sampler::Totals;
use crate::taxonomy::Category;
use crate::tiers::{NotOffered, Tier};
use crate::workload::{Kind, Meta, NONE};

/// The busiest threads of the node that the report names.
const THREADS_SHOWN: usize = 6;

/// Arrival times of a watched tier.
pub fn arrived_ns(measured: &Measured, tier: Tier) -> Option<&Vec<u64>> {
    measured.arrivals.iter().find(|(watched, ..)| *watched == tier).map(|(.., arrivals)| &arrivals.arrived_ns)
}

type BoxedLatencies<'a> = Box<dyn Fn(usize) -> Option<(u64, u64)> + 'a>;

/// (time of arrival, latency) of each transaction at a tier, by its index.
fn latencies<'a>(measured: &'a Measured, metas: &'a [Meta], tier: Tier) -> BoxedLatencies<'a> {
    let transactions = &measured.result.transactions;
    let of = |index: usize, ready_with: usize, at_ns: u64| {
        report::latency_ns(transactions, index, ready_with, at_ns).map(|latency_ns| (at_ns, latency_ns))
    };
    match arrived_ns(measured, tier) {
        Some(arrived_ns) => Box::new(move |index| of(index, metas[index].ready_with as usize, arrived_ns[index])),
        // The reply to a transaction waits for no other.
        None => Box::new(move |index| of(index, index, transactions[index].history.answered_ns)),
    }
}

/// The watched tiers, *accepted* first.
fn watched<'a>(measured: &'a Measured, metas: &'a [Meta]) -> Vec<(Tier, BoxedLatencies<'a>)> {
    let tiers = std::iter::once(Tier::Accepted).chain(measured.arrivals.iter().map(|(tier, ..)| *tier));
    tiers.map(|tier| (tier, latencies(measured, metas, tier))).collect()
}

pub fn hdr_log(metas: &[Meta], measured: &Measured) -> Result<Vec<u8>> {
    let watched = watched(measured, metas);
    let times: Vec<TierTimes<'_>> =
        watched.iter().map(|(tier, latencies)| TierTimes { tier: *tier, latencies: latencies.as_ref() }).collect();
    hdr_log::render(measured.started, metas.len(), &times)
}

/// What became of each transaction: in words, with how often. Adds up to their number.
pub fn ends(client: &mut RpcClient, metas: &[Meta], measured: &Measured, hashes: &[B256]) -> BTreeMap<String, u64> {
    let (mut ends, mut open) = (BTreeMap::new(), Vec::new());
    let sealed = arrived_ns(measured, Tier::Sealed);
    let mut given_up = measured.result.given_up;
    for (index, meta) in metas.iter().enumerate() {
        let transaction = &measured.result.transactions[index];
        let in_block = sealed.map(|arrived_ns| arrived_ns[index] != NEVER);
        let text = match (transaction.outcome, in_block) {
            (Outcome::Accepted, Some(true)) => "in a block",
            (Outcome::Accepted, None) => "accepted; blocks were not watched",
            (Outcome::Accepted, Some(false)) if is_replaced(measured, *meta) => "replaced, as its workload wants it",
            (Outcome::Accepted, Some(false)) => {
                open.push(hashes[index]);
                continue;
            }
            (Outcome::Rejected, Some(true)) => "refused at first, in a block after it was sent again",
            (Outcome::Rejected, _) => "refused",
            (Outcome::TransportError, Some(true)) => "no usable reply, and yet in a block",
            (Outcome::TransportError, _) => "no usable reply",
            (Outcome::None, Some(true)) => "no reply in time, and yet in a block",
            (Outcome::None, _) if transaction.history.sent_ns != NEVER => "no reply in time",
            (Outcome::None, _) if given_up > 0 => {
                given_up -= 1;
                "never sent: the node had closed their connection too often"
            }
            (Outcome::None, _) => "never sent: the replies before them did not come until the run ended",
        };
        *ends.entry(text.to_owned()).or_insert(0) += 1;
    }
    let count = open.len() as u64;
    match fate::explain(client, &open) {
        Ok(reasons) => reasons.into_iter().for_each(|(reason, count)| *ends.entry(reason).or_insert(0) += count),
        // A node that does not answer any more gives no reason either.
        Err(error) => drop(ends.insert(format!("{}: {error}", fate::UNEXPLAINED), count)),
    }
    ends
}

/// Whether a transaction's place was taken by the one that was meant to: that one is in a block.
pub fn is_replaced(measured: &Measured, meta: Meta) -> bool {
    let sealed = arrived_ns(measured, Tier::Sealed);
    meta.replaced_by != NONE && sealed.is_some_and(|arrived_ns| arrived_ns[meta.replaced_by as usize] != NEVER)
}

/// Whether its replacement was accepted, so that it is not meant to get any further itself.
fn is_to_be_replaced(result: &EngineResult, meta: Meta) -> bool {
    meta.replaced_by != NONE && result.transactions[meta.replaced_by as usize].outcome == Outcome::Accepted
}

pub fn report(
    job: &Job<'_>,
    ready: &Ready,
    measured: Measured,
    base_fee_after_wei: Option<u128>,
    mut ends: BTreeMap<String, u64>,
) -> Report {
    let counts = run::count(job, &measured.result);
    if job.stop_after.is_some() {
        // A closed loop with an end in time did not plan what was left.
        ends.retain(|text, _| !text.starts_with("never sent: the replies"));
    }
    let sent = counts.sent.max(1);
    let result = &measured.result;
    let lag_limit_ns = report::lag_limit_ns(job.pace, job.common.batch);
    let wall_s = result.end_ns as f64 / 1e9;
    let rate = |count: u64| count as f64 / wall_s.max(1e-9);
    let (node, chain) = (&ready.node, &ready.chain);
    Report {
        format: report::FORMAT,
        loadgen_version: env!("CARGO_PKG_VERSION").to_owned(),
        command: job.command.clone(),
        started_unix_ms: measured.started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        machine: process::machine(),
        node: NodeReport {
            url: job.common.url[0].clone(),
            targets: ready.targets.iter().map(|target| target.url.clone()).collect(),
            protocol: job.common.transport,
            client: node.client.clone(),
            chain_id: node.chain_id,
        },
        load: load_report(job, ready),
        unexplained: ends.iter().filter(|(text, _)| text.starts_with(fate::UNEXPLAINED)).map(|(_, &count)| count).sum(),
        ends,
        categories: categories(result),
        tiers: tier_reports(&ready.metas, &measured),
        series: series_of(&ready.metas, &measured),
        rates: Rates { wall_s, sent_per_s: rate(counts.sent), accepted_per_s: rate(counts.accepted) },
        generator: Generator {
            cpu_ns_per_transaction: measured.cpu_ns / sent,
            sender_cpu_ns_per_transaction: result.sender_cpu_ns / sent,
            sender_threads: (job.common.threads).min(ready.plan.connection_count as u64),
            sender_turns_per_transaction: result.loop_turns as f64 / sent as f64,
            lag: Latency::of(&result.lag),
            lag_limit_ns,
            valid: run::is_valid(result, lag_limit_ns),
        },
        cpu: cpu_use(&measured),
        server: server(&measured, counts.accepted),
        fees: FeeReport::new(node.base_fee_wei, base_fee_after_wei, chain.max_fee_per_gas_wei, chain.tip_wei),
        rejections: measured.result.rejections.0.clone(),
        transport_errors: measured.result.transport_errors.0.clone(),
        counts,
        resent: measured.resent,
        search: Vec::new(),
        notes: notes(ready),
        asserts: Vec::new(),
        verification: None,
    }
}

fn notes(ready: &Ready) -> Vec<String> {
    let mut notes = Vec::new();
    if ready.plan.mix.contains(Kind::Conditional) && !ready.chain.conditional {
        let method = "eth_sendRawTransactionConditional";
        notes.push(format!("the node has no {method}: conditional transactions were sent without their conditions"));
    }
    notes
}

fn categories(result: &EngineResult) -> BTreeMap<Category, u64> {
    let mut categories = BTreeMap::new();
    let rejections = result.rejections.0.iter().map(|(text, count)| (Category::of_rejection(text), count));
    let transport = result.transport_errors.0.iter().map(|(text, count)| (Category::of_transport(text), count));
    for (category, count) in rejections.chain(transport) {
        *categories.entry(category).or_insert(0) += count;
    }
    categories
}

fn tier_reports(metas: &[Meta], measured: &Measured) -> BTreeMap<Tier, TierReport> {
    let mut tiers = BTreeMap::new();
    let result = &measured.result;
    for (tier, latencies) in watched(measured, metas) {
        let mut histogram = latency_histogram();
        let mut missing = 0;
        for (index, &meta) in metas.iter().enumerate() {
            match latencies(index) {
                Some((_, latency_ns)) => histogram.saturating_record(latency_ns),
                None if result.transactions[index].outcome != Outcome::Accepted => {}
                None => missing += u64::from(!is_to_be_replaced(result, meta)),
            }
        }
        let watch = measured.arrivals.iter().find(|(watched, ..)| *watched == tier);
        let source = watch.map_or("reply to eth_sendRawTransaction", |(_, source, _)| source).to_owned();
        let arrivals = watch.map(|(.., arrivals)| arrivals);
        let report = TierReport::Measured {
            source,
            latency: Latency::of(&histogram),
            curve: series::curve(&histogram),
            missing,
            reverted: arrivals.and_then(|arrivals| arrivals.reverted),
            problem: arrivals.and_then(|arrivals| arrivals.problem.clone()),
        };
        tiers.insert(tier, report);
    }
    for (tier, NotOffered(reason)) in &measured.not_offered {
        tiers.insert(*tier, TierReport::NotOffered { reason: reason.clone() });
    }
    tiers
}

fn series_of(metas: &[Meta], measured: &Measured) -> Series {
    let watched = watched(measured, metas);
    let tiers: Vec<(Tier, Latencies<'_>)> =
        watched.iter().map(|(tier, latencies)| (*tier, latencies.as_ref() as Latencies<'_>)).collect();
    Series::new(&measured.result.transactions, &tiers)
}

/// Cores that each part used between the start and the last reply.
fn cpu_use(measured: &Measured) -> CpuUse {
    let [before, after, _] = &measured.totals;
    let wall_ns = after.at.duration_since(before.at).as_nanos().max(1) as f64;
    let cores = |before_ns: u64, after_ns: u64| after_ns.saturating_sub(before_ns) as f64 / wall_ns;
    let machine = before.machine.zip(after.machine);
    CpuUse {
        cores: std::thread::available_parallelism().map_or(1, usize::from) as f64,
        busy: machine.map_or(0.0, |(before, after)| cores(before.busy_ns, after.busy_ns)),
        stolen: machine.map_or(0.0, |(before, after)| cores(before.stolen_ns, after.stolen_ns)),
        generator: measured.cpu_ns as f64 / wall_ns,
        node: before.node.zip(after.node).map(|(before, after)| cores(before.cpu_ns, after.cpu_ns)),
        node_threads: busiest(before, after, wall_ns),
    }
}

fn busiest(before: &Totals, after: &Totals, wall_ns: f64) -> Vec<ThreadUse> {
    let used = |(name, &cpu_ns): (&String, &u64)| {
        let before_ns = before.node_threads_cpu_ns.get(name).copied().unwrap_or(0);
        ThreadUse { name: name.clone(), cores: cpu_ns.saturating_sub(before_ns) as f64 / wall_ns }
    };
    let mut threads: Vec<ThreadUse> = after.node_threads_cpu_ns.iter().map(used).collect();
    threads.retain(|thread| thread.cores >= 0.005);
    threads.sort_by(|a, b| b.cores.total_cmp(&a.cores));
    threads.truncate(THREADS_SHOWN);
    threads
}

fn server(measured: &Measured, accepted: u64) -> Option<Server> {
    let [before, after, settled] = measured.totals.each_ref().map(|totals| totals.node);
    let (before, after, settled) = (before?, after?, settled?);
    let memory = Memory::new(measured.memory_bytes.clone().unwrap_or_default());
    Some(Server::new(after.since(&before), settled.since(&before), accepted, memory))
}

fn load_report(job: &Job<'_>, ready: &Ready) -> LoadReport {
    let plan = &ready.plan;
    LoadReport {
        workload: plan.mix.to_string(),
        seed: plan.seed,
        transactions: plan.transaction_count as u64,
        accounts: plan.account_count as u64,
        recipients: plan.recipient_count,
        connections: plan.connection_count as u64,
        outstanding_max: job.outstanding_max() as u64,
        batch: plan.batch as u64,
        pace: job.pace,
    }
}
