//! The pool against a naive list: every question is answered by looking through everything.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256, U256};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::tests::{address, submission};
use super::*;
use crate::mempool::{Arrival, PriorityFee};

pub(super) const SENDERS: u8 = 6;
/// Gas of every transaction here.
const GAS: u64 = 21_000;

pub(super) fn limits() -> Limits {
    Limits {
        transactions_max: 10,
        fee_cap_wei_min: 0,
        bytes_max: 2_000,
        per_sender_max: 5,
        nonce_gap_max: 4,
        gap_lifetime_ns: 50,
        ready_lifetime_ns: 120,
        authorities_max: 2,
        conditionals_max: 1,
        evictions_per_admission_max: 2,
        ..Limits::new(1, 30_000_000)
    }
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Admit {
        sender: u8,
        nonce_offset: i8,
        fee: u8,
        tip: u8,
        value: u16,
        bytes: u16,
        authority: Option<u8>,
        conditional: bool,
    },
    Place {
        cost_percent: u8,
    },
    Invalidate,
    Defer(bool),
    Retry(bool, u32),
    BaseFee(u8),
    Account {
        sender: u8,
        nonce_offset: i8,
        balance: u16,
        delegated: bool,
        code: bool,
    },
    Expire {
        after_ns: u64,
        count_max: u32,
    },
}

pub(super) fn steps() -> impl Strategy<Value = Step> {
    let sender = 0..SENDERS;
    let admit = (sender.clone(), -2..7_i8, 0..30_u8, 0..30_u8, 0..300_u16, 50..400_u16, 0..20_u8, 0..8_u8).prop_map(
        |(sender, nonce_offset, fee, tip, value, bytes, authority, conditional)| Step::Admit {
            sender,
            nonce_offset,
            fee,
            // Mostly valid: at most one above the fee cap.
            tip: tip % (fee + 2),
            value,
            bytes,
            authority: (authority < SENDERS).then_some(authority),
            conditional: conditional == 0,
        },
    );
    let next = (sender.clone(), 0..2_i8, 0..30_u8, 0..30_u8).prop_map(|(sender, nonce_offset, fee, tip)| Step::Admit {
        sender,
        nonce_offset,
        fee: fee.max(tip),
        tip,
        value: 1,
        bytes: 60,
        authority: None,
        conditional: false,
    });
    let account = (sender, -1..4_i8, 0..2_000_u16, 0..8_u8, 0..40_u8).prop_map(
        |(sender, nonce_offset, balance, delegated, code)| Step::Account {
            sender,
            nonce_offset,
            balance,
            delegated: delegated == 0,
            code: code == 0,
        },
    );
    prop_oneof![
        12 => admit,
        12 => next,
        5 => (0..101_u8).prop_map(|cost_percent| Step::Place { cost_percent }),
        1 => Just(Step::Invalidate),
        2 => any::<bool>().prop_map(Step::Defer),
        2 => (any::<bool>(), 0..3_u32).prop_map(|(kind, count)| Step::Retry(kind, count)),
        3 => (0..30_u8).prop_map(Step::BaseFee),
        3 => account,
        2 => (0..60_u64, 0..4_u32).prop_map(|(after_ns, count_max)| Step::Expire { after_ns, count_max }),
    ]
}

#[derive(Clone, Debug)]
struct ModelTx {
    submission: Submission<u64>,
    arrival: u64,
    readiness: Option<Readiness>,
    since_ns: u64,
    /// Order of entering the expiry list.
    entered: u64,
    /// Deferral and its order.
    deferred: Option<(Deferral, u64)>,
}

impl ModelTx {
    fn nonce(&self) -> u64 {
        self.submission.fields.nonce
    }

    fn cost(&self) -> u128 {
        self.submission.fields.cost_max_wei().unwrap().to()
    }

    fn tip(&self) -> u128 {
        self.submission.fields.max_priority_fee_per_gas_wei
    }

    fn effective_tip(&self, base_fee: u128) -> Option<u128> {
        self.submission.fields.effective_tip_wei(base_fee)
    }
}

struct Model {
    by_arrival_only: bool,
    limits: Limits,
    txs: Vec<ModelTx>,
    /// The open block's state.
    chain: Vec<AccountView>,
    /// What the pool knows of the accounts that have something pooled.
    known: Vec<AccountView>,
    base_fee: u128,
    now_ns: u64,
    counter: u64,
    ended: Vec<(B256, EndState)>,
}

fn bytes_of(tx: &Submission<u64>) -> u64 {
    u64::from(tx.charged_bytes())
}

impl Model {
    fn of(&self, sender: u8) -> Vec<&ModelTx> {
        let mut list: Vec<_> = self.txs.iter().filter(|tx| tx.submission.sender == address(sender)).collect();
        list.sort_by_key(|tx| tx.nonce());
        list
    }

    fn next_nonce(&self, sender: u8) -> u64 {
        let mut nonce = self.known[sender as usize].nonce;
        while self.of(sender).iter().any(|tx| tx.nonce() == nonce) {
            nonce += 1;
        }
        nonce
    }

    fn settle(&mut self) {
        for sender in 0..SENDERS {
            let next = self.next_nonce(sender);
            let mut nonces: Vec<u64> = self.of(sender).iter().map(|tx| tx.nonce()).collect();
            nonces.sort_unstable();
            for nonce in nonces {
                let now_ns = self.now_ns;
                self.counter += 1;
                let entered = self.counter;
                let is_ready = (self.known[sender as usize].nonce..next).contains(&nonce);
                let readiness = if is_ready { Readiness::Ready } else { Readiness::Queued };
                let tx = self
                    .txs
                    .iter_mut()
                    .find(|tx| tx.nonce() == nonce && tx.submission.sender == address(sender))
                    .unwrap();
                if tx.readiness != Some(readiness) {
                    *tx =
                        ModelTx { readiness: Some(readiness), since_ns: now_ns, entered, deferred: None, ..tx.clone() };
                }
            }
        }
    }

    fn end(&mut self, hash: B256, end: EndState) {
        self.txs.retain(|tx| tx.submission.hash != hash);
        self.ended.push((hash, end));
        self.settle();
    }

    fn best(&self) -> Option<&ModelTx> {
        let first = |tx: &&ModelTx| {
            let sender = (0..SENDERS).find(|sender| address(*sender) == tx.submission.sender).unwrap();
            tx.nonce() == self.known[sender as usize].nonce && tx.deferred.is_none()
        };
        let payable = self.txs.iter().filter(first).filter(|tx| tx.effective_tip(self.base_fee).is_some());
        payable.min_by_key(|tx| {
            let tip = if self.by_arrival_only { 0 } else { tx.effective_tip(self.base_fee).unwrap() };
            (std::cmp::Reverse(tip), tx.arrival)
        })
    }

    fn account_changed(&mut self, sender: u8) {
        if self.of(sender).is_empty() {
            return;
        }
        let account = self.chain[sender as usize];
        let stale: Vec<_> = self
            .of(sender)
            .iter()
            .filter(|tx| tx.nonce() < account.nonce)
            .map(|tx| (tx.nonce(), tx.submission.hash))
            .collect();
        for (tx, hash) in stale {
            self.txs.retain(|tx| tx.submission.hash != hash);
            self.ended.push((hash, EndState::Invalidated(Invalid::NonceTooLow { tx, account: account.nonce })));
        }
        while let Some(last) = self.of(sender).last() {
            let hash = last.submission.hash;
            let cost_wei = U256::from(self.of(sender).iter().map(|tx| tx.cost()).sum::<u128>());
            let reason = if account.has_code_not_delegation {
                Invalid::SenderHasCode { sender: address(sender) }
            } else if cost_wei > account.balance_wei {
                Invalid::InsufficientFunds { cost_wei, balance_wei: account.balance_wei }
            } else {
                break;
            };
            self.txs.retain(|tx| tx.submission.hash != hash);
            self.ended.push((hash, EndState::Invalidated(reason)));
        }
        self.known[sender as usize] = account;
        self.settle();
    }

    fn refusal(&self, sender: u8, tx: &Submission<u64>) -> Option<Reject> {
        let (fields, account) = (&tx.fields, self.chain[sender as usize]);
        let (nonce, cap) = (fields.nonce, fields.max_fee_per_gas_wei);
        let tip = fields.max_priority_fee_per_gas_wei;
        if tip > cap {
            return Some(Reject::TipAboveFeeCap { tip_wei: tip, fee_cap_wei: cap });
        }
        if nonce < account.nonce {
            return Some(match nonce + 1 == account.nonce {
                true => Reject::AlreadyPreconfirmed { tx: nonce, account: account.nonce },
                false => Reject::NonceTooLow { tx: nonce, account: account.nonce },
            });
        }
        if account.has_code_not_delegation {
            return Some(Reject::SenderHasCode { sender: tx.sender });
        }
        let own = self.of(sender);
        let old = own.iter().find(|old| old.nonce() == nonce);
        let next = if own.is_empty() { account.nonce } else { self.next_nonce(sender) };
        if old.is_none() && nonce > next + self.limits.nonce_gap_max {
            return Some(Reject::NonceTooHigh { tx: nonce, next, gap_limit: self.limits.nonce_gap_max });
        }
        let names =
            |tx: &ModelTx| tx.submission.authorities.iter().flatten().any(|authority| *authority == address(sender));
        if (account.is_delegated || self.txs.iter().any(names)) && old.is_none() {
            if !own.is_empty() {
                return Some(Reject::DelegatedInFlight { pooled: own.len() as u32 });
            }
            if nonce != account.nonce {
                return Some(Reject::DelegatedGap { tx: nonce, account: account.nonce });
            }
        }
        for authority in tx.authorities.iter().flatten() {
            let pooled = self.txs.iter().filter(|tx| tx.submission.sender == *authority).count() as u32;
            if pooled > 1 {
                return Some(Reject::AuthorityReserved { authority: *authority, pooled });
            }
        }
        if let Some(old) = old {
            let minimum = |fee: u128| ((fee * 110).div_ceil(100)).max(fee + 1);
            let (minimum_wei, tip_minimum_wei) =
                (minimum(old.submission.fields.max_fee_per_gas_wei), minimum(old.tip()));
            if cap < minimum_wei {
                return Some(Reject::ReplacementFeeCapTooLow { tx_wei: cap, minimum_wei });
            }
            if tip < tip_minimum_wei {
                return Some(Reject::ReplacementTipTooLow { tx_wei: tip, minimum_wei: tip_minimum_wei });
            }
        } else if own.len() >= self.limits.per_sender_max as usize {
            return Some(Reject::SenderFull { pooled: own.len() as u32, limit: self.limits.per_sender_max });
        }
        let others: u128 = own.iter().filter(|tx| tx.nonce() != nonce).map(|tx| tx.cost()).sum();
        let cost_wei = fields.cost_max_wei().unwrap() + U256::from(others);
        if cost_wei > account.balance_wei {
            return Some(Reject::InsufficientFunds { cost_wei, balance_wei: account.balance_wei });
        }
        self.refusal_of_extras(tx, old.copied())
    }

    fn refusal_of_extras(&self, tx: &Submission<u64>, old: Option<&ModelTx>) -> Option<Reject> {
        let others = || self.txs.iter().filter(|tx| old.is_none_or(|old| tx.arrival != old.arrival));
        let authority_count = |tx: &Submission<u64>| tx.authorities.iter().flatten().count() as u32;
        let limit = self.limits.authorities_max;
        if others().map(|tx| authority_count(&tx.submission)).sum::<u32>() + authority_count(tx) > limit {
            return Some(Reject::AuthoritiesFull {
                pooled: self.txs.iter().map(|tx| authority_count(&tx.submission)).sum(),
                limit,
            });
        }
        let limit = self.limits.conditionals_max;
        let count = |list: &[&ModelTx]| list.iter().filter(|tx| tx.submission.conditions.is_some()).count() as u32;
        if count(&others().collect::<Vec<_>>()) + u32::from(tx.conditions.is_some()) > limit {
            return Some(Reject::ConditionalsFull { pooled: count(&self.txs.iter().collect::<Vec<_>>()), limit });
        }
        None
    }

    /// Which queued transactions make room, lowest tip first, the later of equals first.
    fn victims(&self, tx: &Submission<u64>, old: Option<B256>) -> Result<Vec<(B256, u128)>, Reject> {
        let mut staying: Vec<&ModelTx> = self.txs.iter().filter(|tx| Some(tx.submission.hash) != old).collect();
        let mut victims = vec![];
        let staying_bytes: u64 = staying.iter().map(|tx| bytes_of(&tx.submission)).sum();
        let is_crowded = staying.len() as u32 * 4 >= self.limits.transactions_max * 3
            || (staying_bytes + bytes_of(tx)) * 4 > self.limits.bytes_max * 3;
        let tx_wei = tx.fields.max_fee_per_gas_wei;
        if old.is_none() && is_crowded && tx_wei < self.base_fee {
            return Err(Reject::UnpayableWhileCrowded { tx_wei, base_fee_wei: self.base_fee });
        }
        loop {
            let bytes: u64 = staying.iter().map(|tx| bytes_of(&tx.submission)).sum();
            let full = if staying.len() as u32 >= self.limits.transactions_max {
                Reject::PoolFull { pooled: staying.len() as u32, limit: self.limits.transactions_max }
            } else if bytes + bytes_of(tx) > self.limits.bytes_max {
                Reject::BytesFull { pooled: bytes, limit: self.limits.bytes_max }
            } else {
                return Ok(victims);
            };
            if old.is_some() || victims.len() == self.limits.evictions_per_admission_max as usize {
                return Err(full);
            }
            let queued = staying.iter().filter(|tx| tx.readiness == Some(Readiness::Queued));
            let Some(victim) = queued.min_by_key(|tx| (tx.tip(), std::cmp::Reverse(tx.arrival))) else {
                return Err(full);
            };
            let (hash, evictable_wei, tx_wei) =
                (victim.submission.hash, victim.tip(), tx.fields.max_priority_fee_per_gas_wei);
            if evictable_wei >= tx_wei {
                return Err(Reject::TipBelowEvictable { tx_wei, evictable_wei });
            }
            victims.push((hash, evictable_wei));
            staying.retain(|tx| tx.submission.hash != hash);
        }
    }

    fn admit(&mut self, sender: u8, tx: Submission<u64>) -> Result<(Readiness, bool, u32), Reject> {
        if tx.fields.max_priority_fee_per_gas_wei <= tx.fields.max_fee_per_gas_wei {
            self.account_changed(sender);
        }
        let old = self.of(sender).iter().find(|old| old.nonce() == tx.fields.nonce).map(|old| old.submission.hash);
        let victims = match self.refusal(sender, &tx) {
            Some(reject) => Err(reject),
            None => self.victims(&tx, old),
        };
        let victims = match victims {
            Ok(victims) => victims,
            Err(reject) => {
                self.ended.push((tx.hash, EndState::Rejected(reject)));
                return Err(reject);
            }
        };
        for (hash, tip_wei) in &victims {
            self.end(
                *hash,
                EndState::Evicted { tip_wei: *tip_wei, newcomer_tip_wei: tx.fields.max_priority_fee_per_gas_wei },
            );
        }
        if let Some(old) = old {
            // Not `end`: the new one takes the nonce before anything else could notice.
            self.txs.retain(|tx| tx.submission.hash != old);
            self.ended.push((old, EndState::Replaced { by: tx.hash }));
        }
        self.known[sender as usize] = self.chain[sender as usize];
        self.counter += 1;
        let hash = tx.hash;
        self.txs.push(ModelTx {
            submission: tx,
            arrival: self.counter,
            readiness: None,
            since_ns: 0,
            entered: 0,
            deferred: None,
        });
        self.settle();
        let readiness = self.txs.iter().find(|tx| tx.submission.hash == hash).unwrap().readiness.unwrap();
        Ok((readiness, old.is_some(), victims.len() as u32))
    }

    fn expire(&mut self, count_max: u32) -> u32 {
        for count in 0..count_max {
            let expired = |readiness: Readiness, lifetime_ns: u64| {
                let now_ns = self.now_ns;
                let list = self.txs.iter().filter(|tx| tx.readiness == Some(readiness));
                let over = list.filter(|tx| now_ns - tx.since_ns >= lifetime_ns);
                over.min_by_key(|tx| tx.entered).map(|tx| (tx.submission.hash, readiness, now_ns - tx.since_ns))
            };
            let queued = expired(Readiness::Queued, self.limits.gap_lifetime_ns);
            let next = queued.or_else(|| expired(Readiness::Ready, self.limits.ready_lifetime_ns));
            let Some((hash, readiness, waited_ns)) = next else { return count };
            self.end(hash, EndState::Expired { readiness, waited_ns });
        }
        count_max
    }
}

struct Pair {
    pool: Mempool<u64>,
    model: Model,
    hash_next: u64,
}

fn offset(nonce: u64, by: i8) -> u64 {
    nonce.saturating_add_signed(i64::from(by))
}

fn kind(condition: bool) -> Deferral {
    if condition { Deferral::Condition } else { Deferral::NextBlock }
}

impl Pair {
    fn new(by_arrival_only: bool) -> Self {
        let policy: Box<dyn OrderingPolicy> = if by_arrival_only { Box::new(Arrival) } else { Box::new(PriorityFee) };
        let account = AccountView {
            balance_wei: U256::from(GAS * 100),
            nonce: 5,
            has_code_not_delegation: false,
            is_delegated: false,
        };
        let accounts = vec![account; SENDERS as usize];
        let model = Model {
            by_arrival_only,
            limits: limits(),
            txs: vec![],
            chain: accounts.clone(),
            known: accounts,
            base_fee: 7,
            now_ns: 0,
            counter: 0,
            ended: vec![],
        };
        Self { pool: Mempool::new(limits(), policy, 7, 1), model, hash_next: 1 }
    }

    fn apply(&mut self, step: &Step, removed: &mut Vec<Removed<u64>>) {
        let now_ns = self.model.now_ns;
        match *step {
            Step::Admit { .. } => self.admit(step, removed),
            Step::Place { cost_percent } => {
                let Some(best) = self.model.best().cloned() else { return };
                let id = self.pool.best().unwrap().id;
                self.pool.placed(id, removed);
                let sender = (0..SENDERS).find(|sender| address(*sender) == best.submission.sender).unwrap() as usize;
                let known = &mut self.model.known[sender];
                known.nonce += 1;
                known.balance_wei -= U256::from(best.cost());
                let chain = &mut self.model.chain[sender];
                chain.nonce += 1;
                // What is really paid; never more than the maximum, and less than was there.
                chain.balance_wei =
                    chain.balance_wei.saturating_sub(U256::from(best.cost() * u128::from(cost_percent) / 100));
                self.model.end(best.submission.hash, EndState::Placed);
            }
            Step::Invalidate => {
                let Some(hash) = self.model.best().map(|tx| tx.submission.hash) else { return };
                let id = self.pool.best().unwrap().id;
                self.pool.invalid(id, Invalid::Execution("refused"), now_ns, removed);
                self.model.end(hash, EndState::Invalidated(Invalid::Execution("refused")));
            }
            Step::Defer(condition) => {
                let Some(hash) = self.model.best().map(|tx| tx.submission.hash) else { return };
                let id = self.pool.best().unwrap().id;
                self.pool.defer(id, kind(condition));
                self.model.counter += 1;
                let tx = self.model.txs.iter_mut().find(|tx| tx.submission.hash == hash).unwrap();
                tx.deferred = Some((kind(condition), self.model.counter));
            }
            Step::Retry(condition, count_max) => {
                let count = self.pool.retry_deferred(kind(condition), count_max);
                let waiting =
                    self.model.txs.iter_mut().filter(|tx| tx.deferred.is_some_and(|(of, _)| of == kind(condition)));
                let mut waiting: Vec<_> = waiting.collect();
                waiting.sort_by_key(|tx| tx.deferred.map(|(_, order)| order));
                let retried = waiting.into_iter().take(count_max as usize).map(|tx| tx.deferred = None).count();
                assert_eq!(count as usize, retried);
            }
            Step::BaseFee(base_fee) => {
                self.pool.set_base_fee(u128::from(base_fee));
                self.model.base_fee = u128::from(base_fee);
            }
            Step::Account { sender, nonce_offset, balance, delegated, code } => {
                let account = &mut self.model.chain[sender as usize];
                account.nonce = offset(account.nonce, nonce_offset);
                account.balance_wei = U256::from(u64::from(balance) * GAS / 10);
                (account.is_delegated, account.has_code_not_delegation) = (delegated, code);
                let account = *account;
                self.pool.account_changed(&address(sender), &account, now_ns, removed);
                self.model.account_changed(sender);
            }
            Step::Expire { after_ns, count_max } => {
                self.model.now_ns += after_ns;
                let count = self.pool.expire(self.model.now_ns, count_max, removed);
                assert_eq!(count, self.model.expire(count_max));
            }
        }
    }

    fn admit(&mut self, step: &Step, removed: &mut Vec<Removed<u64>>) {
        let Step::Admit { sender, nonce_offset, fee, tip, value, bytes, authority, conditional } = *step else {
            unreachable!()
        };
        let account = self.model.chain[sender as usize];
        let mut tx = submission(sender, offset(account.nonce, nonce_offset), u128::from(fee), u128::from(tip));
        tx.hash = B256::from(U256::from(self.hash_next));
        tx.payload = self.hash_next;
        self.hash_next += 1;
        tx.fields.value_wei = U256::from(value);
        tx.encoded_bytes = u32::from(bytes);
        tx.authorities = authority.map(|authority| vec![address(authority)].into_boxed_slice());
        tx.conditions = conditional.then(Box::default);
        let admission =
            self.pool.admit(tx.clone(), &account, account.nonce.saturating_sub(1), self.model.now_ns, removed);
        let expected = self.model.admit(sender, tx);
        assert_eq!(
            admission.map(|admission| (admission.readiness, admission.replaced, admission.evicted_count)),
            expected
        );
    }

    fn check(&mut self, removed: &mut Vec<Removed<u64>>) {
        for end in &*removed {
            assert_eq!(
                U256::from(end.submission.payload),
                U256::from_be_bytes(end.submission.hash.0),
                "payload of another"
            );
        }
        let mut ended: Vec<_> = removed.drain(..).map(|removed| (removed.submission.hash, removed.end)).collect();
        let mut expected = std::mem::take(&mut self.model.ended);
        ended.sort_by_key(|(hash, _)| *hash);
        expected.sort_by_key(|(hash, _)| *hash);
        assert_eq!(ended, expected);

        let model = &self.model;
        let count = |readiness| model.txs.iter().filter(|tx| tx.readiness == Some(readiness)).count() as u32;
        let expected = Counts {
            ready: count(Readiness::Ready),
            queued: count(Readiness::Queued),
            senders: (0..SENDERS).filter(|sender| !model.of(*sender).is_empty()).count() as u32,
            deferred: model.txs.iter().filter(|tx| tx.deferred.is_some()).count() as u32,
            conditional: model.txs.iter().filter(|tx| tx.submission.conditions.is_some()).count() as u32,
            bytes: model.txs.iter().map(|tx| bytes_of(&tx.submission)).sum(),
        };
        assert_eq!(self.pool.counts(), expected);
        assert_eq!(self.pool.iter().count(), model.txs.len());
        let best = self.pool.best().map(|best| (best.submission.hash, best.tip_wei));
        let expected = model.best().map(|tx| (tx.submission.hash, tx.effective_tip(model.base_fee).unwrap()));
        assert_eq!(best, expected);
        for sender in 0..SENDERS {
            let listed: Vec<_> =
                self.pool.iter_sender(&address(sender)).map(|tx| (tx.submission.hash, tx.readiness)).collect();
            let expected: Vec<_> =
                model.of(sender).iter().map(|tx| (tx.submission.hash, tx.readiness.unwrap())).collect();
            assert_eq!(listed, expected);
            let expected = (!expected.is_empty()).then(|| model.next_nonce(sender));
            assert_eq!(self.pool.pending_nonce(&address(sender)), expected);
            let cost: u128 = model.of(sender).iter().map(|tx| tx.cost()).sum();
            assert!(U256::from(cost) <= model.known[sender as usize].balance_wei || cost == 0);
        }
        for tx in &model.txs {
            assert_eq!(self.pool.get(&tx.submission.hash).map(|tx| tx.submission), Some(&tx.submission));
        }
    }
}

/// The pool after all steps.
pub(super) fn pool_after(by_arrival_only: bool, steps: &[Step]) -> Mempool<u64> {
    let mut pair = Pair::new(by_arrival_only);
    let mut removed = vec![];
    for step in steps {
        pair.apply(step, &mut removed);
    }
    pair.pool
}

/// Applies all steps to both; returns the kinds of ends that were seen.
fn run(by_arrival_only: bool, steps: &[Step]) -> BTreeSet<String> {
    let mut pair = Pair::new(by_arrival_only);
    let (mut removed, mut kinds) = (vec![], BTreeSet::new());
    for step in steps {
        pair.apply(step, &mut removed);
        for end in &removed {
            let text = format!("{:?}", end.end);
            kinds.insert(text.split([' ', '{']).next().unwrap().to_owned());
        }
        pair.check(&mut removed);
    }
    kinds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn pool_equals_the_naive_list(by_arrival_only: bool, steps in prop::collection::vec(steps(), 1..250)) {
        run(by_arrival_only, &steps);
    }
}

/// The comparison above would be worth little if the steps never got anywhere.
#[test]
fn the_steps_reach_every_outcome() {
    let strategy = prop::collection::vec(steps(), 200..250);
    let mut runner = TestRunner::deterministic();
    let mut kinds = BTreeSet::new();
    for case in 0..150 {
        kinds.extend(run(case % 4 == 0, &strategy.new_tree(&mut runner).unwrap().current()));
    }
    let expected = [
        "Evicted",
        "Expired",
        "Invalidated(Execution(\"refused\"))",
        "Invalidated(InsufficientFunds",
        "Invalidated(NonceTooLow",
        "Invalidated(SenderHasCode",
        "Placed",
        "Rejected(AlreadyPreconfirmed",
        "Rejected(AuthoritiesFull",
        "Rejected(AuthorityReserved",
        "Rejected(BytesFull",
        "Rejected(ConditionalsFull",
        "Rejected(DelegatedGap",
        "Rejected(DelegatedInFlight",
        "Rejected(InsufficientFunds",
        "Rejected(NonceTooHigh",
        "Rejected(NonceTooLow",
        "Rejected(PoolFull",
        "Rejected(ReplacementFeeCapTooLow",
        "Rejected(ReplacementTipTooLow",
        "Rejected(SenderFull",
        "Rejected(SenderHasCode",
        "Rejected(TipAboveFeeCap",
        "Rejected(TipBelowEvictable",
        "Rejected(UnpayableWhileCrowded",
        "Replaced",
    ];
    assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

/// The order is a function of the calls, not of the tables' seed.
#[test]
fn order_does_not_depend_on_the_seed() {
    let order = |seed| {
        let mut pool = Mempool::new(limits(), Box::new(PriorityFee), 0, seed);
        let account = AccountView {
            balance_wei: U256::from(u128::MAX),
            nonce: 0,
            has_code_not_delegation: false,
            is_delegated: false,
        };
        let mut removed = vec![];
        for (sender, tip) in [(0, 3), (1, 3), (2, 9), (3, 3), (4, 1), (5, 9)] {
            pool.admit(submission(sender, 0, 20, tip), &account, 0, 0, &mut removed).unwrap();
        }
        while let Some(id) = pool.best().map(|best| best.id) {
            pool.placed(id, &mut removed);
        }
        removed.into_iter().map(|removed| removed.submission.sender).collect::<Vec<Address>>()
    };
    let expected: Vec<_> = [2, 5, 0, 1, 3, 4].map(address).to_vec();
    assert_eq!(order(1), expected);
    assert_eq!(order(0xfeed), expected);
}
