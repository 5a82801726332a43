//! The gate: how far the journal is durable, and who waits for more.
//!
//! One writer, the journal thread. A waiter says what it waits for before it sleeps at its doorbell; whoever moves the gate rings those whose
//! number is reached, so nobody is woken for what it may not show yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::primitives::Sequence;
use crate::ring::Doorbell;

/// Waits for nothing.
const NOTHING: u64 = u64::MAX;

/// See the module's text.
pub struct Gate {
    durable: AtomicU64,
    waiters: Box<[Waiter]>,
}

struct Waiter {
    /// Smallest sequence that it waits for. Written by the waiter.
    wanted: AtomicU64,
    bell: Arc<Doorbell>,
}

impl Gate {
    /// A gate at `durable`. A waiter is named by its place in `bells`.
    #[must_use]
    pub fn new(durable: Sequence, bells: impl IntoIterator<Item = Arc<Doorbell>>) -> Self {
        let waiters = bells.into_iter().map(|bell| Waiter { wanted: AtomicU64::new(NOTHING), bell }).collect();
        Self { durable: AtomicU64::new(durable.0), waiters }
    }

    /// Sequence of the newest durable record. Nothing that depends on a later one leaves the process.
    #[must_use]
    pub fn durable(&self) -> Sequence {
        // ORDERING: Acquire pairs with the Release in `advance`: what was published below the sequence is visible.
        Sequence(self.durable.load(Ordering::Acquire))
    }

    /// Moves the gate and rings every waiter whose number is reached.
    ///
    /// Runs on: the journal's owner, alone. Panics when the gate would go back.
    pub fn advance(&self, to: Sequence) {
        let before = self.durable.load(Ordering::Relaxed);
        assert!(to.0 >= before, "the gate never goes back: {before} to {}", to.0);
        // ORDERING: Release publishes the sequence and everything its writer has seen.
        self.durable.store(to.0, Ordering::Release);
        // ORDERING: the store above comes before the look at who waits; pairs with the fence of a sleeper's doorbell, which lies between its
        // `want` and its last look at `durable`.
        fence(Ordering::SeqCst);
        for waiter in &self.waiters {
            if waiter.wanted.load(Ordering::Relaxed) <= to.0 {
                waiter.bell.ring();
            }
        }
    }

    /// Says what the waiter sleeps for, or that it waits for nothing. To be called before its doorbell is raised; it looks at
    /// [`Gate::durable`] once more after that.
    pub fn want(&self, waiter: usize, sequence: Option<Sequence>) {
        let wanted = sequence.map_or(NOTHING, |sequence| sequence.0);
        let cell = &self.waiters[waiter].wanted;
        if cell.load(Ordering::Relaxed) != wanted {
            cell.store(wanted, Ordering::Relaxed);
        }
    }

    /// Rings a waiter whatever it waits for: there is something in its ring.
    pub fn ring(&self, waiter: usize) {
        self.waiters[waiter].bell.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_whose_number_is_reached_are_rung() {
        let bells: Vec<_> = (0..3).map(|_| Arc::new(Doorbell::for_task())).collect();
        let gate = Gate::new(Sequence(4), bells.clone());
        gate.want(0, Some(Sequence(5)));
        gate.want(1, Some(Sequence(6)));
        for bell in &bells {
            assert!(bell.poll(std::task::Waker::noop(), || false).is_pending());
        }
        gate.advance(Sequence(5));
        let rung = |index: usize| bells[index].wakeup_count();
        assert_eq!([rung(0), rung(1), rung(2)], [1, 0, 0]);
        assert_eq!(gate.durable(), Sequence(5));
        gate.want(1, None);
        gate.advance(Sequence(9));
        assert_eq!([rung(0), rung(1), rung(2)], [1, 0, 0]);
        gate.ring(2);
        assert_eq!(rung(2), 1);
    }
}
