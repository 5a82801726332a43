//! Fixed-size hash index from a key kept elsewhere to a slab slot.
//!
//! A standard map would do, but its deletions leave marks that are cleared by rehashing everything at once: milliseconds on the
//! builder core. Here deletion shifts the run behind it back, so that no operation is ever longer than a run, and nothing allocates.

use super::list::NONE;

#[derive(Clone, Copy, Debug)]
struct Cell {
    hash: u32,
    slot: u32,
}

/// Open addressing with linear probing, at most half full. The caller compares keys.
#[derive(Debug)]
pub(super) struct SlotTable {
    cells: Box<[Cell]>,
    mask: u32,
    len: u32,
}

impl SlotTable {
    /// A table for at most `entries_max` entries.
    pub fn with_capacity(entries_max: u32) -> Self {
        let cell_count = (entries_max.max(8) as usize * 2).next_power_of_two();
        let mask = u32::try_from(cell_count - 1).expect("2^31 entries at most, so 2^32 cells at most");
        Self { cells: vec![Cell { hash: 0, slot: NONE }; cell_count].into_boxed_slice(), mask, len: 0 }
    }

    pub fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut index = hash & self.mask;
        loop {
            let cell = self.cells[index as usize];
            if cell.slot == NONE {
                return None;
            }
            if cell.hash == hash && is_it(cell.slot) {
                return Some(cell.slot);
            }
            index = (index + 1) & self.mask;
        }
    }

    /// Adds an entry. The key is not in the table yet.
    pub fn insert(&mut self, hash: u32, slot: u32) {
        assert!(self.len <= self.mask / 2, "table over its capacity");
        let mut index = hash & self.mask;
        while self.cells[index as usize].slot != NONE {
            index = (index + 1) & self.mask;
        }
        self.cells[index as usize] = Cell { hash, slot };
        self.len += 1;
    }

    /// Removes the entry of `slot`, which is there.
    pub fn remove(&mut self, hash: u32, slot: u32) {
        let mut hole = hash & self.mask;
        while self.cells[hole as usize].slot != slot {
            assert!(self.cells[hole as usize].slot != NONE, "removal of an entry that is not there");
            hole = (hole + 1) & self.mask;
        }
        let mut index = hole;
        loop {
            index = (index + 1) & self.mask;
            let cell = self.cells[index as usize];
            if cell.slot == NONE {
                break;
            }
            // A cell may move to the hole unless its home lies behind the hole: then a search would no longer pass it.
            let from_home = index.wrapping_sub(cell.hash) & self.mask;
            let from_hole = index.wrapping_sub(hole) & self.mask;
            if from_home >= from_hole {
                self.cells[hole as usize] = cell;
                hole = index;
            }
        }
        self.cells[hole as usize].slot = NONE;
        self.len -= 1;
    }

    pub fn len(&self) -> u32 {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Hashes are drawn from few values, also at the wrap-around, so that runs are long and mixed.
        #[test]
        fn behaves_like_a_map(operations in prop::collection::vec((0_u32..40, any::<bool>()), 0..300)) {
            let hash = |key: u32| if key.is_multiple_of(3) { u32::MAX - key % 2 } else { key % 7 };
            let mut table = SlotTable::with_capacity(40);
            let mut model = HashMap::new();
            for (key, add) in operations {
                if add && !model.contains_key(&key) {
                    table.insert(hash(key), key);
                    model.insert(key, key);
                } else if !add && model.remove(&key).is_some() {
                    table.remove(hash(key), key);
                }
                for candidate in 0..40 {
                    prop_assert_eq!(table.find(hash(candidate), |slot| slot == candidate), model.get(&candidate).copied());
                }
                prop_assert_eq!(table.len() as usize, model.len());
            }
        }
    }
}
