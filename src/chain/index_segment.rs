//! A sealed, sorted, immutable part of the hash index: one file, read through a map.
//!
//! ```text
//! offset        bytes  field
//! 0             4      magic "IDXS"
//! 4             4      crc32c of bytes 8..64
//! 8             8      first byte of `headers` whose blocks are indexed here
//! 16            8      end of that range
//! 24            8      entry count
//! 32            8      page count p
//! 40            4      tier: how often merged
//! 44            4      crc32c of the fences
//! 48            16     zero; the rest of the first 4,096 bytes is unused
//! 4096          4096·p pages: up to 255 entries of 16 bytes (key, location), sorted; at 4080 entry count 4, page index 8, crc32c of 0..4092 4
//! 4096·(p+1)    8·p    fences: first key of each page
//! ```
//!
//! A page's checksum is checked when it is first used by this process; the fences are in memory, so a lookup touches one page.

#![allow(unsafe_code, reason = "opens a mapped file, STYLE section unsafe")]

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::ChainError;
use super::index::Entry;
use super::map::{AppendFile, FileView};
use super::record::{u32_at, u64_at};

const MAGIC: u32 = u32::from_le_bytes(*b"IDXS");
const PAGE_BYTES: usize = 4096;
const ENTRY_BYTES: usize = 16;
const ENTRIES_PER_PAGE: usize = 255;
const FOOTER_AT: usize = ENTRIES_PER_PAGE * ENTRY_BYTES;
const CRC_AT: usize = PAGE_BYTES - 4;
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// What the first page of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHead {
    /// Range of `headers` whose blocks are indexed.
    pub start: u64,
    pub end: u64,
    pub entry_count: u64,
    pub page_count: u64,
    pub tier: u32,
    fence_crc: u32,
}

/// An open segment.
pub(super) struct IndexSegment {
    pub head: SegmentHead,
    view: FileView,
    fences: Vec<u64>,
    /// One bit a page: its checksum has been checked.
    page_checked: Vec<AtomicU64>,
}

impl IndexSegment {
    /// Maps a sealed segment and checks its first page and fences.
    pub(super) fn open(path: &Path) -> Result<IndexSegment, ChainError> {
        // SAFETY: segments are written under a temporary name and never again after the rename; the directory's lock file
        // keeps other processes out.
        let file = unsafe { AppendFile::open(path.to_path_buf(), 0) }?;
        let view = file.view();
        let head = decode_head(view.bytes(0, PAGE_BYTES as u64)?).map_err(|what| ChainError::corrupt(path, 0, what))?;
        let fences_at = (head.page_count.saturating_add(1)).saturating_mul(PAGE_BYTES as u64);
        let fences = view.bytes(fences_at, head.page_count.saturating_mul(8))?;
        if crc32c::crc32c(fences) != head.fence_crc {
            return Err(ChainError::corrupt(path, fences_at, "checksum of index fences"));
        }
        let fences = fences.as_chunks::<8>().0.iter().map(|key| u64::from_le_bytes(*key)).collect();
        let page_checked = (0..head.page_count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(IndexSegment { head, view, fences, page_checked })
    }

    pub(super) fn path(&self) -> &Path {
        self.view.path()
    }

    /// Hands every location under `key` to `visit` until it answers true or fails. Answers whether it stopped.
    pub(super) fn visit(
        &self,
        key: u64,
        visit: &mut impl FnMut(u64) -> Result<bool, ChainError>,
    ) -> Result<bool, ChainError> {
        // The page before the first fence ≥ key may end with the key.
        let first_page = self.fences.partition_point(|fence| *fence < key).saturating_sub(1);
        for page_index in first_page..self.fences.len() {
            if self.fences[page_index] > key {
                break;
            }
            let entries = self.page(page_index)?;
            let first = entries.partition_point(|entry| u64_at(entry, 0) < key);
            for entry in &entries[first..] {
                if u64_at(entry, 0) != key {
                    return Ok(false);
                }
                if visit(u64_at(entry, 8))? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The entries of a page, checked.
    fn page(&self, page_index: usize) -> Result<&[[u8; ENTRY_BYTES]], ChainError> {
        let offset = (page_index as u64 + 1) * PAGE_BYTES as u64;
        let page = self.view.bytes(offset, PAGE_BYTES as u64)?;
        let checked = &self.page_checked[page_index / 64];
        let bit = 1 << (page_index % 64);
        // ORDERING: Relaxed; the bit says something about bytes that never change.
        if checked.load(Ordering::Relaxed) & bit == 0 {
            let holds = crc32c::crc32c(&page[..CRC_AT]) == u32_at(page, CRC_AT)
                && u64_at(page, FOOTER_AT + 4) == page_index as u64
                && u32_at(page, FOOTER_AT) as usize <= ENTRIES_PER_PAGE;
            if !holds {
                return Err(ChainError::corrupt(self.view.path(), offset, "checksum of index page"));
            }
            checked.fetch_or(bit, Ordering::Relaxed);
        }
        let entry_count = u32_at(page, FOOTER_AT) as usize;
        Ok(&page.as_chunks::<ENTRY_BYTES>().0[..entry_count])
    }
}

/// Walks a segment in order, for merging.
pub(super) struct SegmentCursor<'a> {
    segment: &'a IndexSegment,
    page_index: usize,
    entries: &'a [[u8; ENTRY_BYTES]],
}

impl<'a> SegmentCursor<'a> {
    pub(super) fn new(segment: &'a IndexSegment) -> SegmentCursor<'a> {
        SegmentCursor { segment, page_index: 0, entries: &[] }
    }

    pub(super) fn next(&mut self) -> Result<Option<Entry>, ChainError> {
        while self.entries.is_empty() {
            if self.page_index == self.segment.fences.len() {
                return Ok(None);
            }
            self.entries = self.segment.page(self.page_index)?;
            self.page_index += 1;
        }
        let (entry, rest) = self.entries.split_first().expect("loop above ends with an entry");
        self.entries = rest;
        Ok(Some(Entry { key: u64_at(entry, 0), location: u64_at(entry, 8) }))
    }
}

/// Writes a segment in ascending order of entries. Nothing is visible under the final name before [`SegmentWriter::finish`].
pub(super) struct SegmentWriter {
    file: BufWriter<File>,
    temporary: PathBuf,
    page: [u8; PAGE_BYTES],
    page_entries: usize,
    head: SegmentHead,
    fences: Vec<u64>,
}

impl SegmentWriter {
    pub(super) fn new(dir: &Path, start: u64, end: u64, tier: u32) -> Result<SegmentWriter, ChainError> {
        SegmentWriter::under(dir.join("index.tmp"), start, end, tier)
    }

    /// As [`SegmentWriter::new`], under a temporary name of the caller's, for another thread than the index worker.
    pub(super) fn under(temporary: PathBuf, start: u64, end: u64, tier: u32) -> Result<SegmentWriter, ChainError> {
        let file = File::create(&temporary).map_err(|error| ChainError::io("create", &temporary, &error))?;
        let mut writer = SegmentWriter {
            file: BufWriter::with_capacity(WRITE_BUFFER_BYTES, file),
            temporary,
            page: [0; PAGE_BYTES],
            page_entries: 0,
            head: SegmentHead { start, end, entry_count: 0, page_count: 0, tier, fence_crc: 0 },
            fences: Vec::new(),
        };
        writer.write(&[0; PAGE_BYTES])?;
        Ok(writer)
    }

    /// Adds an entry, not smaller than the one before. Answers whether a page was filled by it.
    pub(super) fn push(&mut self, entry: Entry) -> Result<bool, ChainError> {
        if self.page_entries == 0 {
            self.fences.push(entry.key);
        }
        let at = self.page_entries * ENTRY_BYTES;
        self.page[at..at + 8].copy_from_slice(&entry.key.to_le_bytes());
        self.page[at + 8..at + 16].copy_from_slice(&entry.location.to_le_bytes());
        self.page_entries += 1;
        self.head.entry_count += 1;
        if self.page_entries < ENTRIES_PER_PAGE {
            return Ok(false);
        }
        self.flush_page()?;
        Ok(true)
    }

    /// Writes what remains, syncs, and gives the file its name.
    pub(super) fn finish(self, path: &Path) -> Result<(), ChainError> {
        let (file, temporary) = self.complete()?;
        file.sync_data().map_err(|error| ChainError::io("sync", &temporary, &error))?;
        rename(&temporary, path)?;
        sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    /// As [`SegmentWriter::finish`] for a file that is not needed after a power cut.
    pub(super) fn finish_unsynced(self, path: &Path) -> Result<(), ChainError> {
        let (_, temporary) = self.complete()?;
        rename(&temporary, path)
    }

    fn complete(mut self) -> Result<(File, PathBuf), ChainError> {
        if self.page_entries > 0 {
            self.flush_page()?;
        }
        let fences: Vec<u8> = self.fences.iter().flat_map(|key| key.to_le_bytes()).collect();
        self.head.fence_crc = crc32c::crc32c(&fences);
        self.write(&fences)?;
        let SegmentWriter { file, temporary, head, .. } = self;
        let fail = |error: &std::io::Error| ChainError::io("write", &temporary, error);
        let file = file.into_inner().map_err(|error| fail(error.error()))?;
        file.write_all_at(&encode_head(&head), 0).map_err(|error| fail(&error))?;
        Ok((file, temporary))
    }

    fn flush_page(&mut self) -> Result<(), ChainError> {
        self.page[self.page_entries * ENTRY_BYTES..FOOTER_AT].fill(0);
        self.page[FOOTER_AT..FOOTER_AT + 4].copy_from_slice(&(self.page_entries as u32).to_le_bytes()); // ≤ 255
        self.page[FOOTER_AT + 4..CRC_AT].copy_from_slice(&self.head.page_count.to_le_bytes());
        let crc = crc32c::crc32c(&self.page[..CRC_AT]);
        self.page[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        self.page_entries = 0;
        self.head.page_count += 1;
        let page = self.page;
        self.write(&page)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ChainError> {
        self.file.write_all(bytes).map_err(|error| ChainError::io("write", &self.temporary, &error))
    }
}

fn rename(temporary: &Path, path: &Path) -> Result<(), ChainError> {
    std::fs::rename(temporary, path).map_err(|error| ChainError::io("rename", temporary, &error))
}

/// Makes renames and removals in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), ChainError> {
    let handle = File::open(dir).map_err(|error| ChainError::io("open", dir, &error))?;
    handle.sync_all().map_err(|error| ChainError::io("sync", dir, &error))
}

fn encode_head(head: &SegmentHead) -> [u8; 64] {
    let mut out = [0; 64];
    out[..4].copy_from_slice(&MAGIC.to_le_bytes());
    out[8..16].copy_from_slice(&head.start.to_le_bytes());
    out[16..24].copy_from_slice(&head.end.to_le_bytes());
    out[24..32].copy_from_slice(&head.entry_count.to_le_bytes());
    out[32..40].copy_from_slice(&head.page_count.to_le_bytes());
    out[40..44].copy_from_slice(&head.tier.to_le_bytes());
    out[44..48].copy_from_slice(&head.fence_crc.to_le_bytes());
    let crc = crc32c::crc32c(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode_head(bytes: &[u8]) -> Result<SegmentHead, &'static str> {
    if u32_at(bytes, 0) != MAGIC {
        return Err("not an index segment");
    }
    if crc32c::crc32c(&bytes[8..64]) != u32_at(bytes, 4) {
        return Err("checksum of index segment");
    }
    Ok(SegmentHead {
        start: u64_at(bytes, 8),
        end: u64_at(bytes, 16),
        entry_count: u64_at(bytes, 24),
        page_count: u64_at(bytes, 32),
        tier: u32_at(bytes, 40),
        fence_crc: u32_at(bytes, 44),
    })
}
