//! From what the builder core says to what the chain database stores.

use alloy_rlp::Encodable;

use super::receipt::{encode_head, encode_log};
use super::{BlockRecord, EndState, StatusRecord, TierTimes, TxRecord};
use crate::builder::block::SealedBlock;
use crate::mempool::{EndState as PoolEnd, Invalid};
use crate::primitives::{B256, Span, U256};

const NS_PER_MS: u64 = 1_000_000;
/// Capacity that the receipts buffer keeps between blocks.
const RECEIPTS_KEPT_BYTES: usize = 8 * 1_048_576;
/// RLP of an empty list.
const EMPTY_LIST_RLP: [u8; 1] = [0xc0];

/// Reason codes of [`EndState::Dropped`] and [`EndState::Invalidated`] as the pool and the builder use them. On disk: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndReason {
    Expired = 1,
    /// `required`: the newcomer's tip in wei, `actual`: its own.
    Evicted = 2,
    /// `required`: the account's nonce, `actual`: the transaction's.
    NonceTooLow = 3,
    /// `required`: cost in wei of everything pooled, `actual`: balance in wei.
    InsufficientFunds = 4,
    SenderHasCode = 5,
    /// `required`: the block's gas limit, `actual`: the transaction's.
    GasAboveBlock = 6,
    ConditionImpossible = 7,
    Execution = 8,
    /// Of processes without a journal: they were told to stop before the transaction's turn came.
    Stopped = 9,
    /// `required`: the bytes that a witness may have, `actual`: those of the transaction's.
    WitnessTooLarge = 10,
    /// `admin_dropTransaction`, `admin_dropSender`.
    Operator = 11,
}

impl EndReason {
    /// The reason behind a stored code; `None` for a code that this version does not know.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [
            Self::Expired,
            Self::Evicted,
            Self::NonceTooLow,
            Self::InsufficientFunds,
            Self::SenderHasCode,
            Self::GasAboveBlock,
            Self::ConditionImpossible,
            Self::Execution,
            Self::Stopped,
            Self::WitnessTooLarge,
            Self::Operator,
        ]
        .into_iter()
        .find(|reason| *reason as u8 == code)
    }

    /// What a client reads.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Evicted => "evicted from a full pool",
            Self::NonceTooLow => "nonce too low",
            Self::InsufficientFunds => "insufficient funds for gas * price + value",
            Self::SenderHasCode => "sender has code (EIP-3607)",
            Self::GasAboveBlock => "gas limit above the block's",
            Self::ConditionImpossible => "condition can no longer be met",
            Self::Execution => "invalid at its place in the block",
            Self::Stopped => "the process stopped before its turn came",
            Self::WitnessTooLarge => "settlement witness too large",
            Self::Operator => "dropped by the operator",
        }
    }
}

/// Buffers for one block after the other.
#[derive(Default)]
pub struct Recorder {
    header: Vec<u8>,
    requests: Vec<u8>,
    receipts: Vec<u8>,
    txs: Vec<TxRecord>,
    statuses: Vec<StatusRecord>,
}

impl Recorder {
    /// The block's record and the end states of its transactions.
    pub fn record<'a>(&'a mut self, sealed: &'a SealedBlock) -> (BlockRecord<'a>, &'a [StatusRecord]) {
        let block = &sealed.block;
        self.header.clear();
        sealed.header.encode(&mut self.header);
        self.requests.clear();
        if !sealed.requests.is_empty() {
            sealed.requests.encode(&mut self.requests);
        }
        self.receipts.clear();
        self.receipts.shrink_to(RECEIPTS_KEPT_BYTES);
        self.txs.clear();
        self.statuses.clear();
        for tx in block.transactions.iter() {
            let start = self.receipts.len();
            encode_head(
                tx.tx_type,
                tx.success,
                tx.cumulative_gas_used,
                tx.gas_used,
                tx.contract_address.as_ref(),
                u64::from(tx.logs.len),
                &mut self.receipts,
            );
            for log in block.logs_of(tx) {
                encode_log(&log.address, log.topics().iter(), &log.data.data, &mut self.receipts);
            }
            let receipt_span = Span { start: start as u32, len: (self.receipts.len() - start) as u32 };
            self.txs.push(TxRecord { hash: tx.hash, sender: tx.sender, body_span: tx.item, receipt_span });
            self.statuses.push(StatusRecord {
                hash: tx.hash,
                end: EndState::Included,
                times: TierTimes {
                    accepted_unix_ms: tx.accepted_unix_ns / NS_PER_MS,
                    preconfirmed_unix_ms: Some(tx.preconfirmed_unix_ns / NS_PER_MS),
                    ended_unix_ms: Some(sealed.sealed_unix_ns / NS_PER_MS),
                    ..TierTimes::default()
                },
            });
        }
        let record = BlockRecord {
            number: sealed.header.number,
            hash: sealed.hash,
            header_rlp: &self.header,
            body: block.body(),
            withdrawals_rlp: &EMPTY_LIST_RLP,
            requests_rlp: &self.requests,
            txs: &self.txs,
            receipts: &self.receipts,
        };
        (record, &self.statuses)
    }
}

/// The status of a transaction that ended without a place.
#[must_use]
pub fn ended_record(hash: B256, accepted_unix_ns: u64, ended_unix_ns: u64, end: &PoolEnd) -> StatusRecord {
    StatusRecord {
        hash,
        end: stored_end(end),
        times: TierTimes {
            accepted_unix_ms: accepted_unix_ns / NS_PER_MS,
            ended_unix_ms: Some(ended_unix_ns / NS_PER_MS),
            ..TierTimes::default()
        },
    }
}

/// How a pooled transaction ended, as it is kept.
#[must_use]
pub fn stored_end(end: &PoolEnd) -> EndState {
    let dropped = |reason: EndReason| EndState::Dropped { reason: reason as u8 };
    let invalidated = |reason: EndReason, required: U256, actual: U256| EndState::Invalidated {
        reason: reason as u8,
        required,
        actual,
    };
    match *end {
        PoolEnd::Placed => EndState::Included,
        PoolEnd::Replaced { by } => EndState::Replaced { by },
        PoolEnd::Expired { .. } => dropped(EndReason::Expired),
        PoolEnd::DroppedByOperator => dropped(EndReason::Operator),
        PoolEnd::Evicted { tip_wei, newcomer_tip_wei } => {
            invalidated(EndReason::Evicted, U256::from(newcomer_tip_wei), U256::from(tip_wei))
        }
        PoolEnd::Invalidated(Invalid::NonceTooLow { tx, account }) => {
            invalidated(EndReason::NonceTooLow, U256::from(account), U256::from(tx))
        }
        PoolEnd::Invalidated(Invalid::InsufficientFunds { cost_wei, balance_wei }) => {
            invalidated(EndReason::InsufficientFunds, cost_wei, balance_wei)
        }
        PoolEnd::Invalidated(Invalid::GasAboveBlock { tx, block }) => {
            invalidated(EndReason::GasAboveBlock, U256::from(block), U256::from(tx))
        }
        PoolEnd::Invalidated(Invalid::Witness { bytes, bytes_max }) => {
            invalidated(EndReason::WitnessTooLarge, U256::from(bytes_max), U256::from(bytes))
        }
        PoolEnd::Invalidated(Invalid::SenderHasCode { .. }) => dropped(EndReason::SenderHasCode),
        PoolEnd::Invalidated(Invalid::Condition(_)) => dropped(EndReason::ConditionImpossible),
        PoolEnd::Invalidated(Invalid::Execution(_)) | PoolEnd::Rejected(_) => dropped(EndReason::Execution),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_code_reads_back() {
        for code in 1..=11 {
            assert_eq!(EndReason::from_code(code).expect("known") as u8, code);
        }
        assert_eq!(EndReason::from_code(0), None);
        assert_eq!(EndReason::from_code(12), None);
    }
}
