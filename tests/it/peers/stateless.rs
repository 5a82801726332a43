//! The stateless validator beside a real go-ethereum: its witnesses are canonical here, and whatever it refuses is refused here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{B256, Bytes};
use native_sequencer::config::genesis::ChainSpec;
use native_sequencer::witness::Witness;
use native_sequencer::witness::decode::Part;
use native_sequencer::witness::validator::{StatelessBlock, Strictness, validate, validate_bytes};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::geth::Geth;
use super::payload::Payload;
use super::process::poll_until;
use super::requests::RequestQueues;
use super::rpc::quantity;
use super::sequencer::genesis;
use super::workload::Workload;
use crate::stateless::Vectors;

/// One block, on a loaded machine.
const ROUND_LIMIT: Duration = Duration::from_secs(30);
const ROUNDS: u64 = 8;
/// Entries of a block's witness that are left out, one at a time.
const REMOVALS: usize = 60;

/// The payload of a block for `engine_executeStatelessPayloadV4`, which wants both roots zero.
fn stateless_params(block: &StatelessBlock, requests: &[Bytes], witness: &Witness) -> Value {
    let header = &block.header;
    let number = |value: u64| format!("{value:#x}");
    let transactions: Vec<&Bytes> = block.transactions.iter().map(|tx| &tx.raw).collect();
    let payload = json!({
        "parentHash": header.parent_hash, "feeRecipient": header.beneficiary, "stateRoot": B256::ZERO,
        "receiptsRoot": B256::ZERO, "logsBloom": header.logs_bloom, "prevRandao": header.mix_hash,
        "blockNumber": number(header.number), "gasLimit": number(header.gas_limit), "gasUsed": number(header.gas_used),
        "timestamp": number(header.timestamp), "extraData": header.extra_data,
        "baseFeePerGas": number(header.base_fee_per_gas.expect("London")), "blockHash": block.hash,
        "blobGasUsed": "0x0", "excessBlobGas": "0x0", "transactions": transactions, "withdrawals": [],
    });
    let beacon_root = header.parent_beacon_block_root.expect("Cancun");
    json!([payload, [], beacon_root, requests, Bytes::from(witness.encode())])
}

/// Whether go-ethereum calls the block valid and finds the roots of its header.
fn geth_accepts(geth: &Geth, block: &StatelessBlock, requests: &[Bytes], witness: &Witness) -> bool {
    let answer = geth.engine_call("engine_executeStatelessPayloadV4", stateless_params(block, requests, witness));
    answer.is_ok_and(|status| {
        status["status"] == "VALID"
            && status["stateRoot"] == json!(block.header.state_root)
            && status["receiptsRoot"] == json!(block.header.receipts_root)
    })
}

/// `witness` without one entry, for each of its entries.
fn without_one(witness: &Witness) -> Vec<(Part, usize, Witness)> {
    let mut all = Vec::new();
    for (part, count) in
        [(Part::Headers, witness.headers.len()), (Part::Codes, witness.codes.len()), (Part::State, witness.state.len())]
    {
        for index in 0..count {
            let mut less = witness.clone();
            match part {
                Part::Headers => less.headers.remove(index),
                Part::Codes => less.codes.remove(index),
                Part::State | Part::Keys => less.state.remove(index),
            };
            all.push((part, index, less));
        }
    }
    all
}

#[test]
fn what_geth_refuses_is_refused_here() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "what_geth_refuses_is_refused_here") else { return };
    let _turn = super::turn();
    let vectors = Vectors::load();
    let spec = vectors.spec();
    let geth = Geth::start(&binary, &serde_json::from_str(&vectors.genesis).expect("JSON"));
    let mut random = StdRng::seed_from_u64(5);
    let (mut both, mut here_only) = (0, 0);
    for (name, block, whole) in &vectors.blocks {
        let (block, validated) = validate_bytes(&spec, block, whole, Strictness::CANONICAL).expect("a vector");
        let whole = Witness::decode(whole).expect("a vector");
        let requests = &validated.executed.requests;
        assert!(geth_accepts(&geth, &block, requests, &whole), "{name}");
        let mut variants = without_one(&whole);
        for index in 0..whole.state.len() {
            let mut flipped = whole.clone();
            let mut node = flipped.state[index].to_vec();
            let at = random.random_range(0..node.len());
            node[at] ^= 1 << random.random_range(0..8);
            flipped.state[index] = node.into();
            variants.push((Part::State, index, flipped));
        }
        for (part, index, witness) in variants {
            let ours = validate(&spec, &block, &witness, Strictness::NORMAL);
            let theirs = geth_accepts(&geth, &block, requests, &witness);
            assert!(theirs || ours.is_err(), "{name} {part}[{index}]: go-ethereum refuses it");
            both += usize::from(!theirs);
            here_only += usize::from(theirs && ours.is_err());
        }
    }
    println!("{both} refused by both, {here_only} here only");
    assert!(both > 100, "{both}");
}

#[test]
fn witnesses_of_geth_are_canonical_here() {
    let Some(binary) = super::peer("SEQUENCER_GETH", "witnesses_of_geth_are_canonical_here") else { return };
    let _turn = super::turn();
    for fork in ["prague", "osaka"] {
        let genesis = genesis(fork);
        let (builder, checker) = (Geth::start(&binary, &genesis), Geth::start(&binary, &genesis));
        let spec = ChainSpec::from_json(&genesis.to_string()).expect("our own genesis");
        let mut checks = EntryChecks::new(6, REMOVALS);
        let mut workload = Workload::new(7);
        let mut queues = RequestQueues::default();
        let start = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs();
        for round in 0..ROUNDS {
            let raw = if round == 0 { vec![workload.deploy()] } else { workload.round() };
            let answers = builder.rpc.batch("eth_sendRawTransaction", raw.iter().map(|raw| json!([raw])));
            answers.iter().for_each(|answer| assert!(answer.is_ok(), "{answer:?}"));
            poll_until("the pool to hold the round", ROUND_LIMIT, || {
                let status = builder.rpc.call("txpool_status", json!([]));
                (quantity(&status["pending"]) == raw.len() as u64).then_some(())
            });
            builder.commit_block(start + round);
            let tag = format!("{:#x}", round + 1);
            let block = builder.rpc.call("eth_getBlockByNumber", json!([tag, true]));
            let receipts = builder.rpc.call("eth_getBlockReceipts", json!([tag]));
            let requests = queues.advance(&block, &receipts);
            let payload = Payload::pack(&builder.rpc, &block, requests);
            let witness = witness_of(&checker, &payload);
            let raw_block = builder.rpc.call("debug_getRawBlock", json!([tag]));
            let raw_block: Bytes = raw_block.as_str().and_then(|hex| hex.parse().ok()).expect("hex");
            let name = format!("{fork} block {tag}");
            let validated = validate_bytes(&spec, &raw_block, &witness, Strictness::CANONICAL);
            let (block, validated) = validated.unwrap_or_else(|error| panic!("{name}: {error}"));
            let whole = Witness::decode(&witness).expect("decoded above");
            assert_eq!(whole.encode(), witness, "{name}");
            assert!(geth_accepts(&checker, &block, &validated.executed.requests, &whole), "{name}");
            checks.check(&name, &spec, &block, &whole);
        }
    }
}

/// Inserts a block into a node that does not know it yet, and returns its witness.
#[track_caller]
fn witness_of(geth: &Geth, payload: &Payload) -> Bytes {
    let params = json!([payload.json, [], payload.parent_beacon_block_root, payload.requests]);
    let status = geth.engine_call("engine_newPayloadWithWitnessV4", params).expect("an answer");
    assert_eq!(status["status"], "VALID", "{status:.300}");
    geth.forkchoice_updated(&payload.json["blockHash"]).expect("an answer");
    status["witness"].as_str().and_then(|hex| hex.parse().ok()).expect("a witness")
}

/// Checks that a witness is exactly what its block needs, by leaving out and adding entries.
pub(super) struct EntryChecks {
    random: StdRng,
    /// How many entries of a witness are left out, one at a time; all with `SEQUENCER_LONG`.
    removals: usize,
    /// The witness of an earlier block.
    foreign: Witness,
    codes_left_out: usize,
    /// Codes that normal mode did without: the block itself makes them.
    codes_spared: usize,
}

impl EntryChecks {
    pub(super) fn new(seed: u64, removals: usize) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            removals,
            foreign: Witness::default(),
            codes_left_out: 0,
            codes_spared: 0,
        }
    }

    /// How many codes were left out, and how many of them normal mode did without.
    pub(super) fn codes(&self) -> (usize, usize) {
        (self.codes_left_out, self.codes_spared)
    }

    /// A canonical witness without one of its entries, or with one more, is refused in canonical mode. In normal mode more is harmless, and
    /// less is refused but for a header or a code of the block itself, which other things prove.
    #[track_caller]
    pub(super) fn check(&mut self, name: &str, spec: &ChainSpec, block: &StatelessBlock, whole: &Witness) {
        let mut less = without_one(whole);
        while !super::is_long() && less.len() > self.removals {
            less.swap_remove(self.random.random_range(0..less.len()));
        }
        for (part, index, witness) in less {
            let place = format!("{name} without {part}[{index}]");
            let expected: &[&str] = match part {
                Part::Headers => &["header_missing", "parent_missing"],
                Part::Codes => &["code_missing"],
                Part::State | Part::Keys => &["node_missing", "sibling_missing"],
            };
            self.codes_left_out += usize::from(part == Part::Codes);
            let error = validate(spec, block, &witness, Strictness::CANONICAL).expect_err(&place);
            assert!(expected.contains(&error.code()), "{place}: {error}");
            match validate(spec, block, &witness, Strictness::NORMAL) {
                Err(error) => assert!(expected.contains(&error.code()), "{place}: {error}"),
                Ok(_) => {
                    // Transactions make codes that accounts have already, now and then, and take them back: those are here too.
                    self.codes_spared += usize::from(part == Part::Codes);
                    let is_proved = matches!(part, Part::Headers | Part::Codes);
                    assert!(is_proved, "{place}: normal mode does without it");
                }
            }
        }
        let foreign = std::mem::replace(&mut self.foreign, whole.clone());
        for node in foreign.state.iter().filter(|node| !whole.state.contains(node)).take(5) {
            let mut more = whole.clone();
            more.state.push(node.clone());
            more.state.sort();
            self.check_more(name, spec, block, &more);
        }
        for code in foreign.codes.iter().filter(|code| !whole.codes.contains(code)).take(2) {
            let mut more = whole.clone();
            more.codes.push(code.clone());
            more.codes.sort();
            self.check_more(name, spec, block, &more);
        }
        // The header before the oldest one is linked and not needed.
        let older = foreign.headers.iter().position(|header| *header == whole.headers[0]).unwrap_or(0);
        if older > 0 {
            let mut more = whole.clone();
            more.headers.insert(0, foreign.headers[older - 1].clone());
            self.check_more(name, spec, block, &more);
        }
    }

    #[track_caller]
    fn check_more(&self, name: &str, spec: &ChainSpec, block: &StatelessBlock, more: &Witness) {
        let error = validate(spec, block, more, Strictness::CANONICAL).expect_err(name);
        assert_eq!(error.code(), "entry_unneeded", "{name}: {error}");
        validate(spec, block, more, Strictness::NORMAL).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
