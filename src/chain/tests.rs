//! The chain database against a plain vector of blocks: random histories, crashes, damage.

use std::fs;
use std::path::{Path, PathBuf};

use alloy_consensus::Header;
use alloy_rlp::Encodable;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::test_dir::TestDir;
use super::*;
use crate::primitives::{Address, B256, Bloom, Bytes, Span, Tier};

/// Small enough that maps grow, tables fill and segments merge within a short history.
const SMALL: ChainLimits = ChainLimits {
    map_window_bytes: 4096,
    index_table_entries: 24,
    status_retention_ms: 1000,
    status_bytes_max: 64 * 64,
    status_segment_records: 16,
};

/// A block as the test keeps it: nothing encoded that the database decodes, except the header.
#[derive(Clone, Debug)]
struct ModelBlock {
    number: u64,
    hash: B256,
    header_rlp: Vec<u8>,
    withdrawals_rlp: Vec<u8>,
    requests_rlp: Vec<u8>,
    bloom: Bloom,
    txs: Vec<ModelTx>,
}

#[derive(Clone, Debug)]
struct ModelTx {
    hash: B256,
    sender: Address,
    raw: Vec<u8>,
    receipt: Receipt,
}

fn random_bytes(rng: &mut StdRng, len_max: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.random_range(0..=len_max)];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// A hash whose first eight bytes are often those of other hashes.
fn random_hash(rng: &mut StdRng) -> B256 {
    let mut hash: [u8; 32] = rng.random();
    match rng.random_range(0..4) {
        0 => hash[..8].copy_from_slice(&[0; 8]),
        1 => hash[..8].copy_from_slice(&[0xff; 8]),
        _ => {}
    }
    hash.into()
}

/// One of few addresses or topics, so that filters have something to find and something to miss.
fn few(rng: &mut StdRng) -> u8 {
    rng.random_range(0..40)
}

fn random_tx(rng: &mut StdRng, cumulative_gas_used: u64) -> ModelTx {
    let payload = random_bytes(rng, 90);
    let raw = if rng.random() {
        let mut raw = Vec::new();
        alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut raw);
        raw.extend_from_slice(&payload);
        raw
    } else {
        [&[2], payload.as_slice()].concat()
    };
    let mut logs = Vec::new();
    for _ in 0..rng.random_range(0..3) {
        let topics = (0..rng.random_range(0..=4)).map(|_| B256::repeat_byte(few(rng))).collect();
        logs.push(Log { address: Address::repeat_byte(few(rng)), topics, data: random_bytes(rng, 40).into() });
    }
    let contract_address = rng.random_bool(0.2).then(|| Address::from(rng.random::<[u8; 20]>()));
    let receipt = Receipt {
        tx_type: rng.random_range(0..5),
        success: rng.random(),
        cumulative_gas_used,
        gas_used: rng.random_range(21_000..100_000),
        contract_address,
        logs,
    };
    ModelTx { hash: random_hash(rng), sender: rng.random::<[u8; 20]>().into(), raw, receipt }
}

fn random_block(rng: &mut StdRng, number: u64, tx_count: usize) -> ModelBlock {
    let txs: Vec<ModelTx> = (0..tx_count as u64).map(|index| random_tx(rng, 21_000 * (index + 1))).collect();
    let mut bloom = Bloom::ZERO;
    for log in txs.iter().flat_map(|tx| &tx.receipt.logs) {
        bloom.accrue_raw_log(log.address, &log.topics);
    }
    let header =
        Header { number, logs_bloom: bloom, extra_data: Bytes::from(random_bytes(rng, 32)), ..Header::default() };
    let withdrawals_rlp = if rng.random() { vec![0xc0] } else { vec![] };
    let requests_rlp = if rng.random() { vec![0xc3, 0x82, 0x01, 0xaa] } else { vec![] };
    let (hash, header_rlp) = (random_hash(rng), alloy_rlp::encode(&header));
    ModelBlock { number, hash, header_rlp, withdrawals_rlp, requests_rlp, bloom, txs }
}

impl ModelBlock {
    fn append_to(&self, writer: &mut ChainWriter) -> Result<(), ChainError> {
        let (mut body, mut receipts, mut txs) = (Vec::new(), Vec::new(), Vec::new());
        for tx in &self.txs {
            let (body_start, receipts_start) = (body.len(), receipts.len());
            body.extend_from_slice(&tx.item());
            tx.receipt.encode(&mut receipts);
            let span = |start: usize, end: usize| Span { start: start as u32, len: (end - start) as u32 };
            txs.push(TxRecord {
                hash: tx.hash,
                sender: tx.sender,
                body_span: span(body_start, body.len()),
                receipt_span: span(receipts_start, receipts.len()),
            });
        }
        writer.append(&BlockRecord {
            number: self.number,
            hash: self.hash,
            header_rlp: &self.header_rlp,
            body: &body,
            withdrawals_rlp: &self.withdrawals_rlp,
            requests_rlp: &self.requests_rlp,
            txs: &txs,
            receipts: &receipts,
        })
    }

    /// The block's RLP, from its parts.
    fn rlp(&self) -> Vec<u8> {
        let items: Vec<u8> = self.txs.iter().flat_map(ModelTx::item).collect();
        let mut body = Vec::new();
        alloy_rlp::Header { list: true, payload_length: items.len() }.encode(&mut body);
        body.extend_from_slice(&items);
        let payload = [&self.header_rlp[..], &body, &[0xc0], &self.withdrawals_rlp].concat();
        let mut out = Vec::new();
        alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
        out.extend_from_slice(&payload);
        out
    }
}

impl ModelTx {
    fn item(&self) -> Vec<u8> {
        if self.raw[0] >= 0xc0 { self.raw.clone() } else { alloy_rlp::encode(self.raw.as_slice()) }
    }
}

/// Every read of every block and hash, against the model. `removed` must not be found.
#[track_caller]
fn check_all(reader: &ChainReader, blocks: &[ModelBlock], removed: &[ModelBlock]) {
    assert_eq!(reader.latest_number(), (blocks.len() as u64).checked_sub(1));
    for block in blocks {
        check_block_reads(reader, block);
    }
    assert!(reader.block_by_number(blocks.len() as u64).unwrap().is_none());
    assert!(reader.header_rlp(u64::MAX).unwrap().is_none());
    assert!(reader.bloom(blocks.len() as u64).unwrap().is_none());
    for block in removed {
        assert_eq!(reader.number_by_hash(&block.hash).unwrap(), None);
        for tx in &block.txs {
            assert_eq!(reader.transaction_by_hash(&tx.hash).unwrap(), None);
        }
    }
}

#[track_caller]
fn check_block_reads(reader: &ChainReader, block: &ModelBlock) {
    let stored = reader.block_by_number(block.number).unwrap().expect("block is stored");
    assert_eq!((stored.number(), stored.hash()), (block.number, block.hash));
    assert_eq!(stored.header_rlp().unwrap(), block.header_rlp);
    assert_eq!(stored.withdrawals_rlp().unwrap(), block.withdrawals_rlp);
    assert_eq!(stored.requests_rlp().unwrap(), block.requests_rlp);
    assert_eq!(stored.tx_count() as usize, block.txs.len());
    assert_eq!(reader.header_rlp(block.number).unwrap().as_deref(), Some(block.header_rlp.as_slice()));
    assert_eq!(reader.hash_by_number(block.number).unwrap(), Some(block.hash));
    assert_eq!(reader.number_by_hash(&block.hash).unwrap(), Some(block.number));
    assert_eq!(reader.block_by_hash(&block.hash).unwrap().map(|found| found.number()), Some(block.number));
    assert_eq!(reader.bloom(block.number).unwrap(), Some(block.bloom));
    let mut log_count = 0;
    for (index, tx) in (0..).zip(&block.txs) {
        let stored_tx = stored.tx(index).unwrap().expect("transaction is stored");
        assert_eq!((stored_tx.raw, stored_tx.hash, stored_tx.sender), (tx.raw.as_slice(), tx.hash, tx.sender));
        assert_eq!(stored.receipt(index).unwrap().as_ref(), Some(&tx.receipt));
        assert_eq!(stored.receipt_ref(index).unwrap().map(|found| found.log_index_start), Some(log_count));
        log_count += tx.receipt.logs.len() as u32;
        let place = TxLocation { number: block.number, index };
        assert_eq!(reader.transaction_by_hash(&tx.hash).unwrap(), Some(place));
    }
    assert!(stored.tx(block.txs.len() as u32).unwrap().is_none());
    assert!(stored.receipt(block.txs.len() as u32).unwrap().is_none());
    let mut rlp = Vec::new();
    stored.block_rlp(&mut rlp).unwrap();
    assert_eq!(rlp, block.rlp());
    check_log_filter(reader, block);
}

/// The filters never miss a log, and say no to what the header's bloom already denies.
#[track_caller]
fn check_log_filter(reader: &ChainReader, block: &ModelBlock) {
    let logs: Vec<&Log> = block.txs.iter().flat_map(|tx| &tx.receipt.logs).collect();
    let ask = |addresses: &[Address], topics: [&[B256]; 4]| {
        reader.may_have_logs(block.number, &LogQuery::new(addresses, topics)).unwrap()
    };
    assert_eq!(ask(&[], [&[]; 4]), !logs.is_empty());
    for log in &logs {
        let mut topics: [&[B256]; 4] = [&[]; 4];
        for (position, topic) in log.topics.iter().enumerate() {
            topics[position] = std::slice::from_ref(topic);
        }
        assert!(ask(&[log.address], topics));
        assert!(ask(&[Address::repeat_byte(0xaa), log.address], topics));
    }
    for byte in 0..40 {
        let address = Address::repeat_byte(byte);
        let bloom_denies = !block.bloom.contains_input(alloy_primitives::BloomInput::Raw(address.as_slice()));
        assert!(!(bloom_denies && ask(&[address], [&[]; 4])));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { tx_count: usize },
    Truncate { removed: usize },
    Reopen,
    Sync,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0_usize..12).prop_map(|tx_count| Step::Append { tx_count }),
        1 => (0_usize..40).prop_map(|tx_count| Step::Append { tx_count }),
        2 => (1_usize..6).prop_map(|removed| Step::Truncate { removed }),
        2 => Just(Step::Reopen),
        1 => Just(Step::Sync),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_read_like_a_vector(seed in any::<u64>(), steps in prop::collection::vec(any_step(), 1..80)) {
        let dir = TestDir::new("model");
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut writer, mut reader) = ChainWriter::open(dir.path(), SMALL).unwrap();
        let (mut blocks, mut removed): (Vec<ModelBlock>, Vec<ModelBlock>) = (Vec::new(), Vec::new());
        for (at, step) in steps.iter().enumerate() {
            match *step {
                Step::Append { tx_count } => {
                    let block = random_block(&mut rng, blocks.len() as u64, tx_count);
                    block.append_to(&mut writer).unwrap();
                    check_block_reads(&reader, &block);
                    blocks.push(block);
                }
                Step::Truncate { removed: count } => {
                    if blocks.len() > count {
                        let view = reader.view();
                        writer.truncate_to((blocks.len() - 1 - count) as u64).unwrap();
                        removed.extend(blocks.split_off(blocks.len() - count));
                        // An older view shows its blocks until their places are used again.
                        let last = view.latest_number().unwrap();
                        let hash = removed.last().unwrap().hash;
                        prop_assert_eq!(view.hash_by_number(last).unwrap(), Some(hash));
                    }
                }
                Step::Reopen => {
                    drop(writer);
                    (writer, reader) = ChainWriter::open(dir.path(), SMALL).unwrap();
                }
                Step::Sync => writer.sync().unwrap(),
            }
            if at % 8 == 0 {
                check_all(&reader, &blocks, &removed);
            }
        }
        check_all(&reader, &blocks, &removed);
        drop(writer);
        let (_writer, reader) = ChainWriter::open(dir.path(), SMALL).unwrap();
        check_all(&reader, &blocks, &removed);
    }
}

/// Five blocks, of which the first `synced` are under the checkpoint.
fn write_five(dir: &Path, synced: usize) -> Vec<ModelBlock> {
    let mut rng = StdRng::seed_from_u64(7);
    let blocks: Vec<ModelBlock> = (0..5).map(|number| random_block(&mut rng, number, 3)).collect();
    let (mut writer, _reader) = ChainWriter::open(dir, ChainLimits { index_table_entries: 1000, ..SMALL }).unwrap();
    for block in &blocks {
        block.append_to(&mut writer).unwrap();
        if block.number + 1 == synced as u64 {
            writer.sync().unwrap();
        }
    }
    blocks
}

const BLOCK_FILES: [&str; 5] = ["headers", "bodies", "receipts", "offsets", "blooms"];

fn copy_dir(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Lengths of `headers`, `bodies`, `receipts`.
fn lengths(dir: &Path) -> [usize; 3] {
    ["headers", "bodies", "receipts"].map(|name| fs::metadata(dir.join(name)).unwrap().len() as usize)
}

#[test]
fn a_file_cut_at_any_byte_of_the_last_record_loses_only_that_block() {
    let (whole, prefix) = (TestDir::new("torn-whole"), TestDir::new("torn-prefix"));
    let blocks = write_five(whole.path(), 4);
    {
        let (mut writer, _reader) = ChainWriter::open(prefix.path(), SMALL).unwrap();
        blocks[..4].iter().for_each(|block| block.append_to(&mut writer).unwrap());
    }
    let starts = lengths(prefix.path());
    for (name, start) in ["headers", "bodies", "receipts"].into_iter().zip(starts) {
        let bytes = fs::read(whole.path().join(name)).unwrap();
        for len in start..bytes.len() {
            let torn = TestDir::new("torn");
            copy_dir(whole.path(), torn.path());
            fs::write(torn.path().join(name), &bytes[..len]).unwrap();
            let (mut writer, reader) = ChainWriter::open(torn.path(), SMALL).unwrap();
            check_all(&reader, &blocks[..4], &blocks[4..]);
            assert_eq!(lengths(torn.path()), starts, "{name} cut at {len}");
            blocks[4].append_to(&mut writer).unwrap();
            check_all(&reader, &blocks, &[]);
        }
    }
}

#[test]
fn a_flipped_bit_above_the_checkpoint_cuts_there() {
    let whole = TestDir::new("flip-tail");
    let blocks = write_five(whole.path(), 3);
    let prefix = TestDir::new("flip-tail-prefix");
    {
        let (mut writer, _reader) = ChainWriter::open(prefix.path(), SMALL).unwrap();
        blocks[..3].iter().for_each(|block| block.append_to(&mut writer).unwrap());
    }
    let starts = lengths(prefix.path());
    for (name, start) in ["headers", "bodies", "receipts"].into_iter().zip(starts) {
        let bytes = fs::read(whole.path().join(name)).unwrap();
        for at in start..bytes.len() {
            let flipped = TestDir::new("flip");
            copy_dir(whole.path(), flipped.path());
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(flipped.path().join(name), &damaged).unwrap();
            let (_writer, reader) = ChainWriter::open(flipped.path(), SMALL).unwrap();
            let kept = reader.latest_number().unwrap() as usize + 1;
            // Only the padding of a body or receipt record may be flipped without loss: nobody reads it.
            assert!((3..=5).contains(&kept), "{name} at {at}: {kept} blocks");
            check_all(&reader, &blocks[..kept], &blocks[kept..]);
        }
    }
}

/// Reads everything through every path; the first error.
fn read_everything(reader: &ChainReader, blocks: &[ModelBlock]) -> Result<(), ChainError> {
    let unlikely = LogQuery::new(&[Address::repeat_byte(0xbb)], [&[]; 4]);
    for block in blocks {
        let Some(stored) = reader.block_by_number(block.number)? else { panic!("block {} is gone", block.number) };
        assert_eq!(stored.hash(), block.hash);
        assert_eq!(stored.header_rlp()?, block.header_rlp);
        assert_eq!(reader.bloom(block.number)?, Some(block.bloom));
        for (tx, expected) in stored.txs().zip(&block.txs) {
            assert_eq!(tx?.raw, expected.raw);
        }
        for (index, expected) in (0..).zip(&block.txs) {
            assert_eq!(stored.receipt(index)?.as_ref(), Some(&expected.receipt));
        }
        assert_eq!(reader.number_by_hash(&block.hash)?, Some(block.number));
        for tx in &block.txs {
            assert!(reader.transaction_by_hash(&tx.hash)?.is_some());
        }
        stored.may_have_logs(&unlikely)?;
        for log in block.txs.iter().flat_map(|tx| &tx.receipt.logs) {
            let query = LogQuery::new(&[log.address], [&[]; 4]);
            assert!(stored.may_have_logs(&query)?);
        }
    }
    Ok(())
}

#[test]
fn a_flipped_bit_below_the_checkpoint_is_an_error_with_its_file() {
    let whole = TestDir::new("flip-synced");
    let blocks = write_five(whole.path(), 5);
    for name in BLOCK_FILES {
        let bytes = fs::read(whole.path().join(name)).unwrap();
        let mut unnoticed = 0;
        for at in 0..bytes.len() {
            let flipped = TestDir::new("flip");
            copy_dir(whole.path(), flipped.path());
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(flipped.path().join(name), &damaged).unwrap();
            let opened = ChainWriter::open(flipped.path(), SMALL);
            let result = opened.and_then(|(_writer, reader)| read_everything(&reader, &blocks));
            match result {
                Ok(()) => unnoticed += 1,
                Err(ChainError::Corrupt { path, offset, .. }) => {
                    assert_eq!(path, flipped.path().join(name), "byte {at}");
                    assert!(offset <= at as u64, "byte {at}, error at {offset}");
                }
                Err(other) => panic!("{name} at {at}: {other}"),
            }
        }
        // Padding of body and receipt records (at most 7 bytes each), and filter lines that no query above asked for.
        let allowed = if name == "bodies" || name == "receipts" { 5 * 7 + 64 * 5 } else { 0 };
        assert!(unnoticed <= allowed, "{name}: {unnoticed} flips unnoticed");
    }
}

/// A power cut: of what is behind the synced length, any sectors may be missing, and any of the file's end.
fn cut_power(dir: &Path, rng: &mut StdRng) -> u64 {
    let synced = super::checkpoint::CheckpointFile::open(dir, false).unwrap().newest();
    let kept = [
        ("headers", synced.headers_bytes),
        ("bodies", synced.bodies_bytes),
        ("receipts", synced.receipts_bytes),
        ("offsets", synced.block_count * super::slot::OFFSET_SLOT_BYTES),
        ("blooms", synced.block_count * super::slot::BLOOM_SLOT_BYTES),
    ];
    for (name, synced_bytes) in kept {
        let path = dir.join(name);
        let (mut bytes, synced_bytes) = (fs::read(&path).unwrap(), synced_bytes as usize);
        let lost_share = [0.0, 0.05, 0.5][rng.random_range(0..3)];
        for start in (0..bytes.len()).step_by(512) {
            let sector = start.max(synced_bytes)..(start + 512).min(bytes.len());
            if !sector.is_empty() && rng.random_bool(lost_share) {
                bytes[sector].fill(0);
            }
        }
        if rng.random_bool(0.3) {
            bytes.truncate(rng.random_range(synced_bytes..=bytes.len().max(synced_bytes)));
        }
        fs::write(&path, bytes).unwrap();
    }
    synced.block_count
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_a_prefix_of_the_rest(
        seed in any::<u64>(),
        steps in prop::collection::vec(any_step(), 1..30),
    ) {
        let (dir, cut) = (TestDir::new("power"), TestDir::new("power-cut"));
        let limits = ChainLimits { index_table_entries: 100_000, ..SMALL };
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut writer, _reader) = ChainWriter::open(dir.path(), limits).unwrap();
        let (mut blocks, mut before_rollback): (Vec<ModelBlock>, Vec<ModelBlock>) = (Vec::new(), Vec::new());
        for step in &steps {
            match *step {
                Step::Append { tx_count } => {
                    blocks.push(random_block(&mut rng, blocks.len() as u64, tx_count));
                    blocks[blocks.len() - 1].append_to(&mut writer).unwrap();
                }
                Step::Truncate { removed } if blocks.len() > removed => {
                    writer.truncate_to((blocks.len() - 1 - removed) as u64).unwrap();
                    before_rollback.extend(blocks.split_off(blocks.len() - removed));
                }
                Step::Truncate { .. } | Step::Reopen => {}
                Step::Sync => writer.sync().unwrap(),
            }
        }
        copy_dir(dir.path(), cut.path());
        let synced_count = cut_power(cut.path(), &mut rng) as usize;
        for _ in 0..2 {
            let (_writer, reader) = ChainWriter::open(cut.path(), limits).unwrap();
            let kept = reader.latest_number().map_or(0, |number| number as usize + 1);
            prop_assert!((synced_count..=blocks.len()).contains(&kept), "{synced_count} ≤ {kept} ≤ {}", blocks.len());
            check_all(&reader, &blocks[..kept], &[]);
        }
        // Life goes on after it.
        let (mut writer, reader) = ChainWriter::open(cut.path(), limits).unwrap();
        let kept = writer.next_number() as usize;
        for block in &blocks[kept..] {
            block.append_to(&mut writer).unwrap();
        }
        check_all(&reader, &blocks, &before_rollback);
    }
}

#[test]
fn where_blocks_are_shown_synced_a_power_cut_takes_none_that_was_shown() {
    let mut rng = StdRng::seed_from_u64(41);
    for is_synced in [false, true] {
        let dir = TestDir::new("shown");
        let (mut writer, reader) = ChainWriter::open(dir.path(), ChainLimits::default()).unwrap();
        if is_synced {
            writer.show_synced();
        }
        let (mut blocks, mut lost) = (Vec::new(), 0);
        for step in 0..24 {
            if step == 12 {
                writer.truncate_to(8).unwrap();
                blocks.truncate(9);
            }
            blocks.push(random_block(&mut rng, blocks.len() as u64, 3));
            blocks[blocks.len() - 1].append_to(&mut writer).unwrap();
            let cut = TestDir::new("shown-cut");
            copy_dir(dir.path(), cut.path());
            cut_power(cut.path(), &mut rng);
            let (_, after) = ChainWriter::open(cut.path(), ChainLimits::default()).unwrap();
            lost += usize::from(after.latest_number() < reader.latest_number());
        }
        check_all(&reader, &blocks, &[]);
        assert_eq!(lost == 0, is_synced, "{lost} of the cuts took a block that was shown");
    }
}

#[test]
fn a_file_shorter_than_its_checkpoint_is_an_error() {
    let whole = TestDir::new("short");
    write_five(whole.path(), 5);
    for name in BLOCK_FILES {
        let bytes = fs::read(whole.path().join(name)).unwrap();
        let short = TestDir::new("short-one");
        copy_dir(whole.path(), short.path());
        fs::write(short.path().join(name), &bytes[..bytes.len() - 1]).unwrap();
        let error = ChainWriter::open(short.path(), SMALL).map(|_| ()).unwrap_err();
        let what = "file ends before its synced length";
        let path: PathBuf = short.path().join(name);
        assert_eq!(error, ChainError::Corrupt { path, offset: bytes.len() as u64 - 1, what });
    }
}

#[test]
fn a_second_opener_is_refused() {
    let dir = TestDir::new("lock");
    let first = ChainWriter::open(dir.path(), SMALL).unwrap();
    let error = ChainWriter::open(dir.path(), SMALL).map(|_| ()).unwrap_err();
    assert_eq!(error, ChainError::Locked { path: dir.path().to_path_buf() });
    drop(first);
    ChainWriter::open(dir.path(), SMALL).unwrap();
}

#[test]
fn blocks_that_do_not_fit_are_refused_and_leave_nothing() {
    let dir = TestDir::new("refuse");
    let (mut writer, reader) = ChainWriter::open(dir.path(), SMALL).unwrap();
    let mut rng = StdRng::seed_from_u64(3);
    let genesis = random_block(&mut rng, 0, 2);
    let next = random_block(&mut rng, 1, 2);
    assert_eq!(next.append_to(&mut writer), Err(ChainError::NotNext { expected: 0, found: 1 }));
    assert_eq!(writer.truncate_to(0), Err(ChainError::NotNext { expected: 0, found: 0 }));
    let no_header = ModelBlock { header_rlp: vec![0xc0], ..genesis.clone() };
    assert!(matches!(no_header.append_to(&mut writer), Err(ChainError::InvalidBlock { number: 0, .. })));
    let gap = [TxRecord {
        hash: B256::ZERO,
        sender: Address::ZERO,
        body_span: Span { start: 1, len: 1 },
        receipt_span: Span { start: 0, len: 1 },
    }];
    let block = BlockRecord {
        number: 0,
        hash: B256::ZERO,
        header_rlp: &genesis.header_rlp,
        body: &[1, 2],
        withdrawals_rlp: &[],
        requests_rlp: &[],
        txs: &gap,
        receipts: &[0],
    };
    assert!(matches!(writer.append(&block), Err(ChainError::InvalidBlock { number: 0, .. })));
    assert_eq!(reader.latest_number(), None);
    genesis.append_to(&mut writer).unwrap();
    next.append_to(&mut writer).unwrap();
    check_all(&reader, &[genesis, next], &[]);
}

/// Waits until the index worker has written every full table, by asking it for nothing else.
fn wait_for_index(reader: &ChainReader) {
    while reader.shared.index.frozen_count() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn thousands_of_hashes_survive_sealing_and_merging() {
    let dir = TestDir::new("merge");
    let limits = ChainLimits { index_table_entries: 60, ..SMALL };
    let mut rng = StdRng::seed_from_u64(11);
    let (mut writer, reader) = ChainWriter::open(dir.path(), limits).unwrap();
    let mut blocks = Vec::new();
    for number in 0..400 {
        let block = random_block(&mut rng, number, 20);
        block.append_to(&mut writer).unwrap();
        blocks.push(block);
    }
    wait_for_index(&reader);
    let tiers = reader.shared.index.segment_tiers();
    assert!(tiers.first().is_some_and(|tier| *tier >= 2), "{tiers:?}");
    check_all(&reader, &blocks, &[]);
    drop((writer, reader));
    let (_writer, reader) = ChainWriter::open(dir.path(), limits).unwrap();
    check_all(&reader, &blocks, &[]);
    for _ in 0..2000 {
        assert_eq!(reader.transaction_by_hash(&random_hash(&mut rng)).unwrap(), None);
    }
}

fn index_files(dir: &Path) -> Vec<std::ffi::OsString> {
    let names = fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("index-")).collect()
}

#[test]
fn what_a_crash_leaves_of_a_merge_is_removed_and_a_lost_index_is_rebuilt() {
    let (dir, every) = (TestDir::new("crash-merge"), TestDir::new("crash-merge-every"));
    let limits = ChainLimits { index_table_entries: 30, ..SMALL };
    let mut rng = StdRng::seed_from_u64(23);
    let mut blocks = Vec::new();
    {
        let (mut writer, reader) = ChainWriter::open(dir.path(), limits).unwrap();
        for number in 0..90 {
            let block = random_block(&mut rng, number, 20);
            block.append_to(&mut writer).unwrap();
            blocks.push(block);
            wait_for_index(&reader);
            // A link keeps the segment that a merge will remove; the merge may be faster than the link.
            for name in index_files(dir.path()) {
                let _ = fs::hard_link(dir.path().join(&name), every.path().join(&name));
            }
        }
    }
    let kept = index_files(dir.path());
    let removed: Vec<_> = index_files(every.path()).into_iter().filter(|name| !kept.contains(name)).collect();
    assert!(removed.len() > 6, "merges removed their inputs");
    for name in &removed {
        fs::hard_link(every.path().join(name), dir.path().join(name)).unwrap();
    }
    {
        let (_writer, reader) = ChainWriter::open(dir.path(), limits).unwrap();
        check_all(&reader, &blocks, &[]);
        assert!(removed.iter().all(|name| !dir.path().join(name).exists()));
    }
    for name in index_files(dir.path()) {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let (_writer, reader) = ChainWriter::open(dir.path(), limits).unwrap();
    check_all(&reader, &blocks, &[]);
}

#[test]
fn a_missing_index_segment_is_an_error() {
    let dir = TestDir::new("index-gap");
    let mut rng = StdRng::seed_from_u64(29);
    {
        let (mut writer, reader) = ChainWriter::open(dir.path(), SMALL).unwrap();
        for number in 0..5 {
            random_block(&mut rng, number, 20).append_to(&mut writer).unwrap();
        }
        wait_for_index(&reader);
    }
    let mut names = index_files(dir.path());
    names.sort();
    fs::remove_file(dir.path().join(&names[0])).unwrap();
    let error = ChainWriter::open(dir.path(), SMALL).map(|_| ()).unwrap_err();
    let (path, what) = (dir.path().join(&names[1]), "index segments do not follow each other");
    assert_eq!(error, ChainError::Corrupt { path, offset: 8, what });
}

#[test]
fn a_flipped_bit_in_an_index_segment_is_an_error_with_its_file() {
    let dir = TestDir::new("flip-index");
    let limits = ChainLimits { index_table_entries: 700, ..SMALL };
    let mut rng = StdRng::seed_from_u64(5);
    let mut blocks = Vec::new();
    {
        let (mut writer, reader) = ChainWriter::open(dir.path(), limits).unwrap();
        for number in 0..40 {
            let block = random_block(&mut rng, number, 20);
            block.append_to(&mut writer).unwrap();
            blocks.push(block);
        }
        wait_for_index(&reader);
    }
    let name = index_files(dir.path()).pop().expect("a table was sealed");
    let bytes = fs::read(dir.path().join(&name)).unwrap();
    let looks_at_head = 0..64;
    for at in looks_at_head.chain((4096..bytes.len()).step_by(61)) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(dir.path().join(&name), &damaged).unwrap();
        let result =
            ChainWriter::open(dir.path(), limits).and_then(|(_writer, reader)| read_everything(&reader, &blocks));
        let Err(ChainError::Corrupt { path, offset, .. }) = result else { panic!("byte {at}: {result:?}") };
        assert_eq!((path, true), (dir.path().join(&name), offset <= at as u64));
    }
}

#[test]
fn readers_on_other_threads_see_whole_blocks_while_the_writer_appends_and_rolls_back() {
    let dir = TestDir::new("threads");
    let (mut writer, reader) = ChainWriter::open(dir.path(), SMALL).unwrap();
    let mut rng = StdRng::seed_from_u64(17);
    random_block(&mut rng, 0, 1).append_to(&mut writer).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (reader, done) = (reader.clone(), &done);
            scope.spawn(move || {
                let mut reads = 0_u64;
                while !done.load(std::sync::atomic::Ordering::Relaxed) || reads < 10 {
                    let number = reader.latest_number().unwrap();
                    read_racing(&reader, number);
                    reads += 1;
                }
            });
        }
        for round in 0..600_u64 {
            let tx_count = rng.random_range(0..6);
            random_block(&mut rng, writer.next_number(), tx_count).append_to(&mut writer).unwrap();
            if round % 7 == 6 {
                writer.truncate_to(writer.next_number() - 4).unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// Whatever a reader gets of a block that may be rolled back meanwhile belongs together.
fn read_racing(reader: &ChainReader, number: u64) {
    let Some(block) = reader.block_by_number(number).unwrap() else { return };
    let header = <Header as alloy_rlp::Decodable>::decode(&mut block.header_rlp().unwrap()).unwrap();
    assert_eq!(header.number, number);
    let mut bloom = Bloom::ZERO;
    for index in 0..block.tx_count() {
        block.tx(index).unwrap().expect("index below the count");
        for log in block.receipt(index).unwrap().expect("index below the count").logs {
            bloom.accrue_raw_log(log.address, &log.topics);
        }
    }
    assert_eq!(header.logs_bloom, bloom);
    let view = reader.view();
    match (view.bloom(number), view.header_rlp(number)) {
        (Ok(Some(dense)), Ok(Some(header_rlp))) => {
            let header = <Header as alloy_rlp::Decodable>::decode(&mut &header_rlp[..]).unwrap();
            assert_eq!((header.number, header.logs_bloom), (number, dense));
        }
        (Ok(_) | Err(ChainError::Stale), Ok(_) | Err(ChainError::Stale)) => {}
        (bloom, header) => panic!("{bloom:?} {header:?}"),
    }
}

#[test]
fn header_bloom_is_field_six() {
    let bloom = Bloom::repeat_byte(0x5a);
    let header = Header { logs_bloom: bloom, ..Header::default() };
    let mut rlp = Vec::new();
    header.encode(&mut rlp);
    assert_eq!(super::writer::header_bloom(&rlp), Ok(bloom));
    for len in 0..rlp.len() {
        assert!(super::writer::header_bloom(&rlp[..len]).is_err());
    }
    rlp.push(0);
    assert!(super::writer::header_bloom(&rlp).is_err());
}

/// Times of settlement stand under the block's hash: each tier is added to the others, a later time replaces an earlier one.
#[test]
fn blocks_remember_when_they_were_posted_safe_and_final() {
    let dir = TestDir::new("chain-settled");
    let mut rng = StdRng::seed_from_u64(9);
    let blocks: Vec<ModelBlock> = (0..4).map(|number| random_block(&mut rng, number, 2)).collect();
    let hash = |number: usize| blocks[number].hash;
    let (mut writer, reader) = ChainWriter::open(dir.path(), SMALL).unwrap();
    blocks.iter().for_each(|block| block.append_to(&mut writer).unwrap());
    let times = |reader: &ChainReader, number: usize| {
        let record = reader.status(&hash(number)).unwrap()?;
        assert_eq!(record.end, EndState::Included);
        Some([record.times.posted_unix_ms, record.times.safe_unix_ms, record.times.finalized_unix_ms])
    };
    writer.put_settled(Tier::Posted, 1, 2, 500).unwrap();
    writer.put_settled(Tier::Safe, 1, 1, 510).unwrap();
    writer.put_settled(Tier::Finalized, 1, 1, 520).unwrap();
    assert_eq!(times(&reader, 0), None);
    assert_eq!(times(&reader, 1), Some([Some(500), Some(510), Some(520)]));
    assert_eq!(times(&reader, 2), Some([Some(500), None, None]));
    // Beyond the newest block there is nothing to remember; who fell back gets a new time.
    writer.put_settled(Tier::Safe, 1, 9, 530).unwrap();
    assert_eq!(times(&reader, 1), Some([Some(500), Some(530), Some(520)]));
    assert_eq!(times(&reader, 3), Some([None, Some(530), None]));
    writer.put_settled(Tier::Safe, 7, 9, 540).unwrap();
    assert_eq!(times(&reader, 3), Some([None, Some(530), None]));
    writer.sync().unwrap();
    drop(writer);
    let (_writer, reader) = ChainWriter::open(dir.path(), SMALL).unwrap();
    assert_eq!(times(&reader, 1), Some([Some(500), Some(530), Some(520)]));
}
