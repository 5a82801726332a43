//! Points of y² = x³ + 7, `S` vectors of eight at a time, so that one vector's latency hides behind another's work.
//!
//! Sums of points are Jacobian: (X, Y, Z) is the affine (X/Z², Y/Z³). Neither formula has an exception inside: where an addition
//! should have doubled or met infinity, Z becomes zero, and zero it stays to the end, where one look finds it.

use super::field::{Columns, Factor, Field, mul, sqr};
use super::lanes::Lanes;

/// Magnitudes: x at most 10, y and z at most 2, and a little for carries. See [`double`] and [`add`].
#[derive(Clone, Copy)]
pub struct Jacobian<V, const S: usize> {
    pub x: [Field<V>; S],
    pub y: [Field<V>; S],
    pub z: [Field<V>; S],
}

/// An affine point to add: x of magnitude 7 at most, y of 9.
#[derive(Clone, Copy)]
pub struct Addend<V: Lanes, const S: usize> {
    pub x: [Field<V>; S],
    pub y: [Field<V>; S],
    /// Where nothing is to be added.
    pub absent: [V::Mask; S],
}

/// `[value of vector 0, …]`: `value` holds one or two multiplications, so the processor overlaps neighbours. A macro, because a
/// closure cannot be told to be inlined.
macro_rules! each {
    ($s:ident => $value:expr) => {{
        let mut values = [{
            let $s = 0;
            $value
        }; S];
        for $s in 1..S {
            values[$s] = $value;
        }
        values
    }};
}
pub(super) use each;

/// 2P: with A = X², B = Y², E = 3A, D = X·B it is X' = E² − 8D, Y' = E·(4D − X') − 8B², Z' = 2·Y·Z.
#[inline(always)]
pub fn double<V: Lanes, const S: usize>(p: &Jacobian<V, S>) -> Jacobian<V, S> {
    let e = each!(s => sqr(p.x[s]).times_3().factor());
    let b = each!(s => sqr(p.y[s]).factor());
    let f = each!(s => sqr(e[s]));
    let d = each!(s => mul(p.x[s], b[s]));
    let z = each!(s => mul(p.y[s], p.z[s]).shl::<1>().carry());
    let x = each!(s => f[s].sub(d[s].shl::<3>()).add_p::<9>().carry());
    // X' − 4D, before X' is carried.
    let t = each!(s => f[s].sub(d[s].times_3().shl::<2>()).add_p::<13>().factor());
    let y = each!(s => Columns::square(b[s]).times_8().add_product(e[s], t[s]).reduce().negate_p::<2>().carry());
    Jacobian { x, y, z }
}

/// P + Q where Q is present, P elsewhere: with H = x·Z² − X, R = y·Z³ − Y, V = X·H² it is X' = R² − H³ − 2V,
/// Y' = R·(V − X') − Y·H³, Z' = Z·H.
#[inline(always)]
pub fn add<V: Lanes, const S: usize>(p: &Jacobian<V, S>, q: &Addend<V, S>) -> Jacobian<V, S> {
    let zz = each!(s => sqr(p.z[s]).factor());
    let h = each!(s => mul(q.x[s], zz[s]).sub(p.x[s].sum()).add_p::<11>().factor());
    let zzz = each!(s => mul(p.z[s], zz[s]).factor());
    let r = each!(s => mul(q.y[s], zzz[s]).sub(p.y[s].sum()).add_p::<4>().factor());
    let hh = each!(s => sqr(h[s]).factor());
    let z = each!(s => mul(p.z[s], h[s]).carry());
    let hhh = each!(s => mul(h[s], hh[s]).carry());
    let v = each!(s => mul(p.x[s], hh[s]));
    // R² − H³.
    let w = each!(s => sqr(r[s]).sub(hhh[s].sum()));
    let x = each!(s => w[s].sub(v[s].shl::<1>()).add_p::<4>().carry());
    // X' − V, before X' is carried.
    let u = each!(s => w[s].sub(v[s].times_3()).add_p::<5>().factor());
    let y = each!(s => Columns::product(r[s], u[s]).add_product(p.y[s], hhh[s]).reduce().negate_p::<2>().carry());
    Jacobian {
        x: each!(s => p.x[s].select(x[s], q.absent[s])),
        y: each!(s => p.y[s].select(y[s], q.absent[s])),
        z: each!(s => p.z[s].select(z[s], q.absent[s])),
    }
}

/// Steps towards the exponent (p + 1) / 4, whose ones are runs of 223, 22 and 2: square so many times, then multiply by what an
/// earlier step came to. Step i comes to `chain[i + 1]`, of which the first two hundred and more bits are the run in the comment.
const ROOT_STEPS: [(u32, usize); 13] = [
    (1, 0),  // 2
    (1, 0),  // 3
    (3, 2),  // 6
    (3, 2),  // 9
    (2, 1),  // 11
    (11, 5), // 22
    (22, 6), // 44
    (44, 7), // 88
    (88, 8), // 176
    (44, 7), // 220
    (3, 2),  // 223
    (23, 6), // 223, a zero, 22
    (6, 1),  // 223, a zero, 22, four zeros, 2
];

/// `x`^((p + 1) / 4): a square root of x if it has one.
#[inline(always)]
pub fn square_root<V: Lanes, const S: usize>(x: &[Field<V>; S]) -> [Field<V>; S] {
    let mut last = each!(s => x[s].into_factor());
    let mut chain = [last; ROOT_STEPS.len() + 1];
    for (step, (squarings, factor)) in ROOT_STEPS.into_iter().enumerate() {
        last = square_times(&last, squarings);
        last = each!(s => mul(last[s], chain[factor][s]).factor());
        chain[step + 1] = last;
    }
    last = square_times(&last, 1);
    each!(s => sqr(last[s]).carry())
}

#[inline(always)]
fn square_times<V: Lanes, const S: usize>(x: &[Factor<V>; S], count: u32) -> [Factor<V>; S] {
    let mut x = *x;
    for _ in 0..count {
        x = each!(s => sqr(x[s]).factor());
    }
    x
}
