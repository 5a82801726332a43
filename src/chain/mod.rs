//! Chain database: blocks, receipts, hash index, log filters and transaction statuses on disk.
//!
//! Closed blocks (chain thread) → [`ChainWriter`] → files → [`ChainReader`] (any thread). One writer, lock-free readers; a block is
//! visible to readers when `append` returns. Nothing syncs on the path of a block, unless [`ChainWriter::show_synced`] says so: the journal is the truth, a torn
//! tail is cut off at open and rebuilt. Damage below the last sync is an error that names file and offset. Formats: the modules' byte tables and
//! `docs/CHAIN_FORMAT.md`.
//!
//! Invariants: blocks are contiguous from number 0; bytes below a published tail never change while the process lives; every byte
//! that a reader hands out was under a checksum that it checked (except `StoredBlock::body`). Absent on purpose: compression,
//! pruning, a cache (the page cache is one).

mod block;
mod checkpoint;
mod driver;
mod error;
pub mod executed_record;
mod filter;
mod index;
mod index_segment;
mod index_table;
mod map;
mod reader;
pub mod receipt;
mod record;
mod recovery;
pub mod sealed_record;
mod slot;
mod status;
pub mod thread;
mod writer;

#[cfg(test)]
pub(crate) mod test_dir;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests;

pub use block::{StoredBlock, StoredReceipt, StoredTx};
pub use error::ChainError;
pub use filter::LogQuery;
pub use reader::{ChainReader, ChainView, TxLocation};
pub use receipt::{Log, LogRef, Receipt, ReceiptRef};
pub use status::{EndState, StatusRecord, TierTimes};
pub use writer::{BlockRecord, ChainSyncer, ChainWriter, TxRecord};

/// Sizes of the chain database. None of them is part of the file format; all may change between runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainLimits {
    /// Address space mapped on each block file at first; a file that outgrows it is mapped anew at twice its size.
    pub map_window_bytes: u64,
    /// Newest hashes kept in memory before they are sealed to a sorted file, 24 bytes each.
    pub index_table_entries: usize,
    /// `status.retention`: how long a transaction's end state is answered at least, unless the bytes run out.
    pub status_retention_ms: u64,
    /// Bytes of all status files; an eighth of that in memory. On full: `Overwrite`, the oldest file is forgotten.
    pub status_bytes_max: u64,
    /// Records of one status file, at least 4. A whole file is forgotten at once.
    pub status_segment_records: usize,
}

impl Default for ChainLimits {
    fn default() -> ChainLimits {
        ChainLimits {
            map_window_bytes: 64 << 30,
            index_table_entries: 640_000,
            status_retention_ms: 3_600_000,
            status_bytes_max: 512 << 20,
            status_segment_records: 1 << 18,
        }
    }
}
