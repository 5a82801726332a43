//! Making a block out of what waits, and what is kept of it.

use std::collections::BinaryHeap;

use alloy_consensus::Header;
use alloy_consensus::constants::{EMPTY_OMMER_ROOT_HASH, EMPTY_WITHDRAWALS};
use alloy_eips::eip1559::{BaseFeeParams, calc_next_block_base_fee};
use alloy_eips::eip7685::Requests;
use alloy_primitives::Log;
use serde_json::{Value, json};

use super::config::ChainConfig;
use super::evm::{BlockEvm, BlockFacts, EvmError, TxOutcome};
use super::overlay::Overlay;
use super::pool::{MINER_TIP_WEI_MIN, Pool};
use super::precompile::{Execute, Verdict};
use super::transaction::L1Tx;
use crate::builder::block_execution::{self, receipts_root};
use crate::crypto::keccak::keccak256;
use crate::primitives::{Address, B256, Bytes, U256, address};
use crate::state::{ListRoot, StateChanges, StateReader};

/// Where the fees of the development L1 go.
const COINBASE: Address = address!("0x00000000000000000000000000000000000000c1");
/// EIP-1559: the least that a base fee falls to.
const BASE_FEE_WEI_MIN: u64 = 7;

/// What a transaction left behind.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    pub tx_type: u8,
    pub success: bool,
    pub gas_used: u64,
    pub cumulative_gas_used: u64,
    pub logs: Vec<Log>,
    pub contract_address: Option<Address>,
    /// Of the EXECUTE precompile, for `dev_executeResult`; null when it was not called.
    pub execute: Value,
}

/// A block with its hash and everything that follows from it but the state.
#[derive(Clone, Debug)]
pub struct Block {
    pub header: Header,
    pub hash: B256,
    pub txs: Vec<L1Tx>,
    pub receipts: Vec<Receipt>,
}

/// How the next block differs from an ordinary one.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    pub timestamp: u64,
    /// Fault injection: instead of what EIP-1559 says.
    pub base_fee_wei: Option<u64>,
    /// No transactions at all.
    pub is_empty: bool,
    /// Later arrivals first, where fees are equal.
    pub is_reversed: bool,
    /// Tells a block that replaces another from it.
    pub salt: u64,
}

/// Base fee of the block behind `parent`.
#[must_use]
pub fn next_base_fee_wei(parent: &Header) -> u64 {
    let base_fee = parent.base_fee_per_gas.unwrap_or(BASE_FEE_WEI_MIN);
    let params = BaseFeeParams::ethereum();
    calc_next_block_base_fee(parent.gas_used, parent.gas_limit, base_fee, params).max(BASE_FEE_WEI_MIN)
}

/// What the block behind `parent` gives to execution.
#[must_use]
pub fn next_facts(parent: &Header, parent_hash: B256, config: &ChainConfig, wishes: &Wishes) -> BlockFacts {
    let derived =
        |what: &str| keccak256(&[what.as_bytes(), parent_hash.as_slice(), &wishes.salt.to_be_bytes()].concat());
    BlockFacts {
        number: parent.number + 1,
        timestamp: wishes.timestamp.max(parent.timestamp + 1),
        coinbase: COINBASE,
        gas_limit: config.gas_limit,
        base_fee_wei: wishes.base_fee_wei.unwrap_or_else(|| next_base_fee_wei(parent)),
        prev_randao: derived("randao"),
        parent_hash,
        parent_beacon_block_root: derived("beacon"),
    }
}

/// A sender's next transaction, as blocks choose: tip, then arrival.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    tip_wei: U256,
    order: i128,
    sender: Address,
    nonce: u64,
}

fn candidate(pool: &Pool, sender: Address, nonce: u64, facts: &BlockFacts, is_reversed: bool) -> Option<Candidate> {
    let waiting = pool.at(&sender, nonce).filter(|waiting| waiting.from_block <= facts.number)?;
    let tip_wei = waiting.tx.effective_tip_wei(facts.base_fee_wei)?;
    if tip_wei < U256::from(MINER_TIP_WEI_MIN) {
        return None;
    }
    let arrival = i128::from(waiting.arrival);
    Some(Candidate { tip_wei, order: if is_reversed { arrival } else { -arrival }, sender, nonce })
}

/// The rules of one chain and its precompile.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    pub config: &'a ChainConfig,
    pub execute: &'a Execute,
}

/// A block and what it changes.
pub struct Built<'a, R> {
    pub facts: BlockFacts,
    pub txs: Vec<L1Tx>,
    pub receipts: Vec<Receipt>,
    pub requests: Vec<Bytes>,
    pub overlay: Overlay<'a, R>,
}

/// Fills a block from the pool. A transaction that cannot be executed ends its sender's turn, as in the L1 node's miner, and stays.
///
/// # Errors
/// When the state cannot be read.
pub fn build<'a, R: StateReader>(
    rules: Rules<'a>,
    facts: BlockFacts,
    overlay: Overlay<'a, R>,
    pool: &Pool,
    wishes: &Wishes,
) -> Result<Built<'a, R>, EvmError> {
    let fork = rules.config.fork;
    let mut evm = BlockEvm::new(overlay, &facts, fork, rules.config.chain_id, rules.execute);
    evm.open(&facts, fork)?;
    let (mut txs, mut receipts, mut gas_used) = (Vec::new(), Vec::new(), 0);
    let mut candidates = BinaryHeap::new();
    if !wishes.is_empty {
        for sender in pool.senders() {
            let nonce = evm.overlay().account(&sender)?.map_or(0, |account| account.nonce);
            candidates.extend(candidate(pool, sender, nonce, &facts, wishes.is_reversed));
        }
    }
    while let Some(Candidate { sender, nonce, .. }) = candidates.pop() {
        let Some(waiting) = pool.at(&sender, nonce) else { continue };
        if waiting.tx.gas() > facts.gas_limit - gas_used {
            continue;
        }
        match evm.execute(waiting.tx.tx_env(facts.base_fee_wei)) {
            Ok(outcome) => {
                gas_used += outcome.gas_used;
                receipts.push(receipt(&waiting.tx, outcome, gas_used));
                txs.push(waiting.tx.clone());
                candidates.extend(candidate(pool, sender, nonce + 1, &facts, wishes.is_reversed));
            }
            Err(EvmError::Invalid(why)) => {
                tracing::debug!(tx_hash = %waiting.tx.hash, %why, "a transaction is not for this block");
            }
            Err(fatal) => return Err(fatal),
        }
    }
    let requests = evm.close(fork)?;
    Ok(Built { facts, txs, receipts, requests, overlay: evm.into_overlay() })
}

fn receipt(tx: &L1Tx, outcome: TxOutcome, cumulative_gas_used: u64) -> Receipt {
    let execute = execute_result(&outcome);
    if let Some(error) = execute.get("error").and_then(Value::as_str) {
        tracing::warn!(tx_hash = %tx.hash, %error, "EXECUTE failed");
    }
    Receipt {
        tx_type: tx.tx_type(),
        success: outcome.success,
        gas_used: outcome.gas_used,
        cumulative_gas_used,
        logs: outcome.logs,
        contract_address: outcome.contract_address,
        execute,
    }
}

/// What `dev_executeResult` shows: the last call's answer, and all of them when a contract made several.
#[must_use]
pub fn execute_result(outcome: &TxOutcome) -> Value {
    let shown = |verdict: &Verdict| match &verdict.result {
        Ok(output) => json!({ "ok": true, "output": output, "report": verdict.report }),
        Err(error) => json!({ "ok": false, "error": error, "report": verdict.report }),
    };
    let Some(last) = outcome.verdicts.last() else { return Value::Null };
    let mut result = shown(last);
    result["calls"] = outcome.verdicts.iter().map(shown).collect();
    result
}

/// The header over a state root.
#[must_use]
pub fn header(config: &ChainConfig, built: &BuiltFacts<'_>, state_root: B256, salt: u64) -> Header {
    let BuiltFacts { facts, txs, receipts, requests } = built;
    let mut transactions_root = ListRoot::new();
    txs.iter().for_each(|tx| transactions_root.push(&tx.raw));
    let receipts: Vec<block_execution::Receipt> = receipts.iter().map(consensus_receipt).collect();
    let (receipts_root, logs_bloom) = receipts_root(&receipts);
    let requests_hash = config.fork.is_prague().then(|| Requests::new(requests.to_vec()).requests_hash());
    Header {
        parent_hash: facts.parent_hash,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: facts.coinbase,
        state_root,
        transactions_root: transactions_root.finish(),
        receipts_root,
        logs_bloom,
        number: facts.number,
        gas_limit: facts.gas_limit,
        gas_used: receipts.last().map_or(0, |receipt| receipt.cumulative_gas_used),
        timestamp: facts.timestamp,
        extra_data: if salt == 0 { Bytes::new() } else { Bytes::from(format!("reorg {salt}").into_bytes()) },
        mix_hash: facts.prev_randao,
        base_fee_per_gas: Some(facts.base_fee_wei),
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(facts.parent_beacon_block_root),
        requests_hash,
        ..Header::default()
    }
}

/// What a header is made of, beside the state.
#[derive(Clone, Copy)]
pub struct BuiltFacts<'b> {
    pub facts: &'b BlockFacts,
    pub txs: &'b [L1Tx],
    pub receipts: &'b [Receipt],
    pub requests: &'b [Bytes],
}

/// The part of a receipt that its root covers.
#[must_use]
pub fn consensus_receipt(receipt: &Receipt) -> block_execution::Receipt {
    block_execution::Receipt {
        tx_type: receipt.tx_type,
        success: receipt.success,
        gas_used: receipt.gas_used,
        cumulative_gas_used: receipt.cumulative_gas_used,
        logs: receipt.logs.clone(),
    }
}

/// What a block is stored with: everything that a start cannot compute without executing.
#[derive(Clone, Debug)]
pub struct Stored {
    pub block: Block,
    pub changes: StateChanges,
}
