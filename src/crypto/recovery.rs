//! Signed digests in, sender addresses out, a slice at a time.
//!
//! Runs on: the ingress shard that decoded the transactions; replay and tests on their own threads.
//! Variable-time on purpose: everything here is public. Nothing here may ever sign.
//!
//! Two ways lead to the same senders. libsecp256k1 takes one signature after another, on every processor. Vector code takes
//! eight at once where there is AVX-512 IFMA (`recovery/`, bounds and invariants in `docs/notes/recovery.md`), and only ever answers
//! "this is the key" or "ask libsecp256k1": every refusal is libsecp256k1's. A sample of its answers is compared with libsecp256k1;
//! one disagreement ends its use for the life of the process ([`disagreement`]).
//!
//! A thread's first batch on the vectors allocates `WORKSPACE_BYTES`, which the thread keeps; later ones allocate nothing.

#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(any(test, target_arch = "x86_64"))]
mod batch;

#[cfg(any(test, target_arch = "x86_64"))]
mod field;

#[cfg(any(test, target_arch = "x86_64"))]
mod inversion;

#[cfg(any(test, target_arch = "x86_64"))]
mod lanes;

mod net;

#[cfg(any(test, target_arch = "x86_64"))]
mod point;

#[cfg(any(test, target_arch = "x86_64"))]
mod scalars;

#[cfg(any(test, target_arch = "x86_64"))]
mod tables;

#[cfg(any(test, target_arch = "x86_64"))]
mod vectors;

#[cfg(any(test, target_arch = "x86_64"))]
mod windows;

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests;

use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, SECP256K1};

use crate::crypto::keccak::{keccak256, keccak256_each};
use crate::primitives::{Address, B256, U256};
pub use net::{Disagreement, Status, configure, disagreement, status};

/// Which way batches take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Vectors where the processor has them.
    Auto,
    Libsecp256k1,
}

/// A single signature goes to libsecp256k1: eight lanes cost 1.1 (Zen 5) to 1.5 (Zen 4) of its recoveries, whether one of them is used or all.
pub const VECTOR_ITEMS_MIN: usize = 2;

/// What a thread that uses the vectors keeps in memory; the tables of G, 64 KiB, are shared.
#[cfg(any(test, target_arch = "x86_64"))]
pub const WORKSPACE_BYTES: usize = vectors::WORKER_BYTES;

/// Half the order of the group, rounded down: the largest `s` that EIP-2 allows.
pub const S_MAX: U256 =
    U256::from_limbs([0xdfe92f46681b20a0, 0x5d576e7357a4501d, 0xffffffffffffffff, 0x7fffffffffffffff]);

/// Order of the group that secp256k1 signatures live in.
pub const GROUP_ORDER: U256 =
    U256::from_limbs([0xbfd25e8cd0364141, 0xbaaedce6af48a03b, 0xfffffffffffffffe, 0xffffffffffffffff]);

/// Public keys whose addresses are hashed at once: as many as the widest vectors take.
const HASH_LANES: usize = 8;

/// A signature and what it signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverItem {
    pub digest: B256,
    pub r: [u8; 32],
    pub s: [u8; 32],
    pub y_parity: u8,
}

/// Why a signature has no sender. The sender of the bytes must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    #[error("signature s is above half the group order (EIP-2)")]
    HighS,
    #[error("signature r is zero or not below the group order")]
    ROutOfRange,
    #[error("signature s is zero")]
    SZero,
    #[error("signature y parity is {0}, expected 0 or 1")]
    YParity(u8),
    #[error("signature has no public key: r is not on the curve, or the key is the point at infinity")]
    NoPublicKey,
}

/// Recovers the senders of a batch of signed digests.
///
/// Runs on: ingress shard; never blocks, allocates only in a thread's first batch.
/// Shapes:  `items` and `senders` are both `[n]`, same order; any n, and best a multiple of 8 from 64 on.
/// Errors:  per entry; the other entries are still written.
/// Source:  EIP-2 (low s), yellow paper appendix F. Cost: `benches/codec.rs`.
pub fn recover_batch(items: &[RecoverItem], senders: &mut [Result<Address, RecoverError>]) {
    assert_eq!(items.len(), senders.len());
    #[cfg(target_arch = "x86_64")]
    if items.len() >= VECTOR_ITEMS_MIN
        && let Some(engine) = net::vector_engine()
    {
        return vectors::recover_on_this_thread(engine, items, senders);
    }
    recover_one_by_one(items, senders);
}

/// How many signatures cost [`recover_batch`] about as much as one of them, where it has several.
#[must_use]
pub fn round_items() -> usize {
    #[cfg(target_arch = "x86_64")]
    if net::vector_engine().is_some() {
        return lanes::LANES;
    }
    1
}

/// [`recover_batch`] by libsecp256k1 alone.
pub fn recover_one_by_one(items: &[RecoverItem], senders: &mut [Result<Address, RecoverError>]) {
    assert_eq!(items.len(), senders.len());
    for (items, senders) in items.chunks(HASH_LANES).zip(senders.chunks_mut(HASH_LANES)) {
        // A refused item leaves zeros, which are hashed with the others and then not used.
        let mut keys = [[0; 64]; HASH_LANES];
        for ((item, sender), key) in items.iter().zip(senders.iter_mut()).zip(&mut keys) {
            *sender = recover_key(item, key).map(|()| Address::ZERO);
        }
        address_each(&keys, senders);
    }
}

/// Writes the addresses of the keys x ‖ y of those that have one.
fn address_each(keys: &[[u8; 64]], senders: &mut [Result<Address, RecoverError>]) {
    keccak256_each(
        senders.len(),
        |index| &keys[index],
        |index, digest| {
            if let Ok(address) = &mut senders[index] {
                *address = address_of_hash(digest);
            }
        },
    );
}

/// The last 20 bytes of the hash of a key.
fn address_of_hash(hash: B256) -> Address {
    Address::from_slice(&hash[12..])
}

/// Recovers the sender of one signed digest, as `recover_batch` does for many.
pub fn recover(item: &RecoverItem) -> Result<Address, RecoverError> {
    let mut key = [0; 64];
    recover_key(item, &mut key)?;
    Ok(address_of_hash(keccak256(&key)))
}

/// Recovers the public key behind one signed digest and writes its x ‖ y.
///
/// Errors: see `RecoverError`; ranges are checked in the order of y parity, r, s.
fn recover_key(item: &RecoverItem, key: &mut [u8; 64]) -> Result<(), RecoverError> {
    check_ranges(&item.r, &item.s, item.y_parity)?;
    let mut compact = [0_u8; 64];
    compact[..32].copy_from_slice(&item.r);
    compact[32..].copy_from_slice(&item.s);
    let recovery_id = if item.y_parity == 0 { RecoveryId::Zero } else { RecoveryId::One };
    let signature = RecoverableSignature::from_compact(&compact, recovery_id).map_err(|_| RecoverError::NoPublicKey)?;
    let public_key = SECP256K1
        .recover_ecdsa(Message::from_digest(item.digest.0), &signature)
        .map_err(|_| RecoverError::NoPublicKey)?;
    // The first byte says "uncompressed"; an address is made of x and y only.
    key.copy_from_slice(&public_key.serialize_uncompressed()[1..]);
    Ok(())
}

/// Refuses what EIP-2 and the signature scheme refuse whatever the digest is. `r` and `s` are big-endian.
pub fn check_ranges(r: &[u8; 32], s: &[u8; 32], y_parity: u8) -> Result<(), RecoverError> {
    if y_parity > 1 {
        return Err(RecoverError::YParity(y_parity));
    }
    let r = U256::from_be_bytes(*r);
    if r.is_zero() || r >= GROUP_ORDER {
        return Err(RecoverError::ROutOfRange);
    }
    let s = U256::from_be_bytes(*s);
    if s.is_zero() {
        return Err(RecoverError::SZero);
    }
    if s > S_MAX {
        return Err(RecoverError::HighS);
    }
    Ok(())
}
