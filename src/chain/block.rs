//! One stored block, read from the maps and checked against its checksums as it is read.

use std::sync::Arc;

use super::error::ChainError;
use super::filter::{LINE_BYTES, LogQuery, check_line};
use super::reader::State;
use super::receipt::{Receipt, ReceiptRef};
use super::record::{
    BODY_ROW_BYTES, BodyRow, HEAD_BYTES, Head, RECEIPT_ROW_BYTES, ReceiptRow, RowPlace, TABLE_BYTES, Table, TableKind,
    check_body_row, check_receipt_row, decode_body_row, decode_receipt_row, u32_at,
};
use crate::primitives::{Address, B256, Span};

/// A block of the chain database. Keeps the maps it reads from alive; slices borrow from them.
#[derive(Clone)]
pub struct StoredBlock {
    state: Arc<State>,
    head: Head,
    head_at: u64,
    body: Table,
    receipts: Table,
}

/// A transaction of a stored block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredTx<'a> {
    /// EIP-2718 encoding: type byte and payload, or the RLP list of a legacy transaction.
    pub raw: &'a [u8],
    pub hash: B256,
    pub sender: Address,
}

/// A receipt of a stored block, logs still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredReceipt<'a> {
    pub receipt: ReceiptRef<'a>,
    /// Logs of the block before this receipt's first one: its first `logIndex`.
    pub log_index_start: u32,
}

impl StoredBlock {
    pub(super) fn open(state: Arc<State>, head: Head, head_at: u64) -> Result<StoredBlock, ChainError> {
        let body = BodyReader::open(&state, &head)?.table;
        let receipts = ReceiptsReader::open(&state, &head)?.table;
        Ok(StoredBlock { state, head, head_at, body, receipts })
    }

    #[must_use]
    pub fn number(&self) -> u64 {
        self.head.number
    }

    #[must_use]
    pub fn hash(&self) -> B256 {
        self.head.hash
    }

    #[must_use]
    pub fn tx_count(&self) -> u32 {
        self.head.tx_count
    }

    pub fn header_rlp(&self) -> Result<&[u8], ChainError> {
        self.state.headers.bytes(self.head_at + HEAD_BYTES, u64::from(self.head.header_bytes))
    }

    /// The withdrawals' RLP list; empty for a block without that field.
    pub fn withdrawals_rlp(&self) -> Result<&[u8], ChainError> {
        let at = self.head_at + HEAD_BYTES + u64::from(self.head.header_bytes);
        self.state.headers.bytes(at, u64::from(self.head.withdrawals_bytes))
    }

    /// RLP list of the EIP-7685 requests, type byte first; empty when there are none.
    pub fn requests_rlp(&self) -> Result<&[u8], ChainError> {
        let before = u64::from(self.head.header_bytes) + u64::from(self.head.withdrawals_bytes);
        self.state.headers.bytes(self.head_at + HEAD_BYTES + before, u64::from(self.head.requests_bytes))
    }

    /// A transaction, checked; `None` when the block has no such index.
    pub fn tx(&self, index: u32) -> Result<Option<StoredTx<'_>>, ChainError> {
        if index >= self.head.tx_count {
            return Ok(None);
        }
        let reader = self.body_reader();
        let row = reader.row(index)?;
        let item = reader.item(&row)?;
        let raw = typed_payload(item).ok_or_else(|| reader.damaged(index, "transaction is not an RLP item"))?;
        Ok(Some(StoredTx { raw, hash: row.hash, sender: row.sender }))
    }

    /// All transactions, in order.
    pub fn txs(&self) -> impl Iterator<Item = Result<StoredTx<'_>, ChainError>> {
        (0..self.head.tx_count).map_while(|index| self.tx(index).transpose())
    }

    /// A receipt, decoded and copied; `None` when the block has no such index.
    pub fn receipt(&self, index: u32) -> Result<Option<Receipt>, ChainError> {
        let Some(stored) = self.receipt_ref(index)? else { return Ok(None) };
        let damaged = || self.receipts_reader().damaged(index, "compact receipt");
        stored.receipt.to_owned().map(Some).map_err(|_| damaged())
    }

    /// A receipt without copying its logs; `None` when the block has no such index.
    pub fn receipt_ref(&self, index: u32) -> Result<Option<StoredReceipt<'_>>, ChainError> {
        if index >= self.head.tx_count {
            return Ok(None);
        }
        let reader = self.receipts_reader();
        let row = reader.row(index)?;
        let receipt = ReceiptRef::decode(reader.item(&row)?).map_err(|_| reader.damaged(index, "compact receipt"))?;
        Ok(Some(StoredReceipt { receipt, log_index_start: row.log_start }))
    }

    /// All receipts, in order.
    pub fn receipts(&self) -> impl Iterator<Item = Result<StoredReceipt<'_>, ChainError>> {
        (0..self.head.tx_count).map_while(|index| self.receipt_ref(index).transpose())
    }

    /// The transaction list's items as in the block's RLP, without the list header. Not checked row by row.
    pub fn body(&self) -> Result<&[u8], ChainError> {
        self.state.bodies.bytes(self.head.body_offset + self.body.items_at(), u64::from(self.body.items_bytes))
    }

    /// Appends the block's RLP: `[header, transactions, ommers, withdrawals]`. Every transaction is checked first.
    pub fn block_rlp(&self, out: &mut Vec<u8>) -> Result<(), ChainError> {
        let reader = self.body_reader();
        for index in 0..self.head.tx_count {
            reader.row(index)?;
        }
        let (header, body, withdrawals) = (self.header_rlp()?, self.body()?, self.withdrawals_rlp()?);
        let list = |payload_length| alloy_rlp::Header { list: true, payload_length };
        let body_bytes = list(body.len()).length_with_payload();
        list(header.len() + body_bytes + 1 + withdrawals.len()).encode(out);
        out.extend_from_slice(header);
        list(body.len()).encode(out);
        out.extend_from_slice(body);
        out.push(alloy_rlp::EMPTY_LIST_CODE); // ommers: none since the merge
        out.extend_from_slice(withdrawals);
        Ok(())
    }

    /// Whether the block can have logs that a query asks for, by the block's own filter.
    pub fn may_have_logs(&self, query: &LogQuery) -> Result<bool, ChainError> {
        self.receipts_reader().may_have_logs(query)
    }

    fn body_reader(&self) -> BodyReader<'_> {
        BodyReader { state: &self.state, at: self.head.body_offset, table: self.body }
    }

    fn receipts_reader(&self) -> ReceiptsReader<'_> {
        ReceiptsReader { state: &self.state, at: self.head.receipts_offset, table: self.receipts }
    }
}

/// Reads rows of one body record.
pub(super) struct BodyReader<'a> {
    state: &'a State,
    at: u64,
    pub table: Table,
}

impl<'a> BodyReader<'a> {
    pub(super) fn open(state: &'a State, head: &Head) -> Result<BodyReader<'a>, ChainError> {
        let bytes = state.bodies.bytes(head.body_offset, TABLE_BYTES)?;
        let table = open_table(TableKind::Body, bytes, head)
            .map_err(|what| ChainError::corrupt(state.bodies.path(), head.body_offset, what))?;
        Ok(BodyReader { state, at: head.body_offset, table })
    }

    /// A row, checked together with its transaction. `index < tx_count`.
    pub(super) fn row(&self, index: u32) -> Result<BodyRow, ChainError> {
        let start = match index.checked_sub(1) {
            None => 0,
            Some(before) => u32_at(self.row_bytes(before)?, 52),
        };
        let bytes = self.row_bytes(index)?;
        let row = decode_body_row(bytes, start)
            .and_then(|row| check_span(row.item, &self.table).map(|()| row))
            .map_err(|what| self.damaged(index, what))?;
        let place = RowPlace { number: self.table.number, index };
        check_body_row(place, start, bytes, self.item(&row)?).map_err(|what| self.damaged(index, what))?;
        Ok(row)
    }

    pub(super) fn item(&self, row: &BodyRow) -> Result<&'a [u8], ChainError> {
        let at = self.at + self.table.items_at() + u64::from(row.item.start);
        self.state.bodies.bytes(at, u64::from(row.item.len))
    }

    fn row_bytes(&self, index: u32) -> Result<&'a [u8], ChainError> {
        self.state.bodies.bytes(self.row_at(index), BODY_ROW_BYTES)
    }

    fn row_at(&self, index: u32) -> u64 {
        self.at + TABLE_BYTES + u64::from(index) * BODY_ROW_BYTES
    }

    fn damaged(&self, index: u32, what: &'static str) -> ChainError {
        ChainError::corrupt(self.state.bodies.path(), self.row_at(index), what)
    }
}

/// Reads rows of one receipt record.
pub(super) struct ReceiptsReader<'a> {
    state: &'a State,
    at: u64,
    pub table: Table,
}

impl<'a> ReceiptsReader<'a> {
    pub(super) fn open(state: &'a State, head: &Head) -> Result<ReceiptsReader<'a>, ChainError> {
        let bytes = state.receipts.bytes(head.receipts_offset, TABLE_BYTES)?;
        let table = open_table(TableKind::Receipts, bytes, head)
            .map_err(|what| ChainError::corrupt(state.receipts.path(), head.receipts_offset, what))?;
        Ok(ReceiptsReader { state, at: head.receipts_offset, table })
    }

    /// A row, checked together with its receipt. `index < tx_count`.
    pub(super) fn row(&self, index: u32) -> Result<ReceiptRow, ChainError> {
        let before = match index.checked_sub(1) {
            None => (0, 0),
            Some(before) => {
                let bytes = self.row_bytes(before)?;
                (u32_at(bytes, 0), u32_at(bytes, 4))
            }
        };
        let bytes = self.row_bytes(index)?;
        let row = decode_receipt_row(bytes, before)
            .and_then(|row| check_span(row.item, &self.table).map(|()| row))
            .map_err(|what| self.damaged(index, what))?;
        let place = RowPlace { number: self.table.number, index };
        check_receipt_row(place, before, bytes, self.item(&row)?).map_err(|what| self.damaged(index, what))?;
        Ok(row)
    }

    pub(super) fn item(&self, row: &ReceiptRow) -> Result<&'a [u8], ChainError> {
        let at = self.at + self.table.items_at() + u64::from(row.item.start);
        self.state.receipts.bytes(at, u64::from(row.item.len))
    }

    pub(super) fn may_have_logs(&self, query: &LogQuery) -> Result<bool, ChainError> {
        query.matches_filter(self.filter_line_count(), |index| self.filter_line(index))
    }

    /// Checks every line of the log filter.
    pub(super) fn check_filter(&self) -> Result<(), ChainError> {
        (0..self.filter_line_count()).try_for_each(|index| self.filter_line(index).map(|_| ()))
    }

    fn filter_line_count(&self) -> u64 {
        u64::from(self.table.filter_bytes) / LINE_BYTES as u64
    }

    fn filter_line(&self, index: u64) -> Result<[u8; LINE_BYTES], ChainError> {
        let at = self.at + self.table.filter_at() + index * LINE_BYTES as u64;
        let mut line = [0; LINE_BYTES];
        line.copy_from_slice(self.state.receipts.bytes(at, LINE_BYTES as u64)?);
        if check_line(index, &line) {
            Ok(line)
        } else {
            Err(ChainError::corrupt(self.state.receipts.path(), at, "checksum of log filter"))
        }
    }

    fn row_bytes(&self, index: u32) -> Result<&'a [u8], ChainError> {
        self.state.receipts.bytes(self.row_at(index), RECEIPT_ROW_BYTES)
    }

    fn row_at(&self, index: u32) -> u64 {
        self.at + TABLE_BYTES + u64::from(index) * RECEIPT_ROW_BYTES
    }

    fn damaged(&self, index: u32, what: &'static str) -> ChainError {
        ChainError::corrupt(self.state.receipts.path(), self.row_at(index), what)
    }
}

fn open_table(kind: TableKind, bytes: &[u8], head: &Head) -> Result<Table, &'static str> {
    let table = Table::decode(kind, bytes)?;
    if table.number != head.number || table.hash != head.hash || table.tx_count != head.tx_count {
        return Err("record of another block");
    }
    Ok(table)
}

/// Damage to a row's end is reported where the row is, not where it points.
fn check_span(item: Span, table: &Table) -> Result<(), &'static str> {
    let end = u64::from(item.start) + u64::from(item.len);
    if end <= u64::from(table.items_bytes) { Ok(()) } else { Err("row ends after the record") }
}

/// The EIP-2718 bytes of a block-body item: the payload of an RLP string, or the RLP list itself.
fn typed_payload(item: &[u8]) -> Option<&[u8]> {
    if *item.first()? >= alloy_rlp::EMPTY_LIST_CODE {
        return Some(item);
    }
    let mut rest = item;
    let payload = alloy_rlp::Header::decode_bytes(&mut rest, false).ok()?;
    rest.is_empty().then_some(payload)
}
