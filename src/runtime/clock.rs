//! The two clocks of the process, read in one place so that everything else takes time as an argument.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What the clock says at the first call: a year, so that what happened before the process started has a time too.
const START_NS: u64 = 365 * 86_400 * 1_000_000_000;

/// Nanoseconds since a year before the first call in this process. Never runs back.
#[must_use]
pub fn monotonic_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // 2^64 ns are 584 years.
    START_NS + START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Nanoseconds since 1970 by the wall clock, 0 before.
#[must_use]
pub fn wall_unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos() as u64)
}
