//! `sequencer state inspect|verify|compact`: what an operator does with the state of a process that is not running.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Command};

use crate::runtime::bus_fault::watch_segments;
use crate::state::StateReader;
use crate::state::files::FileStore;
use crate::state::files::recovery::open_offline;
use crate::state::files::verify::verify;

pub fn command() -> Command {
    Command::new("state")
        .about("Reads, checks or compacts the state files of a sequencer that is not running")
        .subcommand_required(true)
        .subcommand(with_dir(Command::new("inspect").about("Says what the state files hold")))
        .subcommand(
            with_dir(Command::new("verify")).about(
                "Reads and hashes every node of the newest version; exit 1 and file and offset of the first damage",
            ),
        )
        .subcommand(
            with_dir(Command::new("compact"))
                .about("Moves all that is alive into new segments; versions older than the newest are forgotten"),
        )
}

fn with_dir(command: Command) -> Command {
    command.arg(Arg::new("data-dir").long("data-dir").value_name("DIR").help("Data directory of the sequencer")).arg(
        Arg::new("state-dir").long("state.dir").value_name("DIR").help("Where state.dir of the configuration is set"),
    )
}

pub fn run(matches: &ArgMatches) -> Result<()> {
    let (name, matches) = matches.subcommand().context("inspect, verify or compact")?;
    let path = |name| matches.get_one::<String>(name).map(PathBuf::from);
    let dir = path("state-dir")
        .or_else(|| path("data-dir").map(|dir| dir.join("state")))
        .context("--data-dir DIR is missing")?;
    let mut store = open_offline(&dir)?;
    let (address, bytes, file_bytes) = store.mapped();
    watch_segments(address, bytes, file_bytes).context("the handler for failed reads of mapped files")?;
    match name {
        "inspect" => inspect(&store),
        "verify" => return check(&store),
        _ => {
            let before = store.segment_bytes();
            store.compact()?;
            println!("{} MiB before, {} MiB now", before >> 20, store.segment_bytes() >> 20);
        }
    }
    Ok(())
}

fn inspect(store: &FileStore) {
    let segments = store.segments();
    let count = segments.len();
    println!("segments: {count} of {} MiB", store.geometry().segment_bytes >> 20);
    if count > 0 {
        println!("  {:08} to {:08}", segments.start, segments.end - 1);
    }
    let versions: Vec<_> = store.retained_versions().collect();
    println!("versions: {}", versions.len());
    if let (Some(oldest), Some(newest)) = (versions.first(), versions.last()) {
        println!("  oldest: block {}, root {}", oldest.stamp().number, oldest.root());
        println!("  newest: block {}, root {}", newest.stamp().number, newest.root());
        println!("  journal record of the newest: {}", newest.stamp().sequence);
        println!("  bytes from its lowest node on: {}", newest.node_bytes());
    }
}

fn check(store: &FileStore) -> Result<()> {
    let Some(newest) = store.newest() else {
        println!("ok: no version");
        return Ok(());
    };
    let census = verify(newest)?;
    println!(
        "ok: block {}, root {}: {} accounts, {} slots, {} codes in {} nodes, {} bytes",
        newest.stamp().number,
        newest.root(),
        census.accounts,
        census.slots,
        census.codes,
        census.nodes,
        census.live_bytes
    );
    Ok(())
}
