//! One inversion for many: divisors in, one over each of them out, by the product of all.

use alloy_primitives::U256;

use super::field::{FOLD, Factor, Field, Stored, mul};
use super::lanes::{LANES, Lanes};

/// p.
const MODULUS: U256 = U256::from_limbs([0u64.wrapping_sub(FOLD), u64::MAX, u64::MAX, u64::MAX]);

/// Montgomery's trick: one inversion for many divisors. Two products, of the even and of the odd vectors, so that the processor can
/// work on two multiplications at once.
pub struct Chains<V>([Field<V>; 2]);

impl<V: Lanes> Chains<V> {
    #[inline(always)]
    pub fn new() -> Self {
        Self([Field::one(); 2])
    }

    /// Takes a divisor, which is zero in no lane, and leaves the product of those before it.
    #[inline(always)]
    pub fn push(&mut self, chain: usize, divisor: Field<V>, product: &mut Stored) {
        self.0[chain].store::<1>(product);
        self.0[chain] = mul(self.0[chain], divisor).carry();
    }

    /// One over the divisor that was pushed last, given what was left then.
    #[inline(always)]
    pub fn pop(&mut self, chain: usize, divisor: Field<V>, product: &Stored) -> Factor<V> {
        let inverse = mul(self.0[chain], Field::load::<1>(product)).factor();
        self.0[chain] = mul(self.0[chain], divisor).carry();
        inverse
    }

    /// Turns from pushing to popping. False: a divisor was zero, and what is popped is worth nothing.
    #[inline(always)]
    pub fn invert(&mut self) -> bool {
        let [even, odd] = self.0;
        let Some(inverse) = invert(mul(even, odd).carry()) else {
            return false;
        };
        self.0 = [mul(inverse, odd).carry(), mul(inverse, even).carry()];
        true
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
