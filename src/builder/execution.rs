//! One transaction, or one system call, through revm over the builder's [`World`].
//!
//! One EVM instance lives as long as the builder; each block sets its environment, each transaction commits by itself. Not here: which
//! transaction comes next, and block limits.

use alloy_eips::{eip2935, eip4788, eip6110, eip7002, eip7251, eip7685};
use alloy_evm::eth::eip6110::accumulate_deposits_from_logs;
use alloy_primitives::Log;
use revm::context::either::Either;
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction, Output};
use revm::context::transaction::{
    AccessList, AccessListItem, Authorization, RecoveredAuthority, RecoveredAuthorization, SignedAuthorization,
};
use revm::context::{BlockEnv, CfgEnv, Context, TxEnv};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::handler::{EthPrecompiles, MainnetEvm};
use revm::primitives::TxKind;
use revm::primitives::hardfork::SpecId;
use revm::state::{EvmState, EvmStorageSlot};
use revm::{ExecuteCommitEvm, ExecuteEvm, MainBuilder, SystemCallCommitEvm};

use journal::WitnessJournal;

use crate::builder::block::BlockContext;
use crate::builder::world::{World, WorldError};
use crate::codec::transaction;
use crate::primitives::{Address, B256, Bytes, Fork, TxFields, TxType, U256};
use crate::state::{Snapshot, StateReader};
use crate::witness::bound::Touched;

mod journal;

type EvmContext<R> = Context<BlockEnv, TxEnv, CfgEnv, World<R>, WitnessJournal<R>, ()>;

type Evm<R> = MainnetEvm<EvmContext<R>>;

/// A transaction as execution needs it.
#[derive(Clone, Copy)]
pub struct ExecutableTx<'a> {
    pub fields: &'a TxFields,
    pub sender: Address,
    /// The 2718 encoding that the fields' spans point into.
    pub raw: &'a [u8],
    /// Recovered EIP-7702 authorities in list order; empty unless type 4.
    pub authorities: &'a [Option<Address>],
}

/// What a transaction at its place did. What it changed is in [`World::diffs`].
#[derive(Debug)]
pub struct Outcome {
    pub success: bool,
    pub gas_used: u64,
    pub logs: Vec<Log>,
}

/// Why a transaction could not be executed at all. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionError {
    #[error(transparent)]
    Invalid(InvalidTransaction),
    /// Fatal: the state cannot be read, or revm broke its own contract.
    #[error("the state under the block cannot be read: {0}")]
    World(#[from] WorldError),
    #[error("revm: {0}")]
    Other(String),
    #[error("the system call of {eip} failed: {what}")]
    SystemCall { eip: &'static str, what: String },
    #[error("a log of the deposit contract does not decode: {0}")]
    Deposit(String),
}

/// Executes transactions of one block after the other over one world.
pub struct Executor<R: StateReader = Snapshot> {
    evm: Evm<R>,
    chain_id: u64,
    deposit_contract: Address,
}

impl<R: StateReader> Executor<R> {
    #[must_use]
    pub fn new(world: World<R>, chain_id: u64, deposit_contract: Address, fork: Fork) -> Self {
        Self { evm: build_evm(world, chain_id, fork), chain_id, deposit_contract }
    }

    /// The world again, fit for another thread: an executor belongs to the thread that made it.
    #[must_use]
    pub fn into_world(self) -> World<R> {
        self.evm.ctx.journaled_state.inner.database
    }

    pub fn world(&mut self) -> &mut World<R> {
        &mut self.evm.ctx.journaled_state.inner.database
    }

    /// Sets the block's environment and makes the opening system calls (EIP-4788, EIP-2935). Their changes are handed to `on_diffs`.
    ///
    /// # Errors
    /// Fatal ones only.
    pub fn begin_block(
        &mut self,
        context: &BlockContext,
        mut on_diffs: impl FnMut(&mut World<R>),
    ) -> Result<(), ExecutionError> {
        self.world().begin_block(context.number);
        self.set_environment(context);
        for (eip, address, data) in [
            ("EIP-4788", eip4788::BEACON_ROOTS_ADDRESS, context.parent_beacon_block_root),
            ("EIP-2935", eip2935::HISTORY_STORAGE_ADDRESS, context.parent_hash),
        ] {
            self.system_call(eip, address, Bytes::copy_from_slice(data.as_slice()))?;
            on_diffs(self.world());
        }
        Ok(())
    }

    /// Goes on with a block that another executor began over the same world: its system calls were made there.
    pub fn continue_block(&mut self, context: &BlockContext) {
        self.set_environment(context);
    }

    fn set_environment(&mut self, context: &BlockContext) {
        let spec = spec_of(context.fork);
        if self.evm.ctx.cfg.spec != spec {
            self.evm.ctx.cfg = cfg_env(self.chain_id, context.fork);
            self.evm.instruction = journal::instructions(spec);
            self.evm.precompiles = EthPrecompiles::new(spec);
        }
        self.evm.set_block(block_env(context));
    }

    /// Executes and commits one transaction.
    ///
    /// # Errors
    /// `Invalid` when the transaction breaks a rule at this place; everything else is fatal.
    pub fn execute(&mut self, tx: &ExecutableTx<'_>) -> Result<Outcome, ExecutionError> {
        let mark = self.world().access_mark();
        self.evm.transact_commit(tx_env(tx)).map(outcome).map_err(|error| {
            self.world().forget_accesses(mark);
            execution_error(error)
        })
    }

    /// Executes one transaction and commits it only if `accepts` what it would do; the outcome is `None` otherwise, and nothing changed.
    ///
    /// # Errors
    /// As [`Executor::execute`].
    pub fn execute_if(
        &mut self,
        tx: &ExecutableTx<'_>,
        accepts: impl FnOnce(&Trial<'_>) -> bool,
    ) -> Result<Option<Outcome>, ExecutionError> {
        let coinbase = self.evm.ctx.block.beneficiary;
        let number = self.evm.ctx.block.number.saturating_to::<u64>();
        let before_wei = self.world().account(coinbase)?.balance_wei;
        let mark = self.world().access_mark();
        let executed = self.evm.transact(tx_env(tx)).map_err(|error| {
            self.world().forget_accesses(mark);
            execution_error(error)
        })?;
        let after_wei = executed.state.get(&coinbase).map_or(before_wei, |account| account.info.balance);
        let block_hash_lowest = self.world().block_hash_lowest();
        let trial = Trial {
            paid_wei: after_wei.saturating_sub(before_wei),
            // What an earlier transaction of the block asked for counts here too: more than is needed, never less.
            headers: block_hash_lowest.map_or(1, |lowest| number.saturating_sub(lowest).max(1)),
            state: &executed.state,
        };
        if !accepts(&trial) {
            self.world().forget_accesses(mark);
            return Ok(None);
        }
        self.evm.commit(executed.state);
        Ok(Some(outcome(executed.result)))
    }

    /// Makes the closing system calls and returns the block's EIP-7685 requests, type byte first, empty ones left out. The changes of
    /// each call are handed to `on_diffs`.
    ///
    /// # Errors
    /// Fatal ones only.
    pub fn end_block<'l>(
        &mut self,
        logs: impl Iterator<Item = &'l Log>,
        mut on_diffs: impl FnMut(&mut World<R>),
    ) -> Result<Vec<Bytes>, ExecutionError> {
        let mut requests = Vec::new();
        let mut deposits = Vec::new();
        accumulate_deposits_from_logs(self.deposit_contract, logs, &mut deposits)
            .map_err(|error| ExecutionError::Deposit(error.to_string()))?;
        push_request(&mut requests, eip6110::DEPOSIT_REQUEST_TYPE, &deposits);
        for (eip, address, request_type) in [
            ("EIP-7002", eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, eip7002::WITHDRAWAL_REQUEST_TYPE),
            ("EIP-7251", eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, eip7251::CONSOLIDATION_REQUEST_TYPE),
        ] {
            let output = self.system_call(eip, address, Bytes::new())?;
            on_diffs(self.world());
            push_request(&mut requests, request_type, &output);
        }
        Ok(requests)
    }

    fn system_call(&mut self, eip: &'static str, address: Address, data: Bytes) -> Result<Bytes, ExecutionError> {
        let failed = |what: String| ExecutionError::SystemCall { eip, what };
        match self.evm.system_call_commit(address, data) {
            Ok(ExecutionResult::Success { output: Output::Call(bytes), .. }) => Ok(bytes),
            Ok(other) => Err(failed(format!("{other:?}"))),
            Err(EVMError::Database(error)) => Err(ExecutionError::World(error)),
            Err(other) => Err(failed(other.to_string())),
        }
    }
}

/// What a transaction would do at its place.
pub struct Trial<'t> {
    /// To the block's coinbase.
    pub paid_wei: U256,
    /// Headers that a witness of the block up to here begins with.
    headers: u64,
    state: &'t EvmState,
}

impl Trial<'_> {
    /// What decides how large the transaction's witness can become. A reverted call has loaded what it has loaded, so it counts.
    #[must_use]
    pub fn touched(&self) -> Touched {
        let mut touched = Touched { accounts: self.state.len(), headers: self.headers as usize, ..Touched::default() };
        for account in self.state.values() {
            if !account.storage.is_empty() {
                touched.slots.push(account.storage.len());
            }
            let cleared = |slot: &&EvmStorageSlot| slot.present_value.is_zero() && !slot.original_value.is_zero();
            touched.deletions += account.storage.values().filter(cleared).count();
            touched.deletions += usize::from(account.is_selfdestructed() || account.is_empty());
            if let Some(code) = account.info.code.as_ref().filter(|code| !code.is_empty()) {
                touched.codes += 1;
                touched.code_bytes += code.original_byte_slice().len();
            }
        }
        touched
    }
}

/// `sha256(sha256(request_0) ++ …)` over non-empty requests (EIP-7685).
#[must_use]
pub fn requests_hash(requests: &[Bytes]) -> B256 {
    eip7685::Requests::new(requests.to_vec()).requests_hash()
}

fn execution_error(error: EVMError<WorldError>) -> ExecutionError {
    match error {
        EVMError::Transaction(invalid) => ExecutionError::Invalid(invalid),
        EVMError::Database(error) => ExecutionError::World(error),
        other => ExecutionError::Other(other.to_string()),
    }
}

fn push_request(requests: &mut Vec<Bytes>, request_type: u8, payload: &[u8]) {
    if payload.is_empty() {
        return;
    }
    let mut bytes = Vec::with_capacity(1 + payload.len());
    bytes.push(request_type);
    bytes.extend_from_slice(payload);
    requests.push(bytes.into());
}

/// The revm rule set of a fork.
#[must_use]
pub fn spec_of(fork: Fork) -> SpecId {
    match fork {
        Fork::Prague => SpecId::PRAGUE,
        Fork::Osaka => SpecId::OSAKA,
    }
}

/// A block's environment for revm: blob gas is never used here, so its price is the minimum.
#[must_use]
pub fn block_env(context: &BlockContext) -> BlockEnv {
    BlockEnv {
        number: U256::from(context.number),
        beneficiary: context.coinbase,
        timestamp: U256::from(context.timestamp),
        gas_limit: context.gas_limit,
        basefee: context.base_fee_per_gas_wei,
        difficulty: U256::ZERO,
        prevrandao: Some(context.prev_randao),
        blob_excess_gas_and_price: Some(BlobExcessGasAndPrice { excess_blob_gas: 0, blob_gasprice: 1 }),
        ..BlockEnv::default()
    }
}

fn build_evm<R: StateReader>(world: World<R>, chain_id: u64, fork: Fork) -> Evm<R> {
    let mut context = EvmContext::new(world, spec_of(fork));
    context.cfg = cfg_env(chain_id, fork);
    let mut evm = context.build_mainnet();
    evm.instruction = journal::instructions(spec_of(fork));
    evm
}

fn cfg_env(chain_id: u64, fork: Fork) -> CfgEnv {
    CfgEnv::new().with_chain_id(chain_id).with_spec_and_mainnet_gas_params(spec_of(fork))
}

/// revm's form of a transaction.
#[must_use]
pub fn tx_env(tx: &ExecutableTx<'_>) -> TxEnv {
    let fields = tx.fields;
    let input = fields.input.of(tx.raw);
    TxEnv {
        tx_type: fields.tx_type as u8,
        caller: tx.sender,
        gas_limit: fields.gas_limit,
        gas_price: fields.max_fee_per_gas_wei,
        kind: fields.to.map_or(TxKind::Create, TxKind::Call),
        value: fields.value_wei,
        data: if input.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(input) },
        nonce: fields.nonce,
        chain_id: fields.chain_id,
        access_list: access_list(tx),
        gas_priority_fee: matches!(fields.tx_type, TxType::DynamicFee | TxType::SetCode)
            .then_some(fields.max_priority_fee_per_gas_wei),
        blob_hashes: Vec::new(),
        max_fee_per_blob_gas: 0,
        authorization_list: authorization_list(tx),
    }
}

fn access_list(tx: &ExecutableTx<'_>) -> AccessList {
    if tx.fields.access_list_address_count == 0 {
        return AccessList::default();
    }
    let items = transaction::access_list(tx.raw, tx.fields)
        .map(|(address, slots)| AccessListItem { address, storage_keys: slots.collect() })
        .collect();
    AccessList(items)
}

fn authorization_list(tx: &ExecutableTx<'_>) -> Vec<Either<SignedAuthorization, RecoveredAuthorization>> {
    if tx.fields.authorization_count == 0 {
        return Vec::new();
    }
    transaction::authorizations(tx.raw, tx.fields)
        .zip(tx.authorities)
        .map(|(item, authority)| {
            let authorization = Authorization { chain_id: item.chain_id, address: item.address, nonce: item.nonce };
            let authority = authority.map_or(RecoveredAuthority::Invalid, RecoveredAuthority::Valid);
            Either::Right(RecoveredAuthorization::new_unchecked(authorization, authority))
        })
        .collect()
}

fn outcome(result: ExecutionResult) -> Outcome {
    let gas_used = result.tx_gas_used();
    match result {
        ExecutionResult::Success { logs, .. } => Outcome { success: true, gas_used, logs },
        ExecutionResult::Revert { .. } | ExecutionResult::Halt { .. } => {
            Outcome { success: false, gas_used, logs: Vec::new() }
        }
    }
}
