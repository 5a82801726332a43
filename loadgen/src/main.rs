//! Load generator for Ethereum JSON-RPC nodes.
//!
//! Command line → set-up (accounts, contracts, signed transactions) → measured part (sending threads, tier watchers) →
//! report. Nothing is signed, allocated per request or resolved while the clock runs, except what replies need.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps fails as it should"))]

mod cli;

mod run;

mod assemble;

mod find_max;

mod overload;

mod compare;

mod genesis;

mod setup;

mod workload;

mod schedule;

mod engine;

mod tiers;

mod mend;

mod verify;

mod fate;

mod taxonomy;

mod report;

mod client;

mod process;

mod sampler;

mod progress;

mod rng;

mod limits;

mod error;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::cli::{Cli, Command, RunArgs};
use crate::error::Error;
use crate::report::{Report, html, table};
use crate::run::Job;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status when the command line makes no sense; clap uses the same.
const EXIT_USAGE: u8 = 2;

/// Exit status when a condition, or `--verify`, failed.
const EXIT_CHECK_FAILED: u8 = 3;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run_command(&args),
        Command::Compare(args) => compare_command(&args.base, &args.other),
        Command::FindMax(args) => find_max_command(&args),
        Command::Overload(args) => overload_command(&args),
        Command::Accounts(args) => accounts_command(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("loadgen: {error:#}");
        let is_usage = matches!(error.downcast_ref(), Some(Error::Usage(_) | Error::Url { .. }));
        if is_usage { ExitCode::from(EXIT_USAGE) } else { ExitCode::FAILURE }
    })
}

fn run_command(args: &RunArgs) -> Result<ExitCode> {
    let job = Job::from_args(args)?;
    if args.dry_run {
        println!("{}", run::dry_run(&job)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut finished = run::execute(&job)?;
    let report = &mut finished.report;
    report.asserts = args.asserts.iter().map(|condition| condition.judge(report)).collect();
    print!("{}", table::render(report));
    if let Some(path) = &args.report_json {
        report.write_file(path)?;
    }
    if let Some(path) = &args.report_html {
        std::fs::write(path, html::render(report)).with_context(|| path.clone())?;
    }
    if let (Some(path), Some(log)) = (&args.hdr_log, &finished.hdr_log) {
        std::fs::write(path, log).with_context(|| path.clone())?;
    }
    if let Some(error) = finished.verification_error {
        return Err(error).context("--verify could not ask the node");
    }
    let failed = report.asserts.iter().any(|verdict| !verdict.passed);
    // Figures of an invalid run prove nothing, so conditions on them are not met either.
    let unproven = !report.asserts.is_empty() && !report.generator.valid;
    let lost = report.verification.as_ref().is_some_and(|verification| verification.lost > 0);
    Ok(if failed || unproven || lost { ExitCode::from(EXIT_CHECK_FAILED) } else { ExitCode::SUCCESS })
}

fn compare_command(base: &str, other: &str) -> Result<ExitCode> {
    print!("{}", compare::render(&Report::from_file(base)?, &Report::from_file(other)?));
    Ok(ExitCode::SUCCESS)
}

fn accounts_command(args: &cli::AccountsArgs) -> Result<ExitCode> {
    println!("{}", genesis::render(args)?);
    Ok(ExitCode::SUCCESS)
}

fn overload_command(args: &cli::OverloadArgs) -> Result<ExitCode> {
    let overload = overload::run(args)?;
    print!("{}", overload::render(&overload));
    if let Some(path) = &args.report_json {
        std::fs::write(path, serde_json::to_vec_pretty(&overload)?).with_context(|| path.clone())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn find_max_command(args: &cli::FindMaxArgs) -> Result<ExitCode> {
    let best = find_max::find_max(args)?;
    println!();
    print!("{}", table::render(&best));
    if let Some(path) = &args.report_json {
        best.write_file(path)?;
    }
    if let Some(path) = &args.report_html {
        std::fs::write(path, html::render(&best)).with_context(|| path.clone())?;
    }
    Ok(ExitCode::SUCCESS)
}
