//! The stateless validator: a block and its witness → the roots, or precisely what is wrong.
//!
//! Input → output: rules of the chain, block, witness → [`Validated`] or a [`ValidationError`], nothing else: no file, no network, no
//! clock, no thread. Owner core: any that may compute for milliseconds; who calls it decides where.
//! Trust: only the block's hash, if the caller knows it, and with it the parent's. Everything that the witness holds is found by its
//! hash, so that a hostile one can leave out and add, and not lie.
//! Format, modes, error codes: `docs/STATELESS_VALIDATION.md`.
//!
//! | mode | headers | codes, nodes |
//! |---|---|---|
//! | normal | any order; as far as `BLOCKHASH` needs them | any order, more than needed |
//! | canonical | as go-ethereum v1.17.5 makes them | exactly those, in its order |
//!
//! Deliberately absent: consensus (who made the block, finality), and whether the parent is the right one.

pub mod error;

pub mod block;

pub mod rules;

pub mod ancestors;

pub mod node;

pub mod nodes;

pub mod trie;

pub mod live_state;

pub mod partial_state;

mod canonical;

#[cfg(test)]
mod tests;

use alloy_primitives::{B256, Bytes};

use crate::builder::block::BlockContext;
use crate::builder::block_execution::{BlockExecutionError, ExecutedBlock, execute_block};
use crate::builder::execution::{ExecutionError, Executor, requests_hash};
use crate::builder::world::{World, WorldError};
use crate::config::genesis::ChainSpec;
use crate::state::ListRoot;
use crate::witness::Witness;

use ancestors::Ancestors;
pub use block::{BlockError, StatelessBlock};
pub use error::{BloomPair, HashField, ValidationError};
use partial_state::{PartialReader, PartialState};

/// How strictly a block is validated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strictness {
    /// The witness is byte for byte the one that go-ethereum v1.17.5 makes for the block.
    pub canonical: bool,
    /// The header obeys the rules that follow from its parent: see [`rules::check_header`].
    pub header_rules: bool,
}

impl Strictness {
    /// A block of a peer: its header is checked, its witness may be in any order.
    pub const NORMAL: Self = Self { canonical: false, header_rules: true };
    /// As [`Self::NORMAL`], and the witness is exactly go-ethereum's.
    pub const CANONICAL: Self = Self { canonical: true, header_rules: true };
}

/// A block that is what it says it is.
#[derive(Clone, Debug)]
pub struct Validated {
    pub hash: B256,
    pub state_root: B256,
    pub receipts_root: B256,
    /// Receipts, requests, changes and accesses, for whoever goes on with the block.
    pub executed: ExecutedBlock,
}

/// Decodes a block and its witness and validates them: what `sequencer verify` does.
///
/// Runs on: any thread that may compute; time and memory follow the lengths of both inputs, and the gas limit of the block.
/// Errors:  the first defect; see [`ValidationError::code`].
pub fn validate_bytes(
    spec: &ChainSpec,
    block: &Bytes,
    witness: &Bytes,
    strictness: Strictness,
) -> Result<(StatelessBlock, Validated), ValidationError> {
    let witness = Witness::decode(witness)?;
    let block = StatelessBlock::decode(block)?;
    let validated = validate(spec, &block, &witness, strictness)?;
    Ok((block, validated))
}

/// Executes a block over its witness and compares everything that its header says with what comes out.
///
/// Runs on: any thread that may compute; time and memory follow the length of the witness, and the gas limit of the block.
/// Errors:  the first defect. A missing node, code or header is named; a field that disagrees comes with both values.
/// Source:  go-ethereum v1.17.5 `core/stateless.go`, and what its caller compares (state and receipts root).
pub fn validate(
    spec: &ChainSpec,
    block: &StatelessBlock,
    witness: &Witness,
    strictness: Strictness,
) -> Result<Validated, ValidationError> {
    let header = &block.header;
    rules::check_shape(header)?;
    let ancestors = Ancestors::find(header, &witness.headers)?;
    if strictness.canonical {
        canonical::check_order(witness, &ancestors)?;
    }
    if strictness.header_rules {
        rules::check_header(ancestors.parent(), header, spec.fork_at(header.timestamp), block.rlp_bytes)?;
    }
    check_body(block)?;

    let mut state = PartialState::new(&ancestors.parent().state_root, witness);
    let executed = execute(spec, block, &ancestors, &state)?;
    check_outcome(block, &executed)?;
    let state_root = state.root_after(&executed.changes)?;
    same(HashField::StateRoot, header.state_root, state_root)?;
    if strictness.canonical {
        canonical::check_needs(header.number, &ancestors, &mut state, &executed.accesses)?;
    }
    Ok(Validated { hash: block.hash, state_root, receipts_root: executed.receipts_root, executed })
}

/// The list roots that the body alone decides.
///
/// # Errors
/// The first that differs.
pub fn check_body(block: &StatelessBlock) -> Result<(), ValidationError> {
    let mut transactions = ListRoot::new();
    block.transactions.iter().for_each(|tx| transactions.push(&tx.raw));
    same(HashField::TransactionsRoot, block.header.transactions_root, transactions.finish())?;
    let mut withdrawals = ListRoot::new();
    block.withdrawals.iter().for_each(|withdrawal| withdrawals.push(&alloy_rlp::encode(withdrawal)));
    same(HashField::WithdrawalsRoot, block.header.withdrawals_root.unwrap_or_default(), withdrawals.finish())
}

fn execute(
    spec: &ChainSpec,
    block: &StatelessBlock,
    ancestors: &Ancestors,
    state: &PartialState<'_>,
) -> Result<ExecutedBlock, ValidationError> {
    let context = context_of(spec, block);
    // A sender and a recipient for each transaction, and a few for the block.
    let mut world = World::with_room(state.reader(), 2 * block.transactions.len() + 16);
    for (number, hash) in ancestors.hashes() {
        world.set_block_hash(number, hash);
    }
    let mut executor: Executor<PartialReader<'_, '_>> =
        Executor::new(world, spec.chain_id, spec.deposit_contract, context.fork);
    execute_block(&mut executor, &context, &block.transactions, &block.withdrawals)
        .map_err(|error| execution_fault(error, block.header.number, ancestors, state))
}

/// Everything of a header that is not computed.
#[must_use]
pub fn context_of(spec: &ChainSpec, block: &StatelessBlock) -> BlockContext {
    BlockContext::of_header(&block.header, spec.fork_at(block.header.timestamp))
}

/// Says whether the witness is at fault when a block cannot be executed, and which of its entries.
#[must_use]
pub fn execution_fault(
    cause: BlockExecutionError,
    number: u64,
    ancestors: &Ancestors,
    state: &PartialState<'_>,
) -> ValidationError {
    if let Some(fault) = state.fault() {
        return fault.into();
    }
    let world = match &cause {
        BlockExecutionError::World(error) => Some(error),
        BlockExecutionError::System(ExecutionError::World(error))
        | BlockExecutionError::Transaction { source: ExecutionError::World(error), .. } => Some(error),
        _ => None,
    };
    match world {
        Some(WorldError::CodeMissing(hash)) => ValidationError::CodeMissing { hash: *hash },
        Some(WorldError::BlockHashUnknown(asked)) => ancestors.missing(*asked),
        _ => ValidationError::Execution { number, cause: Box::new(cause) },
    }
}

/// Compares what execution computes with the header, the state root excepted.
///
/// # Errors
/// The first field that differs.
pub fn check_outcome(block: &StatelessBlock, executed: &ExecutedBlock) -> Result<(), ValidationError> {
    let header = &block.header;
    if header.gas_used != executed.gas_used {
        return Err(ValidationError::GasUsedDiffers { header: header.gas_used, computed: executed.gas_used });
    }
    if header.logs_bloom != executed.logs_bloom {
        let pair = BloomPair { header: header.logs_bloom, computed: executed.logs_bloom };
        return Err(ValidationError::BloomDiffers(Box::new(pair)));
    }
    let requests_hash = requests_hash(&executed.requests);
    same(HashField::RequestsHash, header.requests_hash.unwrap_or_default(), requests_hash)?;
    same(HashField::ReceiptsRoot, header.receipts_root, executed.receipts_root)
}

fn same(field: HashField, header: B256, computed: B256) -> Result<(), ValidationError> {
    if header == computed { Ok(()) } else { Err(ValidationError::HashDiffers { field, header, computed }) }
}
