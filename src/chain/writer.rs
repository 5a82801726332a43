//! Writing the chain database: one thread, no sync on the path of a block.
#![allow(unsafe_code, reason = "opens mapped files, STYLE section unsafe")]

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex};

use alloy_rlp::Decodable;
use arc_swap::ArcSwap;

use super::block::BodyReader;
use super::checkpoint::CheckpointFile;
use super::driver::{IndexWorker, SealJob};
use super::error::ChainError;
use super::index::{BLOCK_COUNT_MAX, Entry, Index, Location, TXS_PER_BLOCK_MAX, key_of};
use super::index_segment::sync_dir;
use super::map::AppendFile;
use super::reader::{ChainReader, Shared, State, read_head};
use super::receipt::ReceiptRef;
use super::record::{
    BodyRow, HEAD_MAGIC, Head, RECEIPT_ROW_BYTES, ReceiptRow, RowPlace, TABLE_BYTES, Table, TableKind, encode_body_row,
    encode_receipt_row, padded,
};
use super::slot::{BLOOM_SLOT_BYTES, OFFSET_SLOT_BYTES, encode_bloom, encode_offset};
use super::status::{EndState, StatusLimits, StatusRecord, StatusWriter, TierTimes};
use super::{ChainLimits, filter, recovery};
use crate::primitives::{Address, B256, Bloom, Span, Tier};

/// Blocks of one call whose times of settlement are remembered: more than two hours of them.
const SETTLED_BLOCKS_MAX: u64 = 8_192;

/// A block as the chain thread receives it.
#[derive(Clone, Copy, Debug)]
pub struct BlockRecord<'a> {
    pub number: u64,
    pub hash: B256,
    pub header_rlp: &'a [u8],
    /// Items of the block's RLP transaction list, one after the other, without the list header: a typed transaction is an RLP string
    /// of its EIP-2718 bytes, a legacy one its RLP list.
    pub body: &'a [u8],
    /// The withdrawals' RLP list, `[0xc0]` when there are none, empty for a block without that field.
    pub withdrawals_rlp: &'a [u8],
    /// RLP list of the EIP-7685 requests, type byte first; empty when there are none.
    pub requests_rlp: &'a [u8],
    /// One per transaction, in order.
    pub txs: &'a [TxRecord],
    /// Compact receipts (see `receipt.rs`), one after the other.
    pub receipts: &'a [u8],
}

/// What the chain database keeps about a transaction beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxRecord {
    pub hash: B256,
    pub sender: Address,
    /// The transaction's item in `BlockRecord::body`. The spans follow each other without gaps and cover all of it.
    pub body_span: Span,
    /// The transaction's receipt in `BlockRecord::receipts`. Likewise.
    pub receipt_span: Span,
}

/// The files of blocks. One writer.
pub(super) struct Files {
    pub headers: AppendFile,
    pub bodies: AppendFile,
    pub receipts: AppendFile,
    pub offsets: AppendFile,
    pub blooms: AppendFile,
}

/// Where the files of records end after a commit.
#[derive(Clone, Copy)]
struct Tails {
    headers: u64,
    bodies: u64,
    receipts: u64,
}

/// Appends blocks. Owned by the chain thread.
pub struct ChainWriter {
    // Dropped first: the worker finishes before the lock is released.
    worker: IndexWorker,
    shared: Arc<Shared>,
    files: Files,
    block_count: u64,
    rollback_count: u64,
    /// Readers are shown a block when it is on the disk.
    shows_synced: bool,
    /// First byte of `headers` whose blocks are in the active index table.
    active_start: u64,
    status: StatusWriter,
    buffer: Vec<u8>,
    filter: filter::FilterBuilder,
    _lock: File,
}

/// Makes what has been appended durable, from another thread than the writer's.
#[derive(Clone)]
pub struct ChainSyncer {
    shared: Arc<Shared>,
}

impl ChainSyncer {
    /// Syncs everything appended before the call and records that in the checkpoint file. Blocks on the disk.
    pub fn sync(&self) -> Result<(), ChainError> {
        self.shared.sync()
    }
}

impl ChainWriter {
    /// Opens or creates the chain database in `dir`, cutting off what a crash left unfinished.
    ///
    /// Runs on: any thread, before the chain thread starts; reads and syncs files.
    /// Errors:  `Locked` when another process has it open, `Corrupt` for damage below the last sync, `Io`.
    pub fn open(dir: &Path, limits: ChainLimits) -> Result<(ChainWriter, ChainReader), ChainError> {
        std::fs::create_dir_all(dir).map_err(|error| ChainError::io("create", dir, &error))?;
        let lock = lock(dir)?;
        // SAFETY: the lock file is ours, so no other process opens these files; this is the only place that opens them.
        let mut files = unsafe { Files::open(dir, limits.map_window_bytes) }?;
        let mut checkpoint = CheckpointFile::open(dir, files.headers.len() == 0)?;
        let block_count = recovery::recover(&mut files, &mut checkpoint)?;
        sync_dir(dir)?;
        let status_limits = StatusLimits {
            retention_ms: limits.status_retention_ms,
            bytes_max: limits.status_bytes_max,
            segment_records: limits.status_segment_records,
            map_window_bytes: limits.status_segment_records as u64 * 64,
        };
        // SAFETY: as above, the lock file is ours.
        let (status, status_shared) = unsafe { StatusWriter::open(dir, status_limits) }?;
        let (index, active_start) = Index::open(dir, limits.index_table_entries, files.headers.len())?;
        let shared = Arc::new(Shared {
            dir: dir.to_path_buf(),
            state: ArcSwap::from_pointee(files.state(block_count, 0)),
            rollback_count: AtomicU64::new(0),
            index,
            status: status_shared,
            checkpoint: Mutex::new(checkpoint),
        });
        let worker = IndexWorker::spawn(shared.clone())?;
        let mut writer = ChainWriter {
            worker,
            shared: shared.clone(),
            files,
            block_count,
            rollback_count: 0,
            shows_synced: false,
            active_start,
            status,
            buffer: Vec::new(),
            filter: filter::FilterBuilder::default(),
            _lock: lock,
        };
        writer.index_from(active_start)?;
        Ok((writer, ChainReader { shared }))
    }

    /// Number that the next block must have.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.block_count
    }

    /// Appends a block and shows it to readers. After an error nothing of the block is visible and the call may be repeated.
    ///
    /// Runs on: chain thread; writes files, and syncs after [`ChainWriter::show_synced`] only. May wait for the index worker when two full tables wait for it.
    /// Errors:  `NotNext`, `InvalidBlock` (nothing written), `Io`, or what ended the index worker.
    pub fn append(&mut self, block: &BlockRecord) -> Result<(), ChainError> {
        self.worker.check()?;
        if block.number != self.block_count {
            return Err(ChainError::NotNext { expected: self.block_count, found: block.number });
        }
        let invalid = |what| ChainError::InvalidBlock { number: block.number, what };
        check_block(block).map_err(invalid)?;
        let bloom = header_bloom(block.header_rlp).map_err(invalid)?;

        let body_end = self.write_body(block)?;
        let receipts_end = self.write_receipts(block)?;
        let head = Head {
            magic: HEAD_MAGIC,
            number: block.number,
            hash: block.hash,
            body_offset: self.files.bodies.len(),
            receipts_offset: self.files.receipts.len(),
            tx_count: block.txs.len() as u32,            // `check_block`: < 2^24
            header_bytes: block.header_rlp.len() as u32, // `check_block`: < 2^32, likewise below
            withdrawals_bytes: block.withdrawals_rlp.len() as u32,
            requests_bytes: block.requests_rlp.len() as u32,
        };
        let head_at = self.files.headers.len();
        self.buffer.clear();
        head.encode(block.header_rlp, block.withdrawals_rlp, block.requests_rlp, &mut self.buffer);
        self.files.headers.write_at(head_at, &self.buffer)?;
        self.files.write_slots(block.number, head_at, &bloom)?;

        // Everything that can fail comes before the tails move, so a failed call leaves only bytes behind the tails and false candidates.
        let tails = Tails { headers: head_at + head.record_bytes(), bodies: body_end, receipts: receipts_end };
        self.files.reserve(tails, block.number + 1)?;
        let keys = block.txs.iter().map(|tx| key_of(&tx.hash));
        self.index_block(block.number, head_at, &block.hash, keys)?;
        self.files.commit(tails, block.number + 1);
        self.block_count += 1;
        if self.shows_synced {
            return self.shared.sync_and_publish(self.files.state(self.block_count, self.rollback_count));
        }
        self.publish();
        Ok(())
    }

    /// From now on a block is on the disk before a reader sees it: for who could not make it again from the journal.
    pub fn show_synced(&mut self) {
        self.shows_synced = true;
    }

    /// Removes every block above `number`: a rollback. Syncs before the places of removed blocks are used again.
    ///
    /// Runs on: chain thread. Errors: `NotNext` when there is no block `number`, `Io`.
    pub fn truncate_to(&mut self, number: u64) -> Result<(), ChainError> {
        if number >= self.block_count {
            return Err(ChainError::NotNext { expected: self.block_count, found: number });
        }
        if number + 1 == self.block_count {
            return Ok(());
        }
        let roll = Head::rollback(number + 1);
        self.buffer.clear();
        roll.encode(&[], &[], &[], &mut self.buffer);
        let at = self.files.headers.len();
        self.files.headers.write_at(at, &self.buffer)?;
        let tails = Tails {
            headers: at + roll.record_bytes(),
            bodies: self.files.bodies.len(),
            receipts: self.files.receipts.len(),
        };
        self.files.reserve(tails, number + 1)?;
        self.rollback_count += 1;
        self.shared.rollback_count.store(self.rollback_count, Ordering::Relaxed);
        // ORDERING: the count moves before any slot is overwritten; pairs with the Acquire fences of `ChainView`.
        fence(Ordering::Release);
        self.block_count = number + 1;
        self.files.commit(tails, self.block_count);
        self.publish();
        // Slots below the checkpoint must not change before the checkpoint knows of the rollback.
        self.shared.sync()
    }

    /// Stores how transactions ended. A later record of a hash replaces an earlier one.
    pub fn put_statuses(&mut self, records: &[StatusRecord]) -> Result<(), ChainError> {
        self.status.put(records, &self.shared.status)
    }

    /// Stores how one transaction ended. Many at once: [`ChainWriter::put_statuses`].
    pub fn put_status(&mut self, record: &StatusRecord) -> Result<(), ChainError> {
        self.put_statuses(std::slice::from_ref(record))
    }

    /// Remembers when blocks `first` to `last` were posted, safe or final: one record of each block, under its hash, which the times of its
    /// transactions are completed from. Of many at once only the newest are remembered.
    pub fn put_settled(&mut self, tier: Tier, first: u64, last: u64, unix_ms: u64) -> Result<(), ChainError> {
        let last = last.min(self.block_count.saturating_sub(1));
        let first = first.max(last.saturating_sub(SETTLED_BLOCKS_MAX - 1));
        let view = ChainReader { shared: Arc::clone(&self.shared) }.view();
        let mut records = Vec::new();
        for number in first..=last {
            let Some(hash) = view.hash_by_number(number)? else { continue };
            let known = self.shared.status.find(&hash)?;
            let fresh = TierTimes { accepted_unix_ms: unix_ms, ..TierTimes::default() };
            let mut times = known.map_or(fresh, |record| record.times);
            match tier {
                Tier::Posted => times.posted_unix_ms = Some(unix_ms),
                Tier::Safe => times.safe_unix_ms = Some(unix_ms),
                Tier::Finalized => times.finalized_unix_ms = Some(unix_ms),
            }
            records.push(StatusRecord { hash, end: EndState::Included, times });
        }
        self.put_statuses(&records)
    }

    /// Forgets statuses older than the retention. Storing newer ones does the same.
    pub fn expire_statuses(&mut self, now_unix_ms: u64) -> Result<(), ChainError> {
        self.status.expire(now_unix_ms, &self.shared.status)
    }

    /// Makes everything appended durable. Blocks on the disk: the chain thread calls it only at shutdown.
    pub fn sync(&self) -> Result<(), ChainError> {
        self.shared.sync()
    }

    /// A handle with which another thread syncs.
    #[must_use]
    pub fn syncer(&self) -> ChainSyncer {
        ChainSyncer { shared: self.shared.clone() }
    }

    #[must_use]
    pub fn reader(&self) -> ChainReader {
        ChainReader { shared: self.shared.clone() }
    }

    fn publish(&self) {
        self.shared.state.store(Arc::new(self.files.state(self.block_count, self.rollback_count)));
    }

    /// Writes the body record behind the tail and answers where it ends.
    fn write_body(&mut self, block: &BlockRecord) -> Result<u64, ChainError> {
        let table = Table {
            kind: TableKind::Body,
            number: block.number,
            hash: block.hash,
            tx_count: block.txs.len() as u32,     // `check_block`: < 2^24
            items_bytes: block.body.len() as u32, // `check_block`: < 2^32
            filter_bytes: 0,
        };
        self.buffer.clear();
        self.buffer.extend_from_slice(&table.encode());
        for (index, tx) in (0..).zip(block.txs) {
            let row = BodyRow { hash: tx.hash, sender: tx.sender, item: tx.body_span };
            let place = RowPlace { number: block.number, index };
            encode_body_row(place, &row, tx.body_span.of(block.body), &mut self.buffer);
        }
        write_record(&mut self.files.bodies, &self.buffer, block.body, &[])
    }

    /// Writes the receipt record behind the tail and answers where it ends.
    fn write_receipts(&mut self, block: &BlockRecord) -> Result<u64, ChainError> {
        let invalid = |what| ChainError::InvalidBlock { number: block.number, what };
        let filter = self.filter.build(block).map_err(invalid)?;
        let table = Table {
            kind: TableKind::Receipts,
            number: block.number,
            hash: block.hash,
            tx_count: block.txs.len() as u32,         // `check_block`: < 2^24
            items_bytes: block.receipts.len() as u32, // `check_block`: < 2^32
            filter_bytes: u32::try_from(filter.len()).map_err(|_| invalid("log filter of 4 GiB or more"))?,
        };
        self.buffer.clear();
        self.buffer.reserve((TABLE_BYTES + u64::from(table.tx_count) * RECEIPT_ROW_BYTES) as usize);
        self.buffer.extend_from_slice(&table.encode());
        let mut log_start = 0;
        for (index, tx) in (0..).zip(block.txs) {
            let item = tx.receipt_span.of(block.receipts);
            let receipt = ReceiptRef::decode(item).map_err(|_| invalid("compact receipt"))?;
            let log_end = u32::try_from(receipt.log_count)
                .ok()
                .and_then(|count| count.checked_add(log_start))
                .ok_or(invalid("log count"))?;
            let row = ReceiptRow { item: tx.receipt_span, log_start, log_end };
            encode_receipt_row(RowPlace { number: block.number, index }, &row, item, &mut self.buffer);
            log_start = log_end;
        }
        write_record(&mut self.files.receipts, &self.buffer, block.receipts, filter)
    }

    /// Indexes what `headers` holds from `start` on, at open.
    fn index_from(&mut self, start: u64) -> Result<(), ChainError> {
        let state = self.shared.state.load_full();
        let mut at = start;
        while at < state.headers.len() {
            let head = read_head(&state.headers, at)?;
            if head.magic == HEAD_MAGIC {
                let reader = BodyReader::open(&state, &head)?;
                let keys = (0..head.tx_count)
                    .map(|index| reader.row(index).map(|row| key_of(&row.hash)))
                    .collect::<Result<Vec<u64>, ChainError>>()?;
                self.index_block(head.number, at, &head.hash, keys.into_iter())?;
            }
            at += head.record_bytes();
        }
        Ok(())
    }

    /// Adds a block to the active table; hands a full table to the worker first.
    fn index_block(
        &mut self,
        number: u64,
        head_at: u64,
        hash: &B256,
        keys: impl ExactSizeIterator<Item = u64>,
    ) -> Result<(), ChainError> {
        let mut active = self.shared.index.active();
        let entry_count = keys.len() + 1;
        if !active.has_room_for(entry_count) {
            if let Some(table) = self.shared.index.rotate(entry_count) {
                let start = std::mem::replace(&mut self.active_start, head_at);
                self.worker.seal(SealJob { table, start, end: head_at })?;
            }
            active = self.shared.index.active();
        }
        active.insert(Entry { key: key_of(hash), location: Location::Block { number }.encode() });
        for (index, key) in (0..).zip(keys) {
            active.insert(Entry { key, location: Location::Transaction { number, index }.encode() });
        }
        Ok(())
    }
}

impl Files {
    /// # Safety
    /// As [`AppendFile::open`], for each of the files.
    unsafe fn open(dir: &Path, window_bytes: u64) -> Result<Files, ChainError> {
        let open = |name: &str| {
            // SAFETY: the caller's contract is the same for each file.
            unsafe { AppendFile::open(dir.join(name), window_bytes) }
        };
        Ok(Files {
            headers: open("headers")?,
            bodies: open("bodies")?,
            receipts: open("receipts")?,
            offsets: open("offsets")?,
            blooms: open("blooms")?,
        })
    }

    pub(super) fn state(&self, block_count: u64, rollback_count: u64) -> State {
        State {
            headers: self.headers.view(),
            bodies: self.bodies.view(),
            receipts: self.receipts.view(),
            offsets: self.offsets.view(),
            blooms: self.blooms.view(),
            block_count,
            rollback_count,
        }
    }

    /// Writes the slots of a block. The offset first: who sees the new bloom also sees that the block is another one.
    pub(super) fn write_slots(&mut self, number: u64, head_at: u64, bloom: &Bloom) -> Result<(), ChainError> {
        self.offsets.write_slot(number * OFFSET_SLOT_BYTES, &encode_offset(number, head_at))?;
        self.blooms.write_slot(number * BLOOM_SLOT_BYTES, &encode_bloom(number, bloom))
    }

    /// Maps as much as the next tails need; the only part of a commit that can fail.
    fn reserve(&mut self, tails: Tails, block_count: u64) -> Result<(), ChainError> {
        self.headers.reserve(tails.headers)?;
        self.bodies.reserve(tails.bodies)?;
        self.receipts.reserve(tails.receipts)?;
        self.offsets.reserve(block_count * OFFSET_SLOT_BYTES)?;
        self.blooms.reserve(block_count * BLOOM_SLOT_BYTES)
    }

    fn commit(&mut self, tails: Tails, block_count: u64) {
        self.headers.extend_to(tails.headers);
        self.bodies.extend_to(tails.bodies);
        self.receipts.extend_to(tails.receipts);
        self.offsets.set_slot_len(block_count * OFFSET_SLOT_BYTES);
        self.blooms.set_slot_len(block_count * BLOOM_SLOT_BYTES);
    }
}

/// The bloom in a block header: field 6 (EIP-2718 era headers keep the order of the yellow paper).
pub(super) fn header_bloom(header_rlp: &[u8]) -> Result<Bloom, &'static str> {
    const NOT_RLP: &str = "header is not an RLP list";
    let mut outer = header_rlp;
    let mut fields = alloy_rlp::Header::decode_bytes(&mut outer, true).map_err(|_| NOT_RLP)?;
    if !outer.is_empty() {
        return Err("bytes after the header");
    }
    for _ in 0..6 {
        let field = alloy_rlp::Header::decode(&mut fields).map_err(|_| NOT_RLP)?;
        fields = fields.get(field.payload_length..).ok_or(NOT_RLP)?;
    }
    Bloom::decode(&mut fields).map_err(|_| "header has no logs bloom")
}

fn check_block(block: &BlockRecord) -> Result<(), &'static str> {
    let fits = |bytes: &[u8]| u32::try_from(bytes.len()).is_ok();
    let parts = [block.header_rlp, block.body, block.withdrawals_rlp, block.requests_rlp, block.receipts];
    if !parts.into_iter().all(fits) {
        return Err("a part of 4 GiB or more");
    }
    if block.number >= BLOCK_COUNT_MAX || block.txs.len() >= TXS_PER_BLOCK_MAX {
        return Err("number or transaction count over the index's limit");
    }
    check_cover(block.txs.iter().map(|tx| tx.body_span), block.body.len(), "transactions do not cover the body")?;
    check_cover(block.txs.iter().map(|tx| tx.receipt_span), block.receipts.len(), "receipts do not cover their bytes")
}

/// Whether spans follow each other from 0 to `len`.
fn check_cover(spans: impl Iterator<Item = Span>, len: usize, what: &'static str) -> Result<(), &'static str> {
    let mut end = 0_u64;
    for span in spans {
        if u64::from(span.start) != end {
            return Err(what);
        }
        end += u64::from(span.len);
    }
    if end == len as u64 { Ok(()) } else { Err(what) }
}

/// Writes the parts of a record behind the tail of a file, and answers where the padded record ends.
fn write_record(file: &mut AppendFile, table: &[u8], items: &[u8], filter: &[u8]) -> Result<u64, ChainError> {
    let mut at = file.len();
    let end = padded(at + (table.len() + items.len() + filter.len()) as u64);
    let padding = &[0; 8][..(end - at) as usize - table.len() - items.len() - filter.len()];
    for part in [table, items, filter, padding] {
        if !part.is_empty() {
            file.write_at(at, part)?;
            at += part.len() as u64;
        }
    }
    Ok(end)
}

/// Takes the directory for this process. The lock ends with the process, however it ends.
fn lock(dir: &Path) -> Result<File, ChainError> {
    let path = dir.join("LOCK");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| ChainError::io("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ChainError::Locked { path: dir.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(ChainError::io("lock", &path, &error)),
    }
}
