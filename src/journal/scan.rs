//! Reading a journal at a start: every byte is checked, the end is found, and damage is told from a torn last group.
//!
//! Slots → headers → the segments that are needed, in order → group after group. The first group that is not right is the end only in the newest
//! segment, and only when nothing of this journal with a higher sequence lies behind it or in a slot that seems free: one write was in flight,
//! so nothing else can be torn. What a killed process left at the end, and the names of the slots it made, may never have been synced, so
//! they are synced here, before anyone acts on them.

use std::ops::Deref;

use crate::journal::group::{self, Expected, GROUP_HEADER_BYTES, GroupFault, GroupHeader};
use crate::journal::history::Position;
use crate::journal::record::Outline;
use crate::journal::segment::{FirstBlock, JournalId, SegmentHeader};
use crate::journal::storage::{BLOCK_BYTES, Storage, StorageError, SyncPoint};
use crate::primitives::{B256, Sequence};

/// Why a journal cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("journal slot {slot} belongs to another journal than slot {other}")]
    Foreign { slot: u32, other: u32 },
    #[error("journal slots {slots:?} both hold segment {segment}")]
    Twice { segment: u64, slots: [u32; 2] },
    #[error("journal segment {segment} is missing: segments {oldest} to {newest} are needed")]
    Missing { segment: u64, oldest: u64, newest: u64 },
    #[error("journal slot {slot} has {found} bytes, its header says {said}")]
    SlotBytes { slot: u32, found: u64, said: u64 },
    /// A header that should name the newest segment, or one of a journal of which no header is left.
    #[error(
        "journal slot {slot}: {what}, but the group at byte {offset} begins with sequence {found}, the journal ends before {next}"
    )]
    Header { slot: u32, what: &'static str, offset: u64, found: u64, next: u64 },
    #[error(
        "journal slot {slot}: {what}, but byte {offset} is not zero: there was a journal, and no slot has a header of it"
    )]
    NoHeader { slot: u32, what: &'static str, offset: u64 },
    #[error(
        "journal segment {segment} (slot {slot}) is damaged at byte {offset}: {fault}; this is not its end: the group at byte {later_offset} begins with sequence {later}"
    )]
    Damaged { segment: u64, slot: u32, offset: u64, fault: GroupFault, later_offset: u64, later: u64 },
    #[error(
        "journal segment {segment} (slot {slot}) begins with sequence {said}, the segment before it ends before sequence {found}, at byte {offset}: {fault}"
    )]
    Gap { segment: u64, slot: u32, said: u64, found: u64, offset: u64, fault: GroupFault },
}

/// The end of a journal that was cut off: a write that the process did not live to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub segment: u64,
    pub offset: u64,
    pub fault: GroupFault,
}

/// One segment with its groups.
pub struct ScannedSegment<B> {
    pub id: u64,
    pub slot: u32,
    pub epoch: u64,
    pub bytes: B,
    /// Offset and length of the records of each group.
    groups: Vec<(u32, u32)>,
}

/// A journal as it was found.
pub struct Scan<B> {
    pub(super) journal: JournalId,
    /// Highest epoch of a group or a header.
    pub epoch: u64,
    /// Sequence of the next record.
    pub next: Sequence,
    /// Of the newest group.
    pub digest: B256,
    /// Oldest first, at least one.
    pub segments: Vec<ScannedSegment<B>>,
    /// Where the next group of the newest segment begins.
    pub offset: u64,
    /// Slots that hold nothing needed, with their sizes, in the order in which they may be used.
    pub free: Vec<(u32, u64)>,
    /// Number of the next slot to be made.
    pub slot_next: u32,
    pub torn: Option<Torn>,
}

struct Slot<B> {
    number: u32,
    bytes: B,
    header: SegmentHeader,
}

/// A slot that holds no segment that is needed, as far as its first block says.
struct Spare<B> {
    number: u32,
    bytes: B,
    /// Why its header does not count.
    what: &'static str,
}

/// Reads the journal; `None` when there is none yet.
///
/// # Errors
/// Damage, with its place; a failed read or sync.
pub fn scan<S: Storage>(storage: &mut S) -> Result<Option<Scan<S::Bytes>>, ScanError> {
    // A slot whose entry is in a cache only would take with it whatever is written to it from now on.
    storage.sync_directory(SyncPoint::DirectoryTail)?;
    let mut found = Vec::new();
    let (mut unused, mut damaged) = (Vec::new(), Vec::new());
    let slots = storage.slots()?;
    for &number in &slots {
        let bytes = storage.read(number)?;
        match SegmentHeader::read(&bytes) {
            FirstBlock::Unused => unused.push(Spare { number, bytes, what: "it has no header" }),
            FirstBlock::Segment(header) => found.push(Slot { number, bytes, header }),
            FirstBlock::Damaged(what) => damaged.push(Spare { number, bytes, what }),
        }
    }
    found.sort_by_key(|slot| slot.header.id);
    let Some(newest) = found.last() else {
        damaged.iter().chain(&unused).try_for_each(holds_nothing)?;
        return Ok(None);
    };
    let (journal, other, oldest) = (newest.header.journal, newest.number, newest.header.oldest_needed);
    if let Some(foreign) = found.iter().find(|slot| slot.header.journal != journal) {
        return Err(ScanError::Foreign { slot: foreign.number, other });
    }
    let needed = found.split_off(found.partition_point(|slot| slot.header.id < oldest));
    check_headers(&needed, oldest)?;
    let mut scan = read_segments(needed, journal)?;
    let leftovers = found.into_iter().map(|slot| {
        let Slot { number, bytes, .. } = slot;
        Spare { number, bytes, what: "its header names a segment that was given up" }
    });
    for spare in leftovers.chain(damaged).chain(unused) {
        holds_nothing_newer(&spare, &scan)?;
        scan.free.push((spare.number, spare.bytes.len() as u64));
    }
    scan.slot_next = slots.last().map_or(0, |last| last + 1);
    let newest = scan.segments.last().expect("there is at least one");
    storage.sync(newest.slot, SyncPoint::Tail)?;
    Ok(Some(scan))
}

/// Where no slot has a header: nothing was ever written behind the first block, so that a first header was torn, or none was written.
fn holds_nothing<B: Deref<Target = [u8]>>(spare: &Spare<B>) -> Result<(), ScanError> {
    match spare.bytes.iter().skip(BLOCK_BYTES).position(|byte| *byte != 0) {
        Some(at) => {
            Err(ScanError::NoHeader { slot: spare.number, what: spare.what, offset: (BLOCK_BYTES + at) as u64 })
        }
        None => Ok(()),
    }
}

/// A header is durable before the first group behind it. A group that should be in the journal and is not means that its header is lost.
fn holds_nothing_newer<B: Deref<Target = [u8]>>(spare: &Spare<B>, scan: &Scan<B>) -> Result<(), ScanError> {
    match first_group_from(&spare.bytes, 0, scan.journal, scan.next) {
        Some((offset, group)) => {
            let (slot, what, found, next) = (spare.number, spare.what, group.first.0, scan.next.0);
            Err(ScanError::Header { slot, what, offset, found, next })
        }
        None => Ok(()),
    }
}

/// The segments from `oldest` on are all there, once.
fn check_headers<B: Deref<Target = [u8]>>(slots: &[Slot<B>], oldest: u64) -> Result<(), ScanError> {
    let newest = slots.last().map_or(oldest, |slot| slot.header.id);
    for (slot, expected) in slots.iter().zip(oldest..) {
        if slot.header.bytes != slot.bytes.len() as u64 {
            let (found, said) = (slot.bytes.len() as u64, slot.header.bytes);
            return Err(ScanError::SlotBytes { slot: slot.number, found, said });
        }
        if slot.header.id > expected {
            return Err(ScanError::Missing { segment: expected, oldest, newest });
        }
        if slot.header.id < expected {
            let twin = slots.iter().find(|twin| twin.header.id == slot.header.id).unwrap_or(slot);
            return Err(ScanError::Twice { segment: slot.header.id, slots: [twin.number, slot.number] });
        }
    }
    if slots.first().is_none_or(|first| first.header.id != oldest) {
        return Err(ScanError::Missing { segment: oldest, oldest, newest });
    }
    Ok(())
}

/// Checks group after group. `slots` are contiguous and not empty.
fn read_segments<B: Deref<Target = [u8]>>(slots: Vec<Slot<B>>, journal: JournalId) -> Result<Scan<B>, ScanError> {
    let first = slots.first().expect("the caller checked");
    let mut expected =
        Expected { journal, segment: 0, epoch: 0, next: first.header.first, digest: first.header.digest };
    let mut epoch = 0;
    let mut segments = Vec::with_capacity(slots.len());
    // Where and why the last segment ended.
    let mut end: Option<(u64, GroupFault)> = None;
    for slot in slots {
        let header = &slot.header;
        if let Some((offset, fault)) = end
            && (header.first != expected.next || header.digest != expected.digest)
        {
            let (segment, said, found) = (header.id, header.first.0, expected.next.0);
            return Err(ScanError::Gap { segment, slot: slot.number, said, found, offset, fault });
        }
        epoch = header.epoch.max(epoch);
        expected.segment = header.id;
        expected.epoch = header.epoch.max(expected.epoch);
        let (groups, offset, fault) = read_groups(&slot.bytes, &mut expected);
        end = Some((offset, fault));
        let Slot { number, bytes, header } = slot;
        segments.push(ScannedSegment { id: header.id, slot: number, epoch: header.epoch, bytes, groups });
    }
    let (offset, fault) = end.expect("there is at least one segment");
    let newest = segments.last().expect("there is at least one segment");
    // Behind the block where the last group would begin: the write that was in flight is not all that is wrong.
    if let Some((later_offset, group)) =
        first_group_from(&newest.bytes, offset + BLOCK_BYTES as u64, journal, expected.next)
    {
        let (segment, slot, later) = (newest.id, newest.slot, group.first.0);
        return Err(ScanError::Damaged { segment, slot, offset, fault, later_offset, later });
    }
    let behind = newest.bytes.get(offset as usize..).unwrap_or_default();
    let torn = GroupHeader::read(behind).ok().filter(|group| group.journal == journal && group.first >= expected.next);
    // An epoch is not used twice, not even by what was cut off.
    epoch = torn.map_or(epoch, |group| group.epoch.max(epoch));
    let torn = torn.map(|_| Torn { segment: newest.id, offset, fault });
    Ok(Scan {
        journal,
        epoch: epoch.max(expected.epoch),
        next: expected.next,
        digest: expected.digest,
        segments,
        offset,
        free: Vec::new(),
        slot_next: 0,
        torn,
    })
}

/// The groups that continue what is expected: their records, where they end, and why.
fn read_groups(bytes: &[u8], expected: &mut Expected) -> (Vec<(u32, u32)>, u64, GroupFault) {
    let mut groups = Vec::new();
    let mut offset = BLOCK_BYTES;
    loop {
        match group::check(bytes.get(offset..).unwrap_or_default(), expected) {
            Ok((header, digest)) => {
                // A slot has fewer than 2^32 bytes.
                groups.push(((offset + GROUP_HEADER_BYTES) as u32, header.records_bytes));
                expected.epoch = header.epoch;
                expected.next.0 = header.last.0 + 1;
                expected.digest = digest;
                offset += group::padded_bytes(header.records_bytes as usize);
            }
            Err(fault) => return (groups, offset as u64, fault),
        }
    }
}

/// The first group header of this journal at a block from `offset` on that begins with `next` or a higher sequence, and where it is.
fn first_group_from(bytes: &[u8], offset: u64, journal: JournalId, next: Sequence) -> Option<(u64, GroupHeader)> {
    (offset..).step_by(BLOCK_BYTES).zip(bytes.get(offset as usize..)?.chunks(BLOCK_BYTES)).find_map(
        |(offset, block)| {
            let group = GroupHeader::read(block).ok()?;
            (group.journal == journal && group.first >= next).then_some((offset, group))
        },
    )
}

impl<B: Deref<Target = [u8]>> ScannedSegment<B> {
    /// Bytes up to the end of its last group.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.groups.last().map_or(BLOCK_BYTES as u64, |(at, bytes)| {
            *at as u64 - GROUP_HEADER_BYTES as u64 + group::padded_bytes(*bytes as usize) as u64
        })
    }

    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }
}

impl<B: Deref<Target = [u8]>> Scan<B> {
    /// Every record in order, with its place.
    pub fn records(&self) -> impl Iterator<Item = (Position, &[u8])> {
        // Fewer than 2^32 segments.
        (0..).zip(&self.segments).flat_map(|(segment, scanned)| {
            scanned.groups.iter().flat_map(move |&(start, bytes)| {
                let end = start + bytes;
                let mut at = start;
                std::iter::from_fn(move || {
                    let rest = scanned.bytes.get(at as usize..end as usize)?;
                    let outline = Outline::of(rest)?;
                    let position = Position { segment, offset: at };
                    at += outline.len as u32;
                    Some((position, &rest[..outline.len]))
                })
            })
        })
    }

    /// The record at a place that [`Scan::records`] named.
    #[must_use]
    pub fn record_at(&self, at: Position) -> &[u8] {
        let bytes = &self.segments[at.segment as usize].bytes[at.offset as usize..];
        let outline = Outline::of(bytes).expect("a record was there when the journal was scanned");
        &bytes[..outline.len]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests;
