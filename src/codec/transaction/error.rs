//! Why bytes are not a transaction that we admit.

use super::rlp::RlpFault;
use crate::crypto::recovery::RecoverError;

/// Parts of a transaction that an error can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Field {
    #[error("transaction")]
    Transaction,
    #[error("chain id")]
    ChainId,
    #[error("nonce")]
    Nonce,
    #[error("gas price")]
    GasPrice,
    #[error("max priority fee per gas")]
    MaxPriorityFeePerGas,
    #[error("max fee per gas")]
    MaxFeePerGas,
    #[error("gas limit")]
    GasLimit,
    #[error("to")]
    To,
    #[error("value")]
    Value,
    #[error("input")]
    Input,
    #[error("access list")]
    AccessList,
    #[error("access list entry")]
    AccessListEntry,
    #[error("access list address")]
    AccessListAddress,
    #[error("storage keys")]
    StorageKeys,
    #[error("storage key")]
    StorageKey,
    #[error("authorization list")]
    AuthorizationList,
    #[error("authorization")]
    Authorization,
    #[error("authorization chain id")]
    AuthorizationChainId,
    #[error("authorization address")]
    AuthorizationAddress,
    #[error("authorization nonce")]
    AuthorizationNonce,
    #[error("authorization y parity")]
    AuthorizationYParity,
    #[error("authorization r")]
    AuthorizationR,
    #[error("authorization s")]
    AuthorizationS,
    #[error("v")]
    V,
    #[error("y parity")]
    YParity,
    #[error("r")]
    R,
    #[error("s")]
    S,
}

/// Why bytes are not a transaction that we admit. The sender must act on all of them, except that `ExecuteTx` asks the
/// caller to take another route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    #[error("transaction is empty")]
    Empty,
    #[error("transaction has {bytes} bytes, at most {bytes_max} are possible")]
    TooLong { bytes: u64, bytes_max: u32 },
    #[error("transaction type {0:#04x} is not supported")]
    UnsupportedType(u8),
    #[error("blob transactions (type 3) are not allowed on a native rollup (EIP-8079)")]
    BlobForbidden,
    #[error("ExecuteTx (type 5) belongs to the L1")]
    ExecuteTx,
    #[error("first byte 0x{0:02x} is neither a transaction type nor an RLP list")]
    NotATransaction(u8),
    #[error("{field}: {fault} at byte {offset}")]
    Rlp { field: Field, fault: RlpFault, offset: u32 },
    #[error("{field} is missing: the list has too few items")]
    Missing { field: Field },
    #[error("{field} has {bytes} bytes after its last item")]
    ExtraItems { field: Field, bytes: u32 },
    #[error("{bytes} bytes after the end of the transaction")]
    TrailingBytes { bytes: u32 },
    #[error("{field} has a leading zero byte")]
    LeadingZero { field: Field },
    #[error("{field} has {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge { field: Field, bytes: u32, bytes_max: u32 },
    #[error("{field} has {bytes} bytes, expected {expected}")]
    Length { field: Field, bytes: u32, expected: u32 },
    #[error("nonce is 2^64-1, the largest is 2^64-2 (EIP-2681)")]
    NonceMax,
    #[error("max priority fee per gas {tip_wei} is higher than max fee per gas {fee_wei}")]
    TipAboveFee { tip_wei: u128, fee_wei: u128 },
    #[error("v is {0}, expected 27, 28 or 35 and more (EIP-155)")]
    LegacyV(u128),
    #[error("authorization list is empty (EIP-7702)")]
    AuthorizationListEmpty,
    #[error("set-code transaction (type 4) cannot create a contract (EIP-7702)")]
    SetCodeCreation,
    #[error(transparent)]
    Signature(#[from] RecoverError),
}

// Returned by value on the hot path: two 128-bit fees and a tag.
const _: () = assert!(size_of::<TxError>() <= 48);
