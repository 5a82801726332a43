//! How a sleeping consumer is woken without a system call when it is awake.
//!
//! Protocol: the producer pushes, fences, and rings only if the sleeper's flag is up; the sleeper raises the flag, fences, looks at its
//! rings once more, and only then sleeps. The two fences make it impossible that both miss the other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::task::{Poll, Waker};
use std::thread::Thread;
use std::time::Duration;

use atomic_waker::AtomicWaker;

/// The bell of one consumer thread; every producer that feeds it shares the same bell.
pub struct Doorbell {
    asleep: AtomicBool,
    wakeup_count: AtomicU64,
    sleeper: Sleeper,
}

enum Sleeper {
    Thread(OnceLock<Thread>),
    Task(AtomicWaker),
}

impl Doorbell {
    /// A bell for a plain thread, which names itself by [`Doorbell::adopt_current_thread`] before its first park.
    #[must_use]
    pub fn for_thread() -> Self {
        Self::with(Sleeper::Thread(OnceLock::new()))
    }

    /// A bell for whoever has a waker: an ingress shard in its io_uring, a task of the control thread.
    #[must_use]
    pub fn for_task() -> Self {
        Self::with(Sleeper::Task(AtomicWaker::new()))
    }

    fn with(sleeper: Sleeper) -> Self {
        Self { asleep: AtomicBool::new(false), wakeup_count: AtomicU64::new(0), sleeper }
    }

    /// Declares the calling thread to be the one that parks here. Later calls from the same or another thread change nothing.
    pub fn adopt_current_thread(&self) {
        if let Sleeper::Thread(cell) = &self.sleeper {
            let _ = cell.set(std::thread::current());
        }
    }

    /// Wakes the sleeper if it sleeps. Cost when it is awake: one fence and one load.
    #[inline]
    pub fn ring(&self) {
        // ORDERING: orders the caller's push before the flag's load; pairs with the fence in `raise`.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.wakeup_count.fetch_add(1, Ordering::Relaxed);
            match &self.sleeper {
                Sleeper::Thread(cell) => {
                    if let Some(thread) = cell.get() {
                        thread.unpark();
                    }
                }
                Sleeper::Task(waker) => waker.wake(),
            }
        }
    }

    /// Sleeps until rung or `timeout` is over, unless `has_work` is true after the flag is up. Spurious returns happen.
    pub fn park(&self, timeout: Option<Duration>, has_work: impl Fn() -> bool) {
        self.raise();
        if has_work() {
            self.asleep.store(false, Ordering::Relaxed);
            return;
        }
        match timeout {
            Some(duration) => std::thread::park_timeout(duration),
            None => std::thread::park(),
        }
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// The task form of [`Doorbell::park`]: ready when `has_work`, else pending with `waker` stored.
    pub fn poll(&self, waker: &Waker, has_work: impl Fn() -> bool) -> Poll<()> {
        if let Sleeper::Task(cell) = &self.sleeper {
            cell.register(waker);
        }
        self.raise();
        if has_work() {
            self.asleep.store(false, Ordering::Relaxed);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Says that the sleeper is awake, for another reason than the bell: nobody need ring until the next [`Doorbell::poll`].
    pub fn lower(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// How often a producer had to wake the sleeper: one system call each.
    #[must_use]
    pub fn wakeup_count(&self) -> u64 {
        self.wakeup_count.load(Ordering::Relaxed)
    }

    fn raise(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        // ORDERING: orders the flag before the caller's last look at its rings; pairs with the fence in `ring`.
        fence(Ordering::SeqCst);
    }
}
