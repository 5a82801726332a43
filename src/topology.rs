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
//! | `query_ingress` × shards | query pool → shard | `QUERIES_PER_SHARD_MAX` | `QueryReply` | cannot be: the shard counts what is in flight |
//!
//! State files: the state thread publishes what the next root slot says in a newest-value cell (`StateCells::mark`), `state-sync` makes it durable and
//! says how far; `state-care` prepares segments and looks for damage.
//!
//! Cells: [`Shared::heads`] (builder → everyone), [`Shared::gate`] (journal → everyone), [`Shared::chain_processed`] (chain → the thread that
//! syncs), [`Shared::journal`] (journal, chain sync and builder among themselves).

mod startup;

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

use crate::builder::block::{Heads, SealedBlock};
use crate::builder::core::{Core, CoreSettings, Now};
use crate::builder::driver::{BuilderSeat, ShardRings};
use crate::builder::execution::Executor;
use crate::builder::journal_outbox::JournalOutbox;
use crate::builder::world::World;
use crate::builder::{driver as builder_driver, replay};
use crate::chain::{ChainError, ChainReader};
use crate::config::genesis::ChainSpec;
use crate::config::{Config, Order};
use crate::ingress::driver::{ShardSeat, ShardSettings};
use crate::journal::driver::{self as journal_driver, JournalCells, JournalSeat, SlotSeat};
use crate::journal::file_storage::FileStorage;
use crate::journal::history::HistoryError;
use crate::journal::log::Log;
use crate::journal::scan::ScanError;
use crate::journal::storage::StorageError;
use crate::limits;
use crate::mempool::{Arrival, Limits as PoolLimits, Mempool, OrderingPolicy, PriorityFee};
use crate::messages::{ChainMessage, QueryJob, QueryReply};
use crate::primitives::{Sequence, ShardId};
use crate::ring::{Consumer, Doorbell, Gate, Producer, ring};
use crate::rpc::query_pool::{QuerySeat, QueryShard};
use crate::runtime::clock;
use crate::runtime::slab::{Slab, SlabReader};
use crate::state::StateError;
use crate::state::driver as state_driver;
use crate::state::driver::{CareSeat, StateSeat, SyncSeat};
use crate::state::files::FileStore;
use crate::state::files::file_disk::DirectoryError;
use startup::{Opened, TemporaryDir};

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
    /// Per shard: it has subscribers and wants its bell rung when there is news. Written by the shard.
    pub wants_events: Box<[AtomicBool]>,
    /// Open connections in the process. Written by the shards.
    pub connection_count: AtomicU64,
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
            wants_events: bells.iter().map(|_| AtomicBool::new(false)).collect(),
            gate: Arc::new(Gate::new(durable, bells.into_iter().chain([chain_bell, builder_bell]))),
            journal: Arc::new(JournalCells::default()),
            chain_processed: AtomicU64::new(0),
            heads: ArcSwap::new(heads),
            connection_count: AtomicU64::new(0),
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

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Replay(#[from] replay::ReplayError),
    #[error(transparent)]
    JournalFile(#[from] StorageError),
    #[error("state directory: {0}")]
    StateDirectory(#[from] DirectoryError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    JournalScan(#[from] ScanError),
    #[error("journal: {0}")]
    JournalHistory(#[from] HistoryError),
    #[error(
        "{dir} holds no journal, the chain database has {blocks} blocks: bring the journal back, or start in another data directory"
    )]
    JournalMissing { dir: PathBuf, blocks: u64 },
    #[error("no random bytes for the journal's name: {0}")]
    Entropy(std::io::Error),
    #[error("the hash pool could not be started: {0}")]
    HashPool(#[from] rayon::ThreadPoolBuildError),
    #[error("{thread}: {source}")]
    Thread { thread: String, source: std::io::Error },
    #[error("the slab of shard {shard} ({bytes} bytes) could not be reserved: {source}")]
    Slab { shard: u16, bytes: usize, source: std::io::Error },
    #[error("cannot listen on {address}: {what}")]
    Listen { address: SocketAddr, what: String },
    #[error("the handler for failed reads of mapped files could not be installed: {0}")]
    FaultHandler(std::io::Error),
    #[error("a temporary data directory could not be made: {0}")]
    TemporaryDir(std::io::Error),
    #[error(
        "the clock says {clock_s} (unix seconds) and the newest block {tip_s}: set the clock, or this is the wrong data directory"
    )]
    ClockBehind { clock_s: u64, tip_s: u64 },
    #[error("{path}: this data directory holds {stored}, the configuration says {configured}")]
    ChainDiffers { path: PathBuf, stored: String, configured: String },
    #[error("{path}: {source}")]
    ChainFile { path: PathBuf, source: std::io::Error },
}

/// A running process: its address, and the way to stop it.
pub struct Running {
    /// Where JSON-RPC listens.
    pub address: SocketAddr,
    pub genesis_hash: crate::primitives::B256,
    pub latest_number: u64,
    shared: Arc<Shared>,
    builder_bell: Arc<Doorbell>,
    shard_bells: Vec<Arc<Doorbell>>,
    /// Threads whose end ends the process: builder, state, chain.
    core_threads: Vec<Worker>,
    shard_threads: Vec<Worker>,
    /// Query threads, and the one that syncs the chain database.
    background_threads: Vec<Worker>,
    /// Removed when this is dropped, last of all.
    _temporary_dir: Option<TemporaryDir>,
}

struct Worker {
    name: String,
    handle: JoinHandle<Result<(), String>>,
}

/// Starts every thread. `rpc` is what the methods know of the process.
///
/// # Errors
/// What could not be opened, replayed, reserved or bound.
pub fn launch(config: &Config, spec: &ChainSpec, rpc: &crate::rpc::Settings) -> Result<Running, LaunchError> {
    let mut opened = startup::open(config, spec)?;
    let shard_count = shard_count(config);
    let builder_bell = Arc::new(Doorbell::for_thread());
    let wiring = wire_shards(config, rpc, shard_count, &builder_bell)?;
    let heads = Arc::new(Heads::new(opened.recent.iter().cloned().collect(), None));
    let shard_bells: Vec<_> = wiring.shards.iter().map(|end| Arc::clone(&end.doorbell)).collect();
    let chain_bell = Arc::new(Doorbell::for_thread());
    let (bells, builder) = (shard_bells.clone(), Arc::clone(&builder_bell));
    let shared = Arc::new(Shared::new(heads, bells, Arc::clone(&chain_bell), builder, opened.sequence));
    let cores = Cores::of(config, shard_count);

    let (genesis_hash, latest_number) = (opened.genesis_hash, opened.latest().header.number);
    let mut background_threads = spawn_queries(
        config,
        spec,
        rpc,
        &opened.reader,
        &shared,
        wiring.query_rx,
        wiring.query_shards,
        &cores.background(),
    )?;
    let (syncer, sync_shared) = (opened.writer.syncer(), Arc::clone(&shared));
    background_threads.push(spawn("chain-sync", cores.background(), move || {
        crate::chain::thread::run_syncer(&syncer, &sync_shared).map_err(|error| error.to_string())
    })?);
    let bells = CoreBells { builder: Arc::clone(&builder_bell), chain: chain_bell };
    let sync_bell = spawn_state_files(&mut opened.store, &shared, &cores, &mut background_threads)?;
    let (core_threads, temporary_dir) =
        spawn_core(config, spec, opened, sync_bell, wiring.builder_ends, wiring.slab_readers, &bells, &shared, &cores)?;
    let (shard_threads, address) = spawn_shards(wiring.shards, &shared, &cores)?;
    Ok(Running {
        address,
        genesis_hash,
        latest_number,
        shared,
        builder_bell,
        shard_bells,
        core_threads,
        shard_threads,
        background_threads,
        _temporary_dir: temporary_dir,
    })
}

/// Spawns the threads that make the state's commits durable and prepare its segments; answers the bell of the first.
fn spawn_state_files(
    store: &mut FileStore,
    shared: &Arc<Shared>,
    cores: &Cores,
    workers: &mut Vec<Worker>,
) -> Result<Arc<Doorbell>, LaunchError> {
    let sync_bell = Arc::new(Doorbell::for_thread());
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
    shards: Vec<ShardRings>,
    slabs: Vec<SlabReader>,
    bells: &CoreBells,
    shared: &Arc<Shared>,
    cores: &Cores,
) -> Result<(Vec<Worker>, Option<TemporaryDir>), LaunchError> {
    let parent = match &opened.start.unrecorded {
        Some(sealed) => sealed.state.clone(),
        None => opened.latest().state.clone(),
    };
    let Opened { writer, store, world, recent, log, storage, start, sequence, temporary_dir, .. } = opened;
    let (journal, mut workers) = spawn_journal(log, storage, sequence, &bells.builder, shared, cores)?;
    let state_bell = Arc::new(Doorbell::for_thread());
    let (state_tx, state_rx) = ring(limits::STATE_RING_SLOTS, &state_bell);
    let (sealed_tx, sealed_rx) = ring(1, &bells.builder);
    let chain_slots = config.mempool.transactions_max as usize + 2 * limits::CHAIN_RING_RESERVE;
    let (chain_tx, chain_rx) = ring::<ChainMessage>(chain_slots, &bells.chain);
    let (chain_bell, chain_shared) = (Arc::clone(&bells.chain), Arc::clone(shared));
    workers.push(spawn("chain", cores.unpinned(), move || {
        crate::chain::thread::run(writer, chain_rx, &chain_bell, &chain_shared).map_err(|error| error.to_string())
    })?);
    let seat = StateSeat { store, parent, inbox: state_rx, sealed: sealed_tx, doorbell: state_bell, sync_bell };
    workers.push(spawn("state", cores.unpinned(), move || state_driver::run(seat).map_err(|error| error.to_string()))?);
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
    Ok((workers, temporary_dir))
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
        slot_requests,
        slots_made,
    };
    let journal =
        spawn("journal", cores.unpinned(), move || journal_driver::run(seat).map_err(|error| error.to_string()))?;
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
    spawn("builder", Placement { cores, is_background: false }, move || {
        let header = recent.last().map(|block| block.header.clone()).unwrap_or_default();
        let executor = Executor::new(world, spec.chain_id, spec.deposit_contract, spec.fork_at(header.timestamp));
        let (monotonic_ns, unix_ns) = (clock::monotonic_ns(), clock::wall_unix_ns());
        let core = Core::new(
            core_settings(&config, &spec),
            pool(&config, &spec, header.gas_limit),
            executor,
            slabs,
            recent,
            sequence,
            Box::new(move |timestamp| spec.fork_at(timestamp)),
            Now { monotonic_ns, unix_ns },
        );
        builder_driver::run(seat, core).map_err(|error| error.to_string())
    })
}

impl Running {
    /// Stops admission, lets what is ready be placed, seals, syncs and ends every thread. Idempotent towards the threads.
    ///
    /// # Errors
    /// The first thread that ended with an error.
    pub fn stop(self) -> Result<(), String> {
        self.shared.stopping.store(true, Ordering::Release);
        self.builder_bell.ring();
        join_core(self.core_threads)?;
        self.shared.closed.store(true, Ordering::Release);
        for bell in &self.shard_bells {
            bell.ring();
        }
        join_all(self.shard_threads).and(join_all(self.background_threads))
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

/// Joins the threads that end one another. The first error is the answer: what the others wait for may never come.
fn join_core(mut workers: Vec<Worker>) -> Result<(), String> {
    while !workers.is_empty() {
        match workers.iter().position(|worker| worker.handle.is_finished()) {
            Some(index) => join(workers.swap_remove(index))?,
            None => std::thread::sleep(JOIN_POLL),
        }
    }
    Ok(())
}

fn join_all(workers: Vec<Worker>) -> Result<(), String> {
    workers.into_iter().map(join).fold(Ok(()), Result::and)
}

/// Where and how a thread runs.
#[derive(Clone, Default)]
struct Placement {
    /// Cores it may use; empty: all of the process.
    cores: Vec<usize>,
    /// Yields to every other thread of the process.
    is_background: bool,
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
            if placement.is_background
                && let Err(error) = crate::runtime::affinity::lower_current_thread_priority()
            {
                tracing::warn!(%error, "thread priority not lowered");
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
    }
}

fn pool(config: &Config, spec: &ChainSpec, block_gas_limit: u64) -> Mempool<crate::builder::core::Payload> {
    let pool_limits = PoolLimits {
        transactions_max: config.mempool.transactions_max,
        bytes_max: config.mempool.bytes_max,
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
}

/// A shard's seat without what exists only later.
struct ShardEnd {
    id: ShardId,
    settings: ShardSettings,
    slab: Slab,
    to_builder: Producer<crate::messages::IngressMessage>,
    from_builder: Consumer<crate::messages::BuilderReply>,
    freed: Consumer<crate::runtime::slab::TxHandle>,
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
    };
    let freed_slots =
        config.mempool.transactions_max as usize + limits::INGRESS_RING_SLOTS + limits::IN_FLIGHT_PER_SHARD_MAX;
    let slab_bytes =
        config.mempool.bytes_max as usize * limits::SLAB_BYTES_PER_POOL_BYTE + limits::SLAB_BYTES_IN_FLIGHT;
    for index in 0..shard_count {
        let id = ShardId(index as u16);
        let doorbell = Arc::new(Doorbell::for_task());
        let (to_builder, from_shard) = ring(limits::INGRESS_RING_SLOTS, builder_bell);
        let (replies, from_builder) = ring(limits::IN_FLIGHT_PER_SHARD_MAX, &doorbell);
        let (freed_tx, freed) = ring(freed_slots, &doorbell);
        let slab =
            Slab::new(id, slab_bytes).map_err(|source| LaunchError::Slab { shard: id.0, bytes: slab_bytes, source })?;
        let from_query = Arc::new(ArrayQueue::new(limits::QUERIES_PER_SHARD_MAX));
        wiring.query_shards.push(QueryShard { replies: Arc::clone(&from_query), doorbell: Arc::clone(&doorbell) });
        wiring.slab_readers.push(slab.reader());
        wiring.builder_ends.push(ShardRings { from_shard, replies, freed: freed_tx, doorbell: Arc::clone(&doorbell) });
        let settings = ShardSettings {
            http: config.http.clone(),
            chain_id: rpc.chain_id,
            rpc: rpc.clone(),
            wait: config.wait,
            core: None,
            query_timeout_ns: config.query.timeout_ns,
            chunks_max: freed_slots,
        };
        let to_query = to_query.clone();
        wiring.shards.push(ShardEnd {
            id,
            settings,
            slab,
            to_builder,
            from_builder,
            freed,
            to_query,
            from_query,
            doorbell,
        });
    }
    Ok(wiring)
}

fn processor_count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn shard_count(config: &Config) -> usize {
    if config.http.shards > 0 { config.http.shards } else { processor_count().saturating_sub(2).max(1) }
}

/// Which pinned thread gets which core: the builder the first, shards the following ones.
struct Cores {
    builder: Vec<usize>,
    shards: Vec<Option<usize>>,
    /// For every other thread, so that they leave the pinned ones alone.
    others: Vec<usize>,
}

impl Cores {
    fn of(config: &Config, shard_count: usize) -> Self {
        let allowed = crate::runtime::affinity::allowed_cores();
        // One core stays for state, chain, query and log threads.
        let has_room = allowed.len() > shard_count + 1;
        if !config.pin.unwrap_or(has_room) || allowed.is_empty() {
            return Self { builder: Vec::new(), shards: vec![None; shard_count], others: Vec::new() };
        }
        let core = |index: usize| allowed[index % allowed.len()];
        let others = if has_room { allowed[shard_count + 1..].to_vec() } else { Vec::new() };
        Self { builder: vec![core(0)], shards: (1..=shard_count).map(|index| Some(core(index))).collect(), others }
    }

    fn unpinned(&self) -> Placement {
        Placement { cores: self.others.clone(), is_background: false }
    }

    fn background(&self) -> Placement {
        Placement { cores: self.others.clone(), is_background: true }
    }
}

fn spawn_shards(
    ends: Vec<ShardEnd>,
    shared: &Arc<Shared>,
    cores: &Cores,
) -> Result<(Vec<Worker>, SocketAddr), LaunchError> {
    let mut workers = Vec::new();
    let mut address: Option<SocketAddr> = None;
    for (end, core) in ends.into_iter().zip(&cores.shards) {
        let ShardEnd { id, mut settings, slab, to_builder, from_builder, freed, to_query, from_query, doorbell } = end;
        settings.core = *core;
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
            doorbell,
            shared: Arc::clone(shared),
            bound,
        };
        // The executor pins its own thread.
        workers.push(spawn(&format!("ingress-{}", id.0), Placement::default(), move || {
            crate::ingress::driver::run(seat)
        })?);
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
    shared: &Arc<Shared>,
    jobs: QueryReceiver<QueryJob>,
    shards: Vec<QueryShard>,
    placement: &Placement,
) -> Result<Vec<Worker>, LaunchError> {
    let shards: Arc<[QueryShard]> = shards.into();
    let mut workers = Vec::new();
    for index in 0..config.query.threads {
        let seat = QuerySeat {
            jobs: jobs.clone(),
            shards: Arc::clone(&shards),
            shared: Arc::clone(shared),
            chain: reader.clone(),
            spec: spec.clone(),
            settings: settings.clone(),
            gas_max: config.query.gas_max,
            timeout_ns: config.query.timeout_ns,
        };
        workers.push(spawn(&format!("query-{index}"), placement.clone(), move || {
            crate::rpc::query_pool::run(&seat);
            Ok(())
        })?);
    }
    Ok(workers)
}
