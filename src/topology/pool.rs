//! The pool as the configuration has it.

use super::random_seed;
use crate::builder::core::{Payload, RestoredTx};
use crate::config::genesis::ChainSpec;
use crate::config::{Config, Order};
use crate::mempool::{Arrival, Limits as PoolLimits, Mempool, OrderingPolicy, PriorityFee};

/// A pool with room for what the journal holds, which may be more than is admitted: blocks that were taken back leave their transactions in it.
pub fn pool(config: &Config, spec: &ChainSpec, block_gas_limit: u64, held: &[RestoredTx]) -> Mempool<Payload> {
    let held_bytes: u64 = held.iter().map(RestoredTx::memory_bytes).sum();
    let pool_limits = PoolLimits {
        transactions_max: config.mempool.transactions_max.max(u32::try_from(held.len()).unwrap_or(u32::MAX)),
        bytes_max: config.mempool.bytes_max.max(held_bytes),
        per_sender_max: config.mempool.per_sender_max,
        ..PoolLimits::new(spec.chain_id, block_gas_limit)
    };
    let policy: Box<dyn OrderingPolicy> = match config.order {
        Order::PriorityFee => Box::new(PriorityFee),
        Order::Arrival => Box::new(Arrival),
    };
    // The core sets the base fee; the seed protects the pool's tables against chosen senders.
    Mempool::new(pool_limits, policy, 0, random_seed())
}
