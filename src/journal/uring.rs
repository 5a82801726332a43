#![allow(unsafe_code, reason = "the kernel reads a buffer that only its caller can keep alive")]
//! One write at a time through an io_uring, where the configuration asks for it (`journal.engine`).
//!
//! Owner: the journal thread. A call returns when the kernel has let go of the buffer, so none outlives its write.
//! Absent on purpose: a queue. One group is in flight at a time, see `docs/notes/journal.md`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, types};

use crate::limits::JOURNAL_RING_ENTRIES;

/// See the module's text.
pub(super) struct Uring {
    ring: IoUring,
    /// The ring holds an entry that the kernel did not take, and whose buffer may be gone: it is never entered again.
    is_broken: bool,
}

impl Uring {
    /// # Errors
    /// The kernel has no io_uring, or does not let this process use it.
    pub fn new() -> io::Result<Self> {
        Ok(Self { ring: IoUring::builder().dontfork().build(JOURNAL_RING_ENTRIES)?, is_broken: false })
    }

    /// Writes `bytes` at `offset` and waits for it; answers how many were written. `flags` are those of `pwritev2`.
    ///
    /// # Errors
    /// The kernel's, or that of the first call that could not be given to it.
    pub fn write(&mut self, file: &File, offset: u64, bytes: &[u8], flags: i32) -> io::Result<u64> {
        if self.is_broken {
            return Err(io::Error::other("the ring failed before"));
        }
        let len = u32::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), bytes.as_ptr(), len);
        let entry = entry.offset(offset).rw_flags(flags).build();
        // SAFETY: the buffer and the descriptor outlive the entry: both are borrowed until this function returns, and it returns only when
        // the completion is there or the kernel has not taken the entry; then the ring is never entered again.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| io::Error::other("the ring is full"))?;
        self.wait()
    }

    fn wait(&mut self) -> io::Result<u64> {
        loop {
            // A signal may end the call before or after the entry was taken. The next one submits what is left, which may be nothing.
            let entered = self.ring.submit_and_wait(1);
            if let Some(completion) = self.ring.completion().next() {
                let result = completion.result();
                return u64::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            }
            match entered {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if !self.ring.submission().is_empty() => {
                    self.is_broken = true;
                    return Err(error);
                }
                // The kernel has the entry and may still read the buffer, which the caller is free to change after a return.
                Err(_) => std::process::abort(),
            }
        }
    }
}
