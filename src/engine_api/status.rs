//! What the rest of the process sees of the execution client: cells, written by the control thread; one by the forwarder, one by the builder core.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::engine_api::forwarding::ForwardingStatus;
use crate::engine_api::types::SyncProgress;
use crate::ring::Doorbell;

/// How the execution client stands to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// There is none (`embedded`).
    Absent,
    /// Not spoken to yet.
    Connecting,
    /// Its head is our newest block, or on the way there.
    Ready,
    /// It answers SYNCING, its head does not move, or it builds no block (`delegated`).
    Stalled,
    /// It does not answer, or not with what the specification says.
    Unreachable,
    /// Only a new database helps: `docs/L2_NODE_INTEGRATION.md`.
    Stuck,
    /// It said INVALID, or has a chain of its own: reads only.
    Halted,
}

impl Condition {
    /// The word that `sequencer_executionStatus` uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "embedded",
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Stalled => "stalled",
            Self::Unreachable => "unreachable",
            Self::Stuck => "stuck",
            Self::Halted => "halted",
        }
    }
}

/// One moment of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionStatus {
    pub condition: Condition,
    /// What is wrong; empty when nothing is.
    pub why: String,
    /// Number of the execution client's head, as last read.
    pub head_number: u64,
    /// Newest block that it called VALID.
    pub valid_number: u64,
    /// How often its head had to be set by `debug_setHead`.
    pub rewind_count: u64,
    /// How often `execution.reset-command` was run.
    pub reset_count: u64,
    /// How often the connection was made.
    pub connect_count: u64,
    /// It fetches blocks from peers of its own, which a client of ours has no reason to do; `None`: it does not, or was not asked yet.
    pub sync: Option<SyncProgress>,
}

impl ExecutionStatus {
    #[must_use]
    pub fn new(condition: Condition) -> Self {
        Self {
            condition,
            why: String::new(),
            head_number: 0,
            valid_number: 0,
            rewind_count: 0,
            reset_count: 0,
            connect_count: 0,
            sync: None,
        }
    }
}

/// What the builder core has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientVerdict {
    /// Number of the newest block that may be `latest`.
    pub checked: u64,
    pub is_met: bool,
    pub is_halted: bool,
}

/// The cells.
pub struct ExecutionCells {
    checked: AtomicU64,
    is_met: AtomicBool,
    is_halted: AtomicBool,
    halted_for: OnceLock<String>,
    status: ArcSwap<ExecutionStatus>,
    /// Written by the forwarder.
    forwarding: ArcSwap<ForwardingStatus>,
    /// Why the client has not built what it was asked for last (`delegated`); written by the builder core.
    build_trouble: ArcSwapOption<String>,
    /// Of the control thread: rung when the chain database has a new block, and at a stop.
    pub bell: Arc<Doorbell>,
}

impl ExecutionCells {
    /// Cells of a process without an execution client: every sealed block counts.
    #[must_use]
    pub fn embedded() -> Self {
        Self::new(u64::MAX, Condition::Absent)
    }

    /// Cells of a process whose blocks up to `checked` were shown as `latest` before.
    #[must_use]
    pub fn verified(checked: u64) -> Self {
        Self::new(checked, Condition::Connecting)
    }

    fn new(checked: u64, condition: Condition) -> Self {
        Self {
            checked: AtomicU64::new(checked),
            is_met: AtomicBool::new(condition == Condition::Absent),
            is_halted: AtomicBool::new(false),
            halted_for: OnceLock::new(),
            status: ArcSwap::from_pointee(ExecutionStatus::new(condition)),
            forwarding: ArcSwap::from_pointee(ForwardingStatus::default()),
            build_trouble: ArcSwapOption::empty(),
            bell: Arc::new(Doorbell::for_task()),
        }
    }

    /// Number of the newest block that may be `latest`.
    #[must_use]
    pub fn checked(&self) -> u64 {
        // ORDERING: Acquire pairs with the Release in `set_checked`: the verdict came before.
        self.checked.load(Ordering::Acquire)
    }

    /// Everything that the builder core has to know: three loads.
    #[must_use]
    pub fn verdict(&self) -> ClientVerdict {
        ClientVerdict { checked: self.checked(), is_met: self.is_met(), is_halted: self.is_halted() }
    }

    /// Runs on: control thread. Never goes back.
    pub fn set_checked(&self, number: u64) {
        // ORDERING: see `checked`.
        self.checked.fetch_max(number, Ordering::Release);
    }

    /// Whether the client's head was read since the start and is one of our blocks. Before that no block is opened: the client may have
    /// blocks that our journal does not have, and we never build beside them.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.is_met.load(Ordering::Relaxed)
    }

    pub fn meet(&self) {
        self.is_met.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is built or admitted any more.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.is_halted.load(Ordering::Relaxed)
    }

    pub fn halt(&self) {
        self.is_halted.store(true, Ordering::Relaxed);
    }

    /// As [`ExecutionCells::halt`], for a reason that the control thread does not know. The first one stays.
    pub fn halt_for(&self, why: String) {
        let _ = self.halted_for.set(why);
        self.halt();
    }

    #[must_use]
    pub fn status(&self) -> Arc<ExecutionStatus> {
        let status = self.status.load_full();
        let other = |condition, why| Arc::new(ExecutionStatus { condition, why, ..ExecutionStatus::clone(&status) });
        if let Some(why) = self.halted_for.get() {
            return other(Condition::Halted, why.clone());
        }
        match self.build_trouble.load_full() {
            Some(why) if status.condition == Condition::Ready => {
                other(Condition::Stalled, format!("it builds no block: {why}"))
            }
            _ => status,
        }
    }

    /// Whether the client fetches blocks from peers of its own.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        self.status.load().sync.is_some()
    }

    #[must_use]
    pub fn condition(&self) -> Condition {
        if self.halted_for.get().is_some() {
            return Condition::Halted;
        }
        match self.status.load().condition {
            Condition::Ready if self.build_trouble.load().is_some() => Condition::Stalled,
            condition => condition,
        }
    }

    /// Runs on: builder core. Writes only what is new.
    pub fn set_build_trouble(&self, why: Option<&str>) {
        let known = self.build_trouble.load();
        if known.as_ref().map(|why| why.as_str()) != why {
            self.build_trouble.store(why.map(|why| Arc::new(why.to_owned())));
        }
    }

    pub fn set_status(&self, status: ExecutionStatus) {
        self.status.store(Arc::new(status));
    }

    /// What is pulled from the client's pool.
    #[must_use]
    pub fn forwarding(&self) -> Arc<ForwardingStatus> {
        self.forwarding.load_full()
    }

    pub fn set_forwarding(&self, status: ForwardingStatus) {
        self.forwarding.store(Arc::new(status));
    }
}
