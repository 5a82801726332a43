//! L1 and settlement: where it is, who signs, how batches are closed, how large a debt may become.

use std::path::PathBuf;

use super::{ConfigError, NS_PER_MS, RawConfig, parse_bool};
use crate::l1::execute_tx::EXECUTE_ADDRESS;
use crate::primitives::Address;

/// Which L1 there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L1Mode {
    /// None: a sealed block is safe and final.
    Off,
    /// The development L1 in this process.
    Embedded,
    /// One or more endpoints.
    Remote,
}

/// How the embedded development L1 judges ExecuteTx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DevL1Mode {
    Strict,
    Compat,
}

/// Where the key that signs for L1 is.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Nobody signs: the chain is derived and nothing posted; in `dev` the batcher of the development genesis signs.
    None,
    /// 64 hex digits, given by the environment.
    Text(String),
    /// A file with 64 hex digits.
    File(PathBuf),
    /// An encrypted keystore (Web3 Secret Storage) and the file with its password.
    Keystore { path: PathBuf, password_file: PathBuf },
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Text(_) => f.write_str("given by value"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Keystore { path, .. } => write!(f, "keystore {}", path.display()),
        }
    }
}

#[derive(Clone, Debug)]
pub struct L1Config {
    pub mode: L1Mode,
    /// URLs, in order of preference.
    pub endpoints: Vec<String>,
    /// `None`: the genesis says.
    pub chain_id: Option<u64>,
    /// Where L1 has EXECUTE.
    pub execute_address: Address,
    pub key: KeySource,
    pub poll_ns: u64,
    pub timeout_ns: u64,
    pub origin_depth: u64,
    /// Builds before L1 has answered.
    pub start_without: bool,
    pub spend_wei_per_hour_max: u128,
    pub tx_cost_wei_max: u128,
    pub tip_wei: u128,
    /// Port of the embedded L1; 0: any.
    pub dev_port: u16,
    pub dev_mode: DevL1Mode,
    pub dev_block_ns: u64,
    pub dev_mainnet_like: bool,
}

/// When a batch is closed, how many are under way, how large the debt to L1 may become.
#[derive(Clone, Debug)]
pub struct SettlementConfig {
    /// Whether batches are posted; otherwise the chain is derived only.
    pub post: bool,
    pub batch_bytes_max: u32,
    pub batch_gas_max: u64,
    pub batch_age_ns_max: u64,
    pub batch_segments_max: u32,
    pub in_flight_max: u32,
    /// Whether a batch's data is compressed.
    pub is_compressed: bool,
    pub unsafe_blocks_max: u64,
    pub backlog_bytes_max: u64,
}

/// Witnesses of blocks that L1 is slow to take.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    /// `None`: in the data directory.
    pub dir: Option<PathBuf>,
    pub keep_behind_blocks: u64,
    pub kept_bytes_max: u64,
}

impl L1Config {
    pub(super) fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        let endpoints: Vec<String> =
            raw.value("l1.rpc-url", "http(s):// or ws(s):// URLs, comma-separated", |value| {
                let urls = value.split(',').map(str::trim).filter(|url| !url.is_empty());
                urls.map(|url| is_url(url).then(|| url.to_owned())).collect()
            })?;
        let mode = raw.value("l1.mode", "off, embedded or remote", |value| match value {
            "" if endpoints.is_empty() => Some(L1Mode::Off),
            "" | "remote" => Some(L1Mode::Remote),
            "off" => Some(L1Mode::Off),
            "embedded" => Some(L1Mode::Embedded),
            _ => None,
        })?;
        if mode == L1Mode::Remote && endpoints.is_empty() {
            return Err(ConfigError::L1Endpoint);
        }
        let execute_address =
            raw.value("l1.execute-address", "an address, 0x and 40 hex digits", |value| value.parse().ok())?;
        if mode == L1Mode::Embedded && execute_address != EXECUTE_ADDRESS {
            return Err(ConfigError::ExecuteAddress(execute_address));
        }
        Ok(Self {
            mode,
            execute_address,
            endpoints,
            chain_id: raw.optional("l1.chain-id", "a chain id", |value| value.parse().ok())?,
            key: key(raw)?,
            poll_ns: raw.number("l1.poll-ms", "10 to 600000", 10, 600_000)? * NS_PER_MS,
            timeout_ns: raw.number("l1.timeout-ms", "10 to 600000", 10, 600_000)? * NS_PER_MS,
            origin_depth: raw.number("l1.origin-depth", "0 to 10000", 0, 10_000)?,
            start_without: raw.value("l1.start-without", "true or false", parse_bool)?,
            spend_wei_per_hour_max: raw.value("l1.spend-eth-per-hour-max", "ETH, such as 1 or 0.25", parse_eth)?,
            tx_cost_wei_max: raw.value("l1.tx-cost-eth-max", "ETH, such as 1 or 0.25", parse_eth)?,
            tip_wei: raw.value("l1.tip-gwei", "gwei", parse_gwei)?,
            dev_port: raw.number("l1.dev-port", "0 to 65535", 0, u16::MAX)?,
            dev_mode: raw.value("l1.dev-mode", "strict or compat", |value| match value {
                "strict" => Some(DevL1Mode::Strict),
                "compat" => Some(DevL1Mode::Compat),
                _ => None,
            })?,
            dev_block_ns: raw.number("l1.dev-block-ms", "1 to 600000", 1, 600_000)? * NS_PER_MS,
            dev_mainnet_like: raw.value("l1.dev-mainnet-like", "true or false", parse_bool)?,
        })
    }
}

impl WitnessConfig {
    pub(super) fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            dir: raw.optional("witness.dir", "a directory", |value| Some(PathBuf::from(value)))?,
            // States of `limits::RECENT_BLOCKS_MAX` blocks are there, and a job may have to wait.
            keep_behind_blocks: raw.number("witness.keep-behind-blocks", "1 to 96", 1, 96)?,
            kept_bytes_max: raw.number("witness.kept-bytes-max", "64 KiB to 16 TiB", 1 << 16, 1 << 44)?,
        })
    }
}

const _: () = assert!(crate::limits::RECENT_BLOCKS_MAX >= 128);

impl SettlementConfig {
    pub(super) fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            post: raw.value("settlement.post", "true or false", parse_bool)?,
            batch_bytes_max: raw.number("settlement.batch-bytes-max", "8192 to 131072", 8_192, 131_072)?,
            batch_gas_max: raw.number("settlement.batch-gas-max", "500000 to 16777216", 500_000, 16_777_216)?,
            batch_age_ns_max: raw.number("settlement.batch-age-ms", "0 to 86400000", 0, 86_400_000)? * NS_PER_MS,
            batch_segments_max: raw.number("settlement.batch-segments-max", "1 to 1024", 1, 1_024)?,
            in_flight_max: raw.number("settlement.in-flight-max", "1 to 16", 1, 16)?,
            is_compressed: raw.value("settlement.compression", "zstd or stored", |value| match value {
                "zstd" => Some(true),
                "stored" => Some(false),
                _ => None,
            })?,
            unsafe_blocks_max: raw.number("settlement.unsafe-blocks-max", "1 to 1000000", 1, 1_000_000)?,
            backlog_bytes_max: raw.number("settlement.backlog-bytes-max", "1 MiB to 1 TiB", 1 << 20, 1 << 40)?,
        })
    }
}

fn key(raw: &RawConfig) -> Result<KeySource, ConfigError> {
    let path = |value: &str| Some(PathBuf::from(value));
    let text = raw.text("l1.key").0;
    let file = raw.optional("l1.key-file", "a file", path)?;
    let keystore = raw.optional("l1.keystore", "a file", path)?;
    let password_file = raw.optional("l1.keystore-password-file", "a file", path)?;
    match (text, file, keystore, password_file) {
        ("", None, None, None) => Ok(KeySource::None),
        (text, None, None, None) => Ok(KeySource::Text(text.to_owned())),
        ("", Some(file), None, None) => Ok(KeySource::File(file)),
        ("", None, Some(path), Some(password_file)) => Ok(KeySource::Keystore { path, password_file }),
        _ => Err(ConfigError::L1Key),
    }
}

fn is_url(text: &str) -> bool {
    let rest = ["http://", "https://", "ws://", "wss://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// A decimal number of units of `10^decimals` wei, without a remainder.
fn parse_units(text: &str, decimals: usize) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > decimals || !is_plain(whole) || !is_plain(fraction) {
        return None;
    }
    format!("{whole}{fraction:0<decimals$}").parse().ok()
}

fn parse_eth(text: &str) -> Option<u128> {
    parse_units(text, 18)
}

fn parse_gwei(text: &str) -> Option<u128> {
    parse_units(text, 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_read_to_the_wei() {
        assert_eq!(parse_eth("1"), Some(1_000_000_000_000_000_000));
        assert_eq!(parse_eth("0.25"), Some(250_000_000_000_000_000));
        assert_eq!(parse_gwei("1.000000001"), Some(1_000_000_001));
        for text in ["", ".5", "-1", "1e3", "1.0000000001", "1,5"] {
            assert_eq!(parse_gwei(text), None, "{text}");
        }
    }

    #[test]
    fn urls_have_a_scheme_that_we_speak() {
        for (text, expected) in
            [("http://a:1", true), ("wss://a/b?c", true), ("ftp://a", false), ("a:1", false), ("http://", false)]
        {
            assert_eq!(is_url(text), expected, "{text}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let shown = format!("{:?}", KeySource::Text("4c0883a69102937d6231471b5dbb6204".to_owned()));
        assert_eq!(shown, "given by value");
    }
}
