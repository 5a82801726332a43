//! The machine over a scripted L1: order of what is carried out, and what each situation leads to. Blocks, batches, signatures and re-execution are real.

use std::collections::BTreeMap;

use super::*;
use crate::config::native_rollup::{Batcher, L1Start, NativeRollup, Withdrawals};
use crate::derivation::origins::OriginBlock;
use crate::l1::block::{Account, L1Header, L1Receipt};
use crate::l1::client::follow::L1Event;
use crate::l1::execute_tx::ExecuteTx;
use crate::l1::profile::Profile;
use crate::l1::signer::{LocalKey, Signer};
use crate::l1::tx_manager::types::Settings as TxSettings;
use crate::primitives::{Bytes, U256};
use crate::settlement::Origin as L1Origin;
use crate::settlement::batch::Batch;
use crate::settlement::jobs::Job;
use crate::settlement::packer::PackerSettings;
use crate::settlement::plan::Plan;
use crate::settlement::segment::CutLimits;
use crate::testing::rng::SimRng;
use crate::testing::sealed_chain::{SealedChain, SealedTestBlock, mix_hash_of, origin};
use crate::testing::settler::{Done, End, LedgerDisk, Settler, SettlerSeat, replaced};

mod random;

const L1_CHAIN_ID: u64 = 61_971;
const NS_PER_S: u64 = 1_000_000_000;

/// What a rig differs in.
#[derive(Clone, Copy)]
struct Shape {
    key: u8,
    tx_bytes_max: usize,
    origin_depth: u64,
    unsafe_blocks_max: u64,
    backlog_bytes_max: u64,
}

const SHAPE: Shape =
    Shape { key: 1, tx_bytes_max: 131_072, origin_depth: 1, unsafe_blocks_max: 1_000, backlog_bytes_max: 1 << 30 };

struct Rig {
    shape: Shape,
    chain: SealedChain,
    /// Block `n` at `n - 1`.
    sealed: Vec<SealedTestBlock>,
    settler: Settler,
    /// By number; block 0 is the genesis's `l1Start`.
    l1: Vec<CheckedBlock>,
    finalized: u64,
    salt: u64,
    /// What waits on L1, by nonce.
    pool: BTreeMap<u64, Bytes>,
    /// Raw transactions in the order in which they left.
    sent: Vec<Bytes>,
    rng: SimRng,
}

fn key(byte: u8) -> LocalKey {
    LocalKey::from_hex(&format!("{byte:02x}").repeat(32), "", L1_CHAIN_ID).expect("a key")
}

fn plan(shape: &Shape, chain: &SealedChain) -> Plan {
    let batchers = [1, 2].map(|byte| Batcher { address: key(byte).address(), from_l1_block: 0 });
    let packer = PackerSettings { tx_bytes_max: shape.tx_bytes_max, age_ns_max: NS_PER_S, ..PackerSettings::default() };
    let (chain_id, address) = (U256::from(L1_CHAIN_ID), key(shape.key).address());
    Plan {
        settings: ConductorSettings {
            origin_depth: shape.origin_depth,
            unsafe_blocks_max: shape.unsafe_blocks_max,
            backlog_bytes_max: shape.backlog_bytes_max,
            follows: false,
        },
        rollup: NativeRollup {
            l1_chain_id: L1_CHAIN_ID,
            batchers: batchers.to_vec(),
            l1_start: L1Start { number: 0, hash: origin(0).hash },
            profile: Profile::default(),
            withdrawals: Withdrawals::Dev,
        },
        genesis: chain.genesis.clone(),
        posting: Some((
            PostingSettings { packer, profile: Profile::default(), chain_id, address },
            TxSettings::default(),
        )),
    }
}

fn settler(shape: &Shape, chain: &SealedChain, mut disk: LedgerDisk) -> Settler {
    let mut ledger = disk.open().expect("a ledger");
    let plan = plan(shape, chain);
    let (number, hash) = (0, origin(0).hash);
    let start = OriginBlock { number, hash, mix_hash: mix_hash_of(&origin(0)), timestamp: 0 };
    let start = plan.known_start(&ledger).unwrap_or(start);
    ledger.apply(Entry::Origin(start)).expect("an origin goes anywhere");
    let conductor = plan.conductor(start, &ledger).expect("a checkpoint that can be read");
    let limits = CutLimits { tx_bytes_max: shape.tx_bytes_max, ..CutLimits::default() };
    let (spec, profile, key) = (chain.spec.clone(), Profile::default(), Some(key(shape.key)));
    let mut settler = Settler::new(SettlerSeat { spec, profile, key, cut_limits: limits }, conductor, ledger, disk);
    settler.event(Event::Tick);
    settler
}

impl Rig {
    fn new(shape: Shape) -> Self {
        let chain = SealedChain::new(20, 6);
        let disk = LedgerDisk::new(chain.tip().1);
        let settler = settler(&shape, &chain, disk);
        let start = L1Header { hash: origin(0).hash, mix_hash: mix_hash_of(&origin(0)), ..L1Header::default() };
        let start = CheckedBlock { header: start, transactions: Vec::new(), receipts: Vec::new() };
        Self {
            shape,
            chain,
            sealed: Vec::new(),
            settler,
            l1: vec![start],
            finalized: 0,
            salt: 0,
            pool: BTreeMap::new(),
            sent: Vec::new(),
            rng: SimRng::new(u64::from(shape.key)),
        }
    }

    /// At L1's head, with an origin to build on.
    fn ready(shape: Shape) -> Self {
        let mut rig = Self::new(shape);
        rig.mine();
        rig.mine();
        rig
    }

    // --- L1 ---

    /// An L1 block with these transactions and their status; nobody hears of it.
    fn push(&mut self, txs: Vec<(Bytes, bool)>) {
        let number = self.l1.len() as u64;
        let hash = match self.salt {
            0 => origin(number).hash,
            salt => alloy_primitives::keccak256([number.to_be_bytes(), salt.to_be_bytes()].concat()),
        };
        let header = L1Header {
            number,
            hash,
            parent_hash: self.l1[self.l1.len() - 1].header.hash,
            timestamp: number * 12,
            base_fee_wei: 1_000_000_000,
            mix_hash: mix_hash_of(&L1Origin { number, hash }),
            ..L1Header::default()
        };
        let receipts = txs.iter().map(|(_, success)| L1Receipt { tx_type: 5, success: *success, gas_used: 100_000 });
        let receipts = receipts.collect();
        let transactions = txs.into_iter().map(|(raw, _)| raw).collect();
        self.l1.push(CheckedBlock { header, transactions, receipts });
    }

    /// Tells what the follower of L1 would tell.
    fn follow(&mut self) {
        let head = self.settler.conductor.l1_head();
        let is_there = |id: &BlockId| self.l1.get(id.number as usize).is_some_and(|block| block.id() == *id);
        assert!(is_there(&head), "a rewind is told by `reorganise`");
        for number in head.number as usize + 1..self.l1.len() {
            let block = Box::new(self.l1[number].clone());
            self.settler.heard(Ok(L1Event::Block(block)));
        }
        if self.finalized > 0 {
            let id = self.l1[self.finalized as usize].id();
            self.settler.heard(Ok(L1Event::Finalized(id)));
        }
        self.head();
    }

    fn head(&mut self) {
        let at = self.l1[self.l1.len() - 1].id();
        self.settler.heard(Ok(L1Event::Head(at)));
        if self.settler.asked.take().is_some() {
            let (nonce, nonce_final) = (self.nonce(self.l1.len()), self.nonce(self.finalized as usize + 1));
            let behind = (nonce..).take_while(|nonce| self.pool.contains_key(nonce)).count() as u64;
            let (address, balance_wei) = (key(self.shape.key).address(), U256::MAX);
            let nonce_pending = nonce + behind;
            let account = Account { address, at, nonce, nonce_pending, nonce_final, balance_wei, is_confirmed: true };
            self.settler.account(account, 1_000_000_000);
        }
    }

    /// Of our account in the state after so many blocks.
    fn nonce(&self, blocks: usize) -> u64 {
        let ours = key(self.shape.key).address();
        let raws = self.l1[..blocks].iter().flat_map(|block| &block.transactions);
        raws.filter(|raw| decode(raw).sender() == Ok(ours)).count() as u64
    }

    /// The pool goes into a block, and is told.
    fn mine(&mut self) {
        self.mine_as(|_| true);
    }

    /// `success`: by nonce.
    fn mine_as(&mut self, success: impl Fn(u64) -> bool) {
        let mut next = self.nonce(self.l1.len());
        let mut txs = Vec::new();
        while let Some(raw) = self.pool.remove(&next) {
            txs.push((raw, success(next)));
            next += 1;
        }
        self.push(txs);
        self.follow();
        self.work();
    }

    /// Blocks above `to` are gone, and what they had with them.
    fn reorganise(&mut self, to: u64) -> Vec<Bytes> {
        self.salt += 1;
        let gone = self.l1.split_off(to as usize + 1);
        self.settler.heard(Ok(L1Event::Rewound { to }));
        gone.into_iter().flat_map(|block| block.transactions).collect()
    }

    // --- our own ---

    /// Seals a block on the origin that the builder was told.
    fn seal(&mut self, tx_count: u64) {
        // As the builder does: before it was told one, that of the parent.
        let parent = self.sealed.last().map_or(origin(0), |sealed| sealed.origin);
        let told = self.settler.origin.map_or(parent, |told| L1Origin { number: told.number, hash: told.hash });
        let mut rng = self.rng.clone();
        let raws = (0..tx_count).map(|_| self.chain.any_tx(&mut rng)).collect();
        self.rng = rng;
        self.sealed.push(self.chain.seal(raws, told, Vec::new()));
        self.take_sealed();
    }

    fn take_sealed(&mut self) {
        while let Some(next) = self.sealed.get(self.settler.conductor.unsafe_head().number as usize) {
            let id = BlockId { number: next.block.header.number, hash: next.block.hash };
            if !self.settler.sealed(id, next.origin.hash, next.block.rlp_bytes) {
                break;
            }
        }
        self.settler.event(Event::Tick);
    }

    /// What the `settle` thread and the sender do, until nothing is left.
    fn work(&mut self) {
        for _ in 0..64 {
            while let Some(job) = self.settler.jobs.pop_front() {
                self.answer(job);
            }
            while let Some((attempt, raw)) = self.settler.sends.pop_front() {
                self.sent.push(raw.clone());
                let nonce = decode(&raw).terms.nonce;
                if nonce < self.nonce(self.l1.len()) {
                    self.settler.sent(attempt, SendOutcome::NonceTooLow);
                    continue;
                }
                self.pool.insert(nonce, raw);
                self.settler.sent(attempt, SendOutcome::Accepted);
            }
            if self.settler.jobs.is_empty() {
                break;
            }
        }
    }

    fn answer(&mut self, job: Job) {
        match job {
            Job::Check(check) => self.settler.answer_check(&check),
            Job::Cut { number, limits, .. } => {
                let sealed = &self.sealed[number as usize - 1];
                self.settler.answer_cut(&sealed.block, &sealed.witness, sealed.origin, &limits);
            }
            Job::Keep { .. } | Job::Forget { .. } => {}
        }
    }

    /// Lets the open batch grow old, and works.
    fn close(&mut self) {
        self.work();
        self.settler.now_ns += 2 * NS_PER_S;
        self.settler.event(Event::Tick);
        self.work();
    }

    /// A block in a batch of its own, in L1's pool.
    fn post(&mut self) {
        self.seal(3);
        self.close();
    }

    /// The process ends; the next one reads L1 from its checkpoint on.
    fn restart(&mut self) {
        let (disk, now_ns) = (self.settler.disk.clone(), self.settler.now_ns);
        self.settler = settler(&self.shape, &self.chain, disk);
        self.settler.now_ns = now_ns;
        self.take_sealed();
        self.follow();
        self.work();
    }

    fn safe(&self) -> u64 {
        self.settler.conductor.settled().0
    }

    /// Batches of the chain that L1 has: index, and whether each counts is the caller's to know.
    fn indexes(&self, raws: &[Bytes]) -> Vec<u64> {
        raws.iter().map(|raw| Batch::decode(&decode(raw).payload.data).expect("ours").index).collect()
    }

    fn skips(&self) -> Vec<(&'static str, u64)> {
        self.settler.conductor.status().skip_counts.clone()
    }

    #[track_caller]
    fn check_lives(&self) {
        assert_eq!((&self.settler.end, &self.settler.halted), (&None, &None));
        assert!(self.settler.replacement.is_none());
    }
}

fn decode(raw: &[u8]) -> ExecuteTx {
    ExecuteTx::decode(raw, Profile::default()).expect("ours")
}

#[test]
fn nothing_is_cut_before_l1_is_derived_to_its_head() {
    let mut rig = Rig::new(SHAPE);
    rig.seal(2);
    rig.push(Vec::new());
    let block = Box::new(rig.l1[1].clone());
    rig.settler.heard(Ok(L1Event::Block(block)));
    assert!(!rig.settler.conductor.is_met() && rig.settler.jobs.is_empty());
    rig.head();
    assert!(rig.settler.conductor.is_met());
    assert!(matches!(rig.settler.jobs[0], Job::Cut { number: 1, .. }));
}

#[test]
fn a_block_becomes_safe_and_everything_is_durable_before_it_leaves() {
    let mut rig = Rig::ready(SHAPE);
    rig.post();
    assert_eq!((rig.safe(), rig.pool.len()), (0, 1));
    assert_eq!(rig.settler.conductor.status().posted_block, 1, "all of it was sent");
    let steps = [
        Done::AskedCut { number: 1 },
        Done::Batch { index: 0 },
        Done::Signed { attempt: 0 },
        Done::Sent { attempt: 0 },
    ];
    assert_eq!(rig.settler.done, steps);
    rig.mine();
    assert_eq!(rig.safe(), 1);
    let status = rig.settler.conductor.status();
    assert_eq!((status.batch_next, status.backlog_blocks, status.backlog_bytes), (1, 0, 0));
    rig.finalized = 3;
    rig.mine();
    assert_eq!(rig.settler.conductor.settled(), (1, 1));
    assert_eq!(rig.settler.done.last(), Some(&Done::Ended { nonce: 0 }));
    rig.check_lives();
}

#[test]
fn a_block_in_several_batches_becomes_safe_with_the_last() {
    let mut rig = Rig::ready(Shape { tx_bytes_max: 8_000, ..SHAPE });
    rig.post();
    rig.mine();
    rig.seal(30);
    rig.close();
    let indexes = rig.indexes(&rig.sent);
    assert!(indexes.len() >= 3 && indexes.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{indexes:?}");
    let last = *rig.pool.last_key_value().expect("in flight").0;
    let held = rig.pool.split_off(&last);
    rig.mine();
    // The end of the block is not there.
    assert_eq!(rig.safe(), 1);
    rig.pool.extend(held);
    rig.mine();
    rig.close();
    rig.mine();
    assert_eq!(rig.safe(), 2);
    rig.check_lives();
}

#[test]
fn a_batch_that_failed_on_l1_is_made_anew_with_those_behind_it() {
    let mut rig = Rig::ready(SHAPE);
    rig.post();
    rig.mine();
    rig.post();
    rig.post();
    let failing = *rig.pool.first_key_value().expect("two are in flight").0;
    rig.mine_as(|nonce| nonce != failing);
    assert_eq!(rig.skips(), [("failed_on_l1", 1), ("index_not_next", 1)]);
    assert_eq!(rig.safe(), 1);
    rig.close();
    rig.mine();
    assert_eq!((rig.safe(), rig.skips().len()), (3, 2));
    rig.check_lives();
}

/// A batch fails, is made anew, and then the old one counts after all, because L1 has reorganised: the new one is a duplicate. What goes on
/// from either stays.
#[test]
fn a_duplicate_costs_itself_alone() {
    let mut rig = Rig::ready(SHAPE);
    rig.post();
    rig.mine();
    rig.post();
    rig.mine_as(|_| false);
    rig.close();
    let again = rig.pool.clone();
    assert_eq!(rig.indexes(&rig.sent), [0, 1, 1]);
    // The block in which it failed is gone, and in the next it does not.
    let gone = rig.reorganise(rig.l1.len() as u64 - 2);
    rig.push(gone.into_iter().map(|raw| (raw, true)).collect());
    rig.follow();
    rig.work();
    assert_eq!(rig.safe(), 2);
    rig.post();
    assert_eq!(rig.indexes(&rig.sent).last(), Some(&2));
    let before = rig.sent.len();
    assert!(again.keys().all(|nonce| rig.pool.contains_key(nonce)), "its nonce is used by it alone");
    rig.mine();
    rig.close();
    rig.mine();
    assert_eq!(rig.skips(), [("failed_on_l1", 1), ("index_not_next", 1)]);
    assert_eq!(rig.safe(), 3);
    assert_eq!(rig.sent.len(), before, "batch 2 goes on from the one that counts: nothing is posted twice");
    rig.check_lives();
}

#[test]
fn a_reorganisation_takes_safe_back_and_the_same_bytes_are_sent_again() {
    let mut rig = Rig::ready(Shape { origin_depth: 3, ..SHAPE });
    rig.mine();
    rig.mine();
    rig.post();
    rig.mine();
    assert_eq!(rig.safe(), 1);
    let sent = rig.sent.clone();
    rig.reorganise(rig.l1.len() as u64 - 2);
    assert_eq!(rig.safe(), 0);
    rig.mine();
    assert_eq!(rig.sent[sent.len()..], sent[..], "byte for byte");
    rig.mine();
    assert_eq!(rig.safe(), 1);
    rig.check_lives();
}

#[test]
fn blocks_whose_origin_is_gone_give_way_with_their_batches() {
    let mut rig = Rig::ready(SHAPE);
    rig.post();
    rig.mine();
    rig.mine();
    rig.post();
    let standing_on = rig.sealed[1].origin.number;
    assert!(standing_on > rig.sealed[0].origin.number);
    rig.reorganise(standing_on - 1);
    rig.push(Vec::new());
    rig.follow();
    rig.work();
    let replacement = rig.settler.replacement.as_ref().expect("block 2 cannot stay");
    assert_eq!(replaced(replacement), (1, Some(RollbackCause::OriginGone), Vec::new()));
    assert!(!rig.settler.conductor.takes_blocks());
    let wanted: Vec<u64> = rig.settler.ledger.wanted().map(|batch| batch.index).collect();
    assert_eq!(wanted, [0], "batch 0 has lost its place and is sent again, batch 1 is not wanted any more");
    assert_eq!(rig.settler.halted, None);
}

/// The process was down while L1 took an origin away and made what replaced it final.
#[test]
fn an_origin_that_went_below_the_final_block_is_noticed() {
    let mut rig = Rig::ready(SHAPE);
    rig.mine();
    rig.seal(2);
    let standing_on = rig.sealed[0].origin.number;
    assert_eq!(standing_on, 2);
    rig.l1.truncate(standing_on as usize);
    rig.salt = 9;
    (0..4).for_each(|_| rig.push(Vec::new()));
    rig.finalized = 4;
    let disk = rig.settler.disk.clone();
    rig.settler = settler(&rig.shape, &rig.chain, disk);
    // L1 is read before our own block is taken.
    rig.follow();
    rig.take_sealed();
    rig.head();
    let replacement = rig.settler.replacement.as_ref().expect("its batch would never count");
    assert_eq!(replaced(replacement), (0, Some(RollbackCause::OriginGone), Vec::new()));
}

/// L1 becomes shorter while a block on its newest origin is built: the next one would stand on an older origin, and no batch could hold both.
#[test]
fn origins_never_go_down() {
    let mut rig = Rig::ready(SHAPE);
    (0..4).for_each(|_| rig.mine());
    let told = rig.settler.origin.expect("deep enough").number;
    rig.reorganise(told - 2);
    rig.push(Vec::new());
    rig.follow();
    assert_eq!(rig.settler.origin.expect("still").number, told, "nothing older is told while it lives");
    // After a restart nobody remembers what was told. The open block was on it.
    let older = rig.l1[told as usize - 2].header;
    let disk = rig.settler.disk.clone();
    rig.settler = settler(&rig.shape, &rig.chain, disk);
    rig.follow();
    rig.settler.event(Event::Tick);
    rig.sealed.push(rig.chain.seal(Vec::new(), origin(told), Vec::new()));
    let again = L1Origin { number: older.number, hash: older.hash };
    rig.sealed.push(rig.chain.seal(Vec::new(), again, Vec::new()));
    rig.take_sealed();
    rig.head();
    let replacement = rig.settler.replacement.as_ref().expect("block 2 stands below block 1");
    assert_eq!(replaced(replacement), (1, Some(RollbackCause::OriginGone), Vec::new()));
}

#[test]
fn blocks_of_a_valid_batch_that_we_did_not_make_take_the_place_of_ours() {
    let mut other = Rig::ready(Shape { key: 2, ..SHAPE });
    other.post();
    let theirs = (other.sealed[0].block.hash, other.pool.clone());
    let mut rig = Rig::ready(SHAPE);
    rig.seal(4);
    rig.seal(1);
    rig.push(theirs.1.into_values().map(|raw| (raw, true)).collect());
    rig.follow();
    rig.work();
    let replacement = rig.settler.replacement.as_ref().expect("another block 1 is safe");
    assert_eq!(replaced(replacement), (0, Some(RollbackCause::L1Differs), vec![theirs.0]));
}

/// L1's block 1 is safe and final before ours has given way: ours is neither.
#[test]
fn a_block_of_ours_is_not_final_while_l1s_waits_to_take_its_place() {
    let mut other = Rig::ready(Shape { key: 2, ..SHAPE });
    other.post();
    let mut rig = Rig::ready(SHAPE);
    rig.seal(4);
    rig.push(other.pool.into_values().map(|raw| (raw, true)).collect());
    let (number, block) = (rig.l1.len() as u64 - 1, Box::new(rig.l1[rig.l1.len() - 1].clone()));
    rig.settler.heard(Ok(L1Event::Block(block.clone())));
    rig.work();
    assert!(!rig.settler.conductor.takes_blocks() && rig.settler.replacement.is_none(), "L1 was not read to its head");
    assert_eq!(rig.settler.conductor.settled(), (0, 0));
    rig.settler.heard(Ok(L1Event::Finalized(block.id())));
    assert_eq!((rig.settler.conductor.status().l1_finalized, rig.settler.conductor.settled()), (number, (0, 0)));
    assert_eq!(rig.settler.conductor.status().finalized.number, 0);
    rig.head();
    assert!(rig.settler.replacement.is_some(), "our block 1 gives way now");
    assert_eq!((rig.settler.conductor.settled(), rig.settler.conductor.posted()), ((0, 0), 0));
}

/// L1 has the first part of a block that we do not have: nobody but who has its rest can go on, and that is whoever builds it.
#[test]
fn the_beginning_of_a_block_that_we_did_not_make_takes_the_place_of_ours() {
    let shape = Shape { tx_bytes_max: 8_000, ..SHAPE };
    let mut other = Rig::ready(Shape { key: 2, ..shape });
    other.seal(30);
    other.close();
    let first = other.pool.pop_first().expect("more than one batch").1;
    let mut rig = Rig::ready(shape);
    rig.seal(30);
    rig.push(vec![(first, true)]);
    rig.follow();
    rig.close();
    rig.close();
    let replacement = rig.settler.replacement.as_ref().expect("block 1 cannot stay");
    assert_eq!(replaced(replacement), (0, Some(RollbackCause::L1Differs), Vec::new()));
    let part = replacement.open.as_ref().expect("what L1 has of block 1");
    let theirs: Vec<Bytes> = other.sealed[0].block.transactions.iter().map(|tx| tx.raw.clone()).collect();
    assert!(!part.transactions.is_empty() && theirs.starts_with(&part.transactions));
    assert_eq!(part.context.timestamp, other.sealed[0].block.header.timestamp);
    assert_eq!(rig.settler.halted, None);
}

#[test]
fn a_nonce_that_somebody_else_used_halts_it_for_good() {
    let mut other = Rig::ready(SHAPE);
    other.rng = SimRng::new(77);
    other.post();
    let mut rig = Rig::ready(SHAPE);
    rig.post();
    let theirs = other.pool.into_values().map(|raw| (raw, true)).collect();
    rig.push(theirs);
    rig.follow();
    rig.work();
    let why = rig.settler.halted.clone().expect("its nonce was used");
    assert!(why.contains("another process posts with the same key"), "{why}");
    let done = rig.settler.done.len();
    rig.seal(1);
    rig.close();
    rig.mine();
    assert_eq!(rig.settler.done.len(), done, "nothing is carried out behind it");
    assert_eq!(rig.settler.conductor.status().condition.name(), "halted");
}

/// Somebody else has used the nonces of two batches for good, and the first of them is on L1 by another key: the second is made anew all the same.
#[test]
fn of_two_batches_whose_nonces_are_taken_neither_is_forgotten() {
    let (mut rig, mut second) = (Rig::ready(SHAPE), Rig::ready(SHAPE));
    let mut copy = Rig::ready(Shape { key: 2, ..SHAPE });
    copy.rng = SimRng::new(u64::from(SHAPE.key));
    for rig in [&mut rig, &mut second, &mut copy] {
        rig.post();
        rig.mine();
    }
    second.rng = SimRng::new(77);
    for rig in [&mut rig, &mut second, &mut copy] {
        rig.post();
    }
    for rig in [&mut rig, &mut second] {
        rig.post();
    }
    assert_eq!(rig.pool.keys().collect::<Vec<_>>(), [&1, &2]);
    let theirs = copy.pool.into_values().chain(second.pool.into_values());
    rig.push(theirs.map(|raw| (raw, true)).collect());
    rig.follow();
    rig.work();
    assert!(rig.settler.halted.is_some(), "its nonces were used");
    rig.pool.clear();
    rig.push(Vec::new());
    rig.restart();
    rig.finalized = rig.l1.len() as u64 - 1;
    for _ in 0..4 {
        rig.mine();
        rig.close();
    }
    assert_eq!(rig.safe(), 3, "{:?}", rig.settler.conductor.status());
    rig.check_lives();
}

#[test]
fn an_l1_that_contradicts_what_was_final_ends_posting() {
    let mut rig = Rig::ready(SHAPE);
    rig.settler.event(Event::L1Contradicts { why: "another block 5".to_owned() });
    assert_eq!(rig.settler.halted.as_deref(), Some("another block 5"));
    let (sent, done) = (rig.sent.len(), rig.settler.done.len());
    rig.seal(2);
    rig.close();
    rig.mine();
    assert_eq!((rig.sent.len(), rig.settler.done.len()), (sent, done), "nothing is signed or sent behind it");
    assert_eq!(rig.settler.conductor.status().condition.name(), "halted");
}

#[test]
fn a_restart_sends_what_was_signed_and_packs_behind_it() {
    let mut rig = Rig::ready(SHAPE);
    rig.post();
    rig.mine();
    rig.post();
    rig.seal(2);
    rig.work();
    let sent = rig.sent.clone();
    rig.pool.clear();
    rig.restart();
    assert_eq!(rig.sent[sent.len()..], sent[1..], "the batch in flight, byte for byte");
    rig.close();
    rig.mine();
    rig.close();
    rig.mine();
    assert_eq!(rig.safe(), 3);
    assert_eq!(rig.skips(), []);
    rig.check_lives();
}

/// L1 says that blocks are final whose batches are not re-executed yet: what they hold of ours is not forgotten, and nothing is made anew.
#[test]
fn finality_waits_for_what_is_not_decided() {
    let mut rig = Rig::ready(SHAPE);
    rig.post();
    rig.mine();
    for _ in 0..3 {
        rig.post();
    }
    let batches = rig.sent.len();
    let mut waiting = std::mem::take(&mut rig.pool).into_values();
    // Three L1 blocks with a batch each, one behind the other; the first check is not answered.
    for raw in waiting.by_ref() {
        rig.push(vec![(raw, true)]);
    }
    rig.finalized = rig.l1.len() as u64 - 1;
    rig.follow();
    assert_eq!(rig.settler.conductor.settled().0, 1);
    assert!(!rig.settler.done.iter().any(|done| matches!(done, Done::Ended { nonce: 1.. })));
    rig.work();
    rig.head();
    rig.close();
    assert_eq!(rig.safe(), 4);
    assert_eq!(rig.sent.len(), batches, "no batch is made twice");
    assert!(!rig.settler.done.contains(&Done::Withdrawn));
    assert!(rig.settler.done.contains(&Done::Ended { nonce: 3 }));
    rig.check_lives();
}

#[test]
fn a_restart_goes_on_from_a_checkpoint_and_needs_nothing_older() {
    let mut rig = Rig::ready(SHAPE);
    for _ in 0..70 {
        rig.mine();
        if rig.l1.len().is_multiple_of(9) {
            rig.post();
        }
        rig.finalized = (rig.l1.len() as u64).saturating_sub(4);
    }
    rig.mine();
    let checkpoint = rig.settler.ledger.checkpoint().expect("after 64 final blocks").clone();
    let newest = checkpoint.l1.last().expect("the final one").number;
    assert!((64..rig.finalized + 1).contains(&newest));
    assert!(checkpoint.l1.first().is_some_and(|block| block.number == checkpoint.origin.number));
    let (safe, next) = (rig.safe(), rig.settler.conductor.status().batch_next);
    rig.restart();
    assert_eq!((rig.safe(), rig.settler.conductor.status().batch_next), (safe, next));
    rig.post();
    rig.mine();
    assert_eq!(rig.safe(), safe + 1);
    rig.check_lives();
}

#[test]
fn building_waits_while_l1_takes_nothing() {
    let mut rig = Rig::ready(Shape { unsafe_blocks_max: 3, ..SHAPE });
    rig.seal(1);
    rig.seal(1);
    assert_eq!(rig.settler.conductor.hold(), None);
    rig.seal(1);
    assert_eq!(rig.settler.conductor.hold(), Some(Hold::Blocks { have: 3, max: 3 }));
    rig.close();
    rig.mine();
    assert_eq!(rig.settler.conductor.hold(), None);
    let mut rig = Rig::ready(Shape { backlog_bytes_max: 100, ..SHAPE });
    rig.seal(1);
    assert!(matches!(rig.settler.conductor.hold(), Some(Hold::Bytes { max: 100, .. })));
    rig.close();
    assert_eq!(rig.settler.conductor.hold(), None, "what is in a batch waits no more");
}

#[test]
fn an_answer_that_is_not_wanted_any_more_is_no_error() {
    let mut rig = Rig::ready(SHAPE);
    rig.post();
    rig.mine();
    rig.post();
    rig.seal(2);
    assert!(matches!(rig.settler.jobs[0], Job::Cut { number: 3, .. }));
    // Batch 1 fails meanwhile: packing goes back to block 2.
    let txs = std::mem::take(&mut rig.pool).into_values().map(|raw| (raw, false)).collect();
    rig.push(txs);
    rig.follow();
    rig.settler.jobs.retain(|job| matches!(job, Job::Check(_)));
    rig.settler.event(Event::Cut { number: 3, result: Err("its state is gone".to_owned()) });
    rig.close();
    rig.mine();
    assert_eq!(rig.safe(), 3);
    rig.check_lives();
}

#[test]
fn a_block_that_cannot_be_cut_halts_it() {
    let mut rig = Rig::ready(SHAPE);
    rig.seal(2);
    rig.settler.jobs.clear();
    rig.settler.event(Event::Cut { number: 1, result: Err("its state is gone".to_owned()) });
    assert_eq!(rig.settler.halted.as_deref(), Some("its state is gone"));
}

#[test]
fn a_torn_append_is_cut_and_nobody_was_told_of_it() {
    for fuse in 0..12 {
        for seed in 0..4 {
            let mut rig = Rig::ready(SHAPE);
            rig.settler.rng = SimRng::new(seed);
            rig.settler.fuse = Some(fuse);
            rig.post();
            rig.mine();
            rig.post();
            if rig.settler.end.is_none() {
                continue;
            }
            assert_eq!(rig.settler.end, Some(End::Crashed));
            rig.restart();
            rig.close();
            rig.mine();
            rig.close();
            rig.mine();
            rig.seal(1);
            rig.close();
            rig.mine();
            rig.close();
            rig.mine();
            rig.check_lives();
            assert_eq!(rig.safe(), rig.sealed.len() as u64, "fuse {fuse}, seed {seed}");
            assert_eq!(rig.skips(), [], "no batch twice: fuse {fuse}, seed {seed}");
        }
    }
}
