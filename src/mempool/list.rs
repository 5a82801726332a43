//! Intrusive doubly linked lists over slab slots: constant-time removal from the middle, no allocation.

/// "No slot" in links, lists and tables.
pub(super) const NONE: u32 = u32::MAX;

/// Neighbours of one slot in one family of lists. A slot is in at most one list of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub prev: u32,
    pub next: u32,
}

impl Link {
    pub const UNLINKED: Self = Self { prev: NONE, next: NONE };
}

/// Ends and length of a list. Its links lie inside the slab's entries, where `link` finds those of the list's family.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub head: u32,
    pub tail: u32,
    pub len: u32,
}

impl List {
    pub const EMPTY: Self = Self { head: NONE, tail: NONE, len: 0 };

    pub fn push_back<E>(&mut self, entries: &mut [E], link: impl Fn(&mut E) -> &mut Link, slot: u32) {
        self.insert_after(entries, link, self.tail, slot);
    }

    /// Inserts `slot` behind `previous`, or in front of everything when that is [`NONE`].
    pub fn insert_after<E>(&mut self, entries: &mut [E], link: impl Fn(&mut E) -> &mut Link, previous: u32, slot: u32) {
        let next = match previous {
            NONE => std::mem::replace(&mut self.head, slot),
            _ => std::mem::replace(&mut link(&mut entries[previous as usize]).next, slot),
        };
        match next {
            NONE => self.tail = slot,
            _ => link(&mut entries[next as usize]).prev = slot,
        }
        *link(&mut entries[slot as usize]) = Link { prev: previous, next };
        self.len += 1;
    }

    pub fn remove<E>(&mut self, entries: &mut [E], link: impl Fn(&mut E) -> &mut Link, slot: u32) {
        let Link { prev, next } = std::mem::replace(link(&mut entries[slot as usize]), Link::UNLINKED);
        match prev {
            NONE => self.head = next,
            _ => link(&mut entries[prev as usize]).next = next,
        }
        match next {
            NONE => self.tail = prev,
            _ => link(&mut entries[next as usize]).prev = prev,
        }
        assert!(self.len > 0, "removal from an empty list");
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forward(list: &List, links: &[Link]) -> Vec<u32> {
        let mut slots = vec![];
        let mut slot = list.head;
        while slot != NONE {
            slots.push(slot);
            slot = links[slot as usize].next;
        }
        slots
    }

    fn backward(list: &List, links: &[Link]) -> Vec<u32> {
        let mut slots = vec![];
        let mut slot = list.tail;
        while slot != NONE {
            slots.push(slot);
            slot = links[slot as usize].prev;
        }
        slots.reverse();
        slots
    }

    proptest! {
        #[test]
        fn behaves_like_a_vector(operations in prop::collection::vec((0_u32..24, any::<bool>(), any::<prop::sample::Index>()), 0..200)) {
            let (mut list, mut links, mut model) = (List::EMPTY, vec![Link::UNLINKED; 24], Vec::<u32>::new());
            for (slot, at_back, place) in operations {
                if let Some(position) = model.iter().position(|entry| *entry == slot) {
                    list.remove(&mut links, |link| link, slot);
                    model.remove(position);
                } else if at_back {
                    list.push_back(&mut links, |link| link, slot);
                    model.push(slot);
                } else {
                    let position = place.index(model.len() + 1);
                    let previous = if position == 0 { NONE } else { model[position - 1] };
                    list.insert_after(&mut links, |link| link, previous, slot);
                    model.insert(position, slot);
                }
                prop_assert_eq!(forward(&list, &links), model.clone());
                prop_assert_eq!(backward(&list, &links), model.clone());
                prop_assert_eq!(list.len as usize, model.len());
            }
        }
    }
}
