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
}

/// The intended send time of each of `count` requests, in nanoseconds after the start, non-decreasing.
pub fn intended_times_ns(arrival: Arrival, requests_per_s: f64, count: usize, seed: u64) -> Vec<u64> {
    assert!(requests_per_s > 0.0, "the command line refuses rates that are not positive");
    let mean_ns = 1e9 / requests_per_s;
    match arrival {
        Arrival::Constant => (0..count).map(|index| (index as f64 * mean_ns).round() as u64).collect(),
        Arrival::Poisson => {
            let mut at_ns = 0.0;
            (0..count)
                .map(|index| {
                    at_ns -= rng::unit(seed, index as u64).ln() * mean_ns;
                    at_ns as u64
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_distances_do_not_drift() {
        for rate in [1.0, 3.0, 7.5, 12_345.0, 1e6] {
            let times = intended_times_ns(Arrival::Constant, rate, 100_000, 1);
            for (index, &time) in times.iter().enumerate() {
                let exact = index as f64 / rate * 1e9;
                assert!((time as f64 - exact).abs() <= 1.0, "rate {rate}, request {index}: {time} ns, not {exact}");
            }
        }
    }

    #[test]
    fn poisson_has_the_mean_and_the_variance_of_an_exponential() {
        let count = 200_000;
        let times = intended_times_ns(Arrival::Poisson, 10_000.0, count, 7);
        let distances: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = distances.iter().sum::<f64>() / distances.len() as f64;
        let variance = distances.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / distances.len() as f64;
        // The mean of n exponentials has a relative standard deviation of 1 / sqrt(n) = 0.22 %.
        assert!((mean / 100_000.0 - 1.0).abs() < 0.01, "mean {mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "standard deviation {}", variance.sqrt());
    }

    #[test]
    fn a_seed_names_one_schedule() {
        let times = |seed| intended_times_ns(Arrival::Poisson, 1_000.0, 100, seed);
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
    }
}
