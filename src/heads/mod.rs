//! Which block is unsafe, safe and final, and what an L1 reorganisation does to that.
//!
//! ```text
//!  own sealed blocks ─┐
//!  derived batches ───┼─► Heads ─► safe, finalized; adopt; roll back
//!  L1 blocks, rewinds ┘
//! ```
//!
//! Pure. `finalized ≤ safe ≤ unsafe` always. An L1 reorganisation that takes a batch away moves `safe` back and leaves the unsafe blocks,
//! which are posted again. Unsafe blocks are rolled back for two reasons only: a valid derived block of the same height differs, or the L1
//! block that they stand on is gone. Blocks are kept from the finalized one on, so memory is bounded by what L1 has not finalized, and
//! admission is what bounds that. Deliberately absent: payloads, the journal, the builder; they are told by [`Action`].

use std::collections::VecDeque;

use crate::l1::block::BlockId;
use crate::primitives::B256;

#[cfg(test)]
mod tests;

/// Why unsafe blocks are taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A valid batch has another block at this height.
    Derived { number: u64, ours: B256, derived: B256 },
    /// The L1 block that block `number` stands on is not on L1's chain any more, or below that of its parent: `now` is what L1, or the parent, has.
    OriginGone { number: u64, origin: BlockId, now: BlockId },
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Take back every block above `to`, transactions go back to the pool.
    Rollback { to: u64, cause: Cause },
    /// Derived blocks that we do not have, in order: they follow the unsafe head.
    Adopt { first: u64, last: u64 },
    /// The newest safe block is another one.
    Safe(BlockId),
    /// The newest final block is another one.
    Finalized(BlockId),
}

/// Heads cannot be kept true: a person has to look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadsError {
    #[error("L1 has reorganised to block {to}; its block {l1_finalized}, and with it our block {finalized}, was final")]
    L1FinalizedGone { to: u64, l1_finalized: u64, finalized: BlockId },
    #[error("block {number} is final, and the L1 block {origin} that it stands on is gone")]
    FinalizedOriginGone { number: u64, origin: BlockId },
    #[error("L1 block {number} does not follow the newest, {newest}")]
    L1OutOfOrder { number: u64, newest: u64 },
    #[error("block {number} does not follow the newest, {newest}")]
    OutOfOrder { number: u64, newest: u64 },
}

/// All heads, and what was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub unsafe_head: BlockId,
    pub safe: BlockId,
    pub finalized: BlockId,
    /// Blocks up to this one are in transactions that were sent.
    pub posted: u64,
}

/// One block above the finalized one, or that one.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: BlockId,
    origin: BlockId,
    /// Number of the L1 block whose batch completed it.
    derived_in: Option<u64>,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Heads {
    /// From the finalized block to the unsafe head, without a gap. Never empty. Those with `derived_in` are a prefix.
    entries: VecDeque<Entry>,
    /// How many of `entries` are safe, at least 1.
    safe_count: usize,
    posted: u64,
    /// L1 blocks above `l1_finalized`, without a gap.
    l1: VecDeque<BlockId>,
    /// L1 blocks up to this one are final.
    l1_finalized: u64,
}

impl Heads {
    /// Heads that all stand at `finalized`: at first the genesis block, whose origin is the genesis's `l1Start`. `l1_finalized` is the number of
    /// the newest final L1 block that is known, at least the one where `finalized` was derived.
    #[must_use]
    pub fn new(finalized: BlockId, origin: BlockId, l1_finalized: u64) -> Self {
        let entry = Entry { id: finalized, origin, derived_in: Some(l1_finalized) };
        Self {
            entries: VecDeque::from([entry]),
            safe_count: 1,
            posted: finalized.number,
            l1: VecDeque::new(),
            l1_finalized,
        }
    }

    #[must_use]
    pub fn view(&self) -> View {
        View {
            unsafe_head: self.entries[self.entries.len() - 1].id,
            safe: self.entries[self.safe_count - 1].id,
            finalized: self.entries[0].id,
            posted: self.posted,
        }
    }

    /// The block of this number, from the finalized one to the unsafe head.
    #[must_use]
    pub fn block(&self, number: u64) -> Option<BlockId> {
        self.entries.get(self.index(number)?).map(|entry| entry.id)
    }

    /// The L1 block that this block stands on.
    #[must_use]
    pub fn origin_of(&self, number: u64) -> Option<BlockId> {
        self.entries.get(self.index(number)?).map(|entry| entry.origin)
    }

    /// The L1 block that the unsafe head stands on.
    #[must_use]
    pub fn unsafe_origin(&self) -> BlockId {
        self.entries[self.entries.len() - 1].origin
    }

    /// The L1 block whose batch completed this block; `None` when it is not safe or below the finalized one.
    #[must_use]
    pub fn derived_in(&self, number: u64) -> Option<u64> {
        self.entries.get(self.index(number)?).and_then(|entry| entry.derived_in)
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.entries[0].id.number)?).ok()
    }

    /// A block of our own was sealed, or is there from before the start. It may stand on an L1 block that is gone by now.
    ///
    /// # Errors
    /// `OutOfOrder` when it does not follow the unsafe head. One that is there already, equal, changes nothing.
    pub fn sealed(&mut self, id: BlockId, origin: BlockId, actions: &mut Vec<Action>) -> Result<(), HeadsError> {
        if self.block(id.number) == Some(id) {
            return Ok(());
        }
        let newest = self.view().unsafe_head.number;
        if id.number != newest + 1 {
            return Err(HeadsError::OutOfOrder { number: id.number, newest });
        }
        self.entries.push_back(Entry { id, origin, derived_in: None });
        if let Some(now) = self.l1_block_of(origin.number).filter(|now| *now != origin) {
            let cause = Cause::OriginGone { number: id.number, origin, now };
            self.roll_back(self.entries.len() - 1, cause, actions);
        }
        Ok(())
    }

    /// Block `number` cannot stand on its L1 block, because of `now`: see [`Cause::OriginGone`]. Nothing happens when it is safe or not known.
    pub fn origin_gone(&mut self, number: u64, now: BlockId, actions: &mut Vec<Action>) {
        let index = self.index(number).filter(|index| (self.safe_count..self.entries.len()).contains(index));
        let Some(index) = index else { return };
        let origin = self.entries[index].origin;
        self.roll_back(index, Cause::OriginGone { number, origin, now }, actions);
    }

    /// The L1 block of this number, above the final one.
    fn l1_block_of(&self, number: u64) -> Option<BlockId> {
        let offset = number.checked_sub(self.l1.front()?.number)?;
        self.l1.get(usize::try_from(offset).ok()?).copied()
    }

    /// Blocks up to `number` are in transactions that were sent. Rolled back with them.
    pub fn posted(&mut self, number: u64) {
        self.posted = self.posted.max(number.min(self.view().unsafe_head.number));
    }

    /// The next L1 block: unsafe blocks whose origin it is not are rolled back. Before the batches that it has.
    ///
    /// # Errors
    /// `FinalizedOriginGone`; `L1OutOfOrder` when it does not follow the newest one.
    pub fn l1_block(&mut self, l1: BlockId, actions: &mut Vec<Action>) -> Result<(), HeadsError> {
        let newest = self.l1.back().map_or(self.l1_finalized, |block| block.number);
        if l1.number <= self.l1_finalized {
            return Ok(());
        }
        if l1.number != newest + 1 {
            return Err(HeadsError::L1OutOfOrder { number: l1.number, newest });
        }
        self.l1.push_back(l1);
        // Origins never decrease, so those that name this number lie together.
        let first = self.entries.partition_point(|entry| entry.origin.number < l1.number);
        let gone = self.entries.iter().skip(first).take_while(|entry| entry.origin.number == l1.number);
        let Some((offset, gone)) = gone.enumerate().find(|(_, entry)| entry.origin.hash != l1.hash) else {
            return Ok(());
        };
        let (id, origin) = (gone.id, gone.origin);
        if first + offset == 0 {
            return Err(HeadsError::FinalizedOriginGone { number: id.number, origin });
        }
        // A derived block stands on a canonical origin below its batch, so a rewind has made it unsafe before.
        debug_assert!(first + offset >= self.safe_count);
        self.roll_back(first + offset, Cause::OriginGone { number: id.number, origin, now: l1 }, actions);
        Ok(())
    }

    /// A valid batch of L1 block `l1` has completed these blocks, given with their origins; they follow the safe head.
    ///
    /// # Errors
    /// `OutOfOrder`.
    pub fn derived(
        &mut self,
        l1: u64,
        blocks: impl IntoIterator<Item = (BlockId, BlockId)>,
        actions: &mut Vec<Action>,
    ) -> Result<(), HeadsError> {
        let safe = self.view().safe;
        let mut adopted: Option<(u64, u64)> = None;
        for (id, origin) in blocks {
            let newest = self.view().safe.number;
            if id.number != newest + 1 {
                return Err(HeadsError::OutOfOrder { number: id.number, newest });
            }
            if let Some(ours) = self.block(id.number)
                && ours != id
            {
                let cause = Cause::Derived { number: id.number, ours: ours.hash, derived: id.hash };
                self.roll_back(self.safe_count, cause, actions);
            }
            match self.entries.get_mut(self.safe_count) {
                Some(entry) => entry.derived_in = Some(l1),
                None => {
                    self.entries.push_back(Entry { id, origin, derived_in: Some(l1) });
                    adopted = Some((adopted.map_or(id.number, |(first, _)| first), id.number));
                }
            }
            self.safe_count += 1;
        }
        self.posted = self.posted.max(self.view().safe.number);
        if let Some((first, last)) = adopted {
            actions.push(Action::Adopt { first, last });
        }
        if self.view().safe != safe {
            actions.push(Action::Safe(self.view().safe));
        }
        Ok(())
    }

    /// L1 blocks above `to` are gone, and with them the batches that they had: safe blocks become unsafe.
    ///
    /// # Errors
    /// `L1FinalizedGone`.
    pub fn l1_rewound(&mut self, to: u64, actions: &mut Vec<Action>) -> Result<(), HeadsError> {
        if to < self.l1_finalized {
            let (l1_finalized, finalized) = (self.l1_finalized, self.view().finalized);
            return Err(HeadsError::L1FinalizedGone { to, l1_finalized, finalized });
        }
        while self.l1.back().is_some_and(|block| block.number > to) {
            self.l1.pop_back();
        }
        let safe = self.view().safe;
        let kept = |entry: &Entry| entry.derived_in.is_some_and(|block| block <= to);
        self.safe_count = self.entries.iter().take(self.safe_count).take_while(|entry| kept(entry)).count().max(1);
        for entry in self.entries.iter_mut().skip(self.safe_count) {
            entry.derived_in = None;
        }
        if self.view().safe != safe {
            actions.push(Action::Safe(self.view().safe));
        }
        Ok(())
    }

    /// Takes back every block that is not safe: who builds none of its own has no use for them. Answers the newest that stays, when any went.
    pub fn forget_unsafe(&mut self) -> Option<u64> {
        let had = self.entries.len();
        self.entries.truncate(self.safe_count);
        let to = self.view().unsafe_head.number;
        self.posted = self.posted.min(to);
        (had > self.safe_count).then_some(to)
    }

    /// L1 blocks up to `number`, all of which were given, are final: so are the blocks whose batches they have.
    pub fn l1_finalized(&mut self, number: u64, actions: &mut Vec<Action>) {
        self.l1_finalized = self.l1_finalized.max(number);
        while self.l1.front().is_some_and(|block| block.number <= self.l1_finalized) {
            self.l1.pop_front();
        }
        let finalized = self.view().finalized;
        let is_final = |entry: &Entry| entry.derived_in.is_some_and(|block| block <= self.l1_finalized);
        let count = self.entries.iter().take(self.safe_count).take_while(|entry| is_final(entry)).count();
        self.entries.drain(..count.saturating_sub(1));
        self.safe_count -= count.saturating_sub(1);
        if self.view().finalized != finalized {
            actions.push(Action::Finalized(self.view().finalized));
        }
    }

    /// Takes back the entries from `index` on, which are not safe.
    fn roll_back(&mut self, index: usize, cause: Cause, actions: &mut Vec<Action>) {
        assert!(index >= self.safe_count);
        self.entries.truncate(index);
        let to = self.view().unsafe_head.number;
        self.posted = self.posted.min(to);
        actions.push(Action::Rollback { to, cause });
    }
}
