//! Blocks of random transactions over a small state, cut in every way, against plain sets of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::primitives::{Address, U256};
use crate::state::trie::node::{Link, Node, Slot};
use crate::state::{AccountChange, AccountInfo, CODE_HASH_EMPTY, StateStore, Store};
use crate::testing::rng::SimRng;
use crate::witness::bound::{Depth, Touched};
use crate::witness::collect::{Collected, collect};

/// Accounts that have slots and are never deleted.
const CONTRACTS: u64 = 3;
const ACCOUNTS: u64 = 40;
const SLOTS: u64 = 24;

type Model = BTreeMap<Address, (u64, BTreeMap<U256, U256>)>;

fn address(number: u64) -> Address {
    Address::left_padding_from(&(number + 1).to_be_bytes())
}

/// Net changes between two states, and the keys of them.
fn difference(before: &Model, after: &Model) -> (StateChanges, Accesses) {
    let (mut changes, mut accesses) = (StateChanges::default(), Accesses::default());
    let all: BTreeSet<&Address> = before.keys().chain(after.keys()).collect();
    for address in all.into_iter().filter(|address| before.get(*address) != after.get(*address)) {
        accesses.accounts.push(*address);
        let Some((nonce, slots)) = after.get(address) else {
            accesses.deleted_accounts.push(*address);
            let change =
                AccountChange { address: *address, account: None, storage_cleared: false, storage: Vec::new() };
            changes.accounts.push(change);
            continue;
        };
        let empty = BTreeMap::new();
        let old = before.get(address).map_or(&empty, |(_, slots)| slots);
        let names: BTreeSet<&U256> = old.keys().chain(slots.keys()).collect();
        let mut storage = Vec::new();
        for slot in names.into_iter().filter(|slot| old.get(*slot) != slots.get(*slot)) {
            let value = slots.get(slot).copied().unwrap_or_default();
            storage.push((*slot, value));
            accesses.slots.push((*address, *slot));
            if value.is_zero() {
                accesses.deleted_slots.push((*address, *slot));
            }
        }
        let info = AccountInfo { nonce: *nonce, balance_wei: U256::ONE, code_hash: CODE_HASH_EMPTY };
        changes.accounts.push(AccountChange {
            address: *address,
            account: Some(info),
            storage_cleared: false,
            storage,
        });
    }
    (changes, accesses)
}

/// A few random writes, deletions among them. Values name their contract, so that no two storage tries have a node in common: what a run
/// makes at one place would else be found in the state before at another.
fn transact(rng: &mut SimRng, state: &mut Model) {
    for _ in 0..=rng.below(4) {
        let number = rng.below(ACCOUNTS);
        if rng.chance(1, 2) {
            let contract = rng.below(CONTRACTS);
            let (nonce, slots) = state.entry(address(contract)).or_default();
            *nonce += 1;
            let slot = U256::from(rng.below(SLOTS));
            match rng.chance(1, 2) {
                true => drop(slots.remove(&slot)),
                false => drop(slots.insert(slot, U256::from(1 + rng.below(3) + 16 * contract))),
            }
        } else if rng.chance(1, 2) && number >= CONTRACTS {
            state.remove(&address(number));
        } else {
            state.entry(address(number)).or_default().0 += 1;
        }
    }
}

/// RLP of every node that a state holds under its own hash.
fn all_nodes(state: &Snapshot) -> BTreeSet<Bytes> {
    let mut nodes = BTreeSet::new();
    visit(state, state.root_link(), 0, &mut nodes);
    nodes
}

fn visit(state: &Snapshot, link: Link, depth: usize, nodes: &mut BTreeSet<Bytes>) {
    if link.node == 0 {
        return;
    }
    let node = state.node(link.node).expect("readable");
    let mut rlp = Vec::new();
    node.encode(depth, &mut rlp);
    if !link.slot.embedded {
        nodes.insert(rlp.into());
    }
    match node {
        Node::Branch(branch) => (0..16).for_each(|nibble| visit(state, branch.child(nibble), depth + 1, nodes)),
        Node::Extension(extension) => visit(state, extension.child, extension.end, nodes),
        Node::Account(leaf) => {
            visit(state, Link { node: leaf.storage, slot: Slot::hash(leaf.account.storage_root) }, 0, nodes);
        }
        Node::Slot(_) | Node::Code(_) => {}
    }
}

/// One block: the states after each transaction, the first before all.
struct Block {
    models: Vec<Model>,
    snapshots: Vec<Snapshot>,
    /// Of the whole block, with what its transactions deleted on the way.
    accesses: Accesses,
    changes: StateChanges,
}

fn block(rng: &mut SimRng, store: &mut Store, model: &Model, state: &Snapshot) -> Block {
    let (mut models, mut snapshots) = (vec![model.clone()], vec![state.clone()]);
    let mut accesses = Accesses::default();
    for _ in 0..2 + rng.below(6) {
        let (before, parent) = (&models[models.len() - 1], &snapshots[snapshots.len() - 1]);
        let mut after = before.clone();
        transact(rng, &mut after);
        let (changes, touched) = difference(before, &after);
        snapshots.push(store.commit(parent, &changes).expect("commits"));
        accesses.accounts.extend(touched.accounts);
        accesses.slots.extend(touched.slots);
        accesses.deleted_accounts.extend(touched.deleted_accounts);
        accesses.deleted_slots.extend(touched.deleted_slots);
        models.push(after);
    }
    let changes = difference(model, &models[models.len() - 1]).0;
    Block { models, snapshots, accesses, changes }
}

#[test]
fn any_cut_of_a_block_needs_what_the_canonical_witness_and_the_reserve_hold() {
    let mut rng = SimRng::new(11);
    let mut store = crate::testing::state_disk::store(Arc::new(
        rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"),
    ));
    let (mut model, mut state) = (Model::new(), store.empty());
    let (mut in_reserve, mut needed_reserve) = (0, 0);
    for round in 0..400 {
        let block = block(&mut rng, &mut store, &model, &state);
        let Collected { nodes, reserve } = collect(&state, &block.accesses, &block.changes).expect("collects");
        in_reserve += reserve.len();
        let before = all_nodes(&state);
        let held: BTreeSet<&Bytes> = nodes.iter().chain(&reserve).collect();
        assert!(held.iter().all(|node| before.contains(*node)), "round {round}");
        let whole = Witness { state: nodes.clone(), ..Witness::default() }.encode().len();
        let touched = Touched::of(&block.accesses, 0);
        assert!(whole <= touched.witness_bytes_max(Depth::UNKNOWN), "round {round}");
        assert!(whole <= touched.witness_bytes_max(Depth { accounts: 6, storage: 6 }), "round {round}");

        for _ in 0..4 {
            let mut cuts: Vec<usize> = (1..block.models.len() - 1).filter(|_| rng.chance(1, 2)).collect();
            cuts.push(block.models.len() - 1);
            let mut start = 0;
            let parts: Vec<_> = cuts
                .into_iter()
                .map(|end| {
                    let (changes, accesses) = difference(&block.models[start], &block.models[end]);
                    (std::mem::replace(&mut start, end), changes, accesses)
                })
                .collect();
            let pieces: Vec<Piece<'_>> = parts
                .iter()
                .map(|(start, changes, accesses)| Piece {
                    number: 1,
                    before: &block.snapshots[*start],
                    accesses,
                    changes,
                })
                .collect();
            let run = of_run(&pieces, Begin::Inside, |_| None).expect("collects");
            let all = pieces
                .iter()
                .flat_map(|piece| collect(piece.before, piece.accesses, piece.changes).expect("collects").nodes);
            let expected: Vec<Bytes> =
                all.filter(|node| before.contains(node)).collect::<BTreeSet<_>>().into_iter().collect();
            assert_eq!(run.state, expected, "round {round}");
            for node in &run.state {
                assert!(held.contains(node), "round {round}: a part of the block needs {node}");
            }
            needed_reserve += run.state.iter().filter(|node| reserve.binary_search(node).is_ok()).count();
        }
        (model, state) =
            (block.models[block.models.len() - 1].clone(), block.snapshots[block.snapshots.len() - 1].clone());
    }
    assert!(in_reserve > 10 && needed_reserve > 20, "{in_reserve} in the reserve, {needed_reserve} needed");
}

#[test]
fn what_a_run_makes_itself_is_not_in_its_witness() {
    let store = crate::testing::state_disk::store(Arc::new(
        rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"),
    ));
    let state = store.empty();
    let code = (B256::repeat_byte(1), Bytes::from_static(&[1]));
    let old = (B256::repeat_byte(2), Bytes::from_static(&[2]));
    let making = StateChanges { codes: vec![code.clone()], ..StateChanges::default() };
    let nothing = StateChanges::default();
    let fetched =
        Accesses { codes: vec![code.clone(), old.clone()], block_hash_lowest: Some(3), ..Accesses::default() };
    let piece = |changes, accesses| Piece { number: 7, before: &state, accesses, changes };
    let header = |number: u64| Some(Bytes::from(vec![0xc1, number as u8]));
    let none = Accesses::default();

    let run = of_run(&[piece(&making, &none), piece(&nothing, &fetched)], Begin::Block, header).expect("collects");
    assert_eq!(run.codes, std::slice::from_ref(&old.1));
    assert_eq!(run.headers.len(), 4, "3 to 6");
    let run = of_run(&[piece(&making, &fetched)], Begin::Block, header).expect("collects");
    assert_eq!(run.codes, std::slice::from_ref(&old.1));
    let run = of_run(&[piece(&nothing, &fetched), piece(&making, &none)], Begin::Inside, header).expect("collects");
    assert_eq!(run.codes, [code.1, old.1]);
    assert_eq!(of_run(&[piece(&nothing, &none)], Begin::Block, header).expect("collects").headers.len(), 1);
    assert!(of_run(&[piece(&nothing, &none)], Begin::Inside, header).expect("collects").headers.is_empty());
    assert_eq!(of_run(&[], Begin::Block, header), Ok(Witness::default()));
}
