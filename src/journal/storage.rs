//! What the journal needs of a disk: slots of fixed size, aligned durable writes, and to know which sync each guarantee rests on.
//!
//! Two implementations: files (`file_storage.rs`), and a simulated disk that loses what was not synced
//! (`testing/disk.rs`). A slot holds one segment at a time; which one is said by the segment header, not by the slot's number.

use std::ops::Deref;

/// Unit of every write: offsets, lengths and buffers are multiples of it, so that `O_DIRECT` works and durable sectors are never rewritten.
pub const BLOCK_BYTES: usize = 4_096;

/// A sync that a guarantee rests on. The simulation runs with each of them left out, and must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SyncPoint {
    /// A group, before anything in it is acknowledged.
    Group,
    /// A segment's header, before the first group behind it.
    Header,
    /// A new slot's directory entry, before its header is written.
    Directory,
    /// What a killed process may have left in caches, before the next one builds on it.
    Tail,
    /// Likewise the directory entry of a slot that it was making.
    DirectoryTail,
}

/// What went wrong with a file. Text fields name the file as its owner knows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    #[error("{op} {file} at {offset}, {bytes} bytes: {what}")]
    Io { op: &'static str, file: String, offset: u64, bytes: u64, what: String },
    #[error("write {file} at {offset}: {written} of {wanted} bytes were written")]
    Short { file: String, offset: u64, wanted: u64, written: u64 },
    /// The only fault that may pass: no space for another slot.
    #[error("no space for {file}, {bytes} bytes")]
    Full { file: String, bytes: u64 },
    #[error("{dir} is in use by another process")]
    Locked { dir: String },
    /// Only where `journal.engine` asks for it; the ingress shards stand on io_uring too.
    #[error(
        "io_uring cannot be used: {what}; Linux 5.8 or newer is needed, and nothing that forbids it (seccomp, kernel.io_uring_disabled)"
    )]
    Unavailable { what: String },
    /// The simulated machine stopped here.
    #[error("the simulated machine stopped")]
    Crashed,
}

/// Slots of one journal. One writer; `create` may be called from another thread through a handle of its own.
pub trait Storage {
    /// The bytes of a slot as they were when it was read.
    type Bytes: Deref<Target = [u8]>;

    /// The slots that exist, in ascending order.
    ///
    /// # Errors
    /// `Io`.
    fn slots(&mut self) -> Result<Vec<u32>, StorageError>;

    /// Makes a slot of `bytes` zeros. When it returns, the slot survives a power cut (`SyncPoint::Directory`).
    ///
    /// # Errors
    /// `Full` when the disk has no space (nothing is left behind), `Io`.
    fn create(&mut self, slot: u32, bytes: u64) -> Result<(), StorageError>;

    /// All bytes of a slot.
    ///
    /// # Errors
    /// `Io`.
    fn read(&mut self, slot: u32) -> Result<Self::Bytes, StorageError>;

    /// Writes `bytes` (a multiple of [`BLOCK_BYTES`], aligned to it in memory) at `offset` (likewise). Durable when it returns.
    ///
    /// # Errors
    /// `Io`, `Short`: nobody knows what of it is on the disk, so the process must stop; never repeated.
    fn write(&mut self, slot: u32, offset: u64, bytes: &[u8], point: SyncPoint) -> Result<(), StorageError>;

    /// Makes the entries of all slots durable.
    ///
    /// # Errors
    /// As [`Storage::write`].
    fn sync_directory(&mut self, point: SyncPoint) -> Result<(), StorageError>;

    /// Makes everything written to a slot by anyone durable.
    ///
    /// # Errors
    /// As [`Storage::write`].
    fn sync(&mut self, slot: u32, point: SyncPoint) -> Result<(), StorageError>;
}
