//! What goes into derivation, and what comes out.

use std::sync::Arc;

pub use crate::config::native_rollup::Batcher;
use crate::config::native_rollup::{L1Start, NativeRollup};
use crate::derivation::origins::OriginWindow;
use crate::derivation::skip::SkipReason;
use crate::l1::block::BlockId;
use crate::primitives::{Address, B256, Bytes};

/// What the genesis says about L1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub l1_chain_id: u64,
    pub batchers: Vec<Batcher>,
    /// The L1 block behind which batches are looked for; the lowest origin that a block may have.
    pub l1_start: BlockId,
}

impl Rules {
    #[must_use]
    pub fn of(genesis: &NativeRollup) -> Self {
        let L1Start { number, hash } = genesis.l1_start;
        Self {
            l1_chain_id: genesis.l1_chain_id,
            batchers: genesis.batchers.clone(),
            l1_start: BlockId { number, hash },
        }
    }
}

/// An ExecuteTx as far as these rules need it, decoded and with its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxFacts {
    /// `None` when it does not fit 64 bits, which no L1 has.
    pub chain_id: Option<u64>,
    pub sender: Address,
    pub to: Option<Address>,
    pub has_value: bool,
    pub pre_state: B256,
}

/// What a batch says about its place: the first block's number is the ExecuteTx's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub index: u64,
    pub previous_digest: B256,
    /// Number of the block that its first segment belongs to.
    pub first_block: u64,
}

/// Reads transactions and batch headers: the formats are somebody else's.
pub trait Formats {
    /// Strict decode and recovery.
    ///
    /// # Errors
    /// `Undecodable` or `BadSignature`.
    fn transaction(&self, raw: &[u8]) -> Result<TxFacts, SkipReason>;

    /// Reads the batch's own header of a transaction that decodes.
    ///
    /// # Errors
    /// In words.
    fn batch_header(&self, raw: &[u8]) -> Result<BatchHeader, String>;
}

/// Where the derived chain stands.
#[derive(Debug)]
pub struct Tip<K> {
    /// Index that the next batch must have.
    pub next_index: u64,
    /// Digest of the last accepted batch; what the first batch must name before there is one.
    pub digest: B256,
    /// State root behind the last accepted segment.
    pub state_root: B256,
    /// The newest whole block.
    pub block: BlockId,
    /// Whether the last batch left block `block.number + 1` open.
    pub is_open: bool,
    /// Number of the origin of the newest block, whole or open.
    pub origin: u64,
    /// What the check of the next batch needs of the one before (headers, an open block's receipts); opaque here.
    pub carry: Arc<K>,
}

impl<K> Clone for Tip<K> {
    fn clone(&self) -> Self {
        Self { carry: Arc::clone(&self.carry), ..*self }
    }
}

/// A block that a batch has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DerivedBlock {
    pub id: BlockId,
    pub origin: BlockId,
}

/// The origin that a block of the batch claims, whole or open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedOrigin {
    pub block: u64,
    pub origin: BlockId,
    /// What the block has; its origin's mix hash is what it must have.
    pub prev_randao: B256,
}

/// What strict re-execution proves about a batch.
#[derive(Debug)]
pub struct ValidBatch<K> {
    pub digest: B256,
    pub post_state: B256,
    /// Blocks that end in it, in order; the first may have begun in an earlier one.
    pub blocks: Vec<DerivedBlock>,
    /// Of each of its blocks, in order, the open one included. Asked again by derivation.
    pub origins: Vec<ClaimedOrigin>,
    /// Whether its last block goes on in the next batch.
    pub is_open: bool,
    pub carry: Arc<K>,
}

/// Names one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckId(pub u64);

/// Where a transaction lies on L1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub block: BlockId,
    /// Position in the block.
    pub position: u32,
    pub hash: B256,
}

/// A candidate that passed every cheap rule: re-execute it.
#[derive(Debug)]
pub struct Check<K> {
    pub id: CheckId,
    pub place: Place,
    /// The ExecuteTx.
    pub raw: Bytes,
    pub header: BatchHeader,
    /// What it builds on.
    pub tip: Tip<K>,
    /// Canonical L1 blocks that its origins may name; ask `OriginWindow::judge` for each block in order, before executing it.
    pub origins: OriginWindow,
}

/// A batch that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub place: Place,
    pub index: u64,
    pub digest: B256,
    pub blocks: Vec<DerivedBlock>,
    /// Whether its last block goes on in the next batch.
    pub is_open: bool,
}

/// An ExecuteTx that does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub place: Place,
    /// `None` when it has no sender.
    pub sender: Option<Address>,
    pub reason: SkipReason,
}

/// What derivation wants done or known, in this order.
#[derive(Debug)]
pub enum Action<K> {
    /// Answer with `Derivation::checked`.
    Check(Box<Check<K>>),
    Accepted(Accepted),
    Skipped(Skipped),
    /// Everything of this L1 block is decided.
    Derived {
        l1: BlockId,
    },
    /// L1 blocks above `to` are gone; the derived chain stands at `tip` again.
    Rewound {
        to: u64,
        tip: BlockId,
    },
    /// Derived blocks up to this one are in final L1 blocks.
    Finalized {
        l1: u64,
        tip: BlockId,
    },
}

/// Derivation cannot go on: a person has to look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DerivationError {
    #[error("L1 block {got} does not follow {expected}")]
    OutOfOrder { expected: BlockId, got: BlockId },
    #[error("L1 has reorganised to block {to}, below its final block {finalized}")]
    ReorgBelowFinalized { to: u64, finalized: u64 },
    #[error("L1 block {number} is said to be final, and {newest} is the newest that was read")]
    FinalizedAhead { number: u64, newest: u64 },
}
