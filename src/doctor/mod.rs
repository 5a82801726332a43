//! What the host must be like: a snapshot of it in, findings out, each with what was seen and the command that changes it.
//!
//! ```text
//!  /proc, /sys, a few system calls ─► snapshot ─► judge ─► findings ─► `sequencer doctor`
//!                                                    └──► requirements ─► every start
//! ```
//!
//! [`snapshot`] reads and judges nothing, [`judge`] judges and reads nothing. Deliberately absent: changing anything; `tuning/` does that.

pub mod cpu_list;

pub mod snapshot;

pub mod reader;

pub mod judge;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// It runs, slower or less safely than it could.
    Warn,
    /// It does not run, or loses what it must not lose.
    Fail,
}

/// One check's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub level: Level,
    /// What the host is like.
    pub seen: String,
    /// What to change and why; `None`: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<&'static str>,
    /// The command, or the line of a file, that changes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, seen: seen.into(), change: None, command: None }
    }

    fn bad(
        check: &'static str,
        level: Level,
        seen: impl Into<String>,
        change: &'static str,
        command: impl Into<String>,
    ) -> Self {
        Self { check, level, seen: seen.into(), change: Some(change), command: Some(command.into()) }
    }
}

/// The worst of some findings.
#[must_use]
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

/// What this process needs of its host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// `http.connections-max`.
    pub connections_max: u64,
    /// Ingress threads: each has an io_uring.
    pub ring_count: u64,
    /// Cores that threads are pinned to; empty: none is.
    pub pinned_cores: Vec<usize>,
    /// Bytes that the directories may need soon: journal, state and their growth until somebody looks.
    pub free_bytes_min: u64,
    /// Memory that is reserved or filled at full load.
    pub memory_bytes: u64,
}
