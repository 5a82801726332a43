//! START HERE. A native-rollup sequencer: signed transactions in over JSON-RPC, executed Ethereum blocks out.
//!
//! ```text
//!  socket ─► ingress shard i ──ring──► builder core ──ring──► state thread + hash pool ──► chain thread ──► disk
//!            parse, decode,             admit, order,           roots, header, hash          headers, bodies,
//!            recover senders            execute, close                                       receipts, indexes
//!               ▲                          │ records
//!               └──── gate: durable ◄── journal thread ──► disk
//!
//!  chain database ─► l1 thread (with settle thread): segments, batch, ExecuteTx ─► L1 ─► derivation ─► safe, finalized ─► builder core
//! ```
//!
//! Modules in reading order: what crosses threads first, then the path of a transaction.

pub mod limits;
pub mod primitives;

pub mod messages;
pub mod topology;

pub mod cli;
pub mod config;

pub mod doctor;

pub mod codec;
pub mod crypto;
pub mod ring;
pub mod runtime;

pub mod ingress;
pub mod rpc;

pub mod mempool;

pub mod builder;

pub mod journal;

pub mod state;

pub mod witness;

pub mod chain;

pub mod metrics;

pub mod ops;

pub mod engine_api;

pub mod admin;

pub mod l1;

pub mod dev_l1;

pub mod settlement;

pub mod derivation;

pub mod heads;

pub mod testing;
