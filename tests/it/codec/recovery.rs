//! `crypto::recovery` against k256 (through alloy's signature type).

use alloy_primitives::Signature;
use native_sequencer::crypto::recovery::{GROUP_ORDER, RecoverError, RecoverItem, S_MAX, recover, recover_batch};
use native_sequencer::primitives::{Address, B256, U256};
use rand::Rng;
use rand::rngs::StdRng;

use super::fuzz;

/// What k256 says; its own refusals are one kind, ranges are compared here number by number.
fn expected(item: &RecoverItem) -> Result<Address, RecoverError> {
    let (r, s) = (U256::from_be_bytes(item.r), U256::from_be_bytes(item.s));
    if item.y_parity > 1 {
        return Err(RecoverError::YParity(item.y_parity));
    }
    if r == U256::ZERO || r >= GROUP_ORDER {
        return Err(RecoverError::ROutOfRange);
    }
    if s == U256::ZERO {
        return Err(RecoverError::SZero);
    }
    if s > GROUP_ORDER.saturating_sub(s) {
        return Err(RecoverError::HighS);
    }
    let signature = Signature::new(r, s, item.y_parity == 1);
    signature.recover_address_from_prehash(&item.digest).map_err(|_| RecoverError::NoPublicKey)
}

#[track_caller]
fn check(items: &[RecoverItem]) {
    let mut senders = vec![Err(RecoverError::NoPublicKey); items.len()];
    recover_batch(items, &mut senders);
    for (item, sender) in items.iter().zip(&senders) {
        assert_eq!(*sender, expected(item), "{item:?}");
        assert_eq!(*sender, recover(item), "{item:?}");
    }
}

/// Numbers at which scalars and field elements change their meaning.
fn edge(random: &mut StdRng) -> U256 {
    let field: U256 = "0xfffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f".parse().unwrap();
    let bases =
        [U256::ZERO, GROUP_ORDER, S_MAX, field, field - GROUP_ORDER, U256::MAX, U256::from_limbs(random.random())];
    let base = bases[random.random_range(0..bases.len())];
    base.wrapping_add(U256::from(random.random_range(0..4_u8))).wrapping_sub(U256::from(random.random_range(0..4_u8)))
}

fn signed(random: &mut StdRng) -> RecoverItem {
    let digest = B256::from(random.random::<[u8; 32]>());
    let key = secp256k1::SecretKey::from_byte_array(random.random()).expect("almost every number is a key");
    let signature = secp256k1::SECP256K1.sign_ecdsa_recoverable(secp256k1::Message::from_digest(digest.0), &key);
    let (recovery_id, compact) = signature.serialize_compact();
    RecoverItem {
        digest,
        r: compact[..32].try_into().unwrap(),
        s: compact[32..].try_into().unwrap(),
        y_parity: i32::from(recovery_id) as u8 & 1,
    }
}

fn any_item(random: &mut StdRng) -> RecoverItem {
    let mut item = signed(random);
    match random.random_range(0..6) {
        0 => item.r = edge(random).to_be_bytes(),
        1 => item.s = edge(random).to_be_bytes(),
        2 => item.digest = B256::from(edge(random).to_be_bytes()),
        3 => item.y_parity = random.random_range(0..4),
        4 => {
            let high = GROUP_ORDER - U256::from_be_bytes(item.s);
            item.s = high.to_be_bytes();
            item.y_parity ^= 1;
        }
        _ => {}
    }
    item
}

#[test]
fn constants_are_those_of_the_curve() {
    assert_eq!(GROUP_ORDER.to_be_bytes(), secp256k1::constants::CURVE_ORDER);
    assert_eq!(S_MAX, GROUP_ORDER / U256::from(2));
}

#[test]
fn recovery_equals_k256() {
    fuzz(200, |random| {
        let length = random.random_range(0..12);
        let items: Vec<_> = (0..length).map(|_| any_item(random)).collect();
        check(&items);
    });
}

/// Every pair of edge values, good neighbours in between.
#[test]
fn recovery_of_edge_values() {
    let mut items = Vec::new();
    fuzz(1, |random| {
        let one = U256::from(1);
        for r in [U256::ZERO, one, GROUP_ORDER - one, GROUP_ORDER, GROUP_ORDER + one, U256::MAX] {
            for s in [U256::ZERO, one, S_MAX, S_MAX + one, GROUP_ORDER - one, GROUP_ORDER, U256::MAX] {
                for digest in [U256::ZERO, one, GROUP_ORDER, U256::MAX] {
                    for y_parity in 0..=4 {
                        let digest = B256::from(digest.to_be_bytes());
                        items.push(RecoverItem { digest, r: r.to_be_bytes(), s: s.to_be_bytes(), y_parity });
                        items.push(signed(random));
                    }
                }
            }
        }
        check(&items);
        items.clear();
    });
}

/// The key whose point is at infinity: s·R = z·G, so there is nobody to name.
#[test]
fn the_point_at_infinity_has_no_address() {
    // R = G (k = 1), s = z: Q = (s·R - z·G) / r = 0.
    let g = secp256k1::PublicKey::from_secret_key_global(
        &secp256k1::SecretKey::from_byte_array(U256::from(1).to_be_bytes()).expect("one is a key"),
    )
    .serialize_uncompressed();
    let r: [u8; 32] = g[1..33].try_into().unwrap();
    let s = U256::from(12345).to_be_bytes();
    let item = RecoverItem { digest: B256::from(s), r, s, y_parity: g[64] & 1 };
    let mut senders = [Ok(Address::ZERO)];
    recover_batch(&[item], &mut senders);
    assert_eq!(senders, [Err(RecoverError::NoPublicKey)]);
}
