//! `sequencer genesis`: prints the development genesis, fit for `geth init` unchanged.

use anyhow::Result;
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::config::genesis::{DEV_ACCOUNTS, dev_genesis};
use crate::primitives::Fork;

pub fn command() -> Command {
    Command::new("genesis")
        .about("Prints the development genesis in go-ethereum's JSON format")
        .arg(
            Arg::new("fork")
                .long("fork")
                .value_parser(["prague", "osaka"])
                .default_value("osaka")
                .help("Rules from the first block on"),
        )
        .arg(Arg::new("accounts").long("accounts").value_name("N").value_parser(value_parser!(u32)).help(
            "Funded accounts: the first ten are the well-known ones, nobody has the keys of further ones [default: 10]",
        ))
}

pub fn run(matches: &ArgMatches) -> Result<()> {
    let fork = match matches.get_one::<String>("fork").map(String::as_str) {
        Some("prague") => Fork::Prague,
        _ => Fork::Osaka,
    };
    let account_count = matches.get_one::<u32>("accounts").map_or(DEV_ACCOUNTS.len(), |count| *count as usize);
    println!("{}", serde_json::to_string_pretty(&dev_genesis(fork, account_count)?.genesis)?);
    Ok(())
}
