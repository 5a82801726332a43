//! Partial tries against whole ones: the witness starts empty and gets the nodes that errors name, so that what is named must be right,
//! enough and needed. The whole tries are built naively here and checked against `alloy-trie`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use alloy_primitives::{Address, U256, keccak256};
use alloy_trie::{HashBuilder, Nibbles};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::super::node::{KEY_NIBBLES, nibble, shared_nibbles};
use super::super::nodes::{HashIndex, StateFault};
use super::super::partial_state::PartialState;
use super::super::trie::{Child, TrieWriter};
use super::super::*;
use crate::state::{AccountChange, AccountInfo, CODE_HASH_EMPTY, ROOT_EMPTY, StateChanges, StateError, StateReader};

type Entries = BTreeMap<B256, Vec<u8>>;

/// The nodes of whole tries.
#[derive(Default)]
struct Nodes {
    by_hash: HashMap<B256, Bytes>,
    /// How many stand in their parents.
    embedded: usize,
}

/// RLP of the node that holds `entries` (sorted, not empty) at `depth`. Nodes that are named by their hash go to `nodes`.
fn build(entries: &[(&B256, &Vec<u8>)], depth: usize, nodes: &mut Nodes) -> Vec<u8> {
    let (first, last) = (entries[0], entries[entries.len() - 1]);
    let shared = shared_nibbles(first.0, last.0);
    let rlp = if entries.len() == 1 {
        list(&[alloy_rlp::encode(&compact(first.0, depth, KEY_NIBBLES, 2)[..]), alloy_rlp::encode(&first.1[..])])
    } else if shared > depth {
        let child = build(entries, shared, nodes);
        list(&[alloy_rlp::encode(&compact(first.0, depth, shared, 0)[..]), name(&child)])
    } else {
        let mut items = Vec::new();
        for digit in 0..16 {
            let group: Vec<_> = entries.iter().copied().filter(|(key, _)| nibble(key, depth) == digit).collect();
            items.push(if group.is_empty() { vec![0x80] } else { name(&build(&group, depth + 1, nodes)) });
        }
        items.push(vec![0x80]);
        list(&items)
    };
    if rlp.len() >= 32 {
        nodes.by_hash.insert(keccak256(&rlp), rlp.clone().into());
    } else {
        nodes.embedded += 1;
    }
    rlp
}

fn name(rlp: &[u8]) -> Vec<u8> {
    if rlp.len() < 32 { rlp.to_vec() } else { alloy_rlp::encode(keccak256(rlp)) }
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let payload = items.concat();
    let mut out = Vec::new();
    alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
    out.extend(payload);
    out
}

fn compact(key: &B256, start: usize, end: usize, flag: u8) -> Vec<u8> {
    let mut nibbles: Vec<u8> = (start..end).map(|index| nibble(key, index) as u8).collect();
    let is_odd = nibbles.len() % 2;
    nibbles.insert(0, flag + is_odd as u8);
    if is_odd == 0 {
        nibbles.insert(1, 0);
    }
    nibbles.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Root of a whole trie; its nodes are added.
fn root_of(entries: &Entries, nodes: &mut Nodes) -> B256 {
    let mut oracle = HashBuilder::default();
    entries.iter().for_each(|(key, value)| oracle.add_leaf(Nibbles::unpack(key), value));
    let entries: Vec<_> = entries.iter().collect();
    let root = if entries.is_empty() { ROOT_EMPTY } else { keccak256(build(&entries, 0, nodes)) };
    assert_eq!(root, oracle.root());
    root
}

/// Runs `attempt` with a witness that grows by what is missing; returns its answer and the nodes that it took.
#[track_caller]
fn with_growing_witness<T>(
    nodes: &Nodes,
    mut attempt: impl FnMut(&Witness) -> Result<T, StateFault>,
) -> (T, Witness, usize) {
    let mut witness = Witness::default();
    let mut sibling_count = 0;
    loop {
        let hash = match attempt(&witness) {
            Ok(answer) => return (answer, witness, sibling_count),
            Err(StateFault::NodeMissing { hash, .. }) => hash,
            Err(StateFault::SiblingMissing { hash, .. }) => {
                sibling_count += 1;
                hash
            }
            Err(fault) => panic!("{fault}"),
        };
        let node = nodes.by_hash.get(&hash).unwrap_or_else(|| panic!("{hash} is no node of the state"));
        assert!(!witness.state.contains(node), "{hash} was there already");
        witness.state.push(node.clone());
    }
}

/// Keys that share long prefixes, so that short nodes stand in their parents.
fn close_key(random: &mut SmallRng) -> B256 {
    let mut key = B256::repeat_byte(0x11 * random.random_range(0..3));
    for _ in 0..random.random_range(0..3) {
        key[random.random_range(0..2)] = random.random_range(0..3) << 4;
    }
    key[random.random_range(29..32)] = random.random();
    key
}

#[test]
fn changed_tries_have_the_roots_of_whole_ones() {
    let mut random = SmallRng::seed_from_u64(1);
    let (mut siblings, mut embedded) = (0, 0);
    for _ in 0..2_000 {
        let size = random.random_range(0..40);
        let value = |random: &mut SmallRng| {
            let long = random.random_bool(0.2);
            alloy_rlp::encode(U256::from(random.random_range(1..1_000_u64)) << (if long { 240 } else { 0 }))
        };
        let mut entries: Entries = (0..size).map(|_| (close_key(&mut random), value(&mut random))).collect();
        let mut nodes = Nodes::default();
        let before = root_of(&entries, &mut nodes);
        embedded += nodes.embedded;

        let mut changes: BTreeMap<B256, Option<Vec<u8>>> = BTreeMap::new();
        for _ in 0..random.random_range(0..20) {
            let key = match entries.len() {
                0 => close_key(&mut random),
                count if random.random_bool(0.6) => {
                    *entries.keys().nth(random.random_range(0..count)).expect("below the count")
                }
                _ => close_key(&mut random),
            };
            changes.insert(key, random.random_bool(0.4).then(|| value(&mut random)));
        }
        let (after, _, sibling_count) = with_growing_witness(&nodes, |witness| {
            let index = HashIndex::new(&witness.state);
            let mut writer = TrieWriter::new(&index, changes.len());
            let mut root = Child::of_root(&before);
            for (key, value) in changes.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
                writer.insert(&mut root, key, value)?;
            }
            for (key, _) in changes.iter().filter(|(_, value)| value.is_none()) {
                writer.delete(&mut root, key)?;
            }
            let after = writer.hash(&[(None, root)])[0];
            let touched: BTreeSet<B256> = writer.touched(0).map(|touched| *touched.hash).collect();
            assert_eq!(touched.len(), witness.state.len());
            Ok(after)
        });
        siblings += sibling_count;
        for (key, value) in changes {
            match value {
                Some(value) => drop(entries.insert(key, value)),
                None => drop(entries.remove(&key)),
            }
        }
        assert_eq!(after, root_of(&entries, &mut Nodes::default()));
    }
    assert!(siblings > 100 && embedded > 1_000, "{siblings} siblings, {embedded} embedded nodes");
}

/// A whole state.
#[derive(Clone, Default)]
struct Model {
    accounts: BTreeMap<Address, (AccountInfo, BTreeMap<U256, U256>)>,
}

impl Model {
    fn root(&self, nodes: &mut Nodes) -> B256 {
        let mut entries = Entries::new();
        for (address, (info, storage)) in &self.accounts {
            let slots = storage.iter();
            let slots = slots.map(|(slot, value)| (keccak256(slot.to_be_bytes::<32>()), alloy_rlp::encode(value)));
            let storage_root = root_of(&slots.collect(), nodes);
            let account = alloy_trie::TrieAccount {
                nonce: info.nonce,
                balance: info.balance_wei,
                storage_root,
                code_hash: info.code_hash,
            };
            entries.insert(keccak256(address), alloy_rlp::encode(account));
        }
        root_of(&entries, nodes)
    }

    fn apply(&mut self, changes: &StateChanges) {
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
                match value.is_zero() {
                    true => drop(entry.1.remove(slot)),
                    false => drop(entry.1.insert(*slot, *value)),
                }
            }
        }
    }
}

fn random_changes(random: &mut SmallRng, address_count: u64) -> StateChanges {
    let mut accounts: BTreeMap<Address, AccountChange> = BTreeMap::new();
    for _ in 0..random.random_range(1..30) {
        let address = Address::left_padding_from(&random.random_range(0..address_count).to_be_bytes());
        let info = AccountInfo {
            nonce: random.random_range(0..3),
            balance_wei: U256::from(random.random_range(0..5_u64)),
            code_hash: if random.random_bool(0.5) { CODE_HASH_EMPTY } else { keccak256(address) },
        };
        let mut storage: BTreeMap<U256, U256> = BTreeMap::new();
        for _ in 0..random.random_range(0..6) {
            storage.insert(U256::from(random.random_range(0..12_u64)), U256::from(random.random_range(0..3_u64)));
        }
        accounts.insert(
            address,
            AccountChange {
                address,
                account: random.random_bool(0.7).then_some(info),
                storage_cleared: random.random_bool(0.1),
                storage: storage.into_iter().collect(),
            },
        );
    }
    StateChanges { accounts: accounts.into_values().collect(), codes: Vec::new() }
}

#[test]
fn a_partial_state_reads_and_changes_like_the_whole_one() {
    let mut random = SmallRng::seed_from_u64(2);
    let mut model = Model::default();
    for round in 0..400 {
        let mut nodes = Nodes::default();
        let root = model.root(&mut nodes);
        let probes: Vec<Address> =
            (0..5).map(|_| Address::left_padding_from(&random.random_range(0..45_u64).to_be_bytes())).collect();
        let slots: Vec<(Address, U256)> =
            probes.iter().map(|address| (*address, U256::from(random.random_range(0..12_u64)))).collect();
        let (_, witness, _) = with_growing_witness(&nodes, |witness| {
            let mut state = PartialState::new(&root, witness);
            check_reads(&state, &model, &slots)?;
            state.need(&probes, &slots)?;
            if !probes.is_empty() {
                assert_eq!(state.nodes().first_unneeded(), None, "round {round}");
            }
            Ok(())
        });
        check_proofs(&PartialState::new(&root, &witness), &model, &slots);

        let changes = random_changes(&mut random, 40);
        let (after, ..) = with_growing_witness(&nodes, |witness| {
            let mut state = PartialState::new(&root, witness);
            let after = state.root_after(&changes)?;
            // Nodes that were only looked at for the storage root of an account are on the way to the account's own change.
            assert_eq!(state.nodes().first_unneeded(), None, "round {round}");
            Ok(after)
        });
        model.apply(&changes);
        assert_eq!(after, model.root(&mut Nodes::default()), "round {round}");
    }
}

/// Reads accounts and slots, what is missing first.
fn check_reads(state: &PartialState<'_>, model: &Model, slots: &[(Address, U256)]) -> Result<(), StateFault> {
    let reader = state.reader();
    let fault = |error| {
        assert_eq!(error, StateError::Partial);
        state.fault().expect("a reader that fails says why")
    };
    for (address, slot) in slots {
        let expected = model.accounts.get(address);
        let found = reader.account(address).map_err(fault)?;
        let info = |account: crate::state::Account| (account.nonce, account.balance_wei, account.code_hash);
        assert_eq!(found.map(info), expected.map(|(info, _)| (info.nonce, info.balance_wei, info.code_hash)));
        let value = reader.storage(address, *slot).map_err(fault)?;
        let expected = expected.and_then(|(_, storage)| storage.get(slot)).copied().unwrap_or_default();
        assert_eq!(value, expected);
    }
    Ok(())
}

fn check_proofs(state: &PartialState<'_>, model: &Model, slots: &[(Address, U256)]) {
    for (address, slot) in slots {
        let proof = state.reader().proof(address, &[*slot]).expect("everything needed is there");
        assert_eq!(proof.account.is_some(), model.accounts.contains_key(address));
        let value = proof.account.map(|account| {
            alloy_rlp::encode(alloy_trie::TrieAccount {
                nonce: account.nonce,
                balance: account.balance_wei,
                storage_root: account.storage_root,
                code_hash: account.code_hash,
            })
        });
        let key = Nibbles::unpack(keccak256(address));
        alloy_trie::proof::verify_proof(state.reader().root(), key, value, &proof.account_proof).expect("a proof");
        let storage_root = proof.account.map_or(ROOT_EMPTY, |account| account.storage_root);
        let storage = &proof.storage[0];
        let value = (!storage.value.is_zero()).then(|| alloy_rlp::encode(storage.value));
        let key = Nibbles::unpack(keccak256(slot.to_be_bytes::<32>()));
        alloy_trie::proof::verify_proof(storage_root, key, value, &storage.proof).expect("a proof");
    }
}
