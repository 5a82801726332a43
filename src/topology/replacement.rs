//! Blocks of ours that give way: to nothing, when L1 no longer has their origin, or to valid blocks on L1 that this process did not make.
//!
//! The process stops, the journal is written as `sequencer journal rollback` writes it, the other blocks follow as if they had been built
//! here, and the process starts again over the same directory. So there is one path that changes history, and it is the one of every
//! start: replay, which reaches the same hashes or refuses; where there is no state to replay on (`delegated`), strict re-execution has done it. What was in the blocks is pooled again.

use std::io::Write as _;
use std::path::Path;

use crate::builder::block::BlockContext;
use crate::config::Config;
use crate::config::execution::ExecutionMode;
use crate::config::genesis::ChainSpec;
use crate::engine_api::adoption::RemoteBody;
use crate::journal::history::History;
use crate::journal::log::{Log, LogSettings};
use crate::journal::record::RollbackCause;
use crate::journal::rollback::Plan;
use crate::journal::scan::scan;
use crate::journal::storage::Storage;
use crate::primitives::{Bytes, Sequence};
use crate::runtime::clock;
use crate::settlement::strict::DerivedBlock;
use crate::topology::{LaunchError, adoption, delegated, startup};

/// What is to happen to the newest blocks.
#[derive(Debug)]
pub struct Replacement {
    /// Newest block that stays.
    pub to_block: u64,
    pub cause: RollbackCause,
    /// Ascending from the block after; empty when the blocks above are only taken back.
    pub blocks: Vec<DerivedBlock>,
    /// The beginning of the block behind them, which L1 has: the next process goes on with it.
    pub open: Option<OpenBody>,
}

/// A block up to its newest transaction.
#[derive(Debug)]
pub struct OpenBody {
    pub context: BlockContext,
    /// 2718 encodings.
    pub transactions: Vec<Bytes>,
}

/// Writes the replacement into the journal of a process that has stopped.
///
/// # Errors
/// A journal that no longer holds what has to be taken back; a failed write; a transaction that does not decode.
pub fn carry_out(
    config: &Config,
    spec: &ChainSpec,
    data_dir: &Path,
    replacement: &Replacement,
) -> Result<(), LaunchError> {
    let dir = startup::journal_dir(config, data_dir);
    let mut storage = startup::open_journal(config, &dir)?;
    let settings = startup::log_settings(config);
    let now_unix_ns = clock::wall_unix_ns();
    let begin = |storage: &mut _| startup::begin_journal(settings, storage);
    let mut keep = |plan: &Plan<'_>| {
        write_withdrawn(&dir, plan).map_err(|source| LaunchError::ChainFile { path: dir.clone(), source })
    };
    write(&mut storage, settings, spec, replacement, begin, &mut keep, now_unix_ns)?;
    drop(storage);
    // Elsewhere the start executes them from the journal.
    if config.execution.mode == ExecutionMode::Delegated && !replacement.blocks.is_empty() {
        delegated::adopt(config, data_dir, replacement)?;
    }
    Ok(())
}

/// Writes it into any journal. `begin` makes an empty one; `keep` is told what is withdrawn before it is.
///
/// # Errors
/// As [`carry_out`].
pub fn write<S: Storage>(
    storage: &mut S,
    settings: LogSettings,
    spec: &ChainSpec,
    replacement: &Replacement,
    begin: impl FnOnce(&mut S) -> Result<Log, LaunchError>,
    keep: &mut dyn FnMut(&Plan<'_>) -> Result<(), LaunchError>,
    now_unix_ns: u64,
) -> Result<(), LaunchError> {
    let scanned = scan(storage)?;
    let history = scanned.as_ref().map(|scanned| History::read(scanned.records())).transpose()?;
    let (mut log, mut sequence) = match (&scanned, &history) {
        (Some(scanned), Some(history)) => (Log::resume(settings, scanned, history), history.last),
        _ => (begin(storage)?, Sequence(0)),
    };
    let newest = history.as_ref().and_then(|history| history.blocks.last()).map(|block| block.number);
    let mut rollback = None;
    if let (Some(scanned), Some(history)) = (&scanned, &history)
        && newest.is_some_and(|newest| newest > replacement.to_block)
    {
        let plan = Plan::new(history, replacement.to_block, replacement.cause, |at| scanned.record_at(at))?;
        tracing::warn!(%plan, cause = replacement.cause.name(), "taking back blocks");
        keep(&plan)?;
        rollback = Some((plan.record(), plan.sequence));
    }
    // A slot is not written while its bytes are read.
    drop(scanned);
    if let Some((record, rollback_sequence)) = rollback {
        sequence = rollback_sequence;
        let mut bytes = Vec::new();
        record.encode(sequence, &mut bytes);
        log.append_durably(&bytes, storage, now_unix_ns)?;
    }
    for block in &replacement.blocks {
        let records = adoption::records_of(&body_of(block), spec, &mut sequence, now_unix_ns)?;
        log.append_durably(&records, storage, now_unix_ns)?;
    }
    if let Some(OpenBody { context, transactions }) = &replacement.open {
        let records = adoption::records_of_open(context, transactions, &mut sequence, now_unix_ns)?;
        log.append_durably(&records, storage, now_unix_ns)?;
        tracing::info!(number = context.number, txs = transactions.len(), "adopted the beginning of a block from L1");
    }
    if let Some(newest) = replacement.blocks.last() {
        tracing::info!(from = replacement.to_block + 1, to = newest.header.number, "adopted blocks from L1");
    }
    Ok(())
}

/// The list is on the disk before the record: a crash in between leaves a file that the next try overwrites.
///
/// # Errors
/// Of the file system.
pub fn write_withdrawn(dir: &Path, plan: &Plan<'_>) -> std::io::Result<()> {
    let mut file = std::fs::File::create(dir.join(plan.file_name()))?;
    file.write_all(plan.file_text().as_bytes())?;
    file.sync_all()?;
    std::fs::File::open(dir)?.sync_all()
}

/// A derived block in the form in which blocks of others are adopted.
fn body_of(block: &DerivedBlock) -> RemoteBody {
    let header = &block.header;
    RemoteBody {
        number: header.number,
        hash: block.hash,
        parent_hash: header.parent_hash,
        timestamp: header.timestamp,
        base_fee_per_gas_wei: header.base_fee_per_gas.unwrap_or_default(),
        prev_randao: header.mix_hash,
        coinbase: header.beneficiary,
        gas_limit: header.gas_limit,
        extra_data: header.extra_data.clone(),
        parent_beacon_block_root: header.parent_beacon_block_root.unwrap_or_default(),
        state_root: header.state_root,
        receipts_root: header.receipts_root,
        transactions: block.transactions(),
    }
}
