//! The state thread: follows the open block, and answers its close with a sealed block. Beside it, the thread that makes commits durable, and the
//! one that prepares segments.

use std::sync::Arc;
use std::time::Duration;

use crate::builder::block::{OpenBlock, SealedBlock};
use crate::builder::sealing::Sealer;
use crate::limits;
use crate::messages::StateMessage;
use crate::metrics::Metrics;
use crate::ring::{Consumer, Doorbell, Gate, Producer};
use crate::runtime::clock;
use crate::state::files::disk::Disk;
use crate::state::files::sync::{StateCells, Syncer};
use crate::state::files::verify::Scrub;
use crate::state::{Snapshot, StateError, StateStore};

/// Everything that the state thread owns.
pub struct StateSeat<S> {
    pub store: S,
    /// State of the newest sealed block.
    pub parent: Snapshot,
    pub inbox: Consumer<StateMessage>,
    pub sealed: Producer<SealedBlock>,
    pub doorbell: Arc<Doorbell>,
    /// Of the thread that makes commits durable.
    pub sync_bell: Arc<Doorbell>,
    pub metrics: Arc<Metrics>,
}

/// Runs until a `Stop` arrives.
///
/// # Errors
/// The state cannot be read or written: the process must stop.
pub fn run<S: StateStore<Reader = Snapshot>>(seat: StateSeat<S>) -> Result<(), StateError> {
    let StateSeat { mut store, mut parent, mut inbox, mut sealed, doorbell, sync_bell, metrics } = seat;
    doorbell.adopt_current_thread();
    let mut sealer = Sealer::default();
    let mut open: Option<Arc<OpenBlock>> = None;
    loop {
        match inbox.pop() {
            Some(StateMessage::Open(block)) => {
                sealer.begin();
                open = Some(block);
            }
            Some(StateMessage::Close(closed)) => {
                let start_ns = clock::monotonic_ns();
                let block = sealer.seal(*closed, &parent, &mut store, clock::wall_unix_ns())?;
                metrics.state.seal.record(clock::monotonic_ns() - start_ns);
                parent = block.state.clone();
                open = None;
                // One block is sealed at a time, so the ring is empty.
                assert!(sealed.push(block).is_ok());
                sealed.wake();
                store.reclaim()?;
                sync_bell.ring();
            }
            Some(StateMessage::Stop) => {
                sync_bell.ring();
                return Ok(());
            }
            None => {
                let placed_count = open.as_deref().map_or(0, |block| sealer.follow(block));
                if placed_count == 0 {
                    doorbell.park(Some(Duration::from_nanos(limits::PARK_NS_MAX)), || !inbox.is_empty());
                }
            }
        }
    }
}

/// Everything that the thread owns that makes commits durable.
pub struct SyncSeat {
    pub syncer: Syncer,
    pub doorbell: Arc<Doorbell>,
    /// No slot stands for more than the journal holds.
    pub gate: Arc<Gate>,
}

/// Syncs what the state thread commits, until `is_over`, and once more.
///
/// # Errors
/// A failed write or sync: nobody knows what is on the disk, so the process must stop.
pub fn run_syncer(seat: SyncSeat, is_over: impl Fn() -> bool) -> Result<(), StateError> {
    let SyncSeat { mut syncer, doorbell, gate } = seat;
    doorbell.adopt_current_thread();
    let mut was_over = false;
    loop {
        let has_synced = syncer
            .sync(gate.durable().0)
            .inspect_err(|error| tracing::error!(%error, "the state cannot be made durable"))?;
        if has_synced {
            continue;
        }
        if was_over {
            return Ok(());
        }
        was_over = is_over();
        if !was_over {
            doorbell.park(Some(Duration::from_nanos(limits::PARK_NS_MAX)), || false);
        }
    }
}

/// Everything that the thread owns that cares for the segments.
pub struct CareSeat {
    pub disk: Box<dyn Disk>,
    pub segment_bytes: u64,
    pub cells: Arc<StateCells>,
    pub doorbell: Doorbell,
}

/// Makes a segment of zeros ready when the newest one is half full, so that the state thread need not wait for one, and looks at a few
/// leaves of the newest version at a time, until `is_over`. Where the disk is full there is no segment, and the commit that needs one says so.
///
/// # Errors
/// The disk failed at something else, or what is on it is damaged: nothing must be built upon it.
pub fn run_care(seat: CareSeat, is_over: impl Fn() -> bool) -> Result<(), StateError> {
    let CareSeat { mut disk, segment_bytes, cells, doorbell } = seat;
    doorbell.adopt_current_thread();
    let mut scrub = Scrub::default();
    while !is_over() {
        if let Some(newest) = cells.newest() {
            let is_round_over = scrub.step(&newest, limits::STATE_SCRUB_LEAVES).inspect_err(|error| {
                tracing::error!(%error, "the state is damaged: delete its directory, and the next start makes it again");
            })?;
            if is_round_over {
                tracing::debug!("every node of the state has been looked at");
            }
        }
        // Small states need no second segment for long.
        let is_half_full =
            cells.mark.load().as_ref().is_some_and(|mark| mark.end * 8 % segment_bytes >= segment_bytes / 2);
        match if is_half_full { disk.prepare(segment_bytes) } else { Ok(false) } {
            Ok(_) | Err(StateError::Full { .. }) => {}
            Err(error) => {
                tracing::error!(%error, "a segment of the state cannot be prepared");
                return Err(error);
            }
        }
        doorbell.park(Some(Duration::from_nanos(limits::STATE_CARE_NS)), || false);
    }
    Ok(())
}
