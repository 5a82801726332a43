//! L1 seen from the sequencer: the transaction that carries batches, and what differs between formats of it.
//!
//! Pure. What sends, waits and signs stands beside it and is told what to do from here.

pub mod execute_tx;
pub mod profile;

pub mod block;

pub mod signer;

pub mod tx_manager;

pub mod client;
