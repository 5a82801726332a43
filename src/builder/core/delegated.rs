//! The builder core where an execution client builds: messages and time in, replies, questions to the client, blocks and ended transactions out.
//!
//! Runs on: builder core; it never blocks. It owns the pool and the order of records as [`Core`](super::Core) does, and no state: what it has to know of an account
//! it asks for ([`Ask`]), and keeps until the client's head moves ([`views`]). One block is asked for at a time, and only while the client's head is
//! our newest block; it comes back whole, executed by our own validator, and its records are written together. Nothing leaves the pool before.
//! With an L1 a block stands on its origin, as in the other modes. Deliberately absent: an open block, preconfirmations, conditions (ERC-7796).

mod admission;
mod operator;
mod pick;
mod taking;
mod views;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::reads::pool_content;
use super::settled::Settlement;
use super::{CoreSettings, Effects, JournalRoom, NextTurn, Now, Payload, Start, StartError, append};
use crate::admin::cells::Wanted;
use crate::builder::block::{BlockContext, BlockMemory, Heads, OpenBlock, SealedBlock, next_base_fee_wei};
use crate::builder::clock::next_timestamp;
use crate::limits;
use crate::mempool::{AccountView, Counts, Invalid, Mempool, Readiness, Removed, TxId};
use crate::messages::{
    AccountAnswer, BuildAnswer, BuildRequest, BuildTx, BuilderAnswer, BuilderRead, BuilderReply, ChainMessage,
    GivenBlock, IngressMessage, LiveStatus, PooledTx, Refusal,
};
use crate::primitives::{Address, Bytes, Fork, ReplyToken, Sequence, ShardId, U256};
use crate::runtime::slab::SlabReader;
use crate::settlement::cells::{Origin, SettlementView};
use pick::Budget;
use views::Views;

/// How long a submission waits for its sender's account before it is refused.
const LOOK_UP_NS_MAX: u64 = 5_000_000_000;
/// Pause after the client could not build.
const BUILD_RETRY_NS: u64 = 250_000_000;
/// How long what is ready may wait for the client before admission is held.
const HOLD_NS: u64 = 5_000_000_000;

/// What is asked of the execution client's threads.
#[derive(Debug)]
pub enum Ask {
    /// The account after block `head`.
    Account {
        address: Address,
        head: u64,
    },
    Build(Box<BuildRequest>),
}

/// Who waits for a block to be `latest`.
struct Waiter {
    block: Arc<SealedBlock>,
    shard: ShardId,
    token: ReplyToken,
    index: u32,
}

enum Phase {
    Idle,
    /// Something is ready; the block is asked for at this monotonic time.
    Gathering {
        until_ns: u64,
    },
    /// Asked for, with the next nonce of each sender behind what it holds.
    Building {
        next_nonces: HashMap<Address, u64, RandomState>,
    },
}

/// See the module's text.
pub struct DelegatedCore {
    settings: CoreSettings,
    fork_at: Box<dyn Fn(u64) -> Fork + Send>,
    pool: Mempool<Payload>,
    slabs: Vec<SlabReader>,
    memory: Arc<BlockMemory>,
    parent: Arc<SealedBlock>,
    recent: VecDeque<Arc<SealedBlock>>,
    phase: Phase,
    sequence: Sequence,
    views: Views,
    /// What is built before anything else, as long as it stands on our newest block.
    given: Option<GivenBlock>,
    /// Senders of restored transactions whose accounts are not known yet: nothing is built before.
    restoring: HashSet<Address, RandomState>,
    removed: Vec<Removed<Payload>>,
    waiters: Vec<Waiter>,
    /// Number of the newest block that is `latest`.
    checked: u64,
    is_met: bool,
    is_halted: bool,
    /// What the operator wants.
    wanted: Wanted,
    settlement: Settlement,
    last_opened_ns: u64,
    /// Monotonic time before which the client is not asked to build again.
    retry_ns: u64,
    /// Monotonic time since which something is ready and no block was taken.
    ready_since_ns: Option<u64>,
    /// Why the client has not built what it was asked for last.
    trouble: Option<String>,
    /// Monotonic deadline of the drain.
    drain_until_ns: Option<u64>,
    carrying: VecDeque<TxId>,
    carried_below: Sequence,
}

impl DelegatedCore {
    /// A core that continues after the last of `recent` (oldest first) and the record `sequence`; blocks up to `checked` were `latest` before.
    #[must_use]
    pub fn new(
        settings: CoreSettings,
        pool: Mempool<Payload>,
        slabs: Vec<SlabReader>,
        memory: Arc<BlockMemory>,
        recent: Vec<Arc<SealedBlock>>,
        sequence: Sequence,
        checked: u64,
        fork_at: Box<dyn Fn(u64) -> Fork + Send>,
        now: Now,
    ) -> Self {
        let parent = Arc::clone(recent.last().expect("the caller brings at least the block to continue after"));
        let mut core = Self {
            settings,
            fork_at,
            pool,
            slabs,
            memory,
            recent: recent.into(),
            phase: Phase::Idle,
            sequence,
            views: Views::new(parent.header.number),
            parent,
            given: None,
            restoring: HashSet::default(),
            removed: Vec::with_capacity(64),
            waiters: Vec::new(),
            checked,
            is_met: false,
            is_halted: false,
            wanted: Wanted::default(),
            settlement: Settlement::default(),
            last_opened_ns: now.monotonic_ns,
            retry_ns: 0,
            ready_since_ns: None,
            trouble: None,
            drain_until_ns: None,
            carrying: VecDeque::new(),
            carried_below: Sequence(0),
        };
        core.pool.set_base_fee(u128::from(next_base_fee_wei(&core.parent.header)));
        core
    }

    /// Takes over what was pooled, in the order of arrival. What its accounts say of it is asked for.
    ///
    /// # Errors
    /// A pool with less room than the journal holds.
    pub fn start(&mut self, start: Start, now: Now, asks: &mut Vec<Ask>) -> Result<(), StartError> {
        self.given = start.given;
        let mut lowest: HashMap<Address, u64, RandomState> = HashMap::default();
        for tx in &start.pooled {
            let nonce = lowest.entry(tx.sender).or_insert(tx.fields.nonce);
            *nonce = tx.fields.nonce.min(*nonce);
        }
        for tx in start.pooled {
            let (hash, sender) = (tx.hash, tx.sender);
            let entered_ns = now.monotonic_ns.saturating_sub(now.unix_ns.saturating_sub(tx.accepted_unix_ns));
            // Until the client has said how the account is: nothing is built before.
            let account = any_account(lowest.get(&sender).copied().unwrap_or_default());
            self.pool
                .restore(super::start::submission(tx), &account, entered_ns)
                .map_err(|source| StartError::Pool { hash, source: Box::new(source) })?;
            if self.restoring.insert(sender) {
                self.look_up(sender, asks);
            }
        }
        Ok(())
    }

    /// Sequence of the newest record: what a journal has to make durable.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// What is in the pool.
    #[must_use]
    pub fn pool_counts(&self) -> Counts {
        self.pool.counts()
    }

    /// How many transactions are pooled: after a stop they wait in the journal for the next start.
    #[must_use]
    pub fn pooled_count(&self) -> u64 {
        let counts = self.pool.counts();
        u64::from(counts.ready) + u64::from(counts.queued)
    }

    /// The tip as other threads shall see it. No block is ever open.
    #[must_use]
    pub fn heads(&self) -> Arc<Heads> {
        let heads = Heads::checked(self.recent.iter().cloned().collect(), None::<Arc<OpenBlock>>, self.checked);
        let view = &self.settlement.view;
        Arc::new(heads.settled(view.safe, view.finalized))
    }

    /// Blocks settle on L1 from now on: none is asked for before L1 was derived to its head.
    pub fn expect_settlement(&mut self, view: SettlementView) {
        self.settlement = Settlement::expected(view, self.parent.header.number, self.sequence);
    }

    /// Takes over what L1 has made of our blocks. `origin` is read when the version in `view` is new.
    pub fn on_settlement(
        &mut self,
        view: SettlementView,
        origin: impl FnOnce() -> Option<Origin>,
        now: Now,
        effects: &mut impl Effects,
    ) {
        if self.settlement.heard(view, origin, self.parent.header.number, now, effects) {
            effects.publish(self.heads());
        }
    }

    /// Records up to here are no longer needed to take blocks back.
    #[must_use]
    pub fn settled(&self) -> Sequence {
        self.settlement.settled()
    }

    /// Stops admission; what is ready is still built until `until_ns`.
    pub fn drain(&mut self, until_ns: u64) {
        self.drain_until_ns.get_or_insert(until_ns);
    }

    /// Handles one message of an ingress shard.
    pub fn on_message(
        &mut self,
        shard: ShardId,
        message: IngressMessage,
        now: Now,
        effects: &mut impl Effects,
        asks: &mut Vec<Ask>,
    ) {
        match message {
            IngressMessage::Submit(submit) => self.submit(shard, submit, now, effects, asks),
            IngressMessage::Read { token, read } => {
                let answer = self.answer(read);
                effects.reply(shard, BuilderReply::Answer { token, answer, gate: self.sequence });
            }
            IngressMessage::ForgetSync { token, hash } => {
                self.waiters.retain(|waiter| waiter.token != token);
                if let Some(payload) = self.pool.payload_mut(&hash)
                    && payload.waiter == Some(token)
                {
                    payload.waiter = None;
                }
            }
        }
    }

    /// Takes over how far the execution client has come, and shows it to everyone.
    pub fn on_verdict(
        &mut self,
        checked: u64,
        is_met: bool,
        is_halted: bool,
        now: Now,
        effects: &mut impl Effects,
        asks: &mut Vec<Ask>,
    ) {
        let was_met = std::mem::replace(&mut self.is_met, is_met);
        self.is_halted = is_halted;
        if checked == self.checked && was_met == is_met {
            return;
        }
        self.checked = checked;
        effects.publish(self.heads());
        let (shown, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiters).into_iter().partition(|waiter| waiter.block.header.number <= checked);
        self.waiters = waiting;
        for Waiter { block, shard, token, index } in shown {
            let gate = block.sequence;
            effects.reply(shard, BuilderReply::Preconfirmed { token, block: Arc::clone(&block.block), index, gate });
        }
        if checked >= self.parent.header.number {
            self.views.head_moved(self.parent.header.number);
            self.resume_waiting(now, effects, asks);
        }
    }

    /// Asks for a block when it is time.
    pub fn turn(&mut self, now: Now, effects: &mut impl Effects, asks: &mut Vec<Ask>) -> NextTurn {
        let room = effects.journal_room();
        self.refuse_overdue(now, effects);
        if let Phase::Building { .. } = self.phase {
            // What was picked must not expire under it; the drain waits for it, as long as it may.
            return match self.drain_until_ns {
                Some(until_ns) if now.monotonic_ns >= until_ns => NextTurn::Drained,
                _ => NextTurn::OnMessage,
            };
        }
        self.ask_for_restored(now, asks);
        if room >= JournalRoom::Busy {
            self.expire(now, effects);
            self.carry(effects);
        }
        // What is held would wait for nothing.
        let parent_hash = self.parent.hash;
        self.given.take_if(|given| given.request.context.parent_hash != parent_hash);
        let is_wanted = self.given.is_some() || self.pool.best().is_some();
        let has_work = self.settings.execute && !self.is_held() && is_wanted;
        self.wait_since(has_work, now);
        let may_build = self.may_build(room, effects);
        if let Some(until_ns) = self.drain_until_ns
            && (now.monotonic_ns >= until_ns || !has_work)
        {
            return self.drained(effects);
        }
        if !may_build {
            return NextTurn::Held(now.monotonic_ns + limits::PARK_NS_MAX);
        }
        let empty_due_ns =
            (self.settings.empty_interval_ns > 0).then(|| self.last_opened_ns + self.settings.empty_interval_ns);
        let is_empty_due = empty_due_ns.is_some_and(|due_ns| now.monotonic_ns >= due_ns);
        let until_ns = match self.phase {
            Phase::Gathering { until_ns } if has_work || is_empty_due => until_ns,
            _ if has_work => now.monotonic_ns + self.settings.interval_ns,
            _ if is_empty_due => now.monotonic_ns,
            _ => {
                self.phase = Phase::Idle;
                return empty_due_ns.map_or(NextTurn::OnMessage, NextTurn::At);
            }
        };
        self.phase = Phase::Gathering { until_ns };
        let until_ns = if self.drain_until_ns.is_some() { now.monotonic_ns } else { until_ns.max(self.retry_ns) };
        if now.monotonic_ns < until_ns {
            return NextTurn::At(until_ns);
        }
        self.ask_for_block(now, effects, asks)
    }

    /// The answer to [`Ask::Account`].
    pub fn on_account(&mut self, answer: AccountAnswer, now: Now, effects: &mut impl Effects, asks: &mut Vec<Ask>) {
        let AccountAnswer { address, head, view } = answer;
        match view {
            Err(why) => {
                self.views.failed(&address);
                tracing::debug!(%address, why, "an account could not be read from the execution client");
                for waiting in self.views.take_waiting(&address) {
                    self.refuse_waiting(waiting, Refusal::ClientAway, effects);
                }
                // Asked again with the next turn that wants it: at the latest when the client's head was read.
            }
            Ok(view) => {
                if !self.views.answered(address, head, view) {
                    if self.views.has_waiting(&address) || self.restoring.contains(&address) {
                        self.look_up(address, asks);
                    }
                    return;
                }
                let Some(view) = self.views.get(&address) else { return };
                if !matches!(self.phase, Phase::Building { .. }) || self.restoring.contains(&address) {
                    self.pool.account_changed(&address, &view, now.monotonic_ns, &mut self.removed);
                    self.settle_removed(now, effects);
                }
                self.restoring.remove(&address);
                for waiting in self.views.take_waiting(&address) {
                    self.admit(waiting.shard, waiting.submit, view, now, effects);
                }
            }
        }
    }

    /// The answer to [`Ask::Build`].
    pub fn on_build(&mut self, answer: BuildAnswer, now: Now, effects: &mut impl Effects) {
        self.phase = Phase::Idle;
        if !matches!(answer, BuildAnswer::Failed { .. }) {
            self.trouble = None;
        }
        match answer {
            BuildAnswer::Built(built) => {
                self.ready_since_ns = None;
                self.take_block(*built, now, effects);
            }
            // Strict re-execution has placed every one of them: it is the client that has to be looked at.
            BuildAnswer::Refused { hash, reason } if self.given.is_some() => {
                let why = format!("transaction {hash} of a block that L1 has begun: {reason}");
                self.failed(why, now);
            }
            BuildAnswer::Refused { hash, reason } => {
                // The rest is asked for at once.
                self.phase = Phase::Gathering { until_ns: now.monotonic_ns };
                self.end_refused(&hash, &reason, now, effects);
            }
            BuildAnswer::Failed { why } => self.failed(why, now),
            // The cells say so too, and the next verdict tells.
            BuildAnswer::Contradicted { .. } => self.is_halted = true,
        }
    }

    fn failed(&mut self, why: String, now: Now) {
        // Said once: it is asked four times a second.
        if self.trouble.as_ref() != Some(&why) {
            tracing::warn!(why, "the execution client has built no block");
        }
        self.trouble = Some(why);
        self.retry_ns = now.monotonic_ns + BUILD_RETRY_NS;
    }

    // ---- what is asked ----------------------------------------------------------------------------------------------------------------

    fn may_build(&self, room: JournalRoom, effects: &impl Effects) -> bool {
        let before = self.recent.len().checked_sub(2).and_then(|index| self.recent.get(index));
        room == JournalRoom::Plenty
            && self.is_met
            && !self.is_held()
            && self.checked >= self.parent.header.number
            && self.settlement.may_open(&self.parent.header)
            && self.restoring.is_empty()
            && before.is_none_or(|block| block.sequence <= effects.durable())
            && effects.chain_room() >= limits::CHAIN_RING_RESERVE / 2
    }

    fn ask_for_block(&mut self, now: Now, effects: &mut impl Effects, asks: &mut Vec<Ask>) -> NextTurn {
        if let Some(GivenBlock { request, next_nonces }) = &self.given {
            self.last_opened_ns = now.monotonic_ns;
            self.phase = Phase::Building { next_nonces: next_nonces.iter().copied().collect() };
            asks.push(Ask::Build(Box::new(request.clone())));
            return NextTurn::OnMessage;
        }
        let parent = &self.parent.header;
        let timestamp = match next_timestamp(parent.timestamp, now.unix_ns, self.settings.timestamp_lead_s) {
            Ok(timestamp) => timestamp,
            Err(wait_until_unix_ns) => {
                return NextTurn::At(now.monotonic_ns + wait_until_unix_ns.saturating_sub(now.unix_ns));
            }
        };
        let base_fee_wei = next_base_fee_wei(parent);
        // The client may lower its gas limit by less than a 1,024th.
        let gas = parent.gas_limit - parent.gas_limit / 1_024;
        let budget = Budget { gas, bytes: limits::BLOCK_BODY_BYTES_MAX };
        let picked = pick::pick(&self.pool, u128::from(base_fee_wei), budget, |payload: &Payload| payload.admitted.0);
        if picked.is_empty()
            && let Some(best) = self.pool.best()
        {
            // No block of the client's is large enough for it.
            let (id, tx) = (best.id, best.submission.fields.gas_limit);
            let reason = Invalid::GasAboveBlock { tx, block: gas };
            self.pool.invalid(id, reason, now.monotonic_ns, &mut self.removed);
            self.settle_removed(now, effects);
            return NextTurn::Now;
        }
        let mut next_nonces = HashMap::default();
        let mut transactions = Vec::with_capacity(picked.len());
        for hash in picked {
            let Some(pooled) = self.pool.get(&hash) else { continue };
            let submission = pooled.submission;
            next_nonces.insert(submission.sender, submission.fields.nonce + 1);
            transactions.push(BuildTx {
                hash,
                raw: Bytes::copy_from_slice(submission.payload.bytes.of(&self.slabs)),
                sender: submission.sender,
                authorities: submission.payload.authorities.clone(),
            });
        }
        let (prev_randao, parent_beacon_block_root) = self.settlement.origin_fields(parent);
        let context = BlockContext {
            number: parent.number + 1,
            parent_hash: self.parent.hash,
            timestamp,
            base_fee_per_gas_wei: base_fee_wei,
            prev_randao,
            coinbase: self.settings.coinbase,
            gas_limit: parent.gas_limit,
            extra_data: self.settings.extra_data.clone(),
            parent_beacon_block_root,
            fork: (self.fork_at)(timestamp),
        };
        self.last_opened_ns = now.monotonic_ns;
        self.phase = Phase::Building { next_nonces };
        asks.push(Ask::Build(Box::new(BuildRequest { context, transactions, is_given: false })));
        NextTurn::OnMessage
    }

    /// Keeps how long what is ready has waited. Trouble with a block that nobody wants any more is over.
    fn wait_since(&mut self, has_work: bool, now: Now) {
        if has_work {
            self.ready_since_ns.get_or_insert(now.monotonic_ns);
        } else {
            (self.ready_since_ns, self.trouble) = (None, None);
        }
    }

    /// Why the client has not built what it was asked for last.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether what is ready has waited for the client for too long: it builds nothing, or does not follow.
    fn is_client_behind(&self, now: Now) -> bool {
        let is_behind = self.trouble.is_some() || self.checked < self.parent.header.number;
        let wait_ns_max = HOLD_NS + self.settings.interval_ns;
        is_behind && self.ready_since_ns.is_some_and(|since_ns| now.monotonic_ns > since_ns + wait_ns_max)
    }

    /// The drain is over when what was asked for is there and nothing of it waits for the client.
    fn drained(&mut self, effects: &mut impl Effects) -> NextTurn {
        for waiting in self.views.take_all() {
            self.refuse_waiting(waiting, Refusal::Draining, effects);
        }
        NextTurn::Drained
    }

    /// Accounts of what was pooled before the start, whose question got no answer, are asked for again.
    fn ask_for_restored(&mut self, now: Now, asks: &mut Vec<Ask>) {
        if self.restoring.is_empty() || now.monotonic_ns < self.retry_ns {
            return;
        }
        self.retry_ns = now.monotonic_ns + BUILD_RETRY_NS;
        for address in self.restoring.iter().copied().collect::<Vec<_>>() {
            self.look_up(address, asks);
        }
    }

    /// The question found no room on its way: it is asked again when somebody waits.
    pub fn on_unasked(&mut self, address: &Address) {
        self.views.failed(address);
    }

    fn look_up(&mut self, address: Address, asks: &mut Vec<Ask>) {
        if self.views.ask(address) {
            asks.push(Ask::Account { address, head: self.views.head() });
        }
    }

    // ---- what is read -----------------------------------------------------------------------------------------------------------------

    fn answer(&self, read: BuilderRead) -> BuilderAnswer {
        match read {
            // What the pool does not know, the client does.
            BuilderRead::Account { address } => BuilderAnswer::PendingNonce(self.pool.pending_nonce(&address)),
            BuilderRead::Slot { .. } => BuilderAnswer::PendingNonce(None),
            BuilderRead::Transaction { hash } => BuilderAnswer::Transaction(self.pool.get(&hash).map(|pooled| {
                let payload = &pooled.submission.payload;
                PooledTx {
                    raw: Bytes::copy_from_slice(payload.bytes.of(&self.slabs)),
                    sender: pooled.submission.sender,
                }
            })),
            BuilderRead::Status { hash } => BuilderAnswer::Status(self.pool.get(&hash).map(|pooled| {
                let accepted_unix_ns = pooled.submission.payload.accepted_unix_ns;
                match pooled.readiness {
                    Readiness::Ready => LiveStatus::Ready { accepted_unix_ns },
                    Readiness::Queued => LiveStatus::Queued { accepted_unix_ns },
                }
            })),
            BuilderRead::PoolStatus => {
                let counts = self.pool.counts();
                BuilderAnswer::PoolStatus {
                    ready_count: u64::from(counts.ready),
                    queued_count: u64::from(counts.queued),
                    bytes: counts.bytes,
                }
            }
            BuilderRead::PoolContent { sender } => pool_content(&self.pool, &self.slabs, sender),
        }
    }

    /// Adds to the blocks in memory; those that leave go to the chain thread, which pays for freeing them.
    fn remember(&mut self, sealed: Arc<SealedBlock>, effects: &mut impl Effects) {
        self.recent.push_back(sealed);
        let mut bytes: u64 = self.recent.iter().map(|block| block.held_bytes).sum();
        while (self.recent.len() > limits::RECENT_BLOCKS_MAX
            || (bytes > limits::RECENT_BLOCKS_BYTES_MAX && self.recent.len() > super::RECENT_BLOCKS_MIN))
            && self.recent.front().is_some_and(|oldest| oldest.header.number < self.checked)
        {
            let Some(oldest) = self.recent.pop_front() else { break };
            bytes -= oldest.held_bytes;
            effects.chain(ChainMessage::Forget(oldest));
        }
    }
}

/// An account that stands in the way of nothing from this nonce on.
fn any_account(nonce: u64) -> AccountView {
    AccountView { balance_wei: U256::MAX, nonce, has_code_not_delegation: false, is_delegated: false }
}

#[cfg(test)]
mod tests;
