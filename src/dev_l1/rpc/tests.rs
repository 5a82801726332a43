//! Requests and answers without sockets; the whole list over HTTP is in `tests/it/peers/dev_l1.rs`.

use std::sync::Arc;

use super::*;
use crate::config::genesis::DEV_ACCOUNTS;
use crate::dev_l1::chain::Chain;
use crate::dev_l1::config::{ChainConfig, GENESIS_TIMESTAMP, Mode};
use crate::dev_l1::log::BlockLog;
use crate::dev_l1::precompile::Execute;
use crate::l1::execute_tx::{Payload, Signature, Terms};
use crate::l1::profile::Profile;
use crate::primitives::{Address, Bytes};
use crate::state::memory::MemoryStore;
use crate::testing::bytecode;
use crate::testing::signing::{DynamicFee, TestKey};

const NOW_MS: u64 = (GENESIS_TIMESTAMP + 1_000) * 1_000;

fn node(mode: Mode) -> Node {
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"));
    let config = ChainConfig { mode, ..ChainConfig::default() };
    let chain = Chain::open(config, MemoryStore::new(pool), BlockLog::temporary().expect("room")).expect("block 0");
    Node::new(chain, Execute::Compat, 2, NOW_MS)
}

fn ask_as(node: &mut Node, is_authorized: bool, endpoint: usize, method: &str, params: Value) -> Value {
    let caller = Caller { endpoint, is_authorized, now_ms: NOW_MS };
    let request = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    let mut answer = answer(node, caller, &request).expect("it has an id");
    assert_eq!((&answer["id"], &answer["jsonrpc"]), (&json!(7), &json!("2.0")));
    match answer.get("error") {
        Some(error) => json!(format!("error {}: {}", error["code"], error["message"].as_str().expect("text"))),
        None => answer["result"].take(),
    }
}

fn ask(node: &mut Node, method: &str, params: Value) -> Value {
    ask_as(node, true, 0, method, params)
}

fn send(node: &mut Node, tx: DynamicFee) -> Value {
    let raw = Bytes::from(TestKey::from_hex(DEV_ACCOUNTS[0].1).encode(tx));
    ask(node, "eth_sendRawTransaction", json!([raw]))
}

fn call_tx(nonce: u64, to: Option<Address>, input: Vec<u8>) -> DynamicFee {
    DynamicFee {
        chain_id: 61_971,
        nonce,
        gas_limit: 500_000,
        max_fee_per_gas: 100_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to: to.map_or(alloy_primitives::TxKind::Create, Into::into),
        input: input.into(),
        ..DynamicFee::default()
    }
}

fn execute_tx() -> (ExecuteTxRaw, Value) {
    let payload = Payload {
        data: Bytes::from_static(b"batch"),
        anchor: vec![0x22; 32].into(),
        block_number: 9,
        timestamp: 8,
        ..Payload::default()
    };
    let encoded = payload.encoded(Profile::ExecuteTxV2);
    let terms = Terms {
        chain_id: U256::from(61_971),
        nonce: 0,
        tip_cap_wei: U256::from(1_000_000_000_u64),
        fee_cap_wei: U256::from(50_000_000_000_u64),
        gas: 60_000,
    };
    let signed = TestKey::from_hex(DEV_ACCOUNTS[0].1).sign(encoded.signing_hash(&terms));
    let raw = encoded.encode(&terms, &Signature { odd_y: signed.v(), r: signed.r(), s: signed.s() });
    let json = crate::l1::execute_tx::ExecuteTx::decode(&raw, Profile::ExecuteTxV2).expect("an ExecuteTx").to_json();
    (raw, json)
}

type ExecuteTxRaw = Bytes;

#[test]
fn an_execute_tx_is_read_back_whole_and_by_bytes() {
    let mut node = node(Mode::Strict);
    let (raw, json) = execute_tx();
    let hash = ask(&mut node, "eth_sendRawTransaction", json!([raw]));
    assert_eq!(hash, json["hash"]);
    let waiting = ask(&mut node, "eth_getTransactionByHash", json!([hash]));
    assert_eq!((&waiting["blockHash"], &waiting["anchor"]), (&Value::Null, &json["anchor"]));
    assert_eq!(ask(&mut node, "eth_getTransactionReceipt", json!([hash])), Value::Null);
    let head = ask(&mut node, "dev_mine", json!([]));
    let mined = ask(&mut node, "eth_getTransactionByHash", json!([hash]));
    assert_eq!(
        (&mined["blockHash"], &mined["blockNumber"], &mined["l2BlockNumber"]),
        (&head, &json!("0x1"), &json!("0x9"))
    );
    for name in ["witness", "anchor", "withdrawals", "preStateHash", "maxFeePerGas", "chainId", "timestamp", "r", "s"] {
        assert_eq!(mined[name], json[name], "{name}");
    }
    // Base fee 875,000,000 and a tip of 1 gwei.
    assert_eq!(mined["gasPrice"], "0x6fc23ac0");
    assert_eq!(ask(&mut node, "eth_getRawTransactionByHash", json!([hash])), json!(raw));
    let block = ask(&mut node, "debug_getRawBlock", json!(["latest"]));
    assert!(block.as_str().expect("hex").contains(&raw.to_string()[2..]));
    let receipt = ask(&mut node, "eth_getTransactionReceipt", json!([hash]));
    assert_eq!((&receipt["type"], &receipt["status"]), (&json!("0x5"), &json!("0x1")));
    assert_eq!(receipt["to"], "0x0000000000000000000000000000000000000012");
    let said = ask(&mut node, "dev_executeResult", json!([hash]));
    assert_eq!((&said["status"], &said["execute"]["ok"]), (&json!("0x1"), &json!(true)));
    let receipts = ask(&mut node, "debug_getRawReceipts", json!(["latest"]));
    assert!(receipts[0].as_str().expect("hex").starts_with("0x05f9"));
}

/// The L1 node's own object lacks what no JSON reader of it can know.
#[test]
fn in_compat_the_object_of_an_execute_tx_is_the_nodes_own() {
    let mut node = node(Mode::Compat);
    let (raw, json) = execute_tx();
    ask(&mut node, "eth_sendRawTransaction", json!([raw]));
    ask(&mut node, "dev_mine", json!([]));
    let mined = ask(&mut node, "eth_getTransactionByHash", json!([json["hash"]]));
    for name in ["witness", "anchor", "preStateHash", "maxFeePerGas", "chainId", "yParity", "timestamp"] {
        assert_eq!(mined.get(name), None, "{name}");
    }
    assert_eq!(
        (&mined["gasPrice"], &mined["to"]),
        (&json["maxFeePerGas"], &json!("0x0000000000000000000000000000000000000012"))
    );
    assert_eq!((&mined["blockNumber"], &mined["input"]), (&json!("0x1"), &json["input"]));
}

#[test]
fn contracts_are_made_called_and_their_logs_found() {
    let mut node = node(Mode::Compat);
    let hash = send(&mut node, call_tx(0, None, bytecode::init_code(&bytecode::log(1))));
    ask(&mut node, "dev_mine", json!([]));
    let receipt = ask(&mut node, "eth_getTransactionReceipt", json!([hash]));
    assert_eq!(receipt["status"], "0x1");
    let contract = receipt["contractAddress"].clone();
    let address: Address = contract.as_str().expect("text").parse().expect("an address");
    assert_ne!(ask(&mut node, "eth_getCode", json!([contract, "latest"])), "0x");
    let word = B256::repeat_byte(7);
    send(&mut node, call_tx(1, Some(address), word.to_vec()));
    ask(&mut node, "dev_mine", json!([]));
    let logs = ask(&mut node, "eth_getLogs", json!([{ "fromBlock": "0x0", "toBlock": "latest", "address": contract }]));
    assert_eq!(logs.as_array().map(Vec::len), Some(1), "{logs}");
    let topic = logs[0]["topics"][0].clone();
    for (topics, count) in
        [(json!([topic]), 1), (json!([null]), 1), (json!([[topic, B256::ZERO]]), 1), (json!([B256::ZERO]), 0)]
    {
        let filter = json!([{ "blockHash": logs[0]["blockHash"], "topics": topics }]);
        let found = ask(&mut node, "eth_getLogs", filter);
        assert_eq!(found.as_array().map(Vec::len), Some(count), "{topics}");
    }
    let estimate = ask(&mut node, "eth_estimateGas", json!([{ "to": contract, "input": word }]));
    let gas = u64::from_str_radix(&estimate.as_str().expect("text")[2..], 16).expect("hex");
    assert!((21_000..60_000).contains(&gas), "{gas}");
    assert_eq!(ask(&mut node, "eth_call", json!([{ "to": contract, "data": word }, "latest"])), "0x");
}

/// A STATICCALL to 0x12 from a contract of L1 gets what a transaction gets.
#[test]
fn the_precompile_can_be_called() {
    let mut node = node(Mode::Compat);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/executetx-fork-49df765fd.json");
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("vectors")).expect("JSON");
    for case in vectors["precompile"].as_array().expect("inputs") {
        let input = format!("0x{}", case["input"].as_str().expect("hex"));
        let answer =
            ask(&mut node, "eth_call", json!([{ "to": "0x0000000000000000000000000000000000000012", "input": input }]));
        let expected = match case["error"].as_str().expect("text") {
            "" => format!("0x{}", case["output"].as_str().expect("hex")),
            error => format!("error -32000: {error}"),
        };
        assert_eq!(answer, expected, "{}", case["name"]);
    }
}

#[test]
fn blocks_tags_and_counts() {
    let mut node = node(Mode::Compat);
    ask(&mut node, "dev_mine", json!([20]));
    let number = |node: &mut Node, tag: &str| ask(node, "eth_getBlockByNumber", json!([tag, false]))["number"].clone();
    assert_eq!(
        ["earliest", "finalized", "safe", "latest", "pending", "0x3"].map(|tag| number(&mut node, tag)),
        ["0x0", "0xc", "0x10", "0x14", "0x14", "0x3"]
    );
    assert_eq!(ask(&mut node, "eth_getBlockByNumber", json!(["0x15", false])), Value::Null);
    assert_eq!(ask(&mut node, "eth_blockNumber", json!([])), "0x14");
    let block = ask(&mut node, "eth_getBlockByNumber", json!(["0x3", true]));
    let by_hash = ask(&mut node, "eth_getBlockByHash", json!([block["hash"], true]));
    assert_eq!(block, by_hash);
    assert_eq!(
        ask(&mut node, "eth_getBalance", json!([DEV_ACCOUNTS[0].0, { "blockHash": block["hash"] }])),
        "0x21e19e0c9bab2400000"
    );
    let history = ask(&mut node, "eth_feeHistory", json!(["0x4", "latest", [10, 50]]));
    assert_eq!(history["oldestBlock"], "0x11");
    assert_eq!(
        [&history["baseFeePerGas"], &history["reward"], &history["gasUsedRatio"]]
            .map(|list| list.as_array().map(Vec::len)),
        [Some(5), Some(4), Some(4)]
    );
    assert_eq!(ask(&mut node, "eth_maxPriorityFeePerGas", json!([])), "0xf4240");
    for (method, params, expected) in [
        ("eth_nothing", json!([]), "error -32601: the method eth_nothing does not exist/is not available"),
        ("eth_getBalance", json!([]), "error -32602: missing value for required argument 0"),
        (
            "eth_getBalance",
            json!(["0x12"]),
            "error -32602: invalid argument 0: invalid value \"0x12\": hex string has 1 bytes, expected 20",
        ),
        ("eth_feeHistory", json!(["0x1", "0x15"]), "error -32000: request beyond head block: requested 21, head 20"),
        (
            "eth_sendRawTransaction",
            json!(["0x05c0"]),
            "error -32000: execute tx: transaction has 0 items, execute-tx-v2 has 22",
        ),
        ("debug_getRawBlock", json!(["0x15"]), "error -32000: block not found"),
        (
            "dev_reorg",
            json!([{ "blocks": 21 }]),
            "error -32000: a reorganisation of 21 blocks is asked for and 20 are possible",
        ),
    ] {
        assert_eq!(ask(&mut node, method, params), expected);
    }
}

#[test]
fn faults_need_the_token_and_are_of_one_endpoint() {
    let mut node = node(Mode::Compat);
    let refused = ask_as(&mut node, false, 0, "dev_mine", json!([]));
    assert_eq!(refused, "error -32003: dev_mine needs the bearer token of this node");
    assert_eq!(ask_as(&mut node, false, 0, "dev_executeResult", json!([B256::ZERO])), Value::Null);
    ask(&mut node, "dev_mine", json!([2]));
    ask(&mut node, "dev_setLie", json!([{ "kind": "parents", "endpoint": 1 }]));
    let parent = |node: &mut Node, endpoint| {
        ask_as(node, false, endpoint, "eth_getBlockByNumber", json!(["0x2", false]))["parentHash"].clone()
    };
    assert_ne!(parent(&mut node, 0), parent(&mut node, 1));
    ask(&mut node, "dev_setAnswer", json!([{ "method": "eth_chainId", "result": "0x1", "count": 1, "endpoint": 1 }]));
    let chain_id = |node: &mut Node, endpoint| ask_as(node, false, endpoint, "eth_chainId", json!([]));
    assert_eq!([0, 1, 1].map(|endpoint| chain_id(&mut node, endpoint)), ["0xf213", "0x1", "0xf213"]);
    ask(
        &mut node,
        "dev_setAnswer",
        json!([{ "method": "eth_chainId", "error": { "code": -32_005, "message": "busy" } }]),
    );
    assert_eq!(chain_id(&mut node, 0), "error -32005: busy");
    ask(&mut node, "dev_clearFaults", json!([]));
    assert_eq!((chain_id(&mut node, 0), parent(&mut node, 0)), (json!("0xf213"), parent(&mut node, 1)));
    assert_eq!(
        ask(&mut node, "dev_setLie", json!([{ "kind": "parents", "endpoint": 2 }])),
        "error -32602: there are 2 endpoints, from 0 on"
    );
    let moved = ask(&mut node, "dev_reorg", json!([{ "blocks": 1 }]));
    assert_eq!(moved["newHead"], ask(&mut node, "dev_status", json!([]))["head"]);
    assert_ne!(moved["oldHead"], moved["newHead"]);
}

#[test]
fn notifications_get_nothing_and_nonsense_an_error() {
    let mut node = node(Mode::Compat);
    let caller = Caller { endpoint: 0, is_authorized: false, now_ms: NOW_MS };
    assert_eq!(answer(&mut node, caller, &json!({ "method": "eth_chainId" })), None);
    for request in [json!(null), json!(5), json!({ "id": 1 }), json!("eth_chainId")] {
        let error = answer(&mut node, caller, &request).expect("an error");
        assert_eq!(error["error"]["code"], -32_600, "{request}");
    }
    let named = json!({ "id": 1, "method": "eth_chainId", "params": { "a": 1 } });
    assert_eq!(answer(&mut node, caller, &named).expect("an error")["error"]["code"], -32_602);
}
