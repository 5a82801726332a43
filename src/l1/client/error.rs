//! What goes wrong between us and an L1 endpoint.

use crate::l1::block::BlockId;
use crate::primitives::B256;

/// Why one endpoint did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("{endpoint}: {what}")]
    Unreachable { endpoint: String, what: String },
    #[error("{endpoint}: no answer to {method} within {limit_ms} ms")]
    TimedOut { endpoint: String, method: String, limit_ms: u64 },
    #[error("{endpoint}: HTTP status {status}: {body}")]
    Http { endpoint: String, status: u16, body: String },
    #[error("{endpoint}: {method} is not an answer of JSON-RPC: {what}")]
    Malformed { endpoint: String, method: String, what: String },
    /// The endpoint's own error.
    #[error("{endpoint}: {method}: {message} ({code})")]
    Rpc { endpoint: String, method: String, code: i64, message: String, data: Option<String> },
    /// The answer contradicts itself or what is proven: see [`Lie`].
    #[error("{endpoint}: {lie}")]
    Lied { endpoint: String, lie: Lie },
}

impl EndpointError {
    /// Its place in `metrics::L1_FAILURES`.
    #[must_use]
    pub fn label(&self) -> usize {
        match self {
            Self::Unreachable { .. } => 0,
            Self::TimedOut { .. } => 1,
            Self::Http { .. } => 2,
            Self::Malformed { .. } => 3,
            Self::Rpc { .. } => 4,
            Self::Lied { .. } => 5,
        }
    }

    /// Whether the endpoint answered, by JSON-RPC, that it does not know the method.
    #[must_use]
    pub fn is_method_missing(&self) -> bool {
        matches!(self, Self::Rpc { code: -32601, .. })
            || matches!(self, Self::Rpc { message, .. } if message.contains("does not exist") || message.contains("not available"))
    }
}

/// An answer that bytes disprove.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    #[error("block {asked} was asked for and {got} came")]
    OtherBlock { asked: String, got: BlockId },
    #[error("header of block {number} hashes to {computed}, named {named}")]
    HeaderHash { number: u64, named: B256, computed: B256 },
    #[error("transactions of block {block} have the root {computed}, its header says {header}")]
    TransactionsRoot { block: BlockId, header: B256, computed: B256 },
    #[error("receipts of block {block} have the root {computed}, its header says {header}")]
    ReceiptsRoot { block: BlockId, header: B256, computed: B256 },
    #[error("block {block} has {transactions} transactions and {receipts} receipts")]
    Counts { block: BlockId, transactions: usize, receipts: usize },
    #[error("final block {number} is {ours} to the others and {theirs} here")]
    Finalized { number: u64, ours: B256, theirs: B256 },
    #[error("transaction {named} of block {block} hashes to {computed}")]
    TransactionHash { block: BlockId, named: B256, computed: B256 },
    #[error("block {block} with {transactions} transactions, of which {bytes} bytes were read, is larger than any")]
    TooLarge { block: BlockId, transactions: usize, bytes: usize },
    #[error("the account has nonce {ours} at block {at} to two others, and {theirs} here")]
    Account { at: BlockId, ours: u64, theirs: u64 },
    #[error("chain id {got}, configured is {expected}")]
    ChainId { expected: u64, got: u64 },
    #[error("block {what} does not decode: {why}")]
    Undecodable { what: String, why: String },
}

/// Why the client as a whole has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The last error of each endpoint was this or one like it.
    #[error("L1 is away: {0}")]
    Away(Box<EndpointError>),
    /// An endpoint answered with an error of its own.
    #[error(transparent)]
    Refused(Box<EndpointError>),
    #[error("L1 has no block {what}")]
    NoBlock { what: String },
    /// Two endpoints are asked when there are several; they disagree.
    #[error("endpoints disagree: {0}")]
    NotAgreed(String),
    /// A head without its blocks, or with blocks that nobody else has, for as long as it lasts.
    #[error(
        "{endpoint} names block {head} as L1's head, and no block {next} that counts came of it: it has none, or is alone with it"
    )]
    Withheld { endpoint: String, head: u64, next: u64 },
    /// The chain has forked below what was final.
    #[error("L1 has reorganised below its final block {finalized}: its block {} is now {}", .now.number, .now.hash)]
    ReorgBelowFinalized { finalized: u64, now: BlockId },
}

/// Why a setting of the client does not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("no L1 endpoint is named")]
    None,
    #[error("{url}: {what}")]
    Bad { url: String, what: String },
}
