//! The way into the pool, and out of it without a place.

use super::witness_limit::WitnessKnown;
use super::{Core, Effects, JournalRoom, Now, Payload, TxBytes, account_view, admitted_tx, append};
use crate::builder::conditions;
use crate::builder::world::WorldError;
use crate::chain::sealed_record::stored_end;
use crate::journal::record::Record;
use crate::limits;
use crate::mempool::{
    Admission, Conditions, EndState, GasNeeds, Readiness, Reject, Removed, Submission, TxId, Verdict,
};
use crate::messages::{BuilderReply, ChainMessage, Refusal, Submit, SubmitWait, Unready};
use crate::primitives::{Address, B256, Sequence, ShardId};

impl Core {
    pub(super) fn submit(
        &mut self,
        shard: ShardId,
        submit: Submit,
        now: Now,
        effects: &mut impl Effects,
    ) -> Result<(), WorldError> {
        let Submit { token, hash, sender, fields, handle, extras, wait } = submit;
        if let Some(refusal) = self.refusal_at_the_door(&hash, effects) {
            // That the process is not ready depends on no record, and must be said while none becomes durable.
            let gate = if matches!(refusal, Refusal::Pool(_)) { self.sequence } else { Sequence(0) };
            effects.reply(shard, BuilderReply::Refused { token, hash, refusal, gate });
            effects.free(handle);
            return Ok(());
        }
        let (authorities, conditions) =
            extras.map_or_else(Default::default, |extras| (extras.authorities, extras.conditions));
        if let Some(refusal) = self.refusal_of_conditions(conditions.as_ref(), now)? {
            effects.reply(shard, BuilderReply::Refused { token, hash, refusal, gate: self.sequence });
            effects.free(handle);
            return Ok(());
        }
        let recovered: Vec<Address> = authorities.iter().flatten().copied().collect();
        let needs = GasNeeds::of(&fields);
        let submission = Submission {
            hash,
            sender,
            fields,
            encoded_bytes: handle.len() as u32,
            intrinsic_gas: needs.intrinsic_gas,
            floor_gas: needs.floor_gas,
            authorities: (!authorities.is_empty()).then(|| recovered.into_boxed_slice()),
            conditions: conditions.map(Box::new),
            payload: Payload {
                bytes: TxBytes::Chunk(handle),
                name: Sequence(self.sequence.0 + 1),
                admitted: Sequence(self.sequence.0 + 1),
                authorities,
                shard,
                waiter: (wait == SubmitWait::Preconfirmation).then_some(token),
                accepted_unix_ns: now.unix_ns,
                unpaid_count: 0,
                witness: WitnessKnown::default(),
            },
        };
        let account = account_view(self.executor.world(), sender)?;
        // Only a nonce that is used up needs to be told apart: used in the open block, or before it.
        let is_used_up = submission.fields.nonce < account.nonce;
        let sealed_nonce = if is_used_up { self.executor.world().sealed_account(&sender)?.nonce } else { 0 };
        let admitted = self.pool.admit(submission, &account, sealed_nonce, now.monotonic_ns, &mut self.removed);
        match admitted {
            Ok(admission) => {
                let gate = self.record_admitted(admission.id, effects);
                if wait == SubmitWait::Admission {
                    effects.reply(shard, BuilderReply::Admitted { token, hash, gate });
                } else if let Some(reason) = self.unready(&admission) {
                    if let Some(payload) = self.pool.payload_mut(&hash) {
                        payload.waiter = None;
                    }
                    effects.reply(shard, BuilderReply::Unready { token, hash, reason, gate });
                }
            }
            Err(reject) => {
                let (refusal, gate) = (Refusal::Pool(reject), self.sequence);
                effects.reply(shard, BuilderReply::Refused { token, hash, refusal, gate });
            }
        }
        self.settle_removed(now, effects);
        Ok(())
    }

    /// Waiting is pointless where a condition can never be met.
    fn refusal_of_conditions(
        &mut self,
        conditions: Option<&Conditions>,
        now: Now,
    ) -> Result<Option<Refusal>, WorldError> {
        let Some(conditions) = conditions else { return Ok(None) };
        let (number, timestamp) = self.next_place(now);
        Ok(match conditions::evaluate(conditions, self.executor.world(), number, timestamp)? {
            Verdict::Impossible(reason) => Some(Refusal::Condition(reason)),
            Verdict::Met | Verdict::NotYet(_) => None,
        })
    }

    /// Why nothing at all, or not this hash, is admitted now.
    pub(super) fn refusal_at_the_door(&self, hash: &B256, effects: &impl Effects) -> Option<Refusal> {
        if self.drain_until_ns.is_some() {
            return Some(Refusal::Draining);
        }
        let refusal = self.control_refusal().or_else(|| self.verdict_refusal()).or_else(|| self.settlement.refusal());
        if refusal.is_some() {
            return refusal;
        }
        let pooled = self.pool.counts();
        let reserved = pooled.ready as usize + pooled.queued as usize + limits::CHAIN_RING_RESERVE;
        if effects.chain_room() <= reserved {
            return Some(Refusal::ChainBehind);
        }
        match effects.journal_room() {
            JournalRoom::Full => return Some(Refusal::JournalFull),
            JournalRoom::Behind => return Some(Refusal::JournalBehind),
            JournalRoom::Busy | JournalRoom::Plenty => {}
        }
        self.placed_index.contains_key(hash).then_some(Refusal::Pool(Reject::AlreadyKnown))
    }

    /// Why a transaction that has just entered the pool cannot be placed now, for those who wait for its place (EIP-7966).
    pub(super) fn unready(&self, admission: &Admission) -> Option<Unready> {
        let submission = self.pool.get_by_id(admission.id)?.submission;
        let fields = &submission.fields;
        let base_fee_wei = self.pool.base_fee_wei();
        if admission.readiness == Readiness::Queued {
            let next = self.pool.pending_nonce(&submission.sender).unwrap_or_default();
            return Some(Unready::NonceGap { tx: fields.nonce, next });
        }
        if fields.max_fee_per_gas_wei < base_fee_wei {
            return Some(Unready::FeeCapBelowBaseFee { fee_cap_wei: fields.max_fee_per_gas_wei, base_fee_wei });
        }
        if self.wanted.is_stopped() {
            return Some(Unready::Stopped);
        }
        (!self.settings.execute).then_some(Unready::NotExecuting)
    }

    /// Records a transaction that has just entered the pool.
    pub(super) fn record_admitted(&mut self, id: TxId, effects: &mut impl Effects) -> Sequence {
        let pooled = self.pool.get_by_id(id).expect("it was admitted a moment ago");
        let record = Record::Admitted(admitted_tx(pooled.submission, &self.slabs));
        append(&mut self.sequence, &record, effects)
    }

    /// Sends home what every transaction that just left the pool held, and tells who waits for it.
    pub(super) fn settle_removed(&mut self, now: Now, effects: &mut impl Effects) {
        for removed in self.removed.drain(..) {
            let Removed { submission, end, .. } = removed;
            let payload = submission.payload;
            if let TxBytes::Chunk(handle) = payload.bytes {
                effects.free(handle);
            }
            if matches!(end, EndState::Rejected(_) | EndState::Placed) {
                continue;
            }
            let record = Record::Dropped {
                tx: payload.name,
                hash: submission.hash,
                accepted_unix_ns: payload.accepted_unix_ns,
                ended_unix_ns: now.unix_ns,
                end: stored_end(&end),
            };
            let gate = append(&mut self.sequence, &record, effects);
            if let Some(token) = payload.waiter {
                effects.reply(payload.shard, BuilderReply::Ended { token, hash: submission.hash, end, gate });
            }
            effects.chain(ChainMessage::Ended {
                hash: submission.hash,
                accepted_unix_ns: payload.accepted_unix_ns,
                ended_unix_ns: now.unix_ns,
                end,
                gate,
            });
        }
    }

    pub(super) fn expire(&mut self, now: Now, effects: &mut impl Effects) {
        if self.pool.expire(now.monotonic_ns, limits::EXPIRIES_PER_TURN, &mut self.removed) > 0 {
            self.settle_removed(now, effects);
        }
    }
}
