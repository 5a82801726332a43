//! Field, scalars and tables against plain big numbers.

use std::collections::HashSet;

use alloy_primitives::Uint;

use super::*;
use crate::crypto::recovery::field::{CARRY_MAX, Columns, FOLD, Field, Stored, mul, sqr};
use crate::crypto::recovery::lanes::{LANES, Lanes, Stage};
use crate::crypto::recovery::point::square_root;
use crate::crypto::recovery::scalars::{
    BASE_WINDOW_BITS, BASE_WINDOWS, Digits, N, PAIRS, POINT_WINDOW_BITS, POINT_WINDOWS, Scalars, multipliers, split,
};
use crate::crypto::recovery::tables::{BASE_ENTRIES, line};

type Wide = Uint<1088, 17>;

const DIGIT_MAX: u64 = (1 << 52) - 1;
const LAMBDA: &str = "0x5363ad4cc05c30e0a5261c028812645a122e22ea20816678df02967c1b23bd72";

fn p() -> Wide {
    (Wide::from(1) << 256) - Wide::from(FOLD)
}

fn value(limbs: [u64; 5]) -> Wide {
    limbs.iter().rev().fold(Wide::ZERO, |sum, limb| (sum << 52) + Wide::from(*limb))
}

fn lane(stored: &Stored, lane: usize) -> Wide {
    value(stored.0.map(|row| row[lane]))
}

fn stored(values: [[u64; 5]; LANES]) -> Stored {
    Stored(std::array::from_fn(|limb| std::array::from_fn(|lane| values[lane][limb])))
}

/// Operands of magnitude up to 15: limbs of zeros and ones only, random ones, and multiples of p less or more a little.
fn operand(random: &mut StdRng) -> [u64; 5] {
    let top_max = (15 << 48) + CARRY_MAX;
    match random.random_range(0..4) {
        0 => {
            let mut limbs = [(); 5].map(|()| [0, 1, DIGIT_MAX - 1, DIGIT_MAX][random.random_range(0..4)]);
            limbs[4] = [0, 1, 1 << 48, (1 << 48) - 1, top_max][random.random_range(0..5)];
            limbs
        }
        1 => {
            let near = p() * Wide::from(random.random_range(1..15_u64)) + Wide::from(random.random_range(0..6_u64));
            let near = near - Wide::from(random.random_range(0..6_u64));
            std::array::from_fn(|limb| ((near >> (52 * limb)) & Wide::from(DIGIT_MAX)).to::<u64>())
        }
        _ => {
            let mut limbs = [(); 5].map(|()| random.random_range(0..=DIGIT_MAX));
            limbs[4] = random.random_range(0..=top_max);
            limbs
        }
    }
}

/// Runs every field operation on the same operands.
struct Operations<'a> {
    a: &'a Stored,
    b: &'a Stored,
    results: &'a mut [Stored; 9],
    zero: &'a mut u8,
}

impl Stage for Operations<'_> {
    fn run<V: Lanes>(self) {
        let a = Field::<V>::load::<15>(self.a);
        let b = Field::<V>::load::<15>(self.b);
        let [r0, r1, r2, r3, r4, r5, r6, r7, r8] = self.results;
        mul(a, b).carry().store::<1>(r0);
        sqr(a).carry().store::<1>(r1);
        // 15 · 15 + 8 · 1 · 1 products are far below the 256 that fit.
        Columns::square(mul(a, a).factor()).times_8().add_product(a, b).reduce().negate_p::<2>().carry().store::<2>(r2);
        a.canonical().store::<1>(r3);
        a.sum().add_p::<1>().shrink().carry().store::<2>(r4);
        mul(b, b).sub(mul(a, a).times_3().shl::<2>()).add_p::<13>().carry().store::<14>(r5);
        Field::unpack(a.canonical().pack()).store::<1>(r6);
        a.below_2_256().store::<1>(r7);
        square_root(&[mul(a, a).carry(), a])[0].store::<1>(r8);
        *self.zero = V::mask_bits(a.is_zero());
    }
}

fn check_operations(engine: impl Engine, rounds: usize) {
    let mut random = StdRng::seed_from_u64(9);
    let p = p();
    for _ in 0..rounds {
        let a = stored(std::array::from_fn(|_| operand(&mut random)));
        let b = stored(std::array::from_fn(|_| operand(&mut random)));
        let (mut results, mut zero) = ([Stored::ZERO; 9], 0);
        engine.run(Operations { a: &a, b: &b, results: &mut results, zero: &mut zero });
        for index in 0..LANES {
            let (a, b) = (lane(&a, index), lane(&b, index));
            let square = a * a % p;
            let expected = [
                a * b % p,
                square,
                (p - (square * square * Wide::from(8) + a * b) % p) % p,
                a % p,
                a % p,
                (b * b + (p - square) * Wide::from(12)) % p,
                a % p,
                a % p,
            ];
            for (operation, (result, expected)) in results.iter().zip(expected).enumerate() {
                let result = lane(result, index);
                assert_eq!(result % p, expected, "operation {operation}, a {a:#x}, b {b:#x}");
                let is_exact = matches!(operation, 3 | 6);
                assert!(!is_exact || result == expected, "operation {operation} is not canonical: {result:#x}");
                assert!(operation != 7 || result < Wide::from(1) << 256, "{result:#x}");
            }
            // The root of a² is a or −a.
            let root = lane(&results[8], index) % p;
            assert!(root == a % p || root == (p - a % p) % p, "root of the square of {a:#x}: {root:#x}");
            assert_eq!(zero & 1 << index != 0, a % p == Wide::ZERO, "{a:#x}");
        }
    }
}

#[test]
fn field_operations_equal_big_numbers() {
    check_operations(Words, if is_long() { 1_000 } else { 60 });
    if let Some(engine) = detected("field") {
        check_operations(engine, if is_long() { 10_000 } else { 400 });
    }
}

fn to_u256(words: [u64; 4]) -> U256 {
    U256::from_limbs(words)
}

/// A signed number of 192 bits modulo n.
fn modulo_n(words: [u64; 3]) -> U256 {
    let is_negative = words[2] >> 63 == 1;
    let value = to_u256([words[0], words[1], words[2], 0]);
    if is_negative { GROUP_ORDER - ((U256::from(1) << 192) - value) } else { value }
}

fn scalars(random: &mut StdRng) -> Vec<U256> {
    let n = GROUP_ORDER;
    let lambda: U256 = LAMBDA.parse().expect("a number");
    let mut scalars = vec![U256::ZERO, n >> 1, (n >> 1) + U256::from(1)];
    for base in [U256::from(1), n, lambda, n - lambda, U256::from(1) << 128, U256::from(1) << 127, U256::from(1) << 255]
    {
        for distance in 0..3 {
            scalars.push(base.wrapping_sub(U256::from(distance)).reduce_mod(n));
            scalars.push(base.wrapping_add(U256::from(distance)).reduce_mod(n));
        }
    }
    let count = if is_long() { 200_000 } else { 2_000 };
    scalars.extend((0..count).map(|_| U256::from_limbs(random.random()).reduce_mod(n)));
    // Where the rounding of the split is nearly undecided: halves and near multiples of the lattice's steps.
    scalars.extend((1..400_u64).map(|step| (n / U256::from(step)).wrapping_add(U256::from(step % 3)).reduce_mod(n)));
    scalars
}

#[test]
fn a_scalar_is_the_sum_of_its_halves() {
    assert_eq!(to_u256(N), GROUP_ORDER);
    let lambda: U256 = LAMBDA.parse().expect("a number");
    let mut longest = 0;
    for scalar in scalars(&mut StdRng::seed_from_u64(10)) {
        let [k1, k2] = split(scalar.into_limbs());
        let sum = modulo_n(k1).add_mod(modulo_n(k2).mul_mod(lambda, GROUP_ORDER), GROUP_ORDER);
        assert_eq!(sum, scalar);
        for half in [k1, k2] {
            let magnitude = modulo_n(half).min(GROUP_ORDER - modulo_n(half));
            assert!(magnitude.bit_len() <= 128, "{scalar:#x}: a half is {magnitude:#x}");
            longest = longest.max(magnitude.bit_len());
        }
    }
    println!("halves have at most {longest} bits");
}

/// Reads the digits as the stages do.
struct ReadDigits<'a> {
    digits: &'a Digits,
    out: &'a mut [[[i64; LANES]; 2]; PAIRS],
}

impl Stage for ReadDigits<'_> {
    fn run<V: Lanes>(self) {
        for (pair, halves) in self.out.iter_mut().enumerate() {
            for (half, lanes) in halves.iter_mut().enumerate() {
                let mut words = [0; LANES];
                self.digits.digit::<V>(pair, half).store(&mut words);
                *lanes = words.map(u64::cast_signed);
            }
        }
    }
}

#[test]
fn digits_add_up_to_their_scalars() {
    let all = scalars(&mut StdRng::seed_from_u64(11));
    let lambda: U256 = LAMBDA.parse().expect("a number");
    let signed = |digit: i64| if digit < 0 { GROUP_ORDER - U256::from(-digit) } else { U256::from(digit) };
    let sum = |out: &[[[i64; LANES]; 2]], half: usize, lane: usize, bits: u32| {
        out.iter().rev().fold(U256::ZERO, |sum, pair| {
            let digit = pair[half][lane];
            assert!((-(1 << (bits - 1))..1 << (bits - 1)).contains(&digit), "{digit}");
            sum.mul_mod(U256::from(1 << bits), GROUP_ORDER).add_mod(signed(digit), GROUP_ORDER)
        })
    };
    for scalars in all.windows(LANES).step_by(LANES) {
        let mut digits = Digits::ZERO;
        for (lane, scalar) in scalars.iter().enumerate() {
            digits.set(lane, scalars[LANES - 1 - lane].into_limbs(), scalar.into_limbs());
        }
        let mut out = [[[0; LANES]; 2]; PAIRS];
        Words.run(ReadDigits { digits: &digits, out: &mut out });
        let (point, base) = out.split_at(POINT_WINDOWS);
        assert_eq!(base.len(), BASE_WINDOWS);
        for (lane, scalar) in scalars.iter().enumerate() {
            let [k1, k2] = [0, 1].map(|half| sum(point, half, lane, POINT_WINDOW_BITS));
            assert_eq!(k1.add_mod(k2.mul_mod(lambda, GROUP_ORDER), GROUP_ORDER), *scalar);
            let [low, high] = [0, 1].map(|half| sum(base, half, lane, BASE_WINDOW_BITS));
            assert_eq!(low + (high << 128), scalars[LANES - 1 - lane]);
        }
    }
}

#[test]
fn multipliers_undo_the_division_by_r() {
    let mut random = StdRng::seed_from_u64(12);
    let numbers = scalars(&mut random);
    for length in [1, 2, 3, 8, 64, 128] {
        let inputs: Vec<Scalars> = (0..length)
            .map(|_| {
                let number = |random: &mut StdRng| numbers[random.random_range(1..numbers.len())];
                let r = loop {
                    let r = number(&mut random);
                    if r != U256::ZERO {
                        break r;
                    }
                };
                // A digest can be any number, the group order and above included.
                let z = [U256::ZERO, GROUP_ORDER, U256::MAX, number(&mut random)][random.random_range(0..4)];
                Scalars { r: r.into_limbs(), s: number(&mut random).into_limbs(), z: z.into_limbs() }
            })
            .collect();
        let mut seen = vec![false; length];
        let mut products = vec![[0; 4]; length];
        let done = multipliers(&inputs, &mut products, |index, u1, u2| {
            let Scalars { r, s, z } = inputs[index];
            let (r, u1, u2) = (to_u256(r), to_u256(u1), to_u256(u2));
            assert!(u1 < GROUP_ORDER, "{u1:#x}");
            assert!(u2 < GROUP_ORDER, "{u2:#x}");
            assert_eq!(u2.mul_mod(r, GROUP_ORDER), to_u256(s).reduce_mod(GROUP_ORDER));
            assert_eq!(u1.mul_mod(r, GROUP_ORDER).add_mod(to_u256(z), GROUP_ORDER), U256::ZERO);
            seen[index] = true;
        });
        assert!(done.is_some());
        assert!(seen.iter().all(|seen| *seen));
    }
    let zero = Scalars { r: [0; 4], s: [1, 0, 0, 0], z: [0; 4] };
    assert!(multipliers(&[zero], &mut [[0; 4]], |_, _, _| {}).is_none());
}

/// What `PairUp` takes for granted: two multiples of a pair differ in x.
#[test]
fn points_of_a_pair_are_never_equal_or_opposite() {
    let tables = tables();
    let all: HashSet<[u64; 4]> = tables.base.iter().flat_map(|table| &table[1..]).map(|line| line.x).collect();
    assert_eq!(all.len(), 2 * (BASE_ENTRIES - 1));
    let lambda: U256 = LAMBDA.parse().expect("a number");
    let digit_max = 1_i64 << (POINT_WINDOW_BITS - 1);
    for first in 1..=digit_max {
        for second in 1..=digit_max {
            let second = lambda.mul_mod(U256::from(second), GROUP_ORDER);
            assert_ne!(second, U256::from(first));
            assert_ne!(GROUP_ORDER - second, U256::from(first));
        }
    }
}

#[test]
fn tables_hold_multiples_of_the_generator() {
    let tables = tables();
    for (half, table) in tables.base.iter().enumerate() {
        for index in [1, 2, 3, 15, 16, 17, 255, 256, 511, 512] {
            let scalar = U256::from(index) << (128 * half);
            let point = SecretKey::from_byte_array(scalar.to_be_bytes()).expect("a key").public_key(SECP256K1);
            let expected = line(&point);
            assert_eq!((table[index].x, table[index].y), (expected.x, expected.y), "{index} of table {half}");
        }
    }
    // Two processes, or two calls, have different offsets; one process has one.
    assert_eq!(tables.offset.x, super::tables().offset.x);
    assert_ne!(tables.offset.x, crate::crypto::recovery::tables::GENERATOR.x);
}
