//! The builder core's thread: rings and clocks around [`Core`], no decisions of its own.

pub mod delegated;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use crate::admin::cells::Wanted;
use crate::builder::block::{Heads, OpenBlock, SealedBlock};
use crate::builder::clock::BlockClock;
use crate::builder::core::{Core, Effects, JournalRoom, NextTurn, Now, Start, StartError};
use crate::builder::execution::ExecutionError;
use crate::builder::journal_outbox::JournalOutbox;
use crate::builder::sealing::ClosedBlock;
use crate::config::Wait;
use crate::journal::record::Record;
use crate::limits;
use crate::mempool::Counts;
use crate::messages::{BuilderReply, ChainMessage, IngressMessage, MeasureJob, StateMessage};
use crate::metrics::BuilderMeter;
use crate::metrics::reasons::{CloseLabel, DropReason, RefusalReason};
use crate::primitives::{Sequence, ShardId};
use crate::ring::{Consumer, Doorbell, Producer};
use crate::runtime::slab::TxHandle;
use crate::runtime::{affinity, clock};
use crate::topology::Shared;
use crate::topology::cold::FaultWatch;

/// The builder's ends of the rings of one shard.
pub struct ShardRings {
    pub from_shard: Consumer<IngressMessage>,
    pub replies: Producer<BuilderReply>,
    pub freed: Producer<TxHandle>,
    /// The shard's bell, rung when there is something to tell its subscribers.
    pub doorbell: Arc<Doorbell>,
}

/// Everything that the builder's thread owns.
pub struct BuilderSeat {
    pub shards: Vec<ShardRings>,
    pub state: Producer<StateMessage>,
    pub sealed: Consumer<SealedBlock>,
    pub chain: Producer<ChainMessage>,
    pub journal: JournalOutbox,
    pub doorbell: Arc<Doorbell>,
    pub shared: Arc<Shared>,
    pub wait: Wait,
    /// What was under way when the process before this one ended.
    pub start: Start,
}

/// Why the builder core's thread ended.
#[derive(Debug, thiserror::Error)]
pub enum BuilderError {
    #[error(transparent)]
    Execution(#[from] ExecutionError),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Runs until the process is told to stop and everything is sealed, or until a fatal error.
///
/// # Errors
/// The state cannot be read, or execution broke its own rules: the process must stop.
pub fn run(seat: BuilderSeat, mut core: Core) -> Result<(), BuilderError> {
    let BuilderSeat { shards, state, mut sealed, chain, journal, doorbell, shared, wait, start } = seat;
    doorbell.adopt_current_thread();
    core.use_block_memory(Arc::clone(&shared.block_memory));
    let mut fault_watch = FaultWatch::default();
    let mut clock = BlockClock::new(clock::monotonic_ns(), clock::wall_unix_ns());
    let (mut inboxes, outboxes): (Vec<_>, Vec<_>) = shards.into_iter().map(ShardRings::split).unzip();
    let mut effects = RingEffects::new(outboxes, state, chain, journal, shared);
    let now = read_clocks(&mut clock);
    let shared = Arc::clone(&effects.shared);
    core.start(start, now, &mut effects)?;
    effects.end_turn();
    let mut pool_version = 0;
    loop {
        let now = read_clocks(&mut clock);
        effects.shared.metrics.builder.turned_ns.set(now.monotonic_ns);
        effects.shared.cold.watch(&mut fault_watch, now.monotonic_ns, affinity::current_thread_major_faults);
        if effects.shared.is_stopping() {
            core.drain(now.monotonic_ns + limits::DRAIN_NS_MAX);
        }
        while let Some(block) = sealed.pop() {
            core.on_sealed(block, &mut effects);
        }
        let verdict = effects.shared.execution.verdict();
        core.on_verdict(verdict.checked, verdict.is_met, verdict.is_halted, &mut effects);
        let view = effects.shared.settlement.view();
        core.on_settlement(view, || shared.settlement.origin(), now, &mut effects);
        let wanted = take_controls(&mut core, &shared, &mut pool_version);
        shared.journal.settled.store(core.settled().0, Ordering::Relaxed);
        effects.durable = effects.shared.gate.durable();
        let message_count = take_messages(&mut core, &mut inboxes, now, &mut effects)?;
        let next = core.turn(now, &mut effects)?;
        // Before anybody hears of the turn: who was answered finds it counted.
        effects.measure(|| (core.pool_counts(), core.sequence()), now);
        effects.end_turn();
        effects.shared.controls.obey(wanted, core.is_at_rest());
        if next == NextTurn::Drained {
            stop(&core, &mut effects, &doorbell);
            return Ok(());
        }
        if message_count == 0 && next != NextTurn::Now {
            // A core that has work and may not do it looks again when the journal has moved.
            let awaited = if matches!(next, NextTurn::Held(_)) { effects.journal.awaited() } else { None };
            effects.shared.gate.want(effects.shared.builder_waiter(), awaited);
            idle(&doorbell, wait, next, now, || {
                !sealed.is_empty()
                    || inboxes.iter().any(|inbox| !inbox.is_empty())
                    || effects.shared.measures.has_answers()
                    || effects.shared.operator.has_jobs()
                    || effects.shared.is_stopping()
                    || effects.shared.execution.verdict() != verdict
                    || effects.shared.settlement.view() != view
                    || effects.shared.controls.wanted() != wanted
                    || awaited.is_some_and(|awaited| awaited <= effects.shared.gate.durable())
            });
        }
    }
}

fn read_clocks(clock: &mut BlockClock) -> Now {
    let monotonic_ns = clock::monotonic_ns();
    Now { monotonic_ns, unix_ns: clock.advance(monotonic_ns, clock::wall_unix_ns()) }
}

/// Takes over what the operator wants: a load each turn, and one more for the pool's bounds, which seldom change.
fn take_controls(core: &mut Core, shared: &Shared, pool_version: &mut u64) -> Wanted {
    let wanted = shared.controls.wanted();
    core.on_controls(wanted);
    let version = shared.limits.pool_version();
    if std::mem::replace(pool_version, version) != version {
        core.set_pool_bounds(shared.limits.pool());
    }
    wanted
}

/// Handles what query threads, the operator and shards have sent, a turn's share of it; answers how much that was.
fn take_messages(
    core: &mut Core,
    inboxes: &mut [Consumer<IngressMessage>],
    now: Now,
    effects: &mut RingEffects,
) -> Result<u32, ExecutionError> {
    let mut count = 0;
    while let Some(measured) = effects.shared.measures.take() {
        core.on_witness(measured, now, effects);
        count += 1;
    }
    while let Some(job) = effects.shared.operator.take() {
        let answer = core.on_operator(job.wish, now, effects);
        // A job has one answer.
        let _ = job.answer.set(answer);
        count += 1;
    }
    for (index, inbox) in inboxes.iter_mut().enumerate() {
        for _ in 0..limits::MESSAGES_PER_TURN_AND_SHARD {
            let Some(message) = inbox.pop() else { break };
            core.on_message(ShardId(index as u16), message, now, effects)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Tells the threads behind the builder core that nothing more comes. No block is open or sealing.
fn stop(core: &Core, effects: &mut RingEffects, doorbell: &Doorbell) {
    stop_journal(effects, doorbell);
    assert!(effects.state.push(StateMessage::Stop).is_ok());
    effects.state.wake();
    effects.chain(ChainMessage::Stop);
    effects.chain.wake();
    if core.pooled_count() > 0 {
        tracing::info!(count = core.pooled_count(), "transactions wait in the journal for the next start");
    }
}

fn stop_journal(effects: &mut RingEffects, doorbell: &Doorbell) {
    while !effects.journal.stop() {
        doorbell.park(Some(Duration::from_nanos(limits::PARK_NS_MAX)), || false);
        effects.end_turn();
    }
}

fn idle(doorbell: &Doorbell, wait: Wait, next: NextTurn, now: Now, has_work: impl Fn() -> bool) {
    if wait == Wait::Spin {
        let until = Instant::now() + Duration::from_nanos(limits::SPIN_NS);
        while Instant::now() < until {
            if has_work() {
                return;
            }
            std::hint::spin_loop();
        }
    }
    let timeout_ns = match next {
        NextTurn::At(at_ns) | NextTurn::Held(at_ns) => at_ns.saturating_sub(now.monotonic_ns).min(limits::PARK_NS_MAX),
        _ => limits::PARK_NS_MAX,
    };
    doorbell.park(Some(Duration::from_nanos(timeout_ns)), has_work);
}

impl ShardRings {
    fn split(self) -> (Consumer<IngressMessage>, Outbox) {
        let Self { from_shard, replies, freed, doorbell } = self;
        (from_shard, Outbox { replies, freed, doorbell, must_ring: false })
    }
}

struct Outbox {
    replies: Producer<BuilderReply>,
    freed: Producer<TxHandle>,
    doorbell: Arc<Doorbell>,
    /// The shard has to look at its ring now; otherwise the journal thread rings when something may leave.
    must_ring: bool,
}

struct RingEffects {
    outboxes: Vec<Outbox>,
    state: Producer<StateMessage>,
    chain: Producer<ChainMessage>,
    journal: JournalOutbox,
    shared: Arc<Shared>,
    /// How far the journal was durable when the turn began.
    durable: Sequence,
    /// Placed transactions since the state thread was last woken.
    followed_count: u32,
    /// Something that subscribers want to hear happened in this turn.
    has_news: bool,
    has_chain_messages: bool,
    /// Something was recorded, or somebody answered, in this turn.
    has_worked: bool,
    /// The oldest record that the journal was given and that is not durable.
    awaited: Option<Sequence>,
}

impl RingEffects {
    fn new(
        outboxes: Vec<Outbox>,
        state: Producer<StateMessage>,
        chain: Producer<ChainMessage>,
        journal: JournalOutbox,
        shared: Arc<Shared>,
    ) -> Self {
        let durable = shared.gate.durable();
        Self {
            outboxes,
            state,
            chain,
            journal,
            shared,
            durable,
            followed_count: 0,
            has_news: false,
            has_chain_messages: false,
            // What an earlier process left in the pool is shown.
            has_worked: true,
            awaited: None,
        }
    }

    fn meter(&self) -> &BuilderMeter {
        &self.shared.metrics.builder
    }

    /// Shows what the turn that began at `now` has come to. The clock is read once more, and only where the turn did something.
    fn measure(&mut self, facts: impl FnOnce() -> (Counts, Sequence), now: Now) {
        let awaited = self.journal.awaited();
        if awaited != std::mem::replace(&mut self.awaited, awaited) {
            self.meter().journal_since_ns.set(if awaited.is_some() { now.monotonic_ns } else { 0 });
        }
        if std::mem::take(&mut self.has_worked) {
            let ((counts, recorded), meter) = (facts(), self.meter());
            meter.pool_ready.set(u64::from(counts.ready));
            meter.pool_queued.set(u64::from(counts.queued));
            meter.pool_bytes.set(counts.bytes);
            meter.recorded.set(recorded.0);
            meter.turn.record(clock::monotonic_ns() - now.monotonic_ns);
        }
    }

    /// Counts an event of the pool or of a block: each is recorded once.
    fn count(&self, record: &Record<'_>) {
        let meter = self.meter();
        match record {
            Record::Admitted(_) => meter.admitted.increment(),
            Record::Dropped { end, .. } => meter.dropped.increment(DropReason::of(end) as usize),
            Record::Placed { .. } => meter.placed.increment(),
            Record::Closed { reason, .. } => meter.closed.increment(CloseLabel::of(*reason) as usize),
            Record::Sealed { .. } => meter.sealed.increment(),
            Record::Carried { .. } | Record::Opened { .. } | Record::RolledBack { .. } => {}
        }
    }

    /// Hands the turn's records to the journal and wakes everyone concerned, once each: who waits for those records is woken by the
    /// journal thread, when they are durable.
    fn end_turn(&mut self) {
        // ORDERING: what was published comes before the look at who listens; pairs with the fence of a shard that begins to listen and
        // then looks at what is published.
        fence(Ordering::SeqCst);
        let is_news_recorded = !self.journal.is_empty();
        for (index, outbox) in self.outboxes.iter_mut().enumerate() {
            let is_listening = self.has_news && self.shared.wants_events[index].load(Ordering::Relaxed);
            if is_listening && is_news_recorded {
                self.journal.wake_when_durable(ShardId(index as u16));
            }
            if std::mem::take(&mut outbox.must_ring) || (is_listening && !is_news_recorded) {
                outbox.doorbell.ring();
            }
        }
        self.has_news = false;
        self.journal.end_turn(self.shared.gate.durable());
        if std::mem::take(&mut self.has_chain_messages) {
            self.chain.wake();
        }
        if self.followed_count >= limits::FOLLOW_WAKE_COUNT {
            self.followed_count = 0;
            self.state.wake();
        }
    }
}

impl Effects for RingEffects {
    fn reply(&mut self, shard: ShardId, reply: BuilderReply) {
        self.has_worked = true;
        if let BuilderReply::Refused { refusal, .. } = &reply {
            self.meter().rejected.increment(RefusalReason::of(refusal) as usize);
        }
        let outbox = &mut self.outboxes[usize::from(shard.0)];
        let gate = reply.gate();
        // The shard keeps at most `IN_FLIGHT_PER_SHARD_MAX` requests unanswered, and the ring has as many slots.
        assert!(outbox.replies.push(reply).is_ok());
        if gate > self.durable && self.journal.holds(gate) {
            self.journal.wake_when_durable(shard);
        } else {
            outbox.must_ring = true;
        }
    }

    fn free(&mut self, handle: TxHandle) {
        let outbox = &mut self.outboxes[usize::from(handle.shard().0)];
        // The ring has a slot for every transaction that the pool and the shard's ring can hold.
        assert!(outbox.freed.push(handle).is_ok());
    }

    fn publish(&mut self, heads: Arc<Heads>) {
        self.shared.heads.store(heads);
        self.has_news = true;
    }

    fn placed(&mut self) {
        self.followed_count += 1;
        self.has_news = true;
    }

    fn open(&mut self, block: Arc<OpenBlock>) {
        assert!(self.state.push(StateMessage::Open(block)).is_ok());
        self.state.wake();
    }

    fn close(&mut self, closed: ClosedBlock) {
        assert!(self.state.push(StateMessage::Close(Box::new(closed))).is_ok());
        self.state.wake();
        self.followed_count = 0;
    }

    fn chain(&mut self, message: ChainMessage) {
        // Admission left a slot for the end of everything pooled, and `CHAIN_RING_RESERVE` for blocks.
        assert!(self.chain.push(message).is_ok());
        self.has_chain_messages = true;
    }

    fn chain_room(&self) -> usize {
        self.chain.slots() - self.chain.len()
    }

    fn record(&mut self, sequence: Sequence, record: &Record<'_>) {
        self.has_worked = true;
        self.count(record);
        self.journal.record(sequence, record);
    }

    fn journal_room(&self) -> JournalRoom {
        self.journal.room()
    }

    fn durable(&self) -> Sequence {
        self.durable
    }

    fn measure(&mut self, job: MeasureJob) -> bool {
        self.shared.measures.ask(job)
    }

    fn carry_below(&self) -> Sequence {
        self.journal.carry_below()
    }
}
