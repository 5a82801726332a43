//! What the machine and the node's process use while the run goes on: `/proc` → totals before and after, memory each second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::limits::MEMORY_SAMPLES_MAX;
use crate::process::{self, MachineUsage, ProcessUsage};

/// Totals at one moment.
#[derive(Clone, Debug)]
pub struct Totals {
    pub at: Instant,
    pub machine: Option<MachineUsage>,
    pub node: Option<ProcessUsage>,
    pub node_threads_cpu_ns: BTreeMap<String, u64>,
}

impl Totals {
    pub fn read(node_pid: Option<u32>) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            machine: MachineUsage::read(),
            node: node_pid.map(ProcessUsage::read).transpose()?,
            node_threads_cpu_ns: node_pid.map(process::threads_cpu_ns).unwrap_or_default(),
        })
    }
}

/// Reads the node's own memory once a second.
#[derive(Debug)]
pub struct MemorySampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u64>>,
}

impl MemorySampler {
    pub fn start(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (start, mut samples) = (Instant::now(), Vec::new());
            while !stopped.load(Ordering::Relaxed) && samples.len() < MEMORY_SAMPLES_MAX {
                let Some(bytes) = process::own_memory_bytes(pid) else { break };
                samples.push(bytes);
                let next = start + Duration::from_secs(samples.len() as u64);
                while !stopped.load(Ordering::Relaxed) && Instant::now() < next {
                    std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
                }
            }
            samples
        });
        Self { stop, thread }
    }

    /// One sample a second, in bytes.
    pub fn finish(self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().expect("sampling does not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_sampled() {
        let sampler = MemorySampler::start(std::process::id());
        let samples = sampler.finish();
        assert!(samples.len() <= 1 && samples.iter().all(|&bytes| bytes > 0), "{samples:?}");
        let totals = Totals::read(Some(std::process::id())).unwrap();
        assert!(totals.node.is_some() && totals.machine.is_some() && !totals.node_threads_cpu_ns.is_empty());
    }
}
