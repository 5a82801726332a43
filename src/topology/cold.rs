//! Accounts that the query pool brings into memory before the builder core asks for them.
//!
//! Builder core: how often it had to wait for the disk → whether that is worth anything at the moment. Shards: whom their transactions name →
//! batches. Query threads: batches → reads of the newest state, whose pages are then in memory. While the state fits in memory nothing of
//! it happens, and a shard pays one load a turn. Deliberately absent: a promise. A batch that finds the queue full is dropped, and the
//! builder core waits for the disk itself, as it does when it is quicker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::limits;
use crate::primitives::Address;
use crate::state::{CODE_HASH_EMPTY, StateError, StateReader};

/// Batches that wait: a few turns of every shard.
const BATCHES_MAX: usize = 64;
/// How long a major fault counts: it came from a working set that is larger than memory, and the next ones are near.
const QUIET_NS: u64 = 1_000_000_000;

/// See the module's text.
pub struct ColdAccounts {
    /// Major page faults of the builder core since the process started. Written by the builder core.
    major_faults: AtomicU64,
    /// Written by the builder core.
    is_on: AtomicBool,
    to_pool: Sender<Vec<Address>>,
    batches: Receiver<Vec<Address>>,
}

impl Default for ColdAccounts {
    fn default() -> Self {
        let (to_pool, batches) = bounded(BATCHES_MAX);
        Self { major_faults: AtomicU64::new(0), is_on: AtomicBool::new(false), to_pool, batches }
    }
}

/// What the builder core remembers between two looks at its page faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultWatch {
    due_ns: u64,
    seen: u64,
    until_ns: u64,
}

impl ColdAccounts {
    /// Looks at the builder core's page faults when it is time.
    ///
    /// Runs on: builder core, every turn.
    pub fn watch(&self, watch: &mut FaultWatch, now_ns: u64, major_faults: impl FnOnce() -> u64) {
        if now_ns >= watch.due_ns {
            watch.due_ns = now_ns + limits::FAULT_WATCH_NS;
            self.note(watch, major_faults(), now_ns);
        }
    }

    /// Tells how many major faults the builder core has had by now.
    pub fn note(&self, watch: &mut FaultWatch, major_faults: u64, now_ns: u64) {
        if major_faults > watch.seen {
            watch.seen = major_faults;
            watch.until_ns = now_ns + QUIET_NS;
        }
        // ORDERING: Relaxed, both: numbers for a status and a hint.
        self.major_faults.store(major_faults, Ordering::Relaxed);
        self.is_on.store(now_ns < watch.until_ns, Ordering::Relaxed);
    }

    /// Major page faults of the builder core: each made it wait for the disk.
    #[must_use]
    pub fn major_faults(&self) -> u64 {
        // ORDERING: as in `note`.
        self.major_faults.load(Ordering::Relaxed)
    }

    /// Whether the builder core has waited for the disk lately.
    #[must_use]
    pub fn is_on(&self) -> bool {
        // ORDERING: as in `note`.
        self.is_on.load(Ordering::Relaxed)
    }

    /// Asks for accounts to be read. Never waits.
    pub fn ask(&self, accounts: Vec<Address>) {
        if !accounts.is_empty() {
            // Full: see the module's text.
            let _ = self.to_pool.try_send(accounts);
        }
    }

    /// Where query threads find what was asked for.
    #[must_use]
    pub fn batches(&self) -> &Receiver<Vec<Address>> {
        &self.batches
    }
}

/// Reads accounts and their codes, so that their pages are in memory.
///
/// Runs on: query thread; waits for the disk.
///
/// # Errors
/// A node that is not sound: who needs it reports it.
pub fn touch(state: &impl StateReader, accounts: &[Address]) -> Result<(), StateError> {
    for address in accounts {
        let code_hash = state.account(address)?.map_or(CODE_HASH_EMPTY, |account| account.code_hash);
        if code_hash != CODE_HASH_EMPTY {
            state.code(&code_hash)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_on_for_a_second_after_the_last_fault() {
        let (cold, mut watch) = (ColdAccounts::default(), FaultWatch::default());
        assert!(!cold.is_on());
        cold.note(&mut watch, 0, 5);
        assert!(!cold.is_on());
        cold.note(&mut watch, 3, 10);
        assert!(cold.is_on());
        assert_eq!(cold.major_faults(), 3);
        cold.note(&mut watch, 3, 9 + QUIET_NS);
        assert!(cold.is_on());
        cold.note(&mut watch, 4, 9 + QUIET_NS);
        cold.note(&mut watch, 4, 10 + QUIET_NS);
        assert!(cold.is_on());
        cold.note(&mut watch, 4, 9 + 2 * QUIET_NS);
        assert!(!cold.is_on());
    }

    #[test]
    fn faults_are_looked_at_now_and_then() {
        let (cold, mut watch) = (ColdAccounts::default(), FaultWatch::default());
        cold.watch(&mut watch, 1, || 1);
        cold.watch(&mut watch, limits::FAULT_WATCH_NS, || unreachable!("it is not time"));
        assert_eq!(cold.major_faults(), 1);
        cold.watch(&mut watch, limits::FAULT_WATCH_NS + 1, || 2);
        assert_eq!(cold.major_faults(), 2);
    }

    #[test]
    fn what_finds_the_queue_full_is_dropped() {
        let cold = ColdAccounts::default();
        cold.ask(Vec::new());
        for number in 0..BATCHES_MAX + 2 {
            cold.ask(vec![Address::with_last_byte(number as u8)]);
        }
        let first: Vec<Vec<Address>> = cold.batches().try_iter().collect();
        assert_eq!(first.len(), BATCHES_MAX);
        assert_eq!(first[0], [Address::ZERO]);
    }
}
