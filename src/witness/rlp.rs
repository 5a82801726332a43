//! Strict RLP items of bytes that nobody vouches for: one accepted encoding for each value.
//!
//! Input → output: borrowed bytes → the first item and what follows it. Owner core: any; nothing is copied.
//! The rules are those of go-ethereum's decoder: shortest lengths, no prefix before a single byte below 0x80, nothing cut short.

use crate::codec::transaction::RlpFault;

/// One RLP item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    pub is_list: bool,
    pub payload: &'a [u8],
    /// With its header.
    pub encoded: &'a [u8],
}

impl<'a> Item<'a> {
    /// The payload of a list.
    ///
    /// # Errors
    /// `UnexpectedString` for a string.
    #[inline]
    pub fn list(self) -> Result<&'a [u8], RlpFault> {
        if self.is_list { Ok(self.payload) } else { Err(RlpFault::UnexpectedString) }
    }

    /// The payload of a string.
    ///
    /// # Errors
    /// `UnexpectedList` for a list.
    #[inline]
    pub fn string(self) -> Result<&'a [u8], RlpFault> {
        if self.is_list { Err(RlpFault::UnexpectedList) } else { Ok(self.payload) }
    }
}

/// The first item of `bytes`, and the bytes behind it.
///
/// # Errors
/// The rule that the encoding breaks; `Truncated` with no bytes left when there is no item at all.
#[inline]
pub fn split(bytes: &[u8]) -> Result<(Item<'_>, &[u8]), RlpFault> {
    let Some(&first) = bytes.first() else { return Err(RlpFault::Truncated { bytes_left: 0 }) };
    let (header_bytes, payload_bytes) = match first {
        0..0x80 => (0, 1),
        0x80..0xb8 => (1, usize::from(first - 0x80)),
        0xc0..0xf8 => (1, usize::from(first - 0xc0)),
        0xb8..0xc0 => long_length(bytes, first - 0xb7)?,
        0xf8.. => long_length(bytes, first - 0xf7)?,
    };
    let bytes_left = bytes.len() - header_bytes;
    if payload_bytes > bytes_left {
        return Err(truncated(bytes_left));
    }
    let (encoded, rest) = bytes.split_at(header_bytes + payload_bytes);
    if first == 0x81 && encoded[1] < 0x80 {
        return Err(RlpFault::SingleByteWithPrefix);
    }
    Ok((Item { is_list: first >= 0xc0, payload: &encoded[header_bytes..], encoded }, rest))
}

/// Header and payload sizes of an item whose length takes `length_bytes` bytes of its own.
fn long_length(bytes: &[u8], length_bytes: u8) -> Result<(usize, usize), RlpFault> {
    let header_bytes = 1 + usize::from(length_bytes);
    let Some(length) = bytes.get(1..header_bytes) else { return Err(truncated(bytes.len() - 1)) };
    let payload_bytes = length.iter().fold(0_u64, |length, &byte| length << 8 | u64::from(byte));
    if length[0] == 0 || payload_bytes < 56 {
        return Err(RlpFault::NonMinimalLength);
    }
    // A length beyond usize cannot fit the input either; the caller compares with what is left.
    Ok((header_bytes, usize::try_from(payload_bytes).unwrap_or(usize::MAX)))
}

fn truncated(bytes_left: usize) -> RlpFault {
    RlpFault::Truncated { bytes_left: u32::try_from(bytes_left).unwrap_or(u32::MAX) }
}

/// A big-endian integer: no leading zero, at most `N` bytes.
///
/// `None` when the encoding is another one.
#[must_use]
pub fn integer<const N: usize>(payload: &[u8]) -> Option<[u8; N]> {
    if payload.len() > N || payload.first() == Some(&0) {
        return None;
    }
    let mut bytes = [0; N];
    bytes[N - payload.len()..].copy_from_slice(payload);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<(bool, usize, usize), RlpFault>) {
        let found = split(bytes).map(|(item, rest)| (item.is_list, item.payload.len(), rest.len()));
        assert_eq!(found, expected, "{bytes:02x?}");
    }

    #[test]
    fn one_encoding_for_each_value() {
        check(&[], Err(RlpFault::Truncated { bytes_left: 0 }));
        check(&[0x7f, 9], Ok((false, 1, 1)));
        check(&[0x80], Ok((false, 0, 0)));
        check(&[0x81, 0x80], Ok((false, 1, 0)));
        check(&[0x81, 0x7f], Err(RlpFault::SingleByteWithPrefix));
        check(&[0x81], Err(RlpFault::Truncated { bytes_left: 0 }));
        check(&[0xc0, 1, 2], Ok((true, 0, 2)));
        check(&[0xc2, 1], Err(RlpFault::Truncated { bytes_left: 1 }));
        check(&[0xb8, 55], Err(RlpFault::NonMinimalLength));
        check(&[0xb9, 0, 56], Err(RlpFault::NonMinimalLength));
        check(&[0xb9, 1], Err(RlpFault::Truncated { bytes_left: 1 }));
        check(&[0xf8, 56, 1], Err(RlpFault::Truncated { bytes_left: 1 }));
        check(&[0xff; 9], Err(RlpFault::Truncated { bytes_left: 0 }));
        let mut long = vec![0xb8, 56];
        long.resize(2 + 56 + 3, 7);
        check(&long, Ok((false, 56, 3)));
    }

    #[test]
    fn integers_have_no_leading_zeros() {
        assert_eq!(integer::<8>(&[]), Some([0; 8]));
        assert_eq!(integer::<2>(&[1, 2]), Some([1, 2]));
        assert_eq!(integer::<2>(&[1, 2, 3]), None);
        assert_eq!(integer::<2>(&[0]), None);
    }
}
