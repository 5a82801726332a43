//! The file `checkpoint`: how much of the other files has been synced. Two slots of 64 bytes, written in turn, the newer valid one counts.
//!
//! ```text
//! offset  bytes  field
//! 0       4      magic "CKPT"
//! 4       4      crc32c of bytes 8..64
//! 8       8      generation; the slot is at 4096 · (generation mod 2)
//! 16      8      synced bytes of `headers`
//! 24      8      synced bytes of `bodies`
//! 32      8      synced bytes of `receipts`
//! 40      8      block count
//! 48      16     zero
//! ```
//!
//! The slots lie in different pages, so a torn write of one leaves the other. Below the synced lengths damage is an error, above them it
//! is a torn tail.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::error::ChainError;
use super::record::{u32_at, u64_at};

const MAGIC: u32 = u32::from_le_bytes(*b"CKPT");
const SLOT_BYTES: usize = 64;
const SLOT_STRIDE_BYTES: u64 = 4096;

/// What the newest valid slot says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub generation: u64,
    pub headers_bytes: u64,
    pub bodies_bytes: u64,
    pub receipts_bytes: u64,
    pub block_count: u64,
}

/// The open file. One writer.
pub(super) struct CheckpointFile {
    file: File,
    path: PathBuf,
    newest: Checkpoint,
}

impl CheckpointFile {
    /// Opens the file and reads the newer valid slot.
    ///
    /// Errors: `Corrupt` when no slot is valid, unless the file is new and `is_new` says that the database is, too.
    pub(super) fn open(dir: &Path, is_new: bool) -> Result<CheckpointFile, ChainError> {
        let path = dir.join("checkpoint");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| ChainError::io("open", &path, &error))?;
        let slots = [read_slot(&file, &path, 0)?, read_slot(&file, &path, 1)?];
        let newest = slots.into_iter().flatten().max_by_key(|slot| slot.generation);
        match newest {
            Some(newest) => Ok(CheckpointFile { file, path, newest }),
            None if is_new => {
                let mut fresh = CheckpointFile { file, path, newest: Checkpoint::default() };
                fresh.write(Checkpoint::default())?;
                Ok(fresh)
            }
            None => Err(ChainError::corrupt(&path, 0, "no valid checkpoint slot")),
        }
    }

    pub(super) fn newest(&self) -> Checkpoint {
        self.newest
    }

    /// Writes and syncs the next slot. The files it speaks of have been synced before.
    pub(super) fn write(&mut self, mut next: Checkpoint) -> Result<(), ChainError> {
        next.generation = self.newest.generation + 1;
        let offset = SLOT_STRIDE_BYTES * (next.generation % 2);
        self.file.write_all_at(&encode(&next), offset).map_err(|error| ChainError::io("write", &self.path, &error))?;
        self.file.sync_data().map_err(|error| ChainError::io("sync", &self.path, &error))?;
        self.newest = next;
        Ok(())
    }
}

fn read_slot(file: &File, path: &Path, slot: u64) -> Result<Option<Checkpoint>, ChainError> {
    let mut bytes = [0; SLOT_BYTES];
    match file.read_exact_at(&mut bytes, slot * SLOT_STRIDE_BYTES) {
        Ok(()) => Ok(decode(&bytes).filter(|checkpoint| checkpoint.generation % 2 == slot)),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(ChainError::io("read", path, &error)),
    }
}

fn encode(checkpoint: &Checkpoint) -> [u8; SLOT_BYTES] {
    let mut out = [0; SLOT_BYTES];
    out[..4].copy_from_slice(&MAGIC.to_le_bytes());
    out[8..16].copy_from_slice(&checkpoint.generation.to_le_bytes());
    out[16..24].copy_from_slice(&checkpoint.headers_bytes.to_le_bytes());
    out[24..32].copy_from_slice(&checkpoint.bodies_bytes.to_le_bytes());
    out[32..40].copy_from_slice(&checkpoint.receipts_bytes.to_le_bytes());
    out[40..48].copy_from_slice(&checkpoint.block_count.to_le_bytes());
    let crc = crc32c::crc32c(&out[8..]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<Checkpoint> {
    if u32_at(bytes, 0) != MAGIC || u32_at(bytes, 4) != crc32c::crc32c(&bytes[8..]) {
        return None;
    }
    Some(Checkpoint {
        generation: u64_at(bytes, 8),
        headers_bytes: u64_at(bytes, 16),
        bodies_bytes: u64_at(bytes, 24),
        receipts_bytes: u64_at(bytes, 32),
        block_count: u64_at(bytes, 40),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use super::*;
    use crate::chain::test_dir::TestDir;

    #[test]
    fn a_torn_slot_leaves_the_older_one() {
        let dir = TestDir::new("checkpoint");
        let mut file = CheckpointFile::open(dir.path(), true).unwrap();
        for count in 1..=5_u64 {
            file.write(Checkpoint { block_count: count, headers_bytes: count * 100, ..Checkpoint::default() }).unwrap();
        }
        let path = dir.path().join("checkpoint");
        let good = std::fs::read(&path).unwrap();
        assert_eq!(CheckpointFile::open(dir.path(), false).unwrap().newest().block_count, 5);
        let newest_at = 4096 * (file.newest().generation % 2) as usize;
        for byte in 0..SLOT_BYTES {
            let mut torn = good.clone();
            torn[newest_at + byte] ^= 0x10;
            std::fs::write(&path, &torn).unwrap();
            assert_eq!(CheckpointFile::open(dir.path(), false).unwrap().newest().block_count, 4);
        }
        std::fs::write(&path, vec![0; good.len()]).unwrap();
        assert!(matches!(CheckpointFile::open(dir.path(), false), Err(ChainError::Corrupt { .. })));
    }
}
