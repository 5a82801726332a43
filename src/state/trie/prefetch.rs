#![allow(unsafe_code, reason = "the prefetch instruction takes a pointer")]
//! Asks for the nodes on many paths at once, a group of paths ahead of the update: while it works on one group, the walk goes on towards the next, a few
//! nodes at a time, so that it seldom waits for memory.

use std::ops::Range;

use super::Space;
use super::node::{KEY_NIBBLES, Key, Position, branch_child, branch_words, nibble};
use super::writer::{Change, Updates, Value};

/// Paths walked together: their nodes (64 × about six × about five lines), twice, stay in a level 2 cache until they are used.
const GROUP_PATHS: usize = 64;
/// Nodes that the walk looks at for each node that the update does: it has fewer to look at, because paths share their upper nodes.
const STEPS: usize = 3;

/// Words of a cache line.
const LINE_WORDS: usize = 8;
/// Lines of a node asked for before its size is known: header and child positions of a full branch, or a leaf.
const FIRST_LINES: usize = 3;

/// What a path leads to.
pub trait Goal {
    fn key(&self) -> &Key;

    /// Asks for what will be read beside the nodes.
    fn ask(&self, _updates: &Updates<'_>) {}
}

impl Goal for Change<'_> {
    fn key(&self) -> &Key {
        &self.key
    }

    /// What the changes name lies in the order of the block, not in theirs.
    fn ask(&self, updates: &Updates<'_>) {
        match self.value {
            Value::Account(index) => value(&updates.accounts[index as usize]),
            Value::Slot(slot) => value(slot),
            Value::Delete | Value::Code(_) => {}
        }
    }
}

/// The walk ahead of the update, or of a reader, of one subtree.
pub struct Ahead<'c, G> {
    updates: Updates<'c>,
    root: Position,
    root_depth: usize,
    /// In the order of their keys.
    goals: &'c [G],
    /// Whose paths are being walked.
    group: Range<usize>,
    /// Where each of them is; 0 = at its end.
    nodes: [Position; GROUP_PATHS],
    depth: usize,
    /// The path that is next at this depth.
    next: usize,
    /// Some path goes on below.
    goes_on: bool,
}

impl<'c, G: Goal> Ahead<'c, G> {
    /// From the node `root` at `root_depth` towards all goals. `updates` is what changes name.
    pub fn new(updates: Updates<'c>, root: Position, root_depth: usize, goals: &'c [G]) -> Self {
        let nodes = [0; GROUP_PATHS];
        let mut ahead =
            Self { updates, root, root_depth, goals, group: 0..0, nodes, depth: 0, next: 0, goes_on: false };
        ahead.begin();
        ahead
    }

    /// Who follows is at a node on the way to `goals`, a part of all.
    #[inline]
    pub fn follow<S: Space>(&mut self, space: &S, goals: &[G]) {
        let byte = goals.as_ptr().addr().wrapping_sub(self.goals.as_ptr().addr());
        if byte / size_of::<G>() < self.group.start {
            for _ in 0..STEPS {
                if !self.step(space) {
                    break;
                }
            }
            return;
        }
        // It is about to need what is not asked for yet.
        while self.step(space) {}
        self.begin();
    }

    /// Begins with the next group.
    fn begin(&mut self) {
        let start = self.group.end;
        self.group = start..self.goals.len().min(start + GROUP_PATHS);
        self.nodes[..self.group.len()].fill(self.root);
        (self.depth, self.next, self.goes_on) = (self.root_depth, 0, !self.group.is_empty());
        for goal in &self.goals[self.group.clone()] {
            goal.ask(&self.updates);
        }
        if self.group.is_empty() {
            // Nothing is left to be asked for, and no goal is behind the end.
            self.group = usize::MAX..usize::MAX;
        }
    }

    /// Takes one path down by one node. `false`: all of the group have been walked.
    fn step<S: Space>(&mut self, space: &S) -> bool {
        if self.next == self.group.len() {
            if !self.goes_on || self.depth + 1 == KEY_NIBBLES {
                return false;
            }
            (self.depth, self.next, self.goes_on) = (self.depth + 1, 0, false);
        }
        let node = self.nodes[self.next];
        if node != 0 {
            let words = space.words(node).unwrap_or_default();
            let goal = &self.goals[self.group.start + self.next];
            // An extension ends the walk too: with hashed keys there are next to none.
            let child = branch_child(words, nibble(goal.key(), self.depth)).unwrap_or_default();
            // Where the path before came by, all of it has been asked for.
            let is_shared = self.next > 0 && child != 0 && self.nodes[self.next - 1] == child;
            self.nodes[self.next] = child;
            if !is_shared {
                lines(&words[..branch_words(words).min(words.len())], FIRST_LINES, usize::MAX);
                lines(space.words(child).unwrap_or_default(), 0, FIRST_LINES);
            }
            self.goes_on |= child != 0;
        }
        self.next += 1;
        true
    }
}

/// Asks for the lines of a value that will be read soon.
#[inline]
fn value<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    line_at(start);
    if size_of::<T>() > 64 {
        line_at(start.wrapping_add(64));
        line_at(start.wrapping_add(size_of::<T>() - 1));
    }
}

/// Asks for the lines `start..end` of a node.
fn lines(words: &[u64], start: usize, end: usize) {
    for line in words.chunks(LINE_WORDS).take(end).skip(start) {
        line_at(line.as_ptr().cast());
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn line_at(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
    // SAFETY: a prefetch changes nothing that a program can see, and does not fault at any address.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
fn line_at(_address: *const u8) {}
