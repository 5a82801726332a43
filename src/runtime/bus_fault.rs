#![allow(unsafe_code, reason = "a signal handler")]
//! Says which file could not be read when a mapped page cannot be, and ends the process.
//!
//! A disk that fails to read a mapped page answers by SIGBUS, which would end the process without a word. There is nothing to go on with: whoever
//! read holds half of a node.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A range of addresses in which files of equal length are mapped, each at a multiple of it.
struct Watched {
    address: AtomicUsize,
    bytes: AtomicUsize,
    file_bytes: AtomicUsize,
}

/// The only range that is watched: a process has one state.
static WATCHED: Watched =
    Watched { address: AtomicUsize::new(0), bytes: AtomicUsize::new(0), file_bytes: AtomicUsize::new(1) };

/// Answers faults in a range from now on. Segment `n` lies at `n` × its length, modulo the range.
///
/// # Errors
/// The kernel's.
pub fn watch_segments(address: usize, bytes: usize, file_bytes: usize) -> io::Result<()> {
    WATCHED.bytes.store(bytes, Ordering::Relaxed);
    WATCHED.file_bytes.store(file_bytes.max(1), Ordering::Relaxed);
    // ORDERING: Release pairs with the Acquire of the handler, which then sees the lengths.
    WATCHED.address.store(address, Ordering::Release);
    // SAFETY: all bytes zero is a valid value of this plain structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
    // SAFETY: the handler calls only what is safe in a handler (`write`, `abort`), and the structure lives until the return.
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn on_fault(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands a valid structure to a handler with SA_SIGINFO, which lives until the handler's end.
    let info = unsafe { &*info };
    // SAFETY: for SIGBUS the structure holds an address.
    let address = unsafe { info.si_addr() }.addr();
    // ORDERING: Acquire pairs with the Release above.
    let start = WATCHED.address.load(Ordering::Acquire);
    let offset = address.wrapping_sub(start);
    if start == 0 || offset >= WATCHED.bytes.load(Ordering::Relaxed) {
        // None of ours: the fault happens again, and its default ends the process.
        return;
    }
    let file_bytes = WATCHED.file_bytes.load(Ordering::Relaxed);
    let mut line = Line::default();
    line.text(b"sequencer: the disk could not read state file segment-");
    line.number(offset / file_bytes, 8);
    line.text(b", offset ");
    line.number(offset % file_bytes, 1);
    line.text(b": the process ends\n");
    // SAFETY: the bytes are initialised and the length is theirs; `write` may be called in a handler.
    let _ = unsafe { libc::write(2, line.bytes.as_ptr().cast(), line.len) };
    // SAFETY: `abort` may be called in a handler.
    unsafe { libc::abort() };
}

/// Text made without memory of the allocator.
struct Line {
    bytes: [u8; 160],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; 160], len: 0 }
    }
}

impl Line {
    fn text(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
                self.len += 1;
            }
        }
    }

    fn number(&mut self, mut number: usize, digits_min: usize) {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        while number > 0 || digits.len() - start < digits_min {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        let digits = digits;
        self.text(&digits[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_file_and_offset() {
        let mut line = Line::default();
        line.text(b"segment-");
        line.number(42, 8);
        line.text(b", offset ");
        line.number(0, 1);
        line.number(usize::MAX, 1);
        assert_eq!(&line.bytes[..line.len], b"segment-00000042, offset 018446744073709551615");
        (0..30).for_each(|_| line.text(b"more than fits"));
        assert_eq!(line.len, 160);
    }
}
