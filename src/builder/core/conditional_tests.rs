//! ERC-7796 transactions from submission to their end.

use std::collections::BTreeMap;

use alloy_genesis::GenesisAccount;
use alloy_primitives::{U256, keccak256};

use super::*;
use crate::config::genesis::{DEV_ACCOUNTS, dev_genesis};
use crate::mempool::EndState;
use crate::mempool::Readiness;
use crate::mempool::{CodeExpectation, Conditions, Impossible, KnownAccount, StorageExpectation};
use crate::messages::Refusal;
use crate::messages::SubmitWait;
use crate::messages::{BuilderAnswer, BuilderRead, LiveStatus};
use crate::primitives::Fork;
use crate::state::StateReader;
use crate::testing::bench_chain::BenchChain;
use crate::testing::bytecode::{self, Ending};
use crate::testing::signing::{DynamicFee, TestKey};

const NS_PER_S: u64 = 1_000_000_000;
const STORE: Address = Address::repeat_byte(0x57);
const COINBASE: Address = Address::repeat_byte(0xcb);

struct Scene {
    chain: BenchChain,
    keys: Vec<TestKey>,
}

impl Scene {
    /// A chain with a contract at `STORE`, whose slot 1 is 1.
    fn new() -> Self {
        let mut spec = dev_genesis(Fork::Osaka, 10).expect("built in");
        let storage = BTreeMap::from([(B256::with_last_byte(1), B256::with_last_byte(1))]);
        let account =
            GenesisAccount::default().with_code(Some(bytecode::store(Ending::Stop).into())).with_storage(Some(storage));
        spec.genesis.alloc.insert(STORE, account);
        let chain = BenchChain::with(spec, |settings, limits| {
            settings.coinbase = COINBASE;
            limits.ready_lifetime_ns = 60 * NS_PER_S;
        });
        let keys = DEV_ACCOUNTS.iter().map(|(_, secret)| TestKey::from_hex(secret)).collect();
        Self { chain, keys }
    }

    /// Submits a transfer of one wei by `key` under `conditions`; returns its hash.
    fn conditional(&mut self, key: usize, nonce: u64, conditions: Conditions) -> B256 {
        let raw = self.keys[key].transfer(self.chain.spec.chain_id, nonce, Address::repeat_byte(1), 1);
        self.chain.submit_with(&raw, SubmitWait::Admission, Some(conditions));
        keccak256(raw)
    }

    /// Submits a call of `STORE` by the last key.
    fn store(&mut self, nonce: u64, slot: u64, value: u64) {
        let raw = self.keys[9].encode(DynamicFee {
            chain_id: self.chain.spec.chain_id,
            nonce,
            gas_limit: 100_000,
            max_fee_per_gas: 1_000_000_000,
            to: STORE.into(),
            input: bytecode::words(&[slot, value].map(U256::from)),
            ..DynamicFee::default()
        });
        self.chain.submit(&raw);
    }

    fn status(&mut self, hash: B256) -> Option<LiveStatus> {
        match self.chain.read(BuilderRead::Status { hash }) {
            BuilderAnswer::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Places what is ready; the number of the open block if the transaction is in it.
    fn place(&mut self, hash: B256) -> Option<u64> {
        self.chain.settle();
        match self.status(hash) {
            Some(LiveStatus::Placed { block_number, .. }) => Some(block_number),
            Some(LiveStatus::Conditional { .. }) => None,
            other => panic!("{other:?}"),
        }
    }

    fn next_second(&mut self) {
        self.chain.advance(NS_PER_S);
        self.chain.settle();
    }

    fn ends(&self) -> Vec<(B256, EndState)> {
        let ended = self.chain.effects.chain.iter().filter_map(|message| match message {
            ChainMessage::Ended { hash, end, .. } => Some((*hash, *end)),
            _ => None,
        });
        ended.collect()
    }

    fn tip(&self) -> Arc<SealedBlock> {
        Arc::clone(&self.chain.core.heads().latest)
    }
}

fn known(address: Address) -> KnownAccount {
    KnownAccount { address, storage: StorageExpectation::Slots(Vec::new()), balance_wei: None, code: None, nonce: None }
}

fn slots(address: Address, slot: u8, value: u8) -> Conditions {
    let storage = StorageExpectation::Slots(vec![(B256::with_last_byte(slot), B256::with_last_byte(value))]);
    on_account(KnownAccount { storage, ..known(address) })
}

fn on_account(account: KnownAccount) -> Conditions {
    Conditions { known_accounts: vec![account], ..Conditions::default() }
}

#[track_caller]
fn check_met(conditions: Conditions) {
    let mut scene = Scene::new();
    let hash = scene.conditional(0, 0, conditions);
    assert_eq!(scene.place(hash), Some(1));
}

#[test]
fn what_holds_at_submission_is_placed_at_once() {
    let scene = Scene::new();
    let genesis = scene.tip();
    let timestamp = genesis.header.timestamp + 1;
    let code = keccak256(bytecode::store(Ending::Stop));
    let stored = genesis.state.account(&STORE).expect("readable").expect("in the genesis");
    check_met(Conditions::default());
    check_met(Conditions { block_number_min: Some(1), block_number_max: Some(1), ..Conditions::default() });
    check_met(Conditions { timestamp_min: Some(timestamp), timestamp_max: Some(timestamp), ..Conditions::default() });
    check_met(slots(STORE, 1, 1));
    check_met(slots(STORE, 2, 0));
    check_met(on_account(KnownAccount { storage: StorageExpectation::Root(stored.storage_root), ..known(STORE) }));
    check_met(on_account(KnownAccount { code: Some(CodeExpectation::Hash(code)), ..known(STORE) }));
    check_met(on_account(KnownAccount { code: Some(CodeExpectation::Empty), ..known(COINBASE) }));
    check_met(on_account(KnownAccount { nonce: Some(0), balance_wei: Some(U256::ZERO), ..known(COINBASE) }));
}

#[track_caller]
fn check_impossible(conditions: Conditions, expected: Impossible) {
    let mut scene = Scene::new();
    scene.conditional(1, 0, Conditions::default());
    scene.chain.finish_block();
    let freed_count = scene.chain.effects.freed.len();
    let hash = scene.conditional(0, 0, conditions);
    let last = scene.chain.effects.replies.last().map(|(_, reply)| reply);
    let Some(BuilderReply::Refused { refusal, .. }) = last else { panic!("not refused") };
    assert_eq!(*refusal, Refusal::Condition(expected));
    assert_eq!(scene.chain.effects.freed.len(), freed_count + 1);
    assert_eq!(scene.status(hash), None);
}

#[test]
fn what_can_never_hold_is_refused_at_once() {
    let past = Scene::new().tip().header.timestamp;
    let sender = DEV_ACCOUNTS[1].0;
    check_impossible(
        Conditions { block_number_max: Some(1), ..Conditions::default() },
        Impossible::BlockNumber { now: 2, maximum: 1 },
    );
    check_impossible(
        Conditions { timestamp_max: Some(past), ..Conditions::default() },
        Impossible::Timestamp { now: past + 2, maximum: past },
    );
    check_impossible(
        on_account(KnownAccount { nonce: Some(0), ..known(sender) }),
        Impossible::Nonce { address: sender, now: 1, expected: 0 },
    );
    check_impossible(
        on_account(KnownAccount { code: Some(CodeExpectation::Empty), ..known(STORE) }),
        Impossible::Code { address: STORE },
    );
}

#[test]
fn a_minimum_number_is_waited_for_while_other_blocks_pass() {
    let mut scene = Scene::new();
    let hash = scene.conditional(0, 0, Conditions { block_number_min: Some(3), ..Conditions::default() });
    for nonce in 0..2 {
        assert_eq!(scene.place(hash), None);
        scene.conditional(1, nonce, Conditions::default());
        scene.chain.finish_block();
    }
    assert_eq!(scene.place(hash), Some(3));
}

#[test]
fn a_minimum_time_is_waited_for_without_traffic_and_without_empty_blocks() {
    let mut scene = Scene::new();
    let minimum = scene.tip().header.timestamp + 6;
    let hash = scene.conditional(0, 0, Conditions { timestamp_min: Some(minimum), ..Conditions::default() });
    for _ in 0..5 {
        assert_eq!(scene.place(hash), None);
        assert!(scene.chain.core.heads().open.is_none());
        assert!(matches!(scene.chain.settle(), NextTurn::At(_)), "time alone can meet it");
        scene.chain.advance(NS_PER_S);
    }
    assert_eq!(scene.place(hash), Some(1));
    scene.next_second();
    assert_eq!(scene.tip().header.number, 1);
    assert_eq!(scene.tip().header.timestamp, minimum);
}

#[test]
fn a_block_has_the_time_of_its_first_transaction_though_a_condition_waits() {
    let mut scene = Scene::new();
    scene.conditional(0, 0, slots(STORE, 1, 7));
    scene.chain.settle();
    scene.chain.advance(30 * NS_PER_S);
    scene.conditional(1, 0, Conditions::default());
    let sealed = scene.chain.finish_block();
    assert_eq!(sealed.header.number, 1);
    assert_eq!(sealed.header.timestamp, scene.chain.spec.genesis.timestamp + 31);
    assert_eq!(sealed.block.transactions.len(), 1);
}

#[test]
fn a_slot_that_another_transaction_writes_meets_a_condition_in_the_next_block() {
    let mut scene = Scene::new();
    let hash = scene.conditional(0, 0, slots(STORE, 1, 7));
    assert_eq!(scene.place(hash), None);
    scene.store(0, 1, 7);
    assert_eq!(scene.place(hash), None);
    // One that comes after the write sees the open block's state.
    let late = scene.conditional(1, 0, slots(STORE, 1, 7));
    assert_eq!(scene.place(late), Some(1));
    scene.next_second();
    assert_eq!(scene.place(hash), Some(2));
}

#[test]
fn a_balance_is_compared_for_equality() {
    let mut scene = Scene::new();
    let account = KnownAccount { balance_wei: Some(U256::from(2)), ..known(Address::repeat_byte(1)) };
    let hash = scene.conditional(0, 0, on_account(account));
    scene.conditional(1, 0, Conditions::default());
    scene.chain.finish_block();
    assert_eq!(scene.place(hash), None, "it has one wei");
    scene.conditional(2, 0, Conditions::default());
    scene.chain.finish_block();
    assert_eq!(scene.place(hash), Some(3));
}

#[test]
fn what_becomes_impossible_while_it_waits_ends_and_says_why() {
    let mut scene = Scene::new();
    let other = scene.keys[1].address;
    let (unmet, maximum) = (slots(STORE, 1, 7), Some(1));
    let by_number = scene.conditional(0, 0, Conditions { block_number_max: maximum, ..unmet.clone() });
    let mut conditions = unmet.clone();
    conditions.known_accounts.push(KnownAccount { nonce: Some(0), ..known(other) });
    let by_nonce = scene.conditional(2, 0, conditions);
    let timestamp_max = scene.tip().header.timestamp + 1;
    let by_time = scene.conditional(3, 0, Conditions { timestamp_max: Some(timestamp_max), ..unmet });
    scene.chain.settle();
    assert_eq!(scene.ends(), vec![]);
    scene.conditional(1, 0, Conditions::default());
    scene.chain.finish_block();
    scene.chain.settle();
    let ends: HashMap<B256, EndState> = scene.ends().into_iter().collect();
    let ended = |reason| EndState::Invalidated(Invalid::Condition(reason));
    assert_eq!(ends[&by_number], ended(Impossible::BlockNumber { now: 2, maximum: 1 }));
    assert_eq!(ends[&by_nonce], ended(Impossible::Nonce { address: other, now: 1, expected: 0 }));
    assert_eq!(ends[&by_time], ended(Impossible::Timestamp { now: timestamp_max + 1, maximum: timestamp_max }));
    assert_eq!(ends.len(), 3);
    assert_eq!(scene.chain.effects.freed.len(), 4);
    assert_eq!(scene.tip().header.number, 1, "none of them opened a block");
}

#[test]
fn a_storage_root_is_unknown_while_its_account_is_dirty() {
    let mut scene = Scene::new();
    let root = scene.tip().state.account(&STORE).expect("readable").expect("in the genesis").storage_root;
    // A slot there and back: the account is dirty, its root in the end what it was.
    scene.store(0, 1, 9);
    scene.store(1, 1, 1);
    scene.chain.settle();
    let storage = StorageExpectation::Root(root);
    let hash = scene.conditional(0, 0, on_account(KnownAccount { storage, ..known(STORE) }));
    assert_eq!(scene.place(hash), None);
    scene.next_second();
    assert_eq!(scene.place(hash), Some(2));
    let other = StorageExpectation::Root(B256::repeat_byte(9));
    let hash = scene.conditional(1, 0, on_account(KnownAccount { storage: other, ..known(STORE) }));
    assert_eq!(scene.place(hash), None);
}

#[test]
fn too_little_for_the_coinbase_changes_nothing_and_a_replacement_pays() {
    let mut scene = Scene::new();
    let declared = |wei: u64| Conditions { pays_coinbase_wei: Some(U256::from(wei)), ..Conditions::default() };
    // `transfer` pays a tip of a million wei a gas.
    let paid = 21_000 * 1_000_000;
    let before = scene.chain.core.executor.world().snapshot().root();
    let hash = scene.conditional(0, 0, declared(paid + 1));
    assert_eq!(scene.place(hash), None);
    assert!(scene.chain.core.heads().open.is_none());
    let world = scene.chain.core.executor.world();
    assert_eq!(world.peek_account(COINBASE).expect("readable").balance_wei, U256::ZERO);
    assert_eq!(world.peek_account(scene.keys[0].address).expect("readable").nonce, 0);
    assert!(world.take_changes().accounts.is_empty());
    assert_eq!(scene.tip().state.root(), before);
    let exact = scene.conditional(1, 0, declared(paid));
    assert_eq!(scene.place(exact), Some(1));
    let richer = scene.keys[0].encode(DynamicFee {
        chain_id: scene.chain.spec.chain_id,
        gas_limit: 21_000,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 2_000_000,
        to: Address::repeat_byte(1).into(),
        ..DynamicFee::default()
    });
    scene.chain.submit_with(&richer, SubmitWait::Admission, Some(declared(paid + 1)));
    assert_eq!(scene.place(keccak256(&richer)), Some(1));
    assert_eq!(scene.ends(), vec![(hash, EndState::Replaced { by: keccak256(&richer) })]);
    let sealed = scene.chain.finish_block();
    let coinbase = sealed.state.account(&COINBASE).expect("readable").expect("paid");
    assert_eq!(coinbase.balance_wei, U256::from(3 * paid));
}

#[test]
fn what_is_never_met_expires() {
    let mut scene = Scene::new();
    let hash = scene.conditional(0, 0, slots(STORE, 1, 7));
    for _ in 0..59 {
        scene.next_second();
        assert_eq!(scene.ends(), vec![]);
    }
    scene.next_second();
    let waited_ns = 60 * NS_PER_S;
    assert_eq!(scene.ends(), vec![(hash, EndState::Expired { readiness: Readiness::Ready, waited_ns })]);
    assert_eq!(scene.chain.effects.freed.len(), 1);
    assert_eq!(scene.tip().header.number, 0);
}

#[test]
fn a_drain_does_not_wait_for_a_condition() {
    let mut scene = Scene::new();
    scene.conditional(0, 0, slots(STORE, 1, 7));
    scene.conditional(1, 0, Conditions::default());
    scene.chain.core.drain(scene.chain.now.monotonic_ns + 5 * NS_PER_S);
    assert_eq!(scene.chain.settle(), NextTurn::Drained);
    assert_eq!(scene.tip().header.number, 1);
}

#[test]
fn a_waiting_condition_does_not_stop_the_empty_block_timer() {
    let spec = dev_genesis(Fork::Osaka, 10).expect("built in");
    let chain = BenchChain::with(spec, |settings, _| settings.empty_interval_ns = 3 * NS_PER_S);
    let keys = DEV_ACCOUNTS.iter().map(|(_, secret)| TestKey::from_hex(secret)).collect();
    let mut scene = Scene { chain, keys };
    let hash = scene.conditional(0, 0, Conditions { block_number_min: Some(3), ..Conditions::default() });
    for _ in 0..12 {
        scene.next_second();
    }
    let heads = scene.chain.core.heads();
    let counts: Vec<usize> = heads.recent.iter().skip(1).take(3).map(|block| block.block.transactions.len()).collect();
    assert_eq!(counts, [0, 0, 1]);
    assert_eq!(heads.recent[3].block.transactions.get(0).map(|tx| tx.hash), Some(hash));
}
