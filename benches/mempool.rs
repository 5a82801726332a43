//! Nanoseconds and allocations per pool operation at 100,000 pending transactions of 10,000 senders.
//!
//! `cargo bench --bench mempool`; with `--test` one small round. Fails when a steady-state operation allocates.
//! Prints the median, minimum and maximum over the rounds of the thread's CPU time, and the median of the wall time, which other
//! work on the machine raises. Each figure includes the harness: making the submission (`prepare` row).

#![allow(
    unsafe_code,
    reason = "a counting allocator is a GlobalAlloc; the clock of a thread's CPU time is a libc call"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use alloy_primitives::{Address, B256, U256};
use native_sequencer::mempool::{AccountView, Limits, Mempool, PriorityFee, Removed, Submission};
use native_sequencer::primitives::{Span, TxFields, TxType};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

static ALLOCATION_COUNT: AtomicU64 = AtomicU64::new(0);

struct Counting;

// SAFETY: every call goes to the system allocator unchanged; counting touches no memory of the allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATION_COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ACCOUNT: AccountView =
    AccountView { balance_wei: U256::MAX, nonce: 0, has_code_not_delegation: false, is_delegated: false };
const BASE_FEE_WEI: u128 = 1_000_000;

struct Scale {
    senders: u64,
    per_sender: u64,
    rounds: usize,
}

impl Scale {
    fn transactions(&self) -> u64 {
        self.senders * self.per_sender
    }
}

/// CPU time of this thread.
fn cpu_time_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the call to write to.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "every Linux has this clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// One row: what was measured in each round, per operation.
struct Row {
    name: &'static str,
    rounds_ns: Vec<f64>,
    wall_rounds_ns: Vec<f64>,
    allocation_count: u64,
    operation_count: u64,
}

struct Rows(Vec<Row>);

impl Rows {
    fn measure<T>(&mut self, name: &'static str, operation_count: u64, work: impl FnOnce() -> T) -> T {
        let allocations_before = ALLOCATION_COUNT.load(Ordering::Relaxed);
        let (wall_start, start_ns) = (Instant::now(), cpu_time_ns());
        let result = black_box(work());
        let elapsed_ns = (cpu_time_ns() - start_ns) as f64;
        let wall_ns = wall_start.elapsed().as_nanos() as f64;
        let allocation_count = ALLOCATION_COUNT.load(Ordering::Relaxed) - allocations_before;
        let row = match self.0.iter_mut().find(|row| row.name == name) {
            Some(row) => row,
            None => {
                self.0.push(Row {
                    name,
                    rounds_ns: vec![],
                    wall_rounds_ns: vec![],
                    allocation_count: 0,
                    operation_count: 0,
                });
                self.0.last_mut().expect("just pushed")
            }
        };
        row.rounds_ns.push(elapsed_ns / operation_count as f64);
        row.wall_rounds_ns.push(wall_ns / operation_count as f64);
        row.allocation_count += allocation_count;
        row.operation_count += operation_count;
        result
    }

    /// Returns how many operations allocated.
    fn print(&mut self) -> u64 {
        println!("{:<44} {:>8} {:>8} {:>8} {:>8} {:>8}", "ns per operation", "cpu", "min", "max", "wall", "allocs");
        for row in &mut self.0 {
            row.rounds_ns.sort_by(f64::total_cmp);
            row.wall_rounds_ns.sort_by(f64::total_cmp);
            let last = row.rounds_ns.len() - 1;
            let (median, wall) = (row.rounds_ns[last / 2], row.wall_rounds_ns[last / 2]);
            let (min, max) = (row.rounds_ns[0], row.rounds_ns[last]);
            let name = row.name;
            println!("{name:<44} {median:>8.0} {min:>8.0} {max:>8.0} {wall:>8.0} {:>8}", row.allocation_count);
        }
        self.0.iter().map(|row| row.allocation_count).sum()
    }
}

fn sender(index: u64) -> Address {
    Address::from_word(B256::from(U256::from(index + 1).wrapping_mul(U256::from(0x9e37_79b9_7f4a_7c15_u64))))
}

fn submission(index: u64, nonce: u64, max_fee_per_gas_wei: u128, tip_wei: u128) -> Submission<u64> {
    let fields = TxFields {
        value_wei: U256::from(1),
        max_fee_per_gas_wei,
        max_priority_fee_per_gas_wei: tip_wei,
        nonce,
        gas_limit: 21_000,
        chain_id: Some(1),
        input: Span::default(),
        access_list: Span::default(),
        authorization_list: Span::default(),
        access_list_address_count: 0,
        access_list_slot_count: 0,
        authorization_count: 0,
        input_zero_bytes: 0,
        to: Some(Address::ZERO),
        tx_type: TxType::DynamicFee,
    };
    // Distinct and spread like a hash; making a real one is not the pool's work.
    let words = [index, nonce, tip_wei as u64, 1].map(|word| (word + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut hash = B256::ZERO;
    for (bytes, word) in hash.0.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    Submission {
        hash,
        sender: sender(index),
        fields,
        encoded_bytes: 115,
        intrinsic_gas: 21_000,
        floor_gas: 21_000,
        authorities: None,
        conditions: None,
        payload: index,
    }
}

/// Sender index, nonce and tip of everything, nonces of a sender in order, senders mixed.
fn plan(scale: &Scale, rng: &mut StdRng) -> Vec<(u64, u64, u128)> {
    let mut senders: Vec<u64> =
        (0..scale.senders).flat_map(|index| std::iter::repeat_n(index, scale.per_sender as usize)).collect();
    senders.shuffle(rng);
    let mut nonces = vec![0; scale.senders as usize];
    let next = |index: u64| {
        let nonce = nonces[index as usize];
        nonces[index as usize] += 1;
        (index, nonce, rng.random_range(1_000..100_000_000))
    };
    senders.into_iter().map(next).collect()
}

fn admit(pool: &mut Mempool<u64>, tx: Submission<u64>, removed: &mut Vec<Removed<u64>>) {
    pool.admit(tx, &ACCOUNT, 0, 0, removed).expect("nothing here is refused");
}

fn place_best(pool: &mut Mempool<u64>, removed: &mut Vec<Removed<u64>>) {
    let id = pool.best().expect("the pool is not empty").id;
    pool.placed(id, removed);
    removed.clear();
}

fn round(scale: &Scale, seed: u64, pool: &mut Mempool<u64>, rows: &mut Rows) {
    let mut rng = StdRng::seed_from_u64(seed);
    let plan = plan(scale, &mut rng);
    let mut removed: Vec<Removed<u64>> = Vec::with_capacity(64);
    let cap_wei = BASE_FEE_WEI * 1_000;
    let n = scale.transactions();
    pool.set_base_fee(BASE_FEE_WEI);

    rows.measure("prepare (harness alone)", n, || {
        plan.iter().for_each(|&(index, nonce, tip_wei)| drop(black_box(submission(index, nonce, cap_wei, tip_wei))));
    });
    rows.measure("insert, nonces in order", n, || {
        for &(index, nonce, tip_wei) in &plan {
            admit(pool, submission(index, nonce, cap_wei, tip_wei), &mut removed);
        }
    });
    let mut order: Vec<_> = plan.clone();
    order.shuffle(&mut rng);
    let replacements = &order[..order.len() / 5];
    rows.measure("replace any nonce", replacements.len() as u64, || {
        for &(index, nonce, tip_wei) in replacements {
            let tip_wei = tip_wei + tip_wei / 10 + 1;
            admit(pool, submission(index, nonce, cap_wei + cap_wei / 10, tip_wei), &mut removed);
            removed.clear();
        }
    });
    let heads: Vec<_> = plan.iter().filter(|(_, nonce, _)| *nonce == 0).copied().collect();
    rows.measure("replace the sender's first", heads.len() as u64, || {
        for &(index, nonce, tip_wei) in &heads {
            admit(pool, submission(index, nonce, cap_wei * 2, tip_wei * 2), &mut removed);
            removed.clear();
        }
    });
    rows.measure("account changed, sender pooled", n, || {
        for &(index, _, _) in &order {
            pool.account_changed(&sender(index), &ACCOUNT, 0, &mut removed);
        }
    });
    rows.measure("base fee moves, nothing crosses (per call)", 1_000, || {
        (0..1_000_u128).for_each(|step| pool.set_base_fee(BASE_FEE_WEI + step));
    });
    // At twice the cap, which all first ones have by now, no tip is left: all of them cross, and back.
    rows.measure("base fee moves, all senders cross (per call)", 2, || {
        pool.set_base_fee(cap_wei * 2);
        pool.set_base_fee(BASE_FEE_WEI);
    });
    rows.measure("best and placed, first fifth", n / 5, || (0..n / 5).for_each(|_| place_best(pool, &mut removed)));
    rows.measure("best and placed, rest", n - n / 5, || (n / 5..n).for_each(|_| place_best(pool, &mut removed)));
    assert!(pool.best().is_none() && pool.counts().ready == 0, "everything was placed");
}

fn main() {
    let is_smoke = std::env::args().any(|argument| argument == "--test");
    let scale = match is_smoke {
        true => Scale { senders: 50, per_sender: 10, rounds: 2 },
        false => Scale { senders: 10_000, per_sender: 10, rounds: 7 },
    };
    let limits = Limits::new(1, 30_000_000);
    let mut pool = Mempool::new(limits, Box::new(PriorityFee), BASE_FEE_WEI, 0x5eed);
    // The first round warms up: pages of the slab, and the branch predictor.
    round(&scale, 0, &mut pool, &mut Rows(Vec::new()));
    let mut rows = Rows(Vec::new());
    for seed in 1..=scale.rounds as u64 {
        round(&scale, seed, &mut pool, &mut rows);
    }
    let count = scale.transactions();
    println!("{count} transactions, {} senders, {} rounds", scale.senders, scale.rounds);
    // The rows of the table itself are made inside `measure` once each, before its allocation count is read again.
    let allocation_count = rows.print();
    assert_eq!(allocation_count, 0, "a steady-state operation allocated");
}
