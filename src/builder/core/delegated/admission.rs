//! The way into the pool where accounts are the client's, and out of it without a place.

use super::views::Waiting;
use super::{Ask, DelegatedCore, LOOK_UP_NS_MAX, Phase, append};
use crate::builder::core::witness_limit::WitnessKnown;
use crate::builder::core::{Effects, JournalRoom, Now, Payload, TxBytes, admitted_tx};
use crate::chain::sealed_record::stored_end;
use crate::journal::record::Record;
use crate::limits;
use crate::mempool::{
    AccountView, Admission, EndState, GasNeeds, Invalid, Readiness, Reject, Removed, Submission, TxId,
};
use crate::messages::{BuilderReply, ChainMessage, Refusal, Submit, SubmitWait, Unready};
use crate::primitives::{Address, B256, Sequence, ShardId, U256};

impl DelegatedCore {
    pub(super) fn submit(
        &mut self,
        shard: ShardId,
        submit: Submit,
        now: Now,
        effects: &mut impl Effects,
        asks: &mut Vec<Ask>,
    ) {
        if let Some(refusal) = self.refusal_at_the_door(&submit, now, effects) {
            return self.refuse(shard, submit, refusal, effects);
        }
        let sender = submit.sender;
        match self.views.get(&sender) {
            Some(view) if !self.views.has_waiting(&sender) => self.admit(shard, submit, view, now, effects),
            _ => {
                self.views.wait(Waiting { shard, submit, since_ns: now.monotonic_ns });
                self.look_up(sender, asks);
            }
        }
    }

    /// Why nothing at all, or not this one, is admitted now.
    fn refusal_at_the_door(&self, submit: &Submit, now: Now, effects: &impl Effects) -> Option<Refusal> {
        if self.drain_until_ns.is_some() {
            return Some(Refusal::Draining);
        }
        if self.wanted.is_halted() {
            return Some(Refusal::HaltedByOperator);
        }
        if self.is_halted {
            return Some(Refusal::Halted);
        }
        if !self.is_met || self.is_client_behind(now) {
            return Some(Refusal::ClientAway);
        }
        if let Some(refusal) = self.settlement.refusal() {
            return Some(refusal);
        }
        if submit.extras.as_ref().is_some_and(|extras| extras.conditions.is_some()) {
            return Some(Refusal::NotDelegated("conditions of ERC-7796"));
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
        if self.pool.contains(&submit.hash) {
            return Some(Refusal::Pool(Reject::AlreadyKnown));
        }
        // The client is building with the one that would be replaced.
        let (sender, tx) = (submit.sender, submit.fields.nonce);
        self.is_building_with(&sender, tx).then(|| {
            Refusal::Pool(Reject::AlreadyPreconfirmed { tx, account: self.next_nonce(&sender).unwrap_or_default() })
        })
    }

    /// Whether the block that is being built holds the sender's transaction of this nonce.
    pub(super) fn is_building_with(&self, sender: &Address, nonce: u64) -> bool {
        self.next_nonce(sender).is_some_and(|next| nonce < next)
    }

    /// The sender's nonce behind the block that is being built.
    fn next_nonce(&self, sender: &Address) -> Option<u64> {
        match &self.phase {
            Phase::Building { next_nonces } => next_nonces.get(sender).copied(),
            _ => None,
        }
    }

    fn refuse(&mut self, shard: ShardId, submit: Submit, refusal: Refusal, effects: &mut impl Effects) {
        let Submit { token, hash, handle, .. } = submit;
        // That the process is not ready depends on no record, and must be said while none becomes durable.
        let gate = if matches!(refusal, Refusal::Pool(_)) { self.sequence } else { Sequence(0) };
        effects.reply(shard, BuilderReply::Refused { token, hash, refusal, gate });
        effects.free(handle);
    }

    pub(super) fn refuse_waiting(&mut self, waiting: Waiting, refusal: Refusal, effects: &mut impl Effects) {
        self.refuse(waiting.shard, waiting.submit, refusal, effects);
    }

    /// Submissions whose sender's account did not come in time.
    pub(super) fn refuse_overdue(&mut self, now: Now, effects: &mut impl Effects) {
        let since_ns = now.monotonic_ns.saturating_sub(LOOK_UP_NS_MAX);
        for waiting in self.views.take_overdue(since_ns) {
            self.refuse_waiting(waiting, Refusal::ClientAway, effects);
        }
    }

    /// The client's head has moved: what waited is admitted where the account is known, and asked for where it is not.
    pub(super) fn resume_waiting(&mut self, now: Now, effects: &mut impl Effects, asks: &mut Vec<Ask>) {
        for address in self.views.wanted() {
            let Some(view) = self.views.get(&address) else {
                self.look_up(address, asks);
                continue;
            };
            for waiting in self.views.take_waiting(&address) {
                self.admit(waiting.shard, waiting.submit, view, now, effects);
            }
        }
        for address in self.restoring.iter().copied().collect::<Vec<_>>() {
            self.look_up(address, asks);
        }
    }

    /// Admits a transaction whose sender's account is known.
    pub(super) fn admit(
        &mut self,
        shard: ShardId,
        submit: Submit,
        view: AccountView,
        now: Now,
        effects: &mut impl Effects,
    ) {
        // Much may have happened while it waited.
        if let Some(refusal) = self.refusal_at_the_door(&submit, now, effects) {
            return self.refuse(shard, submit, refusal, effects);
        }
        let Submit { token, hash, sender, fields, handle, extras, wait } = submit;
        let authorities = extras.map_or_else(Vec::new, |extras| extras.authorities);
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
            conditions: None,
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
        match self.pool.admit(submission, &view, view.nonce, now.monotonic_ns, &mut self.removed) {
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
    }

    /// Why a transaction that has just entered the pool cannot be placed next, for those who wait for its place (EIP-7966).
    fn unready(&self, admission: &Admission) -> Option<Unready> {
        let submission = self.pool.get_by_id(admission.id)?.submission;
        let (fields, base_fee_wei) = (&submission.fields, self.pool.base_fee_wei());
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

    fn record_admitted(&mut self, id: TxId, effects: &mut impl Effects) -> Sequence {
        let pooled = self.pool.get_by_id(id).expect("it was admitted a moment ago");
        let record = Record::Admitted(admitted_tx(pooled.submission, &self.slabs));
        append(&mut self.sequence, &record, effects)
    }

    /// The client cannot place it: it ends with the reason.
    pub(super) fn end_refused(&mut self, hash: &B256, reason: &str, now: Now, effects: &mut impl Effects) {
        tracing::warn!(tx_hash = %hash, reason, "the execution client cannot place a transaction");
        let Some(pooled) = self.pool.get(hash) else { return };
        let (id, fields) = (pooled.id, pooled.submission.fields);
        let invalid = invalid_of(reason, fields.nonce, fields.cost_max_wei().unwrap_or(U256::MAX));
        self.pool.invalid(id, invalid, now.monotonic_ns, &mut self.removed);
        self.settle_removed(now, effects);
    }

    /// Sends home what every transaction that just left the pool held, and tells who waits for it.
    pub(super) fn settle_removed(&mut self, now: Now, effects: &mut impl Effects) {
        for Removed { submission, end, .. } in self.removed.drain(..) {
            let payload = submission.payload;
            if let TxBytes::Chunk(handle) = payload.bytes {
                effects.free(handle);
            }
            if matches!(end, EndState::Rejected(_) | EndState::Placed) {
                continue;
            }
            let (hash, accepted_unix_ns, ended_unix_ns) = (submission.hash, payload.accepted_unix_ns, now.unix_ns);
            let stored = stored_end(&end);
            let record = Record::Dropped { tx: payload.name, hash, accepted_unix_ns, ended_unix_ns, end: stored };
            let gate = append(&mut self.sequence, &record, effects);
            if let Some(token) = payload.waiter {
                effects.reply(payload.shard, BuilderReply::Ended { token, hash, end, gate });
            }
            effects.chain(ChainMessage::Ended { hash, accepted_unix_ns, ended_unix_ns, end, gate });
        }
    }

    pub(super) fn expire(&mut self, now: Now, effects: &mut impl Effects) {
        if self.pool.expire(now.monotonic_ns, limits::EXPIRIES_PER_TURN, &mut self.removed) > 0 {
            self.settle_removed(now, effects);
        }
    }

    /// Records a few more of the transactions that the journal wants carried.
    pub(super) fn carry(&mut self, effects: &mut impl Effects) {
        let below = effects.carry_below();
        if below > self.carried_below {
            self.carried_below = below;
            let old = self.pool.iter().filter(|pooled| pooled.submission.payload.name < below);
            let mut named: Vec<(Sequence, TxId)> =
                old.map(|pooled| (pooled.submission.payload.name, pooled.id)).collect();
            named.sort_unstable_by_key(|(name, _)| *name);
            self.carrying = named.into_iter().map(|(_, id)| id).collect();
        }
        for _ in 0..limits::CARRIES_PER_TURN {
            let Some(id) = self.carrying.pop_front() else { return };
            let Some(pooled) = self.pool.get_by_id(id) else { continue };
            let (hash, payload) = (pooled.submission.hash, &pooled.submission.payload);
            let tx = admitted_tx(pooled.submission, &self.slabs);
            let record = Record::Carried { admitted: payload.admitted, previous: payload.name, tx };
            let name = append(&mut self.sequence, &record, effects);
            self.pool.payload_mut(&hash).expect("it was in the pool a moment ago").name = name;
        }
    }
}

/// What go-ethereum's words mean to the pool.
fn invalid_of(reason: &str, tx_nonce: u64, cost_wei: U256) -> Invalid {
    let number = |name: &str| {
        let digits = reason.split_once(name)?.1.trim_start();
        digits.split(|c: char| !c.is_ascii_digit()).next()?.parse::<U256>().ok()
    };
    if reason.contains("nonce too low") {
        let account = number("state:").and_then(|account| u64::try_from(account).ok()).unwrap_or_default();
        return Invalid::NonceTooLow { tx: tx_nonce, account };
    }
    if reason.contains("insufficient funds") {
        let (balance_wei, cost_wei) = (number("have").unwrap_or_default(), number("want").unwrap_or(cost_wei));
        return Invalid::InsufficientFunds { cost_wei, balance_wei };
    }
    if reason.contains("of an ExecuteTx by itself") {
        let bytes = |name: &str| number(name).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
        return Invalid::Witness { bytes: bytes("needs"), bytes_max: bytes("at most") };
    }
    Invalid::Execution("the execution client cannot place it (its words are in the log)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_client_become_reasons_with_their_numbers() {
        let check = |reason: &str, expected: &str| {
            assert_eq!(invalid_of(reason, 4, U256::from(9_u64)).to_string(), expected);
        };
        check(
            "nonce too low: address 0x7F0d15C7FAae65896648C8273B6d7E43f58Fa842, tx: 4 state: 7",
            "nonce too low: tx 4, account 7",
        );
        check(
            "insufficient funds for gas * price + value: address 0x7F0d15C7 have 5 want 21000",
            "insufficient funds for gas * price + value: cost of everything pooled 21000, balance 5",
        );
        check(
            "transaction 3 needs 140000 bytes of an ExecuteTx by itself, at most 131072 are allowed",
            &Invalid::Witness { bytes: 140_000, bytes_max: 131_072 }.to_string(),
        );
        check("gas limit reached", "the execution client cannot place it (its words are in the log)");
    }
}
