//! What the builder core answers about its pool and its open block.

use super::{Core, Phase};
use crate::builder::world::WorldError;
use crate::mempool::Readiness;
use crate::messages::{BuilderAnswer, BuilderRead, LiveStatus, PooledTx};
use crate::primitives::{B256, Bytes};

impl Core {
    pub(super) fn answer(&mut self, read: BuilderRead) -> Result<BuilderAnswer, WorldError> {
        Ok(match read {
            BuilderRead::Account { address } => {
                let world = self.executor.world();
                let account = world.peek_account(address)?;
                let code =
                    if account.has_code() { world.code(account.code_hash)?.original_bytes() } else { Bytes::new() };
                BuilderAnswer::Account {
                    nonce: account.nonce,
                    pool_nonce: self.pool.pending_nonce(&address).unwrap_or(account.nonce),
                    balance_wei: account.balance_wei,
                    code,
                }
            }
            BuilderRead::Slot { address, slot } => BuilderAnswer::Slot(self.executor.world().peek_slot(address, slot)?),
            BuilderRead::Transaction { hash } => BuilderAnswer::Transaction(self.pool.get(&hash).map(|pooled| {
                let payload = &pooled.submission.payload;
                let raw = payload.bytes.of(&self.slabs);
                PooledTx { raw: Bytes::copy_from_slice(raw), sender: pooled.submission.sender }
            })),
            BuilderRead::Status { hash } => BuilderAnswer::Status(self.live_status(&hash)),
            BuilderRead::PoolStatus => {
                let counts = self.pool.counts();
                BuilderAnswer::PoolStatus {
                    ready_count: u64::from(counts.ready),
                    queued_count: u64::from(counts.queued),
                    bytes: counts.bytes,
                }
            }
        })
    }

    fn live_status(&self, hash: &B256) -> Option<LiveStatus> {
        if let Some(pooled) = self.pool.get(hash) {
            let accepted_unix_ns = pooled.submission.payload.accepted_unix_ns;
            return Some(match pooled.readiness {
                _ if pooled.submission.conditions.is_some() => LiveStatus::Conditional { accepted_unix_ns },
                Readiness::Ready => LiveStatus::Ready { accepted_unix_ns },
                Readiness::Queued => LiveStatus::Queued { accepted_unix_ns },
            });
        }
        let index = *self.placed_index.get(hash)?;
        let block = match &self.phase {
            Phase::Filling(filling) => filling.filler.block(),
            Phase::Sealing(block) => block,
            Phase::Idle => return None,
        };
        let tx = block.transactions.get(index as usize)?;
        Some(LiveStatus::Placed {
            block_number: block.context.number,
            index,
            accepted_unix_ns: tx.accepted_unix_ns,
            preconfirmed_unix_ns: tx.preconfirmed_unix_ns,
        })
    }
}
