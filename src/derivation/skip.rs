//! Why an ExecuteTx on L1 does not count.
//!
//! A skip is for ever: the transaction is never looked at again, unless a reorganisation of L1 takes its block away. The rules are asked in
//! the order of their numbers, and the first broken one is the reason; numbers and names are stable.
//!
//! | no | name | rule that is broken |
//! |---|---|---|
//! | 1 | `undecodable` | strict decode: the profile's item count, minimal integers, matching sizes, no blob hashes, nothing behind it |
//! | 2 | `wrong_chain_id` | item 0 is the genesis's `l1ChainId` |
//! | 3 | `bad_signature` | low s, a sender comes out |
//! | 4 | `not_a_batcher` | the sender is in the genesis's `batchers` |
//! | 5 | `batcher_too_early` | its block is at or above that batcher's `fromL1Block` |
//! | 6 | `failed_on_l1` | receipt status 1 |
//! | 7 | `has_target` | `To` is empty |
//! | 8 | `has_value` | `Value` is 0 |
//! | 9 | `bad_batch` | the batch header decodes (version, sizes) |
//! | 10 | `index_not_next` | batch index = last + 1: duplicates and gaps |
//! | 11 | `other_predecessor` | the previous batch's digest is the last accepted one's |
//! | 12 | `other_pre_state` | `PreStateHash` is the derived tip's state root |
//! | 13 | `other_first_block` | the first block is the derived tip's next one, or the one that the last batch left open |
//! | 14 | `origin_not_below` | each origin is strictly below the block that has the batch |
//! | 15 | `origin_decreases` | origins never go down |
//! | 16 | `origin_too_old` | at most 1,048,576 blocks below the block that has the batch |
//! | 17 | `origin_unknown` | each origin is a canonical ancestor of that block, at or above the genesis's `l1Start` |
//! | 18 | `other_prev_randao` | `prev_randao` of each block is the mix hash of its origin |
//! | 19 | `invalid` | strict re-execution of every segment (the detail has its code and words) |

use crate::primitives::{Address, B256};

/// See the module's table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    #[error("does not decode: {what}")]
    Undecodable { what: String },
    #[error("chain id {found}, L1 has {expected}")]
    WrongChainId { expected: u64, found: String },
    #[error("signature: {what}")]
    BadSignature { what: String },
    #[error("{sender} is no batcher")]
    NotABatcher { sender: Address },
    #[error("{sender} is a batcher from L1 block {from} on, this is block {block}")]
    BatcherTooEarly { sender: Address, from: u64, block: u64 },
    #[error("receipt status 0")]
    FailedOnL1,
    #[error("it calls {to}")]
    HasTarget { to: Address },
    #[error("it carries value")]
    HasValue,
    #[error("batch header: {what}")]
    BadBatch { what: String },
    #[error("batch index {found}, expected {expected}")]
    IndexNotNext { expected: u64, found: u64 },
    #[error("it follows the batch with digest {found}, the last accepted has {expected}")]
    OtherPredecessor { expected: B256, found: B256 },
    #[error("PreStateHash {found}, the derived chain stands at {expected}")]
    OtherPreState { expected: B256, found: B256 },
    #[error("first block {found}, expected {expected}")]
    OtherFirstBlock { expected: u64, found: u64 },
    #[error("L1 origin {origin} of block {block} is not below L1 block {inclusion}")]
    OriginNotBelow { block: u64, origin: u64, inclusion: u64 },
    #[error("L1 origin {origin} of block {block} is below {before} of the block before")]
    OriginDecreases { block: u64, origin: u64, before: u64 },
    #[error("L1 origin {origin} of block {block} is too far below L1 block {inclusion}")]
    OriginTooOld { block: u64, origin: u64, inclusion: u64 },
    #[error("L1 origin {origin} ({hash}) of block {block} is not on L1's chain")]
    OriginUnknown { block: u64, origin: u64, hash: B256 },
    #[error("prev_randao {found} of block {block}, its L1 origin has {expected}")]
    OtherPrevRandao { block: u64, expected: B256, found: B256 },
    #[error("{what} ({code})")]
    Invalid { code: String, what: String },
}

impl SkipReason {
    /// How many reasons there are; numbers are `1..=COUNT`.
    pub const COUNT: u8 = 19;

    /// Stable number.
    #[must_use]
    pub fn number(&self) -> u8 {
        match self {
            Self::Undecodable { .. } => 1,
            Self::WrongChainId { .. } => 2,
            Self::BadSignature { .. } => 3,
            Self::NotABatcher { .. } => 4,
            Self::BatcherTooEarly { .. } => 5,
            Self::FailedOnL1 => 6,
            Self::HasTarget { .. } => 7,
            Self::HasValue => 8,
            Self::BadBatch { .. } => 9,
            Self::IndexNotNext { .. } => 10,
            Self::OtherPredecessor { .. } => 11,
            Self::OtherPreState { .. } => 12,
            Self::OtherFirstBlock { .. } => 13,
            Self::OriginNotBelow { .. } => 14,
            Self::OriginDecreases { .. } => 15,
            Self::OriginTooOld { .. } => 16,
            Self::OriginUnknown { .. } => 17,
            Self::OtherPrevRandao { .. } => 18,
            Self::Invalid { .. } => 19,
        }
    }

    /// Stable names, for answers and metrics, by number.
    pub const NAMES: [&'static str; Self::COUNT as usize] = [
        "undecodable",
        "wrong_chain_id",
        "bad_signature",
        "not_a_batcher",
        "batcher_too_early",
        "failed_on_l1",
        "has_target",
        "has_value",
        "bad_batch",
        "index_not_next",
        "other_predecessor",
        "other_pre_state",
        "other_first_block",
        "origin_not_below",
        "origin_decreases",
        "origin_too_old",
        "origin_unknown",
        "other_prev_randao",
        "invalid",
    ];

    /// Its name in [`SkipReason::NAMES`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        Self::NAMES[usize::from(self.number()) - 1]
    }
}
