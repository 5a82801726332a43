//! Tests with real processes on loopback: our binary, go-ethereum, viem, ethers, web3.py.
//!
//! `tests/run` installs the peers and names them in the environment:
//!
//! | variable | what it names |
//! |---|---|
//! | `SEQUENCER_GETH` | go-ethereum's `geth` binary |
//! | `SEQUENCER_NODE_CLIENTS` | a folder like `tests/clients/js` with its `node_modules` |
//! | `SEQUENCER_PYTHON` | a Python interpreter that has web3.py |
//! | `SEQUENCER_BIN`, `SEQUENCER_LOADGEN` | other builds of our two binaries, a release build for example |
//! | `SEQUENCER_LONG` | any value: the full counts of the slow tests |
//! | `JOURNAL_KILLS`, `JOURNAL_SEED` | how many `kill -9` the journal's test does, and from which seed |
//! | `SEQUENCER_PROMTOOL` | Prometheus's `promtool`, where it is not on the path; never needed |
//!
//! A test whose peer is not named prints that it skipped; with `CI` set it fails instead.

mod follows;
mod process;
mod rpc;
mod settles;

mod faulty_engine;
mod geth;
mod payload;
mod requests;
pub mod sequencer;
mod workload;

mod admin;
mod attack;
mod bad_input;
mod breadth;
mod clients;
mod delegated;
mod dev_l1;
mod el_on_l1;
mod forwarding;
mod geth_accepts_blocks;
mod host;
mod integration_doc;
mod journal;
mod l1_faults;
mod l1_geth;
mod life_cycle;
mod limits;
mod never_lost;
mod observe;
mod older_state;
mod overload;
mod shapes;
mod stateless;
mod tx_decode;
mod verified;
mod verify;
mod witness;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lets one test at a time start processes: two at once would share the cores and measure each other.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that panicked held the lock, and its processes ended with it: the next one may go on.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path that `variable` names; without it a printed skip (`None`), or a failure when `CI` is set.
pub fn peer(variable: &str, test: &str) -> Option<PathBuf> {
    match std::env::var_os(variable).filter(|value| !value.is_empty()) {
        Some(path) => Some(PathBuf::from(path)),
        None => {
            assert!(!is_ci(), "{test}: CI is set and {variable} is not; run tests/run");
            println!("skipped {test}: {variable} is not set; tests/run installs what it names");
            None
        }
    }
}

/// Whether a missing peer is a failure.
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Whether the slow tests run with their full counts.
pub fn is_long() -> bool {
    std::env::var_os("SEQUENCER_LONG").is_some_and(|value| !value.is_empty())
}
