//! Against the vectors of the L1 node: the precompile alone, and whole transactions under three rule sets.

use serde_json::Value;

use super::*;
use crate::dev_l1::config::L1Fork;
use crate::dev_l1::evm::{BlockEvm, BlockFacts};
use crate::dev_l1::overlay::{Missing, Overlay};
use crate::dev_l1::transaction::L1Tx;
use crate::state::{AccountInfo, CODE_HASH_EMPTY, ROOT_EMPTY};
use crate::witness::Witness;
use crate::witness::validator::partial_state::PartialState;

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/executetx-fork-49df765fd.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("vectors")).expect("JSON")
}

fn hex(value: &Value) -> Bytes {
    alloy_primitives::hex::decode(value.as_str().expect("a string")).expect("hex").into()
}

#[test]
fn the_precompile_answers_as_the_node_does() {
    let vectors = vectors();
    let cases = vectors["precompile"].as_array().expect("inputs");
    assert_eq!(cases.len(), 6);
    for case in cases {
        let verdict = Execute::Compat.run(&hex(&case["input"]));
        let expected = match case["error"].as_str().expect("a string") {
            "" => Ok(hex(&case["output"])),
            error => Err(error.to_owned()),
        };
        assert_eq!(verdict.result, expected, "{}", case["name"]);
    }
}

/// A state of nothing but a rich sender, and the block of the vectors.
fn execute(tx: &L1Tx, fork: L1Fork, execute: &Execute) -> crate::dev_l1::evm::TxOutcome {
    let (root, nothing) = (ROOT_EMPTY, Witness::default());
    let state = PartialState::new(&root, &nothing);
    let mut overlay = Overlay::new(state.reader(), Missing::Error, &|_| B256::ZERO);
    let balance_wei = U256::from(10).pow(U256::from(24));
    overlay.set_account(tx.sender, AccountInfo { nonce: tx.nonce(), balance_wei, code_hash: CODE_HASH_EMPTY }, None);
    let facts = BlockFacts {
        number: 5,
        timestamp: 1_000,
        coinbase: Address::ZERO,
        gas_limit: 30_000_000,
        base_fee_wei: 1_000_000_000,
        prev_randao: B256::ZERO,
        parent_hash: B256::ZERO,
        parent_beacon_block_root: B256::ZERO,
    };
    let chain_id = tx.chain_id().expect("typed").as_limbs()[0];
    let mut evm = BlockEvm::new(overlay, &facts, fork, chain_id, execute);
    evm.execute(tx.tx_env(facts.base_fee_wei)).expect("it belongs here")
}

#[test]
fn transactions_end_as_on_the_node_under_each_rule_set() {
    let vectors = vectors();
    for vector in vectors["txs"].as_array().expect("transactions") {
        let tx = L1Tx::recover(hex(&vector["raw"]), L1Fork::Osaka).expect("an ExecuteTx");
        for fork in L1Fork::ALL {
            let outcome = execute(&tx, fork, &Execute::Compat);
            let expected = &vector["result"][fork.name()];
            let name = format!("{} {}", vector["name"], fork.name());
            assert_eq!(!outcome.success, expected["failed"], "{name}");
            assert_eq!(outcome.gas_used, expected["gasUsed"], "{name}");
            assert_eq!(outcome.output, hex(&expected["return"]), "{name}");
            assert_eq!(outcome.verdicts.len(), usize::from(fork.has_execute()), "{name}");
        }
    }
}

/// Says no to what has data that begins with a zero.
struct FirstByte;

impl StrictJudge for FirstByte {
    fn judge(&self, tx: &ExecuteTx) -> Result<JudgeOutput, String> {
        match tx.payload.data.first() {
            Some(0) => Err("the batch begins with a zero".to_owned()),
            _ => Ok(JudgeOutput {
                gas_used: tx.payload.data.len() as u64,
                post_state_root: tx.payload.pre_state_root,
                report: Value::from("fine"),
            }),
        }
    }
}

#[test]
fn strict_asks_the_judge_for_the_transaction_that_was_sent() {
    let vectors = vectors();
    let strict = Execute::Strict(Box::new(FirstByte));
    for vector in vectors["txs"].as_array().expect("transactions") {
        let tx = L1Tx::recover(hex(&vector["raw"]), L1Fork::Osaka).expect("an ExecuteTx");
        let sent = tx.execute().expect("an ExecuteTx").clone();
        let calldata = sent.precompile_calldata(Some(7));
        let call = ExecuteCall::parse(&calldata).expect("long enough");
        if sent.payload.witness.len() < 65_536 {
            assert_eq!(call.transaction().payload, sent.payload, "{}", vector["name"]);
        } else {
            // What L1 cuts off the judge never sees, so it cannot be taken for what was sent.
            assert_ne!(call.transaction().payload, sent.payload, "{}", vector["name"]);
        }
        let outcome = execute(&tx, L1Fork::Osaka, &strict);
        assert!(outcome.success, "{}", vector["name"]);
        assert_eq!(outcome.output.len(), 64, "{}", vector["name"]);
        assert_eq!(outcome.verdicts[0].report, "fine");
    }
}

#[test]
fn what_the_judge_refuses_fails_and_costs_all_gas() {
    let strict = Execute::Strict(Box::new(FirstByte));
    let payload = Payload { data: Bytes::from_static(&[0]), ..Payload::default() };
    let terms = Terms {
        chain_id: U256::from(61_971),
        gas: 100_000,
        fee_cap_wei: U256::from(2_000_000_000_u64),
        ..Terms::default()
    };
    let encoded = payload.encoded(Profile::ExecuteTxV2);
    let signed = crate::testing::signing::TestKey::nth(1).sign(encoded.signing_hash(&terms));
    let signature = Signature { odd_y: signed.v(), r: signed.r(), s: signed.s() };
    let tx = L1Tx::recover(encoded.encode(&terms, &signature), L1Fork::Osaka).expect("an ExecuteTx");
    let outcome = execute(&tx, L1Fork::Osaka, &strict);
    assert!(!outcome.success && outcome.halt.is_some());
    assert_eq!(outcome.gas_used, 100_000);
    assert_eq!(outcome.verdicts[0].result, Err("the batch begins with a zero".to_owned()));
    assert!(execute(&tx, L1Fork::Prague, &strict).success, "Prague alone knows no such precompile");
}
