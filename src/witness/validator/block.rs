//! A block as its RLP has it, decoded strictly, with the senders of its transactions.
//!
//! Input → output: the bytes of a block → header, transactions, withdrawals. Owner core: any.
//! Time and memory are bounded by the length of the input. Transaction bytes are slices of one shared buffer.

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{B256, Bytes};
use alloy_rlp::{Decodable, Encodable};

use crate::builder::block_execution::{PrepareError, PreparedTx};
use crate::codec::transaction::RlpFault;
use crate::witness::rlp::split;

/// go-ethereum's engine API takes bodies of 128 MiB, and a block in it is hexadecimal.
pub const BLOCK_BYTES_MAX: usize = 64 * 1_048_576;

/// Header, transactions, ommers, withdrawals.
const ITEMS: usize = 4;

/// A block to validate.
#[derive(Clone, Debug)]
pub struct StatelessBlock {
    pub header: Header,
    pub hash: B256,
    pub transactions: Vec<PreparedTx>,
    pub withdrawals: Vec<Withdrawal>,
    /// Length of the block's RLP.
    pub rlp_bytes: u64,
}

/// Why bytes are no block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    #[error("the block has {bytes} bytes, at most {bytes_max} are read")]
    TooLong { bytes: usize, bytes_max: usize },
    #[error("{what} of the block: {fault}")]
    Rlp { what: &'static str, fault: RlpFault },
    #[error("{bytes} bytes stand behind the block")]
    TrailingBytes { bytes: usize },
    #[error("the block has {count} items, {ITEMS} are expected: header, transactions, ommers, withdrawals")]
    ItemCount { count: usize },
    #[error("the header of the block: {what}")]
    Header { what: String },
    #[error("the block has {bytes} bytes of ommers, there are none since EIP-3675")]
    Ommers { bytes: usize },
    #[error("transaction {index} of the block: {cause}")]
    Transaction { index: usize, cause: PrepareError },
    #[error("withdrawal {index} of the block: {what}")]
    Withdrawal { index: usize, what: String },
}

impl BlockError {
    /// The stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "block_too_long",
            Self::Rlp { .. } | Self::TrailingBytes { .. } | Self::ItemCount { .. } => "block_rlp",
            Self::Header { .. } => "block_header",
            Self::Ommers { .. } => "block_ommers",
            Self::Transaction { .. } => "block_transaction",
            Self::Withdrawal { .. } => "block_withdrawal",
        }
    }
}

impl StatelessBlock {
    /// A block of parts that the caller has already: settlement knows the senders of its own blocks.
    #[must_use]
    pub fn new(header: Header, transactions: Vec<PreparedTx>, withdrawals: Vec<Withdrawal>) -> Self {
        let list = |payload_length| alloy_rlp::Header { list: true, payload_length }.length() + payload_length;
        let items = transactions.iter().map(|tx| match tx.raw.first() {
            // A legacy transaction is a list in the body; a typed one is a string.
            Some(0xc0..) => tx.raw.len(),
            _ => tx.raw.length(),
        });
        let withdrawal_bytes = withdrawals.iter().map(Encodable::length).sum();
        let rlp_bytes = list(header.length() + list(items.sum()) + list(0) + list(withdrawal_bytes)) as u64;
        let hash = header.hash_slow();
        Self { header, hash, transactions, withdrawals, rlp_bytes }
    }

    /// Reads a block, which must fill `bytes` exactly, and recovers who signed its transactions: most of the time that a validation takes.
    ///
    /// Runs on: any thread.
    /// Errors:  the first broken rule in the order of the bytes.
    /// Source:  yellow paper, section 4.3; EIP-2718, EIP-4895. Blob transactions are refused (EIP-8079).
    pub fn decode(bytes: &Bytes) -> Result<Self, BlockError> {
        if bytes.len() > BLOCK_BYTES_MAX {
            return Err(BlockError::TooLong { bytes: bytes.len(), bytes_max: BLOCK_BYTES_MAX });
        }
        let outer = |fault| BlockError::Rlp { what: "the list", fault };
        let (item, rest) = split(bytes).map_err(outer)?;
        let mut items = item.list().map_err(outer)?;
        if !rest.is_empty() {
            return Err(BlockError::TrailingBytes { bytes: rest.len() });
        }
        let count = item_count(items).map_err(outer)?;
        if count != ITEMS {
            return Err(BlockError::ItemCount { count });
        }
        let mut next = |what| {
            let fault_of = |fault| BlockError::Rlp { what, fault };
            let (item, rest) = split(items).map_err(fault_of)?;
            items = rest;
            item.list().map_err(fault_of)?;
            Ok(item)
        };
        let header_rlp = next("the header")?.encoded;
        let header = decode_header(header_rlp).map_err(|what| BlockError::Header { what })?;
        let transactions = decode_transactions(bytes, next("the transactions")?.payload)?;
        let ommers = next("the ommers")?.payload;
        if !ommers.is_empty() {
            return Err(BlockError::Ommers { bytes: ommers.len() });
        }
        let withdrawals = decode_withdrawals(next("the withdrawals")?.payload)?;
        let hash = crate::crypto::keccak::keccak256(header_rlp);
        Ok(Self { header, hash, transactions, withdrawals, rlp_bytes: bytes.len() as u64 })
    }
}

fn item_count(mut rest: &[u8]) -> Result<usize, RlpFault> {
    let mut count = 0;
    while !rest.is_empty() {
        rest = split(rest)?.1;
        count += 1;
    }
    Ok(count)
}

/// Reads a header that must be exactly what its encoding gives again.
///
/// # Errors
/// In words.
pub fn decode_header(rlp: &[u8]) -> Result<Header, String> {
    let mut rest = rlp;
    let header = Header::decode(&mut rest).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err(format!("{} bytes stand behind it", rest.len()));
    }
    if alloy_rlp::encode(&header) != rlp {
        return Err("its encoding is not canonical".to_owned());
    }
    Ok(header)
}

fn decode_transactions(whole: &Bytes, mut rest: &[u8]) -> Result<Vec<PreparedTx>, BlockError> {
    let mut transactions = Vec::new();
    while !rest.is_empty() {
        let (item, after) = split(rest).map_err(|fault| BlockError::Rlp { what: "a transaction", fault })?;
        let raw = match (item.is_list, item.payload.first()) {
            (true, _) => item.encoded,
            // A legacy transaction in a string would be a second encoding of the same block.
            (false, Some(0xc0..)) => {
                return Err(BlockError::Rlp { what: "a transaction", fault: RlpFault::UnexpectedString });
            }
            (false, _) => item.payload,
        };
        let index = transactions.len();
        let prepared = PreparedTx::recover(whole.slice_ref(raw));
        transactions.push(prepared.map_err(|cause| BlockError::Transaction { index, cause })?);
        rest = after;
    }
    Ok(transactions)
}

fn decode_withdrawals(mut rest: &[u8]) -> Result<Vec<Withdrawal>, BlockError> {
    let mut withdrawals = Vec::new();
    while !rest.is_empty() {
        let (item, after) = split(rest).map_err(|fault| BlockError::Rlp { what: "a withdrawal", fault })?;
        let index = withdrawals.len();
        let fault = |what| BlockError::Withdrawal { index, what };
        let mut encoded = item.encoded;
        let withdrawal = Withdrawal::decode(&mut encoded).map_err(|error| fault(error.to_string()))?;
        if alloy_rlp::encode(withdrawal) != item.encoded {
            return Err(fault("its encoding is not canonical".to_owned()));
        }
        withdrawals.push(withdrawal);
        rest = after;
    }
    Ok(withdrawals)
}
