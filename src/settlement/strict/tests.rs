//! Chains through segments, batches and back; every byte changed; every claim of a batch changed.

use super::*;
use crate::primitives::{Address, Bytes, U256};
use crate::settlement::batch::{BatchBlock, Compression};
use crate::settlement::packer::{Event, PackedBatch, Packer, PackerSettings};
use crate::settlement::segment::{CutLimits, Segment, cut};
use crate::testing::rng::SimRng;
use crate::testing::sealed_chain::{SealedChain, SealedTestBlock, mix_hash_of, origin};

/// An L1 on which every origin of the tests is.
struct TestOrigins;

impl Origins for TestOrigins {
    fn mix_hash(&self, asked: &Origin) -> OriginAnswer {
        if *asked == origin(asked.number) { OriginAnswer::Known(mix_hash_of(asked)) } else { OriginAnswer::Missing }
    }
}

struct Settled {
    chain: SealedChain,
    blocks: Vec<SealedTestBlock>,
    batches: Vec<PackedBatch>,
}

fn segments_of(chain: &SealedChain, sealed: &SealedTestBlock, tx_bytes_max: usize) -> Vec<Segment> {
    let limits = CutLimits { tx_bytes_max, first_tx_bytes_max: tx_bytes_max, ..CutLimits::default() };
    cut(&chain.spec, &sealed.block, &sealed.witness, sealed.origin, &limits).expect("our own block")
}

fn settle(seed: u64, block_count: u64, txs_max: u64, cut_bytes: usize, settings: PackerSettings) -> Settled {
    let mut rng = SimRng::new(seed);
    let mut chain = SealedChain::new(30, 10);
    let genesis = Tip::genesis(chain.genesis.clone(), origin(0));
    let mut packer = Packer::new(settings, genesis.start());
    let (mut blocks, mut batches) = (Vec::new(), Vec::new());
    for now_ns in 0..block_count {
        let tx_count = txs_max.div_ceil(2) + rng.below(txs_max / 2 + 1);
        let sealed = chain.any_block(&mut rng, tx_count);
        let segments = segments_of(&chain, &sealed, cut_bytes);
        batches.extend(packer.step(Event::Segments(segments), now_ns).expect("in order"));
        blocks.push(sealed);
    }
    batches.extend(packer.step(Event::Flush, block_count).expect("nothing comes in"));
    Settled { chain, blocks, batches }
}

/// Derives everything and compares it with what was sealed.
fn check_derived(settled: &Settled) -> usize {
    let mut tip = Tip::genesis(settled.chain.genesis.clone(), origin(0));
    let (mut derived, mut inside) = (Vec::new(), 0);
    for packed in &settled.batches {
        assert_eq!(tip.start().position, packed.begin);
        let proof = check(&settled.chain.spec, &packed.payload, &NoOrigins).expect("it stands by itself");
        let advance = advance(&settled.chain.spec, &tip, &packed.payload, &TestOrigins).expect("it follows");
        assert_eq!(proof.post_state_root, advance.proof.post_state_root);
        assert_eq!(proof.digest, packed.digest);
        assert_eq!(advance.tip.start().position, packed.next);
        inside += usize::from(advance.tip.open.is_some());
        derived.extend(advance.blocks);
        tip = advance.tip;
    }
    assert_eq!(derived.len(), settled.blocks.len());
    for (derived, sealed) in derived.iter().zip(&settled.blocks) {
        assert_eq!(derived.hash, sealed.block.hash);
        assert_eq!((&derived.header, derived.origin), (&sealed.block.header, sealed.origin));
        let read = crate::witness::validator::StatelessBlock::decode(&derived.rlp).expect("RLP of a block");
        assert_eq!((read.hash, read.transactions.len()), (derived.hash, derived.receipts.len()));
    }
    assert_eq!(tip.hash, settled.chain.tip().1);
    inside
}

#[test]
fn what_is_settled_is_derived_again() {
    let small = PackerSettings { tx_bytes_max: 10_000, ..PackerSettings::default() };
    let mut inside = 0;
    for compression in [Compression::Stored, Compression::Zstd] {
        inside += check_derived(&settle(1, 12, 20, 7_000, PackerSettings { compression, ..small }));
        check_derived(&settle(2, 12, 10, 131_072, PackerSettings { compression, ..PackerSettings::default() }));
        let one = PackerSettings { segments_max: 1, compression, ..PackerSettings::default() };
        inside += check_derived(&settle(3, 4, 20, 7_000, one));
    }
    assert!(inside > 6, "{inside} batches end inside a block");
}

#[test]
fn a_block_over_several_batches_is_checked_whole() {
    let one = PackerSettings { segments_max: 1, ..PackerSettings::default() };
    let settled = settle(4, 1, 40, 7_000, one);
    assert!(settled.batches.len() > 2);
    let last = settled.batches.last().expect("at least one");
    let spec = &settled.chain.spec;
    let alone = check(spec, &last.payload, &TestOrigins).expect("it stands by itself");
    assert_eq!(alone.blocks[0].header, None, "by itself it proves no header");
    // With another hash at its end it still stands by itself, and is refused where the whole block is known.
    let mut batch = Batch::decode(&last.payload.data).expect("ours");
    batch.blocks[0].hash = Some(B256::repeat_byte(7));
    let payload = Payload { data: batch.encode(Compression::Stored).into(), ..last.payload.clone() };
    assert!(check(spec, &payload, &TestOrigins).is_ok());
    let mut tip = Tip::genesis(settled.chain.genesis.clone(), origin(0));
    for packed in &settled.batches[..settled.batches.len() - 1] {
        tip = advance(spec, &tip, &packed.payload, &TestOrigins).expect("it follows").tip;
    }
    assert_eq!(advance(spec, &tip, &payload, &TestOrigins).expect_err("refused").code(), "block_hash");
    assert_eq!(advance(spec, &tip, &last.payload, &TestOrigins).expect("the true one").blocks.len(), 1);
}

/// Two blocks of a few transactions in one batch.
fn small(compression: Compression) -> (Settled, Tip) {
    let settled = settle(6, 2, 3, 131_072, PackerSettings { compression, ..PackerSettings::default() });
    assert_eq!(settled.batches.len(), 1);
    let tip = Tip::genesis(settled.chain.genesis.clone(), origin(0));
    (settled, tip)
}

/// `SETTLEMENT_FLIP_STEP=1` changes every byte of Data and Witness, one after the other; by default every 13th.
#[test]
fn no_changed_byte_is_another_chain() {
    let step = std::env::var("SETTLEMENT_FLIP_STEP").ok().and_then(|step| step.parse().ok()).unwrap_or(13);
    for compression in [Compression::Stored, Compression::Zstd] {
        let (settled, tip) = small(compression);
        let payload = &settled.batches[0].payload;
        let spec = &settled.chain.spec;
        let truth = advance(spec, &tip, payload, &TestOrigins).expect("ours");
        let mut same = 0;
        let mut look = |payload: &Payload, what: &str, at: usize| {
            if let Ok(advance) = advance(spec, &tip, payload, &TestOrigins) {
                assert_eq!(advance.blocks, truth.blocks, "{what}[{at}]");
                assert_eq!((advance.tip.hash, &advance.tip.open), (truth.tip.hash, &truth.tip.open), "{what}[{at}]");
                same += 1;
            }
        };
        let flip = |bytes: &Bytes, at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1 << (at % 8);
            Bytes::from(bytes)
        };
        for at in (0..payload.data.len()).step_by(step) {
            look(&Payload { data: flip(&payload.data, at), ..payload.clone() }, "Data", at);
        }
        for at in (0..payload.witness.len()).step_by(step) {
            look(&Payload { witness: flip(&payload.witness, at), ..payload.clone() }, "Witness", at);
        }
        for at in 0..payload.withdrawals.len() {
            look(&Payload { withdrawals: flip(&payload.withdrawals, at), ..payload.clone() }, "Withdrawals", at);
        }
        for at in 0..32 {
            look(&Payload { anchor: flip(&payload.anchor, at), ..payload.clone() }, "Anchor", at);
            let pre_state_root =
                B256::from_slice(&flip(&Bytes::copy_from_slice(payload.pre_state_root.as_slice()), at));
            look(&Payload { pre_state_root, ..payload.clone() }, "PreStateHash", at);
        }
        for bit in 0..64 {
            look(&Payload { timestamp: payload.timestamp ^ 1 << bit, ..payload.clone() }, "Timestamp", bit);
            look(&Payload { block_number: payload.block_number ^ 1 << bit, ..payload.clone() }, "BlockNumber", bit);
        }
        look(&Payload { coinbase: Address::ZERO, ..payload.clone() }, "Coinbase", 0);
        // A stored batch has one encoding; only a frame may say the same in two ways.
        assert!(same == 0 || compression == Compression::Zstd, "{same}");
    }
}

#[track_caller]
fn check_changed(change: impl FnOnce(&mut Batch, &mut Payload), expected: &str) {
    let (settled, tip) = small(Compression::Stored);
    let mut payload = settled.batches[0].payload.clone();
    let mut batch = Batch::decode(&payload.data).expect("ours");
    change(&mut batch, &mut payload);
    let payload = Payload { data: batch.encode(Compression::Stored).into(), ..payload };
    let error = advance(&settled.chain.spec, &tip, &payload, &TestOrigins).expect_err("refused");
    assert_eq!(error.code(), expected, "{error}");
    assert!(CODES.contains(&expected) || expected.starts_with("rule_") || expected.starts_with("witness_"));
}

#[track_caller]
fn check_block(change: impl FnOnce(&mut BatchBlock), expected: &str) {
    check_changed(|batch, _| change(&mut batch.blocks[1]), expected);
}

#[test]
fn each_false_claim_has_its_own_code() {
    check_changed(|batch, _| batch.index = 1, "index");
    check_changed(|batch, _| batch.previous_digest = B256::ZERO, "previous_digest");
    check_changed(|_, payload| payload.pre_state_root = B256::ZERO, "pre_state");
    check_changed(|_, payload| payload.block_number += 1, "block_number");
    check_changed(|_, payload| payload.to = Some(Address::ZERO), "target");
    check_changed(|_, payload| payload.value = U256::from(1), "value");
    check_changed(|_, payload| payload.coinbase = Address::ZERO, "first_block");
    check_changed(|_, payload| payload.timestamp += 1, "first_block");
    check_changed(|_, payload| payload.anchor = Bytes::new(), "anchor");
    check_changed(|_, payload| payload.witness = vec![0; 65_536].into(), "field_too_long");
    check_changed(|_, payload| payload.witness = Bytes::new(), "witness_rlp");
    check_changed(|_, payload| payload.withdrawals = Bytes::new(), "withdrawals_rlp");
    check_changed(|_, payload| payload.withdrawals = Bytes::from_static(&[0xc1, 0xc0]), "withdrawals");
    check_changed(|_, payload| payload.withdrawals = Bytes::from_static(&[0xc3, 0xc0, 0xc0, 0xc0]), "withdrawals");
    let lower = |batch: &mut Batch, payload: &mut Payload| {
        batch.blocks[1].origin = origin(1);
        payload.anchor = Bytes::copy_from_slice(origin(1).hash.as_slice());
    };
    check_changed(lower, "origin_decreases");
    check_block(|block| block.timestamp -= 1, "rule_timestamp");
    check_block(|block| block.gas_limit *= 2, "rule_gas_limit");
    check_block(|block| block.prev_randao = B256::ZERO, "prev_randao");
    check_block(|block| block.extra_data = Bytes::new(), "block_hash");
    check_block(|block| block.hash = Some(B256::ZERO), "block_hash");
    check_block(|block| block.segments[0].gas_used_before = 1, "gas_used_before");
    check_block(|block| block.segments[0].post_state_root = B256::ZERO, "post_state_root");
    check_block(|block| block.segments[0].receipts_digest = B256::ZERO, "receipts_digest");
    check_block(|block| block.segments[0].transactions.push(Bytes::from_static(&[3])), "transaction_bytes");
    let repeat = |block: &mut BatchBlock| {
        let tx = block.segments[0].transactions[0].clone();
        block.segments[0].transactions.push(tx);
    };
    check_block(repeat, "transaction_invalid");
    let inside = |batch: &mut Batch, _: &mut Payload| {
        batch.blocks[0].continued = Some(crate::settlement::batch::Continued { base_fee_wei: 1, first_tx_index: 0 });
    };
    check_changed(inside, "place");
    let again = |batch: &mut Batch, payload: &mut Payload| {
        let witness = crate::witness::Witness::decode(&payload.witness).expect("ours");
        batch.overflow.state.push(witness.state[0].clone());
    };
    check_changed(again, "entry_repeated");
    let without_header = |_: &mut Batch, payload: &mut Payload| {
        let mut witness = crate::witness::Witness::decode(&payload.witness).expect("ours");
        witness.headers.clear();
        payload.witness = witness.encode_as(crate::witness::Form::EXECUTE_TX_V2).into();
    };
    check_changed(without_header, "parent_missing");
    let root_elsewhere = |batch: &mut Batch, payload: &mut Payload| {
        let mut witness = crate::witness::Witness::decode(&payload.witness).expect("ours");
        batch.overflow.state.append(&mut witness.state);
        payload.witness = witness.encode_as(crate::witness::Form::EXECUTE_TX_V2).into();
    };
    check_changed(root_elsewhere, "root_node_missing");
    let without_nodes = |_: &mut Batch, payload: &mut Payload| {
        let mut witness = crate::witness::Witness::decode(&payload.witness).expect("ours");
        let root = payload.pre_state_root;
        witness.state.retain(|node| crate::crypto::keccak::keccak256(node) == root);
        payload.witness = witness.encode_as(crate::witness::Form::EXECUTE_TX_V2).into();
    };
    check_changed(without_nodes, "node_missing");
}

#[test]
fn without_an_l1_claims_stand_and_with_one_they_are_compared() {
    let (settled, _) = small(Compression::Stored);
    let (spec, payload) = (&settled.chain.spec, &settled.batches[0].payload);
    assert!(check(spec, payload, &NoOrigins).is_ok());
    struct Other;
    impl Origins for Other {
        fn mix_hash(&self, _: &Origin) -> OriginAnswer {
            OriginAnswer::Missing
        }
    }
    assert_eq!(check(spec, payload, &Other).expect_err("refused").code(), "origin_unknown");
}

#[test]
fn every_code_is_documented() {
    let document = include_str!("../../../docs/BATCH_FORMAT.md");
    for code in CODES {
        assert!(document.contains(&format!("`{code}`")), "{code} is not in docs/BATCH_FORMAT.md");
    }
}
