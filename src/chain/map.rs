//! Append-only files that are written with `pwrite` and read through a map larger than the file.
//!
//! Writer (one thread) → [`AppendFile`]; readers (any thread) → [`FileView`], which is a map and a length. Bytes below a view's
//! length were written before the view was published and are never written again while the process lives, so a slice of them
//! is an ordinary shared slice. The two files of fixed-size slots (offsets, blooms) are overwritten after a rollback;
//! they are read only word by word with [`FileView::word`]. Nothing is ever written through a map: a full disk is an error, not a signal.
#![allow(unsafe_code, reason = "memory-mapped files, STYLE section unsafe")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use super::error::ChainError;

/// Alignment of every record, so that words of the slot files can be read atomically.
pub(super) const RECORD_ALIGN_BYTES: u64 = 8;

/// A read-only map of a window of `raw.len()` bytes, which may end after the file does.
struct Map {
    raw: MmapRaw,
}

/// One mapped file with one writer.
pub(super) struct AppendFile {
    path: Arc<PathBuf>,
    file: Arc<File>,
    map: Arc<Map>,
    len: u64,
}

/// The first `len` bytes of a file as they were when the view was made.
#[derive(Clone)]
pub(super) struct FileView {
    path: Arc<PathBuf>,
    file: Arc<File>,
    map: Arc<Map>,
    len: u64,
}

impl AppendFile {
    /// Opens or creates a file and maps at least `window_bytes` of address space on it.
    ///
    /// Errors: `Io` when the file cannot be opened or mapped.
    ///
    /// # Safety
    /// Until the last view of this file is gone, nothing else writes to the file and nothing truncates it (other than
    /// [`AppendFile::cut`] on this value). The database's lock file upholds this between processes.
    pub(super) unsafe fn open(path: PathBuf, window_bytes: u64) -> Result<AppendFile, ChainError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| ChainError::io("open", &path, &error))?;
        let len = file.metadata().map_err(|error| ChainError::io("stat", &path, &error))?.len();
        let map = Arc::new(Map::new(&file, &path, len.max(window_bytes))?);
        Ok(AppendFile { path: Arc::new(path), file: Arc::new(file), map, len })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// What readers may see of the file now.
    pub(super) fn view(&self) -> FileView {
        FileView { path: self.path.clone(), file: self.file.clone(), map: self.map.clone(), len: self.len }
    }

    /// Writes `bytes` at `offset ≥ len`; they become part of the file with [`AppendFile::extend_to`].
    pub(super) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ChainError> {
        assert!(offset >= self.len, "bytes below the tail never change");
        self.write_unchecked(offset, bytes)
    }

    /// Writes a slot of a slot file, at any offset.
    pub(super) fn write_slot(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ChainError> {
        self.write_unchecked(offset, bytes)
    }

    fn write_unchecked(&self, offset: u64, bytes: &[u8]) -> Result<(), ChainError> {
        self.file.write_all_at(bytes, offset).map_err(|error| ChainError::io("write", &self.path, &error))
    }

    /// Maps enough for a tail at `len`. Views keep the old map alive; doubling bounds how many there are.
    pub(super) fn reserve(&mut self, len: u64) -> Result<(), ChainError> {
        if len > self.map.raw.len() as u64 {
            self.map = Arc::new(Map::new(&self.file, &self.path, len.saturating_mul(2))?);
        }
        Ok(())
    }

    /// Moves the tail up to `len`, below which everything has been written and mapped.
    pub(super) fn extend_to(&mut self, len: u64) {
        assert!(len >= self.len, "the tail only moves up");
        self.set_slot_len(len);
    }

    /// Moves the tail of a slot file to `len`, down as well as up: its views read words, not slices.
    pub(super) fn set_slot_len(&mut self, len: u64) {
        assert!(len <= self.map.raw.len() as u64, "caller reserved the map");
        self.len = len;
    }

    /// Cuts the file off at `len`. Only at open, before any view has been handed to a reader.
    pub(super) fn cut(&mut self, len: u64) -> Result<(), ChainError> {
        self.file.set_len(len).map_err(|error| ChainError::io("truncate", &self.path, &error))?;
        self.reserve(len)?;
        self.len = len;
        Ok(())
    }
}

impl FileView {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The bytes `offset..offset + len`. Not for slot files.
    ///
    /// Errors: `Corrupt` when they end after the view does: the length came from a damaged record.
    pub(super) fn bytes(&self, offset: u64, len: u64) -> Result<&[u8], ChainError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.map.slice(offset, len)),
            _ => Err(ChainError::corrupt(&self.path, offset, "record ends after the file")),
        }
    }

    /// One word of a slot file. `offset` is aligned and `offset + 8 ≤ len`.
    pub(super) fn word(&self, offset: u64) -> u64 {
        assert!(offset.is_multiple_of(RECORD_ALIGN_BYTES), "slots are aligned");
        assert!(offset + 8 <= self.len, "slot below the tail");
        self.map.word(offset)
    }

    /// Makes the file's data durable, whatever its length is now.
    pub(super) fn sync(&self) -> Result<(), ChainError> {
        self.file.sync_data().map_err(|error| ChainError::io("sync", &self.path, &error))
    }
}

impl Map {
    fn new(file: &File, path: &Path, window_bytes: u64) -> Result<Map, ChainError> {
        let len = usize::try_from(window_bytes.max(4096)).unwrap_or(usize::MAX);
        let raw =
            MmapOptions::new().len(len).map_raw_read_only(file).map_err(|error| ChainError::io("map", path, &error))?;
        Ok(Map { raw })
    }

    fn slice(&self, offset: u64, len: u64) -> &[u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.raw.len() as u64), "slice inside the map");
        // SAFETY: `offset` is inside the map, asserted above.
        let start = unsafe { self.raw.as_ptr().add(offset as usize) };
        // SAFETY: the range is inside the map; the caller (`FileView::bytes`) keeps it below a published tail, where
        // `AppendFile::write_at` never writes again and, by the contract of `AppendFile::open`, nobody else does; the file is
        // longer than the range, so no access faults. ORDERING: the view was loaded with Acquire from the arc-swap in
        // `Shared`, which pairs with the writer's store after its `pwrite`.
        unsafe { std::slice::from_raw_parts(start, len as usize) }
    }

    fn word(&self, offset: u64) -> u64 {
        assert!(offset + 8 <= self.raw.len() as u64, "word inside the map");
        // SAFETY: `offset` is inside the map, asserted above.
        let start = unsafe { self.raw.as_ptr().add(offset as usize) };
        // SAFETY: aligned (maps start at a page, `FileView::word` asserts the offset), inside the map, and this process
        // touches these bytes only with atomic loads; the kernel's writes to them are caught by the slot's checksum or the
        // rollback counter, see `reader.rs`.
        let word = unsafe { AtomicU64::from_ptr(start.cast_mut().cast()) };
        // ORDERING: Relaxed; the view was loaded with Acquire, and a racing rollback is detected afterwards.
        word.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use super::*;
    use crate::chain::test_dir::TestDir;

    #[test]
    fn views_keep_their_length_and_map_while_the_file_grows() {
        let dir = TestDir::new("map");
        // SAFETY: the directory is this test's own.
        let mut file = unsafe { AppendFile::open(dir.path().join("f"), 4096) }.unwrap();
        let mut expected = Vec::new();
        let mut views = vec![file.view()];
        for round in 0..200_u64 {
            let bytes = vec![round as u8; 1 + (round as usize * 37) % 400];
            file.write_at(file.len(), &bytes).unwrap();
            let len = file.len() + bytes.len() as u64;
            file.reserve(len).unwrap();
            file.extend_to(len);
            expected.extend_from_slice(&bytes);
            views.push(file.view());
        }
        for view in &views {
            assert_eq!(view.bytes(0, view.len()).unwrap(), &expected[..view.len() as usize]);
            assert!(view.bytes(1, view.len()).is_err());
            assert!(view.bytes(u64::MAX, 2).is_err());
        }
        let view = file.view();
        for offset in (0..view.len() - 8).step_by(8) {
            let word = u64::from_ne_bytes(expected[offset as usize..offset as usize + 8].try_into().unwrap());
            assert_eq!(view.word(offset), word);
        }
    }
}
