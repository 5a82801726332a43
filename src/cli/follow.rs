//! `sequencer follow`: the chain as L1 has it, executed here and served, without a key and without a builder.

use anyhow::{Context, Result, bail};
use clap::ArgMatches;

use crate::cli::{raw_config, run};
use crate::config::Config;
use crate::config::execution::ExecutionMode;
use crate::config::l1::L1Mode;
use crate::runtime::process;

pub fn run(matches: &ArgMatches) -> Result<()> {
    let config = config(matches)?;
    process::forbid_core_dumps().context("core dumps could not be forbidden")?;
    let spec = run::chain_spec(&config)?;
    run::serve(&config, &spec, false, |running, _| {
        let (address, block) = (running.address, running.latest_number);
        tracing::info!(%address, chain_id = spec.chain_id, block, l1 = config.l1.endpoints.len(), "following L1");
    })
}

/// The configuration, which must say where L1 is, which chain is meant, and where it is kept.
fn config(matches: &ArgMatches) -> Result<Config> {
    let mut config = Config::from_raw(&raw_config(matches, "0.0.0.0", "false")?)?;
    if config.l1.mode != L1Mode::Remote {
        bail!("`follow` derives the chain from an L1 elsewhere: give its URL, --l1.rpc-url URL (l1.mode = remote)");
    }
    if config.genesis.is_none() {
        bail!("genesis is not set: `follow` needs the file that the sequencer started from, --genesis FILE");
    }
    if config.data_dir.is_none() {
        bail!("data-dir is not set: `follow` keeps the chain, so it must say where, --data-dir DIR");
    }
    if config.execution.mode != ExecutionMode::Embedded {
        bail!("execution.mode must be embedded: `follow` executes the blocks of L1 itself");
    }
    config.follows = true;
    Ok(config)
}
