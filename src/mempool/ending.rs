//! Why a transaction is refused, and how a pooled one ends.

use alloy_primitives::{Address, B256, U256};
use thiserror::Error;

use super::conditional::{Impossible, Verdict};
use super::pool::{Readiness, Submission, TxId};

/// Who must act on a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The transaction itself is wrong; the same bytes are refused again.
    Sender,
    /// A limit of this pool, or the order of arrival: the same bytes may be accepted later.
    Retry,
}

/// Why admission refuses a transaction. Fields carry the compared values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Reject {
    #[error("already known")]
    AlreadyKnown,
    #[error("wrong chain id: tx {tx}, chain {chain}")]
    ChainIdWrong { tx: u64, chain: u64 },
    #[error("only replay-protected (EIP-155) transactions are accepted")]
    Unprotected,
    #[error("max priority fee per gas higher than max fee per gas: tip {tip_wei}, fee cap {fee_cap_wei}")]
    TipAboveFeeCap { tip_wei: u128, fee_cap_wei: u128 },
    #[error("transaction underpriced: tip {tx_wei}, minimum {minimum_wei}")]
    TipTooLow { tx_wei: u128, minimum_wei: u128 },
    #[error("transaction underpriced: fee cap {tx_wei}, minimum {minimum_wei}")]
    FeeCapTooLow { tx_wei: u128, minimum_wei: u128 },
    #[error("transaction too large: tx {tx} bytes, limit {limit}")]
    TooLarge { tx: u32, limit: u32 },
    #[error("max initcode size exceeded: tx {tx}, limit {limit}")]
    InitCodeTooLarge { tx: u32, limit: u32 },
    #[error("transaction gas limit too high: tx {tx}, cap {cap}")]
    GasAboveCap { tx: u64, cap: u64 },
    #[error("exceeds block gas limit: tx {tx}, block {block}")]
    GasAboveBlock { tx: u64, block: u64 },
    #[error("intrinsic gas too low: tx {tx}, minimum {minimum}")]
    IntrinsicGasTooLow { tx: u64, minimum: u64 },
    #[error("insufficient gas for floor data gas cost: tx {tx}, minimum {minimum}")]
    FloorGasTooLow { tx: u64, minimum: u64 },
    #[error("set code transaction with empty authorization list")]
    AuthorizationListEmpty,
    #[error("set code transaction must not be a create transaction")]
    SetCodeCreation,
    #[error("nonce has max value: tx {tx}")]
    NonceMax { tx: u64 },
    #[error("nonce too low: tx {tx}, account {account}")]
    NonceTooLow { tx: u64, account: u64 },
    #[error("already preconfirmed: tx nonce {tx}, open block account nonce {account}")]
    AlreadyPreconfirmed { tx: u64, account: u64 },
    #[error("nonce too high: tx {tx}, next {next}, gap limit {gap_limit}")]
    NonceTooHigh { tx: u64, next: u64, gap_limit: u64 },
    #[error("sender not an eoa: {sender} has code")]
    SenderHasCode { sender: Address },
    #[error("insufficient funds for gas * price + value: cost of everything pooled {cost_wei}, balance {balance_wei}")]
    InsufficientFunds { cost_wei: U256, balance_wei: U256 },
    #[error("replacement transaction underpriced: fee cap {tx_wei}, minimum {minimum_wei}")]
    ReplacementFeeCapTooLow { tx_wei: u128, minimum_wei: u128 },
    #[error("replacement transaction underpriced: tip {tx_wei}, minimum {minimum_wei}")]
    ReplacementTipTooLow { tx_wei: u128, minimum_wei: u128 },
    #[error("in-flight transaction limit reached for delegated accounts: pooled {pooled}, limit 1")]
    DelegatedInFlight { pooled: u32 },
    #[error("gapped-nonce tx from delegated accounts: tx {tx}, account {account}")]
    DelegatedGap { tx: u64, account: u64 },
    #[error("authority already reserved: {authority} has {pooled} pooled, limit 1")]
    AuthorityReserved { authority: Address, pooled: u32 },
    #[error("too many transactions of this sender: pooled {pooled}, limit {limit}")]
    SenderFull { pooled: u32, limit: u32 },
    #[error("txpool is full: tip {tx_wei}, needs more than {evictable_wei}")]
    TipBelowEvictable { tx_wei: u128, evictable_wei: u128 },
    #[error("txpool is nearly full, fee cap below the base fee: fee cap {tx_wei}, base fee {base_fee_wei}")]
    UnpayableWhileCrowded { tx_wei: u128, base_fee_wei: u128 },
    #[error("txpool is full: {pooled} transactions, limit {limit}")]
    PoolFull { pooled: u32, limit: u32 },
    #[error("txpool is full: {pooled} bytes, limit {limit}")]
    BytesFull { pooled: u64, limit: u64 },
    #[error("too many pooled authorizations: {pooled}, limit {limit}")]
    AuthoritiesFull { pooled: u32, limit: u32 },
    #[error("too many conditional transactions: pooled {pooled}, limit {limit}")]
    ConditionalsFull { pooled: u32, limit: u32 },
}

impl Reject {
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::NonceTooHigh { .. }
            | Self::InsufficientFunds { .. }
            | Self::DelegatedInFlight { .. }
            | Self::DelegatedGap { .. }
            | Self::AuthorityReserved { .. }
            | Self::SenderFull { .. } => Class::Retry,
            other if other.is_limit() => Class::Retry,
            _ => Class::Sender,
        }
    }

    /// Whether a shared limit refused it (JSON-RPC −32005) rather than the transaction (−32000).
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Self::TipBelowEvictable { .. }
                | Self::UnpayableWhileCrowded { .. }
                | Self::PoolFull { .. }
                | Self::BytesFull { .. }
                | Self::AuthoritiesFull { .. }
                | Self::ConditionalsFull { .. }
                | Self::SenderFull { .. }
        )
    }
}

/// Why a pooled transaction can no longer be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Invalid {
    #[error("nonce too low: tx {tx}, account {account}")]
    NonceTooLow { tx: u64, account: u64 },
    #[error("insufficient funds for gas * price + value: cost of everything pooled {cost_wei}, balance {balance_wei}")]
    InsufficientFunds { cost_wei: U256, balance_wei: U256 },
    #[error("sender not an eoa: {sender} has code")]
    SenderHasCode { sender: Address },
    #[error("exceeds block gas limit: tx {tx}, block {block}")]
    GasAboveBlock { tx: u64, block: u64 },
    #[error("condition can no longer be met: {0}")]
    Condition(Impossible),
    /// Its witness, as it was measured, is larger than what an ExecuteTx has left beside its bytes.
    #[error("settlement witness {bytes} > {bytes_max}")]
    Witness { bytes: u64, bytes_max: u64 },
    /// Refused by execution itself, in its words.
    #[error("{0}")]
    Execution(&'static str),
}

/// How a transaction ended in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EndState {
    #[error("placed in the open block")]
    Placed,
    #[error("replaced by {by}")]
    Replaced { by: B256 },
    #[error("expired after {waited_ns} ns as {readiness:?}")]
    Expired { readiness: Readiness, waited_ns: u64 },
    #[error("invalidated: {0}")]
    Invalidated(Invalid),
    #[error("evicted from a full pool: tip {tip_wei}, newcomer {newcomer_tip_wei}")]
    Evicted { tip_wei: u128, newcomer_tip_wei: u128 },
    #[error("dropped by the operator")]
    DroppedByOperator,
    /// Never pooled.
    #[error("rejected: {0}")]
    Rejected(Reject),
}

/// A transaction that ended, handed back with its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed<P> {
    /// `None` when it was refused and never had an id.
    pub id: Option<TxId>,
    pub submission: Submission<P>,
    pub end: EndState,
}

impl From<Impossible> for Invalid {
    fn from(reason: Impossible) -> Self {
        Self::Condition(reason)
    }
}

impl Verdict {
    /// The reason to call `Mempool::invalid` with, when waiting is pointless.
    #[must_use]
    pub fn invalid(&self) -> Option<Invalid> {
        match self {
            Self::Impossible(reason) => Some(Invalid::Condition(*reason)),
            Self::Met | Self::NotYet(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_carry_both_values() {
        let text = Reject::NonceTooLow { tx: 4, account: 5 }.to_string();
        assert_eq!(text, "nonce too low: tx 4, account 5");
        let text = EndState::Invalidated(Invalid::NonceTooLow { tx: 4, account: 5 }).to_string();
        assert_eq!(text, "invalidated: nonce too low: tx 4, account 5");
    }

    #[test]
    fn hot_path_errors_stay_small() {
        const { assert!(size_of::<Reject>() <= 80) };
        const { assert!(size_of::<EndState>() <= 96) };
    }
}
