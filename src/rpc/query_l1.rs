//! What concerns L1: how settlement stands, and ExecuteTx (type 5) that users send to L1 through us or ask for.
//!
//! An ExecuteTx is never pooled here. It is decoded strictly, its signature and L1's chain id are checked, and it is handed to L1, whose answer is
//! the answer. Questions for its hash, which our own chain cannot answer, go to L1 for as long as the hash is remembered.

use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::codec::hex;
use crate::config::native_rollup::NativeRollup;
use crate::l1::block::BlockId;
use crate::l1::execute_tx::ExecuteTx;
use crate::primitives::{B256, U256};
use crate::rpc::error::{RpcError, code};
use crate::rpc::method::Method;
use crate::rpc::params::Params;
use crate::rpc::query::QueryContext;
use crate::settlement::cells::SettlementCells;
use crate::settlement::pass_on::{L1Door, PassOnError};

/// The query thread's view of L1.
pub struct L1View<'a> {
    pub cells: &'a SettlementCells,
    pub door: &'a L1Door,
    pub rollup: Option<&'a NativeRollup>,
    /// Longest wait for one answer of L1.
    pub limit: Duration,
}

/// `sequencer_settlementStatus`, `sequencer_getBatchByBlock`, `optimism_syncStatus`.
///
/// # Errors
/// -32602 for arguments that do not fit.
pub fn status(context: &QueryContext<'_>, l1: &L1View<'_>, method: Method, params: &[u8]) -> Result<Vec<u8>, RpcError> {
    let status = l1.cells.status();
    let value = match method {
        Method::GetBatchByBlock => {
            let block = Params::parse(params, 1)?.required(0, "block")?.block()?;
            let Some(source) = context.resolve(block)? else { return Ok(b"null".to_vec()) };
            status.batch_json(source.place().block_number)
        }
        Method::SyncStatus => {
            Params::parse(params, 0)?;
            status.sync_json(|block, origin| block_ref(context, block, origin))
        }
        _ => {
            Params::parse(params, 0)?;
            status.to_json()
        }
    };
    text_of(&value)
}

/// An L2 block as op-node shows it. Every block is the first of its epoch here: origins may repeat, numbers within one are not counted.
fn block_ref(context: &QueryContext<'_>, block: BlockId, origin: BlockId) -> Value {
    let source = context.block(block.number).ok().flatten();
    let header = source.as_ref().and_then(|source| source.header()).map(|(header, _)| header);
    json!({
        "hash": block.hash,
        "number": block.number,
        "parentHash": header.map_or(B256::ZERO, |header| header.parent_hash),
        "timestamp": header.map_or(0, |header| header.timestamp),
        "l1origin": { "hash": origin.hash, "number": origin.number },
        "sequenceNumber": 0,
    })
}

/// `eth_sendRawTransaction` of type 5.
///
/// # Errors
/// Why it is no ExecuteTx for this L1; L1's own error.
pub fn send(l1: &L1View<'_>, params: &[u8]) -> Result<Vec<u8>, RpcError> {
    let rollup = l1.rollup.ok_or_else(off)?;
    let argument = Params::parse(params, 1)?.required(0, "transaction")?;
    let raw = hex::parse_data(&argument.text()?).map_err(|error| argument.invalid(error))?;
    let tx =
        ExecuteTx::decode(&raw, rollup.profile).map_err(|error| RpcError::server(format!("ExecuteTx: {error}")))?;
    if tx.terms.chain_id != U256::from(rollup.l1_chain_id) {
        let (found, expected) = (tx.terms.chain_id, rollup.l1_chain_id);
        return Err(RpcError::server(format!("ExecuteTx: chain id {found}, L1 has {expected}")));
    }
    tx.sender().map_err(|error| RpcError::server(format!("ExecuteTx: signature: {error}")))?;
    let answer = ask(l1, "eth_sendRawTransaction", &json!([format!("0x{}", alloy_primitives::hex::encode(&raw))]))?;
    l1.cells.remember(tx.hash());
    Ok(answer.get().as_bytes().to_vec())
}

/// The answer to a question about an ExecuteTx: `None` when the hash is none that we know as one.
///
/// # Errors
/// L1 does not answer.
pub fn question(l1: &L1View<'_>, method: Method, params: &[u8]) -> Result<Option<Vec<u8>>, RpcError> {
    if l1.rollup.is_none() {
        return Ok(None);
    }
    let hash = Params::parse(params, 1)?.required(0, "transaction hash")?.hash()?;
    if !l1.cells.knows(&hash) {
        return Ok(None);
    }
    let params = json!([hash]);
    let value = match method {
        Method::GetTransactionReceipt => ask_value(l1, "eth_getTransactionReceipt", &params)?,
        Method::GetRawTransactionByHash => ask_value(l1, "eth_getRawTransactionByHash", &params)?,
        Method::GetTransactionByHash => transaction(l1, &params)?,
        _ => tx_status(l1, &params)?,
    };
    text_of(&value).map(Some)
}

/// With every field: L1's JSON leaves out most of them, its raw bytes do not.
fn transaction(l1: &L1View<'_>, params: &Value) -> Result<Value, RpcError> {
    let Some(rollup) = l1.rollup else { return Ok(Value::Null) };
    let raw = ask_value(l1, "eth_getRawTransactionByHash", params)?;
    let Some(raw) = raw.as_str().and_then(|text| hex::parse_data(text).ok()) else { return Ok(Value::Null) };
    let tx =
        ExecuteTx::decode(&raw, rollup.profile).map_err(|error| RpcError::internal(format!("L1's bytes: {error}")))?;
    let place = ask_value(l1, "eth_getTransactionByHash", params)?;
    let mut value = tx.to_json();
    if let Some(object) = value.as_object_mut() {
        for name in ["blockHash", "blockNumber", "transactionIndex"] {
            object.insert(name.to_owned(), place.get(name).cloned().unwrap_or(Value::Null));
        }
    }
    Ok(value)
}

/// Where it is on L1, as `sequencer_getTransactionStatus` says it.
fn tx_status(l1: &L1View<'_>, params: &Value) -> Result<Value, RpcError> {
    let receipt = ask_value(l1, "eth_getTransactionReceipt", params)?;
    if receipt.is_null() {
        let pending = ask_value(l1, "eth_getTransactionByHash", params)?;
        let state = if pending.is_null() { "unknown" } else { "l1Pending" };
        return Ok(json!({ "state": state }));
    }
    let number =
        receipt["blockNumber"].as_str().and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
    let is_final = number.is_some_and(|number| number <= l1.cells.status().l1_finalized);
    Ok(json!({
        "state": if is_final { "l1Finalized" } else { "l1Included" },
        "status": receipt["status"],
        "blockNumber": receipt["blockNumber"],
        "blockHash": receipt["blockHash"],
        "transactionIndex": receipt["transactionIndex"],
    }))
}

fn ask_value(l1: &L1View<'_>, method: &'static str, params: &Value) -> Result<Value, RpcError> {
    let answer = ask(l1, method, params)?;
    serde_json::from_str(answer.get()).map_err(|error| RpcError::internal(format!("L1's answer: {error}")))
}

fn ask(l1: &L1View<'_>, method: &'static str, params: &Value) -> Result<Box<RawValue>, RpcError> {
    let params = RawValue::from_string(params.to_string()).map_err(|error| RpcError::internal(error.to_string()))?;
    l1.door.ask(method, params, l1.limit).map_err(|error| match error {
        PassOnError::Refused { code: number, message } => {
            RpcError::new(i32::try_from(number).unwrap_or(code::INTERNAL), message)
        }
        PassOnError::Away(what) => RpcError::server(format!("L1 does not answer: {what}")),
        PassOnError::Off => off(),
    })
}

fn off() -> RpcError {
    RpcError::server("ExecuteTx needs an L1: this node runs with --l1 off")
}

fn text_of(value: &Value) -> Result<Vec<u8>, RpcError> {
    serde_json::to_vec(value).map_err(|error| RpcError::internal(error.to_string()))
}
