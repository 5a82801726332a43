//! What a start costs after a kill: the journal of many transfers is scanned, read and executed again, as start-up does it.
//!
//! `cargo bench --bench replay`; `REPLAY_TRANSACTIONS` = how many (default 1,000,000; 2,000 in one pass), `JOURNAL_BENCH_DIR` = where
//! (default `target/tmp`). The chain database is empty, so that every block comes from the journal and is written to it. The slots are in the
//! page cache; a cold disk adds the time to read them. Signatures are constants: the journal holds the senders, nobody recovers them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Signature, U256};
use native_sequencer::builder::block::SealedBlock;
use native_sequencer::builder::replay::from_journal::{self, JournalView};
use native_sequencer::builder::replay::{self, Replay};
use native_sequencer::chain::sealed_record::Recorder;
use native_sequencer::chain::{ChainLimits, ChainReader, ChainWriter};
use native_sequencer::codec::transaction;
use native_sequencer::config::genesis::{ChainSpec, dev_genesis};
use native_sequencer::journal::file_storage::{FileStorage, SlotBytes, SyncMode, WriteEngine};
use native_sequencer::journal::history::History;
use native_sequencer::journal::log::{Log, LogSettings};
use native_sequencer::journal::scan::{Scan, scan};
use native_sequencer::journal::storage::Storage;
use native_sequencer::limits;
use native_sequencer::messages::{IngressMessage, Submit, SubmitWait};
use native_sequencer::primitives::{Fork, ReplyToken, ShardId};
use native_sequencer::state::Store;
use native_sequencer::testing::bench_chain::BenchChain;

const SENDERS: usize = 10_000;
const SETTINGS: LogSettings = LogSettings {
    segment_bytes: 64 << 20,
    group_bytes_max: limits::JOURNAL_GROUP_BYTES_MAX,
    segments_kept_max: 65_536,
};

/// The 2718 encoding of a transfer whose signature has the form of one.
fn transfer(chain_id: u64, nonce: u64, to: Address) -> Vec<u8> {
    let tx = TxEip1559 {
        chain_id,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 1_000_000_000,
        max_priority_fee_per_gas: 1_000_000,
        to: to.into(),
        value: U256::from(1),
        ..TxEip1559::default()
    };
    // Both below the order of the group, s in its lower half.
    tx.into_signed(Signature::new(U256::MAX >> 1, U256::MAX >> 2, true)).encoded_2718()
}

/// What a shard sends once it knows the sender.
fn submission(chain: &mut BenchChain, raw: &[u8], sender: Address) -> IngressMessage {
    let fields = transaction::decode(raw).expect("encoded here").fields;
    let mut chunk = chain.slab.alloc(raw.len()).expect("a block's worth fits");
    chunk.copy_from_slice(raw);
    IngressMessage::Submit(Submit {
        token: ReplyToken { connection: 0, generation: 0, request: 0, item: 0 },
        hash: transaction::tx_hash(raw),
        sender,
        fields,
        handle: chunk.freeze(),
        extras: None,
        wait: SubmitWait::Admission,
    })
}

/// A block of one transfer of each sender; leaves its records in `chain.effects.records`.
fn block(chain: &mut BenchChain, senders: &[Address], nonce: u64) {
    let chain_id = chain.spec.chain_id;
    for (index, sender) in senders.iter().enumerate() {
        let to = senders[(index * 7 + nonce as usize * 13 + 1) % senders.len()];
        let message = submission(chain, &transfer(chain_id, nonce, to), *sender);
        chain.core.on_message(ShardId(0), message, chain.now, &mut chain.effects).expect("readable state");
    }
    let sealed = chain.finish_block();
    assert_eq!(sealed.block.transactions.len(), senders.len());
    chain.effects.replies.clear();
    chain.effects.chain.clear();
    chain.free_chunks();
}

/// Writes everything that waits, as the journal thread does.
fn write(log: &mut Log, storage: &mut FileStorage) {
    while log.has_pending() {
        if let Some((slot, bytes)) = log.wanted_slot() {
            storage.create(slot, bytes).expect("there is room for a slot");
            log.slot_created(slot);
        }
        let write = log.next_write(0).expect("there is a free slot");
        storage.write(write.slot, write.offset, write.bytes, write.point).expect("the disk works");
        log.written();
    }
}

/// A journal of at least `count` executed transfers: how many, and in how many blocks.
fn make_journal(spec: &ChainSpec, dir: &Path, count: usize) -> (usize, u64) {
    let mut senders: Vec<Address> = spec
        .genesis
        .alloc
        .iter()
        .filter(|(_, account)| !account.balance.is_zero())
        .map(|(address, _)| *address)
        .collect();
    senders.truncate(count.min(SENDERS));
    let mut chain = BenchChain::new(spec.clone());
    chain.effects.keeps_records = true;
    let mut storage =
        FileStorage::open(dir, SyncMode::Off, WriteEngine::Pwritev2).expect("bench directory is writable");
    let mut log = Log::create(SETTINGS, [7; 16]);
    let block_count = count.div_ceil(senders.len()) as u64;
    for nonce in 0..block_count {
        block(&mut chain, &senders, nonce);
        log.append(&chain.effects.records);
        chain.effects.records.clear();
        write(&mut log, &mut storage);
    }
    (senders.len() * block_count as usize, block_count)
}

/// CPU time of all threads that live now.
fn process_cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let nanos = tasks.filter_map(|task| {
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// A chain database with block 0, and a state that stands on it.
struct Start {
    writer: ChainWriter,
    reader: ChainReader,
    store: Store,
    genesis: SealedBlock,
}

impl Start {
    fn new(spec: &ChainSpec, dir: &Path) -> Self {
        let (mut writer, reader) = ChainWriter::open(dir, ChainLimits::default()).expect("bench directory is writable");
        let threads = std::thread::available_parallelism().map_or(1, |count| (count.get() / 2).max(1));
        let hash_pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let mut store = native_sequencer::testing::state_disk::store(Arc::new(hash_pool));
        let genesis = replay::genesis_block(spec, &mut store).expect("a genesis that commits");
        writer.append(&Recorder::default().record(&genesis).0).expect("bench directory is writable");
        Self { writer, reader, store, genesis }
    }

    /// Executes the journal and keeps its blocks, as start-up does; answers the newest one's number.
    fn resume(self, spec: &ChainSpec, scanned: &Scan<SlotBytes>, history: &History) -> (u64, ChainWriter, Store) {
        let Self { mut writer, reader, mut store, genesis } = self;
        let mut replay = Replay::new(spec, &mut store, genesis);
        let tip = from_journal::agreed_tip(&reader, history).expect("an empty chain database agrees");
        assert_eq!(tip, 0);
        replay.stored(&reader).expect("there is nothing stored");
        let bytes_at = |at| scanned.record_at(at);
        let journal = JournalView { history, bytes_at: &bytes_at };
        let mut recorder = Recorder::default();
        let resumed = replay.journaled(&journal, &mut |sealed| {
            let (record, statuses) = recorder.record(sealed);
            writer.append(&record)?;
            writer.put_statuses(statuses)
        });
        let resumed = resumed.expect("every block comes out as it was");
        assert!(resumed.start.open.is_none());
        let (recent, _) = replay.into_parts();
        (recent.last().map_or(0, |sealed| sealed.header.number), writer, store)
    }
}

/// Wall time of each step, and CPU time of the process over all of them.
fn measure(spec: &ChainSpec, dir: &Path, count: usize, block_count: u64) {
    let start = Start::new(spec, &dir.join("chain"));
    let mut storage =
        FileStorage::open(&dir.join("journal"), SyncMode::Off, WriteEngine::Pwritev2).expect("as it was written");
    let (cpu, begin) = (process_cpu(), Instant::now());
    let scanned = scan(&mut storage).expect("undamaged").expect("there is a journal");
    let scan_s = begin.elapsed().as_secs_f64();
    let history = History::read(scanned.records()).expect("records that fit");
    let history_s = begin.elapsed().as_secs_f64() - scan_s;
    // The state stays alive until the clocks have been read: its threads' CPU time would go with them.
    let (tip, _writer, _store) = start.resume(spec, &scanned, &history);
    let total_s = begin.elapsed().as_secs_f64();
    let cpu_s = (process_cpu() - cpu).as_secs_f64();
    assert_eq!(tip, block_count);
    assert!(history.live.is_empty());
    let execute_s = total_s - scan_s - history_s;
    let used: u64 = scanned.segments.iter().map(|segment| segment.used_bytes()).sum();
    let groups: usize = scanned.segments.iter().map(|segment| segment.group_count()).sum();
    println!("{} MiB in {} segments, {groups} groups, {block_count} blocks", used >> 20, scanned.segments.len());
    println!(
        "replay, {count} transfers: scan {scan_s:.2} s, history {history_s:.2} s, execute {execute_s:.2} s, total {total_s:.2} s, cpu {cpu_s:.2} s"
    );
    let each = |seconds: f64| seconds * 1e6 / count as f64;
    println!(
        "per transfer: scan {:.2} µs, history {:.2} µs, execute {:.2} µs, total {:.2} µs, cpu {:.2} µs",
        each(scan_s),
        each(history_s),
        each(execute_s),
        each(total_s),
        each(cpu_s)
    );
}

fn main() {
    let is_smoke = !std::env::args().any(|argument| argument == "--bench")
        || std::env::args().any(|argument| argument == "--test");
    let count = std::env::var("REPLAY_TRANSACTIONS").ok().and_then(|count| count.parse().ok());
    let count: usize = count.unwrap_or(if is_smoke { 2_000 } else { 1_000_000 });
    assert!(count > 0, "REPLAY_TRANSACTIONS is 1 or more");
    let parent =
        std::env::var_os("JOURNAL_BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = parent.join(format!("sequencer-bench-replay-{}", std::process::id()));
    let spec = dev_genesis(Fork::Osaka, SENDERS).expect("built in");
    let (count, block_count) = make_journal(&spec, &dir.join("journal"), count);
    measure(&spec, &dir, count, block_count);
    std::fs::remove_dir_all(&dir).expect("bench directory is ours");
}
