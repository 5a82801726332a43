//! One ingress shard without sockets: bytes of connections in, messages to builder and query pool out, their answers back.
//!
//! Owner core: its own ingress shard; the driver (`super::driver`) owns sockets, clock and sleep. Per turn of the driver's loop:
//!
//! ```text
//!  input() for every readable connection ─► turn(): answers of builder and query pool, time-outs, subscriptions ─► one write each
//!                                       └─► form(): one recover_batch over the turn's transactions, one wake of the builder
//! ```
//!
//! Invariants: a reply leaves only when the sequence it depends on is durable; what the builder core and the query pool may owe this
//! shard is counted, so that their reply rings never overflow; a reply never reaches the next connection of a slot.
//! Absent on purpose: the EVM, files, blocking, logs.

mod desk;
mod filters;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crossbeam::channel::Sender;
use crossbeam::queue::ArrayQueue;

use crate::config::HttpConfig;
use crate::ingress::calls::{Call, CallId, CallKind, Calls};
use crate::ingress::connection::{Connection, Content, Input, Limits, Phase, Policy};
use crate::ingress::driver::{ShardSeat, ShardSettings};
use crate::ingress::envelope::{Place, reply_error, reply_result};
use crate::ingress::former::{Former, Verdict};
use crate::ingress::intake::{Intake, TURN_ITEMS_MAX};
use crate::ingress::queries::{Queries, Query, REPLY_BYTES_MAX};
use crate::ingress::rates::RateLimiter;
use crate::limits::IN_FLIGHT_PER_SHARD_MAX;
use crate::messages::{
    BuilderAnswer, BuilderReply, IngressMessage, QueryInput, QueryJob, QueryReply, Submit, SubmitWait,
};
use crate::metrics::ShardMeter;
use crate::metrics::reasons::IngressReason;
use crate::primitives::{ReplyToken, ShardId};
use crate::ring::{Consumer, Producer};
use crate::rpc::{self, ConnectionKey, Progress, Rendered, RpcError, Subscriptions};
use crate::runtime::slab::{Slab, TxHandle};
use crate::topology::Shared;
use filters::FilterDesk;

/// Builder replies taken in one turn: about 2 ms of rendering.
const REPLIES_PER_TURN_MAX: usize = 8_192;
/// Signatures of one connection that a turn takes before the others have their turn.
const CONNECTION_ITEMS_MAX: usize = 64;
/// Signatures of a turn that come from parked connections; the rest is for those that are read.
const PARKED_ITEMS_MAX: usize = TURN_ITEMS_MAX / 2;
/// Bytes of requests received in part, of all connections. On full: `Reject`, the request that grows is answered with 503. Fifty of the
/// largest bodies.
const BUFFERED_BYTES_MAX: usize = 256 << 20;
/// Replies that wait for durability, those included whose calls are over; twice what may be in flight, so that cleaning is seldom.
const HELD_MAX: usize = 2 * IN_FLIGHT_PER_SHARD_MAX;
/// Deadlines of finished calls that are kept before the list is cleaned.
const STALE_DEADLINES_MAX: usize = 1_024;

/// One place for a connection.
struct Slot {
    generation: u32,
    is_dirty: bool,
    connection: Option<Connection>,
    /// Of the peer, where it is known.
    network: Option<IpAddr>,
    /// Part of `ShardCore::buffered_bytes`.
    buffered_bytes: usize,
}

/// One ingress shard.
pub struct ShardCore {
    slots: Vec<Slot>,
    free_slots: Vec<u32>,
    /// Connections whose output or phase may have changed since [`ShardCore::take_dirty`].
    dirty: Vec<u32>,
    policy: Arc<Policy>,
    desk: Desk,
    /// Connections with input that waits for a later turn, the next one first.
    parked: VecDeque<ConnectionKey>,
    /// What all connections hold of requests that are not complete.
    buffered_bytes: usize,
    buffered_bytes_max: usize,
    /// Builder replies that wait for durability, in order.
    held: VecDeque<BuilderReply>,
    held_queries: Vec<QueryReply>,
    subscriptions: Subscriptions,
    filter_desk: FilterDesk,
    former: Former,
}

/// Everything of a shard but its connections: what one request needs while its connection is borrowed.
struct Desk {
    id: ShardId,
    settings: ShardSettings,
    slab: Slab,
    to_builder: Producer<IngressMessage>,
    from_builder: Consumer<BuilderReply>,
    freed: Consumer<TxHandle>,
    to_query: Sender<QueryJob>,
    from_query: Arc<ArrayQueue<QueryReply>>,
    shared: Arc<Shared>,
    intake: Intake,
    calls: Calls,
    queries: Queries,
    rates: RateLimiter,
    /// Calls that the builder core may still answer: those of `calls`, and the withdrawn ones.
    in_flight_count: usize,
    /// Calls withdrawn by `ForgetSync`, whose answers may be under way.
    withdrawn_count: usize,
    query_count: usize,
    chunk_count: usize,
    /// Deadlines of waiting `eth_sendRawTransactionSync` calls, earliest first.
    deadlines: BinaryHeap<Reverse<(u64, ReplyKey)>>,
    must_wake_builder: bool,
    /// Until when the turn's transactions wait for more; `None`: they do not.
    recover_ns: Option<u64>,
    /// A result being rendered.
    result: Vec<u8>,
    /// Subscribe, unsubscribe and filter calls, done when no connection is borrowed.
    registrations: Vec<Registration>,
}

/// A reply token as a key of an ordered collection.
type ReplyKey = (u32, u32, u32, u32);

struct Registration {
    connection: ConnectionKey,
    place: Place,
    id: CallId,
    what: Registering,
}

enum Registering {
    Subscribe(rpc::SubscriptionKind),
    Unsubscribe(rpc::SubscriptionId),
    Filter(rpc::FilterCall),
}

/// Where a request came from.
#[derive(Clone, Copy)]
struct Origin {
    connection: ConnectionKey,
    is_websocket: bool,
}

impl ShardCore {
    /// Takes everything of the seat that is not the driver's.
    #[must_use]
    pub fn new(
        seat: ShardSeat,
    ) -> (Self, Arc<crate::ring::Doorbell>, std::sync::mpsc::SyncSender<Result<std::net::SocketAddr, String>>) {
        let ShardSeat {
            id,
            settings,
            slab,
            to_builder,
            from_builder,
            freed,
            to_query,
            from_query,
            mailboxes,
            doorbell,
            shared,
            bound,
        } = seat;
        let policy = Arc::new(policy(&settings.http));
        let former = Former::new(settings.http.batch_wait_ns);
        let desk = Desk {
            id,
            intake: Intake::new(settings.chain_id),
            settings,
            slab,
            to_builder,
            from_builder,
            freed,
            to_query,
            from_query,
            shared,
            calls: Calls::default(),
            queries: Queries::default(),
            rates: RateLimiter::default(),
            in_flight_count: 0,
            withdrawn_count: 0,
            query_count: 0,
            chunk_count: 0,
            deadlines: BinaryHeap::new(),
            must_wake_builder: false,
            recover_ns: None,
            result: Vec::new(),
            registrations: Vec::new(),
        };
        let core = Self {
            slots: Vec::new(),
            free_slots: Vec::new(),
            dirty: Vec::new(),
            policy,
            desk,
            parked: VecDeque::new(),
            buffered_bytes: 0,
            buffered_bytes_max: BUFFERED_BYTES_MAX,
            held: VecDeque::new(),
            held_queries: Vec::new(),
            subscriptions: Subscriptions::new(id),
            filter_desk: FilterDesk::new(id, mailboxes),
            former,
        };
        (core, doorbell, bound)
    }

    #[must_use]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.desk.shared
    }

    #[must_use]
    pub fn settings(&self) -> &ShardSettings {
        &self.desk.settings
    }

    /// Gives a new connection of nobody in particular its place.
    pub fn open(&mut self, now_ns: u64) -> ConnectionKey {
        self.open_from(None, now_ns)
    }

    /// Gives a new connection of this network its place.
    pub fn open_from(&mut self, network: Option<IpAddr>, now_ns: u64) -> ConnectionKey {
        let connection = Some(Connection::new(Arc::clone(&self.policy), now_ns));
        let index = match self.free_slots.pop() {
            Some(index) => {
                let slot = &mut self.slots[index as usize];
                (slot.connection, slot.network) = (connection, network);
                index
            }
            None => {
                self.slots.push(Slot { generation: 0, is_dirty: false, connection, network, buffered_bytes: 0 });
                // Bounded by the connections of the process, which fit 32 bits.
                (self.slots.len() - 1) as u32
            }
        };
        ConnectionKey { connection: index, generation: self.slots[index as usize].generation }
    }

    /// Forgets a connection: its socket is closed. What still comes for it is dropped.
    pub fn close(&mut self, key: ConnectionKey) {
        let Some(slot) = slot_of(&mut self.slots, key) else { return };
        slot.connection = None;
        self.buffered_bytes -= std::mem::take(&mut slot.buffered_bytes);
        slot.generation = slot.generation.wrapping_add(1);
        self.free_slots.push(key.connection);
        self.subscriptions.remove_connection(key);
        self.note_listening();
        self.filter_desk.filters.forget_connection(key);
        for call in self.desk.queries.close(key) {
            self.end_filter_read(&call, None);
        }
        self.desk.withdraw_all(key);
    }

    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.slots.len() - self.free_slots.len()
    }

    pub fn connection(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        slot_of(&mut self.slots, key)?.connection.as_mut()
    }

    /// Whether no more input should be taken before the turn's transactions are recovered.
    #[must_use]
    pub fn is_turn_full(&self) -> bool {
        self.desk.intake.is_full()
    }

    /// Takes bytes that the connection received; none: goes on with what waited for replies.
    ///
    /// When the turn has enough signatures to recover, or this connection gave its share, the rest is parked for the next turn.
    pub fn input(&mut self, key: ConnectionKey, bytes: &mut [u8], now_ns: u64) {
        let Some(slot) = slot_of(&mut self.slots, key) else { return };
        let Some(connection) = slot.connection.as_mut() else { return };
        let mut input = if bytes.is_empty() { Input::empty() } else { Input::new(bytes) };
        let item_count = self.desk.intake.item_count();
        let share_end = item_count + CONNECTION_ITEMS_MAX;
        if self.desk.rates.is_on() {
            self.desk.rates.attend(slot.network);
        }
        loop {
            if self.desk.intake.item_count() >= share_end.min(TURN_ITEMS_MAX) {
                if connection.park(&mut input) {
                    self.parked.push_back(key);
                }
                break;
            }
            let Some((request, replies)) = connection.next_request(&mut input, now_ns) else { break };
            let origin = Origin { connection: key, is_websocket: replies.is_websocket() };
            match request.content {
                Content::Probe(probe) => self.desk.answer_probe(request.number, probe, replies, now_ns),
                Content::Body(body) => self.desk.on_body(origin, request.number, body, replies, now_ns),
            }
        }
        let added_count = self.desk.intake.item_count() - item_count;
        if added_count > 0 {
            self.former.on_input(key, added_count, now_ns);
        }
        let is_over = self.buffered_bytes + connection.buffered_bytes() > self.buffered_bytes_max + slot.buffered_bytes;
        if is_over && connection.is_receiving() {
            connection.refuse_for_memory();
        }
        self.buffered_bytes = self.buffered_bytes - slot.buffered_bytes + connection.buffered_bytes();
        slot.buffered_bytes = connection.buffered_bytes();
        mark_dirty(slot, key.connection, &mut self.dirty);
        self.register(now_ns);
        self.start_queries(key, now_ns);
    }

    /// Goes on with parked connections, a share of each after the other, up to half of what a turn recovers.
    fn resume_parked(&mut self, now_ns: u64) {
        // Ends: whoever is parked again has added its share.
        while self.desk.intake.item_count() < PARKED_ITEMS_MAX
            && let Some(key) = self.parked.pop_front()
        {
            if let Some(connection) = self.connection(key) {
                connection.unpark();
                self.input(key, &mut [], now_ns);
            }
        }
    }

    /// Sends the connection's next heavy reads to the query pool, as long as it takes their results.
    pub fn start_queries(&mut self, key: ConnectionKey, now_ns: u64) {
        while self.desk.queries.is_ready(key) {
            let Some(connection) = self.connection(key) else { return };
            if connection.replies().reply_bytes() > REPLY_BYTES_MAX {
                return;
            }
            let Some(query) = self.desk.queries.start(key) else { return };
            if let Err(refused) = self.desk.ask_query(query, now_ns) {
                self.desk.queries.end(key);
                self.refuse_query(&refused.0, &refused.1);
            }
        }
    }

    /// Puts a connection on the list of those to look after.
    pub fn touch(&mut self, key: ConnectionKey) {
        if let Some(slot) = slot_of(&mut self.slots, key) {
            mark_dirty(slot, key.connection, &mut self.dirty);
        }
    }

    /// The peer has sent its last byte.
    pub fn end_of_input(&mut self, key: ConnectionKey) {
        let Some(slot) = slot_of(&mut self.slots, key) else { return };
        if let Some(connection) = slot.connection.as_mut() {
            connection.on_end_of_input();
            mark_dirty(slot, key.connection, &mut self.dirty);
        }
    }

    /// Answers of builder and query pool, time-outs of waiting calls, parked input. News for subscribers: [`ShardCore::announce`].
    pub fn turn(&mut self, now_ns: u64) {
        self.desk.rates.set_rates(self.desk.shared.limits.rates());
        self.desk.take_freed();
        self.drain_builder(now_ns);
        self.drain_queries(now_ns);
        self.drain_neighbours(now_ns);
        self.expire_waiting(now_ns);
        self.resume_parked(now_ns);
        self.desk.wake_builder();
    }

    /// Ends a turn: recovers its transactions, unless it is worth waiting for more of them until [`ShardCore::next_deadline_ns`]. `clock` is read
    /// when something is recovered.
    pub fn form(&mut self, now_ns: u64, clock: impl Fn() -> u64) {
        self.desk.recover_ns = match self.former.judge(Intake::round_items(), now_ns) {
            Verdict::Wait { until_ns } => Some(until_ns),
            Verdict::Recover { .. } if self.desk.intake.is_empty() => None,
            Verdict::Recover { count } => {
                let start_ns = clock();
                self.submit(count);
                let end_ns = clock();
                self.meter().recover.record(end_ns.saturating_sub(start_ns));
                self.former.on_recovered(self.desk.intake.item_count(), end_ns)
            }
        };
    }

    fn meter(&self) -> &ShardMeter {
        &self.desk.shared.metrics.shards[usize::from(self.desk.id.0)]
    }

    /// Recovers the turn's first `count_max` signatures in one call and sends their transactions to the builder core.
    pub fn submit(&mut self, count_max: usize) {
        if self.desk.intake.is_empty() {
            return;
        }
        let Self { slots, dirty, desk, .. } = self;
        let Desk { id, intake, to_builder, slab, calls, in_flight_count, chunk_count, shared, .. } = desk;
        let meter = &shared.metrics.shards[usize::from(id.0)];
        let is_cold = shared.cold.is_on();
        let mut touched = Vec::new();
        let count = intake.recover(count_max, slab, |slab, outcome| {
            let (token, handle, error, reason) = match outcome {
                Ok(mut submit) => {
                    if is_cold {
                        touched.extend([Some(submit.sender), submit.fields.to].into_iter().flatten());
                    }
                    if submit.wait == SubmitWait::Preconfirmation && calls.get(submit.token).is_none() {
                        // Withdrawn before the builder core saw it: it must not register a waiter.
                        submit.wait = SubmitWait::Admission;
                    }
                    match to_builder.push(IngressMessage::Submit(submit)) {
                        Err(IngressMessage::Submit(Submit { token, handle, .. })) => {
                            let error = RpcError::busy("the builder is busy: try again", 100);
                            (token, handle, error, IngressReason::BuilderBusy)
                        }
                        // Only the message that was pushed can come back.
                        Ok(()) | Err(_) => return,
                    }
                }
                Err((token, handle, error)) => (token, handle, error, IngressReason::Signature),
            };
            meter.rejected.increment(reason as usize);
            slab.free(handle);
            *chunk_count -= 1;
            if let Some(call) = calls.take(token) {
                *in_flight_count -= 1;
                finish(slots, dirty, &call, Err(&error));
            }
        });
        meter.recovered.add(count);
        shared.cold.ask(touched);
        desk.must_wake_builder = false;
        desk.to_builder.wake();
    }

    /// Tells the gate what this shard waits for, so that it is woken when that is durable and not before. To be called before the shard
    /// raises its doorbell; then follows [`ShardCore::has_work`].
    pub fn await_gate(&self) {
        let desk = &self.desk;
        // Held replies leave in order.
        let reply = self.held.front().map(BuilderReply::gate);
        let query = self.held_queries.iter().map(|reply| reply.gate).min();
        let news = if self.subscriptions.is_empty() {
            None
        } else {
            self.subscriptions.awaited(&desk.shared.heads.load(), desk.durable())
        };
        desk.shared.gate.want(usize::from(desk.id.0), [reply, query, news].into_iter().flatten().min());
    }

    /// Whether the builder, the query pool or the chain has something for this shard: called before it sleeps.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let desk = &self.desk;
        let is_released = || {
            let durable = desk.durable();
            self.held.front().is_some_and(|reply| reply.gate() <= durable)
                || self.held_queries.iter().any(|reply| reply.gate <= durable)
        };
        !desk.from_builder.is_empty()
            || !desk.from_query.is_empty()
            || self.has_neighbour_message()
            || (!desk.intake.is_empty() && desk.recover_ns.is_none())
            || !self.dirty.is_empty()
            || !self.parked.is_empty()
            || is_released()
            || (!self.subscriptions.is_empty()
                && self.subscriptions.has_news(&desk.shared.heads.load(), desk.durable()))
    }

    /// Exchanges the list of connections to look after for an empty one.
    pub fn take_dirty(&mut self, into: &mut Vec<ConnectionKey>) {
        into.clear();
        for index in self.dirty.drain(..) {
            let slot = &mut self.slots[index as usize];
            slot.is_dirty = false;
            if slot.connection.is_some() {
                into.push(ConnectionKey { connection: index, generation: slot.generation });
            }
        }
    }

    /// When the next `eth_sendRawTransactionSync` is over, or transactions have waited long enough for more; `u64::MAX` when neither waits.
    #[must_use]
    pub fn next_deadline_ns(&self) -> u64 {
        let call_ns = self.desk.deadlines.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
        call_ns.min(self.desk.recover_ns.unwrap_or(u64::MAX))
    }

    /// Acts on the deadlines of all connections.
    pub fn check_connections(&mut self, now_ns: u64) {
        self.filter_desk.filters.expire(now_ns);
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(connection) = slot.connection.as_mut() else { continue };
            if connection.deadline_ns() <= now_ns {
                connection.on_time(now_ns);
                // As in `open`.
                mark_dirty(slot, index as u32, &mut self.dirty);
            }
        }
    }

    /// Ends everything in order because the process stops: the last answers of the builder core and the query pool, an error for whoever
    /// still waits, then the connections. The builder core has ended, so nothing follows.
    pub fn stop(&mut self, now_ns: u64) {
        loop {
            // Also what is only held: the journal has written everything by now.
            self.drain_builder(now_ns);
            if self.desk.from_builder.is_empty() {
                break;
            }
        }
        self.drain_queries(now_ns);
        let error = RpcError::server("the node is stopping");
        let tokens: Vec<ReplyToken> = self.desk.calls.tokens().collect();
        let calls = tokens.into_iter().filter_map(|token| self.desk.calls.take(token));
        for call in calls.chain(self.desk.queries.take_waiting()) {
            finish(&mut self.slots, &mut self.dirty, &call, Err(&error));
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(connection) = slot.connection.as_mut() else { continue };
            connection.drain();
            // As in `open`.
            mark_dirty(slot, index as u32, &mut self.dirty);
        }
    }

    fn drain_builder(&mut self, now_ns: u64) {
        let durable = self.desk.durable();
        while self.held.front().is_some_and(|reply| reply.gate() <= durable) {
            if let Some(reply) = self.held.pop_front() {
                self.on_reply(reply, now_ns);
            }
        }
        // Whatever the builder core had taken out of the ring by now it has answered by now: see `Desk::withdraw`.
        let inbox_was_empty = self.desk.to_builder.is_empty() && self.desk.intake.is_empty();
        for _ in 0..REPLIES_PER_TURN_MAX {
            let Some(reply) = self.desk.from_builder.pop() else {
                if inbox_was_empty {
                    self.desk.in_flight_count -= std::mem::take(&mut self.desk.withdrawn_count);
                }
                return;
            };
            // The gates of one ring never go back, except to 0 where the node says that it takes nothing: that must not wait behind what
            // a journal that stands still holds up.
            if reply.gate() > durable {
                self.hold(reply);
            } else {
                self.on_reply(reply, now_ns);
            }
        }
    }

    /// Keeps a reply until it may leave. Calls can be over before their replies are durable, so these are thrown out now and then: what is
    /// kept is bounded by the calls in flight, however long the journal stands still.
    fn hold(&mut self, reply: BuilderReply) {
        if self.held.len() >= HELD_MAX {
            let calls = &self.desk.calls;
            self.held.retain(|reply| calls.get(reply.token()).is_some());
        }
        self.held.push_back(reply);
    }

    fn on_reply(&mut self, reply: BuilderReply, now_ns: u64) {
        let token = reply.token();
        let Some(call) = self.desk.calls.take(token) else { return };
        self.desk.in_flight_count -= 1;
        if let (BuilderReply::Admitted { .. }, CallKind::Submit { since_ns }) = (&reply, &call.kind) {
            self.meter().accepted.record(now_ns.saturating_sub(*since_ns));
        }
        let Self { slots, dirty, desk, .. } = self;
        let error = match reply {
            BuilderReply::Admitted { hash, .. } => {
                let mut render = |out: &mut Vec<u8>| rpc::render_admitted(&hash, out);
                return finish_with(slots, dirty, &call, &mut render);
            }
            BuilderReply::Refused { hash, refusal, .. } => {
                let wait = match call.kind {
                    CallKind::SubmitSync { .. } => SubmitWait::Preconfirmation,
                    _ => SubmitWait::Admission,
                };
                rpc::refusal_error(&hash, &refusal, wait)
            }
            BuilderReply::Ended { hash, end, .. } => rpc::end_error(&hash, &end),
            BuilderReply::Unready { hash, reason, .. } => rpc::unready_error(&hash, &reason),
            BuilderReply::Preconfirmed { block, index, .. } => {
                desk.result.clear();
                match rpc::render_preconfirmed(&block, index, desk.hash_of(&block), &mut desk.result) {
                    Ok(()) => return finish(slots, dirty, &call, Ok(&desk.result)),
                    Err(error) => error,
                }
            }
            BuilderReply::Answer { answer, .. } => return self.on_answer(call, answer, now_ns),
        };
        finish(slots, dirty, &call, Err(&error));
    }

    /// Renders what the builder core said, or asks the query pool: for what it does not know, and to render much.
    fn on_answer(&mut self, call: Call, answer: BuilderAnswer, now_ns: u64) {
        let Call { connection, place, id, kind: CallKind::Read { method, params } } = call else { return };
        let call = Call { connection, place, id, kind: CallKind::Query };
        let Self { slots, dirty, desk, .. } = self;
        let input = match answer {
            BuilderAnswer::PoolContent(content) => QueryInput::Pool(content),
            answer => {
                desk.result.clear();
                match rpc::render_builder_answer(method, &answer, &mut desk.result) {
                    Ok(Rendered::Done) => return finish(slots, dirty, &call, Ok(&desk.result)),
                    Ok(Rendered::AskQuery) => QueryInput::Params,
                    Err(error) => return finish(slots, dirty, &call, Err(&error)),
                }
            }
        };
        if slot_of(slots, connection).is_none() {
            // The queue of its place may be the next connection's.
            return;
        }
        match desk.queries.push(Query { call, method, params, input }) {
            Ok(()) => self.start_queries(connection, now_ns),
            Err(refused) => finish(slots, dirty, &refused.0, Err(&refused.1)),
        }
    }

    fn drain_queries(&mut self, now_ns: u64) {
        let durable = self.desk.durable();
        let mut index = 0;
        while index < self.held_queries.len() {
            if self.held_queries[index].gate <= durable {
                let reply = self.held_queries.swap_remove(index);
                self.on_query_reply(&reply, now_ns);
            } else {
                index += 1;
            }
        }
        while let Some(reply) = self.desk.from_query.pop() {
            self.desk.query_count -= 1;
            if reply.gate > durable { self.held_queries.push(reply) } else { self.on_query_reply(&reply, now_ns) }
        }
    }

    fn on_query_reply(&mut self, reply: &QueryReply, now_ns: u64) {
        if let Some(call) = self.desk.calls.take(reply.token) {
            finish(&mut self.slots, &mut self.dirty, &call, reply.outcome.as_deref());
            self.end_filter_read(&call, Some(reply));
            self.desk.queries.end(call.connection);
            self.start_queries(call.connection, now_ns);
        }
    }

    /// Answers waiting calls whose time is over (EIP-7966 code 4).
    fn expire_waiting(&mut self, now_ns: u64) {
        while let Some(&Reverse((at, key))) = self.desk.deadlines.peek() {
            if at > now_ns {
                break;
            }
            self.desk.deadlines.pop();
            let token = token_of_key(key);
            if let Some(call) = self.desk.withdraw(token)
                && let CallKind::SubmitSync { hash, timeout_ms } = call.kind
            {
                finish(&mut self.slots, &mut self.dirty, &call, Err(&RpcError::sync_timeout(&hash, timeout_ms)));
            }
        }
        let desk = &mut self.desk;
        if desk.deadlines.len() > 2 * desk.calls.waiting_count() + STALE_DEADLINES_MAX {
            let calls = &desk.calls;
            desk.deadlines.retain(|Reverse((_, key))| calls.get(token_of_key(*key)).is_some());
        }
    }

    /// Writes the next portion of news into the connections of subscribers; what is left is seen by `has_work` before the shard sleeps.
    /// To be called until all is said, each time followed by one write of every dirty connection.
    pub fn announce(&mut self) -> Progress {
        if self.subscriptions.is_empty() {
            return Progress::Done;
        }
        let Self { slots, dirty, desk, subscriptions, .. } = self;
        let heads = desk.shared.heads.load();
        let durable = desk.durable();
        let mut sink = |key: ConnectionKey, notification: &[u8]| {
            let Some(slot) = slot_of(slots, key) else { return };
            // Nothing follows a close frame.
            if let Some(connection) = slot.connection.as_mut().filter(|connection| connection.phase() == Phase::Open) {
                // A subscriber that reads too slowly is closed by its own connection.
                let _ = connection.replies().notify(|out| out.extend_from_slice(notification));
                mark_dirty(slot, key.connection, dirty);
            }
        };
        subscriptions.announce(&heads, durable, &mut sink)
    }

    /// Carries out subscribe, unsubscribe and filter calls.
    fn register(&mut self, now_ns: u64) {
        if self.desk.registrations.is_empty() {
            return;
        }
        let mut registrations = std::mem::take(&mut self.desk.registrations);
        for Registration { connection, place, id, what } in registrations.drain(..) {
            let call = Call { connection, place, id, kind: CallKind::Query };
            let Self { slots, dirty, desk, subscriptions, .. } = self;
            desk.result.clear();
            let outcome = match what {
                Registering::Filter(what) => {
                    self.on_filter_call(call, what, now_ns);
                    continue;
                }
                Registering::Subscribe(kind) => {
                    let heads = desk.shared.heads.load();
                    subscriptions.add(connection, kind, &heads, desk.durable()).map(|id| id.write(&mut desk.result))
                }
                Registering::Unsubscribe(id) => {
                    let removed = subscriptions.remove(connection, id);
                    rpc::json::boolean(removed, &mut desk.result);
                    Ok(())
                }
            };
            match outcome {
                Ok(()) => finish(slots, dirty, &call, Ok(&desk.result)),
                Err(error) => finish(slots, dirty, &call, Err(&error)),
            }
        }
        self.desk.registrations = registrations;
        self.note_listening();
    }

    /// Tells the builder core whether this shard wants to hear of news.
    fn note_listening(&mut self) {
        let wants = !self.subscriptions.is_empty();
        let cell = &self.desk.shared.wants_events[usize::from(self.desk.id.0)];
        if cell.load(Ordering::Relaxed) != wants {
            cell.store(wants, Ordering::Relaxed);
            // ORDERING: SeqCst; pairs with the builder core's fence between its news and its look at this cell. Either it sees that
            // this shard listens and rings, or `has_work`, which looks at the heads before the shard sleeps, sees the news.
            fence(Ordering::SeqCst);
        }
    }
}

/// Bounds and policies of this listener's connections.
fn policy(http: &HttpConfig) -> Policy {
    let mut limits = Limits::default();
    limits.http.body_bytes_max = http.body_bytes_max;
    limits.websocket.message_bytes_max = http.body_bytes_max;
    limits.batch_items_max = http.batch_items_max;
    limits.items_outstanding_max = limits.items_outstanding_max.max(http.batch_items_max);
    limits.idle_ns = http.idle_timeout_ns;
    let cors_origins = if http.cors { vec!["*".to_owned()] } else { Vec::new() };
    Policy { limits, vhosts: http.vhosts.clone(), cors_origins }
}

fn slot_of(slots: &mut [Slot], key: ConnectionKey) -> Option<&mut Slot> {
    slots.get_mut(key.connection as usize).filter(|slot| slot.generation == key.generation && slot.connection.is_some())
}

fn mark_dirty(slot: &mut Slot, index: u32, dirty: &mut Vec<u32>) {
    if !std::mem::replace(&mut slot.is_dirty, true) {
        dirty.push(index);
    }
}

fn finish(slots: &mut [Slot], dirty: &mut Vec<u32>, call: &Call, outcome: Result<&[u8], &RpcError>) {
    match outcome {
        Ok(result) => finish_with(slots, dirty, call, &mut |out| out.extend_from_slice(result)),
        Err(error) => {
            let Some(slot) = slot_of(slots, call.connection) else { return };
            if let Some(connection) = slot.connection.as_mut() {
                reply_error(connection.replies(), call.place, call.id.as_id(), error);
                mark_dirty(slot, call.connection.connection, dirty);
            }
        }
    }
}

fn finish_with(slots: &mut [Slot], dirty: &mut Vec<u32>, call: &Call, write: &mut dyn FnMut(&mut Vec<u8>)) {
    let Some(slot) = slot_of(slots, call.connection) else { return };
    if let Some(connection) = slot.connection.as_mut() {
        reply_result(connection.replies(), call.place, call.id.as_id(), write);
        mark_dirty(slot, call.connection.connection, dirty);
    }
}

fn key_of(token: ReplyToken) -> ReplyKey {
    (token.connection, token.generation, token.request, token.item)
}

fn token_of_key((connection, generation, request, item): ReplyKey) -> ReplyToken {
    ReplyToken { connection, generation, request, item }
}

#[cfg(test)]
mod tests;
