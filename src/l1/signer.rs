//! The key that posts batches: signs ExecuteTx of one L1, and nothing else.
//!
//! The digest is computed here from the payload and its terms, so that no other kind of message can be signed through [`Signer`]. A key comes
//! from a file of its owner alone, from text (the environment), or from an encrypted keystore (Web3 Secret Storage v3, what go-ethereum,
//! foundry and clef write). Nothing prints it; it is overwritten when it is dropped. Limits on what is spent are the transaction manager's.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secp256k1::{Message, PublicKey, SECP256K1, SecretKey};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::codec::hex;
use crate::crypto::keccak::keccak256;
use crate::l1::execute_tx::{EncodedPayload, Signature, Terms};
use crate::primitives::{Address, U256};

/// More is neither a key nor a keystore.
const FILE_BYTES_MAX: u64 = 65_536;
/// Memory that a keystore's key derivation may take: scrypt needs 128·n·r bytes, and go-ethereum's default is 256 MiB.
const SCRYPT_BYTES_MAX: u64 = 512 * 1_048_576;
/// Rounds that a keystore's PBKDF2 may take: a few seconds.
const PBKDF2_ROUNDS_MAX: u64 = 10_000_000;

/// Signs what is posted to one L1.
pub trait Signer {
    /// Who pays, and whom derivation must find among the batchers.
    fn address(&self) -> Address;

    /// The only L1 that it signs for.
    fn chain_id(&self) -> u64;

    /// Signs one attempt.
    ///
    /// # Errors
    /// `OtherChain`; a signer outside of the process may have more.
    fn sign(&self, payload: &EncodedPayload, terms: &Terms) -> Result<Signature, SignerError>;
}

/// Why there is no signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    #[error("asked to sign for chain {asked}, this key signs for {own} only")]
    OtherChain { asked: U256, own: u64 },
}

/// Why there is no key. Never shows any of it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: mode {mode:o} lets others read the key: chmod 600")]
    ReadableByOthers { path: PathBuf, mode: u32 },
    #[error("{from}: expected 32 bytes as 64 hex digits, found {found}")]
    Content { from: String, found: String },
    #[error("{from}: zero, or not below the order of the curve")]
    OutOfRange { from: String },
    #[error("{path}: {what}")]
    Keystore { path: PathBuf, what: String },
}

/// A key in this process's memory.
pub struct LocalKey {
    secret: SecretKey,
    address: Address,
    chain_id: u64,
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalKey({}, chain {})", self.address, self.chain_id)
    }
}

impl Drop for LocalKey {
    fn drop(&mut self) {
        self.secret.non_secure_erase();
    }
}

impl Signer for LocalKey {
    fn address(&self) -> Address {
        self.address
    }

    fn chain_id(&self) -> u64 {
        self.chain_id
    }

    fn sign(&self, payload: &EncodedPayload, terms: &Terms) -> Result<Signature, SignerError> {
        if terms.chain_id != U256::from(self.chain_id) {
            return Err(SignerError::OtherChain { asked: terms.chain_id, own: self.chain_id });
        }
        let digest = payload.signing_hash(terms);
        let signed = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(digest.0), &self.secret);
        let (id, compact) = signed.serialize_compact();
        let (r, s) = compact.split_at(32);
        // libsecp256k1 makes low s alone, and an id above 1 needs an r that nobody has found.
        Ok(Signature { odd_y: i32::from(id) == 1, r: U256::from_be_slice(r), s: U256::from_be_slice(s) })
    }
}

impl LocalKey {
    /// A key as hex digits, with or without `0x`. `from` names where it comes from, for errors.
    ///
    /// # Errors
    /// Something else than a key.
    pub fn from_hex(text: &str, from: &str, chain_id: u64) -> Result<Self, KeyError> {
        let fault = |found: String| KeyError::Content { from: from.to_owned(), found };
        let mut bytes = Zeroizing::new([0; 32]);
        match hex::decode_into(text.trim().as_bytes(), bytes.as_mut_slice()) {
            Ok(32) => Self::from_bytes(&bytes, from, chain_id),
            Ok(count) => Err(fault(format!("{count} bytes"))),
            Err(hex::HexError::BadDigit { position, .. }) => Err(fault(format!("no hex digit at position {position}"))),
            Err(_) => Err(fault(format!("{} characters", text.trim().len()))),
        }
    }

    /// A file with a key as hex digits, which its owner alone may read.
    ///
    /// # Errors
    /// A file that others may read, that cannot be read, or that holds something else.
    pub fn from_file(path: &Path, chain_id: u64) -> Result<Self, KeyError> {
        Self::from_hex(&read_private(path)?, &path.display().to_string(), chain_id)
    }

    /// An encrypted keystore, and a file with its password (one line end behind it is not part of it).
    ///
    /// # Errors
    /// Files that others may read or that cannot be read; a wrong password; a keystore of another kind.
    pub fn from_keystore(path: &Path, password: &Path, chain_id: u64) -> Result<Self, KeyError> {
        let fault = |what: String| KeyError::Keystore { path: path.to_owned(), what };
        let password = read_private(password)?;
        let password = password.strip_suffix('\n').unwrap_or(&password);
        check_keystore(&read_private(path)?).map_err(fault)?;
        let key = eth_keystore::decrypt_key(path, password.strip_suffix('\r').unwrap_or(password));
        let key = Zeroizing::new(key.map_err(|error| fault(error.to_string()))?);
        let bytes = <&[u8; 32]>::try_from(key.as_slice());
        let bytes = bytes.map_err(|_| fault(format!("holds a key of {} bytes, not 32", key.len())))?;
        Self::from_bytes(bytes, &path.display().to_string(), chain_id)
    }

    fn from_bytes(bytes: &[u8; 32], from: &str, chain_id: u64) -> Result<Self, KeyError> {
        let secret = SecretKey::from_byte_array(*bytes).map_err(|_| KeyError::OutOfRange { from: from.to_owned() })?;
        let public = PublicKey::from_secret_key(SECP256K1, &secret).serialize_uncompressed();
        Ok(Self { secret, address: Address::from_slice(&keccak256(&public[1..])[12..]), chain_id })
    }
}

/// The text of a file that its owner alone may read.
fn read_private(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let fault = |source| KeyError::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(fault)?;
    let mode = file.metadata().map_err(fault)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::ReadableByOthers { path: path.to_owned(), mode });
    }
    // Room for everything at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(fault)?;
    Ok(text)
}

/// What the library takes for granted, and would panic or run for hours without.
fn check_keystore(text: &str) -> Result<(), String> {
    let json: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let crypto = json.get("crypto").or_else(|| json.get("Crypto")).ok_or("no `crypto` in it: not a keystore")?;
    let word = |name: &str| crypto[name].as_str().unwrap_or_default();
    let number = |name: &str| crypto["kdfparams"][name].as_u64().unwrap_or(0);
    if json["version"].as_u64() != Some(3) || word("cipher") != "aes-128-ctr" {
        return Err(format!(
            "version {} with cipher {:?}, expected 3 with aes-128-ctr",
            json["version"],
            word("cipher")
        ));
    }
    if crypto["cipherparams"]["iv"].as_str().is_none_or(|iv| iv.trim_start_matches("0x").len() != 32) {
        return Err("its iv is not of 16 bytes".to_owned());
    }
    if number("dklen") != 32 {
        return Err(format!("dklen {}, expected 32", number("dklen")));
    }
    let (n, r, p) = (number("n"), number("r"), number("p"));
    match word("kdf") {
        "scrypt" => {
            let bytes = n.saturating_mul(r).saturating_mul(128);
            // RFC 7914: n is a power of two below 2^(16·r).
            let is_power = n.is_power_of_two() && n > 1 && u64::from(n.trailing_zeros()) < r.saturating_mul(16);
            let is_sane = is_power && (1..=16).contains(&p) && bytes <= SCRYPT_BYTES_MAX;
            is_sane.then_some(()).ok_or_else(|| format!("scrypt with n {n}, r {r}, p {p}"))
        }
        "pbkdf2" if (1..=PBKDF2_ROUNDS_MAX).contains(&number("c")) => Ok(()),
        "pbkdf2" => Err(format!("pbkdf2 with {} rounds", number("c"))),
        other => Err(format!("key derivation {other:?}, expected scrypt or pbkdf2")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l1::execute_tx::{ExecuteTx, Payload};
    use crate::l1::profile::Profile;
    use crate::primitives::address;

    const KEY: &str = "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";
    const ADDRESS: Address = address!("0x2c7536E3605D9C16a7a3D7b1898e529396a65c23");

    /// The first is eth-account's (web3.py), the second a vector of the Web3 Secret Storage Definition, of the same key and password.
    fn keystore(kdf: &str, params: &str, iv: &str, ciphertext: &str, mac: &str) -> String {
        format!(
            r#"{{"crypto":{{"cipher":"aes-128-ctr","cipherparams":{{"iv":"{iv}"}},"ciphertext":"{ciphertext}","kdf":"{kdf}","kdfparams":{{{params}}},"mac":"{mac}"}},"id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}}"#
        )
    }

    fn scrypt(params: &str) -> String {
        keystore(
            "scrypt",
            params,
            "4a896fc0681f6b1d4c38971a5f9dec0d",
            "756f50bb22856a1112744da2b666208aad19ceb4dd620608f71dedd9a9157e0d",
            "5358f3d17c42d3f2a78c69fe19c43cc929dbb0940842a624e804ec9ae0c29a39",
        )
    }

    fn pbkdf2(params: &str) -> String {
        keystore(
            "pbkdf2",
            params,
            "6087dab2f9fdbbfaddc31a909735c1e6",
            "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
            "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
        )
    }

    const SCRYPT: &str = r#""dklen":32,"n":4096,"p":1,"r":8,"salt":"125ccc969197ba401fc66f695c7d9dae""#;
    const PBKDF2: &str = r#""c":262144,"dklen":32,"prf":"hmac-sha256","salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd""#;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("signer-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a folder for temporary files");
            Self(path)
        }

        fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, text).expect("a writable folder");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("our own file");
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn it_signs_for_one_chain_and_shows_nothing() {
        let key = LocalKey::from_hex(KEY, "test", 61_971).expect("a key");
        assert_eq!(key.address(), ADDRESS);
        let payload = Payload { data: vec![1; 100].into(), witness: vec![2; 300].into(), ..Payload::default() };
        let encoded = payload.encoded(Profile::default());
        let terms = Terms { chain_id: U256::from(61_971), nonce: 3, gas: 1_000_000, ..Terms::default() };
        let signature = key.sign(&encoded, &terms).expect("its own chain");
        let tx = ExecuteTx { profile: Profile::default(), terms, payload, signature };
        assert_eq!(tx.sender(), Ok(ADDRESS));
        let other = Terms { chain_id: U256::ONE, ..terms };
        assert_eq!(key.sign(&encoded, &other), Err(SignerError::OtherChain { asked: U256::ONE, own: 61_971 }));
        assert_eq!(format!("{key:?}"), format!("LocalKey({ADDRESS}, chain 61971)"));
    }

    #[test]
    fn a_file_is_its_owners_alone() {
        let folder = Folder::new("file");
        let path = folder.file("key", &format!("{KEY}\n"), 0o600);
        assert_eq!(LocalKey::from_file(&path, 1).expect("a key").address(), ADDRESS);
        let path = folder.file("open", KEY, 0o640);
        assert!(matches!(LocalKey::from_file(&path, 1), Err(KeyError::ReadableByOthers { mode: 0o640, .. })));
        assert!(matches!(LocalKey::from_file(&folder.0.join("none"), 1), Err(KeyError::File { .. })));
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        for text in [&KEY[..64], &format!("{KEY}00"), &KEY.replace('4', "g"), ""] {
            let error = LocalKey::from_hex(text, "the environment", 1).expect_err("no key").to_string();
            assert!(error.starts_with("the environment: expected 32 bytes") && !error.contains("0883a6"), "{error}");
        }
        for text in ["00".repeat(32), "ff".repeat(32)] {
            assert!(matches!(LocalKey::from_hex(&text, "", 1), Err(KeyError::OutOfRange { .. })));
        }
    }

    #[test]
    fn keystores_are_opened() {
        let folder = Folder::new("keystore");
        let secret = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
        let expected = LocalKey::from_hex(secret, "", 1).expect("a key").address();
        let password = folder.file("password", "testpassword\n", 0o600);
        for (name, text) in [("scrypt", scrypt(SCRYPT)), ("pbkdf2", pbkdf2(PBKDF2))] {
            let path = folder.file(name, &text, 0o600);
            assert_eq!(LocalKey::from_keystore(&path, &password, 1).expect(name).address(), expected);
        }
        let wrong = folder.file("wrong", "password", 0o600);
        let path = folder.file("pbkdf2", &pbkdf2(PBKDF2), 0o600);
        assert!(matches!(LocalKey::from_keystore(&path, &wrong, 1), Err(KeyError::Keystore { .. })));
    }

    #[test]
    fn keystores_that_would_hurt_are_refused_before_they_are_tried() {
        assert_eq!(check_keystore(&scrypt(SCRYPT)), Ok(()));
        assert_eq!(check_keystore(&pbkdf2(PBKDF2)), Ok(()));
        for text in [
            scrypt(&SCRYPT.replace("4096", "1073741824")),
            scrypt(&SCRYPT.replace("4096", "4095")),
            scrypt(&SCRYPT.replace("4096", "65536").replace(r#""r":8"#, r#""r":1"#)),
            scrypt(&SCRYPT.replace(r#""dklen":32"#, r#""dklen":16"#)),
            pbkdf2(&PBKDF2.replace("262144", "4000000000")),
            pbkdf2(PBKDF2).replace("aes-128-ctr", "aes-256-ctr"),
            pbkdf2(PBKDF2).replace("6087dab2", ""),
            pbkdf2(PBKDF2).replace("\"version\":3", "\"version\":1"),
            "{}".to_owned(),
            "key".to_owned(),
        ] {
            assert!(check_keystore(&text).is_err(), "{text}");
        }
    }
}
