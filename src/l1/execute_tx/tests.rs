//! Against the vectors of the L1 node (`tests/vectors`), by properties, and at each bound.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::primitives::Fork;
use crate::testing::signing::TestKey;

const V2: Profile = Profile::ExecuteTxV2;

fn vectors() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/executetx-fork-49df765fd.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("vectors")).expect("JSON")
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_else(|| panic!("{name} is a string"))
}

fn bytes(object: &Value, name: &str) -> Bytes {
    alloy_primitives::hex::decode(text(object, name)).expect("hex").into()
}

fn each_vector(mut check: impl FnMut(&Value, &Bytes, ExecuteTx)) {
    let vectors = vectors();
    let txs = vectors["txs"].as_array().expect("transactions");
    assert_eq!(txs.len(), 9);
    for vector in txs {
        let raw = bytes(vector, "raw");
        let tx = ExecuteTx::decode(&raw, V2).unwrap_or_else(|error| panic!("{}: {error}", vector["name"]));
        check(vector, &raw, tx);
    }
}

#[test]
fn vectors_decode_and_encode_to_themselves() {
    let sender: Address = text(&vectors(), "sender").parse().expect("address");
    let key = TestKey::from_hex(&format!("0x{}", text(&vectors(), "private_key")));
    assert_eq!(key.address, sender);
    each_vector(|vector, raw, tx| {
        let name = text(vector, "name");
        assert_eq!(tx.encode(), *raw, "{name}");
        assert_eq!(raw.len() as u64, vector["size"], "{name}");
        assert_eq!(tx.hash().to_string(), vector["hash"], "{name}");
        assert_eq!(tx.signing_hash().to_string(), vector["sighash"], "{name}");
        assert_eq!(tx.sender(), Ok(sender), "{name}");
        let signed = key.sign(tx.signing_hash());
        assert_eq!(
            (signed.r(), signed.s(), signed.v()),
            (tx.signature.r, tx.signature.s, tx.signature.odd_y),
            "{name}"
        );
        assert!(ExecuteTx::decode(raw, Profile::ExecuteTxV1).is_err(), "{name}");
    });
}

#[test]
fn vectors_have_our_calldata_and_gas() {
    each_vector(|vector, _, tx| {
        let name = text(vector, "name");
        let base_fee_wei = Some(1_000_000_000);
        assert_eq!(tx.precompile_calldata(base_fee_wei), bytes(vector, "calldata_at_basefee_1gwei"), "{name}");
        // Execution is free and the floor is above the intrinsic price for all of them.
        assert_eq!(tx.intrinsic_gas(base_fee_wei), vector["result"]["cancun"]["gasUsed"], "{name}");
        assert_eq!(tx.floor_gas(base_fee_wei), vector["result"]["osaka"]["gasUsed"], "{name}");
        let gas = Gas::of(V2, &tx.payload);
        assert!(gas.limit(tx.terms.chain_id, true) >= tx.floor_gas(base_fee_wei), "{name}");
        assert!(gas.limit(tx.terms.chain_id, true) <= tx.floor_gas(base_fee_wei) + 480, "{name}");
        assert!(gas.needed(&tx.terms, false) >= tx.intrinsic_gas(base_fee_wei), "{name}");
    });
}

#[test]
fn vectors_have_our_json() {
    each_vector(|vector, _, tx| {
        let (theirs, ours) = (vector["json"].as_object().expect("object"), tx.to_json());
        for (name, value) in theirs {
            match name.as_str() {
                // What their JSON cannot say: there is no recipient, and the price is not one number.
                "to" => assert_eq!(ours["to"], serde_json::json!(tx.payload.to)),
                "gasPrice" => assert!(value.is_null()),
                _ => assert_eq!(&ours[name], value, "{} of {}", name, vector["name"]),
            }
        }
        assert_eq!(ours["anchor"], serde_json::json!(tx.payload.anchor));
        assert_eq!(ours["from"], serde_json::json!(tx.sender().expect("sender")));
    });
}

/// The example of the specification, with every field set.
const GOLDEN: &str = "05f8c582f21380847735940085174876e800834c4b40808084deadbeefa00000000000000000000000000000000000000000\
    0000000000000000000000110501209400000000000000000000000000000000000000cb07846553f10085c4c0c0c0c081c0\
    a02222222222222222222222222222222222222222222222222222222222222222c0019f34a1d06e0fa7186f23df887a8459\
    cfbe8e64930e3e8d67b68fa421a50a87b6a0245d4f323f70e8668f1a57839ebd3ed70c743a1d05a7094323b426344ffbce08";

fn golden() -> Vec<u8> {
    alloy_primitives::hex::decode(GOLDEN).expect("hex")
}

#[test]
fn the_example_of_the_specification() {
    let tx = ExecuteTx::decode(&golden(), V2).expect("an ExecuteTx");
    assert_eq!(tx.signing_hash().to_string(), "0xc158e1248d3b53e7fd0e19adc7e23248713db96336dc5d15aa24f943dd374bb1");
    assert_eq!(tx.hash().to_string(), "0xb08536fc7d1978d3555862c9fdd8744803373909ecbafa948258681a39e06493");
    assert_eq!(tx.payload.anchor.len(), 32);
    assert_eq!(tx.signature.r.byte_len(), 31, "minimal integers, not words");
    assert_eq!(tx.encode(), golden());
}

/// Flips and cuts leave either an error or a transaction of another hash, and never another reading of the same bytes.
#[test]
fn damage_is_never_the_same_transaction() {
    let raw = golden();
    let (tx, sender) = (ExecuteTx::decode(&raw, V2).expect("an ExecuteTx"), Ok(TX_SENDER));
    assert_eq!(tx.sender(), sender);
    for at in 0..raw.len() {
        assert!(ExecuteTx::decode(&raw[..at], V2).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut damaged = raw.clone();
            damaged[at] ^= 1 << bit;
            for profile in Profile::ALL {
                if let Ok(other) = ExecuteTx::decode(&damaged, profile) {
                    assert_ne!(other, tx, "byte {at} bit {bit}");
                    assert_eq!(other.encode(), damaged, "byte {at} bit {bit}");
                    assert_ne!(other.sender(), sender, "byte {at} bit {bit}");
                }
            }
        }
    }
    let mut longer = raw;
    longer.push(0);
    assert_eq!(ExecuteTx::decode(&longer, V2), Err(ExecuteTxError::TrailingBytes { bytes: 1 }));
}

const TX_SENDER: Address = address!("0x2c7536E3605D9C16a7a3D7b1898e529396a65c23");

/// The items of the example, to be changed one at a time.
fn golden_items() -> Vec<Vec<u8>> {
    let raw = golden();
    let mut list = Header::decode_bytes(&mut &raw[1..], true).expect("a list");
    let mut items = Vec::new();
    while !list.is_empty() {
        let start = list;
        let header = Header::decode(&mut list).expect("an item");
        list = &list[header.payload_length..];
        items.push(start[..start.len() - list.len()].to_vec());
    }
    items
}

fn list_of(items: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![EXECUTE_TX_TYPE];
    Header { list: true, payload_length: items.iter().map(Vec::len).sum() }.encode(&mut out);
    items.iter().for_each(|item| out.extend_from_slice(item));
    out
}

#[track_caller]
fn check(index: usize, item: &str, expected: &str) {
    let mut items = golden_items();
    items[index] = alloy_primitives::hex::decode(item).expect("hex");
    let found = match ExecuteTx::decode(&list_of(&items), V2) {
        Ok(tx) => format!("ok {}", tx.encode() == list_of(&items)),
        Err(error) => error.to_string(),
    };
    assert_eq!(found, expected);
}

#[test]
fn each_defect_has_its_own_error() {
    assert_eq!(list_of(&golden_items()), golden());
    check(0, "8200f2", "chain id (item 0, byte 3): leading zero");
    check(0, "00", "chain id (item 0, byte 3): leading zero");
    check(1, "89010000000000000000", "nonce (item 1, byte 6): overflow");
    check(1, "88ffffffffffffffff", "ok true");
    check(1, "c0", "nonce (item 1, byte 6): unexpected list");
    check(2, "85174876e801", "max priority fee per gas 100000000001 is higher than max fee per gas 100000000000");
    check(2, "85174876e800", "ok true");
    check(5, "93000000000000000000000000000000000000cb", "to has 19 bytes, expected 20");
    check(5, "9400000000000000000000000000000000000000cb", "ok true");
    check(8, "80", "pre-state hash has 0 bytes, expected 32");
    check(9, "04", "witness is declared 4 bytes long and has 5");
    check(9, "850100000005", "witness is declared 4294967301 bytes long and has 5");
    check(10, "02", "withdrawals is declared 2 bytes long and has 1");
    check(11, "1f", "anchor is declared 31 bytes long and has 32");
    check(12, "80", "coinbase has 0 bytes, expected 20");
    check(15, "85c4c0c0c0c1", "ok true");
    check(18, "80", "blob hashes (item 18, byte 133): unexpected string");
    check(
        18,
        &format!("e1a0{}", "00".repeat(32)),
        "blob hashes have 33 bytes, only an empty list is allowed (EIP-8079)",
    );
    check(19, "80", "ok true");
    check(19, "02", "v is 2, expected 0 or 1");
    check(19, "1b", "v is 27, expected 0 or 1");
    check(20, "80", "signature r is zero or not below the group order");
    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    check(20, &format!("a0{order}"), "signature r is zero or not below the group order");
    let half = "7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a";
    check(21, &format!("a0{half}0"), "ok true");
    check(21, &format!("a0{half}1"), "signature s is above half the group order (EIP-2)");
}

#[test]
fn wrong_shapes_have_their_own_errors() {
    let decode = |raw: &[u8]| ExecuteTx::decode(raw, V2).map(|_| ()).expect_err("no ExecuteTx").to_string();
    assert_eq!(decode(&[]), "transaction is empty");
    assert_eq!(decode(&[2, 0xc0]), "transaction type is 0x02, ExecuteTx is 0x05");
    assert_eq!(decode(&[5]), "transaction: input too short");
    assert_eq!(decode(&[5, 0x80]), "transaction: unexpected string");
    assert_eq!(decode(&[5, 0xc0, 0]), "1 bytes after the end of the transaction");
    assert_eq!(decode(&[5, 0xc0]), "transaction has 0 items, execute-tx-v2 has 22");
    let mut items = golden_items();
    items.push(vec![1]);
    assert_eq!(decode(&list_of(&items)), "transaction has 23 items, execute-tx-v2 has 22");
    items.truncate(21);
    assert_eq!(decode(&list_of(&items)), "transaction has 21 items, execute-tx-v2 has 22");
    items.truncate(1);
    items[0] = vec![0xb8, 0x38];
    assert_eq!(decode(&list_of(&items)), "transaction: input too short");
}

#[test]
fn the_older_profile_has_20_items_and_120_bytes() {
    let (profile, key) = (Profile::ExecuteTxV1, TestKey::nth(1));
    let mut tx = ExecuteTx { profile, ..ExecuteTx::decode(&golden(), V2).expect("an ExecuteTx") };
    tx.payload.anchor = Bytes::new();
    let signed = key.sign(tx.signing_hash());
    tx.signature = Signature { odd_y: signed.v(), r: signed.r(), s: signed.s() };
    let mut items = golden_items();
    items.remove(17);
    items.remove(11);
    assert_eq!(tx.payload.encoded(profile).items()[..], items[5..17].concat());
    let raw = tx.encode();
    assert_eq!(ExecuteTx::decode(&raw, profile).as_ref(), Ok(&tx));
    assert_eq!(tx.sender(), Ok(key.address));
    assert!(ExecuteTx::decode(&raw, V2).is_err());
    let (old, new) =
        (tx.precompile_calldata(Some(7)), ExecuteTx { profile: V2, ..tx.clone() }.precompile_calldata(Some(7)));
    assert_eq!(old.len() + 4, new.len());
    assert_eq!((&old[..76], &old[76..]), (&new[..76], &new[80..]));
    assert_eq!(tx.to_json().get("anchor"), None);
}

/// Counting without building agrees with counting what was built, around the length where L1 wraps.
#[test]
fn gas_is_that_of_the_calldata_at_each_length() {
    let terms = Terms { chain_id: U256::from(61_971), gas: 0x1002, fee_cap_wei: U256::MAX, ..Terms::default() };
    for length in [0, 1, 65_535, 65_536, 65_537, 131_072] {
        for to in [None, Some(EXECUTE_ADDRESS)] {
            let witness = Bytes::from((0..length).map(|at| (at % 3) as u8).collect::<Vec<_>>());
            let payload = Payload { to, witness, data: vec![0, 9].into(), ..Payload::default() };
            let calldata = precompile_calldata(V2, &terms, &payload, Some(256));
            let zero_bytes = calldata.iter().filter(|&&byte| byte == 0).count() as u64;
            let nonzero_bytes = calldata.len() as u64 - zero_bytes;
            let gas = Gas::of(V2, &payload);
            assert_eq!(gas.intrinsic(&terms, Some(256)), 21_000 + 4 * zero_bytes + 16 * nonzero_bytes, "{length}");
            assert_eq!(gas.floor(&terms, Some(256)), 21_000 + 10 * (zero_bytes + 4 * nonzero_bytes), "{length}");
        }
    }
}

#[track_caller]
fn check_limit(change: impl Fn(&mut Terms, &mut Payload), expected: Result<(), LimitError>) {
    let limits = Limits::of_default_node(U256::from(61_971), Fork::Osaka);
    let mut payload = Payload { data: vec![1].into(), ..Payload::default() };
    let mut terms = Terms { chain_id: limits.chain_id, gas: 16_777_216, fee_cap_wei: U256::ONE, ..Terms::default() };
    change(&mut terms, &mut payload);
    assert_eq!(limits.check(&terms, &payload, &payload.encoded(V2)), expected);
}

#[test]
fn limits_hold_on_both_sides() {
    let bytes = |length: usize| Bytes::from(vec![0; length]);
    let bytes_max = 65_535;
    check_limit(|_, _| (), Ok(()));
    check_limit(|_, payload| payload.witness = bytes(65_535), Ok(()));
    let witness = LimitError::Witness { bytes: 65_536, bytes_max };
    check_limit(|_, payload| payload.witness = bytes(65_536), Err(witness));
    check_limit(|_, payload| payload.withdrawals = bytes(65_535), Ok(()));
    let withdrawals = LimitError::Withdrawals { bytes: 65_536, bytes_max };
    check_limit(|_, payload| payload.withdrawals = bytes(65_536), Err(withdrawals));
    check_limit(|_, payload| payload.anchor = bytes(65_535), Ok(()));
    check_limit(|_, payload| payload.anchor = bytes(65_536), Err(LimitError::Anchor { bytes: 65_536, bytes_max }));
    let found = EXECUTE_ADDRESS;
    check_limit(|_, payload| payload.to = Some(found), Err(LimitError::Recipient { found }));
    check_limit(|_, payload| payload.value = U256::ONE, Err(LimitError::Value { found_wei: U256::ONE }));
    let chain_id = LimitError::ChainId { found: U256::ONE, expected: U256::from(61_971) };
    check_limit(|terms, _| terms.chain_id = U256::ONE, Err(chain_id));
    check_limit(|terms, _| terms.gas += 1, Err(LimitError::Gas { gas: 16_777_217, gas_max: 16_777_216 }));
    let (tip_wei, fee_wei) = (U256::from(2), U256::ONE);
    check_limit(|terms, _| terms.tip_cap_wei = tip_wei, Err(LimitError::TipAboveFee { tip_wei, fee_wei }));
    check_limit(|terms, _| terms.tip_cap_wei = fee_wei, Ok(()));
}

#[test]
fn limits_of_price_gas_and_size_hold_on_both_sides() {
    let fee_wei_max = U256::from(10).pow(U256::from(18));
    let priced = |fee: u64| {
        move |terms: &mut Terms, _: &mut Payload| (terms.gas, terms.fee_cap_wei) = (1_000_000, U256::from(fee))
    };
    check_limit(priced(1_000_000_000_000), Ok(()));
    let fee_wei = fee_wei_max + U256::from(1_000_000);
    check_limit(priced(1_000_000_000_001), Err(LimitError::Fee { fee_wei, fee_wei_max }));
    // 181 bytes, of which 8 + 2 + 1 + 1 + 2 are not zero: price, gas, length, data, chain id.
    let needed = 21_000 + 10 * (181 + 3 * 14);
    check_limit(|terms, _| terms.gas = needed, Ok(()));
    check_limit(|terms, _| terms.gas = needed - 1, Err(LimitError::GasTooLow { gas: needed - 1, needed }));
    let sized = |length: usize| {
        move |terms: &mut Terms, payload: &mut Payload| {
            payload.data = vec![0; length].into();
            terms.gas = 16_000_000;
            let spare = 131_072 - payload.encoded(V2).raw_bytes_max(terms) as i64;
            assert!(spare.abs() < 200, "{spare}");
        }
    };
    let overhead = {
        let payload = Payload { data: vec![0; 130_000].into(), ..Payload::default() };
        let terms = Terms { chain_id: U256::from(61_971), gas: 16_000_000, fee_cap_wei: U256::ONE, ..Terms::default() };
        payload.encoded(V2).raw_bytes_max(&terms) - 130_000
    };
    check_limit(sized(131_072 - overhead), Ok(()));
    check_limit(sized(131_073 - overhead), Err(LimitError::Raw { bytes: 131_073, bytes_max: 131_072 }));
}

/// Attempts differ in terms and signature only.
#[test]
fn a_repost_has_the_same_payload_bytes() {
    let (key, tx) = (TestKey::nth(1), ExecuteTx::decode(&golden(), V2).expect("an ExecuteTx"));
    let encoded = tx.payload.encoded(V2);
    let attempts = [1, 300].map(|nonce| {
        let terms = Terms { nonce, ..tx.terms };
        let signed = key.sign(encoded.signing_hash(&terms));
        let signature = Signature { odd_y: signed.v(), r: signed.r(), s: signed.s() };
        let raw = encoded.encode(&terms, &signature);
        let decoded = ExecuteTx::decode(&raw, V2).expect("an ExecuteTx");
        assert_eq!((&decoded.terms, &decoded.payload), (&terms, &tx.payload));
        assert_eq!(decoded.sender(), Ok(key.address));
        assert!(raw.len() <= encoded.raw_bytes_max(&terms));
        assert!(raw.windows(encoded.items().len()).any(|window| window == encoded.items()));
        raw
    });
    assert_ne!(attempts[0], attempts[1]);
}

prop_compose! {
    fn any_payload()(
        to in proptest::option::of(any::<[u8; 20]>()),
        numbers in any::<(u64, u64, u128)>(),
        fields in any::<([u8; 32], [u8; 20])>(),
        strings in proptest::array::uniform4(proptest::collection::vec(any::<u8>(), 0..300)),
    ) -> Payload {
        let [data, witness, withdrawals, anchor] = strings.map(Bytes::from);
        Payload {
            to: to.map(Address::from),
            value: U256::from(numbers.2),
            data,
            pre_state_root: fields.0.into(),
            coinbase: fields.1.into(),
            block_number: numbers.0,
            timestamp: numbers.1,
            witness,
            withdrawals,
            anchor,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_was_encoded_is_decoded(payload in any_payload(), terms in any::<(u64, u128, u128, u64)>(), old in any::<bool>()) {
        let profile = if old { Profile::ExecuteTxV1 } else { V2 };
        let payload = if old { Payload { anchor: Bytes::new(), ..payload } } else { payload };
        let (nonce, tip, more, gas) = terms;
        let fee_cap_wei = U256::from(tip) + U256::from(more);
        let terms = Terms { chain_id: U256::from(more), nonce, tip_cap_wei: U256::from(tip), fee_cap_wei, gas };
        let key = TestKey::nth(2);
        let signed = key.sign(signing_hash(profile, &terms, &payload));
        let signature = Signature { odd_y: signed.v(), r: signed.r(), s: signed.s() };
        let tx = ExecuteTx { profile, terms, payload, signature };
        let raw = tx.encode();
        prop_assert_eq!(tx.sender(), Ok(key.address));
        prop_assert_eq!(ExecuteTx::decode(&raw, profile), Ok(tx));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(mut raw in proptest::collection::vec(any::<u8>(), 0..200)) {
        for profile in Profile::ALL {
            let _ = ExecuteTx::decode(&raw, profile);
            raw.splice(0..0, [5, 0xf8, 200]);
            let _ = ExecuteTx::decode(&raw, profile);
        }
    }
}
