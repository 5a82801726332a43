//! Building while an execution client checks: what is shown, what is kept, when it stops.

use super::tests::chain;
use super::*;
use crate::messages::Refusal;
use crate::primitives::Fork;
use crate::testing::bench_chain::BenchChain;
use crate::testing::signing::TestKey;

const UNCHECKED_MAX: u64 = 3;
const TO: Address = Address::repeat_byte(0x77);

/// Submits the key's next transfer; answers the refusal, if that is what came.
fn transfer(chain: &mut BenchChain, key: &TestKey, nonce: u64) -> Option<Refusal> {
    let raw = key.transfer(chain.spec.chain_id, nonce, TO, 1);
    chain.submit(&raw);
    match chain.effects.replies.pop() {
        Some((_, BuilderReply::Refused { refusal, .. })) => Some(refusal),
        _ => None,
    }
}

/// One block's time; answers tip and latest.
fn block_time(chain: &mut BenchChain) -> (u64, u64) {
    chain.settle();
    chain.advance(2_000_000_000);
    chain.settle();
    let heads = chain.core.heads();
    let tip = heads.recent.last().map_or(0, |block| block.header.number);
    (tip, heads.latest.header.number)
}

fn verdict(chain: &mut BenchChain, checked: u64, is_halted: bool) {
    let BenchChain { core, effects, .. } = chain;
    core.on_verdict(checked, true, is_halted, effects);
}

#[test]
fn latest_follows_the_verdicts_and_building_stops_at_the_bound() {
    let (mut chain, keys) = chain(Fork::Osaka);
    chain.core.expect_verdicts(0, UNCHECKED_MAX);
    // The client's head was not read yet: admitted, and no block opened.
    assert_eq!(transfer(&mut chain, &keys[0], 0), None);
    assert_eq!(block_time(&mut chain), (0, 0));
    verdict(&mut chain, 0, false);
    for tip in 1..=UNCHECKED_MAX {
        assert_eq!(block_time(&mut chain), (tip, 0));
        let refusal = transfer(&mut chain, &keys[0], tip);
        let is_full = tip == UNCHECKED_MAX;
        assert_eq!(refusal, is_full.then_some(Refusal::Unchecked { blocks: 3, blocks_max: 3 }));
    }
    assert_eq!(block_time(&mut chain), (3, 0));
    verdict(&mut chain, 2, false);
    assert_eq!(chain.core.heads().latest.header.number, 2);
    assert_eq!(transfer(&mut chain, &keys[0], 3), None);
    assert_eq!(block_time(&mut chain), (4, 2));
    verdict(&mut chain, 4, false);
    assert_eq!(chain.core.heads().latest.header.number, 4);
}

#[test]
fn a_halt_ends_building_and_admission() {
    let (mut chain, keys) = chain(Fork::Osaka);
    chain.core.expect_verdicts(0, UNCHECKED_MAX);
    verdict(&mut chain, 0, false);
    assert_eq!(transfer(&mut chain, &keys[0], 0), None);
    assert_eq!(block_time(&mut chain), (1, 0));
    assert_eq!(transfer(&mut chain, &keys[0], 1), None);
    verdict(&mut chain, 0, true);
    assert_eq!(block_time(&mut chain), (1, 0));
    assert_eq!(transfer(&mut chain, &keys[0], 2), Some(Refusal::Halted));
}

#[test]
fn unchecked_blocks_stay_in_memory_however_many_there_are() {
    let (mut chain, keys) = chain(Fork::Osaka);
    chain.core.expect_verdicts(0, u64::MAX);
    verdict(&mut chain, 0, false);
    let count = limits::RECENT_BLOCKS_MAX as u64 + 3;
    for nonce in 0..count {
        assert_eq!(transfer(&mut chain, &keys[0], nonce), None);
        block_time(&mut chain);
    }
    let oldest = |chain: &BenchChain| chain.core.heads().recent.first().map(|block| block.header.number);
    assert_eq!(oldest(&chain), Some(0));
    verdict(&mut chain, count, false);
    assert_eq!(transfer(&mut chain, &keys[0], count), None);
    assert_eq!(block_time(&mut chain), (count + 1, count));
    assert_eq!(oldest(&chain), Some(count + 2 - limits::RECENT_BLOCKS_MAX as u64));
}
