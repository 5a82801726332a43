#![allow(unsafe_code, reason = "the scheduler's calls have no safe wrapper in the standard library")]
//! Which cores this process may use, pinning a thread to some of them, its priority, how long it runs at a time, and how often it waited for the disk.

use std::io;

/// Cores that the process may run on, ascending. Empty when the kernel does not say.
#[must_use]
pub fn allowed_cores() -> Vec<usize> {
    let mut set = empty_set();
    // SAFETY: `set` is a live `cpu_set_t` of the size that is passed; pid 0 is the calling thread.
    let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if status != 0 {
        return Vec::new();
    }
    let is_set = |core: &usize| {
        // SAFETY: `core` is below CPU_SETSIZE, the bits that a `cpu_set_t` has.
        unsafe { libc::CPU_ISSET(*core, &set) }
    };
    (0..libc::CPU_SETSIZE as usize).filter(is_set).collect()
}

/// Pins the calling thread to `cores`, which is not empty.
///
/// # Errors
/// The kernel's, for cores that do not exist or are not allowed.
pub fn pin_current_thread(cores: &[usize]) -> io::Result<()> {
    let mut set = empty_set();
    for core in cores {
        if *core >= libc::CPU_SETSIZE as usize {
            let what = format!("core {core} is beyond {}", libc::CPU_SETSIZE);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        // SAFETY: `core` was checked against CPU_SETSIZE above.
        unsafe { libc::CPU_SET(*core, &mut set) };
    }
    // SAFETY: `set` is a live `cpu_set_t` of the size that is passed; pid 0 is the calling thread.
    let status = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the calling thread yield to the process's other threads, 1 a little to 19 most.
///
/// # Errors
/// The kernel's.
pub fn lower_current_thread_priority(nice: i32) -> io::Result<()> {
    // SAFETY: the call takes no pointers; who 0 is the calling thread on Linux.
    let status = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the calling thread's turns on a core short, and with that soon: of threads that are owed the same, the kernel runs the one first whose
/// turn would end first. Policy and nice value stay. Linux 6.12 and later, which take 100,000 to 100,000,000 ns; earlier ones change nothing.
/// Source: sched_setattr(2), `sched_runtime` for SCHED_OTHER; kernel/sched/fair.c, custom slice.
///
/// # Errors
/// The kernel's.
pub fn shorten_current_thread_slice(slice_ns: u64) -> io::Result<()> {
    let mut attributes = current_thread_attributes()?;
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = slice_ns;
    // SAFETY: `attributes` is a live `sched_attr` that says its own size; the call only reads it; pid 0 is the calling thread.
    let status = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn current_thread_attributes() -> io::Result<libc::sched_attr> {
    // SAFETY: a `sched_attr` is integers, for which all zeros is valid.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let bytes = size_of::<libc::sched_attr>();
    // SAFETY: `attributes` is a live `sched_attr` of the size that is passed, which the call fills; pid 0 is the calling thread.
    let status = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) };
    if status == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

/// Major page faults of the calling thread: pages of mapped files that it had to wait for; 0 when the kernel does not say.
#[must_use]
pub fn current_thread_major_faults() -> u64 {
    // SAFETY: a `rusage` is integers, for which all zeros is valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a live `rusage`, which the call fills.
    let status = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    if status == 0 { u64::try_from(usage.ru_majflt).unwrap_or(0) } else { 0 }
}

fn empty_set() -> libc::cpu_set_t {
    // SAFETY: a `cpu_set_t` is an array of integers, for which all zeros is the empty set.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned_to_an_allowed_core_and_to_no_other() {
        let cores = allowed_cores();
        assert!(!cores.is_empty());
        let first = cores[0];
        std::thread::spawn(move || {
            pin_current_thread(&[first]).expect("an allowed core");
            assert_eq!(allowed_cores(), vec![first]);
            assert!(pin_current_thread(&[usize::MAX]).is_err());
            lower_current_thread_priority(10).expect("lowering is always allowed");
            shorten_current_thread_slice(200_000).expect("as is this");
            let attributes = current_thread_attributes().expect("its own");
            assert_eq!(attributes.sched_nice, 10, "the nice value stays");
            // Before Linux 6.12 there is none to tell.
            assert!([0, 200_000].contains(&attributes.sched_runtime), "{}", attributes.sched_runtime);
        })
        .join()
        .expect("pinned");
    }
}
