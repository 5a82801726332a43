//! Where a derived chain ends: after a block, or inside one of which the first batches are there.

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_rlp::Encodable;

use super::{Defect, Proof};
use crate::builder::block::BlockContext;
use crate::builder::block_execution::Receipt;
use crate::codec::transaction::RlpFault;
use crate::l1::execute_tx::Payload;
use crate::primitives::{B256, Bytes};
use crate::settlement::Origin;
use crate::settlement::batch::Batch;
use crate::settlement::packer::{Position, Start};
use crate::witness::rlp::split;

/// The end of a derived chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Tip {
    /// The last whole block.
    pub header: Header,
    pub hash: B256,
    /// Its origin; of block 0 what the genesis says.
    pub origin: Origin,
    /// Of the next batch.
    pub next_index: u64,
    pub previous_digest: B256,
    /// What there is of the block behind it.
    pub open: Option<OpenPart>,
}

/// The first part of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenPart {
    pub context: BlockContext,
    pub origin: Origin,
    pub gas_used: u64,
    pub state_root: B256,
    /// 2718 encodings.
    pub transactions: Vec<Bytes>,
    pub receipts: Vec<Receipt>,
}

/// What a batch adds to a tip.
#[derive(Clone, Debug, PartialEq)]
pub struct Advance {
    pub proof: Proof,
    /// The blocks that it ends.
    pub blocks: Vec<DerivedBlock>,
    pub tip: Tip,
}

/// A whole block with everything of it, checked in every field.
#[derive(Clone, Debug, PartialEq)]
pub struct DerivedBlock {
    pub header: Header,
    pub hash: B256,
    pub origin: Origin,
    /// RLP of the block.
    pub rlp: Bytes,
    pub receipts: Vec<Receipt>,
    /// EIP-7685 requests, type byte first, empty ones left out.
    pub requests: Vec<Bytes>,
}

impl DerivedBlock {
    /// The 2718 encodings in its RLP.
    ///
    /// # Panics
    /// Never: strict re-execution made the RLP.
    #[must_use]
    pub fn transactions(&self) -> Vec<Bytes> {
        let list = || -> Result<Vec<Bytes>, RlpFault> {
            let (_, behind_header) = split(split(&self.rlp)?.0.list()?)?;
            let mut rest = split(behind_header)?.0.list()?;
            let mut transactions = Vec::new();
            while !rest.is_empty() {
                let (item, behind) = split(rest)?;
                transactions.push(Bytes::copy_from_slice(if item.is_list { item.encoded } else { item.payload }));
                rest = behind;
            }
            Ok(transactions)
        };
        list().expect("strict re-execution made these bytes")
    }
}

impl Tip {
    /// Block 0. The first batch names its hash.
    #[must_use]
    pub fn genesis(header: Header, origin: Origin) -> Self {
        let hash = header.hash_slow();
        Self { header, hash, origin, next_index: 0, previous_digest: hash, open: None }
    }

    #[must_use]
    pub fn state_root(&self) -> B256 {
        self.open.as_ref().map_or(self.header.state_root, |open| open.state_root)
    }

    /// Where a packer goes on from here.
    #[must_use]
    pub fn start(&self) -> Start {
        let position = Position {
            block_number: self.header.number + 1,
            first_tx_index: self.open.as_ref().map_or(0, |open| open.transactions.len() as u32), // Bounded by gas.
            opens_block: self.open.is_none(),
            state_root: self.state_root(),
        };
        Start { next_index: self.next_index, previous_digest: self.previous_digest, position }
    }

    /// Whether a batch goes on here, by what is in its fields.
    pub(super) fn check_start(&self, batch: &Batch, payload: &Payload) -> Result<(), Defect> {
        if batch.index != self.next_index {
            return Err(Defect::Index { expected: self.next_index, found: batch.index });
        }
        if batch.previous_digest != self.previous_digest {
            return Err(Defect::PreviousDigest { expected: self.previous_digest, found: batch.previous_digest });
        }
        if payload.pre_state_root != self.state_root() {
            return Err(Defect::PreState { expected: self.state_root(), found: payload.pre_state_root });
        }
        let expected = self.header.number + 1;
        if payload.block_number != expected {
            return Err(Defect::BlockNumber { expected, found: payload.block_number });
        }
        let Some(first) = batch.blocks.first() else { return Ok(()) };
        match (&self.open, &first.continued) {
            (None, None) => Ok(()),
            (Some(open), Some(part)) => {
                let context = &open.context;
                let same = [
                    ("timestamp", first.timestamp == context.timestamp),
                    ("coinbase", first.coinbase == context.coinbase),
                    ("gas limit", first.gas_limit == context.gas_limit),
                    ("extra data", first.extra_data == context.extra_data),
                    ("origin", first.origin == open.origin),
                    ("prev_randao", first.prev_randao == context.prev_randao),
                    ("base fee", part.base_fee_wei == context.base_fee_per_gas_wei),
                    ("first transaction", part.first_tx_index as usize == open.transactions.len()),
                ];
                let differs = same.into_iter().find(|(_, is_same)| !is_same);
                differs.map_or(Ok(()), |(field, _)| Err(Defect::Continuation { field }))
            }
            (_, continued) => Err(Defect::Place { found_inside: continued.is_some() }),
        }
    }
}

/// RLP of a block.
pub fn block_rlp(header: &Header, transactions: &[Bytes], withdrawals: &[Withdrawal]) -> Bytes {
    let list = |payload_length| alloy_rlp::Header { list: true, payload_length };
    // A legacy transaction is a list in the body; a typed one is a string.
    let is_list = |raw: &Bytes| raw.first().is_some_and(|first| *first >= 0xc0);
    let txs: usize = transactions.iter().map(|raw| if is_list(raw) { raw.len() } else { raw.length() }).sum();
    let withdrawal_bytes: usize = withdrawals.iter().map(Encodable::length).sum();
    let payload = header.length() + list(txs).length() + txs + 1 + list(withdrawal_bytes).length() + withdrawal_bytes;
    let mut out = Vec::with_capacity(payload + 5);
    list(payload).encode(&mut out);
    header.encode(&mut out);
    list(txs).encode(&mut out);
    for raw in transactions {
        if is_list(raw) {
            out.extend_from_slice(raw);
        } else {
            raw.encode(&mut out);
        }
    }
    list(0).encode(&mut out);
    list(withdrawal_bytes).encode(&mut out);
    withdrawals.iter().for_each(|withdrawal| withdrawal.encode(&mut out));
    out.into()
}
