//! What counting costs the thread that counts, and what a page costs the thread that makes it.
//!
//! `cargo bench --bench metrics`; without `--bench` (as `cargo test` runs it) one small round. Time per call, the best of the rounds: what disturbs it only adds.

use std::hint::black_box;
use std::time::Instant;

use native_sequencer::metrics::Metrics;
use native_sequencer::metrics::exposition::Exposition;
use native_sequencer::metrics::registry::{Id, Kind, REGISTRY};
use native_sequencer::runtime::clock;

const ROUNDS: usize = 20;

/// Nanoseconds of one of `calls` calls, the best of the rounds.
fn measure(name: &str, calls: u64, mut call: impl FnMut(u64)) {
    let best = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        (0..calls).for_each(&mut call);
        start.elapsed().as_nanos() as f64 / calls as f64
    });
    let best = best.fold(f64::INFINITY, f64::min);
    println!("{name:<44} {best:>12.2} ns");
}

fn main() {
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let calls = if is_test { 1_000 } else { 2_000_000 };
    let metrics = Metrics::new(1);
    let shard = &metrics.shards[0];
    measure("a counter", calls, |_| black_box(&shard.recovered).increment());
    measure("a counter by label", calls, |index| black_box(&shard.requests).increment(black_box(index as usize % 16)));
    // From 1 µs to 1 s, so that buckets change as they do under load.
    measure("a histogram", calls, |index| black_box(&shard.accepted).record(black_box(1_000 << (index % 20))));
    measure("a read of the clock", calls, |_| {
        black_box(clock::monotonic_ns());
    });
    let pages = if is_test { 1 } else { 200 };
    let histogram = shard.accepted.snapshot();
    let mut bytes = 0;
    measure("a page with every histogram once", pages, |_| {
        let mut page = Exposition::default();
        let histograms = REGISTRY.iter().filter(|metric| metric.kind == Kind::Histogram);
        for tier in histograms.map(|metric| metric.name) {
            page.histogram(Id::TierReached, &[tier], &histogram);
        }
        bytes = black_box(page.finish()).len();
    });
    println!("{bytes} bytes a page");
}
