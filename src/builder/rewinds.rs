//! Blocks that were shown as `latest` and are no more: what whoever was told of them is told now.
//!
//! Written by the follower, read by whoever reads the heads, which they are a part of. Nobody else takes shown blocks back without a new start
//! of the process. Bounded in number and in bytes; who stands before the oldest that is kept has lost the thread and begins anew.

use std::sync::Arc;

use alloy_primitives::Log;

use crate::primitives::B256;

/// Reorganisations that are kept. On full: `Overwrite`, the oldest. More than one poller misses between two polls.
pub const REWINDS_MAX: usize = 256;
/// Bytes of JSON that the logs of all of them make, about. On full: `Overwrite`, those of the oldest. Less than the logs of one answer may have.
pub const REMOVED_LOG_BYTES_MAX: usize = 16 << 20;
/// Bytes of JSON of a log without its topics and data.
const LOG_BYTES: usize = 640;

/// A log of a block that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedLog {
    pub block_hash: B256,
    pub block_number: u64,
    pub timestamp: u64,
    pub tx_hash: B256,
    pub tx_index: u64,
    /// In its block.
    pub log_index: u64,
    pub log: Log,
}

/// One reorganisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// The newest block that stayed.
    pub to: u64,
    /// Of the blocks above, ascending; `None` when there were too many to keep.
    pub logs: Option<Vec<RemovedLog>>,
}

/// All reorganisations of this process.
#[derive(Clone, Debug, Default)]
pub struct Rewinds {
    count: u64,
    /// The newest ones, oldest first.
    kept: Vec<Arc<Rewind>>,
    log_bytes: usize,
}

/// Collects the logs of blocks that are about to go.
#[derive(Debug, Default)]
pub struct RemovedLogs {
    logs: Vec<RemovedLog>,
    bytes: usize,
}

impl RemovedLogs {
    /// Answers whether another one may follow.
    pub fn push(&mut self, log: RemovedLog) -> bool {
        self.bytes += bytes_of(&log);
        self.logs.push(log);
        self.bytes <= REMOVED_LOG_BYTES_MAX
    }

    /// What goes with the blocks above `to`.
    #[must_use]
    pub fn end(self, to: u64) -> Rewind {
        Rewind { to, logs: (self.bytes <= REMOVED_LOG_BYTES_MAX).then_some(self.logs) }
    }
}

impl Rewinds {
    /// How many there were since the process began.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The one behind the first `known`; `None` when there is none, or it is not kept any more.
    #[must_use]
    pub fn after(&self, known: u64) -> Option<&Rewind> {
        let back = usize::try_from(self.count.checked_sub(known)?).ok()?;
        self.kept.get(self.kept.len().checked_sub(back)?).map(AsRef::as_ref)
    }

    /// The same with one more.
    #[must_use]
    pub fn with(&self, rewind: Rewind) -> Self {
        let mut kept = self.kept.clone();
        let mut log_bytes = self.log_bytes + bytes_of_all(&rewind);
        kept.push(Arc::new(rewind));
        for old in &mut kept {
            if log_bytes > REMOVED_LOG_BYTES_MAX {
                log_bytes -= bytes_of_all(old);
                *old = Arc::new(Rewind { to: old.to, logs: None });
            }
        }
        if kept.len() > REWINDS_MAX {
            log_bytes -= bytes_of_all(&kept.remove(0));
        }
        Self { count: self.count + 1, kept, log_bytes }
    }
}

fn bytes_of(log: &RemovedLog) -> usize {
    LOG_BYTES + 2 * log.log.data.data.len() + 70 * log.log.topics().len()
}

fn bytes_of_all(rewind: &Rewind) -> usize {
    rewind.logs.iter().flatten().map(bytes_of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::Address;

    fn log(block_number: u64, data_bytes: usize) -> RemovedLog {
        RemovedLog {
            block_hash: B256::ZERO,
            block_number,
            timestamp: 0,
            tx_hash: B256::ZERO,
            tx_index: 0,
            log_index: 0,
            log: Log::new_unchecked(Address::ZERO, Vec::new(), vec![0; data_bytes].into()),
        }
    }

    fn rewind(to: u64, data_bytes: usize) -> Rewind {
        let mut collector = RemovedLogs::default();
        collector.push(log(to + 1, data_bytes));
        collector.end(to)
    }

    #[test]
    fn the_newest_are_kept_and_known_by_their_number() {
        let mut all = Rewinds::default();
        assert!(all.count() == 0 && all.after(0).is_none());
        for to in 0..REWINDS_MAX as u64 {
            all = all.with(rewind(to, 0));
        }
        assert_eq!(all.after(0).map(|found| found.to), Some(0));
        all = all.with(rewind(9_999, 0));
        assert!(all.after(0).is_none(), "the oldest gave way");
        assert_eq!(all.after(1).map(|found| found.to), Some(1));
        assert_eq!(all.after(all.count() - 1).map(|found| found.to), Some(9_999));
        assert!(all.after(all.count()).is_none() && all.after(all.count() + 1).is_none());
        assert_eq!(all.log_bytes, REWINDS_MAX * LOG_BYTES);
    }

    #[test]
    fn logs_are_bounded_in_bytes_and_the_oldest_go() {
        let third = REMOVED_LOG_BYTES_MAX / 2 / 3;
        let mut all = Rewinds::default();
        for to in 0..4 {
            all = all.with(rewind(to, third));
        }
        let has_logs = |known| all.after(known).is_some_and(|found| found.logs.is_some());
        assert_eq!([0, 1, 2, 3].map(has_logs), [false, false, true, true]);
        assert!(all.after(0).is_some_and(|found| found.to == 0) && all.log_bytes <= REMOVED_LOG_BYTES_MAX);
        let mut collector = RemovedLogs::default();
        assert!(collector.push(log(1, 100)) && !collector.push(log(1, REMOVED_LOG_BYTES_MAX / 2)));
        all = all.with(collector.end(0));
        assert!(all.after(4).is_some_and(|found| found.logs.is_none()));
    }
}
