//! The state in memory: copy-on-write Merkle-Patricia tries in append-only segments of words.
//!
//! Input → output: see [`StateStore`] and [`StateReader`]. Owner core: the store belongs to the state thread, which lends work to
//! the hash pool; a [`Reader`] belongs to anyone.
//! Shape: a commit copies the nodes on changed paths behind the old ones and hashes them; nothing is counted or locked per
//! node. A version keeps a table of the segments it reaches, so memory goes when the last version that names a segment goes:
//! retained ones are dropped on the pool. Live nodes in old segments are moved to new ones bit by bit ([`reclaim`]), so nodes
//! take about three times what is live plus what the retained roots hold (1 KiB for each changed account of 128 blocks).
//! Positions instead of pointers: the same nodes can lie in mapped files.
//! Deliberately absent: persistence, checksums.

mod codes;
mod commit;
pub mod node;
mod prefetch;
mod proof;
mod reclaim;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, U256};
use rayon::ThreadPool;

use crate::crypto::keccak::keccak256;
use crate::state::{Account, AccountProof, ROOT_EMPTY, StateChanges, StateError, StateReader, StateStore};

use codes::Codes;
use node::{AccountLeaf, Key, Link, Node, Position, Slot, key_words, nibble, shared_nibbles};
use reclaim::Cursor;
use segment::Segments;

/// Versions that can be asked for by root: what a reorganisation of two epochs (64 blocks) needs, twice.
pub const STATE_ROOTS_RETAINED: usize = 128;

/// Makes versions of the state in memory.
pub struct MemoryStore {
    pool: Arc<ThreadPool>,
    /// Oldest first.
    retained: VecDeque<Reader>,
    segment_next: u32,
    /// Words appended by commits since the last call of `reclaim`.
    unreclaimed_words: usize,
}

/// One version of the state. A clone is a counter.
#[derive(Clone)]
pub struct Reader {
    version: Arc<Version>,
}

#[derive(Clone)]
struct Version {
    root: B256,
    root_node: Position,
    segments: Segments,
    codes: Codes,
    cursor: Cursor,
}

impl MemoryStore {
    /// A store that lends work to `pool`.
    #[must_use]
    pub fn new(pool: Arc<ThreadPool>) -> Self {
        Self { pool, retained: VecDeque::new(), segment_next: 1, unreclaimed_words: 0 }
    }

    /// The newest layout of a version: [`StateStore::reclaim`] may have moved its nodes since the handle was given out.
    fn current(&self, reader: &Reader) -> Reader {
        self.retained(&reader.version.root).unwrap_or_else(|| reader.clone())
    }

    fn retain(&mut self, reader: Reader) {
        self.retained.push_back(reader);
        if self.retained.len() > STATE_ROOTS_RETAINED
            && let Some(oldest) = self.retained.pop_front()
        {
            self.drop_elsewhere(oldest);
        }
    }

    /// Drops a version on the pool: giving large segments back to the system takes milliseconds.
    fn drop_elsewhere(&self, reader: Reader) {
        self.pool.spawn(move || drop(reader));
    }
}

impl StateStore for MemoryStore {
    type Reader = Reader;

    fn commit(&mut self, parent: &Reader, changes: &StateChanges) -> Result<Reader, StateError> {
        if self.unreclaimed_words > reclaim::OVERDUE_WORDS {
            self.reclaim()?;
        }
        let parent = self.current(parent);
        let version = commit::commit(&self.pool, &parent.version, &mut self.segment_next, changes)?;
        let grown = version.segments.word_count().saturating_sub(parent.version.segments.word_count());
        self.unreclaimed_words += grown;
        let reader = Reader { version: Arc::new(version) };
        self.retain(reader.clone());
        Ok(reader)
    }

    fn empty(&self) -> Reader {
        let version = Version {
            root: ROOT_EMPTY,
            root_node: 0,
            segments: Segments::default(),
            codes: Codes::default(),
            cursor: Cursor::default(),
        };
        Reader { version: Arc::new(version) }
    }

    fn retained(&self, root: &B256) -> Option<Reader> {
        self.retained.iter().rev().find(|reader| reader.version.root == *root).cloned()
    }

    fn reclaim(&mut self) -> Result<(), StateError> {
        let Some(newest) = self.retained.back() else { return Ok(()) };
        let budget_words = std::mem::take(&mut self.unreclaimed_words);
        if let Some(version) = reclaim::reclaim(&newest.version, &mut self.segment_next, budget_words)? {
            let moved = Reader { version: Arc::new(version) };
            if let Some(old) = self.retained.pop_back() {
                self.drop_elsewhere(old);
            }
            self.retained.push_back(moved);
        }
        Ok(())
    }
}

impl StateReader for Reader {
    fn root(&self) -> B256 {
        self.version.root
    }

    fn account(&self, address: &Address) -> Result<Option<Account>, StateError> {
        self.account_by_key(&keccak256(address.as_slice()))
    }

    fn storage(&self, address: &Address, slot: U256) -> Result<U256, StateError> {
        self.storage_by_key(&keccak256(address.as_slice()), &keccak256(&slot.to_be_bytes::<32>()))
    }

    fn code(&self, code_hash: &B256) -> Result<Option<Bytes>, StateError> {
        Ok(self.version.codes.get(code_hash).cloned())
    }

    fn proof(&self, address: &Address, slots: &[U256]) -> Result<AccountProof, StateError> {
        proof::proof(&self.version, address, slots)
    }
}

impl Reader {
    /// The account whose address hashes to `address_hash`, for callers that keep hashes of busy addresses.
    pub fn account_by_key(&self, address_hash: &B256) -> Result<Option<Account>, StateError> {
        Ok(self.version.account_leaf(&key_words(address_hash))?.map(|leaf| leaf.account))
    }

    /// The value of the slot that hashes to `slot_hash`.
    pub fn storage_by_key(&self, address_hash: &B256, slot_hash: &B256) -> Result<U256, StateError> {
        let Some(leaf) = self.version.account_leaf(&key_words(address_hash))? else { return Ok(U256::ZERO) };
        Ok(match find(&self.version.segments, leaf.storage, &key_words(slot_hash))? {
            Some(Node::Slot(leaf)) => leaf.value,
            _ => U256::ZERO,
        })
    }

    /// The root as a parent would name it; `node` 0 when there are no accounts.
    #[must_use]
    pub fn root_link(&self) -> Link {
        self.version.root_link()
    }

    /// The node at a position that a node of this version names.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, position: Position) -> Result<Node<'_>, StateError> {
        self.version.segments.node(position)
    }

    /// Bytes of nodes that this version keeps in memory.
    #[must_use]
    pub fn node_bytes(&self) -> usize {
        self.version.segments.word_count() * size_of::<u64>()
    }

    /// Segments that this version keeps in memory.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.version.segments.segment_count()
    }
}

impl Version {
    fn account_leaf(&self, key: &Key) -> Result<Option<AccountLeaf>, StateError> {
        Ok(match find(&self.segments, self.root_node, key)? {
            Some(Node::Account(leaf)) => Some(leaf),
            _ => None,
        })
    }

    fn root_link(&self) -> Link {
        Link { node: self.root_node, slot: Slot::hash(self.root) }
    }
}

/// The leaf of `key` in the trie below `root`.
fn find<'a>(segments: &'a Segments, root: Position, key: &Key) -> Result<Option<Node<'a>>, StateError> {
    let mut position = root;
    let mut depth = 0;
    while position != 0 {
        let words = segments.words(position).ok_or(StateError::NodeBroken { node: position })?;
        if depth < node::KEY_NIBBLES
            && let Some(child) = node::branch_child(words, nibble(key, depth))
        {
            position = child;
            depth += 1;
            continue;
        }
        match Node::read(words).ok_or(StateError::NodeBroken { node: position })? {
            // Deeper than any key: the nodes run in a circle.
            Node::Branch(_) => return Err(StateError::NodeBroken { node: position }),
            Node::Extension(extension) => {
                if shared_nibbles(key, &extension.path) < extension.end {
                    return Ok(None);
                }
                position = extension.child.node;
                depth = extension.end;
            }
            leaf @ (Node::Account(AccountLeaf { key: found, .. }) | Node::Slot(node::SlotLeaf { key: found, .. })) => {
                return Ok((found == *key).then_some(leaf));
            }
        }
    }
    Ok(None)
}
