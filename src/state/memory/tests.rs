#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;

use alloy_primitives::{address, keccak256 as oracle_keccak256};
use alloy_rlp::Encodable;
use alloy_trie::proof::verify_proof;
use alloy_trie::{HashBuilder, Nibbles, TrieAccount};
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::segment::Segments;
use super::*;
use crate::state::trie::node::{self, Link, Slot, key_words};
use crate::state::trie::writer::{Change, Updates, Value, Writer, root_hash};
use crate::state::{AccountChange, AccountInfo, CODE_HASH_EMPTY};

/// The naive state: plain maps, roots computed from nothing.
#[derive(Clone, Default)]
pub struct Model {
    pub accounts: BTreeMap<Address, (AccountInfo, BTreeMap<U256, U256>)>,
}

impl Model {
    pub fn apply(&mut self, changes: &StateChanges) {
        for change in &changes.accounts {
            let Some(info) = change.account else {
                self.accounts.remove(&change.address);
                continue;
            };
            let entry = self.accounts.entry(change.address).or_insert((info, BTreeMap::new()));
            entry.0 = info;
            if change.storage_cleared {
                entry.1.clear();
            }
            for (slot, value) in &change.storage {
                if value.is_zero() {
                    entry.1.remove(slot);
                } else {
                    entry.1.insert(*slot, *value);
                }
            }
        }
    }

    fn storage_root(storage: &BTreeMap<U256, U256>) -> B256 {
        trie_root(
            storage.iter().map(|(slot, value)| (oracle_keccak256(slot.to_be_bytes::<32>()), alloy_rlp::encode(value))),
        )
    }

    pub fn root(&self) -> B256 {
        trie_root(self.accounts.iter().map(|(address, (info, storage))| {
            let account = trie_account(info, Self::storage_root(storage));
            (oracle_keccak256(address), alloy_rlp::encode(account))
        }))
    }
}

fn trie_account(info: &AccountInfo, storage_root: B256) -> TrieAccount {
    TrieAccount { nonce: info.nonce, balance: info.balance_wei, storage_root, code_hash: info.code_hash }
}

fn trie_root(entries: impl Iterator<Item = (B256, Vec<u8>)>) -> B256 {
    let mut entries: Vec<(B256, Vec<u8>)> = entries.collect();
    entries.sort();
    let mut builder = HashBuilder::default();
    for (key, value) in &entries {
        builder.add_leaf(Nibbles::unpack(key), value);
    }
    builder.root()
}

fn store() -> MemoryStore {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    MemoryStore::new(Arc::new(pool))
}

/// Root, reads and proofs of a version against the model, for what exists and for what does not.
#[track_caller]
pub fn check<R: StateReader>(reader: &R, model: &Model, probes: &[(Address, Vec<U256>)]) {
    assert_eq!(reader.root(), model.root());
    for (address, slots) in probes {
        check_account(reader, model, address, slots);
    }
}

#[track_caller]
fn check_account<R: StateReader>(reader: &R, model: &Model, address: &Address, slots: &[U256]) {
    let empty = BTreeMap::new();
    let expected = model.accounts.get(address);
    let storage = expected.map_or(&empty, |(_, storage)| storage);
    let storage_root = Model::storage_root(storage);
    let account = reader.account(address).unwrap();
    let found = account.map(|account| {
        assert_eq!(account.storage_root, storage_root);
        AccountInfo { nonce: account.nonce, balance_wei: account.balance_wei, code_hash: account.code_hash }
    });
    assert_eq!(found, expected.map(|(info, _)| *info));
    let proof = reader.proof(address, slots).unwrap();
    assert_eq!(proof.account, account);
    let value = expected.map(|(info, _)| alloy_rlp::encode(trie_account(info, storage_root)));
    let key = Nibbles::unpack(oracle_keccak256(address));
    verify_proof(reader.root(), key, value, &proof.account_proof).unwrap();
    for (slot, proof) in slots.iter().zip(&proof.storage) {
        let value = storage.get(slot).copied().unwrap_or_default();
        assert_eq!(reader.storage(address, *slot).unwrap(), value);
        assert_eq!((proof.slot, proof.value), (*slot, value));
        let value = (!value.is_zero()).then(|| alloy_rlp::encode(value));
        let key = Nibbles::unpack(oracle_keccak256(slot.to_be_bytes::<32>()));
        verify_proof(storage_root, key, value, &proof.proof).unwrap();
    }
}

/// One step of a pass on the newest version, whether worth it or not.
fn step(store: &mut MemoryStore, fuel_words: usize) -> Reader {
    let newest = store.retained.pop_back().unwrap();
    let version = store.step(&newest.version, fuel_words).unwrap();
    let moved = Reader { version: Arc::new(version) };
    store.retained.push_back(moved.clone());
    moved
}

/// Reads every node of a version and counts the accounts.
fn all_accounts(reader: &Reader) -> usize {
    walk(&reader.version.segments, reader.version.root_node).0
}

/// Account leaves and words of the nodes below `node`.
fn walk(segments: &Segments, position: Position) -> (usize, usize) {
    if position == 0 {
        return (0, 0);
    }
    let node = segments.node(position).unwrap();
    let words = node.word_count();
    let add = |sum: (usize, usize), child: &Position| {
        let (accounts, words) = walk(segments, *child);
        (sum.0 + accounts, sum.1 + words)
    };
    match node {
        Node::Branch(branch) => branch.children.iter().fold((0, words), add),
        Node::Extension(extension) => add((0, words), &extension.child.node),
        Node::Account(leaf) => add((1, words), &leaf.storage),
        Node::Slot(_) | Node::Code(_) => (0, words),
    }
}

pub fn test_address(number: u64) -> Address {
    Address::left_padding_from(&number.to_be_bytes())
}

pub fn info(nonce: u64) -> AccountInfo {
    let code_hash = if nonce.is_multiple_of(3) { CODE_HASH_EMPTY } else { B256::with_last_byte(nonce as u8) };
    AccountInfo { nonce, balance_wei: U256::from(nonce) * U256::from(1_000_000_007u64), code_hash }
}

fn change_strategy() -> impl Strategy<Value = AccountChange> {
    let slots = prop::collection::btree_map(0u64..40, prop_oneof![Just(0u64), 1u64..300, any::<u64>()], 0..12);
    (0u64..60, prop::option::weighted(0.75, any::<u16>()), prop::bool::weighted(0.1), slots).prop_map(
        |(number, nonce, storage_cleared, slots)| AccountChange {
            address: test_address(number),
            account: nonce.map(|nonce| info(nonce.into())),
            storage_cleared,
            storage: slots.into_iter().map(|(slot, value)| (U256::from(slot), U256::from(value))).collect(),
        },
    )
}

pub fn changes_strategy() -> impl Strategy<Value = StateChanges> {
    prop::collection::vec(change_strategy(), 0..40).prop_map(|mut accounts| {
        accounts.sort_by_key(|change| change.address);
        accounts.dedup_by_key(|change| change.address);
        accounts.reverse();
        StateChanges { accounts, codes: Vec::new() }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Histories with deletions, cleared storage, roll-backs to older versions, and moved nodes.
    #[test]
    fn histories(
        steps in prop::collection::vec((changes_strategy(), 0usize..4, prop::option::of(1usize..4_000)), 1..14),
    ) {
        let mut store = store();
        let mut versions = vec![(store.empty(), Model::default())];
        for (changes, back, reclaim) in steps {
            let parent = versions.len() - 1 - back.min(versions.len() - 1);
            let (reader, mut model) = versions[parent].clone();
            let reader = store.commit(&reader, &changes).unwrap();
            model.apply(&changes);
            let probes: Vec<(Address, Vec<U256>)> =
                (0..62).step_by(5).map(|number| (test_address(number), (0..42).step_by(7).map(U256::from).collect())).collect();
            check(&reader, &model, &probes);
            versions.push((reader, model));
            if let Some(fuel_words) = reclaim {
                let moved = step(&mut store, fuel_words);
                let (_, model) = &versions[versions.len() - 1];
                check(&moved, model, &probes);
                prop_assert_eq!(all_accounts(&moved), model.accounts.len());
            }
        }
        for (reader, model) in &versions[1..] {
            check(reader, model, &[(test_address(5), vec![U256::ZERO])]);
            let retained = store.retained(&reader.root()).unwrap();
            check(&retained, model, &[(test_address(5), vec![U256::ZERO])]);
        }
    }

    /// Keys of which nibbles repeat, so that extensions, deep branches and embedded nodes appear; hashed keys hardly make them.
    #[test]
    fn tries_with_crafted_keys(
        steps in prop::collection::vec(prop::collection::btree_map(crafted_key(), prop_oneof![Just(0u64), 1u64..100, any::<u64>()], 0..24), 1..10),
    ) {
        let mut segments = Segments::default();
        let mut root = Link { node: 0, slot: Slot::hash(ROOT_EMPTY) };
        let mut model: BTreeMap<B256, U256> = BTreeMap::new();
        for (step, entries) in steps.into_iter().enumerate() {
            let segment = step as u32 + 1;
            let values: Vec<U256> = entries.values().map(|value| U256::from(*value)).collect();
            let changes: Vec<Change<'_>> = entries
                .keys()
                .zip(&values)
                .map(|(key, value)| {
                    let value = if value.is_zero() { Value::Delete } else { Value::Slot(value) };
                    Change { key: key_words(key), value }
                })
                .collect();
            let mut writer = Writer::new(&segments, Updates::default());
            writer.begin(segment, Vec::new());
            writer.update_root(root, 0, &changes).unwrap();
            root = writer.hash().unwrap()[0];
            let words = writer.finish();
            segments.add(segment, words);
            for (key, value) in entries {
                if value == 0 {
                    model.remove(&key);
                } else {
                    model.insert(key, U256::from(value));
                }
            }
            let expected = trie_root(model.iter().map(|(key, value)| (*key, alloy_rlp::encode(value))));
            prop_assert_eq!(root_hash(&root), expected);
        }
    }
}

/// Keys over two nibbles with long equal stretches, different mostly near the end.
fn crafted_key() -> impl Strategy<Value = B256> {
    (0u8..3, 0u8..3, 0usize..32, any::<u8>(), 0u8..4).prop_map(|(first, fill, place, byte, last)| {
        let mut key = B256::repeat_byte(fill * 0x11);
        key[0] = first << 4;
        key[place] = byte & 0x13;
        key[31] = last << 4 | byte >> 6;
        key
    })
}

#[test]
fn many_accounts_spread_over_the_pool() {
    let mut prng = SmallRng::seed_from_u64(7);
    let mut store = store();
    let mut model = Model::default();
    let mut reader = store.empty();
    for round in 0..6 {
        let mut changes = StateChanges::default();
        for number in 0..2_000u64 {
            if prng.random_ratio(1, 3) {
                continue;
            }
            let account = (round == 0 || prng.random_ratio(4, 5)).then(|| info(prng.random_range(0..1000)));
            let slots = if number == 17 { 3_000 } else { prng.random_range(0..3) };
            let storage = (0..slots)
                .map(|slot| (U256::from(slot), U256::from(prng.random_range(0..4u64))))
                .filter(|(slot, _)| round == 0 || slot.bit(round % 4))
                .collect::<Vec<_>>();
            let storage_cleared = prng.random_ratio(1, 50);
            changes.accounts.push(AccountChange { address: test_address(number), account, storage_cleared, storage });
        }
        reader = store.commit(&reader, &changes).unwrap();
        model.apply(&changes);
        store.reclaim().unwrap();
        let probes = [(test_address(17), (0..50).map(U256::from).collect()), (test_address(18), vec![U256::from(1)])];
        check(&reader, &model, &probes);
        check(&store.retained(&reader.root()).unwrap(), &model, &probes);
    }
    // Everything goes again.
    let all = (0..2_000).map(test_address);
    let gone = |address| AccountChange { address, account: None, storage_cleared: false, storage: Vec::new() };
    let changes = StateChanges { accounts: all.map(gone).collect(), codes: Vec::new() };
    assert_eq!(store.commit(&reader, &changes).unwrap().root(), ROOT_EMPTY);
}

/// Small blocks for long: memory and the number of segments stay bounded, and passes do end.
#[test]
fn space_is_reclaimed() {
    let mut prng = SmallRng::seed_from_u64(11);
    let mut store = store();
    let mut model = Model::default();
    let mut reader = store.empty();
    let mut peak_bytes = 0;
    for round in 0..6_000u64 {
        let number = if round < 300 { round } else { prng.random_range(0..300) };
        let storage =
            (0..20).map(|slot| (U256::from(prng.random_range(0..500) + slot * 500), U256::from(round + 1))).collect();
        let change = AccountChange {
            address: test_address(number),
            account: Some(info(round)),
            storage_cleared: round % 7 == 0,
            storage,
        };
        let changes = StateChanges { accounts: vec![change], codes: vec![] };
        reader = store.commit(&reader, &changes).unwrap();
        model.apply(&changes);
        store.reclaim().unwrap();
        peak_bytes = peak_bytes.max(reader.node_bytes());
    }
    let moved = store.retained(&reader.root()).unwrap();
    assert_eq!(moved.root(), model.root());
    assert_eq!(all_accounts(&moved), model.accounts.len());
    let live_bytes = walk(&moved.version.segments, moved.version.root_node).1 * 8;
    println!("live {live_bytes} bytes, peak {peak_bytes} bytes, {} segments", moved.segment_count());
    assert!(peak_bytes < 4 * live_bytes + (2 << 20), "{peak_bytes} for {live_bytes} live");
    assert!(moved.segment_count() < 4_000);
}

/// A deleted account's storage must not pass to the account that takes its place in the trie.
#[test]
fn storage_stays_with_its_account() {
    let mut store = store();
    let mut model = Model::default();
    let change = |number, account, storage| AccountChange {
        address: test_address(number),
        account,
        storage_cleared: false,
        storage,
    };
    let first = vec![change(9, Some(info(0)), vec![(U256::ZERO, U256::from(1))])];
    let second = vec![change(9, None, vec![]), change(0, Some(info(0)), vec![])];
    let third = vec![change(9, Some(info(4)), vec![(U256::from(7), U256::from(8))])];
    let fourth = vec![change(9, None, vec![(U256::from(7), U256::from(9))])];
    let mut reader = store.empty();
    for accounts in [first, second, third, fourth] {
        let changes = StateChanges { accounts, codes: vec![] };
        reader = store.commit(&reader, &changes).unwrap();
        model.apply(&changes);
        let probe = |number| (test_address(number), vec![U256::ZERO, U256::from(7)]);
        check(&reader, &model, &[probe(0), probe(9)]);
    }
}

#[test]
fn repeated_accounts_and_slots_are_refused() {
    let mut store = store();
    let empty = store.empty();
    let one = address!("00000000000000000000000000000000000000aa");
    let change = |storage| AccountChange { address: one, account: Some(info(1)), storage_cleared: false, storage };
    let twice = StateChanges { accounts: vec![change(vec![]), change(vec![])], codes: vec![] };
    assert_eq!(store.commit(&empty, &twice).err(), Some(StateError::AccountRepeated { address: one }));
    let slot = U256::from(9);
    let storage = vec![(slot, U256::from(1)), (slot, U256::from(2))];
    let twice = StateChanges { accounts: vec![change(storage)], codes: vec![] };
    assert_eq!(store.commit(&empty, &twice).err(), Some(StateError::SlotRepeated { address: one, slot }));
}

#[test]
fn codes_are_kept_by_version() {
    let mut store = store();
    let mut reader = store.empty();
    let code =
        |number: u16| (B256::left_padding_from(&number.to_be_bytes()), Bytes::from(number.to_be_bytes().to_vec()));
    for number in 1..200 {
        let changes = StateChanges { accounts: vec![], codes: vec![code(number), code(number / 2)] };
        reader = store.commit(&reader, &changes).unwrap();
        assert_eq!(reader.code(&code(number + 1).0).unwrap(), None);
    }
    for number in 0..200 {
        assert_eq!(reader.code(&code(number).0).unwrap(), Some(code(number).1));
    }
    assert_eq!(reader.root(), ROOT_EMPTY);
}

#[test]
fn the_last_roots_are_retained() {
    let mut store = store();
    let mut roots = Vec::new();
    let mut reader = store.empty();
    for nonce in 1..=(STATE_ROOTS_RETAINED as u64 + 2) {
        let change = AccountChange {
            address: test_address(nonce % 5),
            account: Some(info(nonce)),
            storage_cleared: false,
            storage: vec![],
        };
        reader = store.commit(&reader, &StateChanges { accounts: vec![change], codes: vec![] }).unwrap();
        roots.push(reader.root());
    }
    let found: Vec<bool> = roots.iter().map(|root| store.retained(root).is_some()).collect();
    assert_eq!(found[..3], [false, false, true]);
    assert!(found[2..].iter().all(|found| *found));
}

#[test]
fn genesis_equals_the_oracle() {
    use crate::state::genesis::{GenesisAccount, from_alloc};
    let mut store = store();
    let code = Bytes::from_static(&[0x60, 0x00]);
    let storage = vec![(U256::from(1), U256::from(2)), (U256::from(3), U256::ZERO)];
    let contract =
        GenesisAccount { address: test_address(1), balance_wei: U256::from(5), nonce: 1, code: code.clone(), storage };
    let empty = GenesisAccount { address: test_address(2), ..GenesisAccount::default() };
    let reader = from_alloc(&mut store, [contract, empty]).unwrap();
    let mut model = Model::default();
    let code_hash = oracle_keccak256(&code);
    let slots = BTreeMap::from([(U256::from(1), U256::from(2))]);
    model.accounts.insert(test_address(1), (AccountInfo { nonce: 1, balance_wei: U256::from(5), code_hash }, slots));
    let nothing = AccountInfo { nonce: 0, balance_wei: U256::ZERO, code_hash: CODE_HASH_EMPTY };
    model.accounts.insert(test_address(2), (nothing, BTreeMap::new()));
    check(&reader, &model, &[(test_address(1), vec![U256::from(1), U256::from(3)]), (test_address(2), vec![])]);
    assert_eq!(reader.code(&code_hash).unwrap(), Some(code));
}

#[test]
fn account_encoding_equals_alloy() {
    let account =
        Account { nonce: u64::MAX, balance_wei: U256::MAX, code_hash: CODE_HASH_EMPTY, storage_root: ROOT_EMPTY };
    for account in [account, Account { nonce: 0, balance_wei: U256::ZERO, ..account }] {
        let info = AccountInfo { nonce: account.nonce, balance_wei: account.balance_wei, code_hash: account.code_hash };
        let mut expected = Vec::new();
        trie_account(&info, account.storage_root).encode(&mut expected);
        let mut value = [0; node::VALUE_BYTES];
        let bytes = node::account_rlp(&account, &mut value);
        assert_eq!(value[..bytes], expected);
    }
}
