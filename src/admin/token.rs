//! The bearer token of the ports that change something: made once, kept in a file that its owner alone may read, compared in constant time.

use std::fmt;
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::codec::hex;
use crate::config::secret_file::{self, SecretFileError};

/// A shorter token could be guessed: 128 bits as hex digits.
const CHARS_MIN: usize = 32;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    File(#[from] SecretFileError),
    #[error("{path} cannot be made without random bytes: {source}")]
    Entropy { path: PathBuf, source: std::io::Error },
    #[error("{path}: expected a token of {CHARS_MIN} or more visible ASCII characters in one line")]
    Content { path: PathBuf },
}

/// A token that others must know. Only its digest is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The token that `text` is.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Reads the token of `path`; a missing file is made from the system's entropy, readable by its owner alone.
    ///
    /// # Errors
    /// A file that cannot be read or made, that others may read, or that holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        match secret_file::read(path, secret_file::BYTES_MAX) {
            Ok(text) => {
                let text = text.trim();
                let is_token = text.len() >= CHARS_MIN && text.bytes().all(|byte| byte.is_ascii_graphic());
                if is_token { Ok(Self::new(text)) } else { Err(TokenError::Content { path: path.to_owned() }) }
            }
            Err(error) if error.is_missing() => Self::create(path),
            Err(error) => Err(error.into()),
        }
    }

    fn create(path: &Path) -> Result<Self, TokenError> {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .map_err(|source| TokenError::Entropy { path: path.to_owned(), source })?;
        let mut digits = Vec::with_capacity(64);
        hex::encode_into(&bytes, &mut digits);
        secret_file::create(path, &digits)?;
        tracing::info!(path = %path.display(), "token for the admin port made");
        Ok(Self(Sha256::digest(&digits).into()))
    }

    /// Whether an `Authorization` header is `Bearer` and this token. How long that takes tells nothing of how much of it was right: what is compared
    /// are digests, all bytes of them.
    #[must_use]
    pub fn is_in(&self, authorization: &[u8]) -> bool {
        let Some((scheme, token)) = authorization.split_at_checked(7) else { return false };
        let sent: [u8; 32] = Sha256::digest(token).into();
        let difference = self.0.iter().zip(sent).fold(0, |difference, (own, sent)| difference | (own ^ sent));
        scheme.eq_ignore_ascii_case(b"bearer ") && black_box(difference) == 0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_for_its_owner_alone() {
        let dir = std::env::temp_dir().join(format!("sequencer-token-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("admin.token");
        let made = Token::load_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.len(), 64, "256 bits of hex");
        assert!(made.is_in(format!("Bearer {text}").as_bytes()));
        assert_eq!(Token::load_or_create(&path).unwrap(), made);
        assert_eq!(format!("{made:?}"), "Token(..)");
        for (content, is_token) in [
            (format!("{}\n", "k".repeat(32)), true),
            ("k".repeat(31), false),
            (format!("{} {}", "k".repeat(20), "k".repeat(20)), false),
            (String::new(), false),
        ] {
            std::fs::write(&path, &content).unwrap();
            let outcome = Token::load_or_create(&path);
            assert_eq!(outcome.is_ok(), is_token, "{content:?}");
            assert!(!outcome.is_err_and(|error| error.to_string().contains("kkk")), "a token is shown");
        }
        for mode in [0o640, 0o604, 0o644] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = Token::load_or_create(&path).unwrap_err().to_string();
            assert!(error.contains("others may read it"), "{error}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[track_caller]
    fn check(authorization: &str, expected: bool) {
        assert_eq!(Token::new("secret").is_in(authorization.as_bytes()), expected, "{authorization:?}");
    }

    #[test]
    fn only_the_whole_token_counts() {
        check("Bearer secret", true);
        check("bearer secret", true);
        for wrong in
            ["", "Bearer", "Bearer ", "secret", "Bearer secre", "Bearer secrets", "Bearer  secret", "Basic  secret"]
        {
            check(wrong, false);
        }
    }
}
