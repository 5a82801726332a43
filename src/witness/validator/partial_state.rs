//! The part of a state that a witness holds: reads for execution, and the root after a block's changes.
//!
//! Input → output: the witness' nodes and codes under the parent's state root → accounts, slots and codes; net changes → the new root.
//! Owner core: any; one validation owns it.
//! Whatever is asked for and not there is an error that names it, never an absent account: absence is proved by the nodes on the way.

use std::sync::OnceLock;

use alloy_primitives::{Address, B256, Bytes, U256};

use super::live_state::{LiveState, hash_all};
use super::node::{AccountView, NodeFault, parse_account, parse_slot};
use super::nodes::{At, HashIndex, StateFault, Trie};
use super::trie::{Touched, TouchedRlp};
use crate::crypto::keccak::keccak256;
use crate::state::{Account, AccountProof, ROOT_EMPTY, SlotProof, StateChanges, StateError, StateReader};
use crate::witness::Witness;

/// See the module's text.
pub struct PartialState<'w> {
    root: &'w B256,
    nodes: HashIndex<'w>,
    codes: HashIndex<'w>,
    /// The first thing that a reader found missing or malformed.
    fault: OnceLock<StateFault>,
}

/// A reader of a partial state. What it cannot answer is [`StateError::Partial`], and [`PartialState::fault`] has the particulars.
#[derive(Clone, Copy)]
pub struct PartialReader<'s, 'w> {
    state: &'s PartialState<'w>,
}

impl<'w> PartialState<'w> {
    /// Hashes what the witness holds.
    #[must_use]
    pub fn new(root: &'w B256, witness: &'w Witness) -> Self {
        Self {
            root,
            nodes: HashIndex::new(&witness.state),
            codes: HashIndex::new(&witness.codes),
            fault: OnceLock::new(),
        }
    }

    #[must_use]
    pub fn reader(&self) -> PartialReader<'_, 'w> {
        PartialReader { state: self }
    }

    /// The root of the whole.
    #[must_use]
    pub fn root(&self) -> &'w B256 {
        self.root
    }

    /// What a reader found missing or malformed first.
    #[must_use]
    pub fn fault(&self) -> Option<StateFault> {
        self.fault.get().cloned()
    }

    #[must_use]
    pub fn nodes(&self) -> &HashIndex<'w> {
        &self.nodes
    }

    #[must_use]
    pub fn codes(&self) -> &HashIndex<'w> {
        &self.codes
    }

    /// Marks a code as needed; `false`: it is not there.
    pub fn need_code(&mut self, hash: &B256) -> bool {
        let index = self.codes.find(hash);
        if let Some(index) = index {
            self.codes.mark_needed(index);
        }
        index.is_some()
    }

    /// Marks the nodes that reads of these accounts and slots come to. The root is among them even if nothing was read.
    ///
    /// # Errors
    /// The first node that is not there, or is none.
    pub fn need(&mut self, accounts: &[Address], slots: &[(Address, U256)]) -> Result<(), StateFault> {
        let account_keys = hash_all(accounts.len(), |index| accounts[index].as_slice());
        let slot_bytes: Vec<[u8; 32]> = slots.iter().map(|(_, slot)| slot.to_be_bytes()).collect();
        let slot_keys = hash_all(slots.len(), |index| slot_bytes[index].as_slice());
        let mut path = Vec::new();
        if let Some(index) = self.nodes.find(self.root) {
            path.push(index);
        }
        for key in &account_keys {
            self.nodes.walk(account_trie(self.root), key, |index| path.push(index))?;
        }
        for ((address, _), key) in slots.iter().zip(&slot_keys) {
            let owner = keccak256(address.as_slice());
            if let Some(account) = account_at(&self.nodes, self.root, &owner)? {
                let trie = Trie { root: account.storage_root, owner: Some(owner) };
                self.nodes.walk(trie, key, |index| path.push(index))?;
            }
        }
        path.iter().for_each(|index| self.nodes.mark_needed(*index));
        Ok(())
    }

    /// The root after a block's net changes. The nodes that it takes are marked as needed.
    ///
    /// # Errors
    /// A node on the way to a change, or a sibling that takes the place of a branch, that is not there or is none.
    pub fn root_after(&mut self, changes: &StateChanges) -> Result<B256, StateFault> {
        let change_count = changes.accounts.iter().map(|account| 1 + account.storage.len()).sum();
        let mut live = LiveState::new(self.root, &self.nodes, change_count);
        let root = live.commit(changes)?;
        let entry = |touched: Touched<'_>| match touched.rlp {
            TouchedRlp::Entry(index) => Some(index),
            TouchedRlp::Made(_) => None,
        };
        let touched: Vec<u32> = live.touched(0).filter_map(entry).collect();
        touched.into_iter().for_each(|index| self.nodes.mark_needed(index));
        Ok(root)
    }
}

fn account_trie(root: &B256) -> Trie<'_> {
    Trie { root, owner: None }
}

fn account_at<'w>(nodes: &HashIndex<'w>, root: &B256, key: &B256) -> Result<Option<AccountView<'w>>, StateFault> {
    let Some(value) = nodes.walk(account_trie(root), key, |_| ())? else { return Ok(None) };
    parse_account(value).map(Some).map_err(|fault| value_fault(nodes, account_trie(root), key, fault))
}

/// A malformed value, named by the node that holds it.
fn value_fault(nodes: &HashIndex<'_>, trie: Trie<'_>, key: &B256, fault: NodeFault) -> StateFault {
    let mut last = None;
    // It was found a moment ago, so that this walk ends like that one.
    let _ = nodes.walk(trie, key, |index| last = Some(index));
    let hash = last.map_or(*trie.root, |index| keccak256(nodes.bytes(index)));
    At { owner: trie.owner, hash, depth: super::node::KEY_NIBBLES, after_extension: false }.malformed(key, fault)
}

impl<'w> PartialReader<'_, 'w> {
    fn find_account(&self, key: &B256) -> Result<Option<AccountView<'w>>, StateFault> {
        account_at(&self.state.nodes, self.state.root, key)
    }

    fn find_slot(&self, address: &Address, slot: U256) -> Result<U256, StateFault> {
        let owner = keccak256(address.as_slice());
        let Some(account) = self.find_account(&owner)? else { return Ok(U256::ZERO) };
        if *account.storage_root == ROOT_EMPTY {
            return Ok(U256::ZERO);
        }
        let key = keccak256(&slot.to_be_bytes::<32>());
        let trie = Trie { root: account.storage_root, owner: Some(owner) };
        let Some(value) = self.state.nodes.walk(trie, &key, |_| ())? else { return Ok(U256::ZERO) };
        parse_slot(value).map_err(|fault| value_fault(&self.state.nodes, trie, &key, fault))
    }

    fn prove(&self, trie: Trie<'_>, key: &B256) -> Result<Vec<Bytes>, StateFault> {
        let mut path = Vec::new();
        self.state.nodes.walk(trie, key, |index| path.push(self.state.nodes.bytes(index).clone()))?;
        Ok(path)
    }

    /// Keeps the first fault for whoever reports it.
    fn keep<T>(&self, result: Result<T, StateFault>) -> Result<T, StateError> {
        result.map_err(|fault| {
            self.state.fault.get_or_init(|| fault);
            StateError::Partial
        })
    }

    fn find_proof(&self, address: &Address, slots: &[U256]) -> Result<AccountProof, StateFault> {
        let owner = keccak256(address.as_slice());
        let account = self.find_account(&owner)?;
        let mut storage = Vec::with_capacity(slots.len());
        for slot in slots {
            let value = self.find_slot(address, *slot)?;
            let proof = match &account {
                Some(account) => {
                    let trie = Trie { root: account.storage_root, owner: Some(owner) };
                    self.prove(trie, &keccak256(&slot.to_be_bytes::<32>()))?
                }
                None => Vec::new(),
            };
            storage.push(SlotProof { slot: *slot, value, proof });
        }
        let account_proof = self.prove(account_trie(self.state.root), &owner)?;
        Ok(AccountProof { address: *address, account: account.map(Into::into), account_proof, storage })
    }
}

impl From<AccountView<'_>> for Account {
    fn from(view: AccountView<'_>) -> Self {
        let AccountView { nonce, balance_wei, storage_root, code_hash } = view;
        Self { nonce, balance_wei, code_hash: *code_hash, storage_root: *storage_root }
    }
}

impl StateReader for PartialReader<'_, '_> {
    fn root(&self) -> B256 {
        *self.state.root
    }

    fn account(&self, address: &Address) -> Result<Option<Account>, StateError> {
        let found = self.keep(self.find_account(&keccak256(address.as_slice())))?;
        Ok(found.map(Into::into))
    }

    fn storage(&self, address: &Address, slot: U256) -> Result<U256, StateError> {
        self.keep(self.find_slot(address, slot))
    }

    fn code(&self, code_hash: &B256) -> Result<Option<Bytes>, StateError> {
        Ok(self.state.codes.find(code_hash).map(|index| self.state.codes.bytes(index).clone()))
    }

    fn proof(&self, address: &Address, slots: &[U256]) -> Result<AccountProof, StateError> {
        self.keep(self.find_proof(address, slots))
    }
}
