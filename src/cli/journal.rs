//! `sequencer journal inspect|verify|rollback`: what an operator does with the journal of a process that is not running.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::journal::file_storage::{FileStorage, SlotBytes, SyncMode, WriteEngine};
use crate::journal::history::{History, Position};
use crate::journal::log::{Log, LogSettings};
use crate::journal::report::{RecordCounts, Report, SegmentPlace, ok_line};
use crate::journal::rollback::Plan;
use crate::journal::scan::{Scan, scan};
use crate::limits;
use crate::runtime::clock;

pub fn command() -> Command {
    Command::new("journal")
        .about("Reads, checks or rolls back the journal of a sequencer that is not running")
        .subcommand_required(true)
        .subcommand(with_dir(Command::new("inspect").about("Says what the journal holds")))
        .subcommand(with_dir(
            Command::new("verify").about("Checks every byte; exit 1 and the first damage when there is some"),
        ))
        .subcommand(
            with_dir(Command::new("rollback"))
                .about("Takes back blocks: their transactions are pooled again at the next start")
                .arg(
                    Arg::new("to-block")
                        .long("to-block")
                        .value_name("N")
                        .value_parser(value_parser!(u64))
                        .required(true)
                        .help("The newest block that stays"),
                )
                .arg(
                    Arg::new("yes")
                        .long("yes")
                        .action(ArgAction::SetTrue)
                        .help("Do it; without, only say what would be withdrawn"),
                ),
        )
}

fn with_dir(command: Command) -> Command {
    command.arg(Arg::new("data-dir").long("data-dir").value_name("DIR").help("Data directory of the sequencer")).arg(
        Arg::new("journal-dir")
            .long("journal.dir")
            .value_name("DIR")
            .help("Where journal.dir of the configuration is set"),
    )
}

pub fn run(matches: &ArgMatches) -> Result<()> {
    let (name, matches) = matches.subcommand().context("inspect, verify or rollback")?;
    let dir = journal_dir(matches)?;
    let mut storage = FileStorage::open(&dir, SyncMode::Always, WriteEngine::Pwritev2)?;
    let Some(scanned) = scan(&mut storage)? else { bail!("{} holds no journal", dir.display()) };
    let history = History::read(scanned.records())?;
    match name {
        "inspect" => inspect(&scanned, &history),
        "verify" => println!("{}", ok_line(&history)),
        _ => {
            let to_block = *matches.get_one::<u64>("to-block").context("--to-block N")?;
            let bytes_at = |at: Position| scanned.record_at(at);
            let plan = Plan::new(&history, to_block, bytes_at)?;
            println!("{plan}");
            if !matches.get_flag("yes") {
                println!("nothing was changed: --yes does it");
                return Ok(());
            }
            let mut log = Log::resume(log_settings(&scanned), &scanned, &history);
            let (record, sequence) = (plan.record(), plan.sequence);
            write_withdrawn(&dir, &plan)?;
            drop(scanned);
            let mut bytes = Vec::new();
            record.encode(sequence, &mut bytes);
            log.append_durably(&bytes, &mut storage, clock::wall_unix_ns())?;
            println!("done: the withdrawn preconfirmations are in {}", dir.join(plan.file_name()).display());
        }
    }
    Ok(())
}

/// The directory, which must be there: opening one that is not would make it.
fn journal_dir(matches: &ArgMatches) -> Result<PathBuf> {
    let path = |name| matches.get_one::<String>(name).map(PathBuf::from);
    let dir = path("journal-dir")
        .or_else(|| path("data-dir").map(|dir| dir.join("journal")))
        .context("--data-dir DIR is missing")?;
    if !dir.is_dir() {
        bail!("{} is not a directory", dir.display());
    }
    Ok(dir)
}

fn inspect(scanned: &Scan<SlotBytes>, history: &History) {
    let segments: Vec<SegmentPlace> = scanned
        .segments
        .iter()
        .map(|segment| SegmentPlace { slot: segment.slot, epoch: segment.epoch, used_bytes: segment.used_bytes() })
        .collect();
    // Counted from the oldest segment, of which there are fewer than 2^32.
    let newest = segments.len() as u32 - 1;
    let torn_tail = scanned.torn.as_ref().map(|torn| Position { segment: newest, offset: torn.offset as u32 });
    let counts = RecordCounts::of(scanned.records().map(|(_, record)| record));
    println!("{}", Report { history, counts, segments: &segments, torn_tail });
}

fn log_settings(scanned: &Scan<SlotBytes>) -> LogSettings {
    let segment_bytes =
        scanned.segments.last().map_or(limits::JOURNAL_SEGMENT_BYTES_MIN, |last| last.bytes.len() as u64);
    LogSettings { segment_bytes, group_bytes_max: limits::JOURNAL_GROUP_BYTES_MAX, segments_kept_max: usize::MAX }
}

/// The list is on the disk before the record: a crash in between leaves a file that the next try overwrites.
fn write_withdrawn(dir: &Path, plan: &Plan<'_>) -> Result<()> {
    let path = dir.join(plan.file_name());
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&path)?;
        file.write_all(plan.file_text().as_bytes())?;
        file.sync_all()?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().with_context(|| path.display().to_string())
}
