//! What is wrong with a block or its witness, each with a stable code: `docs/STATELESS_VALIDATION.md` has the table.

use alloy_primitives::{B256, Bloom};

use super::block::BlockError;
use super::nodes::StateFault;
use super::rules::RuleError;
use crate::builder::block_execution::BlockExecutionError;
use crate::builder::execution::ExecutionError;
use crate::witness::decode::{DecodeError, Part};

/// A field of the header that follows from executing the block, or from its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashField {
    TransactionsRoot,
    WithdrawalsRoot,
    ReceiptsRoot,
    RequestsHash,
    StateRoot,
}

impl std::fmt::Display for HashField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TransactionsRoot => "transactions root",
            Self::WithdrawalsRoot => "withdrawals root",
            Self::ReceiptsRoot => "receipts root",
            Self::RequestsHash => "requests hash",
            Self::StateRoot => "state root",
        })
    }
}

/// Why a block does not validate. Who made the block, or the witness, must act.
#[derive(Debug, thiserror::Error)]
pub enum ValidationError {
    #[error(transparent)]
    Witness(#[from] DecodeError),
    #[error(transparent)]
    Block(#[from] BlockError),
    #[error("headers[{index}] of the witness is no header: {what}")]
    HeaderMalformed { index: usize, what: String },
    #[error("the parent {parent_hash} of block {number} is not among the {count} headers of the witness")]
    ParentMissing { number: u64, parent_hash: B256, count: usize },
    #[error("headers[{index}] of the witness has number {number}, its child needs {expected}")]
    HeaderNumber { index: usize, number: u64, expected: u64 },
    #[error(
        "the block asks for the hash of block {asked}, and the header of block {number} is not in the witness (the oldest linked one is {oldest})"
    )]
    HeaderMissing { number: u64, asked: u64, oldest: u64 },
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error(transparent)]
    State(#[from] StateFault),
    #[error("code {hash} is not in the witness")]
    CodeMissing { hash: B256 },
    /// A transaction that is not valid at its place, or calls that open and close a block and fail.
    #[error("block {number} cannot be executed: {cause}")]
    Execution { number: u64, cause: Box<BlockExecutionError> },
    #[error("{field} is {header} in the header and {computed} when computed")]
    HashDiffers { field: HashField, header: B256, computed: B256 },
    #[error("gas used is {header} in the header and {computed} when executed")]
    GasUsedDiffers { header: u64, computed: u64 },
    #[error("logs bloom is {} in the header and {} when executed", .0.header, .0.computed)]
    BloomDiffers(Box<BloomPair>),
    #[error("{part}[{index}] of the witness, {hash}, is not needed by the block")]
    EntryUnneeded { part: Part, index: usize, hash: B256 },
    #[error("{part}[{index}] of the witness is not above {part}[{before}]: canonical order ascends, by number and by bytes", before = index - 1)]
    EntryOrder { part: Part, index: usize },
}

/// All codes. They are an interface: a code may come, none goes or changes its meaning.
pub const CODES: [&str; 47] = [
    "witness_too_long",
    "witness_rlp",
    "witness_trailing_bytes",
    "witness_item_count",
    "witness_entry_too_long",
    "witness_too_many_entries",
    "witness_headers_empty",
    "witness_keys_not_empty",
    "block_too_long",
    "block_rlp",
    "block_header",
    "block_ommers",
    "block_transaction",
    "block_withdrawal",
    "header_malformed",
    "parent_missing",
    "header_number",
    "header_missing",
    "rule_field_missing",
    "rule_field_unknown",
    "rule_difficulty",
    "rule_nonce",
    "rule_ommers_hash",
    "rule_blob_gas",
    "rule_timestamp",
    "rule_extra_data",
    "rule_gas_limit",
    "rule_gas_used",
    "rule_base_fee",
    "rule_block_bytes",
    "node_missing",
    "sibling_missing",
    "node_malformed",
    "code_missing",
    "transaction_invalid",
    "transaction_gas_limit",
    "system_call",
    "execution",
    "transactions_root",
    "withdrawals_root",
    "receipts_root",
    "requests_hash",
    "state_root",
    "gas_used",
    "logs_bloom",
    "entry_unneeded",
    "entry_order",
];

/// The bloom of the header and the one that the block's logs make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BloomPair {
    pub header: Bloom,
    pub computed: Bloom,
}

impl ValidationError {
    /// The stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Witness(error) => error.code(),
            Self::Block(error) => error.code(),
            Self::HeaderMalformed { .. } => "header_malformed",
            Self::ParentMissing { .. } => "parent_missing",
            Self::HeaderNumber { .. } => "header_number",
            Self::HeaderMissing { .. } => "header_missing",
            Self::Rule(error) => error.code(),
            Self::State(StateFault::NodeMissing { .. }) => "node_missing",
            Self::State(StateFault::SiblingMissing { .. }) => "sibling_missing",
            Self::State(StateFault::NodeMalformed { .. }) => "node_malformed",
            Self::CodeMissing { .. } => "code_missing",
            Self::Execution { cause, .. } => match &**cause {
                BlockExecutionError::Transaction { source: ExecutionError::Invalid(_), .. } => "transaction_invalid",
                BlockExecutionError::GasLimit { .. } => "transaction_gas_limit",
                BlockExecutionError::System(_) => "system_call",
                BlockExecutionError::Transaction { .. } | BlockExecutionError::World(_) => "execution",
            },
            Self::HashDiffers { field, .. } => match field {
                HashField::TransactionsRoot => "transactions_root",
                HashField::WithdrawalsRoot => "withdrawals_root",
                HashField::ReceiptsRoot => "receipts_root",
                HashField::RequestsHash => "requests_hash",
                HashField::StateRoot => "state_root",
            },
            Self::GasUsedDiffers { .. } => "gas_used",
            Self::BloomDiffers(_) => "logs_bloom",
            Self::EntryUnneeded { .. } => "entry_unneeded",
            Self::EntryOrder { .. } => "entry_order",
        }
    }
}
