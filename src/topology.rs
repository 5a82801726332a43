//! Every thread, core, ring and cell. The only place that spawns and wires.
//!
//! | ring | from → to | slots | message | on full |
//! |---|---|---|---|---|
//! | `ingress_builder` × shards | shard → builder | `INGRESS_RING_SLOTS` | `IngressMessage` | `Reject`: −32005 to the client |
//! | `builder_ingress` × shards | builder → shard | `IN_FLIGHT_PER_SHARD_MAX` | `BuilderReply` | cannot be: the shard counts what is in flight |
//! | `builder_freed` × shards | builder → shard | pool + `INGRESS_RING_SLOTS` + `IN_FLIGHT_PER_SHARD_MAX` | `TxHandle` | cannot be: one slot for every chunk in use |
//! | `builder_journal` | builder → journal | `JOURNAL_RING_SLOTS` | `JournalMessage` | the builder's buffer grows; admission stops first: −32005 |
//! | `journal_builder` | journal → builder | `JOURNAL_RING_SLOTS` | `Vec<u8>` | the buffer is dropped |
//! | `journal_slots` | journal → slot maker | `SLOT_RING_SLOTS` | `SlotMessage` | cannot be: one request at a time |
//! | `slots_journal` | slot maker → journal | 1 | `u32` | cannot be: one request at a time |
//! | `builder_state` | builder → state | `STATE_RING_SLOTS` | `StateMessage` | cannot be: one block at a time |
//! | `state_builder` | state → builder | 1 | `SealedBlock` | cannot be: one block at a time |
//! | `builder_chain` | builder → chain | pool + 2 × `CHAIN_RING_RESERVE` | `ChainMessage` | admission stops first: −32005 |
//! | `ingress_query` | shards → query pool | `QUERY_QUEUE_SLOTS` | `QueryJob` | `Reject`: −32005 to the client |
//! | `measures` | builder → query pool → builder | `MEASURES_MAX` | `MeasureJob`, `MeasuredWitness` | the builder asks again later |
//! | `operator` | `admin` → builder | `OPERATOR_JOBS` | `OperatorJob` | `Reject`: −32005 to the operator |
//! | `cold` | shards → query pool | `BATCHES_MAX` | `Vec<Address>` | dropped: a hint |
//! | `follow` | `l1` → follower, where it is in the place of builder, journal, state and chain | `FOLLOW_MESSAGES` | `FollowMessage` | derivation waits |
//! | `settle_jobs`, `settle_outcomes` | `l1` ↔ `settle` | `SETTLEMENT_JOBS` | `Job`, `Outcome` | jobs wait with `l1` |
//! | `l1_calls` | query pool → `l1` | `L1_REQUESTS` | `PassedOn` | `Reject`: −32000 to the client |
//! | replacements | `l1` → main | 1 | `Replacement` | cannot be: the process stops for the first |
//! | the four of a shard | forwarder ↔ builder | as a shard's | as a shard's | it asks the client for nothing more, or sends again later |
//! | `neighbours` × shards | shards → shard | shards × `NEIGHBOUR_SLOTS_PER_SHARD` | `ShardMessage` | cannot be: each shard counts what it has under way |
//! | `account_questions`, `account_answers` | builder ↔ `el-accounts` (`delegated`) | `ACCOUNT_QUESTIONS`, twice as many | `AccountQuestion`, `AccountAnswer` | asked again later; `Stall` |
//! | `build_requests`, `build_answers` | builder ↔ `el-build` (`delegated`) | 1 | `BuildRequest`, `BuildAnswer` | cannot be: one block at a time |
//! | `query_ingress` × shards | query pool → shard | `QUERIES_PER_SHARD_MAX` | `QueryReply` | cannot be: the shard counts what is in flight |
//!
//! State files: the state thread publishes what the next root slot says in a newest-value cell (`StateCells::mark`), `state-sync` makes it durable and
//! says how far; `state-care` prepares segments and looks for damage.
//!
//! The forwarder (`verified`, `execution.pool-poll-ms` not 0) is to the builder one more shard, behind the last.
//!
//! Meters: [`Shared::metrics`], each written by its own thread, read by `ops` when somebody scrapes.
//!
//! Cells: [`Shared::heads`] (builder → everyone), [`Shared::gate`] (journal → everyone), [`Shared::chain_processed`] (chain → the thread that
//! syncs), [`Shared::journal`] (journal, chain sync and builder among themselves), [`Shared::execution`] (control and forwarder → builder, shards;
//! its bell: chain → control), [`Shared::controls`] (admin, main → builder, shards, `l1`; and back: what they have obeyed), [`Shared::limits`] (admin →
//! builder, shards). Control has no ring: it reads the newest blocks from the heads and older ones from the chain database.

mod admin;
mod adoption;
pub mod cold;
mod control;
mod cores;
mod delegated;
pub mod dev_l1;
mod follower;
mod forwarding;
mod halting;
pub mod imported;
pub mod launch_error;
pub mod levers;
pub mod measures;
pub mod operator;
mod ops;
mod pool;
pub mod replacement;
mod settlement;
pub mod startup;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::channel::{Receiver as QueryReceiver, bounded};
use crossbeam::queue::ArrayQueue;

use crate::admin::cells::ControlCells;
use crate::admin::limits::LimitCells;
use crate::builder::block::{BlockMemory, Heads, SealedBlock};
use crate::builder::core::{Core, CoreSettings, Now};
use crate::builder::driver as builder_driver;
use crate::builder::driver::{BuilderSeat, ShardRings};
use crate::builder::execution::Executor;
use crate::builder::journal_outbox::JournalOutbox;
use crate::builder::world::World;
use crate::chain::ChainReader;
use crate::config::Config;
use crate::config::execution::ExecutionMode;
use crate::config::genesis::ChainSpec;
use crate::config::l1::L1Mode;
use crate::engine_api::blocking::BlockingSettings;
use crate::engine_api::status::ExecutionCells;
use crate::ingress::driver::{ShardSeat, ShardSettings};
use crate::ingress::rates::RateTable;
use crate::journal::driver::{self as journal_driver, JournalCells, JournalSeat, SlotSeat};
use crate::journal::file_storage::FileStorage;
use crate::journal::log::Log;
use crate::limits;
use crate::messages::{ChainMessage, QueryJob, QueryReply};
use crate::metrics::Metrics;
use crate::primitives::{Sequence, ShardId};
use crate::ring::{Consumer, Doorbell, Gate, Mailbox, Producer, ring};
use crate::rpc::query_pool::{QuerySeat, QueryShard};
use crate::runtime::clock;
use crate::runtime::slab::{Slab, SlabReader};
use crate::settlement::cells::{SettlementCells, SettlementView};
use crate::settlement::pass_on::L1Door;
use crate::settlement::segment;
use crate::state::driver as state_driver;
use crate::state::driver::{CareSeat, StateSeat, SyncSeat};
use crate::state::files::FileStore;
use crate::state::files::sync::StateCells;
use cold::ColdAccounts;
use cores::{Cores, Placement};
pub use cores::{pinned_cores, shard_count};
use forwarding::Forwarding;
use halting::HaltWatch;
pub use launch_error::LaunchError;
use levers::Levers;
use measures::Measures;
use operator::OperatorDesk;
use replacement::Replacement;
use startup::{Kept, Opened, TemporaryDir};

/// What every thread may look at without asking anyone.
pub struct Shared {
    /// The chain's tip. Written by the builder core.
    pub heads: ArcSwap<Heads>,
    /// How far the journal is durable. Nothing that depends on a later record leaves the process. Its waiters are the shards, by their
    /// number, then [`Shared::chain_waiter`], then [`Shared::builder_waiter`].
    pub gate: Arc<Gate>,
    pub journal: Arc<JournalCells>,
    /// The chain thread has appended everything of its own up to this sequence. Written by the chain thread.
    pub chain_processed: AtomicU64,
    /// How the execution client stands, and how far it has checked our chain. Written by the control thread.
    pub execution: ExecutionCells,
    /// What L1 has made of our blocks. Written by the `l1` thread.
    pub settlement: SettlementCells,
    /// What the operator wants, and what the builder core has obeyed. Written by the main and the `admin` thread, and by the builder core.
    pub controls: Arc<ControlCells>,
    /// Prepared by the chain thread, used up by the builder core.
    pub block_memory: Arc<BlockMemory>,
    /// Per shard: it has subscribers and wants its bell rung when there is news. Written by the shard.
    pub wants_events: Box<[AtomicBool]>,
    /// How often the builder core waits for the disk, and what is done about it.
    pub cold: ColdAccounts,
    /// Witnesses that query threads measure for the builder core.
    pub measures: Measures,
    /// What every thread counts about itself, each its own part.
    pub metrics: Arc<Metrics>,
    /// What shards hold their peers to, and the pool's bounds. Written by the `admin` thread.
    pub limits: Arc<LimitCells>,
    /// What is left of the rate limits. Written by the shards, and only where there is a limit.
    pub rates: RateTable,
    /// What the operator wants of the pool.
    pub operator: OperatorDesk,
    /// Open connections in the process. Written by the shards.
    pub connection_count: AtomicU64,
    leaving: AtomicBool,
    stopping: AtomicBool,
    /// Set when nothing will be answered any more: shards end.
    closed: AtomicBool,
}

impl Shared {
    /// `bells` are those of the shards, in the order of their numbers; everything up to `durable` is on the disk.
    #[must_use]
    pub fn new(
        heads: Arc<Heads>,
        bells: Vec<Arc<Doorbell>>,
        chain_bell: Arc<Doorbell>,
        builder_bell: Arc<Doorbell>,
        durable: Sequence,
    ) -> Self {
        Self {
            metrics: Arc::new(Metrics::new(bells.len())),
            wants_events: bells.iter().map(|_| AtomicBool::new(false)).collect(),
            gate: Arc::new(Gate::new(durable, bells.into_iter().chain([chain_bell, builder_bell]))),
            journal: Arc::new(JournalCells::default()),
            chain_processed: AtomicU64::new(0),
            execution: ExecutionCells::embedded(),
            settlement: SettlementCells::off(),
            controls: Arc::default(),
            block_memory: Arc::new(BlockMemory::new(limits::BLOCK_MEMORY_BLOCKS, limits::BLOCK_BODY_BYTES_MAX)),
            heads: ArcSwap::new(heads),
            cold: ColdAccounts::default(),
            measures: Measures::default(),
            limits: Arc::new(LimitCells::none()),
            operator: OperatorDesk::default(),
            rates: RateTable::new(random_seed()),
            connection_count: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// The chain thread's place among the gate's waiters.
    #[must_use]
    pub fn chain_waiter(&self) -> usize {
        self.wants_events.len()
    }

    /// The builder core's place among the gate's waiters.
    #[must_use]
    pub fn builder_waiter(&self) -> usize {
        self.chain_waiter() + 1
    }

    /// Whether the end is near: `/readyz` says so, and everything goes on until [`Shared::is_stopping`].
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire) || self.is_stopping()
    }

    /// Whether the process was told to stop: nothing new is admitted.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Whether the last block is sealed and kept: shards end.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// How often a stopping process looks which of its threads have ended.
const JOIN_POLL: Duration = Duration::from_millis(2);
/// How often a start looks whether the builder core has begun.
const FIRST_TURN_POLL: Duration = Duration::from_millis(1);

/// A running process: its address, and the way to stop it.
pub struct Running {
    /// Where JSON-RPC listens.
    pub address: SocketAddr,
    /// Where metrics and health are asked for.
    pub metrics_address: Option<SocketAddr>,
    pub genesis_hash: crate::primitives::B256,
    pub latest_number: u64,
    /// Where the admin port listens, and the file of its token.
    pub admin: Option<(SocketAddr, PathBuf)>,
    /// `None`: a follower builds nothing that could be halted.
    halt_watch: Option<HaltWatch>,
    shared: Arc<Shared>,
    builder_bell: Arc<Doorbell>,
    shard_bells: Vec<Arc<Doorbell>>,
    /// Threads whose end ends the process: builder, state, chain.
    core_threads: Vec<Worker>,
    shard_threads: Vec<Worker>,
    /// Query threads, and the one that syncs the chain database.
    background_threads: Vec<Worker>,
    data_dir: PathBuf,
    replacements: Receiver<Replacement>,
    stop_limit_ns: u64,
    /// Removed when this is dropped, last of all.
    temporary_dir: Option<TemporaryDir>,
}

struct Worker {
    name: String,
    handle: JoinHandle<Result<(), String>>,
}

/// Starts every thread. `rpc` is what the methods know of the process, `levers` what its operator moves, `kept` what a start
/// before this one has left.
///
/// # Errors
/// What could not be opened, replayed, reserved or bound.
pub fn launch(
    config: &Config,
    spec: &ChainSpec,
    rpc: &crate::rpc::Settings,
    levers: &Levers,
    kept: Kept,
) -> Result<Running, LaunchError> {
    let ops = ops::start(config, rpc)?;
    let mut running = launch_threads(config, spec, rpc, levers, kept)?;
    if let Some(ops) = ops {
        running.metrics_address = Some(ops.address);
        running.background_threads.extend(ops.attach(&running.shared));
    }
    Ok(running)
}

/// Opens the files and starts every thread but that of metrics and health.
fn launch_threads(
    config: &Config,
    spec: &ChainSpec,
    rpc: &crate::rpc::Settings,
    levers: &Levers,
    kept: Kept,
) -> Result<Running, LaunchError> {
    let mut opened = startup::open(config, spec, kept)?;
    let data_dir = opened.data_dir.clone();
    let admin = admin::open(config, &data_dir)?;
    let shard_count = shard_count(config);
    let bells = CoreBells { builder: Arc::new(Doorbell::for_thread()), chain: Arc::new(Doorbell::for_thread()) };
    let builder_bell = Arc::clone(&bells.builder);
    let wiring = wire_shards(config, rpc, shard_count, &builder_bell)?;
    let verification = control::open(config, &opened)?;
    let settlement = settlement::open(config, spec, &mut opened)?;
    let (cells, door) = settlement::outside(settlement.as_ref());
    let shard_bells = wiring.bells();
    let shared = share(&opened, verification.as_ref(), cells, levers, shard_bells.clone(), &bells);
    let halt_watch = HaltWatch::open(config, &data_dir, &shared.controls, &builder_bell)?;
    let cores = Cores::of(config, shard_count);
    let (replace, replacements) = sync_channel(1); // One is enough: the process stops for it.
    let (genesis_hash, latest_number) = (opened.genesis_hash, opened.latest().header.number);
    let mut background_threads = spawn_queries(
        config,
        spec,
        rpc,
        &opened.reader,
        &opened.store.cells(),
        &builder_bell,
        &shared,
        wiring.query_rx,
        wiring.query_shards,
        verification.as_ref().map(|verification| verification.reads(config)),
        &door,
        &cores.background(),
    )?;
    background_threads.push(spawn_chain_sync(&opened, &shared, &cores)?);
    let client = (verification, wiring.forwarding);
    background_threads.extend(forwarding::spawn_client(config, spec, &opened, &shared, &builder_bell, client, &cores)?);
    if let Some(settlement) = settlement {
        background_threads.extend(settlement.spawn(config, spec, &opened, &shared, &builder_bell, replace, &cores)?);
    }
    let admin_at = admin.as_ref().map(admin::AdminPort::at);
    let admin = admin.map(|admin| admin.spawn(config, &data_dir, levers, &shared, &builder_bell, &cores));
    background_threads.extend(admin.transpose()?);
    let sync_bell = spawn_state_files(config, &mut opened.store, &shared, &cores, &mut background_threads)?;
    let ends = (wiring.builder_ends, wiring.slab_readers);
    let (core_threads, temporary_dir) =
        spawn_core(config, spec, opened, sync_bell, ends, &bells, &shared, &cores, &mut background_threads)?;
    let (shard_threads, address) = spawn_shards(wiring.shards, &shared, &cores)?;
    Ok(Running {
        address,
        metrics_address: None,
        genesis_hash,
        latest_number,
        admin: admin_at,
        halt_watch,
        shared,
        builder_bell,
        shard_bells,
        core_threads,
        shard_threads,
        background_threads,
        data_dir,
        replacements,
        stop_limit_ns: config.stop.limit_ns,
        temporary_dir,
    })
}

/// Spawns the thread that makes the chain database durable.
fn spawn_chain_sync(opened: &Opened, shared: &Arc<Shared>, cores: &Cores) -> Result<Worker, LaunchError> {
    let (syncer, shared) = (opened.writer.syncer(), Arc::clone(shared));
    spawn("chain-sync", cores.background(), move || {
        crate::chain::thread::run_syncer(&syncer, &shared).map_err(|error| error.to_string())
    })
}

/// What every thread may look at, as the process starts with it.
fn share(
    opened: &Opened,
    verification: Option<&control::Verification>,
    settlement: SettlementCells,
    levers: &Levers,
    shard_bells: Vec<Arc<Doorbell>>,
    bells: &CoreBells,
) -> Arc<Shared> {
    let checked = verification.map_or(u64::MAX, |verification| verification.checked);
    let view = settlement.view();
    let heads = Heads::checked(opened.recent.iter().cloned().collect(), None, checked);
    let heads = Arc::new(heads.settled(view.safe, view.finalized));
    let (chain_bell, builder_bell) = (Arc::clone(&bells.chain), Arc::clone(&bells.builder));
    let mut shared = Shared::new(heads, shard_bells, chain_bell, builder_bell, opened.sequence);
    shared.settlement = settlement;
    levers.controls.forget_obeyed();
    shared.controls = Arc::clone(&levers.controls);
    shared.limits = Arc::clone(&levers.limits);
    if let Some(verification) = verification {
        shared.execution = verification.cells();
    }
    Arc::new(shared)
}

/// Spawns the threads that make the state's commits durable and prepare its segments, where it is ours; answers the bell of the first.
fn spawn_state_files(
    config: &Config,
    store: &mut FileStore,
    shared: &Arc<Shared>,
    cores: &Cores,
    workers: &mut Vec<Worker>,
) -> Result<Arc<Doorbell>, LaunchError> {
    let sync_bell = Arc::new(Doorbell::for_thread());
    if config.execution.mode == ExecutionMode::Delegated {
        return Ok(sync_bell);
    }
    let syncer = store.take_syncer().expect("it is taken once, here");
    let seat = SyncSeat { syncer, doorbell: Arc::clone(&sync_bell), gate: Arc::clone(&shared.gate) };
    let sync_shared = Arc::clone(shared);
    workers.push(spawn("state-sync", cores.unpinned(), move || {
        state_driver::run_syncer(seat, || sync_shared.is_closed()).map_err(|error| error.to_string())
    })?);
    let (disk, segment_bytes) = store.preparer();
    let seat = CareSeat { disk, segment_bytes, cells: store.cells(), doorbell: Doorbell::for_thread() };
    let care_shared = Arc::clone(shared);
    workers.push(spawn("state-care", cores.background(), move || {
        state_driver::run_care(seat, || care_shared.is_closed()).map_err(|error| error.to_string())
    })?);
    let (address, bytes, file_bytes) = store.mapped();
    crate::runtime::bus_fault::watch_segments(address, bytes, file_bytes).map_err(LaunchError::FaultHandler)?;
    Ok(sync_bell)
}

/// Bells that several wires end at.
struct CoreBells {
    builder: Arc<Doorbell>,
    chain: Arc<Doorbell>,
}

/// Spawns journal, chain, state and builder with the rings between them.
fn spawn_core(
    config: &Config,
    spec: &ChainSpec,
    opened: Opened,
    sync_bell: Arc<Doorbell>,
    (shards, slabs): (Vec<ShardRings>, Vec<SlabReader>),
    bells: &CoreBells,
    shared: &Arc<Shared>,
    cores: &Cores,
    background: &mut Vec<Worker>,
) -> Result<(Vec<Worker>, Option<TemporaryDir>), LaunchError> {
    if opened.follow.is_some() {
        return follower::spawn_follower(spec, opened, sync_bell, shards, bells, shared, cores);
    }
    if config.execution.mode == ExecutionMode::Delegated {
        let spawned = delegated::spawn_core(config, spec, opened, (shards, slabs), bells, shared, cores, background)?;
        await_first_turn(&spawned.0, shared);
        return Ok(spawned);
    }
    let parent = match &opened.start.unrecorded {
        Some(sealed) => sealed.state.clone(),
        None => opened.latest().state.clone(),
    };
    let Opened { writer, store, world, recent, journal, start, sequence, temporary_dir, .. } = opened;
    let (log, storage) = journal.expect("who does not follow has a journal");
    let (journal, mut workers) = spawn_journal(log, storage, sequence, &bells.builder, shared, cores)?;
    let state_bell = Arc::new(Doorbell::for_thread());
    let (state_tx, state_rx) = ring(limits::STATE_RING_SLOTS, &state_bell);
    let (sealed_tx, sealed_rx) = ring(1, &bells.builder);
    let chain_slots = config.mempool.transactions_max as usize + 2 * limits::CHAIN_RING_RESERVE;
    let (chain_tx, chain_rx) = ring::<ChainMessage>(chain_slots, &bells.chain);
    let (chain_bell, chain_shared) = (Arc::clone(&bells.chain), Arc::clone(shared));
    workers.push(spawn("chain", cores.closing(), move || {
        crate::chain::thread::run(writer, chain_rx, &chain_bell, &chain_shared).map_err(|error| error.to_string())
    })?);
    let metrics = Arc::clone(&shared.metrics);
    let seat =
        StateSeat { store, parent, inbox: state_rx, sealed: sealed_tx, doorbell: state_bell, sync_bell, metrics };
    workers.push(spawn("state", cores.closing(), move || state_driver::run(seat).map_err(|error| error.to_string()))?);
    let seat = BuilderSeat {
        shards,
        state: state_tx,
        sealed: sealed_rx,
        chain: chain_tx,
        journal,
        doorbell: Arc::clone(&bells.builder),
        shared: Arc::clone(shared),
        wait: config.wait,
        start,
    };
    workers.push(spawn_builder(config, spec, seat, world, recent, sequence, slabs, cores.builder.clone())?);
    await_first_turn(&workers, shared);
    Ok((workers, temporary_dir))
}

/// Returns when the builder core has taken over what was under way, or has ended: whoever asked before would miss in the open block what was
/// shown of it.
fn await_first_turn(core_threads: &[Worker], shared: &Shared) {
    while shared.metrics.builder.turned_ns.get() == 0 && !core_threads.iter().any(|worker| worker.handle.is_finished())
    {
        std::thread::sleep(FIRST_TURN_POLL);
    }
}

/// Spawns the journal thread and the slot maker; answers the builder's end.
fn spawn_journal(
    log: Log,
    storage: FileStorage,
    sequence: Sequence,
    builder_bell: &Arc<Doorbell>,
    shared: &Arc<Shared>,
    cores: &Cores,
) -> Result<(JournalOutbox, Vec<Worker>), LaunchError> {
    let (journal_bell, slot_bell) = (Arc::new(Doorbell::for_thread()), Arc::new(Doorbell::for_thread()));
    let (records_tx, records_rx) = ring(limits::JOURNAL_RING_SLOTS, &journal_bell);
    let (empties_tx, empties_rx) = ring(limits::JOURNAL_RING_SLOTS, builder_bell);
    let (slot_requests, slot_inbox) = ring(limits::SLOT_RING_SLOTS, &slot_bell);
    let (made, slots_made) = ring(1, &journal_bell);
    let creator = storage.creator();
    let cells = Arc::clone(&shared.journal);
    let seat = SlotSeat {
        create: move |slot, bytes| creator.create(slot, bytes),
        inbox: slot_inbox,
        made,
        doorbell: slot_bell,
        cells: Arc::clone(&cells),
    };
    let slots = spawn("journal-slots", cores.background(), move || {
        journal_driver::run_slots(seat).map_err(|error| error.to_string())
    })?;
    let seat = JournalSeat {
        log,
        storage,
        inbox: records_rx,
        empties: empties_tx,
        doorbell: journal_bell,
        builder_bell: Arc::clone(builder_bell),
        gate: Arc::clone(&shared.gate),
        cells: Arc::clone(&cells),
        metrics: Arc::clone(&shared.metrics),
        slot_requests,
        slots_made,
    };
    let journal =
        spawn("journal", cores.prompt(), move || journal_driver::run(seat).map_err(|error| error.to_string()))?;
    Ok((JournalOutbox::new(records_tx, empties_rx, cells, sequence), vec![journal, slots]))
}

/// Spawns the builder core; executor and pool are made on its own thread, which they never leave.
fn spawn_builder(
    config: &Config,
    spec: &ChainSpec,
    seat: BuilderSeat,
    world: World,
    recent: Vec<Arc<SealedBlock>>,
    sequence: Sequence,
    slabs: Vec<SlabReader>,
    cores: Vec<usize>,
) -> Result<Worker, LaunchError> {
    let (config, spec) = (config.clone(), spec.clone());
    let checked = seat.shared.execution.checked();
    spawn("builder", Placement::prompt(cores), move || {
        let header = recent.last().map(|block| block.header.clone()).unwrap_or_default();
        let executor = Executor::new(world, spec.chain_id, spec.deposit_contract, spec.fork_at(header.timestamp));
        let (monotonic_ns, unix_ns) = (clock::monotonic_ns(), clock::wall_unix_ns());
        let mut core = Core::new(
            core_settings(&config, &spec),
            pool::pool(&config, &spec, header.gas_limit, &seat.start.pooled),
            executor,
            slabs,
            recent,
            sequence,
            Box::new(move |timestamp| spec.fork_at(timestamp)),
            Now { monotonic_ns, unix_ns },
        );
        if config.execution.mode == ExecutionMode::Verified {
            core.expect_verdicts(checked, config.execution.unchecked_blocks_max);
        }
        if seat.shared.settlement.is_on() {
            // The l1 thread may have moved on since the heads were made: the core hears of that as of everything later.
            let heads = seat.shared.heads.load();
            core.expect_settlement(SettlementView::unheard(heads.safe_number, heads.finalized_number));
        }
        builder_driver::run(seat, core).map_err(|error| error.to_string())
    })
}

impl Running {
    /// Looks whether somebody has put the file of an emergency halt there, or taken it away. To be called many times a second.
    pub fn look_for_halt(&mut self) {
        if let Some(watch) = &mut self.halt_watch {
            watch.look();
        }
    }

    /// Announces the end: load balancers that ask `/readyz` send nothing new. Everything else goes on.
    pub fn leave(&self) {
        self.shared.leaving.store(true, Ordering::Release);
    }

    /// Stops admission, lets what is ready be placed, seals, syncs and ends every thread. Idempotent towards the threads.
    ///
    /// # Errors
    /// The first thread that ended with an error, or those that had not ended within `stop.limit-ms`.
    pub fn stop(self) -> Result<(), String> {
        self.stop_keeping().map(drop)
    }

    /// As [`Running::stop`]; answers the data directory, and what removes it when it is a temporary one.
    ///
    /// # Errors
    /// As there.
    pub fn stop_keeping(self) -> Result<(PathBuf, Option<TemporaryDir>), String> {
        let deadline_ns = clock::monotonic_ns().saturating_add(self.stop_limit_ns);
        self.shared.stopping.store(true, Ordering::Release);
        self.builder_bell.ring();
        join_before(deadline_ns, self.core_threads)?;
        self.shared.closed.store(true, Ordering::Release);
        for bell in &self.shard_bells {
            bell.ring();
        }
        self.shared.execution.bell.ring();
        self.shared.settlement.bell.ring();
        let others = self.shard_threads.into_iter().chain(self.background_threads).collect();
        join_before(deadline_ns, others)?;
        Ok((self.data_dir, self.temporary_dir))
    }

    /// The first block that L1 has made safe, and the transaction that its end is in.
    #[must_use]
    pub fn first_safe(&self) -> Option<(u64, crate::primitives::B256)> {
        let status = self.shared.settlement.status();
        status.batches.front().map(|batch| (batch.last_block, batch.tx_hash))
    }

    /// What has to happen to the newest blocks, when L1 says so: stop, carry it out, launch again.
    #[must_use]
    pub fn replacement(&self) -> Option<Replacement> {
        self.replacements.try_recv().ok()
    }

    /// The first thread that has ended although nobody asked it to, with what it said.
    #[must_use]
    pub fn failed_thread(&mut self) -> Option<String> {
        let threads = [&mut self.core_threads, &mut self.shard_threads, &mut self.background_threads];
        let ended = threads.into_iter().find_map(|list| {
            let index = list.iter().position(|worker| worker.handle.is_finished())?;
            Some(list.swap_remove(index))
        })?;
        let name = ended.name.clone();
        Some(join(ended).err().unwrap_or_else(|| format!("{name}: ended")))
    }
}

fn join(worker: Worker) -> Result<(), String> {
    let Worker { name, handle } = worker;
    match handle.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{name}: {error}")),
        Err(_) => Err(format!("{name}: panicked")),
    }
}

/// Joins threads, those first that end first. The first error is the answer: what the others wait for may never come.
fn join_before(deadline_ns: u64, mut workers: Vec<Worker>) -> Result<(), String> {
    while !workers.is_empty() {
        if let Some(index) = workers.iter().position(|worker| worker.handle.is_finished()) {
            join(workers.swap_remove(index))?;
        } else if clock::monotonic_ns() >= deadline_ns {
            let names: Vec<&str> = workers.iter().map(|worker| worker.name.as_str()).collect();
            return Err(format!(
                "still running when stop.limit-ms was over: {}; what was acknowledged is in the journal, and the next start goes on from it",
                names.join(", ")
            ));
        } else {
            std::thread::sleep(JOIN_POLL);
        }
    }
    Ok(())
}

fn spawn(
    name: &str,
    placement: Placement,
    body: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<Worker, LaunchError> {
    let handle = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if !placement.cores.is_empty()
                && let Err(error) = crate::runtime::affinity::pin_current_thread(&placement.cores)
            {
                tracing::warn!(%error, cores = ?placement.cores, "thread not pinned");
            }
            if placement.nice > 0
                && let Err(error) = crate::runtime::affinity::lower_current_thread_priority(placement.nice)
            {
                tracing::warn!(%error, "thread priority not lowered");
            }
            if placement.slice_ns > 0
                && let Err(error) = crate::runtime::affinity::shorten_current_thread_slice(placement.slice_ns)
            {
                tracing::warn!(%error, "thread's slice not shortened");
            }
            body()
        })
        .map_err(|source| LaunchError::Thread { thread: name.to_owned(), source })?;
    Ok(Worker { name: name.to_owned(), handle })
}

// ---- what the threads stand on ---------------------------------------------------------------------------------------------------------

fn core_settings(config: &Config, spec: &ChainSpec) -> CoreSettings {
    CoreSettings {
        interval_ns: config.block.interval_ns,
        empty_interval_ns: config.block.empty_interval_ns,
        timestamp_lead_s: config.block.timestamp_lead_s,
        gas_limit_target: config.block.gas_limit.unwrap_or(spec.genesis.gas_limit),
        coinbase: config.block.coinbase,
        extra_data: config.block.extra_data.clone(),
        execute: config.execute,
        settlement_bytes_max: (config.l1.mode != L1Mode::Off)
            .then(|| u64::from(config.settlement.batch_bytes_max) - segment::OVERHEAD_BYTES_MAX as u64),
    }
}

/// Entropy from the standard library's own hasher keys, which the operating system seeds.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

// ---- rings and cores -------------------------------------------------------------------------------------------------------------------

struct Wiring {
    builder_ends: Vec<ShardRings>,
    slab_readers: Vec<SlabReader>,
    shards: Vec<ShardEnd>,
    query_rx: QueryReceiver<QueryJob>,
    query_shards: Vec<QueryShard>,
    forwarding: Option<Forwarding>,
}

impl Wiring {
    /// The bells of the shards, in the order of their numbers, then the forwarder's.
    fn bells(&self) -> Vec<Arc<Doorbell>> {
        let shards = self.shards.iter().map(|end| &end.doorbell);
        shards.chain(self.forwarding.iter().map(|forwarding| &forwarding.doorbell)).cloned().collect()
    }
}

/// What a shard and the builder share, the shard's side.
struct RingEnds {
    slab: Slab,
    to_builder: Producer<crate::messages::IngressMessage>,
    from_builder: Consumer<crate::messages::BuilderReply>,
    freed: Consumer<crate::runtime::slab::TxHandle>,
    /// Slots of `freed`.
    chunks_max: usize,
}

/// A shard's seat without what exists only later.
struct ShardEnd {
    id: ShardId,
    settings: ShardSettings,
    ends: RingEnds,
    to_query: crossbeam::channel::Sender<QueryJob>,
    from_query: Arc<ArrayQueue<QueryReply>>,
    doorbell: Arc<Doorbell>,
}

fn wire_shards(
    config: &Config,
    rpc: &crate::rpc::Settings,
    shard_count: usize,
    builder_bell: &Arc<Doorbell>,
) -> Result<Wiring, LaunchError> {
    let (to_query, query_rx) = bounded(limits::QUERY_QUEUE_SLOTS);
    let mut wiring = Wiring {
        builder_ends: Vec::new(),
        slab_readers: Vec::new(),
        shards: Vec::new(),
        query_rx,
        query_shards: Vec::new(),
        forwarding: None,
    };
    for index in 0..shard_count {
        let id = ShardId(index as u16);
        let doorbell = Arc::new(Doorbell::for_task());
        let (ends, rings) = wire_shard(config, id, &doorbell, builder_bell)?;
        let from_query = Arc::new(ArrayQueue::new(limits::QUERIES_PER_SHARD_MAX));
        wiring.query_shards.push(QueryShard { replies: Arc::clone(&from_query), doorbell: Arc::clone(&doorbell) });
        wiring.slab_readers.push(ends.slab.reader());
        wiring.builder_ends.push(rings);
        let settings = ShardSettings {
            http: config.http.clone(),
            chain_id: rpc.chain_id,
            rpc: rpc.clone(),
            wait: config.wait,
            query_timeout_ns: config.query.timeout_ns,
            chunks_max: ends.chunks_max,
        };
        wiring.shards.push(ShardEnd { id, settings, ends, to_query: to_query.clone(), from_query, doorbell });
    }
    let Wiring { builder_ends, slab_readers, forwarding, .. } = &mut wiring;
    *forwarding = Forwarding::wire(config, rpc.chain_id, builder_ends, slab_readers, builder_bell)?;
    Ok(wiring)
}

/// Memory of one shard's transactions, and the rings between it and the builder.
fn wire_shard(
    config: &Config,
    id: ShardId,
    doorbell: &Arc<Doorbell>,
    builder_bell: &Arc<Doorbell>,
) -> Result<(RingEnds, ShardRings), LaunchError> {
    let chunks_max =
        config.mempool.transactions_max as usize + limits::INGRESS_RING_SLOTS + limits::IN_FLIGHT_PER_SHARD_MAX;
    let slab_bytes =
        config.mempool.bytes_max as usize * limits::SLAB_BYTES_PER_POOL_BYTE + limits::SLAB_BYTES_IN_FLIGHT;
    let (to_builder, from_shard) = ring(limits::INGRESS_RING_SLOTS, builder_bell);
    let (replies, from_builder) = ring(limits::IN_FLIGHT_PER_SHARD_MAX, doorbell);
    let (freed_tx, freed) = ring(chunks_max, doorbell);
    let slab =
        Slab::new(id, slab_bytes).map_err(|source| LaunchError::Slab { shard: id.0, bytes: slab_bytes, source })?;
    let rings = ShardRings { from_shard, replies, freed: freed_tx, doorbell: Arc::clone(doorbell) };
    Ok((RingEnds { slab, to_builder, from_builder, freed, chunks_max }, rings))
}

fn spawn_shards(
    ends: Vec<ShardEnd>,
    shared: &Arc<Shared>,
    cores: &Cores,
) -> Result<(Vec<Worker>, SocketAddr), LaunchError> {
    let mut workers = Vec::new();
    let mut address: Option<SocketAddr> = None;
    let slots = ends.len() * limits::NEIGHBOUR_SLOTS_PER_SHARD;
    let mailboxes: Arc<[_]> = ends.iter().map(|end| Mailbox::new(slots, &end.doorbell)).collect();
    for (end, core) in ends.into_iter().zip(&cores.shards) {
        let ShardEnd { id, mut settings, ends, to_query, from_query, doorbell } = end;
        let RingEnds { slab, to_builder, from_builder, freed, .. } = ends;
        let placement = Placement::prompt(core.iter().copied().collect());
        // Port 0 is chosen by the first shard; the others share it.
        let wanted = address.unwrap_or(settings.http.address);
        settings.http.address = wanted;
        let (bound, bound_rx): (_, Receiver<Result<SocketAddr, String>>) = sync_channel(1);
        let seat = ShardSeat {
            id,
            settings,
            slab,
            to_builder,
            from_builder,
            freed,
            to_query,
            from_query,
            mailboxes: Arc::clone(&mailboxes),
            doorbell,
            shared: Arc::clone(shared),
            bound,
        };
        workers.push(spawn(&format!("ingress-{}", id.0), placement, move || crate::ingress::driver::run(seat))?);
        let listen = |what: String| LaunchError::Listen { address: wanted, what };
        match bound_rx.recv_timeout(Duration::from_secs(10)) {
            Ok(Ok(at)) => address = Some(at),
            Ok(Err(what)) => return Err(listen(what)),
            Err(_) => return Err(listen("the shard's thread did not start within 10 s".to_owned())),
        }
    }
    Ok((workers, address.expect("there is at least one shard")))
}

fn spawn_queries(
    config: &Config,
    spec: &ChainSpec,
    settings: &crate::rpc::Settings,
    reader: &ChainReader,
    states: &Arc<StateCells>,
    builder_bell: &Arc<Doorbell>,
    shared: &Arc<Shared>,
    jobs: QueryReceiver<QueryJob>,
    shards: Vec<QueryShard>,
    proxy: Option<BlockingSettings>,
    door: &L1Door,
    placement: &Placement,
) -> Result<Vec<Worker>, LaunchError> {
    let shards: Arc<[QueryShard]> = shards.into();
    let mut workers = Vec::new();
    for index in 0..config.query.threads {
        let seat = QuerySeat {
            index,
            jobs: jobs.clone(),
            shards: Arc::clone(&shards),
            builder_bell: Arc::clone(builder_bell),
            shared: Arc::clone(shared),
            chain: reader.clone(),
            states: Arc::clone(states),
            spec: spec.clone(),
            settings: settings.clone(),
            gas_max: config.query.gas_max,
            timeout_ns: config.query.timeout_ns,
            proxy: proxy.clone(),
            door: door.clone(),
        };
        workers.push(spawn(&format!("query-{index}"), placement.clone(), move || {
            crate::rpc::query_pool::run(&seat);
            Ok(())
        })?);
    }
    Ok(workers)
}
