#![allow(unsafe_code, reason = "ptrace has no safe interface")]
//! Stops one thread of a child process, as a disk does that does not answer, and lets it go on.

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::ptr;

/// A thread that does not run until this is dropped.
pub struct Frozen {
    tid: libc::pid_t,
    /// Only the thread that stopped it may let it go on.
    _tracer: PhantomData<*const ()>,
}

impl Frozen {
    /// Stops the thread of that name.
    ///
    /// # Errors
    /// The kernel does not let us trace the process.
    pub fn thread(pid: u32, name: &str) -> io::Result<Self> {
        let tid = thread_id(pid, name)?;
        request(libc::PTRACE_SEIZE, tid)?;
        // From here on dropping it lets the thread go.
        let frozen = Self { tid, _tracer: PhantomData };
        request(libc::PTRACE_INTERRUPT, tid)?;
        let mut status = 0;
        // SAFETY: `status` is a live integer, and nothing else is written.
        let waited = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        if waited == tid { Ok(frozen) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // It fails when the process has ended, which is then no longer frozen either; what is left of the thread is taken away, because the
        // process cannot be waited for before.
        if request(libc::PTRACE_DETACH, self.tid).is_err() {
            let mut status = 0;
            // SAFETY: `status` is a live integer, and nothing else is written; it does not wait.
            unsafe { libc::waitpid(self.tid, &raw mut status, libc::__WALL | libc::WNOHANG) };
        }
    }
}

fn thread_id(pid: u32, name: &str) -> io::Result<libc::pid_t> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let is_it = fs::read_to_string(entry.path().join("comm"))?.trim_end() == name;
        if let Some(tid) = entry.file_name().to_str().and_then(|tid| tid.parse().ok()).filter(|_| is_it) {
            return Ok(tid);
        }
    }
    Err(io::Error::other(format!("process {pid} has no thread {name}")))
}

/// One of the requests that take neither an address nor data.
fn request(request: libc::c_uint, tid: libc::pid_t) -> io::Result<()> {
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: the three requests of this file read and write no memory of ours: their address and data are zero.
    let result = unsafe { libc::ptrace(request, tid, nothing, nothing) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
