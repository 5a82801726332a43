//! The chain database behind the port of `history.rs`.

use alloy_consensus::Header;
use alloy_primitives::Log;
use alloy_rlp::Decodable;

use crate::chain::{ChainError, ChainReader, EndState, LogQuery, StoredBlock};
use crate::primitives::{Address, B256};
use crate::rpc::history::{History, HistoryBlock, HistoryEnd, HistoryError, HistoryReceipt, HistoryStatus, Location};

/// A stored block with its header decoded.
struct ChainBlock {
    stored: StoredBlock,
    header: Header,
}

impl From<ChainError> for HistoryError {
    fn from(error: ChainError) -> Self {
        Self(error.to_string())
    }
}

impl History for ChainReader {
    fn latest_number(&self) -> Option<u64> {
        self.latest_number()
    }

    fn status(&self, hash: &B256) -> Result<Option<HistoryStatus>, HistoryError> {
        let Some(record) = self.status(hash)? else { return Ok(None) };
        let end = match record.end {
            EndState::Included => HistoryEnd::Included,
            EndState::Dropped { reason } => HistoryEnd::Dropped { reason },
            EndState::Replaced { by } => HistoryEnd::Replaced { by },
            EndState::Invalidated { reason, required, actual } => HistoryEnd::Invalidated { reason, required, actual },
        };
        let times = record.times;
        Ok(Some(HistoryStatus {
            end,
            accepted_unix_ms: times.accepted_unix_ms,
            preconfirmed_unix_ms: times.preconfirmed_unix_ms,
            ended_unix_ms: times.ended_unix_ms,
            posted_unix_ms: times.posted_unix_ms,
            safe_unix_ms: times.safe_unix_ms,
            finalized_unix_ms: times.finalized_unix_ms,
        }))
    }

    fn block_by_number(&self, number: u64) -> Result<Option<Box<dyn HistoryBlock + '_>>, HistoryError> {
        let Some(stored) = self.block_by_number(number)? else { return Ok(None) };
        let header = Header::decode(&mut stored.header_rlp()?)
            .map_err(|error| HistoryError(format!("header of block {number}: {error}")))?;
        Ok(Some(Box::new(ChainBlock { stored, header })))
    }

    fn number_by_hash(&self, hash: &B256) -> Result<Option<u64>, HistoryError> {
        Ok(self.number_by_hash(hash)?)
    }

    fn transaction_by_hash(&self, hash: &B256) -> Result<Option<Location>, HistoryError> {
        let found = self.transaction_by_hash(hash)?;
        Ok(found.map(|location| Location { number: location.number, index: location.index }))
    }

    fn may_have_logs(&self, number: u64, query: &LogQuery) -> Result<bool, HistoryError> {
        Ok(self.may_have_logs(number, query)?)
    }
}

impl ChainBlock {
    fn missing(&self, index: usize) -> HistoryError {
        HistoryError(format!("block {} has no transaction {index}", self.header.number))
    }
}

/// An index that does not fit 32 bits is above every count.
fn narrow(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl HistoryBlock for ChainBlock {
    fn header(&self) -> &Header {
        &self.header
    }

    fn hash(&self) -> B256 {
        self.stored.hash()
    }

    fn tx_count(&self) -> usize {
        self.stored.tx_count() as usize
    }

    fn transaction(&self, index: usize) -> Result<(&[u8], B256, Address), HistoryError> {
        let tx = self.stored.tx(narrow(index))?.ok_or_else(|| self.missing(index))?;
        Ok((tx.raw, tx.hash, tx.sender))
    }

    fn receipt(&self, index: usize) -> Result<HistoryReceipt, HistoryError> {
        let receipt = self.stored.receipt(narrow(index))?.ok_or_else(|| self.missing(index))?;
        let logs = receipt.logs.into_iter().map(|log| Log::new_unchecked(log.address, log.topics, log.data));
        Ok(HistoryReceipt {
            success: receipt.success,
            cumulative_gas_used: receipt.cumulative_gas_used,
            gas_used: receipt.gas_used,
            contract_address: receipt.contract_address,
            logs: logs.collect(),
        })
    }

    fn first_log_index(&self, index: usize) -> Result<u64, HistoryError> {
        let receipt = self.stored.receipt_ref(narrow(index))?.ok_or_else(|| self.missing(index))?;
        Ok(u64::from(receipt.log_index_start))
    }
}
