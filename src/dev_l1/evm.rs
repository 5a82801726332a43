//! Transactions and system calls of one block through revm, with the EXECUTE precompile in its place.

use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_primitives::Log;
use revm::context::result::{EVMError, ExecutionResult, HaltReason, InvalidTransaction, Output};
use revm::context::{BlockEnv, CfgEnv, Context, Evm, FrameStack, Journal, TxEnv};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::handler::EthFrame;
use revm::handler::instructions::EthInstructions;
use revm::interpreter::interpreter::EthInterpreter;
use revm::{ExecuteCommitEvm, ExecuteEvm, MainContext, SystemCallCommitEvm};

use super::config::L1Fork;
use super::overlay::{Overlay, OverlayError};
use super::precompile::{Execute, L1Precompiles, Verdict};
use crate::primitives::{Address, B256, Bytes, U256};
use crate::state::StateReader;

/// What a block gives to execution.
#[derive(Clone, Copy, Debug)]
pub struct BlockFacts {
    pub number: u64,
    pub timestamp: u64,
    pub coinbase: Address,
    pub gas_limit: u64,
    pub base_fee_wei: u64,
    pub prev_randao: B256,
    pub parent_hash: B256,
    pub parent_beacon_block_root: B256,
}

/// What a transaction did.
#[derive(Clone, Debug)]
pub struct TxOutcome {
    pub success: bool,
    pub gas_used: u64,
    pub logs: Vec<Log>,
    /// Returned or reverted with.
    pub output: Bytes,
    pub contract_address: Option<Address>,
    /// Why it failed, when it did not revert.
    pub halt: Option<HaltReason>,
    /// What the EXECUTE precompile said, call by call.
    pub verdicts: Vec<Verdict>,
}

/// Why a transaction was not executed at all.
#[derive(Debug, thiserror::Error)]
pub enum EvmError {
    /// It does not belong here, at least not now.
    #[error("{0}")]
    Invalid(InvalidTransaction),
    #[error(transparent)]
    State(#[from] OverlayError),
    #[error("revm: {0}")]
    Other(String),
}

type EvmContext<'a, R> = Context<BlockEnv, TxEnv, CfgEnv, Overlay<'a, R>, Journal<Overlay<'a, R>>, ()>;
type Instructions<'a, R> = EthInstructions<EthInterpreter, EvmContext<'a, R>>;

/// See the module's text.
pub struct BlockEvm<'a, R: StateReader> {
    evm: Evm<EvmContext<'a, R>, (), Instructions<'a, R>, L1Precompiles<'a>, EthFrame<EthInterpreter>>,
}

impl<'a, R: StateReader> BlockEvm<'a, R> {
    /// `execute` is left out where the rules have no such precompile.
    #[must_use]
    pub fn new(overlay: Overlay<'a, R>, facts: &BlockFacts, fork: L1Fork, chain_id: u64, execute: &'a Execute) -> Self {
        let block = BlockEnv {
            number: U256::from(facts.number),
            beneficiary: facts.coinbase,
            timestamp: U256::from(facts.timestamp),
            gas_limit: facts.gas_limit,
            basefee: facts.base_fee_wei,
            prevrandao: Some(facts.prev_randao),
            blob_excess_gas_and_price: Some(BlobExcessGasAndPrice { excess_blob_gas: 0, blob_gasprice: 1 }),
            ..BlockEnv::default()
        };
        let cfg = CfgEnv::new().with_chain_id(chain_id).with_spec_and_mainnet_gas_params(fork.spec());
        let ctx = Context::mainnet().with_db(overlay).with_block(block).with_cfg(cfg);
        let evm = Evm {
            ctx,
            inspector: (),
            instruction: EthInstructions::new_mainnet_with_spec(fork.spec()),
            precompiles: L1Precompiles::new(fork.spec(), fork.has_execute().then_some(execute)),
            frame_stack: FrameStack::new_prealloc(8),
        };
        Self { evm }
    }

    /// A call that nobody signed: no bound on its gas but its own.
    #[must_use]
    pub fn for_calls(mut self) -> Self {
        self.evm.ctx.cfg.tx_gas_limit_cap = Some(u64::MAX);
        self.evm.ctx.cfg.disable_nonce_check = true;
        self.evm.ctx.block.gas_limit = u64::MAX;
        self
    }

    /// The calls that open a block: EIP-4788, and EIP-2935 from Prague on.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn open(&mut self, facts: &BlockFacts, fork: L1Fork) -> Result<(), EvmError> {
        self.system_call(eip4788::BEACON_ROOTS_ADDRESS, facts.parent_beacon_block_root.0.into())?;
        if fork.is_prague() {
            self.system_call(eip2935::HISTORY_STORAGE_ADDRESS, facts.parent_hash.0.into())?;
        }
        Ok(())
    }

    /// The calls that close a block: EIP-7685 requests, type byte first, empty ones left out.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn close(&mut self, fork: L1Fork) -> Result<Vec<Bytes>, EvmError> {
        let mut requests = Vec::new();
        if !fork.is_prague() {
            return Ok(requests);
        }
        for (request_type, address) in [
            (eip7002::WITHDRAWAL_REQUEST_TYPE, eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS),
            (eip7251::CONSOLIDATION_REQUEST_TYPE, eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS),
        ] {
            let output = self.system_call(address, Bytes::new())?;
            if !output.is_empty() {
                requests.push([&[request_type][..], &output].concat().into());
            }
        }
        Ok(requests)
    }

    fn system_call(&mut self, address: Address, data: Bytes) -> Result<Bytes, EvmError> {
        match self.evm.system_call_commit(address, data).map_err(evm_error)? {
            ExecutionResult::Success { output, .. } => Ok(output.into_data()),
            other => Err(EvmError::Other(format!("the system call of {address} failed: {other:?}"))),
        }
    }

    /// Executes one transaction and keeps what it changed.
    ///
    /// # Errors
    /// `Invalid`: nothing changed. Anything else is fatal.
    pub fn execute(&mut self, tx: TxEnv) -> Result<TxOutcome, EvmError> {
        self.evm.precompiles.verdicts.clear();
        let result = self.evm.transact_commit(tx).map_err(evm_error)?;
        Ok(self.outcome(result))
    }

    /// Executes one transaction and forgets what it changed.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub fn try_execute(&mut self, tx: TxEnv) -> Result<TxOutcome, EvmError> {
        self.evm.precompiles.verdicts.clear();
        let result = self.evm.transact(tx).map_err(evm_error)?.result;
        Ok(self.outcome(result))
    }

    fn outcome(&mut self, result: ExecutionResult) -> TxOutcome {
        let verdicts = std::mem::take(&mut self.evm.precompiles.verdicts);
        let gas_used = result.tx_gas_used();
        let base = TxOutcome {
            success: false,
            gas_used,
            logs: Vec::new(),
            output: Bytes::new(),
            contract_address: None,
            halt: None,
            verdicts,
        };
        match result {
            ExecutionResult::Success { logs, output, .. } => {
                let contract_address = match &output {
                    Output::Create(_, address) => *address,
                    Output::Call(_) => None,
                };
                TxOutcome { success: true, logs, output: output.into_data(), contract_address, ..base }
            }
            ExecutionResult::Revert { output, .. } => TxOutcome { output, ..base },
            ExecutionResult::Halt { reason, .. } => TxOutcome { halt: Some(reason), ..base },
        }
    }

    /// What the block has made of the state.
    pub fn overlay(&mut self) -> &mut Overlay<'a, R> {
        &mut self.evm.ctx.journaled_state.database
    }

    #[must_use]
    pub fn into_overlay(self) -> Overlay<'a, R> {
        self.evm.ctx.journaled_state.database
    }
}

fn evm_error(error: EVMError<OverlayError>) -> EvmError {
    match error {
        EVMError::Transaction(invalid) => EvmError::Invalid(invalid),
        EVMError::Database(error) => EvmError::State(error),
        other => EvmError::Other(other.to_string()),
    }
}
