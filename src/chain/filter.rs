//! Per-block log filter: whether a block may have logs of an address or with a topic, one cache line a question.
//!
//! The 2,048-bit bloom of the header says yes to everything in a block with thousands of logs, so each receipt record ends with a larger
//! filter: lines of 64 bytes, 15 words of bits and a crc32c of line index and words. An element (address, or topic at its position) sets
//! six bits of one line; at 12 bits an element about one question in 200 is answered yes in vain.

use super::receipt::ReceiptRef;
use super::record::u32_at;
use super::writer::BlockRecord;
use crate::primitives::{Address, B256, Bloom};

pub(super) const LINE_BYTES: usize = 64;
const LINE_BITS: u64 = 480;
const LINE_CRC_AT: usize = LINE_BYTES - 4;
const BITS_PER_ELEMENT: usize = 12;
const BITS_SET: u32 = 6;
/// Elements remembered so that a token's address is not counted once for each of its logs.
const RECENT_ELEMENTS: usize = 1024;

/// What `eth_getLogs` asks for: any of the addresses, and at each position any of the topics; empty means everything.
#[derive(Clone, Debug, Default)]
pub struct LogQuery {
    addresses: Vec<Element>,
    topics: [Vec<Element>; 4],
}

/// One address or topic, as both filters know it.
#[derive(Clone, Debug)]
struct Element {
    bloom: Bloom,
    hash: u64,
}

impl LogQuery {
    #[must_use]
    pub fn new(addresses: &[Address], topics: [&[B256]; 4]) -> LogQuery {
        let addresses = addresses.iter().map(|address| element(0, address.as_slice())).collect();
        let mut position = 0;
        let topics = topics.map(|any_of| {
            position += 1;
            any_of.iter().map(|topic| element(position, topic.as_slice())).collect()
        });
        LogQuery { addresses, topics }
    }

    /// Whether a block with this header bloom can have such logs.
    #[must_use]
    pub fn matches_bloom(&self, bloom: &Bloom) -> bool {
        self.groups().all(|group| group.iter().any(|element| bloom.contains(&element.bloom)))
    }

    /// Whether a block can have such logs by its own filter. `line` reads and checks a line.
    pub(super) fn matches_filter<E>(
        &self,
        line_count: u64,
        line: impl Fn(u64) -> Result<[u8; LINE_BYTES], E>,
    ) -> Result<bool, E> {
        if line_count == 0 {
            // No logs at all; a query for everything still matches no log.
            return Ok(false);
        }
        for group in self.groups() {
            let mut any = false;
            for element in group {
                let bits = line(line_of(element.hash, line_count))?;
                any |= bit_positions(element.hash).all(|bit| (bits[bit / 8] >> (bit % 8)) & 1 == 1);
            }
            if !any {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The sets of which each must have a member in the block.
    fn groups(&self) -> impl Iterator<Item = &Vec<Element>> {
        std::iter::once(&self.addresses).chain(&self.topics).filter(|group| !group.is_empty())
    }
}

/// Makes the filter of a block; keeps its buffers between blocks.
#[derive(Default)]
pub(super) struct FilterBuilder {
    elements: Vec<u64>,
    recent: Vec<u64>,
    lines: Vec<u8>,
}

impl FilterBuilder {
    /// The filter of a block, empty when it has no logs. Reads every receipt to its end.
    pub(super) fn build(&mut self, block: &BlockRecord) -> Result<&[u8], &'static str> {
        const MALFORMED: &str = "compact receipt";
        self.elements.clear();
        self.recent.clear();
        self.recent.resize(RECENT_ELEMENTS, 0);
        for tx in block.txs {
            let receipt = ReceiptRef::decode(tx.receipt_span.of(block.receipts)).map_err(|_| MALFORMED)?;
            for log in receipt.logs() {
                let log = log.map_err(|_| MALFORMED)?;
                self.add(element_hash(0, log.address));
                for (position, topic) in (1..).zip(log.topics()) {
                    self.add(element_hash(position, topic));
                }
            }
        }
        self.lines.clear();
        let line_count = (self.elements.len() * BITS_PER_ELEMENT).div_ceil(LINE_BITS as usize);
        self.lines.resize(line_count * LINE_BYTES, 0);
        for hash in &self.elements {
            let start = line_of(*hash, line_count as u64) as usize * LINE_BYTES;
            for bit in bit_positions(*hash) {
                self.lines[start + bit / 8] |= 1 << (bit % 8);
            }
        }
        for (index, line) in (0..).zip(self.lines.chunks_exact_mut(LINE_BYTES)) {
            let crc = line_crc(index, line);
            line[LINE_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        }
        Ok(&self.lines)
    }

    fn add(&mut self, hash: u64) {
        let recent = &mut self.recent[hash as usize % RECENT_ELEMENTS];
        if *recent != hash {
            *recent = hash;
            self.elements.push(hash);
        }
    }
}

/// Whether a line's checksum holds.
pub(super) fn check_line(index: u64, line: &[u8]) -> bool {
    line_crc(index, line) == u32_at(line, LINE_CRC_AT)
}

fn line_crc(index: u64, line: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&index.to_le_bytes()), &line[..LINE_CRC_AT])
}

fn element(position: u64, bytes: &[u8]) -> Element {
    let mut bloom = Bloom::ZERO;
    bloom.accrue(alloy_primitives::BloomInput::Raw(bytes));
    Element { bloom, hash: element_hash(position, bytes) }
}

/// Part of the file format: two rounds of multiplication for each word, and the position (0 for an address).
fn element_hash(position: u64, bytes: &[u8]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64 ^ position.wrapping_mul(0xff51_afd7_ed55_8ccd);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = fold(hash ^ u64::from_le_bytes(word), 0xd6e8_feb8_6659_fd93);
    }
    fold(hash, 0xa076_1d64_78bd_642f)
}

/// High and low half of the 128-bit product, mixed.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

/// The line of an element, by the high half of its hash.
fn line_of(hash: u64, line_count: u64) -> u64 {
    // line_count < 2^32: a filter is at most 4 GiB. The product needs 64 bits.
    ((hash >> 32) * line_count) >> 32
}

/// The bits of an element in its line.
fn bit_positions(hash: u64) -> impl Iterator<Item = usize> {
    let bits = fold(hash, 0xe703_7ed1_a0b4_28db);
    (0..BITS_SET).map(move |bit| ((((bits >> (9 * bit)) & 0x1ff) * LINE_BITS) >> 9) as usize) // < 480
}
