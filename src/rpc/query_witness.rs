//! Witnesses and proofs: `debug_executionWitness`, `debug_generateBlockWitness`, `debug_generateWitness`, `eth_getProof`.
//!
//! A witness is made by executing again on the state before, as long as that is kept.

use crate::builder::block::{BlockContext, SealedBlock};
use crate::builder::block_execution::{
    BlockExecutionError, BlockRun, ExecutedBlock, PreparedTx, execute_block, recover_authorities,
};
use crate::builder::execution::{ExecutionError, Executor};
use crate::builder::world::{World, WorldError};
use crate::codec::{hex, transaction};
use crate::messages::MeasureJob;
use crate::primitives::{B256, Bytes, U256};
use crate::rpc::encode;
use crate::rpc::error::RpcError;
use crate::rpc::json::{self, Object};
use crate::rpc::params::{Argument, BlockId, Params};
use crate::rpc::query::{KeptState, QueryContext};
use crate::rpc::source::BlockSource;
use crate::rpc::view::StateAt;
use crate::state::{Snapshot, StateReader};
use crate::witness::Witness;

/// Slots of one `eth_getProof`, as in go-ethereum.
const PROOF_SLOTS_MAX: usize = 1_024;
/// Blocks whose hashes `BLOCKHASH` gives.
const BLOCK_HASHES: u64 = 256;

/// `debug_executionWitness`: go-ethereum's JSON form, headers as objects and `keys` null.
pub fn execution_witness(context: &QueryContext<'_>, params: &[u8], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let argument = Params::parse(params, 1)?.required(0, "block")?;
    let (_, witness) = block_witness(context, argument.block()?)?;
    let mut object = Object::begin(out);
    let mut headers = Vec::with_capacity(witness.headers.len());
    for rlp in &witness.headers {
        let header: alloy_consensus::Header = alloy_rlp::Decodable::decode(&mut &rlp[..])
            .map_err(|error| RpcError::internal(format!("a header of the witness: {error}")))?;
        headers.push((header, crate::crypto::keccak::keccak256(rlp)));
    }
    json::array(headers, object.member("headers"), |(header, hash), out| encode::header(&header, hash, out));
    json::array(&witness.codes, object.member("codes"), |code, out| json::data(code, out));
    json::array(&witness.state, object.member("state"), |node, out| json::data(node, out));
    object.null("keys");
    object.end();
    Ok(())
}

/// `debug_generateBlockWitness`: RLP in hex, and what it is of.
pub fn generate_block_witness(context: &QueryContext<'_>, params: &[u8], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let argument = Params::parse(params, 1)?.required(0, "block")?;
    // Also a number in decimal, as the tools of this method's first home send it.
    let decimal = argument.text().ok().and_then(|text| text.parse().ok()).map(BlockId::Number);
    let (source, witness) = block_witness(context, decimal.map_or_else(|| argument.block(), Ok)?)?;
    let encoded = witness.encode();
    let mut object = Object::begin(out);
    object.data("witness", &encoded);
    integer(&mut object, "witnessSize", encoded.len() as u64);
    integer(&mut object, "blockNumber", source.place().block_number);
    integer(&mut object, "transactionCount", source.tx_count() as u64);
    object.end();
    Ok(())
}

/// `debug_generateWitness`: what one transaction needs on top of `latest`, were it alone in the next block.
pub fn generate_witness(context: &QueryContext<'_>, params: &[u8], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let argument = Params::parse(params, 1)?.required(0, "transaction")?;
    let text = argument.text()?;
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    let raw = hex::parse_data(&format!("0x{digits}")).map_err(|error| argument.invalid(error))?;
    let tx = PreparedTx::recover(raw.into()).map_err(|error| argument.invalid(error))?;
    let witness = witness_on(context, context.view.latest(), &tx)?.encode();
    let mut object = Object::begin(out);
    object.data("witness", &witness);
    integer(&mut object, "witnessSize", witness.len() as u64);
    object.end();
    Ok(())
}

/// Bytes of what one transaction needs on top of the newest block, were it alone in the next one; `None` where it cannot be executed there.
#[must_use]
pub fn measure(context: &QueryContext<'_>, job: MeasureJob) -> Option<u64> {
    let decoded = transaction::decode(&job.raw).ok()?;
    let tx = PreparedTx { raw: job.raw, decoded, sender: job.sender, authorities: job.authorities };
    // Also one that is not durable yet: nothing of it leaves the process.
    let newest = context.view.heads.recent.last().unwrap_or(&context.view.heads.latest);
    witness_on(context, newest, &tx).ok().map(|witness| witness.encode().len() as u64)
}

/// The witness of one transaction in the block after `parent`.
fn witness_on(context: &QueryContext<'_>, parent: &SealedBlock, tx: &PreparedTx) -> Result<Witness, RpcError> {
    let next = BlockContext { number: parent.header.number + 1, parent_hash: parent.hash, ..context.next_context() };
    let executed = with_hashes(context, next.number, |hashes| {
        let mut executor = executor(context, &parent.state, &next, hashes);
        let mut run = BlockRun::resume(&mut executor, &next, 0);
        run.transaction(&tx.executable())?;
        run.suspend()
    })?;
    collect(context, next.number, &parent.state, &executed)
}

/// `eth_getProof` (EIP-1186).
pub fn get_proof(context: &QueryContext<'_>, params: &[u8], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let arguments = Params::parse(params, 3)?;
    let address = arguments.required(0, "address")?.address()?;
    let keys = arguments.required(1, "storage keys")?;
    let list: Vec<String> = serde_json::from_value(keys.value()?).map_err(|error| keys.invalid(error))?;
    if list.len() > PROOF_SLOTS_MAX {
        return Err(keys.invalid(format!("{} storage keys, at most {PROOF_SLOTS_MAX} are proved", list.len())));
    }
    let slots = list.iter().map(|text| slot(&keys, text)).collect::<Result<Vec<_>, _>>()?;
    let block = arguments.optional(2, "block").map_or(Ok(BlockId::Latest), |argument| argument.block())?;
    let kept = context.state_at(block)?;
    if matches!(kept, KeptState::Recent(StateAt::Pending)) {
        return Err(RpcError::server("there is no proof of pending state: it has no root yet"));
    }
    let state_fault = |error: crate::state::StateError| RpcError::internal(error.to_string());
    let words: Vec<U256> = slots.iter().map(|(slot, _)| *slot).collect();
    let proof = kept.snapshot(&context.view).proof(&address, &words).map_err(state_fault)?;
    let account = proof.account;
    let mut object = Object::begin(out);
    object.data("address", address);
    json::array(&proof.account_proof, object.member("accountProof"), |node, out| json::data(node, out));
    object.quantity("balance", account.map_or(U256::ZERO, |account| account.balance_wei));
    // An account that is not there has no hashes, not those of nothing.
    object.data("codeHash", account.map_or(B256::ZERO, |account| account.code_hash));
    object.quantity("nonce", account.map_or(0, |account| account.nonce));
    object.data("storageHash", account.map_or(B256::ZERO, |account| account.storage_root));
    json::array(proof.storage.iter().zip(&slots), object.member("storageProof"), |(proof, (slot, is_word)), out| {
        let mut object = Object::begin(out);
        match is_word {
            true => object.data("key", slot.to_be_bytes::<32>()),
            false => object.quantity("key", *slot),
        }
        object.quantity("value", proof.value);
        json::array(&proof.proof, object.member("proof"), |node, out| json::data(node, out));
        object.end();
    });
    object.end();
    Ok(())
}

/// A storage key, and whether it was given in 32 bytes, which is how it is given back.
fn slot(keys: &Argument<'_>, text: &str) -> Result<(U256, bool), RpcError> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    if digits.len() > 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(keys.invalid(format!("storage key {text:.80} is not hex of at most 32 bytes")));
    }
    let value = if digits.is_empty() { Ok(U256::ZERO) } else { U256::from_str_radix(digits, 16) };
    Ok((value.map_err(|error| keys.invalid(error))?, digits.len() > 62))
}

/// A plain JSON number.
fn integer(object: &mut Object<'_>, name: &str, value: u64) {
    object.member(name).extend_from_slice(value.to_string().as_bytes());
}

/// Executes a sealed block again, on the state that its parent left.
fn block_witness<'a>(context: &QueryContext<'a>, block: BlockId) -> Result<(BlockSource<'a>, Witness), RpcError> {
    let source = context.resolve(block)?.ok_or_else(|| RpcError::server("header not found"))?;
    let Some((header, _)) = source.header() else {
        return Err(RpcError::server("the pending block has no witness yet"));
    };
    let number = header.number;
    let Some(parent_number) = number.checked_sub(1) else {
        return Err(RpcError::server("block 0 is not executed and has no witness"));
    };
    let parent = context.state_at(BlockId::Number(parent_number))?;
    let parent = parent.snapshot(&context.view);
    let txs = prepared(&source)?;
    let block_context = BlockContext::of_header(header, (context.fork_at)(header.timestamp));
    let executed = with_hashes(context, number, |hashes| {
        let mut executor = executor(context, parent, &block_context, hashes);
        execute_block(&mut executor, &block_context, &txs, &[])
    })?;
    if executed.receipts_root != header.receipts_root {
        let (computed, sealed) = (executed.receipts_root, header.receipts_root);
        return Err(RpcError::internal(format!("block {number} was sealed with receipts {sealed}, now {computed}")));
    }
    let witness = collect(context, number, parent, &executed)?;
    Ok((source, witness))
}

/// The transactions of a block whose senders are known.
fn prepared(source: &BlockSource<'_>) -> Result<Vec<PreparedTx>, RpcError> {
    let mut txs = Vec::with_capacity(source.tx_count());
    for index in 0..source.tx_count() {
        let Some(tx) = source.transaction(index)? else { break };
        let raw = Bytes::copy_from_slice(tx.raw);
        let decoded = transaction::decode(&raw)
            .map_err(|error| RpcError::internal(format!("placed transaction {} does not decode: {error}", tx.hash)))?;
        let authorities = recover_authorities(&raw, &decoded);
        txs.push(PreparedTx { raw, decoded, sender: tx.sender, authorities });
    }
    Ok(txs)
}

fn executor(
    context: &QueryContext<'_>,
    state: &Snapshot,
    block: &BlockContext,
    hashes: &[(u64, B256)],
) -> Executor<Snapshot> {
    let mut world = World::with_room(state.clone(), 256);
    for (number, hash) in hashes {
        world.set_block_hash(*number, *hash);
    }
    Executor::new(world, context.view.settings.chain_id, context.deposit_contract, block.fork)
}

/// Executes with the block hashes that are in memory; with all that can be asked for when one is missing.
fn with_hashes(
    context: &QueryContext<'_>,
    number: u64,
    execute: impl Fn(&[(u64, B256)]) -> Result<ExecutedBlock, BlockExecutionError>,
) -> Result<ExecutedBlock, RpcError> {
    let recent = context.view.heads.recent.iter().filter(|block| block.header.number < number);
    let mut hashes: Vec<(u64, B256)> = recent.map(|block| (block.header.number, block.hash)).collect();
    let outcome = execute(&hashes);
    let outcome = match outcome {
        Err(BlockExecutionError::Transaction {
            source: ExecutionError::World(WorldError::BlockHashUnknown(_)),
            ..
        }) => {
            let oldest = hashes.first().map_or(number, |(oldest, _)| *oldest);
            for older in number.saturating_sub(BLOCK_HASHES)..oldest {
                let block = context.block(older)?;
                hashes.extend(block.as_ref().and_then(|block| Some((older, block.header()?.1))));
            }
            execute(&hashes)
        }
        outcome => outcome,
    };
    outcome.map_err(|error| RpcError::server(error.to_string()))
}

fn collect(
    context: &QueryContext<'_>,
    number: u64,
    parent: &Snapshot,
    executed: &ExecutedBlock,
) -> Result<Witness, RpcError> {
    let header = |asked| {
        let block = context.block(asked).ok()??;
        Some(alloy_rlp::encode(block.header()?.0).into())
    };
    Witness::of_block(number, parent, &executed.accesses, &executed.changes, header)
        .map_err(|error| RpcError::internal(error.to_string()))
}
