//! What the builder core answers about its pool and its open block.

use super::{Core, Payload, Phase};
use crate::builder::world::WorldError;
use crate::limits::{POOL_CONTENT_BYTES_MAX, POOL_CONTENT_TXS_MAX};
use crate::mempool::{Mempool, Readiness};
use crate::messages::{BuilderAnswer, BuilderRead, LiveStatus, PoolContent, PooledTx};
use crate::primitives::{Address, B256, Bytes};
use crate::runtime::slab::SlabReader;

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
            BuilderRead::PoolContent { sender } => pool_content(&self.pool, &self.slabs, sender),
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

/// Copies what is pooled, of everyone or of one sender, as far as it may be shown.
pub(super) fn pool_content(pool: &Mempool<Payload>, slabs: &[SlabReader], sender: Option<Address>) -> BuilderAnswer {
    let counts = pool.counts();
    let transactions = u64::from(counts.ready) + u64::from(counts.queued);
    if sender.is_none() && (transactions > POOL_CONTENT_TXS_MAX as u64 || counts.bytes > POOL_CONTENT_BYTES_MAX as u64)
    {
        return BuilderAnswer::PoolTooLarge { transactions, bytes: counts.bytes };
    }
    let (all, of_sender) = match &sender {
        None => (Some(pool.iter()), None),
        Some(sender) => (None, Some(pool.iter_sender(sender))),
    };
    let mut content = PoolContent::default();
    for pooled in all.into_iter().flatten().chain(of_sender.into_iter().flatten()) {
        let submission = pooled.submission;
        let raw = submission.payload.bytes.of(slabs);
        content.push(submission.sender, submission.fields.nonce, pooled.readiness == Readiness::Ready, raw);
        if content.entries.len() > POOL_CONTENT_TXS_MAX || content.bytes_len() > POOL_CONTENT_BYTES_MAX {
            let (transactions, bytes) = (content.entries.len() as u64, content.bytes_len() as u64);
            return BuilderAnswer::PoolTooLarge { transactions, bytes };
        }
    }
    BuilderAnswer::PoolContent(Box::new(content))
}
