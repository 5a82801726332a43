#![allow(unsafe_code, reason = "AVX-512 intrinsics, which only a processor that has them may run")]
//! The vector of AVX-512 with IFMA, and the only way to run code on it.
//!
//! Invariants, on which every `unsafe` block here rests:
//! * [`Avx512`] is made by [`Avx512::detect`] alone, so whoever holds one runs on a processor that has [`FEATURES`].
//! * [`Vector`] is private to this file and is handed only to [`Stage::run`], by [`run_with_features`], which takes an [`Avx512`].
//!   So its methods run on such a processor.
//! * Memory is reached through references to arrays of exactly one vector's 64 bytes, by instructions that ask for no alignment.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm_cvtsi32_si128, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_add_epi64, _mm512_and_si512,
    _mm512_castsi256_si512, _mm512_castsi512_si256, _mm512_cmplt_epi64_mask, _mm512_extracti64x4_epi64,
    _mm512_inserti64x4, _mm512_loadu_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_blend_epi64,
    _mm512_mask_sub_epi64, _mm512_or_si512, _mm512_permutex_epi64, _mm512_permutex2var_epi64, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_sll_epi64, _mm512_slli_epi64, _mm512_srai_epi64,
    _mm512_srl_epi64, _mm512_srli_epi64, _mm512_storeu_si512, _mm512_sub_epi64, _mm512_testn_epi64_mask,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};

use super::lanes::{Engine, LANES, Lanes, Stage};

/// Proof that this processor has AVX-512F, IFMA and VBMI2.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The standard library keeps the answer of the first call.
    #[inline]
    pub fn detect() -> Option<Self> {
        let all = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512ifma")
            && std::arch::is_x86_feature_detected!("avx512vbmi2");
        all.then_some(Self(()))
    }
}

impl Engine for Avx512 {
    #[inline]
    fn run(self, stage: impl Stage) {
        // SAFETY: `self` proves that the processor has the features.
        unsafe { run_with_features(stage) }
    }
}

/// The stage and all it calls are inlined here, and so compiled for these features.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma,avx512vbmi2")]
fn run_with_features<S: Stage>(stage: S) {
    stage.run::<Vector>();
}

#[derive(Clone, Copy)]
struct Vector(__m512i);

// Rust refuses `#[inline(always)]` beside `#[target_feature]`; a plain `#[inline]` leaves calls in the multiplication. These
// methods have no feature of their own and take that of `run_with_features`, into which they are inlined.
impl Lanes for Vector {
    type Mask = __mmask8;

    #[inline(always)]
    fn splat(word: u64) -> Self {
        // SAFETY: the processor has AVX-512F, see the invariants above.
        Self(unsafe { _mm512_set1_epi64(word.cast_signed()) })
    }

    #[inline(always)]
    fn load(words: &[u64; LANES]) -> Self {
        // SAFETY: 64 readable bytes; the processor has AVX-512F.
        Self(unsafe { _mm512_loadu_si512(words.as_ptr().cast()) })
    }

    #[inline(always)]
    fn load_within(words: &[u64; LANES], _max: u64) -> Self {
        Self::load(words)
    }

    #[inline(always)]
    fn store(self, words: &mut [u64; LANES]) {
        // SAFETY: 64 writable bytes; the processor has AVX-512F.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_add_epi64(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_sub_epi64(self.0, other.0) })
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_or_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn low<const BITS: u32>(self) -> Self {
        let mask = Self::splat((1 << BITS) - 1);
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_and_si512(self.0, mask.0) })
    }

    #[inline(always)]
    fn shl<const BITS: u32>(self) -> Self {
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_slli_epi64::<BITS>(self.0) })
    }

    #[inline(always)]
    fn shl_packed<const BITS: u32>(self) -> Self {
        self.shl::<BITS>()
    }

    #[inline(always)]
    fn shr<const BITS: u32>(self) -> Self {
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_srli_epi64::<BITS>(self.0) })
    }

    #[inline(always)]
    fn shr_packed<const BITS: u32>(self) -> Self {
        self.shr::<BITS>()
    }

    #[inline(always)]
    fn shr_packed_by(self, bits: u32) -> Self {
        // SAFETY: the processor has SSE2, as every x86-64 has.
        let count = unsafe { _mm_cvtsi32_si128(bits.cast_signed()) };
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_srl_epi64(self.0, count) })
    }

    #[inline(always)]
    fn shl_packed_by(self, bits: u32) -> Self {
        // SAFETY: the processor has SSE2, as every x86-64 has.
        let count = unsafe { _mm_cvtsi32_si128(bits.cast_signed()) };
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_sll_epi64(self.0, count) })
    }

    #[inline(always)]
    fn sar<const BITS: u32>(self) -> Self {
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_srai_epi64::<BITS>(self.0) })
    }

    #[inline(always)]
    fn within(self, _max: u64) -> Self {
        self
    }

    #[inline(always)]
    fn madd_lo(self, a: Self, b: Self) -> Self {
        // SAFETY: the processor has AVX-512 IFMA.
        Self(unsafe { _mm512_madd52lo_epu64(self.0, a.0, b.0) })
    }

    #[inline(always)]
    fn madd_hi(self, a: Self, b: Self) -> Self {
        // SAFETY: the processor has AVX-512 IFMA.
        Self(unsafe { _mm512_madd52hi_epu64(self.0, a.0, b.0) })
    }

    #[inline(always)]
    fn digit(self) -> Self {
        self
    }

    #[inline(always)]
    fn mask(bits: u8) -> __mmask8 {
        bits
    }

    #[inline(always)]
    fn mask_bits(mask: __mmask8) -> u8 {
        mask
    }

    #[inline(always)]
    fn is_zero(self) -> __mmask8 {
        // SAFETY: the processor has AVX-512F.
        unsafe { _mm512_testn_epi64_mask(self.0, self.0) }
    }

    #[inline(always)]
    fn is_negative(self) -> __mmask8 {
        // SAFETY: the processor has AVX-512F.
        let zero = unsafe { _mm512_setzero_si512() };
        // SAFETY: the processor has AVX-512F.
        unsafe { _mm512_cmplt_epi64_mask(self.0, zero) }
    }

    #[inline(always)]
    fn select(self, other: Self, mask: __mmask8) -> Self {
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_mask_blend_epi64(mask, other.0, self.0) })
    }

    #[inline(always)]
    fn negate_where(self, mask: __mmask8) -> Self {
        // SAFETY: the processor has AVX-512F.
        let zero = unsafe { _mm512_setzero_si512() };
        // SAFETY: the processor has AVX-512F.
        Self(unsafe { _mm512_mask_sub_epi64(self.0, mask, zero, self.0) })
    }

    #[inline(always)]
    fn load_columns(l: [&[u64; 4]; LANES]) -> [Self; 4] {
        let pairs = [load_two(l[0], l[2]), load_two(l[1], l[3]), load_two(l[4], l[6]), load_two(l[5], l[7])];
        let even = [unpack_low(pairs[0], pairs[1]), unpack_low(pairs[2], pairs[3])];
        let odd = [unpack_high(pairs[0], pairs[1]), unpack_high(pairs[2], pairs[3])];
        [
            quarters::<0x88>(even[0], even[1]),
            quarters::<0x88>(odd[0], odd[1]),
            quarters::<0xdd>(even[0], even[1]),
            quarters::<0xdd>(odd[0], odd[1]),
        ]
    }

    #[inline(always)]
    fn store_columns(c: [Self; 4], arrays: [&mut [u64; 4]; LANES]) {
        let [l0, l1, l2, l3, l4, l5, l6, l7] = arrays;
        // Words 0 and 1, or 2 and 3, of lanes 0 2 4 6, or 1 3 5 7.
        let (low_even, high_even) = (unpack_low(c[0], c[1]), unpack_low(c[2], c[3]));
        let (low_odd, high_odd) = (unpack_high(c[0], c[1]), unpack_high(c[2], c[3]));
        store_two(pick::<0>(low_even, high_even), l0, l2);
        store_two(pick::<0>(low_odd, high_odd), l1, l3);
        store_two(pick::<1>(low_even, high_even), l4, l6);
        store_two(pick::<1>(low_odd, high_odd), l5, l7);
    }

    #[inline(always)]
    fn swap<const DISTANCE: usize>(self) -> Self {
        Self(match DISTANCE {
            // SAFETY: the processor has AVX-512F.
            1 => unsafe { _mm512_permutex_epi64::<0b10_11_00_01>(self.0) },
            // SAFETY: the processor has AVX-512F.
            2 => unsafe { _mm512_permutex_epi64::<0b01_00_11_10>(self.0) },
            // SAFETY: the processor has AVX-512F.
            4 => unsafe { _mm512_shuffle_i64x2::<0b01_00_11_10>(self.0, self.0) },
            _ => unreachable!("lanes are swapped over 1, 2 or 4"),
        })
    }
}

#[inline(always)]
fn unpack_low(a: Vector, b: Vector) -> Vector {
    // SAFETY: the processor has AVX-512F.
    Vector(unsafe { _mm512_unpacklo_epi64(a.0, b.0) })
}

#[inline(always)]
fn unpack_high(a: Vector, b: Vector) -> Vector {
    // SAFETY: the processor has AVX-512F.
    Vector(unsafe { _mm512_unpackhi_epi64(a.0, b.0) })
}

/// Quarters 0 and 2 (0x88), or 1 and 3 (0xdd), of both inputs.
#[inline(always)]
fn quarters<const WHICH: i32>(a: Vector, b: Vector) -> Vector {
    // SAFETY: the processor has AVX-512F.
    Vector(unsafe { _mm512_shuffle_i64x2::<WHICH>(a.0, b.0) })
}

/// Quarters 2·`HALF` of `a` and `b`, then quarters 2·`HALF` + 1.
#[inline(always)]
fn pick<const HALF: usize>(a: Vector, b: Vector) -> Vector {
    let base = 4 * HALF as u64;
    let order = Vector::load(&[base, base + 1, 8 + base, 9 + base, base + 2, base + 3, 10 + base, 11 + base]);
    // SAFETY: the processor has AVX-512F.
    Vector(unsafe { _mm512_permutex2var_epi64(a.0, order.0, b.0) })
}

/// `low` in the lower half, `high` in the upper one.
#[inline(always)]
fn load_two(low: &[u64; 4], high: &[u64; 4]) -> Vector {
    // SAFETY: 32 readable bytes; the processor has AVX, of which AVX-512F is an extension.
    let low = unsafe { _mm256_loadu_si256(low.as_ptr().cast()) };
    // SAFETY: as above.
    let high = unsafe { _mm256_loadu_si256(high.as_ptr().cast()) };
    // SAFETY: the processor has AVX-512F.
    let wide = unsafe { _mm512_castsi256_si512(low) };
    // SAFETY: the processor has AVX-512F.
    Vector(unsafe { _mm512_inserti64x4::<1>(wide, high) })
}

#[inline(always)]
fn store_two(vector: Vector, low: &mut [u64; 4], high: &mut [u64; 4]) {
    // SAFETY: the processor has AVX-512F.
    let low_half = unsafe { _mm512_castsi512_si256(vector.0) };
    // SAFETY: the processor has AVX-512F.
    let high_half = unsafe { _mm512_extracti64x4_epi64::<1>(vector.0) };
    // SAFETY: 32 writable bytes; the processor has AVX.
    unsafe { _mm256_storeu_si256(low.as_mut_ptr().cast(), low_half) };
    // SAFETY: as above.
    unsafe { _mm256_storeu_si256(high.as_mut_ptr().cast(), high_half) };
}
