#![allow(unsafe_code, reason = "the prefetch instruction takes a pointer")]
//! Asks for the nodes on many paths at once, so that an update waits for memory once per level and not once per node.

use super::Space;
use super::node::{KEY_NIBBLES, Position, branch_child, branch_words, nibble};
use super::writer::Change;

/// Paths walked together: their nodes (64 × about six × about five lines) stay in a level 2 cache until they are used.
pub const GROUP_CHANGES: usize = 64;

/// Words of a cache line.
const LINE_WORDS: usize = 8;
/// Lines of a node asked for before its size is known: header and child positions of a full branch, or a leaf.
const FIRST_LINES: usize = 3;

/// Walks from the branch `node` at `depth` towards the keys of up to [`GROUP_CHANGES`] changes, level by level.
pub fn paths<S: Space>(space: &S, node: Position, depth: usize, changes: &[Change]) {
    let mut nodes = [0; GROUP_CHANGES];
    let nodes = &mut nodes[..changes.len().min(GROUP_CHANGES)];
    nodes.fill(node);
    for depth in depth..KEY_NIBBLES {
        let mut reached = false;
        for (node, change) in nodes.iter_mut().zip(changes).filter(|(node, _)| **node != 0) {
            let words = space.words(*node).unwrap_or_default();
            // An extension ends the walk too: with hashed keys there are next to none.
            *node = branch_child(words, nibble(&change.key, depth)).unwrap_or_default();
            lines(&words[..branch_words(words).min(words.len())], FIRST_LINES, usize::MAX);
            if *node != 0 {
                lines(space.words(*node).unwrap_or_default(), 0, FIRST_LINES);
                reached = true;
            }
        }
        if !reached {
            break;
        }
    }
}

/// Asks for the lines `start..end` of a node.
fn lines(words: &[u64], start: usize, end: usize) {
    for line in words.chunks(LINE_WORDS).take(end).skip(start) {
        line_of(&line[0]);
    }
}

#[cfg(target_arch = "x86_64")]
fn line_of(word: &u64) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch changes nothing that a program can see; the pointer comes from a reference.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(word).cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
fn line_of(_word: &u64) {}
