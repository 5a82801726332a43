//! Every type there and back, no damage unnoticed, and the bytes themselves pinned.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::mempool::{CodeExpectation, KnownAccount, StorageExpectation};
use crate::primitives::U256;

fn any_hash() -> impl Strategy<Value = B256> {
    any::<[u8; 32]>().prop_map(B256::from)
}

fn any_address() -> impl Strategy<Value = Address> {
    any::<[u8; 20]>().prop_map(Address::from)
}

fn any_wei() -> impl Strategy<Value = U256> {
    any::<[u8; 32]>().prop_map(U256::from_le_bytes)
}

fn any_account() -> impl Strategy<Value = KnownAccount> {
    let storage = prop_oneof![
        any_hash().prop_map(StorageExpectation::Root),
        vec((any_hash(), any_hash()), 0..3).prop_map(StorageExpectation::Slots),
    ];
    let code = prop_oneof![Just(CodeExpectation::Empty), any_hash().prop_map(CodeExpectation::Hash)];
    let fields = (any_address(), storage, prop::option::of(any_wei()), prop::option::of(code), any::<Option<u64>>());
    fields.prop_map(|(address, storage, balance_wei, code, nonce)| KnownAccount {
        address,
        storage,
        balance_wei,
        code,
        nonce,
    })
}

fn any_conditions() -> impl Strategy<Value = Conditions> {
    let numbers = any::<[Option<u64>; 4]>();
    (vec(any_account(), 0..3), numbers, prop::option::of(any_wei())).prop_map(
        |(known_accounts, [block_number_min, block_number_max, timestamp_min, timestamp_max], pays_coinbase_wei)| {
            Conditions {
                known_accounts,
                block_number_min,
                block_number_max,
                timestamp_min,
                timestamp_max,
                pays_coinbase_wei,
            }
        },
    )
}

/// The owned half of an [`AdmittedTx`], and its bytes.
type Parts = (Address, u64, Vec<Option<Address>>, Option<Conditions>, Vec<u8>);

fn any_parts() -> impl Strategy<Value = Parts> {
    let authorities = vec(prop::option::of(any_address()), 0..4);
    (any_address(), any::<u64>(), authorities, prop::option::of(any_conditions()), vec(any::<u8>(), 0..200))
}

fn admitted((sender, accepted_unix_ns, authorities, conditions, raw): &Parts) -> AdmittedTx<'_> {
    AdmittedTx {
        sender: *sender,
        accepted_unix_ns: *accepted_unix_ns,
        authorities: Cow::Borrowed(authorities),
        conditions: conditions.as_ref().map(Cow::Borrowed),
        raw,
    }
}

fn any_end() -> impl Strategy<Value = EndState> {
    prop_oneof![
        (1_u8..=11).prop_map(|reason| EndState::Dropped { reason }),
        any_hash().prop_map(|by| EndState::Replaced { by }),
        (1_u8..=11, any_wei(), any_wei()).prop_map(|(reason, required, actual)| EndState::Invalidated {
            reason,
            required,
            actual
        }),
    ]
}

prop_compose! {
    fn any_context()(
        numbers in any::<[u64; 4]>(),
        hashes in any::<[[u8; 32]; 3]>(),
        coinbase in any_address(),
        extra_data in vec(any::<u8>(), 0..=32),
        is_osaka in any::<bool>(),
    ) -> BlockContext {
        BlockContext {
            number: numbers[0],
            parent_hash: hashes[0].into(),
            timestamp: numbers[1],
            base_fee_per_gas_wei: numbers[2],
            prev_randao: hashes[1].into(),
            coinbase,
            gas_limit: numbers[3],
            extra_data: extra_data.into(),
            parent_beacon_block_root: hashes[2].into(),
            fork: if is_osaka { Fork::Osaka } else { Fork::Prague },
        }
    }
}

/// Every type but the two that borrow their transaction.
fn any_small() -> impl Strategy<Value = Record<'static>> {
    let reason = prop_oneof![Just(CloseReason::Deadline), Just(CloseReason::Full), Just(CloseReason::Stop)];
    prop_oneof![
        (any::<[u64; 3]>(), any_hash(), any_end()).prop_map(|([tx, accepted_unix_ns, ended_unix_ns], hash, end)| {
            Record::Dropped { tx: Sequence(tx), hash, accepted_unix_ns, ended_unix_ns, end }
        }),
        (any_context(), any::<u64>())
            .prop_map(|(context, opened_unix_ns)| Record::Opened { context: Cow::Owned(context), opened_unix_ns }),
        any::<(u64, u32, u64)>().prop_map(|(tx, index, preconfirmed_unix_ns)| Record::Placed {
            tx: Sequence(tx),
            index,
            preconfirmed_unix_ns
        }),
        (any::<u64>(), any::<u32>(), reason).prop_map(|(number, tx_count, reason)| Record::Closed {
            number,
            tx_count,
            reason
        }),
        any::<(u64, [[u8; 32]; 3], u64)>().prop_map(|(number, hashes, sealed_unix_ns)| Record::Sealed {
            number,
            hash: hashes[0].into(),
            state_root: hashes[1].into(),
            receipts_root: hashes[2].into(),
            sealed_unix_ns
        }),
        (
            any::<u64>(),
            prop_oneof![
                Just(RollbackCause::Operator),
                Just(RollbackCause::OriginGone),
                Just(RollbackCause::L1Differs),
                Just(RollbackCause::ClientLost)
            ]
        )
            .prop_map(|(to_block, cause)| Record::RolledBack { to_block, cause }),
    ]
}

fn encoded(record: &Record<'_>, sequence: u64) -> Vec<u8> {
    let mut out = vec![0xee; 3]; // Something is before it.
    record.encode(Sequence(sequence), &mut out);
    out.drain(..3);
    seal_checksum(&mut out);
    out
}

fn check_both_ways(record: &Record<'_>, sequence: u64) {
    let bytes = encoded(record, sequence);
    assert_eq!(Record::decode(&bytes), Ok((Sequence(sequence), record.clone())));
    assert_eq!(verify_checksum(&bytes), Ok(()));
    let subject = match record {
        Record::Dropped { tx, .. } | Record::Placed { tx, .. } => tx.0,
        Record::Carried { previous, .. } => previous.0,
        Record::Opened { context, .. } => context.number,
        Record::Closed { number, .. } | Record::Sealed { number, .. } => *number,
        Record::Admitted(_) | Record::RolledBack { .. } => 0,
    };
    let outline = Outline { kind: record.kind(), sequence: Sequence(sequence), len: bytes.len(), subject };
    assert_eq!(Outline::of(&bytes), Some(outline));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(verify_checksum(&damaged).is_err(), "a flip in byte {at} is noticed");
        check_one_encoding(&damaged);
        assert!(Record::decode(&bytes[..at]).is_err(), "cut at {at}");
        assert!(verify_checksum(&bytes[..at]).is_err(), "cut at {at}");
        // The same cut, with a length that agrees with it.
        let mut cut = bytes[..at].to_vec();
        if at >= 4 {
            cut[..4].copy_from_slice(&(at as u32).to_le_bytes());
            check_one_encoding(&cut);
        }
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(Record::decode(&longer).is_err() && verify_checksum(&longer).is_err());
}

/// What decodes encodes to the same bytes, checksum aside.
fn check_one_encoding(bytes: &[u8]) {
    if let Ok((sequence, record)) = Record::decode(bytes) {
        let mut again = Vec::new();
        record.encode(sequence, &mut again);
        again[CHECKSUM].copy_from_slice(&bytes[CHECKSUM]);
        assert_eq!(again, bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn transactions_both_ways(parts in any_parts(), sequence in any::<u64>(), names in any::<[u64; 2]>()) {
        check_both_ways(&Record::Admitted(admitted(&parts)), sequence);
        let [first, previous] = names.map(Sequence);
        check_both_ways(&Record::Carried { admitted: first, previous, tx: admitted(&parts) }, sequence);
    }

    #[test]
    fn everything_else_both_ways(record in any_small(), sequence in any::<u64>()) {
        check_both_ways(&record, sequence);
    }

    #[test]
    fn any_bytes_are_an_error_or_the_only_encoding(kind in 0_u8..10, mut bytes in vec(0_u8..6, 0..300)) {
        let len = bytes.len() as u32;
        check_one_encoding(&bytes);
        if bytes.len() >= HEADER_BYTES {
            bytes[..4].copy_from_slice(&len.to_le_bytes());
            bytes[8] = kind;
            check_one_encoding(&bytes);
        }
        let _ = (Outline::of(&bytes), verify_checksum(&bytes));
    }
}

fn hash(byte: u8) -> B256 {
    B256::repeat_byte(byte)
}

/// CRC-32C bit by bit (RFC 3720, appendix B.4), so that the library is not its own witness.
fn crc32c_bitwise(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let step = |crc: u32| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 };
    !bytes.into_iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

/// The record in hex; blanks separate fields, `CRC` stands for the checksum.
#[track_caller]
fn check(record: &Record<'_>, expected: &str) {
    let bytes = encoded(record, 0x0102);
    let crc = crc32c_bitwise(bytes[..4].iter().chain(&bytes[8..]).copied());
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&bytes), expected.replace("CRC", &hex(&crc.to_le_bytes())).replace(' ', ""));
}

#[test]
fn pinned_bytes_of_transactions() {
    let plain = AdmittedTx {
        sender: Address::repeat_byte(0xaa),
        accepted_unix_ns: 3,
        authorities: Cow::Borrowed(&[]),
        conditions: None,
        raw: &[0xc1, 0x80],
    };
    let sender = "aa".repeat(20);
    check(
        &Record::Admitted(plain.clone()),
        &format!("32000000 CRC 01 0201000000000000 {sender} 0300000000000000 00 0000 c180"),
    );
    let authorities = [None, Some(Address::repeat_byte(0xbb))];
    let slots = StorageExpectation::Slots(vec![(hash(0x51), hash(0x52))]);
    let known = |storage, code| KnownAccount {
        address: Address::repeat_byte(0xcc),
        storage,
        balance_wei: Some(U256::from(5)),
        code: Some(code),
        nonce: Some(6),
    };
    let conditions = Conditions {
        known_accounts: vec![
            known(slots, CodeExpectation::Hash(hash(0x53))),
            known(StorageExpectation::Root(hash(0x54)), CodeExpectation::Empty),
        ],
        block_number_max: Some(7),
        pays_coinbase_wei: Some(U256::from(8)),
        ..Conditions::default()
    };
    let tx =
        AdmittedTx { authorities: Cow::Borrowed(&authorities), conditions: Some(Cow::Borrowed(&conditions)), ..plain };
    let (authority, account) = ("bb".repeat(20), "cc".repeat(20));
    let wei = |value: &str| format!("{value}{}", "00".repeat(31));
    let (balance, payment) = (wei("05"), wei("08"));
    let [slot, value, code, root] = ["51", "52", "53", "54"].map(|byte| byte.repeat(32));
    check(
        &Record::Carried { admitted: Sequence(9), previous: Sequence(10), tx },
        &format!(
            "7f010000 CRC 02 0201000000000000 0a00000000000000 0900000000000000 {sender} 0300000000000000 01 0200 00 01{authority} \
             12 0700000000000000 {payment} 0200 \
             {account} 0e 0100 {slot}{value} {balance} 0600000000000000 {code} \
             {account} 17 {root} {balance} 0600000000000000 c180"
        ),
    );
}

#[test]
fn pinned_bytes_of_ends() {
    let dropped =
        |end| Record::Dropped { tx: Sequence(4), hash: hash(0x11), accepted_unix_ns: 5, ended_unix_ns: 6, end };
    let head = format!("03 0201000000000000 0400000000000000 {} 0500000000000000 0600000000000000", "11".repeat(32));
    check(&dropped(EndState::Dropped { reason: 9 }), &format!("4b000000 CRC {head} 02 09"));
    check(&dropped(EndState::Replaced { by: hash(0x22) }), &format!("6b000000 CRC {head} 03 00 {}", "22".repeat(32)));
    let zeros = "00".repeat(31);
    check(
        &dropped(EndState::Invalidated { reason: 3, required: U256::from(7), actual: U256::MAX }),
        &format!("8b000000 CRC {head} 04 03 07{zeros} {}", "ff".repeat(32)),
    );
}

#[test]
fn pinned_bytes_of_blocks() {
    let context = BlockContext {
        number: 1,
        parent_hash: hash(0x31),
        timestamp: 2,
        base_fee_per_gas_wei: 3,
        prev_randao: hash(0x32),
        coinbase: Address::repeat_byte(0x34),
        gas_limit: 4,
        extra_data: Bytes::from_static(b"ns"),
        parent_beacon_block_root: hash(0x33),
        fork: Fork::Osaka,
    };
    let [parent, randao, beacon] = ["31", "32", "33"].map(|byte| byte.repeat(32));
    check(
        &Record::Opened { context: Cow::Borrowed(&context), opened_unix_ns: 5 },
        &format!(
            "b1000000 CRC 04 0201000000000000 0100000000000000 0500000000000000 0200000000000000 0300000000000000 \
             0400000000000000 {parent} {randao} {beacon} {} 02 02 6e73",
            "34".repeat(20)
        ),
    );
    check(
        &Record::Placed { tx: Sequence(4), index: 2, preconfirmed_unix_ns: 5 },
        "25000000 CRC 05 0201000000000000 0400000000000000 02000000 0500000000000000",
    );
    check(
        &Record::Closed { number: 1, tx_count: 2, reason: CloseReason::Full },
        "1e000000 CRC 06 0201000000000000 0100000000000000 02000000 02",
    );
    let roots = ["41", "42", "43"].map(|byte| byte.repeat(32)).concat();
    check(
        &Record::Sealed {
            number: 1,
            hash: hash(0x41),
            state_root: hash(0x42),
            receipts_root: hash(0x43),
            sealed_unix_ns: 5,
        },
        &format!("81000000 CRC 07 0201000000000000 0100000000000000 {roots} 0500000000000000"),
    );
    check(
        &Record::RolledBack { to_block: 1, cause: RollbackCause::Operator },
        "1a000000 CRC 08 0201000000000000 0100000000000000 01",
    );
}

/// A record of `kind` with `payload`, and why it is none.
#[track_caller]
fn check_refused(kind: u8, payload: &[u8], expected: RecordError) {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[8] = kind;
    bytes.extend_from_slice(payload);
    let len = bytes.len() as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    assert_eq!(Record::decode(&bytes), Err(expected));
}

#[test]
fn the_checksum_is_castagnolis() {
    // RFC 3720, appendix B.4: 32 bytes of zeros, and of ones.
    assert_eq!(crc32c_bitwise([0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c_bitwise([0xff; 32]), 0x62a8_ab43);
}

#[test]
fn refused_rows() {
    let code = |field, code| RecordError::Code { field, code };
    let short = |field, missing| RecordError::Short { field, missing };
    check_refused(0, &[], RecordError::Type(0));
    check_refused(9, &[], RecordError::Type(9));
    check_refused(8, &[0; 8], short("cause", 1));
    check_refused(8, &[0; 9], code("cause of a rollback", 0));
    check_refused(8, &[0, 0, 0, 0, 0, 0, 0, 0, 1, 7], RecordError::Trailing { bytes: 1 });
    check_refused(6, &[0; 13], code("reason of a close", 0));
    check_refused(5, &[0; 19], short("preconfirmed", 1));
    check_refused(3, &[0; 58], code("reason of an end", 0));
    let end = |kind, reason| [&[0; 56][..], &[kind, reason]].concat();
    check_refused(3, &end(1, 1), code("kind of end", 1));
    check_refused(3, &end(5, 1), code("kind of end", 5));
    check_refused(3, &end(2, 12), code("reason of an end", 12));
    check_refused(3, &end(3, 1), code("reason of a replacement", 1));
    check_refused(3, &end(3, 0), short("replacement", 32));
    let opened = |fork, extra_len: u8, len| [&[0; 156][..], &[fork, extra_len], &vec![0; len]].concat();
    check_refused(4, &opened(3, 0, 0), code("fork", 3));
    check_refused(4, &opened(1, 33, 33), RecordError::ExtraData { bytes: 33 });
    check_refused(4, &opened(1, 32, 31), short("extra data", 1));
    let tx = |rest: &[u8]| [&[0; 28][..], rest].concat();
    check_refused(1, &tx(&[2, 0, 0]), code("transaction flags", 2));
    check_refused(1, &tx(&[0, 2, 0, 0]), short("authority", 1));
    check_refused(1, &tx(&[0, 1, 0, 2]), code("authority tag", 2));
    check_refused(1, &tx(&[1, 0, 0, 0x20, 0, 0]), code("condition flags", 0x20));
    check_refused(1, &tx(&[1, 0, 0, 0, 1, 0, 7]), short("known account", 22));
    let account = |flags: u8| [&tx(&[1, 0, 0, 0, 1, 0])[..], &[0; 20], &[flags], &[0; 64]].concat();
    check_refused(1, &account(0x20), code("known account flags", 0x20));
    check_refused(1, &account(0x18), code("known account flags", 0x18));
    assert_eq!(Record::decode(&[]), Err(short("length", 4)));
    assert_eq!(Record::decode(&[5, 0, 0, 0]), Err(RecordError::Length { said: 5, actual: 4 }));
}
