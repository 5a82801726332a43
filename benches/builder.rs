//! The builder core on one thread: admission, execution, following and sealing, ring hand-off; beside one bare recovery (R).
//!
//! `cargo bench --bench builder`; with `--test` one small round. CPU time of the thread, per transaction, median of the rounds; every
//! row also as a multiple of R measured in the same run. Fails when the core allocates per transaction beyond revm itself.

#![allow(
    unsafe_code,
    reason = "a counting allocator is a GlobalAlloc; the clock of a thread's CPU time is a libc call"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use alloy_primitives::{Address, Bytes, U256};
use native_sequencer::builder::core::NextTurn;
use native_sequencer::builder::execution::{ExecutableTx, Executor};
use native_sequencer::builder::world::World;
use native_sequencer::codec::transaction;
use native_sequencer::config::genesis::{ChainSpec, dev_genesis};
use native_sequencer::crypto::recovery::{self, RecoverItem};
use native_sequencer::journal::record::{AdmittedTx, Record};
use native_sequencer::limits;
use native_sequencer::messages::{IngressMessage, SubmitWait};
use native_sequencer::primitives::{Fork, Sequence, ShardId};
use native_sequencer::ring::{Doorbell, ring};
use native_sequencer::testing::bench_chain::BenchChain;
use native_sequencer::testing::signing::{DynamicFee, TestKey};

thread_local! {
    static ALLOCATION_COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to mimalloc unchanged; counting touches no memory of the allocation.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // During thread teardown the counter is gone; nothing is measured then.
        let _ = ALLOCATION_COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is mimalloc's.
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is mimalloc's.
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn cpu_time_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the call to write to.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "every Linux has this clock");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Per-operation CPU nanoseconds of each round, and allocations per operation of the last one.
struct Row {
    name: String,
    rounds_ns: Vec<f64>,
    allocations: f64,
}

#[derive(Default)]
struct Report {
    rows: Vec<Row>,
}

impl Report {
    fn measure<T>(&mut self, name: &str, operations: usize, body: impl FnOnce() -> T) -> T {
        let allocations = ALLOCATION_COUNT.get();
        let start = cpu_time_ns();
        let result = body();
        let elapsed = (cpu_time_ns() - start) as f64 / operations as f64;
        let allocations = (ALLOCATION_COUNT.get() - allocations) as f64 / operations as f64;
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => {
                row.rounds_ns.push(elapsed);
                row.allocations = allocations;
            }
            None => self.rows.push(Row { name: name.to_owned(), rounds_ns: vec![elapsed], allocations }),
        }
        result
    }

    fn allocations(&self, name: &str) -> f64 {
        self.rows.iter().find(|row| row.name == name).map_or(0.0, |row| row.allocations)
    }

    fn print(&mut self) {
        let median = |row: &mut Row| {
            row.rounds_ns.sort_by(f64::total_cmp);
            row.rounds_ns[row.rounds_ns.len() / 2]
        };
        let recovery_ns = self.rows.iter_mut().find(|row| row.name == RECOVERY).map_or(1.0, median);
        println!(
            "{:<44} {:>10} {:>10} {:>10} {:>8} {:>12}",
            "CPU per operation", "median ns", "min", "max", "R", "allocations"
        );
        for row in &mut self.rows {
            let mid = median(row);
            let (min, max) = (row.rounds_ns[0], row.rounds_ns[row.rounds_ns.len() - 1]);
            let ratio = mid / recovery_ns;
            println!("{:<44} {mid:>10.0} {min:>10.0} {max:>10.0} {ratio:>8.4} {:>12.3}", row.name, row.allocations);
        }
    }
}

const RECOVERY: &str = "bare recovery (R)";
const TOKEN_HEX: &str = include_str!("../loadgen/contracts/LoadToken.hex");
const TRANSFER_SELECTOR: [u8; 4] = [0xa9, 0x05, 0x9c, 0xbb];

struct Scale {
    accounts: u64,
    transactions: usize,
    rounds: u64,
}

/// A chain whose genesis funds the first `count` test keys.
fn funded_chain(count: u64) -> (BenchChain, Vec<TestKey>) {
    let keys: Vec<TestKey> = (0..count).map(TestKey::nth).collect();
    let mut genesis = dev_genesis(Fork::Osaka, 10).expect("built in").genesis;
    let funded = alloy_genesis::GenesisAccount::default().with_balance(U256::from(10).pow(U256::from(24)));
    genesis.alloc.extend(keys.iter().map(|key| (key.address, funded.clone())));
    let json = serde_json::to_string(&genesis).expect("a genesis serialises");
    (BenchChain::new(ChainSpec::from_json(&json).expect("as built in")), keys)
}

fn transfers(chain: &BenchChain, keys: &[TestKey], round: u64, count: usize) -> Vec<Vec<u8>> {
    let chain_id = chain.spec.chain_id;
    let per_key = count.div_ceil(keys.len()) as u64;
    let mut raws = Vec::with_capacity(count);
    for turn in 0..per_key {
        for (index, key) in keys.iter().enumerate() {
            let to = keys[(index * 7 + round as usize * 13 + 1) % keys.len()].address;
            raws.push(key.transfer(chain_id, round * per_key + turn, to, 1));
        }
    }
    raws.truncate(count);
    raws
}

/// Deploys the token with the last key and deals to all; returns its address.
fn deploy_token(chain: &mut BenchChain, keys: &[TestKey]) -> Address {
    let key = keys.last().expect("there are keys");
    let base = DynamicFee {
        chain_id: chain.spec.chain_id,
        gas_limit: 3_000_000,
        max_fee_per_gas: 1_000_000_000,
        ..DynamicFee::default()
    };
    let code: Bytes = TOKEN_HEX.trim().parse().expect("hex");
    chain.submit(&key.encode(DynamicFee { input: code, ..base.clone() }));
    let token = key.address.create(0);
    for (index, holders) in keys.chunks(300).enumerate() {
        let mut input = alloy_primitives::keccak256("deal(address[],uint256)")[..4].to_vec();
        let words = [U256::from(64), U256::from(1_000_000), U256::from(holders.len())];
        input.extend(words.iter().flat_map(|word| word.to_be_bytes::<32>()));
        input.extend(holders.iter().flat_map(|holder| holder.address.into_word().0));
        let deal = DynamicFee {
            nonce: index as u64 + 1,
            gas_limit: 16_000_000,
            to: token.into(),
            input: input.into(),
            ..base.clone()
        };
        chain.submit(&key.encode(deal));
    }
    let sealed = chain.finish_block();
    assert!(sealed.block.transactions.iter().all(|tx| tx.success), "the token is dealt");
    token
}

fn token_transfers(chain: &BenchChain, keys: &[TestKey], token: Address, round: u64) -> Vec<Vec<u8>> {
    let call = |index: usize, key: &TestKey| {
        let to = keys[(index * 7 + round as usize * 13 + 1) % keys.len()].address;
        let input = [&TRANSFER_SELECTOR[..], to.into_word().as_slice(), &U256::from(1).to_be_bytes::<32>()].concat();
        key.encode(DynamicFee {
            chain_id: chain.spec.chain_id,
            nonce: round,
            gas_limit: 100_000,
            max_fee_per_gas: 1_000_000_000,
            to: token.into(),
            input: input.into(),
            ..DynamicFee::default()
        })
    };
    keys.iter().enumerate().map(|(index, key)| call(index, key)).collect()
}

/// Admits, executes, seals one block of `raws`, each step measured by itself.
fn block(report: &mut Report, chain: &mut BenchChain, raws: &[Vec<u8>], name: &str) {
    let messages: Vec<IngressMessage> =
        raws.iter().map(|raw| chain.message(raw, SubmitWait::Admission, None)).collect();
    let count = raws.len();
    chain.effects.replies.reserve(count);
    chain.effects.freed.reserve(count);
    report.measure(&format!("{name}: admission"), count, || {
        for message in messages {
            chain.core.on_message(ShardId(0), message, chain.now, &mut chain.effects).expect("readable state");
        }
    });
    // The block is opened outside the measurement: it allocates its logs once.
    chain.core.turn(chain.now, &mut chain.effects).expect("no fatal error");
    let placed_before = chain.effects.placed_count;
    report.measure(&format!("{name}: execution and place"), count - placed_before as usize % count, || {
        while chain.core.turn(chain.now, &mut chain.effects).expect("no fatal error") == NextTurn::Now {}
    });
    report.measure(&format!("{name}: roots while open"), count, || chain.follow());
    chain.advance(1_000_000_000);
    chain.core.turn(chain.now, &mut chain.effects).expect("no fatal error");
    report.measure(&format!("{name}: seal after the deadline, whole block"), 1, || chain.seal());
    let sealed = Arc::clone(&chain.core.heads().latest);
    assert_eq!(sealed.block.transactions.len(), count);
    assert!(sealed.block.transactions.iter().all(|tx| tx.success));
    chain.effects.replies.clear();
    chain.free_chunks();
}

/// The same transfers through the bare executor: what revm itself allocates and costs.
fn bare_execution(report: &mut Report, chain: &mut BenchChain, raws: &[Vec<u8>], keys: &[TestKey]) {
    let decoded: Vec<_> = raws.iter().map(|raw| transaction::decode(raw).expect("signed here")).collect();
    let world = World::new(chain.state().clone());
    let spec = &chain.spec;
    let mut executor = Executor::new(world, spec.chain_id, spec.deposit_contract, Fork::Osaka);
    let context = chain.core.heads().latest.block.context.clone();
    executor.begin_block(&context, |_| {}).expect("system contracts exist");
    for address in keys.iter().map(|key| key.address) {
        executor.world().account(address).expect("readable");
    }
    report.measure("transfer: revm alone", raws.len(), || {
        for (index, (raw, decoded)) in raws.iter().zip(&decoded).enumerate() {
            let sender = keys[index % keys.len()].address;
            let tx = ExecutableTx { fields: &decoded.fields, sender, raw, authorities: &[] };
            executor.execute(&tx).expect("funded");
        }
    });
}

fn recoveries(report: &mut Report, raws: &[Vec<u8>]) {
    let mut scratch = Vec::new();
    let items: Vec<RecoverItem> = raws
        .iter()
        .take(500)
        .map(|raw| {
            let decoded = transaction::decode(raw).expect("signed here");
            let digest = transaction::signing_hash(raw, &decoded, &mut scratch);
            decoded.recover_item(digest)
        })
        .collect();
    let mut senders = vec![Ok(Address::ZERO); items.len()];
    report.measure(RECOVERY, items.len(), || recovery::recover_batch(&items, &mut senders));
    assert!(senders.iter().all(Result::is_ok));
}

/// The two records of a transfer, admitted and placed, into a buffer of the journal's size.
fn record_encode(report: &mut Report, raws: &[Vec<u8>], keys: &[TestKey]) {
    let mut out = Vec::with_capacity(2 * limits::JOURNAL_BUFFER_BYTES);
    report.measure("record encode (admitted, placed)", raws.len(), || {
        for (index, raw) in raws.iter().enumerate() {
            let name = Sequence(2 * index as u64 + 1);
            let sender = keys[index % keys.len()].address;
            let tx = AdmittedTx { sender, accepted_unix_ns: 1, authorities: Cow::Borrowed(&[]), conditions: None, raw };
            Record::Admitted(tx).encode(name, &mut out);
            let placed = Record::Placed { tx: name, index: index as u32, preconfirmed_unix_ns: 1 };
            placed.encode(Sequence(name.0 + 1), &mut out);
            if out.len() > limits::JOURNAL_BUFFER_BYTES {
                std::hint::black_box(&out);
                out.clear();
            }
        }
    });
    std::hint::black_box(&out);
}

fn ring_hand_off(report: &mut Report, count: usize) {
    let doorbell = Arc::new(Doorbell::for_thread());
    let (mut producer, mut consumer) = ring::<[u64; 32]>(1_024, &doorbell);
    report.measure("ring: push and pop of 256 bytes", count, || {
        for start in (0..count).step_by(256) {
            for value in start..(start + 256).min(count) {
                producer.push([value as u64; 32]).expect("room for a batch");
            }
            producer.wake();
            while consumer.pop().is_some() {}
        }
    });
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let scale = if is_test {
        Scale { accounts: 600, transactions: 600, rounds: 1 }
    } else {
        Scale { accounts: 10_000, transactions: 10_000, rounds: 9 }
    };
    let mut report = Report::default();
    let (mut chain, keys) = funded_chain(scale.accounts);
    for round in 0..scale.rounds {
        let raws = transfers(&chain, &keys, round, scale.transactions);
        recoveries(&mut report, &raws);
        bare_execution(&mut report, &mut chain, &raws, &keys);
        block(&mut report, &mut chain, &raws, "transfer");
        record_encode(&mut report, &raws, &keys);
        ring_hand_off(&mut report, scale.transactions);
    }
    let core = report.allocations("transfer: execution and place") + report.allocations("transfer: admission");
    let revm = report.allocations("transfer: revm alone");
    let (mut chain, keys) = funded_chain(scale.accounts + 1);
    let token = deploy_token(&mut chain, &keys);
    let senders = &keys[..keys.len() - 1];
    for round in 0..scale.rounds {
        chain.advance(2_000_000_000);
        let raws = token_transfers(&chain, senders, token, round);
        block(&mut report, &mut chain, &raws, "erc20");
    }
    report.print();
    println!("allocations per transfer: core {core:.3}, revm alone {revm:.3}");
    // One in a thousand pays for the block's logs and maps, which grow once per block.
    assert!(core <= revm + 0.01, "the core allocates per transaction: {core} against {revm} of revm alone");
}
