use alloy_primitives::b256;

use super::*;

const KEY: B256 = b256!("a0b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9f");
const HASH: [u8; 32] = [7; 32];

fn string(bytes: &[u8]) -> Vec<u8> {
    alloy_rlp::encode(bytes)
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let payload = items.concat();
    let mut out = Vec::new();
    alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
    out.extend(payload);
    out
}

fn branch(children: usize, value: Vec<u8>) -> Vec<u8> {
    let mut items = vec![string(&[]); WIDTH];
    items[..children].fill(string(&HASH));
    items.push(value);
    list(&items)
}

#[track_caller]
fn check(rlp: &[u8], depth: usize, expected: Result<(), NodeFault>) {
    assert_eq!(NodeView::parse(rlp, &KEY, depth).map(|_| ()), expected, "{rlp:02x?}");
}

#[track_caller]
fn short(prefix: &[u8], second: Vec<u8>, depth: usize, expected: Result<(), NodeFault>) {
    check(&list(&[string(prefix), second]), depth, expected);
}

#[test]
fn branches() {
    check(&branch(2, string(&[])), 0, Ok(()));
    check(&branch(16, string(&[])), 63, Ok(()));
    check(&branch(16, string(&[])), 64, Err(NodeFault::Depth { nibbles: 64 }));
    check(&branch(1, string(&[])), 0, Err(NodeFault::BranchChildren { count: 1 }));
    check(&branch(2, string(&[1, 2])), 0, Err(NodeFault::BranchValue { bytes: 2 }));
    check(&branch(2, list(&[])), 0, Err(NodeFault::BranchValue { bytes: 0 }));
    let mut trailing = branch(2, string(&[]));
    trailing.push(0);
    check(&trailing, 0, Err(NodeFault::TrailingBytes { bytes: 1 }));
    let items = |count| list(&vec![string(&HASH); count]);
    check(&items(1), 0, Err(NodeFault::Rlp(RlpFault::Truncated { bytes_left: 0 })));
    for count in [3, 15, 16, 18] {
        check(&items(count), 0, Err(NodeFault::ItemCount { count }));
    }
    let with_child = |child| {
        let mut items = vec![string(&HASH); WIDTH];
        items[3] = child;
        items.push(string(&[]));
        list(&items)
    };
    check(&with_child(string(&[9; 31])), 0, Err(NodeFault::ChildLength { bytes: 31 }));
    check(&with_child(list(&[string(&[9; 29])])), 0, Ok(()));
    check(&with_child(list(&[string(&[9; 30])])), 0, Err(NodeFault::EmbeddedTooLong { bytes: 32 }));
    check(&string(&HASH), 0, Err(NodeFault::Rlp(RlpFault::UnexpectedString)));
}

#[test]
fn leaves_and_extensions() {
    let value = || string(&[5]);
    let hash = || string(&HASH);
    let full = [&[0x20][..], &KEY[..]].concat();
    short(&full, value(), 0, Ok(()));
    short(&full[..32], value(), 2, Ok(()));
    short(&full[..32], value(), 3, Err(NodeFault::Depth { nibbles: 65 }));
    short(&[0x35], value(), 63, Ok(()));
    short(&[0x20], value(), 64, Ok(()));
    short(&[0x20], value(), 63, Err(NodeFault::Depth { nibbles: 63 }));
    short(&full, string(&[]), 0, Err(NodeFault::ValueEmpty));
    short(&full, list(&[]), 0, Err(NodeFault::Rlp(RlpFault::UnexpectedList)));
    for byte in [0x21, 0x40, 0x80, 0x01, 0x6f] {
        short(&[byte, 1], hash(), 0, Err(NodeFault::HexPrefix { byte }));
    }
    short(&[0x11], hash(), 62, Ok(()));
    short(&[0x11], hash(), 63, Err(NodeFault::Depth { nibbles: 64 }));
    short(&[0x00, 0x12], hash(), 0, Ok(()));
    short(&[0x00], hash(), 0, Err(NodeFault::PathEmpty));
    short(&[], hash(), 0, Err(NodeFault::PathEmpty));
    short(&[0x11], string(&[]), 0, Err(NodeFault::ChildLength { bytes: 0 }));
    short(&[0x11], string(&[1; 33]), 0, Err(NodeFault::ChildLength { bytes: 33 }));
    short(&[0x00; 500], hash(), 0, Err(NodeFault::Depth { nibbles: 998 }));
}

#[test]
fn paths_are_absolute() {
    let rlp = list(&[string(&[0x15, 0x67]), string(&HASH)]);
    let Ok(NodeView::Extension { path, end, .. }) = NodeView::parse(&rlp, &KEY, 2) else { panic!("an extension") };
    assert_eq!((path, end), (b256!("a056700000000000000000000000000000000000000000000000000000000000"), 5));
    let Ok(NodeView::Extension { path, end, .. }) = NodeView::parse(&rlp, &KEY, 3) else { panic!("an extension") };
    assert_eq!((path, end), (b256!("a0b5670000000000000000000000000000000000000000000000000000000000"), 6));
    assert_eq!(shared_nibbles(&KEY, &path), 3);
    assert_eq!(shared_nibbles(&KEY, &KEY), KEY_NIBBLES);
    assert_eq!(shared_nibbles(&B256::ZERO, &KEY), 0);
    let low = b256!("a1b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9f");
    assert_eq!(shared_nibbles(&low, &KEY), 1);
}

#[test]
fn values() {
    let account = |nonce: &[u8], balance: &[u8], root: &[u8]| {
        list(&[string(nonce), string(balance), string(root), string(&HASH)])
    };
    assert_eq!(
        parse_account(&account(&[3], &[1, 0], &HASH)).map(|a| (a.nonce, a.balance_wei)),
        Ok((3, U256::from(256)))
    );
    for (nonce, balance, root) in [
        (&[0][..], &[1][..], &HASH[..]),
        (&[1; 9], &[1], &HASH),
        (&[], &[0, 1], &HASH),
        (&[], &[1; 33], &HASH),
        (&[], &[], &HASH[1..]),
    ] {
        let value = account(nonce, balance, root);
        let fault = parse_account(&value);
        assert!(matches!(fault, Err(NodeFault::Account { .. })), "{fault:?}");
    }
    assert!(matches!(parse_account(&list(&vec![string(&HASH); 5])), Err(NodeFault::Account { .. })));
    assert_eq!(parse_account(&string(&HASH)), Err(NodeFault::Rlp(RlpFault::UnexpectedString)));

    assert_eq!(parse_slot(&string(&[0x7f])), Ok(U256::from(0x7f)));
    assert_eq!(parse_slot(&string(&[0xff; 32])), Ok(U256::MAX));
    for payload in [&[][..], &[0], &[0, 1], &[1; 33]] {
        assert!(matches!(parse_slot(&string(payload)), Err(NodeFault::Slot { .. })), "{payload:02x?}");
    }
    assert!(matches!(parse_slot(&[5, 6]), Err(NodeFault::Slot { .. })));
}
