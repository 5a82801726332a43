#![allow(unsafe_code, reason = "limits, prctl, adjtimex and statvfs have no safe wrapper in the standard library")]
//! What Linux lets this process do, and what the process asks of it: limits, core dumps, io_uring, the clock, room on a disk.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A limit that is none.
pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

/// What a process may have of something: as it is, and as far as it may raise that itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

/// Limits that this process has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    OpenFiles,
    LockedMemoryBytes,
    CoreBytes,
}

impl Resource {
    const fn number(self) -> libc::__rlimit_resource_t {
        match self {
            Self::OpenFiles => libc::RLIMIT_NOFILE,
            Self::LockedMemoryBytes => libc::RLIMIT_MEMLOCK,
            Self::CoreBytes => libc::RLIMIT_CORE,
        }
    }
}

/// # Errors
/// The kernel's.
pub fn limit(resource: Resource) -> io::Result<Limit> {
    let mut found = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `found` is a live `rlimit` that the kernel fills.
    let status = unsafe { libc::getrlimit(resource.number(), &raw mut found) };
    check(status).map(|_| Limit { soft: found.rlim_cur, hard: found.rlim_max })
}

fn set_limit(resource: Resource, limit: Limit) -> io::Result<()> {
    let wanted = libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: `wanted` is a live `rlimit` that the kernel only reads.
    let status = unsafe { libc::setrlimit(resource.number(), &raw const wanted) };
    check(status).map(drop)
}

/// Takes as much as the process may have without being given more; answers what it has then.
///
/// # Errors
/// The kernel's.
pub fn raise(resource: Resource) -> io::Result<Limit> {
    let found = limit(resource)?;
    let raised = Limit { soft: found.hard, hard: found.hard };
    if found.soft < found.hard {
        set_limit(resource, raised)?;
    }
    Ok(raised)
}

/// From here on a crash leaves no memory behind: no core file (limit 0), no core by a handler of the system, and no debugger or other process of the
/// same user may look into the memory, where the secrets are.
///
/// # Errors
/// The kernel's.
pub fn forbid_core_dumps() -> io::Result<()> {
    set_limit(Resource::CoreBytes, Limit { soft: 0, hard: 0 })?;
    // SAFETY: the call takes numbers only.
    let status = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    check(status).map(drop)
}

/// Size of `struct io_uring_params`, and which word of it holds the flags.
const RING_PARAMETER_WORDS: usize = 30;
const RING_FLAGS_WORD: usize = 2;
/// `IORING_SETUP_SINGLE_ISSUER` and `IORING_SETUP_DEFER_TASKRUN`, as the sockets' rings have them.
const RING_FLAGS: u32 = 1 << 12 | 1 << 13;

/// Makes and closes a small io_uring of the kind that the sockets have.
///
/// # Errors
/// What the kernel says where it has none, forbids it, or is too old: `ENOSYS`, `EPERM`, `EINVAL`.
pub fn try_io_uring() -> io::Result<()> {
    let mut parameters = [0_u32; RING_PARAMETER_WORDS];
    parameters[RING_FLAGS_WORD] = RING_FLAGS;
    // SAFETY: the kernel reads and fills one `io_uring_params`, 120 bytes, of which `parameters` is as many.
    let descriptor = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1_u32, parameters.as_mut_ptr()) };
    let Ok(descriptor @ 0..) = i32::try_from(descriptor) else { return Err(io::Error::last_os_error()) };
    // SAFETY: the descriptor was made above and is nobody else's.
    let status = unsafe { libc::close(descriptor) };
    check(status).map(drop)
}

/// How far the kernel believes its clock to be from true time, in microseconds; `None` when nobody sets it.
///
/// # Errors
/// The kernel's.
pub fn clock_error_us() -> io::Result<Option<u64>> {
    // SAFETY: a `timex` is made of numbers, for which all zeros is a value; no mode is set, so that nothing is changed.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `clock` is a live `timex` that the kernel fills.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    let state = check(state)?;
    let is_set = state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0;
    Ok(is_set.then(|| u64::try_from(clock.maxerror).unwrap_or(u64::MAX)))
}

/// Bytes of a file system: all, and those that this user may still write.
///
/// # Errors
/// The kernel's.
pub fn room(path: &Path) -> io::Result<(u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a `statvfs` is made of numbers, for which all zeros is a value.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero byte and `found` is a live `statvfs`.
    let status = unsafe { libc::statvfs(path.as_ptr(), &raw mut found) };
    check(status)?;
    Ok((found.f_blocks.saturating_mul(found.f_frsize), found.f_bavail.saturating_mul(found.f_frsize)))
}

fn check(status: libc::c_int) -> io::Result<libc::c_int> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers() {
        let files = limit(Resource::OpenFiles).expect("every process has a limit");
        assert!(files.soft <= files.hard && files.soft > 3, "{files:?}");
        assert_eq!(raise(Resource::OpenFiles).expect("up to the hard limit is free").soft, files.hard);
        let (all, free) = room(Path::new("/")).expect("a root");
        assert!(free <= all && all > 0);
        assert!(room(Path::new("/no/such/place")).is_err());
        clock_error_us().expect("reading the clock is free");
    }
}
