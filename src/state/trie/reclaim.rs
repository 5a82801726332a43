//! Moves live nodes out of the oldest part of a space, a bounded piece of work at a time.
//!
//! A pass walks the tries in the order of the keys, accounts with their storage first and codes after them, and writes again what lies
//! below `floor`, the end of the space when the pass began. Commits in between write above `floor`, and what they keep of the part already
//! walked lies above it too. So at the end nothing of the version lies below.

use super::node::{CodeLeaf, Key, Node, Position, WIDTH, nibble, set_child, shared_nibbles};
use super::{Draft, Space, position};
use crate::state::StateError;

/// A commit reclaims by itself when this much was appended since the last time: 8 MiB, about a block of 10,000 changes.
pub const OVERDUE_WORDS: usize = 1 << 20;
/// Least work of a call: 512 KiB, under a millisecond.
const STEP_WORDS_MIN: usize = 64 << 10;
/// Most work of a call: 16 MiB, so that a pass does not hold up the thread for long after a large commit.
const STEP_WORDS_MAX: usize = 2 << 20;
/// Words walked for each word appended: with 2, a pass ends before the state has grown by half of itself.
const STEP_FACTOR: usize = 2;
/// A pass begins when a version spans more than twice what is live, and this: 1 MiB.
const SLACK_WORDS: usize = 128 << 10;

/// Where a version's pass stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// What lies below is being moved. 0: no pass.
    pub floor: Position,
    /// Everything before has been walked.
    pub from: Stop,
    /// Words of the nodes walked in this pass.
    pub walked_words: usize,
    /// Words that the last pass found alive.
    pub live_words: usize,
}

/// A place in the order of keys: an account and a slot in it, or a code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    pub is_code: bool,
    /// Of an account, or of a code.
    pub key: Key,
    pub slot: Key,
}

impl Cursor {
    /// For a version made from nothing: all of it is alive.
    #[must_use]
    pub fn fresh(words: usize) -> Self {
        Self { live_words: words, ..Self::default() }
    }
}

/// The root nodes of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    pub accounts: Position,
    pub codes: Position,
}

/// What a step of a pass has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub roots: Roots,
    pub cursor: Cursor,
    /// Set at the end of a pass: nothing of the version lies below.
    pub emptied_below: Option<Position>,
}

/// Whether to go on with a pass, or to begin one, and with how much fuel. `None`: nothing to do.
#[must_use]
pub fn fuel_words(cursor: &Cursor, spanned_words: usize, appended_words: usize) -> Option<usize> {
    let is_worth = cursor.floor != 0 || spanned_words > 2 * cursor.live_words + SLACK_WORDS;
    is_worth.then(|| (appended_words * STEP_FACTOR).clamp(STEP_WORDS_MIN, STEP_WORDS_MAX))
}

/// Walks about `fuel_words` of a version's pass, or of a new one, which then empties what lies below `end`.
///
/// # Errors
/// A node that is not sound; then nothing was added.
pub fn step<D: Draft>(
    draft: &mut D,
    roots: Roots,
    mut cursor: Cursor,
    end: Position,
    fuel_words: usize,
) -> Result<Step, StateError> {
    if cursor.floor == 0 {
        cursor = Cursor { floor: end, live_words: cursor.live_words, ..Cursor::default() };
    }
    let segment = draft.segment_next();
    let words = draft.buffer(fuel_words.min(draft.word_count()));
    let mut mover = Mover {
        space: &*draft,
        segment,
        words,
        floor: cursor.floor,
        begin: cursor.from,
        fuel_words,
        walked_words: 0,
        advanced: false,
        stop: None,
    };
    let moved = mover.walk_tries(roots)?;
    let Mover { words, walked_words, stop, .. } = mover;
    draft.add(segment, words);
    cursor.walked_words += walked_words;
    let mut emptied_below = None;
    if let Some(stop) = stop {
        cursor.from = stop;
    } else {
        emptied_below = Some(cursor.floor);
        cursor = Cursor::fresh(cursor.walked_words);
    }
    Ok(Step { roots: moved, cursor, emptied_below })
}

struct Mover<'a, S> {
    space: &'a S,
    segment: u32,
    words: Vec<u64>,
    floor: Position,
    begin: Stop,
    fuel_words: usize,
    walked_words: usize,
    /// A leaf has been taken that was not taken before.
    advanced: bool,
    /// Set when the fuel is used up: the leaf to go on with.
    stop: Option<Stop>,
}

impl<S: Space> Mover<'_, S> {
    fn walk_tries(&mut self, mut roots: Roots) -> Result<Roots, StateError> {
        let begin = self.begin;
        if !begin.is_code && roots.accounts != 0 {
            roots.accounts = self.walk(roots.accounts, 0, Some(&begin.key))?;
        }
        if self.stop.is_none() && roots.codes != 0 {
            let from = if begin.is_code { begin.key } else { Key::default() };
            roots.codes = self.walk(roots.codes, 0, Some(&from))?;
        }
        Ok(roots)
    }

    /// Walks the subtree of `node` and returns where it is now. `from`: keys below have been walked before; it shares the path of
    /// `node`, or is `None` when the whole subtree lies behind it.
    fn walk(&mut self, node: Position, depth: usize, from: Option<&Key>) -> Result<Position, StateError> {
        let space = self.space;
        match space.node(node)? {
            Node::Branch(branch) => {
                let mut children = [0; WIDTH];
                children[..branch.children.len()].copy_from_slice(branch.children);
                let digits = (0..WIDTH).filter(|digit| branch.mask >> digit & 1 == 1);
                let first = from.map(|from| nibble(from, depth));
                for (child, digit) in children.iter_mut().zip(digits) {
                    if self.stop.is_none() && first.is_none_or(|first| digit >= first) {
                        *child = self.walk(*child, depth + 1, from.filter(|_| first == Some(digit)))?;
                    }
                }
                let words = Node::Branch(branch).word_count();
                self.walked_words += words;
                self.place(node, words, &children[..branch.children.len()], branch.children)
            }
            Node::Extension(extension) => {
                let end = extension.end;
                let from = match from.map(|from| (from, shared_nibbles(from, &extension.path))) {
                    Some((from, shared)) if shared >= end => Some(from),
                    Some((from, _)) if *from > extension.path => return Ok(node),
                    _ => None,
                };
                let child = self.walk(extension.child.node, end, from)?;
                let words = Node::Extension(extension).word_count();
                self.walked_words += words;
                self.place(node, words, &[child], &[extension.child.node])
            }
            Node::Account(leaf) => {
                if from.is_some_and(|from| leaf.key < *from) {
                    return Ok(node);
                }
                let words = Node::Account(leaf).word_count();
                let resumed = from.is_some_and(|from| leaf.key == *from);
                let slot = if resumed { self.begin.slot } else { Key::default() };
                if !self.take(words, Stop { is_code: false, key: leaf.key, slot }) {
                    return Ok(node);
                }
                if leaf.storage == 0 {
                    return self.place(node, words, &[], &[]);
                }
                let storage = self.walk(leaf.storage, 0, Some(&slot))?;
                if let Some(stop) = &mut self.stop {
                    stop.key = leaf.key;
                }
                self.place(node, words, &[storage], &[leaf.storage])
            }
            Node::Slot(leaf) => {
                let words = Node::Slot(leaf).word_count();
                let walked = from.is_some_and(|from| leaf.key < *from);
                if walked || !self.take(words, Stop { is_code: false, key: Key::default(), slot: leaf.key }) {
                    return Ok(node);
                }
                self.place(node, words, &[], &[])
            }
            Node::Code(CodeLeaf { key, words: code, .. }) => {
                let words = Node::Code(CodeLeaf { key, code_bytes: 0, words: code }).word_count();
                let walked = from.is_some_and(|from| key < *from);
                if walked || !self.take(words, Stop { is_code: true, key, slot: Key::default() }) {
                    return Ok(node);
                }
                self.place(node, words, &[], &[])
            }
        }
    }

    /// Takes fuel for a leaf, or stops there.
    fn take(&mut self, words: usize, stop: Stop) -> bool {
        // The first leaf is always taken, so that each call gets on. An account in which the pass stopped counts as taken.
        if self.advanced && self.walked_words + words > self.fuel_words {
            self.stop = Some(stop);
            return false;
        }
        let again = stop.key != Key::default() && stop.slot != Key::default();
        self.advanced |= !again;
        self.walked_words += words;
        true
    }

    /// Writes a node again if its children have moved, or if it is old and all below it is done.
    fn place(
        &mut self,
        node: Position,
        word_count: usize,
        children: &[Position],
        old_children: &[Position],
    ) -> Result<Position, StateError> {
        let finished_old = node < self.floor && self.stop.is_none();
        if !finished_old && children == old_children {
            return Ok(node);
        }
        let old = self.space.words(node).and_then(|words| words.get(..word_count));
        let old = old.ok_or_else(|| self.space.broken(node))?;
        let word = u32::try_from(self.words.len());
        let word = word.map_err(|_| StateError::CommitTooLarge { words_max: u64::from(u32::MAX) })?;
        self.words.extend_from_slice(old);
        for (ordinal, child) in children.iter().enumerate() {
            set_child(&mut self.words[word as usize..], ordinal, *child);
        }
        Ok(position(self.segment, word))
    }
}
