//! Seeded simulation of the whole: sequencer, disks, L1 and followers, with everything that goes wrong. A failure prints one line that repeats it.
//!
//! `SETTLEMENT_SIM_SEEDS=10000` runs more seeds (from `SETTLEMENT_SIM_FIRST=m` on), `SETTLEMENT_SIM_SEED=n` one. What happens in a seed: `src/testing/whole`.

use std::panic::{AssertUnwindSafe, catch_unwind};

use native_sequencer::derivation::skip::SkipReason;
use native_sequencer::testing::whole::faults::NAMES;
use native_sequencer::testing::whole::{Ground, Tally, World};

const SEEDS: u64 = 8;
const STEPS: u64 = 900;
/// Each kind of fault and each reason for a skip, in 10,000 seeds.
const EACH_MIN: u64 = 100;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn run(ground: &Ground, seed: u64) -> Result<Tally, String> {
    let mut world = World::new(ground, seed);
    world.run(STEPS)?;
    Ok(world.tally)
}

#[test]
fn everything_placed_settles_once_whatever_goes_wrong() {
    let ground = Ground::new();
    let seeds = match number("SETTLEMENT_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("SETTLEMENT_SIM_FIRST").unwrap_or(0);
            first..first + number("SETTLEMENT_SIM_SEEDS").unwrap_or(SEEDS)
        }
    };
    let count = seeds.end - seeds.start;
    let mut sum = Tally::default();
    for seed in seeds {
        let again = format!("SETTLEMENT_SIM_SEED={seed} cargo test --test it sim_settlement");
        match catch_unwind(AssertUnwindSafe(|| run(&ground, seed))) {
            Ok(Ok(tally)) => sum.add(&tally),
            Ok(Err(violation)) => panic!("{violation}\n{again}"),
            Err(_) => panic!("panicked\n{again}"),
        }
    }
    print(&sum, count);
    if count >= 10_000 {
        let rare_faults = NAMES.iter().filter(|name| sum.faults.get(*name).is_none_or(|count| *count < EACH_MIN));
        let rare_skips = sum.skips.iter().filter(|(_, count)| **count < EACH_MIN).map(|(name, _)| name);
        assert_eq!(rare_faults.chain(rare_skips).collect::<Vec<_>>(), Vec::<&&str>::new());
        // `origin_too_old` needs a million blocks of L1.
        assert_eq!(sum.skips.len(), usize::from(SkipReason::COUNT) - 1);
    }
}

fn print(sum: &Tally, seeds: u64) {
    println!("{seeds} seeds: {:?}", sum.sums);
    for name in NAMES {
        println!("  fault  {:>8}  {name}", sum.faults.get(name).copied().unwrap_or(0));
    }
    assert!(sum.faults.keys().all(|name| NAMES.contains(name)), "{:?}", sum.faults.keys());
    for (name, count) in &sum.skips {
        println!("  skip   {count:>8}  {name}");
    }
    println!("  of {} reasons for a skip, {} occurred", SkipReason::COUNT, sum.skips.len());
}

/// The same seed is the same run.
#[test]
fn a_seed_repeats() {
    let ground = Ground::new();
    assert_eq!(run(&ground, 5), run(&ground, 5));
}
