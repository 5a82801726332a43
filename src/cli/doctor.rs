//! `sequencer doctor`: what the host is like, what to change, and how. Changes nothing.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::cli::{config_file, raw_config, with_settings};
use crate::config::Config;
use crate::doctor::{Finding, Level, Needs, judge, reader, worst};
use crate::topology;

/// What the chain may grow by until somebody looks, beside the journal.
const GROWTH_BYTES: u64 = 8 << 30;
/// Of the pool, for each transaction: its entry, its places in the orders, its chunk's handle.
const POOL_ENTRY_BYTES: u64 = 640;
/// Blocks kept for reads, caches of the builder, buffers, threads.
const OTHER_MEMORY_BYTES: u64 = 1 << 30;

pub fn command() -> Command {
    with_settings(Command::new("doctor"))
        .about("Checks this host for a sequencer with these settings: says what to change and how. Exit 1 when something must be changed")
        .arg(config_file(false))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Findings as a JSON array"))
}

pub fn run(matches: &ArgMatches) -> Result<()> {
    let config = Config::from_raw(&raw_config(matches, "0.0.0.0", "false")?)?;
    let findings = judge::all(&reader::host(&places(&config)), &needs(&config));
    if matches.get_flag("json") {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print!("{}", text(&findings));
    }
    if worst(&findings) == Level::Fail {
        bail!("this host must be changed: see FAIL above");
    }
    Ok(())
}

fn places(config: &Config) -> Vec<(&'static str, PathBuf)> {
    // `dev` without a directory uses a temporary one.
    let data_dir = config.data_dir.clone().unwrap_or_else(std::env::temp_dir);
    let own = [("journal.dir", &config.journal.dir), ("state.dir", &config.state.dir)];
    let own = own.into_iter().filter_map(|(name, dir)| Some((name, dir.clone()?)));
    std::iter::once(("data-dir", data_dir)).chain(own).collect()
}

fn needs(config: &Config) -> Needs {
    let pool = &config.mempool;
    Needs {
        connections_max: config.http.connections_max as u64,
        ring_count: topology::shard_count(config) as u64,
        pinned_cores: topology::pinned_cores(config),
        free_bytes_min: GROWTH_BYTES + config.journal.segment_bytes * config.journal.segments_kept_max as u64,
        memory_bytes: pool.bytes_max + u64::from(pool.transactions_max) * POOL_ENTRY_BYTES + OTHER_MEMORY_BYTES,
    }
}

/// A line for each finding, and below those that are not `ok` what to do.
fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let level = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        text += &format!("{level}  {:<22} {}\n", finding.check, finding.seen);
        if let (Some(change), Some(command)) = (finding.change, &finding.command) {
            text += &format!("        {change}\n        $ {command}\n");
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    text + &format!("{} ok, {} warnings, {} failures\n", count(Level::Ok), count(Level::Warn), count(Level::Fail))
}

/// What every start checks before it opens anything.
///
/// # Errors
/// What is missing, and the command that brings it.
pub fn require(config: &Config) -> Result<()> {
    let findings = judge::requirements(&reader::requirements(), &needs(config));
    let Some(finding) = findings.iter().find(|finding| finding.level == Level::Fail) else { return Ok(()) };
    let (change, command) = (finding.change.unwrap_or_default(), finding.command.as_deref().unwrap_or_default());
    bail!(
        "{}: {}: {change}\n  $ {command}\n  `sequencer doctor` checks the rest of this host",
        finding.check,
        finding.seen
    );
}
