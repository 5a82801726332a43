//! The block clock: wall time at start carried on by the monotonic clock, pulled towards wall time by at most 1 %.
//!
//! A wall clock that jumps (an administrator, a leap, a bad NTP peer) therefore never jumps a block's timestamp.

const NS_PER_S: u64 = 1_000_000_000;
/// The slew: one part in a hundred of the time that passed.
const SLEW_DIVISOR: i128 = 100;

/// See the module's text. Pure: both clocks come as arguments.
#[derive(Clone, Copy, Debug)]
pub struct BlockClock {
    estimate_ns: u64,
    monotonic_ns: u64,
}

impl BlockClock {
    #[must_use]
    pub fn new(monotonic_ns: u64, wall_unix_ns: u64) -> Self {
        Self { estimate_ns: wall_unix_ns, monotonic_ns }
    }

    /// Unix time in nanoseconds at `monotonic_ns`, which never runs backwards.
    pub fn advance(&mut self, monotonic_ns: u64, wall_unix_ns: u64) -> u64 {
        let elapsed = monotonic_ns.saturating_sub(self.monotonic_ns);
        let carried = i128::from(self.estimate_ns) + i128::from(elapsed);
        let slew_max = i128::from(elapsed) / SLEW_DIVISOR;
        let slew = (i128::from(wall_unix_ns) - carried).clamp(-slew_max, slew_max);
        self.monotonic_ns = self.monotonic_ns.max(monotonic_ns);
        self.estimate_ns = u64::try_from(carried + slew).unwrap_or(self.estimate_ns);
        self.estimate_ns
    }
}

/// The timestamp of the block after `parent_timestamp`, or the unix time in nanoseconds from which one may be opened: a block opens
/// only while `parent + 1 ≤ clock + lead_s`.
///
/// # Errors
/// The time to wait for.
pub fn next_timestamp(parent_timestamp: u64, clock_unix_ns: u64, lead_s: u64) -> Result<u64, u64> {
    let clock_s = clock_unix_ns / NS_PER_S;
    let earliest = parent_timestamp + 1;
    if earliest > clock_s + lead_s {
        return Err((earliest - lead_s) * NS_PER_S);
    }
    Ok(earliest.max(clock_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_is_followed_at_one_percent() {
        let mut clock = BlockClock::new(0, 1_000 * NS_PER_S);
        assert_eq!(clock.advance(NS_PER_S, 1_001 * NS_PER_S), 1_001 * NS_PER_S);
        assert_eq!(clock.advance(2 * NS_PER_S, 5_000 * NS_PER_S), 1_002 * NS_PER_S + NS_PER_S / 100);
        assert_eq!(clock.advance(3 * NS_PER_S, 0), 1_003 * NS_PER_S);
        assert_eq!(clock.advance(1, 9_999 * NS_PER_S), 1_003 * NS_PER_S, "the monotonic clock never runs back");
    }

    #[track_caller]
    fn check(parent: u64, clock_ms: u64, lead_s: u64, expected: Result<u64, u64>) {
        assert_eq!(next_timestamp(parent, clock_ms * 1_000_000, lead_s), expected);
    }

    #[test]
    fn timestamps_follow_the_clock_and_never_repeat() {
        check(10, 15_000, 1, Ok(15));
        check(15, 15_999, 1, Ok(16));
        check(16, 15_999, 1, Err(16 * NS_PER_S));
        check(16, 16_000, 1, Ok(17));
        check(500, 15_000, 1_000, Ok(501));
    }
}
