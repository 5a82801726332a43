//! `sequencer journal rollback`: an operator takes blocks back, and their transactions come again.

use std::fs;
use std::path::Path;

use alloy_primitives::B256;
use serde_json::{Value, json};

use super::super::process::TempFolder;
use super::super::rpc::Rpc;
use super::super::sequencer::{Sequencer, data_of};
use super::{Draft, await_receipts, dev_accounts, journal_command, place_of, send, verify};

const BLOCKS: u64 = 6;
const KEPT: u64 = 2;
/// Long enough that what comes back is still in the open block when the test looks.
const SLOW: [&str; 2] = ["--block.interval-ms", "30000"];

#[test]
fn rollback_withdraws_blocks() {
    let _turn = super::super::turn();
    let sequencer = Sequencer::start_in(TempFolder::new("rollback"), "osaka", &["--block.interval-ms", "50"]);
    let mut accounts = dev_accounts();
    let mut sent: Vec<B256> = Vec::new();
    for nonce in 0..BLOCKS {
        // Two in each block.
        let pair: Vec<B256> =
            (0..2).map(|index| send(&sequencer.rpc, &Draft::transfer(nonce).sign(&mut accounts[index]))).collect();
        await_receipts(&sequencer.rpc, &pair);
        sent.extend(pair);
    }
    let receipts = await_receipts(&sequencer.rpc, &sent);
    let newest = sequencer.rpc.quantity("eth_blockNumber", json!([]));
    let hashes: Vec<Value> = (0..=newest).map(|number| hash_at(&sequencer.rpc, number)).collect();
    let folder = sequencer.stop();
    let data = data_of(&folder);

    check_refusals(&data, newest);
    check_dry_run(&data, newest);
    let withdrawn: Vec<Value> = receipts.iter().filter(|receipt| place_of(receipt).0 > KEPT).map(withdrawal).collect();
    let output = journal_command("rollback", &data, &["--to-block", &KEPT.to_string(), "--yes"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "rollback: {text}{}", String::from_utf8_lossy(&output.stderr));
    let file = rollback_file(&data).expect("a list of what was withdrawn");
    assert!(text.contains(&file), "{file} is not named: {text}");
    let listed = fs::read_to_string(data.join("journal").join(&file)).expect("it was listed");
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert_eq!(listed, withdrawn, "withdrawn preconfirmations");
    verify(&data, &[]);

    let sequencer = Sequencer::start_in(folder, "osaka", &SLOW);
    assert_eq!(sequencer.rpc.quantity("eth_blockNumber", json!([])), KEPT, "newest block after the rollback");
    for number in 0..=KEPT {
        assert_eq!(hash_at(&sequencer.rpc, number), hashes[number as usize], "block {number} stays");
    }
    for receipt in receipts.iter().filter(|receipt| place_of(receipt).0 > KEPT) {
        let hash = &receipt["transactionHash"];
        assert!(sequencer.rpc.call("eth_getTransactionReceipt", json!([hash])).is_null(), "{hash} has a receipt");
        let status = sequencer.rpc.call("sequencer_getTransactionStatus", json!([hash]));
        assert!(status["state"] == "preconfirmed" || status["state"] == "ready", "{hash}: {status}");
    }
    // The stop seals the block that they came back into; a kill before it keeps their places.
    let sequencer = Sequencer::start_in(sequencer.kill(), "osaka", &SLOW);
    let folder = sequencer.stop();
    verify(&data, &[]);
    let sequencer = Sequencer::start_in(folder, "osaka", &[]);
    let again = await_receipts(&sequencer.rpc, &sent);
    for (receipt, before) in again.iter().zip(&receipts) {
        let number = place_of(before).0;
        let stays = number <= KEPT;
        assert_eq!(
            place_of(receipt) == place_of(before) && receipt["blockHash"] == before["blockHash"],
            stays,
            "{receipt}"
        );
    }
    assert_ne!(hash_at(&sequencer.rpc, KEPT + 1), hashes[KEPT as usize + 1], "another block {}", KEPT + 1);
    sequencer.stop();
}

fn hash_at(rpc: &Rpc, number: u64) -> Value {
    rpc.call("eth_getBlockByNumber", json!([format!("{number:#x}"), false]))["hash"].clone()
}

/// The line of `rollback-<sequence>.json` for a receipt.
fn withdrawal(receipt: &Value) -> Value {
    let (block, index) = place_of(receipt);
    json!({"hash": receipt["transactionHash"], "sender": receipt["from"], "block": block, "index": index})
}

/// The list of withdrawn preconfirmations, if there is one.
fn rollback_file(data: &Path) -> Option<String> {
    let entries = fs::read_dir(data.join("journal")).expect("the journal is there");
    let names = entries.map(|entry| entry.expect("a readable entry").file_name().to_string_lossy().into_owned());
    names.into_iter().find(|name| name.starts_with("rollback-"))
}

fn check_refusals(data: &Path, newest: u64) {
    let number = newest.to_string();
    let output = journal_command("rollback", data, &["--to-block", &number, "--yes"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "a rollback of nothing: {text}");
    assert!(text.contains(&format!("block {newest} is the newest one")), "{text}");
}

/// Without `--yes` the command says what it would do, and changes no byte.
fn check_dry_run(data: &Path, newest: u64) {
    let read = || fs::read(data.join("journal").join("slot-0000")).expect("the first slot is there");
    let before = read();
    let output = journal_command("rollback", data, &["--to-block", &KEPT.to_string()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(&format!("{} blocks above block {KEPT}", newest - KEPT)), "{text}");
    assert!(text.contains("nothing was changed"), "{text}");
    assert!(read() == before && rollback_file(data).is_none(), "something was changed");
}
