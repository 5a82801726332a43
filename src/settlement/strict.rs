//! What an ExecuteTx proves by itself, or its first defect.
//!
//! Input → output: rules of the chain, the fields of an ExecuteTx, what the caller knows of L1's headers → a [`Proof`] or a [`Defect`];
//! and, on top of a derived tip, the whole blocks and the next tip. Owner core: the query pool. Pure.
//! One machine for three callers: the strict development L1 and `sequencer tx decode --check` ask [`check`], derivation asks [`advance`].
//! Trust: nothing. The state before comes from the witness under PreStateHash, found by hashes; every segment is executed and its root,
//! gas and receipts compared; of blocks that are whole the header is made and its hash compared, so that every field is.
//! Time and memory are bounded by the bounds of the format and the gas limits of the blocks; transactions are recovered as they come, so
//! that nothing is spent behind the first that is wrong.
//! Deliberately absent: who sent it, in which block of L1, and whether origins are on L1's chain (derivation).

mod defect;

mod fields;

mod run;

mod tip;

#[cfg(test)]
mod tests;

use alloy_consensus::Header;

use super::Origin;
use super::batch::{Batch, digest};
use crate::config::genesis::ChainSpec;
use crate::l1::execute_tx::Payload;
use crate::primitives::B256;
pub use defect::{CODES, Defect};
pub use tip::{Advance, DerivedBlock, OpenPart, Tip};

/// What a caller knows of an L1 origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginAnswer {
    /// `mixHash` of its header.
    Known(B256),
    /// There is no such block: a defect.
    Missing,
    /// The caller has no L1. What the batch says is taken.
    Unasked,
}

/// L1's headers, as far as the caller knows them.
pub trait Origins {
    fn mix_hash(&self, origin: &Origin) -> OriginAnswer;
}

/// No L1 at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOrigins;

impl Origins for NoOrigins {
    fn mix_hash(&self, _: &Origin) -> OriginAnswer {
        OriginAnswer::Unasked
    }
}

/// What a transaction proves.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    pub batch_index: u64,
    pub previous_digest: B256,
    pub digest: B256,
    pub pre_state_root: B256,
    pub post_state_root: B256,
    pub segments: Vec<ProvedSegment>,
    pub blocks: Vec<ProvedBlock>,
}

/// A segment that is what it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvedSegment {
    pub block_number: u64,
    pub pre_state_root: B256,
    pub post_state_root: B256,
    pub tx_count: u32,
    pub gas_used: u64,
}

/// A block, or the part of one.
#[derive(Clone, Debug, PartialEq)]
pub struct ProvedBlock {
    pub number: u64,
    pub origin: Origin,
    /// As the batch says; `None`: the block goes on.
    pub hash: Option<B256>,
    /// The header that was made and has this hash; `None`: a part of the block is not here.
    pub header: Option<Header>,
}

/// Checks an ExecuteTx by itself.
///
/// Runs on: any thread that may compute. Cost: `benches/settlement.rs`, rows `strict`.
///
/// # Errors
/// The first defect.
pub fn check(spec: &ChainSpec, payload: &Payload, origins: &impl Origins) -> Result<Proof, Defect> {
    let batch = Batch::decode(&payload.data)?;
    Ok(run::run(spec, payload, &batch, origins, None)?.proof)
}

/// Whether a batch goes on where a tip ends: what needs no execution. The batch, for who looks at its origins.
///
/// # Errors
/// Data that does not decode; another index, predecessor, state or block.
pub fn continues(tip: &Tip, payload: &Payload) -> Result<Batch, Defect> {
    let batch = Batch::decode(&payload.data)?;
    tip.check_start(&batch, payload)?;
    Ok(batch)
}

/// Checks an ExecuteTx on top of a tip, and gives the blocks that it ends, with everything of them, and the next tip.
///
/// # Errors
/// The first defect. The tip stays.
pub fn advance(spec: &ChainSpec, tip: &Tip, payload: &Payload, origins: &impl Origins) -> Result<Advance, Defect> {
    let batch = continues(tip, payload)?;
    let outcome = run::run(spec, payload, &batch, origins, Some(tip))?;
    let mut next = outcome.tip;
    (next.next_index, next.previous_digest) = (batch.index + 1, digest(&payload.data));
    Ok(Advance { proof: outcome.proof, blocks: outcome.blocks, tip: next })
}
