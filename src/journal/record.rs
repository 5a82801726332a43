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
    Dropped {
        tx: Sequence,
        hash: B256,
        accepted_unix_ns: u64,
        ended_unix_ns: u64,
        end: EndState,
    },
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
