#![allow(unsafe_code, reason = "maps segments under the directory's lock")]
//! The state's files in a directory: `roots`, `segment-00000001`, …, held by the lock file `LOCK`.
//!
//! A new segment is reserved on the disk when it is made, so that a write into it does not fail for lack of space; where a segment was prepared
//! (`spare`, written with zeros: syncs of what is written into it later change no metadata), that one is renamed.
//! Files: also `*.new` (unfinished, deleted at the next open).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, FileName, SyncPoint};
use crate::runtime::address_range::AddressRange;
use crate::runtime::file;
use crate::state::StateError;

/// Piece in which a segment is filled with zeros: 2 MiB, so that a file system with large folios keeps it in one, and one entry maps it.
const ZERO_WORDS: usize = 256 << 10;
const SPARE: &str = "spare";

/// See the module's text.
pub struct FileDisk {
    dir: Arc<Path>,
    /// Whether syncs are made.
    is_durable: bool,
    open: BTreeMap<u32, File>,
    lock: Arc<File>,
}

/// Why a directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{dir} is in use by another process")]
    Locked { dir: PathBuf },
    #[error("{op} {path}: {source}")]
    Io { op: &'static str, path: PathBuf, source: io::Error },
}

impl FileDisk {
    /// Opens or creates a directory and takes its lock. `is_durable: false` leaves all syncs out: for directories that die with the process.
    ///
    /// # Errors
    /// `Locked`, `Io`.
    pub fn open(dir: &Path, is_durable: bool) -> Result<Self, DirectoryError> {
        let fault = |op, path: &Path| {
            let path = path.to_owned();
            move |source| DirectoryError::Io { op, path, source }
        };
        std::fs::create_dir_all(dir).map_err(fault("create", dir))?;
        let path = dir.join("LOCK");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(fault("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirectoryError::Locked { dir: dir.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(DirectoryError::Io { op: "lock", path, source }),
        }
        for entry in std::fs::read_dir(dir).map_err(fault("list", dir))? {
            let path = entry.map_err(fault("list", dir))?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                std::fs::remove_file(&path).map_err(fault("remove", &path))?;
            }
        }
        if is_durable && let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let sync = File::open(parent).and_then(|parent| parent.sync_all());
            sync.map_err(fault("sync", parent))?;
        }
        Ok(Self { dir: dir.into(), is_durable, open: BTreeMap::new(), lock: Arc::new(lock) })
    }

    /// Deletes every file of a state that is to be made again.
    ///
    /// # Errors
    /// `Io`.
    pub fn wipe(&mut self) -> Result<(), StateError> {
        self.list()?.into_iter().try_for_each(|file| self.remove(file))
    }

    fn path(&self, file: u32) -> PathBuf {
        self.dir.join(FileName(file).to_string())
    }

    fn file(&mut self, number: u32) -> Result<&File, StateError> {
        if !self.open.contains_key(&number) {
            let opened = OpenOptions::new().read(true).write(true).open(self.path(number));
            let opened = opened.map_err(|error| fault("open", number, 0, &error))?;
            self.open.insert(number, opened);
        }
        Ok(&self.open[&number])
    }

    fn sync_dir(&self, number: u32) -> Result<(), StateError> {
        if !self.is_durable {
            return Ok(());
        }
        let sync = File::open(&self.dir).and_then(|dir| dir.sync_all());
        sync.map_err(|error| fault("sync the directory of", number, 0, &error))
    }
}

impl Disk for FileDisk {
    fn list(&mut self) -> Result<Vec<u32>, StateError> {
        let entries = std::fs::read_dir(&self.dir).map_err(|error| fault("list the directory of", 0, 0, &error))?;
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| fault("list the directory of", 0, 0, &error))?;
            files.extend(entry.file_name().to_str().and_then(FileName::parse));
        }
        files.sort_unstable();
        Ok(files)
    }

    fn create(&mut self, number: u32, bytes: u64) -> Result<(), StateError> {
        let path = self.path(number);
        if path.exists() {
            return Err(fault("create", number, 0, &io::ErrorKind::AlreadyExists.into()));
        }
        let spare = self.dir.join(SPARE);
        if std::fs::metadata(&spare).is_ok_and(|spare| spare.len() == bytes) {
            return std::fs::rename(&spare, &path).map_err(|error| fault("rename", number, 0, &error));
        }
        let unfinished = path.with_extension("new");
        let make = || {
            let made = OpenOptions::new().write(true).create(true).truncate(true).open(&unfinished)?;
            file::reserve(&made, bytes)?;
            std::fs::rename(&unfinished, &path)
        };
        make().map_err(|error| {
            // What is left of it is deleted at the next open.
            let _ = std::fs::remove_file(&unfinished);
            create_fault(number, bytes, &error)
        })
    }

    fn write(&mut self, number: u32, offset: u64, parts: &[&[u64]]) -> Result<(), StateError> {
        let wanted: u64 = parts.iter().map(|part| size_of_val(*part) as u64).sum();
        // The kernel takes so many parts at once (IOV_MAX).
        let mut at = offset;
        for parts in parts.chunks(1_024) {
            let bytes: u64 = parts.iter().map(|part| size_of_val(*part) as u64).sum();
            let written = file::write_words(self.file(number)?, at, parts);
            let written = written.map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => create_fault(number, wanted, &error),
                _ => fault("write", number, at, &error),
            })?;
            if written != bytes {
                return Err(StateError::Short { file: FileName(number), offset: at, wanted: bytes, written });
            }
            at += bytes;
        }
        Ok(())
    }

    fn read(&mut self, number: u32, offset: u64, words: &mut [u64]) -> Result<(), StateError> {
        let file = self.file(number)?;
        let mut bytes = vec![0; size_of_val(words)];
        let mut done = 0;
        while done < bytes.len() {
            match file.read_at(&mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(fault("read", number, offset, &error)),
            }
        }
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Ok(())
    }

    fn sync(&mut self, number: u32, _: SyncPoint) -> Result<(), StateError> {
        if !self.is_durable {
            return Ok(());
        }
        self.file(number)?.sync_data().map_err(|error| fault("sync", number, 0, &error))
    }

    fn sync_directory(&mut self, _: SyncPoint) -> Result<(), StateError> {
        self.sync_dir(0)
    }

    fn remove(&mut self, number: u32) -> Result<(), StateError> {
        self.open.remove(&number);
        std::fs::remove_file(self.path(number)).map_err(|error| fault("remove", number, 0, &error))
    }

    fn map(&mut self, number: u32, range: &Arc<AddressRange>, at: usize, bytes: u64) -> Result<(), StateError> {
        let file = self.file(number)?;
        let found = file.metadata().map_err(|error| fault("stat", number, 0, &error))?.len();
        if found != bytes {
            return Err(StateError::Damaged {
                file: FileName(number),
                offset: found.min(bytes),
                what: "the file has another length",
            });
        }
        // SAFETY: the caller maps nothing over what is read; the lock keeps other processes away, and this type never shortens a file.
        let mapped = unsafe { range.map_file(at, file, bytes as usize) };
        mapped.map_err(|error| fault("map", number, 0, &error))
    }

    fn handle(&self) -> Box<dyn Disk> {
        Box::new(Self {
            dir: Arc::clone(&self.dir),
            is_durable: self.is_durable,
            open: BTreeMap::new(),
            lock: Arc::clone(&self.lock),
        })
    }

    fn prepare(&mut self, bytes: u64) -> Result<bool, StateError> {
        let spare = self.dir.join(SPARE);
        if spare.exists() {
            return Ok(false);
        }
        let unfinished = spare.with_extension("new");
        let make = || {
            let made = OpenOptions::new().write(true).create(true).truncate(true).open(&unfinished)?;
            file::reserve(&made, bytes)?;
            let zeros = vec![0; ZERO_WORDS];
            let mut offset = 0;
            while offset < bytes {
                // Lossless: at most the length of `zeros`.
                let words = ((bytes - offset) / 8).min(ZERO_WORDS as u64) as usize;
                offset += file::write_words(&made, offset, &[&zeros[..words]])?;
            }
            if self.is_durable {
                made.sync_data()?;
            }
            std::fs::rename(&unfinished, &spare)
        };
        make().map(|()| true).map_err(|error| {
            let _ = std::fs::remove_file(&unfinished);
            create_fault(0, bytes, &error)
        })
    }
}

fn create_fault(number: u32, bytes: u64, error: &io::Error) -> StateError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StateError::Full { file: FileName(number), bytes },
        _ => fault("create", number, 0, error),
    }
}

fn fault(op: &'static str, number: u32, offset: u64, error: &io::Error) -> StateError {
    StateError::Io { op, file: FileName(number), offset, code: error.raw_os_error().unwrap_or(0) }
}
