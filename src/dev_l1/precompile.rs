//! The EXECUTE precompile at 0x12: the calldata read back, and what is made of it.
//!
//! `compat` does what the L1 node does ([`compat`]); `strict` asks a [`StrictJudge`]. Execution is free on L1: the precompile costs no gas.

mod compat;

use alloy_primitives::map::AddressSet;
use revm::context_interface::{Cfg, ContextTr};
use revm::handler::{EthPrecompiles, PrecompileProvider};
use revm::interpreter::{CallInputs, Gas, InstructionResult, InterpreterResult};
use revm::primitives::hardfork::SpecId;
use serde_json::Value;

use crate::l1::execute_tx::{EXECUTE_ADDRESS, ExecuteTx, Payload, Signature, Terms};
use crate::l1::profile::Profile;
use crate::primitives::{Address, B256, Bytes, U256};

/// Decides whether a batch is what it says it is. Pure: the same transaction, the same answer.
pub trait StrictJudge: Send {
    /// Judges by payload, chain id and gas: nonce, fees and signature are not in the calldata and are zero here.
    ///
    /// # Errors
    /// What is wrong, in words.
    fn judge(&self, tx: &ExecuteTx) -> Result<JudgeOutput, String>;
}

/// A batch that holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JudgeOutput {
    /// Of L2, by the whole batch.
    pub gas_used: u64,
    /// After the last segment.
    pub post_state_root: B256,
    /// What `dev_executeResult` shows beside it.
    pub report: Value,
}

/// What the precompile does.
pub enum Execute {
    Compat,
    Strict(Box<dyn StrictJudge>),
}

/// What one call of the precompile came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What it returned, or what was wrong.
    pub result: Result<Bytes, String>,
    /// Of the judge; null otherwise.
    pub report: Value,
}

/// The calldata of the precompile, read back.
#[derive(Clone, Copy, Debug)]
struct ExecuteCall<'a> {
    chain_id: U256,
    pre_state_root: B256,
    gas: u64,
    coinbase: Address,
    block_number: u64,
    price_wei: u64,
    timestamp: u64,
    witness: &'a [u8],
    withdrawals: &'a [u8],
    anchor: &'a [u8],
    to: Address,
    value: U256,
    data: &'a [u8],
}

/// What the L1 node says of calldata that is too short.
const INVALID_FORMAT: &str = "EXECUTE precompile: invalid input format";

/// Takes `N` bytes off the front.
fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(head)
}

fn take_bytes<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(bytes)?;
    *rest = tail;
    Some(head)
}

impl<'a> ExecuteCall<'a> {
    /// Bytes behind the data are ignored, as L1 ignores them.
    fn parse(mut input: &'a [u8]) -> Option<Self> {
        let rest = &mut input;
        let chain_id = U256::from_be_bytes(*take::<32>(rest)?);
        let pre_state_root = B256::from(take::<32>(rest)?);
        let gas = u64::from_le_bytes(*take(rest)?);
        let mut length = || Some(usize::from(u16::from_le_bytes(*take(rest)?)));
        let lengths = [length()?, length()?, length()?];
        take::<2>(rest)?;
        let coinbase = Address::from(take::<20>(rest)?);
        let block_number = u64::from_le_bytes(*take(rest)?);
        let price_wei = u64::from_le_bytes(*take(rest)?);
        let timestamp = u64::from_le_bytes(*take(rest)?);
        let witness = take_bytes(rest, lengths[0])?;
        let withdrawals = take_bytes(rest, lengths[1])?;
        let anchor = take_bytes(rest, lengths[2])?;
        let to = Address::from(take::<20>(rest)?);
        let value = U256::from_be_bytes(*take::<32>(rest)?);
        let data_bytes = u32::from_le_bytes(*take(rest)?);
        let data = take_bytes(rest, data_bytes as usize)?;
        Some(Self {
            chain_id,
            pre_state_root,
            gas,
            coinbase,
            block_number,
            price_wei,
            timestamp,
            witness,
            withdrawals,
            anchor,
            to,
            value,
            data,
        })
    }

    /// The transaction as far as the calldata has it.
    fn transaction(&self) -> ExecuteTx {
        ExecuteTx {
            profile: Profile::ExecuteTxV2,
            terms: Terms { chain_id: self.chain_id, gas: self.gas, ..Terms::default() },
            payload: Payload {
                to: (!self.to.is_zero()).then_some(self.to),
                value: self.value,
                data: Bytes::copy_from_slice(self.data),
                pre_state_root: self.pre_state_root,
                coinbase: self.coinbase,
                block_number: self.block_number,
                timestamp: self.timestamp,
                witness: Bytes::copy_from_slice(self.witness),
                withdrawals: Bytes::copy_from_slice(self.withdrawals),
                anchor: Bytes::copy_from_slice(self.anchor),
            },
            signature: Signature { odd_y: false, r: U256::ZERO, s: U256::ZERO },
        }
    }
}

impl Execute {
    /// One call of the precompile.
    #[must_use]
    pub fn run(&self, input: &[u8]) -> Verdict {
        let Some(call) = ExecuteCall::parse(input) else {
            return Verdict { result: Err(INVALID_FORMAT.to_owned()), report: Value::Null };
        };
        match self {
            Self::Compat => Verdict { result: compat::run(&call), report: Value::Null },
            Self::Strict(judge) => match judge.judge(&call.transaction()) {
                Ok(output) => Verdict {
                    result: Ok(two_words(U256::from(output.gas_used), output.post_state_root)),
                    report: output.report,
                },
                Err(what) => Verdict { result: Err(what), report: Value::Null },
            },
        }
    }
}

/// Gas and state root: what the precompile returns before anything else.
fn two_words(gas: U256, root: B256) -> Bytes {
    [gas.to_be_bytes::<32>(), root.0].concat().into()
}

/// The precompiles of a rule set, with 0x12 where the rules have it.
pub struct L1Precompiles<'a> {
    ordinary: EthPrecompiles,
    execute: Option<&'a Execute>,
    addresses: AddressSet,
    /// Of the calls since they were taken last, in order.
    pub verdicts: Vec<Verdict>,
}

impl<'a> L1Precompiles<'a> {
    #[must_use]
    pub fn new(spec: SpecId, execute: Option<&'a Execute>) -> Self {
        let ordinary = EthPrecompiles::new(spec);
        let mut addresses = ordinary.warm_addresses().clone();
        addresses.extend(execute.map(|_| EXECUTE_ADDRESS));
        Self { ordinary, execute, addresses, verdicts: Vec::new() }
    }
}

impl<CTX: ContextTr<Cfg: Cfg<Spec = SpecId>>> PrecompileProvider<CTX> for L1Precompiles<'_> {
    type Output = InterpreterResult;

    /// The rules of an instance never change.
    fn set_spec(&mut self, _spec: SpecId) -> bool {
        false
    }

    fn run(&mut self, context: &mut CTX, inputs: &CallInputs) -> Result<Option<InterpreterResult>, String> {
        let execute = self.execute.filter(|_| inputs.bytecode_address == EXECUTE_ADDRESS);
        let Some(execute) = execute else { return self.ordinary.run(context, inputs) };
        let verdict = execute.run(&inputs.input.as_bytes(context));
        let mut gas = Gas::new(inputs.gas_limit);
        let result = match &verdict.result {
            Ok(output) => InterpreterResult::new(InstructionResult::Return, output.clone(), gas),
            Err(_) => {
                gas.spend_all();
                InterpreterResult::new(InstructionResult::PrecompileError, Bytes::new(), gas)
            }
        };
        self.verdicts.push(verdict);
        Ok(Some(result))
    }

    fn warm_addresses(&self) -> &AddressSet {
        &self.addresses
    }
}

#[cfg(test)]
mod tests;
