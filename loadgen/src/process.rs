//! What the node's process costs: `/proc/PID` → CPU time and context switches.

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
    fn this_process_has_usage() {
        let before = ProcessUsage::read(std::process::id()).unwrap();
        let after = ProcessUsage::read(std::process::id()).unwrap();
        assert!(after.cpu_ns >= before.cpu_ns);
        assert_eq!(after.since(&before).involuntary_switches, after.involuntary_switches - before.involuntary_switches);
    }
}
