//! Integers modulo the group order n: what R and G are multiplied by, cut into the windows of the sum.
//!
//! The key is Q = u1·G + u2·R with u1 = −z/r and u2 = s/r. u2 = k1 + k2·λ has halves of 128 bits (λ·(x, y) = (β·x, y)), u1 is cut
//! into its lower and upper 128 bits, for G and 2^128·G. Plain code, one signature after another: 4 % of the time of a recovery.

use alloy_primitives::U256;

use super::lanes::{LANES, Lanes};

type Words = [u64; 4];

/// The order of the group.
pub const N: Words = [0xbfd2_5e8c_d036_4141, 0xbaae_dce6_af48_a03b, 0xffff_ffff_ffff_fffe, 0xffff_ffff_ffff_ffff];

/// −1/n modulo 2^64.
const N_NEGATED_INVERSE: u64 = 0x4b0d_ff66_5588_b13f;

/// The lattice of (a, b) with a + b·λ = 0 has the short basis (A1, −B1), (A2, A1). Guide to Elliptic Curve Cryptography, 3.74.
const A1: [u64; 2] = [0xe86c_90e4_9284_eb15, 0x3086_d221_a7d4_6bcd];
const B1: [u64; 2] = [0x6f54_7fa9_0abf_e4c3, 0xe443_7ed6_010e_8828];
const A2: [u64; 3] = [0x57c1_108d_9d44_cfd8, 0x14ca_50f7_a8e2_f3f6, 1];

/// 2^384·A1/n and 2^384·B1/n, rounded.
const G1: Words = [0xe893_209a_45db_b031, 0x3daa_8a14_71e8_ca7f, 0xe86c_90e4_9284_eb15, 0x3086_d221_a7d4_6bcd];
const G2: Words = [0x1571_b4ae_8ac4_7f71, 0x2212_08ac_9df5_06c6, 0x6f54_7fa9_0abf_e4c4, 0xe443_7ed6_010e_8828];

/// Bits of a window of R and λR: a table of 16 multiples a signature.
pub const POINT_WINDOW_BITS: u32 = 5;
/// Windows of a half of u2: 130 bits for a signed number of 128.
pub const POINT_WINDOWS: usize = 26;
/// Bits of a window of G and 2^128·G: twice those of R, so that every window of G has one of R to be merged with.
pub const BASE_WINDOW_BITS: u32 = 2 * POINT_WINDOW_BITS;
/// Windows of a half of u1: 130 bits for an unsigned number of 128.
pub const BASE_WINDOWS: usize = POINT_WINDOWS / 2;

/// Windows of R and λR, then those of G and 2^128·G.
pub const PAIRS: usize = POINT_WINDOWS + BASE_WINDOWS;

/// The scalars of eight signatures, of R, λR, G and 2^128·G, ready to be cut into digits.
///
/// Word `l` of row `i` is word `i` of lane `l`. A signed digit d, −2^(w−1) ≤ d < 2^(w−1), is a slice of w bits less 2^(w−1): each
/// scalar has 2^(w−1) added at every window, which makes the digits slices, with no carry from one to the next.
#[derive(Clone, Copy)]
pub struct Digits([[[u64; LANES]; 3]; 4]);

impl Digits {
    pub const ZERO: Self = Self([[[0; LANES]; 3]; 4]);

    /// Sets one lane from the two multipliers, both below n.
    pub fn set(&mut self, lane: usize, u1: Words, u2: Words) {
        let [k1, k2] = split(u2);
        self.set_scalar(0, lane, add_192(k1, POINT_BIAS));
        self.set_scalar(1, lane, add_192(k2, POINT_BIAS));
        self.set_scalar(2, lane, add_192([u1[0], u1[1], 0], BASE_BIAS));
        self.set_scalar(3, lane, add_192([u1[2], u1[3], 0], BASE_BIAS));
    }

    fn set_scalar(&mut self, scalar: usize, lane: usize, words: [u64; 3]) {
        for (row, word) in self.0[scalar].iter_mut().zip(words) {
            row[lane] = word;
        }
    }

    /// The digits of a half of a pair.
    #[inline(always)]
    pub fn digit<V: Lanes>(&self, pair: usize, half: usize) -> V {
        if pair < POINT_WINDOWS {
            self.slice::<V, POINT_WINDOW_BITS>(half, pair).sub(V::splat(1 << (POINT_WINDOW_BITS - 1)))
        } else {
            let window = pair - POINT_WINDOWS;
            self.slice::<V, BASE_WINDOW_BITS>(2 + half, window).sub(V::splat(1 << (BASE_WINDOW_BITS - 1)))
        }
    }

    #[inline(always)]
    fn slice<V: Lanes, const BITS: u32>(&self, scalar: usize, window: usize) -> V {
        let position = window as u32 * BITS; // Below 130.
        let (word, shift) = (position as usize / 64, position % 64);
        let rows = &self.0[scalar];
        let mut slice = V::load(&rows[word]).shr_packed_by(shift);
        if shift + BITS > 64 && word < 2 {
            slice = slice.or(V::load(&rows[word + 1]).shl_packed_by(64 - shift));
        }
        slice.low::<BITS>()
    }
}

const POINT_BIAS: [u64; 3] = bias(POINT_WINDOW_BITS, POINT_WINDOWS);
const BASE_BIAS: [u64; 3] = bias(BASE_WINDOW_BITS, BASE_WINDOWS);

/// 2^(w−1) at every window.
const fn bias(window_bits: u32, windows: usize) -> [u64; 3] {
    let mut bias = [0; 3];
    let mut window = 0;
    while window < windows {
        let bit = window * window_bits as usize + window_bits as usize - 1;
        bias[bit / 64] |= 1 << (bit % 64);
        window += 1;
    }
    bias
}

/// k1 and k2 with k1 + k2·λ = `k` modulo n, as signed numbers of 192 bits whose absolute value is below 2^128 (2^127.4 at most).
pub fn split(k: Words) -> [[u64; 3]; 2] {
    // The point of the lattice nearest to (k, 0), nearly.
    let c1 = multiply_shift_384(k, G1);
    let c2 = multiply_shift_384(k, G2);
    let k1 = sub_192(sub_192([k[0], k[1], k[2]], multiply_192(c1, [A1[0], A1[1], 0])), multiply_192(c2, A2));
    let k2 = sub_192(multiply_192(c1, [B1[0], B1[1], 0]), multiply_192(c2, [A1[0], A1[1], 0]));
    [k1, k2]
}

/// `a`·`b` / 2^384, rounded to the nearest.
fn multiply_shift_384(a: Words, b: Words) -> [u64; 2] {
    let product = multiply(a, b);
    let carry = product[5] >> 63;
    let (low, overflow) = product[6].overflowing_add(carry);
    [low, product[7] + u64::from(overflow)]
}

/// Modulo 2^192.
fn multiply_192(a: [u64; 2], b: [u64; 3]) -> [u64; 3] {
    let mut sum = [0; 3];
    for (i, a) in a.into_iter().enumerate() {
        let mut carry = 0;
        for (sum, b) in sum[i..].iter_mut().zip(b) {
            (*sum, carry) = multiply_add(a, b, *sum, carry);
        }
    }
    sum
}

fn add_192(a: [u64; 3], b: [u64; 3]) -> [u64; 3] {
    let mut carry = false;
    std::array::from_fn(|i| {
        let sum;
        (sum, carry) = a[i].carrying_add(b[i], carry);
        sum
    })
}

fn sub_192(a: [u64; 3], b: [u64; 3]) -> [u64; 3] {
    let mut borrow = false;
    std::array::from_fn(|i| {
        let difference;
        (difference, borrow) = a[i].borrowing_sub(b[i], borrow);
        difference
    })
}

fn multiply(a: Words, b: Words) -> [u64; 8] {
    let mut product = [0; 8];
    for (i, a) in a.into_iter().enumerate() {
        let mut carry = 0;
        for (j, b) in b.into_iter().enumerate() {
            (product[i + j], carry) = multiply_add(a, b, product[i + j], carry);
        }
        product[i + 4] = carry;
    }
    product
}

/// The lower and upper word of `a`·`b` + `c` + `d`, which cannot overflow.
#[inline]
fn multiply_add(a: u64, b: u64, c: u64, d: u64) -> (u64, u64) {
    let sum = u128::from(a) * u128::from(b) + u128::from(c) + u128::from(d);
    (sum as u64, (sum >> 64) as u64)
}

/// Montgomery's product: `a`·`b` / 2^256 modulo n, below n. One of the two must be below n, the other may be any number of 256 bits.
#[inline]
fn montgomery(a: Words, b: Words) -> Words {
    let mut t = [0_u64; 4];
    let mut top = 0;
    for a in a {
        let mut carry = 0;
        for (t, b) in t.iter_mut().zip(b) {
            (*t, carry) = multiply_add(a, b, *t, carry);
        }
        let (mid, over) = carry.overflowing_add(top);
        let m = t[0].wrapping_mul(N_NEGATED_INVERSE);
        let (_, mut carry) = multiply_add(m, N[0], t[0], 0);
        for i in 1..4 {
            (t[i - 1], carry) = multiply_add(m, N[i], t[i], carry);
        }
        let (last, over_again) = mid.overflowing_add(carry);
        t[3] = last;
        // Both cannot happen: the sum stays below 2^257.
        top = u64::from(over) + u64::from(over_again);
    }
    // Below 2n: one subtraction is enough.
    let (reduced, borrow) = sub(t, N);
    if top != 0 || !borrow { reduced } else { t }
}

#[inline]
fn sub(a: Words, b: Words) -> (Words, bool) {
    let mut borrow = false;
    let difference = std::array::from_fn(|i| {
        let word;
        (word, borrow) = a[i].borrowing_sub(b[i], borrow);
        word
    });
    (difference, borrow)
}

/// n − `a`, or zero for zero. `a` is below n.
fn negate(a: Words) -> Words {
    if a == [0; 4] { a } else { sub(N, a).0 }
}

/// A signature's numbers; r and s are neither zero nor above n − 1, z is any digest.
#[derive(Clone, Copy)]
pub struct Scalars {
    pub r: Words,
    pub s: Words,
    pub z: Words,
}

/// Calls `each` with the index, u1 and u2 of every signature, last one first, for one inversion.
///
/// Shapes: `scalars` and `products` are both `[n]`; `products` is scratch.
/// `None`: the product of all r has no inverse, which cannot be when every r is in range; nothing has been called.
pub fn multipliers(
    scalars: &[Scalars],
    products: &mut [Words],
    mut each: impl FnMut(usize, Words, Words),
) -> Option<()> {
    assert_eq!(scalars.len(), products.len());
    // Every Montgomery product divides by 2^256. products[i] is that of r0 to ri, whatever power that leaves: it cancels below.
    let mut product = scalars.first()?.r;
    for (scalar, slot) in scalars.iter().zip(products.iter_mut()).skip(1) {
        *slot = product;
        product = montgomery(product, scalar.r);
    }
    let inverse = U256::from_limbs(product).inv_mod(U256::from_limbs(N))?.into_limbs();
    // 1/product times 2^256: the factor turns the division of the next product into none.
    let mut inverse = montgomery(inverse, MONTGOMERY_SQUARE);
    for (index, scalar) in scalars.iter().enumerate().rev() {
        let inverse_r = if index == 0 { inverse } else { montgomery(inverse, products[index]) };
        inverse = montgomery(inverse, scalar.r);
        each(index, negate(montgomery(inverse_r, scalar.z)), montgomery(inverse_r, scalar.s));
    }
    Some(())
}

/// 2^512 modulo n.
const MONTGOMERY_SQUARE: Words =
    [0x896c_f214_67d7_d140, 0x7414_96c2_0e7c_f878, 0xe697_f5e4_5bcd_07c6, 0x9d67_1cd5_81c6_9bc5];
