//! What one request sets off while its connection is borrowed: transactions to recovery, questions to builder core and query pool.

use std::cmp::Reverse;

use super::{Call, CallKind, Desk, Origin, Registering, Registration, key_of};
use crate::builder::block::OpenBlock;
use crate::codec::json_rpc::{self, Body, FastSend, Id, Request};
use crate::codec::transaction;
use crate::ingress::calls::CallId;
use crate::ingress::connection::{Probe, Replies};
use crate::ingress::envelope::{Place, reply_error, reply_result};
use crate::ingress::intake::Refused;
use crate::ingress::queries::Query;
use crate::ingress::rates::TooMany;
use crate::limits::{IN_FLIGHT_PER_SHARD_MAX, QUERIES_PER_SHARD_MAX};
use crate::mempool::Conditions;
use crate::messages::{BuilderRead, IngressMessage, QueryInput, QueryJob, SubmitWait};
use crate::metrics::ShardMeter;
use crate::ops::health::{self, Facts};
use crate::primitives::{B256, ReplyToken, Sequence};
use crate::rpc::{self, ConnectionKey, Method, Plan, RpcError, SubmitRequest, View};

/// Calls of one connection that may wait for a receipt: more than a wallet or a bot needs. On full: `Reject` with -32005.
pub(super) const WAITING_PER_CONNECTION_MAX: usize = 64;
/// Calls of a shard that may wait for a receipt, because each holds its slot of the reply ring for seconds. On full: `Reject`.
pub(super) const WAITING_PER_SHARD_MAX: usize = IN_FLIGHT_PER_SHARD_MAX / 4;

impl Desk {
    pub(super) fn durable(&self) -> Sequence {
        self.shared.gate.durable()
    }

    /// The hash of a block that is sealed when its places are told (`delegated`).
    pub(super) fn hash_of(&self, block: &OpenBlock) -> Option<B256> {
        if !self.settings.rpc.state_is_remote {
            return None;
        }
        let heads = self.shared.heads.load();
        heads.recent_by_number(block.context.number).map(|sealed| sealed.hash)
    }

    /// As the port of metrics answers.
    pub(super) fn answer_probe(&self, number: u32, probe: Probe, replies: &mut Replies, now_ns: u64) {
        let probe = match probe {
            Probe::Live => health::Probe::Live,
            Probe::Ready => health::Probe::Ready,
            Probe::Healthy => health::Probe::Health,
        };
        let reasons = health::judge(&Facts::of(&self.shared, now_ns));
        let status = health::level(&reasons, probe).status();
        // A stale probe has nobody to tell.
        let _ = replies.complete_probe(number, status, &health::body(&reasons, probe));
    }

    fn meter(&self) -> &ShardMeter {
        &self.shared.metrics.shards[usize::from(self.id.0)]
    }

    pub(super) fn on_body(&mut self, origin: Origin, number: u32, body: &[u8], replies: &mut Replies, now_ns: u64) {
        let place = Place { request: number, item: 0 };
        if let Some(send) = json_rpc::send_raw_transaction(body) {
            return self.send_raw(origin, place, send, replies, now_ns);
        }
        match json_rpc::parse(body, self.settings.http.batch_items_max) {
            Ok(Body::Single(request)) => self.on_call(origin, place, &request, replies, now_ns),
            Ok(Body::Batch(batch)) => {
                let mut item_count = 0;
                for item in batch {
                    if let Err(error) = item
                        && error.kind.is_fatal()
                    {
                        return self.refuse_request(replies, place, &error, now_ns);
                    }
                    item_count += 1;
                }
                replies.begin_batch(number, item_count);
                for (index, item) in batch.enumerate() {
                    // Below `batch_items_max`.
                    let place = Place { request: number, item: index as u32 };
                    match item {
                        Ok(request) => self.on_call(origin, place, &request, replies, now_ns),
                        Err(error) => self.refuse_request(replies, place, &error, now_ns),
                    }
                }
            }
            Err(error) => self.refuse_request(replies, place, &error, now_ns),
        }
    }

    /// Counts a request of the connection that is being read, where there is a limit.
    fn count(&mut self, now_ns: u64) -> Result<(), RpcError> {
        if !self.rates.is_on() {
            return Ok(());
        }
        self.rates.take(&self.shared.rates, now_ns).map_err(|TooMany { limit, is_of_address, retry_ns }| {
            self.meter().limited.increment(usize::from(!is_of_address));
            let whose = if is_of_address { "one address" } else { "all together" };
            RpcError::busy(
                format!("too many requests: limit {limit} a second of {whose}"),
                retry_ns.div_ceil(1_000_000),
            )
        })
    }

    /// Answers a body or an item that is no request. An error without an id is answered with `null`.
    fn refuse_request(&mut self, replies: &mut Replies, place: Place, error: &json_rpc::Error<'_>, now_ns: u64) {
        let shown = match self.count(now_ns) {
            Ok(()) => RpcError::new(error.kind.code(), error.to_string()),
            Err(too_many) => too_many,
        };
        reply_error(replies, place, Id::Sent(error.id.as_bytes()), &shown);
    }

    pub(super) fn send_raw(
        &mut self,
        origin: Origin,
        place: Place,
        send: FastSend<'_>,
        replies: &mut Replies,
        now_ns: u64,
    ) {
        if let Err(error) = self.count(now_ns) {
            return reply_error(replies, place, send.id, &error);
        }
        self.meter().requests.increment(Method::SendRawTransaction as usize);
        let taken = match self.is_for_l1(send.hex) {
            true => self.pass_to_l1(origin, place, send.id, send.hex),
            false => self.take_transaction(origin, place, send.id, send.hex, SubmitWait::Admission, 0, None, now_ns),
        };
        if let Err(error) = taken {
            reply_error(replies, place, send.id, &error);
        }
    }

    /// Whether these are the digits of an ExecuteTx (type 5) and there is an L1 to hand it to.
    fn is_for_l1(&self, hex: &[u8]) -> bool {
        let digits = hex.strip_prefix(b"0x").unwrap_or(hex);
        digits.starts_with(b"05") && self.shared.settlement.is_on()
    }

    /// A query thread checks it and hands it over: it is never pooled here.
    fn pass_to_l1(&mut self, origin: Origin, place: Place, id: Id<'_>, hex: &[u8]) -> Result<(), RpcError> {
        let call = Call { connection: origin.connection, place, id: CallId::new(id), kind: CallKind::Query };
        let prefix: &[u8] = if hex.starts_with(b"0x") { b"[\"" } else { b"[\"0x" };
        let params = [prefix, hex, b"\"]"].concat();
        let query = Query { call, method: Method::SendRawTransaction, params, input: QueryInput::Params };
        self.queries.push(query).map_err(|refused| refused.1)
    }

    pub(super) fn on_call(
        &mut self,
        origin: Origin,
        place: Place,
        request: &Request<'_>,
        replies: &mut Replies,
        now_ns: u64,
    ) {
        if let Some(send) = request.as_send_raw_transaction() {
            return self.send_raw(origin, place, send, replies, now_ns);
        }
        let id = request.id;
        if let Err(error) = self.count(now_ns) {
            return reply_error(replies, place, id, &error);
        }
        let name = request.method_name();
        let Some(method) = Method::from_name(&name) else {
            return reply_error(replies, place, id, &RpcError::method_not_found(&name));
        };
        self.meter().requests.increment(method as usize);
        self.result.clear();
        let planned = {
            let heads = self.shared.heads.load();
            let view = View { heads: &heads, durable: self.durable(), settings: &self.settings.rpc };
            let planned = rpc::plan(method, request.params, &view, &mut self.result);
            if matches!(planned, Ok(Plan::ExecutionStatus)) {
                let cells = &self.shared.execution;
                rpc::render_execution_status(&cells.status(), &cells.forwarding(), &view, &mut self.result);
            }
            planned
        };
        let outcome = match planned {
            Ok(Plan::Reply | Plan::ExecutionStatus) => {
                return reply_result(replies, place, id, |out| out.extend_from_slice(&self.result));
            }
            Ok(Plan::Builder(read)) => self.ask_builder(origin, place, id, method, request.params, read),
            Ok(Plan::Query) => {
                let call = Call { connection: origin.connection, place, id: CallId::new(id), kind: CallKind::Query };
                let query = Query { call, method, params: request.params.to_vec(), input: QueryInput::Params };
                self.queries.push(query).map_err(|refused| refused.1)
            }
            Ok(Plan::Submit(SubmitRequest { raw_hex, wait, timeout_ms, conditions })) => {
                let hex = raw_hex.as_bytes();
                self.take_transaction(origin, place, id, hex, wait, timeout_ms, conditions, now_ns)
            }
            Ok(Plan::Filter(call)) => {
                self.add_registration(origin, place, id, Registering::Filter(call));
                Ok(())
            }
            Ok(Plan::Subscribe(_) | Plan::Unsubscribe(_)) if !origin.is_websocket => {
                Err(RpcError::new(rpc::error::code::METHOD_NOT_FOUND, "notifications not supported: use a WebSocket"))
            }
            Ok(Plan::Subscribe(kind)) => {
                self.add_registration(origin, place, id, Registering::Subscribe(kind));
                Ok(())
            }
            Ok(Plan::Unsubscribe(subscription)) => {
                self.add_registration(origin, place, id, Registering::Unsubscribe(subscription));
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            reply_error(replies, place, id, &error);
        }
    }

    pub(super) fn add_registration(&mut self, origin: Origin, place: Place, id: Id<'_>, what: Registering) {
        self.registrations.push(Registration { connection: origin.connection, place, id: CallId::new(id), what });
    }

    /// Decodes a transaction and queues it for recovery; counts why not.
    pub(super) fn take_transaction(
        &mut self,
        origin: Origin,
        place: Place,
        id: Id<'_>,
        hex: &[u8],
        wait: SubmitWait,
        timeout_ms: u64,
        conditions: Option<Conditions>,
        now_ns: u64,
    ) -> Result<(), RpcError> {
        let taken = self.queue_transaction(origin, place, id, hex, wait, timeout_ms, conditions, now_ns);
        taken.map_err(|Refused { reason, error }| {
            self.meter().rejected.increment(reason as usize);
            error
        })
    }

    fn queue_transaction(
        &mut self,
        origin: Origin,
        place: Place,
        id: Id<'_>,
        hex: &[u8],
        wait: SubmitWait,
        timeout_ms: u64,
        conditions: Option<Conditions>,
        now_ns: u64,
    ) -> Result<(), Refused> {
        self.reserve_in_flight()?;
        if wait == SubmitWait::Preconfirmation {
            self.reserve_waiting(origin.connection)?;
        }
        if self.chunk_count >= self.settings.chunks_max {
            self.take_freed();
            if self.chunk_count >= self.settings.chunks_max {
                return Err(RpcError::busy("too many transactions are held: try again", 1_000).into());
            }
        }
        let prepared = self.intake.prepare(hex, &mut self.slab)?;
        self.chunk_count += 1;
        self.in_flight_count += 1;
        let kind = match wait {
            SubmitWait::Admission => CallKind::Submit { since_ns: now_ns },
            SubmitWait::Preconfirmation => {
                let hash = transaction::tx_hash(self.slab.bytes(&prepared.handle));
                CallKind::SubmitSync { hash, timeout_ms }
            }
        };
        let token = self.calls.insert(Call { connection: origin.connection, place, id: CallId::new(id), kind });
        if wait == SubmitWait::Preconfirmation {
            self.deadlines.push(Reverse((now_ns + timeout_ms * 1_000_000, key_of(token))));
        }
        self.intake.push(token, wait, prepared, conditions);
        Ok(())
    }

    pub(super) fn ask_builder(
        &mut self,
        origin: Origin,
        place: Place,
        id: Id<'_>,
        method: Method,
        params: &[u8],
        read: BuilderRead,
    ) -> Result<(), RpcError> {
        self.reserve_in_flight()?;
        let kind = CallKind::Read { method, params: params.to_vec() };
        let token = self.calls.insert(Call { connection: origin.connection, place, id: CallId::new(id), kind });
        if self.to_builder.push(IngressMessage::Read { token, read }).is_err() {
            self.calls.take(token);
            return Err(RpcError::busy("the builder is busy: try again", 100));
        }
        self.in_flight_count += 1;
        self.must_wake_builder = true;
        Ok(())
    }

    pub(super) fn reserve_in_flight(&self) -> Result<(), RpcError> {
        if self.in_flight_count >= IN_FLIGHT_PER_SHARD_MAX {
            let text = format!(
                "too many requests are being answered: {}, limit {IN_FLIGHT_PER_SHARD_MAX}",
                self.in_flight_count
            );
            return Err(RpcError::busy(text, 100));
        }
        Ok(())
    }

    /// Bounds the calls that wait for a receipt, of the connection and of the shard.
    fn reserve_waiting(&self, connection: ConnectionKey) -> Result<(), RpcError> {
        let check = |count: usize, limit: usize, whose: &str| {
            let text = || format!("too many calls of {whose} wait for a receipt: {count}, limit {limit}");
            if count < limit { Ok(()) } else { Err(RpcError::busy(text(), 1_000)) }
        };
        check(self.calls.waiting_of(connection).len(), WAITING_PER_CONNECTION_MAX, "this connection")?;
        check(self.calls.waiting_count(), WAITING_PER_SHARD_MAX, "all connections")
    }

    /// Hands a heavy read to the query pool; its time starts now.
    pub(super) fn ask_query(&mut self, query: Query, now_ns: u64) -> Result<(), Box<(Call, RpcError)>> {
        let Query { call, method, params, input } = query;
        if self.query_count >= QUERIES_PER_SHARD_MAX {
            let text = format!("too many heavy reads wait: {}, limit {QUERIES_PER_SHARD_MAX}", self.query_count);
            return Err(Box::new((call, RpcError::busy(text, 1_000))));
        }
        let token = self.calls.insert(call);
        let deadline_ns = now_ns + self.settings.query_timeout_ns;
        if self.to_query.try_send(QueryJob { shard: self.id, token, method, params, input, deadline_ns }).is_ok() {
            self.query_count += 1;
            return Ok(());
        }
        match self.calls.take(token) {
            Some(call) => Err(Box::new((call, RpcError::busy("too many heavy reads wait: try again", 1_000)))),
            // It was put there above.
            None => Ok(()),
        }
    }

    /// Ends a call that waits for a receipt and tells the builder core so.
    ///
    /// The builder core may have answered already, so the answer's slot in the ring stays reserved until `drain_builder` finds both that
    /// the ring to the builder core was empty (so it has handled the withdrawal) and that no answer is left.
    pub(super) fn withdraw(&mut self, token: ReplyToken) -> Option<Call> {
        let call = self.calls.take(token)?;
        if let CallKind::SubmitSync { hash, .. } = call.kind {
            self.withdrawn_count += 1;
            // The ring has a slot for the withdrawal of everything in flight. Without it the answer comes, and finds no call.
            let pushed = self.to_builder.push(IngressMessage::ForgetSync { token, hash });
            debug_assert!(pushed.is_ok());
            self.must_wake_builder = true;
        }
        Some(call)
    }

    pub(super) fn withdraw_all(&mut self, key: ConnectionKey) {
        while let Some(&token) = self.calls.waiting_of(key).last() {
            if self.withdraw(token).is_none() {
                return;
            }
        }
    }

    pub(super) fn take_freed(&mut self) {
        while let Some(handle) = self.freed.pop() {
            self.slab.free(handle);
            self.chunk_count -= 1;
        }
    }

    pub(super) fn wake_builder(&mut self) {
        // Transactions that are recovered in this turn will wake it anyway.
        if self.must_wake_builder && (self.intake.is_empty() || self.recover_ns.is_some()) {
            self.must_wake_builder = false;
            self.to_builder.wake();
        }
    }
}
