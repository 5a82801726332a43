//! What the records of a journal mean: which transactions are live, which blocks there are, which never were.
//!
//! Records in order ([`super::scan`]) → [`History::read`] → what the chain database, the pool and the log start from. Pure; one pass, a
//! dense table by sequence.
//!
//! A journal whose first sequence is not 1 has lost its oldest segments. What is named below it is taken as given: it was live, its block
//! was whole. Only the block that its beginning cuts may lack `Opened`, and that block must be sealed, or its segment could not have been used
//! again. Invariants: a transaction is live, in one block that is not void, dropped, or carried to another name.
//! Absent on purpose: what is in the transactions, and the chain's rules (parent hashes, nonces): the replay sees to those.

mod fault;
mod reading;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests;

use crate::journal::record::CloseReason;
use crate::primitives::{B256, Sequence};

pub use fault::{Fault, HistoryError, NameState};

/// Where a record is: the segment counted from the oldest one that is there, and the offset in its slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub segment: u32,
    pub offset: u32,
}

/// Everything that a start needs to know of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Zero when there is no record.
    pub first: Sequence,
    pub last: Sequence,
    /// In order of arrival.
    pub live: Vec<LiveTx>,
    /// Ascending without gaps. The first may lack its beginning, the last its end.
    pub blocks: Vec<BlockHistory>,
    /// In the order in which they were taken back, each rollback's ascending. An instance of which neither beginning nor end is there is
    /// left out: it has no number, and was never sealed.
    pub void: Vec<VoidBlock>,
    /// `Dropped` records.
    pub ends: Vec<(Sequence, Position)>,
    /// By [`Position::segment`], up to the last one that has a record.
    pub segments: Vec<SegmentAccount>,
}

/// A transaction that is in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveTx {
    pub name: Sequence,
    /// Its place in the order of arrival.
    pub admitted: Sequence,
    /// Of the record `name`.
    pub at: Position,
}

/// One block instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockHistory {
    pub number: u64,
    pub opened: Option<(Sequence, Position)>,
    /// By index. When `opened` is missing, the first places may be missing too.
    pub placed: Vec<Placed>,
    pub closed: Option<ClosedBlock>,
    pub sealed: Option<SealedHash>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Of the `Placed` record.
    pub sequence: Sequence,
    pub tx: Sequence,
    /// Of the record `tx`; `None` when its segment is gone.
    pub at: Option<Position>,
    pub index: u32,
    pub preconfirmed_unix_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedBlock {
    pub sequence: Sequence,
    pub tx_count: u32,
    pub reason: CloseReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedHash {
    pub sequence: Sequence,
    pub hash: B256,
    pub state_root: B256,
    pub receipts_root: B256,
    pub sealed_unix_ns: u64,
}

/// A block instance that was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoidBlock {
    /// The `RolledBack` record.
    pub by: Sequence,
    pub block: BlockHistory,
}

/// What must be known of a segment before it is used again, as the log keeps it while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentAccount {
    /// First and last record; zero when there is none.
    pub first: Sequence,
    pub last: Sequence,
    /// Live transactions whose bytes are in it.
    pub live_count: u64,
    /// Highest block of which a record is in it, or that placed a transaction whose bytes are in it. Void blocks count: the number is used
    /// again, and is then behind it.
    pub block_max: Option<u64>,
    /// Newest `Dropped` in it; zero when there is none.
    pub end_max: Sequence,
}

impl VoidBlock {
    #[must_use]
    pub fn number(&self) -> u64 {
        self.block.number
    }

    /// `None` when it was never sealed.
    #[must_use]
    pub fn hash(&self) -> Option<B256> {
        self.block.sealed.map(|sealed| sealed.hash)
    }
}

impl BlockHistory {
    /// Whether its context, every place and the bytes of every transaction are in the journal, so that it can be executed from it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.opened.is_some() && self.placed.iter().all(|placed| placed.at.is_some())
    }
}

impl History {
    /// Reads all records of a journal, oldest first. Checksums have been checked.
    ///
    /// # Errors
    /// The first record that does not decode or does not fit.
    pub fn read<'a>(records: impl IntoIterator<Item = (Position, &'a [u8])>) -> Result<Self, HistoryError> {
        reading::read(records)
    }

    /// Numbers of the blocks that have their hash, and the records that say so, ascending.
    #[must_use]
    pub fn sealed_blocks(&self) -> Vec<(u64, Sequence)> {
        self.blocks.iter().filter_map(|block| Some((block.number, block.sealed.as_ref()?.sequence))).collect()
    }

    /// A block of the chain as it is now.
    #[must_use]
    pub fn block(&self, number: u64) -> Option<&BlockHistory> {
        let first = self.blocks.first()?.number;
        self.blocks.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }
}
