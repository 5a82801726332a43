//! A disk that forgets what was not synced: slots in memory, for simulations of killed processes and power cuts.
//!
//! Sectors of 512 bytes are written whole or not at all. What is written is seen at once by every process, and survives a power cut only
//! when a sync of its own said so; without one, each sector keeps its old or any of its newer contents, one independent of the other. The entry of
//! a new slot in its directory is such a thing, too. The handle may be cloned: the disk outlives the process that is simulated.
//!
//! Pure: chance comes from a seed. Worst cases only: a durable write makes nothing durable but itself, which real disks do better.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::journal::storage::{BLOCK_BYTES, Storage, StorageError, SyncPoint};
use crate::testing::rng::SimRng;

const SECTOR_BYTES: usize = 512;

/// Something that goes wrong once, at the next operation that it can happen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write that ends early.
    Short,
    /// A write that fails, with some of its sectors written.
    Write,
    /// A sync that fails: what was to be synced is not.
    Sync,
}

/// A handle to the disk. See the module's text.
#[derive(Clone)]
pub struct SimDisk(Rc<RefCell<Disk>>);

#[derive(Clone)]
struct Disk {
    slots: BTreeMap<u32, Slot>,
    rng: SimRng,
    capacity_bytes: u64,
    /// Operations until the machine stops; `None`: it does not.
    fuse: Option<u64>,
    is_stopped: bool,
    operation_count: u64,
    leave_out: Option<SyncPoint>,
    fault: Option<Fault>,
    /// Slots that there was no room for.
    refused_count: u64,
}

#[derive(Clone)]
struct Slot {
    /// What a process reads.
    seen: Vec<u8>,
    /// What a power cut leaves, where `unsynced` says nothing else.
    durable: Vec<u8>,
    /// Sector → what was written to it since its last sync, oldest first.
    unsynced: BTreeMap<usize, Vec<[u8; SECTOR_BYTES]>>,
    is_entry_durable: bool,
}

impl SimDisk {
    #[must_use]
    pub fn new(seed: u64, leave_out: Option<SyncPoint>) -> Self {
        Self(Rc::new(RefCell::new(Disk {
            slots: BTreeMap::new(),
            rng: SimRng::new(seed),
            capacity_bytes: u64::MAX,
            fuse: None,
            is_stopped: false,
            operation_count: 0,
            leave_out,
            fault: None,
            refused_count: 0,
        })))
    }

    /// A disk of its own with the same content, synced and not.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// Changes how much fits; slots that are there stay.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.0.borrow_mut().capacity_bytes = bytes;
    }

    /// How often there was no room.
    #[must_use]
    pub fn refused_count(&self) -> u64 {
        self.0.borrow().refused_count
    }

    /// The machine stops in the operation behind the next `operations` ones, which is done in part.
    pub fn set_fuse(&self, operations: Option<u64>) {
        self.0.borrow_mut().fuse = operations;
    }

    pub fn set_fault(&self, fault: Fault) {
        self.0.borrow_mut().fault = Some(fault);
    }

    /// Steps of writes, syncs and creations up to now; a fuse counts the same. A write has two: its data, and its sync.
    #[must_use]
    pub fn operation_count(&self) -> u64 {
        self.0.borrow().operation_count
    }

    /// The process died: everything that it wrote is still seen, and still not synced.
    pub fn kill(&self) {
        let mut disk = self.0.borrow_mut();
        disk.is_stopped = false;
        disk.fuse = None;
        disk.fault = None;
    }

    /// The power went: of everything that was not synced, any part may be gone.
    pub fn power_cut(&self) {
        self.kill();
        let disk = &mut *self.0.borrow_mut();
        let Disk { slots, rng, .. } = disk;
        // Often all or nothing, which single sectors would hardly ever agree upon.
        let mood = rng.below(4);
        slots.retain(|_, slot| slot.is_entry_durable || if mood < 2 { mood == 1 } else { rng.chance(1, 2) });
        for slot in slots.values_mut() {
            slot.is_entry_durable = true;
            for (sector, versions) in std::mem::take(&mut slot.unsynced) {
                // None of them: the durable one stays.
                let kept = match mood {
                    0 => None,
                    1 => versions.last(),
                    _ => (rng.below(versions.len() as u64 + 1) as usize).checked_sub(1).map(|index| &versions[index]),
                };
                if let Some(bytes) = kept {
                    slot.durable[sector * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(bytes);
                }
            }
            slot.seen.copy_from_slice(&slot.durable);
        }
    }

    /// The slots as a process sees them.
    #[must_use]
    pub fn image(&self) -> BTreeMap<u32, Vec<u8>> {
        self.0.borrow().slots.iter().map(|(slot, bytes)| (*slot, bytes.seen.clone())).collect()
    }

    /// A disk that holds what [`SimDisk::image`] said, all of it durable.
    #[must_use]
    pub fn of_image(image: &BTreeMap<u32, Vec<u8>>) -> Self {
        let disk = Self::new(0, None);
        let slot = |bytes: &Vec<u8>| Slot {
            seen: bytes.clone(),
            durable: bytes.clone(),
            unsynced: BTreeMap::new(),
            is_entry_durable: true,
        };
        disk.0.borrow_mut().slots = image.iter().map(|(number, bytes)| (*number, slot(bytes))).collect();
        disk
    }

    /// Flips one bit of a slot, as a worn medium does.
    pub fn flip(&self, slot: u32, bit: usize) {
        let mut disk = self.0.borrow_mut();
        let slot = disk.slots.get_mut(&slot).expect("the slot exists");
        slot.seen[bit / 8] ^= 1 << (bit % 8);
        slot.durable[bit / 8] ^= 1 << (bit % 8);
    }

    #[must_use]
    pub fn slot_bytes(&self, slot: u32) -> usize {
        self.0.borrow().slots.get(&slot).map_or(0, |slot| slot.seen.len())
    }
}

impl Disk {
    /// Counts one operation; true when the machine stops in it.
    fn stops(&mut self) -> Result<bool, StorageError> {
        if self.is_stopped {
            return Err(StorageError::Crashed);
        }
        self.operation_count += 1;
        match &mut self.fuse {
            Some(0) => self.is_stopped = true,
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(self.is_stopped)
    }

    fn take_fault(&mut self, fault: Fault) -> bool {
        self.fault.take_if(|waiting| *waiting == fault).is_some()
    }

    fn slot(&mut self, slot: u32) -> Result<&mut Slot, StorageError> {
        self.slots.get_mut(&slot).ok_or_else(|| fault("open", slot, 0, 0, "no such slot"))
    }

    /// The sync that belongs to a write, or to nothing; `range` in sectors.
    fn sync(&mut self, slot: u32, range: std::ops::Range<usize>, point: SyncPoint) -> Result<(), StorageError> {
        if self.stops()? {
            return Err(StorageError::Crashed);
        }
        if self.take_fault(Fault::Sync) {
            return Err(fault("sync", slot, 0, 0, "input/output error"));
        }
        if self.leave_out == Some(point) {
            return Ok(());
        }
        let slot = self.slot(slot)?;
        let bytes = range.start * SECTOR_BYTES..range.end * SECTOR_BYTES;
        slot.durable[bytes.clone()].copy_from_slice(&slot.seen[bytes]);
        slot.unsynced.retain(|sector, _| !range.contains(sector));
        Ok(())
    }
}

impl Slot {
    fn write_sector(&mut self, sector: usize, bytes: &[u8]) {
        let bytes: [u8; SECTOR_BYTES] = bytes.try_into().expect("writes are whole sectors");
        self.seen[sector * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(&bytes);
        self.unsynced.entry(sector).or_default().push(bytes);
    }
}

impl Storage for SimDisk {
    type Bytes = Vec<u8>;

    fn slots(&mut self) -> Result<Vec<u32>, StorageError> {
        let disk = self.0.borrow();
        if disk.is_stopped { Err(StorageError::Crashed) } else { Ok(disk.slots.keys().copied().collect()) }
    }

    fn create(&mut self, slot: u32, bytes: u64) -> Result<(), StorageError> {
        assert!(bytes.is_multiple_of(BLOCK_BYTES as u64), "slots are whole blocks");
        let mut disk = self.0.borrow_mut();
        // A slot gets its name when all of it is zero and synced: a machine that stops here leaves nothing.
        if disk.stops()? {
            return Err(StorageError::Crashed);
        }
        if disk.slots.contains_key(&slot) {
            return Err(fault("create", slot, 0, bytes, "it exists"));
        }
        let used: u64 = disk.slots.values().map(|slot| slot.seen.len() as u64).sum();
        if used + bytes > disk.capacity_bytes {
            disk.refused_count += 1;
            return Err(StorageError::Full { file: name(slot), bytes });
        }
        let zeros = vec![0; bytes as usize];
        let new = Slot { seen: zeros.clone(), durable: zeros, unsynced: BTreeMap::new(), is_entry_durable: false };
        disk.slots.insert(slot, new);
        if disk.stops()? {
            return Err(StorageError::Crashed);
        }
        if disk.take_fault(Fault::Sync) {
            return Err(fault("sync", slot, 0, 0, "input/output error"));
        }
        let is_durable = disk.leave_out != Some(SyncPoint::Directory);
        disk.slot(slot)?.is_entry_durable = is_durable;
        Ok(())
    }

    fn read(&mut self, slot: u32) -> Result<Vec<u8>, StorageError> {
        let mut disk = self.0.borrow_mut();
        if disk.is_stopped {
            return Err(StorageError::Crashed);
        }
        disk.slot(slot).map(|slot| slot.seen.clone())
    }

    fn write(&mut self, slot: u32, offset: u64, bytes: &[u8], point: SyncPoint) -> Result<(), StorageError> {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "writes start at a block");
        assert!(bytes.len().is_multiple_of(BLOCK_BYTES), "writes are whole blocks");
        assert!(bytes.as_ptr().addr().is_multiple_of(BLOCK_BYTES), "the buffer is aligned to a block");
        let disk = &mut *self.0.borrow_mut();
        let is_stopped = disk.stops()?;
        let (is_short, is_failed) = (disk.take_fault(Fault::Short), disk.take_fault(Fault::Write));
        let first = offset as usize / SECTOR_BYTES;
        let count = bytes.len() / SECTOR_BYTES;
        let short_count = disk.rng.below(count as u64) as usize;
        let mut rng = SimRng::new(disk.rng.word());
        let target = disk.slot(slot)?;
        assert!(offset as usize + bytes.len() <= target.seen.len(), "slots never grow");
        for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let is_written =
                if is_short { index < short_count } else { !(is_stopped || is_failed) || rng.chance(1, 2) };
            if is_written {
                target.write_sector(first + index, sector);
            }
        }
        if is_stopped {
            return Err(StorageError::Crashed);
        }
        if is_short {
            let (wanted, written) = (bytes.len() as u64, (short_count * SECTOR_BYTES) as u64);
            return Err(StorageError::Short { file: name(slot), offset, wanted, written });
        }
        if is_failed {
            return Err(fault("write", slot, offset, bytes.len() as u64, "input/output error"));
        }
        disk.sync(slot, first..first + count, point)
    }

    fn sync_directory(&mut self, point: SyncPoint) -> Result<(), StorageError> {
        let mut disk = self.0.borrow_mut();
        if disk.stops()? {
            return Err(StorageError::Crashed);
        }
        if disk.leave_out != Some(point) {
            disk.slots.values_mut().for_each(|slot| slot.is_entry_durable = true);
        }
        Ok(())
    }

    fn sync(&mut self, slot: u32, point: SyncPoint) -> Result<(), StorageError> {
        let disk = &mut *self.0.borrow_mut();
        let sectors = disk.slot(slot)?.seen.len() / SECTOR_BYTES;
        disk.sync(slot, 0..sectors, point)
    }
}

fn name(slot: u32) -> String {
    format!("slot {slot}")
}

fn fault(op: &'static str, slot: u32, offset: u64, bytes: u64, what: &str) -> StorageError {
    StorageError::Io { op, file: name(slot), offset, bytes, what: what.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use super::*;

    const SLOT_BYTES: u64 = 16 * BLOCK_BYTES as u64;

    /// Writes two blocks of `byte`, aligned.
    fn write(disk: &mut SimDisk, byte: u8, point: SyncPoint) -> Result<(), StorageError> {
        let memory = vec![byte; 3 * BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        disk.write(0, BLOCK_BYTES as u64, &memory[start..start + 2 * BLOCK_BYTES], point)
    }

    /// Which values the sectors of the two blocks have, each counted.
    fn sectors(disk: &mut SimDisk) -> BTreeMap<u8, usize> {
        let mut counts = BTreeMap::new();
        for sector in disk.read(0).unwrap()[BLOCK_BYTES..3 * BLOCK_BYTES].chunks(SECTOR_BYTES) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is whole");
            *counts.entry(sector[0]).or_default() += 1;
        }
        counts
    }

    fn disk(seed: u64) -> SimDisk {
        let mut disk = SimDisk::new(seed, None);
        disk.set_capacity_bytes(SLOT_BYTES);
        disk.create(0, SLOT_BYTES).unwrap();
        disk
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_may_go() {
        let (mut all_kept, mut none_kept, mut torn) = (0, 0, 0);
        for seed in 0..100 {
            let mut disk = disk(seed);
            write(&mut disk, 1, SyncPoint::Group).unwrap();
            disk.0.borrow_mut().leave_out = Some(SyncPoint::Group);
            write(&mut disk, 2, SyncPoint::Group).unwrap();
            write(&mut disk, 3, SyncPoint::Group).unwrap();
            disk.kill();
            assert_eq!(sectors(&mut disk), BTreeMap::from([(3, 16)]));
            disk.power_cut();
            let counts = sectors(&mut disk);
            assert!(!counts.contains_key(&0));
            all_kept += usize::from(counts.get(&3) == Some(&16));
            none_kept += usize::from(counts.get(&1) == Some(&16));
            torn += usize::from(counts.len() == 3);
            // Nothing is left to be lost.
            disk.power_cut();
            assert_eq!(sectors(&mut disk), counts);
        }
        assert!(all_kept > 10 && none_kept > 10 && torn > 10, "{all_kept} {none_kept} {torn}");
    }

    #[test]
    fn syncs_keep_data_and_entry() {
        for seed in 0..20 {
            let mut disk = SimDisk::new(seed, Some(SyncPoint::Directory));
            disk.create(0, SLOT_BYTES).unwrap();
            disk.0.borrow_mut().leave_out = Some(SyncPoint::Header);
            write(&mut disk, 1, SyncPoint::Header).unwrap();
            disk.sync(0, SyncPoint::Tail).unwrap();
            disk.sync_directory(SyncPoint::DirectoryTail).unwrap();
            disk.power_cut();
            assert_eq!(sectors(&mut disk), BTreeMap::from([(1, 16)]));
        }
    }

    #[test]
    fn an_entry_that_was_not_synced_may_vanish() {
        let is_there = |seed| {
            let mut disk = SimDisk::new(seed, Some(SyncPoint::Directory));
            disk.create(0, SLOT_BYTES).unwrap();
            assert_eq!(disk.slots().unwrap(), [0]);
            disk.power_cut();
            !disk.slots().unwrap().is_empty()
        };
        let kept = (0..100).filter(|seed| is_there(*seed)).count();
        assert!((20..80).contains(&kept), "{kept}");
    }

    #[test]
    fn the_fuse_stops_the_machine_in_the_middle() {
        for operations in 0..4 {
            let mut disk = SimDisk::new(operations, None);
            disk.set_fuse(Some(operations));
            let created = disk.create(0, SLOT_BYTES);
            assert_eq!(created.is_err(), operations < 2);
            let written = created.and_then(|()| write(&mut disk, 1, SyncPoint::Group));
            assert_eq!(written, Err(StorageError::Crashed));
            assert_eq!(disk.slots(), Err(StorageError::Crashed));
            assert_eq!(disk.read(0), Err(StorageError::Crashed));
            disk.kill();
            assert_eq!(disk.slots().unwrap().len(), usize::from(operations > 0));
            if operations > 1 {
                // Stopped in its data: some of it; in its sync: all of it.
                assert_eq!(sectors(&mut disk).get(&1) == Some(&16), operations == 3);
            }
        }
    }

    #[test]
    fn faults_happen_once() {
        let mut disk = disk(1);
        assert_eq!(disk.create(1, SLOT_BYTES), Err(StorageError::Full { file: name(1), bytes: SLOT_BYTES }));
        disk.set_fault(Fault::Short);
        assert!(matches!(write(&mut disk, 1, SyncPoint::Group), Err(StorageError::Short { wanted: 8_192, .. })));
        disk.set_fault(Fault::Write);
        assert!(matches!(write(&mut disk, 1, SyncPoint::Group), Err(StorageError::Io { op: "write", .. })));
        disk.set_fault(Fault::Sync);
        assert!(matches!(write(&mut disk, 1, SyncPoint::Group), Err(StorageError::Io { op: "sync", .. })));
        assert_eq!(write(&mut disk, 1, SyncPoint::Group), Ok(()));
        disk.set_capacity_bytes(2 * SLOT_BYTES);
        assert_eq!(disk.create(1, SLOT_BYTES), Ok(()));
        disk.flip(0, 8 * BLOCK_BYTES + 1);
        assert_eq!(disk.read(0).unwrap()[BLOCK_BYTES], 3);
        assert_eq!(SimDisk::of_image(&disk.image()).image(), disk.image());
    }
}
