//! How transactions ended and when they reached each tier: files of 64-byte records, kept for a time and within a number of bytes.
//!
//! ```text
//! offset  bytes  field of a record                          of an extension (follows its record)
//! 0       4      crc32c of bytes 4..64                      the same
//! 4       1      kind: 1 included, 2 dropped, 3 replaced,   0x80
//!                4 invalidated
//! 5       1      reason code (0 when the kind has none)     zero
//! 6       32     transaction hash                           8..36: first value or hash (3: 32 bytes at 8)
//! 38      6      time accepted, Unix ms                     36..64: second value (224 bits each, big-endian)
//! 44      4      preconfirmed: ms after accepted, all ones = never reached
//! 48      4      ended (for an included one: sealed)
//! 52      4      posted
//! 56      4      safe
//! 60      4      finalized
//! ```
//!
//! A later record of the same hash replaces the earlier one. The files are synced with the blocks: until then the journal keeps the ends. Records
//! that a power cut damaged are forgotten at open.
//!
//! Beside each full file lies `lookup-<id>`, an index segment from hashes to records: in memory it would be eight bytes a transaction for the
//! whole retention. It says nothing that the records do not, so it is never synced, and made anew at open.
#![allow(unsafe_code, reason = "opens mapped files, STYLE section unsafe")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use super::error::ChainError;
use super::index::{Entry, key_of};
use super::index_segment::{IndexSegment, SegmentWriter, sync_dir};
use super::index_table::IndexTable;
use super::map::{AppendFile, FileView};
use super::record::u32_at;
use crate::primitives::{B256, U256};

const RECORD_BYTES: usize = 64;
/// A lookup while it is written.
const LOOKUP_UNFINISHED: &str = "lookup.tmp";
const NEVER: u32 = u32::MAX;
const KIND_INCLUDED: u8 = 1;
const KIND_DROPPED: u8 = 2;
const KIND_REPLACED: u8 = 3;
const KIND_INVALIDATED: u8 = 4;
const KIND_EXTENSION: u8 = 0x80;
/// Bytes of one compared value: 2^224 wei is more than can exist, larger values are stored as the largest.
const VALUE_BYTES: usize = 28;

/// How a transaction ended. Reason codes belong to the stage that drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndState {
    /// In a block: ask the hash index which.
    Included,
    Dropped {
        reason: u8,
    },
    /// Another transaction of the same sender and nonce took its place.
    Replaced {
        by: B256,
    },
    /// It can no longer be included; `required` and `actual` are what was compared. Both saturate at 2^224 - 1.
    Invalidated {
        reason: u8,
        required: U256,
        actual: U256,
    },
}

/// When a transaction reached each tier, Unix milliseconds. Stored as differences to `accepted` of at most 2^32 - 2 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierTimes {
    pub accepted_unix_ms: u64,
    pub preconfirmed_unix_ms: Option<u64>,
    /// When the end state was reached; for an included transaction, when its block was sealed.
    pub ended_unix_ms: Option<u64>,
    pub posted_unix_ms: Option<u64>,
    pub safe_unix_ms: Option<u64>,
    pub finalized_unix_ms: Option<u64>,
}

/// What is remembered of a transaction that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRecord {
    pub hash: B256,
    pub end: EndState,
    pub times: TierTimes,
}

/// How long and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StatusLimits {
    pub retention_ms: u64,
    pub bytes_max: u64,
    /// Records of one file; a whole file is forgotten at once.
    pub segment_records: usize,
    pub map_window_bytes: u64,
}

/// The status files as readers see them.
pub(super) struct StatusShared {
    state: ArcSwap<StatusState>,
    synced: Mutex<Option<Synced>>,
}

/// The newest file that was synced, and how long it was then. Files before it do not change any more.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Synced {
    path: PathBuf,
    bytes: u64,
}

#[derive(Clone)]
struct StatusState {
    /// Oldest first.
    segments: Vec<SegmentView>,
}

#[derive(Clone)]
struct SegmentView {
    view: FileView,
    lookup: Lookup,
}

/// Where in a file a hash may be: a table while the file grows, a file of its own once it is full.
#[derive(Clone)]
enum Lookup {
    Growing(Arc<IndexTable>),
    Full(Arc<IndexSegment>),
}

/// The status files as the chain thread sees them.
pub(super) struct StatusWriter {
    dir: PathBuf,
    limits: StatusLimits,
    segments: VecDeque<Segment>,
    next_id: u64,
    buffer: Vec<u8>,
}

struct Segment {
    id: u64,
    file: AppendFile,
    lookup: Lookup,
    newest_unix_ms: u64,
}

impl TierTimes {
    fn tiers(&self) -> [Option<u64>; 5] {
        [self.preconfirmed_unix_ms, self.ended_unix_ms, self.posted_unix_ms, self.safe_unix_ms, self.finalized_unix_ms]
    }

    fn newest_unix_ms(&self) -> u64 {
        self.tiers().into_iter().flatten().fold(self.accepted_unix_ms, u64::max)
    }
}

impl Lookup {
    /// The lookup of a full file of records, as a file beside it.
    fn to_file(&self, dir: &Path, id: u64) -> Result<Lookup, ChainError> {
        let Lookup::Growing(table) = self else { return Ok(self.clone()) };
        let path = lookup_path(dir, id);
        let mut writer = SegmentWriter::under(dir.join(LOOKUP_UNFINISHED), 0, 0, 0)?;
        table.visit_sorted(|entry| writer.push(entry).map(drop))?;
        writer.finish_unsynced(&path)?;
        Ok(Lookup::Full(Arc::new(IndexSegment::open(&path)?)))
    }

    /// Hands every record index that may belong to `key` to `visit`.
    fn visit(&self, key: u64, mut visit: impl FnMut(u64) -> Result<(), ChainError>) -> Result<(), ChainError> {
        let mut visit = |index| visit(index).map(|()| false);
        match self {
            Lookup::Growing(table) => table.visit(key, &mut visit),
            Lookup::Full(segment) => segment.visit(key, &mut visit),
        }
        .map(|_| ())
    }
}

impl StatusShared {
    /// Makes every record that was shown durable.
    ///
    /// Runs on: a background thread, or the chain thread.
    pub(super) fn sync(&self, dir: &Path) -> Result<(), ChainError> {
        let mut synced = self.synced.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let state = self.state.load_full();
        for SegmentView { view, .. } in &state.segments {
            // Names grow with the age of files, so pairs of name and length are in order.
            let next = Synced { path: view.path().to_path_buf(), bytes: view.len() };
            if synced.as_ref().is_some_and(|synced| next <= *synced) {
                continue;
            }
            view.sync()?;
            if synced.as_ref().is_none_or(|synced| synced.path != next.path) {
                sync_dir(dir)?;
            }
            *synced = Some(next);
        }
        Ok(())
    }

    /// How far [`StatusShared::sync`] came.
    #[cfg(test)]
    fn synced_bytes(&self) -> Option<u64> {
        self.synced.lock().ok()?.as_ref().map(|synced| synced.bytes)
    }

    /// The newest record of a hash that is still kept.
    pub(super) fn find(&self, hash: &B256) -> Result<Option<StatusRecord>, ChainError> {
        let state = self.state.load();
        for segment in state.segments.iter().rev() {
            let mut newest: Option<(u64, StatusRecord)> = None;
            segment.lookup.visit(key_of(hash), |index| {
                let at = index * RECORD_BYTES as u64;
                let is_newer = newest.is_none_or(|(other, _)| index > other);
                // The table may already name records that this state does not show.
                if at < segment.view.len() && is_newer {
                    let record = read_record(&segment.view, at)?;
                    if record.hash == *hash {
                        newest = Some((index, record));
                    }
                }
                Ok(())
            })?;
            if let Some((_, record)) = newest {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

impl StatusWriter {
    /// Opens the files of a directory, oldest first. Damaged records are forgotten, a damaged end is cut off.
    ///
    /// # Safety
    /// As [`AppendFile::open`], for every status file of the directory.
    pub(super) unsafe fn open(
        dir: &Path,
        mut limits: StatusLimits,
    ) -> Result<(StatusWriter, StatusShared), ChainError> {
        // A file has room for at least one record with its extension, or `put` would never end.
        limits.segment_records = limits.segment_records.max(4);
        assert!(u32::try_from(limits.segment_records).is_ok(), "a record's index has 32 bits");
        remove_lookups(dir)?;
        let mut ids = segment_ids(dir)?;
        ids.sort_unstable();
        let mut segments = VecDeque::new();
        for id in &ids {
            // SAFETY: the caller's contract covers every status file of the directory.
            let mut segment = unsafe { Segment::open(dir, *id, &limits) }?;
            if Some(id) != ids.last() {
                segment.lookup = segment.lookup.to_file(dir, *id)?;
            }
            segments.push_back(segment);
        }
        let next_id = ids.last().map_or(0, |id| id + 1);
        let mut writer = StatusWriter { dir: dir.to_path_buf(), limits, segments, next_id, buffer: Vec::new() };
        writer.forget(None)?;
        let shared = StatusShared { state: ArcSwap::from_pointee(writer.state()), synced: Mutex::new(None) };
        Ok((writer, shared))
    }

    /// Stores records and shows them to readers. Forgets files that are too old for the newest record or too many.
    pub(super) fn put(&mut self, records: &[StatusRecord], shared: &StatusShared) -> Result<(), ChainError> {
        let mut rest = records;
        while !rest.is_empty() {
            let room = self.room()?;
            // A record takes at most two places.
            let (now, later) = rest.split_at(rest.len().min(room / 2));
            self.put_in_newest(now)?;
            rest = later;
        }
        let newest_unix_ms = records.iter().map(|record| record.times.newest_unix_ms()).max();
        self.forget(newest_unix_ms)?;
        shared.state.store(Arc::new(self.state()));
        Ok(())
    }

    /// Forgets files whose newest record is older than the retention.
    pub(super) fn expire(&mut self, now_unix_ms: u64, shared: &StatusShared) -> Result<(), ChainError> {
        let before = self.segments.len();
        self.forget(Some(now_unix_ms))?;
        if self.segments.len() != before {
            shared.state.store(Arc::new(self.state()));
        }
        Ok(())
    }

    /// Records for which the newest file has room, at least two; starts a file when it has not.
    fn room(&mut self) -> Result<usize, ChainError> {
        let used = self.segments.back().map_or(usize::MAX, Segment::record_count);
        let room = self.limits.segment_records.saturating_sub(used);
        if room >= 2 {
            return Ok(room);
        }
        if let Some(full) = self.segments.back_mut() {
            full.lookup = full.lookup.to_file(&self.dir, full.id)?;
        }
        // SAFETY: the name is new and the directory is ours by the contract of `StatusWriter::open`.
        let segment = unsafe { Segment::open(&self.dir, self.next_id, &self.limits) }?;
        self.next_id += 1;
        self.segments.push_back(segment);
        Ok(self.limits.segment_records)
    }

    fn put_in_newest(&mut self, records: &[StatusRecord]) -> Result<(), ChainError> {
        let segment = self.segments.back_mut().expect("`room` leaves a file");
        let Lookup::Growing(table) = &segment.lookup else { unreachable!("`room` compacts only what it replaces") };
        let start = segment.file.len();
        self.buffer.clear();
        for record in records {
            record.encode(&mut self.buffer);
        }
        let end = start + self.buffer.len() as u64;
        segment.file.write_at(start, &self.buffer)?;
        segment.file.reserve(end)?;
        let mut index = start / RECORD_BYTES as u64;
        for record in records {
            table.insert(Entry { key: key_of(&record.hash), location: index });
            segment.newest_unix_ms = segment.newest_unix_ms.max(record.times.newest_unix_ms());
            index += 1 + u64::from(record.has_extension());
        }
        segment.file.extend_to(end);
        Ok(())
    }

    fn forget(&mut self, now_unix_ms: Option<u64>) -> Result<(), ChainError> {
        let newest = self.segments.iter().map(|segment| segment.newest_unix_ms).max().unwrap_or(0);
        let oldest_kept = now_unix_ms.unwrap_or(newest).saturating_sub(self.limits.retention_ms);
        let mut bytes: u64 = self.segments.iter().map(|segment| segment.file.len()).sum();
        while let Some(oldest) = self.segments.front() {
            let too_old = oldest.newest_unix_ms < oldest_kept;
            let too_many = bytes > self.limits.bytes_max && self.segments.len() > 1;
            if !too_old && !too_many {
                break;
            }
            bytes -= oldest.file.len();
            let path = oldest.file.path();
            std::fs::remove_file(path).map_err(|error| ChainError::io("remove", path, &error))?;
            if let Lookup::Full(segment) = &oldest.lookup {
                // Without its records it says nothing, and the next open removes what is left here.
                let _ = std::fs::remove_file(segment.path());
            }
            self.segments.pop_front();
        }
        Ok(())
    }

    fn state(&self) -> StatusState {
        let segments = self
            .segments
            .iter()
            .map(|segment| SegmentView { view: segment.file.view(), lookup: segment.lookup.clone() })
            .collect();
        StatusState { segments }
    }
}

impl Segment {
    /// Opens or creates one file and reads what it holds.
    ///
    /// # Safety
    /// As [`AppendFile::open`].
    unsafe fn open(dir: &Path, id: u64, limits: &StatusLimits) -> Result<Segment, ChainError> {
        // SAFETY: the caller's contract is the same.
        let mut file = unsafe { AppendFile::open(segment_path(dir, id), limits.map_window_bytes) }?;
        let view = file.view();
        let record_count = (view.len() / RECORD_BYTES as u64) as usize;
        if u32::try_from(record_count).is_err() {
            return Err(ChainError::corrupt(view.path(), 0, "status file of more than 2^32 records"));
        }
        let table = IndexTable::new(limits.segment_records.max(record_count));
        let mut newest_unix_ms = 0;
        let mut end = 0;
        for index in 0..record_count as u64 {
            let at = index * RECORD_BYTES as u64;
            // What a power cut damaged, and extensions, which do not stand alone.
            let Ok(record) = read_record(&view, at) else { continue };
            table.insert(Entry { key: key_of(&record.hash), location: index });
            newest_unix_ms = newest_unix_ms.max(record.times.newest_unix_ms());
            end = at + RECORD_BYTES as u64 * (1 + u64::from(record.has_extension()));
        }
        drop(view);
        file.cut(end)?;
        Ok(Segment { id, file, lookup: Lookup::Growing(Arc::new(table)), newest_unix_ms })
    }

    fn record_count(&self) -> usize {
        (self.file.len() / RECORD_BYTES as u64) as usize
    }
}

impl StatusRecord {
    fn has_extension(&self) -> bool {
        matches!(self.end, EndState::Replaced { .. } | EndState::Invalidated { .. })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (kind, reason) = match self.end {
            EndState::Included => (KIND_INCLUDED, 0),
            EndState::Dropped { reason } => (KIND_DROPPED, reason),
            EndState::Replaced { .. } => (KIND_REPLACED, 0),
            EndState::Invalidated { reason, .. } => (KIND_INVALIDATED, reason),
        };
        let mut record = [0; RECORD_BYTES];
        record[4] = kind;
        record[5] = reason;
        record[6..38].copy_from_slice(self.hash.as_slice());
        let accepted = self.times.accepted_unix_ms.min((1 << 48) - 1);
        record[38..44].copy_from_slice(&accepted.to_le_bytes()[..6]);
        for (tier, bytes) in self.times.tiers().into_iter().zip(record[44..].chunks_exact_mut(4)) {
            let after_ms = tier.map_or(NEVER, |at| at.saturating_sub(accepted).min(u64::from(NEVER - 1)) as u32);
            bytes.copy_from_slice(&after_ms.to_le_bytes());
        }
        push_with_checksum(record, out);
        let mut extension = [0; RECORD_BYTES];
        extension[4] = KIND_EXTENSION;
        match self.end {
            EndState::Included | EndState::Dropped { .. } => return,
            EndState::Replaced { by } => extension[8..40].copy_from_slice(by.as_slice()),
            EndState::Invalidated { required, actual, .. } => {
                extension[8..36].copy_from_slice(&value_bytes(required));
                extension[36..64].copy_from_slice(&value_bytes(actual));
            }
        }
        push_with_checksum(extension, out);
    }
}

fn push_with_checksum(mut record: [u8; RECORD_BYTES], out: &mut Vec<u8>) {
    let crc = crc32c::crc32c(&record[4..]);
    record[..4].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&record);
}

fn read_record(view: &FileView, at: u64) -> Result<StatusRecord, ChainError> {
    let record = read_checked(view, at)?;
    let damaged = |what| ChainError::corrupt(view.path(), at, what);
    let end = match record[4] {
        KIND_INCLUDED => EndState::Included,
        KIND_DROPPED => EndState::Dropped { reason: record[5] },
        KIND_REPLACED => EndState::Replaced { by: B256::from_slice(&read_extension(view, at)?[8..40]) },
        KIND_INVALIDATED => {
            let extension = read_extension(view, at)?;
            let (required, actual) = (value_of(&extension[8..36]), value_of(&extension[36..64]));
            EndState::Invalidated { reason: record[5], required, actual }
        }
        KIND_EXTENSION => return Err(damaged("status extension without its record")),
        _ => return Err(damaged("unknown kind of status record")),
    };
    let mut accepted = [0; 8];
    accepted[..6].copy_from_slice(&record[38..44]);
    let accepted_unix_ms = u64::from_le_bytes(accepted);
    let tier = |at| Some(u32_at(record, at)).filter(|ms| *ms != NEVER).map(|ms| accepted_unix_ms + u64::from(ms));
    let times = TierTimes {
        accepted_unix_ms,
        preconfirmed_unix_ms: tier(44),
        ended_unix_ms: tier(48),
        posted_unix_ms: tier(52),
        safe_unix_ms: tier(56),
        finalized_unix_ms: tier(60),
    };
    Ok(StatusRecord { hash: B256::from_slice(&record[6..38]), end, times })
}

fn read_extension(view: &FileView, record_at: u64) -> Result<&[u8], ChainError> {
    let at = record_at + RECORD_BYTES as u64;
    let extension = read_checked(view, at)?;
    if extension[4] != KIND_EXTENSION {
        return Err(ChainError::corrupt(view.path(), at, "status record without its extension"));
    }
    Ok(extension)
}

fn read_checked(view: &FileView, at: u64) -> Result<&[u8], ChainError> {
    let record = view.bytes(at, RECORD_BYTES as u64)?;
    if crc32c::crc32c(&record[4..]) != u32_at(record, 0) {
        return Err(ChainError::corrupt(view.path(), at, "checksum of status record"));
    }
    Ok(record)
}

fn value_bytes(value: U256) -> [u8; VALUE_BYTES] {
    let bytes = value.to_be_bytes::<32>();
    let mut out = [0xff; VALUE_BYTES];
    if bytes[..32 - VALUE_BYTES].iter().all(|byte| *byte == 0) {
        out.copy_from_slice(&bytes[32 - VALUE_BYTES..]);
    }
    out
}

fn value_of(bytes: &[u8]) -> U256 {
    U256::from_be_slice(bytes)
}

fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("status-{id:016x}"))
}

fn lookup_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("lookup-{id:016x}"))
}

/// Removes what an earlier process looked records up in.
fn remove_lookups(dir: &Path) -> Result<(), ChainError> {
    for file in std::fs::read_dir(dir).map_err(|error| ChainError::io("list", dir, &error))? {
        let file = file.map_err(|error| ChainError::io("list", dir, &error))?;
        if file.file_name().to_str().is_some_and(|name| name.starts_with("lookup")) {
            std::fs::remove_file(file.path()).map_err(|error| ChainError::io("remove", &file.path(), &error))?;
        }
    }
    Ok(())
}

fn segment_ids(dir: &Path) -> Result<Vec<u64>, ChainError> {
    let mut ids = Vec::new();
    for file in std::fs::read_dir(dir).map_err(|error| ChainError::io("list", dir, &error))? {
        let name = file.map_err(|error| ChainError::io("list", dir, &error))?.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix("status-"));
        ids.extend(id.and_then(|id| u64::from_str_radix(id, 16).ok()));
    }
    Ok(ids)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::chain::test_dir::TestDir;

    const LIMITS: StatusLimits =
        StatusLimits { retention_ms: 1000, bytes_max: 64 * 1000, segment_records: 8, map_window_bytes: 4096 };

    fn open(dir: &TestDir, limits: StatusLimits) -> (StatusWriter, StatusShared) {
        // SAFETY: the directory is this test's own, and one writer is open at a time.
        unsafe { StatusWriter::open(dir.path(), limits) }.unwrap()
    }

    fn ids(dir: &Path) -> impl Iterator<Item = u64> {
        segment_ids(dir).unwrap().into_iter()
    }

    fn lookup_count(dir: &Path) -> usize {
        let names = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().starts_with("lookup")).count()
    }

    fn hash(id: u64) -> B256 {
        let mut hash = B256::repeat_byte(7);
        hash[24..].copy_from_slice(&id.to_be_bytes()); // the index key is the same for all
        hash
    }

    fn included(id: u64, unix_ms: u64) -> StatusRecord {
        let times = TierTimes { accepted_unix_ms: unix_ms, ..TierTimes::default() };
        StatusRecord { hash: hash(id), end: EndState::Included, times }
    }

    fn any_end() -> impl Strategy<Value = EndState> {
        let value = any::<[u8; VALUE_BYTES]>().prop_map(|bytes| U256::from_be_slice(&bytes));
        prop_oneof![
            Just(EndState::Included),
            any::<u8>().prop_map(|reason| EndState::Dropped { reason }),
            any::<[u8; 32]>().prop_map(|by| EndState::Replaced { by: by.into() }),
            (any::<u8>(), value.clone(), value).prop_map(|(reason, required, actual)| EndState::Invalidated {
                reason,
                required,
                actual
            }),
        ]
    }

    prop_compose! {
        fn any_record()(id in 0_u64..30, end in any_end(), accepted in 0_u64..900, after in any::<[Option<u8>; 5]>())
            -> StatusRecord {
            let tier = |at: usize| after[at].map(|ms| accepted + u64::from(ms) % 100);
            let times = TierTimes {
                accepted_unix_ms: accepted,
                preconfirmed_unix_ms: tier(0),
                ended_unix_ms: tier(1),
                posted_unix_ms: tier(2),
                safe_unix_ms: tier(3),
                finalized_unix_ms: tier(4),
            };
            StatusRecord { hash: hash(id), end, times }
        }
    }

    proptest! {
        #[test]
        fn the_last_record_of_a_hash_counts(
            batches in prop::collection::vec((prop::collection::vec(any_record(), 1..12), any::<bool>()), 1..12),
        ) {
            let dir = TestDir::new("status");
            let (mut writer, mut shared) = open(&dir, LIMITS);
            let mut model = HashMap::new();
            for (batch, reopen) in batches {
                writer.put(&batch, &shared).unwrap();
                model.extend(batch.iter().map(|record| (record.hash, *record)));
                if reopen {
                    drop((writer, shared));
                    (writer, shared) = open(&dir, LIMITS);
                }
                for id in 0..31 {
                    prop_assert_eq!(shared.find(&hash(id)).unwrap(), model.get(&hash(id)).copied());
                }
            }
        }
    }

    #[test]
    fn a_sync_covers_what_was_shown_and_only_what_is_new() {
        let dir = TestDir::new("status-sync");
        let (mut writer, shared) = open(&dir, LIMITS);
        shared.sync(dir.path()).unwrap();
        assert_eq!(shared.synced_bytes(), None);
        writer.put(&[included(1, 10)], &shared).unwrap();
        shared.sync(dir.path()).unwrap();
        assert_eq!(shared.synced_bytes(), Some(64));
        // Fills the file and begins the next one.
        writer.put(&(2..10).map(|id| included(id, 10)).collect::<Vec<_>>(), &shared).unwrap();
        let newest = writer.segments.back().unwrap().file.view();
        assert_eq!(shared.synced_bytes(), Some(64));
        shared.sync(dir.path()).unwrap();
        assert_eq!((shared.synced_bytes(), writer.segments.len()), (Some(newest.len()), 2));
        let synced_path = shared.synced.lock().unwrap().as_ref().unwrap().path.clone();
        assert_eq!(synced_path, newest.path());
    }

    #[test]
    fn values_saturate_and_late_tiers_stay_in_range() {
        let dir = TestDir::new("status-saturate");
        let (mut writer, shared) = open(&dir, StatusLimits { retention_ms: u64::MAX, ..LIMITS });
        let largest = (U256::from(1) << 224) - U256::from(1);
        let end = EndState::Invalidated { reason: 3, required: U256::MAX, actual: largest };
        let times = TierTimes { accepted_unix_ms: 5, finalized_unix_ms: Some(1 << 40), ..TierTimes::default() };
        writer.put(&[StatusRecord { hash: hash(1), end, times }], &shared).unwrap();
        let stored = shared.find(&hash(1)).unwrap().unwrap();
        assert_eq!(stored.end, EndState::Invalidated { reason: 3, required: largest, actual: largest });
        assert_eq!(stored.times.finalized_unix_ms, Some(5 + u64::from(NEVER - 1)));
        assert_eq!(stored.times.safe_unix_ms, None);
    }

    #[test]
    fn old_files_are_forgotten_by_age() {
        let dir = TestDir::new("status-age");
        let (mut writer, shared) = open(&dir, LIMITS);
        for id in 0..40 {
            writer.put(&[included(id, id * 100)], &shared).unwrap();
        }
        // Retention is 1,000 ms and the newest record is of 3,900: everything from 2,900 on is there.
        for id in 29..40 {
            assert!(shared.find(&hash(id)).unwrap().is_some(), "{id}");
        }
        assert!(shared.find(&hash(0)).unwrap().is_none());
        assert!(segment_ids(dir.path()).unwrap().len() <= 1 + 10_usize.div_ceil(7) + 1);
        writer.expire(1_000_000, &shared).unwrap();
        assert!((0..40).all(|id| shared.find(&hash(id)).unwrap().is_none()));
        assert_eq!(segment_ids(dir.path()).unwrap().len(), 0);
        writer.put(&[included(1, 1_000_000)], &shared).unwrap();
        assert!(shared.find(&hash(1)).unwrap().is_some());
    }

    #[test]
    fn full_files_are_looked_up_in_files_which_are_made_anew_at_open() {
        let dir = TestDir::new("status-lookup");
        let limits = StatusLimits { segment_records: 600, bytes_max: 64 * 10_000, ..LIMITS };
        // Hashes whose keys differ, so that a lookup has several pages.
        let record = |id: u64| {
            let mut hash = B256::ZERO;
            hash[..8].copy_from_slice(&(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
            StatusRecord { hash, ..included(0, id % 1000) }
        };
        let (mut writer, shared) = open(&dir, limits);
        writer.put(&(0..2_000).map(record).collect::<Vec<_>>(), &shared).unwrap();
        let check = |shared: &StatusShared| {
            for id in 0..2_000 {
                assert_eq!(shared.find(&record(id).hash).unwrap(), Some(record(id)), "{id}");
            }
            assert_eq!(shared.find(&record(2_000).hash).unwrap(), None);
        };
        check(&shared);
        let count = lookup_count(dir.path());
        assert_eq!(count, segment_ids(dir.path()).unwrap().len() - 1);
        drop((writer, shared));
        std::fs::write(lookup_path(dir.path(), 0), b"half").unwrap();
        std::fs::write(lookup_path(dir.path(), 77), b"of no file").unwrap();
        std::fs::write(dir.path().join(LOOKUP_UNFINISHED), b"torn").unwrap();
        let (_writer, shared) = open(&dir, limits);
        check(&shared);
        assert_eq!(lookup_count(dir.path()), count);
    }

    #[test]
    fn old_files_are_forgotten_by_bytes() {
        let dir = TestDir::new("status-bytes");
        let limits = StatusLimits { bytes_max: 64 * 24, ..LIMITS };
        let (mut writer, shared) = open(&dir, limits);
        for id in 0..100 {
            writer.put(&[included(id, 50)], &shared).unwrap();
            let bytes: u64 =
                ids(dir.path()).map(|id| std::fs::metadata(segment_path(dir.path(), id)).unwrap().len()).sum();
            assert!(bytes <= limits.bytes_max);
            assert!(lookup_count(dir.path()) < ids(dir.path()).count());
            assert!(shared.find(&hash(id)).unwrap().is_some());
        }
        assert!(shared.find(&hash(0)).unwrap().is_none());
        assert!((90..100).all(|id| shared.find(&hash(id)).unwrap().is_some()));
    }

    #[test]
    fn a_torn_or_damaged_record_is_forgotten_at_open() {
        let dir = TestDir::new("status-torn");
        let (mut writer, shared) = open(&dir, LIMITS);
        let replaced = StatusRecord { end: EndState::Replaced { by: hash(9) }, ..included(2, 10) };
        writer.put(&[included(1, 10), replaced, included(3, 10)], &shared).unwrap();
        drop((writer, shared));
        let path = segment_path(dir.path(), 0);
        let good = std::fs::read(&path).unwrap();
        for len in 0..=good.len() {
            std::fs::write(&path, &good[..len]).unwrap();
            let (_writer, shared) = open(&dir, LIMITS);
            let found = [1, 2, 3].map(|id| shared.find(&hash(id)).unwrap().is_some());
            assert_eq!(found, [len >= 64, len >= 192, len >= 256], "cut at {len}");
        }
        for at in 0..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 4;
            std::fs::write(&path, &damaged).unwrap();
            let (_writer, shared) = open(&dir, LIMITS);
            let found = [1, 2, 3].map(|id| shared.find(&hash(id)).unwrap().is_some());
            assert_eq!(found, [at >= 64, !(64..192).contains(&at), at < 192], "flip at {at}");
        }
    }
}
