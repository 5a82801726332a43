//! Segments: immutable runs of words that commits append, and the table of those that a version can reach.

use std::sync::Arc;

use super::node::{Node, Position};
use crate::state::StateError;

/// The segments of a version by number. A clone shares them.
#[derive(Clone, Default)]
pub struct Segments {
    /// Number of the first entry. Numbers start at 1, so that no position is 0.
    first: u32,
    /// Gaps: segments of other branches of history, and those that nothing reaches any more.
    list: Vec<Option<Arc<Vec<u64>>>>,
    word_count: usize,
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

impl Segments {
    /// Words of all segments.
    pub fn word_count(&self) -> usize {
        self.word_count
    }

    /// How many segments the table holds.
    pub fn segment_count(&self) -> usize {
        self.list.iter().flatten().count()
    }

    #[inline]
    pub fn node(&self, position: Position) -> Result<Node<'_>, StateError> {
        self.words(position).and_then(Node::read).ok_or(StateError::NodeBroken { node: position })
    }

    /// The words from a position to the end of its segment.
    #[inline]
    pub fn words(&self, position: Position) -> Option<&[u64]> {
        let index = segment_of(position).checked_sub(self.first)?;
        let segment = self.list.get(index as usize)?.as_ref()?;
        segment.get(word_of(position)..)
    }

    /// Adds a segment with a number larger than all before. An empty one is left out.
    pub fn add(&mut self, segment: u32, words: Vec<u64>) {
        if words.is_empty() {
            return;
        }
        if self.list.is_empty() {
            self.first = segment;
        }
        let index = (segment - self.first) as usize;
        assert!(index >= self.list.len(), "segment numbers grow");
        self.word_count += words.len();
        self.list.resize(index, None);
        self.list.push(Some(Arc::new(words)));
    }

    /// Leaves out the segments below a number.
    pub fn remove_below(&mut self, segment: u32) {
        let count = (segment.saturating_sub(self.first) as usize).min(self.list.len());
        for words in self.list.drain(..count).flatten() {
            self.word_count -= words.len();
        }
        self.first += count as u32;
    }
}
