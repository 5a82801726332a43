//! Both sides of every check of admission, in text; and what a caller may rely on in order.

use alloy_primitives::{Address, B256, U256, keccak256};

use super::*;
use crate::mempool::PriorityFee;
use crate::primitives::{Span, TxType};

pub(super) fn address(index: u8) -> Address {
    Address::with_last_byte(index + 1)
}

/// A plain transfer with its own hash.
pub(super) fn submission(
    sender: u8,
    nonce: u64,
    max_fee_per_gas_wei: u128,
    max_priority_fee_per_gas_wei: u128,
) -> Submission<u64> {
    let fields = TxFields {
        value_wei: U256::ZERO,
        max_fee_per_gas_wei,
        max_priority_fee_per_gas_wei,
        nonce,
        gas_limit: 21_000,
        chain_id: Some(1),
        input: Span::default(),
        access_list: Span::default(),
        authorization_list: Span::default(),
        access_list_address_count: 0,
        access_list_slot_count: 0,
        authorization_count: 0,
        input_zero_bytes: 0,
        to: Some(Address::ZERO),
        tx_type: TxType::DynamicFee,
    };
    let hash = keccak256(format!("{sender} {nonce} {max_fee_per_gas_wei} {max_priority_fee_per_gas_wei}"));
    Submission {
        hash,
        sender: address(sender),
        fields,
        encoded_bytes: 110,
        intrinsic_gas: 21_000,
        floor_gas: 21_000,
        authorities: None,
        conditions: None,
        payload: 0,
    }
}
