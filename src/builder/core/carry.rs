//! Copying pooled transactions forward in the journal, so that the segments of their first records can be used again.

use super::{Core, Effects, admitted_tx, append};
use crate::journal::record::Record;
use crate::limits;
use crate::mempool::TxId;
use crate::primitives::Sequence;

impl Core {
    /// Records a few more of the transactions that the journal wants carried.
    pub(super) fn carry(&mut self, effects: &mut impl Effects) {
        let below = effects.carry_below();
        if below > self.carried_below {
            // One pass over the pool; a segment is asked for once.
            self.carried_below = below;
            let mut named: Vec<(Sequence, TxId)> = self
                .pool
                .iter()
                .filter(|pooled| pooled.submission.payload.name < below)
                .map(|pooled| (pooled.submission.payload.name, pooled.id))
                .collect();
            named.sort_unstable_by_key(|(name, _)| *name);
            self.carrying = named.into_iter().map(|(_, id)| id).collect();
        }
        for _ in 0..limits::CARRIES_PER_TURN {
            let Some(id) = self.carrying.pop_front() else { return };
            self.carry_one(id, effects);
        }
    }

    fn carry_one(&mut self, id: TxId, effects: &mut impl Effects) {
        // Placed or ended meanwhile: nothing is left to carry.
        let Some(pooled) = self.pool.get_by_id(id) else { return };
        let submission = pooled.submission;
        let (hash, payload) = (submission.hash, &submission.payload);
        let record = Record::Carried {
            admitted: payload.admitted,
            previous: payload.name,
            tx: admitted_tx(submission, &self.slabs),
        };
        let name = append(&mut self.sequence, &record, effects);
        let payload = self.pool.payload_mut(&hash).expect("it was in the pool a moment ago");
        payload.name = name;
    }
}
