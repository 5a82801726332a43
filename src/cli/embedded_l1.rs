//! The development L1 inside `sequencer dev`: started first, it outlives every restart of the rest.

use anyhow::{Context, Result};

use crate::config::Config;
use crate::config::genesis::{ChainSpec, DEV_ACCOUNTS, DEV_BATCHER};
use crate::config::l1::{DevL1Mode, KeySource, L1Config, L1Mode};
use crate::dev_l1::config::{ChainConfig, Mode};
use crate::dev_l1::judge::ChainJudge;
use crate::topology::dev_l1::{DevL1Config, DevL1Handle, launch};

/// Rules and clock that the configuration asks for.
pub fn chain_config(config: &L1Config) -> ChainConfig {
    let base = if config.dev_mainnet_like { ChainConfig::mainnet_like() } else { ChainConfig::default() };
    let mode = match config.dev_mode {
        DevL1Mode::Strict => Mode::Strict,
        DevL1Mode::Compat => Mode::Compat,
    };
    let block_time_ms = if config.dev_mainnet_like { base.block_time_ms } else { config.dev_block_ns / 1_000_000 };
    ChainConfig { mode, block_time_ms, ..base }
}

/// Starts it where the configuration says so, and names it as the endpoint; without a key of its own the development batcher signs.
pub fn start(config: &mut Config, spec: &ChainSpec) -> Result<Option<DevL1Handle>> {
    if config.l1.mode != L1Mode::Embedded {
        return Ok(None);
    }
    let settings = DevL1Config {
        chain: chain_config(&config.l1),
        port: config.l1.dev_port,
        data_dir: config.data_dir.as_ref().map(|dir| dir.join("l1")),
        ..DevL1Config::default()
    };
    let judge = Box::new(ChainJudge::new(spec.clone()));
    let handle = launch(&settings, Some(judge))
        .with_context(|| format!("port {} (l1.dev-port; 0 takes any, --l1 off does without)", config.l1.dev_port))?;
    config.l1.endpoints = vec![handle.url()];
    if config.l1.key == KeySource::None {
        let (_, key) = DEV_ACCOUNTS[DEV_BATCHER];
        config.l1.key = KeySource::Text(key.to_owned());
    }
    Ok(Some(handle))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::genesis::DEV_L1_GENESIS_HASH;
    use crate::dev_l1::config::genesis_hash;

    #[test]
    fn the_development_genesis_names_the_development_l1() {
        assert_eq!(genesis_hash(&ChainConfig::default()), DEV_L1_GENESIS_HASH);
    }
}
