//! One ingress shard without sockets: HTTP bytes in, parsed, decoded, hashed, recovered, pushed to the builder's ring, replies out.
//!
//! `cargo bench --bench ingress`; with `--test` one small round. CPU time of the thread per transaction, median of the rounds, beside
//! bare recovery of the same signatures. Fails when the steady state allocates more than once per 100 transactions.

#![allow(
    unsafe_code,
    reason = "a counting allocator is a GlobalAlloc; the clock of a thread's CPU time is a libc call"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use alloy_primitives::{Address, B256};
use crossbeam::channel::bounded;
use crossbeam::queue::ArrayQueue;
use native_sequencer::builder::block::Heads;
use native_sequencer::builder::replay::genesis_block;
use native_sequencer::codec::http::{HttpLimits, Progress, RequestParser};
use native_sequencer::codec::transaction;
use native_sequencer::config::genesis::dev_genesis;
use native_sequencer::config::{HttpConfig, Wait};
use native_sequencer::crypto::recovery::{RecoverError, RecoverItem, recover_batch};
use native_sequencer::ingress::connection::{Connection, Content, Input, Policy};
use native_sequencer::ingress::driver::{ShardSeat, ShardSettings};
use native_sequencer::ingress::shard::ShardCore;
use native_sequencer::limits::{
    IN_FLIGHT_PER_SHARD_MAX, INGRESS_RING_SLOTS, NEIGHBOUR_SLOTS_PER_SHARD, QUERIES_PER_SHARD_MAX,
};
use native_sequencer::messages::{BuilderReply, IngressMessage};
use native_sequencer::primitives::{Fork, Sequence, ShardId};
use native_sequencer::ring::{Consumer, Doorbell, Mailbox, Producer, ring};
use native_sequencer::rpc::{self, ConnectionKey};
use native_sequencer::runtime::slab::{Slab, TxHandle};
use native_sequencer::testing::signing::TestKey;
use native_sequencer::topology::Shared;

const CHAIN_ID: u64 = 61_972;
/// More than one allocation per 100 transactions means that something allocates per transaction or per batch.
const ALLOCATIONS_MAX: f64 = 0.01;

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

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // As in `alloc`.
        let _ = ALLOCATION_COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is mimalloc's.
        unsafe { mimalloc::MiMalloc.realloc(pointer, layout, new_bytes) }
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

/// CPU nanoseconds and allocations of `body`.
fn measure(body: impl FnOnce()) -> (u64, u64) {
    let allocations = ALLOCATION_COUNT.get();
    let start = cpu_time_ns();
    body();
    (cpu_time_ns() - start, ALLOCATION_COUNT.get() - allocations)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A shard, and the far ends of its rings.
struct Bench {
    core: ShardCore,
    inbox: Consumer<IngressMessage>,
    replies: Producer<BuilderReply>,
    freed: Producer<TxHandle>,
    connections: Vec<ConnectionKey>,
    dirty: Vec<ConnectionKey>,
}

fn shard(connection_count: usize) -> Bench {
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"));
    let spec = dev_genesis(Fork::Osaka, 1).expect("built in");
    let genesis =
        genesis_block(&spec, &mut native_sequencer::testing::state_disk::store(pool)).expect("an empty store takes it");
    let (doorbell, builder_bell) = (Arc::new(Doorbell::for_task()), Arc::new(Doorbell::for_thread()));
    let heads = Arc::new(Heads::new([Arc::new(genesis)].into(), None));
    let (bells, chain_bell) = (vec![Arc::clone(&doorbell)], Arc::new(Doorbell::for_thread()));
    let shared = Arc::new(Shared::new(heads, bells, chain_bell, Arc::clone(&builder_bell), Sequence(0)));
    let (to_builder, inbox) = ring(INGRESS_RING_SLOTS, &builder_bell);
    let (replies, from_builder) = ring(IN_FLIGHT_PER_SHARD_MAX, &doorbell);
    let (freed, freed_rx) = ring(IN_FLIGHT_PER_SHARD_MAX, &doorbell);
    let http = HttpConfig {
        address: ([127, 0, 0, 1], 0).into(),
        shards: 1,
        vhosts: Vec::new(),
        cors: false,
        connections_max: 100,
        body_bytes_max: 5 << 20,
        batch_items_max: 1_000,
        batch_wait_ns: 0,
        idle_timeout_ns: 1_000_000_000,
    };
    let rpc = rpc::Settings {
        chain_id: CHAIN_ID,
        client_version: "bench".to_owned(),
        debug_enabled: false,
        pool_content_enabled: false,
        proxy_enabled: false,
        state_is_remote: false,
        priority_fee_min_wei: 1,
    };
    let settings = ShardSettings {
        http,
        chain_id: CHAIN_ID,
        wait: Wait::Park,
        query_timeout_ns: 1_000_000_000,
        chunks_max: IN_FLIGHT_PER_SHARD_MAX,
        rpc,
    };
    let seat = ShardSeat {
        id: ShardId(0),
        settings,
        slab: Slab::new(ShardId(0), 64 << 20).expect("64 MiB"),
        to_builder,
        from_builder,
        freed: freed_rx,
        to_query: bounded(8).0,
        from_query: Arc::new(ArrayQueue::new(QUERIES_PER_SHARD_MAX)),
        mailboxes: Arc::new([Mailbox::new(NEIGHBOUR_SLOTS_PER_SHARD, &doorbell)]),
        doorbell,
        shared,
        bound: sync_channel(1).0,
    };
    let (mut core, ..) = ShardCore::new(seat);
    let connections = (0..connection_count).map(|_| core.open(0)).collect();
    Bench { core, inbox, replies, freed, connections, dirty: Vec::new() }
}

/// CPU nanoseconds of the parts of a round.
#[derive(Default)]
struct Parts {
    input: u64,
    submit: u64,
    reply: u64,
}

impl Bench {
    /// Sends `requests`, `per_turn` in each turn of the loop, over the connections in rotation, and answers every transaction.
    fn round(&mut self, requests: &[Vec<u8>], per_turn: usize, buffer: &mut [u8], parts: &mut Parts) -> usize {
        let mut tx_count = 0;
        for turn in requests.chunks(per_turn) {
            let start = cpu_time_ns();
            for (index, request) in turn.iter().enumerate() {
                // As the kernel does: the bytes lie in the shard's own buffer.
                buffer[..request.len()].copy_from_slice(request);
                let key = self.connections[index % self.connections.len()];
                self.core.input(key, &mut buffer[..request.len()], 0);
            }
            let read = cpu_time_ns();
            self.core.submit(usize::MAX);
            let submitted = cpu_time_ns();
            tx_count += self.play_builder();
            let answered = cpu_time_ns();
            self.core.turn(0);
            self.core.take_dirty(&mut self.dirty);
            for &key in &self.dirty {
                let Some(connection) = self.core.connection(key) else { continue };
                let bytes = connection.output().len();
                connection.output_written(bytes, 0);
            }
            parts.input += read - start;
            parts.submit += submitted - read;
            parts.reply += cpu_time_ns() - answered;
        }
        tx_count
    }

    fn play_builder(&mut self) -> usize {
        let mut count = 0;
        while let Some(message) = self.inbox.pop() {
            let IngressMessage::Submit(submit) = message else { panic!("only submissions") };
            let reply = BuilderReply::Admitted { token: submit.token, hash: submit.hash, gate: Sequence(0) };
            assert!(self.replies.push(reply).is_ok() && self.freed.push(submit.handle).is_ok());
            count += 1;
        }
        count
    }
}

fn http(body: &str) -> Vec<u8> {
    let head = "POST / HTTP/1.1\r\nHost: localhost:6197\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Type: application/json\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn send(id: usize, raw: &[u8]) -> String {
    let hex = alloy_primitives::hex::encode(raw);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"eth_sendRawTransaction","params":["0x{hex}"]}}"#)
}

/// Bare recovery of all signatures, as many per call as a turn has.
fn bare_recovery(raws: &[Vec<u8>], per_call: usize) -> f64 {
    let mut payload = Vec::new();
    let items: Vec<RecoverItem> = raws
        .iter()
        .map(|raw| {
            let decoded = transaction::decode(raw).expect("signed above");
            let digest = transaction::signing_hash(raw, &decoded, &mut payload);
            decoded.recover_item(digest)
        })
        .collect();
    let mut senders = vec![Err(RecoverError::SZero); items.len()];
    let (ns, _) = measure(|| {
        for (items, senders) in items.chunks(per_call).zip(senders.chunks_mut(per_call)) {
            recover_batch(items, senders);
        }
    });
    assert!(senders.iter().all(Result::is_ok));
    ns as f64 / items.len() as f64
}

/// One row: `batch` transactions per request, `per_turn` requests per turn. Answers allocations per transaction of the worst round.
fn bench_sends(name: &str, raws: &[Vec<u8>], batch: usize, per_turn: usize, rounds: usize) -> f64 {
    let bodies = raws.chunks(batch).map(|raws| {
        let calls: Vec<String> = raws.iter().enumerate().map(|(index, raw)| send(index, raw)).collect();
        http(&if batch == 1 { calls.concat() } else { format!("[{}]", calls.join(",")) })
    });
    let requests: Vec<Vec<u8>> = bodies.collect();
    let mut shard = shard(per_turn);
    let mut buffer = vec![0; 128 << 10];
    for _ in 0..2 {
        shard.round(&requests, per_turn, &mut buffer, &mut Parts::default());
    }
    let mut columns: [Vec<f64>; 5] = Default::default();
    let mut allocations_max = 0_f64;
    for _ in 0..rounds {
        let mut parts = Parts::default();
        let mut tx_count = 0;
        let (_, allocations) = measure(|| tx_count = shard.round(&requests, per_turn, &mut buffer, &mut parts));
        assert_eq!(tx_count, raws.len(), "every transaction reached the ring");
        let each = |ns: u64| ns as f64 / tx_count as f64;
        let recovery = bare_recovery(raws, batch * per_turn);
        let total = each(parts.input + parts.submit + parts.reply);
        let row = [total, total - recovery, each(parts.input), each(parts.submit) - recovery, each(parts.reply)];
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        allocations_max = allocations_max.max(allocations as f64 / tx_count as f64);
    }
    let [total, rest, input, submit, reply] = columns.map(|mut column| median(&mut column));
    println!("{name:<34} {total:>9.0} {rest:>12.0} {input:>9.0} {submit:>9.0} {reply:>9.0} {allocations_max:>12.4}");
    allocations_max
}

/// The HTTP layer alone: the parser, and a connection with its reply.
fn bench_http(raw: &[u8], count: usize) {
    let request = http(&send(1, raw));
    let mut buffer = request.clone();
    let limits = HttpLimits::default();
    let (parse_ns, _) = measure(|| {
        for _ in 0..count {
            buffer.copy_from_slice(&request);
            let mut parser = RequestParser::default();
            while !matches!(black_box(parser.advance(&mut buffer, &limits)), Ok(Progress::Complete { .. })) {}
        }
    });
    let mut connection = Connection::new(Arc::new(Policy::default()), 0);
    let hash = B256::repeat_byte(7);
    let (mut take_ns, mut render_ns) = (0, 0);
    for _ in 0..count.div_ceil(32) {
        let mut burst = request.repeat(32);
        let (ns, _) = measure(|| {
            let mut input = Input::new(&mut burst);
            while let Some((request, _)) = connection.next_request(&mut input, 0) {
                assert!(matches!(black_box(request.content), Content::Body(_)));
            }
        });
        take_ns += ns;
        let outstanding = connection.replies().outstanding_count();
        assert_eq!(outstanding, 32);
        let first = render_first(&mut connection);
        let (ns, _) = measure(|| {
            for number in 0..32 {
                let _ = connection.replies().complete(first + number, 0, |out| {
                    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":1,"result":"#);
                    rpc::render_admitted(&hash, out);
                    out.push(b'}');
                });
            }
        });
        render_ns += ns;
        let bytes = connection.output().len();
        connection.output_written(bytes, 0);
    }
    let each = |ns: u64, count: usize| ns as f64 / count as f64;
    println!("HTTP request of {} bytes: parsed in {:.0} ns", request.len(), each(parse_ns, count));
    let bursts = count.div_ceil(32) * 32;
    println!("taken by a connection in {:.0} ns, answered in {:.0} ns", each(take_ns, bursts), each(render_ns, bursts));
}

/// Number of the first outstanding request: requests of a connection are numbered in order.
fn render_first(connection: &mut Connection) -> u32 {
    thread_local!(static NEXT: Cell<u32> = const { Cell::new(0) });
    assert!(connection.output().is_empty());
    NEXT.replace(NEXT.get() + 32)
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let (tx_count, rounds) = if is_test { (400, 1) } else { (6_400, 9) };
    let keys: Vec<TestKey> = (0..64).map(TestKey::nth).collect();
    let raws: Vec<Vec<u8>> = (0..tx_count)
        .map(|index| {
            keys[index % keys.len()].transfer(CHAIN_ID, (index / keys.len()) as u64, Address::repeat_byte(9), 5)
        })
        .collect();
    println!(
        "{:<34} {:>9} {:>12} {:>9} {:>9} {:>9} {:>12}",
        "CPU ns per transaction", "all", "no recovery", "parse", "push", "reply", "allocations"
    );
    println!("{:<34} {:>9.0}", "bare recovery, 128 per call", bare_recovery(&raws, 128));
    let single = bench_sends("unbatched, 128 requests per turn", &raws, 1, 128, rounds);
    let lone = bench_sends("unbatched, 1 request per turn", &raws[..raws.len() / 8], 1, 1, rounds);
    let batch = bench_sends("batch of 100, 2 requests per turn", &raws, 100, 2, rounds);
    bench_http(&raws[0], tx_count * 10);
    for (name, allocations) in [("unbatched", single), ("one per turn", lone), ("batch", batch)] {
        assert!(allocations <= ALLOCATIONS_MAX, "{name}: {allocations} allocations per transaction");
    }
}
