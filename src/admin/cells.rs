//! What the operator wants, for everyone to read: one word for the builder core, one for the batcher, and what the two have made of it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Who halts. The process is halted while one of them does; each takes back only its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HaltSource {
    /// `admin.emergency-halt`, `EMERGENCY_HALT`.
    Setting = 1,
    /// A file in the data directory.
    File = 2,
    /// `admin_haltSequencer`.
    Admin = 4,
}

impl HaltSource {
    pub const ALL: [Self; 3] = [Self::Setting, Self::File, Self::Admin];

    /// The word in answers and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Setting => "setting",
            Self::File => "file",
            Self::Admin => "admin",
        }
    }
}

const HALTED: u64 = HaltSource::Setting as u64 | HaltSource::File as u64 | HaltSource::Admin as u64;
/// `admin_stopSequencer`.
const STOPPED: u64 = 8;
/// Bits of what is wanted. Above them changes are counted: whoever obeys names the change, so that a start and a stop in a row are two.
const WANTED_BITS: u64 = HALTED | STOPPED;
const CHANGE: u64 = 16;
/// In what was obeyed: no block is open or sealing.
const AT_REST: u64 = 1 << 63;

/// What the operator wants at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted(u64);

impl Wanted {
    /// Nothing is admitted or built, reads go on.
    #[must_use]
    pub fn is_halted(self) -> bool {
        self.0 & HALTED != 0
    }

    /// Nothing is built; what is sent waits in the pool.
    #[must_use]
    pub fn is_stopped(self) -> bool {
        self.0 & STOPPED != 0
    }

    #[must_use]
    pub fn may_build(self) -> bool {
        self.0 & WANTED_BITS == 0
    }

    #[must_use]
    pub fn is_halted_by(self, source: HaltSource) -> bool {
        self.0 & source as u64 != 0
    }

    /// These two, with `source` halting or not.
    #[must_use]
    pub fn halted_by(self, source: HaltSource, is_halted: bool) -> Self {
        self.with(source as u64, is_halted)
    }

    #[must_use]
    pub fn stopped(self, is_stopped: bool) -> Self {
        self.with(STOPPED, is_stopped)
    }

    /// The next change. The count wraps long after the process.
    fn with(self, bit: u64, is_set: bool) -> Self {
        let bits = if is_set { self.0 | bit } else { self.0 & !bit };
        Self(bits.wrapping_add(CHANGE) & !AT_REST)
    }
}

/// What the operator wants of posting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatcherWish {
    /// Nothing new is packed or signed.
    pub is_stopped: bool,
    /// How often everything that is sealed was to be sent at once.
    pub flush_count: u64,
}

impl BatcherWish {
    fn word(self) -> u64 {
        self.flush_count << 1 | u64::from(self.is_stopped)
    }

    fn of(word: u64) -> Self {
        Self { is_stopped: word & 1 == 1, flush_count: word >> 1 }
    }
}

/// The cells. They outlive a launch: a process that starts again in place keeps what its operator wants.
#[derive(Debug, Default)]
pub struct ControlCells {
    wanted: AtomicU64,
    obeyed: AtomicU64,
    batcher: AtomicU64,
    batcher_obeyed: AtomicU64,
}

impl ControlCells {
    /// One relaxed load.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        Wanted(self.wanted.load(Ordering::Relaxed))
    }

    /// Halts, or takes back, on behalf of `source`. Answers what was wanted before. The builder core is to be woken then.
    pub fn set_halted(&self, source: HaltSource, is_halted: bool) -> Wanted {
        self.change(|wanted| wanted.halted_by(source, is_halted))
    }

    /// Stops building, or starts it. Answers what was wanted before. The builder core is to be woken then.
    pub fn set_stopped(&self, is_stopped: bool) -> Wanted {
        self.change(|wanted| wanted.stopped(is_stopped))
    }

    fn change(&self, change: impl Fn(Wanted) -> Wanted) -> Wanted {
        let next = |word| Some(change(Wanted(word)).0);
        let before = self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        // It is never refused.
        Wanted(before.unwrap_or_else(|word| word))
    }

    /// Says what the last turn obeyed, and whether it left no block open or sealing. Runs on: builder core.
    pub fn obey(&self, wanted: Wanted, is_at_rest: bool) {
        let obeyed = wanted.0 | if is_at_rest { AT_REST } else { 0 };
        // The only writer: most turns change nothing and write nothing.
        if self.obeyed.load(Ordering::Relaxed) != obeyed {
            // ORDERING: Release pairs with the Acquire in `is_obeyed`: who sees it sees the heads that were published before.
            self.obeyed.store(obeyed, Ordering::Release);
        }
    }

    /// Whether the builder core knows what is wanted now, that it may not build, and has no block under way.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        // ORDERING: see `obey`.
        let obeyed = self.obeyed.load(Ordering::Acquire);
        let wanted = self.wanted();
        obeyed == wanted.0 | AT_REST && !wanted.may_build()
    }

    #[must_use]
    pub fn batcher(&self) -> BatcherWish {
        BatcherWish::of(self.batcher.load(Ordering::Relaxed))
    }

    /// Runs on: `admin` thread, the only writer.
    pub fn set_batcher(&self, wish: BatcherWish) {
        self.batcher.store(wish.word(), Ordering::Relaxed);
    }

    /// Says what posting goes by from now on. Runs on: `l1` thread.
    pub fn obey_batcher(&self, wish: BatcherWish) {
        self.batcher_obeyed.store(wish.word(), Ordering::Relaxed);
    }

    /// Whether posting goes by what is wanted now.
    #[must_use]
    pub fn is_batcher_obeyed(&self) -> bool {
        self.batcher_obeyed.load(Ordering::Relaxed) == self.batcher.load(Ordering::Relaxed)
    }

    /// Before a launch: nobody has obeyed yet.
    pub fn forget_obeyed(&self) {
        self.obeyed.store(0, Ordering::Relaxed);
        self.batcher_obeyed.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_takes_back_only_its_own() {
        let cells = ControlCells::default();
        assert!(cells.wanted().may_build());
        for source in HaltSource::ALL {
            cells.set_halted(source, true);
            assert!(cells.wanted().is_halted_by(source));
        }
        for (index, source) in HaltSource::ALL.into_iter().enumerate() {
            assert!(cells.wanted().is_halted(), "{index} of three are clear");
            cells.set_halted(source, false);
        }
        assert!(!cells.wanted().is_halted());
        cells.set_stopped(true);
        assert!(cells.wanted().is_stopped() && !cells.wanted().is_halted() && !cells.wanted().may_build());
        assert!(cells.set_stopped(false).is_stopped());
        assert!(cells.wanted().may_build());
    }

    #[test]
    fn rest_counts_when_the_builder_knows_that_it_must_not_build() {
        let cells = ControlCells::default();
        // Idle between two blocks is no rest.
        cells.obey(cells.wanted(), true);
        assert!(!cells.is_at_rest());
        cells.set_stopped(true);
        assert!(!cells.is_at_rest());
        cells.obey(cells.wanted(), false);
        assert!(!cells.is_at_rest());
        cells.obey(cells.wanted(), true);
        assert!(cells.is_at_rest());
        // A start and a stop, of which the builder core saw the start: what it obeyed before is not what is wanted now.
        cells.set_stopped(false);
        let started = cells.wanted();
        cells.set_stopped(true);
        assert!(!cells.is_at_rest());
        cells.obey(started, true);
        assert!(!cells.is_at_rest());
        cells.obey(cells.wanted(), true);
        assert!(cells.is_at_rest());
        cells.forget_obeyed();
        assert!(!cells.is_at_rest());
    }

    #[test]
    fn the_batcher_has_a_word_of_its_own() {
        let cells = ControlCells::default();
        assert_eq!(cells.batcher(), BatcherWish::default());
        for wish in [(true, 0), (false, 1), (true, u64::MAX >> 1)] {
            let wish = BatcherWish { is_stopped: wish.0, flush_count: wish.1 };
            cells.set_batcher(wish);
            assert_eq!(cells.batcher(), wish);
            assert!(!cells.is_batcher_obeyed());
            cells.obey_batcher(wish);
            assert!(cells.is_batcher_obeyed() && cells.wanted().may_build());
        }
    }
}
