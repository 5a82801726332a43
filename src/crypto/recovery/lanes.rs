//! Eight 64-bit words side by side: what the vector code asks of a processor, and of the models that stand in for one.
//!
//! All arithmetic of this folder is written once over [`Lanes`]. AVX-512 runs it in production (`avx512.rs`); in tests the same
//! code runs on words that assert every bound (`model.rs`) and on intervals that prove the bounds for all inputs.

/// Signatures that one vector holds.
pub const LANES: usize = 8;

/// A vector of eight words. Signed words are in two's complement.
///
/// Every method is meant to vanish into its caller, hence `#[inline(always)]` on all code that is generic over it: a call in the
/// middle of a multiplication costs a third of its speed.
pub trait Lanes: Copy {
    /// One bit a lane.
    type Mask: Copy;

    /// The same word in every lane.
    fn splat(word: u64) -> Self;

    fn load(words: &[u64; LANES]) -> Self;

    /// [`Lanes::load`] of words that were stated to be [`Lanes::within`] `max` when they were stored.
    fn load_within(words: &[u64; LANES], max: u64) -> Self;

    fn store(self, words: &mut [u64; LANES]);

    /// Must not overflow 63 bits and a sign.
    fn add(self, other: Self) -> Self;

    /// Must not overflow 63 bits and a sign.
    fn sub(self, other: Self) -> Self;

    fn or(self, other: Self) -> Self;

    /// The lowest `BITS` bits; of a negative word those of its two's complement, which is its remainder modulo 2^`BITS`.
    fn low<const BITS: u32>(self) -> Self;

    /// Must not overflow 63 bits and a sign.
    fn shl<const BITS: u32>(self) -> Self;

    /// Bits shifted out on the left are dropped: for packed words, not for numbers.
    fn shl_packed<const BITS: u32>(self) -> Self;

    /// Of a word that is not negative.
    fn shr<const BITS: u32>(self) -> Self;

    /// Of a packed word, of which all 64 bits count.
    fn shr_packed<const BITS: u32>(self) -> Self;

    /// [`Lanes::shr_packed`] by a number of bits below 64.
    fn shr_packed_by(self, bits: u32) -> Self;

    /// [`Lanes::shl_packed`] by a number of bits below 64.
    fn shl_packed_by(self, bits: u32) -> Self;

    /// Rounds towards minus infinity.
    fn sar<const BITS: u32>(self) -> Self;

    /// States that 0 ≤ word ≤ `max` in every lane. The models check it; a processor does nothing.
    fn within(self, max: u64) -> Self;

    /// `self` + the lower 52 bits of `a` · `b`. Both must be below 2^52: the processor silently drops what is above.
    fn madd_lo(self, a: Self, b: Self) -> Self;

    /// `self` + the upper 52 bits of `a` · `b`. Both must be below 2^52: the processor silently drops what is above.
    fn madd_hi(self, a: Self, b: Self) -> Self;

    /// The lower 52 bits, for an operand of `madd_lo` or `madd_hi` and nothing else: the processor leaves the word as it is.
    fn digit(self) -> Self;

    /// The lanes of which the bit is set, lane 0 lowest.
    fn mask(bits: u8) -> Self::Mask;

    fn mask_bits(mask: Self::Mask) -> u8;

    fn is_zero(self) -> Self::Mask;

    fn is_negative(self) -> Self::Mask;

    /// The lanes of `self` where the mask is set, those of `other` elsewhere.
    fn select(self, other: Self, mask: Self::Mask) -> Self;

    /// Changes the sign where the mask is set.
    fn negate_where(self, mask: Self::Mask) -> Self;

    /// Vector `i` holds word `i` of every array, that of array `l` in lane `l`.
    fn load_columns(arrays: [&[u64; 4]; LANES]) -> [Self; 4];

    /// What [`Lanes::load_columns`] loads.
    fn store_columns(columns: [Self; 4], arrays: [&mut [u64; 4]; LANES]);

    /// Lane `l` becomes lane `l` ^ `DISTANCE`, which is 1, 2 or 4.
    fn swap<const DISTANCE: usize>(self) -> Self;
}

/// A piece of work that is generic over the vector.
pub trait Stage {
    fn run<V: Lanes>(self);
}

/// What runs stages on one kind of vector.
pub trait Engine: Copy {
    fn run(self, stage: impl Stage);
}
