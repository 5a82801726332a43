//! Random blocks, made here and given to a real go-ethereum, which must find them valid and answer exactly our witness.
//!
//! `WITNESS_SEED` and `WITNESS_BLOCKS` choose other histories. A failure prints the seed, the block, and what differs.

mod chain;
mod program;

use std::collections::BTreeSet;

use alloy_primitives::{Bytes, hex};
use native_sequencer::primitives::Fork;
use native_sequencer::testing::rng::SimRng;
use native_sequencer::witness::Witness;
use native_sequencer::witness::validator::{Strictness, validate_bytes};
use serde_json::json;

use super::geth::Geth;
use super::stateless::EntryChecks;
use chain::{Chain, Made};

/// More than 256, so that `BLOCKHASH` reaches its end; and some under the next rules.
const BLOCKS: [(Fork, u64); 2] = [(Fork::Prague, 280), (Fork::Osaka, 60)];
const SEED: u64 = 20_261_126;
/// Entries of a block's witness that are left out, one at a time.
const REMOVALS: usize = 8;

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// What happened in a history, so that a test can see that it was not idle.
#[derive(Debug, Default)]
struct Tally {
    transactions: usize,
    dropped: usize,
    failed: usize,
    withdrawals: usize,
    codes_of_the_block: usize,
    headers_most: usize,
    account_siblings: usize,
    slot_siblings: usize,
    reserve: usize,
}

#[test]
fn geth_gives_our_witness_for_random_blocks() {
    let test = "geth_gives_our_witness_for_random_blocks";
    let Some(binary) = super::peer("SEQUENCER_GETH", test) else { return };
    let _turn = super::turn();
    let seed = from_env("WITNESS_SEED").unwrap_or(SEED);
    let mut tally = Tally::default();
    for (fork, blocks) in BLOCKS {
        let mut entries = EntryChecks::new(seed, REMOVALS);
        let mut chain = Chain::new(fork, SimRng::new(seed));
        let geth = Geth::start(&binary, &serde_json::to_value(&chain.spec.genesis).expect("a genesis serialises"));
        for _ in 0..from_env("WITNESS_BLOCKS").unwrap_or(blocks) {
            let made = chain.next_block();
            let number = made.header.number;
            let name = format!("WITNESS_SEED={seed} {fork:?} block {number}");
            let theirs = geth_witness(&geth, &made, &name);
            compare(&made, &theirs, &name);
            let strict = validate_bytes(&chain.spec, &made.rlp, &theirs, Strictness::CANONICAL);
            let (block, _) = strict.unwrap_or_else(|error| panic!("{name}: the stateless validator: {error}"));
            entries.check(&name, &chain.spec, &block, &made.witness);
            count(&mut tally, &made);
        }
        let (left_out, spared) = entries.codes();
        println!("{fork:?}: {spared} of {left_out} codes left out were made by their blocks");
        assert!(3 * spared <= left_out, "{spared} of {left_out}");
    }
    println!("{tally:?}");
    if from_env("WITNESS_BLOCKS").is_none() {
        assert!(tally.account_siblings > 10 && tally.slot_siblings > 10, "{tally:?}");
        assert!(tally.dropped > 10 && tally.failed > 10 && tally.codes_of_the_block > 10, "{tally:?}");
        assert_eq!(tally.headers_most, 256, "{tally:?}");
    }
}

/// Inserts the block; it must be valid. go-ethereum gives the witness only with the first call for a block.
#[track_caller]
fn geth_witness(geth: &Geth, made: &Made, name: &str) -> Bytes {
    let params = json!([made.payload, [], made.header.parent_beacon_block_root, made.requests]);
    let status = geth.engine_call("engine_newPayloadWithWitnessV4", params);
    let status = status.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    assert_eq!(status["status"], "VALID", "{name}: {status:.600}");
    let hash = json!(made.hash);
    let update = geth.forkchoice_updated(&hash).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    assert_eq!(update["payloadStatus"]["status"], "VALID", "{name}: {update}");
    status["witness"].as_str().and_then(|hex| hex.parse().ok()).unwrap_or_else(|| panic!("{name}: no witness"))
}

#[track_caller]
fn compare(made: &Made, theirs: &Bytes, name: &str) {
    let ours = Bytes::from(made.witness.encode());
    if ours == *theirs {
        return;
    }
    let theirs = Witness::decode(theirs).unwrap_or_else(|error| panic!("{name}: {error}"));
    let differ = |what: &str, ours: &[Bytes], theirs: &[Bytes]| {
        let (ours, theirs): (BTreeSet<_>, BTreeSet<_>) = (ours.iter().collect(), theirs.iter().collect());
        for (whose, entry) in ours.difference(&theirs).map(|entry| ("only ours", entry)) {
            eprintln!("{name}: {what} {whose}: {}", hex::encode(entry));
        }
        for (whose, entry) in theirs.difference(&ours).map(|entry| ("only theirs", entry)) {
            eprintln!("{name}: {what} {whose}: {}", hex::encode(entry));
        }
    };
    differ("header", &made.witness.headers, &theirs.headers);
    differ("code", &made.witness.codes, &theirs.codes);
    differ("node", &made.witness.state, &theirs.state);
    panic!("{name}: the witness differs");
}

fn count(tally: &mut Tally, made: &Made) {
    tally.transactions += made.executed.receipts.len();
    tally.failed += made.executed.receipts.iter().filter(|receipt| !receipt.success).count();
    tally.dropped += made.dropped;
    tally.withdrawals += made.withdrawals.len();
    let own = &made.executed.changes.codes;
    let fetched = &made.executed.accesses.codes;
    tally.codes_of_the_block += fetched.iter().filter(|(hash, _)| own.iter().any(|(own, _)| own == hash)).count();
    tally.headers_most = tally.headers_most.max(made.witness.headers.len());
    tally.account_siblings += made.account_siblings;
    tally.slot_siblings += made.slot_siblings;
    tally.reserve += made.reserve;
}
