//! Each rule by itself; and a seeded L1 that reorganises up to 64 deep, against a derivation from scratch. `DERIVATION_SEEDS=100000` for long runs.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::origins::ORIGIN_AGE_MAX;
use super::types::*;
use super::*;
use crate::l1::block::{L1Header, L1Receipt};
use crate::primitives::{Address, B256};
use crate::testing::rng::SimRng;

const BATCHER: Address = Address::repeat_byte(0xba);
const LATE_BATCHER: Address = Address::repeat_byte(0xbb);
const L1_CHAIN_ID: u64 = 61_971;
const START: u64 = 10;

/// Digest, state behind, blocks, origins, whether the last block goes on.
type Content = (B256, B256, Vec<DerivedBlock>, Vec<ClaimedOrigin>, bool);

/// A transaction as the test means it; its bytes are the type and its place in a list.
#[derive(Clone, Debug)]
struct FakeTx {
    facts: Result<TxFacts, SkipReason>,
    header: Result<BatchHeader, String>,
    /// What re-execution would prove.
    content: Result<Content, SkipReason>,
    success: bool,
}

#[derive(Clone, Debug, Default)]
struct FakeFormats(Rc<RefCell<Vec<FakeTx>>>);

impl FakeFormats {
    fn add(&self, tx: FakeTx) -> Bytes {
        let index = self.0.borrow().len() as u64;
        self.0.borrow_mut().push(tx);
        [&[5], index.to_be_bytes().as_slice()].concat().into()
    }

    fn get(&self, raw: &[u8]) -> FakeTx {
        let index = u64::from_be_bytes(raw[1..9].try_into().expect("made here"));
        self.0.borrow()[index as usize].clone()
    }
}

impl Formats for FakeFormats {
    fn transaction(&self, raw: &[u8]) -> Result<TxFacts, SkipReason> {
        self.get(raw).facts
    }

    fn batch_header(&self, raw: &[u8]) -> Result<BatchHeader, String> {
        self.get(raw).header
    }
}

type Machine = Derivation<FakeFormats, u64>;

fn word(parts: &[u64]) -> B256 {
    keccak256(&parts.iter().flat_map(|part| part.to_be_bytes()).collect::<Vec<_>>())
}

fn start_block() -> OriginBlock {
    OriginBlock { number: START, hash: word(&[START]), mix_hash: word(&[1, START]), timestamp: 0 }
}

fn machine(formats: &FakeFormats) -> Machine {
    let rules = Rules {
        l1_chain_id: L1_CHAIN_ID,
        batchers: vec![
            Batcher { address: BATCHER, from_l1_block: 0 },
            Batcher { address: LATE_BATCHER, from_l1_block: u64::MAX },
        ],
        l1_start: start_block().id(),
    };
    let tip = Tip {
        next_index: 0,
        digest: B256::ZERO,
        state_root: word(&[2]),
        block: BlockId { number: 0, hash: word(&[3]) },
        is_open: false,
        origin: START,
        carry: Arc::new(0),
    };
    Machine::new(rules, formats.clone(), start_block(), tip)
}

fn l1_block(parent: BlockId, salt: u64, txs: &[(Bytes, bool)]) -> CheckedBlock {
    let number = parent.number + 1;
    let header = L1Header {
        number,
        hash: word(&[number, salt]),
        parent_hash: parent.hash,
        mix_hash: word(&[1, number, salt]),
        ..L1Header::default()
    };
    let receipt = |(_, success): &(Bytes, bool)| L1Receipt { tx_type: 5, success: *success, gas_used: 1 };
    CheckedBlock {
        header,
        transactions: txs.iter().map(|(raw, _)| raw.clone()).collect(),
        receipts: txs.iter().map(receipt).collect(),
    }
}

/// A batch that counts behind `tip`, with `count` blocks that stand on `origin`.
fn good(tip: &Tip<u64>, count: u64, origin: OriginBlock, salt: u64) -> FakeTx {
    let (prev_randao, origin) = (origin.mix_hash, origin.id());
    let first = tip.block.number + 1;
    let id = |number| BlockId { number, hash: word(&[4, number, salt]) };
    FakeTx {
        facts: Ok(TxFacts {
            chain_id: Some(L1_CHAIN_ID),
            sender: BATCHER,
            to: None,
            has_value: false,
            pre_state: tip.state_root,
        }),
        header: Ok(BatchHeader { index: tip.next_index, previous_digest: tip.digest, first_block: first }),
        content: Ok((
            word(&[5, tip.next_index, salt]),
            word(&[6, tip.next_index, salt]),
            (first..first + count).map(|number| DerivedBlock { id: id(number), origin }).collect(),
            (first..=first + count).map(|block| ClaimedOrigin { block, origin, prev_randao }).collect(),
            true,
        )),
        success: true,
    }
}

fn answer(formats: &FakeFormats, check: &Check<u64>) -> Result<ValidBatch<u64>, SkipReason> {
    let (digest, post_state, blocks, origins, is_open) = formats.get(&check.raw).content?;
    Ok(ValidBatch { digest, post_state, blocks, origins, is_open, carry: Arc::new(*check.tip.carry + 1) })
}

/// Feeds a block and answers what is asked at once.
fn feed(machine: &mut Machine, formats: &FakeFormats, block: &CheckedBlock) -> Vec<Action<u64>> {
    let (mut out, mut actions) = (Vec::new(), Vec::new());
    machine.block(block, &mut actions).expect("it follows");
    while !actions.is_empty() {
        for action in std::mem::take(&mut actions) {
            match action {
                Action::Check(check) => machine.checked(check.id, answer(formats, &check), &mut actions),
                other => out.push(other),
            }
        }
    }
    out
}

#[track_caller]
fn check_rule(name: &str, change: impl FnOnce(&mut FakeTx, &mut Machine)) {
    let formats = FakeFormats::default();
    let mut machine = machine(&formats);
    // Three blocks, so that origins have where to stand; the newest stands on the second.
    for salt in 0..3 {
        let block = l1_block(machine.l1_head(), salt, &[]);
        feed(&mut machine, &formats, &block);
    }
    let origin = |machine: &Machine, number| machine.l1_block(number).expect("fed");
    let opening = formats.add(good(machine.tip(), 1, origin(&machine, START + 1), 0));
    let block = l1_block(machine.l1_head(), 3, &[(opening, true)]);
    feed(&mut machine, &formats, &block);
    assert_eq!(machine.tip().next_index, 1);
    let mut tx = good(machine.tip(), 1, origin(&machine, START + 2), 1);
    change(&mut tx, &mut machine);
    let success = tx.success;
    let raw = formats.add(tx);
    let block = l1_block(machine.l1_head(), 4, &[(raw, success)]);
    let actions = feed(&mut machine, &formats, &block);
    let skipped = actions.iter().find_map(|action| match action {
        Action::Skipped(skipped) => Some(skipped.reason.name()),
        _ => None,
    });
    assert_eq!(skipped.unwrap_or("accepted"), name);
    assert_eq!(machine.tip().next_index, if name == "accepted" { 2 } else { 1 });
    assert!(matches!(actions.last(), Some(Action::Derived { .. })));
}

fn facts(tx: &mut FakeTx) -> &mut TxFacts {
    tx.facts.as_mut().expect("a good transaction")
}

fn header(tx: &mut FakeTx) -> &mut BatchHeader {
    tx.header.as_mut().expect("a good transaction")
}

fn set_origin(tx: &mut FakeTx, origin: BlockId, prev_randao: B256) {
    let (.., origins, _) = tx.content.as_mut().expect("a good transaction");
    for claimed in origins {
        (claimed.origin, claimed.prev_randao) = (origin, prev_randao);
    }
}

#[test]
fn each_rule_has_its_reason() {
    check_rule("accepted", |_, _| ());
    check_rule("undecodable", |tx, _| tx.facts = Err(SkipReason::Undecodable { what: "21 items".to_owned() }));
    check_rule("wrong_chain_id", |tx, _| facts(tx).chain_id = Some(1));
    check_rule("wrong_chain_id", |tx, _| facts(tx).chain_id = None);
    check_rule("bad_signature", |tx, _| tx.facts = Err(SkipReason::BadSignature { what: "high s".to_owned() }));
    check_rule("not_a_batcher", |tx, _| facts(tx).sender = Address::ZERO);
    check_rule("batcher_too_early", |tx, _| facts(tx).sender = LATE_BATCHER);
    check_rule("accepted", |tx, machine| {
        facts(tx).sender = LATE_BATCHER;
        machine.rules.batchers[1].from_l1_block = START + 5;
    });
    check_rule("batcher_too_early", |tx, machine| {
        facts(tx).sender = LATE_BATCHER;
        machine.rules.batchers[1].from_l1_block = START + 6;
    });
    check_rule("failed_on_l1", |tx, _| tx.success = false);
    check_rule("has_target", |tx, _| facts(tx).to = Some(Address::ZERO));
    check_rule("has_value", |tx, _| facts(tx).has_value = true);
    check_rule("bad_batch", |tx, _| tx.header = Err("version 9".to_owned()));
    check_rule("index_not_next", |tx, _| header(tx).index = 0);
    check_rule("index_not_next", |tx, _| header(tx).index = 2);
    check_rule("other_predecessor", |tx, _| header(tx).previous_digest = B256::ZERO);
    check_rule("other_pre_state", |tx, _| facts(tx).pre_state = B256::ZERO);
    check_rule("other_first_block", |tx, _| header(tx).first_block += 1);
    check_rule("other_first_block", |tx, _| header(tx).first_block -= 1);
    check_rule("origin_not_below", |tx, machine| {
        // The block that has the batch: START + 5.
        let hash = l1_block(machine.l1_head(), 4, &[]).header.hash;
        set_origin(tx, BlockId { number: START + 5, hash }, B256::ZERO);
    });
    check_rule("accepted", |tx, machine| {
        let newest = machine.origins.newest();
        set_origin(tx, newest.id(), newest.mix_hash);
    });
    check_rule("origin_decreases", |tx, _| set_origin(tx, start_block().id(), start_block().mix_hash));
    check_rule("origin_unknown", |tx, _| set_origin(tx, BlockId { number: START + 2, hash: B256::ZERO }, B256::ZERO));
    check_rule("other_prev_randao", |tx, machine| set_origin(tx, machine.origins.newest().id(), B256::ZERO));
    check_rule("invalid", |tx, _| {
        tx.content = Err(SkipReason::Invalid { code: "gas_used".to_owned(), what: "21000, not 21001".to_owned() });
    });
}

#[test]
fn an_origin_has_an_oldest_age() {
    let mut origins = Origins::new(start_block());
    let last = START + ORIGIN_AGE_MAX + 5_000;
    for number in START + 1..=last {
        origins.push(OriginBlock { number, hash: word(&[number]), ..start_block() });
    }
    let window = origins.window(last + 1);
    let prev_randao = start_block().mix_hash;
    let claim = |number| ClaimedOrigin { block: 1, origin: BlockId { number, hash: word(&[number]) }, prev_randao };
    let oldest = last + 1 - ORIGIN_AGE_MAX;
    assert_eq!(window.judge(0, claim(oldest)).map(|block| block.number), Ok(oldest));
    assert_eq!(window.judge(0, claim(oldest - 1)).map_err(|reason| reason.number()), Err(16));
    assert_eq!(window.judge(0, claim(last)).map(|block| block.number), Ok(last));
    assert!(origins.iter().count() as u64 <= ORIGIN_AGE_MAX + 2_048);
    origins.rewind(last - 3_000);
    assert_eq!(origins.newest().number, last - 3_000);
    assert_eq!(origins.get(last - 2_999), None);
    // The window is a view of before.
    assert_eq!(window.judge(0, claim(last)).map(|block| block.number), Ok(last));
}

#[test]
fn names_and_numbers_are_stable_and_documented() {
    let text = include_str!("skip.rs");
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("//! | ") && line.contains(" | `")).collect();
    assert_eq!(rows.len(), usize::from(SkipReason::COUNT));
    for (row, (number, name)) in rows.iter().zip((1..).zip(SkipReason::NAMES)) {
        assert!(row.starts_with(&format!("//! | {number} | `{name}` |")), "{row}");
    }
    for reason in [
        SkipReason::FailedOnL1,
        SkipReason::HasValue,
        SkipReason::HasTarget { to: BATCHER },
        SkipReason::Invalid { code: String::new(), what: String::new() },
        SkipReason::OriginTooOld { block: 0, origin: 0, inclusion: 0 },
    ] {
        let row = format!("//! | {} | `{}` |", reason.number(), reason.name());
        assert!(rows.iter().any(|line| line.starts_with(&row)), "{row}");
    }
}

#[test]
fn what_does_not_follow_is_an_error() {
    let formats = FakeFormats::default();
    let mut machine = machine(&formats);
    let first = l1_block(machine.l1_head(), 0, &[]);
    feed(&mut machine, &formats, &first);
    let second = l1_block(first.id(), 0, &[]);
    let mut actions = Vec::new();
    let other = l1_block(BlockId { number: START + 1, hash: B256::ZERO }, 0, &[]);
    assert!(matches!(machine.block(&other, &mut actions), Err(DerivationError::OutOfOrder { .. })));
    assert!(matches!(machine.block(&first, &mut actions), Err(DerivationError::OutOfOrder { .. })));
    assert!(matches!(machine.finalized(START + 2, &mut actions), Err(DerivationError::FinalizedAhead { .. })));
    machine.block(&second, &mut actions).expect("it follows");
    machine.finalized(START + 1, &mut actions).expect("it was fed");
    assert!(matches!(machine.rewind(START, &mut actions), Err(DerivationError::ReorgBelowFinalized { .. })));
    machine.rewind(START + 1, &mut actions).expect("not below the final block");
    assert_eq!(machine.l1_head(), first.id());
}

// --- the simulation ---

struct Sim {
    rng: SimRng,
    formats: FakeFormats,
    chain: Vec<CheckedBlock>,
    machine: Machine,
    open: Option<Box<Check<u64>>>,
    salt: u64,
    reasons: [u64; SkipReason::COUNT as usize + 1],
    accepted: u64,
    deepest: usize,
}

/// What a derivation that never saw anything else makes of this chain.
fn from_scratch(formats: &FakeFormats, chain: &[CheckedBlock]) -> Machine {
    let mut machine = machine(formats);
    for block in chain {
        feed(&mut machine, formats, block);
    }
    machine
}

impl Sim {
    fn new(seed: u64) -> Self {
        let formats = FakeFormats::default();
        Self {
            rng: SimRng::new(seed),
            machine: machine(&formats),
            formats,
            chain: Vec::new(),
            open: None,
            salt: 0,
            reasons: [0; SkipReason::COUNT as usize + 1],
            accepted: 0,
            deepest: 0,
        }
    }

    fn take(&mut self, actions: &mut Vec<Action<u64>>) {
        for action in actions.drain(..) {
            match action {
                Action::Check(check) => {
                    assert!(self.open.is_none() || self.open.as_ref().is_some_and(|open| open.id < check.id));
                    self.open = Some(check);
                }
                Action::Skipped(skipped) => self.reasons[usize::from(skipped.reason.number())] += 1,
                Action::Accepted(_) => self.accepted += 1,
                Action::Derived { .. } | Action::Rewound { .. } | Action::Finalized { .. } => {}
            }
        }
    }

    fn random_tx(&mut self, tip: &Tip<u64>, known: &[OriginBlock]) -> FakeTx {
        self.salt += 1;
        let above: Vec<_> = known.iter().filter(|block| block.number >= tip.origin).copied().collect();
        let origin = above[self.rng.below(above.len() as u64) as usize];
        let mut tx = good(tip, self.rng.below(3), origin, self.salt);
        match self.rng.below(40) {
            0 => tx.facts = Err(SkipReason::Undecodable { what: String::new() }),
            1 => facts(&mut tx).chain_id = Some(1),
            2 => tx.facts = Err(SkipReason::BadSignature { what: String::new() }),
            3 => facts(&mut tx).sender = Address::ZERO,
            4 => facts(&mut tx).sender = LATE_BATCHER,
            5 => tx.success = false,
            6 => facts(&mut tx).to = Some(BATCHER),
            7 => facts(&mut tx).has_value = true,
            8 => tx.header = Err(String::new()),
            9 => header(&mut tx).index += 1,
            10 => header(&mut tx).previous_digest = word(&[7]),
            11 => facts(&mut tx).pre_state = word(&[8]),
            12 => header(&mut tx).first_block += 1,
            13 => set_origin(&mut tx, BlockId { number: u64::MAX, hash: B256::ZERO }, B256::ZERO),
            14 if tip.origin > START => set_origin(&mut tx, start_block().id(), start_block().mix_hash),
            15 => set_origin(&mut tx, BlockId { hash: B256::ZERO, ..origin.id() }, B256::ZERO),
            16 => set_origin(&mut tx, origin.id(), B256::ZERO),
            17 => tx.content = Err(SkipReason::Invalid { code: String::new(), what: String::new() }),
            _ => {}
        }
        tx
    }

    fn mine(&mut self) {
        let scratch = from_scratch(&self.formats, &self.chain);
        let known: Vec<_> = scratch.origins.iter().copied().collect();
        let mut txs = Vec::new();
        for _ in 0..self.rng.below(3) {
            // The second of a block does not build on the first: a gap, a duplicate, or a competitor.
            let tx = self.random_tx(scratch.tip(), &known);
            let success = tx.success;
            txs.push((self.formats.add(tx), success));
            if self.rng.chance(1, 4) {
                txs.push(txs[txs.len() - 1].clone());
            }
        }
        self.salt += 1;
        let head = scratch.l1_head();
        self.chain.push(l1_block(head, self.salt, &txs));
    }

    fn step(&mut self) {
        let mut actions = Vec::new();
        match self.rng.below(10) {
            0..4 => self.mine(),
            4..8 => self.follow(&mut actions),
            8 => {
                if let Some(check) = self.open.take() {
                    let result = answer(&self.formats, &check);
                    self.machine.checked(check.id, result, &mut actions);
                }
            }
            _ => self.rare(&mut actions),
        }
        self.take(&mut actions);
    }

    fn follow(&mut self, actions: &mut Vec<Action<u64>>) {
        let head = self.machine.l1_head();
        let fed = (head.number - START) as usize;
        let is_ours = |index: usize| {
            let number = START + 1 + index as u64;
            self.chain
                .get(index)
                .is_some_and(|block| self.machine.l1_block(number).is_some_and(|it| it.id() == block.id()))
        };
        let common = (0..fed).take_while(|index| is_ours(*index)).count();
        if common < fed {
            self.deepest = self.deepest.max(fed - common);
            let to = START + common as u64;
            return self.machine.rewind(to, actions).expect("not below the final block");
        }
        for block in &self.chain[fed..] {
            if self.machine.is_full() {
                break;
            }
            self.machine.block(block, actions).expect("it follows");
        }
    }

    fn rare(&mut self, actions: &mut Vec<Action<u64>>) {
        if self.rng.chance(1, 2) {
            let final_blocks = (self.machine.l1_finalized() - START) as usize;
            let depth = self.rng.below(65).min((self.chain.len() - final_blocks.min(self.chain.len())) as u64);
            self.chain.truncate(self.chain.len() - depth as usize);
            for _ in 0..self.rng.below(3) {
                self.mine();
            }
        } else if self.rng.chance(1, 3) {
            let head = self.machine.l1_head();
            // What L1 calls final is on its chain.
            let on_chain = |number: u64| {
                let index = number.checked_sub(START + 1).map(|index| index as usize);
                index.and_then(|index| self.chain.get(index)).map(CheckedBlock::id)
            };
            let number = head.number.saturating_sub(self.rng.below(80)).max(START);
            if self.machine.l1_block(number).is_some_and(|block| on_chain(number) == Some(block.id())) {
                self.machine.finalized(number, actions).expect("it was fed");
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut actions = Vec::new();
            self.follow(&mut actions);
            self.take(&mut actions);
            match self.open.take() {
                Some(check) => {
                    let result = answer(&self.formats, &check);
                    self.machine.checked(check.id, result, &mut actions);
                    self.take(&mut actions);
                }
                None if self.machine.l1_derived() == self.chain.last().map_or(start_block().id(), CheckedBlock::id) => {
                    return;
                }
                None => {}
            }
        }
        panic!("it does not come to an end");
    }
}

/// What two derivations must agree on.
fn shape(tip: &Tip<u64>) -> (u64, B256, B256, BlockId, bool, u64, u64) {
    (tip.next_index, tip.digest, tip.state_root, tip.block, tip.is_open, tip.origin, *tip.carry)
}

#[test]
fn whatever_l1_does_the_chain_is_the_one_from_scratch() {
    let seeds = std::env::var("DERIVATION_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let (mut reasons, mut accepted, mut deepest) = ([0; SkipReason::COUNT as usize + 1], 0, 0);
    for seed in 0..seeds {
        let mut sim = Sim::new(seed);
        for round in 0..160 {
            // In some, a long chain before anything goes wrong.
            if round < 70 && seed % 4 == 0 {
                sim.mine();
            }
            sim.step();
        }
        sim.settle();
        let scratch = from_scratch(&sim.formats, &sim.chain);
        assert_eq!(shape(sim.machine.tip()), shape(scratch.tip()), "seed {seed}");
        // A restart from the checkpoint comes to the same.
        let checkpoint = sim.machine.checkpoint();
        let final_blocks = (checkpoint.l1[checkpoint.l1.len() - 1].number - START) as usize;
        let mut resumed = Machine::resume(sim.machine.rules.clone(), sim.formats.clone(), checkpoint);
        for block in &sim.chain[final_blocks..] {
            feed(&mut resumed, &sim.formats, block);
        }
        assert_eq!(shape(resumed.tip()), shape(scratch.tip()), "seed {seed}, resumed");
        reasons.iter_mut().zip(sim.reasons).for_each(|(sum, count)| *sum += count);
        accepted += sim.accepted;
        deepest = deepest.max(sim.deepest);
    }
    println!(
        "{seeds} seeds: {accepted} accepted, deepest reorganisation {deepest}, skipped by reason {:?}",
        &reasons[1..]
    );
    if seeds >= 100 {
        // An origin that is too old takes a million blocks: it has a test of its own.
        let missing: Vec<_> = (1..reasons.len()).filter(|number| reasons[*number] == 0 && *number != 16).collect();
        assert!(missing.is_empty(), "reasons never reached: {missing:?}");
        assert!(accepted > 1_000 && deepest >= 60);
    }
}
