//! What goes wrong around one key on one L1, with real processes: a second sequencer, endpoints that lie, batches that are false, no ether, a nonce that
//! is gone, a market that is dear, deep reorganisations. In the end everything is safe, or somebody stopped and says why.

use alloy_primitives::{Address, B256, Bytes, U256};
use native_sequencer::config::genesis::DEV_ACCOUNTS;
use native_sequencer::l1::execute_tx::{ExecuteTx, Payload};
use native_sequencer::l1::profile::Profile;
use native_sequencer::settlement::batch::{Batch, Compression};
use native_sequencer::testing::signing::{DynamicFee, TestKey};
use native_sequencer::testing::whole::cheats::{bomb, signed};
use serde_json::{Value, json};

use super::follows::{Follower, hash_of};
use super::process::{TempFolder, poll_until};
use super::rpc::Rpc;
use super::sequencer::Sequencer;
use super::settles::{L1, LIMIT, Wallet, batch_of, blocks, number, settle, settle_all, start_on_l1};
use super::turn;

const L1_CHAIN_ID: u64 = 61_971;
const GWEI: u128 = 1_000_000_000;

/// The key that posts.
fn posting() -> TestKey {
    TestKey::from_hex(DEV_ACCOUNTS[9].1)
}

fn status(rpc: &Rpc) -> Value {
    rpc.call("sequencer_settlementStatus", json!([]))
}

/// Waits until settlement is in a condition, and answers why.
#[track_caller]
fn wait_for(node: &Sequencer, condition: &str, why: &str) {
    poll_until(&format!("{condition}: {why}"), LIMIT, || {
        let status = status(&node.rpc);
        (status["condition"] == condition && status["why"].as_str()?.contains(why)).then_some(())
    });
}

#[track_caller]
fn wait_in_flight(node: &Sequencer) {
    poll_until("a batch in flight", LIMIT, || (status(&node.rpc)["transactions"]["inFlight"] != "0x0").then_some(()));
}

fn nonce(l1: &L1, address: Address) -> u64 {
    l1.rpc.quantity("eth_getTransactionCount", json!([address, "pending"]))
}

/// A transfer on L1, before everything that waits there.
fn pay(l1: &L1, from: TestKey, nonce: u64, to: Address, wei: U256) {
    let tx = DynamicFee {
        chain_id: L1_CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 500 * GWEI,
        max_priority_fee_per_gas: 50 * GWEI,
        to: to.into(),
        value: wei,
        ..DynamicFee::default()
    };
    let raw: Bytes = from.encode(tx).into();
    let hash = l1.rpc.call("eth_sendRawTransaction", json!([raw]));
    poll_until("a receipt on L1", LIMIT, || {
        (!l1.rpc.call("eth_getTransactionReceipt", json!([hash])).is_null()).then_some(())
    });
}

/// Of two processes with one key the second stops, says why, and answers reads; the first goes on.
#[test]
fn of_two_sequencers_with_one_key_the_second_stops() {
    let _turn = turn();
    let l1 = L1::start();
    let settings = l1.settings();
    let (mut ours, mut theirs) = (Wallet::new(0), Wallet::new(1));
    let first = start_on_l1(TempFolder::new("first"), &settings);
    blocks(&first, &mut ours, 2);
    let latest = settle(&first);
    let second = start_on_l1(TempFolder::new("second"), &settings);
    poll_until("the second has what L1 has", LIMIT, || {
        let there = second.rpc.ask("eth_getBlockByNumber", json!([format!("{latest:#x}"), false]))?.ok()?;
        (there["hash"] == hash_of(&first.rpc, latest) && status(&second.rpc)["condition"] == "ready").then_some(())
    });
    l1.control("dev_stop", json!([]));
    blocks(&first, &mut ours, 2);
    wait_in_flight(&first);
    blocks(&second, &mut theirs, 2);
    wait_in_flight(&second);
    l1.control("dev_resume", json!([]));
    wait_for(&second, "halted", "another process posts with the same key");
    blocks(&first, &mut ours, 1);
    settle(&first);
    ours.assert_included(&first.rpc);
    assert_eq!(status(&second.rpc)["condition"], "halted");
    assert_eq!(hash_of(&second.rpc, latest), hash_of(&first.rpc, latest), "it answers reads");
    first.stop();
    second.stop();
}

/// One of two endpoints lies: its bytes give it away, and everything settles by the other.
#[test]
fn one_of_two_endpoints_lies_and_everything_settles() {
    let _turn = turn();
    let l1 = L1::start_with(&["--endpoints", "2"]);
    let urls = l1.urls();
    assert_eq!(urls.len(), 2);
    let mut settings = l1.settings();
    let url = settings.iter_mut().find(|setting| **setting == l1.url).expect("it is a setting");
    *url = urls.join(",");
    let mut folder = TempFolder::new("lies");
    let mut wallet = Wallet::new(0);
    // Without `debug` blocks come in pieces, and lies about their parents are told.
    let missing =
        json!({ "method": "debug_getRawBlock", "error": { "code": -32601, "message": "the method does not exist" } });
    for (kind, evidence) in [
        ("receipts", "receipts of block"),
        ("parents", "header of block"),
        ("hashes", "header of block"),
        ("transactions", "transactions of block"),
    ] {
        l1.control("dev_setAnswer", json!([missing]));
        l1.control("dev_setLie", json!([{ "kind": kind, "on": true, "endpoint": 0 }]));
        let node = start_on_l1(folder, &settings);
        let before = node.log_text().matches(evidence).count();
        blocks(&node, &mut wallet, 1);
        settle(&node);
        wallet.assert_included(&node.rpc);
        let log = node.log_text();
        assert!(log.contains("its answer is disproved"), "{kind}: {}", node.log_tail());
        assert!(log.matches(evidence).count() > before.min(1) || before > 0, "{kind}: {}", node.log_tail());
        folder = node.stop();
        l1.control("dev_clearFaults", json!([]));
    }
    // A nonce that never comes, told by one of two: nothing is signed for it, and it is told why.
    let node = start_on_l1(folder, &settings);
    settle(&node);
    l1.control("dev_setAnswer", json!([{ "method": "eth_getTransactionCount", "result": "0x3e8", "endpoint": 0 }]));
    poll_until("the contradiction in the log", LIMIT, || node.log_text().contains("has nonce 1000").then_some(()));
    let safe = number(&node.rpc, "safe");
    blocks(&node, &mut wallet, 3);
    assert_eq!(number(&node.rpc, "safe"), safe, "nothing is posted by a nonce that two contradict");
    l1.control("dev_clearFaults", json!([]));
    settle(&node);
    wallet.assert_included(&node.rpc);
    node.stop();
}

/// One endpoint leads with a chain of its own making, consistent in itself. Beside two others it leads nobody; beside one nothing is told, and that is
/// said; when it is gone, the other alone is enough.
#[test]
fn an_endpoint_with_a_chain_of_its_own_leads_nobody() {
    let _turn = turn();
    let (l1, liar) = (L1::start_with(&["--endpoints", "2"]), L1::start());
    // Empty blocks of one second are the same anywhere: from this one on they are its own.
    liar.control("dev_setBaseFee", json!(["0x3b9aca07", 1]));
    liar.control("dev_mine", json!([60]));
    let with = |urls: &[String]| {
        let mut settings = l1.settings();
        let url = settings.iter_mut().find(|setting| **setting == l1.url).expect("it is a setting");
        *url = urls.join(",");
        settings
    };
    let node = start_on_l1(TempFolder::new("leads"), &with(&[vec![liar.url.clone()], l1.urls()].concat()));
    let mut wallet = Wallet::new(0);
    blocks(&node, &mut wallet, 4);
    let latest = settle(&node);
    wallet.assert_included(&node.rpc);
    for number in 1..=latest {
        let block = node.rpc.call("eth_getBlockByNumber", json!([format!("{number:#x}"), false]));
        let origin = l1.rpc.call("eth_getBlockByHash", json!([block["parentBeaconBlockRoot"], false]));
        assert!(origin.is_object(), "block {number} stands on no block of L1");
    }
    assert_eq!(status(&node.rpc)["skipCounts"], json!({}), "nothing was in vain");
    let hash = hash_of(&node.rpc, latest);

    let node = start_on_l1(node.stop(), &with(&[liar.url.clone(), l1.url.clone()]));
    wait_for(&node, "away", "no block");
    assert_eq!(hash_of(&node.rpc, latest), hash);
    drop(liar);
    blocks(&node, &mut wallet, 1);
    settle_all(&node, &wallet);
    wallet.assert_included(&node.rpc);
    assert_eq!(hash_of(&node.rpc, latest), hash, "nothing was taken back");
    node.stop();
}

/// Sends a transaction of this key with these fields; answers its hash.
fn send(l1: &L1, key: &TestKey, payload: &Payload) -> B256 {
    let tx = signed(key, L1_CHAIN_ID, nonce(l1, key.address), payload);
    let raw = payload.encoded(Profile::default()).encode(&tx.terms, &tx.signature);
    let hash = l1.rpc.call("eth_sendRawTransaction", json!([raw]));
    poll_until("it is included, whatever it says", LIMIT, || {
        let receipt = l1.rpc.call("eth_getTransactionReceipt", json!([hash]));
        (receipt["status"] == "0x1").then_some(())
    });
    serde_json::from_value(hash).expect("a hash")
}

/// On an L1 that includes everything: batches of a stranger, and false, malformed and oversized ones by our own key, in the place of one that a
/// reorganisation took. A follower refuses each and says why; the sequencer posts its own again, and both have the same chain.
#[test]
fn batches_that_are_none_are_refused_with_their_reasons() {
    let _turn = turn();
    let l1 = L1::start_with(&["--mode", "compat"]);
    let settings = l1.settings();
    let node = start_on_l1(TempFolder::new("false"), &settings);
    let mut wallet = Wallet::new(0);
    blocks(&node, &mut wallet, 3);
    let latest = settle(&node);
    let newest = batch_of(&node.rpc, latest)["transactionHash"].clone();
    let raw: Bytes =
        serde_json::from_value(l1.rpc.call("eth_getRawTransactionByHash", json!([newest]))).expect("its bytes");
    let folder = node.stop();
    let receipt = l1.rpc.call("eth_getTransactionReceipt", json!([newest]));
    let at = super::rpc::quantity(&receipt["blockNumber"]);
    l1.control("dev_reorg", json!([{ "blocks": l1.number() - at + 1, "drop": [newest] }]));

    let payload = ExecuteTx::decode(&raw, Profile::default()).expect("ours").payload;
    let mut batch = Batch::decode(&payload.data).expect("ours");
    batch.blocks[0].segments[0].post_state_root = B256::repeat_byte(0xee);
    let false_data: Bytes = batch.encode(Compression::Zstd).into();
    let cases = [
        (TestKey::from_hex(DEV_ACCOUNTS[3].1), payload.data.clone(), "not_a_batcher", "is no batcher"),
        (posting(), false_data, "invalid", "root"),
        (posting(), payload.data.slice(..payload.data.len() / 2), "bad_batch", "batch header"),
        (posting(), bomb(), "bad_batch", "batch header"),
    ];
    let sent: Vec<B256> = cases
        .iter()
        .map(|(key, data, ..)| send(&l1, key, &Payload { data: data.clone(), ..payload.clone() }))
        .collect();
    let follower = Follower::start(&l1);
    for ((_, _, reason, words), hash) in cases.iter().zip(&sent) {
        poll_until(reason, LIMIT, || {
            let status = status(&follower.rpc);
            let skips = status["skips"].as_array()?.clone();
            let skip = skips.into_iter().find(|skip| skip["transactionHash"] == json!(hash))?;
            assert_eq!(skip["reason"], *reason, "{skip}");
            assert!(skip["what"].as_str()?.contains(words), "{skip}");
            Some(())
        });
    }
    assert!(number(&follower.rpc, "latest") < latest, "what it follows ends before them");

    let node = start_on_l1(folder, &settings);
    blocks(&node, &mut wallet, 1);
    let latest = settle_all(&node, &wallet);
    wallet.assert_included(&node.rpc);
    let mut follower = follower;
    follower.wait_for(latest);
    assert_eq!(hash_of(&follower.rpc, latest), hash_of(&node.rpc, latest));
    follower.stop();
    node.stop();
}

/// The key has no ether, gets some, and then somebody else uses a nonce of it: waits, goes on, halts, and the next start goes on.
#[test]
fn a_key_without_ether_waits_and_one_that_is_used_halts() {
    let _turn = turn();
    let l1 = L1::start();
    let (key, funder) = (posting(), TestKey::from_hex(DEV_ACCOUNTS[8].1));
    let balance: U256 =
        serde_json::from_value(l1.rpc.call("eth_getBalance", json!([key.address, "latest"]))).expect("a quantity");
    pay(&l1, key, 0, funder.address, balance - U256::from(21_000 * 500 * GWEI));
    // What is left pays for no batch once the market is dear.
    l1.control("dev_setBaseFee", json!(["0x1bf08eb000", 1_000]));
    let settings = l1.settings();
    let node = start_on_l1(TempFolder::new("poor"), &settings);
    let mut wallet = Wallet::new(0);
    blocks(&node, &mut wallet, 2);
    wait_for(&node, "waiting", "OutOfFunds");
    assert_eq!(number(&node.rpc, "safe"), 0);
    pay(&l1, funder, 0, key.address, U256::from(100 * GWEI * GWEI));
    settle(&node);
    l1.control("dev_setBaseFee", json!(["0x3b9aca00", 1]));

    pay(&l1, key, nonce(&l1, key.address), funder.address, U256::from(1));
    wait_for(&node, "halted", "another process posts with the same key");
    let hash = hash_of(&node.rpc, 1);
    let node = start_on_l1(node.stop(), &settings);
    blocks(&node, &mut wallet, 1);
    settle(&node);
    assert_eq!(hash_of(&node.rpc, 1), hash, "nothing was taken back");
    wallet.assert_included(&node.rpc);
    node.stop();
}

/// A slow L1; then one whose market rises above what was offered: the fees are raised, the first transaction is replaced, and everything settles once.
#[test]
fn a_slow_l1_and_a_dear_market_delay_and_lose_nothing() {
    let _turn = turn();
    let l1 = L1::start();
    let settings = [l1.settings(), vec!["--log.level".to_owned(), "info".to_owned()]].concat();
    let node = start_on_l1(TempFolder::new("dear"), &settings);
    let mut wallet = Wallet::new(0);
    // Five questions for an account take twice the time between two blocks.
    l1.control("dev_setLatency", json!([{ "ms": 220 }]));
    blocks(&node, &mut wallet, 2);
    settle(&node);
    l1.control("dev_clearFaults", json!([]));

    l1.control("dev_stop", json!([]));
    blocks(&node, &mut wallet, 2);
    wait_in_flight(&node);
    l1.control("dev_setBaseFee", json!(["0x2540be400", 60]));
    l1.control("dev_resume", json!([]));
    poll_until("dearer fees", LIMIT, || node.log_text().contains("fees raised").then_some(()));
    blocks(&node, &mut wallet, 2);
    settle(&node);
    wallet.assert_included(&node.rpc);
    assert_eq!(status(&node.rpc)["skipCounts"], json!({}), "nothing was in vain");
    node.stop();
}

/// Waits until a block has given way: the L1 block that it stood on is gone.
fn wait_gone(node: &Sequencer, hash: &Value) {
    poll_until("a block that gave way", LIMIT, || {
        let reply = node.rpc.ask("eth_getBlockByHash", json!([hash, false]))?;
        reply.is_ok_and(|block| block.is_null()).then_some(())
    });
}

/// Sixty-four blocks of L1 are replaced with everything of ours in them, while the sequencer runs, and while it does not.
#[test]
fn a_reorganisation_64_deep_loses_nothing_before_and_after_a_restart() {
    let _turn = turn();
    let l1 = L1::start_with(&["--finality-blocks", "100"]);
    l1.control("dev_mine", json!([70]));
    let settings = l1.settings();
    let node = start_on_l1(TempFolder::new("deep"), &settings);
    let mut wallet = Wallet::new(0);
    blocks(&node, &mut wallet, 3);
    settle(&node);
    let before = hash_of(&node.rpc, number(&node.rpc, "latest"));
    l1.control("dev_reorg", json!([{ "blocks": 64, "empty": true }]));
    wait_gone(&node, &before);
    settle(&node);
    wallet.assert_included(&node.rpc);
    blocks(&node, &mut wallet, 2);
    settle(&node);

    let before = hash_of(&node.rpc, number(&node.rpc, "latest"));
    let folder = node.stop();
    l1.control("dev_reorg", json!([{ "blocks": 64, "empty": true }]));
    let node = start_on_l1(folder, &settings);
    wait_gone(&node, &before);
    settle(&node);
    wallet.assert_included(&node.rpc);
    blocks(&node, &mut wallet, 1);
    settle(&node);
    wallet.assert_included(&node.rpc);
    let mut follower = Follower::start(&l1);
    let latest = number(&node.rpc, "latest");
    follower.wait_for(latest);
    assert_eq!(hash_of(&follower.rpc, latest), hash_of(&node.rpc, latest));
    follower.stop();
    node.stop();
}
