#![allow(unsafe_code, reason = "the standard library has no fallocate and no pwritev2")]
//! What Linux can do with files and the standard library cannot say.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Flag of one write, `RWF_DSYNC`: it is done when its bytes, and what is needed to find them, are on the disk.
pub const WRITE_DURABLE: i32 = libc::RWF_DSYNC;

/// Adds `O_DIRECT`: reads and writes pass by the page cache. A file system without it refuses the open or the first write (`EINVAL`).
pub fn direct(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(libc::O_DIRECT)
}

/// Sent to a process that writes beyond its file size limit, and ends it unless it is handled: then the write fails.
pub const FILE_SIZE_SIGNAL: i32 = libc::SIGXFSZ;

/// Writes `bytes` at `offset` by one `pwritev2` with `flags`; answers how many were written.
///
/// # Errors
/// The kernel's.
pub fn write(file: &File, offset: u64, bytes: &[u8], flags: i32) -> io::Result<u64> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: one part, which lies in `bytes`; the kernel only reads it, and has let go of it at the return.
    let written = unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, offset, flags) };
    // Negative exactly when it failed.
    u64::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Writes words, as they lie in memory, at `offset` by one `pwritev`; answers how many bytes were written.
///
/// # Errors
/// The kernel's.
pub fn write_words(file: &File, offset: u64, parts: &[&[u64]]) -> io::Result<u64> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let part =
        |words: &&[u64]| libc::iovec { iov_base: words.as_ptr().cast_mut().cast(), iov_len: size_of_val(*words) };
    let parts: Vec<libc::iovec> = parts.iter().map(part).collect();
    let count = i32::try_from(parts.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the parts lie in slices that live until the return; the kernel only reads them.
    let written = unsafe { libc::pwritev(file.as_raw_fd(), parts.as_ptr(), count, offset) };
    // Negative exactly when it failed.
    u64::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// The bytes of words, as they lie in memory.
#[must_use]
pub fn bytes_of(words: &[u64]) -> &[u8] {
    // SAFETY: every byte of a word is initialised, bytes need no alignment, and the length is the slice's own.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
}

/// Makes the file `bytes` long and reserves room for all of it. A file system that cannot reserve only gets the length.
///
/// # Errors
/// `StorageFull` or `QuotaExceeded` when there is no room, or what the kernel says.
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    loop {
        // SAFETY: a call without pointers; the descriptor is open as long as `file` lives.
        let code = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) };
        let error = match code {
            0 => return Ok(()),
            _ => io::Error::last_os_error(),
        };
        match error.kind() {
            // A signal: nothing is lost by beginning again.
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::Unsupported => return file.set_len(bytes),
            _ => return Err(error),
        }
    }
}

/// Whether the error means that the kernel or the file system does not know what was asked, rather than failed at it.
#[must_use]
pub fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS))
}
