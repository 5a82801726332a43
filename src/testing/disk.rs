//! A disk that loses what was not synced: what the journal's guarantees are tested against.
//!
//! Sectors of 512 bytes. A write reaches the cache; a barrier moves a file's cache to the medium. A power cut keeps an arbitrary subset of
//! the cached sectors, and of the directory entries without a barrier. A killed process leaves the cache as it is. The fuse stops the machine
//! inside an operation. One barrier can be left out: a mutant that the simulation must notice.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::journal::storage::{Storage, StorageError, SyncPoint};
use crate::testing::rng::SimRng;

const SECTOR_BYTES: usize = 512;

#[derive(Clone)]
struct File {
    /// What survives everything.
    medium: Vec<u8>,
    /// What a reader sees.
    cache: Vec<u8>,
    /// Sectors in which the two may differ.
    cached: Vec<usize>,
    /// Whether the directory entry survives a power cut.
    is_entered: bool,
}

/// The next write goes wrong in this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Only the first half is written.
    Short,
    /// An error, and an arbitrary part is written.
    Write,
    /// Written, and the barrier fails.
    Sync,
}

#[derive(Clone)]
struct Disk {
    files: BTreeMap<u32, File>,
    rng: SimRng,
    leave_out: Option<SyncPoint>,
    capacity_bytes: u64,
    /// Operations until the machine stops.
    fuse: Option<u64>,
    is_stopped: bool,
    fault: Option<Fault>,
    operation_count: u64,
}

/// A handle of one disk; clones share it.
#[derive(Clone)]
pub struct SimDisk(Rc<RefCell<Disk>>);

impl SimDisk {
    #[must_use]
    pub fn new(seed: u64, leave_out: Option<SyncPoint>) -> Self {
        Self(Rc::new(RefCell::new(Disk {
            files: BTreeMap::new(),
            rng: SimRng::new(seed),
            leave_out,
            capacity_bytes: u64::MAX,
            fuse: None,
            is_stopped: false,
            fault: None,
            operation_count: 0,
        })))
    }

    /// A disk of its own with the same content.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// Stops the machine inside its next operation but `operations`.
    pub fn set_fuse(&self, operations: Option<u64>) {
        self.0.borrow_mut().fuse = operations;
    }

    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.0.borrow_mut().capacity_bytes = bytes;
    }

    pub fn set_fault(&self, fault: Fault) {
        self.0.borrow_mut().fault = Some(fault);
    }

    #[must_use]
    pub fn operation_count(&self) -> u64 {
        self.0.borrow().operation_count
    }

    /// The process died; the machine goes on.
    pub fn kill(&self) {
        let mut disk = self.0.borrow_mut();
        (disk.fuse, disk.is_stopped, disk.fault) = (None, false, None);
    }

    /// The power went: each sector in the cache is kept or lost, whatever the others are.
    pub fn power_cut(&self) {
        self.kill();
        let disk = &mut *self.0.borrow_mut();
        let rng = &mut disk.rng;
        disk.files.retain(|_, file| file.is_entered || rng.chance(1, 2));
        for file in disk.files.values_mut() {
            // Whole cuts that keep all or nothing are likelier than chance makes them.
            let (numerator, denominator) = [(0, 1), (1, 1), (1, 2), (1, 8), (7, 8)][rng.below(5) as usize];
            for sector in std::mem::take(&mut file.cached) {
                if rng.chance(numerator, denominator) {
                    file.keep(sector);
                }
            }
            file.cache.clone_from(&file.medium);
            file.is_entered = true;
        }
    }

    /// Flips one bit of a slot, as a worn medium does.
    pub fn flip(&self, slot: u32, bit: usize) {
        let mut disk = self.0.borrow_mut();
        let file = disk.files.get_mut(&slot).expect("the slot exists");
        file.medium[bit / 8] ^= 1 << (bit % 8);
        file.cache[bit / 8] ^= 1 << (bit % 8);
    }

    #[must_use]
    pub fn slot_bytes(&self, slot: u32) -> usize {
        self.0.borrow().files.get(&slot).map_or(0, |file| file.cache.len())
    }
}

impl File {
    fn new(bytes: usize) -> Self {
        Self { medium: vec![0; bytes], cache: vec![0; bytes], cached: Vec::new(), is_entered: false }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.cache[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.cached.extend(offset / SECTOR_BYTES..(offset + bytes.len()).div_ceil(SECTOR_BYTES));
    }

    /// Moves one sector to the medium.
    fn keep(&mut self, sector: usize) {
        let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
        self.medium[range.clone()].copy_from_slice(&self.cache[range]);
    }

    /// The barrier of one write: on a disk with FUA it covers that write and nothing before it.
    fn sync_range(&mut self, offset: usize, bytes: usize) {
        let sectors = offset / SECTOR_BYTES..(offset + bytes).div_ceil(SECTOR_BYTES);
        sectors.clone().for_each(|sector| self.keep(sector));
        self.cached.retain(|sector| !sectors.contains(sector));
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.cached) {
            self.keep(sector);
        }
    }
}

impl Disk {
    /// Counts an operation; true when the machine stops inside this one.
    fn begin(&mut self) -> Result<bool, StorageError> {
        if self.is_stopped {
            return Err(StorageError::Crashed);
        }
        self.operation_count += 1;
        match &mut self.fuse {
            Some(0) => {
                self.is_stopped = true;
                Ok(true)
            }
            Some(left) => {
                *left -= 1;
                Ok(false)
            }
            None => Ok(false),
        }
    }

    fn file(&mut self, slot: u32) -> Result<&mut File, StorageError> {
        self.files.get_mut(&slot).ok_or(fault("open", slot, 0, 0))
    }

    /// Some sectors of a write, in any order: the rest never left the process.
    fn write_in_part(&mut self, slot: u32, offset: usize, bytes: &[u8]) -> Result<(), StorageError> {
        let mut rng = self.rng.clone();
        let file = self.file(slot)?;
        for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            if rng.chance(1, 2) {
                file.write(offset + index * SECTOR_BYTES, sector);
            }
        }
        self.rng = rng;
        Ok(())
    }
}

fn fault(op: &'static str, slot: u32, offset: u64, bytes: u64) -> StorageError {
    StorageError::Io { op, file: format!("slot {slot}"), offset, bytes, what: "simulated fault".to_owned() }
}

impl Storage for SimDisk {
    type Bytes = Vec<u8>;

    fn slots(&mut self) -> Result<Vec<u32>, StorageError> {
        let mut disk = self.0.borrow_mut();
        if disk.begin()? {
            return Err(StorageError::Crashed);
        }
        Ok(disk.files.keys().copied().collect())
    }

    fn create(&mut self, slot: u32, bytes: u64) -> Result<(), StorageError> {
        let mut disk = self.0.borrow_mut();
        let stops = disk.begin()?;
        let used: u64 = disk.files.values().map(|file| file.cache.len() as u64).sum();
        if used + bytes > disk.capacity_bytes {
            return Err(StorageError::Full { file: format!("slot {slot}"), bytes });
        }
        if stops && disk.rng.chance(1, 2) {
            return Err(StorageError::Crashed);
        }
        let is_entered = !stops && disk.leave_out != Some(SyncPoint::Directory);
        // A slot of a test is far below the address space.
        disk.files.insert(slot, File { is_entered, ..File::new(bytes as usize) });
        if stops { Err(StorageError::Crashed) } else { Ok(()) }
    }

    fn read(&mut self, slot: u32) -> Result<Vec<u8>, StorageError> {
        let mut disk = self.0.borrow_mut();
        if disk.begin()? {
            return Err(StorageError::Crashed);
        }
        Ok(disk.file(slot)?.cache.clone())
    }

    fn write(&mut self, slot: u32, offset: u64, bytes: &[u8], point: SyncPoint) -> Result<(), StorageError> {
        assert!(bytes.as_ptr().addr().is_multiple_of(BLOCK), "aligned in memory");
        let mut disk = self.0.borrow_mut();
        let at = offset as usize;
        if disk.begin()? {
            disk.write_in_part(slot, at, bytes)?;
            return Err(StorageError::Crashed);
        }
        let is_left_out = disk.leave_out == Some(point);
        match disk.fault.take() {
            Some(Fault::Short) => {
                let half = bytes.len() / 2;
                disk.file(slot)?.write(at, &bytes[..half]);
                let (wanted, written) = (bytes.len() as u64, half as u64);
                return Err(StorageError::Short { file: format!("slot {slot}"), offset, wanted, written });
            }
            Some(Fault::Write) => {
                disk.write_in_part(slot, at, bytes)?;
                return Err(fault("write", slot, offset, bytes.len() as u64));
            }
            Some(Fault::Sync) => {
                disk.file(slot)?.write(at, bytes);
                return Err(fault("sync", slot, offset, bytes.len() as u64));
            }
            None => {}
        }
        let file = disk.file(slot)?;
        file.write(at, bytes);
        if !is_left_out {
            file.sync_range(at, bytes.len());
        }
        Ok(())
    }

    fn sync_directory(&mut self, point: SyncPoint) -> Result<(), StorageError> {
        let mut disk = self.0.borrow_mut();
        if disk.begin()? {
            return Err(StorageError::Crashed);
        }
        if disk.leave_out != Some(point) {
            disk.files.values_mut().for_each(|file| file.is_entered = true);
        }
        Ok(())
    }

    fn sync(&mut self, slot: u32, point: SyncPoint) -> Result<(), StorageError> {
        let mut disk = self.0.borrow_mut();
        if disk.begin()? {
            return Err(StorageError::Crashed);
        }
        let is_left_out = disk.leave_out == Some(point);
        let file = disk.file(slot)?;
        if !is_left_out {
            file.sync();
        }
        Ok(())
    }
}

const BLOCK: usize = crate::journal::storage::BLOCK_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    fn block(byte: u8) -> (Vec<u8>, usize) {
        let memory = vec![byte; 2 * BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        (memory, start)
    }

    fn write(disk: &mut SimDisk, byte: u8) -> Result<(), StorageError> {
        let (memory, start) = block(byte);
        disk.write(0, 0, &memory[start..start + BLOCK], SyncPoint::Group)
    }

    /// Kinds of bytes in the first block after a power cut, over many disks.
    fn after_cut(leave_out: Option<SyncPoint>) -> Vec<bool> {
        let seen = (0..64).map(|seed| {
            let mut disk = SimDisk::new(seed, leave_out);
            disk.create(0, 1 << 16).expect("room");
            write(&mut disk, 7).expect("no fault");
            assert_eq!(disk.read(0).expect("there")[..BLOCK], [7; BLOCK]);
            disk.power_cut();
            disk.read(0).is_ok_and(|bytes| bytes[..BLOCK] == [7; BLOCK])
        });
        seen.collect()
    }

    #[test]
    fn a_power_cut_takes_what_has_no_barrier_and_nothing_else() {
        assert!(after_cut(None).iter().all(|kept| *kept));
        for point in [SyncPoint::Group, SyncPoint::Directory] {
            let kept = after_cut(Some(point));
            assert!(kept.iter().any(|kept| *kept) && !kept.iter().all(|kept| *kept), "{point:?}");
        }
    }

    #[test]
    fn the_fuse_tears_a_write_and_a_kill_loses_nothing() {
        let mut torn = 0;
        for seed in 0..32 {
            let mut disk = SimDisk::new(seed, None);
            disk.create(0, 1 << 16).expect("room");
            disk.set_fuse(Some(0));
            assert_eq!(write(&mut disk, 7), Err(StorageError::Crashed));
            assert_eq!(disk.read(0), Err(StorageError::Crashed));
            disk.kill();
            let seen = disk.read(0).expect("the machine goes on");
            let sevens = seen.iter().filter(|byte| **byte == 7).count();
            torn += u32::from(sevens > 0 && sevens < BLOCK);
            assert_eq!(sevens % SECTOR_BYTES, 0);
        }
        assert!(torn > 16);
    }

    #[test]
    fn faults_and_a_full_disk_are_values() {
        let mut disk = SimDisk::new(1, None);
        disk.set_capacity_bytes(1 << 16);
        disk.create(0, 1 << 16).expect("room");
        assert!(matches!(disk.create(1, 1), Err(StorageError::Full { .. })));
        for (fault, is_short) in [(Fault::Short, true), (Fault::Write, false), (Fault::Sync, false)] {
            disk.set_fault(fault);
            let error = write(&mut disk, 7).expect_err("a fault");
            assert_eq!(matches!(error, StorageError::Short { .. }), is_short, "{error}");
        }
        assert_eq!(write(&mut disk, 7), Ok(()));
    }
}
