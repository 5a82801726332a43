//! Curves of a run: latency by percentile, and rates and latencies over time.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::engine::TransactionRecord;
use crate::engine::queue::NEVER;
use crate::engine::replies::Outcome;
use crate::limits::SERIES_POINTS_MAX;
use crate::tiers::Tier;

/// Widths of an interval, in milliseconds: the smallest that gives few enough points is taken.
const INTERVALS_MS: [u64; 12] =
    [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000];

/// Latency at growing percentiles: (share of the transactions, nanoseconds).
pub type Curve = Vec<(f64, u64)>;

/// Percentile points, eight to each further nine: 0, 25 % … 90 %, … 99 %, … 99.9 %, as far as the count reaches.
pub fn curve(histogram: &Histogram<u64>) -> Curve {
    let count = histogram.len() as f64;
    if histogram.is_empty() {
        return Curve::new();
    }
    let share = |eighths: i32| 1.0 - 10f64.powf(f64::from(-eighths) / 8.0);
    let mut points: Curve = (0..72)
        .map(share)
        .take_while(|share| (1.0 - share) * count >= 1.0)
        .map(|share| (share, histogram.value_at_quantile(share)))
        .collect();
    points.push((1.0, histogram.max()));
    points
}

/// Counts and latencies by interval of time; every list has one entry for each interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub interval_ms: u64,
    /// Transactions sent.
    pub sent: Vec<u64>,
    /// Transactions refused or failed, by the time of the reply.
    pub failed: Vec<u64>,
    pub tiers: BTreeMap<Tier, TierSeries>,
}

/// Transactions that reached a tier, by the time when they did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TierSeries {
    pub arrived: Vec<u64>,
    /// Latency of those; 0 where none arrived.
    pub p50_ns: Vec<u64>,
    pub p99_ns: Vec<u64>,
}

/// Latency of a transaction that arrived at `arrived_ns`, given its index.
pub type Latencies<'a> = &'a dyn Fn(usize) -> Option<(u64, u64)>;

impl Series {
    /// `tiers` give (time of arrival, latency) by transaction index.
    pub fn new(transactions: &[TransactionRecord], tiers: &[(Tier, Latencies<'_>)]) -> Self {
        let arrivals =
            |latencies: Latencies<'_>| -> Vec<(u64, u64)> { (0..transactions.len()).filter_map(latencies).collect() };
        let mut arrived: Vec<(Tier, Vec<(u64, u64)>)> =
            tiers.iter().map(|&(tier, latencies)| (tier, arrivals(latencies))).collect();
        let last = |list: &[(u64, u64)]| list.iter().map(|&(at_ns, _)| at_ns).max().unwrap_or(0);
        let sent: Vec<u64> = transactions.iter().map(|tx| tx.history.sent_ns).filter(|&ns| ns != NEVER).collect();
        let end_ns = arrived.iter().map(|(_, list)| last(list)).chain(sent.iter().copied()).max().unwrap_or(0);
        let end_ms = end_ns / 1_000_000 + 1;
        let fits = |&&width: &&u64| end_ms.div_ceil(width) <= SERIES_POINTS_MAX;
        let interval_ms = *INTERVALS_MS.iter().find(fits).unwrap_or(&INTERVALS_MS[INTERVALS_MS.len() - 1]);
        let point_count = end_ms.div_ceil(interval_ms) as usize;
        let place = |ns: u64| ((ns / 1_000_000 / interval_ms) as usize).min(point_count - 1);
        let count = |times: &mut dyn Iterator<Item = u64>| {
            let mut counts = vec![0; point_count];
            times.for_each(|ns| counts[place(ns)] += 1);
            counts
        };
        let has_failed = |tx: &&TransactionRecord| matches!(tx.outcome, Outcome::Rejected | Outcome::TransportError);
        let failed_at = |tx: &TransactionRecord| {
            if tx.history.answered_ns == NEVER { tx.history.sent_ns } else { tx.history.answered_ns }
        };
        Self {
            interval_ms,
            sent: count(&mut sent.iter().copied()),
            failed: count(&mut transactions.iter().filter(has_failed).map(failed_at)),
            tiers: arrived.iter_mut().map(|(tier, list)| (*tier, TierSeries::new(list, point_count, place))).collect(),
        }
    }
}

impl TierSeries {
    fn new(arrivals: &mut [(u64, u64)], point_count: usize, place: impl Fn(u64) -> usize) -> Self {
        arrivals.sort_unstable_by_key(|&(at_ns, latency_ns)| (place(at_ns), latency_ns));
        let zeros = || vec![0; point_count];
        let mut series = Self { arrived: zeros(), p50_ns: zeros(), p99_ns: zeros() };
        for interval in arrivals.chunk_by(|a, b| place(a.0) == place(b.0)) {
            let at = place(interval[0].0);
            // The smallest value that at least this share is not above.
            let quantile = |percent: usize| interval[(interval.len() * percent).div_ceil(100).max(1) - 1].1;
            series.arrived[at] = interval.len() as u64;
            (series.p50_ns[at], series.p99_ns[at]) = (quantile(50), quantile(99));
        }
        series
    }
}

/// Slope of a line through samples one second apart, from `from_s` on, per minute; `None` with fewer than thirty of them.
pub fn slope_per_minute(samples: &[u64], from_s: usize) -> Option<f64> {
    let tail = samples.get(from_s..).filter(|tail| tail.len() >= 30)?;
    let mean_x = (tail.len() - 1) as f64 / 2.0;
    let mean_y = tail.iter().map(|&y| y as f64).sum::<f64>() / tail.len() as f64;
    let (mut covariance, mut variance) = (0.0, 0.0);
    for (x, &y) in tail.iter().enumerate() {
        let distance = x as f64 - mean_x;
        covariance += distance * (y as f64 - mean_y);
        variance += distance * distance;
    }
    Some(covariance / variance * 60.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::queue::Record;
    use crate::engine::sender::latency_histogram;

    #[test]
    fn a_curve_ends_with_the_maximum_and_never_falls() {
        let mut histogram = latency_histogram();
        (1..=1_000).for_each(|value| histogram.record(value * 1_000).unwrap());
        let points = curve(&histogram);
        assert!(points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{points:?}");
        assert_eq!(points[0].0, 0.0);
        // 1 - 10^(-8/8) = 0.9, and three nines are the most that 1,000 values can tell.
        let at_nine = points.iter().find(|(share, _)| (share - 0.9).abs() < 1e-9).unwrap();
        assert!(at_nine.1.abs_diff(900_000) < 1_000, "{at_nine:?}");
        assert_eq!((points.len(), points[points.len() - 1]), (26, (1.0, histogram.max())));
        assert!(curve(&latency_histogram()).is_empty());
    }

    fn record(sent_ms: u64, answered_ms: u64, outcome: Outcome) -> TransactionRecord {
        let history = Record { intended_ns: 0, sent_ns: sent_ms * 1_000_000, answered_ns: answered_ms * 1_000_000 };
        TransactionRecord { history, outcome }
    }

    #[test]
    fn intervals_hold_what_came_in_them() {
        let transactions = [
            record(0, 10, Outcome::Accepted),
            record(90, 150, Outcome::Rejected),
            record(150, 160, Outcome::Accepted),
            record(150, 299, Outcome::Accepted),
        ];
        let latencies = |index: usize| {
            let tx = &transactions[index];
            (tx.outcome == Outcome::Accepted)
                .then(|| (tx.history.answered_ns, tx.history.answered_ns - tx.history.sent_ns))
        };
        let series = Series::new(&transactions, &[(Tier::Accepted, &latencies)]);
        assert_eq!((series.interval_ms, series.sent, series.failed), (100, vec![2, 2, 0], vec![0, 1, 0]));
        let tier = &series.tiers[&Tier::Accepted];
        assert_eq!(tier.arrived, [1, 1, 1]);
        assert_eq!(tier.p50_ns, [10_000_000, 10_000_000, 149_000_000]);
    }

    #[test]
    fn long_runs_have_wide_intervals() {
        let series = Series::new(&[record(0, 1, Outcome::None), record(3_600_000, 1, Outcome::None)], &[]);
        assert_eq!((series.interval_ms, series.sent.len()), (30_000, 121));
        assert_eq!(Series::new(&[], &[]).sent, [0]);
    }

    #[test]
    fn slopes() {
        let line: Vec<u64> = (0..100).map(|second| 5_000 + second * 7).collect();
        assert!((slope_per_minute(&line, 40).unwrap() - 420.0).abs() < 1e-6);
        assert!(slope_per_minute(&[9; 60], 0).unwrap().abs() < 1e-9);
        assert_eq!(slope_per_minute(&line, 71), None);
        assert_eq!(slope_per_minute(&line, 200), None);
    }
}
