//! Two small things that outlive the process: how far the execution client has checked our chain, and the evidence of an INVALID.
//!
//! The mark (`el-checked` in the data directory) is one line, rewritten in place: number (20 digits), hash, crc32c of both. It may lag what
//! was shown (a power cut takes back what was not synced), so a start shows a little less and catches up; it never leads. Evidence lies in
//! `evidence/block-<number>-<hash>/`; while our chain holds that block, every start is halted. A block that the client built and that was not taken
//! (`delegated`) is never ours: its folder has the file `built`, and halts while our chain ends below it, until `journal rollback` has put the
//! file `answered` beside it.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::primitives::B256;

const MARK_BYTES: usize = 20 + 1 + 66 + 1 + 8 + 1;

/// Why the mark or the evidence could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} is damaged: remove it to take every block that is stored here as checked")]
    Damaged { path: PathBuf },
    #[error("{path} says that block {number} is {marked}, the chain has {ours}")]
    OtherBlock { path: PathBuf, number: u64, marked: B256, ours: B256 },
}

/// The newest block that was `latest`.
pub struct CheckedMark {
    path: PathBuf,
    file: File,
}

impl CheckedMark {
    /// Opens the mark of a chain with this tip; answers the number of the newest block that was `latest`.
    ///
    /// Without a mark the chain was made without an execution client, so all of it was `latest` already. A mark above the tip is of
    /// blocks that were rolled back.
    ///
    /// # Errors
    /// A damaged mark, or one of another chain.
    pub fn open(data_dir: &Path, tip: u64, hash: impl Fn(u64) -> Option<B256>) -> Result<(Self, u64), FileError> {
        let path = data_dir.join("el-checked");
        let fault = |source| FileError::Io { path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fault)?;
        let mut text = String::new();
        let stored = match file.read_to_string(&mut text) {
            Ok(0) => None,
            Ok(_) => Some(parse_mark(&text).ok_or_else(|| FileError::Damaged { path: path.clone() })?),
            Err(error) if error.kind() == ErrorKind::InvalidData => return Err(FileError::Damaged { path }),
            Err(error) => return Err(fault(error)),
        };
        let number = match stored {
            Some((number, marked)) if number <= tip => {
                let ours = hash(number).unwrap_or_default();
                if ours != marked {
                    return Err(FileError::OtherBlock { path, number, marked, ours });
                }
                number
            }
            _ => tip,
        };
        let mark = Self { path, file };
        mark.set(number, hash(number).unwrap_or_default())?;
        Ok((mark, number))
    }

    /// What the mark says, before the chain is there to compare it with; `None` without one. [`CheckedMark::open`] says what is wrong with it.
    #[must_use]
    pub fn number(data_dir: &Path) -> Option<u64> {
        let text = std::fs::read_to_string(data_dir.join("el-checked")).ok()?;
        parse_mark(&text).map(|(number, _)| number)
    }

    /// Rewrites the mark, without a sync.
    ///
    /// # Errors
    /// A failed write.
    pub fn set(&self, number: u64, hash: B256) -> Result<(), FileError> {
        let line = mark_line(number, hash);
        self.file.write_all_at(line.as_bytes(), 0).map_err(|source| FileError::Io { path: self.path.clone(), source })
    }
}

fn mark_line(number: u64, hash: B256) -> String {
    let body = format!("{number:020} {hash}");
    format!("{body} {:08x}\n", crc32c::crc32c(body.as_bytes()))
}

fn parse_mark(line: &str) -> Option<(u64, B256)> {
    let mut words = line.split_whitespace();
    let (number, hash) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (line.len() == MARK_BYTES && mark_line(number, hash) == line).then_some((number, hash))
}

/// Marks the evidence of a block that the client built and we did not take.
const BUILT: &str = "built";
/// Marks evidence of such a block that the operator has answered.
const ANSWERED: &str = "answered";

/// Where the evidence of INVALID blocks lies.
pub struct Evidence {
    dir: PathBuf,
}

/// One block's evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accused {
    pub number: u64,
    pub hash: B256,
    pub dir: PathBuf,
}

impl Accused {
    fn has(&self, name: &str) -> bool {
        self.dir.join(name).exists()
    }

    /// Whether it is of a block that the client built and we did not take, and nobody has answered it.
    fn is_open(&self) -> bool {
        self.has(BUILT) && !self.has(ANSWERED)
    }

    /// What was said of the block; empty when it cannot be read.
    #[must_use]
    pub fn verdict(&self) -> String {
        std::fs::read_to_string(self.dir.join("verdict.txt")).unwrap_or_default()
    }
}

impl Evidence {
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("evidence") }
    }

    /// A block that halts a start: one of this chain that was called INVALID, or one above its tip that the client built.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn invalid_block(&self, tip: u64, hash: impl Fn(u64) -> Option<B256>) -> Result<Option<Accused>, FileError> {
        Ok(self
            .all()?
            .into_iter()
            .find(|accused| hash(accused.number) == Some(accused.hash) || (accused.number > tip && accused.is_open())))
    }

    /// Blocks above `to_block` that the client built and that nobody has answered yet.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn open_above(&self, to_block: u64) -> Result<Vec<Accused>, FileError> {
        Ok(self.all()?.into_iter().filter(|accused| accused.number > to_block && accused.is_open()).collect())
    }

    /// The operator has decided: this block halts no start any more.
    ///
    /// # Errors
    /// A failed write.
    pub fn answer(accused: &Accused) -> Result<(), FileError> {
        write_synced(&accused.dir, &[(ANSWERED, b"")])
    }

    fn all(&self) -> Result<Vec<Accused>, FileError> {
        let fault = |source| FileError::Io { path: self.dir.clone(), source };
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fault(error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name();
            let named = name.to_str().and_then(|name| name.strip_prefix("block-")?.split_once('-'));
            let Some((number, accused)) = named else { continue };
            let (Ok(number), Ok(hash)) = (number.parse::<u64>(), accused.parse::<B256>()) else { continue };
            all.push(Accused { number, hash, dir: entry.path() });
        }
        Ok(all)
    }

    /// Writes what the client was asked and what it said, synced; answers the folder.
    ///
    /// # Errors
    /// A failed write.
    pub fn write(&self, number: u64, hash: B256, request: &[u8], verdict: &str) -> Result<PathBuf, FileError> {
        self.write_files(number, hash, &[("request.json", request), ("verdict.txt", verdict.as_bytes())])
    }

    /// As [`Evidence::write`], of a block that the client built and that is not taken.
    ///
    /// # Errors
    /// A failed write.
    pub fn write_built(&self, number: u64, hash: B256, request: &[u8], verdict: &str) -> Result<PathBuf, FileError> {
        let verdict = verdict.as_bytes();
        let dir =
            self.write_files(number, hash, &[("request.json", request), ("verdict.txt", verdict), (BUILT, b"")])?;
        // The same block again, after the operator's answer.
        match std::fs::remove_file(dir.join(ANSWERED)) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(FileError::Io { path: dir, source }),
            _ => Ok(dir),
        }
    }

    fn write_files(&self, number: u64, hash: B256, files: &[(&str, &[u8])]) -> Result<PathBuf, FileError> {
        let dir = self.dir.join(format!("block-{number}-{hash}"));
        let fault = |source| FileError::Io { path: dir.clone(), source };
        std::fs::create_dir_all(&dir).map_err(fault)?;
        write_synced(&dir, files)?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(fault)?;
        Ok(dir)
    }
}

fn write_synced(dir: &Path, files: &[(&str, &[u8])]) -> Result<(), FileError> {
    for (name, content) in files {
        let path = dir.join(name);
        let fault = |source| FileError::Io { path: path.clone(), source };
        std::fs::write(&path, content).map_err(fault)?;
        File::open(&path).and_then(|file| file.sync_all()).map_err(fault)?;
    }
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| FileError::Io { path: dir.to_owned(), source })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("sequencer-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn hash(number: u64) -> Option<B256> {
        (number < 100).then(|| B256::repeat_byte(number as u8))
    }

    #[test]
    fn a_mark_is_found_again_and_never_above_the_chain() {
        let dir = folder("mark");
        let open = |tip| CheckedMark::open(&dir, tip, hash);
        // A chain that was made without an execution client was shown already.
        let (mark, number) = open(7).unwrap();
        assert_eq!(number, 7);
        mark.set(9, hash(9).unwrap()).unwrap();
        assert_eq!(open(20).unwrap().1, 9);
        // Rolled back to 8, and built again above it.
        assert_eq!(open(8).unwrap().1, 8);
        assert_eq!(open(30).unwrap().1, 8);
        mark.set(10, B256::ZERO).unwrap();
        let error = open(30).err().unwrap().to_string();
        assert!(error.contains("says that block 10 is 0x00") && error.contains("the chain has 0x0a"), "{error}");
        assert!(CheckedMark::number(&dir).is_some());
        std::fs::write(dir.join("el-checked"), "00000000000000000010").unwrap();
        assert_eq!(CheckedMark::number(&dir), None);
        assert!(matches!(open(30), Err(FileError::Damaged { .. })));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn evidence_counts_while_its_block_is_ours() {
        let dir = folder("evidence");
        let evidence = Evidence::new(&dir);
        assert_eq!(evidence.invalid_block(99, hash).unwrap(), None);
        let at = evidence.write(3, hash(3).unwrap(), b"[]", "INVALID: gas").unwrap();
        let accused = evidence.invalid_block(99, hash).unwrap().unwrap();
        assert_eq!((accused.verdict().as_str(), &accused.dir), ("INVALID: gas", &at));
        assert_eq!(evidence.invalid_block(99, |_| Some(B256::ZERO)).unwrap(), None);
        assert_eq!(evidence.invalid_block(2, |_| None).unwrap(), None, "rolled back");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn evidence_of_a_block_that_was_not_taken_counts_until_it_is_answered() {
        let dir = folder("evidence-built");
        let evidence = Evidence::new(&dir);
        let write = || evidence.write_built(8, B256::repeat_byte(0xee), b"[]", "roots differ").unwrap();
        write();
        let halts = |tip| evidence.invalid_block(tip, hash).unwrap().map(|accused| accused.number);
        assert_eq!((halts(7), halts(8)), (Some(8), None), "while the chain ends below it");
        assert_eq!(evidence.open_above(8).unwrap(), []);
        let open = evidence.open_above(7).unwrap();
        let [accused] = open.as_slice() else { panic!("{open:?}") };
        Evidence::answer(accused).unwrap();
        assert_eq!((halts(7), evidence.open_above(7).unwrap().len()), (None, 0));
        write();
        assert_eq!(halts(7), Some(8), "the same block once more");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
