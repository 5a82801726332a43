//! What a newcomer and an operator see of the process: a quick start, a clean end, a chain that is kept.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::journal::freeze::Frozen;
use super::process::{TempFolder, poll_until};
use super::rpc::Rpc;
use super::sequencer::{Sequencer, command, genesis};
use super::workload::Workload;

/// Issue 3: the first answer comes at most this long after the process starts.
const START_LIMIT: Duration = Duration::from_secs(2);
const MINED_LIMIT: Duration = Duration::from_secs(20);
/// A drain (5 s at most), a sync, and a loaded machine.
const STOP_LIMIT: Duration = Duration::from_secs(20);

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

/// The status of a probe on a new connection; `None` when there is no answer.
fn probe(port: u16, path: &str) -> Option<u16> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
    connection.set_read_timeout(Some(MINED_LIMIT)).ok()?;
    connection
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut text = String::new();
    connection.read_to_string(&mut text).ok()?;
    text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// The order of an end: not ready first, everything served meanwhile, then drained, sealed, synced, exit 0.
#[test]
fn sigterm_says_not_ready_serves_for_the_delay_and_ends_in_order() {
    let _turn = super::turn();
    let mut workload = Workload::new(13);
    let sequencer = Sequencer::start_in(TempFolder::new("sigterm"), "osaka", &["--stop.delay-ms", "3000"]);
    assert_eq!(probe(sequencer.port, "/readyz"), Some(200));
    let start = Instant::now();
    sequencer.signal("TERM");
    poll_until("not ready", MINED_LIMIT, || (probe(sequencer.port, "/readyz") == Some(503)).then_some(()));
    assert!(start.elapsed() < Duration::from_secs(2), "not ready after {:?}", start.elapsed());
    // The delay is for those who have not heard of it yet.
    assert_eq!(probe(sequencer.port, "/livez"), Some(200));
    let answers = sequencer.rpc.batch("eth_sendRawTransaction", [json!([workload.deploy()])]);
    let hash = answers[0].clone().expect("a good transaction is taken until the delay is over");
    let folder = sequencer.stopped(0);
    assert!(start.elapsed() > Duration::from_secs(3), "the end came after {:?}, before the delay", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(3) + STOP_LIMIT, "the end took {:?}", start.elapsed());
    let sequencer = Sequencer::start_in(folder, "osaka", &[]);
    let receipt = sequencer.rpc.call("eth_getTransactionReceipt", json!([hash]));
    assert_eq!(receipt["status"], "0x1", "receipt after the restart: {receipt}");
    sequencer.stop();
}

#[test]
fn a_second_signal_ends_it_at_once_and_what_was_acknowledged_stays() {
    let _turn = super::turn();
    for second in ["TERM", "INT"] {
        let mut workload = Workload::new(14);
        let sequencer = Sequencer::start_in(TempFolder::new("signals"), "osaka", &["--stop.delay-ms", "600000"]);
        let answers = sequencer.rpc.batch("eth_sendRawTransaction", [json!([workload.deploy()])]);
        let hash = answers[0].clone().expect("a good transaction is taken");
        sequencer.signal("TERM");
        poll_until("not ready", MINED_LIMIT, || (probe(sequencer.port, "/readyz") == Some(503)).then_some(()));
        let start = Instant::now();
        sequencer.signal(second);
        let folder = sequencer.stopped(130);
        assert!(start.elapsed() < Duration::from_secs(2), "{second}: the end took {:?}", start.elapsed());
        let sequencer = Sequencer::start_in(folder, "osaka", &[]);
        let known = || sequencer.rpc.call("eth_getTransactionReceipt", json!([hash]))["status"] == "0x1";
        poll_until("included", MINED_LIMIT, || known().then_some(()));
        sequencer.stop();
    }
}

/// A disk that does not answer any more: the end is bounded all the same, says what hangs, and is no success.
#[test]
fn an_end_that_hangs_is_cut_at_its_limit() {
    let _turn = super::turn();
    let sequencer = Sequencer::start_in(TempFolder::new("hangs"), "osaka", &["--stop.limit-ms", "1000"]);
    let frozen = match Frozen::thread(sequencer.pid(), "journal") {
        Ok(frozen) => frozen,
        Err(error) => {
            assert!(!super::is_ci(), "CI is set and a thread of a child cannot be stopped: {error}");
            println!(
                "skipped an_end_that_hangs_is_cut_at_its_limit: a thread of a child cannot be stopped here: {error}"
            );
            return;
        }
    };
    let start = Instant::now();
    sequencer.signal("TERM");
    let told = "still running when stop.limit-ms was over";
    poll_until("told", STOP_LIMIT, || sequencer.log_text().contains(told).then_some(()));
    assert!(start.elapsed() > Duration::from_secs(1), "told after {:?}", start.elapsed());
    // What is left of a stopped thread belongs to us.
    thread::sleep(Duration::from_millis(200));
    drop(frozen);
    let (status, text, folder) = sequencer.wait_end(STOP_LIMIT);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("journal"), "{text}");
    Sequencer::start_in(folder, "osaka", &[]).stop();
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
    let elsewhere = config("elsewhere.toml", "[execution]\nmode = \"elsewhere\"\n");
    let other_chain = config("other.toml", "data-dir = \"x\"\n[l2]\nchain-id = 1\n");
    let misspelt = config("misspelt.toml", "[http]\nprot = 1\n");
    for (arguments, expected) in [
        (&["dev", "--http.prot", "1"][..], "http.port"),
        (&["dev", "--l1", "off", "--http.port", "70000"], "70000"),
        (&["dev", "--l1.chain-id", "5", "--l1.dev-port", "0", "--http.port", "0"], "61971"),
        (
            &["dev", "--l1.execute-address", "0x0000000000000000000000000000000000000099"],
            "the embedded L1 has EXECUTE at",
        ),
        (&["genesis", "--fork", "berlin"], "berlin"),
        (&["run", "--config", "/no/such/file.toml"], "/no/such/file.toml"),
        (&["run", "--config", &elsewhere], "embedded, verified or delegated"),
        (&["run", "--config", &misspelt], "http.port"),
        (&["run", "--config", &other_chain], "l2.chain-id is 1 and the genesis has chain id 61972"),
        (&["config", "check", "--l2.chain-id", "1"], "l2.chain-id is 1 and the genesis has chain id 61972"),
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
