//! Codecs against independent decoders: const-hex, serde_json, alloy, k256.
//!
//! Short by default. `FUZZ_SECONDS=600 cargo test --test it codec` makes each seeded loop run that long from a fresh
//! seed; `PROPTEST_CASES=100000` lengthens the proptest ones. A failure names its seed: `FUZZ_SEED=<seed>` repeats it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod hex;
mod json_rpc;
mod recovery;
mod transaction;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn env_u64(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs `case` with `case_count` seeded generators, or for `FUZZ_SECONDS`, or once with `FUZZ_SEED`.
pub fn fuzz(case_count: u64, mut case: impl FnMut(&mut StdRng)) {
    struct SeedOnPanic(u64);
    impl Drop for SeedOnPanic {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("FUZZ_SEED={} repeats this failure", self.0);
            }
        }
    }
    let mut run = |seed| {
        let _report = SeedOnPanic(seed);
        case(&mut StdRng::seed_from_u64(seed));
    };
    if let Some(seed) = env_u64("FUZZ_SEED") {
        return run(seed);
    }
    let Some(seconds) = env_u64("FUZZ_SECONDS") else {
        return (0..case_count).for_each(run);
    };
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let first_seed = since_epoch.as_nanos() as u64;
    let start = Instant::now();
    let mut seed = first_seed;
    while start.elapsed() < Duration::from_secs(seconds) {
        run(seed);
        seed = seed.wrapping_add(1);
    }
    println!("fuzzed {} cases from seed {first_seed}", seed.wrapping_sub(first_seed));
}

/// Flips, inserts, deletes, copies or truncates at up to four places.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng, alphabet: &[u8]) {
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=bytes.len());
        let letter = if alphabet.is_empty() || random.random_bool(0.2) {
            random.random()
        } else {
            alphabet[random.random_range(0..alphabet.len())]
        };
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] = letter,
            1 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            2 => bytes.insert(at, letter),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 if at < bytes.len() && random.random_bool(0.3) => bytes.truncate(at),
            _ => {
                let from = random.random_range(0..=at);
                let copy = bytes[from..at.min(from + 12)].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
        }
    }
}
