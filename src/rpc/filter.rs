//! Filters by polling (`eth_newFilter` and its kin): criteria and a position, no queue.
//!
//! Owner: the ingress shard that made the filter, which its id names; other shards ask there by ring. What is new is read by a query thread from
//! the blocks themselves when somebody polls, from the position that the filter keeps: however seldom it is polled, it holds the same few
//! bytes, and what a poll could not be told, because there was too much of it or nobody was there to hear it, the next one is told.
//!
//! A poll in progress holds a lease, so that two polls at once are not told the same: the second one is told nothing, and nothing is lost.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use crate::builder::block::Heads;
use crate::primitives::{Sequence, ShardId};
use crate::rpc::error::RpcError;
use crate::rpc::limits::{
    FILTER_LEASE_NS, FILTER_LIFE_NS, FILTERS_BYTES_MAX, FILTERS_PER_CONNECTION_MAX, FILTERS_PER_SHARD_MAX,
};
use crate::rpc::log_filter::{LogFilter, LogRange, PENDING_LOGS};
use crate::rpc::params::{Argument, BlockId};
use crate::rpc::subscription::{ConnectionKey, Cursor};

/// Names a filter, and in its second and third byte the shard that owns it. The rest cannot be guessed: over HTTP whoever knows it may poll.
///
/// The standard calls it an unsigned integer (execution-apis, `eth_newFilter`), so its first digit is never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FilterId([u8; 16]);

impl FilterId {
    #[must_use]
    pub fn shard(self) -> ShardId {
        ShardId(u16::from_be_bytes([self.0[1], self.0[2]]))
    }

    /// Reads what `write` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        crate::codec::hex::parse_fixed::<16>(text).ok().map(Self)
    }

    /// Appends the JSON string.
    pub fn write(self, out: &mut Vec<u8>) {
        crate::rpc::json::data(&self.0, out);
    }
}

/// What a filter looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterKind {
    /// Hashes of blocks that became `latest`.
    Blocks,
    /// Transactions that have their durable place in the open block.
    PendingTransactions {
        full: bool,
    },
    Logs(LogCriteria),
}

/// Logs of sealed blocks in a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCriteria {
    pub filter: LogFilter,
    pub from: BlockId,
    pub to: BlockId,
}

impl LogCriteria {
    /// Reads the argument of `eth_newFilter`, with the ranges that go-ethereum takes.
    ///
    /// # Errors
    /// -32602 naming the argument.
    pub fn parse(argument: &Argument<'_>) -> Result<Self, RpcError> {
        let (filter, range) = LogFilter::parse_ranged(argument)?;
        let LogRange::Span { from, to } = range else {
            return Err(argument.invalid("blockHash names one block and a filter watches new ones: use eth_getLogs"));
        };
        match (from, to) {
            (BlockId::Pending, _) | (_, BlockId::Pending) => Err(argument.invalid(PENDING_LOGS)),
            (BlockId::Latest | BlockId::Earliest | BlockId::Number(_), BlockId::Latest)
            | (BlockId::Earliest, BlockId::Number(_)) => Ok(Self { filter, from, to }),
            (BlockId::Number(first), BlockId::Number(last)) if first <= last => Ok(Self { filter, from, to }),
            _ => Err(argument
                .invalid("invalid block range: fromBlock is latest, earliest or a number, toBlock is latest or a number not below it")),
        }
    }
}

impl Position {
    /// The beginning of the block `number`.
    #[must_use]
    pub fn before(self, number: u64) -> Self {
        Self { number, index: 0, ..self }
    }

    /// The same, or the beginning of the block `number` when it lies behind that block.
    #[must_use]
    pub fn not_above(self, number: u64) -> Self {
        if self.number > number { self.before(number) } else { self }
    }

    /// Behind the next entry of the block.
    #[must_use]
    pub fn at(self, index: u64) -> Self {
        Self { index, ..self }
    }
}

impl FilterKind {
    /// Heap bytes, about.
    fn bytes(&self) -> usize {
        match self {
            Self::Blocks | Self::PendingTransactions { .. } => 0,
            Self::Logs(criteria) => {
                let topics = &criteria.filter.topics;
                20 * criteria.filter.addresses.capacity() + 32 * topics.iter().map(Vec::capacity).sum::<usize>()
            }
        }
    }
}

/// The first that a filter was not told: a block, and an entry in it (a placed transaction, or a log that matches).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub number: u64,
    pub index: u64,
    /// Reorganisations that it was told of, of all since the process began.
    pub rewinds: u64,
}

/// What a query thread reads for a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRead {
    pub kind: Arc<FilterKind>,
    /// `eth_getFilterChanges` from here on; `None`: `eth_getFilterLogs`, everything in the range.
    pub from: Option<Position>,
}

/// What is asked of a filter's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterAsk {
    Changes,
    Logs,
    Uninstall,
}

/// A call that concerns filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterCall {
    New(Arc<FilterKind>),
    /// `None`: the id is not one that any shard gives.
    Ask {
        id: Option<FilterId>,
        ask: FilterAsk,
    },
}

/// The right to tell what is new, given by the owner and to be given back to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub id: FilterId,
    ticket: u64,
}

/// What the owner answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterAnswer {
    Unknown,
    Uninstalled,
    /// Another poll is on its way and is told what is new.
    Busy,
    Read {
        read: Box<FilterRead>,
        lease: Option<Lease>,
    },
}

struct Entry {
    kind: Arc<FilterKind>,
    next: Position,
    /// Who made it, for the bound; it outlives that connection.
    maker: ConnectionKey,
    used_ns: u64,
    /// Ticket, and when it ends by itself: whoever holds it may be gone.
    lease: Option<(u64, u64)>,
}

/// The filters of one shard.
pub struct Filters {
    shard: ShardId,
    /// Its keys come from the operating system and never leave the process.
    names: RandomState,
    made_count: u64,
    ticket_next: u64,
    entries: HashMap<FilterId, Entry, foldhash::fast::RandomState>,
    per_connection: HashMap<ConnectionKey, usize, foldhash::fast::RandomState>,
    bytes: usize,
}

impl Filters {
    #[must_use]
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            names: RandomState::new(),
            made_count: 0,
            ticket_next: 0,
            entries: HashMap::default(),
            per_connection: HashMap::default(),
            bytes: 0,
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes a filter. It is told what happens from now on.
    ///
    /// # Errors
    /// -32005 when the connection, or all of the shard, has as many as may be; on full: `Reject`.
    pub fn add(
        &mut self,
        maker: ConnectionKey,
        kind: Arc<FilterKind>,
        heads: &Heads,
        durable: Sequence,
        now_ns: u64,
    ) -> Result<FilterId, RpcError> {
        let bytes = kind.bytes();
        let is_full = |filters: &Self| {
            filters.entries.len() >= FILTERS_PER_SHARD_MAX || filters.bytes + bytes > FILTERS_BYTES_MAX
        };
        if is_full(self) || self.of_connection(maker) >= FILTERS_PER_CONNECTION_MAX {
            self.expire(now_ns);
        }
        let count = self.of_connection(maker);
        if count >= FILTERS_PER_CONNECTION_MAX {
            return Err(RpcError::limit(format!(
                "too many filters of this connection: {count}, limit {FILTERS_PER_CONNECTION_MAX}: eth_uninstallFilter frees one"
            )));
        }
        while is_full(self) && self.evict_orphan() {}
        if is_full(self) {
            let count = self.entries.len();
            return Err(RpcError::limit(format!(
                "too many filters: {count}, limit {FILTERS_PER_SHARD_MAX}, and {FILTERS_BYTES_MAX} bytes of criteria: try again"
            )));
        }
        let cursor = Cursor::at_tip(heads, durable);
        let rewinds = heads.rewinds.count();
        let next = match *kind {
            FilterKind::PendingTransactions { .. } => {
                Position { number: cursor.block_number, index: cursor.tx_count as u64, rewinds }
            }
            FilterKind::Blocks | FilterKind::Logs(_) => Position { number: cursor.head_number + 1, index: 0, rewinds },
        };
        let id = self.name();
        self.bytes += bytes;
        *self.per_connection.entry(maker).or_default() += 1;
        self.entries.insert(id, Entry { kind, next, maker, used_ns: now_ns, lease: None });
        Ok(id)
    }

    fn of_connection(&self, maker: ConnectionKey) -> usize {
        self.per_connection.get(&maker).copied().unwrap_or(0)
    }

    fn name(&mut self) -> FilterId {
        let mut bytes = [0; 16];
        for (half, out) in bytes.chunks_exact_mut(8).enumerate() {
            let mut hasher = self.names.build_hasher();
            hasher.write_u64(self.made_count);
            hasher.write_usize(half);
            out.copy_from_slice(&hasher.finish().to_be_bytes());
        }
        self.made_count += 1;
        bytes[0] |= 0x80;
        bytes[1..3].copy_from_slice(&self.shard.0.to_be_bytes());
        FilterId(bytes)
    }

    /// Answers a call about a filter; one that was not used for its life is gone.
    pub fn ask(&mut self, id: FilterId, ask: FilterAsk, now_ns: u64) -> FilterAnswer {
        if self.entries.get(&id).is_some_and(|entry| is_over(entry, now_ns)) {
            self.remove(id);
        }
        if ask == FilterAsk::Uninstall {
            return if self.remove(id) { FilterAnswer::Uninstalled } else { FilterAnswer::Unknown };
        }
        let Some(entry) = self.entries.get_mut(&id) else { return FilterAnswer::Unknown };
        if ask == FilterAsk::Logs {
            // As in go-ethereum, others have no logs, and asking for these is no poll.
            return match *entry.kind {
                FilterKind::Logs(_) => {
                    let read = FilterRead { kind: Arc::clone(&entry.kind), from: None };
                    FilterAnswer::Read { read: Box::new(read), lease: None }
                }
                _ => FilterAnswer::Unknown,
            };
        }
        entry.used_ns = now_ns;
        if entry.lease.is_some_and(|(_, until_ns)| now_ns < until_ns) {
            return FilterAnswer::Busy;
        }
        self.ticket_next += 1;
        entry.lease = Some((self.ticket_next, now_ns + FILTER_LEASE_NS));
        let read = FilterRead { kind: Arc::clone(&entry.kind), from: Some(entry.next) };
        FilterAnswer::Read { read: Box::new(read), lease: Some(Lease { id, ticket: self.ticket_next }) }
    }

    /// Takes a lease back. `told`: the poller was told everything before it; `None`: it was told nothing.
    pub fn give_back(&mut self, lease: Lease, told: Option<Position>) {
        let Some(entry) = self.entries.get_mut(&lease.id) else { return };
        if entry.lease.is_none_or(|(ticket, _)| ticket != lease.ticket) {
            return;
        }
        entry.lease = None;
        if let Some(next) = told {
            entry.next = next;
        }
    }

    /// The connection is gone: its filters stay, and count for nobody but the shard.
    pub fn forget_connection(&mut self, connection: ConnectionKey) {
        self.per_connection.remove(&connection);
    }

    /// Removes what was not used for its life.
    pub fn expire(&mut self, now_ns: u64) {
        let over: Vec<FilterId> =
            self.entries.iter().filter(|(_, entry)| is_over(entry, now_ns)).map(|(id, _)| *id).collect();
        for id in over {
            self.remove(id);
        }
    }

    /// Makes room: of the filters whose maker is gone the one that was not used for the longest time, so that connections which come and go
    /// cannot keep everybody else's out.
    fn evict_orphan(&mut self) -> bool {
        let orphans = self.entries.iter().filter(|(_, entry)| self.of_connection(entry.maker) == 0);
        let oldest = orphans.min_by_key(|(_, entry)| entry.used_ns).map(|(id, _)| *id);
        oldest.is_some_and(|id| self.remove(id))
    }

    fn remove(&mut self, id: FilterId) -> bool {
        let Some(entry) = self.entries.remove(&id) else { return false };
        self.bytes -= entry.kind.bytes();
        if let Some(count) = self.per_connection.get_mut(&entry.maker) {
            *count -= 1;
            if *count == 0 {
                self.per_connection.remove(&entry.maker);
            }
        }
        true
    }
}

/// go-ethereum's text and code: clients make a new filter when they see them.
#[must_use]
pub fn not_found() -> RpcError {
    RpcError::server("filter not found")
}

fn is_over(entry: &Entry, now_ns: u64) -> bool {
    now_ns.saturating_sub(entry.used_ns) >= FILTER_LIFE_NS
}
