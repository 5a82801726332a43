//! `eth_call` and `eth_estimateGas`: one transaction that nobody signed, on the state after a block.

use alloy_primitives::TxKind;
use revm::context::TxEnv;
use revm::context::result::HaltReason;
use revm::context_interface::transaction::{AccessList, AccessListItem};
use serde_json::{Value, json};

use super::params::{Params, address_of, hash_of, u64_of, u256_of};
use super::quantity;
use crate::codec::hex;
use crate::dev_l1::evm::{EvmError, TxOutcome};
use crate::dev_l1::node::Node;
use crate::primitives::{Address, B256, Bytes, U256};
use crate::rpc::error::RpcError;

/// Gas of a call that names none, and the most that one gets.
const CALL_GAS_MAX: u64 = 50_000_000;
/// An estimate may be this many thousandths too high, as go-ethereum's.
const ESTIMATE_ERROR_PER_MILLE: u64 = 15;
const TX_GAS_MIN: u64 = 21_000;

/// What a caller describes.
struct Request {
    from: Address,
    to: Option<Address>,
    gas: Option<u64>,
    value: U256,
    input: Bytes,
    access_list: AccessList,
}

impl Request {
    fn parse(value: &Value) -> Result<Self, RpcError> {
        let object =
            value.as_object().ok_or_else(|| RpcError::invalid_params("invalid argument 0: an object is expected"))?;
        let get = |name: &str| object.get(name).filter(|value| !value.is_null());
        let data = match get("input").or_else(|| get("data")) {
            None => Bytes::new(),
            Some(value) => {
                let text =
                    value.as_str().ok_or_else(|| RpcError::invalid_params("invalid argument 0: input is a string"))?;
                hex::parse_data(text)
                    .map_err(|error| RpcError::invalid_params(format!("invalid argument 0: {error}")))?
                    .into()
            }
        };
        Ok(Self {
            from: get("from").map(|value| address_of(value, 0)).transpose()?.unwrap_or_default(),
            to: get("to").map(|value| address_of(value, 0)).transpose()?,
            gas: get("gas").map(|value| u64_of(value, 0)).transpose()?.filter(|gas| *gas > 0),
            value: get("value").map(|value| u256_of(value, 0)).transpose()?.unwrap_or_default(),
            input: data,
            access_list: get("accessList").map(access_list).transpose()?.unwrap_or_default(),
        })
    }

    /// Free of charge: the base fee of a call is zero too.
    fn tx_env(&self, gas: u64, chain_id: u64, nonce: u64) -> TxEnv {
        let has_list = !self.access_list.0.is_empty();
        TxEnv {
            tx_type: u8::from(has_list),
            caller: self.from,
            gas_limit: gas,
            gas_price: 0,
            kind: self.to.map_or(TxKind::Create, TxKind::Call),
            value: self.value,
            data: self.input.clone(),
            nonce,
            chain_id: Some(chain_id),
            access_list: self.access_list.clone(),
            ..TxEnv::default()
        }
    }
}

fn access_list(value: &Value) -> Result<AccessList, RpcError> {
    let invalid = || RpcError::invalid_params("invalid argument 0: accessList is an array of address and storageKeys");
    let items = value.as_array().ok_or_else(invalid)?.iter().map(|item| {
        let keys = item.get("storageKeys").and_then(Value::as_array).ok_or_else(invalid)?;
        let storage_keys: Vec<B256> = keys.iter().map(|key| hash_of(key, 0)).collect::<Result<_, _>>()?;
        let address = address_of(item.get("address").ok_or_else(invalid)?, 0)?;
        Ok(AccessListItem { address, storage_keys })
    });
    Ok(AccessList(items.collect::<Result<Vec<_>, RpcError>>()?))
}

fn execute(node: &Node, hash: &B256, request: &Request, gas: u64) -> Result<TxOutcome, RpcError> {
    let chain_id = node.chain.config().chain_id;
    let outcome = node.chain.with_evm(&node.execute, hash, |mut evm, _| {
        let nonce = evm.overlay().account(&request.from)?.map_or(0, |account| account.nonce);
        evm.try_execute(request.tx_env(gas, chain_id, nonce.min(u64::MAX - 1)))
    })?;
    outcome.map_err(|error| match error {
        EvmError::Invalid(why) => RpcError::server(why.to_string()),
        fatal => RpcError::internal(fatal.to_string()),
    })
}

fn failure(outcome: &TxOutcome) -> RpcError {
    let verdict = outcome.verdicts.last().and_then(|verdict| verdict.result.as_ref().err());
    match (&outcome.halt, verdict) {
        (None, _) => RpcError::reverted(&outcome.output),
        (Some(_), Some(what)) => RpcError::server(what.clone()),
        (Some(HaltReason::OutOfGas(_)), None) => RpcError::server("out of gas"),
        (Some(reason), None) => RpcError::server(format!("execution failed: {reason:?}")),
    }
}

/// What `eth_call` answers.
pub fn call(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let request = Request::parse(params.get(0).unwrap_or(&Value::Null))?;
    let hash = params.block(node, 1)?.ok_or_else(|| RpcError::server("header not found"))?;
    let outcome = execute(node, &hash, &request, request.gas.unwrap_or(CALL_GAS_MAX).min(CALL_GAS_MAX))?;
    if outcome.success { Ok(json!(outcome.output)) } else { Err(failure(&outcome)) }
}

/// What `eth_estimateGas` answers: enough, and at most 1.5 % too much.
pub fn estimate(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let request = Request::parse(params.get(0).unwrap_or(&Value::Null))?;
    let hash = params.block(node, 1)?.ok_or_else(|| RpcError::server("header not found"))?;
    let cap = node.chain.config().fork.tx_gas_max().unwrap_or(CALL_GAS_MAX).min(CALL_GAS_MAX);
    let mut high = request.gas.unwrap_or(cap).min(cap);
    let first = execute(node, &hash, &request, high)?;
    if !first.success {
        return Err(failure(&first));
    }
    if first.gas_used == TX_GAS_MIN {
        return Ok(quantity(TX_GAS_MIN));
    }
    let mut low = first.gas_used - 1;
    // The first guess: what was used, and what a call keeps back for itself.
    let mut middle = first.gas_used.saturating_mul(64) / 63;
    while low + 1 < high && (high - low) * 1_000 > high * ESTIMATE_ERROR_PER_MILLE {
        middle = middle.clamp(low + 1, high - 1);
        let is_enough = execute(node, &hash, &request, middle).is_ok_and(|outcome| outcome.success);
        if is_enough {
            high = middle;
        } else {
            low = middle;
        }
        middle = low + (high - low) / 2;
    }
    Ok(quantity(high))
}
