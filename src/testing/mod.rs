//! For tests and benches only: signed transactions, and a builder core without threads.
//!
//! Nothing of the product imports this module.

pub mod bench_chain;

pub mod bytecode;

pub mod signing;
