//! On real files: every mode of writing, the lock, what a crash leaves behind, and a disk that is full.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use super::*;
use crate::chain::test_dir::TestDir;

const SLOT_BYTES: u64 = 3 * 1_048_576 + BLOCK_BYTES as u64;

/// A buffer of blocks, each filled with its own number.
struct Blocks(Vec<u8>, usize);

impl Blocks {
    fn new(first: u8, count: usize) -> Self {
        let mut bytes = vec![0; (count + 1) * BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        for (number, block) in (first..).zip(bytes[start..].chunks_exact_mut(BLOCK_BYTES)) {
            block.fill(number);
        }
        Self(bytes, start)
    }

    fn bytes(&self) -> &[u8] {
        &self.0[self.1..][..self.0.len() - BLOCK_BYTES]
    }
}

fn modes() -> Vec<WriteMode> {
    let durabilities = [Durability::Flag, Durability::Fdatasync, Durability::None];
    let mode = |is_direct| durabilities.map(|durability| WriteMode { is_direct, durability });
    [mode(true), mode(false)].concat()
}

fn round_trip(dir: &Path, engine: WriteEngine, mode: Option<WriteMode>) {
    let mut storage = FileStorage::open(dir, SyncMode::Always, engine).unwrap();
    storage.mode = mode.unwrap_or(storage.mode);
    storage.create(0, SLOT_BYTES).unwrap();
    storage.create(11, SLOT_BYTES).unwrap();
    let mut expected = vec![0_u8; SLOT_BYTES as usize];
    assert!(storage.read(11).unwrap()[..] == expected[..], "a new slot is zeros");
    for (block, count) in [(0, 1), (1, 3), (700, 69), (0, 1), (768, 1)] {
        let blocks = Blocks::new((block % 100) as u8 + 1, count);
        storage.write(11, (block * BLOCK_BYTES) as u64, blocks.bytes(), SyncPoint::Group).unwrap();
        expected[block * BLOCK_BYTES..][..count * BLOCK_BYTES].copy_from_slice(blocks.bytes());
    }
    storage.sync(11, SyncPoint::Tail).unwrap();
    assert!(storage.read(11).unwrap()[..] == expected[..], "what was written is read");
    assert!(storage.read(0).unwrap()[..] == [0; SLOT_BYTES as usize], "the other slot is untouched");
    assert_eq!(storage.slots(), Ok(vec![0, 11]));
    let name = storage.mode_name();
    drop(storage);
    let mut storage = FileStorage::open(dir, SyncMode::Off, WriteEngine::Pwritev2).unwrap();
    assert!(storage.read(11).unwrap()[..] == expected[..], "what was written is read by the next process");
    println!("{}: {name}", dir.display());
    assert!(storage.mode_name().ends_with("not durable"));
}

#[test]
fn what_is_written_is_read() {
    for engine in [WriteEngine::Pwritev2, WriteEngine::IoUring] {
        round_trip(TestDir::on_disk("journal-disk").path(), engine, None);
        round_trip(TestDir::new("journal-memory").path(), engine, None);
        for mode in modes() {
            round_trip(TestDir::on_disk("journal-mode").path(), engine, Some(mode));
        }
    }
}

#[test]
fn writes_that_break_the_contract_are_stopped() {
    let dir = TestDir::new("journal-contract");
    let mut storage = FileStorage::open(dir.path(), SyncMode::Off, WriteEngine::Pwritev2).unwrap();
    storage.create(0, 4 * BLOCK_BYTES as u64).unwrap();
    let blocks = Blocks::new(1, 2);
    let mut is_stopped = |offset: u64, bytes: &[u8]| {
        catch_unwind(AssertUnwindSafe(|| storage.write(0, offset, bytes, SyncPoint::Group))).is_err()
    };
    let block = BLOCK_BYTES as u64;
    assert!(!is_stopped(2 * block, blocks.bytes()));
    assert!(is_stopped(3 * block, blocks.bytes()), "ends behind the slot");
    assert!(is_stopped(block + 512, blocks.bytes()), "offset inside a block");
    assert!(is_stopped(0, &blocks.bytes()[..BLOCK_BYTES + 512]), "part of a block");
    assert!(is_stopped(0, &blocks.bytes()[512..][..BLOCK_BYTES]), "buffer that is not aligned");
    let bytes = storage.read(0).unwrap();
    let write = |storage: &mut FileStorage| {
        catch_unwind(AssertUnwindSafe(|| storage.write(0, 0, blocks.bytes(), SyncPoint::Group))).is_err()
    };
    let copy = bytes.clone();
    drop(bytes);
    assert!(write(&mut storage), "the slot's bytes are still read");
    drop(copy);
    assert!(!write(&mut storage));
}

#[test]
fn one_process_holds_the_directory() {
    let dir = TestDir::new("journal-lock");
    let path = dir.path().join("a/b");
    let first = FileStorage::open(&path, SyncMode::Always, WriteEngine::Pwritev2).unwrap();
    let locked = StorageError::Locked { dir: path.display().to_string() };
    assert_eq!(FileStorage::open(&path, SyncMode::Always, WriteEngine::Pwritev2).err(), Some(locked));
    drop(first);
    assert!(FileStorage::open(&path, SyncMode::Always, WriteEngine::Pwritev2).is_ok());
}

#[test]
fn slots_are_made_by_another_thread() {
    let dir = TestDir::new("journal-creator");
    let mut storage = FileStorage::open(dir.path(), SyncMode::Off, WriteEngine::Pwritev2).unwrap();
    let creator = storage.creator();
    std::thread::spawn(move || creator.create(10_000, SLOT_BYTES)).join().unwrap().unwrap();
    assert_eq!(storage.slots(), Ok(vec![10_000]));
    storage.write(10_000, 0, Blocks::new(7, 1).bytes(), SyncPoint::Header).unwrap();
    let error = storage.create(10_000, SLOT_BYTES).unwrap_err().to_string();
    assert!(
        error.starts_with("create ") && error.ends_with("slot-10000 at 0, 0 bytes: entity already exists"),
        "{error}"
    );
    assert_eq!(storage.read(10_000).unwrap()[0], 7, "the slot that exists is untouched");
}

#[test]
fn what_is_not_a_slot_is_left_alone_or_removed() {
    let dir = TestDir::new("journal-names");
    let names = ["slot-0003", "slot-3", "slot-00003", "slot-+003", "slot-0004.new", "slot-x.new", "PROBE", "notes"];
    for name in names {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let mut storage = FileStorage::open(dir.path(), SyncMode::Off, WriteEngine::Pwritev2).unwrap();
    assert_eq!(storage.slots(), Ok(vec![3]));
    let left: Vec<_> = names.into_iter().filter(|name| dir.path().join(name).exists()).collect();
    assert_eq!(left, ["slot-0003", "slot-3", "slot-00003", "slot-+003", "slot-x.new", "notes"]);
}

#[test]
fn a_slot_that_is_not_there_is_an_error() {
    let dir = TestDir::new("journal-missing");
    let mut storage = FileStorage::open(dir.path(), SyncMode::Always, WriteEngine::Pwritev2).unwrap();
    let text = |error: StorageError| error.to_string().replace(&dir.path().display().to_string(), "…");
    let missing = "open …/slot-0001 at 0, 0 bytes: No such file or directory (os error 2)";
    assert_eq!(storage.read(1).map(|_| ()).map_err(text), Err(missing.to_owned()));
    assert_eq!(storage.sync(1, SyncPoint::Tail).map_err(text), Err(missing.to_owned()));
    let write = storage.write(1, 0, Blocks::new(1, 1).bytes(), SyncPoint::Group);
    assert_eq!(write.map_err(text), Err(missing.to_owned()));
}

/// A file system in memory of its own, gone at drop.
struct Mount(TestDir);

impl Mount {
    fn new(bytes: u64) -> Option<Self> {
        let dir = TestDir::on_disk("journal-full");
        let size = format!("size={bytes}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(dir))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing_behind() {
    let Some(mount) = Mount::new(2 * SLOT_BYTES) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let path = mount.0.path();
    let mut storage = FileStorage::open(path, SyncMode::Always, WriteEngine::Pwritev2).unwrap();
    storage.create(0, SLOT_BYTES).unwrap();
    let full = StorageError::Full { file: path.join("slot-0001").display().to_string(), bytes: 2 * SLOT_BYTES };
    assert_eq!(storage.create(1, 2 * SLOT_BYTES), Err(full.clone()));
    assert_eq!(storage.create(1, 2 * SLOT_BYTES), Err(full));
    let mut left = names(path).unwrap();
    left.sort();
    assert_eq!(left, ["LOCK", "slot-0000"]);
    // What exists goes on, and what fits is made.
    storage.write(0, 0, Blocks::new(1, 1).bytes(), SyncPoint::Group).unwrap();
    storage.create(1, SLOT_BYTES - BLOCK_BYTES as u64 * 8).unwrap();
    assert_eq!(storage.slots(), Ok(vec![0, 1]));
    drop(storage);
}
