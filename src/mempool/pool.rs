//! The pool itself: readiness, order, replacement, eviction and expiry over the [`Store`].

use alloy_primitives::{Address, B256, U256};

use super::admission::{Bounds, Limits};
use super::conditional::Conditions;
use super::ending::{EndState, Invalid, Reject, Removed};
use super::heap::{Heap, Node};
use super::list::{List, NONE};
use super::ordering::{Fees, OrderingPolicy, ReadyQueue};
use super::store::{Place, Store};
use crate::primitives::TxFields;
use checks::Plan;
pub use restore::RestoreError;

mod checks;
mod restore;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
pub(super) mod tests;

/// Names a pooled transaction until it ends; never reused for another one (within 2^32 reuses of its slot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TxId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// A transaction on its way into the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission<P> {
    pub hash: B256,
    pub sender: Address,
    pub fields: TxFields,
    pub encoded_bytes: u32,
    pub intrinsic_gas: u64,
    pub floor_gas: u64,
    /// Recovered EIP-7702 authorities, those that did not recover left out.
    pub authorities: Option<Box<[Address]>>,
    pub conditions: Option<Box<Conditions>>,
    /// The caller's; handed back when the transaction ends.
    pub payload: P,
}

impl<P> Submission<P> {
    #[must_use]
    pub fn fees(&self) -> Fees {
        Fees {
            max_fee_per_gas_wei: self.fields.max_fee_per_gas_wei,
            max_priority_fee_per_gas_wei: self.fields.max_priority_fee_per_gas_wei,
        }
    }

    /// What it counts against `Limits::bytes_max`.
    pub(super) fn charged_bytes(&self) -> u32 {
        let authority_bytes = self.authorities.as_ref().map_or(0, |list| list.len() * size_of::<Address>());
        let condition_bytes = self.conditions.as_ref().map_or(0, |conditions| conditions.memory_bytes());
        // Authorities are at most a few hundred and conditions are bounded, both far below 2^31 bytes.
        self.encoded_bytes.saturating_add((authority_bytes + condition_bytes) as u32)
    }
}

/// What the open block's state says of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountView {
    pub balance_wei: U256,
    pub nonce: u64,
    /// EIP-3607: such an account sends nothing.
    pub has_code_not_delegation: bool,
    /// EIP-7702 delegation designator.
    pub is_delegated: bool,
}

/// Whether a transaction could be placed after those of its sender before it, or waits for a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    Queued,
}

/// A transaction that is in the pool now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    pub id: TxId,
    pub readiness: Readiness,
    /// The sink got the transaction of the same nonce.
    pub replaced: bool,
    /// How many transactions of lower tip the sink got.
    pub evicted_count: u32,
}

/// What goes next.
#[derive(Debug)]
pub struct Best<'a, P> {
    pub id: TxId,
    pub submission: &'a Submission<P>,
    /// Per gas, at the current base fee.
    pub tip_wei: u128,
}

/// A pooled transaction as queries see it.
#[derive(Debug)]
pub struct Pooled<'a, P> {
    pub id: TxId,
    pub submission: &'a Submission<P>,
    pub readiness: Readiness,
}

/// Why a sender's first transaction is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deferral {
    /// Its conditions are not met yet.
    Condition,
    /// It does not fit into what is left of the open block.
    NextBlock,
}

/// How much is pooled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// `pending` of `txpool_status`.
    pub ready: u32,
    /// `queued` of `txpool_status`.
    pub queued: u32,
    pub senders: u32,
    /// Part of `ready`.
    pub deferred: u32,
    pub conditional: u32,
    pub bytes: u64,
}

/// The pool. See the module's documentation.
pub struct Mempool<P> {
    limits: Limits,
    store: Store<P>,
    ready: ReadyQueue,
    /// Queued transactions, lowest tip and latest arrival on top.
    evictable: Heap,
    /// Heap position of each slot; it is in at most one heap.
    positions: Vec<u32>,
    /// In the order of entering, which is the order of expiring: each list has one lifetime.
    ready_ages: List,
    queued_ages: List,
    deferred: [List; 2],
    victims: Vec<u32>,
    arrival_next: u64,
    now_ns: u64,
}

impl<P> Mempool<P> {
    /// Makes an empty pool. `seed` should be unpredictable: it protects the tables against chosen keys.
    #[must_use]
    pub fn new(limits: Limits, policy: Box<dyn OrderingPolicy>, base_fee_wei: u128, seed: u64) -> Self {
        let slots = limits.transactions_max as usize;
        assert!(limits.transactions_max < NONE, "one slot number means none");
        Self {
            store: Store::new(&limits, seed),
            ready: ReadyQueue::new(policy, limits.transactions_max, base_fee_wei),
            evictable: Heap::with_capacity(limits.transactions_max),
            positions: vec![0; slots],
            ready_ages: List::EMPTY,
            queued_ages: List::EMPTY,
            deferred: [List::EMPTY; 2],
            victims: Vec::with_capacity(limits.evictions_per_admission_max as usize),
            arrival_next: 0,
            now_ns: 0,
            limits,
        }
    }

    /// Checks a transaction and takes it in, or refuses it.
    ///
    /// `account` is the sender's, `sealed_nonce` its nonce after the last sealed block. A fee cap below the base fee is not refused:
    /// the transaction waits until the base fee falls or it expires. Every transaction that ends by this call, a refused one
    /// included, is in `removed`. Also does what `account_changed` does for the sender.
    ///
    /// Runs on: builder core. Allocates only when `removed` must grow.
    pub fn admit(
        &mut self,
        submission: Submission<P>,
        account: &AccountView,
        sealed_nonce: u64,
        now_ns: u64,
        removed: &mut Vec<Removed<P>>,
    ) -> Result<Admission, Reject> {
        self.advance(now_ns);
        match self.plan(&submission, account, sealed_nonce, removed) {
            Ok(plan) => Ok(self.insert(submission, account, &plan, removed)),
            Err(reject) => {
                removed.push(Removed { id: None, submission, end: EndState::Rejected(reject) });
                Err(reject)
            }
        }
    }

    /// The transaction that the policy puts first, of those that can pay the base fee and are not set aside.
    #[must_use]
    pub fn best(&self) -> Option<Best<'_, P>> {
        let slot = self.ready.best()?;
        let submission = self.store.submission(slot);
        let tip_wei = submission.fields.effective_tip_wei(self.ready.base_fee_wei()).unwrap_or(0);
        Some(Best { id: self.store.id(slot), submission, tip_wei })
    }

    /// Ends the transaction as included in the open block; its sender's next nonce becomes eligible.
    ///
    /// The sender's balance is taken to have fallen by the most that it could; call `account_changed` afterwards where the real
    /// balance or nonce matters sooner than at the sender's next admission.
    ///
    /// Panics: when `id` is not pooled or not its sender's first.
    pub fn placed(&mut self, id: TxId, removed: &mut Vec<Removed<P>>) {
        let slot = self
            .store
            .slot(id)
            .expect("the builder places what `best` returned, before anything else changes the pool");
        let entry = &self.store.entries[slot as usize];
        let (sender, nonce, cost_wei) = (entry.sender, entry.nonce, entry.cost_wei);
        assert_eq!(nonce, self.store.senders[sender as usize].account.nonce, "placed out of nonce order");
        self.end(slot, EndState::Placed, removed);
        let account = &mut self.store.senders[sender as usize].account;
        account.nonce = nonce + 1;
        account.balance_wei = account.balance_wei.saturating_sub(cost_wei);
        self.offer_first(sender);
        self.store.release_if_empty(sender);
    }

    /// Ends the transaction as unplaceable. Its sender's later ones wait for the nonce again.
    ///
    /// Panics: when `id` is not pooled.
    pub fn invalid(&mut self, id: TxId, reason: Invalid, now_ns: u64, removed: &mut Vec<Removed<P>>) {
        self.advance(now_ns);
        let slot = self
            .store
            .slot(id)
            .expect("the builder judges what `best` returned, before anything else changes the pool");
        self.end_and_demote(slot, EndState::Invalidated(reason), removed);
    }

    /// Sets a sender's first transaction aside until `retry_deferred`.
    ///
    /// Panics: when `best` did not return `id` since the last change.
    pub fn defer(&mut self, id: TxId, deferral: Deferral) {
        let slot = self
            .store
            .slot(id)
            .expect("the builder defers what `best` returned, before anything else changes the pool");
        assert_eq!(self.store.entries[slot as usize].place, Place::Offered, "only what is offered is set aside");
        self.ready.remove(&mut self.positions, slot);
        self.store.entries[slot as usize].place = Place::Deferred(deferral);
        self.deferred[deferral as usize].push_back(&mut self.store.entries, |entry| &mut entry.deferral_link, slot);
    }

    /// Offers again, longest waiting first, at most `count_max` of what was set aside; returns how many.
    pub fn retry_deferred(&mut self, deferral: Deferral, count_max: u32) -> u32 {
        let count = count_max.min(self.deferred[deferral as usize].len);
        for _ in 0..count {
            let slot = self.deferred[deferral as usize].head;
            self.deferred[deferral as usize].remove(&mut self.store.entries, |entry| &mut entry.deferral_link, slot);
            self.offer(slot);
        }
        count
    }

    /// Takes over an account's new state. Costs one look-up where nothing of the account is pooled.
    ///
    /// Ends what became stale (nonce), impossible (code), or unaffordable: then the highest nonces go first.
    pub fn account_changed(
        &mut self,
        address: &Address,
        account: &AccountView,
        now_ns: u64,
        removed: &mut Vec<Removed<P>>,
    ) {
        self.advance(now_ns);
        if let Some(sender) = self.store.find_sender(address) {
            self.refresh(sender, account, removed);
            self.store.release_if_empty(sender);
        }
    }

    /// Orders by a new base fee. Usually constant; linear in the senders with something ready when a fee cap starts or stops to bind.
    pub fn set_base_fee(&mut self, base_fee_wei: u128) {
        self.ready.set_base_fee(&mut self.positions, base_fee_wei);
    }

    /// Ends the transaction because the operator does not want it. Its sender's later ones wait for the nonce.
    ///
    /// Panics: when `id` is not pooled.
    pub fn drop_by_operator(&mut self, id: TxId, now_ns: u64, removed: &mut Vec<Removed<P>>) {
        self.advance(now_ns);
        let slot = self.store.slot(id).expect("the builder drops what it has just found here");
        self.end_and_demote(slot, EndState::DroppedByOperator, removed);
    }

    /// For newcomers from now on; what is pooled above the bounds stays. Never above what memory was taken for.
    pub fn set_bounds(&mut self, bounds: Bounds) {
        // Every entry has a slot.
        self.limits.transactions_max = bounds.transactions_max.min(self.positions.len() as u32);
        self.limits.bytes_max = bounds.bytes_max;
        self.limits.per_sender_max = bounds.per_sender_max;
    }

    /// For transactions admitted from now on; those pooled are the builder's to judge.
    pub fn set_block_gas_limit(&mut self, block_gas_limit: u64) {
        self.limits.block_gas_limit = block_gas_limit;
    }

    /// Ends at most `count_max` transactions whose lifetime is over; returns how many.
    pub fn expire(&mut self, now_ns: u64, count_max: u32, removed: &mut Vec<Removed<P>>) -> u32 {
        self.advance(now_ns);
        let mut count = 0;
        while count < count_max && self.expire_one(removed) {
            count += 1;
        }
        count
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    #[must_use]
    pub fn ordering_name(&self) -> &'static str {
        self.ready.policy_name()
    }

    #[must_use]
    pub fn base_fee_wei(&self) -> u128 {
        self.ready.base_fee_wei()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            ready: self.ready_ages.len,
            queued: self.queued_ages.len,
            senders: self.store.sender_count(),
            deferred: self.deferred.iter().map(|list| list.len).sum(),
            conditional: self.store.conditional_count,
            bytes: self.store.bytes,
        }
    }

    /// The account's next nonce after everything ready; `None` when nothing of it is pooled.
    #[must_use]
    pub fn pending_nonce(&self, address: &Address) -> Option<u64> {
        self.store.find_sender(address).map(|sender| self.store.senders[sender as usize].ready_end)
    }

    #[must_use]
    pub fn contains(&self, hash: &B256) -> bool {
        self.store.find_hash(hash).is_some()
    }

    #[must_use]
    pub fn get(&self, hash: &B256) -> Option<Pooled<'_, P>> {
        self.store.find_hash(hash).map(|slot| self.pooled(slot))
    }

    /// The caller's part of a pooled transaction; the pool itself never looks at it.
    pub fn payload_mut(&mut self, hash: &B256) -> Option<&mut P> {
        let slot = self.store.find_hash(hash)?;
        Some(&mut self.store.submission_mut(slot).payload)
    }

    #[must_use]
    pub fn get_by_id(&self, id: TxId) -> Option<Pooled<'_, P>> {
        self.store.slot(id).map(|slot| self.pooled(slot))
    }

    /// Everything pooled, in no useful order.
    pub fn iter(&self) -> impl Iterator<Item = Pooled<'_, P>> + '_ {
        self.store.slots().map(|slot| self.pooled(slot))
    }

    /// Everything pooled of one account, by nonce.
    pub fn iter_sender(&self, address: &Address) -> impl Iterator<Item = Pooled<'_, P>> + '_ {
        let head = self.store.find_sender(address).map(|sender| self.store.senders[sender as usize].list.head);
        std::iter::successors(head, |slot| self.store.next_of_sender(*slot)).map(|slot| self.pooled(slot))
    }

    fn pooled(&self, slot: u32) -> Pooled<'_, P> {
        let readiness = match self.store.entries[slot as usize].place {
            Place::Queued => Readiness::Queued,
            _ => Readiness::Ready,
        };
        Pooled { id: self.store.id(slot), submission: self.store.submission(slot), readiness }
    }

    /// Expiry lists are in time order, so time never goes back here.
    fn advance(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
    }

    fn insert(
        &mut self,
        submission: Submission<P>,
        account: &AccountView,
        plan: &Plan,
        removed: &mut Vec<Removed<P>>,
    ) -> Admission {
        let tip_wei = submission.fields.max_priority_fee_per_gas_wei;
        let evicted_count = self.evict_victims(tip_wei, removed);
        let previous = plan.replaces.map(|slot| self.store.previous_of_sender(slot));
        if let Some(slot) = plan.replaces {
            self.end(slot, EndState::Replaced { by: submission.hash }, removed);
        }
        let arrival = self.arrival_next;
        self.arrival_next += 1;
        let nonce = submission.fields.nonce;
        let slot = self.store.insert(submission, account, arrival, plan.cost_wei, previous);
        let sender = self.store.entries[slot as usize].sender;
        let ready_end = self.store.senders[sender as usize].ready_end;
        let readiness = match nonce <= ready_end {
            true => Readiness::Ready,
            false => Readiness::Queued,
        };
        match readiness {
            Readiness::Ready if nonce < ready_end => self.make_ready(slot),
            Readiness::Ready => self.extend_ready(sender),
            Readiness::Queued => self.make_queued(slot),
        }
        Admission { id: self.store.id(slot), readiness, replaced: plan.replaces.is_some(), evicted_count }
    }

    fn evict_victims(&mut self, newcomer_tip_wei: u128, removed: &mut Vec<Removed<P>>) -> u32 {
        for index in 0..self.victims.len() {
            let slot = self.victims[index];
            let tip_wei = self.store.submission(slot).fields.max_priority_fee_per_gas_wei;
            self.end_and_demote(slot, EndState::Evicted { tip_wei, newcomer_tip_wei }, removed);
        }
        self.victims.len() as u32 // At most `evictions_per_admission_max`.
    }

    /// Takes over a sender's new account state. May leave it without transactions.
    fn refresh(&mut self, sender: u32, account: &AccountView, removed: &mut Vec<Removed<P>>) {
        let entry = &mut self.store.senders[sender as usize];
        let nonce_before = std::mem::replace(&mut entry.account, *account).nonce;
        if account.nonce < nonce_before {
            // Blocks were taken back: everything waits for the nonces in between.
            self.demote_from(sender, nonce_before);
            self.store.senders[sender as usize].ready_end = account.nonce;
        }
        while let Some(slot) =
            self.first(sender).filter(|slot| self.store.entries[*slot as usize].nonce < account.nonce)
        {
            let tx = self.store.entries[slot as usize].nonce;
            self.end(slot, EndState::Invalidated(Invalid::NonceTooLow { tx, account: account.nonce }), removed);
        }
        if account.has_code_not_delegation {
            let address = self.store.senders[sender as usize].address;
            self.end_from_tail(sender, removed, |_| Some(Invalid::SenderHasCode { sender: address }));
        }
        let balance_wei = account.balance_wei;
        self.end_from_tail(sender, removed, |cost_wei| {
            (cost_wei > balance_wei).then_some(Invalid::InsufficientFunds { cost_wei, balance_wei })
        });
        let entry = &mut self.store.senders[sender as usize];
        entry.ready_end = entry.ready_end.max(account.nonce);
        if account.nonce > nonce_before {
            self.offer_first(sender);
        }
        if account.nonce != nonce_before {
            self.extend_ready(sender);
        }
    }

    /// Ends a sender's transactions from the highest nonce down while `reason` of their summed cost gives one.
    fn end_from_tail(&mut self, sender: u32, removed: &mut Vec<Removed<P>>, reason: impl Fn(U256) -> Option<Invalid>) {
        loop {
            let entry = &self.store.senders[sender as usize];
            let (slot, ready_end) = (entry.list.tail, entry.ready_end);
            let Some(reason) = reason(entry.cost_wei).filter(|_| slot != NONE) else { return };
            let nonce = self.store.entries[slot as usize].nonce;
            self.end(slot, EndState::Invalidated(reason), removed);
            self.store.senders[sender as usize].ready_end = ready_end.min(nonce);
        }
    }

    fn expire_one(&mut self, removed: &mut Vec<Removed<P>>) -> bool {
        let lists = [
            (self.queued_ages.head, self.limits.gap_lifetime_ns, Readiness::Queued),
            (self.ready_ages.head, self.limits.ready_lifetime_ns, Readiness::Ready),
        ];
        for (slot, lifetime_ns, readiness) in lists {
            if slot == NONE {
                continue;
            }
            let waited_ns = self.now_ns - self.store.entries[slot as usize].since_ns;
            if waited_ns >= lifetime_ns {
                self.end_and_demote(slot, EndState::Expired { readiness, waited_ns }, removed);
                return true;
            }
        }
        false
    }

    /// Ends a transaction; what is behind it waits for its nonce.
    fn end_and_demote(&mut self, slot: u32, end: EndState, removed: &mut Vec<Removed<P>>) {
        let entry = &self.store.entries[slot as usize];
        let (sender, nonce) = (entry.sender, entry.nonce);
        if nonce < self.store.senders[sender as usize].ready_end {
            self.demote_from(sender, nonce + 1);
            self.store.senders[sender as usize].ready_end = nonce;
        }
        self.end(slot, end, removed);
        self.store.release_if_empty(sender);
    }

    /// Takes a transaction out of everything, its sender's `ready_end` and followers apart, and hands it to the sink.
    fn end(&mut self, slot: u32, end: EndState, removed: &mut Vec<Removed<P>>) {
        self.detach(slot);
        let id = self.store.id(slot);
        let submission = self.store.remove(slot);
        removed.push(Removed { id: Some(id), submission, end });
    }

    fn first(&self, sender: u32) -> Option<u32> {
        let head = self.store.senders[sender as usize].list.head;
        (head != NONE).then_some(head)
    }

    /// Offers the sender's first transaction if it is ready and nobody did.
    fn offer_first(&mut self, sender: u32) {
        if let Some(slot) =
            self.first(sender).filter(|slot| self.store.entries[*slot as usize].place == Place::Follower)
        {
            self.offer(slot);
        }
    }

    fn offer(&mut self, slot: u32) {
        let entry = &mut self.store.entries[slot as usize];
        entry.place = Place::Offered;
        let arrival = entry.arrival;
        self.ready.push(&mut self.positions, slot, arrival, self.store.submission(slot).fees());
    }

    /// Makes everything ready that follows the sender's ready run without a gap.
    fn extend_ready(&mut self, sender: u32) {
        while let Some(slot) = self.store.find_nonce(sender, self.store.senders[sender as usize].ready_end) {
            if self.store.entries[slot as usize].place == Place::Queued {
                self.detach(slot);
            }
            self.store.senders[sender as usize].ready_end += 1;
            self.make_ready(slot);
        }
    }

    fn make_ready(&mut self, slot: u32) {
        self.ready_ages.push_back(&mut self.store.entries, |entry| &mut entry.age_link, slot);
        let entry = &mut self.store.entries[slot as usize];
        entry.place = Place::Follower;
        entry.since_ns = self.now_ns;
        if entry.nonce == self.store.senders[entry.sender as usize].account.nonce {
            self.offer(slot);
        }
    }

    fn make_queued(&mut self, slot: u32) {
        self.queued_ages.push_back(&mut self.store.entries, |entry| &mut entry.age_link, slot);
        let entry = &mut self.store.entries[slot as usize];
        entry.place = Place::Queued;
        entry.since_ns = self.now_ns;
        let node = eviction_node(self.store.submission(slot).fees(), self.store.entries[slot as usize].arrival, slot);
        self.evictable.push(&mut self.positions, node);
    }

    /// Takes a transaction out of order and expiry, whatever its place.
    fn detach(&mut self, slot: u32) {
        match self.store.entries[slot as usize].place {
            Place::Queued => {
                self.evictable.remove(&mut self.positions, slot);
                self.queued_ages.remove(&mut self.store.entries, |entry| &mut entry.age_link, slot);
                return;
            }
            Place::Offered => self.ready.remove(&mut self.positions, slot),
            Place::Deferred(deferral) => {
                self.deferred[deferral as usize].remove(&mut self.store.entries, |entry| &mut entry.deferral_link, slot)
            }
            Place::Follower => {}
            Place::Free => unreachable!("a slot from the indexes or lists is pooled"),
        }
        self.ready_ages.remove(&mut self.store.entries, |entry| &mut entry.age_link, slot);
    }

    /// Makes the sender's ready transactions from `nonce` on wait, and ends its ready run there.
    fn demote_from(&mut self, sender: u32, nonce: u64) {
        let ready_end = self.store.senders[sender as usize].ready_end;
        let mut next = if nonce < ready_end { self.store.find_nonce(sender, nonce) } else { None };
        while let Some(slot) = next.filter(|slot| self.store.entries[*slot as usize].nonce < ready_end) {
            self.detach(slot);
            self.make_queued(slot);
            next = self.store.next_of_sender(slot);
        }
        self.store.senders[sender as usize].ready_end = ready_end.min(nonce);
    }
}

/// Lowest tip first, then latest arrival.
fn eviction_node(fees: Fees, arrival: u64, slot: u32) -> Node {
    Node { key: !fees.max_priority_fee_per_gas_wei, limit: 0, arrival: !arrival, slot }
}
