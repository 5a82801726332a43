//! EIP-1559 transactions: fields → signed bytes and hash.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::{Encodable, Header};
use secp256k1::ecdsa::RecoverableSignature;
use secp256k1::{Message, SECP256K1, SecretKey};

/// First byte of an EIP-1559 transaction (EIP-2718).
const TYPE_BYTE: u8 = 2;

/// RLP of an empty access list.
const EMPTY_LIST: u8 = 0xc0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub chain_id: u64,
    pub nonce: u64,
    pub max_priority_fee_per_gas_wei: u128,
    pub max_fee_per_gas_wei: u128,
    pub gas_limit: u64,
    /// `None` creates a contract.
    pub to: Option<Address>,
    pub value_wei: U256,
    pub input: Bytes,
}

impl Transaction {
    /// The signed transaction as `eth_sendRawTransaction` takes it, and its hash.
    pub fn sign(&self, key: &SecretKey) -> (Vec<u8>, B256) {
        let mut fields = Vec::with_capacity(160 + self.input.len());
        self.encode_fields(&mut fields);
        let mut bytes = Vec::with_capacity(fields.len() + 80);
        encode_typed_list(&mut bytes, &[&fields]);
        let signature = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(keccak256(&bytes).0), key);
        let tail = encode_signature(&signature);
        bytes.clear();
        encode_typed_list(&mut bytes, &[&fields, &tail]);
        let hash = keccak256(&bytes);
        (bytes, hash)
    }

    fn encode_fields(&self, out: &mut Vec<u8>) {
        self.chain_id.encode(out);
        self.nonce.encode(out);
        self.max_priority_fee_per_gas_wei.encode(out);
        self.max_fee_per_gas_wei.encode(out);
        self.gas_limit.encode(out);
        match &self.to {
            Some(address) => address.encode(out),
            None => out.push(alloy_rlp::EMPTY_STRING_CODE),
        }
        self.value_wei.encode(out);
        self.input.encode(out);
        out.push(EMPTY_LIST);
    }
}

fn encode_typed_list(out: &mut Vec<u8>, parts: &[&[u8]]) {
    out.push(TYPE_BYTE);
    Header { list: true, payload_length: parts.iter().map(|part| part.len()).sum() }.encode(out);
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn encode_signature(signature: &RecoverableSignature) -> Vec<u8> {
    let (id, compact) = signature.serialize_compact();
    let (r, s) = compact.split_at(32);
    let mut out = Vec::with_capacity(67);
    // libsecp256k1 signs with low s, so the recovery id is 0 or 1 unless r overflowed the order (once in 2^127).
    (i32::from(id) as u64).encode(&mut out);
    U256::from_be_slice(r).encode(&mut out);
    U256::from_be_slice(s).encode(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use alloy_consensus::transaction::SignerRecoverable;
    use alloy_consensus::{Transaction as _, TxEnvelope};
    use alloy_eips::Decodable2718;
    use proptest::prelude::*;

    use super::*;
    use crate::workload::accounts::Account;

    fn check(tx: &Transaction, account: &Account) {
        let (bytes, hash) = tx.sign(&account.key);
        let decoded = TxEnvelope::decode_2718_exact(&bytes).unwrap();
        assert_eq!(*decoded.tx_hash(), hash);
        assert_eq!(decoded.recover_signer().unwrap(), account.address);
        assert!(decoded.is_eip1559());
        assert_eq!(decoded.chain_id(), Some(tx.chain_id));
        assert_eq!(decoded.nonce(), tx.nonce);
        assert_eq!(decoded.max_fee_per_gas(), tx.max_fee_per_gas_wei);
        assert_eq!(decoded.max_priority_fee_per_gas(), Some(tx.max_priority_fee_per_gas_wei));
        assert_eq!(decoded.gas_limit(), tx.gas_limit);
        assert_eq!(decoded.to(), tx.to);
        assert_eq!(decoded.value(), tx.value_wei);
        assert_eq!(decoded.input(), &tx.input);
        assert!(decoded.access_list().unwrap().0.is_empty());
    }

    proptest! {
        #[test]
        fn alloy_reads_what_we_sign(
            chain_id in 1u64..,
            nonce in 0u64..u64::MAX,
            fees in any::<(u128, u128)>(),
            gas_limit in any::<u64>(),
            to in prop::option::of(any::<[u8; 20]>()),
            value in any::<[u8; 32]>(),
            input in prop::collection::vec(any::<u8>(), 0..100),
            account in any::<u64>(),
        ) {
            let tx = Transaction {
                chain_id,
                nonce,
                max_priority_fee_per_gas_wei: fees.0,
                max_fee_per_gas_wei: fees.1,
                gas_limit,
                to: to.map(Address::from),
                value_wei: U256::from_be_bytes(value),
                input: input.into(),
            };
            check(&tx, &Account::derive(1, account));
        }
    }

    #[test]
    fn small_fields() {
        let tx = Transaction {
            chain_id: 61972,
            nonce: 0,
            max_priority_fee_per_gas_wei: 0,
            max_fee_per_gas_wei: 0,
            gas_limit: 21_000,
            to: Some(Address::ZERO),
            value_wei: U256::ZERO,
            input: Bytes::new(),
        };
        for index in 0..200 {
            check(&Transaction { nonce: index, ..tx.clone() }, &Account::derive(2, index));
        }
    }
}
