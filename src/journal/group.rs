//! A group: the records of one durable write, behind a header of 128 bytes, padded with zeros to whole blocks.
//!
//! ```text
//! offset  bytes  field
//! 0       8      magic "SEQGROUP"
//! 8       4      crc32c of bytes 12..128
//! 12      4      crc32c of the records
//! 16      16     id of the journal
//! 32      8      segment id
//! 40      8      epoch, at least that of the group before
//! 48      8      sequence of the first record
//! 56      8      sequence of the last record
//! 64      4      bytes of the records
//! 68      4      record count
//! 72      8      Unix time of the write in ns, for people
//! 80      32     digest of the group before: keccak-256 of its 128 bytes of header
//! 112     16     zero
//! ```
//!
//! What lies behind the newest group is zeros or an older use of the slot. Neither can be mistaken for a group that follows: sequence and
//! digest continue nothing else.

use crate::crypto::keccak::keccak256;
use crate::journal::record::{Outline, Record, RecordError, verify_checksum};
use crate::journal::segment::{JournalId, array_at, u32_at, u64_at};
use crate::journal::storage::BLOCK_BYTES;
use crate::primitives::{B256, Sequence};

pub const GROUP_HEADER_BYTES: usize = 128;
const MAGIC: [u8; 8] = *b"SEQGROUP";

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupHeader {
    pub records_crc: u32,
    pub journal: JournalId,
    pub segment: u64,
    pub epoch: u64,
    pub first: Sequence,
    pub last: Sequence,
    pub records_bytes: u32,
    pub record_count: u32,
    pub unix_ns: u64,
    pub digest: B256,
}

/// What a group must continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub journal: JournalId,
    pub segment: u64,
    pub epoch: u64,
    pub next: Sequence,
    pub digest: B256,
}

/// Why bytes are no group, or not the one that follows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupFault {
    #[error("there is no group header")]
    NoHeader,
    #[error("the checksum of the group header does not hold: {found:#010x} there, {expected:#010x} computed")]
    HeaderCrc { found: u32, expected: u32 },
    #[error("the group belongs to another journal")]
    Journal,
    #[error("the group belongs to segment {found}, expected {expected}")]
    Segment { found: u64, expected: u64 },
    #[error("the group has epoch {found}, the one before {before}")]
    Epoch { found: u64, before: u64 },
    #[error("the group begins with sequence {found}, expected {expected}")]
    Sequence { found: u64, expected: u64 },
    #[error("the group follows {found}, the one before it is {expected}")]
    Digest { found: B256, expected: B256 },
    #[error("the group has {bytes} bytes of records, {room} are left in the slot")]
    Room { bytes: u64, room: u64 },
    #[error("the checksum of the records does not hold: {found:#010x} there, {expected:#010x} computed")]
    RecordsCrc { found: u32, expected: u32 },
    #[error("record {index} of the group, at byte {at} of its records: {error}")]
    Record { index: u32, at: usize, error: RecordError },
    #[error("record {index} of the group, at byte {at} of its records, has sequence {found}, expected {expected}")]
    RecordSequence { index: u32, at: usize, found: u64, expected: u64 },
    #[error("the group says {said} records up to sequence {last}, it holds {found}")]
    Count { said: u32, last: u64, found: u32 },
}

impl GroupHeader {
    /// Writes the header; returns its digest.
    pub fn encode(&self, out: &mut [u8; GROUP_HEADER_BYTES]) -> B256 {
        out.fill(0);
        out[..8].copy_from_slice(&MAGIC);
        out[12..16].copy_from_slice(&self.records_crc.to_le_bytes());
        out[16..32].copy_from_slice(&self.journal);
        out[32..40].copy_from_slice(&self.segment.to_le_bytes());
        out[40..48].copy_from_slice(&self.epoch.to_le_bytes());
        out[48..56].copy_from_slice(&self.first.0.to_le_bytes());
        out[56..64].copy_from_slice(&self.last.0.to_le_bytes());
        out[64..68].copy_from_slice(&self.records_bytes.to_le_bytes());
        out[68..72].copy_from_slice(&self.record_count.to_le_bytes());
        out[72..80].copy_from_slice(&self.unix_ns.to_le_bytes());
        out[80..112].copy_from_slice(self.digest.as_slice());
        let crc = crc32c::crc32c(&out[12..]);
        out[8..12].copy_from_slice(&crc.to_le_bytes());
        keccak256(&out[..])
    }

    /// Reads a header and checks its checksum, nothing else.
    ///
    /// # Errors
    /// `NoHeader`, `HeaderCrc`.
    pub fn read(bytes: &[u8]) -> Result<Self, GroupFault> {
        let header = bytes.first_chunk::<GROUP_HEADER_BYTES>().ok_or(GroupFault::NoHeader)?;
        if header[..8] != MAGIC {
            return Err(GroupFault::NoHeader);
        }
        let (found, expected) = (u32_at(header, 8), crc32c::crc32c(&header[12..]));
        if found != expected {
            return Err(GroupFault::HeaderCrc { found, expected });
        }
        Ok(Self {
            records_crc: u32_at(header, 12),
            journal: array_at(header, 16),
            segment: u64_at(header, 32),
            epoch: u64_at(header, 40),
            first: Sequence(u64_at(header, 48)),
            last: Sequence(u64_at(header, 56)),
            records_bytes: u32_at(header, 64),
            record_count: u32_at(header, 68),
            unix_ns: u64_at(header, 72),
            digest: B256::from(array_at(header, 80)),
        })
    }

    /// Bytes that the group takes in its slot.
    #[must_use]
    pub fn padded_bytes(&self) -> u64 {
        padded_bytes(self.records_bytes as usize) as u64
    }
}

/// Bytes of a group with so many bytes of records.
#[must_use]
pub fn padded_bytes(records_bytes: usize) -> usize {
    (GROUP_HEADER_BYTES + records_bytes).next_multiple_of(BLOCK_BYTES)
}

/// Checks the group that `bytes` begins with to its last record; returns its header and its digest.
///
/// # Errors
/// The first thing that is not right.
pub fn check(bytes: &[u8], expected: &Expected) -> Result<(GroupHeader, B256), GroupFault> {
    let header = GroupHeader::read(bytes)?;
    if header.journal != expected.journal {
        return Err(GroupFault::Journal);
    }
    if header.segment != expected.segment {
        return Err(GroupFault::Segment { found: header.segment, expected: expected.segment });
    }
    if header.first != expected.next {
        return Err(GroupFault::Sequence { found: header.first.0, expected: expected.next.0 });
    }
    if header.epoch < expected.epoch {
        return Err(GroupFault::Epoch { found: header.epoch, before: expected.epoch });
    }
    if header.digest != expected.digest {
        return Err(GroupFault::Digest { found: header.digest, expected: expected.digest });
    }
    let end = GROUP_HEADER_BYTES + header.records_bytes as usize;
    let room = bytes.len().saturating_sub(GROUP_HEADER_BYTES) as u64;
    let records =
        bytes.get(GROUP_HEADER_BYTES..end).ok_or(GroupFault::Room { bytes: u64::from(header.records_bytes), room })?;
    let crc = crc32c::crc32c(records);
    if crc != header.records_crc {
        return Err(GroupFault::RecordsCrc { found: header.records_crc, expected: crc });
    }
    check_records(records, &header)?;
    Ok((header, keccak256(&bytes[..GROUP_HEADER_BYTES])))
}

fn check_records(records: &[u8], header: &GroupHeader) -> Result<(), GroupFault> {
    let (mut at, mut count) = (0, 0);
    while at < records.len() {
        let outline = whole_record(&records[at..]).map_err(|error| GroupFault::Record { index: count, at, error })?;
        let (found, expected) = (outline.sequence.0, header.first.0.wrapping_add(u64::from(count)));
        if found != expected {
            return Err(GroupFault::RecordSequence { index: count, at, found, expected });
        }
        at += outline.len;
        count += 1;
    }
    let last = header.first.0.wrapping_add(u64::from(count)).wrapping_sub(1);
    if count == 0 || count != header.record_count || last != header.last.0 {
        return Err(GroupFault::Count { said: header.record_count, last: header.last.0, found: count });
    }
    Ok(())
}

/// The record that `bytes` begin with, when its checksum holds.
fn whole_record(bytes: &[u8]) -> Result<Outline, RecordError> {
    let Some(outline) = Outline::of(bytes) else {
        // Too short, or of no known type: the decoder says which.
        let said = bytes.first_chunk().map_or(0, |said| u32::from_le_bytes(*said));
        let record = bytes.get(..said as usize).unwrap_or(bytes);
        return Err(Record::decode(record).err().unwrap_or(RecordError::Length { said, actual: bytes.len() }));
    };
    verify_checksum(&bytes[..outline.len])?;
    Ok(outline)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::{CloseReason, seal_checksum};

    #[test]
    fn every_flipped_bit_of_header_and_records_is_seen() {
        let mut records = Vec::new();
        for sequence in 5..8 {
            let start = records.len();
            let record = Record::Closed { number: sequence, tx_count: 1, reason: CloseReason::Full };
            record.encode(Sequence(sequence), &mut records);
            seal_checksum(&mut records[start..]);
        }
        let header = GroupHeader {
            records_crc: crc32c::crc32c(&records),
            journal: [9; 16],
            segment: 4,
            epoch: 2,
            first: Sequence(5),
            last: Sequence(7),
            records_bytes: records.len() as u32,
            record_count: 3,
            unix_ns: 1,
            digest: B256::repeat_byte(3),
        };
        let mut bytes = [0; GROUP_HEADER_BYTES].to_vec();
        let mut encoded = [0; GROUP_HEADER_BYTES];
        let digest = header.encode(&mut encoded);
        bytes.copy_from_slice(&encoded);
        bytes.extend_from_slice(&records);
        let expected =
            Expected { journal: header.journal, segment: 4, epoch: 1, next: Sequence(5), digest: header.digest };
        assert_eq!(check(&bytes, &expected), Ok((header, digest)));
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&flipped, &expected).is_err(), "bit {bit}");
        }
        for other in [
            Expected { journal: [8; 16], ..expected },
            Expected { segment: 5, ..expected },
            Expected { epoch: 3, ..expected },
            Expected { next: Sequence(6), ..expected },
            Expected { digest: B256::ZERO, ..expected },
        ] {
            assert!(check(&bytes, &other).is_err());
        }
    }
}
