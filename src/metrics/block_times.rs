//! When the transactions of recent blocks were accepted: written by the chain thread, read by the `l1` thread when a block reaches a later tier.
//!
//! A block has many transactions and one mean: the sum of a later tier's times is exact, and each of them is wrong by the time that the block was
//! open at most, where a tier takes seconds. A block that is older than the ring, or of an earlier process, has no entry and is not counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Blocks that are remembered: two hours of one a second.
const BLOCKS_MAX: usize = 8_192;

/// See the module's text.
#[derive(Debug)]
pub struct BlockTimes {
    entries: Box<[Entry]>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Of the block, plus one; 0: empty, or being written.
    number: AtomicU64,
    tx_count: AtomicU64,
    accepted_unix_ns: AtomicU64,
}

/// What is known of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub tx_count: u64,
    /// Mean over its transactions.
    pub unix_ns: u64,
}

impl Default for BlockTimes {
    fn default() -> Self {
        Self { entries: (0..BLOCKS_MAX).map(|_| Entry::default()).collect() }
    }
}

impl BlockTimes {
    fn entry(&self, number: u64) -> &Entry {
        &self.entries[number as usize % BLOCKS_MAX]
    }

    /// Runs on: chain thread.
    pub fn put(&self, number: u64, accepted: Accepted) {
        let entry = self.entry(number);
        entry.number.store(0, Ordering::Relaxed);
        // ORDERING: Release keeps the new values behind the 0; the fence of `get` pairs with it.
        std::sync::atomic::fence(Ordering::Release);
        entry.tx_count.store(accepted.tx_count, Ordering::Relaxed);
        entry.accepted_unix_ns.store(accepted.unix_ns, Ordering::Relaxed);
        // ORDERING: Release, after the values; pairs with the first load of `get`.
        entry.number.store(number + 1, Ordering::Release);
    }

    /// Runs on: any thread.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<Accepted> {
        let entry = self.entry(number);
        // ORDERING: Acquire pairs with the last store of `put`.
        if entry.number.load(Ordering::Acquire) != number + 1 {
            return None;
        }
        let accepted = Accepted {
            tx_count: entry.tx_count.load(Ordering::Relaxed),
            unix_ns: entry.accepted_unix_ns.load(Ordering::Relaxed),
        };
        // ORDERING: Acquire keeps the loads above before the second look; pairs with the fence of `put`.
        std::sync::atomic::fence(Ordering::Acquire);
        (entry.number.load(Ordering::Relaxed) == number + 1).then_some(accepted)
    }

    /// The newest numbers that can be known, up to `last`, above `after`.
    pub fn numbers(after: u64, last: u64) -> std::ops::RangeInclusive<u64> {
        (after + 1).max((last + 1).saturating_sub(BLOCKS_MAX as u64))..=last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_known_until_another_takes_its_place() {
        let times = BlockTimes::default();
        assert_eq!(times.get(0), None);
        let accepted = Accepted { tx_count: 3, unix_ns: 5 };
        times.put(7, accepted);
        assert_eq!((times.get(7), times.get(6), times.get(7 + BLOCKS_MAX as u64)), (Some(accepted), None, None));
        times.put(7 + BLOCKS_MAX as u64, accepted);
        assert_eq!((times.get(7), times.get(7 + BLOCKS_MAX as u64)), (None, Some(accepted)));
    }

    #[test]
    fn no_more_is_looked_for_than_can_be_there() {
        assert_eq!(BlockTimes::numbers(4, 6), 5..=6);
        assert!(BlockTimes::numbers(6, 6).is_empty());
        let far = BlockTimes::numbers(0, 100_000);
        assert_eq!((far.clone().count(), far.last()), (BLOCKS_MAX, Some(100_000)));
    }
}
