//! What closes a block, what it passes over, and what becomes of everything that is not placed.

use alloy_consensus::Header;
use alloy_eips::eip1559::{BaseFeeParams, calc_next_block_base_fee};
use alloy_eips::eip7702::Authorization;
use alloy_genesis::GenesisAccount;
use alloy_primitives::{U256, keccak256};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::tests::assert_header;
use super::*;
use crate::config::genesis::{ChainSpec, DEV_ACCOUNTS, dev_genesis};
use crate::mempool::EndState;
use crate::mempool::Readiness;
use crate::mempool::Reject;
use crate::mempool::{Conditions, Limits};
use crate::messages::Refusal;
use crate::messages::SubmitWait;
use crate::messages::Unready;
use crate::messages::{BuilderAnswer, BuilderRead, LiveStatus, PooledTx};
use crate::primitives::Fork;
use crate::state::StateReader;
use crate::testing::bench_chain::BenchChain;
use crate::testing::bytecode::{self, Ending, Forward};
use crate::testing::signing::{DynamicFee, SetCode, TestKey};

const NS_PER_S: u64 = 1_000_000_000;
const STORE: Address = Address::repeat_byte(0x57);
const WASTE: Address = Address::repeat_byte(0x58);
const FORWARD: Address = Address::repeat_byte(0x59);
const ETHER_WEI: u128 = 1_000_000_000_000_000_000;

fn spec(gas_limit: u64) -> ChainSpec {
    let mut spec = dev_genesis(Fork::Osaka, 10).expect("built in");
    spec.genesis.gas_limit = gas_limit;
    for (address, code) in [
        (STORE, bytecode::store(Ending::Stop)),
        (WASTE, bytecode::store(Ending::Invalid)),
        (FORWARD, bytecode::forward(Forward::Call)),
    ] {
        spec.genesis.alloc.insert(address, GenesisAccount::default().with_code(Some(code.into())));
    }
    spec
}

fn keys() -> Vec<TestKey> {
    DEV_ACCOUNTS.iter().map(|(_, secret)| TestKey::from_hex(secret)).collect()
}

fn chain(gas_limit: u64, adjust: impl FnOnce(&mut CoreSettings, &mut Limits)) -> (BenchChain, Vec<TestKey>) {
    (BenchChain::with(spec(gas_limit), adjust), keys())
}

/// A call that uses all of its gas, with a tip.
fn wasteful(key: &TestKey, nonce: u64, gas_limit: u64, tip_wei: u128) -> Vec<u8> {
    let fields = DynamicFee {
        chain_id: 61_972,
        nonce,
        gas_limit,
        max_fee_per_gas: 1_000_000_000,
        max_priority_fee_per_gas: tip_wei,
        to: WASTE.into(),
        ..DynamicFee::default()
    };
    key.encode(fields)
}

fn hashes(block: &SealedBlock) -> Vec<B256> {
    block.block.transactions.iter().map(|tx| tx.hash).collect()
}

fn ends(chain: &BenchChain) -> Vec<(B256, EndState)> {
    let ended = chain.effects.chain.iter().filter_map(|message| match message {
        ChainMessage::Ended { hash, end, .. } => Some((*hash, *end)),
        _ => None,
    });
    ended.collect()
}

fn last_refusal(chain: &BenchChain) -> Option<Refusal> {
    match chain.effects.replies.last() {
        Some((_, BuilderReply::Refused { refusal, .. })) => Some(refusal.clone()),
        _ => None,
    }
}

// ---- what fits ---------------------------------------------------------------------------------------------------------------------

#[test]
fn a_block_without_gas_closes_at_once_and_the_rest_follows_in_order() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    // Ten of 500,000 gas fill a block to the last unit.
    let raws: Vec<Vec<u8>> =
        (0..25).map(|index| wasteful(&keys[index % 10], index as u64 / 10, 500_000, 100 - index as u128)).collect();
    for raw in &raws {
        chain.submit(raw);
    }
    chain.settle();
    let second = Arc::clone(&chain.core.heads().latest);
    assert_eq!(
        second.header.number, 2,
        "closed without their second being over; a third would be too far before the clock"
    );
    assert_eq!(second.header.gas_used, second.header.gas_limit);
    chain.advance(NS_PER_S);
    assert_eq!(chain.finish_block().header.number, 3);
    let recent = chain.core.heads();
    let placed: Vec<B256> = (1..=3).flat_map(|n| hashes(recent.recent_by_number(n).expect("recent"))).collect();
    let expected: Vec<B256> = raws.iter().map(keccak256).collect();
    assert_eq!(placed, expected);
}

#[test]
fn what_does_not_fit_is_passed_over_and_leads_the_next_block() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    let first = wasteful(&keys[0], 0, 4_500_000, 90);
    let large = wasteful(&keys[1], 0, 600_000, 80);
    let small = wasteful(&keys[2], 0, 400_000, 70);
    for raw in [&small, &large, &first] {
        chain.submit(raw);
    }
    let block = chain.finish_block();
    assert_eq!(hashes(&block), [keccak256(&first), keccak256(&small)]);
    chain.submit(&wasteful(&keys[3], 0, 400_000, 60));
    let block = chain.finish_block();
    assert_eq!(hashes(&block)[0], keccak256(&large));
    assert_eq!(block.block.transactions.len(), 2);
}

#[test]
fn unused_gas_is_there_for_others() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    for key in &keys {
        // Two million reserved, 21,000 used.
        let mut fields = DynamicFee {
            chain_id: 61_972,
            gas_limit: 2_000_000,
            max_fee_per_gas: 1_000_000_000,
            ..DynamicFee::default()
        };
        fields.to = Address::repeat_byte(1).into();
        chain.submit(&key.encode(fields));
    }
    assert_eq!(chain.finish_block().block.transactions.len(), 10);
}

#[test]
fn a_body_of_eight_mebibytes_is_full() {
    let (mut chain, keys) = chain(10_000_000_000, |_, _| {});
    let input: Bytes = vec![0; 65_000].into();
    let mut raws = Vec::new();
    for index in 0..140 {
        let raw = keys[index % 10].encode(DynamicFee {
            chain_id: 61_972,
            nonce: index as u64 / 10,
            gas_limit: 700_000,
            max_fee_per_gas: 1_000_000_000,
            max_priority_fee_per_gas: 1_000 - index as u128,
            to: Address::repeat_byte(1).into(),
            input: input.clone(),
            ..DynamicFee::default()
        });
        chain.submit(&raw);
        raws.push(keccak256(raw));
    }
    // Small enough for what is left of the first block, and worth the least.
    let small = keys[9].transfer(61_972, 14, Address::ZERO, 1);
    let full = chain.finish_block();
    chain.submit(&small);
    assert!(full.size_bytes <= limits::BLOCK_RLP_BYTES_MAX as u64);
    assert!(full.size_bytes > limits::BLOCK_RLP_BYTES_MAX as u64 - 70_000);
    assert_header(&full);
    let next = chain.finish_block();
    let placed: Vec<B256> = [hashes(&full), hashes(&next)].concat();
    assert_eq!(placed[..full.block.transactions.len()], raws[..full.block.transactions.len()]);
    assert_eq!(placed.len(), 141, "nothing was lost");
}

// ---- the header's rules --------------------------------------------------------------------------------------------------------------

#[test]
fn the_gas_limit_moves_towards_its_target_by_less_than_a_1024th() {
    for target in [4_000_000, 5_000_000, 5_003_000, 9_000_000] {
        let (mut chain, keys) = chain(5_000_000, |settings, _| settings.gas_limit_target = target);
        let mut parent: Header = chain.core.heads().latest.header.clone();
        for nonce in 0..6 {
            chain.submit(&keys[0].transfer(61_972, nonce, Address::ZERO, 1));
            let header = chain.finish_block().header.clone();
            let (before, after) = (parent.gas_limit, header.gas_limit);
            assert!(before.abs_diff(after) < before / 1_024, "{before} {after}");
            assert!(target.abs_diff(after) < target.abs_diff(before) || after == target, "{before} {after} {target}");
            parent = header;
        }
    }
}

#[test]
fn base_fees_follow_eip_1559_up_and_down() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    let mut parent: Header = chain.core.heads().latest.header.clone();
    let mut rng = StdRng::seed_from_u64(1);
    let (mut has_risen, mut has_fallen) = (false, false);
    for nonce in 0..20 {
        let gas_limit = rng.random_range(21_000..4_900_000);
        chain.submit(&wasteful(&keys[0], nonce, gas_limit, 1));
        let header = chain.finish_block().header.clone();
        let before_wei = parent.base_fee_per_gas.expect("set");
        let expected =
            calc_next_block_base_fee(parent.gas_used, parent.gas_limit, before_wei, BaseFeeParams::ethereum());
        assert_eq!(header.base_fee_per_gas, Some(expected));
        has_risen |= expected > before_wei;
        has_fallen |= expected < before_wei;
        parent = header;
    }
    assert!(has_risen && has_fallen);
}

#[test]
fn a_fee_cap_below_the_base_fee_waits_for_it_to_fall() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    let low = DynamicFee {
        chain_id: 61_972,
        gas_limit: 21_000,
        max_fee_per_gas: 500_000,
        to: Address::ZERO.into(),
        ..DynamicFee::default()
    };
    let low = keys[1].encode(low);
    chain.submit(&low);
    let mut nonce = 0;
    while chain.core.heads().next_base_fee_wei > 500_000 {
        assert_eq!(chain.settle(), NextTurn::OnMessage);
        chain.submit(&keys[0].transfer(61_972, nonce, Address::ZERO, 1));
        assert_eq!(chain.finish_block().block.transactions.len(), 1);
        nonce += 1;
    }
    assert!(nonce > 1);
    assert_eq!(hashes(&chain.finish_block()), [keccak256(&low)]);
}

#[test]
fn the_lead_says_how_far_a_chain_may_run_before_the_clock() {
    for lead_s in [0, 1, 3] {
        let (mut chain, keys) = chain(5_000_000, |settings, _| settings.timestamp_lead_s = lead_s);
        // Ten blocks full at once, while the clock stands one second after genesis.
        for key in &keys {
            chain.submit(&wasteful(key, 0, 4_990_000, 1));
        }
        let next = chain.settle();
        let tip = Arc::clone(&chain.core.heads().latest);
        let is_filling = u64::from(chain.core.heads().open.is_some());
        assert_eq!(tip.header.number + is_filling, 1 + lead_s, "one at the clock, and the lead");
        assert!(matches!(next, NextTurn::At(_)), "{next:?}");
    }
}

#[test]
fn empty_blocks_come_by_their_timer_only() {
    let (mut chain, _) = chain(5_000_000, |_, _| {});
    chain.advance(100 * NS_PER_S);
    assert_eq!(chain.settle(), NextTurn::OnMessage);
    assert_eq!(chain.core.heads().latest.header.number, 0);
    let (mut chain, _) = self::chain(5_000_000, |settings, _| settings.empty_interval_ns = 10 * NS_PER_S);
    let start_ns = chain.now.monotonic_ns;
    assert_eq!(chain.settle(), NextTurn::At(start_ns + 10 * NS_PER_S));
    chain.advance(10 * NS_PER_S - 1);
    chain.settle();
    assert_eq!(chain.core.heads().latest.header.number, 0);
    chain.advance(1);
    assert_eq!(chain.settle(), NextTurn::At(start_ns + 20 * NS_PER_S));
    let sealed = Arc::clone(&chain.core.heads().latest);
    assert_eq!((sealed.header.number, sealed.header.gas_used), (1, 0));
    assert_header(&sealed);
}

#[test]
fn without_execution_nothing_is_placed_and_everything_is_kept() {
    let (mut chain, keys) = chain(5_000_000, |settings, _| {
        settings.execute = false;
        settings.empty_interval_ns = NS_PER_S;
    });
    chain.submit(&keys[0].transfer(61_972, 0, Address::ZERO, 1));
    chain.settle();
    chain.advance(NS_PER_S);
    chain.settle();
    assert_eq!(chain.core.heads().latest.header.number, 1);
    assert_eq!(chain.core.heads().latest.block.transactions.len(), 0);
    assert_eq!(chain.core.pool.counts().ready, 1);
    assert_eq!(chain.effects.placed_count, 0);
}

// ---- ends ---------------------------------------------------------------------------------------------------------------------------

#[test]
fn ends_are_told_to_the_chain_and_to_who_waits() {
    let (mut chain, keys) = chain(5_000_000, |_, limits| limits.ready_lifetime_ns = 5 * NS_PER_S);
    // Ready, and nothing is placed.
    chain.effects.journal_room = Some(JournalRoom::Busy);
    let first = keys[0].transfer(61_972, 0, Address::ZERO, 1);
    let token = chain.submit_with(&first, SubmitWait::Preconfirmation, None);
    let replacement = keys[0].encode(DynamicFee {
        chain_id: 61_972,
        nonce: 0,
        gas_limit: 21_000,
        max_fee_per_gas: 1_100_000_000,
        max_priority_fee_per_gas: 1_100_000,
        to: Address::ZERO.into(),
        ..DynamicFee::default()
    });
    let waiting = chain.submit_with(&replacement, SubmitWait::Preconfirmation, None);
    let replaced = EndState::Replaced { by: keccak256(&replacement) };
    assert_eq!(ends(&chain), [(keccak256(&first), replaced)]);
    assert!(matches!(
        chain.effects.replies.pop(),
        Some((_, BuilderReply::Ended { token: ended, end, .. })) if ended == token && end == replaced
    ));
    chain.advance(5 * NS_PER_S);
    chain.settle();
    let expired = EndState::Expired { readiness: Readiness::Ready, waited_ns: 5 * NS_PER_S };
    assert_eq!(ends(&chain)[1..], [(keccak256(&replacement), expired)]);
    assert!(matches!(
        chain.effects.replies.pop(),
        Some((_, BuilderReply::Ended { token: ended, end, .. })) if ended == waiting && end == expired
    ));
    assert_eq!(chain.effects.freed.len(), 2);
}

#[test]
fn a_caller_that_gave_up_is_not_answered() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    chain.effects.journal_room = Some(JournalRoom::Busy);
    let raw = keys[0].transfer(61_972, 0, Address::ZERO, 1);
    let token = chain.submit_with(&raw, SubmitWait::Preconfirmation, None);
    let hash = keccak256(&raw);
    // Somebody else's token forgets nothing.
    let other = ReplyToken { request: token.request + 1, ..token };
    for token in [other, token] {
        let forget = IngressMessage::ForgetSync { token, hash };
        assert!(chain.core.pool.payload_mut(&hash).expect("pooled").waiter.is_some());
        chain.core.on_message(ShardId(0), forget, chain.now, &mut chain.effects).expect("no read");
    }
    chain.effects.journal_room = None;
    assert_eq!(chain.finish_block().block.transactions.len(), 1, "the transaction itself goes on");
    assert!(chain.effects.replies.is_empty());
}

/// EIP-7966: who waits for a place is told at once that there is none yet; the transaction stays pooled.
#[test]
fn a_caller_that_would_wait_in_vain_is_told_why() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    let cheap = DynamicFee {
        chain_id: 61_972,
        gas_limit: 21_000,
        max_fee_per_gas: 500_000,
        to: Address::ZERO.into(),
        ..DynamicFee::default()
    };
    let reasons = [
        (keys[0].transfer(61_972, 3, Address::ZERO, 1), Unready::NonceGap { tx: 3, next: 0 }),
        (
            keys[1].encode(cheap),
            Unready::FeeCapBelowBaseFee { fee_cap_wei: 500_000, base_fee_wei: chain.core.pool.base_fee_wei() },
        ),
    ];
    for (raw, expected) in reasons {
        let token = chain.submit_with(&raw, SubmitWait::Preconfirmation, None);
        let Some((_, BuilderReply::Unready { token: told, hash, reason, gate })) = chain.effects.replies.pop() else {
            panic!("no answer");
        };
        assert_eq!((told, hash, reason, gate), (token, keccak256(&raw), expected, chain.core.sequence()));
        assert!(chain.core.pool.contains(&hash));
    }
}

#[test]
fn a_waiting_caller_gets_a_place_or_a_refusal() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    let raw = keys[0].transfer(61_972, 0, Address::ZERO, 1);
    let token = chain.submit_with(&raw, SubmitWait::Preconfirmation, None);
    assert!(chain.effects.replies.is_empty(), "admission is no answer");
    chain.settle();
    let Some((_, BuilderReply::Preconfirmed { token: placed, block, index, gate })) = chain.effects.replies.pop()
    else {
        panic!("no place");
    };
    assert_eq!((placed, index, block.context.number), (token, 0, 1));
    assert_eq!(block.transactions.get(0).expect("published").sequence, gate);
    assert!(chain.core.heads().open.as_ref().is_some_and(|open| Arc::ptr_eq(open, &block)));
    chain.submit_with(&raw, SubmitWait::Preconfirmation, None);
    assert_eq!(last_refusal(&chain), Some(Refusal::Pool(Reject::AlreadyKnown)));
}

#[test]
fn who_is_drained_by_another_transaction_loses_what_waits() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    let victim = keys[3];
    // The victim's account forwards calls: anyone may send its balance away.
    let delegation = Authorization { chain_id: U256::from(61_972), address: FORWARD, nonce: 0 };
    chain.submit(&keys[1].encode(SetCode {
        chain_id: 61_972,
        gas_limit: 200_000,
        max_fee_per_gas: 1_000_000_000,
        to: Address::ZERO,
        authorization_list: vec![victim.authorize(delegation)],
        ..SetCode::default()
    }));
    chain.finish_block();
    let waiting = keys[3].transfer(61_972, 1, Address::ZERO, 1_000 * ETHER_WEI);
    chain.submit(&waiting);
    let balance = U256::from(9_999 * ETHER_WEI);
    chain.submit(&keys[2].encode(DynamicFee {
        chain_id: 61_972,
        gas_limit: 200_000,
        max_fee_per_gas: 1_000_000_000,
        max_priority_fee_per_gas: 5_000_000,
        to: victim.address.into(),
        input: bytecode::words(&[keys[2].address.into_word().into(), balance]),
        ..DynamicFee::default()
    }));
    let sealed = chain.finish_block();
    assert_eq!(sealed.block.transactions.len(), 1);
    let (hash, end) = ends(&chain)[0];
    assert_eq!(hash, keccak256(&waiting));
    assert!(matches!(end, EndState::Invalidated(Invalid::InsufficientFunds { .. })), "{end:?}");
    assert_eq!(chain.effects.freed.len(), 3);
}

#[test]
fn a_nonce_that_an_authorization_used_up_ends_its_transaction() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    let stale = keys[3].transfer(61_972, 0, Address::ZERO, 1);
    chain.submit(&stale);
    let delegation = Authorization { chain_id: U256::ZERO, address: FORWARD, nonce: 0 };
    chain.submit(&keys[1].encode(SetCode {
        chain_id: 61_972,
        gas_limit: 200_000,
        max_fee_per_gas: 1_000_000_000,
        max_priority_fee_per_gas: 5_000_000,
        to: Address::ZERO,
        authorization_list: vec![keys[3].authorize(delegation)],
        ..SetCode::default()
    }));
    assert_eq!(chain.finish_block().block.transactions.len(), 1);
    let end = EndState::Invalidated(Invalid::NonceTooLow { tx: 0, account: 1 });
    assert_eq!(ends(&chain), [(keccak256(&stale), end)]);
}

#[test]
fn a_full_pool_evicts_what_only_waits_for_a_nonce() {
    let (mut chain, keys) = chain(5_000_000, |_, limits| limits.transactions_max = 2);
    let gapped = keys[0].transfer(61_972, 5, Address::ZERO, 1);
    chain.submit(&gapped);
    chain.submit(&keys[1].transfer(61_972, 0, Address::ZERO, 1));
    chain.submit(&wasteful(&keys[2], 0, 100_000, 1_000_001));
    let end = EndState::Evicted { tip_wei: 1_000_000, newcomer_tip_wei: 1_000_001 };
    assert_eq!(ends(&chain), [(keccak256(&gapped), end)]);
    assert_eq!(chain.finish_block().block.transactions.len(), 2);
}

#[test]
fn admission_stops_while_the_chain_thread_has_no_room_for_an_end() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    chain.effects.chain_room = limits::CHAIN_RING_RESERVE + 1;
    chain.submit(&keys[0].transfer(61_972, 0, Address::ZERO, 1));
    assert_eq!(last_refusal(&chain), None);
    chain.submit(&keys[1].transfer(61_972, 0, Address::ZERO, 1));
    assert_eq!(last_refusal(&chain), Some(Refusal::ChainBehind));
    assert_eq!(chain.effects.freed.len(), 1);
    chain.finish_block();
    chain.submit(&keys[1].transfer(61_972, 0, Address::ZERO, 1));
    assert_eq!(last_refusal(&chain), None, "the pool is empty again");
}

#[test]
fn a_drain_places_what_is_ready_and_refuses_the_rest() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    for nonce in 0..30 {
        chain.submit(&wasteful(&keys[0], nonce, 1_000_000, 1));
    }
    let until_ns = chain.now.monotonic_ns + 5 * NS_PER_S;
    chain.core.drain(until_ns);
    chain.submit(&keys[1].transfer(61_972, 0, Address::ZERO, 1));
    assert_eq!(last_refusal(&chain), Some(Refusal::Draining));
    let mut last = chain.settle();
    for _ in 0..10 {
        if last == NextTurn::Drained {
            break;
        }
        chain.advance(NS_PER_S);
        last = chain.settle();
    }
    assert_eq!(last, NextTurn::Drained);
    let placed = chain.effects.placed_count;
    assert_eq!(placed, 30 - u64::from(chain.core.pool.counts().ready));
    assert!(chain.core.pool.best().is_none() || chain.now.monotonic_ns >= until_ns);
    assert!(chain.core.heads().open.is_none());
}

// ---- reads --------------------------------------------------------------------------------------------------------------------------

#[test]
fn pending_reads_see_the_open_block_and_the_pool() {
    let (mut chain, keys) = chain(5_000_000, |_, _| {});
    let call = |nonce| {
        keys[0].encode(DynamicFee {
            chain_id: 61_972,
            nonce,
            gas_limit: 100_000,
            max_fee_per_gas: 1_000_000_000,
            to: STORE.into(),
            value: U256::from(7),
            input: bytecode::words(&[3, 9].map(U256::from)),
            ..DynamicFee::default()
        })
    };
    let (placed, gapped) = (call(0), call(2));
    chain.submit(&placed);
    chain.settle();
    chain.submit(&gapped);
    assert_eq!(
        chain.read(BuilderRead::Slot { address: STORE, slot: U256::from(3) }),
        BuilderAnswer::Slot(U256::from(9))
    );
    let code = bytecode::store(Ending::Stop).into();
    let store = BuilderAnswer::Account { nonce: 0, pool_nonce: 0, balance_wei: U256::from(7), code };
    assert_eq!(chain.read(BuilderRead::Account { address: STORE }), store);
    let BuilderAnswer::Account { nonce, pool_nonce, .. } =
        chain.read(BuilderRead::Account { address: keys[0].address })
    else {
        panic!("another answer");
    };
    assert_eq!((nonce, pool_nonce), (1, 1), "behind a gap nothing counts");
    let (hash, accepted_unix_ns) = (keccak256(&gapped), chain.now.unix_ns);
    let queued = BuilderAnswer::Status(Some(LiveStatus::Queued { accepted_unix_ns }));
    assert_eq!(chain.read(BuilderRead::Status { hash }), queued);
    let pooled = PooledTx { raw: gapped.clone().into(), sender: keys[0].address };
    assert_eq!(chain.read(BuilderRead::Transaction { hash }), BuilderAnswer::Transaction(Some(pooled)));
    let status = BuilderAnswer::PoolStatus { ready_count: 0, queued_count: 1, bytes: gapped.len() as u64 };
    assert_eq!(chain.read(BuilderRead::PoolStatus), status);
    let hash = keccak256(&placed);
    assert_eq!(chain.read(BuilderRead::Transaction { hash }), BuilderAnswer::Transaction(None));
    let place =
        LiveStatus::Placed { block_number: 1, index: 0, accepted_unix_ns, preconfirmed_unix_ns: accepted_unix_ns };
    assert_eq!(chain.read(BuilderRead::Status { hash }), BuilderAnswer::Status(Some(place)));
    assert_eq!(chain.core.heads().latest.state.storage(&STORE, U256::from(3)).expect("readable"), U256::ZERO);
    chain.finish_block();
    assert_eq!(chain.read(BuilderRead::Status { hash }), BuilderAnswer::Status(None), "the chain database knows it");
}

// ---- everything once ----------------------------------------------------------------------------------------------------------------

#[test]
fn every_chunk_comes_home_once_and_every_admitted_transaction_ends_once() {
    for seed in 0..6 {
        let (mut chain, keys) = chain(5_000_000, |_, limits| {
            limits.transactions_max = 60;
            limits.gap_lifetime_ns = 4 * NS_PER_S;
            limits.ready_lifetime_ns = 9 * NS_PER_S;
        });
        let mut rng = StdRng::seed_from_u64(seed);
        let mut submitted: HashMap<B256, ReplyToken> = HashMap::new();
        let mut chunk_count = 0;
        let mut placed: Vec<B256> = Vec::new();
        let mut seen_number = 0;
        for step in 0..1_500_u64 {
            let key = keys[rng.random_range(0..10)];
            let next = chain.core.pool.pending_nonce(&key.address);
            let nonce =
                next.unwrap_or_else(|| chain.core.executor.world().peek_account(key.address).expect("readable").nonce);
            let nonce = (nonce + rng.random_range(0..5)).saturating_sub(2);
            let raw =
                wasteful(&key, nonce, rng.random_range(21_000..900_000), u128::from(rng.random_range(1..900_000_u32)));
            let unmet = Conditions { block_number_min: Some(rng.random_range(0..40)), ..Conditions::default() };
            let conditions = rng.random_ratio(1, 8).then_some(unmet);
            let hash = keccak256(&raw);
            let token = chain.submit_with(&raw, SubmitWait::Preconfirmation, conditions);
            chunk_count += 1;
            submitted.entry(hash).or_insert(token);
            if rng.random_ratio(1, 5) {
                chain.settle();
            }
            if step % 20 == 19 {
                chain.advance(rng.random_range(1..2 * NS_PER_S));
                chain.settle();
            }
        }
        for _ in 0..60 {
            chain.advance(NS_PER_S);
            chain.settle();
        }
        let heads = chain.core.heads();
        for block in heads.recent.iter().filter(|block| block.header.number > seen_number) {
            placed.extend(hashes(block));
        }
        seen_number = heads.latest.header.number;
        assert!(seen_number < limits::RECENT_BLOCKS_MAX as u64, "all blocks are still in memory");
        let counts = chain.core.pool.counts();
        assert_eq!((counts.ready, counts.queued), (0, 0), "everything was placed or expired");
        assert_eq!(chain.effects.freed.len(), chunk_count, "seed {seed}");
        let mut answers: HashMap<ReplyToken, u32> = HashMap::new();
        for (_, reply) in &chain.effects.replies {
            let (BuilderReply::Preconfirmed { token, .. }
            | BuilderReply::Unready { token, .. }
            | BuilderReply::Ended { token, .. }
            | BuilderReply::Refused { token, .. }) = reply
            else {
                panic!("another reply");
            };
            *answers.entry(*token).or_default() += 1;
        }
        assert_eq!(answers.len(), chunk_count);
        assert!(answers.values().all(|count| *count == 1));
        let ended: Vec<B256> = ends(&chain).into_iter().map(|(hash, _)| hash).collect();
        assert!(!ended.is_empty() && !placed.is_empty());
        assert!(placed.iter().chain(&ended).all(|hash| submitted.contains_key(hash)));
        let distinct: std::collections::HashSet<B256> = placed.iter().copied().collect();
        assert_eq!(distinct.len(), placed.len());
        // Chunks are really free again: each one names another place than every other.
        chain.free_chunks();
    }
}
