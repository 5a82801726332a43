//! Building above an L1: no block before it was read, its origin in the context, tags and the journal's hold behind its heads.

use super::tests::chain;
use super::*;
use crate::messages::Refusal;
use crate::primitives::{Fork, Tier};
use crate::settlement::cells::{Hold, Origin, SettlementView};
use crate::testing::bench_chain::BenchChain;
use crate::testing::signing::TestKey;

const SETTLED_AT_NS: u64 = 77_000_000;
const TO: Address = Address::repeat_byte(0x77);
const START: SettlementView = SettlementView { posted: 0, safe: 0, finalized: 0, is_met: false, ..SettlementView::OFF };

/// Submits the key's next transfer; answers the refusal, if that is what came.
fn transfer(chain: &mut BenchChain, key: &TestKey, nonce: u64) -> Option<Refusal> {
    let raw = key.transfer(chain.spec.chain_id, nonce, TO, 1);
    chain.submit(&raw);
    match chain.effects.replies.pop() {
        Some((_, BuilderReply::Refused { refusal, .. })) => Some(refusal),
        _ => None,
    }
}

fn block_time(chain: &mut BenchChain) -> u64 {
    chain.settle();
    chain.advance(2_000_000_000);
    chain.settle();
    chain.core.heads().latest.header.number
}

fn tell(chain: &mut BenchChain, view: SettlementView, origin: Option<Origin>) {
    let BenchChain { core, effects, .. } = chain;
    let now = Now { monotonic_ns: 0, unix_ns: SETTLED_AT_NS };
    core.on_settlement(view, || origin, now, effects);
}

fn origin(number: u64) -> Origin {
    Origin { number, hash: B256::repeat_byte(number as u8), mix_hash: B256::repeat_byte(0x40 | number as u8) }
}

#[test]
fn blocks_stand_on_the_origin_and_none_before_there_is_one() {
    let (mut chain, keys) = chain(Fork::Osaka);
    chain.core.expect_settlement(START);
    assert_eq!(transfer(&mut chain, &keys[0], 0), None);
    assert_eq!(block_time(&mut chain), 0);
    // Met, but without an origin block 1 would have nothing to stand on.
    tell(&mut chain, SettlementView { is_met: true, ..START }, None);
    assert_eq!(block_time(&mut chain), 0);
    tell(&mut chain, SettlementView { is_met: true, origin_version: 1, ..START }, Some(origin(3)));
    assert_eq!(block_time(&mut chain), 1);
    let header = chain.core.heads().latest.header.clone();
    assert_eq!(header.parent_beacon_block_root, Some(origin(3).hash));
    assert_eq!(header.mix_hash, origin(3).mix_hash);
    // The version decides whether the origin is read at all.
    tell(&mut chain, SettlementView { is_met: true, origin_version: 1, safe: 1, ..START }, Some(origin(9)));
    assert_eq!(transfer(&mut chain, &keys[0], 1), None);
    assert_eq!(block_time(&mut chain), 2);
    assert_eq!(chain.core.heads().latest.header.mix_hash, origin(3).mix_hash);
}

#[test]
fn tags_follow_l1_and_the_journal_keeps_what_is_not_final() {
    let (mut chain, keys) = chain(Fork::Osaka);
    chain.core.expect_settlement(START);
    let met = SettlementView { is_met: true, origin_version: 1, ..START };
    tell(&mut chain, met, Some(origin(1)));
    let mut sequences = vec![chain.core.sequence()];
    for nonce in 0..4 {
        assert_eq!(transfer(&mut chain, &keys[0], nonce), None);
        assert_eq!(block_time(&mut chain), nonce + 1);
        sequences.push(chain.core.sequence());
    }
    let tags = |chain: &BenchChain| {
        let heads = chain.core.heads();
        (heads.latest.header.number, heads.safe_number, heads.finalized_number)
    };
    assert_eq!((tags(&chain), chain.core.settled()), ((4, 0, 0), Sequence(0)));
    tell(&mut chain, SettlementView { safe: 3, finalized: 2, ..met }, None);
    assert_eq!((tags(&chain), chain.core.settled()), ((4, 3, 2), sequences[2]));
    // L1 takes blocks back: safe goes down, final does not.
    tell(&mut chain, SettlementView { safe: 2, finalized: 2, ..met }, None);
    assert_eq!((tags(&chain), chain.core.settled()), ((4, 2, 2), sequences[2]));
    tell(&mut chain, SettlementView { safe: 9, finalized: 9, ..met }, None);
    assert_eq!((tags(&chain), chain.core.settled()), ((4, 4, 4), sequences[4]));
}

/// What the chain thread was told of L1 since the last time.
fn told(chain: &mut BenchChain) -> Vec<(Tier, u64, u64)> {
    let told = chain.effects.chain.drain(..).filter_map(|message| match message {
        ChainMessage::Settled { tier, first, last, unix_ns: SETTLED_AT_NS } => Some((tier, first, last)),
        _ => None,
    });
    told.collect()
}

#[test]
fn the_chain_thread_is_told_when_blocks_were_posted_safe_and_final() {
    let (mut chain, keys) = chain(Fork::Osaka);
    chain.core.expect_settlement(START);
    let met = SettlementView { is_met: true, origin_version: 1, ..START };
    tell(&mut chain, met, Some(origin(1)));
    for nonce in 0..4 {
        assert_eq!(transfer(&mut chain, &keys[0], nonce), None);
        assert_eq!(block_time(&mut chain), nonce + 1);
    }
    assert_eq!(told(&mut chain), []);
    tell(&mut chain, SettlementView { posted: 3, safe: 1, ..met }, None);
    assert_eq!(told(&mut chain), [(Tier::Posted, 1, 3), (Tier::Safe, 1, 1)]);
    tell(&mut chain, SettlementView { posted: 3, safe: 3, finalized: 1, ..met }, None);
    assert_eq!(told(&mut chain), [(Tier::Safe, 2, 3), (Tier::Finalized, 1, 1)]);
    // L1 takes blocks back, and has them again: they get their time anew.
    tell(&mut chain, SettlementView { posted: 3, safe: 1, finalized: 1, ..met }, None);
    assert_eq!(told(&mut chain), []);
    // Not beyond the newest block.
    tell(&mut chain, SettlementView { posted: 9, safe: 9, finalized: 1, ..met }, None);
    assert_eq!(told(&mut chain), [(Tier::Posted, 4, 4), (Tier::Safe, 2, 4)]);
    // The places of blocks and ends are not taken for it.
    chain.effects.chain_room = limits::CHAIN_RING_RESERVE;
    tell(&mut chain, SettlementView { posted: 9, safe: 9, finalized: 9, ..met }, None);
    assert_eq!(told(&mut chain), []);
}

#[test]
fn a_debt_to_l1_holds_admission_and_says_why() {
    let (mut chain, keys) = chain(Fork::Osaka);
    chain.core.expect_settlement(START);
    let met = SettlementView { is_met: true, origin_version: 1, ..START };
    tell(&mut chain, met, Some(origin(1)));
    let hold = Some(Hold::Bytes { have: 7, max: 6 });
    tell(&mut chain, SettlementView { hold, ..met }, None);
    let refusal = transfer(&mut chain, &keys[0], 0);
    assert_eq!(refusal, Some(Refusal::Unsettled { what: "bytes", have: 7, max: 6 }));
    let hold = Some(Hold::Unwritten { block: 9 });
    tell(&mut chain, SettlementView { hold, ..met }, None);
    assert_eq!(transfer(&mut chain, &keys[0], 0), Some(Refusal::WitnessUnwritten { block: 9 }));
    tell(&mut chain, met, None);
    assert_eq!(transfer(&mut chain, &keys[0], 0), None);
    assert_eq!(block_time(&mut chain), 1);
    tell(&mut chain, SettlementView { is_halted: true, ..met }, None);
    assert_eq!(transfer(&mut chain, &keys[0], 1), Some(Refusal::SettlementHalted));
}

fn restored(key: &TestKey, chain_id: u64, nonce: u64, value_wei: u128, name: u64) -> RestoredTx {
    let raw = key.transfer(chain_id, nonce, TO, value_wei);
    let fields = crate::codec::transaction::decode(&raw).expect("a strict encoding").fields;
    RestoredTx {
        hash: crate::crypto::keccak::keccak256(&raw),
        sender: key.address,
        fields,
        raw: raw.into(),
        authorities: Vec::new(),
        conditions: None,
        name: Sequence(name),
        admitted: Sequence(name),
        accepted_unix_ns: 0,
    }
}

/// Blocks that were adopted and taken back again leave what was pooled a second time, and other transactions of its nonces.
#[test]
fn what_was_pooled_twice_is_restored_once() {
    let (mut chain, keys) = chain(Fork::Osaka);
    let chain_id = chain.spec.chain_id;
    let [first, other] = [1, 2].map(|value_wei| restored(&keys[0], chain_id, 0, value_wei, value_wei as u64));
    let next = restored(&keys[0], chain_id, 1, 1, 3);
    let (kept, dropped) = (first.hash, other.hash);
    let again = RestoredTx { name: Sequence(4), ..first.clone() };
    let start = Start { pooled: vec![first, other, next, again], ..Start::default() };
    let (now, BenchChain { core, effects, .. }) = (chain.now, &mut chain);
    core.start(start, now, effects).expect("nothing excludes the start");
    assert_eq!(core.pooled_count(), 2);
    let ends = effects.chain.iter().filter_map(|message| match message {
        ChainMessage::Ended { hash, end, .. } => Some((*hash, *end)),
        _ => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), [(dropped, crate::mempool::EndState::Replaced { by: kept })]);
}
