//! Why a start ends before the first thread, or the process before it serves.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::builder::replay;
use crate::chain::ChainError;
use crate::journal::history::HistoryError;
use crate::journal::scan::ScanError;
use crate::journal::storage::StorageError;
use crate::state::StateError;
use crate::state::files::file_disk::DirectoryError;

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
    #[error("{dir} is a sequencer's journal: a follower has none, give it a data directory of its own")]
    FollowsJournal { dir: PathBuf },
    #[error("the mark of an imported chain: {0}")]
    Imported(std::io::Error),
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
    #[error(
        "metrics and health cannot listen on {address}: {source}; metrics.port names another port (0: any that is free, off: none)"
    )]
    ListenMetrics { address: SocketAddr, source: std::io::Error },
    #[error("the handler for failed reads of mapped files could not be installed: {0}")]
    FaultHandler(std::io::Error),
    #[error("a temporary data directory could not be made: {0}")]
    TemporaryDir(std::io::Error),
    #[error(
        "the clock says {clock_s} (unix seconds) and the newest block {tip_s}: set the clock, or this is the wrong data directory"
    )]
    ClockBehind { clock_s: u64, tip_s: u64 },
    #[error(transparent)]
    ExecutionFile(#[from] crate::engine_api::files::FileError),
    #[error("adopting the execution client's blocks: the runtime could not be started: {0}")]
    AdoptionRuntime(std::io::Error),
    #[error("adopting the execution client's blocks: {0}")]
    Adoption(#[from] crate::engine_api::types::CallError),
    #[error(
        "block {number} is in the journal and not in the chain database, and the execution client, which may have it, does not answer: {what}"
    )]
    DelegatedAway { number: u64, what: String },
    #[error("block {number} of the execution client: {what}")]
    DelegatedBlock { number: u64, what: String },
    #[error(transparent)]
    DelegatedArchive(#[from] crate::engine_api::archive::ArchiveFault),
    #[error("adopted block {number} of L1: {what}")]
    DerivedBlock { number: u64, what: String },
    #[error("adopting the execution client's blocks: it has no block {number} any more")]
    AdoptionGone { number: u64 },
    #[error("l1.mode is not off, and the genesis has no config.nativeRollup: it says which L1 the chain settles on")]
    NoNativeRollup,
    #[error("l1.chain-id = {configured}, the genesis says l1ChainId {genesis}")]
    L1ChainId { configured: u64, genesis: u64 },
    #[error("the key for L1 is that of {address}, the genesis's batchers are {batchers}")]
    NotABatcher { address: crate::primitives::Address, batchers: String },
    #[error("l1.rpc-url: {0}")]
    L1Url(#[from] crate::l1::client::error::UrlError),
    #[error("the key for L1: {0}")]
    L1Key(#[from] crate::l1::signer::KeyError),
    #[error(transparent)]
    Ledger(#[from] crate::settlement::ledger_file::LedgerError),
    #[error("adopted block {number}: transaction {index}: {what}")]
    AdoptionTransaction { number: u64, index: usize, what: String },
    #[error("blocks have to be taken back: {0}")]
    Rollback(#[from] crate::journal::rollback::RollbackError),
    #[error(transparent)]
    JwtSecret(#[from] crate::engine_api::jwt::SecretError),
    #[error("the admin port: {0}")]
    AdminToken(#[from] crate::admin::token::TokenError),
    #[error("the admin port cannot listen on {address} (admin.port): {source}")]
    AdminListen { address: SocketAddr, source: std::io::Error },
    #[error("whether the process is halted cannot be found out: {path}: {source}")]
    HaltFile { path: PathBuf, source: std::io::Error },
    #[error("{path}: this data directory holds {stored}, the configuration says {configured}")]
    ChainDiffers { path: PathBuf, stored: String, configured: String },
    #[error("{path}: {source}")]
    ChainFile { path: PathBuf, source: std::io::Error },
}
