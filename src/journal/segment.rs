//! The header of a segment: the first block of the slot that holds it. All of it lies in the block's first 512 bytes, one disk sector, so
//! it is there whole or not at all.
//!
//! ```text
//! offset  bytes  field
//! 0       8      magic "SEQJRNL1"
//! 8       4      crc32c of bytes 12..128
//! 12      4      format version, 1
//! 16      16     id of the journal: random and secret, so that nobody can forge a header inside a transaction
//! 32      8      segment id, ascending by one
//! 40      8      bytes of the slot
//! 48      8      sequence of the first record that is written to it
//! 56      8      epoch: how often the journal had been opened
//! 64      32     digest of the last group before it, zero for the first segment
//! 96      8      id of the oldest segment that was needed when this one began
//! 104     24     zero
//! ```

use crate::primitives::{B256, Sequence};

/// Bytes that hold the header; the rest of the first block is zero.
pub const SEGMENT_HEADER_BYTES: usize = 128;
const MAGIC: [u8; 8] = *b"SEQJRNL1";
const VERSION: u32 = 1;

/// Names one journal. Never shown to anyone.
pub type JournalId = [u8; 16];

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub journal: JournalId,
    pub id: u64,
    pub bytes: u64,
    pub first: Sequence,
    pub epoch: u64,
    pub digest: B256,
    pub oldest_needed: u64,
}

/// What the first block of a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBlock {
    /// Zeros: nothing was ever begun here.
    Unused,
    Segment(SegmentHeader),
    Damaged(&'static str),
}

impl SegmentHeader {
    /// Writes the header to the beginning of `out`.
    pub fn encode(&self, out: &mut [u8; SEGMENT_HEADER_BYTES]) {
        out.fill(0);
        out[..8].copy_from_slice(&MAGIC);
        out[12..16].copy_from_slice(&VERSION.to_le_bytes());
        out[16..32].copy_from_slice(&self.journal);
        out[32..40].copy_from_slice(&self.id.to_le_bytes());
        out[40..48].copy_from_slice(&self.bytes.to_le_bytes());
        out[48..56].copy_from_slice(&self.first.0.to_le_bytes());
        out[56..64].copy_from_slice(&self.epoch.to_le_bytes());
        out[64..96].copy_from_slice(self.digest.as_slice());
        out[96..104].copy_from_slice(&self.oldest_needed.to_le_bytes());
        let crc = crc32c::crc32c(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the first bytes of a slot.
    #[must_use]
    pub fn read(slot: &[u8]) -> FirstBlock {
        let Some(bytes) = slot.first_chunk::<SEGMENT_HEADER_BYTES>() else {
            return FirstBlock::Damaged("the slot is shorter than a header");
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return FirstBlock::Unused;
        }
        if bytes[..8] != MAGIC {
            return FirstBlock::Damaged("the magic is another");
        }
        if u32_at(bytes, 8) != crc32c::crc32c(&bytes[12..]) {
            return FirstBlock::Damaged("the checksum of the header does not hold");
        }
        if u32_at(bytes, 12) != VERSION {
            return FirstBlock::Damaged("the format version is not 1");
        }
        FirstBlock::Segment(Self {
            journal: array_at(bytes, 16),
            id: u64_at(bytes, 32),
            bytes: u64_at(bytes, 40),
            first: Sequence(u64_at(bytes, 48)),
            epoch: u64_at(bytes, 56),
            digest: B256::from(array_at(bytes, 64)),
            oldest_needed: u64_at(bytes, 96),
        })
    }
}

/// `N` bytes at an offset that the caller knows to be inside.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_seen() {
        let header = SegmentHeader {
            journal: [7; 16],
            id: 3,
            bytes: 1 << 26,
            first: Sequence(900),
            epoch: 2,
            digest: B256::repeat_byte(5),
            oldest_needed: 1,
        };
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        header.encode(&mut bytes);
        assert_eq!(SegmentHeader::read(&bytes), FirstBlock::Segment(header));
        for bit in 0..8 * SEGMENT_HEADER_BYTES {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(SegmentHeader::read(&flipped), FirstBlock::Damaged(_)), "bit {bit}");
        }
        assert_eq!(SegmentHeader::read(&[0; 512]), FirstBlock::Unused);
        assert!(matches!(SegmentHeader::read(&[0; 100]), FirstBlock::Damaged(_)));
    }
}
