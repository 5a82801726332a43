//! Gas that a transaction pays before its first instruction.

use crate::primitives::{Fork, TxFields};

const TX_GAS: u64 = 21_000;
/// A zero byte of input is one token, another byte four (EIP-2028, EIP-7623).
const TOKENS_PER_NONZERO_BYTE: u64 = 4;
/// EIP-2028: four gas a token.
const TOKEN_GAS: u64 = 4;
/// EIP-7623: the least that a token costs when execution is cheap.
const TOKEN_FLOOR_GAS: u64 = 10;
/// EIP-2.
const CREATE_GAS: u64 = 32_000;
/// EIP-3860, per started word of init code.
const INIT_CODE_WORD_GAS: u64 = 2;
/// EIP-2930.
const ACCESS_LIST_ADDRESS_GAS: u64 = 2_400;
/// EIP-2930.
const ACCESS_LIST_SLOT_GAS: u64 = 1_900;
/// EIP-7702, `PER_EMPTY_ACCOUNT_COST`.
const AUTHORIZATION_GAS: u64 = 25_000;

/// Gas charged before execution, and the floor under the gas used (EIP-7623): a transaction's limit must reach both.
///
/// Source: EIP-2028, 2930, 3860, 7702, 7623; the same in Prague and Osaka. Cannot overflow: all counts are 32 bits wide.
#[must_use]
pub fn intrinsic_gas(fields: &TxFields, fork: Fork) -> (u64, u64) {
    // Listed so that a new fork is a compile error here and not a wrong price.
    match fork {
        Fork::Prague | Fork::Osaka => {}
    }
    let zero_bytes = u64::from(fields.input_zero_bytes);
    let input_bytes = u64::from(fields.input.len);
    let tokens = zero_bytes + (input_bytes - zero_bytes) * TOKENS_PER_NONZERO_BYTE;
    let creation_gas = match fields.to {
        Some(_) => 0,
        None => CREATE_GAS + input_bytes.div_ceil(32) * INIT_CODE_WORD_GAS,
    };
    let initial = TX_GAS
        + tokens * TOKEN_GAS
        + creation_gas
        + u64::from(fields.access_list_address_count) * ACCESS_LIST_ADDRESS_GAS
        + u64::from(fields.access_list_slot_count) * ACCESS_LIST_SLOT_GAS
        + u64::from(fields.authorization_count) * AUTHORIZATION_GAS;
    (initial, TX_GAS + tokens * TOKEN_FLOOR_GAS)
}
