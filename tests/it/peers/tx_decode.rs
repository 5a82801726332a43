//! `sequencer tx decode` as its user meets it: bytes as an argument or on standard input, JSON or one line of what is wrong.

use std::fs::{self, File};
use std::process::{Output, Stdio};

use alloy_primitives::{Address, Bytes, U256};
use native_sequencer::l1::execute_tx::{Payload, Signature, Terms};
use native_sequencer::l1::profile::Profile;
use native_sequencer::settlement::packer::{Event, Packer, PackerSettings};
use native_sequencer::settlement::segment::{CutLimits, cut};
use native_sequencer::settlement::strict::Tip;
use native_sequencer::testing::sealed_chain::{SealedChain, origin};
use native_sequencer::testing::signing::TestKey;
use serde_json::Value;

use super::process::TempFolder;
use super::sequencer::command;

fn decode(arguments: &[&str], input: &str) -> Output {
    let folder = TempFolder::new("tx-decode");
    let path = folder.path().join("input");
    fs::write(&path, input).expect("the folder is writable");
    let input = File::open(&path).expect("it was just written");
    command().args(["tx", "decode"]).args(arguments).stdin(Stdio::from(input)).output().expect("our binary starts")
}

#[test]
fn every_vector_is_decoded_from_argument_and_input() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/executetx-fork-49df765fd.json");
    let vectors: Value = serde_json::from_slice(&fs::read(path).expect("vectors")).expect("JSON");
    for vector in vectors["txs"].as_array().expect("transactions") {
        let raw = format!("0x{}\n", vector["raw"].as_str().expect("hex"));
        let mut outputs = vec![decode(&["-"], &raw)];
        // What the kernel takes as one argument is 128 KiB.
        if raw.len() < 100_000 {
            outputs.push(decode(&[raw.trim()], ""));
        }
        for output in outputs {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(shown["hash"], vector["hash"], "{}", vector["name"]);
            assert_eq!(shown["signingHash"], vector["sighash"], "{}", vector["name"]);
            assert_eq!(shown["from"], vectors["sender"], "{}", vector["name"]);
            assert_eq!(shown["witness"], vector["json"]["witness"], "{}", vector["name"]);
        }
    }
}

#[test]
fn what_is_wrong_is_one_line_and_exit_status_1() {
    for (arguments, expected) in [
        (&["0x05c0"][..], "transaction has 0 items, execute-tx-v2 has 22"),
        (&["0x05c0", "--format", "execute-tx-v1"], "transaction has 0 items, execute-tx-v1 has 20"),
        (&["0x"], "transaction is empty"),
        (&["05c0"], "hex string without 0x prefix"),
        (&["0x5"], "odd number of digits"),
        (&["0x7f"], "transaction type 0x7f is not supported"),
    ] {
        let output = decode(arguments, "");
        let shown = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert!(shown.contains(expected) && shown.lines().count() == 1, "{expected} is not in: {shown}");
        assert!(output.stdout.is_empty());
    }
}

fn signed(payload: &Payload) -> String {
    let encoded = payload.encoded(Profile::ExecuteTxV2);
    let fee_wei = U256::from(2_000_000_000_u64);
    let chain_id = U256::from(61_971);
    let terms = Terms { chain_id, nonce: 0, tip_cap_wei: fee_wei, fee_cap_wei: fee_wei, gas: 16_000_000 };
    let signed = TestKey::nth(0).sign(encoded.signing_hash(&terms));
    let signature = Signature { odd_y: signed.v(), r: signed.r(), s: signed.s() };
    encoded.encode(&terms, &signature).to_string()
}

#[test]
fn a_batch_is_checked_with_nothing_but_its_genesis() {
    let mut chain = SealedChain::new(30, 10);
    let tip = Tip::genesis(chain.genesis.clone(), origin(0));
    let raws: Vec<Bytes> = (0..10).map(|index| chain.transfer(index, Address::repeat_byte(index as u8))).collect();
    let sealed = chain.seal(raws, origin(1), Vec::new());
    let segments = cut(&chain.spec, &sealed.block, &sealed.witness, sealed.origin, &CutLimits::default());
    let mut packer = Packer::new(PackerSettings::default(), tip.start());
    packer.step(Event::Segments(segments.expect("our own block")), 0).expect("in order");
    let batch = packer.step(Event::Flush, 0).expect("nothing comes in").remove(0);

    let folder = TempFolder::new("tx-check");
    let genesis = folder.path().join("genesis.json");
    fs::write(&genesis, serde_json::to_vec(&chain.spec.genesis).expect("JSON")).expect("the folder is writable");
    let check = |input: &str| decode(&["-", "--check", "--l2-genesis", genesis.to_str().expect("UTF-8")], input);
    let output = check(&signed(&batch.payload));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(shown["type"], "0x5");
    assert_eq!(shown["proof"]["digest"], batch.digest.to_string());
    assert_eq!(shown["proof"]["postStateRoot"], sealed.block.header.state_root.to_string());
    assert_eq!(shown["proof"]["blocks"][0]["hash"], sealed.block.hash.to_string());

    let other_coinbase = Payload { coinbase: Address::ZERO, ..batch.payload.clone() };
    let no_witness = Payload { witness: Bytes::from_static(&[0xc0]), ..batch.payload.clone() };
    let cut_short = Payload { data: batch.payload.data.slice(..1), ..batch.payload };
    let transfer = Bytes::from(TestKey::nth(0).transfer(1, 0, Address::ZERO, 1)).to_string();
    for (raw, expected) in [
        (signed(&other_coinbase), "first_block: "),
        (signed(&no_witness), "witness_"),
        (signed(&cut_short), "data_too_short: "),
        (transfer, "--check is for an ExecuteTx"),
    ] {
        let output = check(&raw);
        let shown = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert!(shown.contains(expected) && shown.lines().count() == 1, "{expected} is not in: {shown}");
        assert!(output.stdout.is_empty());
    }
}
