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
//! A later record of the same hash replaces the earlier one. The files are never synced: they are for people who ask, not for recovery.
//! Records that a power cut damaged are forgotten at open.
#![allow(unsafe_code, reason = "opens mapped files, STYLE section unsafe")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::error::ChainError;
use super::index::{Entry, key_of};
use super::index_table::IndexTable;
use super::map::{AppendFile, FileView};
use super::record::u32_at;
use crate::primitives::{B256, U256};

const RECORD_BYTES: usize = 64;
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
}

#[derive(Clone)]
struct StatusState {
    /// Oldest first.
    segments: Vec<SegmentView>,
}

#[derive(Clone)]
struct SegmentView {
    view: FileView,
    table: Arc<IndexTable>,
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
    file: AppendFile,
    table: Arc<IndexTable>,
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

impl StatusShared {
    /// The newest record of a hash that is still kept.
    pub(super) fn find(&self, hash: &B256) -> Result<Option<StatusRecord>, ChainError> {
        let state = self.state.load();
        for segment in state.segments.iter().rev() {
            let mut newest: Option<(u64, StatusRecord)> = None;
            segment.table.visit(key_of(hash), &mut |index| {
                let at = index * RECORD_BYTES as u64;
                let not_older = newest.is_none_or(|(other, _)| index > other);
                if at < segment.view.len() && not_older {
                    let record = read_record(&segment.view, at)?;
                    if record.hash == *hash {
                        newest = Some((index, record));
                    }
                }
                Ok::<bool, ChainError>(false)
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
    pub(super) unsafe fn open(dir: &Path, limits: StatusLimits) -> Result<(StatusWriter, StatusShared), ChainError> {
        let mut ids = segment_ids(dir)?;
        ids.sort_unstable();
        let mut segments = VecDeque::new();
        for id in &ids {
            // SAFETY: the caller's contract covers every status file of the directory.
            segments.push_back(unsafe { Segment::open(segment_path(dir, *id), &limits) }?);
        }
        let next_id = ids.last().map_or(0, |id| id + 1);
        let mut writer = StatusWriter { dir: dir.to_path_buf(), limits, segments, next_id, buffer: Vec::new() };
        writer.forget(None)?;
        let shared = StatusShared { state: ArcSwap::from_pointee(writer.state()) };
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
        let used = self.segments.back().map_or(usize::MAX, |segment| segment.table.len().max(segment.record_count()));
        let room = self.limits.segment_records.saturating_sub(used);
        if room >= 2 {
            return Ok(room);
        }
        let path = segment_path(&self.dir, self.next_id);
        // SAFETY: the name is new and the directory is ours by the contract of `StatusWriter::open`.
        let segment = unsafe { Segment::open(path, &self.limits) }?;
        self.next_id += 1;
        self.segments.push_back(segment);
        Ok(self.limits.segment_records)
    }

    fn put_in_newest(&mut self, records: &[StatusRecord]) -> Result<(), ChainError> {
        let segment = self.segments.back_mut().expect("`room` leaves a file");
        let start = segment.file.len();
        self.buffer.clear();
        for record in records {
            record.encode(&mut self.buffer);
        }
        segment.file.write_at(start, &self.buffer)?;
        let mut index = start / RECORD_BYTES as u64;
        for record in records {
            segment.table.insert(Entry { key: key_of(&record.hash), location: index });
            segment.newest_unix_ms = segment.newest_unix_ms.max(record.times.newest_unix_ms());
            index += 1 + u64::from(record.has_extension());
        }
        segment.file.extend_to(start + self.buffer.len() as u64)
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
            self.segments.pop_front();
        }
        Ok(())
    }

    fn state(&self) -> StatusState {
        let segments = self
            .segments
            .iter()
            .map(|segment| SegmentView { view: segment.file.view(), table: segment.table.clone() })
            .collect();
        StatusState { segments }
    }
}

impl Segment {
    /// Opens or creates one file and reads what it holds.
    ///
    /// # Safety
    /// As [`AppendFile::open`].
    unsafe fn open(path: PathBuf, limits: &StatusLimits) -> Result<Segment, ChainError> {
        // SAFETY: the caller's contract is the same.
        let mut file = unsafe { AppendFile::open(path, limits.map_window_bytes) }?;
        let view = file.view();
        let record_count = (view.len() / RECORD_BYTES as u64) as usize;
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
        Ok(Segment { file, table: Arc::new(table), newest_unix_ms })
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

fn segment_ids(dir: &Path) -> Result<Vec<u64>, ChainError> {
    let mut ids = Vec::new();
    for file in std::fs::read_dir(dir).map_err(|error| ChainError::io("list", dir, &error))? {
        let name = file.map_err(|error| ChainError::io("list", dir, &error))?.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix("status-"));
        ids.extend(id.and_then(|id| u64::from_str_radix(id, 16).ok()));
    }
    Ok(ids)
}
