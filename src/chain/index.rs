//! Hash index: transaction hash or block hash → where to look. Newest entries in a table, older ones in sealed segments.
//!
//! An entry is the first eight bytes of a hash and a location; lookups yield candidates, newest first, and the caller compares the
//! whole hash with the block itself. The index worker thread (see `driver.rs`) seals full tables and merges segments: six of a tier become
//! one of the next, so a hash is rewritten once per factor of six and a lookup asks at most five segments a tier.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use super::error::ChainError;
use super::index_segment::{IndexSegment, SegmentCursor, SegmentWriter, sync_dir};
use super::index_table::IndexTable;
use crate::primitives::B256;

/// Segments of one tier that are merged into one of the next.
const MERGE_FANOUT: usize = 6;

/// Transaction index that stands for the block itself.
const BLOCK_ITSELF: u64 = (1 << 24) - 1;

/// A block has fewer transactions than this: the index of a transaction has 24 bits.
pub(super) const TXS_PER_BLOCK_MAX: usize = BLOCK_ITSELF as usize;

/// A block number has 40 bits in a location.
pub(super) const BLOCK_COUNT_MAX: u64 = (1 << 40) - 1;

/// A key and where it may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub key: u64,
    pub location: u64,
}

/// What a location means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    Block { number: u64 },
    Transaction { number: u64, index: u32 },
}

/// Everything the index holds at a moment.
pub(super) struct IndexView {
    pub active: Arc<IndexTable>,
    /// Full tables that are not on disk yet, oldest first.
    pub frozen: Vec<Arc<IndexTable>>,
    /// Oldest first; their ranges follow each other from 0.
    pub segments: Vec<Arc<IndexSegment>>,
}

/// The index as readers, the chain thread and the index worker share it.
pub(super) struct Index {
    dir: PathBuf,
    view: ArcSwap<IndexView>,
    /// Taken by the chain thread when a table is full and by the worker when a segment is ready; never by readers.
    update: Mutex<()>,
    /// An empty table, made by the worker so that the chain thread need not touch so much new memory at once.
    spare: Mutex<Option<Arc<IndexTable>>>,
    table_entries: usize,
}

impl Location {
    pub(super) fn encode(self) -> u64 {
        match self {
            Location::Block { number } => number << 24 | BLOCK_ITSELF,
            Location::Transaction { number, index } => number << 24 | u64::from(index),
        }
    }

    pub(super) fn decode(location: u64) -> Location {
        let number = location >> 24;
        match location & BLOCK_ITSELF {
            BLOCK_ITSELF => Location::Block { number },
            index => Location::Transaction { number, index: index as u32 }, // < 2^24
        }
    }
}

/// The part of a hash that the index stores.
pub(super) fn key_of(hash: &B256) -> u64 {
    let mut key = [0; 8];
    key.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(key)
}

impl Index {
    /// Opens the sealed segments of a directory and answers up to where `headers` is indexed by them.
    ///
    /// Errors: `Corrupt` for a damaged segment or a gap between two.
    pub(super) fn open(dir: &Path, table_entries: usize, headers_bytes: u64) -> Result<(Index, u64), ChainError> {
        let segments = open_segments(dir, headers_bytes)?;
        let end = segments.last().map_or(0, |segment| segment.head.end);
        let view = IndexView { active: Arc::new(IndexTable::new(table_entries)), frozen: Vec::new(), segments };
        let index = Index {
            dir: dir.to_path_buf(),
            view: ArcSwap::from_pointee(view),
            update: Mutex::new(()),
            spare: Mutex::new(None),
            table_entries,
        };
        Ok((index, end))
    }

    /// Hands every candidate for `hash` to `visit`, newest first, until it answers true or fails.
    pub(super) fn visit(
        &self,
        hash: &B256,
        mut visit: impl FnMut(Location) -> Result<bool, ChainError>,
    ) -> Result<(), ChainError> {
        let key = key_of(hash);
        let view = self.view.load();
        let mut visit = |location| visit(Location::decode(location));
        let tables = std::iter::once(&view.active).chain(view.frozen.iter().rev());
        for table in tables {
            if table.visit(key, &mut visit)? {
                return Ok(());
            }
        }
        for segment in view.segments.iter().rev() {
            if segment.visit(key, &mut visit)? {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) fn active(&self) -> Arc<IndexTable> {
        self.view.load().active.clone()
    }

    #[cfg(test)]
    pub(super) fn segment_tiers(&self) -> Vec<u32> {
        self.view.load().segments.iter().map(|segment| segment.head.tier).collect()
    }

    #[cfg(test)]
    pub(super) fn frozen_count(&self) -> usize {
        self.view.load().frozen.len()
    }

    /// Puts an empty table in place of the active one and answers that one, unless it was empty: too small for a large block.
    ///
    /// Runs on: chain thread. The next table has room for `entry_count`.
    pub(super) fn rotate(&self, entry_count: usize) -> Option<Arc<IndexTable>> {
        let spare = self.spare().take().filter(|spare| spare.has_room_for(entry_count));
        let next = spare.unwrap_or_else(|| Arc::new(IndexTable::new(self.table_entries.max(entry_count))));
        let full = Some(self.active()).filter(|active| active.len() > 0);
        let frozen = full.clone();
        self.change(|view| {
            view.frozen.extend(frozen);
            view.active = next;
        });
        full
    }

    /// Writes a full table as a segment and shows it instead of the table.
    ///
    /// Runs on: index worker. `start..end` of `headers` has been synced before.
    pub(super) fn seal(&self, table: &Arc<IndexTable>, start: u64, end: u64) -> Result<(), ChainError> {
        let path = segment_path(&self.dir, start, end);
        let mut writer = SegmentWriter::new(&self.dir, start, end, 0)?;
        table.visit_sorted(|entry| writer.push(entry).map(drop))?;
        writer.finish(&path)?;
        let segment = Arc::new(IndexSegment::open(&path)?);
        self.change(|view| {
            view.frozen.retain(|other| !Arc::ptr_eq(other, table));
            view.segments.push(segment);
        });
        Ok(())
    }

    /// Merges six segments of a tier, if there are, and answers whether it did. Gives up between pages when `stop` is set.
    ///
    /// Runs on: index worker.
    pub(super) fn merge_once(&self, stop: &AtomicBool) -> Result<bool, ChainError> {
        let Some(inputs) = self.merge_candidates() else { return Ok(false) };
        let (start, end) = (inputs[0].head.start, inputs[MERGE_FANOUT - 1].head.end);
        let path = segment_path(&self.dir, start, end);
        let mut writer = SegmentWriter::new(&self.dir, start, end, inputs[0].head.tier + 1)?;
        if !merge_into(&inputs, &mut writer, stop)? {
            return Ok(false);
        }
        writer.finish(&path)?;
        let merged = Arc::new(IndexSegment::open(&path)?);
        self.change(|view| {
            let at = view.segments.partition_point(|segment| segment.head.start < start);
            view.segments.splice(at..at + MERGE_FANOUT, [merged]);
        });
        for input in inputs {
            // Readers that still hold the map keep reading it; the name is no longer needed.
            let path = input.path();
            std::fs::remove_file(path).map_err(|error| ChainError::io("remove", path, &error))?;
        }
        Ok(true)
    }

    /// Makes the next table ready. Runs on: index worker.
    pub(super) fn prepare_spare(&self) {
        if self.spare().is_none() {
            let table = Arc::new(IndexTable::new(self.table_entries));
            *self.spare() = Some(table);
        }
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Option<Arc<IndexTable>>> {
        self.spare.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn merge_candidates(&self) -> Option<Vec<Arc<IndexSegment>>> {
        let view = self.view.load();
        let same_tier = |a: &Arc<IndexSegment>, b: &Arc<IndexSegment>| a.head.tier == b.head.tier;
        let mut runs = view.segments.chunk_by(same_tier);
        // The newest run is the lowest tier.
        runs.rfind(|run| run.len() >= MERGE_FANOUT).map(|run| run[..MERGE_FANOUT].to_vec())
    }

    fn change(&self, change: impl FnOnce(&mut IndexView)) {
        let _guard = self.update.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let old = self.view.load();
        let mut next =
            IndexView { active: old.active.clone(), frozen: old.frozen.clone(), segments: old.segments.clone() };
        change(&mut next);
        self.view.store(Arc::new(next));
    }
}

/// Merges sorted segments into one. Answers false when `stop` was set first.
fn merge_into(inputs: &[Arc<IndexSegment>], writer: &mut SegmentWriter, stop: &AtomicBool) -> Result<bool, ChainError> {
    let mut cursors: Vec<SegmentCursor> = inputs.iter().map(|input| SegmentCursor::new(input)).collect();
    let mut heads = Vec::with_capacity(cursors.len());
    for cursor in &mut cursors {
        heads.push(cursor.next()?);
    }
    let mut last = None;
    loop {
        let smallest = heads.iter().enumerate().filter_map(|(at, head)| head.map(|entry| (entry, at))).min();
        let Some((entry, at)) = smallest else { return Ok(true) };
        heads[at] = cursors[at].next()?;
        // A rolled-back block that came again at the same place leaves equal entries.
        if last.replace(entry) == Some(entry) {
            continue;
        }
        // ORDERING: Relaxed; only asks to give up early.
        if writer.push(entry)? && stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
    }
}

fn segment_path(dir: &Path, start: u64, end: u64) -> PathBuf {
    dir.join(format!("index-{start:016x}-{end:016x}"))
}

/// Opens what a directory holds, drops what a crash left behind, and checks that nothing is missing in between.
fn open_segments(dir: &Path, headers_bytes: u64) -> Result<Vec<Arc<IndexSegment>>, ChainError> {
    let mut segments = Vec::new();
    let listing = std::fs::read_dir(dir).map_err(|error| ChainError::io("list", dir, &error))?;
    for file in listing {
        let file = file.map_err(|error| ChainError::io("list", dir, &error))?;
        let name = file.file_name();
        if name.to_string_lossy().starts_with("index-") {
            segments.push(Arc::new(IndexSegment::open(&file.path())?));
        }
    }
    // Of two that start together the longer one is the merged one.
    segments.sort_by_key(|segment| (segment.head.start, std::cmp::Reverse(segment.head.end)));
    let mut kept: Vec<Arc<IndexSegment>> = Vec::new();
    let mut removed = false;
    for segment in segments {
        let covered = kept.last().map_or(0, |last| last.head.end);
        if segment.head.end <= covered && segment.head.end > segment.head.start {
            let path = segment.path();
            std::fs::remove_file(path).map_err(|error| ChainError::io("remove", path, &error))?;
            removed = true;
            continue;
        }
        if segment.head.start != covered {
            return Err(ChainError::corrupt(segment.path(), 8, "index segments do not follow each other"));
        }
        if segment.head.end > headers_bytes {
            return Err(ChainError::corrupt(segment.path(), 16, "index segment is newer than the headers"));
        }
        kept.push(segment);
    }
    if removed {
        sync_dir(dir)?;
    }
    Ok(kept)
}
