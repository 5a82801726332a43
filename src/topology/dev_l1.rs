//! Starts the development L1 on a thread of its own, for `sequencer l1`, `sequencer dev` and tests.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::admin::token::{Token, TokenError};
use crate::dev_l1::chain::{Chain, ChainError};
use crate::dev_l1::config::{ChainConfig, Mode, genesis_hash};
use crate::dev_l1::log::{BlockLog, LogError};
use crate::dev_l1::node::Node;
use crate::dev_l1::precompile::{Execute, StrictJudge};
use crate::dev_l1::server::{self, ServerSeat, Stop};
use crate::primitives::B256;
use crate::runtime::{clock, listener};
use crate::state::memory::MemoryStore;

/// Where the development L1 listens unless it is told.
pub const DEV_L1_PORT: u16 = 8_545;
/// Endpoints of one node: enough for a client that asks several.
pub const ENDPOINTS_MAX: usize = 8;

/// What to start.
#[derive(Clone, Debug)]
pub struct DevL1Config {
    pub chain: ChainConfig,
    pub host: IpAddr,
    /// Of the first endpoint; 0 takes any that is free. Further endpoints always take any.
    pub port: u16,
    /// Endpoints over the same chain, each with faults of its own; at least one.
    pub endpoint_count: usize,
    /// Where the chain is kept; without it in a file that is gone with the process.
    pub data_dir: Option<PathBuf>,
    pub token: TokenSource,
}

/// The token of `dev_*`.
#[derive(Clone, Debug, Default)]
pub enum TokenSource {
    /// Made at random, and shown.
    #[default]
    Random,
    Text(String),
    /// Read from a file that its owner alone may read; made if it is missing.
    File(PathBuf),
}

impl Default for DevL1Config {
    fn default() -> Self {
        Self {
            chain: ChainConfig::default(),
            host: Ipv4Addr::LOCALHOST.into(),
            port: DEV_L1_PORT,
            endpoint_count: 1,
            data_dir: None,
            token: TokenSource::Random,
        }
    }
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum DevL1Error {
    #[error("mode strict needs the rules of an L2, and none were given")]
    NoJudge,
    #[error("{count} endpoints are asked for, 1 to {ENDPOINTS_MAX} are possible")]
    Endpoints { count: usize },
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the development L1 cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the development L1's hash pool: {0}")]
    HashPool(#[from] rayon::ThreadPoolBuildError),
    #[error("the development L1's thread: {0}")]
    Thread(std::io::Error),
    #[error("no random bytes for the token: {0}")]
    Entropy(std::io::Error),
    #[error("the token of the development L1: {0}")]
    Token(#[from] TokenError),
}

/// A development L1 that runs. It stops when this is dropped.
#[derive(Debug)]
pub struct DevL1Handle {
    /// Of the endpoints, in order.
    pub addresses: Vec<SocketAddr>,
    /// Of `dev_*`, or where it is: as it may be shown to who has started this.
    pub token_shown: String,
    pub genesis_hash: B256,
    /// Number and hash of the newest block at the start.
    pub start: (u64, B256),
    stop: Stop,
    thread: Option<JoinHandle<Result<(), String>>>,
}

/// Starts a development L1. `judge` is what mode `strict` asks; `compat` needs none.
///
/// # Errors
/// A file that is damaged or another chain's, a port that is taken, no thread.
pub fn launch(config: &DevL1Config, judge: Option<Box<dyn StrictJudge>>) -> Result<DevL1Handle, DevL1Error> {
    let execute = match (config.chain.mode, judge) {
        (Mode::Compat, _) => Execute::Compat,
        (Mode::Strict, Some(judge)) => Execute::Strict(judge),
        (Mode::Strict, None) => return Err(DevL1Error::NoJudge),
    };
    let count = config.endpoint_count;
    if !(1..=ENDPOINTS_MAX).contains(&count) {
        return Err(DevL1Error::Endpoints { count });
    }
    let ports = std::iter::once(config.port).chain(std::iter::repeat(0)).take(count);
    let listeners = ports.map(|port| listen(SocketAddr::new(config.host, port))).collect::<Result<Vec<_>, _>>()?;
    let addresses = listeners.iter().map(|(_, address)| *address).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "dev-l1-hash".to_owned()).build()?;
    let log = match &config.data_dir {
        Some(dir) => BlockLog::open(dir)?,
        None => BlockLog::temporary()?,
    };
    let chain = Chain::open(config.chain.clone(), MemoryStore::new(Arc::new(pool)), log)?;
    let start = (chain.head_number(), chain.head_hash());
    let node = Node::new(chain, execute, count, clock::wall_unix_ns() / 1_000_000);
    let (token, token_shown) = token(&config.token)?;
    let stop = Stop::default();
    let listeners = listeners.into_iter().map(|(listener, _)| listener).collect();
    let seat = ServerSeat { node, listeners, token, stop: stop.clone() };
    let thread = std::thread::Builder::new().name("dev-l1".to_owned()).spawn(move || server::run(seat));
    let thread = Some(thread.map_err(DevL1Error::Thread)?);
    Ok(DevL1Handle { addresses, token_shown, genesis_hash: genesis_hash(&config.chain), start, stop, thread })
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), DevL1Error> {
    let fault = |source| DevL1Error::Listen { address, source };
    let listener = listener::listen(address).map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    Ok((listener, bound))
}

fn token(source: &TokenSource) -> Result<(Token, String), DevL1Error> {
    let text = match source {
        TokenSource::Random => random_token().map_err(DevL1Error::Entropy)?,
        TokenSource::Text(text) => text.clone(),
        TokenSource::File(path) => return Ok((Token::load_or_create(path)?, format!("in {}", path.display()))),
    };
    Ok((Token::new(&text), text))
}

fn random_token() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(alloy_primitives::hex::encode(bytes))
}

impl DevL1Handle {
    /// URL of the first endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addresses[0])
    }

    /// Whether its thread has ended, which it does by itself only when its state or its file failed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops it and waits.
    ///
    /// # Errors
    /// What ended it before.
    pub fn stop(mut self) -> Result<(), String> {
        self.join()
    }

    fn join(&mut self) -> Result<(), String> {
        self.stop.signal();
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err("the development L1's thread panicked".to_owned()),
        }
    }
}

impl Drop for DevL1Handle {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            tracing::error!(%error, "the development L1 ended");
        }
    }
}
