//! Stand-ins for a processor's vectors, which run the same code and check what the processor would silently get wrong.
//!
//! | engine | a lane is | what it shows |
//! |---|---|---|
//! | [`Words`] | a number | that no bound is broken for this input, and what the result is |
//! | [`Intervals`] | all numbers between two | that no bound is broken for any input |
//!
//! Their methods are never inlined: all that is generic over the vector is, and would make functions that take minutes to compile.
//!
//! Checked: both factors of a multiplication are below 2^52, sums and shifts stay within 63 bits and a sign, what is declared not
//! negative is not, and what is declared to be within a bound is.

use super::lanes::{Engine, LANES, Lanes, Stage};

const DIGIT_MAX: u64 = (1 << 52) - 1;

/// Runs on eight numbers at a time.
#[derive(Clone, Copy)]
pub struct Words;

impl Engine for Words {
    fn run(self, stage: impl Stage) {
        stage.run::<WordVector>();
    }
}

/// Runs on eight numbers at once, all of them unknown.
#[derive(Clone, Copy)]
pub struct Intervals;

impl Engine for Intervals {
    fn run(self, stage: impl Stage) {
        stage.run::<Interval>();
    }
}

/// Eight words, signed or packed as the code means them.
#[derive(Clone, Copy, Debug)]
pub struct WordVector([u64; LANES]);

impl WordVector {
    fn map(self, f: impl Fn(u64) -> u64) -> Self {
        Self(self.0.map(f))
    }

    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }

    fn madd(self, a: Self, b: Self, part: impl Fn(u128) -> u128) -> Self {
        Self(std::array::from_fn(|lane| {
            let (a, b) = (a.0[lane], b.0[lane]);
            assert!(a <= DIGIT_MAX, "a factor is {a:#x}, limit {DIGIT_MAX:#x}");
            assert!(b <= DIGIT_MAX, "a factor is {b:#x}, limit {DIGIT_MAX:#x}");
            let part = part(u128::from(a) * u128::from(b)) as i64; // Below 2^52.
            self.0[lane].cast_signed().checked_add(part).expect("a column overflows").cast_unsigned()
        }))
    }
}

fn not_negative(word: u64) -> u64 {
    assert!(word.cast_signed() >= 0, "{} is negative", word.cast_signed());
    word
}

impl Lanes for WordVector {
    type Mask = u8;

    #[inline(never)]
    fn splat(word: u64) -> Self {
        Self([word; LANES])
    }

    #[inline(never)]
    fn load(words: &[u64; LANES]) -> Self {
        Self(*words)
    }

    #[inline(never)]
    fn load_within(words: &[u64; LANES], max: u64) -> Self {
        Self(*words).within(max)
    }

    #[inline(never)]
    fn store(self, words: &mut [u64; LANES]) {
        *words = self.0;
    }

    #[inline(never)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a.cast_signed().checked_add(b.cast_signed()).expect("a sum overflows").cast_unsigned())
    }

    #[inline(never)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a.cast_signed().checked_sub(b.cast_signed()).expect("a sum overflows").cast_unsigned())
    }

    #[inline(never)]
    fn or(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    #[inline(never)]
    fn low<const BITS: u32>(self) -> Self {
        self.map(|word| word & ((1 << BITS) - 1))
    }

    #[inline(never)]
    fn shl<const BITS: u32>(self) -> Self {
        self.map(|word| {
            let shifted = word.cast_signed() << BITS;
            assert_eq!(shifted >> BITS, word.cast_signed(), "a shift by {BITS} overflows");
            shifted.cast_unsigned()
        })
    }

    #[inline(never)]
    fn shl_packed<const BITS: u32>(self) -> Self {
        self.map(|word| word << BITS)
    }

    #[inline(never)]
    fn shr<const BITS: u32>(self) -> Self {
        self.map(|word| not_negative(word) >> BITS)
    }

    #[inline(never)]
    fn shr_packed<const BITS: u32>(self) -> Self {
        self.map(|word| word >> BITS)
    }

    #[inline(never)]
    fn shr_packed_by(self, bits: u32) -> Self {
        self.map(|word| word >> bits)
    }

    #[inline(never)]
    fn shl_packed_by(self, bits: u32) -> Self {
        self.map(|word| word << bits)
    }

    #[inline(never)]
    fn sar<const BITS: u32>(self) -> Self {
        self.map(|word| (word.cast_signed() >> BITS).cast_unsigned())
    }

    #[inline(never)]
    fn within(self, max: u64) -> Self {
        self.map(|word| {
            assert!(word <= max, "{word:#x} is above {max:#x}");
            word
        })
    }

    #[inline(never)]
    fn madd_lo(self, a: Self, b: Self) -> Self {
        self.madd(a, b, |product| product & u128::from(DIGIT_MAX))
    }

    #[inline(never)]
    fn madd_hi(self, a: Self, b: Self) -> Self {
        self.madd(a, b, |product| product >> 52)
    }

    #[inline(never)]
    fn digit(self) -> Self {
        self.low::<52>()
    }

    #[inline(never)]
    fn mask(bits: u8) -> u8 {
        bits
    }

    #[inline(never)]
    fn mask_bits(mask: u8) -> u8 {
        mask
    }

    #[inline(never)]
    fn is_zero(self) -> u8 {
        (0..LANES).fold(0, |bits, lane| bits | u8::from(self.0[lane] == 0) << lane)
    }

    #[inline(never)]
    fn is_negative(self) -> u8 {
        (0..LANES).fold(0, |bits, lane| bits | u8::from(self.0[lane].cast_signed() < 0) << lane)
    }

    #[inline(never)]
    fn select(self, other: Self, mask: u8) -> Self {
        Self(std::array::from_fn(|lane| if mask & 1 << lane == 0 { other.0[lane] } else { self.0[lane] }))
    }

    #[inline(never)]
    fn negate_where(self, mask: u8) -> Self {
        self.map(|word| word.wrapping_neg()).select(self, mask)
    }

    #[inline(never)]
    fn load_columns(arrays: [&[u64; 4]; LANES]) -> [Self; 4] {
        std::array::from_fn(|word| Self(arrays.map(|array| array[word])))
    }

    #[inline(never)]
    fn store_columns(columns: [Self; 4], arrays: [&mut [u64; 4]; LANES]) {
        for (lane, array) in arrays.into_iter().enumerate() {
            *array = columns.map(|column| column.0[lane]);
        }
    }

    #[inline(never)]
    fn swap<const DISTANCE: usize>(self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane ^ DISTANCE]))
    }
}

/// All numbers from `min` to `max`: signed ones within 64 bits, packed words up to 2^64 − 1.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    pub min: i128,
    pub max: i128,
}

const ANY_WORD: Interval = Interval { min: 0, max: u64::MAX as i128 };

impl Interval {
    fn signed(min: i128, max: i128) -> Self {
        assert!(min >= i128::from(i64::MIN), "a sum overflows: {min:#x}");
        assert!(max <= i128::from(i64::MAX), "a sum overflows: {max:#x}");
        Self { min, max }
    }

    fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    fn factor(self) -> Self {
        assert!(self.min >= 0, "a factor can be negative: {:#x}", self.min);
        assert!(self.max <= i128::from(DIGIT_MAX), "a factor can be {:#x}, limit {DIGIT_MAX:#x}", self.max);
        self
    }

    fn low_bits(self, bits: u32) -> Self {
        let max = (1 << bits) - 1;
        if self.min >= 0 && self.max <= max { self } else { Self { min: 0, max } }
    }
}

/// What is not known of a number is not known of a mask either: both ways are taken.
impl Lanes for Interval {
    type Mask = ();

    #[inline(never)]
    fn splat(word: u64) -> Self {
        Self::signed(i128::from(word), i128::from(word))
    }

    #[inline(never)]
    fn load(_words: &[u64; LANES]) -> Self {
        ANY_WORD
    }

    /// Taken for granted, because whatever is stored was held against the same bound.
    #[inline(never)]
    fn load_within(_words: &[u64; LANES], max: u64) -> Self {
        Self { min: 0, max: i128::from(max) }
    }

    /// The largest number, which is the index that reaches furthest.
    #[inline(never)]
    fn store(self, words: &mut [u64; LANES]) {
        *words = [u64::try_from(self.max).expect("within a word"); LANES];
    }

    #[inline(never)]
    fn add(self, other: Self) -> Self {
        Self::signed(self.min + other.min, self.max + other.max)
    }

    #[inline(never)]
    fn sub(self, other: Self) -> Self {
        Self::signed(self.min - other.max, self.max - other.min)
    }

    #[inline(never)]
    fn or(self, _other: Self) -> Self {
        ANY_WORD
    }

    #[inline(never)]
    fn low<const BITS: u32>(self) -> Self {
        self.low_bits(BITS)
    }

    #[inline(never)]
    fn shl<const BITS: u32>(self) -> Self {
        Self::signed(self.min << BITS, self.max << BITS)
    }

    #[inline(never)]
    fn shl_packed<const BITS: u32>(self) -> Self {
        ANY_WORD
    }

    #[inline(never)]
    fn shr<const BITS: u32>(self) -> Self {
        assert!(self.min >= 0, "what is shifted can be negative: {:#x}", self.min);
        Self::signed(self.min >> BITS, self.max >> BITS)
    }

    #[inline(never)]
    fn shr_packed<const BITS: u32>(self) -> Self {
        assert!(self.min >= 0, "what is shifted can be negative: {:#x}", self.min);
        Self { min: self.min >> BITS, max: self.max >> BITS }
    }

    #[inline(never)]
    fn shr_packed_by(self, _bits: u32) -> Self {
        ANY_WORD
    }

    #[inline(never)]
    fn shl_packed_by(self, _bits: u32) -> Self {
        ANY_WORD
    }

    #[inline(never)]
    fn sar<const BITS: u32>(self) -> Self {
        Self::signed(self.min >> BITS, self.max >> BITS)
    }

    #[inline(never)]
    fn within(self, max: u64) -> Self {
        let max = i128::from(max);
        assert!(self.min >= 0, "can be negative: {:#x}", self.min);
        assert!(self.max <= max, "can be {:#x}, limit {max:#x}", self.max);
        self
    }

    #[inline(never)]
    fn madd_lo(self, a: Self, b: Self) -> Self {
        let (a, b) = (a.factor(), b.factor());
        let product = Self { min: a.min * b.min, max: a.max * b.max };
        let low = product.low_bits(52);
        Self::signed(self.min + low.min, self.max + low.max)
    }

    #[inline(never)]
    fn madd_hi(self, a: Self, b: Self) -> Self {
        let (a, b) = (a.factor(), b.factor());
        Self::signed(self.min + ((a.min * b.min) >> 52), self.max + ((a.max * b.max) >> 52))
    }

    #[inline(never)]
    fn digit(self) -> Self {
        self.low_bits(52)
    }

    #[inline(never)]
    fn mask(_bits: u8) {}

    #[inline(never)]
    fn mask_bits(_mask: ()) -> u8 {
        0
    }

    #[inline(never)]
    fn is_zero(self) {}

    #[inline(never)]
    fn is_negative(self) {}

    #[inline(never)]
    fn select(self, other: Self, _mask: ()) -> Self {
        self.union(other)
    }

    #[inline(never)]
    fn negate_where(self, _mask: ()) -> Self {
        self.union(Self::signed(-self.max, -self.min))
    }

    #[inline(never)]
    fn load_columns(_arrays: [&[u64; 4]; LANES]) -> [Self; 4] {
        [ANY_WORD; 4]
    }

    #[inline(never)]
    fn store_columns(_columns: [Self; 4], _arrays: [&mut [u64; 4]; LANES]) {}

    #[inline(never)]
    fn swap<const DISTANCE: usize>(self) -> Self {
        self
    }
}
