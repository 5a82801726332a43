//! An execution client, a strict development L1 and us between them: what the client has checked, or built, becomes safe and final, and the client hears of it.

use serde_json::{Value, json};

use super::follows::Follower;
use super::geth::Geth;
use super::process::{TempFolder, poll_until};
use super::rpc::quantity;
use super::settles::{L1, LIMIT, number, settle};
use super::verified::{Middles, Pair};

/// Slots that are cleared and set again within a block.
const SLOTS: u64 = 64;
/// Who does: one, so that the order within a block is that of the nonces.
const SENDER: usize = 3;
/// Of an ExecuteTx: a block of a hundred transactions is cut into many segments.
const BATCH_BYTES_MAX: &str = "16384";

/// A client, and us in this mode, on a fresh L1.
fn start(l1: &L1, binary: &std::path::Path, mode: &'static str) -> Pair {
    let genesis = std::fs::read(&l1.genesis).expect("it is written");
    let genesis: Value = serde_json::from_slice(&genesis).expect("JSON");
    let mut pair = Pair::new(Geth::start(binary, &genesis), 61, mode, Middles::default());
    let own = ["--genesis", &l1.genesis, "--settlement.batch-bytes-max", BATCH_BYTES_MAX, "--l1.origin-depth", "0"];
    let log = ["--log.level", "info,native_sequencer::settlement::jobs=debug"];
    pair.more = own.iter().chain(&log).map(|setting| (*setting).to_owned()).chain(l1.settings()).collect();
    pair.start_sequencer(TempFolder::new("el-on-l1"));
    let deploy = pair.workload.deploy();
    pair.send(vec![deploy]);
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
