//! One thing that happened, as the journal keeps it.
//!
//! ```text
//! offset  bytes  field
//! 0       4      length of the record, these 17 bytes included
//! 4       4      crc32c of bytes 0..4 and 8..length
//! 8       1      type
//! 9       8      sequence
//! 17      …      payload, see the types
//! ```
//!
//! Integers are little-endian. The builder core writes records without checksum; the journal thread fills it in.

use std::borrow::Cow;

use crate::builder::block::BlockContext;
use crate::chain::EndState;
use crate::mempool::Conditions;
use crate::primitives::{Address, B256, Sequence};

/// A transaction as it was admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmittedTx<'a> {
    pub sender: Address,
    pub accepted_unix_ns: u64,
    /// Recovered EIP-7702 authorities in list order, `None` where the signature does not recover; empty unless type 4.
    pub authorities: Cow<'a, [Option<Address>]>,
    /// ERC-7796.
    pub conditions: Option<Cow<'a, Conditions>>,
    /// The 2718 encoding.
    pub raw: &'a [u8],
}

/// Why a block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CloseReason {
    /// Its time was over, or there was nothing to put into it.
    Deadline = 1,
    /// No room for what came next: gas, bytes, logs or changes.
    Full = 2,
    /// The process stops.
    Stop = 3,
}

/// Why blocks were taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RollbackCause {
    /// `sequencer journal rollback`.
    Operator = 1,
}

/// A journal record. A transaction is named by the sequence of the record that holds its bytes: its `Admitted`, or its newest `Carried`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A transaction is in the pool.
    Admitted(AdmittedTx<'a>),
    /// A pooled transaction, copied forward so that the segment of `previous` can be used again. From here on it is named by this record.
    Carried {
        /// Sequence of its `Admitted`: its place in the order of arrival.
        admitted: Sequence,
        previous: Sequence,
        tx: AdmittedTx<'a>,
    },
    /// A transaction left the pool without a place.
    Dropped { tx: Sequence, hash: B256, accepted_unix_ns: u64, ended_unix_ns: u64, end: EndState },
    /// A block begins. Followed by its `Placed` records and its `Closed`; only `Admitted`, `Carried` and `Dropped` come in between.
    Opened { context: Cow<'a, BlockContext>, opened_unix_ns: u64 },
    /// The transaction `tx` is number `index` of the open block.
    Placed { tx: Sequence, index: u32, preconfirmed_unix_ns: u64 },
    /// Nothing more is placed in the open block.
    Closed { number: u64, tx_count: u32, reason: CloseReason },
    /// The closed block has its hash.
    Sealed { number: u64, hash: B256, state_root: B256, receipts_root: B256, sealed_unix_ns: u64 },
    /// Blocks above `to_block` never were; their transactions are in the pool again.
    RolledBack { to_block: u64, cause: RollbackCause },
}

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 17;

/// The type byte. On disk: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordType {
    Admitted = 1,
    Carried = 2,
    Dropped = 3,
    Opened = 4,
    Placed = 5,
    Closed = 6,
    Sealed = 7,
    RolledBack = 8,
}

impl RecordType {
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Admitted,
            Self::Carried,
            Self::Dropped,
            Self::Opened,
            Self::Placed,
            Self::Closed,
            Self::Sealed,
            Self::RolledBack,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// What the log keeps account of, without decoding the rest of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    pub kind: RecordType,
    pub sequence: Sequence,
    /// The whole record.
    pub len: usize,
    /// `Dropped` and `Placed`: `tx`; `Carried`: `previous`; `Opened`, `Closed` and `Sealed`: the block number; 0 otherwise. It is the first
    /// field of those payloads.
    pub subject: u64,
}

impl Outline {
    /// The outline of the record that `bytes` begins with; `None` when it is cut off or of no known type. Checks no checksum.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let u64_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = RecordType::from_byte(*bytes.get(8)?)?;
        let has_subject = !matches!(kind, RecordType::Admitted | RecordType::RolledBack);
        if len < HEADER_BYTES + if has_subject { 8 } else { 0 } || bytes.len() < len {
            return None;
        }
        let subject = if has_subject { u64_at(HEADER_BYTES)? } else { 0 };
        Some(Self { kind, sequence: Sequence(u64_at(9)?), len, subject })
    }
}
