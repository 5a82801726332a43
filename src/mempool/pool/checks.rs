//! The checks of admission that need the sender's account or the rest of the pool. They choose victims but end nothing themselves.

use alloy_primitives::U256;

use super::{AccountView, Mempool, Submission, eviction_node};
use crate::mempool::admission::{Limits, check_fields, check_replacement};
use crate::mempool::ending::{Reject, Removed};
use crate::mempool::heap::Node;

/// What the checks found out and the insertion needs.
pub(super) struct Plan {
    pub cost_wei: U256,
    pub replaces: Option<u32>,
}

impl<P> Mempool<P> {
    pub(super) fn plan(
        &mut self,
        submission: &Submission<P>,
        account: &AccountView,
        sealed_nonce: u64,
        removed: &mut Vec<Removed<P>>,
    ) -> Result<Plan, Reject> {
        check_fields(&self.limits, submission)?;
        if self.store.find_hash(&submission.hash).is_some() {
            return Err(Reject::AlreadyKnown);
        }
        self.account_changed(&submission.sender, account, self.now_ns, removed);
        let sender = self.store.find_sender(&submission.sender);
        self.check_nonce(submission, account, sealed_nonce, sender)?;
        let replaces = sender.and_then(|sender| self.store.find_nonce(sender, submission.fields.nonce));
        self.check_delegation(submission, account, sender, replaces)?;
        match replaces {
            Some(slot) => check_replacement(&self.limits, self.store.submission(slot).fees(), submission.fees())?,
            None => self.check_sender_count(sender)?,
        }
        let cost_wei = self.check_funds(submission, account, sender, replaces)?;
        self.check_extras(submission, replaces)?;
        self.make_room(submission, replaces)?;
        Ok(Plan { cost_wei, replaces })
    }

    fn check_nonce(
        &self,
        submission: &Submission<P>,
        account: &AccountView,
        sealed_nonce: u64,
        sender: Option<u32>,
    ) -> Result<(), Reject> {
        let tx = submission.fields.nonce;
        if tx < account.nonce {
            return Err(match tx < sealed_nonce {
                true => Reject::NonceTooLow { tx, account: account.nonce },
                false => Reject::AlreadyPreconfirmed { tx, account: account.nonce },
            });
        }
        if account.has_code_not_delegation {
            return Err(Reject::SenderHasCode { sender: submission.sender });
        }
        let next = sender.map_or(account.nonce, |sender| self.store.senders[sender as usize].ready_end);
        let gap_limit = self.limits.nonce_gap_max;
        let is_far = tx > next && tx - next > gap_limit;
        // A replacement makes no new gap.
        if is_far && sender.is_none_or(|sender| self.store.find_nonce(sender, tx).is_none()) {
            return Err(Reject::NonceTooHigh { tx, next, gap_limit });
        }
        Ok(())
    }

    /// At most one transaction in flight of an account that is delegated or about to be, as go-ethereum's legacy pool: execution of
    /// anybody's transaction may empty such an account, and then everything pooled of it was a free ride.
    fn check_delegation(
        &self,
        submission: &Submission<P>,
        account: &AccountView,
        sender: Option<u32>,
        replaces: Option<u32>,
    ) -> Result<(), Reject> {
        let is_delegated = account.is_delegated || self.store.reserved_count(&submission.sender) > 0;
        if is_delegated && replaces.is_none() {
            if let Some(sender) = sender {
                return Err(Reject::DelegatedInFlight { pooled: self.store.senders[sender as usize].list.len });
            }
            if submission.fields.nonce != account.nonce {
                return Err(Reject::DelegatedGap { tx: submission.fields.nonce, account: account.nonce });
            }
        }
        for authority in submission.authorities.iter().flatten() {
            let pooled =
                self.store.find_sender(authority).map_or(0, |index| self.store.senders[index as usize].list.len);
            if pooled > 1 {
                return Err(Reject::AuthorityReserved { authority: *authority, pooled });
            }
        }
        Ok(())
    }

    fn check_sender_count(&self, sender: Option<u32>) -> Result<(), Reject> {
        let pooled = sender.map_or(0, |sender| self.store.senders[sender as usize].list.len);
        let limit = self.limits.per_sender_max;
        if pooled >= limit {
            return Err(Reject::SenderFull { pooled, limit });
        }
        Ok(())
    }

    fn check_funds(
        &self,
        submission: &Submission<P>,
        account: &AccountView,
        sender: Option<u32>,
        replaces: Option<u32>,
    ) -> Result<U256, Reject> {
        let balance_wei = account.balance_wei;
        let pooled_wei = sender.map_or(U256::ZERO, |sender| self.store.senders[sender as usize].cost_wei);
        let replaced_wei = replaces.map_or(U256::ZERO, |slot| self.store.entries[slot as usize].cost_wei);
        let cost_wei = submission.fields.cost_max_wei();
        // The replaced cost is part of the sum, so this cannot go below zero.
        let total_wei = cost_wei.and_then(|cost_wei| (pooled_wei - replaced_wei).checked_add(cost_wei));
        match (cost_wei, total_wei) {
            (Some(cost_wei), Some(total_wei)) if total_wei <= balance_wei => Ok(cost_wei),
            (_, total_wei) => Err(Reject::InsufficientFunds { cost_wei: total_wei.unwrap_or(U256::MAX), balance_wei }),
        }
    }

    fn check_extras(&self, submission: &Submission<P>, replaces: Option<u32>) -> Result<(), Reject> {
        let replaced = replaces.map(|slot| self.store.submission(slot));
        let authority_count =
            |submission: &Submission<P>| submission.authorities.as_ref().map_or(0, |list| list.len() as u64);
        let limit = self.limits.authorities_max;
        let pooled = self.store.authority_count();
        let after = u64::from(pooled) - replaced.map_or(0, authority_count) + authority_count(submission);
        if after > u64::from(limit) {
            return Err(Reject::AuthoritiesFull { pooled, limit });
        }
        let limit = self.limits.conditionals_max;
        let pooled = self.store.conditional_count;
        let replaced_count = u32::from(replaced.is_some_and(|replaced| replaced.conditions.is_some()));
        if pooled - replaced_count + u32::from(submission.conditions.is_some()) > limit {
            return Err(Reject::ConditionalsFull { pooled, limit });
        }
        Ok(())
    }

    /// Chooses into `victims` what must go for `submission`: only what is queued and has a lower tip. The last quarter of the pool is for
    /// those that can pay the base fee: others wait for hours at no cost, and would fill it.
    fn make_room(&mut self, submission: &Submission<P>, replaces: Option<u32>) -> Result<(), Reject> {
        self.victims.clear();
        let charged_bytes = u64::from(submission.charged_bytes());
        let (mut count, mut bytes) = (self.store.len(), self.store.bytes);
        if let Some(slot) = replaces {
            count -= 1;
            bytes -= u64::from(self.store.entries[slot as usize].charged_bytes);
        }
        let tx_wei = submission.fields.max_priority_fee_per_gas_wei;
        let Limits { transactions_max, bytes_max, evictions_per_admission_max, .. } = self.limits;
        let (tx_cap_wei, base_fee_wei) = (submission.fields.max_fee_per_gas_wei, self.ready.base_fee_wei());
        let is_crowded =
            u64::from(count) * 4 >= u64::from(transactions_max) * 3 || (bytes + charged_bytes) * 4 > bytes_max * 3;
        if replaces.is_none() && is_crowded && tx_cap_wei < base_fee_wei {
            return Err(Reject::UnpayableWhileCrowded { tx_wei: tx_cap_wei, base_fee_wei });
        }
        while count >= transactions_max || bytes + charged_bytes > bytes_max {
            let full = match count >= transactions_max {
                true => Reject::PoolFull { pooled: count, limit: transactions_max },
                false => Reject::BytesFull { pooled: bytes, limit: bytes_max },
            };
            let refusal = match self.evictable.top() {
                // A replacement keeps its place but brings no one else's eviction about.
                _ if replaces.is_some() => full,
                Some(_) if self.victims.len() >= evictions_per_admission_max as usize => full,
                None => full,
                Some(Node { key, .. }) if !key >= tx_wei => Reject::TipBelowEvictable { tx_wei, evictable_wei: !key },
                Some(&Node { slot, .. }) => {
                    self.evictable.remove(&mut self.positions, slot);
                    self.victims.push(slot);
                    count -= 1;
                    bytes -= u64::from(self.store.entries[slot as usize].charged_bytes);
                    continue;
                }
            };
            self.restore_victims();
            return Err(refusal);
        }
        self.restore_victims();
        Ok(())
    }

    /// Puts what `make_room` took out of the eviction heap back, where everything queued has to be until it ends.
    fn restore_victims(&mut self) {
        for slot in &self.victims {
            let node =
                eviction_node(self.store.submission(*slot).fees(), self.store.entries[*slot as usize].arrival, *slot);
            self.evictable.push(&mut self.positions, node);
        }
    }
}
