//! Stops and kills at a quiet moment: the pool, the open block, the lock, the clock.

use std::time::Duration;

use alloy_primitives::B256;
use serde_json::{Value, json};

use super::super::process::{TempFolder, poll_until};
use super::super::rpc::{Rpc, quantity};
use super::super::sequencer::{FAST_BLOCKS, Sequencer, data_of};
use super::super::workload::Account;
use super::{Draft, await_receipts, dev_accounts, lasting, place_of, send, send_sync, status, verify};

/// Members of a block that its first transaction fixes.
const CONTEXT: [&str; 7] =
    ["number", "timestamp", "baseFeePerGas", "gasLimit", "parentHash", "mixHash", "parentBeaconBlockRoot"];

#[test]
fn what_waits_in_the_pool_survives_a_restart() {
    let _turn = super::super::turn();
    let settings = ["--builder.order", "arrival", "--block.interval-ms", "300"];
    let sequencer = Sequencer::start_in(TempFolder::new("pool"), "osaka", &settings);
    let mut accounts = dev_accounts();
    let rpc = &sequencer.rpc;
    let behind: Vec<B256> = [3, 1, 2].map(|nonce| send(rpc, &Draft::transfer(nonce).sign(&mut accounts[0]))).to_vec();
    // The one with the highest tip comes last: by arrival it has the last place.
    let conditional: Vec<B256> =
        [7, 3, 8, 5, 4, 6].map(|index| send_for_block_2(rpc, &mut accounts[index], index)).to_vec();
    let known: Vec<(B256, Value)> =
        behind.iter().chain(&conditional).map(|hash| (*hash, by_hash(rpc, *hash))).collect();
    let pool = rpc.call("txpool_status", json!([]));
    assert_eq!(quantity(&pool["pending"]) + quantity(&pool["queued"]), 9, "{pool}");

    // Once as an operator stops it, once as a crash does.
    let sequencer = Sequencer::start_in(sequencer.stop(), "osaka", &settings);
    check_pool(&sequencer.rpc, &known, &pool);
    let sequencer = Sequencer::start_in(sequencer.kill(), "osaka", &settings);
    let rpc = &sequencer.rpc;
    check_pool(rpc, &known, &pool);
    let address = accounts[0].address;
    assert_eq!(rpc.quantity("eth_getTransactionCount", json!([address, "pending"])), 0, "nothing is ready");
    assert_eq!(rpc.quantity("eth_blockNumber", json!([])), 0, "a block of nothing");

    // The missing one fills block 1 with all four, and block 2 is then what the others wait for.
    let filling = send(rpc, &Draft::transfer(0).sign(&mut accounts[0]));
    let in_order = [filling, behind[1], behind[2], behind[0]];
    check_places(&await_receipts(rpc, &in_order), 1);
    check_places(&await_receipts(rpc, &conditional), 2);
    verify(&data_of(&sequencer.stop()), &[]);
}

fn send_for_block_2(rpc: &Rpc, account: &mut Account, index: usize) -> B256 {
    let draft = Draft { tip_wei: 1_000_000 * index as u128, ..Draft::transfer(0) };
    let raw = draft.sign(account);
    let hash = rpc.call("eth_sendRawTransactionConditional", json!([raw, {"blockNumberMin": 2}]));
    assert_eq!(hash, json!(super::hash_of(&raw)));
    super::hash_of(&raw)
}

fn by_hash(rpc: &Rpc, hash: B256) -> Value {
    let transaction = rpc.call("eth_getTransactionByHash", json!([hash]));
    assert!(transaction.is_object() && transaction["blockHash"].is_null(), "{hash}: {transaction}");
    transaction
}

#[track_caller]
fn check_pool(rpc: &Rpc, known: &[(B256, Value)], pool: &Value) {
    assert_eq!(rpc.call("txpool_status", json!([])), *pool, "pool after the restart");
    for (hash, transaction) in known {
        assert_eq!(by_hash(rpc, *hash), *transaction, "after the restart");
        assert!(status(rpc, *hash)["acceptedAtMs"].is_string(), "status of {hash}");
    }
}

#[track_caller]
fn check_places(receipts: &[Value], block: u64) {
    let places: Vec<(u64, u64)> = receipts.iter().map(place_of).collect();
    let expected: Vec<(u64, u64)> = (0..receipts.len() as u64).map(|index| (block, index)).collect();
    assert_eq!(places, expected);
}

#[test]
fn the_open_block_goes_on_at_the_same_places() {
    let _turn = super::super::turn();
    let settings = ["--block.interval-ms", "20000"];
    let sequencer = Sequencer::start_in(TempFolder::new("open-block"), "osaka", &settings);
    let mut accounts = dev_accounts();
    let rpc = &sequencer.rpc;
    let mut shown: Vec<Value> =
        (0..5).map(|nonce| preconfirm(rpc, &mut accounts[nonce as usize % 2], nonce / 2)).collect();
    let context = pending(rpc);
    let sequencer = Sequencer::start_in(sequencer.kill(), "osaka", &settings);
    let rpc = &sequencer.rpc;
    assert_eq!(pending(rpc), context, "context of the open block");
    check_open_block(rpc, &shown);
    shown.extend((0..3).map(|nonce| preconfirm(rpc, &mut accounts[2], nonce)));
    assert_eq!(place_of(&shown[7]), (1, 7));

    // A second time, and with another interval: the block's first deadline has nothing to do with it.
    let sequencer = Sequencer::start_in(sequencer.kill(), "osaka", &settings);
    let rpc = &sequencer.rpc;
    assert_eq!(pending(rpc), context, "context of the open block");
    check_open_block(rpc, &shown);
    shown.push(preconfirm(rpc, &mut accounts[3], 0));
    let sequencer = Sequencer::start_in(sequencer.stop(), "osaka", &settings);
    let rpc = &sequencer.rpc;
    let block = rpc.call("eth_getBlockByNumber", json!(["0x1", false]));
    let sealed: Vec<Value> = CONTEXT.iter().map(|name| block[*name].clone()).collect();
    assert_eq!(sealed, context, "context of the sealed block");
    let receipts = rpc.call("eth_getBlockReceipts", json!(["0x1"]));
    check_receipts(&receipts, &shown);
    verify(&data_of(&sequencer.stop()), &[]);
}

fn preconfirm(rpc: &Rpc, account: &mut Account, nonce: u64) -> Value {
    send_sync(rpc, &Draft::transfer(nonce).sign(account))
}

fn pending(rpc: &Rpc) -> Vec<Value> {
    let block = rpc.call("eth_getBlockByNumber", json!(["pending", false]));
    CONTEXT.iter().map(|name| block[*name].clone()).collect()
}

#[track_caller]
fn check_open_block(rpc: &Rpc, shown: &[Value]) {
    check_receipts(&rpc.call("eth_getBlockReceipts", json!(["pending"])), shown);
    assert_eq!(rpc.quantity("eth_blockNumber", json!([])), 0, "the block is open");
}

#[track_caller]
fn check_receipts(receipts: &Value, shown: &[Value]) {
    let receipts: Vec<Value> = receipts.as_array().expect("a list of receipts").iter().map(lasting).collect();
    assert_eq!(receipts, shown.iter().map(lasting).collect::<Vec<_>>());
}

#[test]
fn two_processes_on_one_directory() {
    let _turn = super::super::turn();
    let folder = TempFolder::new("two");
    let data = data_of(&folder);
    let sequencer = Sequencer::start_in(folder, "osaka", &[]);
    let raw = Draft::transfer(0).sign(&mut dev_accounts()[0]);
    let second = TempFolder::new("second");
    let journal = data.join("journal");
    let journal = journal.to_str().expect("the temporary folder's name is text");
    // The same data directory; then only the same journal.
    let text = Sequencer::start_refused_on(&data, "osaka", &[]);
    assert!(text.contains(journal), "{journal} is not named: {text}");
    let text = Sequencer::start_refused(&second, "osaka", &["--journal.dir", journal]);
    assert!(text.contains(journal), "{journal} is not named: {text}");
    // The command keeps away too.
    let output = super::journal_command("verify", &data, &[]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains(journal), "verify beside a process: {text}");
    send_sync(&sequencer.rpc, &raw);
    sequencer.stop();
}

/// Blocks whose timestamps ran ahead of the clock, as after the clock was set back.
#[test]
fn a_clock_far_behind_the_newest_block_stops_the_start() {
    let _turn = super::super::turn();
    let fast = [&FAST_BLOCKS[2..], &["--block.interval-ms", "10", "--block.empty-interval-ms", "10"]].concat();
    let sequencer = Sequencer::start_in(TempFolder::new("clock"), "osaka", &fast);
    let latest = || sequencer.rpc.call("eth_getBlockByNumber", json!(["latest", false]))["timestamp"].clone();
    let first = quantity(&latest());
    let limit = Duration::from_secs(60);
    // Half a minute beyond what is allowed: the start must not take so long that the clock catches up.
    poll_until("90 s ahead", limit, || (quantity(&latest()) > first.max(now_s()) + 90).then_some(()));
    let folder = sequencer.kill();
    let text = Sequencer::start_refused(&folder, "osaka", &[]);
    for part in ["the clock says", "the newest block"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    verify(&data_of(&folder), &[]);
    // With the old setting it goes on.
    let sequencer = Sequencer::start_in(folder, "osaka", &FAST_BLOCKS);
    send_sync(&sequencer.rpc, &Draft::transfer(0).sign(&mut dev_accounts()[0]));
    sequencer.stop();
}

fn now_s() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("the clock is past 1970").as_secs()
}
