//! Looks at every node of a version: its check, its place, and that its parent holds its hash.

use alloy_primitives::B256;

use super::Reader;
use crate::crypto::keccak::{keccak256, keccak256_each};
use crate::state::trie::Space;
use crate::state::trie::node::{
    Key, Link, NODE_RLP_BYTES_MAX, Node, Position, Slot, WIDTH, key_words, nibble, shared_nibbles,
};
use crate::state::trie::reclaim::Stop;
use crate::state::{StateError, StateReader};

/// Nodes hashed at a time.
const GROUP_NODES: usize = 128;

/// What a version holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub accounts: u64,
    pub slots: u64,
    pub codes: u64,
    pub nodes: u64,
    /// Bytes of all nodes.
    pub live_bytes: u64,
}

/// A node that is to be looked at.
#[derive(Clone, Copy)]
struct Due {
    link: Link,
    depth: usize,
    /// Roots are named by their hash, however short they are.
    is_root: bool,
}

/// Reads all of a version, in no order, and hashes it.
///
/// # Errors
/// The first damage that is found, with its file and offset.
pub fn verify(reader: &Reader) -> Result<Census, StateError> {
    let mut walk = Walk::over(reader);
    while walk.step(reader)? {}
    Ok(walk.census)
}

/// A verification that can be interrupted.
pub struct Walk {
    due: Vec<Due>,
    census: Census,
    rlp: Vec<u8>,
}

impl Walk {
    #[must_use]
    pub fn over(reader: &Reader) -> Self {
        let version = &reader.version;
        let mut walk = Self { due: Vec::new(), census: Census::default(), rlp: Vec::new() };
        walk.push_root(version.roots.accounts, reader.root());
        walk.push_root(version.roots.codes, version.codes_root);
        walk
    }

    /// Looks at some nodes; false when there are no more. `reader` is that of [`Walk::over`].
    ///
    /// # Errors
    /// As [`verify`].
    pub fn step(&mut self, reader: &Reader) -> Result<bool, StateError> {
        let space = &reader.version.space;
        let group = self.due.split_off(self.due.len().saturating_sub(GROUP_NODES));
        self.rlp.clear();
        self.rlp.reserve(GROUP_NODES * NODE_RLP_BYTES_MAX);
        let mut ends = vec![0];
        for due in &group {
            let node = space.node(due.link.node)?;
            node.encode(due.depth, &mut self.rlp);
            ends.push(self.rlp.len());
            self.take(&node, due.depth, due.link.node, reader)?;
        }
        let message = |index: usize| &self.rlp[ends[index]..ends[index + 1]];
        let mut wrong = None;
        keccak256_each(group.len(), message, |index, digest| {
            let Due { link, is_root, .. } = group[index];
            let slot = if is_root { Slot::hash(digest) } else { Slot::of(message(index), digest) };
            if slot != link.slot {
                wrong = Some(link.node);
            }
        });
        match wrong {
            Some(node) => Err(damaged(reader, node, "the node's hash is not the one that its parent holds")),
            None => Ok(!self.due.is_empty()),
        }
    }

    fn take(&mut self, node: &Node<'_>, depth: usize, position: Position, reader: &Reader) -> Result<(), StateError> {
        self.census.nodes += 1;
        self.census.live_bytes += node.word_count() as u64 * 8;
        match node {
            Node::Branch(branch) => {
                let children = (0..16).map(|nibble| branch.child(nibble)).filter(|link| link.node != 0);
                self.due.extend(children.map(|link| Due { link, depth: depth + 1, is_root: false }));
            }
            Node::Extension(extension) => {
                self.due.push(Due { link: extension.child, depth: extension.end, is_root: false });
            }
            Node::Account(leaf) => {
                self.census.accounts += 1;
                self.push_root(leaf.storage, leaf.account.storage_root);
            }
            Node::Slot(_) => self.census.slots += 1,
            Node::Code(leaf) => {
                self.census.codes += 1;
                if key_words(&keccak256(&leaf.code())) != leaf.key {
                    return Err(damaged(reader, position, "the code's hash is not its key"));
                }
            }
        }
        Ok(())
    }

    fn push_root(&mut self, node: Position, root: B256) {
        if node != 0 {
            self.due.push(Due { link: Link { node, slot: Slot::hash(root) }, depth: 0, is_root: true });
        }
    }
}

/// Looks at a version piece by piece in the order of the keys, and goes on in a newer one where it stopped: no version is held for long.
#[derive(Default)]
pub struct Scrub {
    /// Everything before has been looked at.
    from: Stop,
    stop: Option<Stop>,
    /// Leaves left for this call.
    fuel_leaves: usize,
    rlp: Vec<u8>,
}

impl Scrub {
    /// Looks at `fuel_leaves` further leaves, at least one, and at the nodes on the way to them. Answers whether the last one was among them: the next
    /// call begins anew.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn step(&mut self, reader: &Reader, fuel_leaves: usize) -> Result<bool, StateError> {
        self.fuel_leaves = fuel_leaves.max(1);
        self.stop = None;
        let version = &reader.version;
        let root = |node, hash| Link { node, slot: Slot::hash(hash) };
        let from = self.from;
        if !from.is_code && version.roots.accounts != 0 {
            self.visit(reader, root(version.roots.accounts, version.root), 0, true, Some(&from.key))?;
        }
        if self.stop.is_none() && version.roots.codes != 0 {
            let key = if from.is_code { from.key } else { Key::default() };
            self.visit(reader, root(version.roots.codes, version.codes_root), 0, true, Some(&key))?;
        }
        self.from = self.stop.unwrap_or_default();
        Ok(self.stop.is_none())
    }

    /// Looks at the subtree of a node. `from`: keys before have been looked at; `None` when the whole subtree lies behind.
    fn visit(
        &mut self,
        reader: &Reader,
        link: Link,
        depth: usize,
        is_root: bool,
        from: Option<&Key>,
    ) -> Result<(), StateError> {
        let node = reader.version.space.node(link.node)?;
        self.compare(reader, &node, link, depth, is_root)?;
        match node {
            Node::Branch(branch) => {
                let first = from.map_or(0, |from| nibble(from, depth));
                for digit in first..WIDTH {
                    let child = branch.child(digit);
                    if child.node != 0 && self.stop.is_none() {
                        self.visit(reader, child, depth + 1, false, from.filter(|_| digit == first))?;
                    }
                }
            }
            Node::Extension(extension) => {
                let from = match from.map(|from| (from, shared_nibbles(from, &extension.path))) {
                    Some((from, shared)) if shared >= extension.end => Some(from),
                    Some((from, _)) if *from > extension.path => return Ok(()),
                    _ => None,
                };
                self.visit(reader, extension.child, extension.end, false, from)?;
            }
            Node::Account(leaf) => {
                if from.is_some_and(|from| leaf.key < *from) {
                    return Ok(());
                }
                let slot = if from == Some(&leaf.key) { self.from.slot } else { Key::default() };
                if self.take(Stop { is_code: false, key: leaf.key, slot }) && leaf.storage != 0 {
                    let storage = Link { node: leaf.storage, slot: Slot::hash(leaf.account.storage_root) };
                    self.visit(reader, storage, 0, true, Some(&slot))?;
                    if let Some(stop) = &mut self.stop {
                        stop.key = leaf.key;
                    }
                }
            }
            Node::Slot(leaf) => {
                if from.is_none_or(|from| leaf.key >= *from) {
                    self.take(Stop { is_code: false, key: Key::default(), slot: leaf.key });
                }
            }
            Node::Code(leaf) => {
                let is_due = from.is_none_or(|from| leaf.key >= *from);
                if is_due
                    && self.take(Stop { is_code: true, key: leaf.key, slot: Key::default() })
                    && key_words(&keccak256(&leaf.code())) != leaf.key
                {
                    return Err(damaged(reader, link.node, "the code's hash is not its key"));
                }
            }
        }
        Ok(())
    }

    /// Takes fuel for a leaf, or stops there.
    fn take(&mut self, stop: Stop) -> bool {
        if self.fuel_leaves == 0 {
            self.stop = Some(stop);
            return false;
        }
        self.fuel_leaves -= 1;
        true
    }

    fn compare(
        &mut self,
        reader: &Reader,
        node: &Node<'_>,
        link: Link,
        depth: usize,
        is_root: bool,
    ) -> Result<(), StateError> {
        self.rlp.clear();
        node.encode(depth, &mut self.rlp);
        let digest = keccak256(&self.rlp);
        let slot = if is_root { Slot::hash(digest) } else { Slot::of(&self.rlp, digest) };
        if slot == link.slot {
            Ok(())
        } else {
            Err(damaged(reader, link.node, "the node's hash is not the one that its parent holds"))
        }
    }
}

fn damaged(reader: &Reader, position: Position, what: &'static str) -> StateError {
    let (file, offset) = reader.version.space.geometry().locate(position);
    StateError::Damaged { file, offset, what }
}
