//! The command line: one file per command.

mod dev;
mod doctor;
mod embedded_l1;
mod follow;
mod genesis;
mod import;
mod journal;
mod l1;
mod logging;
mod run;
mod state;
mod tx;
mod verify;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::settings::SETTINGS;
use crate::config::{Config, RawConfig, secret_file};

/// Parses the arguments of the process and runs the command; the error is what the user reads.
///
/// # Errors
/// Anything that ends the command early, in words for its user.
pub fn main() -> Result<()> {
    match command().get_matches().subcommand() {
        Some(("dev", matches)) => dev::run(matches),
        Some(("run", matches)) => run::run(matches),
        Some(("follow", matches)) => follow::run(matches),
        Some(("genesis", matches)) => genesis::run(matches),
        Some(("journal", matches)) => journal::run(matches),
        Some(("import", matches)) => import::run(matches),
        Some(("verify", matches)) => verify::run(matches),
        Some(("state", matches)) => state::run(matches),
        Some(("tx", matches)) => tx::run(matches),
        Some(("l1", matches)) => l1::run(matches),
        Some(("doctor", matches)) => doctor::run(matches),
        Some(("config", matches)) => print_config(matches),
        _ => unreachable!("clap requires one of the commands above"),
    }
}

fn command() -> Command {
    Command::new("sequencer")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A native-rollup sequencer: JSON-RPC in, executed Ethereum blocks out")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            with_settings(Command::new("dev"))
                .about("Starts a whole chain on this machine, with ten funded accounts and nothing else installed")
                .arg(config_file(false)),
        )
        .subcommand(
            with_settings(Command::new("run"))
                .about("Starts a sequencer from a configuration file")
                .arg(config_file(true)),
        )
        .subcommand(
            with_settings(Command::new("follow"))
                .about("Derives the chain from L1 and serves reads: no key, no sequencer, nothing but L1's URL and the genesis")
                .arg(config_file(false)),
        )
        .subcommand(genesis::command())
        .subcommand(journal::command())
        .subcommand(import::command())
        .subcommand(verify::command())
        .subcommand(state::command())
        .subcommand(tx::command())
        .subcommand(l1::command())
        .subcommand(doctor::command())
        .subcommand(
            Command::new("config")
                .about("Shows or checks the effective configuration")
                .subcommand_required(true)
                .subcommand(
                    with_settings(Command::new("print"))
                        .about("Prints every setting with its value and where it came from")
                        .arg(config_file(false)),
                )
                .subcommand(
                    with_settings(Command::new("check"))
                        .about("Exits 0 when the configuration is valid, and so are the files that it names")
                        .arg(config_file(false)),
                ),
        )
}

fn config_file(required: bool) -> Arg {
    Arg::new("config").long("config").value_name("FILE").help("TOML configuration file").required(required)
}

fn with_settings(command: Command) -> Command {
    let command =
        command.arg(Arg::new("l1").long("l1").value_name("MODE").help("Short for --l1.mode").action(ArgAction::Set));
    SETTINGS.iter().fold(command, |command, setting| {
        let default =
            if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
        let heading = setting.name.split_once('.').map_or("general", |(group, _)| group);
        command.arg(
            Arg::new(setting.name)
                .long(setting.name)
                .value_name("VALUE")
                .help(format!("{}{default}", setting.help))
                .help_heading(heading)
                .action(ArgAction::Set),
        )
    })
}

/// The layered configuration of a command; `host` and `cors` are the command's own defaults.
fn raw_config(matches: &ArgMatches, host: &str, cors: &str) -> Result<RawConfig> {
    let mut flags: Vec<(String, String)> = SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.name.to_owned(), matches.get_one::<String>(setting.name)?.clone())))
        .collect();
    if let Some(mode) = matches.get_one::<String>("l1") {
        flags.push(("l1.mode".to_owned(), mode.clone()));
    }
    // A variable that is not UTF-8 is none of ours.
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let file = matches.get_one::<String>("config").map(PathBuf::from);
    let mut raw = RawConfig::layered(&flags, &environment, file.as_ref())?;
    raw.default_for_command("http.host", host);
    raw.default_for_command("http.cors", cors);
    Ok(raw)
}

fn print_config(matches: &ArgMatches) -> Result<()> {
    let (name, matches) = matches.subcommand().context("print or check")?;
    let mut raw = raw_config(matches, "0.0.0.0", "false")?;
    raw.default_for_command("admin.port", run::ADMIN_PORT);
    let config = Config::from_raw(&raw)?;
    if name == "print" {
        print!("{}", raw.to_toml());
        return Ok(());
    }
    let spec = run::chain_spec(&config)?;
    let secrets = [&config.execution.jwt_secret, &config.admin.token_file];
    for path in secrets.into_iter().flatten().filter(|path| path.exists()) {
        secret_file::read(path, secret_file::BYTES_MAX)?;
    }
    println!("the configuration is valid: chain id {}", spec.chain_id);
    Ok(())
}
