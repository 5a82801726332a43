//! Calls that another thread is answering: what the shard must remember to turn an answer into a reply.
//!
//! A call's index and reuse counter travel in the `request` and `item` of its [`ReplyToken`], which is opaque to everyone else, so an
//! answer finds its call without a search, and an answer to a call that is over finds nothing.

use crate::codec::json_rpc::Id;
use crate::ingress::envelope::Place;
use crate::primitives::{B256, ReplyToken};
use crate::rpc::{ConnectionKey, FilterAsk, Lease, Method};

/// Ids up to this length need no allocation: a quoted 64-bit number fits.
const ID_BYTES_INLINE: usize = 22;

/// A request id that outlives the request's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallId {
    Absent,
    Short { len: u8, bytes: [u8; ID_BYTES_INLINE] },
    Long(Box<[u8]>),
}

impl CallId {
    #[must_use]
    pub fn new(id: Id<'_>) -> Self {
        match id {
            Id::Absent => Self::Absent,
            Id::Sent(sent) if sent.len() <= ID_BYTES_INLINE => {
                let mut bytes = [0; ID_BYTES_INLINE];
                bytes[..sent.len()].copy_from_slice(sent);
                // At most `ID_BYTES_INLINE`.
                Self::Short { len: sent.len() as u8, bytes }
            }
            Id::Sent(sent) => Self::Long(sent.into()),
        }
    }

    #[must_use]
    pub fn as_id(&self) -> Id<'_> {
        match self {
            Self::Absent => Id::Absent,
            Self::Short { len, bytes } => Id::Sent(&bytes[..usize::from(*len)]),
            Self::Long(bytes) => Id::Sent(bytes),
        }
    }
}

/// Who answers, and what is needed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// The builder core, with the admission. `since_ns`: when the shard had read it, monotonic.
    Submit { since_ns: u64 },
    /// The builder core, with the preconfirmed receipt; the shard keeps the time.
    SubmitSync { hash: B256, timeout_ms: u64 },
    /// The builder core; when it does not know, the query pool is asked the same.
    Read { method: Method, params: Vec<u8> },
    /// The query pool.
    Query,
    /// The shard that owns the filter.
    Filter { ask: FilterAsk },
    /// The query pool, with what a filter is told; the lease goes back to its owner.
    FilterRead { lease: Option<Lease> },
}

/// One call that is being answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub connection: ConnectionKey,
    pub place: Place,
    pub id: CallId,
    pub kind: CallKind,
}

impl Call {
    fn waits_for_receipt(&self) -> bool {
        matches!(self.kind, CallKind::SubmitSync { .. })
    }
}

struct Entry {
    generation: u32,
    call: Option<Call>,
}

/// The outstanding calls of one shard. Grows to the most that ever were outstanding; callers keep the bound.
#[derive(Default)]
pub struct Calls {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Per place of a connection: its calls that wait for a receipt. Who closes a connection takes them all.
    waiting: Vec<Vec<ReplyToken>>,
    waiting_count: usize,
}

impl Calls {
    /// Remembers a call and names it.
    pub fn insert(&mut self, call: Call) -> ReplyToken {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, call: None });
            // Bounded by what may be in flight, which fits 32 bits.
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        let ConnectionKey { connection, generation } = call.connection;
        let token = ReplyToken { connection, generation, request: index, item: entry.generation };
        if call.waits_for_receipt() {
            if self.waiting.len() <= connection as usize {
                self.waiting.resize_with(connection as usize + 1, Vec::new);
            }
            self.waiting[connection as usize].push(token);
            self.waiting_count += 1;
        }
        entry.call = Some(call);
        token
    }

    /// The call of that name, unless it is over.
    #[must_use]
    pub fn get(&self, token: ReplyToken) -> Option<&Call> {
        let entry = self.entries.get(token.request as usize)?;
        entry.call.as_ref().filter(|_| entry.generation == token.item)
    }

    /// As [`Calls::get`], to change it.
    pub fn get_mut(&mut self, token: ReplyToken) -> Option<&mut Call> {
        let entry = self.entries.get_mut(token.request as usize)?;
        entry.call.as_mut().filter(|_| entry.generation == token.item)
    }

    /// Ends a call.
    pub fn take(&mut self, token: ReplyToken) -> Option<Call> {
        let entry = self.entries.get_mut(token.request as usize)?;
        if entry.generation != token.item {
            return None;
        }
        let call = entry.call.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(token.request);
        if call.waits_for_receipt() {
            let waiting = &mut self.waiting[token.connection as usize];
            waiting.retain(|other| *other != token);
            if waiting.is_empty() {
                *waiting = Vec::new();
            }
            self.waiting_count -= 1;
        }
        Some(call)
    }

    /// Calls of one connection that wait for a receipt.
    #[must_use]
    pub fn waiting_of(&self, key: ConnectionKey) -> &[ReplyToken] {
        self.waiting.get(key.connection as usize).map_or(&[], Vec::as_slice)
    }

    /// Calls of all connections that wait for a receipt.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.waiting_count
    }

    /// Names of all calls.
    pub fn tokens(&self) -> impl Iterator<Item = ReplyToken> + '_ {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            let ConnectionKey { connection, generation } = entry.call.as_ref()?.connection;
            // As in `insert`.
            Some(ReplyToken { connection, generation, request: index as u32, item: entry.generation })
        })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(connection: u32, kind: CallKind) -> Call {
        let connection = ConnectionKey { connection, generation: 7 };
        Call { connection, place: Place { request: 1, item: 0 }, id: CallId::new(Id::Sent(b"1")), kind }
    }

    #[test]
    fn a_token_finds_its_call_once_and_never_its_successor() {
        let mut calls = Calls::default();
        let first = calls.insert(call(3, CallKind::Submit { since_ns: 0 }));
        assert_eq!(calls.take(first).map(|call| call.connection.connection), Some(3));
        let second = calls.insert(call(4, CallKind::Query));
        assert_eq!(first.request, second.request);
        assert_eq!((calls.take(first), calls.get(first)), (None, None));
        assert_eq!(calls.take(second).map(|call| call.kind), Some(CallKind::Query));
        assert!(calls.is_empty());
    }

    #[test]
    fn only_calls_that_wait_for_a_receipt_of_this_connection_are_listed() {
        let mut calls = Calls::default();
        let sync = || CallKind::SubmitSync { hash: B256::ZERO, timeout_ms: 1 };
        calls.insert(call(3, CallKind::Submit { since_ns: 0 }));
        let waiting = calls.insert(call(3, sync()));
        let other = calls.insert(call(4, sync()));
        let key = ConnectionKey { connection: 3, generation: 7 };
        assert_eq!((calls.waiting_of(key), calls.waiting_count()), (&[waiting][..], 2));
        assert_eq!(calls.tokens().count(), 3);
        calls.take(waiting);
        assert_eq!((calls.waiting_of(key), calls.waiting_count()), (&[][..], 1));
        calls.take(other);
        calls.take(other);
        assert_eq!((calls.waiting_count(), calls.tokens().count()), (0, 1));
    }

    #[test]
    fn ids_come_back_as_sent_whatever_their_length() {
        for len in [0, 1, ID_BYTES_INLINE, ID_BYTES_INLINE + 1, 300] {
            let sent = vec![b'7'; len];
            assert_eq!(CallId::new(Id::Sent(&sent)).as_id(), Id::Sent(&sent[..]));
        }
        assert_eq!(CallId::new(Id::Absent).as_id(), Id::Absent);
    }
}
