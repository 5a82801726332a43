//! An execution client, a strict development L1 and us between them: what the client has checked, or built, becomes safe and final, and the client hears of it.

use std::path::Path;
use std::time::Duration;

use alloy_primitives::{U256, keccak256};
use serde_json::{Value, json};

use super::faulty_engine::{FaultyEngine, WrongAnswer};
use super::follows::Follower;
use super::geth::{Geth, Scheme};
use super::process::{TempFolder, poll_until};
use super::rpc::quantity;
use super::settles::{L1, LIMIT, copy, number, settle};
use super::verified::{Middles, Pair};

/// Slots that are cleared and set again within a block.
const SLOTS: u64 = 64;
/// Who does: one, so that the order within a block is that of the nonces.
const SENDER: usize = 3;
/// Of an ExecuteTx: a block of a hundred transactions is cut into many segments.
const BATCH_BYTES_MAX: &str = "16384";

/// A client, and us in this mode, on a fresh L1.
fn start(l1: &L1, binary: &Path, mode: &'static str) -> Pair {
    let mut pair = prepare(l1, binary, mode);
    pair.start_sequencer(TempFolder::new("el-on-l1"));
    let deploy = pair.workload.deploy();
    pair.send(vec![deploy]);
    pair
}

/// As [`start`], before we are started.
fn prepare(l1: &L1, binary: &Path, mode: &'static str) -> Pair {
    prepare_through(l1, binary, mode, |_| Middles::default())
}

/// As [`prepare`], with what stands between us and the client.
fn prepare_through(l1: &L1, binary: &Path, mode: &'static str, middles: impl FnOnce(&Geth) -> Middles) -> Pair {
    let genesis = std::fs::read(&l1.genesis).expect("it is written");
    let genesis: Value = serde_json::from_slice(&genesis).expect("JSON");
    let geth = Geth::start(binary, &genesis);
    let middles = middles(&geth);
    let mut pair = Pair::new(geth, 61, mode, middles);
    let own = ["--genesis", &l1.genesis, "--settlement.batch-bytes-max", BATCH_BYTES_MAX, "--l1.origin-depth", "0"];
    let log = ["--log.level", "info,native_sequencer::settlement::jobs=debug"];
    pair.more = own.iter().chain(&log).map(|setting| (*setting).to_owned()).chain(l1.settings()).collect();
    pair
}

/// Slots are set; then, again and again in one block, every other one is cleared and set anew: at the end of such a block no branch has collapsed, between
/// its segments many have.
#[track_caller]
fn clear_and_set(pair: &mut Pair) {
    let raw = (0..SLOTS).map(|slot| pair.workload.store(SENDER, slot, 7)).collect();
    pair.send(raw);
    pair.settles();
    for round in 0..3 {
        let clear = (0..SLOTS).step_by(2).map(|slot| (slot, 0));
        let set = (0..SLOTS).step_by(2).map(|slot| (slot, 8 + round));
        let raw = clear.chain(set).map(|(slot, value)| pair.workload.store(SENDER, slot, value)).collect();
        pair.send(raw);
        pair.settles();
    }
}

/// Two slots of the contract whose keys begin with the same nine nibbles.
fn slots_that_lie_deep() -> [u64; 2] {
    let key = |slot: u64| keccak256(U256::from(slot).to_be_bytes::<32>());
    let nine = |slot: u64| u64::from_be_bytes(key(slot)[..8].try_into().expect("eight bytes")) >> 28;
    let mut keys: Vec<(u64, u64)> = (SLOTS..1 << 20).map(|slot| (nine(slot), slot)).collect();
    keys.sort_unstable();
    let pair = keys.windows(2).find(|pair| pair[0].0 == pair[1].0);
    pair.map(|pair| [pair[0].1, pair[1].1]).expect("a million keys have about eight pairs")
}

/// Between two segments one of a pair of slots is gone, and the other, which nobody touches, remains ten nibbles deep.
#[test]
fn a_slot_that_remains_ten_nibbles_deep_settles() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "a_slot_that_remains_ten_nibbles_deep_settles") else { return };
    let _turn = super::turn();
    let l1 = L1::start();
    let mut pair = start(&l1, &binary, "delegated");
    pair.settles();
    let [stays, goes] = slots_that_lie_deep();
    // A leaf with a small value that deep has less than 32 bytes, and stands in its branch.
    let large = 1 << 62;
    let raw = (0..SLOTS).chain([stays, goes]).map(|slot| pair.workload.store(SENDER, slot, large)).collect();
    pair.send(raw);
    pair.settles();
    for round in 0..2 {
        let clear = [goes].into_iter().chain((0..SLOTS).step_by(2)).map(|slot| (slot, 0));
        let set = (0..SLOTS).step_by(2).chain([goes]).map(|slot| (slot, large + round));
        let raw = clear.chain(set).map(|(slot, value)| pair.workload.store(SENDER, slot, value)).collect();
        pair.send(raw);
        pair.settles();
    }
    safe_on_both_sides(&pair);
    let log = pair.ours().log_text();
    assert!(log.contains("siblings from the execution client"), "{}", pair.ours().log_tail());
    assert!(log.contains("depth=10"), "{log}");
    pair.sequencer.take().expect("it runs").stop();
}

/// A client whose database holds nodes by path could not give such a slot: it is refused, at the start or when it comes, until it is another.
#[test]
fn a_client_by_path_does_not_do_where_blocks_settle() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "a_client_by_path_does_not_do_where_blocks_settle") else {
        return;
    };
    let _turn = super::turn();
    let l1 = L1::start();
    let mut pair = prepare(&l1, &binary, "delegated");
    pair.geth.wipe_to(Scheme::Path);
    pair.geth.restart();
    let folder = TempFolder::new("by-path");
    let said = pair.start_refused(&folder);
    let why = ["under the root of the state after block 0", "is needed there", "--state.scheme hash --gcmode archive"];
    assert!(why.iter().all(|part| said.contains(part)), "{said}");
    // It is away when we start, and then still the wrong one.
    pair.geth.kill();
    pair.start_sequencer(folder);
    pair.geth.restart();
    let deploy = pair.workload.deploy();
    pair.send(vec![deploy]);
    poll_until("admission", LIMIT, || {
        pair.send(Vec::new());
        (pair.sent == 1).then_some(())
    });
    pair.wait_for_reason("it builds no block: the execution client has nothing (debug_dbGet");
    assert_eq!(pair.ready_status(), 503);
    pair.geth.wipe_to(Scheme::HashArchive);
    pair.geth.restart();
    pair.settles();
    safe_on_both_sides(&pair);
    pair.sequencer.take().expect("it runs").stop();
}

#[track_caller]
fn wait_for_block(pair: &Pair, number: u64, hash: &Value) {
    poll_until(&format!("block {number} {hash}"), LIMIT, || {
        let block = pair.rpc().ask("eth_getBlockByNumber", json!([format!("{number:#x}"), false]))?.ok()?;
        (block["hash"] == *hash).then_some(())
    });
}

fn hash_of(pair: &Pair, number: u64) -> Value {
    pair.rpc().call("eth_getBlockByNumber", json!([format!("{number:#x}"), false]))["hash"].clone()
}

/// What L1 has of another life of ours is taken over, and built on: by a backup with a client of its age, and by nothing at all with an empty client.
#[test]
fn what_l1_has_and_we_have_not_is_taken_over_where_the_client_builds() {
    let name = "what_l1_has_and_we_have_not_is_taken_over_where_the_client_builds";
    let Some(binary) = super::peer("SEQUENCER_GETH", name) else { return };
    let _turn = super::turn();
    let l1 = L1::start();
    let mut pair = start(&l1, &binary, "delegated");
    pair.settles();
    safe_on_both_sides(&pair);
    let folder = pair.sequencer.take().expect("it runs").stop();
    let backup = TempFolder::new("backup");
    copy(folder.path(), backup.path());
    pair.geth.keep_database();
    pair.start_sequencer(folder);
    for _ in 0..3 {
        pair.send_round();
        pair.settles();
    }
    let latest = safe_on_both_sides(&pair);
    let hash = hash_of(&pair, latest);
    // What is in flight at the end would be a second story.
    std::thread::sleep(Duration::from_secs(2));
    drop(pair.sequencer.take().expect("it runs").kill());
    pair.geth.put_back_database();
    pair.geth.restart();
    pair.start_sequencer(backup);
    for folder in [None, Some(TempFolder::new("empty"))] {
        if let Some(folder) = folder {
            drop(pair.sequencer.take().expect("it runs").kill());
            pair.geth.wipe();
            pair.geth.restart();
            pair.start_sequencer(folder);
        }
        wait_for_block(&pair, latest, &hash);
        pair.send_round();
        pair.settles();
        assert!(safe_on_both_sides(&pair) > latest);
        let log = pair.ours().log_text();
        assert_eq!(log.matches("adopted blocks from L1").count(), 1, "{}", pair.ours().log_tail());
        std::thread::sleep(Duration::from_secs(2));
    }
    pair.sequencer.take().expect("it runs").stop();
}

/// L1 has the first batches of a block whose other ones nobody can send any more: the block is built again as far as L1 has it, and ended there.
#[test]
fn a_block_that_l1_has_the_beginning_of_is_ended_by_the_client() {
    let name = "a_block_that_l1_has_the_beginning_of_is_ended_by_the_client";
    let Some(binary) = super::peer("SEQUENCER_GETH", name) else { return };
    let _turn = super::turn();
    let l1 = L1::start();
    let mut pair = prepare(&l1, &binary, "delegated");
    // One batch for each segment, one after the other.
    let settings = ["--settlement.in-flight-max", "1", "--settlement.batch-segments-max", "1"];
    pair.more.extend(settings.map(str::to_owned));
    pair.start_sequencer(TempFolder::new("beginning"));
    let deploy = pair.workload.deploy();
    pair.send(vec![deploy]);
    pair.settles();
    let before = safe_on_both_sides(&pair);
    l1.control("dev_stop", json!([]));
    let raw = (0..2 * SLOTS).map(|slot| pair.workload.store(SENDER, slot, 7)).collect();
    pair.send(raw);
    pair.settles();
    let status = || pair.rpc().call("sequencer_settlementStatus", json!([]));
    poll_until("a batch in flight", LIMIT, || (status()["transactions"]["inFlight"] == "0x1").then_some(()));
    drop(pair.sequencer.take().expect("it runs").kill());
    pair.geth.wipe();
    pair.geth.restart();
    l1.control("dev_resume", json!([]));
    let taken = l1.number() + 2;
    poll_until("the batch on L1", LIMIT, || (l1.number() >= taken).then_some(()));

    pair.start_sequencer(TempFolder::new("goes-on"));
    poll_until("the rest of the block", LIMIT, || {
        let latest = pair.rpc().ask("eth_blockNumber", json!([]))?.ok()?;
        (quantity(&latest) > before).then_some(())
    });
    let latest = safe_on_both_sides(&pair);
    assert_eq!(latest, before + 1);
    let log = pair.ours().log_text();
    assert!(log.contains("the execution client is asked for it"), "{}", pair.ours().log_tail());
    let block = pair.rpc().call("eth_getBlockByNumber", json!([format!("{latest:#x}"), false]));
    let count = block["transactions"].as_array().map_or(0, Vec::len) as u64;
    assert!(0 < count && count < 2 * SLOTS, "{count} transactions");
    // Whoever knows nothing but L1 agrees.
    let mut follower = Follower::start(&l1);
    follower.wait_for(latest);
    let theirs = follower.rpc.call("eth_getBlockByNumber", json!([format!("{latest:#x}"), false]));
    assert_eq!(theirs["hash"], block["hash"]);
    follower.stop();
    pair.sequencer.take().expect("it runs").stop();
}

/// A witness that lacks a node settles nothing, and halts nothing.
#[test]
fn a_wrong_witness_of_the_client_is_asked_for_again() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "a_wrong_witness_of_the_client_is_asked_for_again") else {
        return;
    };
    let _turn = super::turn();
    let l1 = L1::start();
    let plain = |geth: &Geth| Middles { engine: None, plain: Some(FaultyEngine::start(geth.rpc.url().to_owned())) };
    let mut pair = prepare_through(&l1, &binary, "delegated", plain);
    pair.middles.answer(WrongAnswer::PartOfWitness);
    pair.start_sequencer(TempFolder::new("wrong-witness"));
    let deploy = pair.workload.deploy();
    pair.send(vec![deploy]);
    pair.settles();
    let status = || pair.rpc().call("sequencer_settlementStatus", json!([])).to_string();
    let why = "the execution client's witness of block 1: ";
    poll_until("the reason", LIMIT, || status().contains(why).then_some(()));
    assert_eq!(number(pair.rpc(), "safe"), 0);
    pair.middles.answer(WrongAnswer::None);
    safe_on_both_sides(&pair);
    assert!(!status().contains(why), "{}", status());
    pair.sequencer.take().expect("it runs").stop();
}

/// Everything is safe, and the client says so too.
#[track_caller]
fn safe_on_both_sides(pair: &Pair) -> u64 {
    let latest = settle(pair.ours());
    poll_until("the client to hear of it", LIMIT, || {
        let theirs = pair.geth.rpc.try_call("eth_getBlockByNumber", json!(["safe", false])).ok()?;
        (quantity(&theirs["number"]) == latest).then_some(())
    });
    latest
}

#[track_caller]
fn check(mode: &'static str, name: &str) {
    let Some(binary) = super::peer("SEQUENCER_GETH", name) else { return };
    let _turn = super::turn();
    let l1 = L1::start();
    let mut pair = start(&l1, &binary, mode);
    pair.settles();
    clear_and_set(&mut pair);
    let latest = safe_on_both_sides(&pair);
    let log = pair.ours().log_text();
    let asked = log.contains("siblings from the execution client");
    assert_eq!(asked, mode == "delegated", "{}", pair.ours().log_tail());

    // A follower knows L1 alone, and has the same chain.
    let mut follower = Follower::start(&l1);
    follower.wait_for(latest);
    let hash = |rpc: &super::rpc::Rpc| {
        rpc.call("eth_getBlockByNumber", json!([format!("{latest:#x}"), false]))["hash"].clone()
    };
    assert_eq!(hash(&follower.rpc), hash(pair.rpc()));
    assert_eq!(hash(&follower.rpc), hash(&pair.geth.rpc));

    // It is final in the end, and the client is told without a new block.
    poll_until("final on both sides", LIMIT, || {
        let theirs = pair.geth.rpc.try_call("eth_getBlockByNumber", json!(["finalized", false])).ok()?;
        (quantity(&theirs["number"]) == latest && number(pair.rpc(), "finalized") == latest).then_some(())
    });

    // L1 takes the origin of the newest blocks away: they are built again, and nothing is lost.
    let before = pair.latest();
    pair.send_round();
    poll_until("a new block", LIMIT, || (pair.latest() > before).then_some(()));
    let gone = pair.rpc().call("eth_getBlockByNumber", json!(["latest", false]))["hash"].clone();
    l1.control("dev_reorg", json!([{ "blocks": 6 }]));
    for rpc in [pair.rpc(), &pair.geth.rpc] {
        poll_until("the block to be gone", LIMIT, || {
            // go-ethereum keeps what left its chain.
            let block = rpc.ask("eth_getBlockByHash", json!([gone, false]))?.ok()?;
            let at = || rpc.ask("eth_getBlockByNumber", json!([block["number"], false]))?.ok();
            (block.is_null() || at()?["hash"] != gone).then_some(())
        });
    }
    pair.settles();
    let latest = safe_on_both_sides(&pair);
    follower.wait_for(latest);
    follower.stop();
    let folder = pair.sequencer.take().expect("it runs").stop();
    pair.start_sequencer(folder);
    pair.send_round();
    pair.settles();
    safe_on_both_sides(&pair);
    pair.sequencer.take().expect("it runs").stop();
}

#[test]
fn what_the_client_checks_settles() {
    check("verified", "what_the_client_checks_settles");
}

#[test]
fn what_the_client_builds_settles() {
    check("delegated", "what_the_client_builds_settles");
}
