//! The first version of a chain's state.

use alloy_primitives::{Address, B256, Bytes, U256};

use crate::crypto::keccak::keccak256;
use crate::state::{AccountChange, AccountInfo, CODE_HASH_EMPTY, StateChanges, StateError, StateStore};

/// An account of a genesis file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GenesisAccount {
    pub address: Address,
    pub balance_wei: U256,
    pub nonce: u64,
    pub code: Bytes,
    pub storage: Vec<(U256, U256)>,
}

/// Commits the accounts of a genesis file on the empty state. Like go-ethereum, it keeps accounts that are empty.
pub fn from_alloc<S: StateStore>(
    store: &mut S,
    alloc: impl IntoIterator<Item = GenesisAccount>,
) -> Result<S::Reader, StateError> {
    let mut changes = StateChanges::default();
    for account in alloc {
        let code_hash = add_code(account.code, &mut changes.codes);
        let info = AccountInfo { nonce: account.nonce, balance_wei: account.balance_wei, code_hash };
        changes.accounts.push(AccountChange {
            address: account.address,
            account: Some(info),
            storage_cleared: false,
            storage: account.storage,
        });
    }
    let empty = store.empty();
    store.commit(&empty, &changes)
}

fn add_code(code: Bytes, codes: &mut Vec<(B256, Bytes)>) -> B256 {
    if code.is_empty() {
        return CODE_HASH_EMPTY;
    }
    let code_hash = keccak256(&code);
    codes.push((code_hash, code));
    code_hash
}
