//! What the operator drops, what stays, and what is recorded of it.

use super::tests::chain;
use super::*;
use crate::mempool::{Bounds, EndState, Reject};
use crate::messages::{OperatorAnswer, OperatorWish, Refusal, SubmitWait};
use crate::testing::bench_chain::BenchChain;
use crate::testing::signing::TestKey;

const TO: Address = Address::repeat_byte(0x77);

fn drop(chain: &mut BenchChain, wish: OperatorWish) -> OperatorAnswer {
    chain.core.on_operator(wish, chain.now, &mut chain.effects)
}

fn submit(chain: &mut BenchChain, key: &TestKey, nonce: u64) -> B256 {
    let raw = key.transfer(chain.spec.chain_id, nonce, TO, 1);
    chain.submit(&raw);
    crate::crypto::keccak::keccak256(&raw)
}

/// Hashes and ends that the chain database is told of.
fn ends(chain: &mut BenchChain) -> Vec<(B256, EndState)> {
    let messages = std::mem::take(&mut chain.effects.chain);
    let end = |message| match message {
        ChainMessage::Ended { hash, end, .. } => Some((hash, end)),
        _ => None,
    };
    messages.into_iter().filter_map(end).collect()
}

#[test]
fn a_pooled_transaction_is_dropped_and_those_behind_it_wait() {
    let (mut chain, keys) = chain(Fork::Osaka);
    chain.core.on_controls(Wanted::default().stopped(true));
    let hashes: Vec<B256> = (0..3).map(|nonce| submit(&mut chain, &keys[0], nonce)).collect();
    let gate = Sequence(chain.core.sequence().0 + 1);
    let answer = drop(&mut chain, OperatorWish::DropTransaction { hash: hashes[1] });
    assert_eq!(answer, OperatorAnswer::Dropped { count: 1, gate });
    assert_eq!(ends(&mut chain), [(hashes[1], EndState::DroppedByOperator)]);
    let again = drop(&mut chain, OperatorWish::DropTransaction { hash: hashes[1] });
    assert_eq!(again, OperatorAnswer::Unknown);
    chain.core.on_controls(Wanted::default());
    assert_eq!(chain.finish_block().block.transactions.len(), 1, "the nonce behind it waits");
    // The gap is filled again.
    submit(&mut chain, &keys[0], 1);
    assert_eq!(chain.finish_block().block.transactions.len(), 2);
}

#[test]
fn what_has_its_place_is_not_dropped() {
    let (mut chain, keys) = chain(Fork::Osaka);
    let hash = submit(&mut chain, &keys[0], 0);
    chain.settle();
    let answer = drop(&mut chain, OperatorWish::DropTransaction { hash });
    assert_eq!(answer, OperatorAnswer::Placed { block_number: 1 });
    assert_eq!(chain.finish_block().block.transactions.len(), 1);
    assert_eq!(drop(&mut chain, OperatorWish::DropTransaction { hash }), OperatorAnswer::Unknown);
}

#[test]
fn a_sender_loses_everything_without_a_place_and_may_send_again() {
    let (mut chain, keys) = chain(Fork::Osaka);
    let placed = submit(&mut chain, &keys[0], 0);
    chain.settle();
    chain.core.on_controls(Wanted::default().stopped(true));
    // Ready ones, and one behind a gap.
    for nonce in [1, 2, 5] {
        submit(&mut chain, &keys[0], nonce);
    }
    let other = submit(&mut chain, &keys[1], 0);
    let waiter = keys[0].transfer(chain.spec.chain_id, 3, TO, 1);
    chain.submit_with(&waiter, SubmitWait::Admission, None);
    let answer = drop(&mut chain, OperatorWish::DropSender { address: keys[0].address });
    assert!(matches!(answer, OperatorAnswer::Dropped { count: 4, .. }), "{answer:?}");
    let ended = ends(&mut chain);
    assert!(ended.iter().all(|(hash, end)| *hash != placed && *hash != other && *end == EndState::DroppedByOperator));
    let nobody = drop(&mut chain, OperatorWish::DropSender { address: TO });
    assert!(matches!(nobody, OperatorAnswer::Dropped { count: 0, .. }), "{nobody:?}");
    chain.core.on_controls(Wanted::default());
    submit(&mut chain, &keys[0], 1);
    chain.settle();
    let blocks = chain.finish_block();
    assert!(blocks.block.transactions.iter().any(|tx| tx.hash == other));
    assert_eq!(chain.core.pooled_count(), 0);
}

/// Who waits for its receipt is told.
#[test]
fn a_waiter_hears_of_the_drop() {
    let (mut chain, keys) = chain(Fork::Osaka);
    let raw = keys[0].transfer(chain.spec.chain_id, 0, TO, 1);
    let token = chain.submit_with(&raw, SubmitWait::Preconfirmation, None);
    let hash = crate::crypto::keccak::keccak256(&raw);
    drop(&mut chain, OperatorWish::DropTransaction { hash });
    let told = chain.effects.replies.iter().any(|(_, reply)| {
        matches!(reply, BuilderReply::Ended { token: of, end: EndState::DroppedByOperator, .. } if *of == token)
    });
    assert!(told);
}

#[test]
fn nothing_is_dropped_while_the_journal_cannot_take_it() {
    let (mut chain, keys) = chain(Fork::Osaka);
    let hash = submit(&mut chain, &keys[0], 0);
    for (room, is_dropped) in [(JournalRoom::Full, false), (JournalRoom::Behind, false), (JournalRoom::Busy, true)] {
        chain.effects.journal_room = Some(room);
        let answer = drop(&mut chain, OperatorWish::DropTransaction { hash });
        assert_eq!(matches!(answer, OperatorAnswer::Dropped { .. }), is_dropped, "{room:?}: {answer:?}");
    }
}

#[test]
fn bounds_change_for_newcomers_and_never_above_the_reserved() {
    let spec = crate::config::genesis::dev_genesis(Fork::Osaka, 10).expect("built in");
    let mut chain = BenchChain::with(spec, |_, limits| limits.transactions_max = 4);
    let keys: Vec<TestKey> =
        crate::config::genesis::DEV_ACCOUNTS.iter().map(|(_, secret)| TestKey::from_hex(secret)).collect();
    chain.core.on_controls(Wanted::default().stopped(true));
    let refusal = |chain: &mut BenchChain, key: usize, nonce: u64| {
        submit(chain, &keys[key], nonce);
        match chain.effects.replies.pop() {
            Some((_, BuilderReply::Refused { refusal: Refusal::Pool(reject), .. })) => Some(reject),
            _ => None,
        }
    };
    let bounds = |transactions_max, per_sender_max| Bounds { transactions_max, bytes_max: 1 << 20, per_sender_max };
    assert_eq!(refusal(&mut chain, 0, 0), None);
    assert_eq!(refusal(&mut chain, 0, 1), None);
    chain.core.set_pool_bounds(bounds(1, 9));
    assert_eq!(refusal(&mut chain, 1, 0), Some(Reject::PoolFull { pooled: 2, limit: 1 }));
    chain.core.set_pool_bounds(bounds(9, 2));
    assert_eq!(refusal(&mut chain, 0, 2), Some(Reject::SenderFull { pooled: 2, limit: 2 }));
    assert_eq!(refusal(&mut chain, 1, 0), None);
    assert_eq!(refusal(&mut chain, 2, 0), None);
    assert_eq!(refusal(&mut chain, 3, 0), Some(Reject::PoolFull { pooled: 4, limit: 4 }), "as much as was reserved");
    chain.core.set_pool_bounds(Bounds { bytes_max: 1, ..bounds(4, 9) });
    chain.core.on_controls(Wanted::default());
    assert_eq!(chain.finish_block().block.transactions.len(), 4, "what is pooled stays");
}
