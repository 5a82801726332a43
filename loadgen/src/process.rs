//! What the node's process costs: `/proc/PID` → CPU time and context switches.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Totals of a process since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessUsage {
    pub cpu_ns: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
}

impl ProcessUsage {
    /// Reads the totals. Switches of threads that have ended are not in them.
    pub fn read(pid: u32) -> Result<Self> {
        let file = |path: String| fs::read_to_string(&path).map_err(|e| Error::File { path, reason: e.to_string() });
        let malformed = || Error::File { path: format!("/proc/{pid}/stat"), reason: "an unknown form".into() };
        let ticks = parse_stat_ticks(&file(format!("/proc/{pid}/stat"))?).ok_or_else(malformed)?;
        let mut usage =
            Self { cpu_ns: ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second()), ..Self::default() };
        let tasks = format!("/proc/{pid}/task");
        let entries = fs::read_dir(&tasks).map_err(|e| Error::File { path: tasks, reason: e.to_string() })?;
        for entry in entries.flatten() {
            // A thread may end between the listing and the reading: then it counts as nothing.
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let (voluntary, involuntary) = parse_switches(&status);
            usage.voluntary_switches += voluntary;
            usage.involuntary_switches += involuntary;
        }
        Ok(usage)
    }

    pub const fn since(&self, before: &Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            voluntary_switches: self.voluntary_switches.saturating_sub(before.voluntary_switches),
            involuntary_switches: self.involuntary_switches.saturating_sub(before.involuntary_switches),
        }
    }
}

/// User plus system ticks: fields 14 and 15 of proc_pid_stat(5). The second field, a name, may hold blanks.
fn parse_stat_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn parse_switches(status: &str) -> (u64, u64) {
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    };
    (value("voluntary_ctxt_switches:"), value("nonvoluntary_ctxt_switches:"))
}

/// CPU time of the threads of a process by name, in nanoseconds: the first field of schedstat, because ticks are too coarse.
/// Threads that have ended are not in it.
pub fn threads_cpu_ns(pid: u32) -> BTreeMap<String, u64> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let file = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
        let cpu_ns = file("schedstat").and_then(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok());
        if let (Some(name), Some(cpu_ns)) = (file("comm"), cpu_ns) {
            // Several threads of one name are told apart by their id.
            let id = entry.file_name().to_string_lossy().into_owned();
            threads.insert(format!("{} [{id}]", name.trim()), cpu_ns);
        }
    }
    threads
}

/// `RssAnon` + `RssShmem` of a process: memory that is its own, without mapped files.
pub fn own_memory_bytes(pid: u32) -> Option<u64> {
    parse_own_memory(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_own_memory(status: &str) -> Option<u64> {
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some((kib("RssAnon:")? + kib("RssShmem:")?) * 1024)
}

/// What the processors of this machine did since it started, in nanoseconds summed over the cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineUsage {
    pub busy_ns: u64,
    /// Taken by the hypervisor for somebody else.
    pub stolen_ns: u64,
}

impl MachineUsage {
    pub fn read() -> Option<Self> {
        parse_machine(&fs::read_to_string("/proc/stat").ok()?)
    }
}

/// The first line of proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
fn parse_machine(stat: &str) -> Option<MachineUsage> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _wait, irq, softirq, steal, ..] = ticks[..] else { return None };
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    Some(MachineUsage { busy_ns: (user + nice + system + irq + softirq) * tick_ns, stolen_ns: steal * tick_ns })
}

/// Processor name and number of cores of this machine, for the report.
pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).and_then(|line| line.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores", model.map_or("unknown processor", |(_, name)| name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_strange_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194304 10 0 0 0 123 45 0 0 20 0 8 0 100 1000 10";
        assert_eq!(parse_stat_ticks(stat), Some(168));
        assert_eq!(parse_stat_ticks("42 (a"), None);
    }

    #[test]
    fn switches() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(parse_switches(status), (12, 3));
        assert_eq!(parse_switches(""), (0, 0));
    }

    #[test]
    fn memory_is_what_is_not_mapped_from_files() {
        let status = "VmRSS:\t  900 kB\nRssAnon:\t     100 kB\nRssFile:\t     700 kB\nRssShmem:\t      20 kB\n";
        assert_eq!(parse_own_memory(status), Some(120 * 1024));
        assert_eq!(parse_own_memory("VmRSS: 1 kB"), None);
        assert!(own_memory_bytes(std::process::id()).unwrap() > 0);
    }

    #[test]
    fn processors() {
        let usage = parse_machine("cpu  1 2 3 400 5 6 7 8 9 10\ncpu0 1\n").unwrap();
        assert_eq!(usage.busy_ns / 19, usage.stolen_ns / 8);
        assert_eq!(parse_machine("cpu 1 2"), None);
        assert!(MachineUsage::read().unwrap().busy_ns > 0);
        assert!(threads_cpu_ns(std::process::id()).values().sum::<u64>() > 0);
    }

    #[test]
    fn this_process_has_usage() {
        let before = ProcessUsage::read(std::process::id()).unwrap();
        let after = ProcessUsage::read(std::process::id()).unwrap();
        assert!(after.cpu_ns >= before.cpu_ns);
        assert_eq!(after.since(&before).involuntary_switches, after.involuntary_switches - before.involuntary_switches);
    }
}
