#![allow(unsafe_code, reason = "the call into code that needs BMI")]
//! One sponge in general registers, compiled for processors with and-not and three-operand rotate instructions (BMI 1 and 2).

use alloy_primitives::B256;

use super::RATE_BYTES;

/// Whether this processor has the instructions.
pub fn is_available() -> bool {
    std::arch::is_x86_feature_detected!("bmi1") && std::arch::is_x86_feature_detected!("bmi2")
}

/// Keccak-256 of one message. The caller has checked [`is_available`].
pub fn keccak256(message: &[u8]) -> B256 {
    debug_assert!(is_available());
    // SAFETY: `super::keccak256`, the only user of this function, asked `is_available` first.
    unsafe { hash(message) }
}

macro_rules! rotate {
    ($word:expr, $count:literal) => {
        ($word).rotate_left($count)
    };
}

#[target_feature(enable = "bmi1,bmi2")]
fn hash(message: &[u8]) -> B256 {
    let mut state = [0u64; 25];
    let (blocks, rest) = message.as_chunks::<RATE_BYTES>();
    for block in blocks {
        absorb(&mut state, block);
    }
    let mut last = [0; RATE_BYTES];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x01;
    last[RATE_BYTES - 1] |= 0x80;
    absorb(&mut state, &last);
    let mut digest = B256::ZERO;
    for (bytes, word) in digest.as_chunks_mut::<8>().0.iter_mut().zip(&state) {
        *bytes = word.to_le_bytes();
    }
    digest
}

#[inline]
#[target_feature(enable = "bmi1,bmi2")]
fn absorb(state: &mut [u64; 25], block: &[u8; RATE_BYTES]) {
    for (word, bytes) in state.iter_mut().zip(block.as_chunks::<8>().0) {
        *word ^= u64::from_le_bytes(*bytes);
    }
    permute(state);
}

#[target_feature(enable = "bmi1,bmi2")]
fn permute(state: &mut [u64; 25]) {
    let mut a = *state;
    permute!(a);
    *state = a;
}

fn broadcast(word: u64) -> u64 {
    word
}

fn xor(a: u64, b: u64) -> u64 {
    a ^ b
}

/// The order lets the compiler compute `b ^ c` once for the five words of a column.
fn xor3(a: u64, b: u64, c: u64) -> u64 {
    a ^ (b ^ c)
}

fn chi(a: u64, b: u64, c: u64) -> u64 {
    a ^ (!b & c)
}
