//! `sequencer run --config FILE`, and what it shares with `dev`: start, wait for a signal, drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ArgMatches;

use crate::cli::{doctor, embedded_l1, logging, raw_config};
use crate::config::Config;
use crate::config::execution::ExecutionMode;
use crate::config::genesis::{ChainSpec, DEV_ACCOUNTS, dev_genesis_on};
use crate::crypto::recovery;
use crate::dev_l1::config::genesis_hash;
use crate::primitives::B256;
use crate::rpc::Settings;
use crate::runtime::file;
use crate::runtime::process::{self, Resource};
use crate::topology::dev_l1::DevL1Handle;
use crate::topology::levers::Levers;
use crate::topology::replacement::{self, Replacement};
use crate::topology::startup::Kept;
use crate::topology::{self, Running};

/// How often the main thread looks whether a signal came or a thread ended.
const POLL: Duration = Duration::from_millis(50);
/// Of `run`: on loopback, with a token.
pub const ADMIN_PORT: &str = "6198";

pub fn run(matches: &ArgMatches) -> Result<()> {
    let mut raw = raw_config(matches, "0.0.0.0", "false")?;
    raw.default_for_command("admin.port", ADMIN_PORT);
    let config = Config::from_raw(&raw)?;
    // Before the first secret is read.
    process::forbid_core_dumps().context("core dumps could not be forbidden")?;
    if config.data_dir.is_none() {
        bail!("data-dir is not set: `run` keeps the chain, so it must say where (`dev` does without)");
    }
    let spec = chain_spec(&config)?;
    serve(&config, &spec, false, |running, _| {
        let (address, block) = (running.address, running.latest_number);
        let metrics = running.metrics_address.map_or_else(|| "off".to_owned(), |address| address.to_string());
        tracing::info!(%address, %metrics, chain_id = spec.chain_id, block, "serving");
    })
}

/// The configured chain, or the development chain.
pub fn chain_spec(config: &Config) -> Result<ChainSpec> {
    let spec = match &config.genesis {
        None => {
            let l1_genesis = genesis_hash(&embedded_l1::chain_config(&config.l1));
            dev_genesis_on(config.dev_fork, DEV_ACCOUNTS.len(), l1_genesis)?
        }
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("genesis file {}", path.display()))?;
            ChainSpec::from_json(&text).with_context(|| format!("genesis file {}", path.display()))?
        }
    };
    if let Some(expected) = config.chain_id.filter(|id| *id != spec.chain_id) {
        bail!(
            "l2.chain-id is {expected} and the genesis has chain id {}: one of them is of another chain",
            spec.chain_id
        );
    }
    Ok(spec)
}

/// Takes what the process may have without being given more, and refuses a host on which nothing works. Answers how many files may be open.
fn prepare_process(config: &Config) -> Result<u64> {
    process::raise(Resource::LockedMemoryBytes).context("the limit of locked memory")?;
    let files = process::raise(Resource::OpenFiles).context("the limit of open files")?.soft;
    doctor::require(config)?;
    let connections_max = config.http.connections_max;
    if files < connections_max as u64 {
        tracing::warn!(files, connections_max, "fewer open files than connections are allowed: `sequencer doctor`");
    }
    Ok(files)
}

/// What the methods know of the process.
fn rpc_settings(config: &Config, spec: &ChainSpec) -> Settings {
    Settings {
        chain_id: spec.chain_id,
        client_version: format!(
            "native-sequencer/v{}/{}-{}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH
        ),
        debug_enabled: config.rpc.debug,
        pool_content_enabled: config.rpc.pool_content,
        proxy_enabled: config.execution.mode != ExecutionMode::Embedded,
        state_is_remote: config.execution.mode == ExecutionMode::Delegated,
        priority_fee_min_wei: 1,
    }
}

/// Runs the whole process until SIGINT or SIGTERM; a second signal ends it at once.
pub fn serve(
    config: &Config,
    spec: &ChainSpec,
    is_dev: bool,
    started: impl FnOnce(&Running, Option<&DevL1Handle>),
) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The first registered action sees the flag of the *previous* signal: the second one exits.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    // A file size limit is a failed write, which its writer reports, not the end of the process without a word.
    signal_hook::flag::register(file::FILE_SIZE_SIGNAL, Arc::new(AtomicBool::new(false)))?;
    let (_log, set_log_filter) = logging::start(config)?;
    let files = prepare_process(config)?;
    let settings = rpc_settings(config, spec);
    let choice = if config.recovery.vectors { recovery::Choice::Auto } else { recovery::Choice::Libsecp256k1 };
    recovery::configure(choice, config.recovery.check_interval);
    tracing::info!(way = recovery::status().way, "sender recovery");
    let mut config = config.clone();
    let dev_l1 = embedded_l1::start(&mut config, spec)?;
    let config = &config;
    let levers = Levers::new(config, files, set_log_filter);
    let mut running = topology::launch(config, spec, &settings, &levers, Kept::default())?;
    if let Some((address, token_file)) = &running.admin {
        tracing::info!(%address, token_file = %token_file.display(), "admin port");
    }
    started(&running, dev_l1.as_ref());
    let mut is_safe_told = !is_dev || dev_l1.is_none();
    let mut is_disagreement_told = false;
    while !stop.load(Ordering::Relaxed) {
        if let Some(what) = running.failed_thread() {
            bail!("{what}");
        }
        if dev_l1.as_ref().is_some_and(DevL1Handle::has_ended) {
            bail!("the development L1 has ended: its state or its file failed");
        }
        if !is_safe_told && let Some((block, tx_hash)) = running.first_safe() {
            is_safe_told = true;
            println!("Block {block} is safe: L1 has it in transaction {tx_hash} and its re-execution agrees.");
        }
        if let Some(replacement) = running.replacement() {
            running = restart(config, spec, &settings, &levers, running, replacement)?;
        }
        running.look_for_halt();
        if !is_disagreement_told && let Some(disagreement) = recovery::disagreement() {
            is_disagreement_told = true;
            tell_disagreement(disagreement);
        }
        std::thread::sleep(POLL);
    }
    leave(config, &running);
    tracing::info!("stopping: placing what is ready, sealing the open block");
    running.stop().map_err(anyhow::Error::msg)
}

/// Stops, puts other blocks in the place of the newest ones, and starts again at the same address.
fn restart(
    config: &Config,
    spec: &ChainSpec,
    settings: &Settings,
    levers: &Levers,
    running: Running,
    mut replacement: Replacement,
) -> Result<Running> {
    tracing::warn!(
        to_block = replacement.to_block,
        cause = replacement.cause.name(),
        adopted = replacement.blocks.len(),
        "stopping to take back blocks"
    );
    let mut config = config.clone();
    config.http.address = running.address;
    let admin = running.admin.as_ref().map(|(address, _)| *address);
    config.admin.port = admin.map(|address| address.port());
    config.metrics.address = running.metrics_address;
    let (data_dir, temporary_dir) = running.stop_keeping().map_err(anyhow::Error::msg)?;
    // Elsewhere the journal has it, as a block that is open.
    let open = replacement.open.take_if(|_| config.execution.mode == ExecutionMode::Delegated);
    replacement::carry_out(&config, spec, &data_dir, &replacement)?;
    topology::startup::wait_for_port(config.http.address)?;
    if let Some(admin) = admin {
        topology::startup::wait_for_port(admin)?;
    }
    Ok(topology::launch(&config, spec, settings, levers, Kept { temporary_dir, open })?)
}

/// Says that the end is near, and lets load balancers find out.
fn leave(config: &Config, running: &Running) {
    running.leave();
    let delay = Duration::from_nanos(config.stop.delay_ns);
    if !delay.is_zero() {
        tracing::info!(delay_ms = delay.as_millis() as u64, "stopping: not ready any more, still serving");
        std::thread::sleep(delay);
    }
}

/// The shards have already gone over to libsecp256k1, and they never log themselves.
fn tell_disagreement(disagreement: &recovery::Disagreement) {
    let recovery::Disagreement { item, vectors, libsecp256k1 } = disagreement;
    let status = recovery::status();
    tracing::error!(
        digest = %item.digest,
        r = %B256::from(item.r),
        s = %B256::from(item.s),
        y_parity = item.y_parity,
        vectors = %vectors,
        libsecp256k1 = ?libsecp256k1,
        vector_count = status.vector_count,
        checked_count = status.checked_count,
        disagreement_count = status.disagreement_count,
        "sender recovery in vectors and by libsecp256k1 disagree: libsecp256k1 recovers everything from here on"
    );
}
