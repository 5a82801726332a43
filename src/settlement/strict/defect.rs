//! What is wrong with an ExecuteTx, each with a stable code: `docs/BATCH_FORMAT.md` has the table.

use crate::builder::block_execution::{BlockExecutionError, PrepareError};
use crate::builder::execution::ExecutionError;
use crate::codec::transaction::RlpFault;
use crate::primitives::{Address, B256};
use crate::settlement::batch::{ACCESSES_MAX, BatchError};
use crate::witness::decode::DecodeError;
use crate::witness::validator::ValidationError;
use crate::witness::validator::nodes::StateFault;
use crate::witness::validator::rules::RuleError;

/// Why an ExecuteTx proves nothing. Who signed it must act.
#[derive(Debug, thiserror::Error)]
pub enum Defect {
    #[error("it calls {to}; a batch has no target")]
    Target { to: Address },
    #[error("it carries value")]
    Value,
    #[error("{field} has {bytes} bytes, at most {bytes_max} are allowed")]
    FieldTooLong { field: &'static str, bytes: usize, bytes_max: usize },
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Witness(#[from] DecodeError),
    #[error("headers[{index}] of the witness is no header: {what}")]
    HeaderMalformed { index: usize, what: String },
    #[error("headers[{index}] of the witness is not the parent of the one before it")]
    HeaderUnlinked { index: usize },
    #[error("headers[0] of the witness has number {number}, block {block} follows it")]
    HeaderNumber { number: u64, block: u64 },
    #[error("the batch begins a block, and the witness field has no header: the parent's comes first")]
    ParentMissing,
    #[error("the parent's state root is {header}, PreStateHash is {payload}")]
    ParentRoot { header: B256, payload: B256 },
    #[error("the batch begins inside a block, and headers[{index}] of the witness field has the root PreStateHash")]
    HeaderAtPreState { index: usize },
    #[error("the node of PreStateHash is not in the witness field")]
    RootNodeMissing,
    #[error("{count} entries of the witness are there more than once")]
    EntryRepeated { count: usize },
    #[error("withdrawals: {fault}")]
    WithdrawalsRlp { fault: RlpFault },
    #[error("withdrawals: {what}")]
    Withdrawals { what: &'static str },
    #[error("Anchor is not the hash of the last block's origin")]
    Anchor,
    #[error("{field} of the ExecuteTx is not that of the first block")]
    FirstBlock { field: &'static str },
    #[error("block {block} has origin {number}, the one before it {before}")]
    OriginDecreases { block: u64, number: u64, before: u64 },
    #[error("block {block} has another origin {number} than the block before it")]
    OriginDiffers { block: u64, number: u64 },
    #[error("origin {number} of block {block} is not on this L1")]
    OriginUnknown { block: u64, number: u64 },
    #[error("prev_randao of block {block} is {batch}, its origin's mixHash is {origin}")]
    PrevRandao { block: u64, batch: B256, origin: B256 },
    #[error("block {block}: {source}")]
    Rule { block: u64, source: RuleError },
    #[error("block {block}, segment {segment}: {batch} gas used before it, {computed} when executed")]
    GasUsedBefore { block: u64, segment: usize, batch: u64, computed: u64 },
    #[error("transaction {index} of block {block}: {source}")]
    Transaction { block: u64, index: usize, source: PrepareError },
    #[error("block {block} cannot be executed: {source}")]
    Execution { block: u64, source: BlockExecutionError },
    #[error(transparent)]
    State(#[from] StateFault),
    #[error("code {hash} is not in the witness")]
    CodeMissing { hash: B256 },
    #[error("block {block} asks for the hash of block {asked}, whose header is not in the witness")]
    HeaderMissing { block: u64, asked: u64 },
    #[error("block {block}, segment {segment}: post-state root {batch}, {computed} when executed")]
    PostStateRoot { block: u64, segment: usize, batch: B256, computed: B256 },
    #[error("block {block}, segment {segment}: receipts digest {batch}, {computed} when executed")]
    ReceiptsDigest { block: u64, segment: usize, batch: B256, computed: B256 },
    #[error("the batch asks for more than {ACCESSES_MAX} accounts and slots")]
    TooManyAccesses,
    #[error("block {block} has hash {batch}, {computed} when executed")]
    BlockHash { block: u64, batch: B256, computed: B256 },
    #[error("batch index {found}, {expected} is next")]
    Index { expected: u64, found: u64 },
    #[error("the batch follows {found}, the derived chain ends with {expected}")]
    PreviousDigest { expected: B256, found: B256 },
    #[error("PreStateHash {found}, the derived chain stands at {expected}")]
    PreState { expected: B256, found: B256 },
    #[error("BlockNumber {found}, the derived chain goes on with {expected}")]
    BlockNumber { expected: u64, found: u64 },
    #[error("the batch begins {}, the derived chain goes on {}", place(*.found_inside), place(!*.found_inside))]
    Place { found_inside: bool },
    #[error("{field} of the block that goes on is not what the earlier batch said")]
    Continuation { field: &'static str },
    #[error("the first header of the witness is not the derived chain's last block")]
    ParentHash,
}

fn place(inside: bool) -> &'static str {
    if inside { "inside a block" } else { "with a block" }
}

/// All codes but those of Data ([`BatchError::code`]), the witness' bytes and the rules of headers (`docs/STATELESS_VALIDATION.md`).
pub const CODES: [&str; 43] = [
    "target",
    "value",
    "field_too_long",
    "header_malformed",
    "header_unlinked",
    "header_number",
    "parent_missing",
    "parent_root",
    "header_at_pre_state",
    "root_node_missing",
    "entry_repeated",
    "withdrawals_rlp",
    "withdrawals",
    "anchor",
    "first_block",
    "origin_decreases",
    "origin_differs",
    "origin_unknown",
    "prev_randao",
    "gas_used_before",
    "transaction_bytes",
    "transaction_signature",
    "transaction_invalid",
    "transaction_gas_limit",
    "system_call",
    "node_missing",
    "sibling_missing",
    "node_malformed",
    "code_missing",
    "header_missing",
    "post_state_root",
    "receipts_digest",
    "too_many_accesses",
    "block_hash",
    "index",
    "previous_digest",
    "pre_state",
    "block_number",
    "place",
    "continuation",
    "parent_hash",
    "world",
    "revm",
];

impl Defect {
    /// The stable name of the defect.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Target { .. } => "target",
            Self::Value => "value",
            Self::FieldTooLong { .. } => "field_too_long",
            Self::Batch(error) => error.code(),
            Self::Witness(error) => error.code(),
            Self::HeaderMalformed { .. } => "header_malformed",
            Self::HeaderUnlinked { .. } => "header_unlinked",
            Self::HeaderNumber { .. } => "header_number",
            Self::ParentMissing => "parent_missing",
            Self::ParentRoot { .. } => "parent_root",
            Self::HeaderAtPreState { .. } => "header_at_pre_state",
            Self::RootNodeMissing => "root_node_missing",
            Self::EntryRepeated { .. } => "entry_repeated",
            Self::WithdrawalsRlp { .. } => "withdrawals_rlp",
            Self::Withdrawals { .. } => "withdrawals",
            Self::Anchor => "anchor",
            Self::FirstBlock { .. } => "first_block",
            Self::OriginDecreases { .. } => "origin_decreases",
            Self::OriginDiffers { .. } => "origin_differs",
            Self::OriginUnknown { .. } => "origin_unknown",
            Self::PrevRandao { .. } => "prev_randao",
            Self::Rule { source, .. } => source.code(),
            Self::GasUsedBefore { .. } => "gas_used_before",
            Self::Transaction { source: PrepareError::Bytes(_), .. } => "transaction_bytes",
            Self::Transaction { .. } => "transaction_signature",
            Self::Execution { source, .. } => match source {
                BlockExecutionError::Transaction { source: ExecutionError::Invalid(_), .. } => "transaction_invalid",
                BlockExecutionError::GasLimit { .. } => "transaction_gas_limit",
                BlockExecutionError::System(_) => "system_call",
                BlockExecutionError::Transaction { .. } => "revm",
                BlockExecutionError::World(_) => "world",
            },
            Self::State(fault) => state_code(fault),
            Self::CodeMissing { .. } => "code_missing",
            Self::HeaderMissing { .. } => "header_missing",
            Self::PostStateRoot { .. } => "post_state_root",
            Self::ReceiptsDigest { .. } => "receipts_digest",
            Self::TooManyAccesses => "too_many_accesses",
            Self::BlockHash { .. } => "block_hash",
            Self::Index { .. } => "index",
            Self::PreviousDigest { .. } => "previous_digest",
            Self::PreState { .. } => "pre_state",
            Self::BlockNumber { .. } => "block_number",
            Self::Place { .. } => "place",
            Self::Continuation { .. } => "continuation",
            Self::ParentHash => "parent_hash",
        }
    }
}

/// The names of `docs/STATELESS_VALIDATION.md`.
fn state_code(fault: &StateFault) -> &'static str {
    ValidationError::State(fault.clone()).code()
}
