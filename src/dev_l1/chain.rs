//! The canonical chain of the development L1, its states, and where everything is found.
//!
//! Headers and the index are in memory; bodies are in the file ([`BlockLog`]), the newest of them in memory too; states are kept for the
//! newest [`STATES_MAX`] blocks. Side blocks stay in the file and can still be asked for by hash.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use alloy_consensus::Header;

use super::block::{Block, BuiltFacts, Rules, Wishes, build, header, next_facts};
use super::config::{ChainConfig, genesis_accounts, genesis_header};
use super::evm::{BlockEvm, BlockFacts, EvmError};
use super::log::{BlockLog, LogError, Place, Record};
use super::overlay::{Missing, Overlay};
use super::pool::Pool;
use super::precompile::Execute;
use super::transaction::L1Tx;
use crate::primitives::{Address, B256};
use crate::state::genesis::from_alloc;
use crate::state::memory::{MemoryStore, Reader};
use crate::state::{Account, StateError, StateReader, StateStore};

/// Blocks whose state can be read, and so the deepest reorganisation: more than anybody tests, as much as memory should hold.
pub const STATES_MAX: usize = 256;
/// Bodies kept in memory.
const BODIES_MAX: usize = 64;

/// Why the chain cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Evm(#[from] EvmError),
    #[error("the state of block {number} is not kept any more: the newest {STATES_MAX} are")]
    StateGone { number: u64 },
    #[error("a reorganisation of {depth} blocks is asked for and {possible} are possible")]
    TooDeep { depth: u64, possible: u64 },
}

/// A known block without its body.
#[derive(Clone, Debug)]
struct Known {
    header: Header,
    place: Option<Place>,
}

/// See the module's text.
pub struct Chain {
    config: ChainConfig,
    store: MemoryStore,
    log: BlockLog,
    known: HashMap<B256, Known>,
    /// By number.
    canonical: Vec<B256>,
    /// Canonical transactions.
    index: HashMap<B256, (u64, usize)>,
    states: HashMap<B256, Reader>,
    /// Oldest first.
    state_order: VecDeque<B256>,
    bodies: VecDeque<Arc<Block>>,
    bodies_max: usize,
}

impl Chain {
    /// Begins with block 0, or goes on with what the file holds.
    ///
    /// # Errors
    /// A file that is damaged or another chain's.
    pub fn open(config: ChainConfig, mut store: MemoryStore, log: BlockLog) -> Result<Self, ChainError> {
        let header = genesis_header(&config);
        let state = from_alloc(&mut store, genesis_accounts(config.fork))?;
        assert_eq!(state.root(), header.state_root, "two ways to the root of block 0");
        let hash = header.hash_slow();
        let mut chain = Self {
            config,
            store,
            log,
            known: HashMap::new(),
            canonical: vec![hash],
            index: HashMap::new(),
            states: HashMap::new(),
            state_order: VecDeque::new(),
            bodies: VecDeque::new(),
            bodies_max: BODIES_MAX,
        };
        chain.keep_state(hash, state);
        chain.known.insert(hash, Known { header: header.clone(), place: None });
        chain.keep_body(Block { header, hash, txs: Vec::new(), receipts: Vec::new() });
        chain.replay(hash)?;
        Ok(chain)
    }

    fn replay(&mut self, genesis_hash: B256) -> Result<(), ChainError> {
        let mut log = std::mem::replace(&mut self.log, BlockLog::temporary()?);
        let fork = self.config.fork;
        let replayed = log.replay(genesis_hash, fork, |record| match record {
            Record::Rewind(hash) => {
                let number = self.known.get(&hash).map(|known| known.header.number);
                let number = number.filter(|number| self.canonical.get(*number as usize) == Some(&hash));
                self.rewind(number.ok_or_else(|| format!("{hash} is no block of this chain"))?);
                Ok(())
            }
            Record::Block { place, block, changes } => {
                let parent =
                    self.states.get(&block.header.parent_hash).filter(|_| self.head_hash() == block.header.parent_hash);
                let parent =
                    parent.ok_or_else(|| format!("block {} does not follow the newest", block.header.number))?.clone();
                let state = self.store.commit(&parent, &changes).map_err(|error| error.to_string())?;
                if state.root() != block.header.state_root {
                    return Err(format!(
                        "the state after block {} has another root than its header",
                        block.header.number
                    ));
                }
                self.extend(*block, place, state);
                self.store.reclaim().map_err(|error| error.to_string())
            }
        });
        self.log = log;
        Ok(replayed?)
    }

    fn keep_state(&mut self, hash: B256, state: Reader) {
        self.states.insert(hash, state);
        self.state_order.push_back(hash);
        if self.state_order.len() > STATES_MAX
            && let Some(oldest) = self.state_order.pop_front()
        {
            self.states.remove(&oldest);
        }
    }

    fn keep_body(&mut self, block: Block) {
        self.bodies.push_back(Arc::new(block));
        if self.bodies.len() > self.bodies_max {
            self.bodies.pop_front();
        }
    }

    fn extend(&mut self, block: Block, place: Place, state: Reader) {
        debug_assert_eq!(block.header.number as usize, self.canonical.len());
        let number = block.header.number;
        self.canonical.push(block.hash);
        self.index.extend(block.txs.iter().enumerate().map(|(index, tx)| (tx.hash, (number, index))));
        self.known.insert(block.hash, Known { header: block.header.clone(), place: Some(place) });
        self.keep_state(block.hash, state);
        self.keep_body(block);
    }

    /// Makes the block at `number` the newest, in memory only.
    fn rewind(&mut self, number: u64) {
        self.canonical.truncate(number as usize + 1);
        self.index.retain(|_, (at, _)| *at <= number);
    }

    /// Keeps so many bodies in memory, at least the newest: blocks with transactions that the file's reader refuses cannot be read back.
    pub fn keep_bodies(&mut self, count: usize) {
        self.bodies_max = count.max(1);
    }

    #[must_use]
    pub fn config(&self) -> &ChainConfig {
        &self.config
    }

    #[must_use]
    pub fn head_number(&self) -> u64 {
        self.canonical.len() as u64 - 1
    }

    #[must_use]
    pub fn head_hash(&self) -> B256 {
        self.canonical[self.canonical.len() - 1]
    }

    /// # Panics
    /// Never: the newest block is known.
    #[must_use]
    pub fn head(&self) -> &Header {
        self.header(&self.head_hash()).expect("the newest block is known")
    }

    /// A block of a number, on the canonical chain.
    #[must_use]
    pub fn hash_at(&self, number: u64) -> Option<B256> {
        self.canonical.get(usize::try_from(number).ok()?).copied()
    }

    /// A block of any chain that was seen.
    #[must_use]
    pub fn header(&self, hash: &B256) -> Option<&Header> {
        Some(&self.known.get(hash)?.header)
    }

    #[must_use]
    pub fn is_canonical(&self, hash: &B256) -> bool {
        self.header(hash).is_some_and(|header| self.hash_at(header.number) == Some(*hash))
    }

    /// Blocks that were ever seen.
    #[must_use]
    pub fn known_count(&self) -> u64 {
        self.known.len() as u64
    }

    /// The newest block that no reorganisation of an honest L1 takes back.
    #[must_use]
    pub fn finalized_number(&self) -> u64 {
        self.head_number().saturating_sub(self.config.finality_blocks)
    }

    #[must_use]
    pub fn safe_number(&self) -> u64 {
        self.head_number().saturating_sub(self.config.finality_blocks.div_ceil(2))
    }

    /// A block with its body.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn block(&self, hash: &B256) -> Result<Option<Arc<Block>>, ChainError> {
        if let Some(block) = self.bodies.iter().rev().find(|block| block.hash == *hash) {
            return Ok(Some(Arc::clone(block)));
        }
        match self.known.get(hash) {
            None => Ok(None),
            Some(Known { place: Some(place), .. }) => Ok(Some(Arc::new(self.log.block(*place, self.config.fork)?))),
            Some(Known { header, place: None }) => {
                let header = header.clone();
                Ok(Some(Arc::new(Block { header, hash: *hash, txs: Vec::new(), receipts: Vec::new() })))
            }
        }
    }

    /// A transaction of the canonical chain: its block and its place there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn transaction(&self, hash: &B256) -> Result<Option<(Arc<Block>, usize)>, ChainError> {
        let Some((number, index)) = self.index.get(hash) else { return Ok(None) };
        let Some(block_hash) = self.hash_at(*number) else { return Ok(None) };
        Ok(self.block(&block_hash)?.map(|block| (block, *index)))
    }

    /// The state after a block.
    ///
    /// # Errors
    /// When it is not kept any more.
    pub fn state(&self, hash: &B256) -> Result<&Reader, ChainError> {
        let number = self.header(hash).map_or(0, |header| header.number);
        self.states.get(hash).ok_or(ChainError::StateGone { number })
    }

    /// An account at the newest block.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn account(&self, address: &Address) -> Result<Option<Account>, ChainError> {
        Ok(self.state(&self.head_hash())?.account(address)?)
    }

    /// Hashes of the 256 blocks up to and with `hash`, on its own chain, newest first.
    fn recent_hashes(&self, hash: &B256) -> Vec<(u64, B256)> {
        let mut hashes = Vec::new();
        let mut next = *hash;
        while hashes.len() < 256
            && let Some(header) = self.header(&next)
        {
            hashes.push((header.number, next));
            next = header.parent_hash;
        }
        hashes
    }

    /// Runs `with` over the state after a block, in the block that would follow it.
    ///
    /// # Errors
    /// When that state is not kept any more, or as `with` says.
    pub fn with_evm<T>(
        &self,
        execute: &Execute,
        hash: &B256,
        with: impl FnOnce(BlockEvm<'_, Reader>, &BlockFacts) -> T,
    ) -> Result<T, ChainError> {
        let header = self.header(hash).ok_or(ChainError::StateGone { number: 0 })?;
        let hashes: HashMap<u64, B256> = self.recent_hashes(hash).into_iter().collect();
        let hash_of = move |number: u64| hashes.get(&number).copied().unwrap_or_default();
        let overlay = Overlay::new(self.state(hash)?.clone(), Missing::Error, &hash_of);
        // Calls see the block itself, as the L1 node shows it to them.
        let facts = BlockFacts {
            number: header.number,
            timestamp: header.timestamp,
            coinbase: header.beneficiary,
            gas_limit: header.gas_limit,
            base_fee_wei: 0,
            prev_randao: header.mix_hash,
            parent_hash: header.parent_hash,
            parent_beacon_block_root: header.parent_beacon_block_root.unwrap_or_default(),
        };
        let evm = BlockEvm::new(overlay, &facts, self.config.fork, self.config.chain_id, execute);
        Ok(with(evm.for_calls(), &facts))
    }

    /// Makes the next block from the pool and keeps it.
    ///
    /// # Errors
    /// When state or file cannot be read or written: nothing more can be done.
    pub fn extend_from(&mut self, execute: &Execute, pool: &Pool, wishes: &Wishes) -> Result<Arc<Block>, ChainError> {
        let parent_hash = self.head_hash();
        let parent = self.state(&parent_hash)?.clone();
        let facts = next_facts(self.head(), parent_hash, &self.config, wishes);
        let hashes: HashMap<u64, B256> = self.recent_hashes(&parent_hash).into_iter().collect();
        let hash_of = move |number: u64| hashes.get(&number).copied().unwrap_or_default();
        let overlay = Overlay::new(parent.clone(), Missing::Error, &hash_of);
        let built = build(Rules { config: &self.config, execute }, facts, overlay, pool, wishes)?;
        let changes = built.overlay.into_changes();
        let state = self.store.commit(&parent, &changes)?;
        let facts =
            BuiltFacts { facts: &built.facts, txs: &built.txs, receipts: &built.receipts, requests: &built.requests };
        let header = header(&self.config, &facts, state.root(), wishes.salt);
        let hash = header.hash_slow();
        let block = Block { header, hash, txs: built.txs, receipts: built.receipts };
        let place = self.log.append_block(&block, &changes)?;
        self.extend(block, place, state);
        self.store.reclaim()?;
        Ok(Arc::clone(&self.bodies[self.bodies.len() - 1]))
    }

    /// Takes the newest `depth` blocks off the canonical chain; answers their transactions and timestamps, in order.
    ///
    /// # Errors
    /// When there are not so many whose state is kept; or the file cannot be written.
    pub fn take_back(&mut self, depth: u64) -> Result<(Vec<L1Tx>, Vec<u64>), ChainError> {
        let possible = self.head_number().min(STATES_MAX as u64 - 1);
        let target = self.head_number().checked_sub(depth).filter(|_| depth <= possible);
        let target = target.ok_or(ChainError::TooDeep { depth, possible })?;
        let target_hash = self.canonical[target as usize];
        self.state(&target_hash)?;
        let (mut txs, mut timestamps) = (Vec::new(), Vec::new());
        for number in target + 1..=self.head_number() {
            if let Some(block) = self.block(&self.canonical[number as usize])? {
                txs.extend(block.txs.iter().cloned());
                timestamps.push(block.header.timestamp);
            }
        }
        self.log.append_rewind(target_hash)?;
        self.rewind(target);
        Ok((txs, timestamps))
    }
}
