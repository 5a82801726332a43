//! What clients and operators are promised across crashes: processes that are killed, frozen, full, damaged, rolled back.
//!
//! The bookkeeping is the client's own: what it was told, compared with what a later process says. Nothing here reads the journal's files,
//! except to damage them.

mod crash;
mod damage;
mod disk;
pub mod freeze;
mod frozen;
mod ledger;
mod line;
mod observer;
mod restart;
mod rollback;

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use alloy_consensus::TxEip1559;
use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use serde_json::{Value, json};

use super::process::poll_until;
use super::rpc::{Rpc, quantity};
use super::sequencer::command;
use super::workload::{Account, DEV_KEYS};

const CHAIN_ID: u64 = 61_972;
/// Far above any base fee that these chains reach.
const FEE_CAP_WEI: u128 = 20_000_000_000;
const TIP_WEI: u128 = 1_000_000_000;
/// The smallest slot: a long run uses its slots many times.
const SEGMENT_BYTES: &str = "25165824";
/// Until everything that a test sent is in blocks.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// One transaction before it is signed.
#[derive(Clone)]
struct Draft {
    nonce: u64,
    to: Address,
    value: U256,
    input: Bytes,
    gas_limit: u64,
    tip_wei: u128,
    fee_cap_wei: u128,
}

impl Draft {
    /// Sends one wei to an address that nobody has.
    fn transfer(nonce: u64) -> Self {
        Self {
            nonce,
            to: Address::with_last_byte(0xee),
            value: U256::from(1),
            input: Bytes::new(),
            gas_limit: 21_000,
            tip_wei: TIP_WEI,
            fee_cap_wei: FEE_CAP_WEI,
        }
    }

    /// Calls `increment()` of the test contract, which writes a slot and a log.
    fn increment(nonce: u64, contract: Address) -> Self {
        let input = keccak256("increment()")[..4].to_vec().into();
        Self { to: contract, value: U256::ZERO, input, gas_limit: 120_000, ..Self::transfer(nonce) }
    }

    /// Carries `bytes` zeros, which cost 10 gas each (EIP-7623).
    fn large(nonce: u64, bytes: usize) -> Self {
        let gas_limit = 21_000 + 10 * bytes as u64;
        Self { value: U256::ZERO, input: vec![0; bytes].into(), gas_limit, ..Self::transfer(nonce) }
    }

    /// With both fees high enough to take the place of a transaction with the usual ones.
    fn replacing(self) -> Self {
        Self { tip_wei: self.tip_wei * 2, fee_cap_wei: self.fee_cap_wei * 2, value: self.value + U256::from(1), ..self }
    }

    fn sign(self, account: &mut Account) -> Bytes {
        let Self { nonce, to, value, input, gas_limit, tip_wei, fee_cap_wei } = self;
        // The nonces are counted by the tests, which leave gaps on purpose.
        account.sign(|_| TxEip1559 {
            chain_id: CHAIN_ID,
            nonce,
            gas_limit,
            max_fee_per_gas: fee_cap_wei,
            max_priority_fee_per_gas: tip_wei,
            to: to.into(),
            value,
            access_list: AccessList::default(),
            input,
        })
    }
}

/// The development accounts: 10,000 ETH each.
fn dev_accounts() -> Vec<Account> {
    DEV_KEYS.into_iter().map(Account::new).collect()
}

fn hash_of(raw: &Bytes) -> B256 {
    keccak256(raw)
}

/// Sends a transaction that must be acknowledged.
#[track_caller]
fn send(rpc: &Rpc, raw: &Bytes) -> B256 {
    let hash = hash_of(raw);
    assert_eq!(rpc.call("eth_sendRawTransaction", json!([raw])), json!(hash));
    hash
}

/// Sends a transaction that must be preconfirmed; its receipt.
#[track_caller]
fn send_sync(rpc: &Rpc, raw: &Bytes) -> Value {
    let receipt = rpc.call("eth_sendRawTransactionSync", json!([raw, 10_000]));
    assert_eq!(receipt["transactionHash"], json!(hash_of(raw)), "receipt {receipt}");
    receipt
}

/// Sends 100 ETH to each and waits until all have it.
fn fund(rpc: &Rpc, accounts: &[Account]) {
    let mut funders = dev_accounts();
    let next = |funder: &Account| rpc.quantity("eth_getTransactionCount", json!([funder.address, "pending"]));
    let mut nonces: Vec<u64> = funders.iter().map(next).collect();
    let mut hashes = Vec::new();
    for (index, account) in accounts.iter().enumerate() {
        let funder = index % funders.len();
        let value = U256::from(100) * U256::from(10).pow(U256::from(18));
        let draft = Draft { to: account.address, value, ..Draft::transfer(nonces[funder]) };
        hashes.push(send(rpc, &draft.sign(&mut funders[funder])));
        nonces[funder] += 1;
    }
    await_receipts(rpc, &hashes);
}

/// Waits until all are in sealed blocks; their receipts.
#[track_caller]
fn await_receipts(rpc: &Rpc, hashes: &[B256]) -> Vec<Value> {
    poll_until("all in blocks", DRAIN_LIMIT, || {
        let receipts = rpc.batch("eth_getTransactionReceipt", hashes.iter().map(|hash| json!([hash])));
        let receipts: Vec<Value> = receipts.into_iter().map(|receipt| receipt.expect("a hash is valid")).collect();
        receipts.iter().all(Value::is_object).then_some(receipts)
    })
}

/// The state of a transaction as the node tells it; `Null` when it knows nothing of it.
#[track_caller]
fn status(rpc: &Rpc, hash: B256) -> Value {
    rpc.call("sequencer_getTransactionStatus", json!([hash]))
}

/// Block number and index of a receipt.
#[track_caller]
fn place_of(receipt: &Value) -> (u64, u64) {
    (quantity(&receipt["blockNumber"]), quantity(&receipt["transactionIndex"]))
}

/// What stays the same between a preconfirmed receipt and the one of the sealed block.
fn lasting(receipt: &Value) -> Value {
    let mut receipt = receipt.clone();
    let members = receipt.as_object_mut().expect("a receipt is an object");
    members.remove("blockHash");
    // The subscription leaves it out.
    members.remove("logsBloom");
    for log in members.get_mut("logs").and_then(Value::as_array_mut).into_iter().flatten() {
        log.as_object_mut().expect("a log is an object").remove("blockHash");
    }
    receipt
}

/// `sequencer journal` with these arguments.
pub fn journal_command(name: &str, data: &Path, arguments: &[&str]) -> Output {
    let output = command().args(["journal", name, "--data-dir"]).arg(data).args(arguments).output();
    output.expect("our binary starts")
}

/// `journal verify` must find nothing, and neither must `state verify`, where a state was begun.
#[track_caller]
fn verify(data: &Path, arguments: &[&str]) {
    check_verified("journal", &journal_command("verify", data, arguments));
    if data.join("state/roots").is_file() {
        let output = command().args(["state", "verify", "--data-dir"]).arg(data).output();
        check_verified("state", &output.expect("our binary starts"));
    }
}

#[track_caller]
fn check_verified(what: &str, output: &Output) {
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what} verify: {}\n{out}{errors}", output.status);
    assert!(out.starts_with("ok: "), "{what} verify: {out}");
}
