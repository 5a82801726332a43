//! A file in a directory of its own: restarts, torn tails, damage, length.

use super::*;
use crate::chain::test_dir::TestDir;
use crate::l1::tx_manager::types::PayloadId;
use crate::settlement::ledger::tests::{batch, done, signed};

const GENESIS: B256 = B256::repeat_byte(0x11);

fn open(dir: &TestDir) -> Result<LedgerFile, LedgerError> {
    LedgerFile::open(dir.path(), GENESIS)
}

fn batches(ids: std::ops::Range<u64>) -> Vec<Entry> {
    ids.map(|id| Entry::Batch(Box::new(batch(id)))).collect()
}

fn wanted(file: &LedgerFile) -> Vec<u64> {
    file.ledger().wanted().map(|batch| batch.facts.id.0).collect()
}

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let dir = TestDir::new("ledger");
    let mut file = open(&dir).expect("made");
    file.append(batches(0..3)).expect("written");
    file.append(vec![signed(0, 0, 1)]).expect("written");
    file.append(vec![done(1, Some(0), 5), Entry::Withdrawn { from: PayloadId(2) }]).expect("written");
    let records = file.ledger().tx_records();
    drop(file);
    let file = open(&dir).expect("read");
    assert_eq!((wanted(&file), file.ledger().next_id()), (vec![1], PayloadId(3)));
    assert_eq!(file.ledger().tx_records(), records);
    let other = LedgerFile::open(dir.path(), B256::ZERO).map(drop).expect_err("another chain");
    assert!(other.to_string().contains("belongs to the chain with genesis 0x1111"), "{other}");
}

/// Every length of a file that a kill in mid-write leaves, and every flipped byte.
#[test]
fn a_torn_tail_is_cut_and_damage_is_an_error() {
    let dir = TestDir::new("ledger");
    let mut file = open(&dir).expect("made");
    for id in 0..3 {
        file.append(vec![Entry::Batch(Box::new(batch(id))), signed(id, id, id)]).expect("written");
    }
    drop(file);
    let path = dir.path().join(FILE_NAME);
    let whole = std::fs::read(&path).expect("a file");
    let group = (whole.len() - HEADER_BYTES) / 3;
    for end in HEADER_BYTES..whole.len() {
        std::fs::write(&path, &whole[..end]).expect("written");
        let count = (end - HEADER_BYTES) / group;
        assert_eq!(wanted(&open(&dir).expect("torn")), (0..count as u64).collect::<Vec<_>>(), "{end} bytes");
    }
    let last = HEADER_BYTES + 2 * group;
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).expect("written");
        let outcome = open(&dir).map(|file| wanted(&file));
        match outcome {
            // Nobody can tell a damaged newest group from one that was not written to its end.
            Ok(ids) => assert!(at >= last && ids == [0, 1], "byte {at}: {ids:?}"),
            Err(error) => assert!(at < last, "byte {at}: {error}"),
        }
    }
}

#[test]
fn a_long_life_does_not_make_a_long_file() {
    let dir = TestDir::new("ledger");
    let mut file = open(&dir).expect("made");
    let mut large = batch(0);
    large.payload.data = vec![7; 120_000].into();
    for id in 0..600 {
        large.facts.id = PayloadId(id);
        file.append(vec![Entry::Batch(Box::new(large.clone())), signed(id, id, id)]).expect("written");
        file.append(vec![done(id, Some(id), id)]).expect("written");
    }
    let bytes = std::fs::metadata(dir.path().join(FILE_NAME)).expect("a file").len();
    assert!(bytes < REWRITE_BYTES_MIN + 200_000, "{bytes} bytes");
    assert_eq!(file.ledger().next_id(), PayloadId(600));
}
