//! Blocks, transactions and receipts as clients read them, and their consensus bytes.

use alloy_primitives::{Bloom, Log};
use alloy_rlp::{Encodable, Header as RlpHeader};
use serde_json::{Value, json};

use super::quantity;
use crate::builder::block_execution::receipts_root;
use crate::builder::sealing::{ReceiptFacts, encode_receipt};
use crate::dev_l1::block::{Block, consensus_receipt};
use crate::dev_l1::config::Mode;
use crate::dev_l1::node::Node;
use crate::dev_l1::transaction::{Body, L1Tx};
use crate::primitives::{B256, Bytes, U256};
use crate::rpc::encode;
use crate::rpc::source::TxView;
use crate::state::AccountProof;

pub fn header(node: &Node, hash: &B256) -> Option<Value> {
    let mut out = Vec::new();
    encode::header(node.chain.header(hash)?, *hash, &mut out);
    // What the encoder writes is JSON.
    serde_json::from_slice(&out).ok()
}

pub fn block(node: &Node, block: &Block, is_full: bool) -> Value {
    let mut object = header(node, &block.hash).unwrap_or(Value::Null);
    let whole = |(index, tx): (usize, &L1Tx)| transaction(node, tx, Some((block, index)));
    object["transactions"] = match is_full {
        true => block.txs.iter().enumerate().map(whole).collect(),
        false => block.txs.iter().map(|tx| json!(tx.hash)).collect(),
    };
    object["size"] = quantity(block_rlp(block).len() as u64);
    object["uncles"] = json!([]);
    object["withdrawals"] = json!([]);
    object
}

/// A transaction, mined at a place or waiting. In `compat` an ExecuteTx loses what the L1 node's own object loses.
pub fn transaction(node: &Node, tx: &L1Tx, mined: Option<(&Block, usize)>) -> Value {
    let mut object = match (&tx.body, node.chain.config().mode) {
        (Body::Ordinary(_), _) => ordinary(tx),
        (Body::Execute(execute), Mode::Strict) => execute.to_json(),
        (Body::Execute(execute), Mode::Compat) => {
            let all = execute.to_json();
            let kept = ["hash", "from", "nonce", "gas", "value", "input", "type", "v", "r", "s"];
            let mut object: Value = kept.iter().map(|name| ((*name).to_owned(), all[*name].clone())).collect();
            object["to"] = json!(execute.callee());
            object
        }
    };
    let is_compat = tx.execute().is_some() && node.chain.config().mode == Mode::Compat;
    let price_wei = match mined {
        Some((block, _)) if !is_compat => tx.effective_price_wei(block.header.base_fee_per_gas.unwrap_or(0)),
        _ => tx.fee_cap_wei(),
    };
    object["gasPrice"] = quantity(price_wei);
    let place = mined.map(|(block, index)| {
        (json!(block.hash), quantity(block.header.number), quantity(index as u64), quantity(block.header.timestamp))
    });
    let (hash, number, index, timestamp) = place.unwrap_or_default();
    object["blockHash"] = hash;
    object["transactionIndex"] = index;
    object["blockTimestamp"] = timestamp;
    // An ExecuteTx has a block number of its own, that of L2: it is moved aside.
    if tx.execute().is_some() && !is_compat {
        object["l2BlockNumber"] = object["blockNumber"].clone();
    }
    object["blockNumber"] = number;
    object
}

fn ordinary(tx: &L1Tx) -> Value {
    let mut out = Vec::new();
    let view = TxView { raw: &tx.raw, hash: tx.hash, sender: tx.sender };
    match encode::transaction(&view, None, &mut out) {
        Ok(()) => serde_json::from_slice(&out).unwrap_or(Value::Null),
        Err(error) => json!({ "hash": tx.hash, "error": error.message }),
    }
}

pub fn receipt(block: &Block, index: usize) -> Value {
    let (tx, receipt) = (&block.txs[index], &block.receipts[index]);
    let first_log: usize = block.receipts[..index].iter().map(|receipt| receipt.logs.len()).sum();
    let logs: Vec<Value> =
        receipt.logs.iter().enumerate().map(|(offset, entry)| log(block, index, first_log + offset, entry)).collect();
    json!({
        "transactionHash": tx.hash,
        "transactionIndex": quantity(index as u64),
        "blockHash": block.hash,
        "blockNumber": quantity(block.header.number),
        "from": tx.sender,
        "to": tx.callee(),
        "cumulativeGasUsed": quantity(receipt.cumulative_gas_used),
        "gasUsed": quantity(receipt.gas_used),
        "effectiveGasPrice": quantity(tx.effective_price_wei(block.header.base_fee_per_gas.unwrap_or(0))),
        "contractAddress": receipt.contract_address,
        "logs": logs,
        "logsBloom": bloom(&receipt.logs),
        "status": quantity(u64::from(receipt.success)),
        "type": quantity(u64::from(receipt.tx_type)),
    })
}

pub fn log(block: &Block, tx_index: usize, log_index: usize, entry: &Log) -> Value {
    json!({
        "address": entry.address,
        "topics": entry.topics(),
        "data": entry.data.data,
        "blockNumber": quantity(block.header.number),
        "blockHash": block.hash,
        "blockTimestamp": quantity(block.header.timestamp),
        "transactionHash": block.txs[tx_index].hash,
        "transactionIndex": quantity(tx_index as u64),
        "logIndex": quantity(log_index as u64),
        "removed": false,
    })
}

fn bloom(logs: &[Log]) -> Bloom {
    let mut bloom = Bloom::ZERO;
    logs.iter().for_each(|entry| bloom.accrue_log(entry));
    bloom
}

/// Header, transactions, no uncles, no withdrawals.
pub fn block_rlp(block: &Block) -> Bytes {
    let list_bytes = |tx: &L1Tx| if tx.tx_type() == 0 { tx.raw.len() } else { tx.raw.length() };
    let txs = RlpHeader { list: true, payload_length: block.txs.iter().map(list_bytes).sum() };
    let payload_length = block.header.length() + txs.length_with_payload() + 2;
    let mut out = Vec::with_capacity(payload_length + 9);
    RlpHeader { list: true, payload_length }.encode(&mut out);
    block.header.encode(&mut out);
    txs.encode(&mut out);
    for tx in &block.txs {
        match tx.tx_type() {
            0 => out.extend_from_slice(&tx.raw),
            _ => tx.raw.encode(&mut out),
        }
    }
    out.extend_from_slice(&[alloy_rlp::EMPTY_LIST_CODE; 2]);
    out.into()
}

/// The receipts as the receipts root covers them: type byte, then RLP.
pub fn receipts_2718(block: &Block) -> Vec<Bytes> {
    let encoded: Vec<Bytes> = block
        .receipts
        .iter()
        .map(|receipt| {
            let mut out = Vec::new();
            let facts = ReceiptFacts {
                tx_type: receipt.tx_type,
                success: receipt.success,
                cumulative_gas_used: receipt.cumulative_gas_used,
            };
            encode_receipt(&mut out, facts, &bloom(&receipt.logs), receipt.logs.iter());
            out.into()
        })
        .collect();
    debug_assert_eq!(
        receipts_root(&block.receipts.iter().map(consensus_receipt).collect::<Vec<_>>()).0,
        block.header.receipts_root
    );
    encoded
}

pub fn proof(proof: &AccountProof) -> Value {
    let account = proof.account;
    let storage: Vec<Value> = proof
        .storage
        .iter()
        .map(|slot| json!({ "key": B256::from(slot.slot), "value": quantity(slot.value), "proof": slot.proof }))
        .collect();
    json!({
        "address": proof.address,
        "accountProof": proof.account_proof,
        "balance": quantity(account.map_or(U256::ZERO, |account| account.balance_wei)),
        "codeHash": account.map_or(crate::state::CODE_HASH_EMPTY, |account| account.code_hash),
        "nonce": quantity(account.map_or(0, |account| account.nonce)),
        "storageHash": account.map_or(crate::state::ROOT_EMPTY, |account| account.storage_root),
        "storageProof": storage,
    })
}
