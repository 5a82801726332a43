//! Raw values (flags, environment, file) in; validated values out.
//!
//! A flag beats the environment, which beats the file, which beats the default; every value remembers where it came from.

pub mod admin;
pub mod execution;
pub mod genesis;
pub mod l1;
pub mod native_rollup;
pub mod redact;
pub mod secret_file;
pub mod settings;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::limits;
use crate::primitives::{Address, Bytes, Fork};
use admin::AdminConfig;
use execution::ExecutionConfig;
use l1::{L1Config, SettlementConfig, WitnessConfig};
use settings::{SETTINGS, Setting};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Flag,
    Environment(String),
    File(PathBuf),
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{source_name}: unknown setting `{name}`; did you mean `{nearest}`?")]
    Unknown { name: String, nearest: &'static str, source_name: Source },
    #[error("{name} = `{value}` ({source_name}): expected {expected}")]
    Value { name: &'static str, value: String, source_name: Source, expected: Cow<'static, str> },
    #[error("{path}: {what}")]
    File { path: PathBuf, what: String },
    #[error(
        "{name} = `{value}` is not a loopback address, and plain HTTP shows every block and token on the way: set execution.allow-remote-plaintext when that network is yours"
    )]
    RemotePlaintext { name: &'static str, value: String },
    #[error("l1.mode = `remote` needs l1.rpc-url")]
    L1Endpoint,
    #[error(
        "the key for L1 is given twice: use one of l1.key, l1.key-file, l1.keystore (with l1.keystore-password-file)"
    )]
    L1Key,
    #[error("l1.execute-address = `{0}`: the embedded L1 has EXECUTE at 0x0000000000000000000000000000000000000012")]
    ExecuteAddress(Address),
}

/// Every setting's text and source; one entry per setting.
#[derive(Clone, Debug)]
pub struct RawConfig {
    values: BTreeMap<&'static str, (String, Source)>,
}

impl RawConfig {
    /// Layers defaults, file, environment and flags, weakest first.
    ///
    /// # Errors
    /// Unknown names (with the nearest known one), an unreadable or malformed file.
    pub fn layered(
        flags: &[(String, String)],
        environment: &[(String, String)],
        file: Option<&PathBuf>,
    ) -> Result<Self, ConfigError> {
        let mut raw = Self {
            values: SETTINGS
                .iter()
                .map(|setting| (setting.name, (setting.default.to_owned(), Source::Default)))
                .collect(),
        };
        if let Some(path) = file {
            raw.add_file(path)?;
        }
        raw.add_environment(environment)?;
        for (name, value) in flags {
            raw.set(name, value.clone(), Source::Flag)?;
        }
        Ok(raw)
    }

    /// Replaces a default that depends on the command; a value set by anyone stays.
    pub fn default_for_command(&mut self, name: &'static str, value: &str) {
        if let Some(entry) = self.values.get_mut(name).filter(|(_, source)| *source == Source::Default) {
            value.clone_into(&mut entry.0);
        }
    }

    /// Every setting with value and source, by name, without secrets.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>, &Source)> {
        self.values.iter().map(|(name, (value, source))| (*name, redact::value(name, value), source))
    }

    /// The settings as a configuration file, each with where its value came from.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let line = |(name, value, source): (&str, Cow<'_, str>, &Source)| {
            format!("{name} = {}  # {source}\n", toml::Value::String(value.into_owned()))
        };
        self.entries().map(line).collect()
    }

    fn set(&mut self, name: &str, value: String, source: Source) -> Result<(), ConfigError> {
        match settings::find(name) {
            Ok(Setting { name, .. }) => {
                self.values.insert(name, (value, source));
                Ok(())
            }
            Err(nearest) => Err(ConfigError::Unknown { name: name.to_owned(), nearest, source_name: source }),
        }
    }

    fn add_environment(&mut self, environment: &[(String, String)]) -> Result<(), ConfigError> {
        for (variable, value) in environment {
            let alias = SETTINGS.iter().find(|setting| setting.env_alias == Some(variable.as_str()));
            if let Some(setting) = alias {
                self.set(setting.name, value.clone(), Source::Environment(variable.clone()))?;
            }
        }
        let is_alias = |name: &str| SETTINGS.iter().any(|setting| setting.env_alias == Some(name));
        let is_ours = |name: &str| name.starts_with("SEQUENCER_") && !is_alias(name);
        for (variable, value) in environment.iter().filter(|(name, _)| is_ours(name)) {
            let Some(setting) = SETTINGS.iter().find(|setting| settings::env_name(setting.name) == *variable) else {
                let guess =
                    variable.trim_start_matches("SEQUENCER_").to_lowercase().replacen('_', ".", 1).replace('_', "-");
                let nearest = settings::find(&guess).map_or_else(|nearest| nearest, |setting| setting.name);
                return Err(ConfigError::Unknown {
                    name: variable.clone(),
                    nearest,
                    source_name: Source::Environment(variable.clone()),
                });
            };
            self.set(setting.name, value.clone(), Source::Environment(variable.clone()))?;
        }
        Ok(())
    }

    fn add_file(&mut self, path: &PathBuf) -> Result<(), ConfigError> {
        let fault = |what: String| ConfigError::File { path: path.clone(), what };
        let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| fault(error.to_string()))?;
        let mut flat = Vec::new();
        flatten("", &table, &mut flat).map_err(fault)?;
        for (name, value) in flat {
            self.set(&name, value, Source::File(path.clone()))?;
        }
        Ok(())
    }

    fn text(&self, name: &'static str) -> (&str, &Source) {
        let (value, source) = self.values.get(name).expect("every setting of the table has an entry from the start");
        (value, source)
    }

    fn value<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let (value, source) = self.text(name);
        parse(value).ok_or_else(|| ConfigError::Value {
            name,
            value: redact::value(name, value).into_owned(),
            source_name: source.clone(),
            expected: Cow::Borrowed(expected),
        })
    }

    fn optional<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        if self.text(name).0.is_empty() { Ok(None) } else { self.value(name, expected, parse).map(Some) }
    }

    fn number<T: std::str::FromStr + PartialOrd>(
        &self,
        name: &'static str,
        range: &str,
        min: T,
        max: T,
    ) -> Result<T, ConfigError> {
        let (value, source) = self.text(name);
        match value.parse::<T>() {
            Ok(number) if number >= min && number <= max => Ok(number),
            _ => Err(ConfigError::Value {
                name,
                value: redact::value(name, value).into_owned(),
                source_name: source.clone(),
                expected: Cow::Owned(format!("a whole number, {range}")),
            }),
        }
    }
}

fn flatten(prefix: &str, table: &toml::Table, out: &mut Vec<(String, String)>) -> Result<(), String> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let text = match value {
            toml::Value::Table(inner) => {
                flatten(&name, inner, out)?;
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(truth) => truth.to_string(),
            toml::Value::Array(items) => {
                let items: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
                items.ok_or_else(|| format!("{name}: a list holds strings"))?.join(",")
            }
            toml::Value::Float(_) | toml::Value::Datetime(_) => {
                return Err(format!("{name}: expected a string, a whole number, true, false or a list of strings"));
            }
        };
        out.push((name, text));
    }
    Ok(())
}

/// What idle pinned threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Park,
    Spin,
}

/// Order of ready transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    PriorityFee,
    Arrival,
}

/// How senders are recovered.
#[derive(Clone, Copy, Debug)]
pub struct RecoveryConfig {
    /// Eight at once where the processor can.
    pub vectors: bool,
    /// One in so many is compared with libsecp256k1; 0: none.
    pub check_interval: u32,
}

/// Validated values. Durations in nanoseconds, sizes in bytes, money in wei.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: Option<PathBuf>,
    pub genesis: Option<PathBuf>,
    /// What the genesis must say; `None`: whatever it says.
    pub chain_id: Option<u64>,
    pub dev_fork: Fork,
    pub stop: StopConfig,
    /// Requests of peers.
    pub rates: RatesConfig,
    pub admin: AdminConfig,
    pub http: HttpConfig,
    pub rpc: RpcConfig,
    pub metrics: MetricsConfig,
    pub block: BlockConfig,
    pub execution: ExecutionConfig,
    pub l1: L1Config,
    pub settlement: SettlementConfig,
    pub witness: WitnessConfig,
    /// Not a setting: `sequencer follow` builds nothing and derives the chain from L1.
    pub follows: bool,
    pub execute: bool,
    pub order: Order,
    pub mempool: MempoolConfig,
    pub journal: JournalConfig,
    pub state: StateConfig,
    pub recovery: RecoveryConfig,
    pub query: QueryConfig,
    pub hash_threads: usize,
    pub status_retention_ns: u64,
    pub wait: Wait,
    /// `None`: when there is a core for each.
    pub pin: Option<bool>,
    pub log_level: String,
    pub log_json: bool,
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
pub struct StopConfig {
    /// Between the signal, which turns `/readyz` to 503, and the end of admission.
    pub delay_ns: u64,
    /// From the end of admission to the end of the process.
    pub limit_ns: u64,
}

/// Requests a second; 0: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RatesConfig {
    /// Of all addresses together.
    pub all: u64,
    /// Of one address, or of one IPv6 network of 64 bits.
    pub address: u64,
}

#[derive(Clone, Debug)]
pub struct HttpConfig {
    pub address: SocketAddr,
    /// 0: from the number of cores.
    pub shards: usize,
    pub vhosts: Vec<String>,
    pub cors: bool,
    pub connections_max: usize,
    pub body_bytes_max: usize,
    pub batch_items_max: usize,
    /// Longest that a transaction waits for others to be recovered with.
    pub batch_wait_ns: u64,
    pub idle_timeout_ns: u64,
}

/// Methods that are served only where they are wanted.
#[derive(Clone, Copy, Debug)]
pub struct RpcConfig {
    /// `debug_*`.
    pub debug: bool,
    /// `txpool_content`, `txpool_contentFrom`, `txpool_inspect`.
    pub pool_content: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct MetricsConfig {
    /// `None`: there is no such port.
    pub address: Option<SocketAddr>,
}

#[derive(Clone, Debug)]
pub struct BlockConfig {
    pub gas_limit: Option<u64>,
    pub interval_ns: u64,
    /// 0: no empty blocks.
    pub empty_interval_ns: u64,
    pub timestamp_lead_s: u64,
    pub coinbase: Address,
    pub extra_data: Bytes,
}

#[derive(Clone, Debug)]
pub struct MempoolConfig {
    pub transactions_max: u32,
    pub bytes_max: u64,
    pub per_sender_max: u32,
}

#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// `None`: `journal` in the data directory.
    pub dir: Option<PathBuf>,
    /// Whether what is acknowledged survives a power cut.
    pub sync: bool,
    /// Whether groups are written through io_uring; otherwise by `pwritev2`.
    pub is_asynchronous: bool,
    pub segment_bytes: u64,
    pub segments_kept_max: usize,
}

#[derive(Clone, Debug)]
pub struct StateConfig {
    /// `None`: `state` in the data directory.
    pub dir: Option<PathBuf>,
    pub segment_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct QueryConfig {
    pub threads: usize,
    pub gas_max: u64,
    pub timeout_ns: u64,
}

const NS_PER_MS: u64 = 1_000_000;
/// Largest number of open connections that may be configured.
pub const CONNECTIONS_MAX: usize = 1_000_000;
/// Largest rate limit: a request every 100 ns.
pub const REQUESTS_PER_SECOND_MAX: u64 = 10_000_000;

impl Config {
    /// Validates every value.
    ///
    /// # Errors
    /// The first value that does not fit, with its source and what was expected.
    pub fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        Self::values(raw)
    }

    fn values(raw: &RawConfig) -> Result<Self, ConfigError> {
        let path = |value: &str| Some(PathBuf::from(value));
        Ok(Self {
            data_dir: raw.optional("data-dir", "a directory", path)?,
            genesis: raw.optional("genesis", "a file", path)?,
            chain_id: raw.optional("l2.chain-id", "a chain id, 1 or more", |value| {
                value.parse().ok().filter(|id: &u64| *id > 0)
            })?,
            dev_fork: raw.value("dev.fork", "prague or osaka", parse_fork)?,
            stop: StopConfig {
                delay_ns: raw.number("stop.delay-ms", "0 to 600000", 0, 600_000)? * NS_PER_MS,
                limit_ns: raw.number("stop.limit-ms", "100 to 3600000", 100, 3_600_000)? * NS_PER_MS,
            },
            rates: RatesConfig::from_raw(raw)?,
            admin: AdminConfig::from_raw(raw)?,
            metrics: MetricsConfig::from_raw(raw)?,
            http: HttpConfig::from_raw(raw)?,
            rpc: RpcConfig {
                debug: raw.value("rpc.debug", "true or false", parse_bool)?,
                pool_content: raw.value("rpc.pool-content", "true or false", parse_bool)?,
            },
            block: BlockConfig::from_raw(raw)?,
            execution: ExecutionConfig::from_raw(raw)?,
            l1: L1Config::from_raw(raw)?,
            settlement: SettlementConfig::from_raw(raw)?,
            witness: WitnessConfig::from_raw(raw)?,
            follows: false,
            execute: raw.value("builder.execute", "true or false", parse_bool)?,
            order: raw.value("builder.order", "priority-fee or arrival", |value| match value {
                "priority-fee" => Some(Order::PriorityFee),
                "arrival" => Some(Order::Arrival),
                _ => None,
            })?,
            mempool: MempoolConfig {
                transactions_max: raw.number("mempool.transactions-max", "16 to 1048576", 16, 1 << 20)?,
                bytes_max: raw.number("mempool.bytes-max", "1 MiB to 64 GiB", 1 << 20, 64 << 30)?,
                per_sender_max: raw.number("mempool.per-sender-max", "1 to 1048576", 1, 1 << 20)?,
            },
            journal: JournalConfig::from_raw(raw)?,
            state: StateConfig::from_raw(raw)?,
            recovery: RecoveryConfig::from_raw(raw)?,
            query: QueryConfig {
                threads: raw.number("query.threads", "1 to 64", 1, 64)?,
                gas_max: raw.number("query.gas-max", "21000 or more", 21_000, u64::MAX)?,
                timeout_ns: raw.number("query.timeout-ms", "1 to 60000", 1, 60_000)? * NS_PER_MS,
            },
            hash_threads: raw.number("hash.threads", "0 to 256", 0, 256)?,
            status_retention_ns: raw.number("status.retention-s", "1 to 31536000", 1, 31_536_000)? * 1_000 * NS_PER_MS,
            wait: raw.value("tuning.wait", "park or spin", |value| match value {
                "park" => Some(Wait::Park),
                "spin" => Some(Wait::Spin),
                _ => None,
            })?,
            pin: raw.value("tuning.pin", "auto, on or off", |value| match value {
                "auto" => Some(None),
                "on" => Some(Some(true)),
                "off" => Some(Some(false)),
                _ => None,
            })?,
            log_level: raw.text("log.level").0.to_owned(),
            log_json: raw.value("log.format", "text or json", |value| match value {
                "text" => Some(false),
                "json" => Some(true),
                _ => None,
            })?,
        })
    }
}

impl RatesConfig {
    fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        let rate = |name| raw.number(name, "0 to 10000000", 0, REQUESTS_PER_SECOND_MAX);
        Ok(Self { all: rate("limits.requests-per-second")?, address: rate("limits.requests-per-second-per-address")? })
    }
}

impl HttpConfig {
    fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        let host = raw.value("http.host", "an IP address", parse_host)?;
        let vhosts = raw.text("http.vhosts").0;
        Ok(Self {
            address: SocketAddr::new(host, raw.number("http.port", "0 to 65535", 0, u16::MAX)?),
            shards: raw.number("http.shards", "0 to 255", 0, 255)?,
            vhosts: vhosts.split(',').filter(|name| !name.is_empty()).map(|name| name.trim().to_owned()).collect(),
            cors: raw.value("http.cors", "true or false", parse_bool)?,
            connections_max: raw.number("http.connections-max", "1 to 1000000", 1, CONNECTIONS_MAX)?,
            body_bytes_max: raw.number("http.body-bytes-max", "1 KiB to 128 MiB", 1 << 10, 128 << 20)?,
            batch_items_max: raw.number("http.batch-items-max", "1 to 10000", 1, 10_000)?,
            batch_wait_ns: raw.number("http.batch-wait-us", "0 to 10000", 0, 10_000)? * 1_000,
            idle_timeout_ns: raw.number("http.idle-timeout-ms", "1 to 86400000", 1, 86_400_000)? * NS_PER_MS,
        })
    }
}

impl MetricsConfig {
    fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        let port = raw.value("metrics.port", "a port, 0 to 65535, or off", |value| match value {
            "off" => Some(None),
            other => other.parse().ok().map(Some),
        })?;
        // Who keeps JSON-RPC to this machine means the other port too.
        let host = match raw.optional("metrics.host", "an IP address", parse_host)? {
            Some(host) => host,
            None => raw.value("http.host", "an IP address", parse_host)?,
        };
        Ok(Self { address: port.map(|port: u16| SocketAddr::new(host, port)) })
    }
}

fn parse_host(value: &str) -> Option<IpAddr> {
    match value {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        other => other.parse().ok(),
    }
}

impl JournalConfig {
    fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            dir: raw.optional("journal.dir", "a directory", |value| Some(PathBuf::from(value)))?,
            sync: raw.value("journal.sync", "always or off", |value| match value {
                "always" => Some(true),
                "off" => Some(false),
                _ => None,
            })?,
            is_asynchronous: raw.value("journal.engine", "pwritev2 or io-uring", |value| match value {
                "pwritev2" => Some(false),
                "io-uring" => Some(true),
                _ => None,
            })?,
            segment_bytes: raw.value("journal.segment-bytes", "24 MiB to 3 GiB, a multiple of 4096", |value| {
                value.parse().ok().filter(|bytes: &u64| {
                    (limits::JOURNAL_SEGMENT_BYTES_MIN..=3 << 30).contains(bytes) && bytes.is_multiple_of(4_096)
                })
            })?,
            segments_kept_max: raw.number("journal.segments-kept", "3 to 65536", 3, 65_536)?,
        })
    }
}

impl StateConfig {
    fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            dir: raw.optional("state.dir", "a directory", |value| Some(PathBuf::from(value)))?,
            segment_bytes: raw.value("state.segment-bytes", "16 MiB to 4 GiB, a power of two", |value| {
                value.parse().ok().filter(|bytes: &u64| (16 << 20..=4 << 30).contains(bytes) && bytes.is_power_of_two())
            })?,
        })
    }
}

impl RecoveryConfig {
    fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            vectors: raw.value("crypto.recovery", "auto or libsecp256k1", |value| match value {
                "auto" => Some(true),
                "libsecp256k1" => Some(false),
                _ => None,
            })?,
            check_interval: raw.number("crypto.recovery-check-interval", "0 to 1000000000", 0, 1_000_000_000)?,
        })
    }
}

impl BlockConfig {
    fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            gas_limit: raw.optional("block.gas-limit", "gas, 5000 or more", |value| {
                value.parse().ok().filter(|gas| *gas >= 5_000)
            })?,
            interval_ns: raw.number("block.interval-ms", "1 to 600000", 1, 600_000)? * NS_PER_MS,
            empty_interval_ns: raw.number("block.empty-interval-ms", "0 to 86400000", 0, 86_400_000)? * NS_PER_MS,
            timestamp_lead_s: raw.number("block.timestamp-lead-s", "1 to 4000000000", 1, 4_000_000_000)?,
            coinbase: raw.value("block.coinbase", "an address, 0x and 40 hex digits", |value| value.parse().ok())?,
            extra_data: raw.value("block.extra-data", "0x and at most 64 hex digits", |value| {
                value.parse::<Bytes>().ok().filter(|bytes| bytes.len() <= 32)
            })?,
        })
    }
}

fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "true" | "on" => Some(true),
        "false" | "off" => Some(false),
        _ => None,
    }
}

fn parse_fork(value: &str) -> Option<Fork> {
    match value {
        "prague" => Some(Fork::Prague),
        "osaka" => Some(Fork::Osaka),
        _ => None,
    }
}
