#![allow(unsafe_code, reason = "the scheduler's affinity calls have no safe wrapper in the standard library")]
//! Which cores this process may use, and pinning a thread to one of them.

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

/// Pins the calling thread.
///
/// # Errors
/// The kernel's, for a core that does not exist or is not allowed.
pub fn pin_current_thread(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("core {core} is beyond {}", libc::CPU_SETSIZE),
        ));
    }
    let mut set = empty_set();
    // SAFETY: `core` was checked against CPU_SETSIZE above.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is a live `cpu_set_t` of the size that is passed; pid 0 is the calling thread.
    let status = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
            pin_current_thread(first).expect("an allowed core");
            assert_eq!(allowed_cores(), vec![first]);
            assert!(pin_current_thread(usize::MAX).is_err());
        })
        .join()
        .expect("pinned");
    }
}
