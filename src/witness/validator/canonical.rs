//! Canonical mode: the witness is byte for byte what go-ethereum v1.17.5 makes for the block.
//!
//! Owner core: any. What execution asked for is followed once more through the nodes, and every entry that nothing came to is one too many.
//! Source: go-ethereum v1.17.5 `core/stateless/encoding.go` (order), `core/state/statedb.go`, `core/blockchain.go` (contents).

use alloy_primitives::Bytes;

use super::ancestors::Ancestors;
use super::error::ValidationError;
use super::nodes::HashIndex;
use super::partial_state::PartialState;
use crate::builder::world::access::Accesses;
use crate::crypto::keccak::keccak256;
use crate::witness::Witness;
use crate::witness::decode::Part;

/// Checks that headers ascend by number, and codes and nodes by their bytes, nothing twice.
pub fn check_order(witness: &Witness, ancestors: &Ancestors) -> Result<(), ValidationError> {
    let numbers = ancestors.headers();
    if let Some(index) = (1..numbers.len()).find(|index| numbers[*index].number <= numbers[*index - 1].number) {
        return Err(ValidationError::EntryOrder { part: Part::Headers, index });
    }
    for (part, entries) in [(Part::Codes, &witness.codes), (Part::State, &witness.state)] {
        if let Some(index) = (1..entries.len()).find(|index| entries[*index] <= entries[*index - 1]) {
            return Err(ValidationError::EntryOrder { part, index });
        }
    }
    Ok(())
}

/// Checks that the witness holds everything that go-ethereum would have put into it, and nothing else. The nodes that the new root took
/// are marked already.
pub fn check_needs(
    number: u64,
    ancestors: &Ancestors,
    state: &mut PartialState<'_>,
    accesses: &Accesses,
) -> Result<(), ValidationError> {
    check_headers(number, ancestors, accesses.block_hash_lowest)?;
    for (hash, _) in &accesses.codes {
        if !state.need_code(hash) {
            return Err(ValidationError::CodeMissing { hash: *hash });
        }
    }
    state.need(&accesses.accounts, &accesses.slots)?;
    unneeded(Part::Codes, state.codes())?;
    unneeded(Part::State, state.nodes())
}

/// The parent, and as many headers in all as the oldest block that `BLOCKHASH` gave lies behind this one.
fn check_headers(number: u64, ancestors: &Ancestors, lowest: Option<u64>) -> Result<(), ValidationError> {
    let asked = lowest.unwrap_or(number.saturating_sub(1));
    let needed = number.saturating_sub(asked).max(1);
    let headers = ancestors.headers();
    if (ancestors.linked_count() as u64) < needed {
        return Err(ancestors.missing(asked));
    }
    // They ascend, so that those too many come first; the parent is the last, unless one behind it is too many.
    let first = number.saturating_sub(needed);
    match headers.iter().position(|header| header.number < first || header.number >= number) {
        Some(index) => {
            let hash = headers[index].hash_slow();
            Err(ValidationError::EntryUnneeded { part: Part::Headers, index, hash })
        }
        None => Ok(()),
    }
}

fn unneeded(part: Part, entries: &HashIndex<'_>) -> Result<(), ValidationError> {
    match entries.first_unneeded() {
        Some((index, bytes)) => Err(ValidationError::EntryUnneeded { part, index, hash: hash_of(bytes) }),
        None => Ok(()),
    }
}

fn hash_of(bytes: &Bytes) -> alloy_primitives::B256 {
    keccak256(bytes)
}
