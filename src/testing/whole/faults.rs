//! What goes wrong, each kind by its name, and how it ends. A kind is counted where it had an effect, not where it was tried.

use std::sync::Arc;

use serde_json::json;

use super::{GWEI, L1_BLOCK_MS, NS_PER_MS, NS_PER_S, World};
use crate::dev_l1::faults::{Answer, Lie, PREPARED};
use crate::dev_l1::node::Reorganisation;
use crate::primitives::{B256, U256};
use crate::testing::node::{Backup, Violation};
use crate::testing::rng::SimRng;
use crate::testing::settler::LedgerDisk;
use crate::testing::whole::site::Site;

/// The method that is lied about by prepared answers.
const NONCE: &str = "eth_getTransactionCount";
/// Deepest reorganisation.
const REORGANISED_MAX: u64 = 64;
/// One this deep counts as a deep one.
const DEEP: u64 = 33;

/// Every name that is counted as a fault.
pub const NAMES: [&str; 47] = [
    "L1 away for ten minutes",
    "L1 slow",
    "L1 answers errors",
    "one of two endpoints away",
    "lying: receipts",
    "lying: parents",
    "lying: transactions",
    "lying: hashes",
    "lying: nonces",
    "fee spike",
    "stuck below the market",
    "transaction dropped",
    "all transactions dropped",
    "transaction replaced by a dearer one",
    "reorganisation before a restart",
    "reorganisation after a restart",
    "reorganisation 33 to 64 deep",
    "reorganisation drops ours",
    "reorganisation delays ours",
    "reorganisation re-orders",
    "key out of funds",
    "nonce used by somebody else",
    "halted by a nonce of somebody else",
    "process killed",
    "power cut",
    "crash while a batch is journaled",
    "crash between packing and signing",
    "crash between signing and journaling",
    "crash between journaling and sending",
    "crash between sending and seeing the receipt",
    "crash in another step",
    "disk full",
    "two sequencers with one key",
    "of two sequencers one stopped",
    "old backup restored",
    "a batch of a stranger",
    "a batch of a key that is not one yet",
    "our batch by another key of ours",
    "malformed batch by our key",
    "decompression bomb by our key",
    "false batch by our key",
    "batch of another place by our key",
    "batch on another origin by our key",
    "batch with a target or value",
    "undecodable, of another chain, or unsigned",
    "blocks replaced",
    "a beginning of a block taken over",
];

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Away,
    Slow,
    Errors,
    OneAway,
    LieReceipts,
    LieParents,
    LieTransactions,
    LieHashes,
    LieNonces,
    FeeSpike,
    Dropped,
    AllDropped,
    StuckBelowMarket,
    Reorganise,
    ReorganiseWhileDown,
    OutOfFunds,
    NonceTaken,
    Crash,
    PowerCut,
    CrashBetween,
    DiskFull,
    Stranger,
    Late,
    Copy,
    FalseBatch,
    Malformed,
    Bomb,
    OtherPlace,
    OtherOrigin,
    OtherTarget,
    Undecodable,
    SecondProcess,
    OldBackup,
}

impl Fault {
    pub const ALL: [Self; 33] = [
        Self::Away,
        Self::Slow,
        Self::Errors,
        Self::OneAway,
        Self::LieReceipts,
        Self::LieParents,
        Self::LieTransactions,
        Self::LieHashes,
        Self::LieNonces,
        Self::FeeSpike,
        Self::Dropped,
        Self::AllDropped,
        Self::StuckBelowMarket,
        Self::Reorganise,
        Self::ReorganiseWhileDown,
        Self::OutOfFunds,
        Self::NonceTaken,
        Self::Crash,
        Self::PowerCut,
        Self::CrashBetween,
        Self::DiskFull,
        Self::Stranger,
        Self::Late,
        Self::Copy,
        Self::FalseBatch,
        Self::Malformed,
        Self::Bomb,
        Self::OtherPlace,
        Self::OtherOrigin,
        Self::OtherTarget,
        Self::Undecodable,
        Self::SecondProcess,
        Self::OldBackup,
    ];

    /// Some of them: a seed with few kinds goes further in each.
    pub fn choose(rng: &mut SimRng) -> Vec<Self> {
        let share = 1 + rng.below(6);
        let chosen: Vec<_> = Self::ALL.into_iter().filter(|_| rng.below(8) < share).collect();
        if chosen.is_empty() { vec![Self::Reorganise] } else { chosen }
    }
}

/// How a fault ends.
pub enum Undo {
    /// Calls that the endpoint's mood had changed before.
    Mood {
        endpoint: usize,
        name: Option<&'static str>,
        before: u64,
    },
    /// Answers that the endpoint had changed so before.
    Lie {
        endpoint: usize,
        lie: Lie,
        name: &'static str,
        before: u64,
    },
    Nonces {
        endpoint: usize,
        before: u64,
    },
    /// Slots that there had been no room for before.
    DiskFull {
        before: u64,
    },
    SecondProcess,
}

/// A market that is dear for a while.
pub struct Dear {
    name: &'static str,
    /// Number of the L1 block behind which it is over.
    until: u64,
}

/// The disks as they were once.
pub struct Kept {
    machine: Backup,
    ledger: LedgerDisk,
}

impl World<'_> {
    /// Something goes wrong.
    ///
    /// # Errors
    /// An invariant that is broken by it.
    pub(super) fn inflict(&mut self, fault: Fault) -> Result<(), Violation> {
        match fault {
            Fault::Away => self.away(),
            Fault::Slow | Fault::Errors | Fault::OneAway => self.unwell(fault),
            Fault::LieReceipts => self.lie(Lie::Receipts, "lying: receipts"),
            Fault::LieParents => self.lie(Lie::Parents, "lying: parents"),
            Fault::LieTransactions => self.lie(Lie::Transactions, "lying: transactions"),
            Fault::LieHashes => self.lie(Lie::Hashes, "lying: hashes"),
            Fault::LieNonces => self.lie_of_nonces(),
            Fault::FeeSpike => self.fees(200 + self.swarm.fault_steps, 2, "fee spike"),
            Fault::StuckBelowMarket => self.fees(9, 12, "stuck below the market"),
            Fault::Dropped | Fault::AllDropped => self.drop_waiting(fault == Fault::AllDropped),
            Fault::Reorganise => self.reorganise("reorganisation before a restart", self.seen_l1()),
            Fault::ReorganiseWhileDown => {
                let (is_power_cut, seen) = (self.rng.chance(1, 2), self.seen_l1());
                self.sites[0].crash(is_power_cut);
                self.reorganise("reorganisation after a restart", seen);
            }
            Fault::OutOfFunds => self.top_up(),
            Fault::NonceTaken => self.take_nonce(),
            Fault::Crash | Fault::PowerCut => self.crash(fault == Fault::PowerCut),
            Fault::CrashBetween => self.light_fuse(),
            Fault::DiskFull => self.fill_disk(),
            Fault::SecondProcess => self.second_process()?,
            Fault::OldBackup => self.old_backup()?,
            cheat => self.cheat(cheat),
        }
        Ok(())
    }

    fn until(&mut self, ns: u64, undo: Undo) {
        let at_ns = self.net.borrow().now_ns + ns;
        self.undo.push((at_ns, undo));
    }

    pub(super) fn end_faults(&mut self) {
        let now_ns = self.net.borrow().now_ns;
        let (over, left) = std::mem::take(&mut self.undo).into_iter().partition(|(at_ns, _)| *at_ns <= now_ns);
        self.undo = left;
        let over: Vec<(u64, Undo)> = over;
        over.into_iter().for_each(|(_, undo)| self.end_fault(undo));
    }

    fn end_fault(&mut self, undo: Undo) {
        let mut net = self.net.borrow_mut();
        let happened = match undo {
            Undo::Mood { endpoint, name, before } => {
                net.moods[endpoint] = super::Mood::default();
                name.filter(|_| net.moody_count[endpoint] > before)
            }
            Undo::Lie { endpoint, lie, name, before } => {
                let faults = &mut net.node.faults[endpoint];
                faults.set_lie(lie, false);
                (faults.told(lie.name()) > before).then_some(name)
            }
            Undo::Nonces { endpoint, before } => {
                let faults = &mut net.node.faults[endpoint];
                faults.set_answer(NONCE, Answer { result: Ok(json!(null)), left: Some(0) });
                (faults.told(PREPARED) > before).then_some("lying: nonces")
            }
            Undo::DiskFull { before } => {
                let disk = &self.sites[0].machine.disk;
                disk.set_capacity_bytes(u64::MAX);
                (disk.refused_count() > before).then_some("disk full")
            }
            Undo::SecondProcess => {
                let is_halted = |site: &Site| site.settler.as_ref().is_some_and(|settler| settler.halted.is_some());
                let is_one = self.sites.len() > 1 && self.sites.iter().any(is_halted);
                self.sites.truncate(1);
                is_one.then_some("of two sequencers one stopped")
            }
        };
        drop(net);
        happened.into_iter().for_each(|name| self.tally.count(name));
    }

    /// Nothing goes wrong any more.
    pub(super) fn end_all_faults(&mut self) {
        for (_, undo) in std::mem::take(&mut self.undo) {
            self.end_fault(undo);
        }
        self.l1_transfer(self.ground.keys.funder, self.ground.keys.posting.address, 4_000_000_000 * GWEI);
        self.sites.truncate(1);
        self.dear = None;
        self.net.borrow_mut().node.set_base_fee(0, 0);
        let disk = &self.sites[0].machine.disk;
        disk.set_fuse(None);
        // A backup may be that of a full one.
        disk.set_capacity_bytes(u64::MAX);
        if let Some(settler) = &mut self.sites[0].settler {
            settler.fuse = None;
        }
    }

    /// What a person does now and then: ether for the key, another start after a halt whose reason is over.
    pub(super) fn look_after(&mut self) -> Result<(), Violation> {
        let posting = self.ground.keys.posting.address;
        let account = self.net.borrow().node.chain.account(&posting).map_err(|error| error.to_string())?;
        let is_poor = account.is_none_or(|account| account.balance_wei < U256::from(400_000_000 * GWEI));
        if is_poor {
            self.l1_transfer(self.ground.keys.funder, posting, 1_000_000_000 * GWEI);
        }
        let site = &mut self.sites[0];
        if site.settler.as_ref().is_some_and(|settler| settler.halted.is_some()) {
            *self.tally.sums.entry("restarts after a halt").or_default() += 1;
            site.crash(false);
        }
        Ok(())
    }

    // --- the way to L1 ---

    fn away(&mut self) {
        for endpoint in 0..2 {
            let mut net = self.net.borrow_mut();
            net.moods[endpoint].is_away = true;
            let before = net.moody_count[endpoint];
            drop(net);
            let name = (endpoint == 0).then_some("L1 away for ten minutes");
            self.until(600 * NS_PER_S, Undo::Mood { endpoint, name, before });
        }
    }

    fn unwell(&mut self, fault: Fault) {
        let endpoints = if fault == Fault::OneAway || self.rng.chance(1, 2) { 1 } else { 2 };
        let name = match fault {
            Fault::Slow => "L1 slow",
            Fault::Errors => "L1 answers errors",
            _ => "one of two endpoints away",
        };
        for endpoint in 0..endpoints {
            let mut net = self.net.borrow_mut();
            match fault {
                Fault::Slow => net.moods[endpoint].latency_ns = (200 + self.rng.below(7_000)) * NS_PER_MS,
                Fault::Errors => net.moods[endpoint].status = Some(503),
                _ => net.moods[endpoint].is_away = true,
            }
            let before = net.moody_count[endpoint];
            drop(net);
            let ns = (2 + self.rng.below(30)) * NS_PER_S;
            self.until(ns, Undo::Mood { endpoint, name: (endpoint == 0).then_some(name), before });
        }
    }

    /// One of the two endpoints lies: two that tell the same lie are an L1.
    fn lie(&mut self, lie: Lie, name: &'static str) {
        let endpoint = self.swarm.liar;
        let mut net = self.net.borrow_mut();
        let faults = &mut net.node.faults[endpoint];
        faults.set_lie(lie, true);
        let before = faults.told(lie.name());
        drop(net);
        let ns = (2 + self.rng.below(40)) * NS_PER_S;
        self.until(ns, Undo::Lie { endpoint, lie, name, before });
    }

    /// It says of every account that it has used more nonces than it has.
    fn lie_of_nonces(&mut self) {
        let endpoint = self.swarm.liar;
        let nonce = 1_000 + self.rng.below(1_000);
        let mut net = self.net.borrow_mut();
        let faults = &mut net.node.faults[endpoint];
        let before = faults.told(PREPARED);
        faults.set_answer(NONCE, Answer { result: Ok(json!(format!("{nonce:#x}"))), left: None });
        drop(net);
        let ns = (2 + self.rng.below(40)) * NS_PER_S;
        self.until(ns, Undo::Nonces { endpoint, before });
    }

    // --- the market and the pool ---

    fn fees(&mut self, gwei: u64, blocks: u64, name: &'static str) {
        let wei = gwei * GWEI as u64;
        let blocks = blocks + self.rng.below(6);
        let mut net = self.net.borrow_mut();
        net.node.set_base_fee(wei, blocks);
        self.dear = Some(Dear { name, until: net.node.chain.head_number() + blocks });
    }

    /// Counts a dear market once one of our transactions, or batches, has to wait for it.
    pub(super) fn feel_fees(&mut self) {
        let Some(Dear { name, until }) = self.dear else { return };
        let (is_waiting, head) = {
            let net = self.net.borrow();
            let posting = self.ground.keys.posting.address;
            let base_fee_wei = U256::from(net.node.chain.head().base_fee_per_gas.unwrap_or_default());
            let nonce = net.node.chain.account(&posting).ok().flatten().map_or(0, |account| account.nonce);
            let first = net.node.pool.at(&posting, nonce);
            (first.is_some_and(|waiting| waiting.tx.fee_cap_wei() < base_fee_wei), net.node.chain.head_number())
        };
        let is_held = |site: &Site| {
            site.settler.as_ref().is_some_and(|settler| settler.conductor.status().why.starts_with("FeeLimit"))
        };
        if is_waiting || is_held(&self.sites[0]) {
            self.tally.count(name);
            self.dear = None;
        } else if head >= until {
            self.dear = None;
        }
    }

    /// Our transactions that wait on L1, lowest nonce first.
    fn waiting(&self) -> Vec<B256> {
        let net = self.net.borrow();
        let posting = self.ground.keys.posting.address;
        let account = net.node.chain.account(&posting).ok().flatten();
        let mut nonce = account.map_or(0, |account| account.nonce);
        let mut hashes = Vec::new();
        while let Some(waiting) = net.node.pool.at(&posting, nonce) {
            hashes.push(waiting.tx.hash);
            nonce += 1;
        }
        hashes
    }

    fn drop_waiting(&mut self, all: bool) {
        let waiting = self.waiting();
        let count = if all { waiting.len() } else { waiting.len().min(1) };
        if count > 0 {
            self.tally.count(if all { "all transactions dropped" } else { "transaction dropped" });
        }
        for hash in &waiting[..count] {
            self.net.borrow_mut().node.pool.remove(hash);
        }
    }

    /// The newest L1 block that the sequencer knows; 0 while it does not run.
    fn seen_l1(&self) -> u64 {
        self.sites[0].settler.as_ref().map_or(0, |settler| settler.conductor.l1_head().number)
    }

    /// ExecuteTx of the newest `depth` blocks, in order.
    fn newest_execute_txs(&self, depth: u64) -> Vec<B256> {
        let net = self.net.borrow();
        let chain = &net.node.chain;
        let head = chain.head_number();
        let mut hashes = Vec::new();
        for number in head + 1 - depth.min(head)..=head {
            let block = chain.block(&chain.hash_at(number).unwrap_or_default()).ok().flatten();
            let txs = block.iter().flat_map(|block| &block.txs);
            hashes.extend(txs.filter(|tx| tx.execute().is_some()).map(|tx| tx.hash));
        }
        hashes
    }

    /// `seen`: the newest L1 block that the sequencer knows. What it has not seen goes unnoticed, and does not count.
    fn reorganise(&mut self, name: &'static str, seen: u64) {
        let (now_ms, head) = {
            let net = self.net.borrow();
            (net.now_ns / NS_PER_MS, net.node.chain.head_number())
        };
        // Blocks 1 and 2 gave everybody ether.
        let possible = head.saturating_sub(2).min(self.swarm.finality).min(REORGANISED_MAX);
        if possible == 0 {
            return;
        }
        let depth = 1 + if self.rng.chance(1, 3) { self.rng.below(possible) } else { self.rng.below(possible.min(6)) };
        let ours = self.newest_execute_txs(depth);
        let mut request = Reorganisation {
            depth,
            new_blocks: depth + self.rng.below(3) - u64::from(depth > 1 && self.rng.chance(1, 5)),
            is_reversed: self.rng.chance(1, 2),
            is_empty: self.rng.chance(1, 4),
            ..Reorganisation::default()
        };
        for hash in &ours {
            if self.rng.chance(1, 4) {
                request.delayed.push((*hash, 1 + self.rng.below(4)));
            }
        }
        let dropped: Vec<B256> = ours.iter().copied().filter(|_| self.rng.chance(1, 4)).collect();
        let mut net = self.net.borrow_mut();
        net.node.reorganise(now_ms, &request).expect("not deeper than what is kept");
        // Out of the pool once, not for ever: they may be sent again.
        let is_dropped = dropped.iter().filter(|hash| net.node.pool.remove(hash).is_some()).count() > 0;
        drop(net);
        if seen <= head - depth {
            return;
        }
        self.tally.count(name);
        if depth >= DEEP {
            self.tally.count("reorganisation 33 to 64 deep");
        }
        let after = self.newest_execute_txs(request.new_blocks);
        let before = ours.iter().filter(|hash| after.contains(hash));
        if !before.eq(after.iter().filter(|hash| ours.contains(hash))) {
            self.tally.count("reorganisation re-orders");
        }
        if request.delayed.iter().any(|(hash, _)| !after.contains(hash) && !dropped.contains(hash)) {
            self.tally.count("reorganisation delays ours");
        }
        if is_dropped {
            self.tally.count("reorganisation drops ours");
        }
    }

    // --- the key ---

    /// The key has little from the beginning of such a seed on; now and then it gets a little more.
    fn top_up(&mut self) {
        self.l1_transfer(self.ground.keys.funder, self.ground.keys.posting.address, super::LITTLE_WEI);
    }

    fn take_nonce(&mut self) {
        if self.l1_transfer(self.ground.keys.posting, self.ground.keys.funder.address, 1) {
            self.tally.count("nonce used by somebody else");
        }
    }

    // --- the machine ---

    fn crash(&mut self, is_power_cut: bool) {
        if self.sites[0].is_running() {
            self.tally.count(if is_power_cut { "power cut" } else { "process killed" });
        }
        self.sites[0].crash(is_power_cut);
    }

    /// The machine stops some actions from now, or in some write of its journal.
    fn light_fuse(&mut self) {
        let (left, is_ledger) = (self.rng.below(6), self.rng.chance(2, 3));
        let site = &mut self.sites[0];
        match &mut site.settler {
            Some(settler) if is_ledger => settler.fuse = Some(left),
            _ => site.machine.disk.set_fuse(Some(left)),
        }
    }

    fn fill_disk(&mut self) {
        let disk = &self.sites[0].machine.disk;
        disk.set_capacity_bytes(0);
        let before = disk.refused_count();
        let ns = (1 + self.rng.below(20)) * NS_PER_S;
        self.until(ns, Undo::DiskFull { before });
    }

    // --- the operator ---

    /// Another process with the same key, on disks of its own.
    fn second_process(&mut self) -> Result<(), Violation> {
        if self.sites.len() > 1 {
            return Ok(());
        }
        let seed = self.rng.word();
        let net = std::rc::Rc::clone(&self.net);
        let mut second = Site::new(self.shape.clone(), Arc::clone(&self.ground.pool), net, seed);
        second.machine.set_clock(self.sites[0].machine.clock());
        if second.start()? {
            self.tally.count("two sequencers with one key");
        }
        self.sites.push(second);
        let ns = (20 + self.rng.below(60)) * L1_BLOCK_MS * NS_PER_MS;
        self.until(ns, Undo::SecondProcess);
        Ok(())
    }

    /// The disks are copied, and much later the copy is brought back.
    fn old_backup(&mut self) -> Result<(), Violation> {
        let Some(kept) = self.backup.take() else {
            let site = &self.sites[0];
            let ledger = site.settler.as_ref().map_or(&site.ledger, |settler| &settler.disk).clone();
            self.backup = Some(Kept { machine: site.machine.backup(), ledger });
            return Ok(());
        };
        let site = &mut self.sites[0];
        site.crash(false);
        if !site.ledger.is_same(&kept.ledger) {
            self.tally.count("old backup restored");
        }
        site.machine.restore(&kept.machine);
        site.ledger = kept.ledger;
        Ok(())
    }
}
