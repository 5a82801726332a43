//! What the log says: text or JSON, nothing of a single transaction, no secret, and nobody waits for whoever should read it.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use alloy_primitives::Bytes;
use native_sequencer::config::genesis::DEV_ACCOUNTS;
use native_sequencer::testing::signing::TestKey;
use serde_json::{Value, json};

use super::{LIMIT, exchange, get, transfer};
use crate::peers::process::{Process, TempFolder, free_port, poll_until};
use crate::peers::rpc::Rpc;
use crate::peers::sequencer::{FAST_BLOCKS, Sequencer, command};

/// At the level that production has, transactions are counted and not told.
#[test]
fn a_transaction_is_no_line_of_the_log() {
    let _turn = crate::peers::turn();
    let settings = [&FAST_BLOCKS[..], &["--log.level", "info"]].concat();
    let node = Sequencer::start_in(TempFolder::new("logs"), "osaka", &settings);
    let key = TestKey::from_hex(DEV_ACCOUNTS[0].1);
    let before = node.log_text().lines().count();
    let mut hashes = Vec::new();
    for round in 0..4 {
        let batch = (0..50).map(|index| json!([transfer(&key, round * 50 + index)]));
        let answers = node.rpc.batch("eth_sendRawTransaction", batch);
        hashes.extend(answers.into_iter().map(|answer| answer.expect("a good transaction is taken")));
        // Refused ones are no line either.
        assert!(node.rpc.try_call("eth_sendRawTransaction", json!(["0x02c0"])).is_err());
        assert!(node.rpc.try_call("eth_sendRawTransaction", json!([transfer(&key, 0)])).is_err());
    }
    let mined = || node.rpc.quantity("eth_getTransactionCount", json!([key.address, "latest"])) == 200;
    poll_until("all mined", LIMIT, || mined().then_some(()));
    let blocks = node.rpc.quantity("eth_blockNumber", json!([])) as usize;
    let text = node.log_text();
    let lines = text.lines().count() - before;
    assert!(lines <= blocks + 2, "{lines} lines for {blocks} blocks:\n{}", node.log_tail());
    for hash in &hashes {
        let hash = hash.as_str().expect("a hash").trim_start_matches("0x");
        assert!(!text.contains(hash), "{hash} is in the log");
    }
    assert!(text.contains("INFO"), "the level is info: {text}");
    assert!(!text.contains('\u{1b}'), "a file is not coloured: {text}");
    node.stop();
}

/// The most talkative log, of a process with every kind of secret, whose peers are all away.
#[test]
fn json_lines_are_json_and_hold_no_secret() {
    let _turn = crate::peers::turn();
    let folder = TempFolder::new("logs");
    let (port, metrics) = (free_port(), free_port());
    let secret = folder.path().join("jwt.hex");
    fs::write(&secret, "5b".repeat(32)).expect("a writable folder");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("our own file");
    let key = DEV_ACCOUNTS[9].1;
    let mut node = command();
    node.args(["dev", "--log.level", "trace", "--log.format", "json", "--l1", "remote", "--data-dir"]);
    node.arg(folder.path().join("data")).args(["--http.port", &port.to_string()]);
    node.args(["--metrics.port", &metrics.to_string(), "--execution.mode", "verified"]);
    node.args(["--execution.engine-url", "http://127.0.0.1:1", "--execution.jwt-secret"]).arg(&secret);
    node.env("SEQUENCER_KEY", key).env("L1_RPC_URL", "http://127.0.0.1:1/secret-token?key=secret-query");
    let mut process = Process::start("talkative", folder.path(), node);
    let rpc = Rpc::new(format!("http://127.0.0.1:{port}"));
    let probe = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []});
    process.wait_until("answering", LIMIT, || rpc.post(&probe).ok());
    let raw: Bytes = transfer(&TestKey::from_hex(DEV_ACCOUNTS[0].1), 0);
    rpc.call("eth_sendRawTransaction", json!([raw]));
    process.wait_until("speaking of both peers", LIMIT, || {
        let text = process_log(folder.path());
        (text.contains("execution client") && text.contains("waiting for the L1 block")).then_some(())
    });
    let page = get(metrics, "/metrics").1;
    let probes = ["/livez", "/readyz", "/healthz"].map(|path| get(metrics, path).1).concat();
    assert!(process.stop().is_some_and(|status| status.success()), "{}", process.log_tail());
    let text = process.log_text();
    let lines = text.lines().filter(|line| line.starts_with('{'));
    for line in lines.clone() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target", "fields"] {
            assert!(!line[field].is_null(), "no {field} in {line}");
        }
    }
    assert!(lines.count() > 3, "{text}");
    // The banner shows the keys of the development chain, which everybody knows.
    let banner = format!("{} {key}", DEV_ACCOUNTS[9].0);
    for shown in [&text, &page, &probes] {
        for secret in ["secret-token", "secret-query", &"5b".repeat(8), "eyJ"] {
            assert!(!shown.contains(secret), "{secret} is shown: {banner}\n{shown}");
        }
    }
    let logged: String = text.lines().filter(|line| line.starts_with('{')).collect();
    assert!(!logged.contains(&key[2..18]), "the key is in the log");
}

fn process_log(folder: &std::path::Path) -> String {
    fs::read_to_string(folder.join("talkative.log")).unwrap_or_default()
}

/// Standard error is a pipe that is full: everything goes on, also the end.
#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let _turn = crate::peers::turn();
    let folder = TempFolder::new("logs");
    let (port, metrics) = (free_port(), free_port());
    let mut node = command();
    node.args(["dev", "--l1", "off", "--log.level", "debug", "--http.port", &port.to_string()]).args(FAST_BLOCKS);
    node.args(["--metrics.port", &metrics.to_string(), "--data-dir"]).arg(folder.path().join("data"));
    let mut process = Process::start_unread("unread", folder.path(), node);
    let rpc = Rpc::new(format!("http://127.0.0.1:{port}"));
    let probe = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []});
    process.wait_until("answering", LIMIT, || rpc.post(&probe).ok());
    // Each is a line at `debug`; a pipe holds 64 KiB, of about a hundred bytes a line.
    for _ in 0..1_500 {
        let mut stream = TcpStream::connect(("127.0.0.1", metrics)).expect("it listens");
        let _ = stream.write_all(b"\0\0 nonsense\r\n\r\n");
    }
    let key = TestKey::from_hex(DEV_ACCOUNTS[0].1);
    let receipt = rpc.call("eth_sendRawTransactionSync", json!([transfer(&key, 0)]));
    assert_eq!(receipt["status"], "0x1", "{receipt}");
    let head = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(metrics, head).map(|(status, _)| status), Some(200));
    let status = process.stop();
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{status:?}");
}
