//! Every acknowledged transaction ends in a block or in an end state with a reason, under twice the load that is sustained.

use std::collections::HashSet;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use alloy_consensus::TxEip1559;
use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::process::{TempFolder, poll_until};
use super::rpc::{Rpc, quantity};
use super::sequencer::{Sequencer, loadgen_binary};
use super::workload::{Account, DEV_KEYS};

/// The acceptance test's count, with `SEQUENCER_LONG`.
const TRANSACTIONS_LONG: usize = 100_000;
const TRANSACTIONS: usize = 20_000;
/// Each account sends as many transactions as there are per account; the pool's cap per sender is not what is tested.
const ACCOUNTS: usize = 1_000;
/// Of the closed loop, and of the open one, which must be able to send while replies are late.
const CONNECTIONS: usize = 8;
const CONNECTIONS_OPEN: usize = 32;
const BATCH_TRANSACTIONS: usize = 100;
/// Until everything acknowledged has ended, counted from the last reply.
const DRAIN_LIMIT: Duration = Duration::from_secs(300);
/// End states of `sequencer_getTransactionStatus` beside `included`; each comes with its reason.
const END_STATES: [&str; 4] = ["replaced", "expired", "invalidated", "evicted"];

#[test]
fn acknowledged_transactions_are_never_lost_at_twice_the_sustained_rate() {
    let _turn = super::turn();
    let count = if super::is_long() { TRANSACTIONS_LONG } else { TRANSACTIONS };
    let sequencer = Sequencer::start("prague");
    let mut rng = StdRng::seed_from_u64(7);
    let mut accounts: Vec<Account> = (0..ACCOUNTS).map(|_| Account::new(rng.random())).collect();
    fund(&sequencer.rpc, &accounts);

    // A tenth of the load in a closed loop shows the rate that the node takes; the rest comes at twice that.
    let calibration = sign(&mut accounts, count / 10, CONNECTIONS);
    let start = Instant::now();
    let mut acknowledged = offer(&sequencer.rpc, &calibration, None);
    let calibration_total = acknowledged.len();
    let sustained_rate = calibration_total as f64 / start.elapsed().as_secs_f64();
    wait_until_ended(&sequencer, &acknowledged);

    let load = sign(&mut accounts, count - count / 10, CONNECTIONS_OPEN);
    let start = Instant::now();
    acknowledged.extend(offer(&sequencer.rpc, &load, Some(2.0 * sustained_rate)));
    let answered_rate = (count - count / 10) as f64 / start.elapsed().as_secs_f64();
    let included = wait_until_ended(&sequencer, &acknowledged);
    println!(
        "closed loop {sustained_rate:.0}/s, offered twice that, answered {answered_rate:.0}/s: \
         {} of {count} acknowledged, {included} in blocks",
        acknowledged.len()
    );
    assert!(calibration_total > 0 && acknowledged.len() > calibration_total, "nothing was acknowledged under load");
    assert_eq!(mined_count(&sequencer.rpc), included + ACCOUNTS, "transactions in blocks, funding included");
    sequencer.stop();
}

/// The same question asked by our load generator, as an operator asks it.
#[test]
fn loadgen_verifies_that_nothing_was_lost() {
    let Some(loadgen) = loadgen_binary() else {
        assert!(!super::is_ci(), "loadgen is not built; run tests/run or `cargo build --workspace`");
        println!("skipped loadgen_verifies_that_nothing_was_lost: loadgen is not built");
        return;
    };
    let _turn = super::turn();
    let sequencer = Sequencer::start("prague");
    let count = if super::is_long() { "100000" } else { "10000" };
    let folder = TempFolder::new("loadgen");
    let report_file = folder.path().join("report.json");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&loadgen);
        command.args(["run", "--no-progress", "--workload", "transfer", "--verify", "--verify-wait", "300s"]);
        command.args(["--url", sequencer.rpc.url(), "--report-json"]).arg(&report_file).args(arguments);
        let output = command.output().expect("the file exists and is executable");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        print!("{stdout}");
        assert!(output.status.success(), "loadgen: {}\n{stdout}{stderr}\n{}", output.status, sequencer.log_tail());
    };
    run(&["--closed", "--transactions", "5000", "--seed", "1"]);
    let report: Value = serde_json::from_slice(&fs::read(&report_file).expect("loadgen wrote it")).expect("it is JSON");
    let sustained_rate = report["rates"]["accepted_per_s"].as_f64().expect("a rate");
    let rate = format!("{:.0}", 2.0 * sustained_rate);
    run(&["--rate", &rate, "--transactions", count, "--seed", "2"]);
    sequencer.stop();
}

/// Sends 1 ETH to every account and waits for it.
fn fund(rpc: &Rpc, accounts: &[Account]) {
    let mut funders: Vec<Account> = DEV_KEYS.into_iter().map(Account::new).collect();
    let mut hashes = Vec::new();
    for part in accounts.chunks(BATCH_TRANSACTIONS) {
        let raw: Vec<Bytes> = part
            .iter()
            .enumerate()
            .map(|(index, account)| {
                let funder = index % funders.len();
                transfer(&mut funders[funder], account.address, 1_000_000_000_000_000_000)
            })
            .collect();
        for answer in rpc.batch("eth_sendRawTransaction", raw.iter().map(|raw| json!([raw]))) {
            hashes.push(answer.unwrap_or_else(|error| panic!("funding: {error:?}")));
        }
    }
    poll_until("funded", Duration::from_secs(60), || {
        let last = rpc.batch("eth_getTransactionReceipt", hashes.iter().rev().take(100).map(|hash| json!([hash])));
        last.iter().all(|receipt| receipt.as_ref().is_ok_and(Value::is_object)).then_some(())
    });
}

fn transfer(from: &mut Account, to: Address, value: u64) -> Bytes {
    from.sign(|nonce| TxEip1559 {
        chain_id: 61_972,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 1_000_000,
        to: to.into(),
        value: U256::from(value),
        access_list: AccessList::default(),
        input: Bytes::new(),
    })
}

/// A signed transfer and the account that sends it.
struct Signed {
    account: usize,
    raw: Bytes,
}

/// Signs `count` transfers, and deals them to the connections: one account's transactions stay in order on one connection.
fn sign(accounts: &mut [Account], count: usize, lane_count: usize) -> Vec<Vec<Signed>> {
    let mut lanes: Vec<Vec<Signed>> = (0..lane_count).map(|_| Vec::new()).collect();
    let account_count = accounts.len();
    for index in 0..count {
        let account = index % account_count;
        let raw = transfer(&mut accounts[account], Address::with_last_byte(0xee), 1);
        lanes[account % lane_count].push(Signed { account, raw });
    }
    lanes
}

/// Sends the lanes side by side, in a closed loop or at `rate` in all; returns the hashes that the node acknowledged.
fn offer(rpc: &Rpc, lanes: &[Vec<Signed>], rate: Option<f64>) -> Vec<B256> {
    let lane_rate = rate.map(|rate| rate / lanes.len() as f64);
    let start = Instant::now();
    thread::scope(|scope| {
        let senders: Vec<_> = lanes.iter().map(|lane| scope.spawn(move || send(rpc, lane, lane_rate, start))).collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("a sender's own message says why")).collect()
    })
}

/// Sends one lane over a connection of its own, each batch at its intended time or as soon as the last one is answered.
fn send(rpc: &Rpc, lane: &[Signed], rate: Option<f64>, start: Instant) -> Vec<B256> {
    let client = Rpc::new(rpc.url());
    let mut acknowledged = Vec::new();
    let mut refused = HashSet::new();
    for (index, part) in lane.chunks(BATCH_TRANSACTIONS).enumerate() {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64((index * BATCH_TRANSACTIONS) as f64 / rate);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        // What follows a refused transaction of the same account would wait behind the gap until it expires.
        let part: Vec<&Signed> = part.iter().filter(|signed| !refused.contains(&signed.account)).collect();
        let answers = client.batch("eth_sendRawTransaction", part.iter().map(|signed| json!([signed.raw])));
        for (signed, answer) in part.iter().zip(answers) {
            match answer {
                Ok(hash) => {
                    assert_eq!(hash, json!(keccak256(&signed.raw)), "hash of an acknowledged transaction");
                    acknowledged.push(keccak256(&signed.raw));
                }
                // Overload is refused with a reason; what counts is that nothing acknowledged is lost.
                Err(error) => {
                    assert!(!error.message.is_empty(), "a refusal without a reason: {error:?}");
                    refused.insert(signed.account);
                }
            }
        }
    }
    acknowledged
}

/// Waits until each hash has a receipt or an end state; returns how many have a receipt.
fn wait_until_ended(sequencer: &Sequencer, hashes: &[B256]) -> usize {
    let rpc = &sequencer.rpc;
    let start = Instant::now();
    let mut waiting: Vec<B256> = hashes.to_vec();
    let mut included = 0;
    while !waiting.is_empty() {
        let mut rest = Vec::new();
        for part in waiting.chunks(BATCH_TRANSACTIONS * 5) {
            let receipts = rpc.batch("eth_getTransactionReceipt", part.iter().map(|hash| json!([hash])));
            let (mined, missing): (Vec<_>, Vec<_>) =
                part.iter().zip(receipts).partition(|(_, receipt)| receipt.as_ref().is_ok_and(Value::is_object));
            included += mined.len();
            let missing: Vec<B256> = missing.into_iter().map(|(hash, _)| *hash).collect();
            let statuses = rpc.batch("sequencer_getTransactionStatus", missing.iter().map(|hash| json!([hash])));
            for (hash, status) in missing.into_iter().zip(statuses) {
                let status = status.unwrap_or_else(|error| panic!("status of {hash}: {error:?}"));
                assert!(status.is_object(), "{hash} was acknowledged and is unknown now: {status}");
                if !END_STATES.iter().any(|state| status["state"] == *state) {
                    rest.push(hash);
                }
            }
        }
        waiting = rest;
        assert!(start.elapsed() < DRAIN_LIMIT, "{} have not ended:\n{}", waiting.len(), sequencer.log_tail());
        thread::sleep(Duration::from_millis(200));
    }
    included
}

/// Transactions in all blocks.
fn mined_count(rpc: &Rpc) -> usize {
    let latest = rpc.quantity("eth_blockNumber", json!([]));
    let numbers = (1..=latest).map(|number| json!([format!("{number:#x}")]));
    let counts = rpc.batch("eth_getBlockTransactionCountByNumber", numbers);
    counts.iter().map(|count| quantity(count.as_ref().expect("a sealed block")) as usize).sum()
}
