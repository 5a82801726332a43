//! Integers modulo p = 2^256 − 2^32 − 977, eight at a time, in five limbs of 52 bits.
//!
//! Four shapes, whose bounds are asserted in tests (`model.rs`) and listed in `docs/notes/recovery.md`:
//!
//! | shape | limbs 0 to 3 | limb 4 | made by |
//! |---|---|---|---|
//! | [`Field`] of magnitude m | 0 ≤ limb < 2^52 | 0 ≤ limb ≤ m · (2^48 + 2^16) | [`Sum::carry`], loads |
//! | [`Factor`] of magnitude m | the lower 52 bits count | 0 ≤ limb ≤ m · (2^48 + 2^16) | [`Sum::factor`] |
//! | [`Sum`] | signed, below 2^62 | signed | products, additions |
//! | [`Columns`] | ten columns, 0 ≤ column < 2^61 | | products before reduction |
//!
//! An operand of a multiplication is a [`Field`] or a [`Factor`] of magnitude below 16, so limb 4 is below 2^52, and of the others the
//! multiplier looks at the lower 52 bits only. That is why a [`Factor`], which is carried but not masked, is good enough for it. A product's [`Sum`] has magnitude 1: limb 4 is below 2^48 and the others below 2^59. Differences stay
//! positive because a multiple of p is added that is greater than all that is subtracted.

use super::lanes::{LANES, Lanes};

/// 2^256 modulo p.
pub const FOLD: u64 = 0x1_0000_03d1;

const DIGIT_MAX: u64 = (1 << 52) - 1;

/// By how much limb 4 can be above 2^48 for each magnitude: what the limbs below carry into it.
pub const CARRY_MAX: u64 = 1 << 16;

/// An operand: see the table above.
#[derive(Clone, Copy)]
pub struct Field<V>(pub [V; 5]);

/// An operand of multiplications only.
#[derive(Clone, Copy)]
pub struct Factor<V>([V; 5]);

/// What can be multiplied.
pub trait Operand<V>: Copy {
    fn limbs(self) -> [V; 5];
}

impl<V: Lanes> Operand<V> for Field<V> {
    #[inline(always)]
    fn limbs(self) -> [V; 5] {
        self.0
    }
}

impl<V: Lanes> Operand<V> for Factor<V> {
    #[inline(always)]
    fn limbs(self) -> [V; 5] {
        self.0
    }
}

/// A value with signed limbs that have not been carried.
#[derive(Clone, Copy)]
pub struct Sum<V>(pub [V; 5]);

/// A sum of products: ten columns of weight 2^52.
#[derive(Clone, Copy)]
pub struct Columns<V>([V; 10]);

/// Eight numbers below 2^260 in memory: word `l` of row `i` is limb `i` of lane `l`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Stored(pub [[u64; LANES]; 5]);

impl Stored {
    pub const ZERO: Self = Self([[0; LANES]; 5]);
}

impl<V: Lanes> Field<V> {
    /// What was stored with at most that magnitude.
    #[inline(always)]
    pub fn load<const MAGNITUDE: u64>(stored: &Stored) -> Self {
        let [a, b, c, d, e] = &stored.0;
        Self([
            V::load_within(a, DIGIT_MAX),
            V::load_within(b, DIGIT_MAX),
            V::load_within(c, DIGIT_MAX),
            V::load_within(d, DIGIT_MAX),
            V::load_within(e, MAGNITUDE * ((1 << 48) + CARRY_MAX)),
        ])
    }

    #[inline(always)]
    pub fn store<const MAGNITUDE: u64>(self, stored: &mut Stored) {
        let [a, b, c, d, e] = self.0;
        a.within(DIGIT_MAX).store(&mut stored.0[0]);
        b.within(DIGIT_MAX).store(&mut stored.0[1]);
        c.within(DIGIT_MAX).store(&mut stored.0[2]);
        d.within(DIGIT_MAX).store(&mut stored.0[3]);
        e.within(MAGNITUDE * ((1 << 48) + CARRY_MAX)).store(&mut stored.0[4]);
    }

    /// The same number below 2^256 in every lane, from its 64-bit words, lowest first.
    #[inline(always)]
    pub fn splat(words: [u64; 4]) -> Self {
        let limbs = limbs_of_words(words);
        Self([V::splat(limbs[0]), V::splat(limbs[1]), V::splat(limbs[2]), V::splat(limbs[3]), V::splat(limbs[4])])
    }

    #[inline(always)]
    pub fn one() -> Self {
        Self::splat([1, 0, 0, 0])
    }

    /// From four vectors of 64-bit words, lowest first. Magnitude 1.
    #[inline(always)]
    pub fn unpack(words: [V; 4]) -> Self {
        let [a, b, c, d] = words;
        Self([
            a.low::<52>(),
            a.shr_packed::<52>().or(b.shl_packed::<12>()).low::<52>(),
            b.shr_packed::<40>().or(c.shl_packed::<24>()).low::<52>(),
            c.shr_packed::<28>().or(d.shl_packed::<36>()).low::<52>(),
            d.shr_packed::<16>(),
        ])
    }

    /// As four vectors of 64-bit words, lowest first, of a canonical number.
    #[inline(always)]
    pub fn pack(self) -> [V; 4] {
        let [a, b, c, d, e] = self.0;
        [
            a.or(b.shl_packed::<52>()),
            b.shr::<12>().or(c.shl_packed::<40>()),
            c.shr::<24>().or(d.shl_packed::<28>()),
            d.shr::<36>().or(e.shl_packed::<16>()),
        ]
    }

    #[inline(always)]
    pub fn into_factor(self) -> Factor<V> {
        Factor(self.0)
    }

    #[inline(always)]
    pub fn sum(self) -> Sum<V> {
        Sum(self.0)
    }

    /// The one representative below p. Magnitude at most 15.
    #[inline(always)]
    pub fn canonical(self) -> Self {
        let once = self.below_2_256();
        // x + FOLD reaches 2^256 if and only if x ≥ p, and is then x − p + 2^256.
        let mut more = once.sum();
        more.0[0] = more.0[0].add(V::splat(FOLD));
        let more = more.carry();
        let below = more.0[4].shr::<48>().is_zero();
        Self([
            once.0[0].select(more.0[0], below),
            once.0[1].select(more.0[1], below),
            once.0[2].select(more.0[2], below),
            once.0[3].select(more.0[3], below),
            once.0[4].select(more.0[4].low::<48>(), below),
        ])
    }

    /// The same modulo p, below 2^256. Magnitude at most 15.
    ///
    /// The first fold can carry into bit 256 again; what is left below it is small then, and the second fold ends there.
    #[inline(always)]
    pub fn below_2_256(self) -> Self {
        self.fold_top().fold_top()
    }

    #[inline(always)]
    fn fold_top(self) -> Self {
        let [a, b, c, d, e] = self.0;
        Sum([a.madd_lo(e.shr::<48>(), V::splat(FOLD)), b, c, d, e.low::<48>()]).carry()
    }

    /// Lanes that are zero modulo p. Magnitude at most 15.
    #[inline(always)]
    pub fn is_zero(self) -> V::Mask {
        let [a, b, c, d, e] = self.canonical().0;
        a.or(b).or(c).or(d).or(e).is_zero()
    }

    /// The lanes of `self` where the mask is set, those of `other` elsewhere.
    #[inline(always)]
    pub fn select(self, other: Self, mask: V::Mask) -> Self {
        Self([
            self.0[0].select(other.0[0], mask),
            self.0[1].select(other.0[1], mask),
            self.0[2].select(other.0[2], mask),
            self.0[3].select(other.0[3], mask),
            self.0[4].select(other.0[4], mask),
        ])
    }

    #[inline(always)]
    pub fn swap<const DISTANCE: usize>(self) -> Self {
        let [a, b, c, d, e] = self.0;
        Self([
            a.swap::<DISTANCE>(),
            b.swap::<DISTANCE>(),
            c.swap::<DISTANCE>(),
            d.swap::<DISTANCE>(),
            e.swap::<DISTANCE>(),
        ])
    }
}

#[inline(always)]
pub fn mul<V: Lanes>(a: impl Operand<V>, b: impl Operand<V>) -> Sum<V> {
    Columns::product(a, b).reduce()
}

#[inline(always)]
pub fn sqr<V: Lanes>(a: impl Operand<V>) -> Sum<V> {
    Columns::square(a).reduce()
}

impl<V: Lanes> Columns<V> {
    #[inline(always)]
    pub fn product(a: impl Operand<V>, b: impl Operand<V>) -> Self {
        Self([V::splat(0); 10]).add_product(a, b)
    }

    #[inline(always)]
    pub fn square(a: impl Operand<V>) -> Self {
        let a = a.limbs();
        let mut c = [V::splat(0); 10];
        for i in 0..4 {
            for j in i + 1..5 {
                c[i + j] = c[i + j].madd_lo(a[i], a[j]);
            }
            for j in i + 1..5 {
                c[i + j + 1] = c[i + j + 1].madd_hi(a[i], a[j]);
            }
        }
        for column in &mut c[1..9] {
            *column = column.add(*column);
        }
        for i in 0..5 {
            c[2 * i] = c[2 * i].madd_lo(a[i], a[i]);
            c[2 * i + 1] = c[2 * i + 1].madd_hi(a[i], a[i]);
        }
        Self(c)
    }

    /// The whole sum must stay below 2^520.
    #[inline(always)]
    pub fn add_product(self, a: impl Operand<V>, b: impl Operand<V>) -> Self {
        let (mut c, a, b) = (self.0, a.limbs(), b.limbs());
        for i in 0..5 {
            for j in 0..5 {
                c[i + j] = c[i + j].madd_lo(a[i], b[j]);
            }
            for j in 0..5 {
                c[i + j + 1] = c[i + j + 1].madd_hi(a[i], b[j]);
            }
        }
        Self(c)
    }

    #[inline(always)]
    pub fn times_8(self) -> Self {
        let mut c = self.0;
        for column in &mut c {
            *column = column.shl::<3>();
        }
        Self(c)
    }

    /// The number modulo p, of magnitude 1 but for the carries.
    #[inline(always)]
    pub fn reduce(self) -> Sum<V> {
        let mut c = self.0;
        for i in 5..9 {
            c[i + 1] = c[i + 1].add(c[i].shr::<52>());
        }
        // 2^260 is 16 · FOLD. The carries above have been moved on, so of each column the lower 52 bits count.
        let fold = V::splat(FOLD << 4);
        for i in 0..4 {
            let digit = c[i + 5].digit();
            c[i] = c[i].madd_lo(digit, fold);
            c[i + 1] = c[i + 1].madd_hi(digit, fold);
        }
        // Nothing carries out of the last column, because the sum is below 2^520.
        c[4] = c[4].madd_lo(c[9], fold);
        let high = V::splat(0).madd_hi(c[9], fold);
        // What is at 2^256 and above: less than 2^42.
        let top = c[4].shr::<48>().add(high.shl::<4>());
        let fold = V::splat(FOLD);
        Sum([c[0].madd_lo(top, fold), c[1].madd_hi(top, fold), c[2], c[3], c[4].low::<48>()])
    }
}

impl<V: Lanes> Sum<V> {
    #[inline(always)]
    pub fn add(self, other: Self) -> Self {
        Self([
            self.0[0].add(other.0[0]),
            self.0[1].add(other.0[1]),
            self.0[2].add(other.0[2]),
            self.0[3].add(other.0[3]),
            self.0[4].add(other.0[4]),
        ])
    }

    #[inline(always)]
    pub fn sub(self, other: Self) -> Self {
        Self([
            self.0[0].sub(other.0[0]),
            self.0[1].sub(other.0[1]),
            self.0[2].sub(other.0[2]),
            self.0[3].sub(other.0[3]),
            self.0[4].sub(other.0[4]),
        ])
    }

    #[inline(always)]
    pub fn shl<const BITS: u32>(self) -> Self {
        let [a, b, c, d, e] = self.0;
        Self([a.shl::<BITS>(), b.shl::<BITS>(), c.shl::<BITS>(), d.shl::<BITS>(), e.shl::<BITS>()])
    }

    #[inline(always)]
    pub fn times_3(self) -> Self {
        self.add(self.shl::<1>())
    }

    /// Adds `K` · p = `K` · 2^256 − `K` · FOLD.
    #[inline(always)]
    pub fn add_p<const K: u64>(self) -> Self {
        let [a, b, c, d, e] = self.0;
        Self([a.sub(V::splat(K * FOLD)), b, c, d, e.add(V::splat(K << 48))])
    }

    /// `K` · p − self.
    #[inline(always)]
    pub fn negate_p<const K: u64>(self) -> Self {
        let [a, b, c, d, e] = self.0;
        let zero = V::splat(0);
        Self([zero.sub(a).sub(V::splat(K * FOLD)), zero.sub(b), zero.sub(c), zero.sub(d), V::splat(K << 48).sub(e)])
    }

    #[inline(always)]
    pub fn negate_where(self, mask: V::Mask) -> Self {
        let [a, b, c, d, e] = self.0;
        Self([
            a.negate_where(mask),
            b.negate_where(mask),
            c.negate_where(mask),
            d.negate_where(mask),
            e.negate_where(mask),
        ])
    }

    /// The same modulo p, of magnitude 2, of a sum of which limb 4 is from 2^48 to 16 · 2^48.
    ///
    /// One 2^256 is left in place, so that the sum stays positive whatever the signs of the other limbs.
    #[inline(always)]
    pub fn shrink(self) -> Self {
        let [a, b, c, d, e] = self.0;
        let top = e.shr::<48>().sub(V::splat(1));
        Self([a.madd_lo(top, V::splat(FOLD)), b, c, d, e.low::<48>().add(V::splat(1 << 48))])
    }

    /// Of a sum that is not negative.
    #[inline(always)]
    pub fn carry(self) -> Field<V> {
        let [a, b, c, d, e] = self.ripple();
        Field([a.low::<52>(), b.low::<52>(), c.low::<52>(), d.low::<52>(), e])
    }

    /// [`Sum::carry`] for a number that will only be multiplied: four instructions fewer.
    #[inline(always)]
    pub fn factor(self) -> Factor<V> {
        let [a, b, c, d, e] = self.ripple();
        Factor([a.digit(), b.digit(), c.digit(), d.digit(), e])
    }

    #[inline(always)]
    fn ripple(self) -> [V; 5] {
        let [a, b, c, d, e] = self.0;
        let b = b.add(a.sar::<52>());
        let c = c.add(b.sar::<52>());
        let d = d.add(c.sar::<52>());
        let e = e.add(d.sar::<52>());
        [a, b, c, d, e]
    }

    /// The lanes of `self` where the mask is set, those of `other` elsewhere.
    #[inline(always)]
    pub fn select(self, other: Self, mask: V::Mask) -> Self {
        Self(Field(self.0).select(Field(other.0), mask).0)
    }
}

/// A number below 2^256 in 52-bit limbs.
pub const fn limbs_of_words(words: [u64; 4]) -> [u64; 5] {
    const LOW: u64 = (1 << 52) - 1;
    [
        words[0] & LOW,
        (words[0] >> 52 | words[1] << 12) & LOW,
        (words[1] >> 40 | words[2] << 24) & LOW,
        (words[2] >> 28 | words[3] << 36) & LOW,
        words[3] >> 16,
    ]
}
