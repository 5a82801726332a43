//! Which ExecuteTx on L1 count: the L2 chain that everybody derives who has the genesis and L1.
//!
//! ```text
//!  checked L1 blocks ─► Derivation ─► Check ─► strict re-execution (elsewhere)
//!                            ▲                        │ checked
//!                            └────────────────────────┘
//!                            └─► Accepted, Skipped, Derived, Rewound, Finalized
//! ```
//!
//! Pure: `step(input) → actions`; it reads no clock. ExecuteTx are judged in the order of L1, one at a time, by the rules that
//! [`skip`] lists; one that does not count is never buffered, the first of duplicates counts, a batch with one invalid block is skipped whole. While a
//! check is under way, blocks wait; the caller feeds none while [`Derivation::is_full`]. What an L1 reorganisation needs is kept down to the
//! final block. An origin is the L1 block that an L2 block stands on. Deliberately absent: the formats ([`Formats`]), execution, threads.

pub mod skip;

pub mod types;

pub mod origins;

use std::collections::VecDeque;

use crate::crypto::keccak::keccak256;
use crate::l1::block::{BlockId, CheckedBlock};
use crate::primitives::{Address, Bytes};

use self::origins::{OriginBlock, OriginWindow, Origins};
use self::skip::SkipReason;
use self::types::{
    Accepted, Action, BatchHeader, Check, CheckId, DerivationError, Formats, Place, Rules, Skipped, Tip, TxFacts,
    ValidBatch,
};

#[cfg(test)]
mod tests;

/// Blocks that wait behind a check, at most as many as the caller respects.
const WAITING_BLOCKS_MAX: usize = 64;

/// A block whose transactions are not all decided.
#[derive(Clone, Debug)]
struct WaitingBlock {
    origin: OriginBlock,
    txs: VecDeque<WaitingTx>,
}

#[derive(Clone, Debug)]
struct WaitingTx {
    position: u32,
    raw: Bytes,
    success: bool,
}

/// Where the derived chain stood behind an L1 block that changed it.
#[derive(Clone, Debug)]
struct Stand<K> {
    l1: u64,
    tip: Tip<K>,
}

/// A question without its answer.
#[derive(Debug)]
struct Asked<K> {
    id: CheckId,
    place: Place,
    sender: Address,
    index: u64,
    tip: Tip<K>,
    origins: OriginWindow,
}

/// See the module's text. `K` is what one check hands to the next.
#[derive(Debug)]
pub struct Derivation<F, K> {
    rules: Rules,
    formats: F,
    /// Decided and waiting blocks; its newest is the newest block that was fed.
    origins: Origins,
    waiting: VecDeque<WaitingBlock>,
    /// Stands down to the final one. Never empty; the first is final.
    stands: VecDeque<Stand<K>>,
    l1_finalized: u64,
    /// The newest final block of which everything is decided.
    settled: u64,
    /// The question that is out.
    asked: Option<Asked<K>>,
    checks: u64,
}

/// What a restart needs beside the rules: where the chain stood at a final L1 block.
#[derive(Clone, Debug)]
pub struct Checkpoint<K> {
    /// The L1 blocks up to the final one, oldest first: as many as origins may name. Never empty.
    pub l1: Vec<OriginBlock>,
    pub tip: Tip<K>,
}

impl<F: Formats, K> Derivation<F, K> {
    /// Begins behind the genesis's `l1Start` (`start` has its mix hash), with the genesis block as the tip.
    #[must_use]
    pub fn new(rules: Rules, formats: F, start: OriginBlock, tip: Tip<K>) -> Self {
        Self::at(rules, formats, Origins::new(start), tip)
    }

    /// Goes on behind a checkpoint.
    ///
    /// # Panics
    /// When the checkpoint has no L1 block, or not one number after the other.
    #[must_use]
    pub fn resume(rules: Rules, formats: F, checkpoint: Checkpoint<K>) -> Self {
        let mut blocks = checkpoint.l1.into_iter();
        let mut origins = Origins::new(blocks.next().expect("a checkpoint has the final L1 block"));
        blocks.for_each(|block| origins.push(block));
        Self::at(rules, formats, origins, checkpoint.tip)
    }

    fn at(rules: Rules, formats: F, origins: Origins, tip: Tip<K>) -> Self {
        let l1_finalized = origins.newest().number;
        Self {
            rules,
            formats,
            origins,
            waiting: VecDeque::new(),
            stands: [Stand { l1: l1_finalized, tip }].into(),
            l1_finalized,
            settled: l1_finalized,
            asked: None,
            checks: 0,
        }
    }

    /// The newest L1 block that was fed; the next one must follow it.
    #[must_use]
    pub fn l1_head(&self) -> BlockId {
        self.origins.newest().id()
    }

    /// The newest L1 block of which everything is decided.
    #[must_use]
    pub fn l1_derived(&self) -> BlockId {
        let number = self.waiting.front().map_or(self.l1_head().number, |block| block.origin.number - 1);
        self.origins.get(number).map_or(self.l1_head(), |block| block.id())
    }

    #[must_use]
    pub fn l1_finalized(&self) -> u64 {
        self.l1_finalized
    }

    /// The newest final L1 block of which, and below which, everything is decided.
    #[must_use]
    pub fn l1_settled(&self) -> u64 {
        self.settled
    }

    #[must_use]
    pub fn tip(&self) -> &Tip<K> {
        &self.stands[self.stands.len() - 1].tip
    }

    /// The canonical L1 block of this number, as far as origins may go back.
    #[must_use]
    pub fn l1_block(&self, number: u64) -> Option<OriginBlock> {
        self.origins.get(number)
    }

    /// Whether no block should be fed before a check is answered.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_BLOCKS_MAX
    }

    /// Where the chain stood behind the newest final L1 block of which everything is decided.
    #[must_use]
    pub fn final_tip(&self) -> &Tip<K> {
        &self.stands[0].tip
    }

    /// What a restart needs to go on from the final L1 block.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint<K> {
        let l1 = self.origins.iter().take_while(|block| block.number <= self.settled).copied().collect();
        Checkpoint { l1, tip: self.stands[0].tip.clone() }
    }

    /// The next L1 block.
    ///
    /// # Errors
    /// `OutOfOrder` when it does not follow [`Derivation::l1_head`].
    pub fn block(&mut self, block: &CheckedBlock, actions: &mut Vec<Action<K>>) -> Result<(), DerivationError> {
        let (expected, got) = (self.l1_head(), block.id());
        if expected.number + 1 != got.number || block.header.parent_hash != expected.hash {
            return Err(DerivationError::OutOfOrder { expected, got });
        }
        let origin = OriginBlock::of(&block.header);
        self.origins.push(origin);
        let txs = block.execute_txs().map(|(position, raw, receipt)| WaitingTx {
            position,
            raw: raw.clone(),
            success: receipt.success,
        });
        self.waiting.push_back(WaitingBlock { origin, txs: txs.collect() });
        self.go_on(actions);
        Ok(())
    }

    /// L1 blocks above `to` are gone.
    ///
    /// # Errors
    /// `ReorgBelowFinalized`.
    pub fn rewind(&mut self, to: u64, actions: &mut Vec<Action<K>>) -> Result<(), DerivationError> {
        if to < self.l1_finalized {
            return Err(DerivationError::ReorgBelowFinalized { to, finalized: self.l1_finalized });
        }
        if to >= self.l1_head().number {
            return Ok(());
        }
        self.origins.rewind(to);
        self.waiting.retain(|block| block.origin.number <= to);
        while self.stands.len() > 1 && self.stands[self.stands.len() - 1].l1 > to {
            self.stands.pop_back();
        }
        if self.asked.as_ref().is_some_and(|asked| asked.place.block.number > to) {
            self.asked = None;
        }
        actions.push(Action::Rewound { to, tip: self.tip().block });
        self.go_on(actions);
        Ok(())
    }

    /// L1 blocks up to `number` are final.
    ///
    /// # Errors
    /// `FinalizedAhead` when that block was not fed.
    pub fn finalized(&mut self, number: u64, actions: &mut Vec<Action<K>>) -> Result<(), DerivationError> {
        let newest = self.l1_head().number;
        if number > newest {
            return Err(DerivationError::FinalizedAhead { number, newest });
        }
        self.l1_finalized = self.l1_finalized.max(number);
        self.settle_finality(actions);
        Ok(())
    }

    /// Forgets what only a reorganisation below the final block would need.
    fn settle_finality(&mut self, actions: &mut Vec<Action<K>>) {
        // What is not decided yet is not final here, whatever L1 says of its block.
        let number = self.l1_finalized.min(self.l1_derived().number);
        if number <= self.settled {
            return;
        }
        self.settled = number;
        while self.stands.len() > 1 && self.stands[1].l1 <= number {
            self.stands.pop_front();
        }
        actions.push(Action::Finalized { l1: number, tip: self.stands[0].tip.block });
    }

    /// Answers a [`Check`]: what the batch proves, or why it does not count. Late answers are ignored.
    pub fn checked(&mut self, id: CheckId, result: Result<ValidBatch<K>, SkipReason>, actions: &mut Vec<Action<K>>) {
        let Some(asked) = self.asked.take_if(|asked| asked.id == id) else { return };
        // The job has asked the same; whoever wrote it may have forgotten.
        let result = result.and_then(|batch| {
            asked.origins.judge_all(asked.tip.origin, &batch.origins)?;
            Ok(batch)
        });
        match result {
            Ok(batch) => self.accept(&asked, batch, actions),
            Err(reason) => {
                let Asked { place, sender, .. } = asked;
                actions.push(Action::Skipped(Skipped { place, sender: Some(sender), reason }));
            }
        }
        self.go_on(actions);
    }

    fn accept(&mut self, asked: &Asked<K>, batch: ValidBatch<K>, actions: &mut Vec<Action<K>>) {
        let before = &asked.tip;
        let tip = Tip {
            next_index: before.next_index + 1,
            digest: batch.digest,
            state_root: batch.post_state,
            block: batch.blocks.last().map_or(before.block, |block| block.id),
            is_open: batch.is_open,
            origin: batch.origins.last().map_or(before.origin, |claimed| claimed.origin.number),
            carry: batch.carry,
        };
        let l1 = asked.place.block.number;
        // Batches of one L1 block come and go together.
        if self.stands.len() > 1 && self.stands[self.stands.len() - 1].l1 == l1 {
            self.stands.pop_back();
        }
        self.stands.push_back(Stand { l1, tip });
        actions.push(Action::Accepted(Accepted {
            place: asked.place,
            index: asked.index,
            digest: batch.digest,
            blocks: batch.blocks,
            is_open: batch.is_open,
        }));
    }

    /// Decides what can be decided without an answer.
    fn go_on(&mut self, actions: &mut Vec<Action<K>>) {
        while self.asked.is_none() {
            let Some(block) = self.waiting.front_mut() else { break };
            let l1 = block.origin.id();
            let Some(tx) = block.txs.pop_front() else {
                self.waiting.pop_front();
                actions.push(Action::Derived { l1 });
                continue;
            };
            let place = Place { block: l1, position: tx.position, hash: keccak256(&tx.raw) };
            let facts = match self.formats.transaction(&tx.raw) {
                Ok(facts) => facts,
                Err(reason) => {
                    actions.push(Action::Skipped(Skipped { place, sender: None, reason }));
                    continue;
                }
            };
            let sender = facts.sender;
            match self.judge(l1.number, &tx, facts) {
                Err(reason) => actions.push(Action::Skipped(Skipped { place, sender: Some(sender), reason })),
                Ok(header) => {
                    let id = CheckId(self.checks);
                    self.checks += 1;
                    let (tip, origins) = (self.tip().clone(), self.origins.window(l1.number));
                    let index = header.index;
                    self.asked = Some(Asked { id, place, sender, index, tip: tip.clone(), origins: origins.clone() });
                    actions.push(Action::Check(Box::new(Check { id, place, raw: tx.raw, header, tip, origins })));
                }
            }
        }
        self.settle_finality(actions);
    }

    /// The cheap rules, in the order of their numbers.
    fn judge(&self, l1: u64, tx: &WaitingTx, facts: TxFacts) -> Result<BatchHeader, SkipReason> {
        let expected = self.rules.l1_chain_id;
        if facts.chain_id != Some(expected) {
            let found = facts.chain_id.map_or_else(|| "above 2^64".to_owned(), |id| id.to_string());
            return Err(SkipReason::WrongChainId { expected, found });
        }
        let sender = facts.sender;
        let mut terms = self.rules.batchers.iter().filter(|batcher| batcher.address == sender);
        let from = terms.by_ref().map(|batcher| batcher.from_l1_block).min();
        let from = from.ok_or(SkipReason::NotABatcher { sender })?;
        if l1 < from {
            return Err(SkipReason::BatcherTooEarly { sender, from, block: l1 });
        }
        if !tx.success {
            return Err(SkipReason::FailedOnL1);
        }
        if let Some(to) = facts.to {
            return Err(SkipReason::HasTarget { to });
        }
        if facts.has_value {
            return Err(SkipReason::HasValue);
        }
        let header = self.formats.batch_header(&tx.raw).map_err(|what| SkipReason::BadBatch { what })?;
        let tip = self.tip();
        if header.index != tip.next_index {
            return Err(SkipReason::IndexNotNext { expected: tip.next_index, found: header.index });
        }
        if header.previous_digest != tip.digest {
            return Err(SkipReason::OtherPredecessor { expected: tip.digest, found: header.previous_digest });
        }
        if facts.pre_state != tip.state_root {
            return Err(SkipReason::OtherPreState { expected: tip.state_root, found: facts.pre_state });
        }
        // An open block has the number after the newest whole one, as a new one would have.
        let expected = tip.block.number + 1;
        if header.first_block != expected {
            return Err(SkipReason::OtherFirstBlock { expected, found: header.first_block });
        }
        Ok(header)
    }
}
