//! Keccak-256 (scalar and multi-lane) and sender recovery.

pub mod keccak;
pub mod recovery;
