//! Which pooled transactions the next block is asked to hold, and in which order.
//!
//! Pure. The same order as that of the pool, each sender's by nonce, up to what a block has room for by gas limits and bytes; nothing leaves the pool
//! before the block is there.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use foldhash::fast::RandomState;

use crate::limits;
use crate::mempool::{Mempool, Readiness};
use crate::primitives::{Address, B256};

/// Room of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub gas: u64,
    pub bytes: usize,
}

/// One that could be next of its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub hash: B256,
    pub nonce: u64,
    pub gas_limit: u64,
    pub bytes: usize,
    /// At the next block's base fee; `None`: it cannot pay that.
    pub tip_wei: Option<u128>,
    /// Order of arrival.
    pub arrival: u64,
}

/// The ready transactions in the order in which they are to be placed.
pub(super) fn pick<P>(pool: &Mempool<P>, base_fee_wei: u128, budget: Budget, arrival: impl Fn(&P) -> u64) -> Vec<B256> {
    let is_by_tip = pool.ordering_name() != "arrival";
    let mut senders: HashMap<Address, Vec<Candidate>, RandomState> = HashMap::default();
    for pooled in pool.iter().filter(|pooled| pooled.readiness == Readiness::Ready) {
        let submission = pooled.submission;
        senders.entry(submission.sender).or_default().push(Candidate {
            hash: submission.hash,
            nonce: submission.fields.nonce,
            gas_limit: submission.fields.gas_limit,
            bytes: submission.encoded_bytes as usize + limits::TX_ITEM_HEADER_BYTES_MAX,
            tip_wei: submission.fields.effective_tip_wei(base_fee_wei),
            arrival: arrival(&submission.payload),
        });
    }
    merge(senders.into_values().collect(), budget, is_by_tip)
}

/// Merges what senders have: always the best of those that are first of theirs. Who does not fit or cannot pay ends its sender's turn.
pub(super) fn merge(mut senders: Vec<Vec<Candidate>>, mut budget: Budget, is_by_tip: bool) -> Vec<B256> {
    let mut heads = BinaryHeap::new();
    let key = |candidate: &Candidate| {
        let tip_wei = candidate.tip_wei?;
        Some((if is_by_tip { tip_wei } else { 0 }, Reverse(candidate.arrival)))
    };
    for (index, list) in senders.iter_mut().enumerate() {
        // The next one is taken from the end.
        list.sort_unstable_by_key(|candidate| Reverse(candidate.nonce));
        heads.extend(list.last().and_then(key).map(|key| (key, index)));
    }
    let mut picked = Vec::new();
    while let Some((_, index)) = heads.pop() {
        let Some(candidate) = senders[index].pop() else { continue };
        if candidate.gas_limit > budget.gas || candidate.bytes > budget.bytes {
            continue;
        }
        budget.gas -= candidate.gas_limit;
        budget.bytes -= candidate.bytes;
        picked.push(candidate.hash);
        let follows = senders[index].last().filter(|next| next.nonce == candidate.nonce + 1);
        heads.extend(follows.and_then(key).map(|key| (key, index)));
    }
    picked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(byte: u8, nonce: u64, tip_wei: Option<u128>) -> Candidate {
        let arrival = u64::from(byte);
        Candidate { hash: B256::repeat_byte(byte), nonce, gas_limit: 21_000, bytes: 100, tip_wei, arrival }
    }

    #[track_caller]
    fn check(senders: Vec<Vec<Candidate>>, gas: u64, bytes: usize, is_by_tip: bool, expected: &[u8]) {
        let picked = merge(senders, Budget { gas, bytes }, is_by_tip);
        assert_eq!(picked.iter().map(|hash| hash[0]).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_best_first_of_a_sender_goes_next() {
        let senders = || {
            vec![
                vec![candidate(2, 6, Some(9)), candidate(1, 5, Some(3))],
                vec![candidate(3, 0, Some(5)), candidate(4, 1, Some(1))],
                vec![candidate(5, 0, None)],
            ]
        };
        const MANY: u64 = 1_000_000;
        check(senders(), MANY, 10_000, true, &[3, 1, 2, 4]);
        check(senders(), MANY, 10_000, false, &[1, 2, 3, 4]);
        // Room for two, by gas or by bytes.
        check(senders(), 63_000 - 1, 10_000, true, &[3, 1]);
        check(senders(), MANY, 299, true, &[3, 1]);
        check(senders(), 20_999, 10_000, true, &[]);
    }

    #[test]
    fn one_that_does_not_fit_holds_up_its_own_sender_only() {
        let large = Candidate { gas_limit: 1_000_000, ..candidate(1, 0, Some(9)) };
        let senders = vec![vec![large, candidate(2, 1, Some(9))], vec![candidate(3, 0, Some(1))]];
        check(senders, 500_000, 10_000, true, &[3]);
        // A gap in what is ready ends a sender's turn too.
        check(vec![vec![candidate(1, 0, Some(1)), candidate(2, 2, Some(1))]], 500_000, 10_000, true, &[1]);
    }
}
