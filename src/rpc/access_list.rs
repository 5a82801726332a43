//! `eth_createAccessList`: the accounts and slots that a transaction touches, found by executing it, as go-ethereum v1.17 does it
//! (`internal/ethapi/api.go`, `eth/tracers/logger/access_list_tracer.go`).
//!
//! The list changes what an execution costs and so may change where it goes: it is executed again with the list that was found until the
//! list stays the same. Sender, receiver, precompiles and authorities are warm by themselves and are not listed, unless for their slots.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use alloy_eips::eip2930::{AccessList, AccessListItem};
use revm::bytecode::opcode;
use revm::context::result::ExecutionResult;
use revm::context_interface::transaction::AuthorizationTr;
use revm::interpreter::Interpreter;
use revm::interpreter::interpreter_types::{InputsTr, Jumps};

use crate::primitives::{Address, B256, Fork, U256};
use crate::rpc::call::{CallEnvironment, CallFailure, execute, halt_text, internal};
use crate::rpc::call_request::CallRequest;
use crate::rpc::call_state::CallState;
use crate::rpc::error::RpcError;
use crate::rpc::limits::ACCESS_LIST_ROUNDS_MAX;

/// Gas that an authorization costs at least (EIP-7702): more of them than the gas pays for are not even looked at.
const AUTHORIZATION_GAS: u64 = 25_000;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub struct CreatedAccessList {
    pub access_list: AccessList,
    /// With that list.
    pub gas_used: u64,
    /// Why the execution failed, if it did: the list is what it touched until then.
    pub failure: Option<String>,
}

/// Accounts and slots that an execution touches.
pub struct Touched {
    excluded: HashSet<Address>,
    list: BTreeMap<Address, BTreeSet<B256>>,
}

impl Touched {
    fn new(list: &AccessList, excluded: HashSet<Address>) -> Self {
        let mut touched = Self { excluded, list: BTreeMap::new() };
        for item in list.iter().filter(|item| !touched.excluded.contains(&item.address)) {
            touched.list.entry(item.address).or_default().extend(&item.storage_keys);
        }
        touched
    }

    /// Looks at the next instruction of an execution, before it is carried out.
    pub fn step(&mut self, interpreter: &Interpreter) {
        let stack = interpreter.stack.data();
        let top = |depth: usize| stack.len().checked_sub(depth + 1).map(|index| stack[index]);
        match interpreter.bytecode.opcode() {
            opcode::SLOAD | opcode::SSTORE => {
                if let Some(slot) = top(0) {
                    let address = interpreter.input.target_address();
                    self.list.entry(address).or_default().insert(B256::from(slot));
                }
            }
            opcode::EXTCODECOPY
            | opcode::EXTCODEHASH
            | opcode::EXTCODESIZE
            | opcode::BALANCE
            | opcode::SELFDESTRUCT => self.touch(top(0)),
            opcode::CALL | opcode::CALLCODE | opcode::DELEGATECALL | opcode::STATICCALL if stack.len() >= 5 => {
                self.touch(top(1));
            }
            _ => {}
        }
    }

    fn touch(&mut self, word: Option<U256>) {
        let Some(word) = word else { return };
        let address = Address::from_word(B256::from(word));
        if !self.excluded.contains(&address) {
            self.list.entry(address).or_default();
        }
    }

    fn access_list(&self) -> AccessList {
        let item = |(address, slots): (&Address, &BTreeSet<B256>)| AccessListItem {
            address: *address,
            storage_keys: slots.iter().copied().collect(),
        };
        AccessList(self.list.iter().map(item).collect())
    }
}

/// Finds the list. `tip_wei` is what the node suggests: the price of a transaction that names none, together with twice the base fee.
///
/// # Errors
/// -32000 when the transaction cannot be applied at all, or the time is over.
pub fn create(
    request: &CallRequest,
    tip_wei: u128,
    state: &mut CallState<'_>,
    environment: &CallEnvironment<'_>,
) -> Result<CreatedAccessList, RpcError> {
    let mut request = priced(request, tip_wei, environment)?;
    let gas_max = environment.bounds.gas_max;
    let gas_limit = request.gas.unwrap_or(gas_max).min(gas_max);
    let excluded = excluded(&request, gas_limit, state, environment)?;
    let given = request.access_list.take().unwrap_or_default();
    let mut known = Touched::new(&given, excluded.clone());
    for _ in 0..ACCESS_LIST_ROUNDS_MAX {
        let access_list = known.access_list();
        let mut touched = Touched::new(&access_list, excluded.clone());
        request.access_list = Some(access_list.clone());
        let result = execute(&request, gas_limit, state, environment, Some(&mut touched)).map_err(|failure| {
            let why = match failure {
                CallFailure::IntrinsicGas { required } => {
                    format!("intrinsic gas too low: tx {gas_limit}, minimum {required}")
                }
                CallFailure::Error(error) => error.message,
            };
            RpcError::server(format!("failed to apply transaction: {why}"))
        })?;
        if touched.list == known.list {
            let failure = match &result {
                ExecutionResult::Success { .. } => None,
                ExecutionResult::Revert { .. } => Some("execution reverted".to_owned()),
                ExecutionResult::Halt { reason, .. } => Some(halt_text(reason)),
            };
            return Ok(CreatedAccessList { access_list, gas_used: result.tx_gas_used(), failure });
        }
        known = touched;
    }
    Err(RpcError::server(format!("the access list still changes after {ACCESS_LIST_ROUNDS_MAX} executions with it")))
}

/// The request with the fees that go-ethereum fills in, and its refusals.
fn priced(request: &CallRequest, tip_wei: u128, environment: &CallEnvironment<'_>) -> Result<CallRequest, RpcError> {
    let mut request = request.clone();
    if let Some(price_wei) = request.gas_price_wei {
        if request.authorizations.is_some() {
            return Err(RpcError::server("both gasPrice and authorizationList specified"));
        }
        if price_wei == 0 {
            return Err(RpcError::server("gasPrice must be non-zero after london fork"));
        }
        return Ok(request);
    }
    let base_fee_wei = u128::from(environment.context.base_fee_per_gas_wei);
    if request.max_fee_per_gas_wei == Some(0) && request.max_priority_fee_per_gas_wei.is_some() {
        return Err(RpcError::server("maxFeePerGas must be non-zero"));
    }
    let tip_wei = *request.max_priority_fee_per_gas_wei.get_or_insert(tip_wei);
    let cap_wei = *request.max_fee_per_gas_wei.get_or_insert(tip_wei.saturating_add(2 * base_fee_wei));
    if cap_wei < tip_wei {
        return Err(RpcError::server(format!("maxFeePerGas ({cap_wei}) < maxPriorityFeePerGas ({tip_wei})")));
    }
    Ok(request)
}

/// Accounts that are warm without being listed.
fn excluded(
    request: &CallRequest,
    gas_limit: u64,
    state: &CallState<'_>,
    environment: &CallEnvironment<'_>,
) -> Result<HashSet<Address>, RpcError> {
    let nonce = match request.nonce {
        Some(nonce) => nonce,
        None => state.account(&request.from).map_err(internal)?.map_or(0, |account| account.nonce),
    };
    let to = request.to.unwrap_or_else(|| request.from.create(nonce));
    let mut excluded: HashSet<Address> = precompiles(environment.context.fork).collect();
    excluded.extend([request.from, to]);
    let authorizations = request.authorizations.as_deref().unwrap_or_default();
    if authorizations.len() as u64 > gas_limit / AUTHORIZATION_GAS {
        return Err(RpcError::server("insufficient gas to process all authorizations"));
    }
    for authorization in authorizations {
        let is_for_us = authorization.chain_id.is_zero() || authorization.chain_id == U256::from(environment.chain_id);
        if is_for_us && authorization.nonce != u64::MAX {
            excluded.extend(authorization.authority());
        }
    }
    Ok(excluded)
}

fn precompiles(fork: Fork) -> impl Iterator<Item = Address> {
    // Up to BLS12_MAP_FP2_TO_G2 (EIP-2537), and P256VERIFY (EIP-7951).
    let p256_verify = (fork == Fork::Osaka).then_some(0x100);
    (0x01..=0x11_u64).chain(p256_verify).map(|number| Address::from_word(B256::from(U256::from(number))))
}
