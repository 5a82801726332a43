//! `sequencer follow` with real processes: from L1's URL and the genesis alone to the same blocks, across kills and reorganisations of L1.

use std::time::Instant;

use alloy_primitives::{Address, Bytes};
use serde_json::{Value, json};

use super::process::{Process, TempFolder, free_port, poll_until};
use super::rpc::Rpc;
use super::sequencer::{Sequencer, command, data_of};
use super::settles::{L1, LIMIT, RECIPIENT, Wallet, batch_of, blocks, number, settle_all, start_on_l1};
use super::turn;

const L2_CHAIN_ID: u64 = 61_972;

/// A follower. Fields drop in order: the process ends before its folder goes.
pub struct Follower {
    pub rpc: Rpc,
    process: Process,
    folder: TempFolder,
}

impl Follower {
    pub fn start(l1: &L1) -> Self {
        Self::start_in(TempFolder::new("follows"), l1)
    }

    fn start_in(folder: TempFolder, l1: &L1) -> Self {
        let port = free_port();
        let mut command = command();
        command.args(["follow", "--l1.rpc-url", &l1.url, "--genesis", &l1.genesis, "--http.port", &port.to_string()]);
        command.args([
            "--http.host",
            "127.0.0.1",
            "--metrics.port",
            "0",
            "--data-dir",
            data_of(&folder).to_str().expect("text"),
        ]);
        let mut process = Process::start("follower", folder.path(), command);
        let rpc = Rpc::new(format!("http://127.0.0.1:{port}"));
        let chain_id = process.wait_until("answering", LIMIT, || rpc.ask("eth_chainId", json!([])));
        assert_eq!(chain_id, Ok(json!(format!("{L2_CHAIN_ID:#x}"))));
        Self { rpc, process, folder }
    }

    fn kill(self) -> TempFolder {
        let Self { mut process, folder, .. } = self;
        assert!(process.is_running(), "the follower ended by itself:\n{}", process.log_tail());
        process.kill();
        folder
    }

    /// Waits until the newest block and the safe one are this.
    #[track_caller]
    pub fn wait_for(&mut self, block: u64) {
        let Self { rpc, process, .. } = self;
        process.wait_until("at the block", LIMIT, || {
            (number(rpc, "latest") == block && number(rpc, "safe") == block).then_some(())
        });
    }

    #[track_caller]
    pub fn stop(mut self) {
        let status = self.process.stop();
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", self.process.log_tail());
        assert!(!self.process.log_text().contains("panicked at"), "{}", self.process.log_tail());
    }
}

fn block(rpc: &Rpc, tag: &str) -> Value {
    rpc.call("eth_getBlockByNumber", json!([tag, true]))
}

pub fn hash_of(rpc: &Rpc, number: u64) -> Value {
    block(rpc, &format!("{number:#x}"))["hash"].clone()
}

/// Every block and what is read of the newest is the same in both.
#[track_caller]
fn assert_same(node: &Rpc, follower: &Rpc, latest: u64, sent: &Wallet) {
    for number in 0..=latest {
        let tag = format!("{number:#x}");
        assert_eq!(block(follower, &tag), block(node, &tag), "block {number}");
        let receipts = |rpc: &Rpc| rpc.call("eth_getBlockReceipts", json!([tag]));
        assert_eq!(receipts(follower), receipts(node), "receipts of block {number}");
    }
    for tag in ["latest", "safe"] {
        assert_eq!(block(follower, tag), block(node, &format!("{latest:#x}")), "{tag}");
    }
    let sender = sent.key.address;
    let reads = [
        ("eth_getBalance", json!([RECIPIENT, "latest"])),
        ("eth_getBalance", json!([sender, "pending"])),
        ("eth_getBalance", json!([sender, format!("{:#x}", latest - 1)])),
        ("eth_getTransactionCount", json!([sender, "pending"])),
        ("eth_getTransactionByHash", json!([sent.sent[0]])),
        ("eth_getTransactionReceipt", json!([sent.sent[sent.sent.len() - 1]])),
        ("eth_getLogs", json!([{ "fromBlock": "0x0", "toBlock": "latest" }])),
        ("eth_getProof", json!([RECIPIENT, [], "latest"])),
        ("eth_call", json!([{ "from": sender, "to": RECIPIENT, "value": "0x1" }, "latest"])),
    ];
    // It was not accepted there, nor posted; when it became safe, the follower saw.
    let status = follower.call("sequencer_getTransactionStatus", json!([sent.sent[0]]));
    assert!(["safe", "finalized"].contains(&status["state"].as_str().unwrap_or_default()), "{status}");
    assert!(status["safeAtMs"].is_string() && status["acceptedAtMs"].is_null(), "{status}");
    for (method, params) in reads {
        let answer = node.call(method, params.clone());
        assert_eq!(follower.call(method, params.clone()), answer, "{method} {params}");
    }
}

/// The newest batch is taken from L1 with all behind it. The sequencer is not there to post it again.
fn take_newest_batch(l1: &L1, batch: &Value) {
    let hash = &batch["transactionHash"];
    let receipt = l1.rpc.call("eth_getTransactionReceipt", json!([hash]));
    let digits = receipt["blockNumber"].as_str().unwrap_or_else(|| panic!("no receipt of {batch}"));
    let at = u64::from_str_radix(digits.trim_start_matches("0x"), 16).expect("hex");
    l1.control("dev_reorg", json!([{ "blocks": l1.number() - at + 1, "drop": [hash] }]));
}

/// Waits until the follower has gone back below `latest`; answers where it stands.
fn wait_back(follower: &mut Follower, latest: u64) -> u64 {
    let Follower { rpc, process, .. } = follower;
    process.wait_until("going back", LIMIT, || {
        let stands = number(rpc, "latest");
        (stands < latest && number(rpc, "safe") == stands && block(rpc, &format!("{latest:#x}")).is_null())
            .then_some(stands)
    })
}

#[test]
fn a_follower_derives_the_same_chain_across_kills_and_reorganisations() {
    let _turn = turn();
    // What is taken from L1 must not be final by then, on a machine that is slow as well.
    let l1 = L1::start_with(&["--finality-blocks", "30"]);
    let settings = l1.settings();
    let node = start_on_l1(TempFolder::new("followed"), &settings);
    let mut wallet = Wallet::new(0);
    let made = Instant::now();
    blocks(&node, &mut wallet, 6);
    let latest = settle_all(&node, &wallet);
    let made = made.elapsed();

    // From nothing.
    let start = Instant::now();
    let mut follower = Follower::start(&l1);
    follower.wait_for(latest);
    println!("{latest} blocks, made and settled in {made:?}, derived in {:?} with the start", start.elapsed());
    assert_same(&node.rpc, &follower.rpc, latest, &wallet);
    let raw: Bytes = wallet.key.transfer(L2_CHAIN_ID, wallet.nonce, Address::ZERO, 1).into();
    for method in ["eth_sendRawTransaction", "eth_sendRawTransactionSync"] {
        let refused = follower.rpc.ask(method, json!([raw])).expect("an answer").expect_err(method);
        assert!(refused.message.contains("follows the chain from L1"), "{method}: {refused:?}");
    }

    // Killed while blocks are made, and once more at its start.
    blocks(&node, &mut wallet, 2);
    let folder = follower.kill();
    blocks(&node, &mut wallet, 2);
    let folder = Follower::start_in(folder, &l1).kill();
    let latest = settle_all(&node, &wallet);
    let mut follower = Follower::start_in(folder, &l1);
    follower.wait_for(latest);
    assert_same(&node.rpc, &follower.rpc, latest, &wallet);

    // A batch is gone: back, and forward when it comes again.
    let batch = batch_of(&node.rpc, latest);
    let node_folder = node.kill();
    take_newest_batch(&l1, &batch);
    let stands = wait_back(&mut follower, latest);
    let node = start_on_l1(node_folder, &settings);
    assert_eq!(hash_of(&follower.rpc, stands), hash_of(&node.rpc, stands));
    blocks(&node, &mut wallet, 2);
    let latest = settle_all(&node, &wallet);
    follower.wait_for(latest);
    assert_same(&node.rpc, &follower.rpc, latest, &wallet);

    // The same while nobody follows.
    let batch = batch_of(&node.rpc, latest);
    let (node_folder, folder) = (node.kill(), follower.kill());
    take_newest_batch(&l1, &batch);
    let mut follower = Follower::start_in(folder, &l1);
    wait_back(&mut follower, latest);
    let node = start_on_l1(node_folder, &settings);
    blocks(&node, &mut wallet, 1);
    let latest = settle_all(&node, &wallet);
    follower.wait_for(latest);
    assert_same(&node.rpc, &follower.rpc, latest, &wallet);

    let finalized = poll_until("a final block", LIMIT, || {
        let block = number(&follower.rpc, "finalized");
        (block == latest).then_some(block)
    });
    assert_eq!(finalized, latest);
    follower.stop();
    node.stop();
}

#[test]
fn a_follower_needs_an_l1_a_genesis_and_a_directory_of_its_own() {
    let refused = |arguments: &[&str]| {
        let output = command().arg("follow").args(arguments).output().expect("our binary starts");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&[]).contains("--l1.rpc-url"));
    assert!(refused(&["--l1", "embedded"]).contains("--l1.rpc-url"));
    let url = ["--l1.rpc-url", "http://127.0.0.1:1"];
    assert!(refused(&url).contains("--genesis"));
    let folder = Sequencer::start("osaka").stop();
    let genesis = folder.path().join("genesis.json");
    std::fs::write(&genesis, super::sequencer::genesis("osaka").to_string()).expect("a writable folder");
    let genesis = ["--genesis", genesis.to_str().expect("text")];
    assert!(refused(&[url, genesis].concat()).contains("--data-dir"));
    let data = data_of(&folder);
    let port = free_port().to_string();
    let data = ["--data-dir", data.to_str().expect("text"), "--http.port", &port];
    let said = refused(&[&url[..], &genesis, &data].concat());
    assert!(said.contains("a data directory of its own"), "{said}");
}
