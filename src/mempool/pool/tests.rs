//! Both sides of every check of admission, in text; and what a caller may rely on in order.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use alloy_primitives::{Address, U256, keccak256};

use super::*;
use crate::mempool::{Class, PriorityFee};
use crate::primitives::{Span, TxType};

pub(super) fn address(index: u8) -> Address {
    Address::with_last_byte(index + 1)
}

/// A plain transfer with its own hash.
pub(in crate::mempool) fn submission(
    sender: u8,
    nonce: u64,
    max_fee_per_gas_wei: u128,
    max_priority_fee_per_gas_wei: u128,
) -> Submission<u64> {
    let fields = TxFields {
        value_wei: U256::ZERO,
        max_fee_per_gas_wei,
        max_priority_fee_per_gas_wei,
        nonce,
        gas_limit: 21_000,
        chain_id: Some(1),
        input: Span::default(),
        access_list: Span::default(),
        authorization_list: Span::default(),
        access_list_address_count: 0,
        access_list_slot_count: 0,
        authorization_count: 0,
        input_zero_bytes: 0,
        to: Some(Address::ZERO),
        tx_type: TxType::DynamicFee,
    };
    let hash = keccak256(format!("{sender} {nonce} {max_fee_per_gas_wei} {max_priority_fee_per_gas_wei}"));
    Submission {
        hash,
        sender: address(sender),
        fields,
        encoded_bytes: 110,
        intrinsic_gas: 21_000,
        floor_gas: 21_000,
        authorities: None,
        conditions: None,
        payload: 0,
    }
}

pub(super) const ACCOUNT: AccountView = AccountView {
    balance_wei: U256::from_limbs([10_000_000, 0, 0, 0]),
    nonce: 5,
    has_code_not_delegation: false,
    is_delegated: false,
};

/// The defaults without a floor under the fee cap.
pub(super) fn free_limits() -> Limits {
    Limits { fee_cap_wei_min: 0, ..Limits::new(1, 30_000_000) }
}

/// One admission: account at nonce 5 (sealed 3) with 10,000,000 wei; a transfer of nonce 5 that costs 2,100,000 wei.
struct Case {
    limits: Limits,
    account: AccountView,
    sealed_nonce: u64,
    /// Admitted before, from accounts like `ACCOUNT`.
    pooled: Vec<Submission<u64>>,
    tx: Submission<u64>,
}

impl Case {
    fn new() -> Self {
        let limits = Limits { transactions_max: 4, bytes_max: 1_000, ..free_limits() };
        Self { limits, account: ACCOUNT, sealed_nonce: 3, pooled: vec![], tx: submission(0, 5, 100, 10) }
    }

    fn run(self) -> (String, Option<Class>) {
        let mut pool = Mempool::new(self.limits, Box::new(PriorityFee), 1, 7);
        let mut removed = vec![];
        for tx in self.pooled {
            pool.admit(tx, &ACCOUNT, 3, 0, &mut removed).unwrap();
        }
        assert_eq!(removed, []);
        match pool.admit(self.tx, &self.account, self.sealed_nonce, 0, &mut removed) {
            Err(reject) => {
                assert_eq!(removed.last().unwrap().end, EndState::Rejected(reject));
                (reject.to_string(), Some(reject.class()))
            }
            Ok(admission) => {
                let mut text = format!("{:?}", admission.readiness).to_lowercase();
                for removed in removed {
                    text = format!("{text}; {}", removed.end.to_string().split(' ').next().unwrap());
                }
                (text, None)
            }
        }
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Case), expected: &str) {
    let mut case = Case::new();
    change(&mut case);
    assert_eq!(case.run().0, expected);
}

#[track_caller]
fn check_class(change: impl FnOnce(&mut Case), expected: Class) {
    let mut case = Case::new();
    change(&mut case);
    assert_eq!(case.run().1, Some(expected));
}

#[test]
fn chain_id() {
    check(|_| {}, "ready");
    check(|case| case.tx.fields.chain_id = Some(2), "wrong chain id: tx 2, chain 1");
    check(|case| case.tx.fields.chain_id = None, "only replay-protected (EIP-155) transactions are accepted");
    check(|case| (case.tx.fields.chain_id, case.limits.unprotected_allowed) = (None, true), "ready");
}

#[test]
fn known() {
    check(|case| case.pooled = vec![case.tx.clone()], "already known");
    check(|case| case.pooled = vec![submission(1, 5, 100, 10)], "ready");
}

#[test]
fn size_and_init_code() {
    check(|case| (case.limits.transaction_bytes_max, case.tx.encoded_bytes) = (200, 200), "ready");
    check(
        |case| (case.limits.transaction_bytes_max, case.tx.encoded_bytes) = (200, 201),
        "transaction too large: tx 201 bytes, limit 200",
    );
    let creation = |bytes: u32| {
        move |case: &mut Case| {
            case.tx.fields.to = None;
            case.tx.fields.input.len = bytes;
        }
    };
    check(creation(49_152), "ready");
    check(creation(49_153), "max initcode size exceeded: tx 49153, limit 49152");
    // Only creations have init code.
    check(|case| case.tx.fields.input.len = 49_153, "ready");
}

#[test]
fn fees() {
    check(|case| case.tx = submission(0, 5, 100, 100), "ready");
    check(
        |case| case.tx = submission(0, 5, 100, 101),
        "max priority fee per gas higher than max fee per gas: tip 101, fee cap 100",
    );
    check(|case| case.limits.tip_wei_min = 10, "ready");
    check(|case| case.limits.tip_wei_min = 11, "transaction underpriced: tip 10, minimum 11");
    check(|case| case.limits.fee_cap_wei_min = 100, "ready");
    check(|case| case.limits.fee_cap_wei_min = 101, "transaction underpriced: fee cap 100, minimum 101");
    // The base fee is 50: below it the transaction waits, it is not refused.
    check(|case| case.tx = submission(0, 5, 49, 10), "ready");
}

#[test]
fn gas() {
    let gas = |gas: u64| {
        move |case: &mut Case| {
            case.tx.fields.gas_limit = gas;
            case.account.balance_wei = U256::MAX;
        }
    };
    check(gas(20_999), "intrinsic gas too low: tx 20999, minimum 21000");
    check(gas(16_777_216), "ready");
    check(gas(16_777_217), "transaction gas limit too high: tx 16777217, cap 16777216");
    check(|case| (case.limits.block_gas_limit, case.tx.floor_gas) = (21_000, 21_000), "ready");
    check(|case| case.limits.block_gas_limit = 20_999, "exceeds block gas limit: tx 21000, block 20999");
    check(|case| case.tx.floor_gas = 21_001, "insufficient gas for floor data gas cost: tx 21000, minimum 21001");
}

#[test]
fn set_code_shape() {
    let set_code = |count: u32, to: Option<Address>| {
        move |case: &mut Case| {
            case.tx.fields.tx_type = TxType::SetCode;
            case.tx.fields.authorization_count = count;
            case.tx.fields.to = to;
        }
    };
    check(set_code(1, Some(Address::ZERO)), "ready");
    check(set_code(0, Some(Address::ZERO)), "set code transaction with empty authorization list");
    check(set_code(1, None), "set code transaction must not be a create transaction");
}

#[test]
fn nonce() {
    let nonce = |nonce: u64| move |case: &mut Case| case.tx.fields.nonce = nonce;
    check(nonce(2), "nonce too low: tx 2, account 5");
    check(nonce(3), "already preconfirmed: tx nonce 3, open block account nonce 5");
    check(nonce(4), "already preconfirmed: tx nonce 4, open block account nonce 5");
    check(nonce(5), "ready");
    check(nonce(6), "queued");
    check(nonce(69), "queued");
    check(nonce(70), "nonce too high: tx 70, next 5, gap limit 64");
    check(nonce(u64::MAX - 1), "nonce too high: tx 18446744073709551614, next 5, gap limit 64");
    check(nonce(u64::MAX), "nonce has max value: tx 18446744073709551615");
    check(|case| (case.sealed_nonce, case.tx.fields.nonce) = (5, 4), "nonce too low: tx 4, account 5");
    let last = AccountView { nonce: u64::MAX - 1, ..ACCOUNT };
    check(|case| (case.account, case.tx.fields.nonce) = (last, u64::MAX - 1), "ready");
    // The gap counts from the end of what is ready, and the filler makes the rest ready.
    check(|case| (case.pooled, case.tx) = (vec![submission(0, 5, 1, 1)], submission(0, 70, 1, 1)), "queued");
    check(
        |case| (case.pooled, case.tx) = (vec![submission(0, 5, 1, 1)], submission(0, 71, 1, 1)),
        "nonce too high: tx 71, next 6, gap limit 64",
    );
}

#[test]
fn code_at_sender() {
    check(|case| case.account.has_code_not_delegation = true, &format!("sender not an eoa: {} has code", address(0)));
    check(|case| case.account.is_delegated = true, "ready");
}

#[test]
fn funds_for_everything_queued() {
    let balance = |wei: u64| move |case: &mut Case| case.account.balance_wei = U256::from(wei);
    check(balance(2_100_000), "ready");
    check(
        balance(2_099_999),
        "insufficient funds for gas * price + value: cost of everything pooled 2100000, balance 2099999",
    );
    check(|case| case.tx.fields.value_wei = U256::from(7_900_000), "ready");
    check(
        |case| case.tx.fields.value_wei = U256::from(7_900_001),
        "insufficient funds for gas * price + value: cost of everything pooled 10000001, balance 10000000",
    );
    // One of 4,200,000 wei is pooled already.
    let second = |value: u64| {
        move |case: &mut Case| {
            case.pooled = vec![submission(0, 5, 200, 10)];
            case.tx = submission(0, 6, 100, 10);
            case.tx.fields.value_wei = U256::from(value);
        }
    };
    check(second(3_700_000), "ready");
    check(
        second(3_700_001),
        "insufficient funds for gas * price + value: cost of everything pooled 10000001, balance 10000000",
    );
    // A replacement frees what it replaces: 400 × 21,000 instead of 200 × 21,000.
    check(
        |case| (case.pooled, case.tx) = (vec![submission(0, 5, 200, 10)], submission(0, 5, 400, 20)),
        "ready; replaced",
    );
    let overflow = "insufficient funds for gas * price + value: cost of everything pooled \
                    115792089237316195423570985008687907853269984665640564039457584007913129639935, balance 10000000";
    check(|case| case.tx.fields.value_wei = U256::MAX, overflow);
    check(
        |case| {
            case.pooled = vec![submission(0, 5, 1, 1)];
            case.tx = submission(0, 6, 0, 0);
            case.tx.fields.value_wei = U256::MAX;
        },
        overflow,
    );
}

#[test]
fn replacement() {
    let replace = |max_fee: u128, tip: u128| {
        move |case: &mut Case| {
            (case.pooled, case.tx) = (vec![submission(0, 5, 100, 10)], submission(0, 5, max_fee, tip))
        }
    };
    check(replace(110, 11), "ready; replaced");
    check(replace(109, 11), "replacement transaction underpriced: fee cap 109, minimum 110");
    check(replace(110, 10), "replacement transaction underpriced: tip 10, minimum 11");
    check(
        |case| (case.pooled, case.tx) = (vec![submission(0, 7, 100, 10)], submission(0, 7, 110, 11)),
        "queued; replaced",
    );
    check(
        |case| {
            case.limits.per_sender_max = 1;
            replace(110, 11)(case);
        },
        "ready; replaced",
    );
    check(
        |case| {
            case.limits.transactions_max = 1;
            replace(110, 11)(case);
        },
        "ready; replaced",
    );
}

#[test]
fn delegated_accounts() {
    let delegated = AccountView { is_delegated: true, ..ACCOUNT };
    check(
        |case| (case.account, case.tx) = (delegated, submission(0, 6, 1, 1)),
        "gapped-nonce tx from delegated accounts: tx 6, account 5",
    );
    let second = |case: &mut Case| {
        (case.account, case.pooled, case.tx) = (delegated, vec![submission(0, 5, 1, 1)], submission(0, 6, 1, 1));
    };
    check(second, "in-flight transaction limit reached for delegated accounts: pooled 1, limit 1");
    check(
        |case| {
            second(case);
            case.tx = submission(0, 5, 2, 2);
        },
        "ready; replaced",
    );
    // An authorization in the pool counts as a delegation.
    let authorized = |authority: u8, nonce: u64| {
        move |case: &mut Case| {
            let mut other = submission(1, 5, 1, 1);
            other.authorities = Some(Box::new([address(authority)]));
            case.pooled = vec![other, submission(0, 5, 1, 1)];
            case.tx = submission(0, nonce, 2, 2);
        }
    };
    check(authorized(2, 6), "ready");
    check(authorized(0, 6), "in-flight transaction limit reached for delegated accounts: pooled 1, limit 1");
    check(authorized(0, 5), "ready; replaced");
}

#[test]
fn authorities() {
    let authorize = |pooled_count: u64, authorities_max: u32| {
        move |case: &mut Case| {
            case.pooled = (0..pooled_count).map(|index| submission(1, 5 + index, 1, 1)).collect();
            case.tx.authorities = Some(Box::new([address(1)]));
            case.limits.authorities_max = authorities_max;
        }
    };
    check(authorize(0, 1), "ready");
    check(authorize(1, 1), "ready");
    check(authorize(2, 1), &format!("authority already reserved: {} has 2 pooled, limit 1", address(1)));
    check(authorize(0, 0), "too many pooled authorizations: 0, limit 0");
}

#[test]
fn the_last_quarter_is_for_those_who_can_pay_the_base_fee() {
    let admit = |pooled: u8, fee_cap_wei: u128| {
        let limits = Limits { transactions_max: 4, ..free_limits() };
        let mut pool = pool(limits, 50);
        let mut removed = vec![];
        for sender in 1..=pooled {
            pool.admit(submission(sender, 5, 50, 1), &ACCOUNT, 3, 0, &mut removed).unwrap();
        }
        pool.admit(submission(0, 5, fee_cap_wei, 1), &ACCOUNT, 3, 0, &mut removed).map(|admission| admission.readiness)
    };
    assert_eq!(admit(2, 49), Ok(Readiness::Ready));
    assert_eq!(admit(3, 50), Ok(Readiness::Ready));
    assert_eq!(admit(3, 49), Err(Reject::UnpayableWhileCrowded { tx_wei: 49, base_fee_wei: 50 }));
}

#[test]
fn caps() {
    let queue =
        |count: u8, nonce: u64, tip: u128| (1..=count).map(move |sender| submission(sender, nonce, 20, tip)).collect();
    check(|case| case.pooled = queue(3, 5, 1), "ready");
    check(|case| case.pooled = queue(4, 5, 1), "txpool is full: 4 transactions, limit 4");
    check(|case| case.pooled = queue(4, 6, 9), "ready; evicted");
    check(|case| case.pooled = queue(4, 6, 10), "txpool is full: tip 10, needs more than 10");
    // 440 of 1,000 bytes are pooled.
    let bytes = |nonce: u64, bytes: u32| {
        move |case: &mut Case| {
            case.limits.transactions_max = 100;
            case.pooled = (1..=4).map(|sender| submission(sender, nonce, 20, 1)).collect();
            case.tx.encoded_bytes = bytes;
        }
    };
    check(bytes(5, 560), "ready");
    check(bytes(5, 561), "txpool is full: 440 bytes, limit 1000");
    check(bytes(6, 561), "ready; evicted");
    check(bytes(6, 780), "ready; evicted; evicted");
    check(bytes(6, 1_001), "txpool is full: 0 bytes, limit 1000");
    check(
        |case| (case.limits.per_sender_max, case.pooled, case.tx) = (2, queue(1, 5, 1), submission(1, 6, 1, 1)),
        "ready",
    );
    check(
        |case| (case.limits.per_sender_max, case.pooled, case.tx) = (1, queue(1, 5, 1), submission(1, 6, 1, 1)),
        "too many transactions of this sender: pooled 1, limit 1",
    );
    let conditional = |limit: u32| {
        move |case: &mut Case| {
            case.limits.conditionals_max = limit;
            case.tx.conditions = Some(Box::default());
        }
    };
    check(conditional(1), "ready");
    check(conditional(0), "too many conditional transactions: pooled 0, limit 0");
}

#[test]
fn classes() {
    check_class(|case| case.tx.fields.nonce = 2, Class::Sender);
    check_class(|case| case.tx.fields.nonce = 70, Class::Retry);
    check_class(|case| case.limits.transactions_max = 0, Class::Retry);
}

fn pool(limits: Limits, base_fee_wei: u128) -> Mempool<u64> {
    Mempool::new(limits, Box::new(PriorityFee), base_fee_wei, 7)
}

/// Places everything in order; returns sender and nonce.
fn drain(pool: &mut Mempool<u64>) -> Vec<(Address, u64)> {
    let (mut order, mut removed) = (vec![], vec![]);
    while let Some(best) = pool.best() {
        order.push((best.submission.sender, best.submission.fields.nonce));
        let id = best.id;
        pool.placed(id, &mut removed);
    }
    order
}

#[test]
fn the_base_fee_decides_between_tip_and_cap() {
    let fill = |base_fee_wei| {
        let mut pool = pool(free_limits(), base_fee_wei);
        for (sender, cap, tip) in [(0, 100, 5), (1, 60, 60), (2, 59, 8)] {
            pool.admit(submission(sender, 5, cap, tip), &ACCOUNT, 3, 0, &mut vec![]).unwrap();
        }
        pool
    };
    let senders = |order: Vec<(Address, u64)>| order.into_iter().map(|(sender, _)| sender).collect::<Vec<_>>();
    // Effective tips: at 0: 5, 60, 8; at 52: 5, 8, 7; at 57: 5, 3, 2; at 60: 5, 0, none.
    for (base_fee_wei, expected) in
        [(0, &[1, 2, 0][..]), (52, &[1, 2, 0]), (57, &[0, 1, 2]), (60, &[0, 1]), (61, &[0]), (100, &[0]), (101, &[])]
    {
        let expected: Vec<_> = expected.iter().copied().map(address).collect();
        assert_eq!(senders(drain(&mut fill(base_fee_wei))), expected, "admitted at {base_fee_wei}");
        for before in [0, 55, 1_000] {
            let mut pool = fill(before);
            pool.set_base_fee(base_fee_wei);
            assert_eq!(senders(drain(&mut pool)), expected, "changed from {before} to {base_fee_wei}");
        }
    }
}

#[test]
fn a_sender_is_placed_in_nonce_order() {
    let mut pool = pool(free_limits(), 0);
    for (nonce, tip) in [(7, 30), (5, 1), (6, 20)] {
        pool.admit(submission(0, nonce, 40, tip), &ACCOUNT, 3, 0, &mut vec![]).unwrap();
    }
    pool.admit(submission(1, 5, 40, 10), &ACCOUNT, 3, 0, &mut vec![]).unwrap();
    assert_eq!(pool.pending_nonce(&address(0)), Some(8));
    assert_eq!(drain(&mut pool), [(address(1), 5), (address(0), 5), (address(0), 6), (address(0), 7)]);
    assert_eq!((pool.counts(), pool.pending_nonce(&address(0))), (Counts::default(), None));
}

#[test]
fn lifetimes_are_exact() {
    let limits = Limits { gap_lifetime_ns: 10, ready_lifetime_ns: 20, ..free_limits() };
    let mut pool = pool(limits, 0);
    let mut removed = vec![];
    pool.admit(submission(0, 5, 1, 1), &ACCOUNT, 3, 100, &mut removed).unwrap();
    pool.admit(submission(1, 6, 1, 1), &ACCOUNT, 3, 100, &mut removed).unwrap();
    assert_eq!(pool.expire(109, 9, &mut removed), 0);
    assert_eq!(pool.expire(110, 9, &mut removed), 1);
    assert_eq!(removed[0].end, EndState::Expired { readiness: Readiness::Queued, waited_ns: 10 });
    assert_eq!(pool.expire(119, 9, &mut removed), 0);
    assert_eq!(pool.expire(120, 0, &mut removed), 0);
    assert_eq!(pool.expire(120, 9, &mut removed), 1);
    assert_eq!(removed[1].end, EndState::Expired { readiness: Readiness::Ready, waited_ns: 20 });
}

#[test]
fn ids_die_with_their_transaction() {
    let mut pool = pool(free_limits(), 0);
    let mut removed = vec![];
    let first = pool.admit(submission(0, 5, 1, 1), &ACCOUNT, 3, 0, &mut removed).unwrap().id;
    pool.placed(first, &mut removed);
    let second = pool.admit(submission(1, 5, 1, 1), &ACCOUNT, 3, 0, &mut removed).unwrap().id;
    assert!(pool.get_by_id(first).is_none());
    assert_eq!(pool.get_by_id(second).unwrap().submission.sender, address(1));
    assert_eq!(removed[0].id, Some(first));
}
