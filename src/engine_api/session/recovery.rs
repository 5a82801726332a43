//! The ladder out of a stall: how long there was no progress, what was tried, what comes next.

/// How often a client's head is set before it is called stuck; forgotten once it has caught up, and with every new connection, which may be
/// to a client that was restarted.
const REWINDS_MAX: u32 = 2;

/// What to do about a client that answers and does not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read its head again a little later.
    Wait,
    /// Set its head to where it stands: go-ethereum then drops what it believes to know above.
    Rewind,
    Stuck {
        /// It was not stuck before.
        is_new: bool,
    },
}

/// See the module's text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    /// Since when the head has been on `head`, while it ought to move.
    stalled_since_ns: Option<u64>,
    head: u64,
    rewind_count: u32,
    cannot_rewind: bool,
    /// Patience would not help.
    is_urgent: bool,
    is_stuck: bool,
}

impl Recovery {
    /// The client's head was read on our block `head`; answers whether nothing is wrong any more.
    pub fn head_at(&mut self, head: u64, is_caught_up: bool) -> bool {
        if is_caught_up {
            *self = Self { cannot_rewind: self.cannot_rewind, ..Self::default() };
        } else if head > self.head {
            self.stalled_since_ns = None;
            self.is_urgent = false;
            self.is_stuck = false;
        }
        self.head = head;
        self.stalled_since_ns.is_none()
    }

    /// The client may be another process than before.
    pub fn reconnected(&mut self) {
        self.rewind_count = 0;
        self.cannot_rewind = false;
        self.is_stuck = false;
    }

    /// Patience would not help: the client says that all is well and does nothing.
    pub fn hurry(&mut self) {
        self.is_urgent = true;
    }

    /// The client refused to have its head set.
    pub fn cannot_rewind(&mut self) {
        self.cannot_rewind = true;
    }

    /// The client did not get on.
    pub fn stalled(&mut self, head: u64, now_ns: u64, stall_ns: u64) -> Step {
        self.head = head;
        let since_ns = *self.stalled_since_ns.get_or_insert(now_ns);
        let is_over = now_ns.saturating_sub(since_ns) >= stall_ns;
        let is_urgent = std::mem::take(&mut self.is_urgent);
        if !is_over && !is_urgent {
            return Step::Wait;
        }
        if !self.cannot_rewind && self.rewind_count < REWINDS_MAX {
            self.rewind_count += 1;
            // It gets as much patience again with its new head.
            self.stalled_since_ns = Some(now_ns);
            return Step::Rewind;
        }
        if !is_over {
            return Step::Wait;
        }
        Step::Stuck { is_new: !std::mem::replace(&mut self.is_stuck, true) }
    }
}
