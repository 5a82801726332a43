//! The witness of a block whose parent's state is not kept any more: from an older state, by executing again everything since.
//!
//! ```text
//!  base state ─► blocks again, one after the other ─► one witness on the base ─► its roots, block by block ─► nodes before the last block
//! ```
//!
//! Owner core: the query pool. What it answers holds more nodes than the block needs; who cuts the block takes those that it reads.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

use super::jobs::execute;
use crate::builder::block::BlockContext;
use crate::builder::world::access::Accesses;
use crate::config::genesis::ChainSpec;
use crate::primitives::{Address, B256, Bytes, U256};
use crate::state::{
    Account, AccountChange, AccountInfo, AccountProof, ROOT_EMPTY, Snapshot, StateChanges, StateError, StateReader,
};
use crate::witness::Witness;
use crate::witness::validator::StatelessBlock;
use crate::witness::validator::live_state::LiveState;
use crate::witness::validator::partial_state::PartialState;

/// Where blocks and their headers (RLP) are read.
pub struct Chain<'c> {
    pub block: &'c dyn Fn(u64) -> Result<StatelessBlock, String>,
    pub hash: &'c dyn Fn(u64) -> Option<B256>,
    pub header: &'c dyn Fn(u64) -> Option<Bytes>,
}

/// Net changes since the base.
#[derive(Default)]
struct Net {
    accounts: HashMap<Address, Option<AccountInfo>, RandomState>,
    /// Accounts of whose storage in the base nothing is left.
    cleared: HashSet<Address, RandomState>,
    slots: HashMap<Address, HashMap<U256, U256, RandomState>, RandomState>,
    codes: HashMap<B256, Bytes, RandomState>,
}

impl Net {
    fn add(&mut self, changes: &StateChanges) {
        for change in &changes.accounts {
            if change.account.is_none() || change.storage_cleared {
                self.cleared.insert(change.address);
                self.slots.remove(&change.address);
            }
            self.accounts.insert(change.address, change.account);
            if !change.storage.is_empty() {
                self.slots.entry(change.address).or_default().extend(change.storage.iter().copied());
            }
        }
        self.codes.extend(changes.codes.iter().cloned());
    }

    fn changes(&self) -> StateChanges {
        let account = |(address, account): (&Address, &Option<AccountInfo>)| AccountChange {
            address: *address,
            account: *account,
            storage_cleared: self.cleared.contains(address),
            storage: self.slots.get(address).into_iter().flatten().map(|(slot, value)| (*slot, *value)).collect(),
        };
        StateChanges { accounts: self.accounts.iter().map(account).collect(), codes: Vec::new() }
    }
}

/// The state behind the blocks that were executed so far.
#[derive(Clone, Copy)]
struct Since<'s> {
    base: &'s Snapshot,
    net: &'s Net,
}

impl StateReader for Since<'_> {
    fn root(&self) -> B256 {
        self.base.root()
    }

    fn account(&self, address: &Address) -> Result<Option<Account>, StateError> {
        match self.net.accounts.get(address) {
            // Execution does not ask for the storage root.
            Some(account) => Ok(account.map(|AccountInfo { nonce, balance_wei, code_hash }| Account {
                nonce,
                balance_wei,
                code_hash,
                storage_root: ROOT_EMPTY,
            })),
            None => self.base.account(address),
        }
    }

    fn storage(&self, address: &Address, slot: U256) -> Result<U256, StateError> {
        match self.net.slots.get(address).and_then(|slots| slots.get(&slot)) {
            Some(value) => Ok(*value),
            None if self.net.cleared.contains(address) => Ok(U256::ZERO),
            None => self.base.storage(address, slot),
        }
    }

    fn code(&self, code_hash: &B256) -> Result<Option<Bytes>, StateError> {
        match self.net.codes.get(code_hash) {
            Some(code) => Ok(Some(code.clone())),
            None => self.base.code(code_hash),
        }
    }

    fn proof(&self, _: &Address, _: &[U256]) -> Result<AccountProof, StateError> {
        Err(StateError::Partial)
    }
}

/// What the blocks since the base left, one after the other.
#[derive(Default)]
struct Run {
    net: Net,
    accesses: Accesses,
    /// Changes of each block, and the root behind it.
    rounds: Vec<(StateChanges, B256)>,
}

impl Run {
    fn execute(
        &mut self,
        spec: &ChainSpec,
        block: &StatelessBlock,
        base: &Snapshot,
        chain: &Chain<'_>,
    ) -> Result<(), String> {
        let number = block.header.number;
        let context = BlockContext::of_header(&block.header, spec.fork_at(block.header.timestamp));
        let executed = execute(spec, block, &context, &Since { base, net: &self.net }, chain.hash)?;
        if executed.receipts_root != block.header.receipts_root {
            return Err(format!("block {number} has other receipts when it is executed on the state of an older one"));
        }
        self.net.add(&executed.changes);
        self.rounds.push((executed.changes, block.header.state_root));
        let (all, own) = (&mut self.accesses, executed.accesses);
        all.accounts.extend(own.accounts);
        all.slots.extend(own.slots);
        all.codes.extend(own.codes);
        all.deleted_accounts.extend(own.deleted_accounts);
        all.deleted_slots.extend(own.deleted_slots);
        // Headers are needed for the last block alone.
        all.block_hash_lowest = own.block_hash_lowest;
        Ok(())
    }
}

/// The witness of block `number` with the reserve, and more, by the state after block `base_number`.
///
/// # Errors
/// In words: a block that cannot be read or does not execute as it was sealed, or a state that cannot be read.
pub fn witness(
    spec: &ChainSpec,
    number: u64,
    (base_number, base): (u64, &Snapshot),
    chain: &Chain<'_>,
) -> Result<Witness, String> {
    let fault = |what: &dyn std::fmt::Display| format!("the witness of block {number} by block {base_number}: {what}");
    let mut run = Run::default();
    for at in base_number + 1..=number {
        run.execute(spec, &(chain.block)(at)?, base, chain)?;
    }
    let changes = run.net.changes();
    let witness = Witness::of_block_with_reserve(number, base, &run.accesses, &changes, chain.header);
    let mut witness = witness.map_err(|error| fault(&error))?;
    let root = base.root();
    let made: Vec<Bytes> = {
        let partial = PartialState::new(&root, &witness);
        let mut live = LiveState::new(&root, partial.nodes(), changes.accounts.len());
        for (changes, sealed) in &run.rounds[..run.rounds.len().saturating_sub(1)] {
            let computed = live.commit(changes).map_err(|error| fault(&error))?;
            if computed != *sealed {
                return Err(fault(&format!("root {computed} where {sealed} was sealed")));
            }
        }
        live.made_rlp().map(Bytes::copy_from_slice).collect()
    };
    witness.state.extend(made);
    witness.codes.extend(run.net.codes.into_values());
    Ok(witness)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::segment::{CutLimits, Segment, cut};
    use crate::testing::rng::SimRng;
    use crate::testing::sealed_chain::{SealedChain, SealedTestBlock};

    /// Within a transaction the order of accesses is that of a hash map, another one each time.
    fn sorted(mut segments: Vec<Segment>) -> Vec<Segment> {
        for segment in &mut segments {
            segment.nodes.sort_by_key(|node| (node.hash, format!("{:?}", node.place)));
            segment.made_nodes.sort_by_key(|(hash, place)| (*hash, format!("{place:?}")));
            segment.codes.sort();
            segment.made_codes.sort();
        }
        segments
    }

    /// Segments are the same, whichever state the witness came from.
    #[test]
    fn a_block_is_cut_alike_by_an_older_state() {
        for seed in 0..6 {
            let mut rng = SimRng::new(seed);
            let mut chain = SealedChain::new(20, 6);
            let mut states = vec![chain.state()];
            let mut sealed: Vec<SealedTestBlock> = Vec::new();
            for _ in 0..9 {
                let tx_count = 1 + rng.below(25);
                sealed.push(chain.any_block(&mut rng, tx_count));
                states.push(chain.state());
            }
            let at = |number: u64| &sealed[number as usize - 1].block;
            let header = |number: u64| match number {
                0 => Some(Bytes::from(alloy_rlp::encode(&chain.genesis))),
                number => Some(Bytes::from(alloy_rlp::encode(&at(number).header))),
            };
            let hash = |number: u64| header(number).map(|rlp| crate::crypto::keccak::keccak256(&rlp));
            let block = |number: u64| {
                let StatelessBlock { header, transactions, withdrawals, .. } = at(number);
                Ok(StatelessBlock::new(header.clone(), transactions.clone(), withdrawals.clone()))
            };
            let lookup = Chain { block: &block, hash: &hash, header: &header };
            for number in 1..=9_u64 {
                let SealedTestBlock { block, witness: own, origin, .. } = &sealed[number as usize - 1];
                let base = rng.below(number);
                let older = witness(&chain.spec, number, (base, &states[base as usize]), &lookup).expect("executes");
                for tx_bytes_max in [131_072, 8_000] {
                    let limits = CutLimits { tx_bytes_max, ..CutLimits::default() };
                    let expected = cut(&chain.spec, block, own, *origin, &limits).expect("cut");
                    let segments = cut(&chain.spec, block, &older, *origin, &limits).expect("cut by the older state");
                    let is_same = sorted(segments) == sorted(expected);
                    assert!(is_same, "seed {seed}, block {number}, state of {base}");
                }
            }
        }
    }
}
