//! The front door: bytes of clients in, requests out, replies back. Runs on: ingress shards.

pub mod connection;

pub mod driver;
