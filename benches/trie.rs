//! Keccak by backend, list roots, commits and reads of the state in memory and in files, and the nodes of a witness.
//!
//! `TRIE_ACCOUNTS` sets the number of accounts (1,000,000), `STATE_BENCH_DIR` where the files lie.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Bloom, U256};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use native_sequencer::builder::world::access::Accesses;
use native_sequencer::crypto::keccak::{Backend, keccak256, keccak256_each_with};
use native_sequencer::state::bloom::{self, BloomCache};
use native_sequencer::state::files::FileStore;
use native_sequencer::state::files::file_disk::FileDisk;
use native_sequencer::state::files::recovery::StateSettings;
use native_sequencer::state::genesis::{GenesisAccount, from_alloc};
use native_sequencer::state::memory::{MemoryStore, Reader};
use native_sequencer::state::{
    AccountChange, AccountInfo, CODE_HASH_EMPTY, ListRoot, Snapshot, StateChanges, StateReader, StateStore,
};
use native_sequencer::witness::collect::collect;
use sha3::Digest;

/// A small generator with a fixed seed (xorshift64*): runs are comparable.
struct Prng(u64);

impl Prng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Time per permutation: 1,024 messages of one block (113 bytes, an account leaf) and of four (532 bytes, a full branch).
fn keccak(criterion: &mut Criterion) {
    let mut prng = Prng(1);
    for (bytes, permutations) in [(113, 1), (532, 4)] {
        let mut group = criterion.benchmark_group(format!("keccak_{bytes}_bytes"));
        group.throughput(Throughput::Elements(1024 * permutations));
        let messages: Vec<Vec<u8>> = (0..1024).map(|_| prng.bytes(bytes)).collect();
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
            group.bench_function(backend.name(), |bencher| {
                let mut digests = vec![B256::ZERO; messages.len()];
                bencher.iter(|| {
                    let place = |index: usize, digest| digests[index] = digest;
                    keccak256_each_with(backend, messages.len(), |index| &messages[index], place);
                    black_box(digests[7]);
                });
            });
        }
        group.bench_function("sha3_crate", |bencher| {
            bencher.iter(|| messages.iter().map(|message| sha3::Keccak256::digest(message)[0]).fold(0, |a, b| a ^ b));
        });
        group.bench_function("alloy_crate", |bencher| {
            bencher
                .iter(|| messages.iter().map(|message| alloy_primitives::keccak256(message)[0]).fold(0, |a, b| a ^ b));
        });
        group.bench_function("one_by_one", |bencher| {
            bencher.iter(|| messages.iter().map(|message| keccak256(message)[0]).fold(0, |a, b| a ^ b));
        });
        group.finish();
    }
}

/// Lists of 10,000 items as long as a transfer (117 B), its receipt (269 B), and an ERC-20 receipt (427 B).
fn list_roots(criterion: &mut Criterion) {
    let mut prng = Prng(2);
    let mut group = criterion.benchmark_group("list_root_10000");
    for bytes in [117, 269, 427] {
        let items: Vec<Vec<u8>> = (0..10_000).map(|_| prng.bytes(bytes)).collect();
        let mut builder = ListRoot::new();
        group.bench_function(format!("push_and_finish_{bytes}"), |bencher| {
            bencher.iter(|| {
                builder.reset();
                items.iter().for_each(|item| builder.push(item));
                builder.finish()
            });
        });
        group.bench_function(format!("finish_{bytes}"), |bencher| {
            bencher.iter_batched_ref(
                || {
                    let mut builder = ListRoot::new();
                    items.iter().for_each(|item| builder.push(item));
                    builder
                },
                ListRoot::finish,
                BatchSize::LargeInput,
            );
        });
        group.bench_function(format!("alloy_{bytes}"), |bencher| {
            bencher.iter(|| alloy_trie::root::ordered_trie_root_encoded(&items));
        });
    }
    group.finish();
}

/// Blooms of 10,000 ERC-20 transfers: one token, one event, two indexed addresses each.
fn blooms(criterion: &mut Criterion) {
    let mut prng = Prng(3);
    let token = Address::repeat_byte(0x11);
    let logs: Vec<[B256; 3]> = (0..10_000)
        .map(|_| [B256::repeat_byte(0xdd), B256::from(U256::from(prng.next())), B256::from(U256::from(prng.next()))])
        .collect();
    criterion.bench_function("bloom_10000_transfers", |bencher| {
        let mut cache = BloomCache::new();
        bencher.iter(|| {
            let mut bloom = Bloom::ZERO;
            logs.iter().for_each(|topics| bloom::accrue(&mut cache, &mut bloom, &token, topics));
            bloom
        });
    });
}

fn address(number: u64) -> Address {
    Address::left_padding_from(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
}

fn pool() -> Arc<rayon::ThreadPool> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|_| "hash".into()).build();
    Arc::new(pool.expect("threads can be spawned"))
}

fn alloc(accounts: u64) -> impl Iterator<Item = GenesisAccount> {
    (0..accounts).map(|number| GenesisAccount {
        address: address(number),
        balance_wei: U256::from(number) << 40,
        nonce: number % 50,
        ..GenesisAccount::default()
    })
}

fn state(accounts: u64) -> (MemoryStore, Reader) {
    let mut store = MemoryStore::new(pool());
    let reader = from_alloc(&mut store, alloc(accounts)).expect("addresses are distinct");
    (store, reader)
}

/// `count` changed accounts and a tenth of it new ones, as the workload of the peers has it.
fn block(prng: &mut Prng, count: usize, accounts: u64) -> StateChanges {
    let mut changes = changes(prng, count, accounts);
    let new = |_| AccountChange { address: address(1 << 50 | prng.next() >> 16), ..changes.accounts[0].clone() };
    let new: Vec<AccountChange> = (0..count / 10).map(new).collect();
    changes.accounts.extend(new);
    changes
}

fn percentile(sorted: &[u64], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100] as f64 / 1e3
}

/// Times of the commits, syncs and reclaim steps of one size of block, in µs: least, median, most.
fn file_blocks(store: &mut FileStore, prng: &mut Prng, count: usize, rounds: usize, accounts: u64) {
    let mut syncer = store.take_syncer();
    let mut reader = store.newest().expect("there is the first version").clone();
    let mut times = [const { Vec::new() }; 3];
    let (mut appended, mut moved, mut changed) = (0, 0, 0);
    for _ in 0..rounds {
        let changes = block(prng, count, accounts);
        changed += changes.accounts.len() as u64;
        let before = store.written_bytes();
        let start = Instant::now();
        reader = store.commit(&reader, &changes).expect("changes are sound");
        times[0].push(start.elapsed().as_nanos() as u64);
        let committed = store.written_bytes();
        appended += committed - before;
        let start = Instant::now();
        if let Some(syncer) = &mut syncer {
            syncer.sync(u64::MAX).expect("the disk works");
        }
        times[1].push(start.elapsed().as_nanos() as u64);
        let start = Instant::now();
        store.reclaim().expect("nodes are sound");
        times[2].push(start.elapsed().as_nanos() as u64);
        moved += store.written_bytes() - committed;
    }
    for (name, times) in ["commit (root and written)", "sync", "reclaim"].into_iter().zip(&mut times) {
        times.sort_unstable();
        let [least, middle, most] = [0, 50, 100].map(|percent| percentile(times, percent));
        println!(
            "files, {count} of {accounts}: {name} {least:.0} / {middle:.0} / {most:.0} µs (least, median, most of {rounds})"
        );
    }
    println!(
        "files, {count} of {accounts}: {} bytes per changed account, {} with what is moved; {} MiB on the disk",
        appended / changed,
        (appended + moved) / changed,
        store.segment_bytes() >> 20
    );
    if let Some(syncer) = syncer {
        store.put_syncer(syncer);
    }
}

fn file_reads(name: &str, store: &FileStore, prng: &mut Prng, accounts: u64) {
    let reader = store.newest().expect("there is a version");
    let keys: Vec<B256> = (0..1 << 18).map(|_| keccak256(address(prng.next() % accounts).as_slice())).collect();
    let mut times: Vec<u64> = keys
        .iter()
        .map(|key| {
            let start = Instant::now();
            black_box(reader.account_by_key(key).expect("nodes are sound").expect("it exists"));
            start.elapsed().as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    println!("files, {name}: point read p50 {:.2} µs, p99 {:.2} µs", percentile(&times, 50), percentile(&times, 99));
}

/// The state in files: not by criterion, because every block changes what the next one finds.
fn files(criterion: &mut Criterion) {
    let is_smoke = !std::env::args().any(|argument| argument == "--bench");
    let accounts = std::env::var("TRIE_ACCOUNTS").ok().and_then(|count| count.parse().ok());
    let accounts: u64 = accounts.unwrap_or(if is_smoke { 2_000 } else { 1_000_000 });
    let rounds = if is_smoke { 2 } else { 60 };
    let parent = std::env::var("STATE_BENCH_DIR").unwrap_or_else(|_| env!("CARGO_TARGET_TMPDIR").to_owned());
    let dir = std::path::PathBuf::from(parent).join(format!("sequencer-bench-state-{}", std::process::id()));
    let disk = FileDisk::open(&dir, true).expect("bench directory is writable");
    let mut store = FileStore::open(pool(), Box::new(disk), StateSettings::default()).expect("an empty directory");
    let start = Instant::now();
    from_alloc(&mut store, alloc(accounts)).expect("addresses are distinct");
    println!("files: {accounts} accounts in {} ms, {} MiB", start.elapsed().as_millis(), store.written_bytes() >> 20);
    let (mut disk, segment_bytes) = store.preparer();
    let mut prng = Prng(5);
    file_reads("fresh", &store, &mut prng, accounts);
    for count in [1, 10, 100, 200, 1_000, 10_000] {
        disk.prepare(segment_bytes).expect("there is room");
        file_blocks(&mut store, &mut prng, count, rounds, accounts);
    }
    file_reads("aged", &store, &mut prng, accounts);
    witnesses(criterion, store.newest().expect("blocks were committed"), &mut prng, accounts);
    drop(store);
    std::fs::remove_dir_all(&dir).expect("bench directory is ours");
}

fn changes(prng: &mut Prng, count: usize, accounts: u64) -> StateChanges {
    let mut numbers: Vec<u64> = (0..count).map(|_| prng.next() % accounts).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let info = |balance| AccountInfo { nonce: 77, balance_wei: U256::from(balance), code_hash: CODE_HASH_EMPTY };
    let change = |number| AccountChange {
        address: address(number),
        account: Some(info(number | 1 << 60)),
        storage_cleared: false,
        storage: Vec::new(),
    };
    StateChanges { accounts: numbers.into_iter().map(change).collect(), codes: Vec::new() }
}

/// Commits one block and reclaims: the time of each.
fn timed_block(
    store: &mut MemoryStore,
    reader: &mut Reader,
    prng: &mut Prng,
    count: usize,
    accounts: u64,
) -> (Duration, Duration) {
    let changes = changes(prng, count, accounts);
    let start = Instant::now();
    *reader = store.commit(reader, &changes).expect("changes are sound");
    let committed = start.elapsed();
    let start = Instant::now();
    store.reclaim().expect("nodes are sound");
    (committed, start.elapsed())
}

fn commits(criterion: &mut Criterion) {
    let accounts = std::env::var("TRIE_ACCOUNTS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let (mut store, genesis) = state(accounts);
    println!("{accounts} accounts: {} bytes of nodes", genesis.node_bytes());
    let mut prng = Prng(4);

    let mut group = criterion.benchmark_group("state_commit");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for count in [1, 100, 1_000, 10_000] {
        let mut reader = genesis.clone();
        group.bench_function(format!("{count}_of_{accounts}"), |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations).map(|_| timed_block(&mut store, &mut reader, &mut prng, count, accounts).0).sum()
            });
        });
    }
    group.bench_function("reclaim_after_10000", |bencher| {
        let mut reader = genesis.clone();
        bencher.iter_custom(|iterations| {
            (0..iterations).map(|_| timed_block(&mut store, &mut reader, &mut prng, 10_000, accounts).1).sum()
        });
    });
    group.finish();

    let keys: Vec<B256> =
        (0..accounts.min(1 << 16)).map(|_| keccak256(address(prng.next() % accounts).as_slice())).collect();
    let mut next = 0;
    criterion.bench_function(&format!("account_by_key_of_{accounts}"), |bencher| {
        bencher.iter(|| {
            next = (next + 1) % keys.len();
            genesis.account_by_key(&keys[next])
        });
    });
    criterion.bench_function(&format!("account_of_{accounts}"), |bencher| {
        bencher.iter(|| {
            next = (next + 1) % keys.len();
            genesis.account(&address(next as u64 * 13))
        });
    });
}

/// The witness' nodes of a block that changes 1,000 or 10,000 accounts, and a tenth of that many absent ones beside.
fn witnesses(criterion: &mut Criterion, state: &Snapshot, prng: &mut Prng, accounts: u64) {
    let mut group = criterion.benchmark_group("witness_nodes");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for count in [1_000, 10_000] {
        let changes = changes(prng, count, accounts);
        let absent = (0..count as u64 / 10).map(|number| address(accounts + number));
        let touched = changes.accounts.iter().map(|change| change.address).chain(absent).collect();
        let accesses = Accesses { accounts: touched, ..Accesses::default() };
        let nodes = collect(state, &accesses, &changes).expect("the state is sound").nodes;
        println!(
            "{count} of {accounts}: {} nodes, {} bytes",
            nodes.len(),
            nodes.iter().map(|node| node.len()).sum::<usize>()
        );
        group.bench_function(format!("{count}_of_{accounts}"), |bencher| {
            bencher.iter(|| collect(state, &accesses, &changes));
        });
    }
    group.finish();
}

criterion_group!(benches, keccak, list_roots, blooms, commits, files);
criterion_main!(benches);
