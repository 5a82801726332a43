//! Signed digests in, sender addresses out, a slice at a time.
//!
//! Runs on: the ingress shard that decoded the transactions. Keeps no state, allocates nothing.
//! Variable-time on purpose: everything here is public. Nothing here may ever sign.

use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, SECP256K1};

use crate::crypto::keccak::{keccak256, keccak256_each};
use crate::primitives::{Address, B256, U256};

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
/// Runs on: ingress shard; never blocks, never allocates.
/// Shapes:  `items` and `senders` are both `[n]`, same order; any n.
/// Errors:  per entry; the other entries are still written.
/// Source:  EIP-2 (low s), yellow paper appendix F. Cost: `benches/codec.rs`.
pub fn recover_batch(items: &[RecoverItem], senders: &mut [Result<Address, RecoverError>]) {
    assert_eq!(items.len(), senders.len());
    for (items, senders) in items.chunks(HASH_LANES).zip(senders.chunks_mut(HASH_LANES)) {
        // A refused item leaves zeros, which are hashed with the others and then not used.
        let mut keys = [[0; 64]; HASH_LANES];
        for ((item, sender), key) in items.iter().zip(senders.iter_mut()).zip(&mut keys) {
            *sender = recover_key(item, key).map(|()| Address::ZERO);
        }
        keccak256_each(
            items.len(),
            |index| &keys[index],
            |index, digest| {
                if let Ok(address) = &mut senders[index] {
                    *address = Address::from_slice(&digest[12..]);
                }
            },
        );
    }
}

/// Recovers the sender of one signed digest, as `recover_batch` does for many.
pub fn recover(item: &RecoverItem) -> Result<Address, RecoverError> {
    let mut key = [0; 64];
    recover_key(item, &mut key)?;
    Ok(Address::from_slice(&keccak256(&key)[12..]))
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
