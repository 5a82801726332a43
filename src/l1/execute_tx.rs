//! ExecuteTx (EIP-2718 type 0x05): the transaction of L1 that carries a batch to its EXECUTE precompile.
//!
//! ```text
//! raw     = 0x05 ‖ rlp([ terms, payload, signature ])          items of execute-tx-v2; v1 has none of those in parentheses
//! terms   = chain_id, nonce, tip_cap, fee_cap, gas             signed anew with each attempt
//! payload = to, value, data, pre_state_root, witness_size, withdrawals_size, (anchor_size), coinbase, block_number,
//!           timestamp, witness, withdrawals, (anchor), blob_hashes
//! signing hash = keccak256(0x05 ‖ rlp([ terms, payload ]))     hash = keccak256(raw)
//! ```
//!
//! The items of the payload are contiguous, so [`EncodedPayload`] holds them once: attempts differ in terms and signature
//! only, and reposting sends the same bytes. Chain id is L1's; the L2 chain id is nowhere in the transaction.
//! Invariant: bytes that decode have exactly one meaning, and encode to themselves.
//! Deliberately absent: what a batch must look like (settlement), whether one is valid (the strict validator).

mod calldata;
mod decode;
mod limits;
#[cfg(test)]
mod tests;

use alloy_rlp::{BufMut, Encodable, Header};
use serde_json::{Value, json};

pub use calldata::{Gas, precompile_calldata};
pub use decode::{ExecuteTxError, Field};
pub use limits::{LimitError, Limits};

use super::profile::Profile;
use crate::crypto::keccak::keccak256;
use crate::crypto::recovery::{RecoverError, RecoverItem, recover};
use crate::primitives::{Address, B256, Bytes, U256, address};

/// EIP-2718 type.
pub const EXECUTE_TX_TYPE: u8 = 0x05;
/// Where an ExecuteTx without a recipient goes.
pub const EXECUTE_ADDRESS: Address = address!("0x0000000000000000000000000000000000000012");
/// The list of blob hashes is always empty (EIP-8079).
const NO_BLOB_HASHES: u8 = alloy_rlp::EMPTY_LIST_CODE;

/// What is signed anew with each attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Of L1.
    pub chain_id: U256,
    pub nonce: u64,
    pub tip_cap_wei: U256,
    pub fee_cap_wei: U256,
    pub gas: u64,
}

/// What stays the same in each attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// `None` means the precompile; anything else is both the callee on L1 and the callee inside.
    pub to: Option<Address>,
    pub value: U256,
    pub data: Bytes,
    pub pre_state_root: B256,
    pub coinbase: Address,
    pub block_number: u64,
    pub timestamp: u64,
    pub witness: Bytes,
    pub withdrawals: Bytes,
    /// Empty, and not sent, where the profile has none.
    pub anchor: Bytes,
}

/// An ECDSA signature with s in the lower half of the group's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    pub odd_y: bool,
    pub r: U256,
    pub s: U256,
}

/// A signed transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteTx {
    pub profile: Profile,
    pub terms: Terms,
    pub payload: Payload,
    pub signature: Signature,
}

/// A payload as it is sent, and what it costs: encoded once, used by every attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPayload {
    profile: Profile,
    /// The RLP items from the recipient to the blob hashes.
    items: Bytes,
    gas: Gas,
}

impl Payload {
    /// The items as they are sent.
    ///
    /// # Panics
    /// When it has an anchor that the profile cannot carry: dropping it would change what is signed without a word.
    #[must_use]
    pub fn encoded(&self, profile: Profile) -> EncodedPayload {
        assert!(profile.has_anchor() || self.anchor.is_empty(), "{profile} carries no anchor");
        let mut items = Vec::with_capacity(self.items_bytes(profile));
        self.encode_items(profile, &mut items);
        EncodedPayload { profile, items: items.into(), gas: Gas::of(profile, self) }
    }

    fn encode_items(&self, profile: Profile, out: &mut Vec<u8>) {
        match &self.to {
            Some(to) => to.encode(out),
            None => out.put_u8(alloy_rlp::EMPTY_STRING_CODE),
        }
        self.value.encode(out);
        self.data.encode(out);
        self.pre_state_root.encode(out);
        self.witness.len().encode(out);
        self.withdrawals.len().encode(out);
        if profile.has_anchor() {
            self.anchor.len().encode(out);
        }
        self.coinbase.encode(out);
        self.block_number.encode(out);
        self.timestamp.encode(out);
        self.witness.encode(out);
        self.withdrawals.encode(out);
        if profile.has_anchor() {
            self.anchor.encode(out);
        }
        out.put_u8(NO_BLOB_HASHES);
    }

    fn items_bytes(&self, profile: Profile) -> usize {
        let sizes = [&self.witness, &self.withdrawals];
        let anchor = if profile.has_anchor() { self.anchor.len().length() + self.anchor.length() } else { 0 };
        self.to.map_or(1, |to| to.length())
            + self.value.length()
            + self.data.length()
            + self.pre_state_root.length()
            + sizes.iter().map(|bytes| bytes.len().length() + bytes.length()).sum::<usize>()
            + anchor
            + self.coinbase.length()
            + self.block_number.length()
            + self.timestamp.length()
            + 1
    }
}

impl Terms {
    fn encode_items(&self, out: &mut Vec<u8>) {
        self.chain_id.encode(out);
        self.nonce.encode(out);
        self.tip_cap_wei.encode(out);
        self.fee_cap_wei.encode(out);
        self.gas.encode(out);
    }

    fn items_bytes(&self) -> usize {
        self.chain_id.length()
            + self.nonce.length()
            + self.tip_cap_wei.length()
            + self.fee_cap_wei.length()
            + self.gas.length()
    }
}

impl Signature {
    fn encode_items(&self, out: &mut Vec<u8>) {
        u8::from(self.odd_y).encode(out);
        self.r.encode(out);
        self.s.encode(out);
    }

    fn items_bytes(&self) -> usize {
        u8::from(self.odd_y).length() + self.r.length() + self.s.length()
    }
}

impl EncodedPayload {
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The RLP items from the recipient to the blob hashes, which every attempt repeats.
    #[must_use]
    pub fn items(&self) -> &Bytes {
        &self.items
    }

    /// What the calldata costs.
    #[must_use]
    pub fn gas(&self) -> &Gas {
        &self.gas
    }

    /// What the sender signs.
    #[must_use]
    pub fn signing_hash(&self, terms: &Terms) -> B256 {
        keccak256(&self.list(terms, 0, |_| ()))
    }

    /// The transaction as it is sent.
    #[must_use]
    pub fn encode(&self, terms: &Terms, signature: &Signature) -> Bytes {
        self.list(terms, signature.items_bytes(), |out| signature.encode_items(out)).into()
    }

    /// Bytes of the transaction with these terms, whatever its signature turns out to be: at most this many.
    #[must_use]
    pub fn raw_bytes_max(&self, terms: &Terms) -> usize {
        let items = terms.items_bytes() + self.items.len() + SIGNATURE_ITEMS_BYTES_MAX;
        1 + Header { list: true, payload_length: items }.length() + items
    }

    fn list(&self, terms: &Terms, more_bytes: usize, more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let header = Header { list: true, payload_length: terms.items_bytes() + self.items.len() + more_bytes };
        let mut out = Vec::with_capacity(1 + header.length() + header.payload_length);
        out.push(EXECUTE_TX_TYPE);
        header.encode(&mut out);
        terms.encode_items(&mut out);
        out.extend_from_slice(&self.items);
        more(&mut out);
        debug_assert_eq!(out.len(), 1 + header.length() + header.payload_length);
        out
    }
}

/// A parity of one byte, r and s of 32 bytes with their header.
const SIGNATURE_ITEMS_BYTES_MAX: usize = 1 + 33 + 33;

/// What a sender signs. Encodes the payload: whoever signs several attempts holds an [`EncodedPayload`].
#[must_use]
pub fn signing_hash(profile: Profile, terms: &Terms, payload: &Payload) -> B256 {
    payload.encoded(profile).signing_hash(terms)
}

impl ExecuteTx {
    /// Decodes a transaction, which must fill `raw` exactly.
    ///
    /// # Errors
    /// The first defect, with what was found and what was expected.
    pub fn decode(raw: &[u8], profile: Profile) -> Result<Self, ExecuteTxError> {
        decode::decode(raw, profile)
    }

    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.payload.encoded(self.profile).encode(&self.terms, &self.signature)
    }

    /// Names the transaction.
    #[must_use]
    pub fn hash(&self) -> B256 {
        keccak256(&self.encode())
    }

    #[must_use]
    pub fn signing_hash(&self) -> B256 {
        signing_hash(self.profile, &self.terms, &self.payload)
    }

    /// Who signed it.
    ///
    /// # Errors
    /// When no key can have made the signature.
    pub fn sender(&self) -> Result<Address, RecoverError> {
        recover(&RecoverItem {
            digest: self.signing_hash(),
            r: self.signature.r.to_be_bytes(),
            s: self.signature.s.to_be_bytes(),
            y_parity: u8::from(self.signature.odd_y),
        })
    }

    /// What the precompile is called with in a block of this base fee.
    #[must_use]
    pub fn precompile_calldata(&self, base_fee_wei: Option<u64>) -> Bytes {
        precompile_calldata(self.profile, &self.terms, &self.payload, base_fee_wei)
    }

    /// Gas that is charged before execution, in a block of this base fee.
    #[must_use]
    pub fn intrinsic_gas(&self, base_fee_wei: Option<u64>) -> u64 {
        Gas::of(self.profile, &self.payload).intrinsic(&self.terms, base_fee_wei)
    }

    /// The least gas that is charged where EIP-7623 holds, in a block of this base fee.
    #[must_use]
    pub fn floor_gas(&self, base_fee_wei: Option<u64>) -> u64 {
        Gas::of(self.profile, &self.payload).floor(&self.terms, base_fee_wei)
    }

    /// The account that L1 calls.
    #[must_use]
    pub fn callee(&self) -> Address {
        self.payload.to.unwrap_or(EXECUTE_ADDRESS)
    }

    /// Every field, with hash and sender. Unlike the JSON of the L1 node it loses nothing: the anchor is in it, and `to` is
    /// null when the transaction has none.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let quantity = |value: u64| json!(format!("{value:#x}"));
        let word = |value: U256| json!(format!("{value:#x}"));
        let Self { terms, payload, signature, .. } = self;
        let mut object = json!({
            "type": "0x5",
            "hash": self.hash(),
            "from": self.sender().ok(),
            "chainId": word(terms.chain_id),
            "nonce": quantity(terms.nonce),
            "maxPriorityFeePerGas": word(terms.tip_cap_wei),
            "maxFeePerGas": word(terms.fee_cap_wei),
            "gas": quantity(terms.gas),
            "to": payload.to,
            "value": word(payload.value),
            "input": payload.data,
            "preStateHash": payload.pre_state_root,
            "witnessSize": quantity(payload.witness.len() as u64),
            "withdrawalsSize": quantity(payload.withdrawals.len() as u64),
            "coinbase": payload.coinbase,
            "blockNumber": quantity(payload.block_number),
            "timestamp": quantity(payload.timestamp),
            "witness": payload.witness,
            "withdrawals": payload.withdrawals,
            "blobVersionedHashes": [],
            "v": quantity(u64::from(signature.odd_y)),
            "yParity": quantity(u64::from(signature.odd_y)),
            "r": word(signature.r),
            "s": word(signature.s),
        });
        if self.profile.has_anchor() {
            object["anchorSize"] = quantity(payload.anchor.len() as u64);
            object["anchor"] = json!(payload.anchor);
        }
        object
    }
}
