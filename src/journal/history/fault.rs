//! What a history cannot contain. Every fault names the record and both of what disagrees.

use thiserror::Error;

use super::Position;
use crate::journal::record::RecordError;
use crate::primitives::Sequence;

/// The first record that does not fit what is before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("record {}, segment {} offset {}: {fault}", .sequence.0, .at.segment, .at.offset)]
pub struct HistoryError {
    pub sequence: Sequence,
    pub at: Position,
    pub fault: Fault,
}

/// Why it does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("its sequence follows {}", .previous.0)]
    Sequence { previous: Sequence },
    #[error("opens block {number} while block {open} is open")]
    OpenedOverOpen { number: u64, open: u64 },
    #[error("opens block {number} before block {closed} is sealed")]
    OpenedUnsealed { number: u64, closed: u64 },
    #[error("opens block {number} behind block {previous}")]
    OpenedNumber { number: u64, previous: u64 },
    #[error("places transaction {} while no block is open", .tx.0)]
    PlacedUnopened { tx: Sequence },
    #[error("places transaction {} at index {index}, the next is {expected}", .tx.0)]
    PlacedIndex { tx: Sequence, index: u32, expected: u64 },
    #[error("names transaction {}, which {state}", .tx.0)]
    NotLive { tx: Sequence, state: NameState },
    #[error("carries transaction {} as admitted with {}, it was with {}", .previous.0, .admitted.0, .expected.0)]
    CarriedOrder { previous: Sequence, admitted: Sequence, expected: Sequence },
    #[error("is a second copy of what was admitted with {}", .admitted.0)]
    LiveTwice { admitted: Sequence },
    #[error("closes block {number} while no block is open")]
    ClosedUnopened { number: u64 },
    #[error("closes block {number} while block {open} is open")]
    ClosedNumber { number: u64, open: u64 },
    #[error("closes block {number} with {tx_count} transactions, {placed} were placed")]
    ClosedCount { number: u64, tx_count: u32, placed: u64 },
    #[error("seals block {number} while no block is closed")]
    SealedUnclosed { number: u64 },
    #[error("seals block {number} while block {closed} is closed")]
    SealedNumber { number: u64, closed: u64 },
    #[error("rolls back to block {to_block}, the newest is {newest}")]
    RolledBackAbove { to_block: u64, newest: u64 },
    #[error("rolls back to block {to_block}, the first is {first}")]
    RolledBackBelow { to_block: u64, first: u64 },
    #[error("rolls back to block {to_block} before there is any")]
    RolledBackNothing { to_block: u64 },
    /// Its segment can only have been used again when the block was sealed.
    #[error("the block that was open where the journal begins is not sealed up to here")]
    Unsealed,
}

/// What became of the record that a name points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameState {
    #[error("is not written yet")]
    Later,
    #[error("is no transaction")]
    NoTx,
    #[error("is live")]
    Live,
    #[error("is in a block")]
    Placed,
    #[error("was dropped")]
    Dropped,
    #[error("was carried forward")]
    Carried,
}
