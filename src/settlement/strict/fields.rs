//! The fields of an ExecuteTx beside Data: read, and compared with it.

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use alloy_rlp::Decodable;

use super::defect::Defect;
use crate::crypto::keccak::keccak256;
use crate::l1::execute_tx::Payload;
use crate::primitives::{B256, U256};
use crate::settlement::batch::{Batch, EXECUTE_TX_BYTES_MAX, FIELD_BYTES_MAX};
use crate::witness::Witness;
use crate::witness::rlp::split;
use crate::witness::validator::block::decode_header;

/// Everything of an ExecuteTx that execution needs beside its batch.
pub struct Fields {
    /// All of the witness, its field and the overflow.
    pub witness: Witness,
    /// How many of its nodes were in the field.
    pub field_nodes: usize,
    /// Descending from the block before the first, each the parent of the one before.
    pub headers: Vec<Header>,
    pub header_hashes: Vec<B256>,
    /// For each block of the batch.
    pub withdrawals: Vec<Vec<Withdrawal>>,
}

impl Fields {
    /// # Errors
    /// The first defect.
    pub fn read(payload: &Payload, batch: &Batch) -> Result<Self, Defect> {
        check_shape(payload)?;
        check_first_block(payload, batch)?;
        let withdrawals = withdrawals(payload, batch)?;
        let field = Witness::decode_run(&payload.witness)?;
        let headers = headers(payload, batch, &field)?;
        let header_hashes: Vec<B256> = headers.iter().map(|(_, hash)| *hash).collect();
        let overflow = &batch.overflow;
        let witness = Witness {
            headers: Vec::new(),
            codes: field.codes.iter().chain(&overflow.codes).cloned().collect(),
            state: field.state.iter().chain(&overflow.state).cloned().collect(),
        };
        let field_nodes = field.state.len();
        let headers = headers.into_iter().map(|(header, _)| header).collect();
        Ok(Self { witness, field_nodes, headers, header_hashes, withdrawals })
    }
}

fn check_shape(payload: &Payload) -> Result<(), Defect> {
    if let Some(to) = payload.to {
        return Err(Defect::Target { to });
    }
    if payload.value != U256::ZERO {
        return Err(Defect::Value);
    }
    for (field, bytes, bytes_max) in [
        ("Data", payload.data.len(), EXECUTE_TX_BYTES_MAX),
        ("Witness", payload.witness.len(), FIELD_BYTES_MAX),
        ("Withdrawals", payload.withdrawals.len(), FIELD_BYTES_MAX),
    ] {
        if bytes > bytes_max {
            return Err(Defect::FieldTooLong { field, bytes, bytes_max });
        }
    }
    Ok(())
}

fn check_first_block(payload: &Payload, batch: &Batch) -> Result<(), Defect> {
    let (Some(first), Some(last)) = (batch.blocks.first(), batch.blocks.last()) else { return Err(Defect::Anchor) };
    if payload.coinbase != first.coinbase {
        return Err(Defect::FirstBlock { field: "Coinbase" });
    }
    if payload.timestamp != first.timestamp {
        return Err(Defect::FirstBlock { field: "Timestamp" });
    }
    // Block 0 is the genesis, and numbers behind the last must exist.
    if payload.block_number == 0 || payload.block_number > u64::MAX - batch.blocks.len() as u64 {
        return Err(Defect::FirstBlock { field: "BlockNumber" });
    }
    if payload.anchor.as_ref() != last.origin.hash.as_slice() {
        return Err(Defect::Anchor);
    }
    Ok(())
}

fn withdrawals(payload: &Payload, batch: &Batch) -> Result<Vec<Vec<Withdrawal>>, Defect> {
    let fault_of = |fault| Defect::WithdrawalsRlp { fault };
    let defect = |what| Defect::Withdrawals { what };
    let (item, rest) = split(&payload.withdrawals).map_err(fault_of)?;
    let mut lists = item.list().map_err(fault_of)?;
    if !rest.is_empty() {
        return Err(defect("bytes stand behind the list"));
    }
    let mut all = Vec::with_capacity(batch.blocks.len());
    for block in &batch.blocks {
        if lists.is_empty() {
            return Err(defect("there are fewer lists than blocks"));
        }
        let (item, after) = split(lists).map_err(fault_of)?;
        let mut rest = item.list().map_err(fault_of)?;
        lists = after;
        if block.hash.is_none() && !rest.is_empty() {
            return Err(defect("a block that goes on has some: they are made at its end"));
        }
        let mut own = Vec::new();
        while !rest.is_empty() {
            let (item, after) = split(rest).map_err(fault_of)?;
            let withdrawal = Withdrawal::decode(&mut &*item.encoded).map_err(|_| defect("one does not decode"))?;
            if alloy_rlp::encode(withdrawal) != item.encoded {
                return Err(defect("one has another encoding than its own"));
            }
            own.push(withdrawal);
            rest = after;
        }
        all.push(own);
    }
    if lists.is_empty() { Ok(all) } else { Err(defect("there are more lists than blocks")) }
}

/// The headers of the field and the overflow, each the parent of the one before.
fn headers(payload: &Payload, batch: &Batch, field: &Witness) -> Result<Vec<(Header, B256)>, Defect> {
    let mut headers: Vec<(Header, B256)> = Vec::new();
    for (index, rlp) in field.headers.iter().chain(&batch.overflow.headers).enumerate() {
        let hash = keccak256(rlp);
        if headers.last().is_some_and(|(before, _)| before.parent_hash != hash) {
            return Err(Defect::HeaderUnlinked { index });
        }
        let header = decode_header(rlp).map_err(|what| Defect::HeaderMalformed { index, what })?;
        let expected = payload.block_number.checked_sub(1 + index as u64);
        if expected != Some(header.number) {
            return Err(Defect::HeaderNumber { number: header.number, block: payload.block_number });
        }
        headers.push((header, hash));
    }
    let begins_inside = batch.blocks.first().is_some_and(|block| block.continued.is_some());
    if begins_inside {
        let at_pre_state = headers.iter().position(|(header, _)| header.state_root == payload.pre_state_root);
        return at_pre_state.map_or(Ok(headers), |index| Err(Defect::HeaderAtPreState { index }));
    }
    match headers.first() {
        Some((parent, _)) if !field.headers.is_empty() => {
            if parent.state_root != payload.pre_state_root {
                return Err(Defect::ParentRoot { header: parent.state_root, payload: payload.pre_state_root });
            }
            Ok(headers)
        }
        _ => Err(Defect::ParentMissing),
    }
}
