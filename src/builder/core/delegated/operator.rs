//! What the operator wants where an execution client builds: as in the other modes, but that a block that is being built cannot be cut short.

use super::{DelegatedCore, Phase};
use crate::admin::cells::Wanted;
use crate::builder::core::{Effects, JournalRoom, Now};
use crate::mempool::{Bounds, TxId};
use crate::messages::{OperatorAnswer, OperatorWish};

impl DelegatedCore {
    /// Takes over what the operator wants. A block that was asked for still comes.
    pub fn on_controls(&mut self, wanted: Wanted) {
        self.wanted = wanted;
    }

    /// The pool's bounds from now on. What is pooled above them stays.
    pub fn set_pool_bounds(&mut self, bounds: Bounds) {
        self.pool.set_bounds(bounds);
    }

    /// Whether no block is being built.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        !matches!(self.phase, Phase::Building { .. })
    }

    /// Whether no block is asked for, until somebody who may say so has said otherwise.
    pub(super) fn is_held(&self) -> bool {
        !self.wanted.may_build() || self.is_halted
    }

    /// Drops what the operator does not want, as far as the client is not building with it. Those behind it wait for its nonce.
    pub fn on_operator(&mut self, wish: OperatorWish, now: Now, effects: &mut impl Effects) -> OperatorAnswer {
        // Each drop is a record.
        if effects.journal_room() < JournalRoom::Busy {
            return OperatorAnswer::JournalBehind;
        }
        let mut ids: Vec<TxId> = match wish {
            OperatorWish::DropTransaction { hash } => match self.pool.get(&hash) {
                None => return OperatorAnswer::Unknown,
                Some(pooled) if self.is_building_with(&pooled.submission.sender, pooled.submission.fields.nonce) => {
                    return OperatorAnswer::Placed { block_number: self.parent.header.number + 1 };
                }
                Some(pooled) => vec![pooled.id],
            },
            OperatorWish::DropSender { address } => {
                let pooled = self.pool.iter_sender(&address);
                let free = pooled.filter(|pooled| !self.is_building_with(&address, pooled.submission.fields.nonce));
                free.map(|pooled| pooled.id).collect()
            }
        };
        // From the highest nonce down, so that nothing is made to wait on the way.
        ids.reverse();
        for id in &ids {
            self.pool.drop_by_operator(*id, now.monotonic_ns, &mut self.removed);
        }
        self.settle_removed(now, effects);
        // The pool has fewer than 2^32.
        OperatorAnswer::Dropped { count: ids.len() as u32, gate: self.sequence }
    }
}
