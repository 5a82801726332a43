#![allow(unsafe_code, reason = "vector loads and stores, and the call into code that needs AVX2")]
//! Four sponges side by side in AVX2 registers.

use std::arch::x86_64::{
    __m256i, _mm256_and_si256, _mm256_andnot_si256, _mm256_loadu_si256, _mm256_or_si256, _mm256_permute2x128_si256,
    _mm256_set_epi64x, _mm256_set1_epi64x, _mm256_slli_epi64, _mm256_srli_epi64, _mm256_storeu_si256,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use super::lanes::{Block, States};

/// See [`super::lanes::Absorb`]. The caller has checked that the processor has AVX2.
pub fn absorb(states: &mut States<4>, blocks: &[&Block; 4], keep: u8) {
    debug_assert!(super::Backend::Avx2.is_available());
    // SAFETY: `keccak256_each_with`, the only user of this function, asked `Backend::is_available` first.
    unsafe { absorb_vectors(states, blocks, keep) }
}

macro_rules! rotate {
    ($vector:expr, $count:literal) => {{
        let vector = $vector;
        _mm256_or_si256(_mm256_slli_epi64::<$count>(vector), _mm256_srli_epi64::<{ 64 - $count }>(vector))
    }};
}

#[target_feature(enable = "avx2")]
fn absorb_vectors(states: &mut States<4>, blocks: &[&Block; 4], keep: u8) {
    let bit = |lane: u32| if keep >> lane & 1 == 1 { -1 } else { 0 };
    let mask = _mm256_set_epi64x(bit(3), bit(2), bit(1), bit(0));
    let mut a: [__m256i; 25] = [broadcast(0); 25];
    for (vector, row) in a.iter_mut().zip(&states.words) {
        *vector = _mm256_and_si256(mask, load(row));
    }
    for quarter in 0..4 {
        let rows = transpose([
            load_words(blocks[0], quarter),
            load_words(blocks[1], quarter),
            load_words(blocks[2], quarter),
            load_words(blocks[3], quarter),
        ]);
        for (word, row) in rows.into_iter().enumerate() {
            a[quarter * 4 + word] = xor(a[quarter * 4 + word], row);
        }
    }
    let w = |lane: usize| last_word(blocks[lane]);
    a[16] = xor(a[16], _mm256_set_epi64x(w(3), w(2), w(1), w(0)));
    permute!(a);
    for (vector, row) in a.iter().zip(&mut states.words) {
        // SAFETY: `row` is 32 writable bytes; the instruction asks for no alignment.
        unsafe { _mm256_storeu_si256(row.as_mut_ptr().cast(), *vector) };
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(row: &[u64; 4]) -> __m256i {
    // SAFETY: `row` is 32 readable bytes; the instruction asks for no alignment.
    unsafe { _mm256_loadu_si256(row.as_ptr().cast()) }
}

/// Words `4 × quarter` to `4 × quarter + 3` of a block.
#[inline]
#[target_feature(enable = "avx2")]
fn load_words(block: &Block, quarter: usize) -> __m256i {
    let bytes = &block[quarter * 32..quarter * 32 + 32];
    // SAFETY: `bytes` is 32 readable bytes; the instruction asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
fn last_word(block: &Block) -> i64 {
    let mut word = [0; 8];
    word.copy_from_slice(&block[128..]);
    i64::from_le_bytes(word)
}

/// Lane-major to word-major.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(r: [__m256i; 4]) -> [__m256i; 4] {
    let even = [_mm256_unpacklo_epi64(r[0], r[1]), _mm256_unpacklo_epi64(r[2], r[3])];
    let odd = [_mm256_unpackhi_epi64(r[0], r[1]), _mm256_unpackhi_epi64(r[2], r[3])];
    [
        _mm256_permute2x128_si256::<0x20>(even[0], even[1]),
        _mm256_permute2x128_si256::<0x20>(odd[0], odd[1]),
        _mm256_permute2x128_si256::<0x31>(even[0], even[1]),
        _mm256_permute2x128_si256::<0x31>(odd[0], odd[1]),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(word: u64) -> __m256i {
    _mm256_set1_epi64x(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2")]
fn xor(a: __m256i, b: __m256i) -> __m256i {
    _mm256_xor_si256(a, b)
}

/// The order lets the compiler compute `b ^ c` once for the five words of a column.
#[inline]
#[target_feature(enable = "avx2")]
fn xor3(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
    _mm256_xor_si256(a, _mm256_xor_si256(b, c))
}

#[inline]
#[target_feature(enable = "avx2")]
fn chi(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
    _mm256_xor_si256(a, _mm256_andnot_si256(b, c))
}
