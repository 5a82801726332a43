//! Every value that crosses a thread, in pipeline order. Who sends what to whom, and what happens when a ring is full: `topology.rs`.

use std::sync::{Arc, OnceLock};

use alloy_consensus::Header;
use alloy_primitives::Address;

use crate::builder::block::{BlockContext, OpenBlock, SealedBlock};
use crate::builder::block_execution::{PreparedTx, Receipt};
use crate::builder::sealing::ClosedBlock;
use crate::mempool::{AccountView, Conditions, EndState, Impossible, Reject};
use crate::primitives::{B256, Bytes, ReplyToken, Sequence, ShardId, ShardSet, Tier, TxFields, U256};
use crate::rpc::{FilterAnswer, FilterAsk, FilterId, FilterRead, Lease, Position, RpcError};
use crate::runtime::slab::TxHandle;
use crate::state::StateChanges;

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
    /// Every pooled transaction, or those of one sender.
    PoolContent {
        sender: Option<Address>,
    },
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
    /// The operator has stopped building.
    Stopped,
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
    /// The operator has halted the process.
    HaltedByOperator,
    /// More is not settled on L1 than may be: `blocks` that are not safe, or `bytes` that are not posted.
    Unsettled {
        what: &'static str,
        have: u64,
        max: u64,
    },
    /// The witness of a block that waits for L1 has no room on its disk.
    WitnessUnwritten {
        block: u64,
    },
    /// Somebody else posts with our key, or L1 holds another chain.
    SettlementHalted,
    /// The process builds no blocks, it follows L1.
    Follows,
    /// The execution client, which knows the sender's account, does not answer (`delegated`).
    ClientAway,
    /// What the client's building cannot do for us (`delegated`).
    NotDelegated(&'static str),
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
    /// What the pool knows of an account where its state is the client's; `None`: ask the client (`delegated`).
    PendingNonce(Option<u64>),
    Transaction(Option<PooledTx>),
    /// `None`: not in the pool and not in the open block; the chain database knows what has ended.
    Status(Option<LiveStatus>),
    PoolStatus {
        ready_count: u64,
        queued_count: u64,
        bytes: u64,
    },
    PoolContent(Box<PoolContent>),
    /// More than may be shown (`limits::POOL_CONTENT_TXS_MAX`, `POOL_CONTENT_BYTES_MAX`).
    PoolTooLarge {
        transactions: u64,
        bytes: u64,
    },
}

/// What the pool holds, in no useful order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolContent {
    pub entries: Vec<PoolEntry>,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolEntry {
    pub sender: Address,
    pub nonce: u64,
    /// It could be placed after those of its sender before it.
    pub is_ready: bool,
    start: u32,
    len: u32,
}

impl PoolContent {
    /// Adds a transaction, given as its EIP-2718 bytes.
    pub fn push(&mut self, sender: Address, nonce: u64, is_ready: bool, raw: &[u8]) {
        // Bounded by `POOL_CONTENT_BYTES_MAX` and one transaction more.
        let (start, len) = (self.bytes.len() as u32, raw.len() as u32);
        self.bytes.extend_from_slice(raw);
        self.entries.push(PoolEntry { sender, nonce, is_ready, start, len });
    }

    #[must_use]
    pub fn raw(&self, entry: &PoolEntry) -> &[u8] {
        &self.bytes[entry.start as usize..][..entry.len as usize]
    }

    /// Bytes of all transactions.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }
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
    /// Blocks `first` to `last` are posted, safe or final.
    Settled {
        tier: Tier,
        first: u64,
        last: u64,
        unix_ns: u64,
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
    pub input: QueryInput,
    /// Monotonic; a job found later than this is answered with a time-out error, not run.
    pub deadline_ns: u64,
}

/// What a heavy read is about beside its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueryInput {
    #[default]
    Params,
    /// What a filter's owner said.
    Filter(Box<FilterRead>),
    /// What the builder core copied out of its pool.
    Pool(Box<PoolContent>),
}

/// One ring slot of `query_ingress`.
pub struct QueryReply {
    pub token: ReplyToken,
    /// JSON of the result.
    pub outcome: Result<Vec<u8>, RpcError>,
    /// Of `eth_getFilterChanges`: where the next poll starts.
    pub told: Option<Position>,
    /// What the answer depends on.
    pub gate: Sequence,
}

// ---- builder core → the execution client's threads → builder core (`delegated`) ------------------------------------------------------

/// An account that the builder core has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountQuestion {
    pub address: Address,
    /// Number of the block after which it is asked for.
    pub head: u64,
}

/// What the execution client says of an account.
#[derive(Debug)]
pub struct AccountAnswer {
    pub address: Address,
    /// Number of the block after which it was asked for.
    pub head: u64,
    /// In words, when there is no answer.
    pub view: Result<AccountView, String>,
}

/// A block that the execution client is to build on our newest.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// What the block must say; the gas limit is the client's to choose.
    pub context: BlockContext,
    /// In order.
    pub transactions: Vec<BuildTx>,
    /// L1 has it like this: the block holds exactly these, whoever they came from, and the gas limit counts too.
    pub is_given: bool,
}

/// A block of which L1 has the beginning: nobody can go on behind that but with the rest of it, which is its end.
#[derive(Clone, Debug)]
pub struct GivenBlock {
    pub request: BuildRequest,
    /// The next nonces of those who sent its transactions.
    pub next_nonces: Vec<(Address, u64)>,
}

/// A transaction for a block.
#[derive(Clone, Debug)]
pub struct BuildTx {
    pub hash: B256,
    /// The 2718 encoding.
    pub raw: Bytes,
    pub sender: Address,
    /// In list order, `None` where the signature does not recover; empty unless type 4.
    pub authorities: Vec<Option<Address>>,
}

/// What became of a [`BuildRequest`].
#[derive(Debug)]
pub enum BuildAnswer {
    Built(Box<BuiltBlock>),
    /// The client cannot place this one; those before it can be placed.
    Refused {
        hash: B256,
        reason: String,
    },
    /// There is no block for a reason that may pass.
    Failed {
        why: String,
    },
    /// Client and validator do not agree: evidence was written, nothing more is built.
    Contradicted {
        why: String,
    },
}

/// A block that the client built and called VALID, and our validator executed over its witness.
#[derive(Debug)]
pub struct BuiltBlock {
    pub header: Header,
    pub hash: B256,
    pub transactions: Vec<BuiltTx>,
    /// One for each transaction.
    pub receipts: Vec<Receipt>,
    /// EIP-7685 requests, type byte first, empty ones left out.
    pub requests: Vec<Bytes>,
    pub changes: StateChanges,
    /// Codes that were fetched, by their hashes.
    pub codes: Vec<(B256, Bytes)>,
    /// It may hold transactions that did not come from us.
    pub has_foreign: bool,
}

/// A transaction of a built block.
#[derive(Debug)]
pub struct BuiltTx {
    pub hash: B256,
    pub tx: PreparedTx,
}

// ---- ingress shard → ingress shard ---------------------------------------------------------------------------------------------------

/// One ring slot of a shard's `neighbours`.
#[derive(Debug)]
pub enum ShardMessage {
    /// A connection of shard `from` asks about a filter of the receiver.
    Ask { from: ShardId, token: ReplyToken, id: FilterId, ask: FilterAsk },
    /// The answer, to the shard that asked.
    Answer { token: ReplyToken, answer: FilterAnswer },
    /// A lease comes back to the filter's owner.
    GiveBack { lease: Lease, told: Option<Position> },
}

// ---- builder core → query pool → builder core ----------------------------------------------------------------------------------------

/// A transaction whose witness is to be measured, were it alone on the newest root.
#[derive(Clone, Debug)]
pub struct MeasureJob {
    pub hash: B256,
    pub raw: Bytes,
    pub sender: Address,
    pub authorities: Vec<Option<Address>>,
}

/// What a query thread found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuredWitness {
    pub hash: B256,
    /// `None`: it cannot be executed on the newest root.
    pub bytes: Option<u64>,
}

// ---- admin thread → builder core -------------------------------------------------------------------------------------------------------

/// One slot of `operator`.
pub struct OperatorJob {
    pub wish: OperatorWish,
    /// Filled by the builder core, looked at by the `admin` thread.
    pub answer: Arc<OnceLock<OperatorAnswer>>,
}

/// What the operator wants of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorWish {
    DropTransaction {
        hash: B256,
    },
    /// Everything of an account that has no place yet.
    DropSender {
        address: Address,
    },
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorAnswer {
    /// So many left the pool; told when the journal is durable up to `gate`.
    Dropped { count: u32, gate: Sequence },
    /// It has its place in this block, which is not sealed yet.
    Placed { block_number: u64 },
    /// Not in the pool and not in the open block.
    Unknown,
    /// The journal cannot take it now.
    JournalBehind,
}

// A slot is copied twice per hand-off; what most messages do not have lies behind a box.
const _: () = assert!(size_of::<IngressMessage>() <= 256);
const _: () = assert!(size_of::<BuilderReply>() <= 144);
const _: () = assert!(size_of::<ChainMessage>() <= 144);
const _: () = assert!(size_of::<JournalMessage>() <= 128);
const _: () = assert!(size_of::<ShardMessage>() <= 64);
