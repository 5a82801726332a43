//! What goes into the transaction manager, what comes out, and what the journal keeps of it.

use crate::l1::block::BlockId;
use crate::primitives::{B256, U256};

/// Names a payload in the ledger of whoever owns the bytes. Strictly increasing, never used again: a batch that is encoded anew is another payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PayloadId(pub u64);

/// What the manager knows of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadFacts {
    pub id: PayloadId,
    /// Gas limit of its transaction, whatever the fees: an upper bound over all prices that can stand in the calldata.
    pub gas: u64,
    /// Bytes of its signed transaction, at most.
    pub bytes: u32,
}

/// One signature: a payload, a nonce and fees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Counts signatures, from 0, over the whole life of the journal.
    pub id: u64,
    pub payload: PayloadFacts,
    pub nonce: u64,
    pub tip_cap_wei: u128,
    pub fee_cap_wei: u128,
}

impl Attempt {
    /// The most that it can cost.
    #[must_use]
    pub fn cost_max_wei(&self) -> U256 {
        U256::from(self.payload.gas) * U256::from(self.fee_cap_wei)
    }
}

/// Journaled before the transaction is sent. The journal's record has its raw bytes, or what makes them, beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedRecord {
    pub attempt: Attempt,
    /// Hash of the signed transaction.
    pub hash: B256,
    /// Number of the finalized L1 block when it was signed: it cannot be in that block or below.
    pub above: u64,
}

/// What became of a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Our transaction, with status 1.
    Succeeded,
    /// Our transaction, with status 0.
    Failed,
    /// Somebody else's transaction: the payload is not on L1 under this nonce, and never will be.
    Taken,
}

/// Journaled when the block that used a nonce is final. From then on its payload and its signatures may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoneRecord {
    pub nonce: u64,
    /// `None` when no payload of ours had this nonce.
    pub payload: Option<PayloadId>,
    pub fate: Fate,
    /// Of the transaction that used the nonce; zero for one that is not known.
    pub hash: B256,
    /// What it cost; for a nonce that was taken, the most that our signatures could have cost.
    pub cost_wei: U256,
    /// Block that used the nonce.
    pub block: BlockId,
    /// Timestamp of that block: the hour of the spending limit is L1's.
    pub timestamp: u64,
}

/// Records of a journal, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    Signed(SignedRecord),
    Done(DoneRecord),
}

/// A transaction of type 5 that our address sent, seen in a checked block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinedTx {
    pub hash: B256,
    pub nonce: u64,
    pub success: bool,
    /// `gas used · effective gas price`.
    pub cost_wei: U256,
}

/// A checked L1 block as the manager sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockView {
    pub id: BlockId,
    pub timestamp: u64,
    pub base_fee_wei: u64,
    /// In the block's order.
    pub ours: Vec<MinedTx>,
}

/// The blocks that were fed have reached L1's head; our account there, or at a block shortly before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadView {
    /// Where nonce and balance were asked for: the newest block that was fed, or a recent one.
    pub block: BlockId,
    pub nonce: u64,
    pub nonce_pending: u64,
    /// At the final block; 0 before there is one.
    pub nonce_final: u64,
    pub balance_wei: U256,
    /// Two endpoints say so, or there is one alone.
    pub is_confirmed: bool,
    /// What endpoints suggest as priority fee.
    pub tip_wei: u128,
}

/// How sending ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// In the pool of at least one endpoint, or known there already.
    Accepted,
    /// The nonce is used: a block will tell by what.
    NonceTooLow,
    /// Below the pool's minimum, the base fee, or 110 % of what it holds for this nonce.
    Underpriced,
    InsufficientFunds,
    /// No endpoint answered.
    Away,
    Refused {
        message: String,
    },
}

/// What the manager is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A payload to post, behind all earlier ones. One that has a nonce already, or that is not above the newest, is ignored.
    Payload(PayloadFacts),
    /// Payloads from `from` to `to`, both of them too, are not wanted any more. Those that were signed are still sent until their nonces are used, because
    /// the nonces behind them depend on it; the ledger keeps their bytes until `Action::JournalDone`. Told again after a start.
    Withdraw {
        from: PayloadId,
        to: PayloadId,
    },
    /// The next block of the chain, number by number.
    Block(BlockView),
    /// Blocks above `to` are gone.
    Rewind {
        to: u64,
    },
    Finalized {
        number: u64,
    },
    Head(HeadView),
    /// Answers `Action::Sign`.
    Signed {
        attempt: u64,
        hash: B256,
    },
    /// Answers `Action::JournalSigned`: the record is durable.
    Journaled {
        attempt: u64,
    },
    /// Answers `Action::Send`.
    Sent {
        attempt: u64,
        outcome: SendOutcome,
    },
    /// Time has passed (`wake_at_ns`).
    Tick,
}

/// What the manager wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sign the payload with these terms; answer with `Event::Signed`.
    Sign(Attempt),
    /// Append to the journal; answer with `Event::Journaled` when it is durable.
    JournalSigned(SignedRecord),
    /// Send the signed bytes of this attempt; answer with `Event::Sent`.
    Send {
        attempt: u64,
        hash: B256,
    },
    /// Append to the journal; no answer. Everything of this nonce may be forgotten once it is durable.
    JournalDone(DoneRecord),
    Report(Report),
}

/// News for logs, metrics and settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Said once per change.
    Condition(Condition),
    Included {
        payload: PayloadId,
        nonce: u64,
        hash: B256,
        block: BlockId,
    },
    /// In a block with status 0: nothing new is signed until the payload is withdrawn.
    Failed {
        payload: PayloadId,
        nonce: u64,
        hash: B256,
        block: BlockId,
    },
    /// A reorganisation took it out of its block; it is sent again at the next head.
    FellOut {
        payload: PayloadId,
        nonce: u64,
    },
    /// Signed again, with higher fees.
    Bumped {
        payload: PayloadId,
        nonce: u64,
        fee_cap_wei: u128,
        tip_cap_wei: u128,
    },
    /// A transaction that is none of ours used the nonce of this payload.
    Taken {
        payload: PayloadId,
        nonce: u64,
        by: Option<B256>,
    },
    /// At the start, nonces were used that this journal does not know: `next` is where it goes on.
    Adopted {
        known: u64,
        next: u64,
    },
    SendRefused {
        payload: PayloadId,
        nonce: u64,
        message: String,
    },
}

/// Why the manager stopped for good: a person has to look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    #[error("nonce {nonce} was used by {}, which this process did not sign: another process posts with the same key", known(.by))]
    NonceTaken { nonce: u64, by: Option<B256> },
    #[error("L1 block {to} and all above are gone, and block {finalized} was final")]
    ReorgBelowFinalized { to: u64, finalized: u64 },
}

fn known(hash: &Option<B256>) -> String {
    hash.map_or_else(|| "a transaction".to_owned(), |hash| hash.to_string())
}

/// What the manager waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Blocks do not reach L1's head: nothing is signed or sent.
    Syncing,
    Ready,
    /// The account cannot pay for the next signature.
    OutOfFunds {
        needed_wei: U256,
        balance_wei: U256,
    },
    /// The next signature would break the limit of an hour.
    SpendLimit {
        needed_wei: U256,
        left_wei: U256,
    },
    /// The market's fee is above what one transaction may cost.
    FeeLimit {
        fee_cap_wei: u128,
        fee_cap_wei_max: u128,
    },
    /// A payload failed on L1 and was not withdrawn.
    PayloadFailed {
        payload: PayloadId,
    },
    /// Somebody else's transactions wait in the pool under our address, or have blocks that are not final: at the start only. A nonce above
    /// one that a reorganisation gives back would wait for ever.
    KeyInUse {
        nonce: u64,
        nonce_pending: u64,
    },
    /// One endpoint of several has named a nonce that no record explains; a second has to say so before it is believed.
    Unconfirmed {
        nonce: u64,
    },
    Halted(HaltReason),
}

/// Settings; defaults in `Settings::default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Nonces without a block, at most.
    pub in_flight_max: usize,
    /// Most that one transaction may cost: go-ethereum's RPC refuses more (`--rpc.txfeecap`).
    pub tx_cost_wei_max: U256,
    /// Most that an hour of L1 may cost; what is not final counts at its cap.
    pub hour_cost_wei_max: U256,
    pub tip_wei_min: u128,
    pub tip_wei_max: u128,
    /// Heads that a transaction waits for its block before its fees are raised.
    pub bump_after_blocks: u64,
    /// Heads after which what has no block is sent again as it is.
    pub resend_after_blocks: u64,
    /// Time until a send that reached nobody is tried again.
    pub retry_ns: u64,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub condition: Condition,
    /// First nonce that has no signature.
    pub nonce_next: Option<u64>,
    /// Payloads without a nonce.
    pub waiting: usize,
    /// Nonces without a block.
    pub in_flight: usize,
    /// Nonces in blocks that are not final.
    pub unfinalized: usize,
    pub hour_cost_wei: U256,
}
