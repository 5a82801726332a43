//! `eth_call` and `eth_estimateGas`: one transaction on a state, nothing written back.
//!
//! Follows go-ethereum v1.17: a missing gas price is zero and makes the base fee zero for the execution, nonce and sender code are
//! not checked, gas is the cap when missing, and an estimate is a bisection within 1.5 %.

use alloy_primitives::TxKind;
use revm::context::result::{EVMError, ExecutionResult, HaltReason, InvalidTransaction, OutOfGasError};
use revm::context::{BlockEnv, CfgEnv, Context, TxEnv};
use revm::context_interface::Cfg;
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::context_interface::cfg::gas_params::GasParams;
use revm::context_interface::either::Either;
use revm::context_interface::transaction::TransactionType;
use revm::inspector::Inspector;
use revm::interpreter::interpreter_types::LoopControl;
use revm::interpreter::{InstructionResult, Interpreter, InterpreterAction};
use revm::primitives::eip4844::BLOB_BASE_FEE_UPDATE_FRACTION_PRAGUE;
use revm::primitives::hardfork::SpecId;
use revm::{InspectEvm, MainBuilder, MainContext};

use crate::builder::block::BlockContext;
use crate::limits::TX_GAS_MAX;
use crate::primitives::{Bytes, Fork, U256};
use crate::rpc::access_list::Touched;
use crate::rpc::call_request::{BlockOverrides, CallRequest};
use crate::rpc::call_state::{CallState, CallStateError};
use crate::rpc::error::RpcError;
use crate::rpc::limits::CALL_STEPS_PER_CLOCK_READ;
use crate::rpc::query::QueryBounds;

/// Gas of a transaction that only moves value.
const TRANSFER_GAS: u64 = 21_000;
/// Gas that a call with value hands over beyond what the caller has to offer.
const CALL_STIPEND_GAS: u64 = 2_300;
/// An estimate may be this many thousandths too high (go-ethereum's `estimateGasErrorRatio`).
const ESTIMATE_ERROR_PER_MILLE: u64 = 15;

/// Where a call executes, and until when.
pub struct CallEnvironment<'a> {
    pub context: &'a BlockContext,
    pub overrides: BlockOverrides,
    pub chain_id: u64,
    /// Monotonic clock.
    pub now_ns: &'a dyn Fn() -> u64,
    pub deadline_ns: u64,
    pub bounds: QueryBounds,
}

impl<'a> CallEnvironment<'a> {
    /// An environment whose time limit starts now.
    pub fn new(
        context: &'a BlockContext,
        overrides: BlockOverrides,
        chain_id: u64,
        bounds: QueryBounds,
        now_ns: &'a dyn Fn() -> u64,
    ) -> Self {
        let deadline_ns = now_ns().saturating_add(bounds.duration_ns_max);
        Self { context, overrides, chain_id, now_ns, deadline_ns, bounds }
    }

    fn block_env(&self, free_gas: bool) -> BlockEnv {
        let context = self.context;
        let base_fee_wei = self.overrides.base_fee_wei.unwrap_or(context.base_fee_per_gas_wei);
        BlockEnv {
            number: U256::from(self.overrides.number.unwrap_or(context.number)),
            beneficiary: self.overrides.coinbase.unwrap_or(context.coinbase),
            timestamp: U256::from(self.overrides.timestamp.unwrap_or(context.timestamp)),
            gas_limit: self.overrides.gas_limit.unwrap_or(context.gas_limit),
            basefee: if free_gas { 0 } else { base_fee_wei },
            prevrandao: Some(self.overrides.prev_randao.unwrap_or(context.prev_randao)),
            blob_excess_gas_and_price: Some(BlobExcessGasAndPrice::new(0, BLOB_BASE_FEE_UPDATE_FRACTION_PRAGUE)),
            ..BlockEnv::default()
        }
    }
}

/// The rules of the fork, without the checks that a simulated transaction is excused from. A wrapper, because revm's own switches
/// are Cargo features, which would cost the builder's executions too.
struct CallCfg(CfgEnv);

impl CallCfg {
    fn new(chain_id: u64, fork: Fork) -> Self {
        let spec = match fork {
            Fork::Prague => SpecId::PRAGUE,
            Fork::Osaka => SpecId::OSAKA,
        };
        Self(CfgEnv::new().with_chain_id(chain_id).with_spec_and_mainnet_gas_params(spec))
    }
}

impl Cfg for CallCfg {
    type Spec = SpecId;

    fn chain_id(&self) -> u64 {
        self.0.chain_id()
    }

    fn tx_chain_id_check(&self) -> bool {
        self.0.tx_chain_id_check()
    }

    /// The cap of the RPC layer holds instead.
    fn tx_gas_limit_cap(&self) -> u64 {
        u64::MAX
    }

    fn spec(&self) -> SpecId {
        self.0.spec
    }

    fn max_blobs_per_tx(&self) -> Option<u64> {
        self.0.max_blobs_per_tx()
    }

    fn max_code_size(&self) -> usize {
        self.0.max_code_size()
    }

    fn max_initcode_size(&self) -> usize {
        self.0.max_initcode_size()
    }

    /// A call may come from a contract.
    fn is_eip3607_disabled(&self) -> bool {
        true
    }

    fn is_eip3541_disabled(&self) -> bool {
        self.0.is_eip3541_disabled()
    }

    fn is_eip7623_disabled(&self) -> bool {
        self.0.is_eip7623_disabled()
    }

    fn is_balance_check_disabled(&self) -> bool {
        self.0.is_balance_check_disabled()
    }

    fn is_block_gas_limit_disabled(&self) -> bool {
        true
    }

    fn is_nonce_check_disabled(&self) -> bool {
        true
    }

    fn is_base_fee_check_disabled(&self) -> bool {
        self.0.is_base_fee_check_disabled()
    }

    fn is_priority_fee_check_disabled(&self) -> bool {
        self.0.is_priority_fee_check_disabled()
    }

    fn is_fee_charge_disabled(&self) -> bool {
        self.0.is_fee_charge_disabled()
    }

    fn is_eip7708_disabled(&self) -> bool {
        self.0.is_eip7708_disabled()
    }

    fn is_eip8246_delayed_clear_disabled(&self) -> bool {
        self.0.is_eip8246_delayed_clear_disabled()
    }

    fn memory_limit(&self) -> u64 {
        self.0.memory_limit()
    }

    fn gas_params(&self) -> &GasParams {
        self.0.gas_params()
    }

    fn is_amsterdam_eip8037_enabled(&self) -> bool {
        self.0.is_amsterdam_eip8037_enabled()
    }

    fn is_amsterdam_eip2780_enabled(&self) -> bool {
        self.0.is_amsterdam_eip2780_enabled()
    }
}

/// Stops every frame once the deadline is over, and shows each instruction to who wants to see it.
struct Stopwatch<'a> {
    now_ns: &'a dyn Fn() -> u64,
    deadline_ns: u64,
    steps: u32,
    expired: bool,
    touched: Option<&'a mut Touched>,
}

impl<CTX> Inspector<CTX> for Stopwatch<'_> {
    fn step(&mut self, interpreter: &mut Interpreter, _context: &mut CTX) {
        if let Some(touched) = &mut self.touched {
            touched.step(interpreter);
        }
        self.steps += 1;
        if self.steps >= CALL_STEPS_PER_CLOCK_READ {
            self.steps = 0;
            self.expired |= (self.now_ns)() >= self.deadline_ns;
        }
        if self.expired {
            let gas = interpreter.gas;
            interpreter.bytecode.set_action(InterpreterAction::new_halt(InstructionResult::OutOfGas, gas));
        }
    }
}

/// Why an execution has no result.
pub(super) enum CallFailure {
    /// The gas limit is below what the transaction costs before its first instruction.
    IntrinsicGas {
        required: u64,
    },
    Error(RpcError),
}

/// Executes `request` with `gas_limit`; `touched` sees every instruction.
pub(super) fn execute(
    request: &CallRequest,
    gas_limit: u64,
    state: &mut CallState<'_>,
    environment: &CallEnvironment<'_>,
    touched: Option<&mut Touched>,
) -> Result<ExecutionResult, CallFailure> {
    let tx = tx_env(request, gas_limit, state, environment).map_err(CallFailure::Error)?;
    let (now_ns, deadline_ns) = (environment.now_ns, environment.deadline_ns);
    let stopwatch = Stopwatch { now_ns, deadline_ns, steps: 0, expired: false, touched };
    let mut evm = Context::mainnet()
        .with_db(state)
        .with_block(environment.block_env(tx.gas_price == 0))
        .with_cfg(CallCfg::new(environment.chain_id, environment.context.fork))
        .build_mainnet_with_inspector(stopwatch);
    let outcome = evm.inspect_one_tx(tx);
    if evm.inspector.expired || (environment.now_ns)() >= environment.deadline_ns {
        let limit_ms = environment.bounds.duration_ns_max / 1_000_000;
        return Err(CallFailure::Error(RpcError::server(format!("execution aborted (timeout = {limit_ms}ms)"))));
    }
    outcome.map_err(call_failure)
}

fn tx_env(
    request: &CallRequest,
    gas_limit: u64,
    state: &CallState<'_>,
    environment: &CallEnvironment<'_>,
) -> Result<TxEnv, RpcError> {
    let dynamic = request.max_fee_per_gas_wei.is_some() || request.max_priority_fee_per_gas_wei.is_some();
    let tip_wei = request.max_priority_fee_per_gas_wei.unwrap_or(0);
    let base_fee_wei = environment.overrides.base_fee_wei.unwrap_or(environment.context.base_fee_per_gas_wei);
    let fee_wei = match (request.gas_price_wei, request.max_fee_per_gas_wei) {
        (Some(price), _) => price,
        (None, Some(cap)) => cap,
        // go-ethereum lets the cap be zero then, and refuses a tip above it; what the sender means is base fee and tip.
        (None, None) if dynamic => u128::from(base_fee_wei).saturating_add(tip_wei),
        (None, None) => 0,
    };
    let nonce = match request.nonce {
        Some(nonce) => nonce,
        None => state.account(&request.from).map_err(internal)?.map_or(0, |account| account.nonce),
    };
    let tx_type = match () {
        () if request.authorizations.is_some() => TransactionType::Eip7702,
        () if dynamic => TransactionType::Eip1559,
        () if request.access_list.is_some() => TransactionType::Eip2930,
        () => TransactionType::Legacy,
    };
    Ok(TxEnv {
        tx_type: tx_type as u8,
        caller: request.from,
        gas_limit,
        gas_price: fee_wei,
        kind: request.to.map_or(TxKind::Create, TxKind::Call),
        value: request.value_wei,
        data: request.input.clone(),
        // A nonce at the maximum cannot be used even unchecked: a creation would overflow it.
        nonce: nonce.min(u64::MAX - 1),
        chain_id: Some(environment.chain_id),
        access_list: request.access_list.clone().unwrap_or_default(),
        gas_priority_fee: dynamic.then_some(tip_wei.min(fee_wei)),
        authorization_list: request.authorizations.iter().flatten().cloned().map(Either::Left).collect(),
        ..TxEnv::default()
    })
}

pub(super) fn internal(error: CallStateError) -> RpcError {
    RpcError::internal(error.to_string())
}

fn call_failure(error: EVMError<CallStateError>) -> CallFailure {
    let text = match error {
        EVMError::Transaction(InvalidTransaction::CallGasCostMoreThanGasLimit { initial_gas, .. }) => {
            return CallFailure::IntrinsicGas { required: initial_gas };
        }
        EVMError::Transaction(InvalidTransaction::GasFloorMoreThanGasLimit { gas_floor, .. }) => {
            return CallFailure::IntrinsicGas { required: gas_floor };
        }
        EVMError::Transaction(InvalidTransaction::LackOfFundForMaxFee { fee, balance }) => {
            format!("insufficient funds for gas * price + value: cost {fee}, balance {balance}")
        }
        EVMError::Transaction(InvalidTransaction::GasPriceLessThanBasefee) => {
            "max fee per gas less than block base fee".to_owned()
        }
        EVMError::Transaction(InvalidTransaction::CreateInitCodeSizeLimit) => "max initcode size exceeded".to_owned(),
        EVMError::Database(error) => return CallFailure::Error(internal(error)),
        other => other.to_string(),
    };
    CallFailure::Error(RpcError::server(text))
}

/// What `eth_call` answers: the return data.
pub fn call(
    request: &CallRequest,
    state: &mut CallState<'_>,
    environment: &CallEnvironment<'_>,
) -> Result<Bytes, RpcError> {
    let gas_max = environment.bounds.gas_max;
    let gas_limit = request.gas.filter(|&gas| gas > 0).unwrap_or(gas_max).min(gas_max);
    match execute(request, gas_limit, state, environment, None) {
        Ok(ExecutionResult::Success { output, .. }) => Ok(output.into_data()),
        Ok(ExecutionResult::Revert { output, .. }) => Err(RpcError::reverted(&output)),
        Ok(ExecutionResult::Halt { reason, .. }) => Err(RpcError::server(halt_text(&reason))),
        Err(CallFailure::IntrinsicGas { required }) => {
            Err(RpcError::server(format!("intrinsic gas too low: tx {gas_limit}, minimum {required}")))
        }
        Err(CallFailure::Error(error)) => Err(error),
    }
}

/// The texts of go-ethereum's `core/vm/errors.go`, where clients look for them.
pub(super) fn halt_text(reason: &HaltReason) -> String {
    match reason {
        HaltReason::OutOfGas(OutOfGasError::ReentrancySentry) => {
            "out of gas: not enough gas for reentrancy sentry".to_owned()
        }
        HaltReason::OutOfGas(_) => "out of gas".to_owned(),
        HaltReason::OpcodeNotFound | HaltReason::NotActivated => "invalid opcode".to_owned(),
        HaltReason::InvalidFEOpcode => "invalid opcode: INVALID".to_owned(),
        HaltReason::InvalidJump => "invalid jump destination".to_owned(),
        HaltReason::StackUnderflow => "stack underflow".to_owned(),
        HaltReason::StackOverflow => "stack limit reached 1024 (1023)".to_owned(),
        HaltReason::OutOfOffset => "return data out of bounds".to_owned(),
        HaltReason::CreateCollision => "contract address collision".to_owned(),
        HaltReason::CreateContractSizeLimit => "max code size exceeded".to_owned(),
        HaltReason::CreateContractStartingWithEF => "invalid code: must not begin with 0xef".to_owned(),
        HaltReason::CreateInitCodeSizeLimit => "max initcode size exceeded".to_owned(),
        HaltReason::StateChangeDuringStaticCall | HaltReason::CallNotAllowedInsideStatic => {
            "write protection".to_owned()
        }
        HaltReason::OutOfFunds => "insufficient balance for transfer".to_owned(),
        HaltReason::CallTooDeep => "max call depth exceeded".to_owned(),
        other => format!("execution failed: {other:?}"),
    }
}

/// What one trial of an estimate says.
enum Trial {
    Enough { gas_used: u64, gas_before_refund: u64 },
    OutOfGas,
    Reverted(Bytes),
    Halted(HaltReason),
}

fn attempt(
    request: &CallRequest,
    gas_limit: u64,
    state: &mut CallState<'_>,
    environment: &CallEnvironment<'_>,
) -> Result<Trial, RpcError> {
    match execute(request, gas_limit, state, environment, None) {
        Ok(ExecutionResult::Success { gas, .. }) => Ok(Trial::Enough {
            gas_used: gas.tx_gas_used(),
            gas_before_refund: gas.total_gas_spent().max(gas.floor_gas()),
        }),
        Ok(ExecutionResult::Revert { output, .. }) => Ok(Trial::Reverted(output)),
        Ok(ExecutionResult::Halt { reason: HaltReason::OutOfGas(_), .. }) => Ok(Trial::OutOfGas),
        Ok(ExecutionResult::Halt { reason, .. }) => Ok(Trial::Halted(reason)),
        Err(CallFailure::IntrinsicGas { .. }) => Ok(Trial::OutOfGas),
        Err(CallFailure::Error(error)) => Err(error),
    }
}

/// What `eth_estimateGas` answers: a gas limit with which the transaction succeeds, at most 1.5 % above the smallest.
pub fn estimate_gas(
    request: &CallRequest,
    state: &mut CallState<'_>,
    environment: &CallEnvironment<'_>,
) -> Result<u64, RpcError> {
    let mut high = highest_gas(request, state, environment)?;
    if is_plain_transfer(request, state)?
        && let Ok(Trial::Enough { .. }) = attempt(request, TRANSFER_GAS, state, environment)
    {
        return Ok(TRANSFER_GAS);
    }
    let (gas_used, gas_before_refund) = match attempt(request, high, state, environment)? {
        Trial::Enough { gas_used, gas_before_refund } => (gas_used, gas_before_refund),
        Trial::OutOfGas => return Err(RpcError::server(format!("gas required exceeds allowance ({high})"))),
        Trial::Reverted(output) => return Err(RpcError::reverted(&output)),
        Trial::Halted(reason) => return Err(RpcError::server(halt_text(&reason))),
    };
    let mut low = gas_used.saturating_sub(1);
    let optimistic = (gas_before_refund + CALL_STIPEND_GAS) * 64 / 63;
    if optimistic < high {
        bisect(optimistic, &mut low, &mut high, request, state, environment)?;
    }
    while low + 1 < high && (high - low) * 1_000 >= high * ESTIMATE_ERROR_PER_MILLE {
        let middle = (low + (high - low) / 2).min(low.saturating_mul(2).max(low + 1));
        bisect(middle, &mut low, &mut high, request, state, environment)?;
    }
    Ok(high)
}

/// Tries `gas` and moves the bound that it decides.
fn bisect(
    gas: u64,
    low: &mut u64,
    high: &mut u64,
    request: &CallRequest,
    state: &mut CallState<'_>,
    environment: &CallEnvironment<'_>,
) -> Result<(), RpcError> {
    match attempt(request, gas, state, environment)? {
        Trial::Enough { .. } => *high = gas,
        Trial::OutOfGas | Trial::Reverted(_) | Trial::Halted(_) => *low = gas,
    }
    Ok(())
}

/// The largest gas limit that the sender may and can pay for.
fn highest_gas(
    request: &CallRequest,
    state: &CallState<'_>,
    environment: &CallEnvironment<'_>,
) -> Result<u64, RpcError> {
    let block_gas = environment.overrides.gas_limit.unwrap_or(environment.context.gas_limit);
    let wanted = request.gas.filter(|&gas| gas >= TRANSFER_GAS).unwrap_or(block_gas);
    let mut high = wanted.min(TX_GAS_MAX).min(environment.bounds.gas_max);
    let fee_wei = request.gas_price_wei.or(request.max_fee_per_gas_wei).unwrap_or(0);
    if fee_wei > 0 {
        let balance = state.account(&request.from).map_err(internal)?.map_or(U256::ZERO, |account| account.balance);
        let Some(available) = balance.checked_sub(request.value_wei).filter(|available| !available.is_zero()) else {
            let value = request.value_wei;
            return Err(RpcError::server(format!("insufficient funds for transfer: value {value}, balance {balance}")));
        };
        // Rounds down: the last, incomplete unit of gas cannot be paid.
        let affordable = available / U256::from(fee_wei);
        high = u64::try_from(affordable).map_or(high, |affordable| high.min(affordable));
    }
    Ok(high)
}

fn is_plain_transfer(request: &CallRequest, state: &CallState<'_>) -> Result<bool, RpcError> {
    let Some(to) = request.to.filter(|_| request.input.is_empty()) else { return Ok(false) };
    Ok(state.account(&to).map_err(internal)?.is_none_or(|account| account.is_empty_code_hash()))
}
