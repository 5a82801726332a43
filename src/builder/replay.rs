//! From what is on disk to the state at its tip: every block behind the newest durable state is executed again and must come out as it was.
//!
//! Chain database → state at its tip; journal ([`from_journal`]) → the blocks behind it, the open block and the pool. Runs before any
//! thread is started.

pub mod from_journal;

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_rlp::Decodable;
use rayon::ThreadPool;

use crate::builder::block::{BlockContext, BlockMemory, OpenBlock, SealedBlock};
use crate::builder::block_execution::recover_authorities;
use crate::builder::execution::{ExecutableTx, ExecutionError, Executor};
use crate::builder::filler::{BlockFiller, Placement};
use crate::builder::sealing::Sealer;
use crate::builder::world::World;
use crate::chain::{ChainError, ChainReader};
use crate::codec::transaction::{self, TxError};
use crate::config::genesis::ChainSpec;
use crate::limits;
use crate::primitives::{Address, B256, Sequence};
use crate::runtime::clock;
use crate::state::memory::MemoryStore;
use crate::state::{Snapshot, StateError, StateReader, StateStore, genesis};

/// Why the chain in a data directory cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Execution(#[from] ExecutionError),
    #[error("block {number} is missing from the chain database")]
    BlockMissing { number: u64 },
    #[error("block {number}: the stored header does not decode: {source}")]
    Header { number: u64, source: alloy_rlp::Error },
    #[error("block {number}, transaction {index}: {source}")]
    Transaction { number: u64, index: u32, source: TxError },
    #[error("the data directory holds a chain of genesis {stored}, the configured genesis is {configured}")]
    GenesisDiffers { stored: B256, configured: B256 },
    #[error("block {number} was stored with hash {stored} and comes out as {executed}")]
    HashDiffers { number: u64, stored: B256, executed: B256 },
    #[error(transparent)]
    Journal(#[from] from_journal::Disagreement),
}

/// Block 0 over its state.
///
/// # Errors
/// When the state refuses the allocation.
pub fn genesis_block<S: StateStore<Reader = Snapshot>>(
    spec: &ChainSpec,
    store: &mut S,
) -> Result<SealedBlock, StateError> {
    let state = genesis::from_alloc(store, allocation(spec))?;
    Ok(genesis_over(spec, state))
}

/// Block 0 over a state that was made from its allocation.
#[must_use]
pub fn genesis_over(spec: &ChainSpec, state: Snapshot) -> SealedBlock {
    sealed_over(spec, spec.genesis_header(state.root()), state)
}

/// Block 0 where its state is somebody else's: `root` is that state's, `state` stands in its place.
#[must_use]
pub fn genesis_elsewhere(spec: &ChainSpec, root: B256, state: Snapshot) -> SealedBlock {
    sealed_over(spec, spec.genesis_header(root), state)
}

/// The state root of block 0, made in memory: for a directory whose state has grown beyond it.
///
/// # Errors
/// When the allocation names an account or a slot twice.
pub fn genesis_root(spec: &ChainSpec, hash_pool: Arc<ThreadPool>) -> Result<B256, StateError> {
    let mut store = MemoryStore::new(hash_pool);
    Ok(genesis::from_alloc(&mut store, allocation(spec))?.root())
}

/// A block of which only header and state are known.
fn sealed_over(spec: &ChainSpec, header: Header, state: Snapshot) -> SealedBlock {
    let hash = header.hash_slow();
    let context = context_of(&header, spec);
    let (_writer, block) = OpenBlock::new(context, &BlockMemory::new(1, 0));
    SealedBlock {
        size_bytes: crate::builder::sealing::block_rlp_bytes(&header, 0),
        held_bytes: 0,
        header,
        hash,
        block: Arc::new(block),
        requests: Vec::new(),
        state,
        sequence: Sequence(0),
        sealed_unix_ns: 0,
    }
}

fn allocation(spec: &ChainSpec) -> impl Iterator<Item = genesis::GenesisAccount> + '_ {
    spec.genesis.alloc.iter().map(|(address, account)| genesis::GenesisAccount {
        address: *address,
        balance_wei: account.balance,
        nonce: account.nonce.unwrap_or(0),
        code: account.code.clone().unwrap_or_default(),
        storage: account.storage.iter().flatten().map(|(slot, value)| ((*slot).into(), (*value).into())).collect(),
    })
}

/// Stored blocks as replay needs them: the chain database, or a list in a test.
pub trait BlockSource {
    /// Number of the newest block; `None` before block 0 is stored.
    fn latest_number(&self) -> Option<u64>;

    /// The hash of the block with a number.
    ///
    /// # Errors
    /// A failed or damaged read.
    fn hash_by_number(&self, number: u64) -> Result<Option<B256>, ChainError>;

    /// Shows a block to `visit`: its header, its hash, and its transactions in order.
    ///
    /// # Errors
    /// A block that is missing or damaged, or what `visit` answers.
    fn visit(&self, number: u64, visit: &mut Visit<'_>) -> Result<(), ReplayError>;
}

/// What looks at a stored block.
pub type Visit<'v> = dyn FnMut(&Header, &B256, &mut dyn Iterator<Item = Result<StoredTxView<'_>, ChainError>>) -> Result<(), ReplayError>
    + 'v;

/// A transaction of a stored block.
#[derive(Clone, Copy, Debug)]
pub struct StoredTxView<'a> {
    pub raw: &'a [u8],
    pub hash: B256,
    pub sender: Address,
}

impl BlockSource for ChainReader {
    fn latest_number(&self) -> Option<u64> {
        self.latest_number()
    }

    fn hash_by_number(&self, number: u64) -> Result<Option<B256>, ChainError> {
        self.hash_by_number(number)
    }

    fn visit(&self, number: u64, visit: &mut Visit<'_>) -> Result<(), ReplayError> {
        let stored = self.block_by_number(number)?.ok_or(ReplayError::BlockMissing { number })?;
        let header =
            Header::decode(&mut stored.header_rlp()?).map_err(|source| ReplayError::Header { number, source })?;
        let mut txs =
            stored.txs().map(|tx| tx.map(|tx| StoredTxView { raw: tx.raw, hash: tx.hash, sender: tx.sender }));
        visit(&header, &stored.hash(), &mut txs)
    }
}

/// Makes the state again, block by block: first those of the chain database, then those that only the journal holds.
pub struct Replay<'s, S> {
    spec: &'s ChainSpec,
    store: &'s mut S,
    executor: Executor,
    memory: BlockMemory,
    sealer: Sealer,
    /// Oldest first, bounded like those of a running builder core.
    recent: Vec<Arc<SealedBlock>>,
    held_bytes: u64,
    /// The first of `recent` is no whole block: it goes when the next one comes.
    stands_on_header: bool,
}

/// A version of the state that is older than the newest block, and the header of the block that it stands for.
pub struct Base {
    pub state: Snapshot,
    pub header: Header,
    pub hash: B256,
}

/// The newest of `versions` (newest first) that a chain up to `tip` can be continued from: it stands for a block below `tip`, so that the
/// newest block is executed again and shows that state, rules and chain belong together. `None`: from block 0.
///
/// # Errors
/// A block that is missing or damaged.
pub fn newest_base<'v>(
    versions: impl Iterator<Item = &'v Snapshot>,
    chain: &impl BlockSource,
    tip: u64,
) -> Result<Option<Base>, ReplayError> {
    for state in versions {
        let number = state.stamp().number;
        if number >= tip {
            continue;
        }
        let mut base = None;
        chain.visit(number, &mut |header, hash, _| {
            if header.state_root == state.root() {
                base = Some(Base { state: state.clone(), header: header.clone(), hash: *hash });
            }
            Ok(())
        })?;
        if base.is_some() {
            return Ok(base);
        }
    }
    Ok(None)
}

impl<'s, S: StateStore<Reader = Snapshot>> Replay<'s, S> {
    /// Stands on block 0.
    pub fn new(spec: &'s ChainSpec, store: &'s mut S, genesis: SealedBlock) -> Self {
        let mut world = World::new(genesis.state.clone());
        world.set_block_hash(0, genesis.hash);
        let fork = spec.fork_at(genesis.header.timestamp);
        let executor = Executor::new(world, spec.chain_id, spec.deposit_contract, fork);
        let held_bytes = genesis.held_bytes;
        let memory = BlockMemory::new(limits::BLOCK_MEMORY_BLOCKS, limits::BLOCK_BODY_BYTES_MAX);
        let recent = vec![Arc::new(genesis)];
        Self { spec, store, executor, memory, sealer: Sealer::default(), recent, held_bytes, stands_on_header: false }
    }

    /// Stands on a version of the state. At least one block must follow.
    ///
    /// # Errors
    /// A block hash that is missing or damaged: the last 256 can be asked for by execution.
    pub fn resume(
        spec: &'s ChainSpec,
        store: &'s mut S,
        base: Base,
        chain: &impl BlockSource,
    ) -> Result<Self, ReplayError> {
        let number = base.header.number;
        let mut replay = Self::new(spec, store, sealed_over(spec, base.header, base.state));
        assert_eq!(replay.tip().hash, base.hash, "a header hashes to its block's hash");
        replay.stands_on_header = true;
        let world = replay.executor.world();
        for number in number.saturating_sub(255)..=number {
            let hash = chain.hash_by_number(number)?.ok_or(ReplayError::BlockMissing { number })?;
            world.set_block_hash(number, hash);
        }
        Ok(replay)
    }

    /// Stands on blocks that are executed, oldest first and not none, in a world over the newest.
    pub fn over(spec: &'s ChainSpec, store: &'s mut S, world: World, recent: Vec<Arc<SealedBlock>>) -> Self {
        let newest = recent.last().expect("there is always block 0");
        let fork = spec.fork_at(newest.header.timestamp);
        let executor = Executor::new(world, spec.chain_id, spec.deposit_contract, fork);
        let held_bytes = recent.iter().map(|block| block.held_bytes).sum();
        let memory = BlockMemory::new(limits::BLOCK_MEMORY_BLOCKS, limits::BLOCK_BODY_BYTES_MAX);
        Self { spec, store, executor, memory, sealer: Sealer::default(), recent, held_bytes, stands_on_header: false }
    }

    /// Stands on an older version of the state, or on block 0, made again; then executes what `chain` has behind it, so that a block is newest whose
    /// transactions are there.
    ///
    /// # Errors
    /// A block hash that is missing, a block that does not come out as stored.
    pub fn restart(&mut self, base: Option<Base>, chain: &impl BlockSource) -> Result<(), ReplayError> {
        self.stands_on_header = base.is_some();
        let sealed = match base {
            Some(base) => sealed_over(self.spec, base.header, base.state),
            None => genesis_block(self.spec, &mut *self.store)?,
        };
        let newest = sealed.header.number;
        let mut world = World::new(sealed.state.clone());
        for number in newest.saturating_sub(255)..=newest {
            let hash = chain.hash_by_number(number)?.ok_or(ReplayError::BlockMissing { number })?;
            world.set_block_hash(number, hash);
        }
        let fork = self.spec.fork_at(sealed.header.timestamp);
        self.executor = Executor::new(world, self.spec.chain_id, self.spec.deposit_contract, fork);
        self.held_bytes = sealed.held_bytes;
        self.recent = vec![Arc::new(sealed)];
        self.stored(chain)
    }

    /// As [`World::touch`], for a replay that has executed nothing yet and whose world will be the builder core's.
    pub fn touch_caches(&mut self) {
        self.executor.world().touch();
    }

    /// The newest blocks, oldest first.
    #[must_use]
    pub fn recent(&self) -> &[Arc<SealedBlock>] {
        &self.recent
    }

    /// Executes everything that is stored behind what the replay stands on.
    ///
    /// # Errors
    /// The first block that does not come out as stored.
    pub fn stored(&mut self, chain: &impl BlockSource) -> Result<(), ReplayError> {
        for number in self.tip().header.number + 1..=chain.latest_number().unwrap_or(0) {
            chain.visit(number, &mut |header, hash, txs| {
                let sealed = self.stored_block(header, hash, txs)?;
                self.remember(sealed)
            })?;
        }
        Ok(())
    }

    fn stored_block(
        &mut self,
        header: &Header,
        hash: &B256,
        txs: &mut dyn Iterator<Item = Result<StoredTxView<'_>, ChainError>>,
    ) -> Result<SealedBlock, ReplayError> {
        let number = header.number;
        let sealed = self.execute(header, txs)?;
        if sealed.hash != *hash {
            return Err(ReplayError::HashDiffers { number, stored: *hash, executed: sealed.hash });
        }
        Ok(sealed)
    }

    /// Executes the next block. It has its own hash, which the caller compares; then [`Replay::remember`] makes it the newest.
    ///
    /// # Errors
    /// A transaction that does not decode or cannot be in this block; the state.
    pub fn execute(
        &mut self,
        header: &Header,
        txs: &mut dyn Iterator<Item = Result<StoredTxView<'_>, ChainError>>,
    ) -> Result<SealedBlock, ReplayError> {
        let number = header.number;
        self.sealer.begin();
        let mut filler = BlockFiller::open(context_of(header, self.spec), &mut self.executor, &self.memory)?;
        for (index, tx) in txs.enumerate() {
            let tx = tx?;
            let decoded = transaction::decode(tx.raw).map_err(|source| ReplayError::Transaction {
                number,
                index: index as u32,
                source,
            })?;
            let authorities = recover_authorities(tx.raw, &decoded);
            let executable =
                ExecutableTx { fields: &decoded.fields, sender: tx.sender, raw: tx.raw, authorities: &authorities };
            let placement =
                Placement { hash: tx.hash, sequence: Sequence(0), accepted_unix_ns: 0, preconfirmed_unix_ns: 0 };
            filler.place(&mut self.executor, &executable, placement)?;
        }
        let closed = filler.close(&mut self.executor, Sequence(0))?;
        Ok(self.sealer.seal(closed, &self.tip().state.clone(), self.store, clock::wall_unix_ns())?)
    }

    /// The newest block.
    ///
    /// # Panics
    /// Never: there is always one.
    #[must_use]
    pub fn tip(&self) -> &Arc<SealedBlock> {
        self.recent.last().expect("the list starts with block 0 and keeps its last")
    }

    /// Makes a block the parent of the next.
    ///
    /// # Errors
    /// The state's.
    pub fn remember(&mut self, sealed: SealedBlock) -> Result<(), ReplayError> {
        self.executor.world().sealed(sealed.state.clone(), sealed.header.number, sealed.hash);
        self.held_bytes += sealed.held_bytes;
        self.recent.push(Arc::new(sealed));
        if std::mem::take(&mut self.stands_on_header) {
            self.recent.remove(0);
        }
        while self.recent.len() > limits::RECENT_BLOCKS_MAX
            || (self.recent.len() > 2 && self.held_bytes > limits::RECENT_BLOCKS_BYTES_MAX)
        {
            self.held_bytes -= self.recent.remove(0).held_bytes;
        }
        self.store.reclaim()?;
        Ok(())
    }

    /// The newest blocks, oldest first, and the world that stands on them.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Arc<SealedBlock>>, World) {
        (self.recent, self.executor.into_world())
    }
}

fn context_of(header: &Header, spec: &ChainSpec) -> BlockContext {
    BlockContext::of_header(header, spec.fork_at(header.timestamp))
}

#[cfg(test)]
mod tests;
