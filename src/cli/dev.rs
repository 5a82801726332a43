//! `sequencer dev`: a whole chain on this machine, and what a newcomer needs printed.

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
    let url = format!("http://{}", running.address);
    println!("native-sequencer {}, development chain", env!("CARGO_PKG_VERSION"));
    println!();
    println!("  JSON-RPC   {url}   (WebSocket: ws://{})", running.address);
    println!("  chain id   {}", spec.chain_id);
    println!("  genesis    {}", running.genesis_hash);
    println!("  block      {}", running.latest_number);
    match &config.data_dir {
        Some(dir) => println!("  data       {}", dir.display()),
        None => println!("  data       temporary, gone at the end (keep it with --data-dir DIR)"),
    }
    println!();
    if config.genesis.is_none() {
        println!(
            "Funded accounts, 10,000 ETH each (mnemonic: test test test test test test test test test test test junk)."
        );
        println!("Everybody knows these keys: never use them elsewhere.");
        println!();
        for (index, (address, key)) in DEV_ACCOUNTS.iter().enumerate() {
            println!("  ({index}) {address}  {key}");
        }
        println!();
    }
    println!("Try it:");
    println!();
    println!(
        "  curl -s {url} -H 'content-type: application/json' \\\n    -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_getBalance\",\"params\":[\"{}\",\"latest\"]}}'",
        DEV_ACCOUNTS[0].0
    );
    println!();
    println!(
        "  cast send --rpc-url {url} --private-key {} \\\n    {} --value 1ether",
        DEV_ACCOUNTS[0].1, DEV_ACCOUNTS[1].0
    );
    println!();
    println!("  loadgen run --url {url} --rate 1000 --duration 10s");
    println!();
    println!("Ctrl-C stops it.");
}
