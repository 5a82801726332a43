//! The transaction manager: payloads in order in, one transaction on L1 for each, whatever L1 does.
//!
//! ```text
//!  Payload ─► Sign ─► JournalSigned ─► (durable) ─► Send ─► Block ─► Finalized ─► JournalDone
//!               ▲                                     │ no block for a while, fee too low
//!               └─────────────── fees + 10 % ─────────┘
//! ```
//!
//! Pure: `step(event, now) → actions`. A payload gets one nonce, for ever: it is signed again with higher fees under the same nonce, sent again
//! when a reorganisation drops it, and never given a second one, so it can never be on L1 twice. What may have been sent is in the journal
//! before; a start takes the journal's records and needs the checked blocks from [`TxManager::resume_from`] on. Nothing is believed about
//! transactions but what checked blocks hold; of the endpoints' word only the account's nonce and balance are used. A nonce that records or
//! blocks do not explain counts when two endpoints name it, where there are two, and stops the manager at the second head that says so.
//!
//! A nonce that somebody else used means that a second process posts with this key: the one whose nonce was taken stops. So that of two processes only
//! the second stops, one transaction alone is in flight after a start until it has its block, and nothing is signed at the start while
//! transactions of others wait under our address, or have used nonces of ours in blocks that are not final. A start is a person's word that the other one is
//! gone: nonces that were taken by then are given up, and their payloads come again under other names. Deliberately absent: bytes (a ledger has them), keys, sockets, wall clocks: the hour of the spending
//! limit is L1's, and a limit that a restart must not forget is made from records.

pub mod types;

mod fees;

pub mod view;

use std::collections::VecDeque;

use crate::l1::block::BlockId;
use crate::primitives::{B256, U256};

use self::fees::Fees;
use self::types::{
    Action, Attempt, BlockView, Condition, DoneRecord, Event, Fate, HaltReason, HeadView, MinedTx, PayloadFacts,
    PayloadId, Record, Report, SendOutcome, Settings, SignedRecord, Status,
};

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

/// The window of the spending limit.
const HOUR_S: u64 = 3_600;
/// Newest blocks at which the account is believed: endpoints may need longer for an answer than L1 for a block.
const RECENT_BLOCKS_MAX: usize = 64;
/// Heads, one after the other, that must say that a nonce is used which no checked block explains.
const TAKEN_HEADS: u32 = 2;

/// A signature that is on its way into the journal.
#[derive(Clone, Copy, Debug)]
struct Pending {
    attempt: Attempt,
    /// `None` until it is signed.
    hash: Option<B256>,
    above: u64,
}

/// The block that used a nonce.
#[derive(Clone, Copy, Debug)]
struct Mined {
    block: BlockId,
    timestamp: u64,
    hash: B256,
    fate: Fate,
    cost_wei: U256,
}

/// A nonce that has no record of its end.
#[derive(Clone, Debug)]
struct Slot {
    nonce: u64,
    payload: PayloadFacts,
    is_withdrawn: bool,
    /// Journaled signatures, fees rising.
    signed: Vec<(Attempt, B256, u64)>,
    pending: Option<Pending>,
    mined: Option<Mined>,
    /// The newest signature is out with the sender.
    is_sending: bool,
    /// Number of the head at which the newest signature was last sent; `None`: never in this life, or it fell out.
    sent_at: Option<u64>,
    /// A send that reached nobody is repeated then.
    retry_at_ns: Option<u64>,
    /// Number of the head since which it could have had its block with these fees.
    since: u64,
    /// A pool has said that the fees are too low.
    is_underpriced: bool,
}

impl Slot {
    /// The most that the nonce can still cost.
    fn cost_max_wei(&self) -> U256 {
        let signed = self.signed.iter().map(|(attempt, ..)| attempt.cost_max_wei());
        signed.chain(self.pending.map(|pending| pending.attempt.cost_max_wei())).max().unwrap_or_default()
    }

    fn newest(&self) -> Option<(Attempt, B256)> {
        self.signed.last().map(|(attempt, hash, _)| (*attempt, *hash))
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct TxManager {
    settings: Settings,
    /// Payloads without a nonce.
    queue: VecDeque<PayloadFacts>,
    /// The newest payload that was ever given.
    newest: Option<PayloadId>,
    /// In the order of nonces.
    slots: VecDeque<Slot>,
    /// `None` until the first head, when no record says it.
    nonce_next: Option<u64>,
    attempts: u64,
    /// Timestamp and cost of nonces whose end is recorded: of the last hour.
    spent: VecDeque<(u64, U256)>,
    newest_block: Option<(BlockId, u64, u64)>,
    /// The newest blocks that were fed, oldest first.
    recent: VecDeque<BlockId>,
    /// Number of the newest block with something of our address in it.
    newest_ours: u64,
    finalized: u64,
    /// The account, told since the newest block: as that one or a recent one has it.
    head: Option<HeadView>,
    /// The first head of this life was seen and nobody else's transactions waited.
    is_started: bool,
    /// A transaction of ours got its block in this life.
    is_proven: bool,
    taken_heads: u32,
    halted: Option<HaltReason>,
    told: Condition,
    /// Nothing gets a nonce.
    is_paused: bool,
    now_ns: u64,
}

impl TxManager {
    /// Takes up what the journal's records say, oldest first.
    #[must_use]
    pub fn restore(settings: Settings, records: impl IntoIterator<Item = Record>) -> Self {
        let mut manager = Self {
            settings,
            queue: VecDeque::new(),
            newest: None,
            slots: VecDeque::new(),
            nonce_next: None,
            attempts: 0,
            spent: VecDeque::new(),
            newest_block: None,
            recent: VecDeque::new(),
            newest_ours: 0,
            finalized: 0,
            head: None,
            is_started: false,
            is_proven: false,
            taken_heads: 0,
            halted: None,
            told: Condition::Syncing,
            is_paused: false,
            now_ns: 0,
        };
        for record in records {
            match record {
                Record::Signed(record) => manager.restore_signed(record),
                Record::Done(record) => manager.restore_done(record),
            }
        }
        manager
    }

    fn restore_signed(&mut self, record: SignedRecord) {
        let SignedRecord { attempt, hash, above } = record;
        self.attempts = self.attempts.max(attempt.id + 1);
        self.newest = self.newest.max(Some(attempt.payload.id));
        // A record of a nonce that ended before it: two records changed places, which a journal does not do.
        if self.nonce_next.is_some_and(|next| attempt.nonce < next) && self.slot(attempt.nonce).is_none() {
            return;
        }
        self.nonce_next = self.nonce_next.max(Some(attempt.nonce + 1));
        let index = self.slots.partition_point(|slot| slot.nonce < attempt.nonce);
        if self.slots.get(index).is_none_or(|slot| slot.nonce != attempt.nonce) {
            self.slots.insert(index, empty_slot(attempt.nonce, attempt.payload));
        }
        self.slots[index].signed.push((attempt, hash, above));
    }

    fn restore_done(&mut self, record: DoneRecord) {
        self.slots.retain(|slot| slot.nonce != record.nonce);
        self.nonce_next = self.nonce_next.max(Some(record.nonce + 1));
        self.newest = self.newest.max(record.payload);
        self.spent.push_back((record.timestamp, record.cost_wei));
    }

    /// The first block that has to be fed: above it, transactions of this journal may lie. `None`: any.
    #[must_use]
    pub fn resume_from(&self) -> Option<u64> {
        self.slots.iter().filter_map(|slot| slot.signed.first()).map(|(_, _, above)| above + 1).min()
    }

    /// Payloads whose bytes the ledger must keep: they have a nonce whose end is not recorded.
    pub fn held_payloads(&self) -> impl Iterator<Item = PayloadId> {
        self.slots.iter().map(|slot| slot.payload.id)
    }

    /// Whether payloads wait without a nonce from now on. Those that have one are still sent, with higher fees where it needs them: a nonce that is never
    /// used would hold up all behind it.
    pub fn set_paused(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            condition: self.condition(),
            nonce_next: self.nonce_next,
            waiting: self.queue.len(),
            in_flight: self.in_flight(),
            unfinalized: self.slots.len() - self.in_flight(),
            hour_cost_wei: self.hour_cost_wei(),
        }
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn wake_at_ns(&self) -> Option<u64> {
        self.slots.iter().filter(|slot| slot.mined.is_none()).filter_map(|slot| slot.retry_at_ns).min()
    }

    /// Takes one event. `now_ns` is any clock that goes on; it paces retries alone.
    pub fn step(&mut self, event: Event, now_ns: u64, actions: &mut Vec<Action>) {
        self.now_ns = now_ns;
        match event {
            Event::Payload(payload) => self.payload(payload),
            Event::Withdraw { from, to } => self.withdraw(from, to),
            Event::Block(block) => self.block(&block, actions),
            Event::Rewind { to } => self.rewind(to, actions),
            Event::Finalized { number } => self.finalize(number, actions),
            Event::Head(head) => self.at_head(head, actions),
            Event::Signed { attempt, hash } => self.signed(attempt, hash, actions),
            Event::Journaled { attempt } => self.journaled(attempt),
            Event::Sent { attempt, outcome } => self.sent(attempt, outcome, actions),
            Event::Tick => {}
        }
        if self.halted.is_none() && self.head.is_some() && self.is_started && self.taken_heads == 0 {
            self.send_due(actions);
            self.bump_due(actions);
            while !self.is_paused && self.sign_next(actions) {}
        }
        let condition = self.condition();
        if condition != self.told {
            self.told = condition.clone();
            actions.push(Action::Report(Report::Condition(condition)));
        }
    }

    fn payload(&mut self, payload: PayloadFacts) {
        // Nonces are given in the order of payloads: after a start, those that never got one are above all that did.
        if self.newest.is_none_or(|newest| payload.id > newest) {
            self.newest = Some(payload.id);
            self.queue.push_back(payload);
        }
    }

    fn withdraw(&mut self, from: PayloadId, to: PayloadId) {
        let is_meant = |payload: &PayloadFacts| payload.id >= from && payload.id <= to;
        self.queue.retain(|payload| !is_meant(payload));
        for slot in self.slots.iter_mut().filter(|slot| is_meant(&slot.payload)) {
            slot.is_withdrawn = true;
        }
        // Of these nothing was said to the journal, and no nonce behind them was given: whoever keeps the payloads may forget them at once.
        while let Some(slot) = self.slots.back()
            && slot.is_withdrawn
            && slot.signed.is_empty()
            && slot.pending.is_some_and(|pending| pending.hash.is_none())
        {
            self.nonce_next = Some(slot.nonce);
            self.slots.pop_back();
        }
    }

    fn slot(&self, nonce: u64) -> Option<usize> {
        self.slots.binary_search_by_key(&nonce, |slot| slot.nonce).ok()
    }

    /// The nonce whose signature is on its way into the journal.
    fn pending(&self, attempt: u64) -> Option<usize> {
        self.slots.iter().position(|slot| slot.pending.is_some_and(|pending| pending.attempt.id == attempt))
    }

    // --- what L1 says ---

    fn block(&mut self, block: &BlockView, actions: &mut Vec<Action>) {
        self.head = None;
        self.newest_block = Some((block.id, block.timestamp, block.base_fee_wei));
        if self.recent.len() == RECENT_BLOCKS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(block.id);
        if !block.ours.is_empty() {
            self.newest_ours = block.id.number;
        }
        while self.spent.front().is_some_and(|(at, _)| at + HOUR_S <= block.timestamp) {
            self.spent.pop_front();
        }
        for tx in &block.ours {
            self.mined(block, tx, actions);
        }
    }

    fn mined(&mut self, block: &BlockView, tx: &MinedTx, actions: &mut Vec<Action>) {
        let Some(index) = self.slot(tx.nonce) else {
            // Nonces that ended long ago, and at the start nonces that are adopted at the first head.
            if self.is_started && self.nonce_next.is_some_and(|next| tx.nonce >= next) {
                self.halt(HaltReason::NonceTaken { nonce: tx.nonce, by: Some(tx.hash) });
            }
            return;
        };
        let (is_started, slot) = (self.is_started, &mut self.slots[index]);
        let (id, block, timestamp) = (slot.payload.id, block.id, block.timestamp);
        let (nonce, hash) = (tx.nonce, tx.hash);
        let fate = match slot.signed.iter().any(|(_, signed, _)| *signed == hash) {
            false => Fate::Taken,
            true if tx.success => Fate::Succeeded,
            true => Fate::Failed,
        };
        // What a stranger's transaction costs was paid by our account as well.
        slot.mined = Some(Mined { block, timestamp, hash, fate, cost_wei: tx.cost_wei });
        slot.retry_at_ns = None;
        self.is_proven |= is_started && fate != Fate::Taken;
        actions.push(Action::Report(match fate {
            Fate::Succeeded => Report::Included { payload: id, nonce, hash, block },
            Fate::Failed => Report::Failed { payload: id, nonce, hash, block },
            Fate::Taken => Report::Taken { payload: id, nonce, by: Some(hash) },
        }));
        // At the start it is known already, or happened while nobody looked: see `start`.
        if fate == Fate::Taken && is_started {
            self.halt(HaltReason::NonceTaken { nonce, by: Some(hash) });
        }
        // The next nonce could not have had a block before.
        if let Some(next) = self.slots.get_mut(index + 1) {
            next.since = next.since.max(block.number);
        }
    }

    fn rewind(&mut self, to: u64, actions: &mut Vec<Action>) {
        self.head = None;
        self.newest_block = None;
        self.recent.retain(|block| block.number <= to);
        self.newest_ours = self.newest_ours.min(to);
        self.taken_heads = 0;
        if to < self.finalized {
            return self.halt(HaltReason::ReorgBelowFinalized { to, finalized: self.finalized });
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.mined.is_some_and(|mined| mined.block.number > to)) {
            slot.mined = None;
            slot.sent_at = None;
            slot.since = to;
            actions.push(Action::Report(Report::FellOut { payload: slot.payload.id, nonce: slot.nonce }));
        }
    }

    fn finalize(&mut self, number: u64, actions: &mut Vec<Action>) {
        self.finalized = self.finalized.max(number);
        while let Some(slot) = self.slots.front()
            && let Some(mined) = slot.mined.filter(|mined| mined.block.number <= self.finalized)
        {
            actions.push(Action::JournalDone(DoneRecord {
                nonce: slot.nonce,
                payload: Some(slot.payload.id),
                fate: mined.fate,
                hash: mined.hash,
                cost_wei: mined.cost_wei,
                block: mined.block,
                timestamp: mined.timestamp,
            }));
            self.spent.push_back((mined.timestamp, mined.cost_wei));
            self.slots.pop_front();
        }
    }

    fn at_head(&mut self, head: HeadView, actions: &mut Vec<Action>) {
        // What a block has stays true of it, so an answer that came after the next block counts; of one that a reorganisation took it does not.
        if self.newest_block.is_none() || !self.recent.contains(&head.block) {
            return;
        }
        let is_new = self.head.is_none();
        self.head = Some(head);
        if self.halted.is_some() {
            return;
        }
        let unexplained = match self.slots.iter().find(|slot| slot.mined.is_none()) {
            Some(slot) => (head.nonce > slot.nonce).then_some(slot.nonce),
            None => self.nonce_next.filter(|next| self.is_started && head.nonce > *next),
        };
        match unexplained {
            None => self.taken_heads = 0,
            // One endpoint's word: the next head asks again.
            Some(_) if !head.is_confirmed => return,
            Some(nonce) => {
                self.taken_heads += u32::from(is_new);
                if self.taken_heads >= TAKEN_HEADS && (self.is_started || head.nonce_final > nonce) {
                    self.taken_unseen(nonce, actions);
                }
                return;
            }
        }
        if !self.is_started {
            self.start(head, actions);
        }
    }

    /// A transaction of another type, or one that checked blocks do not show, has used a nonce.
    fn taken_unseen(&mut self, nonce: u64, actions: &mut Vec<Action>) {
        if let Some(index) = self.slot(nonce)
            && let Some((block, timestamp, _)) = self.newest_block
        {
            let slot = &mut self.slots[index];
            let cost_wei = slot.cost_max_wei();
            slot.mined = Some(Mined { block, timestamp, hash: B256::ZERO, fate: Fate::Taken, cost_wei });
            actions.push(Action::Report(Report::Taken { payload: slot.payload.id, nonce, by: None }));
        }
        if self.is_started {
            self.halt(HaltReason::NonceTaken { nonce, by: None });
        }
    }

    fn start(&mut self, head: HeadView, actions: &mut Vec<Action>) {
        let known = self.nonce_next.unwrap_or(0);
        // The nonce to go on from must be one behind all that is known to be used.
        if Self::is_doubtful(self.nonce_next, &head) || head.block.number < self.newest_ours {
            return;
        }
        let is_quiet = head.nonce_pending <= known.max(head.nonce);
        // What somebody else did with our nonces has to be final, so that no reorganisation gives them back. Then its end is recorded.
        let is_taken = self.slots.iter().any(|slot| slot.mined.is_some_and(|mined| mined.fate == Fate::Taken));
        if !is_quiet || is_taken || (head.nonce > known && head.nonce_final < head.nonce) {
            return;
        }
        self.is_started = true;
        self.nonce_next = Some(known.max(head.nonce));
        for slot in self.slots.iter_mut().filter(|slot| slot.mined.is_none()) {
            slot.since = head.block.number;
        }
        if head.nonce > known {
            actions.push(Action::Report(Report::Adopted { known, next: head.nonce }));
        }
    }

    /// Whether one endpoint alone names a nonce that is to be gone on from: a wrong one would never have its block.
    fn is_doubtful(known: Option<u64>, head: &HeadView) -> bool {
        !head.is_confirmed && known.is_none_or(|known| head.nonce > known)
    }

    fn halt(&mut self, reason: HaltReason) {
        self.halted.get_or_insert(reason);
    }

    // --- signing, journaling, sending ---

    fn signed(&mut self, attempt: u64, hash: B256, actions: &mut Vec<Action>) {
        let Some(index) = self.pending(attempt) else { return };
        let is_last = index + 1 == self.slots.len();
        let slot = &mut self.slots[index];
        // Nothing of this nonce has left the process, and no nonce behind it was given.
        if slot.is_withdrawn && slot.signed.is_empty() && is_last {
            self.nonce_next = Some(slot.nonce);
            self.slots.pop_back();
            return;
        }
        if let Some(pending) = &mut slot.pending {
            pending.hash = Some(hash);
            actions.push(Action::JournalSigned(SignedRecord { attempt: pending.attempt, hash, above: pending.above }));
        }
    }

    fn journaled(&mut self, attempt: u64) {
        let Some(index) = self.pending(attempt) else { return };
        let slot = &mut self.slots[index];
        let Some(Pending { attempt, hash: Some(hash), above }) = slot.pending else { return };
        slot.pending = None;
        slot.signed.push((attempt, hash, above));
        slot.sent_at = None;
        slot.is_sending = false;
        slot.retry_at_ns = None;
    }

    fn sent(&mut self, attempt: u64, outcome: SendOutcome, actions: &mut Vec<Action>) {
        let (now_ns, retry_ns) = (self.now_ns, self.settings.retry_ns);
        let at = self.newest_block.map(|(id, ..)| id.number);
        let is_it = |slot: &Slot| slot.newest().is_some_and(|(newest, _)| newest.id == attempt);
        let Some(slot) = self.slots.iter_mut().find(|slot| is_it(slot)) else { return };
        slot.is_sending = false;
        if slot.mined.is_some() {
            return;
        }
        slot.retry_at_ns = None;
        match outcome {
            SendOutcome::Accepted | SendOutcome::NonceTooLow => slot.sent_at = at,
            SendOutcome::Underpriced => {
                slot.is_underpriced = true;
                slot.sent_at = at;
            }
            SendOutcome::Away => slot.retry_at_ns = Some(now_ns.saturating_add(retry_ns)),
            SendOutcome::InsufficientFunds | SendOutcome::Refused { .. } => {
                slot.sent_at = at;
                let message = match outcome {
                    SendOutcome::Refused { message } => message,
                    _ => "insufficient funds".to_owned(),
                };
                let (payload, nonce) = (slot.payload.id, slot.nonce);
                actions.push(Action::Report(Report::SendRefused { payload, nonce, message }));
            }
        }
    }

    /// Sends what has no block and is not known to be out, in the order of nonces.
    fn send_due(&mut self, actions: &mut Vec<Action>) {
        let Some((newest, ..)) = self.newest_block else { return };
        let (now_ns, resend_after) = (self.now_ns, self.settings.resend_after_blocks);
        for slot in self.slots.iter_mut().filter(|slot| slot.mined.is_none() && !slot.is_sending) {
            let Some((attempt, hash)) = slot.newest() else { continue };
            let is_due = match (slot.retry_at_ns, slot.sent_at) {
                (Some(at_ns), _) => at_ns <= now_ns,
                (None, None) => true,
                (None, Some(at)) => newest.number >= at.saturating_add(resend_after),
            };
            if is_due {
                slot.is_sending = true;
                slot.retry_at_ns = None;
                actions.push(Action::Send { attempt: attempt.id, hash });
            }
        }
    }

    /// Signs the lowest nonce without a block again when its fees were too low for long enough.
    fn bump_due(&mut self, actions: &mut Vec<Action>) {
        let (Some(head), Some((block, _, base_fee_wei))) = (self.head, self.newest_block) else { return };
        let Some(index) = self.slots.iter().position(|slot| slot.mined.is_none()) else { return };
        let slot = &self.slots[index];
        let (Some((newest, _)), None) = (slot.newest(), slot.pending) else { return };
        let waited = block.number.saturating_sub(slot.since);
        let is_below = slot.is_underpriced || newest.fee_cap_wei < u128::from(base_fee_wei);
        let is_due = waited >= self.settings.bump_after_blocks || (is_below && waited > 0);
        if !is_due || slot.sent_at.is_none() {
            return;
        }
        let old = Fees { tip_cap_wei: newest.tip_cap_wei, fee_cap_wei: newest.fee_cap_wei };
        let Some(fees) = self.settings.fees(head.tip_wei, base_fee_wei, slot.payload.gas, Some(old)) else { return };
        let more = newest.payload.cost_at(fees.fee_cap_wei).saturating_sub(slot.cost_max_wei());
        if self.hour_left_wei() < more || self.funds_wei(&head) < more {
            return;
        }
        let (payload, nonce) = (slot.payload, slot.nonce);
        let Fees { tip_cap_wei, fee_cap_wei } = fees;
        self.ask_for_signature(index, fees, block.number, actions);
        let report = Report::Bumped { payload: payload.id, nonce, fee_cap_wei, tip_cap_wei };
        actions.push(Action::Report(report));
    }

    /// Gives the next payload its nonce. Whether it did.
    fn sign_next(&mut self, actions: &mut Vec<Action>) -> bool {
        let (Some(head), Some((block, _, base_fee_wei)), Some(nonce)) = (self.head, self.newest_block, self.nonce_next)
        else {
            return false;
        };
        let Some(payload) = self.queue.front().copied() else { return false };
        let in_flight_max = if self.is_proven { self.settings.in_flight_max } else { 1 };
        if self.in_flight() >= in_flight_max || self.failed().is_some() {
            return false;
        }
        let Some(fees) = self.settings.fees(head.tip_wei, base_fee_wei, payload.gas, None) else { return false };
        let cost = payload.cost_at(fees.fee_cap_wei);
        if self.hour_left_wei() < cost || self.funds_wei(&head) < cost {
            return false;
        }
        self.queue.pop_front();
        self.nonce_next = Some(nonce + 1);
        self.slots.push_back(empty_slot(nonce, payload));
        self.ask_for_signature(self.slots.len() - 1, fees, block.number, actions);
        true
    }

    fn ask_for_signature(&mut self, index: usize, fees: Fees, newest: u64, actions: &mut Vec<Action>) {
        let slot = &mut self.slots[index];
        let Fees { tip_cap_wei, fee_cap_wei } = fees;
        let attempt = Attempt { id: self.attempts, payload: slot.payload, nonce: slot.nonce, tip_cap_wei, fee_cap_wei };
        self.attempts += 1;
        slot.pending = Some(Pending { attempt, hash: None, above: self.finalized });
        slot.since = newest;
        slot.is_underpriced = false;
        actions.push(Action::Sign(attempt));
    }

    // --- limits ---

    fn in_flight(&self) -> usize {
        self.slots.iter().filter(|slot| slot.mined.is_none()).count()
    }

    fn failed(&self) -> Option<PayloadId> {
        let is_failed = |slot: &&Slot| slot.mined.is_some_and(|mined| mined.fate == Fate::Failed) && !slot.is_withdrawn;
        self.slots.iter().find(is_failed).map(|slot| slot.payload.id)
    }

    /// What the account has beside what is in flight, or was where its balance was told.
    fn funds_wei(&self, head: &HeadView) -> U256 {
        let is_paid = |mined: Mined| mined.block.number <= head.block.number;
        let in_flight = self.slots.iter().filter(|slot| !slot.mined.is_some_and(is_paid)).map(Slot::cost_max_wei);
        head.balance_wei.saturating_sub(in_flight.fold(U256::ZERO, U256::saturating_add))
    }

    fn hour_cost_wei(&self) -> U256 {
        let now = self.newest_block.map_or(0, |(_, timestamp, _)| timestamp);
        let in_hour = |at: u64| at.saturating_add(HOUR_S) > now;
        let done = self.spent.iter().filter(|(at, _)| in_hour(*at)).map(|(_, cost)| *cost);
        // Until its block is final, a reorganisation can bring it into a dearer one.
        let open = self.slots.iter().map(Slot::cost_max_wei);
        done.chain(open).fold(U256::ZERO, U256::saturating_add)
    }

    fn hour_left_wei(&self) -> U256 {
        self.settings.hour_cost_wei_max.saturating_sub(self.hour_cost_wei())
    }

    /// What it waits for, the gravest first.
    fn condition(&self) -> Condition {
        if let Some(reason) = &self.halted {
            return Condition::Halted(reason.clone());
        }
        let (Some(head), Some((_, _, base_fee_wei))) = (self.head, self.newest_block) else {
            return match &self.told {
                // Between a block and its head nothing changes.
                told if self.is_started && self.newest_block.is_some() => told.clone(),
                _ => Condition::Syncing,
            };
        };
        if !self.is_started {
            return match self.taken_heads {
                0 if Self::is_doubtful(self.nonce_next, &head) => Condition::Unconfirmed { nonce: head.nonce },
                0 => Condition::KeyInUse { nonce: head.nonce, nonce_pending: head.nonce_pending },
                _ => Condition::Syncing,
            };
        }
        if let Some(payload) = self.failed() {
            return Condition::PayloadFailed { payload };
        }
        let Some(payload) = self.queue.front() else { return Condition::Ready };
        let Some(fees) = self.settings.fees(head.tip_wei, base_fee_wei, payload.gas, None) else {
            let fee_cap_wei_max = self.settings.fee_cap_wei_max(payload.gas);
            return Condition::FeeLimit { fee_cap_wei: u128::from(base_fee_wei) + head.tip_wei, fee_cap_wei_max };
        };
        let needed_wei = payload.cost_at(fees.fee_cap_wei);
        if self.funds_wei(&head) < needed_wei {
            return Condition::OutOfFunds { needed_wei, balance_wei: head.balance_wei };
        }
        if self.hour_left_wei() < needed_wei {
            return Condition::SpendLimit { needed_wei, left_wei: self.hour_left_wei() };
        }
        Condition::Ready
    }
}

fn empty_slot(nonce: u64, payload: PayloadFacts) -> Slot {
    Slot {
        nonce,
        payload,
        is_withdrawn: false,
        signed: Vec::new(),
        pending: None,
        mined: None,
        is_sending: false,
        sent_at: None,
        retry_at_ns: None,
        since: 0,
        is_underpriced: false,
    }
}
