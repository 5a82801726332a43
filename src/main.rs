#![allow(unsafe_code, reason = "an option of the allocator has no safe wrapper")]
//! The binary: command line → configuration → topology → wait for a signal.

/// `mi_option_purge_delay` of mimalloc 3 (`mi_option_e` in its mimalloc.h).
const MI_OPTION_PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Freed memory goes back to the kernel after ten seconds instead of one: what blocks take and free once a second is otherwise faulted in
/// anew for each, and on a virtual machine a page fault may wait for the host.
const PURGE_DELAY_MS: std::ffi::c_long = 10_000;

/// Returns freed memory to the thread that allocated it and never stalls to trim (measured against the system's: docs/ARCHITECTURE.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // SAFETY: the option exists and takes any number; nothing else uses the allocator's options.
    unsafe { libmimalloc_sys::mi_option_set(MI_OPTION_PURGE_DELAY, PURGE_DELAY_MS) };
    match native_sequencer::cli::main() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sequencer: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
