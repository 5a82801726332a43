//! The state that a call executes on: a published root, what the open block changed since, and what the caller pretends.

use std::collections::HashMap;

use revm::Database;
use revm::bytecode::Bytecode;
use revm::database_interface::DBErrorMarker;
use revm::primitives::{KECCAK_EMPTY, StorageKey, StorageValue};
use revm::state::AccountInfo;

use crate::builder::block::{OpenBlock, StateDiff};
use crate::primitives::{Address, B256, Bytes, U256};
use crate::rpc::call_request::{AccountOverride, StorageOverride};
use crate::rpc::source::OpenPrefix;
use crate::state::{Snapshot, StateReader};

/// What the open block did to one account.
#[derive(Clone, Debug, Default)]
struct OverlayAccount {
    /// `None`: not touched itself, only slots were. `Some(None)`: deleted.
    account: Option<Option<AccountInfo>>,
    /// Slots that are not in `slots` are zero: the account was deleted on the way.
    storage_cleared: bool,
    slots: HashMap<U256, U256, foldhash::fast::RandomState>,
}

/// The state changes of the open block up to some point, by address. Grows with the block; kept by a query thread between calls.
#[derive(Default)]
pub struct PendingIndex {
    block: Option<OpenBlock>,
    diff_count: usize,
    accounts: HashMap<Address, OverlayAccount, foldhash::fast::RandomState>,
}

impl PendingIndex {
    /// Brings the index to the changes of `prefix`. It starts over when the block is another one, or when the prefix is shorter
    /// than what was indexed (a caller whose durable sequence was read earlier).
    pub fn advance(&mut self, prefix: OpenPrefix<'_>) {
        let same = self.block.as_ref().is_some_and(|block| same_block(block, prefix.block));
        let diff_count = prefix.diff_count();
        if !same || diff_count < self.diff_count {
            self.accounts.clear();
            self.diff_count = 0;
            self.block = Some(prefix.block.clone());
        }
        for diff in prefix.block.diffs.range(self.diff_count..diff_count) {
            self.apply(diff);
        }
        self.diff_count = diff_count;
    }

    fn apply(&mut self, diff: &StateDiff) {
        match *diff {
            StateDiff::Account { address, nonce, balance_wei, code_hash } => {
                let info = AccountInfo { balance: balance_wei, nonce, code_hash, code: None, ..AccountInfo::default() };
                self.accounts.entry(address).or_default().account = Some(Some(info));
            }
            StateDiff::Slot { address, slot, value } => {
                self.accounts.entry(address).or_default().slots.insert(slot, value);
            }
            StateDiff::Deleted { address } => {
                let entry = self.accounts.entry(address).or_default();
                entry.account = Some(None);
                entry.storage_cleared = true;
                entry.slots.clear();
            }
        }
    }

    fn code(&self, code_hash: &B256) -> Option<Bytes> {
        let block = self.block.as_ref()?;
        block.codes.iter().find(|(hash, _)| hash == code_hash).map(|(_, code)| code.clone())
    }
}

/// Two handles of one block: a block at the same height with another parent or time is another block.
fn same_block(first: &OpenBlock, second: &OpenBlock) -> bool {
    let ends = |block: &OpenBlock| block.transactions.get(0).map(|tx| tx.sequence);
    first.context == second.context && ends(first) == ends(second)
}

/// An account after overrides.
#[derive(Default)]
struct OverriddenAccount {
    balance_wei: Option<U256>,
    nonce: Option<u64>,
    code: Option<(B256, Bytecode)>,
    storage_replaced: bool,
    slots: HashMap<U256, U256, foldhash::fast::RandomState>,
}

/// Why a call cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state: {0}")]
pub struct CallStateError(String);

impl DBErrorMarker for CallStateError {}

/// Hashes of the blocks before the one that a call executes in.
pub trait BlockHashes {
    fn block_hash(&self, number: u64) -> Result<B256, String>;
}

/// Implements revm's database. Nothing is written back: every execution starts from here.
pub struct CallState<'a> {
    snapshot: &'a Snapshot,
    pending: Option<&'a PendingIndex>,
    overrides: HashMap<Address, OverriddenAccount, foldhash::fast::RandomState>,
    hashes: &'a dyn BlockHashes,
}

impl<'a> CallState<'a> {
    /// `pending` holds what happened after `snapshot`.
    pub fn new(
        snapshot: &'a Snapshot,
        pending: Option<&'a PendingIndex>,
        overrides: Vec<AccountOverride>,
        hashes: &'a dyn BlockHashes,
    ) -> Self {
        let mut accounts = HashMap::default();
        for account in overrides {
            let (storage_replaced, slots) = match account.storage {
                StorageOverride::None => (false, Vec::new()),
                StorageOverride::Full(slots) => (true, slots),
                StorageOverride::Diff(slots) => (false, slots),
            };
            let overridden = OverriddenAccount {
                balance_wei: account.balance_wei,
                nonce: account.nonce,
                code: account.code.map(|code| {
                    let bytecode = bytecode_of(code);
                    (bytecode.hash_slow(), bytecode)
                }),
                storage_replaced,
                slots: slots.into_iter().collect(),
            };
            accounts.insert(account.address, overridden);
        }
        Self { snapshot, pending, overrides: accounts, hashes }
    }

    /// The account without code bytes; `None` when it does not exist.
    pub fn account(&self, address: &Address) -> Result<Option<AccountInfo>, CallStateError> {
        let base = match self.pending.and_then(|pending| pending.accounts.get(address)?.account.clone()) {
            Some(found) => found,
            None => self.snapshot_account(address)?,
        };
        let Some(overridden) = self.overrides.get(address) else { return Ok(base) };
        let mut info = base.unwrap_or(AccountInfo { code: None, ..AccountInfo::default() });
        info.balance = overridden.balance_wei.unwrap_or(info.balance);
        info.nonce = overridden.nonce.unwrap_or(info.nonce);
        if let Some((hash, bytecode)) = &overridden.code {
            info.code_hash = *hash;
            info.code = Some(bytecode.clone());
        }
        Ok(Some(info))
    }

    fn snapshot_account(&self, address: &Address) -> Result<Option<AccountInfo>, CallStateError> {
        let found = self.snapshot.account(address).map_err(|error| CallStateError(error.to_string()))?;
        Ok(found.map(|account| AccountInfo {
            balance: account.balance_wei,
            nonce: account.nonce,
            code_hash: account.code_hash,
            code: None,
            ..AccountInfo::default()
        }))
    }

    /// The code of a hash that an account of this state has.
    pub fn code(&self, code_hash: &B256) -> Result<Bytes, CallStateError> {
        if *code_hash == KECCAK_EMPTY || code_hash.is_zero() {
            return Ok(Bytes::new());
        }
        if let Some(code) = self.pending.and_then(|pending| pending.code(code_hash)) {
            return Ok(code);
        }
        match self.snapshot.code(code_hash) {
            Ok(Some(code)) => Ok(code),
            Ok(None) => Err(CallStateError(format!("code {code_hash} is missing"))),
            Err(error) => Err(CallStateError(error.to_string())),
        }
    }

    fn slot(&self, address: &Address, slot: U256) -> Result<U256, CallStateError> {
        if let Some(overridden) = self.overrides.get(address) {
            match overridden.slots.get(&slot) {
                Some(value) => return Ok(*value),
                None if overridden.storage_replaced => return Ok(U256::ZERO),
                None => {}
            }
        }
        if let Some(account) = self.pending.and_then(|pending| pending.accounts.get(address)) {
            match account.slots.get(&slot) {
                Some(value) => return Ok(*value),
                None if account.storage_cleared => return Ok(U256::ZERO),
                None => {}
            }
        }
        self.snapshot.storage(address, slot).map_err(|error| CallStateError(error.to_string()))
    }
}

/// Code as revm wants it. Bytes that only begin like a delegation (EIP-7702) are ordinary, invalid code: revm's own constructor panics.
fn bytecode_of(code: Bytes) -> Bytecode {
    Bytecode::new_raw_checked(code.clone()).unwrap_or_else(|_| Bytecode::new_legacy(code))
}

impl Database for CallState<'_> {
    type Error = CallStateError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Self::Error> {
        self.account(&address)
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, Self::Error> {
        let overridden =
            self.overrides.values().find_map(|account| account.code.as_ref().filter(|(hash, _)| *hash == code_hash));
        match overridden {
            Some((_, bytecode)) => Ok(bytecode.clone()),
            None => Ok(bytecode_of(self.code(&code_hash)?)),
        }
    }

    fn storage(&mut self, address: Address, index: StorageKey) -> Result<StorageValue, Self::Error> {
        self.slot(&address, index)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Self::Error> {
        self.hashes.block_hash(number).map_err(CallStateError)
    }
}
