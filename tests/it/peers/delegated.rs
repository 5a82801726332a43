//! `delegated` with a real go-ethereum: it builds what we order, and both sides have the same chain, whoever is killed.

use std::path::Path;
use std::time::Duration;

use alloy_consensus::{TxEip1559, TxEip7702};
use alloy_primitives::{Address, Bytes, TxKind, U256, hex};
use serde_json::{Value, json};

use super::faulty_engine::{FaultyEngine, WrongAnswer};
use super::geth::{Geth, Scheme};
use super::process::{TempFolder, poll_until};
use super::sequencer::{data_of, genesis};
use super::verified::{Middles, Pair, WRONG_ANSWERS};
use super::workload::{Account, DEV_KEYS};

const FORK: &str = "osaka";
const LIMIT: Duration = Duration::from_secs(60);
const CHAIN_ID: u64 = 61_972;

#[test]
fn thirty_blocks_have_the_same_hash_on_both_sides() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "thirty_blocks_have_the_same_hash_on_both_sides") else { return };
    let _turn = super::turn();
    let mut pair = Pair::start_in_mode(Geth::start(&binary, &genesis(FORK)), 31, "delegated");
    pair.settles();
    assert_eq!(pair.ready_status(), 200);
    while pair.latest() < 31 {
        pair.send_round();
        pair.settles();
    }
    let latest = pair.latest();
    let tags = || (1..=latest).map(|number| json!([format!("{number:#x}")]));
    let (ours, theirs) =
        (pair.rpc().batch("eth_getBlockReceipts", tags()), pair.geth.rpc.batch("eth_getBlockReceipts", tags()));
    for (number, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert_eq!(ours.as_ref().expect("receipts"), theirs.as_ref().expect("receipts"), "block {}", number + 1);
    }
    check_reads(&pair);
    println!("{latest} blocks, {} transactions: same hashes and receipts", pair.sent);
    let folder = pair.sequencer.take().expect("it runs").stop();
    assert!(!data_of(&folder).join("state").exists(), "there are state files");
    // Its own blocks are read again, and it goes on.
    pair.start_sequencer(folder);
    assert_eq!(pair.latest(), latest);
    pair.send_round();
    pair.settles();
    pair.sequencer.take().expect("it runs").stop();
}

/// What reads state is the client's answer; what cannot be without a state of ours says so.
#[track_caller]
fn check_reads(pair: &Pair) {
    let sender = Account::new(DEV_KEYS[0]).address;
    let contract = pair.workload.contract_address;
    for (method, params) in [
        ("eth_getBalance", json!([sender, "latest"])),
        ("eth_getTransactionCount", json!([sender, "latest"])),
        ("eth_getCode", json!([contract, "latest"])),
        ("eth_getStorageAt", json!([contract, "0x0", "latest"])),
        ("eth_getProof", json!([sender, ["0x0"], "latest"])),
        ("eth_call", json!([{"to": contract, "data": "0x"}, "latest"])),
        ("eth_createAccessList", json!([{"from": sender, "to": contract, "data": "0x"}, "latest"])),
        ("eth_estimateGas", json!([{"from": sender, "to": sender, "value": "0x1"}])),
    ] {
        let (ours, theirs) = (pair.rpc().try_call(method, params.clone()), pair.geth.rpc.try_call(method, params));
        assert_eq!(ours, theirs, "{method}");
    }
    let nonce = pair.rpc().call("eth_getTransactionCount", json!([sender, "latest"]));
    assert_eq!(pair.rpc().call("eth_getTransactionCount", json!([sender, "pending"])), nonce);
    let error = pair.rpc().try_call("debug_generateWitness", json!(["0x02"])).expect_err("there is no state");
    assert_eq!(error.code, -32003, "{error:?}");
    let raw = transfer(&mut Account::new([7; 32]), Address::ZERO, 1_000_000);
    let conditional = json!([raw, {"blockNumberMax": "0xffff"}]);
    let error = pair.rpc().try_call("eth_sendRawTransactionConditional", conditional).expect_err("unsupported");
    assert!(error.code == -32003 && error.message.contains("unsupported in delegated"), "{error:?}");
}

fn transfer(account: &mut Account, to: Address, tip_wei: u128) -> Bytes {
    account.sign(|nonce| TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 10_000_000_000,
        max_priority_fee_per_gas: tip_wei,
        to: to.into(),
        value: U256::from(1u64),
        access_list: Default::default(),
        input: Bytes::new(),
    })
}

#[test]
fn a_killed_client_and_a_killed_sequencer_lose_nothing() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "a_killed_client_and_a_killed_sequencer_lose_nothing") else {
        return;
    };
    let _turn = super::turn();
    let mut pair = Pair::start_in_mode(Geth::start(&binary, &genesis(FORK)), 32, "delegated");
    for _ in 0..3 {
        pair.send_round();
        pair.settles();
    }
    // Acknowledged, and then the client is gone.
    pair.send_round();
    pair.geth.kill();
    std::thread::sleep(Duration::from_secs(2));
    pair.send_round();
    assert_eq!(pair.ready_status(), 503);
    pair.geth.restart();
    pair.settles();
    pair.wait_for_state("ready");

    // An empty database is fed from our blocks, and builds on them.
    let latest = pair.latest();
    pair.geth.wipe();
    pair.geth.restart();
    pair.send_round();
    pair.settles();
    assert!(pair.latest() > latest);

    // We are killed while it builds.
    for _ in 0..3 {
        pair.send_round();
        std::thread::sleep(Duration::from_millis(170));
        let folder = pair.sequencer.take().expect("it runs").kill();
        pair.start_sequencer(folder);
        pair.settles();
    }

    // Our data directory is lost: the client's blocks are read back, executed over their witnesses, and built on.
    let (latest, sent) = (pair.latest(), pair.sent);
    drop(pair.sequencer.take().expect("it runs").stop());
    pair.start_sequencer(TempFolder::new("read-back"));
    assert_eq!((pair.latest(), pair.mined()), (latest, sent));
    pair.send_round();
    pair.settles();
    pair.sequencer.take().expect("it runs").stop();
}

/// The power goes on both machines a moment after blocks were shown: of our files only what was synced is left, and the client has an older database.
#[test]
fn what_was_shown_outlives_a_power_cut_on_both_sides() {
    let name = "what_was_shown_outlives_a_power_cut_on_both_sides";
    let Some(binary) = super::peer("SEQUENCER_GETH", name) else { return };
    let _turn = super::turn();
    let mut pair = Pair::start_in_mode(Geth::start(&binary, &genesis(FORK)), 38, "delegated");
    pair.settles();
    pair.geth.keep_database();
    for _ in 0..3 {
        pair.send_round();
        pair.settles();
        let latest = pair.latest();
        let hash = |pair: &Pair| {
            pair.rpc().call("eth_getBlockByNumber", json!([format!("{latest:#x}"), false]))["hash"].clone()
        };
        let shown = hash(&pair);
        let folder = pair.sequencer.take().expect("it runs").kill();
        cut_power(&data_of(&folder).join("chain"));
        pair.geth.put_back_database();
        pair.geth.restart();
        pair.start_sequencer(folder);
        assert!(pair.latest() >= latest, "block {latest} was shown, the newest is {}", pair.latest());
        assert_eq!(hash(&pair), shown);
        pair.settles();
    }
    pair.sequencer.take().expect("it runs").stop();
}

/// Leaves of the files of blocks what the newest checkpoint says is synced (docs/CHAIN_FORMAT.md).
fn cut_power(chain: &Path) {
    let checkpoint = std::fs::read(chain.join("checkpoint")).expect("there is one");
    let number = |at: usize| u64::from_le_bytes(checkpoint[at..at + 8].try_into().expect("eight bytes"));
    let newest =
        [0, 4_096].into_iter().filter(|slot| slot + 64 <= checkpoint.len()).max_by_key(|slot| number(slot + 8));
    let slot = newest.expect("a slot");
    for (index, name) in ["headers", "bodies", "receipts"].into_iter().enumerate() {
        let file = std::fs::File::options().write(true).open(chain.join(name)).expect("it is ours");
        file.set_len(number(slot + 16 + 8 * index)).expect("it can be cut");
    }
}

/// 200 blocks that a client without an archive has made by itself, and nothing here: their witnesses cannot be had.
#[test]
fn a_client_without_the_states_that_are_needed_is_refused() {
    let name = "a_client_without_the_states_that_are_needed_is_refused";
    let Some(binary) = super::peer("SEQUENCER_GETH", name) else { return };
    let _turn = super::turn();
    let genesis = genesis(FORK);
    let geth = Geth::start_with(&binary, &genesis, Scheme::Path);
    let first = u64::from_str_radix(genesis["timestamp"].as_str().expect("hex").trim_start_matches("0x"), 16);
    let first = first.expect("hex");
    (1..=200).for_each(|offset| drop(geth.commit_block(first + offset)));
    let pair = Pair::new(geth, 39, "delegated", Middles::default());
    let said = pair.start_refused(&TempFolder::new("no-archive"));
    let kept = said.split("has the states after block ").nth(1).and_then(|rest| rest.split(' ').next());
    let kept: u64 = kept.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no number: {said}"));
    assert!((2..200).contains(&kept), "{said}");
    assert!(said.contains("is needed") && said.contains("--state.scheme hash --gcmode archive"), "{said}");
}

/// How long a fault lasts.
fn fault() -> Duration {
    Duration::from_secs(if super::is_long() { 600 } else { 15 })
}

/// Its ports refuse connections; it is frozen; it comes back with an older database.
#[test]
fn a_client_that_is_away_holds_admission_and_is_caught_up() {
    let name = "a_client_that_is_away_holds_admission_and_is_caught_up";
    let Some(binary) = super::peer("SEQUENCER_GETH", name) else { return };
    let _turn = super::turn();
    let mut pair = Pair::start_in_mode(Geth::start(&binary, &genesis(FORK)), 35, "delegated");
    pair.settles();
    pair.geth.keep_database();
    pair.send_round();
    pair.settles();

    pair.geth.kill();
    pair.holds_admission(fault());
    assert_eq!(pair.status()["state"], "unreachable");
    pair.geth.restart();
    pair.settles();
    pair.wait_for_state("ready");

    pair.geth.freeze();
    pair.holds_admission(fault());
    pair.geth.thaw();
    pair.settles();
    pair.wait_for_state("ready");
    assert_eq!(pair.ready_status(), 200);

    let latest = pair.latest();
    pair.geth.put_back_database();
    pair.geth.restart();
    assert!(pair.geth.rpc.quantity("eth_blockNumber", json!([])) < latest, "the database is not older");
    pair.send_round();
    pair.settles();
    assert!(pair.latest() > latest);
    pair.sequencer.take().expect("it runs").stop();
}

fn middles(geth: &Geth) -> Middles {
    let start = |url: &str| Some(FaultyEngine::start(url.to_owned()));
    Middles { engine: start(&geth.engine_url()), plain: start(geth.rpc.url()) }
}

/// Each for the fault's time, beside the others, with a client of its own.
#[test]
fn wrong_answers_hold_admission_and_pass() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "wrong_answers_hold_admission_and_pass") else { return };
    let _turn = super::turn();
    std::thread::scope(|scope| {
        for (seed, (wrong, why)) in (350..).zip(WRONG_ANSWERS) {
            let binary = &binary;
            scope.spawn(move || {
                let geth = Geth::start(binary, &genesis(FORK));
                let middles = middles(&geth);
                let mut pair = Pair::start_through(geth, seed, "delegated", middles);
                // All senders are known to us: what is refused is so for the client's sake.
                pair.send_round();
                pair.settles();
                pair.middles.answer(wrong);
                pair.send_round();
                pair.wait_for_reason(why);
                pair.holds_admission(fault());
                pair.middles.answer(WrongAnswer::None);
                pair.settles();
                pair.wait_for_state("ready");
                assert_eq!(pair.ready_status(), 200, "{wrong:?}");
                pair.sequencer.take().expect("it runs").stop();
            });
        }
    });
}

/// The block is in nobody's chain; the halt stays until the operator has said how to go on, and then nothing is lost.
#[test]
fn an_invalid_block_of_the_client_halts_until_it_is_answered() {
    let name = "an_invalid_block_of_the_client_halts_until_it_is_answered";
    let Some(binary) = super::peer("SEQUENCER_GETH", name) else { return };
    let _turn = super::turn();
    let geth = Geth::start(&binary, &genesis(FORK));
    let middles = middles(&geth);
    let mut pair = Pair::start_through(geth, 37, "delegated", middles);
    pair.send_round();
    pair.settles();
    pair.middles.answer(WrongAnswer::Invalid);
    pair.send_round();
    pair.wait_for_state("halted");
    let reason = pair.status()["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.contains("says INVALID to block") && reason.ends_with("which it built: by the test"), "{reason}");
    let latest = pair.latest();
    check_halted(&pair, latest);
    let folder = pair.sequencer.take().expect("it runs").stop();

    let evidence = data_of(&folder).join("evidence");
    let entries: Vec<_> =
        std::fs::read_dir(&evidence).expect("a folder").map(|entry| entry.expect("one").path()).collect();
    let [dir] = entries.as_slice() else { panic!("one block is accused: {entries:?}") };
    assert_eq!(std::fs::read_to_string(dir.join("verdict.txt")).expect("the verdict"), reason);
    let request = std::fs::read(dir.join("request.json")).expect("the request");
    let request: Value = serde_json::from_slice(&request).expect("it is JSON");
    assert_eq!(request[0]["blockNumber"], json!(format!("{:#x}", latest + 1)));

    // A client that answers well again is no reason to go on.
    pair.middles.answer(WrongAnswer::None);
    pair.start_sequencer(folder);
    check_halted(&pair, latest);
    assert_eq!(pair.status()["reason"], json!(reason));
    let folder = pair.sequencer.take().expect("it runs").stop();
    let said = rollback(&folder, latest, &[]);
    assert!(said.contains("was never taken") && said.contains("nothing was changed"), "{said}");
    pair.start_sequencer(folder);
    check_halted(&pair, latest);
    let folder = pair.sequencer.take().expect("it runs").stop();
    rollback(&folder, latest, &["--yes"]);
    pair.start_sequencer(folder);
    pair.settles();
    pair.wait_for_state("ready");
    pair.send_round();
    pair.settles();
    pair.sequencer.take().expect("it runs").stop();
}

/// Reads go on, and nothing else does.
#[track_caller]
fn check_halted(pair: &Pair, latest: u64) {
    assert_eq!(pair.status()["state"], "halted");
    assert_eq!(pair.ready_status(), 503);
    let raw = transfer(&mut Account::new(DEV_KEYS[0]), Address::ZERO, 1_000_000);
    let error = pair.rpc().try_call("eth_sendRawTransaction", json!([raw])).expect_err("it is halted");
    assert!(error.code == -32005 && error.message.starts_with("halted"), "{error:?}");
    assert_eq!(pair.latest(), latest);
    let block = json!([format!("{latest:#x}"), true]);
    assert!(pair.rpc().call("eth_getBlockByNumber", block)["hash"].is_string());
}

/// `sequencer journal rollback`: what it says.
#[track_caller]
fn rollback(folder: &TempFolder, to_block: u64, more: &[&str]) -> String {
    let mut command = super::sequencer::command();
    command.args(["journal", "rollback", "--to-block", &to_block.to_string()]).args(more);
    let output = command.arg("--data-dir").arg(data_of(folder)).output().expect("our binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// As op-node has it: our transactions go to the client's pool, and it builds of what is there.
#[test]
fn a_client_that_takes_no_list_builds_of_its_pool() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "a_client_that_takes_no_list_builds_of_its_pool") else { return };
    let _turn = super::turn();
    let geth = Geth::start_without_testing(&binary, &genesis(FORK));
    let mut pair = Pair::start_in_mode(geth, 34, "delegated");
    pair.settles();
    let mut accounts: Vec<Account> = DEV_KEYS.into_iter().map(Account::new).collect();
    let mut hashes = Vec::new();
    for round in 0..6 {
        let raws: Vec<Bytes> =
            (2..8).map(|index| transfer(&mut accounts[index], Address::repeat_byte(0x21), 2_000_000)).collect();
        hashes.extend(send(&pair, &raws));
        // Somebody else sends to the client.
        let foreign = transfer(&mut accounts[8], Address::repeat_byte(0x22 + round), 2_000_000);
        hashes.push(pair.geth.rpc.call("eth_sendRawTransaction", json!([foreign])));
        wait_for_receipt(&pair, hashes.last().expect("one was sent"));
    }
    for hash in &hashes {
        wait_for_receipt(&pair, hash);
    }
    pair.same_chain();
    let log = pair.sequencer.as_ref().expect("it runs").log_text();
    assert!(log.contains("lacks testing_buildBlockV1"), "{log}");
    let latest = pair.latest();
    let folder = pair.sequencer.take().expect("it runs").stop();
    pair.start_sequencer(folder);
    assert_eq!(pair.latest(), latest);
    pair.sequencer.take().expect("it runs").stop();
}

/// A delegated account whose code gives everything to whoever calls it: what it sends itself is valid until then.
#[test]
fn what_the_client_cannot_place_ends_with_its_reason() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "what_the_client_cannot_place_ends_with_its_reason") else {
        return;
    };
    let _turn = super::turn();
    let mut pair = Pair::start_in_mode(Geth::start(&binary, &genesis(FORK)), 33, "delegated");
    pair.settles();
    let mut accounts: Vec<Account> = DEV_KEYS.into_iter().map(Account::new).collect();
    let mut giver = Account::new([9; 32]);
    // CALL(GAS, CALLER, SELFBALANCE, …)
    let init = hex!("68 5f5f5f5f47335af100 5f 52 6009 6017 f3");
    let create = accounts[1].sign(|nonce| TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 200_000,
        max_fee_per_gas: 10_000_000_000,
        max_priority_fee_per_gas: 1_000_000,
        to: TxKind::Create,
        value: U256::ZERO,
        access_list: Default::default(),
        input: init.into(),
    });
    let code = accounts[1].address.create(0);
    let fund = accounts[1].sign(|nonce| TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 10_000_000_000,
        max_priority_fee_per_gas: 1_000_000,
        to: giver.address.into(),
        value: U256::from(1_000_000_000_000_000_000u64),
        access_list: Default::default(),
        input: Bytes::new(),
    });
    let authorization = giver.authorize(code, CHAIN_ID, 0);
    let delegate = accounts[1].sign(|nonce| TxEip7702 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 200_000,
        max_fee_per_gas: 10_000_000_000,
        max_priority_fee_per_gas: 1_000_000,
        to: Address::repeat_byte(0x11),
        value: U256::ZERO,
        access_list: Default::default(),
        authorization_list: vec![authorization],
        input: Bytes::new(),
    });
    let hashes = send(&pair, &[create, fund, delegate]);
    wait_for_receipt(&pair, &hashes[2]);
    assert_eq!(pair.rpc().call("eth_getTransactionCount", json!([giver.address, "latest"])), "0x1");

    // Its own transfer is valid at the head; the call that is placed before it takes the money.
    giver.sign(|nonce| TxEip1559 { nonce, ..TxEip1559::default() });
    let own = transfer(&mut giver, Address::repeat_byte(0x12), 1_000_000);
    let taker = transfer(&mut accounts[2], giver.address, 5_000_000_000);
    let hashes = send(&pair, &[own, taker]);
    wait_for_receipt(&pair, &hashes[1]);
    let status = poll_until("the end to be told", LIMIT, || {
        let status = pair.rpc().call("sequencer_getTransactionStatus", json!([hashes[0]]));
        (status["state"] == "invalidated").then_some(status)
    });
    assert!(status["reason"].as_str().is_some_and(|reason| reason.contains("insufficient funds")), "{status}");
    assert_eq!(pair.rpc().call("eth_getTransactionReceipt", json!([hashes[0]])), Value::Null);
    check_waiting_call(&pair, &mut accounts[3]);
    pair.same_chain();
    pair.sequencer.take().expect("it runs").stop();
}

/// Who waits for the receipt gets it with the block, which is `latest` on both sides.
#[track_caller]
fn check_waiting_call(pair: &Pair, account: &mut Account) {
    let raw = transfer(account, Address::repeat_byte(0x13), 1_000_000);
    let receipt = pair.rpc().call("eth_sendRawTransactionSync", json!([raw, "0x2710"]));
    let block = pair.geth.rpc.call("eth_getBlockByNumber", json!([receipt["blockNumber"], false]));
    assert_eq!(receipt["blockHash"], block["hash"], "{receipt}");
}

#[track_caller]
fn send(pair: &Pair, raws: &[Bytes]) -> Vec<Value> {
    let answers = pair.rpc().batch("eth_sendRawTransaction", raws.iter().map(|raw| json!([raw])));
    answers.into_iter().map(|answer| answer.expect("it is admitted")).collect()
}

#[track_caller]
fn wait_for_receipt(pair: &Pair, hash: &Value) {
    let receipt = poll_until("a receipt", LIMIT, || {
        Some(pair.rpc().call("eth_getTransactionReceipt", json!([hash]))).filter(|found| !found.is_null())
    });
    assert_eq!(receipt["status"], "0x1", "{receipt}");
}
