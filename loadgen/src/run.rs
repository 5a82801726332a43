//! One run from start to end: job → report.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use alloy_primitives::{Address, B256};

use crate::assemble;
use crate::cli::{CommonArgs, RunArgs};
use crate::client::rpc::RpcClient;
use crate::client::{Endpoint, Protocol};
use crate::engine::connection::Target;
use crate::engine::queue::NEVER;
use crate::engine::replies::Outcome;
use crate::engine::sender::process_cpu_ns;
use crate::engine::{Engine, EngineConfig, EngineResult, Shared};
use crate::error::{Error, Result};
use crate::limits::TRANSACTIONS_MAX;
use crate::mend::{self, Mender, Resent};
use crate::progress::Progress;
use crate::report::{self, Pace, Report};
use crate::sampler::{MemorySampler, Totals};
use crate::schedule::Tempo;
use crate::setup::{self, Fees, NodeInfo};
use crate::tiers::{self, Arrivals, Blocks, NotOffered, Tier, Watch};
use crate::verify;
use crate::workload::accounts::Account;
use crate::workload::{self, Chain, GasLimits, Meta, NONE, Plan, Prepared};

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
        let pace = args.rate.map_or(Pace::Closed, |rate_per_s| {
            let mut tempo = Tempo::steady(args.arrival, rate_per_s);
            if args.arrival.grows() {
                (tempo.from_per_s, tempo.steps) = (args.rate_from.unwrap_or(rate_per_s / 10.0), args.steps);
            }
            Pace::Open { tempo }
        });
        let mean_per_s = match pace {
            Pace::Open { tempo } => Some(tempo.mean_per_s()),
            Pace::Closed => None,
        };
        let by_duration =
            mean_per_s.zip(args.duration).map(|(rate, duration)| (rate * duration.as_secs_f64()).ceil() as u64);
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

    pub fn outstanding_max(&self) -> usize {
        let default = if self.pace == Pace::Closed { 1 } else { 64 };
        self.common.outstanding.unwrap_or(default) as usize
    }

    fn fees(&self) -> Fees {
        // The command line bounds the tip to 10^9 gwei.
        Fees { tip_wei: (self.common.tip * 1e9) as u128, cap_multiple: self.common.fee_cap_multiple }
    }

    /// Where the load goes.
    fn targets(&self) -> Result<Vec<Endpoint>> {
        let urls = match self.common.transport {
            Protocol::Http => self.common.url.clone(),
            Protocol::WebSocket => self.websocket_urls(),
        };
        urls.iter().map(|url| Endpoint::parse(url, self.common.transport)).collect()
    }

    /// Those that are named, or the HTTP ones with another scheme.
    fn websocket_urls(&self) -> Vec<String> {
        if self.common.ws_url.is_empty() {
            return self.common.url.iter().map(|url| url.replacen("http://", "ws://", 1)).collect();
        }
        self.common.ws_url.clone()
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
        conditional: true,
    };
    let (started, cpu_before_ns) = (Instant::now(), process_cpu_ns());
    let prepared = workload::prepare(&plan, &chain, &accounts, &job.targets()?);
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
pub struct Ready {
    client: RpcClient,
    pub node: NodeInfo,
    pub targets: Vec<Endpoint>,
    pub plan: Plan,
    pub chain: Chain,
    pub metas: Arc<Vec<Meta>>,
    addresses: Vec<Address>,
    prepared: Prepared,
}

/// What the measured part left behind.
pub struct Measured {
    pub started: SystemTime,
    pub result: EngineResult,
    pub arrivals: Vec<(Tier, String, Arrivals)>,
    pub not_offered: Vec<(Tier, NotOffered)>,
    pub resent: Option<Resent>,
    pub cpu_ns: u64,
    /// Before the start, after the last reply, and when every tier was complete.
    pub totals: [Totals; 3],
    pub memory_bytes: Option<Vec<u64>>,
}

/// Runs a job to its end.
pub fn execute(job: &Job<'_>) -> Result<Finished> {
    let mut ready = make_ready(job)?;
    let shared = Shared::new(std::mem::take(&mut ready.prepared.hashes));
    let measured = measure(job, &ready, &shared)?;
    let verification = job.verify_wait.map(|wait| {
        let (open, sealed) = open_transactions(&measured, &ready.metas, &shared.hashes);
        verify::verify(&mut ready.client, open, sealed, wait)
    });
    let (verification, verification_error) = match verification {
        Some(Err(error)) => (None, Some(error)),
        other => (other.and_then(Result::ok), None),
    };
    // A node that has died meanwhile leaves these out; what was measured stands.
    let base_fee_after_wei = setup::base_fee_wei(&mut ready.client).ok();
    let ends = assemble::ends(&mut ready.client, &ready.metas, &measured, &shared.hashes);
    let hdr_log = if job.with_hdr_log { Some(assemble::hdr_log(&ready.metas, &measured)?) } else { None };
    let mut report = assemble::report(job, &ready, measured, base_fee_after_wei, ends);
    report.verification = verification;
    Ok(Finished { report, hdr_log, verification_error })
}

/// The part between set-up and report: from the start of the clock until every tier is complete.
fn measure(job: &Job<'_>, ready: &Ready, shared: &Shared) -> Result<Measured> {
    let (loads, pid) = (&ready.prepared.connections, job.common.server_pid);
    let start = Instant::now() + Duration::from_millis(START_DELAY_MS + loads.len() as u64);
    let (watches, not_offered) = watch_tiers(job, &shared.hashes, start)?;
    let config = engine_config(job, ready, start)?;
    let unreachable = |cause| Error::Connect { url: job.common.url.join(", "), cause };
    let engine = Engine::build(&config, loads, shared).map_err(unreachable)?;
    let sealed = watches.iter().find(|watch| watch.tier == Tier::Sealed).filter(|_| !job.common.no_resend);
    let mender = sealed.map(|watch| Mender::start(mend_job(ready, shared, watch)));
    let count = shared.hashes.len() as u64;
    let progress = (!job.common.no_progress).then(|| Progress::start(Arc::clone(&shared.live), count));
    let memory = pid.map(MemorySampler::start);
    let before = Totals::read(pid)?;
    let (cpu_before_ns, started) =
        (process_cpu_ns(), SystemTime::now() + start.saturating_duration_since(Instant::now()));
    let result = engine.run().map_err(|error| Error::Setup(format!("a sending thread failed: {error}")))?;
    let cpu_ns = process_cpu_ns() - cpu_before_ns;
    let after = Totals::read(pid)?;
    if let Some(progress) = progress {
        progress.finish();
    }
    settle(job, &watches, expected_in_blocks(&result, &ready.metas));
    let settled = Totals::read(pid)?;
    let resent = mender.map(Mender::finish);
    let arrivals = watches.into_iter().map(|watch| (watch.tier, watch.source.clone(), watch.finish())).collect();
    let memory_bytes = memory.map(MemorySampler::finish);
    let totals = [before, after, settled];
    Ok(Measured { started, result, arrivals, not_offered, resent, cpu_ns, totals, memory_bytes })
}

fn mend_job(ready: &Ready, shared: &Shared, sealed: &Watch) -> mend::Job {
    mend::Job {
        endpoint: ready.client.endpoint().clone(),
        protocol: ready.targets[0].protocol,
        plan: ready.plan.clone(),
        addresses: ready.addresses.clone(),
        nonces: ready.chain.nonces.clone(),
        metas: Arc::clone(&ready.metas),
        hashes: Arc::clone(&shared.hashes),
        loads: ready.prepared.connections.clone(),
        outcomes: Arc::clone(&shared.outcomes),
        sealed: sealed.arrived(),
    }
}

fn make_ready(job: &Job<'_>) -> Result<Ready> {
    let plan = job.plan();
    let targets = job.targets()?;
    let http = Endpoint::parse(&job.common.url[0], Protocol::Http)?;
    let funder = job.common.private_key.trim_start_matches("0x").parse().map(Account::from_key);
    let funder = funder.map_err(|_| Error::Usage("--private-key is not a key: it has 64 hexadecimal digits".into()))?;
    let mut client = RpcClient::new(http);
    setup::wait_for_target(&mut client, job.common.wait_for_target)?;
    let node = NodeInfo::read(&mut client)?;
    let accounts = accounts_of(&plan);
    job.say(&format!("preparing {} accounts at {} ({})", plan.account_count, job.common.url[0], node.client));
    let chain = setup::set_up(&mut client, &node, &plan, job.fees(), &accounts, &funder)?;
    job.say(&format!("signing {} transactions", plan.transaction_count));
    let mut prepared = workload::prepare(&plan, &chain, &accounts, &targets);
    let metas = Arc::new(std::mem::take(&mut prepared.metas));
    let addresses = accounts.iter().map(|account| account.address).collect();
    Ok(Ready { client, node, targets, plan, chain, metas, addresses, prepared })
}

type Watched = (Vec<Watch>, Vec<(Tier, NotOffered)>);

fn watch_tiers(job: &Job<'_>, hashes: &[B256], start: Instant) -> Result<Watched> {
    let http = Endpoint::parse(&job.common.url[0], Protocol::Http)?;
    let websocket = Endpoint::parse(&job.websocket_urls()[0], Protocol::WebSocket)?;
    let blocks = Blocks::new(hashes);
    let (mut watches, mut not_offered) = (Vec::new(), Vec::new());
    let tiers = Tier::ALL.into_iter().filter(|&tier| tier != Tier::Accepted && job.common.tiers.contains(tier));
    for tier in tiers {
        match tiers::watch(tier, &http, Some(&websocket), Arc::clone(&blocks), start)? {
            Ok(watch) => watches.push(watch),
            Err(answer) => not_offered.push((tier, answer)),
        }
    }
    Ok((watches, not_offered))
}

fn engine_config(job: &Job<'_>, ready: &Ready, start: Instant) -> Result<EngineConfig> {
    let intended_ns = match job.pace {
        Pace::Open { tempo } => Some(tempo.intended_times_ns(ready.plan.batch, ready.plan.request_count(), job.seed)),
        Pace::Closed => None,
    };
    let target =
        |endpoint: &Endpoint| Ok(Arc::new(Target { address: endpoint.address()?, endpoint: endpoint.clone() }));
    Ok(EngineConfig {
        targets: ready.targets.iter().map(target).collect::<Result<_>>()?,
        intended_ns,
        outstanding_max: job.outstanding_max(),
        stop_sending_ns: job.stop_after.map_or(u64::MAX, |after| after.as_nanos() as u64),
        drain_ns: job.common.drain.as_nanos() as u64,
        thread_count: (job.common.threads as usize).min(ready.plan.connection_count),
        pin_core: job.common.pin,
        start,
    })
}

/// Accepted transactions, without those whose replacement was accepted too.
fn expected_in_blocks(result: &EngineResult, metas: &[Meta]) -> u64 {
    let accepted = |index: usize| result.transactions[index].outcome == Outcome::Accepted;
    let is_replaced = |index: usize| metas[index].replaced_by != NONE && accepted(metas[index].replaced_by as usize);
    (0..metas.len()).filter(|&index| accepted(index) && !is_replaced(index)).count() as u64
}

/// Waits until each tier has seen every transaction that should get there, or nothing has arrived for a while.
fn settle(job: &Job<'_>, watches: &[Watch], expected: u64) {
    let mut last = (0, Instant::now());
    loop {
        let waiting = |watch: &&Watch| watch.seen() < expected && !watch.is_dead();
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

/// Accepted transactions that were not seen in a block, and how many were. Those whose replacement is in a block have ended.
fn open_transactions(measured: &Measured, metas: &[Meta], hashes: &[B256]) -> (Vec<B256>, u64) {
    let sealed = assemble::arrived_ns(measured, Tier::Sealed);
    let accepted = measured.result.transactions.iter().enumerate().filter(|(_, tx)| tx.outcome == Outcome::Accepted);
    let accepted = accepted.filter(|(index, _)| !assemble::is_replaced(measured, metas[*index]));
    let is_open = |index: usize| sealed.is_none_or(|arrived_ns| arrived_ns[index] == NEVER);
    let (open, seen): (Vec<usize>, Vec<usize>) = accepted.map(|(index, _)| index).partition(|&index| is_open(index));
    (open.into_iter().map(|index| hashes[index]).collect(), seen.len() as u64)
}

/// Whether the generator was on time in an open loop.
pub fn is_valid(result: &EngineResult, lag_limit_ns: u64) -> bool {
    result.lag.is_empty() || result.lag.value_at_quantile(0.99) <= lag_limit_ns
}

pub fn count(job: &Job<'_>, result: &EngineResult) -> report::Counts {
    report::count(result, job.stop_after.is_some())
}
