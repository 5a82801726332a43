//! A pool that was dumped and restored behaves like the one that it was; and what cannot be restored is named.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use alloy_primitives::U256;
use proptest::prelude::*;

use super::model_tests::{SENDERS, Step, limits, pool_after, steps};
use super::tests::{ACCOUNT, address, free_limits, submission};
use super::*;
use crate::mempool::{Arrival, PriorityFee};

/// Everything pooled in the order of arrival, as the journal has it.
fn dump(pool: &Mempool<u64>) -> Vec<(Submission<u64>, AccountView, u64)> {
    let mut slots: Vec<u32> = pool.store.slots().collect();
    slots.sort_by_key(|slot| pool.store.entries[*slot as usize].arrival);
    let entry = |slot: &u32| {
        let entry = &pool.store.entries[*slot as usize];
        (pool.store.submission(*slot).clone(), pool.store.senders[entry.sender as usize].account, entry.arrival)
    };
    slots.iter().map(entry).collect()
}

fn restored(pool: &Mempool<u64>, policy: Box<dyn OrderingPolicy>) -> Mempool<u64> {
    let mut copy = Mempool::new(limits(), policy, pool.base_fee_wei(), 99);
    for (tx, account, entered_ns) in dump(pool) {
        copy.restore(tx, &account, entered_ns).unwrap();
    }
    copy
}

/// What is pooled of a sender, with its cost, and the nonce that it could send next.
type Listed = (Vec<(B256, Readiness, U256)>, Option<u64>);

/// Of each sender.
fn listing(pool: &Mempool<u64>) -> Vec<Listed> {
    let of = |sender: u8| {
        let list = pool.iter_sender(&address(sender));
        let list = list
            .map(|tx| (tx.submission.hash, tx.readiness, pool.store.entries[tx.id.slot as usize].cost_wei))
            .collect();
        (list, pool.pending_nonce(&address(sender)))
    };
    (0..SENDERS).map(of).collect()
}

/// The queued ones in the order in which they would be evicted.
fn evictions(pool: &mut Mempool<u64>) -> Vec<B256> {
    let mut order = vec![];
    while let Some(&Node { slot, .. }) = pool.evictable.top() {
        order.push(pool.store.submission(slot).hash);
        pool.end_and_demote(slot, EndState::Placed, &mut vec![]);
    }
    order
}

/// Places everything that can be; the ends are compared with those of the other pool.
fn drain(pool: &mut Mempool<u64>) -> Vec<(B256, u128)> {
    let (mut order, mut removed) = (vec![], vec![]);
    while let Some(best) = pool.best() {
        order.push((best.submission.hash, best.tip_wei));
        let id = best.id;
        pool.placed(id, &mut removed);
    }
    order
}

fn compare(by_arrival_only: bool, steps: &[Step]) {
    let policy =
        || -> Box<dyn OrderingPolicy> { if by_arrival_only { Box::new(Arrival) } else { Box::new(PriorityFee) } };
    let mut pool = pool_after(by_arrival_only, steps);
    // What is set aside is offered again after a start.
    pool.retry_deferred(Deferral::Condition, u32::MAX);
    pool.retry_deferred(Deferral::NextBlock, u32::MAX);
    let mut copy = restored(&pool, policy());
    assert_eq!(copy.counts(), pool.counts());
    assert_eq!(copy.store.authority_count(), pool.store.authority_count());
    assert_eq!(listing(&copy), listing(&pool));
    // The accounts are what they were, so nothing ends.
    let mut removed = vec![];
    for (tx, account, _) in dump(&pool) {
        copy.account_changed(&tx.sender, &account, 0, &mut removed);
    }
    assert_eq!(removed, []);
    assert_eq!(drain(&mut copy), drain(&mut pool));
    for base_fee_wei in [0, 30] {
        copy.set_base_fee(base_fee_wei);
        pool.set_base_fee(base_fee_wei);
        assert_eq!(drain(&mut copy), drain(&mut pool));
    }
    assert_eq!(listing(&copy), listing(&pool));
    assert_eq!(evictions(&mut copy), evictions(&mut pool));
    assert_eq!(copy.counts(), pool.counts());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_restored_pool_is_the_pool_that_was(by_arrival_only: bool, steps in prop::collection::vec(steps(), 1..120)) {
        compare(by_arrival_only, &steps);
    }

    /// Senders' nonces in any order, below the account's too: after `account_changed` the pool is what a fresh one would be.
    #[test]
    fn stale_nonces_end_and_the_rest_stays(nonces in Just((0..12_u64).collect::<Vec<_>>()).prop_shuffle(), count in 1..12_usize) {
        let nonces = &nonces[..count];
        let mut pool = empty(free_limits());
        for nonce in nonces {
            pool.restore(submission(0, *nonce, 1, 1), &ACCOUNT, 0).unwrap();
        }
        let mut removed = vec![];
        pool.account_changed(&address(0), &ACCOUNT, 0, &mut removed);
        let mut stale: Vec<u64> = nonces.iter().copied().filter(|nonce| *nonce < ACCOUNT.nonce).collect();
        stale.sort_unstable();
        let ended: Vec<u64> = removed.iter().map(|removed| removed.submission.fields.nonce).collect();
        prop_assert_eq!(&ended, &stale);
        let expected = EndState::Invalidated(Invalid::NonceTooLow { tx: ended.first().copied().unwrap_or(0), account: 5 });
        prop_assert!(removed.first().is_none_or(|removed| removed.end == expected));

        let mut rest: Vec<u64> = nonces.iter().copied().filter(|nonce| *nonce >= ACCOUNT.nonce).collect();
        rest.sort_unstable();
        let listed: Vec<u64> = pool.iter_sender(&address(0)).map(|tx| tx.submission.fields.nonce).collect();
        prop_assert_eq!(&listed, &rest);
        let run = rest.iter().zip(5..).take_while(|(nonce, expected)| **nonce == *expected).count();
        prop_assert_eq!(pool.counts().ready as usize, run);
        prop_assert_eq!(drain(&mut pool).len(), run);
    }
}

fn empty(limits: Limits) -> Mempool<u64> {
    Mempool::new(limits, Box::new(PriorityFee), 1, 7)
}

#[test]
fn lifetimes_go_on_where_they_were() {
    let limits = Limits { gap_lifetime_ns: 10, ready_lifetime_ns: 20, ..free_limits() };
    let mut pool = empty(limits);
    let mut restore = |sender, nonce, entered_ns| {
        pool.restore(submission(sender, nonce, 1, 1), &ACCOUNT, entered_ns).map(|admission| admission.readiness)
    };
    assert_eq!(restore(0, 5, 100), Ok(Readiness::Ready));
    assert_eq!(restore(1, 6, 103), Ok(Readiness::Queued));
    // Earlier than the one before: as old as that.
    assert_eq!(restore(2, 6, 90), Ok(Readiness::Queued));
    let mut removed = vec![];
    assert_eq!((pool.expire(112, 9, &mut removed), pool.expire(113, 9, &mut removed)), (0, 2));
    assert_eq!((pool.expire(119, 9, &mut removed), pool.expire(120, 9, &mut removed)), (0, 1));
    let ends: Vec<_> = removed.iter().map(|removed| removed.submission.sender).collect();
    assert_eq!(ends, [1, 2, 0].map(address));
}

#[test]
fn a_pool_too_small_says_what_is_missing() {
    let restore = |change: fn(&mut Limits, &mut Submission<u64>)| {
        let mut limits = Limits { transactions_max: 2, bytes_max: 220, authorities_max: 1, ..free_limits() };
        let mut second = submission(1, 5, 1, 1);
        change(&mut limits, &mut second);
        let mut pool = empty(limits);
        pool.restore(submission(0, 5, 1, 1), &ACCOUNT, 0).unwrap();
        let before = pool.counts();
        let result = pool.restore(second, &ACCOUNT, 0);
        assert!(result.is_ok() || pool.counts() == before, "a failed call changes nothing");
        result.map_or_else(|error| error.to_string(), |_| "restored".to_owned())
    };
    assert_eq!(restore(|_, _| {}), "restored");
    assert_eq!(
        restore(|limits, _| limits.transactions_max = 1),
        "the journal holds more than mempool.transactions-max: 2 transactions, limit 1"
    );
    assert_eq!(
        restore(|limits, _| limits.bytes_max = 219),
        "the journal holds more than mempool.bytes-max: 220 bytes, limit 219"
    );
    assert_eq!(
        restore(|limits, tx| {
            limits.bytes_max = 1_000;
            tx.authorities = Some(Box::new([address(7); 2]));
        }),
        "the journal holds more pooled authorizations than the pool has room for: 2, limit 1"
    );
    let hash = submission(0, 5, 1, 1).hash;
    assert_eq!(
        restore(|_, tx| tx.hash = submission(0, 5, 1, 1).hash),
        format!("the journal holds transaction {hash} twice")
    );
    let second = submission(0, 5, 2, 1).hash;
    assert_eq!(
        restore(|_, tx| *tx = submission(0, 5, 2, 1)),
        format!("the journal holds two transactions of {} with nonce 5: {hash} and {second}", address(0))
    );
}

#[test]
fn admission_is_not_asked_again() {
    let limits = Limits { nonce_gap_max: 1, per_sender_max: 1, conditionals_max: 0, ..free_limits() };
    let mut pool = empty(limits);
    let poor = AccountView { balance_wei: U256::from(1), is_delegated: true, ..ACCOUNT };
    let mut conditional = submission(0, 500, 0, 0);
    conditional.conditions = Some(Box::default());
    let mut dear = submission(0, 6, u128::MAX, 1);
    dear.fields.value_wei = U256::MAX;
    for tx in [submission(0, 5, 0, 0), conditional, dear, submission(0, 9, 1, 1)] {
        pool.restore(tx, &poor, 0).unwrap();
    }
    let counts = pool.counts();
    assert_eq!((counts.ready, counts.queued, counts.conditional), (2, 2, 1));
    // The summed cost is as large as a number can be; what the balance does not cover ends here, the highest nonces first.
    let mut removed = vec![];
    pool.account_changed(&address(0), &poor, 0, &mut removed);
    let ended: Vec<u64> = removed.iter().map(|removed| removed.submission.fields.nonce).collect();
    assert_eq!(ended, [500, 9, 6]);
    let expected = Invalid::InsufficientFunds { cost_wei: U256::MAX, balance_wei: U256::from(1) };
    assert_eq!(removed[0].end, EndState::Invalidated(expected));
    assert_eq!((pool.counts().ready, pool.counts().queued, pool.counts().conditional), (1, 0, 0));
}
