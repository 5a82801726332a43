//! Filters, access lists and the pool's content: the same questions to our node and to go-ethereum, on the same blocks or with the same pool.

use std::collections::BTreeSet;
use std::time::Duration;

use alloy_consensus::{TxEip1559, TxLegacy};
use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, Bytes, TxKind, U256, hex};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::geth::Geth;
use super::process::{TempFolder, poll_until};
use super::rpc::{Rpc, RpcError, quantity};
use super::sequencer::{Sequencer, genesis};
use super::workload::{Account, DEV_KEYS, Workload};

const FORK: &str = "osaka";
/// A block mined, checked and announced, on a loaded machine.
const LIMIT: Duration = Duration::from_secs(60);
const CHAIN_ID: u64 = 61_972;
/// Of the stranger's programs.
const PROGRAMS: u64 = 60;

/// Our node, and go-ethereum that checks its blocks.
pub struct Pair {
    sequencer: Sequencer,
    geth: Geth,
}

impl Pair {
    pub fn start(binary: &std::path::Path) -> Self {
        let geth = Geth::start(binary, &genesis(FORK));
        let (engine, secret) = (geth.engine_url(), geth.jwt_file());
        let settings = ["--execution.mode", "verified", "--execution.engine-url", &engine]
            .into_iter()
            .chain(["--execution.jwt-secret", secret.to_str().expect("the folder's name is text")])
            .chain(["--block.interval-ms", "500", "--block.timestamp-lead-s", "1000000"]);
        let settings: Vec<&str> = settings.collect();
        let sequencer = Sequencer::start_in(TempFolder::new("breadth"), FORK, &settings);
        Self { sequencer, geth }
    }

    pub fn both(&self) -> [&Rpc; 2] {
        [&self.sequencer.rpc, &self.geth.rpc]
    }

    /// Sends, and waits until all of it is in blocks that both have.
    #[track_caller]
    pub fn mine(&self, raw: &[Bytes]) {
        for answer in self.sequencer.rpc.batch("eth_sendRawTransaction", raw.iter().map(|raw| json!([raw]))) {
            answer.expect("accepted");
        }
        let hashes: Vec<Value> = raw.iter().map(|raw| json!([alloy_primitives::keccak256(raw)])).collect();
        for rpc in self.both() {
            poll_until("everything mined", LIMIT, || {
                let receipts = rpc.batch("eth_getTransactionReceipt", hashes.iter().cloned());
                receipts.iter().all(|receipt| receipt.as_ref().is_ok_and(|receipt| !receipt.is_null())).then_some(())
            });
        }
    }

    /// The same call to both: equal results, or errors of the same code. The result.
    #[track_caller]
    fn same(&self, method: &str, params: &Value) -> Result<Value, RpcError> {
        let [ours, theirs] = self.both().map(|rpc| rpc.try_call(method, params.clone()));
        match (&ours, &theirs) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{method} {params}"),
            (Err(found), Err(expected)) => {
                assert_eq!(found.code, expected.code, "{method} {params}: {found:?}, {expected:?}")
            }
            _ => panic!("{method} {params}: {ours:?} here, {theirs:?} there"),
        }
        ours
    }
}

/// A filter of the same criteria on both nodes, and what the polls were told so far.
struct Polled {
    method: &'static str,
    params: Value,
    ids: [String; 2],
    told: [Vec<Value>; 2],
}

impl Polled {
    fn new(pair: &Pair, method: &'static str, params: Value) -> Self {
        let ids = pair.both().map(|rpc| rpc.call(method, params.clone()).as_str().expect("an id is text").to_owned());
        Self { method, params, ids, told: Default::default() }
    }

    /// Polls both until they were told equally much.
    #[track_caller]
    fn poll(&mut self, pair: &Pair) {
        let what = format!("{} {} told the same", self.method, self.params);
        poll_until(&what, LIMIT, || {
            for ((rpc, id), told) in pair.both().into_iter().zip(&self.ids).zip(&mut self.told) {
                let news = rpc.call("eth_getFilterChanges", json!([id]));
                told.extend(news.as_array().expect("a list").iter().cloned());
            }
            (self.told[0].len() >= self.told[1].len() && self.told[0] == self.told[1]).then_some(())
        });
    }
}

#[test]
fn filters_are_told_what_go_ethereums_are() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "filters_are_told_what_go_ethereums_are") else { return };
    let _turn = super::turn();
    let pair = Pair::start(&binary);
    let mut workload = Workload::new(21);
    let contract = workload.contract_address;
    let mut polled = [
        Polled::new(&pair, "eth_newBlockFilter", json!([])),
        Polled::new(&pair, "eth_newFilter", json!([{}])),
        Polled::new(&pair, "eth_newFilter", json!([{"address": contract}])),
        Polled::new(
            &pair,
            "eth_newFilter",
            json!([{"address": [contract], "topics": [null, [
                format!("{:?}", Account::new(DEV_KEYS[2]).address.into_word()),
                format!("{:?}", Account::new(DEV_KEYS[3]).address.into_word()),
            ]]}]),
        ),
        Polled::new(&pair, "eth_newFilter", json!([{"fromBlock": "0x3", "toBlock": "0x4"}])),
        Polled::new(&pair, "eth_newFilter", json!([{"fromBlock": "earliest", "toBlock": "0x4"}])),
        Polled::new(&pair, "eth_newFilter", json!([{"fromBlock": "0x4"}])),
        Polled::new(&pair, "eth_newFilter", json!([{"address": Address::ZERO}])),
    ];
    for round in 0..5 {
        pair.mine(&if round == 0 { vec![workload.deploy()] } else { workload.round() });
        polled.iter_mut().for_each(|filter| filter.poll(&pair));
    }
    let counts: Vec<usize> = polled.iter().map(|filter| filter.told[0].len()).collect();
    println!("told: {counts:?}");
    assert!(counts[0] >= 5 && counts[1] > counts[2] && counts[2] > counts[3] && counts[3] > 0, "{counts:?}");
    assert!(counts[4] > 0 && counts[6] > 0 && counts[7] == 0, "{counts:?}");
    for filter in &polled {
        // Nothing is told twice.
        let [ours, theirs] = pair.both();
        let again = ours.call("eth_getFilterChanges", json!([filter.ids[0]]));
        assert_eq!(again, json!([]), "{} {}", filter.method, filter.params);
        let asked = [(ours, &filter.ids[0]), (theirs, &filter.ids[1])];
        let [found, expected] = asked.map(|(rpc, id)| rpc.try_call("eth_getFilterLogs", json!([id])));
        match (found, expected) {
            (Err(found), Err(expected)) => assert_eq!(found, expected),
            (found, expected) => assert_eq!(found.expect("logs"), expected.expect("logs"), "{}", filter.params),
        }
        for expected in [true, false] {
            let removed = asked.map(|(rpc, id)| rpc.call("eth_uninstallFilter", json!([id])));
            assert_eq!(removed, [json!(expected), json!(expected)]);
        }
        let gone = asked.map(|(rpc, id)| rpc.try_call("eth_getFilterChanges", json!([id])).expect_err("it is removed"));
        assert_eq!(gone[0], gone[1]);
    }
    for criteria in [
        json!({"fromBlock": "0x5", "toBlock": "0x4"}),
        json!({"toBlock": "0x4"}),
        json!({"fromBlock": "pending"}),
        json!({"fromBlock": "safe"}),
        json!({"topics": [null, null, null, null, null]}),
        json!({"address": "0x12"}),
    ] {
        pair.same("eth_newFilter", &json!([criteria])).expect_err("it is no filter");
    }
    pair.sequencer.stop();
}

/// A filter is asked for on connections that end at other shards than the one that has it.
#[test]
fn a_filter_can_be_polled_on_every_connection() {
    let _turn = super::turn();
    let settings = ["--http.shards", "3", "--tuning.pin", "off", "--block.interval-ms", "100"];
    let sequencer = Sequencer::start_in(TempFolder::new("shards"), FORK, &settings);
    let url = sequencer.rpc.url().to_owned();
    // The first shard answers a moment before the others listen.
    let mut shards = BTreeSet::new();
    poll_until("every shard to be reached", LIMIT, || {
        let id = Rpc::new(&url).call("eth_newBlockFilter", json!([]));
        shards.insert(id.as_str().expect("text")[..6].to_owned());
        (shards.len() == 3).then_some(())
    });
    // Each client has its own connection; the kernel gives it to any shard.
    let clients: Vec<Rpc> = (0..24).map(|_| Rpc::new(&url)).collect();
    let made: Vec<[Value; 2]> = clients
        .iter()
        .map(|rpc| [rpc.call("eth_newBlockFilter", json!([])), rpc.call("eth_newPendingTransactionFilter", json!([]))])
        .collect();
    let shards: BTreeSet<&str> = made.iter().map(|ids| &ids[0].as_str().expect("text")[..6]).collect();
    assert!(shards.len() > 1, "all connections ended at one shard: {shards:?}");
    let mut sender = Account::new(DEV_KEYS[0]);
    let hashes: Vec<Value> =
        (0..3).map(|_| sequencer.rpc.call("eth_sendRawTransaction", json!([transfer(&mut sender, 1)]))).collect();
    poll_until("mined", LIMIT, || {
        let receipt = sequencer.rpc.call("eth_getTransactionReceipt", json!([hashes[2]]));
        (!receipt.is_null()).then_some(())
    });
    let latest = sequencer.rpc.quantity("eth_blockNumber", json!([]));
    let blocks: Vec<Value> = (1..=latest)
        .map(|number| {
            let block = sequencer.rpc.call("eth_getBlockByNumber", json!([format!("{number:#x}"), false]));
            block["hash"].clone()
        })
        .collect();
    for (index, [of_blocks, of_transactions]) in made.iter().enumerate() {
        // Polled where it was not made, then on yet another connection, where nothing is left.
        let (first, second) = (&clients[(index + 7) % clients.len()], &clients[(index + 13) % clients.len()]);
        let told = first.call("eth_getFilterChanges", json!([of_blocks]));
        assert_eq!(told.as_array().expect("a list")[..blocks.len()], blocks[..]);
        assert_eq!(first.call("eth_getFilterChanges", json!([of_transactions])), json!(hashes));
        assert_eq!(second.call("eth_getFilterChanges", json!([of_transactions])), json!([]));
        assert_eq!(second.call("eth_uninstallFilter", json!([of_transactions])), json!(true));
        assert_eq!(first.call("eth_uninstallFilter", json!([of_transactions])), json!(false));
    }
    // The limit is a connection's.
    let greedy = Rpc::new(&url);
    let answers = greedy.batch("eth_newBlockFilter", (0..101).map(|_| json!([])));
    let refused: Vec<&RpcError> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(refused.len() == 1 && refused[0].code == -32_005, "{refused:?}");
    Rpc::new(&url).call("eth_newBlockFilter", json!([]));
    sequencer.stop();
}

fn transfer(sender: &mut Account, value: u64) -> Bytes {
    sender.sign(|nonce| TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 3_000_000_000,
        max_priority_fee_per_gas: 1_000_000,
        to: TxKind::Call(Address::repeat_byte(9)),
        value: U256::from(value),
        access_list: AccessList::default(),
        input: Bytes::new(),
    })
}

/// A random program: accounts and slots touched in every way, on the way out of gas or not, and how it ends.
fn program(rng: &mut StdRng, accounts: &[Address]) -> Bytes {
    let mut code = Vec::new();
    let push_account = |rng: &mut StdRng, code: &mut Vec<u8>| {
        code.push(0x73);
        code.extend_from_slice(accounts[rng.random_range(0..accounts.len())].as_slice());
    };
    for _ in 0..rng.random_range(1..12) {
        match rng.random_range(0..9) {
            0 => code.extend_from_slice(&[0x60, rng.random_range(0..4), 0x54, 0x50]),
            1 => code.extend_from_slice(&[0x60, rng.random_range(0..3), 0x60, rng.random_range(0..4), 0x55]),
            // BALANCE, EXTCODESIZE, EXTCODEHASH.
            kind @ 2..=4 => {
                push_account(rng, &mut code);
                code.extend_from_slice(&[[0x31, 0x3b, 0x3f][kind - 2], 0x50]);
            }
            // CALL and CALLCODE, then DELEGATECALL and STATICCALL, with 50,000 gas and no data.
            kind @ 5..=6 => {
                code.extend_from_slice(&[0x5f, 0x5f, 0x5f, 0x5f, 0x5f]);
                push_account(rng, &mut code);
                code.extend_from_slice(&[0x61, 0xc3, 0x50, [0xf1, 0xf2][kind - 5], 0x50]);
            }
            kind => {
                code.extend_from_slice(&[0x5f, 0x5f, 0x5f, 0x5f]);
                push_account(rng, &mut code);
                code.extend_from_slice(&[0x61, 0xc3, 0x50, [0xf4, 0xfa][kind - 7], 0x50]);
            }
        }
    }
    match rng.random_range(0..6) {
        // REVERT, an invalid opcode, an underflow, SELFDESTRUCT.
        0 => code.extend_from_slice(&[0x5f, 0x5f, 0xfd]),
        1 => code.push(0xfe),
        2 => code.push(0x50),
        3 => {
            push_account(rng, &mut code);
            code.push(0xff);
        }
        // A slot that depends on how much gas is left, and so on the list: SLOAD(GAS >> 14).
        4 => code.extend_from_slice(&[0x5a, 0x60, 14, 0x1c, 0x54]),
        _ => code.push(0x00),
    }
    code.into()
}

/// As [`Pair::same`]; of the text that says why an execution failed, theirs may go on with numbers (`stack underflow (0 <=> 1)`).
#[track_caller]
fn same_list(pair: &Pair, params: &Value) -> Result<Value, RpcError> {
    let [ours, theirs] = pair.both().map(|rpc| rpc.try_call("eth_createAccessList", params.clone()));
    match (&ours, &theirs) {
        (Ok(found), Ok(expected)) => {
            let parts = |value: &Value| (value["accessList"].clone(), value["gasUsed"].clone());
            assert_eq!(parts(found), parts(expected), "{params}");
            let [found, expected] = [found, expected].map(|value| value["error"].as_str().unwrap_or_default());
            let is_same = expected.starts_with(found) && found.is_empty() == expected.is_empty();
            assert!(is_same, "{params}: {found} here, {expected} there");
        }
        (Err(found), Err(expected)) => assert_eq!(found.code, expected.code, "{params}: {found:?}, {expected:?}"),
        _ => panic!("{params}: {ours:?} here, {theirs:?} there"),
    }
    ours
}

#[test]
fn access_lists_equal_go_ethereums() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "access_lists_equal_go_ethereums") else { return };
    let _turn = super::turn();
    let pair = Pair::start(&binary);
    let mut workload = Workload::new(22);
    let contract = workload.contract_address;
    pair.mine(&[workload.deploy()]);
    pair.mine(&workload.round());
    let from = Account::new(DEV_KEYS[0]).address;
    let selector = |signature: &str| Bytes::copy_from_slice(&alloy_primitives::keccak256(signature)[..4]);
    let call = |signature: &str| json!({"from": from, "to": contract, "input": selector(signature)});
    let with = |mut request: Value, name: &str, value: Value| {
        request[name] = value;
        request
    };
    let stale = json!([
        {"address": contract, "storageKeys": [format!("{:#066x}", 99)]},
        {"address": Address::repeat_byte(8), "storageKeys": []},
        {"address": from, "storageKeys": [format!("{:#066x}", 1)]},
    ]);
    let poor = Address::repeat_byte(0x44);
    let mut rows = vec![
        (json!({"from": from, "to": Address::repeat_byte(7), "value": "0x1"}), true),
        (call("increment()"), true),
        (call("spawn()"), true),
        (call("fail()"), true),
        (call("value()"), true),
        (with(call("increment()"), "accessList", stale), true),
        (with(call("increment()"), "gasPrice", json!("0x77359400")), true),
        (with(call("increment()"), "maxPriorityFeePerGas", json!("0x1")), true),
        (with(call("increment()"), "gas", json!("0xc350")), true),
        // Out of gas in the middle; less than the transaction costs at all; no price; a poor sender.
        (with(call("increment()"), "gas", json!("0x6500")), true),
        (with(call("increment()"), "gas", json!("0x5000")), false),
        (with(call("increment()"), "gasPrice", json!("0x0")), false),
        (json!({"from": poor, "to": contract}), false),
        (json!({"from": from, "input": hex::encode_prefixed(hex!("5f5460015560206000f3"))}), true),
        (
            json!({"from": from, "input": hex::encode_prefixed(hex!("60015f5530315073000000000000000000000000000000000000dead3150"))}),
            true,
        ),
    ];
    let authorization = json!([{"chainId": "0x0", "address": contract, "nonce": "0x0", "yParity": "0x0",
        "r": format!("{:#x}", U256::from(7)), "s": format!("{:#x}", U256::from(9))}]);
    rows.push((with(call("increment()"), "authorizationList", authorization), true));
    for (request, succeeds) in &rows {
        for block in [json!("latest"), json!("0x1"), json!({"blockNumber": "0x1"})] {
            let outcome = same_list(&pair, &json!([request, block]));
            assert_eq!(outcome.is_ok(), *succeeds, "{request}: {outcome:?}");
        }
    }
    check_programs(&pair, from, contract);
    pair.sequencer.stop();
}

/// Random programs in the place of two accounts' code, one calling the other.
#[track_caller]
fn check_programs(pair: &Pair, from: Address, contract: Address) {
    let accounts: Vec<Address> =
        [from, contract, Address::repeat_byte(0xc0), Address::repeat_byte(0xc1), Address::repeat_byte(0x44)]
            .into_iter()
            .chain([Address::with_last_byte(1), Address::with_last_byte(0x11), Address::left_padding_from(&[1, 0])])
            .collect();
    let (mut failed, mut listed) = (0, 0);
    for seed in 0..PROGRAMS {
        let mut rng = StdRng::seed_from_u64(seed);
        let (first, second) = (program(&mut rng, &accounts), program(&mut rng, &accounts));
        let overrides = json!({accounts[2].to_string(): {"code": first}, accounts[3].to_string(): {"code": second}});
        let request =
            json!({"from": from, "to": accounts[2], "gas": format!("{:#x}", rng.random_range(30_000..300_000))});
        let found = same_list(pair, &json!([request, "latest", overrides]));
        let found = found.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        failed += usize::from(found.get("error").is_some());
        listed += found["accessList"].as_array().expect("a list").len();
    }
    println!("{PROGRAMS} programs, {failed} of them fail, {listed} accounts listed");
    assert!(failed > 5 && failed < PROGRAMS as usize - 5 && listed > PROGRAMS as usize);
}

/// Signed transactions of several senders, with gaps: sender, nonces in the order of sending.
fn with_gaps() -> Vec<Bytes> {
    let mut raw = Vec::new();
    let mut sign_at = |key: usize, nonces: &[u64]| {
        for &wanted in nonces {
            let mut account = Account::new(DEV_KEYS[key]);
            let value = U256::from(1_000_003 * wanted + key as u64);
            raw.push(account.sign(|_| TxEip1559 {
                chain_id: CHAIN_ID,
                nonce: wanted,
                gas_limit: 50_000 + wanted,
                max_fee_per_gas: 3_000_000_000 + u128::from(wanted),
                max_priority_fee_per_gas: 1_000_000_000,
                to: TxKind::Call(Address::repeat_byte(0xab)),
                value,
                access_list: AccessList::default(),
                input: Bytes::from(vec![wanted as u8; 3]),
            }));
        }
    };
    sign_at(0, &[0, 1, 3, 4, 7]);
    sign_at(1, &[5]);
    sign_at(2, &[2, 1, 0]);
    for (key, nonce, to) in [(3, 0, TxKind::Create), (4, 10, TxKind::Call(Address::ZERO))] {
        raw.push(Account::new(DEV_KEYS[key]).sign(|_| TxLegacy {
            chain_id: Some(CHAIN_ID),
            nonce,
            gas_price: 2_000_000_000,
            gas_limit: 100_000,
            to,
            value: U256::from(5),
            input: Bytes::from_static(&[0x5f, 0x5f, 0xf3]),
        }));
    }
    raw
}

#[test]
fn a_pool_with_gaps_is_shown_as_go_ethereum_shows_it() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "a_pool_with_gaps_is_shown_as_go_ethereum_shows_it") else {
        return;
    };
    let _turn = super::turn();
    let geth = Geth::start(&binary, &genesis(FORK));
    let settings = ["--builder.execute", "false"];
    let sequencer = Sequencer::start_in(TempFolder::new("gaps"), FORK, &settings);
    let pair = Pair { sequencer, geth };
    let senders: Vec<Address> = DEV_KEYS.into_iter().map(|key| Account::new(key).address).collect();
    let raw = with_gaps();
    send_to_both(&pair, &raw);
    check_pools(&pair, &senders, &raw);
    let status = pair.sequencer.rpc.call("txpool_status", json!([]));
    assert_eq!(status, json!({"pending": "0x6", "queued": "0x5"}));
    // The gap of the first sender is filled: 0 to 4 are ready, 7 still waits.
    let filling = Account::new(DEV_KEYS[0]).sign(|_| TxLegacy {
        chain_id: Some(CHAIN_ID),
        nonce: 2,
        gas_price: 3_000_000_000,
        gas_limit: 21_000,
        to: TxKind::Call(senders[1]),
        value: U256::from(1),
        input: Bytes::new(),
    });
    send_to_both(&pair, std::slice::from_ref(&filling));
    check_pools(&pair, &senders, &raw);
    let counts =
        senders.iter().map(|sender| pair.sequencer.rpc.quantity("eth_getTransactionCount", json!([sender, "pending"])));
    assert_eq!(counts.take(5).collect::<Vec<_>>(), [5, 0, 3, 1, 0]);
    pair.sequencer.stop();
}

#[track_caller]
fn send_to_both(pair: &Pair, raw: &[Bytes]) {
    for raw in raw {
        let hash = pair.same("eth_sendRawTransaction", &json!([raw])).expect("accepted");
        assert_eq!(hash, json!(alloy_primitives::keccak256(raw)));
    }
}

/// Every view of the pool, and of nonces and balances beside it.
#[track_caller]
fn check_pools(pair: &Pair, senders: &[Address], raw: &[Bytes]) {
    poll_until("go-ethereum to sort its pool", LIMIT, || {
        let [ours, theirs] = pair.both().map(|rpc| rpc.call("txpool_status", json!([])));
        (ours == theirs).then_some(())
    });
    for method in ["txpool_status", "txpool_content", "txpool_inspect"] {
        pair.same(method, &json!([])).expect("it is on");
    }
    for sender in senders {
        pair.same("txpool_contentFrom", &json!([sender])).expect("it is on");
        for tag in ["latest", "pending"] {
            pair.same("eth_getTransactionCount", &json!([sender, tag])).expect("a nonce");
        }
        pair.same("eth_getBalance", &json!([sender, "latest"])).expect("a balance");
    }
    for raw in raw {
        let hash = json!([alloy_primitives::keccak256(raw)]);
        let found = pair.same("eth_getTransactionByHash", &hash).expect("pooled");
        assert_eq!(found["blockHash"], Value::Null);
        pair.same("eth_getRawTransactionByHash", &hash).expect("pooled");
        // go-ethereum indexes nothing while it has no block, and says so.
        assert_eq!(pair.sequencer.rpc.call("eth_getTransactionReceipt", hash), Value::Null);
    }
}

/// What executes as it comes: the gap waits, is named, and everything behind it is placed when it is filled.
#[test]
fn behind_a_gap_nothing_is_placed_until_it_is_filled() {
    let _turn = super::turn();
    let sequencer = Sequencer::start_in(TempFolder::new("gap"), FORK, &["--block.interval-ms", "100"]);
    let rpc = &sequencer.rpc;
    let at = |nonce: u64| {
        Account::new(DEV_KEYS[0]).sign(|_| TxLegacy {
            chain_id: Some(CHAIN_ID),
            nonce,
            gas_price: 3_000_000_000,
            gas_limit: 21_000,
            to: TxKind::Call(Address::repeat_byte(1)),
            value: U256::from(1),
            input: Bytes::new(),
        })
    };
    let sender = Account::new(DEV_KEYS[0]).address;
    let count = |tag: &str| rpc.quantity("eth_getTransactionCount", json!([sender, tag]));
    let state = |hash: &Value| rpc.call("sequencer_getTransactionStatus", json!([hash]))["state"].clone();
    let first = rpc.call("eth_sendRawTransaction", json!([at(0)]));
    let behind: Vec<Value> = [2, 3].map(|nonce| rpc.call("eth_sendRawTransaction", json!([at(nonce)]))).to_vec();
    poll_until("the first mined", LIMIT, || (count("latest") == 1).then_some(()));
    assert_eq!(count("pending"), 1, "what waits behind the gap does not count");
    assert!(["sealed", "safe", "finalized"].contains(&state(&first).as_str().expect("text")));
    for hash in &behind {
        assert_eq!(state(hash), "queued");
        let shown = rpc.call("eth_getTransactionByHash", json!([hash]));
        assert_eq!((&shown["blockNumber"], &shown["from"]), (&Value::Null, &json!(format!("{sender:?}"))));
    }
    assert_eq!(rpc.call("txpool_status", json!([])), json!({"pending": "0x0", "queued": "0x2"}));
    let waiting = rpc.try_call("eth_sendRawTransactionSync", json!([at(5)])).expect_err("a gap before it");
    assert_eq!(waiting.code, 6);
    let content = rpc.call("txpool_contentFrom", json!([sender]));
    let queued: Vec<&str> = content["queued"].as_object().expect("by nonce").keys().map(String::as_str).collect();
    assert_eq!((queued, &content["pending"]), (vec!["2", "3", "5"], &json!({})));
    rpc.call("eth_sendRawTransaction", json!([at(1)]));
    poll_until("the rest mined", LIMIT, || (count("latest") == 4).then_some(()));
    assert_eq!((count("pending"), quantity(&rpc.call("txpool_status", json!([]))["queued"])), (4, 1));
    let twice = rpc.try_call("eth_sendRawTransaction", json!([at(1)])).expect_err("it is mined");
    assert!(twice.code == -32_000, "{twice:?}");
    sequencer.stop();
}
