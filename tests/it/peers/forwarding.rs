//! Users of a real go-ethereum's own JSON-RPC, in `verified`: what they send there is in our blocks.

use std::time::Duration;

use alloy_consensus::{TxEip1559, TxLegacy};
use alloy_primitives::{Address, Bytes, U256};
use serde_json::{Value, json};

use super::geth::Geth;
use super::process::{TempFolder, poll_until};
use super::rpc::{Rpc, quantity};
use super::sequencer::{FAST_BLOCKS, Sequencer, genesis};
use super::workload::{Account, DEV_KEYS};

const LIMIT: Duration = Duration::from_secs(60);
const RECIPIENT: Address = Address::repeat_byte(0x66);

fn start(geth: &Geth, folder: TempFolder) -> Sequencer {
    let (engine, secret) = (geth.engine_url(), geth.jwt_file());
    let mut settings = vec!["--execution.mode", "verified", "--execution.engine-url", &engine];
    settings.extend(["--execution.rpc-url", geth.rpc.url()]);
    settings.extend(["--execution.jwt-secret", secret.to_str().expect("a temporary folder's name is text")]);
    settings.extend(["--execution.pool-poll-ms", "50", "--execution.backoff-max-ms", "500"]);
    settings.extend(FAST_BLOCKS);
    Sequencer::start_in(folder, "osaka", &settings)
}

fn transfer(account: &mut Account, input: Bytes, gas_limit: u64) -> Bytes {
    account.sign(|nonce| TxEip1559 {
        chain_id: 61_972,
        nonce,
        gas_limit,
        max_fee_per_gas: 1_000_000_000,
        max_priority_fee_per_gas: 1_000_000,
        to: RECIPIENT.into(),
        value: U256::from(1u64),
        access_list: Default::default(),
        input,
    })
}

fn small(account: &mut Account) -> Bytes {
    transfer(account, Bytes::new(), 21_000)
}

fn send(rpc: &Rpc, raw: &Bytes) -> Value {
    rpc.call("eth_sendRawTransaction", json!([raw]))
}

/// The receipt on both sides, which must be of the same block.
#[track_caller]
fn wait_for_receipt(geth: &Geth, node: &Sequencer, hash: &Value) {
    let receipt =
        |rpc: &Rpc| Some(rpc.call("eth_getTransactionReceipt", json!([hash]))).filter(|found| !found.is_null());
    let ours = poll_until("a receipt here", LIMIT, || receipt(&node.rpc));
    let theirs = poll_until("a receipt at the client", LIMIT, || receipt(&geth.rpc));
    assert_eq!(ours["status"], "0x1");
    assert_eq!(ours["blockHash"], theirs["blockHash"]);
}

fn forwarding(node: &Sequencer) -> Value {
    node.rpc.call("sequencer_executionStatus", json!([]))["forwarding"].clone()
}

#[test]
fn what_is_sent_to_the_client_is_in_our_blocks() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "what_is_sent_to_the_client_is_in_our_blocks") else { return };
    let _turn = super::turn();
    let mut geth = Geth::start(&binary, &genesis("osaka"));
    let mut accounts: Vec<Account> = DEV_KEYS.into_iter().map(Account::new).collect();
    // It was pending before we came.
    let early = send(&geth.rpc, &small(&mut accounts[0]));
    let node = start(&geth, TempFolder::new("forwarding"));
    wait_for_receipt(&geth, &node, &early);

    // The second nonce comes first: the client keeps it back until it could be executed.
    let (first, second) = (small(&mut accounts[0]), small(&mut accounts[0]));
    let second = send(&geth.rpc, &second);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(node.rpc.call("eth_getTransactionByHash", json!([second])), Value::Null);
    let first = send(&geth.rpc, &first);
    for hash in [&first, &second] {
        wait_for_receipt(&geth, &node, hash);
    }

    // Both ports at once, and one transaction on both.
    let raws: Vec<Bytes> = (0..300).map(|index| small(&mut accounts[1 + index % 4])).collect();
    let hashes = geth.rpc.batch("eth_sendRawTransaction", raws.iter().map(|raw| json!([raw])));
    let ours: Vec<Bytes> = (0..50).map(|_| small(&mut accounts[5])).collect();
    node.rpc.batch("eth_sendRawTransaction", ours.iter().map(|raw| json!([raw])));
    // Known to one side or used up on it by now: either is right.
    let _ = geth.rpc.try_call("eth_sendRawTransaction", json!([ours[49]]));
    for hash in [hashes.last().expect("300 of them"), &hashes[0]] {
        wait_for_receipt(&geth, &node, hash.as_ref().expect("the client takes a transfer"));
    }
    let mined = || {
        let counts = (1..6).map(|index| json!([accounts[index].address, "latest"]));
        node.rpc
            .batch("eth_getTransactionCount", counts)
            .iter()
            .map(|nonce| quantity(nonce.as_ref().expect("a nonce")))
            .sum::<u64>()
    };
    poll_until("everything to be mined", LIMIT, || (mined() == 350).then_some(()));
    poll_until("everything to have ended", LIMIT, || (forwarding(&node)["waiting"] == "0x0").then_some(()));
    let counts = forwarding(&node);
    assert_eq!((quantity(&counts["admitted"]), quantity(&counts["refused"])), (303, 0), "{counts}");

    refused_ones_are_told(&geth, &node, &mut accounts[6]);

    // A restarted client has forgotten what we asked it to remember.
    geth.stop();
    geth.restart();
    let hash = poll_until("the client to take a transaction", LIMIT, || {
        let raw = small(&mut accounts[7]);
        geth.rpc.try_call("eth_sendRawTransaction", json!([raw])).ok()
    });
    wait_for_receipt(&geth, &node, &hash);
    node.stop();
}

/// The client takes 128 KiB, we take 64: that transaction has no way into a block, and the status says why.
#[track_caller]
fn refused_ones_are_told(geth: &Geth, node: &Sequencer, account: &mut Account) {
    let large = transfer(account, vec![0; 70_000].into(), 1_000_000);
    let hash = send(&geth.rpc, &large);
    poll_until("the refusal to be told", LIMIT, || (forwarding(node)["refused"] == "0x1").then_some(()));
    let last = &forwarding(node)["lastRefusal"];
    assert_eq!(last["hash"], hash, "{last}");
    assert!(last["reason"].as_str().is_some_and(|reason| reason.contains("65536")), "{last}");
    assert_eq!(node.rpc.call("eth_getTransactionReceipt", json!([hash])), Value::Null);
    // What is replaced there with a better offer goes its way.
    let replacement = {
        let mut again = Account::new(DEV_KEYS[6]);
        again.sign(|nonce| TxLegacy {
            chain_id: Some(61_972),
            nonce,
            gas_limit: 21_000,
            gas_price: 3_000_000_000,
            to: RECIPIENT.into(),
            value: U256::from(1u64),
            input: Bytes::new(),
        })
    };
    wait_for_receipt(geth, node, &send(&geth.rpc, &replacement));
}
