//! Files with secrets: a path in, the text of a file that its owner alone may read out; everything else is an error.
//!
//! Whoever reads a key, a token or a shared secret reads it here: a file that others may read is refused, never repaired, because nobody knows
//! who has read it already. Nothing here prints a content.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// More is no secret: digits, a prefix, white space around.
pub const BYTES_MAX: u64 = 1_024;
/// Bits of the mode that let somebody else than the owner at the file.
const OTHERS: u32 = 0o077;

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} holds a secret and has mode {mode:04o}: others may read it. Make a new secret if they did, and `chmod 600 {path}`"
    )]
    OpenToOthers { path: PathBuf, mode: u32 },
    #[error("{path} holds a secret and is no regular file")]
    NoFile { path: PathBuf },
    #[error("{path}: more than {bytes_max} bytes are no secret")]
    TooLong { path: PathBuf, bytes_max: u64 },
}

impl SecretFileError {
    /// Whether there is no such file, so that it could be made.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// The text of a secret's file, at most `bytes_max` long.
///
/// # Errors
/// A file that cannot be read, that others than its owner may read or write, that is too long, or no regular file.
pub fn read(path: &Path, bytes_max: u64) -> Result<String, SecretFileError> {
    let fault = |source| SecretFileError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(fault)?;
    // Of the open file, so that nobody can put another one into its place in between.
    let metadata = file.metadata().map_err(fault)?;
    if !metadata.is_file() {
        return Err(SecretFileError::NoFile { path: path.to_owned() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(SecretFileError::OpenToOthers { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(bytes_max + 1).read_to_string(&mut text).map_err(fault)?;
    if text.len() as u64 > bytes_max {
        return Err(SecretFileError::TooLong { path: path.to_owned(), bytes_max });
    }
    Ok(text)
}

/// Makes a secret's file, readable by its owner alone. It must not exist yet. Whole or not at all, also at a power cut: half a secret would keep
/// every later start from going on.
///
/// # Errors
/// A file that is there already, or what the file system says.
pub fn create(path: &Path, content: &[u8]) -> Result<(), SecretFileError> {
    create_whole(path, content).map_err(|source| SecretFileError::Io { path: path.to_owned(), source })
}

fn create_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // What a crash has left.
    if let Err(error) = std::fs::remove_file(&beside)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(content).and_then(|()| file.sync_all())?;
    // Not by a rename, which would take the place of a file that is there.
    let linked = std::fs::hard_link(&beside, path);
    std::fs::remove_file(&beside)?;
    linked?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_its_owner_alone_is_read() {
        let dir = std::env::temp_dir().join(format!("sequencer-secret-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("key");
        assert!(read(&path, 9).unwrap_err().is_missing());
        create(&path, b"a secret\n").unwrap();
        assert!(!create(&path, b"x").unwrap_err().is_missing(), "it exists");
        // A crash before the file had its name: nothing of it is taken for a secret, and the next attempt is whole.
        let (other, beside) = (dir.join("other"), dir.join("other.new"));
        std::fs::write(&beside, "ha").unwrap();
        assert!(read(&other, 9).unwrap_err().is_missing());
        create(&other, b"a secret\n").unwrap();
        assert_eq!((read(&other, 9).unwrap().as_str(), beside.exists()), ("a secret\n", false));
        std::fs::remove_file(&other).unwrap();
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        for mode in [0o600, 0o400, 0o700] {
            set(mode);
            assert_eq!(read(&path, 9).unwrap(), "a secret\n", "{mode:o}");
        }
        for mode in [0o640, 0o604, 0o660, 0o620, 0o602, 0o644, 0o777, 0o610, 0o601] {
            set(mode);
            let error = read(&path, 9).unwrap_err();
            let shown = error.to_string();
            assert!(matches!(error, SecretFileError::OpenToOthers { mode: found, .. } if found == mode), "{shown}");
            assert!(shown.contains(&format!("chmod 600 {}", path.display())), "{shown}");
            assert!(!shown.contains("a secret\n"), "{shown}");
        }
        set(0o600);
        assert!(matches!(read(&path, 8).unwrap_err(), SecretFileError::TooLong { bytes_max: 8, .. }));
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(read(&dir, 8).unwrap_err(), SecretFileError::NoFile { .. }));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
