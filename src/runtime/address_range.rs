#![allow(unsafe_code, reason = "maps files at fixed places of a reserved range of addresses")]
//! A large range of addresses in which files come and go, each at its place: pointers into it stay good while it grows.
//!
//! Owner: whoever maps files into it (one thread); any thread reads what is mapped. Nothing is ever written through a map of a file: a full
//! disk is an error of `write`, never a signal. A failed read of a mapped page is a signal: see [`crate::runtime::bus_fault`].

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// Reserved addresses, none of which can be touched before something is mapped there.
pub struct AddressRange {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the range is an address and a length; what is mapped in it is shared memory that this type only hands out by raw calls whose
// contracts keep writers and readers apart.
unsafe impl Send for AddressRange {}
// SAFETY: as above; every method takes `&self` and the kernel orders the calls.
unsafe impl Sync for AddressRange {}

impl AddressRange {
    /// Reserves a range of `bytes`, a multiple of the page size.
    ///
    /// # Errors
    /// The kernel's: the process may have a limit on its address space.
    pub fn reserve(bytes: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(base.cast()).map(|base| Self { base, bytes }).ok_or_else(io::Error::last_os_error)
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The address of the first byte, for reports.
    #[must_use]
    pub fn address(&self) -> usize {
        self.base.as_ptr().addr()
    }

    /// Maps the first `bytes` of a file at `offset`, to be read in no order and left out of core dumps.
    ///
    /// # Safety
    /// Nothing else is mapped there that anyone still reads; the file is not shortened while it is mapped.
    ///
    /// # Errors
    /// The kernel's.
    pub unsafe fn map_file(&self, offset: usize, file: &File, bytes: usize) -> io::Result<()> {
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: `map` checks that the place is in the range; the caller upholds the rest.
        unsafe { self.map(offset, bytes, libc::PROT_READ, flags, file.as_raw_fd()) }?;
        // Hints: what they change is speed, and the size of a core dump.
        self.advise(offset, bytes, libc::MADV_RANDOM);
        self.advise(offset, bytes, libc::MADV_DONTDUMP);
        Ok(())
    }

    /// Maps zeros at `offset`, for files that are simulated; [`AddressRange::store`] writes them.
    ///
    /// # Safety
    /// As for [`AddressRange::map_file`].
    ///
    /// # Errors
    /// The kernel's.
    pub unsafe fn map_memory(&self, offset: usize, bytes: usize) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: as in `map_file`.
        unsafe { self.map(offset, bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1) }
    }

    /// Takes away what is mapped at `offset`.
    ///
    /// # Safety
    /// Nobody reads it any more.
    ///
    /// # Errors
    /// The kernel's.
    pub unsafe fn clear(&self, offset: usize, bytes: usize) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: as in `map_file`.
        unsafe { self.map(offset, bytes, libc::PROT_NONE, flags, -1) }
    }

    /// Writes into memory mapped by [`AddressRange::map_memory`].
    ///
    /// # Safety
    /// It is mapped so, and nobody reads these bytes meanwhile.
    pub unsafe fn store(&self, offset: usize, words: &[u64]) {
        assert!(offset + size_of_val(words) <= self.bytes, "inside the range");
        // SAFETY: inside the range, asserted above.
        let target = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: mapped writable and read by nobody, by the caller's word; a private map overlaps no slice of ours.
        unsafe { std::ptr::copy_nonoverlapping(words.as_ptr().cast(), target, size_of_val(words)) };
    }

    /// Words of what is mapped.
    ///
    /// # Safety
    /// `word..word + count` is mapped, and is neither written nor unmapped while the slice lives.
    #[inline]
    #[must_use]
    pub unsafe fn words(&self, word: usize, count: usize) -> &[u64] {
        debug_assert!((word + count) * 8 <= self.bytes, "inside the range");
        // SAFETY: the range starts at a page, so a word in it is aligned; inside the range by the caller's word.
        let start = unsafe { self.base.as_ptr().cast::<u64>().add(word) };
        // SAFETY: mapped and not written by the caller's word.
        unsafe { std::slice::from_raw_parts(start, count) }
    }

    /// Maps pages that are in the page cache now rather than at their first read. Only a hint.
    pub fn populate(&self, offset: usize, bytes: usize) {
        let start = offset & !4_095;
        self.advise(start, offset + bytes - start, libc::MADV_POPULATE_READ);
    }

    fn advise(&self, offset: usize, bytes: usize, advice: i32) {
        assert!(offset + bytes <= self.bytes, "inside the range");
        // SAFETY: inside the range, asserted above.
        let start = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: the advices given here change no content.
        let _ = unsafe { libc::madvise(start.cast(), bytes, advice) };
    }

    /// # Safety
    /// Nobody reads what is replaced.
    unsafe fn map(&self, offset: usize, bytes: usize, protection: i32, flags: i32, file: i32) -> io::Result<()> {
        assert!(offset.checked_add(bytes).is_some_and(|end| end <= self.bytes), "inside the range");
        // SAFETY: inside the range, asserted above.
        let start = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: replaces only addresses of this range, which nobody reads by the caller's word.
        let mapped = unsafe { libc::mmap(start.cast(), bytes, protection, flags, file, 0) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for AddressRange {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and slices of it cannot outlive `self`.
        let _ = unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
