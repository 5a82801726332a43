//! `sequencer l1`: the development L1 alone.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use tracing_subscriber::EnvFilter;

use crate::config::genesis::{ChainSpec, DEV_ACCOUNTS, dev_genesis};
use crate::dev_l1::config::{ChainConfig, L1Fork, Mode};
use crate::dev_l1::judge::ChainJudge;
use crate::dev_l1::precompile::StrictJudge;
use crate::primitives::Fork;
use crate::topology::dev_l1::{DevL1Config, DevL1Handle, TokenSource, launch};

/// How often the main thread looks whether a signal came or the node ended.
const POLL: Duration = Duration::from_millis(50);

pub fn command() -> Command {
    let number = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).value_parser(value_parser!(u64)).help(help)
    };
    let path = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).value_parser(value_parser!(PathBuf)).help(help)
    };
    Command::new("l1")
        .about("Runs the development L1 alone: a chain that takes ExecuteTx, with faults on request")
        .arg(
            Arg::new("mode")
                .long("mode")
                .value_parser(Mode::ALL.map(Mode::name))
                .default_value(Mode::default().name())
                .help("What the EXECUTE precompile does: check batches, or what the L1 node does"),
        )
        .arg(path(
            "l2-genesis",
            "FILE",
            "Genesis of the L2 that mode strict checks, in go-ethereum's JSON format [default: that of `sequencer genesis`]",
        ))
        .arg(
            Arg::new("fork")
                .long("fork")
                .value_parser(L1Fork::ALL.map(L1Fork::name))
                .default_value(L1Fork::default().name())
                .help("Rules from the first block on"),
        )
        .arg(
            Arg::new("mainnet-like")
                .long("mainnet-like")
                .action(ArgAction::SetTrue)
                .help("Blocks of 60 Mgas every 12 s, final 64 blocks later, unless said otherwise"),
        )
        .arg(
            Arg::new("host")
                .long("host")
                .value_name("IP")
                .value_parser(value_parser!(IpAddr))
                .default_value("127.0.0.1")
                .help("Where it listens"),
        )
        .arg(
            Arg::new("port")
                .long("port")
                .value_name("N")
                .value_parser(value_parser!(u16))
                .default_value("8545")
                .help("JSON-RPC over HTTP and WebSocket; 0 takes any that is free"),
        )
        .arg(number("endpoints", "N", "Listeners over the same chain, each with faults of its own [default: 1]"))
        .arg(path("data-dir", "DIR", "Where the chain is kept; without it the chain is gone with the process"))
        .arg(
            Arg::new("token")
                .long("token")
                .value_name("TEXT")
                .conflicts_with("token-file")
                .help("Bearer token of dev_* [default: random, printed]"),
        )
        .arg(path(
            "token-file",
            "FILE",
            "File with the bearer token of dev_*, readable by its owner alone; made if it is missing",
        ))
        .arg(number("chain-id", "N", "Chain id [default: 61971]"))
        .arg(number("gas-limit", "N", "Gas limit of a block [default: 600000000]"))
        .arg(number("block-time-ms", "N", "Time between blocks [default: 1000]"))
        .arg(number("finality-blocks", "N", "Blocks between the head and the finalized block [default: 8]"))
        .arg(Arg::new("log").long("log").value_name("FILTER").default_value("warn").help("A tracing filter"))
}

pub fn run(matches: &ArgMatches) -> Result<()> {
    let config = config(matches)?;
    let filter = matches.get_one::<String>("log").context("--log")?;
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter}"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The first registered action sees the flag of the *previous* signal: the second one exits.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let judge: Option<Box<dyn StrictJudge>> = match config.chain.mode {
        Mode::Strict => Some(Box::new(ChainJudge::new(l2_spec(matches)?))),
        Mode::Compat => None,
    };
    let handle = launch(&config, judge)?;
    // A closed pipe is no reason to stop a chain.
    let _ = std::io::stdout().write_all(banner(&config, &handle).as_bytes());
    while !stop.load(Ordering::Relaxed) && !handle.has_ended() {
        std::thread::sleep(POLL);
    }
    handle.stop().map_err(|error| anyhow!("the development L1 ended: {error}"))
}

/// The rules of the L2 whose batches are checked.
fn l2_spec(matches: &ArgMatches) -> Result<ChainSpec> {
    let Some(path) = matches.get_one::<PathBuf>("l2-genesis") else {
        return Ok(dev_genesis(Fork::Osaka, DEV_ACCOUNTS.len())?);
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("genesis file {}", path.display()))?;
    ChainSpec::from_json(&text).with_context(|| format!("genesis file {}", path.display()))
}

fn config(matches: &ArgMatches) -> Result<DevL1Config> {
    let parsed = |name: &str| matches.get_one::<String>(name).with_context(|| format!("--{name}"));
    let number = |name: &str| matches.get_one::<u64>(name).copied();
    let base = if matches.get_flag("mainnet-like") { ChainConfig::mainnet_like() } else { ChainConfig::default() };
    let chain = ChainConfig {
        chain_id: number("chain-id").unwrap_or(base.chain_id),
        fork: parsed("fork")?.parse().map_err(anyhow::Error::msg)?,
        mode: parsed("mode")?.parse().map_err(anyhow::Error::msg)?,
        gas_limit: number("gas-limit").unwrap_or(base.gas_limit),
        block_time_ms: number("block-time-ms").unwrap_or(base.block_time_ms),
        finality_blocks: number("finality-blocks").unwrap_or(base.finality_blocks),
    };
    if chain.block_time_ms == 0 {
        bail!("--block-time-ms is 0, at least 1 is needed");
    }
    if chain.gas_limit < 5_000 {
        bail!("--gas-limit is {}, at least 5000 is needed", chain.gas_limit);
    }
    Ok(DevL1Config {
        chain,
        host: *matches.get_one::<IpAddr>("host").context("--host")?,
        port: *matches.get_one::<u16>("port").context("--port")?,
        endpoint_count: number("endpoints").map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX)),
        data_dir: matches.get_one::<PathBuf>("data-dir").cloned(),
        token: match (matches.get_one::<PathBuf>("token-file"), matches.get_one::<String>("token")) {
            (Some(path), _) => TokenSource::File(path.clone()),
            (None, Some(text)) => TokenSource::Text(text.clone()),
            (None, None) => TokenSource::Random,
        },
    })
}

fn banner(config: &DevL1Config, handle: &DevL1Handle) -> String {
    let chain = &config.chain;
    let data = match &config.data_dir {
        Some(dir) => dir.display().to_string(),
        None => "temporary, gone at the end (keep it with --data-dir DIR)".to_owned(),
    };
    let urls: Vec<String> = handle.addresses.iter().map(|address| format!("http://{address}")).collect();
    let accounts: String = DEV_ACCOUNTS.iter().map(|(address, key)| format!("  {address}  {key}\n")).collect();
    format!(
        "native-sequencer {version}, development L1

  JSON-RPC   {urls}   (WebSocket on the same port)
  chain id   {chain_id}, rules {fork}, EXECUTE {mode}
  blocks     every {block_time_ms} ms, {gas_limit} gas, final {finality} blocks later
  genesis    {genesis}
  block      {number} {hash}
  data       {data}
  dev_*      Authorization: Bearer {token}

Funded accounts, 10,000 ETH each. Everybody knows these keys: never use them elsewhere.

{accounts}
Ctrl-C stops it.
",
        version = env!("CARGO_PKG_VERSION"),
        urls = urls.join(", "),
        chain_id = chain.chain_id,
        fork = chain.fork.name(),
        mode = chain.mode.name(),
        block_time_ms = chain.block_time_ms,
        gas_limit = chain.gas_limit,
        finality = chain.finality_blocks,
        genesis = handle.genesis_hash,
        number = handle.start.0,
        hash = handle.start.1,
        token = handle.token_shown,
    )
}
