//! `Data` of an ExecuteTx: what is in a batch, its bytes, and the digest that the next one names.
//!
//! Input → output: a [`Batch`] ↔ bytes. Owner core: any; pure. Every bound here is a rule of consensus: who derives the chain refuses what
//! breaks it, so a changed number is another chain. `docs/BATCH_FORMAT.md` has the tables.
//! Deliberately absent: whether a batch is true (`strict`), and what of a witness goes where (`packer`).

mod decode;

mod frame;

#[cfg(test)]
mod tests;

use alloy_rlp::{Encodable, Header};

use super::Origin;
use crate::codec::transaction::RlpFault;
use crate::crypto::keccak::keccak256;
use crate::primitives::{Address, B256, Bytes};
use crate::witness::Witness;
pub use frame::FrameFault;

/// First byte of `Data`.
pub const DATA_VERSION: u8 = 1;
/// Bytes before the body: version and form.
pub const DATA_HEADER_BYTES: usize = 2;
/// A raw ExecuteTx: what a pool takes.
pub const EXECUTE_TX_BYTES_MAX: usize = 131_072;
/// Witness, Withdrawals and Anchor: their lengths are 16 bits in the calldata of the precompile.
pub const FIELD_BYTES_MAX: usize = 65_535;
/// The body, as it is hashed out of a frame: what a hostile frame can make a reader hold.
pub const BODY_BYTES_MAX: usize = 16 * 1_048_576;
/// Window of a frame (RFC 8878, 3.1.1.1.2): what a reader of any implementation must be able to hold.
pub const WINDOW_BYTES_MAX: u64 = 8 * 1_048_576;
/// Blocks, or parts of them.
pub const BLOCKS_MAX: usize = 1_024;
/// Segments of all blocks.
pub const SEGMENTS_MAX: usize = 4_096;
/// Transactions of all segments.
pub const TXS_MAX: usize = 65_536;
/// Accounts and slots that the segments of a batch ask for, summed up: a run's world holds them all.
pub const ACCESSES_MAX: usize = 524_288;
/// Yellow paper, section 4.3.4.
pub const EXTRA_DATA_BYTES_MAX: usize = 32;
/// How far an origin may lie below the block of L1 that includes the batch.
pub const ORIGIN_AGE_BLOCKS_MAX: u64 = 1_048_576;

/// An ExecuteTx without Data, Witness, Withdrawals and what they hold, at most: all integers at their longest.
pub const ENVELOPE_BYTES_MAX: usize = 1 + 4 + 5 * 33 + 6 * 9 + 4 * 4 + 3 * 33 + 21 + 40;
/// A batch without blocks and entries, at most: the headers of the witness' lists are among it.
pub const BATCH_BYTES_MAX: usize = DATA_HEADER_BYTES + 4 + 9 + 33 + 4 + 48;
/// A block without segments and withdrawals, at most.
pub const BLOCK_BYTES_MAX: usize = 4 + 9 + 21 + 9 + 33 + 10 + 33 + 33 + 16 + 4 + 33 + 4;
/// A segment without transactions, at most.
pub const SEGMENT_BYTES_MAX: usize = 4 + 9 + 33 + 33 + 4;

/// How the body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    Stored,
    /// One zstd frame, when that is shorter.
    Zstd,
}

/// What `Data` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// 0 for the first of a chain.
    pub index: u64,
    /// Digest of the batch before; the hash of the L2 genesis block for index 0.
    pub previous_digest: B256,
    pub blocks: Vec<BatchBlock>,
    /// Entries that the Witness field had no room for.
    pub overflow: Witness,
}

/// A block, or the part of one that is in a batch. Everything that cannot be derived is here; what can be is not, but for `prev_randao` and
/// the base fee of a block that began earlier: with them a batch can be executed by itself, and derivation compares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchBlock {
    pub timestamp: u64,
    pub coinbase: Address,
    pub gas_limit: u64,
    pub extra_data: Bytes,
    pub origin: Origin,
    pub prev_randao: B256,
    /// `Some`: the block began in an earlier batch.
    pub continued: Option<Continued>,
    pub segments: Vec<BatchSegment>,
    /// `None`: the block goes on in the next batch.
    pub hash: Option<B256>,
}

/// Where a block that began earlier goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continued {
    pub base_fee_wei: u64,
    pub first_tx_index: u32,
}

/// A segment as a batch has it. The first of a block opens it, the last of a block with a hash closes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSegment {
    pub gas_used_before: u64,
    pub post_state_root: B256,
    pub receipts_digest: B256,
    /// 2718 encodings.
    pub transactions: Vec<Bytes>,
}

/// Why bytes are no `Data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("Data has {bytes} bytes, it begins with {DATA_HEADER_BYTES}: version and form")]
    TooShort { bytes: usize },
    #[error("Data has version {found}, {DATA_VERSION} is known")]
    Version { found: u8 },
    #[error("Data has form {found}, 0 (stored) and 1 (zstd) are known")]
    Form { found: u8 },
    #[error("the body has {bytes} bytes, at most {BODY_BYTES_MAX} are allowed")]
    BodyTooLong { bytes: usize },
    #[error(transparent)]
    Frame(#[from] FrameFault),
    #[error("{what}: {fault}")]
    Rlp { what: &'static str, fault: RlpFault },
    #[error("{bytes} bytes stand behind the body's list")]
    TrailingBytes { bytes: usize },
    #[error("{what} has {count} items, {expected} are expected")]
    ItemCount { what: &'static str, count: usize, expected: usize },
    #[error("{what} is no integer of {bits} bits without leading zeros")]
    Integer { what: &'static str, bits: u32 },
    #[error("{what} has {bytes} bytes, {expected} are expected")]
    Length { what: &'static str, bytes: usize, expected: usize },
    #[error("extra data of block {block} has {bytes} bytes, at most {EXTRA_DATA_BYTES_MAX} are allowed")]
    ExtraData { block: usize, bytes: usize },
    #[error("there is no block")]
    BlocksEmpty,
    #[error("there are more than {BLOCKS_MAX} blocks")]
    TooManyBlocks,
    #[error("there are more than {SEGMENTS_MAX} segments")]
    TooManySegments,
    #[error("there are more than {TXS_MAX} transactions")]
    TooManyTxs,
    #[error("block {block} has no segment")]
    SegmentsEmpty { block: usize },
    #[error("segment {segment} of block {block} has no transaction and neither opens nor closes the block")]
    SegmentEmpty { block: usize, segment: usize },
    #[error("transaction {index} of segment {segment} of block {block} is empty")]
    TxEmpty { block: usize, segment: usize, index: usize },
    #[error("block {block} continues an earlier batch, only the first can")]
    ContinuedInside { block: usize },
    #[error("block {block} has no hash, only the last can go on in the next batch")]
    UnfinishedInside { block: usize },
    #[error("overflow: {what}")]
    Overflow { what: &'static str },
}

impl BatchError {
    /// The stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooShort { .. } => "data_too_short",
            Self::Version { .. } => "data_version",
            Self::Form { .. } => "data_form",
            Self::BodyTooLong { .. } => "data_body_too_long",
            Self::Frame(fault) => fault.code(),
            Self::Rlp { .. } => "batch_rlp",
            Self::TrailingBytes { .. } => "batch_trailing_bytes",
            Self::ItemCount { .. } => "batch_item_count",
            Self::Integer { .. } => "batch_integer",
            Self::Length { .. } => "batch_length",
            Self::ExtraData { .. } => "batch_extra_data",
            Self::BlocksEmpty => "batch_blocks_empty",
            Self::TooManyBlocks => "batch_too_many_blocks",
            Self::TooManySegments => "batch_too_many_segments",
            Self::TooManyTxs => "batch_too_many_transactions",
            Self::SegmentsEmpty { .. } => "batch_segments_empty",
            Self::SegmentEmpty { .. } => "batch_segment_empty",
            Self::TxEmpty { .. } => "batch_transaction_empty",
            Self::ContinuedInside { .. } => "batch_continued_inside",
            Self::UnfinishedInside { .. } => "batch_unfinished_inside",
            Self::Overflow { .. } => "batch_overflow",
        }
    }
}

impl Batch {
    /// `Data`.
    ///
    /// Cost: `benches/settlement.rs`, rows `pack`.
    #[must_use]
    pub fn encode(&self, compression: Compression) -> Vec<u8> {
        let body = self.body();
        if compression == Compression::Zstd
            && let Some(frame) = frame::compress(&body)
            && frame.len() < body.len()
        {
            return data(1, &frame);
        }
        data(0, &body)
    }

    /// How long `Data` is in stored form.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        DATA_HEADER_BYTES + self.body_payload().0
    }

    /// Reads `Data` strictly: what decodes is what encoding gives again, but for the frame's own choices.
    ///
    /// Runs on: any thread; memory is bounded by [`BODY_BYTES_MAX`], time by it and the length.
    /// Errors:  the first broken rule in the order of the bytes.
    ///
    /// # Errors
    /// See [`BatchError`].
    pub fn decode(data: &[u8]) -> Result<Self, BatchError> {
        let (header, rest) =
            data.split_at_checked(DATA_HEADER_BYTES).ok_or(BatchError::TooShort { bytes: data.len() })?;
        if header[0] != DATA_VERSION {
            return Err(BatchError::Version { found: header[0] });
        }
        let body = match header[1] {
            0 if rest.len() > BODY_BYTES_MAX => return Err(BatchError::BodyTooLong { bytes: rest.len() }),
            0 => Bytes::copy_from_slice(rest),
            1 => frame::decompress(rest)?,
            found => return Err(BatchError::Form { found }),
        };
        decode::body(&body)
    }

    /// Bytes of the body; of the payloads of its list, of the blocks, of the overflow, and of the overflow's three lists.
    fn body_payload(&self) -> (usize, usize, usize, usize, [usize; 3]) {
        let overflow = &self.overflow;
        let blocks: usize = self.blocks.iter().map(|block| list_bytes(block.payload())).sum();
        let headers: usize = overflow.headers.iter().map(|header| header.len()).sum();
        let strings = |list: &[Bytes]| list.iter().map(Encodable::length).sum::<usize>();
        let (codes, state) = (strings(&overflow.codes), strings(&overflow.state));
        let overflow_payload = list_bytes(headers) + list_bytes(codes) + list_bytes(state);
        let payload =
            self.index.length() + self.previous_digest.length() + list_bytes(blocks) + list_bytes(overflow_payload);
        (list_bytes(payload), payload, blocks, overflow_payload, [headers, codes, state])
    }

    fn body(&self) -> Vec<u8> {
        let overflow = &self.overflow;
        let (bytes, payload, blocks, overflow_payload, [headers, codes, state]) = self.body_payload();
        let mut out = Vec::with_capacity(bytes);
        list(payload, &mut out);
        self.index.encode(&mut out);
        self.previous_digest.encode(&mut out);
        list(blocks, &mut out);
        self.blocks.iter().for_each(|block| block.encode(&mut out));
        list(overflow_payload, &mut out);
        list(headers, &mut out);
        overflow.headers.iter().for_each(|header| out.extend_from_slice(header));
        for (payload, strings) in [(codes, &overflow.codes), (state, &overflow.state)] {
            list(payload, &mut out);
            strings.iter().for_each(|string| string.encode(&mut out));
        }
        out
    }
}

impl BatchBlock {
    fn segments_payload(&self) -> usize {
        self.segments.iter().map(|segment| list_bytes(segment.payload())).sum()
    }

    fn continued_payload(&self) -> usize {
        self.continued.map_or(0, |part| part.base_fee_wei.length() + part.first_tx_index.length())
    }

    fn payload(&self) -> usize {
        self.timestamp.length()
            + self.coinbase.length()
            + self.gas_limit.length()
            + self.extra_data.length()
            + self.origin.number.length()
            + self.origin.hash.length()
            + self.prev_randao.length()
            + list_bytes(self.continued_payload())
            + list_bytes(self.segments_payload())
            + self.hash.map_or(1, |hash| hash.length())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        list(self.payload(), out);
        self.timestamp.encode(out);
        self.coinbase.encode(out);
        self.gas_limit.encode(out);
        self.extra_data.encode(out);
        self.origin.number.encode(out);
        self.origin.hash.encode(out);
        self.prev_randao.encode(out);
        list(self.continued_payload(), out);
        if let Some(part) = self.continued {
            part.base_fee_wei.encode(out);
            part.first_tx_index.encode(out);
        }
        list(self.segments_payload(), out);
        self.segments.iter().for_each(|segment| segment.encode(out));
        match self.hash {
            Some(hash) => hash.encode(out),
            None => out.push(0x80),
        }
    }
}

impl BatchSegment {
    fn txs_payload(&self) -> usize {
        self.transactions.iter().map(Encodable::length).sum()
    }

    fn payload(&self) -> usize {
        self.gas_used_before.length() + 2 * 33 + list_bytes(self.txs_payload())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        list(self.payload(), out);
        self.gas_used_before.encode(out);
        self.post_state_root.encode(out);
        self.receipts_digest.encode(out);
        list(self.txs_payload(), out);
        self.transactions.iter().for_each(|tx| tx.encode(out));
    }
}

/// What the next batch names: Keccak-256 of `Data` as it stands in the transaction.
#[must_use]
pub fn digest(data: &[u8]) -> B256 {
    keccak256(data)
}

fn data(form: u8, body: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(DATA_HEADER_BYTES + body.len());
    data.extend_from_slice(&[DATA_VERSION, form]);
    data.extend_from_slice(body);
    data
}

fn list(payload_length: usize, out: &mut Vec<u8>) {
    Header { list: true, payload_length }.encode(out);
}

/// Bytes of a list with this payload.
fn list_bytes(payload_length: usize) -> usize {
    Header { list: true, payload_length }.length() + payload_length
}
