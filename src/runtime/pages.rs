#![allow(unsafe_code, reason = "zeroed pages of an anonymous map, seen as atomic words")]
//! Memory that comes from the kernel for one owner and goes back to it at once, all of it.
//!
//! For what is large and comes and goes with the load. The allocator would give pieces of memory that others had before and keep the rest: with
//! blocks of 8 MiB of which 1 to 2 are used, resident memory grew for as long as a load lasted (docs/ARCHITECTURE.md, "Decisions").

use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapMut, MmapRaw};

/// Zeroed memory, reserved and not touched.
pub struct Pages {
    map: MmapRaw,
    bytes: usize,
}

impl Pages {
    /// # Panics
    /// When the kernel has no address space left, as an allocator ends the process.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let map = MmapMut::map_anon(bytes).unwrap_or_else(|error| panic!("{bytes} bytes of address space: {error}"));
        Self { map: map.into(), bytes }
    }

    /// Bytes that may be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The byte at `offset`; valid for all that follow, and as long as `self`. Who may write when is the caller's business.
    ///
    /// # Panics
    /// When `offset` lies behind the end.
    #[must_use]
    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.bytes);
        // SAFETY: the map has at least `bytes` bytes.
        unsafe { self.map.as_mut_ptr().add(offset) }
    }
}

/// Words that any thread may read and write.
pub struct Words(Pages);

impl Words {
    /// `count` words of zero, each of their pages touched: no one who uses them waits for the kernel.
    #[must_use]
    pub fn touched(count: usize) -> Self {
        let words = Self(Pages::new(count * size_of::<AtomicU64>()));
        for word in &*words {
            word.store(0, Ordering::Relaxed);
        }
        words
    }
}

impl std::ops::Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        let count = self.0.len() / size_of::<AtomicU64>();
        // SAFETY: a map begins at a page, is zeroed, holds `count` words and lives as long as `self`; `Pages` is in here alone, so nobody writes but
        // through these atomics.
        unsafe { std::slice::from_raw_parts(self.0.at(0).cast::<AtomicU64>(), count) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_zero_and_keep_what_is_stored() {
        let words = Words::touched(1_025);
        assert_eq!(words.len(), 1_025);
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        words[1_024].store(7, Ordering::Relaxed);
        assert_eq!(words[1_024].load(Ordering::Relaxed), 7);
        assert!(Words::touched(0).is_empty());
    }
}
