//! The pool itself: readiness, order, replacement, eviction and expiry over the [`Store`].

use alloy_primitives::{Address, B256, U256};

use super::admission::{Limits, check_fields, check_replacement};
use super::conditional::Conditions;
use super::ending::{EndState, Invalid, Reject, Removed};
use super::heap::{Heap, Node};
use super::list::{Link, List, NONE};
use super::ordering::{Fees, OrderingPolicy, ReadyQueue};
use super::store::{Place, Store};
use crate::primitives::TxFields;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

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
    age_links: Vec<Link>,
    deferred: [List; 2],
    deferral_links: Vec<Link>,
    victims: Vec<u32>,
    arrival_next: u64,
    now_ns: u64,
}

/// What the checks found out and the insertion needs.
struct Plan {
    cost_wei: U256,
    replaces: Option<u32>,
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
            age_links: vec![Link::UNLINKED; slots],
            deferred: [List::EMPTY; 2],
            deferral_links: vec![Link::UNLINKED; slots],
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
        self.deferred[deferral as usize].push_back(&mut self.deferral_links, slot);
    }

    /// Offers again, longest waiting first, at most `count_max` of what was set aside; returns how many.
    pub fn retry_deferred(&mut self, deferral: Deferral, count_max: u32) -> u32 {
        let count = count_max.min(self.deferred[deferral as usize].len);
        for _ in 0..count {
            let slot = self.deferred[deferral as usize].head;
            self.deferred[deferral as usize].remove(&mut self.deferral_links, slot);
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

    fn plan(
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

    /// Chooses into `victims` what must go for `submission`: only what is queued and has a lower tip.
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

    fn insert(
        &mut self,
        submission: Submission<P>,
        account: &AccountView,
        plan: &Plan,
        removed: &mut Vec<Removed<P>>,
    ) -> Admission {
        let tip_wei = submission.fields.max_priority_fee_per_gas_wei;
        let evicted_count = self.evict_victims(tip_wei, removed);
        if let Some(slot) = plan.replaces {
            self.end(slot, EndState::Replaced { by: submission.hash }, removed);
        }
        let arrival = self.arrival_next;
        self.arrival_next += 1;
        let nonce = submission.fields.nonce;
        let slot = self.store.insert(submission, account, arrival, plan.cost_wei);
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

    /// Puts what `make_room` took out of the eviction heap back, where everything queued has to be until it ends.
    fn restore_victims(&mut self) {
        for slot in &self.victims {
            let node =
                eviction_node(self.store.submission(*slot).fees(), self.store.entries[*slot as usize].arrival, *slot);
            self.evictable.push(&mut self.positions, node);
        }
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
        self.ready_ages.push_back(&mut self.age_links, slot);
        let entry = &mut self.store.entries[slot as usize];
        entry.place = Place::Follower;
        entry.since_ns = self.now_ns;
        if entry.nonce == self.store.senders[entry.sender as usize].account.nonce {
            self.offer(slot);
        }
    }

    fn make_queued(&mut self, slot: u32) {
        self.queued_ages.push_back(&mut self.age_links, slot);
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
                self.queued_ages.remove(&mut self.age_links, slot);
                return;
            }
            Place::Offered => self.ready.remove(&mut self.positions, slot),
            Place::Deferred(deferral) => self.deferred[deferral as usize].remove(&mut self.deferral_links, slot),
            Place::Follower => {}
            Place::Free => unreachable!("a slot from the indexes or lists is pooled"),
        }
        self.ready_ages.remove(&mut self.age_links, slot);
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
    Node { key: !fees.max_priority_fee_per_gas_wei, arrival: !arrival, slot }
}
