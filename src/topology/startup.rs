//! Before the first thread: the data directory, the checks of clock, port and rules, and the chain that is already there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::builder::block::SealedBlock;
use crate::builder::core::Start;
use crate::builder::replay::from_journal::{self, JournalView, Resumed};
use crate::builder::replay::{self, Base, Replay};
use crate::builder::world::World;
use crate::chain::sealed_record::Recorder;
use crate::chain::{ChainLimits, ChainReader, ChainWriter, StatusRecord};
use crate::config::Config;
use crate::config::execution::ExecutionMode;
use crate::config::genesis::ChainSpec;
use crate::config::l1::L1Mode;
use crate::engine_api::files::CheckedMark;
use crate::journal::file_storage::{FileStorage, SlotBytes, SyncMode, WriteEngine};
use crate::journal::history::History;
use crate::journal::log::{Log, LogSettings};
use crate::journal::scan::{Scan, scan};
use crate::journal::storage::{Storage, StorageError};
use crate::limits;
use crate::primitives::{B256, Sequence};
use crate::runtime::{affinity, clock};
use crate::settlement::follower::FollowMessage;
use crate::state::Store;
use crate::state::files::file_disk::FileDisk;
use crate::state::files::recovery::StateSettings;
use crate::topology::cores::{NICE_CLOSING, processor_count};
use crate::topology::replacement::OpenBody;
use crate::topology::{LaunchError, adoption, imported};

/// How long a start after a replacement waits for its port.
const PORT_WAIT_NS: u64 = 90_000_000_000;
const PORT_POLL: Duration = Duration::from_millis(50);

/// A directory that lives as long as the process means it to.
pub struct TemporaryDir(PathBuf);

/// What a start has from the one before in the same process.
#[derive(Default)]
pub struct Kept {
    pub temporary_dir: Option<TemporaryDir>,
    /// The beginning of the next block, which the execution client has to go on with (`delegated`).
    pub open: Option<OpenBody>,
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // A directory that stays behind costs space and nothing else.
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, dir = %self.0.display(), "temporary data directory not removed");
        }
    }
}

/// What the threads stand on.
pub struct Opened {
    pub writer: ChainWriter,
    pub reader: ChainReader,
    pub store: Store,
    pub world: World,
    pub recent: Vec<Arc<SealedBlock>>,
    pub genesis_hash: B256,
    pub genesis_root: B256,
    /// `None`: a follower's.
    pub journal: Option<(Log, FileStorage)>,
    /// From the `l1` thread to a follower.
    pub follow: Option<(Sender<FollowMessage>, Receiver<FollowMessage>)>,
    /// What was under way when the process before this one ended.
    pub start: Start,
    /// Of the newest record.
    pub sequence: Sequence,
    /// Number and hash of blocks that were rolled back.
    pub void: Vec<(u64, B256)>,
    /// Blocks that the journal holds, and the records that sealed them, ascending.
    pub sealed: Vec<(u64, Sequence)>,
    /// Where everything lies.
    pub data_dir: PathBuf,
    /// Removed when this is dropped.
    pub temporary_dir: Option<TemporaryDir>,
}

fn data_dir(config: &Config) -> Result<(PathBuf, Option<TemporaryDir>), LaunchError> {
    if let Some(dir) = &config.data_dir {
        return Ok((dir.clone(), None));
    }
    let dir = std::env::temp_dir().join(format!("sequencer-{}-{}", std::process::id(), clock::wall_unix_ns()));
    std::fs::create_dir_all(&dir).map_err(LaunchError::TemporaryDir)?;
    Ok((dir.clone(), Some(TemporaryDir(dir))))
}

/// Shards share the port among themselves (SO_REUSEPORT), so a second process of the same user would share it too, unnoticed: this asks
/// for the port alone first.
fn check_port(address: SocketAddr) -> Result<(), LaunchError> {
    std::net::TcpListener::bind(address)
        .map(drop)
        .map_err(|error| LaunchError::Listen { address, what: error.to_string() })
}

/// Waits until an address can be bound again: the system may hold it for connections that have just ended.
///
/// # Errors
/// `Listen` when it is not free after a minute and a half.
pub fn wait_for_port(address: SocketAddr) -> Result<(), LaunchError> {
    let until_ns = clock::monotonic_ns() + PORT_WAIT_NS;
    loop {
        match check_port(address) {
            Err(_) if clock::monotonic_ns() < until_ns => std::thread::sleep(PORT_POLL),
            outcome => return outcome,
        }
    }
}

/// Timestamps only grow: behind a tip from the future nothing could be built for as long as the clock takes to get there.
fn check_clock(config: &Config, tip_s: u64) -> Result<(), LaunchError> {
    let clock_s = clock::wall_unix_ns() / 1_000_000_000;
    let lead_s = limits::CLOCK_BEHIND_S_MAX.max(config.block.timestamp_lead_s);
    if tip_s > clock_s.saturating_add(lead_s) { Err(LaunchError::ClockBehind { clock_s, tip_s }) } else { Ok(()) }
}

/// The chain id and the fork times are not part of the genesis hash: the directory remembers them.
fn check_chain_file(spec: &ChainSpec, data_dir: &Path) -> Result<(), LaunchError> {
    let path = data_dir.join("chain-rules");
    let configured = format!("chain id {}, {:?}", spec.chain_id, spec.fork_schedule());
    let fault = |source| LaunchError::ChainFile { path: path.clone(), source };
    match std::fs::read_to_string(&path) {
        Ok(stored) if stored == configured => Ok(()),
        Ok(stored) => Err(LaunchError::ChainDiffers { path, stored, configured }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(data_dir).map_err(fault)?;
            std::fs::write(&path, configured).map_err(fault)
        }
        Err(error) => Err(fault(error)),
    }
}

/// Opens the chain of the configured data directory, or of a temporary one, after everything that speaks against it was looked for.
/// `kept`: the temporary directory of a start before this one.
///
/// # Errors
/// What speaks against it.
pub fn open(config: &Config, spec: &ChainSpec, kept: Kept) -> Result<Opened, LaunchError> {
    let (data_dir, temporary_dir) = match kept.temporary_dir {
        Some(kept) => (kept.0.clone(), Some(kept)),
        None => data_dir(config)?,
    };
    check_port(config.http.address)?;
    check_chain_file(spec, &data_dir)?;
    let mut opened = if config.follows {
        open_followed(config, spec, &data_dir)?
    } else {
        let opened = match config.execution.mode {
            ExecutionMode::Delegated => super::delegated::open(config, spec, &data_dir, kept.open)?,
            _ => open_chain(config, spec, &data_dir)?,
        };
        check_clock(config, opened.latest().header.timestamp)?;
        opened
    };
    opened.temporary_dir = temporary_dir;
    Ok(opened)
}

impl Opened {
    /// Blocks up to this one are final: the journal need not keep what would take them back.
    pub fn settled(&mut self, block: u64) {
        let newest = self.sealed.iter().rev().find(|(number, _)| *number <= block);
        if let (Some((log, _)), Some((_, sequence))) = (&mut self.journal, newest) {
            log.chain_synced(*sequence);
        }
    }

    /// The newest block.
    #[must_use]
    pub fn latest(&self) -> &Arc<SealedBlock> {
        self.recent.last().expect("the list starts with block 0")
    }
}

/// Opens journal, chain database and state, writes block 0 into empty ones, and executes what the state does not have yet.
fn open_chain(config: &Config, spec: &ChainSpec, data_dir: &Path) -> Result<Opened, LaunchError> {
    let journal_dir = journal_dir(config, data_dir);
    let mut storage = open_journal(config, &journal_dir)?;
    let scanned = scan(&mut storage)?;
    let (mut writer, reader) = ChainWriter::open(&data_dir.join("chain"), chain_limits(config))?;
    let blocks = reader.latest_number().unwrap_or(0);
    if scanned.is_none() && blocks > 0 && !is_imported(data_dir, blocks, &reader)? {
        return Err(LaunchError::JournalMissing { dir: journal_dir, blocks });
    }
    let hash_pool = Arc::new(hash_pool(config.hash_threads)?);
    // Before anything is changed: this may be the wrong directory.
    let genesis_root = replay::genesis_root(spec, Arc::clone(&hash_pool))?;
    let stored_genesis = check_genesis(spec, &reader, genesis_root)?;
    let history = scanned.as_ref().map(|scanned| History::read(scanned.records())).transpose()?;
    let tip = match &history {
        Some(history) => cut_chain(history, &mut writer, &reader)?,
        None => reader.latest_number().unwrap_or(0),
    };
    let state_dir = config.state.dir.clone().unwrap_or_else(|| data_dir.join("state"));
    let stored = StoredState { config, dir: &state_dir, hash_pool: &hash_pool };
    // The newest block that was shown is executed again too: it is what is shown until the execution client has checked more.
    let shown = match config.execution.mode {
        ExecutionMode::Verified => CheckedMark::number(data_dir).unwrap_or(tip),
        _ => tip,
    };
    let (mut store, base) = stored.open(&reader, tip.min(shown))?;
    let settings = log_settings(config);
    let (mut replay, genesis_hash) = stand(spec, &mut store, base, stored_genesis, &mut writer, &reader)?;
    let scanned = adopted(config, spec, data_dir, settings, scanned, &mut storage, &reader)?;
    let history = scanned.as_ref().map(|scanned| History::read(scanned.records())).transpose()?;
    let (log, Resumed { start, sequence }) = match scanned.as_ref().zip(history.as_ref()) {
        None => {
            replay.stored(&reader)?;
            (begin_journal(settings, &mut storage)?, Resumed::default())
        }
        Some((scanned, history)) => {
            report(scanned, history);
            let resumed = resume(&mut replay, scanned, history, &mut writer, &reader)?;
            (resume_log(config, scanned, history, &mut writer)?, resumed)
        }
    };
    let void = history.as_ref().map_or_else(Vec::new, void_blocks);
    let sealed = history.as_ref().map_or_else(Vec::new, History::sealed_blocks);
    let log = make_room(log, &mut storage)?;
    imported::remove(data_dir).map_err(LaunchError::Imported)?;
    let (recent, world) = replay.into_parts();
    let temporary_dir = None;
    let data_dir = data_dir.to_owned();
    Ok(Opened {
        writer,
        reader,
        store,
        world,
        recent,
        genesis_hash,
        genesis_root,
        journal: Some((log, storage)),
        follow: None,
        start,
        sequence,
        void,
        sealed,
        data_dir,
        temporary_dir,
    })
}

/// The log behind what was scanned. What earlier processes left in the chain database frees segments too, however short they lived; above an L1, which
/// may take blocks back, as far as it is final: see [`Opened::settled`].
pub(super) fn resume_log(
    config: &Config,
    scanned: &Scan<SlotBytes>,
    history: &History,
    writer: &mut ChainWriter,
) -> Result<Log, LaunchError> {
    let mut log = Log::resume(log_settings(config), scanned, history);
    writer.sync()?;
    if config.l1.mode == L1Mode::Off {
        log.chain_synced(history.last);
    }
    Ok(log)
}

/// Opens chain database and state of a follower, and executes what the state does not have yet. There is no journal: what is lost is derived again.
fn open_followed(config: &Config, spec: &ChainSpec, data_dir: &Path) -> Result<Opened, LaunchError> {
    let journal_dir = journal_dir(config, data_dir);
    if journal_dir.exists() {
        return Err(LaunchError::FollowsJournal { dir: journal_dir });
    }
    let (mut writer, reader) = ChainWriter::open(&data_dir.join("chain"), chain_limits(config))?;
    let hash_pool = Arc::new(hash_pool(config.hash_threads)?);
    let genesis_root = replay::genesis_root(spec, Arc::clone(&hash_pool))?;
    let stored_genesis = check_genesis(spec, &reader, genesis_root)?;
    let state_dir = config.state.dir.clone().unwrap_or_else(|| data_dir.join("state"));
    let stored = StoredState { config, dir: &state_dir, hash_pool: &hash_pool };
    let (mut store, base) = stored.open(&reader, reader.latest_number().unwrap_or(0))?;
    let (mut replay, genesis_hash) = stand(spec, &mut store, base, stored_genesis, &mut writer, &reader)?;
    replay.stored(&reader)?;
    let (recent, world) = replay.into_parts();
    Ok(Opened {
        writer,
        reader,
        store,
        world,
        recent,
        genesis_hash,
        genesis_root,
        journal: None,
        follow: Some(bounded(limits::FOLLOW_MESSAGES)),
        start: Start::default(),
        sequence: Sequence(0),
        void: Vec::new(),
        sealed: Vec::new(),
        data_dir: data_dir.to_owned(),
        temporary_dir: None,
    })
}

pub(super) fn chain_limits(config: &Config) -> ChainLimits {
    ChainLimits { status_retention_ms: config.status_retention_ns / 1_000_000, ..ChainLimits::default() }
}

/// Whether the chain up to block `number` came from a file of blocks, so that there never was a journal.
pub(super) fn is_imported(data_dir: &Path, number: u64, reader: &ChainReader) -> Result<bool, LaunchError> {
    let Some(hash) = reader.hash_by_number(number)? else { return Ok(false) };
    imported::is_marked(data_dir, number, hash).map_err(LaunchError::Imported)
}

/// Where the journal is.
pub(super) fn journal_dir(config: &Config, data_dir: &Path) -> PathBuf {
    config.journal.dir.clone().unwrap_or_else(|| data_dir.join("journal"))
}

/// How the journal is cut into segments.
pub(super) fn log_settings(config: &Config) -> LogSettings {
    LogSettings {
        segment_bytes: config.journal.segment_bytes,
        group_bytes_max: limits::JOURNAL_GROUP_BYTES_MAX,
        segments_kept_max: config.journal.segments_kept_max,
    }
}

/// Opens its files.
///
/// # Errors
/// Another process has it, or it cannot be read.
pub(super) fn open_journal(config: &Config, dir: &Path) -> Result<FileStorage, LaunchError> {
    let sync = if config.journal.sync { SyncMode::Always } else { SyncMode::Off };
    let engine = if config.journal.is_asynchronous { WriteEngine::IoUring } else { WriteEngine::Pwritev2 };
    let storage = FileStorage::open(dir, sync, engine)?;
    if !config.journal.sync {
        tracing::warn!("journal.sync is off: what is acknowledged does not survive a power cut");
    }
    tracing::info!(mode = storage.mode_name(), dir = %dir.display(), "journal");
    Ok(storage)
}

/// A replay that stands on what the state files hold, or on block 0, which is written where none is stored; and the hash of block 0.
fn stand<'s>(
    spec: &'s ChainSpec,
    store: &'s mut Store,
    base: Option<Base>,
    stored_genesis: Option<B256>,
    writer: &mut ChainWriter,
    reader: &ChainReader,
) -> Result<(Replay<'s, Store>, B256), LaunchError> {
    let (mut replay, hash) = if let (Some(base), Some(hash)) = (base, stored_genesis) {
        (Replay::resume(spec, store, base, reader)?, hash)
    } else {
        let genesis = replay::genesis_block(spec, store).map_err(replay::ReplayError::from)?;
        if stored_genesis.is_none() {
            writer.append(&Recorder::default().record(&genesis).0)?;
        }
        let hash = genesis.hash;
        (Replay::new(spec, store, genesis), hash)
    };
    replay.touch_caches();
    Ok((replay, hash))
}

/// The hash of the stored block 0, which must be the configured one; `None` when nothing is stored.
pub(super) fn check_genesis(
    spec: &ChainSpec,
    reader: &ChainReader,
    genesis_root: B256,
) -> Result<Option<B256>, LaunchError> {
    let Some(stored) = reader.hash_by_number(0)? else { return Ok(None) };
    let configured = spec.genesis_header(genesis_root).hash_slow();
    if stored != configured {
        return Err(replay::ReplayError::GenesisDiffers { stored, configured }.into());
    }
    Ok(Some(stored))
}

/// Brings the chain database to what the journal says. Answers the number of the newest block that stays.
pub(super) fn cut_chain(history: &History, writer: &mut ChainWriter, reader: &ChainReader) -> Result<u64, LaunchError> {
    let tip = from_journal::agreed_tip(reader, history)?;
    if reader.latest_number().is_some_and(|stored| stored > tip) {
        tracing::warn!(block = tip, "blocks above were rolled back: cutting the chain database");
        writer.truncate_to(tip)?;
    }
    Ok(tip)
}

/// Where the state is kept.
struct StoredState<'c> {
    config: &'c Config,
    dir: &'c Path,
    hash_pool: &'c Arc<rayon::ThreadPool>,
}

impl StoredState<'_> {
    /// Opens the state and finds the newest version that a chain up to `tip` can be continued from. Where there is none (the files are new, or
    /// blocks were rolled back below what is retained), the state is made again from block 0.
    fn open(&self, reader: &ChainReader, tip: u64) -> Result<(Store, Option<Base>), LaunchError> {
        let store = self.open_files(false)?;
        if store.newest().is_none() {
            return Ok((store, None));
        }
        if let Some(base) = replay::newest_base(store.retained_versions().rev(), reader, tip)? {
            tracing::info!(block = base.header.number, dir = %self.dir.display(), "state read");
            return Ok((store, Some(base)));
        }
        if tip > 0 {
            tracing::warn!(tip, dir = %self.dir.display(), "the state has no version of this chain: it is made again from block 0");
        }
        drop(store);
        Ok((self.open_files(true)?, None))
    }

    fn open_files(&self, is_wiped: bool) -> Result<Store, LaunchError> {
        let mut disk = FileDisk::open(self.dir, self.config.data_dir.is_some())?;
        if is_wiped {
            disk.wipe()?;
        }
        let settings = StateSettings { segment_bytes: self.config.state.segment_bytes, ..StateSettings::default() };
        Ok(Store::open(Arc::clone(self.hash_pool), Box::new(disk), settings)?)
    }
}

/// The threads that the state's owner lends work to; 0 = half of the processors.
///
/// # Errors
/// When the system refuses a thread.
pub fn hash_pool(threads: usize) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    let threads = if threads == 0 { (processor_count() / 2).max(1) } else { threads };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|index| format!("hash-{index}"));
    let yields = |_| {
        if let Err(error) = affinity::lower_current_thread_priority(NICE_CLOSING) {
            tracing::warn!(%error, "thread priority not lowered");
        }
    };
    pool.start_handler(yields).build()
}

/// The journal after what the execution client has above it was read into it; in `embedded` as it was.
pub(super) fn adopted(
    config: &Config,
    spec: &ChainSpec,
    data_dir: &Path,
    settings: LogSettings,
    scanned: Option<Scan<SlotBytes>>,
    storage: &mut FileStorage,
    reader: &ChainReader,
) -> Result<Option<Scan<SlotBytes>>, LaunchError> {
    if config.execution.mode == ExecutionMode::Embedded {
        return Ok(scanned);
    }
    if scanned.is_none() && reader.latest_number().unwrap_or(0) > 0 {
        // Without its journal the chain cannot be continued, whatever the client has.
        return Ok(scanned);
    }
    let history = scanned.as_ref().map(|scanned| History::read(scanned.records())).transpose()?;
    let secret = super::control::secret(config, data_dir)?;
    let log = |storage: &mut FileStorage| match (&scanned, &history) {
        (Some(scanned), Some(history)) => Ok(Log::resume(settings, scanned, history)),
        _ => begin_journal(settings, storage),
    };
    if adoption::adopt(config, spec, secret, history.as_ref(), reader, log, storage)? == 0 {
        return Ok(scanned);
    }
    Ok(scan(storage)?)
}

/// A new journal with its first slot.
///
/// # Errors
/// No random bytes for its name, a slot that cannot be made.
pub(super) fn begin_journal(settings: LogSettings, storage: &mut FileStorage) -> Result<Log, LaunchError> {
    let mut log = Log::create(settings, journal_id().map_err(LaunchError::Entropy)?);
    // Slots that were made and never used: the process before this one ended in between.
    for slot in storage.slots()? {
        let bytes = storage.read(slot)?.len() as u64;
        log.adopt_slot(slot, bytes);
    }
    if let Some((slot, bytes)) = log.wanted_slot() {
        storage.create(slot, bytes)?;
        log.slot_created(slot);
    }
    Ok(log)
}

/// Makes the next slot where the newest segment is nearly full, so that admission does not begin with a refusal. A full disk is the journal
/// thread's to tell.
pub(super) fn make_room(mut log: Log, storage: &mut FileStorage) -> Result<Log, LaunchError> {
    if log.space() < limits::JOURNAL_RESERVE_BYTES
        && let Some((slot, bytes)) = log.wanted_slot()
    {
        match storage.create(slot, bytes) {
            Ok(()) => log.slot_created(slot),
            Err(StorageError::Full { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(log)
}

/// Executes what the chain database has behind the state, and what only the journal has, and keeps that.
fn resume(
    replay: &mut Replay<'_, Store>,
    scanned: &Scan<SlotBytes>,
    history: &History,
    writer: &mut ChainWriter,
    reader: &ChainReader,
) -> Result<Resumed, LaunchError> {
    replay.stored(reader)?;
    let bytes_at = |at| scanned.record_at(at);
    let journal = JournalView { history, bytes_at: &bytes_at };
    let mut recorder = Recorder::default();
    let resumed = replay.journaled(&journal, &mut |sealed| {
        let (record, statuses) = recorder.record(sealed);
        writer.append(&record)?;
        writer.put_statuses(statuses)
    })?;
    writer.put_statuses(&ends(&journal, reader)?)?;
    Ok(resumed)
}

/// How the transactions ended that the journal dropped, for those that the chain database does not know better.
pub(super) fn ends(journal: &JournalView<'_>, reader: &ChainReader) -> Result<Vec<StatusRecord>, LaunchError> {
    let ends = from_journal::ends(journal, |hash, ended_unix_ms| {
        if reader.transaction_by_hash(hash)?.is_some() {
            return Ok(true);
        }
        let known = reader.status(hash)?.and_then(|status| status.times.ended_unix_ms);
        Ok(known.is_some_and(|known| known >= ended_unix_ms))
    })?;
    Ok(ends)
}

/// Number and hash of what was rolled back.
pub(super) fn void_blocks(history: &History) -> Vec<(u64, B256)> {
    history.void.iter().filter_map(|block| Some((block.number(), block.hash()?))).collect()
}

pub(super) fn report(scanned: &Scan<SlotBytes>, history: &History) {
    if let Some(torn) = &scanned.torn {
        let (segment, offset, why) = (torn.segment, torn.offset, &torn.fault);
        tracing::info!(segment, offset, %why, "the last write was not finished: cut off, nobody was told of it");
    }
    tracing::info!(
        sequence = history.last.0,
        segments = scanned.segments.len(),
        pooled = history.live.len(),
        "journal read"
    );
}

/// A random name, which nobody outside learns: bytes inside a transaction must not pass for a group of this journal.
fn journal_id() -> std::io::Result<[u8; 16]> {
    use std::io::Read;
    let mut id = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut id)?;
    Ok(id)
}
