//! A start behind its execution client: the client's blocks enter the journal as if they had been built here, and are executed from there.
//!
//! Every record that the builder core would have written is written, `Sealed` with the client's hash included; the start that follows executes
//! them as it executes every journal and refuses to go on when a hash differs. So nothing of the client's is believed. Runs before the
//! first thread.

use std::borrow::Cow;

use crate::builder::block::BlockContext;
use crate::builder::block_execution::recover_authorities;
use crate::chain::ChainReader;
use crate::codec::transaction;
use crate::config::Config;
use crate::config::genesis::ChainSpec;
use crate::crypto::recovery;
use crate::engine_api::adoption::{RemoteBody, RemoteChain};
use crate::engine_api::jwt::Secret;
use crate::journal::file_storage::FileStorage;
use crate::journal::history::History;
use crate::journal::log::Log;
use crate::journal::record::{AdmittedTx, CloseReason, Record};
use crate::primitives::{B256, Bytes, Sequence};
use crate::runtime::clock;
use crate::topology::LaunchError;

/// Blocks that are reported one line each this often.
const REPORT_BLOCKS: u64 = 1_000;

/// The newest block here: of the journal, else of the chain database. `None` while a block is open or has no hash yet: what the client has
/// at that height would be another one.
fn newest(history: Option<&History>, reader: &ChainReader) -> Result<Option<(u64, B256)>, LaunchError> {
    if let Some(block) = history.and_then(|history| history.blocks.last()) {
        return Ok(block.sealed.as_ref().map(|sealed| (block.number, sealed.hash)));
    }
    let Some(number) = reader.latest_number() else { return Ok(None) };
    Ok(reader.hash_by_number(number)?.map(|hash| (number, hash)))
}

/// Reads what the client has above our newest block into the journal; answers how many blocks. A client that does not answer has none: it
/// is asked again by the control thread.
///
/// # Errors
/// A block that cannot be read completely, a transaction that does not decode, a failed write.
pub fn adopt(
    config: &Config,
    spec: &ChainSpec,
    secret: Secret,
    history: Option<&History>,
    reader: &ChainReader,
    log: impl FnOnce(&mut FileStorage) -> Result<Log, LaunchError>,
    storage: &mut FileStorage,
) -> Result<u64, LaunchError> {
    let Some((number, hash)) = newest(history, reader)? else { return Ok(0) };
    let mut client = RemoteChain::new(&config.execution, secret).map_err(LaunchError::AdoptionRuntime)?;
    let Ok(head) = client.head() else { return Ok(0) };
    if head.number <= number {
        return Ok(0);
    }
    if client.hash(number)? != Some(hash) {
        // Another chain: the control thread says where it parts from ours.
        return Ok(0);
    }
    let next = client.hash(number + 1)?;
    let is_void = history.is_some_and(|history| {
        history.void.iter().any(|block| block.number() == number + 1 && block.hash().is_some() && block.hash() == next)
    });
    if is_void {
        // Our own block, rolled back: the control thread sets the client's head below it.
        return Ok(0);
    }
    tracing::info!(from = number + 1, to = head.number, "adopting blocks of the execution client");
    let mut log = log(storage)?;
    let mut sequence = history.map_or(Sequence(0), |history| history.last);
    for number in number + 1..=head.number {
        let Some(body) = client.block(number)? else { return Err(LaunchError::AdoptionGone { number }) };
        let now_unix_ns = clock::wall_unix_ns();
        let records = records_of(&body, spec, &mut sequence, now_unix_ns)?;
        log.append_durably(&records, storage, now_unix_ns)?;
        if number.is_multiple_of(REPORT_BLOCKS) {
            tracing::info!(block = number, "adopted");
        }
    }
    Ok(head.number - number)
}

/// What the builder core would have written of this block.
///
/// # Errors
/// A transaction that does not decode.
pub(super) fn records_of(
    body: &RemoteBody,
    spec: &ChainSpec,
    sequence: &mut Sequence,
    now_unix_ns: u64,
) -> Result<Vec<u8>, LaunchError> {
    let number = body.number;
    let context = BlockContext {
        number,
        parent_hash: body.parent_hash,
        timestamp: body.timestamp,
        base_fee_per_gas_wei: body.base_fee_per_gas_wei,
        prev_randao: body.prev_randao,
        coinbase: body.coinbase,
        gas_limit: body.gas_limit,
        extra_data: body.extra_data.clone(),
        parent_beacon_block_root: body.parent_beacon_block_root,
        fork: spec.fork_at(body.timestamp),
    };
    let mut out = records_of_open(&context, &body.transactions, sequence, now_unix_ns)?;
    let mut push = |record: &Record<'_>| {
        sequence.0 += 1;
        record.encode(*sequence, &mut out);
    };
    // A body of 8 MiB holds far fewer than 2^32 transactions.
    push(&Record::Closed { number, tx_count: body.transactions.len() as u32, reason: CloseReason::Deadline });
    push(&Record::Sealed {
        number,
        hash: body.hash,
        state_root: body.state_root,
        receipts_root: body.receipts_root,
        sealed_unix_ns: now_unix_ns,
    });
    Ok(out)
}

/// What the builder core would have written of a block that is still open.
///
/// # Errors
/// A transaction that does not decode.
pub(super) fn records_of_open(
    context: &BlockContext,
    transactions: &[Bytes],
    sequence: &mut Sequence,
    now_unix_ns: u64,
) -> Result<Vec<u8>, LaunchError> {
    let mut out = Vec::new();
    let mut push = |record: &Record<'_>| {
        sequence.0 += 1;
        record.encode(*sequence, &mut out);
        *sequence
    };
    let number = context.number;
    let mut scratch = Vec::new();
    let mut names = Vec::with_capacity(transactions.len());
    for (index, raw) in transactions.iter().enumerate() {
        let fault = |what: String| LaunchError::AdoptionTransaction { number, index, what };
        let decoded = transaction::decode(raw).map_err(|error| fault(error.to_string()))?;
        let digest = transaction::signing_hash(raw, &decoded, &mut scratch);
        let sender = recovery::recover(&decoded.recover_item(digest)).map_err(|error| fault(error.to_string()))?;
        let authorities = recover_authorities(raw, &decoded);
        names.push(push(&Record::Admitted(AdmittedTx {
            sender,
            accepted_unix_ns: now_unix_ns,
            authorities: Cow::Owned(authorities),
            conditions: None,
            raw,
        })));
    }
    push(&Record::Opened { context: Cow::Borrowed(context), opened_unix_ns: now_unix_ns });
    for (index, tx) in (0_u32..).zip(&names) {
        push(&Record::Placed { tx: *tx, index, preconfirmed_unix_ns: now_unix_ns });
    }
    Ok(out)
}
