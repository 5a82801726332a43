#![allow(unsafe_code, reason = "bytes are written once by the only writer and read below a published length")]
//! An append-only run of bytes, contiguous, of fixed capacity, that one thread writes and any thread reads without locks.
//!
//! The capacity is reserved, not touched: a block that stays small costs the pages it fills. For that each log has [`Pages`] of
//! its own: the allocator's memory of the same size may hold pages of whoever had it before, up to the whole capacity. A log made from a [`ByteStock`]
//! gives its memory back to it, so that its successor writes to pages that the kernel has given already.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;

use crate::primitives::Span;
use crate::runtime::pages::Pages;

/// Of a huge page, which is resident from its first byte on.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Makes an empty log of at most `capacity_bytes ≤ u32::MAX`.
#[must_use]
pub fn byte_log(capacity_bytes: usize) -> (ByteWriter, ByteReader) {
    with_memory(Memory::new(capacity_bytes), None)
}

fn with_memory(memory: Memory, home: Option<Arc<ByteStock>>) -> (ByteWriter, ByteReader) {
    let log = Arc::new(Log { len: AtomicUsize::new(0), memory: Some(memory), home });
    (ByteWriter { log: Arc::clone(&log), len: 0 }, ByteReader { log })
}

/// Memory of logs that are gone, all of one capacity, for logs to come. Never waits; what it has no place for is freed.
pub struct ByteStock {
    capacity_bytes: usize,
    queue: ArrayQueue<Memory>,
}

impl ByteStock {
    /// An empty stock with places for the memory of `logs` logs of `capacity_bytes ≤ u32::MAX` each.
    #[must_use]
    pub fn new(logs: usize, capacity_bytes: usize) -> Self {
        Self { capacity_bytes, queue: ArrayQueue::new(logs) }
    }

    fn take(&self) -> Memory {
        self.queue.pop().unwrap_or_else(|| Memory::new(self.capacity_bytes))
    }

    /// [`byte_log`] with memory of the stock, if there is any.
    #[must_use]
    pub fn byte_log(self: &Arc<Self>) -> (ByteWriter, ByteReader) {
        with_memory(self.take(), Some(Arc::clone(self)))
    }

    /// Sees to it that `logs` logs of `count` bytes can be written without a page fault. Takes the time of those faults.
    pub fn prepare(&self, logs: usize, count: usize) {
        for _ in 0..logs {
            let mut memory = self.take();
            memory.touch(count);
            drop(self.queue.push(memory));
        }
    }
}

struct Memory {
    pages: Pages,
    /// Bytes, from the first, whose pages have been written.
    touched_bytes: usize,
}

impl Memory {
    fn new(capacity_bytes: usize) -> Self {
        assert!(u32::try_from(capacity_bytes).is_ok());
        Self { pages: Pages::new(capacity_bytes), touched_bytes: 0 }
    }

    fn touch(&mut self, count: usize) {
        let count = count.min(self.pages.len());
        if let Some(missing) = count.checked_sub(self.touched_bytes) {
            let start = self.pages.at(self.touched_bytes);
            // SAFETY: `&mut self` and no log around it: nobody reads these bytes; they lie inside the pages.
            unsafe { start.write_bytes(0, missing) };
            self.touched_bytes = count;
        }
    }
}

struct Log {
    len: AtomicUsize,
    /// `None` only while it is dropped.
    memory: Option<Memory>,
    home: Option<Arc<ByteStock>>,
}

impl Log {
    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("it is not dropped")
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let (Some(home), Some(mut memory)) = (self.home.take(), self.memory.take()) {
            memory.touched_bytes = memory.touched_bytes.max(*self.len.get_mut());
            drop(home.queue.push(memory));
        }
    }
}

/// The only writer. Not `Clone`.
pub struct ByteWriter {
    log: Arc<Log>,
    len: usize,
}

impl ByteWriter {
    /// Appends `parts` one behind the other, published together; `None` (and no change) when they do not fit.
    pub fn push(&mut self, parts: &[&[u8]]) -> Option<Span> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let start = self.len;
        let memory = self.log.memory();
        if total > memory.pages.len() - start {
            return None;
        }
        for part in parts {
            let to = memory.pages.at(self.len);
            // SAFETY: there is room for all parts, as was just compared; the bytes at and above the published length are ours alone (`&mut self`,
            // not `Clone`), and the two cannot overlap: `part` is a live shared slice, these bytes have never been lent out.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len()) };
            self.len += part.len();
        }
        // ORDERING: Release publishes the bytes; pairs with the Acquire in `ByteReader::get`.
        self.log.len.store(self.len, Ordering::Release);
        Some(Span { start: start as u32, len: total as u32 })
    }

    /// Memory that the log takes at most: what was written or touched, in huge pages.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let memory = self.log.memory();
        memory.touched_bytes.max(self.len).next_multiple_of(HUGE_PAGE_BYTES).min(memory.pages.len())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A reader's handle.
#[derive(Clone)]
pub struct ByteReader {
    log: Arc<Log>,
}

impl ByteReader {
    /// The bytes of a published span.
    ///
    /// # Panics
    /// When `span` reaches past what is published: spans come from `ByteWriter::push`, so that is a broken invariant.
    #[must_use]
    pub fn get(&self, span: Span) -> &[u8] {
        let (start, len) = (span.start as usize, span.len as usize);
        // ORDERING: Acquire pairs with the Release in `ByteWriter::push`.
        let published = self.log.len.load(Ordering::Acquire);
        assert!(start + len <= published);
        let first: *const u8 = self.log.memory().pages.at(start);
        // SAFETY: every byte below the published length lies in the pages, was written once and never changes while a reader is there.
        unsafe { std::slice::from_raw_parts(first, len) }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.log.len.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stock_gives_the_memory_of_a_log_to_the_next() {
        let stock = Arc::new(ByteStock::new(1, 100_000));
        stock.prepare(1, 200_000);
        let first = {
            let (mut writer, reader) = stock.byte_log();
            let span = writer.push(&[b"abc"]).expect("room");
            reader.get(span).as_ptr()
        };
        let (mut writer, reader) = stock.byte_log();
        assert!(reader.is_empty());
        let span = writer.push(&[b"xy"]).expect("room");
        assert_eq!((reader.get(span).as_ptr(), reader.get(span)), (first, &b"xy"[..]));
        let (mut other, reader) = stock.byte_log();
        let span = other.push(&[b"z"]).expect("room");
        assert_ne!(reader.get(span).as_ptr(), first, "memory serves one log at a time");
    }

    #[test]
    fn spans_read_back_and_a_full_log_refuses_without_change() {
        let (mut writer, reader) = byte_log(8);
        assert_eq!(writer.held_bytes(), 0);
        let first = writer.push(&[b"ab", b"c"]).expect("three of eight bytes fit");
        assert_eq!(reader.get(first), b"abc");
        assert_eq!(writer.push(&[b"123456"]), None);
        let second = writer.push(&[b"12345"]).expect("exactly eight");
        assert_eq!((reader.get(second), reader.len()), (&b"12345"[..], 8));
        assert_eq!(writer.held_bytes(), 8);
        assert_eq!(writer.push(&[b"x"]), None);
    }
}
