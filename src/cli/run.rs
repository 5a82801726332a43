//! `sequencer run --config FILE`, and what it shares with `dev`: start, wait for a signal, drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ArgMatches;

use crate::cli::{logging, raw_config};
use crate::config::Config;
use crate::config::execution::ExecutionMode;
use crate::config::genesis::{ChainSpec, dev_genesis};
use crate::crypto::recovery;
use crate::primitives::B256;
use crate::rpc::Settings;
use crate::runtime::file;
use crate::topology::{self, Running};

/// How often the main thread looks whether a signal came or a thread ended.
const POLL: Duration = Duration::from_millis(50);

pub fn run(matches: &ArgMatches) -> Result<()> {
    let config = Config::from_raw(&raw_config(matches, "0.0.0.0", "false")?)?;
    if config.data_dir.is_none() {
        bail!("data-dir is not set: `run` keeps the chain, so it must say where (`dev` does without)");
    }
    let spec = chain_spec(&config)?;
    serve(&config, &spec, false, |running| {
        tracing::info!(address = %running.address, chain_id = spec.chain_id, block = running.latest_number, "serving");
    })
}

/// The configured chain, or the development chain.
pub fn chain_spec(config: &Config) -> Result<ChainSpec> {
    match &config.genesis {
        None => Ok(dev_genesis(config.dev_fork, 10)?),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("genesis file {}", path.display()))?;
            ChainSpec::from_json(&text).with_context(|| format!("genesis file {}", path.display()))
        }
    }
}

/// Runs the whole process until SIGINT or SIGTERM; a second signal ends it at once.
pub fn serve(config: &Config, spec: &ChainSpec, is_dev: bool, started: impl FnOnce(&Running)) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The first registered action sees the flag of the *previous* signal: the second one exits.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    // A file size limit is a failed write, which its writer reports, not the end of the process without a word.
    signal_hook::flag::register(file::FILE_SIZE_SIGNAL, Arc::new(AtomicBool::new(false)))?;
    let _log = logging::start(config)?;
    let settings = Settings {
        chain_id: spec.chain_id,
        client_version: format!(
            "native-sequencer/v{}/{}-{}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH
        ),
        debug_enabled: is_dev,
        proxy_enabled: config.execution.mode == ExecutionMode::Verified,
        priority_fee_min_wei: 1,
    };
    let choice = if config.recovery.vectors { recovery::Choice::Auto } else { recovery::Choice::Libsecp256k1 };
    recovery::configure(choice, config.recovery.check_interval);
    tracing::info!(way = recovery::status().way, "sender recovery");
    let mut running = topology::launch(config, spec, &settings)?;
    started(&running);
    let mut is_disagreement_told = false;
    while !stop.load(Ordering::Relaxed) {
        if let Some(what) = running.failed_thread() {
            bail!("{what}");
        }
        if !is_disagreement_told && let Some(disagreement) = recovery::disagreement() {
            is_disagreement_told = true;
            tell_disagreement(disagreement);
        }
        std::thread::sleep(POLL);
    }
    tracing::info!("stopping: placing what is ready, sealing the open block");
    running.stop().map_err(anyhow::Error::msg)
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
