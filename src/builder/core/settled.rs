//! What L1 means for building: which origin a block stands on, how far blocks are safe and final, when to wait.

use std::collections::VecDeque;

use alloy_consensus::Header;

use super::{Core, Effects, Now};
use crate::limits;
use crate::messages::{ChainMessage, Refusal};
use crate::primitives::{B256, Sequence, Tier};
use crate::settlement::cells::{Hold, Origin, SettlementView};

/// What is known of L1 so far. Without one every sealed block is safe and final.
#[derive(Debug)]
pub(super) struct Settlement {
    is_on: bool,
    pub(super) view: SettlementView,
    origin: Option<Origin>,
    /// Number and sequence of sealed blocks that are not final, oldest first: their records stay in the journal.
    unfinalized: VecDeque<(u64, Sequence)>,
    settled: Sequence,
}

impl Default for Settlement {
    fn default() -> Self {
        Self {
            is_on: false,
            view: SettlementView::OFF,
            origin: None,
            unfinalized: VecDeque::new(),
            settled: Sequence(u64::MAX),
        }
    }
}

impl Settlement {
    /// A block was sealed.
    pub(super) fn sealed(&mut self, number: u64, sequence: Sequence) {
        if self.is_on {
            self.unfinalized.push_back((number, sequence));
        }
    }

    /// Of a core whose blocks settle on L1 from now on. What was sealed before counts as one block at the tip.
    pub(super) fn expected(view: SettlementView, number: u64, sequence: Sequence) -> Self {
        let unfinalized = VecDeque::from([(number, sequence)]);
        Self { is_on: true, view, origin: None, unfinalized, settled: Sequence(0) }
    }

    /// Takes over what L1 has made of our blocks, of which `newest` is the newest; whether the heads have moved. `origin` is read when the version in
    /// `view` is new.
    pub(super) fn heard(
        &mut self,
        view: SettlementView,
        origin: impl FnOnce() -> Option<Origin>,
        newest: u64,
        now: Now,
        effects: &mut impl Effects,
    ) -> bool {
        let before = std::mem::replace(&mut self.view, view);
        if view == before {
            return false;
        }
        keep_times(before, view, newest, now, effects);
        if view.origin_version != before.origin_version {
            self.origin = origin();
        }
        let has_moved = (view.safe, view.finalized) != (before.safe, before.finalized);
        if has_moved {
            while let Some((number, sequence)) = self.unfinalized.front()
                && *number <= view.finalized
            {
                self.settled = *sequence;
                self.unfinalized.pop_front();
            }
        }
        has_moved
    }

    /// Records up to here are no longer needed to take blocks back.
    pub(super) fn settled(&self) -> Sequence {
        self.settled
    }

    /// Whether L1 does not stand in the way of a block behind `parent`.
    pub(super) fn may_open(&self, parent: &Header) -> bool {
        let has_origin = self.origin.is_some() || parent.parent_beacon_block_root.unwrap_or_default() != B256::ZERO;
        self.view.is_met && (has_origin || !self.is_on) && self.refusal().is_none()
    }

    /// Why nothing is admitted, as far as L1 is concerned.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        if self.view.is_halted {
            return Some(Refusal::SettlementHalted);
        }
        self.view.hold.map(|hold| match hold {
            Hold::Blocks { have, max } => Refusal::Unsettled { what: "blocks", have, max },
            Hold::Bytes { have, max } => Refusal::Unsettled { what: "bytes", have, max },
            Hold::Witnesses { have, max } => Refusal::Unsettled { what: "bytes of witnesses", have, max },
            Hold::Unwritten { block } => Refusal::WitnessUnwritten { block },
        })
    }

    /// `prev_randao` and `parent_beacon_block_root` of the block behind `parent`: of the newest origin, else of its parent's.
    pub(super) fn origin_fields(&self, parent: &Header) -> (B256, B256) {
        match &self.origin {
            Some(origin) => (origin.mix_hash, origin.hash),
            None if self.is_on => (parent.mix_hash, parent.parent_beacon_block_root.unwrap_or_default()),
            None => (B256::ZERO, B256::ZERO),
        }
    }
}

/// Has the chain thread remember when blocks got how far. A block that fell back, because L1 was reorganised, gets its time anew.
fn keep_times(before: SettlementView, view: SettlementView, newest: u64, now: Now, effects: &mut impl Effects) {
    let tiers = [
        (Tier::Posted, before.posted, view.posted),
        (Tier::Safe, before.safe, view.safe),
        (Tier::Finalized, before.finalized, view.finalized),
    ];
    for (tier, before, after) in tiers {
        let (first, last) = (before.saturating_add(1), after.min(newest));
        // Times give way to blocks and ends, whose places are counted on.
        if first <= last && effects.chain_room() > limits::CHAIN_RING_RESERVE {
            effects.chain(ChainMessage::Settled { tier, first, last, unix_ns: now.unix_ns });
        }
    }
}

impl Core {
    /// Blocks settle on L1 from now on: none is opened before L1 was derived to its head.
    pub fn expect_settlement(&mut self, view: SettlementView) {
        self.settlement = Settlement::expected(view, self.parent.header.number, self.sequence);
    }

    /// Takes over what L1 has made of our blocks. `origin` is read when the version in `view` is new.
    pub fn on_settlement(
        &mut self,
        view: SettlementView,
        origin: impl FnOnce() -> Option<Origin>,
        now: Now,
        effects: &mut impl Effects,
    ) {
        if self.settlement.heard(view, origin, self.parent.header.number, now, effects) {
            effects.publish(self.heads());
        }
    }

    /// Records up to here are no longer needed to take blocks back.
    #[must_use]
    pub fn settled(&self) -> Sequence {
        self.settlement.settled()
    }
}
