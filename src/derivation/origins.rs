//! The canonical L1 blocks that L2 blocks may stand on.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::derivation::skip::SkipReason;
use crate::derivation::types::ClaimedOrigin;
use crate::l1::block::{BlockId, L1Header};
use crate::primitives::B256;

/// How far below the block that has the batch an origin may lie: a consensus rule.
pub const ORIGIN_AGE_MAX: u64 = 1_048_576;
/// Blocks in a chunk: what is copied when a chunk that a window holds grows.
const CHUNK: u64 = 1_024;

/// What L2 takes from an L1 block that it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OriginBlock {
    pub number: u64,
    /// Becomes `parent_beacon_block_root`.
    pub hash: B256,
    /// Becomes `prev_randao`.
    pub mix_hash: B256,
    pub timestamp: u64,
}

impl OriginBlock {
    #[must_use]
    pub fn of(header: &L1Header) -> Self {
        Self { number: header.number, hash: header.hash, mix_hash: header.mix_hash, timestamp: header.timestamp }
    }

    #[must_use]
    pub fn id(&self) -> BlockId {
        BlockId { number: self.number, hash: self.hash }
    }
}

/// All canonical blocks from the lowest that an origin may name to the newest: at most `ORIGIN_AGE_MAX` and a chunk, 80 bytes each.
#[derive(Clone, Debug)]
pub struct Origins {
    /// `chunks[i]` begins at `first + i · CHUNK`; all but the last are full. Shared with windows; never empty.
    chunks: VecDeque<Arc<Vec<OriginBlock>>>,
    first: u64,
}

impl Origins {
    /// Begins at `start`.
    #[must_use]
    pub fn new(start: OriginBlock) -> Self {
        Self { chunks: [Arc::new(vec![start])].into(), first: start.number }
    }

    /// The newest block.
    #[must_use]
    pub fn newest(&self) -> OriginBlock {
        let chunk = &self.chunks[self.chunks.len() - 1];
        chunk[chunk.len() - 1]
    }

    /// The block of this number.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<OriginBlock> {
        get(self.chunks.as_slices(), self.first, number)
    }

    /// Appends the next block, and forgets what no origin can name any more.
    ///
    /// # Panics
    /// When it is not the next number: the caller has checked that it follows.
    pub fn push(&mut self, block: OriginBlock) {
        assert_eq!(block.number, self.newest().number + 1);
        match self.chunks.back_mut().filter(|chunk| (chunk.len() as u64) < CHUNK) {
            Some(chunk) => Arc::make_mut(chunk).push(block),
            None => self.chunks.push_back(Arc::new(vec![block])),
        }
        while block.number - self.first > ORIGIN_AGE_MAX + CHUNK {
            self.chunks.pop_front();
            self.first += CHUNK;
        }
    }

    /// Forgets blocks above `to`, which is one of them.
    ///
    /// # Panics
    /// When nothing would be left.
    pub fn rewind(&mut self, to: u64) {
        assert!(to >= self.first);
        let kept = to - self.first + 1;
        self.chunks.truncate(kept.div_ceil(CHUNK) as usize);
        let in_last = ((kept - 1) % CHUNK + 1) as usize;
        if let Some(chunk) = self.chunks.back_mut().filter(|chunk| chunk.len() > in_last) {
            Arc::make_mut(chunk).truncate(in_last);
        }
    }

    /// The blocks that a batch in block `inclusion` may name.
    #[must_use]
    pub fn window(&self, inclusion: u64) -> OriginWindow {
        OriginWindow { chunks: self.chunks.iter().cloned().collect(), first: self.first, inclusion }
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &OriginBlock> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}

/// A view of the canonical L1 blocks below one block; cheap to make and to send to another thread.
#[derive(Clone, Debug)]
pub struct OriginWindow {
    chunks: Vec<Arc<Vec<OriginBlock>>>,
    first: u64,
    inclusion: u64,
}

impl OriginWindow {
    /// Applies every rule about origins to one block's; `before` is the origin's number of the block before it.
    ///
    /// # Errors
    /// `OriginNotBelow`, `OriginDecreases`, `OriginTooOld`, `OriginUnknown`, `OtherPrevRandao`, asked in this order.
    pub fn judge(&self, before: u64, claimed: ClaimedOrigin) -> Result<OriginBlock, SkipReason> {
        let ClaimedOrigin { block, origin: BlockId { number: origin, hash }, prev_randao: found } = claimed;
        let inclusion = self.inclusion;
        if origin >= inclusion {
            return Err(SkipReason::OriginNotBelow { block, origin, inclusion });
        }
        if origin < before {
            return Err(SkipReason::OriginDecreases { block, origin, before });
        }
        if inclusion - origin > ORIGIN_AGE_MAX {
            return Err(SkipReason::OriginTooOld { block, origin, inclusion });
        }
        let known = get((&self.chunks, &[]), self.first, origin).filter(|known| known.hash == hash);
        let known = known.ok_or(SkipReason::OriginUnknown { block, origin, hash })?;
        if known.mix_hash != found {
            return Err(SkipReason::OtherPrevRandao { block, expected: known.mix_hash, found });
        }
        Ok(known)
    }

    /// The canonical block of this number and hash, when a batch of this window's block may name it at all.
    #[must_use]
    pub fn find(&self, id: BlockId) -> Option<OriginBlock> {
        let is_in_reach = id.number < self.inclusion && self.inclusion - id.number <= ORIGIN_AGE_MAX;
        let known = get((&self.chunks, &[]), self.first, id.number)?;
        (is_in_reach && known.id() == id).then_some(known)
    }

    /// [`OriginWindow::judge`] for all blocks of a batch.
    ///
    /// # Errors
    /// The first block's that breaks a rule.
    pub fn judge_all(&self, mut before: u64, claimed: &[ClaimedOrigin]) -> Result<(), SkipReason> {
        for claimed in claimed {
            before = self.judge(before, *claimed)?.number;
        }
        Ok(())
    }
}

type Chunks<'a> = (&'a [Arc<Vec<OriginBlock>>], &'a [Arc<Vec<OriginBlock>>]);

fn get((head, tail): Chunks<'_>, first: u64, number: u64) -> Option<OriginBlock> {
    let offset = number.checked_sub(first)?;
    let chunk = usize::try_from(offset / CHUNK).ok()?;
    let chunk = head.get(chunk).or_else(|| tail.get(chunk - head.len()))?;
    chunk.get((offset % CHUNK) as usize).copied()
}
