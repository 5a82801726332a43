//! ERC-7796 conditions over the builder's world.

use crate::builder::world::{World, WorldAccount, WorldError};
use crate::mempool::{CodeView, ConditionState, Conditions, RootView, Verdict};
use crate::primitives::{Address, B256, U256};
use crate::state::{ROOT_EMPTY, StateReader};

/// Compares `conditions` with the open block's state, or with the last sealed one while no block is open.
///
/// # Errors
/// When the state cannot be read.
pub fn evaluate(
    conditions: &Conditions,
    world: &mut World,
    block_number: u64,
    timestamp: u64,
) -> Result<Verdict, WorldError> {
    let mut view = View { world, fault: None };
    let verdict = conditions.evaluate(&mut view, block_number, timestamp);
    view.fault.map_or(Ok(verdict), Err)
}

/// The evaluator's reads cannot fail; the first fault is kept and outweighs the verdict.
struct View<'a> {
    world: &'a mut World,
    fault: Option<WorldError>,
}

impl View<'_> {
    fn keep<T: Default>(&mut self, result: Result<T, WorldError>) -> T {
        result.unwrap_or_else(|fault| {
            self.fault.get_or_insert(fault);
            T::default()
        })
    }

    fn account(&mut self, address: &Address) -> WorldAccount {
        let result = self.world.peek_account(*address);
        self.keep(result)
    }
}

impl ConditionState for View<'_> {
    fn nonce(&mut self, address: &Address) -> u64 {
        self.account(address).nonce
    }

    fn balance_wei(&mut self, address: &Address) -> U256 {
        self.account(address).balance_wei
    }

    fn code(&mut self, address: &Address) -> CodeView {
        let account = self.account(address);
        let code = self.world.code(account.code_hash).map(|code| code.is_eip7702());
        CodeView { hash: account.code_hash, is_delegation: self.keep(code) }
    }

    fn storage(&mut self, address: &Address, slot: &B256) -> B256 {
        let value = self.world.peek_slot(*address, U256::from_be_bytes(slot.0));
        self.keep(value).into()
    }

    fn storage_root(&mut self, address: &Address) -> RootView {
        if self.world.is_dirty(address) {
            return RootView::Dirty;
        }
        let account = self.world.snapshot().account(address).map_err(WorldError::from);
        RootView::Hashed(self.keep(account).map_or(ROOT_EMPTY, |account| account.storage_root))
    }
}
