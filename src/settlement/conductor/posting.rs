//! From sealed blocks to transactions on L1: packer and transaction manager, and which batches are still wanted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Action;
use crate::derivation::types::Tip as DerivedTip;
use crate::l1::block::CheckedBlock;
use crate::l1::execute_tx::Signature;
use crate::l1::profile::Profile;
use crate::l1::tx_manager::TxManager;
use crate::l1::tx_manager::types::{
    Action as TxAction, Condition as TxCondition, Event as TxEvent, Fate, HeadView, PayloadFacts, PayloadId, Report,
    SendOutcome,
};
use crate::l1::tx_manager::view::block_view;
use crate::primitives::{Address, B256, U256};
use crate::settlement::ledger::{Entry, Ledger, SignedEntry, StoredBatch};
use crate::settlement::packer::{Event as PackerEvent, PackedBatch, Packer, PackerSettings, Position, Start};
use crate::settlement::segment::Segment;
use crate::settlement::status::{Condition, SettlementStatus};
use crate::settlement::strict;

/// Batches without a nonce before packing waits.
const WAITING_MAX: usize = 2;

/// What stays the same while the process runs.
#[derive(Clone, Debug)]
pub struct PostingSettings {
    pub packer: PackerSettings,
    pub profile: Profile,
    /// Of L1.
    pub chain_id: U256,
    /// Of who posts.
    pub address: Address,
}

/// A batch that is still wanted, without its bytes.
#[derive(Clone, Debug)]
struct Wanted {
    id: PayloadId,
    index: u64,
    digest: B256,
    previous_digest: B256,
    begin_root: B256,
    /// Newest block of which it holds a part.
    last_block: u64,
    next: Position,
    is_signed: bool,
}

impl Wanted {
    /// Newest block that ends in it or before it.
    fn whole_block(&self) -> u64 {
        self.next.block_number - 1
    }
}

/// See the module's text.
pub struct Posting {
    settings: PostingSettings,
    manager: TxManager,
    manager_actions: Vec<TxAction>,
    /// `None` until L1 was derived to its head.
    packer: Option<Packer>,
    wanted: VecDeque<Wanted>,
    /// Where derivation stands.
    tip: Option<Start>,
    /// On their way into the ledger.
    signatures: BTreeMap<u64, Signature>,
    /// Asked to be signed, and not known to be sent.
    attempts: BTreeMap<u64, PayloadId>,
    next_id: PayloadId,
    /// A cut was asked for, and its block; `is_stale`: its segments are not wanted any more.
    cutting: Option<u64>,
    is_stale: bool,
    /// Batches that failed since they were last looked at.
    failed: BTreeSet<PayloadId>,
    condition: TxCondition,
    posted_block: u64,
    /// The operator wants nothing new to be packed or signed.
    is_paused: bool,
    /// Newest block that the operator wants to be sent, however small its batch.
    flush_to: Option<u64>,
}

impl Posting {
    /// Takes up what the ledger says.
    #[must_use]
    pub fn new(settings: PostingSettings, manager: TxManager, ledger: &Ledger) -> Self {
        let (mut manager, mut manager_actions) = (manager, Vec::new());
        // Its records do not say so: what was withdrawn is sent until its nonce is used, and may fail.
        for id in ledger.withdrawn() {
            manager.step(TxEvent::Withdraw { from: id, to: id }, 0, &mut manager_actions);
        }
        Self {
            wanted: ledger.wanted().map(|batch| wanted_of(batch, ledger.is_signed(batch.facts.id))).collect(),
            manager,
            settings,
            manager_actions,
            packer: None,
            tip: None,
            signatures: BTreeMap::new(),
            attempts: BTreeMap::new(),
            next_id: ledger.next_id(),
            cutting: None,
            is_stale: false,
            failed: BTreeSet::new(),
            condition: TxCondition::Syncing,
            posted_block: 0,
            is_paused: false,
            flush_to: None,
        }
    }

    pub fn wake_at_ns(&self) -> Option<u64> {
        let packer = self.packer.as_ref().and_then(Packer::deadline_ns);
        self.manager.wake_at_ns().into_iter().chain(packer).min()
    }

    /// Newest block of which all was sent.
    pub fn posted_block(&self) -> u64 {
        self.posted_block
    }

    /// Newest block of which all is in batches.
    pub fn packed_block(&self) -> u64 {
        let derived = self.tip.map_or(0, |tip| tip.position.block_number.saturating_sub(1));
        self.wanted.back().map_or(derived, |batch| batch.whole_block().max(derived))
    }

    // --- what the operator says ---

    pub fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
        self.manager.set_paused(is_paused);
    }

    /// Closes the batch that holds the end of block `to`, as soon as it does.
    pub fn flush(&mut self, to: u64) {
        self.flush_to = Some(to);
    }

    // --- what L1 says ---

    pub fn l1_block(&mut self, block: &CheckedBlock, now_ns: u64) {
        let view = block_view(block, self.settings.address, self.settings.profile);
        self.tell(TxEvent::Block(view), now_ns);
    }

    pub fn l1_rewound(&mut self, to: u64, now_ns: u64) {
        self.tell(TxEvent::Rewind { to }, now_ns);
    }

    pub fn l1_finalized(&mut self, number: u64, now_ns: u64) {
        self.tell(TxEvent::Finalized { number }, now_ns);
    }

    pub fn head(&mut self, account: HeadView, now_ns: u64) {
        self.tell(TxEvent::Head(account), now_ns);
    }

    fn tell(&mut self, event: TxEvent, now_ns: u64) {
        self.manager.step(event, now_ns, &mut self.manager_actions);
    }

    // --- which batches are wanted ---

    /// L1 was derived to its head for the first time: what is wanted goes to the transaction manager, packing begins behind it.
    pub fn begin(&mut self, tip: &DerivedTip<strict::Tip>, ledger: &Ledger, actions: &mut Vec<Action>) {
        let start = tip.carry.start();
        self.posted_block = self.posted_block.max(start.position.block_number.saturating_sub(1));
        self.packer = Some(Packer::new(self.settings.packer, start));
        self.go_on_from(start, actions);
        for batch in &self.wanted {
            if let Some(stored) = ledger.batch(batch.id) {
                self.manager.step(TxEvent::Payload(stored.facts), 0, &mut self.manager_actions);
            }
        }
    }

    /// Derivation has moved: what no longer follows it is not wanted. Before [`Posting::begin`] it has not come to where we were.
    pub fn reconcile(&mut self, tip: &DerivedTip<strict::Tip>, actions: &mut Vec<Action>) {
        self.go_on_from(tip.carry.start(), actions);
    }

    fn go_on_from(&mut self, start: Start, actions: &mut Vec<Action>) {
        self.tip = Some(start);
        if self.packer.is_none() {
            return;
        }
        let mut expected = (start.next_index, start.previous_digest, start.position.state_root);
        let mut dead = None;
        for batch in &self.wanted {
            if batch.index < start.next_index {
                // It counts, or another one of its index does. What was signed stays with its nonce.
                if !batch.is_signed {
                    dead = Some(batch.id);
                    break;
                }
                continue;
            }
            if (batch.index, batch.previous_digest, batch.begin_root) != expected {
                dead = Some(batch.id);
                break;
            }
            expected = (batch.index + 1, batch.digest, batch.next.state_root);
        }
        match dead {
            Some(from) => self.withdraw(from, actions),
            None => self.restart_if_moved(),
        }
    }

    /// A batch of ours does not count. What follows it is made anew as well, unless another batch of its index counts: then it goes on from that one.
    pub fn abandon(&mut self, batch: PayloadId, actions: &mut Vec<Action>) {
        if self.wanted.iter().any(|wanted| wanted.id == batch) {
            tracing::warn!(batch = batch.0, "a batch is made anew, unless another of its index counts");
            actions.push(Action::Append(vec![Entry::WithdrawnOne { id: batch }]));
            self.wanted.retain(|wanted| wanted.id != batch);
            self.manager.step(TxEvent::Withdraw { from: batch, to: batch }, 0, &mut self.manager_actions);
            if let Some(tip) = self.tip {
                self.go_on_from(tip, actions);
            }
        }
    }

    /// Blocks above `to` were taken back: batches that hold a part of them are not wanted, nor is what was cut of them.
    pub fn give_way(&mut self, to: u64, actions: &mut Vec<Action>) {
        if let Some(first) = self.wanted.iter().find(|batch| batch.last_block > to) {
            self.withdraw(first.id, actions);
        }
        if let (Some(packer), Some(tip)) = (&self.packer, self.tip)
            && packer.expected().block_number > to
        {
            self.restart(self.end(&tip));
        }
    }

    fn withdraw(&mut self, from: PayloadId, actions: &mut Vec<Action>) {
        let to = PayloadId(self.next_id.0.saturating_sub(1));
        tracing::warn!(from = from.0, to = to.0, "batches are made anew");
        actions.push(Action::Append(vec![Entry::Withdrawn { from }]));
        self.wanted.retain(|wanted| wanted.id < from);
        self.manager.step(TxEvent::Withdraw { from, to }, 0, &mut self.manager_actions);
        self.restart_if_moved();
    }

    /// Packs from the end of what is wanted, when the packer stands elsewhere.
    fn restart_if_moved(&mut self) {
        let Some(tip) = self.tip else { return };
        let end = self.end(&tip);
        if self.packer.as_ref().is_some_and(|packer| packer.next() != (end.next_index, end.previous_digest)) {
            self.restart(end);
        }
    }

    fn restart(&mut self, at: Start) {
        self.packer = Some(Packer::new(self.settings.packer, at));
        self.is_stale = self.cutting.is_some();
    }

    /// Where the batch after the last wanted one begins.
    fn end(&self, tip: &Start) -> Start {
        match self.wanted.back().filter(|batch| batch.index >= tip.next_index) {
            None => *tip,
            Some(last) => Start { next_index: last.index + 1, previous_digest: last.digest, position: last.next },
        }
    }

    // --- packing ---

    /// The segments of a block, or why there are none; answers whether one of them begins where the last batch ends. Those of one that is not wanted any more are no error, whatever they are.
    pub fn cut(
        &mut self,
        number: u64,
        segments: Result<Vec<Segment>, String>,
        now_ns: u64,
        ledger: &Ledger,
        actions: &mut Vec<Action>,
    ) -> Result<bool, String> {
        debug_assert_eq!(self.cutting, Some(number));
        self.cutting = None;
        if std::mem::take(&mut self.is_stale) {
            return Ok(true);
        }
        let segments = segments?;
        let Some(packer) = &mut self.packer else { return Ok(true) };
        let expected = packer.expected();
        let segments: Vec<Segment> = segments.into_iter().skip_while(|segment| segment.begin() != expected).collect();
        if segments.is_empty() {
            return Ok(false);
        }
        let packed = packer.step(PackerEvent::Segments(segments), now_ns).map_err(|error| error.to_string())?;
        self.store(packed, ledger, now_ns, actions)?;
        Ok(true)
    }

    /// Keeps batches, and gives them to the transaction manager.
    fn store(
        &mut self,
        packed: Vec<PackedBatch>,
        ledger: &Ledger,
        now_ns: u64,
        actions: &mut Vec<Action>,
    ) -> Result<(), String> {
        for batch in packed {
            let id = self.next_id.max(ledger.next_id());
            self.next_id = PayloadId(id.0 + 1);
            let gas = batch.payload.encoded(self.settings.profile).gas().limit(self.settings.chain_id, true);
            // An ExecuteTx has at most 131,072 bytes.
            let facts = PayloadFacts { id, gas, bytes: batch.tx_bytes as u32 };
            tracing::debug!(
                index = batch.index,
                first_block = batch.first_block,
                last_block = batch.last_block,
                txs = batch.tx_count,
                segments = batch.segment_count,
                bytes = batch.tx_bytes,
                gas,
                closed_by = ?batch.closed_by,
                "batch"
            );
            let stored = stored_of(batch, facts);
            self.wanted.push_back(wanted_of(&stored, false));
            actions.push(Action::Append(vec![Entry::Batch(Box::new(stored))]));
            self.tell(TxEvent::Payload(facts), now_ns);
        }
        Ok(())
    }

    /// `unsafe_head`: newest block that may be cut; `None` while nothing is to be packed.
    pub fn go_on(
        &mut self,
        unsafe_head: Option<u64>,
        ledger: &Ledger,
        now_ns: u64,
        actions: &mut Vec<Action>,
    ) -> Result<(), String> {
        self.manager.step(TxEvent::Tick, now_ns, &mut self.manager_actions);
        self.carry_out(now_ns, ledger, actions)?;
        while let Some(failed) = self.failed.pop_first() {
            self.abandon(failed, actions);
        }
        let Some(unsafe_head) = unsafe_head.filter(|_| !self.is_paused) else { return Ok(()) };
        let Some(packer) = &mut self.packer else { return Ok(()) };
        let is_whole = |to: &mut u64| *to < packer.expected().block_number;
        if self.flush_to.take_if(is_whole).is_some() {
            let packed = packer.step(PackerEvent::Flush, now_ns).map_err(|error| error.to_string())?;
            self.store(packed, ledger, now_ns, actions)?;
            self.carry_out(now_ns, ledger, actions)?;
        }
        let Some(packer) = &mut self.packer else { return Ok(()) };
        if packer.deadline_ns().is_some_and(|deadline_ns| deadline_ns <= now_ns) {
            let packed = packer.step(PackerEvent::Tick, now_ns).map_err(|error| error.to_string())?;
            self.store(packed, ledger, now_ns, actions)?;
            self.carry_out(now_ns, ledger, actions)?;
        }
        let Some(packer) = &self.packer else { return Ok(()) };
        let expected = packer.expected();
        if self.cutting.is_none() && expected.block_number <= unsafe_head && self.manager.status().waiting < WAITING_MAX
        {
            let number = expected.block_number;
            self.cutting = Some(number);
            let boundary = (!expected.opens_block).then_some(expected.first_tx_index);
            let first_bytes_max = packer.first_tx_bytes_max();
            actions.push(Action::Cut { number, boundary, first_bytes_max });
        }
        Ok(())
    }

    // --- the transaction manager's wishes ---

    fn carry_out(&mut self, now_ns: u64, ledger: &Ledger, actions: &mut Vec<Action>) -> Result<(), String> {
        while !self.manager_actions.is_empty() {
            for action in std::mem::take(&mut self.manager_actions) {
                match action {
                    TxAction::Sign(attempt) => {
                        self.attempts.insert(attempt.id, attempt.payload.id);
                        actions.push(Action::Sign(attempt));
                    }
                    TxAction::JournalSigned(record) => {
                        let attempt = record.attempt;
                        let Some(signature) = self.signatures.remove(&attempt.id) else { continue };
                        if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.id == attempt.payload.id) {
                            wanted.is_signed = true;
                        }
                        actions.push(Action::Append(vec![Entry::Signed(SignedEntry {
                            attempt: attempt.id,
                            payload: attempt.payload.id,
                            nonce: attempt.nonce,
                            tip_cap_wei: attempt.tip_cap_wei,
                            fee_cap_wei: attempt.fee_cap_wei,
                            hash: record.hash,
                            above: record.above,
                            signature,
                        })]));
                        // What is appended is durable before what is asked for next.
                        self.tell(TxEvent::Journaled { attempt: attempt.id }, now_ns);
                    }
                    TxAction::Send { attempt, hash } => {
                        self.sending(attempt, ledger);
                        actions.push(Action::Send { attempt, hash });
                    }
                    TxAction::JournalDone(done) => {
                        actions.push(Action::Append(vec![Entry::Done(done)]));
                        match (done.fate, done.payload) {
                            // Somebody else has used its nonce for good, after a halt: it needs another one.
                            (Fate::Taken, Some(payload)) => self.fail(payload),
                            _ => self.wanted.retain(|wanted| Some(wanted.id) != done.payload),
                        }
                    }
                    TxAction::Report(report) => self.report(report)?,
                }
            }
        }
        Ok(())
    }

    fn sending(&mut self, attempt: u64, ledger: &Ledger) {
        // The ledger has it only behind the step in which it is signed.
        let payload = self.attempts.get(&attempt).copied();
        let payload = payload.or_else(|| ledger.signed(attempt).map(|signed| signed.payload));
        let wanted = self.wanted.iter().find(|wanted| Some(wanted.id) == payload);
        self.posted_block = self.posted_block.max(wanted.map_or(0, Wanted::whole_block));
    }

    pub fn signed(&mut self, attempt: u64, hash: B256, signature: Signature, now_ns: u64) {
        if self.attempts.contains_key(&attempt) {
            self.signatures.insert(attempt, signature);
            self.tell(TxEvent::Signed { attempt, hash }, now_ns);
        }
    }

    pub fn sent(&mut self, attempt: u64, outcome: SendOutcome, now_ns: u64) {
        self.attempts.remove(&attempt);
        self.tell(TxEvent::Sent { attempt, outcome }, now_ns);
    }

    fn report(&mut self, report: Report) -> Result<(), String> {
        match report {
            Report::Condition(condition) => {
                if let TxCondition::Halted(reason) = &condition {
                    return Err(reason.to_string());
                }
                tracing::info!(?condition, "posting");
                self.condition = condition;
            }
            Report::Included { payload, nonce, hash, block } => {
                tracing::debug!(payload = payload.0, nonce, %hash, %block, "an ExecuteTx of ours has its block");
            }
            Report::Failed { payload, nonce, hash, block } => {
                tracing::error!(payload = payload.0, nonce, %hash, %block, "an ExecuteTx of ours failed on L1");
                self.fail(payload);
            }
            Report::FellOut { payload, nonce } => {
                tracing::warn!(payload = payload.0, nonce, "L1 has reorganised: a batch is sent again");
            }
            Report::Bumped { payload, nonce, fee_cap_wei, tip_cap_wei } => {
                tracing::info!(payload = payload.0, nonce, fee_cap_wei, tip_cap_wei, "fees raised");
            }
            Report::Taken { payload, nonce, by } => {
                tracing::error!(payload = payload.0, nonce, ?by, "somebody else used a nonce of our key");
            }
            Report::Adopted { known, next } => {
                tracing::warn!(known, next, "nonces of our key were used that this ledger does not know");
            }
            Report::SendRefused { payload, nonce, message } => {
                tracing::warn!(payload = payload.0, nonce, message, "L1 refuses a transaction of ours");
            }
        }
        Ok(())
    }

    fn fail(&mut self, payload: PayloadId) {
        // What was withdrawn may fail, and is not made anew.
        if self.wanted.iter().any(|batch| batch.id == payload) {
            self.failed.insert(payload);
        }
    }

    pub fn show(&self, status: &mut SettlementStatus) {
        let manager = self.manager.status();
        status.in_flight = manager.in_flight as u64;
        status.unfinalized = manager.unfinalized as u64;
        status.hour_cost_wei = manager.hour_cost_wei;
        if self.is_paused && status.condition == Condition::Ready {
            status.condition = Condition::Waiting;
            status.why = "stopped by the operator (admin_startBatcher)".to_owned();
        } else if !matches!(self.condition, TxCondition::Ready | TxCondition::Syncing)
            && status.condition == Condition::Ready
        {
            status.condition = Condition::Waiting;
            status.why = format!("{:?}", self.condition);
        }
    }
}

fn wanted_of(batch: &StoredBatch, is_signed: bool) -> Wanted {
    let next = if batch.ends_block {
        Position {
            block_number: batch.last_block + 1,
            first_tx_index: 0,
            opens_block: true,
            state_root: batch.post_state_root,
        }
    } else {
        Position {
            block_number: batch.last_block,
            first_tx_index: batch.next_tx_index,
            opens_block: false,
            state_root: batch.post_state_root,
        }
    };
    Wanted {
        id: batch.facts.id,
        index: batch.index,
        digest: batch.digest,
        previous_digest: batch.previous_digest,
        begin_root: batch.payload.pre_state_root,
        last_block: batch.last_block,
        next,
        is_signed,
    }
}

/// A packed batch as it is kept.
fn stored_of(batch: PackedBatch, facts: PayloadFacts) -> StoredBatch {
    StoredBatch {
        facts,
        index: batch.index,
        digest: batch.digest,
        previous_digest: batch.previous_digest,
        first_block: batch.first_block,
        last_block: batch.last_block,
        ends_block: batch.next.opens_block,
        post_state_root: batch.next.state_root,
        next_tx_index: batch.next.first_tx_index,
        payload: batch.payload,
    }
}
