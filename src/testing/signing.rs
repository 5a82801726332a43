//! Signed transactions of every type, from well-known keys.

use alloy_consensus::{SignableTransaction, TxEip1559, TxEip2930, TxEip7702, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_eips::eip7702::{Authorization, SignedAuthorization};
use alloy_primitives::{Address, B256, Signature, U256, keccak256};
use secp256k1::{Message, PublicKey, SECP256K1, SecretKey};

/// A key and its address.
#[derive(Clone, Copy, Debug)]
pub struct TestKey {
    secret: SecretKey,
    pub address: Address,
}

impl TestKey {
    /// The `index`-th key of an endless deterministic list.
    ///
    /// # Panics
    /// Never in practice: a Keccak digest is outside the group's order with probability 2^-128.
    #[must_use]
    pub fn nth(index: u64) -> Self {
        let digest = keccak256([b"sequencer test key".as_slice(), &index.to_be_bytes()].concat());
        Self::new(SecretKey::from_byte_array(digest.0).expect("a digest is below the group order"))
    }

    /// The key behind a hex string, `0x` included.
    ///
    /// # Panics
    /// When the text is not a key: tests only.
    #[must_use]
    pub fn from_hex(text: &str) -> Self {
        let bytes: B256 = text.parse().expect("32 bytes of hex");
        Self::new(SecretKey::from_byte_array(bytes.0).expect("a key"))
    }

    fn new(secret: SecretKey) -> Self {
        let public = PublicKey::from_secret_key(SECP256K1, &secret).serialize_uncompressed();
        Self { secret, address: Address::from_slice(&keccak256(&public[1..])[12..]) }
    }

    #[must_use]
    pub fn sign(&self, digest: B256) -> Signature {
        let (id, compact) =
            SECP256K1.sign_ecdsa_recoverable(Message::from_digest(digest.0), &self.secret).serialize_compact();
        let word = |half: &[u8]| U256::from_be_slice(half);
        Signature::new(word(&compact[..32]), word(&compact[32..]), i32::from(id) == 1)
    }

    /// The 2718 encoding of a signed transaction.
    #[must_use]
    pub fn encode<T>(&self, tx: T) -> Vec<u8>
    where
        T: SignableTransaction<Signature>,
        alloy_consensus::Signed<T>: Encodable2718,
    {
        let signature = self.sign(tx.signature_hash());
        tx.into_signed(signature).encoded_2718()
    }

    #[must_use]
    pub fn authorize(&self, authorization: Authorization) -> SignedAuthorization {
        let signature = self.sign(authorization.signature_hash());
        authorization.into_signed(signature)
    }

    /// A plain EIP-1559 transfer.
    #[must_use]
    pub fn transfer(&self, chain_id: u64, nonce: u64, to: Address, value_wei: u128) -> Vec<u8> {
        self.encode(TxEip1559 {
            chain_id,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas: 1_000_000_000,
            max_priority_fee_per_gas: 1_000_000,
            to: to.into(),
            value: U256::from(value_wei),
            ..TxEip1559::default()
        })
    }
}

/// The envelopes that the pool admits, under one name for tests.
pub type Legacy = TxLegacy;
pub type AccessList = TxEip2930;
pub type DynamicFee = TxEip1559;
pub type SetCode = TxEip7702;
