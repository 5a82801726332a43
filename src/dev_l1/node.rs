//! The node as one value: chain, pool, precompile, faults. Time comes in as an argument, and what happened goes out by [`Node::take_heads`].

use std::sync::Arc;

use serde_json::{Value, json};

use super::block::{Block, Wishes};
use super::chain::{Chain, ChainError};
use super::faults::Faults;
use super::pool::{Pool, Refusal, Tip};
use super::precompile::Execute;
use super::transaction::{DecodeError, L1Tx};
use crate::primitives::{Address, B256, Bytes, U256};
use crate::state::Account;

/// Blocks that one request makes.
pub const BLOCKS_PER_REQUEST_MAX: u64 = 1_024;
/// Heads that nobody has taken yet: older ones are dropped, as a subscriber that is late would drop them.
const HEADS_MAX: usize = 2 * BLOCKS_PER_REQUEST_MAX as usize;

/// Why a transaction was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// A reorganisation that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reorganisation {
    /// Blocks taken back.
    pub depth: u64,
    /// Blocks made instead.
    pub new_blocks: u64,
    /// Transactions that are gone afterwards, and stay gone.
    pub dropped: Vec<B256>,
    /// Transactions, and for how many blocks from the first new one on they wait.
    pub delayed: Vec<(B256, u64)>,
    /// The new blocks have no transactions; they wait for the blocks behind.
    pub is_empty: bool,
    /// Where fees are equal, what came later goes first.
    pub is_reversed: bool,
}

/// A base fee of the test's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BaseFee {
    wei: u64,
    blocks_left: u64,
}

/// See the module's text.
pub struct Node {
    pub chain: Chain,
    pub pool: Pool,
    pub execute: Execute,
    /// One for each endpoint.
    pub faults: Vec<Faults>,
    is_stopped: bool,
    base_fee: Option<BaseFee>,
    next_block_ms: u64,
    heads: Vec<Arc<Block>>,
}

impl Node {
    #[must_use]
    pub fn new(chain: Chain, execute: Execute, endpoint_count: usize, now_ms: u64) -> Self {
        let next_block_ms = now_ms + chain.config().block_time_ms;
        Self {
            chain,
            pool: Pool::default(),
            execute,
            faults: vec![Faults::default(); endpoint_count],
            is_stopped: false,
            base_fee: None,
            next_block_ms,
            heads: Vec::new(),
        }
    }

    /// Takes a transaction into the pool.
    ///
    /// # Errors
    /// Bytes that are none, and what the pool refuses.
    pub fn send(&mut self, raw: Bytes) -> Result<B256, SendError> {
        let config = self.chain.config();
        let (chain_id, fork) = (config.chain_id, config.fork);
        let tx = L1Tx::recover(raw, fork)?;
        let account = self.account(&tx.sender)?;
        let tip = Tip {
            chain_id,
            fork,
            gas_limit: self.chain.head().gas_limit,
            account_nonce: account.map_or(0, |account| account.nonce),
            account_balance_wei: account.map_or(U256::ZERO, |account| account.balance_wei),
        };
        Ok(self.pool.add(tx, &tip)?)
    }

    fn account(&self, address: &Address) -> Result<Option<Account>, ChainError> {
        self.chain.account(address)
    }

    /// The nonce behind everything of this sender that is ready.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn pending_nonce(&self, sender: &Address) -> Result<u64, ChainError> {
        let nonce = self.account(sender)?.map_or(0, |account| account.nonce);
        Ok(self.pool.next_nonce(sender, nonce))
    }

    /// When the next block is due; `None` while production is stopped.
    #[must_use]
    pub fn due_ms(&self) -> Option<u64> {
        (!self.is_stopped).then_some(self.next_block_ms)
    }

    /// Makes the block that is due, if one is.
    ///
    /// # Errors
    /// When state or file fail: the node is of no more use.
    pub fn tick(&mut self, now_ms: u64) -> Result<(), ChainError> {
        if self.is_stopped || now_ms < self.next_block_ms {
            return Ok(());
        }
        let block_time_ms = self.chain.config().block_time_ms;
        // A machine that slept makes one block and goes on from there.
        self.next_block_ms = (self.next_block_ms + block_time_ms).max(now_ms + block_time_ms / 2);
        self.make(now_ms, Wishes::default())
    }

    /// Makes blocks now.
    ///
    /// # Errors
    /// As [`Self::tick`].
    pub fn mine(&mut self, now_ms: u64, count: u64) -> Result<(), ChainError> {
        for _ in 0..count.min(BLOCKS_PER_REQUEST_MAX) {
            self.make(now_ms, Wishes::default())?;
        }
        Ok(())
    }

    fn make(&mut self, now_ms: u64, wishes: Wishes) -> Result<(), ChainError> {
        let timestamp = wishes.timestamp.max(now_ms / 1_000);
        let wishes = Wishes { timestamp, base_fee_wei: self.take_base_fee(), ..wishes };
        let block = self.chain.extend_from(&self.execute, &self.pool, &wishes)?;
        for tx in &block.txs {
            let nonce = self.account(&tx.sender)?.map_or(0, |account| account.nonce);
            self.pool.settle(&tx.sender, nonce);
        }
        if self.heads.len() >= HEADS_MAX {
            self.heads.remove(0);
        }
        self.heads.push(block);
        Ok(())
    }

    fn take_base_fee(&mut self) -> Option<u64> {
        let base_fee = self.base_fee.as_mut()?;
        let wei = base_fee.wei;
        base_fee.blocks_left -= 1;
        if base_fee.blocks_left == 0 {
            self.base_fee = None;
        }
        Some(wei)
    }

    /// Replaces the newest blocks.
    ///
    /// # Errors
    /// When there are not so many; or as [`Self::tick`].
    pub fn reorganise(&mut self, now_ms: u64, request: &Reorganisation) -> Result<Value, ChainError> {
        let old_head = self.chain.head_hash();
        let (txs, timestamps) = self.chain.take_back(request.depth)?;
        let ancestor = self.chain.head_hash();
        let first = self.chain.head_number() + 1;
        for hash in &request.dropped {
            self.pool.swallow(*hash);
        }
        for (hash, blocks) in &request.delayed {
            self.pool.delay(*hash, first.saturating_add(*blocks));
        }
        self.pool.restore(txs);
        // No block that was seen before has this salt, before or after a restart.
        let salt = self.chain.known_count();
        for index in 0..request.new_blocks.min(BLOCKS_PER_REQUEST_MAX) {
            let timestamp = timestamps.get(index as usize).copied().unwrap_or(0);
            let (is_empty, is_reversed) = (request.is_empty, request.is_reversed);
            // As the old ones were, so that a deep reorganisation does not run ahead of the clock.
            let now_ms = if timestamp == 0 { now_ms } else { 0 };
            self.make(now_ms, Wishes { timestamp, is_empty, is_reversed, salt, ..Wishes::default() })?;
        }
        Ok(json!({ "oldHead": old_head, "newHead": self.chain.head_hash(), "commonAncestor": ancestor }))
    }

    /// Blocks have this base fee from now on.
    pub fn set_base_fee(&mut self, wei: u64, blocks: u64) {
        self.base_fee = (blocks > 0).then_some(BaseFee { wei, blocks_left: blocks });
    }

    /// Stops or resumes making blocks by the clock.
    pub fn set_stopped(&mut self, is_stopped: bool, now_ms: u64) {
        if self.is_stopped && !is_stopped {
            self.next_block_ms = now_ms + self.chain.config().block_time_ms;
        }
        self.is_stopped = is_stopped;
    }

    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// The blocks that became the newest since the last call, in order.
    pub fn take_heads(&mut self) -> Vec<Arc<Block>> {
        std::mem::take(&mut self.heads)
    }
}

#[cfg(test)]
mod tests;
