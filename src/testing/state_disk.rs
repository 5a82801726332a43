//! A disk for state files that forgets what was not synced, in memory, and the store over it that tests and benches use.
//!
//! Sectors of 512 bytes are written whole or not at all. What is written is seen at once, and survives a power cut only when a sync said so;
//! without one, each sector keeps its old or any of its newer contents, one independent of the other. The same goes for the entry of a new file, and for the
//! deletion of an old one. The handle may be cloned: the disk outlives the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use rayon::ThreadPool;

use crate::runtime::address_range::AddressRange;
use crate::state::StateError;
use crate::state::files::FileStore;
use crate::state::files::disk::{Disk, FileName, SyncPoint};
use crate::state::files::recovery::StateSettings;
use crate::testing::rng::SimRng;

const SECTOR_WORDS: usize = 64;

/// A store in memory, for those who only need one.
#[must_use]
pub fn store(pool: Arc<ThreadPool>) -> FileStore {
    let settings = StateSettings { segment_bytes: 8 << 20, range_bytes: 16 << 30 };
    FileStore::open(pool, Box::new(StateDisk::new(0)), settings).expect("a disk in memory takes a new state")
}

/// See the module's text.
#[derive(Clone)]
pub struct StateDisk(Arc<Mutex<Files>>);

struct Files {
    files: BTreeMap<u32, SimFile>,
    rng: SimRng,
    capacity_bytes: u64,
    /// Operations until the machine stops; `None`: it does not.
    fuse: Option<u64>,
    is_stopped: bool,
    operation_count: u64,
    leave_out: Option<SyncPoint>,
    fails_next_sync: bool,
}

struct SimFile {
    seen: Vec<u64>,
    durable: Vec<u64>,
    /// Sector → what was written to it since its last sync, oldest first.
    unsynced: BTreeMap<usize, Vec<[u64; SECTOR_WORDS]>>,
    is_entry_durable: bool,
    /// Deleted, and the deletion is not durable.
    is_removed: bool,
    mapped: Option<(Arc<AddressRange>, usize)>,
}

impl StateDisk {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Files {
            files: BTreeMap::new(),
            rng: SimRng::new(seed),
            capacity_bytes: u64::MAX,
            fuse: None,
            is_stopped: false,
            operation_count: 0,
            leave_out: None,
            fails_next_sync: false,
        })))
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().expect("nobody panics with the lock")
    }

    pub fn leave_out(&self, point: Option<SyncPoint>) {
        self.files().leave_out = point;
    }

    /// Changes how much fits; files that are there stay.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.files().capacity_bytes = bytes;
    }

    /// The machine stops in the operation behind the next `operations` ones, which is done in part.
    pub fn set_fuse(&self, operations: Option<u64>) {
        self.files().fuse = operations;
    }

    pub fn fail_next_sync(&self) {
        self.files().fails_next_sync = true;
    }

    /// Creations, writes, syncs and deletions up to now; a fuse counts the same.
    #[must_use]
    pub fn operation_count(&self) -> u64 {
        self.files().operation_count
    }

    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.files().used_bytes()
    }

    /// The process died: everything that it wrote is still seen, and still not synced.
    pub fn kill(&self) {
        let files = &mut *self.files();
        files.is_stopped = false;
        files.fuse = None;
        files.fails_next_sync = false;
        files.files.values_mut().for_each(|file| file.mapped = None);
    }

    /// The power went: of everything that was not synced, any part may be gone.
    pub fn power_cut(&self) {
        self.kill();
        let files = &mut *self.files();
        let Files { files, rng, .. } = files;
        // Often all or nothing, which single sectors would hardly ever agree upon.
        let mood = rng.below(4);
        files.retain(|_, file| match (file.is_entry_durable, file.is_removed) {
            (true, false) => true,
            _ if mood < 2 => (mood == 1) != file.is_removed,
            _ => rng.chance(1, 2),
        });
        for file in files.values_mut() {
            file.is_entry_durable = true;
            file.is_removed = false;
            for (sector, versions) in std::mem::take(&mut file.unsynced) {
                let kept = match mood {
                    0 => None,
                    1 => versions.last(),
                    _ => (rng.below(versions.len() as u64 + 1) as usize).checked_sub(1).map(|index| &versions[index]),
                };
                if let Some(words) = kept {
                    file.durable[sector * SECTOR_WORDS..][..SECTOR_WORDS].copy_from_slice(words);
                }
            }
            file.seen.copy_from_slice(&file.durable);
        }
    }

    /// Flips one bit of a file, as a worn medium does. Nobody reads the file meanwhile.
    pub fn flip(&self, number: u32, bit: usize) {
        let mut files = self.files();
        let file = files.files.get_mut(&number).expect("the file exists");
        file.seen[bit / 64] ^= 1 << (bit % 64);
        file.durable[bit / 64] ^= 1 << (bit % 64);
        file.mirror(bit / 64 * 8, &[file.seen[bit / 64]]);
    }

    /// The words of a file as a process sees them.
    #[must_use]
    pub fn words(&self, number: u32) -> Vec<u64> {
        self.files().files.get(&number).map_or_else(Vec::new, |file| file.seen.clone())
    }

    /// The numbers of the files that are seen.
    #[must_use]
    pub fn numbers(&self) -> Vec<u32> {
        self.files().seen().collect()
    }
}

impl SimFile {
    /// Shows a change to those who mapped the file.
    fn mirror(&self, offset: usize, words: &[u64]) {
        if let Some((range, at)) = &self.mapped {
            crate::testing::state_map::store(range, at + offset, words);
        }
    }

    fn write_sector(&mut self, sector: usize, words: &[u64]) {
        let words: [u64; SECTOR_WORDS] = words.try_into().expect("writes are whole sectors");
        self.seen[sector * SECTOR_WORDS..][..SECTOR_WORDS].copy_from_slice(&words);
        self.unsynced.entry(sector).or_default().push(words);
        self.mirror(sector * SECTOR_WORDS * 8, &words);
    }
}

impl Files {
    /// Counts one operation; true when the machine stops in it.
    fn stops(&mut self) -> Result<bool, StateError> {
        if self.is_stopped {
            return Err(StateError::Crashed);
        }
        self.operation_count += 1;
        match &mut self.fuse {
            Some(0) => self.is_stopped = true,
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(self.is_stopped)
    }

    fn seen(&self) -> impl Iterator<Item = u32> {
        self.files.iter().filter(|(_, file)| !file.is_removed).map(|(number, _)| *number)
    }

    fn used_bytes(&self) -> u64 {
        self.files.values().filter(|file| !file.is_removed).map(|file| file.seen.len() as u64 * 8).sum()
    }

    fn file(&mut self, number: u32) -> Result<&mut SimFile, StateError> {
        let file = self.files.get_mut(&number).filter(|file| !file.is_removed);
        file.ok_or_else(|| fault("open", number, ENOENT))
    }
}

/// As the kernel numbers them.
const ENOENT: i32 = 2;
const EIO: i32 = 5;

impl Disk for StateDisk {
    fn list(&mut self) -> Result<Vec<u32>, StateError> {
        let files = self.files();
        if files.is_stopped { Err(StateError::Crashed) } else { Ok(files.seen().collect()) }
    }

    fn create(&mut self, number: u32, bytes: u64) -> Result<(), StateError> {
        let files = &mut *self.files();
        if files.stops()? {
            return Err(StateError::Crashed);
        }
        if files.files.get(&number).is_some_and(|file| !file.is_removed) {
            return Err(fault("create", number, 17));
        }
        if files.used_bytes() + bytes > files.capacity_bytes {
            return Err(StateError::Full { file: FileName(number), bytes });
        }
        let zeros = vec![0; (bytes / 8) as usize];
        let file = SimFile {
            seen: zeros.clone(),
            durable: zeros,
            unsynced: BTreeMap::new(),
            is_entry_durable: false,
            is_removed: false,
            mapped: None,
        };
        files.files.insert(number, file);
        Ok(())
    }

    fn write(&mut self, number: u32, offset: u64, parts: &[&[u64]]) -> Result<(), StateError> {
        let files = &mut *self.files();
        let is_stopped = files.stops()?;
        let mut rng = SimRng::new(files.rng.word());
        let words = parts.concat();
        let first = offset as usize / 8 / SECTOR_WORDS;
        assert!(offset.is_multiple_of(4_096) && words.len().is_multiple_of(512), "writes are whole blocks");
        let file = files.file(number)?;
        assert!(offset as usize / 8 + words.len() <= file.seen.len(), "files never grow");
        for (index, sector) in words.chunks(SECTOR_WORDS).enumerate() {
            if !is_stopped || rng.chance(1, 2) {
                file.write_sector(first + index, sector);
            }
        }
        if is_stopped { Err(StateError::Crashed) } else { Ok(()) }
    }

    fn read(&mut self, number: u32, offset: u64, words: &mut [u64]) -> Result<(), StateError> {
        let files = &mut *self.files();
        if files.is_stopped {
            return Err(StateError::Crashed);
        }
        let file = files.file(number)?;
        let start = (offset as usize / 8).min(file.seen.len());
        let count = words.len().min(file.seen.len() - start);
        words.fill(0);
        words[..count].copy_from_slice(&file.seen[start..start + count]);
        Ok(())
    }

    fn sync(&mut self, number: u32, point: SyncPoint) -> Result<(), StateError> {
        let files = &mut *self.files();
        if files.stops()? {
            return Err(StateError::Crashed);
        }
        if std::mem::take(&mut files.fails_next_sync) {
            return Err(fault("sync", number, EIO));
        }
        if files.leave_out == Some(point) {
            return Ok(());
        }
        let file = files.file(number)?;
        for sector in std::mem::take(&mut file.unsynced).into_keys() {
            let at = sector * SECTOR_WORDS;
            file.durable[at..at + SECTOR_WORDS].copy_from_slice(&file.seen[at..at + SECTOR_WORDS]);
        }
        Ok(())
    }

    fn sync_directory(&mut self, point: SyncPoint) -> Result<(), StateError> {
        let files = &mut *self.files();
        if files.stops()? {
            return Err(StateError::Crashed);
        }
        if files.leave_out != Some(point) {
            files.files.retain(|_, file| !file.is_removed);
            files.files.values_mut().for_each(|file| file.is_entry_durable = true);
        }
        Ok(())
    }

    fn remove(&mut self, number: u32) -> Result<(), StateError> {
        let files = &mut *self.files();
        if files.stops()? {
            return Err(StateError::Crashed);
        }
        let file = files.file(number)?;
        file.is_removed = true;
        file.mapped = None;
        Ok(())
    }

    fn map(&mut self, number: u32, range: &Arc<AddressRange>, at: usize, bytes: u64) -> Result<(), StateError> {
        let files = &mut *self.files();
        if files.is_stopped {
            return Err(StateError::Crashed);
        }
        let file = files.file(number)?;
        if file.seen.len() as u64 * 8 != bytes {
            return Err(StateError::Damaged { file: FileName(number), offset: 0, what: "the file has another length" });
        }
        crate::testing::state_map::map(range, at, &file.seen);
        file.mapped = Some((Arc::clone(range), at));
        Ok(())
    }

    fn handle(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }

    fn prepare(&mut self, _: u64) -> Result<bool, StateError> {
        Ok(false)
    }
}

fn fault(op: &'static str, number: u32, code: i32) -> StateError {
    StateError::Io { op, file: FileName(number), offset: 0, code }
}
