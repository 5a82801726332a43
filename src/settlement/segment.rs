//! A sealed block and its witness with the reserve → segments, each with all that it needs from the state before it.
//!
//! The block is executed once, from the witness alone, and compared with its header in everything; then its transactions are taken in
//! their order for as long as they fit, sizes counted as they will be written. Owner core: the query pool; pure.
//! A segment's witness holds the nodes on the paths of what its own transactions ask for, the codes that they fetch, and the siblings that
//! its own root needs, from the state before the segment: which ones, its own accesses and changes decide, not the block's.
//! How much room siblings take is known when the root is made; before, each key that the segment deletes counts as the largest.

mod trace;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_eips::eip4895::Withdrawal;
use foldhash::fast::RandomState;

use super::Origin;
use super::batch::{
    ACCESSES_MAX, BATCH_BYTES_MAX, BLOCK_BYTES_MAX, ENVELOPE_BYTES_MAX, EXECUTE_TX_BYTES_MAX, SEGMENT_BYTES_MAX,
};
use super::execution::{receipts_digest, string_bytes};
use crate::config::genesis::ChainSpec;
use crate::primitives::{B256, Bytes};
use crate::witness::Witness;
use crate::witness::validator::ancestors::Ancestors;
use crate::witness::validator::live_state::LiveState;
use crate::witness::validator::partial_state::PartialState;
use crate::witness::validator::trie::{MissingSibling, Place, TouchedRlp};
use crate::witness::validator::{HashField, StatelessBlock, ValidationError, check_body, rules};
use trace::Trace;

/// What an ExecuteTx with one segment has beside its transactions and its witness, at most.
pub const OVERHEAD_BYTES_MAX: usize = ENVELOPE_BYTES_MAX + BATCH_BYTES_MAX + BLOCK_BYTES_MAX + SEGMENT_BYTES_MAX;
/// A branch of 16 hashes, as an entry of a list.
const SIBLING_BYTES_MAX: usize = 532 + 3;
/// Gas of a byte that is not zero, by EIP-7623's floor.
const FLOOR_GAS_PER_BYTE: u64 = 40;
/// Gas of any transaction.
const TX_GAS: u64 = 21_000;

/// What all segments of a block share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFacts {
    pub header: Header,
    pub hash: B256,
    pub origin: Origin,
    pub withdrawals: Vec<Withdrawal>,
    pub tx_count: u32,
}

/// A node, its hash, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    pub hash: B256,
    pub place: Place,
    pub bytes: Bytes,
}

/// A run of a block's transactions, with the state root before it and after it, and all that it needs from the state before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub block: Arc<BlockFacts>,
    pub first_tx_index: u32,
    /// 2718 encodings.
    pub transactions: Vec<Bytes>,
    pub gas_used_before: u64,
    pub pre_state_root: B256,
    pub post_state_root: B256,
    pub receipts_digest: B256,
    /// It makes the block's opening system calls.
    pub opens_block: bool,
    /// It makes the closing ones.
    pub closes_block: bool,
    /// RLP, ascending, the last the block's parent: at least that one when `opens_block`, else as `BLOCKHASH` needs them.
    pub headers: Vec<Bytes>,
    pub codes: Vec<(B256, Bytes)>,
    pub nodes: Vec<NodeEntry>,
    /// What the state after it has and the one before it had not at the same place.
    pub made_nodes: Vec<(B256, Place)>,
    pub made_codes: Vec<B256>,
    /// Accounts and slots that it asks for.
    pub access_count: usize,
}

/// How large a segment may be, alone in an ExecuteTx whose Data is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutLimits {
    /// Raw bytes of the ExecuteTx, at most [`EXECUTE_TX_BYTES_MAX`].
    pub tx_bytes_max: usize,
    /// L1 gas of it by EIP-7623's floor, as if none of its bytes were zero.
    pub l1_gas_max: u64,
    /// As `tx_bytes_max`, for the first segment: what is left in the batch that it should still go into. Without effect when nothing fits.
    pub first_tx_bytes_max: usize,
    /// A transaction that a segment begins with, whatever fits before it; the number of transactions: the closing calls.
    pub boundary_tx_index: Option<u32>,
}

impl Default for CutLimits {
    fn default() -> Self {
        Self {
            tx_bytes_max: EXECUTE_TX_BYTES_MAX,
            l1_gas_max: crate::limits::TX_GAS_MAX,
            first_tx_bytes_max: EXECUTE_TX_BYTES_MAX,
            boundary_tx_index: None,
        }
    }
}

/// Why a block is not cut. Fatal: a placed transaction can be settled, and our own witness is whole.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    #[error("the block cannot be taken from its witness: {code}: {0}", code = .0.code())]
    Invalid(#[from] ValidationError),
    #[error("the block's L1 origin is {header} in its header, and {origin} was given")]
    Origin { header: B256, origin: B256 },
    #[error("{what} needs {bytes} bytes of an ExecuteTx by itself, at most {bytes_max} are allowed")]
    TooLarge { what: Step, bytes: usize, bytes_max: usize },
    /// Whoever has the state before the block can give them, and then it is cut.
    #[error("{} siblings that remain alone in their branches between segments are not in the witness", .0.len())]
    Siblings(Vec<MissingSibling>),
}

impl CutError {
    /// The stable name of the error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(error) => error.code(),
            Self::Origin { .. } => "origin_differs",
            Self::TooLarge { .. } => "segment_too_large",
            Self::Siblings(_) => "siblings_missing",
        }
    }
}

/// The smallest part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Opening,
    Transaction(usize),
    Closing,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Opening => f.write_str("the opening of the block"),
            Self::Transaction(index) => write!(f, "transaction {index}"),
            Self::Closing => f.write_str("the closing of the block"),
        }
    }
}

/// Raw bytes of an ExecuteTx that this much L1 gas pays for, if none of them is zero.
#[must_use]
pub fn bytes_of_gas(l1_gas_max: u64) -> usize {
    usize::try_from(l1_gas_max.saturating_sub(TX_GAS) / FLOOR_GAS_PER_BYTE).unwrap_or(usize::MAX)
}

/// Cuts a sealed block into segments. `witness`: canonical nodes and the reserve ([`Witness::of_block_with_reserve`]), in any order. Without the
/// reserve the answer may be a list of what it lacks.
///
/// Runs on: the query pool. Cost: `benches/settlement.rs`, rows `cut`.
/// Errors:  a block that is not what its header says, a witness that is not whole, and a step that does not fit by itself.
///
/// # Errors
/// See [`CutError`].
pub fn cut(
    spec: &ChainSpec,
    block: &StatelessBlock,
    witness: &Witness,
    origin: Origin,
    limits: &CutLimits,
) -> Result<Vec<Segment>, CutError> {
    cut_with(spec, block, witness, origin, limits, false)
}

/// A step that does not fit by itself, whatever siblings `witness` lacks. Parameters as for [`cut`].
#[must_use]
pub fn first_too_large(
    spec: &ChainSpec,
    block: &StatelessBlock,
    witness: &Witness,
    origin: Origin,
    limits: &CutLimits,
) -> Option<(Step, CutError)> {
    match cut_with(spec, block, witness, origin, limits, true) {
        Err(error @ CutError::TooLarge { what, .. }) => Some((what, error)),
        _ => None,
    }
}

fn cut_with(
    spec: &ChainSpec,
    block: &StatelessBlock,
    witness: &Witness,
    origin: Origin,
    limits: &CutLimits,
    is_rough: bool,
) -> Result<Vec<Segment>, CutError> {
    let header = &block.header;
    rules::check_shape(header).map_err(ValidationError::from)?;
    let stated = header.parent_beacon_block_root.unwrap_or_default();
    if stated != origin.hash {
        return Err(CutError::Origin { header: stated, origin: origin.hash });
    }
    let ancestors = Ancestors::find(header, &witness.headers)?;
    check_body(block)?;
    let pre_state_root = ancestors.parent().state_root;
    let partial = PartialState::new(&pre_state_root, witness);
    let mut live = LiveState::new(&pre_state_root, partial.nodes(), 2 * block.transactions.len() + 64);
    let trace = Trace::of(spec, block, &ancestors, &partial, &mut live)?;
    live.begin_round();
    live.list_missing();

    let facts = Arc::new(BlockFacts {
        header: header.clone(),
        hash: block.hash,
        origin,
        withdrawals: block.withdrawals.clone(),
        tx_count: block.transactions.len() as u32, // A block's gas allows far fewer than 2^32.
    });
    let open = OpenSegment { pre_state_root, ..OpenSegment::default() };
    let cutter = Cutter { block, witness, ancestors: &ancestors, trace: &trace, facts, limits, live, open };
    let segments = cutter.run(is_rough)?;
    let computed = segments.last().map_or(pre_state_root, |segment| segment.post_state_root);
    if computed != header.state_root {
        let field = HashField::StateRoot;
        return Err(ValidationError::HashDiffers { field, header: header.state_root, computed }.into());
    }
    Ok(segments)
}

/// The segment that steps are added to.
#[derive(Default)]
struct OpenSegment {
    first_step: usize,
    step_count: usize,
    pre_state_root: B256,
    /// As it will be written; the fixed parts are among it.
    bytes: usize,
    access_count: usize,
    codes: Vec<(B256, Bytes)>,
    code_hashes: HashSet<B256, RandomState>,
    /// The lowest header that it needs.
    lowest_header: Option<u64>,
    /// Keys that are there before it and that some step of it deletes.
    deleted: HashSet<B256, RandomState>,
}

/// What a step adds to a segment.
#[derive(Default)]
struct Added {
    bytes: usize,
    codes: Vec<(B256, Bytes)>,
    lowest_header: Option<u64>,
    deleted: Vec<B256>,
}

struct Cutter<'a, 'w> {
    block: &'a StatelessBlock,
    witness: &'w Witness,
    ancestors: &'a Ancestors,
    trace: &'a Trace,
    facts: Arc<BlockFacts>,
    limits: &'a CutLimits,
    live: LiveState<'a, 'w>,
    open: OpenSegment,
}

impl Cutter<'_, '_> {
    /// All segments, or everything that they lack: a root behind a missing sibling is wrong, and so is each limit that is met with it, by a few
    /// hundred bytes. `is_rough`: such a limit counts all the same.
    fn run(mut self, is_rough: bool) -> Result<Vec<Segment>, CutError> {
        let segments = self.steps();
        let missing = self.live.take_missing();
        let is_judged = is_rough && matches!(segments, Err(CutError::TooLarge { .. }));
        if missing.is_empty() || is_judged { segments } else { Err(CutError::Siblings(missing)) }
    }

    fn steps(&mut self) -> Result<Vec<Segment>, CutError> {
        let bytes_max = self.limits.tx_bytes_max.min(bytes_of_gas(self.limits.l1_gas_max));
        let mut room = bytes_max.min(self.limits.first_tx_bytes_max);
        let boundary = self.limits.boundary_tx_index.map(|index| 1 + index as usize);
        let mut segments = Vec::new();
        for step in 0..self.trace.step_count() {
            if boundary == Some(step) && self.open.step_count > 0 {
                segments.push(self.close(self.live.touched_count())?);
                room = bytes_max;
            }
            let mark = self.live.touched_count();
            let mut added = self.step(step)?;
            let accesses = self.trace.access_count(step);
            let fits = |open: &OpenSegment, added: &Added, room| {
                open.bytes + added.bytes <= room && open.access_count + accesses <= ACCESSES_MAX
            };
            if !fits(&self.open, &added, room) {
                room = bytes_max;
                if self.open.step_count > 0 {
                    segments.push(self.close(mark)?);
                    added = self.step(step)?;
                }
                if !fits(&self.open, &added, room) {
                    let what = self.name(step);
                    return Err(CutError::TooLarge { what, bytes: self.open.bytes + added.bytes, bytes_max });
                }
            }
            self.accept(added, accesses);
        }
        segments.push(self.close(self.live.touched_count())?);
        Ok(segments)
    }

    fn name(&self, step: usize) -> Step {
        match step {
            0 => Step::Opening,
            step if step <= self.block.transactions.len() => Step::Transaction(step - 1),
            _ => Step::Closing,
        }
    }

    /// Reads the paths of what a step asked for, and says what the segment would grow by.
    fn step(&mut self, step: usize) -> Result<Added, CutError> {
        if self.open.step_count == 0 {
            self.open.bytes = ENVELOPE_BYTES_MAX + BATCH_BYTES_MAX + BLOCK_BYTES_MAX + SEGMENT_BYTES_MAX;
        }
        let mut added = Added::default();
        let mark = self.live.touched_count();
        self.touch(step, &mut added)?;
        for touched in self.live.touched(mark) {
            added.bytes += string_bytes(match touched.rlp {
                TouchedRlp::Entry(index) => self.witness.state[index as usize].len(),
                TouchedRlp::Made(bytes) => bytes.len(),
            });
        }
        let own = self.trace.own_codes(step);
        for (hash, code) in self.trace.codes(step) {
            if !own.contains(hash) && !self.open.code_hashes.contains(hash) {
                added.bytes += string_bytes(code.len());
                added.codes.push((*hash, code.clone()));
            }
        }
        self.add_headers(step, &mut added);
        if let Some(tx) = step.checked_sub(1).and_then(|index| self.block.transactions.get(index)) {
            added.bytes += string_bytes(tx.raw.len());
        } else if step > 0 {
            added.bytes += 4 + self.facts.withdrawals.iter().map(alloy_rlp::Encodable::length).sum::<usize>();
        }
        Ok(added)
    }

    fn touch(&mut self, step: usize, added: &mut Added) -> Result<(), ValidationError> {
        for key in self.trace.account_keys(step) {
            self.live.touch_account(key)?;
        }
        for (owner, key) in self.trace.slot_keys(step) {
            self.live.touch_slot(owner, key)?;
        }
        for (owner, key) in self.trace.deleted_keys(step) {
            let is_there = match owner {
                None => self.live.touch_account(key)?,
                Some(owner) => self.live.touch_slot(owner, key)?,
            };
            let name = owner.map_or(*key, |owner| *owner ^ *key);
            if is_there && !self.open.deleted.contains(&name) && !added.deleted.contains(&name) {
                added.bytes += SIBLING_BYTES_MAX;
                added.deleted.push(name);
            }
        }
        Ok(())
    }

    /// The opening needs the parent; `BLOCKHASH` everything from what it asks for on.
    fn add_headers(&self, step: usize, added: &mut Added) {
        let number = self.facts.header.number;
        let parent = (step == 0).then(|| number.saturating_sub(1));
        let lowest = parent.into_iter().chain(self.trace.block_hash_lowest(step)).min();
        let had = self.open.lowest_header.unwrap_or(number);
        if let Some(lowest) = lowest.filter(|lowest| *lowest < had) {
            added.bytes += self.headers(lowest, had).map(|header| header.len()).sum::<usize>();
            added.lowest_header = Some(lowest);
        }
    }

    /// RLP of the headers from `lowest` on and below `end`, descending.
    fn headers(&self, lowest: u64, end: u64) -> impl Iterator<Item = &Bytes> {
        let number = self.facts.header.number;
        // The first linked header is the parent's.
        let behind = |block: u64| usize::try_from(number - block).unwrap_or(usize::MAX);
        let linked = self.ancestors.linked();
        let end_index = behind(lowest).min(linked.len());
        linked[behind(end).min(end_index)..end_index].iter().map(|index| &self.witness.headers[*index])
    }

    fn accept(&mut self, added: Added, access_count: usize) {
        let open = &mut self.open;
        let step = open.first_step + open.step_count;
        open.step_count += 1;
        open.bytes += added.bytes;
        open.access_count += access_count;
        open.code_hashes.extend(added.codes.iter().map(|(hash, _)| *hash));
        // Whoever executes the segment has both: what a transaction deploys, and what it runs and destroys again.
        open.code_hashes.extend(self.trace.made_codes(step).iter().map(|(hash, _)| *hash));
        open.code_hashes.extend(self.trace.own_codes(step));
        open.codes.extend(added.codes);
        open.lowest_header = added.lowest_header.or(open.lowest_header);
        open.deleted.extend(added.deleted);
    }

    /// Ends the open segment, which has read the first `touched_count` nodes of the round, and begins the next one.
    fn close(&mut self, touched_count: usize) -> Result<Segment, CutError> {
        self.live.untouch(touched_count);
        let open = std::mem::take(&mut self.open);
        let steps = open.first_step..open.first_step + open.step_count;
        let changes = self.trace.changes(steps.clone());
        let post_state_root = self.live.commit(&changes).map_err(ValidationError::from)?;
        let tx_count = self.block.transactions.len();
        let txs = steps.start.saturating_sub(1).min(tx_count)..(steps.end - 1).min(tx_count);
        let number = self.facts.header.number;
        let lowest = open.lowest_header.unwrap_or(number);
        let mut headers: Vec<Bytes> = self.headers(lowest, number).cloned().collect();
        headers.reverse();
        let segment = Segment {
            block: Arc::clone(&self.facts),
            first_tx_index: txs.start as u32, // See the facts.
            transactions: self.block.transactions[txs.clone()].iter().map(|tx| tx.raw.clone()).collect(),
            gas_used_before: txs.start.checked_sub(1).map_or(0, |last| self.trace.receipts()[last].cumulative_gas_used),
            pre_state_root: open.pre_state_root,
            post_state_root,
            receipts_digest: receipts_digest(&self.trace.receipts()[txs]),
            opens_block: steps.start == 0,
            closes_block: steps.end == self.trace.step_count(),
            headers,
            codes: open.codes,
            nodes: self.nodes(),
            made_nodes: self.live.made().collect(),
            made_codes: changes.codes.iter().map(|(hash, _)| *hash).collect(),
            access_count: open.access_count,
        };
        self.live.begin_round();
        self.open = OpenSegment { first_step: steps.end, pre_state_root: post_state_root, ..OpenSegment::default() };
        Ok(segment)
    }

    /// The nodes that the round has read; those that earlier rounds made share one allocation.
    fn nodes(&self) -> Vec<NodeEntry> {
        let mut made = Vec::new();
        for touched in self.live.touched(0) {
            if let TouchedRlp::Made(bytes) = touched.rlp {
                made.extend_from_slice(bytes);
            }
        }
        let made = Bytes::from(made);
        let mut start = 0;
        let entry = |touched: crate::witness::validator::trie::Touched<'_>| {
            let bytes = match touched.rlp {
                TouchedRlp::Entry(index) => self.witness.state[index as usize].clone(),
                TouchedRlp::Made(bytes) => {
                    start += bytes.len();
                    made.slice(start - bytes.len()..start)
                }
            };
            NodeEntry { hash: *touched.hash, place: touched.place, bytes }
        };
        self.live.touched(0).map(entry).collect()
    }
}
