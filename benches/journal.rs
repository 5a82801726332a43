//! What one group costs on the disk: a durable write into a slot, as the journal thread makes it, nothing else in flight.
//!
//! `cargo bench --bench journal`; `JOURNAL_BENCH_DIR` = where (default `target/tmp`). Slots are zeroed before, writes follow each other through
//! the slot and begin again at its start, which is what a slot in use looks like to the disk.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use native_sequencer::journal::file_storage::{FileStorage, SyncMode, WriteEngine};
use native_sequencer::journal::storage::{BLOCK_BYTES, Storage, SyncPoint};

const GROUP_KIB: [usize; 4] = [4, 16, 64, 256];

/// A slot that is written from start to end, again and again.
struct Slot {
    storage: FileStorage,
    bytes: u64,
    offset: u64,
    groups: Vec<u8>,
}

impl Slot {
    fn new(dir: &std::path::Path, sync: SyncMode, engine: WriteEngine, bytes: u64) -> Self {
        let mut storage = FileStorage::open(dir, sync, engine).expect("bench directory is writable");
        storage.create(0, bytes).expect("there is room for a slot");
        let groups = (0..GROUP_KIB[3] * 1_024 + BLOCK_BYTES).map(|index| (index % 251) as u8).collect();
        Self { storage, bytes, offset: 0, groups }
    }

    fn write(&mut self, group_bytes: usize) {
        if self.offset + group_bytes as u64 > self.bytes {
            self.offset = 0;
        }
        let start = self.groups.as_ptr().align_offset(BLOCK_BYTES);
        let group = &self.groups[start..][..group_bytes];
        self.storage.write(0, self.offset, group, SyncPoint::Group).expect("the disk works");
        self.offset += group_bytes as u64;
    }
}

/// Criterion has no percentiles.
fn percentiles(slot: &mut Slot, count: usize) {
    println!("| group | p50 µs | p90 µs | p99 µs | max µs | writes |\n|---|---|---|---|---|---|");
    for kib in GROUP_KIB {
        let mut nanos: Vec<u64> = (0..count)
            .map(|_| {
                let start = Instant::now();
                slot.write(kib * 1_024);
                start.elapsed().as_nanos() as u64 // Far below 584 years.
            })
            .collect();
        nanos.sort_unstable();
        let at = |share: f64| nanos[((count - 1) as f64 * share) as usize] as f64 / 1e3;
        println!("| {kib} KiB | {:.0} | {:.0} | {:.0} | {:.0} | {count} |", at(0.5), at(0.9), at(0.99), at(1.0));
    }
}

fn main() {
    let is_smoke = !std::env::args().any(|argument| argument == "--bench")
        || std::env::args().any(|argument| argument == "--test");
    let parent =
        std::env::var_os("JOURNAL_BENCH_DIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = parent.join(format!("sequencer-bench-journal-{}", std::process::id()));
    let slot_bytes = if is_smoke { 1 << 20 } else { 64 << 20 };

    let start = Instant::now();
    let mut slot = Slot::new(&dir.join("durable"), SyncMode::Always, WriteEngine::Pwritev2, slot_bytes);
    println!("a slot of {} MiB: {:.1} ms", slot_bytes >> 20, start.elapsed().as_secs_f64() * 1e3);
    let count = if is_smoke { 4 } else { 1_000 };
    println!("\npwritev2, {}", slot.storage.mode_name());
    percentiles(&mut slot, count);
    let mut ring = Slot::new(&dir.join("ring"), SyncMode::Always, WriteEngine::IoUring, slot_bytes);
    println!("\nio_uring, {}", ring.storage.mode_name());
    percentiles(&mut ring, count);
    drop(ring);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("group_write");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for kib in GROUP_KIB {
        group.throughput(Throughput::Bytes(kib as u64 * 1_024));
        group.bench_function(BenchmarkId::from_parameter(format!("{kib}KiB")), |bencher| {
            bencher.iter(|| slot.write(kib * 1_024));
        });
    }
    group.finish();

    // The harness's and the ring's own part: the same without a flush, into the page cache.
    let mut cached = Slot::new(&dir.join("cached"), SyncMode::Off, WriteEngine::Pwritev2, slot_bytes);
    println!("writes: {}", cached.storage.mode_name());
    percentiles(&mut cached, if is_smoke { 4 } else { 1_000 });

    let start = Instant::now();
    let sum = slot.storage.read(0).expect("the slot is there").iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let ms = start.elapsed().as_secs_f64() * 1e3;
    println!("a slot of {} MiB read and summed: {ms:.1} ms ({sum})", slot_bytes >> 20);
    drop((slot, cached));
    std::fs::remove_dir_all(&dir).expect("bench directory is ours");
}
