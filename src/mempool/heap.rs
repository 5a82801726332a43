//! Indexed four-ary max-heap over slab slots: any entry can be removed, because its position is known.

/// An entry: larger `key` first, then smaller `arrival`. Arrivals are distinct, so the order is total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub key: u128,
    /// Carried for the owner; no part of the order.
    pub limit: u128,
    pub arrival: u64,
    pub slot: u32,
}

impl Node {
    pub fn is_before(&self, other: &Self) -> bool {
        self.key > other.key || (self.key == other.key && self.arrival < other.arrival)
    }
}

const ARITY: usize = 4;

/// The heap. `positions[slot]` is the index of that slot's node; a slot is in at most one heap that shares the array.
#[derive(Debug)]
pub(super) struct Heap {
    nodes: Vec<Node>,
}

impl Heap {
    pub fn with_capacity(nodes_max: u32) -> Self {
        Self { nodes: Vec::with_capacity(nodes_max as usize) }
    }

    pub fn top(&self) -> Option<&Node> {
        self.nodes.first()
    }

    /// Whether the slot, which is in one of the heaps that share `positions`, is in this one.
    pub fn contains(&self, positions: &[u32], slot: u32) -> bool {
        self.nodes.get(positions[slot as usize] as usize).is_some_and(|node| node.slot == slot)
    }

    pub fn push(&mut self, positions: &mut [u32], node: Node) {
        assert!(self.nodes.len() < self.nodes.capacity(), "heap over its capacity");
        let index = self.nodes.len();
        self.nodes.push(node);
        sift_up(&mut self.nodes, positions, node, index);
    }

    pub fn remove(&mut self, positions: &mut [u32], slot: u32) {
        let index = positions[slot as usize] as usize;
        assert_eq!(self.nodes[index].slot, slot, "position of another slot");
        let Some(last) = self.nodes.pop() else { return };
        if index < self.nodes.len() {
            let index = sift_up(&mut self.nodes, positions, last, index);
            sift_down(&mut self.nodes, positions, last, index);
        }
    }

    /// Moves every node for which `moves` answers with its new key to `target`, then restores both orders. `O(n)`.
    pub fn drain_into(
        &mut self,
        target: &mut Self,
        positions: &mut [u32],
        mut moves: impl FnMut(&Node) -> Option<u128>,
    ) -> usize {
        let moved_before = target.nodes.len();
        self.nodes.retain(|node| match moves(node) {
            Some(key) => {
                assert!(target.nodes.len() < target.nodes.capacity(), "heap over its capacity");
                target.nodes.push(Node { key, ..*node });
                false
            }
            None => true,
        });
        let moved_count = target.nodes.len() - moved_before;
        if moved_count > 0 {
            restore(&mut self.nodes, positions);
            restore(&mut target.nodes, positions);
        }
        moved_count
    }
}

/// Orders a whole heap from an arbitrary arrangement.
fn restore(nodes: &mut [Node], positions: &mut [u32]) {
    for (index, node) in nodes.iter().enumerate() {
        positions[node.slot as usize] = index as u32; // Fewer than 2^32 slots.
    }
    for index in (0..nodes.len().div_ceil(ARITY)).rev() {
        sift_down(nodes, positions, nodes[index], index);
    }
}

/// Places `node` at `index` or above it; returns where.
fn sift_up(nodes: &mut [Node], positions: &mut [u32], node: Node, mut index: usize) -> usize {
    while index > 0 {
        let parent = (index - 1) / ARITY;
        if !node.is_before(&nodes[parent]) {
            break;
        }
        nodes[index] = nodes[parent];
        positions[nodes[index].slot as usize] = index as u32;
        index = parent;
    }
    nodes[index] = node;
    positions[node.slot as usize] = index as u32;
    index
}

/// Places `node` at `index` or below it.
fn sift_down(nodes: &mut [Node], positions: &mut [u32], node: Node, mut index: usize) {
    loop {
        let first = index * ARITY + 1;
        let last = (first + ARITY).min(nodes.len());
        let mut best = first;
        for child in first + 1..last {
            if nodes[child].is_before(&nodes[best]) {
                best = child;
            }
        }
        if first >= nodes.len() || !nodes[best].is_before(&node) {
            break;
        }
        nodes[index] = nodes[best];
        positions[nodes[index].slot as usize] = index as u32;
        index = best;
    }
    nodes[index] = node;
    positions[node.slot as usize] = index as u32;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLOTS: u32 = 40;

    #[track_caller]
    fn check_order(heap: &Heap, positions: &[u32]) {
        for (index, node) in heap.nodes.iter().enumerate() {
            assert_eq!(positions[node.slot as usize] as usize, index);
            assert!(index == 0 || !node.is_before(&heap.nodes[(index - 1) / ARITY]));
        }
    }

    proptest! {
        #[test]
        fn behaves_like_sorted_lists(operations in prop::collection::vec((0..SLOTS, 0_u128..6, 0_u8..20), 0..300)) {
            let mut heaps = [Heap::with_capacity(SLOTS), Heap::with_capacity(SLOTS)];
            let mut positions = vec![0; SLOTS as usize];
            let mut models = [Vec::<Node>::new(), Vec::new()];
            for (step, (slot, key, kind)) in operations.into_iter().enumerate() {
                let side = usize::from(kind % 2 == 1);
                let held = models.iter().position(|model| model.iter().any(|node| node.slot == slot));
                if kind >= 18 {
                    let [first, second] = &mut heaps;
                    first.drain_into(second, &mut positions, |node| (node.key < key).then_some(node.key + 1));
                    let (moving, staying) = models[0].iter().partition::<Vec<_>, _>(|node| node.key < key);
                    models[0] = staying;
                    models[1].extend(moving.into_iter().map(|node| Node { key: node.key + 1, ..node }));
                } else if let Some(side) = held {
                    prop_assert!(heaps[side].contains(&positions, slot) && !heaps[1 - side].contains(&positions, slot));
                    heaps[side].remove(&mut positions, slot);
                    models[side].retain(|node| node.slot != slot);
                } else {
                    let node = Node { key, limit: 0, arrival: step as u64, slot };
                    heaps[side].push(&mut positions, node);
                    models[side].push(node);
                }
                for (heap, model) in heaps.iter().zip(&models) {
                    check_order(heap, &positions);
                    prop_assert_eq!(heap.nodes.len(), model.len());
                    let top = model.iter().min_by_key(|node| (std::cmp::Reverse(node.key), node.arrival));
                    prop_assert_eq!(heap.top(), top);
                }
            }
        }
    }
}
