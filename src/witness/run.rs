//! The witness of a run: any transactions, or whole blocks, that follow each other, from any state.
//!
//! Pieces of a run in their order, each with the state that it was executed on → one witness, of what the run needs from the state before
//! its first piece. Nodes and codes that the run makes itself are left out: who executes the pieces one after the other has them.
//! Owner core: the query pool. Who cuts a block into pieces chooses where a root is computed; a piece needs what its own root needs.

use std::collections::HashSet;

use super::collect::collect_held;
use super::{CollectError, Witness, headers};
use crate::builder::world::access::Accesses;
use crate::primitives::{B256, Bytes};
use crate::state::{Snapshot, StateChanges, StateReader};

/// A part of a run that ends with a root: a block, or some of its transactions.
#[derive(Clone, Copy)]
pub struct Piece<'r> {
    /// The block that it belongs to.
    pub number: u64,
    /// The state that it was executed on: the one before the run, or what the piece before left.
    pub before: &'r Snapshot,
    pub accesses: &'r Accesses,
    /// Net changes of this piece.
    pub changes: &'r StateChanges,
}

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With the opening of a block: the parent's header is in the witness, because it proves the state.
    Block,
    /// Inside a block: headers are there for `BLOCKHASH` only.
    Inside,
}

/// The witness of a run, in canonical order. An empty run needs nothing.
///
/// `header` is the RLP of the header of a block before the run.
///
/// # Errors
/// When a state or a header cannot be read.
pub fn of_run(
    pieces: &[Piece<'_>],
    begin: Begin,
    header: impl FnMut(u64) -> Option<Bytes>,
) -> Result<Witness, CollectError> {
    let Some(first) = pieces.first() else { return Ok(Witness::default()) };
    let mut state = Vec::new();
    let mut codes = Vec::new();
    let mut made: HashSet<B256> = HashSet::new();
    let mut lowest = match begin {
        Begin::Block => first.number.saturating_sub(1),
        Begin::Inside => first.number,
    };
    for piece in pieces {
        state.extend(collect_held(piece.before, first.before, piece.accesses, piece.changes)?.nodes);
        let own: HashSet<B256> = piece.changes.codes.iter().map(|(hash, _)| *hash).collect();
        for (hash, code) in &piece.accesses.codes {
            // A piece may make a code that the state has already, and fetch it before.
            if !(made.contains(hash) || own.contains(hash) && first.before.code(hash)?.is_none()) {
                codes.push(code.clone());
            }
        }
        made.extend(own);
        lowest = lowest.min(piece.accesses.block_hash_lowest.unwrap_or(u64::MAX));
    }
    for list in [&mut state, &mut codes] {
        list.sort_unstable();
        list.dedup();
    }
    Ok(Witness { headers: headers(first.number, lowest, header)?, codes, state })
}

#[cfg(test)]
mod tests;
