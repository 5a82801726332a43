//! Every value that crosses a thread, in pipeline order. Who sends what to whom, and what happens when a ring is full: `topology.rs`.

use std::sync::Arc;

use alloy_primitives::Address;

use crate::builder::block::{OpenBlock, SealedBlock};
use crate::builder::sealing::ClosedBlock;
use crate::mempool::{Conditions, EndState, Impossible, Reject};
use crate::primitives::{B256, Bytes, ReplyToken, Sequence, ShardId, ShardSet, TxFields, U256};
use crate::rpc::RpcError;
use crate::runtime::slab::TxHandle;

// ---- ingress shard → builder core ------------------------------------------------------------------------------------------------

/// One ring slot of `ingress_builder`.
pub enum IngressMessage {
    Submit(Submit),
    /// A question that only the builder core can answer: the pool, or the state inside the open block.
    Read {
        token: ReplyToken,
        read: BuilderRead,
    },
    /// The connection that waits for a preconfirmed receipt is gone or its time is over.
    ForgetSync {
        token: ReplyToken,
        hash: B256,
    },
}

/// A transaction whose signature holds, on its way to the pool. The builder owns `handle` from here and sends it back by `builder_freed`.
pub struct Submit {
    pub token: ReplyToken,
    pub hash: B256,
    pub sender: Address,
    pub fields: TxFields,
    pub handle: TxHandle,
    /// Parts that most transactions do not have.
    pub extras: Option<Box<SubmitExtras>>,
    pub wait: SubmitWait,
}

/// What the sender waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitWait {
    /// `eth_sendRawTransaction`, `eth_sendRawTransactionConditional`: the answer is the admission.
    Admission,
    /// `eth_sendRawTransactionSync` (EIP-7966): the answer is the preconfirmed receipt, or an error; the shard keeps the time.
    Preconfirmation,
}

#[derive(Default)]
pub struct SubmitExtras {
    /// Recovered EIP-7702 authorities, in list order; `None` where the signature does not recover.
    pub authorities: Vec<Option<Address>>,
    /// ERC-7796.
    pub conditions: Option<Conditions>,
}

/// Point reads under `pending`, and the pool. Bounded per turn of the builder's loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuilderRead {
    Account {
        address: Address,
    },
    Slot {
        address: Address,
        slot: U256,
    },
    /// A pooled transaction; placed ones are in the open block, which every thread can read.
    Transaction {
        hash: B256,
    },
    Status {
        hash: B256,
    },
    PoolStatus,
}

// ---- builder core → ingress shard ------------------------------------------------------------------------------------------------

/// One ring slot of `builder_ingress`. The shard holds each answer back until the journal is durable up to `gate`.
///
/// The gates of one ring never go back, except to 0, which waits for nothing and overtakes what waits.
pub enum BuilderReply {
    Admitted {
        token: ReplyToken,
        hash: B256,
        gate: Sequence,
    },
    Refused {
        token: ReplyToken,
        hash: B256,
        refusal: Refusal,
        /// A refusal compares with the pool and with the open block, so it waits for both.
        gate: Sequence,
    },
    /// The transaction of a waiting `eth_sendRawTransactionSync` has its place.
    Preconfirmed {
        token: ReplyToken,
        block: Arc<OpenBlock>,
        index: u32,
        gate: Sequence,
    },
    /// The transaction of a waiting `eth_sendRawTransactionSync` ended without a place.
    Ended {
        token: ReplyToken,
        hash: B256,
        end: EndState,
        gate: Sequence,
    },
    /// The transaction of an `eth_sendRawTransactionSync` is in the pool and cannot be placed yet: nobody waits for it any more.
    Unready {
        token: ReplyToken,
        hash: B256,
        reason: Unready,
        gate: Sequence,
    },
    Answer {
        token: ReplyToken,
        answer: BuilderAnswer,
        gate: Sequence,
    },
}

impl BuilderReply {
    /// What must be durable before the reply leaves.
    #[must_use]
    pub fn gate(&self) -> Sequence {
        match self {
            Self::Admitted { gate, .. }
            | Self::Refused { gate, .. }
            | Self::Preconfirmed { gate, .. }
            | Self::Ended { gate, .. }
            | Self::Unready { gate, .. }
            | Self::Answer { gate, .. } => *gate,
        }
    }

    #[must_use]
    pub fn token(&self) -> ReplyToken {
        match self {
            Self::Admitted { token, .. }
            | Self::Refused { token, .. }
            | Self::Preconfirmed { token, .. }
            | Self::Ended { token, .. }
            | Self::Unready { token, .. }
            | Self::Answer { token, .. } => *token,
        }
    }
}

/// Why an admitted transaction is not executed next (EIP-7966).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unready {
    /// Transactions of the same sender are missing before this one.
    NonceGap {
        tx: u64,
        next: u64,
    },
    FeeCapBelowBaseFee {
        fee_cap_wei: u128,
        base_fee_wei: u128,
    },
    /// The process was started without execution.
    NotExecuting,
}

/// Why a transaction was not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Pool(Reject),
    /// ERC-7796: waiting is pointless.
    Condition(Impossible),
    /// The process is draining: it was told to stop.
    Draining,
    /// The chain database is so far behind that the end of this transaction might have no place to go.
    ChainBehind,
    /// Too much is not durable yet.
    JournalBehind,
    /// The journal's disk has no room for anything new.
    JournalFull,
    /// As many sealed blocks as may be wait for the execution client's verdict.
    Unchecked {
        blocks: u64,
        blocks_max: u64,
    },
    /// The execution client called a block INVALID, or has a chain of its own.
    Halted,
}

/// Answers to [`BuilderRead`], of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum BuilderAnswer {
    Account {
        nonce: u64,
        /// `nonce` plus what the pool holds without a gap: what `eth_getTransactionCount(…, "pending")` says.
        pool_nonce: u64,
        balance_wei: U256,
        /// Code of the account inside the open block; empty when it has none.
        code: Bytes,
    },
    Slot(U256),
    Transaction(Option<PooledTx>),
    /// `None`: not in the pool and not in the open block; the chain database knows what has ended.
    Status(Option<LiveStatus>),
    PoolStatus {
        ready_count: u64,
        queued_count: u64,
        bytes: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PooledTx {
    pub raw: Bytes,
    pub sender: Address,
}

/// Where a transaction that has not ended is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiveStatus {
    Ready {
        accepted_unix_ns: u64,
    },
    Queued {
        accepted_unix_ns: u64,
    },
    Conditional {
        accepted_unix_ns: u64,
    },
    /// In the open block, which is not sealed yet.
    Placed {
        block_number: u64,
        index: u32,
        accepted_unix_ns: u64,
        preconfirmed_unix_ns: u64,
    },
}

// ---- builder core → state thread → builder core ------------------------------------------------------------------------------------

/// One ring slot of `builder_state`. The answer to `Close` is a `SealedBlock` on `state_builder`.
pub enum StateMessage {
    Open(Arc<OpenBlock>),
    Close(Box<ClosedBlock>),
    /// No block is open and none will be.
    Stop,
}

// ---- builder core → chain thread ---------------------------------------------------------------------------------------------------

/// One ring slot of `builder_chain`.
pub enum ChainMessage {
    Sealed(Arc<SealedBlock>),
    /// A block that readers in memory no longer need: dropped here, not on the builder core.
    Forget(Arc<SealedBlock>),
    Ended {
        hash: B256,
        accepted_unix_ns: u64,
        ended_unix_ns: u64,
        end: EndState,
        /// Durable before the end is appended.
        gate: Sequence,
    },
    /// Sync and stop.
    Stop,
}

// ---- builder core → journal thread → builder core ------------------------------------------------------------------------------------

/// One ring slot of `builder_journal`. The buffers come back, empty, by `journal_builder`.
pub enum JournalMessage {
    /// The records of one turn.
    Records {
        /// One after the other, without checksums.
        bytes: Vec<u8>,
        /// The last of them, or of an earlier turn where there are none.
        last: Sequence,
        /// Shards that were given something to wait for.
        wake: ShardSet,
    },
    /// Write everything that was sent, then stop.
    Stop,
}

// ---- journal thread → slot maker -----------------------------------------------------------------------------------------------------

/// One ring slot of `journal_slots`. The answer to `Make` is the slot's number on `slots_journal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotMessage {
    Make { slot: u32, bytes: u64 },
    Stop,
}

// ---- ingress shard → query pool → ingress shard --------------------------------------------------------------------------------------

/// A call that is too heavy for a shard.
pub struct QueryJob {
    pub shard: ShardId,
    pub token: ReplyToken,
    pub method: crate::rpc::Method,
    /// Raw JSON of the request's `params`; empty when absent.
    pub params: Vec<u8>,
    /// Monotonic; a job found later than this is answered with a time-out error, not run.
    pub deadline_ns: u64,
}

/// One ring slot of `query_ingress`.
pub struct QueryReply {
    pub token: ReplyToken,
    /// JSON of the result.
    pub outcome: Result<Vec<u8>, RpcError>,
    /// What the answer depends on.
    pub gate: Sequence,
}

// A slot is copied twice per hand-off; what most messages do not have lies behind a box.
const _: () = assert!(size_of::<IngressMessage>() <= 256);
const _: () = assert!(size_of::<BuilderReply>() <= 144);
const _: () = assert!(size_of::<ChainMessage>() <= 144);
const _: () = assert!(size_of::<JournalMessage>() <= 128);
