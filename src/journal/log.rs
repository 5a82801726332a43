//! Records into groups, groups into segments, segments into slots. Pure: it says what to write, and is told what is durable.
//!
//! Owner: the journal thread. Records → [`Log::append`] → [`Log::next_write`] → the disk → [`Log::written`]. One write at a time.
//! Accounts follow what is durable, never what merely waits: a segment is freed on the strength of records that will still be there after a
//! power cut.
//!
//! Invariants: the segments that are present have contiguous ids, because freed slots are used again in the order in which they were freed;
//! a record and the `Dropped` records behind it, which are its consequences, are in one group.

use std::collections::VecDeque;
use std::ops::Deref;

use crate::journal::group::{GROUP_HEADER_BYTES, GroupHeader, padded_bytes};
use crate::journal::history::{History, SegmentAccount};
use crate::journal::record::{Outline, RecordType, seal_checksum};
use crate::journal::scan::Scan;
use crate::journal::segment::{JournalId, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::journal::storage::{BLOCK_BYTES, Storage, StorageError, SyncPoint};
use crate::primitives::{B256, Sequence};

/// Sizes. None of them is part of the format: all may change between runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Of a new slot.
    pub segment_bytes: u64,
    /// Records of one group.
    pub group_bytes_max: usize,
    /// With more segments than this, live transactions are copied forward to free the oldest.
    pub segments_kept_max: usize,
}

impl LogSettings {
    /// A smaller slot could not take the largest group, and would be begun again and again for it.
    fn slot_bytes_min(&self) -> u64 {
        (BLOCK_BYTES + padded_bytes(self.group_bytes_max)) as u64
    }
}

/// One thing to write. Blocks of [`BLOCK_BYTES`], aligned in memory.
#[derive(Debug)]
pub struct Write<'a> {
    pub slot: u32,
    pub offset: u64,
    pub bytes: &'a [u8],
    pub point: SyncPoint,
}

/// A segment that is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSegment {
    pub id: u64,
    pub slot: u32,
    pub bytes: u64,
    pub account: SegmentAccount,
}

enum InFlight {
    /// The header of a segment that begins.
    Header(LogSegment),
    /// A group, and how many bytes of `pending` it holds.
    Group { header: GroupHeader, digest: B256 },
}

/// See the module's text.
pub struct Log {
    settings: LogSettings,
    journal: JournalId,
    epoch: u64,
    digest: B256,
    /// Sequence of the next record to be appended.
    next: Sequence,
    /// Sequence of the first record in `pending`.
    pending_first: Sequence,
    /// Records with checksums that are in no durable group.
    pending: VecDeque<Vec<u8>>,
    /// Bytes of the first buffer of `pending` that are durable.
    pending_start: usize,
    /// Oldest first; the last one is written to, behind `offset`.
    segments: VecDeque<LogSegment>,
    offset: u64,
    /// Slots and their sizes, in the order in which they are used. Slots that earlier settings made too small stay out.
    free: VecDeque<(u32, u64)>,
    slot_next: u32,
    next_segment_id: u64,
    in_flight: Option<InFlight>,
    buffer: AlignedBuffer,
    /// The block that is open, as far as durable records say.
    open_block: u64,
    /// Sealed blocks that the chain database has not synced, with the sequences of their records.
    unsettled: VecDeque<(u64, Sequence)>,
    settled_block: u64,
    chain_synced: Sequence,
    /// Blocks were taken back, so more is live than the accounts say: nothing is freed until the next start has counted anew.
    is_rolled_back: bool,
    empties: Vec<Vec<u8>>,
}

impl Log {
    /// A journal that begins. It has no slot yet.
    #[must_use]
    pub fn create(settings: LogSettings, journal: JournalId) -> Self {
        assert!(settings.segment_bytes.is_multiple_of(BLOCK_BYTES as u64), "slots are whole blocks");
        assert!(settings.segment_bytes >= settings.slot_bytes_min(), "an empty segment takes any group");
        Self {
            settings,
            journal,
            epoch: 1,
            digest: B256::ZERO,
            next: Sequence(1),
            pending_first: Sequence(1),
            pending: VecDeque::new(),
            pending_start: 0,
            segments: VecDeque::new(),
            offset: 0,
            free: VecDeque::new(),
            slot_next: 0,
            next_segment_id: 0,
            in_flight: None,
            buffer: AlignedBuffer::new(padded_bytes(settings.group_bytes_max)),
            open_block: 0,
            unsettled: VecDeque::new(),
            settled_block: 0,
            chain_synced: Sequence(0),
            is_rolled_back: false,
            empties: Vec::new(),
        }
    }

    /// Goes on behind the newest good group of what was scanned.
    #[must_use]
    pub fn resume<B: Deref<Target = [u8]>>(settings: LogSettings, scan: &Scan<B>, history: &History) -> Self {
        let segments = scan.segments.iter().enumerate().map(|(index, segment)| LogSegment {
            id: segment.id,
            slot: segment.slot,
            bytes: segment.bytes.len() as u64,
            account: history.segments.get(index).copied().unwrap_or_default(),
        });
        let slot_bytes_min = settings.slot_bytes_min();
        let sealed = history.blocks.iter().filter_map(|block| Some((block.number, block.sealed.as_ref()?.sequence)));
        Self {
            epoch: scan.epoch + 1,
            digest: scan.digest,
            next: scan.next,
            pending_first: scan.next,
            segments: segments.collect(),
            offset: scan.offset,
            free: scan.free.iter().copied().filter(|(_, bytes)| *bytes >= slot_bytes_min).collect(),
            slot_next: scan.slot_next,
            next_segment_id: scan.segments.last().map_or(0, |segment| segment.id + 1),
            open_block: history.blocks.last().map_or(0, |block| block.number),
            unsettled: sealed.collect(),
            ..Self::create(settings, scan.journal)
        }
    }

    /// Takes whole records without checksums, as the builder core wrote them. Panics when their sequences do not continue.
    pub fn append(&mut self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        let mut buffer = self.empties.pop().unwrap_or_default();
        buffer.extend_from_slice(records);
        let mut at = 0;
        while at < buffer.len() {
            let outline = Outline::of(&buffer[at..]).expect("the builder core wrote whole records");
            assert_eq!(outline.sequence, self.next, "the builder core counts its records");
            assert!(outline.len <= self.settings.group_bytes_max, "a group holds the largest record");
            seal_checksum(&mut buffer[at..at + outline.len]);
            self.next.0 += 1;
            at += outline.len;
        }
        self.pending.push_back(buffer);
    }

    /// Appends records and makes them durable: for a process whose threads do not run.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn append_durably(
        &mut self,
        records: &[u8],
        storage: &mut impl Storage,
        now_unix_ns: u64,
    ) -> Result<(), StorageError> {
        self.append(records);
        while self.has_pending() {
            if let Some(write) = self.next_write(now_unix_ns) {
                storage.write(write.slot, write.offset, write.bytes, write.point)?;
                self.written();
            } else if let Some((slot, bytes)) = self.wanted_slot() {
                storage.create(slot, bytes)?;
                self.slot_created(slot);
            }
        }
        Ok(())
    }

    /// Whether records wait for a write, or for its end.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The next thing to write: the header of a segment when one must begin, else a group. `None` when nothing waits, or when a segment
    /// must begin and no slot is free. To be answered by [`Log::written`] before the next call.
    pub fn next_write(&mut self, now_unix_ns: u64) -> Option<Write<'_>> {
        assert!(self.in_flight.is_none(), "one write at a time");
        let room = self.segments.back().map_or(0, |segment| segment.bytes - self.offset);
        let (records_bytes, record_count) = self.choose(room)?;
        if record_count == 0 {
            return self.begin_segment();
        }
        Some(self.build_group(records_bytes, record_count, now_unix_ns))
    }

    /// How much of what waits goes into the next group; nothing of it when the segment has no room. `None` when nothing waits.
    fn choose(&self, room: u64) -> Option<(usize, u32)> {
        let room = usize::try_from(room).unwrap_or(usize::MAX).saturating_sub(GROUP_HEADER_BYTES);
        let limit = room.min(self.settings.group_bytes_max);
        // A group may end before a record that is no consequence of the one before it, or wherever it is full of one unit.
        let (mut whole, mut cut) = ((0, 0), (0, 0));
        let (mut bytes, mut count) = (0, 0);
        let mut skip = self.pending_start;
        if self.pending.is_empty() {
            return None;
        }
        'all: for buffer in &self.pending {
            let mut at = std::mem::take(&mut skip);
            while at < buffer.len() {
                let outline = Outline::of(&buffer[at..]).expect("checked when it was appended");
                if outline.kind != RecordType::Dropped {
                    whole = (bytes, count);
                }
                if bytes + outline.len > limit {
                    break 'all;
                }
                at += outline.len;
                bytes += outline.len;
                count += 1;
                cut = (bytes, count);
            }
            // What the builder core handed over in one piece is complete.
            whole = (bytes, count);
        }
        let is_larger_than_a_group = whole.1 == 0 && limit == self.settings.group_bytes_max;
        Some(if is_larger_than_a_group { cut } else { whole })
    }

    fn begin_segment(&mut self) -> Option<Write<'_>> {
        let (slot, bytes) = self.free.pop_front()?;
        let id = self.next_segment_id;
        let header = SegmentHeader {
            journal: self.journal,
            id,
            bytes,
            first: self.pending_first,
            epoch: self.epoch,
            digest: self.digest,
            oldest_needed: self.segments.front().map_or(id, |oldest| oldest.id),
        };
        let block = self.buffer.blocks(BLOCK_BYTES);
        block.fill(0);
        let target = block.first_chunk_mut::<SEGMENT_HEADER_BYTES>().expect("a block holds a header");
        header.encode(target);
        self.in_flight = Some(InFlight::Header(LogSegment { id, slot, bytes, account: SegmentAccount::default() }));
        Some(Write { slot, offset: 0, bytes: self.buffer.bytes(BLOCK_BYTES), point: SyncPoint::Header })
    }

    fn build_group(&mut self, records_bytes: usize, record_count: u32, now_unix_ns: u64) -> Write<'_> {
        let segment = *self.segments.back().expect("only a segment has room");
        let padded = padded_bytes(records_bytes);
        let group = self.buffer.blocks(padded);
        let end = GROUP_HEADER_BYTES + records_bytes;
        let (mut at, mut skip) = (GROUP_HEADER_BYTES, self.pending_start);
        for buffer in &self.pending {
            let part = &buffer[std::mem::take(&mut skip)..];
            let part = &part[..part.len().min(end - at)];
            group[at..at + part.len()].copy_from_slice(part);
            at += part.len();
            if at == end {
                break;
            }
        }
        group[end..].fill(0);
        let header = GroupHeader {
            records_crc: crc32c::crc32c(&group[GROUP_HEADER_BYTES..end]),
            journal: self.journal,
            segment: segment.id,
            epoch: self.epoch,
            first: self.pending_first,
            last: Sequence(self.pending_first.0 + u64::from(record_count) - 1),
            // At most `group_bytes_max`, far below 2^32.
            records_bytes: records_bytes as u32,
            record_count,
            unix_ns: now_unix_ns,
            digest: self.digest,
        };
        let target = group.first_chunk_mut::<GROUP_HEADER_BYTES>().expect("a group begins with its header");
        let digest = header.encode(target);
        self.in_flight = Some(InFlight::Group { header, digest });
        Write { slot: segment.slot, offset: self.offset, bytes: self.buffer.bytes(padded), point: SyncPoint::Group }
    }

    /// The last write is durable. Answers the sequence up to which everything is, after a group.
    pub fn written(&mut self) -> Option<Sequence> {
        match self.in_flight.take().expect("something was to be written") {
            InFlight::Header(segment) => {
                self.next_segment_id = segment.id + 1;
                self.segments.push_back(segment);
                self.offset = BLOCK_BYTES as u64;
                None
            }
            InFlight::Group { header, digest } => {
                self.digest = digest;
                self.offset += header.padded_bytes();
                self.keep_account(header.records_bytes as usize);
                self.forget_pending(header.records_bytes as usize);
                self.pending_first.0 = header.last.0 + 1;
                self.free_settled();
                Some(header.last)
            }
        }
    }

    /// Drops what is durable from the front of `pending`.
    fn forget_pending(&mut self, mut bytes: usize) {
        while let Some(first) = self.pending.front() {
            let left = first.len() - self.pending_start;
            if bytes < left {
                self.pending_start += bytes;
                return;
            }
            bytes -= left;
            self.pending_start = 0;
            let mut empty = self.pending.pop_front().expect("there is a first one");
            empty.clear();
            if self.empties.len() < EMPTIES_MAX && empty.capacity() <= self.settings.group_bytes_max {
                self.empties.push(empty);
            }
        }
    }

    /// Takes the records of the group in the buffer into the accounts of the segments.
    fn keep_account(&mut self, records_bytes: usize) {
        let buffer = std::mem::take(&mut self.buffer);
        let records = &buffer.bytes(GROUP_HEADER_BYTES + records_bytes)[GROUP_HEADER_BYTES..];
        let mut at = 0;
        while let Some(outline) = Outline::of(&records[at..]) {
            self.account_of_record(&outline);
            at += outline.len;
        }
        self.buffer = buffer;
    }

    fn account_of_record(&mut self, record: &Outline) {
        let block = match record.kind {
            RecordType::Opened => {
                self.open_block = record.subject;
                Some(record.subject)
            }
            RecordType::Closed => Some(record.subject),
            RecordType::Sealed => {
                self.unsettled.push_back((record.subject, record.sequence));
                Some(record.subject)
            }
            RecordType::Placed => Some(self.open_block),
            _ => None,
        };
        let current = self.segments.back_mut().expect("the group is in it");
        let account = &mut current.account;
        if account.first == Sequence(0) {
            account.first = record.sequence;
        }
        account.last = record.sequence;
        account.block_max = account.block_max.max(block);
        match record.kind {
            RecordType::Admitted => account.live_count += 1,
            RecordType::Carried => {
                account.live_count += 1;
                self.end_in_its_segment(Sequence(record.subject), None);
            }
            RecordType::Dropped => {
                account.end_max = record.sequence;
                self.end_in_its_segment(Sequence(record.subject), None);
            }
            RecordType::Placed => self.end_in_its_segment(Sequence(record.subject), block),
            RecordType::RolledBack => self.is_rolled_back = true,
            _ => {}
        }
    }

    /// A transaction is live no more; its segment is needed until the block is settled.
    fn end_in_its_segment(&mut self, name: Sequence, block: Option<u64>) {
        let index = self
            .segments
            .partition_point(|segment| segment.account.first != Sequence(0) && segment.account.last < name);
        if let Some(segment) = self.segments.get_mut(index)
            && segment.account.first <= name
            && segment.account.first != Sequence(0)
        {
            assert!(segment.account.live_count > 0, "what ends was live");
            segment.account.live_count -= 1;
            segment.account.block_max = segment.account.block_max.max(block);
        }
    }

    /// The slot that should be made now, in the background: one free slot ahead of need.
    #[must_use]
    pub fn wanted_slot(&self) -> Option<(u32, u64)> {
        self.free.is_empty().then_some((self.slot_next, self.settings.segment_bytes))
    }

    /// Takes a slot into use that [`Log::wanted_slot`] named.
    pub fn slot_created(&mut self, slot: u32) {
        assert_eq!(slot, self.slot_next, "slots are made one after the other");
        self.slot_next += 1;
        self.free.push_back((slot, self.settings.segment_bytes));
    }

    /// Everything up to this sequence that the chain database keeps is on the disk.
    pub fn chain_synced(&mut self, sequence: Sequence) {
        self.chain_synced = self.chain_synced.max(sequence);
        self.free_settled();
    }

    /// Takes a slot into use that was there and holds nothing.
    pub fn adopt_slot(&mut self, slot: u32, bytes: u64) {
        self.slot_next = self.slot_next.max(slot + 1);
        self.add_free(slot, bytes);
    }

    fn add_free(&mut self, slot: u32, bytes: u64) {
        if bytes >= self.settings.slot_bytes_min() {
            self.free.push_back((slot, bytes));
        }
    }

    fn free_settled(&mut self) {
        if self.is_rolled_back {
            return;
        }
        while let Some((number, sealed)) = self.unsettled.front().copied()
            && sealed <= self.chain_synced
        {
            self.settled_block = number;
            self.unsettled.pop_front();
        }
        while self.segments.len() > 1 && self.is_settled(&self.segments[0]) && self.segments[0].account.live_count == 0
        {
            let oldest = self.segments.pop_front().expect("there are two");
            self.add_free(oldest.slot, oldest.bytes);
        }
    }

    /// Whether only live transactions may still need the segment.
    fn is_settled(&self, segment: &LogSegment) -> bool {
        segment.account.block_max.is_none_or(|number| number <= self.settled_block)
            && segment.account.end_max <= self.chain_synced
    }

    /// Bytes that groups can still be written to.
    #[must_use]
    pub fn space(&self) -> u64 {
        let left = self.segments.back().map_or(0, |segment| segment.bytes - self.offset);
        left + self.free.iter().map(|(_, bytes)| bytes - BLOCK_BYTES as u64).sum::<u64>()
    }

    /// Below which sequence live transactions should be copied forward; `None` while that would free nothing that is wanted.
    #[must_use]
    pub fn carry_below(&self) -> Option<Sequence> {
        let (oldest, second) = (self.segments.front()?, self.segments.get(1)?);
        let is_held = self.segments.len() > self.settings.segments_kept_max
            && oldest.account.live_count > 0
            && self.is_settled(oldest)
            && second.account.first != Sequence(0);
        is_held.then_some(second.account.first)
    }

    /// What is present, oldest first.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &LogSegment> {
        self.segments.iter()
    }
}

/// Emptied buffers that are kept for the next records.
const EMPTIES_MAX: usize = 64;

/// Bytes whose first one lies on a block boundary, in safe code: a little is left over in front.
#[derive(Default)]
struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    fn new(bytes: usize) -> Self {
        let memory = vec![0; bytes + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        Self { memory, start }
    }

    fn blocks(&mut self, bytes: usize) -> &mut [u8] {
        &mut self.memory[self.start..self.start + bytes]
    }

    fn bytes(&self, bytes: usize) -> &[u8] {
        &self.memory[self.start..self.start + bytes]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod simulation;
