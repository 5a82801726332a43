//! One way to look at a block, wherever it is: open, sealed in memory, or in the chain database. The encoders know only this.

use alloy_consensus::transaction::Transaction as _;
use alloy_consensus::{Header, TxEnvelope};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::Log;

use crate::builder::block::{BlockContext, OpenBlock, PlacedTx, SealedBlock};
use crate::primitives::{Address, B256, Sequence};
use crate::rpc::error::RpcError;
use crate::rpc::history::{HistoryBlock, HistoryError, HistoryReceipt};

/// The durable beginning of a block that has no hash yet.
#[derive(Clone, Copy)]
pub struct OpenPrefix<'a> {
    pub block: &'a OpenBlock,
    pub tx_count: usize,
}

impl<'a> OpenPrefix<'a> {
    /// The entries of `block` that may be shown at `durable`. Sequences grow with the index.
    #[must_use]
    pub fn durable(block: &'a OpenBlock, durable: Sequence) -> Self {
        let (mut low, mut high) = (0, block.transactions.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let shown = block.transactions.get(middle).is_some_and(|tx| tx.sequence <= durable);
            (low, high) = if shown { (middle + 1, high) } else { (low, middle) };
        }
        Self { block, tx_count: low }
    }

    /// State changes that belong to the prefix, the opening system calls included.
    #[must_use]
    pub fn diff_count(&self) -> usize {
        match self.last() {
            Some(tx) => (tx.diffs.start + tx.diffs.len) as usize,
            None => self.block.system_diff_count,
        }
    }

    #[must_use]
    pub fn last(&self) -> Option<&'a PlacedTx> {
        self.block.transactions.get(self.tx_count.checked_sub(1)?)
    }
}

/// A block that can be encoded.
pub enum BlockSource<'a> {
    Open(OpenPrefix<'a>),
    Sealed(&'a SealedBlock),
    Stored(Box<dyn HistoryBlock + 'a>),
    /// What would be opened next: `pending` while no block is open.
    Unopened(Box<BlockContext>),
}

/// A transaction and where its bytes are.
#[derive(Clone, Copy, Debug)]
pub struct TxView<'a> {
    /// The 2718 encoding.
    pub raw: &'a [u8],
    pub hash: B256,
    pub sender: Address,
}

/// A receipt with what `eth_getTransactionReceipt` adds to it.
pub struct ReceiptView<'a> {
    pub tx: TxView<'a>,
    pub index: usize,
    pub success: bool,
    pub gas_used: u64,
    pub cumulative_gas_used: u64,
    pub contract_address: Option<Address>,
    pub effective_gas_price_wei: u128,
    /// Index of the first log in its block.
    pub first_log_index: u64,
    logs: Logs<'a>,
}

enum Logs<'a> {
    Placed(&'a OpenBlock, &'a PlacedTx),
    Owned(Vec<Log>),
}

impl ReceiptView<'_> {
    /// The receipt of a transaction that has its place.
    #[must_use]
    pub fn placed<'a>(block: &'a OpenBlock, tx: &'a PlacedTx, index: usize) -> ReceiptView<'a> {
        ReceiptView {
            tx: TxView { raw: block.raw(tx), hash: tx.hash, sender: tx.sender },
            index,
            success: tx.success,
            gas_used: tx.gas_used,
            cumulative_gas_used: tx.cumulative_gas_used,
            contract_address: tx.contract_address,
            effective_gas_price_wei: tx.effective_gas_price_wei,
            first_log_index: u64::from(tx.logs.start),
            logs: Logs::Placed(block, tx),
        }
    }

    pub fn logs(&self) -> impl Iterator<Item = &Log> {
        let (placed, owned) = match &self.logs {
            Logs::Placed(block, tx) => (Some(block.logs_of(tx)), &[][..]),
            Logs::Owned(logs) => (None, logs.as_slice()),
        };
        placed.into_iter().flatten().chain(owned)
    }
}

/// What the entries of a block say about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Zero while the block has no hash.
    pub block_hash: B256,
    pub block_number: u64,
    pub timestamp: u64,
    pub base_fee_wei: u64,
}

impl Place {
    /// The place of entries in a block that has no hash yet.
    #[must_use]
    pub fn unsealed(context: &BlockContext) -> Self {
        Self {
            block_hash: B256::ZERO,
            block_number: context.number,
            timestamp: context.timestamp,
            base_fee_wei: context.base_fee_per_gas_wei,
        }
    }

    #[must_use]
    pub fn sealed(header: &Header, hash: B256) -> Self {
        Self {
            block_hash: hash,
            block_number: header.number,
            timestamp: header.timestamp,
            base_fee_wei: header.base_fee_per_gas.unwrap_or(0),
        }
    }
}

impl BlockSource<'_> {
    /// `None` while the block has no hash.
    #[must_use]
    pub fn header(&self) -> Option<(&Header, B256)> {
        match self {
            Self::Open(_) | Self::Unopened(_) => None,
            Self::Sealed(sealed) => Some((&sealed.header, sealed.hash)),
            Self::Stored(stored) => Some((stored.header(), stored.hash())),
        }
    }

    #[must_use]
    pub fn place(&self) -> Place {
        match self {
            Self::Open(prefix) => Place::unsealed(&prefix.block.context),
            Self::Unopened(context) => Place::unsealed(context),
            Self::Sealed(sealed) => Place::sealed(&sealed.header, sealed.hash),
            Self::Stored(stored) => Place::sealed(stored.header(), stored.hash()),
        }
    }

    #[must_use]
    pub fn tx_count(&self) -> usize {
        match self {
            Self::Open(prefix) => prefix.tx_count,
            Self::Unopened(_) => 0,
            Self::Sealed(sealed) => sealed.block.transactions.len(),
            Self::Stored(stored) => stored.tx_count(),
        }
    }

    /// `None` when `index` is not below `tx_count`.
    pub fn transaction(&self, index: usize) -> Result<Option<TxView<'_>>, RpcError> {
        if index >= self.tx_count() {
            return Ok(None);
        }
        match self {
            Self::Stored(stored) => {
                let (raw, hash, sender) = stored.transaction(index)?;
                Ok(Some(TxView { raw, hash, sender }))
            }
            Self::Open(OpenPrefix { block, .. }) => Ok(placed_view(block, index)),
            Self::Unopened(_) => Ok(None),
            Self::Sealed(sealed) => Ok(placed_view(&sealed.block, index)),
        }
    }

    /// `None` when `index` is not below `tx_count`.
    pub fn receipt(&self, index: usize) -> Result<Option<ReceiptView<'_>>, RpcError> {
        if index >= self.tx_count() {
            return Ok(None);
        }
        let block: &OpenBlock = match self {
            Self::Stored(stored) => {
                let first_log_index = stored.first_log_index(index)?;
                return self.stored_receipt(stored.as_ref(), index, first_log_index).map(Some);
            }
            Self::Open(prefix) => prefix.block,
            Self::Sealed(sealed) => &sealed.block,
            Self::Unopened(_) => return Ok(None),
        };
        Ok(block.transactions.get(index).map(|tx| ReceiptView::placed(block, tx, index)))
    }

    /// All receipts in order: cheaper than one by one, because log indices are counted on the way.
    pub fn for_each_receipt(
        &self,
        mut visit: impl FnMut(&ReceiptView<'_>) -> Result<(), RpcError>,
    ) -> Result<(), RpcError> {
        let mut first_log_index = 0;
        for index in 0..self.tx_count() {
            let receipt = match self {
                Self::Stored(stored) => Some(self.stored_receipt(stored.as_ref(), index, first_log_index)?),
                _ => self.receipt(index)?,
            };
            let Some(receipt) = receipt else { break };
            visit(&receipt)?;
            first_log_index += receipt.logs().count() as u64;
        }
        Ok(())
    }

    fn stored_receipt<'a>(
        &self,
        stored: &'a (dyn HistoryBlock + 'a),
        index: usize,
        first_log_index: u64,
    ) -> Result<ReceiptView<'a>, RpcError> {
        let (raw, hash, sender) = stored.transaction(index)?;
        let HistoryReceipt { success, cumulative_gas_used, gas_used, contract_address, logs } =
            stored.receipt(index)?;
        let base_fee_wei = stored.header().base_fee_per_gas.unwrap_or(0);
        Ok(ReceiptView {
            tx: TxView { raw, hash, sender },
            index,
            success,
            gas_used,
            cumulative_gas_used,
            contract_address,
            effective_gas_price_wei: tx_price_wei(&decode_envelope(raw)?, base_fee_wei),
            first_log_index,
            logs: Logs::Owned(logs),
        })
    }
}

fn placed_view(block: &OpenBlock, index: usize) -> Option<TxView<'_>> {
    let tx = block.transactions.get(index)?;
    Some(TxView { raw: block.raw(tx), hash: tx.hash, sender: tx.sender })
}

/// Decodes bytes that were decoded once before: when that fails, they were damaged since.
pub fn decode_envelope(raw: &[u8]) -> Result<TxEnvelope, RpcError> {
    TxEnvelope::decode_2718_exact(raw)
        .map_err(|error| RpcError::internal(format!("stored transaction does not decode: {error}")))
}

/// What a transaction pays per gas at a base fee.
#[must_use]
pub fn tx_price_wei(envelope: &TxEnvelope, base_fee_wei: u64) -> u128 {
    envelope.effective_gas_price(Some(base_fee_wei))
}

impl From<HistoryError> for RpcError {
    fn from(error: HistoryError) -> Self {
        Self::internal(error.to_string())
    }
}

/// The receiver of a valid 2718 encoding, without decoding the rest; `None` for a creation.
#[must_use]
pub fn receiver(raw: &[u8]) -> Option<Address> {
    let (mut rest, skipped_items) = match raw.first()? {
        0x01 => (&raw[1..], 4),
        0x02 | 0x04 => (&raw[1..], 5),
        _ => (raw, 3),
    };
    alloy_rlp::Header::decode(&mut rest).ok()?;
    for _ in 0..skipped_items {
        let item = alloy_rlp::Header::decode(&mut rest).ok()?;
        rest = rest.get(item.payload_length..)?;
    }
    let item = alloy_rlp::Header::decode(&mut rest).ok()?;
    let bytes = rest.get(..item.payload_length)?;
    (bytes.len() == 20).then(|| Address::from_slice(bytes))
}
