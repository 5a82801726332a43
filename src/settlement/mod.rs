//! Settlement: sealed blocks → segments → batches → the fields of an ExecuteTx on L1 → what is safe and final.
//!
//! A block with its witness → [`segment::Segment`]s; segments in order → [`packer::PackedBatch`]es; the fields of an ExecuteTx → what they
//! prove ([`strict`]); all of it together with L1's news → [`conductor::Conductor`]. Format, bounds and rules: `docs/BATCH_FORMAT.md`.
//! Part 5 of the plan ([notes](../../docs/notes/settlement.md)). Logic here has no thread, clock, socket or file unless its name is `driver`, `jobs`, `pass_on`
//! or `ledger_file`.

pub mod batch;

pub mod execution;
pub mod follower;

pub mod segment;

pub mod siblings;

pub mod packer;

pub mod strict;

pub mod cells;

pub mod status;

pub mod ledger;
pub mod ledger_file;

pub mod conductor;

pub mod plan;

pub mod jobs;
pub mod older;

pub mod pass_on;

pub mod driver;

use crate::primitives::B256;

/// The L1 block that an L2 block stands on, as a batch names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub number: u64,
    pub hash: B256,
}
