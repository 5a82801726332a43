//! The binary: command line → configuration → topology → wait for a signal.

/// Returns freed memory to the thread that allocated it and never stalls to trim (measured against the system's: docs/ARCHITECTURE.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    match native_sequencer::cli::main() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sequencer: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
