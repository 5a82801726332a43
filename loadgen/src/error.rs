//! What can go wrong outside the measured part of a run; each text says what to do about it.

use crate::client::rpc::RpcError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot reach {url}: {cause}. Is a node running there? Start one with: sequencer dev")]
    Connect { url: String, cause: std::io::Error },
    #[error("{url} broke off: {reason}")]
    Transport { url: String, reason: String },
    #[error("{method} was answered with an error: {error}")]
    Rpc { method: String, error: RpcError },
    #[error("{method} was answered with something unexpected: {detail}")]
    Reply { method: String, detail: String },
    #[error("{url:?} is not a URL that loadgen can use: {reason}")]
    Url { url: String, reason: &'static str },
    #[error(
        "the funding account {address} has {balance_eth} ETH, but this run needs {needed_eth} ETH \
         (its transactions at their fee cap). Send fewer transactions, or lower --fee-cap-multiple (now {multiple})"
    )]
    Funds { address: String, balance_eth: String, needed_eth: String, multiple: u64 },
    #[error("{0}")]
    Setup(String),
    #[error("{path}: {reason}")]
    File { path: String, reason: String },
    #[error("{0}")]
    Usage(String),
}

pub type Result<T> = std::result::Result<T, Error>;
