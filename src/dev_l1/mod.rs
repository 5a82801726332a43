//! The embedded development L1: an L1 node that takes ExecuteTx, on one machine, with faults on request.
//!
//! Pure core (rules, pool, blocks, precompile, JSON-RPC, faults) and around it one thread ([`server`]) with a clock, sockets and a
//! file. What it is and what it is not: `docs/DEV_L1.md`. Formats: [`crate::l1::execute_tx`].
//! The core takes the time as an argument and keeps everything in one [`node::Node`]; one thread owns it, so there is no lock.

pub mod config;

pub mod transaction;

pub mod overlay;

pub mod precompile;

pub mod judge;

pub mod evm;

pub mod pool;

pub mod block;

pub mod log;

pub mod chain;

pub mod faults;

pub mod node;

pub mod rpc;

pub mod server;
