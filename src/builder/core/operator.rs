//! Transactions that the operator takes out of the pool.

use super::{Core, Effects, JournalRoom, Now};
use crate::mempool::TxId;
use crate::messages::{OperatorAnswer, OperatorWish};
use crate::primitives::{Address, B256};

impl Core {
    /// Drops what the operator does not want, as far as it has no place. Those behind it wait for its nonce.
    pub fn on_operator(&mut self, wish: OperatorWish, now: Now, effects: &mut impl Effects) -> OperatorAnswer {
        // Each drop is a record.
        if effects.journal_room() < JournalRoom::Busy {
            return OperatorAnswer::JournalBehind;
        }
        match wish {
            OperatorWish::DropTransaction { hash } => self.drop_transaction(&hash, now, effects),
            OperatorWish::DropSender { address } => self.drop_sender(&address, now, effects),
        }
    }

    fn drop_transaction(&mut self, hash: &B256, now: Now, effects: &mut impl Effects) -> OperatorAnswer {
        match self.pool.get(hash).map(|pooled| pooled.id) {
            Some(id) => self.drop_all(&[id], now, effects),
            None if self.placed_index.contains_key(hash) => {
                OperatorAnswer::Placed { block_number: self.parent.header.number + 1 }
            }
            None => OperatorAnswer::Unknown,
        }
    }

    fn drop_sender(&mut self, address: &Address, now: Now, effects: &mut impl Effects) -> OperatorAnswer {
        // From the highest nonce down, so that nothing is made to wait on the way.
        let mut ids: Vec<TxId> = self.pool.iter_sender(address).map(|pooled| pooled.id).collect();
        ids.reverse();
        self.drop_all(&ids, now, effects)
    }

    fn drop_all(&mut self, ids: &[TxId], now: Now, effects: &mut impl Effects) -> OperatorAnswer {
        for id in ids {
            self.pool.drop_by_operator(*id, now.monotonic_ns, &mut self.removed);
        }
        self.settle_removed(now, effects);
        // The pool has fewer than 2^32.
        OperatorAnswer::Dropped { count: ids.len() as u32, gate: self.sequence }
    }
}
