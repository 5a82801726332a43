//! One thing that happened, as the journal keeps it.
//!
//! ```text
//! offset  bytes  field
//! 0       4      length of the record, these 17 bytes included
//! 4       4      crc32c of bytes 0..4 and 8..length
//! 8       1      type
//! 9       8      sequence
//! 17      …      payload
//! ```
//!
//! Integers are little-endian, those of 256 bits too. A record has one encoding: what [`Record::decode`] takes, [`Record::encode`] gives
//! back. The builder core writes records without checksum; the journal thread fills it in. Payloads, offsets from 17:
//!
//! ```text
//! 1 Admitted             2 Carried              3 Dropped                         4 Opened
//! 0   20  sender         0   8  previous        0   8   tx                        0    8   number
//! 20  8   accepted, ns   8   8  admitted        8   32  hash                      8    8   opened, Unix ns
//! 28  1   flags: bit 0:  16  …  as Admitted     40  8   accepted, Unix ns         16   8   timestamp
//!         conditions                            48  8   ended, Unix ns            24   8   base fee, wei
//! 29  2   authorities n                         56  1   kind: 2 dropped,          32   8   gas limit
//! 31  …   n × authority                                 3 replaced,               40   32  parent hash
//! ..  …   conditions                                    4 invalidated             72   32  prev_randao
//! ..  …   2718 bytes                            57  1   reason (3: zero)          104  32  parent beacon block root
//!                                               58  …   3: hash of the other      136  20  coinbase
//! authority:                                            4: required, 32 bytes;    156  1   fork: 1 Prague, 2 Osaka
//! 0   1   1, or 0 for                                      actual, 32 bytes       157  1   length of extra data, 0..=32
//!         not recovered                                                           158  …   extra data
//! 1   20  address (1)
//!
//! 5 Placed               6 Closed               7 Sealed                          8 RolledBack
//! 0   8   tx             0   8  number          0    8   number                   0    8   to_block
//! 8   4   index          8   4  tx_count        8    32  hash                     8    1   cause: 1 operator,
//! 12  8   preconfirmed,  12  1  reason:         40   32  state root                    2 origin gone,
//!         Unix ns               1 deadline,     72   32  receipts root                 3 L1 differs
//!                               2 full,         104  8   sealed, Unix ns
//!                               3 stop                                                 4 lost by the client
//! ```
//!
//! Conditions: [`conditions`]. Absent on purpose: what the fields mean for one another, which is [`super::history`]'s.

mod conditions;
mod fields;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests;

use std::borrow::Cow;

use thiserror::Error;

use self::fields::Fields;
use crate::builder::block::BlockContext;
use crate::chain::EndState;
use crate::chain::sealed_record::EndReason;
use crate::mempool::Conditions;
use crate::primitives::{Address, B256, Bytes, Fork, Sequence};

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
    /// The process stops, or the operator has stopped or halted building.
    Stop = 3,
}

/// Why blocks were taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RollbackCause {
    /// `sequencer journal rollback`.
    Operator = 1,
    /// L1 no longer has the block that they stand on.
    OriginGone = 2,
    /// L1 holds other valid blocks of the same heights.
    L1Differs = 3,
    /// The execution client that built them does not have them, and nobody was shown them (`delegated`).
    ClientLost = 4,
}

impl RollbackCause {
    /// The word in reports and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::OriginGone => "L1 origin gone",
            Self::L1Differs => "L1 differs",
            Self::ClientLost => "lost by the execution client",
        }
    }
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

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    #[error("record ends early: {missing} bytes of {field} are missing")]
    Short { field: &'static str, missing: usize },
    #[error("record says it has {said} bytes, there are {actual}")]
    Length { said: u32, actual: usize },
    #[error("record has {bytes} bytes after its last field")]
    Trailing { bytes: usize },
    #[error("record of unknown type {0}")]
    Type(u8),
    #[error("record has unknown {field} {code}")]
    Code { field: &'static str, code: u8 },
    #[error("record has {bytes} bytes of extra data, at most {EXTRA_DATA_BYTES_MAX}")]
    ExtraData { bytes: u8 },
    #[error("record's checksum is {stored:08x}, its bytes give {computed:08x}")]
    Checksum { stored: u32, computed: u32 },
}

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 17;
/// Yellow paper, section 4.3: a header's extra data.
const EXTRA_DATA_BYTES_MAX: usize = 32;
/// Where the checksum is.
const CHECKSUM: std::ops::Range<usize> = 4..8;

const FLAG_CONDITIONS: u8 = 1;
/// As in the chain database's status files; 1 would be `Included`, which is `Placed` here.
const KIND_DROPPED: u8 = 2;
const KIND_REPLACED: u8 = 3;
const KIND_INVALIDATED: u8 = 4;
const FORK_PRAGUE: u8 = 1;
const FORK_OSAKA: u8 = 2;

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

impl<'a> Record<'a> {
    #[must_use]
    pub fn kind(&self) -> RecordType {
        match self {
            Self::Admitted(_) => RecordType::Admitted,
            Self::Carried { .. } => RecordType::Carried,
            Self::Dropped { .. } => RecordType::Dropped,
            Self::Opened { .. } => RecordType::Opened,
            Self::Placed { .. } => RecordType::Placed,
            Self::Closed { .. } => RecordType::Closed,
            Self::Sealed { .. } => RecordType::Sealed,
            Self::RolledBack { .. } => RecordType::RolledBack,
        }
    }

    /// Appends the record to `out`, its checksum zero: [`seal_checksum`] fills that in on another thread.
    ///
    /// Runs on: builder core; allocates only when `out` grows. Panics on what can have no encoding: a `Dropped` that is `Included` or of no
    /// known reason, extra data of more than 32 bytes, 2^16 authorities, known accounts or slots, a record of 4 GiB.
    pub fn encode(&self, sequence: Sequence, out: &mut Vec<u8>) {
        let start = out.len();
        let mut header = [0; HEADER_BYTES];
        header[8] = self.kind() as u8;
        header[9..].copy_from_slice(&sequence.0.to_le_bytes());
        out.extend_from_slice(&header);
        match self {
            Self::Admitted(tx) => put_tx(tx, out),
            Self::Carried { admitted, previous, tx } => {
                out.extend_from_slice(&previous.0.to_le_bytes());
                out.extend_from_slice(&admitted.0.to_le_bytes());
                put_tx(tx, out);
            }
            Self::Dropped { tx, hash, accepted_unix_ns, ended_unix_ns, end } => {
                out.extend_from_slice(&tx.0.to_le_bytes());
                out.extend_from_slice(hash.as_slice());
                out.extend_from_slice(&accepted_unix_ns.to_le_bytes());
                out.extend_from_slice(&ended_unix_ns.to_le_bytes());
                put_end(end, out);
            }
            Self::Opened { context, opened_unix_ns } => put_opened(context, *opened_unix_ns, out),
            Self::Placed { tx, index, preconfirmed_unix_ns } => {
                out.extend_from_slice(&tx.0.to_le_bytes());
                out.extend_from_slice(&index.to_le_bytes());
                out.extend_from_slice(&preconfirmed_unix_ns.to_le_bytes());
            }
            Self::Closed { number, tx_count, reason } => {
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&tx_count.to_le_bytes());
                out.push(*reason as u8);
            }
            Self::Sealed { number, hash, state_root, receipts_root, sealed_unix_ns } => {
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(hash.as_slice());
                out.extend_from_slice(state_root.as_slice());
                out.extend_from_slice(receipts_root.as_slice());
                out.extend_from_slice(&sealed_unix_ns.to_le_bytes());
            }
            Self::RolledBack { to_block, cause } => {
                out.extend_from_slice(&to_block.to_le_bytes());
                out.push(*cause as u8);
            }
        }
        let len = u32::try_from(out.len() - start).expect("a record is smaller than a group, which is at most 1 MiB");
        out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Reads exactly one record from all of `bytes`. Its checksum is not looked at: [`verify_checksum`].
    ///
    /// # Errors
    /// Whatever [`Record::encode`] does not write.
    pub fn decode(bytes: &'a [u8]) -> Result<(Sequence, Self), RecordError> {
        let mut fields = Fields::new(bytes);
        let said = fields.u32("length")?;
        if said as usize != bytes.len() {
            return Err(RecordError::Length { said, actual: bytes.len() });
        }
        fields.array::<4>("checksum")?;
        let kind = fields.u8("type")?;
        let kind = RecordType::from_byte(kind).ok_or(RecordError::Type(kind))?;
        let sequence = fields.sequence("sequence")?;
        let record = match kind {
            RecordType::Admitted => Self::Admitted(take_tx(&mut fields)?),
            RecordType::Carried => Self::Carried {
                previous: fields.sequence("previous")?,
                admitted: fields.sequence("admitted")?,
                tx: take_tx(&mut fields)?,
            },
            RecordType::Dropped => Self::Dropped {
                tx: fields.sequence("tx")?,
                hash: fields.b256("hash")?,
                accepted_unix_ns: fields.u64("accepted")?,
                ended_unix_ns: fields.u64("ended")?,
                end: take_end(&mut fields)?,
            },
            RecordType::Opened => take_opened(&mut fields)?,
            RecordType::Placed => Self::Placed {
                tx: fields.sequence("tx")?,
                index: fields.u32("index")?,
                preconfirmed_unix_ns: fields.u64("preconfirmed")?,
            },
            RecordType::Closed => Self::Closed {
                number: fields.u64("number")?,
                tx_count: fields.u32("tx_count")?,
                reason: take_close_reason(&mut fields)?,
            },
            RecordType::Sealed => Self::Sealed {
                number: fields.u64("number")?,
                hash: fields.b256("hash")?,
                state_root: fields.b256("state root")?,
                receipts_root: fields.b256("receipts root")?,
                sealed_unix_ns: fields.u64("sealed")?,
            },
            RecordType::RolledBack => {
                Self::RolledBack { to_block: fields.u64("to_block")?, cause: take_rollback_cause(&mut fields)? }
            }
        };
        fields.finish()?;
        Ok((sequence, record))
    }
}

/// Fills in the checksum of one whole record.
pub fn seal_checksum(record: &mut [u8]) {
    let crc = checksum(record);
    record[CHECKSUM].copy_from_slice(&crc.to_le_bytes());
}

/// Compares the checksum of one whole record with its bytes.
///
/// # Errors
/// `Checksum`; `Short` and `Length` when `record` is not as long as it says.
pub fn verify_checksum(record: &[u8]) -> Result<(), RecordError> {
    if record.len() < HEADER_BYTES {
        return Err(RecordError::Short { field: "header", missing: HEADER_BYTES - record.len() });
    }
    let u32_at = |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
    let (said, stored) = (u32_at(0), u32_at(CHECKSUM.start));
    if said as usize != record.len() {
        return Err(RecordError::Length { said, actual: record.len() });
    }
    let computed = checksum(record);
    if stored != computed {
        return Err(RecordError::Checksum { stored, computed });
    }
    Ok(())
}

fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..CHECKSUM.start]), &record[CHECKSUM.end..])
}

fn put_tx(tx: &AdmittedTx<'_>, out: &mut Vec<u8>) {
    let authority_count = u16::try_from(tx.authorities.len()).expect("authorities of at most 64 KiB of transaction");
    let mut head = [0; 31];
    head[..20].copy_from_slice(tx.sender.as_slice());
    head[20..28].copy_from_slice(&tx.accepted_unix_ns.to_le_bytes());
    head[28] = if tx.conditions.is_some() { FLAG_CONDITIONS } else { 0 };
    head[29..].copy_from_slice(&authority_count.to_le_bytes());
    out.extend_from_slice(&head);
    for authority in tx.authorities.iter() {
        out.push(u8::from(authority.is_some()));
        if let Some(address) = authority {
            out.extend_from_slice(address.as_slice());
        }
    }
    if let Some(conditions) = &tx.conditions {
        conditions::put(conditions, out);
    }
    out.extend_from_slice(tx.raw);
}

fn take_tx<'a>(fields: &mut Fields<'a>) -> Result<AdmittedTx<'a>, RecordError> {
    let sender = fields.address("sender")?;
    let accepted_unix_ns = fields.u64("accepted")?;
    let flags = fields.u8("transaction flags")?;
    if flags & !FLAG_CONDITIONS != 0 {
        return Err(RecordError::Code { field: "transaction flags", code: flags });
    }
    let authority_count = fields.count("authority", 1)?;
    let mut authorities = Vec::with_capacity(authority_count);
    for _ in 0..authority_count {
        authorities.push(match fields.u8("authority")? {
            0 => None,
            1 => Some(fields.address("authority")?),
            code => return Err(RecordError::Code { field: "authority tag", code }),
        });
    }
    let conditions = match flags & FLAG_CONDITIONS {
        0 => None,
        _ => Some(Cow::Owned(conditions::take(fields)?)),
    };
    Ok(AdmittedTx { sender, accepted_unix_ns, authorities: Cow::Owned(authorities), conditions, raw: fields.rest() })
}

fn put_end(end: &EndState, out: &mut Vec<u8>) {
    let known = |reason: u8| {
        assert!(EndReason::from_code(reason).is_some(), "reason {reason} of a dropped transaction is in the list");
        reason
    };
    match *end {
        EndState::Included => panic!("a transaction in a block was placed, not dropped"),
        EndState::Dropped { reason } => out.extend_from_slice(&[KIND_DROPPED, known(reason)]),
        EndState::Replaced { by } => {
            out.extend_from_slice(&[KIND_REPLACED, 0]);
            out.extend_from_slice(by.as_slice());
        }
        EndState::Invalidated { reason, required, actual } => {
            out.extend_from_slice(&[KIND_INVALIDATED, known(reason)]);
            out.extend_from_slice(&required.to_le_bytes::<32>());
            out.extend_from_slice(&actual.to_le_bytes::<32>());
        }
    }
}

fn take_end(fields: &mut Fields<'_>) -> Result<EndState, RecordError> {
    let kind = fields.u8("kind of end")?;
    let reason = fields.u8("reason")?;
    if EndReason::from_code(reason).is_none() && (kind, reason) != (KIND_REPLACED, 0) {
        return Err(RecordError::Code { field: "reason of an end", code: reason });
    }
    match kind {
        KIND_DROPPED => Ok(EndState::Dropped { reason }),
        KIND_REPLACED if reason == 0 => Ok(EndState::Replaced { by: fields.b256("replacement")? }),
        KIND_REPLACED => Err(RecordError::Code { field: "reason of a replacement", code: reason }),
        KIND_INVALIDATED => {
            let (required, actual) = (fields.u256("required")?, fields.u256("actual")?);
            Ok(EndState::Invalidated { reason, required, actual })
        }
        code => Err(RecordError::Code { field: "kind of end", code }),
    }
}

fn put_opened(context: &BlockContext, opened_unix_ns: u64, out: &mut Vec<u8>) {
    let extra_data = &context.extra_data;
    assert!(extra_data.len() <= EXTRA_DATA_BYTES_MAX, "{} bytes of extra data", extra_data.len());
    for value in [context.number, opened_unix_ns, context.timestamp, context.base_fee_per_gas_wei, context.gas_limit] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    for hash in [&context.parent_hash, &context.prev_randao, &context.parent_beacon_block_root] {
        out.extend_from_slice(hash.as_slice());
    }
    out.extend_from_slice(context.coinbase.as_slice());
    out.push(match context.fork {
        Fork::Prague => FORK_PRAGUE,
        Fork::Osaka => FORK_OSAKA,
    });
    out.push(extra_data.len() as u8); // At most 32, asserted above.
    out.extend_from_slice(extra_data);
}

fn take_opened<'a>(fields: &mut Fields<'a>) -> Result<Record<'a>, RecordError> {
    let number = fields.u64("number")?;
    let opened_unix_ns = fields.u64("opened")?;
    let timestamp = fields.u64("timestamp")?;
    let base_fee_per_gas_wei = fields.u64("base fee")?;
    let gas_limit = fields.u64("gas limit")?;
    let parent_hash = fields.b256("parent hash")?;
    let prev_randao = fields.b256("prev_randao")?;
    let parent_beacon_block_root = fields.b256("parent beacon block root")?;
    let coinbase = fields.address("coinbase")?;
    let fork = match fields.u8("fork")? {
        FORK_PRAGUE => Fork::Prague,
        FORK_OSAKA => Fork::Osaka,
        code => return Err(RecordError::Code { field: "fork", code }),
    };
    let bytes = fields.u8("extra data")?;
    if usize::from(bytes) > EXTRA_DATA_BYTES_MAX {
        return Err(RecordError::ExtraData { bytes });
    }
    let extra_data = Bytes::copy_from_slice(fields.bytes("extra data", usize::from(bytes))?);
    let context = BlockContext {
        number,
        parent_hash,
        timestamp,
        base_fee_per_gas_wei,
        prev_randao,
        coinbase,
        gas_limit,
        extra_data,
        parent_beacon_block_root,
        fork,
    };
    Ok(Record::Opened { context: Cow::Owned(context), opened_unix_ns })
}

fn take_close_reason(fields: &mut Fields<'_>) -> Result<CloseReason, RecordError> {
    let code = fields.u8("reason")?;
    [CloseReason::Deadline, CloseReason::Full, CloseReason::Stop]
        .into_iter()
        .find(|reason| *reason as u8 == code)
        .ok_or(RecordError::Code { field: "reason of a close", code })
}

fn take_rollback_cause(fields: &mut Fields<'_>) -> Result<RollbackCause, RecordError> {
    let code = fields.u8("cause")?;
    [RollbackCause::Operator, RollbackCause::OriginGone, RollbackCause::L1Differs, RollbackCause::ClientLost]
        .into_iter()
        .find(|cause| *cause as u8 == code)
        .ok_or(RecordError::Code { field: "cause of a rollback", code })
}
