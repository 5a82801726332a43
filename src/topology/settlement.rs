//! What settlement stands on: the ledger, the key, the plan; and its two threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use crossbeam::channel::bounded;
use tokio::sync::mpsc::{Receiver, channel};

use super::replacement::Replacement;
use super::startup::Opened;
use super::{Cores, LaunchError, Shared, Worker, spawn};
use crate::config::Config;
use crate::config::execution::ExecutionMode;
use crate::config::genesis::ChainSpec;
use crate::config::l1::{KeySource, L1Config, L1Mode};
use crate::config::native_rollup::NativeRollup;
use crate::engine_api::blocking::{BlockingClient, BlockingSettings};
use crate::l1::client::ClientSettings;
use crate::l1::client::wire::Url;
use crate::l1::signer::{KeyError, LocalKey, Signer};
use crate::l1::tx_manager::types::Settings as TxSettings;
use crate::limits;
use crate::primitives::U256;
use crate::ring::Doorbell;
use crate::settlement::batch::Compression;
use crate::settlement::cells::SettlementCells;
use crate::settlement::conductor::{ConductorSettings, PostingSettings};
use crate::settlement::driver::{self, KeepSettings, L1Seat};
use crate::settlement::follower::FollowEnd;
use crate::settlement::jobs::{self, JobSeat, StateSource};
use crate::settlement::ledger_file::LedgerFile;
use crate::settlement::packer::PackerSettings;
use crate::settlement::pass_on::{L1Door, PassedOn};
use crate::settlement::plan::Plan;
use crate::settlement::segment::CutLimits;

/// Opened before the first thread starts.
pub struct Settlement {
    ledger: LedgerFile,
    plan: Plan,
    key: Option<LocalKey>,
    client: ClientSettings,
    rollup: NativeRollup,
    dir: PathBuf,
    /// Numbers of the safe and of the final block, as far as they are known without L1.
    settled: u64,
    door: L1Door,
    passed_on: Receiver<PassedOn>,
}

/// `None` without an L1.
///
/// # Errors
/// A genesis that says nothing about L1, or other things than the configuration; a key that cannot be read or may not post; a ledger that is
/// damaged or of another chain.
pub fn open(config: &Config, spec: &ChainSpec, opened: &mut Opened) -> Result<Option<Settlement>, LaunchError> {
    if config.l1.mode == L1Mode::Off {
        return Ok(None);
    }
    let rollup = spec.native_rollup.clone().ok_or(LaunchError::NoNativeRollup)?;
    if let Some(configured) = config.l1.chain_id.filter(|id| *id != rollup.l1_chain_id) {
        return Err(LaunchError::L1ChainId { configured, genesis: rollup.l1_chain_id });
    }
    let urls = config.l1.endpoints.iter().map(|url| Url::parse(url)).collect::<Result<Vec<_>, _>>()?;
    let client = ClientSettings {
        urls,
        chain_id: rollup.l1_chain_id,
        call_ns_max: config.l1.timeout_ns,
        poll_ns: config.l1.poll_ns,
        meter: Arc::default(),
    };
    let key = if posts(config) { key(&config.l1, rollup.l1_chain_id)? } else { None };
    if let Some(key) = &key
        && !rollup.batchers.iter().any(|batcher| batcher.address == key.address())
    {
        let batchers = rollup.batchers.iter().map(|batcher| batcher.address.to_string()).collect::<Vec<_>>();
        return Err(LaunchError::NotABatcher { address: key.address(), batchers: batchers.join(", ") });
    }
    let mut ledger = LedgerFile::open(&opened.data_dir, opened.genesis_hash)?;
    if config.follows && ledger.ledger().checkpoint_block() > opened.latest().header.number {
        tracing::warn!("blocks below the checkpoint are not stored: everything is derived again");
        ledger = ledger.emptied()?;
    }
    let settled = ledger.ledger().checkpoint_block();
    // Before the first commit: what a reorganisation may lead back to stays.
    opened.store.cells().finalize(settled);
    opened.settled(settled);
    let genesis = spec.genesis_header(opened.genesis_root);
    let plan = Plan {
        settings: ConductorSettings {
            origin_depth: config.l1.origin_depth,
            unsafe_blocks_max: config.settlement.unsafe_blocks_max,
            backlog_bytes_max: config.settlement.backlog_bytes_max,
            follows: config.follows,
        },
        rollup: rollup.clone(),
        genesis,
        posting: key.as_ref().map(|key| posting(config, &rollup, key)),
    };
    let (calls, passed_on) = channel(limits::L1_REQUESTS);
    let dir = config.witness.dir.clone().unwrap_or_else(|| opened.data_dir.join("witnesses"));
    let door = L1Door::new(calls);
    Ok(Some(Settlement { ledger, plan, key, client, rollup, dir, settled, door, passed_on }))
}

/// Whether batches are made and signed.
pub fn posts(config: &Config) -> bool {
    let has_l1 = config.l1.mode != L1Mode::Off && config.l1.key != KeySource::None;
    has_l1 && config.settlement.post && !config.follows
}

fn key(config: &L1Config, chain_id: u64) -> Result<Option<LocalKey>, KeyError> {
    match &config.key {
        KeySource::None => Ok(None),
        KeySource::Text(text) => LocalKey::from_hex(text, "l1.key", chain_id).map(Some),
        KeySource::File(path) => LocalKey::from_file(path, chain_id).map(Some),
        KeySource::Keystore { path, password_file } => LocalKey::from_keystore(path, password_file, chain_id).map(Some),
    }
}

fn posting(config: &Config, rollup: &NativeRollup, key: &LocalKey) -> (PostingSettings, TxSettings) {
    let settlement = &config.settlement;
    let packer = PackerSettings {
        compression: if settlement.is_compressed { Compression::Zstd } else { Compression::Stored },
        tx_bytes_max: settlement.batch_bytes_max as usize,
        l1_gas_max: settlement.batch_gas_max,
        segments_max: settlement.batch_segments_max as usize,
        age_ns_max: settlement.batch_age_ns_max,
        ..PackerSettings::default()
    };
    let manager = TxSettings {
        in_flight_max: settlement.in_flight_max as usize,
        hour_cost_wei_max: U256::from(config.l1.spend_wei_per_hour_max),
        tx_cost_wei_max: U256::from(config.l1.tx_cost_wei_max),
        tip_wei_min: config.l1.tip_wei,
        ..TxSettings::default()
    };
    let chain_id = U256::from(rollup.l1_chain_id);
    (PostingSettings { packer, profile: rollup.profile, chain_id, address: key.address() }, manager)
}

/// What others see of it: the cells as the process starts with them, and the query pool's way to L1.
pub fn outside(settlement: Option<&Settlement>) -> (SettlementCells, L1Door) {
    match settlement {
        Some(settlement) => (SettlementCells::on(settlement.settled, settlement.settled), settlement.door.clone()),
        None => (SettlementCells::off(), L1Door::default()),
    }
}

/// How large a segment may be.
pub fn cut_limits(config: &Config) -> CutLimits {
    CutLimits {
        tx_bytes_max: config.settlement.batch_bytes_max as usize,
        l1_gas_max: config.settlement.batch_gas_max,
        ..CutLimits::default()
    }
}

/// Where blocks are cut from: our states, or an execution client's.
fn state_source(config: &Config, opened: &Opened) -> Result<StateSource, LaunchError> {
    if config.execution.mode != ExecutionMode::Delegated {
        return Ok(StateSource::Own(opened.store.cells()));
    }
    let secret = super::control::secret(config, &opened.data_dir)?;
    let patient_ns = config.execution.new_payload.timeout_ns;
    let client = BlockingClient::new(BlockingSettings::reads(&config.execution, secret).patient(patient_ns));
    Ok(StateSource::Client(Box::new(client.map_err(LaunchError::AdoptionRuntime)?)))
}

impl Settlement {
    /// Spawns the `l1` and the `settle` thread.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn spawn(
        self,
        config: &Config,
        spec: &ChainSpec,
        opened: &Opened,
        shared: &Arc<Shared>,
        builder_bell: &Arc<Doorbell>,
        replacements: SyncSender<Replacement>,
        cores: &Cores,
    ) -> Result<[Worker; 2], LaunchError> {
        let (jobs, job_rx) = bounded(limits::SETTLEMENT_JOBS);
        let (outcome_tx, outcomes) = bounded(limits::SETTLEMENT_JOBS);
        let seat = JobSeat {
            jobs: job_rx,
            outcomes: outcome_tx,
            bell: Arc::clone(&shared.settlement.bell),
            shared: Arc::clone(shared),
            chain: opened.reader.clone(),
            source: state_source(config, opened)?,
            spec: spec.clone(),
            profile: self.rollup.profile,
            dir: self.dir,
        };
        let settle = spawn("settle", cores.background(), move || jobs::run(seat))?;
        let seat = L1Seat {
            keep: KeepSettings {
                behind_blocks: config.witness.keep_behind_blocks,
                bytes_max: config.witness.kept_bytes_max,
            },
            plan: self.plan,
            ledger: self.ledger,
            client: ClientSettings { meter: Arc::clone(&shared.metrics.l1_client), ..self.client },
            key: self.key,
            profile: self.rollup.profile,
            cut_limits: cut_limits(config),
            start_without: config.l1.start_without,
            execute_address: config.l1.execute_address,
            chain: opened.reader.clone(),
            states: opened.store.cells(),
            shared: Arc::clone(shared),
            builder_bell: Arc::clone(builder_bell),
            jobs,
            outcomes,
            replacements,
            follow: opened.follow.as_ref().map(|(to, _)| FollowEnd::new(to.clone())),
            passed_on: self.passed_on,
        };
        let l1 = spawn("l1", cores.unpinned(), move || driver::run(seat).map_err(|error| error.to_string()))?;
        // The first to have ended is the one to blame.
        Ok([l1, settle])
    }
}
