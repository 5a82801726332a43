//! Hexadecimal text to bytes and back, and the two JSON-RPC encodings made of it: quantities and data.
//!
//! `decode_into` and the `*_into` writers neither allocate (given room) nor keep text in their errors: they run on the
//! hot path. The `parse_*` functions serve every other method; their errors show the value.
//! The digit work is const-hex (AVX2 or SSSE3 by run-time detection); deliberately absent: upper-case output, `0X`.

use alloy_primitives::hex as const_hex;

use crate::primitives::U256;

/// Characters of a refused value that an error shows. More would let a sender choose the size of its reply.
const SHOWN_BYTES_MAX: usize = 80;

/// Why bytes are not a hexadecimal string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    #[error("hex string has an odd number of digits ({digits})")]
    OddLength { digits: usize },
    #[error("hex string has byte 0x{byte:02x} at position {position}, which is not a digit")]
    BadDigit { byte: u8, position: usize },
    #[error("hex string is {bytes} bytes long, at most {bytes_max} fit")]
    TooLong { bytes: usize, bytes_max: usize },
}

/// Decodes hexadecimal text, with or without `0x`, to the front of `out`; answers how many bytes it wrote.
///
/// Runs on: any thread; never allocates. On an error, `out` may be partly overwritten.
/// Errors:  the length is judged before the digits; positions count from the start of `hex`, prefix included.
pub fn decode_into(hex: &[u8], out: &mut [u8]) -> Result<usize, HexError> {
    let digits = hex.strip_prefix(b"0x").unwrap_or(hex);
    if !digits.len().is_multiple_of(2) {
        return Err(HexError::OddLength { digits: digits.len() });
    }
    let bytes = digits.len() / 2;
    let bytes_max = out.len();
    let out = out.get_mut(..bytes).ok_or(HexError::TooLong { bytes, bytes_max })?;
    match const_hex::decode_to_slice(digits, out) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(bad_digit(hex, hex.len() - digits.len())),
    }
}

/// Finds the byte that made decoding fail.
///
/// The library strips a second prefix (`0x0x12`) and `0X`, and then complains about the length; both hold an `x` or `X`,
/// so there always is a bad digit.
#[cold]
fn bad_digit(hex: &[u8], digits_start: usize) -> HexError {
    let found = hex[digits_start..].iter().position(|byte| !byte.is_ascii_hexdigit());
    match found {
        Some(index) => HexError::BadDigit { byte: hex[digits_start + index], position: digits_start + index },
        None => HexError::OddLength { digits: hex.len() - digits_start },
    }
}

/// Appends the lower-case digits of `bytes`, without a prefix.
pub fn encode_into(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    // The target is exactly two digits a byte, which is the only thing this call can refuse.
    let written = const_hex::encode_to_slice(bytes, &mut out[start..]);
    debug_assert!(written.is_ok());
}

/// Appends JSON-RPC data: `0x` and two lower-case digits a byte. No quotes.
pub fn data_into(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0x");
    encode_into(bytes, out);
}

/// Appends a JSON-RPC quantity: `0x` and the digits without leading zeros; zero is `0x0`. No quotes.
pub fn quantity_into(value: impl Into<U256>, out: &mut Vec<u8>) {
    let value: U256 = value.into();
    let digits_count = value.bit_len().div_ceil(4).max(1);
    out.extend_from_slice(b"0x");
    let limbs = value.as_limbs();
    for digit_index in (0..digits_count).rev() {
        let nibble = (limbs[digit_index / 16] >> (4 * (digit_index % 16))) & 0xf;
        out.push(b"0123456789abcdef"[nibble as usize]);
    }
}

/// Why a value is not what the execution API calls a quantity or data. Holds the value, cut to a bounded length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value \"{value}\": {fault}")]
pub struct ValueError {
    pub value: String,
    pub fault: ValueFault,
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueFault {
    #[error("hex string without 0x prefix")]
    NoPrefix,
    #[error("hex string \"0x\" has no digits, zero is \"0x0\"")]
    NoDigits,
    #[error("hex number with leading zero digits")]
    LeadingZero,
    #[error("hex number needs {bits} bits, more than {bits_max}")]
    TooLarge { bits: usize, bits_max: usize },
    #[error("hex string has {bytes} bytes, expected {expected}")]
    Length { bytes: usize, expected: usize },
    #[error(transparent)]
    Hex(#[from] HexError),
}

impl ValueError {
    fn new(value: &str, fault: ValueFault) -> Self {
        let mut shown: String = value.chars().take(SHOWN_BYTES_MAX).collect();
        if shown.len() < value.len() {
            shown.push_str("...");
        }
        Self { value: shown, fault }
    }
}

/// Parses a quantity of at most 64 bits: `0x`, then digits without leading zeros.
pub fn parse_quantity_u64(text: &str) -> Result<u64, ValueError> {
    let value = parse_quantity(text, 64)?;
    Ok(value.as_limbs()[0])
}

/// Parses a quantity of at most 128 bits.
pub fn parse_quantity_u128(text: &str) -> Result<u128, ValueError> {
    let value = parse_quantity(text, 128)?;
    let [low, high, ..] = *value.as_limbs();
    Ok(u128::from(high) << 64 | u128::from(low))
}

/// Parses a quantity of at most 256 bits.
pub fn parse_quantity_u256(text: &str) -> Result<U256, ValueError> {
    parse_quantity(text, 256)
}

fn parse_quantity(text: &str, bits_max: usize) -> Result<U256, ValueError> {
    let refuse = |fault| ValueError::new(text, fault);
    let digits = text.strip_prefix("0x").ok_or_else(|| refuse(ValueFault::NoPrefix))?.as_bytes();
    if digits.is_empty() {
        return Err(refuse(ValueFault::NoDigits));
    }
    if let Some(index) = digits.iter().position(|byte| !byte.is_ascii_hexdigit()) {
        return Err(refuse(HexError::BadDigit { byte: digits[index], position: index + 2 }.into()));
    }
    if digits.len() > 1 && digits[0] == b'0' {
        return Err(refuse(ValueFault::LeadingZero));
    }
    let top_bits = 8 - digit_value(digits[0]).leading_zeros() as usize;
    let bits = 4 * (digits.len() - 1) + top_bits;
    if bits > bits_max {
        return Err(refuse(ValueFault::TooLarge { bits, bits_max }));
    }
    let mut limbs = [0_u64; 4];
    for (digit_index, &digit) in digits.iter().rev().enumerate() {
        limbs[digit_index / 16] |= u64::from(digit_value(digit)) << (4 * (digit_index % 16));
    }
    Ok(U256::from_limbs(limbs))
}

/// Value of an ASCII hexadecimal digit; the caller has checked that it is one.
fn digit_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Parses data of any length: `0x`, then two digits a byte.
pub fn parse_data(text: &str) -> Result<Vec<u8>, ValueError> {
    if !text.starts_with("0x") {
        return Err(ValueError::new(text, ValueFault::NoPrefix));
    }
    let mut bytes = vec![0; (text.len() - 2) / 2];
    match decode_into(text.as_bytes(), &mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(ValueError::new(text, error.into())),
    }
}

/// Parses data of exactly `N` bytes, such as an address or a hash.
pub fn parse_fixed<const N: usize>(text: &str) -> Result<[u8; N], ValueError> {
    if !text.starts_with("0x") {
        return Err(ValueError::new(text, ValueFault::NoPrefix));
    }
    let mut bytes = [0; N];
    match decode_into(text.as_bytes(), &mut bytes) {
        Ok(length) if length == N => Ok(bytes),
        Ok(length) => Err(ValueError::new(text, ValueFault::Length { bytes: length, expected: N })),
        Err(HexError::TooLong { bytes: length, .. }) => {
            Err(ValueError::new(text, ValueFault::Length { bytes: length, expected: N }))
        }
        Err(error) => Err(ValueError::new(text, error.into())),
    }
}
