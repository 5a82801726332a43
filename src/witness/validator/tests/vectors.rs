//! Blocks and witnesses that go-ethereum v1.17.5 made (`tests/vectors/witness-geth-v1.17.5.json`).

use serde_json::Value;

use super::super::*;

const VECTORS: &str = include_str!("../../../../tests/vectors/witness-geth-v1.17.5.json");

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

#[test]
fn blocks_of_go_ethereum_validate_in_both_modes() {
    let Chain { spec, cases } = chain();
    assert_eq!(cases.len(), 8);
    for case in &cases {
        for strictness in [Strictness::NORMAL, Strictness::CANONICAL] {
            let (_, validated) = validate_bytes(&spec, &case.block, &case.witness, strictness)
                .unwrap_or_else(|error| panic!("{} {strictness:?}: {error}", case.name));
            assert_eq!(validated.state_root, case.state_root, "{}", case.name);
        }
    }
}
