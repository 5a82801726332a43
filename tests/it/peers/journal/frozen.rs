//! A disk that does not answer: whatever is not durable is not visible, by no method and no subscription.

use std::thread;
use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, keccak256};
use serde_json::{Value, json};

use super::super::process::{TempFolder, poll_until};
use super::super::sequencer::Sequencer;
use super::super::workload::{Account, Workload};
use super::freeze::Frozen;
use super::line::Line;
use super::observer::Observer;
use super::{Draft, await_receipts, dev_accounts, hash_of, send, send_sync};

/// What is not answered in this time is taken as not answered.
const SILENCE: Duration = Duration::from_millis(500);
/// What depends on no record is answered in this time.
const AT_ONCE: Duration = Duration::from_millis(300);
const THAW_LIMIT: Duration = Duration::from_secs(10);
/// The open block's deadline passes while the disk is frozen.
const INTERVAL: Duration = Duration::from_secs(3);

/// A read and what it answered before the disk froze.
struct Read {
    method: &'static str,
    params: Value,
    before: Value,
}

/// A transaction that is sent while the disk is frozen.
struct Sent {
    what: &'static str,
    hash: B256,
    line: Line,
}

#[test]
fn with_the_disk_frozen_nothing_newer_is_visible() {
    let _turn = super::super::turn();
    let interval = INTERVAL.as_millis().to_string();
    let settings = ["--block.interval-ms", &interval, "--http.shards", "2"];
    let sequencer = Sequencer::start_in(TempFolder::new("frozen"), "osaka", &settings);
    let mut workload = Workload::new(0);
    let contract = workload.contract_address;
    let mut accounts = dev_accounts();
    let deployment = send(&sequencer.rpc, &workload.deploy());
    await_receipts(&sequencer.rpc, &[deployment]);
    // Block 2 is open and has one transaction.
    let placed = send_sync(&sequencer.rpc, &Draft::increment(0, contract).sign(&mut accounts[1]));
    assert_eq!(placed["blockNumber"], "0x2");

    let drafts = drafts(contract, &mut accounts);
    let reads = reads(&sequencer, contract, &accounts, &drafts);
    let mut observer = Observer::connect(sequencer.port).expect("the node runs");
    let frozen = match Frozen::thread(sequencer.pid(), "journal") {
        Ok(frozen) => frozen,
        Err(error) => {
            assert!(!super::super::is_ci(), "ptrace is not permitted: {error}");
            println!("skipped with_the_disk_frozen_nothing_newer_is_visible: ptrace is not permitted: {error}");
            return;
        }
    };
    let mut sent: Vec<Sent> = drafts.into_iter().map(|draft| send_on_a_line(sequencer.port, draft)).collect();
    let mut asked = check_all(&sequencer, &reads, &mut sent, &mut observer);
    thread::sleep(INTERVAL);
    // Now the open block is closed and has its hash, which nobody may see, and what comes goes into the block behind it.
    let raw = Draft::transfer(0).sign(&mut accounts[5]);
    sent.push(send_on_a_line(
        sequencer.port,
        ("one for the next block", "eth_sendRawTransaction", json!([raw]), hash_of(&raw)),
    ));
    asked.extend(check_all(&sequencer, &reads, &mut sent, &mut observer));

    drop(frozen);
    for Sent { what, hash, line } in &mut sent {
        let reply = line.reply(THAW_LIMIT).unwrap_or_else(|| panic!("{what}: no reply after the thaw"));
        let result = reply.get("result").unwrap_or_else(|| panic!("{what}: {reply}"));
        assert!(*result == json!(hash) || result["transactionHash"] == json!(hash), "{what}: {reply}");
    }
    for (what, mut line) in asked {
        assert!(line.reply(THAW_LIMIT).is_some(), "{what}: no reply after the thaw");
    }
    check_announcements(&mut observer, &sent);
    let in_blocks: Vec<B256> = sent.iter().filter(|sent| sent.what != GAP).map(|sent| sent.hash).collect();
    await_receipts(&sequencer.rpc, &in_blocks);
    sequencer.stop();
}

const GAP: &str = "one behind a gap";

type Call = (&'static str, &'static str, Value, B256);

/// One of each kind: name, method, parameters, hash.
fn drafts(contract: Address, accounts: &mut [Account]) -> Vec<Call> {
    let call = |what, method, raw: Bytes, more: Option<Value>| {
        let params = more.map_or_else(|| json!([raw]), |more| json!([raw, more]));
        (what, method, params, hash_of(&raw))
    };
    let increment = Draft::increment(1, contract).sign(&mut accounts[1]);
    let transfer = Draft::transfer(0).sign(&mut accounts[2]);
    let conditional = Draft::transfer(0).sign(&mut accounts[3]);
    let behind = Draft::transfer(5).sign(&mut accounts[4]);
    vec![
        call("a call", "eth_sendRawTransaction", increment, None),
        call("a transfer", "eth_sendRawTransactionSync", transfer, Some(json!(30_000))),
        call("a conditional one", "eth_sendRawTransactionConditional", conditional, Some(json!({"blockNumberMin": 1}))),
        call(GAP, "eth_sendRawTransaction", behind, None),
    ]
}

fn send_on_a_line(port: u16, (what, method, params, hash): Call) -> Sent {
    let mut line = Line::connect(port);
    line.send(method, params);
    Sent { what, hash, line }
}

/// Everything that could show a transaction, its effects or its block, with the answers of now.
fn reads(sequencer: &Sequencer, contract: Address, accounts: &[Account], drafts: &[Call]) -> Vec<Read> {
    let value_of = json!({"to": contract, "data": json!(Bytes::from(keccak256("value()")[..4].to_vec()))});
    let receiver = Address::with_last_byte(0xee);
    let mut calls: Vec<(&'static str, Value)> = vec![
        ("eth_blockNumber", json!([])),
        ("eth_gasPrice", json!([])),
        ("eth_getBlockByNumber", json!(["0x2", false])),
        ("eth_getBlockByNumber", json!(["0x3", false])),
        ("eth_feeHistory", json!(["0x2", "latest", []])),
        ("eth_getLogs", json!([{"fromBlock": "0x0", "toBlock": "latest"}])),
        ("txpool_status", json!([])),
        ("debug_getRawHeader", json!(["latest"])),
    ];
    for tag in ["latest", "pending"] {
        calls.extend([
            ("eth_getBlockByNumber", json!([tag, true])),
            ("eth_getBlockReceipts", json!([tag])),
            ("eth_getBlockTransactionCountByNumber", json!([tag])),
            ("eth_getTransactionByBlockNumberAndIndex", json!([tag, "0x1"])),
            ("eth_getBalance", json!([receiver, tag])),
            ("eth_getStorageAt", json!([contract, "0x0", tag])),
            ("eth_call", json!([value_of, tag])),
        ]);
        calls.extend(accounts[1..6].iter().flat_map(|account| {
            [
                ("eth_getTransactionCount", json!([account.address, tag])),
                ("eth_getBalance", json!([account.address, tag])),
            ]
        }));
    }
    for (_, _, _, hash) in drafts {
        let methods = [
            "eth_getTransactionByHash",
            "eth_getRawTransactionByHash",
            "eth_getTransactionReceipt",
            "sequencer_getTransactionStatus",
            "debug_getRawTransaction",
        ];
        calls.extend(methods.map(|method| (method, json!([hash]))));
    }
    let read = |(method, params): (&'static str, Value)| Read {
        method,
        before: sequencer.rpc.call(method, params.clone()),
        params,
    };
    calls.into_iter().map(read).collect()
}

/// Nothing that was sent is answered, and nothing newer can be read or is announced. Returns the reads that were not answered.
fn check_all(sequencer: &Sequencer, reads: &[Read], sent: &mut [Sent], observer: &mut Observer) -> Vec<(String, Line)> {
    let mut lines: Vec<Line> = reads
        .iter()
        .map(|read| {
            let mut line = Line::connect(sequencer.port);
            line.send(read.method, read.params.clone());
            line
        })
        .collect();
    check_probe(sequencer);
    thread::sleep(SILENCE);
    for Sent { what, line, .. } in sent {
        let reply = line.reply(Duration::from_millis(1));
        assert!(reply.is_none(), "{what} is answered while nothing is durable: {reply:?}");
    }
    let mut open = Vec::new();
    for (read, mut line) in reads.iter().zip(lines.drain(..)) {
        let what = format!("{} {}", read.method, read.params);
        match line.reply(Duration::from_millis(1)) {
            Some(reply) => assert_eq!(reply["result"], read.before, "{what} shows what is not durable: {reply}"),
            None => open.push((what, line)),
        }
    }
    println!("{} of {} reads wait for the disk", open.len(), reads.len());
    assert!(observer.listen(AT_ONCE), "the connection has ended");
    assert!(
        !observer.heard(),
        "announced while nothing is durable: {:?} {:?} {:?}",
        observer.seen.blocks,
        observer.seen.placed,
        observer.seen.receipts
    );
    open
}

/// What depends on nothing is answered: whoever watches the process must not take it for dead.
fn check_probe(sequencer: &Sequencer) {
    for path in ["/healthz", "/livez", "/readyz"] {
        let mut line = Line::connect(sequencer.port);
        line.get(path);
        let (status, _) = line.message(AT_ONCE).unwrap_or_else(|| panic!("{path} is not answered at once"));
        println!("{path}: {status}");
    }
    let mut line = Line::connect(sequencer.port);
    line.send("eth_chainId", json!([]));
    assert!(line.reply(AT_ONCE).is_some(), "eth_chainId is not answered at once");
}

/// After the thaw everything is announced: both blocks, and each placed transaction once.
fn check_announcements(observer: &mut Observer, sent: &[Sent]) {
    let expected: Vec<B256> = sent.iter().filter(|sent| sent.what != GAP).map(|sent| sent.hash).collect();
    poll_until("announced", THAW_LIMIT, || {
        assert!(observer.listen(AT_ONCE), "the connection has ended");
        let seen = &observer.seen;
        let is_all = [2, 3].iter().all(|number| seen.blocks.contains_key(number));
        (is_all && seen.placed.len() >= expected.len() && seen.receipts.len() >= expected.len()).then_some(())
    });
    let mut placed = observer.seen.placed.clone();
    let in_receipts: Vec<Value> =
        observer.seen.receipts.iter().map(|receipt| receipt["transactionHash"].clone()).collect();
    assert_eq!(placed.iter().map(|hash| json!(hash)).collect::<Vec<_>>(), in_receipts, "two subscriptions, one order");
    placed.sort_unstable();
    let mut expected = expected;
    expected.sort_unstable();
    assert_eq!(placed, expected, "announced as placed");
}
