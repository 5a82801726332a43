//! The nodes and codes of a witness by hash, and walks through them.
//!
//! Owner core: any; one validation owns its set. What a walk finds missing or malformed is named with its place.
//! Nothing is read before it is needed: an entry that no walk comes to may be anything, and the cost of a hostile witness is bounded by
//! what execution asks for (a walk has at most 64 steps), not by what its nodes describe.

use std::collections::HashMap;

use alloy_primitives::{B256, Bytes};
use foldhash::fast::RandomState;

use super::node::{ChildRef, HASHED_BYTES_MIN, KEY_NIBBLES, NodeFault, NodeView, nibble, shared_nibbles};
use crate::crypto::keccak::keccak256_each;
use crate::state::ROOT_EMPTY;

/// Where in the state a node is: the first `depth` nibbles of `path`, in the account trie or in the storage of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePlace {
    /// Hash of the account's address; `None`: the account trie.
    pub owner: Option<B256>,
    pub path: B256,
    pub depth: usize,
}

impl std::fmt::Display for NodePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.owner {
            None => f.write_str("of the account trie, path 0x")?,
            Some(owner) => write!(f, "of the storage of the account with key {owner}, path 0x")?,
        }
        (0..self.depth.min(KEY_NIBBLES)).try_for_each(|index| write!(f, "{:x}", nibble(&self.path, index)))
    }
}

/// What is wrong with the state that a witness describes. The places are boxed, so that walks that find nothing wrong return little.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateFault {
    #[error("node {hash} {place} is not in the witness")]
    NodeMissing { hash: B256, place: Box<NodePlace> },
    #[error("sibling {hash} {place}, which remains alone in its branch, is not in the witness")]
    SiblingMissing { hash: B256, place: Box<NodePlace> },
    #[error("node {hash} {place} is malformed: {fault}")]
    NodeMalformed { hash: B256, place: Box<NodePlace>, fault: NodeFault },
}

/// Entries of a witness by the hash of their bytes.
pub struct HashIndex<'w> {
    pub entries: &'w [Bytes],
    by_hash: HashMap<B256, u32, RandomState>,
    /// For each entry, whether the block needs it.
    needed: Vec<bool>,
}

impl<'w> HashIndex<'w> {
    /// Hashes all entries. Of equal ones the first counts.
    #[must_use]
    pub fn new(entries: &'w [Bytes]) -> Self {
        let mut by_hash = HashMap::with_capacity_and_hasher(entries.len(), RandomState::default());
        keccak256_each(
            entries.len(),
            |index| entries[index].as_ref(),
            |index, hash| {
                // A decoded witness has fewer than 2^32 entries: it has fewer bytes.
                let first = by_hash.entry(hash).or_insert(index as u32);
                *first = (*first).min(index as u32);
            },
        );
        Self { entries, by_hash, needed: vec![false; entries.len()] }
    }

    #[must_use]
    pub fn find(&self, hash: &B256) -> Option<u32> {
        self.by_hash.get(hash).copied()
    }

    /// How many different entries there are.
    #[must_use]
    pub fn distinct_count(&self) -> usize {
        self.by_hash.len()
    }

    /// The bytes of an entry that [`Self::find`] named.
    #[must_use]
    pub fn bytes(&self, index: u32) -> &'w Bytes {
        &self.entries[index as usize]
    }

    pub fn mark_needed(&mut self, index: u32) {
        self.needed[index as usize] = true;
    }

    /// The first entry that was never marked, with its index.
    #[must_use]
    pub fn first_unneeded(&self) -> Option<(usize, &'w Bytes)> {
        let index = self.needed.iter().position(|needed| !needed)?;
        Some((index, &self.entries[index]))
    }
}

/// Which trie a walk is in.
#[derive(Clone, Copy, Debug)]
pub struct Trie<'r> {
    pub root: &'r B256,
    pub owner: Option<B256>,
}

impl<'w> HashIndex<'w> {
    /// The value that `key` has in a trie. `on_node` is told of every entry on the way.
    ///
    /// # Errors
    /// The first node on the way that is not there, or is none.
    pub fn walk(
        &self,
        trie: Trie<'_>,
        key: &B256,
        mut on_node: impl FnMut(u32),
    ) -> Result<Option<&'w [u8]>, StateFault> {
        if *trie.root == ROOT_EMPTY {
            return Ok(None);
        }
        let mut at = At { owner: trie.owner, hash: *trie.root, depth: 0, after_extension: false };
        let index = self.index_of(trie.root, &at, key)?;
        on_node(index);
        let mut node = self.view(index, &at, key)?;
        loop {
            let child = match node {
                NodeView::Leaf { key: found, value } => return Ok((found == *key).then_some(value)),
                NodeView::Branch(children) => {
                    let child = children[nibble(key, at.depth)];
                    at.depth += 1;
                    at.after_extension = false;
                    child
                }
                NodeView::Extension { path, end, child } => {
                    if shared_nibbles(key, &path) < end {
                        return Ok(None);
                    }
                    at.depth = end;
                    at.after_extension = true;
                    child
                }
            };
            node = match child {
                ChildRef::Empty => return Ok(None),
                ChildRef::Embedded(rlp) => at.parse(rlp, key)?,
                ChildRef::Hash(hash) => {
                    at.hash = *hash;
                    let index = self.index_of(hash, &at, key)?;
                    on_node(index);
                    self.view(index, &at, key)?
                }
            };
        }
    }

    fn index_of(&self, hash: &B256, at: &At, key: &B256) -> Result<u32, StateFault> {
        self.find(hash).ok_or_else(|| StateFault::NodeMissing { hash: *hash, place: at.place(key) })
    }

    /// The node that is an entry of its own.
    ///
    /// # Errors
    /// When it is none.
    pub fn view(&self, index: u32, at: &At, key: &B256) -> Result<NodeView<'w>, StateFault> {
        let rlp = self.bytes(index);
        if rlp.len() < HASHED_BYTES_MIN {
            return Err(at.malformed(key, NodeFault::HashedTooShort { bytes: rlp.len() }));
        }
        at.parse(rlp, key)
    }
}

/// A step of a walk.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub owner: Option<B256>,
    /// The entry that the node is or stands in.
    pub hash: B256,
    pub depth: usize,
    /// The parent is an extension.
    pub after_extension: bool,
}

impl At {
    #[must_use]
    pub fn place(&self, key: &B256) -> Box<NodePlace> {
        Box::new(NodePlace { owner: self.owner, path: super::node::prefix_of(key, self.depth), depth: self.depth })
    }

    #[must_use]
    pub fn malformed(&self, key: &B256, fault: NodeFault) -> StateFault {
        StateFault::NodeMalformed { hash: self.hash, place: self.place(key), fault }
    }

    /// Reads the node at this step of the walk towards `key`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse<'w>(&self, rlp: &'w [u8], key: &B256) -> Result<NodeView<'w>, StateFault> {
        let view = NodeView::parse(rlp, key, self.depth).map_err(|fault| self.malformed(key, fault))?;
        if self.after_extension && !matches!(view, NodeView::Branch(_)) {
            return Err(self.malformed(key, NodeFault::ExtensionChild));
        }
        Ok(view)
    }
}
