#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Arc;

use alloy_primitives::{B256, Bytes, U256};
use proptest::prelude::*;
use rayon::ThreadPool;

use super::recovery::StateSettings;
use super::sync::Syncer;
use super::verify::verify;
use super::*;
use crate::state::memory::{Model, changes_strategy, check, info, test_address};
use crate::state::{AccountChange, StateReader, StateStore};
use crate::testing::rng::SimRng;
use crate::testing::state_disk::StateDisk;

const SEGMENT_BYTES: u64 = 256 << 10;

fn pool() -> Arc<ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap())
}

fn settings() -> StateSettings {
    StateSettings { segment_bytes: SEGMENT_BYTES, range_bytes: 1 << 30 }
}

fn open(pool: &Arc<ThreadPool>, disk: &StateDisk) -> Result<(FileStore, Syncer), StateError> {
    let mut store = FileStore::open(Arc::clone(pool), Box::new(disk.clone()), settings())?;
    let syncer = store.take_syncer().unwrap();
    Ok((store, syncer))
}

fn change(number: u64, nonce: u64) -> AccountChange {
    AccountChange { address: test_address(number), account: Some(info(nonce)), storage_cleared: false, storage: vec![] }
}

/// A block of `count` random changes below `accounts`, some of them deletions, with storage, and now and then a code.
fn random_changes(rng: &mut SimRng, count: u64, accounts: u64) -> StateChanges {
    let mut changes = StateChanges::default();
    for _ in 0..count {
        let number = rng.below(accounts);
        if changes.accounts.iter().any(|change: &AccountChange| change.address == test_address(number)) {
            continue;
        }
        let account = (!rng.chance(1, 6)).then(|| info(rng.below(1_000)));
        let slots = rng.below(4);
        let storage = (0..slots).map(|slot| (U256::from(slot * 7 + rng.below(7)), U256::from(rng.below(5)))).collect();
        changes.accounts.push(AccountChange {
            address: test_address(number),
            account,
            storage_cleared: rng.chance(1, 20),
            storage,
        });
    }
    if rng.chance(1, 3) {
        let code = Bytes::from(vec![rng.below(200) as u8; 1 + rng.below(900) as usize]);
        changes.codes.push((crate::crypto::keccak::keccak256(&code), code));
    }
    changes
}

fn probes() -> Vec<(Address, Vec<U256>)> {
    (0..62).step_by(9).map(|number| (test_address(number), (0..42).step_by(11).map(U256::from).collect())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Histories with deletions, roll-backs to older versions, moved nodes, syncs and new starts.
    #[test]
    fn histories(
        steps in prop::collection::vec(
            (changes_strategy(), 0usize..4, prop::option::of(1usize..4_000), 0u8..4),
            1..14,
        ),
    ) {
        let (pool, disk) = (pool(), StateDisk::new(1));
        let (mut store, mut syncer) = open(&pool, &disk).unwrap();
        let mut versions = vec![(ROOT_EMPTY, Model::default())];
        for (number, (changes, back, reclaim, event)) in steps.into_iter().enumerate() {
            let parent = versions.len() - 1 - back.min(versions.len() - 1);
            let (root, mut model) = versions[parent].clone();
            let parent = if root == ROOT_EMPTY { store.empty() } else { store.retained(&root).unwrap() };
            let reader = store.commit_block(Stamp { number: number as u64, sequence: 0 }, &parent, &changes).unwrap();
            model.apply(&changes);
            check(&reader, &model, &probes());
            versions.push((reader.root(), model));
            if let Some(fuel_words) = reclaim {
                store.step(fuel_words).unwrap();
                let moved = store.newest().unwrap();
                let (_, model) = &versions[versions.len() - 1];
                check(moved, model, &probes());
                prop_assert_eq!(verify(moved).unwrap().accounts, model.accounts.len() as u64);
            }
            if event > 0 {
                syncer.sync(u64::MAX).unwrap();
                store.reclaim().unwrap();
            }
            if event > 1 {
                drop((reader, parent, store, syncer));
                if event == 2 { disk.kill() } else { disk.power_cut() }
                (store, syncer) = open(&pool, &disk).unwrap();
            }
        }
        for (root, model) in versions.iter().filter(|(root, _)| *root != ROOT_EMPTY) {
            let retained = store.retained(root).unwrap();
            check(&retained, model, &[(test_address(5), vec![U256::ZERO])]);
            prop_assert_eq!(verify(&retained).unwrap().accounts, model.accounts.len() as u64);
        }
    }
}

/// What a process of the simulation did and knows.
struct Run {
    disk: StateDisk,
    rng: SimRng,
    /// By block number.
    models: Vec<Model>,
    /// Up to where a slot was said to be durable.
    durable: Option<u64>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self { disk: StateDisk::new(seed), rng: SimRng::new(seed ^ 0xabcd), models: Vec::new(), durable: None }
    }

    /// Commits, syncs and reclaims until `rounds` are over or the machine stops; then what came back must be a prefix that is long enough.
    fn life(&mut self, pool: &Arc<ThreadPool>, rounds: u64) -> Result<(), StateError> {
        let (mut store, mut syncer) = open(pool, &self.disk)?;
        let mut parent = self.check(&store);
        for _ in 0..rounds {
            let count = 1 + self.rng.below(12);
            let changes = random_changes(&mut self.rng, count, 40);
            let number = self.models.len() as u64;
            let mut model = self.models.last().cloned().unwrap_or_default();
            model.apply(&changes);
            parent = store.commit_block(Stamp { number, sequence: number }, &parent, &changes)?;
            assert_eq!(parent.root(), model.root());
            self.models.push(model);
            if self.rng.chance(1, 2) {
                syncer.sync(u64::MAX)?;
                self.durable = Some(number);
            }
            if self.rng.chance(1, 3) {
                store.step(1 + self.rng.below(3_000) as usize)?;
            }
            store.reclaim()?;
        }
        Ok(())
    }

    /// The newest version of a store must be one that was made, not older than what was durable, and whole.
    fn check(&mut self, store: &FileStore) -> Reader {
        let Some(newest) = store.newest() else {
            assert_eq!(self.durable, None, "what was durable is gone");
            self.models.clear();
            return store.empty();
        };
        let number = newest.stamp().number;
        assert!(
            self.durable.is_none_or(|durable| number >= durable),
            "block {number} came back, {:?} was durable",
            self.durable
        );
        for reader in store.retained_versions() {
            let model = &self.models[reader.stamp().number as usize];
            assert_eq!(reader.root(), model.root(), "block {}", reader.stamp().number);
        }
        let model = &self.models[number as usize];
        assert_eq!(verify(newest).unwrap().accounts, model.accounts.len() as u64);
        self.models.truncate(number as usize + 1);
        self.durable = self.durable.map(|durable| durable.min(number));
        newest.clone()
    }

    /// One process that dies in the middle of something.
    fn die(&mut self, pool: &Arc<ThreadPool>, is_power: bool) {
        self.disk.set_fuse(Some(self.rng.below(60)));
        match self.life(pool, 12) {
            Ok(()) | Err(StateError::Crashed) => {}
            Err(error) => panic!("{error}"),
        }
        if is_power { self.disk.power_cut() } else { self.disk.kill() }
    }
}

/// How many power cuts: `STATE_POWER_CUTS` says so, 20,000 for a release.
fn cut_count() -> u64 {
    std::env::var("STATE_POWER_CUTS").ok().and_then(|count| count.parse().ok()).unwrap_or(600)
}

#[test]
fn power_cuts_at_any_write_leave_the_last_good_root_or_an_older_one() {
    let pool = pool();
    for seed in 0..cut_count().div_ceil(20) {
        let mut run = Run::new(seed);
        for cut in 0..20 {
            let is_power = cut % 4 != 3;
            run.die(&pool, is_power);
        }
        run.life(&pool, 1).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// A state without one of its syncs loses something within a few hundred power cuts.
#[test]
fn every_sync_is_needed() {
    let pool = pool();
    for point in disk::SyncPoint::ALL {
        let fails = |seed: u64| {
            let attempt = || {
                let mut run = Run::new(seed);
                run.disk.leave_out(Some(point));
                for _ in 0..20 {
                    run.disk.set_fuse(Some(run.rng.below(60)));
                    match run.life(&pool, 12) {
                        Ok(()) | Err(StateError::Crashed) => {}
                        Err(_) => return true,
                    }
                    if run.rng.chance(1, 2) { run.disk.power_cut() } else { run.disk.kill() }
                }
                false
            };
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt)).unwrap_or(true)
        };
        assert!((0..200).any(fails), "nothing needs {point:?}");
    }
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let pool = pool();
    for seed in 0..40 {
        let mut run = Run::new(seed);
        run.life(&pool, 6).unwrap();
        run.disk.set_capacity_bytes(run.disk.used_bytes());
        let (mut store, mut syncer) = open(&pool, &run.disk).unwrap();
        let mut parent = run.check(&store);
        let before = parent.clone();
        let outcome = (0..10_000_u64).try_for_each(|_| {
            let changes = random_changes(&mut run.rng, 20, 40);
            parent = store.commit(&parent, &changes)?;
            syncer.sync(u64::MAX).map(drop)
        });
        assert!(matches!(outcome, Err(StateError::Full { bytes: SEGMENT_BYTES, .. })), "{outcome:?}");
        assert!(matches!(
            store.commit(&parent, &StateChanges { accounts: vec![change(1, 1)], codes: vec![] }),
            Err(StateError::Poisoned)
        ));
        assert!(verify(&parent).is_ok() && verify(&before).is_ok());
        let root = parent.root();
        drop((store, syncer, parent, before));
        run.disk.kill();
        run.disk.set_capacity_bytes(u64::MAX);
        let (store, _syncer) = open(&pool, &run.disk).unwrap();
        assert_eq!(store.newest().unwrap().root(), root);
        assert!(verify(store.newest().unwrap()).is_ok());
    }
}

#[test]
fn a_failed_sync_is_final() {
    let (pool, disk) = (pool(), StateDisk::new(3));
    let (mut store, mut syncer) = open(&pool, &disk).unwrap();
    let changes = StateChanges { accounts: vec![change(1, 1)], codes: vec![] };
    let reader = store.commit(&store.empty(), &changes).unwrap();
    disk.fail_next_sync();
    assert!(matches!(syncer.sync(u64::MAX), Err(StateError::Io { op: "sync", .. })));
    assert_eq!(store.commit(&reader, &changes).err(), Some(StateError::Poisoned));
    assert_eq!(reader.account(&test_address(1)).unwrap().unwrap().nonce, 1);
}

/// A version counts only when the journal is durable up to what it stands for.
#[test]
fn a_slot_waits_for_the_journal() {
    let (pool, disk) = (pool(), StateDisk::new(3));
    let (mut store, mut syncer) = open(&pool, &disk).unwrap();
    let changes = StateChanges { accounts: vec![change(1, 1)], codes: vec![] };
    store.commit_block(Stamp { number: 1, sequence: 77 }, &store.empty(), &changes).unwrap();
    assert!(!syncer.sync(76).unwrap());
    assert!(syncer.sync(77).unwrap());
    assert!(!syncer.sync(77).unwrap(), "nothing is left to do");
    assert_eq!(store.cells().durable_number.load(std::sync::atomic::Ordering::Relaxed), 1);
}

/// Every flipped bit of every live node is found by a read, by `verify`, or is in what nobody reads.
#[test]
fn a_flipped_bit_is_an_error_that_names_its_place() {
    let (pool, disk) = (pool(), StateDisk::new(5));
    let mut run = Run { disk: disk.clone(), ..Run::new(5) };
    run.life(&pool, 8).unwrap();
    let (store, _syncer) = open(&pool, &disk).unwrap();
    let newest = store.newest().unwrap().clone();
    let model = run.models[newest.stamp().number as usize].clone();
    let words = disk.words(1).len();
    let mut found = 0;
    for bit in (512 * 64..words * 64).step_by(211) {
        if bit / 64 >= newest.version.space.end() as usize - words {
            break;
        }
        disk.flip(1, bit);
        match verify(&newest) {
            Err(StateError::Damaged { file, offset, .. }) => {
                found += 1;
                assert_eq!(file.0, 1);
                assert!(offset <= bit as u64 / 8, "offset {offset}, bit {bit}");
            }
            Err(error) => panic!("{error}"),
            Ok(_) => {}
        }
        for (address, _) in &probes() {
            match newest.account(address) {
                Ok(account) => assert_eq!(
                    account.map(|account| account.nonce),
                    model.accounts.get(address).map(|(info, _)| info.nonce)
                ),
                Err(StateError::Damaged { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        disk.flip(1, bit);
    }
    assert!(found > 20, "{found}");
    assert!(verify(&newest).is_ok());
}

#[test]
fn codes_are_found_by_hash_and_survive() {
    let (pool, disk) = (pool(), StateDisk::new(6));
    let (mut store, mut syncer) = open(&pool, &disk).unwrap();
    let code = |number: u16| {
        let code = Bytes::from(number.to_le_bytes().repeat(1 + usize::from(number) % 700));
        (crate::crypto::keccak::keccak256(&code), code)
    };
    let mut reader = store.empty();
    for number in 1..120 {
        let changes = StateChanges { accounts: vec![], codes: vec![code(number), code(number / 2), code(number)] };
        reader = store.commit(&reader, &changes).unwrap();
        assert_eq!(reader.code(&code(number + 1).0).unwrap(), None);
        store.step(3_000).unwrap();
    }
    syncer.sync(u64::MAX).unwrap();
    assert_eq!(reader.root(), ROOT_EMPTY);
    drop((store, syncer));
    let (store, _syncer) = open(&pool, &disk).unwrap();
    for number in 0..120 {
        for reader in [&reader, store.newest().unwrap()] {
            assert_eq!(reader.code(&code(number).0).unwrap(), Some(code(number).1));
        }
    }
    assert_eq!(verify(store.newest().unwrap()).unwrap().codes, 120);
}

#[test]
fn the_last_roots_and_some_older_ones_are_retained() {
    let (pool, disk) = (pool(), StateDisk::new(7));
    let (mut store, mut syncer) = open(&pool, &disk).unwrap();
    let cells = store.cells();
    cells.finalize(100);
    let mut reader = store.empty();
    let mut roots = Vec::new();
    for number in 0..400 {
        let changes = StateChanges { accounts: vec![change(number % 7, number + 1)], codes: vec![] };
        reader = store.commit_block(Stamp { number, sequence: number }, &reader, &changes).unwrap();
        roots.push(reader.root());
    }
    syncer.sync(u64::MAX).unwrap();
    drop((store, syncer));
    let (store, _syncer) = open(&pool, &disk).unwrap();
    let found: Vec<u64> = (0..400).filter(|number| store.retained(&roots[*number as usize]).is_some()).collect();
    let expected: Vec<u64> = [128, 192, 256].into_iter().chain(272..400).collect();
    assert_eq!(found, expected);
    // Any thread finds them by number and root, and only so.
    let cells = store.cells();
    let of_cells: Vec<u64> =
        (0..400).filter(|number| cells.retained(*number, &roots[*number as usize]).is_some()).collect();
    assert_eq!(of_cells, expected);
    assert!(cells.retained(300, &roots[301]).is_none() && cells.retained(301, &roots[300]).is_none());
    assert_eq!(cells.retained(300, &roots[300]).unwrap().root(), roots[300]);
}

/// Blocks for long: the disk stays bounded, what is written stays under twice what commits append, and readers keep what they hold.
#[test]
fn space_and_writes_are_bounded() {
    const SEGMENT_BYTES: u64 = 2 << 20;
    let settings = StateSettings { segment_bytes: SEGMENT_BYTES, range_bytes: 1 << 30 };
    let mut store = FileStore::open(pool(), Box::new(StateDisk::new(8)), settings).unwrap();
    let mut syncer = store.take_syncer().unwrap();
    let mut rng = SimRng::new(8);
    let mut reader = store.empty();
    let accounts = StateChanges { accounts: (0..20_000).map(|number| change(number, 1)).collect(), codes: vec![] };
    reader = store.commit(&reader, &accounts).unwrap();
    let live = verify(&reader).unwrap().live_bytes;
    let mut appended = 0;
    let held = reader.clone();
    let start = store.written_bytes();
    for round in 0..600_u64 {
        let mut numbers: Vec<u64> = (0..150).map(|_| rng.below(20_000)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let changes = StateChanges {
            accounts: numbers.into_iter().map(|number| change(number, round + 2)).collect(),
            codes: vec![],
        };
        let before = store.written_bytes();
        reader = store.commit_block(Stamp { number: round, sequence: round }, &reader, &changes).unwrap();
        appended += store.written_bytes() - before;
        syncer.sync(u64::MAX).unwrap();
        store.reclaim().unwrap();
    }
    let written = store.written_bytes() - start;
    // What the last 128 blocks have written, old places of moved nodes included, is held by retained versions.
    let retained_bytes = written / 600 * 128;
    println!(
        "live {live}, retained {retained_bytes}, appended {appended}, written {written}, held {}",
        store.segment_bytes()
    );
    assert!(written <= 2 * appended, "{written} written for {appended}");
    assert_eq!(held.account(&test_address(7)).unwrap().unwrap().nonce, 1);
    drop(held);
    for _ in 0..3 {
        store.reclaim().unwrap();
    }
    println!("on the disk {}", store.segment_bytes());
    let bound = 3 * live + retained_bytes + 2 * SEGMENT_BYTES;
    assert!(store.segment_bytes() <= bound, "{} on the disk, bound {bound}", store.segment_bytes());
    let root = reader.root();
    drop(reader);
    // The store's own syncer is out: compaction is for those who have no other thread.
    store.syncer = Some(syncer);
    store.compact().unwrap();
    assert!(store.segment_bytes() <= live + 3 * SEGMENT_BYTES, "{} after compaction of {live}", store.segment_bytes());
    let compacted = store.newest().unwrap();
    assert_eq!(compacted.root(), root);
    assert_eq!(verify(compacted).unwrap().accounts, 20_000);
}

/// A scrub looks at everything once, whatever is committed meanwhile, and finds what `verify` finds.
#[test]
fn a_scrub_goes_on_in_newer_versions_and_finds_damage() {
    let (pool, disk) = (pool(), StateDisk::new(10));
    let mut run = Run { disk: disk.clone(), ..Run::new(10) };
    run.life(&pool, 10).unwrap();
    let (mut store, _syncer) = open(&pool, &disk).unwrap();
    let mut scrub = verify::Scrub::default();
    let mut steps = 0;
    loop {
        steps += 1;
        let newest = store.newest().unwrap().clone();
        if scrub.step(&newest, 3).unwrap() {
            break;
        }
        let changes = random_changes(&mut run.rng, 2, 40);
        store.commit(&newest, &changes).unwrap();
        store.step(500).unwrap();
    }
    assert!((8..200).contains(&steps), "{steps}");
    let newest = store.newest().unwrap().clone();
    let census = verify(&newest).unwrap();
    let all = |scrub: &mut verify::Scrub| scrub.step(&newest, usize::MAX);
    assert_eq!(all(&mut scrub), Ok(true));
    let geometry = store.geometry();
    let mut found = 0;
    for position in (newest.version.space.first()..newest.version.space.end()).step_by(17) {
        let (file, offset) = geometry.locate(position);
        disk.flip(file.0, offset as usize * 8 + 5);
        assert_eq!(verify(&newest).is_err(), all(&mut verify::Scrub::default()).is_err());
        found += u32::from(verify(&newest).is_err());
        disk.flip(file.0, offset as usize * 8 + 5);
    }
    assert!(found > 5, "{found} of {census:?}");
}

/// The same history in files and in memory has the same roots.
#[test]
fn many_accounts_spread_over_the_pool_equal_the_oracle() {
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    let disk = StateDisk::new(9);
    let settings = StateSettings { segment_bytes: 4 << 20, range_bytes: 1 << 30 };
    let mut store = FileStore::open(Arc::clone(&pool), Box::new(disk), settings).unwrap();
    let mut oracle = crate::state::memory::MemoryStore::new(pool);
    let (mut reader, mut expected) = (store.empty(), oracle.empty());
    let mut rng = SimRng::new(9);
    for _ in 0..8 {
        let mut changes = random_changes(&mut rng, 700, 3_000);
        let storage = (0..2_000).map(|slot| (U256::from(slot), U256::from(rng.below(3)))).collect();
        changes.accounts.retain(|change| change.address != test_address(5_000));
        changes.accounts.push(AccountChange { storage, ..change(5_000, rng.below(9)) });
        reader = store.commit(&reader, &changes).unwrap();
        expected = oracle.commit(&expected, &changes).unwrap();
        assert_eq!(reader.root(), expected.root());
        let key = B256::repeat_byte(7);
        assert_eq!(reader.account_by_key(&key).unwrap(), expected.account_by_key(&key).unwrap());
        store.reclaim().unwrap();
        verify(store.newest().unwrap()).unwrap();
    }
}
