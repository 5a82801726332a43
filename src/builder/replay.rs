//! From a chain database to the state at its tip: every stored block is executed again and must come out as it is stored.
//!
//! Runs before any thread is started.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_rlp::Decodable;

use crate::builder::block::{BlockContext, OpenBlock, SealedBlock};
use crate::builder::execution::{ExecutableTx, ExecutionError, Executor};
use crate::builder::filler::{BlockFiller, Placement};
use crate::builder::sealing::Sealer;
use crate::builder::world::World;
use crate::chain::{ChainError, ChainReader, StoredBlock};
use crate::codec::transaction::{self, TxError};
use crate::config::genesis::ChainSpec;
use crate::crypto::recovery::{self, RecoverItem};
use crate::limits;
use crate::primitives::{Address, B256, Sequence};
use crate::runtime::clock;
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
}

/// Block 0 over its state.
///
/// # Errors
/// When the state refuses the allocation.
pub fn genesis_block<S: StateStore<Reader = Snapshot>>(
    spec: &ChainSpec,
    store: &mut S,
) -> Result<SealedBlock, StateError> {
    let alloc = spec.genesis.alloc.iter().map(|(address, account)| genesis::GenesisAccount {
        address: *address,
        balance_wei: account.balance,
        nonce: account.nonce.unwrap_or(0),
        code: account.code.clone().unwrap_or_default(),
        storage: account.storage.iter().flatten().map(|(slot, value)| ((*slot).into(), (*value).into())).collect(),
    });
    let state = genesis::from_alloc(store, alloc)?;
    let header = spec.genesis_header(state.root());
    let hash = header.hash_slow();
    let context = context_of(&header, spec);
    let (_writer, block) = OpenBlock::new(context, 0);
    Ok(SealedBlock {
        size_bytes: crate::builder::sealing::block_rlp_bytes(&header, 0),
        header,
        hash,
        block: Arc::new(block),
        requests: Vec::new(),
        state,
        sequence: Sequence(0),
        sealed_unix_ns: 0,
    })
}

/// Executes everything after block 0 and returns the tip's last blocks, oldest first, and the world that stands on it.
///
/// # Errors
/// The first block that does not come out as stored.
pub fn replay<S: StateStore<Reader = Snapshot>>(
    spec: &ChainSpec,
    chain: &ChainReader,
    store: &mut S,
    first: SealedBlock,
) -> Result<(Vec<Arc<SealedBlock>>, World), ReplayError> {
    let mut world = World::new(first.state.clone());
    world.set_block_hash(0, first.hash);
    let fork = spec.fork_at(first.header.timestamp);
    let mut executor = Executor::new(world, spec.chain_id, spec.deposit_contract, fork);
    let mut sealer = Sealer::default();
    let mut recent = vec![Arc::new(first)];
    for number in 1..=chain.latest_number().unwrap_or(0) {
        let stored = chain.block_by_number(number)?.ok_or(ReplayError::BlockMissing { number })?;
        let parent =
            recent.last().map(|block| block.state.clone()).expect("the list starts with block 0 and only grows");
        sealer.begin();
        let sealed = replay_block(spec, &stored, &parent, store, &mut executor, &mut sealer)?;
        executor.world().sealed(sealed.state.clone(), number, sealed.hash);
        recent.push(Arc::new(sealed));
        if recent.len() > limits::RECENT_BLOCKS_MAX {
            recent.remove(0);
        }
        store.reclaim()?;
    }
    Ok((recent, executor.into_world()))
}

fn replay_block<S: StateStore<Reader = Snapshot>>(
    spec: &ChainSpec,
    stored: &StoredBlock,
    parent: &Snapshot,
    store: &mut S,
    executor: &mut Executor,
    sealer: &mut Sealer,
) -> Result<SealedBlock, ReplayError> {
    let number = stored.number();
    let header = Header::decode(&mut stored.header_rlp()?).map_err(|source| ReplayError::Header { number, source })?;
    let mut filler = BlockFiller::open(context_of(&header, spec), executor)?;
    for (index, tx) in stored.txs().enumerate() {
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
        filler.place(executor, &executable, placement)?;
    }
    let closed = filler.close(executor, Sequence(0))?;
    let sealed = sealer.seal(closed, parent, store, clock::wall_unix_ns())?;
    if sealed.hash != stored.hash() {
        return Err(ReplayError::HashDiffers { number, stored: stored.hash(), executed: sealed.hash });
    }
    Ok(sealed)
}

/// Recovers the authorities of a type 4 transaction, in list order; empty for other types.
#[must_use]
pub fn recover_authorities(raw: &[u8], decoded: &transaction::Decoded) -> Vec<Option<Address>> {
    transaction::authorizations(raw, &decoded.fields)
        .map(|authorization| {
            let item = RecoverItem {
                digest: authorization.signing_hash(),
                r: authorization.r,
                s: authorization.s,
                y_parity: authorization.y_parity,
            };
            recovery::recover(&item).ok()
        })
        .collect()
}

fn context_of(header: &Header, spec: &ChainSpec) -> BlockContext {
    BlockContext {
        number: header.number,
        parent_hash: header.parent_hash,
        timestamp: header.timestamp,
        base_fee_per_gas_wei: header.base_fee_per_gas.unwrap_or_default(),
        prev_randao: header.mix_hash,
        coinbase: header.beneficiary,
        gas_limit: header.gas_limit,
        extra_data: header.extra_data.clone(),
        parent_beacon_block_root: header.parent_beacon_block_root.unwrap_or_default(),
        fork: spec.fork_at(header.timestamp),
    }
}

#[cfg(test)]
mod tests;
