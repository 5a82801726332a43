//! The net under the vector code: which way is in use, the sampled comparison with libsecp256k1, and what it found.
//!
//! One for the process, in atomics that every shard reads once a batch and adds to once a batch. Orderings are relaxed throughout: each
//! number stands for itself, and a shard that sees a stop one batch late has only been as late as a sample can be.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::{Choice, RecoverError, RecoverItem};
use crate::primitives::Address;

/// One signature in so many is recovered twice, unless the configuration says otherwise.
pub const CHECK_INTERVAL: u32 = 1_000;

/// A signature for which the two ways named different senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement {
    pub item: RecoverItem,
    pub vectors: Address,
    pub libsecp256k1: Result<Address, RecoverError>,
}

/// The way in use, and counts since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// `avx512-ifma` or `libsecp256k1`.
    pub way: &'static str,
    /// Signatures that the vectors took.
    pub vector_count: u64,
    /// Of those, the ones that libsecp256k1 had to decide: no such key, or a sum that met one of the exceptions.
    pub flagged_count: u64,
    /// Of those, the ones that were compared with libsecp256k1.
    pub checked_count: u64,
    pub disagreement_count: u64,
}

/// What [`configure`] sets and what batches report.
#[derive(Debug)]
pub struct Net {
    is_stopped: AtomicBool,
    check_interval: AtomicU32,
    vector_count: AtomicU64,
    flagged_count: AtomicU64,
    checked_count: AtomicU64,
    disagreement_count: AtomicU64,
    first: OnceLock<Disagreement>,
}

static NET: Net = Net::new();

/// Chooses the way for the process, and the mean distance of compared signatures (0: none is). At start, before the shards.
///
/// Makes the tables of the vectors, so that no batch waits for them: a few milliseconds.
pub fn configure(choice: Choice, check_interval: u32) {
    NET.check_interval.store(check_interval, Ordering::Relaxed);
    if choice == Choice::Libsecp256k1 {
        NET.stop();
    }
    #[cfg(target_arch = "x86_64")]
    if vector_engine().is_some() {
        super::tables::tables();
    }
}

/// The way in use, and what has been counted.
#[must_use]
pub fn status() -> Status {
    #[cfg(target_arch = "x86_64")]
    let is_vector = vector_engine().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    let is_vector = false;
    Status {
        way: if is_vector { "avx512-ifma" } else { "libsecp256k1" },
        vector_count: NET.vector_count.load(Ordering::Relaxed),
        flagged_count: NET.flagged_count.load(Ordering::Relaxed),
        checked_count: NET.checked_count.load(Ordering::Relaxed),
        disagreement_count: NET.disagreement_count.load(Ordering::Relaxed),
    }
}

/// The first signature of which the vectors named a sender that libsecp256k1 did not. Shards do not log: the main thread asks.
#[must_use]
pub fn disagreement() -> Option<&'static Disagreement> {
    NET.first.get()
}

/// The processor's vectors, while they are in use.
#[cfg(target_arch = "x86_64")]
pub fn vector_engine() -> Option<super::avx512::Avx512> {
    if NET.is_stopped() { None } else { super::avx512::Avx512::detect() }
}

/// The net of the process.
#[cfg(target_arch = "x86_64")]
pub fn process_net() -> &'static Net {
    &NET
}

#[cfg_attr(not(any(test, target_arch = "x86_64")), allow(dead_code, reason = "there are no vectors to catch"))]
impl Net {
    pub const fn new() -> Self {
        Self {
            is_stopped: AtomicBool::new(false),
            check_interval: AtomicU32::new(CHECK_INTERVAL),
            vector_count: AtomicU64::new(0),
            flagged_count: AtomicU64::new(0),
            checked_count: AtomicU64::new(0),
            disagreement_count: AtomicU64::new(0),
            first: OnceLock::new(),
        }
    }

    /// A net of its own, which compares one signature in so many.
    #[cfg(test)]
    pub fn with_interval(check_interval: u32) -> Self {
        let net = Self::new();
        net.check_interval.store(check_interval, Ordering::Relaxed);
        net
    }

    /// Whether the vectors are no longer used, or never were.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    pub fn check_interval(&self) -> u32 {
        self.check_interval.load(Ordering::Relaxed)
    }

    /// Adds a batch to the counts.
    pub fn count(&self, items: usize, flagged: usize, checked: usize) {
        self.vector_count.fetch_add(items as u64, Ordering::Relaxed);
        self.flagged_count.fetch_add(flagged as u64, Ordering::Relaxed);
        self.checked_count.fetch_add(checked as u64, Ordering::Relaxed);
    }

    /// Stops the vectors for good.
    pub fn disagree(&self, disagreement: Disagreement) {
        self.stop();
        self.disagreement_count.fetch_add(1, Ordering::Relaxed);
        // The first one stays: it is the one that is reported.
        let _ = self.first.set(disagreement);
    }

    #[cfg(test)]
    pub fn first(&self) -> Option<&Disagreement> {
        self.first.get()
    }

    #[cfg(test)]
    pub fn counts(&self) -> [u64; 4] {
        [&self.vector_count, &self.flagged_count, &self.checked_count, &self.disagreement_count]
            .map(|count| count.load(Ordering::Relaxed))
    }
}
