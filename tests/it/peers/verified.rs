//! `verified` against a real go-ethereum: every block has the same hash on both sides, whoever is killed, frozen, restarted or emptied.

use std::time::{Duration, Instant};

use alloy_consensus::TxEip1559;
use alloy_primitives::{Address, Bytes, U256};
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
/// Transfers that fill a block of the test with full blocks.
const FULL_BLOCK_TXS: u64 = 520;
/// How long a fault lasts in its short form, and in its long one.
const FAULT: Duration = Duration::from_secs(15);
const LONG_FAULT: Duration = Duration::from_secs(600);
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
pub(super) struct Pair {
    pub geth: Geth,
    /// `None` between a stop and a start.
    pub sequencer: Option<Sequencer>,
    pub workload: Workload,
    senders: Vec<Address>,
    /// `execution.mode`.
    mode: &'static str,
    /// Acknowledged transactions.
    pub sent: u64,
    /// Signed and refused: to be sent again, in order.
    refused: Vec<Bytes>,
    use_ipc: bool,
    /// `execution.reset-command`.
    reset_command: Option<String>,
    /// More settings of ours.
    pub more: Vec<String>,
    pub middles: Middles,
}

/// What stands between us and the client's two ports, if anything does.
#[derive(Default)]
pub(super) struct Middles {
    pub engine: Option<FaultyEngine>,
    pub plain: Option<FaultyEngine>,
}

impl Middles {
    /// Both answer like this from now on.
    pub fn answer(&self, wrong: WrongAnswer) {
        self.engine.iter().chain(&self.plain).for_each(|middle| middle.answer(wrong));
    }
}

impl Pair {
    fn start(geth: Geth, seed: u64) -> Self {
        Self::start_in_mode(geth, seed, "verified")
    }

    /// As [`Pair::start`], in another mode.
    pub fn start_in_mode(geth: Geth, seed: u64, mode: &'static str) -> Self {
        Self::start_through(geth, seed, mode, Middles::default())
    }

    /// As [`Pair::start_in_mode`], with servers between us and the client.
    pub fn start_through(geth: Geth, seed: u64, mode: &'static str, middles: Middles) -> Self {
        let mut pair = Self::new(geth, seed, mode, middles);
        pair.start_sequencer(TempFolder::new(mode));
        let deploy = pair.workload.deploy();
        pair.send(vec![deploy]);
        pair
    }

    /// The client alone: the sequencer is not started yet, and nothing was sent.
    pub fn new(geth: Geth, seed: u64, mode: &'static str, middles: Middles) -> Self {
        Self {
            geth,
            sequencer: None,
            workload: Workload::new(seed),
            senders: DEV_KEYS.into_iter().map(|key| Account::new(key).address).collect(),
            mode,
            sent: 0,
            refused: Vec::new(),
            use_ipc: false,
            reset_command: None,
            more: Vec::new(),
            middles,
        }
    }

    pub fn start_sequencer(&mut self, folder: TempFolder) {
        let settings = self.settings();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        self.sequencer = Some(Sequencer::start_in(folder, FORK, &settings));
    }

    /// A start that must refuse to run; what it wrote.
    #[track_caller]
    pub fn start_refused(&self, folder: &TempFolder) -> String {
        let settings = self.settings();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        Sequencer::start_refused(folder, FORK, &settings)
    }

    fn settings(&self) -> Vec<String> {
        let engine = self.middles.engine.as_ref().map_or_else(|| self.geth.engine_url(), |middle| middle.url.clone());
        let plain = self.middles.plain.as_ref().map_or_else(|| self.geth.rpc.url(), |middle| &middle.url).to_owned();
        let secret = self.geth.jwt_file();
        let ipc = self.geth.ipc_path();
        let engine = if self.use_ipc { ipc.to_str().expect("text") } else { engine.as_str() };
        let mut settings = vec!["--execution.mode", self.mode, "--execution.engine-url", engine];
        settings.extend(["--execution.rpc-url", &plain]);
        settings.extend(["--execution.jwt-secret", secret.to_str().expect("a temporary folder's name is text")]);
        settings.extend(QUICK);
        if !self.more.iter().any(|setting| setting == FAST_BLOCKS[0]) {
            settings.extend(FAST_BLOCKS);
        }
        settings.extend(self.reset_command.iter().flat_map(|command| ["--execution.reset-command", command]));
        settings.extend(self.more.iter().map(String::as_str));
        settings.into_iter().map(str::to_owned).collect()
    }

    pub fn ours(&self) -> &Sequencer {
        self.sequencer.as_ref().expect("it runs")
    }

    pub fn rpc(&self) -> &Rpc {
        &self.ours().rpc
    }

    /// Sends in order; what is refused because the client is behind is kept.
    #[track_caller]
    pub fn send(&mut self, mut raw: Vec<Bytes>) {
        raw.splice(0..0, std::mem::take(&mut self.refused));
        let mut answers = self.rpc().batch("eth_sendRawTransaction", raw.iter().map(|raw| json!([raw]))).into_iter();
        for raw in raw {
            match answers.next().expect("one answer each") {
                Ok(_) if self.refused.is_empty() => self.sent += 1,
                Err(error) if error.code == -32005 => {
                    assert!(error.message.contains("the execution client"), "{error:?}");
                    self.refused.push(raw);
                }
                // A block was checked in the middle of the batch: what comes after a refused one may not fit.
                Ok(_) => self.sent += 1,
                Err(error) => panic!("{raw}: {error:?}"),
            }
        }
    }

    pub fn send_round(&mut self) {
        let raw = self.workload.round();
        self.send(raw);
    }

    /// In `delegated` the client is asked, and one that has just come back may answer late: what it does not say counts as nothing, and whoever
    /// waits asks again.
    pub fn mined(&self) -> u64 {
        let nonces = self.rpc().batch("eth_getTransactionCount", self.senders.iter().map(|a| json!([a, "latest"])));
        nonces.iter().flatten().map(quantity).sum()
    }

    pub fn latest(&self) -> u64 {
        self.rpc().quantity("eth_blockNumber", json!([]))
    }

    /// Everything acknowledged is in `latest`, and every block of ours is theirs.
    #[track_caller]
    pub fn settles(&mut self) {
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
    pub fn same_chain(&self) {
        let latest = self.latest();
        // A batch has at most 1,000 calls, here and there.
        for first in (0..=latest).step_by(1_000) {
            let tags = || (first..=latest.min(first + 999)).map(|number| json!([format!("{number:#x}"), false]));
            let blocks = |rpc: &super::rpc::Rpc| rpc.batch("eth_getBlockByNumber", tags());
            for ((number, ours), theirs) in (first..).zip(blocks(self.rpc())).zip(blocks(&self.geth.rpc)) {
                assert_eq!(ours.expect("a block")["hash"], theirs.expect("a block")["hash"], "block {number}");
            }
        }
        let head = self.geth.rpc.quantity("eth_blockNumber", json!([]));
        assert!(head >= latest, "latest is {latest} here, {head} there");
    }

    pub fn status(&self) -> Value {
        self.rpc().call("sequencer_executionStatus", json!([]))
    }

    #[track_caller]
    pub fn wait_for_state(&self, state: &str) {
        let what = format!("the execution client to be {state}");
        poll_until(&what, ROUND_LIMIT, || (self.status()["state"] == state).then_some(()));
    }

    pub fn ready_status(&self) -> u16 {
        let url = format!("http://127.0.0.1:{}/readyz", self.ours().port);
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        config.new_agent().get(&url).call().expect("it answers").status().as_u16()
    }

    /// Load goes on for the fault's time while the client does not answer: `latest` stays, the bound is reached and said.
    #[track_caller]
    fn outlasts_the_fault(&mut self) {
        self.holds_admission(if super::is_long() { LONG_FAULT } else { FAULT });
        assert_eq!(self.status()["state"], "unreachable");
    }

    /// Load goes on until admission is held, and at least for this time: `latest` stays, and it is said that nothing gets on.
    #[track_caller]
    pub fn holds_admission(&mut self, duration: Duration) {
        let before = self.latest();
        let start = Instant::now();
        while start.elapsed() < duration || self.refused.is_empty() {
            if self.refused.is_empty() {
                self.send_round();
            }
            assert!(start.elapsed() < duration + ROUND_LIMIT, "the bound was not reached: {}", self.status());
            std::thread::sleep(Duration::from_millis(200));
        }
        // A block whose answer was on its way may still have come.
        assert!(self.latest() <= before + 1, "latest went from {before} to {} without the client", self.latest());
        assert_eq!(self.ready_status(), 503);
    }

    /// Waits until the status says this of the client.
    #[track_caller]
    pub fn wait_for_reason(&self, why: &str) {
        poll_until(&format!("the status to say `{why}`"), ROUND_LIMIT, || {
            self.status()["reason"].as_str().is_some_and(|reason| reason.contains(why)).then_some(())
        });
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

/// A hundred blocks that end at their gas limit, while the base fee rises with each; in the long form that would be too much, and the clock ends them.
#[test]
fn a_hundred_full_blocks_have_the_same_hash_on_both_sides() {
    let name = "a_hundred_full_blocks_have_the_same_hash_on_both_sides";
    let Some(binary) = super::peer("SEQUENCER_GETH", name) else { return };
    let _turn = super::turn();
    let (blocks, room_txs, interval_ms, ahead_txs, limit) = match super::is_long() {
        false => (100, FULL_BLOCK_TXS, "1000", 4 * FULL_BLOCK_TXS, 10 * ROUND_LIMIT),
        // What is pooled fills half a block at most, so that the base fee never rises.
        true => (500, 4 * FULL_BLOCK_TXS, "500", FULL_BLOCK_TXS, 30 * ROUND_LIMIT),
    };
    let mut genesis = genesis(FORK);
    genesis["gasLimit"] = json!(format!("{:#x}", 21_000 * room_txs));
    let mut pair = Pair::new(Geth::start(&binary, &genesis), 19, "verified", Middles::default());
    let folder = TempFolder::new("full-blocks");
    let genesis_file = folder.path().join("genesis.json");
    std::fs::write(&genesis_file, genesis.to_string()).expect("the folder is writable");
    let genesis_file = genesis_file.to_str().expect("text");
    let more = ["--genesis", genesis_file, FAST_BLOCKS[0], interval_ms, FAST_BLOCKS[2], FAST_BLOCKS[3]];
    pair.more = more.map(str::to_owned).to_vec();
    pair.start_sequencer(folder);
    let start = Instant::now();
    let mut accounts: Vec<Account> = DEV_KEYS.into_iter().map(Account::new).collect();
    while pair.latest() < blocks {
        if pair.sent < pair.mined() + ahead_txs {
            let to = Address::repeat_byte(0x51);
            let raw = |index: u64| accounts[index as usize % DEV_KEYS.len()].sign(|nonce| rich_transfer(nonce, to));
            let raw = (0..FULL_BLOCK_TXS).map(raw).collect();
            pair.send(raw);
        }
        assert!(start.elapsed() < limit, "{} of {blocks} blocks: {}", pair.latest(), pair.status());
        // Looking costs both nodes time.
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = start.elapsed().as_secs_f32();
    pair.settles();
    let tags = (1..=blocks).map(|number| json!([format!("{number:#x}")]));
    let counts = pair.geth.rpc.batch("eth_getBlockTransactionCountByNumber", tags);
    let mut counts: Vec<u64> = counts.iter().map(|count| quantity(count.as_ref().expect("a block"))).collect();
    counts.sort_unstable();
    let median = counts[counts.len() / 2];
    println!("{blocks} blocks, median {median} transactions, {} in all, {seconds:.1} s: same hashes", pair.sent);
    assert!(median >= 500, "{counts:?}");
    pair.sequencer.take().expect("it runs").stop();
}

/// One that pays whatever the base fee has come to.
fn rich_transfer(nonce: u64, to: Address) -> TxEip1559 {
    TxEip1559 {
        chain_id: 61_972,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 1_000_000_000_000,
        max_priority_fee_per_gas: 1_000_000,
        to: to.into(),
        value: U256::from(1u64),
        access_list: Default::default(),
        input: Bytes::new(),
    }
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

/// The operator halts in the middle of building, again and again: what was sealed is checked, nothing follows, and everything goes on afterwards.
#[test]
fn a_halt_in_the_middle_of_building_leaves_both_sides_equal() {
    let name = "a_halt_in_the_middle_of_building_leaves_both_sides_equal";
    let Some(binary) = super::peer("SEQUENCER_GETH", name) else { return };
    let _turn = super::turn();
    let mut pair = Pair::start(Geth::start(&binary, &genesis(FORK)), 17);
    pair.settles();
    let halt = pair.ours().data().join("HALT");
    for _ in 0..3 {
        pair.send_round();
        std::fs::write(&halt, "").expect("the folder is writable");
        poll_until("halted", ROUND_LIMIT, || (pair.ready_status() == 503).then_some(()));
        // The open block is closed, sealed and checked.
        poll_until("at rest", ROUND_LIMIT, || {
            let pending = pair.rpc().call("eth_getBlockByNumber", json!(["pending", false]));
            let is_empty = pending["transactions"].as_array().is_some_and(Vec::is_empty);
            (is_empty && pair.status()["uncheckedBlocks"] == "0x0").then_some(())
        });
        pair.same_chain();
        let latest = pair.latest();
        let raw = pair.workload.round();
        let error = pair.rpc().try_call("eth_sendRawTransaction", json!([raw[0]])).expect_err("halted");
        assert!(error.message.starts_with("halted by the operator"), "{error:?}");
        pair.refused.extend(raw);
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(pair.latest(), latest, "nothing is built");
        std::fs::remove_file(&halt).expect("our own file");
        poll_until("ready", ROUND_LIMIT, || (pair.ready_status() == 200).then_some(()));
        pair.settles();
    }
    pair.sequencer.take().expect("it runs").stop();
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

#[test]
fn a_client_with_an_older_database_is_fed_again() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "a_client_with_an_older_database_is_fed_again") else { return };
    let _turn = super::turn();
    let mut pair = Pair::start(Geth::start(&binary, &genesis(FORK)), 20);
    pair.settles();
    pair.geth.keep_database();
    for _ in 0..4 {
        pair.send_round();
        pair.settles();
    }
    let latest = pair.latest();
    pair.geth.put_back_database();
    pair.geth.restart();
    assert!(pair.geth.rpc.quantity("eth_blockNumber", json!([])) < latest, "the database is not older");
    pair.send_round();
    pair.settles();
    assert!(pair.latest() > latest);
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

/// A supervisor that is told to give the client a new database: it does, and everything is fed again.
#[test]
fn a_client_that_nothing_helps_gets_a_new_database() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "a_client_that_nothing_helps_gets_a_new_database") else { return };
    let _turn = super::turn();
    // The default scheme, killed before it ever was stopped in order: VALID to blocks that it knows, and no way forward.
    let mut pair = Pair::start(Geth::start_with(&binary, &genesis(FORK), Scheme::Path), 18);
    let folder = pair.sequencer.take().expect("it runs").stop();
    let (script, flag) = (folder.path().join("reset"), folder.path().join("asked"));
    std::fs::write(&script, format!("#!/bin/sh\ntouch {}\n", flag.display())).expect("the folder is writable");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("our own file");
    pair.reset_command = Some(script.to_str().expect("text").to_owned());
    pair.start_sequencer(folder);
    for _ in 0..24 {
        pair.send_round();
        pair.settles();
    }
    let latest = pair.latest();
    pair.geth.kill();
    pair.geth.restart();
    pair.send_round();
    poll_until("the supervisor to be asked", Duration::from_secs(120), || flag.exists().then_some(()));
    assert_eq!(pair.status()["resets"], "0x1", "{}", pair.status());
    assert!(pair.latest() >= latest, "latest went back");
    pair.geth.wipe();
    pair.geth.restart();
    pair.settles();
    pair.wait_for_state("ready");
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

/// What a client may answer, and what the status then says.
pub const WRONG_ANSWERS: [(WrongAnswer, &str); 6] = [
    (WrongAnswer::Status(401), "HTTP 401: no"),
    (WrongAnswer::Status(429), "HTTP 429: no"),
    (WrongAnswer::Status(500), "HTTP 500: no"),
    (WrongAnswer::NotJson, "the answer is not JSON: `<html>`"),
    (WrongAnswer::Syncing, "SYNCING to block"),
    (WrongAnswer::OtherBlock, "with latestValidHash 0xeeee"),
];

/// Each for the fault's time, beside the others, with a client of its own.
#[test]
fn wrong_answers_are_not_believed_and_pass() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "wrong_answers_are_not_believed_and_pass") else { return };
    let _turn = super::turn();
    std::thread::scope(|scope| {
        for (seed, (wrong, why)) in (160..).zip(WRONG_ANSWERS) {
            let binary = &binary;
            scope.spawn(move || {
                let geth = Geth::start(binary, &genesis(FORK));
                let middles = Middles { engine: Some(FaultyEngine::start(geth.engine_url())), plain: None };
                let mut pair = Pair::start_through(geth, seed, "verified", middles);
                pair.settles();
                passes(&mut pair, wrong, why);
                pair.sequencer.take().expect("it runs").stop();
            });
        }
    });
}

#[track_caller]
fn passes(pair: &mut Pair, wrong: WrongAnswer, why: &str) {
    pair.middles.answer(wrong);
    let before = pair.latest();
    pair.send_round();
    // The answer to a call that was under way may still have been right.
    pair.wait_for_reason(why);
    assert_eq!(pair.ready_status(), 503, "{wrong:?}");
    pair.holds_admission(if super::is_long() { LONG_FAULT } else { FAULT });
    assert!(pair.latest() <= before + 1, "{wrong:?}: latest went from {before} to {}", pair.latest());
    pair.middles.answer(WrongAnswer::None);
    pair.settles();
    pair.wait_for_state("ready");
}

/// `journal rollback` takes blocks from the client too: it neither keeps them nor are they adopted again.
#[test]
fn rolled_back_blocks_leave_the_client() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "rolled_back_blocks_leave_the_client") else { return };
    let _turn = super::turn();
    let mut pair = Pair::start(Geth::start(&binary, &genesis(FORK)), 17);
    // More than go-ethereum reorganises without being told to (32).
    for _ in 0..3 {
        pair.send_round();
        pair.settles();
    }
    let folder = pair.sequencer.take().expect("it runs").stop();
    // Hundreds more, most of them empty.
    pair.more = ["--block.empty-interval-ms", "10"].map(str::to_owned).to_vec();
    pair.start_sequencer(folder);
    let kept = pair.latest();
    let taken = if super::is_long() { 3_000 } else { 800 };
    let start = Instant::now();
    while pair.latest() < kept + taken {
        assert!(start.elapsed() < Duration::from_secs(300), "{} of {taken} blocks", pair.latest() - kept);
        if (pair.latest() - kept).is_multiple_of(16) {
            pair.send_round();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    pair.settles();
    let before = pair.geth.rpc.call("eth_getBlockByNumber", json!([format!("{:#x}", kept + 1), false]));
    let folder = pair.sequencer.take().expect("it runs").stop();
    let mut rollback = super::sequencer::command();
    rollback.args(["journal", "rollback", "--to-block", &kept.to_string(), "--yes", "--data-dir"]);
    let output = rollback.arg(super::sequencer::data_of(&folder)).output().expect("our binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Other blocks, whatever is in them.
    pair.more = ["--block.coinbase", "0x00000000000000000000000000000000000000cb"].map(str::to_owned).to_vec();
    pair.start_sequencer(folder);
    // The transactions come back, into other blocks.
    pair.settles();
    let after = pair.geth.rpc.call("eth_getBlockByNumber", json!([format!("{:#x}", kept + 1), false]));
    assert_ne!(before["hash"], after["hash"], "block {}", kept + 1);
    assert!(quantity(&pair.status()["headsSet"]) > 0, "{}", pair.status());
    println!("{taken} blocks taken back from the client, {} transactions built again", pair.sent);
    pair.sequencer.take().expect("it runs").stop();
}
