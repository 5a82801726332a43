//! What the L1 node's precompile does: one call over the nodes of a witness, and six ways to answer without one.
//!
//! Held to the vectors of the node, errors' words included. It proves nothing about an L2 block: what the witness lacks looks absent,
//! and every answer but an error is success.

use alloy_consensus::Header;
use alloy_rlp::Decodable;
use revm::context::result::EVMError;
use revm::context::{BlockEnv, CfgEnv, Context};
use revm::context_interface::{ContextTr, JournalTr, LocalContextTr};
use revm::handler::{EthFrame, FrameResult, Handler, MainnetHandler};
use revm::interpreter::interpreter_action::FrameInit;
use revm::interpreter::{CallInput, CallInputs, CallScheme, CallValue, FrameInput, InstructionResult, SharedMemory};
use revm::primitives::hardfork::SpecId;
use revm::{DatabaseCommit, MainBuilder, MainContext};

use super::{ExecuteCall, two_words};
use crate::crypto::keccak::keccak256;
use crate::dev_l1::overlay::{Missing, Overlay, OverlayError};
use crate::l1::execute_tx::EXECUTE_ADDRESS;
use crate::primitives::{B256, Bytes, U256};
use crate::state::ROOT_EMPTY;
use crate::witness::Witness;
use crate::witness::validator::partial_state::{PartialReader, PartialState};

/// What the node answers where it does not execute, beside 16 for each byte of the data.
const PLACEHOLDER_GAS: u64 = 21_000;
const PLACEHOLDER_GAS_PER_BYTE: u64 = 16;
/// The one chain id whose rules follow the block's number.
const MAINNET_CHAIN_ID: u64 = 1;
/// First block of each rule set of mainnet; nothing after London, because the node's context never says that it is after the merge.
const MAINNET_RULES: [(u64, SpecId); 9] = [
    (12_965_000, SpecId::LONDON),
    (12_244_000, SpecId::BERLIN),
    (9_069_000, SpecId::ISTANBUL),
    (7_280_000, SpecId::PETERSBURG),
    (4_370_000, SpecId::BYZANTIUM),
    (2_675_000, SpecId::SPURIOUS_DRAGON),
    (2_463_000, SpecId::TANGERINE),
    (1_150_000, SpecId::HOMESTEAD),
    (0, SpecId::FRONTIER),
];

pub(super) fn run(call: &ExecuteCall<'_>) -> Result<Bytes, String> {
    if call.to.is_zero() && call.data.is_empty() && call.value.is_zero() {
        return Ok(two_words(U256::ZERO, call.pre_state_root));
    }
    if call.pre_state_root.is_zero() || call.witness.is_empty() {
        return Ok(two_words(U256::from(PLACEHOLDER_GAS), B256::ZERO));
    }
    match usable_witness(call) {
        Some((witness, headers)) => execute(call, &witness, &headers),
        None => {
            let gas = PLACEHOLDER_GAS + PLACEHOLDER_GAS_PER_BYTE * call.data.len() as u64;
            Ok(two_words(U256::from(gas), call.pre_state_root))
        }
    }
}

/// The witness and its headers, if it decodes, has nodes, and its first header is that of the pre-state.
fn usable_witness(call: &ExecuteCall<'_>) -> Option<(Witness, Vec<Header>)> {
    let witness = Witness::decode(&Bytes::copy_from_slice(call.witness)).ok()?;
    let headers: Vec<Header> =
        witness.headers.iter().map(|bytes| Header::decode(&mut &bytes[..])).collect::<Result<_, _>>().ok()?;
    let is_usable = !witness.state.is_empty() && headers.first()?.state_root == call.pre_state_root;
    is_usable.then_some((witness, headers))
}

fn rules(call: &ExecuteCall<'_>) -> SpecId {
    if call.chain_id != U256::from(MAINNET_CHAIN_ID) {
        return SpecId::LONDON;
    }
    let started = MAINNET_RULES.iter().find(|(first, _)| *first <= call.block_number);
    started.map_or(SpecId::FRONTIER, |(_, spec)| *spec)
}

fn execute(call: &ExecuteCall<'_>, witness: &Witness, headers: &[Header]) -> Result<Bytes, String> {
    if call.pre_state_root != ROOT_EMPTY && !witness.state.iter().any(|node| keccak256(node) == call.pre_state_root) {
        let root = call.pre_state_root;
        return Err(format!("failed to create stateless StateDB: missing trie node {root:x} (path )"));
    }
    let mut state = PartialState::new(&call.pre_state_root, witness);
    // Off by one, as the node has it: with one header, the hash of the parent is zero.
    let hashes: Vec<B256> = headers.iter().map(Header::hash_slow).collect();
    let number = call.block_number;
    let hash_of = move |asked: u64| {
        let index = number.checked_sub(asked).and_then(|back| usize::try_from(back).ok());
        index.and_then(|index| hashes.get(index).copied()).unwrap_or_default()
    };
    let overlay = Overlay::new(state.reader(), Missing::Absent, &hash_of);
    let (changes, gas_used, output) = {
        let (result, overlay) = call_once(call, overlay).map_err(|error| error.to_string())?;
        let gas_used = call.gas - result.gas().remaining();
        if let Some(what) = failure(result.instruction_result()) {
            return Err(format!("EXECUTE precompile execution failed (gas consumed: {gas_used}): {what}"));
        }
        let output = result.into_interpreter_result().output;
        (overlay.into_changes(), gas_used, output)
    };
    // The node never asks whether the trie had all its nodes: where it had not, nothing changes.
    let post_root = state.root_after(&changes).unwrap_or(call.pre_state_root);
    Ok([&two_words(U256::from(gas_used), post_root)[..], &output].concat().into())
}

type WitnessOverlay<'a, 's, 'w> = Overlay<'a, PartialReader<'s, 'w>>;

/// One message from 0x12, without a transaction around it: no nonce, no fee, nothing warm.
fn call_once<'a, 's, 'w>(
    call: &ExecuteCall<'_>,
    overlay: WitnessOverlay<'a, 's, 'w>,
) -> Result<(FrameResult, WitnessOverlay<'a, 's, 'w>), EVMError<OverlayError>> {
    let spec = rules(call);
    let block = BlockEnv {
        number: U256::from(call.block_number),
        beneficiary: call.coinbase,
        timestamp: U256::from(call.timestamp),
        gas_limit: call.gas,
        basefee: call.price_wei,
        difficulty: U256::ZERO,
        prevrandao: None,
        ..BlockEnv::default()
    };
    // CHAINID has 64 bits here; an L1 whose id has more would show its low ones.
    let cfg = CfgEnv::new().with_chain_id(call.chain_id.as_limbs()[0]).with_spec_and_mainnet_gas_params(spec);
    let mut evm = Context::mainnet().with_db(overlay).with_block(block).with_cfg(cfg).build_mainnet();
    evm.ctx.journal_mut().set_spec_id(spec);
    // A transfer finds both loaded; the node's access list is empty though, so to the code inside they are cold.
    evm.ctx.journal_mut().load_account(EXECUTE_ADDRESS)?;
    let code = evm.ctx.journal_mut().load_account_with_code(call.to)?;
    let known_bytecode = (code.info.code_hash(), code.info.code.clone().unwrap_or_default());
    evm.ctx.journaled_state.inner.state.values_mut().for_each(|account| account.mark_cold());
    let inputs = CallInputs {
        input: CallInput::Bytes(Bytes::copy_from_slice(call.data)),
        return_memory_offset: 0..0,
        gas_limit: call.gas,
        reservoir: 0,
        bytecode_address: call.to,
        known_bytecode,
        target_address: call.to,
        caller: EXECUTE_ADDRESS,
        value: CallValue::Transfer(call.value),
        scheme: CallScheme::Call,
        is_static: false,
        charged_new_account_state_gas: false,
    };
    let memory = SharedMemory::new_with_buffer(evm.ctx.local().shared_memory_buffer().clone());
    let frame = FrameInit { depth: 0, memory, frame_input: FrameInput::Call(Box::new(inputs)) };
    let result = MainnetHandler::<_, EVMError<OverlayError>, EthFrame>::default().run_exec_loop(&mut evm, frame)?;
    let changes = evm.ctx.journal_mut().finalize();
    let mut overlay = evm.ctx.journaled_state.database;
    if result.instruction_result().is_ok() {
        overlay.commit(changes);
    }
    Ok((result, overlay))
}

/// The node's words for a call that failed.
fn failure(result: InstructionResult) -> Option<String> {
    if result.is_ok() {
        return None;
    }
    Some(match result {
        InstructionResult::Revert => "execution reverted".to_owned(),
        InstructionResult::OutOfFunds => "insufficient balance for transfer".to_owned(),
        InstructionResult::OutOfGas
        | InstructionResult::MemoryOOG
        | InstructionResult::MemoryLimitOOG
        | InstructionResult::PrecompileOOG
        | InstructionResult::InvalidOperandOOG
        | InstructionResult::ReentrancySentryOOG => "out of gas".to_owned(),
        InstructionResult::OpcodeNotFound | InstructionResult::NotActivated | InstructionResult::InvalidFEOpcode => {
            "invalid opcode".to_owned()
        }
        InstructionResult::InvalidJump => "invalid jump destination".to_owned(),
        InstructionResult::StackUnderflow => "stack underflow".to_owned(),
        InstructionResult::StackOverflow => "stack limit reached 1024 (1023)".to_owned(),
        InstructionResult::CallTooDeep => "max call depth exceeded".to_owned(),
        other => format!("{other:?}"),
    })
}
