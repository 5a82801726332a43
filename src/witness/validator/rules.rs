//! The rules of a header that need no state: what it must hold at all, and what follows from its parent.
//!
//! Input → output: parent, header, rules of the chain → the first broken rule. Owner core: any.
//! go-ethereum's stateless execution checks none of the second kind; a block from a peer must obey them, so they are the default.

use alloy_consensus::Header;
use alloy_consensus::constants::EMPTY_OMMER_ROOT_HASH;
use alloy_primitives::{B64, B256, U256};

use crate::builder::block::next_base_fee_wei;
use crate::limits::BLOCK_RLP_BYTES_MAX;
use crate::primitives::Fork;

/// Yellow paper, section 4.3.4.
pub const EXTRA_BYTES_MAX: usize = 32;
/// Yellow paper, section 4.3.4: a gas limit is at least this.
pub const GAS_LIMIT_MIN: u64 = 5_000;
/// EIP-1985: above it gas counters of other implementations overflow.
pub const GAS_LIMIT_MAX: u64 = i64::MAX as u64;
/// Yellow paper, section 4.3.4: a block changes the gas limit by less than its 1,024th part.
pub const GAS_LIMIT_STEP_DIVISOR: u64 = 1_024;

/// A broken rule of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("the header has no {field}, which every block from Prague on has")]
    FieldMissing { field: &'static str },
    #[error("the header has a {field}, which only forks after Osaka have")]
    FieldUnknown { field: &'static str },
    #[error("difficulty is {difficulty}, it must be 0 (EIP-3675)")]
    Difficulty { difficulty: U256 },
    #[error("nonce is {nonce}, it must be 0 (EIP-3675)")]
    Nonce { nonce: B64 },
    #[error("ommers hash is {hash}, it must be {EMPTY_OMMER_ROOT_HASH} (EIP-3675)")]
    OmmersHash { hash: B256 },
    #[error(
        "blob gas used is {used} and excess blob gas {excess}, both must be 0: blobs are forbidden here (EIP-8079)"
    )]
    BlobGas { used: u64, excess: u64 },
    #[error("timestamp is {timestamp}, it must be above the parent's {parent}")]
    Timestamp { timestamp: u64, parent: u64 },
    #[error("extra data has {bytes} bytes, at most {bytes_max} are allowed")]
    ExtraData { bytes: usize, bytes_max: usize },
    #[error("gas limit is {gas_limit}, after the parent's {parent} it must be above {low} and below {high}")]
    GasLimitStep { gas_limit: u64, parent: u64, low: u64, high: u64 },
    #[error("gas limit is {gas_limit}, it must be {GAS_LIMIT_MIN} to {GAS_LIMIT_MAX}")]
    GasLimitRange { gas_limit: u64 },
    #[error("gas used is {gas_used}, the gas limit is {gas_limit}")]
    GasUsedAboveLimit { gas_used: u64, gas_limit: u64 },
    #[error("base fee is {base_fee_wei} wei, the parent makes it {expected_wei} (EIP-1559)")]
    BaseFee { base_fee_wei: u64, expected_wei: u64 },
    #[error("the block has {bytes} bytes of RLP, at most {bytes_max} are allowed (EIP-7934)")]
    BlockBytes { bytes: u64, bytes_max: usize },
}

impl RuleError {
    /// The stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::FieldMissing { .. } => "rule_field_missing",
            Self::FieldUnknown { .. } => "rule_field_unknown",
            Self::Difficulty { .. } => "rule_difficulty",
            Self::Nonce { .. } => "rule_nonce",
            Self::OmmersHash { .. } => "rule_ommers_hash",
            Self::BlobGas { .. } => "rule_blob_gas",
            Self::Timestamp { .. } => "rule_timestamp",
            Self::ExtraData { .. } => "rule_extra_data",
            Self::GasLimitStep { .. } | Self::GasLimitRange { .. } => "rule_gas_limit",
            Self::GasUsedAboveLimit { .. } => "rule_gas_used",
            Self::BaseFee { .. } => "rule_base_fee",
            Self::BlockBytes { .. } => "rule_block_bytes",
        }
    }
}

/// Checks that the header is one of a block that can be executed here, Prague or Osaka.
///
/// # Errors
/// The first field that is missing, unknown or not what it must be.
pub fn check_shape(header: &Header) -> Result<(), RuleError> {
    for (field, is_there) in [
        ("base fee", header.base_fee_per_gas.is_some()),
        ("withdrawals root", header.withdrawals_root.is_some()),
        ("blob gas used", header.blob_gas_used.is_some()),
        ("excess blob gas", header.excess_blob_gas.is_some()),
        ("parent beacon block root", header.parent_beacon_block_root.is_some()),
        ("requests hash", header.requests_hash.is_some()),
    ] {
        if !is_there {
            return Err(RuleError::FieldMissing { field });
        }
    }
    for (field, is_there) in [
        ("block access list hash", header.block_access_list_hash.is_some()),
        ("slot number", header.slot_number.is_some()),
    ] {
        if is_there {
            return Err(RuleError::FieldUnknown { field });
        }
    }
    if !header.difficulty.is_zero() {
        return Err(RuleError::Difficulty { difficulty: header.difficulty });
    }
    let (used, excess) = (header.blob_gas_used.unwrap_or(0), header.excess_blob_gas.unwrap_or(0));
    if used != 0 || excess != 0 {
        return Err(RuleError::BlobGas { used, excess });
    }
    Ok(())
}

/// Checks what follows from the parent, whose number is known to fit, and from the header alone. `block_bytes`: length of the block's RLP.
///
/// # Errors
/// The first broken rule, with the values compared.
pub fn check_header(parent: &Header, header: &Header, fork: Fork, block_bytes: u64) -> Result<(), RuleError> {
    if header.timestamp <= parent.timestamp {
        return Err(RuleError::Timestamp { timestamp: header.timestamp, parent: parent.timestamp });
    }
    if header.nonce != B64::ZERO {
        return Err(RuleError::Nonce { nonce: header.nonce });
    }
    if header.ommers_hash != EMPTY_OMMER_ROOT_HASH {
        return Err(RuleError::OmmersHash { hash: header.ommers_hash });
    }
    let bytes = header.extra_data.len();
    if bytes > EXTRA_BYTES_MAX {
        return Err(RuleError::ExtraData { bytes, bytes_max: EXTRA_BYTES_MAX });
    }
    check_gas(parent, header)?;
    if fork >= Fork::Osaka && block_bytes > BLOCK_RLP_BYTES_MAX as u64 {
        return Err(RuleError::BlockBytes { bytes: block_bytes, bytes_max: BLOCK_RLP_BYTES_MAX });
    }
    Ok(())
}

fn check_gas(parent: &Header, header: &Header) -> Result<(), RuleError> {
    let gas_limit = header.gas_limit;
    if !(GAS_LIMIT_MIN..=GAS_LIMIT_MAX).contains(&gas_limit) {
        return Err(RuleError::GasLimitRange { gas_limit });
    }
    let step = parent.gas_limit / GAS_LIMIT_STEP_DIVISOR;
    let (low, high) = (parent.gas_limit - step, parent.gas_limit.saturating_add(step));
    if gas_limit.abs_diff(parent.gas_limit) >= step {
        return Err(RuleError::GasLimitStep { gas_limit, parent: parent.gas_limit, low, high });
    }
    if header.gas_used > gas_limit {
        return Err(RuleError::GasUsedAboveLimit { gas_used: header.gas_used, gas_limit });
    }
    let base_fee_wei = header.base_fee_per_gas.unwrap_or_default();
    let expected_wei = next_base_fee_wei(parent);
    if base_fee_wei != expected_wei {
        return Err(RuleError::BaseFee { base_fee_wei, expected_wei });
    }
    Ok(())
}
