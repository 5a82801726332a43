//! The L1 client against a real go-ethereum that makes blocks by itself (`geth --dev`): heads by HTTP and WebSocket, every block and its
//! receipts compared with their roots, what its pool says to us.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use alloy_consensus::TxEip1559;
use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U256, keccak256};
use native_sequencer::l1::block::{BlockId, CheckedBlock};
use native_sequencer::l1::client::follow::{Follower, L1Event};
use native_sequencer::l1::client::wire::Url;
use native_sequencer::l1::client::{ClientSettings, L1Client, parse};
use native_sequencer::l1::execute_tx::EXECUTE_ADDRESS;
use native_sequencer::l1::tx_manager::types::SendOutcome;
use serde_json::json;

use super::process::{Process, TempFolder, free_port, poll_until};
use super::rpc::Rpc;
use super::sequencer::genesis;
use super::workload::{Account, DEV_KEYS, Workload};

/// Of the genesis that the workload signs for.
const CHAIN_ID: u64 = 61_972;
const LIMIT: Duration = Duration::from_secs(60);
/// `geth --dev` calls every 32nd block final.
const EPOCH: u64 = 32;

/// A go-ethereum that puts what it is sent into blocks at once.
struct DevGeth {
    rpc: Rpc,
    ports: [u16; 2],
    process: Process,
    _folder: TempFolder,
}

impl DevGeth {
    fn start(binary: &Path, apis: &str) -> Self {
        let folder = TempFolder::new("geth-dev");
        let (data, file) = (folder.path().join("data"), folder.path().join("genesis.json"));
        fs::write(&file, genesis("prague").to_string()).expect("the folder is writable");
        let init = Command::new(binary).arg("init").arg("--datadir").arg(&data).arg(&file).output();
        let init = init.unwrap_or_else(|error| panic!("{} does not start: {error}", binary.display()));
        assert!(init.status.success(), "geth init: {}", String::from_utf8_lossy(&init.stderr));
        let ports = [free_port(), free_port()];
        let mut command = Command::new(binary);
        command.arg("--dev").arg("--datadir").arg(&data);
        command.args(["--networkid", "61972", "--nodiscover", "--port", "0", "--ipcdisable"]);
        command.args(["--http", "--http.addr", "127.0.0.1", "--http.port", &ports[0].to_string(), "--http.api", apis]);
        command.args(["--ws", "--ws.addr", "127.0.0.1", "--ws.port", &ports[1].to_string(), "--ws.api", "eth"]);
        command.args(["--authrpc.port", &free_port().to_string()]);
        let mut process = Process::start("geth-dev", folder.path(), command);
        let rpc = Rpc::new(format!("http://127.0.0.1:{}", ports[0]));
        let probe = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []});
        process.wait_until("answering", LIMIT, || rpc.post(&probe).ok());
        Self { rpc, ports, process, _folder: folder }
    }

    fn client(&self, with_websocket: bool, poll_ms: u64) -> L1Client {
        let http = format!("http://127.0.0.1:{}", self.ports[0]);
        let ws = with_websocket.then(|| format!("ws://127.0.0.1:{}", self.ports[1]));
        let urls = [Some(http), ws].into_iter().flatten().map(|url| Url::parse(&url).expect("a URL")).collect();
        let settings = ClientSettings {
            urls,
            chain_id: CHAIN_ID,
            call_ns_max: 5_000_000_000,
            poll_ns: poll_ms * 1_000_000,
            meter: std::sync::Arc::default(),
        };
        L1Client::new(settings).expect("an endpoint")
    }

    fn id(&self, number: u64) -> BlockId {
        let block = self.rpc.call("eth_getBlockByNumber", json!([format!("{number:#x}"), false]));
        BlockId { number, hash: block["hash"].as_str().and_then(|hash| hash.parse().ok()).expect("a hash") }
    }

    fn latest(&self) -> u64 {
        self.rpc.quantity("eth_blockNumber", json!([]))
    }

    /// Sends, and waits until all of it is in blocks.
    #[track_caller]
    fn mine(&self, raw: &[Bytes]) {
        for answer in self.rpc.batch("eth_sendRawTransaction", raw.iter().map(|raw| json!([raw]))) {
            answer.unwrap_or_else(|error| panic!("{error:?}:\n{}", self.process.log_tail()));
        }
        let hashes: Vec<B256> = raw.iter().map(keccak256).collect();
        poll_until("everything mined", LIMIT, || {
            let receipts = self.rpc.batch("eth_getTransactionReceipt", hashes.iter().map(|hash| json!([hash])));
            receipts.iter().all(|receipt| receipt.as_ref().is_ok_and(|receipt| !receipt.is_null())).then_some(())
        });
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(LIMIT, work).await.expect("an end in time") })
}

/// Everything up to a head of at least this number: the blocks, and the newest final one that was told.
async fn follow_to(
    number: u64,
    follower: &mut Follower,
    client: &mut L1Client,
) -> (Vec<CheckedBlock>, Option<BlockId>) {
    let (mut blocks, mut finalized) = (Vec::new(), None);
    loop {
        match follower.next(client).await.expect("it answers") {
            L1Event::Block(block) => blocks.push(*block),
            L1Event::Finalized(block) => finalized = Some(block),
            L1Event::Head(head) if head.number >= number => return (blocks, finalized),
            L1Event::Head(_) => {}
            L1Event::Rewound { to } => panic!("nothing is taken back, but to {to}"),
        }
    }
}

/// `debug`: whole blocks in RLP. Without: the header out of JSON and one transaction after the other.
fn check_blocks(binary: &Path, apis: &str) {
    let geth = DevGeth::start(binary, apis);
    let mut workload = Workload::new(31);
    let mut client = geth.client(false, 20);
    let mut follower = Follower::new(geth.id(0), &client);
    let mut sent = vec![workload.deploy()];
    geth.mine(&sent);
    for _ in 0..3 {
        let round = workload.round();
        geth.mine(&round);
        sent.extend(round);
    }
    let head = geth.latest();
    let (blocks, _) = block_on(follow_to(head, &mut follower, &mut client));
    // It may have made an empty one meanwhile.
    assert!(blocks.len() as u64 >= head);
    let (mut found, mut receipts) = (Vec::new(), 0);
    for (block, number) in blocks.iter().zip(1..) {
        assert_eq!(block.id(), geth.id(number));
        // The client asks for receipts where an ExecuteTx is; here all of them are put together again.
        let raw = parse::RawBlock { header: block.header, transactions: block.transactions.clone() };
        let json = geth.rpc.call("eth_getBlockReceipts", json!([block.header.hash]));
        let whole = parse::receipts(raw, &json).unwrap_or_else(|lie| panic!("block {number}: {lie}"));
        let gas: u64 = whole.receipts.iter().map(|receipt| receipt.gas_used).sum();
        let shown = geth.rpc.call("eth_getBlockByNumber", json!([format!("{number:#x}"), false]));
        assert_eq!(json!(format!("{gas:#x}")), shown["gasUsed"], "gas of block {number}");
        receipts += whole.receipts.len();
        found.extend(block.transactions.iter().map(keccak256));
    }
    let mut expected: Vec<B256> = sent.iter().map(keccak256).collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected, "every transaction once");
    println!("{apis}: {head} blocks, {receipts} receipts of all types have their roots");
    // What a lie would be: one receipt of another block.
    let last = blocks.iter().rev().find(|block| block.transactions.len() > 1).expect("a full block");
    let raw = parse::RawBlock { header: last.header, transactions: last.transactions.clone() };
    let mut json = geth.rpc.call("eth_getBlockReceipts", json!([last.header.hash]));
    json[0]["status"] = json!(if json[0]["status"] == "0x1" { "0x0" } else { "0x1" });
    assert!(matches!(parse::receipts(raw, &json), Err(native_sequencer::l1::client::error::Lie::ReceiptsRoot { .. })));
    if !apis.contains("debug") {
        return;
    }
    check_accounts(&geth, &mut client);
}

fn check_accounts(geth: &DevGeth, client: &mut L1Client) {
    // It has no EXECUTE; an existing precompile refuses or answers.
    assert_eq!(block_on(client.has_execute(EXECUTE_ADDRESS)), Ok(false));
    assert_eq!(block_on(client.has_execute(Address::with_last_byte(4))), Ok(true));
    let address = Account::new(DEV_KEYS[1]).address;
    let at = geth.id(geth.latest());
    let account = block_on(client.account(address, at)).expect("it answers");
    let nonce = geth.rpc.quantity("eth_getTransactionCount", json!([address, "latest"]));
    // Where a busy machine made more than an epoch of blocks, one is final.
    let answer = geth.rpc.try_call("eth_getTransactionCount", json!([address, "finalized"]));
    let nonce_final = answer.map_or(0, |nonce| serde_json::from_value::<U64>(nonce).expect("a quantity").to());
    let balance: U256 =
        serde_json::from_value(geth.rpc.call("eth_getBalance", json!([address, "latest"]))).expect("wei");
    assert_eq!((account.nonce, account.nonce_pending, account.nonce_final), (nonce, nonce, nonce_final));
    assert_eq!((account.balance_wei, account.at), (balance, at));
    assert!(block_on(client.tip_wei()).expect("it answers") > 0);
}

#[test]
fn blocks_and_receipts_of_a_real_geth_have_their_roots() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "blocks_and_receipts_of_a_real_geth_have_their_roots") else {
        return;
    };
    let _turn = super::turn();
    check_blocks(&binary, "eth,net,web3,debug");
    check_blocks(&binary, "eth,net,web3");
}

#[test]
fn the_development_l1_has_execute() {
    let _turn = super::turn();
    let l1 = super::settles::L1::start();
    let urls = vec![Url::parse(&l1.url).expect("a URL")];
    let settings = ClientSettings {
        urls,
        chain_id: 61_971,
        call_ns_max: 5_000_000_000,
        poll_ns: 1_000_000_000,
        meter: std::sync::Arc::default(),
    };
    let mut client = L1Client::new(settings).expect("an endpoint");
    assert_eq!(block_on(client.has_execute(EXECUTE_ADDRESS)), Ok(true));
    assert_eq!(block_on(client.has_execute(Address::with_last_byte(0x99))), Ok(false));
}

fn transfer(sender: &mut Account, value: u64, fee_cap_wei: u128) -> Bytes {
    sender.sign(|nonce| TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: fee_cap_wei,
        max_priority_fee_per_gas: fee_cap_wei.min(1_000_000_000),
        to: TxKind::Call(Address::repeat_byte(9)),
        value: U256::from(value),
        access_list: AccessList::default(),
        input: Bytes::new(),
    })
}

#[test]
fn a_real_geth_tells_of_heads_and_finality_by_websocket() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "a_real_geth_tells_of_heads_and_finality_by_websocket") else {
        return;
    };
    let _turn = super::turn();
    let geth = DevGeth::start(&binary, "eth,debug");
    let mut sender = Account::new(DEV_KEYS[0]);
    // Polled every hour: within the minute of this test, only the WebSocket can tell.
    let mut client = geth.client(true, 3_600_000);
    let mut follower = Follower::new(geth.id(0), &client);
    // One runtime: the socket belongs to it.
    block_on(async {
        follow_to(0, &mut follower, &mut client).await;
        let mut newest_final = None;
        // At least one block for each.
        for value in 1..=EPOCH + 2 {
            geth.mine(&[transfer(&mut sender, value, 3_000_000_000)]);
            let head = geth.latest();
            let (blocks, finalized) = follow_to(head, &mut follower, &mut client).await;
            for block in &blocks {
                assert_eq!(block.id(), geth.id(block.header.number));
            }
            newest_final = finalized.or(newest_final);
        }
        let newest_final = newest_final.expect("an epoch is over");
        assert_eq!((newest_final, newest_final.number % EPOCH), (geth.id(newest_final.number), 0));
        assert_eq!(client.finalized().await, Ok(newest_final));
    });
}

/// The words of its pool, which decide what the transaction manager does next.
#[test]
fn a_real_geths_refusals_are_understood() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "a_real_geths_refusals_are_understood") else { return };
    let _turn = super::turn();
    let geth = DevGeth::start(&binary, "eth");
    let mut client = geth.client(false, 1_000);
    let mut send = |raw: &Bytes| block_on(client.send_raw(raw));
    let mut sender = Account::new(DEV_KEYS[0]);
    let first = transfer(&mut sender, 1, 3_000_000_000);
    geth.mine(std::slice::from_ref(&first));
    assert_eq!(send(&first), SendOutcome::NonceTooLow);
    // Behind a gap, so that it stays in the pool.
    let _gap = transfer(&mut sender, 2, 3_000_000_000);
    let waiting = transfer(&mut sender, 3, 3_000_000_000);
    assert_eq!(send(&waiting), SendOutcome::Accepted);
    assert_eq!(send(&waiting), SendOutcome::Accepted, "already known");
    let mut again = Account::new(DEV_KEYS[0]);
    (0..2).for_each(|_| drop(transfer(&mut again, 0, 0)));
    assert_eq!(send(&transfer(&mut again, 4, 3_100_000_000)), SendOutcome::Underpriced, "less than 10 % above");
    let mut cheap = Account::new(DEV_KEYS[1]);
    assert_eq!(send(&transfer(&mut cheap, 1, 0)), SendOutcome::Underpriced, "no tip at all");
    let mut poor = Account::new([7; 32]);
    assert_eq!(send(&transfer(&mut poor, 1, 3_000_000_000)), SendOutcome::InsufficientFunds);
    let refused = send(&Bytes::from_static(&[0x05, 0xc0]));
    assert!(matches!(refused, SendOutcome::Refused { .. }), "{refused:?}");
}
