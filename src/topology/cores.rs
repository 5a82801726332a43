//! Which thread runs on which core.

use crate::config::Config;
use crate::limits;
use crate::primitives::ShardSet;

/// Where and how a thread runs.
#[derive(Clone, Default)]
pub struct Placement {
    /// Cores it may use; empty: all of the process.
    pub cores: Vec<usize>,
    /// How much it yields to the process's other threads, as nice values say it; 0: not at all.
    pub nice: i32,
    /// How long it wants to run at a time, in ns; 0: as long as the kernel lets it. The less, the sooner it runs when it has something to do.
    pub slice_ns: u64,
}

impl Placement {
    /// Of a thread whose work is due in microseconds and takes no longer, on these cores.
    pub fn prompt(cores: Vec<usize>) -> Self {
        Self { cores, nice: 0, slice_ns: limits::PROMPT_SLICE_NS }
    }
}

/// Of what closes blocks, where it shares cores with admission and execution: these are due in microseconds, a close in milliseconds.
pub const NICE_CLOSING: i32 = 10;
/// Of what nobody waits for.
const NICE_BACKGROUND: i32 = 15;

/// Cores that the process may use.
pub fn processor_count() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Ingress shards of this configuration on this machine. Sets of shards have room for as many, and for who forwards the client's pool.
#[must_use]
pub fn shard_count(config: &Config) -> usize {
    let wanted = if config.http.shards > 0 { config.http.shards } else { processor_count().saturating_sub(2).max(1) };
    wanted.min(ShardSet::SHARDS_MAX - 1)
}

/// The cores that builder and shards of this configuration are pinned to; empty: they are not pinned.
#[must_use]
pub fn pinned_cores(config: &Config) -> Vec<usize> {
    let cores = Cores::of(config, shard_count(config));
    cores.builder.into_iter().chain(cores.shards.into_iter().flatten()).collect()
}

/// Which pinned thread gets which core: the builder the first, shards the following ones.
pub struct Cores {
    pub builder: Vec<usize>,
    pub shards: Vec<Option<usize>>,
    /// For every other thread, so that they leave the pinned ones alone.
    others: Vec<usize>,
}

impl Cores {
    pub fn of(config: &Config, shard_count: usize) -> Self {
        let allowed = crate::runtime::affinity::allowed_cores();
        // One core stays for state, chain, query and log threads.
        let has_room = allowed.len() > shard_count + 1;
        if !config.pin.unwrap_or(has_room) || allowed.is_empty() {
            return Self { builder: Vec::new(), shards: vec![None; shard_count], others: Vec::new() };
        }
        let core = |index: usize| allowed[index % allowed.len()];
        let others = if has_room { allowed[shard_count + 1..].to_vec() } else { Vec::new() };
        Self { builder: vec![core(0)], shards: (1..=shard_count).map(|index| Some(core(index))).collect(), others }
    }

    /// Of a thread that others wait for.
    pub fn unpinned(&self) -> Placement {
        Placement { cores: self.others.clone(), ..Placement::default() }
    }

    /// Of a thread that is not pinned and that every reply waits for.
    pub fn prompt(&self) -> Placement {
        Placement::prompt(self.others.clone())
    }

    /// Of the threads that close a block while its successor's transactions are admitted.
    pub fn closing(&self) -> Placement {
        Placement { cores: self.others.clone(), nice: NICE_CLOSING, ..Placement::default() }
    }

    /// Of a thread that nobody waits for.
    pub fn background(&self) -> Placement {
        Placement { cores: self.others.clone(), nice: NICE_BACKGROUND, ..Placement::default() }
    }
}
