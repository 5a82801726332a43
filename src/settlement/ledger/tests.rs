//! Entries by hand: what reads back, what is kept and for how long, what a rewrite says.

use super::*;

pub(in crate::settlement) fn batch(id: u64) -> StoredBatch {
    let payload = Payload {
        to: None,
        value: U256::ZERO,
        data: vec![id as u8; 40].into(),
        pre_state_root: B256::repeat_byte(id as u8),
        coinbase: Address::repeat_byte(3),
        block_number: id * 10,
        timestamp: 1_000 + id,
        witness: vec![9; 100].into(),
        withdrawals: Bytes::new(),
        anchor: vec![8; 32].into(),
    };
    StoredBatch {
        facts: PayloadFacts { id: PayloadId(id), gas: 2_000_000 + id, bytes: 300 },
        index: id,
        digest: B256::repeat_byte(0xd0),
        previous_digest: B256::repeat_byte(0xcf),
        first_block: id * 10,
        last_block: id * 10 + 9,
        ends_block: id.is_multiple_of(2),
        post_state_root: B256::repeat_byte(0xee),
        next_tx_index: 77,
        payload,
    }
}

pub(in crate::settlement) fn signed(attempt: u64, payload: u64, nonce: u64) -> Entry {
    Entry::Signed(SignedEntry {
        attempt,
        payload: PayloadId(payload),
        nonce,
        tip_cap_wei: 1,
        fee_cap_wei: u128::MAX,
        hash: B256::repeat_byte(attempt as u8),
        above: 7,
        signature: Signature { odd_y: attempt.is_multiple_of(2), r: U256::from(5), s: U256::MAX >> 2 },
    })
}

pub(in crate::settlement) fn done(nonce: u64, payload: Option<u64>, timestamp: u64) -> Entry {
    Entry::Done(DoneRecord {
        nonce,
        payload: payload.map(PayloadId),
        fate: Fate::Succeeded,
        hash: B256::repeat_byte(0x44),
        cost_wei: U256::from(12_345_u64),
        block: BlockId { number: 99, hash: B256::repeat_byte(0x99) },
        timestamp,
    })
}

fn origin(number: u64) -> OriginBlock {
    let (hash, mix_hash) = (B256::with_last_byte(number as u8), B256::repeat_byte(number as u8));
    OriginBlock { number, hash, mix_hash, timestamp: 12 * number }
}

fn ledger(entries: Vec<Entry>) -> Ledger {
    let mut ledger = Ledger::default();
    entries.into_iter().for_each(|entry| ledger.apply(entry).expect("entries that follow each other"));
    ledger
}

fn wanted(ledger: &Ledger) -> Vec<u64> {
    ledger.wanted().map(|batch| batch.facts.id.0).collect()
}

fn batches(ids: &[u64]) -> Vec<Entry> {
    ids.iter().map(|id| Entry::Batch(Box::new(batch(*id)))).collect()
}

#[test]
fn entries_read_back_and_nothing_else_does() {
    let fates = [Fate::Failed, Fate::Taken].map(|fate| match done(5, None, 6) {
        Entry::Done(done) => Entry::Done(DoneRecord { fate, ..done }),
        other => other,
    });
    let ids = [PayloadId(0), PayloadId(u64::MAX)];
    let marks = ids
        .into_iter()
        .flat_map(|id| [Entry::Withdrawn { from: id }, Entry::WithdrawnOne { id }, Entry::Newest { id }]);
    let all = batches(&[0, 1]).into_iter().chain([signed(1, 2, 3), signed(2, 3, 4), done(4, Some(0), 5)]);
    let blocks: Vec<OriginBlock> = (5..8).map(origin).collect();
    let checkpoint = |l1: &[OriginBlock]| {
        let header_rlp = vec![0xc0; 600].into();
        Entry::Checkpoint(Box::new(StoredCheckpoint {
            next_index: 3,
            digest: B256::repeat_byte(0xd1),
            origin: origin(5).id(),
            header_rlp,
            l1: l1.to_vec(),
        }))
    };
    let places = [Entry::Origin(origin(4)), checkpoint(&[]), checkpoint(&blocks)];
    for entry in all.chain(fates).chain(marks).chain(places) {
        let mut bytes = Vec::new();
        entry.encode(&mut bytes);
        let (length, body) = bytes.split_at(LENGTH_BYTES);
        assert_eq!(length, (body.len() as u32).to_le_bytes());
        assert_eq!(Entry::decode(body), Ok(entry.clone()));
        for end in 0..body.len() {
            let shorter = Entry::decode(&body[..end]);
            // A checkpoint's list of blocks ends where the entry ends.
            assert!(shorter.is_err() || matches!(shorter, Ok(Entry::Checkpoint(_))), "{end} of {entry:?}");
        }
        let longer = Entry::decode(&[body, &[0]].concat());
        assert!(longer.is_err(), "{entry:?}");
    }
    assert_eq!(Entry::decode(&[9]), Err(EntryError::Code { field: "type", code: 9 }));
}

#[test]
fn a_batch_is_kept_until_its_nonce_is_done_or_nothing_of_it_can_be_sent() {
    let mut all = batches(&[0, 1, 2, 3]);
    all.extend([signed(0, 0, 5), signed(1, 1, 6), signed(2, 1, 6)]);
    let mut kept = ledger(all);
    assert_eq!(wanted(&kept), [0, 1, 2, 3]);
    kept.apply(Entry::Withdrawn { from: PayloadId(1) }).expect("known");
    assert_eq!(wanted(&kept), [0]);
    assert_eq!(kept.withdrawn().collect::<Vec<_>>(), [PayloadId(1)]);
    assert!(kept.batch(PayloadId(1)).is_some(), "its signature may be sent");
    assert!(kept.batch(PayloadId(2)).is_none(), "nothing of it was signed");
    // What is made later has its own name and is wanted.
    assert_eq!(kept.next_id(), PayloadId(4));
    kept.apply(Entry::Batch(Box::new(batch(4)))).expect("new");
    kept.apply(done(5, Some(0), 100)).expect("signed");
    assert_eq!((wanted(&kept), kept.signed(0)), (vec![4], None));
    kept.apply(done(6, Some(1), 100)).expect("signed");
    assert!(kept.batch(PayloadId(1)).is_none());
    let nothing = kept.apply(signed(9, 1, 7));
    assert_eq!(nothing, Err(EntryError::NoPayload { attempt: 9, payload: PayloadId(1) }));
}

#[test]
fn what_a_rewrite_keeps_says_the_same() {
    let mut all = batches(&[0, 1, 2, 3]);
    all.extend([signed(0, 0, 5), signed(1, 1, 6), signed(2, 2, 7), done(5, Some(0), 50)]);
    all.push(Entry::Withdrawn { from: PayloadId(2) });
    all.extend(batches(&[4]));
    let kept = ledger(all);
    let again = ledger(kept.live().collect());
    assert_eq!(wanted(&again), wanted(&kept));
    assert_eq!(again.tx_records(), kept.tx_records());
    assert_eq!(again.next_id(), kept.next_id());
    assert_eq!(kept.tx_records().len(), 1 + 2);
    // All of its batches may go, its names may not come again.
    let empty = ledger(vec![Entry::Batch(Box::new(batch(7))), Entry::Withdrawn { from: PayloadId(0) }]);
    assert_eq!(ledger(empty.live().collect()).next_id(), PayloadId(8));
}

#[test]
fn the_spending_of_an_hour_is_remembered() {
    let kept = ledger(vec![done(1, None, 0), done(2, None, 3_599), done(3, None, 3_600)]);
    let nonces: Vec<u64> = kept
        .tx_records()
        .iter()
        .map(|record| match record {
            TxRecord::Done(done) => done.nonce,
            TxRecord::Signed(signed) => signed.attempt.nonce,
        })
        .collect();
    assert_eq!(nonces, [2, 3]);
}

#[test]
fn a_checkpoint_forgets_the_origins_below_it() {
    let checkpoint = StoredCheckpoint {
        next_index: 1,
        digest: B256::ZERO,
        origin: origin(6).id(),
        header_rlp: Bytes::new(),
        l1: vec![origin(6), origin(7)],
    };
    let mut all: Vec<Entry> = (5..9).map(|number| Entry::Origin(origin(number))).collect();
    all.push(Entry::Checkpoint(Box::new(checkpoint.clone())));
    let kept = ledger(all);
    let again = ledger(kept.live().collect());
    for ledger in [kept, again] {
        assert_eq!([5, 6, 8].map(|number| ledger.origin(&origin(number).hash).is_some()), [false, true, true]);
        assert_eq!(ledger.checkpoint(), Some(&checkpoint));
    }
}
