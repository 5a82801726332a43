//! Settlement with real processes: blocks become safe and final on a strict development L1, whatever that L1 does meanwhile.

use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Bytes, U256};
use native_sequencer::config::genesis::DEV_ACCOUNTS;
use native_sequencer::testing::signing::TestKey;
use serde_json::{Value, json};

use super::admin::Admin;
use super::journal::journal_command;
use super::process::{Process, TempFolder, free_port, poll_until};
use super::rpc::{Rpc, RpcError, quantity};
use super::sequencer::{Sequencer, command, data_of};

/// Until everything is safe: the checks run in a debug build on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(120);
const TOKEN: &str = "a test's token";
const L2_CHAIN_ID: u64 = 61_972;
pub const RECIPIENT: Address = Address::repeat_byte(0x77);
/// Blocks four times a second, L1 blocks twice: whole stories in seconds.
const FAST: [&str; 4] = ["--block.interval-ms", "250", "--block.timestamp-lead-s", "1000000"];

/// A strict development L1 as a process of its own.
pub struct L1 {
    pub rpc: Rpc,
    pub url: String,
    agent: ureq::Agent,
    process: Process,
    folder: TempFolder,
    port: u16,
    pub genesis: String,
}

impl L1 {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With more arguments of `sequencer l1`.
    pub fn start_with(arguments: &[&str]) -> Self {
        let folder = TempFolder::new("l1");
        let genesis = folder.path().join("genesis.json");
        let output = command().args(["genesis"]).output().expect("our binary starts");
        std::fs::write(&genesis, output.stdout).expect("a writable folder");
        let genesis = genesis.to_str().expect("text").to_owned();
        Self::start_as(folder, free_port(), genesis, arguments)
    }

    fn start_on(folder: TempFolder, port: u16, genesis: String) -> Self {
        Self::start_as(folder, port, genesis, &[])
    }

    fn start_as(folder: TempFolder, port: u16, genesis: String, arguments: &[&str]) -> Self {
        let mut command = command();
        let data = folder.path().join("chain");
        command.args(["l1", "--l2-genesis", &genesis, "--port", &port.to_string(), "--token", TOKEN]);
        command.args(["--block-time-ms", "500", "--data-dir", data.to_str().expect("text")]).args(arguments);
        let mut process = Process::start("l1", folder.path(), command);
        let url = format!("http://127.0.0.1:{port}");
        let rpc = Rpc::new(&url);
        let chain_id = process.wait_until("answering", LIMIT, || rpc.ask("eth_chainId", json!([])));
        assert_eq!(chain_id, Ok(json!("0xf213")));
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Self { rpc, url, agent: config.build().new_agent(), process, folder, port, genesis }
    }

    /// Stops it; what it keeps, and where it listened.
    fn stop(self) -> (TempFolder, u16, String) {
        let Self { mut process, folder, port, genesis, .. } = self;
        process.stop();
        (folder, port, genesis)
    }

    pub fn control(&self, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let sent = self.agent.post(&self.url).header("authorization", format!("Bearer {TOKEN}")).send_json(&request);
        let mut response = sent.unwrap_or_else(|error| panic!("{method}: {error}"));
        let reply: Value = response.body_mut().read_json().expect("JSON");
        reply.get("result").cloned().unwrap_or_else(|| panic!("{method}: {reply}"))
    }

    /// Where its endpoints listen, in order.
    pub fn urls(&self) -> Vec<String> {
        let text = self.process.log_text();
        let line = text.lines().find(|line| line.contains("JSON-RPC ")).expect("it says where it listens");
        line.split([' ', ',']).filter(|word| word.starts_with("http://")).map(str::to_owned).collect()
    }

    pub fn number(&self) -> u64 {
        self.rpc.quantity("eth_blockNumber", json!([]))
    }

    /// Settings of a sequencer that posts here.
    pub fn settings(&self) -> Vec<String> {
        let (_, key) = DEV_ACCOUNTS[9];
        let remote = ["--l1.mode", "remote", "--l1.rpc-url", &self.url, "--l1.key", key];
        remote.iter().chain(&FAST).map(|setting| (*setting).to_owned()).collect()
    }
}

pub fn start_on_l1(folder: TempFolder, settings: &[String]) -> Sequencer {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Sequencer::start_in(folder, "osaka", &settings)
}

/// Sends transfers of one account, and waits until they are in blocks.
pub struct Wallet {
    pub key: TestKey,
    pub nonce: u64,
    pub sent: Vec<B256>,
}

impl Wallet {
    pub fn new(index: usize) -> Self {
        Self { key: TestKey::from_hex(DEV_ACCOUNTS[index].1), nonce: 0, sent: Vec::new() }
    }

    fn send(&mut self, rpc: &Rpc, count: u64) {
        for _ in 0..count {
            let raw: Bytes = self.key.transfer(L2_CHAIN_ID, self.nonce, RECIPIENT, 1).into();
            let hash = rpc.call("eth_sendRawTransaction", json!([raw]));
            self.sent.push(serde_json::from_value(hash).expect("a hash"));
            self.nonce += 1;
        }
    }

    /// Every transaction has a receipt with success.
    pub fn assert_included(&self, rpc: &Rpc) {
        for hash in &self.sent {
            let receipt = poll_until("a receipt", LIMIT, || {
                let receipt = rpc.call("eth_getTransactionReceipt", json!([hash]));
                (!receipt.is_null()).then_some(receipt)
            });
            assert_eq!(receipt["status"], "0x1", "{hash}");
        }
        let balance = rpc.call("eth_getBalance", json!([RECIPIENT, "latest"]));
        assert_eq!(balance, json!(U256::from(self.sent.len())), "each was executed once");
    }
}

pub fn number(rpc: &Rpc, tag: &str) -> u64 {
    let block = rpc.call("eth_getBlockByNumber", json!([tag, false]));
    u64::from_str_radix(block["number"].as_str().expect("a number").trim_start_matches("0x"), 16).expect("hex")
}

/// Waits until everything sealed is safe; answers the number.
#[track_caller]
pub fn settle(node: &Sequencer) -> u64 {
    let start = Instant::now();
    loop {
        let (latest, safe) = (number(&node.rpc, "latest"), number(&node.rpc, "safe"));
        if latest > 0 && latest == safe {
            return latest;
        }
        let status = node.rpc.call("sequencer_settlementStatus", json!([]));
        assert!(start.elapsed() < LIMIT, "latest {latest}, safe {safe}: {status}\n{}", node.log_tail());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until everything that was sent is in a block and every block is safe. A node that starts again may not have made one yet.
#[track_caller]
pub fn settle_all(node: &Sequencer, wallet: &Wallet) -> u64 {
    let last = wallet.sent.last().expect("something was sent");
    poll_until("the last transaction in a block", LIMIT, || {
        let receipt = node.rpc.call("eth_getTransactionReceipt", json!([last]));
        (!receipt.is_null()).then_some(())
    });
    settle(node)
}

/// Several blocks of transfers.
pub fn blocks(node: &Sequencer, wallet: &mut Wallet, count: u64) {
    for _ in 0..count {
        wallet.send(&node.rpc, 7);
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The batch that holds a block that is safe: what is asked for is shown a moment after the tags.
pub fn batch_of(rpc: &Rpc, block: u64) -> Value {
    poll_until("a batch", LIMIT, || {
        let batch = rpc.call("sequencer_getBatchByBlock", json!([format!("{block:#x}")]));
        (!batch.is_null()).then_some(batch)
    })
}

/// `sequencer dev` as it comes: blocks become safe and then final, and a kill changes nothing.
#[test]
fn blocks_become_safe_and_final_on_the_embedded_l1_across_a_kill() {
    let folder = TempFolder::new("settles");
    let settings = ["--l1", "embedded", "--l1.dev-port", "0", "--l1.dev-block-ms", "500", "--log.level", "info"];
    let settings: Vec<&str> = settings.iter().chain(&FAST).copied().collect();
    let node = Sequencer::start_in(folder, "osaka", &settings);
    let mut wallet = Wallet::new(0);
    blocks(&node, &mut wallet, 5);
    settle(&node);
    blocks(&node, &mut wallet, 3);
    let node = Sequencer::start_in(node.kill(), "osaka", &settings);
    blocks(&node, &mut wallet, 3);
    let latest = settle_all(&node, &wallet);
    wallet.assert_included(&node.rpc);
    let final_block = poll_until("a final block", LIMIT, || {
        let block = number(&node.rpc, "finalized");
        (block == latest).then_some(block)
    });
    // The picture of settlement is shown a moment after the tags.
    poll_until("the batch to be final", LIMIT, || {
        (batch_of(&node.rpc, final_block)["state"] == "finalized").then_some(())
    });
    let sync = node.rpc.call("optimism_syncStatus", json!([]));
    assert_eq!(sync["finalized_l2"]["number"], json!(latest), "{sync}");
    let header = node.rpc.call("eth_getBlockByNumber", json!(["latest", false]));
    assert_ne!(header["parentBeaconBlockRoot"], json!(B256::ZERO), "it stands on an L1 block");
    let status = node.rpc.call("sequencer_getTransactionStatus", json!([wallet.sent[0]]));
    assert_eq!(status["state"], "finalized", "{status}");
    check_times(&node, &wallet);
    node.stop();
}

/// Every transaction has the time of every tier, in order; those of a block that was final before the kill as well.
#[track_caller]
fn check_times(node: &Sequencer, wallet: &Wallet) {
    for hash in &wallet.sent {
        let status = node.rpc.call("sequencer_getTransactionStatus", json!([hash]));
        let names = ["acceptedAtMs", "preconfirmedAtMs", "sealedAtMs", "postedAtMs", "safeAtMs", "finalizedAtMs"];
        assert!(names.iter().all(|name| status[name].is_string()), "{status}");
        let times: Vec<u64> = names.map(|name| quantity(&status[name])).to_vec();
        assert!(times.is_sorted(), "{status}");
        assert!(times[5] - times[0] < 600_000, "{status}");
    }
}

/// A reorganisation drops and delays batches, transactions vanish from the pool, endpoints fail, fees jump: each time everything is safe in the
/// end, nothing was taken back, and nothing is on L1 twice.
#[test]
fn faults_of_l1_delay_and_lose_nothing() {
    let l1 = L1::start();
    let settings = [l1.settings(), vec!["--l1.origin-depth".to_owned(), "4".to_owned()]].concat();
    let node = start_on_l1(TempFolder::new("settles"), &settings);
    let mut wallet = Wallet::new(0);
    blocks(&node, &mut wallet, 3);
    settle(&node);
    let kept: Vec<Value> = (1..=number(&node.rpc, "latest"))
        .map(|block| node.rpc.call("eth_getBlockByNumber", json!([format!("{block:#x}"), false]))["hash"].clone())
        .collect();

    // L1 forgets its newest blocks and a batch that was in them.
    let hash = batch_of(&node.rpc, number(&node.rpc, "safe"))["transactionHash"].clone();
    l1.control("dev_reorg", json!([{ "blocks": 3, "drop": [hash] }]));
    blocks(&node, &mut wallet, 2);
    settle(&node);

    // Its pool forgets what was sent.
    l1.control("dev_stop", json!([]));
    blocks(&node, &mut wallet, 2);
    let pending = poll_until("a batch in the pool", LIMIT, || {
        let status = node.rpc.call("sequencer_settlementStatus", json!([]));
        (status["transactions"]["inFlight"] != "0x0").then_some(status)
    });
    assert_ne!(pending["transactions"]["inFlight"], "0x0");
    let pool = l1.rpc.call("eth_getBlockByNumber", json!(["pending", true]));
    assert!(pool["number"].is_string(), "{pool}");
    l1.control("dev_resume", json!([]));
    blocks(&node, &mut wallet, 2);
    settle(&node);

    // It does not answer.
    l1.control("dev_setHttpError", json!([{ "status": 503 }]));
    blocks(&node, &mut wallet, 4);
    poll_until("L1 away, and why", LIMIT, || {
        let status = node.rpc.call("sequencer_settlementStatus", json!([]));
        (status["condition"] == "away" && status["why"].as_str()?.contains("503")).then_some(())
    });
    l1.control("dev_clearFaults", json!([]));
    settle(&node);

    // What is sent is below the market.
    l1.control("dev_setBaseFee", json!(["0x174876e800", 3]));
    blocks(&node, &mut wallet, 3);
    settle(&node);

    wallet.assert_included(&node.rpc);
    for (hash, block) in kept.iter().zip(1_u64..) {
        let now = node.rpc.call("eth_getBlockByNumber", json!([format!("{block:#x}"), false]));
        assert_eq!(&now["hash"], hash, "block {block} was taken back");
    }
    let status = node.rpc.call("sequencer_settlementStatus", json!([]));
    assert_eq!(status["skipCounts"], json!({}), "nothing that was posted was in vain");
    node.stop();
}

/// With origin depth 0 a reorganisation takes the origin away: blocks above give way and their transactions come again.
#[test]
fn blocks_whose_origin_is_gone_are_built_again_with_every_transaction() {
    let l1 = L1::start();
    let settings = [l1.settings(), vec!["--l1.origin-depth".to_owned(), "0".to_owned()]].concat();
    let node = start_on_l1(TempFolder::new("settles"), &settings);
    let mut wallet = Wallet::new(0);
    blocks(&node, &mut wallet, 3);
    settle(&node);
    blocks(&node, &mut wallet, 4);
    let before = node.rpc.call("eth_getBlockByNumber", json!(["latest", false]))["hash"].clone();
    l1.control("dev_reorg", json!([{ "blocks": 4 }]));
    poll_until("the block to be gone", LIMIT, || {
        let reply = node.rpc.ask("eth_getBlockByHash", json!([before, false]))?;
        reply.is_ok_and(|block| block.is_null()).then_some(())
    });
    settle(&node);
    wallet.assert_included(&node.rpc);
    blocks(&node, &mut wallet, 1);
    settle(&node);
    node.stop();
}

/// A start in place, which L1 brings about, ends nothing that the operator wants: a halt, a stop, a stopped batcher, limits, the port itself.
#[test]
fn what_the_operator_wants_outlives_a_start_in_place() {
    let l1 = L1::start();
    let port = free_port();
    let more = ["--l1.origin-depth", "0", "--admin.port", &port.to_string()].map(str::to_owned);
    let node = start_on_l1(TempFolder::new("settles"), &[l1.settings(), more.into()].concat());
    let admin = Admin::of(&node.data(), port);
    let mut wallet = Wallet::new(2);
    blocks(&node, &mut wallet, 3);
    settle(&node);
    blocks(&node, &mut wallet, 4);
    admin.call("admin_setLimits", json!([{ "http.connections-max": 77 }]));
    admin.call("admin_stopBatcher", json!([]));
    admin.call("admin_haltSequencer", json!(["kept"]));
    let before = admin.call("admin_stopSequencer", json!([]));
    l1.control("dev_reorg", json!([{ "blocks": 4 }]));
    poll_until("the block to be gone", LIMIT, || {
        let reply = node.rpc.ask("eth_getBlockByHash", json!([before, false]))?;
        reply.is_ok_and(|block| block.is_null()).then_some(())
    });
    poll_until("the admin port again", LIMIT, || TcpStream::connect(("127.0.0.1", port)).ok());
    let status = admin.call("admin_status", json!([]));
    assert_eq!((&status["stopped"], &status["halted"]), (&json!(true), &json!(true)), "{status}");
    assert_eq!(status["haltedBy"][0]["reason"], "kept", "{status}");
    assert_eq!(admin.call("admin_limits", json!([]))["http.connections-max"], 77);
    let error = admin.try_call("admin_flushBatcher", json!([])).expect_err("stopped");
    assert_eq!(error.message, "batcher is not running");
    let latest = number(&node.rpc, "latest");
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(number(&node.rpc, "latest"), latest, "nothing is built");
    admin.call("admin_resumeSequencer", json!([]));
    assert_eq!(admin.call("admin_sequencerActive", json!([])), json!(false), "still stopped");
    admin.call("admin_startSequencer", json!([]));
    admin.call("admin_startBatcher", json!([]));
    wallet.assert_included(&node.rpc);
    blocks(&node, &mut wallet, 1);
    settle(&node);
    node.stop();
}

/// L1 is away, then back on the same chain; and it is away while the sequencer starts.
#[test]
fn l2_goes_on_while_l1_is_away() {
    let l1 = L1::start();
    let settings = l1.settings();
    let node = start_on_l1(TempFolder::new("settles"), &settings);
    let mut wallet = Wallet::new(0);
    blocks(&node, &mut wallet, 2);
    let safe = settle(&node);
    let (folder, port, genesis) = l1.stop();
    blocks(&node, &mut wallet, 6);
    let latest = number(&node.rpc, "latest");
    assert!(latest > safe + 2, "it builds on: {latest} above {safe}");
    let node = start_on_l1(node.kill(), &settings);
    // What was acknowledged is there, and nothing new is built beside what L1 may have.
    assert_eq!(number(&node.rpc, "latest").max(latest), number(&node.rpc, "latest"));
    let l1 = L1::start_on(folder, port, genesis);
    blocks(&node, &mut wallet, 1);
    settle(&node);
    wallet.assert_included(&node.rpc);
    assert!(l1.number() > 0);
    node.stop();
}

/// Sends one transfer after the other until one is refused.
#[track_caller]
fn until_refused(node: &Sequencer, wallet: &mut Wallet) -> RpcError {
    poll_until("a refusal", LIMIT, || {
        let raw: Bytes = wallet.key.transfer(L2_CHAIN_ID, wallet.nonce, RECIPIENT, 1).into();
        match node.rpc.try_call("eth_sendRawTransaction", json!([raw])) {
            Ok(hash) => {
                wallet.sent.push(serde_json::from_value(hash).expect("a hash"));
                wallet.nonce += 1;
                None
            }
            Err(error) => Some(error),
        }
    })
}

/// L1 takes nothing: witnesses are written where the operator wants them, up to as many bytes as he wants, and everything is settled afterwards.
#[test]
fn blocks_wait_when_the_files_of_witnesses_are_full() {
    let _turn = super::turn();
    let l1 = L1::start();
    let folder = TempFolder::new("witnesses");
    let dir = folder.path().join("kept");
    let mut settings = l1.settings();
    settings.extend(["--witness.keep-behind-blocks", "1", "--witness.kept-bytes-max", "65536"].map(str::to_owned));
    settings.extend(["--settlement.in-flight-max", "1", "--witness.dir"].map(str::to_owned));
    settings.push(dir.to_str().expect("text").to_owned());
    let node = start_on_l1(TempFolder::new("settles"), &settings);
    let mut wallet = Wallet::new(0);
    blocks(&node, &mut wallet, 1);
    settle(&node);
    l1.control("dev_stop", json!([]));
    let refusal = until_refused(&node, &mut wallet);
    assert_eq!(refusal.code, -32_005, "{refusal:?}");
    assert!(refusal.message.contains("bytes of witnesses") && refusal.message.contains("65536"), "{refusal:?}");
    let files = std::fs::read_dir(&dir).expect("the folder is there").flatten();
    let bytes: u64 = files.map(|file| file.metadata().map_or(0, |data| data.len())).sum();
    assert!((65_536..1 << 20).contains(&bytes), "{bytes} bytes of witnesses");
    assert!(!node.data().join("witnesses").exists());
    l1.control("dev_resume", json!([]));
    settle(&node);
    blocks(&node, &mut wallet, 1);
    settle(&node);
    wallet.assert_included(&node.rpc);
    node.stop();
}

/// The witness of a block that waits for L1 cannot be written: building waits and says why, at every start, and all goes on once there is room.
#[test]
fn blocks_wait_while_a_witness_cannot_be_written() {
    let _turn = super::turn();
    let l1 = L1::start();
    let folder = TempFolder::new("witnesses");
    let disk = folder.path().join("disk");
    // No folder can be made in it.
    std::fs::write(&disk, "").expect("a writable folder");
    let mut settings = l1.settings();
    settings.extend(["--witness.keep-behind-blocks", "1", "--settlement.in-flight-max", "1"].map(str::to_owned));
    settings.extend(["--witness.dir".to_owned(), disk.join("kept").to_str().expect("text").to_owned()]);
    let mut node = start_on_l1(TempFolder::new("settles"), &settings);
    let mut wallet = Wallet::new(0);
    blocks(&node, &mut wallet, 1);
    settle(&node);
    l1.control("dev_stop", json!([]));
    for start in 0..3 {
        if start > 0 {
            node = start_on_l1(node.kill(), &settings);
        }
        let refusal = poll_until("a witness that is not written", LIMIT, || {
            let refusal = until_refused(&node, &mut wallet);
            refusal.message.contains("cannot be written").then_some(refusal)
        });
        assert_eq!(refusal.code, -32_005, "{refusal:?}");
        poll_until("what the disk said", LIMIT, || node.log_text().contains("Not a directory").then_some(()));
    }
    std::fs::remove_file(&disk).expect("it is there");
    poll_until("taken again", LIMIT, || {
        let raw: Bytes = wallet.key.transfer(L2_CHAIN_ID, wallet.nonce, RECIPIENT, 1).into();
        let hash = node.rpc.try_call("eth_sendRawTransaction", json!([raw])).ok()?;
        wallet.sent.push(serde_json::from_value(hash).expect("a hash"));
        wallet.nonce += 1;
        Some(())
    });
    l1.control("dev_resume", json!([]));
    settle_all(&node, &wallet);
    wallet.assert_included(&node.rpc);
    node.stop();
}

/// Blocks that wait for L1 are taken back by the operator, unless their batch is signed: what is built of their transactions is settled.
#[test]
fn blocks_taken_back_by_the_operator_settle_in_their_new_form() {
    let l1 = L1::start();
    let mut settings = l1.settings();
    settings.extend(["--settlement.in-flight-max".to_owned(), "1".to_owned()]);
    let node = start_on_l1(TempFolder::new("settles"), &settings);
    let mut wallet = Wallet::new(0);
    blocks(&node, &mut wallet, 2);
    let safe = settle(&node);
    let (l1_folder, port, genesis) = l1.stop();
    blocks(&node, &mut wallet, 8);
    let newest = number(&node.rpc, "latest");
    let hash_of = |node: &Sequencer| {
        node.rpc.call("eth_getBlockByNumber", json!([format!("{newest:#x}"), false]))["hash"].clone()
    };
    let before = hash_of(&node);
    let folder = node.stop();
    let data = data_of(&folder);
    let rollback = |to_block: u64| {
        let output = journal_command("rollback", &data, &["--to-block", &to_block.to_string(), "--yes"]);
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    // One batch may be signed by now; none of the others is.
    let (is_done, text) = rollback(safe);
    if !is_done {
        let lowest = text.trim().rsplit(' ').next().and_then(|number| number.parse().ok());
        let lowest: u64 = lowest.unwrap_or_else(|| panic!("no block is named: {text}"));
        assert!(safe < lowest && lowest < newest, "safe {safe}, newest {newest}: {text}");
        let (is_done, text) = rollback(lowest);
        assert!(is_done, "{text}");
    }

    let l1 = L1::start_on(l1_folder, port, genesis);
    let node = start_on_l1(folder, &settings);
    blocks(&node, &mut wallet, 1);
    while settle(&node) < newest {
        blocks(&node, &mut wallet, 1);
    }
    assert_ne!(hash_of(&node), before, "block {newest} was to be another one");
    wallet.assert_included(&node.rpc);
    assert!(l1.number() > 0);
    node.stop();
}

/// A restored backup is behind L1: it takes over what L1 has before it builds.
#[test]
fn a_restored_backup_adopts_what_l1_has() {
    let l1 = L1::start();
    let settings = l1.settings();
    let node = start_on_l1(TempFolder::new("settles"), &settings);
    let mut wallet = Wallet::new(0);
    blocks(&node, &mut wallet, 2);
    settle(&node);
    let folder = node.stop();
    let backup = TempFolder::new("backup");
    copy(folder.path(), backup.path());
    let node = start_on_l1(folder, &settings);
    blocks(&node, &mut wallet, 4);
    let latest = settle_all(&node, &wallet);
    let hash = node.rpc.call("eth_getBlockByNumber", json!([format!("{latest:#x}"), false]))["hash"].clone();
    // What is in flight at the end would be a second story.
    std::thread::sleep(Duration::from_secs(2));
    node.kill();
    let node = start_on_l1(backup, &settings);
    poll_until("the adopted block", LIMIT, || {
        let block = node.rpc.ask("eth_getBlockByNumber", json!([format!("{latest:#x}"), false]))?.ok()?;
        (block["hash"] == hash).then_some(())
    });
    blocks(&node, &mut wallet, 2);
    poll_until("a block behind the adopted ones", LIMIT, || (number(&node.rpc, "latest") > latest).then_some(()));
    let settled = settle(&node);
    assert!(settled > latest);
    wallet.assert_included(&node.rpc);
    node.stop();
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a writable folder");
    for entry in std::fs::read_dir(from).expect("a readable folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}
