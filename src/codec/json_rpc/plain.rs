//! Where a plain run of JSON string bytes ends, 16 bytes at a time (a word at a time where SSE2 is missing).

#![allow(unsafe_code, reason = "SIMD leaf: one call of a function that needs SSE2")]

/// First index at or after `at` that holds a quote, a backslash, a control character or a byte above ASCII; else the length.
#[inline]
pub(super) fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    // Long runs are hex: four chunks for one branch.
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk::<BLOCK_BYTES>) {
        if block_is_special(block) {
            break;
        }
        at += BLOCK_BYTES;
    }
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<CHUNK_BYTES>) {
        // SAFETY: the one feature that `special_in_chunk` needs, SSE2, is part of every x86-64 processor.
        #[cfg(target_arch = "x86_64")]
        let special = unsafe { special_in_chunk(chunk) };
        #[cfg(not(target_arch = "x86_64"))]
        let special = special_in_chunk(chunk);
        if special != 0 {
            return at + special.trailing_zeros() as usize / SPECIAL_BITS_PER_BYTE;
        }
        at += CHUNK_BYTES;
    }
    plain_end_scalar(bytes, at)
}

/// The same, a byte at a time: the end of the text, and the oracle of the fast one.
fn plain_end_scalar(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    at + rest.iter().position(|&byte| matches!(byte, b'"' | b'\\' | 0..0x20 | 0x80..)).unwrap_or(rest.len())
}

const BLOCK_BYTES: usize = 4 * CHUNK_BYTES;

/// Whether a plain run ends within the block.
#[inline]
fn block_is_special(block: &[u8; BLOCK_BYTES]) -> bool {
    let (chunks, _) = block.as_chunks::<CHUNK_BYTES>();
    // SAFETY: as in `plain_end`.
    #[cfg(target_arch = "x86_64")]
    let special = chunks.iter().fold(0, |special, chunk| special | unsafe { special_in_chunk(chunk) });
    #[cfg(not(target_arch = "x86_64"))]
    let special = chunks.iter().fold(0, |special, chunk| special | special_in_chunk(chunk));
    special != 0
}

#[cfg(target_arch = "x86_64")]
const CHUNK_BYTES: usize = 16;
#[cfg(target_arch = "x86_64")]
const SPECIAL_BITS_PER_BYTE: usize = 1;

/// One bit per byte that ends a plain run, the first byte lowest.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn special_in_chunk(chunk: &[u8; 16]) -> u32 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
    };
    let word = u128::from_le_bytes(*chunk);
    // Two halves of a word are one load after optimisation, without a pointer.
    let text = _mm_set_epi64x((word >> 64) as i64, word as i64);
    let quote = _mm_cmpeq_epi8(text, _mm_set1_epi8(b'"' as i8));
    let backslash = _mm_cmpeq_epi8(text, _mm_set1_epi8(b'\\' as i8));
    let control = _mm_cmpeq_epi8(_mm_min_epu8(text, _mm_set1_epi8(0x1f)), text);
    // The mask takes the top bit of each byte, which is what "above ASCII" means: the text itself is the fourth term.
    let special = _mm_or_si128(_mm_or_si128(quote, backslash), _mm_or_si128(control, text));
    _mm_movemask_epi8(special) as u32
}

#[cfg(not(target_arch = "x86_64"))]
const CHUNK_BYTES: usize = 8;
#[cfg(not(target_arch = "x86_64"))]
const SPECIAL_BITS_PER_BYTE: usize = 8;

/// The top bit of each byte that ends a plain run, the first byte lowest. Bytes after the first found may be wrong.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn special_in_chunk(chunk: &[u8; 8]) -> u64 {
    swar_special(chunk)
}

/// Word-at-a-time form of `special_in_chunk`.
///
/// A byte is below `n` when subtracting `n` borrows; a borrow can only spoil bytes above the first one found.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn swar_special(chunk: &[u8; 8]) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    let text = u64::from_le_bytes(*chunk);
    let is_zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = is_zero(text ^ (ONES * u64::from(b'"')));
    let backslash = is_zero(text ^ (ONES * u64::from(b'\\')));
    let control = text.wrapping_sub(ONES * 0x20) & !text;
    (quote | backslash | control | text) & TOPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn plain_end_equals_the_scalar_one(
            mut bytes in prop::collection::vec(prop_oneof![8 => 0x20_u8..0x7f, 1 => any::<u8>()], 0..80),
            at in 0_usize..80,
            long in 0_usize..200,
        ) {
            bytes.splice(0..0, vec![b'a'; long]);
            let at = at.min(bytes.len());
            prop_assert_eq!(plain_end(&bytes, at), plain_end_scalar(&bytes, at));
        }

        #[test]
        fn the_word_form_finds_the_same_first_byte(chunk: [u8; 8]) {
            let first = swar_special(&chunk).trailing_zeros() as usize / 8;
            prop_assert_eq!(first, plain_end_scalar(&chunk, 0));
        }
    }
}
