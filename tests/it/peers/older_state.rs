//! States of blocks that a process has not executed itself, and witnesses on request.

use std::collections::BTreeSet;
use std::time::Duration;

use alloy_consensus::TxLegacy;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use native_sequencer::witness::Witness;
use serde_json::{Value, json};

use super::process::{TempFolder, poll_until};
use super::rpc::{Rpc, quantity};
use super::sequencer::{FAST_BLOCKS, Sequencer, command, data_of, genesis};
use super::workload::{Account, DEV_KEYS};

const MINED_LIMIT: Duration = Duration::from_secs(20);
const RECEIVER: Address = Address::repeat_byte(0x5a);
const BLOCKS: u64 = 6;

fn transfer(sender: &mut Account, to: Address, value_wei: u64) -> Bytes {
    sender.sign(|nonce| TxLegacy {
        chain_id: Some(61_972),
        nonce,
        gas_price: 100_000_000_000,
        gas_limit: 60_000,
        to: TxKind::Call(to),
        value: U256::from(value_wei),
        input: Bytes::new(),
    })
}

/// Sends one transaction and answers the number of its block.
fn mine(rpc: &Rpc, raw: &Bytes) -> u64 {
    let hash = rpc.call("eth_sendRawTransaction", json!([raw]));
    poll_until("the block", MINED_LIMIT, || {
        let receipt = rpc.call("eth_getTransactionReceipt", json!([hash]));
        // A receipt is shown before its block is `latest`.
        let number = receipt.get("blockNumber").filter(|_| receipt["blockHash"] != json!(B256::ZERO)).map(quantity)?;
        (rpc.quantity("eth_blockNumber", json!([])) >= number).then_some(number)
    })
}

fn decoded(answer: &Value) -> Witness {
    let encoded: Bytes = serde_json::from_value(answer["witness"].clone()).expect("the witness is hex");
    assert_eq!(answer["witnessSize"], json!(encoded.len()));
    Witness::decode(&encoded).expect("what we encode is decoded")
}

/// What `rpc` says of the receiver after block `number`, in three ways.
fn seen(rpc: &Rpc, number: u64) -> [Value; 3] {
    let tag = format!("{number:#x}");
    [
        rpc.call("eth_getBalance", json!([RECEIVER, tag])),
        rpc.call("eth_getProof", json!([RECEIVER, [], tag])),
        rpc.call("debug_generateBlockWitness", json!([tag])),
    ]
}

#[test]
fn states_of_older_blocks_are_there_after_a_restart() {
    let _turn = super::turn();
    let sequencer = Sequencer::start_in(TempFolder::new("older-state"), "osaka", &FAST_BLOCKS);
    let mut sender = Account::new(DEV_KEYS[0]);
    let numbers: Vec<u64> =
        (1..=BLOCKS).map(|value| mine(&sequencer.rpc, &transfer(&mut sender, RECEIVER, value))).collect();
    let before: Vec<[Value; 3]> = numbers.iter().map(|number| seen(&sequencer.rpc, *number)).collect();
    assert_eq!(quantity(&before[BLOCKS as usize - 1][0]), (1..=BLOCKS).sum::<u64>());
    let folder = sequencer.stop();
    let sequencer = Sequencer::start_in(folder, "osaka", &FAST_BLOCKS);
    for (number, before) in numbers.iter().zip(&before) {
        assert_eq!(seen(&sequencer.rpc, *number), *before, "block {number}");
        let tag = format!("{number:#x}");
        let call = json!([{"to": RECEIVER, "from": sender.address}, tag]);
        assert_eq!(sequencer.rpc.call("eth_call", call), json!("0x"));
        let hash = sequencer.rpc.call("eth_getBlockByNumber", json!([tag, false]))["hash"].clone();
        assert_eq!(sequencer.rpc.call("eth_getBalance", json!([RECEIVER, {"blockHash": hash}])), before[0]);
    }
    let missing = sequencer.rpc.try_call("eth_getBalance", json!([RECEIVER, "0xffff"]));
    assert_eq!(missing.expect_err("there is no such block").message, "header not found");
    sequencer.stop();
}

/// What one transaction needs is in what its block needs, and is enough to prove what it touches.
#[test]
fn the_witness_of_a_transaction_is_part_of_its_blocks() {
    let _turn = super::turn();
    let sequencer = Sequencer::start_in(TempFolder::new("generated-witness"), "osaka", &FAST_BLOCKS);
    let rpc = &sequencer.rpc;
    let mut sender = Account::new(DEV_KEYS[1]);
    mine(rpc, &transfer(&mut sender, RECEIVER, 1));
    let raw = transfer(&mut sender, RECEIVER, 2);
    let parent = rpc.call("eth_getBlockByNumber", json!(["latest", false]));
    let witness = decoded(&rpc.call("debug_generateWitness", json!([raw])));
    let nodes: BTreeSet<&Bytes> = witness.state.iter().collect();
    let root: B256 = serde_json::from_value(parent["stateRoot"].clone()).expect("a block has a state root");
    assert!(nodes.iter().any(|node| keccak256(node) == root), "the root of {root} is in it");
    assert_eq!(witness.headers.len(), 1);
    assert_eq!(json!(keccak256(&witness.headers[0])), parent["hash"]);
    for address in [sender.address, RECEIVER] {
        let proof = rpc.call("eth_getProof", json!([address, [], parent["number"]]));
        let proof: Vec<Bytes> = serde_json::from_value(proof["accountProof"].clone()).expect("a list of nodes");
        assert!(proof.iter().all(|node| nodes.contains(node)), "the path of {address} is in it");
    }
    let number = mine(rpc, &raw);
    assert_eq!(number, quantity(&parent["number"]) + 1, "nothing came in between");
    let answer = rpc.call("debug_generateBlockWitness", json!([format!("{number:#x}")]));
    assert_eq!((&answer["blockNumber"], &answer["transactionCount"]), (&json!(number), &json!(1)));
    let whole = decoded(&answer);
    let all: BTreeSet<&Bytes> = whole.state.iter().collect();
    assert!(nodes.is_subset(&all) && nodes.len() < all.len(), "the block's system calls need more");
    // A number as it is in JSON, in decimal, and by its tag: all the same block.
    for block in [json!(number), json!(number.to_string()), json!("latest")] {
        assert_eq!(decoded(&rpc.call("debug_generateBlockWitness", json!([block]))), whole, "{block}");
    }
    sequencer.stop();
}

/// A chain that came from a file of blocks goes on like one of ours, and its journal takes over.
#[test]
fn an_imported_chain_is_continued() {
    let _turn = super::turn();
    let sequencer = Sequencer::start_in(TempFolder::new("exported"), "osaka", &FAST_BLOCKS);
    let mut sender = Account::new(DEV_KEYS[2]);
    let mut blocks = Vec::new();
    for value in 1..=BLOCKS {
        let number = mine(&sequencer.rpc, &transfer(&mut sender, RECEIVER, value));
        for next in blocks.len() as u64 + 1..=number {
            let raw: Bytes =
                serde_json::from_value(sequencer.rpc.call("debug_getRawBlock", json!([format!("{next:#x}")])))
                    .expect("a block is hex");
            blocks.push(raw);
        }
    }
    let tip = blocks.len() as u64;
    let newest = |rpc: &Rpc| rpc.call("eth_getBlockByNumber", json!(["latest", true]));
    let exported = newest(&sequencer.rpc);
    sequencer.stop();

    let folder = TempFolder::new("imported");
    let (genesis_path, blocks_path) = (folder.path().join("genesis.json"), folder.path().join("blocks.rlp"));
    std::fs::write(&genesis_path, genesis("osaka").to_string()).expect("the folder takes files");
    std::fs::write(&blocks_path, blocks.concat()).expect("the folder takes files");
    let mut import = command();
    import.arg("import").arg("--genesis").arg(&genesis_path).arg("--blocks").arg(&blocks_path);
    let output = import.arg("--data-dir").arg(data_of(&folder)).output().expect("our binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut sequencer = Sequencer::start_in(folder, "osaka", &FAST_BLOCKS);
    assert_eq!(newest(&sequencer.rpc), exported);
    let mut total: u64 = (1..=BLOCKS).sum();
    for round in 0..2 {
        assert_eq!(mine(&sequencer.rpc, &transfer(&mut sender, RECEIVER, 100)), tip + 1 + round);
        total += 100;
        assert_eq!(sequencer.rpc.quantity("eth_getBalance", json!([RECEIVER, "latest"])), total);
        let before = newest(&sequencer.rpc);
        sequencer = Sequencer::start_in(sequencer.stop(), "osaka", &FAST_BLOCKS);
        assert_eq!(newest(&sequencer.rpc), before);
    }
    // Without its journal it is not a chain that was just imported any more.
    let folder = sequencer.stop();
    std::fs::remove_dir_all(data_of(&folder).join("journal")).expect("the journal is there");
    let refusal = Sequencer::start_refused(&folder, "osaka", &FAST_BLOCKS);
    assert!(refusal.contains("holds no journal"), "{refusal}");
}
