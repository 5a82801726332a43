//! Which of the senders' next transactions goes first, exactly, at any base fee.
//!
//! What a block producer earns per gas is `min(max_fee − base_fee, priority)`. While the priority fee is the smaller one, it orders
//! and the base fee does not matter; while the fee cap is, `max_fee` orders and the base fee does not matter either. So there are two
//! heaps, each in an order that no base fee changes, and the best transaction is the better of two tops. A new base fee moves only
//! those whose smaller side changes, and a bound on each heap says when there are none, which is nearly always.

use super::heap::{Heap, Node};

/// The two fees of a transaction, in wei per gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    pub max_fee_per_gas_wei: u128,
    pub max_priority_fee_per_gas_wei: u128,
}

/// Orders transactions of different senders. Pure, so that the order follows from the admissions alone.
///
/// Who can pay the base fee goes by `min(max_fee − base fee, counted tip)`, largest first, then by arrival.
pub trait OrderingPolicy: Send {
    fn name(&self) -> &'static str;
    /// The part of the tip that counts for the order; at most the fee cap.
    fn counted_tip_wei(&self, fees: Fees) -> u128;
}

/// `priority-fee`: the effective tip at the current base fee, then arrival.
#[derive(Clone, Copy, Debug, Default)]
pub struct PriorityFee;

impl OrderingPolicy for PriorityFee {
    fn name(&self) -> &'static str {
        "priority-fee"
    }

    fn counted_tip_wei(&self, fees: Fees) -> u128 {
        fees.max_priority_fee_per_gas_wei
    }
}

/// `arrival`: first come, first served, among those that can pay the base fee.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival;

impl OrderingPolicy for Arrival {
    fn name(&self) -> &'static str {
        "arrival"
    }

    fn counted_tip_wei(&self, _: Fees) -> u128 {
        0
    }
}

/// The senders' next transactions in the policy's order.
pub(super) struct ReadyQueue {
    policy: Box<dyn OrderingPolicy>,
    base_fee_wei: u128,
    /// Those whose counted tip binds, by it: up to a base fee of `max_fee − counted tip`, the node's `limit`.
    open: Heap,
    /// Those whose fee cap binds, by it.
    capped: Heap,
    /// No node of `open` has a smaller limit. Never below the base fee.
    open_limit_min_wei: u128,
    /// No node of `capped` has a larger limit. Below the base fee, except that both may be zero.
    capped_limit_max_wei: u128,
}

impl ReadyQueue {
    pub fn new(policy: Box<dyn OrderingPolicy>, transactions_max: u32, base_fee_wei: u128) -> Self {
        Self {
            policy,
            base_fee_wei,
            open: Heap::with_capacity(transactions_max),
            capped: Heap::with_capacity(transactions_max),
            open_limit_min_wei: u128::MAX,
            capped_limit_max_wei: 0,
        }
    }

    pub fn base_fee_wei(&self) -> u128 {
        self.base_fee_wei
    }

    pub fn policy_name(&self) -> &'static str {
        self.policy.name()
    }

    pub fn push(&mut self, positions: &mut [u32], slot: u32, arrival: u64, fees: Fees) {
        let counted_tip_wei = self.policy.counted_tip_wei(fees);
        assert!(counted_tip_wei <= fees.max_fee_per_gas_wei, "a policy that counts more than the fee cap");
        let limit = fees.max_fee_per_gas_wei - counted_tip_wei;
        if self.base_fee_wei <= limit {
            self.open_limit_min_wei = self.open_limit_min_wei.min(limit);
            self.open.push(positions, Node { key: counted_tip_wei, limit, arrival, slot });
        } else {
            self.capped_limit_max_wei = self.capped_limit_max_wei.max(limit);
            self.capped.push(positions, Node { key: fees.max_fee_per_gas_wei, limit, arrival, slot });
        }
    }

    pub fn remove(&mut self, positions: &mut [u32], slot: u32) {
        match self.open.contains(positions, slot) {
            true => self.open.remove(positions, slot),
            false => self.capped.remove(positions, slot),
        }
    }

    /// The slot that goes first, if any can pay the base fee.
    pub fn best(&self) -> Option<u32> {
        // The order inside `capped` is by fee cap, so when its top cannot pay the base fee nothing in it can.
        let capped = self.capped.top().and_then(|node| {
            let key = node.key.checked_sub(self.base_fee_wei)?;
            Some(Node { key, ..*node })
        });
        match (self.open.top(), capped) {
            (Some(open), Some(capped)) => Some(if capped.is_before(open) { capped.slot } else { open.slot }),
            (Some(open), None) => Some(open.slot),
            (None, capped) => capped.map(|node| node.slot),
        }
    }

    /// Changes the base fee. Costs nothing when no transaction's smaller side changes, else time linear in the queue.
    pub fn set_base_fee(&mut self, positions: &mut [u32], base_fee_wei: u128) {
        self.base_fee_wei = base_fee_wei;
        if base_fee_wei > self.open_limit_min_wei {
            let (mut staying_min_wei, mut moving_max_wei) = (u128::MAX, self.capped_limit_max_wei);
            self.open.drain_into(&mut self.capped, positions, |&Node { key, limit, .. }| {
                if base_fee_wei <= limit {
                    staying_min_wei = staying_min_wei.min(limit);
                    return None;
                }
                moving_max_wei = moving_max_wei.max(limit);
                Some(limit + key)
            });
            (self.open_limit_min_wei, self.capped_limit_max_wei) = (staying_min_wei, moving_max_wei);
        } else if base_fee_wei <= self.capped_limit_max_wei {
            let (mut staying_max_wei, mut moving_min_wei) = (0, self.open_limit_min_wei);
            self.capped.drain_into(&mut self.open, positions, |&Node { key, limit, .. }| {
                if base_fee_wei > limit {
                    staying_max_wei = staying_max_wei.max(limit);
                    return None;
                }
                moving_min_wei = moving_min_wei.min(limit);
                Some(key - limit)
            });
            (self.capped_limit_max_wei, self.open_limit_min_wei) = (staying_max_wei, moving_min_wei);
        }
    }
}
