//! The builder core's state machine: messages and time in, replies, blocks and ended transactions out.
//!
//! Runs on: builder core. It never blocks; what it tells others goes through [`Effects`], whose rings have room by the credits of
//! `topology.rs`. Executes continuously: what is ready now is executed now and its place is fixed. Deliberately absent: threads, clocks,
//! sockets, files.

mod admission;
mod carry;
mod checked;
mod controls;
pub mod delegated;
mod operator;
mod reads;
mod settled;
mod start;
mod witness_limit;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use revm::context::result::InvalidTransaction;

use crate::admin::cells::Wanted;
use crate::builder::block::{BlockContext, BlockMemory, Heads, OpenBlock, SealedBlock, StateDiff, next_base_fee_wei};
use crate::builder::clock::next_timestamp;
use crate::builder::conditions;
use crate::builder::execution::{ExecutableTx, ExecutionError, Executor};
use crate::builder::filler::{BlockFiller, Placement, Room};
use crate::builder::sealing::ClosedBlock;
use crate::builder::world::{World, WorldAccount, WorldError};
use crate::journal::record::{AdmittedTx, CloseReason, Record};
use crate::limits;
use crate::mempool::{AccountView, Counts, Deferral, Invalid, Mempool, Removed, Submission, TxId, Verdict};
use crate::messages::{BuilderReply, ChainMessage, IngressMessage, MeasureJob};
use crate::primitives::{Address, B256, Bytes, Fork, ReplyToken, Sequence, ShardId};
use crate::runtime::slab::{SlabReader, TxHandle};
use checked::Verdicts;
use settled::Settlement;
pub use start::{OpenStart, RestoredTx, Start, StartError};
use witness_limit::{Tried, WitnessKnown};

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub monotonic_ns: u64,
    /// The block clock's.
    pub unix_ns: u64,
}

/// What stays the same while the process runs.
#[derive(Clone, Debug)]
pub struct CoreSettings {
    pub interval_ns: u64,
    /// 0: never.
    pub empty_interval_ns: u64,
    pub timestamp_lead_s: u64,
    pub gas_limit_target: u64,
    pub coinbase: Address,
    pub extra_data: Bytes,
    pub execute: bool,
    /// Bytes that a transaction may have together with its witness, so that it can be settled; `None`: nothing is settled.
    pub settlement_bytes_max: Option<u64>,
}

/// Where the core's decisions go.
pub trait Effects {
    fn reply(&mut self, shard: ShardId, reply: BuilderReply);
    /// Sends a transaction's chunk home.
    fn free(&mut self, handle: TxHandle);
    fn publish(&mut self, heads: Arc<Heads>);
    /// One more transaction is in the open block.
    fn placed(&mut self);
    /// Tells the state thread which block to follow.
    fn open(&mut self, block: Arc<OpenBlock>);
    fn close(&mut self, closed: ClosedBlock);
    fn chain(&mut self, message: ChainMessage);
    /// Free slots towards the chain thread: a transaction is admitted only while its end has a place to go.
    fn chain_room(&self) -> usize;
    /// Appends the record of this sequence to the journal. Always possible: [`Effects::journal_room`] is asked before anything that may wait.
    fn record(&mut self, sequence: Sequence, record: &Record<'_>);
    /// What the journal can take.
    fn journal_room(&self) -> JournalRoom;
    /// How far the journal is durable.
    fn durable(&self) -> Sequence;
    /// Asks for a witness to be measured; false: nobody can take it now.
    fn measure(&mut self, job: MeasureJob) -> bool;
    /// Pooled transactions that were recorded before this sequence are to be recorded once more; 0: none.
    fn carry_below(&self) -> Sequence;
}

/// What the journal can take, from everything to nothing that can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JournalRoom {
    /// Its disk is full: only the open block's end is recorded.
    Full,
    /// Much is not durable yet: nothing is admitted or placed.
    Behind,
    /// Nothing is placed, so that what can still be taken serves admission.
    Busy,
    Plenty,
}

/// The bytes of a pooled transaction.
enum TxBytes {
    /// In the slab of the shard that received it.
    Chunk(TxHandle),
    /// Of a transaction that was pooled before the process started.
    Restored(Box<[u8]>),
}

impl TxBytes {
    fn of<'a>(&'a self, slabs: &'a [SlabReader]) -> &'a [u8] {
        match self {
            Self::Chunk(handle) => slabs[usize::from(handle.shard().0)].bytes(handle),
            Self::Restored(bytes) => bytes,
        }
    }
}

/// What travels through the pool with a transaction.
pub struct Payload {
    bytes: TxBytes,
    /// Sequence of the journal record that holds its bytes: its name in later records.
    name: Sequence,
    /// Sequence of its admission.
    admitted: Sequence,
    /// In list order, `None` where the signature does not recover; empty unless type 4.
    authorities: Vec<Option<Address>>,
    shard: ShardId,
    /// Who waits for the preconfirmed receipt.
    waiter: Option<ReplyToken>,
    accepted_unix_ns: u64,
    /// Executions that paid the coinbase less than its conditions declare.
    unpaid_count: u32,
    witness: WitnessKnown,
}

/// What the driver does after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTurn {
    /// There is more to execute.
    Now,
    /// Nothing before this monotonic time, unless a message comes.
    At(u64),
    /// There is work that waits for the journal; nothing before this monotonic time, unless that moves or a message comes.
    Held(u64),
    /// Nothing unless a message comes.
    OnMessage,
    /// Drained and sealed: the process may stop.
    Drained,
}

struct Filling {
    filler: BlockFiller,
    deferral_count: u32,
    /// Gas limits of executions that were dropped because they paid the coinbase too little (ERC-7796).
    unpaid_gas: u64,
    /// Monotonic; set when something is placed and everyone is told of the block.
    deadline_ns: Option<u64>,
}

enum Phase {
    Idle,
    Filling(Filling),
    /// Closed, and waiting for its hash.
    Sealing(Arc<OpenBlock>),
}

/// See the module's text.
pub struct Core {
    settings: CoreSettings,
    fork_at: Box<dyn Fn(u64) -> Fork + Send>,
    executor: Executor,
    memory: Arc<BlockMemory>,
    pool: Mempool<Payload>,
    slabs: Vec<SlabReader>,
    parent: Arc<SealedBlock>,
    recent: VecDeque<Arc<SealedBlock>>,
    phase: Phase,
    sequence: Sequence,
    /// Index in the block that is open or sealing.
    placed_index: HashMap<B256, u32, RandomState>,
    removed: Vec<Removed<Payload>>,
    /// Monotonic time of the last block's opening, for the empty-block timer.
    last_opened_ns: u64,
    /// Monotonic deadline of the drain.
    drain_until_ns: Option<u64>,
    /// Monotonic time at which waiting conditional transactions are offered again while no block is open.
    conditions_retry_ns: u64,
    /// Gas of everything executed so far, dropped executions included.
    gas_executed: u64,
    /// What is left to be carried forward, oldest first, and the sequence below which it was named.
    carrying: VecDeque<TxId>,
    carried_below: Sequence,
    /// What the operator wants.
    wanted: Wanted,
    /// What the execution client has said of our blocks.
    verdicts: Verdicts,
    /// What L1 has made of them.
    settlement: Settlement,
}

impl Core {
    /// A core that continues after the last of `recent` (oldest first) and the record `sequence`; `executor` stands on the same state.
    /// [`Core::start`] brings what was under way.
    #[must_use]
    pub fn new(
        settings: CoreSettings,
        pool: Mempool<Payload>,
        executor: Executor,
        slabs: Vec<SlabReader>,
        recent: Vec<Arc<SealedBlock>>,
        sequence: Sequence,
        fork_at: Box<dyn Fn(u64) -> Fork + Send>,
        now: Now,
    ) -> Self {
        let parent = Arc::clone(recent.last().expect("the caller brings at least the block to continue after"));
        let mut core = Self {
            settings,
            fork_at,
            executor,
            memory: Arc::new(BlockMemory::new(limits::BLOCK_MEMORY_BLOCKS, limits::BLOCK_BODY_BYTES_MAX)),
            pool,
            slabs,
            recent: recent.into(),
            phase: Phase::Idle,
            sequence,
            parent,
            placed_index: HashMap::with_capacity_and_hasher(limits::PLACED_ROOM, RandomState::default()),
            removed: Vec::with_capacity(64),
            last_opened_ns: now.monotonic_ns,
            drain_until_ns: None,
            conditions_retry_ns: 0,
            gas_executed: 0,
            carrying: VecDeque::new(),
            carried_below: Sequence(0),
            wanted: Wanted::default(),
            verdicts: Verdicts::default(),
            settlement: Settlement::default(),
        };
        core.pool.set_base_fee(u128::from(core.next_base_fee_wei()));
        core
    }

    /// Sequence of the newest record: what a journal has to make durable.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Takes the memory of blocks from where another thread prepares it. Until then it comes from the core's own stock.
    pub fn use_block_memory(&mut self, memory: Arc<BlockMemory>) {
        self.memory = memory;
    }

    /// The tip as other threads shall see it.
    #[must_use]
    pub fn heads(&self) -> Arc<Heads> {
        let open = match &self.phase {
            Phase::Idle => None,
            Phase::Filling(filling) => {
                Some(filling.filler.block()).filter(|block| !block.transactions.is_empty()).cloned()
            }
            Phase::Sealing(block) => Some(Arc::clone(block)),
        };
        self.heads_with(open)
    }

    /// Handles one message of an ingress shard.
    ///
    /// # Errors
    /// When the state cannot be read: fatal.
    pub fn on_message(
        &mut self,
        shard: ShardId,
        message: IngressMessage,
        now: Now,
        effects: &mut impl Effects,
    ) -> Result<(), WorldError> {
        match message {
            IngressMessage::Submit(submit) => self.submit(shard, submit, now, effects),
            IngressMessage::Read { token, read } => {
                let answer = self.answer(read)?;
                effects.reply(shard, BuilderReply::Answer { token, answer, gate: self.sequence });
                Ok(())
            }
            IngressMessage::ForgetSync { token, hash } => {
                if let Some(payload) = self.pool.payload_mut(&hash)
                    && payload.waiter == Some(token)
                {
                    payload.waiter = None;
                }
                Ok(())
            }
        }
    }

    /// Takes over the block that the state thread has sealed.
    pub fn on_sealed(&mut self, mut sealed: SealedBlock, effects: &mut impl Effects) {
        assert!(matches!(self.phase, Phase::Sealing(_)));
        let number = sealed.header.number;
        assert_eq!(number, self.parent.header.number + 1);
        let record = Record::Sealed {
            number,
            hash: sealed.hash,
            state_root: sealed.header.state_root,
            receipts_root: sealed.header.receipts_root,
            sealed_unix_ns: sealed.sealed_unix_ns,
        };
        sealed.sequence = append(&mut self.sequence, &record, effects);
        self.settlement.sealed(number, sealed.sequence);
        let sealed = Arc::new(sealed);
        self.executor.world().sealed(sealed.state.clone(), number, sealed.hash);
        self.parent = Arc::clone(&sealed);
        self.phase = Phase::Idle;
        self.placed_index.clear();
        self.pool.set_base_fee(u128::from(self.next_base_fee_wei()));
        self.pool.set_block_gas_limit(next_gas_limit(sealed.header.gas_limit, self.settings.gas_limit_target));
        self.pool.retry_deferred(Deferral::NextBlock, u32::MAX);
        self.pool.retry_deferred(Deferral::Condition, limits::CONDITIONAL_RETRIES_PER_BLOCK);
        effects.chain(ChainMessage::Sealed(Arc::clone(&sealed)));
        self.remember(sealed, effects);
        effects.publish(self.heads());
    }

    /// Stops admission; what is ready is still placed until `until_ns`, then the open block closes.
    pub fn drain(&mut self, until_ns: u64) {
        self.drain_until_ns.get_or_insert(until_ns);
    }

    /// Executes what is ready, at most one slice, and closes the block when it is time.
    ///
    /// # Errors
    /// Fatal ones only: the state cannot be read, or execution broke its own rules.
    pub fn turn(&mut self, now: Now, effects: &mut impl Effects) -> Result<NextTurn, ExecutionError> {
        let room = effects.journal_room();
        if room >= JournalRoom::Busy {
            self.expire(now, effects);
            self.carry(effects);
        }
        match self.phase {
            Phase::Sealing(_) => return Ok(NextTurn::OnMessage),
            Phase::Idle => {
                self.executor.world().trim();
                self.retry_conditions_if_due(now);
                let may_open = room == JournalRoom::Plenty
                    && self.is_nearly_durable(effects)
                    && !self.is_held()
                    && self.may_open_unchecked()
                    && self.settlement.may_open(&self.parent.header);
                let has_work = may_open && self.settings.execute && self.best_fits_next_block(now, effects)?;
                // What is held would wait for nothing.
                let is_waiting = !may_open && !self.is_held() && self.settings.execute && self.pool.best().is_some();
                if self.drain_until_ns.is_some_and(|until_ns| now.monotonic_ns >= until_ns || !(has_work || is_waiting))
                {
                    return Ok(NextTurn::Drained);
                }
                if !may_open {
                    return Ok(NextTurn::Held(now.monotonic_ns + limits::PARK_NS_MAX));
                }
                if let Some(next) = self.open_if_due(has_work, now, effects)? {
                    return Ok(next);
                }
            }
            Phase::Filling(_) => {}
        }
        let gas_start = self.gas_executed;
        for _ in 0..limits::EXECUTIONS_PER_TURN {
            if effects.journal_room() < JournalRoom::Plenty || self.is_held() {
                break;
            }
            match self.place_best(now, effects)? {
                Step::Placed => {}
                Step::Nothing => break,
                Step::Full => {
                    if matches!(&self.phase, Phase::Filling(filling) if filling.deadline_ns.is_none()) {
                        self.announce(now, effects);
                    }
                    self.close(CloseReason::Full, effects)?;
                    return Ok(NextTurn::OnMessage);
                }
            }
            if self.gas_executed - gas_start >= limits::GAS_PER_TURN {
                break;
            }
        }
        self.close_if_due(now, effects)
    }

    /// Whether the block before the newest is durable: readers are shown the newest one that is, so it must not leave memory.
    fn is_nearly_durable(&self, effects: &impl Effects) -> bool {
        let before = self.recent.len().checked_sub(2).and_then(|index| self.recent.get(index));
        before.is_none_or(|block| block.sequence <= effects.durable())
    }

    /// What is in the pool.
    #[must_use]
    pub fn pool_counts(&self) -> Counts {
        self.pool.counts()
    }

    /// How many transactions are pooled: after a stop they wait in the journal for the next start.
    #[must_use]
    pub fn pooled_count(&self) -> u64 {
        let counts = self.pool.counts();
        u64::from(counts.ready) + u64::from(counts.queued)
    }

    // ---- the block --------------------------------------------------------------------------------------------------------------

    /// Offers waiting conditional transactions again while no block is open: time alone may have met their conditions.
    fn retry_conditions_if_due(&mut self, now: Now) {
        if self.has_set_aside() && now.monotonic_ns >= self.conditions_retry_ns {
            self.pool.retry_deferred(Deferral::Condition, limits::CONDITIONAL_RETRIES_PER_BLOCK);
            self.conditions_retry_ns = now.monotonic_ns + limits::CONDITIONS_RETRY_NS;
        }
    }

    /// Whether something may wait for time alone: for its conditions, or to be measured again.
    fn has_set_aside(&self) -> bool {
        let counts = self.pool.counts();
        counts.conditional > 0 || counts.deferred > 0
    }

    /// Whether the best transaction could be placed in the block that would be opened now; what could not is set aside or ended, so
    /// that no block is opened for it.
    fn best_fits_next_block(&mut self, now: Now, effects: &mut impl Effects) -> Result<bool, WorldError> {
        let block_gas_limit = next_gas_limit(self.parent.header.gas_limit, self.settings.gas_limit_target);
        while let Some(best) = self.pool.best() {
            let (id, tx_gas_limit) = (best.id, best.submission.fields.gas_limit);
            if tx_gas_limit > block_gas_limit {
                let reason = Invalid::GasAboveBlock { tx: tx_gas_limit, block: block_gas_limit };
                self.pool.invalid(id, reason, now.monotonic_ns, &mut self.removed);
                self.settle_removed(now, effects);
            } else if best.submission.payload.witness == WitnessKnown::Asked {
                self.pool.defer(id, Deferral::Condition);
            } else if best.submission.conditions.is_none() || self.conditions_hold(id, now)? {
                return Ok(true);
            } else {
                self.settle_removed(now, effects);
            }
        }
        Ok(false)
    }

    /// Opens a block when there is something to place or the empty-block timer is over; otherwise says when to look again.
    fn open_if_due(
        &mut self,
        has_work: bool,
        now: Now,
        effects: &mut impl Effects,
    ) -> Result<Option<NextTurn>, ExecutionError> {
        if !has_work && self.empty_due_ns().is_none_or(|due_ns| now.monotonic_ns < due_ns) {
            return Ok(Some(self.next_look()));
        }
        if effects.chain_room() < limits::CHAIN_RING_RESERVE / 2 {
            // So many blocks wait for the disk that memory must not grow further.
            return Ok(Some(NextTurn::At(now.monotonic_ns + limits::PARK_NS_MAX)));
        }
        match next_timestamp(self.parent.header.timestamp, now.unix_ns, self.settings.timestamp_lead_s) {
            Err(wait_until_unix_ns) => {
                let wait_ns = wait_until_unix_ns.saturating_sub(now.unix_ns);
                Ok(Some(NextTurn::At(now.monotonic_ns + wait_ns)))
            }
            Ok(timestamp) => {
                self.open(timestamp)?;
                if !has_work {
                    self.announce(now, effects);
                }
                Ok(None)
            }
        }
    }

    fn empty_due_ns(&self) -> Option<u64> {
        (self.settings.empty_interval_ns > 0).then(|| self.last_opened_ns + self.settings.empty_interval_ns)
    }

    /// When an idle core without work has to look again.
    fn next_look(&self) -> NextTurn {
        let retry_ns = self.has_set_aside().then_some(self.conditions_retry_ns);
        let due_ns = self.empty_due_ns().into_iter().chain(retry_ns).min();
        due_ns.map_or(NextTurn::OnMessage, NextTurn::At)
    }

    /// Opens a block that nobody else knows of until something is placed in it: its context is that of its first transaction.
    fn open(&mut self, timestamp: u64) -> Result<(), ExecutionError> {
        let parent = &self.parent.header;
        let (prev_randao, parent_beacon_block_root) = self.settlement.origin_fields(parent);
        let context = BlockContext {
            number: parent.number + 1,
            parent_hash: self.parent.hash,
            timestamp,
            base_fee_per_gas_wei: self.next_base_fee_wei(),
            prev_randao,
            coinbase: self.settings.coinbase,
            gas_limit: next_gas_limit(parent.gas_limit, self.settings.gas_limit_target),
            extra_data: self.settings.extra_data.clone(),
            parent_beacon_block_root,
            fork: (self.fork_at)(timestamp),
        };
        let filler = BlockFiller::open(context, &mut self.executor, &self.memory)?;
        self.phase = Phase::Filling(Filling { filler, deferral_count: 0, unpaid_gas: 0, deadline_ns: None });
        Ok(())
    }

    /// Shows the open block to everyone; one without a transaction closes at once.
    fn announce(&mut self, now: Now, effects: &mut impl Effects) {
        let Phase::Filling(filling) = &mut self.phase else { return };
        let block = filling.filler.block();
        let lasts_ns = if filling.filler.tx_count() == 0 { 0 } else { self.settings.interval_ns };
        filling.deadline_ns = Some(now.monotonic_ns + lasts_ns);
        self.last_opened_ns = now.monotonic_ns;
        if filling.filler.tx_count() == 0 {
            let record = Record::Opened { context: Cow::Borrowed(&block.context), opened_unix_ns: now.unix_ns };
            append(&mut self.sequence, &record, effects);
        }
        effects.open(Arc::clone(block));
        let block = Arc::clone(block);
        effects.publish(self.heads_with(Some(block)));
    }

    /// Takes back the opening of a block in which nothing was placed, so that the next one has the time of its first transaction.
    fn abandon(&mut self) {
        self.executor.world().discard_changes();
        self.phase = Phase::Idle;
    }

    /// Executes the best ready transaction and fixes its place.
    fn place_best(&mut self, now: Now, effects: &mut impl Effects) -> Result<Step, ExecutionError> {
        let Phase::Filling(filling) = &mut self.phase else { return Ok(Step::Nothing) };
        if !self.settings.execute {
            return Ok(Step::Nothing);
        }
        let Some(best) = self.pool.best() else { return Ok(Step::Nothing) };
        let id = best.id;
        match filling.filler.room_for(&best.submission.fields, best.submission.encoded_bytes as usize) {
            Room::Fits => {}
            Room::NotThisOne if filling.filler.tx_count() == 0 => {
                let tx_gas_limit = best.submission.fields.gas_limit;
                let reason =
                    Invalid::GasAboveBlock { tx: tx_gas_limit, block: filling.filler.block().context.gas_limit };
                self.pool.invalid(id, reason, now.monotonic_ns, &mut self.removed);
                self.settle_removed(now, effects);
                return Ok(Step::Placed);
            }
            Room::NotThisOne if filling.deferral_count < limits::DEFERRALS_PER_BLOCK => {
                filling.deferral_count += 1;
                self.pool.defer(id, Deferral::NextBlock);
                return Ok(Step::Placed);
            }
            Room::NotThisOne | Room::None => return Ok(Step::Full),
        }
        if best.submission.payload.witness == WitnessKnown::Asked {
            self.pool.defer(id, Deferral::Condition);
            return Ok(Step::Placed);
        }
        let has_unpaid_budget = filling.unpaid_gas < limits::UNPAID_GAS_PER_BLOCK;
        if let Some(conditions) = &best.submission.conditions {
            if conditions.pays_coinbase_wei.is_some() && !has_unpaid_budget {
                self.pool.defer(id, Deferral::Condition);
                return Ok(Step::Placed);
            }
            if !self.conditions_hold(id, now)? {
                self.settle_removed(now, effects);
                return Ok(Step::Placed);
            }
        }
        self.place(id, now, effects)
    }

    /// Executes a transaction that `best` returned and that fits.
    fn place(&mut self, id: TxId, now: Now, effects: &mut impl Effects) -> Result<Step, ExecutionError> {
        let Phase::Filling(filling) = &mut self.phase else { return Ok(Step::Nothing) };
        let Some(pooled) = self.pool.get_by_id(id) else { return Ok(Step::Nothing) };
        let submission = pooled.submission;
        let payload = &submission.payload;
        let is_unknown = payload.witness == WitnessKnown::Nothing;
        let witness_bytes_max =
            witness_limit::witness_bytes_max(&self.settings, submission.encoded_bytes).filter(|_| is_unknown);
        let tx = ExecutableTx {
            fields: &submission.fields,
            sender: submission.sender,
            raw: payload.bytes.of(&self.slabs),
            authorities: &payload.authorities,
        };
        // The first place of a block comes after the record of its opening.
        let opens = filling.deadline_ns.is_none();
        let placement = Placement {
            hash: submission.hash,
            sequence: Sequence(self.sequence.0 + 1 + u64::from(opens)),
            accepted_unix_ns: payload.accepted_unix_ns,
            preconfirmed_unix_ns: now.unix_ns,
        };
        let filler = &mut filling.filler;
        let conditions = submission.conditions.as_deref();
        match witness_limit::try_place(filler, &mut self.executor, &tx, placement, conditions, witness_bytes_max) {
            Ok(Tried::Over) => {
                self.gas_executed += tx.fields.gas_limit;
                self.measure_witness(id, placement.hash, effects);
            }
            Ok(Tried::Unpaid) => {
                let tx_gas_limit = tx.fields.gas_limit;
                filling.unpaid_gas += tx_gas_limit;
                self.gas_executed += tx_gas_limit;
                self.set_unpaid_aside(id, placement.hash, now);
            }
            Ok(Tried::Placed(index)) => {
                self.gas_executed += filling.filler.last_gas_used();
                self.placed_index.insert(placement.hash, index);
                let waiter = payload.waiter.map(|token| (payload.shard, token, Arc::clone(filling.filler.block())));
                if opens {
                    let context = Cow::Borrowed(&filling.filler.block().context);
                    let record = Record::Opened { context, opened_unix_ns: now.unix_ns };
                    append(&mut self.sequence, &record, effects);
                }
                let record = Record::Placed { tx: payload.name, index, preconfirmed_unix_ns: now.unix_ns };
                let sequence = append(&mut self.sequence, &record, effects);
                debug_assert_eq!(sequence, placement.sequence);
                if opens {
                    self.announce(now, effects);
                }
                if let Some((shard, token, block)) = waiter {
                    let reply = BuilderReply::Preconfirmed { token, block, index, gate: placement.sequence };
                    effects.reply(shard, reply);
                }
                effects.placed();
                self.pool.placed(id, &mut self.removed);
                self.refresh_pool_accounts(now)?;
            }
            Err(ExecutionError::Invalid(invalid)) => {
                self.pool.invalid(id, invalid_reason(&invalid), now.monotonic_ns, &mut self.removed);
            }
            Err(fatal) => return Err(fatal),
        }
        self.settle_removed(now, effects);
        Ok(Step::Placed)
    }

    /// What happens to a conditional transaction that was executed and paid less than it declared: a few more tries, then its end, for
    /// nobody pays for the tries.
    fn set_unpaid_aside(&mut self, id: TxId, hash: B256, now: Now) {
        let Some(payload) = self.pool.payload_mut(&hash) else { return };
        payload.unpaid_count += 1;
        if payload.unpaid_count < limits::UNPAID_EXECUTIONS_MAX {
            self.pool.defer(id, Deferral::Condition);
        } else {
            let reason = Invalid::Execution("paid the coinbase less than paysCoinbase, each time it was tried");
            self.pool.invalid(id, reason, now.monotonic_ns, &mut self.removed);
        }
    }

    /// Whether a conditional transaction may take its place now; one that may never is ended, one that may later is set aside.
    fn conditions_hold(&mut self, id: TxId, now: Now) -> Result<bool, WorldError> {
        let (number, timestamp) = self.next_place(now);
        let Some(pooled) = self.pool.get_by_id(id) else { return Ok(false) };
        let Some(conditions) = pooled.submission.conditions.as_deref() else { return Ok(true) };
        match conditions::evaluate(conditions, self.executor.world(), number, timestamp)? {
            Verdict::Met => return Ok(true),
            Verdict::NotYet(_) => self.pool.defer(id, Deferral::Condition),
            Verdict::Impossible(reason) => {
                self.pool.invalid(id, Invalid::Condition(reason), now.monotonic_ns, &mut self.removed);
            }
        }
        Ok(false)
    }

    /// Where the next transaction could be placed: number and timestamp of the open block, or of the next one.
    fn next_place(&self, now: Now) -> (u64, u64) {
        match &self.phase {
            Phase::Filling(filling) => place_of(filling.filler.block()),
            Phase::Sealing(block) => (block.context.number + 1, block.context.timestamp + 1),
            Phase::Idle => {
                let parent = &self.parent.header;
                (parent.number + 1, (parent.timestamp + 1).max(now.unix_ns / 1_000_000_000))
            }
        }
    }

    /// Tells the pool what the last execution changed of accounts that it holds transactions of.
    fn refresh_pool_accounts(&mut self, now: Now) -> Result<(), WorldError> {
        let world = self.executor.world();
        for index in 0..world.diffs().len() {
            let StateDiff::Account { address, .. } = world.diffs()[index] else { continue };
            if self.pool.pending_nonce(&address).is_some() {
                let view = account_view(world, address)?;
                self.pool.account_changed(&address, &view, now.monotonic_ns, &mut self.removed);
            }
        }
        Ok(())
    }

    fn close_if_due(&mut self, now: Now, effects: &mut impl Effects) -> Result<NextTurn, ExecutionError> {
        let Phase::Filling(filling) = &self.phase else { return Ok(NextTurn::OnMessage) };
        let has_more = self.settings.execute && !self.is_held() && self.pool.best().is_some();
        let is_draining = self.drain_until_ns.is_some_and(|until| !has_more || now.monotonic_ns >= until);
        match filling.deadline_ns {
            None if is_draining || !has_more => {
                self.abandon();
                return Ok(NextTurn::Now);
            }
            Some(_) if is_draining || !self.wanted.may_build() => self.close(CloseReason::Stop, effects)?,
            Some(deadline_ns) if now.monotonic_ns >= deadline_ns => self.close(CloseReason::Deadline, effects)?,
            Some(deadline_ns) if effects.journal_room() < JournalRoom::Plenty => {
                return Ok(NextTurn::Held(deadline_ns));
            }
            _ if has_more => return Ok(NextTurn::Now),
            Some(deadline_ns) => return Ok(NextTurn::At(deadline_ns)),
            None => {}
        }
        Ok(NextTurn::OnMessage)
    }

    fn close(&mut self, reason: CloseReason, effects: &mut impl Effects) -> Result<(), ExecutionError> {
        let Phase::Filling(filling) = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return Ok(());
        };
        let number = filling.filler.block().context.number;
        // A body of 8 MiB holds far fewer than 2^32 transactions.
        let tx_count = filling.filler.tx_count() as u32;
        let sequence = append(&mut self.sequence, &Record::Closed { number, tx_count, reason }, effects);
        let closed = filling.filler.close(&mut self.executor, sequence)?;
        self.phase = Phase::Sealing(Arc::clone(&closed.block));
        effects.close(closed);
        Ok(())
    }

    /// Adds to the blocks in memory; those that leave go to the chain thread, which pays for freeing them.
    fn remember(&mut self, sealed: Arc<SealedBlock>, effects: &mut impl Effects) {
        self.recent.push_back(sealed);
        let mut bytes: u64 = self.recent.iter().map(|block| block.held_bytes).sum();
        while (self.recent.len() > limits::RECENT_BLOCKS_MAX
            || (bytes > limits::RECENT_BLOCKS_BYTES_MAX && self.recent.len() > RECENT_BLOCKS_MIN))
            && self.recent.front().is_some_and(|oldest| self.verdicts.may_forget(oldest.header.number))
        {
            let Some(oldest) = self.recent.pop_front() else { break };
            bytes -= oldest.held_bytes;
            effects.chain(ChainMessage::Forget(oldest));
        }
    }

    fn next_base_fee_wei(&self) -> u64 {
        next_base_fee_wei(&self.parent.header)
    }
}

/// Blocks that stay in memory however large they are: the newest two may not be durable (`is_nearly_durable` is asked when a block opens, and
/// one more seals then), and readers are shown the one before.
const RECENT_BLOCKS_MIN: usize = 3;

/// Gives the record the next sequence and hands it to the journal.
fn append(sequence: &mut Sequence, record: &Record<'_>, effects: &mut impl Effects) -> Sequence {
    sequence.0 += 1;
    effects.record(*sequence, record);
    *sequence
}

/// A pooled transaction as the journal keeps it.
fn admitted_tx<'a>(submission: &'a Submission<Payload>, slabs: &'a [SlabReader]) -> AdmittedTx<'a> {
    let payload = &submission.payload;
    AdmittedTx {
        sender: submission.sender,
        accepted_unix_ns: payload.accepted_unix_ns,
        authorities: Cow::Borrowed(&payload.authorities),
        conditions: submission.conditions.as_deref().map(Cow::Borrowed),
        raw: payload.bytes.of(slabs),
    }
}

enum Step {
    /// Something happened; there may be more.
    Placed,
    Nothing,
    /// The block has no room for what comes next.
    Full,
}

fn place_of(block: &OpenBlock) -> (u64, u64) {
    (block.context.number, block.context.timestamp)
}

fn account_view(world: &mut World, address: Address) -> Result<AccountView, WorldError> {
    let account: WorldAccount = world.account(address)?;
    let is_delegated = account.has_code() && world.code(account.code_hash)?.is_eip7702();
    Ok(AccountView {
        balance_wei: account.balance_wei,
        nonce: account.nonce,
        has_code_not_delegation: account.has_code() && !is_delegated,
        is_delegated,
    })
}

/// The gas limit after a parent's: towards the target by less than a 1,024th of the parent's.
fn next_gas_limit(parent_gas_limit: u64, target: u64) -> u64 {
    let step_max = (parent_gas_limit / 1_024).saturating_sub(1);
    target.clamp(parent_gas_limit.saturating_sub(step_max), parent_gas_limit.saturating_add(step_max))
}

fn invalid_reason(invalid: &InvalidTransaction) -> Invalid {
    match invalid {
        InvalidTransaction::NonceTooLow { tx, state } => Invalid::NonceTooLow { tx: *tx, account: *state },
        InvalidTransaction::LackOfFundForMaxFee { fee, balance } => {
            Invalid::InsufficientFunds { cost_wei: **fee, balance_wei: **balance }
        }
        InvalidTransaction::RejectCallerWithCode => Invalid::Execution("sender has code (EIP-3607)"),
        InvalidTransaction::GasPriceLessThanBasefee => Invalid::Execution("fee cap below the block's base fee"),
        InvalidTransaction::CallGasCostMoreThanGasLimit { .. } => Invalid::Execution("gas limit below intrinsic gas"),
        InvalidTransaction::GasFloorMoreThanGasLimit { .. } => {
            Invalid::Execution("gas limit below floor gas (EIP-7623)")
        }
        InvalidTransaction::TxGasLimitGreaterThanCap { .. } => Invalid::Execution("gas limit above the cap (EIP-7825)"),
        _ => Invalid::Execution("invalid at its place in the block"),
    }
}

#[cfg(test)]
mod checked_tests;
#[cfg(test)]
mod conditional_tests;
#[cfg(test)]
mod controls_tests;
#[cfg(test)]
mod differential_tests;
#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod operator_tests;
#[cfg(test)]
mod settled_tests;
#[cfg(test)]
mod tests;
