//! The part of a state that a witness holds: reads for execution, and the root after a block's changes.
//!
//! Input → output: the witness' nodes and codes under the parent's state root → accounts, slots and codes; net changes → the new root.
//! Owner core: any; one validation owns it.
//! Whatever is asked for and not there is an error that names it, never an absent account: absence is proved by the nodes on the way.

use std::sync::OnceLock;

use alloy_primitives::{Address, B256, Bytes, U256};

use super::node::{AccountView, NodeFault, parse_account, parse_slot};
use super::nodes::{At, HashIndex, StateFault, Trie};
use super::trie::{Child, TrieWriter};
use crate::crypto::keccak::{keccak256, keccak256_each};
use crate::state::{
    Account, AccountChange, AccountProof, ROOT_EMPTY, SlotProof, StateChanges, StateError, StateReader,
};
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

/// A slot and its value, or an account, ready to be written.
struct Write<T> {
    key: B256,
    value: Option<T>,
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
        let accounts = &changes.accounts;
        let keys = hash_all(accounts.len(), |index| accounts[index].address.as_slice());
        let change_count = accounts.iter().map(|account| 1 + account.storage.len()).sum();
        let mut trie = Child::of_root(self.root);
        let mut writer = TrieWriter::new(&mut self.nodes, change_count);
        let mut old_roots = Vec::with_capacity(accounts.len());
        for key in &keys {
            let root = match writer.read(&mut trie, key)? {
                None => None,
                Some(value) => {
                    let account = parse_account(value);
                    let named = |fault| value_fault(writer.nodes(), account_trie(self.root), key, fault);
                    Some(account.map_err(named)?.storage_root)
                }
            };
            old_roots.push(root);
        }
        let mut storage_tries = Vec::new();
        for ((account, key), root) in accounts.iter().zip(&keys).zip(&old_roots) {
            if has_storage_changes(account) {
                storage_tries.push(storage_after(&mut writer, account, key, *root)?);
            }
        }
        let mut storage_roots = writer.hash(&storage_tries).into_iter();

        let writes = accounts.iter().zip(keys).zip(&old_roots).map(|((account, key), old)| Write {
            key,
            value: account.account.map(|info| {
                let new = if has_storage_changes(account) { storage_roots.next() } else { None };
                let storage_root = new.or(old.copied()).unwrap_or(ROOT_EMPTY);
                Account { nonce: info.nonce, balance_wei: info.balance_wei, code_hash: info.code_hash, storage_root }
            }),
        });
        let writes: Vec<Write<Account>> = writes.collect();
        writer.set_owner(None);
        let mut rlp = Vec::with_capacity(ACCOUNT_RLP_BYTES_MAX);
        apply(&mut writer, &mut trie, &writes, &mut rlp, account_rlp)?;
        Ok(writer.hash(&[trie])[0])
    }
}

/// A balance of 32 bytes and a nonce of 8, two hashes, and headers.
const ACCOUNT_RLP_BYTES_MAX: usize = 112;

/// Whether the account stays and its storage may be another one.
fn has_storage_changes(account: &AccountChange) -> bool {
    account.account.is_some() && (account.storage_cleared || !account.storage.is_empty())
}

/// Deletions come last, as in go-ethereum: which siblings a collapsing branch needs depends on it.
fn apply<'w, T>(
    writer: &mut TrieWriter<'_, 'w>,
    trie: &mut Child<'w>,
    writes: &[Write<T>],
    rlp: &mut Vec<u8>,
    encode: impl Fn(&T, &mut Vec<u8>),
) -> Result<(), StateFault> {
    for write in writes {
        if let Some(value) = &write.value {
            rlp.clear();
            encode(value, rlp);
            writer.insert(trie, &write.key, rlp)?;
        }
    }
    for write in writes.iter().filter(|write| write.value.is_none()) {
        writer.delete(trie, &write.key)?;
    }
    Ok(())
}

/// The storage trie of an account after its changes, not hashed yet.
fn storage_after<'w>(
    writer: &mut TrieWriter<'_, 'w>,
    account: &AccountChange,
    owner: &B256,
    old_root: Option<&'w B256>,
) -> Result<Child<'w>, StateFault> {
    let mut trie = match old_root {
        Some(root) if !account.storage_cleared => Child::of_root(root),
        _ => Child::EMPTY,
    };
    let slots: Vec<[u8; 32]> = account.storage.iter().map(|(slot, _)| slot.to_be_bytes()).collect();
    let keys = hash_all(slots.len(), |index| slots[index].as_slice());
    let writes: Vec<Write<U256>> = keys
        .into_iter()
        .zip(&account.storage)
        .map(|(key, (_, value))| Write { key, value: (!value.is_zero()).then_some(*value) })
        .collect();
    writer.set_owner(Some(*owner));
    apply(writer, &mut trie, &writes, &mut Vec::with_capacity(33), |value, out| {
        alloy_rlp::Encodable::encode(value, out)
    })?;
    Ok(trie)
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

/// Hashes of messages, in lanes.
fn hash_all<'a>(count: usize, message: impl Fn(usize) -> &'a [u8]) -> Vec<B256> {
    let mut hashes = vec![B256::ZERO; count];
    keccak256_each(count, message, |index, hash| hashes[index] = hash);
    hashes
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
