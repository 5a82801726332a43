//! A batch of signatures through all stages: lift, multipliers, tables of R, windows, the sum, and back to affine.
//!
//! Every stage runs over the whole batch before the next one, because the batch shares its inversions. Where one lane's value would
//! poison a shared product (R not on the curve, sum at infinity), it is replaced by a harmless one first and the lane is flagged.

use alloy_primitives::U256;

use super::field::{FOLD, Factor, Field, Stored, Sum, mul, sqr};
use super::lanes::{Engine, LANES, Lanes, Stage};
use super::point::{Addend, Jacobian, add, double, each, square_root};
use super::scalars::{self, BASE_WINDOWS, Digits, PAIRS, POINT_WINDOW_BITS, POINT_WINDOWS, Scalars};
use super::tables::{GENERATOR, Line, Tables};

/// Vectors of a batch.
pub const VECTORS_MAX: usize = 16;

/// Signatures of a batch.
pub const ITEMS_MAX: usize = VECTORS_MAX * LANES;

/// Multiples of R: |digit| of a window, zero included.
const POINT_ENTRIES: usize = (1 << (POINT_WINDOW_BITS - 1)) + 1;

/// Multiples of R that others are made of.
const PARTS: usize = POINT_ENTRIES / 2;

/// Vectors that are summed up side by side.
const SUM_VECTORS: usize = 2;

/// Vectors whose windows are worked out together.
const WINDOWS_VECTORS: usize = 8;

/// A cube root of one: λ·(x, y) = (β·x, y).
const BETA: [u64; 4] = [0xc139_6c28_7195_01ee, 0x9cf0_4975_12f5_8995, 0x6e64_479e_ac34_34e9, 0x7ae9_6a2b_657c_0710];

/// p.
const MODULUS: U256 = U256::from_limbs([0u64.wrapping_sub(FOLD), u64::MAX, u64::MAX, u64::MAX]);

/// What a signature needs to be: numbers in range, else the caller does not hand it over.
#[derive(Clone, Copy)]
pub struct Input {
    pub scalars: Scalars,
    /// R has an odd y.
    pub is_odd: bool,
}

/// Takes a lane where there is no signature: R = G, r = s = 1.
pub const NO_INPUT: Input = Input { scalars: Scalars { r: [1, 0, 0, 0], s: [1, 0, 0, 0], z: [0; 4] }, is_odd: false };

/// Eight signatures on their way through the stages: about 19 KB.
#[derive(Clone)]
struct Slot {
    /// Words of the x of R; word `l` of row `i` is word `i` of lane `l`.
    x: [[u64; LANES]; 4],
    /// Lanes whose R has an odd y.
    is_odd: u8,
    /// Lanes of which the result says nothing.
    flagged: u8,
    digits: Digits,
    /// Line `8·i + l` is i·R of lane `l`; zeros for i = 0.
    table: [Line; POINT_ENTRIES * LANES],
    /// Entry i is (i + 1)·R.
    parts: [[Stored; 2]; PARTS],
    /// Products before each denominator, while a level of the table waits for the inversion.
    products: [Stored; PARTS],
    sum: [Stored; 3],
    /// Words of x and y of the key.
    key: [[u64; LANES]; 8],
}

impl Slot {
    const EMPTY: Self = Self {
        x: [[0; LANES]; 4],
        is_odd: 0,
        flagged: 0,
        digits: Digits::ZERO,
        table: [Line::ZERO; POINT_ENTRIES * LANES],
        parts: [[Stored::ZERO; 2]; PARTS],
        products: [Stored::ZERO; PARTS],
        sum: [Stored::ZERO; 3],
        key: [[0; LANES]; 8],
    };
}

/// What eight signatures add to their sums: about 29 KB.
#[derive(Clone)]
struct Windows {
    /// The affine point of each pair of digits. Before the inversion: the denominator, and the product of those before.
    points: [[Stored; 2]; PAIRS],
    /// Products before each denominator, while the merge waits for the inversion.
    products: [Stored; BASE_WINDOWS],
    /// Lanes where both digits of a pair are zero.
    absent: [u8; PAIRS],
    /// Lanes where a merge divides by one instead of by the difference.
    undivided: [u8; BASE_WINDOWS],
}

impl Windows {
    const EMPTY: Self = Self {
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

/// What a [`Workspace`] allocates: about 580 KB.
pub const WORKSPACE_BYTES: usize = VECTORS_MAX * size_of::<Slot>()
    + WINDOWS_VECTORS * size_of::<Windows>()
    + ITEMS_MAX * (size_of::<Scalars>() + size_of::<[u64; 4]>());

/// What a thread needs to recover batches, and keeps.
pub struct Workspace {
    slots: Vec<Slot>,
    windows: Vec<Windows>,
    scalars: Vec<Scalars>,
    products: Vec<[u64; 4]>,
    /// An inversion had no result, which only a wrong computation can bring about.
    is_poisoned: bool,
}

impl Default for Workspace {
    fn default() -> Self {
        Self {
            slots: vec![Slot::EMPTY; VECTORS_MAX],
            windows: vec![Windows::EMPTY; WINDOWS_VECTORS],
            scalars: vec![NO_INPUT.scalars; ITEMS_MAX],
            products: vec![[0; 4]; ITEMS_MAX],
            is_poisoned: false,
        }
    }
}

impl Workspace {
    /// Recovers the keys of `count` signatures; [`Workspace::key`] then has the results.
    ///
    /// Never blocks, never allocates. `input` is called once for each index.
    pub fn recover(&mut self, engine: impl Engine, tables: &Tables, count: usize, input: impl Fn(usize) -> Input) {
        assert!(count <= ITEMS_MAX);
        let vectors = count.div_ceil(LANES);
        self.is_poisoned = false;
        for (index, scalars) in self.scalars[..vectors * LANES].iter_mut().enumerate() {
            let Input { scalars: numbers, is_odd } = if index < count { input(index) } else { NO_INPUT };
            *scalars = numbers;
            let (slot, lane) = (&mut self.slots[index / LANES], index % LANES);
            let x = if index < count { numbers.r } else { GENERATOR.x };
            for (row, word) in slot.x.iter_mut().zip(x) {
                row[lane] = word;
            }
            slot.is_odd = slot.is_odd & !(1 << lane) | u8::from(is_odd) << lane;
        }
        let slots = &mut self.slots[..vectors];
        for slots in slots.chunks_mut(2) {
            match slots {
                [a, b] => engine.run(Lift([a, b])),
                [a] => engine.run(Lift([a])),
                _ => {}
            }
        }
        let lanes = ..vectors * LANES;
        let done = scalars::multipliers(&self.scalars[lanes], &mut self.products[lanes], |index, u1, u2| {
            slots[index / LANES].digits.set(index % LANES, u1, u2);
        });
        self.is_poisoned |= done.is_none();
        for level in 0..POINT_WINDOW_BITS - 1 {
            engine.run(Level { base: 1 << level, slots, is_poisoned: &mut self.is_poisoned });
        }
        for slots in slots.chunks_mut(WINDOWS_VECTORS) {
            let windows = &mut self.windows[..slots.len()];
            engine.run(PairUp { slots, windows, tables, is_poisoned: &mut self.is_poisoned });
            engine.run(Merge { slots, windows, is_poisoned: &mut self.is_poisoned });
            for (slots, windows) in slots.chunks_mut(SUM_VECTORS).zip(windows.chunks(SUM_VECTORS)) {
                match (slots, windows) {
                    ([a, b], [c, d]) => engine.run(SumUp { slots: [a, b], windows: [c, d], tables }),
                    ([a], [c]) => engine.run(SumUp { slots: [a], windows: [c], tables }),
                    _ => {}
                }
            }
        }
        engine.run(Finish { slots, is_poisoned: &mut self.is_poisoned });
    }

    /// Writes x ‖ y of the key of signature `index` of the last batch. False, and nothing written: the batch cannot tell.
    #[must_use]
    pub fn key(&self, index: usize, key: &mut [u8; 64]) -> bool {
        let (slot, lane) = (&self.slots[index / LANES], index % LANES);
        if self.is_poisoned || slot.flagged & 1 << lane != 0 {
            return false;
        }
        for (bytes, row) in key.as_chunks_mut::<8>().0.iter_mut().zip([3, 2, 1, 0, 7, 6, 5, 4]) {
            *bytes = slot.key[row][lane].to_be_bytes();
        }
        true
    }
}

/// R from its x and the parity of its y; G where there is no such point.
struct Lift<'a, const S: usize>([&'a mut Slot; S]);

impl<const S: usize> Stage for Lift<'_, S> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self(slots) = self;
        let x: [Field<V>; S] = each!(s => Field::unpack(load_rows(&slots[s].x)));
        let square: [Field<V>; S] = each!(s => curve(x[s]));
        let root = square_root(&square);
        for (s, slot) in slots.into_iter().enumerate() {
            let is_root = sqr(root[s]).sub(square[s].sum()).add_p::<2>().carry().is_zero();
            let y = root[s].canonical();
            let flip = V::mask(V::mask_bits(V::is_zero(y.0[0].low::<1>())) ^ !slot.is_odd);
            let y = y.sum().negate_p::<2>().carry().below_2_256().select(y, flip);
            let x = x[s].select(Field::splat(GENERATOR.x), is_root);
            let y = y.select(Field::splat(GENERATOR.y), is_root);
            slot.flagged = !V::mask_bits(is_root);
            x.store::<1>(&mut slot.parts[0][0]);
            y.store::<1>(&mut slot.parts[0][1]);
            store_entry(&mut slot.table, 1, x, y);
        }
    }
}

/// x³ + 7.
#[inline(always)]
fn curve<V: Lanes>(x: Field<V>) -> Field<V> {
    let mut sum = mul(sqr(x).factor(), x);
    sum.0[0] = sum.0[0].add(V::splat(7));
    sum.carry()
}

/// Multiples base + 1 to 2·base of R from those up to base, with one inversion.
struct Level<'a> {
    base: usize,
    slots: &'a mut [Slot],
    is_poisoned: &'a mut bool,
}

impl Stage for Level<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { base, slots, is_poisoned } = self;
        let mut chains = Chains::<V>::new();
        for slots in slots.chunks_mut(2) {
            for part in 1..=base {
                match slots {
                    [a, b] => divide_multiples([a, b], base, part, &mut chains),
                    [a] => divide_multiples([a], base, part, &mut chains),
                    _ => {}
                }
            }
        }
        *is_poisoned |= !chains.invert();
        for slots in slots.chunks_mut(2).rev() {
            for part in (1..=base).rev() {
                match slots {
                    [a, b] => add_multiples([a, b], base, part, &mut chains),
                    [a] => add_multiples([a], base, part, &mut chains),
                    _ => {}
                }
            }
        }
    }
}

/// What the multiple base + part is divided by: the difference of the x, or twice the y where they are the same point.
#[inline(always)]
fn denominator<V: Lanes>(slot: &Slot, base: usize, part: usize) -> Field<V> {
    if part == base {
        Field::load::<1>(&slot.parts[base - 1][1]).sum().shl::<1>().carry()
    } else {
        let other = Field::load::<1>(&slot.parts[part - 1][0]).sum();
        Field::load::<1>(&slot.parts[base - 1][0]).sum().sub(other).add_p::<2>().carry()
    }
}

/// The way towards the inversion of [`Level`].
#[inline(always)]
fn divide_multiples<V: Lanes, const S: usize>(slots: [&mut Slot; S], base: usize, part: usize, chains: &mut Chains<V>) {
    let divisor = each!(s => denominator(slots[s], base, part));
    for (s, slot) in slots.into_iter().enumerate() {
        chains.push(s, divisor[s], &mut slot.products[part - 1]);
    }
}

/// The way back: writes base·R + part·R.
#[inline(always)]
fn add_multiples<V: Lanes, const S: usize>(slots: [&mut Slot; S], base: usize, part: usize, chains: &mut Chains<V>) {
    let inverse = each!(s => chains.pop(s, denominator(slots[s], base, part), &slots[s].products[part - 1]));
    let x1 = each!(s => Field::<V>::load::<1>(&slots[s].parts[base - 1][0]));
    let y1 = each!(s => Field::<V>::load::<1>(&slots[s].parts[base - 1][1]));
    let numerator = if part == base {
        each!(s => sqr(x1[s]).times_3().factor())
    } else {
        each!(s => y1[s].sum().sub(Field::load::<1>(&slots[s].parts[part - 1][1]).sum()).add_p::<2>().factor())
    };
    let slope = each!(s => mul(numerator[s], inverse[s]).factor());
    let x2 = each!(s => Field::<V>::load::<1>(&slots[s].parts[part - 1][0]));
    let x = each!(s => sqr(slope[s]).sub(x1[s].sum()).sub(x2[s].sum()));
    let y = each!(s => mul(slope[s], x1[s].sum().sub(x[s]).add_p::<2>().factor()).sub(y1[s].sum()));
    for (s, slot) in slots.into_iter().enumerate() {
        let x = x[s].add_p::<4>().carry().below_2_256();
        let y = y[s].add_p::<2>().carry().below_2_256();
        if let Some(entry) = slot.parts.get_mut(base + part - 1) {
            x.store::<1>(&mut entry[0]);
            y.store::<1>(&mut entry[1]);
        }
        store_entry(&mut slot.table, base + part, x, y);
    }
}

/// Adds up in pairs, affine, what the windows of a signature add: a point of R to one of λR, a point of G to one of 2^128·G. An
/// affine addition with its part of a shared inversion costs half as much as one to the running sum.
///
/// Two multiples of such a pair are never equal or opposite: that would make a short multiple of the generator zero, or a
/// vector of the lattice short.
struct PairUp<'a> {
    slots: &'a [Slot],
    windows: &'a mut [Windows],
    tables: &'a Tables,
    is_poisoned: &'a mut bool,
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
struct Merge<'a> {
    slots: &'a mut [Slot],
    windows: &'a mut [Windows],
    is_poisoned: &'a mut bool,
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

/// Montgomery's trick: one inversion for many divisors. Two products, of the even and of the odd vectors, so that the processor can
/// work on two multiplications at once.
struct Chains<V>([Field<V>; 2]);

impl<V: Lanes> Chains<V> {
    #[inline(always)]
    fn new() -> Self {
        Self([Field::one(); 2])
    }

    /// Takes a divisor, which is zero in no lane, and leaves the product of those before it.
    #[inline(always)]
    fn push(&mut self, chain: usize, divisor: Field<V>, product: &mut Stored) {
        self.0[chain].store::<1>(product);
        self.0[chain] = mul(self.0[chain], divisor).carry();
    }

    /// One over the divisor that was pushed last, given what was left then.
    #[inline(always)]
    fn pop(&mut self, chain: usize, divisor: Field<V>, product: &Stored) -> Factor<V> {
        let inverse = mul(self.0[chain], Field::load::<1>(product)).factor();
        self.0[chain] = mul(self.0[chain], divisor).carry();
        inverse
    }

    /// Turns from pushing to popping. False: a divisor was zero, and what is popped is worth nothing.
    #[inline(always)]
    fn invert(&mut self) -> bool {
        let [even, odd] = self.0;
        let Some(inverse) = invert(mul(even, odd).carry()) else {
            return false;
        };
        self.0 = [mul(inverse, odd).carry(), mul(inverse, even).carry()];
        true
    }
}

/// T, doubled and added to, high windows first, less what has become of T.
struct SumUp<'a, const S: usize> {
    slots: [&'a mut Slot; S],
    windows: [&'a Windows; S],
    tables: &'a Tables,
}

impl<const S: usize> Stage for SumUp<'_, S> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { slots, windows, tables } = self;
        let mut sum = Jacobian::<V, S> {
            x: [Field::splat(tables.offset.x); S],
            y: [Field::splat(tables.offset.y); S],
            z: [Field::one(); S],
        };
        // One addition in the code for all of them, because the loop has to stay in the processor's instruction cache.
        for step in 0..=POINT_WINDOWS {
            let mut addend = Addend {
                x: [Field::splat(tables.offset_end.x); S],
                y: [Field::splat(tables.offset_end.y); S],
                absent: [V::mask(0); S],
            };
            if step < POINT_WINDOWS {
                let window = POINT_WINDOWS - 1 - step;
                for s in 0..S {
                    addend.x[s] = Field::load::<7>(&windows[s].points[window][0]);
                    addend.y[s] = Field::load::<9>(&windows[s].points[window][1]);
                    addend.absent[s] = V::mask(windows[s].absent[window]);
                }
                if step > 0 {
                    for _ in 0..POINT_WINDOW_BITS {
                        sum = double(&sum);
                    }
                }
            }
            sum = add(&sum, &addend);
        }
        for (s, slot) in slots.into_iter().enumerate() {
            sum.x[s].store::<10>(&mut slot.sum[0]);
            sum.y[s].store::<2>(&mut slot.sum[1]);
            sum.z[s].store::<2>(&mut slot.sum[2]);
        }
    }
}

/// The keys: every sum in affine coordinates, with one inversion.
struct Finish<'a> {
    slots: &'a mut [Slot],
    is_poisoned: &'a mut bool,
}

impl Stage for Finish<'_> {
    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Self { slots, is_poisoned } = self;
        let mut chains = Chains::<V>::new();
        for (index, slot) in slots.iter_mut().enumerate() {
            let z = Field::<V>::load::<2>(&slot.sum[2]);
            let is_zero = z.is_zero();
            slot.flagged |= V::mask_bits(is_zero);
            let z = Field::one().select(z, is_zero);
            z.store::<2>(&mut slot.sum[2]);
            chains.push(index % 2, z, &mut slot.products[0]);
        }
        *is_poisoned |= !chains.invert();
        for (index, slot) in slots.iter_mut().enumerate().rev() {
            let inverse = chains.pop(index % 2, Field::load::<2>(&slot.sum[2]), &slot.products[0]);
            let square = sqr(inverse).factor();
            let x = mul(Field::load::<10>(&slot.sum[0]), square).carry();
            let y = mul(Field::load::<2>(&slot.sum[1]), mul(square, inverse).factor()).carry();
            // A sum that was computed wrong is hardly ever on the curve.
            let is_point = sqr(y).sub(curve(x).sum()).add_p::<2>().carry().is_zero();
            slot.flagged |= !V::mask_bits(is_point);
            for (row, words) in slot.key.iter_mut().zip(x.canonical().pack().into_iter().chain(y.canonical().pack())) {
                words.store(row);
            }
        }
    }
}

/// One over each lane. `None` when a lane is zero.
///
/// One inversion of plain code for the product of all lanes: 0.7 µs, where the power p − 2 in vectors takes eight.
#[inline(always)]
fn invert<V: Lanes>(x: Field<V>) -> Option<Field<V>> {
    let pairs = mul(x, x.swap::<1>()).carry();
    let quads = mul(pairs, pairs.swap::<2>()).carry();
    let others = mul(mul(x.swap::<1>(), pairs.swap::<2>()).factor(), quads.swap::<4>()).factor();
    let product = mul(quads, quads.swap::<4>()).carry();
    let mut words = [0; 4];
    for (word, vector) in words.iter_mut().zip(product.canonical().pack()) {
        let mut row = [0; LANES];
        vector.store(&mut row);
        *word = row[0];
    }
    let inverse = U256::from_limbs(words).inv_mod(MODULUS)?.into_limbs();
    Some(mul(others, Field::splat(inverse)).carry())
}

#[inline(always)]
fn load_rows<V: Lanes>(rows: &[[u64; LANES]; 4]) -> [V; 4] {
    [V::load(&rows[0]), V::load(&rows[1]), V::load(&rows[2]), V::load(&rows[3])]
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

/// Writes a point with x and y below 2^256 as a line for each lane.
#[inline(always)]
fn store_entry<V: Lanes>(table: &mut [Line; POINT_ENTRIES * LANES], entry: usize, x: Field<V>, y: Field<V>) {
    if let [a, b, c, d, e, f, g, h] = &mut table[entry * LANES..(entry + 1) * LANES] {
        let xs = [&mut a.x, &mut b.x, &mut c.x, &mut d.x, &mut e.x, &mut f.x, &mut g.x, &mut h.x];
        V::store_columns(x.pack(), xs);
        let ys = [&mut a.y, &mut b.y, &mut c.y, &mut d.y, &mut e.y, &mut f.y, &mut g.y, &mut h.y];
        V::store_columns(y.pack(), ys);
    }
}
