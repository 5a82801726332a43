//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::client::Protocol;
use crate::report::asserts::Assert;
use crate::schedule::Arrival;
use crate::tiers::TierSet;
use crate::workload::Mix;

/// Load generator for Ethereum JSON-RPC nodes: every transaction is signed before the clock starts, and latency counts
/// from the intended send time. Exit status: 0 all well, 1 the run failed, 2 wrong usage, 3 a condition or --verify failed.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sends a load and reports latencies, rates and errors
    Run(Box<RunArgs>),
    /// Compares two JSON reports
    Compare(CompareArgs),
    /// Searches the highest rate of an open loop that keeps the latency and the errors within bounds
    FindMax(Box<FindMaxArgs>),
    /// Offers far more than a node takes, by senders that cost little, and probes its health meanwhile
    Overload(OverloadArgs),
    /// Prints the accounts of a seed as genesis entries, for nodes that make no blocks while they are measured
    Accounts(AccountsArgs),
}

/// What is loaded, and with what: common to `run` and `find-max`.
#[derive(Args, Clone, Debug)]
pub struct CommonArgs {
    /// JSON-RPC of the node, by HTTP. With several, connections are dealt out over them; set-up and tiers use the first
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:6197")]
    pub url: Vec<String>,

    /// WebSocket of the node, or of each [default: --url with ws://]
    #[arg(long, value_delimiter = ',')]
    pub ws_url: Vec<String>,

    /// How transactions are sent
    #[arg(long, default_value = "http")]
    pub transport: Protocol,

    /// How long the node may take to answer its first call: for scripts that start both
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub wait_for_target: Duration,

    /// Key of the account that pays for everything; the default is the first of the well-known development accounts
    #[arg(
        long,
        env = "LOADGEN_PRIVATE_KEY",
        hide_env_values = true,
        hide_default_value = true,
        default_value = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
    )]
    pub private_key: String,

    /// transfer, erc20, storage, hot, deploy, revert, conditional, nonce-gap, replacement, mixed (some of each), or a mix in
    /// percent: mix:transfer=70,erc20=20,storage=10
    #[arg(long, default_value = "transfer")]
    pub workload: Mix,

    /// Sending accounts, derived from the seed
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub accounts: u64,

    /// Different recipients, chosen at random for each transaction
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub recipients: u64,

    /// Different slots that the storage workload writes
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub storage_keys: u64,

    /// Names accounts, recipients, mix and arrival times
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// TCP connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub connections: u64,

    /// Requests in flight per connection, pipelined on it [default: 1 in a closed loop, 64 in an open one]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub outstanding: Option<u64>,

    /// Transactions per request: a JSON-RPC batch from 2 on
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=crate::limits::BATCH_CALLS_MAX as u64))]
    pub batch: u64,

    /// Tiers to measure: accepted,preconfirmed,sealed,safe, or all
    #[arg(long, default_value = "accepted,preconfirmed,sealed")]
    pub tiers: TierSet,

    /// Does not send again what the node refused or dropped, though its sender stands still for it
    #[arg(long)]
    pub no_resend: bool,

    /// Priority fee in gwei
    #[arg(long, default_value_t = 1.0, value_parser = parse_gwei)]
    pub tip: f64,

    /// Fee cap of the workload as a multiple of the base fee at the start
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub fee_cap_multiple: u64,

    /// Sending threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub threads: u64,

    /// Core of the first sending thread; the next thread takes the next core
    #[arg(long)]
    pub pin: Option<usize>,

    /// How long replies are waited for: after the last intended time, or in a closed loop after the last reply
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub drain: Duration,

    /// How long the tiers are watched after the last reply while nothing arrives
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub settle: Duration,

    /// Process of the node, to report its CPU time, wake-ups, busiest threads and memory
    #[arg(long)]
    pub server_pid: Option<u32>,

    /// Shows no progress
    #[arg(long)]
    pub no_progress: bool,
}

#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("pace").required(true).args(["rate", "closed", "dry_run"]).multiple(true))]
pub struct RunArgs {
    #[command(flatten)]
    pub common: CommonArgs,

    /// Open loop: transactions per second, sent at their times whatever the node does
    #[arg(long, value_parser = parse_rate, conflicts_with = "closed")]
    pub rate: Option<f64>,

    /// Arrival process of the open loop
    #[arg(long, default_value = "constant", requires = "rate")]
    pub arrival: Arrival,

    /// Where the rate of ramp and step starts [default: a tenth of --rate]
    #[arg(long, value_parser = parse_rate, requires = "rate", conflicts_with = "closed")]
    pub rate_from: Option<f64>,

    /// Steps of the arrival process step
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub steps: u32,

    /// Closed loop: each connection sends its next request when a reply comes
    #[arg(long)]
    pub closed: bool,

    /// Transactions to send [default: rate x duration, or 100000]
    #[arg(long)]
    pub transactions: Option<u64>,

    /// How long to send, as 30s or 2m; a closed loop ends earlier when its transactions are used up
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// A condition that the run must meet, as 'p99<10ms', 'sealed.p99<2s', 'errors<0.1%', 'dropped==0', 'rate>10000'
    #[arg(long = "assert", value_name = "CONDITION")]
    pub asserts: Vec<Assert>,

    /// Writes the report as JSON
    #[arg(long, value_name = "FILE")]
    pub report_json: Option<String>,

    /// Writes the report as one HTML page with plots
    #[arg(long, value_name = "FILE")]
    pub report_html: Option<String>,

    /// Writes the latencies over time as an HDR histogram log
    #[arg(long, value_name = "FILE")]
    pub hdr_log: Option<String>,

    /// Checks after the run that every accepted transaction is in a block or has an end state
    #[arg(long)]
    pub verify: bool,

    /// How long --verify waits for transactions to end
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub verify_wait: Duration,

    /// Signs everything and sends nothing: what the generator itself costs. Needs no node
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args, Debug)]
pub struct CompareArgs {
    /// The report to compare with
    pub base: String,
    /// The report to compare
    pub other: String,
}

#[derive(Args, Clone, Debug)]
pub struct OverloadArgs {
    /// JSON-RPC of the node, by HTTP. Its genesis has the accounts: `loadgen accounts --accounts CONNECTIONS×OUTSTANDING`
    #[arg(long, default_value = "http://127.0.0.1:6197")]
    pub url: String,

    /// Port of metrics of the node, whose probes are asked, too
    #[arg(long, value_name = "URL")]
    pub metrics_url: Option<String>,

    /// Transactions per second that are offered: ten times what the node takes
    #[arg(long, value_parser = parse_rate)]
    pub rate: f64,

    /// How long to offer, as 30s or 10m
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub duration: Duration,

    /// TCP connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub connections: u64,

    /// Requests outstanding per connection, each of an account of its own; what is due beyond is held back
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub outstanding: u64,

    /// Names the accounts
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// How long answers are waited for at the end
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub drain: Duration,

    /// Process of the node, to report its CPU time and memory
    #[arg(long)]
    pub server_pid: Option<u32>,

    /// Writes the report as JSON
    #[arg(long, value_name = "FILE")]
    pub report_json: Option<String>,
}

#[derive(Args, Debug)]
pub struct AccountsArgs {
    /// How many
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub accounts: u64,

    /// The seed of the runs to come
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// What each account has, in ETH
    #[arg(long, default_value_t = 10_000)]
    pub balance: u64,

    /// A genesis file to add them to: prints the whole file
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<String>,
}

#[derive(Args, Clone, Debug)]
pub struct FindMaxArgs {
    #[command(flatten)]
    pub common: CommonArgs,

    /// Condition on each step; more can be given
    #[arg(long = "assert", value_name = "CONDITION", default_values = ["p99<10ms", "errors<0.1%", "dropped==0"])]
    pub asserts: Vec<Assert>,

    /// First rate, in transactions per second; it doubles until a step fails
    #[arg(long, default_value = "1000", value_parser = parse_rate)]
    pub rate: f64,

    /// Arrival process of each step: constant or poisson
    #[arg(long, default_value = "poisson", value_parser = parse_steady)]
    pub arrival: Arrival,

    /// Length of one step
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub step: Duration,

    /// The search ends when the bounds are this close, in percent
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=50))]
    pub precision: u64,

    /// Writes the report of the best step as JSON
    #[arg(long, value_name = "FILE")]
    pub report_json: Option<String>,

    /// Writes the report of the best step, and the search, as one HTML page
    #[arg(long, value_name = "FILE")]
    pub report_html: Option<String>,
}

/// Reads a time with a unit: 500ms, 30s, 2m.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(format!("{text:?} needs a unit: ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} does not start with a number"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.replace('_', "").parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.001..=1e8).contains(&rate) {
        Ok(rate)
    } else {
        Err("a rate lies between 0.001 and 100000000 per second".into())
    }
}

fn parse_steady(text: &str) -> Result<Arrival, String> {
    match <Arrival as clap::ValueEnum>::from_str(text, false) {
        Ok(arrival) if !arrival.grows() => Ok(arrival),
        _ => Err("a step of the search is constant or poisson".into()),
    }
}

fn parse_gwei(text: &str) -> Result<f64, String> {
    let gwei: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=1e9).contains(&gwei) { Ok(gwei) } else { Err("a tip lies between 0 and 1000000000 gwei".into()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[track_caller]
    fn check(line: &str, expected: Result<(), clap::error::ErrorKind>) {
        let parsed = Cli::try_parse_from(line.split(' ')).map(|_| ()).map_err(|error| error.kind());
        assert_eq!(parsed, expected, "{line}");
    }

    #[test]
    fn paces() {
        use clap::error::ErrorKind::{ArgumentConflict, MissingRequiredArgument, ValueValidation};
        check("loadgen run --rate 100", Ok(()));
        check("loadgen run --rate 1_000 --arrival poisson --duration 30s --assert p99<10ms", Ok(()));
        check("loadgen run --closed --connections 4 --outstanding 2", Ok(()));
        check("loadgen run --dry-run --batch 100", Ok(()));
        check("loadgen run", Err(MissingRequiredArgument));
        check("loadgen run --closed --rate 5", Err(ArgumentConflict));
        check("loadgen run --rate 0", Err(ValueValidation));
        check("loadgen run --rate 10 --batch 1001", Err(ValueValidation));
        check("loadgen run --rate 10 --assert p99", Err(ValueValidation));
        check("loadgen run --rate 10 --duration 5", Err(ValueValidation));
        check("loadgen find-max --step 2s", Ok(()));
        check("loadgen find-max --arrival ramp", Err(ValueValidation));
        check("loadgen run --rate 10 --arrival step --steps 4 --rate-from 2 --transport ws", Ok(()));
        check("loadgen run --closed --tiers all --url http://a,http://b", Ok(()));
        check("loadgen run --closed --tiers final", Err(ValueValidation));
        check("loadgen run --closed --rate-from 2", Err(ArgumentConflict));
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("20ms"), Ok(Duration::from_millis(20)));
        assert!(parse_duration("s").is_err() && parse_duration("1e9h").is_err());
    }
}
