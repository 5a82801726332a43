//! revm's journal, which also tells the world of codes that are fetched again.
//!
//! revm asks the world for a code once in a transaction and never for one that the transaction itself has made, while go-ethereum's
//! witness holds every code that was fetched, those among them: a contract that is called in the transaction that creates it, a
//! delegation that is followed in the transaction that sets it. So this journal looks whether it holds the code already before each load
//! that wants one, and says so. Everything else is revm's.

use revm::bytecode::Bytecode;
use revm::context::journaled_state::account::JournaledAccount;
use revm::context::journaled_state::{
    AccountInfoLoad, AccountLoad, JournalCheckpoint, JournalLoadError, StateLoad, TransferError,
};
use revm::context::{Journal, JournalEntry, JournalTr};
use revm::context_interface::context::{SStoreResult, SelfDestructResult};
use revm::primitives::hardfork::SpecId;
use revm::primitives::{AddressMap, AddressSet, HashSet, KECCAK_EMPTY, Log};
use revm::state::{Account, EvmState};

use crate::builder::world::{World, WorldError};
use crate::primitives::{Address, B256, U256};
use crate::state::StateReader;

type Loaded<T> = Result<StateLoad<T>, WorldError>;
type LoadedUnlessCold<T> = Result<T, JournalLoadError<WorldError>>;

/// See the module's text.
pub struct WitnessJournal<R: StateReader> {
    pub(super) inner: Journal<World<R>>,
}

impl<R: StateReader> WitnessJournal<R> {
    /// To be called before a load that wants the code of `address`.
    #[inline]
    fn code_wanted(&mut self, address: &Address) {
        if let Some(account) = self.inner.inner.state.get(address)
            && account.info.code_hash != KECCAK_EMPTY
            && let Some(code) = &account.info.code
        {
            self.inner.database.code_fetched(account.info.code_hash, code);
        }
    }

    /// Whether a load that is not to happen when the account is cold will not happen.
    fn is_skipped(&self, address: &Address, skip_cold_load: bool) -> bool {
        let journal = &self.inner.inner;
        skip_cold_load
            && journal.state.get(address).is_none_or(|account| account.is_cold_transaction_id(journal.transaction_id))
            && journal.warm_addresses.is_cold(address)
    }
}

impl<R: StateReader> JournalTr for WitnessJournal<R> {
    type Database = World<R>;
    type State = EvmState;
    type JournaledAccount<'a>
        = JournaledAccount<'a, World<R>, JournalEntry>
    where
        R: 'a;

    fn new(database: World<R>) -> Self {
        Self { inner: Journal::new(database) }
    }

    fn db_and_state(&self) -> (&World<R>, &EvmState) {
        self.inner.db_and_state()
    }

    #[inline]
    fn db_and_state_mut(&mut self) -> (&mut World<R>, &mut EvmState) {
        self.inner.db_and_state_mut()
    }

    fn sload(&mut self, address: Address, key: U256) -> Loaded<U256> {
        self.inner.sload(address, key)
    }

    #[inline]
    fn sload_skip_cold_load(&mut self, address: Address, key: U256, skip: bool) -> LoadedUnlessCold<StateLoad<U256>> {
        self.inner.sload_skip_cold_load(address, key, skip)
    }

    fn sstore(&mut self, address: Address, key: U256, value: U256) -> Loaded<SStoreResult> {
        self.inner.sstore(address, key, value)
    }

    #[inline]
    fn sstore_skip_cold_load(
        &mut self,
        address: Address,
        key: U256,
        value: U256,
        skip: bool,
    ) -> LoadedUnlessCold<StateLoad<SStoreResult>> {
        self.inner.sstore_skip_cold_load(address, key, value, skip)
    }

    fn tload(&mut self, address: Address, key: U256) -> U256 {
        self.inner.tload(address, key)
    }

    fn tstore(&mut self, address: Address, key: U256, value: U256) {
        self.inner.tstore(address, key, value);
    }

    fn log(&mut self, log: Log) {
        JournalTr::log(&mut self.inner, log);
    }

    #[inline]
    fn take_logs(&mut self) -> Vec<Log> {
        JournalTr::take_logs(&mut self.inner)
    }

    #[inline]
    fn logs(&self) -> &[Log] {
        self.inner.logs()
    }

    fn selfdestruct(
        &mut self,
        address: Address,
        target: Address,
        skip: bool,
    ) -> LoadedUnlessCold<StateLoad<SelfDestructResult>> {
        JournalTr::selfdestruct(&mut self.inner, address, target, skip)
    }

    #[inline]
    fn warm_access_list(&mut self, access_list: AddressMap<HashSet<U256>>) {
        self.inner.warm_access_list(access_list);
    }

    #[inline]
    fn warm_coinbase_account(&mut self, address: Address) {
        self.inner.warm_coinbase_account(address);
    }

    #[inline]
    fn warm_precompiles(&mut self, addresses: &AddressSet) {
        self.inner.warm_precompiles(addresses);
    }

    #[inline]
    fn precompile_addresses(&self) -> &AddressSet {
        self.inner.precompile_addresses()
    }

    #[inline]
    fn set_spec_id(&mut self, spec_id: SpecId) {
        JournalTr::set_spec_id(&mut self.inner, spec_id);
    }

    #[inline]
    fn set_eip7708_config(&mut self, disabled: bool, eip8246_delayed_clear_disabled: bool) {
        JournalTr::set_eip7708_config(&mut self.inner, disabled, eip8246_delayed_clear_disabled);
    }

    #[inline]
    fn touch_account(&mut self, address: Address) {
        self.inner.touch_account(address);
    }

    #[inline]
    fn transfer(&mut self, from: Address, to: Address, balance: U256) -> Result<Option<TransferError>, WorldError> {
        JournalTr::transfer(&mut self.inner, from, to, balance)
    }

    #[inline]
    fn transfer_loaded(&mut self, from: Address, to: Address, balance: U256) -> Option<TransferError> {
        JournalTr::transfer_loaded(&mut self.inner, from, to, balance)
    }

    #[allow(deprecated, reason = "the trait demands it")]
    fn caller_accounting_journal_entry(&mut self, address: Address, old_balance: U256, bump_nonce: bool) {
        JournalTr::caller_accounting_journal_entry(&mut self.inner, address, old_balance, bump_nonce);
    }

    #[inline]
    fn balance_incr(&mut self, address: Address, balance: U256) -> Result<(), WorldError> {
        JournalTr::balance_incr(&mut self.inner, address, balance)
    }

    #[allow(deprecated, reason = "the trait demands it")]
    fn nonce_bump_journal_entry(&mut self, address: Address) {
        JournalTr::nonce_bump_journal_entry(&mut self.inner, address);
    }

    #[inline]
    fn load_account(&mut self, address: Address) -> Loaded<&Account> {
        JournalTr::load_account(&mut self.inner, address)
    }

    #[inline]
    fn load_account_with_code(&mut self, address: Address) -> Loaded<&Account> {
        self.code_wanted(&address);
        self.inner.load_account_with_code(address)
    }

    #[inline]
    fn load_account_delegated(&mut self, address: Address) -> Loaded<AccountLoad> {
        self.code_wanted(&address);
        JournalTr::load_account_delegated(&mut self.inner, address)
    }

    #[inline]
    fn load_account_mut_skip_cold_load(
        &mut self,
        address: Address,
        skip: bool,
    ) -> LoadedUnlessCold<StateLoad<Self::JournaledAccount<'_>>> {
        self.inner.load_account_mut_skip_cold_load(address, skip)
    }

    #[inline]
    fn load_account_mut_optional_code(
        &mut self,
        address: Address,
        load_code: bool,
    ) -> Loaded<Self::JournaledAccount<'_>> {
        if load_code {
            self.code_wanted(&address);
        }
        JournalTr::load_account_mut_optional_code(&mut self.inner, address, load_code)
    }

    #[inline]
    fn set_code_with_hash(&mut self, address: Address, code: Bytecode, hash: B256) {
        JournalTr::set_code_with_hash(&mut self.inner, address, code, hash);
    }

    #[inline]
    fn checkpoint(&mut self) -> JournalCheckpoint {
        JournalTr::checkpoint(&mut self.inner)
    }

    #[inline]
    fn checkpoint_commit(&mut self) {
        JournalTr::checkpoint_commit(&mut self.inner);
    }

    #[inline]
    fn checkpoint_revert(&mut self, checkpoint: JournalCheckpoint) {
        JournalTr::checkpoint_revert(&mut self.inner, checkpoint);
    }

    #[inline]
    fn create_account_checkpoint(
        &mut self,
        caller: Address,
        address: Address,
        balance: U256,
        spec_id: SpecId,
    ) -> Result<JournalCheckpoint, TransferError> {
        JournalTr::create_account_checkpoint(&mut self.inner, caller, address, balance, spec_id)
    }

    #[inline]
    fn depth(&self) -> usize {
        JournalTr::depth(&self.inner)
    }

    #[inline]
    fn commit_tx(&mut self) {
        JournalTr::commit_tx(&mut self.inner);
    }

    #[inline]
    fn discard_tx(&mut self) {
        JournalTr::discard_tx(&mut self.inner);
    }

    #[inline]
    fn finalize(&mut self) -> EvmState {
        JournalTr::finalize(&mut self.inner)
    }

    #[inline]
    fn load_account_info_skip_cold_load(
        &mut self,
        address: Address,
        load_code: bool,
        skip: bool,
    ) -> LoadedUnlessCold<AccountInfoLoad<'_>> {
        if load_code && !self.is_skipped(&address, skip) {
            self.code_wanted(&address);
        }
        self.inner.load_account_info_skip_cold_load(address, load_code, skip)
    }
}
