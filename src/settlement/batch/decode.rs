//! The body of a batch, strictly: see the module above for the rules.
//!
//! Counts are limited before anything is reserved. Transactions and entries are slices of the body.

use super::{
    BLOCKS_MAX, Batch, BatchBlock, BatchError, BatchSegment, Continued, EXTRA_DATA_BYTES_MAX, SEGMENTS_MAX, TXS_MAX,
};
use crate::primitives::{Address, B256, Bytes};
use crate::settlement::Origin;
use crate::witness::Witness;
use crate::witness::decode::{CODE_BYTES_MAX, HEADER_BYTES_MAX, HEADERS_MAX, NODE_BYTES_MAX};
use crate::witness::rlp::{integer, split};

/// Reads what [`Batch::encode`] wrote before it was compressed.
pub fn body(whole: &Bytes) -> Result<Batch, BatchError> {
    let mut outer = Items { what: "the body", rest: whole };
    let mut items = outer.list("the body")?;
    if !outer.rest.is_empty() {
        return Err(BatchError::TrailingBytes { bytes: outer.rest.len() });
    }
    items.expect_count(4)?;
    let index = items.u64("the batch index")?;
    let previous_digest = items.hash("the previous digest")?;
    let blocks = Decoder { whole, segment_count: 0, tx_count: 0 }.blocks(items.list("the blocks")?)?;
    let overflow = overflow(whole, items.list("the overflow")?)?;
    Ok(Batch { index, previous_digest, blocks, overflow })
}

/// A list of which the items are read one after the other.
struct Items<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    fn expect_count(&self, expected: usize) -> Result<(), BatchError> {
        let mut count = 0;
        let mut rest = self.rest;
        while !rest.is_empty() {
            rest = split(rest).map_err(|fault| BatchError::Rlp { what: self.what, fault })?.1;
            count += 1;
            // A long list of short items is not counted to its end.
            if count > expected {
                break;
            }
        }
        if count == expected { Ok(()) } else { Err(BatchError::ItemCount { what: self.what, count, expected }) }
    }

    fn list(&mut self, what: &'static str) -> Result<Items<'a>, BatchError> {
        let fault_of = |fault| BatchError::Rlp { what, fault };
        let (item, rest) = split(self.rest).map_err(fault_of)?;
        let payload = item.list().map_err(fault_of)?;
        self.rest = rest;
        Ok(Items { what, rest: payload })
    }

    /// A list with its own header.
    fn encoded_list(&mut self, what: &'static str) -> Result<&'a [u8], BatchError> {
        let fault_of = |fault| BatchError::Rlp { what, fault };
        let (item, rest) = split(self.rest).map_err(fault_of)?;
        item.list().map_err(fault_of)?;
        self.rest = rest;
        Ok(item.encoded)
    }

    fn string(&mut self, what: &'static str) -> Result<&'a [u8], BatchError> {
        let fault_of = |fault| BatchError::Rlp { what, fault };
        let (item, rest) = split(self.rest).map_err(fault_of)?;
        let payload = item.string().map_err(fault_of)?;
        self.rest = rest;
        Ok(payload)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, BatchError> {
        let bytes = integer::<8>(self.string(what)?).ok_or(BatchError::Integer { what, bits: 64 })?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, BatchError> {
        let bytes = integer::<4>(self.string(what)?).ok_or(BatchError::Integer { what, bits: 32 })?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn hash(&mut self, what: &'static str) -> Result<B256, BatchError> {
        let bytes = self.string(what)?;
        B256::try_from(bytes).map_err(|_| BatchError::Length { what, bytes: bytes.len(), expected: 32 })
    }

    fn address(&mut self, what: &'static str) -> Result<Address, BatchError> {
        let bytes = self.string(what)?;
        Address::try_from(bytes).map_err(|_| BatchError::Length { what, bytes: bytes.len(), expected: 20 })
    }
}

struct Decoder<'a> {
    whole: &'a Bytes,
    segment_count: usize,
    tx_count: usize,
}

impl Decoder<'_> {
    fn blocks(&mut self, mut items: Items<'_>) -> Result<Vec<BatchBlock>, BatchError> {
        let mut blocks: Vec<BatchBlock> = Vec::new();
        while !items.rest.is_empty() {
            let index = blocks.len();
            if index == BLOCKS_MAX {
                return Err(BatchError::TooManyBlocks);
            }
            if blocks.last().is_some_and(|block| block.hash.is_none()) {
                return Err(BatchError::UnfinishedInside { block: index - 1 });
            }
            let block = self.block(index, items.list("a block")?)?;
            blocks.push(block);
        }
        if blocks.is_empty() { Err(BatchError::BlocksEmpty) } else { Ok(blocks) }
    }

    fn block(&mut self, block: usize, mut items: Items<'_>) -> Result<BatchBlock, BatchError> {
        items.expect_count(10)?;
        let timestamp = items.u64("a timestamp")?;
        let coinbase = items.address("a coinbase")?;
        let gas_limit = items.u64("a gas limit")?;
        let extra = items.string("extra data")?;
        if extra.len() > EXTRA_DATA_BYTES_MAX {
            return Err(BatchError::ExtraData { block, bytes: extra.len() });
        }
        let origin = Origin { number: items.u64("an origin's number")?, hash: items.hash("an origin's hash")? };
        let prev_randao = items.hash("a prev_randao")?;
        let continued = continued(items.list("the continuation")?)?;
        if continued.is_some() && block > 0 {
            return Err(BatchError::ContinuedInside { block });
        }
        let segments = self.segments(block, items.list("the segments")?)?;
        let hash = match items.string("a block's hash")? {
            [] => None,
            bytes => Some(B256::try_from(bytes).map_err(|_| BatchError::Length {
                what: "a block's hash",
                bytes: bytes.len(),
                expected: 32,
            })?),
        };
        let last = segments.len().checked_sub(1).ok_or(BatchError::SegmentsEmpty { block })?;
        let is_edge = |segment| segment == 0 && continued.is_none() || segment == last && hash.is_some();
        let empty = |(index, segment): (usize, &BatchSegment)| segment.transactions.is_empty() && !is_edge(index);
        if let Some(segment) = segments.iter().enumerate().position(empty) {
            return Err(BatchError::SegmentEmpty { block, segment });
        }
        let extra_data = self.whole.slice_ref(extra);
        Ok(BatchBlock { timestamp, coinbase, gas_limit, extra_data, origin, prev_randao, continued, segments, hash })
    }

    fn segments(&mut self, block: usize, mut items: Items<'_>) -> Result<Vec<BatchSegment>, BatchError> {
        let mut segments = Vec::new();
        while !items.rest.is_empty() {
            self.segment_count += 1;
            if self.segment_count > SEGMENTS_MAX {
                return Err(BatchError::TooManySegments);
            }
            let mut own = items.list("a segment")?;
            own.expect_count(4)?;
            let gas_used_before = own.u64("the gas used before a segment")?;
            let post_state_root = own.hash("a post-state root")?;
            let receipts_digest = own.hash("a receipts digest")?;
            let transactions = self.transactions(block, segments.len(), own.list("transactions")?)?;
            segments.push(BatchSegment { gas_used_before, post_state_root, receipts_digest, transactions });
        }
        Ok(segments)
    }

    fn transactions(&mut self, block: usize, segment: usize, mut items: Items<'_>) -> Result<Vec<Bytes>, BatchError> {
        let mut transactions = Vec::new();
        while !items.rest.is_empty() {
            self.tx_count += 1;
            if self.tx_count > TXS_MAX {
                return Err(BatchError::TooManyTxs);
            }
            let raw = items.string("a transaction")?;
            if raw.is_empty() {
                return Err(BatchError::TxEmpty { block, segment, index: transactions.len() });
            }
            transactions.push(self.whole.slice_ref(raw));
        }
        Ok(transactions)
    }
}

fn continued(mut items: Items<'_>) -> Result<Option<Continued>, BatchError> {
    if items.rest.is_empty() {
        return Ok(None);
    }
    items.expect_count(2)?;
    let base_fee_wei = items.u64("a base fee")?;
    let first_tx_index = items.u32("the index of a first transaction")?;
    Ok(Some(Continued { base_fee_wei, first_tx_index }))
}

fn overflow(whole: &Bytes, mut items: Items<'_>) -> Result<Witness, BatchError> {
    items.expect_count(3)?;
    let mut headers = items.list("headers of the overflow")?;
    let mut list = Vec::new();
    while !headers.rest.is_empty() {
        let header = headers.encoded_list("a header of the overflow")?;
        if list.len() == HEADERS_MAX {
            return Err(BatchError::Overflow { what: "more than 256 headers" });
        }
        if header.len() > HEADER_BYTES_MAX {
            return Err(BatchError::Overflow { what: "a header of more than 4,096 bytes" });
        }
        list.push(whole.slice_ref(header));
    }
    let codes =
        strings(whole, items.list("codes of the overflow")?, CODE_BYTES_MAX, "a code of more than 24,576 bytes")?;
    let state = strings(whole, items.list("nodes of the overflow")?, NODE_BYTES_MAX, "a node of more than 576 bytes")?;
    Ok(Witness { headers: list, codes, state })
}

fn strings(
    whole: &Bytes,
    mut items: Items<'_>,
    bytes_max: usize,
    too_long: &'static str,
) -> Result<Vec<Bytes>, BatchError> {
    let mut strings = Vec::new();
    while !items.rest.is_empty() {
        let string = items.string("an entry of the overflow")?;
        // An empty entry could only be there to be counted.
        if string.is_empty() {
            return Err(BatchError::Overflow { what: "an empty entry" });
        }
        if string.len() > bytes_max {
            return Err(BatchError::Overflow { what: too_long });
        }
        strings.push(whole.slice_ref(string));
    }
    Ok(strings)
}
