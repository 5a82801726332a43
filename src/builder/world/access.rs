//! What execution asked for while a block was open: the keys that a witness follows.
//!
//! Execution only. What admission and readers look up leaves no trace, a transaction that was tried and not included takes its trace
//! back, and a reverted call leaves it: a verifier executes that call too.
//! Source: go-ethereum v1.17.5 records at the same places (`core/state/statedb.go`).

use crate::primitives::{Address, B256, Bytes, U256};

/// What the execution of a block, or of a part of it, asked of the state before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accesses {
    /// Accounts read or written, present or not, in the order of their first access, each once.
    pub accounts: Vec<Address>,
    /// Slots read or written, present or not; each once, and its account is among `accounts`.
    pub slots: Vec<(Address, U256)>,
    /// Codes fetched, and their hashes; each once, none empty. Codes that the block itself created are among them if they were fetched.
    pub codes: Vec<(B256, Bytes)>,
    /// Codes among `codes` that nobody read from the state: the transaction that fetched them first had made them itself.
    pub own_codes: Vec<B256>,
    /// The oldest block whose hash `BLOCKHASH` gave.
    pub block_hash_lowest: Option<u64>,
    /// Accounts that some transaction left deleted, whatever came later; an account may be named more than once.
    pub deleted_accounts: Vec<Address>,
    /// Slots that some transaction left zero after they were not, whatever came later; a slot may be named more than once.
    pub deleted_slots: Vec<(Address, U256)>,
}

/// The record while the block is open.
///
/// The caches of the world outlive a block, so what they hold says nothing about this one: each entry remembers the opening in which it
/// was last asked for. Openings are counted and not block numbers, because an opening can be taken back and made again.
#[derive(Debug, Default)]
pub(super) struct AccessLog {
    /// 0 before the first: no entry was ever asked for in it.
    opening: u64,
    pub(super) accounts: Vec<Address>,
    pub(super) slots: Vec<(Address, U256)>,
    pub(super) codes: Vec<B256>,
    pub(super) own_codes: Vec<B256>,
    pub(super) block_hash_lowest: Option<u64>,
    pub(super) deleted_accounts: Vec<Address>,
    pub(super) deleted_slots: Vec<(Address, U256)>,
}

/// A point in the record.
#[derive(Clone, Copy, Debug)]
pub struct AccessMark {
    pub(super) accounts: usize,
    pub(super) slots: usize,
    pub(super) codes: usize,
    pub(super) own_codes: usize,
    pub(super) block_hash_lowest: Option<u64>,
}

impl AccessLog {
    /// Forgets everything; what was asked for before is new again.
    pub(super) fn begin(&mut self) {
        self.opening += 1;
        self.accounts.clear();
        self.slots.clear();
        self.codes.clear();
        self.own_codes.clear();
        self.block_hash_lowest = None;
        self.deleted_accounts.clear();
        self.deleted_slots.clear();
    }

    #[inline]
    pub(super) fn opening(&self) -> u64 {
        self.opening
    }

    pub(super) fn block_hash(&mut self, number: u64) {
        self.block_hash_lowest = Some(self.block_hash_lowest.map_or(number, |lowest| lowest.min(number)));
    }

    pub(super) fn mark(&self) -> AccessMark {
        AccessMark {
            accounts: self.accounts.len(),
            slots: self.slots.len(),
            codes: self.codes.len(),
            own_codes: self.own_codes.len(),
            block_hash_lowest: self.block_hash_lowest,
        }
    }
}
