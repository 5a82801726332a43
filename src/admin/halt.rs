//! The two files of an emergency halt in the data directory: one that an operator makes by hand, one that remembers `admin_haltSequencer`.
//!
//! | file | made by | removed by |
//! |---|---|---|
//! | `HALT` | an operator, or a script: any content | who made it |
//! | `HALT.admin` | `admin_haltSequencer`: JSON with reason and time, durable before the call is answered | `admin_resumeSequencer` |
//!
//! That a file is there is what halts: its content may be torn or empty. A file whose presence cannot be found out leaves things as they are.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What is remembered of `admin_haltSequencer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminHalt {
    pub reason: String,
    /// Unix milliseconds.
    pub since_ms: u64,
}

/// The files.
#[derive(Clone, Debug)]
pub struct HaltFiles {
    dir: PathBuf,
}

impl HaltFiles {
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.to_owned() }
    }

    /// The file that halts by being there.
    #[must_use]
    pub fn by_hand(&self) -> PathBuf {
        self.dir.join("HALT")
    }

    fn by_admin(&self) -> PathBuf {
        self.dir.join("HALT.admin")
    }

    /// Whether an operator has put the file there.
    ///
    /// # Errors
    /// What keeps it from being found out.
    pub fn is_halted_by_hand(&self) -> io::Result<bool> {
        exists(&self.by_hand())
    }

    /// What is remembered of `admin_haltSequencer`; `None`: it was never called, or taken back.
    ///
    /// # Errors
    /// What keeps it from being found out.
    pub fn admin(&self) -> io::Result<Option<AdminHalt>> {
        match std::fs::read(self.by_admin()) {
            // A crash may have left it torn: the halt counts, its reason is lost.
            Ok(text) => Ok(Some(serde_json::from_slice(&text).unwrap_or_default())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes `admin_haltSequencer` outlive the process and a power cut.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remember(&self, halt: &AdminHalt) -> io::Result<()> {
        let mut file = File::create(self.by_admin())?;
        file.write_all(&serde_json::to_vec(halt)?)?;
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()
    }

    /// Takes [`HaltFiles::remember`] back. A power cut may bring it again, which is the safe side.
    ///
    /// # Errors
    /// What the file system says.
    pub fn forget(&self) -> io::Result<()> {
        match std::fs::remove_file(self.by_admin()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => File::open(&self.dir)?.sync_all(),
        }
    }
}

fn exists(path: &Path) -> io::Result<bool> {
    // A link that leads nowhere is there, too.
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use super::*;

    #[test]
    fn what_halts_is_found_again_and_taken_back() {
        let dir = std::env::temp_dir().join(format!("sequencer-halt-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let files = HaltFiles::new(&dir);
        assert!(!files.is_halted_by_hand().unwrap());
        assert_eq!(files.admin().unwrap(), None);
        files.forget().unwrap();
        let halt = AdminHalt { reason: "a \"bug\"".to_owned(), since_ms: 7 };
        files.remember(&halt).unwrap();
        assert_eq!(HaltFiles::new(&dir).admin().unwrap(), Some(halt));
        assert!(!files.is_halted_by_hand().unwrap());
        for torn in ["", "{\"rea"] {
            std::fs::write(dir.join("HALT.admin"), torn).unwrap();
            assert_eq!(files.admin().unwrap(), Some(AdminHalt::default()), "{torn:?} halts");
        }
        files.forget().unwrap();
        assert_eq!(files.admin().unwrap(), None);
        std::os::unix::fs::symlink("nowhere", files.by_hand()).unwrap();
        assert!(files.is_halted_by_hand().unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(files.remember(&AdminHalt::default()).is_err());
    }
}
