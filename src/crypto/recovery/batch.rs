//! A batch of signatures through all stages: lift, multipliers, tables of R, windows, the sum, and back to affine.
//!
//! Every stage runs over the whole batch before the next one, because the batch shares its inversions. Where one lane's value would
//! poison a shared product (R not on the curve, sum at infinity), it is replaced by a harmless one first and the lane is flagged.

use super::field::{Field, Stored, mul, sqr};
use super::inversion::Chains;
use super::lanes::{Engine, LANES, Lanes, Stage};
use super::point::{Addend, Jacobian, add, double, each, square_root};
use super::scalars::{self, Digits, POINT_WINDOW_BITS, POINT_WINDOWS, Scalars};
use super::tables::{GENERATOR, Line, Tables};
use super::windows::{Merge, PairUp, Windows};

/// Vectors of a batch.
pub const VECTORS_MAX: usize = 16;

/// Signatures of a batch.
pub const ITEMS_MAX: usize = VECTORS_MAX * LANES;

/// Multiples of R: |digit| of a window, zero included.
const POINT_ENTRIES: usize = (1 << (POINT_WINDOW_BITS - 1)) + 1;

/// Multiples of R that others are made of.
const PARTS: usize = POINT_ENTRIES / 2;

/// Vectors that are summed up side by side. Two hide each other's latency and do not fit into the registers: on Zen 4, which starts one
/// multiplication a cycle, one by itself is 2.6 % faster. A processor that starts two may like two better.
const SUM_VECTORS: usize = 1;

/// Vectors whose windows are worked out together.
const WINDOWS_VECTORS: usize = 8;

/// What a signature needs to be: numbers in range, else the caller does not hand it over.
#[derive(Clone, Copy)]
pub struct Input {
    pub scalars: Scalars,
    /// R has an odd y.
    pub is_odd: bool,
}

/// Takes a lane where there is no signature: r = s = 1, z = 0. The curve has points with x = 1.
pub const NO_INPUT: Input = Input { scalars: Scalars { r: [1, 0, 0, 0], s: [1, 0, 0, 0], z: [0; 4] }, is_odd: false };

/// Eight signatures on their way through the stages: about 19 KB.
#[derive(Clone)]
pub struct Slot {
    /// Words of the x of R; word `l` of row `i` is word `i` of lane `l`.
    x: [[u64; LANES]; 4],
    /// Lanes whose R has an odd y.
    is_odd: u8,
    /// Lanes of which the result says nothing.
    pub flagged: u8,
    pub digits: Digits,
    /// Line `8·i + l` is i·R of lane `l`; zeros for i = 0.
    pub table: [Line; POINT_ENTRIES * LANES],
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

/// What a [`Workspace`] allocates: 540 KiB.
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
            for (row, word) in slot.x.iter_mut().zip(numbers.r) {
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
            let (slots, slots_left) = slots.as_chunks_mut::<SUM_VECTORS>();
            let (windows, windows_left) = windows.as_chunks::<SUM_VECTORS>();
            for (slots, windows) in slots.iter_mut().zip(windows) {
                engine.run(SumUp { slots: slots.each_mut(), windows: windows.each_ref(), tables });
            }
            for (slot, windows) in slots_left.iter_mut().zip(windows_left) {
                engine.run(SumUp { slots: [slot], windows: [windows], tables });
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
                addend = Addend {
                    x: each!(s => Field::load::<7>(&windows[s].points[window][0])),
                    y: each!(s => Field::load::<9>(&windows[s].points[window][1])),
                    absent: each!(s => V::mask(windows[s].absent[window])),
                };
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

#[inline(always)]
fn load_rows<V: Lanes>(rows: &[[u64; LANES]; 4]) -> [V; 4] {
    [V::load(&rows[0]), V::load(&rows[1]), V::load(&rows[2]), V::load(&rows[3])]
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
