//! The journal thread: records in, groups on the disk, the gate moved. Beside it, the thread that makes new slots.
//!
//! `builder_journal` → [`Log`] → [`Storage`] → [`Gate`] → doorbells of those who waited. One write is in flight at a time; what arrives meanwhile
//! is the next group. Nothing here waits for another thread: a missing slot, a full disk and a lagging chain database are states that the
//! builder sees in [`JournalCells`] and acts on.
//!
//! Invariant: the gate never shows a record whose write has not returned. Any fault of the disk but a lack of space ends the thread, and
//! with it the process: after a failed write nobody knows what is on the disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::log::Log;
use super::storage::{Storage, StorageError};
use crate::limits;
use crate::messages::{JournalMessage, SlotMessage};
use crate::metrics::Metrics;
use crate::primitives::{Sequence, ShardSet};
use crate::ring::{Consumer, Doorbell, Gate, Producer};
use crate::runtime::clock;

/// What journal, builder and chain threads tell each other without messages.
pub struct JournalCells {
    /// Only what is under way has room: nothing new is begun. Written by the journal thread.
    pub is_space_full: AtomicBool,
    /// The builder core copies forward what it holds from before this sequence; 0 = nothing. Written by the journal thread.
    pub carry_below: AtomicU64,
    /// Everything up to here that the chain thread keeps is synced. Written by the thread that syncs.
    pub chain_synced: AtomicU64,
    /// Blocks recorded up to here are final on L1; everything without an L1. Written by the builder core.
    pub settled: AtomicU64,
    /// The disk had no room for the slot that the log wants. Written by the slot maker.
    pub is_disk_full: AtomicBool,
}

impl Default for JournalCells {
    fn default() -> Self {
        Self {
            is_space_full: AtomicBool::new(false),
            carry_below: AtomicU64::new(0),
            chain_synced: AtomicU64::new(0),
            settled: AtomicU64::new(u64::MAX),
            is_disk_full: AtomicBool::new(false),
        }
    }
}

/// Everything that the journal thread owns.
pub struct JournalSeat<S> {
    pub log: Log,
    pub storage: S,
    pub inbox: Consumer<JournalMessage>,
    /// Buffers on their way back to the builder core.
    pub empties: Producer<Vec<u8>>,
    pub doorbell: Arc<Doorbell>,
    pub builder_bell: Arc<Doorbell>,
    /// Its first waiters are the shards.
    pub gate: Arc<Gate>,
    pub cells: Arc<JournalCells>,
    pub metrics: Arc<Metrics>,
    pub slot_requests: Producer<SlotMessage>,
    pub slots_made: Consumer<u32>,
}

/// Everything that the slot maker owns.
pub struct SlotSeat<C> {
    /// [`super::file_storage::SlotCreator::create`].
    pub create: C,
    pub inbox: Consumer<SlotMessage>,
    pub made: Producer<u32>,
    pub doorbell: Arc<Doorbell>,
    pub cells: Arc<JournalCells>,
}

/// Writes until a `Stop` arrives and everything before it is durable.
///
/// # Errors
/// The disk failed: the process must stop. `Full` when it stops while records wait for a slot that the disk has no room for.
pub fn run<S: Storage>(seat: JournalSeat<S>) -> Result<(), StorageError> {
    seat.doorbell.adopt_current_thread();
    let mut journal = Journal::new(seat);
    let outcome = journal.run();
    if let Err(error) = &outcome {
        tracing::error!(%error, "the journal cannot be written: nothing further is acknowledged");
    }
    // The ring has a slot for it: there is at most one request.
    assert!(journal.seat.slot_requests.push(SlotMessage::Stop).is_ok());
    journal.seat.slot_requests.wake();
    outcome
}

/// Makes slots until told to stop.
///
/// # Errors
/// The disk failed at something else than a lack of space.
pub fn run_slots(mut seat: SlotSeat<impl FnMut(u32, u64) -> Result<(), StorageError>>) -> Result<(), StorageError> {
    seat.doorbell.adopt_current_thread();
    let park = Duration::from_nanos(limits::PARK_NS_MAX);
    loop {
        match seat.inbox.pop() {
            Some(SlotMessage::Make { slot, bytes }) => {
                let is_made = make_slot(&mut seat, slot, bytes);
                let is_made = is_made.inspect_err(|error| tracing::error!(%error, "a journal slot cannot be made"))?;
                if !is_made {
                    return Ok(());
                }
            }
            Some(SlotMessage::Stop) => return Ok(()),
            None => seat.doorbell.park(Some(park), || !seat.inbox.is_empty()),
        }
    }
}

/// Tries until there is room; false when told to stop before.
fn make_slot(
    seat: &mut SlotSeat<impl FnMut(u32, u64) -> Result<(), StorageError>>,
    slot: u32,
    bytes: u64,
) -> Result<bool, StorageError> {
    let mut is_full = false;
    loop {
        match (seat.create)(slot, bytes) {
            Ok(()) => break,
            Err(error @ StorageError::Full { .. }) => {
                if !is_full {
                    tracing::warn!(%error, "the journal's disk is full: tried again every second");
                }
                is_full = true;
                seat.cells.is_disk_full.store(true, Ordering::Relaxed);
                // Only a stop arrives while a request is open.
                seat.doorbell
                    .park(Some(Duration::from_nanos(limits::JOURNAL_FULL_RETRY_NS)), || !seat.inbox.is_empty());
                if seat.inbox.pop().is_some() {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
    if is_full {
        tracing::info!(slot, bytes, "the journal's disk has room again");
        seat.cells.is_disk_full.store(false, Ordering::Relaxed);
    }
    // One request at a time, so the ring is empty.
    assert!(seat.made.push(slot).is_ok());
    seat.made.wake();
    Ok(true)
}

/// The thread's state beside its seat.
struct Journal<S> {
    seat: JournalSeat<S>,
    /// What was taken and is not durable, in order.
    waiting: VecDeque<Waiting>,
    /// Sum over `waiting`.
    waiting_bytes: usize,
    chain_synced: Sequence,
    /// Asked of the slot maker and not answered.
    slot_asked: Option<u32>,
    is_stopping: bool,
}

/// One message whose records are not all durable.
struct Waiting {
    last: Sequence,
    wake: ShardSet,
    bytes: usize,
}

impl<S: Storage> Journal<S> {
    fn new(seat: JournalSeat<S>) -> Self {
        Self {
            seat,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            chain_synced: Sequence(0),
            slot_asked: None,
            is_stopping: false,
        }
    }

    fn run(&mut self) -> Result<(), StorageError> {
        loop {
            let has_taken = self.take();
            self.follow_others();
            let has_written = self.write_one()?;
            self.ask_for_slot();
            self.publish();
            if has_taken || has_written {
                continue;
            }
            if self.is_stopping {
                if self.waiting.is_empty() && !self.seat.log.has_pending() {
                    return Ok(());
                }
                self.check_stuck()?;
            }
            self.park();
        }
    }

    /// Takes what the builder sent, up to a group's worth that is not durable. Answers whether there was anything.
    fn take(&mut self) -> bool {
        let mut has_taken = false;
        while self.waiting_bytes < limits::JOURNAL_TAKE_BYTES {
            let Some(message) = self.seat.inbox.pop() else { break };
            has_taken = true;
            match message {
                JournalMessage::Records { bytes, last, wake } => self.take_records(bytes, last, wake),
                JournalMessage::Stop => self.is_stopping = true,
            }
        }
        has_taken
    }

    fn take_records(&mut self, mut bytes: Vec<u8>, last: Sequence, wake: ShardSet) {
        self.seat.log.append(&bytes);
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(Waiting { last, wake, bytes: bytes.len() });
        bytes.clear();
        bytes.shrink_to(limits::JOURNAL_BUFFER_BYTES_MAX);
        // A buffer that the ring has no slot for was one too many.
        drop(self.seat.empties.push(bytes));
        // What it waits for may be durable already: a turn can hold no record.
        self.release();
    }

    /// Writes one piece, if there is one and it has a place. Answers whether it did.
    fn write_one(&mut self) -> Result<bool, StorageError> {
        let JournalSeat { log, storage, gate, metrics, .. } = &mut self.seat;
        let Some(write) = log.next_write(clock::wall_unix_ns()) else { return Ok(false) };
        let start_ns = clock::monotonic_ns();
        storage.write(write.slot, write.offset, write.bytes, write.point)?;
        metrics.journal.write.record(clock::monotonic_ns() - start_ns);
        metrics.journal.written_bytes.add(write.bytes.len() as u64);
        if let Some(durable) = log.written() {
            gate.advance(durable);
            self.release();
        }
        Ok(true)
    }

    /// Rings the shards of every message whose records are durable.
    fn release(&mut self) {
        let durable = self.seat.gate.durable();
        let mut wake = ShardSet::EMPTY;
        while let Some(first) = self.waiting.pop_front_if(|first| first.last <= durable) {
            self.waiting_bytes -= first.bytes;
            wake.extend(&first.wake);
        }
        for shard in wake.iter() {
            self.seat.gate.ring(usize::from(shard.0));
        }
    }

    /// What the slot maker and the chain's syncer have done.
    fn follow_others(&mut self) {
        while let Some(slot) = self.seat.slots_made.pop() {
            self.slot_asked = None;
            self.seat.log.slot_created(slot);
        }
        // ORDERING: Acquire pairs with the syncer's Release: its sync came before.
        let cells = &self.seat.cells;
        let synced = cells.chain_synced.load(Ordering::Acquire).min(cells.settled.load(Ordering::Relaxed));
        let synced = Sequence(synced);
        if synced > self.chain_synced {
            self.chain_synced = synced;
            self.seat.log.chain_synced(synced);
        }
    }

    fn ask_for_slot(&mut self) {
        if self.slot_asked.is_some() {
            return;
        }
        if let Some((slot, bytes)) = self.seat.log.wanted_slot() {
            self.slot_asked = Some(slot);
            // Two slots: this one request, and the stop.
            assert!(self.seat.slot_requests.push(SlotMessage::Make { slot, bytes }).is_ok());
            self.seat.slot_requests.wake();
        }
    }

    fn publish(&mut self) {
        let cells = &self.seat.cells;
        let is_full = self.seat.log.space() < limits::JOURNAL_RESERVE_BYTES;
        if cells.is_space_full.load(Ordering::Relaxed) != is_full {
            cells.is_space_full.store(is_full, Ordering::Relaxed);
            self.seat.builder_bell.ring();
        }
        let carry_below = self.seat.log.carry_below().map_or(0, |sequence| sequence.0);
        if cells.carry_below.load(Ordering::Relaxed) != carry_below {
            cells.carry_below.store(carry_below, Ordering::Relaxed);
        }
    }

    /// A stopping process does not wait for a disk to be cleaned up: what is left was never acknowledged.
    fn check_stuck(&self) -> Result<(), StorageError> {
        match self.seat.log.wanted_slot() {
            Some((slot, bytes)) if self.seat.cells.is_disk_full.load(Ordering::Relaxed) => {
                Err(StorageError::Full { file: format!("journal slot {slot}"), bytes })
            }
            _ => Ok(()),
        }
    }

    fn park(&self) {
        let seat = &self.seat;
        let can_take = self.waiting_bytes < limits::JOURNAL_TAKE_BYTES;
        let timeout = Duration::from_nanos(limits::PARK_NS_MAX);
        seat.doorbell.park(Some(timeout), || (can_take && !seat.inbox.is_empty()) || !seat.slots_made.is_empty());
    }
}

#[cfg(test)]
mod tests;
