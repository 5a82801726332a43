//! The stateless validator against hostile input: mutated witnesses and blocks, and states that are wrong inside though every hash is right.
//!
//! Short by default; `FUZZ_SECONDS` and `FUZZ_SEED` as in `codec`.

use std::collections::BTreeMap;

use alloy_primitives::{B256, Bytes, keccak256};
use native_sequencer::config::genesis::ChainSpec;
use native_sequencer::witness::Witness;
use native_sequencer::witness::validator::error::CODES;
use native_sequencer::witness::validator::{StatelessBlock, Strictness, ValidationError, validate, validate_bytes};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::codec::{fuzz, mutate};

const VECTORS: &str = include_str!("../vectors/witness-geth-v1.17.5.json");
/// Bytes that mean something in RLP, in paths and in code.
const ALPHABET: &[u8] =
    &[0x00, 0x20, 0x40, 0x54, 0x55, 0x5f, 0x80, 0x81, 0xa0, 0xb8, 0xc0, 0xd1, 0xf0, 0xf1, 0xf8, 0xf9];

/// The chain of the vector file: its genesis, and each block's name, RLP and witness.
pub struct Vectors {
    pub genesis: String,
    pub blocks: Vec<(String, Bytes, Bytes)>,
}

impl Vectors {
    pub fn load() -> Self {
        let vectors: Value = serde_json::from_str(VECTORS).expect("JSON");
        let bytes = |value: &Value| value.as_str().expect("hex").parse::<Bytes>().expect("hex");
        let blocks = vectors["Blocks"].as_array().expect("blocks").iter().map(|block| {
            let name = block["Name"].as_str().expect("a name").to_owned();
            (name, bytes(&block["BlockRLP"]), bytes(&block["WitnessRLP"]))
        });
        Self { genesis: vectors["Genesis"].to_string(), blocks: blocks.collect() }
    }

    pub fn spec(&self) -> ChainSpec {
        ChainSpec::from_json(&self.genesis).expect("a genesis of go-ethereum")
    }
}

/// Counts outcomes by code, so that a test can see that it was not idle.
#[derive(Debug, Default)]
struct Tally(BTreeMap<&'static str, usize>);

impl Tally {
    fn count<T>(&mut self, result: &Result<T, ValidationError>) {
        let code = result.as_ref().map_or_else(ValidationError::code, |_| "valid");
        assert!(code == "valid" || CODES.contains(&code), "{code}");
        if let Err(error) = result {
            assert!(error.to_string().len() < 4_000, "{error}");
        }
        *self.0.entry(code).or_default() += 1;
    }

    #[track_caller]
    fn has(&self, codes: &[&str]) {
        for code in codes {
            assert!(self.0.contains_key(code), "no {code} among {:?}", self.0);
        }
    }
}

#[test]
fn mutated_bytes_are_errors_or_change_nothing() {
    let vectors = Vectors::load();
    let spec = vectors.spec();
    let mut tally = Tally::default();
    fuzz(3_000, |random| {
        let (_, block, witness) = &vectors.blocks[random.random_range(0..vectors.blocks.len())];
        let (mut changed_block, mut changed_witness) = (block.to_vec(), witness.to_vec());
        let target = if random.random_bool(0.5) { &mut changed_block } else { &mut changed_witness };
        mutate(target, random, ALPHABET);
        let changed_witness = Bytes::from(changed_witness);
        if let Ok(decoded) = Witness::decode(&changed_witness) {
            assert_eq!(decoded.encode(), changed_witness, "bytes that decode have one encoding");
        }
        let result = validate_bytes(&spec, &changed_block.into(), &changed_witness, Strictness::NORMAL);
        tally.count(&result);
        if let Ok((block, validated)) = &result {
            assert_eq!(validated.state_root, block.header.state_root);
            assert_eq!(validated.receipts_root, block.header.receipts_root);
        }
    });
    println!("{tally:?}");
    if std::env::var_os("FUZZ_SEED").is_none() {
        tally.has(&["witness_rlp", "block_rlp", "node_missing", "parent_missing"]);
    }
}

/// A block and a witness of which every hash is right, with `from` exchanged for `to` wherever it is named, up to the block's parent hash.
fn reseal(block: &mut Vec<u8>, witness: &mut Witness, from: B256, to: B256) {
    let mut exchanges = vec![(from, to)];
    while let Some((from, to)) = exchanges.pop() {
        for node in &mut witness.state {
            if let Some(changed) = exchange(node, &from, &to) {
                exchanges.push((keccak256(&*node), keccak256(&changed)));
                *node = changed.into();
            }
        }
        for header in &mut witness.headers {
            if let Some(changed) = exchange(header, &from, &to) {
                exchanges.push((keccak256(&*header), keccak256(&changed)));
                *header = changed.into();
            }
        }
        if let Some(changed) = exchange(block, &from, &to) {
            *block = changed;
        }
    }
}

/// `bytes` with every `from` exchanged for `to`; `None` when there is none.
fn exchange(bytes: &[u8], from: &B256, to: &B256) -> Option<Vec<u8>> {
    let places: Vec<usize> = (0..bytes.len().saturating_sub(31)).filter(|at| bytes[*at..at + 32] == from[..]).collect();
    let mut changed = bytes.to_vec();
    for at in &places {
        changed[*at..at + 32].copy_from_slice(to.as_slice());
    }
    (!places.is_empty()).then_some(changed)
}

/// Changes one node or code and everything that names it.
fn poison(random: &mut StdRng, block: &mut Vec<u8>, witness: &mut Witness) {
    let list = if random.random_bool(0.8) { &mut witness.state } else { &mut witness.codes };
    let index = random.random_range(0..list.len());
    let mut bytes = list[index].to_vec();
    let from = keccak256(&bytes);
    mutate(&mut bytes, random, ALPHABET);
    let to = keccak256(&bytes);
    list[index] = bytes.into();
    reseal(block, witness, from, to);
}

#[test]
fn states_that_are_wrong_inside_are_errors() {
    let vectors = Vectors::load();
    let spec = vectors.spec();
    let mut tally = Tally::default();
    fuzz(6_000, |random| {
        let (_, block, witness) = &vectors.blocks[random.random_range(0..vectors.blocks.len())];
        let mut block = block.to_vec();
        let mut witness = Witness::decode(witness).expect("a witness of go-ethereum");
        for _ in 0..random.random_range(1..=2) {
            poison(random, &mut block, &mut witness);
        }
        let Ok(block) = StatelessBlock::decode(&block.into()) else { return };
        for strictness in [Strictness::NORMAL, Strictness::CANONICAL] {
            let result = validate(&spec, &block, &witness, strictness);
            tally.count(&result);
            if let Ok(validated) = &result {
                assert_eq!(validated.state_root, block.header.state_root);
            }
        }
    });
    println!("{tally:?}");
    if std::env::var_os("FUZZ_SEED").is_none() {
        tally.has(&["node_malformed", "node_missing", "state_root", "gas_used", "entry_order"]);
    }
}

/// A trie that leads back into the same node costs a path, not a tree: hashes cannot run in a circle, but many places can name one node.
#[test]
fn a_node_that_many_places_name_costs_one_path() {
    let vectors = Vectors::load();
    let spec = vectors.spec();
    let (_, block, witness) = &vectors.blocks[0];
    let mut witness = Witness::decode(witness).expect("a witness of go-ethereum");
    let branch_of = |hash: B256| {
        let mut rlp = vec![0xf9, 0x02, 0x11];
        (0..16).for_each(|_| rlp.extend_from_slice(&[&[0xa0], hash.as_slice()].concat()));
        rlp.push(0x80);
        rlp
    };
    let mut hash = B256::repeat_byte(1);
    for _ in 0..70 {
        let rlp = branch_of(hash);
        hash = keccak256(&rlp);
        witness.state.push(rlp.into());
    }
    let block_header = StatelessBlock::decode(block).expect("a block of go-ethereum").header;
    let parent = witness.headers.last().expect("a parent").clone();
    let root = native_sequencer::witness::validator::ancestors::Ancestors::find(&block_header, &witness.headers)
        .expect("linked")
        .parent()
        .state_root;
    let mut block = block.to_vec();
    let mut linked = Witness { headers: vec![parent], ..witness };
    reseal(&mut block, &mut linked, root, hash);
    let error = validate_bytes(&spec, &block.into(), &linked.encode().into(), Strictness::NORMAL)
        .expect_err("there are no accounts in it");
    assert_eq!(error.code(), "node_malformed", "{error}");
    assert!(error.to_string().contains("64 nibbles below the root"), "{error}");
}
