//! What can be said of a transaction without its account: limits and the checks against them.

use super::ending::Reject;
use super::ordering::Fees;
use super::pool::Submission;
use crate::primitives::{TxFields, TxType};

/// Bounds and policies of a pool. Construction takes memory for all of it at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub chain_id: u64,
    /// Whether legacy transactions without a chain id (EIP-155) are taken.
    pub unprotected_allowed: bool,
    /// On full: `Reject` a newcomer that is not worth an eviction.
    pub transactions_max: u32,
    /// Encoded bytes, authorities and conditions of everything pooled. On full: as `transactions_max`.
    pub bytes_max: u64,
    /// Encoded bytes of one transaction.
    pub transaction_bytes_max: u32,
    /// On full: `Reject`. Also bounds what one invalid transaction can make us re-queue.
    pub per_sender_max: u32,
    /// Largest distance of a nonce from the sender's next contiguous one.
    pub nonce_gap_max: u64,
    /// How long a transaction waits behind a nonce gap.
    pub gap_lifetime_ns: u64,
    /// How long a transaction waits for its place: base fee, condition or competition.
    pub ready_lifetime_ns: u64,
    /// What a replacement adds to both fees, in percent.
    pub fee_bump_percent: u8,
    pub tip_wei_min: u128,
    pub fee_cap_wei_min: u128,
    pub block_gas_limit: u64,
    /// EIP-7825's 2^24, kept as a policy on forks before Osaka too, so that a fork change invalidates nothing.
    pub tx_gas_max: u64,
    /// EIP-3860.
    pub init_code_bytes_max: u32,
    /// Reserved EIP-7702 authorities over the whole pool. On full: `Reject`.
    pub authorities_max: u32,
    /// Conditional transactions over the whole pool. On full: `Reject`.
    pub conditionals_max: u32,
    /// Queued transactions that one newcomer may push out.
    pub evictions_per_admission_max: u32,
}

/// Those of [`Limits`] that change while the pool lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub transactions_max: u32,
    pub bytes_max: u64,
    pub per_sender_max: u32,
}

impl Limits {
    /// The defaults of a chain with this id and block gas limit.
    #[must_use]
    pub fn new(chain_id: u64, block_gas_limit: u64) -> Self {
        Self {
            chain_id,
            unprotected_allowed: false,
            transactions_max: 131_072,
            bytes_max: 256 << 20,
            transaction_bytes_max: 65_536,
            per_sender_max: 1_024,
            nonce_gap_max: 64,
            gap_lifetime_ns: 300_000_000_000,
            // As go-ethereum's `Lifetime`: three hours.
            ready_lifetime_ns: 10_800_000_000_000,
            fee_bump_percent: 10,
            tip_wei_min: 0,
            // By EIP-1559 the base fee stops falling at 7 wei: a lower cap could never be placed.
            fee_cap_wei_min: 7,
            block_gas_limit,
            tx_gas_max: 16_777_216,
            init_code_bytes_max: 49_152,
            authorities_max: 65_536,
            conditionals_max: 8_192,
            // The largest transaction in the room of the smallest (about 100 bytes) would need hundreds; most are alike.
            evictions_per_admission_max: 64,
        }
    }
}

/// Gas that a transaction needs before its first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GasNeeds {
    pub intrinsic_gas: u64,
    /// EIP-7623.
    pub floor_gas: u64,
}

impl GasNeeds {
    /// Computes both by the rules of Prague, which Osaka keeps.
    ///
    /// Source: EIP-2, EIP-2028, EIP-2930, EIP-3860, EIP-7623, EIP-7702.
    #[must_use]
    pub fn of(fields: &TxFields) -> Self {
        const TX_BASE_GAS: u64 = 21_000;
        const CREATE_GAS: u64 = 32_000;
        const INIT_CODE_WORD_GAS: u64 = 2;
        const TOKEN_GAS: u64 = 4;
        const TOKEN_FLOOR_GAS: u64 = 10;
        const TOKENS_PER_NONZERO_BYTE: u64 = 4;
        const ACCESS_LIST_ADDRESS_GAS: u64 = 2_400;
        const ACCESS_LIST_SLOT_GAS: u64 = 1_900;
        const EMPTY_ACCOUNT_GAS: u64 = 25_000;

        // Counts are u32 and factors below 2^15: no sum of these leaves 64 bits.
        let zero_bytes = u64::from(fields.input_zero_bytes);
        let input_bytes = u64::from(fields.input.len);
        let token_count = zero_bytes + input_bytes.saturating_sub(zero_bytes) * TOKENS_PER_NONZERO_BYTE;
        let creation_gas = match fields.to {
            None => CREATE_GAS + input_bytes.div_ceil(32) * INIT_CODE_WORD_GAS,
            Some(_) => 0,
        };
        let intrinsic_gas = TX_BASE_GAS
            + creation_gas
            + token_count * TOKEN_GAS
            + u64::from(fields.access_list_address_count) * ACCESS_LIST_ADDRESS_GAS
            + u64::from(fields.access_list_slot_count) * ACCESS_LIST_SLOT_GAS
            + u64::from(fields.authorization_count) * EMPTY_ACCOUNT_GAS;
        Self { intrinsic_gas, floor_gas: TX_BASE_GAS + token_count * TOKEN_FLOOR_GAS }
    }
}

/// Refuses what is wrong whoever sends it.
pub(super) fn check_fields<P>(limits: &Limits, submission: &Submission<P>) -> Result<(), Reject> {
    let fields = &submission.fields;
    check_chain(limits, fields)?;
    if submission.encoded_bytes > limits.transaction_bytes_max {
        return Err(Reject::TooLarge { tx: submission.encoded_bytes, limit: limits.transaction_bytes_max });
    }
    if fields.to.is_none() && fields.input.len > limits.init_code_bytes_max {
        return Err(Reject::InitCodeTooLarge { tx: fields.input.len, limit: limits.init_code_bytes_max });
    }
    check_fees(limits, fields)?;
    check_gas(limits, submission)?;
    if fields.tx_type == TxType::SetCode {
        if fields.to.is_none() {
            return Err(Reject::SetCodeCreation);
        }
        if fields.authorization_count == 0 {
            return Err(Reject::AuthorizationListEmpty);
        }
    }
    // EIP-2681: this nonce could never be incremented.
    if fields.nonce == u64::MAX {
        return Err(Reject::NonceMax { tx: fields.nonce });
    }
    Ok(())
}

fn check_chain(limits: &Limits, fields: &TxFields) -> Result<(), Reject> {
    match fields.chain_id {
        Some(tx) if tx != limits.chain_id => Err(Reject::ChainIdWrong { tx, chain: limits.chain_id }),
        None if !limits.unprotected_allowed => Err(Reject::Unprotected),
        _ => Ok(()),
    }
}

fn check_fees(limits: &Limits, fields: &TxFields) -> Result<(), Reject> {
    let (tip_wei, fee_cap_wei) = (fields.max_priority_fee_per_gas_wei, fields.max_fee_per_gas_wei);
    if tip_wei > fee_cap_wei {
        return Err(Reject::TipAboveFeeCap { tip_wei, fee_cap_wei });
    }
    if tip_wei < limits.tip_wei_min {
        return Err(Reject::TipTooLow { tx_wei: tip_wei, minimum_wei: limits.tip_wei_min });
    }
    if fee_cap_wei < limits.fee_cap_wei_min {
        return Err(Reject::FeeCapTooLow { tx_wei: fee_cap_wei, minimum_wei: limits.fee_cap_wei_min });
    }
    Ok(())
}

fn check_gas<P>(limits: &Limits, submission: &Submission<P>) -> Result<(), Reject> {
    let tx = submission.fields.gas_limit;
    if tx > limits.tx_gas_max {
        return Err(Reject::GasAboveCap { tx, cap: limits.tx_gas_max });
    }
    if tx > limits.block_gas_limit {
        return Err(Reject::GasAboveBlock { tx, block: limits.block_gas_limit });
    }
    if tx < submission.intrinsic_gas {
        return Err(Reject::IntrinsicGasTooLow { tx, minimum: submission.intrinsic_gas });
    }
    if tx < submission.floor_gas {
        return Err(Reject::FloorGasTooLow { tx, minimum: submission.floor_gas });
    }
    Ok(())
}

/// Refuses a replacement that does not raise both fees by the bump.
pub(super) fn check_replacement(limits: &Limits, old: Fees, new: Fees) -> Result<(), Reject> {
    let tx_wei = new.max_fee_per_gas_wei;
    let minimum_wei = bumped(old.max_fee_per_gas_wei, limits.fee_bump_percent);
    if tx_wei < minimum_wei || tx_wei == old.max_fee_per_gas_wei {
        return Err(Reject::ReplacementFeeCapTooLow { tx_wei, minimum_wei });
    }
    let tx_wei = new.max_priority_fee_per_gas_wei;
    let minimum_wei = bumped(old.max_priority_fee_per_gas_wei, limits.fee_bump_percent);
    if tx_wei < minimum_wei || tx_wei == old.max_priority_fee_per_gas_wei {
        return Err(Reject::ReplacementTipTooLow { tx_wei, minimum_wei });
    }
    Ok(())
}

/// `fee` raised by `percent`, rounded up, by 1 at least; saturating.
fn bumped(fee_wei: u128, percent: u8) -> u128 {
    let percent = u128::from(percent);
    // Split so that nothing overflows: fee = 100 × whole + rest.
    let raise_wei = (fee_wei / 100).saturating_mul(percent).saturating_add((fee_wei % 100 * percent).div_ceil(100));
    fee_wei.saturating_add(raise_wei.max(1))
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Address;
    use proptest::prelude::*;
    use revm::context_interface::cfg::gas::calculate_initial_tx_gas;
    use revm::primitives::hardfork::SpecId;

    use super::*;
    use crate::mempool::pool::tests::submission;
    use crate::primitives::Span;

    proptest! {
        #[test]
        fn gas_needs_equal_those_of_revm(
            input in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..200), is_create: bool,
            access_list in (0_u32..50, 0_u32..50), authorization_count in 0_u32..50,
        ) {
            let fields = TxFields {
                input: Span { start: 0, len: input.len() as u32 },
                input_zero_bytes: input.iter().filter(|byte| **byte == 0).count() as u32,
                to: (!is_create).then_some(Address::ZERO),
                access_list_address_count: access_list.0,
                access_list_slot_count: access_list.1,
                authorization_count,
                ..submission(0, 0, 0, 0).fields
            };
            let counts = [access_list.0, access_list.1, authorization_count].map(u64::from);
            for spec in [SpecId::PRAGUE, SpecId::OSAKA] {
                let expected = calculate_initial_tx_gas(spec, &input, is_create, counts[0], counts[1], counts[2], None);
                let needs = GasNeeds::of(&fields);
                prop_assert_eq!(needs.intrinsic_gas, expected.initial_regular_gas + expected.initial_state_gas);
                prop_assert_eq!(needs.floor_gas, expected.floor_gas);
            }
        }
    }

    #[test]
    fn bump_rounds_up_and_saturates() {
        for (fee_wei, expected) in [(0, 1), (1, 2), (9, 10), (10, 11), (11, 13), (100, 110), (101, 112), (1_000, 1_100)]
        {
            assert_eq!(bumped(fee_wei, 10), expected, "{fee_wei}");
        }
        assert_eq!(bumped(u128::MAX, 10), u128::MAX);
        assert_eq!(bumped(7, 0), 8);
    }
}
