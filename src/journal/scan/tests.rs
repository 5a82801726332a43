//! Damage of every kind: what is told from a torn last group, and what is an error.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::journal::segment::SEGMENT_HEADER_BYTES;
use crate::journal::test_log::*;
use crate::testing::disk::SimDisk;
use crate::testing::rng::SimRng;

type Image = BTreeMap<u32, Vec<u8>>;

/// Segment 0 was given up, 1 to 3 are needed, the newest has two groups, and one slot is free.
fn journal() -> TestLog {
    let mut test = TestLog::new(9);
    test.put(&[admitted(&[1; 90]), dropped(1)]);
    for bytes in [10, 700] {
        test.put(&[admitted(&vec![2; bytes]), opened_or_closed(bytes)]);
    }
    // Before the next header, so that it says so; the slot that was made ahead is the next one.
    test.log.chain_synced(Sequence(2));
    test.append(&[admitted(&[4; 30]), admitted(&[5; 60])]);
    test.flush();
    test.append(&[admitted(&[6; 40]), admitted(&[7; 50])]);
    test.flush();
    assert_eq!(test.segments(), [1, 2, 3]);
    test.disk.create(4, SETTINGS.segment_bytes).unwrap();
    test
}

fn opened_or_closed(bytes: usize) -> crate::journal::record::Record<'static> {
    if bytes == 10 { opened(1) } else { closed(1, 0) }
}

fn records(image: &Image) -> Result<Vec<Vec<u8>>, ScanError> {
    records_on(&mut SimDisk::of_image(image))
}

fn records_on(disk: &mut SimDisk) -> Result<Vec<Vec<u8>>, ScanError> {
    Ok(scan(disk)?.map_or(vec![], |scanned| scanned.records().map(|(_, bytes)| bytes.to_vec()).collect()))
}

/// Slot of a segment.
fn slot_of(image: &Image, id: u64) -> u32 {
    let holds = |bytes: &[u8]| matches!(SegmentHeader::read(bytes), FirstBlock::Segment(header) if header.id == id);
    *image.iter().find(|(_, bytes)| holds(bytes)).unwrap().0
}

#[test]
fn a_flipped_bit_anywhere_never_changes_a_record() {
    let test = journal();
    let image = test.disk.image();
    let good = records(&image).unwrap();
    assert_eq!(good, test.records[2..]);
    // Every byte that says something, and what becomes of the records when it says something else.
    let (mut fatal, mut last) = (BTreeSet::new(), BTreeSet::new());
    for id in 1..=3 {
        let slot = slot_of(&image, id);
        fatal.extend((0..SEGMENT_HEADER_BYTES).map(|at| (slot, at)));
        for block in 1..3 {
            let start = block * BLOCK_BYTES;
            let header = GroupHeader::read(&image[&slot][start..]).unwrap();
            let bytes = (start..start + GROUP_HEADER_BYTES + header.records_bytes as usize).map(|at| (slot, at));
            if (id, block) == (3, 2) { last.extend(bytes) } else { fatal.extend(bytes) }
        }
    }
    let mut disk = SimDisk::of_image(&image);
    let mut rng = SimRng::new(5);
    for (&slot, bytes) in &image {
        for at in 0..bytes.len() {
            let is_fatal = fatal.contains(&(slot, at));
            let is_last = last.contains(&(slot, at));
            // Of the bytes that say nothing, the first ones of each block are enough.
            if !is_fatal && !is_last && at % BLOCK_BYTES > 300 && at % 61 != 0 {
                continue;
            }
            let bit = 8 * at + rng.below(8) as usize;
            disk.flip(slot, bit);
            let found = records_on(&mut disk);
            match found {
                Ok(records) if is_last => assert_eq!(records, good[..good.len() - 2], "slot {slot}, byte {at}"),
                Ok(records) => assert!(!is_fatal && records == good, "slot {slot}, byte {at}"),
                Err(error) => assert!(is_fatal, "slot {slot}, byte {at}: {error}"),
            }
            disk.flip(slot, bit);
        }
    }
}

/// What a start says to an image that somebody changed.
#[track_caller]
fn check(what: &str, change: impl FnOnce(&mut Image), expected: &str) {
    let mut image = journal().disk.image();
    change(&mut image);
    let found = match records(&image) {
        Ok(records) => format!("{} records", records.len()),
        Err(error) => error.to_string(),
    };
    assert!(found.contains(expected), "{what}: {found}");
}

fn header_of(image: &Image, slot: u32) -> SegmentHeader {
    match SegmentHeader::read(&image[&slot]) {
        FirstBlock::Segment(header) => header,
        other => panic!("{other:?}"),
    }
}

fn set_header(image: &mut Image, slot: u32, header: &SegmentHeader) {
    let bytes = image.get_mut(&slot).unwrap();
    header.encode(bytes.first_chunk_mut().unwrap());
}

#[test]
fn damage_is_named() {
    // Segment n is in slot n; slot 4 is free.
    check("nothing", |_| {}, "8 records");
    check("a needed segment", |image| drop(image.remove(&2)), "segment 2 is missing: segments 1 to 3 are needed");
    check("the oldest needed one", |image| drop(image.remove(&1)), "segment 1 is missing");
    check("one that was given up", |image| drop(image.remove(&0)), "8 records");
    check("a segment twice", |image| drop(image.insert(9, image[&2].clone())), "slots [2, 9] both hold segment 2");
    check("a short slot", |image| image.get_mut(&2).unwrap().truncate(2 * BLOCK_BYTES), "has 8192 bytes");
    for slot in [0, 2] {
        let foreign = |image: &mut Image| {
            let header = SegmentHeader { journal: [8; 16], ..header_of(image, slot) };
            set_header(image, slot, &header);
        };
        check("another journal's segment", foreign, "belongs to another journal than slot 3");
    }
    let hole = |image: &mut Image| image.get_mut(&3).unwrap()[BLOCK_BYTES + 300] ^= 1;
    check("a group with one behind it", hole, "damaged at byte 4096: the checksum of the records does not hold");
    check("the same", hole, "the group at byte 8192 begins with sequence 9");
    let hole = |image: &mut Image| image.get_mut(&1).unwrap()[2 * BLOCK_BYTES] ^= 1;
    check(
        "the last group of an older segment",
        hole,
        "(slot 2) begins with sequence 5, the segment before it ends before sequence 4",
    );
}

#[test]
fn lost_headers_of_durable_groups_are_damage() {
    let zero = |image: &mut Image| image.get_mut(&3).unwrap()[..BLOCK_BYTES].fill(0);
    check("gone", zero, "slot 3: it has no header, but the group at byte 4096 begins with sequence 7");
    check(
        "damaged",
        |image| image.get_mut(&3).unwrap()[40] ^= 1,
        "slot 3: the checksum of the header does not hold, but",
    );
    let older = |image: &mut Image| {
        let header = header_of(image, 0);
        image.remove(&0);
        set_header(image, 3, &header);
        let header = SegmentHeader { oldest_needed: 1, ..header_of(image, 2) };
        set_header(image, 2, &header);
    };
    check("an older one", older, "slot 3: its header names a segment that was given up, but");
    let all = |image: &mut Image| image.values_mut().for_each(|bytes| bytes[9] ^= 1);
    check("all of them", all, "there was a journal, and no slot has a header of it");
    let all = |image: &mut Image| image.values_mut().for_each(|bytes| bytes[..BLOCK_BYTES].fill(0));
    check("all of them", all, "slot 0: it has no header, but byte 4096 is not zero");
}

#[test]
fn a_segment_that_never_held_a_group_may_go() {
    let mut test = journal();
    test.append(&[admitted(&[1; 9])]);
    let write = test.log.next_write(1).unwrap();
    // Over the segment that was given up, whose groups are still behind it.
    assert_eq!((write.slot, write.point), (0, SyncPoint::Header));
    test.disk.write(0, 0, write.bytes, write.point).unwrap();
    let scanned = test.scan().unwrap().unwrap();
    assert_eq!((scanned.offset, scanned.next), (BLOCK_BYTES as u64, Sequence(11)));
    for at in 0..SEGMENT_HEADER_BYTES {
        let mut disk = SimDisk::of_image(&test.disk.image());
        disk.flip(0, 8 * at + 2);
        assert_eq!(records_on(&mut disk).unwrap(), test.records[2..10]);
    }
    // The first of all.
    let mut image = Image::from([(0, vec![0; 3 * BLOCK_BYTES])]);
    image.get_mut(&0).unwrap()[..8].copy_from_slice(b"SEQJRNL1");
    assert!(scan(&mut SimDisk::of_image(&image)).unwrap().is_none());
    assert!(scan(&mut SimDisk::of_image(&Image::new())).unwrap().is_none());
}

#[test]
fn a_torn_group_is_cut_and_written_over() {
    let mut test = journal();
    let torn = |disk: &mut SimDisk| scan(disk).unwrap().unwrap().torn;
    assert_eq!(torn(&mut test.disk), None);
    test.disk.flip(3, 8 * (2 * BLOCK_BYTES + GROUP_HEADER_BYTES + 20));
    let found = torn(&mut test.disk).unwrap();
    assert_eq!((found.segment, found.offset), (3, 2 * BLOCK_BYTES as u64));
    assert!(matches!(found.fault, GroupFault::RecordsCrc { .. }));
    test.reopen();
    test.put(&[admitted(&[9; 9])]);
    let scanned = test.scan().unwrap().unwrap();
    assert_eq!((scanned.torn.as_ref(), scanned.epoch, scanned.next), (None, 2, Sequence(10)));
    assert_eq!(records(&test.disk.image()).unwrap(), test.records[2..]);
}

#[test]
fn a_forged_header_ends_nothing() {
    // Whoever puts bytes into transactions can have a header at the beginning of a block, but not the id.
    let forge = |journal: JournalId| {
        move |image: &mut Image| {
            let header = GroupHeader {
                records_crc: 0,
                journal,
                segment: 3,
                epoch: 1,
                first: Sequence(900),
                last: Sequence(900),
                records_bytes: 0,
                record_count: 1,
                unix_ns: 0,
                digest: B256::ZERO,
            };
            let bytes = image.get_mut(&4).unwrap();
            header.encode(bytes[2 * BLOCK_BYTES..].first_chunk_mut().unwrap());
        }
    };
    check("without the id", forge([1; 16]), "8 records");
    check("with it", forge([7; 16]), "slot 4: it has no header, but the group at byte 8192 begins with sequence 900");
}
