//! A seeded L1 with faults around the manager: nothing is sent before it is journaled, nothing is posted twice or out of order, limits hold, and
//! everything wanted is final on L1 in the end. `TX_MANAGER_SEEDS=100000` for long runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::types::*;
use super::*;
use crate::crypto::keccak::keccak256;
use crate::testing::rng::SimRng;

const GWEI: u64 = 1_000_000_000;
/// Blocks between the head and the final block: reorganisations are up to 64 deep.
const FINAL_LAG: usize = 66;
const REORG_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
struct PoolTx {
    hash: B256,
    nonce: u64,
    payload: Option<PayloadFacts>,
    fee_cap_wei: u128,
    tip_cap_wei: u128,
    success: bool,
    /// Of type 5.
    is_visible: bool,
}

struct FakeBlock {
    view: BlockView,
    txs: Vec<PoolTx>,
}

/// Block `i` of `blocks` has number `i`; block 0 is there from the beginning.
struct FakeL1 {
    blocks: Vec<FakeBlock>,
    pool: BTreeMap<u64, PoolTx>,
    base_fee_wei: u64,
    time_s: u64,
    salt: u64,
    is_away: bool,
    balance_wei: U256,
}

impl FakeL1 {
    fn new() -> Self {
        let mut l1 = Self {
            blocks: Vec::new(),
            pool: BTreeMap::new(),
            base_fee_wei: GWEI,
            time_s: 1_000,
            salt: 0,
            is_away: false,
            balance_wei: U256::MAX,
        };
        l1.push(Vec::new());
        l1
    }

    fn nonce(&self) -> u64 {
        self.blocks.iter().map(|block| block.txs.len() as u64).sum()
    }

    fn finalized(&self) -> u64 {
        self.blocks.len().saturating_sub(1 + FINAL_LAG) as u64
    }

    fn push(&mut self, txs: Vec<PoolTx>) {
        let number = self.blocks.len() as u64;
        self.salt += 1;
        let hash = keccak256(&[number.to_be_bytes(), self.salt.to_be_bytes()].concat());
        let base = u128::from(self.base_fee_wei);
        let mined = |tx: &PoolTx| MinedTx {
            hash: tx.hash,
            nonce: tx.nonce,
            success: tx.success,
            cost_wei: U256::from(tx.fee_cap_wei.min(base + tx.tip_cap_wei))
                * U256::from(tx.payload.map_or(1, |p| p.gas)),
        };
        let view = BlockView {
            id: BlockId { number, hash },
            timestamp: self.time_s,
            base_fee_wei: self.base_fee_wei,
            ours: txs.iter().filter(|tx| tx.is_visible).map(mined).collect(),
        };
        self.blocks.push(FakeBlock { view, txs });
    }

    fn mine(&mut self, rng: &mut SimRng, may_fail: bool) {
        self.time_s += 12;
        let (mut txs, mut nonce) = (Vec::new(), self.nonce());
        while let Some(tx) = self.pool.get(&nonce).copied()
            && tx.fee_cap_wei >= u128::from(self.base_fee_wei)
            && txs.len() < 3
            && !rng.chance(1, 4)
        {
            self.pool.remove(&nonce);
            nonce += 1;
            txs.push(PoolTx { success: !(may_fail && rng.chance(1, 40)), ..tx });
        }
        self.push(txs);
    }

    /// A transaction of somebody else takes the account's next nonce.
    fn steal(&mut self, is_visible: bool) {
        self.time_s += 12;
        let nonce = self.nonce();
        let hash = keccak256(&[b"stranger".as_slice(), &nonce.to_be_bytes(), &self.salt.to_be_bytes()].concat());
        self.pool.remove(&nonce);
        let (fee_cap_wei, tip_cap_wei) = (u128::from(GWEI), 0);
        self.push(vec![PoolTx { hash, nonce, payload: None, fee_cap_wei, tip_cap_wei, success: true, is_visible }]);
    }

    fn reorganise(&mut self, rng: &mut SimRng) {
        let depth_max = (self.blocks.len() - 1 - self.finalized() as usize).min(REORG_MAX) as u64;
        for _ in 0..rng.below(depth_max + 1) {
            let block = self.blocks.pop().expect("not below the final block");
            for tx in block.txs.into_iter().filter(|tx| tx.payload.is_some()) {
                if rng.chance(2, 3) {
                    self.pool.entry(tx.nonce).or_insert(tx);
                }
            }
        }
        // Other blocks of the same height come at once.
        for _ in 0..rng.below(3) {
            self.mine(rng, false);
        }
    }

    fn send(&mut self, tx: PoolTx) -> SendOutcome {
        if self.is_away {
            return SendOutcome::Away;
        }
        if tx.nonce < self.nonce() {
            return SendOutcome::NonceTooLow;
        }
        match self.pool.get(&tx.nonce) {
            Some(old) if old.hash == tx.hash => return SendOutcome::Accepted,
            Some(old)
                if tx.fee_cap_wei < old.fee_cap_wei * 110 / 100 || tx.tip_cap_wei < old.tip_cap_wei * 110 / 100 =>
            {
                return SendOutcome::Underpriced;
            }
            _ => {}
        }
        self.pool.insert(tx.nonce, tx);
        SendOutcome::Accepted
    }
}

/// What the driver has to do, one thing after the other.
enum Work {
    Sign(Attempt),
    Journal(SignedRecord),
    Send { attempt: u64 },
    Answer(Event),
}

#[derive(Default)]
struct Counts {
    bumps: u64,
    reorgs: u64,
    fell_out: u64,
    crashes: u64,
    halts: u64,
    failures: u64,
    finals: u64,
}

struct Sim {
    rng: SimRng,
    l1: FakeL1,
    settings: Settings,
    manager: TxManager,
    durable: Vec<Record>,
    /// Appended and not synced.
    buffered: Vec<Record>,
    work: VecDeque<Work>,
    payloads: Vec<PayloadFacts>,
    withdrawn: BTreeSet<u64>,
    withdrawals: Vec<(u64, u64)>,
    /// Blocks that this life of the manager knows; the first is below everything it needs.
    fed: Vec<BlockId>,
    /// An answer about the account that is still on its way.
    late: Option<HeadView>,
    now_ns: u64,
    /// Payload → the nonce that it was ever signed with in a durable record.
    nonces: BTreeMap<u64, u64>,
    is_stolen: bool,
    counts: Counts,
}

fn hash_of(attempt: &Attempt) -> B256 {
    keccak256(format!("{attempt:?}").as_bytes())
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut rng = SimRng::new(seed);
        let settings = Settings {
            hour_cost_wei_max: if rng.chance(1, 4) { U256::from(30_000_000) * U256::from(GWEI) } else { U256::MAX },
            in_flight_max: 1 + rng.below(6) as usize,
            ..Settings::default()
        };
        let mut sim = Self {
            rng,
            l1: FakeL1::new(),
            settings,
            manager: TxManager::restore(settings, []),
            durable: Vec::new(),
            buffered: Vec::new(),
            work: VecDeque::new(),
            payloads: Vec::new(),
            withdrawn: BTreeSet::new(),
            withdrawals: Vec::new(),
            fed: Vec::new(),
            late: None,
            now_ns: 0,
            nonces: BTreeMap::new(),
            is_stolen: false,
            counts: Counts::default(),
        };
        sim.fed = vec![sim.l1.blocks[0].view.id];
        sim
    }

    fn step(&mut self, event: Event) {
        let mut actions = Vec::new();
        let was_halted = matches!(self.manager.status().condition, Condition::Halted(_));
        self.manager.step(event, self.now_ns, &mut actions);
        for action in actions {
            match action {
                Action::Sign(attempt) => {
                    assert!(!was_halted, "signed after the halt");
                    self.check_attempt(&attempt);
                    self.work.push_back(Work::Sign(attempt));
                }
                Action::JournalSigned(record) => self.work.push_back(Work::Journal(record)),
                Action::Send { attempt, hash } => {
                    let is_durable = |record: &Record| matches!(record, Record::Signed(it) if it.hash == hash);
                    assert!(self.durable.iter().any(is_durable), "sent before it is durable");
                    assert!(!was_halted, "sent after the halt");
                    self.work.push_back(Work::Send { attempt });
                }
                Action::JournalDone(record) => {
                    self.counts.finals += 1;
                    self.buffered.push(Record::Done(record));
                    // Given up at a start: settlement makes it, and what follows it, anew.
                    if let (Fate::Taken, Some(payload)) = (record.fate, record.payload)
                        && !was_halted
                        && !self.withdrawn.contains(&payload.0)
                    {
                        self.withdraw(payload.0);
                    }
                }
                Action::Report(report) => self.report(report),
            }
        }
    }

    fn check_attempt(&self, attempt: &Attempt) {
        assert!(attempt.cost_max_wei() <= self.settings.tx_cost_wei_max);
        assert!(attempt.tip_cap_wei <= attempt.fee_cap_wei);
        let signed = self.durable.iter().filter_map(|record| match record {
            Record::Signed(record) if record.attempt.nonce == attempt.nonce => Some(record.attempt),
            _ => None,
        });
        for old in signed {
            assert_eq!(old.payload.id, attempt.payload.id, "a nonce has one payload");
            assert!(attempt.fee_cap_wei * 100 >= old.fee_cap_wei * 110, "a tenth more of the cap");
            assert!(attempt.tip_cap_wei * 100 >= old.tip_cap_wei * 110, "a tenth more of the tip");
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Bumped { .. } => self.counts.bumps += 1,
            Report::FellOut { .. } => self.counts.fell_out += 1,
            Report::Condition(Condition::Halted(reason)) => {
                assert!(self.is_stolen, "halted without a reason: {reason}");
                self.counts.halts += 1;
            }
            Report::Failed { payload, .. } if !self.withdrawn.contains(&payload.0) => {
                self.counts.failures += 1;
                self.withdraw(payload.0);
            }
            _ => {}
        }
    }

    /// What settlement does: the batches from this one on are encoded anew.
    fn withdraw(&mut self, from: u64) {
        let to = self.payloads.len() as u64 - 1;
        self.withdrawn.extend(from..=to);
        self.withdrawals.push((from, to));
        self.work.push_back(Work::Answer(Event::Withdraw { from: PayloadId(from), to: PayloadId(to) }));
        for _ in from..=to.min(from + 1) {
            self.give();
        }
    }

    fn give(&mut self) {
        let id = PayloadId(self.payloads.len() as u64);
        let payload = PayloadFacts { id, gas: 1_000_000 + self.rng.below(2_000_000), bytes: 100_000 };
        self.payloads.push(payload);
        self.work.push_back(Work::Answer(Event::Payload(payload)));
    }

    fn flush(&mut self, count: usize) {
        for record in self.buffered.drain(..count) {
            if let Record::Signed(record) = record {
                let before = self.nonces.insert(record.attempt.payload.id.0, record.attempt.nonce);
                assert!(before.is_none_or(|nonce| nonce == record.attempt.nonce), "a payload has one nonce");
            }
            self.durable.push(record);
        }
    }

    fn work(&mut self) {
        self.now_ns += 1_000_000;
        match self.work.pop_front() {
            None => self.step(Event::Tick),
            Some(Work::Answer(event)) => self.step(event),
            Some(Work::Sign(attempt)) => self.step(Event::Signed { attempt: attempt.id, hash: hash_of(&attempt) }),
            Some(Work::Journal(record)) => {
                self.buffered.push(Record::Signed(record));
                self.flush(self.buffered.len());
                self.step(Event::Journaled { attempt: record.attempt.id });
            }
            Some(Work::Send { attempt: id }) => {
                let found = self.durable.iter().find_map(|record| match record {
                    Record::Signed(record) if record.attempt.id == id => Some(*record),
                    _ => None,
                });
                let SignedRecord { attempt, hash, .. } = found.expect("durable before it is sent");
                let outcome = self.l1.send(PoolTx {
                    hash,
                    nonce: attempt.nonce,
                    payload: Some(attempt.payload),
                    fee_cap_wei: attempt.fee_cap_wei,
                    tip_cap_wei: attempt.tip_cap_wei,
                    success: true,
                    is_visible: true,
                });
                if self.rng.chance(1, 30) {
                    return self.crash();
                }
                self.step(Event::Sent { attempt: id, outcome });
            }
        }
    }

    /// What the client tells: rewinds, blocks, finality, the head.
    fn follow(&mut self) {
        self.now_ns += 100_000_000;
        if self.l1.is_away {
            return;
        }
        let on_chain = |id: &BlockId| self.l1.blocks.get(id.number as usize).is_some_and(|block| block.view.id == *id);
        let kept = self.fed.iter().take_while(|id| on_chain(id)).count();
        assert!(kept > 0);
        if kept < self.fed.len() {
            self.fed.truncate(kept);
            self.step(Event::Rewind { to: self.fed[kept - 1].number });
        }
        let next = self.fed[self.fed.len() - 1].number as usize + 1;
        for number in next..self.l1.blocks.len() {
            let view = self.l1.blocks[number].view.clone();
            self.fed.push(view.id);
            self.step(Event::Block(view));
        }
        self.step(Event::Finalized { number: self.l1.finalized() });
        let nonce = self.l1.nonce();
        let mut nonce_pending = nonce;
        while self.l1.pool.contains_key(&nonce_pending) {
            nonce_pending += 1;
        }
        let nonce_final =
            self.l1.blocks[..=self.l1.finalized() as usize].iter().map(|block| block.txs.len() as u64).sum();
        let tip_wei = u128::from(self.rng.below(3 * GWEI));
        let view = HeadView {
            block: self.fed[self.fed.len() - 1],
            nonce,
            nonce_pending,
            nonce_final,
            balance_wei: self.l1.balance_wei,
            is_confirmed: true,
            tip_wei,
        };
        // Some answers come blocks later, or after a reorganisation.
        let told = if self.rng.chance(1, 3) { self.late.replace(view) } else { Some(view) };
        if let Some(told) = told {
            self.step(Event::Head(told));
        }
    }

    /// The process ends at any point: what was not synced is there in part.
    fn crash(&mut self) {
        self.counts.crashes += 1;
        let count = self.rng.below(self.buffered.len() as u64 + 1) as usize;
        self.flush(count);
        self.buffered.clear();
        self.work.clear();
        self.late = None;
        self.manager = TxManager::restore(self.settings, self.durable.iter().copied());
        let start = self.manager.resume_from().unwrap_or(self.l1.finalized() + 1).min(self.l1.finalized() + 1);
        self.fed = vec![self.l1.blocks[start as usize - 1].view.id];
        for payload in self.payloads.clone() {
            if !self.withdrawn.contains(&payload.id.0) {
                self.step(Event::Payload(payload));
            }
        }
        for (from, to) in self.withdrawals.clone() {
            self.step(Event::Withdraw { from: PayloadId(from), to: PayloadId(to) });
        }
    }

    fn check(&self) {
        let mut seen = BTreeSet::new();
        let mut newest = None;
        let now = self.l1.time_s;
        let mut spent = U256::ZERO;
        for block in &self.l1.blocks {
            for tx in &block.txs {
                if let Some(payload) = tx.payload {
                    assert!(seen.insert(payload.id), "{:?} is on L1 twice", payload.id);
                    assert!(newest < Some(payload.id), "out of order");
                    newest = Some(payload.id);
                }
            }
            if block.view.timestamp + HOUR_S > now {
                spent += block.view.ours.iter().map(|tx| tx.cost_wei).sum::<U256>();
            }
        }
        assert!(spent <= self.settings.hour_cost_wei_max, "spent {spent} in an hour");
    }

    fn fault(&mut self) {
        match self.rng.below(9) {
            0 => self.crash(),
            1 => {
                self.counts.reorgs += 1;
                let mut rng = self.rng.clone();
                self.l1.reorganise(&mut rng);
                self.rng = rng;
            }
            2 => drop(self.l1.pool.pop_first()),
            3 => self.l1.pool.clear(),
            4 => self.l1.base_fee_wei = GWEI * (1 + self.rng.below(40)),
            5 => self.l1.is_away = !self.l1.is_away,
            6 => self.l1.balance_wei = if self.rng.chance(1, 2) { U256::from(1) } else { U256::MAX },
            7 => {
                let from = (self.payloads.len() as u64).saturating_sub(1 + self.rng.below(3));
                if self.payloads.len() > 3 && !self.withdrawn.contains(&from) {
                    self.withdraw(from);
                }
            }
            _ => {}
        }
    }

    fn run(&mut self, steals: bool) {
        for round in 0..260 {
            match self.rng.below(100) {
                0..25 => {
                    let mut rng = self.rng.clone();
                    self.l1.mine(&mut rng, true);
                    self.rng = rng;
                }
                25..50 => self.follow(),
                50..85 => self.work(),
                85..93 => self.give(),
                _ => self.fault(),
            }
            if steals && round == 150 {
                self.is_stolen = true;
                let is_visible = self.rng.chance(1, 2);
                self.l1.steal(is_visible);
            }
            self.check();
        }
        self.settle();
    }

    /// No more faults: everything ends.
    fn settle(&mut self) {
        self.l1.is_away = false;
        self.l1.base_fee_wei = GWEI;
        self.l1.balance_wei = U256::MAX;
        for round in 0..6_000 {
            self.follow();
            while !self.work.is_empty() {
                self.work();
            }
            self.l1.time_s += 600;
            let mut rng = self.rng.clone();
            self.l1.mine(&mut rng, false);
            self.rng = rng;
            // The look at every block of L1 is what takes the time.
            if round % 32 == 0 {
                self.check();
            }
            let status = self.manager.status();
            let is_done = status.waiting == 0 && status.in_flight == 0 && status.unfinalized == 0;
            if is_done && status.condition == Condition::Ready {
                break;
            }
            // A person has seen to it that nobody else has the key.
            if self.is_halted() {
                self.crash();
            }
        }
        self.check();
        let status = self.manager.status();
        assert_eq!((status.waiting, status.in_flight, status.unfinalized), (0, 0, 0), "{status:?}");
        let done: BTreeSet<u64> =
            self.l1.blocks.iter().flat_map(|b| &b.txs).filter_map(|tx| Some(tx.payload?.id.0)).collect();
        for payload in &self.payloads {
            assert!(done.contains(&payload.id.0) || self.withdrawn.contains(&payload.id.0), "{payload:?} is not on L1");
        }
    }

    fn is_halted(&self) -> bool {
        matches!(self.manager.status().condition, Condition::Halted(_))
    }
}

#[test]
fn whatever_l1_does_each_payload_is_posted_once_and_in_order() {
    let seeds = std::env::var("TX_MANAGER_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4_000);
    let first: u64 = std::env::var("TX_MANAGER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut all = Counts::default();
    for seed in first..first + seeds {
        let result = std::panic::catch_unwind(|| {
            let mut sim = Sim::new(seed);
            sim.run(seed % 10 == 9);
            sim.counts
        });
        let Ok(counts) = result else {
            panic!("TX_MANAGER_SEEDS=1 TX_MANAGER_SEED={seed} cargo test --lib tx_manager::sim")
        };
        all.bumps += counts.bumps;
        all.reorgs += counts.reorgs;
        all.fell_out += counts.fell_out;
        all.crashes += counts.crashes;
        all.halts += counts.halts;
        all.failures += counts.failures;
        all.finals += counts.finals;
    }
    let Counts { bumps, reorgs, fell_out, crashes, halts, failures, finals } = all;
    println!(
        "{seeds} seeds: {finals} final, {bumps} fee bumps, {reorgs} reorganisations, {fell_out} fell out, {crashes} crashes, \
         {failures} failed on L1, {halts} halts"
    );
    if seeds >= 1_000 {
        assert!([bumps, reorgs, fell_out, crashes, halts, failures].into_iter().all(|count| count >= 100));
    }
}
