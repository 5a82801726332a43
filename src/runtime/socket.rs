#![allow(unsafe_code, reason = "the executor has no read that leaves the watching to the caller")]
//! A read of a socket that neither waits nor starts to watch it.
//!
//! The executor's own read watches the socket after each success. Every byte that arrives then interrupts the thread while it
//! recovers signatures, which costs more than the read: a busy shard reads by this function and watches only before it sleeps.

use std::io;
use std::os::fd::AsRawFd;

/// Reads what is there. `WouldBlock` when that is nothing, 0 when the peer has sent its last byte.
///
/// # Errors
/// The kernel's.
pub fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `buffer` is live and writable for its length; a descriptor that is no socket is the kernel's error, not ours.
    let bytes = unsafe {
        libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast::<libc::c_void>(), buffer.len(), libc::MSG_DONTWAIT)
    };
    // Negative exactly when it failed.
    usize::try_from(bytes).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_read_takes_what_is_there_and_never_waits() {
        let (mut near, far) = UnixStream::pair().expect("a pair of sockets");
        let mut buffer = [0; 4];
        assert_eq!(receive(&far, &mut buffer).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        near.write_all(b"abcdef").expect("room for six bytes");
        assert_eq!(receive(&far, &mut buffer).expect("bytes are there"), 4);
        assert_eq!(&buffer, b"abcd");
        assert_eq!(receive(&far, &mut buffer).expect("two are left"), 2);
        drop(near);
        assert_eq!(receive(&far, &mut buffer).expect("the end"), 0);
    }
}
