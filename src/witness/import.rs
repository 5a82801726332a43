//! Blocks that somebody else made, executed one after the other over a state that grows with them.
//!
//! Genesis, bytes of blocks → each block checked in every field, its state, its receipts and its canonical witness. Owner core: any that
//! may compute; the state's hash pool helps. Nothing is kept that the next block does not need: the state and 256 headers.
//! Deliberately absent: files, and reorganisations (every block builds on the one before it).

use std::collections::VecDeque;

use alloy_consensus::Header;

use super::rlp::split;
use super::validator::{StatelessBlock, ValidationError, check_body, check_outcome, context_of, rules};
use super::{CollectError, Witness};
use crate::builder::block::{BlockContext, SealedBlock};
use crate::builder::block_execution::{BlockExecutionError, ExecutedBlock, execute_block};
use crate::builder::execution::Executor;
use crate::builder::world::World;
use crate::codec::transaction::RlpFault;
use crate::config::genesis::ChainSpec;
use crate::crypto::keccak::keccak256;
use crate::primitives::{B256, Bytes};
use crate::state::{Snapshot, Stamp, StateError, StateReader, StateStore};

/// Blocks whose hashes `BLOCKHASH` gives.
const HEADERS_KEPT: usize = 256;

/// Why a block was not imported. What came before it stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("byte {offset} of the file is no block: {fault}")]
    File { offset: usize, fault: RlpFault },
    #[error("byte {offset} of the file is a string, a block is a list")]
    FileItem { offset: usize },
    #[error("block number is {header}, after block {parent} it must be {expected}")]
    Number { header: u64, parent: u64, expected: u64 },
    #[error("parent hash of block {number} is {header}, the block before it has {expected}")]
    ParentHash { number: u64, header: B256, expected: B256 },
    #[error("{code}: {0}", code = .0.code())]
    Invalid(#[from] ValidationError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Witness(#[from] CollectError),
}

/// A block that is what it says it is.
pub struct Imported {
    pub block: StatelessBlock,
    pub executed: ExecutedBlock,
    pub witness: Witness,
    pub state: Snapshot,
}

/// Stands on the newest imported block.
pub struct Importer<'s, S> {
    spec: &'s ChainSpec,
    store: &'s mut S,
    executor: Executor,
    parent: Header,
    parent_hash: B256,
    state: Snapshot,
    /// RLP of the newest headers, the newest last.
    headers: VecDeque<Bytes>,
}

/// Splits a file of concatenated block RLPs: the next block and what is behind it; `None` at the end.
///
/// # Errors
/// Bytes that are no list. `offset` is where the file stands.
pub fn next_block(file: &Bytes, offset: usize) -> Result<Option<Bytes>, ImportError> {
    let rest = &file[offset..];
    if rest.is_empty() {
        return Ok(None);
    }
    let (item, _) = split(rest).map_err(|fault| ImportError::File { offset, fault })?;
    if !item.is_list {
        return Err(ImportError::FileItem { offset });
    }
    Ok(Some(file.slice(offset..offset + item.encoded.len())))
}

impl<'s, S: StateStore<Reader = Snapshot>> Importer<'s, S> {
    /// Stands on block 0.
    pub fn new(spec: &'s ChainSpec, store: &'s mut S, genesis: &SealedBlock) -> Self {
        let mut world = World::new(genesis.state.clone());
        world.set_block_hash(0, genesis.hash);
        let fork = spec.fork_at(genesis.header.timestamp);
        Self {
            spec,
            store,
            executor: Executor::new(world, spec.chain_id, spec.deposit_contract, fork),
            parent: genesis.header.clone(),
            parent_hash: genesis.hash,
            state: genesis.state.clone(),
            headers: VecDeque::from([alloy_rlp::encode(&genesis.header).into()]),
        }
    }

    /// Executes the next block, compares every field of its header with what must be there, and collects its witness.
    ///
    /// # Errors
    /// The first defect, with both values where two are compared; the importer still stands on the block before.
    pub fn block(&mut self, bytes: &Bytes) -> Result<Imported, ImportError> {
        let block = StatelessBlock::decode(bytes).map_err(ValidationError::from)?;
        self.check_header(&block)?;
        let context = context_of(self.spec, &block);
        let executed = match self.execute(&block, &context) {
            Ok(executed) => executed,
            Err(error) => {
                self.restart();
                return Err(error);
            }
        };
        let number = block.header.number;
        let parent = &self.state;
        // The list ends with the parent.
        let newest = number - 1;
        let header = |asked: u64| {
            let behind = usize::try_from(newest.checked_sub(asked)?).ok()?;
            self.headers.get(self.headers.len().checked_sub(behind + 1)?).cloned()
        };
        let witness = Witness::of_block(number, parent, &executed.accesses, &executed.changes, header)?;
        // No journal stands behind imported blocks.
        let state = self.store.commit_block(Stamp { number, sequence: 0 }, parent, &executed.changes)?;
        if let Err(error) = same_root(block.header.state_root, state.root()) {
            self.restart();
            return Err(error.into());
        }
        self.store.reclaim()?;
        self.executor.world().sealed(state.clone(), number, block.hash);
        self.headers.push_back(alloy_rlp::encode(&block.header).into());
        if self.headers.len() > HEADERS_KEPT {
            self.headers.pop_front();
        }
        (self.parent, self.parent_hash, self.state) = (block.header.clone(), block.hash, state.clone());
        Ok(Imported { block, executed, witness, state })
    }

    fn check_header(&self, block: &StatelessBlock) -> Result<(), ImportError> {
        let header = &block.header;
        let expected = self.parent.number + 1;
        if header.number != expected {
            return Err(ImportError::Number { header: header.number, parent: self.parent.number, expected });
        }
        if header.parent_hash != self.parent_hash {
            let (number, expected) = (header.number, self.parent_hash);
            return Err(ImportError::ParentHash { number, header: header.parent_hash, expected });
        }
        let fork = self.spec.fork_at(header.timestamp);
        rules::check_shape(header).map_err(ValidationError::from)?;
        rules::check_header(&self.parent, header, fork, block.rlp_bytes).map_err(ValidationError::from)?;
        check_body(block)?;
        Ok(())
    }

    fn execute(&mut self, block: &StatelessBlock, context: &BlockContext) -> Result<ExecutedBlock, ImportError> {
        let executed = execute_block(&mut self.executor, context, &block.transactions, &block.withdrawals);
        let executed = executed.map_err(|cause: BlockExecutionError| ValidationError::Execution {
            number: block.header.number,
            cause: Box::new(cause),
        })?;
        check_outcome(block, &executed)?;
        Ok(executed)
    }

    /// Forgets what a refused block has done to the world.
    fn restart(&mut self) {
        let mut world = World::new(self.state.clone());
        let hashes = self.headers.iter().rev().map(|header| keccak256(header));
        for (number, hash) in (0..=self.parent.number).rev().zip(hashes) {
            world.set_block_hash(number, hash);
        }
        let fork = self.spec.fork_at(self.parent.timestamp);
        self.executor = Executor::new(world, self.spec.chain_id, self.spec.deposit_contract, fork);
    }
}

fn same_root(header: B256, computed: B256) -> Result<(), ValidationError> {
    let field = super::validator::HashField::StateRoot;
    if header == computed { Ok(()) } else { Err(ValidationError::HashDiffers { field, header, computed }) }
}

#[cfg(test)]
mod tests;
