//! Before the first thread: the data directory, the checks of clock, port and rules, and the chain that is already there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::builder::block::SealedBlock;
use crate::builder::replay;
use crate::builder::world::World;
use crate::chain::sealed_record::Recorder;
use crate::chain::{ChainLimits, ChainReader, ChainWriter};
use crate::config::Config;
use crate::config::genesis::ChainSpec;
use crate::limits;
use crate::primitives::B256;
use crate::runtime::clock;
use crate::state::Store;
use crate::topology::{LaunchError, processor_count};

/// A directory that lives as long as the process means it to.
pub struct TemporaryDir(PathBuf);

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
///
/// # Errors
/// What speaks against it.
pub fn open(config: &Config, spec: &ChainSpec) -> Result<Opened, LaunchError> {
    let (data_dir, temporary_dir) = data_dir(config)?;
    check_port(config.http.address)?;
    check_chain_file(spec, &data_dir)?;
    let mut opened = open_chain(config, spec, &data_dir.join("chain"))?;
    check_clock(config, opened.latest().header.timestamp)?;
    opened.temporary_dir = temporary_dir;
    Ok(opened)
}

impl Opened {
    /// The newest block.
    #[must_use]
    pub fn latest(&self) -> &Arc<SealedBlock> {
        self.recent.last().expect("the list starts with block 0")
    }
}

/// Opens the chain database, writes block 0 into an empty one, and executes everything else again.
fn open_chain(config: &Config, spec: &ChainSpec, dir: &Path) -> Result<Opened, LaunchError> {
    let chain_limits =
        ChainLimits { status_retention_ms: config.status_retention_ns / 1_000_000, ..ChainLimits::default() };
    let (mut writer, reader) = ChainWriter::open(dir, chain_limits)?;
    let threads = if config.hash_threads == 0 { (processor_count() / 2).max(1) } else { config.hash_threads };
    let hash_pool =
        rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|index| format!("hash-{index}")).build()?;
    let mut store = Store::new(Arc::new(hash_pool));
    let genesis = replay::genesis_block(spec, &mut store).map_err(replay::ReplayError::from)?;
    let genesis_hash = genesis.hash;
    match reader.hash_by_number(0)? {
        None => writer.append(&Recorder::default().record(&genesis).0)?,
        Some(stored) if stored != genesis_hash => {
            return Err(replay::ReplayError::GenesisDiffers { stored, configured: genesis_hash }.into());
        }
        Some(_) => {}
    }
    let (recent, world) = replay::replay(spec, &reader, &mut store, genesis)?;
    Ok(Opened { writer, reader, store, world, recent, genesis_hash, temporary_dir: None })
}
