//! The journal: one ordered log that everything else is derived from. What it holds survives; what it does not hold never left the process.
//!
//! Records (builder core) → [`log::Log`] packs them into groups → one durable write at a time → the gate moves.
//! At a start: slots → [`scan`] checks every byte and finds the end → [`history`] says what is live, placed, sealed or void → the
//! builder's replay executes it. Formats: `docs/JOURNAL_FORMAT.md`.
//!
//! Owner thread: `journal` (`driver.rs`); everything but `driver.rs` and `file_storage.rs` is free of threads, clocks and files.
//! Invariants: sequences grow by one a record and are never used twice; a group that was durable is never written again; a segment is
//! overwritten only when nothing in it is needed.
//! Absent on purpose: repair. Damage is an error that names segment and offset; only a torn last group is cut off.

pub mod record;

pub mod group;
pub mod log;
pub mod scan;
pub mod segment;
pub mod storage;

pub mod history;
pub mod report;
pub mod rollback;

pub mod driver;

pub mod file_storage;
mod uring;

#[cfg(test)]
mod test_log;
