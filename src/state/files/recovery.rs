#![allow(unsafe_code, reason = "decides what is mapped while it can be read")]
//! From files to a store: the newest slot whose commit is whole, its segments mapped, everything else of a broken-off process deleted.
//!
//! Also the two places where the contract of the maps is upheld: which words a version reaches, and when a segment is unmapped.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::ThreadPool;

use super::disk::{BLOCK_WORDS, Disk, FileName, ROOTS, SyncPoint};
use super::file_disk::{DirectoryError, FileDisk};
use super::roots::{self, ROOTS_BYTES, SLOT_WORDS, Slot, read_superblock, slot_offset, superblock};
use super::space::{FileSpace, Geometry};
use super::sync::{StateCells, Syncer};
use super::{FileStore, Reader, Version, segment_header};
use crate::runtime::address_range::AddressRange;
use crate::runtime::file::bytes_of;
use crate::state::trie::node::Position;
use crate::state::trie::reclaim::{Cursor, Roots};
use crate::state::{Stamp, StateError};

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSettings {
    /// Length of a segment of a new state, a power of two from 64 KiB to 4 GiB. An existing state keeps its own.
    pub segment_bytes: u64,
    /// Addresses reserved for segments, a power of two: bounds what is on the disk at a time.
    pub range_bytes: u64,
}

impl Default for StateSettings {
    /// 64 MiB segments: an operator sees space come back soon; 8 TiB of addresses, of 128 that a process has.
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, range_bytes: 8 << 40 }
    }
}

/// What a version whose lowest node lies at `first` may read now.
pub(super) fn space(range: &Arc<AddressRange>, geometry: Geometry, first: Position, end: Position) -> FileSpace {
    // SAFETY: every segment from the oldest on is mapped when it is made or found, and `FileStore::drop_segments` unmaps only what lies below
    // `first` of every version that is alive; segments are written behind `end` only, at whole blocks.
    unsafe { FileSpace::new(Arc::clone(range), geometry, first, end) }
}

/// Unmaps a segment that no version can reach.
pub(super) fn unmap(range: &AddressRange, geometry: Geometry, segment: u32) -> Result<(), StateError> {
    // SAFETY: `FileStore::drop_segments` has looked that no version is alive that reaches below the next segment.
    let cleared = unsafe { range.clear(geometry.place(segment), geometry.segment_bytes as usize) };
    cleared.map_err(|error| StateError::Io {
        op: "unmap",
        file: FileName(segment),
        offset: 0,
        code: error.raw_os_error().unwrap_or(0),
    })
}

impl FileStore {
    /// Opens the state on a disk, or makes an empty one where there is none.
    ///
    /// # Errors
    /// `Damaged` when no slot is whole, `Io`, `Full`.
    pub fn open(pool: Arc<ThreadPool>, mut disk: Box<dyn Disk>, settings: StateSettings) -> Result<Self, StateError> {
        let files = disk.list()?;
        let mut head = vec![0; BLOCK_WORDS];
        if files.contains(&ROOTS) {
            disk.read(ROOTS, 0, &mut head)?;
        }
        // A roots file without anything in it is one that was being made when the process ended.
        let segment_bytes = match read_superblock(&head) {
            Some(bytes) => bytes,
            None if head.iter().all(|word| *word == 0) && files.iter().all(|file| *file == ROOTS) => {
                make(disk.as_mut(), &files, settings.segment_bytes)?;
                settings.segment_bytes
            }
            None => return Err(damaged(ROOTS, 0, "no superblock of this version")),
        };
        let geometry = Geometry { segment_bytes, range_bytes: settings.range_bytes.max(4 * segment_bytes) };
        let range = AddressRange::reserve(geometry.range_bytes as usize).map_err(|error| StateError::Io {
            op: "reserve addresses for",
            file: FileName(ROOTS),
            offset: geometry.range_bytes,
            code: error.raw_os_error().unwrap_or(0),
        })?;
        let range = Arc::new(range);
        let slots = [read_slot(disk.as_mut(), 0)?, read_slot(disk.as_mut(), 1)?];
        let files = disk.list()?;
        let mut recovery = Recovery { disk: disk.as_mut(), geometry, range: &range, files: &files };
        let newest = recovery.choose(&slots)?;
        recovery.settle(&slots, newest)?;
        let oldest = recovery.map_rest(&slots, newest)?;
        Ok(Self::standing(pool, disk, geometry, range, slots, newest, oldest))
    }

    fn standing(
        pool: Arc<ThreadPool>,
        disk: Box<dyn Disk>,
        geometry: Geometry,
        range: Arc<AddressRange>,
        slots: [Option<Slot>; 2],
        newest: usize,
        oldest: u32,
    ) -> Self {
        let slot = slots[newest].clone().unwrap_or_default();
        let cells = Arc::new(StateCells::default());
        let syncer = Syncer::new(disk.handle(), Arc::clone(&cells), geometry, slots, newest);
        let end = slot.end.max(geometry.start(1));
        let last = slot.entries.len().saturating_sub(1);
        let version = |(index, entry): (usize, &roots::Entry)| {
            // A pass of an older version begins anew; what is alive in it is about what is alive in the newest.
            let cursor = if index == last { slot.cursor } else { Cursor::fresh(slot.cursor.live_words) };
            let version = Version {
                stamp: Stamp { number: entry.number, sequence: entry.sequence },
                root: entry.root,
                codes_root: entry.codes_root,
                roots: Roots { accounts: entry.accounts, codes: entry.codes },
                space: space(&range, geometry, entry.first, end),
                cursor,
            };
            Reader { version: Arc::new(version) }
        };
        let retained: VecDeque<Reader> = slot.entries.iter().enumerate().map(version).collect();
        let handed = retained.iter().map(|reader| Arc::downgrade(&reader.version)).collect();
        let store = Self {
            pool,
            disk,
            geometry,
            cells,
            syncer: Some(syncer),
            retained,
            handed,
            oldest,
            next: if slot.end == 0 { 1 } else { geometry.segment(slot.end - 1) + 1 },
            end,
            checked: slot.checked.clone(),
            checked_crc: slot.checked_crc,
            unreclaimed_words: 0,
            written_words: 0,
            buffers: Vec::new(),
            unmapped: Vec::new(),
            is_failed: false,
            range,
        };
        store.show_retained();
        store
    }
}

/// Why a state cannot be opened by a command.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the hash pool could not be started: {0}")]
    HashPool(#[from] rayon::ThreadPoolBuildError),
    #[error("{0} holds no state")]
    Missing(PathBuf),
}

/// Opens the state in a directory that no process uses.
///
/// # Errors
/// See [`OfflineError`].
pub fn open_offline(dir: &Path) -> Result<FileStore, OfflineError> {
    if !dir.join(FileName(ROOTS).to_string()).is_file() {
        return Err(OfflineError::Missing(dir.to_owned()));
    }
    let disk = FileDisk::open(dir, true)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    Ok(FileStore::open(Arc::new(pool), Box::new(disk), StateSettings::default())?)
}

struct Recovery<'d> {
    disk: &'d mut dyn Disk,
    geometry: Geometry,
    range: &'d Arc<AddressRange>,
    files: &'d [u32],
}

impl Recovery<'_> {
    /// The newest slot that is whole, together with its newest commit.
    fn choose(&mut self, slots: &[Option<Slot>; 2]) -> Result<usize, StateError> {
        let sequence = |slot: usize| slots[slot].as_ref().map(|slot| slot.sequence);
        let order = if sequence(1) > sequence(0) { [1, 0] } else { [0, 1] };
        let mut fault = damaged(ROOTS, slot_offset(0), "neither root slot is whole");
        for index in order {
            let Some(slot) = &slots[index] else { continue };
            match self.check(slot) {
                Ok(()) => return Ok(index),
                Err(error) => {
                    tracing::warn!(%error, sequence = slot.sequence, "a root slot stands for a commit that is not whole: the older one counts");
                    fault = error;
                }
            }
        }
        Err(fault)
    }

    /// Whether all segments of a slot are there, and its newest commit is as it was written.
    fn check(&mut self, slot: &Slot) -> Result<(), StateError> {
        if slot.end == 0 {
            return Ok(());
        }
        let geometry = self.geometry;
        for segment in geometry.segment(slot.first())..=geometry.segment(slot.end - 1) {
            if self.files.binary_search(&segment).is_err() {
                return Err(damaged(segment, 0, "the segment is missing"));
            }
        }
        let (start, end) = (slot.checked.start, slot.checked.end);
        let is_inside = start < end && end <= slot.end && geometry.segment(start) == geometry.segment(end - 1);
        if !is_inside || slot.entries.iter().any(|entry| entry.accounts.max(entry.codes) >= slot.end) {
            return Err(damaged(ROOTS, slot_offset(0), "a slot names what lies behind its end"));
        }
        let (file, offset) = geometry.locate(start);
        let mut words = vec![0; (end - start) as usize];
        self.disk.read(file.0, offset, &mut words)?;
        if crc32c::crc32c(bytes_of(&words)) != slot.checked_crc {
            return Err(damaged(file.0, offset, "the newest commit differs from its checksum"));
        }
        Ok(())
    }

    /// Makes durable what is built upon: a killed process may have left it in caches only.
    fn settle(&mut self, slots: &[Option<Slot>; 2], newest: usize) -> Result<(), StateError> {
        let Some(slot) = &slots[newest] else { return Ok(()) };
        if slot.end > 0 {
            for segment in self.geometry.segment(slot.first())..=self.geometry.segment(slot.end - 1) {
                self.disk.sync(segment, SyncPoint::Tail)?;
            }
        }
        self.disk.sync(ROOTS, SyncPoint::Tail)?;
        self.disk.sync_directory(SyncPoint::Tail)
    }

    /// Maps the segments of the chosen slot and deletes those of neither slot. Answers the oldest that stays.
    fn map_rest(&mut self, slots: &[Option<Slot>; 2], newest: usize) -> Result<u32, StateError> {
        let geometry = self.geometry;
        let Some(slot) = &slots[newest] else { return Ok(1) };
        let first = |slot: &Slot| if slot.end == 0 { 1 } else { geometry.segment(slot.first()).max(1) };
        let oldest = slots.iter().flatten().map(first).min().unwrap_or(1);
        let oldest_read = first(slot);
        let last = if slot.end == 0 { 0 } else { geometry.segment(slot.end - 1) };
        let mut kept = oldest_read;
        for file in self.files.iter().copied().filter(|file| *file != ROOTS) {
            if file < oldest || file > last {
                self.disk.remove(file)?;
                continue;
            }
            kept = kept.min(file);
            if file >= oldest_read {
                let mut header = vec![0; BLOCK_WORDS];
                self.disk.read(file, 0, &mut header)?;
                if header != segment_header(file, geometry) {
                    return Err(damaged(file, 0, "the segment's header differs from what belongs there"));
                }
            }
            self.disk.map(file, self.range, geometry.place(file), geometry.segment_bytes)?;
        }
        Ok(kept)
    }
}

/// Writes the file of roots of an empty state, durable when this returns.
fn make(disk: &mut dyn Disk, files: &[u32], segment_bytes: u64) -> Result<(), StateError> {
    if !files.contains(&ROOTS) {
        disk.create(ROOTS, ROOTS_BYTES)?;
    }
    let slot = Slot { sequence: 1, ..Slot::default() };
    disk.write(ROOTS, slot_offset(0), &[&slot.encode()])?;
    disk.sync(ROOTS, SyncPoint::Tail)?;
    // Last, so that a superblock always has a slot behind it.
    disk.write(ROOTS, 0, &[&superblock(segment_bytes)])?;
    disk.sync(ROOTS, SyncPoint::Tail)?;
    disk.sync_directory(SyncPoint::Tail)
}

fn read_slot(disk: &mut dyn Disk, slot: usize) -> Result<Option<Slot>, StateError> {
    let mut words = vec![0; SLOT_WORDS];
    disk.read(ROOTS, slot_offset(slot), &mut words)?;
    Ok(Slot::decode(&words))
}

fn damaged(file: u32, offset: u64, what: &'static str) -> StateError {
    StateError::Damaged { file: FileName(file), offset, what }
}
