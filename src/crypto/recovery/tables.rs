//! Constants of the process: multiples of G, and a secret point that every sum starts from.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use secp256k1::{PublicKey, SECP256K1, Scalar, SecretKey};

use super::scalars::{BASE_WINDOW_BITS, POINT_WINDOW_BITS, POINT_WINDOWS};
use crate::crypto::keccak::keccak256;

/// x and y of an affine point, both below 2^256, in 64-bit words, lowest first.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line {
    pub x: [u64; 4],
    pub y: [u64; 4],
}

impl Line {
    pub const ZERO: Self = Self { x: [0; 4], y: [0; 4] };
}

/// |digit| of a window of G, zero included.
pub const BASE_ENTRIES: usize = (1 << (BASE_WINDOW_BITS - 1)) + 1;

/// How often a sum is doubled from its first addition to its last.
pub const DOUBLINGS: usize = (POINT_WINDOWS - 1) * POINT_WINDOW_BITS as usize;

/// The generator.
pub const GENERATOR: Line = Line {
    x: [0x59f2_815b_16f8_1798, 0x029b_fcdb_2dce_28d9, 0x55a0_6295_ce87_0b07, 0x79be_667e_f9dc_bbac],
    y: [0x9c47_d08f_fb10_d4b8, 0xfd17_b448_a685_5419, 0x5da4_fbfc_0e11_08a8, 0x483a_da77_26a3_c465],
};

/// Two tables of 32 KiB of G, and the offset.
pub struct Tables {
    /// Entry i is i·G, and i·2^128·G; entry 0 is never added.
    pub base: [Box<[Line; BASE_ENTRIES]>; 2],
    /// T: where every sum starts. Nobody outside knows it, so nobody can make signatures whose sums meet it.
    pub offset: Line,
    /// −2^[`DOUBLINGS`]·T: what is left of T at the end.
    pub offset_end: Line,
}

/// The tables of this process, made by libsecp256k1 at the first call: a few milliseconds.
pub fn tables() -> &'static Tables {
    static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables::with_offset(secret()));
    &TABLES
}

impl Tables {
    /// Tables whose offset point is `offset`·G.
    pub fn with_offset(offset: SecretKey) -> Self {
        let generator = SecretKey::from_byte_array(power_of_two(0)).expect("one is a key").public_key(SECP256K1);
        let offset = offset.public_key(SECP256K1);
        let offset_end = times_power_of_two(&offset, DOUBLINGS).negate(SECP256K1);
        Self {
            base: [multiples(&generator), multiples(&times_power_of_two(&generator, 128))],
            offset: line(&offset),
            offset_end: line(&offset_end),
        }
    }
}

/// A key that no other process has. The standard library seeds its hash maps from the system's random bytes, once per thread.
fn secret() -> SecretKey {
    let mut seed = [0; 64];
    let state = RandomState::new();
    for (index, word) in seed.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = state.hash_one(index).to_le_bytes();
    }
    SecretKey::from_byte_array(keccak256(&seed).0).expect("one in 2^127 hashes is no key")
}

fn power_of_two(exponent: usize) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[31 - exponent / 8] = 1 << (exponent % 8);
    bytes
}

fn times_power_of_two(point: &PublicKey, exponent: usize) -> PublicKey {
    let scalar = Scalar::from_be_bytes(power_of_two(exponent)).expect("below the group order");
    point.mul_tweak(SECP256K1, &scalar).expect("the scalar is not zero")
}

fn multiples(point: &PublicKey) -> Box<[Line; BASE_ENTRIES]> {
    let mut entries = Box::new([Line::ZERO; BASE_ENTRIES]);
    let mut multiple = *point;
    for index in 1..BASE_ENTRIES {
        entries[index] = line(&multiple);
        multiple = multiple.combine(point).expect("the order of the group is greater");
    }
    entries
}

pub fn line(point: &PublicKey) -> Line {
    let bytes = point.serialize_uncompressed();
    let words = bytes[1..].as_chunks::<8>().0;
    let word = |index: usize| u64::from_be_bytes(words[index]);
    Line { x: [word(3), word(2), word(1), word(0)], y: [word(7), word(6), word(5), word(4)] }
}
