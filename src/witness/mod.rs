//! Execution witnesses: everything that a verifier without state needs to execute a block.
//!
//! Input → output: what execution touched and the state before it → a [`Witness`], and back: block and witness → roots.
//! The reference is go-ethereum v1.17.5, byte for byte. Owner core: any; nothing here reads a file or keeps a clock.

pub mod collect;

pub mod run;

pub mod bound;

pub mod decode;

pub(crate) mod rlp;

pub mod validator;

pub mod import;

use alloy_rlp::{Encodable, Header};

use crate::builder::world::access::Accesses;
use crate::primitives::Bytes;
use crate::state::{Snapshot, StateChanges, StateError};
use collect::collect;

/// The witness of a block, or of a run of blocks, in go-ethereum's `stateless.Witness` form (`ExtWitness`).
///
/// Canonical order (go-ethereum from v1.17.4 on): headers ascending by number and ending with the parent, codes and state
/// nodes sorted by their bytes, nothing twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// RLP of the parent header, and of as many before it as `BLOCKHASH` needs.
    pub headers: Vec<Bytes>,
    /// Contract codes.
    pub codes: Vec<Bytes>,
    /// RLP of trie nodes of the state before, accounts and storage together.
    pub state: Vec<Bytes>,
}

/// In which order headers are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderOrder {
    /// By number, the parent last.
    Ascending,
    /// By number backwards, the parent first.
    ParentFirst,
}

/// What differs between those who read witnesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub header_order: HeaderOrder,
    /// Whether the empty list of keys is there, as a fourth item.
    pub has_keys: bool,
}

impl Form {
    /// go-ethereum from v1.17.4 on.
    pub const GO_ETHEREUM: Self = Self { header_order: HeaderOrder::Ascending, has_keys: true };
    /// The profile `execute-tx-v2`: its L1 takes the state's root from the first header.
    pub const EXECUTE_TX_V2: Self = Self { header_order: HeaderOrder::ParentFirst, has_keys: true };
}

/// Why a witness cannot be collected. Fatal: what it needs was there when the block was executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("block {number} needs the header of block {missing}, which is not here")]
    HeaderMissing { number: u64, missing: u64 },
}

impl Witness {
    /// The canonical witness of block `number`: what go-ethereum v1.17.5 gives for it, byte for byte.
    ///
    /// `parent` is the state before the block, `accesses` and `changes` what its execution left, `header` the RLP of the header of a
    /// block before it on the same chain.
    ///
    /// # Errors
    /// When the state or a header cannot be read.
    pub fn of_block(
        number: u64,
        parent: &Snapshot,
        accesses: &Accesses,
        changes: &StateChanges,
        header: impl FnMut(u64) -> Option<Bytes>,
    ) -> Result<Self, CollectError> {
        Ok(Self {
            headers: block_headers(number, accesses, header)?,
            codes: sorted_codes(accesses),
            state: collect(parent, accesses, changes)?.nodes,
        })
    }

    /// As [`Witness::of_block`], with the nodes of the reserve behind the canonical ones: what settlement cuts the block with.
    ///
    /// # Errors
    /// As [`Witness::of_block`].
    pub fn of_block_with_reserve(
        number: u64,
        parent: &Snapshot,
        accesses: &Accesses,
        changes: &StateChanges,
        header: impl FnMut(u64) -> Option<Bytes>,
    ) -> Result<Self, CollectError> {
        let collect::Collected { nodes, reserve } = collect(parent, accesses, changes)?;
        Ok(Self {
            headers: block_headers(number, accesses, header)?,
            codes: sorted_codes(accesses),
            state: nodes.into_iter().chain(reserve).collect(),
        })
    }

    /// RLP in go-ethereum's form: `[headers: [header], codes: [string], state: [string], keys: []]`; headers are lists already.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_as(Form::GO_ETHEREUM)
    }

    /// RLP as a profile of the settlement layer wants it. The witness itself is in canonical order.
    #[must_use]
    pub fn encode_as(&self, form: Form) -> Vec<u8> {
        let headers_payload: usize = self.headers.iter().map(|header| header.len()).sum();
        let strings_payload = |list: &[Bytes]| list.iter().map(Encodable::length).sum::<usize>();
        let list = |payload_length| Header { list: true, payload_length };
        let lists = [headers_payload, strings_payload(&self.codes), strings_payload(&self.state), 0].map(list);
        let lists = &lists[..if form.has_keys { 4 } else { 3 }];
        let payload_length = lists.iter().map(|header| header.length() + header.payload_length).sum();
        let mut out = Vec::with_capacity(payload_length + 9);
        list(payload_length).encode(&mut out);
        lists[0].encode(&mut out);
        match form.header_order {
            HeaderOrder::Ascending => self.headers.iter().for_each(|header| out.extend_from_slice(header)),
            HeaderOrder::ParentFirst => self.headers.iter().rev().for_each(|header| out.extend_from_slice(header)),
        }
        for (header, strings) in lists[1..].iter().zip([&self.codes[..], &self.state, &[]]) {
            header.encode(&mut out);
            for string in strings {
                string.encode(&mut out);
            }
        }
        out
    }
}

/// The headers that a block needs. The parent's is among them: it holds the root that everything else is checked against.
fn block_headers(
    number: u64,
    accesses: &Accesses,
    header: impl FnMut(u64) -> Option<Bytes>,
) -> Result<Vec<Bytes>, CollectError> {
    headers(number, accesses.block_hash_lowest.unwrap_or(u64::MAX).min(number.saturating_sub(1)), header)
}

/// The headers of blocks `lowest` to `number - 1`, ascending.
fn headers(number: u64, lowest: u64, mut header: impl FnMut(u64) -> Option<Bytes>) -> Result<Vec<Bytes>, CollectError> {
    (lowest..number).map(|missing| header(missing).ok_or(CollectError::HeaderMissing { number, missing })).collect()
}

/// The codes that execution fetched, in the order of their bytes.
fn sorted_codes(accesses: &Accesses) -> Vec<Bytes> {
    let mut codes: Vec<Bytes> = accesses.codes.iter().map(|(_, code)| code.clone()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

#[cfg(test)]
mod tests;
