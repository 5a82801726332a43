//! What is counted: cells that one thread writes and any thread reads.
//!
//! Writing is a load and a store of one word that the writer's core has in its cache; nothing is locked, allocated or waited for. A reader sees
//! each word as it was at some moment; it never sees two writers, because there is one.

use std::sync::atomic::{AtomicU64, Ordering};

/// Grows only.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Runs on: the cell's one writer.
    #[inline]
    pub fn add(&self, count: u64) {
        // ORDERING: Relaxed, as everywhere in this file: a number to look at, nothing is read through it. One writer, so no read-modify-write.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// Runs on: the cell's one writer.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The newest value of something.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Runs on: the cell's one writer.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Exponent of the first bound: 1.024 µs.
const FIRST_EXPONENT: u32 = 10;
/// Exponent of the last bound: 68.7 s.
const LAST_EXPONENT: u32 = 36;
/// Bounds: two for every doubling, so that a quantile is wrong by a quarter at most.
pub const BOUNDS: usize = 1 + 2 * (LAST_EXPONENT - FIRST_EXPONENT) as usize;

/// How long something took, in buckets that grow by a half and a third in turn.
#[derive(Debug)]
pub struct Histogram {
    /// The last one holds what is above every bound.
    counts: [AtomicU64; BOUNDS + 1],
    sum_ns: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), sum_ns: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Runs on: the histogram's one writer.
    #[inline]
    pub fn record(&self, duration_ns: u64) {
        self.record_many(duration_ns, 1);
    }

    /// The same duration `count` times. Runs on: the histogram's one writer.
    #[inline]
    pub fn record_many(&self, duration_ns: u64, count: u64) {
        let add = |cell: &AtomicU64, more: u64| {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        };
        add(&self.counts[bucket(duration_ns)], count);
        add(&self.sum_ns, duration_ns.wrapping_mul(count));
    }

    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        self.add_to(&mut snapshot);
        snapshot
    }

    /// Merges what this histogram holds into `snapshot`.
    pub fn add_to(&self, snapshot: &mut Snapshot) {
        for (sum, count) in snapshot.counts.iter_mut().zip(&self.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
        snapshot.sum_ns = snapshot.sum_ns.wrapping_add(self.sum_ns.load(Ordering::Relaxed));
    }
}

/// What one histogram, or several of the same kind, held at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub counts: [u64; BOUNDS + 1],
    pub sum_ns: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { counts: [0; BOUNDS + 1], sum_ns: 0 }
    }
}

/// The bucket of a duration: the first whose bound is not below it.
#[inline]
fn bucket(duration_ns: u64) -> usize {
    let below = duration_ns.saturating_sub(1);
    if below >> FIRST_EXPONENT == 0 {
        return 0;
    }
    let exponent = below.ilog2();
    let half = (below >> (exponent - 1)) & 1;
    (1 + 2 * (exponent - FIRST_EXPONENT) as usize + half as usize).min(BOUNDS)
}

/// The upper bound of a bucket below the last, included.
#[must_use]
pub fn bound_ns(bucket: usize) -> u64 {
    let step = bucket as u32;
    if step.is_multiple_of(2) { 1 << (FIRST_EXPONENT + step / 2) } else { 3 << (FIRST_EXPONENT + step / 2 - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_grow_by_halves_and_thirds() {
        let bounds: Vec<u64> = (0..BOUNDS).map(bound_ns).collect();
        assert_eq!(&bounds[..5], [1_024, 1_536, 2_048, 3_072, 4_096]);
        assert_eq!(bounds[BOUNDS - 1], 1 << 36);
        assert!(bounds.windows(2).all(|pair| pair[0] < pair[1] && pair[1] * 2 <= pair[0] * 3));
    }

    /// Both sides of every bound.
    #[test]
    fn a_duration_is_in_the_first_bucket_that_takes_it() {
        assert_eq!(bucket(0), 0);
        for index in 0..BOUNDS {
            let bound = bound_ns(index);
            assert_eq!((bucket(bound - 1), bucket(bound), bucket(bound + 1)), (index, index, index + 1), "{bound}");
        }
        assert_eq!(bucket(u64::MAX), BOUNDS);
    }

    #[test]
    fn histograms_of_several_threads_are_merged() {
        let histograms = [Histogram::default(), Histogram::default()];
        histograms[0].record(5_000);
        histograms[1].record_many(1_000, 3);
        let mut merged = Snapshot::default();
        histograms.iter().for_each(|histogram| histogram.add_to(&mut merged));
        assert_eq!(merged.counts.iter().sum::<u64>(), 4);
        assert_eq!((merged.counts[0], merged.counts[bucket(5_000)], merged.sum_ns), (3, 1, 8_000));
    }

    #[test]
    fn a_counter_counts() {
        let counter = Counter::default();
        counter.increment();
        counter.add(4);
        assert_eq!(counter.get(), 5);
    }
}
