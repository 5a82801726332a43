//! Subscriptions of one shard's WebSocket connections: heads in, notifications out.
//!
//! Owner: one ingress shard. Everybody sees the same events in the same order; each event is encoded once and framed per subscriber.
//!
//! `newPendingTransactions` announces a transaction when it has its place in the open block and the place is durable. Before that
//! only the shard that admitted it and the builder core know it; a transaction behind a nonce gap is not announced, as elsewhere.

use std::collections::HashMap;

use crate::builder::block::{Heads, OpenBlock, PlacedTx, SealedBlock};
use crate::builder::rewinds::RemovedLog;
use crate::primitives::{Sequence, ShardId};
use crate::rpc::encode;
use crate::rpc::error::RpcError;
use crate::rpc::json;
use crate::rpc::limits::{
    EVENT_FILTER_BYTES, EVENT_PORTION_BYTES, PRECONFIRMATIONS_PER_NOTIFICATION_MAX, SUBSCRIPTIONS_PER_CONNECTION_MAX,
};
use crate::rpc::log_filter::LogFilter;
use crate::rpc::source::{BlockSource, Place, ReceiptView, TxView};

/// Names a subscription and, in its upper 16 bits, the shard that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionId(u64);

impl SubscriptionId {
    #[must_use]
    pub fn shard(self) -> ShardId {
        ShardId((self.0 >> 48) as u16)
    }

    /// Reads what `write` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0x")?;
        let well_formed = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        well_formed.then(|| u64::from_str_radix(digits, 16).ok().map(Self)).flatten()
    }

    /// Appends the JSON string.
    pub fn write(self, out: &mut Vec<u8>) {
        json::data(&self.0.to_be_bytes(), out);
    }
}

/// The connection that a notification goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey {
    pub connection: u32,
    /// Reuse counter of the slot, as in `ReplyToken`.
    pub generation: u32,
}

/// What a subscriber wants to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionKind {
    NewHeads,
    Logs(Box<LogFilter>),
    NewPendingTransactions { full: bool },
    Preconfirmations,
}

/// Where the next placed transaction is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Sealed blocks up to here have been announced.
    pub(super) head_number: u64,
    /// The block whose entries are being announced, and how many of them were.
    pub(super) block_number: u64,
    pub(super) tx_count: usize,
    /// How far the sealed block after `head_number` was announced.
    sealed: SealedCursor,
    /// Reorganisations that were announced, and how many logs of the next one.
    rewinds: u64,
    removed_logs: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SealedCursor {
    is_head_announced: bool,
    /// The next log.
    receipt_index: usize,
    log_offset: usize,
}

impl SealedCursor {
    /// Whether `log` of block `number`, one of `logs`, was announced before the cursor came to stand in that block.
    fn is_told(&self, number: u64, log: &RemovedLog, logs: &[RemovedLog]) -> bool {
        let receipt = self.receipt_index as u64;
        if log.block_number != number || log.tx_index != receipt {
            return log.block_number == number && log.tx_index < receipt;
        }
        let first = logs.iter().find(|other| other.block_number == number && other.tx_index == receipt);
        first.is_some_and(|first| log.log_index - first.log_index < self.log_offset as u64)
    }
}

/// Whether a portion announced everything there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// The portion's bound was reached: call again after writing, and before sleeping.
    More,
}

struct Subscriber {
    id: SubscriptionId,
    connection: ConnectionKey,
}

/// Every subscription of one shard.
pub struct Subscriptions {
    shard: ShardId,
    /// 48 bits; never reused.
    next_id: u64,
    per_connection: HashMap<ConnectionKey, usize, foldhash::fast::RandomState>,
    heads: Vec<Subscriber>,
    logs: Vec<(Subscriber, Box<LogFilter>)>,
    pending_hashes: Vec<Subscriber>,
    pending_full: Vec<Subscriber>,
    preconfirmations: Vec<Subscriber>,
    cursor: Option<Cursor>,
    /// Blocks that could not be announced, because they had left `Heads::recent` before this shard looked.
    skipped_block_count: u64,
    result: Vec<u8>,
    writer: Writer,
}

/// Frames notifications and counts the portion.
#[derive(Default)]
struct Writer {
    frame: Vec<u8>,
    portion_bytes: usize,
}

/// Where notifications go: the connection, and the bytes of one JSON-RPC notification.
pub trait NotificationSink {
    fn notify(&mut self, connection: ConnectionKey, notification: &[u8]);
}

impl<F: FnMut(ConnectionKey, &[u8])> NotificationSink for F {
    fn notify(&mut self, connection: ConnectionKey, notification: &[u8]) {
        self(connection, notification);
    }
}

impl Subscriptions {
    #[must_use]
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            next_id: 1,
            per_connection: HashMap::default(),
            heads: Vec::new(),
            logs: Vec::new(),
            pending_hashes: Vec::new(),
            pending_full: Vec::new(),
            preconfirmations: Vec::new(),
            cursor: None,
            skipped_block_count: 0,
            result: Vec::new(),
            writer: Writer::default(),
        }
    }

    /// Registers a subscription. It hears what happens from now on.
    ///
    /// # Errors
    /// -32005 when the connection has as many as it may; on full: `Reject`.
    pub fn add(
        &mut self,
        connection: ConnectionKey,
        kind: SubscriptionKind,
        heads: &Heads,
        durable: Sequence,
    ) -> Result<SubscriptionId, RpcError> {
        let count = self.per_connection.get(&connection).copied().unwrap_or(0);
        if count >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            return Err(RpcError::limit(format!(
                "too many subscriptions on this connection: {count}, limit {SUBSCRIPTIONS_PER_CONNECTION_MAX}"
            )));
        }
        if self.is_empty() {
            // Nobody listened: the past is not announced.
            self.cursor = Some(Cursor::at_tip(heads, durable));
        }
        self.per_connection.insert(connection, count + 1);
        let id = SubscriptionId(u64::from(self.shard.0) << 48 | self.next_id);
        self.next_id += 1;
        let subscriber = Subscriber { id, connection };
        match kind {
            SubscriptionKind::NewHeads => self.heads.push(subscriber),
            SubscriptionKind::Logs(filter) => self.logs.push((subscriber, filter)),
            SubscriptionKind::NewPendingTransactions { full: false } => self.pending_hashes.push(subscriber),
            SubscriptionKind::NewPendingTransactions { full: true } => self.pending_full.push(subscriber),
            SubscriptionKind::Preconfirmations => self.preconfirmations.push(subscriber),
        }
        Ok(id)
    }

    /// Ends a subscription of this connection; false when it has none of that id.
    pub fn remove(&mut self, connection: ConnectionKey, id: SubscriptionId) -> bool {
        let before = self.len();
        self.retain(|subscriber| subscriber.connection != connection || subscriber.id != id);
        let removed = self.len() < before;
        if removed && let Some(count) = self.per_connection.get_mut(&connection) {
            *count -= 1;
            if *count == 0 {
                self.per_connection.remove(&connection);
            }
        }
        removed
    }

    /// Ends every subscription of a connection that is gone.
    pub fn remove_connection(&mut self, connection: ConnectionKey) {
        if self.per_connection.remove(&connection).is_some() {
            self.retain(|subscriber| subscriber.connection != connection);
        }
    }

    fn retain(&mut self, keep: impl Fn(&Subscriber) -> bool) {
        for list in [&mut self.heads, &mut self.pending_hashes, &mut self.pending_full, &mut self.preconfirmations] {
            list.retain(&keep);
        }
        self.logs.retain(|(subscriber, _)| keep(subscriber));
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
            + self.logs.len()
            + self.pending_hashes.len()
            + self.pending_full.len()
            + self.preconfirmations.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn skipped_block_count(&self) -> u64 {
        self.skipped_block_count
    }

    /// Whether `announce` has something to say at `durable`.
    #[must_use]
    pub fn has_news(&self, heads: &Heads, durable: Sequence) -> bool {
        self.next_news(heads).into_iter().flatten().any(|sequence| sequence <= durable)
    }

    /// The smallest sequence above `durable` that would be news: what the heads hold and must not be said yet.
    #[must_use]
    pub fn awaited(&self, heads: &Heads, durable: Sequence) -> Option<Sequence> {
        self.next_news(heads).into_iter().flatten().filter(|sequence| *sequence > durable).min()
    }

    /// Sequences of the next block and of the next placed transaction that nobody was told of.
    fn next_news(&self, heads: &Heads) -> [Option<Sequence>; 2] {
        let Some(mut cursor) = self.cursor.filter(|_| !self.is_empty()) else { return [None; 2] };
        if cursor.rewinds < heads.rewinds.count() {
            // What was told is gone: nobody waits to say so.
            return [Some(Sequence(0)), None];
        }
        cursor.catch_up(heads);
        let sealed = next_head(heads, cursor.head_number).map(|next| next.sequence);
        let placed = block_at(heads, cursor.block_number).and_then(|block| block.transactions.get(cursor.tx_count));
        [sealed, placed.map(|tx| tx.sequence)]
    }

    /// Writes the next portion of notifications of what became durable: placed transactions in order, then blocks.
    ///
    /// Runs on: ingress shard, several times per turn, with a write to the subscribers' sockets after each; ends with the entry that
    /// reaches `EVENT_PORTION_BYTES`.
    pub fn announce(&mut self, heads: &Heads, durable: Sequence, sink: &mut impl NotificationSink) -> Progress {
        if self.is_empty() {
            self.cursor = None;
            return Progress::Done;
        }
        self.writer.portion_bytes = 0;
        let mut cursor = self.cursor.unwrap_or_else(|| Cursor::at_tip(heads, durable));
        if !self.announce_rewinds(heads, &mut cursor, sink) {
            self.cursor = Some(cursor);
            return Progress::More;
        }
        self.skipped_block_count += cursor.catch_up(heads);
        while let Some(block) = block_at(heads, cursor.block_number) {
            cursor.tx_count += self.announce_placed(block, cursor.tx_count, durable, sink);
            // Only a sealed block is complete: nothing is appended to it any more.
            let complete =
                heads.recent_by_number(cursor.block_number).is_some() && cursor.tx_count == block.transactions.len();
            if !complete {
                break;
            }
            cursor.block_number += 1;
            cursor.tx_count = 0;
        }
        while !self.writer.is_full() {
            let next = next_head(heads, cursor.head_number).filter(|next| next.sequence <= durable);
            // A block is announced after its transactions.
            let Some(sealed) = next.filter(|next| next.header.number < cursor.block_number) else { break };
            if !self.announce_sealed(sealed, &mut cursor.sealed, sink) {
                break;
            }
            cursor.head_number += 1;
            cursor.sealed = SealedCursor::default();
        }
        self.cursor = Some(cursor);
        if self.has_news(heads, durable) { Progress::More } else { Progress::Done }
    }

    /// Announces logs of blocks that were taken back until the portion is full, and goes back with them; answers whether all is announced.
    fn announce_rewinds(&mut self, heads: &Heads, cursor: &mut Cursor, sink: &mut impl NotificationSink) -> bool {
        while cursor.rewinds < heads.rewinds.count() {
            // One that is not kept any more is passed over, as are blocks that have left memory.
            if let Some(rewind) = heads.rewinds.after(cursor.rewinds) {
                let logs = rewind.logs.as_deref().unwrap_or_default();
                let (next, sealed) = (cursor.head_number + 1, cursor.sealed);
                let is_told = |log: &&RemovedLog| log.block_number < next || sealed.is_told(next, log, logs);
                for removed in logs.iter().take_while(is_told).skip(cursor.removed_logs) {
                    if self.writer.is_full() {
                        return false;
                    }
                    cursor.removed_logs += 1;
                    self.announce_removed(removed, sink);
                }
                if cursor.head_number > rewind.to {
                    cursor.head_number = rewind.to;
                    cursor.sealed = SealedCursor::default();
                }
                if cursor.block_number > rewind.to {
                    (cursor.block_number, cursor.tx_count) = (rewind.to + 1, 0);
                }
            }
            (cursor.rewinds, cursor.removed_logs) = (cursor.rewinds + 1, 0);
        }
        true
    }

    fn announce_removed(&mut self, removed: &RemovedLog, sink: &mut impl NotificationSink) {
        self.writer.portion_bytes += EVENT_FILTER_BYTES * self.logs.len();
        self.result.clear();
        for (subscriber, _) in self.logs.iter().filter(|(_, filter)| filter.matches(&removed.log)) {
            if self.result.is_empty() {
                encode::removed_log(removed, &mut self.result);
            }
            self.writer.deliver(std::slice::from_ref(subscriber), &self.result, sink);
        }
    }

    /// Announces durable entries of `block` from `start` on until the portion is full; answers how many.
    fn announce_placed(
        &mut self,
        block: &OpenBlock,
        start: usize,
        durable: Sequence,
        sink: &mut impl NotificationSink,
    ) -> usize {
        let shown = |tx: &&PlacedTx| tx.sequence <= durable;
        let step = self.placed_step();
        let mut next = start;
        while !self.writer.is_full() {
            let count = block.transactions.range(next..next.saturating_add(step)).take_while(shown).count();
            if count == 0 {
                break;
            }
            if self.hears_placed() {
                self.announce_entries(block, next, next + count, sink);
            }
            next += count;
        }
        next - start
    }

    /// Entries that make about one portion when they are plain transfers: with many subscribers, few.
    fn placed_step(&self) -> usize {
        let bytes =
            500 * self.preconfirmations.len() + 200 * self.pending_hashes.len() + 1_000 * self.pending_full.len();
        (EVENT_PORTION_BYTES / bytes.max(1)).clamp(1, PRECONFIRMATIONS_PER_NOTIFICATION_MAX)
    }

    fn announce_entries(&mut self, block: &OpenBlock, first: usize, last: usize, sink: &mut impl NotificationSink) {
        if !self.preconfirmations.is_empty() {
            self.result.clear();
            let entries = block.transactions.range(first..last).enumerate();
            let place = Place::unsealed(&block.context);
            json::array(entries, &mut self.result, |(offset, tx), out| {
                encode::preconfirmation(&ReceiptView::placed(block, tx, first + offset), &place, out);
            });
            self.writer.deliver(&self.preconfirmations, &self.result, sink);
        }
        if self.pending_hashes.is_empty() && self.pending_full.is_empty() {
            return;
        }
        for tx in block.transactions.range(first..last) {
            self.result.clear();
            json::data(tx.hash.as_slice(), &mut self.result);
            self.writer.deliver(&self.pending_hashes, &self.result, sink);
            if !self.pending_full.is_empty() {
                self.result.clear();
                let view = TxView { raw: block.raw(tx), hash: tx.hash, sender: tx.sender };
                if encode::transaction(&view, None, &mut self.result).is_ok() {
                    self.writer.deliver(&self.pending_full, &self.result, sink);
                }
            }
        }
    }

    fn hears_placed(&self) -> bool {
        !self.preconfirmations.is_empty() || !self.pending_hashes.is_empty() || !self.pending_full.is_empty()
    }

    /// Announces a block and its logs from `at` on until the portion is full; answers whether all of it is announced.
    fn announce_sealed(
        &mut self,
        sealed: &SealedBlock,
        at: &mut SealedCursor,
        sink: &mut impl NotificationSink,
    ) -> bool {
        if !std::mem::replace(&mut at.is_head_announced, true) && !self.heads.is_empty() {
            self.result.clear();
            encode::header(&sealed.header, sealed.hash, &mut self.result);
            self.writer.deliver(&self.heads, &self.result, sink);
        }
        if !self.logs.iter().any(|(_, filter)| filter.may_match(&sealed.header.logs_bloom)) {
            return true;
        }
        let source = BlockSource::Sealed(sealed);
        let place = source.place();
        // Only a block read from disk can fail.
        while let Ok(Some(receipt)) = source.receipt(at.receipt_index) {
            for (offset, entry) in receipt.logs().enumerate().skip(at.log_offset) {
                if self.writer.is_full() {
                    at.log_offset = offset;
                    return false;
                }
                self.writer.portion_bytes += EVENT_FILTER_BYTES * self.logs.len();
                self.result.clear();
                for (subscriber, _) in self.logs.iter().filter(|(_, filter)| filter.matches(entry)) {
                    if self.result.is_empty() {
                        encode::log(entry, &place, &receipt, offset, &mut self.result);
                    }
                    self.writer.deliver(std::slice::from_ref(subscriber), &self.result, sink);
                }
            }
            at.receipt_index += 1;
            at.log_offset = 0;
        }
        true
    }
}

impl Cursor {
    /// Behind everything that may be shown now.
    pub(super) fn at_tip(heads: &Heads, durable: Sequence) -> Self {
        let newest = heads.recent.last().unwrap_or(&heads.latest);
        let mut tip_number = newest.header.number;
        while tip_number > 0
            && heads.recent_by_number(tip_number).is_some_and(|block| block.sequence > durable)
            && heads.recent_by_number(tip_number - 1).is_some()
        {
            tip_number -= 1;
        }
        let (head_number, block_number) = (tip_number.min(heads.latest.header.number), tip_number + 1);
        let tx_count = block_at(heads, block_number)
            .map_or(0, |block| block.transactions.iter().take_while(|tx| tx.sequence <= durable).count());
        let rewinds = heads.rewinds.count();
        Self { head_number, block_number, tx_count, sealed: SealedCursor::default(), rewinds, removed_logs: 0 }
    }

    /// Moves a cursor that fell behind the oldest block in memory; answers how many blocks it passed over.
    fn catch_up(&mut self, heads: &Heads) -> u64 {
        let Some(oldest) = heads.recent.first().map(|block| block.header.number) else { return 0 };
        if self.block_number < oldest {
            self.block_number = oldest;
            self.tx_count = 0;
        }
        let skipped_count = oldest.saturating_sub(self.head_number + 1);
        if skipped_count > 0 {
            self.head_number = oldest - 1;
            self.sealed = SealedCursor::default();
        }
        skipped_count
    }
}

/// The block after `head_number` that may be `latest` once it is durable.
fn next_head(heads: &Heads, head_number: u64) -> Option<&SealedBlock> {
    let next = heads.recent_by_number(head_number + 1)?;
    (next.header.number <= heads.latest.header.number).then_some(next)
}

/// A block in memory, sealed or not.
fn block_at(heads: &Heads, number: u64) -> Option<&OpenBlock> {
    match heads.recent_by_number(number) {
        Some(sealed) => Some(&sealed.block),
        None => heads.open.as_deref().filter(|open| open.context.number == number),
    }
}

impl Writer {
    fn is_full(&self) -> bool {
        self.portion_bytes >= EVENT_PORTION_BYTES
    }

    /// Frames one result for each subscriber.
    fn deliver(&mut self, subscribers: &[Subscriber], result: &[u8], sink: &mut impl NotificationSink) {
        for subscriber in subscribers {
            let frame = &mut self.frame;
            frame.clear();
            frame.extend_from_slice(br#"{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"#);
            subscriber.id.write(frame);
            frame.extend_from_slice(br#","result":"#);
            frame.extend_from_slice(result);
            frame.extend_from_slice(b"}}");
            self.portion_bytes += frame.len();
            sink.notify(subscriber.connection, frame);
        }
    }
}
