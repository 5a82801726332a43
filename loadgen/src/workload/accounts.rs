//! Sending accounts, recipients and the funding account: seed → keys and addresses.

use alloy_primitives::{Address, B256, keccak256};
use secp256k1::{PublicKey, SecretKey};

#[derive(Clone, Debug)]
pub struct Account {
    pub key: SecretKey,
    pub address: Address,
}

impl Account {
    pub fn from_key(key: SecretKey) -> Self {
        let public = PublicKey::from_secret_key_global(&key).serialize_uncompressed();
        Self { key, address: Address::from_raw_public_key(&public[1..]) }
    }

    /// The `index`-th account of a seed.
    pub fn derive(seed: u64, index: u64) -> Self {
        let mut bytes = labelled("loadgen account", seed, index);
        loop {
            // A hash is outside of the curve's order once in 2^128 tries; hashing again keeps the rule total.
            if let Ok(key) = SecretKey::from_byte_array(bytes.0) {
                return Self::from_key(key);
            }
            bytes = keccak256(bytes);
        }
    }
}

/// The `index`-th recipient of a seed: an address without a known key.
pub fn recipient(seed: u64, index: u64) -> Address {
    Address::from_word(labelled("loadgen recipient", seed, index))
}

fn labelled(label: &str, seed: u64, index: u64) -> B256 {
    keccak256([label.as_bytes(), &seed.to_be_bytes(), &index.to_be_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use alloy_primitives::address;

    use super::*;

    #[test]
    fn the_first_development_key_has_the_known_address() {
        let key = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80".parse().unwrap();
        assert_eq!(Account::from_key(key).address, address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"));
    }

    #[test]
    fn a_seed_names_its_accounts() {
        let addresses = |seed| (0..5).map(|index| Account::derive(seed, index).address).collect::<Vec<_>>();
        assert_eq!(addresses(1), addresses(1));
        let all: std::collections::BTreeSet<_> = addresses(1).into_iter().chain(addresses(2)).collect();
        assert_eq!(all.len(), 10);
        assert_ne!(recipient(1, 0), recipient(1, 1));
    }
}
