//! Byte layout of the records in `headers`, `bodies` and `receipts`. Pure: slices in, slices out. All integers little-endian.
//!
//! Head record (file `headers`), total rounded up to 8 bytes with zeros, everything from byte 8 to the rounded end under the checksum:
//!
//! ```text
//! offset  bytes  field
//! 0       4      magic "HEAD", or "ROLL": from here on only `number` blocks exist (all other fields zero)
//! 4       4      crc32c of bytes 8..end
//! 8       8      block number (ROLL: block count that remains)
//! 16      32     block hash
//! 48      8      offset of the body record in `bodies`
//! 56      8      offset of the receipt record in `receipts`
//! 64      4      transaction count
//! 68      4      header RLP length
//! 72      4      withdrawals RLP length
//! 76      4      requests RLP length; 0: none
//! 80      ..     header RLP, withdrawals RLP, requests RLP
//! ```
//!
//! Body record (file `bodies`) and receipt record (file `receipts`):
//!
//! ```text
//! offset  bytes  field
//! 0       4      magic "BODY" or "RCPT"
//! 4       4      crc32c of bytes 8..64
//! 8       8      block number
//! 16      32     block hash
//! 48      4      transaction count n
//! 52      4      length of the items together
//! 56      4      length of the log filter (receipts; zero in bodies)
//! 60      4      zero
//! 64      60·n   body rows, or 12·n receipt rows
//! ..      ..     items, then the log filter, then zeros up to a multiple of 8
//! ```
//!
//! Body row: transaction hash 32, sender 20, end of the item 4, crc 4. Receipt row: end of the item 4, logs up to and including this
//! receipt 4, crc 4. A row's checksum covers block number, index, the end (and log count) of the row before it, the row itself
//! and the item's bytes, so one transaction is read and checked without touching the rest of its block.

use crate::primitives::{Address, B256, Span};

pub(super) const HEAD_MAGIC: u32 = u32::from_le_bytes(*b"HEAD");
pub(super) const ROLL_MAGIC: u32 = u32::from_le_bytes(*b"ROLL");
const BODY_MAGIC: u32 = u32::from_le_bytes(*b"BODY");
const RECEIPT_MAGIC: u32 = u32::from_le_bytes(*b"RCPT");

pub(super) const HEAD_BYTES: u64 = 80;
pub(super) const TABLE_BYTES: u64 = 64;
pub(super) const BODY_ROW_BYTES: u64 = 60;
pub(super) const RECEIPT_ROW_BYTES: u64 = 12;

/// The fixed part of a head record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub magic: u32,
    pub number: u64,
    pub hash: B256,
    pub body_offset: u64,
    pub receipts_offset: u64,
    pub tx_count: u32,
    pub header_bytes: u32,
    pub withdrawals_bytes: u32,
    pub requests_bytes: u32,
}

/// Which of the two files with one row per transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableKind {
    Body,
    Receipts,
}

/// The fixed part of a body or receipt record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub kind: TableKind,
    pub number: u64,
    pub hash: B256,
    pub tx_count: u32,
    pub items_bytes: u32,
    pub filter_bytes: u32,
}

/// A row of a body record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyRow {
    pub hash: B256,
    pub sender: Address,
    pub item: Span,
}

/// A row of a receipt record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiptRow {
    pub item: Span,
    /// Logs of the block before this receipt's first one.
    pub log_start: u32,
    pub log_end: u32,
}

/// Names a row under its checksum: a row copied to another place does not check.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowPlace {
    pub number: u64,
    pub index: u32,
}

impl Head {
    pub(super) fn rollback(block_count: u64) -> Head {
        Head {
            magic: ROLL_MAGIC,
            number: block_count,
            hash: B256::ZERO,
            body_offset: 0,
            receipts_offset: 0,
            tx_count: 0,
            header_bytes: 0,
            withdrawals_bytes: 0,
            requests_bytes: 0,
        }
    }

    /// Bytes of the whole record in the file.
    pub(super) fn record_bytes(&self) -> u64 {
        let parts = [self.header_bytes, self.withdrawals_bytes, self.requests_bytes];
        padded(HEAD_BYTES + parts.into_iter().map(u64::from).sum::<u64>())
    }

    /// Appends the whole record to `out`.
    pub(super) fn encode(&self, header_rlp: &[u8], withdrawals_rlp: &[u8], requests_rlp: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.magic.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(self.hash.as_slice());
        out.extend_from_slice(&self.body_offset.to_le_bytes());
        out.extend_from_slice(&self.receipts_offset.to_le_bytes());
        out.extend_from_slice(&self.tx_count.to_le_bytes());
        out.extend_from_slice(&self.header_bytes.to_le_bytes());
        out.extend_from_slice(&self.withdrawals_bytes.to_le_bytes());
        out.extend_from_slice(&self.requests_bytes.to_le_bytes());
        out.extend_from_slice(header_rlp);
        out.extend_from_slice(withdrawals_rlp);
        out.extend_from_slice(requests_rlp);
        out.resize(start + self.record_bytes() as usize, 0);
        let crc = crc32c::crc32c(&out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the fixed part; nothing is checked but the magic.
    pub(super) fn decode(bytes: &[u8]) -> Result<Head, &'static str> {
        let magic = u32_at(bytes, 0);
        if magic != HEAD_MAGIC && magic != ROLL_MAGIC {
            return Err("not a head record");
        }
        Ok(Head {
            magic,
            number: u64_at(bytes, 8),
            hash: B256::from_slice(&bytes[16..48]),
            body_offset: u64_at(bytes, 48),
            receipts_offset: u64_at(bytes, 56),
            tx_count: u32_at(bytes, 64),
            header_bytes: u32_at(bytes, 68),
            withdrawals_bytes: u32_at(bytes, 72),
            requests_bytes: u32_at(bytes, 76),
        })
    }

    /// Whether the checksum of the whole record holds. `record` is `record_bytes` long.
    pub(super) fn check(record: &[u8]) -> Result<(), &'static str> {
        if crc32c::crc32c(&record[8..]) == u32_at(record, 4) { Ok(()) } else { Err("checksum of head record") }
    }
}

impl TableKind {
    pub(super) fn row_bytes(self) -> u64 {
        match self {
            TableKind::Body => BODY_ROW_BYTES,
            TableKind::Receipts => RECEIPT_ROW_BYTES,
        }
    }

    fn magic(self) -> u32 {
        match self {
            TableKind::Body => BODY_MAGIC,
            TableKind::Receipts => RECEIPT_MAGIC,
        }
    }
}

impl Table {
    /// Where the items start, relative to the record.
    pub(super) fn items_at(&self) -> u64 {
        TABLE_BYTES + u64::from(self.tx_count) * self.kind.row_bytes()
    }

    /// Where the log filter starts, relative to the record.
    pub(super) fn filter_at(&self) -> u64 {
        self.items_at() + u64::from(self.items_bytes)
    }

    /// Bytes of the whole record in the file.
    pub(super) fn record_bytes(&self) -> u64 {
        padded(self.filter_at() + u64::from(self.filter_bytes))
    }

    pub(super) fn encode(&self) -> [u8; TABLE_BYTES as usize] {
        let mut out = [0; TABLE_BYTES as usize];
        out[..4].copy_from_slice(&self.kind.magic().to_le_bytes());
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..48].copy_from_slice(self.hash.as_slice());
        out[48..52].copy_from_slice(&self.tx_count.to_le_bytes());
        out[52..56].copy_from_slice(&self.items_bytes.to_le_bytes());
        out[56..60].copy_from_slice(&self.filter_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads and checks the fixed part.
    pub(super) fn decode(kind: TableKind, bytes: &[u8]) -> Result<Table, &'static str> {
        if u32_at(bytes, 0) != kind.magic() {
            return Err("not a record of this file");
        }
        if crc32c::crc32c(&bytes[8..TABLE_BYTES as usize]) != u32_at(bytes, 4) {
            return Err("checksum of record start");
        }
        Ok(Table {
            kind,
            number: u64_at(bytes, 8),
            hash: B256::from_slice(&bytes[16..48]),
            tx_count: u32_at(bytes, 48),
            items_bytes: u32_at(bytes, 52),
            filter_bytes: u32_at(bytes, 56),
        })
    }
}

/// Appends a body row. The item starts at `row.item.start`, where the row before it ends.
pub(super) fn encode_body_row(place: RowPlace, row: &BodyRow, item: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(row.hash.as_slice());
    out.extend_from_slice(row.sender.as_slice());
    out.extend_from_slice(&(row.item.start + row.item.len).to_le_bytes());
    let crc = body_row_crc(place, row.item.start, &out[start..], item);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Reads a body row without checking it; `start` is the end of the row before, 0 for the first.
pub(super) fn decode_body_row(row: &[u8], start: u32) -> Result<BodyRow, &'static str> {
    let end = u32_at(row, 52);
    let len = end.checked_sub(start).ok_or("body row ends before it starts")?;
    Ok(BodyRow {
        hash: B256::from_slice(&row[..32]),
        sender: Address::from_slice(&row[32..52]),
        item: Span { start, len },
    })
}

pub(super) fn check_body_row(place: RowPlace, start: u32, row: &[u8], item: &[u8]) -> Result<(), &'static str> {
    if body_row_crc(place, start, &row[..56], item) == u32_at(row, 56) {
        Ok(())
    } else {
        Err("checksum of transaction")
    }
}

fn body_row_crc(place: RowPlace, start: u32, fields: &[u8], item: &[u8]) -> u32 {
    let mut covered = [0; 16 + 56];
    covered[..8].copy_from_slice(&place.number.to_le_bytes());
    covered[8..12].copy_from_slice(&place.index.to_le_bytes());
    covered[12..16].copy_from_slice(&start.to_le_bytes());
    covered[16..].copy_from_slice(fields);
    crc32c::crc32c_append(crc32c::crc32c(&covered), item)
}

/// Appends a receipt row.
pub(super) fn encode_receipt_row(place: RowPlace, row: &ReceiptRow, item: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&(row.item.start + row.item.len).to_le_bytes());
    out.extend_from_slice(&row.log_end.to_le_bytes());
    let crc = receipt_row_crc(place, row.item.start, row.log_start, &out[start..], item);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Reads a receipt row without checking it; `before` is the end and the log count of the row before, zeros for the first.
pub(super) fn decode_receipt_row(row: &[u8], before: (u32, u32)) -> Result<ReceiptRow, &'static str> {
    let (start, log_start) = before;
    let len = u32_at(row, 0).checked_sub(start).ok_or("receipt row ends before it starts")?;
    let log_end = u32_at(row, 4);
    if log_end < log_start {
        return Err("receipt row counts logs backwards");
    }
    Ok(ReceiptRow { item: Span { start, len }, log_start, log_end })
}

pub(super) fn check_receipt_row(
    place: RowPlace,
    before: (u32, u32),
    row: &[u8],
    item: &[u8],
) -> Result<(), &'static str> {
    let crc = receipt_row_crc(place, before.0, before.1, &row[..8], item);
    if crc == u32_at(row, 8) { Ok(()) } else { Err("checksum of receipt") }
}

fn receipt_row_crc(place: RowPlace, start: u32, log_start: u32, fields: &[u8], item: &[u8]) -> u32 {
    let mut covered = [0; 20 + 8];
    covered[..8].copy_from_slice(&place.number.to_le_bytes());
    covered[8..12].copy_from_slice(&place.index.to_le_bytes());
    covered[12..16].copy_from_slice(&start.to_le_bytes());
    covered[16..20].copy_from_slice(&log_start.to_le_bytes());
    covered[20..].copy_from_slice(fields);
    crc32c::crc32c_append(crc32c::crc32c(&covered), item)
}

/// Rounds up to the alignment of records.
pub(super) fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(super::map::RECORD_ALIGN_BYTES)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
