//! The file of roots: what the state is made of, and two slots that say which versions can be asked for.
//!
//! Words are little-endian and counted from the start of the file or slot. Bytes: `docs/STATE_FORMAT.md`.
//!
//! | block | content |
//! |---|---|
//! | 0 | superblock: magic, crc32c of the words behind, length of a segment in bytes |
//! | 1–6 | slot 0 |
//! | 7–12 | slot 1 |

use alloy_primitives::B256;

use super::disk::{BLOCK_BYTES, BLOCK_WORDS};
use crate::runtime::file::bytes_of;
use crate::state::trie::node::{Position, key_bytes, key_words};
use crate::state::trie::reclaim::{Cursor, Stop};

/// "STATE\0" and the version of the format, 1.
const SUPERBLOCK_MAGIC: u64 = u64::from_le_bytes(*b"STATE\0\0\x01");
const SLOT_MAGIC: u64 = u64::from_le_bytes(*b"STROOT\0\x01");
const SLOT_BLOCKS: usize = 6;
pub const SLOT_WORDS: usize = SLOT_BLOCKS * BLOCK_WORDS;
const HEAD_WORDS: usize = 32;
const ENTRY_WORDS: usize = 13;
/// Versions that a slot can name.
pub const ENTRIES_MAX: usize = (SLOT_WORDS - HEAD_WORDS) / ENTRY_WORDS;
pub const ROOTS_BYTES: u64 = BLOCK_BYTES * (1 + 2 * SLOT_BLOCKS as u64);

/// A version in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The block that it is the state after.
    pub number: u64,
    /// The journal's record that must be durable for it to count.
    pub sequence: u64,
    pub root: B256,
    pub codes_root: B256,
    pub accounts: Position,
    pub codes: Position,
    /// Nothing of it lies below.
    pub first: Position,
}

/// What a slot says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// The newer slot has the higher one.
    pub sequence: u64,
    /// Everything written lies below.
    pub end: Position,
    /// The newest run of writes, and its crc32c.
    pub checked: std::ops::Range<Position>,
    pub checked_crc: u32,
    /// Of the newest version.
    pub cursor: Cursor,
    /// Oldest first.
    pub entries: Vec<Entry>,
}

impl Slot {
    /// Nothing below is needed by any version of the slot.
    #[must_use]
    pub fn first(&self) -> Position {
        self.entries.iter().map(|entry| entry.first).min().unwrap_or(self.end)
    }

    #[must_use]
    pub fn encode(&self) -> Vec<u64> {
        assert!(self.entries.len() <= ENTRIES_MAX, "a slot has room for all that is retained");
        let mut words = vec![0; SLOT_WORDS];
        words[0] = SLOT_MAGIC;
        let Cursor { floor, from: Stop { is_code, key, slot }, walked_words, live_words } = self.cursor;
        let head = [
            self.entries.len() as u64,
            self.sequence,
            self.end,
            self.checked.start,
            self.checked.end,
            u64::from(self.checked_crc),
            floor,
            u64::from(is_code),
            walked_words as u64,
            live_words as u64,
        ];
        words[2..12].copy_from_slice(&head);
        words[12..16].copy_from_slice(&key);
        words[16..20].copy_from_slice(&slot);
        for (entry, place) in self.entries.iter().zip(words[HEAD_WORDS..].chunks_exact_mut(ENTRY_WORDS)) {
            place[..5].copy_from_slice(&[entry.number, entry.sequence, entry.accounts, entry.codes, entry.first]);
            place[5..9].copy_from_slice(&key_words(&entry.root));
            place[9..13].copy_from_slice(&key_words(&entry.codes_root));
        }
        words[1] = u64::from(crc32c::crc32c(bytes_of(&words[2..])));
        words
    }

    /// The slot in `words`; `None` when it was not written as a whole.
    #[must_use]
    pub fn decode(words: &[u64]) -> Option<Self> {
        let words = words.get(..SLOT_WORDS)?;
        if words[0] != SLOT_MAGIC || words[1] != u64::from(crc32c::crc32c(bytes_of(&words[2..]))) {
            return None;
        }
        let four = |at: usize| [words[at], words[at + 1], words[at + 2], words[at + 3]];
        let from = Stop { is_code: words[9] != 0, key: four(12), slot: four(16) };
        let cursor = Cursor { floor: words[8], from, walked_words: words[10] as usize, live_words: words[11] as usize };
        let entry = |at: usize| Entry {
            number: words[at],
            sequence: words[at + 1],
            accounts: words[at + 2],
            codes: words[at + 3],
            first: words[at + 4],
            root: key_bytes(&four(at + 5)),
            codes_root: key_bytes(&four(at + 9)),
        };
        let count = usize::try_from(words[2]).ok().filter(|count| *count <= ENTRIES_MAX)?;
        Some(Self {
            sequence: words[3],
            end: words[4],
            checked: words[5]..words[6],
            checked_crc: words[7] as u32,
            cursor,
            entries: (0..count).map(|index| entry(HEAD_WORDS + index * ENTRY_WORDS)).collect(),
        })
    }
}

/// Byte offset of slot 0 or 1.
#[must_use]
pub fn slot_offset(slot: usize) -> u64 {
    BLOCK_BYTES * (1 + SLOT_BLOCKS * slot) as u64
}

#[must_use]
pub fn superblock(segment_bytes: u64) -> Vec<u64> {
    let mut words = vec![0; BLOCK_WORDS];
    words[0] = SUPERBLOCK_MAGIC;
    words[2] = segment_bytes;
    words[1] = u64::from(crc32c::crc32c(bytes_of(&words[2..])));
    words
}

/// The length of a segment; `None` when it is no superblock of this version.
#[must_use]
pub fn read_superblock(words: &[u64]) -> Option<u64> {
    let words = words.get(..BLOCK_WORDS)?;
    let is_sound = words[0] == SUPERBLOCK_MAGIC && words[1] == u64::from(crc32c::crc32c(bytes_of(&words[2..])));
    is_sound.then(|| words[2])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_read_as_written_and_every_flipped_bit_is_found() {
        let entry = |number: u64| Entry {
            number,
            sequence: number * 3,
            root: B256::repeat_byte(number as u8),
            codes_root: B256::repeat_byte(0x77),
            accounts: 9_000 + number,
            codes: 8_000,
            first: 512,
        };
        let from = Stop { is_code: true, key: [1, 2, 3, 4], slot: [5, 6, 7, 8] };
        let slot = Slot {
            sequence: 7,
            end: 10_000,
            checked: 9_216..10_000,
            checked_crc: 0xdead_beef,
            cursor: Cursor { floor: 4_096, from, walked_words: 11, live_words: 12 },
            entries: (0..ENTRIES_MAX as u64).map(entry).collect(),
        };
        let mut words = slot.encode();
        assert_eq!(Slot::decode(&words), Some(slot));
        for bit in (0..SLOT_WORDS * 64).step_by(13) {
            words[bit / 64] ^= 1 << (bit % 64);
            assert_eq!(Slot::decode(&words), None, "bit {bit}");
            words[bit / 64] ^= 1 << (bit % 64);
        }
        assert_eq!(read_superblock(&superblock(1 << 26)), Some(1 << 26));
        assert_eq!(read_superblock(&words), None);
    }
}
