//! Taking over what was under way when the process before this one ended.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::witness_limit::WitnessKnown;
use super::{Core, Effects, Filling, Now, Payload, Phase, TxBytes, account_view};
use crate::builder::block::SealedBlock;
use crate::builder::filler::BlockFiller;
use crate::builder::world::WorldError;
use crate::mempool::{Conditions, EndState, GasNeeds, Removed, RestoreError, Submission};
use crate::messages::GivenBlock;
use crate::primitives::{Address, B256, Sequence, ShardId, TxFields};

/// What the journal says was under way.
#[derive(Default)]
pub struct Start {
    /// What was pooled, in order of arrival.
    pub pooled: Vec<RestoredTx>,
    /// The newest block, where the journal holds its end and not its hash.
    pub unrecorded: Option<SealedBlock>,
    pub open: Option<OpenStart>,
    /// What the execution client is to build first (`delegated`).
    pub given: Option<GivenBlock>,
}

/// The block that was open, executed again up to its last place.
pub struct OpenStart {
    pub filler: BlockFiller,
    pub opened_unix_ns: u64,
}

/// A transaction that was pooled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredTx {
    pub hash: B256,
    pub sender: Address,
    pub fields: TxFields,
    pub raw: Box<[u8]>,
    pub authorities: Vec<Option<Address>>,
    pub conditions: Option<Conditions>,
    /// Sequence of the record that holds its bytes.
    pub name: Sequence,
    pub admitted: Sequence,
    pub accepted_unix_ns: u64,
}

impl RestoredTx {
    /// At least what it counts in the pool.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let conditions = self.conditions.as_ref().map_or(0, Conditions::memory_bytes);
        (self.raw.len() + self.authorities.len() * size_of::<Address>() + conditions) as u64
    }
}

/// Why the core cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("transaction {hash}: {source}")]
    Pool { hash: B256, source: Box<RestoreError> },
    #[error(transparent)]
    World(#[from] WorldError),
}

impl Core {
    /// Takes over a sealed block without record, the open block and the pool, in this order.
    ///
    /// Runs on: builder core, before its first turn.
    ///
    /// # Errors
    /// A pool with less room than the journal holds; a state that cannot be read.
    pub fn start(&mut self, start: Start, now: Now, effects: &mut impl Effects) -> Result<(), StartError> {
        let Start { pooled, unrecorded, open, given: _ } = start;
        if let Some(sealed) = unrecorded {
            self.phase = Phase::Sealing(Arc::clone(&sealed.block));
            self.on_sealed(sealed, effects);
        }
        if let Some(open) = open {
            self.resume_block(open, now, effects);
        }
        self.restore_pool(pooled, now, effects)
    }

    /// Goes on with a block at the place where it was left. Its deadline is what is left of its time by the wall clock.
    fn resume_block(&mut self, open: OpenStart, now: Now, effects: &mut impl Effects) {
        let OpenStart { filler, opened_unix_ns } = open;
        let block = Arc::clone(filler.block());
        self.executor.continue_block(&block.context);
        for (index, tx) in block.transactions.iter().enumerate() {
            // A block has fewer than 2^32 transactions.
            self.placed_index.insert(tx.hash, index as u32);
        }
        let passed_ns = now.unix_ns.saturating_sub(opened_unix_ns);
        let lasts_ns = if filler.tx_count() == 0 { 0 } else { self.settings.interval_ns.saturating_sub(passed_ns) };
        let deadline_ns = Some(now.monotonic_ns + lasts_ns);
        self.phase = Phase::Filling(Filling { filler, deferral_count: 0, unpaid_gas: 0, deadline_ns });
        effects.open(Arc::clone(&block));
        effects.publish(self.heads_with(Some(block)));
    }

    fn restore_pool(
        &mut self,
        pooled: Vec<RestoredTx>,
        now: Now,
        effects: &mut impl Effects,
    ) -> Result<(), StartError> {
        let mut senders = Vec::with_capacity(pooled.len());
        let mut nonces: HashMap<(Address, u64), B256, RandomState> = HashMap::default();
        for tx in pooled {
            let (hash, sender) = (tx.hash, tx.sender);
            // Blocks that were adopted and taken back again left what they had of ours, or of its nonces, a second time.
            match nonces.entry((sender, tx.fields.nonce)) {
                Entry::Vacant(vacant) => drop(vacant.insert(hash)),
                Entry::Occupied(first) if *first.get() == hash => continue,
                Entry::Occupied(first) => {
                    let end = EndState::Replaced { by: *first.get() };
                    self.removed.push(Removed { id: None, submission: submission(tx), end });
                    continue;
                }
            }
            let entered_ns = now.monotonic_ns.saturating_sub(now.unix_ns.saturating_sub(tx.accepted_unix_ns));
            let account = account_view(self.executor.world(), sender)?;
            self.pool
                .restore(submission(tx), &account, entered_ns)
                .map_err(|source| StartError::Pool { hash, source: Box::new(source) })?;
            senders.push(sender);
        }
        senders.sort_unstable();
        senders.dedup();
        for sender in senders {
            let account = account_view(self.executor.world(), sender)?;
            self.pool.account_changed(&sender, &account, now.monotonic_ns, &mut self.removed);
        }
        self.settle_removed(now, effects);
        Ok(())
    }
}

pub(super) fn submission(tx: RestoredTx) -> Submission<Payload> {
    let RestoredTx { hash, sender, fields, raw, authorities, conditions, name, admitted, accepted_unix_ns } = tx;
    let needs = GasNeeds::of(&fields);
    let recovered: Vec<Address> = authorities.iter().flatten().copied().collect();
    Submission {
        hash,
        sender,
        fields,
        // It was admitted, so it has at most `limits::TX_BYTES_MAX` bytes.
        encoded_bytes: raw.len() as u32,
        intrinsic_gas: needs.intrinsic_gas,
        floor_gas: needs.floor_gas,
        authorities: (!authorities.is_empty()).then(|| recovered.into_boxed_slice()),
        conditions: conditions.map(Box::new),
        payload: Payload {
            bytes: TxBytes::Restored(raw),
            name,
            admitted,
            authorities,
            // Nobody waits for it any more.
            shard: ShardId(0),
            waiter: None,
            accepted_unix_ns,
            unpaid_count: 0,
            witness: WitnessKnown::default(),
        },
    }
}
