//! The `follower` thread: blocks that were derived from L1, executed on our own state, kept, and shown. In the place of builder core, journal, state
//! and chain thread.
//!
//! ```text
//!  l1 thread ─► derived blocks, rewinds ─► execute, compare, chain database ─► heads ─► shards
//!  shards ─► questions about the newest block; transactions, which are refused
//! ```
//!
//! Strict re-execution has accepted a block before it comes here. It is executed once more, on the whole state, and must come out with the same
//! hash: two computations over two sources of the state. Nothing is journaled: what a crash loses is derived again. Deliberately absent: a pool.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use alloy_consensus::Header;
use alloy_primitives::Log;
use alloy_rlp::Decodable as _;
use crossbeam::channel::{Receiver, Sender, TrySendError};

use super::cells::SettlementView;
use super::ledger::Entry;
use super::strict::DerivedBlock;
use crate::builder::block::{Heads, SealedBlock};
use crate::builder::block_execution::{PrepareError, PreparedTx};
use crate::builder::driver::ShardRings;
use crate::builder::replay::{self, Replay, ReplayError, StoredTxView};
use crate::builder::rewinds::{RemovedLog, RemovedLogs, Rewind, Rewinds};
use crate::builder::world::World;
use crate::chain::sealed_record::Recorder;
use crate::chain::{ChainError, ChainReader, ChainWriter, StoredBlock};
use crate::config::genesis::ChainSpec;
use crate::crypto::keccak::keccak256;
use crate::limits;
use crate::messages::{BuilderAnswer, BuilderRead, BuilderReply, IngressMessage, Refusal};
use crate::metrics::reasons::RefusalReason;
use crate::primitives::{B256, Bytes, Sequence, Tier, U256};
use crate::ring::Doorbell;
use crate::runtime::clock;
use crate::state::files::sync::StateCells;
use crate::state::{StateError, StateReader, Store};
use crate::topology::Shared;

const NS_PER_MS: u64 = 1_000_000;

/// What derivation tells.
pub enum FollowMessage {
    /// The blocks behind the newest, or blocks that are there already.
    Adopt(Vec<DerivedBlock>),
    /// Blocks above are gone from L1.
    Rewind { to: u64 },
}

/// The `l1` thread's end.
pub struct FollowEnd {
    pub to: Sender<FollowMessage>,
    /// What the ring had no room for.
    pub waiting: VecDeque<FollowMessage>,
    /// For the ledger, when the follower has stored blocks up to this number.
    pub held: Option<(u64, Vec<Entry>)>,
    /// The follower was told how far L1 goes.
    pub is_met: bool,
}

impl FollowEnd {
    #[must_use]
    pub fn new(to: Sender<FollowMessage>) -> Self {
        Self { to, waiting: VecDeque::new(), held: None, is_met: false }
    }

    /// Sends what there is room for; answers whether it was anything.
    pub fn push(&mut self) -> bool {
        let mut is_sent = false;
        while let Some(message) = self.waiting.pop_front() {
            if let Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) = self.to.try_send(message) {
                self.waiting.push_front(message);
                break;
            }
            is_sent = true;
        }
        is_sent
    }
}

/// Everything that the thread owns.
pub struct FollowerSeat {
    pub shards: Vec<ShardRings>,
    pub derived: Receiver<FollowMessage>,
    pub spec: ChainSpec,
    pub store: Store,
    pub writer: ChainWriter,
    pub reader: ChainReader,
    /// Over the newest block.
    pub world: World,
    /// Oldest first.
    pub recent: Vec<Arc<SealedBlock>>,
    pub doorbell: Arc<Doorbell>,
    /// Of the thread that makes the state durable.
    pub sync_bell: Arc<Doorbell>,
    pub shared: Arc<Shared>,
}

/// Why the thread ended. The process must stop.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("derived block {number}, transaction {index}: {source}")]
    Transaction { number: u64, index: usize, source: PrepareError },
    #[error("the header of stored block {number} does not decode: {source}")]
    Header { number: u64, source: alloy_rlp::Error },
    #[error("derived block {number} does not follow the newest, {newest}")]
    OutOfOrder { number: u64, newest: u64 },
    #[error("block {number}, which a batch on L1 proves, cannot be executed here: {source}")]
    Execution { number: u64, source: ReplayError },
    #[error(transparent)]
    Disagrees(Box<Disagreement>),
}

/// A block that came out differently here.
#[derive(Debug, thiserror::Error)]
#[error(
    "block {number}: the batch on L1 proves hash {derived}, state root {derived_root}; executed here it has hash {executed}, state root {executed_root}. One of the two executions is wrong: nothing is followed any more"
)]
pub struct Disagreement {
    number: u64,
    derived: B256,
    derived_root: B256,
    executed: B256,
    executed_root: B256,
}

/// Runs until the process is told to stop.
///
/// # Errors
/// A block that comes out differently here; files that cannot be used.
pub fn run(seat: FollowerSeat) -> Result<(), FollowError> {
    let FollowerSeat {
        mut shards,
        derived,
        spec,
        mut store,
        mut writer,
        reader,
        world,
        recent,
        doorbell,
        sync_bell,
        shared,
    } = seat;
    doorbell.adopt_current_thread();
    let cells = store.cells();
    let replay = Replay::over(&spec, &mut store, world, recent);
    let recorder = Recorder::default();
    let shown = shared.settlement.view();
    let rewinds = Arc::default();
    let mut follower =
        Follower { replay, cells, writer: &mut writer, reader, recorder, sync_bell, shared: &shared, shown, rewinds };
    let mut waiting: VecDeque<DerivedBlock> = VecDeque::new();
    while !shared.is_stopping() {
        let mut is_idle = follower.serve(&mut shards)? == 0;
        if let Some(block) = waiting.pop_front() {
            is_idle = false;
            follower.take(&block)?;
            follower.show(&shards)?;
        } else if let Ok(message) = derived.try_recv() {
            is_idle = false;
            match message {
                FollowMessage::Adopt(blocks) => waiting.extend(blocks),
                FollowMessage::Rewind { to } => {
                    follower.rewind(to)?;
                    follower.show(&shards)?;
                }
            }
            // There is room again.
            shared.settlement.bell.ring();
        } else if shared.settlement.view() != follower.shown {
            follower.show(&shards)?;
        }
        if is_idle {
            doorbell.park(Some(Duration::from_nanos(limits::PARK_NS_MAX)), || {
                !derived.is_empty()
                    || shards.iter().any(|shard| !shard.from_shard.is_empty())
                    || shared.is_stopping()
                    || shared.settlement.view() != follower.shown
            });
        }
    }
    drop(follower);
    Ok(writer.sync()?)
}

struct Follower<'s> {
    replay: Replay<'s, Store>,
    cells: Arc<StateCells>,
    writer: &'s mut ChainWriter,
    reader: ChainReader,
    recorder: Recorder,
    sync_bell: Arc<Doorbell>,
    shared: &'s Shared,
    /// What the heads say of L1.
    shown: SettlementView,
    rewinds: Arc<Rewinds>,
}

impl Follower<'_> {
    /// Makes a derived block the newest, when it is not there yet.
    fn take(&mut self, block: &DerivedBlock) -> Result<(), FollowError> {
        let number = block.header.number;
        if number <= self.newest() {
            if number == 0 || self.reader.hash_by_number(number)? == Some(block.hash) {
                return Ok(());
            }
            tracing::warn!(number, hash = %block.hash, "L1 has another block than the one that is stored");
            self.rewind(number - 1)?;
        }
        if number != self.newest() + 1 {
            return Err(FollowError::OutOfOrder { number, newest: self.newest() });
        }
        let sealed = self.execute(block)?;
        let (record, _) = self.recorder.record(&sealed);
        // Its transactions were in no pool here, so they have no status.
        self.writer.append(&record)?;
        let meter = &self.shared.metrics.chain;
        meter.transactions.add(sealed.block.transactions.len() as u64);
        meter.gas.add(sealed.header.gas_used);
        self.writer.put_settled(Tier::Safe, number, number, clock::wall_unix_ns() / NS_PER_MS)?;
        self.replay.remember(sealed)?;
        self.appended();
        Ok(())
    }

    fn execute(&mut self, block: &DerivedBlock) -> Result<SealedBlock, FollowError> {
        let number = block.header.number;
        let recover = |(index, raw): (usize, Bytes)| {
            let hash = keccak256(&raw);
            let tx = PreparedTx::recover(raw);
            tx.map(|tx| (tx, hash)).map_err(|source| FollowError::Transaction { number, index, source })
        };
        let txs: Result<Vec<_>, _> = block.transactions().into_iter().enumerate().map(recover).collect();
        let txs = txs?;
        let mut views = txs.iter().map(|(tx, hash)| Ok(StoredTxView { raw: &tx.raw, hash: *hash, sender: tx.sender }));
        let executed = self.replay.execute(&block.header, &mut views);
        let sealed = executed.map_err(|source| FollowError::Execution { number, source })?;
        if sealed.hash != block.hash {
            return Err(FollowError::Disagrees(Box::new(Disagreement {
                number,
                derived: block.hash,
                derived_root: block.header.state_root,
                executed: sealed.hash,
                executed_root: sealed.header.state_root,
            })));
        }
        Ok(sealed)
    }

    /// Blocks above `to` go, and the state goes back with them.
    fn rewind(&mut self, to: u64) -> Result<(), FollowError> {
        let newest = self.newest();
        if newest <= to {
            return Ok(());
        }
        tracing::warn!(from = newest, to, "L1 does not have the newest blocks any more: they are taken back");
        let rewind = self.removed(to, newest)?;
        self.rewinds = Arc::new(self.rewinds.with(rewind));
        self.writer.truncate_to(to)?;
        let versions = self.cells.retained_versions();
        let base = replay::newest_base(versions.iter().rev(), &self.reader, to)?;
        if base.is_none() && to > 0 {
            tracing::warn!(to, "no version of the state is that old: it is made again from block 0");
        }
        self.replay.restart(base, &self.reader)?;
        self.appended();
        Ok(())
    }

    /// What readers are told of the blocks above `to`, before they go.
    fn removed(&self, to: u64, newest: u64) -> Result<Rewind, FollowError> {
        let mut logs = RemovedLogs::default();
        for number in to + 1..=newest {
            let Some(block) = self.reader.block_by_number(number)? else { continue };
            if !take_logs(&block, number, &mut logs)? {
                break;
            }
        }
        Ok(logs.end(to))
    }

    fn newest(&self) -> u64 {
        self.replay.tip().header.number
    }

    /// What was written is to become durable.
    fn appended(&self) {
        // ORDERING: Release, after the files were written; pairs with the Acquire of the thread that syncs them.
        self.shared.chain_processed.fetch_add(1, Ordering::Release);
        self.sync_bell.ring();
    }

    /// Publishes the heads, and wakes shards that have subscribers.
    fn show(&mut self, shards: &[ShardRings]) -> Result<(), FollowError> {
        let before = std::mem::replace(&mut self.shown, self.shared.settlement.view());
        let (first, last) = (before.finalized.saturating_add(1), self.shown.finalized.min(self.newest()));
        if first <= last {
            self.writer.put_settled(Tier::Finalized, first, last, clock::wall_unix_ns() / NS_PER_MS)?;
        }
        let heads = Heads::new(self.replay.recent().into(), None);
        let heads = heads.settled(self.shown.safe, self.shown.finalized).rewound(&self.rewinds);
        self.shared.heads.store(Arc::new(heads));
        // ORDERING: what was published comes before the look at who listens; pairs with the fence of a shard that begins to listen and
        // then looks at what is published.
        fence(Ordering::SeqCst);
        for (shard, wants_events) in shards.iter().zip(&self.shared.wants_events) {
            if wants_events.load(Ordering::Relaxed) {
                shard.doorbell.ring();
            }
        }
        Ok(())
    }

    /// Answers what shards ask a builder core, a turn's share of it; answers how much that was.
    fn serve(&self, shards: &mut [ShardRings]) -> Result<u32, FollowError> {
        let mut count = 0;
        for shard in shards {
            for _ in 0..limits::MESSAGES_PER_TURN_AND_SHARD {
                let Some(message) = shard.from_shard.pop() else { break };
                count += 1;
                // Every block that is shown was executed here, and nothing waits for a journal.
                let gate = Sequence(0);
                let reply = match message {
                    IngressMessage::Read { token, read } => {
                        BuilderReply::Answer { token, answer: self.answer(read)?, gate }
                    }
                    IngressMessage::Submit(submit) => {
                        // The ring has a slot for every transaction that the shard's ring can hold.
                        assert!(shard.freed.push(submit.handle).is_ok());
                        let meter = &self.shared.metrics.builder;
                        meter.rejected.increment(RefusalReason::Follows as usize);
                        BuilderReply::Refused {
                            token: submit.token,
                            hash: submit.hash,
                            refusal: Refusal::Follows,
                            gate,
                        }
                    }
                    IngressMessage::ForgetSync { .. } => continue,
                };
                // The shard keeps at most `IN_FLIGHT_PER_SHARD_MAX` requests unanswered, and the ring has as many slots.
                assert!(shard.replies.push(reply).is_ok());
                shard.doorbell.ring();
            }
        }
        Ok(count)
    }

    fn answer(&self, read: BuilderRead) -> Result<BuilderAnswer, StateError> {
        let state = &self.replay.tip().state;
        Ok(match read {
            BuilderRead::Account { address } => {
                let account = state.account(&address)?;
                let (nonce, balance_wei) = account.map_or((0, U256::ZERO), |found| (found.nonce, found.balance_wei));
                let code = account.map(|found| state.code(&found.code_hash)).transpose()?.flatten();
                BuilderAnswer::Account { nonce, pool_nonce: nonce, balance_wei, code: code.unwrap_or_default() }
            }
            BuilderRead::Slot { address, slot } => BuilderAnswer::Slot(state.storage(&address, slot)?),
            BuilderRead::Transaction { .. } => BuilderAnswer::Transaction(None),
            BuilderRead::Status { .. } => BuilderAnswer::Status(None),
            BuilderRead::PoolStatus => BuilderAnswer::PoolStatus { ready_count: 0, queued_count: 0, bytes: 0 },
            BuilderRead::PoolContent { .. } => BuilderAnswer::PoolContent(Box::default()),
        })
    }
}

/// Takes all logs of a stored block; false when there are too many to keep.
fn take_logs(block: &StoredBlock, number: u64, logs: &mut RemovedLogs) -> Result<bool, FollowError> {
    let header = Header::decode(&mut block.header_rlp()?).map_err(|source| FollowError::Header { number, source })?;
    let mut log_index = 0;
    for index in 0..block.tx_count() {
        let (Some(tx), Some(receipt)) = (block.tx(index)?, block.receipt(index)?) else { break };
        for log in receipt.logs {
            let removed = RemovedLog {
                block_hash: block.hash(),
                block_number: number,
                timestamp: header.timestamp,
                tx_hash: tx.hash,
                tx_index: u64::from(index),
                log_index,
                log: Log::new_unchecked(log.address, log.topics, log.data),
            };
            if !logs.push(removed) {
                return Ok(false);
            }
            log_index += 1;
        }
    }
    Ok(true)
}
