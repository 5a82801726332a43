//! One run from start to end: job → report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256};

use crate::cli::{CommonArgs, RunArgs};
use crate::client::Endpoint;
use crate::client::rpc::RpcClient;
use crate::engine::queue::NEVER;
use crate::engine::replies::Outcome;
use crate::engine::sender::process_cpu_ns;
use crate::engine::{Engine, EngineConfig, EngineResult, Live};
use crate::error::{Error, Result};
use crate::limits::TRANSACTIONS_MAX;
use crate::process::{self, ProcessUsage};
use crate::progress::Progress;
use crate::report::hdr_log::{self, TierTimes};
use crate::report::{
    self, FeeReport, Generator, Latency, LoadReport, NodeReport, Pace, Rates, Report, Server, TierReport,
};
use crate::schedule;
use crate::setup::{self, Fees, NodeInfo};
use crate::tiers::{self, Arrivals, NotOffered, Tier, Watch};
use crate::verify;
use crate::workload::accounts::Account;
use crate::workload::{self, Chain, GasLimits, Plan, Prepared};

/// Transactions of a closed loop, or of a dry run, that names none.
const TRANSACTIONS_DEFAULT: u64 = 100_000;

/// Time between the end of set-up and the start of the clock: every connection is open and every thread asleep by then.
const START_DELAY_MS: u64 = 100;

/// One run.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    pub common: &'a CommonArgs,
    pub seed: u64,
    pub pace: Pace,
    pub transaction_count: usize,
    pub stop_after: Option<Duration>,
    pub verify_wait: Option<Duration>,
    pub with_hdr_log: bool,
    pub command: Vec<String>,
}

#[derive(Debug)]
pub struct Finished {
    pub report: Report,
    pub hdr_log: Option<Vec<u8>>,
    /// Why `--verify` has no answer; the report is worth showing all the same.
    pub verification_error: Option<Error>,
}

impl<'a> Job<'a> {
    pub fn from_args(args: &'a RunArgs) -> Result<Self> {
        let pace = match args.rate {
            Some(rate_per_s) => Pace::Open { rate_per_s, arrival: args.arrival },
            None => Pace::Closed,
        };
        let by_duration =
            args.rate.zip(args.duration).map(|(rate, duration)| (rate * duration.as_secs_f64()).ceil() as u64);
        let transactions = args.transactions.or(by_duration).unwrap_or(TRANSACTIONS_DEFAULT);
        let transaction_count = check_count(transactions)?;
        Ok(Self {
            common: &args.common,
            seed: args.common.seed,
            pace,
            transaction_count,
            stop_after: args.duration.filter(|_| pace == Pace::Closed),
            verify_wait: args.verify.then_some(args.verify_wait),
            with_hdr_log: args.hdr_log.is_some(),
            command: std::env::args().collect(),
        })
    }

    /// The workload; with fewer accounts or transactions than connections, fewer connections are used.
    fn plan(&self) -> Plan {
        let common = self.common;
        let batch = common.batch as usize;
        let account_count = (common.accounts as usize).min(self.transaction_count);
        let request_count = self.transaction_count.div_ceil(batch);
        Plan {
            mix: common.workload.clone(),
            seed: self.seed,
            transaction_count: self.transaction_count,
            account_count,
            recipient_count: common.recipients,
            storage_key_count: common.storage_keys,
            connection_count: (common.connections as usize).min(account_count).min(request_count),
            batch,
        }
    }

    fn outstanding_max(&self) -> usize {
        let default = if self.pace == Pace::Closed { 1 } else { 64 };
        self.common.outstanding.unwrap_or(default) as usize
    }

    fn fees(&self) -> Fees {
        // The command line bounds the tip to 10^9 gwei.
        Fees { tip_wei: (self.common.tip * 1e9) as u128, cap_multiple: self.common.fee_cap_multiple }
    }

    fn say(&self, text: &str) {
        if !self.common.no_progress {
            eprintln!("{text}");
        }
    }
}

/// Refuses counts that would not fit the memory of any machine this is meant for.
pub fn check_count(transactions: u64) -> Result<usize> {
    let count = usize::try_from(transactions).unwrap_or(usize::MAX);
    if (1..=TRANSACTIONS_MAX).contains(&count) {
        return Ok(count);
    }
    Err(Error::Usage(format!("a run has 1 to {TRANSACTIONS_MAX} transactions, not {transactions}")))
}

fn accounts_of(plan: &Plan) -> Vec<Account> {
    (0..plan.account_count as u64).map(|index| Account::derive(plan.seed, index)).collect()
}

/// Signs without a node and says what it costs.
pub fn dry_run(job: &Job<'_>) -> Result<String> {
    let plan = job.plan();
    let accounts = accounts_of(&plan);
    let tip_wei = job.fees().tip_wei;
    let chain = Chain {
        chain_id: 61972,
        max_fee_per_gas_wei: setup::fee_cap_wei(1_000_000, job.common.fee_cap_multiple.into(), tip_wei),
        tip_wei,
        gas_limits: GasLimits::default(),
        nonces: vec![0; plan.account_count],
        token: Address::repeat_byte(1),
        storage: Address::repeat_byte(2),
    };
    let (started, cpu_before_ns) = (Instant::now(), process_cpu_ns());
    let prepared = workload::prepare(&plan, &chain, &accounts, &Endpoint::parse(&job.common.url, "http")?);
    let (wall, cpu_ns) = (started.elapsed(), process_cpu_ns() - cpu_before_ns);
    let bytes: usize = prepared.connections.iter().map(|load| load.bytes.len()).sum();
    let count = prepared.hashes.len();
    Ok(format!(
        "{count} transactions signed and laid out in {:.3} s: {:.2} us CPU/tx, {:.1} request bytes/tx, {} requests on {} connections",
        wall.as_secs_f64(),
        cpu_ns as f64 / 1e3 / count as f64,
        bytes as f64 / count as f64,
        plan.request_count(),
        plan.connection_count
    ))
}

/// A chain that is ready, and everything that is sent to it.
struct Ready {
    client: RpcClient,
    node: NodeInfo,
    http: Endpoint,
    plan: Plan,
    chain: Chain,
    prepared: Prepared,
}

/// What the measured part left behind.
struct Measured {
    started: SystemTime,
    result: EngineResult,
    arrivals: Vec<(Tier, String, Arrivals)>,
    not_offered: Vec<(Tier, NotOffered)>,
    cpu_ns: u64,
    server: Option<Server>,
}

/// Runs a job to its end.
pub fn execute(job: &Job<'_>) -> Result<Finished> {
    let mut ready = make_ready(job)?;
    let hashes = Arc::new(std::mem::take(&mut ready.prepared.hashes));
    let measured = measure(job, &mut ready, &hashes)?;
    let verification = job.verify_wait.map(|wait| {
        let (open, sealed) = open_transactions(&measured.result, &measured.arrivals, &hashes);
        verify::verify(&mut ready.client, open, sealed, wait)
    });
    let (verification, verification_error) = match verification {
        Some(Err(error)) => (None, Some(error)),
        other => (other.and_then(Result::ok), None),
    };
    // A node that has died meanwhile leaves this out; what was measured stands.
    let base_fee_after_wei = setup::base_fee_wei(&mut ready.client).ok();
    let hdr_log = if job.with_hdr_log { Some(render_hdr_log(&measured)?) } else { None };
    let mut report = build_report(job, &ready, measured, base_fee_after_wei);
    report.verification = verification;
    Ok(Finished { report, hdr_log, verification_error })
}

/// The part between set-up and report: from the start of the clock until every tier is complete.
fn measure(job: &Job<'_>, ready: &mut Ready, hashes: &Arc<Vec<B256>>) -> Result<Measured> {
    let loads = std::mem::take(&mut ready.prepared.connections);
    let start = Instant::now() + Duration::from_millis(START_DELAY_MS + loads.len() as u64);
    let (watches, not_offered) = watch_tiers(job, ready, hashes, start)?;
    let live = Arc::new(Live::default());
    let config = engine_config(job, ready, start)?;
    let unreachable = |cause| Error::Connect { url: job.common.url.clone(), cause };
    let engine = Engine::build(&config, loads, Arc::clone(hashes), &live).map_err(unreachable)?;
    let progress = (!job.common.no_progress).then(|| Progress::start(Arc::clone(&live), hashes.len() as u64));
    let usage = || job.common.server_pid.map(ProcessUsage::read).transpose();
    let usage_before = usage()?;
    let (cpu_before_ns, started) =
        (process_cpu_ns(), SystemTime::now() + start.saturating_duration_since(Instant::now()));
    let result = engine.run().map_err(|error| Error::Setup(format!("a sending thread failed: {error}")))?;
    let cpu_ns = process_cpu_ns() - cpu_before_ns;
    let usage_after = usage()?;
    if let Some(progress) = progress {
        progress.finish();
    }
    let accepted = report::count(&result, false).accepted;
    settle(job, &watches, accepted);
    let server = usage_before
        .zip(usage_after)
        .zip(usage()?)
        .map(|((before, after), settled)| Server::new(after.since(&before), settled.since(&before), accepted));
    let arrivals = watches.into_iter().map(|watch| (watch.tier, watch.source.clone(), watch.finish())).collect();
    Ok(Measured { started, result, arrivals, not_offered, cpu_ns, server })
}

fn build_report(job: &Job<'_>, ready: &Ready, measured: Measured, base_fee_after_wei: Option<u128>) -> Report {
    let Measured { started, result, arrivals, not_offered, cpu_ns, server } = measured;
    let counts = report::count(&result, job.stop_after.is_some());
    let sent = counts.sent.max(1);
    let lag_limit_ns = report::lag_limit_ns(job.pace, job.common.batch);
    let wall_s = result.end_ns as f64 / 1e9;
    let rate = |count: u64| count as f64 / wall_s.max(1e-9);
    let (node, chain) = (&ready.node, &ready.chain);
    Report {
        format: report::FORMAT,
        loadgen_version: env!("CARGO_PKG_VERSION").to_owned(),
        command: job.command.clone(),
        started_unix_ms: started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        machine: process::machine(),
        node: NodeReport { url: job.common.url.clone(), client: node.client.clone(), chain_id: node.chain_id },
        load: load_report(job, &ready.plan),
        counts,
        tiers: tier_reports(&result, &arrivals, not_offered),
        rates: Rates { wall_s, sent_per_s: rate(counts.sent), accepted_per_s: rate(counts.accepted) },
        generator: Generator {
            cpu_ns_per_transaction: cpu_ns / sent,
            sender_cpu_ns_per_transaction: result.sender_cpu_ns / sent,
            sender_threads: (job.common.threads).min(ready.plan.connection_count as u64),
            sender_turns_per_transaction: result.loop_turns as f64 / sent as f64,
            lag: Latency::of(&result.lag),
            lag_limit_ns,
            valid: result.lag.is_empty() || result.lag.value_at_quantile(0.99) <= lag_limit_ns,
        },
        server,
        fees: FeeReport::new(node.base_fee_wei, base_fee_after_wei, chain.max_fee_per_gas_wei, chain.tip_wei),
        rejections: result.rejections.0,
        transport_errors: result.transport_errors.0,
        asserts: Vec::new(),
        verification: None,
    }
}

fn make_ready(job: &Job<'_>) -> Result<Ready> {
    let plan = job.plan();
    let http = Endpoint::parse(&job.common.url, "http")?;
    let funder = job.common.private_key.trim_start_matches("0x").parse().map(Account::from_key);
    let funder = funder.map_err(|_| Error::Usage("--private-key is not a key: it has 64 hexadecimal digits".into()))?;
    let mut client = RpcClient::new(http.clone());
    let node = NodeInfo::read(&mut client)?;
    let accounts = accounts_of(&plan);
    job.say(&format!("preparing {} accounts at {} ({})", plan.account_count, job.common.url, node.client));
    let chain = setup::set_up(&mut client, &node, &plan, job.fees(), &accounts, &funder)?;
    job.say(&format!("signing {} transactions", plan.transaction_count));
    let prepared = workload::prepare(&plan, &chain, &accounts, &http);
    Ok(Ready { client, node, http, plan, chain, prepared })
}

type Watched = (Vec<Watch>, Vec<(Tier, NotOffered)>);

fn watch_tiers(job: &Job<'_>, ready: &Ready, hashes: &[B256], start: Instant) -> Result<Watched> {
    let common = job.common;
    let websocket = common.ws_url.clone().unwrap_or_else(|| common.url.replacen("http://", "ws://", 1));
    let websocket = Endpoint::parse(&websocket, "ws")?;
    let indexes = tiers::index_of(hashes);
    let (mut watches, mut not_offered) = (Vec::new(), Vec::new());
    for tier in [Tier::Preconfirmed, Tier::Sealed].into_iter().filter(|tier| common.tiers.contains(tier)) {
        match tiers::watch(tier, &ready.http, Some(&websocket), Arc::clone(&indexes), start)? {
            Ok(watch) => watches.push(watch),
            Err(answer) => not_offered.push((tier, answer)),
        }
    }
    Ok((watches, not_offered))
}

fn engine_config(job: &Job<'_>, ready: &Ready, start: Instant) -> Result<EngineConfig> {
    let intended_ns = match job.pace {
        Pace::Open { rate_per_s, arrival } => {
            let requests_per_s = rate_per_s / ready.plan.batch as f64;
            Some(schedule::intended_times_ns(arrival, requests_per_s, ready.plan.request_count(), job.seed))
        }
        Pace::Closed => None,
    };
    Ok(EngineConfig {
        address: ready.http.address()?,
        intended_ns,
        outstanding_max: job.outstanding_max(),
        stop_sending_ns: job.stop_after.map_or(u64::MAX, |after| after.as_nanos() as u64),
        drain_ns: job.common.drain.as_nanos() as u64,
        thread_count: (job.common.threads as usize).min(ready.plan.connection_count),
        pin_core: job.common.pin,
        start,
    })
}

/// Waits until each tier has seen every accepted transaction, or nothing has arrived for a while.
fn settle(job: &Job<'_>, watches: &[Watch], accepted: u64) {
    let mut last = (0, Instant::now());
    loop {
        let waiting = |watch: &&Watch| watch.seen() < accepted && !watch.is_dead();
        let seen: u64 = watches.iter().map(Watch::seen).sum();
        if seen != last.0 {
            last = (seen, Instant::now());
        }
        if !watches.iter().any(|watch| waiting(&watch)) || last.1.elapsed() > job.common.settle {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn tier_reports(
    result: &EngineResult,
    arrivals: &[(Tier, String, Arrivals)],
    not_offered: Vec<(Tier, NotOffered)>,
) -> BTreeMap<Tier, TierReport> {
    let measured = |source: String, arrived_ns: &dyn Fn(usize) -> u64, problem: Option<String>| {
        let (histogram, missing) = report::tier_histogram(&result.transactions, arrived_ns);
        TierReport::Measured { source, latency: Latency::of(&histogram), missing, problem }
    };
    let replied = |index: usize| result.transactions[index].history.answered_ns;
    let mut tiers = BTreeMap::new();
    tiers.insert(Tier::Accepted, measured("reply to eth_sendRawTransaction".into(), &replied, None));
    for (tier, source, arrivals) in arrivals {
        let arrived = |index: usize| arrivals.arrived_ns[index];
        tiers.insert(*tier, measured(source.clone(), &arrived, arrivals.problem.clone()));
    }
    tiers.extend(not_offered.into_iter().map(|(tier, NotOffered(reason))| (tier, TierReport::NotOffered { reason })));
    tiers
}

/// Accepted transactions that were not seen in a block, and how many were.
fn open_transactions(
    result: &EngineResult,
    arrivals: &[(Tier, String, Arrivals)],
    hashes: &[B256],
) -> (Vec<B256>, u64) {
    let sealed = arrivals.iter().find(|(tier, ..)| *tier == Tier::Sealed).map(|(.., arrivals)| &arrivals.arrived_ns);
    let accepted = result.transactions.iter().enumerate().filter(|(_, tx)| tx.outcome == Outcome::Accepted);
    let is_open = |index: usize| sealed.is_none_or(|arrived_ns| arrived_ns[index] == NEVER);
    let (open, seen): (Vec<usize>, Vec<usize>) = accepted.map(|(index, _)| index).partition(|&index| is_open(index));
    (open.into_iter().map(|index| hashes[index]).collect(), seen.len() as u64)
}

fn render_hdr_log(measured: &Measured) -> Result<Vec<u8>> {
    let Measured { started, result, arrivals, .. } = measured;
    let replied: Vec<u64> = result.transactions.iter().map(|tx| tx.history.answered_ns).collect();
    let mut times = vec![TierTimes { tier: Tier::Accepted, arrived_ns: &replied }];
    times
        .extend(arrivals.iter().map(|(tier, _, arrivals)| TierTimes { tier: *tier, arrived_ns: &arrivals.arrived_ns }));
    hdr_log::render(*started, &result.transactions, &times)
}

fn load_report(job: &Job<'_>, plan: &Plan) -> LoadReport {
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
