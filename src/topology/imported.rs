//! The file `imported` of a data directory: its chain came from a file of blocks, and nothing was ever acknowledged on it, so it may be continued
//! although there is no journal. One line, number and hash of the newest block; deleted when there is a journal.
//!
//! A chain with withdrawals has no mark: our blocks have none, and a start executes the newest block again as one of ours.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::primitives::B256;

const NAME: &str = "imported";

/// Marks a directory whose chain and state have been synced.
///
/// # Errors
/// The file system's.
pub fn write(data_dir: &Path, number: u64, hash: B256) -> io::Result<()> {
    let unfinished = data_dir.join("imported.new");
    let mut file = File::create(&unfinished)?;
    writeln!(file, "{number} {hash}")?;
    file.sync_all()?;
    fs::rename(&unfinished, data_dir.join(NAME))?;
    File::open(data_dir)?.sync_all()
}

/// Whether the directory holds just the chain that was imported.
///
/// # Errors
/// The file system's.
pub fn is_marked(data_dir: &Path, number: u64, hash: B256) -> io::Result<bool> {
    match fs::read_to_string(data_dir.join(NAME)) {
        Ok(text) => Ok(text.trim_end() == format!("{number} {hash}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the mark away: from now on the journal is the truth.
///
/// # Errors
/// The file system's.
pub fn remove(data_dir: &Path) -> io::Result<()> {
    match fs::remove_file(data_dir.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
