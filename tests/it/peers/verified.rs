//! `verified` against a real go-ethereum: every block has the same hash on both sides, whoever is killed, frozen, restarted or emptied.

use std::time::{Duration, Instant};

use alloy_primitives::{Address, Bytes};
use serde_json::{Value, json};

use super::faulty_engine::{FaultyEngine, WrongAnswer};
use super::geth::{Geth, Scheme};
use super::process::{TempFolder, poll_until};
use super::rpc::{Rpc, quantity};
use super::sequencer::{FAST_BLOCKS, Sequencer, genesis};
use super::workload::{Account, DEV_KEYS, Workload};

const FORK: &str = "osaka";
/// A round of transactions mined and checked, on a loaded machine.
const ROUND_LIMIT: Duration = Duration::from_secs(60);
/// How long a fault lasts in its short form.
const FAULT: Duration = Duration::from_secs(15);
/// Time-outs and pauses that let a fault of seconds show everything; a block's bound that it reaches.
const QUICK: [&str; 12] = [
    "--execution.new-payload-timeout-ms",
    "2000",
    "--execution.forkchoice-timeout-ms",
    "2000",
    "--execution.read-timeout-ms",
    "1000",
    "--execution.backoff-max-ms",
    "500",
    "--execution.stall-ms",
    "1500",
    "--execution.unchecked-blocks-max",
    "8",
];

/// Both nodes, and what was acknowledged.
struct Pair {
    geth: Geth,
    /// `None` between a stop and a start.
    sequencer: Option<Sequencer>,
    workload: Workload,
    senders: Vec<Address>,
    /// Acknowledged transactions.
    sent: u64,
    /// Signed and refused: to be sent again, in order.
    refused: Vec<Bytes>,
    use_ipc: bool,
    /// Stands between us and the client.
    middle: Option<FaultyEngine>,
}

impl Pair {
    fn start(geth: Geth, seed: u64) -> Self {
        Self::start_through(geth, seed, None)
    }

    fn start_through(geth: Geth, seed: u64, middle: Option<FaultyEngine>) -> Self {
        let senders = DEV_KEYS.into_iter().map(|key| Account::new(key).address).collect();
        let workload = Workload::new(seed);
        let mut pair =
            Self { geth, sequencer: None, workload, senders, sent: 0, refused: Vec::new(), use_ipc: false, middle };
        pair.start_sequencer(TempFolder::new("verified"));
        let deploy = pair.workload.deploy();
        pair.send(vec![deploy]);
        pair
    }

    fn start_sequencer(&mut self, folder: TempFolder) {
        let engine = self.middle.as_ref().map_or_else(|| self.geth.engine_url(), |middle| middle.url.clone());
        let secret = self.geth.jwt_file();
        let ipc = self.geth.ipc_path();
        let engine = if self.use_ipc { ipc.to_str().expect("text") } else { engine.as_str() };
        let mut settings = vec!["--execution.mode", "verified", "--execution.engine-url", engine];
        settings.extend(["--execution.rpc-url", self.geth.rpc.url()]);
        settings.extend(["--execution.jwt-secret", secret.to_str().expect("a temporary folder's name is text")]);
        settings.extend(QUICK);
        settings.extend(FAST_BLOCKS);
        self.sequencer = Some(Sequencer::start_in(folder, FORK, &settings));
    }

    fn ours(&self) -> &Sequencer {
        self.sequencer.as_ref().expect("it runs")
    }

    fn rpc(&self) -> &Rpc {
        &self.ours().rpc
    }

    /// Sends in order; what is refused because the client is behind is kept.
    #[track_caller]
    fn send(&mut self, mut raw: Vec<Bytes>) {
        raw.splice(0..0, std::mem::take(&mut self.refused));
        let mut answers = self.rpc().batch("eth_sendRawTransaction", raw.iter().map(|raw| json!([raw]))).into_iter();
        for raw in raw {
            match answers.next().expect("one answer each") {
                Ok(_) if self.refused.is_empty() => self.sent += 1,
                Err(error) if error.code == -32005 => {
                    assert!(error.message.contains("wait for the execution client"), "{error:?}");
                    self.refused.push(raw);
                }
                // A block was checked in the middle of the batch: what comes after a refused one may not fit.
                Ok(_) => self.sent += 1,
                Err(error) => panic!("{raw}: {error:?}"),
            }
        }
    }

    fn send_round(&mut self) {
        let raw = self.workload.round();
        self.send(raw);
    }

    fn mined(&self) -> u64 {
        let nonces = self.rpc().batch("eth_getTransactionCount", self.senders.iter().map(|a| json!([a, "latest"])));
        nonces.iter().map(|nonce| quantity(nonce.as_ref().expect("a nonce"))).sum()
    }

    fn latest(&self) -> u64 {
        self.rpc().quantity("eth_blockNumber", json!([]))
    }

    /// Everything acknowledged is in `latest`, and every block of ours is theirs.
    #[track_caller]
    fn settles(&mut self) {
        let start = Instant::now();
        while !self.refused.is_empty() || self.mined() < self.sent {
            if !self.refused.is_empty() {
                self.send(Vec::new());
            }
            assert!(
                start.elapsed() < ROUND_LIMIT,
                "{} of {} mined, {} refused, {}:\n{}\n{}",
                self.mined(),
                self.sent,
                self.refused.len(),
                self.status(),
                self.ours().log_tail(),
                self.geth.log_tail()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(self.mined(), self.sent);
        self.same_chain();
    }

    #[track_caller]
    fn same_chain(&self) {
        let latest = self.latest();
        let tags = || (0..=latest).map(|number| json!([format!("{number:#x}"), false]));
        let (ours, theirs) =
            (self.rpc().batch("eth_getBlockByNumber", tags()), self.geth.rpc.batch("eth_getBlockByNumber", tags()));
        for (number, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            let (ours, theirs) = (ours.as_ref().expect("a block"), theirs.as_ref().expect("a block"));
            assert_eq!(ours["hash"], theirs["hash"], "block {number}");
        }
        let head = self.geth.rpc.quantity("eth_blockNumber", json!([]));
        assert!(head >= latest, "latest is {latest} here, {head} there");
    }

    fn status(&self) -> Value {
        self.rpc().call("sequencer_executionStatus", json!([]))
    }

    #[track_caller]
    fn wait_for_state(&self, state: &str) {
        let what = format!("the execution client to be {state}");
        poll_until(&what, ROUND_LIMIT, || (self.status()["state"] == state).then_some(()));
    }

    fn ready_status(&self) -> u16 {
        let url = format!("http://127.0.0.1:{}/readyz", self.ours().port);
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        config.new_agent().get(&url).call().expect("it answers").status().as_u16()
    }

    /// Load goes on for the fault's time while the client does not answer: `latest` stays, the bound is reached and said.
    #[track_caller]
    fn outlasts_the_fault(&mut self) {
        let before = self.latest();
        let start = Instant::now();
        while start.elapsed() < FAULT {
            if self.refused.is_empty() {
                self.send_round();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        // A block whose answer was on its way may still have come.
        assert!(self.latest() <= before + 1, "latest went from {before} to {} without the client", self.latest());
        assert!(!self.refused.is_empty(), "the bound was not reached: {}", self.status());
        assert_eq!(self.ready_status(), 503);
        assert_eq!(self.status()["state"], "unreachable");
    }
}

#[test]
fn every_block_has_the_same_hash_on_both_sides() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "every_block_has_the_same_hash_on_both_sides") else { return };
    let _turn = super::turn();
    let mut pair = Pair::start(Geth::start(&binary, &genesis(FORK)), 11);
    pair.settles();
    assert_eq!(pair.ready_status(), 200);
    for _ in 0..12 {
        pair.send_round();
        pair.settles();
    }
    check_proxied_reads(&pair);
    let folder = pair.sequencer.take().expect("it runs").stop();
    // The same by the IPC socket.
    pair.use_ipc = true;
    pair.start_sequencer(folder);
    for _ in 0..4 {
        pair.send_round();
        pair.settles();
    }
    println!("{} blocks, {} transactions: same hashes", pair.latest(), pair.sent);
    pair.sequencer.take().expect("it runs").stop();
}

/// Reads that we do not serve come from the client; what changes it is never passed on.
#[track_caller]
fn check_proxied_reads(pair: &Pair) {
    let proof = json!([pair.senders[0], ["0x0"], format!("{:#x}", pair.latest())]);
    assert_eq!(pair.rpc().call("eth_getProof", proof.clone()), pair.geth.rpc.call("eth_getProof", proof));
    let latest = json!([format!("{:#x}", pair.latest())]);
    let header = pair.rpc().call("eth_getHeaderByNumber", latest.clone());
    assert_eq!(header, pair.geth.rpc.call("eth_getHeaderByNumber", latest));
    let error = pair.rpc().try_call("eth_getHeaderByHash", json!(["0x12"])).expect_err("a hash has 32 bytes");
    assert_eq!(error, pair.geth.rpc.try_call("eth_getHeaderByHash", json!(["0x12"])).expect_err("a hash has 32 bytes"));
    for method in
        ["debug_setHead", "admin_peers", "engine_newPayloadV4", "testing_commitBlockV1", "eth_sendTransaction"]
    {
        let error = pair.rpc().try_call(method, json!([])).expect_err("it is not on the list");
        assert_eq!(error.code, -32601, "{method}: {error:?}");
    }
}

#[test]
fn a_killed_and_a_frozen_client_are_caught_up() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "a_killed_and_a_frozen_client_are_caught_up") else { return };
    let _turn = super::turn();
    let mut pair = Pair::start(Geth::start(&binary, &genesis(FORK)), 12);
    for _ in 0..4 {
        pair.send_round();
        pair.settles();
    }
    pair.geth.kill();
    pair.outlasts_the_fault();
    pair.geth.restart();
    pair.settles();
    pair.wait_for_state("ready");

    pair.geth.freeze();
    pair.outlasts_the_fault();
    pair.geth.thaw();
    pair.settles();
    pair.wait_for_state("ready");
    assert_eq!(pair.ready_status(), 200);

    // An empty database: everything is fed again, and `latest` never goes back.
    let latest = pair.latest();
    pair.geth.wipe();
    pair.geth.restart();
    pair.send_round();
    pair.settles();
    assert!(pair.latest() > latest);
    pair.sequencer.take().expect("it runs").stop();
}

#[test]
fn either_side_may_restart_first() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "either_side_may_restart_first") else { return };
    let _turn = super::turn();
    let mut pair = Pair::start(Geth::start(&binary, &genesis(FORK)), 13);
    pair.send_round();
    pair.settles();

    // We are killed with blocks that the client has not seen.
    pair.geth.kill();
    pair.send_round();
    let checked = pair.latest();
    let sealed = poll_until("a block to wait for the client", ROUND_LIMIT, || {
        let sealed = quantity(&pair.status()["sealedBlock"]);
        (sealed > checked).then_some(sealed)
    });
    let folder = pair.sequencer.take().expect("it runs").kill();
    pair.start_sequencer(folder);
    // Without the client nothing more is shown than before, and nothing is lost.
    assert!(pair.latest() <= checked, "latest is {} after the restart, {checked} before", pair.latest());
    assert!(quantity(&pair.status()["sealedBlock"]) >= sealed);
    pair.geth.restart();
    pair.settles();

    // The client is ahead of what we knew it to have checked.
    pair.send_round();
    let folder = pair.sequencer.take().expect("it runs").kill();
    pair.start_sequencer(folder);
    pair.settles();

    // Our data directory is lost: the client's blocks are adopted and executed.
    let (latest, sent) = (pair.latest(), pair.sent);
    drop(pair.sequencer.take().expect("it runs").stop());
    pair.start_sequencer(TempFolder::new("adopting"));
    assert_eq!((pair.latest(), pair.mined()), (latest, sent));
    pair.send_round();
    pair.settles();

    // Both at once, and the client with an empty database.
    pair.send_round();
    let folder = pair.sequencer.take().expect("it runs").kill();
    pair.geth.wipe();
    pair.start_sequencer(folder);
    pair.geth.restart();
    pair.send_round();
    pair.settles();
    pair.sequencer.take().expect("it runs").stop();
}

/// With go-ethereum's default state scheme a `kill -9` leaves a database that answers VALID and does not move: `debug_setHead` is the way out.
#[test]
fn a_client_that_lost_its_state_has_its_head_set() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "a_client_that_lost_its_state_has_its_head_set") else { return };
    let _turn = super::turn();
    let mut pair = Pair::start(Geth::start_with(&binary, &genesis(FORK), Scheme::Path), 14);
    for _ in 0..3 {
        pair.send_round();
        pair.settles();
    }
    // Kept by a clean stop.
    pair.geth.stop();
    pair.geth.restart();
    // The last eight or so are lost with its write buffer, and would simply be fed again; those before are known without their state.
    for _ in 0..20 {
        pair.send_round();
        pair.settles();
    }
    pair.geth.kill();
    pair.geth.restart();
    pair.send_round();
    pair.settles();
    assert!(quantity(&pair.status()["headsSet"]) > 0, "{}", pair.status());
    pair.sequencer.take().expect("it runs").stop();
}

/// Fork times are not part of the genesis hash: a client with Prague's rules calls our Osaka block INVALID at the first transaction whose gas
/// they count differently.
#[test]
fn an_invalid_block_halts_with_evidence() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "an_invalid_block_halts_with_evidence") else { return };
    let _turn = super::turn();
    let mut pair = Pair::start(Geth::start(&binary, &genesis("prague")), 15);
    let start = Instant::now();
    while pair.status()["state"] != "halted" {
        assert!(start.elapsed() < ROUND_LIMIT, "not halted: {}\n{}", pair.status(), pair.ours().log_tail());
        let raw = pair.workload.round();
        // Some are refused once it is halted.
        pair.rpc().batch("eth_sendRawTransaction", raw.iter().map(|raw| json!([raw])));
        std::thread::sleep(Duration::from_millis(300));
    }
    let status = pair.status();
    let reason = status["reason"].as_str().expect("a reason");
    assert!(reason.contains("says INVALID to block"), "{reason}");
    let latest = pair.latest();
    assert_eq!(pair.ready_status(), 503);
    let raw = pair.workload.deploy();
    let error = pair.rpc().try_call("eth_sendRawTransaction", json!([raw])).expect_err("it is halted");
    assert!(error.code == -32005 && error.message.starts_with("halted"), "{error:?}");

    let folder = pair.sequencer.take().expect("it runs").stop();
    let evidence = super::sequencer::data_of(&folder).join("evidence");
    let entries: Vec<_> =
        std::fs::read_dir(&evidence).expect("a folder").map(|entry| entry.expect("one").path()).collect();
    let [dir] = entries.as_slice() else { panic!("one block is accused: {entries:?}") };
    assert_eq!(std::fs::read_to_string(dir.join("verdict.txt")).expect("the verdict"), reason);
    let request = std::fs::read(dir.join("request.json")).expect("the request");
    let request: Value = serde_json::from_slice(&request).expect("it is JSON");
    assert_eq!(quantity(&request[0]["blockNumber"]), latest + 1, "the block above latest is the accused one");

    // It stays halted, and goes on reading.
    pair.start_sequencer(folder);
    assert_eq!(pair.latest(), latest);
    let error = pair.rpc().try_call("eth_sendRawTransaction", json!([raw])).expect_err("it is halted");
    assert!(error.message.starts_with("halted"), "{error:?}");
    pair.sequencer.take().expect("it runs").stop();
}

#[test]
fn wrong_answers_are_not_believed_and_pass() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "wrong_answers_are_not_believed_and_pass") else { return };
    let _turn = super::turn();
    let geth = Geth::start(&binary, &genesis(FORK));
    let middle = FaultyEngine::start(geth.engine_url());
    let mut pair = Pair::start_through(geth, 16, Some(middle));
    pair.settles();
    let faults = [
        (WrongAnswer::Status(401), "HTTP 401: no"),
        (WrongAnswer::Status(429), "HTTP 429: no"),
        (WrongAnswer::Status(500), "HTTP 500: no"),
        (WrongAnswer::NotJson, "the answer is not JSON: `<html>`"),
        (WrongAnswer::Syncing, "SYNCING to block"),
        (WrongAnswer::OtherBlock, "with latestValidHash 0xeeee"),
    ];
    for (wrong, why) in faults {
        pair.middle.as_ref().expect("it stands between").answer(wrong);
        let before = pair.latest();
        pair.send_round();
        // The answer to a call that was under way may still have been right.
        poll_until(&format!("the status to say `{why}`"), ROUND_LIMIT, || {
            pair.status()["reason"].as_str().is_some_and(|reason| reason.contains(why)).then_some(())
        });
        assert_eq!(pair.ready_status(), 503, "{wrong:?}");
        std::thread::sleep(Duration::from_secs(2));
        assert!(pair.latest() <= before + 1, "{wrong:?}: latest went from {before} to {}", pair.latest());
        pair.middle.as_ref().expect("it stands between").answer(WrongAnswer::None);
        pair.settles();
        pair.wait_for_state("ready");
    }
    pair.sequencer.take().expect("it runs").stop();
}

/// `journal rollback` takes blocks from the client too: it neither keeps them nor are they adopted again.
#[test]
fn rolled_back_blocks_leave_the_client() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "rolled_back_blocks_leave_the_client") else { return };
    let _turn = super::turn();
    let mut pair = Pair::start(Geth::start(&binary, &genesis(FORK)), 17);
    // More than go-ethereum reorganises without being told to (32).
    let rounds = if super::is_long() { 800 } else { 40 };
    for _ in 0..rounds {
        pair.send_round();
        pair.settles();
    }
    let kept = pair.latest() - rounds;
    let before = pair.geth.rpc.call("eth_getBlockByNumber", json!([format!("{:#x}", kept + 1), false]));
    let folder = pair.sequencer.take().expect("it runs").stop();
    let mut rollback = super::sequencer::command();
    rollback.args(["journal", "rollback", "--to-block", &kept.to_string(), "--yes", "--data-dir"]);
    let output = rollback.arg(super::sequencer::data_of(&folder)).output().expect("our binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    pair.start_sequencer(folder);
    // The transactions come back, into other blocks.
    pair.settles();
    let after = pair.geth.rpc.call("eth_getBlockByNumber", json!([format!("{:#x}", kept + 1), false]));
    assert_ne!(before["hash"], after["hash"], "block {}", kept + 1);
    assert!(quantity(&pair.status()["headsSet"]) > 0, "{}", pair.status());
    pair.sequencer.take().expect("it runs").stop();
}
