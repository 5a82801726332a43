//! What settlement costs: cutting a block of transfers with the witness of each segment, packing, signing, and the strict check, per full
//! ExecuteTx.
//!
//! `cargo bench --bench settlement`; with `--test` one small round. CPU time of the thread, median of the rounds.
//! `SETTLEMENT_ACCOUNTS` = sizes of the state, separated by commas (default 2000,100000); `SETTLEMENT_TRANSFERS` = transfers of the block
//! (default 1,000).

use std::time::Instant;

use alloy_primitives::{Address, Bytes, U256};
use native_sequencer::crypto::keccak::backend_name;
use native_sequencer::l1::execute_tx::Terms;
use native_sequencer::l1::profile::Profile;
use native_sequencer::l1::signer::{LocalKey, Signer as _};
use native_sequencer::settlement::batch::{Compression, EXECUTE_TX_BYTES_MAX};
use native_sequencer::settlement::packer::{Event, PackedBatch, Packer, PackerSettings};
use native_sequencer::settlement::segment::{CutLimits, Segment, cut};
use native_sequencer::settlement::strict::{NoOrigins, Tip, check};
use native_sequencer::testing::sealed_chain::{SealedChain, origin};
use native_sequencer::witness::validator::{Strictness, validate};

const ROUNDS: usize = 15;
/// A round repeats its work for about this long.
const ROUND_NS: u128 = 50_000_000;

/// CPU time of this thread.
fn cpu_time_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number")
}

/// Milliseconds of CPU time that `work` takes: the median of the rounds, and an answer.
fn median_ms<T>(rounds: usize, mut work: impl FnMut() -> T) -> (f64, T) {
    let start = Instant::now();
    let answer = work();
    let repeats = if rounds == 1 { 1 } else { (ROUND_NS / start.elapsed().as_nanos().max(1)).max(1) };
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start_ns = cpu_time_ns();
            for _ in 0..repeats {
                std::hint::black_box(work());
            }
            (cpu_time_ns() - start_ns) as f64 / 1e6 / repeats as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[rounds / 2], answer)
}

fn pack(segments: &[Segment], tip: &Tip, compression: Compression) -> Vec<PackedBatch> {
    let mut packer = Packer::new(PackerSettings { compression, ..PackerSettings::default() }, tip.start());
    let mut batches = packer.step(Event::Segments(segments.to_vec()), 0).expect("in order");
    batches.extend(packer.step(Event::Flush, 0).expect("nothing comes in"));
    batches
}

/// The raw ExecuteTx, as the transaction manager makes it.
fn sign(key: &LocalKey, batch: &PackedBatch) -> Bytes {
    let encoded = batch.payload.encoded(Profile::ExecuteTxV2);
    let chain_id = U256::from(key.chain_id());
    let (tip_cap_wei, fee_cap_wei) = (U256::from(1_000_000_000_u64), U256::from(50_000_000_000_u64));
    let terms = Terms { chain_id, nonce: 1, tip_cap_wei, fee_cap_wei, gas: encoded.gas().limit(chain_id, true) };
    let signature = key.sign(&encoded, &terms).expect("its own chain");
    encoded.encode(&terms, &signature)
}

fn run(rounds: usize, account_count: usize, tx_count: usize) {
    let mut chain = SealedChain::new(account_count, tx_count);
    let tip = Tip::genesis(chain.genesis.clone(), origin(0));
    let strangers: Vec<Address> = chain.spec.genesis.alloc.keys().copied().collect();
    // A step that shares no factor with the number of accounts visits different ones.
    let to = |index: usize| strangers[(index * 7_919 + 13) % strangers.len()];
    let raws: Vec<Bytes> = (0..tx_count).map(|index| chain.transfer(index, to(index))).collect();
    let tx_bytes: usize = raws.iter().map(|raw| raw.len()).sum();
    let sealed = chain.seal(raws, origin(1), Vec::new());
    let (block, witness) = (&sealed.block, &sealed.witness);

    let (validate_ms, _) =
        median_ms(rounds, || validate(&chain.spec, block, witness, Strictness::NORMAL).expect("a valid block"));
    let limits = CutLimits::default();
    let (cut_ms, segments) =
        median_ms(rounds, || cut(&chain.spec, block, witness, sealed.origin, &limits).expect("a whole witness"));
    let (stored_ms, stored) = median_ms(rounds, || pack(&segments, &tip, Compression::Stored));
    let (zstd_ms, zstd) = median_ms(rounds, || pack(&segments, &tip, Compression::Zstd));
    let key = LocalKey::from_hex(&"4f".repeat(32), "the bench", 61_971).expect("a key");
    let (sign_ms, _) = median_ms(rounds, || stored.iter().map(|batch| sign(&key, batch)).collect::<Vec<_>>());
    let (strict_ms, _) = median_ms(rounds, || {
        let check = |batch: &PackedBatch| check(&chain.spec, &batch.payload, &NoOrigins).expect("ours");
        stored.iter().map(check).collect::<Vec<_>>()
    });

    let sum = |batches: &[PackedBatch]| batches.iter().map(|batch| batch.tx_bytes).sum::<usize>();
    // As if all were full: the last of a block seldom is.
    let full = sum(&stored) as f64 / EXECUTE_TX_BYTES_MAX as f64;
    println!(
        "{account_count} accounts, {tx_count} transfers of {tx_bytes} bytes, block witness {} nodes, {} bytes, keccak {}",
        witness.state.len(),
        witness.state.iter().map(|node| node.len()).sum::<usize>(),
        backend_name(),
    );
    println!(
        "  {} segments; {} batches of {} bytes stored, {} of {} bytes with zstd; {full:.2} full ExecuteTx, {:.0} transfers each",
        segments.len(),
        stored.len(),
        sum(&stored),
        zstd.len(),
        sum(&zstd),
        tx_count as f64 / full,
    );
    println!("  CPU ms              per block   per full ExecuteTx");
    for (name, ms) in [
        ("validate (whole)", validate_ms),
        ("cut, witnesses", cut_ms),
        ("pack, stored", stored_ms),
        ("pack, zstd 3", zstd_ms),
        ("encode, sign", sign_ms),
        ("strict", strict_ms),
    ] {
        println!("  {name:18} {ms:10.3} {:12.3}", ms / full);
    }
}

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return run(1, 100, 50);
    }
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let tx_count = setting("SETTLEMENT_TRANSFERS", "1000").parse().expect("a number");
    for accounts in setting("SETTLEMENT_ACCOUNTS", "2000,100000").split(',') {
        run(ROUNDS, accounts.trim().parse().expect("a number"), tx_count);
    }
}
