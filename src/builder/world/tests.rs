use std::sync::Arc;

use revm::state::EvmStorageSlot;

use super::*;
use crate::state::{StateStore, Store, genesis};

const CONTRACT: Address = Address::repeat_byte(0xc0);

/// A world over one account with one wei, code, and slot 1 set to 1.
fn world() -> (World, Store) {
    let mut store = crate::testing::state_disk::store(Arc::new(
        rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"),
    ));
    let account = genesis::GenesisAccount {
        address: CONTRACT,
        balance_wei: U256::ONE,
        nonce: 1,
        code: Bytes::from_static(&[0x00]),
        storage: vec![(U256::ONE, U256::ONE)],
    };
    let state = genesis::from_alloc(&mut store, [account]).expect("commits");
    let mut world = World::new(state);
    world.begin_block(1);
    (world, store)
}

/// Commits one transaction that left slot 1 at `value`; revm's own original value is `original`.
fn commit(world: &mut World, original: u64, value: u64) {
    let info = world.basic(CONTRACT).expect("readable").expect("exists");
    world.storage(CONTRACT, U256::ONE).expect("readable");
    let mut account = EvmAccount::from(info);
    account.mark_touch();
    let slot = EvmStorageSlot::new_changed(U256::from(original), U256::from(value), Default::default());
    account.storage.insert(U256::ONE, slot);
    world.commit([(CONTRACT, account)].into_iter().collect());
}

fn changed_slots(world: &mut World) -> Vec<(U256, U256)> {
    world.take_changes().accounts.into_iter().flat_map(|account| account.storage).collect()
}

#[test]
fn touched_caches_are_empty_and_no_larger() {
    let (mut world, _store) = world();
    let before = (world.accounts.capacity(), world.slots.capacity());
    world.touch();
    assert_eq!((world.accounts.len(), world.slots.len()), (0, 0));
    assert_eq!((world.accounts.capacity(), world.slots.capacity()), before);
    assert_eq!(world.basic(Address::ZERO).expect("readable"), None, "it reads the state");
    assert_eq!(world.storage(CONTRACT, U256::ONE).expect("readable"), U256::ONE);
}

#[test]
fn a_slot_counts_as_changed_by_its_value_and_not_by_the_base_of_the_last_transaction() {
    let (mut world, _store) = world();
    commit(&mut world, 1, 2);
    // revm says unchanged: this transaction found 2 and left 2.
    commit(&mut world, 2, 2);
    assert!(world.diffs().is_empty());
    assert_eq!(changed_slots(&mut world), [(U256::ONE, U256::from(2))]);
}

#[test]
fn a_slot_that_came_back_is_no_change_of_the_block() {
    let (mut world, _store) = world();
    commit(&mut world, 1, 2);
    commit(&mut world, 2, 1);
    assert_eq!(world.diffs(), [StateDiff::Slot { address: CONTRACT, slot: U256::ONE, value: U256::ONE }]);
    assert_eq!(changed_slots(&mut world), []);
}

#[test]
fn the_next_block_starts_from_what_the_last_one_left() {
    let (mut world, mut store) = world();
    commit(&mut world, 1, 2);
    let changes = world.take_changes();
    let snapshot = store.commit(world.snapshot(), &changes).expect("commits");
    world.sealed(snapshot, 1, B256::repeat_byte(1));
    world.begin_block(2);
    commit(&mut world, 2, 1);
    assert_eq!(changed_slots(&mut world), [(U256::ONE, U256::ONE)], "back to what it was before another block");
}

#[test]
fn discarded_changes_never_were() {
    let (mut world, _store) = world();
    commit(&mut world, 1, 2);
    assert!(world.is_dirty(&CONTRACT));
    world.discard_changes();
    assert!(!world.is_dirty(&CONTRACT));
    assert_eq!(world.peek_slot(CONTRACT, U256::ONE), Ok(U256::ONE));
    assert_eq!(world.slot(CONTRACT, U256::ONE), Ok(U256::ONE));
    assert!(world.diffs().is_empty());
    world.begin_block(1);
    commit(&mut world, 1, 1);
    let changes = world.take_changes();
    assert!(changes.accounts.is_empty() && changes.codes.is_empty());
}

#[test]
fn peeking_does_not_grow_the_cache() {
    let (mut world, _store) = world();
    assert_eq!(world.peek_slot(CONTRACT, U256::ONE), Ok(U256::ONE));
    assert_eq!(world.peek_account(CONTRACT).map(|account| account.nonce), Ok(1));
    assert!(!world.peek_account(Address::repeat_byte(9)).expect("readable").exists);
    assert!(world.accounts.is_empty() && world.slots.is_empty());
    world.account(CONTRACT).expect("readable");
    assert_eq!(world.accounts.len(), 1);
}

/// Deploys `WORLD_CODES_MAX + 1` codes in block 1, ends it, and asks for the first one in block 2 while the state below has none of them.
fn first_code_later<R: StateReader>(world: &mut World<R>) -> Result<Bytecode, WorldError> {
    let count = u64::try_from(limits::WORLD_CODES_MAX).expect("small") + 1;
    let codes: Vec<_> = (0..count).map(|index| Bytecode::new_raw(index.to_be_bytes().to_vec().into())).collect();
    for (index, code) in (0..).zip(&codes) {
        let mut account = EvmAccount::default();
        account.info.code_hash = code.hash_slow();
        account.info.code = Some(code.clone());
        account.mark_touch();
        account.mark_created();
        world.commit([(Address::from_word(U256::from(0x1_0000 + index).into()), account)].into_iter().collect());
    }
    world.take_changes();
    world.begin_block(2);
    world.code_by_hash(codes[0].hash_slow())
}

#[test]
fn only_a_lasting_world_forgets_codes() {
    let (mut lasting, _store) = world();
    let mut brief = World::with_room(lasting.snapshot.clone(), 1);
    brief.begin_block(1);
    let code = first_code_later(&mut brief).expect("it was deployed here");
    assert_eq!(code.original_byte_slice(), 0u64.to_be_bytes());
    let error = first_code_later(&mut lasting).expect_err("its state was to have it by now");
    assert!(matches!(error, WorldError::CodeMissing(_)), "{error}");
}
