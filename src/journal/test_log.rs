//! A log on a simulated disk, for tests: records in, everything written, opened again.

use std::borrow::Cow;

use super::history::History;
use super::log::{Log, LogSettings};
use super::record::{AdmittedTx, CloseReason, Record, seal_checksum};
use super::scan::{Scan, ScanError, scan};
use super::storage::{BLOCK_BYTES, Storage, StorageError};
use crate::builder::block::BlockContext;
use crate::chain::EndState;
use crate::primitives::{Address, B256, Bytes, Fork, Sequence};
use crate::testing::disk::SimDisk;

/// A header, and two groups of one block.
pub const SETTINGS: LogSettings =
    LogSettings { segment_bytes: 3 * BLOCK_BYTES as u64, group_bytes_max: 3_000, segments_kept_max: 2 };

/// Fills a group alone.
pub const LARGE: usize = 2_900;

pub struct TestLog {
    pub disk: SimDisk,
    pub log: Log,
    /// All of them, with checksums.
    pub records: Vec<Vec<u8>>,
}

impl TestLog {
    pub fn new(slots_max: u64) -> Self {
        let disk = SimDisk::new(1, None);
        disk.set_capacity_bytes(slots_max * SETTINGS.segment_bytes);
        Self { disk, log: Log::create(SETTINGS, [7; 16]), records: vec![] }
    }

    /// Hands records over in one piece; answers the sequence of the last one.
    pub fn append(&mut self, records: &[Record<'_>]) -> Sequence {
        let mut all = Vec::new();
        for record in records {
            let mut bytes = Vec::new();
            record.encode(Sequence(self.records.len() as u64 + 1), &mut bytes);
            all.extend_from_slice(&bytes);
            seal_checksum(&mut bytes);
            self.records.push(bytes);
        }
        self.log.append(&all);
        Sequence(self.records.len() as u64)
    }

    /// Writes until nothing waits or no slot is left; answers the last sequence of each group.
    pub fn flush(&mut self) -> Vec<u64> {
        let mut groups = Vec::new();
        loop {
            self.make_slots();
            let Some(write) = self.log.next_write(1) else { return groups };
            self.disk.write(write.slot, write.offset, write.bytes, write.point).expect("a good disk");
            groups.extend(self.log.written().map(|last| last.0));
        }
    }

    pub fn make_slots(&mut self) {
        while let Some((slot, bytes)) = self.log.wanted_slot() {
            match self.disk.create(slot, bytes) {
                Ok(()) => self.log.slot_created(slot),
                Err(StorageError::Full { .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// One write for each record.
    pub fn put(&mut self, records: &[Record<'_>]) -> Sequence {
        for record in records {
            self.append(std::slice::from_ref(record));
            self.flush();
        }
        Sequence(self.records.len() as u64)
    }

    pub fn scan(&self) -> Result<Option<Scan<Vec<u8>>>, ScanError> {
        scan(&mut self.disk.clone())
    }

    /// The next process.
    pub fn reopen(&mut self) {
        let scanned = self.scan().expect("an undamaged journal").expect("a journal");
        let history = History::read(scanned.records()).expect("records in order");
        self.records.truncate(scanned.next.0 as usize - 1);
        self.log = Log::resume(SETTINGS, &scanned, &history);
    }

    /// Ids of the segments that are present.
    pub fn segments(&self) -> Vec<u64> {
        self.log.segments().map(|segment| segment.id).collect()
    }
}

pub fn tx(raw: &[u8]) -> AdmittedTx<'_> {
    AdmittedTx { sender: Address::ZERO, accepted_unix_ns: 0, authorities: Cow::Borrowed(&[]), conditions: None, raw }
}

pub fn admitted(raw: &[u8]) -> Record<'_> {
    Record::Admitted(tx(raw))
}

pub fn dropped(tx: u64) -> Record<'static> {
    let end = EndState::Dropped { reason: 1 };
    Record::Dropped { tx: Sequence(tx), hash: B256::ZERO, accepted_unix_ns: 0, ended_unix_ns: 0, end }
}

pub fn opened(number: u64) -> Record<'static> {
    let context = BlockContext {
        number,
        parent_hash: B256::ZERO,
        timestamp: 0,
        base_fee_per_gas_wei: 0,
        prev_randao: B256::ZERO,
        coinbase: Address::ZERO,
        gas_limit: 0,
        extra_data: Bytes::new(),
        parent_beacon_block_root: B256::ZERO,
        fork: Fork::Osaka,
    };
    Record::Opened { context: Cow::Owned(context), opened_unix_ns: 0 }
}

pub fn placed(tx: u64, index: u32) -> Record<'static> {
    Record::Placed { tx: Sequence(tx), index, preconfirmed_unix_ns: 1 }
}

pub fn closed(number: u64, tx_count: u32) -> Record<'static> {
    Record::Closed { number, tx_count, reason: CloseReason::Full }
}

pub fn sealed(number: u64) -> Record<'static> {
    let hash = B256::with_last_byte(number as u8);
    Record::Sealed { number, hash, state_root: hash, receipts_root: hash, sealed_unix_ns: 1 }
}
