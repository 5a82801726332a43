//! Seeded runs of log, scan and history on a disk that forgets: random records, crashes in every operation, and what must be true after each.
//!
//! A failure prints `SIM_SEED=…`, which runs that seed alone; `SIM_SEEDS=100000` runs more of them.

use std::collections::BTreeMap;

use super::*;
use crate::journal::record::Record;
use crate::journal::scan::{ScanError, scan};
use crate::journal::storage::{Storage, StorageError};
use crate::journal::test_log::{closed, dropped, opened, placed, sealed, tx};
use crate::testing::disk::{Fault, SimDisk};
use crate::testing::rng::SimRng;

const SETTINGS: LogSettings =
    LogSettings { segment_bytes: 16 * BLOCK_BYTES as u64, group_bytes_max: 12_000, segments_kept_max: 3 };
const RESERVE_BYTES: u64 = 8 * BLOCK_BYTES as u64;
const PENDING_BYTES_MAX: usize = 40_000;
const LIVES: u64 = 5;
const STEPS: u64 = 150;
const SEEDS: u64 = 48;

/// One record as it was made, and what it is about.
struct Made {
    bytes: Vec<u8>,
    outline: Outline,
    /// `Admitted` and `Carried`: place in the order of arrival.
    admitted: u64,
}

/// What all records together say.
#[derive(Default)]
struct Told {
    /// Name → place in the order of arrival.
    live: BTreeMap<u64, u64>,
    newest_block: u64,
    /// Places in the open block.
    open: Option<u32>,
    /// Transactions of a block that is closed and not sealed.
    is_closed: bool,
    /// Of blocks and ends that the chain database may not have: the lowest sequence that tells of them.
    unsynced_min: Option<u64>,
}

/// Why a process stopped.
enum Stop {
    /// The disk said so.
    Storage(StorageError),
    /// It is wrong.
    Wrong(String),
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// How often what is to be tested happened.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    torn: u64,
    full: u64,
    not_full_again: u64,
    carried: u64,
    used_again: u64,
    beyond_acknowledged: u64,
    header_only: u64,
}

struct Simulation {
    disk: SimDisk,
    rng: SimRng,
    /// All records since the first one, those of the running process last.
    made: Vec<Made>,
    acknowledged: u64,
    /// The chain database holds everything up to here, on its own disk.
    chain_synced: u64,
    journals: u8,
    /// Whether the disk may fail and fill up, beside stopping.
    has_mischief: bool,
    /// Pooled transactions: few free segments early, many hold them.
    live_max: usize,
    /// The chain database is synced once in so many times: when it is late, it is what holds segments.
    sync_share: u64,
    seen: Seen,
}

impl Simulation {
    fn new(seed: u64, leave_out: Option<SyncPoint>) -> Self {
        let disk = SimDisk::new(seed, leave_out);
        disk.set_capacity_bytes(8 * SETTINGS.segment_bytes);
        let mut rng = SimRng::new(seed ^ 0x5eed);
        Self {
            disk,
            live_max: [2, 6, 24][rng.below(3) as usize],
            sync_share: 1 + 7 * rng.below(2),
            rng,
            made: vec![],
            acknowledged: 0,
            chain_synced: 0,
            journals: 0,
            has_mischief: true,
            seen: Seen::default(),
        }
    }

    /// Processes one after the other, each ended by a kill or a power cut at some operation.
    fn run(mut self) -> Result<Seen, String> {
        for _ in 0..LIVES {
            if !self.rng.chance(1, 4) {
                self.disk.set_fuse(Some(self.rng.below(2 * STEPS)));
            }
            self.life(STEPS)?;
        }
        self.last_life()?;
        Ok(self.seen)
    }

    fn last_life(&mut self) -> Result<(), String> {
        match self.start() {
            Err(Stop::Wrong(what)) => Err(what),
            Err(Stop::Storage(error)) => Err(format!("a good disk: {error}")),
            Ok(_) => Ok(()),
        }
    }

    fn life(&mut self, steps: u64) -> Result<(), String> {
        match self.process(steps) {
            Err(Stop::Wrong(what)) => return Err(what),
            // The process must not go on, so it does not.
            Err(Stop::Storage(_)) | Ok(()) => {}
        }
        if self.rng.chance(1, 2) {
            self.disk.kill()
        } else {
            self.disk.power_cut()
        }
        Ok(())
    }

    fn process(&mut self, steps: u64) -> Result<(), Stop> {
        let mut log = self.start()?;
        let mut was_full = false;
        for _ in 0..steps {
            let is_full = log.space() < RESERVE_BYTES;
            self.seen.full += u64::from(is_full && !was_full);
            self.seen.not_full_again += u64::from(was_full && !is_full);
            was_full = is_full;
            match self.rng.below(32) {
                0..12 => self.turn(&mut log, is_full),
                12..24 => self.write(&mut log)?,
                24..26 => self.make_slot(&mut log)?,
                26..28 if self.rng.chance(1, self.sync_share) => {
                    self.chain_synced += self.rng.below(self.acknowledged - self.chain_synced + 1);
                    log.chain_synced(Sequence(self.chain_synced));
                }
                26..31 => self.carry(&mut log),
                _ if self.has_mischief => self.mischief(),
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads the journal, compares it with everything that was made, and goes on behind it.
    fn start(&mut self) -> Result<Log, Stop> {
        let mut disk = self.disk.clone();
        let scanned = scan(&mut disk).map_err(|error| match error {
            ScanError::Storage(error) => Stop::Storage(error),
            error => Stop::Wrong(format!("scan: {error}")),
        })?;
        let Some(scanned) = scanned else {
            self.is_kept(0)?;
            self.journals += 1;
            let mut log = Log::create(SETTINGS, [self.journals; 16]);
            for slot in disk.slots()? {
                log.adopt_slot(slot, SETTINGS.segment_bytes);
            }
            return Ok(log);
        };
        self.is_kept(scanned.next.0 - 1)?;
        let mut first = None;
        for (at, bytes) in scanned.records() {
            let sequence = Outline::of(bytes).map_or(0, |outline| outline.sequence.0);
            let expected = first.get_or_insert(sequence);
            let made = self.made.get(sequence as usize - 1);
            if made.is_none_or(|made| made.bytes != bytes) || scanned.record_at(at) != bytes || sequence < *expected {
                return Err(Stop::Wrong(format!("record {sequence} is another")));
            }
        }
        let first = first.unwrap_or(scanned.next.0);
        let told = self.told();
        let needed = told.live.keys().next().copied().into_iter().chain(told.unsynced_min).min();
        if needed.is_some_and(|needed| needed < first) {
            return Err(Stop::Wrong(format!("records from {needed:?} on are needed, the first is {first}")));
        }
        let history = History::read(scanned.records()).map_err(|error| Stop::Wrong(format!("history: {error}")))?;
        if !history.live.iter().map(|tx| (tx.name.0, tx.admitted.0)).collect::<BTreeMap<_, _>>().iter().eq(&told.live) {
            return Err(Stop::Wrong("other transactions are live".to_owned()));
        }
        self.seen.torn += u64::from(scanned.torn.is_some());
        self.seen.header_only += u64::from(scanned.offset == BLOCK_BYTES as u64);
        let slots = disk.slots()?.len() as u64;
        self.seen.used_again += u64::from(scanned.segments.last().is_some_and(|segment| segment.id >= slots));
        Ok(Log::resume(SETTINGS, &scanned, &history))
    }

    /// What a start found: everything acknowledged, and nothing that was never made.
    fn is_kept(&mut self, last: u64) -> Result<(), Stop> {
        if last < self.acknowledged {
            return Err(Stop::Wrong(format!("{} is acknowledged, {last} is there", self.acknowledged)));
        }
        if last > self.made.len() as u64 {
            return Err(Stop::Wrong(format!("{} were made, {last} are there", self.made.len())));
        }
        self.seen.beyond_acknowledged += u64::from(last > self.acknowledged);
        self.made.truncate(last as usize);
        self.acknowledged = last;
        Ok(())
    }

    /// Plain and slow: from all records, without segments.
    fn told(&self) -> Told {
        let mut told = Told::default();
        let mut block_min = u64::MAX;
        let mut unsynced_min = u64::MAX;
        for (index, made) in self.made.iter().enumerate() {
            let (sequence, subject) = (index as u64 + 1, made.outline.subject);
            match made.outline.kind {
                RecordType::Admitted => {
                    told.live.insert(sequence, sequence);
                }
                RecordType::Carried => {
                    told.live.remove(&subject);
                    told.live.insert(sequence, made.admitted);
                }
                RecordType::Dropped => {
                    told.live.remove(&subject);
                    if sequence > self.chain_synced {
                        unsynced_min = unsynced_min.min(sequence);
                    }
                }
                RecordType::Opened => {
                    block_min = sequence;
                    (told.newest_block, told.open) = (subject, Some(0));
                }
                RecordType::Placed => {
                    told.live.remove(&subject);
                    block_min = block_min.min(subject);
                    told.open = told.open.map(|count| count + 1);
                }
                RecordType::Closed => told.is_closed = true,
                RecordType::Sealed => {
                    (told.open, told.is_closed) = (None, false);
                    if sequence > self.chain_synced {
                        unsynced_min = unsynced_min.min(block_min);
                    }
                    block_min = u64::MAX;
                }
                RecordType::RolledBack => {}
            }
        }
        let min = unsynced_min.min(block_min);
        told.unsynced_min = (min < u64::MAX).then_some(min);
        told
    }

    /// What the builder core hands over at the end of a turn.
    fn turn(&mut self, log: &mut Log, is_full: bool) {
        let durable = self.acknowledged as usize;
        let pending: usize = self.made[durable..].iter().map(|made| made.bytes.len()).sum();
        if pending > PENDING_BYTES_MAX {
            return;
        }
        let mut told = self.told();
        let mut out = Vec::new();
        for _ in 0..=self.rng.below(6) {
            let names: Vec<u64> = told.live.keys().copied().collect();
            // Mostly young ones leave, so that some stay for long.
            let leaving = names.len().checked_sub(1 + self.rng.below(4) as usize).map(|index| names[index]);
            match (self.rng.below(8), told.open, leaving) {
                (_, Some(tx_count), _) if told.is_closed || is_full => {
                    let number = told.newest_block;
                    if told.is_closed {
                        self.make(&sealed(number), 0, &mut out);
                    } else {
                        self.make(&closed(number, tx_count), 0, &mut out);
                    }
                }
                _ if is_full => break,
                (0..4, _, _) if names.len() < self.live_max => self.admit(&mut out),
                (4, _, Some(tx)) => {
                    self.make(&dropped(tx), 0, &mut out);
                }
                (5, Some(tx_count), _) => {
                    self.make(&closed(told.newest_block, tx_count), 0, &mut out);
                }
                (_, Some(index), Some(tx)) => {
                    self.make(&placed(tx, index), 0, &mut out);
                }
                (_, None, _) => self.make(&opened(told.newest_block + 1), 0, &mut out),
                _ => {}
            }
            told = self.told();
        }
        log.append(&out);
    }

    fn admit(&mut self, out: &mut Vec<u8>) {
        let raw = self.raw();
        self.make(&Record::Admitted(tx(&raw)), self.made.len() as u64 + 1, out);
    }

    /// Bytes of a transaction: small ones, and some that are nearly too large for a group.
    fn raw(&mut self) -> Vec<u8> {
        let bytes_max = if self.rng.chance(1, 12) { 11_000 } else { 900 };
        let bytes = self.rng.below(bytes_max);
        (0..bytes).map(|_| self.rng.word() as u8).collect()
    }

    /// Copies some of what holds the oldest segment.
    fn carry(&mut self, log: &mut Log) {
        let Some(below) = log.carry_below() else { return };
        let mut out = Vec::new();
        let old: Vec<(u64, u64)> = self.told().live.range(..below.0).take(3).map(|(n, a)| (*n, *a)).collect();
        for (previous, admitted) in old {
            let raw = self.raw();
            let (previous, place) = (Sequence(previous), Sequence(admitted));
            self.make(&Record::Carried { admitted: place, previous, tx: tx(&raw) }, admitted, &mut out);
            self.seen.carried += 1;
        }
        log.append(&out);
    }

    fn make(&mut self, record: &Record<'_>, admitted: u64, out: &mut Vec<u8>) {
        let sequence = Sequence(self.made.len() as u64 + 1);
        let start = out.len();
        record.encode(sequence, out);
        let mut bytes = out[start..].to_vec();
        seal_checksum(&mut bytes);
        let outline = Outline::of(&bytes).expect("a record was encoded");
        self.made.push(Made { bytes, outline, admitted });
    }

    fn write(&mut self, log: &mut Log) -> Result<(), Stop> {
        let Some(write) = log.next_write(self.rng.word()) else { return Ok(()) };
        self.disk.write(write.slot, write.offset, write.bytes, write.point)?;
        if let Some(last) = log.written() {
            assert!(last.0 > self.acknowledged);
            self.acknowledged = last.0;
        }
        Ok(())
    }

    fn make_slot(&mut self, log: &mut Log) -> Result<(), Stop> {
        let Some((slot, bytes)) = log.wanted_slot() else { return Ok(()) };
        match self.disk.create(slot, bytes) {
            Ok(()) => log.slot_created(slot),
            Err(StorageError::Full { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Disks fail and fill up; rarely, so that something happens in between.
    fn mischief(&mut self) {
        match self.rng.below(30) {
            0 => self.disk.set_fault(Fault::Short),
            1 => self.disk.set_fault(Fault::Write),
            2 => self.disk.set_fault(Fault::Sync),
            3..10 => {
                let slots = 3 + self.rng.below(8);
                self.disk.set_capacity_bytes(slots * SETTINGS.segment_bytes);
            }
            _ => {}
        }
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn what_was_acknowledged_is_there_after_every_crash() {
    let one = from_environment("SIM_SEED");
    let seeds = one.map_or(0..from_environment("SIM_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let mut all = Seen::default();
    for seed in seeds {
        let seen = Simulation::new(seed, None).run();
        let seen =
            seen.unwrap_or_else(|what| panic!("{what}\nSIM_SEED={seed} cargo test --lib journal::log::simulation"));
        all.torn += seen.torn;
        all.full += seen.full;
        all.not_full_again += seen.not_full_again;
        all.carried += seen.carried;
        all.used_again += seen.used_again;
        all.beyond_acknowledged += seen.beyond_acknowledged;
        all.header_only += seen.header_only;
    }
    if one.is_none() {
        let counts = [
            all.torn,
            all.full,
            all.not_full_again,
            all.carried,
            all.used_again,
            all.beyond_acknowledged,
            all.header_only,
        ];
        assert!(counts.iter().all(|count| *count > 0), "something never happened: {all:?}");
    }
}

#[test]
fn a_crash_in_every_operation() {
    for seed in [3, 4] {
        let quiet = || Simulation { has_mischief: false, ..Simulation::new(seed, None) };
        let mut whole = quiet();
        assert!(whole.process(STEPS).is_ok());
        let operations = whole.disk.operation_count();
        for (operation, is_power_cut) in (0..operations).flat_map(|operation| [(operation, false), (operation, true)]) {
            let mut simulation = quiet();
            simulation.disk.set_fuse(Some(operation));
            assert!(matches!(simulation.process(STEPS), Err(Stop::Storage(StorageError::Crashed))));
            if is_power_cut {
                simulation.disk.power_cut()
            } else {
                simulation.disk.kill()
            }
            let after = simulation.life(STEPS / 4).and_then(|()| simulation.last_life());
            after.unwrap_or_else(|what| panic!("{what}: seed {seed}, operation {operation}, power cut {is_power_cut}"));
        }
    }
}

#[test]
fn every_sync_that_is_left_out_is_missed() {
    for point in [SyncPoint::Group, SyncPoint::Header, SyncPoint::Directory, SyncPoint::Tail, SyncPoint::DirectoryTail]
    {
        let found = (0..2 * SEEDS).find(|seed| Simulation::new(*seed, Some(point)).run().is_err());
        assert!(found.is_some(), "nobody missed {point:?}");
    }
}
