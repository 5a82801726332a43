//! The builder core's thread where an execution client builds: rings and clocks around [`DelegatedCore`], no decisions of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{BuilderError, RingEffects, ShardRings, idle, read_clocks};
use crate::admin::cells::Wanted;
use crate::builder::clock::BlockClock;
use crate::builder::core::delegated::{Ask, DelegatedCore};
use crate::builder::core::{Effects, NextTurn, Now, Start};
use crate::builder::journal_outbox::JournalOutbox;
use crate::config::Wait;
use crate::limits;
use crate::messages::{AccountAnswer, AccountQuestion, BuildAnswer, BuildRequest, ChainMessage, IngressMessage};
use crate::primitives::ShardId;
use crate::ring::{Consumer, Doorbell, Producer, ring};
use crate::runtime::clock;
use crate::topology::Shared;

/// Everything that the builder's thread owns.
pub struct DelegatedSeat {
    pub shards: Vec<ShardRings>,
    pub chain: Producer<ChainMessage>,
    pub journal: JournalOutbox,
    pub to_accounts: Producer<AccountQuestion>,
    pub from_accounts: Consumer<AccountAnswer>,
    pub to_build: Producer<BuildRequest>,
    pub from_build: Consumer<BuildAnswer>,
    pub doorbell: Arc<Doorbell>,
    pub shared: Arc<Shared>,
    pub wait: Wait,
    pub start: Start,
}

/// The rings of the client's threads.
struct ClientRings {
    to_accounts: Producer<AccountQuestion>,
    from_accounts: Consumer<AccountAnswer>,
    to_build: Producer<BuildRequest>,
    from_build: Consumer<BuildAnswer>,
}

/// Runs until the process is told to stop, or until a fatal error.
///
/// # Errors
/// A pool with less room than the journal holds.
pub fn run(seat: DelegatedSeat, mut core: DelegatedCore) -> Result<(), BuilderError> {
    let DelegatedSeat {
        shards,
        chain,
        journal,
        to_accounts,
        from_accounts,
        to_build,
        from_build,
        doorbell,
        shared,
        wait,
        start,
    } = seat;
    doorbell.adopt_current_thread();
    let mut clock = BlockClock::new(clock::monotonic_ns(), clock::wall_unix_ns());
    let (mut inboxes, outboxes): (Vec<_>, Vec<_>) = shards.into_iter().map(ShardRings::split).unzip();
    // There is no state thread: nothing is ever sent.
    let (state, _) = ring(1, &doorbell);
    let mut effects = RingEffects::new(outboxes, state, chain, journal, Arc::clone(&shared));
    let mut client = ClientRings { to_accounts, from_accounts, to_build, from_build };
    let mut asks = Vec::new();
    let mut pool_version = 0;
    core.start(start, read_clocks(&mut clock), &mut asks)?;
    loop {
        let now = read_clocks(&mut clock);
        shared.metrics.builder.turned_ns.set(now.monotonic_ns);
        if shared.is_stopping() {
            core.drain(now.monotonic_ns + limits::DRAIN_NS_MAX);
        }
        let verdict = shared.execution.verdict();
        core.on_verdict(verdict.checked, verdict.is_met, verdict.is_halted, now, &mut effects, &mut asks);
        let view = shared.settlement.view();
        core.on_settlement(view, || shared.settlement.origin(), now, &mut effects);
        let wanted = take_controls(&mut core, &shared, &mut pool_version);
        shared.journal.settled.store(core.settled().0, Ordering::Relaxed);
        effects.durable = shared.gate.durable();
        let mut count = client.take_answers(&mut core, now, &mut effects, &mut asks);
        count += take_messages(&mut core, &mut inboxes, now, &mut effects, &mut asks);
        let next = core.turn(now, &mut effects, &mut asks);
        shared.execution.set_build_trouble(core.trouble());
        client.send(&mut core, &mut asks);
        effects.end_turn();
        shared.controls.obey(wanted, core.is_at_rest());
        effects.measure(|| (core.pool_counts(), core.sequence()), now);
        if next == NextTurn::Drained {
            stop(&core, &mut effects, &doorbell);
            return Ok(());
        }
        if count == 0 && next != NextTurn::Now {
            let awaited = if matches!(next, NextTurn::Held(_)) { effects.journal.awaited() } else { None };
            shared.gate.want(shared.builder_waiter(), awaited);
            idle(&doorbell, wait, next, now, || {
                inboxes.iter().any(|inbox| !inbox.is_empty())
                    || !client.from_accounts.is_empty()
                    || !client.from_build.is_empty()
                    || shared.operator.has_jobs()
                    || shared.is_stopping()
                    || shared.controls.wanted() != wanted
                    || shared.execution.verdict() != verdict
                    || shared.settlement.view() != view
                    || awaited.is_some_and(|awaited| awaited <= shared.gate.durable())
            });
        }
    }
}

/// As the other core's driver does.
fn take_controls(core: &mut DelegatedCore, shared: &Shared, pool_version: &mut u64) -> Wanted {
    let wanted = shared.controls.wanted();
    core.on_controls(wanted);
    let version = shared.limits.pool_version();
    if std::mem::replace(pool_version, version) != version {
        core.set_pool_bounds(shared.limits.pool());
    }
    wanted
}

impl ClientRings {
    fn take_answers(
        &mut self,
        core: &mut DelegatedCore,
        now: Now,
        effects: &mut RingEffects,
        asks: &mut Vec<Ask>,
    ) -> u32 {
        let mut count = 0;
        while let Some(answer) = self.from_build.pop() {
            core.on_build(answer, now, effects);
            count += 1;
        }
        while count < limits::MESSAGES_PER_TURN_AND_SHARD as u32
            && let Some(answer) = self.from_accounts.pop()
        {
            core.on_account(answer, now, effects, asks);
            count += 1;
        }
        count
    }

    fn send(&mut self, core: &mut DelegatedCore, asks: &mut Vec<Ask>) {
        let mut has_questions = false;
        for ask in asks.drain(..) {
            match ask {
                Ask::Account { address, head } => {
                    if self.to_accounts.push(AccountQuestion { address, head }).is_err() {
                        core.on_unasked(&address);
                    }
                    has_questions = true;
                }
                Ask::Build(request) => {
                    // One is asked for at a time.
                    assert!(self.to_build.push(*request).is_ok());
                    self.to_build.wake();
                }
            }
        }
        if has_questions {
            self.to_accounts.wake();
        }
    }
}

fn take_messages(
    core: &mut DelegatedCore,
    inboxes: &mut [Consumer<IngressMessage>],
    now: Now,
    effects: &mut RingEffects,
    asks: &mut Vec<Ask>,
) -> u32 {
    let mut count = 0;
    while let Some(job) = effects.shared.operator.take() {
        let answer = core.on_operator(job.wish, now, effects);
        // A job has one answer.
        let _ = job.answer.set(answer);
        count += 1;
    }
    for (index, inbox) in inboxes.iter_mut().enumerate() {
        for _ in 0..limits::MESSAGES_PER_TURN_AND_SHARD {
            let Some(message) = inbox.pop() else { break };
            core.on_message(ShardId(index as u16), message, now, effects, asks);
            count += 1;
        }
    }
    count
}

/// Tells the threads behind the builder core that nothing more comes.
fn stop(core: &DelegatedCore, effects: &mut RingEffects, doorbell: &Doorbell) {
    super::stop_journal(effects, doorbell);
    effects.chain(ChainMessage::Stop);
    effects.chain.wake();
    if core.pooled_count() > 0 {
        tracing::info!(count = core.pooled_count(), "transactions wait in the journal for the next start");
    }
}
