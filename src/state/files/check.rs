#![allow(unsafe_code, reason = "the CRC instruction")]
//! Checks of nodes: CRC-32C over a node's words and its position, kept in spare bits of its header.
//!
//! A branch has two, so that a read on its way down looks at header and child positions only: 16 bits for these and 13 for the hashes.
//! Every other node has one of 32 bits. Each finds every single flipped bit (tested for every size), and all but one in 2^16 (2^13, 2^32) of other
//! damage. The position goes in, so that a node which is found where it was not written is damage too.

use crate::state::trie::node::{Position, child_words, is_branch, node_words};

const BRANCH_WAY_BITS: u64 = 0xffff << 48;
const BRANCH_HASH_BITS: u64 = 0x1fff << 3;
const WHOLE_BITS: u64 = 0xffff_ffff << 32;

/// Changes the child positions of a run of nodes to what `resolve` says, and writes the checks. `base`: where the first word will lie.
pub fn seal(words: &mut [u64], base: Position, resolve: impl Fn(Position) -> Position) {
    #[cfg(target_arch = "x86_64")]
    if has_instruction() {
        // SAFETY: the instructions are there.
        return unsafe { seal_by_instruction(words, base, resolve) };
    }
    seal_with(words, base, resolve, crc_by_library);
}

/// Whether header and child positions of a branch are as they were written.
#[inline]
pub fn is_way_sound(position: Position, words: &[u64]) -> bool {
    let ways = words.get(..child_words(words).end);
    ways.is_some_and(|ways| is_branch(words[0]) && way_check(position, ways, crc) == words[0] >> 48)
}

/// Whether the node that `words` starts with is as it was written.
pub fn is_sound(position: Position, words: &[u64]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if has_instruction() {
        // SAFETY: the instructions are there.
        return unsafe { is_sound_by_instruction(position, words) };
    }
    is_sound_with(position, words, crc_by_library)
}

/// Whether [`crc_by_instruction`] may be called, and what stands around it.
#[cfg(target_arch = "x86_64")]
#[inline]
fn has_instruction() -> bool {
    std::arch::is_x86_feature_detected!("sse4.2") && std::arch::is_x86_feature_detected!("popcnt")
}

/// The whole loop is compiled for the instructions: a call for each check costs as much as the check of a small node.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2,popcnt")]
fn seal_by_instruction(words: &mut [u64], base: Position, resolve: impl Fn(Position) -> Position) {
    seal_with(words, base, resolve, |seed, words| crc_by_instruction(seed, words));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2,popcnt")]
fn is_sound_by_instruction(position: Position, words: &[u64]) -> bool {
    is_sound_with(position, words, |seed, words| crc_by_instruction(seed, words))
}

#[inline(always)]
fn seal_with(
    words: &mut [u64],
    base: Position,
    resolve: impl Fn(Position) -> Position,
    crc: impl Fn(u64, &[u64]) -> u32,
) {
    let mut at = 0;
    while at < words.len() {
        let node = &mut words[at..];
        let count = node_words(node).expect("a writer makes known kinds only");
        let children = child_words(node);
        let ways = children.end;
        for child in &mut node[children] {
            *child = resolve(*child);
        }
        let position = base + at as u64;
        if is_branch(node[0]) {
            let header = node[0] & !(BRANCH_WAY_BITS | BRANCH_HASH_BITS);
            let hashes = hash_check(position, &node[ways..count], &crc);
            node[0] = header | way_check(position, &node[..ways], &crc) << 48 | hashes << 3;
        } else {
            node[0] &= !WHOLE_BITS;
            node[0] |= whole_check(position, &node[..count], &crc) << 32;
        }
        at += count;
    }
}

#[inline(always)]
fn is_sound_with(position: Position, words: &[u64], crc: impl Fn(u64, &[u64]) -> u32) -> bool {
    let Some(node) = node_words(words).and_then(|count| words.get(..count)) else { return false };
    if is_branch(node[0]) {
        let (ways, hashes) = node.split_at(child_words(node).end);
        way_check(position, ways, &crc) == node[0] >> 48
            && hash_check(position, hashes, &crc) == (node[0] & BRANCH_HASH_BITS) >> 3
    } else {
        whole_check(position, node, &crc) == node[0] >> 32
    }
}

#[inline(always)]
fn way_check(position: Position, ways: &[u64], crc: impl Fn(u64, &[u64]) -> u32) -> u64 {
    u64::from(crc(position ^ ways[0] & !(BRANCH_WAY_BITS | BRANCH_HASH_BITS), &ways[1..])) & 0xffff
}

#[inline(always)]
fn hash_check(position: Position, hashes: &[u64], crc: impl Fn(u64, &[u64]) -> u32) -> u64 {
    // Not the lowest bits: some single flips leave those as they are.
    u64::from(crc(position, hashes)) >> 4 & 0x1fff
}

#[inline(always)]
fn whole_check(position: Position, node: &[u64], crc: impl Fn(u64, &[u64]) -> u32) -> u64 {
    u64::from(crc(position.rotate_left(32) ^ node[0] & !WHOLE_BITS, &node[1..]))
}

/// A CRC-32C of words in four interleaved streams, because one is bound by the instruction's three cycles.
#[inline]
fn crc(seed: u64, words: &[u64]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if has_instruction() {
        // SAFETY: the instruction is there.
        return unsafe { crc_by_instruction(seed, words) };
    }
    crc_by_library(seed, words)
}

fn crc_by_library(seed: u64, words: &[u64]) -> u32 {
    crc_with(seed, words, |crc, word| u64::from(!crc32c::crc32c_append(!(crc as u32), &word.to_le_bytes())))
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse4.2,popcnt")]
fn crc_by_instruction(seed: u64, words: &[u64]) -> u32 {
    crc_with(seed, words, |crc, word| std::arch::x86_64::_mm_crc32_u64(crc, word))
}

#[inline(always)]
fn crc_with(seed: u64, words: &[u64], step: impl Fn(u64, u64) -> u64) -> u32 {
    let [mut a, mut b, mut c, mut d] = [step(0x9e37_79b9, seed), 0x85eb_ca6b, 0xc2b2_ae35, 0x27d4_eb2f];
    let (chunks, rest) = words.as_chunks::<4>();
    for [first, second, third, fourth] in chunks {
        a = step(a, *first);
        b = step(b, *second);
        c = step(c, *third);
        d = step(d, *fourth);
    }
    for word in rest {
        a = step(a, *word);
    }
    a as u32 ^ (b as u32).rotate_left(8) ^ (c as u32).rotate_left(16) ^ (d as u32).rotate_left(24)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use alloy_primitives::{B256, U256};

    use super::*;
    use crate::state::trie::node::{
        Extension, Link, Slot, SlotLeaf, write_branch, write_code, write_extension, write_slot,
    };

    fn link(number: u64) -> Link {
        Link { node: number * 0x1234_5678 + 1, slot: Slot::hash(B256::repeat_byte(number as u8 | 0x40)) }
    }

    #[track_caller]
    fn every_flip_is_found(mut words: Vec<u64>, position: Position) {
        let count = words.len();
        seal(&mut words, position, |child| child);
        assert!(is_sound(position, &words));
        assert!(!is_sound(position + 8, &words));
        for bit in 0..count * 64 {
            words[bit / 64] ^= 1 << (bit % 64);
            assert!(!is_sound(position, &words), "bit {bit} of {count} words");
            words[bit / 64] ^= 1 << (bit % 64);
        }
    }

    #[test]
    fn every_flipped_bit_of_every_kind_of_node_is_found() {
        for position in [512, 0x1_0000_0007, 0xff_ffff_ffff] {
            for count in 2..=16 {
                let children: Vec<(usize, Link)> = (0..count).map(|nibble| (nibble, link(nibble as u64))).collect();
                let mut words = Vec::new();
                write_branch(&children, &mut words);
                every_flip_is_found(words, position);
            }
            let mut words = Vec::new();
            write_extension(&Extension { path: [1, 2, 3, 4], start: 3, end: 9, child: link(4) }, &mut words);
            every_flip_is_found(words, position);
            let mut words = Vec::new();
            write_slot(&SlotLeaf { key: [9, 8, 7, 6], value: U256::from(77) }, &mut words);
            every_flip_is_found(words, position);
            let mut words = Vec::new();
            write_code(&[5, 5, 5, 5], &[0x5b; 1_001], &mut words);
            every_flip_is_found(words, position);
        }
    }

    #[test]
    fn a_way_is_header_and_positions() {
        let children: Vec<(usize, Link)> = (0..16).map(|nibble| (nibble, link(nibble as u64))).collect();
        let mut words = Vec::new();
        write_branch(&children, &mut words);
        seal(&mut words, 4_096, |child| child + 1);
        assert_eq!(words[1], link(0).node + 1);
        for bit in 0..17 * 64 {
            words[bit / 64] ^= 1 << (bit % 64);
            // Its 13 bits for the hashes are the only ones that a way does not need.
            assert_eq!(is_way_sound(4_096, &words), (3..16).contains(&bit), "bit {bit}");
            words[bit / 64] ^= 1 << (bit % 64);
        }
        words[30] ^= 1;
        assert!(is_way_sound(4_096, &words) && !is_sound(4_096, &words));
    }

    #[test]
    fn the_instruction_equals_the_library() {
        let step = |crc: u64, word: u64| u64::from(!crc32c::crc32c_append(!(crc as u32), &word.to_le_bytes()));
        for count in 0..40_u64 {
            let words: Vec<u64> = (0..count).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
            assert_eq!(crc(count, &words), crc_with(count, &words, step));
        }
    }
}
