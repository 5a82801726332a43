//! From a block that was executed as a whole to what the chain database stores.

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_rlp::Encodable;

use super::receipt::{encode_head, encode_log};
use super::{BlockRecord, ChainError, ChainWriter, TxRecord};
use crate::builder::block_execution::{PreparedTx, Receipt};
use crate::primitives::{B256, Bytes, Span};

/// A block that somebody else made.
///
/// Shapes: `txs` and `receipts` are both `[n]`, same order.
pub struct ExecutedRecord<'a> {
    pub header: &'a Header,
    pub hash: B256,
    pub txs: &'a [PreparedTx],
    pub withdrawals: &'a [Withdrawal],
    pub receipts: &'a [Receipt],
    /// EIP-7685 requests, type byte first, empty ones left out.
    pub requests: &'a [Bytes],
}

/// Appends it. Its transactions were never in a pool, so they have no status.
///
/// # Errors
/// What the writer says; nothing is appended then.
pub fn append_executed(writer: &mut ChainWriter, block: &ExecutedRecord<'_>) -> Result<(), ChainError> {
    let ExecutedRecord { header, hash, txs, withdrawals, receipts: executed, requests } = *block;
    let (mut body, mut receipts, mut rows) = (Vec::new(), Vec::new(), Vec::with_capacity(txs.len()));
    for (tx, receipt) in txs.iter().zip(executed) {
        let (body_start, receipt_start) = (body.len(), receipts.len());
        if receipt.tx_type == 0 {
            body.extend_from_slice(&tx.raw);
        } else {
            tx.raw.encode(&mut body);
        }
        let fields = &tx.decoded.fields;
        let contract_address = fields.to.is_none().then(|| tx.sender.create(fields.nonce));
        encode_head(
            receipt.tx_type,
            receipt.success,
            receipt.cumulative_gas_used,
            receipt.gas_used,
            contract_address.as_ref(),
            receipt.logs.len() as u64,
            &mut receipts,
        );
        for log in &receipt.logs {
            encode_log(&log.address, log.topics().iter(), &log.data.data, &mut receipts);
        }
        rows.push(TxRecord {
            hash: alloy_primitives::keccak256(&tx.raw),
            sender: tx.sender,
            body_span: span(body_start, body.len()),
            receipt_span: span(receipt_start, receipts.len()),
        });
    }
    let mut withdrawals_rlp = Vec::new();
    alloy_rlp::encode_list(withdrawals, &mut withdrawals_rlp);
    let mut requests_rlp = Vec::new();
    if !requests.is_empty() {
        alloy_rlp::encode_list::<Bytes, Bytes>(requests, &mut requests_rlp);
    }
    writer.append(&BlockRecord {
        number: header.number,
        hash,
        header_rlp: &alloy_rlp::encode(header),
        body: &body,
        withdrawals_rlp: &withdrawals_rlp,
        requests_rlp: &requests_rlp,
        txs: &rows,
        receipts: &receipts,
    })
}

/// The writer refuses what does not fit 32 bits.
fn span(start: usize, end: usize) -> Span {
    Span { start: start as u32, len: (end - start) as u32 }
}
