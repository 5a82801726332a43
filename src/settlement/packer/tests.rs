//! When batches are closed, in which order segments come, and what a restart forgets.

use super::*;
use crate::settlement::segment::{CutLimits, cut};
use crate::settlement::strict::{self, NoOrigins, Tip};
use crate::testing::rng::SimRng;
use crate::testing::sealed_chain::{SealedChain, SealedTestBlock, origin};

struct Fixture {
    chain: SealedChain,
    sealed: Vec<SealedTestBlock>,
    start: Start,
}

impl Fixture {
    fn new(block_count: usize, tx_count: u64) -> Self {
        let mut rng = SimRng::new(9);
        let mut chain = SealedChain::new(30, 10);
        let sealed = (0..block_count).map(|_| chain.any_block(&mut rng, tx_count)).collect();
        let start = Tip::genesis(chain.genesis.clone(), origin(0)).start();
        Self { chain, sealed, start }
    }

    fn segments(&self, tx_bytes_max: usize) -> Vec<Segment> {
        let limits = CutLimits { tx_bytes_max, first_tx_bytes_max: tx_bytes_max, ..CutLimits::default() };
        let cut = |sealed: &SealedTestBlock| {
            cut(&self.chain.spec, &sealed.block, &sealed.witness, sealed.origin, &limits).expect("our own block")
        };
        self.sealed.iter().flat_map(cut).collect()
    }
}

#[test]
fn each_limit_closes_a_batch() {
    let fixture = Fixture::new(6, 12);
    let segments = fixture.segments(8_000);
    let defaults = PackerSettings { compression: Compression::Stored, ..PackerSettings::default() };
    for (settings, expected) in [
        (PackerSettings { tx_bytes_max: 9_000, ..defaults }, CloseReason::Bytes),
        (PackerSettings { l1_gas_max: 21_000 + 40 * 9_000, ..defaults }, CloseReason::Gas),
        (PackerSettings { witness_bytes_max: 6_000, ..defaults }, CloseReason::WitnessBytes),
        (PackerSettings { segments_max: 2, ..defaults }, CloseReason::Count),
    ] {
        let mut packer = Packer::new(settings, fixture.start);
        let mut batches = packer.step(Event::Segments(segments.clone()), 1).expect("in order");
        assert!(batches.len() > 2 && batches.iter().all(|batch| batch.closed_by == expected), "{expected:?}");
        let bytes_max = settings.tx_bytes_max.min(bytes_of_gas(settings.l1_gas_max));
        assert!(batches.iter().all(|batch| batch.tx_bytes <= bytes_max));
        batches.extend(packer.step(Event::Flush, 2).expect("nothing comes in"));
        assert_eq!(packer.backlog(), Backlog::default());
        assert_eq!(batches.iter().map(|batch| batch.tx_count).sum::<usize>(), 6 * 12);
        for pair in batches.windows(2) {
            assert_eq!((pair[0].index + 1, pair[0].digest), (pair[1].index, pair[1].previous_digest));
            assert_eq!(pair[0].next, pair[1].begin);
        }
        for batch in &batches {
            strict::check(&fixture.chain.spec, &batch.payload, &NoOrigins).expect("it stands by itself");
        }
    }
}

#[test]
fn age_closes_what_is_there() {
    let fixture = Fixture::new(2, 2);
    let settings = PackerSettings { age_ns_max: 100, ..PackerSettings::default() };
    let mut packer = Packer::new(settings, fixture.start);
    assert_eq!((packer.deadline_ns(), packer.step(Event::Tick, 1_000)), (None, Ok(Vec::new())));
    let mut segments = fixture.segments(131_072).into_iter();
    let mut next = || vec![segments.next().expect("two blocks")];
    packer.step(Event::Segments(next()), 10).expect("in order");
    packer.step(Event::Segments(next()), 60).expect("in order");
    let backlog = packer.backlog();
    assert_eq!((packer.deadline_ns(), backlog.blocks, backlog.segments), (Some(110), 2, 2));
    assert_eq!(packer.first_tx_bytes_max(), EXECUTE_TX_BYTES_MAX + ENVELOPE_BYTES_MAX - backlog.bytes);
    assert_eq!(packer.step(Event::Tick, 109), Ok(Vec::new()));
    let batches = packer.step(Event::Tick, 110).expect("nothing comes in");
    assert_eq!((batches.len(), batches[0].closed_by), (1, CloseReason::Age));
    assert_eq!((batches[0].first_block, batches[0].last_block), (1, 2));
}

#[test]
fn segments_come_in_order_and_a_restart_begins_anew() {
    let fixture = Fixture::new(2, 12);
    let segments = fixture.segments(6_000);
    assert!(segments.len() > 2);
    let mut packer = Packer::new(PackerSettings::default(), fixture.start);
    let error = PackError::OutOfOrder { expected: segments[0].begin(), found: segments[1].begin() };
    assert_eq!(packer.step(Event::Segments(vec![segments[1].clone()]), 0), Err(error));
    packer.step(Event::Segments(segments[..2].to_vec()), 0).expect("in order");
    assert_eq!(packer.expected(), segments[2].begin());
    // Half of the block was out and its batch was skipped: the block begins again, under another index.
    let start = Start { next_index: 7, previous_digest: B256::repeat_byte(7), position: segments[0].begin() };
    packer.step(Event::Restart(start), 0).expect("always");
    assert_eq!((packer.backlog(), packer.next()), (Backlog::default(), (7, start.previous_digest)));
    packer.step(Event::Segments(segments.clone()), 0).expect("in order");
    let batches = packer.step(Event::Flush, 0).expect("nothing comes in");
    assert_eq!((batches[0].index, batches[0].previous_digest), (7, start.previous_digest));
    assert_eq!(batches[0].begin, segments[0].begin());

    let small = PackerSettings { tx_bytes_max: 3_000, ..PackerSettings::default() };
    let mut packer = Packer::new(small, fixture.start);
    let error = packer.step(Event::Segments(segments), 0).expect_err("a segment of another cut");
    assert!(matches!(error, PackError::TooLarge { block: 1, bytes_max: 3_000, .. }));
}

#[test]
fn the_witness_of_a_batch_has_each_entry_once_and_nothing_that_it_makes() {
    let fixture = Fixture::new(6, 6);
    let segments = fixture.segments(131_072);
    let apart: usize = segments
        .iter()
        .map(|segment| {
            let mut aggregate = Aggregate::default();
            aggregate.add(segment);
            aggregate.witness_bytes()
        })
        .sum();
    let mut packer = Packer::new(PackerSettings::default(), fixture.start);
    packer.step(Event::Segments(segments), 0).expect("in order");
    let batches = packer.step(Event::Flush, 0).expect("nothing comes in");
    let batch = &batches[0];
    assert_eq!(batches.len(), 1);
    assert!(batch.witness_bytes < apart / 2, "{} of {apart}", batch.witness_bytes);
    assert!(batch.payload.data.len() < batch.stored_bytes);
    strict::check(&fixture.chain.spec, &batch.payload, &NoOrigins).expect("it stands by itself");
}
