//! The journal thread against a disk in memory that watches the gate, and the slot maker against a disk that is full.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::task::Waker;

use super::*;
use crate::journal::log::LogSettings;
use crate::journal::record::{HEADER_BYTES, RecordType};
use crate::journal::storage::SyncPoint;
use crate::metrics::Metrics;
use crate::primitives::ShardId;
use crate::ring::ring;

const SLOT_BYTES: u64 = 64 << 20;
const SHARDS: usize = 3;

/// What was true when a write was made.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    slot: u32,
    bytes: u64,
    durable: u64,
    rung: Vec<u64>,
}

/// Holds nothing: it notes the writes, and fails at one.
struct Watcher {
    gate: Arc<Gate>,
    bells: Vec<Arc<Doorbell>>,
    seen: Vec<Seen>,
    fails_at: usize,
    out: SyncSender<Vec<Seen>>,
}

impl Storage for Watcher {
    type Bytes = Vec<u8>;

    fn slots(&mut self) -> Result<Vec<u32>, StorageError> {
        Ok(vec![])
    }

    fn create(&mut self, _: u32, _: u64) -> Result<(), StorageError> {
        Ok(())
    }

    fn read(&mut self, _: u32) -> Result<Vec<u8>, StorageError> {
        Ok(vec![])
    }

    fn write(&mut self, slot: u32, _: u64, bytes: &[u8], _: SyncPoint) -> Result<(), StorageError> {
        if self.seen.len() == self.fails_at {
            return Err(StorageError::Crashed);
        }
        let rung = self.bells.iter().map(|bell| bell.wakeup_count()).collect();
        self.seen.push(Seen { slot, bytes: bytes.len() as u64, durable: self.gate.durable().0, rung });
        Ok(())
    }

    fn sync_directory(&mut self, _: SyncPoint) -> Result<(), StorageError> {
        Ok(())
    }

    fn sync(&mut self, _: u32, _: SyncPoint) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.out.try_send(std::mem::take(&mut self.seen));
    }
}

/// The other ends of what a journal thread holds.
struct Bench {
    inbox: Producer<JournalMessage>,
    empties: Consumer<Vec<u8>>,
    slot_requests: Consumer<SlotMessage>,
    slots_made: Producer<u32>,
    /// The shards', then the builder's: all asleep.
    bells: Vec<Arc<Doorbell>>,
    gate: Arc<Gate>,
    cells: Arc<JournalCells>,
    seen: Receiver<Vec<Seen>>,
}

/// The log begins with `slots`; the disk fails at write number `fails_at`.
fn bench(slots: &[u32], fails_at: usize) -> (Bench, JournalSeat<Watcher>) {
    let doorbell = Arc::new(Doorbell::for_thread());
    let bells: Vec<_> = (0..=SHARDS).map(|_| Arc::new(Doorbell::for_task())).collect();
    bells.iter().for_each(|bell| assert!(bell.poll(Waker::noop(), || false).is_pending()));
    let gate = Arc::new(Gate::new(Sequence(0), bells[..SHARDS].iter().cloned()));
    let (out, seen) = sync_channel(1);
    let storage = Watcher { gate: Arc::clone(&gate), bells: bells.clone(), seen: vec![], fails_at, out };
    let (inbox, inbox_rx) = ring(64, &doorbell);
    let (empties_tx, empties) = ring(64, &bells[SHARDS]);
    let (requests_tx, slot_requests) = ring(limits::SLOT_RING_SLOTS, &doorbell);
    let (slots_made, made_rx) = ring(1, &doorbell);
    let cells = Arc::new(JournalCells::default());
    let seat = JournalSeat {
        log: log(slots),
        storage,
        inbox: inbox_rx,
        empties: empties_tx,
        doorbell,
        builder_bell: Arc::clone(&bells[SHARDS]),
        gate: Arc::clone(&gate),
        cells: Arc::clone(&cells),
        metrics: Arc::new(Metrics::new(SHARDS)),
        slot_requests: requests_tx,
        slots_made: made_rx,
    };
    (Bench { inbox, empties, slot_requests, slots_made, bells, gate, cells, seen }, seat)
}

fn log(slots: &[u32]) -> Log {
    let settings = LogSettings {
        segment_bytes: SLOT_BYTES,
        group_bytes_max: limits::JOURNAL_GROUP_BYTES_MAX,
        segments_kept_max: 4,
    };
    let mut log = Log::create(settings, [1; 16]);
    slots.iter().for_each(|slot| log.adopt_slot(*slot, SLOT_BYTES));
    log
}

impl Bench {
    fn send(&mut self, last: u64, bytes: Vec<u8>, shards: &[u16]) {
        let mut wake = ShardSet::EMPTY;
        shards.iter().for_each(|shard| wake.insert(ShardId(*shard)));
        assert!(self.inbox.push(JournalMessage::Records { bytes, last: Sequence(last), wake }).is_ok());
    }

    /// Runs on this thread until everything that was sent is written; answers with the writes.
    fn run(&mut self, seat: JournalSeat<Watcher>) -> (Result<(), StorageError>, Vec<Seen>) {
        assert!(self.inbox.push(JournalMessage::Stop).is_ok());
        let outcome = run(seat);
        (outcome, self.seen.recv().unwrap())
    }

    fn rung(&self) -> Vec<u64> {
        self.bells.iter().map(|bell| bell.wakeup_count()).collect()
    }

    fn slot_messages(&mut self) -> Vec<SlotMessage> {
        std::iter::from_fn(|| self.slot_requests.pop()).collect()
    }
}

/// A record of `bytes` bytes that the log counts nothing for.
fn record(sequence: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0xab; bytes.max(HEADER_BYTES)];
    let len = out.len() as u32;
    out[..4].copy_from_slice(&len.to_le_bytes());
    out[8] = RecordType::RolledBack as u8;
    out[9..HEADER_BYTES].copy_from_slice(&sequence.to_le_bytes());
    out
}

#[test]
fn what_waits_together_is_written_together_and_then_shown() {
    let (mut bench, seat) = bench(&[0, 1], usize::MAX);
    bench.gate.want(2, Some(Sequence(3)));
    for sequence in 1..=3 {
        bench.send(sequence, record(sequence, 100), if sequence == 2 { &[1] } else { &[] });
    }
    let (outcome, seen) = bench.run(seat);
    assert_eq!(outcome, Ok(()));
    let group = seen.last().unwrap();
    assert_eq!((group.durable, &group.rung[..]), (0, &[0; SHARDS + 1][..]), "nothing is shown before the write");
    assert_eq!(bench.gate.durable(), Sequence(3));
    // Shard 0 waits for nothing, shard 1 was named, shard 2 wants the sequence.
    assert_eq!(bench.rung()[..SHARDS], [0, 1, 1]);
    assert_eq!(bench.slot_messages(), [SlotMessage::Stop]);
}

#[test]
fn a_shard_is_woken_when_all_of_its_turn_is_durable() {
    let (mut bench, seat) = bench(&[0, 1], usize::MAX);
    let mut sequence = 0;
    let mut turn = |bytes: usize| {
        let records: Vec<u8> =
            (0..bytes / 60_000).flat_map(|index| record(sequence + 1 + index as u64, 60_000)).collect();
        sequence += (bytes / 60_000) as u64;
        (sequence, records)
    };
    for (shard, bytes) in [(0, 900_000), (1, 600_000), (2, 60_000)] {
        let (last, records) = turn(bytes);
        bench.send(last, records, &[shard]);
    }
    let (outcome, seen) = bench.run(seat);
    assert_eq!((outcome, bench.gate.durable().0), (Ok(()), sequence));
    assert_eq!(bench.rung()[..SHARDS], [1, 1, 1]);
    for Seen { durable, rung, .. } in seen {
        let expected = [15, 25, 26].map(|last| u64::from(durable >= last));
        assert_eq!(rung[..SHARDS], expected, "at {durable}");
    }
}

#[test]
fn a_turn_without_records_waits_for_what_came_before() {
    let (mut bench, seat) = bench(&[0, 1], usize::MAX);
    bench.send(0, vec![], &[0]);
    bench.send(1, record(1, 50), &[]);
    bench.send(1, vec![], &[1]);
    let (outcome, seen) = bench.run(seat);
    assert_eq!(outcome, Ok(()));
    assert_eq!(seen.last().unwrap().rung[..SHARDS], [1, 0, 0]);
    assert_eq!(bench.rung()[..SHARDS], [1, 1, 0]);
}

#[test]
fn a_failed_write_ends_the_thread_and_shows_nothing() {
    let (mut bench, seat) = bench(&[0, 1], 0);
    bench.send(1, record(1, 50), &[0]);
    let (outcome, seen) = bench.run(seat);
    assert_eq!((outcome, seen), (Err(StorageError::Crashed), vec![]));
    assert_eq!((bench.gate.durable(), bench.rung()[0]), (Sequence(0), 0));
    assert_eq!(bench.slot_messages().last(), Some(&SlotMessage::Stop));
}

#[test]
fn buffers_come_back_empty_and_never_huge() {
    let (mut bench, seat) = bench(&[0, 1], usize::MAX);
    let mut buffer = Vec::with_capacity(4_096);
    buffer.extend_from_slice(&record(1, 50));
    bench.send(1, buffer, &[]);
    let mut buffer = Vec::with_capacity(5 << 20);
    buffer.extend_from_slice(&record(2, 50));
    bench.send(2, buffer, &[]);
    assert_eq!(bench.run(seat).0, Ok(()));
    let empties: Vec<_> = std::iter::from_fn(|| bench.empties.pop()).collect();
    assert!(empties.iter().all(Vec::is_empty));
    assert_eq!(empties[0].capacity(), 4_096);
    assert!((64..=limits::JOURNAL_BUFFER_BYTES_MAX).contains(&empties[1].capacity()));
}

#[test]
fn a_stop_does_not_wait_for_room_on_the_disk() {
    let (mut bench, seat) = bench(&[], usize::MAX);
    bench.cells.is_disk_full.store(true, Ordering::Relaxed);
    bench.send(1, record(1, 50), &[0]);
    let (outcome, seen) = bench.run(seat);
    let full = StorageError::Full { file: "journal slot 0".to_owned(), bytes: SLOT_BYTES };
    assert_eq!((outcome, seen.len()), (Err(full), 0));
    assert!(bench.cells.is_space_full.load(Ordering::Relaxed));
    assert_eq!(bench.rung(), [0, 0, 0, 1], "the builder hears of it");
    let make = SlotMessage::Make { slot: 0, bytes: SLOT_BYTES };
    assert_eq!(bench.slot_messages(), [make, SlotMessage::Stop]);
}

#[test]
fn a_slot_that_comes_ends_the_wait() {
    let (mut bench, seat) = bench(&[], usize::MAX);
    bench.send(1, record(1, 50), &[0]);
    assert!(bench.slots_made.push(0).is_ok());
    let (outcome, seen) = bench.run(seat);
    assert_eq!((outcome, seen.last().unwrap().slot), (Ok(()), 0));
    assert!(!bench.cells.is_space_full.load(Ordering::Relaxed));
}

/// A slot maker whose disk answers with `answers`, then with success; and what it made.
fn make(messages: &[SlotMessage], answers: Vec<StorageError>) -> (Result<(), StorageError>, Vec<u32>, bool, usize) {
    let doorbell = Arc::new(Doorbell::for_thread());
    let (mut requests, inbox) = ring(limits::SLOT_RING_SLOTS, &doorbell);
    let (made, mut made_rx) = ring(1, &Arc::new(Doorbell::for_task()));
    messages.iter().for_each(|message| assert!(requests.push(*message).is_ok()));
    let cells = Arc::new(JournalCells::default());
    let mut answers = answers.into_iter();
    let mut calls = 0;
    let create = |_: u32, _: u64| {
        calls += 1;
        // The next park returns at once: the test does not wait for the second.
        std::thread::current().unpark();
        if let Some(error) = answers.next() {
            return Err(error);
        }
        let _ = requests.push(SlotMessage::Stop);
        Ok(())
    };
    let outcome = run_slots(SlotSeat { create, inbox, made, doorbell, cells: Arc::clone(&cells) });
    (outcome, made_rx.pop().into_iter().collect(), cells.is_disk_full.load(Ordering::Relaxed), calls)
}

#[test]
fn slots_are_tried_again_only_when_the_disk_was_full() {
    let request = SlotMessage::Make { slot: 7, bytes: SLOT_BYTES };
    let full = || StorageError::Full { file: "slot 7".to_owned(), bytes: SLOT_BYTES };
    assert_eq!(make(&[request], vec![]), (Ok(()), vec![7], false, 1));
    assert_eq!(make(&[request], vec![full(), full()]), (Ok(()), vec![7], false, 3));
    assert_eq!(make(&[request, SlotMessage::Stop], vec![full()]), (Ok(()), vec![], true, 1));
    assert_eq!(make(&[request], vec![StorageError::Crashed]), (Err(StorageError::Crashed), vec![], false, 1));
    assert_eq!(make(&[SlotMessage::Stop], vec![]), (Ok(()), vec![], false, 0));
}
