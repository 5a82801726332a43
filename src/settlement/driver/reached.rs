//! When the transactions of our blocks are posted, safe and final: each block once, whatever L1 takes back and gives again.

use crate::metrics::block_times::{Accepted, BlockTimes};
use crate::metrics::cells::Histogram;
use crate::runtime::clock;
use crate::topology::Shared;

/// Numbers of the newest blocks that were counted.
#[derive(Debug, Default)]
pub struct Reached {
    posted: u64,
    safe: u64,
    finalized: u64,
}

impl Reached {
    /// Counts the blocks up to these numbers that were not counted before. A block of an earlier process, and one that is older than what is
    /// remembered, has no times and is passed over.
    pub fn look(&mut self, shared: &Shared, posted: u64, safe: u64, finalized: u64) {
        let (chain, l1) = (&shared.metrics.chain, &shared.metrics.l1);
        let tiers = [
            (&mut self.posted, posted, &l1.posted),
            (&mut self.safe, safe, &l1.safe),
            (&mut self.finalized, finalized, &l1.finalized),
        ];
        for (counted, reached, histogram) in tiers {
            if reached > *counted {
                count(&chain.block_times, *counted, reached, histogram, clock::wall_unix_ns());
                *counted = reached;
            }
        }
    }
}

fn count(times: &BlockTimes, after: u64, last: u64, histogram: &Histogram, now_unix_ns: u64) {
    for Accepted { tx_count, unix_ns } in BlockTimes::numbers(after, last).filter_map(|number| times.get(number)) {
        histogram.record_many(now_unix_ns.saturating_sub(unix_ns), tx_count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocks_transactions_are_counted_with_their_mean() {
        let (times, histogram) = (BlockTimes::default(), Histogram::default());
        times.put(3, Accepted { tx_count: 2, unix_ns: 1_000 });
        times.put(5, Accepted { tx_count: 1, unix_ns: 5_000 });
        count(&times, 2, 5, &histogram, 8_000);
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.counts.iter().sum::<u64>(), snapshot.sum_ns), (3, 2 * 7_000 + 3_000));
        count(&times, 5, 9, &histogram, 9_000);
        assert_eq!(histogram.snapshot(), snapshot);
    }
}
