//! The headers of a witness that are linked to the block: its parent, and those before it without a gap.
//!
//! Owner core: any. Headers are found by hash, so their order does not matter here, and one that is linked to nothing has no effect.

use alloy_consensus::Header;
use alloy_primitives::{B256, Bytes};

use super::block::decode_header;
use super::error::ValidationError;
use crate::crypto::keccak::keccak256_each;

/// See the module's text.
pub struct Ancestors {
    /// All headers of the witness, in its order.
    headers: Vec<Header>,
    /// Indexes into the headers, the parent first, each the parent of the one before.
    linked: Vec<usize>,
}

impl Ancestors {
    /// Decodes the headers and links them to the block with this header.
    ///
    /// # Errors
    /// A header that does not decode, a parent that is not there, a number that does not follow.
    pub fn find(block: &Header, encoded: &[Bytes]) -> Result<Self, ValidationError> {
        let mut headers = Vec::with_capacity(encoded.len());
        for (index, rlp) in encoded.iter().enumerate() {
            let header = decode_header(rlp).map_err(|what| ValidationError::HeaderMalformed { index, what })?;
            headers.push(header);
        }
        let mut hashes = vec![B256::ZERO; encoded.len()];
        keccak256_each(encoded.len(), |index| encoded[index].as_ref(), |index, hash| hashes[index] = hash);

        let mut linked = Vec::with_capacity(encoded.len());
        let mut child = block;
        // A header that named itself or a descendant would break the hash; the bound holds whatever the hash.
        while linked.len() < headers.len()
            && let Some(expected) = child.number.checked_sub(1)
            && let Some(index) = hashes.iter().position(|hash| *hash == child.parent_hash)
        {
            let header = &headers[index];
            if header.number != expected {
                return Err(ValidationError::HeaderNumber { index, number: header.number, expected });
            }
            linked.push(index);
            child = header;
        }
        if linked.is_empty() {
            let (number, parent_hash) = (block.number, block.parent_hash);
            return Err(ValidationError::ParentMissing { number, parent_hash, count: headers.len() });
        }
        Ok(Self { headers, linked })
    }

    #[must_use]
    pub fn parent(&self) -> &Header {
        &self.headers[self.linked[0]]
    }

    /// All headers of the witness, in its order.
    #[must_use]
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// Indexes of the linked headers, the parent's first.
    #[must_use]
    pub fn linked(&self) -> &[usize] {
        &self.linked
    }

    /// How many headers are linked to the block.
    #[must_use]
    pub fn linked_count(&self) -> usize {
        self.linked.len()
    }

    /// Number and hash of every block before this one that a linked header proves: its own parent's.
    pub fn hashes(&self) -> impl Iterator<Item = (u64, B256)> {
        let parent = self.parent().number;
        let own = self.headers[self.linked[0]].hash_slow();
        let older = self.linked.iter().filter_map(|index| {
            let header = &self.headers[*index];
            Some((header.number.checked_sub(1)?, header.parent_hash))
        });
        std::iter::once((parent, own)).chain(older)
    }

    /// The error of a block hash that no linked header proves.
    #[must_use]
    pub fn missing(&self, asked: u64) -> ValidationError {
        let oldest = self.linked.last().map_or(0, |index| self.headers[*index].number);
        ValidationError::HeaderMissing { number: oldest.saturating_sub(1), asked, oldest }
    }
}
