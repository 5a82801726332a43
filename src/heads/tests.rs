//! The rules one by one, and a seeded run against a model that keeps everything. `HEADS_SEEDS=100000` for long runs.

use super::*;
use crate::crypto::keccak::keccak256;
use crate::testing::rng::SimRng;

fn id(number: u64, salt: u64) -> BlockId {
    BlockId { number, hash: keccak256(&[number.to_be_bytes(), salt.to_be_bytes()].concat()) }
}

const L1_START: u64 = 100;

/// The genesis block on L1 block 100, four L1 blocks above it, blocks 1 to 4 of our own, each on its own L1 block.
fn heads() -> Heads {
    let mut heads = Heads::new(id(0, 0), id(L1_START, 1), L1_START);
    let mut actions = Vec::new();
    for number in 1..=4 {
        heads.l1_block(id(L1_START + number, 1), &mut actions).expect("in order");
        heads.sealed(id(number, 0), id(L1_START + number, 1), &mut actions).expect("in order");
    }
    assert_eq!(actions, []);
    heads
}

fn ours(numbers: std::ops::RangeInclusive<u64>) -> Vec<(BlockId, BlockId)> {
    numbers.map(|number| (id(number, 0), id(L1_START + number, 1))).collect()
}

fn numbers(heads: &Heads) -> [u64; 4] {
    let View { unsafe_head, safe, finalized, posted } = heads.view();
    [unsafe_head.number, safe.number, finalized.number, posted]
}

#[test]
fn blocks_become_safe_and_final() {
    let (mut heads, mut actions) = (heads(), Vec::new());
    heads.posted(3);
    assert_eq!(numbers(&heads), [4, 0, 0, 3]);
    heads.derived(103, ours(1..=2), &mut actions).expect("in order");
    heads.l1_finalized(102, &mut actions);
    assert_eq!(numbers(&heads), [4, 2, 0, 3]);
    heads.l1_finalized(103, &mut actions);
    assert_eq!(numbers(&heads), [4, 2, 2, 3]);
    assert_eq!(actions, [Action::Safe(id(2, 0)), Action::Finalized(id(2, 0))]);
    assert_eq!((heads.block(1), heads.block(2), heads.block(5)), (None, Some(id(2, 0)), None));
    assert_eq!(heads.derived(104, ours(4..=4), &mut actions), Err(HeadsError::OutOfOrder { number: 4, newest: 2 }));
    assert!(matches!(heads.sealed(id(6, 0), id(104, 1), &mut actions), Err(HeadsError::OutOfOrder { .. })));
    assert!(matches!(heads.l1_block(id(106, 1), &mut actions), Err(HeadsError::L1OutOfOrder { .. })));
}

#[test]
fn a_lost_batch_moves_safe_alone() {
    let (mut heads, mut actions) = (heads(), Vec::new());
    heads.derived(103, ours(1..=2), &mut actions).expect("in order");
    heads.derived(104, ours(3..=3), &mut actions).expect("in order");
    actions.clear();
    heads.l1_rewound(103, &mut actions).expect("not final");
    assert_eq!((numbers(&heads), heads.derived_in(2), heads.derived_in(3)), ([4, 2, 0, 3], Some(103), None));
    // The same origin comes back in the same block: nothing is lost.
    heads.l1_block(id(104, 1), &mut actions).expect("in order");
    assert_eq!(actions, [Action::Safe(id(2, 0))]);
    heads.l1_finalized(103, &mut actions);
    let finalized = id(2, 0);
    let expected = HeadsError::L1FinalizedGone { to: 102, l1_finalized: 103, finalized };
    assert_eq!(heads.l1_rewound(102, &mut actions), Err(expected));
}

#[test]
fn an_origin_that_is_gone_takes_its_blocks() {
    let (mut heads, mut actions) = (heads(), Vec::new());
    heads.l1_rewound(102, &mut actions).expect("not final");
    assert_eq!(actions, []);
    heads.l1_block(id(103, 2), &mut actions).expect("in order");
    let cause = Cause::OriginGone { number: 3, origin: id(103, 1), now: id(103, 2) };
    assert_eq!(std::mem::take(&mut actions), [Action::Rollback { to: 2, cause }]);
    assert_eq!(numbers(&heads), [2, 0, 0, 0]);
    // One that was being sealed meanwhile goes as well.
    heads.sealed(id(3, 0), id(103, 1), &mut actions).expect("in order");
    assert_eq!(actions, [Action::Rollback { to: 2, cause }]);
    heads.sealed(id(3, 5), id(103, 2), &mut actions).expect("in order");
    assert_eq!(numbers(&heads), [3, 0, 0, 0]);
}

#[test]
fn another_valid_block_at_the_same_height_wins() {
    let (mut heads, mut actions) = (heads(), Vec::new());
    let mut blocks = ours(1..=1);
    blocks.extend([(id(2, 9), id(102, 1)), (id(3, 9), id(102, 1))]);
    heads.derived(104, blocks, &mut actions).expect("in order");
    let cause = Cause::Derived { number: 2, ours: id(2, 0).hash, derived: id(2, 9).hash };
    let expected = [Action::Rollback { to: 1, cause }, Action::Adopt { first: 2, last: 3 }, Action::Safe(id(3, 9))];
    assert_eq!(actions, expected);
    assert_eq!(numbers(&heads), [3, 3, 0, 3]);
}

#[test]
fn a_follower_adopts_everything() {
    let mut actions = Vec::new();
    let mut heads = Heads::new(id(0, 0), id(L1_START, 1), L1_START);
    heads.l1_block(id(101, 1), &mut actions).expect("in order");
    heads.derived(101, ours(1..=3), &mut actions).expect("in order");
    assert_eq!(actions, [Action::Adopt { first: 1, last: 3 }, Action::Safe(id(3, 0))]);
    assert_eq!(numbers(&heads), [3, 3, 0, 3]);
}

#[test]
fn a_follower_keeps_nothing_that_l1_has_lost_and_adopts_it_again() {
    let mut actions = Vec::new();
    let mut heads = Heads::new(id(0, 0), id(L1_START, 1), L1_START);
    heads.l1_block(id(101, 1), &mut actions).expect("in order");
    heads.derived(101, ours(1..=1), &mut actions).expect("in order");
    heads.l1_block(id(102, 1), &mut actions).expect("in order");
    heads.derived(102, ours(2..=3), &mut actions).expect("in order");
    assert_eq!(heads.forget_unsafe(), None);
    heads.l1_rewound(101, &mut actions).expect("not final");
    assert_eq!(heads.forget_unsafe(), Some(1));
    assert_eq!((numbers(&heads), heads.forget_unsafe()), ([1, 1, 0, 1], None));
    actions.clear();
    heads.l1_block(id(102, 2), &mut actions).expect("in order");
    heads.derived(102, ours(2..=3), &mut actions).expect("in order");
    assert_eq!(actions, [Action::Adopt { first: 2, last: 3 }, Action::Safe(id(3, 0))]);
}

/// Everything that happened, without a thought of memory.
struct Model {
    rng: SimRng,
    heads: Heads,
    /// L1 blocks above `L1_START`, each with the L2 blocks whose batches it has.
    l1: Vec<(BlockId, Vec<(BlockId, BlockId)>)>,
    l1_final: usize,
    /// Unsafe chain: block 0 and up.
    chain: Vec<(BlockId, BlockId)>,
    salt: u64,
    rollbacks: u64,
    moved_back: u64,
    deepest: usize,
}

impl Model {
    fn derived(&self) -> Vec<(BlockId, BlockId)> {
        self.l1.iter().flat_map(|(_, blocks)| blocks.iter().copied()).collect()
    }

    fn l1_id(&self, index: usize) -> BlockId {
        if index == 0 { id(L1_START, 1) } else { self.l1[index - 1].0 }
    }

    fn carry_out(&mut self, actions: &[Action], derived: &[(BlockId, BlockId)]) {
        for action in actions {
            match action {
                Action::Rollback { to, .. } => {
                    self.rollbacks += 1;
                    self.chain.truncate(*to as usize + 1);
                }
                Action::Adopt { first, last } => {
                    assert_eq!(*first as usize, self.chain.len());
                    self.chain.extend(derived.iter().filter(|(id, _)| id.number >= *first && id.number <= *last));
                }
                Action::Safe(_) | Action::Finalized(_) => {}
            }
        }
    }

    /// A new L1 block, now and then with a batch of our blocks or of somebody else's.
    fn l1_block(&mut self) {
        self.salt += 1;
        let number = L1_START + 1 + self.l1.len() as u64;
        let l1 = id(number, self.salt);
        let mut actions = Vec::new();
        self.heads.l1_block(l1, &mut actions).expect("in order");
        self.carry_out(&actions, &[]);
        let safe = self.derived().len();
        let mut blocks = Vec::new();
        if self.rng.chance(1, 12) {
            let origin = self.chain[safe].1;
            blocks = (1..=1 + self.rng.below(2)).map(|more| (id(safe as u64 + more, self.salt), origin)).collect();
        } else if self.rng.chance(1, 2) {
            let end = safe + self.rng.below((self.chain.len() - safe) as u64) as usize;
            blocks = self.chain[safe + 1..=end].to_vec();
        }
        // What derivation accepts stands on L1 blocks below the one that has it.
        blocks.retain(|(_, origin)| origin.number < number);
        self.l1.push((l1, blocks.clone()));
        let mut actions = Vec::new();
        self.heads.derived(number, blocks.iter().copied(), &mut actions).expect("in order");
        self.carry_out(&actions, &blocks);
    }

    fn seal(&mut self) {
        self.salt += 1;
        let before = self.chain[self.chain.len() - 1].1.number - L1_START;
        let index = before as usize + self.rng.below(1 + self.l1.len() as u64 - before) as usize;
        let block = (id(self.chain.len() as u64, self.salt), self.l1_id(index));
        self.chain.push(block);
        let mut actions = Vec::new();
        self.heads.sealed(block.0, block.1, &mut actions).expect("in order");
        self.carry_out(&actions, &[]);
    }

    fn step(&mut self) {
        let mut actions = Vec::new();
        match self.rng.below(20) {
            0..8 => self.seal(),
            8..16 => self.l1_block(),
            16 => self.heads.posted(self.chain.len() as u64 - 1),
            17 => {
                let depth = self.rng.below(65).min((self.l1.len() - self.l1_final) as u64) as usize;
                self.deepest = self.deepest.max(depth);
                let safe = self.heads.view().safe.number;
                self.l1.truncate(self.l1.len() - depth);
                self.heads.l1_rewound(L1_START + self.l1.len() as u64, &mut actions).expect("not final");
                self.moved_back += u64::from(self.heads.view().safe.number < safe);
                assert!(actions.iter().all(|action| matches!(action, Action::Safe(_))));
                // Origins above are in doubt until L1 has as many blocks again; nothing is sealed on them.
                while self.chain[self.chain.len() - 1].1.number > L1_START + self.l1.len() as u64 {
                    self.l1_block();
                }
            }
            18 if self.l1.len() > self.l1_final + 70 => {
                self.l1_final += self.rng.below(5) as usize;
                self.heads.l1_finalized(L1_START + self.l1_final as u64, &mut actions);
            }
            _ => {}
        }
        self.check();
    }

    fn check(&self) {
        let View { unsafe_head, safe, finalized, posted } = self.heads.view();
        let derived = self.derived();
        assert_eq!(safe.number as usize, derived.len());
        assert_eq!(unsafe_head, self.chain[self.chain.len() - 1].0);
        let final_count: usize = self.l1[..self.l1_final].iter().map(|(_, blocks)| blocks.len()).sum();
        assert_eq!(finalized.number as usize, final_count);
        assert!(finalized.number <= safe.number && safe.number <= unsafe_head.number && posted <= unsafe_head.number);
        for (index, (block, _)) in derived.iter().enumerate().skip(final_count) {
            assert_eq!((self.heads.block(block.number), self.chain[index + 1].0), (Some(*block), *block));
        }
        for (block, origin) in &self.chain {
            let is_canonical = self.l1_id((origin.number - L1_START) as usize) == *origin;
            assert!(is_canonical, "{block} stands on {origin}, which is gone");
        }
    }
}

#[test]
fn heads_are_what_a_model_says() {
    let seeds = std::env::var("HEADS_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let (mut rollbacks, mut moved_back, mut deepest) = (0, 0, 0);
    for seed in 0..seeds {
        let genesis = (id(0, 0), id(L1_START, 1));
        let mut model = Model {
            rng: SimRng::new(seed),
            heads: Heads::new(genesis.0, genesis.1, L1_START),
            l1: Vec::new(),
            l1_final: 0,
            chain: vec![genesis],
            salt: 1,
            rollbacks: 0,
            moved_back: 0,
            deepest: 0,
        };
        for round in 0..300 {
            // In some, a long L1 before anything goes wrong.
            if round < 70 && seed % 4 == 0 {
                model.l1_block();
            }
            model.step();
        }
        rollbacks += model.rollbacks;
        moved_back += model.moved_back;
        deepest = deepest.max(model.deepest);
    }
    println!(
        "{seeds} seeds: {rollbacks} rolled back, safe moved back {moved_back} times, deepest reorganisation {deepest}"
    );
    assert!(seeds < 100 || (rollbacks > 100 && moved_back > 100 && deepest == 64));
}
