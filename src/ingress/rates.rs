//! How often a peer, and all of them, may ask: token buckets that all shards share.
//!
//! A limit is a number of requests a second and a bucket of one second's worth. A bucket is one word, the moment at which it would be full again, changed
//! by compare-and-swap, so it does not matter which shards a peer's connections come to, nor how many it opens one after the other. Networks share
//! the buckets of [`RateTable`] by a seeded hash: two that meet in one get the limit together, never more. A refused request changes nothing.
//! Without a limit a request costs one branch and touches no shared word.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;

const SECOND_NS: u64 = 1_000_000_000;
/// Buckets of networks, 2 MiB of them, made when there is a limit for the first time: of a thousand networks that ask at a time, four meet another one.
const PLACES: usize = 262_144;

/// Requests a second, 0 for no limit; at most `config::REQUESTS_PER_SECOND_MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of all addresses together.
    pub per_second: u64,
    /// Of one address, or of one IPv6 network of 64 bits.
    pub per_second_and_address: u64,
}

/// One bucket: the moment at which it would be full again.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one request out of a bucket that `limit` a second fill.
    ///
    /// # Errors
    /// Nanoseconds until there is one, at least 1.
    fn take(&self, limit: u64, now_ns: u64) -> Result<(), u64> {
        // Rounded up: never more than the limit.
        let interval_ns = SECOND_NS.div_ceil(limit);
        let next = |full_ns: u64| {
            // What is owed is at most a whole bucket: a larger debt is that of another limit, before it was changed.
            let full_ns = full_ns.clamp(now_ns, now_ns + SECOND_NS) + interval_ns;
            (full_ns <= now_ns + SECOND_NS.max(interval_ns)).then_some(full_ns)
        };
        // ORDERING: Relaxed; the word is all there is.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).map(drop).map_err(|full_ns| {
            let full_ns = full_ns.clamp(now_ns, now_ns + SECOND_NS) + interval_ns;
            full_ns - (now_ns + SECOND_NS.max(interval_ns))
        })
    }

    /// Gives back what [`Bucket::take`] took with the same limit.
    fn give_back(&self, limit: u64) {
        let less = |full_ns: u64| Some(full_ns.saturating_sub(SECOND_NS.div_ceil(limit)));
        // It is never refused.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// The buckets of the process.
pub struct RateTable {
    all: Bucket,
    networks: OnceLock<Box<[Bucket]>>,
    hasher: FixedState,
}

impl RateTable {
    /// `seed`: chosen addresses should not meet in one bucket.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { all: Bucket::default(), networks: OnceLock::new(), hasher: FixedState::with_seed(seed) }
    }

    fn bucket(&self, network: Option<IpAddr>) -> &Bucket {
        let make = || std::iter::repeat_with(Bucket::default).take(PLACES).collect();
        // Below 2^18.
        &self.networks.get_or_init(make)[self.hasher.hash_one(network) as usize % PLACES]
    }
}

/// A request that came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// Requests a second.
    pub limit: u64,
    /// The limit is that of an address; otherwise of all together.
    pub is_of_address: bool,
    pub retry_ns: u64,
}

/// What one shard knows of it. Owner: the shard.
#[derive(Debug, Default)]
pub struct RateLimiter {
    rates: Rates,
    /// Of the connection whose requests are being taken.
    network: Option<IpAddr>,
}

impl RateLimiter {
    /// Takes over the limits of now: once a turn.
    pub fn set_rates(&mut self, rates: Rates) {
        self.rates = rates;
    }

    /// Whether there is any limit.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.rates != Rates::default()
    }

    /// Says whose requests [`RateLimiter::take`] counts from now on; peers that nobody knows count as one.
    pub fn attend(&mut self, network: Option<IpAddr>) {
        self.network = network;
    }

    /// Counts one request.
    ///
    /// # Errors
    /// It came too early, and is not counted.
    pub fn take(&self, table: &RateTable, now_ns: u64) -> Result<(), TooMany> {
        let Rates { per_second, per_second_and_address } = self.rates;
        let too_many = |limit, is_of_address| move |retry_ns| TooMany { limit, is_of_address, retry_ns };
        if per_second > 0 {
            table.all.take(per_second, now_ns).map_err(too_many(per_second, false))?;
        }
        if per_second_and_address > 0
            && let Err(retry_ns) = table.bucket(self.network).take(per_second_and_address, now_ns)
        {
            // Who is refused takes nothing from the others.
            if per_second > 0 {
                table.all.give_back(per_second);
            }
            return Err(too_many(per_second_and_address, true)(retry_ns));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
