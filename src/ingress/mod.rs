//! The front door: bytes of clients in, requests out, replies back. Runs on: ingress shards.

pub mod connection;

pub mod calls;
pub mod envelope;
pub mod former;
pub mod intake;
pub mod queries;
pub mod rates;
pub mod shard;

pub mod transport;

pub mod driver;

pub mod forwarder;
