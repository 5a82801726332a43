//! `sequencer journal inspect|verify|rollback`: what an operator does with the journal of a process that is not running.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::engine_api::files::{Accused, Evidence};
use crate::journal::file_storage::{FileStorage, SlotBytes, SyncMode, WriteEngine};
use crate::journal::history::{History, Position};
use crate::journal::log::{Log, LogSettings};
use crate::journal::record::RollbackCause;
use crate::journal::report::{RecordCounts, Report, SegmentPlace, ok_line};
use crate::journal::rollback::{Plan, RollbackError};
use crate::journal::scan::{Scan, scan};
use crate::l1::tx_manager::types::PayloadId;
use crate::limits;
use crate::primitives::B256;
use crate::runtime::clock;
use crate::settlement::ledger::Entry;
use crate::settlement::ledger_file::LedgerFile;
use crate::topology::replacement;

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
        _ => rollback(matches, &dir, &mut storage, scanned, &history)?,
    }
    Ok(())
}

fn rollback(
    matches: &ArgMatches,
    dir: &Path,
    storage: &mut FileStorage,
    scanned: Scan<SlotBytes>,
    history: &History,
) -> Result<()> {
    let to_block = *matches.get_one::<u64>("to-block").context("--to-block N")?;
    let is_done = matches.get_flag("yes");
    let accused = accused_above(matches, to_block)?;
    let plan = match Plan::new(history, to_block, RollbackCause::Operator, |at: Position| scanned.record_at(at)) {
        // What the client built and we did not take is in no journal.
        Err(RollbackError::Nothing { .. } | RollbackError::NoBlock)
            if accused.iter().any(|accused| accused.number == to_block + 1) =>
        {
            None
        }
        plan => Some(plan?),
    };
    for Accused { number, hash, dir } in &accused {
        println!("block {number} {hash} was never taken; it halts no start any more: {}", dir.display());
    }
    let withdrawal = match &plan {
        Some(plan) => {
            println!("{plan}");
            batches_above(matches, to_block)?
        }
        None => None,
    };
    if !is_done {
        println!("nothing was changed: --yes does it");
        return Ok(());
    }
    // First: a crash in between leaves batches that are made again, never one of a block that is gone.
    if let Some(Withdrawal { data_dir, genesis, from }) = withdrawal {
        LedgerFile::open(&data_dir, genesis)?.append(vec![Entry::Withdrawn { from }])?;
    }
    if let Some(plan) = plan {
        let mut log = Log::resume(log_settings(&scanned), &scanned, history);
        let (record, sequence, file) = (plan.record(), plan.sequence, dir.join(plan.file_name()));
        replacement::write_withdrawn(dir, &plan).with_context(|| file.display().to_string())?;
        drop(scanned);
        let mut bytes = Vec::new();
        record.encode(sequence, &mut bytes);
        log.append_durably(&bytes, storage, clock::wall_unix_ns())?;
        println!("done: the withdrawn preconfirmations are in {}", file.display());
    }
    for accused in &accused {
        Evidence::answer(accused)?;
    }
    Ok(())
}

/// Blocks above `to_block` that an execution client built and we did not take (`delegated`): they halt each start until they are answered here.
fn accused_above(matches: &ArgMatches, to_block: u64) -> Result<Vec<Accused>> {
    let Some(data_dir) = matches.get_one::<String>("data-dir") else { return Ok(Vec::new()) };
    Ok(Evidence::new(Path::new(data_dir)).open_above(to_block)?)
}

/// Batches in the settlement ledger that are not wanted any more.
struct Withdrawal {
    data_dir: PathBuf,
    genesis: B256,
    from: PayloadId,
}

/// The batches that hold blocks above `to_block`, with a line that says how many they are.
///
/// # Errors
/// Blocks that are final on L1, or in a batch that is signed: L1 decides about those, and derivation would bring them back.
fn batches_above(matches: &ArgMatches, to_block: u64) -> Result<Option<Withdrawal>> {
    let Some(data_dir) = matches.get_one::<String>("data-dir").map(PathBuf::from) else {
        bail!("--data-dir DIR is missing: the settlement ledger is there");
    };
    let Some((ledger, genesis)) = LedgerFile::peek(&data_dir)? else { return Ok(None) };
    let last_final = ledger.checkpoint_block();
    if last_final > to_block {
        bail!("block {last_final} is final on L1: --to-block {to_block} is below it");
    }
    let above = || ledger.wanted().filter(|batch| batch.last_block > to_block);
    if let Some(signed) = above().filter(|batch| ledger.is_signed(batch.facts.id)).last() {
        let (index, last) = (signed.index, signed.last_block);
        bail!(
            "block {last} is in batch {index}, which is signed and counts when it is on L1: the lowest --to-block is {last}"
        );
    }
    let Some(from) = above().next().map(|batch| batch.facts.id) else { return Ok(None) };
    println!("batches that hold blocks above {to_block}, and are made anew: {}", above().count());
    Ok(Some(Withdrawal { data_dir, genesis, from }))
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
