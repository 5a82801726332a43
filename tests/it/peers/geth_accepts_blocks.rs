//! go-ethereum executes every block of a chain and answers VALID; both nodes then show the same head and receipts.

use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_primitives::{Address, Bytes};
use serde_json::{Value, json};

use super::geth::Geth;
use super::payload::Payload;
use super::process::{TempFolder, poll_until};
use super::requests::RequestQueues;
use super::rpc::{Rpc, quantity};
use super::sequencer::{FAST_BLOCKS, Sequencer, genesis};
use super::workload::{Account, DEV_KEYS, Mix, Workload};

/// Qualifying blocks per fork; two forks make the 200 of the acceptance test.
/// Blocks behind the head whose witness is still asked for: the state before them must be there.
const WITNESSES_BEHIND_MAX: u64 = 100;
const BLOCKS_PER_FORK: usize = 100;
/// A round may be cut in two by a block's deadline: then neither half counts.
const ROUNDS_PER_FORK_MAX: usize = BLOCKS_PER_FORK * 2;
/// One block, with the other fork's nodes on the same cores.
const ROUND_LIMIT: Duration = Duration::from_secs(30);
/// Fields of a receipt that both nodes must show alike.
const RECEIPT_FIELDS: [&str; 15] = [
    "transactionHash",
    "transactionIndex",
    "blockHash",
    "blockNumber",
    "type",
    "status",
    "from",
    "to",
    "contractAddress",
    "gasUsed",
    "cumulativeGasUsed",
    "effectiveGasPrice",
    "logsBloom",
    "logs",
    "blobGasUsed",
];

#[test]
fn geth_accepts_our_blocks_on_prague_and_osaka() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "geth_accepts_our_blocks_on_prague_and_osaka") else { return };
    let _turn = super::turn();
    // Side by side: each fork waits for its blocks' deadlines most of the time.
    thread::scope(|scope| {
        let prague = scope.spawn(|| check_fork(&binary, "prague", 1));
        let osaka = scope.spawn(|| check_fork(&binary, "osaka", 2));
        for (fork, handle) in [("prague", prague), ("osaka", osaka)] {
            match handle.join() {
                Ok(mix) => println!("{fork}: {} blocks VALID, {mix:?}", BLOCKS_PER_FORK),
                Err(cause) => std::panic::resume_unwind(cause),
            }
        }
    });
}

/// The harness itself, with go-ethereum on both sides: when this fails, a failure of the test above is not about us.
#[test]
fn geth_accepts_blocks_of_another_geth() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "geth_accepts_blocks_of_another_geth") else { return };
    let _turn = super::turn();
    for fork in ["prague", "osaka"] {
        let genesis = reference_genesis(fork);
        let (builder, checker) = (Geth::start(&binary, &genesis), Geth::start(&binary, &genesis));
        assert!(checker.capabilities().iter().any(|name| name == "engine_newPayloadV4"));
        let mut workload = Workload::new(3);
        let mut feed = Feed::new(&builder.rpc, &checker, workload.contract_address);
        let start = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs();
        for round in 0..13 {
            let raw = if round == 0 { vec![workload.deploy()] } else { workload.round() };
            let count = raw.len() as u64;
            send(&builder.rpc, &raw);
            poll_until("the pool to hold the round", ROUND_LIMIT, || {
                let status = builder.rpc.call("txpool_status", json!([]));
                (quantity(&status["pending"]) == count).then_some(())
            });
            builder.commit_block(start + round);
            feed.catch_up();
        }
        feed.finish();
        assert_eq!(feed.qualified, 12, "blocks with the whole mix: {:?}", feed.last_mix);
        // A payload that is not what its hash says must not pass: VALID means something.
        let mut wrong = feed.last_payload.expect("blocks were fed");
        wrong.json["gasUsed"] = json!("0x5208");
        assert_eq!(checker.new_payload(&wrong)["status"], "INVALID");
    }
}

/// Builds on our node, round by round, until enough blocks with the whole mix were accepted.
fn check_fork(geth_binary: &Path, fork: &str, seed: u64) -> Mix {
    let sequencer = Sequencer::start_in(TempFolder::new(fork), fork, &FAST_BLOCKS);
    let geth = Geth::start(geth_binary, &genesis(fork));
    let mut workload = Workload::new(seed);
    let mut feed = Feed::new(&sequencer.rpc, &geth, workload.contract_address);
    let senders: Vec<Address> = DEV_KEYS.into_iter().map(|key| Account::new(key).address).collect();

    let mut sent = send(&sequencer.rpc, &[workload.deploy()]);
    wait_until_mined(&sequencer, &senders, sent);
    for _ in 0..ROUNDS_PER_FORK_MAX {
        sent += send(&sequencer.rpc, &workload.round());
        wait_until_mined(&sequencer, &senders, sent);
        feed.catch_up();
        if feed.qualified >= BLOCKS_PER_FORK {
            break;
        }
    }
    feed.finish();
    let Feed { qualified, last_mix, .. } = feed;
    assert!(qualified >= BLOCKS_PER_FORK, "{fork}: {qualified} blocks had the whole mix; the last: {last_mix:?}");
    sequencer.stop();
    last_mix
}

/// Sends raw transactions as one batch; each must be accepted. Returns how many.
#[track_caller]
fn send(rpc: &Rpc, raw: &[Bytes]) -> u64 {
    let answers = rpc.batch("eth_sendRawTransaction", raw.iter().map(|raw| json!([raw])));
    for (raw, answer) in raw.iter().zip(&answers) {
        assert!(answer.is_ok(), "{raw}: {answer:?}");
    }
    answers.len() as u64
}

/// Waits until the senders' nonces in the latest block add up to `total`.
#[track_caller]
fn wait_until_mined(sequencer: &Sequencer, senders: &[Address], total: u64) {
    let start = std::time::Instant::now();
    loop {
        let nonces = sequencer.rpc.batch("eth_getTransactionCount", senders.iter().map(|a| json!([a, "latest"])));
        let mined: u64 = nonces.iter().map(|nonce| quantity(nonce.as_ref().expect("a nonce"))).sum();
        if mined == total {
            return;
        }
        assert!(start.elapsed() < ROUND_LIMIT, "{mined} of {total} mined:\n{}", sequencer.log_tail());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Carries blocks from the node that built them to the one that checks them.
struct Feed<'a> {
    source: &'a Rpc,
    checker: &'a Geth,
    contract: Address,
    queues: RequestQueues,
    next: u64,
    qualified: usize,
    /// Blocks with requests of both kinds.
    with_requests: usize,
    last_mix: Mix,
    last_payload: Option<Payload>,
}

impl<'a> Feed<'a> {
    /// Both chains must start from the same genesis block.
    #[track_caller]
    fn new(source: &'a Rpc, checker: &'a Geth, contract: Address) -> Self {
        let [ours, theirs] = [source, &checker.rpc].map(|rpc| rpc.call("eth_getBlockByNumber", json!(["0x0", false])));
        assert_eq!(ours["hash"], theirs["hash"], "genesis: {ours:#} and {theirs:#}");
        Self {
            source,
            checker,
            contract,
            queues: RequestQueues::default(),
            next: 1,
            qualified: 0,
            with_requests: 0,
            last_mix: Mix::default(),
            last_payload: None,
        }
    }

    /// Feeds every block that the source has sealed since the last call.
    #[track_caller]
    fn catch_up(&mut self) {
        let latest = self.source.quantity("eth_blockNumber", json!([]));
        while self.next <= latest {
            let tag = format!("{:#x}", self.next);
            let block = self.source.call("eth_getBlockByNumber", json!([tag, true]));
            let receipts = self.source.call("eth_getBlockReceipts", json!([tag]));
            let requests = self.queues.advance(&block, &receipts);
            self.with_requests += usize::from(requests.len() == 2);
            let payload = Payload::pack(self.source, &block, requests);
            self.checker.accept(&payload);
            self.compare_receipts(&tag, &receipts);
            if latest - self.next < WITNESSES_BEHIND_MAX {
                self.compare_witness(&tag);
            }
            let mix = Mix::count(&block, &receipts, self.contract);
            self.qualified += usize::from(mix.qualifies());
            self.last_mix = mix;
            self.last_payload = Some(payload);
            self.next += 1;
        }
    }

    /// Both nodes must stand on the same block.
    #[track_caller]
    fn finish(&mut self) {
        self.catch_up();
        let heads =
            [self.source, &self.checker.rpc].map(|rpc| rpc.call("eth_getBlockByNumber", json!(["latest", false])));
        assert_eq!(heads[0]["hash"], heads[1]["hash"], "heads:\n{}", self.checker.log_tail());
        assert!(self.with_requests > 0, "no block had withdrawal and consolidation requests");
    }

    /// Both nodes execute the block again and show what it needs, and prove the same of an account that it touched.
    #[track_caller]
    fn compare_witness(&self, tag: &str) {
        let ask = |method: &str, params: Value| {
            [self.source, &self.checker.rpc].map(|rpc| without_nulls(rpc.call(method, params.clone())))
        };
        let [ours, theirs] = ask("debug_executionWitness", json!([tag]));
        for part in ["headers", "codes", "state"] {
            assert_eq!(ours[part], theirs[part], "{part} of the witness of block {tag}");
        }
        for address in [self.contract, Address::repeat_byte(0x77)] {
            let slots = json!(["0x0", "0x1", format!("{:#066x}", 2)]);
            let [ours, theirs] = ask("eth_getProof", json!([address, slots, tag]));
            assert_eq!(ours, theirs, "proof of {address} at block {tag}");
        }
    }

    #[track_caller]
    fn compare_receipts(&self, tag: &str, ours: &Value) {
        let theirs = self.checker.rpc.call("eth_getBlockReceipts", json!([tag]));
        let (ours, theirs) = (receipts(ours), receipts(&theirs));
        assert_eq!(ours.len(), theirs.len(), "receipts of block {tag}");
        for (ours, theirs) in ours.iter().zip(theirs) {
            for field in RECEIPT_FIELDS {
                assert_eq!(comparable(ours, field), comparable(theirs, field), "{field} in block {tag}: {ours:#}");
            }
        }
    }
}

/// go-ethereum writes null for fields of later forks.
fn without_nulls(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(|member| *member = without_nulls(member.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_nulls(item.take())),
        _ => {}
    }
    value
}

fn receipts(list: &Value) -> &Vec<Value> {
    list.as_array().expect("a list of receipts")
}

/// One field in a form that both nodes share: addresses in lower case, absent as null.
fn comparable(receipt: &Value, field: &str) -> String {
    receipt.get(field).unwrap_or(&Value::Null).to_string().to_lowercase()
}

/// A development genesis made here, so that the harness can be checked without our binary.
fn reference_genesis(fork: &str) -> Value {
    let mut alloc = serde_json::Map::new();
    for key in DEV_KEYS {
        alloc.insert(Account::new(key).address.to_string(), json!({"balance": "0x21e19e0c9bab2400000"}));
    }
    for (address, code) in [
        (eip4788::BEACON_ROOTS_ADDRESS, &eip4788::BEACON_ROOTS_CODE),
        (eip2935::HISTORY_STORAGE_ADDRESS, &eip2935::HISTORY_STORAGE_CODE),
        (eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, &eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE),
        (eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, &eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE),
    ] {
        alloc.insert(address.to_string(), json!({"balance": "0x0", "nonce": "0x1", "code": code}));
    }
    let blobs = json!({"target": 6, "max": 9, "baseFeeUpdateFraction": 5_007_716});
    let mut config = json!({
        "chainId": 61_972, "terminalTotalDifficulty": 0, "mergeNetsplitBlock": 0,
        "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0,
        "depositContractAddress": Address::ZERO,
        "blobSchedule": {"cancun": blobs, "prague": blobs, "osaka": blobs},
    });
    for block in [
        "homestead",
        "eip150",
        "eip155",
        "eip158",
        "byzantium",
        "constantinople",
        "petersburg",
        "istanbul",
        "berlin",
        "london",
    ] {
        config[format!("{block}Block")] = json!(0);
    }
    if fork == "osaka" {
        config["osakaTime"] = json!(0);
    }
    json!({
        "config": config, "alloc": alloc, "nonce": "0x0", "timestamp": "0x3e8", "extraData": "0x",
        "gasLimit": "0x2540be400", "difficulty": "0x0", "baseFeePerGas": "0xf4240",
    })
}
