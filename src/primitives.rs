//! Newtypes and small values that several threads share. No behaviour beyond conversion and ordering.

pub use alloy_primitives::{Address, B256, Bloom, Bytes, U256, address, b256};

/// Index of an ingress shard, `0 ≤ id < shard_count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// A set of shards, of which there are at most [`ShardSet::SHARDS_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet([u64; 4]);

impl ShardSet {
    pub const SHARDS_MAX: usize = 256;
    pub const EMPTY: Self = Self([0; 4]);

    /// Panics: when there can be no such shard.
    pub fn insert(&mut self, shard: ShardId) {
        let index = usize::from(shard.0);
        self.0[index / 64] |= 1 << (index % 64);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ShardId> + '_ {
        (0_u16..).step_by(64).zip(self.0).flat_map(|(first, word)| {
            let above = |rest: &u64| Some(rest & (rest - 1)).filter(|rest| *rest != 0);
            let words = std::iter::successors(Some(word).filter(|word| *word != 0), above);
            words.map(move |rest| ShardId(first + rest.trailing_zeros() as u16)) // Below 64.
        })
    }
}

/// Position in the one ordered log of everything admitted. Assigned by the builder core, strictly increasing, starts at 1; 0 = nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u64);

/// How far L1 has taken a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// All of it was sent.
    Posted,
    /// L1 has it, and derivation agrees.
    Safe,
    /// L1 will keep it.
    Finalized,
}

/// Names the place a reply goes to: a request slot of a connection of a shard. Opaque to everyone but that shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyToken {
    pub connection: u32,
    /// Reuse counter of the connection slot, so that a late reply never reaches the next connection.
    pub generation: u32,
    pub request: u32,
    /// Index inside a JSON-RPC batch, 0 otherwise.
    pub item: u32,
}

/// A byte range inside a transaction's own 2718 encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    /// The bytes of `raw` that the span names. The span was made from the same bytes.
    #[must_use]
    pub fn of(self, raw: &[u8]) -> &[u8] {
        &raw[self.start as usize..(self.start + self.len) as usize]
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// EIP-2718 type of a transaction that the pool can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TxType {
    Legacy = 0,
    AccessList = 1,
    DynamicFee = 2,
    SetCode = 4,
}

/// Everything of a transaction that admission and ordering need, without its signature. Fixed size, no pointers.
///
/// For types 0 and 1 both fees are the gas price. Spans point into the transaction's own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxFields {
    pub value_wei: U256,
    pub max_fee_per_gas_wei: u128,
    pub max_priority_fee_per_gas_wei: u128,
    pub nonce: u64,
    pub gas_limit: u64,
    /// `None` for a legacy transaction without EIP-155 replay protection.
    pub chain_id: Option<u64>,
    pub input: Span,
    /// Payload of the access list (RLP list header excluded). Empty for types 0.
    pub access_list: Span,
    /// Payload of the authorization list (RLP list header excluded). Empty unless type 4.
    pub authorization_list: Span,
    pub access_list_address_count: u32,
    pub access_list_slot_count: u32,
    pub authorization_count: u32,
    pub input_zero_bytes: u32,
    /// `None` = contract creation.
    pub to: Option<Address>,
    pub tx_type: TxType,
}

impl TxFields {
    /// What a block producer earns per gas at `base_fee_wei`, in wei; `None` when the fee cap is below the base fee.
    #[must_use]
    pub fn effective_tip_wei(&self, base_fee_wei: u128) -> Option<u128> {
        let headroom = self.max_fee_per_gas_wei.checked_sub(base_fee_wei)?;
        Some(headroom.min(self.max_priority_fee_per_gas_wei))
    }

    /// The most that the sender can be charged: `gas_limit × max_fee + value`; `None` on overflow of 256 bits.
    #[must_use]
    pub fn cost_max_wei(&self) -> Option<U256> {
        U256::from(self.gas_limit).checked_mul(U256::from(self.max_fee_per_gas_wei))?.checked_add(self.value_wei)
    }
}

/// The hard fork whose rules a block follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fork {
    Prague,
    Osaka,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_shards_holds_what_was_put_in() {
        let mut set = ShardSet::default();
        assert!(set.is_empty());
        assert_eq!(set.iter().count(), 0);
        let members = [0, 1, 63, 64, 127, 128, 200, 255].map(ShardId);
        members.iter().rev().for_each(|shard| set.insert(*shard));
        set.insert(ShardId(64));
        assert_eq!(set.iter().collect::<Vec<_>>(), members);
        let mut other = ShardSet::EMPTY;
        other.insert(ShardId(65));
        other.extend(&set);
        assert_eq!(other.iter().count(), members.len() + 1);
        assert!(!other.is_empty());
    }
}
