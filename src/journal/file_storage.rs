#![allow(unsafe_code, reason = "opens maps of slots, STYLE section unsafe")]
//! The journal's slots as files: `slot-0000`, `slot-0001`, … in one directory, held by the lock file `LOCK`.
//!
//! Writes pass by the page cache (`O_DIRECT`) and carry their own flush (`RWF_DSYNC`), into files that were written with zeros before: a
//! write then changes no metadata, and is one command and one flush of the disk. What the file system refuses of that is found out at the open
//! by writing a block, and done in a slower way; [`FileStorage::mode_name`] says which.
//!
//! By default a write is one `pwritev2`, not an io_uring entry ([`WriteEngine`]): the thread has nothing to do meanwhile, and on a disk without FUA the
//! kernel ends an asynchronous durable write on a worker of ordinary priority and of one core; where that core computes, the write takes until
//! the scheduler's next tick.
//!
//! Owner: the start until the log is read, then the journal thread. [`SlotCreator`] is for the thread that makes slots.
//! Files: `slot-NNNN` (never deleted here), `slot-NNNN.new` (unfinished, deleted at the next open), `PROBE` (likewise), `LOCK`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use memmap2::{Advice, Mmap};

use super::storage::{BLOCK_BYTES, Storage, StorageError, SyncPoint};
use super::uring::Uring;
use crate::limits::{JOURNAL_ZEROS_BYTES, JOURNAL_ZEROS_PAUSE_NS_MAX};
use crate::runtime::{clock, file};

/// Whether what is written survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    Always,
    /// For tests and measurements: writes reach the page cache, no more.
    Off,
}

/// Which call writes a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteEngine {
    /// Ends in the calling thread, whatever else the cores do.
    Pwritev2,
    /// For disks with FUA, where the kernel needs no worker to end a durable write.
    IoUring,
}

/// How a write is made, as far as the file system allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WriteMode {
    is_direct: bool,
    durability: Durability,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    /// `RWF_DSYNC` on the write.
    Flag,
    /// A call of its own after the write.
    Fdatasync,
    None,
}

/// Slots in a directory. See the module's text.
pub struct FileStorage {
    dir: Arc<Path>,
    mode: WriteMode,
    /// With [`WriteEngine::IoUring`].
    ring: Option<Uring>,
    slots: BTreeMap<u32, Slot>,
    _lock: File,
}

/// What is open of a slot.
#[derive(Default)]
struct Slot {
    /// With its length.
    file: Option<(File, u64)>,
    map: Weak<Mmap>,
}

/// Makes slots while another thread writes to those that exist.
pub struct SlotCreator {
    dir: Arc<Path>,
    mode: WriteMode,
}

/// The bytes of a slot. The slot is not written while they live.
#[derive(Clone)]
pub struct SlotBytes(Arc<Mmap>);

impl Deref for SlotBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl FileStorage {
    /// Opens or creates a directory of slots and takes its lock.
    ///
    /// Runs on: any thread; writes one block to find out how. Must not be called before the process has its final user and limits.
    ///
    /// # Errors
    /// `Locked`, `Unavailable` (no io_uring), `Io`.
    pub fn open(dir: &Path, sync: SyncMode, engine: WriteEngine) -> Result<Self, StorageError> {
        create_dirs(dir, sync)?;
        let lock = lock(dir)?;
        remove_unfinished(dir)?;
        let mut ring = match engine {
            WriteEngine::Pwritev2 => None,
            WriteEngine::IoUring => {
                Some(Uring::new().map_err(|error| StorageError::Unavailable { what: error.to_string() })?)
            }
        };
        let mode = probe(dir, sync, &mut ring)?;
        Ok(Self { dir: dir.into(), mode, ring, slots: BTreeMap::new(), _lock: lock })
    }

    /// How groups are written here, for a log line at the start.
    #[must_use]
    pub fn mode_name(&self) -> &'static str {
        match (self.mode.is_direct, self.mode.durability) {
            (true, Durability::Flag) => "O_DIRECT, RWF_DSYNC",
            (true, Durability::Fdatasync) => "O_DIRECT, fdatasync",
            (true, Durability::None) => "O_DIRECT, not durable",
            (false, Durability::Flag) => "buffered, RWF_DSYNC",
            (false, Durability::Fdatasync) => "buffered, fdatasync",
            (false, Durability::None) => "buffered, not durable",
        }
    }

    /// A handle with which another thread makes slots.
    #[must_use]
    pub fn creator(&self) -> SlotCreator {
        SlotCreator { dir: Arc::clone(&self.dir), mode: self.mode }
    }
}

impl Storage for FileStorage {
    type Bytes = SlotBytes;

    fn slots(&mut self) -> Result<Vec<u32>, StorageError> {
        let mut slots = Vec::new();
        for name in names(&self.dir)? {
            slots.extend(slot_of(&name));
        }
        slots.sort_unstable();
        Ok(slots)
    }

    fn create(&mut self, slot: u32, bytes: u64) -> Result<(), StorageError> {
        self.creator().make(slot, bytes, Pace::Alone)
    }

    fn read(&mut self, slot: u32) -> Result<SlotBytes, StorageError> {
        let path = slot_path(&self.dir, slot);
        let file = File::open(&path).map_err(|error| fault("open", &path, &error))?;
        warm(&file, &path)?;
        // SAFETY: this process writes slots only in `write`, which refuses while the map is alive; `create` never touches an existing
        // slot, and nothing here truncates one. Other processes are kept away by the lock file.
        let map = unsafe { Mmap::map(&file) };
        let map = Arc::new(map.map_err(|error| fault("map", &path, &error))?);
        // Only a hint: what it changes is speed.
        let _ = map.advise(Advice::Sequential);
        self.slots.entry(slot).or_default().map = Arc::downgrade(&map);
        Ok(SlotBytes(map))
    }

    fn write(&mut self, slot: u32, offset: u64, bytes: &[u8], _: SyncPoint) -> Result<(), StorageError> {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "writes start at a block");
        assert!(bytes.len().is_multiple_of(BLOCK_BYTES), "writes are whole blocks");
        assert!(bytes.as_ptr().addr().is_multiple_of(BLOCK_BYTES), "the buffer is aligned to a block");
        let Self { dir, mode, ring, slots, .. } = self;
        let entry = slots.entry(slot).or_default();
        assert!(entry.map.strong_count() == 0, "a slot is not written while its bytes are read");
        let (file, slot_bytes) = entry.open(dir, slot, *mode)?;
        assert!(offset + bytes.len() as u64 <= *slot_bytes, "slots never grow");
        write_once(ring, file, *mode, offset, bytes).map_err(|error| match error {
            WriteFault::Kernel(op, error) => io_error(op, &slot_path(dir, slot), offset, bytes.len() as u64, &error),
            WriteFault::Short(written) => StorageError::Short {
                file: slot_path(dir, slot).display().to_string(),
                offset,
                wanted: bytes.len() as u64,
                written,
            },
        })
    }

    fn sync_directory(&mut self, _: SyncPoint) -> Result<(), StorageError> {
        if self.mode.durability == Durability::None { Ok(()) } else { sync_dir(&self.dir) }
    }

    fn sync(&mut self, slot: u32, _: SyncPoint) -> Result<(), StorageError> {
        if self.mode.durability == Durability::None {
            return Ok(());
        }
        let (file, _) = self.slots.entry(slot).or_default().open(&self.dir, slot, self.mode)?;
        file.sync_data().map_err(|error| fault("sync", &slot_path(&self.dir, slot), &error))
    }
}

impl Slot {
    /// The slot's file, opened at the first use: slots are few and stay.
    fn open(&mut self, dir: &Path, slot: u32, mode: WriteMode) -> Result<&(File, u64), StorageError> {
        if self.file.is_none() {
            let path = slot_path(dir, slot);
            let open = || {
                let file = write_options(mode).open(&path)?;
                let bytes = file.metadata()?.len();
                Ok((file, bytes))
            };
            self.file = Some(open().map_err(|error| fault("open", &path, &error))?);
        }
        Ok(self.file.as_ref().expect("set just above"))
    }
}

/// Who else writes while a slot is filled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Nobody: as fast as the disk goes.
    Alone,
    /// Groups that callers wait for. Each piece is synced by itself, and as long as it took, at most [`JOURNAL_ZEROS_PAUSE_NS_MAX`], the disk is
    /// left to them: a flush of a whole slot would hold up theirs for as long as it takes.
    Beside,
}

impl SlotCreator {
    /// As [`Storage::create`], beside writes to other slots.
    ///
    /// # Errors
    /// `Full` with nothing left behind, `Io`; also when the slot exists.
    pub fn create(&self, slot: u32, bytes: u64) -> Result<(), StorageError> {
        self.make(slot, bytes, Pace::Beside)
    }

    fn make(&self, slot: u32, bytes: u64, pace: Pace) -> Result<(), StorageError> {
        assert!(bytes.is_multiple_of(BLOCK_BYTES as u64), "slots are whole blocks");
        let path = slot_path(&self.dir, slot);
        let unfinished = self.dir.join(unfinished_name(slot));
        if path.exists() {
            return Err(fault("create", &path, &io::ErrorKind::AlreadyExists.into()));
        }
        self.fill(&unfinished, bytes, pace).map_err(|error| {
            let _ = std::fs::remove_file(&unfinished);
            match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    StorageError::Full { file: path.display().to_string(), bytes }
                }
                _ => io_error("create", &path, 0, bytes, &error),
            }
        })?;
        // A slot that is cut off by a crash never has a slot's name.
        std::fs::rename(&unfinished, &path).map_err(|error| fault("rename", &unfinished, &error))?;
        match self.mode.durability {
            Durability::None => Ok(()),
            _ => sync_dir(&self.dir),
        }
    }

    fn fill(&self, path: &Path, bytes: u64, pace: Pace) -> io::Result<()> {
        let file = write_options(self.mode).create(true).truncate(true).open(path)?;
        file::reserve(&file, bytes)?;
        let zeros = vec![0_u8; JOURNAL_ZEROS_BYTES + BLOCK_BYTES];
        let zeros = &zeros[zeros.as_ptr().align_offset(BLOCK_BYTES)..][..JOURNAL_ZEROS_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let start_ns = clock::monotonic_ns();
            let len = (bytes - offset).min(JOURNAL_ZEROS_BYTES as u64);
            // Lossless: at most the length of `zeros`.
            file.write_all_at(&zeros[..len as usize], offset)?;
            offset += len;
            if pace == Pace::Beside {
                self.sync(&file)?;
                let took_ns = clock::monotonic_ns() - start_ns;
                std::thread::sleep(Duration::from_nanos(took_ns.min(JOURNAL_ZEROS_PAUSE_NS_MAX)));
            }
        }
        self.sync(&file)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        match self.mode.durability {
            Durability::None => Ok(()),
            _ => file.sync_data(),
        }
    }
}

/// Why a write did not do what was asked.
#[derive(Debug)]
enum WriteFault {
    Kernel(&'static str, io::Error),
    Short(u64),
}

fn write_once(
    ring: &mut Option<Uring>,
    file: &File,
    mode: WriteMode,
    offset: u64,
    bytes: &[u8],
) -> Result<(), WriteFault> {
    let flags = if mode.durability == Durability::Flag { file::WRITE_DURABLE } else { 0 };
    let written = match ring {
        None => file::write(file, offset, bytes, flags),
        Some(ring) => ring.write(file, offset, bytes, flags),
    };
    let written = written.map_err(|error| WriteFault::Kernel("write", error))?;
    if written != bytes.len() as u64 {
        return Err(WriteFault::Short(written));
    }
    if mode.durability == Durability::Fdatasync {
        file.sync_data().map_err(|error| WriteFault::Kernel("sync", error))?;
    }
    Ok(())
}

fn write_options(mode: WriteMode) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    if mode.is_direct {
        file::direct(&mut options);
    }
    options
}

/// The fastest way to write that the file system takes. A refusal is only believed here, where nothing is lost by trying again.
fn probe(dir: &Path, sync: SyncMode, ring: &mut Option<Uring>) -> Result<WriteMode, StorageError> {
    let path = dir.join(PROBE);
    let modes: &[(bool, Durability)] = match sync {
        SyncMode::Always => &[
            (true, Durability::Flag),
            (true, Durability::Fdatasync),
            (false, Durability::Flag),
            (false, Durability::Fdatasync),
        ],
        SyncMode::Off => &[(false, Durability::None)],
    };
    let modes = modes.iter().map(|&(is_direct, durability)| WriteMode { is_direct, durability });
    let mut refusal = None;
    for mode in modes {
        match try_mode(&path, mode, ring) {
            Ok(()) => {
                std::fs::remove_file(&path).map_err(|error| fault("remove", &path, &error))?;
                return Ok(mode);
            }
            Err(error) if file::is_refusal(&error) => refusal = Some(error),
            Err(error) => return Err(fault("write", &path, &error)),
        }
    }
    let error = refusal.unwrap_or_else(|| io::ErrorKind::Unsupported.into());
    Err(fault("write", &path, &error))
}

fn try_mode(path: &Path, mode: WriteMode, ring: &mut Option<Uring>) -> io::Result<()> {
    let file = write_options(mode).create(true).truncate(true).open(path)?;
    let block = vec![0_u8; 2 * BLOCK_BYTES];
    let block = &block[block.as_ptr().align_offset(BLOCK_BYTES)..][..BLOCK_BYTES];
    write_once(ring, &file, mode, 0, block).map_err(|fault| match fault {
        WriteFault::Kernel(_, error) => error,
        WriteFault::Short(_) => io::ErrorKind::WriteZero.into(),
    })
}

/// Reads a file through once. A map answers a bad sector by a signal that ends the process without a word; a read names it.
fn warm(file: &File, path: &Path) -> Result<(), StorageError> {
    let mut buffer = vec![0; JOURNAL_ZEROS_BYTES];
    let mut offset = 0;
    loop {
        match (&mut &*file).read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(bytes) => offset += bytes as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error("read", path, offset, buffer.len() as u64, &error)),
        }
    }
}

const PROBE: &str = "PROBE";
const SLOT_PREFIX: &str = "slot-";
const UNFINISHED_SUFFIX: &str = ".new";

fn slot_path(dir: &Path, slot: u32) -> PathBuf {
    dir.join(format!("{SLOT_PREFIX}{slot:04}"))
}

fn unfinished_name(slot: u32) -> String {
    format!("{SLOT_PREFIX}{slot:04}{UNFINISHED_SUFFIX}")
}

/// The slot that a file's name means, if it is just the name that we give.
fn slot_of(name: &str) -> Option<u32> {
    let slot = name.strip_prefix(SLOT_PREFIX)?.parse().ok()?;
    (name == format!("{SLOT_PREFIX}{slot:04}")).then_some(slot)
}

fn names(dir: &Path) -> Result<Vec<String>, StorageError> {
    let entries = std::fs::read_dir(dir).map_err(|error| fault("list", dir, &error))?;
    // A name that is no text is none of ours.
    let name = |entry: io::Result<std::fs::DirEntry>| entry.map(|entry| entry.file_name().into_string().ok());
    let names: io::Result<Vec<_>> = entries.filter_map(|entry| name(entry).transpose()).collect();
    names.map_err(|error| fault("list", dir, &error))
}

/// Deletes what a process left that ended while it made a slot or tried out the file system.
fn remove_unfinished(dir: &Path) -> Result<(), StorageError> {
    for name in names(dir)? {
        let is_slot = name.strip_suffix(UNFINISHED_SUFFIX).is_some_and(|name| slot_of(name).is_some());
        if is_slot || name == PROBE {
            let path = dir.join(name);
            std::fs::remove_file(&path).map_err(|error| fault("remove", &path, &error))?;
        }
    }
    Ok(())
}

/// Creates a directory and those above it, each entry durable.
fn create_dirs(dir: &Path, sync: SyncMode) -> Result<(), StorageError> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    std::fs::create_dir_all(dir).map_err(|error| fault("create", dir, &error))?;
    if sync == SyncMode::Off {
        return Ok(());
    }
    missing.into_iter().rev().try_for_each(|path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    })
}

fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    let handle = File::open(dir).map_err(|error| fault("open", dir, &error))?;
    handle.sync_all().map_err(|error| fault("sync", dir, &error))
}

fn lock(dir: &Path) -> Result<File, StorageError> {
    let path = dir.join("LOCK");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| fault("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked { dir: dir.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(fault("lock", &path, &error)),
    }
}

/// A fault of a whole file.
fn fault(op: &'static str, path: &Path, error: &io::Error) -> StorageError {
    io_error(op, path, 0, 0, error)
}

fn io_error(op: &'static str, path: &Path, offset: u64, bytes: u64, error: &io::Error) -> StorageError {
    StorageError::Io { op, file: path.display().to_string(), offset, bytes, what: error.to_string() }
}

#[cfg(test)]
mod tests;
