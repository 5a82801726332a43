//! What the RPC layer asks the chain database: a narrow port, so that queries can be tested without files.

use alloy_consensus::Header;
use alloy_primitives::Log;

use crate::chain::LogQuery;
use crate::primitives::{Address, B256, U256};

/// The chain database could not answer: its files are damaged or unreadable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chain database: {0}")]
pub struct HistoryError(pub String);

/// Where an included transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    pub number: u64,
    pub index: u32,
}

/// A receipt as the database keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryReceipt {
    pub success: bool,
    pub cumulative_gas_used: u64,
    pub gas_used: u64,
    pub contract_address: Option<Address>,
    pub logs: Vec<Log>,
}

/// One block of the database, read lazily.
pub trait HistoryBlock {
    fn header(&self) -> &Header;

    fn hash(&self) -> B256;

    fn tx_count(&self) -> usize;

    /// 2718 encoding, hash and sender; `index < tx_count`.
    fn transaction(&self, index: usize) -> Result<(&[u8], B256, Address), HistoryError>;

    fn receipt(&self, index: usize) -> Result<HistoryReceipt, HistoryError>;

    /// How many logs the receipts before `index` have.
    fn first_log_index(&self, index: usize) -> Result<u64, HistoryError>;
}

/// How a transaction that is not live any more ended, and when it got where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryStatus {
    pub end: HistoryEnd,
    pub accepted_unix_ms: u64,
    pub preconfirmed_unix_ms: Option<u64>,
    pub ended_unix_ms: Option<u64>,
    pub posted_unix_ms: Option<u64>,
    pub safe_unix_ms: Option<u64>,
    pub finalized_unix_ms: Option<u64>,
}

/// End states as the database keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryEnd {
    Included,
    /// Left the pool; `reason` is the chain database's code.
    Dropped {
        reason: u8,
    },
    Replaced {
        by: B256,
    },
    /// Broke a rule when its turn came; `required` and `actual` are what was compared.
    Invalidated {
        reason: u8,
        required: U256,
        actual: U256,
    },
}

/// The chain database, as query threads see it.
pub trait History {
    /// Number of the newest block that can be read.
    fn latest_number(&self) -> Option<u64>;

    /// Of a transaction; under a block's hash, when the block was posted, safe and final. `None` when it is not (any more) remembered.
    fn status(&self, hash: &B256) -> Result<Option<HistoryStatus>, HistoryError>;

    fn block_by_number(&self, number: u64) -> Result<Option<Box<dyn HistoryBlock + '_>>, HistoryError>;

    fn number_by_hash(&self, hash: &B256) -> Result<Option<u64>, HistoryError>;

    fn transaction_by_hash(&self, hash: &B256) -> Result<Option<Location>, HistoryError>;

    /// Whether a block may have logs that match, without reading its body. False answers are certain.
    fn may_have_logs(&self, number: u64, query: &LogQuery) -> Result<bool, HistoryError>;
}
