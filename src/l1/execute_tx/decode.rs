//! Strict decoding: what L1's own decoder would change silently is refused here.
//!
//! Errors come in this order: type, list, number of items, then item by item, then rules about several of them.

use std::fmt;

use alloy_rlp::{Decodable, Header};

use super::{EXECUTE_TX_TYPE, ExecuteTx, Payload, Signature, Terms};
use crate::crypto::recovery::{RecoverError, check_ranges};
use crate::l1::profile::Profile;
use crate::primitives::{Address, B256, Bytes, U256};

/// Why bytes are no ExecuteTx of the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteTxError {
    #[error("transaction is empty")]
    Empty,
    #[error("transaction type is {found:#04x}, ExecuteTx is 0x05")]
    Type { found: u8 },
    #[error("transaction: {fault}")]
    List { fault: alloy_rlp::Error },
    #[error("{bytes} bytes after the end of the transaction")]
    TrailingBytes { bytes: usize },
    #[error("transaction has {found} items, {profile} has {expected}")]
    ItemCount { found: usize, expected: usize, profile: Profile },
    #[error("{field} (item {index}, byte {offset}): {fault}")]
    Item { field: Field, index: usize, offset: usize, fault: alloy_rlp::Error },
    #[error("{field} has {bytes} bytes, expected {expected}")]
    Length { field: Field, bytes: usize, expected: usize },
    #[error("{field} is declared {declared} bytes long and has {bytes}")]
    SizeMismatch { field: Field, declared: u64, bytes: u64 },
    #[error("blob hashes have {bytes} bytes, only an empty list is allowed (EIP-8079)")]
    BlobHashes { bytes: usize },
    #[error("v is {found}, expected 0 or 1")]
    V { found: U256 },
    #[error("max priority fee per gas {tip_wei} is higher than max fee per gas {fee_wei}")]
    TipAboveFee { tip_wei: U256, fee_wei: U256 },
    #[error(transparent)]
    Signature(#[from] RecoverError),
}

/// An item of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    ChainId,
    Nonce,
    TipCap,
    FeeCap,
    Gas,
    To,
    Value,
    Data,
    PreStateRoot,
    WitnessSize,
    WithdrawalsSize,
    AnchorSize,
    Coinbase,
    BlockNumber,
    Timestamp,
    Witness,
    Withdrawals,
    Anchor,
    BlobHashes,
    V,
    R,
    S,
}

impl fmt::Display for Field {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::ChainId => "chain id",
            Self::Nonce => "nonce",
            Self::TipCap => "max priority fee per gas",
            Self::FeeCap => "max fee per gas",
            Self::Gas => "gas",
            Self::To => "to",
            Self::Value => "value",
            Self::Data => "data",
            Self::PreStateRoot => "pre-state hash",
            Self::WitnessSize => "witness size",
            Self::WithdrawalsSize => "withdrawals size",
            Self::AnchorSize => "anchor size",
            Self::Coinbase => "coinbase",
            Self::BlockNumber => "block number",
            Self::Timestamp => "timestamp",
            Self::Witness => "witness",
            Self::Withdrawals => "withdrawals",
            Self::Anchor => "anchor",
            Self::BlobHashes => "blob hashes",
            Self::V => "v",
            Self::R => "r",
            Self::S => "s",
        })
    }
}

/// Walks the items, whose number has been checked.
struct Items<'a> {
    raw: &'a [u8],
    rest: &'a [u8],
    index: usize,
}

impl<'a> Items<'a> {
    /// Reads the next item by `read`, which must not look past it.
    fn next<T>(
        &mut self,
        field: Field,
        read: impl FnOnce(&mut &'a [u8]) -> alloy_rlp::Result<T>,
    ) -> Result<T, ExecuteTxError> {
        let (index, offset) = (self.index, self.raw.len() - self.rest.len());
        self.index += 1;
        read(&mut self.rest).map_err(|fault| ExecuteTxError::Item { field, index, offset, fault })
    }

    fn integer<T: Decodable>(&mut self, field: Field) -> Result<T, ExecuteTxError> {
        self.next(field, T::decode)
    }

    fn string(&mut self, field: Field) -> Result<&'a [u8], ExecuteTxError> {
        self.next(field, |rest| Header::decode_bytes(rest, false))
    }

    fn fixed<const N: usize>(&mut self, field: Field) -> Result<[u8; N], ExecuteTxError> {
        let bytes = self.string(field)?;
        <[u8; N]>::try_from(bytes).map_err(|_| ExecuteTxError::Length { field, bytes: bytes.len(), expected: N })
    }

    fn to(&mut self) -> Result<Option<Address>, ExecuteTxError> {
        if self.rest.first() == Some(&alloy_rlp::EMPTY_STRING_CODE) {
            return self.string(Field::To).map(|_| None);
        }
        self.fixed(Field::To).map(|bytes| Some(Address::from(bytes)))
    }

    /// A string whose length another item has declared.
    fn sized(&mut self, field: Field, declared: u64) -> Result<Bytes, ExecuteTxError> {
        let bytes = self.string(field)?;
        if bytes.len() as u64 != declared {
            return Err(ExecuteTxError::SizeMismatch { field, declared, bytes: bytes.len() as u64 });
        }
        Ok(Bytes::copy_from_slice(bytes))
    }
}

pub(super) fn decode(raw: &[u8], profile: Profile) -> Result<ExecuteTx, ExecuteTxError> {
    let (&found, mut rest) = raw.split_first().ok_or(ExecuteTxError::Empty)?;
    if found != EXECUTE_TX_TYPE {
        return Err(ExecuteTxError::Type { found });
    }
    let items = Header::decode_bytes(&mut rest, true).map_err(|fault| ExecuteTxError::List { fault })?;
    if !rest.is_empty() {
        return Err(ExecuteTxError::TrailingBytes { bytes: rest.len() });
    }
    let found = count_items(items)?;
    if found != profile.item_count() {
        return Err(ExecuteTxError::ItemCount { found, expected: profile.item_count(), profile });
    }
    let mut items = Items { raw, rest: items, index: 0 };
    let terms = Terms {
        chain_id: items.integer(Field::ChainId)?,
        nonce: items.integer(Field::Nonce)?,
        tip_cap_wei: items.integer(Field::TipCap)?,
        fee_cap_wei: items.integer(Field::FeeCap)?,
        gas: items.integer(Field::Gas)?,
    };
    let payload = decode_payload(&mut items, profile)?;
    let signature = decode_signature(&mut items)?;
    if terms.tip_cap_wei > terms.fee_cap_wei {
        return Err(ExecuteTxError::TipAboveFee { tip_wei: terms.tip_cap_wei, fee_wei: terms.fee_cap_wei });
    }
    Ok(ExecuteTx { profile, terms, payload, signature })
}

/// Items of a list, each with a header that fits it.
fn count_items(mut list: &[u8]) -> Result<usize, ExecuteTxError> {
    let mut count = 0;
    while !list.is_empty() {
        let header = Header::decode(&mut list).map_err(|fault| ExecuteTxError::List { fault })?;
        // The header was checked to fit what is left.
        list = &list[header.payload_length..];
        count += 1;
    }
    Ok(count)
}

fn decode_payload(items: &mut Items<'_>, profile: Profile) -> Result<Payload, ExecuteTxError> {
    let to = items.to()?;
    let value = items.integer(Field::Value)?;
    let data = Bytes::copy_from_slice(items.string(Field::Data)?);
    let pre_state_root = B256::from(items.fixed(Field::PreStateRoot)?);
    let witness_size = items.integer(Field::WitnessSize)?;
    let withdrawals_size = items.integer(Field::WithdrawalsSize)?;
    let anchor_size = if profile.has_anchor() { items.integer(Field::AnchorSize)? } else { 0 };
    let coinbase = Address::from(items.fixed(Field::Coinbase)?);
    let block_number = items.integer(Field::BlockNumber)?;
    let timestamp = items.integer(Field::Timestamp)?;
    let witness = items.sized(Field::Witness, witness_size)?;
    let withdrawals = items.sized(Field::Withdrawals, withdrawals_size)?;
    let anchor = if profile.has_anchor() { items.sized(Field::Anchor, anchor_size)? } else { Bytes::new() };
    let blob_hashes = items.next(Field::BlobHashes, |rest| Header::decode_bytes(rest, true))?;
    if !blob_hashes.is_empty() {
        return Err(ExecuteTxError::BlobHashes { bytes: blob_hashes.len() });
    }
    Ok(Payload { to, value, data, pre_state_root, coinbase, block_number, timestamp, witness, withdrawals, anchor })
}

fn decode_signature(items: &mut Items<'_>) -> Result<Signature, ExecuteTxError> {
    let v: U256 = items.integer(Field::V)?;
    let (r, s): (U256, U256) = (items.integer(Field::R)?, items.integer(Field::S)?);
    if v > U256::ONE {
        return Err(ExecuteTxError::V { found: v });
    }
    check_ranges(&r.to_be_bytes(), &s.to_be_bytes(), 0)?;
    Ok(Signature { odd_y: v == U256::ONE, r, s })
}
