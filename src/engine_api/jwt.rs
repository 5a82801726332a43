//! The secret shared with the execution client, and the token that proves we know it.
//!
//! The file holds 32 bytes as hex, with or without `0x` (execution-apis, `authentication.md`). The token is an HS256 JWT whose only claim is
//! `iat`; the client takes it within 60 s of its own clock, so every request gets a fresh one. Nothing prints the secret.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::codec::hex;
use crate::config::secret_file::{self, SecretFileError};

/// `{"alg":"HS256","typ":"JWT"}`
const HEADER: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(transparent)]
    File(#[from] SecretFileError),
    #[error("{path} cannot be made without random bytes: {source}")]
    Entropy { path: PathBuf, source: std::io::Error },
    #[error("{path}: expected 32 bytes as 64 hex digits, found {found}")]
    Content { path: PathBuf, found: String },
}

/// The shared secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Reads the secret of `path`; a missing file is made from the system's entropy, readable by its owner alone.
    ///
    /// # Errors
    /// A file that cannot be read or made, that others may read, or that holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, SecretError> {
        match secret_file::read(path, secret_file::BYTES_MAX) {
            Ok(text) => {
                Self::from_hex(text.trim()).map_err(|found| SecretError::Content { path: path.to_owned(), found })
            }
            Err(error) if error.is_missing() => Self::create(path),
            Err(error) => Err(error.into()),
        }
    }

    /// `Err` says what was found instead, without showing it.
    fn from_hex(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 32];
        match hex::decode_into(text.as_bytes(), &mut bytes) {
            Ok(32) => Ok(Self(bytes)),
            Ok(count) => Err(format!("{count} bytes")),
            Err(hex::HexError::BadDigit { position, .. }) => Err(format!("no hex digit at position {position}")),
            Err(_) => Err(format!("{} characters", text.len())),
        }
    }

    fn create(path: &Path) -> Result<Self, SecretError> {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .map_err(|source| SecretError::Entropy { path: path.to_owned(), source })?;
        let mut digits = Vec::with_capacity(64);
        hex::encode_into(&bytes, &mut digits);
        secret_file::create(path, &digits)?;
        tracing::info!(path = %path.display(), "JWT secret made: give the execution client the same file");
        Ok(Self(bytes))
    }

    /// A token that was made at `unix_s`.
    #[must_use]
    pub fn token(&self, unix_s: u64) -> String {
        let mut token = URL_SAFE_NO_PAD.encode(HEADER);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(format!("{{\"iat\":{unix_s}}}"), &mut token);
        // HMAC takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("32 bytes are a key");
        mac.update(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(mac.finalize().into_bytes(), &mut token);
        token
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_what_an_independent_implementation_makes() {
        // python3: hmac.new(bytes([0x5a]*32), signing_input, 'sha256'), base64url without padding.
        let token = Secret([0x5a; 32]).token(1_700_000_000);
        let expected =
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpYXQiOjE3MDAwMDAwMDB9.tGsyVD4qVEPIL4yyxyKVP4u-3bjGEE0EjTd3lQx8lIE";
        assert_eq!(token, expected);
    }

    #[test]
    fn a_missing_file_is_made_for_its_owner_alone_and_read_again() {
        let dir = std::env::temp_dir().join(format!("sequencer-jwt-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("jwt.hex");
        let made = Secret::load_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Secret::load_or_create(&path).unwrap(), made);
        assert_ne!(made, Secret([0; 32]));
        std::fs::write(&path, format!("0x{}\n", "5a".repeat(32))).unwrap();
        assert_eq!(Secret::load_or_create(&path).unwrap(), Secret([0x5a; 32]));
        for (content, found) in [("5a5a", "2 bytes"), ("", "0 bytes"), ("zz", "no hex digit at position 0")] {
            std::fs::write(&path, content).unwrap();
            let error = Secret::load_or_create(&path).unwrap_err().to_string();
            assert_eq!(error, format!("{}: expected 32 bytes as 64 hex digits, found {found}", path.display()));
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Secret::load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("has mode 0644: others may read it"), "{error}");
        assert_eq!(format!("{made:?}"), "Secret(..)");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
