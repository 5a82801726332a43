//! The builder core's thread: rings and clocks around [`Core`], no decisions of its own.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use crate::builder::block::{Heads, OpenBlock, SealedBlock};
use crate::builder::clock::BlockClock;
use crate::builder::core::{Core, Effects, NextTurn, Now};
use crate::builder::execution::ExecutionError;
use crate::builder::sealing::ClosedBlock;
use crate::config::Wait;
use crate::limits;
use crate::messages::{BuilderReply, ChainMessage, IngressMessage, StateMessage};
use crate::primitives::ShardId;
use crate::ring::{Consumer, Doorbell, Producer};
use crate::runtime::clock;
use crate::runtime::slab::TxHandle;
use crate::topology::Shared;

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
    pub doorbell: Arc<Doorbell>,
    pub shared: Arc<Shared>,
    pub wait: Wait,
}

/// Runs until the process is told to stop and everything is sealed, or until a fatal error.
///
/// # Errors
/// The state cannot be read, or execution broke its own rules: the process must stop.
pub fn run(seat: BuilderSeat, mut core: Core) -> Result<(), ExecutionError> {
    let BuilderSeat { shards, state, mut sealed, chain, doorbell, shared, wait } = seat;
    doorbell.adopt_current_thread();
    let mut clock = BlockClock::new(clock::monotonic_ns(), clock::wall_unix_ns());
    let (mut inboxes, outboxes): (Vec<_>, Vec<_>) = shards
        .into_iter()
        .map(|rings| {
            let outbox =
                Outbox { replies: rings.replies, freed: rings.freed, doorbell: rings.doorbell, has_replies: false };
            (rings.from_shard, outbox)
        })
        .unzip();
    let mut effects =
        RingEffects { outboxes, state, chain, shared, followed_count: 0, has_news: false, has_chain_messages: false };
    loop {
        let monotonic_ns = clock::monotonic_ns();
        let now = Now { monotonic_ns, unix_ns: clock.advance(monotonic_ns, clock::wall_unix_ns()) };
        if effects.shared.is_stopping() {
            core.drain(now.monotonic_ns + limits::DRAIN_NS_MAX);
        }
        while let Some(block) = sealed.pop() {
            core.on_sealed(block, &mut effects);
        }
        let mut message_count = 0;
        for (index, inbox) in inboxes.iter_mut().enumerate() {
            for _ in 0..limits::MESSAGES_PER_TURN_AND_SHARD {
                let Some(message) = inbox.pop() else { break };
                core.on_message(ShardId(index as u16), message, now, &mut effects)?;
                message_count += 1;
            }
        }
        let next = core.turn(now, &mut effects)?;
        effects.end_turn(&core);
        if next == NextTurn::Drained {
            // No block is open or sealing, so both rings have room.
            assert!(effects.state.push(StateMessage::Stop).is_ok());
            effects.state.wake();
            effects.chain(ChainMessage::Stop);
            effects.chain.wake();
            if core.abandoned_count() > 0 {
                tracing::warn!(
                    count = core.abandoned_count(),
                    "transactions were not placed before the stop; their status says so"
                );
            }
            return Ok(());
        }
        if message_count == 0 && next != NextTurn::Now {
            idle(&doorbell, wait, next, now, || {
                !sealed.is_empty() || inboxes.iter().any(|inbox| !inbox.is_empty()) || effects.shared.is_stopping()
            });
        }
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
        NextTurn::At(at_ns) => at_ns.saturating_sub(now.monotonic_ns).min(limits::PARK_NS_MAX),
        _ => limits::PARK_NS_MAX,
    };
    doorbell.park(Some(Duration::from_nanos(timeout_ns)), has_work);
}

struct Outbox {
    replies: Producer<BuilderReply>,
    freed: Producer<TxHandle>,
    doorbell: Arc<Doorbell>,
    has_replies: bool,
}

struct RingEffects {
    outboxes: Vec<Outbox>,
    state: Producer<StateMessage>,
    chain: Producer<ChainMessage>,
    shared: Arc<Shared>,
    /// Placed transactions since the state thread was last woken.
    followed_count: u32,
    /// Something that subscribers want to hear happened in this turn.
    has_news: bool,
    has_chain_messages: bool,
}

impl RingEffects {
    /// Makes the turn's records durable (a null journal: at once), then wakes everyone concerned, once each.
    fn end_turn(&mut self, core: &Core) {
        // ORDERING: Release; a shard that sees the sequence by its Acquire load sees everything published before it.
        self.shared.durable_seq.store(core.sequence().0, Ordering::Release);
        // ORDERING: what was published above comes before the look at who listens; pairs with the fence of a shard that begins to listen
        // and then looks at what is published.
        fence(Ordering::SeqCst);
        for (index, outbox) in self.outboxes.iter_mut().enumerate() {
            let is_listening = self.has_news && self.shared.wants_events[index].load(Ordering::Relaxed);
            if std::mem::take(&mut outbox.has_replies) || is_listening {
                outbox.doorbell.ring();
            }
        }
        self.has_news = false;
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
        let outbox = &mut self.outboxes[usize::from(shard.0)];
        // The shard keeps at most `IN_FLIGHT_PER_SHARD_MAX` requests unanswered, and the ring has as many slots.
        assert!(outbox.replies.push(reply).is_ok());
        outbox.has_replies = true;
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
}
