//! Blocks and witnesses that go-ethereum v1.17.5 made (`tests/vectors/witness-geth-v1.17.5.json`).

use alloy_primitives::{B64, U256};
use serde_json::Value;

use super::super::*;
use crate::witness::decode::Part;
use crate::witness::validator::error::CODES;

const VECTORS: &str = include_str!("../../../../tests/vectors/witness-geth-v1.17.5.json");
const DOCUMENT: &str = include_str!("../../../../docs/STATELESS_VALIDATION.md");
const NAMES: [&str; 8] = [
    "empty",
    "transfer-existing",
    "transfer-new-account",
    "sstore-update+sload",
    "sstore-delete-collapse-2slot",
    "sstore-delete-many",
    "blockhash-n-1",
    "blockhash-n-4",
];

/// One block of the chain.
struct Case {
    name: String,
    block: Bytes,
    witness: Bytes,
    state_root: B256,
}

struct Chain {
    spec: ChainSpec,
    cases: Vec<Case>,
}

fn chain() -> Chain {
    let vectors: Value = serde_json::from_str(VECTORS).expect("JSON");
    let bytes = |value: &Value| value.as_str().expect("hex").parse::<Bytes>().expect("hex");
    let cases = vectors["Blocks"].as_array().expect("blocks").iter().map(|block| Case {
        name: block["Name"].as_str().expect("a name").to_owned(),
        block: bytes(&block["BlockRLP"]),
        witness: bytes(&block["WitnessRLP"]),
        state_root: block["StateRoot"].as_str().expect("a root").parse().expect("a root"),
    });
    let spec = ChainSpec::from_json(&vectors["Genesis"].to_string()).expect("a genesis of go-ethereum");
    Chain { spec, cases: cases.collect() }
}

impl Case {
    fn parts(&self) -> (StatelessBlock, Witness) {
        let block = StatelessBlock::decode(&self.block).expect("a block of go-ethereum");
        (block, Witness::decode(&self.witness).expect("a witness of go-ethereum"))
    }
}

/// The code of the error, or "valid"; a valid block has the roots of its header.
#[track_caller]
fn outcome(spec: &ChainSpec, block: &StatelessBlock, witness: &Witness, strictness: Strictness) -> &'static str {
    match validate(spec, block, witness, strictness) {
        Ok(validated) => {
            assert_eq!(validated.state_root, block.header.state_root);
            assert_eq!(validated.receipts_root, block.header.receipts_root);
            "valid"
        }
        Err(error) => {
            assert!(CODES.contains(&error.code()), "{error}");
            assert!(!error.to_string().is_empty());
            error.code()
        }
    }
}

#[test]
fn blocks_of_go_ethereum_validate_in_both_modes() {
    let Chain { spec, cases } = chain();
    assert_eq!(cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>(), NAMES);
    for case in &cases {
        for strictness in [Strictness::NORMAL, Strictness::CANONICAL] {
            let (block, validated) = validate_bytes(&spec, &case.block, &case.witness, strictness)
                .unwrap_or_else(|error| panic!("{} {strictness:?}: {error}", case.name));
            assert_eq!(validated.state_root, case.state_root, "{}", case.name);
            assert_eq!(validated.hash, block.header.hash_slow());
            assert_eq!(block.rlp_bytes, case.block.len() as u64);
            let rebuilt = StatelessBlock::new(block.header, block.transactions, block.withdrawals);
            assert_eq!((rebuilt.hash, rebuilt.rlp_bytes), (validated.hash, case.block.len() as u64));
        }
        let witness = Witness::decode(&case.witness).expect("a witness of go-ethereum");
        assert_eq!(witness.encode(), case.witness, "{}", case.name);
    }
}

/// The entries of one part.
fn entries(witness: &mut Witness, part: Part) -> &mut Vec<Bytes> {
    match part {
        Part::Headers => &mut witness.headers,
        Part::Codes => &mut witness.codes,
        Part::State | Part::Keys => &mut witness.state,
    }
}

#[test]
fn each_entry_that_is_left_out_is_named() {
    let Chain { spec, cases } = chain();
    let mut unneeded = Vec::new();
    let mut siblings = 0;
    for case in &cases {
        let (block, whole) = case.parts();
        for part in [Part::Headers, Part::Codes, Part::State] {
            for index in 0..entries(&mut whole.clone(), part).len() {
                let mut witness = whole.clone();
                let removed = entries(&mut witness, part).remove(index);
                let place = format!("{} {part}[{index}]", case.name);
                let expected: &[&str] = match part {
                    Part::Headers if index + 1 == whole.headers.len() => &["parent_missing"],
                    Part::Headers => &["header_missing"],
                    Part::Codes => &["code_missing"],
                    Part::State | Part::Keys => &["node_missing", "sibling_missing"],
                };
                let error = validate(&spec, &block, &witness, Strictness::CANONICAL).expect_err(&place);
                assert!(expected.contains(&error.code()), "{place}: {error}");
                siblings += usize::from(error.code() == "sibling_missing");
                if matches!(part, Part::Codes | Part::State) {
                    let hash = crate::crypto::keccak::keccak256(&removed);
                    assert!(error.to_string().contains(&hash.to_string()), "{place}: {hash} is not in: {error}");
                }
                match outcome(&spec, &block, &witness, Strictness::NORMAL) {
                    "valid" => unneeded.push(place),
                    code => assert!(expected.contains(&code), "{place}: {code}"),
                }
            }
        }
    }
    // BLOCKHASH(n - 4) follows from the header of n - 3; go-ethereum adds the one before as well.
    assert_eq!(unneeded, ["blockhash-n-4 headers[0]"]);
    assert!(siblings > 0);
}

#[test]
fn each_entry_too_many_is_named_in_canonical_mode_and_harmless_otherwise() {
    let Chain { spec, cases } = chain();
    for (at, case) in cases.iter().enumerate() {
        let (block, whole) = case.parts();
        let other = &cases[(at + 1) % cases.len()].parts().1;
        let mut extras = vec![
            (Part::Codes, Bytes::new()),
            (Part::Codes, Bytes::from_static(&[0xfe])),
            (Part::State, Bytes::new()),
            (Part::State, Bytes::from_static(&[0xc0])),
            (Part::State, Bytes::from(vec![0xff; 100])),
        ];
        extras.extend(other.state.iter().map(|node| (Part::State, node.clone())));
        extras.extend(other.codes.iter().map(|code| (Part::Codes, code.clone())));
        extras.extend(other.headers.iter().map(|header| (Part::Headers, header.clone())));
        for (part, extra) in extras {
            let mut witness = whole.clone();
            let list = entries(&mut witness, part);
            let is_there = list.contains(&extra);
            list.push(extra);
            if part != Part::Headers {
                list.sort();
            }
            let place = format!("{} {part}", case.name);
            let found = outcome(&spec, &block, &witness, Strictness::CANONICAL);
            match (part, is_there) {
                // One of an older block stands behind the parent.
                (Part::Headers, _) => assert!(matches!(found, "entry_order" | "entry_unneeded"), "{place}: {found}"),
                (_, true) => assert_eq!(found, "entry_order", "{place}"),
                (_, false) => assert_eq!(found, "entry_unneeded", "{place}"),
            }
            assert_eq!(outcome(&spec, &block, &witness, Strictness::NORMAL), "valid", "{place}");
        }
    }
}

#[test]
fn order_matters_in_canonical_mode_only() {
    let Chain { spec, cases } = chain();
    for case in &cases {
        let (block, whole) = case.parts();
        for part in [Part::Headers, Part::Codes, Part::State] {
            let mut witness = whole.clone();
            let list = entries(&mut witness, part);
            list.reverse();
            let expected = if list.len() < 2 { "valid" } else { "entry_order" };
            assert_eq!(outcome(&spec, &block, &witness, Strictness::CANONICAL), expected, "{} {part}", case.name);
            assert_eq!(outcome(&spec, &block, &witness, Strictness::NORMAL), "valid", "{} {part}", case.name);
        }
    }
}

#[test]
fn each_field_that_disagrees_has_its_own_error() {
    let Chain { spec, cases } = chain();
    for case in &cases {
        let (block, witness) = case.parts();
        let parent = Ancestors::find(&block.header, &witness.headers).expect("linked").parent().clone();
        let check = |change: &dyn Fn(&mut alloy_consensus::Header), expected: &str| {
            let mut changed = block.clone();
            change(&mut changed.header);
            let found = outcome(&spec, &changed, &witness, Strictness::NORMAL);
            assert_eq!(found, expected, "{}", case.name);
        };
        let wrong = B256::repeat_byte(9);
        check(&|header| header.parent_hash = wrong, "parent_missing");
        check(&|header| header.number += 1, "header_number");
        check(&|header| header.number = 0, "parent_missing");
        check(&|header| header.state_root = wrong, "state_root");
        check(&|header| header.receipts_root = wrong, "receipts_root");
        check(&|header| header.transactions_root = wrong, "transactions_root");
        check(&|header| header.withdrawals_root = Some(wrong), "withdrawals_root");
        check(&|header| header.requests_hash = Some(wrong), "requests_hash");
        check(&|header| header.gas_used += 1, "gas_used");
        check(&|header| header.logs_bloom.0[3] ^= 1, "logs_bloom");
        check(&|header| header.ommers_hash = wrong, "rule_ommers_hash");
        check(&|header| header.difficulty = U256::from(1), "rule_difficulty");
        check(&|header| header.nonce = B64::repeat_byte(1), "rule_nonce");
        check(&|header| header.blob_gas_used = Some(131_072), "rule_blob_gas");
        check(&|header| header.excess_blob_gas = Some(1), "rule_blob_gas");
        check(&|header| header.timestamp = parent.timestamp, "rule_timestamp");
        check(&|header| header.extra_data = vec![0; 33].into(), "rule_extra_data");
        check(&|header| header.gas_used = header.gas_limit + 1, "rule_gas_used");
        check(&|header| header.gas_limit = 4_999, "rule_gas_limit");
        check(&|header| header.gas_limit = 1 << 63, "rule_gas_limit");
        check(&|header| header.gas_limit = parent.gas_limit + parent.gas_limit / 1_024, "rule_gas_limit");
        check(&|header| header.gas_limit = parent.gas_limit - parent.gas_limit / 1_024, "rule_gas_limit");
        check(&|header| header.base_fee_per_gas = header.base_fee_per_gas.map(|fee| fee + 1), "rule_base_fee");
        check(&|header| header.base_fee_per_gas = None, "rule_field_missing");
        check(&|header| header.parent_beacon_block_root = None, "rule_field_missing");
        check(&|header| header.slot_number = Some(1), "rule_field_unknown");
    }
}

#[test]
fn the_header_rules_can_be_left_out() {
    let Chain { spec, cases } = chain();
    let (mut block, witness) = cases[0].parts();
    // Extra data has no effect on the state.
    block.header.extra_data = vec![0; 33].into();
    let lax = Strictness { canonical: true, header_rules: false };
    assert_eq!(outcome(&spec, &block, &witness, Strictness::CANONICAL), "rule_extra_data");
    assert_eq!(outcome(&spec, &block, &witness, lax), "valid");
}

#[test]
fn transactions_that_do_not_belong_are_refused() {
    let Chain { spec, cases } = chain();
    let case = cases.iter().find(|case| case.name == "transfer-existing").expect("in the list");
    let (mut block, witness) = case.parts();
    let check = |block: &mut StatelessBlock, expected| {
        let mut root = ListRoot::new();
        block.transactions.iter().for_each(|tx| root.push(&tx.raw));
        block.header.transactions_root = root.finish();
        assert_eq!(outcome(&spec, block, &witness, Strictness::NORMAL), expected);
    };
    let tx = block.transactions[0].clone();
    block.transactions.push(tx.clone());
    check(&mut block, "transaction_invalid");
    block.transactions[1].decoded.fields.gas_limit = block.header.gas_limit;
    check(&mut block, "transaction_gas_limit");
    block.transactions.clear();
    check(&mut block, "gas_used");
    block.transactions.push(tx);
    check(&mut block, "valid");
    block.withdrawals.push(Default::default());
    check(&mut block, "withdrawals_root");
}

#[test]
fn flipped_bits_are_errors_or_change_nothing() {
    let Chain { spec, cases } = chain();
    for case in &cases {
        let (mut refused, mut accepted) = (0, 0);
        for (is_block, step) in [(true, 3), (false, 41)] {
            let original = if is_block { &case.block } else { &case.witness };
            for at in (0..original.len()).step_by(step) {
                let mut bytes = original.to_vec();
                bytes[at] ^= 1 << (at % 8);
                let bytes = Bytes::from(bytes);
                let (block, witness) = if is_block { (&bytes, &case.witness) } else { (&case.block, &bytes) };
                match validate_bytes(&spec, block, witness, Strictness::NORMAL) {
                    Ok((_, validated)) => {
                        assert_eq!(validated.state_root, case.state_root, "{} byte {at}", case.name);
                        accepted += 1;
                    }
                    Err(error) => {
                        assert!(CODES.contains(&error.code()));
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 200, "{}: {refused} refused, {accepted} accepted", case.name);
    }
}

#[test]
fn the_document_names_every_code() {
    let documented: Vec<&str> =
        DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`').map(|(code, _)| code)).collect();
    assert_eq!(documented, CODES);
}
