//! The newest index entries, in memory: an open-addressing table with one writer and any number of lock-free readers.
//!
//! Entries are never removed: what a rollback left behind is a false candidate, and every candidate is checked against the block it names.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::index::Entry;
use crate::runtime::pages::Words;

/// Parts in which a full table is sorted, by the first bits of the keys; a power of two.
const SORTED_PARTS: usize = 4;

/// Two words a slot: key, and location + 1; a location word of 0 is an empty slot.
pub(super) struct IndexTable {
    words: Words,
    shift: u32,
    multiplier: u64,
    entry_count_max: usize,
    entry_count: AtomicUsize,
}

impl IndexTable {
    /// A table for `entry_count_max` entries, at most two thirds full so that probes stay short.
    pub(super) fn new(entry_count_max: usize) -> IndexTable {
        let slot_count = (entry_count_max.max(8) * 3 / 2).next_power_of_two();
        let words = Words::touched(slot_count * 2);
        // The sender of a transaction can choose its hash's first bytes by trying; the secret multiplier keeps him from choosing slots.
        let multiplier = RandomState::new().hash_one(slot_count) | 1;
        let shift = 64 - slot_count.trailing_zeros();
        IndexTable { words, shift, multiplier, entry_count_max, entry_count: AtomicUsize::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.entry_count.load(Ordering::Relaxed)
    }

    pub(super) fn has_room_for(&self, entry_count: usize) -> bool {
        self.len() + entry_count <= self.entry_count_max
    }

    /// Adds an entry. Only the chain thread calls this, and only after [`IndexTable::has_room_for`].
    pub(super) fn insert(&self, entry: Entry) {
        let mut slot = self.first_slot(entry.key);
        let slot_mask = self.words.len() / 2 - 1;
        while self.words[slot * 2 + 1].load(Ordering::Relaxed) != 0 {
            slot = (slot + 1) & slot_mask;
        }
        self.words[slot * 2].store(entry.key, Ordering::Relaxed);
        // ORDERING: Release publishes the key beside it; pairs with the Acquire load in `visit`.
        self.words[slot * 2 + 1].store(entry.location + 1, Ordering::Release);
        let entry_count = self.len() + 1;
        assert!(entry_count <= self.entry_count_max, "caller checked that there is room");
        self.entry_count.store(entry_count, Ordering::Relaxed);
    }

    /// Hands every location under `key` to `visit` until it answers true or fails. Answers whether it stopped.
    pub(super) fn visit<E>(&self, key: u64, visit: &mut impl FnMut(u64) -> Result<bool, E>) -> Result<bool, E> {
        let slot_mask = self.words.len() / 2 - 1;
        let mut slot = self.first_slot(key);
        loop {
            // ORDERING: Acquire, pairs with the Release store in `insert`.
            let location = self.words[slot * 2 + 1].load(Ordering::Acquire);
            if location == 0 {
                return Ok(false);
            }
            if self.words[slot * 2].load(Ordering::Relaxed) == key && visit(location - 1)? {
                return Ok(true);
            }
            slot = (slot + 1) & slot_mask;
        }
    }

    /// Hands every entry to `visit`, in ascending order, until it fails. The table is no longer written. A part at a time is copied and sorted: a copy
    /// of the whole would be as much memory as the table, for a moment, each time that one is full.
    pub(super) fn visit_sorted<E>(&self, mut visit: impl FnMut(Entry) -> Result<(), E>) -> Result<(), E> {
        let mut part = Vec::with_capacity(self.len() / SORTED_PARTS * 5 / 4);
        for number in 0..SORTED_PARTS as u64 {
            part.clear();
            part.extend(self.words.chunks_exact(2).filter_map(|slot| {
                let location = slot[1].load(Ordering::Acquire);
                let key = slot[0].load(Ordering::Relaxed);
                (location != 0 && key >> (64 - SORTED_PARTS.ilog2()) == number)
                    .then(|| Entry { key, location: location - 1 })
            }));
            part.sort_unstable();
            part.iter().try_for_each(|entry| visit(*entry))?;
        }
        Ok(())
    }

    fn first_slot(&self, key: u64) -> usize {
        (key.wrapping_mul(self.multiplier) >> self.shift) as usize
    }
}
