//! `sequencer verify`: a block and its witness, checked with nothing else at hand but the rules of the chain.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::config::genesis::ChainSpec;
use crate::primitives::Bytes;
use crate::witness::decode::WITNESS_BYTES_MAX;
use crate::witness::validator::{Strictness, validate_bytes};

pub fn command() -> Command {
    let file = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf)).required(true).help(help)
    };
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    Command::new("verify")
        .about("Executes a block over its witness alone; exit 0 and the roots, or exit 1 and what is wrong")
        .arg(file("genesis", "Genesis in go-ethereum's JSON format: the rules of the chain"))
        .arg(file("block", "RLP of the block"))
        .arg(file("witness", "RLP of its witness, as go-ethereum's engine API gives it"))
        .arg(flag("canonical", "Demand exactly the witness of go-ethereum v1.17.5: nothing missing, nothing more"))
        .arg(flag(
            "skip-header-rules",
            "Leave out what follows from the parent's header: gas limit, base fee, timestamp",
        ))
}

pub fn run(matches: &ArgMatches) -> Result<()> {
    let path = |name: &str| matches.get_one::<PathBuf>(name).with_context(|| format!("--{name} FILE"));
    let genesis = path("genesis")?;
    let text = String::from_utf8(read(genesis)?).with_context(|| format!("genesis file {}", genesis.display()))?;
    let spec = ChainSpec::from_json(&text).with_context(|| format!("genesis file {}", genesis.display()))?;
    let (block, witness) = (Bytes::from(read(path("block")?)?), Bytes::from(read(path("witness")?)?));
    let strictness =
        Strictness { canonical: matches.get_flag("canonical"), header_rules: !matches.get_flag("skip-header-rules") };
    let (block, validated) = validate_bytes(&spec, &block, &witness, strictness)
        .map_err(|error| anyhow!("{code}: {error}", code = error.code()))?;
    println!("block {} {}", block.header.number, validated.hash);
    println!("state root {}", validated.state_root);
    println!("receipts root {}", validated.receipts_root);
    println!("gas used {}", validated.executed.gas_used);
    println!("witness {}", if strictness.canonical { "canonical" } else { "sufficient" });
    Ok(())
}

/// Reads a file, but not more than a witness may have: the decoder refuses what is longer.
fn read(path: &PathBuf) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let read = file.take(WITNESS_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.with_context(|| path.display().to_string())?;
    Ok(bytes)
}
