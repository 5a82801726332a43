#![allow(unsafe_code, reason = "an eventfd has no safe wrapper in the standard library")]
//! A descriptor that wakes a thread which waits in an io_uring: another thread signals it, the ring watches it.
//!
//! Owner: the thread that waits; anyone who holds it signals. Nobody reads it: each signal is an edge of its own, and the count in it would
//! take centuries to fill.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::task::Wake;

/// See the module's text.
#[derive(Debug)]
pub struct EventFd(File);

impl EventFd {
    /// # Errors
    /// The kernel's: usually no descriptor is left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given this descriptor to us, and nobody else knows it.
        let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self(File::from(owned)))
    }

    /// Wakes whoever watches.
    pub fn signal(&self) {
        // Fails only when the count is full, and then whoever watches is awake.
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Wake for EventFd {
    fn wake(self: Arc<Self>) {
        self.signal();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.signal();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::task::Waker;

    use super::*;

    #[test]
    fn signals_add_up_until_they_are_read() {
        let event = Arc::new(EventFd::new().expect("a descriptor"));
        let mut count = [0; 8];
        let is_empty = (&event.0).read(&mut count).map_err(|error| error.kind());
        assert_eq!(is_empty, Err(io::ErrorKind::WouldBlock));
        event.signal();
        let waker = Waker::from(Arc::clone(&event));
        waker.wake_by_ref();
        waker.wake();
        assert_eq!((&event.0).read(&mut count).expect("three signals"), 8);
        assert_eq!(u64::from_ne_bytes(count), 3);
    }
}
