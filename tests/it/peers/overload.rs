//! Far more than the limit lets through, offered for seconds by `loadgen overload`: the short form of `benches/overload`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::admin::Admin;
use super::process::{TempFolder, free_port, poll_until};
use super::sequencer::{Sequencer, command, data_of, loadgen_binary};

const LIMIT: Duration = Duration::from_secs(60);
/// Requests a second that are let through, once the generator has asked what it needs.
const RATE: u64 = 40;
const OFFERED: u64 = 3_000;
/// Seconds of load before the limit comes.
const FREE_S: u64 = 3;
const BLOCK_S: u64 = 5;
/// Until two blocks are closed: what a node has at any load is filled, and so is what the load before the limit left.
const WARM_S: usize = 2 * BLOCK_S as usize;

/// Starts a node whose genesis has the generator's accounts; answers it with its admin port and that of its metrics.
fn start(loadgen: &Path, accounts: u64) -> (Sequencer, Admin, u16) {
    let folder = TempFolder::new("overload");
    let (plain, funded) = (folder.path().join("plain.json"), folder.path().join("genesis.json"));
    fs::write(&plain, command().arg("genesis").output().expect("our binary starts").stdout).expect("a file");
    let output = Command::new(loadgen)
        .args(["accounts", "--accounts", &accounts.to_string(), "--genesis"])
        .arg(&plain)
        .output()
        .expect("loadgen starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::write(&funded, output.stdout).expect("a file");
    let (port, admin) = (free_port(), free_port());
    let (port_text, admin_text, genesis) =
        (port.to_string(), admin.to_string(), funded.to_str().expect("text").to_owned());
    let data = data_of(&folder);
    let block_ms = (1_000 * BLOCK_S).to_string();
    let ports = ["--metrics.port", &port_text, "--admin.port", &admin_text];
    let settings = [&["--genesis", &genesis, "--block.interval-ms", &block_ms], &ports[..]].concat();
    let sequencer = Sequencer::start_in(folder, "osaka", &settings);
    (sequencer, Admin::of(&data, admin), port)
}

/// Offers far more than the limit, which holds from [`FREE_S`] to the end; the generator's report.
fn offer(sequencer: &Sequencer, admin: &Admin, metrics: u16, loadgen: &Path, seconds: u64) -> Value {
    let folder = TempFolder::new("overload-report");
    let report = folder.path().join("report.json");
    let (rate, duration) = (OFFERED.to_string(), format!("{seconds}s"));
    let child = Command::new(loadgen)
        .args(["overload", "--connections", "8", "--outstanding", "8", "--drain", "60s"])
        .args(["--rate", &rate, "--duration", &duration, "--url", sequencer.rpc.url()])
        .args(["--metrics-url", &format!("http://127.0.0.1:{metrics}"), "--server-pid", &sequencer.pid().to_string()])
        .arg("--report-json")
        .arg(&report)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("loadgen starts");
    // It asks what it needs before it sends: the limit holds for what it sends.
    poll_until("the load", LIMIT, || {
        let page = super::observe::get(metrics, "/metrics").1;
        let admitted = page.lines().find_map(|line| line.strip_prefix("seq_builder_tx_admitted_total "))?;
        (admitted.parse::<f64>().ok()? > 0.0).then_some(())
    });
    thread::sleep(Duration::from_secs(FREE_S));
    let limit = |rate: u64| admin.call("admin_setLimits", json!([{ "limits.requests-per-second": rate }]));
    limit(RATE);
    // Until it has sent its last, and a little longer.
    thread::sleep(Duration::from_secs(seconds));
    limit(0);
    let output = child.wait_with_output().expect("it ends");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{stdout}");
    assert!(output.status.success(), "loadgen: {}\n{stdout}{stderr}\n{}", output.status, sequencer.log_tail());
    serde_json::from_slice(&fs::read(&report).expect("loadgen wrote it")).expect("it is JSON")
}

/// What of a series came in the seconds in which the limit held.
fn limited(report: &Value, name: &str, seconds: u64) -> u64 {
    let series: Vec<u64> = serde_json::from_value(report["offered"][name].clone()).expect("a series");
    // What the node began with, and the second in which the limit comes, are others'.
    (FREE_S + 2..seconds).map(|second| series.get(second as usize).copied().unwrap_or(0)).sum()
}

#[test]
fn ten_times_the_limit_is_refused_in_small_memory_and_health_answers() {
    let Some(loadgen) = loadgen_binary() else {
        assert!(!super::is_ci(), "loadgen is not built; run tests/run or `cargo build --workspace`");
        println!("skipped ten_times_the_limit_is_refused_in_small_memory_and_health_answers: loadgen is not built");
        return;
    };
    let _turn = super::turn();
    let seconds = if super::is_long() { 180 } else { 20 };
    let (sequencer, admin, metrics) = start(&loadgen, 64);
    let report = offer(&sequencer, &admin, metrics, &loadgen, seconds);
    let count = |name: &str| report["offered"][name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"));
    let (sent, accepted, refused) = (count("sent"), count("accepted"), count("refused"));
    assert_eq!(count("offered"), sent + count("held_back"));
    assert_eq!(sent, accepted + refused, "each is answered, by a hash or by -32005: {}", report["offered"]);
    let (let_through, shed) = (limited(&report, "accepted_per_s", seconds), limited(&report, "refused_per_s", seconds));
    // What each second brings, and a second's worth at once.
    assert!(let_through <= RATE * (seconds - FREE_S), "{let_through} were let through at {RATE} a second");
    // A debug build on a loaded machine reads far less than is offered; it must be above the limit.
    assert!(let_through > 0 && shed > let_through / 2, "{let_through} let through, {shed} refused: no overload");
    assert_eq!(report["accounts_behind"], 0, "what was accepted is in blocks");
    let probes = report["probes"].as_object().expect("probes");
    assert_eq!(probes.len(), 7, "{probes:?}");
    for (name, probe) in probes {
        assert_eq!(probe["failed"], 0, "{name}: {probe}");
        let statuses = probe["statuses"].as_object().expect("statuses");
        assert!(statuses.keys().all(|status| status == "200") && probe["count"].as_u64() > Some(0), "{name}: {probe}");
    }
    let memory: Vec<u64> = serde_json::from_value(report["memory_bytes"].clone()).expect("samples");
    let growth = memory[WARM_S..].iter().max().expect("samples").saturating_sub(memory[WARM_S]);
    // Each block keeps its own, up to a page of 2 MiB, until 128 are in memory; what is refused meanwhile would be 25 MB.
    let bound = (8 << 20) + seconds / BLOCK_S * (2 << 20);
    assert!(growth < bound, "memory grew by {growth} bytes: {memory:?}");
    // Afterwards everything is served again.
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": [] });
    let served = || sequencer.rpc.post(&call).ok().filter(|reply| reply["result"].is_string()).map(drop);
    poll_until("served again", LIMIT, served);
    assert!((0..20).all(|_| served().is_some()), "nothing is refused any more");
    sequencer.stop();
}
