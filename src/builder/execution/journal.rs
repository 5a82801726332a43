//! revm's journal, which also tells the world of codes that are fetched again.
//!
//! revm asks the world for a code once in a transaction and never for one that the transaction itself has made, while go-ethereum's
//! witness holds every code that was fetched, those among them: a contract that is called in the transaction that creates it, a
//! delegation that is followed in the transaction that sets it. So this journal looks whether it holds the code already before each load
//! that wants one, and says so.
//!
//! revm also loads the account behind a delegation (EIP-7702) when a call is paid for, go-ethereum when the call begins. A call that fails
//! in between, for want of balance or depth, asks go-ethereum for nothing, and the account may be in no witness. For such calls
//! ([`calls`]) the account is only warmed: a place is held for it, and it is loaded when somebody wants to know it.
//! Everything else is revm's.

use std::borrow::Cow;

use revm::bytecode::{Bytecode, opcode};
use revm::context::journaled_state::account::JournaledAccount;
use revm::context::journaled_state::entry::JournalEntryTr as _;
use revm::context::journaled_state::{
    AccountInfoLoad, AccountLoad, JournalCheckpoint, JournalLoadError, StateLoad, TransferError,
};
use revm::context::{Journal, JournalEntry, JournalTr};
use revm::context_interface::context::{SStoreResult, SelfDestructResult};
use revm::database_interface::Database as _;
use revm::handler::instructions::EthInstructions;
use revm::interpreter::instructions::contract;
use revm::interpreter::interpreter::EthInterpreter;
use revm::interpreter::interpreter_types::InputsTr as _;
use revm::interpreter::{Instruction, InstructionContext, InstructionExecResult};
use revm::primitives::constants::CALL_STACK_LIMIT;
use revm::primitives::hardfork::SpecId;
use revm::primitives::{AddressMap, AddressSet, HashSet, KECCAK_EMPTY, Log};
use revm::state::{Account, AccountInfo, AccountStatus, EvmState};

use super::EvmContext;
use crate::builder::world::{World, WorldError};
use crate::primitives::{Address, B256, U256};
use crate::state::StateReader;

/// Of every call, before anything else: a warm access (EIP-2929).
const CALL_GAS: u16 = 100;

type Loaded<T> = Result<StateLoad<T>, WorldError>;
type LoadedUnlessCold<T> = Result<T, JournalLoadError<WorldError>>;

/// See the module's text.
pub struct WitnessJournal<R: StateReader> {
    pub(super) inner: Journal<World<R>>,
    /// The call that is being paid for will not begin.
    call_fails: bool,
    /// Accounts loaded for it: first the one called, then the one that it delegates to.
    call_loads: u32,
    /// Accounts that are warm in this transaction and not loaded; next to always none.
    held_places: Vec<Address>,
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

    /// To be called before a load: puts the account where only a place is held for it.
    #[inline]
    fn wanted(&mut self, address: &Address) -> Result<(), WorldError> {
        if self.held_places.is_empty() { Ok(()) } else { self.fill_place(address) }
    }

    #[cold]
    fn fill_place(&mut self, address: &Address) -> Result<(), WorldError> {
        let Some(at) = self.held_places.iter().position(|held| held == address) else { return Ok(()) };
        let Some(info) = self.inner.database.basic(*address)? else {
            // A place looks like an account that does not exist.
            self.held_places.swap_remove(at);
            return Ok(());
        };
        if let Some(place) = self.inner.inner.state.get_mut(address) {
            let mut account = Account::from(info);
            account.transaction_id = place.transaction_id;
            account.status |= place.status & AccountStatus::Cold;
            *place = account;
        }
        self.held_places.swap_remove(at);
        Ok(())
    }

    /// Warms the account behind a delegation that will not be followed.
    #[cold]
    fn hold_place(&mut self, address: Address, skip: bool) -> LoadedUnlessCold<AccountInfoLoad<'_>> {
        let journal = &mut self.inner.inner;
        if journal.state.contains_key(&address) {
            return self.inner.load_account_info_skip_cold_load(address, false, skip);
        }
        let is_cold = journal.warm_addresses.check_is_cold(&address, skip)?;
        journal.state.insert(address, Account::new_not_existing(journal.transaction_id));
        if is_cold {
            journal.journal.push(JournalEntry::account_warmed(address));
        }
        self.held_places.push(address);
        Ok(AccountInfoLoad { account: Cow::Owned(AccountInfo::default()), is_cold, is_empty: true })
    }

    /// Forgets places that nobody wanted: they are no accounts.
    fn drop_places(&mut self) {
        for address in self.held_places.drain(..) {
            self.inner.inner.state.remove(&address);
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
        Self { inner: Journal::new(database), call_fails: false, call_loads: 0, held_places: Vec::new() }
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
        if !self.is_skipped(&target, skip) {
            self.wanted(&target)?;
        }
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
        self.wanted(&from)?;
        self.wanted(&to)?;
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
        self.wanted(&address)?;
        JournalTr::balance_incr(&mut self.inner, address, balance)
    }

    #[allow(deprecated, reason = "the trait demands it")]
    fn nonce_bump_journal_entry(&mut self, address: Address) {
        JournalTr::nonce_bump_journal_entry(&mut self.inner, address);
    }

    #[inline]
    fn load_account(&mut self, address: Address) -> Loaded<&Account> {
        self.wanted(&address)?;
        JournalTr::load_account(&mut self.inner, address)
    }

    #[inline]
    fn load_account_with_code(&mut self, address: Address) -> Loaded<&Account> {
        self.wanted(&address)?;
        self.code_wanted(&address);
        self.inner.load_account_with_code(address)
    }

    #[inline]
    fn load_account_delegated(&mut self, address: Address) -> Loaded<AccountLoad> {
        let account = self.load_account_info_skip_cold_load(address, true, false);
        let account = account.map_err(JournalLoadError::unwrap_db_error)?;
        let (is_cold, is_empty) = (account.is_cold, account.is_empty);
        let delegate = account.account.code.as_ref().and_then(Bytecode::eip7702_address);
        let is_delegate_account_cold = match delegate {
            Some(delegate) => Some(self.load_account_with_code(delegate)?.is_cold),
            None => None,
        };
        Ok(StateLoad::new(AccountLoad { is_delegate_account_cold, is_empty }, is_cold))
    }

    #[inline]
    fn load_account_mut_skip_cold_load(
        &mut self,
        address: Address,
        skip: bool,
    ) -> LoadedUnlessCold<StateLoad<Self::JournaledAccount<'_>>> {
        if !self.is_skipped(&address, skip) {
            self.wanted(&address)?;
        }
        self.inner.load_account_mut_skip_cold_load(address, skip)
    }

    #[inline]
    fn load_account_mut_optional_code(
        &mut self,
        address: Address,
        load_code: bool,
    ) -> Loaded<Self::JournaledAccount<'_>> {
        self.wanted(&address)?;
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
        // The entries that are taken back name the places.
        JournalTr::discard_tx(&mut self.inner);
        self.drop_places();
    }

    #[inline]
    fn finalize(&mut self) -> EvmState {
        self.drop_places();
        JournalTr::finalize(&mut self.inner)
    }

    #[inline]
    fn load_account_info_skip_cold_load(
        &mut self,
        address: Address,
        load_code: bool,
        skip: bool,
    ) -> LoadedUnlessCold<AccountInfoLoad<'_>> {
        if self.call_fails {
            self.call_loads += 1;
            if self.call_loads > 1 {
                return self.hold_place(address, skip);
            }
        }
        if (load_code || !self.held_places.is_empty()) && !self.is_skipped(&address, skip) {
            self.wanted(&address)?;
            if load_code {
                self.code_wanted(&address);
            }
        }
        self.inner.load_account_info_skip_cold_load(address, load_code, skip)
    }
}

/// The instructions of a rule set, with calls that say beforehand whether they will begin.
pub fn instructions<R: StateReader>(spec: SpecId) -> EthInstructions<EthInterpreter, EvmContext<R>> {
    let mut table = EthInstructions::new_mainnet_with_spec(spec);
    table.insert_instruction(opcode::CALL, Instruction::new(call::<{ opcode::CALL }, R>), CALL_GAS);
    table.insert_instruction(opcode::CALLCODE, Instruction::new(call::<{ opcode::CALLCODE }, R>), CALL_GAS);
    table.insert_instruction(opcode::DELEGATECALL, Instruction::new(call::<{ opcode::DELEGATECALL }, R>), CALL_GAS);
    table.insert_instruction(opcode::STATICCALL, Instruction::new(call::<{ opcode::STATICCALL }, R>), CALL_GAS);
    table
}

/// revm's call, which fails after it was paid for when the value is not there or the stack of calls is full.
fn call<const KIND: u8, R: StateReader>(
    context: InstructionContext<'_, EvmContext<R>, EthInterpreter>,
) -> InstructionExecResult {
    let InstructionContext { interpreter, host } = context;
    let too_deep = interpreter.input.depth() + 1 > CALL_STACK_LIMIT as usize;
    // Value is the third word of the calls that have one; without it the instruction itself says what is wrong.
    let value = match KIND {
        opcode::CALL | opcode::CALLCODE => interpreter.stack.data().iter().rev().nth(2).copied().unwrap_or_default(),
        _ => U256::ZERO,
    };
    let too_poor = !value.is_zero() && {
        let caller = interpreter.input.target_address();
        let state = &host.journaled_state.inner.inner.state;
        state.get(&caller).is_some_and(|account| account.info.balance < value)
    };
    host.journaled_state.call_fails = too_deep || too_poor;
    host.journaled_state.call_loads = 0;
    let result = contract::call::<KIND, _, _>(InstructionContext { interpreter, host: &mut *host });
    host.journaled_state.call_fails = false;
    result
}
