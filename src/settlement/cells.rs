//! What settlement tells the rest of the process: cells, written by the `l1` thread alone, three by the `settle` thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::primitives::B256;
use crate::ring::Doorbell;
use crate::settlement::status::{Condition, SettlementStatus};

/// ExecuteTx of users that are remembered.
const EXECUTE_TXS_MAX: usize = 1_024;

/// The L1 block that an L2 block stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub number: u64,
    /// Becomes `parent_beacon_block_root`.
    pub hash: B256,
    /// `mixHash` of its header; becomes `prev_randao`.
    pub mix_hash: B256,
}

/// Why nothing more is admitted or built for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// So many blocks are not safe yet (`settlement.unsafe-blocks-max`).
    Blocks { have: u64, max: u64 },
    /// So many bytes wait to be posted (`settlement.backlog-bytes-max`).
    Bytes { have: u64, max: u64 },
    /// Witnesses of blocks that wait have so many bytes (`witness.kept-bytes-max`).
    Witnesses { have: u64, max: u64 },
    /// The witness of this block, which waits, cannot be written.
    Unwritten { block: u64 },
}

/// What the builder core has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettlementView {
    /// Number of the newest block of which all was sent to L1.
    pub posted: u64,
    /// Numbers of the newest safe and of the newest final block.
    pub safe: u64,
    pub finalized: u64,
    /// L1 was derived to its head since the start. Until then no block is opened.
    pub is_met: bool,
    pub is_halted: bool,
    pub hold: Option<Hold>,
    /// Changes with the origin.
    pub origin_version: u64,
}

impl SettlementView {
    /// Without an L1 a sealed block is safe and final.
    pub const OFF: Self = Self {
        posted: u64::MAX,
        safe: u64::MAX,
        finalized: u64::MAX,
        is_met: true,
        is_halted: false,
        hold: None,
        origin_version: 0,
    };
}

impl SettlementView {
    /// Before anything was heard of L1 since the start.
    #[must_use]
    pub fn unheard(safe: u64, finalized: u64) -> Self {
        Self { posted: safe, safe, finalized, is_met: false, ..Self::OFF }
    }
}

/// The cells.
pub struct SettlementCells {
    posted: AtomicU64,
    safe: AtomicU64,
    finalized: AtomicU64,
    is_met: AtomicBool,
    is_halted: AtomicBool,
    /// 0: no hold, 1: blocks, 2: bytes, 3: witnesses, 4: a witness that is not written.
    hold_kind: AtomicU8,
    hold_have: AtomicU64,
    hold_max: AtomicU64,
    /// Of the files of witnesses; written by the `settle` thread.
    kept_bytes: AtomicU64,
    /// The newest block whose witness could not be written, 0 for none; written by the `settle` thread.
    unwritten: AtomicU64,
    /// Why cuts wait for the execution client; written by the `settle` thread.
    client_wait: ArcSwapOption<String>,
    origin: ArcSwapOption<Origin>,
    origin_version: AtomicU64,
    status: ArcSwap<SettlementStatus>,
    /// Hashes of ExecuteTx that users sent to L1 through us, newest last.
    execute_txs: ArcSwap<Vec<B256>>,
    is_on: bool,
    /// Of the `l1` thread: rung when the chain database has a new block, when a job is done, and at a stop.
    pub bell: Arc<Doorbell>,
}

impl SettlementCells {
    /// Cells of a process without an L1.
    #[must_use]
    pub fn off() -> Self {
        Self::new(SettlementView::OFF, false)
    }

    /// Cells of a process that has blocks up to `safe` and `finalized` from before, and has not spoken to L1 yet.
    #[must_use]
    pub fn on(safe: u64, finalized: u64) -> Self {
        Self::new(SettlementView::unheard(safe, finalized), true)
    }

    fn new(view: SettlementView, is_on: bool) -> Self {
        Self {
            posted: AtomicU64::new(view.posted),
            safe: AtomicU64::new(view.safe),
            finalized: AtomicU64::new(view.finalized),
            is_met: AtomicBool::new(view.is_met),
            is_halted: AtomicBool::new(false),
            hold_kind: AtomicU8::new(0),
            hold_have: AtomicU64::new(0),
            hold_max: AtomicU64::new(0),
            kept_bytes: AtomicU64::new(0),
            unwritten: AtomicU64::new(0),
            client_wait: ArcSwapOption::empty(),
            origin: ArcSwapOption::empty(),
            origin_version: AtomicU64::new(0),
            status: ArcSwap::default(),
            execute_txs: ArcSwap::default(),
            is_on,
            bell: Arc::new(Doorbell::for_task()),
        }
    }

    /// Whether blocks settle on an L1.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Everything that the builder core has to know: a few loads. `hold` may be torn between two holds; it is shown, not computed with.
    #[must_use]
    pub fn view(&self) -> SettlementView {
        let (have, max) = (self.hold_have.load(Ordering::Relaxed), self.hold_max.load(Ordering::Relaxed));
        SettlementView {
            posted: self.posted.load(Ordering::Relaxed),
            safe: self.safe.load(Ordering::Relaxed),
            finalized: self.finalized.load(Ordering::Relaxed),
            is_met: self.is_met.load(Ordering::Relaxed),
            is_halted: self.is_halted.load(Ordering::Relaxed),
            hold: match self.hold_kind.load(Ordering::Relaxed) {
                0 => None,
                1 => Some(Hold::Blocks { have, max }),
                2 => Some(Hold::Bytes { have, max }),
                3 => Some(Hold::Witnesses { have, max }),
                _ => Some(Hold::Unwritten { block: have }),
            },
            // ORDERING: Acquire pairs with the Release in `set_origin`: who sees the version sees that origin or a newer one.
            origin_version: self.origin_version.load(Ordering::Acquire),
        }
    }

    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        self.origin.load().as_deref().copied()
    }

    #[must_use]
    pub fn status(&self) -> Arc<SettlementStatus> {
        self.status.load_full()
    }

    #[must_use]
    pub fn condition(&self) -> Condition {
        self.status.load().condition.clone()
    }

    /// Remembers an ExecuteTx that was handed to L1. Runs on: query thread.
    pub fn remember(&self, hash: B256) {
        self.execute_txs.rcu(|known| {
            let kept = known.len().saturating_sub(EXECUTE_TXS_MAX - 1);
            known[kept..].iter().copied().chain([hash]).collect::<Vec<_>>()
        });
    }

    /// Whether this is an ExecuteTx that was handed to L1 here, or that derivation has counted.
    #[must_use]
    pub fn knows(&self, hash: &B256) -> bool {
        self.execute_txs.load().contains(hash) || self.status.load().batches.iter().any(|batch| batch.tx_hash == *hash)
    }

    /// Runs on: `l1` thread, as everything below.
    pub fn show(&self, status: SettlementStatus) {
        self.status.store(Arc::new(status));
    }

    pub fn set_heads(&self, posted: u64, safe: u64, finalized: u64) {
        self.posted.store(posted, Ordering::Relaxed);
        self.safe.store(safe, Ordering::Relaxed);
        self.finalized.store(finalized, Ordering::Relaxed);
    }

    pub fn set_origin(&self, origin: Origin) {
        self.origin.store(Some(Arc::new(origin)));
        // ORDERING: see `view`.
        self.origin_version.fetch_add(1, Ordering::Release);
    }

    pub fn meet(&self) {
        self.is_met.store(true, Ordering::Relaxed);
    }

    pub fn halt(&self) {
        self.is_halted.store(true, Ordering::Relaxed);
    }

    /// Bytes of the witnesses that are in files.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kept_bytes.load(Ordering::Relaxed)
    }

    pub fn set_kept_bytes(&self, bytes: u64) {
        self.kept_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The newest block whose witness could not be written; 0 for none.
    #[must_use]
    pub fn unwritten(&self) -> u64 {
        self.unwritten.load(Ordering::Relaxed)
    }

    pub fn set_unwritten(&self, block: u64) {
        self.unwritten.store(block, Ordering::Relaxed);
    }

    /// Why nothing is cut for now: the execution client has the state, and does not give what is needed of it.
    #[must_use]
    pub fn client_wait(&self) -> Option<Arc<String>> {
        self.client_wait.load_full()
    }

    pub fn set_client_wait(&self, why: Option<String>) {
        self.client_wait.store(why.map(Arc::new));
    }

    pub fn set_hold(&self, hold: Option<Hold>) {
        let (kind, have, max) = match hold {
            None => (0, 0, 0),
            Some(Hold::Blocks { have, max }) => (1, have, max),
            Some(Hold::Bytes { have, max }) => (2, have, max),
            Some(Hold::Witnesses { have, max }) => (3, have, max),
            Some(Hold::Unwritten { block }) => (4, block, 0),
        };
        self.hold_have.store(have, Ordering::Relaxed);
        self.hold_max.store(max, Ordering::Relaxed);
        self.hold_kind.store(kind, Ordering::Relaxed);
    }
}
