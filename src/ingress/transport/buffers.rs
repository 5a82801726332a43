#![allow(unsafe_code, reason = "the kernel writes into memory that it was lent")]
//! Buffers that are lent to the kernel, which fills one of them when a socket has bytes: an idle connection holds none.
//!
//! Owner: the transport, on the shard's thread. A buffer belongs to the kernel from [`Buffers::give_back`] until a completion names it; the
//! completion becomes the one [`Filled`] of that buffer, which is taken by value when it is given back.
//!
//! | bytes of an entry of the ring | what |
//! |---|---|
//! | 0..8 | address of the buffer |
//! | 8..12 | its length |
//! | 12..14 | its number |
//! | 14..16 | of the first entry: the ring's tail, which we write and the kernel reads |

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// Buffers of a shard: twice what 64 busy connections fill in a turn. When none is left a connection is read once some are back.
pub const BUFFER_COUNT: u16 = 128;
/// A batch of 100 transfers fits. Only the pages that are written take memory.
pub const BUFFER_BYTES: usize = 64 << 10;

const PAGE_BYTES: usize = 4_096;
const RING_BYTES: usize = BUFFER_COUNT as usize * size_of::<BufRingEntry>();

const _: () = assert!(BUFFER_COUNT.is_power_of_two());

/// A buffer with bytes in it. Not `Clone`: whoever has it is the only one who may touch the buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Filled {
    id: u16,
    len: usize,
}

/// See the module's text.
pub struct Buffers {
    entries: NonNull<BufRingEntry>,
    bytes: NonNull<u8>,
    /// Buffers given to the kernel since the start, modulo 2^16.
    tail: u16,
}

fn layouts() -> (Layout, Layout) {
    let layout = |bytes| Layout::from_size_align(bytes, PAGE_BYTES).expect("both sizes are far below the limit");
    (layout(RING_BYTES.next_multiple_of(PAGE_BYTES)), layout(BUFFER_COUNT as usize * BUFFER_BYTES))
}

impl Buffers {
    /// Makes the memory, all of it the kernel's as soon as the ring knows it.
    #[must_use]
    pub fn new() -> Self {
        let (ring, bytes) = layouts();
        let mut buffers = Self { entries: allocate(ring).cast(), bytes: allocate(bytes), tail: 0 };
        for id in 0..BUFFER_COUNT {
            buffers.lend(id);
        }
        buffers
    }

    /// Where the ring of entries starts, for the kernel.
    #[must_use]
    pub fn ring_address(&self) -> u64 {
        self.entries.as_ptr().expose_provenance() as u64
    }

    /// The token of a buffer that a completion names.
    ///
    /// # Safety
    /// The kernel has filled buffer `id` with `len` bytes and handed it over just now: no other token of it is alive.
    #[must_use]
    pub unsafe fn take(&self, id: u16, len: usize) -> Filled {
        assert!(id < BUFFER_COUNT && len <= BUFFER_BYTES, "the kernel fills our buffers: {id}, {len} bytes");
        Filled { id, len }
    }

    /// What was received.
    pub fn bytes<'a>(&'a mut self, filled: &'a mut Filled) -> &'a mut [u8] {
        // SAFETY: `take` checked the number, so the buffer lies inside the allocation.
        let start = unsafe { self.bytes.add(usize::from(filled.id) * BUFFER_BYTES) };
        // SAFETY: initialised when it was allocated; the kernel let go of it when it made the completion, and gets it back only by value
        // of the token that is borrowed here.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), filled.len) }
    }

    /// Lends the buffer to the kernel again.
    pub fn give_back(&mut self, filled: Filled) {
        self.lend(filled.id);
    }

    fn lend(&mut self, id: u16) {
        // SAFETY: `id` is below `BUFFER_COUNT`: of `new`, or checked by `take`.
        let buffer = unsafe { self.bytes.add(usize::from(id) * BUFFER_BYTES) };
        let place = usize::from(self.tail % BUFFER_COUNT);
        // SAFETY: below `BUFFER_COUNT`, so inside the ring.
        let entry = unsafe { self.entries.add(place) };
        // SAFETY: at most `BUFFER_COUNT` buffers exist, so the entry that is written is not one the kernel has still to take.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(buffer.as_ptr().expose_provenance() as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the address of the first entry of a live ring.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: aligned, live as long as `self`, and written by this thread only.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // ORDERING: Release publishes the entry; pairs with the Acquire load of the tail in the kernel.
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        let (ring, bytes) = layouts();
        // SAFETY: allocated by `new` with this layout; the transport drops the buffers only when the kernel has no use of them any more.
        unsafe { dealloc(self.entries.as_ptr().cast(), ring) };
        // SAFETY: as above.
        unsafe { dealloc(self.bytes.as_ptr(), bytes) };
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout here has a size of 0.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's side: takes the oldest lent buffer and writes into it.
    struct Kernel {
        head: u16,
    }

    impl Kernel {
        fn fill(&mut self, buffers: &Buffers, text: &[u8]) -> Option<Filled> {
            // SAFETY: `entries` is the address of the first entry of a live ring.
            let tail = unsafe { BufRingEntry::tail(buffers.entries.as_ptr()) };
            // SAFETY: live and aligned.
            let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) }.load(Ordering::Acquire);
            if tail == self.head {
                return None;
            }
            // SAFETY: inside the ring.
            let entry = unsafe { buffers.entries.add(usize::from(self.head % BUFFER_COUNT)) };
            // SAFETY: lent, so nobody writes it.
            let entry = unsafe { entry.as_ref() };
            let id = entry.bid();
            assert_eq!(entry.len() as usize, BUFFER_BYTES);
            self.head = self.head.wrapping_add(1);
            // SAFETY: `id` came out of an entry.
            let start = unsafe { buffers.bytes.add(usize::from(id) * BUFFER_BYTES) };
            // SAFETY: the text is shorter than a buffer, which is lent to us.
            unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), start.as_ptr(), text.len()) };
            // SAFETY: taken from the ring just now.
            Some(unsafe { buffers.take(id, text.len()) })
        }
    }

    #[test]
    fn buffers_go_round_and_never_two_at_once() {
        let mut buffers = Buffers::new();
        let mut kernel = Kernel { head: 0 };
        let mut held = std::collections::VecDeque::new();
        let mut taken_count = 0_u32;
        // More rounds than the tail counts.
        for round in 0..if cfg!(miri) { 1_000 } else { 70_000_u32 } {
            let text = round.to_ne_bytes();
            match kernel.fill(&buffers, &text) {
                Some(filled) => {
                    held.push_back((round, filled));
                    taken_count += 1;
                }
                None => assert_eq!(held.len(), usize::from(BUFFER_COUNT), "only when all are out"),
            }
            if round % 7 != 0 || held.len() == usize::from(BUFFER_COUNT) {
                let (written, mut filled) = held.pop_front().expect("at least the newest");
                let bytes = buffers.bytes(&mut filled);
                assert_eq!(bytes, written.to_ne_bytes());
                bytes[0] ^= 0xff;
                buffers.give_back(filled);
            }
        }
        assert!(taken_count > if cfg!(miri) { 500 } else { 60_000 });
    }
}
