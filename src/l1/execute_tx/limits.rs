//! What must hold before a transaction is signed: L1 would refuse it, or take it and do something else.

use super::{EncodedPayload, Payload, Terms};
use crate::primitives::{Address, Fork, U256};

/// Bounds of an L1 node with default settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of L1: item 0.
    pub chain_id: U256,
    /// Bytes of witness, withdrawals and anchor each: their lengths are 16 bits wide in the calldata, and what is longer is
    /// cut without an error.
    pub field_bytes_max: usize,
    /// Bytes of the transaction: the pool's bound.
    pub raw_bytes_max: usize,
    /// EIP-7825, and below it the block's own limit.
    pub gas_max: u64,
    /// gas × fee cap: what a node's RPC takes.
    pub fee_wei_max: U256,
    /// Whether a transaction pays at least the floor of EIP-7623.
    pub has_floor: bool,
}

/// A bound that a transaction breaks: both numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("chain id is {found}, L1's is {expected}")]
    ChainId { found: U256, expected: U256 },
    #[error("recipient is {found}, it must be empty")]
    Recipient { found: Address },
    #[error("value is {found_wei} wei, it must be 0")]
    Value { found_wei: U256 },
    #[error("witness has {bytes} bytes, at most {bytes_max} fit")]
    Witness { bytes: usize, bytes_max: usize },
    #[error("withdrawals have {bytes} bytes, at most {bytes_max} fit")]
    Withdrawals { bytes: usize, bytes_max: usize },
    #[error("anchor has {bytes} bytes, at most {bytes_max} fit")]
    Anchor { bytes: usize, bytes_max: usize },
    #[error("transaction may have {bytes} bytes, at most {bytes_max} are taken")]
    Raw { bytes: usize, bytes_max: usize },
    #[error("gas is {gas}, at most {gas_max} is taken (EIP-7825)")]
    Gas { gas: u64, gas_max: u64 },
    #[error("gas is {gas}, the calldata needs {needed}")]
    GasTooLow { gas: u64, needed: u64 },
    #[error("max priority fee per gas {tip_wei} is higher than max fee per gas {fee_wei}")]
    TipAboveFee { tip_wei: U256, fee_wei: U256 },
    #[error("gas × max fee per gas is {fee_wei} wei, at most {fee_wei_max} is taken")]
    Fee { fee_wei: U256, fee_wei_max: U256 },
}

impl Limits {
    /// A node with default settings, by the rules of `fork`. Gas is held to Osaka's bound under Prague too: it is our policy.
    #[must_use]
    pub fn of_default_node(chain_id: U256, fork: Fork) -> Self {
        // Listed so that a new fork is a compile error here and not a wrong bound.
        let has_floor = match fork {
            Fork::Prague | Fork::Osaka => true,
        };
        Self {
            chain_id,
            field_bytes_max: 65_535,
            raw_bytes_max: 131_072,
            gas_max: 16_777_216,
            fee_wei_max: U256::from(1_000_000_000_000_000_000_u64),
            has_floor,
        }
    }

    /// What a payload breaks whatever its terms: to be asked when it is made, so that it is cut smaller.
    ///
    /// # Errors
    /// The first bound that it breaks.
    pub fn check_payload(&self, payload: &Payload) -> Result<(), LimitError> {
        let bytes_max = self.field_bytes_max;
        if let Some(found) = payload.to {
            return Err(LimitError::Recipient { found });
        }
        if !payload.value.is_zero() {
            return Err(LimitError::Value { found_wei: payload.value });
        }
        if payload.witness.len() > bytes_max {
            return Err(LimitError::Witness { bytes: payload.witness.len(), bytes_max });
        }
        if payload.withdrawals.len() > bytes_max {
            return Err(LimitError::Withdrawals { bytes: payload.withdrawals.len(), bytes_max });
        }
        if payload.anchor.len() > bytes_max {
            return Err(LimitError::Anchor { bytes: payload.anchor.len(), bytes_max });
        }
        Ok(())
    }

    /// Everything that must hold before signing; `encoded` is `payload` as it is sent.
    ///
    /// # Errors
    /// The first bound that the transaction breaks.
    pub fn check(&self, terms: &Terms, payload: &Payload, encoded: &EncodedPayload) -> Result<(), LimitError> {
        self.check_payload(payload)?;
        if terms.chain_id != self.chain_id {
            return Err(LimitError::ChainId { found: terms.chain_id, expected: self.chain_id });
        }
        let bytes = encoded.raw_bytes_max(terms);
        if bytes > self.raw_bytes_max {
            return Err(LimitError::Raw { bytes, bytes_max: self.raw_bytes_max });
        }
        if terms.gas > self.gas_max {
            return Err(LimitError::Gas { gas: terms.gas, gas_max: self.gas_max });
        }
        let needed = encoded.gas().needed(terms, self.has_floor);
        if terms.gas < needed {
            return Err(LimitError::GasTooLow { gas: terms.gas, needed });
        }
        if terms.tip_cap_wei > terms.fee_cap_wei {
            return Err(LimitError::TipAboveFee { tip_wei: terms.tip_cap_wei, fee_wei: terms.fee_cap_wei });
        }
        let fee_wei = terms.fee_cap_wei.saturating_mul(U256::from(terms.gas));
        if fee_wei > self.fee_wei_max {
            return Err(LimitError::Fee { fee_wei, fee_wei_max: self.fee_wei_max });
        }
        Ok(())
    }
}
