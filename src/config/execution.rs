//! The execution client: where it is, how long it may take.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{ConfigError, NS_PER_MS, RawConfig, parse_bool, redact};

/// Who executes and who checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionMode {
    /// We alone.
    Embedded,
    /// An execution client checks every block before it is `latest`.
    Verified,
    /// An execution client builds the blocks, we order and check.
    Delegated,
}

/// Where an execution client listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Http {
        host: String,
        port: u16,
        /// Begins with `/`.
        path: String,
    },
    /// A Unix socket.
    Ipc(PathBuf),
}

impl Endpoint {
    /// `http://host:port/path`, or the path of a socket.
    fn parse(text: &str) -> Option<Self> {
        let Some(rest) = text.strip_prefix("http://") else {
            return (!text.contains("://") && !text.is_empty()).then(|| Self::Ipc(PathBuf::from(text)));
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = authority.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let path = if path.is_empty() { "/" } else { path };
        let is_plain =
            !host.is_empty() && !host.contains(['@', '[', ']']) && path.bytes().all(|b| b.is_ascii_graphic());
        is_plain.then_some(Self::Http { host: host.to_owned(), port: port.parse().ok()?, path: path.to_owned() })
    }

    /// Whether what is sent there leaves the machine in plain text.
    fn is_remote(&self) -> bool {
        match self {
            Self::Ipc(_) => false,
            Self::Http { host, .. } if host == "localhost" => false,
            Self::Http { host, .. } => !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        }
    }
}

/// Time of one call and how often it is repeated before the connection counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    pub timeout_ns: u64,
    pub retries: u32,
}

#[derive(Clone, Debug)]
pub struct ExecutionConfig {
    pub mode: ExecutionMode,
    /// The authenticated port, or the IPC socket.
    pub engine: Endpoint,
    /// The plain JSON-RPC port; `None`: everything goes to `engine`.
    pub rpc: Option<Endpoint>,
    /// `None`: `jwt.hex` in the data directory.
    pub jwt_secret: Option<PathBuf>,
    pub new_payload: CallLimits,
    pub forkchoice: CallLimits,
    pub read: CallLimits,
    pub backoff_ns: u64,
    pub backoff_ns_max: u64,
    pub stall_ns: u64,
    /// Gives the client a new database.
    pub reset_command: Option<PathBuf>,
    /// How often it is asked what came to its pool; 0: never.
    pub pool_poll_ns: u64,
    /// Sealed blocks that may wait for their verdict.
    pub unchecked_blocks_max: u64,
}

impl ExecutionConfig {
    pub(super) fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        let what = "http://host:port, or the path of an IPC socket (https: a proxy ends TLS)";
        let engine = match raw.text("execution.engine-url").0 {
            "" => {
                let port = raw.number("execution.engine-port", "1 to 65535", 1, u16::MAX)?;
                Endpoint::Http { host: "127.0.0.1".to_owned(), port, path: "/".to_owned() }
            }
            _ => raw.value("execution.engine-url", what, Endpoint::parse)?,
        };
        let rpc = raw.optional("execution.rpc-url", what, Endpoint::parse)?;
        let is_allowed = raw.value("execution.allow-remote-plaintext", "true or false", parse_bool)?;
        for (name, endpoint) in [("execution.engine-url", Some(&engine)), ("execution.rpc-url", rpc.as_ref())] {
            if !is_allowed && endpoint.is_some_and(Endpoint::is_remote) {
                return Err(ConfigError::RemotePlaintext { name, value: redact::urls(raw.text(name).0).into_owned() });
            }
        }
        Ok(Self {
            mode: raw.value("execution.mode", "embedded, verified or delegated", |value| match value {
                "embedded" => Some(ExecutionMode::Embedded),
                "verified" => Some(ExecutionMode::Verified),
                "delegated" => Some(ExecutionMode::Delegated),
                _ => None,
            })?,
            engine,
            rpc,
            jwt_secret: raw.optional(
                "execution.jwt-secret",
                "the file that holds the secret, not the secret",
                |value| (redact::value("execution.jwt-secret", value) == value).then(|| PathBuf::from(value)),
            )?,
            new_payload: call_limits(raw, "execution.new-payload-timeout-ms", "execution.new-payload-retries")?,
            forkchoice: call_limits(raw, "execution.forkchoice-timeout-ms", "execution.forkchoice-retries")?,
            read: call_limits(raw, "execution.read-timeout-ms", "execution.read-retries")?,
            backoff_ns: raw.number("execution.backoff-ms", "1 to 60000", 1, 60_000)? * NS_PER_MS,
            backoff_ns_max: raw.number("execution.backoff-max-ms", "1 to 600000", 1, 600_000)? * NS_PER_MS,
            stall_ns: raw.number("execution.stall-ms", "1 to 3600000", 1, 3_600_000)? * NS_PER_MS,
            reset_command: raw.optional("execution.reset-command", "a program", |value| Some(PathBuf::from(value)))?,
            pool_poll_ns: raw.number("execution.pool-poll-ms", "0 to 60000", 0, 60_000)? * NS_PER_MS,
            unchecked_blocks_max: raw.number("execution.unchecked-blocks-max", "1 to 64", 1, 64)?,
        })
    }
}

fn call_limits(raw: &RawConfig, timeout: &'static str, retries: &'static str) -> Result<CallLimits, ConfigError> {
    Ok(CallLimits {
        timeout_ns: raw.number(timeout, "1 to 600000", 1, 600_000)? * NS_PER_MS,
        retries: raw.number(retries, "0 to 100", 0, 100)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = match Endpoint::parse(text) {
            None => "refused".to_owned(),
            Some(endpoint) => {
                let place = if endpoint.is_remote() { "remote" } else { "local" };
                match endpoint {
                    Endpoint::Http { host, port, path } => format!("{place} {host} {port} {path}"),
                    Endpoint::Ipc(path) => format!("{place} {}", path.display()),
                }
            }
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn endpoints_are_a_url_or_a_socket() {
        check("http://127.0.0.1:8551", "local 127.0.0.1 8551 /");
        check("http://localhost:1/a/b", "local localhost 1 /a/b");
        check("http://[::1]:8551", "local ::1 8551 /");
        check("http://10.0.0.2:8551", "remote 10.0.0.2 8551 /");
        check("http://el.example:8551/", "remote el.example 8551 /");
        check("data/geth.ipc", "local data/geth.ipc");
        for text in
            ["https://127.0.0.1:8551", "http://127.0.0.1", "http://:1", "http://u@h:1", "ws://h:1", "http://h:70000"]
        {
            check(text, "refused");
        }
    }
}
