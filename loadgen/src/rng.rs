//! Counter-based random numbers: (seed, index) → 64 bits.
//!
//! Every choice of a workload is a pure function of the seed and of the position of the choice, so threads can prepare
//! parts of it in any order and a seed names the same workload on every machine and with every thread count.

/// Increment of splitmix64: 2^64 divided by the golden ratio.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The `index`-th output of splitmix64 started at `seed`.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), the mix of `SplittableRandom`.
pub fn number(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in 0..`bound` for a `bound` above 0. The bias is below `bound` / 2^64.
pub fn below(seed: u64, index: u64, bound: u64) -> u64 {
    assert!(bound > 0, "a bound of 0 leaves nothing to choose from");
    // The product is below 2^64 * bound, so its upper half is below `bound`.
    ((u128::from(number(seed, index)) * u128::from(bound)) >> 64) as u64
}

/// A number in (0, 1]: never 0, so that its logarithm is finite.
pub fn unit(seed: u64, index: u64) -> f64 {
    // 53 bits, the mantissa of an f64.
    ((number(seed, index) >> 11) + 1) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_outputs_are_those_of_splitmix64() {
        // Reference outputs for seed 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64").
        let expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431];
        for (index, expected) in expected.into_iter().enumerate() {
            assert_eq!(number(1234567, index as u64), expected);
        }
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let mut seen = [0u32; 7];
        for index in 0..7_000 {
            seen[below(3, index, 7) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (850..1_150).contains(&count)), "{seen:?}");
    }

    #[test]
    fn unit_is_in_range_with_mean_one_half() {
        let sum: f64 = (0..100_000).map(|index| unit(9, index)).inspect(|u| assert!(*u > 0.0 && *u <= 1.0)).sum();
        assert!((sum / 100_000.0 - 0.5).abs() < 0.005);
    }
}
