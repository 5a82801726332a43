//! Round trips, bounds on both sides, hostile frames, and every byte changed.

use proptest::prelude::*;

use super::*;

fn segment(tx_count: usize) -> BatchSegment {
    BatchSegment {
        gas_used_before: 0,
        post_state_root: B256::repeat_byte(4),
        receipts_digest: B256::repeat_byte(5),
        transactions: (0..tx_count).map(|index| Bytes::from(vec![index as u8 | 1; 3])).collect(),
    }
}

fn block() -> BatchBlock {
    BatchBlock {
        timestamp: 1_700_000_001,
        coinbase: Address::repeat_byte(1),
        gas_limit: 30_000_000,
        extra_data: Bytes::from_static(b"extra"),
        origin: Origin { number: 7, hash: B256::repeat_byte(2) },
        prev_randao: B256::repeat_byte(3),
        continued: None,
        segments: vec![segment(2), segment(1)],
        hash: Some(B256::repeat_byte(6)),
    }
}

fn batch() -> Batch {
    Batch {
        index: 3,
        previous_digest: B256::repeat_byte(9),
        blocks: vec![block(), block()],
        overflow: Witness {
            headers: vec![Bytes::from_static(&[0xc1, 5])],
            codes: vec![Bytes::from_static(&[1, 2])],
            state: vec![Bytes::from_static(&[3; 33])],
        },
    }
}

#[track_caller]
fn check(batch: &Batch, expected: Result<(), BatchError>) {
    for compression in [Compression::Stored, Compression::Zstd] {
        assert_eq!(Batch::decode(&batch.encode(compression)).map(|_| ()), expected);
    }
}

/// `Data` in stored form with this body.
fn stored(body: &[u8]) -> Vec<u8> {
    data(0, body)
}

#[track_caller]
fn check_frame(frame: &[u8], expected: FrameFault) {
    assert_eq!(Batch::decode(&data(1, frame)), Err(BatchError::Frame(expected)));
}

#[test]
fn each_rule_of_the_lists_has_its_own_error() {
    check(&batch(), Ok(()));
    check(&Batch { blocks: Vec::new(), ..batch() }, Err(BatchError::BlocksEmpty));
    let with = |change: fn(&mut Batch)| {
        let mut batch = batch();
        change(&mut batch);
        batch
    };
    check(&with(|batch| batch.blocks[1].hash = None), Ok(()));
    check(&with(|batch| batch.blocks[0].hash = None), Err(BatchError::UnfinishedInside { block: 0 }));
    let continued = Some(Continued { base_fee_wei: 7, first_tx_index: 9 });
    let mut part = batch();
    part.blocks[0].continued = continued;
    check(&part, Ok(()));
    part.blocks[1].continued = continued;
    check(&part, Err(BatchError::ContinuedInside { block: 1 }));
    check(&with(|batch| batch.blocks[1].segments.clear()), Err(BatchError::SegmentsEmpty { block: 1 }));
    // The first opens the block and the last closes it; what is between must hold something.
    check(&with(|batch| batch.blocks[1].segments[0].transactions.clear()), Ok(()));
    check(&with(|batch| batch.blocks[1].segments[1].transactions.clear()), Ok(()));
    let empty = Err(BatchError::SegmentEmpty { block: 1, segment: 1 });
    check(&with(|batch| batch.blocks[1].segments.insert(1, segment(0))), empty);
    part.blocks.truncate(1);
    part.blocks[0].segments = vec![segment(0), segment(1)];
    check(&part, Err(BatchError::SegmentEmpty { block: 0, segment: 0 }));
    part.blocks[0].segments = vec![segment(1), segment(0)];
    check(&part, Ok(()));
    part.blocks[0].hash = None;
    check(&part, Err(BatchError::SegmentEmpty { block: 0, segment: 1 }));
    let empty = Err(BatchError::TxEmpty { block: 0, segment: 1, index: 0 });
    check(&with(|batch| batch.blocks[0].segments[1].transactions[0] = Bytes::new()), empty);
}

#[test]
fn bounds_hold_on_both_sides() {
    let mut long = batch();
    long.blocks[1].extra_data = vec![1; EXTRA_DATA_BYTES_MAX].into();
    check(&long, Ok(()));
    long.blocks[1].extra_data = vec![1; EXTRA_DATA_BYTES_MAX + 1].into();
    check(&long, Err(BatchError::ExtraData { block: 1, bytes: EXTRA_DATA_BYTES_MAX + 1 }));

    let blocks = |count, segments: usize, txs: usize| Batch {
        blocks: vec![BatchBlock { segments: vec![segment(txs); segments], ..block() }; count],
        ..batch()
    };
    check(&blocks(BLOCKS_MAX, 1, 1), Ok(()));
    check(&blocks(BLOCKS_MAX + 1, 1, 1), Err(BatchError::TooManyBlocks));
    check(&blocks(1, SEGMENTS_MAX, 1), Ok(()));
    check(&blocks(1, SEGMENTS_MAX + 1, 1), Err(BatchError::TooManySegments));
    check(&blocks(1, 1, TXS_MAX), Ok(()));
    check(&blocks(1, 1, TXS_MAX + 1), Err(BatchError::TooManyTxs));

    let mut entries = batch();
    entries.overflow.state = vec![vec![1; 576].into()];
    entries.overflow.codes = vec![vec![1; 24_576].into()];
    check(&entries, Ok(()));
    entries.overflow.state = vec![vec![1; 577].into()];
    check(&entries, Err(BatchError::Overflow { what: "a node of more than 576 bytes" }));
    entries.overflow.codes = vec![vec![1; 24_577].into()];
    check(&entries, Err(BatchError::Overflow { what: "a code of more than 24,576 bytes" }));
    entries.overflow.codes = vec![Bytes::new()];
    check(&entries, Err(BatchError::Overflow { what: "an empty entry" }));
    entries.overflow.headers = vec![Bytes::from_static(&[0xc0]); 257];
    check(&entries, Err(BatchError::Overflow { what: "more than 256 headers" }));

    let at_most = vec![0; BODY_BYTES_MAX];
    assert!(matches!(Batch::decode(&stored(&at_most)), Err(BatchError::Rlp { .. })));
    let above = vec![0; BODY_BYTES_MAX + 1];
    assert_eq!(Batch::decode(&stored(&above)), Err(BatchError::BodyTooLong { bytes: BODY_BYTES_MAX + 1 }));
}

#[test]
fn each_rule_of_the_bytes_has_its_own_error() {
    let check = |data: &[u8], expected| assert_eq!(Batch::decode(data), Err(expected), "{data:02x?}");
    check(&[], BatchError::TooShort { bytes: 0 });
    check(&[DATA_VERSION], BatchError::TooShort { bytes: 1 });
    check(&[0, 0], BatchError::Version { found: 0 });
    check(&[2, 0], BatchError::Version { found: 2 });
    check(&[DATA_VERSION, 2], BatchError::Form { found: 2 });
    let rlp = |what, fault| BatchError::Rlp { what, fault };
    check(&stored(&[]), rlp("the body", RlpFault::Truncated { bytes_left: 0 }));
    check(&stored(&[0x80]), rlp("the body", RlpFault::UnexpectedString));
    check(&stored(&[0xc0, 1]), BatchError::TrailingBytes { bytes: 1 });
    check(&stored(&[0xc0]), BatchError::ItemCount { what: "the body", count: 0, expected: 4 });
    check(&stored(&[0xc5, 1, 1, 1, 1, 1]), BatchError::ItemCount { what: "the body", count: 5, expected: 4 });
    check(&stored(&[0xc4, 0, 1, 0xc0, 0xc0]), BatchError::Integer { what: "the batch index", bits: 64 });
    check(
        &stored(&[0xc4, 1, 1, 0xc0, 0xc0]),
        BatchError::Length { what: "the previous digest", bytes: 1, expected: 32 },
    );
}

#[test]
fn frames_are_one_bounded_and_end_the_data() {
    let body = batch().body();
    let frame = frame::compress(&body).expect("compresses");
    assert_eq!(Batch::decode(&data(1, &frame)), Ok(batch()));
    assert_eq!(frame[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    check_frame(&[], FrameFault::Header);
    check_frame(&frame[..4], FrameFault::Header);
    check_frame(&[&[0x50, 0x2a, 0x4d, 0x18][..], &frame[4..]].concat(), FrameFault::Header);
    check_frame(&frame[..frame.len() - 1], FrameFault::Corrupt);
    check_frame(&[&frame[..], &[0]].concat(), FrameFault::TrailingBytes { bytes: 1 });
    check_frame(&[&frame[..], &frame[..]].concat(), FrameFault::TrailingBytes { bytes: frame.len() });
    let with_descriptor = |bits: u8| {
        let mut frame = frame.clone();
        frame[4] |= bits;
        frame
    };
    check_frame(&with_descriptor(0x08), FrameFault::Reserved);
    check_frame(&with_descriptor(0x01), FrameFault::Dictionary);
    let header = |descriptor: u8, rest: &[u8]| [&[0x28, 0xb5, 0x2f, 0xfd, descriptor][..], rest].concat();
    // No single segment, no size.
    check_frame(&header(0, &[0, 0]), FrameFault::ContentSizeMissing);
    // Sizes of eight bytes, beside a window.
    let sized = |window, size: u64| header(0xc0, &[&[window][..], &size.to_le_bytes()].concat());
    check_frame(&sized(0, BODY_BYTES_MAX as u64 + 1), FrameFault::ContentSize { bytes: BODY_BYTES_MAX as u64 + 1 });
    check_frame(&sized(0, u64::MAX), FrameFault::ContentSize { bytes: u64::MAX });
    // A window of 8 MiB is 2^(10 + 13); the next one has an eighth more.
    check_frame(&sized(13 << 3, BODY_BYTES_MAX as u64), FrameFault::Corrupt);
    check_frame(&sized(13 << 3 | 1, 1), FrameFault::Window { bytes: 9 * 1_048_576 });
    // A single segment is its own window.
    let single = |size: u32| header(0xa0, &size.to_le_bytes());
    check_frame(&single(8 * 1_048_576), FrameFault::Corrupt);
    check_frame(&single(8 * 1_048_576 + 1), FrameFault::Window { bytes: 8 * 1_048_576 + 1 });
}

#[test]
fn a_bomb_is_refused_by_its_header_and_held_to_it() {
    let bomb = frame::compress(&vec![0; BODY_BYTES_MAX + 1]).expect("compresses");
    assert!(bomb.len() < 4_096, "{}", bomb.len());
    check_frame(&bomb, FrameFault::ContentSize { bytes: BODY_BYTES_MAX as u64 + 1 });
    // One that claims less than it holds stops there.
    let mut liar = frame::compress(&vec![0; 1 << 20]).expect("compresses");
    let at = liar.windows(4).position(|bytes| bytes == (1_u32 << 20).to_le_bytes()).expect("the size in the header");
    liar[at..at + 4].copy_from_slice(&(1_u32 << 16).to_le_bytes());
    check_frame(&liar, FrameFault::Corrupt);
    let most = frame::compress(&vec![0; 8 * 1_048_576]).expect("compresses");
    assert!(matches!(Batch::decode(&data(1, &most)), Err(BatchError::Rlp { .. })));
}

#[test]
fn no_changed_byte_gives_the_same_batch_but_in_a_frame() {
    let batch = batch();
    for at in 0..batch.encode(Compression::Stored).len() {
        for bit in [0x01, 0x80] {
            let mut data = batch.encode(Compression::Stored);
            data[at] ^= bit;
            assert_ne!(Batch::decode(&data), Ok(batch.clone()), "byte {at}");
        }
    }
    for at in 0..batch.encode(Compression::Zstd).len() {
        let mut data = batch.encode(Compression::Zstd);
        data[at] ^= 0x10;
        // Whatever comes out of it is a batch by the rules, or an error; a changed frame may have the same content.
        if let Ok(decoded) = Batch::decode(&data) {
            assert_eq!(Batch::decode(&decoded.encode(Compression::Stored)), Ok(decoded));
        }
    }
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 1..max).prop_map(Bytes::from)
}

fn any_hash() -> impl Strategy<Value = B256> {
    any::<[u8; 32]>().prop_map(B256::from)
}

fn any_segment() -> impl Strategy<Value = BatchSegment> {
    (any::<u64>(), any_hash(), any_hash(), proptest::collection::vec(bytes(200), 1..4)).prop_map(
        |(gas_used_before, post_state_root, receipts_digest, transactions)| BatchSegment {
            gas_used_before,
            post_state_root,
            receipts_digest,
            transactions,
        },
    )
}

fn any_block() -> impl Strategy<Value = BatchBlock> {
    let facts = (any::<u64>(), any::<[u8; 20]>(), any::<u64>(), proptest::collection::vec(any::<u8>(), 0..33));
    let rest = (any::<u64>(), any_hash(), any_hash(), any_hash(), proptest::collection::vec(any_segment(), 1..4));
    (facts, rest).prop_map(
        |((timestamp, coinbase, gas_limit, extra), (number, origin, prev_randao, hash, segments))| BatchBlock {
            timestamp,
            coinbase: coinbase.into(),
            gas_limit,
            extra_data: extra.into(),
            origin: Origin { number, hash: origin },
            prev_randao,
            continued: None,
            segments,
            hash: Some(hash),
        },
    )
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(
        index in any::<u64>(),
        previous_digest in any_hash(),
        mut blocks in proptest::collection::vec(any_block(), 1..4),
        (continued, unfinished) in (any::<Option<(u64, u32)>>(), any::<bool>()),
        codes in proptest::collection::vec(bytes(300), 0..3),
        state in proptest::collection::vec(bytes(576), 0..3),
    ) {
        blocks[0].continued =
            continued.map(|(base_fee_wei, first_tx_index)| Continued { base_fee_wei, first_tx_index });
        if unfinished {
            blocks.last_mut().expect("at least one").hash = None;
        }
        let batch = Batch { index, previous_digest, blocks, overflow: Witness { headers: Vec::new(), codes, state } };
        for compression in [Compression::Stored, Compression::Zstd] {
            prop_assert_eq!(Batch::decode(&batch.encode(compression)), Ok(batch.clone()));
        }
    }

    #[test]
    fn bytes_are_a_batch_by_the_rules_or_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        bytes.splice(0..bytes.len().min(2), [DATA_VERSION, 0]);
        if let Ok(batch) = Batch::decode(&bytes) {
            prop_assert_eq!(batch.encode(Compression::Stored), bytes);
        }
    }
}
