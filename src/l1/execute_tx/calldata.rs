//! What L1 calls the precompile with, and what that costs.
//!
//! ```text
//! offset  bytes  field                                                     (execute-tx-v1: no anchor length, no two zeros)
//!      0     32  chain id of L1, big-endian
//!     32     32  pre-state root
//!     64      8  gas limit, little-endian, as all that follow
//!     72      2  length of the witness, modulo 65,536
//!     74      2  length of the withdrawals, modulo 65,536
//!     76      2  length of the anchor, modulo 65,536
//!     78      2  zero
//!     80     20  coinbase
//!    100      8  block number
//!    108      8  min(tip cap + base fee, fee cap) modulo 2^64; 0 without a base fee
//!    116      8  timestamp
//!    124         witness, withdrawals, anchor
//!           20  recipient, zero without one
//!           32  value, big-endian
//!            4  length of the data
//!                data
//! ```
//!
//! Lengths are taken modulo 65,536 for the header and for the size of the buffer, but all bytes are copied: of a longer
//! witness what does not fit is overwritten by what follows, and where there is no recipient it stays. That is what L1
//! does, so it is repeated here; [`super::Limits`] keeps our own transactions away from it.

use super::{Payload, Terms};
use crate::l1::profile::Profile;
use crate::primitives::{Bytes, U256};

/// EIP-2028 and its predecessors: what every transaction pays.
const TX_GAS: u64 = 21_000;
/// EIP-2028.
const ZERO_BYTE_GAS: u64 = 4;
/// EIP-2028.
const NONZERO_BYTE_GAS: u64 = 16;
/// EIP-7623, per token: a zero byte is one, any other four.
const FLOOR_TOKEN_GAS: u64 = 10;
/// Recipient, value and length of the data.
const TAIL_BYTES: usize = 20 + 32 + 4;
/// One more than the largest length that fits the header.
const LENGTH_WRAP: usize = 65_536;

/// What a payload's calldata costs. Counted once: only 48 bytes of the calldata depend on the terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gas {
    zero_bytes: u64,
    nonzero_bytes: u64,
}

impl Gas {
    /// Counts the bytes that a payload brings, without building the calldata where its lengths fit.
    #[must_use]
    pub fn of(profile: Profile, payload: &Payload) -> Self {
        let mut gas = Self { zero_bytes: 0, nonzero_bytes: 0 };
        if [&payload.witness, &payload.withdrawals, &payload.anchor].iter().any(|bytes| bytes.len() >= LENGTH_WRAP) {
            // The terms are zero here, so what they would fill counts as zero bytes, which are taken off again.
            gas.add(&precompile_calldata(profile, &Terms::default(), payload, None));
            gas.zero_bytes -= TERMS_BYTES;
            return gas;
        }
        let head = header(profile, &Terms::default(), payload, None);
        gas.add(&head);
        gas.zero_bytes -= TERMS_BYTES;
        [&payload.witness, &payload.withdrawals, &payload.anchor, &payload.data]
            .iter()
            .for_each(|bytes| gas.add(bytes));
        gas.add(&tail(payload));
        gas
    }

    fn add(&mut self, bytes: &[u8]) {
        let zero_bytes = bytes.iter().filter(|&&byte| byte == 0).count() as u64;
        self.zero_bytes += zero_bytes;
        self.nonzero_bytes += bytes.len() as u64 - zero_bytes;
    }

    fn with_terms(mut self, terms: &Terms, base_fee_wei: Option<u64>) -> Self {
        self.add(&terms.chain_id.to_be_bytes::<32>());
        self.add(&terms.gas.to_le_bytes());
        self.add(&price_wei(terms, base_fee_wei).to_le_bytes());
        self
    }

    /// Gas that is charged before execution, in a block of this base fee. It does not depend on what EIP-7623 adds.
    #[must_use]
    pub fn intrinsic(&self, terms: &Terms, base_fee_wei: Option<u64>) -> u64 {
        self.with_terms(terms, base_fee_wei).intrinsic_gas()
    }

    /// The least that is charged where EIP-7623 holds, in a block of this base fee.
    #[must_use]
    pub fn floor(&self, terms: &Terms, base_fee_wei: Option<u64>) -> u64 {
        self.with_terms(terms, base_fee_wei).floor_gas()
    }

    /// Gas that these terms need at every base fee: their price is taken to have no zero byte.
    #[must_use]
    pub fn needed(&self, terms: &Terms, has_floor: bool) -> u64 {
        let mut counted = *self;
        counted.add(&terms.chain_id.to_be_bytes::<32>());
        counted.add(&terms.gas.to_le_bytes());
        counted.nonzero_bytes += 8;
        if has_floor { counted.floor_gas() } else { counted.intrinsic_gas() }
    }

    /// A gas limit that is enough on this chain at every base fee: its own bytes are taken not to be zero either, so it is
    /// at most 480 more than what is used.
    #[must_use]
    pub fn limit(&self, chain_id: U256, has_floor: bool) -> u64 {
        self.needed(&Terms { chain_id, gas: u64::MAX, ..Terms::default() }, has_floor)
    }

    fn intrinsic_gas(&self) -> u64 {
        TX_GAS + ZERO_BYTE_GAS * self.zero_bytes + NONZERO_BYTE_GAS * self.nonzero_bytes
    }

    fn floor_gas(&self) -> u64 {
        TX_GAS + FLOOR_TOKEN_GAS * (self.zero_bytes + 4 * self.nonzero_bytes)
    }
}

/// Bytes of the calldata that depend on terms and base fee: chain id, gas limit, price.
const TERMS_BYTES: u64 = 32 + 8 + 8;

/// The effective price of a unit of gas, as the calldata has it. Saturating is exact: the cap is at most the maximum.
fn price_wei(terms: &Terms, base_fee_wei: Option<u64>) -> u64 {
    let Some(base_fee_wei) = base_fee_wei else { return 0 };
    let price = terms.tip_cap_wei.saturating_add(U256::from(base_fee_wei)).min(terms.fee_cap_wei);
    price.as_limbs()[0]
}

fn header(profile: Profile, terms: &Terms, payload: &Payload, base_fee_wei: Option<u64>) -> Vec<u8> {
    // Modulo 65,536, as L1 does it.
    let length = |bytes: &Bytes| (bytes.len() as u16).to_le_bytes();
    let mut out = Vec::with_capacity(profile.calldata_header_bytes());
    out.extend_from_slice(&terms.chain_id.to_be_bytes::<32>());
    out.extend_from_slice(payload.pre_state_root.as_slice());
    out.extend_from_slice(&terms.gas.to_le_bytes());
    out.extend_from_slice(&length(&payload.witness));
    out.extend_from_slice(&length(&payload.withdrawals));
    if profile.has_anchor() {
        out.extend_from_slice(&length(&payload.anchor));
        out.extend_from_slice(&[0; 2]);
    }
    out.extend_from_slice(payload.coinbase.as_slice());
    out.extend_from_slice(&payload.block_number.to_le_bytes());
    out.extend_from_slice(&price_wei(terms, base_fee_wei).to_le_bytes());
    out.extend_from_slice(&payload.timestamp.to_le_bytes());
    debug_assert_eq!(out.len(), profile.calldata_header_bytes());
    out
}

fn tail(payload: &Payload) -> [u8; TAIL_BYTES] {
    let mut out = [0; TAIL_BYTES];
    if let Some(to) = payload.to {
        out[..20].copy_from_slice(to.as_slice());
    }
    out[20..52].copy_from_slice(&payload.value.to_be_bytes::<32>());
    // Modulo 2^32, as L1 does it; no transaction is that long.
    out[52..].copy_from_slice(&(payload.data.len() as u32).to_le_bytes());
    out
}

/// What the precompile is called with in a block of this base fee, byte for byte as L1 makes it.
#[must_use]
pub fn precompile_calldata(profile: Profile, terms: &Terms, payload: &Payload, base_fee_wei: Option<u64>) -> Bytes {
    let mut out = header(profile, terms, payload, base_fee_wei);
    let fields = [&payload.witness, &payload.withdrawals, &payload.anchor];
    let mut at = out.len();
    let total =
        at + fields.iter().map(|bytes| bytes.len() % LENGTH_WRAP).sum::<usize>() + TAIL_BYTES + payload.data.len();
    out.resize(total, 0);
    for bytes in fields {
        let room = bytes.len().min(total - at);
        out[at..at + room].copy_from_slice(&bytes[..room]);
        at += bytes.len() % LENGTH_WRAP;
    }
    let tail = tail(payload);
    // Without a recipient its place keeps what was copied there.
    let kept = if payload.to.is_some() { 0 } else { 20 };
    out[at + kept..at + TAIL_BYTES].copy_from_slice(&tail[kept..]);
    out[at + TAIL_BYTES..].copy_from_slice(&payload.data);
    out.into()
}
