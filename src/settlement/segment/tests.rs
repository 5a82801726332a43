//! Random blocks, cut in many ways: every segment executes alone, by the strict check, and needs each of its entries.

use super::*;
use crate::crypto::keccak::keccak256;
use crate::primitives::U256;
use crate::settlement::batch::Compression;
use crate::settlement::packer::{Event, PackedBatch, Packer, PackerSettings, Start};
use crate::settlement::siblings::{Question, nodes, questions};
use crate::settlement::strict::{self, NoOrigins};
use crate::state::StateReader;
use crate::testing::rng::SimRng;
use crate::testing::sealed_chain::{STORE, SealedChain, SealedTestBlock, origin};
use crate::witness::validator::{Strictness, validate};

fn limits(tx_bytes_max: usize) -> CutLimits {
    CutLimits { tx_bytes_max, first_tx_bytes_max: tx_bytes_max, ..CutLimits::default() }
}

fn cut_test_block(chain: &SealedChain, sealed: &SealedTestBlock, limits: &CutLimits) -> Vec<Segment> {
    cut(&chain.spec, &sealed.block, &sealed.witness, sealed.origin, limits).expect("our own block")
}

/// The segment alone in an ExecuteTx.
fn alone(segment: &Segment) -> PackedBatch {
    let start = Start { next_index: 3, previous_digest: B256::ZERO, position: segment.begin() };
    let settings = PackerSettings { compression: Compression::Stored, ..PackerSettings::default() };
    let mut packer = Packer::new(settings, start);
    packer.step(Event::Segments(vec![segment.clone()]), 0).expect("it fits by itself");
    packer.step(Event::Flush, 0).expect("nothing comes in").remove(0)
}

/// Whether the segments are the block, one after the other.
fn check_joined(sealed: &SealedTestBlock, segments: &[Segment]) {
    let raws: Vec<&Bytes> = segments.iter().flat_map(|segment| &segment.transactions).collect();
    assert!(raws.into_iter().eq(sealed.block.transactions.iter().map(|tx| &tx.raw)));
    for pair in segments.windows(2) {
        assert_eq!(pair[0].end(), pair[1].begin());
        assert!(!pair[0].closes_block && !pair[1].opens_block);
    }
    assert!(segments[0].opens_block && segments[segments.len() - 1].closes_block);
    assert_eq!(segments[segments.len() - 1].post_state_root, sealed.block.header.state_root);
}

#[test]
fn every_segment_of_random_blocks_executes_alone() {
    let mut rng = SimRng::new(5);
    let mut chain = SealedChain::new(40, 12);
    let (mut parts, mut with_made) = (0, 0);
    for _ in 0..25 {
        let tx_count = 1 + rng.below(25);
        let sealed = chain.any_block(&mut rng, tx_count);
        let tx_bytes_max = [7_000, 9_000, 14_000, 131_072][rng.below(4) as usize];
        let segments = cut_test_block(&chain, &sealed, &limits(tx_bytes_max));
        check_joined(&sealed, &segments);
        parts += segments.len();
        for segment in &segments {
            let packed = alone(segment);
            assert!(packed.tx_bytes <= tx_bytes_max, "{} of {tx_bytes_max}", packed.tx_bytes);
            let proof = strict::check(&chain.spec, &packed.payload, &NoOrigins).expect("it executes alone");
            assert_eq!(proof.post_state_root, segment.post_state_root);
            with_made += usize::from(!segment.made_codes.is_empty());
        }
    }
    assert!(parts > 40 && with_made > 3, "{parts} segments, {with_made} with codes of their own");
}

/// What `eth_getProof` gives for a question, in its shape.
fn proof(sealed: &SealedTestBlock, question: &Question) -> serde_json::Value {
    let slots: Vec<U256> = question.slots.iter().map(|slot| U256::from_be_bytes(slot.0)).collect();
    let proof = sealed.parent.proof(&question.address, &slots).expect("a readable state");
    let storage: Vec<_> = proof.storage.iter().map(|slot| serde_json::json!({ "proof": slot.proof })).collect();
    serde_json::json!({ "accountProof": proof.account_proof, "storageProof": storage })
}

/// Writes a value into each of the slots, eight a transaction.
fn store(chain: &mut SealedChain, slots: &[u64], value: u64) -> Vec<Bytes> {
    let input = |slots: &[u64]| {
        let words = slots.iter().flat_map(|slot| [U256::from(*slot), U256::from(value)]);
        words.flat_map(|word| word.to_be_bytes::<32>()).collect::<Vec<u8>>()
    };
    slots.chunks(8).map(|slots| chain.call(0, Some(STORE), 0, input(slots).into())).collect()
}

/// What segments are, but for the order of their nodes, which is free.
fn gist(segments: &[Segment]) -> Vec<(u32, B256, Vec<B256>)> {
    let nodes = |segment: &Segment| {
        let mut hashes: Vec<B256> = segment.nodes.iter().map(|node| node.hash).collect();
        hashes.sort_unstable();
        hashes
    };
    segments.iter().map(|segment| (segment.first_tx_index, segment.post_state_root, nodes(segment))).collect()
}

#[test]
fn what_a_canonical_witness_lacks_is_listed_and_had_by_proofs() {
    let mut chain = SealedChain::new(40, 12);
    let (all, even): (Vec<u64>, Vec<u64>) = ((0..96).collect(), (0..96).step_by(2).collect());
    let raws = store(&mut chain, &all, 7);
    chain.seal(raws, origin(1), Vec::new());
    let (mut had, mut rounds) = (0, 0);
    for value in 8..11 {
        // At the end no slot is cleared; between segments half of them are.
        let raws = [store(&mut chain, &even, 0), store(&mut chain, &even, value)].concat();
        let sealed = chain.seal(raws, origin(1), Vec::new());
        let limits = limits(14_000);
        let mut witness = sealed.canonical();
        let validated = validate(&chain.spec, &sealed.block, &witness, Strictness::NORMAL).expect("it is canonical");
        let segments = loop {
            let missing = match cut(&chain.spec, &sealed.block, &witness, sealed.origin, &limits) {
                Err(CutError::Siblings(missing)) => missing,
                segments => break segments.expect("our own block"),
            };
            let asked = questions(&missing, &validated.executed.accesses.accounts);
            let answers: Vec<_> = asked.iter().map(|question| proof(&sealed, question)).collect();
            let found: Vec<Bytes> = answers.iter().flat_map(|answer| nodes(answer, &missing)).collect();
            assert!(missing.iter().all(|sibling| found.iter().any(|node| keccak256(node) == sibling.hash)));
            had += missing.len();
            rounds += 1;
            witness.state.extend(found);
        };
        assert!(segments.len() > 2, "{} segments", segments.len());
        assert_eq!(gist(&segments), gist(&cut_test_block(&chain, &sealed, &limits)), "as with the reserve");
    }
    assert!(had > 0 && rounds <= 6, "{had} siblings in {rounds} rounds");
}

#[test]
fn a_segment_needs_each_of_its_entries() {
    let mut rng = SimRng::new(8);
    let mut chain = SealedChain::new(40, 12);
    let (mut tried, mut codes_tried) = (0, 0);
    for _ in 0..4 {
        let sealed = chain.any_block(&mut rng, 12);
        for segment in cut_test_block(&chain, &sealed, &limits(8_000)) {
            for index in 0..segment.nodes.len() {
                let mut without = segment.clone();
                let node = without.nodes.remove(index);
                // One content at two places is one entry.
                if without.nodes.iter().any(|other| other.hash == node.hash) {
                    continue;
                }
                tried += 1;
                let error = strict::check(&chain.spec, &alone(&without).payload, &NoOrigins);
                let code = error.expect_err("a node is missing").code();
                assert!(["node_missing", "sibling_missing", "root_node_missing"].contains(&code), "{code}");
            }
            for index in 0..segment.codes.len() {
                let mut without = segment.clone();
                without.codes.remove(index);
                codes_tried += 1;
                let error = strict::check(&chain.spec, &alone(&without).payload, &NoOrigins);
                assert_eq!(error.expect_err("a code is missing").code(), "code_missing");
            }
        }
    }
    assert!(tried > 200 && codes_tried > 5, "{tried} nodes, {codes_tried} codes");
}

#[test]
fn a_thousand_transfers_are_cut_full() {
    let mut chain = SealedChain::new(2_000, 1_000);
    let strangers: Vec<_> = chain.spec.genesis.alloc.keys().copied().collect();
    let raws =
        (0..1_000).map(|index| chain.transfer(index, strangers[(index * 7_919 + 13) % strangers.len()])).collect();
    let sealed = chain.seal(raws, origin(7), Vec::new());
    let segments = cut_test_block(&chain, &sealed, &CutLimits::default());
    check_joined(&sealed, &segments);
    for (index, segment) in segments.iter().enumerate() {
        let packed = alone(segment);
        strict::check(&chain.spec, &packed.payload, &NoOrigins).expect("it executes alone");
        assert!(index + 1 == segments.len() || packed.tx_bytes > EXECUTE_TX_BYTES_MAX - 6_000, "{}", packed.tx_bytes);
    }
}

#[test]
fn boundaries_and_first_limits_are_kept() {
    let mut rng = SimRng::new(2);
    let mut chain = SealedChain::new(40, 12);
    let sealed = chain.any_block(&mut rng, 10);
    for boundary in 0..=10 {
        let limits = CutLimits { boundary_tx_index: Some(boundary), ..CutLimits::default() };
        let segments = cut_test_block(&chain, &sealed, &limits);
        assert_eq!(segments.len(), 2);
        assert_eq!((segments[1].first_tx_index, segments[1].opens_block), (boundary, false));
        for segment in &segments {
            strict::check(&chain.spec, &alone(segment).payload, &NoOrigins).expect("it executes alone");
        }
    }
    let small = CutLimits { first_tx_bytes_max: 6_000, ..CutLimits::default() };
    let segments = cut_test_block(&chain, &sealed, &small);
    assert!(segments.len() == 2 && alone(&segments[0]).tx_bytes <= 6_000);
    let none = CutLimits { first_tx_bytes_max: 100, ..CutLimits::default() };
    assert_eq!(cut_test_block(&chain, &sealed, &none).len(), 1);
    let error = cut(&chain.spec, &sealed.block, &sealed.witness, sealed.origin, &limits(2_000));
    assert!(matches!(error, Err(CutError::TooLarge { what: Step::Opening, bytes_max: 2_000, .. })));
    let gas = CutLimits { l1_gas_max: 21_000 + 40 * 8_000, ..CutLimits::default() };
    assert!(cut_test_block(&chain, &sealed, &gas).iter().all(|segment| alone(segment).tx_bytes <= 8_000));
}

#[test]
fn what_is_not_the_block_is_not_cut() {
    let mut rng = SimRng::new(3);
    let mut chain = SealedChain::new(40, 12);
    let sealed = chain.any_block(&mut rng, 10);
    let limits = CutLimits::default();
    let cut = |block: &StatelessBlock, witness: &Witness, origin| cut(&chain.spec, block, witness, origin, &limits);
    let code = |result: Result<Vec<Segment>, CutError>| result.expect_err("refused").code();
    assert_eq!(code(cut(&sealed.block, &sealed.witness, origin(9_999))), "origin_differs");
    let with = |change: fn(&mut Header)| {
        let mut header = sealed.block.header.clone();
        change(&mut header);
        StatelessBlock::new(header, sealed.block.transactions.clone(), sealed.block.withdrawals.clone())
    };
    for (expected, block) in [
        ("gas_used", with(|header| header.gas_used += 1)),
        ("state_root", with(|header| header.state_root = B256::ZERO)),
        ("receipts_root", with(|header| header.receipts_root = B256::ZERO)),
        ("rule_base_fee", with(|header| header.base_fee_per_gas = Some(1))),
        ("transactions_root", with(|header| header.transactions_root = B256::ZERO)),
    ] {
        assert_eq!(code(cut(&block, &sealed.witness, sealed.origin)), expected);
    }
    let mut witness = sealed.witness.clone();
    witness.state.clear();
    assert_eq!(code(cut(&sealed.block, &witness, sealed.origin)), "node_missing");
}
