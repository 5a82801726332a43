//! The part of a state that a witness holds, as it changes: paths that are read, net changes, the root after each of them.
//!
//! Input → output: the root before, rounds of reads and changes → roots, and for each round the nodes of the state before it that it
//! needed, and the nodes that it made. Owner core: any; one run owns it.
//! Nothing is hashed twice: what a round did not change keeps the hash that it had.

use std::collections::HashMap;

use alloy_primitives::{B256, U256};
use foldhash::fast::RandomState;

use super::node::{AccountView, parse_account};
use super::nodes::{At, HashIndex, StateFault};
use super::trie::{Child, Found, MissingSibling, Place, Touched, TrieWriter};
use crate::crypto::keccak::keccak256_each;
use crate::state::{Account, AccountChange, ROOT_EMPTY, StateChanges};

/// A balance of 32 bytes and a nonce of 8, two hashes, and headers.
const ACCOUNT_RLP_BYTES_MAX: usize = 112;

/// See the module's text.
pub struct LiveState<'n, 'w> {
    writer: TrieWriter<'n, 'w>,
    accounts: Child<'w>,
    root: B256,
    /// The storage of accounts whose leaves were changed or whose slots were read, by the hashes of their addresses; the empty ones of
    /// changed leaves are left out.
    storage: HashMap<B256, Child<'w>, RandomState>,
}

impl<'n, 'w> LiveState<'n, 'w> {
    /// `change_count`: how many changes are going to come, so that the buffers seldom grow.
    #[must_use]
    pub fn new(root: &'w B256, nodes: &'n HashIndex<'w>, change_count: usize) -> Self {
        Self {
            writer: TrieWriter::new(nodes, change_count),
            accounts: Child::of_root(root),
            root: *root,
            storage: HashMap::default(),
        }
    }

    /// See [`TrieWriter::list_missing`].
    pub fn list_missing(&mut self) {
        self.writer.list_missing();
    }

    /// See [`TrieWriter::take_missing`].
    #[must_use]
    pub fn take_missing(&mut self) -> Vec<MissingSibling> {
        self.writer.take_missing()
    }

    /// The root after the last commit.
    #[must_use]
    pub fn root(&self) -> B256 {
        self.root
    }

    /// Begins a round: see [`TrieWriter::begin_round`].
    pub fn begin_round(&mut self) {
        self.writer.begin_round();
    }

    #[must_use]
    pub fn touched_count(&self) -> usize {
        self.writer.touched_count()
    }

    /// Forgets that this round has read the nodes from the `start`-th on.
    pub fn untouch(&mut self, start: usize) {
        self.writer.untouch(start);
    }

    /// The nodes that this round has read, from the `start`-th on.
    pub fn touched(&self, start: usize) -> impl Iterator<Item = Touched<'_>> {
        self.writer.touched(start)
    }

    /// The nodes that this round's commit has made.
    pub fn made(&self) -> impl Iterator<Item = (B256, Place)> + '_ {
        self.writer.made()
    }

    /// The nodes that all commits have made.
    pub fn made_rlp(&self) -> impl Iterator<Item = &[u8]> {
        self.writer.made_rlp()
    }

    /// The account with the key `key`, the hash of its address.
    ///
    /// # Errors
    /// A node on the way that is not in the witness, or is none.
    pub fn account(&mut self, key: &B256) -> Result<Option<Account>, StateFault> {
        self.writer.set_owner(None);
        let Some(found) = self.writer.read(&mut self.accounts, key)? else { return Ok(None) };
        match parse_account(found.bytes()) {
            Ok(AccountView { nonce, balance_wei, storage_root, code_hash }) => {
                Ok(Some(Account { nonce, balance_wei, code_hash: *code_hash, storage_root: *storage_root }))
            }
            Err(fault) => Err(self.value_fault(key, fault)),
        }
    }

    /// Reads the path of an account; whether it is there.
    ///
    /// # Errors
    /// A node on the way that is not in the witness, or is none.
    pub fn touch_account(&mut self, key: &B256) -> Result<bool, StateFault> {
        self.writer.set_owner(None);
        Ok(self.writer.read(&mut self.accounts, key)?.is_some())
    }

    /// Reads the path of a slot; whether it is there. Its account is read, too.
    ///
    /// # Errors
    /// As [`Self::account`].
    pub fn touch_slot(&mut self, owner: &B256, key: &B256) -> Result<bool, StateFault> {
        let mut trie = self.storage_of(owner)?;
        if trie == Child::EMPTY {
            return Ok(false);
        }
        self.writer.set_owner(Some(*owner));
        let is_there = self.writer.read(&mut trie, key)?.is_some();
        self.storage.insert(*owner, trie);
        Ok(is_there)
    }

    /// The storage trie of an account, empty when there is no account.
    fn storage_of(&mut self, owner: &B256) -> Result<Child<'w>, StateFault> {
        self.writer.set_owner(None);
        let found = self.writer.read(&mut self.accounts, owner)?;
        if let Some(trie) = self.storage.get(owner) {
            return Ok(*trie);
        }
        match found {
            // A changed leaf whose storage is not on the list has none.
            None | Some(Found::New(_)) => Ok(Child::EMPTY),
            Some(Found::Old(value)) => match parse_account(value) {
                Ok(account) => Ok(Child::of_root(account.storage_root)),
                Err(fault) => Err(self.value_fault(owner, fault)),
            },
        }
    }

    /// The root after net changes. Insertions come first in each trie, deletions last, and storage before accounts, as in go-ethereum:
    /// which siblings a collapsing branch needs depends on it.
    ///
    /// # Errors
    /// A node on the way to a change, or a sibling that takes the place of a branch, that is not there or is none.
    pub fn commit(&mut self, changes: &StateChanges) -> Result<B256, StateFault> {
        let accounts = &changes.accounts;
        let keys = hash_all(accounts.len(), |index| accounts[index].address.as_slice());
        let mut storage_tries = Vec::new();
        for (account, key) in accounts.iter().zip(&keys) {
            let before = self.storage_of(key)?;
            if account.account.is_none() {
                self.storage.remove(key);
            } else if account.storage_cleared || !account.storage.is_empty() {
                let before = if account.storage_cleared { Child::EMPTY } else { before };
                storage_tries.push((Some(*key), self.storage_after(account, key, before)?));
            } else if before != Child::EMPTY {
                self.storage.insert(*key, before);
            }
        }
        let roots = self.writer.hash(&storage_tries);
        for ((owner, trie), _) in storage_tries.iter().zip(&roots) {
            match (owner, *trie == Child::EMPTY) {
                (Some(owner), true) => drop(self.storage.remove(owner)),
                (Some(owner), false) => drop(self.storage.insert(*owner, *trie)),
                (None, _) => {}
            }
        }
        self.write_accounts(accounts, &keys, &roots)?;
        self.root = self.writer.hash(&[(None, self.accounts)])[0];
        Ok(self.root)
    }

    /// `storage_roots`: those of the accounts whose storage has changed, in their order.
    fn write_accounts(
        &mut self,
        accounts: &[AccountChange],
        keys: &[B256],
        storage_roots: &[B256],
    ) -> Result<(), StateFault> {
        let mut storage_roots = storage_roots.iter();
        let mut rlp = Vec::with_capacity(ACCOUNT_RLP_BYTES_MAX);
        self.writer.set_owner(None);
        for (account, key) in accounts.iter().zip(keys) {
            let Some(info) = account.account else { continue };
            let changed = account.storage_cleared || !account.storage.is_empty();
            let storage_root = match (if changed { storage_roots.next() } else { None }, self.storage.get(key)) {
                (Some(root), _) => *root,
                (None, Some(trie)) => self.writer.root_hash(*trie),
                (None, None) => ROOT_EMPTY,
            };
            let (nonce, balance_wei, code_hash) = (info.nonce, info.balance_wei, info.code_hash);
            rlp.clear();
            account_rlp(&Account { nonce, balance_wei, code_hash, storage_root }, &mut rlp);
            self.writer.insert(&mut self.accounts, key, &rlp)?;
        }
        for (_, key) in accounts.iter().zip(keys).filter(|(account, _)| account.account.is_none()) {
            self.writer.delete(&mut self.accounts, key)?;
        }
        Ok(())
    }

    /// The storage trie of an account after its changes, not hashed yet.
    fn storage_after(
        &mut self,
        account: &AccountChange,
        owner: &B256,
        mut trie: Child<'w>,
    ) -> Result<Child<'w>, StateFault> {
        let slots: Vec<[u8; 32]> = account.storage.iter().map(|(slot, _)| slot.to_be_bytes()).collect();
        let keys = hash_all(slots.len(), |index| slots[index].as_slice());
        let mut rlp = Vec::with_capacity(33);
        self.writer.set_owner(Some(*owner));
        for ((_, value), key) in account.storage.iter().zip(&keys).filter(|((_, value), _)| !value.is_zero()) {
            rlp.clear();
            alloy_rlp::Encodable::encode(value, &mut rlp);
            self.writer.insert(&mut trie, key, &rlp)?;
        }
        for ((_, value), key) in account.storage.iter().zip(&keys) {
            if *value == U256::ZERO {
                self.writer.delete(&mut trie, key)?;
            }
        }
        Ok(trie)
    }

    /// A malformed value, named by the trie that holds it.
    fn value_fault(&self, key: &B256, fault: super::node::NodeFault) -> StateFault {
        At { owner: None, hash: self.root, depth: super::node::KEY_NIBBLES, after_extension: false }
            .malformed(key, fault)
    }
}

fn account_rlp(account: &Account, out: &mut Vec<u8>) {
    use alloy_rlp::Encodable;
    let payload_length = account.nonce.length() + account.balance_wei.length() + 66;
    alloy_rlp::Header { list: true, payload_length }.encode(out);
    account.nonce.encode(out);
    account.balance_wei.encode(out);
    account.storage_root.encode(out);
    account.code_hash.encode(out);
}

/// Hashes of messages, in lanes.
pub fn hash_all<'a>(count: usize, message: impl Fn(usize) -> &'a [u8]) -> Vec<B256> {
    let mut hashes = vec![B256::ZERO; count];
    keccak256_each(count, message, |index, hash| hashes[index] = hash);
    hashes
}
