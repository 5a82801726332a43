//! The builder core's end of the journal: the records of a turn, who waits for them, and how much is not durable yet.
//!
//! Never waits: while the ring is full the buffer grows, and [`JournalRoom`] stops admission long before it could grow far.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::builder::core::JournalRoom;
use crate::journal::driver::JournalCells;
use crate::journal::record::Record;
use crate::limits;
use crate::messages::JournalMessage;
use crate::primitives::{Sequence, ShardId, ShardSet};
use crate::ring::{Consumer, Producer};

/// See the module's text.
pub struct JournalOutbox {
    ring: Producer<JournalMessage>,
    empties: Consumer<Vec<u8>>,
    cells: Arc<JournalCells>,
    buffer: Vec<u8>,
    /// Sequence of the last record in `buffer`, or of the last one handed over.
    last: Sequence,
    /// Sequence of the last record handed over.
    handed: Sequence,
    wake: ShardSet,
    /// What was handed over and is not durable, as far as it was looked at: last sequence and bytes of each buffer.
    outstanding: VecDeque<(Sequence, usize)>,
    outstanding_bytes: usize,
}

impl JournalOutbox {
    /// An outbox behind the record `last`.
    #[must_use]
    pub fn new(
        ring: Producer<JournalMessage>,
        empties: Consumer<Vec<u8>>,
        cells: Arc<JournalCells>,
        last: Sequence,
    ) -> Self {
        Self {
            ring,
            empties,
            cells,
            buffer: Vec::with_capacity(limits::JOURNAL_BUFFER_BYTES),
            last,
            handed: last,
            wake: ShardSet::default(),
            outstanding: VecDeque::with_capacity(limits::JOURNAL_RING_SLOTS + 1),
            outstanding_bytes: 0,
        }
    }

    #[inline]
    pub fn record(&mut self, sequence: Sequence, record: &Record<'_>) {
        record.encode(sequence, &mut self.buffer);
        self.last = sequence;
    }

    /// Whether a record has not been handed over yet: who waits for it is rung by the journal thread.
    #[inline]
    #[must_use]
    pub fn holds(&self, gate: Sequence) -> bool {
        gate > self.handed && gate <= self.last
    }

    /// Has the journal thread ring a shard when the records of this turn are durable.
    #[inline]
    pub fn wake_when_durable(&mut self, shard: ShardId) {
        self.wake.insert(shard);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    #[must_use]
    pub fn room(&self) -> JournalRoom {
        if self.cells.is_space_full.load(Ordering::Relaxed) {
            return JournalRoom::Full;
        }
        match self.outstanding_bytes + self.buffer.len() {
            bytes if bytes >= limits::JOURNAL_BEHIND_BYTES => JournalRoom::Behind,
            bytes if bytes >= limits::JOURNAL_BUSY_BYTES => JournalRoom::Busy,
            _ => JournalRoom::Plenty,
        }
    }

    /// What becomes durable next, if anything was handed over that is not.
    #[must_use]
    pub fn awaited(&self) -> Option<Sequence> {
        self.outstanding.front().map(|(last, _)| *last)
    }

    #[must_use]
    pub fn carry_below(&self) -> Sequence {
        Sequence(self.cells.carry_below.load(Ordering::Relaxed))
    }

    /// Hands the turn's records over, if the ring has a slot, and takes note of what has become durable.
    pub fn end_turn(&mut self, durable: Sequence) {
        while let Some((last, bytes)) = self.outstanding.front().copied()
            && last <= durable
        {
            self.outstanding.pop_front();
            self.outstanding_bytes -= bytes;
        }
        if self.buffer.is_empty() || self.ring.len() == self.ring.slots() {
            return;
        }
        let next = self.empties.pop().unwrap_or_else(|| Vec::with_capacity(limits::JOURNAL_BUFFER_BYTES));
        let bytes = std::mem::replace(&mut self.buffer, next);
        self.outstanding.push_back((self.last, bytes.len()));
        self.outstanding_bytes += bytes.len();
        self.handed = self.last;
        let message = JournalMessage::Records { bytes, last: self.last, wake: std::mem::take(&mut self.wake) };
        // The only producer has just seen a free slot.
        assert!(self.ring.push(message).is_ok());
        self.ring.wake();
    }

    /// Tells the journal thread to write what waits and stop; false while the ring has no slot for it.
    #[must_use]
    pub fn stop(&mut self) -> bool {
        let is_handed = self.buffer.is_empty() && self.ring.push(JournalMessage::Stop).is_ok();
        self.ring.wake();
        is_handed
    }
}
