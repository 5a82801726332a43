//! A block that was executed elsewhere, from its parts: header, transactions and receipts → what readers in memory are shown.
//!
//! For blocks without a state of ours: those that an execution client built, and stored ones at a start. State changes are not there: whoever asks
//! for state is answered by the client.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::Log;

use crate::builder::block::{BlockContext, BlockMemory, OpenBlock, PlacedTx, SealedBlock};
use crate::builder::sealing::block_rlp_bytes;
use crate::codec::transaction::{self, TxError};
use crate::primitives::{Address, B256, Bytes, Fork, Sequence, Span};
use crate::state::Snapshot;

/// A transaction with what its execution left.
#[derive(Clone, Debug)]
pub struct ExecutedTx<'a> {
    /// The 2718 encoding.
    pub raw: &'a [u8],
    pub hash: B256,
    pub sender: Address,
    pub success: bool,
    pub gas_used: u64,
    pub cumulative_gas_used: u64,
    pub logs: Vec<Log>,
    /// Of the record of its place.
    pub sequence: Sequence,
    pub accepted_unix_ns: u64,
    pub preconfirmed_unix_ns: u64,
}

/// What a block is beside its transactions.
pub struct BlockParts {
    pub header: Header,
    pub hash: B256,
    pub fork: Fork,
    /// EIP-7685 requests, type byte first, empty ones left out.
    pub requests: Vec<Bytes>,
    /// Stands in for the state after the block, which is the client's.
    pub state: Snapshot,
    pub sequence: Sequence,
    pub sealed_unix_ns: u64,
}

/// Puts a block together.
///
/// # Errors
/// A transaction that does not decode: its index, and why.
pub fn assemble<'a>(
    parts: BlockParts,
    transactions: impl Iterator<Item = ExecutedTx<'a>>,
    memory: &BlockMemory,
) -> Result<SealedBlock, (usize, TxError)> {
    let BlockParts { header, hash, fork, requests, state, sequence, sealed_unix_ns } = parts;
    let (mut writer, block) = OpenBlock::new(BlockContext::of_header(&header, fork), memory);
    let base_fee_wei = u128::from(header.base_fee_per_gas.unwrap_or_default());
    let (mut payload_bytes, mut string) = (0, Vec::new());
    for (index, tx) in transactions.enumerate() {
        let fields = transaction::decode(tx.raw).map_err(|error| (index, error))?.fields;
        let tx_type = fields.tx_type as u8;
        // A typed transaction is a string in the body, one of type 0 is the list that it is.
        string.clear();
        if tx_type != 0 {
            alloy_rlp::Header { list: false, payload_length: tx.raw.len() }.encode(&mut string);
        }
        let item = writer.bytes.push(&[&string, tx.raw]).expect("a block of at most 8 MiB fits");
        let logs_start = writer.logs.len();
        for log in tx.logs {
            payload_bytes += (size_of::<Log>() + log.topics().len() * 32 + log.data.data.len()) as u64;
            writer.logs.push(log);
        }
        writer.transactions.push(PlacedTx {
            hash: tx.hash,
            sender: tx.sender,
            contract_address: fields.to.is_none().then(|| tx.sender.create(fields.nonce)),
            effective_gas_price_wei: base_fee_wei + fields.effective_tip_wei(base_fee_wei).unwrap_or_default(),
            gas_used: tx.gas_used,
            cumulative_gas_used: tx.cumulative_gas_used,
            sequence: tx.sequence,
            accepted_unix_ns: tx.accepted_unix_ns,
            preconfirmed_unix_ns: tx.preconfirmed_unix_ns,
            item,
            raw: Span { start: item.start + string.len() as u32, len: tx.raw.len() as u32 },
            // Bounded by the block's gas, far below 2^32.
            logs: Span { start: logs_start as u32, len: (writer.logs.len() - logs_start) as u32 },
            diffs: Span::default(),
            tx_type,
            success: tx.success,
        });
    }
    let held_bytes = payload_bytes + (block.transactions.len() * size_of::<PlacedTx>() + block.bytes.len()) as u64;
    Ok(SealedBlock {
        size_bytes: block_rlp_bytes(&header, block.body().len()),
        header,
        hash,
        block: Arc::new(block),
        requests,
        held_bytes,
        state,
        sequence,
        sealed_unix_ns,
    })
}
