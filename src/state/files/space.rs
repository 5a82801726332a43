#![allow(unsafe_code, reason = "words of mapped segments")]
//! Nodes by their place in the row of all segments, read through maps and checked as they are read.
//!
//! A position is the number of a word, counted through all segments that ever were; segment `n` holds the words from `n` × its length on. Its place
//! in the range of addresses is the position modulo the range, so that numbers may grow for ever while few segments live.

use std::sync::Arc;

use super::check;
use super::disk::FileName;
use crate::runtime::address_range::AddressRange;
use crate::state::StateError;
use crate::state::trie::node::{Node, Position, branch_child, child_words, is_branch, node_words};
use crate::state::trie::{Draft, Space, segment_of, word_of};

/// How positions become segments and addresses. Both lengths are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub segment_bytes: u64,
    pub range_bytes: u64,
}

impl Geometry {
    #[must_use]
    pub fn segment_words(self) -> u64 {
        self.segment_bytes / 8
    }

    /// The segment of a position.
    #[must_use]
    pub fn segment(self, position: Position) -> u32 {
        // Lossless: at 1 GB a second of small segments it takes thousands of years.
        (position >> self.segment_words().trailing_zeros()) as u32
    }

    /// The first position of a segment.
    #[must_use]
    pub fn start(self, segment: u32) -> Position {
        u64::from(segment) << self.segment_words().trailing_zeros()
    }

    /// Where a segment is mapped, in bytes.
    #[must_use]
    pub fn place(self, segment: u32) -> usize {
        (self.start(segment) * 8 % self.range_bytes) as usize
    }

    /// File and byte of a position, for reports.
    #[must_use]
    pub fn locate(self, position: Position) -> (FileName, u64) {
        (FileName(self.segment(position)), (position % self.segment_words()) * 8)
    }

    /// How many segments fit in the range.
    #[must_use]
    pub fn segments_max(self) -> u32 {
        (self.range_bytes / self.segment_bytes) as u32
    }
}

/// What a version reaches: the words from `first` up to `end`.
#[derive(Clone)]
pub struct FileSpace {
    range: Arc<AddressRange>,
    geometry: Geometry,
    first: Position,
    end: Position,
}

impl FileSpace {
    /// # Safety
    /// As long as the space and its clones live, every segment from the one of `first` to the one before `end` is mapped at its place in
    /// `range`, and no word from `first` up to `end` is written.
    #[must_use]
    pub unsafe fn new(range: Arc<AddressRange>, geometry: Geometry, first: Position, end: Position) -> Self {
        Self { range, geometry, first, end }
    }

    #[must_use]
    pub fn first(&self) -> Position {
        self.first
    }

    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn damaged(&self, position: Position, what: &'static str) -> StateError {
        let (file, offset) = self.geometry.locate(position);
        StateError::Damaged { file, offset, what }
    }
}

impl Space for FileSpace {
    /// To the end of the segment, or of what is written.
    #[inline]
    fn words(&self, position: Position) -> Option<&[u64]> {
        if position < self.first || position >= self.end {
            return None;
        }
        let segment_words = self.geometry.segment_words();
        let segment_end = (position | (segment_words - 1)) + 1;
        let count = segment_end.min(self.end) - position;
        let word = position & (self.geometry.range_bytes / 8 - 1);
        // SAFETY: between `first` and `end`, so mapped and not written, by the contract of `new`; it ends with its segment, which is mapped as
        // a whole. ORDERING: the space reached this thread by a channel or cell that orders the writes before it.
        Some(unsafe { self.range.words(word as usize, count as usize) })
    }

    fn word_count(&self) -> usize {
        (self.end - self.first) as usize
    }

    fn broken(&self, position: Position) -> StateError {
        let Some(words) = self.words(position) else {
            return self.damaged(position, "a node is named there, where none can be");
        };
        if node_words(words).is_none() {
            return self.damaged(position, "no node");
        }
        self.damaged(position, "the node differs from its check")
    }

    fn node(&self, position: Position) -> Result<Node<'_>, StateError> {
        let words = self.words(position).ok_or_else(|| self.broken(position))?;
        if !check::is_sound(position, words) {
            return Err(self.broken(position));
        }
        // Children are written first, so nodes cannot run in a circle.
        if words[child_words(words)].iter().any(|child| *child >= position) {
            return Err(self.damaged(position, "the node names a later one"));
        }
        Node::read(words).ok_or_else(|| self.broken(position))
    }

    #[inline]
    fn child(&self, position: Position, nibble: usize) -> Option<Position> {
        let words = self.words(position)?;
        if !is_branch(words[0]) || !check::is_way_sound(position, words) {
            return None;
        }
        branch_child(words, nibble).filter(|child| *child < position)
    }
}

/// The number of a run, as the segment of its positions until it has its place.
const DRAFT_SEGMENT: u32 = 1 << 31;

/// A version's nodes and runs that have no place in the files yet.
pub struct FileDraft<'b> {
    space: FileSpace,
    pub runs: Vec<Vec<u64>>,
    /// Empty buffers of earlier commits.
    buffers: &'b mut Vec<Vec<u64>>,
}

impl<'b> FileDraft<'b> {
    pub fn new(space: FileSpace, buffers: &'b mut Vec<Vec<u64>>) -> Self {
        Self { space, runs: Vec::new(), buffers }
    }
}

/// The final position of what a draft named so, when run `n` lies at `bases[n]`.
#[inline]
pub fn resolve(position: Position, bases: &[Position]) -> Position {
    let segment = segment_of(position);
    if segment < DRAFT_SEGMENT {
        position
    } else {
        bases[(segment - DRAFT_SEGMENT) as usize] + word_of(position) as u64
    }
}

impl Space for FileDraft<'_> {
    #[inline]
    fn words(&self, position: Position) -> Option<&[u64]> {
        match segment_of(position).checked_sub(DRAFT_SEGMENT) {
            None => self.space.words(position),
            Some(run) => self.runs.get(run as usize)?.get(word_of(position)..),
        }
    }

    fn word_count(&self) -> usize {
        self.space.word_count()
    }

    fn broken(&self, position: Position) -> StateError {
        self.space.broken(position)
    }

    fn node(&self, position: Position) -> Result<Node<'_>, StateError> {
        if segment_of(position) < DRAFT_SEGMENT {
            return self.space.node(position);
        }
        self.words(position).and_then(Node::read).ok_or(StateError::NodeBroken { node: position })
    }

    #[inline]
    fn child(&self, position: Position, nibble: usize) -> Option<Position> {
        if segment_of(position) < DRAFT_SEGMENT {
            return self.space.child(position, nibble);
        }
        branch_child(self.words(position)?, nibble)
    }
}

impl Draft for FileDraft<'_> {
    fn segment_next(&self) -> u32 {
        DRAFT_SEGMENT + self.runs.len() as u32
    }

    fn buffer(&mut self, capacity_words: usize) -> Vec<u64> {
        // The smallest that is large enough, or else the largest: pages that have been touched before are worth much.
        let fit = |(_, buffer): &(usize, &Vec<u64>)| {
            let capacity = buffer.capacity();
            if capacity >= capacity_words { (false, capacity) } else { (true, usize::MAX - capacity) }
        };
        let best = self.buffers.iter().enumerate().min_by_key(fit).map(|(index, _)| index);
        let mut buffer = best.map_or_else(Vec::new, |index| self.buffers.swap_remove(index));
        buffer.reserve(capacity_words);
        buffer
    }

    fn add(&mut self, segment: u32, words: Vec<u64>) {
        assert_eq!(segment, self.segment_next(), "runs are added in order");
        self.runs.push(words);
    }
}
