//! The state in memory: copy-on-write Merkle-Patricia tries in append-only segments of words.
//!
//! Input → output: see [`StateStore`] and [`StateReader`]. Owner core: the store belongs to the state thread, which lends work to
//! the hash pool; a [`Reader`] belongs to anyone.
//! Shape: a commit copies the nodes on changed paths behind the old ones and hashes them; nothing is counted or locked per
//! node. A version keeps a table of the segments it reaches, so memory goes when the last version that names a segment goes:
//! retained ones are dropped on the pool. Live nodes in old segments are moved to new ones bit by bit ([`trie::reclaim`]), so nodes
//! take about three times what is live plus what the retained roots hold (1 KiB for each changed account of 128 blocks).
//! Positions instead of pointers: the same nodes can lie in mapped files.
//! Deliberately absent: persistence, checksums.

mod codes;
pub mod segment;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use tests::{Model, changes_strategy, check, info, test_address};

use std::collections::VecDeque;
use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, U256};
use rayon::ThreadPool;

use crate::crypto::keccak::keccak256;
use crate::state::{
    Account, AccountProof, ROOT_EMPTY, STATE_ROOTS_RETAINED, StateChanges, StateError, StateReader, StateStore,
};

use crate::state::trie::crew::Crew;
use crate::state::trie::node::{Link, Node, Position, Slot, key_words};
use crate::state::trie::reclaim::{self, Cursor, Roots};
use crate::state::trie::writer::root_hash;
use crate::state::trie::{self, Space, account_leaf, find, position};

use codes::Codes;
use segment::{Growing, Segments};

/// A pass also begins when there are more segments: every commit copies the table.
const SEGMENTS_MAX: usize = 1024;
/// What such a pass walks at a time: 1 MiB.
const CROWDED_FUEL_WORDS: usize = 128 << 10;

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

    fn changed(&mut self, parent: &Version, changes: &StateChanges) -> Result<Version, StateError> {
        let mut draft = Growing { segments: parent.segments.clone(), segment_next: &mut self.segment_next };
        let crew = Crew::new(&self.pool, trie::commit::is_spread(changes));
        let root = trie::commit::commit(crew, parent.root_link(), &mut draft, changes)?;
        let segments = draft.segments;
        let mut codes = parent.codes.clone();
        codes.add(&changes.codes);
        let cursor = if parent.root_node == 0 { Cursor::fresh(segments.word_count()) } else { parent.cursor };
        Ok(Version { root: root_hash(&root), root_node: root.node, segments, codes, cursor })
    }

    /// Walks a piece of a version's pass.
    fn step(&mut self, version: &Version, fuel_words: usize) -> Result<Version, StateError> {
        let end = position(self.segment_next, 0);
        let mut draft = Growing { segments: version.segments.clone(), segment_next: &mut self.segment_next };
        let roots = Roots { accounts: version.root_node, codes: 0 };
        let step = reclaim::step(&mut draft, roots, version.cursor, end, fuel_words)?;
        let mut segments = draft.segments;
        if let Some(end) = step.emptied_below {
            segments.remove_below(trie::segment_of(end));
        }
        Ok(Version { root_node: step.roots.accounts, segments, cursor: step.cursor, ..version.clone() })
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
        let version = self.changed(&parent.version, changes)?;
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
        let version = &newest.version;
        let is_crowded = version.segments.segment_count() > SEGMENTS_MAX;
        let least = is_crowded.then_some(CROWDED_FUEL_WORDS);
        let fuel = reclaim::fuel_words(&version.cursor, version.segments.word_count(), budget_words).or(least);
        if let Some(fuel_words) = fuel {
            let version = Arc::clone(version);
            let moved = Reader { version: Arc::new(self.step(&version, fuel_words)?) };
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
        trie::proof::proof(&self.version.segments, self.version.root_node, address, slots)
    }
}

impl Reader {
    /// The account whose address hashes to `address_hash`, for callers that keep hashes of busy addresses.
    pub fn account_by_key(&self, address_hash: &B256) -> Result<Option<Account>, StateError> {
        let leaf = account_leaf(&self.version.segments, self.version.root_node, &key_words(address_hash))?;
        Ok(leaf.map(|leaf| leaf.account))
    }

    /// The value of the slot that hashes to `slot_hash`.
    pub fn storage_by_key(&self, address_hash: &B256, slot_hash: &B256) -> Result<U256, StateError> {
        let version = &self.version;
        let leaf = account_leaf(&version.segments, version.root_node, &key_words(address_hash))?;
        let Some(leaf) = leaf else { return Ok(U256::ZERO) };
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
    fn root_link(&self) -> Link {
        Link { node: self.root_node, slot: Slot::hash(self.root) }
    }
}
