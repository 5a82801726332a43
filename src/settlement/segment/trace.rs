//! What each step of a block asked for and changed: the block is executed once, and cut by this record.
//!
//! A step is the opening, a transaction, or the closing. All lists are flat, with the end of each step in them.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use foldhash::fast::RandomState;

use crate::builder::block::StateDiff;
use crate::builder::block_execution::{BlockExecutionError, ExecutedBlock, Receipt, receipts_root};
use crate::builder::execution::{ExecutionError, Executor};
use crate::builder::world::access::Accesses;
use crate::builder::world::{World, WorldError};
use crate::config::genesis::ChainSpec;
use crate::primitives::{Address, B256, Bytes, U256};
use crate::settlement::execution::{RunReader, known_accounts};
use crate::state::{AccountChange, AccountInfo, StateChanges};
use crate::witness::validator::ancestors::Ancestors;
use crate::witness::validator::live_state::{LiveState, hash_all};
use crate::witness::validator::partial_state::PartialState;
use crate::witness::validator::{StatelessBlock, ValidationError, check_outcome, context_of, execution_fault, rules};

/// Where the lists of a step end.
#[derive(Clone, Copy, Default)]
struct Ends {
    accounts: usize,
    slots: usize,
    codes: usize,
    own_codes: usize,
    deleted: usize,
    diffs: usize,
    made_codes: usize,
    block_hash_lowest: Option<u64>,
}

/// See the module's text.
pub struct Trace {
    ends: Vec<Ends>,
    account_keys: Vec<B256>,
    /// Hash of the account's address, and of the slot.
    slot_keys: Vec<(B256, B256)>,
    codes: Vec<(B256, Bytes)>,
    /// Accounts and slots that a step left deleted.
    deleted_keys: Vec<(Option<B256>, B256)>,
    diffs: Vec<StateDiff>,
    /// Each once in a step that makes it.
    made_codes: Vec<(B256, Bytes)>,
    /// Codes that a step fetched from what it had made itself.
    own_codes: Vec<B256>,
    receipts: Vec<Receipt>,
}

impl Trace {
    /// Executes a block over its witness and compares the outcome with its header, but for the state root.
    pub fn of(
        spec: &ChainSpec,
        block: &StatelessBlock,
        ancestors: &Ancestors,
        partial: &PartialState<'_>,
        live: &mut LiveState<'_, '_>,
    ) -> Result<Self, ValidationError> {
        let context = context_of(spec, block);
        rules::check_header(ancestors.parent(), &block.header, context.fork, block.rlp_bytes)?;
        let known = known_accounts(live, &block.transactions, context.coinbase);
        let reader = RunReader::new(partial.reader(), known);
        let mut world = World::with_room(reader, 2 * block.transactions.len() + 16);
        ancestors.hashes().for_each(|(number, hash)| world.set_block_hash(number, hash));
        let mut executor = Executor::new(world, spec.chain_id, spec.deposit_contract, context.fork);
        let mut recorder = Recorder::with_room(block.transactions.len());
        let executed = recorder.block(&mut executor, &context, block);
        let executed = executed.map_err(|error| execution_fault(error, block.header.number, ancestors, partial))?;
        check_outcome(block, &executed)?;
        Ok(recorder.finish(executed.receipts))
    }

    #[must_use]
    pub fn step_count(&self) -> usize {
        self.ends.len()
    }

    #[must_use]
    pub fn receipts(&self) -> &[Receipt] {
        &self.receipts
    }

    fn range(&self, step: usize, end: impl Fn(&Ends) -> usize) -> Range<usize> {
        step.checked_sub(1).map_or(0, |before| end(&self.ends[before]))..end(&self.ends[step])
    }

    pub fn account_keys(&self, step: usize) -> &[B256] {
        &self.account_keys[self.range(step, |ends| ends.accounts)]
    }

    pub fn slot_keys(&self, step: usize) -> &[(B256, B256)] {
        &self.slot_keys[self.range(step, |ends| ends.slots)]
    }

    pub fn deleted_keys(&self, step: usize) -> impl Iterator<Item = (Option<&B256>, &B256)> {
        self.deleted_keys[self.range(step, |ends| ends.deleted)].iter().map(|(owner, key)| (owner.as_ref(), key))
    }

    pub fn access_count(&self, step: usize) -> usize {
        self.account_keys(step).len() + self.slot_keys(step).len()
    }

    pub fn codes(&self, step: usize) -> &[(B256, Bytes)] {
        &self.codes[self.range(step, |ends| ends.codes)]
    }

    pub fn made_codes(&self, step: usize) -> &[(B256, Bytes)] {
        &self.made_codes[self.range(step, |ends| ends.made_codes)]
    }

    /// Codes among those of the step that nobody has to bring.
    pub fn own_codes(&self, step: usize) -> &[B256] {
        &self.own_codes[self.range(step, |ends| ends.own_codes)]
    }

    pub fn block_hash_lowest(&self, step: usize) -> Option<u64> {
        self.ends[step].block_hash_lowest
    }

    /// Net changes of a run of steps.
    pub fn changes(&self, steps: Range<usize>) -> StateChanges {
        let Some(last) = steps.end.checked_sub(1) else { return StateChanges::default() };
        let mut net = Net::default();
        for diff in &self.diffs[self.range(steps.start, |ends| ends.diffs).start..self.ends[last].diffs] {
            net.add(diff);
        }
        let made = self.range(steps.start, |ends| ends.made_codes).start..self.ends[last].made_codes;
        let mut seen: HashSet<B256, RandomState> = HashSet::default();
        let codes = self.made_codes[made].iter().filter(|(hash, _)| seen.insert(*hash)).cloned().collect();
        StateChanges { accounts: net.accounts, codes }
    }
}

/// Folds changes one after the other into net changes.
#[derive(Default)]
struct Net {
    accounts: Vec<AccountChange>,
    index: HashMap<Address, usize, RandomState>,
    /// Where the value of a slot is, unless its account was deleted since.
    slots: HashMap<(Address, U256), usize, RandomState>,
}

impl Net {
    fn account(&mut self, address: Address) -> &mut AccountChange {
        let index = *self.index.entry(address).or_insert_with(|| {
            self.accounts.push(AccountChange { address, account: None, storage_cleared: false, storage: Vec::new() });
            self.accounts.len() - 1
        });
        &mut self.accounts[index]
    }

    fn add(&mut self, diff: &StateDiff) {
        match *diff {
            StateDiff::Account { address, nonce, balance_wei, code_hash } => {
                self.account(address).account = Some(AccountInfo { nonce, balance_wei, code_hash });
            }
            StateDiff::Deleted { address } => {
                let change = self.account(address);
                change.account = None;
                change.storage_cleared = true;
                change.storage.clear();
            }
            StateDiff::Slot { address, slot, value } => {
                let known = self.slots.get(&(address, slot)).copied().unwrap_or(usize::MAX);
                let storage = &mut self.account(address).storage;
                match storage.get_mut(known).filter(|(found, _)| *found == slot) {
                    Some((_, old)) => *old = value,
                    None => {
                        storage.push((slot, value));
                        let index = storage.len() - 1;
                        self.slots.insert((address, slot), index);
                    }
                }
            }
        }
    }
}

struct Recorder {
    all: Accesses,
    diffs: Vec<StateDiff>,
    made_codes: Vec<(B256, Bytes)>,
    /// Ends of steps; `deleted` counts accounts, the slots' ends are beside it.
    ends: Vec<(Ends, usize)>,
}

type RunExecutor<'s, 'w> = Executor<RunReader<'s, 'w>>;

impl Recorder {
    fn with_room(tx_count: usize) -> Self {
        Self {
            all: Accesses::default(),
            diffs: Vec::with_capacity(4 * tx_count),
            made_codes: Vec::new(),
            ends: Vec::with_capacity(tx_count + 2),
        }
    }

    fn block(
        &mut self,
        executor: &mut RunExecutor<'_, '_>,
        context: &crate::builder::block::BlockContext,
        block: &StatelessBlock,
    ) -> Result<ExecutedBlock, BlockExecutionError> {
        let mut fault = None;
        let diffs = &mut self.diffs;
        let opened = executor.begin_block(context, |world| fault = fault.take().or(take_diffs(world, diffs).err()));
        opened.map_err(BlockExecutionError::System)?;
        fault.map_or(Ok(()), Err)?;
        self.end_step(executor.world())?;

        let mut receipts: Vec<Receipt> = Vec::with_capacity(block.transactions.len());
        let mut gas_used = 0;
        for (index, tx) in block.transactions.iter().enumerate() {
            let (gas_limit, gas_left) = (tx.decoded.fields.gas_limit, context.gas_limit.saturating_sub(gas_used));
            if gas_limit > gas_left {
                return Err(BlockExecutionError::GasLimit { index, gas_limit, gas_left });
            }
            let executed = executor.execute(&tx.executable());
            let outcome = executed.map_err(|source| BlockExecutionError::Transaction { index, source })?;
            gas_used += outcome.gas_used;
            receipts.push(Receipt {
                tx_type: tx.decoded.fields.tx_type as u8,
                success: outcome.success,
                gas_used: outcome.gas_used,
                cumulative_gas_used: gas_used,
                logs: outcome.logs,
            });
            take_diffs(executor.world(), &mut self.diffs)?;
            self.end_step(executor.world())?;
        }
        let requests = self.close(executor, block, &receipts)?;
        let (receipts_root, logs_bloom) = receipts_root(&receipts);
        Ok(ExecutedBlock {
            receipts,
            gas_used,
            receipts_root,
            logs_bloom,
            requests,
            changes: StateChanges::default(),
            accesses: Accesses::default(),
        })
    }

    fn close(
        &mut self,
        executor: &mut RunExecutor<'_, '_>,
        block: &StatelessBlock,
        receipts: &[Receipt],
    ) -> Result<Vec<Bytes>, BlockExecutionError> {
        let mut fault = None;
        let diffs = &mut self.diffs;
        let logs = receipts.iter().flat_map(|receipt| &receipt.logs);
        let requests: Result<_, ExecutionError> =
            executor.end_block(logs, |world| fault = fault.take().or(take_diffs(world, diffs).err()));
        let requests = requests.map_err(BlockExecutionError::System)?;
        fault.map_or(Ok(()), Err)?;
        for withdrawal in &block.withdrawals {
            executor.world().withdraw(withdrawal)?;
            take_diffs(executor.world(), &mut self.diffs)?;
        }
        self.end_step(executor.world())?;
        Ok(requests)
    }

    fn end_step(&mut self, world: &mut World<RunReader<'_, '_>>) -> Result<(), WorldError> {
        world.append_accesses(&mut self.all)?;
        self.made_codes.extend_from_slice(&world.new_codes()[self.made_codes.len()..]);
        world.list_codes_anew();
        let ends = Ends {
            accounts: self.all.accounts.len(),
            slots: self.all.slots.len(),
            codes: self.all.codes.len(),
            own_codes: self.all.own_codes.len(),
            deleted: self.all.deleted_accounts.len(),
            diffs: self.diffs.len(),
            made_codes: self.made_codes.len(),
            block_hash_lowest: self.all.block_hash_lowest.take(),
        };
        self.ends.push((ends, self.all.deleted_slots.len()));
        Ok(())
    }

    fn finish(self, receipts: Vec<Receipt>) -> Trace {
        let Self { all, diffs, made_codes, ends } = self;
        let account_keys = hash_all(all.accounts.len(), |index| all.accounts[index].as_slice());
        let key_of = |address: &Address| crate::crypto::keccak::keccak256(address.as_slice());
        let mut owners: HashMap<Address, B256, RandomState> = HashMap::default();
        if !all.slots.is_empty() {
            owners.extend(all.accounts.iter().copied().zip(account_keys.iter().copied()));
        }
        let names: Vec<[u8; 32]> =
            all.slots.iter().chain(&all.deleted_slots).map(|(_, slot)| slot.to_be_bytes()).collect();
        let hashes = hash_all(names.len(), |index| names[index].as_slice());
        let (hashes, deleted_hashes) = hashes.split_at(all.slots.len());
        let owner = |address: &Address| owners.get(address).copied().unwrap_or_else(|| key_of(address));
        let slot_keys = all.slots.iter().zip(hashes).map(|((address, _), key)| (owner(address), *key)).collect();
        let deleted_slots: Vec<(Option<B256>, B256)> = all
            .deleted_slots
            .iter()
            .zip(deleted_hashes)
            .map(|((address, _), key)| (Some(owner(address)), *key))
            .collect();
        let mut deleted_keys = Vec::with_capacity(deleted_slots.len() + all.deleted_accounts.len());
        let (mut account, mut slot) = (0, 0);
        let steps = ends.into_iter().map(|(ends, slots)| {
            deleted_keys
                .extend(all.deleted_accounts[account..ends.deleted].iter().map(|address| (None, key_of(address))));
            deleted_keys.extend_from_slice(&deleted_slots[slot..slots]);
            (account, slot) = (ends.deleted, slots);
            Ends { deleted: deleted_keys.len(), ..ends }
        });
        let ends = steps.collect();
        let (codes, own_codes) = (all.codes, all.own_codes);
        Trace { ends, account_keys, slot_keys, codes, own_codes, deleted_keys, diffs, made_codes, receipts }
    }
}

/// Takes what the last commit changed. A slot whose account stayed as it was brings the account along: a change needs all of it.
fn take_diffs(world: &mut World<RunReader<'_, '_>>, diffs: &mut Vec<StateDiff>) -> Result<(), WorldError> {
    let mut last = None;
    for index in 0..world.diffs().len() {
        let diff = world.diffs()[index];
        match diff {
            StateDiff::Account { address, .. } | StateDiff::Deleted { address } => last = Some(address),
            StateDiff::Slot { address, .. } if last == Some(address) => {}
            StateDiff::Slot { address, .. } => {
                let account = world.account(address)?;
                let (nonce, balance_wei, code_hash) = (account.nonce, account.balance_wei, account.code_hash);
                diffs.push(StateDiff::Account { address, nonce, balance_wei, code_hash });
                last = Some(address);
            }
        }
        diffs.push(diff);
    }
    Ok(())
}
