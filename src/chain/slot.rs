//! Slots of fixed size, one a block, in the files `offsets` and `blooms`. Both are derived from `headers` and overwritten after a rollback.
//!
//! ```text
//! offsets, 16 bytes a block                    blooms, 264 bytes a block
//! 0   8   offset of the head record            0    256  logs bloom of the header
//! 8   4   crc32c of number and offset          256  4    crc32c of number and bloom
//! 12  4   zero                                 260  4    zero
//! ```

use crate::primitives::Bloom;

pub(super) const OFFSET_SLOT_BYTES: u64 = 16;
pub(super) const BLOOM_SLOT_BYTES: u64 = 264;
const BLOOM_SLOT_WORDS: usize = (BLOOM_SLOT_BYTES / 8) as usize;

pub(super) fn encode_offset(number: u64, offset: u64) -> [u8; OFFSET_SLOT_BYTES as usize] {
    let mut out = [0; OFFSET_SLOT_BYTES as usize];
    out[..8].copy_from_slice(&offset.to_le_bytes());
    out[8..12].copy_from_slice(&offset_crc(number, offset).to_le_bytes());
    out
}

/// The offset that a slot holds; `None` when the checksum does not hold.
pub(super) fn offset_from_words(number: u64, words: [u64; 2]) -> Option<u64> {
    let [offset, check] = words.map(u64::from_le);
    (check == u64::from(offset_crc(number, offset))).then_some(offset)
}

pub(super) fn encode_bloom(number: u64, bloom: &Bloom) -> [u8; BLOOM_SLOT_BYTES as usize] {
    let mut out = [0; BLOOM_SLOT_BYTES as usize];
    out[..256].copy_from_slice(bloom.as_slice());
    out[256..260].copy_from_slice(&bloom_crc(number, bloom.as_slice()).to_le_bytes());
    out
}

/// The bloom that a slot holds; `None` when the checksum does not hold.
pub(super) fn bloom_from_words(number: u64, words: &[u64; BLOOM_SLOT_WORDS]) -> Option<Bloom> {
    let mut bloom = Bloom::ZERO;
    for (bytes, word) in bloom.as_mut_slice().chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes()); // as they are in memory
    }
    let check = u64::from_le(words[BLOOM_SLOT_WORDS - 1]);
    (check == u64::from(bloom_crc(number, bloom.as_slice()))).then_some(bloom)
}

fn offset_crc(number: u64, offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), &offset.to_le_bytes())
}

fn bloom_crc(number: u64, bloom: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), bloom)
}
