//! Filters: those of this shard, and the way to those of its neighbours.
//!
//! ```text
//!  poll ─► owner? ── this shard ────────────────► lease, read ─► query pool ─► reply ─► lease back
//!               └── another one ─ Ask ─► its table ─ Answer ─┘                      └─ GiveBack ─► its table
//! ```
//!
//! The heavy part runs where the connection is, in its queue and within its bounds; the owner only keeps the position.

use std::sync::Arc;

use super::{Call, CallKind, ShardCore, finish, slot_of};
use crate::ingress::queries::Query;
use crate::limits::NEIGHBOUR_CALLS_MAX;
use crate::messages::{QueryInput, QueryReply, ShardMessage};
use crate::primitives::{ReplyToken, ShardId};
use crate::ring::Mailbox;
use crate::rpc::filter;
use crate::rpc::{FilterAnswer, FilterAsk, FilterCall, FilterId, Filters, Lease, Method, Position, RpcError};

/// Messages of neighbours taken in one turn: a look at a table each.
const MESSAGES_PER_TURN_MAX: usize = 1_024;

/// This shard's filters and its ends of the wires between shards.
pub(super) struct FilterDesk {
    pub(super) filters: Filters,
    /// Of every shard, in the order of their numbers; this one's own is read here.
    mailboxes: Arc<[Mailbox<ShardMessage>]>,
    /// Calls about filters of others, until their leases are back.
    calls_out: usize,
}

impl FilterDesk {
    pub(super) fn new(shard: ShardId, mailboxes: Arc<[Mailbox<ShardMessage>]>) -> Self {
        Self { filters: Filters::new(shard), mailboxes, calls_out: 0 }
    }
}

impl ShardCore {
    pub(super) fn has_neighbour_message(&self) -> bool {
        self.own_mailbox().is_some_and(|mailbox| !mailbox.is_empty())
    }

    fn own_mailbox(&self) -> Option<&Mailbox<ShardMessage>> {
        self.filter_desk.mailboxes.get(usize::from(self.desk.id.0))
    }

    /// Carries out one call of a connection.
    pub(super) fn on_filter_call(&mut self, mut call: Call, what: FilterCall, now_ns: u64) {
        let (id, ask) = match what {
            FilterCall::New(kind) => {
                let heads = self.desk.shared.heads.load();
                let durable = self.desk.durable();
                let made = self.filter_desk.filters.add(call.connection, kind, &heads, durable, now_ns);
                self.desk.result.clear();
                let outcome = made.map(|id| id.write(&mut self.desk.result));
                let outcome = outcome.as_ref().map(|()| self.desk.result.as_slice());
                return finish(&mut self.slots, &mut self.dirty, &call, outcome);
            }
            FilterCall::Ask { id: None, ask } => {
                call.kind = CallKind::Filter { ask };
                return self.on_filter_answer(call, FilterAnswer::Unknown, now_ns);
            }
            FilterCall::Ask { id: Some(id), ask } => (id, ask),
        };
        call.kind = CallKind::Filter { ask };
        if id.shard() == self.desk.id {
            let answer = self.filter_desk.filters.ask(id, ask, now_ns);
            self.on_filter_answer(call, answer, now_ns);
        } else {
            self.ask_neighbour(call, id, ask, now_ns);
        }
    }

    fn ask_neighbour(&mut self, call: Call, id: FilterId, ask: FilterAsk, now_ns: u64) {
        let owner = usize::from(id.shard().0);
        if owner >= self.filter_desk.mailboxes.len() {
            return self.on_filter_answer(call, FilterAnswer::Unknown, now_ns);
        }
        if self.filter_desk.calls_out >= NEIGHBOUR_CALLS_MAX {
            let text = format!("too many polls of filters are under way: limit {NEIGHBOUR_CALLS_MAX}");
            return finish(&mut self.slots, &mut self.dirty, &call, Err(&RpcError::limit(text)));
        }
        let token = self.desk.calls.insert(call);
        let message = ShardMessage::Ask { from: self.desk.id, token, id, ask };
        if self.filter_desk.mailboxes[owner].push(message).is_ok() {
            self.filter_desk.calls_out += 1;
        } else if let Some(call) = self.desk.calls.take(token) {
            finish(&mut self.slots, &mut self.dirty, &call, Err(&RpcError::limit("a shard is busy: try again")));
        }
    }

    /// Takes what the neighbours sent.
    pub(super) fn drain_neighbours(&mut self, now_ns: u64) {
        for _ in 0..MESSAGES_PER_TURN_MAX {
            let Some(message) = self.own_mailbox().and_then(Mailbox::pop) else { return };
            match message {
                ShardMessage::Ask { from, token, id, ask } => {
                    let answer = self.filter_desk.filters.ask(id, ask, now_ns);
                    let mailbox = self.filter_desk.mailboxes.get(usize::from(from.0));
                    let pushed =
                        mailbox.is_some_and(|mailbox| mailbox.push(ShardMessage::Answer { token, answer }).is_ok());
                    debug_assert!(pushed, "who asks counts its calls, so there is a slot for each answer");
                }
                ShardMessage::Answer { token, answer } => self.on_neighbour_answer(token, answer, now_ns),
                ShardMessage::GiveBack { lease, told } => self.filter_desk.filters.give_back(lease, told),
            }
        }
    }

    fn on_neighbour_answer(&mut self, token: ReplyToken, answer: FilterAnswer, now_ns: u64) {
        let lease = match &answer {
            FilterAnswer::Read { lease, .. } => *lease,
            _ => None,
        };
        if lease.is_none() {
            self.filter_desk.calls_out -= 1;
        }
        match self.desk.calls.take(token) {
            Some(call) => self.on_filter_answer(call, answer, now_ns),
            None => self.give_back(lease, None),
        }
    }

    /// Goes on with a call when its filter's owner has spoken.
    fn on_filter_answer(&mut self, call: Call, answer: FilterAnswer, now_ns: u64) {
        let CallKind::Filter { ask } = call.kind else { return };
        let (slots, dirty) = (&mut self.slots, &mut self.dirty);
        match answer {
            FilterAnswer::Unknown if ask == FilterAsk::Uninstall => finish(slots, dirty, &call, Ok(b"false")),
            FilterAnswer::Unknown => finish(slots, dirty, &call, Err(&filter::not_found())),
            FilterAnswer::Uninstalled => finish(slots, dirty, &call, Ok(b"true")),
            FilterAnswer::Busy => finish(slots, dirty, &call, Ok(b"[]")),
            FilterAnswer::Read { read, lease } => {
                let connection = call.connection;
                if slot_of(slots, connection).is_none() {
                    return self.give_back(lease, None);
                }
                let method = if lease.is_some() { Method::GetFilterChanges } else { Method::GetFilterLogs };
                let call = Call { kind: CallKind::FilterRead { lease }, ..call };
                let query = Query { call, method, params: Vec::new(), input: QueryInput::Filter(read) };
                match self.desk.queries.push(query) {
                    Ok(()) => self.start_queries(connection, now_ns),
                    Err(refused) => self.refuse_query(&refused.0, &refused.1),
                }
            }
        }
    }

    /// Answers a heavy read that did not start; a filter is told the same again.
    pub(super) fn refuse_query(&mut self, call: &Call, error: &RpcError) {
        finish(&mut self.slots, &mut self.dirty, call, Err(error));
        self.end_filter_read(call, None);
    }

    /// Gives back the lease of a call that is over, if it has one. `reply`: what was told, when there was somebody to hear it.
    pub(super) fn end_filter_read(&mut self, call: &Call, reply: Option<&QueryReply>) {
        let CallKind::FilterRead { lease } = call.kind else { return };
        let told = reply.filter(|reply| reply.outcome.is_ok()).and_then(|reply| reply.told);
        let is_heard = slot_of(&mut self.slots, call.connection).is_some();
        self.give_back(lease, told.filter(|_| is_heard));
    }

    fn give_back(&mut self, lease: Option<Lease>, told: Option<Position>) {
        let Some(lease) = lease else { return };
        if lease.id.shard() == self.desk.id {
            return self.filter_desk.filters.give_back(lease, told);
        }
        self.filter_desk.calls_out -= 1;
        if let Some(mailbox) = self.filter_desk.mailboxes.get(usize::from(lease.id.shard().0)) {
            // Without a slot, which cannot be, the lease ends by itself.
            let pushed = mailbox.push(ShardMessage::GiveBack { lease, told });
            debug_assert!(pushed.is_ok(), "there is a slot for each lease that comes back");
        }
    }
}
