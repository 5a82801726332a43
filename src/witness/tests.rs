use super::*;

/// A header that is any list, so that an order can be seen.
fn header(number: u8) -> Bytes {
    vec![0xc1, number].into()
}

#[track_caller]
fn check(form: Form, expected: &str) {
    let witness = Witness {
        headers: vec![header(1), header(2)],
        codes: vec![Bytes::from_static(&[0x60, 0x61])],
        state: vec![Bytes::from_static(&[0x05]), Bytes::from_static(&[0xc0, 0xc1])],
    };
    assert_eq!(alloy_primitives::hex::encode(witness.encode_as(form)), expected);
}

#[test]
fn the_profile_decides_the_order_of_headers_and_the_count_of_items() {
    check(Form::GO_ETHEREUM, "cf c4c101c102 c3826061 c40582c0c1 c0".replace(' ', "").as_str());
    check(Form::EXECUTE_TX_V2, "cf c4c102c101 c3826061 c40582c0c1 c0".replace(' ', "").as_str());
    let three = Form { has_keys: false, ..Form::GO_ETHEREUM };
    check(three, "ce c4c101c102 c3826061 c40582c0c1".replace(' ', "").as_str());
}

#[test]
fn headers_reach_as_far_as_blockhash_and_a_missing_one_is_named() {
    let all = |number: u64| Some(header(number as u8));
    assert_eq!(headers(9, 8, all), Ok(vec![header(8)]));
    assert_eq!(headers(9, 5, all).map(|list| list.len()), Ok(4));
    assert_eq!(headers(9, 9, all), Ok(Vec::new()));
    let hole = |number: u64| (number != 6).then(|| header(number as u8));
    assert_eq!(headers(9, 5, hole), Err(CollectError::HeaderMissing { number: 9, missing: 6 }));
}
