//! A block that somebody else made, executed as a whole: what its header must say, what it changes, and what it asked of the state.
//!
//! Context, transactions and withdrawals in → receipts, requests, net changes and accesses out, over any world: the state's newest
//! version, an older one, or a witness. Owner core: whoever checks blocks (import, the query pool, a verifier); the builder core fills its
//! own blocks one transaction at a time (`filler`).
//! Invariant: the steps are go-ethereum's, in its order: EIP-4788, EIP-2935, transactions, EIP-6110, EIP-7002, EIP-7251, withdrawals.
//! Not here: the rules of a header, and whether the outcome is what the header says.

use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::Log;

use crate::builder::block::BlockContext;
use crate::builder::execution::{ExecutableTx, ExecutionError, Executor};
use crate::builder::sealing::{ReceiptFacts, encode_receipt};
use crate::builder::world::access::Accesses;
use crate::builder::world::{World, WorldError};
use crate::codec::transaction::{self, Decoded, TxError};
use crate::crypto::recovery::{self, RecoverError, RecoverItem};
use crate::primitives::{Address, B256, Bloom, Bytes};
use crate::state::bloom::{BloomCache, accrue};
use crate::state::{ListRoot, StateChanges, StateReader};

/// A signed transaction, decoded, with everyone who signed in it.
#[derive(Clone, Debug)]
pub struct PreparedTx {
    /// The 2718 encoding.
    pub raw: Bytes,
    pub decoded: Decoded,
    pub sender: Address,
    /// EIP-7702 authorities in list order; `None` where a signature names nobody.
    pub authorities: Vec<Option<Address>>,
}

/// Why bytes cannot be executed as a transaction. Who made the block must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Bytes(#[from] TxError),
    #[error("the sender cannot be recovered: {0}")]
    Sender(#[from] RecoverError),
}

/// What a block did when it was executed.
#[derive(Clone, Debug)]
pub struct ExecutedBlock {
    /// One for each transaction, in order.
    pub receipts: Vec<Receipt>,
    pub gas_used: u64,
    pub receipts_root: B256,
    pub logs_bloom: Bloom,
    /// EIP-7685 requests, type byte first, empty ones left out.
    pub requests: Vec<Bytes>,
    pub changes: StateChanges,
    pub accesses: Accesses,
}

/// What a receipt records beside what can be read from its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub tx_type: u8,
    pub success: bool,
    pub gas_used: u64,
    pub cumulative_gas_used: u64,
    pub logs: Vec<Log>,
}

/// Why a block cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum BlockExecutionError {
    /// The block is invalid; everything that is not `ExecutionError::Invalid` is fatal.
    #[error("transaction {index}: {source}")]
    Transaction { index: usize, source: ExecutionError },
    /// The block is invalid.
    #[error("transaction {index} has gas limit {gas_limit} and the block has {gas_left} left")]
    GasLimit { index: usize, gas_limit: u64, gas_left: u64 },
    #[error("the calls that open and close a block: {0}")]
    System(ExecutionError),
    #[error(transparent)]
    World(#[from] WorldError),
}

impl PreparedTx {
    /// Decodes a transaction and recovers its sender and authorities.
    ///
    /// # Errors
    /// Bytes that are no transaction of a type that blocks hold here (0, 1, 2, 4; a blob transaction is refused by name), or a signature
    /// without a signer.
    pub fn recover(raw: Bytes) -> Result<Self, PrepareError> {
        let decoded = transaction::decode(&raw)?;
        let sender =
            recovery::recover(&decoded.recover_item(transaction::signing_hash(&raw, &decoded, &mut Vec::new())))?;
        let authorities = recover_authorities(&raw, &decoded);
        Ok(Self { raw, decoded, sender, authorities })
    }

    #[must_use]
    pub fn executable(&self) -> ExecutableTx<'_> {
        ExecutableTx {
            fields: &self.decoded.fields,
            sender: self.sender,
            raw: &self.raw,
            authorities: &self.authorities,
        }
    }
}

/// Recovers the authorities of a type 4 transaction, in list order; empty for other types.
#[must_use]
pub fn recover_authorities(raw: &[u8], decoded: &Decoded) -> Vec<Option<Address>> {
    transaction::authorizations(raw, &decoded.fields)
        .map(|authorization| {
            let item = RecoverItem {
                digest: authorization.signing_hash(),
                r: authorization.r,
                s: authorization.s,
                y_parity: authorization.y_parity,
            };
            recovery::recover(&item).ok()
        })
        .collect()
}

/// Executes a whole block. The world stands on the state of its parent and knows the hashes of the blocks before it; afterwards it holds
/// the block's values, and [`World::sealed`] makes it the parent of the next one.
///
/// # Errors
/// See [`BlockExecutionError`]. The world has changed and is of no more use.
pub fn execute_block<R: StateReader>(
    executor: &mut Executor<R>,
    context: &BlockContext,
    txs: &[PreparedTx],
    withdrawals: &[Withdrawal],
) -> Result<ExecutedBlock, BlockExecutionError> {
    let mut run = BlockRun::open(executor, context)?;
    for tx in txs {
        run.transaction(&tx.executable())?;
    }
    run.close(withdrawals)
}

/// A block, or a run of transactions inside one, while it is executed.
pub struct BlockRun<'e, R: StateReader> {
    executor: &'e mut Executor<R>,
    gas_left: u64,
    gas_used: u64,
    receipts: Vec<Receipt>,
}

impl<'e, R: StateReader> BlockRun<'e, R> {
    /// Begins a block: environment, and the opening system calls.
    ///
    /// # Errors
    /// Fatal ones only.
    pub fn open(executor: &'e mut Executor<R>, context: &BlockContext) -> Result<Self, BlockExecutionError> {
        executor.begin_block(context, |_| ()).map_err(BlockExecutionError::System)?;
        Ok(Self { executor, gas_left: context.gas_limit, gas_used: 0, receipts: Vec::new() })
    }

    /// Goes on in the middle of a block of which `gas_used` is used, over the state that the transactions before have left.
    pub fn resume(executor: &'e mut Executor<R>, context: &BlockContext, gas_used: u64) -> Self {
        executor.world().begin_block(context.number);
        executor.continue_block(context);
        Self { executor, gas_left: context.gas_limit.saturating_sub(gas_used), gas_used, receipts: Vec::new() }
    }

    /// Executes the next transaction.
    ///
    /// # Errors
    /// `Transaction` and `GasLimit`; `index` counts from the start of the run.
    pub fn transaction(&mut self, tx: &ExecutableTx<'_>) -> Result<&Receipt, BlockExecutionError> {
        let index = self.receipts.len();
        let gas_limit = tx.fields.gas_limit;
        if gas_limit > self.gas_left {
            return Err(BlockExecutionError::GasLimit { index, gas_limit, gas_left: self.gas_left });
        }
        let executed = self.executor.execute(tx);
        let outcome = executed.map_err(|source| BlockExecutionError::Transaction { index, source })?;
        self.gas_left -= outcome.gas_used;
        self.gas_used += outcome.gas_used;
        self.receipts.push(Receipt {
            tx_type: tx.fields.tx_type as u8,
            success: outcome.success,
            gas_used: outcome.gas_used,
            cumulative_gas_used: self.gas_used,
            logs: outcome.logs,
        });
        Ok(&self.receipts[index])
    }

    /// The world that the run changes.
    pub fn world(&mut self) -> &mut World<R> {
        self.executor.world()
    }

    /// Ends the block: requests, withdrawals, net changes.
    ///
    /// # Errors
    /// Fatal ones, and a deposit contract whose log does not decode.
    pub fn close(self, withdrawals: &[Withdrawal]) -> Result<ExecutedBlock, BlockExecutionError> {
        let logs = self.receipts.iter().flat_map(|receipt| &receipt.logs);
        let requests = self.executor.end_block(logs, |_| ()).map_err(BlockExecutionError::System)?;
        for withdrawal in withdrawals {
            self.executor.world().withdraw(withdrawal)?;
        }
        self.finish(requests)
    }

    /// Ends the run before the end of the block: no requests, no withdrawals.
    ///
    /// # Errors
    /// When the state below cannot be read.
    pub fn suspend(self) -> Result<ExecutedBlock, BlockExecutionError> {
        self.finish(Vec::new())
    }

    fn finish(self, requests: Vec<Bytes>) -> Result<ExecutedBlock, BlockExecutionError> {
        let (receipts_root, logs_bloom) = receipts_root(&self.receipts);
        let world = self.executor.world();
        let accesses = world.take_accesses()?;
        Ok(ExecutedBlock {
            receipts: self.receipts,
            gas_used: self.gas_used,
            receipts_root,
            logs_bloom,
            requests,
            changes: world.take_changes(),
            accesses,
        })
    }
}

/// The root of a list of receipts and the bloom of all their logs.
#[must_use]
pub fn receipts_root(receipts: &[Receipt]) -> (B256, Bloom) {
    let mut root = ListRoot::new();
    let mut words = BloomCache::new();
    let mut logs_bloom = Bloom::ZERO;
    let mut encoded = Vec::new();
    for receipt in receipts {
        let mut bloom = Bloom::ZERO;
        for log in &receipt.logs {
            accrue(&mut words, &mut bloom, &log.address, log.topics());
        }
        logs_bloom |= bloom;
        encoded.clear();
        let facts = ReceiptFacts {
            tx_type: receipt.tx_type,
            success: receipt.success,
            cumulative_gas_used: receipt.cumulative_gas_used,
        };
        encode_receipt(&mut encoded, facts, &bloom, receipt.logs.iter());
        root.push(&encoded);
    }
    (root.finish(), logs_bloom)
}
