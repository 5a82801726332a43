//! Moves live nodes out of old segments, a bounded piece of work at a time.
//!
//! A pass walks the tries in the order of the keys and writes again what lies below `floor`, the segment at which the pass
//! began. Commits in between write above `floor`, and what they keep of the part already walked lies above it too. So at
//! the end nothing reaches the segments below, and the version leaves them out of its table.

use super::Version;
use super::node::{Key, Node, Position, WIDTH, nibble, set_child, shared_nibbles};
use super::segment::{Segments, position, segment_of};
use crate::state::StateError;

/// A commit reclaims by itself when this much was appended since the last time: 8 MiB, about a block of 10,000 changes.
pub const OVERDUE_WORDS: usize = 1 << 20;
/// Least work of a call: 512 KiB, under a millisecond.
const STEP_WORDS_MIN: usize = 64 << 10;
/// Words walked for each word appended: with 2, a pass ends before the state has grown by half of itself.
const STEP_FACTOR: usize = 2;
/// A pass begins when segments hold more than twice what is live, and this: 1 MiB.
const SLACK_WORDS: usize = 128 << 10;
/// A pass also begins when there are more segments: every commit copies the table.
const SEGMENTS_MAX: usize = 1024;

/// Where a version's pass stands.
#[derive(Clone, Copy, Default)]
pub struct Cursor {
    /// Segments below are being emptied. 0: no pass.
    floor: u32,
    /// Everything before has been walked.
    from: Stop,
    /// Words of the nodes walked in this pass.
    walked_words: usize,
    /// Words that the last pass found alive.
    live_words: usize,
}

/// A place in the order of keys: an account, and a slot in it.
#[derive(Clone, Copy, Default)]
struct Stop {
    account: Key,
    slot: Key,
}

impl Cursor {
    /// For a version made from nothing: all of it is alive.
    pub fn fresh(words: usize) -> Self {
        Self { live_words: words, ..Self::default() }
    }
}

/// Goes on with the pass of a version, or begins one if it is worth it. `None`: nothing to do.
pub fn reclaim(
    version: &Version,
    segment_next: &mut u32,
    appended_words: usize,
) -> Result<Option<Version>, StateError> {
    let worth = version.segments.word_count() > 2 * version.cursor.live_words + SLACK_WORDS
        || version.segments.segment_count() > SEGMENTS_MAX;
    if version.cursor.floor == 0 && !worth {
        return Ok(None);
    }
    let fuel_words = (appended_words * STEP_FACTOR).max(STEP_WORDS_MIN);
    step(version, segment_next, fuel_words).map(Some)
}

/// Walks about `fuel_words` of the version's pass, or of a new one.
pub fn step(version: &Version, segment_next: &mut u32, fuel_words: usize) -> Result<Version, StateError> {
    let mut cursor = version.cursor;
    if cursor.floor == 0 {
        cursor = Cursor { floor: *segment_next, live_words: cursor.live_words, ..Cursor::default() };
    }
    let segment = *segment_next;
    *segment_next += 1;
    let mut mover = Mover {
        segments: &version.segments,
        segment,
        words: Vec::with_capacity(fuel_words.min(version.segments.word_count())),
        floor: cursor.floor,
        begin: cursor.from,
        fuel_words,
        walked_words: 0,
        advanced: false,
        stop: None,
    };
    let root_node =
        if version.root_node == 0 { 0 } else { mover.walk(version.root_node, 0, Some(&cursor.from.account))? };
    let Mover { words, walked_words, stop, .. } = mover;
    let mut moved = Version { root_node, ..version.clone() };
    moved.segments.add(segment, words);
    cursor.walked_words += walked_words;
    if let Some(stop) = stop {
        cursor.from = stop;
    } else {
        moved.segments.remove_below(cursor.floor);
        cursor = Cursor::fresh(cursor.walked_words);
    }
    moved.cursor = cursor;
    Ok(moved)
}

struct Mover<'a> {
    segments: &'a Segments,
    segment: u32,
    words: Vec<u64>,
    floor: u32,
    begin: Stop,
    fuel_words: usize,
    walked_words: usize,
    /// A leaf has been taken that was not taken before.
    advanced: bool,
    /// Set when the fuel is used up: the leaf to go on with.
    stop: Option<Stop>,
}

impl Mover<'_> {
    /// Walks the subtree of `node` and returns where it is now. `from`: keys below have been walked before; it shares the path of
    /// `node`, or is `None` when the whole subtree lies behind it.
    fn walk(&mut self, node: Position, depth: usize, from: Option<&Key>) -> Result<Position, StateError> {
        let segments = self.segments;
        match segments.node(node)? {
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
                if !self.take(words, Stop { account: leaf.key, slot }) {
                    return Ok(node);
                }
                if leaf.storage == 0 {
                    return self.place(node, words, &[], &[]);
                }
                let storage = self.walk(leaf.storage, 0, Some(&slot))?;
                if let Some(stop) = &mut self.stop {
                    stop.account = leaf.key;
                }
                self.place(node, words, &[storage], &[leaf.storage])
            }
            Node::Slot(leaf) => {
                let words = Node::Slot(leaf).word_count();
                let walked = from.is_some_and(|from| leaf.key < *from);
                if walked || !self.take(words, Stop { account: Key::default(), slot: leaf.key }) {
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
        let again = stop.account != Key::default() && stop.slot != Key::default();
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
        let finished_old = segment_of(node) < self.floor && self.stop.is_none();
        if !finished_old && children == old_children {
            return Ok(node);
        }
        let broken = StateError::NodeBroken { node };
        let old = self.segments.words(node).and_then(|words| words.get(..word_count)).ok_or(broken)?;
        let word = u32::try_from(self.words.len());
        let word = word.map_err(|_| StateError::CommitTooLarge { words_max: u64::from(u32::MAX) })?;
        self.words.extend_from_slice(old);
        for (ordinal, child) in children.iter().enumerate() {
            set_child(&mut self.words[word as usize..], ordinal, *child);
        }
        Ok(position(self.segment, word))
    }
}
