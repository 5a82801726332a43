//! What an execution client's verdicts mean for building: how far `latest` may be, when to stop.

use std::sync::Arc;

use super::{Core, Effects};
use crate::builder::block::{Heads, OpenBlock};
use crate::limits;
use crate::messages::Refusal;

/// The verdicts so far. Without an execution client every block counts as checked when it is sealed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdicts {
    /// Number of the newest block that may be `latest`.
    checked: u64,
    unchecked_blocks_max: u64,
    is_met: bool,
    is_halted: bool,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self { checked: u64::MAX, unchecked_blocks_max: u64::MAX, is_met: true, is_halted: false }
    }
}

impl Verdicts {
    pub(super) fn is_halted(self) -> bool {
        self.is_halted
    }

    /// Whether a block may leave memory: readers are shown the newest checked one, and the client is fed those behind it from here.
    pub(super) fn may_forget(self, number: u64) -> bool {
        number < self.checked
    }
}

impl Core {
    /// Blocks wait for an execution client's verdict from now on, at most `unchecked_blocks_max` of them; `checked` was shown before.
    pub fn expect_verdicts(&mut self, checked: u64, unchecked_blocks_max: u64) {
        self.verdicts = Verdicts { checked, unchecked_blocks_max, is_met: false, is_halted: false };
    }

    /// Takes over how far the execution client has come, and shows it to everyone.
    ///
    /// `is_met`: its head was read and is one of our blocks. Until then no block is opened.
    pub fn on_verdict(&mut self, checked: u64, is_met: bool, is_halted: bool, effects: &mut impl Effects) {
        (self.verdicts.is_met, self.verdicts.is_halted) = (is_met, is_halted);
        if checked != self.verdicts.checked {
            self.verdicts.checked = checked;
            effects.publish(self.heads());
        }
    }

    /// Whether the execution client does not stand in the way of a new block.
    pub(super) fn may_open_unchecked(&self) -> bool {
        self.verdicts.is_met && self.verdict_refusal().is_none()
    }

    /// The tip with `open` behind it, as far as it is checked.
    pub(super) fn heads_with(&self, open: Option<Arc<OpenBlock>>) -> Arc<Heads> {
        let heads = Heads::checked(self.recent.iter().cloned().collect(), open, self.verdicts.checked);
        let view = &self.settlement.view;
        Arc::new(heads.settled(view.safe, view.finalized))
    }

    /// Why nothing is admitted, as far as the execution client is concerned.
    pub(super) fn verdict_refusal(&self) -> Option<Refusal> {
        if self.verdicts.is_halted {
            return Some(Refusal::Halted);
        }
        let (tip, checked) = (self.parent.header.number, self.verdicts.checked);
        if tip <= checked {
            return None;
        }
        let (blocks, blocks_max) = (tip - checked, self.verdicts.unchecked_blocks_max);
        let is_over = blocks >= blocks_max || self.unchecked_bytes() >= limits::UNCHECKED_BLOCKS_BYTES_MAX;
        is_over.then_some(Refusal::Unchecked { blocks, blocks_max })
    }

    /// Memory of the blocks that wait for their verdict, about.
    fn unchecked_bytes(&self) -> u64 {
        let newest_first = self.recent.iter().rev();
        newest_first.take_while(|block| block.header.number > self.verdicts.checked).map(|block| block.held_bytes).sum()
    }
}
