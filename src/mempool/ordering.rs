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

/// Where a policy ranks a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Larger goes first, then earlier arrival; it holds up to a base fee of `open_until_wei`.
    pub open_key: u128,
    /// Above this base fee the rank is `max_fee − base fee`, in the same unit as `open_key`. At most `max_fee`: above that no
    /// transaction is placed at all.
    pub open_until_wei: u128,
}

/// Orders transactions of different senders. Pure, so that the order follows from the admissions alone.
pub trait OrderingPolicy: Send {
    fn name(&self) -> &'static str;
    fn rank(&self, fees: Fees) -> Rank;
}

/// `priority-fee`: the effective tip at the current base fee, then arrival.
#[derive(Clone, Copy, Debug, Default)]
pub struct PriorityFee;

impl OrderingPolicy for PriorityFee {
    fn name(&self) -> &'static str {
        "priority-fee"
    }

    fn rank(&self, fees: Fees) -> Rank {
        let tip = fees.max_priority_fee_per_gas_wei;
        Rank { open_key: tip, open_until_wei: fees.max_fee_per_gas_wei.saturating_sub(tip) }
    }
}

/// `arrival`: first come, first served, among those that can pay the base fee.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival;

impl OrderingPolicy for Arrival {
    fn name(&self) -> &'static str {
        "arrival"
    }

    fn rank(&self, fees: Fees) -> Rank {
        Rank { open_key: 0, open_until_wei: fees.max_fee_per_gas_wei }
    }
}

/// Which heap a transaction is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Open,
    Capped,
}

/// What the queue remembers of a slot to move it between the heaps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked {
    rank: Rank,
    max_fee_per_gas_wei: u128,
    side: Side,
}

impl Ranked {
    const NOTHING: Self =
        Self { rank: Rank { open_key: 0, open_until_wei: 0 }, max_fee_per_gas_wei: 0, side: Side::Open };
}

/// The senders' next transactions in the policy's order.
pub(super) struct ReadyQueue {
    policy: Box<dyn OrderingPolicy>,
    base_fee_wei: u128,
    open: Heap,
    capped: Heap,
    ranked: Vec<Ranked>,
    /// No node of `open` has a smaller `open_until_wei`.
    open_until_min_wei: u128,
    /// No node of `capped` has a larger `open_until_wei`.
    capped_until_max_wei: u128,
}

impl ReadyQueue {
    pub fn new(policy: Box<dyn OrderingPolicy>, transactions_max: u32, base_fee_wei: u128) -> Self {
        Self {
            policy,
            base_fee_wei,
            open: Heap::with_capacity(transactions_max),
            capped: Heap::with_capacity(transactions_max),
            ranked: vec![Ranked::NOTHING; transactions_max as usize],
            open_until_min_wei: u128::MAX,
            capped_until_max_wei: 0,
        }
    }

    pub fn base_fee_wei(&self) -> u128 {
        self.base_fee_wei
    }

    pub fn policy_name(&self) -> &'static str {
        self.policy.name()
    }

    pub fn push(&mut self, positions: &mut [u32], slot: u32, arrival: u64, fees: Fees) {
        let rank = self.policy.rank(fees);
        assert!(rank.open_until_wei <= fees.max_fee_per_gas_wei, "a rank that would be placed below the base fee");
        let max_fee_per_gas_wei = fees.max_fee_per_gas_wei;
        let side = if self.base_fee_wei <= rank.open_until_wei { Side::Open } else { Side::Capped };
        self.ranked[slot as usize] = Ranked { rank, max_fee_per_gas_wei, side };
        match side {
            Side::Open => {
                self.open_until_min_wei = self.open_until_min_wei.min(rank.open_until_wei);
                self.open.push(positions, Node { key: rank.open_key, arrival, slot });
            }
            Side::Capped => {
                self.capped_until_max_wei = self.capped_until_max_wei.max(rank.open_until_wei);
                self.capped.push(positions, Node { key: max_fee_per_gas_wei, arrival, slot });
            }
        }
    }

    pub fn remove(&mut self, positions: &mut [u32], slot: u32) {
        match self.ranked[slot as usize].side {
            Side::Open => self.open.remove(positions, slot),
            Side::Capped => self.capped.remove(positions, slot),
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
        let ranked = &mut self.ranked;
        if base_fee_wei > self.open_until_min_wei {
            let (mut staying_min, mut moving_max) = (u128::MAX, self.capped_until_max_wei);
            self.open.drain_into(&mut self.capped, positions, |node| {
                let entry = &mut ranked[node.slot as usize];
                let open_until_wei = entry.rank.open_until_wei;
                if base_fee_wei <= open_until_wei {
                    staying_min = staying_min.min(open_until_wei);
                    return None;
                }
                moving_max = moving_max.max(open_until_wei);
                entry.side = Side::Capped;
                Some(entry.max_fee_per_gas_wei)
            });
            (self.open_until_min_wei, self.capped_until_max_wei) = (staying_min, moving_max);
        }
        // Not `else`: both bounds may be stale, and then the first scan finds nothing.
        if base_fee_wei <= self.capped_until_max_wei {
            let (mut staying_max, mut moving_min) = (0, self.open_until_min_wei);
            self.capped.drain_into(&mut self.open, positions, |node| {
                let entry = &mut ranked[node.slot as usize];
                let open_until_wei = entry.rank.open_until_wei;
                if base_fee_wei > open_until_wei {
                    staying_max = staying_max.max(open_until_wei);
                    return None;
                }
                moving_min = moving_min.min(open_until_wei);
                entry.side = Side::Open;
                Some(entry.rank.open_key)
            });
            (self.capped_until_max_wei, self.open_until_min_wei) = (staying_max, moving_min);
        }
    }
}
