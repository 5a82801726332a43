//! `sequencer dev`: a whole chain on this machine, and what a newcomer needs printed.

use std::io::Write;

use anyhow::Result;
use clap::ArgMatches;

use crate::cli::raw_config;
use crate::cli::run::{chain_spec, serve};
use crate::config::Config;
use crate::config::genesis::{ChainSpec, DEV_ACCOUNTS, DEV_BATCHER};
use crate::config::l1::L1Mode;
use crate::config::redact;
use crate::topology::Running;
use crate::topology::dev_l1::DevL1Handle;

pub fn run(matches: &ArgMatches) -> Result<()> {
    let mut raw = raw_config(matches, "127.0.0.1", "true")?;
    raw.default_for_command("log.level", "warn");
    raw.default_for_command("rpc.debug", "true");
    raw.default_for_command("rpc.pool-content", "true");
    raw.default_for_command("metrics.port", "0");
    raw.default_for_command("l1.mode", "embedded");
    raw.default_for_command("l1.origin-depth", "0");
    raw.default_for_command("l1.poll-ms", "200");
    raw.default_for_command("settlement.batch-age-ms", "500");
    let config = Config::from_raw(&raw)?;
    let spec = chain_spec(&config)?;
    serve(&config, &spec, true, |running, l1| print_banner(&config, &spec, running, l1))
}

fn print_banner(config: &Config, spec: &ChainSpec, running: &Running, l1: Option<&DevL1Handle>) {
    // A closed pipe (`dev | head`) is no reason to stop a chain.
    let _ = std::io::stdout().write_all(banner(config, spec, running, l1).as_bytes());
}

fn banner(config: &Config, spec: &ChainSpec, running: &Running, l1: Option<&DevL1Handle>) -> String {
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
  admin      {admin}
  L1         {l1}
  metrics    {metrics}

",
        version = env!("CARGO_PKG_VERSION"),
        address = running.address,
        chain_id = spec.chain_id,
        genesis = running.genesis_hash,
        block = running.latest_number,
        admin = admin_line(running),
        l1 = l1_line(config, l1),
        metrics = match running.metrics_address {
            Some(address) => format!("http://{address}/metrics, health beside it: /livez /readyz /healthz"),
            None => "off".to_owned(),
        },
    );
    if config.genesis.is_none() {
        text += &accounts_and_examples(&url);
    }
    text + "Ctrl-C stops it.\n"
}

fn admin_line(running: &Running) -> String {
    match &running.admin {
        Some((address, token_file)) => format!("http://{address}, bearer token in {}", token_file.display()),
        None => "off (--admin.port 6198 opens it)".to_owned(),
    }
}

fn l1_line(config: &Config, l1: Option<&DevL1Handle>) -> String {
    match l1 {
        Some(l1) => format!(
            "{}, development L1: account {DEV_BATCHER} posts the batches; faults (docs/DEV_L1.md): bearer token {}",
            l1.url(),
            l1.token_shown
        ),
        None if config.l1.mode == L1Mode::Off => "off: blocks are final when they are sealed".to_owned(),
        None => redact::urls(&config.l1.endpoints.join(",")).into_owned(),
    }
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
