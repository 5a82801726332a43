//! Strict decoding of signed transactions without copying them.
//!
//! EIP-2718 bytes in, `Decoded` out: fixed-size fields, and spans into the same bytes for what has no fixed size.
//! Runs on: ingress shard; never allocates. Invariant: bytes that decode have exactly one meaning, and no other bytes
//! have it, so `tx_hash` names the transaction. Accepted are exactly the encodings that re-encoding reproduces.
//!
//! ```text
//! legacy         rlp([nonce, gas_price, gas_limit, to, value, input, v, r, s])
//! 0x01 (2930) ‖  rlp([chain_id, nonce, gas_price, gas_limit, to, value, input, access_list, y_parity, r, s])
//! 0x02 (1559) ‖  rlp([chain_id, nonce, tip, fee, gas_limit, to, value, input, access_list, y_parity, r, s])
//! 0x04 (7702) ‖  rlp([chain_id, nonce, tip, fee, gas_limit, to, value, input, access_list, authorizations, y_parity, r, s])
//! ```
//!
//! Also refused here, because no chain state is needed: nonce 2^64-1 (EIP-2681), high s (EIP-2), r or s out of range, tip
//! above fee, fees over 128 bits, chain ids over 64 bits, an empty authorization list or a creation in type 4 (EIP-7702).
//! Deliberately absent: chain id, gas and size policies (ingress), recovery (`crypto::recovery`).

mod error;
mod gas;
mod lists;
mod rlp;

use alloy_rlp::{Encodable, Header};

pub use error::{Field, TxError};
pub use gas::intrinsic_gas;
pub use lists::{AccessList, Authorization, Authorizations, StorageKeys, access_list, authorizations};
use rlp::Cursor;
pub use rlp::RlpFault;

use crate::crypto::keccak::keccak256;
use crate::crypto::recovery::{RecoverItem, check_ranges};
use crate::primitives::{Address, B256, Span, TxFields, TxType};

/// A decoded transaction. Its spans point into the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    pub fields: TxFields,
    pub signature: Signature,
    /// The items that are signed, without the header of their list. Contiguous: the signature comes last in every type.
    pub unsigned_items: Span,
}

/// An ECDSA signature in range: r and s in `1..n`, s in the lower half, y parity 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    pub r: [u8; 32],
    pub s: [u8; 32],
    pub y_parity: u8,
}

impl Decoded {
    /// What `recover_batch` needs of this transaction, once its signing hash is known.
    #[must_use]
    pub fn recover_item(&self, digest: B256) -> RecoverItem {
        RecoverItem { digest, r: self.signature.r, s: self.signature.s, y_parity: self.signature.y_parity }
    }
}

/// Decodes one signed transaction, which must fill `raw` exactly.
///
/// Runs on: ingress shard; never allocates.
/// Errors:  the first broken rule in the order of the bytes; rules about several fields come last. `BlobForbidden` and
///          `ExecuteTx` are answered by the type byte alone.
/// Source:  EIP-2718, 155, 2930, 1559, 7702, 2, 2681, 8079. Cost: `benches/codec.rs`.
pub fn decode(raw: &[u8]) -> Result<Decoded, TxError> {
    let &first = raw.first().ok_or(TxError::Empty)?;
    if u32::try_from(raw.len()).is_err() {
        return Err(TxError::TooLong { bytes: raw.len() as u64, bytes_max: u32::MAX });
    }
    let tx_type = match first {
        1 => TxType::AccessList,
        2 => TxType::DynamicFee,
        3 => return Err(TxError::BlobForbidden),
        4 => TxType::SetCode,
        5 => return Err(TxError::ExecuteTx),
        0 | 6..0x80 => return Err(TxError::UnsupportedType(first)),
        0x80..0xc0 => return Err(TxError::NotATransaction(first)),
        0xc0.. => TxType::Legacy,
    };
    let mut outer = Cursor { raw, at: usize::from(tx_type != TxType::Legacy), end: raw.len() };
    let items = outer.list(Field::Transaction)?;
    if !outer.is_empty() {
        return Err(TxError::TrailingBytes { bytes: outer.span().len });
    }
    // Filled in place: moving it out of each step costs more than reading the bytes.
    let mut decoded = blank(tx_type);
    match tx_type {
        TxType::Legacy => decode_legacy(items, &mut decoded)?,
        TxType::AccessList | TxType::DynamicFee | TxType::SetCode => decode_typed(items, &mut decoded)?,
    }
    let Signature { r, s, y_parity } = &decoded.signature;
    check_ranges(r, s, *y_parity)?;
    Ok(decoded)
}

/// A transaction of which only the type is known yet.
fn blank(tx_type: TxType) -> Decoded {
    let fields = TxFields {
        value_wei: Default::default(),
        max_fee_per_gas_wei: 0,
        max_priority_fee_per_gas_wei: 0,
        nonce: 0,
        gas_limit: 0,
        chain_id: None,
        input: Span::default(),
        access_list: Span::default(),
        authorization_list: Span::default(),
        access_list_address_count: 0,
        access_list_slot_count: 0,
        authorization_count: 0,
        input_zero_bytes: 0,
        to: None,
        tx_type,
    };
    Decoded { fields, signature: Signature { r: [0; 32], s: [0; 32], y_parity: 0 }, unsigned_items: Span::default() }
}

fn decode_legacy(mut items: Cursor<'_>, decoded: &mut Decoded) -> Result<(), TxError> {
    let start = items.at;
    let fields = &mut decoded.fields;
    fields.nonce = decode_nonce(&mut items)?;
    fields.max_fee_per_gas_wei = items.u128(Field::GasPrice)?;
    fields.max_priority_fee_per_gas_wei = fields.max_fee_per_gas_wei;
    decode_call(&mut items, fields)?;
    decoded.unsigned_items = Span { start: start as u32, len: (items.at - start) as u32 };
    (decoded.signature.y_parity, fields.chain_id) = split_legacy_v(items.u128(Field::V)?)?;
    decoded.signature.r = items.word(Field::R)?;
    decoded.signature.s = items.word(Field::S)?;
    items.finish(Field::Transaction)
}

/// The y parity and the chain id that a legacy `v` stands for: 27 and 28, or `35 + 2 * chain_id + y_parity` (EIP-155).
fn split_legacy_v(v: u128) -> Result<(u8, Option<u64>), TxError> {
    match v {
        27 | 28 => Ok(((v - 27) as u8, None)),
        35.. => match u64::try_from((v - 35) / 2) {
            Ok(chain_id) => Ok((((v - 35) % 2) as u8, Some(chain_id))),
            Err(_) => Err(TxError::LegacyV(v)),
        },
        _ => Err(TxError::LegacyV(v)),
    }
}

fn decode_typed(mut items: Cursor<'_>, decoded: &mut Decoded) -> Result<(), TxError> {
    let start = items.at;
    let fields = &mut decoded.fields;
    fields.chain_id = Some(items.u64(Field::ChainId)?);
    fields.nonce = decode_nonce(&mut items)?;
    if fields.tx_type == TxType::AccessList {
        fields.max_fee_per_gas_wei = items.u128(Field::GasPrice)?;
        fields.max_priority_fee_per_gas_wei = fields.max_fee_per_gas_wei;
    } else {
        fields.max_priority_fee_per_gas_wei = items.u128(Field::MaxPriorityFeePerGas)?;
        fields.max_fee_per_gas_wei = items.u128(Field::MaxFeePerGas)?;
    }
    decode_call(&mut items, fields)?;
    let list = items.list(Field::AccessList)?;
    fields.access_list = list.span();
    if !list.is_empty() {
        (fields.access_list_address_count, fields.access_list_slot_count) = lists::check_access_list(list)?;
    }
    if fields.tx_type == TxType::SetCode {
        let list = items.list(Field::AuthorizationList)?;
        fields.authorization_list = list.span();
        fields.authorization_count = lists::check_authorization_list(list)?;
    }
    decoded.unsigned_items = Span { start: start as u32, len: (items.at - start) as u32 };
    decoded.signature.y_parity = items.u8(Field::YParity)?;
    decoded.signature.r = items.word(Field::R)?;
    decoded.signature.s = items.word(Field::S)?;
    items.finish(Field::Transaction)?;
    check_typed_rules(fields)
}

/// Rules about several fields of a typed transaction.
fn check_typed_rules(fields: &TxFields) -> Result<(), TxError> {
    if fields.max_priority_fee_per_gas_wei > fields.max_fee_per_gas_wei {
        return Err(TxError::TipAboveFee {
            tip_wei: fields.max_priority_fee_per_gas_wei,
            fee_wei: fields.max_fee_per_gas_wei,
        });
    }
    if fields.tx_type == TxType::SetCode {
        if fields.to.is_none() {
            return Err(TxError::SetCodeCreation);
        }
        if fields.authorization_count == 0 {
            return Err(TxError::AuthorizationListEmpty);
        }
    }
    Ok(())
}

#[inline(always)]
fn decode_nonce(items: &mut Cursor<'_>) -> Result<u64, TxError> {
    match items.u64(Field::Nonce)? {
        u64::MAX => Err(TxError::NonceMax),
        nonce => Ok(nonce),
    }
}

/// Reads what every type has after its fees: gas limit, recipient, value, input.
#[inline(always)]
fn decode_call(items: &mut Cursor<'_>, fields: &mut TxFields) -> Result<(), TxError> {
    fields.gas_limit = items.u64(Field::GasLimit)?;
    fields.to = items.optional_address(Field::To)?.map(|&bytes| Address::from(bytes));
    fields.value_wei = items.u256(Field::Value)?;
    fields.input = items.string(Field::Input)?;
    // Bounded by the length of the input, which is a u32.
    fields.input_zero_bytes = fields.input.of(items.raw).iter().filter(|&&byte| byte == 0).count() as u32;
    Ok(())
}

/// Hash that names the transaction: keccak-256 of its bytes, whatever its type.
#[must_use]
pub fn tx_hash(raw: &[u8]) -> B256 {
    keccak256(raw)
}

/// Appends what the sender has signed: the type byte unless legacy, then the list of the items before the signature, to
/// which EIP-155 adds chain id, 0, 0. `raw` are the bytes that `decoded` came from.
pub fn signing_payload_into(raw: &[u8], decoded: &Decoded, out: &mut Vec<u8>) {
    let items = decoded.unsigned_items.of(raw);
    if decoded.fields.tx_type != TxType::Legacy {
        out.push(decoded.fields.tx_type as u8);
        Header { list: true, payload_length: items.len() }.encode(out);
        out.extend_from_slice(items);
        return;
    }
    let Some(chain_id) = decoded.fields.chain_id else {
        Header { list: true, payload_length: items.len() }.encode(out);
        out.extend_from_slice(items);
        return;
    };
    // The two zeros are one byte each.
    Header { list: true, payload_length: items.len() + chain_id.length() + 2 }.encode(out);
    out.extend_from_slice(items);
    chain_id.encode(out);
    out.extend_from_slice(&[alloy_rlp::EMPTY_STRING_CODE; 2]);
}

/// Hash that the sender has signed. `scratch` is overwritten; it allocates only to grow to the transaction's length.
#[must_use]
pub fn signing_hash(raw: &[u8], decoded: &Decoded, scratch: &mut Vec<u8>) -> B256 {
    scratch.clear();
    signing_payload_into(raw, decoded, scratch);
    keccak256(scratch)
}
