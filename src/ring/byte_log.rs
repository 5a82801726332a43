#![allow(unsafe_code, reason = "bytes are written once by the only writer and read below a published length")]
//! An append-only run of bytes, contiguous, of fixed capacity, that one thread writes and any thread reads without locks.
//!
//! The capacity is reserved, not touched: a block that stays small costs the pages it fills.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::primitives::Span;

/// Makes an empty log of at most `capacity_bytes ≤ u32::MAX`.
#[must_use]
pub fn byte_log(capacity_bytes: usize) -> (ByteWriter, ByteReader) {
    assert!(u32::try_from(capacity_bytes).is_ok());
    let uninit = Box::<[UnsafeCell<MaybeUninit<u8>>]>::new_uninit_slice(capacity_bytes);
    // SAFETY: an `UnsafeCell<MaybeUninit<u8>>` needs no initialisation.
    let bytes = unsafe { uninit.assume_init() };
    let log = Arc::new(Log { len: AtomicUsize::new(0), bytes });
    (ByteWriter { log: Arc::clone(&log), len: 0 }, ByteReader { log })
}

struct Log {
    len: AtomicUsize,
    bytes: Box<[UnsafeCell<MaybeUninit<u8>>]>,
}

// SAFETY: bytes at and above `len` belong to the one writer, bytes below never change.
unsafe impl Sync for Log {}

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
        if total > self.log.bytes.len() - start {
            return None;
        }
        for part in parts {
            let cells = &self.log.bytes[self.len..self.len + part.len()];
            // SAFETY: the cells at and above the published length are ours alone (`&mut self`, not `Clone`), `cells` is as long as
            // `part`, and the two cannot overlap: `part` is a live shared slice, these cells have never been lent out.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), cells.as_ptr() as *mut u8, part.len()) };
            self.len += part.len();
        }
        // ORDERING: Release publishes the bytes; pairs with the Acquire in `ByteReader::get`.
        self.log.len.store(self.len, Ordering::Release);
        Some(Span { start: start as u32, len: total as u32 })
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
        let cells = &self.log.bytes[start..start + len];
        // SAFETY: every byte below the published length was written once and never changes, and `cells` lies below it.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<u8>(), len) }
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
    fn spans_read_back_and_a_full_log_refuses_without_change() {
        let (mut writer, reader) = byte_log(8);
        let first = writer.push(&[b"ab", b"c"]).expect("three of eight bytes fit");
        assert_eq!(reader.get(first), b"abc");
        assert_eq!(writer.push(&[b"123456"]), None);
        let second = writer.push(&[b"12345"]).expect("exactly eight");
        assert_eq!((reader.get(second), reader.len()), (&b"12345"[..], 8));
        assert_eq!(writer.push(&[b"x"]), None);
    }
}
