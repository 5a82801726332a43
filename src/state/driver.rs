//! The state thread: follows the open block, and answers its close with a sealed block.

use std::sync::Arc;
use std::time::Duration;

use crate::builder::block::{OpenBlock, SealedBlock};
use crate::builder::sealing::Sealer;
use crate::limits;
use crate::messages::StateMessage;
use crate::ring::{Consumer, Doorbell, Producer};
use crate::runtime::clock;
use crate::state::{Snapshot, StateError, StateStore};

/// Everything that the state thread owns.
pub struct StateSeat<S> {
    pub store: S,
    /// State of the newest sealed block.
    pub parent: Snapshot,
    pub inbox: Consumer<StateMessage>,
    pub sealed: Producer<SealedBlock>,
    pub doorbell: Arc<Doorbell>,
}

/// Runs until a `Stop` arrives.
///
/// # Errors
/// The state cannot be read or written: the process must stop.
pub fn run<S: StateStore<Reader = Snapshot>>(seat: StateSeat<S>) -> Result<(), StateError> {
    let StateSeat { mut store, mut parent, mut inbox, mut sealed, doorbell } = seat;
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
                let block = sealer.seal(*closed, &parent, &mut store, clock::wall_unix_ns())?;
                parent = block.state.clone();
                open = None;
                // One block is sealed at a time, so the ring is empty.
                assert!(sealed.push(block).is_ok());
                sealed.wake();
                store.reclaim()?;
            }
            Some(StateMessage::Stop) => return Ok(()),
            None => {
                let placed_count = open.as_deref().map_or(0, |block| sealer.follow(block));
                if placed_count == 0 {
                    doorbell.park(Some(Duration::from_nanos(limits::PARK_NS_MAX)), || !inbox.is_empty());
                }
            }
        }
    }
}
