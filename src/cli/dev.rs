//! `sequencer dev`: a whole chain on this machine, and what a newcomer needs printed.

use std::io::Write;

use anyhow::Result;
use clap::ArgMatches;

use crate::cli::raw_config;
use crate::cli::run::{chain_spec, serve};
use crate::config::Config;
use crate::config::genesis::{ChainSpec, DEV_ACCOUNTS};
use crate::topology::Running;

pub fn run(matches: &ArgMatches) -> Result<()> {
    let mut raw = raw_config(matches, "127.0.0.1", "true")?;
    raw.default_for_command("log.level", "warn");
    let config = Config::from_raw(&raw)?;
    let spec = chain_spec(&config)?;
    serve(&config, &spec, true, |running| print_banner(&config, &spec, running))
}

fn print_banner(config: &Config, spec: &ChainSpec, running: &Running) {
    // A closed pipe (`dev | head`) is no reason to stop a chain.
    let _ = std::io::stdout().write_all(banner(config, spec, running).as_bytes());
}

fn banner(config: &Config, spec: &ChainSpec, running: &Running) -> String {
    let url = format!("http://{}", running.address);
    let data = match &config.data_dir {
        Some(dir) => dir.display().to_string(),
        None => "temporary, gone at the end (keep it with --data-dir DIR)".to_owned(),
    };
    let mut text = format!(
        "native-sequencer {version}, development chain

  JSON-RPC   {url}   (WebSocket: ws://{address})
  chain id   {chain_id}
  genesis    {genesis}
  block      {block}
  data       {data}

",
        version = env!("CARGO_PKG_VERSION"),
        address = running.address,
        chain_id = spec.chain_id,
        genesis = running.genesis_hash,
        block = running.latest_number,
    );
    if config.genesis.is_none() {
        text += &accounts_and_examples(&url);
    }
    text + "Ctrl-C stops it.\n"
}

fn accounts_and_examples(url: &str) -> String {
    let accounts: String = DEV_ACCOUNTS
        .iter()
        .enumerate()
        .map(|(index, (address, key))| format!("  ({index}) {address}  {key}\n"))
        .collect();
    let (from, key) = DEV_ACCOUNTS[0];
    let (to, _) = DEV_ACCOUNTS[1];
    format!(
        r#"Funded accounts, 10,000 ETH each (mnemonic: test test test test test test test test test test test junk).
Everybody knows these keys: never use them elsewhere.

{accounts}
Try it:

  curl -s {url} -H 'content-type: application/json' \
    -d '{{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":["{from}","latest"]}}'

  cast send --rpc-url {url} --private-key {key} \
    {to} --value 1ether

  cargo run --release -p loadgen -- run --url {url} --rate 1000 --duration 10s

"#
    )
}
