//! More than a node can take, offered for minutes: far above its maximum, by senders that cost little.
//!
//! ```text
//!  rate × time ─► connections, each with so many requests outstanding ─► sent, or held back
//!  replies ─► accepted, refused, anything else ─► latencies      probes ─► how long health takes      /proc ─► memory
//! ```
//!
//! The schedule never waits for the node. What is due while every connection has all the requests outstanding that it may is counted as held
//! back, and is not sent later: a client that has no answer cannot ask again either. A refused transaction is sent again, as the same bytes, when its
//! account is next in turn, so that nonces have no gap and nothing but what was accepted needs a signature. Signing costs two multiplications
//! ([`signer`]), so it happens while the clock runs. One thread sends and reads, one probes, one reads memory.

mod connection;

mod probes;

mod sender;

mod signer;

use std::time::{Duration, Instant};

use alloy_primitives::Address;
use serde::Serialize;

use crate::cli::OverloadArgs;
use crate::client::rpc::RpcClient;
use crate::client::{Endpoint, Protocol};
use crate::error::{Error, Result};
use crate::process::{self, ProcessUsage};
use crate::report::series::slope_per_minute;
use crate::sampler::MemorySampler;
use probes::{Prober, Probes};
use sender::{Offered, Plan};
use signer::FastSigner;

/// Memory counts from here on: what a node keeps at any load is there by then.
const MEMORY_FROM_S: usize = 120;
/// How long blocks are waited for when everything was sent.
const SETTLE_LIMIT: Duration = Duration::from_secs(120);

/// The node sheds load.
const LIMIT_CODE: i64 = -32_005;

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Overload {
    pub machine: String,
    pub rate_per_s: f64,
    pub duration_s: f64,
    pub connections: usize,
    pub outstanding: usize,
    pub offered: Offered,
    pub probes: Probes,
    /// One sample a second.
    pub memory_bytes: Vec<u64>,
    /// `None` before there are enough samples after the second minute.
    pub memory_slope_bytes_per_min: Option<f64>,
    pub node_cpu_ns: Option<u64>,
    pub generator_cpu_ns: u64,
    /// Accounts whose accepted transactions are not all in blocks at the end.
    pub accounts_behind: usize,
}

/// Offers the load.
///
/// # Errors
/// A node that cannot be reached, or accounts without money.
pub fn run(args: &OverloadArgs) -> Result<Overload> {
    let endpoint = Endpoint::parse(&args.url, Protocol::Http)?;
    let mut rpc = RpcClient::new(endpoint.clone());
    let chain_id = rpc.number("eth_chainId", serde_json::json!([]))?;
    let gas_price_wei = rpc.quantity("eth_gasPrice", serde_json::json!([]))?.saturating_to::<u128>();
    let (connections, outstanding) = (args.connections as usize, args.outstanding as usize);
    let count = connections * outstanding;
    let signers: Vec<FastSigner> = (0..count as u64).map(|index| FastSigner::derive(args.seed, index)).collect();
    let addresses: Vec<Address> = signers.iter().map(FastSigner::address).collect();
    let nonces = rpc.nonces(&addresses, "pending")?;
    if rpc.balances(&addresses, "latest")?.iter().any(|balance| balance.is_zero()) {
        return Err(Error::Setup(format!(
            "accounts of seed {} have no money: start the node with the genesis of `loadgen accounts --accounts {count} --seed {} --genesis FILE`",
            args.seed, args.seed
        )));
    }
    let plan = Plan {
        rate_per_s: args.rate,
        duration: args.duration,
        outstanding,
        drain: args.drain,
        chain_id,
        // The base fee rises while blocks are full.
        fee_cap_wei: gas_price_wei.saturating_mul(1_000),
    };
    let prober = Prober::start(probe_targets(args, &endpoint)?);
    let memory = args.server_pid.map(MemorySampler::start);
    let node_before = args.server_pid.map(ProcessUsage::read).transpose()?;
    let own_before = ProcessUsage::read(std::process::id())?;
    let (offered, nonces) = sender::offer(&endpoint, &plan, connections, signers, nonces)?;
    let own = ProcessUsage::read(std::process::id())?.since(&own_before);
    let node = args.server_pid.map(ProcessUsage::read).transpose()?;
    let (probes, memory_bytes) = (prober.finish(), memory.map(MemorySampler::finish).unwrap_or_default());
    let accounts_behind = settle(&mut rpc, &addresses, &nonces)?;
    Ok(Overload {
        machine: process::machine(),
        rate_per_s: args.rate,
        duration_s: args.duration.as_secs_f64(),
        connections,
        outstanding,
        offered,
        probes,
        memory_slope_bytes_per_min: slope_per_minute(&memory_bytes, MEMORY_FROM_S),
        memory_bytes,
        node_cpu_ns: node.zip(node_before).map(|(after, before)| after.since(&before).cpu_ns),
        generator_cpu_ns: own.cpu_ns,
        accounts_behind,
    })
}

/// Every path of the node's own port, and of its port of metrics where there is one.
fn probe_targets(args: &OverloadArgs, endpoint: &Endpoint) -> Result<Vec<(Endpoint, &'static str)>> {
    let mut targets: Vec<_> = ["/healthz", "/livez", "/readyz"].map(|path| (endpoint.clone(), path)).into();
    if let Some(url) = &args.metrics_url {
        let metrics = Endpoint::parse(url, Protocol::Http)?;
        targets.extend(["/healthz", "/livez", "/readyz", "/metrics"].map(|path| (metrics.clone(), path)));
    }
    Ok(targets)
}

/// Waits until everything that was accepted is in blocks; answers the accounts where something is missing.
fn settle(rpc: &mut RpcClient, addresses: &[Address], nonces: &[u64]) -> Result<usize> {
    let start = Instant::now();
    loop {
        let behind = match rpc.nonces(addresses, "latest") {
            Ok(included) => included.iter().zip(nonces).filter(|(included, accepted)| included < accepted).count(),
            // What it sheds at the end of the load; what else it says is an error.
            Err(Error::Rpc { error, .. }) if error.code == LIMIT_CODE && start.elapsed() < SETTLE_LIMIT => {
                addresses.len()
            }
            Err(error) => return Err(error),
        };
        if behind == 0 || start.elapsed() > SETTLE_LIMIT {
            return Ok(behind);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// For the reader of a terminal.
pub fn render(overload: &Overload) -> String {
    let offered = &overload.offered;
    let per_s = |count: u64| format!("{count} ({:.0}/s)", count as f64 / overload.duration_s);
    let mut lines = vec![
        format!("offered      {}", per_s(offered.offered)),
        format!("sent         {}", per_s(offered.sent)),
        format!("held back    {}", per_s(offered.held_back)),
        format!("accepted     {}   {}", per_s(offered.accepted), offered.accepted_latency),
        format!("refused      {}   {}", per_s(offered.refused), offered.refused_latency),
        format!("unanswered   {}   reconnects {}", offered.unanswered, offered.reconnects),
    ];
    lines.extend(offered.others.iter().map(|(what, count)| format!("  {count} x {what}")));
    for (path, probe) in &overload.probes {
        lines.push(format!(
            "{path:<42} {} answers {:?}, {} failed, {}",
            probe.count, probe.statuses, probe.failed, probe.latency
        ));
    }
    let slope = overload
        .memory_slope_bytes_per_min
        .map(|slope| format!("{:+.3} MiB a minute after minute two", slope / 1_048_576.0));
    let last = overload.memory_bytes.last().map_or(0.0, |bytes| *bytes as f64 / 1_048_576.0);
    lines.push(format!("memory       {last:.1} MiB, {}", slope.unwrap_or_else(|| "too short for a slope".to_owned())));
    let cores = |ns: u64| ns as f64 / 1e9 / overload.duration_s;
    lines.push(format!(
        "cores        node {:.2}, generator {:.2}",
        cores(overload.node_cpu_ns.unwrap_or(0)),
        cores(overload.generator_cpu_ns)
    ));
    lines.push(format!("accounts whose accepted transactions are not all in blocks: {}", overload.accounts_behind));
    lines.join("\n") + "\n"
}
