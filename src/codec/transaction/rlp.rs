//! Strict RLP over borrowed bytes: every value has exactly one accepted encoding.
//!
//! Invariant: `at ≤ end ≤ raw.len() ≤ u32::MAX` (the caller checks the last), so positions fit a `Span`.

use super::error::{Field, TxError};
use crate::primitives::{Address, B256, Span, U256};

/// How an encoding breaks RLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RlpFault {
    #[error("a list stands where a string is expected")]
    UnexpectedList,
    #[error("a string stands where a list is expected")]
    UnexpectedString,
    #[error("a single byte below 0x80 has a length prefix")]
    SingleByteWithPrefix,
    #[error("the length is not in its shortest form")]
    NonMinimalLength,
    #[error("the length reaches past the end ({bytes_left} bytes left)")]
    Truncated { bytes_left: u32 },
}

/// A position inside a list of `raw`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    pub raw: &'a [u8],
    pub at: usize,
    pub end: usize,
}

struct Header {
    is_list: bool,
    payload_bytes: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(raw: &'a [u8], span: Span) -> Self {
        Self { raw, at: span.start as usize, end: (span.start + span.len) as usize }
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.end
    }

    #[inline]
    fn fault(&self, field: Field, fault: RlpFault) -> TxError {
        TxError::Rlp { field, fault, offset: self.at as u32 }
    }

    /// Reads a header and checks that its payload fits. Leaves the cursor at the payload.
    #[inline]
    fn header(&mut self, field: Field) -> Result<Header, TxError> {
        let rest = &self.raw[self.at..self.end];
        let Some(&first) = rest.first() else {
            return Err(TxError::Missing { field });
        };
        let (header_bytes, payload_bytes) = match first {
            0..0x80 => (0, 1),
            0x80..0xb8 => (1, (first - 0x80) as usize),
            0xc0..0xf8 => (1, (first - 0xc0) as usize),
            0xb8..0xc0 => self.long_length(first - 0xb7, field)?,
            0xf8.. => self.long_length(first - 0xf7, field)?,
        };
        let bytes_left = rest.len() - header_bytes;
        if payload_bytes > bytes_left {
            return Err(self.fault(field, RlpFault::Truncated { bytes_left: bytes_left as u32 }));
        }
        if first == 0x81 && rest[1] < 0x80 {
            return Err(self.fault(field, RlpFault::SingleByteWithPrefix));
        }
        self.at += header_bytes;
        Ok(Header { is_list: first >= 0xc0, payload_bytes })
    }

    /// Header and payload sizes of an item whose length takes `length_bytes` bytes of its own.
    fn long_length(&self, length_bytes: u8, field: Field) -> Result<(usize, usize), TxError> {
        let header_bytes = 1 + length_bytes as usize;
        let rest = &self.raw[self.at..self.end];
        let Some(length) = rest.get(1..header_bytes) else {
            return Err(self.fault(field, RlpFault::Truncated { bytes_left: rest.len() as u32 - 1 }));
        };
        let payload_bytes = length.iter().fold(0_u64, |length, &byte| length << 8 | u64::from(byte));
        if length[0] == 0 || payload_bytes < 56 {
            return Err(self.fault(field, RlpFault::NonMinimalLength));
        }
        // A length beyond usize cannot fit the input either; the caller compares with what is left.
        Ok((header_bytes, usize::try_from(payload_bytes).unwrap_or(usize::MAX)))
    }

    /// Enters a list: answers a cursor over its items and moves past it.
    #[inline(always)]
    pub fn list(&mut self, field: Field) -> Result<Cursor<'a>, TxError> {
        match self.raw[self.at..self.end] {
            [first @ 0xc0..0xf8, ref rest @ ..] if rest.len() >= (first - 0xc0) as usize => {
                let at = self.at + 1;
                self.at = at + (first - 0xc0) as usize;
                Ok(Cursor { raw: self.raw, at, end: self.at })
            }
            _ => self.unusual_list(field),
        }
    }

    /// Lists with a length of their own, and everything that is wrong.
    #[inline(never)]
    fn unusual_list(&mut self, field: Field) -> Result<Cursor<'a>, TxError> {
        let start = self.at;
        let header = self.header(field)?;
        if !header.is_list {
            self.at = start;
            return Err(self.fault(field, RlpFault::UnexpectedString));
        }
        let items = Cursor { raw: self.raw, at: self.at, end: self.at + header.payload_bytes };
        self.at = items.end;
        Ok(items)
    }

    /// Where a string's payload is; moves past it.
    ///
    /// Always inlined, like all that builds on it: a result with a 48-byte error otherwise travels through memory, which
    /// doubles the time of `decode`.
    #[inline(always)]
    pub fn string(&mut self, field: Field) -> Result<Span, TxError> {
        match self.raw[self.at..self.end] {
            [0..0x80, ..] => {
                let span = Span { start: self.at as u32, len: 1 };
                self.at += 1;
                Ok(span)
            }
            [first @ (0x80 | 0x82..0xb8), ref rest @ ..] if rest.len() >= (first - 0x80) as usize => {
                let span = Span { start: self.at as u32 + 1, len: u32::from(first - 0x80) };
                self.at += 1 + (first - 0x80) as usize;
                Ok(span)
            }
            _ => self.unusual_string(field),
        }
    }

    /// Strings with a length of their own, `0x81`, and everything that is wrong.
    #[inline(never)]
    fn unusual_string(&mut self, field: Field) -> Result<Span, TxError> {
        let start = self.at;
        let header = self.header(field)?;
        if header.is_list {
            self.at = start;
            return Err(self.fault(field, RlpFault::UnexpectedList));
        }
        let span = Span { start: self.at as u32, len: header.payload_bytes as u32 };
        self.at += header.payload_bytes;
        Ok(span)
    }

    /// A string without leading zeros, at most `bytes_max` long.
    #[inline(always)]
    fn integer(&mut self, field: Field, bytes_max: u32) -> Result<&'a [u8], TxError> {
        let span = self.string(field)?;
        let bytes = span.of(self.raw);
        if bytes.first() == Some(&0) {
            return Err(TxError::LeadingZero { field });
        }
        if span.len > bytes_max {
            return Err(TxError::TooLarge { field, bytes: span.len, bytes_max });
        }
        Ok(bytes)
    }

    #[inline(always)]
    pub fn u8(&mut self, field: Field) -> Result<u8, TxError> {
        Ok(self.integer(field, 1)?.first().copied().unwrap_or(0))
    }

    #[inline(always)]
    pub fn u64(&mut self, field: Field) -> Result<u64, TxError> {
        let length = self.integer(field, 8)?.len();
        Ok(self.last_u128(length) as u64)
    }

    #[inline(always)]
    pub fn u128(&mut self, field: Field) -> Result<u128, TxError> {
        let length = self.integer(field, 16)?.len();
        Ok(self.last_u128(length))
    }

    /// The big-endian number in the last `length ≤ 16` bytes that were read.
    #[inline(always)]
    fn last_u128(&self, length: usize) -> u128 {
        // One load and a mask beat a loop over the bytes; bytes before the number are masked away.
        if let Some(&word) = self.raw[..self.at].last_chunk::<16>() {
            let mask = if length == 16 { u128::MAX } else { (1 << (8 * length)) - 1 };
            return u128::from_be_bytes(word) & mask;
        }
        self.raw[self.at - length..self.at].iter().fold(0, |value, &byte| value << 8 | u128::from(byte))
    }

    /// A 256-bit integer as 32 big-endian bytes.
    #[inline(always)]
    pub fn word(&mut self, field: Field) -> Result<[u8; 32], TxError> {
        let bytes = self.integer(field, 32)?;
        if let Ok(&word) = <&[u8; 32]>::try_from(bytes) {
            return Ok(word);
        }
        let mut word = [0; 32];
        word[32 - bytes.len()..].copy_from_slice(bytes);
        Ok(word)
    }

    #[inline(always)]
    pub fn u256(&mut self, field: Field) -> Result<U256, TxError> {
        let bytes = self.integer(field, 32)?;
        if bytes.len() <= 16 {
            return Ok(U256::from(self.last_u128(bytes.len())));
        }
        Ok(U256::from_be_slice(bytes))
    }

    #[inline(always)]
    pub fn address(&mut self, field: Field) -> Result<Address, TxError> {
        self.fixed::<20>(field).map(|&bytes| Address::from(bytes))
    }

    #[inline(always)]
    pub fn hash(&mut self, field: Field) -> Result<B256, TxError> {
        self.fixed::<32>(field).map(|&bytes| B256::from(bytes))
    }

    /// An address, or `None` for the empty string that means contract creation.
    #[inline(always)]
    pub fn optional_address(&mut self, field: Field) -> Result<Option<&'a [u8; 20]>, TxError> {
        if self.at < self.end && self.raw[self.at] == 0x80 {
            self.at += 1;
            return Ok(None);
        }
        self.fixed(field).map(Some)
    }

    #[inline(always)]
    fn fixed<const N: usize>(&mut self, field: Field) -> Result<&'a [u8; N], TxError> {
        let span = self.string(field)?;
        match <&[u8; N]>::try_from(span.of(self.raw)) {
            Ok(bytes) => Ok(bytes),
            Err(_) => Err(TxError::Length { field, bytes: span.len, expected: N as u32 }),
        }
    }

    /// Checks that no item is left of the list called `field`.
    #[inline]
    pub fn finish(&self, field: Field) -> Result<(), TxError> {
        if self.is_empty() {
            return Ok(());
        }
        Err(TxError::ExtraItems { field, bytes: (self.end - self.at) as u32 })
    }

    /// The bytes that the cursor has not read.
    pub fn span(&self) -> Span {
        Span { start: self.at as u32, len: (self.end - self.at) as u32 }
    }
}
