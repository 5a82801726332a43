//! What can be asked about settlement: one picture, replaced as a whole by the `l1` thread.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::l1::block::BlockId;
use crate::primitives::B256;

/// Batches that can be asked for by a block's number.
const BATCHES_MAX: usize = 8_192;
/// Skips that are shown with their reasons; all are counted.
const SKIPS_MAX: usize = 32;

/// How settlement stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is no L1.
    Off,
    /// L1 was not derived to its head yet.
    Syncing,
    Ready,
    /// L1 does not answer.
    Away,
    /// Nothing is signed or sent for now.
    Waiting,
    /// A person has to look.
    Halted,
}

impl Condition {
    /// The word that `sequencer_settlementStatus` uses.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Syncing => "syncing",
            Self::Ready => "ready",
            Self::Away => "away",
            Self::Waiting => "waiting",
            Self::Halted => "halted",
        }
    }
}

/// A batch that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    pub index: u64,
    pub digest: B256,
    /// Blocks of which it holds a part.
    pub first_block: u64,
    pub last_block: u64,
    pub tx_hash: B256,
    pub l1: BlockId,
}

/// An ExecuteTx that does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    pub tx_hash: B256,
    pub l1: BlockId,
    pub reason: &'static str,
    pub what: String,
}

/// One moment of settlement.
#[derive(Clone, Debug)]
pub struct SettlementStatus {
    pub condition: Condition,
    /// What is wrong; empty when nothing is.
    pub why: String,
    pub l1_head: BlockId,
    /// Newest L1 block whose batches are decided.
    pub l1_derived: BlockId,
    pub l1_finalized: u64,
    /// The L1 block that new blocks stand on.
    pub l1_origin: BlockId,
    pub unsafe_block: BlockId,
    pub safe: BlockId,
    /// Origin of the safe block.
    pub safe_origin: BlockId,
    pub finalized: BlockId,
    pub batch_next: u64,
    /// Newest block of which all was sent to L1.
    pub posted_block: u64,
    pub backlog_blocks: u64,
    pub backlog_bytes: u64,
    /// ExecuteTx sent that have no block, and that are in blocks that are not final.
    pub in_flight: u64,
    pub unfinalized: u64,
    pub hour_cost_wei: crate::primitives::U256,
    /// Shared with the pictures that were shown: copied when one more counts, not each time that one is shown.
    pub batches: Arc<VecDeque<BatchPlace>>,
    pub skips: VecDeque<Skip>,
    /// By reason, in the order of their numbers.
    pub skip_counts: Vec<(&'static str, u64)>,
}

impl Default for SettlementStatus {
    fn default() -> Self {
        let none = BlockId::default();
        Self {
            condition: Condition::Off,
            why: String::new(),
            l1_head: none,
            l1_derived: none,
            l1_finalized: 0,
            l1_origin: none,
            unsafe_block: none,
            safe: none,
            safe_origin: none,
            finalized: none,
            batch_next: 0,
            posted_block: 0,
            backlog_blocks: 0,
            backlog_bytes: 0,
            in_flight: 0,
            unfinalized: 0,
            hour_cost_wei: crate::primitives::U256::ZERO,
            batches: Arc::default(),
            skips: VecDeque::new(),
            skip_counts: Vec::new(),
        }
    }
}

impl SettlementStatus {
    /// As it is, with why cuts wait for the execution client, where nothing else is wrong.
    #[must_use]
    pub fn waiting_for_client(mut self, why: Option<Arc<String>>) -> Self {
        if let Some(why) = why.filter(|_| self.condition == Condition::Ready && self.why.is_empty()) {
            (self.condition, self.why) = (Condition::Waiting, why.to_string());
        }
        self
    }

    /// A batch was derived.
    pub fn accepted(&mut self, batch: BatchPlace) {
        let batches = Arc::make_mut(&mut self.batches);
        if batches.len() == BATCHES_MAX {
            batches.pop_front();
        }
        batches.push_back(batch);
    }

    pub fn skipped(&mut self, skip: Skip) {
        match self.skip_counts.iter_mut().find(|(name, _)| *name == skip.reason) {
            Some((_, count)) => *count += 1,
            None => self.skip_counts.push((skip.reason, 1)),
        }
        if self.skips.len() == SKIPS_MAX {
            self.skips.pop_front();
        }
        self.skips.push_back(skip);
    }

    /// L1 blocks above `to` are gone.
    pub fn rewound(&mut self, to: u64) {
        Arc::make_mut(&mut self.batches).retain(|batch| batch.l1.number <= to);
        self.skips.retain(|skip| skip.l1.number <= to);
    }

    /// The batch that holds the end of a block, as far back as batches are remembered.
    #[must_use]
    pub fn batch_of(&self, block: u64) -> Option<&BatchPlace> {
        let at = self.batches.partition_point(|batch| batch.last_block < block);
        self.batches.get(at).filter(|batch| batch.first_block <= block)
    }

    /// The result of `sequencer_settlementStatus`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let skips: Vec<Value> = self.skips.iter().map(skip_json).collect();
        let counts: serde_json::Map<String, Value> =
            self.skip_counts.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
        json!({
            "condition": self.condition.name(),
            "why": self.why,
            "l1": {
                "head": block_json(self.l1_head),
                "derived": block_json(self.l1_derived),
                "finalized": hex(self.l1_finalized),
                "origin": block_json(self.l1_origin),
            },
            "unsafe": block_json(self.unsafe_block),
            "safe": block_json(self.safe),
            "finalized": block_json(self.finalized),
            "batchNext": hex(self.batch_next),
            "postedBlock": hex(self.posted_block),
            "backlog": { "blocks": hex(self.backlog_blocks), "bytes": hex(self.backlog_bytes) },
            "transactions": { "inFlight": hex(self.in_flight), "unfinalized": hex(self.unfinalized) },
            "hourCost": format!("{:#x}", self.hour_cost_wei),
            "skipCounts": counts,
            "skips": skips,
        })
    }

    /// The result of `sequencer_getBatchByBlock`.
    #[must_use]
    pub fn batch_json(&self, block: u64) -> Value {
        let Some(batch) = self.batch_of(block) else { return Value::Null };
        json!({
            "index": hex(batch.index),
            "digest": batch.digest,
            "firstBlock": hex(batch.first_block),
            "lastBlock": hex(batch.last_block),
            "transactionHash": batch.tx_hash,
            "l1BlockNumber": hex(batch.l1.number),
            "l1BlockHash": batch.l1.hash,
            "state": if batch.l1.number <= self.l1_finalized { "finalized" } else { "safe" },
        })
    }

    /// The result of `optimism_syncStatus`: the members that op-node's has, with what exists here.
    #[must_use]
    pub fn sync_json(&self, block: impl Fn(BlockId, BlockId) -> Value) -> Value {
        let l1 = |id: BlockId| json!({ "hash": id.hash, "number": id.number });
        let finalized_l1 = BlockId { number: self.l1_finalized, hash: B256::ZERO };
        json!({
            "current_l1": l1(self.l1_derived),
            "head_l1": l1(self.l1_head),
            "safe_l1": l1(self.l1_derived),
            "finalized_l1": l1(finalized_l1),
            "unsafe_l2": block(self.unsafe_block, self.l1_origin),
            "safe_l2": block(self.safe, self.safe_origin),
            "finalized_l2": block(self.finalized, BlockId::default()),
        })
    }
}

fn skip_json(skip: &Skip) -> Value {
    json!({
        "transactionHash": skip.tx_hash,
        "l1BlockNumber": hex(skip.l1.number),
        "reason": skip.reason,
        "what": skip.what,
    })
}

fn block_json(id: BlockId) -> Value {
    json!({ "number": hex(id.number), "hash": id.hash })
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(index: u64, first_block: u64, last_block: u64) -> BatchPlace {
        let l1 = BlockId { number: 100 + index, hash: B256::ZERO };
        BatchPlace { index, digest: B256::ZERO, first_block, last_block, tx_hash: B256::ZERO, l1 }
    }

    /// Block 4 has parts in three batches; the last of them has its end.
    #[test]
    fn a_block_is_found_in_the_batch_that_ends_it() {
        let mut status = SettlementStatus::default();
        for place in [batch(0, 1, 3), batch(1, 4, 4), batch(2, 4, 4), batch(3, 4, 6)] {
            status.accepted(place);
        }
        let index = |status: &SettlementStatus, block| status.batch_of(block).map(|batch| batch.index);
        assert_eq!([0, 1, 3, 6, 7].map(|block| index(&status, block)), [None, Some(0), Some(0), Some(3), None]);
        status.rewound(102);
        assert_eq!([3, 6].map(|block| index(&status, block)), [Some(0), None]);
    }
}
