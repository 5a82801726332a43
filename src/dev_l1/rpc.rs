//! JSON-RPC of the development L1: one request in, one answer out. `docs/DEV_L1.md` has the table of methods.

mod call;
mod control;
mod fees;
mod logs;
mod params;
mod shape;

use serde_json::{Value, json};

use super::chain::ChainError;
use super::node::{Node, SendError};
use crate::codec::hex;
use crate::primitives::{B256, U256};
use crate::rpc::error::{RpcError, code};
use crate::rpc::json::Quantity;
use crate::state::{StateError, StateReader};
use params::Params;

/// Requests in one batch.
pub const BATCH_ITEMS_MAX: usize = 1_000;

/// Who asks, where and when.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub endpoint: usize,
    /// Sent the bearer token: may call `dev_*`.
    pub is_authorized: bool,
    pub now_ms: u64,
}

impl From<ChainError> for RpcError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::StateGone { .. } | ChainError::TooDeep { .. } => Self::server(error.to_string()),
            fatal => Self::internal(fatal.to_string()),
        }
    }
}

impl From<StateError> for RpcError {
    fn from(error: StateError) -> Self {
        Self::internal(error.to_string())
    }
}

/// Answers one request with its faults: `None` to a notification.
pub fn answer(node: &mut Node, caller: Caller, request: &Value) -> Option<Value> {
    let id = request.get("id").cloned();
    let failed = |id: Option<Value>, error: &RpcError| {
        let mut object = json!({ "code": error.code, "message": error.message });
        if let Some(data) = &error.data {
            object["data"] = serde_json::from_str(data).unwrap_or(Value::Null);
        }
        json!({ "jsonrpc": "2.0", "id": id.unwrap_or(Value::Null), "error": object })
    };
    let Some(method) = request.get("method").and_then(Value::as_str) else {
        return Some(failed(id, &RpcError::new(-32_600, "invalid request: no method")));
    };
    let nothing = Value::Array(Vec::new());
    let params = request.get("params").filter(|params| !params.is_null()).unwrap_or(&nothing);
    let result = call_with_faults(node, caller, method, params);
    id.as_ref()?;
    Some(match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => failed(id, &error),
    })
}

fn call_with_faults(node: &mut Node, caller: Caller, method: &str, params: &Value) -> Result<Value, RpcError> {
    let prepared = node.faults.get_mut(caller.endpoint).and_then(|faults| faults.take_answer(method));
    if let Some(prepared) = prepared {
        return prepared.map_err(|(code, message)| RpcError::new(code, message));
    }
    let mut result = call(node, caller, method, params)?;
    if let Some(faults) = node.faults.get_mut(caller.endpoint) {
        faults.distort(method, &mut result);
    }
    Ok(result)
}

/// The true answer to a request.
///
/// # Errors
/// What JSON-RPC says.
pub fn call(node: &mut Node, caller: Caller, method: &str, params: &Value) -> Result<Value, RpcError> {
    let params = Params::new(params)?;
    match method {
        "eth_sendRawTransaction" => send_raw(node, &params),
        "dev_executeResult" => execute_result(node, &params),
        _ if method.starts_with("dev_") => {
            if !caller.is_authorized {
                return Err(RpcError::new(code::REJECTED, format!("{method} needs the bearer token of this node")));
            }
            control::call(node, caller.now_ms, method, &params)
        }
        _ => read(node, method, &params),
    }
}

fn quantity(value: impl Quantity) -> Value {
    json!(format!("{:#x}", value.into_u256()))
}

fn send_raw(node: &mut Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let raw = hex::parse_data(params.text(0)?).map_err(|error| RpcError::invalid_params(error.to_string()))?;
    match node.send(raw.into()) {
        Ok(hash) => Ok(json!(hash)),
        Err(SendError::Chain(error)) => Err(error.into()),
        Err(error) => Err(RpcError::server(error.to_string())),
    }
}

/// Reads that change nothing.
fn read(node: &Node, method: &str, params: &Params<'_>) -> Result<Value, RpcError> {
    match method {
        "web3_clientVersion" => Ok(json!(concat!("native-sequencer-dev-l1/v", env!("CARGO_PKG_VERSION")))),
        "web3_sha3" => {
            let bytes =
                hex::parse_data(params.text(0)?).map_err(|error| RpcError::invalid_params(error.to_string()))?;
            Ok(json!(crate::crypto::keccak::keccak256(&bytes)))
        }
        "net_version" => Ok(json!(node.chain.config().chain_id.to_string())),
        "net_listening" => Ok(json!(true)),
        "net_peerCount" => Ok(quantity(0_u64)),
        "eth_chainId" => Ok(quantity(node.chain.config().chain_id)),
        "eth_syncing" => Ok(json!(false)),
        "eth_accounts" => Ok(json!([])),
        "eth_blockNumber" => Ok(quantity(node.chain.head_number())),
        "eth_gasPrice" => Ok(quantity(fees::gas_price_wei(node)?)),
        "eth_maxPriorityFeePerGas" => Ok(quantity(fees::suggested_tip_wei(node)?)),
        "eth_blobBaseFee" => Ok(quantity(1_u64)),
        "eth_feeHistory" => fees::history(node, params),
        "eth_getBlockByNumber" | "eth_getBlockByHash" => block(node, params),
        "eth_getHeaderByNumber" | "eth_getHeaderByHash" => {
            Ok(params.block(node, 0)?.and_then(|hash| shape::header(node, &hash)).unwrap_or(Value::Null))
        }
        "eth_getBlockTransactionCountByNumber" | "eth_getBlockTransactionCountByHash" => {
            let block = known_block(node, params)?;
            Ok(block.map_or(Value::Null, |block| quantity(block.txs.len() as u64)))
        }
        "eth_getTransactionByHash" => transaction(node, params),
        "eth_getTransactionByBlockNumberAndIndex" | "eth_getTransactionByBlockHashAndIndex" => {
            transaction_at(node, params)
        }
        "eth_getRawTransactionByHash" => raw_transaction(node, params),
        "eth_getTransactionReceipt" => receipt(node, params),
        "eth_getBlockReceipts" => block_receipts(node, params),
        "eth_getLogs" => logs::get(node, params),
        "debug_getRawBlock" => raw_block(node, params),
        "debug_getRawHeader" => raw_header(node, params),
        "debug_getRawTransaction" => raw_transaction(node, params),
        "debug_getRawReceipts" => raw_receipts(node, params),
        "eth_getBalance" | "eth_getTransactionCount" | "eth_getCode" | "eth_getStorageAt" | "eth_getProof" => {
            state(node, method, params)
        }
        "eth_call" => call::call(node, params),
        "eth_estimateGas" => call::estimate(node, params),
        "txpool_status" => Ok(json!({ "pending": quantity(node.pool.len() as u64), "queued": "0x0" })),
        _ => Err(RpcError::method_not_found(method.as_bytes())),
    }
}

fn known_block(node: &Node, params: &Params<'_>) -> Result<Option<std::sync::Arc<super::block::Block>>, RpcError> {
    match params.block(node, 0)? {
        Some(hash) => Ok(node.chain.block(&hash)?),
        None => Ok(None),
    }
}

fn block(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let is_full = params.flag(1)?;
    let block = known_block(node, params)?;
    Ok(block.map_or(Value::Null, |block| shape::block(node, &block, is_full)))
}

fn transaction(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let hash = params.hash(0)?;
    if let Some((block, index)) = node.chain.transaction(&hash)? {
        return Ok(shape::transaction(node, &block.txs[index], Some((&block, index))));
    }
    Ok(node.pool.get(&hash).map_or(Value::Null, |tx| shape::transaction(node, tx, None)))
}

fn transaction_at(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let index = params.quantity(1)?;
    let Some(block) = known_block(node, params)? else { return Ok(Value::Null) };
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    Ok(block.txs.get(index).map_or(Value::Null, |tx| shape::transaction(node, tx, Some((&block, index)))))
}

fn raw_transaction(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let hash = params.hash(0)?;
    if let Some((block, index)) = node.chain.transaction(&hash)? {
        return Ok(json!(block.txs[index].raw));
    }
    Ok(node.pool.get(&hash).map_or(Value::Null, |tx| json!(tx.raw)))
}

fn receipt(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let found = node.chain.transaction(&params.hash(0)?)?;
    Ok(found.map_or(Value::Null, |(block, index)| shape::receipt(&block, index)))
}

fn block_receipts(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let block = known_block(node, params)?;
    Ok(block.map_or(Value::Null, |block| (0..block.txs.len()).map(|index| shape::receipt(&block, index)).collect()))
}

fn raw_block(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let block = known_block(node, params)?.ok_or_else(|| RpcError::server("block not found"))?;
    Ok(json!(shape::block_rlp(&block)))
}

fn raw_header(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let hash = params.block(node, 0)?;
    let header = hash.and_then(|hash| node.chain.header(&hash)).ok_or_else(|| RpcError::server("header not found"))?;
    Ok(json!(crate::primitives::Bytes::from(alloy_rlp::encode(header))))
}

fn raw_receipts(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let block = known_block(node, params)?.ok_or_else(|| RpcError::server("block not found"))?;
    Ok(json!(shape::receipts_2718(&block)))
}

/// What the precompile said of a transaction of the canonical chain; null for any other.
fn execute_result(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let found = node.chain.transaction(&params.hash(0)?)?;
    Ok(found.map_or(Value::Null, |(block, index)| {
        let receipt = &block.receipts[index];
        json!({
            "transactionHash": block.txs[index].hash,
            "blockHash": block.hash,
            "blockNumber": quantity(block.header.number),
            "status": quantity(u64::from(receipt.success)),
            "mode": node.chain.config().mode.name(),
            "execute": receipt.execute,
        })
    }))
}

fn state(node: &Node, method: &str, params: &Params<'_>) -> Result<Value, RpcError> {
    let address = params.address(0)?;
    let block_index = if matches!(method, "eth_getStorageAt" | "eth_getProof") { 2 } else { 1 };
    if method == "eth_getTransactionCount" && params.is_pending(block_index) {
        return Ok(quantity(node.pending_nonce(&address)?));
    }
    let hash = params.block(node, block_index)?.ok_or_else(|| RpcError::server("header not found"))?;
    let state = node.chain.state(&hash)?;
    let account = state.account(&address)?;
    Ok(match method {
        "eth_getBalance" => quantity(account.map_or(U256::ZERO, |account| account.balance_wei)),
        "eth_getTransactionCount" => quantity(account.map_or(0, |account| account.nonce)),
        "eth_getCode" => {
            let code = account.map(|account| state.code(&account.code_hash)).transpose()?.flatten();
            json!(code.unwrap_or_default())
        }
        "eth_getProof" => shape::proof(&state.proof(&address, &params.slots(1)?)?),
        _ => json!(B256::from(state.storage(&address, params.word(1)?)?)),
    })
}

#[cfg(test)]
mod tests;
