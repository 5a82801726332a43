//! Reads the fields of a record one behind the other. Never panics, never reads past the end.

use super::RecordError;
use crate::primitives::{Address, B256, Sequence, U256};

/// What is left of a record.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<&'a [u8; N], RecordError> {
        let Some((array, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(RecordError::Short { field, missing: N - self.rest.len() });
        };
        self.rest = rest;
        Ok(array)
    }

    pub(super) fn bytes(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], RecordError> {
        let missing = len.saturating_sub(self.rest.len());
        self.rest.split_off(..len).ok_or(RecordError::Short { field, missing })
    }

    /// A 16-bit count of elements of at least `bytes_min` each; checked against what is left, so that it may size an allocation.
    pub(super) fn count(&mut self, field: &'static str, bytes_min: usize) -> Result<usize, RecordError> {
        let count = usize::from(u16::from_le_bytes(*self.array(field)?));
        let missing = (count * bytes_min).saturating_sub(self.rest.len());
        if missing > 0 { Err(RecordError::Short { field, missing }) } else { Ok(count) }
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, RecordError> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, RecordError> {
        Ok(u32::from_le_bytes(*self.array(field)?))
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, RecordError> {
        Ok(u64::from_le_bytes(*self.array(field)?))
    }

    pub(super) fn u256(&mut self, field: &'static str) -> Result<U256, RecordError> {
        Ok(U256::from_le_bytes(*self.array::<32>(field)?))
    }

    pub(super) fn b256(&mut self, field: &'static str) -> Result<B256, RecordError> {
        Ok(B256::from(self.array(field)?))
    }

    pub(super) fn address(&mut self, field: &'static str) -> Result<Address, RecordError> {
        Ok(Address::from(self.array(field)?))
    }

    pub(super) fn sequence(&mut self, field: &'static str) -> Result<Sequence, RecordError> {
        self.u64(field).map(Sequence)
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(super) fn finish(self) -> Result<(), RecordError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError::Trailing { bytes: self.rest.len() }) }
    }
}
