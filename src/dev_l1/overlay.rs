//! A state and what a block has changed of it so far: revm's database, and the net changes afterwards.
//!
//! Two callers: the blocks of the development L1 over its own versions, and the precompile over the nodes of a witness, where
//! what is missing looks absent ([`Missing::Absent`]), as the L1 node has it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use alloy_primitives::map::AddressMap;
use revm::bytecode::Bytecode;
use revm::database_interface::DBErrorMarker;
use revm::primitives::{KECCAK_EMPTY, StorageKey, StorageValue};
use revm::state::{Account as EvmAccount, AccountInfo as EvmInfo};
use revm::{Database, DatabaseCommit};

use crate::primitives::{Address, B256, Bytes, U256};
use crate::state::{AccountChange, AccountInfo, StateChanges, StateError, StateReader};

/// What happens when the state below cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Execution ends: the state is ours, so it is damaged.
    Error,
    /// The account is empty, the slot zero, the code none.
    Absent,
}

/// The state below cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state: {0}")]
pub struct OverlayError(#[from] StateError);

impl DBErrorMarker for OverlayError {}

/// An account as the block has left it.
#[derive(Clone, Debug, Default)]
struct Changed {
    /// `None`: deleted.
    info: Option<AccountInfo>,
    /// Slots that are not listed are zero.
    storage_cleared: bool,
    storage: HashMap<U256, U256>,
}

/// Hashes of the blocks before.
pub type BlockHashes = dyn Fn(u64) -> B256;

/// See the module's text.
pub struct Overlay<'a, R> {
    below: R,
    missing: Missing,
    hashes: &'a BlockHashes,
    changed: HashMap<Address, Changed>,
    codes: HashMap<B256, Bytes>,
}

impl<'a, R: StateReader> Overlay<'a, R> {
    pub fn new(below: R, missing: Missing, hashes: &'a BlockHashes) -> Self {
        Self { below, missing, hashes, changed: HashMap::new(), codes: HashMap::new() }
    }

    fn ask<T: Default>(&self, answer: Result<T, StateError>) -> Result<T, OverlayError> {
        match (answer, self.missing) {
            (Ok(value), _) => Ok(value),
            (Err(_), Missing::Absent) => Ok(T::default()),
            (Err(error), Missing::Error) => Err(error.into()),
        }
    }

    /// An account at this point of the block.
    ///
    /// # Errors
    /// When the state below cannot be read.
    pub fn account(&self, address: &Address) -> Result<Option<AccountInfo>, OverlayError> {
        if let Some(changed) = self.changed.get(address) {
            return Ok(changed.info);
        }
        let below = self.ask(self.below.account(address))?;
        Ok(below.map(|account| AccountInfo {
            nonce: account.nonce,
            balance_wei: account.balance_wei,
            code_hash: account.code_hash,
        }))
    }

    /// Pretends that an account is another one: what the overrides of a call say.
    pub fn set_account(&mut self, address: Address, info: AccountInfo, code: Option<Bytes>) {
        if let Some(code) = code {
            self.codes.insert(info.code_hash, code);
        }
        self.changed.entry(address).or_default().info = Some(info);
    }

    /// A slot at this point of the block.
    ///
    /// # Errors
    /// When the state below cannot be read.
    pub fn slot(&self, address: &Address, slot: U256) -> Result<U256, OverlayError> {
        if let Some(changed) = self.changed.get(address) {
            if let Some(value) = changed.storage.get(&slot) {
                return Ok(*value);
            }
            if changed.storage_cleared {
                return Ok(U256::ZERO);
            }
        }
        self.ask(self.below.storage(address, slot))
    }

    /// Code by its hash; empty when there is none.
    ///
    /// # Errors
    /// When the state below cannot be read.
    pub fn code(&self, code_hash: &B256) -> Result<Bytes, OverlayError> {
        if *code_hash == KECCAK_EMPTY {
            return Ok(Bytes::new());
        }
        if let Some(code) = self.codes.get(code_hash) {
            return Ok(code.clone());
        }
        Ok(self.ask(self.below.code(code_hash))?.unwrap_or_default())
    }

    /// Everything that has changed.
    #[must_use]
    pub fn into_changes(self) -> StateChanges {
        let mut accounts: Vec<AccountChange> = self
            .changed
            .into_iter()
            .map(|(address, changed)| AccountChange {
                address,
                account: changed.info,
                storage_cleared: changed.storage_cleared,
                storage: if changed.info.is_some() { changed.storage.into_iter().collect() } else { Vec::new() },
            })
            .collect();
        // An order of its own, so that a block is the same bytes on each run.
        accounts.sort_unstable_by_key(|change| change.address);
        accounts.iter_mut().for_each(|change| change.storage.sort_unstable());
        let mut codes: Vec<(B256, Bytes)> = self.codes.into_iter().collect();
        codes.sort_unstable_by_key(|(hash, _)| *hash);
        StateChanges { accounts, codes }
    }

    fn commit_account(&mut self, address: Address, account: EvmAccount) {
        if !account.is_touched() {
            return;
        }
        let deleted = account.is_selfdestructed() || account.is_empty();
        let changed = match self.changed.entry(address) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Changed::default()),
        };
        if deleted {
            *changed = Changed { info: None, storage_cleared: true, storage: HashMap::new() };
            return;
        }
        if account.is_created() {
            changed.storage_cleared = true;
            changed.storage.clear();
        }
        let info = account.info;
        if let Some(code) = info.code.filter(|_| info.code_hash != KECCAK_EMPTY) {
            self.codes.entry(info.code_hash).or_insert_with(|| code.original_bytes());
        }
        changed.info = Some(AccountInfo { nonce: info.nonce, balance_wei: info.balance, code_hash: info.code_hash });
        let slots = account.storage.into_iter().filter(|(_, slot)| slot.is_changed());
        changed.storage.extend(slots.map(|(key, slot)| (key, slot.present_value)));
    }
}

impl<R: StateReader> Database for Overlay<'_, R> {
    type Error = OverlayError;

    fn basic(&mut self, address: Address) -> Result<Option<EvmInfo>, OverlayError> {
        Ok(self.account(&address)?.map(|info| EvmInfo {
            balance: info.balance_wei,
            nonce: info.nonce,
            code_hash: info.code_hash,
            code: None,
            ..EvmInfo::default()
        }))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, OverlayError> {
        let code = self.code(&code_hash)?;
        Ok(Bytecode::new_raw_checked(code.clone()).unwrap_or_else(|_| Bytecode::new_legacy(code)))
    }

    fn storage(&mut self, address: Address, slot: StorageKey) -> Result<StorageValue, OverlayError> {
        self.slot(&address, slot)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, OverlayError> {
        Ok((self.hashes)(number))
    }
}

impl<R: StateReader> DatabaseCommit for Overlay<'_, R> {
    fn commit(&mut self, changes: AddressMap<EvmAccount>) {
        for (address, account) in changes {
            self.commit_account(address, account);
        }
    }
}
