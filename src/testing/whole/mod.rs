//! The whole of it on one thread: sequencer processes, their disks, an L1, the way to it, and everything that goes wrong, decided by one seed.
//!
//! ```text
//!  load ─► Site (builder, journal, state, chain, settlement) ─► Wire ─► dev_l1::Node (strict) ◄─ reorganisations, spikes, strangers, cheats
//!                                     ▲                                     │
//!                                     └── the real client and follower ◄────┘            in the end: a follower from genesis over L1 alone
//! ```
//!
//! Real are: builder core, journal, recovery, state files, replacement, conductor, packer, transaction manager, ledger and its encoding, cutting and strict
//! re-execution, derivation, heads, L1 client, follower, sender, and the development L1 with its EVM and its precompile. Simulated are clock, disks,
//! HTTP, and the loop of `settlement/driver.rs`, which [`settler`](super::settler) and [`site::Site`] repeat step for step, because it waits for rings and doorbells.
//! Invariants: [`World::check`] while it runs, [`World::finish`] at its end.

pub mod cheats;

pub mod faults;

pub mod net;

pub mod site;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use rayon::ThreadPool;

use self::faults::{Fault, Undo};
use self::net::{Mood, Net, SharedNet};
use self::site::{Shape, Site, Tasks};
use crate::builder::replay::genesis_root;
use crate::config::genesis::{ChainSpec, DEV_ACCOUNTS, dev_genesis};
use crate::config::native_rollup::{Batcher, L1Start, NativeRollup, Withdrawals};
use crate::derivation::origins::OriginBlock;
use crate::dev_l1::chain::Chain;
use crate::dev_l1::config::{ChainConfig, GENESIS_TIMESTAMP, L1_CHAIN_ID, genesis_header};
use crate::dev_l1::faults::Answer;
use crate::dev_l1::judge::ChainJudge;
use crate::dev_l1::log::BlockLog;
use crate::dev_l1::node::Node;
use crate::dev_l1::precompile::{Execute, JudgeOutput, StrictJudge};
use crate::l1::execute_tx::ExecuteTx;
use crate::l1::profile::Profile;
use crate::l1::tx_manager::types::Settings as TxSettings;
use crate::primitives::{Address, B256, Bytes, Fork, U256};
use crate::settlement::conductor::Event;
use crate::settlement::ledger::Ledger;
use crate::settlement::status::BatchPlace;
use crate::state::memory::MemoryStore;
use crate::testing::node::Violation;
use crate::testing::rng::SimRng;
use crate::testing::settler::{LedgerDisk, Settler};
use crate::testing::signing::{DynamicFee, TestKey};

const NS_PER_MS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;
const GWEI: u128 = 1_000_000_000;
const L1_BLOCK_MS: u64 = 2_000;
/// Pays for a few small batches.
const LITTLE_WEI: u128 = 6_000_000 * GWEI;
/// Accounts of L2 that send.
const SENDERS: u64 = 6;
/// Deploys `PUSH1 0 CALLDATALOAD PUSH1 0 SSTORE STOP`.
const STORE_CODE: [u8; 19] =
    [0x60, 7, 0x60, 12, 0x60, 0, 0x39, 0x60, 7, 0x60, 0, 0xf3, 0x60, 0, 0x35, 0x60, 0, 0x55, 0x00];
/// Turns in which everything has to be safe once faults have ended.
const SETTLE_TURNS: u64 = 60_000;

/// What all seeds share: chains and keys.
pub struct Ground {
    pub spec: ChainSpec,
    pool: Arc<ThreadPool>,
    genesis_root: B256,
    l1_start: OriginBlock,
    pub keys: Keys,
    bomb: Bytes,
}

/// Who acts on L1.
pub struct Keys {
    /// Has all the ether.
    pub funder: TestKey,
    /// Ours, posting.
    pub posting: TestKey,
    /// Ours, of the genesis, and misused.
    pub second: TestKey,
    /// In the genesis from a block on that never comes.
    pub late: TestKey,
    pub stranger: TestKey,
}

/// Hex digits of the posting key.
const POSTING_SECRET: &str = "0101010101010101010101010101010101010101010101010101010101010101";

impl Keys {
    fn new() -> Self {
        let key = |byte: &str| TestKey::from_hex(&format!("0x{}", byte.repeat(32)));
        Self {
            funder: TestKey::from_hex(DEV_ACCOUNTS[0].1),
            posting: key("01"),
            second: key("02"),
            late: key("03"),
            stranger: key("04"),
        }
    }
}

impl Default for Ground {
    fn default() -> Self {
        Self::new()
    }
}

impl Ground {
    /// # Panics
    /// When the built-in genesis does not fit.
    #[must_use]
    pub fn new() -> Self {
        let keys = Keys::new();
        let header = genesis_header(&l1_config(4));
        let hash = header.hash_slow();
        let mut spec = dev_genesis(Fork::Osaka, 10).expect("built in");
        let batcher = |key: &TestKey, from_l1_block| Batcher { address: key.address, from_l1_block };
        spec.native_rollup = Some(NativeRollup {
            l1_chain_id: L1_CHAIN_ID,
            batchers: vec![batcher(&keys.posting, 0), batcher(&keys.second, 0), batcher(&keys.late, 1_000_000)],
            l1_start: L1Start { number: 0, hash },
            profile: Profile::default(),
            withdrawals: Withdrawals::None,
        });
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"));
        let genesis_root = genesis_root(&spec, Arc::clone(&pool)).expect("a genesis");
        let l1_start = OriginBlock { number: 0, hash, mix_hash: header.mix_hash, timestamp: header.timestamp };
        Self { spec, pool, genesis_root, l1_start, keys, bomb: cheats::bomb() }
    }
}

fn l1_config(finality_blocks: u64) -> ChainConfig {
    ChainConfig { block_time_ms: L1_BLOCK_MS, finality_blocks, ..ChainConfig::default() }
}

/// An L1 that believes every batch: what EXECUTE does where it does not check. Derivation has to refuse what is false.
struct Believer;

impl StrictJudge for Believer {
    fn judge(&self, _: &ExecuteTx) -> Result<JudgeOutput, String> {
        Ok(JudgeOutput::default())
    }
}

/// How often each thing has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub faults: BTreeMap<&'static str, u64>,
    pub skips: BTreeMap<&'static str, u64>,
    pub sums: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in
            [(&mut self.faults, &other.faults), (&mut self.skips, &other.skips), (&mut self.sums, &other.sums)]
        {
            theirs.iter().for_each(|(name, count)| *mine.entry(name).or_default() += count);
        }
    }

    fn count(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }
}

/// What this seed is like.
struct Swarm {
    /// Faults that may happen, and how many steps lie between two of them on average.
    faults: Vec<Fault>,
    fault_steps: u64,
    load_share: u64,
    finality: u64,
    believes: bool,
    /// The endpoint that lies, if one does.
    liar: usize,
}

/// See the module's text.
pub struct World<'g> {
    ground: &'g Ground,
    swarm: Swarm,
    rng: SimRng,
    pub net: SharedNet,
    shape: Shape,
    /// The first is the sequencer; a second one is a mistake.
    pub sites: Vec<Site>,
    /// When a fault ends.
    undo: Vec<(u64, Undo)>,
    backup: Option<faults::Kept>,
    dear: Option<faults::Dear>,
    /// L1's newest final block so far, and ours by number, as they were told.
    final_l1: u64,
    finals: BTreeMap<u64, B256>,
    pub tally: Tally,
    /// Skips of lives that have ended.
    lives: u64,
}

impl<'g> World<'g> {
    /// # Panics
    /// When the L1 does not start: never.
    #[must_use]
    pub fn new(ground: &'g Ground, seed: u64) -> Self {
        let mut rng = SimRng::new(seed);
        let swarm = Swarm {
            faults: Fault::choose(&mut rng),
            fault_steps: 12 + rng.below(60),
            load_share: 1 + rng.below(4),
            finality: [4, 8, 16, 66][rng.below(4) as usize],
            believes: rng.chance(1, 3),
            liar: rng.below(2) as usize,
        };
        let store = MemoryStore::new(Arc::clone(&ground.pool));
        let log = BlockLog::temporary().expect("room for a temporary file");
        let mut chain = Chain::open(l1_config(swarm.finality), store, log).expect("a new chain");
        chain.keep_bodies(usize::MAX);
        let judge: Box<dyn StrictJudge> =
            if swarm.believes { Box::new(Believer) } else { Box::new(ChainJudge::new(ground.spec.clone())) };
        let now_ns = (GENESIS_TIMESTAMP + 20) * NS_PER_S;
        let mut node = Node::new(chain, Execute::Strict(judge), 2, now_ns / NS_PER_MS);
        // Some L1 nodes have no `debug` methods: then blocks are read piece by piece.
        let missing = Answer { result: Err((-32_601, "the method does not exist".to_owned())), left: None };
        for faults in node.faults.iter_mut().filter(|_| rng.chance(1, 3)) {
            faults.set_answer("debug_getRawBlock", missing.clone());
        }
        let moods = [Mood::default(); 2];
        let net = Rc::new(RefCell::new(Net { node, now_ns, moods, call_count: 0, moody_count: [0; 2] }));
        let shape = Shape {
            spec: ground.spec.clone(),
            secret: POSTING_SECRET.to_owned(),
            tx_bytes_max: [131_072, 8_000, 5_000][rng.below(3) as usize],
            age_ns_max: NS_PER_S * (1 + rng.below(6)),
            origin_depth: rng.below(4),
            unsafe_blocks_max: 24 + rng.below(40),
            manager: TxSettings { in_flight_max: 1 + rng.below(4) as usize, ..TxSettings::default() },
            l1_start: ground.l1_start,
        };
        let site = Site::new(shape.clone(), Arc::clone(&ground.pool), Rc::clone(&net), seed);
        let (tally, sites) = (Tally::default(), vec![site]);
        let mut world = Self {
            ground,
            swarm,
            rng,
            net,
            shape,
            sites,
            undo: Vec::new(),
            backup: None,
            dear: None,
            final_l1: 0,
            finals: BTreeMap::new(),
            tally,
            lives: 0,
        };
        world.fund();
        world
    }

    /// Everybody gets ether; of us, some seeds give little.
    fn fund(&mut self) {
        let keys = &self.ground.keys;
        let is_poor = self.swarm.faults.contains(&Fault::OutOfFunds);
        let ours = if is_poor { LITTLE_WEI } else { 4_000_000_000 * GWEI };
        let rich = 50_000_000_000 * GWEI;
        for (key, wei) in [(keys.posting, ours), (keys.second, rich), (keys.late, rich), (keys.stranger, rich)] {
            self.l1_transfer(keys.funder, key.address, wei);
        }
        self.mine();
        self.mine();
        // Deep reorganisations need a chain.
        let deep = if self.swarm.finality > 64 && self.rng.chance(1, 2) { 66 } else { 0 };
        (0..deep).for_each(|_| self.mine());
    }

    /// A plain transfer on L1.
    fn l1_transfer(&mut self, from: TestKey, to: Address, wei: u128) -> bool {
        let mut net = self.net.borrow_mut();
        let nonce = net.node.pending_nonce(&from.address).expect("a state in memory");
        let tx = DynamicFee {
            chain_id: L1_CHAIN_ID,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas: 2_000 * GWEI,
            max_priority_fee_per_gas: 50 * GWEI,
            to: to.into(),
            value: U256::from(wei),
            ..DynamicFee::default()
        };
        net.node.send(from.encode(tx).into()).is_ok()
    }

    fn mine(&mut self) {
        let mut net = self.net.borrow_mut();
        net.now_ns += L1_BLOCK_MS * NS_PER_MS;
        let now_ms = net.now_ns / NS_PER_MS;
        net.node.tick(now_ms).expect("L1's state is in memory");
    }

    // --- what happens ---

    /// One seed: faults for a while, then none.
    ///
    /// # Errors
    /// The first broken invariant.
    pub fn run(&mut self, steps: u64) -> Result<(), Violation> {
        for step in 0..steps {
            self.step()?;
            if step % 64 == 0 {
                self.check()?;
            }
        }
        self.finish()
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.advance();
        self.end_faults();
        if self.rng.chance(1, self.swarm.fault_steps) {
            let index = self.rng.below(self.swarm.faults.len() as u64) as usize;
            let fault = self.swarm.faults[index];
            self.inflict(fault)?;
        }
        if self.rng.below(10) < self.swarm.load_share {
            self.submit();
        }
        self.work()?;
        self.feel_fees();
        Ok(())
    }

    /// Time goes on, and L1 makes the blocks that are due.
    fn advance(&mut self) {
        let is_away = self.net.borrow().moods.iter().all(|mood| mood.is_away);
        let ms = if is_away { 500 + self.rng.below(4_000) } else { self.rng.below(200) };
        let mut net = self.net.borrow_mut();
        net.now_ns += ms * NS_PER_MS;
        let now_ms = net.now_ns / NS_PER_MS;
        net.node.tick(now_ms).expect("L1's state is in memory");
        self.final_l1 = self.final_l1.max(net.node.chain.finalized_number());
        drop(net);
        self.sites.iter_mut().for_each(|site| site.machine.advance(ms * NS_PER_MS));
    }

    /// A turn of each process that lives; others are started.
    fn work(&mut self) -> Result<(), Violation> {
        for index in 0..self.sites.len() {
            let mut rng = self.rng.clone();
            let site = &mut self.sites[index];
            if !site.is_running() {
                site.crash(false);
                if rng.chance(1, 3) {
                    self.lives += 1;
                    site.start()?;
                }
                self.rng = rng;
                continue;
            }
            let machine = &mut site.machine;
            match rng.below(6) {
                0 => machine.make_slot(),
                1 => machine.sync_chain(),
                _ => {}
            }
            if rng.chance(3, 4) {
                machine.turn();
                machine.seal();
            }
            if rng.chance(3, 4) {
                machine.journal();
            }
            if rng.chance(3, 4) {
                machine.keep();
            }
            let answers = rng.chance(2, 3);
            self.rng = rng;
            if self.sites[index].is_running() {
                self.sites[index].turn(answers)?;
            }
        }
        Ok(())
    }

    /// Somebody sends a transaction of L2 to the sequencer.
    fn submit(&mut self) {
        let rng = &mut self.rng;
        let index = rng.below(SENDERS) as usize;
        let key = TestKey::from_hex(DEV_ACCOUNTS[index].1);
        // Who has two sequencers has users on both.
        let site = rng.below(self.sites.len() as u64) as usize;
        let site = &mut self.sites[site];
        let Some(nonce) = site.machine.pool_nonce(key.address) else { return };
        let base = DynamicFee {
            chain_id: self.ground.spec.chain_id,
            nonce,
            gas_limit: 100_000,
            max_fee_per_gas: 2 * GWEI,
            max_priority_fee_per_gas: 1 + u128::from(rng.below(GWEI as u64)),
            ..DynamicFee::default()
        };
        let tx = match rng.below(8) {
            0 => DynamicFee { input: Bytes::from_static(&STORE_CODE), ..base },
            1 => {
                let to = key.address.create(rng.below(nonce + 1));
                let input = U256::from(rng.below(4)).to_be_bytes_vec().into();
                DynamicFee { to: to.into(), input, ..base }
            }
            _ => {
                let to = Address::repeat_byte(rng.below(9) as u8);
                DynamicFee { to: to.into(), value: U256::from(rng.below(1_000)), ..base }
            }
        };
        site.machine.submit(&key.encode(tx), None);
    }

    // --- invariants ---

    /// What holds at every moment.
    ///
    /// # Errors
    /// Names what does not.
    pub fn check(&mut self) -> Result<(), Violation> {
        let net = self.net.borrow();
        let chain = &net.node.chain;
        let mut poor = 0;
        for site in &self.sites {
            let Some(settler) = &site.settler else { continue };
            // Our L1 keeps what is final: nobody may think otherwise, whatever one of its endpoints says.
            if let Some(why) = settler.halted.as_ref().filter(|why| !why.contains("was used by")) {
                return Err(format!("halted: {why}"));
            }
            let head = settler.conductor.l1_head();
            let status = settler.conductor.status();
            let (safe, finalized) = settler.conductor.settled();
            if status.why.starts_with("OutOfFunds") {
                poor += 1;
            }
            if finalized > safe || safe > settler.conductor.unsafe_head().number {
                return Err(format!("final {finalized}, safe {safe}, unsafe {}", status.unsafe_block));
            }
            // What is final stays, in every life and in every process.
            let told = *self.finals.entry(finalized).or_insert(status.finalized.hash);
            if told != status.finalized.hash {
                return Err(format!("block {} is final, and was {told}", status.finalized));
            }
            if status.l1_finalized > self.final_l1 {
                return Err(format!("L1 block {} is final here, {} is on L1", status.l1_finalized, self.final_l1));
            }
            // While L1 has gone on otherwise and we have not heard, we may know what it no longer has.
            if chain.hash_at(head.number) != Some(head.hash) {
                continue;
            }
            for place in status.batches.iter() {
                let found = chain.transaction(&place.tx_hash).map_err(|error| error.to_string())?;
                let is_there =
                    found.is_some_and(|(block, index)| block.hash == place.l1.hash && block.receipts[index].success);
                if !is_there {
                    return Err(format!("batch {} counts here, and L1 does not have it", place.index));
                }
            }
            let covered = status.batches.back().map_or(0, |place| place.last_block);
            let is_final = |place: &&BatchPlace| place.l1.number <= self.final_l1;
            let final_block = status.batches.iter().filter(is_final).map(|place| place.last_block).max().unwrap_or(0);
            if finalized > final_block && status.batches.len() as u64 == status.batch_next {
                return Err(format!("block {finalized} is final, L1's final blocks have batches up to {final_block}"));
            }
            if safe > covered && status.batches.len() as u64 == status.batch_next {
                return Err(format!("block {safe} is safe, L1 has batches up to block {covered}"));
            }
        }
        drop(net);
        (0..poor).for_each(|_| self.tally.count("key out of funds"));
        Ok(())
    }

    /// Faults end; what was acknowledged is placed, what was placed is safe, and a follower with nothing but L1 has the same chain.
    ///
    /// # Errors
    /// The invariant that is broken.
    pub fn finish(&mut self) -> Result<(), Violation> {
        self.end_all_faults();
        for turn in 0..SETTLE_TURNS {
            self.calm_step(turn)?;
            if turn % 16 == 0 && self.is_settled() {
                self.check()?;
                self.check_chain()?;
                return self.follow_from_genesis();
            }
        }
        let site = &self.sites[0];
        let status = site.settler.as_ref().map(|settler| {
            let status = settler.conductor.status();
            (
                status.condition.clone(),
                status.why.clone(),
                (status.l1_head.number, settler.conductor.l1_head().number, status.l1_derived.number),
                (status.safe.number, status.unsafe_block.number, site.machine.stored_tip()),
                settler.halted.clone(),
                status.skips.clone(),
            )
        });
        let head = self.net.borrow().node.chain.head_number();
        let room = site.machine.journal_space();
        Err(format!(
            "not settled at L1 block {head}: {status:?}, pending {:?}, journal {room:?}",
            site.machine.pending()
        ))
    }

    fn calm_step(&mut self, turn: u64) -> Result<(), Violation> {
        self.advance();
        if turn.is_multiple_of(64) {
            self.look_after()?;
        }
        self.work()
    }

    fn is_settled(&self) -> bool {
        let site = &self.sites[0];
        let Some(settler) = &site.settler else { return false };
        let (safe, _) = settler.conductor.settled();
        let head = self.net.borrow().node.chain.head_hash();
        site.machine.pending() == (0, false)
            && safe == site.machine.stored_tip()
            && settler.conductor.is_met()
            && settler.conductor.l1_head().hash == head
            && settler.conductor.status().l1_derived.hash == head
    }

    /// Nothing that was acknowledged is lost, nothing is executed twice. A start compares everything that was seen.
    fn check_chain(&mut self) -> Result<(), Violation> {
        let site = &mut self.sites[0];
        let mut seen = HashSet::new();
        for number in 1..=site.machine.stored_tip() {
            let stored = site.machine.stored(number).ok_or_else(|| format!("block {number} is not stored"))?;
            if self.finals.get(&number).is_some_and(|told| *told != stored.hash) {
                return Err(format!("block {number} was final and is another"));
            }
            for (raw, _) in &stored.txs {
                if !seen.insert(alloy_primitives::keccak256(raw)) {
                    return Err(format!("a transaction of block {number} was executed before"));
                }
            }
        }
        *self.tally.sums.entry("blocks").or_default() += site.machine.stored_tip();
        *self.tally.sums.entry("transactions").or_default() += seen.len() as u64;
        *self.tally.sums.entry("replacements").or_default() += site.replacements;
        *self.tally.sums.entry("adopted blocks").or_default() += site.adopted;
        *self.tally.sums.entry("adopted beginnings").or_default() += site.begun;
        *self.tally.sums.entry("starts").or_default() += self.lives;
        let net = self.net.borrow();
        *self.tally.sums.entry("L1 blocks").or_default() += net.node.chain.known_count();
        *self.tally.sums.entry("L1 calls").or_default() += net.call_count;
        drop(net);
        site.crash(true);
        while !site.start()? {}
        site.died.drain(..).for_each(|name| self.tally.count(name));
        for (name, count) in [
            ("transaction replaced by a dearer one", site.dearer),
            ("halted by a nonce of somebody else", site.halts),
            ("blocks replaced", site.replacements),
            ("a beginning of a block taken over", site.begun),
        ] {
            *self.tally.faults.entry(name).or_default() += count;
        }
        Ok(())
    }

    /// A second derivation, with L1 and the genesis alone.
    fn follow_from_genesis(&mut self) -> Result<(), Violation> {
        let genesis = self.ground.spec.genesis_header(self.ground.genesis_root).hash_slow();
        let mut follower: Settler =
            self.shape.settler(self.ground.genesis_root, false, Ledger::default(), LedgerDisk::new(genesis));
        let start = follower.conductor.l1_head();
        let mut tasks = Tasks::new(&self.net, L1_CHAIN_ID, start, None);
        let head = self.net.borrow().node.chain.head_hash();
        for _ in 0..SETTLE_TURNS {
            tasks.poll();
            while let Some(crate::settlement::jobs::Job::Check(check)) = follower.jobs.pop_front() {
                follower.answer_check(&check);
            }
            if !follower.conductor.is_full()
                && let Ok(news) = tasks.heard.try_recv()
            {
                follower.heard(news);
            }
            follower.event(Event::Tick);
            if follower.conductor.status().l1_derived.hash == head && follower.conductor.is_met() {
                break;
            }
            self.net.borrow_mut().now_ns += 10 * NS_PER_MS;
        }
        for (name, count) in &follower.conductor.status().skip_counts {
            *self.tally.skips.entry(name).or_default() += count;
        }
        let machine = &self.sites[0].machine;
        let ours = (1..=machine.stored_tip()).map(|number| machine.stored(number).map(|stored| stored.hash));
        let theirs = follower.adopted.iter().map(|block| Some(block.hash));
        if !ours.clone().eq(theirs.clone()) {
            let (ours, theirs): (Vec<_>, Vec<_>) = (ours.collect(), theirs.collect());
            return Err(format!(
                "the follower has {} blocks, the sequencer {}: {theirs:?} {ours:?}",
                theirs.len(),
                ours.len()
            ));
        }
        Ok(())
    }
}
