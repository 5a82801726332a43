//! What the RPC layer asks the chain database: a narrow port, so that queries can be tested without files.

use alloy_consensus::Header;
use alloy_primitives::Log;

use crate::primitives::{Address, B256, Bloom};

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

/// The chain database, as query threads see it.
pub trait History {
    fn block_by_number(&self, number: u64) -> Result<Option<Box<dyn HistoryBlock + '_>>, HistoryError>;

    fn number_by_hash(&self, hash: &B256) -> Result<Option<u64>, HistoryError>;

    fn transaction_by_hash(&self, hash: &B256) -> Result<Option<Location>, HistoryError>;

    /// Bloom of a block without reading its body.
    fn bloom(&self, number: u64) -> Result<Option<Bloom>, HistoryError>;
}
