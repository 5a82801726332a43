//! `sequencer l1` as a process: every method over HTTP, heads over WebSocket, faults, and the chain after a restart.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, U256};
use native_sequencer::config::genesis::DEV_ACCOUNTS;
use native_sequencer::dev_l1::config::{ChainConfig, Mode, genesis_hash};
use native_sequencer::l1::execute_tx::{ExecuteTx, Payload, Signature, Terms};
use native_sequencer::l1::profile::Profile;
use native_sequencer::testing::signing::{DynamicFee, TestKey};
use serde_json::{Value, json};
use tungstenite::Message;

use super::process::{Process, TempFolder, free_port, poll_until};
use super::rpc::Rpc;
use super::sequencer::command;

const LIMIT: Duration = Duration::from_secs(60);
const TOKEN: &str = "a test's token";

/// A development L1 without a clock: blocks come when they are asked for.
struct L1 {
    rpc: Rpc,
    /// With the token.
    control: Control,
    port: u16,
    process: Process,
}

/// Calls with the bearer token.
struct Control {
    url: String,
    agent: ureq::Agent,
}

impl Control {
    fn call(&self, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let sent = self.agent.post(&self.url).header("authorization", format!("Bearer {TOKEN}")).send_json(&request);
        let mut response = sent.unwrap_or_else(|error| panic!("{method}: {error}"));
        let reply: Value = response.body_mut().read_json().expect("JSON");
        reply.get("result").cloned().unwrap_or_else(|| panic!("{method}: {reply}"))
    }
}

impl L1 {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let port = free_port();
        let mut command = command();
        command.args(["l1", "--port", &port.to_string(), "--token", TOKEN]).args(arguments);
        let mut process = Process::start("l1", folder, command);
        let url = format!("http://127.0.0.1:{port}");
        let rpc = Rpc::new(&url);
        let chain_id = process.wait_until("answering", LIMIT, || rpc.ask("eth_chainId", json!([])));
        assert_eq!(chain_id, Ok(json!("0xf213")));
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Self { rpc, control: Control { url, agent: config.build().new_agent() }, port, process }
    }

    fn mine(&self, count: u64) -> Value {
        self.control.call("dev_mine", json!([count]))
    }

    fn send(&self, raw: &Bytes) -> Value {
        self.rpc.call("eth_sendRawTransaction", json!([raw]))
    }
}

fn key(index: usize) -> TestKey {
    TestKey::from_hex(DEV_ACCOUNTS[index].1)
}

fn transfer(from: usize, nonce: u64) -> Bytes {
    let tx = DynamicFee {
        chain_id: 61_971,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 100_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        to: Address::repeat_byte(0x77).into(),
        value: U256::from(1_000),
        ..DynamicFee::default()
    };
    key(from).encode(tx).into()
}

fn execute(nonce: u64) -> Bytes {
    let payload = Payload {
        data: Bytes::from_static(b"batch"),
        witness: vec![0xaa; 60_000].into(),
        anchor: vec![1; 32].into(),
        ..Payload::default()
    };
    let encoded = payload.encoded(Profile::ExecuteTxV2);
    let chain_id = U256::from(61_971);
    let terms = Terms {
        chain_id,
        nonce,
        tip_cap_wei: U256::from(1_000_000_000_u64),
        fee_cap_wei: U256::from(50_000_000_000_u64),
        gas: encoded.gas().limit(chain_id, true),
    };
    let signed = key(0).sign(encoded.signing_hash(&terms));
    encoded.encode(&terms, &Signature { odd_y: signed.v(), r: signed.r(), s: signed.s() })
}

/// Blocks come by the clock only; nothing comes while a test asks.
const NO_CLOCK: [&str; 4] = ["--mode", "compat", "--block-time-ms", "3600000"];

#[test]
fn an_execute_tx_is_mined_and_read_back_by_bytes() {
    let _turn = super::turn();
    let folder = TempFolder::new("dev-l1");
    let l1 = L1::start(folder.path(), &NO_CLOCK);
    let config = ChainConfig { mode: Mode::Compat, ..ChainConfig::default() };
    let genesis = l1.rpc.call("eth_getBlockByNumber", json!(["0x0", false]));
    assert_eq!(genesis["hash"], json!(genesis_hash(&config)), "the hash that a genesis file can name");
    let raw = execute(0);
    let hash = l1.send(&raw);
    assert_eq!(l1.rpc.call("eth_getTransactionCount", json!([key(0).address, "pending"])), "0x1");
    assert_eq!(l1.rpc.call("eth_getTransactionCount", json!([key(0).address, "latest"])), "0x0");
    let head = l1.mine(1);
    let receipt = l1.rpc.call("eth_getTransactionReceipt", json!([hash]));
    assert_eq!((&receipt["status"], &receipt["type"], &receipt["blockHash"]), (&json!("0x1"), &json!("0x5"), &head));
    let read = l1.rpc.call("eth_getRawTransactionByHash", json!([hash]));
    assert_eq!(read, json!(raw));
    let block = l1.rpc.call("debug_getRawBlock", json!([head]));
    let block = alloy_primitives::hex::decode(block.as_str().expect("hex")).expect("hex");
    assert!(block.windows(raw.len()).any(|window| window == &raw[..]));
    let tx = ExecuteTx::decode(&raw, Profile::ExecuteTxV2).expect("an ExecuteTx");
    assert_eq!(tx.floor_gas(Some(875_000_000)), as_u64(&receipt["gasUsed"]));
    let said = l1.rpc.call("dev_executeResult", json!([hash]));
    assert_eq!(said["execute"]["ok"], true, "{said}");
    let receipts = l1.rpc.call("eth_getBlockReceipts", json!(["latest"]));
    assert_eq!(receipts, json!([receipt]));
    let sent_again = l1.rpc.try_call("eth_sendRawTransaction", json!([raw])).expect_err("its nonce is used");
    assert_eq!(sent_again.message, "nonce too low: next nonce 1, tx nonce 0");
    let batch = l1.rpc.post(&json!([
        { "jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber" },
        { "jsonrpc": "2.0", "method": "eth_blockNumber" },
        { "jsonrpc": "2.0", "id": 2, "method": "eth_chainId", "params": [] },
    ]));
    let answers = [
        json!({ "jsonrpc": "2.0", "id": 1, "result": "0x1" }),
        json!({ "jsonrpc": "2.0", "id": 2, "result": "0xf213" }),
    ];
    assert_eq!(batch, Ok(json!(answers)));
}

fn as_u64(value: &Value) -> u64 {
    u64::from_str_radix(&value.as_str().expect("text")[2..], 16).expect("hex")
}

/// The chain that a restart, and a kill in the middle of it, bring back is the chain that was shown.
#[test]
fn a_restart_keeps_the_chain() {
    let _turn = super::turn();
    let folder = TempFolder::new("dev-l1-restart");
    let data = folder.path().join("data");
    let data = data.to_str().expect("text");
    let arguments = ["--mode", "compat", "--block-time-ms", "3600000", "--data-dir", data];
    let mut l1 = L1::start(folder.path(), &arguments);
    let hash = l1.send(&execute(0));
    l1.mine(3);
    l1.control.call("dev_reorg", json!([{ "blocks": 2, "newBlocks": 4 }]));
    let shown = |l1: &L1| {
        (0..=5)
            .map(|number| l1.rpc.call("eth_getBlockByNumber", json!([format!("{number:#x}"), true])))
            .collect::<Vec<_>>()
    };
    let before = shown(&l1);
    l1.process.kill();
    let mut l1 = L1::start(folder.path(), &arguments);
    assert_eq!(shown(&l1), before);
    assert_eq!(l1.rpc.call("eth_getTransactionReceipt", json!([hash]))["status"], "0x1");
    l1.send(&transfer(1, 0));
    l1.mine(1);
    assert_eq!(l1.rpc.call("eth_getBalance", json!([Address::repeat_byte(0x77), "latest"])), "0x3e8");
    assert_eq!(l1.process.stop().and_then(|status| status.code()), Some(0));
    let other = command()
        .args(["l1", "--port", "0", "--chain-id", "7", "--data-dir", data])
        .output()
        .expect("our binary starts");
    let said = String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success() && said.contains("other rules, gas limit or chain id"), "{said}");
}

/// Bytes that are no batch fail where batches are checked, cost all their gas, and say why.
#[test]
fn strict_is_the_default_and_refuses_what_is_no_batch() {
    let _turn = super::turn();
    let folder = TempFolder::new("dev-l1-strict");
    let genesis = folder.path().join("genesis.json");
    let printed = command().args(["genesis"]).output().expect("our binary starts");
    std::fs::write(&genesis, printed.stdout).expect("the folder is writable");
    let genesis = genesis.to_str().expect("text");
    let l1 = L1::start(folder.path(), &["--l2-genesis", genesis, "--block-time-ms", "3600000"]);
    let raw = execute(0);
    let hash = l1.send(&raw);
    l1.mine(1);
    let receipt = l1.rpc.call("eth_getTransactionReceipt", json!([hash]));
    let gas = ExecuteTx::decode(&raw, Profile::ExecuteTxV2).expect("an ExecuteTx").terms.gas;
    assert_eq!((&receipt["status"], as_u64(&receipt["gasUsed"])), (&json!("0x0"), gas));
    let said = l1.rpc.call("dev_executeResult", json!([hash]));
    assert_eq!((&said["mode"], &said["execute"]["ok"]), (&json!("strict"), &json!(false)));
    assert!(said["execute"]["error"].as_str().is_some_and(|reason| !reason.is_empty()), "{said}");
    let object = l1.rpc.call("eth_getTransactionByHash", json!([hash]));
    assert_eq!(object["anchor"].as_str().map(str::len), Some(2 + 64));
}

#[test]
fn faults_do_what_they_say() {
    let _turn = super::turn();
    let folder = TempFolder::new("dev-l1-faults");
    let l1 = L1::start(folder.path(), &NO_CLOCK);
    let first = l1.send(&transfer(0, 0));
    let second = l1.send(&transfer(1, 0));
    let old = l1.mine(1);
    // Gone, and not to be had again.
    let moved = l1.control.call("dev_reorg", json!([{ "blocks": 1, "drop": [first] }]));
    assert_eq!(moved["oldHead"], old);
    assert_eq!(l1.rpc.call("eth_getTransactionReceipt", json!([first])), Value::Null);
    assert!(l1.rpc.call("eth_getTransactionReceipt", json!([second]))["status"] == "0x1");
    assert_eq!(l1.send(&transfer(0, 0)), first, "it is said to be taken");
    l1.mine(1);
    assert_eq!(l1.rpc.call("eth_getTransactionReceipt", json!([first])), Value::Null);
    // Later.
    let late = l1.send(&transfer(1, 1));
    l1.control.call("dev_delayTransaction", json!([late, 2]));
    l1.mine(2);
    assert_eq!(l1.rpc.call("eth_getTransactionReceipt", json!([late])), Value::Null);
    l1.mine(1);
    assert!(l1.rpc.call("eth_getTransactionReceipt", json!([late])).is_object());
    // Dear.
    l1.control.call("dev_setBaseFee", json!(["0x2e90edd000", 1]));
    let cheap = l1.send(&transfer(1, 2));
    l1.mine(1);
    assert_eq!(l1.rpc.call("eth_getTransactionReceipt", json!([cheap])), Value::Null);
    // Lying, failing and slow, and all of it only without the token.
    let truth = l1.rpc.call("eth_getTransactionReceipt", json!([late]));
    l1.control.call("dev_setLie", json!([{ "kind": "receipts" }]));
    let lie = l1.rpc.call("eth_getTransactionReceipt", json!([late]));
    assert_eq!((&truth["status"], &lie["status"]), (&json!("0x1"), &json!("0x0")));
    l1.control.call("dev_setHttpError", json!([{ "status": 503, "count": 2 }]));
    for _ in 0..2 {
        assert!(l1.rpc.post(&json!({})).is_err_and(|error| error.contains("status 503")));
    }
    assert_eq!(l1.rpc.call("eth_chainId", json!([])), "0xf213");
    l1.control.call("dev_setLatency", json!([{ "ms": 300 }]));
    let start = std::time::Instant::now();
    l1.rpc.call("eth_chainId", json!([]));
    assert!(start.elapsed() >= Duration::from_millis(300));
    l1.control.call("dev_clearFaults", json!([]));
    assert_eq!(l1.rpc.call("eth_getTransactionReceipt", json!([late])), truth);
    let refused = l1.rpc.try_call("dev_mine", json!([])).expect_err("no token");
    assert_eq!(refused.code, -32_003);
}

/// The token that allows faults can be a file: made for its owner alone, and no other is read.
#[test]
fn the_token_of_faults_is_a_file_of_its_owner_or_the_l1_does_not_start() {
    let _turn = super::turn();
    let folder = TempFolder::new("dev-l1-token");
    let path = folder.path().join("l1.token");
    let port = free_port();
    let start = |log: &str| {
        let mut command = command();
        command.args(["l1", "--mode", "compat", "--port", &port.to_string(), "--token-file"]).arg(&path);
        Process::start(log, folder.path(), command)
    };
    let mut process = start("made");
    let rpc = Rpc::new(format!("http://127.0.0.1:{port}"));
    let chain_id = process.wait_until("answering", LIMIT, || rpc.ask("eth_chainId", json!([])));
    assert_eq!(chain_id, Ok(json!("0xf213")));
    let mode = || std::fs::metadata(&path).expect("it was made").permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o600);
    let token = std::fs::read_to_string(&path).expect("our own file");
    assert!(!process.log_text().contains(&token), "the token is shown: {}", process.log_tail());
    let mine = |token: &str| {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "dev_mine", "params": [1] });
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let sent = agent.post(rpc.url()).header("authorization", format!("Bearer {token}")).send_json(&request);
        let reply: Value = sent.expect("an answer").body_mut().read_json().expect("JSON");
        reply["error"]["code"].as_i64()
    };
    assert_eq!(mine(&token), None);
    for wrong in ["", &token[..63], &format!("{token}0")] {
        assert_eq!(mine(wrong), Some(-32_003), "{wrong}");
    }
    assert!(process.stop().is_some_and(|status| status.success()), "{}", process.log_tail());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("our own file");
    let mut process = start("refused");
    let status = process.wait_end(LIMIT);
    let text = process.log_text();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("has mode 0640: others may read it") && !text.contains(&token), "{text}");
}

#[test]
fn blocks_come_by_the_clock_and_heads_to_subscribers() {
    let _turn = super::turn();
    let folder = TempFolder::new("dev-l1-heads");
    let l1 = L1::start(folder.path(), &["--mode", "compat", "--block-time-ms", "200", "--endpoints", "2"]);
    let stream = TcpStream::connect(("127.0.0.1", l1.port)).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let (mut socket, _) = tungstenite::client(format!("ws://127.0.0.1:{}/", l1.port), stream).expect("an upgrade");
    let subscribe = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"] });
    socket.send(Message::text(subscribe.to_string())).expect("sent");
    let mut next = || loop {
        if let Message::Text(text) = socket.read().expect("a message") {
            return serde_json::from_str::<Value>(&text).expect("JSON");
        }
    };
    let id = next()["result"].clone();
    let heads: Vec<Value> = (0..3).map(|_| next()["params"].clone()).collect();
    for pair in heads.windows(2) {
        assert_eq!(pair[1]["subscription"], id);
        assert_eq!(pair[1]["result"]["parentHash"], pair[0]["result"]["hash"]);
    }
    l1.control.call("dev_stop", json!([]));
    let number = l1.rpc.call("eth_blockNumber", json!([]));
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(l1.rpc.call("eth_blockNumber", json!([])), number);
    l1.control.call("dev_resume", json!([]));
    poll_until("a block after the pause", LIMIT, || {
        (l1.rpc.call("eth_blockNumber", json!([])) != number).then_some(())
    });
    let fifth = l1.rpc.call("eth_getBlockByNumber", json!(["0x1", false]));
    assert_eq!(fifth["hash"].as_str().map(str::len), Some(66));
    assert_ne!(fifth["stateRoot"], json!(B256::ZERO));
}

#[test]
fn a_javascript_client_works_against_the_development_l1() {
    let Some(clients) = super::peer("SEQUENCER_NODE_CLIENTS", "a_javascript_client_works_against_the_development_l1")
    else {
        return;
    };
    let _turn = super::turn();
    let folder = TempFolder::new("dev-l1-clients");
    let l1 = L1::start(folder.path(), &["--mode", "compat", "--block-time-ms", "200"]);
    let (http, ws) = (format!("http://127.0.0.1:{}", l1.port), format!("ws://127.0.0.1:{}", l1.port));
    let output = Command::new("node").arg(clients.join("dev_l1.mjs")).args([http, ws]).output().expect("node starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}\n{}", l1.process.log_tail());
}
