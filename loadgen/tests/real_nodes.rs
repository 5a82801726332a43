//! Whole runs against real nodes on loopback: our `sequencer dev`, `geth --dev` where `SEQUENCER_GETH` names one, anvil where `SEQUENCER_ANVIL` does.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails as it should")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// A node that is ended when the test is over, and its folder.
struct Node {
    child: Child,
    folder: PathBuf,
    url: String,
    websocket: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(name: &str, mut command: Command, http: u16, websocket: u16) -> Node {
    let folder = std::env::temp_dir().join(format!("loadgen-real-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let log = std::fs::File::create(folder.join("node.log")).unwrap();
    command.current_dir(&folder).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let child = command.spawn().unwrap();
    let (url, websocket) = (format!("http://127.0.0.1:{http}"), format!("ws://127.0.0.1:{websocket}"));
    Node { child, folder, url, websocket }
}

/// A missing peer is a printed skip for a person, and a failure where `CI` is set.
fn missing(what: &str) {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(!is_ci, "{what}");
    println!("skipped: {what}");
}

fn sequencer(name: &str) -> Option<Node> {
    let beside = || Path::new(env!("CARGO_BIN_EXE_loadgen")).with_file_name("sequencer");
    let binary = std::env::var_os("SEQUENCER_BIN").map_or_else(beside, PathBuf::from);
    if !binary.exists() {
        missing("sequencer is not built beside loadgen: cargo build --workspace");
        return None;
    }
    let port = free_port();
    let mut command = Command::new(binary);
    // What is set for the tests of the sequencer is none of its settings.
    for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("SEQUENCER_")) {
        command.env_remove(variable);
    }
    command.args(["dev", "--l1", "off", "--http.port", &port.to_string()]);
    Some(start(name, command, port, port))
}

fn geth(name: &str) -> Option<Node> {
    let Some(binary) = std::env::var_os("SEQUENCER_GETH") else {
        missing("SEQUENCER_GETH does not name a go-ethereum");
        return None;
    };
    let (http, websocket) = (free_port(), free_port());
    let mut command = Command::new(binary);
    command.args([
        "--dev",
        "--dev.period",
        "1",
        "--dev.gaslimit",
        "60000000",
        "--nodiscover",
        "--maxpeers",
        "0",
        "--port",
        "0",
    ]);
    command.args([
        "--nat",
        "none",
        "--ipcdisable",
        "--http",
        "--http.addr",
        "127.0.0.1",
        "--http.port",
        &http.to_string(),
    ]);
    command.args(["--ws", "--ws.addr", "127.0.0.1", "--ws.port", &websocket.to_string(), "--ws.api", "eth,net,web3"]);
    command.args(["--authrpc.port", &free_port().to_string(), "--verbosity", "2"]);
    command.args(["--txpool.accountslots", "1000", "--txpool.globalslots", "100000"]);
    command.args(["--txpool.accountqueue", "1000", "--txpool.globalqueue", "100000"]);
    Some(start(name, command, http, websocket))
}

fn anvil(name: &str) -> Option<Node> {
    let Some(binary) = std::env::var_os("SEQUENCER_ANVIL") else {
        missing("SEQUENCER_ANVIL does not name an anvil");
        return None;
    };
    let port = free_port();
    let mut command = Command::new(binary);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--silent", "--block-time", "1"]);
    Some(start(name, command, port, port))
}

/// Runs the load generator; its report.
#[track_caller]
fn run(node: &Node, flags: &str) -> Value {
    let report = node.folder.join("report.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(["run", "--url", &node.url, "--ws-url", &node.websocket, "--wait-for-target", "60s", "--no-progress"]);
    command.args(["--server-pid", &node.child.id().to_string(), "--accounts", "40", "--connections", "8"]);
    command.args(flags.split(' ')).arg("--report-json").arg(&report);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let log = std::fs::read_to_string(node.folder.join("node.log")).unwrap_or_default();
    assert!(output.status.success(), "{flags}: {}\n{text}\n{log}", output.status);
    serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap()
}

/// What became of the transactions has to add up, and to have a reason.
#[track_caller]
fn check_ends(report: &Value) {
    let ends = report["ends"].as_object().unwrap();
    let sum: u64 = ends.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(Some(sum), report["counts"]["planned"].as_u64(), "{ends:?}");
    assert_eq!(report["unexplained"], 0, "{ends:?}");
}

#[track_caller]
fn check_tier(report: &Value, tier: &str, at_least: u64) {
    let tier = &report["tiers"][tier];
    let count = tier["latency"]["count"].as_u64();
    assert!(tier["status"] == "measured" && count.is_some_and(|count| count >= at_least), "{tier}");
    assert_eq!(tier["missing"], 0, "{tier}");
}

#[test]
fn our_node_takes_a_mixed_load_by_both_transports() {
    let Some(node) = sequencer("mixed") else { return };
    for (transport, seed) in [("http", 1), ("ws", 2)] {
        let flags = format!(
            "--rate 300 --duration 3s --workload mixed --tiers all --verify --transport {transport} --seed {seed}"
        );
        let report = run(&node, &flags);
        assert_eq!(report["counts"]["accepted"], 900, "{}", report["rejections"]);
        check_ends(&report);
        // Those that were replaced do not get there.
        for tier in ["preconfirmed", "sealed", "safe"] {
            check_tier(&report, tier, 870);
        }
        assert!(
            report["tiers"]["preconfirmed"]["reverted"].as_u64().unwrap() > 5,
            "{}",
            report["tiers"]["preconfirmed"]
        );
        assert_eq!(report["notes"], serde_json::json!([]));
        assert!(report["cpu"]["node"].as_f64().unwrap() > 0.0);
        let samples = report["server"]["memory"]["samples_bytes"].as_array().unwrap();
        assert!(samples.len() >= 3, "{samples:?}");
    }
}

#[test]
fn every_workload_runs_alone() {
    let Some(node) = sequencer("alone") else { return };
    for (seed, workload) in
        ["transfer", "erc20", "storage", "hot", "deploy", "revert", "conditional", "nonce-gap", "replacement"]
            .iter()
            .enumerate()
    {
        let report = run(&node, &format!("--closed --transactions 240 --workload {workload} --seed {}", seed + 10));
        assert_eq!(report["counts"]["accepted"], 240, "{workload}: {}", report["rejections"]);
        check_ends(&report);
        let in_blocks = if *workload == "replacement" { 160 } else { 240 };
        check_tier(&report, "sealed", in_blocks);
        assert_eq!(report["ends"]["in a block"], in_blocks, "{workload}: {}", report["ends"]);
        let reverted = if *workload == "revert" { 240 } else { 0 };
        assert_eq!(report["tiers"]["preconfirmed"]["reverted"], reverted, "{workload}");
    }
}

#[test]
fn go_ethereum_takes_the_same_load() {
    let Some(node) = geth("go-ethereum") else { return };
    check_stranger(&node);
}

#[test]
fn anvil_takes_the_same_load() {
    let Some(node) = anvil("anvil") else { return };
    check_stranger(&node);
}

/// A node of others takes all that it offers, and the report says what it does not offer.
#[track_caller]
fn check_stranger(node: &Node) {
    for (transport, seed) in [("http", 1), ("ws", 2)] {
        let flags = format!(
            "--rate 200 --duration 3s --workload mixed --tiers all --verify --transport {transport} --seed {seed}"
        );
        let report = run(node, &flags);
        check_ends(&report);
        assert_eq!(report["tiers"]["preconfirmed"]["status"], "not_offered");
        check_tier(&report, "sealed", 560);
        let notes = report["notes"].to_string();
        assert!(notes.contains("eth_sendRawTransactionConditional"), "{notes}");
    }
}
