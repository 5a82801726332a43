//! The state as the builder core sees it: the newest sealed snapshot, under everything that the open block has already changed.
//!
//! One owner, the builder core. Values once read stay in a flat cache across blocks (the builder is the only writer of the chain's
//! state, so its cache cannot be stale); what the open block changed is remembered and leaves as [`StateChanges`] when it closes.
//! revm reads through `Database` and writes through `DatabaseCommit`, once per transaction: a slot counts as changed when its value
//! differs from ours, never by revm's own `is_changed`, whose base moves with every transaction.
//! What execution asks for through `Database` is on record until the block ends ([`access`]); every other reader leaves no trace.

pub mod access;

use std::collections::{HashMap, HashSet};

use alloy_eips::eip4895::Withdrawal;
use foldhash::fast::RandomState;
use revm::bytecode::Bytecode;
use revm::database_interface::{DBErrorMarker, Database, DatabaseCommit};
use revm::primitives::{AddressMap, KECCAK_EMPTY};
use revm::state::{Account as EvmAccount, AccountInfo as EvmAccountInfo};

use access::{AccessLog, AccessMark, Accesses};

use crate::builder::block::StateDiff;
use crate::limits;
use crate::primitives::{Address, B256, Bytes, U256};
use crate::state::{AccountChange, AccountInfo, Snapshot, StateChanges, StateError, StateReader};

/// A failed read of the state under the block: fatal for the process, never the sender's fault.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WorldError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("code {0} is named by an account and not in the state")]
    CodeMissing(B256),
    #[error("the hash of block {0}, which BLOCKHASH reaches, was never made known")]
    BlockHashUnknown(u64),
}

impl DBErrorMarker for WorldError {}

/// An account under the open block. `exists: false` is an account that the state does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorldAccount {
    pub nonce: u64,
    pub balance_wei: U256,
    pub code_hash: B256,
    pub exists: bool,
}

impl WorldAccount {
    const ABSENT: Self = Self { nonce: 0, balance_wei: U256::ZERO, code_hash: KECCAK_EMPTY, exists: false };

    #[must_use]
    pub fn has_code(&self) -> bool {
        self.code_hash != KECCAK_EMPTY
    }
}

impl Default for WorldAccount {
    fn default() -> Self {
        Self::ABSENT
    }
}

struct CachedAccount {
    now: WorldAccount,
    /// The block that last changed it; its first change in a block puts it on the dirty list.
    dirty_block: u64,
    /// The opening of a block in which execution last asked for it: see [`AccessLog`].
    accessed: u64,
    storage_cleared: bool,
}

struct CachedSlot {
    now: U256,
    at_block_start: U256,
    dirty_block: u64,
    /// As that of an account.
    accessed: u64,
}

impl CachedSlot {
    const EMPTY: Self = Self { now: U256::ZERO, at_block_start: U256::ZERO, dirty_block: 0, accessed: 0 };
}

struct CachedCode {
    code: Bytecode,
    /// As that of an account.
    accessed: u64,
}

/// See the module's text. `R` is what it stands on: the state's newest version, an older one, or a witness.
pub struct World<R = Snapshot> {
    snapshot: R,
    accounts: HashMap<Address, CachedAccount, RandomState>,
    slots: HashMap<(Address, U256), CachedSlot, RandomState>,
    codes: HashMap<B256, CachedCode, RandomState>,
    access: AccessLog,
    block_number: u64,
    dirty_accounts: Vec<Address>,
    dirty_slots: Vec<(Address, U256)>,
    new_codes: Vec<(B256, Bytes)>,
    new_code_hashes: HashSet<B256, RandomState>,
    /// What the last commit changed, in the order in which readers must apply it.
    diffs: Vec<StateDiff>,
    /// Hashes of the last 256 blocks, at `number % 256`.
    block_hashes: Box<[B256; 256]>,
    /// Accounts, or slots, above which their cache is emptied between blocks.
    entries_max: usize,
    /// The same for codes.
    codes_max: usize,
}

impl<R: StateReader> World<R> {
    /// A world that lasts, with caches that are emptied when they have grown past their limits.
    #[must_use]
    pub fn new(snapshot: R) -> Self {
        let mut world = Self::with_room(snapshot, limits::WORLD_ROOM);
        world.slots.reserve(limits::WORLD_ROOM);
        world.entries_max = limits::WORLD_ENTRIES_MAX;
        world.codes_max = limits::WORLD_CODES_MAX;
        world
    }

    /// A world that lives for a block or a few and forgets nothing, with room for as many accounts as they are expected to
    /// touch: what one of its blocks deploys may be nowhere else when the next one calls it.
    #[must_use]
    pub fn with_room(snapshot: R, account_count: usize) -> Self {
        Self {
            snapshot,
            accounts: HashMap::with_capacity_and_hasher(account_count, RandomState::default()),
            slots: HashMap::with_hasher(RandomState::default()),
            codes: HashMap::with_hasher(RandomState::default()),
            access: AccessLog::default(),
            block_number: 0,
            dirty_accounts: Vec::with_capacity(account_count),
            dirty_slots: Vec::new(),
            new_codes: Vec::new(),
            new_code_hashes: HashSet::with_hasher(RandomState::default()),
            diffs: Vec::with_capacity(64),
            block_hashes: Box::new([B256::ZERO; 256]),
            entries_max: usize::MAX,
            codes_max: usize::MAX,
        }
    }

    /// Writes to every page of the caches, which must be empty: nobody waits for the kernel when they fill, and the process does not go on growing
    /// by a page for each new slot that a block's system calls write. Takes tens of milliseconds.
    pub fn touch(&mut self) {
        assert!(self.accounts.is_empty() && self.slots.is_empty());
        let addresses = (0..self.accounts.capacity()).map(|n| Address::left_padding_from(&n.to_be_bytes()));
        let (now, dirty_block, accessed) = (WorldAccount::ABSENT, 0, 0);
        let account = || CachedAccount { now, dirty_block, accessed, storage_cleared: false };
        self.accounts.extend(addresses.map(|address| (address, account())));
        self.accounts.clear();
        let slots = (0..self.slots.capacity()).map(|n| (Address::ZERO, U256::from(n)));
        self.slots.extend(slots.map(|slot| (slot, CachedSlot::EMPTY)));
        self.slots.clear();
    }

    /// Names the block that changes belong to from now on. Nothing of an earlier block may be left untaken.
    pub fn begin_block(&mut self, number: u64) {
        self.block_number = number;
        self.access.begin();
        self.trim();
    }

    /// Empties a cache that has grown past its limit. Between blocks only: what the open block changed lives in the caches.
    pub fn trim(&mut self) {
        assert!(self.dirty_accounts.is_empty());
        assert!(self.dirty_slots.is_empty());
        if self.accounts.len() > self.entries_max {
            self.accounts.clear();
        }
        if self.slots.len() > self.entries_max {
            self.slots.clear();
        }
        if self.codes.len() > self.codes_max {
            self.codes.clear();
        }
    }

    /// Takes the snapshot after the block whose changes were taken, and its hash for `BLOCKHASH`.
    pub fn sealed(&mut self, snapshot: R, number: u64, hash: B256) {
        self.snapshot = snapshot;
        // Nothing is dirty any more: what comes belongs to the next block.
        self.block_number = number + 1;
        self.set_block_hash(number, hash);
    }

    pub fn set_block_hash(&mut self, number: u64, hash: B256) {
        self.block_hashes[(number % 256) as usize] = hash;
    }

    /// What the last commit changed.
    #[must_use]
    pub fn diffs(&self) -> &[StateDiff] {
        &self.diffs
    }

    /// Codes that the open block has deployed so far, oldest first.
    #[must_use]
    pub fn new_codes(&self) -> &[(B256, Bytes)] {
        &self.new_codes
    }

    /// From here on a code that was deployed before is listed once more when it is deployed again: for who takes a block apart.
    pub fn list_codes_anew(&mut self) {
        self.new_code_hashes.clear();
    }

    /// The account under the open block.
    ///
    /// # Errors
    /// When the state below cannot be read.
    pub fn account(&mut self, address: Address) -> Result<WorldAccount, WorldError> {
        Ok(self.cached_account(address)?.now)
    }

    /// A storage slot under the open block.
    ///
    /// # Errors
    /// When the state below cannot be read.
    pub fn slot(&mut self, address: Address, slot: U256) -> Result<U256, WorldError> {
        Ok(self.cached_slot(address, slot)?.now)
    }

    /// The account under the open block, for a reader outside execution: the cache does not grow by it.
    ///
    /// # Errors
    /// When the state below cannot be read.
    pub fn peek_account(&self, address: Address) -> Result<WorldAccount, WorldError> {
        match self.accounts.get(&address) {
            Some(cached) => Ok(cached.now),
            None => self.sealed_account(&address),
        }
    }

    /// The slot under the open block, for a reader outside execution.
    ///
    /// # Errors
    /// When the state below cannot be read.
    pub fn peek_slot(&self, address: Address, slot: U256) -> Result<U256, WorldError> {
        match self.slots.get(&(address, slot)) {
            Some(cached) => Ok(cached.now),
            None if self.accounts.get(&address).is_some_and(|cached| cached.storage_cleared) => Ok(U256::ZERO),
            None => Ok(self.snapshot.storage(&address, slot)?),
        }
    }

    /// The account after the last sealed block.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn sealed_account(&self, address: &Address) -> Result<WorldAccount, WorldError> {
        sealed_account(&self.snapshot, address)
    }

    /// Code by hash, empty for the empty hash.
    ///
    /// # Errors
    /// When the state below cannot be read or does not hold a code that an account names.
    pub fn code(&mut self, hash: B256) -> Result<Bytecode, WorldError> {
        if hash == KECCAK_EMPTY || hash.is_zero() {
            return Ok(Bytecode::default());
        }
        Ok(self.cached_code(hash)?.code.clone())
    }

    fn cached_code(&mut self, hash: B256) -> Result<&mut CachedCode, WorldError> {
        use std::collections::hash_map::Entry;
        let entry = match self.codes.entry(hash) {
            Entry::Occupied(entry) => return Ok(entry.into_mut()),
            Entry::Vacant(entry) => entry,
        };
        let bytes = self.snapshot.code(&hash)?.ok_or(WorldError::CodeMissing(hash))?;
        // A genesis file may hold what EIP-3541 forbids to deploy; it runs as the bytes that it is.
        let code = Bytecode::new_raw_checked(bytes.clone()).unwrap_or_else(|_| Bytecode::new_legacy(bytes));
        Ok(entry.insert(CachedCode { code, accessed: 0 }))
    }

    /// Whether the open block has changed the account or its storage.
    #[must_use]
    pub fn is_dirty(&self, address: &Address) -> bool {
        self.accounts.get(address).is_some_and(|cached| cached.dirty_block == self.block_number)
    }

    /// The newest sealed state.
    #[must_use]
    pub fn snapshot(&self) -> &R {
        &self.snapshot
    }

    /// Net changes of the block, which ends here; slots that came back to their first value are left out.
    pub fn take_changes(&mut self) -> StateChanges {
        let mut index_of = HashMap::with_capacity_and_hasher(self.dirty_accounts.len(), RandomState::default());
        let mut accounts = Vec::with_capacity(self.dirty_accounts.len());
        for address in self.dirty_accounts.drain(..) {
            let cached = self.accounts.get_mut(&address).expect("dirty accounts stay cached until their block ends");
            index_of.insert(address, accounts.len());
            let account = cached.now.exists.then_some(AccountInfo {
                nonce: cached.now.nonce,
                balance_wei: cached.now.balance_wei,
                code_hash: cached.now.code_hash,
            });
            accounts.push(AccountChange {
                address,
                account,
                storage_cleared: cached.storage_cleared,
                storage: Vec::new(),
            });
            cached.storage_cleared = false;
        }
        for key in self.dirty_slots.drain(..) {
            let cached = self.slots.get_mut(&key).expect("dirty slots stay cached until their block ends");
            let index = *index_of.get(&key.0).expect("a changed slot marks its account");
            if cached.now != cached.at_block_start || accounts[index].storage_cleared {
                accounts[index].storage.push((key.1, cached.now));
            }
        }
        self.new_code_hashes.clear();
        StateChanges { accounts, codes: std::mem::take(&mut self.new_codes) }
    }

    /// Adds a withdrawal to its account (EIP-4895), and remembers the account as touched. [`World::diffs`] is what it changed.
    ///
    /// # Errors
    /// When the state below cannot be read.
    pub fn withdraw(&mut self, withdrawal: &Withdrawal) -> Result<(), WorldError> {
        self.diffs.clear();
        let address = withdrawal.address;
        self.basic(address)?;
        let account = self.account(address)?;
        // Gwei of 64 bits on a balance: the sum of all ether has fewer than 100 bits.
        let balance_wei = account.balance_wei.saturating_add(withdrawal.amount_wei());
        let next = WorldAccount { balance_wei, exists: true, ..account };
        let empty = next.nonce == 0 && next.balance_wei.is_zero() && !next.has_code();
        self.set_account(address, if empty { WorldAccount::ABSENT } else { next }, false)
    }

    /// The oldest block whose hash was asked for while the block is open.
    #[must_use]
    pub fn block_hash_lowest(&self) -> Option<u64> {
        self.access.block_hash_lowest
    }

    /// Where the record of accesses stands, for [`World::forget_accesses`].
    #[must_use]
    pub fn access_mark(&self) -> AccessMark {
        self.access.mark()
    }

    /// Takes back what execution has asked for since `mark`: the transaction was not included.
    pub fn forget_accesses(&mut self, mark: AccessMark) {
        for address in self.access.accounts.drain(mark.accounts..) {
            if let Some(cached) = self.accounts.get_mut(&address) {
                cached.accessed = 0;
            }
        }
        for key in self.access.slots.drain(mark.slots..) {
            if let Some(cached) = self.slots.get_mut(&key) {
                cached.accessed = 0;
            }
        }
        for hash in self.access.codes.drain(mark.codes..) {
            if let Some(cached) = self.codes.get_mut(&hash) {
                cached.accessed = 0;
            }
        }
        self.access.own_codes.truncate(mark.own_codes);
        self.access.block_hash_lowest = mark.block_hash_lowest;
    }

    /// What execution has asked for since the block began; the record starts anew.
    ///
    /// # Errors
    /// A code that was fetched and has left the cache and the state, which cannot be.
    pub fn take_accesses(&mut self) -> Result<Accesses, WorldError> {
        let codes = std::mem::take(&mut self.access.codes);
        let codes = codes.into_iter().map(|hash| Ok((hash, self.code(hash)?.original_bytes())));
        let codes = codes.collect::<Result<_, WorldError>>()?;
        let accesses = Accesses {
            accounts: std::mem::take(&mut self.access.accounts),
            slots: std::mem::take(&mut self.access.slots),
            codes,
            own_codes: std::mem::take(&mut self.access.own_codes),
            block_hash_lowest: self.access.block_hash_lowest,
            deleted_accounts: std::mem::take(&mut self.access.deleted_accounts),
            deleted_slots: std::mem::take(&mut self.access.deleted_slots),
        };
        self.access.begin();
        Ok(accesses)
    }

    /// As [`World::take_accesses`], behind what `all` holds already: for who looks at each transaction's record by itself.
    ///
    /// # Errors
    /// As [`World::take_accesses`].
    pub fn append_accesses(&mut self, all: &mut Accesses) -> Result<(), WorldError> {
        for index in 0..self.access.codes.len() {
            let hash = self.access.codes[index];
            let code = self.code(hash)?.original_bytes();
            all.codes.push((hash, code));
        }
        all.own_codes.append(&mut self.access.own_codes);
        all.accounts.append(&mut self.access.accounts);
        all.slots.append(&mut self.access.slots);
        all.deleted_accounts.append(&mut self.access.deleted_accounts);
        all.deleted_slots.append(&mut self.access.deleted_slots);
        all.block_hash_lowest = match (all.block_hash_lowest, self.access.block_hash_lowest) {
            (Some(all), Some(own)) => Some(all.min(own)),
            (all, own) => all.or(own),
        };
        self.access.begin();
        Ok(())
    }

    /// Exchanges what the world stands on for something that says the same of everything that is not in the caches.
    pub fn stand_on(&mut self, snapshot: R) {
        self.snapshot = snapshot;
    }

    /// Forgets what the open block has changed, as if it had never been opened.
    pub fn discard_changes(&mut self) {
        for address in self.dirty_accounts.drain(..) {
            self.accounts.remove(&address);
        }
        for key in self.dirty_slots.drain(..) {
            self.slots.remove(&key);
        }
        self.new_codes.clear();
        self.new_code_hashes.clear();
        self.diffs.clear();
    }

    fn cached_account(&mut self, address: Address) -> Result<&mut CachedAccount, WorldError> {
        use std::collections::hash_map::Entry;
        match self.accounts.entry(address) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let now = sealed_account(&self.snapshot, &address)?;
                Ok(entry.insert(CachedAccount { now, dirty_block: 0, accessed: 0, storage_cleared: false }))
            }
        }
    }

    fn cached_slot(&mut self, address: Address, slot: U256) -> Result<&mut CachedSlot, WorldError> {
        use std::collections::hash_map::Entry;
        match self.slots.entry((address, slot)) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let cleared = self.accounts.get(&address).is_some_and(|cached| cached.storage_cleared);
                let now = if cleared { U256::ZERO } else { self.snapshot.storage(&address, slot)? };
                Ok(entry.insert(CachedSlot { now, at_block_start: now, dirty_block: 0, accessed: 0 }))
            }
        }
    }

    /// Says that execution fetched a code which it holds itself: it was made, or fetched before, in the same transaction.
    #[inline]
    pub fn code_fetched(&mut self, hash: B256, code: &Bytecode) {
        let opening = self.access.opening();
        let cached = self.codes.entry(hash).or_insert_with(|| CachedCode { code: code.clone(), accessed: 0 });
        if std::mem::replace(&mut cached.accessed, opening) != opening {
            self.access.codes.push(hash);
            self.access.own_codes.push(hash);
        }
    }

    fn commit_account(&mut self, address: Address, account: EvmAccount) -> Result<(), WorldError> {
        let deleted = account.is_selfdestructed() || account.info.is_empty();
        let next = if deleted {
            WorldAccount::ABSENT
        } else {
            WorldAccount {
                nonce: account.info.nonce,
                balance_wei: account.info.balance,
                code_hash: account.info.code_hash,
                exists: true,
            }
        };
        let selfdestructed = account.is_selfdestructed();
        let is_created = account.is_created();
        if next.has_code() && self.account(address)?.code_hash != next.code_hash {
            let code = account.info.code.ok_or(WorldError::CodeMissing(next.code_hash))?;
            self.add_code(next.code_hash, code);
        }
        self.set_account(address, next, selfdestructed)?;
        if selfdestructed {
            return Ok(());
        }
        for (slot, value) in account.storage {
            if is_created {
                // revm reads no slot of an account that the transaction creates: it had none.
                self.slots.entry((address, slot)).or_insert(CachedSlot::EMPTY);
            }
            self.set_slot(address, slot, value.present_value)?;
        }
        Ok(())
    }

    fn set_account(&mut self, address: Address, next: WorldAccount, selfdestructed: bool) -> Result<(), WorldError> {
        let block_number = self.block_number;
        let cached = self.cached_account(address)?;
        if cached.now == next && !selfdestructed {
            return Ok(());
        }
        cached.now = next;
        cached.storage_cleared |= selfdestructed;
        let first_change = std::mem::replace(&mut cached.dirty_block, block_number) != block_number;
        if first_change {
            self.dirty_accounts.push(address);
        }
        self.diffs.push(if next.exists {
            StateDiff::Account { address, nonce: next.nonce, balance_wei: next.balance_wei, code_hash: next.code_hash }
        } else {
            self.access.deleted_accounts.push(address);
            StateDiff::Deleted { address }
        });
        Ok(())
    }

    fn set_slot(&mut self, address: Address, slot: U256, value: U256) -> Result<(), WorldError> {
        let block_number = self.block_number;
        let cached = self.cached_slot(address, slot)?;
        if cached.now == value {
            return Ok(());
        }
        if cached.dirty_block != block_number {
            cached.dirty_block = block_number;
            cached.at_block_start = cached.now;
            cached.now = value;
            self.dirty_slots.push((address, slot));
        } else {
            cached.now = value;
        }
        let account = self.cached_account(address)?;
        if std::mem::replace(&mut account.dirty_block, block_number) != block_number {
            self.dirty_accounts.push(address);
        }
        if value.is_zero() {
            self.access.deleted_slots.push((address, slot));
        }
        self.diffs.push(StateDiff::Slot { address, slot, value });
        Ok(())
    }

    fn add_code(&mut self, hash: B256, code: Bytecode) {
        if !self.new_code_hashes.insert(hash) {
            return;
        }
        self.new_codes.push((hash, code.original_bytes()));
        self.codes.entry(hash).or_insert(CachedCode { code, accessed: 0 });
    }
}

fn sealed_account(snapshot: &impl StateReader, address: &Address) -> Result<WorldAccount, WorldError> {
    Ok(snapshot.account(address)?.map_or(WorldAccount::ABSENT, |account| WorldAccount {
        nonce: account.nonce,
        balance_wei: account.balance_wei,
        code_hash: account.code_hash,
        exists: true,
    }))
}

impl<R: StateReader> Database for World<R> {
    type Error = WorldError;

    fn basic(&mut self, address: Address) -> Result<Option<EvmAccountInfo>, WorldError> {
        let opening = self.access.opening();
        let cached = self.cached_account(address)?;
        let account = cached.now;
        if std::mem::replace(&mut cached.accessed, opening) != opening {
            self.access.accounts.push(address);
        }
        Ok(account.exists.then_some(EvmAccountInfo {
            balance: account.balance_wei,
            nonce: account.nonce,
            code_hash: account.code_hash,
            account_id: None,
            // `None` makes revm ask for a code only when it runs it.
            code: None,
        }))
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, WorldError> {
        if code_hash == KECCAK_EMPTY || code_hash.is_zero() {
            return Ok(Bytecode::default());
        }
        let opening = self.access.opening();
        let cached = self.cached_code(code_hash)?;
        let code = cached.code.clone();
        if std::mem::replace(&mut cached.accessed, opening) != opening {
            self.access.codes.push(code_hash);
        }
        Ok(code)
    }

    fn storage(&mut self, address: Address, index: U256) -> Result<U256, WorldError> {
        let opening = self.access.opening();
        let cached = self.cached_slot(address, index)?;
        let value = cached.now;
        if std::mem::replace(&mut cached.accessed, opening) != opening {
            self.access.slots.push((address, index));
        }
        Ok(value)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, WorldError> {
        self.access.block_hash(number);
        match self.block_hashes[(number % 256) as usize] {
            B256::ZERO => Err(WorldError::BlockHashUnknown(number)),
            hash => Ok(hash),
        }
    }
}

impl<R: StateReader> DatabaseCommit for World<R> {
    fn commit(&mut self, changes: AddressMap<EvmAccount>) {
        self.diffs.clear();
        for (address, account) in changes {
            if !account.is_touched() {
                continue;
            }
            // Every account in `changes`, and every slot of one that was there, was read through us in this transaction, so it is cached and
            // nothing is read here.
            self.commit_account(address, account).expect("accounts and slots of a transaction are cached by its reads");
        }
    }
}

#[cfg(test)]
mod tests;
