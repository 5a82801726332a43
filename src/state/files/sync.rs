//! Makes commits durable behind the state thread's back: data, then one of the two root slots.
//!
//! Newest mark ([`StateCells`]) → syncs → what is durable ([`StateCells`]). Owner: the `state-sync` thread; a simulation calls it between two commits.
//! Invariant: a slot is written only when everything that it names is durable, and the other slot as well. A failed sync is final.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::Version;
use super::disk::{Disk, ROOTS, SyncPoint};
use super::roots::{Slot, slot_offset};
use super::space::Geometry;
use crate::state::StateError;

/// What the state thread, its syncer and others tell each other without messages.
pub struct StateCells {
    /// What the next slot is to say. Written by the state thread after each commit.
    pub mark: ArcSwapOption<Slot>,
    /// The newest version. Written by the state thread after each commit.
    pub(super) newest: ArcSwapOption<Version>,
    /// The versions that can be asked for, oldest first. Written by the state thread after each block; the store alone keeps them alive.
    pub(super) retained: ArcSwap<Vec<Weak<Version>>>,
    /// Blocks up to this one are final: see [`StateCells::finalize`].
    finalized_number: AtomicU64,
    /// Block that the newest durable slot stands for; `u64::MAX`: none yet. Written by the syncer.
    pub durable_number: AtomicU64,
    /// Journal sequence that the *older* durable slot stands for: what came before is not needed to make the state again. Written by the syncer.
    pub held_sequence: AtomicU64,
    /// Neither slot names anything below. Written by the syncer.
    pub free_below: AtomicU64,
    /// A write or a sync failed: nobody knows what is on the disk. Written by whoever saw it.
    pub is_poisoned: AtomicBool,
}

impl Default for StateCells {
    fn default() -> Self {
        Self {
            mark: ArcSwapOption::empty(),
            newest: ArcSwapOption::empty(),
            retained: ArcSwap::default(),
            finalized_number: AtomicU64::new(u64::MAX),
            durable_number: AtomicU64::new(u64::MAX),
            held_sequence: AtomicU64::new(0),
            free_below: AtomicU64::new(0),
            is_poisoned: AtomicBool::new(false),
        }
    }
}

impl StateCells {
    /// Says which block is final. Versions above are retained beyond the last [`crate::state::STATE_ROOTS_RETAINED`] as well, one in
    /// [`super::SPARSE_BLOCKS`], because a reorganisation may lead back to them. Until it is called everything is final, as without an L1.
    pub fn finalize(&self, number: u64) {
        // ORDERING: Relaxed: a number by itself, which the next commit follows or the one after.
        self.finalized_number.store(number, Ordering::Relaxed);
    }

    /// The newest final block.
    #[must_use]
    pub fn finalized(&self) -> u64 {
        // ORDERING: as in `finalize`.
        self.finalized_number.load(Ordering::Relaxed)
    }
}

/// See the module's text.
pub struct Syncer {
    disk: Box<dyn Disk>,
    cells: Arc<StateCells>,
    geometry: Geometry,
    /// What both slots say on the disk, as far as they say anything.
    slots: [Option<Slot>; 2],
    /// The slot that is written next.
    next: usize,
    /// Of the newest slot.
    sequence: u64,
    /// The newest segment whose entry is durable.
    entry_segment: u32,
}

impl Syncer {
    /// `newest`: the slot of the two that counts.
    #[must_use]
    pub fn new(
        disk: Box<dyn Disk>,
        cells: Arc<StateCells>,
        geometry: Geometry,
        slots: [Option<Slot>; 2],
        newest: usize,
    ) -> Self {
        let (sequence, end) = slots[newest].as_ref().map_or((0, 0), |slot| (slot.sequence, slot.end));
        let entry_segment = geometry.segment(end.saturating_sub(1));
        let syncer = Self { disk, cells, geometry, slots, next: 1 - newest, sequence, entry_segment };
        syncer.publish();
        syncer
    }

    /// Makes the newest mark durable, when its journal record is and it is not yet. Answers whether it did anything.
    ///
    /// # Errors
    /// A failed write or sync; the state is poisoned.
    pub fn sync(&mut self, journal_durable: u64) -> Result<bool, StateError> {
        let Some(mark) = self.cells.mark.load_full() else { return Ok(false) };
        let is_known =
            self.slots[1 - self.next].as_ref().is_some_and(|slot| slot.entries == mark.entries && slot.end == mark.end);
        let is_early = mark.entries.last().is_some_and(|entry| entry.sequence > journal_durable);
        if is_known || is_early {
            return Ok(false);
        }
        let outcome = self.write(&mark);
        if outcome.is_err() {
            // ORDERING: Release pairs with the Acquire of the state thread, which then stops.
            self.cells.is_poisoned.store(true, Ordering::Release);
        }
        outcome.map(|()| true)
    }

    fn write(&mut self, mark: &Slot) -> Result<(), StateError> {
        let newest = self.slots[1 - self.next].as_ref();
        let from = self.geometry.segment(newest.map_or(mark.first(), |slot| slot.end.saturating_sub(1)));
        let to = self.geometry.segment(mark.end.saturating_sub(1));
        if mark.end > 0 {
            for segment in from.max(1)..=to {
                self.disk.sync(segment, SyncPoint::Data)?;
            }
        }
        if to > self.entry_segment {
            self.disk.sync_directory(SyncPoint::Directory)?;
            self.entry_segment = to;
        }
        let slot = Slot { sequence: self.sequence + 1, ..mark.clone() };
        self.disk.write(ROOTS, slot_offset(self.next), &[&slot.encode()])?;
        self.disk.sync(ROOTS, SyncPoint::Root)?;
        self.sequence = slot.sequence;
        self.slots[self.next] = Some(slot);
        self.next = 1 - self.next;
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let newest = self.slots[1 - self.next].as_ref();
        let older = self.slots[self.next].as_ref();
        let last = |slot: Option<&Slot>| slot.and_then(|slot| slot.entries.last().copied());
        let first = |slot: Option<&Slot>| slot.map_or(u64::MAX, Slot::first);
        let cells = &self.cells;
        // ORDERING: Release, after the syncs; pairs with the Acquires of those who let go of what the slots do not need.
        cells.durable_number.store(last(newest).map_or(u64::MAX, |entry| entry.number), Ordering::Release);
        cells.held_sequence.store(last(older).map_or(0, |entry| entry.sequence), Ordering::Release);
        cells.free_below.store(first(newest).min(first(older)), Ordering::Release);
    }
}
