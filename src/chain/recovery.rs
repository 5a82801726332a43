//! Opening after a crash: what has been synced is taken as it is, what came later is checked whole and kept up to the first damage.

use super::block::{BodyReader, ReceiptsReader};
use super::checkpoint::{Checkpoint, CheckpointFile};
use super::error::ChainError;
use super::map::AppendFile;
use super::reader::{State, read_head};
use super::record::{HEAD_BYTES, HEAD_MAGIC, Head};
use super::slot::{BLOOM_SLOT_BYTES, OFFSET_SLOT_BYTES};
use super::writer::{Files, header_bloom};

/// Where the files end, as far as they are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tails {
    headers: u64,
    bodies: u64,
    receipts: u64,
    block_count: u64,
}

/// Cuts a torn tail off the files, renews the slots of what remains, syncs, and answers how many blocks there are.
///
/// Errors: `Corrupt` when a file is shorter than what was synced; `Io`.
pub(super) fn recover(files: &mut Files, checkpoint: &mut CheckpointFile) -> Result<u64, ChainError> {
    let synced = checkpoint.newest();
    check_synced_lengths(files, &synced)?;
    let start = Tails {
        headers: synced.headers_bytes,
        bodies: synced.bodies_bytes,
        receipts: synced.receipts_bytes,
        block_count: synced.block_count,
    };
    let state = files.state(0, 0);
    let mut tails = start;
    // Any damage above the synced length is a torn tail, whatever it looks like.
    while let Ok(Some((head, next))) = read_next(&state, tails) {
        if head.magic == HEAD_MAGIC {
            let header = state.headers.bytes(tails.headers + HEAD_BYTES, u64::from(head.header_bytes))?;
            let Ok(bloom) = header_bloom(header) else { break };
            files.write_slots(head.number, tails.headers, &bloom)?;
        }
        tails = next;
    }
    drop(state);
    let torn = files.headers.len() != tails.headers
        || files.bodies.len() != tails.bodies
        || files.receipts.len() != tails.receipts;
    files.headers.cut(tails.headers)?;
    files.bodies.cut(tails.bodies)?;
    files.receipts.cut(tails.receipts)?;
    files.offsets.cut(tails.block_count * OFFSET_SLOT_BYTES)?;
    files.blooms.cut(tails.block_count * BLOOM_SLOT_BYTES)?;
    if torn || tails != start {
        let state = files.state(0, 0);
        for file in [&state.bodies, &state.receipts, &state.offsets, &state.blooms, &state.headers] {
            file.sync()?;
        }
        checkpoint.write(Checkpoint {
            generation: 0, // set by `write`
            headers_bytes: tails.headers,
            bodies_bytes: tails.bodies,
            receipts_bytes: tails.receipts,
            block_count: tails.block_count,
        })?;
    }
    Ok(tails.block_count)
}

fn check_synced_lengths(files: &Files, synced: &Checkpoint) -> Result<(), ChainError> {
    let check = |file: &AppendFile, synced_bytes: u64| {
        if file.len() >= synced_bytes {
            return Ok(());
        }
        Err(ChainError::corrupt(file.path(), file.len(), "file ends before its synced length"))
    };
    check(&files.headers, synced.headers_bytes)?;
    check(&files.bodies, synced.bodies_bytes)?;
    check(&files.receipts, synced.receipts_bytes)?;
    check(&files.offsets, synced.block_count * OFFSET_SLOT_BYTES)?;
    check(&files.blooms, synced.block_count * BLOOM_SLOT_BYTES)
}

/// The record behind the tails, checked to its last byte, and the tails after it; `None` at the end of `headers`.
fn read_next(state: &State, tails: Tails) -> Result<Option<(Head, Tails)>, ChainError> {
    if tails.headers == state.headers.len() {
        return Ok(None);
    }
    let torn = |what| ChainError::corrupt(state.headers.path(), tails.headers, what);
    let head = read_head(&state.headers, tails.headers)?;
    let headers = tails.headers + head.record_bytes();
    if head.magic != HEAD_MAGIC {
        if head.number > tails.block_count {
            return Err(torn("rollback to a block that is not there"));
        }
        return Ok(Some((head, Tails { headers, block_count: head.number, ..tails })));
    }
    if (head.number, head.body_offset, head.receipts_offset) != (tails.block_count, tails.bodies, tails.receipts) {
        return Err(torn("head record out of order"));
    }
    let body = BodyReader::open(state, &head)?;
    let receipts = ReceiptsReader::open(state, &head)?;
    for index in 0..head.tx_count {
        body.row(index)?;
        receipts.row(index)?;
    }
    receipts.check_filter()?;
    let (bodies_end, receipts_end) =
        (tails.bodies + body.table.record_bytes(), tails.receipts + receipts.table.record_bytes());
    // The padding is read as well: a record ends inside its file.
    state.bodies.bytes(tails.bodies, body.table.record_bytes())?;
    state.receipts.bytes(tails.receipts, receipts.table.record_bytes())?;
    let block_count = head.number + 1;
    Ok(Some((head, Tails { headers, bodies: bodies_end, receipts: receipts_end, block_count })))
}
