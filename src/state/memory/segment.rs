//! Segments: immutable runs of words that commits append, and the table of those that a version can reach.

use std::sync::Arc;

use crate::state::trie::node::Position;
use crate::state::trie::{Draft, Space, segment_of, word_of};

/// The segments of a version by number. A clone shares them.
#[derive(Clone, Default)]
pub struct Segments {
    /// Number of the first entry. Numbers start at 1, so that no position is 0.
    first: u32,
    /// Gaps: segments of other branches of history, and those that nothing reaches any more.
    list: Vec<Option<Arc<Vec<u64>>>>,
    word_count: usize,
}

impl Segments {
    /// How many segments the table holds.
    pub fn segment_count(&self) -> usize {
        self.list.iter().flatten().count()
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

impl Space for Segments {
    /// To the end of the segment.
    #[inline]
    fn words(&self, position: Position) -> Option<&[u64]> {
        let index = segment_of(position).checked_sub(self.first)?;
        let segment = self.list.get(index as usize)?.as_ref()?;
        segment.get(word_of(position)..)
    }

    fn word_count(&self) -> usize {
        self.word_count
    }
}

/// Smaller segments, of which there may be many, give back what they did not need: 64 KiB.
const SHRINK_WORDS: usize = 8 << 10;

/// The segments of a version in the making.
pub struct Growing<'n> {
    pub segments: Segments,
    pub segment_next: &'n mut u32,
}

impl Space for Growing<'_> {
    #[inline]
    fn words(&self, position: Position) -> Option<&[u64]> {
        self.segments.words(position)
    }

    fn word_count(&self) -> usize {
        self.segments.word_count()
    }
}

impl Draft for Growing<'_> {
    fn segment_next(&self) -> u32 {
        *self.segment_next
    }

    fn add(&mut self, segment: u32, mut words: Vec<u64>) {
        if words.capacity() > 2 * words.len() || words.len() < SHRINK_WORDS {
            words.shrink_to_fit();
        }
        self.segments.add(segment, words);
        *self.segment_next = segment + 1;
    }
}
