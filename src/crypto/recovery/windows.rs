//! What the digits of eight signatures add to their sums: multiples looked up, paired and merged in affine coordinates.
//!
//! An affine addition with its part of a shared inversion costs half as much as one to the running sum, so everything that is added at
//! the same position is added up here first.

use super::batch::Slot;
use super::field::{Field, Stored, Sum, mul, sqr};
use super::inversion::Chains;
use super::lanes::{LANES, Lanes, Stage};
use super::point::each;
use super::scalars::{BASE_WINDOWS, PAIRS, POINT_WINDOWS};
use super::tables::{Line, Tables};

/// A cube root of one: λ·(x, y) = (β·x, y).
const BETA: [u64; 4] = [0xc139_6c28_7195_01ee, 0x9cf0_4975_12f5_8995, 0x6e64_479e_ac34_34e9, 0x7ae9_6a2b_657c_0710];

/// What eight signatures add to their sums: about 29 KB.
#[derive(Clone)]
pub struct Windows {
    /// The affine point of each pair of digits. Before the inversion: the denominator, and the product of those before.
    pub points: [[Stored; 2]; PAIRS],
    /// Products before each denominator, while the merge waits for the inversion.
    products: [Stored; BASE_WINDOWS],
    /// Lanes where both digits of a pair are zero.
    pub absent: [u8; PAIRS],
    /// Lanes where a merge divides by one instead of by the difference.
    undivided: [u8; BASE_WINDOWS],
}

impl Windows {
    pub const EMPTY: Self = Self {
        points: [[Stored::ZERO; 2]; PAIRS],
        products: [Stored::ZERO; BASE_WINDOWS],
        absent: [0; PAIRS],
        undivided: [0; BASE_WINDOWS],
    };

    /// Of the x of two points, before the second is added to the first.
    #[inline(always)]
    fn difference<V: Lanes>(&self, target: usize, source: usize) -> Field<V> {
        let x2 = Field::load::<2>(&self.points[source][0]).sum();
        Field::load::<2>(&self.points[target][0]).sum().sub(x2).add_p::<3>().carry()
    }
}

/// Adds up in pairs, affine, what the windows of a signature add: a point of R to one of λR, a point of G to one of 2^128·G.
///
/// Two multiples of such a pair are never equal or opposite: that would make a short multiple of the generator zero, or a
/// vector of the lattice short.
pub struct PairUp<'a> {
    pub slots: &'a [Slot],
    pub windows: &'a mut [Windows],
    pub tables: &'a Tables,
    pub is_poisoned: &'a mut bool,
}

impl Stage for PairUp<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { slots, windows, tables, is_poisoned } = self;
        let mut chains = Chains::<V>::new();
        for (slots, windows) in slots.chunks(2).zip(windows.chunks_mut(2)) {
            for pair in 0..PAIRS {
                match (slots, &mut *windows) {
                    ([a, b], [c, d]) => divide_pairs([a, b], [c, d], tables, pair, &mut chains),
                    ([a], [c]) => divide_pairs([a], [c], tables, pair, &mut chains),
                    _ => {}
                }
            }
        }
        *is_poisoned |= !chains.invert();
        for (slots, windows) in slots.chunks(2).zip(windows.chunks_mut(2)).rev() {
            for pair in (0..PAIRS).rev() {
                match (slots, &mut *windows) {
                    ([a, b], [c, d]) => add_pairs([a, b], [c, d], tables, pair, &mut chains),
                    ([a], [c]) => add_pairs([a], [c], tables, pair, &mut chains),
                    _ => {}
                }
            }
        }
    }
}

/// The way towards the inversion of [`PairUp`].
#[inline(always)]
fn divide_pairs<V: Lanes, const S: usize>(
    slots: [&Slot; S],
    windows: [&mut Windows; S],
    tables: &Tables,
    pair: usize,
    chains: &mut Chains<V>,
) {
    let first = each!(s => Multiple::of::<V>(slots[s], pair, 0));
    let second = each!(s => Multiple::of::<V>(slots[s], pair, 1));
    let mut x2 = each!(s => second[s].x::<V>(slots[s], tables));
    if pair < POINT_WINDOWS {
        x2 = each!(s => mul(x2[s], Field::splat(BETA)).carry());
    }
    let x1 = each!(s => first[s].x::<V>(slots[s], tables));
    let difference = each!(s => x1[s].sum().sub(x2[s].sum()).add_p::<2>().carry());
    for (s, windows) in windows.into_iter().enumerate() {
        let [stored, product] = &mut windows.points[pair];
        difference[s].store::<3>(stored);
        let absent = V::mask(first[s].absent | second[s].absent);
        chains.push(s, Field::one().select(difference[s], absent), product);
    }
}

/// The way back, where each pair of points becomes their sum.
#[inline(always)]
fn add_pairs<V: Lanes, const S: usize>(
    slots: [&Slot; S],
    windows: [&mut Windows; S],
    tables: &Tables,
    pair: usize,
    chains: &mut Chains<V>,
) {
    let first = each!(s => Multiple::of::<V>(slots[s], pair, 0));
    let second = each!(s => Multiple::of::<V>(slots[s], pair, 1));
    let difference = each!(s => Field::<V>::load::<3>(&windows[s].points[pair][0]));
    let inverse = each!(s => {
        let absent = V::mask(first[s].absent | second[s].absent);
        chains.pop(s, Field::one().select(difference[s], absent), &windows[s].points[pair][1])
    });
    let y1 = each!(s => first[s].y::<V>(slots[s], tables));
    let y2 = each!(s => second[s].y::<V>(slots[s], tables));
    let slope = each!(s => mul(y1[s].sub(y2[s]).add_p::<3>().factor(), inverse[s]).factor());
    let x1 = each!(s => first[s].x::<V>(slots[s], tables).sum());
    // The second point's x is the first's less the difference.
    let x2 = each!(s => x1[s].sub(difference[s].sum()));
    let x = each!(s => sqr(slope[s]).sub(x1[s]).sub(x2[s]));
    let y = each!(s => mul(slope[s], x1[s].sub(x[s]).add_p::<5>().factor()).sub(y1[s]));
    for (s, windows) in windows.into_iter().enumerate() {
        let no_first = V::mask(first[s].absent);
        let no_second = V::mask(second[s].absent);
        let x = x1[s].select(x2[s].select(x[s], no_first), no_second).add_p::<5>().shrink().carry();
        let y = y1[s].select(y2[s].select(y[s], no_first), no_second).add_p::<2>().carry();
        x.store::<2>(&mut windows.points[pair][0]);
        y.store::<4>(&mut windows.points[pair][1]);
        windows.absent[pair] = first[s].absent & second[s].absent;
    }
}

/// Adds the point of each pair of G to that of the pair of R at the same position.
///
/// R is the signature's choice, so here two points can be equal or opposite. Such a lane is flagged.
pub struct Merge<'a> {
    pub slots: &'a mut [Slot],
    pub windows: &'a mut [Windows],
    pub is_poisoned: &'a mut bool,
}

impl Stage for Merge<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { slots, windows, is_poisoned } = self;
        let mut chains = Chains::<V>::new();
        for (slots, windows) in slots.chunks_mut(2).zip(windows.chunks_mut(2)) {
            for base in 0..BASE_WINDOWS {
                match (&mut *slots, &mut *windows) {
                    ([a, b], [c, d]) => divide_merges([a, b], [c, d], base, &mut chains),
                    ([a], [c]) => divide_merges([a], [c], base, &mut chains),
                    _ => {}
                }
            }
        }
        *is_poisoned |= !chains.invert();
        for windows in windows.chunks_mut(2).rev() {
            for base in (0..BASE_WINDOWS).rev() {
                match windows {
                    [a, b] => merge([a, b], base, &mut chains),
                    [a] => merge([a], base, &mut chains),
                    _ => {}
                }
            }
        }
    }
}

/// The way towards the inversion of [`Merge`].
#[inline(always)]
fn divide_merges<V: Lanes, const S: usize>(
    slots: [&mut Slot; S],
    windows: [&mut Windows; S],
    base: usize,
    chains: &mut Chains<V>,
) {
    let (target, source) = (2 * base, POINT_WINDOWS + base);
    let difference = each!(s => windows[s].difference::<V>(target, source));
    for (s, (slot, windows)) in slots.into_iter().zip(windows).enumerate() {
        let absent = windows.absent[target] | windows.absent[source];
        let is_zero = V::mask_bits(difference[s].is_zero());
        slot.flagged |= is_zero & !absent;
        windows.undivided[base] = is_zero | absent;
        let divisor = Field::one().select(difference[s], V::mask(is_zero | absent));
        chains.push(s, divisor, &mut windows.products[base]);
    }
}

/// The way back, where the point of R becomes the sum of both.
#[inline(always)]
fn merge<V: Lanes, const S: usize>(windows: [&mut Windows; S], base: usize, chains: &mut Chains<V>) {
    let (target, source) = (2 * base, POINT_WINDOWS + base);
    let inverse = each!(s => {
        let difference = windows[s].difference(target, source);
        let divisor = Field::one().select(difference, V::mask(windows[s].undivided[base]));
        chains.pop(s, divisor, &windows[s].products[base])
    });
    let y1 = each!(s => Field::<V>::load::<4>(&windows[s].points[target][1]).sum());
    let y2 = each!(s => Field::<V>::load::<4>(&windows[s].points[source][1]).sum());
    let slope = each!(s => mul(y1[s].sub(y2[s]).add_p::<5>().factor(), inverse[s]).factor());
    let x1 = each!(s => Field::<V>::load::<2>(&windows[s].points[target][0]).sum());
    let x2 = each!(s => Field::<V>::load::<2>(&windows[s].points[source][0]).sum());
    let x = each!(s => sqr(slope[s]).sub(x1[s]).sub(x2[s]));
    let y = each!(s => mul(slope[s], x1[s].sub(x[s]).add_p::<2>().factor()).sub(y1[s]));
    for (s, windows) in windows.into_iter().enumerate() {
        let no_first = V::mask(windows.absent[target]);
        let no_second = V::mask(windows.absent[source]);
        let x = x1[s].select(x2[s].select(x[s], no_first), no_second).add_p::<5>().carry();
        let y = y1[s].select(y2[s].select(y[s], no_first), no_second).add_p::<5>().carry();
        x.store::<7>(&mut windows.points[target][0]);
        y.store::<9>(&mut windows.points[target][1]);
        windows.absent[target] &= windows.absent[source];
    }
}

/// What a half of a pair adds in each lane: a multiple of R or λR by a window's digit, or of G or 2^128·G.
#[derive(Clone, Copy)]
struct Multiple {
    pair: usize,
    half: usize,
    /// |digit|
    index: [u64; LANES],
    /// Lanes where the digit is below zero.
    negative: u8,
    /// Lanes where the digit is zero.
    absent: u8,
}

impl Multiple {
    #[inline(always)]
    fn of<V: Lanes>(slot: &Slot, pair: usize, half: usize) -> Self {
        let digit: V = slot.digits.digit(pair, half);
        let negative = digit.is_negative();
        let mut index = [0; LANES];
        digit.negate_where(negative).store(&mut index);
        Self { pair, half, index, negative: V::mask_bits(negative), absent: V::mask_bits(digit.is_zero()) }
    }

    #[inline(always)]
    fn lines<'a>(&self, slot: &'a Slot, tables: &'a Tables) -> [&'a Line; LANES] {
        let mut lines = [&Line::ZERO; LANES];
        for (lane, line) in lines.iter_mut().enumerate() {
            let index = self.index[lane] as usize; // At most 2^9.
            *line = if self.pair < POINT_WINDOWS {
                &slot.table[index * LANES + lane]
            } else {
                &tables.base[self.half][index]
            };
        }
        lines
    }

    /// The x of the multiple of R where it is one of λR.
    #[inline(always)]
    fn x<V: Lanes>(&self, slot: &Slot, tables: &Tables) -> Field<V> {
        let [a, b, c, d, e, f, g, h] = self.lines(slot, tables);
        Field::unpack(V::load_columns([&a.x, &b.x, &c.x, &d.x, &e.x, &f.x, &g.x, &h.x]))
    }

    /// The y with the digit's sign.
    #[inline(always)]
    fn y<V: Lanes>(&self, slot: &Slot, tables: &Tables) -> Sum<V> {
        let [a, b, c, d, e, f, g, h] = self.lines(slot, tables);
        let y = Field::unpack(V::load_columns([&a.y, &b.y, &c.y, &d.y, &e.y, &f.y, &g.y, &h.y]));
        y.sum().negate_where(V::mask(self.negative))
    }
}
