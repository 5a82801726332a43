//! What the operator wants of building, halted, stopped, or nothing; and of the pool's bounds.

use super::{Core, Phase};
use crate::admin::cells::Wanted;
use crate::mempool::Bounds;
use crate::messages::Refusal;

impl Core {
    /// Takes over what the operator wants. An open block is closed by the next turn when nothing may be built.
    pub fn on_controls(&mut self, wanted: Wanted) {
        self.wanted = wanted;
    }

    /// The pool's bounds from now on. What is pooled above them stays.
    pub fn set_pool_bounds(&mut self, bounds: Bounds) {
        self.pool.set_bounds(bounds);
    }

    /// Whether no block is open or sealing.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Whether nothing is placed and no block is opened, until somebody who may say so has said otherwise.
    pub(super) fn is_held(&self) -> bool {
        !self.wanted.may_build() || self.verdicts.is_halted()
    }

    /// Why nothing is admitted, as far as the operator is concerned.
    pub(super) fn control_refusal(&self) -> Option<Refusal> {
        self.wanted.is_halted().then_some(Refusal::HaltedByOperator)
    }
}
