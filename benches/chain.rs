//! What the chain database costs: CPU per block of 20,000 transactions with many hashes present, and the latency of a look-up by hash.
//!
//! `cargo bench --bench chain` prints a table. `CHAIN_BENCH_HASHES` = hashes present before measuring (default 5,000,000),
//! `CHAIN_BENCH_DIR` = where (default the system's temporary directory). CPU is of the whole process, index worker included.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use alloy_consensus::Header;
use native_sequencer::chain::receipt::{encode_head, encode_log};
use native_sequencer::chain::{BlockRecord, ChainLimits, ChainReader, ChainWriter, LogQuery, TxRecord};
use native_sequencer::primitives::{Address, B256, Bloom, Span};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

const TXS_PER_BLOCK: usize = 20_000;
const BLOCKS_MEASURED: usize = 30;
const LOOKUPS: usize = 100_000;

/// What a block of the bench is made of.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    tx_bytes: usize,
    has_log: bool,
}

const INDEX_ONLY: Shape = Shape { name: "index only (1-byte transactions)", tx_bytes: 1, has_log: false };
const TRANSFER: Shape = Shape { name: "transfers (115 B, no log)", tx_bytes: 115, has_log: false };
const TOKEN: Shape = Shape { name: "ERC-20 transfers (180 B, 1 log)", tx_bytes: 180, has_log: true };

/// A block's parts, kept between blocks so that making them is not measured.
struct Block {
    hash: B256,
    header_rlp: Vec<u8>,
    body: Vec<u8>,
    receipts: Vec<u8>,
    txs: Vec<TxRecord>,
}

fn make_block(rng: &mut StdRng, number: u64, shape: Shape) -> Block {
    let (mut body, mut receipts, mut txs) = (Vec::new(), Vec::new(), Vec::with_capacity(TXS_PER_BLOCK));
    let token = Address::repeat_byte(0x70);
    for index in 0..TXS_PER_BLOCK as u64 {
        let (body_start, receipts_start) = (body.len() as u32, receipts.len() as u32);
        put_item(rng, shape.tx_bytes, &mut body);
        encode_head(2, true, 21_000 * (index + 1), 21_000, None, u64::from(shape.has_log), &mut receipts);
        if shape.has_log {
            let topics = [B256::repeat_byte(0xdd), rng.random::<[u8; 32]>().into(), rng.random::<[u8; 32]>().into()];
            encode_log(&token, topics.iter(), &[1; 32], &mut receipts);
        }
        txs.push(TxRecord {
            hash: rng.random::<[u8; 32]>().into(),
            sender: rng.random::<[u8; 20]>().into(),
            body_span: Span { start: body_start, len: body.len() as u32 - body_start },
            receipt_span: Span { start: receipts_start, len: receipts.len() as u32 - receipts_start },
        });
    }
    // With 40,000 topics the bloom of a token block has every bit set.
    let logs_bloom = if shape.has_log { Bloom::repeat_byte(0xff) } else { Bloom::ZERO };
    let header = Header { number, logs_bloom, ..Header::default() };
    Block { hash: rng.random::<[u8; 32]>().into(), header_rlp: alloy_rlp::encode(&header), body, receipts, txs }
}

fn put_item(rng: &mut StdRng, tx_bytes: usize, body: &mut Vec<u8>) {
    if tx_bytes == 1 {
        return body.push(0xc0);
    }
    alloy_rlp::Header { list: false, payload_length: tx_bytes }.encode(body);
    let start = body.len();
    body.resize(start + tx_bytes, 0);
    rng.fill_bytes(&mut body[start..]);
}

fn append(writer: &mut ChainWriter, block: &Block) {
    let record = BlockRecord {
        number: writer.next_number(),
        hash: block.hash,
        header_rlp: &block.header_rlp,
        body: &block.body,
        withdrawals_rlp: &[0xc0],
        requests_rlp: &[],
        txs: &block.txs,
        receipts: &block.receipts,
    };
    writer.append(&record).expect("bench directory is writable");
}

/// CPU time of all threads that live now.
fn process_cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux");
    let nanos = tasks.filter_map(|task| {
        let stat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// CPU time of this thread: what the chain thread itself spends.
fn thread_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    Duration::from_nanos(stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("schedstat of this thread"))
}

fn measure_appends(writer: &mut ChainWriter, rng: &mut StdRng, shape: Shape, block_count: usize) -> Vec<B256> {
    let (mut process, mut thread, mut walls) = (Duration::ZERO, Duration::ZERO, Vec::new());
    let mut hashes = Vec::new();
    for _ in 0..block_count {
        let block = make_block(rng, writer.next_number(), shape);
        hashes.push(block.txs[rng.random_range(0..TXS_PER_BLOCK)].hash);
        // Blocks come at intervals; the worker's time is counted over the pause as well, the making of the block is not.
        let (process_before, thread_before, start) = (process_cpu(), thread_cpu(), Instant::now());
        append(writer, &block);
        walls.push(start.elapsed());
        thread += thread_cpu() - thread_before;
        std::thread::sleep(Duration::from_millis(60));
        process += process_cpu() - process_before;
    }
    walls.sort_unstable();
    let per_block = |total: Duration| total.as_secs_f64() * 1e3 / block_count as f64;
    println!(
        "| append, {} | {:.2} | {:.2} | {:.2} | {:.2} |",
        shape.name,
        per_block(process),
        per_block(thread),
        walls[walls.len() / 2].as_secs_f64() * 1e3,
        walls[walls.len() - 1].as_secs_f64() * 1e3,
    );
    hashes
}

fn measure_lookups(name: &str, reader: &ChainReader, hashes: &[B256], present: bool) {
    let mut nanos: Vec<u64> = Vec::with_capacity(hashes.len());
    for hash in hashes {
        let start = Instant::now();
        let found = reader.transaction_by_hash(hash).expect("undamaged");
        nanos.push(start.elapsed().as_nanos() as u64);
        assert_eq!(found.is_some(), present);
    }
    nanos.sort_unstable();
    let at = |share: f64| nanos[((nanos.len() - 1) as f64 * share) as usize] as f64 / 1e3;
    println!(
        "| look-up, {name} | p50 {:.2} µs | p99 {:.2} µs | p99.9 {:.2} µs | {} |",
        at(0.5),
        at(0.99),
        at(0.999),
        nanos.len()
    );
}

fn measure_log_scan(reader: &ChainReader) {
    let block_count = reader.latest_number().expect("blocks were appended") + 1;
    let query =
        LogQuery::new(&[Address::repeat_byte(0x70)], [&[B256::repeat_byte(0xdd)], &[B256::repeat_byte(1)], &[], &[]]);
    let start = Instant::now();
    let rounds = 10_000 / block_count + 1;
    let mut candidates = 0;
    for number in (0..rounds).flat_map(|_| 0..block_count) {
        candidates += u64::from(reader.may_have_logs(number, &query).expect("undamaged"));
    }
    let per_block = start.elapsed().as_secs_f64() * 1e9 / (rounds * block_count) as f64;
    println!("| log filter, a block | {per_block:.0} ns | {candidates} candidates of {} | | |", rounds * block_count);
}

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--test");
    let hash_count = std::env::var("CHAIN_BENCH_HASHES").ok().and_then(|count| count.parse().ok());
    let hash_count = hash_count.unwrap_or(if smoke { 40_000 } else { 5_000_000_usize });
    let block_count = if smoke { 2 } else { BLOCKS_MEASURED };
    let parent = std::env::var_os("CHAIN_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("sequencer-bench-chain-{}", std::process::id()));
    let mut rng = StdRng::seed_from_u64(1);
    let (mut writer, reader) = ChainWriter::open(&dir, ChainLimits::default()).expect("bench directory is writable");
    let mut present = Vec::new();
    for _ in 0..hash_count / TXS_PER_BLOCK {
        let block = make_block(&mut rng, writer.next_number(), INDEX_ONLY);
        append(&mut writer, &block);
        present.extend(
            (0..LOOKUPS * TXS_PER_BLOCK / hash_count.max(1))
                .map(|_| block.txs[rng.random_range(0..TXS_PER_BLOCK)].hash),
        );
    }
    writer.sync().expect("bench directory is writable");
    std::thread::sleep(Duration::from_secs(if smoke { 0 } else { 2 }));
    println!("{hash_count} hashes present, blocks of {TXS_PER_BLOCK} transactions");
    println!(
        "| what | process CPU ms/block | chain thread CPU ms/block | wall median ms | wall max ms |\n|---|---|---|---|---|"
    );
    for shape in [INDEX_ONLY, TRANSFER, TOKEN] {
        present.extend(measure_appends(&mut writer, &mut rng, shape, block_count));
    }
    measure_lookups("present", &reader, &present, true);
    let absent: Vec<B256> = (0..present.len()).map(|_| rng.random::<[u8; 32]>().into()).collect();
    measure_lookups("absent", &reader, &absent, false);
    measure_log_scan(&reader);
    drop((writer, reader));
    let start = Instant::now();
    let opened = ChainWriter::open(&dir, ChainLimits::default()).expect("undamaged");
    println!("| open again | {:.1} ms | | | |", start.elapsed().as_secs_f64() * 1e3);
    drop(opened);
    fs::remove_dir_all(&dir).expect("bench directory is ours");
}
