//! Bytes that nobody vouches for → a [`Witness`], or what is wrong with them.
//!
//! Owner core: any. Nothing is copied: the entries are slices of one shared buffer. Memory and time are bounded by the length of the
//! input, whatever it claims: the counts are limited before anything is reserved.
//!
//! | part | entries | bytes of an entry |
//! |---|---|---|
//! | whole | exactly 4 items | at most [`WITNESS_BYTES_MAX`] |
//! | headers | 1 to [`HEADERS_MAX`] | at most [`HEADER_BYTES_MAX`] |
//! | codes | see [`ENTRIES_MIN`] | at most [`CODE_BYTES_MAX`] |
//! | state | see [`ENTRIES_MIN`] | at most [`NODE_BYTES_MAX`] |
//! | keys | none | |
//!
//! Deliberately absent: order and repetition (the validator's canonical mode), and what the entries mean.

use alloy_primitives::Bytes;

use crate::codec::transaction::RlpFault;
use crate::witness::Witness;
use crate::witness::rlp::{Item, split};

/// go-ethereum's engine API takes bodies of 128 MiB, so that no witness that is longer can reach a node.
pub const WITNESS_BYTES_MAX: usize = 128 * 1_048_576;
/// `BLOCKHASH` reaches 256 blocks back.
pub const HEADERS_MAX: usize = 256;
/// A header has under 700 bytes; block 0 may have any extra data, of which this much is taken.
pub const HEADER_BYTES_MAX: usize = 4_096;
/// EIP-170.
pub const CODE_BYTES_MAX: usize = 24_576;
/// A branch of 16 hashes has 532 bytes.
pub const NODE_BYTES_MAX: usize = 576;
/// Codes, and nodes, that are taken whatever the length of the witness; beyond it one for each [`ENTRY_BYTES_MEAN_MIN`] bytes.
pub const ENTRIES_MIN: usize = 1_024;
/// A node named by its hash has at least 32 bytes, so a witness of needed entries never meets the bound.
pub const ENTRY_BYTES_MEAN_MIN: usize = 32;

/// Items of the outer list.
const PARTS: usize = 4;

/// A part of a witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Headers,
    Codes,
    State,
    Keys,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Headers => "headers",
            Self::Codes => "codes",
            Self::State => "state",
            Self::Keys => "keys",
        })
    }
}

/// Why bytes are no witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the witness has {bytes} bytes, at most {bytes_max} are read")]
    TooLong { bytes: usize, bytes_max: usize },
    #[error("the witness is no RLP list: {fault}")]
    Outer { fault: RlpFault },
    #[error("{bytes} bytes stand behind the witness")]
    TrailingBytes { bytes: usize },
    #[error("the witness has {count} items, {expected} are expected: headers, codes, state, keys")]
    ItemCount { count: usize, expected: usize },
    #[error("{part} of the witness, at byte {offset}: {fault}")]
    Part { part: Part, offset: usize, fault: RlpFault },
    #[error("{part}[{index}] of the witness, at byte {offset}: {fault}")]
    Entry { part: Part, index: usize, offset: usize, fault: RlpFault },
    #[error("{part}[{index}] of the witness has {bytes} bytes, at most {bytes_max} are allowed")]
    EntryTooLong { part: Part, index: usize, bytes: usize, bytes_max: usize },
    #[error("{part} of the witness has more than {count_max} entries")]
    TooManyEntries { part: Part, count_max: usize },
    #[error("the witness has no header: at least the parent's is needed")]
    HeadersEmpty,
    #[error("keys of the witness has {bytes} bytes of entries, it must be empty")]
    KeysNotEmpty { bytes: usize },
}

impl DecodeError {
    /// The stable name of the error: `docs/STATELESS_VALIDATION.md`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "witness_too_long",
            Self::Outer { .. } | Self::Part { .. } | Self::Entry { .. } => "witness_rlp",
            Self::TrailingBytes { .. } => "witness_trailing_bytes",
            Self::ItemCount { .. } => "witness_item_count",
            Self::EntryTooLong { .. } => "witness_entry_too_long",
            Self::TooManyEntries { .. } => "witness_too_many_entries",
            Self::HeadersEmpty => "witness_headers_empty",
            Self::KeysNotEmpty { .. } => "witness_keys_not_empty",
        }
    }
}

impl Witness {
    /// Reads a witness, which must fill `bytes` exactly. The entries share the buffer.
    ///
    /// Runs on: any thread; takes time and memory proportional to the length.
    /// Errors:  the first broken rule in the order of the bytes, with its place.
    /// Source:  go-ethereum v1.17.5 `core/stateless` (`ExtWitness`); strict RLP.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let witness = Self::decode_run(bytes)?;
        if witness.headers.is_empty() {
            return Err(DecodeError::HeadersEmpty);
        }
        Ok(witness)
    }

    /// As [`Witness::decode`], of a run that may begin inside a block: it may have no header.
    ///
    /// # Errors
    /// As [`Witness::decode`].
    pub fn decode_run(bytes: &Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > WITNESS_BYTES_MAX {
            return Err(DecodeError::TooLong { bytes: bytes.len(), bytes_max: WITNESS_BYTES_MAX });
        }
        let outer = |fault| DecodeError::Outer { fault };
        let (item, rest) = split(bytes).map_err(outer)?;
        let parts = item.list().map_err(outer)?;
        if !rest.is_empty() {
            return Err(DecodeError::TrailingBytes { bytes: rest.len() });
        }
        let [headers, codes, state, keys] = parts_of(bytes, parts)?;
        if !keys.is_empty() {
            return Err(DecodeError::KeysNotEmpty { bytes: keys.len() });
        }
        let entries_max = ENTRIES_MIN + bytes.len() / ENTRY_BYTES_MEAN_MIN;
        let reader = |part, payload| EntryReader { whole: bytes, part, payload };
        Ok(Self {
            headers: reader(Part::Headers, headers).read(HEADERS_MAX, HEADER_BYTES_MAX)?,
            codes: reader(Part::Codes, codes).read(entries_max, CODE_BYTES_MAX)?,
            state: reader(Part::State, state).read(entries_max, NODE_BYTES_MAX)?,
        })
    }
}

/// The payloads of the four lists.
fn parts_of<'a>(whole: &'a [u8], mut rest: &'a [u8]) -> Result<[&'a [u8]; PARTS], DecodeError> {
    const ORDER: [Part; PARTS] = [Part::Headers, Part::Codes, Part::State, Part::Keys];
    let mut parts = [&rest[..0]; PARTS];
    let mut count = 0;
    while !rest.is_empty() {
        let part = ORDER[count.min(PARTS - 1)];
        let fault_at = |fault| DecodeError::Part { part, offset: offset_in(whole, rest), fault };
        let (item, after) = split(rest).map_err(fault_at)?;
        if let Some(place) = parts.get_mut(count) {
            *place = item.list().map_err(fault_at)?;
        }
        count += 1;
        rest = after;
    }
    if count != PARTS {
        return Err(DecodeError::ItemCount { count, expected: PARTS });
    }
    Ok(parts)
}

/// Where a part of `whole` starts in it.
fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
}

/// Reads the entries of one part.
struct EntryReader<'a> {
    whole: &'a Bytes,
    part: Part,
    payload: &'a [u8],
}

impl EntryReader<'_> {
    fn read(&self, count_max: usize, bytes_max: usize) -> Result<Vec<Bytes>, DecodeError> {
        let part = self.part;
        // Counted before anything is reserved: a pass over the headers of the items is cheap.
        let mut entries = Vec::with_capacity(self.count(count_max)?);
        let mut rest = self.payload;
        while !rest.is_empty() {
            let index = entries.len();
            let fault_at = |fault| DecodeError::Entry { part, index, offset: offset_in(self.whole, rest), fault };
            let (item, after) = split(rest).map_err(fault_at)?;
            let entry = self.entry(item).map_err(fault_at)?;
            if entry.len() > bytes_max {
                return Err(DecodeError::EntryTooLong { part, index, bytes: entry.len(), bytes_max });
            }
            entries.push(self.whole.slice_ref(entry));
            rest = after;
        }
        Ok(entries)
    }

    /// A header is a list and kept with its own RLP header; codes and nodes are strings.
    fn entry<'i>(&self, item: Item<'i>) -> Result<&'i [u8], RlpFault> {
        match self.part {
            Part::Headers => item.list().map(|_| item.encoded),
            Part::Codes | Part::State | Part::Keys => item.string(),
        }
    }

    /// How many entries there are, up to the first that is no item.
    fn count(&self, count_max: usize) -> Result<usize, DecodeError> {
        let mut rest = self.payload;
        let mut count = 0;
        while !rest.is_empty() {
            let Ok((_, after)) = split(rest) else { break };
            count += 1;
            if count > count_max {
                return Err(DecodeError::TooManyEntries { part: self.part, count_max });
            }
            rest = after;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness() -> Witness {
        let node = |byte: u8, len: usize| Bytes::from(vec![byte; len]);
        Witness {
            headers: vec![Bytes::from_static(&[0xc1, 5]), Bytes::from_static(&[0xc2, 6, 7])],
            codes: vec![node(1, 1), node(0xfe, CODE_BYTES_MAX)],
            state: vec![node(2, 33), node(3, NODE_BYTES_MAX)],
        }
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: DecodeError) {
        assert_eq!(Witness::decode(&Bytes::copy_from_slice(bytes)), Err(expected));
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        let encoded = Bytes::from(witness().encode());
        let decoded = Witness::decode(&encoded).expect("own encoding");
        assert_eq!(decoded, witness());
        assert_eq!(decoded.encode(), encoded);
    }

    #[test]
    fn each_defect_has_its_own_error() {
        check(&[], DecodeError::Outer { fault: RlpFault::Truncated { bytes_left: 0 } });
        check(&[0x80], DecodeError::Outer { fault: RlpFault::UnexpectedString });
        check(&[0xc0, 0], DecodeError::TrailingBytes { bytes: 1 });
        check(&[0xc0], DecodeError::ItemCount { count: 0, expected: 4 });
        check(&[0xc3, 0xc0, 0xc0, 0xc0], DecodeError::ItemCount { count: 3, expected: 4 });
        check(&[0xc5, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0], DecodeError::ItemCount { count: 5, expected: 4 });
        check(&[0xc4, 0xc0, 0xc0, 0xc0, 0xc0], DecodeError::HeadersEmpty);
        check(&[0xc5, 0xc0, 0xc0, 0xc0, 0xc1, 0x80], DecodeError::KeysNotEmpty { bytes: 1 });
        let fault = RlpFault::UnexpectedString;
        check(&[0xc4, 0xc0, 0x80, 0xc0, 0xc0], DecodeError::Part { part: Part::Codes, offset: 2, fault });
        let entry = |part, index, offset, fault| DecodeError::Entry { part, index, offset, fault };
        check(&[0xc5, 0xc1, 0x80, 0xc0, 0xc0, 0xc0], entry(Part::Headers, 0, 2, RlpFault::UnexpectedString));
        let nested = [0xc7, 0xc1, 0xc0, 0xc0, 0xc2, 0x05, 0xc0, 0xc0];
        check(&nested, entry(Part::State, 1, 6, RlpFault::UnexpectedList));
    }

    #[test]
    fn entries_are_bounded_in_bytes_and_number() {
        let mut large = witness();
        large.codes[1] = Bytes::from(vec![0; CODE_BYTES_MAX + 1]);
        let too_long = |part, index, bytes, bytes_max| DecodeError::EntryTooLong { part, index, bytes, bytes_max };
        check(&large.encode(), too_long(Part::Codes, 1, CODE_BYTES_MAX + 1, CODE_BYTES_MAX));
        let mut large = witness();
        large.state[0] = Bytes::from(vec![0; NODE_BYTES_MAX + 1]);
        check(&large.encode(), too_long(Part::State, 0, NODE_BYTES_MAX + 1, NODE_BYTES_MAX));

        let mut many = witness();
        many.headers = vec![Bytes::from_static(&[0xc0]); HEADERS_MAX];
        assert!(Witness::decode(&many.encode().into()).is_ok());
        many.headers.push(Bytes::from_static(&[0xc0]));
        check(&many.encode(), DecodeError::TooManyEntries { part: Part::Headers, count_max: HEADERS_MAX });

        let mut many = Witness { headers: witness().headers, ..Witness::default() };
        many.state = vec![Bytes::from_static(&[1]); ENTRIES_MIN];
        assert!(Witness::decode(&many.encode().into()).is_ok());
        many.state = vec![Bytes::from_static(&[1]); 2 * ENTRIES_MIN];
        let count_max = ENTRIES_MIN + many.encode().len() / ENTRY_BYTES_MEAN_MIN;
        check(&many.encode(), DecodeError::TooManyEntries { part: Part::State, count_max });
    }
}
