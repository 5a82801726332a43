//! The outgoing side of a connection: replies in request order, batches put together, one buffer for one write per turn.
//!
//! HTTP answers leave in the order of the requests; WebSocket answers leave as they come, because ids tell them apart.
//! A reply that is next in order is written straight into the output; only one that must wait is kept aside.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Policy;
use crate::codec::http::{Refusal, reason_phrase};
use crate::codec::websocket;

/// What became of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Completion {
    Taken,
    /// The request is answered already or its connection's other side is gone: dropped.
    Stale,
    /// The batch reply would exceed its bound: dropped; answer the item with [`Replies::complete_short`].
    TooLarge,
}

/// How the reply to a request is framed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framing {
    pub keep_alive: bool,
    pub http10: bool,
    /// HEAD: the body is left out.
    pub head_only: bool,
    /// Entry of `cors_origins` to name.
    pub cors_index: Option<u16>,
}

/// A request not answered yet, or answered and waiting for earlier ones.
#[derive(Debug, Default)]
struct Slot {
    framing: Framing,
    done: bool,
    /// `waiting.bytes` is the whole response, head included.
    raw: bool,
    status: u16,
    /// Present for a batch, and for a reply that waits.
    waiting: Option<Box<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Per item of a batch where its reply lies in `bytes`; empty when it is not a batch.
    items: Vec<Item>,
    items_left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    start: usize,
    len: usize,
}

impl Item {
    const MISSING: Self = Self { start: usize::MAX, len: usize::MAX };
}

/// Replies of one connection.
#[derive(Debug)]
pub struct Replies {
    pub(super) policy: Arc<Policy>,
    output: Vec<u8>,
    sent_bytes: usize,
    slots: VecDeque<Slot>,
    /// Number of the request in `slots[0]`.
    front_number: u32,
    items_outstanding: usize,
    /// Kept for reuse, so that a busy connection does not allocate per batch.
    spare: Option<Box<Waiting>>,
    pub(super) websocket: bool,
    pub(super) overflowed: bool,
    /// Bytes of subscriptions' messages since the output was last empty, and of the largest among them.
    event_bytes: usize,
    event_bytes_largest: usize,
}

impl Replies {
    pub(super) fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            output: Vec::new(),
            sent_bytes: 0,
            slots: VecDeque::new(),
            front_number: 0,
            items_outstanding: 0,
            spare: None,
            websocket: false,
            overflowed: false,
            event_bytes: 0,
            event_bytes_largest: 0,
        }
    }

    /// Says that `request` is a batch of `item_count` calls; each is then completed by its index.
    ///
    /// Called once, before any completion of the request. Panics beyond `batch_items_max`, which the caller refuses.
    pub fn begin_batch(&mut self, request: u32, item_count: usize) {
        assert!(item_count > 0 && item_count <= self.policy.limits.batch_items_max, "batch of 1 to the bound items");
        let mut waiting = self.spare.take().unwrap_or_default();
        let Some(slot) = self.slot_mut(request) else { return };
        debug_assert!(slot.waiting.is_none() && !slot.done);
        waiting.items.resize(item_count, Item::MISSING);
        waiting.items_left = item_count;
        slot.waiting = Some(waiting);
        self.items_outstanding += item_count - 1;
    }

    /// Answers `request`, or item `item` of its batch, with what `write` appends. Nothing appended: a notification, no answer.
    pub fn complete(&mut self, request: u32, item: u32, write: impl FnOnce(&mut Vec<u8>)) -> Completion {
        self.complete_bounded(request, item, self.policy.limits.batch_reply_bytes_max, write)
    }

    /// As [`Replies::complete`], for what a full batch reply still takes: an id and a text of fixed length, so that a batch reply
    /// exceeds its bound by no more than the ids of its calls and `batch_items_max` such texts.
    pub fn complete_short(&mut self, request: u32, item: u32, write: impl FnOnce(&mut Vec<u8>)) -> Completion {
        self.complete_bounded(request, item, usize::MAX, write)
    }

    /// Answers a health probe with an HTTP status and a JSON body.
    pub fn complete_probe(&mut self, request: u32, status: u16, body: &str) -> Completion {
        if let Some(slot) = self.slot_mut(request) {
            slot.status = status;
        }
        self.complete(request, 0, |out| out.extend_from_slice(body.as_bytes()))
    }

    /// Sends a subscription's message. `false`: the connection is no WebSocket or is closed, because its client reads too slowly.
    pub fn notify(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if !self.websocket || self.overflowed {
            return false;
        }
        let start = self.output.len();
        websocket::write_text(&mut self.output, write);
        let bytes = self.output.len() - start;
        self.event_bytes += bytes;
        self.event_bytes_largest = self.event_bytes_largest.max(bytes);
        true
    }

    /// Judges a subscriber after its socket took nothing more: too slow with more unsent than the bound beside its largest message.
    /// Replies that it asked for do not count.
    pub(super) fn judge_events(&mut self) {
        let unsent_bytes = self.unsent_bytes().min(self.event_bytes);
        self.overflowed |= unsent_bytes > self.policy.limits.send_queue_bytes_max + self.event_bytes_largest;
    }

    /// Whether the connection was switched to WebSocket.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.websocket
    }

    /// Requests not completely answered.
    #[must_use]
    pub fn outstanding_count(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of replies, whole or in part, that the peer's socket has not taken yet.
    #[must_use]
    pub fn reply_bytes(&self) -> usize {
        let waiting = self.slots.iter().filter_map(|slot| slot.waiting.as_ref());
        self.unsent_bytes() + waiting.map(|waiting| waiting.bytes.len()).sum::<usize>()
    }

    pub(super) fn is_full(&self) -> bool {
        let limits = &self.policy.limits;
        self.slots.len() >= limits.requests_outstanding_max
            || self.items_outstanding >= limits.items_outstanding_max
            || self.unsent_bytes() > limits.output_pause_bytes
    }

    pub(super) fn unsent(&self) -> &[u8] {
        &self.output[self.sent_bytes..]
    }

    pub(super) fn unsent_bytes(&self) -> usize {
        self.output.len() - self.sent_bytes
    }

    pub(super) fn mark_sent(&mut self, bytes: usize) {
        assert!(bytes <= self.unsent_bytes(), "no more is sent than there is");
        self.sent_bytes += bytes;
        if self.sent_bytes == self.output.len() {
            self.output.clear();
            self.sent_bytes = 0;
            (self.event_bytes, self.event_bytes_largest) = (0, 0);
            if self.output.capacity() > self.policy.limits.buffer_keep_bytes {
                self.output = Vec::new();
            }
        } else if self.sent_bytes > self.output.len() / 2 {
            // A queue that never runs empty must not grow by what was sent; half full, each byte moves once on average.
            self.output.drain(..self.sent_bytes);
            self.sent_bytes = 0;
        }
    }

    /// Direct access for control frames and close frames of a WebSocket.
    pub(super) fn output_mut(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Forgets every outstanding request: their replies will be stale.
    pub(super) fn abandon(&mut self) {
        self.front_number = self.front_number.wrapping_add(self.slots.len() as u32);
        self.slots.clear();
        self.items_outstanding = 0;
    }

    /// Gives back memory while nothing is outstanding.
    pub(super) fn release_memory(&mut self) {
        self.spare = None;
        if self.slots.is_empty() {
            self.slots = VecDeque::new();
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        let spare =
            self.spare.as_ref().map_or(0, |spare| spare.bytes.capacity() + spare.items.capacity() * size_of::<Item>());
        self.output.capacity() + self.slots.capacity() * size_of::<Slot>() + spare
    }

    /// Opens the next request's slot and returns its number.
    pub(super) fn open(&mut self, framing: Framing) -> u32 {
        let number = self.front_number.wrapping_add(self.slots.len() as u32);
        self.slots.push_back(Slot { framing, status: 200, ..Slot::default() });
        self.items_outstanding += 1;
        number
    }

    /// Puts a whole response, head included, in its place behind the outstanding ones.
    pub(super) fn push_raw(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.slots.is_empty() {
            write(&mut self.output);
            return;
        }
        let mut waiting = self.spare.take().unwrap_or_default();
        write(&mut waiting.bytes);
        self.slots.push_back(Slot { done: true, raw: true, waiting: Some(waiting), ..Slot::default() });
    }

    /// Answers with a refusal.
    pub(super) fn push_refusal(&mut self, refusal: Refusal, framing: Framing) {
        self.push_raw(|out| write_refusal(out, refusal, framing));
    }

    fn slot_mut(&mut self, request: u32) -> Option<&mut Slot> {
        self.slots.get_mut(request.wrapping_sub(self.front_number) as usize)
    }

    fn complete_bounded(
        &mut self,
        request: u32,
        item: u32,
        bytes_max: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Completion {
        let index = request.wrapping_sub(self.front_number) as usize;
        let Some(slot) = self.slots.get_mut(index).filter(|slot| !slot.done) else { return Completion::Stale };
        let goes_out_now = index == 0 || self.websocket;
        if slot.waiting.as_ref().is_some_and(|waiting| !waiting.items.is_empty()) {
            let waiting = slot.waiting.as_mut().expect("checked in the line above");
            match take_item(waiting, item, bytes_max, write) {
                Completion::Taken => self.items_outstanding -= 1,
                other => return other,
            }
            if waiting.items_left > 0 {
                return Completion::Taken;
            }
            slot.done = true;
            if goes_out_now {
                let waiting = slot.waiting.take().expect("checked above");
                self.write_out(index, |out| join_items(&waiting, out));
                self.recycle(waiting);
            }
        } else {
            slot.done = true;
            self.items_outstanding -= 1;
            if goes_out_now {
                self.write_out(index, write);
            } else {
                let mut waiting = self.spare.take().unwrap_or_default();
                write(&mut waiting.bytes);
                self.slots[index].waiting = Some(waiting);
            }
        }
        self.pop_done(goes_out_now && index == 0);
        Completion::Taken
    }

    /// Removes answered requests from the front; those that waited are written now. `front_is_written`: the first one already was.
    fn pop_done(&mut self, mut front_is_written: bool) {
        while self.slots.front().is_some_and(|slot| slot.done) {
            if let Some(waiting) = self.slots[0].waiting.take() {
                match (self.slots[0].raw, waiting.items.is_empty()) {
                    (true, _) => self.output.extend_from_slice(&waiting.bytes),
                    (false, true) => self.write_out(0, |out| out.extend_from_slice(&waiting.bytes)),
                    (false, false) => self.write_out(0, |out| join_items(&waiting, out)),
                }
                self.recycle(waiting);
            } else {
                debug_assert!(front_is_written || self.websocket, "an answered request without bytes was written");
            }
            front_is_written = false;
            self.slots.pop_front();
            self.front_number = self.front_number.wrapping_add(1);
        }
    }

    fn write_out(&mut self, index: usize, write: impl FnOnce(&mut Vec<u8>)) {
        if self.websocket {
            let start = self.output.len();
            let mut is_empty = false;
            websocket::write_text(&mut self.output, |out| {
                let start = out.len();
                write(out);
                is_empty = out.len() == start;
            });
            if is_empty {
                self.output.truncate(start);
            }
            return;
        }
        let Slot { framing, status, .. } = self.slots[index];
        write_response(&mut self.output, &self.policy, status, framing, write);
    }

    fn recycle(&mut self, mut waiting: Box<Waiting>) {
        if self.spare.is_none() && waiting.bytes.capacity() <= self.policy.limits.buffer_keep_bytes {
            waiting.bytes.clear();
            waiting.items.clear();
            waiting.items_left = 0;
            self.spare = Some(waiting);
        }
    }
}

/// Takes the reply of one item of a batch.
fn take_item(waiting: &mut Waiting, item: u32, bytes_max: usize, write: impl FnOnce(&mut Vec<u8>)) -> Completion {
    let start = waiting.bytes.len();
    match waiting.items.get(item as usize) {
        Some(&Item::MISSING) => {}
        _ => return Completion::Stale,
    }
    write(&mut waiting.bytes);
    // Brackets and one comma per item belong to the reply.
    if waiting.bytes.len() + waiting.items.len() + 1 > bytes_max {
        waiting.bytes.truncate(start);
        return Completion::TooLarge;
    }
    waiting.items[item as usize] = Item { start, len: waiting.bytes.len() - start };
    waiting.items_left -= 1;
    Completion::Taken
}

/// Appends the batch reply: the items' replies in the order of their calls; nothing at all when every call was a notification.
fn join_items(waiting: &Waiting, out: &mut Vec<u8>) {
    if waiting.bytes.is_empty() {
        return;
    }
    out.push(b'[');
    let mut is_first = true;
    for item in waiting.items.iter().filter(|item| item.len > 0) {
        if !std::mem::replace(&mut is_first, false) {
            out.push(b',');
        }
        out.extend_from_slice(&waiting.bytes[item.start..item.start + item.len]);
    }
    out.push(b']');
}

/// Appends head and body of a JSON response. The length is written when it is known: most bodies have three digits of length, so
/// that usually nothing moves.
fn write_response(out: &mut Vec<u8>, policy: &Policy, status: u16, framing: Framing, write: impl FnOnce(&mut Vec<u8>)) {
    const GUESS: &[u8] = b"000\r\n\r\n";
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n");
    } else {
        write_status(out, status);
        out.extend_from_slice(b"Content-Type: application/json\r\n");
    }
    write_cors_origin(out, policy, framing.cors_index);
    write_connection(out, framing);
    out.extend_from_slice(b"Content-Length: ");
    let length_start = out.len();
    out.extend_from_slice(GUESS);
    let body_start = out.len();
    write(out);
    let body_bytes = out.len() - body_start;
    let mut digits = [0; 20];
    let digits = decimal(body_bytes as u64, &mut digits);
    if digits.len() != 3 {
        let body_start_right = body_start - 3 + digits.len();
        out.resize(out.len() + digits.len(), 0);
        out.copy_within(body_start..body_start + body_bytes, body_start_right);
        out.truncate(body_start_right + body_bytes);
    }
    out[length_start..length_start + digits.len()].copy_from_slice(digits);
    out[length_start + digits.len()..length_start + digits.len() + 4].copy_from_slice(b"\r\n\r\n");
    if framing.head_only {
        out.truncate(out.len() - body_bytes);
    }
}

/// Appends the whole response to a refused request.
fn write_refusal(out: &mut Vec<u8>, refusal: Refusal, framing: Framing) {
    write_status(out, refusal.status());
    out.extend_from_slice(match refusal.status() {
        405 => b"Allow: GET, HEAD, OPTIONS, POST\r\n",
        426 => b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".as_slice(),
        _ => b"",
    });
    write_connection(out, framing);
    let text = refusal.text();
    out.extend_from_slice(b"Content-Type: text/plain\r\nContent-Length: ");
    out.extend_from_slice(decimal(text.len() as u64 + 1, &mut [0; 20]));
    out.extend_from_slice(b"\r\n\r\n");
    if !framing.head_only {
        out.extend_from_slice(text.as_bytes());
        out.push(b'\n');
    }
}

/// Appends the answer to a CORS preflight.
pub(super) fn write_preflight(out: &mut Vec<u8>, policy: &Policy, framing: Framing) {
    write_status(out, 204);
    write_cors_origin(out, policy, framing.cors_index);
    write_connection(out, framing);
    out.extend_from_slice(
        b"Access-Control-Allow-Methods: POST\r\nAccess-Control-Allow-Headers: Content-Type\r\nAccess-Control-Max-Age: 600\r\n\r\n",
    );
}

/// Appends the switch to WebSocket.
pub(super) fn write_upgrade(out: &mut Vec<u8>, accept_key: &[u8]) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept_key);
    out.extend_from_slice(b"\r\n\r\n");
}

fn write_status(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(decimal(u64::from(status), &mut [0; 20]));
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_connection(out: &mut Vec<u8>, framing: Framing) {
    if !framing.keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if framing.http10 {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
}

fn write_cors_origin(out: &mut Vec<u8>, policy: &Policy, cors_index: Option<u16>) {
    let Some(origin) = cors_index.and_then(|index| policy.cors_origins.get(usize::from(index))) else { return };
    out.extend_from_slice(b"Access-Control-Allow-Origin: ");
    out.extend_from_slice(origin.as_bytes());
    out.extend_from_slice(b"\r\nVary: Origin\r\n");
}

/// The decimal digits of `number`, written to the end of `digits`.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}
