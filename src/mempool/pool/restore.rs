//! Putting back what the journal says was pooled. Admission is not asked again: it said yes once, and the sender was told.

use alloy_primitives::{Address, B256, U256};
use thiserror::Error;

use super::{AccountView, Admission, Mempool, Readiness, Submission};
use crate::mempool::list::NONE;

/// Why a pool cannot hold what the journal holds. Fields carry the compared values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    #[error("the journal holds more than mempool.transactions-max: {needed} transactions, limit {limit}")]
    TransactionsFull { needed: u64, limit: u32 },
    #[error("the journal holds more than mempool.bytes-max: {needed} bytes, limit {limit}")]
    BytesFull { needed: u64, limit: u64 },
    #[error("the journal holds more pooled authorizations than the pool has room for: {needed}, limit {limit}")]
    AuthoritiesFull { needed: u64, limit: u32 },
    #[error("the journal holds two transactions of {sender} with nonce {nonce}: {first} and {second}")]
    SameNonce { sender: Address, nonce: u64, first: B256, second: B256 },
    #[error("the journal holds transaction {hash} twice")]
    SameHash { hash: B256 },
}

impl<P> Mempool<P> {
    /// Takes in a transaction that was pooled when the process ended, without the checks of admission.
    ///
    /// `account` is the sender's, and the same one in every call for that sender. `entered_ns`, on the clock of `now_ns`, is when its
    /// lifetime began; an earlier one than that of the call before counts as that one. To be called for everything live in the order of arrival,
    /// before anything else; then `account_changed` for each sender ends what its account cannot do any more: a nonce that is over,
    /// or a cost above the balance. Conditions of all are pooled whatever the limit.
    ///
    /// # Errors
    /// The pool is smaller than the one that the transactions come from, or two of them exclude each other. The pool is as before.
    pub fn restore(
        &mut self,
        submission: Submission<P>,
        account: &AccountView,
        entered_ns: u64,
    ) -> Result<Admission, RestoreError> {
        self.check_room(&submission)?;
        let nonce = submission.fields.nonce;
        let sender = self.store.find_sender(&submission.sender);
        if let Some(slot) = sender.and_then(|sender| self.store.find_nonce(sender, nonce)) {
            return Err(RestoreError::SameNonce {
                sender: submission.sender,
                nonce,
                first: self.store.submission(slot).hash,
                second: submission.hash,
            });
        }
        self.advance(entered_ns);
        // The sum over the sender ends at the largest number, above every balance: then `account_changed` ends the highest nonces.
        let pooled_wei = sender.map_or(U256::ZERO, |sender| self.store.senders[sender as usize].cost_wei);
        let cost_wei = submission.fields.cost_max_wei().unwrap_or(U256::MAX).min(U256::MAX - pooled_wei);
        let previous = sender.map_or(NONE, |sender| self.slot_below(sender, nonce));
        let arrival = self.arrival_next;
        self.arrival_next += 1;
        let slot = self.store.insert(submission, account, arrival, cost_wei, Some(previous));
        let sender = self.store.entries[slot as usize].sender;
        // A nonce below the account's waits like one behind a gap: it cannot be placed.
        let readiness = match nonce == self.store.senders[sender as usize].ready_end {
            true => Readiness::Ready,
            false => Readiness::Queued,
        };
        match readiness {
            Readiness::Ready => self.extend_ready(sender),
            Readiness::Queued => self.make_queued(slot),
        }
        Ok(Admission { id: self.store.id(slot), readiness, replaced: false, evicted_count: 0 })
    }

    fn check_room(&self, submission: &Submission<P>) -> Result<(), RestoreError> {
        if self.store.find_hash(&submission.hash).is_some() {
            return Err(RestoreError::SameHash { hash: submission.hash });
        }
        let (needed, limit) = (u64::from(self.store.len()) + 1, self.limits.transactions_max);
        if needed > u64::from(limit) {
            return Err(RestoreError::TransactionsFull { needed, limit });
        }
        let (needed, limit) = (self.store.bytes + u64::from(submission.charged_bytes()), self.limits.bytes_max);
        if needed > limit {
            return Err(RestoreError::BytesFull { needed, limit });
        }
        let authority_count = submission.authorities.as_ref().map_or(0, |list| list.len() as u64);
        let (needed, limit) = (u64::from(self.store.authority_count()) + authority_count, self.limits.authorities_max);
        if needed > u64::from(limit) {
            return Err(RestoreError::AuthoritiesFull { needed, limit });
        }
        Ok(())
    }

    /// The sender's transaction with the highest nonce below `nonce`, or `NONE`. Unlike in admission the nonce may be below the
    /// account's, and a gap of any width.
    fn slot_below(&self, sender: u32, nonce: u64) -> u32 {
        if let Some(slot) = nonce.checked_sub(1).and_then(|below| self.store.find_nonce(sender, below)) {
            return slot;
        }
        let mut slot = self.store.senders[sender as usize].list.tail;
        while slot != NONE && self.store.entries[slot as usize].nonce > nonce {
            slot = self.store.previous_of_sender(slot);
        }
        slot
    }
}
