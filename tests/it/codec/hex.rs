//! `codec::hex` against a digit-at-a-time reading and against alloy's own parsers.

use native_sequencer::codec::hex::{
    HexError, ValueFault, data_into, decode_into, encode_into, parse_data, parse_fixed, parse_quantity_u64,
    parse_quantity_u128, parse_quantity_u256, quantity_into,
};
use native_sequencer::primitives::U256;
use proptest::prelude::*;

/// Reads pairs of digits one by one.
fn decode_slowly(hex: &[u8], out_bytes: usize) -> Result<Vec<u8>, HexError> {
    let prefix_bytes = if hex.starts_with(b"0x") { 2 } else { 0 };
    let digits = &hex[prefix_bytes..];
    if digits.len() % 2 == 1 {
        return Err(HexError::OddLength { digits: digits.len() });
    }
    if digits.len() / 2 > out_bytes {
        return Err(HexError::TooLong { bytes: digits.len() / 2, bytes_max: out_bytes });
    }
    let mut values = Vec::new();
    for (index, &byte) in digits.iter().enumerate() {
        let value = char::from(byte).to_digit(16);
        values.push(value.ok_or(HexError::BadDigit { byte, position: index + prefix_bytes })? as u8);
    }
    Ok(values.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[track_caller]
fn check(hex: &[u8], out_bytes: usize) {
    let mut out = vec![0xee; out_bytes];
    let decoded = decode_into(hex, &mut out).map(|bytes| out[..bytes].to_vec());
    assert_eq!(decoded, decode_slowly(hex, out_bytes), "{:?}", String::from_utf8_lossy(hex));
    if let Ok(bytes) = decoded {
        assert!(out[bytes.len()..].iter().all(|&byte| byte == 0xee), "wrote past the end");
    }
}

#[test]
fn hex_edges() {
    for hex in
        ["", "0x", "0", "0x0", "00", "0x00", "0X00", "0x0x12", "x0", "0xg0", "0x0g", "fF", "0xAbCd", "0x00 ", " 00"]
    {
        for out_bytes in [0, 1, 2, 40] {
            check(hex.as_bytes(), out_bytes);
        }
    }
    check(&[b'a'; 8], 4);
    check(&[b'a'; 8], 3);
    check("0xéé".as_bytes(), 40);
}

proptest! {
    #[test]
    fn hex_decodes_what_it_encodes(bytes: Vec<u8>, prefix: bool, upper: bool) {
        let mut hex = Vec::new();
        if prefix { data_into(&bytes, &mut hex) } else { encode_into(&bytes, &mut hex) }
        if upper { hex.iter_mut().skip(2).for_each(u8::make_ascii_uppercase) }
        let mut out = vec![0; bytes.len()];
        prop_assert_eq!(decode_into(&hex, &mut out), Ok(bytes.len()));
        prop_assert_eq!(out, bytes);
    }

    /// Every position of a bad byte, in every lane of the vector code and in its tail.
    #[test]
    fn hex_names_the_first_bad_byte(length in 0_usize..150, at in 0_usize..150, bad: u8, second: u8, prefix: bool) {
        let mut hex = if prefix { b"0x".to_vec() } else { Vec::new() };
        hex.extend((0..length).map(|index| b"0123456789abcdefABCDEF"[index % 22]));
        for (index, byte) in [(at, bad), (at + 3, second)] {
            if let Some(place) = hex.get_mut(index) {
                *place = byte;
            }
        }
        check(&hex, 200);
        check(&hex, length / 2);
    }

    #[test]
    fn quantities_round_trip(limbs: [u64; 4], shift in 0_usize..=256) {
        let value = U256::from_limbs(limbs).checked_shr(shift).unwrap_or_default();
        let mut text = Vec::new();
        quantity_into(value, &mut text);
        let text = String::from_utf8(text).unwrap();
        prop_assert_eq!(&text, &format!("{value:#x}"));
        prop_assert_eq!(parse_quantity_u256(&text), Ok(value));
        let wide = parse_quantity_u128(&text);
        prop_assert_eq!(wide.ok(), u128::try_from(value).ok());
        let narrow = parse_quantity_u64(&text);
        prop_assert_eq!(narrow.ok(), u64::try_from(value).ok());
    }

    #[test]
    fn quantities_are_strict(text in "(0x)?[0-9a-fA-Fx ]{0,20}") {
        let digits = text.strip_prefix("0x").unwrap_or("");
        let canonical = digits == "0" || (!digits.is_empty() && !digits.starts_with('0'));
        let expected = u64::from_str_radix(digits, 16).ok().filter(|_| canonical);
        prop_assert_eq!(parse_quantity_u64(&text).ok(), expected);
    }
}

#[test]
fn quantity_faults() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(parse_quantity_u64(text).unwrap_err().to_string(), expected);
    }
    check("", "invalid value \"\": hex string without 0x prefix");
    check("12", "invalid value \"12\": hex string without 0x prefix");
    check("0x", "invalid value \"0x\": hex string \"0x\" has no digits, zero is \"0x0\"");
    check("0x00", "invalid value \"0x00\": hex number with leading zero digits");
    check("0x+1", "invalid value \"0x+1\": hex string has byte 0x2b at position 2, which is not a digit");
    check("0x10000000000000000", "invalid value \"0x10000000000000000\": hex number needs 65 bits, more than 64");
    assert_eq!(parse_quantity_u64("0xffffffffffffffff"), Ok(u64::MAX));
    assert_eq!(parse_quantity_u256(&format!("0x{}", "f".repeat(64))), Ok(U256::MAX));
    let long = format!("0x{}", "f".repeat(100_000));
    let error = parse_quantity_u256(&long).unwrap_err();
    assert_eq!(error.fault, ValueFault::TooLarge { bits: 400_000, bits_max: 256 });
    assert!(error.to_string().len() < 200, "an error must not echo a long value");
}

#[test]
fn data_faults() {
    assert_eq!(parse_data("0x"), Ok(vec![]));
    assert_eq!(parse_data("0x00ff"), Ok(vec![0, 0xff]));
    assert_eq!(parse_data("00ff").unwrap_err().fault, ValueFault::NoPrefix);
    assert_eq!(parse_data("0x0").unwrap_err().fault, ValueFault::Hex(HexError::OddLength { digits: 1 }));
    assert_eq!(parse_fixed("0x0102"), Ok([1, 2]));
    assert_eq!(parse_fixed::<2>("0x01").unwrap_err().fault, ValueFault::Length { bytes: 1, expected: 2 });
    assert_eq!(parse_fixed::<2>("0x010203").unwrap_err().fault, ValueFault::Length { bytes: 3, expected: 2 });
    assert_eq!(parse_fixed::<2>("0102").unwrap_err().fault, ValueFault::NoPrefix);
    let bad = HexError::BadDigit { byte: b'g', position: 3 };
    assert_eq!(parse_fixed::<1>("0x0g").unwrap_err().fault, ValueFault::Hex(bad));
}
