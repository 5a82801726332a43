//! What can go wrong in the chain database. Bytes on disk are input: damage is a value that names its file and offset.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the chain database refused. Everything but `Locked`, `NotNext`, `InvalidBlock` and `Stale` is fatal for the process.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ChainError {
    #[error("chain database: {action} {}: {message}", path.display())]
    Io { action: &'static str, path: PathBuf, kind: io::ErrorKind, message: String },
    #[error("chain database {} is in use by another process", path.display())]
    Locked { path: PathBuf },
    #[error("chain database is damaged: {} at byte {offset}: {what}", path.display())]
    Corrupt { path: PathBuf, offset: u64, what: &'static str },
    #[error("block {found} cannot be appended, the next one is {expected}")]
    NotNext { expected: u64, found: u64 },
    #[error("block {number} is not well formed: {what}")]
    InvalidBlock { number: u64, what: &'static str },
    #[error("the chain was rolled back below a block that this view shows")]
    Stale,
}

impl ChainError {
    pub(super) fn io(action: &'static str, path: &Path, error: &io::Error) -> ChainError {
        ChainError::Io { action, path: path.to_path_buf(), kind: error.kind(), message: error.to_string() }
    }

    pub(super) fn corrupt(path: &Path, offset: u64, what: &'static str) -> ChainError {
        ChainError::Corrupt { path: path.to_path_buf(), offset, what }
    }
}
