use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::builder::replay::genesis_block;
use crate::state::Store;

/// Bytes that go-ethereum v1.17.5 made: genesis, blocks, witnesses.
struct Vectors {
    spec: ChainSpec,
    blocks: Vec<(String, Bytes, Bytes)>,
}

fn vectors() -> Vectors {
    let text = include_str!("../../../tests/vectors/witness-geth-v1.17.5.json");
    let value: Value = serde_json::from_str(text).expect("JSON");
    let hex = |value: &Value| value.as_str().and_then(|hex| hex.parse::<Bytes>().ok()).expect("hex");
    let blocks = value["Blocks"].as_array().expect("a list");
    Vectors {
        spec: ChainSpec::from_json(&value["Genesis"].to_string()).expect("a genesis"),
        blocks: blocks
            .iter()
            .map(|block| (block["Name"].to_string(), hex(&block["BlockRLP"]), hex(&block["WitnessRLP"])))
            .collect(),
    }
}

fn store() -> Store {
    crate::testing::state_disk::store(Arc::new(
        rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread"),
    ))
}

#[test]
fn witnesses_are_those_of_go_ethereum_byte_for_byte() {
    let Vectors { spec, blocks } = vectors();
    let mut store = store();
    let genesis = genesis_block(&spec, &mut store).expect("commits");
    let mut importer = Importer::new(&spec, &mut store, &genesis);
    let file: Bytes = blocks.iter().flat_map(|(_, block, _)| block.to_vec()).collect::<Vec<u8>>().into();
    let mut offset = 0;
    for (name, block, expected) in &blocks {
        let bytes = next_block(&file, offset).expect("a list").expect("a block");
        assert_eq!(bytes, *block, "{name}");
        offset += bytes.len();
        let imported = importer.block(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let theirs = Witness::decode(expected).expect("a witness");
        assert_eq!(imported.witness.codes.len(), theirs.codes.len(), "{name}");
        assert_eq!(imported.witness.state, theirs.state, "{name}");
        assert_eq!(Bytes::from(imported.witness.encode()), *expected, "{name}");
    }
    assert!(next_block(&file, offset).expect("the end").is_none());
}

/// Imports the first block after `change` was made to its header, and then as it is.
#[track_caller]
fn check(change: impl FnOnce(&mut Header), expected: &str) {
    let Vectors { spec, blocks } = vectors();
    let mut store = store();
    let genesis = genesis_block(&spec, &mut store).expect("commits");
    let mut importer = Importer::new(&spec, &mut store, &genesis);
    let (_, bytes, _) = &blocks[0];
    let mut header = StatelessBlock::decode(bytes).expect("a block").header;
    change(&mut header);
    let lists = [0xc0_u8; 3];
    let mut changed = Vec::new();
    let payload_length = alloy_rlp::Encodable::length(&header) + lists.len();
    alloy_rlp::Header { list: true, payload_length }.encode(&mut changed);
    alloy_rlp::Encodable::encode(&header, &mut changed);
    changed.extend_from_slice(&lists);
    let error = importer.block(&changed.into()).err().expect("a refusal").to_string();
    assert!(error.contains(expected), "{error}");
    importer.block(bytes).expect("the refused block left nothing behind");
}

#[test]
fn every_field_of_a_header_is_checked_with_both_values() {
    check(|header| header.number = 3, "block number is 3, after block 0 it must be 1");
    check(|header| header.parent_hash = B256::repeat_byte(1), "parent hash of block 1 is 0x0101");
    check(|header| header.timestamp = 0, "rule_timestamp: timestamp is 0");
    check(|header| header.gas_limit += header.gas_limit / 512, "rule_gas_limit: gas limit is ");
    check(|header| header.gas_limit = 4_000, "rule_gas_limit: gas limit is 4000");
    check(|header| header.base_fee_per_gas = Some(7), "rule_base_fee: base fee is 7 wei");
    check(|header| header.extra_data = vec![0; 33].into(), "rule_extra_data: extra data has 33 bytes");
    check(|header| header.difficulty = alloy_primitives::U256::ONE, "rule_difficulty: difficulty is 1");
    check(|header| header.nonce = alloy_primitives::B64::repeat_byte(1), "rule_nonce: nonce is 0x0101");
    check(|header| header.ommers_hash = B256::ZERO, "rule_ommers_hash: ommers hash is 0x0000");
    check(|header| header.blob_gas_used = Some(131_072), "rule_blob_gas: blob gas used is 131072");
    check(|header| header.excess_blob_gas = Some(1), "rule_blob_gas: blob gas used is 0 and excess blob gas 1");
    check(|header| header.gas_used = 21_000, "gas_used: gas used is 21000 in the header and 0");
    check(|header| header.state_root = B256::ZERO, "state_root: state root is 0x0000");
    check(|header| header.transactions_root = B256::ZERO, "transactions_root: transactions root is 0x0000");
    check(|header| header.receipts_root = B256::ZERO, "receipts_root: receipts root is 0x0000");
    check(|header| header.withdrawals_root = Some(B256::ZERO), "withdrawals_root: withdrawals root is 0x0000");
    check(|header| header.requests_hash = Some(B256::ZERO), "requests_hash: requests hash is 0x0000");
    check(|header| header.logs_bloom = alloy_primitives::Bloom::repeat_byte(1), "logs_bloom: logs bloom is 0x0101");
    // The calls that open the block write it into the state.
    check(|header| header.parent_beacon_block_root = Some(B256::repeat_byte(9)), "state_root: state root is");
    check(|header| header.requests_hash = None, "rule_field_missing: the header has no requests hash");
}

#[test]
fn a_file_that_is_no_list_of_blocks_is_refused_with_its_place() {
    let string = Bytes::from_static(&[0xc0, 0x83, 1, 2, 3]);
    assert_eq!(next_block(&string, 0).expect("a list"), Some(Bytes::from_static(&[0xc0])));
    assert_eq!(
        next_block(&string, 1).expect_err("a string").to_string(),
        "byte 1 of the file is a string, a block is a list"
    );
    let short = Bytes::from_static(&[0xc2, 0]);
    assert!(next_block(&short, 0).expect_err("cut off").to_string().starts_with("byte 0 of the file is no block"));
    assert_eq!(next_block(&Bytes::new(), 0).expect("nothing is no error"), None);
}
