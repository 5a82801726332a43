//! Stand-in.
use super::record::Outline;
use super::storage::{BLOCK_BYTES, SyncPoint};
use crate::primitives::Sequence;

pub struct Write<'a> {
    pub slot: u32,
    pub offset: u64,
    pub bytes: &'a [u8],
    pub point: SyncPoint,
}

pub struct Log {
    pending: Vec<u8>,
    last: Sequence,
    group: Vec<u8>,
    slots: Vec<u32>,
    offset: u64,
    slot_bytes: u64,
    synced: Sequence,
    in_flight: bool,
}

impl Log {
    pub fn new(slots: &[u32], slot_bytes: u64) -> Self {
        Self {
            pending: vec![],
            last: Sequence(0),
            group: vec![],
            slots: slots.to_vec(),
            offset: 0,
            slot_bytes,
            synced: Sequence(0),
            in_flight: false,
        }
    }
    pub fn append(&mut self, records: &[u8]) {
        self.pending.extend_from_slice(records);
        let mut at = 0;
        while let Some(outline) = Outline::of(&records[at..]) {
            self.last = outline.sequence;
            at += outline.len;
        }
        assert_eq!(at, records.len());
    }
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }
    pub fn next_write(&mut self, _: u64) -> Option<Write<'_>> {
        if self.pending.is_empty() {
            return None;
        }
        let len = self.pending.len().next_multiple_of(BLOCK_BYTES);
        if self.offset + len as u64 > self.slot_bytes && !self.slots.is_empty() {
            self.slots.remove(0);
            self.offset = 0;
        }
        let slot = *self.slots.first()?;
        self.group = vec![0; len + BLOCK_BYTES];
        let start = self.group.as_ptr().align_offset(BLOCK_BYTES);
        self.group[start..][..self.pending.len()].copy_from_slice(&self.pending);
        self.pending.clear();
        let offset = self.offset;
        self.offset += len as u64;
        self.in_flight = true;
        Some(Write { slot, offset, bytes: &self.group[start..][..len], point: SyncPoint::Group })
    }
    pub fn written(&mut self) -> Option<Sequence> {
        assert!(std::mem::take(&mut self.in_flight));
        Some(self.last)
    }
    pub fn wanted_slot(&self) -> Option<(u32, u64)> {
        (self.slots.len() < 2).then_some((self.slots.last().map_or(0, |slot| slot + 1), self.slot_bytes))
    }
    pub fn slot_created(&mut self, slot: u32) {
        self.slots.push(slot);
    }
    pub fn chain_synced(&mut self, sequence: Sequence) {
        self.synced = sequence;
    }
    pub fn space(&self) -> u64 {
        (self.slots.len() as u64 * self.slot_bytes).saturating_sub(self.offset)
    }
    pub fn carry_below(&self) -> Option<Sequence> {
        (self.synced.0 > 5).then(|| Sequence(self.synced.0 - 5))
    }
}
