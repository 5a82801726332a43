//! `delegated`: what stands where the builder, the state thread and the state's files stand in the other modes; and its start.
//!
//! The journal is the truth here as well. Its newest blocks may be missing in the chain database: those that the client has are read back from it
//! (block and witness, executed by our validator, the hash compared with the journal's); the others were shown to nobody, and are taken back.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use alloy_consensus::Header;
use alloy_primitives::Log as EvmLog;
use alloy_rlp::Decodable;

use super::replacement::{OpenBody, Replacement};
use super::startup::{self, Opened, TemporaryDir};
use super::{CoreBells, Cores, LaunchError, Placement, Shared, Worker, replacement, spawn, spawn_journal};
use crate::builder::assembly::{BlockParts, ExecutedTx, assemble};
use crate::builder::block::{BlockMemory, SealedBlock};
use crate::builder::block_execution::PreparedTx;
use crate::builder::core::delegated::DelegatedCore;
use crate::builder::core::{Now, Start};
use crate::builder::driver::ShardRings;
use crate::builder::driver::delegated::{self as driver, DelegatedSeat};
use crate::builder::replay;
use crate::builder::replay::from_journal::{self, JournalView};
use crate::builder::world::World;
use crate::chain::executed_record::{ExecutedRecord, append_executed};
use crate::chain::sealed_record::Recorder;
use crate::chain::{ChainReader, ChainWriter};
use crate::codec::transaction::tx_hash;
use crate::config::Config;
use crate::config::genesis::ChainSpec;
use crate::config::l1::L1Mode;
use crate::engine_api::accounts::{self, AccountSeat};
use crate::engine_api::archive::{ArchiveFault, Needs};
use crate::engine_api::blocking::{BlockingClient, BlockingSettings};
use crate::engine_api::builder_thread::{self, BuildSeat, validate_over, witness_of};
use crate::engine_api::files::Evidence;
use crate::engine_api::types::Method;
use crate::journal::file_storage::{FileStorage, SlotBytes};
use crate::journal::history::{BlockHistory, History};
use crate::journal::log::Log;
use crate::journal::record::{Record, RollbackCause};
use crate::journal::rollback::Plan;
use crate::journal::scan::{Scan, scan};
use crate::limits;
use crate::messages::{BuildRequest, BuildTx, ChainMessage, GivenBlock};
use crate::primitives::{Bytes, Sequence};
use crate::ring::{Doorbell, ring};
use crate::runtime::clock;
use crate::runtime::slab::SlabReader;
use crate::settlement::cells::SettlementView;
use crate::state::files::absent_disk::AbsentDisk;
use crate::state::files::recovery::StateSettings;
use crate::state::{Snapshot, StateStore, Store};
use crate::witness::validator::{StatelessBlock, Validated};

/// Blocks that a start reads into memory: what subscribers and fee samples look at first.
const RECENT_BLOCKS: u64 = 16;
/// How long the client's pool is put into a block where it takes no list.
const BUILD_WAIT: Duration = Duration::from_millis(300);

/// Opens journal and chain database, writes block 0 into empty ones, and brings the chain database to what the journal says.
///
/// # Errors
/// What could not be opened or read back; a client that does not answer while it is needed.
pub(super) fn open(
    config: &Config,
    spec: &ChainSpec,
    data_dir: &Path,
    begun: Option<OpenBody>,
) -> Result<Opened, LaunchError> {
    let journal_dir = startup::journal_dir(config, data_dir);
    let mut storage = startup::open_journal(config, &journal_dir)?;
    let scanned = scan(&mut storage)?;
    let (mut writer, reader) = ChainWriter::open(&data_dir.join("chain"), startup::chain_limits(config))?;
    let blocks = reader.latest_number().unwrap_or(0);
    if scanned.is_none() && blocks > 0 && !startup::is_imported(data_dir, blocks, &reader)? {
        return Err(LaunchError::JournalMissing { dir: journal_dir, blocks });
    }
    let hash_pool = Arc::new(startup::hash_pool(config.hash_threads)?);
    let genesis_root = replay::genesis_root(spec, Arc::clone(&hash_pool))?;
    let stored_genesis = startup::check_genesis(spec, &reader, genesis_root)?;
    let store = Store::open(hash_pool, Box::new(AbsentDisk::default()), StateSettings::default())?;
    let state = store.empty();
    let genesis = replay::genesis_elsewhere(spec, genesis_root, state.clone());
    let genesis_hash = genesis.hash;
    if stored_genesis.is_none() {
        writer.append(&Recorder::default().record(&genesis).0)?;
    }
    if let Some(history) = read_history(scanned.as_ref())? {
        startup::cut_chain(&history, &mut writer, &reader)?;
    }
    let settings = startup::log_settings(config);
    let mut client = ReadBack::new(config, spec, data_dir, &reader, &state)?;
    // Blocks behind our newest are executed over witnesses that the client makes of the states before.
    keeps(&mut client.client, Needs { oldest: reader.latest_number().unwrap_or(0), nodes_by_hash: false })?;
    let mut scanned = startup::adopted(config, spec, data_dir, settings, scanned, &mut storage, &reader)?;
    if let Some(to_block) = client.read_back(scanned.as_ref(), &mut writer)? {
        scanned = Some(take_back(config, &journal_dir, scanned, &mut storage, to_block)?);
    }
    let history = read_history(scanned.as_ref())?;
    let (log, mut start, sequence) =
        resume(config, scanned.as_ref(), history.as_ref(), &mut storage, &mut writer, &reader)?;
    start.given = begun.map(given).transpose()?;
    let void = history.as_ref().map_or_else(Vec::new, startup::void_blocks);
    let sealed = history.as_ref().map_or_else(Vec::new, History::sealed_blocks);
    drop(scanned);
    let log = startup::make_room(log, &mut storage)?;
    super::imported::remove(data_dir).map_err(LaunchError::Imported)?;
    // There is no state to execute a block of the journal on, and the client may lose it at the same time.
    writer.show_synced();
    Ok(Opened {
        recent: recent(spec, &reader, &state)?,
        world: World::new(state),
        writer,
        reader,
        store,
        genesis_hash,
        genesis_root,
        journal: Some((log, storage)),
        follow: None,
        start,
        sequence,
        void,
        sealed,
        data_dir: data_dir.to_owned(),
        temporary_dir: None,
    })
}

/// Refuses a client that does not keep what is needed. `Ok(false)`: it does not answer, and is asked before the first block is built.
fn keeps(client: &mut BlockingClient, needs: Needs) -> Result<bool, ArchiveFault> {
    match client.check_archive(needs) {
        Ok(()) => Ok(true),
        Err(ArchiveFault::Away(error)) => {
            tracing::warn!(%error, "whether the execution client keeps what is needed is not known yet");
            Ok(false)
        }
        Err(fault) => Err(fault),
    }
}

fn read_history(scanned: Option<&Scan<SlotBytes>>) -> Result<Option<History>, LaunchError> {
    Ok(scanned.map(|scanned| History::read(scanned.records())).transpose()?)
}

/// The log behind what was read, what is pooled, and the newest sequence.
fn resume(
    config: &Config,
    scanned: Option<&Scan<SlotBytes>>,
    history: Option<&History>,
    storage: &mut FileStorage,
    writer: &mut ChainWriter,
    reader: &ChainReader,
) -> Result<(Log, Start, Sequence), LaunchError> {
    let Some((scanned, history)) = scanned.zip(history) else {
        let log = startup::begin_journal(startup::log_settings(config), storage)?;
        return Ok((log, Start::default(), Sequence(0)));
    };
    startup::report(scanned, history);
    let bytes_at = |at| scanned.record_at(at);
    let journal = JournalView { history, bytes_at: &bytes_at };
    let start = Start { pooled: from_journal::pooled(&journal)?, ..Start::default() };
    writer.put_statuses(&startup::ends(&journal, reader)?)?;
    Ok((startup::resume_log(config, scanned, history, writer)?, start, history.last))
}

/// Blocks of the journal that the chain database lacks, from the client.
struct ReadBack<'a> {
    spec: &'a ChainSpec,
    reader: &'a ChainReader,
    state: &'a Snapshot,
    client: BlockingClient,
    recorder: Recorder,
}

impl<'a> ReadBack<'a> {
    fn new(
        config: &Config,
        spec: &'a ChainSpec,
        data_dir: &Path,
        reader: &'a ChainReader,
        state: &'a Snapshot,
    ) -> Result<Self, LaunchError> {
        let secret = super::control::secret(config, data_dir)?;
        let client = BlockingClient::new(BlockingSettings::reads(&config.execution, secret));
        let client = client.map_err(LaunchError::AdoptionRuntime)?;
        Ok(Self { spec, reader, state, client, recorder: Recorder::default() })
    }

    /// Appends what the client has of the journal's blocks; answers the block to which the journal must go back, if not all are there.
    fn read_back(
        &mut self,
        scanned: Option<&Scan<SlotBytes>>,
        writer: &mut ChainWriter,
    ) -> Result<Option<u64>, LaunchError> {
        let Some(scanned) = scanned else { return Ok(None) };
        let history = History::read(scanned.records())?;
        let tip = self.reader.latest_number().unwrap_or(0);
        for block in history.blocks.iter().filter(|block| block.number > tip) {
            let number = block.number;
            let Some(sealed) = &block.sealed else { return Ok(Some(number - 1)) };
            let raw = self.ask(number, Method::RawBlock, format!(r#"["{number:#x}"]"#))?;
            let theirs =
                raw.as_deref().and_then(|raw| raw.parse::<Bytes>().ok()).map(|raw| StatelessBlock::decode(&raw));
            let theirs = match theirs {
                Some(Ok(theirs)) if theirs.hash == sealed.hash => theirs,
                // Another block, or none: ours was never its head.
                _ => return Ok(Some(number - 1)),
            };
            tracing::info!(number, hash = %theirs.hash, "read back from the execution client");
            let accepted = accepted_times(scanned, block)?;
            let sealed = self.execute(theirs, sealed.sequence, sealed.sealed_unix_ns, &accepted)?;
            let (record, statuses) = self.recorder.record(&sealed);
            writer.append(&record)?;
            writer.put_statuses(statuses)?;
        }
        Ok(None)
    }

    /// A text from the client; `None`: it has no such block.
    fn ask(&mut self, number: u64, method: Method, params: String) -> Result<Option<String>, LaunchError> {
        match self.client.ask(method, params.into_bytes()) {
            Ok(value) => Ok(value.as_str().map(str::to_owned)),
            Err(error) if error.code().is_some() => Ok(None),
            Err(error) => Err(LaunchError::DelegatedAway { number, what: error.to_string() }),
        }
    }

    /// Executes a block of the client's over its witness.
    fn execute(
        &mut self,
        block: StatelessBlock,
        sequence: Sequence,
        sealed_unix_ns: u64,
        accepted: &[u64],
    ) -> Result<SealedBlock, LaunchError> {
        let (number, hash) = (block.header.number, block.hash);
        let refused = |what: String| LaunchError::DelegatedBlock { number, what };
        let witness = witness_of(&mut self.client, &hash).map_err(refused)?;
        let StatelessBlock { header, transactions, .. } = block;
        let validated = validate_over(self.spec, self.reader, header, transactions.clone(), &witness);
        let (StatelessBlock { header, .. }, _, Validated { executed, .. }) = validated.map_err(refused)?;
        let parts = BlockParts {
            fork: self.spec.fork_at(header.timestamp),
            header,
            hash,
            requests: executed.requests,
            state: self.state.clone(),
            sequence,
            sealed_unix_ns,
        };
        let accepted = accepted.iter().copied().chain(std::iter::repeat(sealed_unix_ns));
        let txs = transactions.iter().zip(executed.receipts).zip(accepted).map(|((tx, receipt), accepted_unix_ns)| {
            ExecutedTx {
                raw: &tx.raw,
                hash: tx_hash(&tx.raw),
                sender: tx.sender,
                success: receipt.success,
                gas_used: receipt.gas_used,
                cumulative_gas_used: receipt.cumulative_gas_used,
                logs: receipt.logs,
                sequence,
                accepted_unix_ns,
                preconfirmed_unix_ns: sealed_unix_ns,
            }
        });
        let memory = BlockMemory::new(1, limits::BLOCK_BODY_BYTES_MAX);
        assemble(parts, txs, &memory).map_err(|(index, error)| refused(format!("transaction {index}: {error}")))
    }
}

/// Puts blocks that L1 proves in the place of ours, after the journal has them: strict re-execution has made every field of them, so neither a state nor the
/// client is needed. What a crash leaves out the next start takes back from the journal, and L1 gives it again.
pub(super) fn adopt(config: &Config, data_dir: &Path, replacement: &Replacement) -> Result<(), LaunchError> {
    let (mut writer, reader) = ChainWriter::open(&data_dir.join("chain"), startup::chain_limits(config))?;
    if reader.latest_number().is_some_and(|tip| tip > replacement.to_block) {
        writer.truncate_to(replacement.to_block)?;
    }
    for block in &replacement.blocks {
        let number = block.header.number;
        let decoded = StatelessBlock::decode(&block.rlp);
        let decoded = decoded.map_err(|error| LaunchError::DerivedBlock { number, what: error.to_string() })?;
        let record = ExecutedRecord {
            header: &block.header,
            hash: block.hash,
            txs: &decoded.transactions,
            withdrawals: &decoded.withdrawals,
            receipts: &block.receipts,
            requests: &block.requests,
        };
        append_executed(&mut writer, &record)?;
    }
    Ok(writer.sync()?)
}

/// What the client is asked for, where L1 has the beginning of a block: exactly that, and then its end.
fn given(begun: OpenBody) -> Result<GivenBlock, LaunchError> {
    let OpenBody { context, transactions } = begun;
    let number = context.number;
    let (mut txs, mut next_nonces) = (Vec::with_capacity(transactions.len()), Vec::with_capacity(transactions.len()));
    for (index, raw) in transactions.into_iter().enumerate() {
        let fault = |what: String| LaunchError::AdoptionTransaction { number, index, what };
        let PreparedTx { raw, decoded, sender, authorities } =
            PreparedTx::recover(raw).map_err(|error| fault(error.to_string()))?;
        next_nonces.push((sender, decoded.fields.nonce + 1));
        txs.push(BuildTx { hash: tx_hash(&raw), raw, sender, authorities });
    }
    tracing::info!(number, txs = txs.len(), "L1 has the beginning of a block: the execution client is asked for it");
    Ok(GivenBlock { request: BuildRequest { context, transactions: txs, is_given: true }, next_nonces })
}

/// When the transactions of a block were accepted, by their places.
fn accepted_times(scanned: &Scan<SlotBytes>, block: &BlockHistory) -> Result<Vec<u64>, LaunchError> {
    let mut times = Vec::with_capacity(block.placed.len());
    for at in block.placed.iter().filter_map(|placed| placed.at) {
        let (_, record) = Record::decode(scanned.record_at(at))
            .map_err(from_journal::Disagreement::from)
            .map_err(replay::ReplayError::from)?;
        if let Record::Admitted(tx) | Record::Carried { tx, .. } = record {
            times.push(tx.accepted_unix_ns);
        }
    }
    Ok(times)
}

/// Takes blocks back that nobody was shown; their transactions are pooled again.
fn take_back(
    config: &Config,
    dir: &Path,
    scanned: Option<Scan<SlotBytes>>,
    storage: &mut FileStorage,
    to_block: u64,
) -> Result<Scan<SlotBytes>, LaunchError> {
    let scanned = scanned.expect("there is a journal that names the block");
    let history = History::read(scanned.records())?;
    let plan = Plan::new(&history, to_block, RollbackCause::ClientLost, |at| scanned.record_at(at))?;
    tracing::warn!(%plan, "the execution client never had the newest blocks of the journal: they are built again");
    replacement::write_withdrawn(dir, &plan)
        .map_err(|source| LaunchError::ChainFile { path: dir.to_owned(), source })?;
    let mut bytes = Vec::new();
    plan.record().encode(plan.sequence, &mut bytes);
    let mut log = Log::resume(startup::log_settings(config), &scanned, &history);
    // A slot is not written while its bytes are read.
    drop(plan);
    drop(scanned);
    log.append_durably(&bytes, storage, clock::wall_unix_ns())?;
    Ok(scan(storage)?.expect("a record was written a moment ago"))
}

/// The newest blocks as readers in memory see them, oldest first.
fn recent(spec: &ChainSpec, reader: &ChainReader, state: &Snapshot) -> Result<Vec<Arc<SealedBlock>>, LaunchError> {
    let tip = reader.latest_number().unwrap_or(0);
    let first = (tip + 1).saturating_sub(RECENT_BLOCKS);
    (first..=tip).map(|number| stored(spec, reader, state, number).map(Arc::new)).collect()
}

fn stored(spec: &ChainSpec, reader: &ChainReader, state: &Snapshot, number: u64) -> Result<SealedBlock, LaunchError> {
    let block = reader.block_by_number(number)?.ok_or(replay::ReplayError::BlockMissing { number })?;
    let malformed = |source| replay::ReplayError::Header { number, source };
    let header = Header::decode(&mut block.header_rlp()?).map_err(malformed)?;
    let requests = match block.requests_rlp()? {
        [] => Vec::new(),
        mut rlp => Vec::<Bytes>::decode(&mut rlp).map_err(malformed)?,
    };
    let mut txs = Vec::new();
    let stored_txs = block.txs().collect::<Result<Vec<_>, _>>()?;
    for (tx, index) in stored_txs.iter().zip(0_u32..) {
        let receipt = block.receipt(index)?.unwrap_or_default();
        txs.push(ExecutedTx {
            raw: tx.raw,
            hash: tx.hash,
            sender: tx.sender,
            success: receipt.success,
            gas_used: receipt.gas_used,
            cumulative_gas_used: receipt.cumulative_gas_used,
            logs: receipt
                .logs
                .into_iter()
                .map(|log| EvmLog::new_unchecked(log.address, log.topics, log.data))
                .collect(),
            sequence: Sequence(0),
            accepted_unix_ns: 0,
            preconfirmed_unix_ns: 0,
        });
    }
    let fork = spec.fork_at(header.timestamp);
    let (hash, state) = (block.hash(), state.clone());
    let parts = BlockParts { header, hash, fork, requests, state, sequence: Sequence(0), sealed_unix_ns: 0 };
    let memory = BlockMemory::new(1, limits::BLOCK_BODY_BYTES_MAX);
    assemble(parts, txs.into_iter(), &memory)
        .map_err(|(index, source)| replay::ReplayError::Transaction { number, index: index as u32, source }.into())
}

/// Spawns journal, chain and builder, and the two threads that ask the client for them.
pub(super) fn spawn_core(
    config: &Config,
    spec: &ChainSpec,
    opened: Opened,
    (shards, slabs): (Vec<ShardRings>, Vec<SlabReader>),
    bells: &CoreBells,
    shared: &Arc<Shared>,
    cores: &Cores,
    background: &mut Vec<Worker>,
) -> Result<(Vec<Worker>, Option<TemporaryDir>), LaunchError> {
    let secret = super::control::secret(config, &opened.data_dir)?;
    let evidence = Evidence::new(&opened.data_dir);
    let plain = BlockingSettings::reads(&config.execution, secret.clone());
    let needs = Needs {
        oldest: shared.settlement.view().finalized.min(opened.latest().header.number),
        nodes_by_hash: super::settlement::posts(config),
    };
    let is_kept = keeps(&mut BlockingClient::new(plain.clone()).map_err(LaunchError::AdoptionRuntime)?, needs)?;
    let Opened { writer, reader, recent, journal, start, sequence, temporary_dir, .. } = opened;
    let (log, storage) = journal.expect("who does not follow has a journal");
    let (journal, mut workers) = spawn_journal(log, storage, sequence, &bells.builder, shared, cores)?;
    let chain_slots = config.mempool.transactions_max as usize + 2 * limits::CHAIN_RING_RESERVE;
    let (chain_tx, chain_rx) = ring::<ChainMessage>(chain_slots, &bells.chain);
    let (chain_bell, chain_shared) = (Arc::clone(&bells.chain), Arc::clone(shared));
    workers.push(spawn("chain", cores.closing(), move || {
        crate::chain::thread::run(writer, chain_rx, &chain_bell, &chain_shared).map_err(|error| error.to_string())
    })?);
    let (account_bell, build_bell) = (Arc::new(Doorbell::for_thread()), Arc::new(Doorbell::for_thread()));
    let (to_accounts, inbox) = ring(accounts::ACCOUNT_QUESTIONS, &account_bell);
    let (answers, from_accounts) = ring(2 * accounts::ACCOUNT_QUESTIONS, &bells.builder);
    let seat =
        AccountSeat { inbox, answers, doorbell: account_bell, client: plain.clone(), shared: Arc::clone(shared) };
    background.push(spawn("el-accounts", cores.unpinned(), move || accounts::run(seat))?);
    let (to_build, inbox) = ring(1, &build_bell);
    let (answers, from_build) = ring(1, &bells.builder);
    let seat = BuildSeat {
        inbox,
        answers,
        doorbell: build_bell,
        engine: BlockingSettings::engine(&config.execution, secret).patient(config.execution.new_payload.timeout_ns),
        plain: plain.patient(config.execution.new_payload.timeout_ns),
        spec: spec.clone(),
        chain: reader,
        evidence,
        cut_limits: (config.l1.mode != L1Mode::Off).then(|| super::settlement::cut_limits(config)),
        needs: (!is_kept).then_some(needs),
        wait: BUILD_WAIT,
        shared: Arc::clone(shared),
    };
    background.push(spawn("el-build", cores.closing(), move || builder_thread::run(seat))?);
    let seat = DelegatedSeat {
        shards,
        chain: chain_tx,
        journal,
        to_accounts,
        from_accounts,
        to_build,
        from_build,
        doorbell: Arc::clone(&bells.builder),
        shared: Arc::clone(shared),
        wait: config.wait,
        start,
    };
    let placement = Placement::prompt(cores.builder.clone());
    let (config, spec) = (config.clone(), spec.clone());
    workers.push(spawn("builder", placement, move || run_builder(&config, spec, seat, recent, sequence, slabs))?);
    Ok((workers, temporary_dir))
}

/// The pool is made on the builder's own thread, which it never leaves.
fn run_builder(
    config: &Config,
    spec: ChainSpec,
    seat: DelegatedSeat,
    recent: Vec<Arc<SealedBlock>>,
    sequence: Sequence,
    slabs: Vec<SlabReader>,
) -> Result<(), String> {
    let gas_limit = recent.last().map_or(0, |block| block.header.gas_limit);
    let mut core = DelegatedCore::new(
        super::core_settings(config, &spec),
        super::pool::pool(config, &spec, gas_limit, &seat.start.pooled),
        slabs,
        Arc::clone(&seat.shared.block_memory),
        recent,
        sequence,
        seat.shared.execution.checked(),
        Box::new(move |timestamp| spec.fork_at(timestamp)),
        Now { monotonic_ns: clock::monotonic_ns(), unix_ns: clock::wall_unix_ns() },
    );
    if seat.shared.settlement.is_on() {
        let heads = seat.shared.heads.load();
        core.expect_settlement(SettlementView::unheard(heads.safe_number, heads.finalized_number));
    }
    driver::run(seat, core).map_err(|error| error.to_string())
}
