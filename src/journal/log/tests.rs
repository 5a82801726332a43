//! Packing, retention and space, step by step.

use super::*;
use crate::journal::record::{Record, RollbackCause};
use crate::journal::storage::Storage;
use crate::journal::test_log::*;

/// Small transactions, one a group, so that each segment holds two.
fn fill(test: &mut TestLog, count: usize) {
    test.put(&vec![admitted(&[0xc0]); count]);
}

#[test]
fn what_follows_from_a_record_is_in_its_group() {
    let mut test = TestLog::new(9);
    let (half, small) = ([1; LARGE / 2], [1; 9]);
    test.append(&[admitted(&half), admitted(&small), admitted(&half), dropped(1), dropped(2)]);
    // Three and the ends of two would be too much: the third waits with them.
    assert_eq!(test.flush(), [2, 5]);
    test.append(&[admitted(&small)]);
    test.append(&[admitted(&small), dropped(6)]);
    assert_eq!(test.flush(), [8]);
    // More than a group of consequences: cut where it is full.
    test.append(&vec![admitted(&small); 60]);
    test.flush();
    test.append(&(9..69).map(dropped).collect::<Vec<_>>());
    let groups = test.flush();
    assert!(groups.len() > 1 && groups.last() == Some(&128), "{groups:?}");
}

#[test]
fn a_group_takes_exactly_its_limit() {
    for (over, expected) in [(0, vec![2]), (1, vec![1, 2])] {
        let mut test = TestLog::new(9);
        let empty = {
            Outline::of(&{
                let mut out = vec![];
                admitted(&[]).encode(Sequence(1), &mut out);
                out
            })
            .unwrap()
            .len
        };
        let (first, second) = (vec![1; 100], vec![1; SETTINGS.group_bytes_max - 2 * empty - 100 + over]);
        test.append(&[admitted(&first), admitted(&second)]);
        assert_eq!(test.flush(), expected);
    }
}

#[test]
fn segments_are_used_again_oldest_first() {
    let mut test = TestLog::new(5);
    fill(&mut test, 6);
    assert_eq!(test.segments(), [0, 1, 2]);
    let slots: Vec<u32> = test.log.segments().map(|segment| segment.slot).collect();
    // Ends that are not durable free nothing.
    test.append(&(1..=6).map(dropped).collect::<Vec<_>>());
    test.log.chain_synced(Sequence(12));
    assert_eq!(test.segments(), [0, 1, 2]);
    test.flush();
    assert_eq!(test.segments(), [3]);
    let first_slot = |test: &TestLog| test.log.segments().last().unwrap().slot;
    assert_eq!(first_slot(&test), 3);
    // The spare one was made first, then the oldest are taken.
    fill(&mut test, 2);
    assert_eq!((test.segments(), first_slot(&test)), (vec![3, 4], 4));
    for (id, slot) in (5..8).zip(slots) {
        fill(&mut test, 2);
        assert_eq!((*test.segments().last().unwrap(), first_slot(&test)), (id, slot));
    }
    assert_eq!(test.disk.slots().unwrap().len(), 5);
}

#[test]
fn an_end_holds_its_segment_until_it_is_kept_elsewhere() {
    let mut test = TestLog::new(9);
    test.put(&[admitted(&[1]), dropped(1), admitted(&[1])]);
    test.log.chain_synced(Sequence(1));
    assert_eq!(test.segments(), [0, 1]);
    test.log.chain_synced(Sequence(2));
    assert_eq!(test.segments(), [1]);
}

#[test]
fn a_block_holds_its_segments_and_those_of_its_transactions() {
    let mut test = TestLog::new(9);
    test.put(&[admitted(&[1]), admitted(&[1])]);
    test.put(&[opened(1), placed(1, 0), placed(2, 1), closed(1, 2), sealed(1), opened(2)]);
    assert_eq!(test.segments(), [0, 1, 2, 3]);
    test.log.chain_synced(Sequence(6));
    assert_eq!(test.segments(), [0, 1, 2, 3]);
    // Its `Sealed` is number 7, in the newest segment with what follows.
    test.log.chain_synced(Sequence(7));
    assert_eq!(test.segments(), [3]);
    // The open block is in there, sealed or not.
    test.put(&[closed(2, 0), sealed(2), admitted(&[1])]);
    test.log.chain_synced(Sequence(9));
    assert_eq!(test.segments(), [3, 4, 5]);
    test.log.chain_synced(Sequence(10));
    assert_eq!(test.segments(), [5]);
}

#[test]
fn what_only_waits_is_carried() {
    let mut test = TestLog::new(9);
    fill(&mut test, 4);
    assert_eq!(test.log.carry_below(), None, "two segments may be kept");
    fill(&mut test, 1);
    assert_eq!(test.log.carry_below(), Some(Sequence(3)));
    let carried = |admitted, previous| Record::Carried {
        admitted: Sequence(admitted),
        previous: Sequence(previous),
        tx: tx(&[1]),
    };
    test.append(&[carried(1, 1)]);
    assert_eq!(test.log.carry_below(), Some(Sequence(3)));
    test.flush();
    assert_eq!((test.segments(), test.log.carry_below()), (vec![0, 1, 2], Some(Sequence(3))));
    test.put(&[carried(2, 2)]);
    // Its segment is free again; the next one is looked at.
    assert_eq!((test.segments(), test.log.carry_below()), (vec![1, 2, 3], Some(Sequence(5))));
    // An end that is not synced: carrying would free nothing.
    let mut test = TestLog::new(9);
    test.put(&[admitted(&[1]), admitted(&[1]), admitted(&[1]), dropped(3)]);
    test.put(&[carried(1, 1), carried(2, 2), admitted(&[1])]);
    assert_eq!((test.segments(), test.log.carry_below()), (vec![1, 2, 3], None));
    test.log.chain_synced(Sequence(4));
    assert_eq!(test.segments(), [2, 3]);
}

#[test]
fn a_full_disk_waits_for_room() {
    let mut test = TestLog::new(2);
    fill(&mut test, 4);
    assert_eq!(test.log.space(), 0);
    test.append(&[dropped(1), dropped(2)]);
    assert_eq!((test.flush(), test.log.has_pending()), (vec![], true));
    // Another slot.
    test.disk.set_capacity_bytes(3 * SETTINGS.segment_bytes);
    assert_eq!((test.flush(), test.log.has_pending()), (vec![6], false));
    // What is left of the newest, and the segment that nobody needs any more.
    assert_eq!((test.segments(), test.log.space()), (vec![1, 2], 3 * BLOCK_BYTES as u64));
    test.log.chain_synced(Sequence(6));
    test.put(&[dropped(3)]);
    test.append(&[dropped(4)]);
    test.flush();
    assert_eq!((test.segments(), test.log.space()), (vec![2, 3], 3 * BLOCK_BYTES as u64));
}

#[test]
fn the_next_process_goes_on_behind_the_last_group() {
    let mut test = TestLog::new(9);
    fill(&mut test, 3);
    test.reopen();
    fill(&mut test, 2);
    test.reopen();
    let scanned = test.scan().unwrap().unwrap();
    assert_eq!((scanned.next, scanned.epoch, test.segments()), (Sequence(6), 2, vec![0, 1, 2]));
    let records: Vec<_> = scanned.records().map(|(_, bytes)| bytes.to_vec()).collect();
    assert_eq!(records, test.records);
    assert_eq!(test.log.carry_below(), Some(Sequence(3)));
}

#[test]
fn slots_that_are_too_small_are_not_begun() {
    let mut test = TestLog::new(9);
    test.log.adopt_slot(0, 2 * BLOCK_BYTES as u64 - 1);
    assert_eq!(test.log.wanted_slot(), Some((1, SETTINGS.segment_bytes)));
    test.log.adopt_slot(1, 2 * BLOCK_BYTES as u64);
    assert_eq!(test.log.wanted_slot(), None);
}

#[test]
fn nothing_is_freed_behind_a_rollback() {
    let mut test = TestLog::new(9);
    test.put(&[admitted(&[1]), opened(1), placed(1, 0), closed(1, 1), sealed(1)]);
    test.put(&[Record::RolledBack { to_block: 0, cause: RollbackCause::Operator }]);
    test.log.chain_synced(Sequence(6));
    assert_eq!(test.segments(), [0, 1, 2]);
    // The start after it knows that the transaction is live.
    test.reopen();
    test.log.chain_synced(Sequence(6));
    assert_eq!(test.log.segments().next().unwrap().account.live_count, 1);
    assert_eq!(test.segments(), [0, 1, 2]);
}
