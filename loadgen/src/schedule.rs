//! Arrival processes of the open loop: (process, rate, seed) → intended send times.
//!
//! Pure. The times are fixed before the clock starts and never react to the node: that is what makes the loop open.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// Equal distances: request i at i / rate.
    Constant,
    /// Independent exponential distances with mean 1 / rate: a Poisson process, as many independent users make it.
    Poisson,
    /// The rate grows evenly from --rate-from to --rate.
    Ramp,
    /// The rate grows from --rate-from to --rate in equal steps (--steps), each for the same time.
    Step,
}

impl Arrival {
    /// Whether the rate changes while the run goes on.
    pub const fn grows(self) -> bool {
        matches!(self, Self::Ramp | Self::Step)
    }
}

/// The rates of an open loop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tempo {
    pub arrival: Arrival,
    /// The highest, and the only one where it does not grow.
    pub rate_per_s: f64,
    /// Where a growing rate starts.
    #[serde(default)]
    pub from_per_s: f64,
    #[serde(default)]
    pub steps: u32,
}

impl Tempo {
    pub const fn steady(arrival: Arrival, rate_per_s: f64) -> Self {
        Self { arrival, rate_per_s, from_per_s: rate_per_s, steps: 1 }
    }

    /// The mean over the whole run.
    pub fn mean_per_s(&self) -> f64 {
        if self.arrival.grows() { (self.from_per_s + self.rate_per_s) / 2.0 } else { self.rate_per_s }
    }

    /// Intended send times of `count` requests of `batch` transactions each, in nanoseconds after the start, non-decreasing.
    pub fn intended_times_ns(&self, batch: usize, count: usize, seed: u64) -> Vec<u64> {
        let (from, to) = (self.from_per_s / batch as f64, self.rate_per_s / batch as f64);
        assert!(from > 0.0 && to > 0.0, "the command line refuses rates that are not positive");
        let mean_ns = 1e9 / to;
        match self.arrival {
            Arrival::Constant => (0..count).map(|index| (index as f64 * mean_ns).round() as u64).collect(),
            Arrival::Poisson => poisson(mean_ns, count, seed),
            Arrival::Ramp => ramp(from, to, count),
            Arrival::Step => staircase(from, to, self.steps.max(1), count),
        }
    }
}

fn poisson(mean_ns: f64, count: usize, seed: u64) -> Vec<u64> {
    let mut at_ns = 0.0;
    (0..count)
        .map(|index| {
            at_ns -= rng::unit(seed, index as u64).ln() * mean_ns;
            at_ns as u64
        })
        .collect()
}

/// Request i comes when `from` t + (`to` - `from`) t² / 2T reaches i, with T so that all come within it.
fn ramp(from: f64, to: f64, count: usize) -> Vec<u64> {
    let total_s = 2.0 * count as f64 / (from + to);
    let half_slope = (to - from) / (2.0 * total_s);
    let at_s = |index: f64| {
        // The form of the quadratic formula that does not cancel, and holds for a slope of 0.
        2.0 * index / (from + (from * from + 4.0 * half_slope * index).max(0.0).sqrt())
    };
    (0..count).map(|index| (at_s(index as f64) * 1e9) as u64).collect()
}

fn staircase(from: f64, to: f64, steps: u32, count: usize) -> Vec<u64> {
    let rate = |step: u32| if steps == 1 { to } else { from + (to - from) * f64::from(step) / f64::from(steps - 1) };
    let sum: f64 = (0..steps).map(rate).sum();
    let step_s = count as f64 / sum;
    let mut times = Vec::with_capacity(count);
    let mut before = 0.0;
    for step in 0..steps {
        let until = before + rate(step) * step_s;
        while times.len() < count && ((times.len() as f64) < until || step + 1 == steps) {
            let at_s = f64::from(step) * step_s + (times.len() as f64 - before) / rate(step);
            times.push((at_s * 1e9) as u64);
        }
        before = until;
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grow(arrival: Arrival, from_per_s: f64, rate_per_s: f64, steps: u32) -> Tempo {
        Tempo { arrival, rate_per_s, from_per_s, steps }
    }

    #[test]
    fn constant_distances_do_not_drift() {
        for rate in [1.0, 3.0, 7.5, 12_345.0, 1e6] {
            let times = Tempo::steady(Arrival::Constant, rate).intended_times_ns(1, 100_000, 1);
            for (index, &time) in times.iter().enumerate() {
                let exact = index as f64 / rate * 1e9;
                assert!((time as f64 - exact).abs() <= 1.0, "rate {rate}, request {index}: {time} ns, not {exact}");
            }
        }
    }

    #[test]
    fn poisson_has_the_mean_and_the_variance_of_an_exponential() {
        let count = 200_000;
        let times = Tempo::steady(Arrival::Poisson, 20_000.0).intended_times_ns(2, count, 7);
        let distances: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = distances.iter().sum::<f64>() / distances.len() as f64;
        let variance = distances.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / distances.len() as f64;
        // The mean of n exponentials has a relative standard deviation of 1 / sqrt(n) = 0.22 %.
        assert!((mean / 100_000.0 - 1.0).abs() < 0.01, "mean {mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "standard deviation {}", variance.sqrt());
    }

    /// Requests in each tenth of the whole time.
    fn tenths(times: &[u64], total_s: f64) -> Vec<usize> {
        assert!(times.is_sorted());
        let tenth = |time: u64| ((time as f64 / 1e9 / total_s * 10.0) as usize).min(9);
        (0..10).map(|which| times.iter().filter(|&&time| tenth(time) == which).count()).collect()
    }

    #[test]
    fn a_ramp_grows_evenly() {
        // 1,000/s to 3,000/s over 10 s: the k-th second has 1,100 + 200 k.
        let times = grow(Arrival::Ramp, 1_000.0, 3_000.0, 1).intended_times_ns(1, 20_000, 1);
        for (second, count) in tenths(&times, 10.0).into_iter().enumerate() {
            assert!(count.abs_diff(1_100 + 200 * second) <= 2, "second {second}: {count}");
        }
        let flat = grow(Arrival::Ramp, 500.0, 500.0, 1).intended_times_ns(1, 1_000, 1);
        assert!(flat[999].abs_diff(1_998_000_000) < 1_000, "{}", flat[999]);
        let down = grow(Arrival::Ramp, 3_000.0, 1_000.0, 1).intended_times_ns(1, 20_000, 1);
        assert!(tenths(&down, 10.0)[0].abs_diff(2_900) <= 2);
    }

    #[test]
    fn a_staircase_has_equal_steps() {
        // Five steps of 2 s: 1,000, 2,000 … 5,000/s.
        let times = grow(Arrival::Step, 1_000.0, 5_000.0, 5).intended_times_ns(1, 30_000, 1);
        assert_eq!(times.len(), 30_000);
        for (second, count) in tenths(&times, 10.0).into_iter().enumerate() {
            assert!(count.abs_diff(1_000 * (second / 2 + 1)) <= 1, "second {second}: {count}");
        }
        assert_eq!(grow(Arrival::Step, 7.0, 7.0, 1).intended_times_ns(1, 10, 1).len(), 10);
    }

    #[test]
    fn a_seed_names_one_schedule() {
        let times = |seed| Tempo::steady(Arrival::Poisson, 1_000.0).intended_times_ns(1, 100, seed);
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
    }

    #[test]
    fn the_mean_of_a_growing_rate_is_in_the_middle() {
        assert_eq!(grow(Arrival::Step, 1_000.0, 5_000.0, 5).mean_per_s(), 3_000.0);
        assert_eq!(Tempo::steady(Arrival::Constant, 4.0).mean_per_s(), 4.0);
    }
}
