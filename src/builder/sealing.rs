//! From an open block to its header: list tries and bloom while it is open, state root and hash when it closes.
//!
//! Pure logic of the state thread. It follows the open block through its published prefix, so that after the deadline only the last few
//! transactions, the top of the two tries and the state root are left to do.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_consensus::constants::{EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH};
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_primitives::Log;
use alloy_rlp::Encodable;

use crate::builder::block::{OpenBlock, PlacedTx, SealedBlock};
use crate::builder::execution::requests_hash;
use crate::primitives::{B256, Bloom, Bytes, Sequence};
use crate::state::ListRoot;
use crate::state::bloom::{BloomCache, accrue};
use crate::state::{Snapshot, Stamp, StateChanges, StateError, StateStore};

/// What the builder hands over when a block ends.
pub struct ClosedBlock {
    pub block: Arc<OpenBlock>,
    pub changes: StateChanges,
    pub requests: Vec<Bytes>,
    /// Of the last record that the block depends on.
    pub sequence: Sequence,
    /// Memory that the block holds, about.
    pub held_bytes: u64,
}

/// Follows one open block after the other.
pub struct Sealer {
    transactions: ListRoot,
    receipts: ListRoot,
    bloom: Bloom,
    bloom_words: BloomCache,
    /// Transactions of the open block already taken up.
    taken: usize,
    scratch: Vec<u8>,
}

impl Default for Sealer {
    fn default() -> Self {
        Self {
            transactions: ListRoot::new(),
            receipts: ListRoot::new(),
            bloom: Bloom::ZERO,
            bloom_words: BloomCache::new(),
            taken: 0,
            scratch: Vec::with_capacity(4_096),
        }
    }
}

impl Sealer {
    /// Forgets the last block.
    pub fn begin(&mut self) {
        self.transactions.reset();
        self.receipts.reset();
        self.bloom = Bloom::ZERO;
        self.taken = 0;
    }

    /// Takes up what the builder has published since the last call; returns how many transactions that were.
    pub fn follow(&mut self, block: &OpenBlock) -> usize {
        let end = block.transactions.len();
        let start = self.taken;
        for tx in block.transactions.range(start..end) {
            self.transactions.push(block.raw(tx));
            self.push_receipt(block, tx);
        }
        self.taken = end;
        end - start
    }

    /// Root, header and hash of a closed block, and the state after it.
    ///
    /// # Errors
    /// When the state below cannot be read or written: fatal.
    pub fn seal<S: StateStore<Reader = Snapshot>>(
        &mut self,
        closed: ClosedBlock,
        parent: &Snapshot,
        store: &mut S,
        now_unix_ns: u64,
    ) -> Result<SealedBlock, StateError> {
        self.follow(&closed.block);
        let stamp = Stamp { number: closed.block.context.number, sequence: closed.sequence.0 };
        let state = store.commit_block(stamp, parent, &closed.changes)?;
        let header = self.header(&closed, crate::state::StateReader::root(&state));
        let hash = header.hash_slow();
        let size_bytes = block_rlp_bytes(&header, closed.block.body().len());
        Ok(SealedBlock {
            header,
            hash,
            block: closed.block,
            requests: closed.requests,
            size_bytes,
            held_bytes: closed.held_bytes,
            state,
            sequence: closed.sequence,
            sealed_unix_ns: now_unix_ns,
        })
    }

    fn header(&mut self, closed: &ClosedBlock, state_root: B256) -> Header {
        let block = &closed.block;
        let context = &block.context;
        let gas_used = block.transactions.len().checked_sub(1).and_then(|last| block.transactions.get(last));
        Header {
            parent_hash: context.parent_hash,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: context.coinbase,
            state_root,
            transactions_root: self.transactions.finish(),
            receipts_root: self.receipts.finish(),
            logs_bloom: self.bloom,
            number: context.number,
            gas_limit: context.gas_limit,
            gas_used: gas_used.map_or(0, |tx| tx.cumulative_gas_used),
            timestamp: context.timestamp,
            extra_data: context.extra_data.clone(),
            mix_hash: context.prev_randao,
            base_fee_per_gas: Some(context.base_fee_per_gas_wei),
            withdrawals_root: Some(EMPTY_ROOT_HASH),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            parent_beacon_block_root: Some(context.parent_beacon_block_root),
            requests_hash: Some(if closed.requests.is_empty() {
                EMPTY_REQUESTS_HASH
            } else {
                requests_hash(&closed.requests)
            }),
            ..Header::default()
        }
    }

    fn push_receipt(&mut self, block: &OpenBlock, tx: &PlacedTx) {
        let mut bloom = Bloom::ZERO;
        for log in block.logs_of(tx) {
            accrue(&mut self.bloom_words, &mut bloom, &log.address, log.topics());
        }
        self.bloom |= bloom;
        self.scratch.clear();
        let facts =
            ReceiptFacts { tx_type: tx.tx_type, success: tx.success, cumulative_gas_used: tx.cumulative_gas_used };
        encode_receipt(&mut self.scratch, facts, &bloom, block.logs_of(tx));
        self.receipts.push(&self.scratch);
    }
}

/// What a receipt says beside its logs and their bloom.
#[derive(Clone, Copy, Debug)]
pub struct ReceiptFacts {
    pub tx_type: u8,
    pub success: bool,
    pub cumulative_gas_used: u64,
}

/// The 2718 encoding of a receipt as the receipts trie holds it: `type ++ rlp([status, cumulativeGasUsed, bloom, logs])` (EIP-658, 2718).
pub fn encode_receipt<'l>(
    out: &mut Vec<u8>,
    facts: ReceiptFacts,
    bloom: &Bloom,
    logs: impl Iterator<Item = &'l Log> + Clone,
) {
    let logs_payload: usize = logs.clone().map(Log::length).sum();
    let payload = facts.success.length()
        + facts.cumulative_gas_used.length()
        + bloom.length()
        + alloy_rlp::Header { list: true, payload_length: logs_payload }.length()
        + logs_payload;
    if facts.tx_type != 0 {
        out.push(facts.tx_type);
    }
    alloy_rlp::Header { list: true, payload_length: payload }.encode(out);
    facts.success.encode(out);
    facts.cumulative_gas_used.encode(out);
    bloom.encode(out);
    alloy_rlp::Header { list: true, payload_length: logs_payload }.encode(out);
    for log in logs {
        log.encode(out);
    }
}

/// Length of `rlp([header, transactions, ommers, withdrawals])` for a body of `body_bytes` and no ommers or withdrawals.
#[must_use]
pub fn block_rlp_bytes(header: &Header, body_bytes: usize) -> u64 {
    let list = |payload_length| alloy_rlp::Header { list: true, payload_length }.length() + payload_length;
    list(header.length() + list(body_bytes) + 2) as u64
}
