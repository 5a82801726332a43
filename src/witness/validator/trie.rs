//! Tries of which only a part is known: changes to entries, and the roots that follow.
//!
//! Input → output: the root of a trie before, and single changes → the root after. Owner core: any; one validation owns it.
//! Nodes are read from the witness when a change comes to them; everything else stays the hash that its parent has. This is a second
//! implementation beside the state's own, on purpose: settlement re-executes each block with it, and an error of one of the two shows.
//! Invariants: a changed node has no hash until [`TrieWriter::hash`], and then all have. Like go-ethereum, who calls makes deletions
//! last, so that the siblings that collapsing branches need are the same.

use alloy_primitives::B256;

use super::node::{
    ChildRef, HASHED_BYTES_MIN, KEY_NIBBLES, NodeView, WIDTH, nibble, prefix_of, set_nibble, shared_nibbles,
};
use super::nodes::{At, HashIndex, StateFault};
use crate::crypto::keccak::{keccak256, keccak256_each};
use crate::state::ROOT_EMPTY;

/// Messages hashed at a time: their RLP (up to 68 KB) stays in the level 2 cache.
const HASH_MESSAGES: usize = 128;
/// A branch of 16 hashes and its header.
const NODE_RLP_BYTES_MAX: usize = 532;

/// A node's number in the writer.
type NodeId = u32;

/// What hangs at a place of a trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child<'w> {
    /// As it was, and not read yet.
    Old(ChildRef<'w>),
    Node(NodeId),
}

impl<'w> Child<'w> {
    pub const EMPTY: Self = Self::Old(ChildRef::Empty);

    /// The trie with this root.
    #[must_use]
    pub fn of_root(root: &'w B256) -> Self {
        if *root == ROOT_EMPTY { Self::EMPTY } else { Self::Old(ChildRef::Hash(root)) }
    }
}

#[derive(Clone, Copy)]
enum Kind<'w> {
    /// Index into the branches.
    Branch(u32),
    Extension {
        path: B256,
        end: u8,
        child: Child<'w>,
    },
    Leaf {
        key: B256,
        value: Value<'w>,
    },
}

#[derive(Clone, Copy)]
enum Value<'w> {
    Old(&'w [u8]),
    New { start: u32, len: u8 },
}

#[derive(Clone, Copy)]
struct Node<'w> {
    kind: Kind<'w>,
    /// How the parent names it; `Empty` once it has changed.
    name: ChildRef<'w>,
}

/// How a changed node is named in its parent.
#[derive(Clone, Copy)]
struct Slot {
    bytes: [u8; 33],
    len: u8,
}

/// A changed node on its way to its hash.
#[derive(Clone, Copy)]
struct Pending {
    id: NodeId,
    depth: u8,
}

/// Changes tries over the nodes of a witness. What it reads is marked as needed.
pub struct TrieWriter<'n, 'w> {
    nodes: &'n mut HashIndex<'w>,
    arena: Vec<Node<'w>>,
    branches: Vec<[Child<'w>; WIDTH]>,
    values: Vec<u8>,
    slots: Vec<Slot>,
    /// Hash of the address whose storage is being changed.
    owner: Option<B256>,
}

impl<'n, 'w> TrieWriter<'n, 'w> {
    /// `change_count`: how many changes are going to come, so that the buffers seldom grow.
    #[must_use]
    pub fn new(nodes: &'n mut HashIndex<'w>, change_count: usize) -> Self {
        Self {
            nodes,
            arena: Vec::with_capacity(4 * change_count),
            branches: Vec::with_capacity(2 * change_count),
            values: Vec::with_capacity(96 * change_count),
            slots: Vec::new(),
            owner: None,
        }
    }

    /// The nodes that it reads from.
    #[must_use]
    pub fn nodes(&self) -> &HashIndex<'w> {
        self.nodes
    }

    /// Names the trie that changes are made to from now on, for errors.
    pub fn set_owner(&mut self, owner: Option<B256>) {
        self.owner = owner;
    }

    /// The value of `key` in the witness. The nodes on the way are read once: changes to `key` find them again.
    ///
    /// # Errors
    /// A node on the way that is not in the witness, or is none.
    ///
    /// # Panics
    /// When a value of the trie was changed before.
    pub fn read(&mut self, root: &mut Child<'w>, key: &B256) -> Result<Option<&'w [u8]>, StateFault> {
        let Some(mut id) = self.resolve(*root, key, 0, false, false)? else { return Ok(None) };
        *root = Child::Node(id);
        let mut depth = 0;
        loop {
            let below = match self.arena[id as usize].kind {
                Kind::Branch(branch) => {
                    let digit = nibble(key, depth);
                    depth += 1;
                    let child = self.branches[branch as usize][digit];
                    let below = self.resolve(child, key, depth, false, false)?;
                    if let Some(below) = below {
                        self.branches[branch as usize][digit] = Child::Node(below);
                    }
                    below
                }
                Kind::Extension { path, end, child } => {
                    depth = usize::from(end);
                    if shared_nibbles(key, &path) < depth {
                        return Ok(None);
                    }
                    let below = self.resolve(child, key, depth, true, false)?;
                    if let Some(below) = below {
                        self.arena[id as usize].kind = Kind::Extension { path, end, child: Child::Node(below) };
                    }
                    below
                }
                Kind::Leaf { key: found, value: Value::Old(value) } => return Ok((found == *key).then_some(value)),
                Kind::Leaf { value: Value::New { .. }, .. } => unreachable!("values are read before any is changed"),
            };
            match below {
                Some(below) => id = below,
                None => return Ok(None),
            }
        }
    }

    /// Gives `key` a value: RLP of at most 255 bytes, not empty.
    ///
    /// # Errors
    /// A node on the way that is not in the witness, or is none.
    pub fn insert(&mut self, root: &mut Child<'w>, key: &B256, value: &[u8]) -> Result<(), StateFault> {
        let start = self.values.len() as u32; // Fewer than 2^32 bytes: a block's changes are bounded by its gas.
        self.values.extend_from_slice(value);
        // Callers write accounts (at most 110 bytes) and integers (at most 33).
        let value = Value::New { start, len: value.len() as u8 };
        if let Some(changed) = self.insert_at(*root, 0, false, key, value)? {
            *root = changed;
        }
        Ok(())
    }

    /// Removes `key`; nothing happens when it is absent.
    ///
    /// # Errors
    /// A node on the way, or the sibling that takes the place of a branch, that is not in the witness, or is none.
    pub fn delete(&mut self, root: &mut Child<'w>, key: &B256) -> Result<(), StateFault> {
        if let Some(changed) = self.delete_at(*root, 0, false, key)? {
            *root = changed;
        }
        Ok(())
    }

    /// The root hashes of tries, after everything changed in them has been hashed, deepest nodes of all tries first.
    pub fn hash(&mut self, roots: &[Child<'w>]) -> Vec<B256> {
        self.slots.resize(self.arena.len(), Slot { bytes: [0; 33], len: 0 });
        let mut levels: Vec<Vec<Pending>> = Vec::new();
        for root in roots {
            self.collect(*root, 0, 0, &mut levels);
        }
        let mut rlp = Vec::with_capacity(HASH_MESSAGES * NODE_RLP_BYTES_MAX);
        for level in levels.iter().rev() {
            for group in level.chunks(HASH_MESSAGES) {
                self.hash_group(group, &mut rlp);
            }
        }
        roots.iter().map(|root| self.root_hash(*root)).collect()
    }

    /// Reads what hangs at a place, if anything. `is_sibling`: it is what a collapsing branch leaves.
    fn resolve(
        &mut self,
        child: Child<'w>,
        key: &B256,
        depth: usize,
        after_extension: bool,
        is_sibling: bool,
    ) -> Result<Option<NodeId>, StateFault> {
        let name = match child {
            Child::Node(id) => return Ok(Some(id)),
            Child::Old(name) => name,
        };
        let mut at = At { owner: self.owner, hash: B256::ZERO, depth, after_extension };
        let view = match name {
            ChildRef::Empty => return Ok(None),
            ChildRef::Embedded(rlp) => at.parse(rlp, key)?,
            ChildRef::Hash(hash) => {
                at.hash = *hash;
                let index = self.nodes.find(hash).ok_or_else(|| {
                    let (hash, place) = (*hash, at.place(key));
                    if is_sibling {
                        StateFault::SiblingMissing { hash, place }
                    } else {
                        StateFault::NodeMissing { hash, place }
                    }
                })?;
                self.nodes.mark_needed(index);
                self.nodes.view(index, &at, key)?
            }
        };
        let kind = match view {
            NodeView::Branch(children) => self.add_branch(children.map(Child::Old)),
            NodeView::Extension { path, end, child } => {
                Kind::Extension { path, end: end as u8, child: Child::Old(child) } // Below 64.
            }
            NodeView::Leaf { key, value } => Kind::Leaf { key, value: Value::Old(value) },
        };
        Ok(Some(self.add(kind, name)))
    }

    fn add_branch(&mut self, children: [Child<'w>; WIDTH]) -> Kind<'w> {
        self.branches.push(children);
        Kind::Branch(self.branches.len() as u32 - 1)
    }

    fn add(&mut self, kind: Kind<'w>, name: ChildRef<'w>) -> NodeId {
        self.arena.push(Node { kind, name });
        self.arena.len() as NodeId - 1
    }

    /// A node that the state before did not have.
    fn add_new(&mut self, kind: Kind<'w>) -> Child<'w> {
        Child::Node(self.add(kind, ChildRef::Empty))
    }

    /// Gives a node a new content.
    fn change(&mut self, id: NodeId, kind: Kind<'w>) -> Child<'w> {
        self.arena[id as usize] = Node { kind, name: ChildRef::Empty };
        Child::Node(id)
    }

    fn value(&self, value: Value<'w>) -> &[u8] {
        match value {
            Value::Old(bytes) => bytes,
            Value::New { start, len } => &self.values[start as usize..start as usize + usize::from(len)],
        }
    }

    /// `None`: nothing changed.
    fn insert_at(
        &mut self,
        child: Child<'w>,
        depth: usize,
        after_extension: bool,
        key: &B256,
        value: Value<'w>,
    ) -> Result<Option<Child<'w>>, StateFault> {
        let leaf = Kind::Leaf { key: *key, value };
        let Some(id) = self.resolve(child, key, depth, after_extension, false)? else {
            return Ok(Some(self.add_new(leaf)));
        };
        match self.arena[id as usize].kind {
            Kind::Branch(branch) => {
                let digit = nibble(key, depth);
                let below = self.branches[branch as usize][digit];
                let changed = self.insert_at(below, depth + 1, false, key, value)?;
                Ok(changed.map(|below| self.change_branch(id, branch, digit, below)))
            }
            Kind::Extension { path, end, child } => {
                let shared = shared_nibbles(key, &path).min(usize::from(end));
                if shared == usize::from(end) {
                    let changed = self.insert_at(child, shared, true, key, value)?;
                    return Ok(changed.map(|child| self.change(id, Kind::Extension { path, end, child })));
                }
                let old = if shared + 1 == usize::from(end) {
                    child
                } else {
                    self.change(id, Kind::Extension { path, end, child })
                };
                Ok(Some(self.fork(depth, shared, (&path, old), (key, leaf))))
            }
            Kind::Leaf { key: found, value: old } if found == *key => {
                if self.value(old) == self.value(value) {
                    return Ok(None);
                }
                Ok(Some(self.change(id, leaf)))
            }
            kind @ Kind::Leaf { key: found, .. } => {
                let shared = shared_nibbles(key, &found);
                let old = self.change(id, kind);
                Ok(Some(self.fork(depth, shared, (&found, old), (key, leaf))))
            }
        }
    }

    /// A branch at depth `shared` of something old and a new leaf, and the extension that leads there from `depth`.
    fn fork(
        &mut self,
        depth: usize,
        shared: usize,
        (old_path, old): (&B256, Child<'w>),
        (key, leaf): (&B256, Kind<'w>),
    ) -> Child<'w> {
        let mut children = [Child::EMPTY; WIDTH];
        children[nibble(old_path, shared)] = old;
        children[nibble(key, shared)] = self.add_new(leaf);
        let branch = self.add_branch(children);
        let branch = self.add_new(branch);
        if shared == depth {
            return branch;
        }
        self.add_new(Kind::Extension { path: prefix_of(key, shared), end: shared as u8, child: branch })
    }

    fn change_branch(&mut self, id: NodeId, branch: u32, digit: usize, child: Child<'w>) -> Child<'w> {
        self.branches[branch as usize][digit] = child;
        self.change(id, Kind::Branch(branch))
    }

    /// `None`: nothing changed.
    fn delete_at(
        &mut self,
        child: Child<'w>,
        depth: usize,
        after_extension: bool,
        key: &B256,
    ) -> Result<Option<Child<'w>>, StateFault> {
        let Some(id) = self.resolve(child, key, depth, after_extension, false)? else { return Ok(None) };
        match self.arena[id as usize].kind {
            Kind::Leaf { key: found, .. } => Ok((found == *key).then_some(Child::EMPTY)),
            Kind::Extension { path, end, child } => {
                if shared_nibbles(key, &path) < usize::from(end) {
                    return Ok(None);
                }
                let Some(below) = self.delete_at(child, usize::from(end), true, key)? else { return Ok(None) };
                // A branch of two children or more leaves something, and what has changed is a node.
                let Child::Node(below_id) = below else { unreachable!("a branch leaves a node behind") };
                Ok(Some(match self.arena[below_id as usize].kind {
                    Kind::Branch(_) => self.change(id, Kind::Extension { path, end, child: below }),
                    // It takes the place of this extension: its path already starts at the root.
                    Kind::Extension { .. } | Kind::Leaf { .. } => below,
                }))
            }
            Kind::Branch(branch) => {
                let digit = nibble(key, depth);
                let below = self.branches[branch as usize][digit];
                let Some(below) = self.delete_at(below, depth + 1, false, key)? else { return Ok(None) };
                let changed = self.change_branch(id, branch, digit, below);
                let children = &self.branches[branch as usize];
                let mut present = (0..WIDTH).filter(|digit| children[*digit] != Child::EMPTY);
                match (present.next(), present.next()) {
                    (Some(only), None) => self.collapse(branch, only, depth, key).map(Some),
                    _ => Ok(Some(changed)),
                }
            }
        }
    }

    /// What takes the place of a branch at `depth` on the way to `key` that keeps the child `only`.
    fn collapse(&mut self, branch: u32, only: usize, depth: usize, key: &B256) -> Result<Child<'w>, StateFault> {
        let child = self.branches[branch as usize][only];
        let mut path = prefix_of(key, depth);
        set_nibble(&mut path, depth, only as u8); // Below 16.
        let id = self.resolve(child, &path, depth + 1, false, true)?.expect("the only child is not empty");
        Ok(match self.arena[id as usize].kind {
            Kind::Branch(_) => {
                self.add_new(Kind::Extension { path, end: depth as u8 + 1, child: Child::Node(id) }) // Below 64.
            }
            kind => self.change(id, kind),
        })
    }

    /// Lists the changed nodes below a place by their level.
    fn collect(&self, child: Child<'w>, level: usize, depth: usize, levels: &mut Vec<Vec<Pending>>) {
        let Child::Node(id) = child else { return };
        let node = &self.arena[id as usize];
        if node.name != ChildRef::Empty {
            return;
        }
        if levels.len() <= level {
            levels.push(Vec::new());
        }
        levels[level].push(Pending { id, depth: depth as u8 }); // At most 64.
        match node.kind {
            Kind::Leaf { .. } => {}
            Kind::Extension { end, child, .. } => self.collect(child, level + 1, usize::from(end), levels),
            Kind::Branch(branch) => {
                for child in &self.branches[branch as usize] {
                    self.collect(*child, level + 1, depth + 1, levels);
                }
            }
        }
    }

    fn hash_group(&mut self, group: &[Pending], rlp: &mut Vec<u8>) {
        rlp.clear();
        let mut ends = [0; HASH_MESSAGES + 1];
        for (message, pending) in group.iter().enumerate() {
            self.encode(pending, rlp);
            ends[message + 1] = rlp.len();
        }
        let message = |index: usize| &rlp[ends[index]..ends[index + 1]];
        keccak256_each(group.len(), message, |index, digest| {
            self.slots[group[index].id as usize] = Slot::of(message(index), &digest);
        });
    }

    fn root_hash(&self, root: Child<'w>) -> B256 {
        let id = match root {
            Child::Old(ChildRef::Hash(hash)) => return *hash,
            Child::Old(_) => return ROOT_EMPTY,
            Child::Node(id) => id as usize,
        };
        match (self.arena[id].name, &self.slots[id]) {
            (ChildRef::Hash(hash), _) => *hash,
            (ChildRef::Embedded(rlp), _) => keccak256(rlp),
            (ChildRef::Empty, slot) if slot.len == 33 => B256::from_slice(&slot.bytes[1..]),
            (ChildRef::Empty, slot) => keccak256(slot.as_bytes()),
        }
    }

    /// How a parent names a child whose hash is known.
    fn name(&self, child: &Child<'w>, out: &mut Vec<u8>) {
        let name = match child {
            Child::Old(name) => *name,
            Child::Node(id) => match self.arena[*id as usize].name {
                ChildRef::Empty => return out.extend_from_slice(self.slots[*id as usize].as_bytes()),
                name => name,
            },
        };
        match name {
            ChildRef::Empty => out.push(0x80),
            ChildRef::Embedded(rlp) => out.extend_from_slice(rlp),
            ChildRef::Hash(hash) => {
                out.push(0xa0);
                out.extend_from_slice(hash.as_slice());
            }
        }
    }

    /// Appends the RLP of a node of which all children are hashed.
    fn encode(&self, pending: &Pending, out: &mut Vec<u8>) {
        let start = out.len();
        // Room for the longest header; the payload moves down when its length is known.
        out.extend_from_slice(&[0; 3]);
        match self.arena[pending.id as usize].kind {
            Kind::Branch(branch) => {
                for child in &self.branches[branch as usize] {
                    self.name(child, out);
                }
                out.push(0x80);
            }
            Kind::Extension { path, end, child } => {
                hex_prefix(&path, usize::from(pending.depth), usize::from(end), 0, out);
                self.name(&child, out);
            }
            Kind::Leaf { key, value } => {
                hex_prefix(&key, usize::from(pending.depth), KEY_NIBBLES, 0x20, out);
                string(self.value(value), out);
            }
        }
        let payload_bytes = out.len() - start - 3;
        let header = match payload_bytes {
            0..56 => &[0xc0 + payload_bytes as u8][..],
            56..256 => &[0xf8, payload_bytes as u8],
            // A branch has at most 529 bytes, a leaf at most 33 and 112.
            _ => &[0xf9, (payload_bytes >> 8) as u8, payload_bytes as u8],
        };
        out[start..start + header.len()].copy_from_slice(header);
        if header.len() < 3 {
            out.copy_within(start + 3.., start + header.len());
            out.truncate(start + header.len() + payload_bytes);
        }
    }
}

impl Slot {
    fn of(rlp: &[u8], hash: &B256) -> Self {
        let mut bytes = [0xa0; 33];
        if rlp.len() < HASHED_BYTES_MIN {
            bytes[..rlp.len()].copy_from_slice(rlp);
            return Self { bytes, len: rlp.len() as u8 };
        }
        bytes[1..].copy_from_slice(hash.as_slice());
        Self { bytes, len: 33 }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Appends the hex prefix encoding of nibbles `start..end` of a key as an RLP string.
fn hex_prefix(key: &B256, start: usize, end: usize, flag: u8, out: &mut Vec<u8>) {
    let mut prefix = [0; 33];
    let mut at = start;
    prefix[0] = flag;
    if (end - start) % 2 == 1 {
        prefix[0] |= 0x10 | nibble(key, at) as u8;
        at += 1;
    }
    let pairs = (end - at) / 2;
    for (index, byte) in prefix[1..=pairs].iter_mut().enumerate() {
        *byte = if at.is_multiple_of(2) {
            key[at / 2 + index]
        } else {
            key[at / 2 + index] << 4 | key[at / 2 + index + 1] >> 4
        };
    }
    string(&prefix[..=pairs], out);
}

/// Appends a string of fewer than 256 bytes.
fn string(bytes: &[u8], out: &mut Vec<u8>) {
    match bytes {
        [byte] if *byte < 0x80 => {}
        _ if bytes.len() < 56 => out.push(0x80 + bytes.len() as u8),
        _ => out.extend_from_slice(&[0xb8, bytes.len() as u8]),
    }
    out.extend_from_slice(bytes);
}
