//! Limits that change while the process runs: a cell for each, named as its setting.
//!
//! Shards read theirs once a turn, the builder core looks at a version once a turn. What memory was reserved for at the start is the most that a limit
//! can be raised to. A new start has the configured ones again.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::{CONNECTIONS_MAX, Config, REQUESTS_PER_SECOND_MAX, settings};
use crate::ingress::rates::Rates;
use crate::mempool::Bounds;

/// Open files that connections must leave for the journal, chain, state, rings and sockets to peers.
const FILES_KEPT: u64 = 1_024;

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    RequestsPerSecond,
    RequestsPerSecondAndAddress,
    Connections,
    PoolTransactions,
    PoolBytes,
    PoolPerSender,
}

impl Limit {
    pub const ALL: [Self; 6] = [
        Self::RequestsPerSecond,
        Self::RequestsPerSecondAndAddress,
        Self::Connections,
        Self::PoolTransactions,
        Self::PoolBytes,
        Self::PoolPerSender,
    ];

    /// Its setting.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestsPerSecond => "limits.requests-per-second",
            Self::RequestsPerSecondAndAddress => "limits.requests-per-second-per-address",
            Self::Connections => "http.connections-max",
            Self::PoolTransactions => "mempool.transactions-max",
            Self::PoolBytes => "mempool.bytes-max",
            Self::PoolPerSender => "mempool.per-sender-max",
        }
    }

    /// # Errors
    /// Why there is none, for the operator.
    pub fn from_name(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|limit| limit.name() == name).ok_or_else(|| match settings::find(name) {
            Ok(_) => format!("`{name}` cannot be changed while it runs: admin_limits names what can be"),
            Err(nearest) => format!("unknown setting `{name}`; did you mean `{nearest}`?"),
        })
    }

    fn min(self) -> u64 {
        match self {
            Self::RequestsPerSecond | Self::RequestsPerSecondAndAddress => 0,
            Self::Connections | Self::PoolTransactions | Self::PoolBytes | Self::PoolPerSender => 1,
        }
    }
}

/// A value that a limit cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} = {value}: expected {min} to {max}", limit.name())]
pub struct LimitError {
    limit: Limit,
    value: u64,
    min: u64,
    max: u64,
}

/// The cells. Written by the `admin` thread. They outlive a launch.
#[derive(Debug)]
pub struct LimitCells {
    cells: [AtomicU64; Limit::ALL.len()],
    max: [u64; Limit::ALL.len()],
    /// Counts changes of the pool's.
    pool_version: AtomicU64,
}

impl LimitCells {
    /// The configured limits. `files`: how many the process may have open; connections can be raised to what is left of them.
    #[must_use]
    pub fn new(config: &Config, files: u64) -> Self {
        let mempool = &config.mempool;
        // What the pool has memory for, and shards their slabs.
        let (transactions_max, bytes_max) = (u64::from(mempool.transactions_max), mempool.bytes_max);
        let values = [
            config.rates.all,
            config.rates.address,
            config.http.connections_max as u64,
            transactions_max,
            bytes_max,
            u64::from(mempool.per_sender_max),
        ];
        let max = [
            REQUESTS_PER_SECOND_MAX,
            REQUESTS_PER_SECOND_MAX,
            files.saturating_sub(FILES_KEPT).min(CONNECTIONS_MAX as u64).max(config.http.connections_max as u64),
            transactions_max,
            bytes_max,
            transactions_max.max(u64::from(mempool.per_sender_max)),
        ];
        Self { cells: values.map(AtomicU64::new), max, pool_version: AtomicU64::new(0) }
    }

    /// No limits at all, for parts of a process.
    #[must_use]
    pub fn none() -> Self {
        let values = [0, 0, u64::MAX, u64::MAX, u64::MAX, u64::MAX];
        Self { cells: values.map(AtomicU64::new), max: values, pool_version: AtomicU64::new(0) }
    }

    #[must_use]
    pub fn get(&self, limit: Limit) -> u64 {
        // ORDERING: Relaxed; each is a limit of its own.
        self.cells[limit as usize].load(Ordering::Relaxed)
    }

    /// Changes all of them, or none.
    ///
    /// # Errors
    /// The first value that does not fit.
    pub fn set(&self, changes: &[(Limit, u64)]) -> Result<(), LimitError> {
        for &(limit, value) in changes {
            let (min, max) = (limit.min(), self.max[limit as usize]);
            if value < min || value > max {
                return Err(LimitError { limit, value, min, max });
            }
        }
        for &(limit, value) in changes {
            self.cells[limit as usize].store(value, Ordering::Relaxed);
        }
        // ORDERING: Release pairs with the Acquire in `pool_version`: who sees the version sees the limits.
        self.pool_version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Runs on: ingress shard, once a turn.
    #[must_use]
    pub fn rates(&self) -> Rates {
        Rates {
            per_second: self.get(Limit::RequestsPerSecond),
            per_second_and_address: self.get(Limit::RequestsPerSecondAndAddress),
        }
    }

    /// Changes when [`LimitCells::pool`] may have. Runs on: builder core, once a turn.
    #[must_use]
    pub fn pool_version(&self) -> u64 {
        // ORDERING: see `set`.
        self.pool_version.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn pool(&self) -> Bounds {
        let narrow = |limit| u32::try_from(self.get(limit)).unwrap_or(u32::MAX);
        Bounds {
            transactions_max: narrow(Limit::PoolTransactions),
            bytes_max: self.get(Limit::PoolBytes),
            per_sender_max: narrow(Limit::PoolPerSender),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    fn cells(flags: &[(&str, &str)]) -> LimitCells {
        let flags = flags.iter().chain(&[("http.host", "127.0.0.1"), ("http.cors", "false")]);
        let flags: Vec<_> = flags.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let raw = RawConfig::layered(&flags, &[], None).expect("known names");
        LimitCells::new(&Config::from_raw(&raw).expect("good values"), 20_000)
    }

    #[test]
    fn they_start_as_configured_under_the_names_of_settings() {
        let cells = cells(&[("limits.requests-per-second", "7"), ("mempool.transactions-max", "100")]);
        for limit in Limit::ALL {
            let setting = settings::find(limit.name()).expect("a setting");
            assert_eq!(Limit::from_name(setting.name), Ok(limit));
            let expected = match limit {
                Limit::RequestsPerSecond => "7",
                Limit::PoolTransactions => "100",
                _ => setting.default,
            };
            assert_eq!(cells.get(limit).to_string(), expected, "{}", setting.name);
        }
        let refused = Limit::from_name("http.port").expect_err("no limit");
        assert!(refused.contains("cannot be changed while it runs"), "{refused}");
    }

    #[test]
    fn a_change_is_whole_or_none_and_stays_within_what_was_reserved() {
        let cells = cells(&[("mempool.transactions-max", "100")]);
        let version = cells.pool_version();
        let error = cells.set(&[(Limit::Connections, 5), (Limit::PoolTransactions, 101)]).expect_err("too many");
        assert_eq!(error.to_string(), "mempool.transactions-max = 101: expected 1 to 100");
        assert_eq!((cells.get(Limit::Connections), cells.pool_version()), (10_000, version));
        assert!(cells.set(&[(Limit::Connections, 0)]).is_err());
        let error = cells.set(&[(Limit::Connections, 18_977)]).expect_err("more than files are left");
        assert_eq!(error.to_string(), "http.connections-max = 18977: expected 1 to 18976");
        cells.set(&[(Limit::Connections, 18_976)]).expect("as many as files are left");
        cells.set(&[(Limit::Connections, 10_000)]).expect("as it was");
        let version = cells.pool_version();
        assert!(cells.set(&[(Limit::RequestsPerSecond, REQUESTS_PER_SECOND_MAX + 1)]).is_err());
        cells
            .set(&[(Limit::Connections, 5), (Limit::PoolTransactions, 1), (Limit::RequestsPerSecond, 9)])
            .expect("fits");
        assert_eq!(cells.rates(), Rates { per_second: 9, per_second_and_address: 0 });
        assert_eq!((cells.get(Limit::Connections), cells.pool().transactions_max), (5, 1));
        assert_ne!(cells.pool_version(), version);
    }
}
