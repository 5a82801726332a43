//! What the state files need of a disk, and to know which sync each guarantee rests on.
//!
//! Two implementations: files in a directory (`file_disk.rs`), and a simulated disk that loses what was not synced (`testing/state_disk.rs`).
//! Files have numbers: 0 is the file of roots, the others are segments. Contents are words, little-endian.

use std::fmt;
use std::sync::Arc;

use crate::runtime::address_range::AddressRange;
use crate::state::StateError;

/// Unit of every write, so that no durable block is ever written again.
pub const BLOCK_WORDS: usize = 512;
pub const BLOCK_BYTES: u64 = 8 * BLOCK_WORDS as u64;

/// The file of the root slots.
pub const ROOTS: u32 = 0;

/// A sync that a guarantee rests on. The simulation runs with each of them left out, and must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncPoint {
    /// New nodes, before a slot names them.
    Data,
    /// A slot, before the other one is written over or anything is deleted that it names.
    Root,
    /// A new segment's directory entry, before a slot names a node in it.
    Directory,
    /// What a killed process may have left in caches, before the next one builds on it.
    Tail,
}

impl SyncPoint {
    pub const ALL: [Self; 4] = [Self::Data, Self::Root, Self::Directory, Self::Tail];
}

/// The files of one state. One thread writes segments, one syncs and writes slots, each by a handle of its own.
pub trait Disk: Send {
    /// The files that exist, in ascending order.
    ///
    /// # Errors
    /// `Io`.
    fn list(&mut self) -> Result<Vec<u32>, StateError>;

    /// Makes a file of `bytes` zeros. Its entry survives a power cut only after a sync of the directory.
    ///
    /// # Errors
    /// `Full` when the disk has no space (nothing is left behind), `Io`.
    fn create(&mut self, file: u32, bytes: u64) -> Result<(), StateError>;

    /// Writes words one behind the other, from `offset` bytes on; both are multiples of [`BLOCK_BYTES`]. Seen at once, not durable.
    ///
    /// # Errors
    /// `Io`, `Short`, `Full`: nobody knows what of it was written, so the file is not written any more.
    fn write(&mut self, file: u32, offset: u64, parts: &[&[u64]]) -> Result<(), StateError>;

    /// Reads words at `offset` bytes; those behind the end of the file are 0.
    ///
    /// # Errors
    /// `Io`.
    fn read(&mut self, file: u32, offset: u64, words: &mut [u64]) -> Result<(), StateError>;

    /// Makes everything written to a file by anyone durable.
    ///
    /// # Errors
    /// `Io`: never repeated.
    fn sync(&mut self, file: u32, point: SyncPoint) -> Result<(), StateError>;

    /// Makes the entries of all files durable.
    ///
    /// # Errors
    /// As [`Disk::sync`].
    fn sync_directory(&mut self, point: SyncPoint) -> Result<(), StateError>;

    /// Deletes a file. What is mapped of it stays readable.
    ///
    /// # Errors
    /// `Io`.
    fn remove(&mut self, file: u32) -> Result<(), StateError>;

    /// Maps a whole file of `bytes` at `at` in `range`; nothing is mapped there.
    ///
    /// # Errors
    /// `Io`; also when the file is not as long as that.
    fn map(&mut self, file: u32, range: &Arc<AddressRange>, at: usize, bytes: u64) -> Result<(), StateError>;

    /// A handle for another thread.
    fn handle(&self) -> Box<dyn Disk>;

    /// Prepares a file of `bytes` zeros for the next [`Disk::create`], if there is none; false: nothing was to be done.
    ///
    /// # Errors
    /// As [`Disk::create`].
    fn prepare(&mut self, bytes: u64) -> Result<bool, StateError>;
}

/// A file's name in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileName(pub u32);

impl fmt::Display for FileName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ROOTS => out.write_str("roots"),
            segment => write!(out, "segment-{segment:08}"),
        }
    }
}

impl FileName {
    /// The file that a name means, if it is just the name that we give.
    #[must_use]
    pub fn parse(name: &str) -> Option<u32> {
        let file = if name == "roots" { ROOTS } else { name.strip_prefix("segment-")?.parse().ok()? };
        (Self(file).to_string() == name).then_some(file)
    }
}
