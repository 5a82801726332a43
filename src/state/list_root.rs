//! Roots of ordered lists: transactions, receipts, withdrawals.
//!
//! Input → output: the encoded items of a block, one at a time while the block is open → the root of the Merkle-Patricia trie
//! that maps RLP(index) to item. Owner core: whoever closes the block.
//! Why it can start early: the keys are known beforehand. Sixteen indexes from a multiple of sixteen share all but the last
//! nibble of RLP(index), and a leaf that has a neighbour in its group of sixteen has an empty path, whatever else the list
//! holds. So a leaf is hashed as soon as it is known to have a neighbour, a group's branch as soon as the group is full,
//! both in lanes, and the end is left with the levels above: a twentieth of the nodes.
//! Exceptions: index 0 is RLP 0x80, beside 0x81… and 0x82…, so its path depends on the length of the list and it waits for the
//! end; the first leaf of a group waits for the second.

#[cfg(test)]
mod tests;

use alloy_primitives::B256;

use crate::crypto::keccak::{keccak256, keccak256_each};
use crate::state::ROOT_EMPTY;

/// Messages that wait for lanes: enough that the last, partly filled round of the lanes costs little.
const QUEUE_MESSAGES: usize = 64;
/// The same as a bound on bytes, for long items: half of a level 2 cache of 512 KiB.
const QUEUE_BYTES: usize = 256 << 10;

/// Children of a branch.
const WIDTH: usize = 16;
/// Nibbles of RLP(index) for an index below 2^32, plus one.
const PATH_NIBBLES_MAX: usize = 11;
/// 17 items of up to 33 bytes and a list header of up to 3.
const BRANCH_BYTES_MAX: usize = 17 * 33 + 3;

/// Incremental root of an ordered list. Reused from block to block, it does not allocate once its buffers have grown.
#[derive(Default)]
pub struct ListRoot {
    item_count: usize,
    /// RLP of leaves and group branches that wait for lanes.
    queue_bytes: Vec<u8>,
    queue: Vec<Message>,
    /// Item 0 as pushed.
    first_item: Vec<u8>,
    /// The item that opened the newest group and has no neighbour yet.
    opener: Vec<u8>,
    opener_waits: bool,
    groups: Vec<Group>,
}

#[derive(Clone, Copy)]
struct Message {
    end: usize,
    target: Target,
}

#[derive(Clone, Copy)]
enum Target {
    Leaf { index: usize },
    Group { group: usize },
}

/// Indexes `16 g` to `16 g + 15` (group 0: 1 to 15).
#[derive(Clone, Copy)]
struct Group {
    leaves: [Slot; WIDTH],
    hashed: u16,
    branch: Slot,
}

const GROUP_NEW: Group = Group { leaves: [Slot::EMPTY; WIDTH], hashed: 0, branch: Slot::EMPTY };

/// How a parent names a child: nothing, RLP shorter than 32 bytes, or RLP of the hash.
#[derive(Clone, Copy)]
struct Slot {
    bytes: [u8; 33],
    len: u8,
}

impl Slot {
    const EMPTY: Self = Self { bytes: [0; 33], len: 0 };

    fn hash(hash: B256) -> Self {
        let mut bytes = [0xa0; 33];
        bytes[1..].copy_from_slice(hash.as_slice());
        Self { bytes, len: 33 }
    }

    fn embedded(rlp: &[u8]) -> Self {
        let mut bytes = [0; 33];
        bytes[..rlp.len()].copy_from_slice(rlp);
        Self { bytes, len: rlp.len() as u8 }
    }

    /// The slot of a node.
    fn of(rlp: &[u8]) -> Self {
        if rlp.len() < 32 { Self::embedded(rlp) } else { Self::hash(keccak256(rlp)) }
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl ListRoot {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the list and keeps the buffers.
    pub fn reset(&mut self) {
        self.item_count = 0;
        self.queue_bytes.clear();
        self.queue.clear();
        self.first_item.clear();
        self.opener_waits = false;
        self.groups.clear();
    }

    /// Items pushed since the last reset.
    #[must_use]
    pub fn len(&self) -> usize {
        self.item_count
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.item_count == 0
    }

    /// Appends an item: an EIP-2718 envelope or RLP, not empty.
    pub fn push(&mut self, encoded: &[u8]) {
        assert!(!encoded.is_empty(), "an empty value is no entry of a trie");
        let index = self.item_count;
        self.item_count += 1;
        if index.is_multiple_of(WIDTH) {
            self.groups.push(GROUP_NEW);
        }
        if index == 0 {
            self.first_item.extend_from_slice(encoded);
            return;
        }
        if opens_group(index) {
            self.opener.clear();
            self.opener.extend_from_slice(encoded);
            self.opener_waits = true;
            return;
        }
        if self.opener_waits {
            self.opener_waits = false;
            let opener = std::mem::take(&mut self.opener);
            self.queue_leaf(index - 1, &opener);
            self.opener = opener;
        }
        self.queue_leaf(index, encoded);
        if self.queue.len() >= QUEUE_MESSAGES || self.queue_bytes.len() >= QUEUE_BYTES {
            self.hash_queue();
        }
    }

    /// The root of the list so far. Then only [`Self::reset`] makes sense.
    pub fn finish(&mut self) -> B256 {
        if self.item_count == 0 {
            return ROOT_EMPTY;
        }
        while !self.queue.is_empty() {
            self.hash_queue();
        }
        if let Some(last) = self.groups.len().checked_sub(1)
            && self.groups[last].branch.is_empty()
            && self.groups[last].hashed != 0
        {
            self.queue_group(last);
            self.hash_queue();
        }
        let mut root = Vec::with_capacity(BRANCH_BYTES_MAX);
        self.above(0, self.groups.len() + 1, 0, &mut root);
        keccak256(&root)
    }

    fn queue_leaf(&mut self, index: usize, encoded: &[u8]) {
        leaf_rlp(&[], encoded, &mut self.queue_bytes);
        self.queue.push(Message { end: self.queue_bytes.len(), target: Target::Leaf { index } });
    }

    fn queue_group(&mut self, group: usize) {
        branch_rlp(&self.groups[group].leaves, &mut self.queue_bytes);
        self.queue.push(Message { end: self.queue_bytes.len(), target: Target::Group { group } });
    }

    /// Hashes what waits; the branches of groups that this fills wait for the next time.
    fn hash_queue(&mut self) {
        let Self { queue, queue_bytes, groups, .. } = self;
        let start = |message: usize| if message == 0 { 0 } else { queue[message - 1].end };
        let rlp = |message: usize| &queue_bytes[start(message)..queue[message].end];
        let mut place = |message: usize, slot: Slot| match queue[message].target {
            Target::Leaf { index } => {
                let group = &mut groups[index / WIDTH];
                group.leaves[index % WIDTH] = slot;
                group.hashed |= 1 << (index % WIDTH);
            }
            Target::Group { group } => groups[group].branch = slot,
        };
        keccak256_each(queue.len(), rlp, |message, hash| {
            let rlp = rlp(message);
            place(message, if rlp.len() < 32 { Slot::embedded(rlp) } else { Slot::hash(hash) });
        });
        let filled = self.filled_groups();
        self.queue.clear();
        self.queue_bytes.clear();
        for group in filled {
            self.queue_group(group);
        }
    }

    /// Groups that the messages in the queue filled. Leaves come in order, so these follow each other.
    fn filled_groups(&self) -> std::ops::Range<usize> {
        let last_leaf =
            |message: &&Message| matches!(message.target, Target::Leaf { index } if index % WIDTH == WIDTH - 1);
        let group = |message: &Message| match message.target {
            Target::Leaf { index } => index / WIDTH,
            Target::Group { group } => group,
        };
        let Some(first) = self.queue.iter().find(last_leaf) else { return 0..0 };
        let count = self.queue.iter().filter(last_leaf).count();
        group(first)..group(first) + count
    }

    /// The nodes above the groups, without lanes: there are few. Writes the RLP of the node at `depth` over the units
    /// `start..end`, which share `depth` nibbles.
    fn above(&self, start: usize, end: usize, depth: usize, out: &mut Vec<u8>) {
        let (start, end) = self.trim(start, end);
        let first = self.unit(start);
        let last = self.unit(end - 1);
        if end - start == 1 {
            self.unit_rlp(first, depth, out);
            return;
        }
        let shared = first.path().iter().zip(last.path()).take_while(|(a, b)| a == b).count();
        let mut children = [Slot::EMPTY; WIDTH];
        let mut child_start = start;
        let mut scratch = Vec::with_capacity(BRANCH_BYTES_MAX);
        while child_start < end {
            let nibble = self.unit(child_start).path()[shared];
            let mut child_end = child_start + 1;
            while child_end < end && self.unit(child_end).path()[shared] == nibble {
                child_end += 1;
            }
            children[usize::from(nibble)] = self.child(child_start, child_end, shared + 1, &mut scratch);
            child_start = child_end;
        }
        if shared == depth {
            branch_rlp(&children, out);
        } else {
            scratch.clear();
            branch_rlp(&children, &mut scratch);
            extension_rlp(&first.path()[depth..shared], &Slot::of(&scratch), out);
        }
    }

    fn child(&self, start: usize, end: usize, depth: usize, scratch: &mut Vec<u8>) -> Slot {
        let unit = self.unit(start);
        if end - start == 1
            && let UnitKind::Branch { slot } = unit.kind
            && unit.path().len() == depth
        {
            return slot;
        }
        scratch.clear();
        self.above(start, end, depth, scratch);
        Slot::of(scratch)
    }

    /// Leaves out the place of group 0 when the list has one item only.
    fn trim(&self, start: usize, end: usize) -> (usize, usize) {
        if start == 0 && self.item_count == 1 { (1, end) } else { (start, end) }
    }

    /// Unit `position` in the order of the keys: the groups 0 to 7 (one byte), item 0 (0x80), the other groups (0x81…, 0x82…).
    fn unit(&self, position: usize) -> Unit<'_> {
        let zero_position = self.groups.len().min(128 / WIDTH);
        if position == zero_position {
            return Unit { key: Path::of(0), kind: UnitKind::Leaf { item: &self.first_item } };
        }
        let group = position - usize::from(position > zero_position);
        let last = self.item_count - 1;
        if self.opener_waits && group == last / WIDTH {
            return Unit { key: Path::of(last), kind: UnitKind::Leaf { item: &self.opener } };
        }
        let mut key = Path::of((group * WIDTH).max(1));
        key.len -= 1;
        Unit { key, kind: UnitKind::Branch { slot: self.groups[group].branch } }
    }

    fn unit_rlp(&self, unit: Unit<'_>, depth: usize, out: &mut Vec<u8>) {
        match unit.kind {
            UnitKind::Leaf { item } => leaf_rlp(&unit.path()[depth..], item, out),
            UnitKind::Branch { slot } if unit.path().len() > depth => {
                extension_rlp(&unit.path()[depth..], &slot, out);
            }
            // Only asked for when the whole list is one group, which has a path.
            UnitKind::Branch { slot } => out.extend_from_slice(slot.as_bytes()),
        }
    }
}

/// Whether no smaller index shares all nibbles but the last. Index 1 opens group 0: index 0 is encoded as 0x80.
fn opens_group(index: usize) -> bool {
    index.is_multiple_of(WIDTH) || index == 1
}

/// What the levels above the groups are built of.
#[derive(Clone, Copy)]
struct Unit<'a> {
    key: Path,
    kind: UnitKind<'a>,
}

#[derive(Clone, Copy)]
enum UnitKind<'a> {
    Leaf { item: &'a [u8] },
    Branch { slot: Slot },
}

impl Unit<'_> {
    fn path(&self) -> &[u8] {
        &self.key.nibbles[..self.key.len]
    }
}

/// Nibbles of RLP(index).
#[derive(Clone, Copy)]
struct Path {
    nibbles: [u8; PATH_NIBBLES_MAX],
    len: usize,
}

impl Path {
    fn of(index: usize) -> Self {
        let mut path = Self { nibbles: [0; PATH_NIBBLES_MAX], len: 0 };
        let bytes = (index as u32).to_be_bytes();
        let skip = bytes.iter().take_while(|byte| **byte == 0).count();
        if index == 0 || index > 0x7f {
            path.push(0x80 + (bytes.len() - skip) as u8);
        }
        for byte in &bytes[skip..] {
            path.push(*byte);
        }
        path
    }

    fn push(&mut self, byte: u8) {
        self.nibbles[self.len] = byte >> 4;
        self.nibbles[self.len + 1] = byte & 0xf;
        self.len += 2;
    }
}

/// RLP of a leaf: `[hex_prefix(path, leaf), item]`.
fn leaf_rlp(path: &[u8], item: &[u8], out: &mut Vec<u8>) {
    let mut prefix = [0; PATH_NIBBLES_MAX];
    let prefix = hex_prefix(path, 0x20, &mut prefix);
    let payload_bytes = string_bytes(prefix) + string_bytes(item);
    list_header(payload_bytes, out);
    string(prefix, out);
    string(item, out);
}

/// RLP of an extension: `[hex_prefix(path), child]`.
fn extension_rlp(path: &[u8], child: &Slot, out: &mut Vec<u8>) {
    let mut prefix = [0; PATH_NIBBLES_MAX];
    let prefix = hex_prefix(path, 0, &mut prefix);
    list_header(string_bytes(prefix) + child.as_bytes().len(), out);
    string(prefix, out);
    out.extend_from_slice(child.as_bytes());
}

/// RLP of a branch without a value.
fn branch_rlp(children: &[Slot; WIDTH], out: &mut Vec<u8>) {
    let payload_bytes: usize = children.iter().map(|child| usize::from(child.len).max(1)).sum();
    list_header(payload_bytes + 1, out);
    for child in children {
        if child.is_empty() {
            out.push(0x80);
        } else {
            out.extend_from_slice(child.as_bytes());
        }
    }
    out.push(0x80);
}

/// Compact encoding of a path (yellow paper, appendix C): flag nibble, padding when even, nibbles.
fn hex_prefix<'a>(path: &[u8], flag: u8, out: &'a mut [u8; PATH_NIBBLES_MAX]) -> &'a [u8] {
    let odd = path.len() % 2;
    out[0] = if odd == 1 { flag | 0x10 | path[0] } else { flag };
    for (byte, pair) in out[1..].iter_mut().zip(path[odd..].chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    &out[..1 + path.len() / 2]
}

fn string_bytes(string: &[u8]) -> usize {
    match string {
        [byte] if *byte < 0x80 => 1,
        _ => header_bytes(string.len()) + string.len(),
    }
}

fn header_bytes(payload_bytes: usize) -> usize {
    if payload_bytes < 56 { 1 } else { 1 + length_bytes(payload_bytes) }
}

fn length_bytes(length: usize) -> usize {
    (usize::BITS - length.leading_zeros()).div_ceil(8) as usize
}

fn string(string: &[u8], out: &mut Vec<u8>) {
    if string_bytes(string) > 1 || string.is_empty() {
        header(0x80, string.len(), out);
    }
    out.extend_from_slice(string);
}

fn list_header(payload_bytes: usize, out: &mut Vec<u8>) {
    header(0xc0, payload_bytes, out);
}

fn header(short: u8, payload_bytes: usize, out: &mut Vec<u8>) {
    if payload_bytes < 56 {
        out.push(short + payload_bytes as u8);
    } else {
        let length = length_bytes(payload_bytes);
        out.push(short + 55 + length as u8);
        out.extend_from_slice(&payload_bytes.to_be_bytes()[8 - length..]);
    }
}
