#![allow(unsafe_code, reason = "vector loads and stores, and the call into code that needs AVX-512F")]
//! Eight sponges side by side in AVX-512F registers.

use std::arch::x86_64::{
    __m512i, _mm512_loadu_si512, _mm512_maskz_mov_epi64, _mm512_rol_epi64, _mm512_set_epi64, _mm512_set1_epi64,
    _mm512_shuffle_i64x2, _mm512_storeu_si512, _mm512_ternarylogic_epi64, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
    _mm512_xor_si512,
};

use super::lanes::{Block, States};

/// See [`super::lanes::Absorb`]. The caller has checked that the processor has AVX-512F.
pub fn absorb(states: &mut States<8>, blocks: &[&Block; 8], keep: u8) {
    debug_assert!(super::Backend::Avx512.is_available());
    // SAFETY: `keccak256_each_with`, the only user of this function, asked `Backend::is_available` first.
    unsafe { absorb_vectors(states, blocks, keep) }
}

macro_rules! rotate {
    ($vector:expr, $count:literal) => {
        _mm512_rol_epi64::<$count>($vector)
    };
}

#[target_feature(enable = "avx512f")]
fn absorb_vectors(states: &mut States<8>, blocks: &[&Block; 8], keep: u8) {
    let mut a: [__m512i; 25] = [broadcast(0); 25];
    for (vector, row) in a.iter_mut().zip(&states.words) {
        *vector = _mm512_maskz_mov_epi64(keep, load(row));
    }
    for half in 0..2 {
        let rows = transpose([
            load_words(blocks[0], half),
            load_words(blocks[1], half),
            load_words(blocks[2], half),
            load_words(blocks[3], half),
            load_words(blocks[4], half),
            load_words(blocks[5], half),
            load_words(blocks[6], half),
            load_words(blocks[7], half),
        ]);
        for (word, row) in rows.into_iter().enumerate() {
            a[half * 8 + word] = xor(a[half * 8 + word], row);
        }
    }
    let w = |lane: usize| last_word(blocks[lane]);
    a[16] = xor(a[16], _mm512_set_epi64(w(7), w(6), w(5), w(4), w(3), w(2), w(1), w(0)));
    permute!(a);
    for (vector, row) in a.iter().zip(&mut states.words) {
        // SAFETY: `row` is 64 writable bytes; the instruction asks for no alignment.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), *vector) };
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(row: &[u64; 8]) -> __m512i {
    // SAFETY: `row` is 64 readable bytes; the instruction asks for no alignment.
    unsafe { _mm512_loadu_si512(row.as_ptr().cast()) }
}

/// Words 0 to 7 (`half` = 0) or 8 to 15 of a block.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_words(block: &Block, half: usize) -> __m512i {
    let bytes = &block[half * 64..half * 64 + 64];
    // SAFETY: `bytes` is 64 readable bytes; the instruction asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
fn last_word(block: &Block) -> i64 {
    let mut word = [0; 8];
    word.copy_from_slice(&block[128..]);
    i64::from_le_bytes(word)
}

/// Lane-major to word-major.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(r: [__m512i; 8]) -> [__m512i; 8] {
    let even: [__m512i; 4] = [
        _mm512_unpacklo_epi64(r[0], r[1]),
        _mm512_unpacklo_epi64(r[2], r[3]),
        _mm512_unpacklo_epi64(r[4], r[5]),
        _mm512_unpacklo_epi64(r[6], r[7]),
    ];
    let odd: [__m512i; 4] = [
        _mm512_unpackhi_epi64(r[0], r[1]),
        _mm512_unpackhi_epi64(r[2], r[3]),
        _mm512_unpackhi_epi64(r[4], r[5]),
        _mm512_unpackhi_epi64(r[6], r[7]),
    ];
    let e = quarters(even);
    let o = quarters(odd);
    [e[0], o[0], e[1], o[1], e[2], o[2], e[3], o[3]]
}

/// Vector `q` of the result is made of the 128-bit quarters `q` of the four inputs.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters(t: [__m512i; 4]) -> [__m512i; 4] {
    let low = [_mm512_shuffle_i64x2::<0x88>(t[0], t[1]), _mm512_shuffle_i64x2::<0x88>(t[2], t[3])];
    let high = [_mm512_shuffle_i64x2::<0xdd>(t[0], t[1]), _mm512_shuffle_i64x2::<0xdd>(t[2], t[3])];
    [
        _mm512_shuffle_i64x2::<0x88>(low[0], low[1]),
        _mm512_shuffle_i64x2::<0x88>(high[0], high[1]),
        _mm512_shuffle_i64x2::<0xdd>(low[0], low[1]),
        _mm512_shuffle_i64x2::<0xdd>(high[0], high[1]),
    ]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(word: u64) -> __m512i {
    _mm512_set1_epi64(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(a: __m512i, b: __m512i) -> __m512i {
    _mm512_xor_si512(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x96>(a, b, c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn chi(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0xd2>(a, b, c)
}
