//! The ledger's file: appended to and synced before anything leaves, read at a start, rewritten when most of it is dead.
//!
//! What is appended together is one group, written and synced before the next. So a group that does not hold, with none behind it that does,
//! was torn and is cut: nobody was told of it. One with a good group behind it is damage, and an error that names the offset. A failed write or
//! sync is an error, never retried: the caller ends the process.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::ledger::{Entry, EntryError, HEADER_BYTES, LENGTH_BYTES, Ledger, MAGIC};
use crate::primitives::B256;

/// Before a group's records.
const GROUP_BYTES: usize = 12;
/// A smaller file is not rewritten.
const REWRITE_BYTES_MIN: u64 = 32 << 20;
const FILE_NAME: &str = "settlement.log";

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: it begins with other bytes than a settlement ledger")]
    Magic { path: PathBuf },
    #[error("{path}: it belongs to the chain with genesis {found}, this is {expected}")]
    Chain { path: PathBuf, found: B256, expected: B256 },
    #[error("{path}: the group at offset {offset} is damaged, and the one at {next} is not")]
    Damaged { path: PathBuf, offset: u64, next: u64 },
    #[error("{path}: the group at offset {offset}: {source}")]
    Entry { path: PathBuf, offset: u64, source: EntryError },
    #[error("settlement: {0}")]
    Order(EntryError),
}

/// The open file and what it says.
pub struct LedgerFile {
    ledger: Ledger,
    file: File,
    path: PathBuf,
    genesis: B256,
    bytes: u64,
    /// Length after the last rewrite.
    rewritten_bytes: u64,
    buffer: Vec<u8>,
}

impl LedgerFile {
    /// Opens the ledger of a data directory, or makes an empty one. The caller holds the directory's lock.
    ///
    /// # Errors
    /// Another chain's file, damage before the last record, the file system.
    pub fn open(data_dir: &Path, genesis: B256) -> Result<Self, LedgerError> {
        let path = data_dir.join(FILE_NAME);
        let io = |source| LedgerError::Io { path: path.clone(), source };
        let stored = match std::fs::read(&path) {
            Ok(stored) => stored,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io(error)),
        };
        let ledger = if stored.is_empty() { Ledger::default() } else { read(&path, &stored, genesis)? };
        let (file, bytes) = write_whole(&path, genesis, &ledger).map_err(io)?;
        Ok(Self { ledger, file, path, genesis, bytes, rewritten_bytes: bytes, buffer: Vec::new() })
    }

    /// What the ledger of a data directory says, and the hash of its block 0; nothing is written. `None` where there is no ledger.
    ///
    /// # Errors
    /// Damage before the last record, the file system.
    pub fn peek(data_dir: &Path) -> Result<Option<(Ledger, B256)>, LedgerError> {
        let path = data_dir.join(FILE_NAME);
        let stored = match std::fs::read(&path) {
            Ok(stored) => stored,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LedgerError::Io { path, source }),
        };
        let Some(genesis) = stored.get(MAGIC.len()..HEADER_BYTES).map(B256::from_slice) else {
            return Err(LedgerError::Magic { path });
        };
        Ok(Some((read(&path, &stored, genesis)?, genesis)))
    }

    /// Forgets everything: for who has posted nothing and can derive the rest again.
    ///
    /// # Errors
    /// Of the file system.
    pub fn emptied(self) -> Result<Self, LedgerError> {
        let Self { path, genesis, file, .. } = self;
        drop(file);
        let ledger = Ledger::default();
        let written = write_whole(&path, genesis, &ledger);
        let (file, bytes) = written.map_err(|source| LedgerError::Io { path: path.clone(), source })?;
        Ok(Self { ledger, file, path, genesis, bytes, rewritten_bytes: bytes, buffer: Vec::new() })
    }

    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Makes entries durable, in order, and takes them in. One write and one sync.
    ///
    /// # Errors
    /// Of the file system; entries that do not follow what the ledger holds.
    pub fn append(&mut self, entries: Vec<Entry>) -> Result<(), LedgerError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.buffer.clear();
        group(&entries, &mut self.buffer);
        let written = self.file.write_all(&self.buffer).and_then(|()| self.file.sync_data());
        written.map_err(|source| LedgerError::Io { path: self.path.clone(), source })?;
        self.bytes += self.buffer.len() as u64;
        entries.into_iter().try_for_each(|entry| self.ledger.apply(entry)).map_err(LedgerError::Order)?;
        if self.bytes > REWRITE_BYTES_MIN.max(3 * self.rewritten_bytes) {
            self.rewrite()?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), LedgerError> {
        let written = write_whole(&self.path, self.genesis, &self.ledger);
        let (file, bytes) = written.map_err(|source| LedgerError::Io { path: self.path.clone(), source })?;
        (self.file, self.bytes, self.rewritten_bytes) = (file, bytes, bytes);
        Ok(())
    }
}

/// Writes everything that is live to a new file, which then takes the place of the old one.
fn write_whole(path: &Path, genesis: B256, ledger: &Ledger) -> std::io::Result<(File, u64)> {
    let bytes = image(genesis, ledger);
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok((file, bytes.len() as u64))
}

/// The bytes of a file with what is live and nothing else.
#[must_use]
pub fn image(genesis: B256, ledger: &Ledger) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(genesis.as_slice());
    ledger.live().for_each(|entry| group(&[entry], &mut bytes));
    bytes
}

/// What a file's bytes say; a torn last group is left out. `path` is for errors.
///
/// # Errors
/// Another chain's file, damage before the last group, entries that do not follow each other.
pub fn read(path: &Path, stored: &[u8], genesis: B256) -> Result<Ledger, LedgerError> {
    let path = || path.to_owned();
    let (header, records) = stored.split_at_checked(HEADER_BYTES).ok_or_else(|| LedgerError::Magic { path: path() })?;
    if &header[..8] != MAGIC {
        return Err(LedgerError::Magic { path: path() });
    }
    let found = B256::from_slice(&header[8..]);
    if found != genesis {
        return Err(LedgerError::Chain { path: path(), found, expected: genesis });
    }
    let mut ledger = Ledger::default();
    let mut at = 0;
    while at < records.len() {
        let offset = (HEADER_BYTES + at) as u64;
        let Some(mut body) = good_group(&records[at..]) else {
            if let Some(next) = (at + 1..records.len()).find(|next| good_group(&records[*next..]).is_some()) {
                let next = (HEADER_BYTES + next) as u64;
                return Err(LedgerError::Damaged { path: path(), offset, next });
            }
            tracing::info!(
                offset,
                bytes = records.len() - at,
                "settlement ledger: the last write was not finished, cut"
            );
            break;
        };
        at += GROUP_BYTES + body.len();
        let fault = |source| LedgerError::Entry { path: path(), offset, source };
        while !body.is_empty() {
            let need = LENGTH_BYTES;
            let (length, rest) =
                body.split_first_chunk().ok_or_else(|| fault(EntryError::Length { have: body.len(), need }))?;
            let need = u32::from_le_bytes(*length) as usize;
            let (entry, rest) =
                rest.split_at_checked(need).ok_or_else(|| fault(EntryError::Length { have: rest.len(), need }))?;
            Entry::decode(entry).and_then(|entry| ledger.apply(entry)).map_err(fault)?;
            body = rest;
        }
    }
    Ok(ledger)
}

/// Appends entries as one group.
pub fn group(entries: &[Entry], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; GROUP_BYTES]);
    entries.iter().for_each(|entry| entry.encode(out));
    let body = &out[start + GROUP_BYTES..];
    // A few batches of 128 KiB at most are appended together.
    let length = (body.len() as u32).to_le_bytes();
    let sums = [crc32c::crc32c(&length), crc32c::crc32c(body)].map(u32::to_le_bytes);
    out[start..start + 4].copy_from_slice(&length);
    out[start + 4..start + 8].copy_from_slice(&sums[0]);
    out[start + 8..start + GROUP_BYTES].copy_from_slice(&sums[1]);
}

/// The records of the group that these bytes begin with, if it is whole and not empty.
fn good_group(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_first_chunk::<GROUP_BYTES>()?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if crc32c::crc32c(&head[..4]) != word(4) || word(0) == 0 {
        return None;
    }
    let body = rest.get(..word(0) as usize)?;
    (crc32c::crc32c(body) == word(8)).then_some(body)
}

#[cfg(test)]
mod tests;
