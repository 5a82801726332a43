//! Looks at every node of a version: its check, its place, and that its parent holds its hash.

use alloy_primitives::B256;

use super::Reader;
use crate::crypto::keccak::{keccak256, keccak256_each};
use crate::state::trie::Space;
use crate::state::trie::node::{Link, NODE_RLP_BYTES_MAX, Node, Position, Slot, key_words};
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

fn damaged(reader: &Reader, position: Position, what: &'static str) -> StateError {
    let (file, offset) = reader.version.space.geometry().locate(position);
    StateError::Damaged { file, offset, what }
}
