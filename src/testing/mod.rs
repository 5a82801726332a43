//! For tests and benches only: signed transactions, a builder core without threads, a disk that forgets, an execution client without blocks.
//!
//! Nothing of the product imports this module.

pub mod bench_chain;

pub mod bytecode;

pub mod disk;

pub mod execution_client;

pub mod node;

pub mod rng;

pub mod sealed_chain;

pub mod settler;

pub mod signing;

pub mod state_disk;

mod state_map;

pub mod whole;
