//! Signatures that cost two multiplications: account → signed transfers, for loads that need a million valid ones a minute.
//!
//! Each account signs everything with one nonce of the curve, `k`, so that `r` is always the same and `s = (z + r·d) / k` is arithmetic of scalars.
//! Whoever sees two such signatures can compute the key: good for accounts of a test, for nothing else. To a node they are signatures as any.

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_rlp::{Encodable, Header};
use secp256k1::{PublicKey, Scalar, SecretKey};

use crate::workload::accounts::{Account, recipient};

/// First byte of an EIP-1559 transaction (EIP-2718).
const TYPE_BYTE: u8 = 2;
const TRANSFER_GAS: u64 = 21_000;
/// Order of the curve less two: the exponent of an inverse (Fermat).
const INVERSE_EXPONENT: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba, 0xae, 0xdc,
    0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x3f,
];
/// Half of the order: a larger `s` is refused (EIP-2).
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d, 0x57, 0x6e,
    0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// What the transfers of a run have in common.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub chain_id: u64,
    pub fee_cap_wei: u128,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct FastSigner {
    account: Account,
    recipient: Address,
    r: [u8; 32],
    /// Whether the point of `k` has an odd y.
    is_odd: bool,
    /// `r·d`.
    product: Scalar,
    /// `1/k`.
    inverse: Scalar,
}

impl FastSigner {
    /// Of the `index`-th account of a seed.
    pub fn derive(seed: u64, index: u64) -> Self {
        let account = Account::derive(seed, index);
        let mut bytes = keccak256([b"loadgen nonce".as_slice(), account.address.as_slice()].concat());
        loop {
            if let Some(signer) = Self::with_nonce(&account, recipient(seed, index), bytes) {
                return signer;
            }
            // Once in 2^127 tries, as for the key.
            bytes = keccak256(bytes);
        }
    }

    fn with_nonce(account: &Account, recipient: Address, nonce: B256) -> Option<Self> {
        let nonce = SecretKey::from_byte_array(nonce.0).ok()?;
        let point = PublicKey::from_secret_key_global(&nonce).serialize();
        let r: [u8; 32] = point[1..].try_into().ok()?;
        // The x of a point can be above the order: not for these.
        let product = account.key.mul_tweak(&Scalar::from_be_bytes(r).ok()?).ok()?;
        Some(Self {
            account: account.clone(),
            recipient,
            r,
            is_odd: point[0] == 3,
            product: Scalar::from(product),
            inverse: Scalar::from(inverse(&nonce)?),
        })
    }

    pub fn address(&self) -> Address {
        self.account.address
    }

    /// Appends the signed bytes of a transfer of 1 wei to this account's recipient.
    pub fn transfer(&self, terms: &Terms, nonce: u64, out: &mut Vec<u8>) {
        let mut fields = Vec::with_capacity(128);
        terms.chain_id.encode(&mut fields);
        nonce.encode(&mut fields);
        1_u64.encode(&mut fields);
        terms.fee_cap_wei.encode(&mut fields);
        TRANSFER_GAS.encode(&mut fields);
        self.recipient.encode(&mut fields);
        1_u64.encode(&mut fields);
        fields.extend_from_slice(&[alloy_rlp::EMPTY_STRING_CODE, alloy_rlp::EMPTY_LIST_CODE]);
        let start = out.len();
        typed_list(&[&fields], out);
        let digest = keccak256(&out[start..]);
        out.truncate(start);
        let mut tail = Vec::with_capacity(68);
        let (s, is_odd) = self.sign(digest);
        u64::from(is_odd).encode(&mut tail);
        U256::from_be_bytes(self.r).encode(&mut tail);
        U256::from_be_bytes(s).encode(&mut tail);
        typed_list(&[&fields, &tail], out);
    }

    /// `s`, and whether the recovery id is 1.
    fn sign(&self, digest: B256) -> ([u8; 32], bool) {
        let sum = SecretKey::from_byte_array(digest.0).and_then(|digest| digest.add_tweak(&self.product));
        let s = sum.and_then(|sum| sum.mul_tweak(&self.inverse)).expect("a hash that ends at zero is one in 2^128");
        match s.secret_bytes() {
            s if s <= HALF_ORDER => (s, self.is_odd),
            _ => (s.negate().secret_bytes(), !self.is_odd),
        }
    }
}

/// `1/k`, by `k` to the power of the order less two.
fn inverse(k: &SecretKey) -> Option<SecretKey> {
    let (square, mut power) = (Scalar::from(*k), *k);
    for bit in (0..255).rev() {
        power = power.mul_tweak(&Scalar::from(power)).ok()?;
        if INVERSE_EXPONENT[31 - bit / 8] >> (bit % 8) & 1 == 1 {
            power = power.mul_tweak(&square).ok()?;
        }
    }
    Some(power)
}

fn typed_list(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.push(TYPE_BYTE);
    Header { list: true, payload_length: parts.iter().map(|part| part.len()).sum() }.encode(out);
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use alloy_consensus::transaction::SignerRecoverable;
    use alloy_consensus::{Transaction as _, TxEnvelope};
    use alloy_eips::Decodable2718;

    use super::*;

    #[test]
    fn alloy_takes_every_signature_as_the_accounts() {
        let terms = Terms { chain_id: 61_972, fee_cap_wei: 2_000_000_000_000 };
        let mut parities = [0_u32; 2];
        for index in 0..20 {
            let signer = FastSigner::derive(3, index);
            for nonce in [0, 1, 127, 128, 70_000] {
                let mut raw = Vec::new();
                signer.transfer(&terms, nonce, &mut raw);
                let decoded = TxEnvelope::decode_2718_exact(&raw).unwrap();
                assert_eq!(decoded.recover_signer().unwrap(), signer.address(), "low s included");
                assert_eq!((decoded.nonce(), decoded.max_fee_per_gas()), (nonce, terms.fee_cap_wei));
                assert_eq!((decoded.gas_limit(), decoded.chain_id()), (TRANSFER_GAS, Some(61_972)));
                parities[usize::from(decoded.signature().v())] += 1;
            }
        }
        assert!(parities.iter().all(|count| *count > 10), "{parities:?}");
        assert_eq!(signer_account(3), FastSigner::derive(3, 7).address());
    }

    /// The account that `loadgen accounts` gives money.
    fn signer_account(seed: u64) -> Address {
        Account::derive(seed, 7).address
    }
}
