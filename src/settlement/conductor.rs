//! One machine out of derivation, heads, packer and transaction manager: what each decides becomes the others' events.
//!
//! ```text
//!  L1 blocks ──► Derivation ──► Heads ──► safe, finalized, origin; replace; halt
//!                    │ accepted, skipped
//!                    ▼
//!  sealed blocks ─► cut ─► Packer ─► ledger ─► TxManager ─► sign ─► ledger ─► send
//! ```
//!
//! Pure: `step(event, ledger, now) → actions`, which the driver carries out in order; what is appended is durable before the next action. Owner: the
//! `l1` thread. Cutting, re-execution and signatures are somebody else's work: they are actions, and their results are events.

mod posting;

use std::collections::VecDeque;
use std::sync::Arc;

use alloy_rlp::Encodable;

use crate::derivation::Derivation;
use crate::derivation::skip::SkipReason;
use crate::derivation::types::{Accepted, Action as Derived, Check, CheckId, Formats, Skipped, ValidBatch};
use crate::heads::{Action as HeadAction, Cause, Heads, HeadsError, View};
use crate::journal::record::RollbackCause;
use crate::l1::block::{BlockId, CheckedBlock};
use crate::l1::execute_tx::Signature;
use crate::l1::tx_manager::types::{Attempt, HeadView, SendOutcome};
use crate::primitives::B256;
use crate::settlement::cells::{Hold, Origin};
use crate::settlement::ledger::{Entry, Ledger, StoredCheckpoint};
use crate::settlement::segment::Segment;
use crate::settlement::status::{BatchPlace, Condition, SettlementStatus, Skip};
use crate::settlement::strict;

pub use posting::{Posting, PostingSettings};

#[cfg(test)]
mod tests;

/// Final L1 blocks between two checkpoints.
const CHECKPOINT_L1_BLOCKS: u64 = 64;
/// Derived blocks that are collected before they replace ours.
const REPLACEMENT_BLOCKS_MAX: usize = 4_096;
const REPLACEMENT_BYTES_MAX: usize = 256 << 20;

/// What the machine is told.
pub enum Event {
    /// The next block of L1.
    L1Block(Arc<CheckedBlock>),
    /// L1 blocks above `to` are gone.
    L1Rewound {
        to: u64,
    },
    L1Finalized {
        number: u64,
    },
    /// Every block up to L1's head was given.
    L1Head {
        head: BlockId,
    },
    /// What the account of who posts has, at a head that was given.
    L1Account(HeadView),
    /// No endpoint answers.
    L1Away {
        why: String,
    },
    /// L1 has something else where a block was final: nothing is decided or posted behind it.
    L1Contradicts {
        why: String,
    },
    /// The next block of our own.
    Sealed {
        id: BlockId,
        origin: BlockId,
        body_bytes: u64,
    },
    /// Answers [`Action::Cut`].
    Cut {
        number: u64,
        result: Result<Vec<Segment>, String>,
    },
    /// Answers [`Action::Check`].
    Checked {
        id: CheckId,
        result: Result<CheckedBatch, SkipReason>,
    },
    /// Answers [`Action::Sign`].
    Signed {
        attempt: u64,
        hash: B256,
        signature: Signature,
    },
    /// Answers [`Action::Send`].
    Sent {
        attempt: u64,
        outcome: SendOutcome,
    },
    /// Everything that is sealed is to be sent, however small the batch.
    Flush,
    Tick,
}

/// What strict re-execution gave.
pub struct CheckedBatch {
    pub batch: ValidBatch<strict::Tip>,
    pub blocks: Vec<strict::DerivedBlock>,
}

/// Blocks of ours give way.
#[derive(Default)]
pub struct Replace {
    /// Newest block that stays.
    pub to_block: u64,
    pub cause: Option<RollbackCause>,
    pub why: String,
    /// Ascending, from `to_block + 1`.
    pub blocks: Vec<strict::DerivedBlock>,
    /// The beginning of the block behind them, when L1 has it.
    pub open: Option<Box<strict::OpenPart>>,
}

/// What the machine wants done, in this order.
pub enum Action {
    /// Make durable and take in.
    Append(Vec<Entry>),
    /// Re-execute the batch.
    Check(Box<Check<strict::Tip>>),
    /// Cut a block into segments; `boundary`: one must begin with this transaction, behind the opening calls.
    Cut {
        number: u64,
        boundary: Option<u32>,
        first_bytes_max: usize,
    },
    Sign(Attempt),
    Send {
        attempt: u64,
        hash: B256,
    },
    /// Stop, put these in the place of ours, start again.
    Replace(Replace),
    /// Blocks that a follower does not have.
    Adopt(Vec<strict::DerivedBlock>),
    /// A follower's blocks above are gone.
    Rewind {
        to: u64,
    },
    Halt(String),
}

/// What belongs to the chain and stays.
pub struct ConductorSettings {
    pub origin_depth: u64,
    pub unsafe_blocks_max: u64,
    pub backlog_bytes_max: u64,
    /// There is no builder: blocks come from L1 alone.
    pub follows: bool,
}

/// See the module's text.
pub struct Conductor<F> {
    settings: ConductorSettings,
    derivation: Derivation<F, strict::Tip>,
    heads: Heads,
    posting: Option<Posting>,
    /// Blocks of the batch that was checked last.
    bodies: Vec<strict::DerivedBlock>,
    pending: Option<Replace>,
    is_replacing: bool,
    /// Newest block of ours that stays, once some have to give way: above it heads have L1's blocks, and whoever asks has still ours.
    stays: Option<BlockId>,
    halted: Option<String>,
    is_met: bool,
    origin: Option<Origin>,
    /// Number and body bytes of sealed blocks that are not packed.
    backlog: VecDeque<(u64, u64)>,
    checkpoint_l1: u64,
    status: SettlementStatus,
}

impl<F: Formats> Conductor<F> {
    /// Goes on where `derivation` and `heads` stand.
    #[must_use]
    pub fn new(
        settings: ConductorSettings,
        derivation: Derivation<F, strict::Tip>,
        heads: Heads,
        posting: Option<Posting>,
    ) -> Self {
        let checkpoint_l1 = derivation.l1_finalized();
        let mut status = SettlementStatus { condition: Condition::Syncing, ..SettlementStatus::default() };
        status.batch_next = derivation.tip().next_index;
        let mut conductor = Self {
            settings,
            derivation,
            heads,
            posting,
            bodies: Vec::new(),
            pending: None,
            is_replacing: false,
            stays: None,
            halted: None,
            is_met: false,
            origin: None,
            backlog: VecDeque::new(),
            checkpoint_l1,
            status,
        };
        conductor.refresh_status();
        conductor
    }

    /// The newest L1 block that was given; the next one must follow it.
    #[must_use]
    pub fn l1_head(&self) -> BlockId {
        self.derivation.l1_head()
    }

    /// Whether no L1 block should be given before a check is answered.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.derivation.is_full()
    }

    /// The newest of our blocks that was given.
    #[must_use]
    pub fn unsafe_head(&self) -> BlockId {
        self.heads.view().unsafe_head
    }

    /// Whether blocks of our own are taken: not while ours give way, nor after a halt.
    #[must_use]
    pub fn takes_blocks(&self) -> bool {
        self.halted.is_none() && !self.is_replacing && self.pending.is_none()
    }

    /// Whether L1 was derived to its head, and nothing of ours has to give way.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.is_met
    }

    /// Numbers of the safe and of the final block: of ours, where L1 has others that are not in their place yet.
    #[must_use]
    pub fn settled(&self) -> (u64, u64) {
        let view = self.view();
        (view.safe.number, view.finalized.number)
    }

    /// Number of the newest block of which all was sent to L1.
    #[must_use]
    pub fn posted(&self) -> u64 {
        self.view().posted
    }

    /// The heads as far as they are blocks that we have.
    fn view(&self) -> View {
        let view = self.heads.view();
        let Some(stays) = self.stays else { return view };
        let lower = |block: BlockId| if block.number > stays.number { stays } else { block };
        View { safe: lower(view.safe), finalized: lower(view.finalized), posted: view.posted.min(stays.number), ..view }
    }

    /// Blocks of ours above `to` have to give way.
    fn stays_up_to(&mut self, to: u64) {
        // Told before L1's blocks are final, so heads know it still.
        let Some(block) = self.heads.block(to) else { return };
        if self.stays.is_none_or(|stays| block.number < stays.number) {
            self.stays = Some(block);
        }
    }

    /// The L1 block that the next block stands on.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// Why building has to wait.
    #[must_use]
    pub fn hold(&self) -> Option<Hold> {
        self.posting.as_ref()?;
        let view = self.heads.view();
        let (have, max) = (view.unsafe_head.number - view.safe.number, self.settings.unsafe_blocks_max);
        if have >= max {
            return Some(Hold::Blocks { have, max });
        }
        let (have, max) = (self.backlog_bytes(), self.settings.backlog_bytes_max);
        (have >= max).then_some(Hold::Bytes { have, max })
    }

    /// Newest block of which all is in batches.
    #[must_use]
    pub fn packed_block(&self) -> u64 {
        self.posting.as_ref().map_or(u64::MAX, Posting::packed_block)
    }

    /// Whether the operator wants nothing new to be packed or signed. What was signed goes on until L1 has it.
    pub fn set_paused(&mut self, is_paused: bool) {
        if let Some(posting) = &mut self.posting {
            posting.set_paused(is_paused);
        }
    }

    #[must_use]
    pub fn status(&self) -> &SettlementStatus {
        &self.status
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn wake_at_ns(&self) -> Option<u64> {
        self.posting.as_ref().and_then(Posting::wake_at_ns)
    }

    fn backlog_bytes(&self) -> u64 {
        self.backlog.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Takes an event in.
    pub fn step(&mut self, event: Event, ledger: &Ledger, now_ns: u64, actions: &mut Vec<Action>) {
        if self.halted.is_some() || self.is_replacing {
            return;
        }
        let outcome = self.take(event, ledger, now_ns, actions);
        match outcome {
            // Behind what became of our nonces: a checkpoint without it would not know that they are used.
            Ok(()) => self.checkpoint(self.derivation.l1_finalized(), actions),
            Err(why) => self.halt(why, actions),
        }
        self.refresh_status();
    }

    fn take(&mut self, event: Event, ledger: &Ledger, now_ns: u64, actions: &mut Vec<Action>) -> Result<(), String> {
        match event {
            Event::L1Block(block) => {
                let mut head_actions = Vec::new();
                // Origins are judged before the batches of the same block.
                self.heads.l1_block(block.id(), &mut head_actions).map_err(text)?;
                self.heads_acted(head_actions, actions);
                let mut derived = Vec::new();
                self.derivation.block(&block, &mut derived).map_err(text)?;
                if let Some(posting) = &mut self.posting {
                    posting.l1_block(&block, now_ns);
                }
                self.derived(derived, ledger, now_ns, actions)?;
            }
            Event::L1Rewound { to } => self.rewound(to, ledger, now_ns, actions)?,
            Event::L1Finalized { number } => self.finalized(number, ledger, now_ns, actions)?,
            Event::L1Head { head } => {
                self.status.l1_head = head;
                self.status.why.clear();
                self.at_head(ledger, actions);
            }
            Event::L1Account(account) => {
                if let Some(posting) = &mut self.posting {
                    posting.head(account, now_ns);
                }
            }
            Event::L1Away { why } => {
                self.status.condition = Condition::Away;
                self.status.why = why;
            }
            Event::L1Contradicts { why } => return Err(why),
            Event::Sealed { id, origin, body_bytes } => self.sealed(id, origin, body_bytes, actions)?,
            Event::Cut { number, result } => self.cut(number, result, ledger, now_ns, actions)?,
            Event::Checked { id, result } => {
                let mut derived = Vec::new();
                let result = result.map(|checked| {
                    self.bodies = checked.blocks;
                    checked.batch
                });
                self.derivation.checked(id, result, &mut derived);
                self.derived(derived, ledger, now_ns, actions)?;
                self.at_head(ledger, actions);
            }
            Event::Signed { attempt, hash, signature } => {
                if let Some(posting) = &mut self.posting {
                    posting.signed(attempt, hash, signature, now_ns);
                }
            }
            Event::Sent { attempt, outcome } => {
                if let Some(posting) = &mut self.posting {
                    posting.sent(attempt, outcome, now_ns);
                }
            }
            Event::Flush => self.flush(),
            Event::Tick => {}
        }
        self.go_on(ledger, now_ns, actions)
    }

    fn flush(&mut self) {
        let unsafe_head = self.heads.view().unsafe_head.number;
        if let Some(posting) = &mut self.posting {
            posting.flush(unsafe_head);
        }
    }

    /// Takes a block's segments. One that does not go on where L1 has its beginning gives way to that beginning: a batch of another process, or of
    /// a life that a restored backup does not know, has it.
    fn cut(
        &mut self,
        number: u64,
        result: Result<Vec<Segment>, String>,
        ledger: &Ledger,
        now_ns: u64,
        actions: &mut Vec<Action>,
    ) -> Result<(), String> {
        let Some(posting) = &mut self.posting else { return Ok(()) };
        let goes_on = posting.cut(number, result, now_ns, ledger, actions)?;
        let tip = self.derivation.tip();
        if goes_on {
            return Ok(());
        }
        if !tip.is_open || tip.block.number + 1 != number {
            return Err(format!("no segment of block {number} begins where the last batch ends"));
        }
        tracing::warn!(number, "L1 has another beginning of a block of ours");
        posting.give_way(number - 1, actions);
        self.stays_up_to(number - 1);
        let why = format!("L1 has another beginning of block {number}");
        let cause = Some(RollbackCause::L1Differs);
        let replace = Replace { to_block: number - 1, cause, why, ..Replace::default() };
        self.replace(replace, true, actions);
        Ok(())
    }

    fn sealed(
        &mut self,
        id: BlockId,
        origin: BlockId,
        body_bytes: u64,
        actions: &mut Vec<Action>,
    ) -> Result<(), String> {
        let mut head_actions = Vec::new();
        match self.heads.sealed(id, origin, &mut head_actions) {
            Ok(()) => {
                self.backlog.push_back((id.number, body_bytes));
                self.check_origin(id.number, origin, &mut head_actions);
            }
            // Blocks that were built while a replacement is collected are gone with it.
            Err(HeadsError::OutOfOrder { .. }) if self.pending.is_some() => {}
            Err(error) => return Err(text(error)),
        }
        self.heads_acted(head_actions, actions);
        Ok(())
    }

    /// Rolls a block of ours back that no batch can have: what was built while nobody looked may stand on an L1 block that is gone below the final
    /// one, which heads do not know, or on one below its parent's, when L1 became shorter in between.
    fn check_origin(&mut self, number: u64, origin: BlockId, head_actions: &mut Vec<HeadAction>) {
        let parent = self.heads.origin_of(number - 1).filter(|parent| parent.number > origin.number);
        let now = self.derivation.l1_block(origin.number).map(|block| block.id()).filter(|now| *now != origin);
        if let Some(instead) = parent.or(now) {
            self.heads.origin_gone(number, instead, head_actions);
        }
    }

    /// Closes batches, asks for cuts, lets the transaction manager act.
    fn go_on(&mut self, ledger: &Ledger, now_ns: u64, actions: &mut Vec<Action>) -> Result<(), String> {
        let unsafe_head = self.heads.view().unsafe_head.number;
        let is_free = self.is_met && self.pending.is_none();
        let Some(posting) = &mut self.posting else { return Ok(()) };
        posting.go_on(is_free.then_some(unsafe_head), ledger, now_ns, actions)?;
        let packed = posting.packed_block();
        while self.backlog.front().is_some_and(|(number, _)| *number <= packed) {
            self.backlog.pop_front();
        }
        self.heads.posted(posting.posted_block());
        Ok(())
    }

    fn rewound(&mut self, to: u64, ledger: &Ledger, now_ns: u64, actions: &mut Vec<Action>) -> Result<(), String> {
        let mut derived = Vec::new();
        let mut head_actions = Vec::new();
        self.heads.l1_rewound(to, &mut head_actions).map_err(text)?;
        if self.settings.follows
            && let Some(to) = self.heads.forget_unsafe()
        {
            actions.push(Action::Rewind { to });
        }
        self.heads_acted(head_actions, actions);
        self.derivation.rewind(to, &mut derived).map_err(text)?;
        if let Some(posting) = &mut self.posting {
            posting.l1_rewound(to, now_ns);
        }
        self.status.rewound(to);
        self.derived(derived, ledger, now_ns, actions)
    }

    fn finalized(
        &mut self,
        number: u64,
        ledger: &Ledger,
        now_ns: u64,
        actions: &mut Vec<Action>,
    ) -> Result<(), String> {
        let mut derived = Vec::new();
        let number = number.min(self.derivation.l1_head().number);
        self.derivation.finalized(number, &mut derived).map_err(text)?;
        self.derived(derived, ledger, now_ns, actions)?;
        // After a start the manager has to hear it, however little has changed.
        self.settled_l1(self.derivation.l1_settled(), now_ns, actions);
        Ok(())
    }

    /// L1 blocks up to `number` are final, and everything in them is decided: before that nobody may forget what they have of ours.
    fn settled_l1(&mut self, number: u64, now_ns: u64, actions: &mut Vec<Action>) {
        let mut head_actions = Vec::new();
        self.heads.l1_finalized(number, &mut head_actions);
        self.heads_acted(head_actions, actions);
        if let Some(posting) = &mut self.posting {
            posting.l1_finalized(number, now_ns);
        }
    }

    /// Now and then, where no block is open, what a restart goes on from.
    fn checkpoint(&mut self, final_l1: u64, actions: &mut Vec<Action>) {
        if final_l1 < self.checkpoint_l1 + CHECKPOINT_L1_BLOCKS {
            return;
        }
        // Asked for with every event until a block ends there: the list of L1 blocks is long.
        if self.derivation.final_tip().is_open {
            return;
        }
        let checkpoint = self.derivation.checkpoint();
        let tip = &checkpoint.tip;
        let mut header_rlp = Vec::new();
        tip.carry.header.encode(&mut header_rlp);
        let origin = BlockId { number: tip.carry.origin.number, hash: tip.carry.origin.hash };
        let l1 = checkpoint.l1.iter().filter(|block| block.number >= origin.number).copied().collect();
        self.checkpoint_l1 = final_l1;
        let stored = StoredCheckpoint {
            next_index: tip.next_index,
            digest: tip.digest,
            origin,
            header_rlp: header_rlp.into(),
            l1,
        };
        actions.push(Action::Append(vec![Entry::Checkpoint(Box::new(stored))]));
    }

    fn derived(
        &mut self,
        derived: Vec<Derived<strict::Tip>>,
        ledger: &Ledger,
        now_ns: u64,
        actions: &mut Vec<Action>,
    ) -> Result<(), String> {
        let (mut is_moved, mut settled) = (false, None);
        for action in derived {
            match action {
                Derived::Check(check) => actions.push(Action::Check(check)),
                Derived::Accepted(accepted) => {
                    is_moved = true;
                    self.accepted(accepted, actions)?;
                }
                Derived::Skipped(skipped) => self.skipped(&skipped, ledger, actions),
                Derived::Rewound { .. } => is_moved = true,
                Derived::Finalized { l1, .. } => settled = Some(l1),
                Derived::Derived { .. } => {}
            }
        }
        if is_moved && let Some(posting) = &mut self.posting {
            posting.reconcile(self.derivation.tip(), actions);
        }
        if let Some(l1) = settled {
            self.settled_l1(l1, now_ns, actions);
        }
        Ok(())
    }

    fn accepted(&mut self, accepted: Accepted, actions: &mut Vec<Action>) -> Result<(), String> {
        let view = self.heads.view();
        let first_block = view.safe.number + 1;
        let last_block = accepted.blocks.last().map_or(view.safe.number, |block| block.id.number);
        let blocks: Vec<_> = accepted.blocks.iter().map(|block| (block.id, block.origin)).collect();
        let mut head_actions = Vec::new();
        self.heads.derived(accepted.place.block.number, blocks, &mut head_actions).map_err(text)?;
        self.heads_acted(head_actions, actions);
        self.status.accepted(BatchPlace {
            index: accepted.index,
            digest: accepted.digest,
            first_block,
            last_block: last_block + u64::from(accepted.is_open),
            tx_hash: accepted.place.hash,
            l1: accepted.place.block,
        });
        Ok(())
    }

    fn skipped(&mut self, skipped: &Skipped, ledger: &Ledger, actions: &mut Vec<Action>) {
        let Skipped { place, reason, .. } = skipped;
        let batch = ledger.batch_of_tx(&place.hash);
        if batch.is_some() {
            tracing::error!(tx = %place.hash, l1_block = %place.block, %reason, "a batch of ours does not count");
        } else {
            tracing::info!(tx = %place.hash, l1_block = %place.block, %reason, "an ExecuteTx on L1 does not count");
        }
        self.status.skipped(Skip {
            tx_hash: place.hash,
            l1: place.block,
            reason: reason.name(),
            what: reason.to_string(),
        });
        if let (Some(batch), Some(posting)) = (batch, &mut self.posting) {
            // Where derivation stands may be behind what was told: batches of one block of L1 are judged one after the other.
            posting.reconcile(self.derivation.tip(), actions);
            posting.abandon(batch, actions);
        }
    }

    fn heads_acted(&mut self, head_actions: Vec<HeadAction>, actions: &mut Vec<Action>) {
        for action in head_actions {
            match action {
                HeadAction::Rollback { to, cause } if self.settings.follows => {
                    tracing::warn!(to, ?cause, "derived blocks are gone");
                    actions.push(Action::Rewind { to });
                }
                HeadAction::Rollback { to, cause } => {
                    tracing::warn!(to, ?cause, "blocks of ours have to give way");
                    self.stays_up_to(to);
                    let pending = self.pending.get_or_insert_with(|| Replace { to_block: to, ..Replace::default() });
                    pending.why = format!("{cause:?}");
                    pending.cause = Some(match cause {
                        Cause::Derived { .. } => RollbackCause::L1Differs,
                        Cause::OriginGone { .. } => RollbackCause::OriginGone,
                    });
                    pending.to_block = pending.to_block.min(to);
                    pending.blocks.retain(|block| block.header.number <= to);
                    self.backlog.retain(|(number, _)| *number <= to);
                    if let Some(posting) = &mut self.posting {
                        posting.give_way(to, actions);
                    }
                }
                HeadAction::Adopt { first, last } => {
                    let blocks = std::mem::take(&mut self.bodies).into_iter();
                    let blocks = blocks.filter(|block| (first..=last).contains(&block.header.number));
                    if self.settings.follows {
                        actions.push(Action::Adopt(blocks.collect()));
                        continue;
                    }
                    let to_block = first - 1;
                    self.stays_up_to(to_block);
                    let pending = self.pending.get_or_insert_with(|| Replace { to_block, ..Replace::default() });
                    pending.cause.get_or_insert(RollbackCause::L1Differs);
                    pending.blocks.extend(blocks);
                }
                HeadAction::Safe(_) | HeadAction::Finalized(_) => {}
            }
        }
    }

    /// What is only done when everything that L1 has is decided.
    fn at_head(&mut self, ledger: &Ledger, actions: &mut Vec<Action>) {
        let is_decided = self.derivation.l1_derived() == self.status.l1_head;
        let is_large = self.pending.as_ref().is_some_and(|pending| {
            let bytes: usize = pending.blocks.iter().map(|block| block.rlp.len()).sum();
            pending.blocks.len() >= REPLACEMENT_BLOCKS_MAX || bytes >= REPLACEMENT_BYTES_MAX
        });
        if (is_decided || is_large)
            && let Some(replace) = self.pending.take()
        {
            return self.replace(replace, is_decided, actions);
        }
        if !is_decided {
            return;
        }
        if !self.is_met {
            self.is_met = true;
            if let Some(posting) = &mut self.posting {
                posting.begin(self.derivation.tip(), ledger, actions);
            }
        }
        self.choose_origin(actions);
    }

    /// Blocks give way, and with them whoever builds on them.
    fn replace(&mut self, mut replace: Replace, is_decided: bool, actions: &mut Vec<Action>) {
        self.is_replacing = true;
        let tip = self.derivation.tip();
        let stays = replace.blocks.last().map_or(replace.to_block, |block| block.header.number);
        // Nobody can go on behind the beginning of a block but with the rest of it.
        if is_decided && stays == tip.block.number {
            replace.open = tip.carry.open.clone().map(Box::new);
        }
        // The next start must know what adopted blocks stand on.
        let origins = replace.blocks.iter().map(|block| block.origin.number);
        let origins = origins.chain(replace.open.as_ref().map(|part| part.origin.number));
        let entries: Vec<Entry> =
            origins.filter_map(|number| self.derivation.l1_block(number)).map(Entry::Origin).collect();
        if !entries.is_empty() {
            actions.push(Action::Append(entries));
        }
        actions.push(Action::Replace(replace));
    }

    /// The newest L1 block that is deep enough, never below the one that the newest block stands on, or that was told: blocks may stand on it that
    /// were not taken yet.
    fn choose_origin(&mut self, actions: &mut Vec<Action>) {
        if self.settings.follows {
            return;
        }
        let number = self.derivation.l1_head().number.saturating_sub(self.settings.origin_depth);
        let Some(block) = self.derivation.l1_block(number) else { return };
        let newest = self.heads.unsafe_origin().number.max(self.origin.map_or(0, |told| told.number));
        if block.number < newest || self.origin.is_some_and(|origin| origin.hash == block.hash) {
            return;
        }
        actions.push(Action::Append(vec![Entry::Origin(block)]));
        self.origin = Some(Origin { number: block.number, hash: block.hash, mix_hash: block.mix_hash });
    }

    fn halt(&mut self, why: String, actions: &mut Vec<Action>) {
        actions.push(Action::Halt(why.clone()));
        self.halted = Some(why);
    }

    fn refresh_status(&mut self) {
        let (view, backlog_bytes) = (self.view(), self.backlog_bytes());
        let status = &mut self.status;
        status.l1_derived = self.derivation.l1_derived();
        status.l1_finalized = self.derivation.l1_finalized();
        status.l1_origin =
            self.origin.map_or(BlockId::default(), |origin| BlockId { number: origin.number, hash: origin.hash });
        (status.unsafe_block, status.safe, status.finalized) = (view.unsafe_head, view.safe, view.finalized);
        status.posted_block = view.posted;
        status.safe_origin = self.heads.origin_of(view.safe.number).unwrap_or_default();
        status.batch_next = self.derivation.tip().next_index;
        status.backlog_blocks = view.unsafe_head.number - view.posted.min(view.unsafe_head.number);
        status.backlog_bytes = backlog_bytes;
        if let Some(why) = &self.halted {
            status.condition = Condition::Halted;
            status.why.clone_from(why);
            return;
        }
        if status.condition == Condition::Away && !status.why.is_empty() {
            return;
        }
        status.condition = if self.is_met { Condition::Ready } else { Condition::Syncing };
        if let Some(posting) = &self.posting {
            posting.show(status);
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
