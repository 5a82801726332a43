//! A whole node on one thread over a disk that forgets: builder core, state, journal, chain database, and everything that recovery does.
//!
//! [`Machine`] outlives its processes: disk, chain database, clock, and what clients have seen. A process is a [`BenchChain`], a [`Log`] and the
//! queues between them; it dies at any operation of the disk. After each start the checker compares what came back with what was seen.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use alloy_consensus::Header;
use rayon::ThreadPool;

use crate::builder::block::SealedBlock;
use crate::builder::core::{JournalRoom, Now};
use crate::builder::replay::from_journal::{self, JournalView, Resumed};
use crate::builder::replay::{Base, BlockSource, Replay, ReplayError, StoredTxView, Visit, genesis_block, newest_base};
use crate::chain::ChainError;
use crate::codec::transaction::tx_hash;
use crate::config::genesis::ChainSpec;
use crate::journal::history::History;
use crate::journal::log::{Log, LogSettings};
use crate::journal::scan::{Scan, scan};
use crate::journal::storage::{BLOCK_BYTES, Storage, StorageError, SyncPoint};
use crate::mempool::Conditions;
use crate::messages::{BuilderAnswer, BuilderRead, BuilderReply, ChainMessage, SubmitWait};
use crate::primitives::{Address, B256, Sequence};
use crate::settlement::cells::{Origin, SettlementView};
use crate::state::Snapshot;
use crate::state::files::FileStore;
use crate::state::files::recovery::StateSettings;
use crate::state::files::sync::{StateCells, Syncer};
use crate::testing::bench_chain::{BenchChain, Standing};
use crate::testing::disk::SimDisk;
use crate::testing::rng::SimRng;
use crate::testing::state_disk::StateDisk;
use crate::topology::LaunchError;
use crate::topology::replacement::{self, Replacement};

const NS_PER_S: u64 = 1_000_000_000;
const SEGMENT_BYTES: u64 = 16 * BLOCK_BYTES as u64;
const GROUP_BYTES_MAX: usize = 8 * 1_024;
/// Not durable: above it nothing is placed, above twice as much nothing is admitted.
const BUSY_BYTES: usize = 4 * 1_024;
const RESERVE_BYTES: u64 = 6 * BLOCK_BYTES as u64;

const LOG_SETTINGS: LogSettings =
    LogSettings { segment_bytes: SEGMENT_BYTES, group_bytes_max: GROUP_BYTES_MAX, segments_kept_max: 3 };

/// A sync that the simulation can leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    Journal(SyncPoint),
    /// The chain database says that it synced, and did not.
    Chain,
}

impl Mutant {
    pub const ALL: [Self; 6] = [
        Self::Journal(SyncPoint::Group),
        Self::Journal(SyncPoint::Header),
        Self::Journal(SyncPoint::Directory),
        Self::Journal(SyncPoint::Tail),
        Self::Journal(SyncPoint::DirectoryTail),
        Self::Chain,
    ];
}

/// A block of the simulated chain database.
#[derive(Clone)]
pub struct Stored {
    pub header: Header,
    pub hash: B256,
    pub txs: Vec<(Vec<u8>, Address)>,
}

/// The chain database as its contract has it: after a power cut, a prefix that is at least what was synced.
#[derive(Clone, Default)]
pub struct SimChain {
    blocks: Vec<Stored>,
    synced_count: usize,
    /// Transactions that ended without a place.
    ends: Vec<B256>,
    ends_synced_count: usize,
}

impl SimChain {
    fn append(&mut self, sealed: &SealedBlock) {
        assert_eq!(sealed.header.number, self.blocks.len() as u64, "blocks are appended in order");
        let raw = |tx| sealed.block.raw(tx).to_vec();
        let txs = sealed.block.transactions.iter().map(|tx| (raw(tx), tx.sender)).collect();
        self.blocks.push(Stored { header: sealed.header.clone(), hash: sealed.hash, txs });
    }

    fn power_cut(&mut self, rng: &mut SimRng) {
        let kept = self.synced_count as u64 + rng.below((self.blocks.len() - self.synced_count) as u64 + 1);
        self.blocks.truncate(kept as usize);
        self.synced_count = self.blocks.len();
        let kept = self.ends_synced_count as u64 + rng.below((self.ends.len() - self.ends_synced_count) as u64 + 1);
        self.ends.truncate(kept as usize);
        self.ends_synced_count = self.ends.len();
    }

    fn sync(&mut self) {
        self.synced_count = self.blocks.len();
        self.ends_synced_count = self.ends.len();
    }

    fn cut(&mut self, tip: u64) {
        self.blocks.truncate(tip as usize + 1);
        self.synced_count = self.synced_count.min(self.blocks.len());
    }
}

impl BlockSource for SimChain {
    fn latest_number(&self) -> Option<u64> {
        (self.blocks.len() as u64).checked_sub(1)
    }

    fn hash_by_number(&self, number: u64) -> Result<Option<B256>, ChainError> {
        Ok(self.blocks.get(number as usize).map(|block| block.hash))
    }

    fn visit(&self, number: u64, visit: &mut Visit<'_>) -> Result<(), ReplayError> {
        let block = self.blocks.get(number as usize).ok_or(ReplayError::BlockMissing { number })?;
        let mut txs =
            block.txs.iter().map(|(raw, sender)| Ok(StoredTxView { raw, hash: tx_hash(raw), sender: *sender }));
        visit(&block.header, &block.hash, &mut txs)
    }
}

/// Everything that clients have seen: none of it may change.
#[derive(Clone, Default)]
pub struct Seen {
    pub acknowledged: Vec<B256>,
    /// Number, index, gas used, success.
    pub places: HashMap<B256, (u64, u32, u64, bool)>,
    pub blocks: HashMap<u64, B256>,
    pub ended: Vec<B256>,
}

/// What lies on the machine's disks, but for the state, which a start makes again.
pub struct Backup {
    disk: SimDisk,
    chain: SimChain,
    pub seen: Seen,
}

/// One process.
struct Process {
    chain: BenchChain,
    state: Syncer,
    cells: Arc<StateCells>,
    log: Log,
    disk: SimDisk,
    /// Turns on their way to the journal thread.
    turns: VecDeque<(Vec<u8>, Sequence)>,
    outstanding: VecDeque<(Sequence, usize)>,
    durable: Sequence,
    replies: VecDeque<BuilderReply>,
    chain_messages: VecDeque<ChainMessage>,
    /// Of the newest message that the chain database has taken.
    processed: Sequence,
}

/// What happened in a run, so that a test can see that it was not idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub starts: u64,
    /// Starts that went on from a version of the state other than block 0's.
    pub resumed: u64,
    pub power_cuts: u64,
    pub acknowledged: u64,
    pub places: u64,
    pub blocks: u64,
    pub segments: u64,
    pub full: u64,
}

/// See the module's text.
pub struct Machine {
    spec: ChainSpec,
    pool: Arc<ThreadPool>,
    pub disk: SimDisk,
    state_disk: StateDisk,
    chain: SimChain,
    now: Now,
    pub rng: SimRng,
    pub seen: Seen,
    pub tally: Tally,
    mutant: Option<Mutant>,
    /// Blocks settle on an L1, which the next start knows as far as this.
    pub settlement: Option<SettlementView>,
    process: Option<Process>,
}

/// Why a run failed: words for whoever reads the seed.
pub type Violation = String;

impl Machine {
    /// A machine whose disks are empty.
    #[must_use]
    pub fn new(spec: ChainSpec, pool: Arc<ThreadPool>, seed: u64, mutant: Option<Mutant>) -> Self {
        let leave_out = match mutant {
            Some(Mutant::Journal(point)) => Some(point),
            _ => None,
        };
        let unix_ns = (spec.genesis.timestamp + 1) * NS_PER_S;
        Self {
            spec,
            pool,
            disk: SimDisk::new(seed, leave_out),
            state_disk: StateDisk::new(seed),
            chain: SimChain::default(),
            now: Now { monotonic_ns: NS_PER_S, unix_ns },
            rng: SimRng::new(seed ^ 0x5eed),
            seen: Seen::default(),
            tally: Tally::default(),
            mutant,
            settlement: None,
            process: None,
        }
    }

    /// A copy of everything that is on the disks, as it would be found.
    #[must_use]
    pub fn backup(&self) -> Backup {
        Backup { disk: self.disk.copy(), chain: self.chain.clone(), seen: self.seen.clone() }
    }

    /// The disks are those of a backup, of this machine or of another one; no process runs.
    pub fn restore(&mut self, backup: &Backup) {
        self.process = None;
        self.disk = backup.disk.copy();
        self.state_disk = StateDisk::new(self.rng.word());
        self.chain = backup.chain.clone();
        self.seen = backup.seen.clone();
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Starts a process and checks what it has recovered. `Ok(false)`: the machine stopped meanwhile.
    ///
    /// # Errors
    /// What was seen and is not there any more, or why the start was refused.
    pub fn start(&mut self) -> Result<bool, Violation> {
        self.tally.starts += 1;
        match self.recover() {
            Ok(process) => {
                self.process = Some(process);
                self.observe();
                self.check()?;
                Ok(true)
            }
            Err(StartFault::Storage(StorageError::Crashed)) => Ok(false),
            Err(StartFault::Storage(StorageError::Full { .. })) => Ok(false),
            Err(fault) => Err(format!("the start was refused: {fault:?}")),
        }
    }

    fn recover(&mut self) -> Result<Process, StartFault> {
        let mut disk = self.disk.clone();
        let scanned = scan(&mut disk).map_err(|error| match error {
            crate::journal::scan::ScanError::Storage(error) => StartFault::Storage(error),
            other => StartFault::Refused(other.to_string()),
        })?;
        let history = scanned.as_ref().map(|scanned| History::read(scanned.records())).transpose();
        let history = history.map_err(StartFault::refused)?;
        if let Some(history) = &history {
            self.chain.cut(from_journal::agreed_tip(&self.chain, history).map_err(StartFault::refused)?);
        }
        let (mut store, base) = self.open_state()?;
        let syncer = store.take_syncer().expect("a store that was just opened has it");
        let settings = LOG_SETTINGS;
        let mut replay = match base {
            Some(base) => {
                self.tally.resumed += 1;
                Replay::resume(&self.spec, &mut store, base, &self.chain).map_err(StartFault::refused)?
            }
            None => {
                let genesis = genesis_block(&self.spec, &mut store).map_err(StartFault::refused)?;
                if self.chain.blocks.is_empty() {
                    self.chain.append(&genesis);
                    self.chain.synced_count = 1;
                }
                Replay::new(&self.spec, &mut store, genesis)
            }
        };
        let (mut log, resumed) = match scanned.as_ref().zip(history.as_ref()) {
            None if self.chain.blocks.len() > 1 => return Err(StartFault::Refused("the journal is gone".to_owned())),
            None => {
                let mut log = Log::create(settings, [7; 16]);
                for slot in disk.slots().map_err(StartFault::Storage)? {
                    log.adopt_slot(slot, self.disk.slot_bytes(slot) as u64);
                }
                (log, Resumed::default())
            }
            Some((scanned, history)) => {
                replay.stored(&self.chain).map_err(StartFault::refused)?;
                let bytes_at = |at| scanned.record_at(at);
                let view = JournalView { history, bytes_at: &bytes_at };
                let chain = &mut self.chain;
                let keep = &mut |sealed: &SealedBlock| {
                    chain.append(sealed);
                    Ok(())
                };
                let resumed = replay.journaled(&view, keep).map_err(StartFault::refused)?;
                let ends = from_journal::ends(&view, |_, _| Ok(false)).map_err(StartFault::refused)?;
                self.chain.ends.extend(ends.iter().map(|end| end.hash));
                if self.mutant != Some(Mutant::Chain) {
                    self.chain.sync();
                }
                (self.resume_log(scanned, history), resumed)
            }
        };
        if log.segments().len() == 0
            && let Some((slot, bytes)) = log.wanted_slot()
        {
            disk.create(slot, bytes).map_err(StartFault::Storage)?;
            log.slot_created(slot);
        }
        let (recent, world) = replay.into_parts();
        self.process(Standing { recent, world, store, resumed, settlement: self.settlement }, syncer, log, disk)
    }

    /// Above an L1 segments are free as far as it is final, as `topology::startup` has it.
    fn resume_log(&self, scanned: &Scan<Vec<u8>>, history: &History) -> Log {
        let mut log = Log::resume(LOG_SETTINGS, scanned, history);
        let settled = |view: SettlementView| {
            let mut sealed = history.sealed_blocks().into_iter().rev();
            sealed.find(|(number, _)| *number <= view.finalized).map_or(Sequence(0), |(_, sequence)| sequence)
        };
        log.chain_synced(self.settlement.map_or(history.last, settled));
        log
    }

    /// The state, and the version of it to go on from; an empty state where there is none.
    fn open_state(&mut self) -> Result<(FileStore, Option<Base>), StartFault> {
        let settings = StateSettings { segment_bytes: 256 << 10, range_bytes: 1 << 30 };
        let open = |disk: &StateDisk| {
            let disk = Box::new(disk.clone());
            FileStore::open(Arc::clone(&self.pool), disk, settings).map_err(StartFault::refused)
        };
        let store = open(&self.state_disk)?;
        let tip = self.chain.latest_number().unwrap_or(0);
        let base = newest_base(store.retained_versions().rev(), &self.chain, tip).map_err(StartFault::refused)?;
        if base.is_some() || store.newest().is_none() {
            return Ok((store, base));
        }
        self.state_disk = StateDisk::new(self.rng.word());
        Ok((open(&self.state_disk)?, None))
    }

    /// A process over what was recovered.
    fn process(&self, standing: Standing, state: Syncer, log: Log, disk: SimDisk) -> Result<Process, StartFault> {
        let (durable, cells) = (standing.resumed.sequence, standing.store.cells());
        let chain = BenchChain::resume(self.spec.clone(), standing, self.now, true, |settings, limits| {
            settings.timestamp_lead_s = 1_000;
            limits.transactions_max = 256;
            limits.bytes_max = 1 << 20;
            limits.gap_lifetime_ns = 40 * NS_PER_S;
        })
        .map_err(StartFault::refused)?;
        let mut process = Process {
            chain,
            state,
            cells,
            log,
            disk,
            turns: VecDeque::new(),
            outstanding: VecDeque::new(),
            durable,
            replies: VecDeque::new(),
            chain_messages: VecDeque::new(),
            processed: Sequence(0),
        };
        process.end_turn();
        Ok(process)
    }

    // ---- what happens -------------------------------------------------------------------------------------------------------------

    /// A client sends a transaction.
    pub fn submit(&mut self, raw: &[u8], conditions: Option<Conditions>) {
        let now = self.now;
        if let Some(process) = &mut self.process {
            process.chain.now = now;
            process.chain.effects.journal_room = Some(process.room());
            process.chain.submit_with(raw, SubmitWait::Admission, conditions);
            process.end_turn();
        }
    }

    /// The builder core's turn.
    pub fn turn(&mut self) {
        let now = self.now;
        if let Some(process) = &mut self.process {
            process.chain.now = now;
            process.chain.effects.journal_room = Some(process.room());
            process.chain.effects.durable = Some(process.durable);
            process.chain.effects.carry_below = process.log.carry_below().unwrap_or_default();
            self.tally.full += u64::from(process.room() == JournalRoom::Full);
            process.chain.core.turn(now, &mut process.chain.effects).expect("the state in memory can be read");
            process.end_turn();
        }
    }

    /// The state thread seals what is closed.
    pub fn seal(&mut self) {
        let now = self.now;
        if let Some(process) = &mut self.process {
            process.chain.now = now;
            process.chain.seal();
            process.end_turn();
        }
    }

    #[must_use]
    pub fn clock(&self) -> Now {
        self.now
    }

    pub fn set_clock(&mut self, now: Now) {
        self.now = now;
    }

    pub fn advance(&mut self, ns: u64) {
        self.now.monotonic_ns += ns;
        self.now.unix_ns += ns;
    }

    /// The wall clock steps, forth or back: blocks must go on.
    pub fn step_clock(&mut self, ns: i64) {
        self.now.unix_ns = self.now.unix_ns.saturating_add_signed(ns).max((self.spec.genesis.timestamp + 1) * NS_PER_S);
    }

    /// The journal thread takes what waits and writes one piece. The process dies when the disk fails.
    pub fn journal(&mut self) {
        let Some(process) = &mut self.process else { return };
        while let Some((records, _)) = process.turns.pop_front() {
            process.log.append(&records);
        }
        let Some(write) = process.log.next_write(self.now.unix_ns) else { return };
        let written = process.disk.write(write.slot, write.offset, write.bytes, write.point);
        if written.is_err() {
            self.process = None;
            return;
        }
        if let Some(durable) = process.log.written() {
            process.durable = durable;
            while process.outstanding.front().is_some_and(|(last, _)| *last <= durable) {
                process.outstanding.pop_front();
            }
        }
        self.observe();
    }

    /// The slot maker makes a slot, if one is wanted and there is room.
    pub fn make_slot(&mut self) {
        let Some(process) = &mut self.process else { return };
        let Some((slot, bytes)) = process.log.wanted_slot() else { return };
        match process.disk.create(slot, bytes) {
            Ok(()) => process.log.slot_created(slot),
            Err(StorageError::Full { .. }) => {}
            Err(_) => self.process = None,
        }
    }

    /// The chain thread appends what is durable.
    pub fn keep(&mut self) {
        let Some(process) = &mut self.process else { return };
        while let Some(message) = process.chain_messages.front() {
            let gate = match message {
                ChainMessage::Sealed(sealed) => sealed.sequence,
                ChainMessage::Ended { gate, .. } => *gate,
                ChainMessage::Forget(_) | ChainMessage::Settled { .. } | ChainMessage::Stop => Sequence(0),
            };
            if gate > process.durable {
                return;
            }
            match process.chain_messages.pop_front() {
                Some(ChainMessage::Sealed(sealed)) => {
                    self.chain.append(&sealed);
                    self.tally.blocks += 1;
                }
                Some(ChainMessage::Ended { hash, .. }) => {
                    self.chain.ends.push(hash);
                    self.seen.ended.push(hash);
                }
                _ => {}
            }
            process.processed = process.processed.max(gate);
        }
    }

    /// The thread that syncs.
    pub fn sync_chain(&mut self) {
        let Some(process) = &mut self.process else { return };
        if self.rng.chance(1, 2) {
            // The state's own disk does not fail here: `state/files/tests.rs` is about that.
            process.state.sync(process.durable.0).expect("the disk of the state works");
        }
        if process.processed > Sequence(0) {
            if self.mutant != Some(Mutant::Chain) {
                self.chain.sync();
            }
            process.log.chain_synced(process.processed.min(process.chain.core.settled()));
        }
    }

    /// The process is gone; the machine goes on, or loses its power.
    pub fn crash(&mut self, is_power_cut: bool) {
        self.process = None;
        if is_power_cut {
            self.tally.power_cuts += 1;
            self.disk.power_cut();
            self.state_disk.power_cut();
            self.chain.power_cut(&mut self.rng);
        } else {
            self.disk.kill();
            self.state_disk.kill();
        }
    }

    /// Lets everything that was sent become durable, and the chain database take it.
    pub fn settle(&mut self) {
        for _ in 0..64 {
            self.journal();
            self.make_slot();
            self.turn();
            self.seal();
            self.keep();
            self.sync_chain();
        }
    }

    // ---- settlement ---------------------------------------------------------------------------------------------------------------

    /// What L1 has made of our blocks, as the builder core takes it over.
    pub fn settled(&mut self, view: SettlementView, origin: Option<Origin>) {
        let Some(process) = &mut self.process else { return };
        process.cells.finalize(view.finalized);
        let BenchChain { core, effects, now, .. } = &mut process.chain;
        core.on_settlement(view, || origin, *now, effects);
        process.end_turn();
    }

    /// The stored block of a number.
    #[must_use]
    pub fn stored(&self, number: u64) -> Option<&Stored> {
        self.chain.blocks.get(number as usize)
    }

    /// Number of the newest stored block, which is durable.
    #[must_use]
    pub fn stored_tip(&self) -> u64 {
        self.chain.latest_number().unwrap_or(0)
    }

    /// The state after a block, while it is kept.
    #[must_use]
    pub fn state_after(&self, number: u64) -> Option<Snapshot> {
        let process = self.process.as_ref()?;
        let heads = process.chain.core.heads();
        let recent = heads.recent_by_number(number).map(|sealed| sealed.state.clone());
        recent.or_else(|| process.cells.retained(number, &self.stored(number)?.header.state_root))
    }

    /// The nonce of an account behind everything that is pooled without a gap.
    pub fn pool_nonce(&mut self, address: Address) -> Option<u64> {
        match self.process.as_mut()?.chain.read(BuilderRead::Account { address }) {
            BuilderAnswer::Account { pool_nonce, .. } => Some(pool_nonce),
            _ => None,
        }
    }

    /// Transactions that wait to be placed, and whether a block is open or not stored yet.
    #[must_use]
    pub fn pending(&self) -> (u64, bool) {
        self.process.as_ref().map_or((0, false), |process| {
            let core = &process.chain.core;
            let heads = core.heads();
            // Sealed, and on its way through the journal, is not stored either.
            let is_stored = heads.latest.header.number == self.stored_tip();
            (core.pooled_count(), heads.open.is_some() || !process.chain.effects.closed.is_empty() || !is_stored)
        })
    }

    /// Why nothing is admitted, for a machine that seems to stand still.
    #[must_use]
    pub fn journal_space(&self) -> Option<(JournalRoom, u64)> {
        self.process.as_ref().map(|process| (process.room(), process.log.space()))
    }

    /// Blocks give way, as `topology::replacement` has it: the process has ended. What was seen of them is taken back. `Ok(false)`: the machine stopped.
    ///
    /// # Errors
    /// A journal that cannot do it.
    pub fn replace(&mut self, replacement: &Replacement) -> Result<bool, Violation> {
        assert!(self.process.is_none());
        let mut disk = self.disk.clone();
        let mut slots = self.disk.clone();
        let begin = |disk: &mut SimDisk| -> Result<Log, LaunchError> {
            let mut log = Log::create(LOG_SETTINGS, [7; 16]);
            for slot in disk.slots()? {
                log.adopt_slot(slot, slots.slot_bytes(slot) as u64);
            }
            if let Some((slot, bytes)) = log.wanted_slot() {
                slots.create(slot, bytes)?;
                log.slot_created(slot);
            }
            Ok(log)
        };
        let now_unix_ns = self.now.unix_ns;
        let spec = &self.spec;
        let outcome =
            replacement::write(&mut disk, LOG_SETTINGS, spec, replacement, begin, &mut |_| Ok(()), now_unix_ns);
        // What was shown above is withdrawn as soon as the record may be there.
        self.seen.blocks.retain(|number, _| *number <= replacement.to_block);
        self.seen.places.retain(|_, (number, ..)| *number <= replacement.to_block);
        match outcome {
            Ok(()) => Ok(true),
            Err(LaunchError::JournalFile(_)) => Ok(false),
            Err(error) => Err(format!("the replacement was refused: {error}")),
        }
    }

    // ---- what clients see -----------------------------------------------------------------------------------------------------------

    /// Everything that the gate lets out now.
    fn observe(&mut self) {
        let Some(process) = &mut self.process else { return };
        let durable = process.durable;
        while process.replies.front().is_some_and(|reply| reply.gate() <= durable) {
            if let Some(BuilderReply::Admitted { hash, .. }) = process.replies.pop_front() {
                self.seen.acknowledged.push(hash);
                self.tally.acknowledged += 1;
            }
        }
        let heads = process.chain.core.heads();
        for sealed in heads.recent.iter().filter(|sealed| sealed.sequence <= durable) {
            self.seen.blocks.insert(sealed.header.number, sealed.hash);
        }
        let blocks = heads.recent.iter().map(|sealed| &sealed.block).chain(&heads.open);
        for block in blocks {
            for (index, tx) in (0..).zip(block.transactions.iter()).filter(|(_, tx)| tx.sequence <= durable) {
                let place = (block.context.number, index, tx.gas_used, tx.success);
                self.tally.places += u64::from(self.seen.places.insert(tx.hash, place).is_none());
            }
        }
        let segments = process.log.segments().last().map_or(0, |segment| segment.id + 1);
        self.tally.segments = self.tally.segments.max(segments);
    }

    /// Compares the process that has just started with what was seen before.
    fn check(&mut self) -> Result<(), Violation> {
        let places = self.places_now();
        let Some(process) = &mut self.process else { return Ok(()) };
        let heads = process.chain.core.heads();
        for (number, hash) in &self.seen.blocks {
            let found = self.chain.hash_by_number(*number).ok().flatten();
            let found = found.or_else(|| heads.recent_by_number(*number).map(|sealed| sealed.hash));
            if found != Some(*hash) {
                return Err(format!("block {number} was {hash}, and is {found:?}"));
            }
        }
        for (hash, place) in &self.seen.places {
            if places.get(hash) != Some(place) {
                return Err(format!("transaction {hash} had place {place:?}, and has {:?}", places.get(hash)));
            }
        }
        let ends: HashSet<&B256> = self.chain.ends.iter().collect();
        if let Some(hash) = self.seen.ended.iter().find(|hash| !ends.contains(hash)) {
            return Err(format!("transaction {hash} had ended, and nobody knows how"));
        }
        // What a start has found out: its nonce is used in blocks that took the place of ours.
        let ending: HashSet<B256> = process.chain_messages.iter().filter_map(ended).collect();
        for hash in &self.seen.acknowledged {
            let mut is_live =
                || matches!(process.chain.read(BuilderRead::Status { hash: *hash }), BuilderAnswer::Status(Some(_)));
            if !places.contains_key(hash) && !ends.contains(hash) && !ending.contains(hash) && !is_live() {
                return Err(format!("transaction {hash} was acknowledged, and is nowhere"));
            }
        }
        Ok(())
    }

    /// Every place there is, by hash: of stored blocks from their headers' order, of blocks in memory with what they did.
    fn places_now(&self) -> HashMap<B256, (u64, u32, u64, bool)> {
        let mut places = HashMap::new();
        for block in &self.chain.blocks {
            for (index, (raw, _)) in (0..).zip(&block.txs) {
                let hash = tx_hash(raw);
                let seen = self.seen.places.get(&hash).copied().unwrap_or_default();
                places.insert(hash, (block.header.number, index, seen.2, seen.3));
            }
        }
        let Some(process) = &self.process else { return places };
        let heads = process.chain.core.heads();
        for block in heads.recent.iter().map(|sealed| &sealed.block).chain(&heads.open) {
            for (index, tx) in (0..).zip(block.transactions.iter()) {
                places.insert(tx.hash, (block.context.number, index, tx.gas_used, tx.success));
            }
        }
        places
    }
}

impl Process {
    /// What the builder's driver does at the end of a turn.
    fn end_turn(&mut self) {
        let effects = &mut self.chain.effects;
        if !effects.records.is_empty() {
            let records = std::mem::take(&mut effects.records);
            let last = self.chain.core.sequence();
            self.outstanding.push_back((last, records.len()));
            self.turns.push_back((records, last));
        }
        self.replies.extend(effects.replies.drain(..).map(|(_, reply)| reply));
        self.chain_messages.extend(effects.chain.drain(..));
        self.chain.free_chunks();
    }

    fn room(&self) -> JournalRoom {
        if self.log.space() < RESERVE_BYTES {
            return JournalRoom::Full;
        }
        match self.outstanding.iter().map(|(_, bytes)| bytes).sum::<usize>() {
            bytes if bytes >= 2 * BUSY_BYTES => JournalRoom::Behind,
            bytes if bytes >= BUSY_BYTES => JournalRoom::Busy,
            _ => JournalRoom::Plenty,
        }
    }
}

fn ended(message: &ChainMessage) -> Option<B256> {
    match message {
        ChainMessage::Ended { hash, .. } => Some(*hash),
        _ => None,
    }
}

#[derive(Debug)]
enum StartFault {
    Storage(StorageError),
    #[expect(dead_code, reason = "read by the derived Debug")]
    Refused(String),
}

impl StartFault {
    fn refused(error: impl std::fmt::Display) -> Self {
        Self::Refused(error.to_string())
    }
}
