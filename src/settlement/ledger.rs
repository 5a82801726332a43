//! What settlement must not forget: batches as they were encoded, each signature before it was sent, what became of each nonce.
//!
//! ```text
//! file     8 bytes  "SEQSETL1"           group    4 bytes  length of its records
//!          32       hash of block 0               4        crc32c of that length
//!          …        groups                        4        crc32c of its records
//!                                                 …        records
//! record   4 bytes  length of type and body
//!          1        type
//!          …        body
//!
//! 1 Batch                    2 Signed                   3 Done                      4 Withdrawn
//! 0    8  id                 0    8  attempt            0    8   nonce              0   8  from
//! 8    8  gas                8    8  payload            8    8   payload + 1, 0:
//! 16   4  transaction bytes  16   8  nonce                       none of ours       5 WithdrawnOne
//! 20   8  batch index        24   16 tip cap, wei       16   1   fate: 1 succeeded, 6 Newest
//! 28   32 digest             40   16 fee cap, wei                2 failed, 3 taken  0   8  id
//! 60   32 digest before it   56   32 hash               17   32  hash
//! 92   8  first block        88   8  above              49   32  cost, wei
//! 100  8  last block         96   1  odd y              81   8   L1 block
//! 108  1  1: ends its last   97   32 r                  89   32  its hash
//!         block              129  32 s                  121  8   its timestamp
//! 109  32 pre-state root
//! 141  32 post-state root    7 Origin                   8 Checkpoint
//! 173  20 coinbase           0   8  number              0   8   next batch index
//! 193  8  timestamp          8   32 hash                8   32  digest of the last batch
//! 201  4  next transaction   40  32 mixHash             40  8   number of the newest whole block's origin
//! 205  …  data, witness,     72  8  timestamp           48  32  hash of that origin
//!         withdrawals,                                  80  …   that block's header: 4 bytes of length, then RLP
//!         anchor: 4 bytes                               ..  …   final L1 blocks from that origin on, as Origin, 80 bytes each
//!         of length, then
//!         bytes, each
//! ```
//!
//! A block's context names its origin by hash; the number is what an `Origin` adds, durable before a block stands on it. A checkpoint is
//! where derivation goes on after a restart.
//!
//! Integers are little-endian. A journal of its own, because a batch has 128 KiB that the transactions' journal would have to copy
//! forward until it is final, and because nobody waits for it but L1. Pure; [`super::ledger_file`] writes.

use std::collections::BTreeMap;

use alloy_consensus::Header;
use alloy_rlp::Decodable;
use thiserror::Error;

use crate::derivation::origins::OriginBlock;
use crate::l1::block::BlockId;
use crate::l1::execute_tx::{Payload, Signature};
use crate::l1::tx_manager::types::{
    Attempt, DoneRecord, Fate, PayloadFacts, PayloadId, Record as TxRecord, SignedRecord,
};
use crate::primitives::{Address, B256, Bytes, U256};

pub const MAGIC: &[u8; 8] = b"SEQSETL1";
/// Before the first record.
pub const HEADER_BYTES: usize = 40;
/// Before a record's type.
pub const LENGTH_BYTES: usize = 4;
const ORIGIN_BYTES: usize = 80;
/// L1 seconds that the spending limit looks back.
const SPENDING_S: u64 = 3_600;

/// A batch as it was encoded, and where it stands in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    pub facts: PayloadFacts,
    pub index: u64,
    pub digest: B256,
    /// Of the batch before it.
    pub previous_digest: B256,
    pub first_block: u64,
    pub last_block: u64,
    /// Whether its last block ends in it.
    pub ends_block: bool,
    pub post_state_root: B256,
    /// Transaction of its last block that comes next, when that block does not end in it.
    pub next_tx_index: u32,
    pub payload: Payload,
}

/// Where derivation stood behind a final L1 block, with no block open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    pub next_index: u64,
    pub digest: B256,
    pub origin: BlockId,
    /// RLP of the newest block's header.
    pub header_rlp: Bytes,
    /// From the origin to the final block, without a gap.
    pub l1: Vec<OriginBlock>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Batch(Box<StoredBatch>),
    Signed(SignedEntry),
    Done(DoneRecord),
    /// Batches from this one on are not wanted any more.
    Withdrawn {
        from: PayloadId,
    },
    /// This batch is not: what a rewrite of the file says in place of `Withdrawn`.
    WithdrawnOne {
        id: PayloadId,
    },
    /// The name of the newest batch that was ever made: what a rewrite of the file says when that batch is forgotten.
    Newest {
        id: PayloadId,
    },
    /// An L1 block that blocks may stand on from here on.
    Origin(OriginBlock),
    Checkpoint(Box<StoredCheckpoint>),
}

/// A signature with the terms that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedEntry {
    pub attempt: u64,
    pub payload: PayloadId,
    pub nonce: u64,
    pub tip_cap_wei: u128,
    pub fee_cap_wei: u128,
    pub hash: B256,
    pub above: u64,
    pub signature: Signature,
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    #[error("it has {have} bytes, its fields need {need}")]
    Length { have: usize, need: usize },
    #[error("{field} is {code}, which nothing has")]
    Code { field: &'static str, code: u8 },
    #[error("{bytes} bytes are left behind its last field")]
    Trailing { bytes: usize },
    #[error("signature {attempt} is of payload {}, which the ledger does not hold", .payload.0)]
    NoPayload { attempt: u64, payload: PayloadId },
}

impl Entry {
    /// Appends the entry with its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        match self {
            Self::Batch(batch) => encode_batch(batch, out),
            Self::Signed(signed) => {
                out.push(2);
                for number in [signed.attempt, signed.payload.0, signed.nonce] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                out.extend_from_slice(&signed.tip_cap_wei.to_le_bytes());
                out.extend_from_slice(&signed.fee_cap_wei.to_le_bytes());
                out.extend_from_slice(signed.hash.as_slice());
                out.extend_from_slice(&signed.above.to_le_bytes());
                out.push(u8::from(signed.signature.odd_y));
                out.extend_from_slice(&signed.signature.r.to_le_bytes::<32>());
                out.extend_from_slice(&signed.signature.s.to_le_bytes::<32>());
            }
            Self::Done(done) => {
                out.push(3);
                out.extend_from_slice(&done.nonce.to_le_bytes());
                out.extend_from_slice(&done.payload.map_or(0, |payload| payload.0 + 1).to_le_bytes());
                out.push(match done.fate {
                    Fate::Succeeded => 1,
                    Fate::Failed => 2,
                    Fate::Taken => 3,
                });
                out.extend_from_slice(done.hash.as_slice());
                out.extend_from_slice(&done.cost_wei.to_le_bytes::<32>());
                out.extend_from_slice(&done.block.number.to_le_bytes());
                out.extend_from_slice(done.block.hash.as_slice());
                out.extend_from_slice(&done.timestamp.to_le_bytes());
            }
            Self::Withdrawn { from: id } | Self::WithdrawnOne { id } | Self::Newest { id } => {
                out.push(match self {
                    Self::Withdrawn { .. } => 4,
                    Self::WithdrawnOne { .. } => 5,
                    _ => 6,
                });
                out.extend_from_slice(&id.0.to_le_bytes());
            }
            Self::Origin(origin) => {
                out.push(7);
                encode_origin(origin, out);
            }
            Self::Checkpoint(checkpoint) => {
                out.push(8);
                out.extend_from_slice(&checkpoint.next_index.to_le_bytes());
                out.extend_from_slice(checkpoint.digest.as_slice());
                out.extend_from_slice(&checkpoint.origin.number.to_le_bytes());
                out.extend_from_slice(checkpoint.origin.hash.as_slice());
                encode_part(&checkpoint.header_rlp, out);
                checkpoint.l1.iter().for_each(|origin| encode_origin(origin, out));
            }
        }
        // The limits before signing bound a batch far below 4 GiB.
        let length = (out.len() - start - LENGTH_BYTES) as u32;
        out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    }

    /// Reads type and body of an entry.
    ///
    /// # Errors
    /// Names the field.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let mut fields = Fields { rest: bytes };
        let entry = match fields.u8()? {
            1 => Self::Batch(Box::new(decode_batch(&mut fields)?)),
            2 => Self::Signed(SignedEntry {
                attempt: fields.u64()?,
                payload: PayloadId(fields.u64()?),
                nonce: fields.u64()?,
                tip_cap_wei: fields.u128()?,
                fee_cap_wei: fields.u128()?,
                hash: fields.hash()?,
                above: fields.u64()?,
                signature: Signature { odd_y: fields.truth("odd y")?, r: fields.word()?, s: fields.word()? },
            }),
            3 => Self::Done(DoneRecord {
                nonce: fields.u64()?,
                payload: fields.u64()?.checked_sub(1).map(PayloadId),
                fate: match fields.u8()? {
                    1 => Fate::Succeeded,
                    2 => Fate::Failed,
                    3 => Fate::Taken,
                    code => return Err(EntryError::Code { field: "fate", code }),
                },
                hash: fields.hash()?,
                cost_wei: fields.word()?,
                block: BlockId { number: fields.u64()?, hash: fields.hash()? },
                timestamp: fields.u64()?,
            }),
            4 => Self::Withdrawn { from: PayloadId(fields.u64()?) },
            5 => Self::WithdrawnOne { id: PayloadId(fields.u64()?) },
            6 => Self::Newest { id: PayloadId(fields.u64()?) },
            7 => Self::Origin(fields.origin()?),
            8 => {
                let next_index = fields.u64()?;
                let digest = fields.hash()?;
                let origin = BlockId { number: fields.u64()?, hash: fields.hash()? };
                let header_rlp = fields.part()?;
                let mut l1 = Vec::with_capacity(fields.rest.len() / ORIGIN_BYTES);
                while !fields.rest.is_empty() {
                    l1.push(fields.origin()?);
                }
                Self::Checkpoint(Box::new(StoredCheckpoint { next_index, digest, origin, header_rlp, l1 }))
            }
            code => return Err(EntryError::Code { field: "type", code }),
        };
        match fields.rest.len() {
            0 => Ok(entry),
            bytes => Err(EntryError::Trailing { bytes }),
        }
    }
}

fn encode_batch(batch: &StoredBatch, out: &mut Vec<u8>) {
    let payload = &batch.payload;
    out.push(1);
    out.extend_from_slice(&batch.facts.id.0.to_le_bytes());
    out.extend_from_slice(&batch.facts.gas.to_le_bytes());
    out.extend_from_slice(&batch.facts.bytes.to_le_bytes());
    out.extend_from_slice(&batch.index.to_le_bytes());
    out.extend_from_slice(batch.digest.as_slice());
    out.extend_from_slice(batch.previous_digest.as_slice());
    out.extend_from_slice(&batch.first_block.to_le_bytes());
    out.extend_from_slice(&batch.last_block.to_le_bytes());
    out.push(u8::from(batch.ends_block));
    out.extend_from_slice(payload.pre_state_root.as_slice());
    out.extend_from_slice(batch.post_state_root.as_slice());
    out.extend_from_slice(payload.coinbase.as_slice());
    out.extend_from_slice(&payload.timestamp.to_le_bytes());
    out.extend_from_slice(&batch.next_tx_index.to_le_bytes());
    for part in [&payload.data, &payload.witness, &payload.withdrawals, &payload.anchor] {
        encode_part(part, out);
    }
}

fn encode_part(part: &Bytes, out: &mut Vec<u8>) {
    // The limits before signing bound each part by 131,072 bytes; a header is smaller.
    out.extend_from_slice(&(part.len() as u32).to_le_bytes());
    out.extend_from_slice(part);
}

fn encode_origin(origin: &OriginBlock, out: &mut Vec<u8>) {
    out.extend_from_slice(&origin.number.to_le_bytes());
    out.extend_from_slice(origin.hash.as_slice());
    out.extend_from_slice(origin.mix_hash.as_slice());
    out.extend_from_slice(&origin.timestamp.to_le_bytes());
}

fn decode_batch(fields: &mut Fields<'_>) -> Result<StoredBatch, EntryError> {
    let id = PayloadId(fields.u64()?);
    let gas = fields.u64()?;
    let bytes = fields.u32()?;
    let index = fields.u64()?;
    let digest = fields.hash()?;
    let previous_digest = fields.hash()?;
    let first_block = fields.u64()?;
    let last_block = fields.u64()?;
    let ends_block = fields.truth("end of the last block")?;
    let pre_state_root = fields.hash()?;
    let post_state_root = fields.hash()?;
    let coinbase = Address::from(fields.array::<20>()?);
    let timestamp = fields.u64()?;
    let next_tx_index = fields.u32()?;
    let payload = Payload {
        to: None,
        value: U256::ZERO,
        pre_state_root,
        coinbase,
        block_number: first_block,
        timestamp,
        data: fields.part()?,
        witness: fields.part()?,
        withdrawals: fields.part()?,
        anchor: fields.part()?,
    };
    let facts = PayloadFacts { id, gas, bytes };
    Ok(StoredBatch {
        facts,
        index,
        digest,
        previous_digest,
        first_block,
        last_block,
        ends_block,
        post_state_root,
        next_tx_index,
        payload,
    })
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], EntryError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or(EntryError::Length { have: self.rest.len(), need: count })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, EntryError> {
        Ok(self.array::<1>()?[0])
    }

    fn truth(&mut self, field: &'static str) -> Result<bool, EntryError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            code => Err(EntryError::Code { field, code }),
        }
    }

    fn u32(&mut self) -> Result<u32, EntryError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, EntryError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn u128(&mut self) -> Result<u128, EntryError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    fn word(&mut self) -> Result<U256, EntryError> {
        Ok(U256::from_le_bytes(self.array::<32>()?))
    }

    fn hash(&mut self) -> Result<B256, EntryError> {
        Ok(B256::from(self.array::<32>()?))
    }

    fn origin(&mut self) -> Result<OriginBlock, EntryError> {
        Ok(OriginBlock { number: self.u64()?, hash: self.hash()?, mix_hash: self.hash()?, timestamp: self.u64()? })
    }

    fn part(&mut self) -> Result<Bytes, EntryError> {
        let length = self.u32()? as usize;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }
}

/// What the entries say together.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    batches: BTreeMap<PayloadId, Kept>,
    /// By attempt.
    signed: BTreeMap<u64, SignedEntry>,
    /// In order: those that the spending limit still counts, and the newest.
    done: Vec<DoneRecord>,
    newest: Option<PayloadId>,
    /// By hash; from the checkpoint's origin on.
    origins: BTreeMap<B256, OriginBlock>,
    checkpoint: Option<StoredCheckpoint>,
}

#[derive(Clone, Debug)]
struct Kept {
    batch: StoredBatch,
    /// Only kept because a signature of it may be sent: the nonces behind depend on it.
    is_withdrawn: bool,
}

impl Ledger {
    /// Takes an entry in.
    ///
    /// # Errors
    /// `NoPayload`.
    pub fn apply(&mut self, entry: Entry) -> Result<(), EntryError> {
        match entry {
            Entry::Batch(batch) => {
                self.newest = self.newest.max(Some(batch.facts.id));
                self.batches.insert(batch.facts.id, Kept { batch: *batch, is_withdrawn: false });
            }
            Entry::Signed(signed) => {
                let SignedEntry { attempt, payload, .. } = signed;
                if !self.batches.contains_key(&payload) {
                    return Err(EntryError::NoPayload { attempt, payload });
                }
                self.signed.insert(attempt, signed);
            }
            Entry::Done(done) => {
                self.signed.retain(|_, signed| signed.nonce != done.nonce);
                if let Some(payload) = done.payload {
                    self.batches.remove(&payload);
                }
                self.drop_unsigned();
                self.done.retain(|earlier| earlier.timestamp.saturating_add(SPENDING_S) > done.timestamp);
                self.done.push(done);
            }
            Entry::Withdrawn { from } => {
                self.batches.range_mut(from..).for_each(|(_, kept)| kept.is_withdrawn = true);
                self.drop_unsigned();
            }
            Entry::WithdrawnOne { id } => {
                if let Some(kept) = self.batches.get_mut(&id) {
                    kept.is_withdrawn = true;
                }
                self.drop_unsigned();
            }
            Entry::Newest { id } => self.newest = self.newest.max(Some(id)),
            Entry::Origin(origin) => {
                self.origins.insert(origin.hash, origin);
            }
            Entry::Checkpoint(checkpoint) => {
                // Blocks behind it stand on its origin or a later one.
                self.origins.retain(|_, origin| origin.number >= checkpoint.origin.number);
                self.checkpoint = Some(*checkpoint);
            }
        }
        Ok(())
    }

    fn drop_unsigned(&mut self) {
        let signed = &self.signed;
        self.batches.retain(|id, kept| !kept.is_withdrawn || signed.values().any(|signed| signed.payload == *id));
    }

    /// Everything that still matters, in an order in which it can be applied.
    pub fn live(&self) -> impl Iterator<Item = Entry> {
        let done = self.done.iter().copied().map(Entry::Done);
        let batches = self.batches.values().map(|kept| Entry::Batch(Box::new(kept.batch.clone())));
        let signed = self.signed.values().cloned().map(Entry::Signed);
        let withdrawn = self.batches.iter().filter(|(_, kept)| kept.is_withdrawn);
        // A withdrawn batch never has a wanted one behind it in the chain, but one made later has a higher name.
        let marks = withdrawn.map(|(id, _)| Entry::WithdrawnOne { id: *id });
        let newest = self.newest.map(|id| Entry::Newest { id });
        let checkpoint = self.checkpoint.iter().map(|checkpoint| Entry::Checkpoint(Box::new(checkpoint.clone())));
        let origins = self.origins.values().copied().map(Entry::Origin);
        checkpoint.chain(origins).chain(done).chain(newest).chain(batches).chain(signed).chain(marks)
    }

    /// What the transaction manager starts with, oldest first.
    #[must_use]
    pub fn tx_records(&self) -> Vec<TxRecord> {
        let done = self.done.iter().copied().map(TxRecord::Done);
        let signed = self.signed.values().filter_map(|signed| {
            let payload = self.batches.get(&signed.payload)?.batch.facts;
            let SignedEntry { attempt: id, nonce, tip_cap_wei, fee_cap_wei, hash, above, .. } = *signed;
            let attempt = Attempt { id, payload, nonce, tip_cap_wei, fee_cap_wei };
            Some(TxRecord::Signed(SignedRecord { attempt, hash, above }))
        });
        done.chain(signed).collect()
    }

    /// Batches that are still wanted, in order.
    pub fn wanted(&self) -> impl Iterator<Item = &StoredBatch> {
        self.batches.values().filter(|kept| !kept.is_withdrawn).map(|kept| &kept.batch)
    }

    /// Batches that are not wanted and may still be sent.
    pub fn withdrawn(&self) -> impl Iterator<Item = PayloadId> {
        self.batches.iter().filter(|(_, kept)| kept.is_withdrawn).map(|(id, _)| *id)
    }

    #[must_use]
    pub fn batch(&self, id: PayloadId) -> Option<&StoredBatch> {
        self.batches.get(&id).map(|kept| &kept.batch)
    }

    #[must_use]
    pub fn signed(&self, attempt: u64) -> Option<&SignedEntry> {
        self.signed.get(&attempt)
    }

    /// Whether a signature of a batch may have been sent.
    #[must_use]
    pub fn is_signed(&self, id: PayloadId) -> bool {
        self.signed.values().any(|signed| signed.payload == id)
    }

    /// The L1 block of this hash that blocks of ours stand on.
    #[must_use]
    pub fn origin(&self, hash: &B256) -> Option<&OriginBlock> {
        self.origins.get(hash)
    }

    #[must_use]
    pub fn checkpoint(&self) -> Option<&StoredCheckpoint> {
        self.checkpoint.as_ref()
    }

    /// Number of the checkpoint's block; 0 without one.
    #[must_use]
    pub fn checkpoint_block(&self) -> u64 {
        let header = self.checkpoint.as_ref().map(|stored| Header::decode(&mut &stored.header_rlp[..]));
        header.and_then(Result::ok).map_or(0, |header| header.number)
    }

    /// The batch that a signed transaction carries.
    #[must_use]
    pub fn batch_of_tx(&self, hash: &B256) -> Option<PayloadId> {
        self.signed.values().find(|signed| signed.hash == *hash).map(|signed| signed.payload)
    }

    /// Name of the next batch: never one that was used.
    #[must_use]
    pub fn next_id(&self) -> PayloadId {
        PayloadId(self.newest.map_or(0, |newest| newest.0 + 1))
    }
}

#[cfg(test)]
pub(in crate::settlement) mod tests;
