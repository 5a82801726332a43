//! Segments in their order → batches, each the fields of one ExecuteTx.
//!
//! Input → output: segments and the clock → [`PackedBatch`]es. Owner core: control may step it, a query thread when many segments come at
//! once: closing a batch sorts, compresses and hashes up to 131,072 bytes. Pure.
//! A batch has one witness: what its segments need from the state before the first of them, each entry once. Nodes and codes that a
//! segment makes are left out of what later ones bring: who executes them in order has them. Invariant: every batch that comes out holds
//! all bounds of the format, and each begins where the one before ended.

mod aggregate;

#[cfg(test)]
mod tests;

use alloy_rlp::{Encodable, Header};

use super::batch::{
    ACCESSES_MAX, BLOCKS_MAX, Batch, BatchBlock, BatchSegment, Compression, Continued, ENVELOPE_BYTES_MAX,
    EXECUTE_TX_BYTES_MAX, FIELD_BYTES_MAX, SEGMENTS_MAX, TXS_MAX, digest,
};
use super::segment::{Segment, bytes_of_gas};
use crate::l1::execute_tx::Payload;
use crate::primitives::{B256, Bytes, U256};
use aggregate::Aggregate;

/// How much of `Data` a compressed form may save at most: a batch that is longer by more than this is not tried.
const COMPRESSED_PARTS: (usize, usize) = (1, 2);

/// When a batch is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackerSettings {
    pub compression: Compression,
    /// Raw bytes of an ExecuteTx, at most [`EXECUTE_TX_BYTES_MAX`].
    pub tx_bytes_max: usize,
    /// L1 gas of it by EIP-7623's floor, as if none of its bytes were zero.
    pub l1_gas_max: u64,
    /// Bytes of the witness, in its field and in the overflow.
    pub witness_bytes_max: usize,
    pub segments_max: usize,
    /// Since the first segment came.
    pub age_ns_max: u64,
}

impl Default for PackerSettings {
    fn default() -> Self {
        Self {
            compression: Compression::Zstd,
            tx_bytes_max: EXECUTE_TX_BYTES_MAX,
            l1_gas_max: crate::limits::TX_GAS_MAX,
            witness_bytes_max: EXECUTE_TX_BYTES_MAX,
            segments_max: SEGMENTS_MAX,
            age_ns_max: 6_000_000_000,
        }
    }
}

/// Where a segment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub block_number: u64,
    pub first_tx_index: u32,
    pub opens_block: bool,
    pub state_root: B256,
}

/// Where batches go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    pub next_index: u64,
    /// The hash of the genesis block before the first batch.
    pub previous_digest: B256,
    pub position: Position,
}

/// What happens to a packer.
#[derive(Clone, Debug)]
pub enum Event {
    /// The next segments.
    Segments(Vec<Segment>),
    /// Time has passed: see [`Packer::deadline_ns`].
    Tick,
    /// What is there goes out now.
    Flush,
    /// Everything that is not out is forgotten; the next segment begins at the given place. After a batch was skipped, or L1 reorganised.
    Restart(Start),
}

/// Why a batch was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    Bytes,
    Gas,
    WitnessBytes,
    /// Segments, blocks, transactions or accesses.
    Count,
    Age,
    Flush,
}

/// A batch, ready to be signed.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedBatch {
    pub index: u64,
    pub previous_digest: B256,
    pub digest: B256,
    pub payload: Payload,
    /// Where it begins, and where the next one does.
    pub begin: Position,
    pub next: Position,
    pub first_block: u64,
    pub last_block: u64,
    pub tx_count: usize,
    pub segment_count: usize,
    /// Raw bytes of its ExecuteTx, at most.
    pub tx_bytes: usize,
    /// Of the witness, in its field and in the overflow, and of all Data before it was compressed.
    pub witness_bytes: usize,
    pub stored_bytes: usize,
    pub closed_by: CloseReason,
}

/// What waits to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Blocks of which a part waits.
    pub blocks: u64,
    pub segments: usize,
    /// As they will be written, stored.
    pub bytes: usize,
}

/// What a packer cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    #[error("the next segment begins at {found:?}, it must begin at {expected:?}")]
    OutOfOrder { expected: Position, found: Position },
    #[error("a segment of block {block} needs {bytes} bytes by itself, at most {bytes_max} are allowed")]
    TooLarge { block: u64, bytes: usize, bytes_max: usize },
}

/// See the module's text.
pub struct Packer {
    settings: PackerSettings,
    next_index: u64,
    previous_digest: B256,
    /// Where the next segment begins.
    expected: Position,
    begin: Position,
    segments: Vec<Segment>,
    aggregate: Aggregate,
    first_ns: u64,
}

impl Packer {
    #[must_use]
    pub fn new(settings: PackerSettings, start: Start) -> Self {
        Self {
            settings,
            next_index: start.next_index,
            previous_digest: start.previous_digest,
            expected: start.position,
            begin: start.position,
            segments: Vec::new(),
            aggregate: Aggregate::default(),
            first_ns: 0,
        }
    }

    /// Takes up what happened, and gives the batches that are closed by it.
    ///
    /// Cost: `benches/settlement.rs`, rows `pack`.
    ///
    /// # Errors
    /// A segment out of order, or larger than the settings. Batches that the same event closed before it are lost, so that who gets an
    /// error starts anew.
    pub fn step(&mut self, event: Event, now_ns: u64) -> Result<Vec<PackedBatch>, PackError> {
        let mut out = Vec::new();
        match event {
            Event::Segments(segments) => {
                for segment in segments {
                    self.push(segment, now_ns, &mut out)?;
                }
            }
            Event::Tick if self.deadline_ns().is_some_and(|deadline_ns| deadline_ns <= now_ns) => {
                self.close(CloseReason::Age, &mut out);
            }
            Event::Tick => {}
            Event::Flush => self.close(CloseReason::Flush, &mut out),
            Event::Restart(start) => *self = Self::new(self.settings, start),
        }
        Ok(out)
    }

    /// When a tick closes a batch.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        (!self.segments.is_empty()).then(|| self.first_ns.saturating_add(self.settings.age_ns_max))
    }

    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let first = self.segments.first().map_or(0, Segment::block_number);
        let blocks = self.segments.last().map_or(0, |last| last.block_number() - first + 1);
        let bytes = if self.segments.is_empty() { 0 } else { self.aggregate.bytes() };
        Backlog { blocks, segments: self.segments.len(), bytes }
    }

    /// Where the next segment has to begin.
    #[must_use]
    pub fn expected(&self) -> Position {
        self.expected
    }

    /// Index of the next batch, and the digest that it will name.
    #[must_use]
    pub fn next(&self) -> (u64, B256) {
        (self.next_index, self.previous_digest)
    }

    /// Room in the open batch, for [`super::segment::CutLimits::first_tx_bytes_max`].
    #[must_use]
    pub fn first_tx_bytes_max(&self) -> usize {
        let used = self.backlog().bytes;
        self.tx_bytes_max().saturating_sub(used.saturating_sub(ENVELOPE_BYTES_MAX))
    }

    fn tx_bytes_max(&self) -> usize {
        self.settings.tx_bytes_max.min(EXECUTE_TX_BYTES_MAX).min(bytes_of_gas(self.settings.l1_gas_max))
    }

    fn push(&mut self, segment: Segment, now_ns: u64, out: &mut Vec<PackedBatch>) -> Result<(), PackError> {
        let found = segment.begin();
        if found != self.expected {
            return Err(PackError::OutOfOrder { expected: self.expected, found });
        }
        if !self.segments.is_empty()
            && let Some(reason) = self.full(&segment)
        {
            self.close(reason, out);
        }
        if self.segments.is_empty() {
            self.first_ns = now_ns;
            self.begin = found;
            let (bytes, bytes_max) = (self.aggregate.bytes_with(&segment), self.tx_bytes_max());
            if bytes > bytes_max {
                return Err(PackError::TooLarge { block: segment.block_number(), bytes, bytes_max });
            }
        }
        self.expected = segment.end();
        self.aggregate.add(&segment);
        self.segments.push(segment);
        if self.segments.len() >= self.settings.segments_max.min(SEGMENTS_MAX) {
            self.close(CloseReason::Count, out);
        }
        Ok(())
    }

    /// Why another segment does not go into the open batch.
    fn full(&self, next: &Segment) -> Option<CloseReason> {
        let first = self.segments.first().map_or(0, Segment::block_number);
        let blocks = next.block_number() - first + 1;
        let facts = self.aggregate.facts();
        if blocks > BLOCKS_MAX as u64
            || facts.tx_count + next.transactions.len() > TXS_MAX
            || facts.access_count + next.access_count > ACCESSES_MAX
        {
            return Some(CloseReason::Count);
        }
        if self.aggregate.witness_bytes_with(next) > self.settings.witness_bytes_max
            || facts.withdrawal_bytes + next.withdrawal_bytes() > FIELD_BYTES_MAX - 3 * (blocks as usize + 1)
        {
            return Some(CloseReason::WitnessBytes);
        }
        let (bytes, bytes_max) = (self.aggregate.bytes_with(next), self.tx_bytes_max());
        if bytes <= bytes_max || self.compresses_to(next, bytes, bytes_max) {
            return None;
        }
        let is_gas = bytes_of_gas(self.settings.l1_gas_max) < self.settings.tx_bytes_max.min(EXECUTE_TX_BYTES_MAX);
        Some(if is_gas { CloseReason::Gas } else { CloseReason::Bytes })
    }

    /// Whether the open batch and another segment fit once they are compressed. Tried only when they may.
    fn compresses_to(&self, next: &Segment, bytes: usize, bytes_max: usize) -> bool {
        let facts = self.aggregate.facts();
        let tx_bytes = facts.tx_bytes + next.tx_bytes();
        let saved_max = tx_bytes * COMPRESSED_PARTS.0 / COMPRESSED_PARTS.1;
        if self.settings.compression != Compression::Zstd || bytes - bytes_max > saved_max {
            return false;
        }
        let mut aggregate = self.aggregate.clone();
        aggregate.add(next);
        let segments: Vec<&Segment> = self.segments.iter().chain([next]).collect();
        let (payload, _) = self.payload(&segments, &aggregate);
        tx_bytes_of(&payload) <= bytes_max
    }

    fn close(&mut self, closed_by: CloseReason, out: &mut Vec<PackedBatch>) {
        let segments = std::mem::take(&mut self.segments);
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return };
        let aggregate = std::mem::take(&mut self.aggregate);
        let listed: Vec<&Segment> = segments.iter().collect();
        let (payload, stored_bytes) = self.payload(&listed, &aggregate);
        let digest = digest(&payload.data);
        let tx_bytes = tx_bytes_of(&payload);
        assert!(tx_bytes <= self.tx_bytes_max(), "{tx_bytes} bytes");
        out.push(PackedBatch {
            index: self.next_index,
            previous_digest: self.previous_digest,
            digest,
            begin: self.begin,
            next: last.end(),
            first_block: first.block_number(),
            last_block: last.block_number(),
            tx_count: aggregate.facts().tx_count,
            segment_count: segments.len(),
            tx_bytes,
            witness_bytes: aggregate.witness_bytes(),
            stored_bytes,
            closed_by,
            payload,
        });
        self.next_index += 1;
        self.previous_digest = digest;
        self.begin = self.expected;
    }

    /// The fields of the ExecuteTx, and how long Data is stored.
    fn payload(&self, segments: &[&Segment], aggregate: &Aggregate) -> (Payload, usize) {
        let first = segments[0];
        let (field, overflow) = aggregate.split(&first.pre_state_root);
        let blocks = blocks(segments);
        let header = &first.block.header;
        let anchor = blocks.last().map_or(B256::ZERO, |block| block.origin.hash);
        let batch = Batch { index: self.next_index, previous_digest: self.previous_digest, blocks, overflow };
        let data = batch.encode(self.settings.compression);
        let stored_bytes = batch.stored_bytes();
        let payload = Payload {
            to: None,
            value: U256::ZERO,
            data: data.into(),
            pre_state_root: first.pre_state_root,
            coinbase: header.beneficiary,
            block_number: header.number,
            timestamp: header.timestamp,
            witness: field.into(),
            withdrawals: withdrawals(segments),
            anchor: Bytes::copy_from_slice(anchor.as_slice()),
        };
        (payload, stored_bytes)
    }
}

impl Segment {
    #[must_use]
    pub fn block_number(&self) -> u64 {
        self.block.header.number
    }

    #[must_use]
    pub fn begin(&self) -> Position {
        Position {
            block_number: self.block_number(),
            first_tx_index: self.first_tx_index,
            opens_block: self.opens_block,
            state_root: self.pre_state_root,
        }
    }

    /// Where the one after it begins.
    #[must_use]
    pub fn end(&self) -> Position {
        let state_root = self.post_state_root;
        if self.closes_block {
            let block_number = self.block_number() + 1;
            return Position { block_number, first_tx_index: 0, opens_block: true, state_root };
        }
        let first_tx_index = self.first_tx_index + self.transactions.len() as u32; // A block has fewer than 2^32.
        Position { block_number: self.block_number(), first_tx_index, opens_block: false, state_root }
    }

    fn tx_bytes(&self) -> usize {
        self.transactions.iter().map(Encodable::length).sum()
    }

    fn withdrawal_bytes(&self) -> usize {
        if self.closes_block { self.block.withdrawals.iter().map(Encodable::length).sum() } else { 0 }
    }
}

/// Raw bytes of an ExecuteTx with these fields, at most.
#[must_use]
pub fn tx_bytes_of(payload: &Payload) -> usize {
    ENVELOPE_BYTES_MAX + payload.data.len() + payload.witness.len() + payload.withdrawals.len()
}

fn blocks(segments: &[&Segment]) -> Vec<BatchBlock> {
    let mut blocks: Vec<BatchBlock> = Vec::new();
    let mut number = None;
    for segment in segments {
        if number != Some(segment.block_number()) {
            number = Some(segment.block_number());
            let header = &segment.block.header;
            let continued = (!segment.opens_block).then(|| Continued {
                base_fee_wei: header.base_fee_per_gas.unwrap_or_default(),
                first_tx_index: segment.first_tx_index,
            });
            blocks.push(BatchBlock {
                timestamp: header.timestamp,
                coinbase: header.beneficiary,
                gas_limit: header.gas_limit,
                extra_data: header.extra_data.clone(),
                origin: segment.block.origin,
                prev_randao: header.mix_hash,
                continued,
                segments: Vec::new(),
                hash: None,
            });
        }
        let Some(block) = blocks.last_mut() else { continue };
        block.hash = segment.closes_block.then_some(segment.block.hash);
        block.segments.push(BatchSegment {
            gas_used_before: segment.gas_used_before,
            post_state_root: segment.post_state_root,
            receipts_digest: segment.receipts_digest,
            transactions: segment.transactions.clone(),
        });
    }
    blocks
}

/// A list for each block: of a block that goes on it is empty, because withdrawals are made at the end.
fn withdrawals(segments: &[&Segment]) -> Bytes {
    let list = |payload_length| Header { list: true, payload_length };
    let mut lists = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let is_last = segments.get(index + 1).is_none_or(|next| next.block_number() != segment.block_number());
        if !is_last {
            continue;
        }
        list(segment.withdrawal_bytes()).encode(&mut lists);
        if segment.closes_block {
            segment.block.withdrawals.iter().for_each(|withdrawal| withdrawal.encode(&mut lists));
        }
    }
    let mut out = Vec::with_capacity(lists.len() + 4);
    list(lists.len()).encode(&mut out);
    out.extend_from_slice(&lists);
    out.into()
}
