//! What the operator's halt and stop do to blocks, to the pool and to those who send.

use super::tests::chain;
use super::*;
use crate::admin::cells::HaltSource;
use crate::messages::{Refusal, SubmitWait, Unready};
use crate::testing::bench_chain::BenchChain;
use crate::testing::signing::TestKey;

const TO: Address = Address::repeat_byte(0x77);

fn halted() -> Wanted {
    Wanted::default().halted_by(HaltSource::Admin, true)
}

fn transfer(chain: &mut BenchChain, key: &TestKey, nonce: u64, wait: SubmitWait) -> Option<BuilderReply> {
    let raw = key.transfer(chain.spec.chain_id, nonce, TO, 1);
    chain.submit_with(&raw, wait, None);
    chain.effects.replies.pop().map(|(_, reply)| reply)
}

fn tip(chain: &BenchChain) -> u64 {
    chain.core.heads().latest.header.number
}

/// The records since the last look, by their kinds.
fn close_reason(chain: &mut BenchChain) -> Option<CloseReason> {
    let bytes = std::mem::take(&mut chain.effects.records);
    let (mut rest, mut found) = (&bytes[..], None);
    while !rest.is_empty() {
        let len = u32::from_le_bytes(rest[..4].try_into().expect("a record has a length")) as usize;
        let (_, record) = Record::decode(&rest[..len]).expect("the core's own record");
        if let Record::Closed { reason, .. } = record {
            found = Some(reason);
        }
        rest = &rest[len..];
    }
    found
}

#[test]
fn a_halt_closes_the_open_block_at_once_and_admits_nothing() {
    let (mut chain, keys) = chain(Fork::Osaka);
    chain.effects.keeps_records = true;
    assert!(matches!(transfer(&mut chain, &keys[0], 0, SubmitWait::Admission), Some(BuilderReply::Admitted { .. })));
    chain.settle();
    assert!(!chain.core.is_at_rest() && tip(&chain) == 0, "a block is open");
    // Behind a nonce gap, so that it waits when the halt comes.
    assert!(matches!(transfer(&mut chain, &keys[1], 1, SubmitWait::Admission), Some(BuilderReply::Admitted { .. })));
    chain.core.on_controls(halted());
    chain.settle();
    assert!(chain.core.is_at_rest());
    assert_eq!(tip(&chain), 1, "closed and sealed without waiting for its time");
    assert_eq!(close_reason(&mut chain), Some(CloseReason::Stop));
    for wait in [SubmitWait::Admission, SubmitWait::Preconfirmation] {
        match transfer(&mut chain, &keys[1], 0, wait) {
            // That it is halted depends on no record: it is said at once.
            Some(BuilderReply::Refused { refusal: Refusal::HaltedByOperator, gate: Sequence(0), .. }) => {}
            _ => panic!("admitted while halted"),
        }
    }
    chain.advance(5_000_000_000);
    chain.settle();
    assert_eq!(tip(&chain), 1, "nothing is built");
    chain.core.on_controls(Wanted::default());
    assert!(matches!(transfer(&mut chain, &keys[1], 0, SubmitWait::Admission), Some(BuilderReply::Admitted { .. })));
    assert_eq!(chain.finish_block().block.transactions.len(), 2, "what waited in the pool goes on");
}

#[test]
fn stopped_it_admits_and_builds_nothing_and_goes_on_with_the_pool() {
    let (mut chain, keys) = chain(Fork::Osaka);
    chain.core.on_controls(Wanted::default().stopped(true));
    assert!(matches!(transfer(&mut chain, &keys[0], 0, SubmitWait::Admission), Some(BuilderReply::Admitted { .. })));
    // Nobody waits for a place that nobody gives.
    match transfer(&mut chain, &keys[0], 1, SubmitWait::Preconfirmation) {
        Some(BuilderReply::Unready { reason: Unready::Stopped, .. }) => {}
        _ => panic!("somebody waits"),
    }
    chain.advance(5_000_000_000);
    chain.settle();
    assert!(chain.core.is_at_rest() && tip(&chain) == 0);
    chain.core.on_controls(Wanted::default());
    assert_eq!(chain.finish_block().block.transactions.len(), 2);
}

#[test]
fn empty_blocks_are_not_made_while_held() {
    let spec = crate::config::genesis::dev_genesis(Fork::Osaka, 10).expect("built in");
    let mut chain = BenchChain::with(spec, |settings, _| settings.empty_interval_ns = 1_000_000_000);
    for wanted in [halted(), Wanted::default().stopped(true)] {
        chain.core.on_controls(wanted);
        chain.advance(3_000_000_000);
        chain.settle();
        assert_eq!(tip(&chain), 0, "{wanted:?}");
    }
    chain.core.on_controls(Wanted::default());
    chain.settle();
    chain.advance(1_000_000_000);
    chain.settle();
    assert!(tip(&chain) > 0);
}

/// The end of the process does not wait for what nobody may place.
#[test]
fn a_held_core_drains_at_once() {
    for wanted in [halted(), Wanted::default().stopped(true)] {
        let (mut chain, keys) = chain(Fork::Osaka);
        assert!(matches!(
            transfer(&mut chain, &keys[0], 0, SubmitWait::Admission),
            Some(BuilderReply::Admitted { .. })
        ));
        chain.core.on_controls(wanted);
        chain.core.drain(chain.now.monotonic_ns + 5_000_000_000);
        assert_eq!(chain.settle(), NextTurn::Drained, "{wanted:?}");
        assert_eq!((tip(&chain), chain.core.pooled_count()), (0, 1), "it waits for the next start");
    }
}
