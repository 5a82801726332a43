//! The two lists a transaction can carry: checked once while decoding, walked again without checks that can fail.

use alloy_rlp::{Encodable, Header};

use super::error::{Field, TxError};
use super::rlp::Cursor;
use crate::crypto::keccak::keccak256;
use crate::primitives::{Address, B256, TxFields, U256};

/// First byte of what an authorization signs (EIP-7702).
const AUTHORIZATION_MAGIC: u8 = 0x05;

/// Longest signed form of an authorization: magic, a list header of two bytes, 33 + 21 + 9 bytes of items.
const AUTHORIZATION_BYTES_MAX: usize = 66;

/// Checks an access list (`[[address, [key, ...]], ...]`, EIP-2930); answers how many addresses and keys it names.
pub(super) fn check_access_list(mut list: Cursor<'_>) -> Result<(u32, u32), TxError> {
    let (mut address_count, mut slot_count) = (0, 0);
    while !list.is_empty() {
        let mut entry = list.list(Field::AccessListEntry)?;
        entry.address(Field::AccessListAddress)?;
        let mut keys = entry.list(Field::StorageKeys)?;
        entry.finish(Field::AccessListEntry)?;
        while !keys.is_empty() {
            keys.hash(Field::StorageKey)?;
            slot_count += 1;
        }
        address_count += 1;
    }
    Ok((address_count, slot_count))
}

/// Checks an authorization list (EIP-7702); answers how many authorizations it holds.
///
/// Only the shape is checked. An authorization that cannot apply (other chain, bad signature) is skipped by execution
/// and does not make the transaction invalid.
pub(super) fn check_authorization_list(mut list: Cursor<'_>) -> Result<u32, TxError> {
    let mut count = 0;
    while !list.is_empty() {
        read_authorization(&mut list)?;
        count += 1;
    }
    Ok(count)
}

fn read_authorization(list: &mut Cursor<'_>) -> Result<Authorization, TxError> {
    let mut items = list.list(Field::Authorization)?;
    let authorization = Authorization {
        chain_id: items.u256(Field::AuthorizationChainId)?,
        address: items.address(Field::AuthorizationAddress)?,
        nonce: items.u64(Field::AuthorizationNonce)?,
        y_parity: items.u8(Field::AuthorizationYParity)?,
        r: items.word(Field::AuthorizationR)?,
        s: items.word(Field::AuthorizationS)?,
    };
    items.finish(Field::Authorization)?;
    Ok(authorization)
}

/// Walks the access list of a decoded transaction. `raw` are the bytes that `fields` came from.
#[must_use]
pub fn access_list<'a>(raw: &'a [u8], fields: &TxFields) -> AccessList<'a> {
    AccessList { list: Cursor::new(raw, fields.access_list) }
}

/// Entries of an access list: an address and its storage keys.
#[derive(Clone, Copy, Debug)]
pub struct AccessList<'a> {
    list: Cursor<'a>,
}

impl<'a> Iterator for AccessList<'a> {
    type Item = (Address, StorageKeys<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut entry = self.list.list(Field::AccessListEntry).ok()?;
        let address = entry.address(Field::AccessListAddress).ok()?;
        let keys = entry.list(Field::StorageKeys).ok()?;
        Some((address, StorageKeys { keys }))
    }
}

/// Storage keys of one entry of an access list.
#[derive(Clone, Copy, Debug)]
pub struct StorageKeys<'a> {
    keys: Cursor<'a>,
}

impl Iterator for StorageKeys<'_> {
    type Item = B256;

    fn next(&mut self) -> Option<B256> {
        self.keys.hash(Field::StorageKey).ok()
    }
}

/// Walks the authorization list of a decoded transaction. `raw` are the bytes that `fields` came from.
#[must_use]
pub fn authorizations<'a>(raw: &'a [u8], fields: &TxFields) -> Authorizations<'a> {
    Authorizations { list: Cursor::new(raw, fields.authorization_list) }
}

/// Authorizations of a set-code transaction.
#[derive(Clone, Copy, Debug)]
pub struct Authorizations<'a> {
    list: Cursor<'a>,
}

impl Iterator for Authorizations<'_> {
    type Item = Authorization;

    fn next(&mut self) -> Option<Authorization> {
        read_authorization(&mut self.list).ok()
    }
}

/// One signed permission to run the code of `address` as the signer's own (EIP-7702). May be invalid: see
/// `check_authorization_list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorization {
    pub chain_id: U256,
    pub address: Address,
    pub nonce: u64,
    pub y_parity: u8,
    pub r: [u8; 32],
    pub s: [u8; 32],
}

impl Authorization {
    /// What the authority has signed: `keccak256(0x05 ‖ rlp([chain_id, address, nonce]))`.
    #[must_use]
    pub fn signing_hash(&self) -> B256 {
        let payload_length = self.chain_id.length() + self.address.length() + self.nonce.length();
        let mut buffer = [0; AUTHORIZATION_BYTES_MAX];
        buffer[0] = AUTHORIZATION_MAGIC;
        let mut free = &mut buffer[1..];
        Header { list: true, payload_length }.encode(&mut free);
        self.chain_id.encode(&mut free);
        self.address.encode(&mut free);
        self.nonce.encode(&mut free);
        let bytes = AUTHORIZATION_BYTES_MAX - free.len();
        keccak256(&buffer[..bytes])
    }
}
