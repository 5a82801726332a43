//! Copy-on-write Merkle-Patricia tries over words, wherever the words are: in memory, in mapped files, or in a witness.
//!
//! Input → output: positions of nodes and a [`Space`] that finds their words → entries, proofs, new nodes, moved nodes.
//! Owner core: none; readers read, one thread (with the hash pool) writes.
//! Invariants: nodes never change once others can read them; children are written before their parents.
//! Deliberately absent: where words are kept and for how long, checksums, disk.

pub mod commit;
pub mod crew;
pub mod node;
pub mod prefetch;
pub mod proof;
pub mod reclaim;
pub mod writer;

use crate::state::StateError;
use node::{AccountLeaf, CodeLeaf, Key, Link, Node, Position, Slot, SlotLeaf, branch_child, nibble, shared_nibbles};

/// Words by position.
pub trait Space: Sync {
    /// The words from a position on, at least to the end of its node; `None` when nothing is there. Not checked.
    fn words(&self, position: Position) -> Option<&[u64]>;

    /// How many words this version of the state spans, those that nothing reaches any more included.
    fn word_count(&self) -> usize;

    /// Why the node at a position cannot be used.
    fn broken(&self, position: Position) -> StateError {
        StateError::NodeBroken { node: position }
    }

    /// A node, with everything in it checked that this space can check.
    ///
    /// # Errors
    /// When there is no sound node.
    #[inline]
    fn node(&self, position: Position) -> Result<Node<'_>, StateError> {
        self.words(position).and_then(Node::read).ok_or_else(|| self.broken(position))
    }

    /// The next position on the way to a key, when a branch is at `position`: 0 = nothing. `None`: it is no branch, or none that is sound.
    ///
    /// What a read needs of a branch, and no more: its hashes are not looked at.
    #[inline]
    fn child(&self, position: Position, nibble: usize) -> Option<Position> {
        branch_child(self.words(position)?, nibble)
    }
}

/// A space that new nodes are added to, in runs. Those of a run have positions of one segment, the run's.
pub trait Draft: Space {
    /// The number of the next run that is added.
    fn segment_next(&self) -> u32;

    /// An empty buffer for a run.
    fn buffer(&mut self, capacity_words: usize) -> Vec<u64> {
        Vec::with_capacity(capacity_words)
    }

    /// Adds a run. `segment` is [`Draft::segment_next`], or higher when runs before it were empty.
    fn add(&mut self, segment: u32, words: Vec<u64>);
}

/// Position of a word in a segment.
pub fn position(segment: u32, word: u32) -> Position {
    u64::from(segment) << 32 | u64::from(word)
}

pub fn segment_of(position: Position) -> u32 {
    (position >> 32) as u32
}

pub fn word_of(position: Position) -> usize {
    position as u32 as usize
}

/// A trie without entries.
pub fn empty_link() -> Link {
    Link { node: 0, slot: Slot::hash(crate::state::ROOT_EMPTY) }
}

/// The leaf of `key` in the trie below `root`.
pub fn find<'a, S: Space>(space: &'a S, root: Position, key: &Key) -> Result<Option<Node<'a>>, StateError> {
    let mut position = root;
    let mut depth = 0;
    while position != 0 {
        if depth < node::KEY_NIBBLES
            && let Some(child) = space.child(position, nibble(key, depth))
        {
            position = child;
            depth += 1;
            continue;
        }
        match space.node(position)? {
            // Deeper than any key: the nodes run in a circle.
            Node::Branch(_) => return Err(space.broken(position)),
            Node::Extension(extension) => {
                if shared_nibbles(key, &extension.path) < extension.end {
                    return Ok(None);
                }
                position = extension.child.node;
                depth = extension.end;
            }
            leaf @ (Node::Account(AccountLeaf { key: found, .. })
            | Node::Slot(SlotLeaf { key: found, .. })
            | Node::Code(CodeLeaf { key: found, .. })) => {
                return Ok((found == *key).then_some(leaf));
            }
        }
    }
    Ok(None)
}

/// The leaf of an account in the trie below `root`.
pub fn account_leaf<S: Space>(space: &S, root: Position, key: &Key) -> Result<Option<AccountLeaf>, StateError> {
    Ok(match find(space, root, key)? {
        Some(Node::Account(leaf)) => Some(leaf),
        _ => None,
    })
}
