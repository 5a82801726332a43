//! Seeded simulation of builder, journal and recovery over a disk that forgets. A failure prints one line that repeats it.
//!
//! `SIM_SEEDS=n` runs more seeds (from `SIM_FIRST=m` on), `SIM_SEED=n` one; each seed has a few dozen crashes, most of them power cuts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use alloy_primitives::{Address, U256};
use native_sequencer::config::genesis::{ChainSpec, DEV_ACCOUNTS, dev_genesis};
use native_sequencer::mempool::Conditions;
use native_sequencer::primitives::Fork;
use native_sequencer::testing::disk::Fault;
use native_sequencer::testing::node::{Machine, Mutant, Tally, Violation};
use native_sequencer::testing::rng::SimRng;
use native_sequencer::testing::signing::{DynamicFee, TestKey};
use rayon::ThreadPool;

const SEEDS: u64 = 40;
/// A mutant must be noticed within this many seeds.
const MUTANT_SEEDS: u64 = 400;
const STEPS: u64 = 900;
const NS_PER_MS: u64 = 1_000_000;

/// Stores its calldata's first word, logs it, or reverts when there is none.
const STORE_AND_LOG: &str = "601d600c600039601d6000f33615601357600035600055602a60006000a1005b60006000fd";

struct World {
    spec: ChainSpec,
    pool: Arc<ThreadPool>,
    keys: Vec<TestKey>,
}

impl World {
    fn new() -> Self {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
        let keys = DEV_ACCOUNTS.iter().map(|(_, secret)| TestKey::from_hex(secret)).collect();
        Self { spec: dev_genesis(Fork::Osaka, 10).expect("built in"), pool: Arc::new(pool), keys }
    }
}

/// How often each thing happens in this seed: some of them never.
struct Swarm {
    weights: [u64; 11],
    power_cut_share: u64,
    fuse_max: u64,
}

impl Swarm {
    fn new(rng: &mut SimRng) -> Self {
        let usual = [30, 25, 12, 25, 12, 8, 6, 3, 1, 1, 1];
        let weights = usual.map(|weight| if rng.chance(1, 8) { 0 } else { weight * (1 + rng.below(4)) });
        Self { weights, power_cut_share: rng.below(5), fuse_max: 2 + rng.below(60) }
    }

    fn pick(&self, rng: &mut SimRng) -> usize {
        let mut at = rng.below(self.weights.iter().sum::<u64>().max(1));
        self.weights
            .iter()
            .position(|weight| {
                let is_here = at < *weight;
                at = at.saturating_sub(*weight);
                is_here
            })
            .unwrap_or(3)
    }
}

/// One seed from the empty disk to the end.
fn run(world: &World, seed: u64, mutant: Option<Mutant>) -> Result<Tally, Violation> {
    let mut rng = SimRng::new(seed);
    let swarm = Swarm::new(&mut rng);
    let mut machine = Machine::new(world.spec.clone(), Arc::clone(&world.pool), seed, mutant);
    let mut nonces = vec![0_u64; world.keys.len()];
    for _ in 0..STEPS {
        if !machine.is_running() {
            let is_power_cut = rng.below(5) >= swarm.power_cut_share;
            machine.crash(is_power_cut);
            machine.disk.set_capacity_bytes(u64::MAX);
            machine.disk.set_fuse(rng.chance(1, 6).then(|| rng.below(12)));
            if machine.start()? {
                machine.disk.set_fuse(Some(rng.below(swarm.fuse_max)));
            }
            continue;
        }
        match swarm.pick(&mut rng) {
            0 => submit(world, &mut machine, &mut nonces, &mut rng),
            1 => machine.turn(),
            2 => machine.seal(),
            3 => machine.journal(),
            4 => machine.make_slot(),
            5 => machine.keep(),
            6 => machine.advance(rng.below(700) * NS_PER_MS),
            7 => machine.sync_chain(),
            8 => machine.disk.set_capacity_bytes(if rng.chance(1, 2) { 0 } else { u64::MAX }),
            9 => machine.step_clock(rng.below(20_000) as i64 * 1_000_000 - 10_000_000_000),
            _ => machine.disk.set_fault([Fault::Short, Fault::Write, Fault::Sync][rng.below(3) as usize]),
        }
    }
    machine.crash(true);
    machine.disk.set_capacity_bytes(u64::MAX);
    machine.disk.set_fuse(None);
    machine.start()?;
    machine.settle();
    machine.crash(true);
    machine.start()?;
    Ok(machine.tally)
}

fn submit(world: &World, machine: &mut Machine, nonces: &mut [u64], rng: &mut SimRng) {
    let index = rng.below(nonces.len() as u64) as usize;
    let nonce = match rng.below(12) {
        0 => nonces[index] + 1 + rng.below(3),
        1 => nonces[index].saturating_sub(1),
        _ => {
            nonces[index] += 1;
            nonces[index] - 1
        }
    };
    let base = DynamicFee {
        chain_id: world.spec.chain_id,
        nonce,
        gas_limit: 150_000,
        max_fee_per_gas: 2_000_000_000 + u128::from(rng.below(2_000_000_000)),
        max_priority_fee_per_gas: 1 + u128::from(rng.below(1_000_000_000)),
        ..DynamicFee::default()
    };
    let tx = match rng.below(8) {
        0 => {
            let code = (0..STORE_AND_LOG.len()).step_by(2);
            let code: Vec<u8> =
                code.map(|at| u8::from_str_radix(&STORE_AND_LOG[at..at + 2], 16).expect("hex")).collect();
            DynamicFee { input: code.into(), ..base }
        }
        1 => {
            let to = world.keys[index].address.create(rng.below(nonce + 1));
            let word = U256::from(rng.below(3)).to_be_bytes_vec();
            DynamicFee { to: to.into(), input: if rng.chance(1, 4) { vec![].into() } else { word.into() }, ..base }
        }
        _ => DynamicFee {
            to: Address::repeat_byte(rng.below(5) as u8).into(),
            value: U256::from(rng.below(1_000)),
            ..base
        },
    };
    let later = Conditions { block_number_min: Some(rng.below(30)), ..Conditions::default() };
    let raw = world.keys[index].encode(tx);
    machine.submit(&raw, rng.chance(1, 20).then_some(later));
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("SIM_FIRST").unwrap_or(0);
            first..first + number("SIM_SEEDS").unwrap_or(count)
        }
    }
}

#[test]
fn nothing_seen_is_lost_or_moved_by_any_crash() {
    let world = World::new();
    let mut sum = Tally::default();
    for seed in seeds(SEEDS) {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&world, seed, None)));
        let tally = match outcome {
            Ok(Ok(tally)) => tally,
            Ok(Err(violation)) => panic!("{violation}\nSIM_SEED={seed} cargo test --test it sim"),
            Err(_) => panic!("panicked\nSIM_SEED={seed} cargo test --test it sim"),
        };
        sum.starts += tally.starts;
        sum.resumed += tally.resumed;
        sum.power_cuts += tally.power_cuts;
        sum.acknowledged += tally.acknowledged;
        sum.places += tally.places;
        sum.blocks += tally.blocks;
        sum.segments = sum.segments.max(tally.segments);
        sum.full += tally.full;
    }
    println!("simulation: {sum:?}");
    if std::env::var_os("SIM_SEED").is_none() {
        assert!(sum.power_cuts > SEEDS && sum.blocks > 0 && sum.acknowledged > 0 && sum.places > 0, "{sum:?}");
        assert!(sum.resumed > SEEDS, "starts go on from a version of the state: {sum:?}");
        assert!(sum.segments > 3 && sum.full > 0, "segments are used again and the disk gets full: {sum:?}");
    }
}

/// Each sync that a guarantee rests on is left out once: the simulation must notice, or it proves nothing.
#[test]
fn every_sync_is_needed() {
    let world = World::new();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found: Vec<(Mutant, Option<u64>)> = Mutant::ALL
        .into_iter()
        .map(|mutant| {
            let is_noticed =
                |seed: &u64| !matches!(catch_unwind(AssertUnwindSafe(|| run(&world, *seed, Some(mutant)))), Ok(Ok(_)));
            (mutant, (0..MUTANT_SEEDS).find(is_noticed))
        })
        .collect();
    std::panic::set_hook(hook);
    println!("left out, noticed at seed: {found:?}");
    assert!(found.iter().all(|(_, seed)| seed.is_some()), "{found:?}");
}

/// The same seed is the same run.
#[test]
fn a_seed_repeats() {
    let world = World::new();
    assert_eq!(run(&world, 3, None), run(&world, 3, None));
}
