//! Rows: what is sent, and what the pool says. Then life in the pool.

use super::*;
use crate::dev_l1::config::L1_CHAIN_ID;
use crate::l1::execute_tx::{Payload, Signature, Terms};
use crate::l1::profile::Profile;
use crate::primitives::Bytes;
use crate::testing::signing::{DynamicFee, Legacy, TestKey};

const GWEI: u128 = 1_000_000_000;

fn tip() -> Tip {
    Tip {
        chain_id: L1_CHAIN_ID,
        fork: L1Fork::Osaka,
        gas_limit: 600_000_000,
        account_nonce: 5,
        account_balance_wei: U256::from(10).pow(U256::from(18)),
    }
}

fn plain() -> DynamicFee {
    DynamicFee {
        chain_id: L1_CHAIN_ID,
        nonce: 5,
        gas_limit: 21_000,
        max_fee_per_gas: 100 * GWEI,
        max_priority_fee_per_gas: 10 * GWEI,
        to: Address::ZERO.into(),
        ..DynamicFee::default()
    }
}

fn signed(tx: DynamicFee) -> L1Tx {
    L1Tx::recover(TestKey::nth(1).encode(tx).into(), L1Fork::Osaka).expect("a transaction")
}

/// An ExecuteTx with so much witness.
fn execute(witness_bytes: usize, gas: u64) -> L1Tx {
    let payload = Payload { witness: Bytes::from(vec![1; witness_bytes]), ..Payload::default() };
    let terms = Terms {
        chain_id: U256::from(L1_CHAIN_ID),
        nonce: 5,
        tip_cap_wei: U256::from(GWEI),
        fee_cap_wei: U256::from(GWEI),
        gas,
    };
    let encoded = payload.encoded(Profile::ExecuteTxV2);
    let signature = TestKey::nth(1).sign(encoded.signing_hash(&terms));
    let signature = Signature { odd_y: signature.v(), r: signature.r(), s: signature.s() };
    L1Tx::recover(encoded.encode(&terms, &signature), L1Fork::Osaka).expect("an ExecuteTx")
}

#[track_caller]
fn check(tx: L1Tx, expected: &str) {
    let said = match Pool::default().add(tx, &tip()) {
        Ok(_) => "ok".to_owned(),
        Err(refusal) => refusal.to_string(),
    };
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn each_rule_refuses_with_both_numbers() {
    check(signed(plain()), "ok");
    check(
        signed(DynamicFee { chain_id: 1, ..plain() }),
        "invalid sender: invalid chain id for signer: have 1 want 61971",
    );
    check(
        signed(DynamicFee { gas_limit: 20_999, ..plain() }),
        "intrinsic gas too low: gas 20999, minimum needed 21000",
    );
    // Two zero bytes are priced at 8, and at 20 by the floor.
    let input = Bytes::from_static(&[0, 0]);
    check(signed(DynamicFee { gas_limit: 21_020, input: input.clone(), ..plain() }), "ok");
    check(
        signed(DynamicFee { gas_limit: 21_019, input, ..plain() }),
        "intrinsic gas too low: gas 21019, minimum needed 21020",
    );
    let cheap = DynamicFee { max_fee_per_gas: 1, max_priority_fee_per_gas: 1, ..plain() };
    check(signed(DynamicFee { gas_limit: 16_777_216, ..cheap.clone() }), "ok");
    check(
        signed(DynamicFee { gas_limit: 16_777_217, ..cheap.clone() }),
        "transaction gas limit too high (cap: 16777216, tx: 16777217)",
    );
    check(signed(DynamicFee { gas_limit: 600_000_001, ..cheap.clone() }), "exceeds block gas limit");
    check(
        signed(DynamicFee { max_priority_fee_per_gas: 0, ..cheap }),
        "transaction underpriced: gas tip cap 0, minimum needed 1",
    );
    check(signed(DynamicFee { nonce: 4, ..plain() }), "nonce too low: next nonce 5, tx nonce 4");
    check(signed(DynamicFee { nonce: 9, ..plain() }), "ok");
    let dear = |price: u128| DynamicFee { gas_limit: 1_000_000, max_fee_per_gas: price, ..plain() };
    check(signed(dear(1_000 * GWEI)), "ok");
    check(signed(dear(1_000 * GWEI + 1)), "tx fee (1000000000001000000 wei) exceeds the configured cap");
    check(
        signed(DynamicFee { value: U256::from(10).pow(U256::from(18)), ..plain() }),
        "insufficient funds for gas * price + value: balance 1000000000000000000",
    );
    let unprotected =
        TestKey::nth(1).encode(Legacy { gas_limit: 21_000, gas_price: GWEI, nonce: 5, ..Legacy::default() });
    check(L1Tx::recover(unprotected.into(), L1Fork::Osaka).expect("a transaction"), "only replay-protected");
}

/// The gap between pool and block, kept on purpose: data alone is priced here.
#[test]
fn execute_transactions_are_priced_by_data_and_bounded_by_size() {
    check(execute(1_000, 21_000), "ok");
    check(execute(1_000, 20_999), "intrinsic gas too low: gas 20999, minimum needed 21000");
    let overhead = execute(130_000, 21_000).raw.len() - 130_000;
    check(execute(131_072 - overhead, 21_000), "ok");
    let over = execute(131_072 - overhead + 1, 21_000);
    check(over, "oversized data: transaction size 131073, limit 131072");
}

#[test]
fn a_replacement_pays_a_tenth_more_of_both_fees() {
    for (fee, tip_cap, is_taken) in
        [(110, 11, true), (109, 11, false), (110, 10, false), (200, 10, false), (100, 10, false)]
    {
        let mut pool = Pool::default();
        let first = pool.add(signed(plain()), &tip()).expect("room");
        let fees = DynamicFee {
            max_fee_per_gas: fee * GWEI,
            max_priority_fee_per_gas: tip_cap * GWEI,
            value: U256::ONE,
            ..plain()
        };
        let second = pool.add(signed(fees), &tip());
        assert_eq!(second.is_ok(), is_taken, "{fee} {tip_cap}: {second:?}");
        assert_eq!(pool.get(&first).is_none(), is_taken);
        assert_eq!((pool.len(), pool.slots), (1, 1));
    }
    let mut pool = Pool::default();
    pool.add(signed(plain()), &tip()).expect("room");
    assert_eq!(pool.add(signed(plain()), &tip()), Err(Refusal::Known));
}

#[test]
fn funds_are_counted_over_all_of_a_sender() {
    let mut pool = Pool::default();
    let half = U256::from(5 * 10_u64.pow(17));
    pool.add(signed(DynamicFee { value: half, ..plain() }), &tip()).expect("half is there");
    let next = pool.add(signed(DynamicFee { nonce: 6, value: half, ..plain() }), &tip());
    assert!(matches!(next, Err(Refusal::Funds { .. })), "{next:?}");
}

#[test]
fn gaps_wait_and_are_bounded() {
    let mut pool = Pool::default();
    let sender = TestKey::nth(1).address;
    let rich = Tip { account_balance_wei: U256::MAX, ..tip() };
    for nonce in 7..7 + QUEUED_PER_SENDER_MAX as u64 {
        pool.add(signed(DynamicFee { nonce, ..plain() }), &rich).expect("room in the queue");
    }
    assert_eq!(pool.next_nonce(&sender, 5), 5);
    let over = pool.add(signed(DynamicFee { nonce: 200, ..plain() }), &rich);
    assert!(matches!(over, Err(Refusal::Queued { queued: 64, queued_max: 64 })), "{over:?}");
    pool.add(signed(plain()), &rich).expect("what is next has room");
    assert_eq!(pool.next_nonce(&sender, 5), 6);
    pool.add(signed(DynamicFee { nonce: 6, ..plain() }), &rich).expect("it closes the gap");
    assert_eq!(pool.next_nonce(&sender, 5), 71);
    pool.settle(&sender, 70);
    assert_eq!((pool.len(), pool.slots, pool.next_nonce(&sender, 70)), (1, 1, 71));
    pool.settle(&sender, 71);
    assert!(pool.is_empty() && pool.senders().is_empty() && pool.slots == 0);
}

#[test]
fn faults_swallow_and_delay() {
    let mut pool = Pool::default();
    let (tx, other) = (signed(plain()), signed(DynamicFee { value: U256::ONE, ..plain() }));
    assert!(pool.swallow(tx.hash));
    assert_eq!(pool.add(tx.clone(), &tip()), Ok(tx.hash), "it is said to be taken");
    assert!(pool.is_empty());
    pool.restore([tx]);
    assert!(pool.is_empty());
    pool.delay(other.hash, 9);
    pool.add(other.clone(), &tip()).expect("room");
    assert_eq!(pool.at(&other.sender, 5).map(|waiting| waiting.from_block), Some(9));
    pool.delay(other.hash, 12);
    assert_eq!(pool.at(&other.sender, 5).map(|waiting| waiting.from_block), Some(12));
    assert_eq!(pool.remove(&other.hash).map(|tx| tx.hash), Some(other.hash));
    assert!(pool.is_empty() && pool.slots == 0);
}
