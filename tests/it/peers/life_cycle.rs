//! What a newcomer and an operator see of the process: a quick start, a clean end, a chain that is kept.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::process::{TempFolder, poll_until};
use super::rpc::Rpc;
use super::sequencer::{Sequencer, command, genesis};
use super::workload::Workload;

/// Issue 3: the first answer comes at most this long after the process starts.
const START_LIMIT: Duration = Duration::from_secs(2);
const MINED_LIMIT: Duration = Duration::from_secs(20);

#[test]
fn first_answer_comes_within_two_seconds() {
    let _turn = super::turn();
    // The quickest of three: other tests may be compiling or linking beside this one.
    let durations: Vec<Duration> = (0..3).map(|_| start_and_stop()).collect();
    assert!(durations.iter().min() <= Some(&START_LIMIT), "starts took {durations:?}");
}

fn start_and_stop() -> Duration {
    let sequencer = Sequencer::start("osaka");
    let duration = sequencer.start_duration;
    sequencer.stop();
    duration
}

/// Issue 3: one thousand idle connections cost under 20 MiB.
#[test]
fn a_thousand_idle_connections_are_cheap() {
    let _turn = super::turn();
    let sequencer = Sequencer::start("osaka");
    // Answered by the builder core, so its memory is there already.
    sequencer.rpc.call("txpool_status", json!([]));
    let before = sequencer.resident_bytes();
    let request = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 59\r\n\r\n\
        {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_chainId\",\"params\":[]}";
    let mut connections = Vec::with_capacity(1_000);
    for index in 0..1_000 {
        let mut connection = TcpStream::connect(("127.0.0.1", sequencer.port)).expect("the node takes connections");
        connection.set_read_timeout(Some(MINED_LIMIT)).expect("a positive timeout is valid");
        connection.write_all(request.as_bytes()).expect("loopback takes a few bytes");
        // Idle means that buffers were needed once: each connection has had its answer.
        let count = connection.read(&mut [0; 1_024]).expect("an answer comes");
        assert!(count > 0, "connection {index} was closed");
        connections.push(connection);
    }
    let growth = sequencer.resident_bytes().saturating_sub(before);
    println!("1,000 idle connections: {:.1} MiB", growth as f64 / f64::from(1 << 20));
    assert!(growth < 20 << 20, "1,000 idle connections cost {growth} bytes");
    drop(connections);
    sequencer.stop();
}

#[test]
fn data_folder_keeps_the_chain_and_sigterm_loses_nothing() {
    let _turn = super::turn();
    let mut workload = Workload::new(11);
    let mut folder = TempFolder::new("life-cycle");
    let mut head = Value::Null;
    let mut count = 0;
    for run in 0..3 {
        let sequencer = Sequencer::start_in(folder, "prague", &[]);
        let rpc = &sequencer.rpc;
        if run > 0 {
            let number = head["number"].clone();
            assert_eq!(rpc.call("eth_getBlockByNumber", json!([number, false]))["hash"], head["hash"], "block kept");
        }
        let raw = if run == 0 { vec![workload.deploy()] } else { workload.round() };
        count += raw.len();
        for answer in rpc.batch("eth_sendRawTransaction", raw.iter().map(|raw| json!([raw]))) {
            answer.unwrap_or_else(|error| panic!("run {run}: {error:?}"));
        }
        poll_until("all mined", MINED_LIMIT, || (mined(rpc) == count).then_some(()));
        head = rpc.call("eth_getBlockByNumber", json!(["latest", false]));
        folder = sequencer.stop();
    }
}

/// Acknowledged transactions that are not in a block when SIGTERM comes are in one after it.
#[test]
fn sigterm_seals_what_was_acknowledged() {
    let _turn = super::turn();
    let mut workload = Workload::new(12);
    let sequencer = Sequencer::start("prague");
    let answers = sequencer.rpc.batch("eth_sendRawTransaction", [json!([workload.deploy()])]);
    let hash = answers[0].clone().expect("a good transaction is taken");
    let sequencer = Sequencer::start_in(sequencer.stop(), "prague", &[]);
    let receipt = sequencer.rpc.call("eth_getTransactionReceipt", json!([hash]));
    assert_eq!(receipt["status"], "0x1", "receipt after the restart: {receipt}");
    sequencer.stop();
}

#[test]
fn genesis_is_the_same_each_time_and_names_its_fork() {
    for (fork, is_osaka) in [("prague", false), ("osaka", true)] {
        let first = genesis(fork);
        assert_eq!(first, genesis(fork), "{fork}");
        assert_eq!(first["config"]["chainId"], 61_972, "{fork}");
        assert_eq!(first["config"]["pragueTime"], 0, "{fork}");
        assert_eq!(first["config"]["osakaTime"] == 0, is_osaka, "{fork}");
    }
}

#[test]
fn wrong_command_lines_say_what_is_wrong() {
    let folder = TempFolder::new("config");
    let config = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("the folder is writable");
        path.to_str().expect("the temporary folder's name is text").to_owned()
    };
    let delegated = config("delegated.toml", "[execution]\nmode = \"delegated\"\n");
    let misspelt = config("misspelt.toml", "[http]\nprot = 1\n");
    for (arguments, expected) in [
        (&["dev", "--http.prot", "1"][..], "http.port"),
        (&["dev", "--l1", "off", "--http.port", "70000"], "70000"),
        (&["genesis", "--fork", "berlin"], "berlin"),
        (&["run", "--config", "/no/such/file.toml"], "/no/such/file.toml"),
        (&["run", "--config", &delegated], "only `embedded` and `verified` exist"),
        (&["run", "--config", &misspelt], "http.port"),
    ] {
        let output = command().args(arguments).output().expect("our binary starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} succeeds");
        assert!(output.status.code().is_some(), "{arguments:?} dies by a signal: {text}");
        assert!(text.contains(expected), "{arguments:?}: {expected:?} is not in: {text}");
    }
}

/// Transactions in all blocks.
fn mined(rpc: &Rpc) -> usize {
    let latest = rpc.quantity("eth_blockNumber", json!([]));
    let blocks = rpc.batch("eth_getBlockByNumber", (1..=latest).map(|number| json!([format!("{number:#x}"), false])));
    let count = |block: &Value| block["transactions"].as_array().map_or(0, Vec::len);
    blocks.iter().map(|block| count(block.as_ref().expect("a sealed block"))).sum()
}
