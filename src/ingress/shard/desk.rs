//! What one request sets off while its connection is borrowed: transactions to recovery, questions to builder core and query pool.

use std::cmp::Reverse;

use super::{Call, CallKind, Desk, Origin, Registration, Subscribing, key_of};
use crate::codec::json_rpc::{self, Body, FastSend, Id, Request};
use crate::ingress::calls::CallId;
use crate::ingress::connection::{Probe, Replies};
use crate::ingress::envelope::{Place, reply_error, reply_result};
use crate::ingress::queries::Query;
use crate::limits::{IN_FLIGHT_PER_SHARD_MAX, QUERIES_PER_SHARD_MAX};
use crate::mempool::Conditions;
use crate::messages::{BuilderRead, IngressMessage, QueryJob, SubmitWait};
use crate::primitives::{ReplyToken, Sequence};
use crate::rpc::{self, ConnectionKey, Method, Plan, RpcError, SubmitRequest, View};

/// Calls of one connection that may wait for a receipt: more than a wallet or a bot needs. On full: `Reject` with -32005.
pub(super) const WAITING_PER_CONNECTION_MAX: usize = 64;
/// Calls of a shard that may wait for a receipt, because each holds its slot of the reply ring for seconds. On full: `Reject`.
pub(super) const WAITING_PER_SHARD_MAX: usize = IN_FLIGHT_PER_SHARD_MAX / 4;

impl Desk {
    pub(super) fn durable(&self) -> Sequence {
        self.shared.gate.durable()
    }

    pub(super) fn answer_probe(&self, number: u32, probe: Probe, replies: &mut Replies) {
        let is_healthy = match probe {
            Probe::Live => true,
            Probe::Ready => !self.shared.is_stopping() && self.shared.execution.is_ready(),
            Probe::Healthy => !self.shared.is_stopping(),
        };
        // A stale probe has nobody to tell.
        let _ = replies.complete_probe(number, is_healthy);
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
                        return refuse_request(replies, place, &error);
                    }
                    item_count += 1;
                }
                replies.begin_batch(number, item_count);
                for (index, item) in batch.enumerate() {
                    // Below `batch_items_max`.
                    let place = Place { request: number, item: index as u32 };
                    match item {
                        Ok(request) => self.on_call(origin, place, &request, replies, now_ns),
                        Err(error) => refuse_request(replies, place, &error),
                    }
                }
            }
            Err(error) => refuse_request(replies, place, &error),
        }
    }

    pub(super) fn send_raw(
        &mut self,
        origin: Origin,
        place: Place,
        send: FastSend<'_>,
        replies: &mut Replies,
        now_ns: u64,
    ) {
        if let Err(error) =
            self.take_transaction(origin, place, send.id, send.hex, SubmitWait::Admission, 0, None, now_ns)
        {
            reply_error(replies, place, send.id, &error);
        }
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
        let name = request.method_name();
        let Some(method) = Method::from_name(&name) else {
            return reply_error(replies, place, id, &RpcError::method_not_found(&name));
        };
        self.result.clear();
        let planned = {
            let heads = self.shared.heads.load();
            let view = View { heads: &heads, durable: self.durable(), settings: &self.settings.rpc };
            let planned = rpc::plan(method, request.params, &view, &mut self.result);
            if matches!(planned, Ok(Plan::ExecutionStatus)) {
                rpc::render_execution_status(&self.shared.execution.status(), &view, &mut self.result);
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
                let query = Query { call, method, params: request.params.to_vec() };
                self.queries.push(query).map_err(|refused| refused.1)
            }
            Ok(Plan::Submit(SubmitRequest { raw_hex, wait, timeout_ms, conditions })) => {
                let hex = raw_hex.as_bytes();
                self.take_transaction(origin, place, id, hex, wait, timeout_ms, conditions, now_ns)
            }
            Ok(Plan::Subscribe(_) | Plan::Unsubscribe(_)) if !origin.is_websocket => {
                Err(RpcError::new(rpc::error::code::METHOD_NOT_FOUND, "notifications not supported: use a WebSocket"))
            }
            Ok(Plan::Subscribe(kind)) => {
                self.add_registration(origin, place, id, Subscribing::Add(kind));
                Ok(())
            }
            Ok(Plan::Unsubscribe(subscription)) => {
                self.add_registration(origin, place, id, Subscribing::Remove(subscription));
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            reply_error(replies, place, id, &error);
        }
    }

    pub(super) fn add_registration(&mut self, origin: Origin, place: Place, id: Id<'_>, what: Subscribing) {
        self.registrations.push(Registration { connection: origin.connection, place, id: CallId::new(id), what });
    }

    /// Decodes a transaction and queues it for recovery.
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
        self.reserve_in_flight()?;
        if wait == SubmitWait::Preconfirmation {
            self.reserve_waiting(origin.connection)?;
        }
        if self.chunk_count >= self.settings.chunks_max {
            self.take_freed();
            if self.chunk_count >= self.settings.chunks_max {
                return Err(RpcError::limit("too many transactions are held: try again"));
            }
        }
        let prepared = self.intake.prepare(hex, &mut self.slab)?;
        self.chunk_count += 1;
        self.in_flight_count += 1;
        let kind = match wait {
            SubmitWait::Admission => CallKind::Submit,
            SubmitWait::Preconfirmation => CallKind::SubmitSync { hash: prepared.hash, timeout_ms },
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
            return Err(RpcError::limit("the builder is busy: try again"));
        }
        self.in_flight_count += 1;
        self.must_wake_builder = true;
        Ok(())
    }

    pub(super) fn reserve_in_flight(&self) -> Result<(), RpcError> {
        if self.in_flight_count >= IN_FLIGHT_PER_SHARD_MAX {
            return Err(RpcError::limit(format!(
                "too many requests are being answered: {}, limit {IN_FLIGHT_PER_SHARD_MAX}",
                self.in_flight_count
            )));
        }
        Ok(())
    }

    /// Bounds the calls that wait for a receipt, of the connection and of the shard.
    fn reserve_waiting(&self, connection: ConnectionKey) -> Result<(), RpcError> {
        let check = |count: usize, limit: usize, whose: &str| {
            let text = || format!("too many calls of {whose} wait for a receipt: {count}, limit {limit}");
            if count < limit { Ok(()) } else { Err(RpcError::limit(text())) }
        };
        check(self.calls.waiting_of(connection).len(), WAITING_PER_CONNECTION_MAX, "this connection")?;
        check(self.calls.waiting_count(), WAITING_PER_SHARD_MAX, "all connections")
    }

    /// Hands a heavy read to the query pool; its time starts now.
    pub(super) fn ask_query(&mut self, query: Query, now_ns: u64) -> Result<(), Box<(Call, RpcError)>> {
        let Query { call, method, params } = query;
        if self.query_count >= QUERIES_PER_SHARD_MAX {
            let text = format!("too many heavy reads wait: {}, limit {QUERIES_PER_SHARD_MAX}", self.query_count);
            return Err(Box::new((call, RpcError::limit(text))));
        }
        let token = self.calls.insert(call);
        let deadline_ns = now_ns + self.settings.query_timeout_ns;
        if self.to_query.try_send(QueryJob { shard: self.id, token, method, params, deadline_ns }).is_ok() {
            self.query_count += 1;
            return Ok(());
        }
        match self.calls.take(token) {
            Some(call) => Err(Box::new((call, RpcError::limit("too many heavy reads wait: try again")))),
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
        // Transactions not recovered yet will wake it anyway.
        if self.must_wake_builder && self.intake.is_empty() {
            self.must_wake_builder = false;
            self.to_builder.wake();
        }
    }
}

/// Answers a body or an item that is no request. An error without an id is answered with `null`.
fn refuse_request(replies: &mut Replies, place: Place, error: &json_rpc::Error<'_>) {
    let shown = RpcError::new(error.kind.code(), error.to_string());
    reply_error(replies, place, Id::Sent(error.id.as_bytes()), &shown);
}
