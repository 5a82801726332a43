//! The chain thread: takes sealed blocks and ended transactions off its ring and appends them. Beside it, a thread that syncs.

use std::sync::Arc;
use std::time::Duration;

use super::sealed_record::{Recorder, ended_record};
use super::{ChainError, ChainReader, ChainSyncer, ChainWriter};
use crate::limits;
use crate::messages::ChainMessage;
use crate::ring::{Consumer, Doorbell};
use crate::topology::Shared;

/// Appends until a `Stop` arrives, then syncs.
///
/// # Errors
/// A failed write: what is sealed can no longer be kept, so the process must stop.
pub fn run(
    mut writer: ChainWriter,
    mut inbox: Consumer<ChainMessage>,
    doorbell: &Arc<Doorbell>,
) -> Result<(), ChainError> {
    doorbell.adopt_current_thread();
    let mut recorder = Recorder::default();
    loop {
        match inbox.pop() {
            Some(ChainMessage::Sealed(sealed)) => {
                let (record, statuses) = recorder.record(&sealed);
                writer.append(&record)?;
                writer.put_statuses(statuses)?;
            }
            Some(ChainMessage::Forget(block)) => drop(block),
            Some(ChainMessage::Ended { hash, accepted_unix_ns, ended_unix_ns, end }) => {
                writer.put_status(&ended_record(hash, accepted_unix_ns, ended_unix_ns, &end))?;
            }
            Some(ChainMessage::Stop) => return writer.sync(),
            None => doorbell.park(Some(Duration::from_nanos(limits::PARK_NS_MAX)), || !inbox.is_empty()),
        }
    }
}

/// Syncs what was appended every `limits::CHAIN_SYNC_NS`, so that a power cut costs at most that much; ends with the process.
///
/// # Errors
/// A failed sync: nobody knows what of the files is on the disk, so the process must stop.
pub fn run_syncer(syncer: &ChainSyncer, reader: &ChainReader, shared: &Shared) -> Result<(), ChainError> {
    let mut synced = reader.latest_number();
    let mut waited_ns = 0;
    while !shared.is_closed() {
        std::thread::sleep(Duration::from_nanos(limits::PARK_NS_MAX));
        waited_ns += limits::PARK_NS_MAX;
        if waited_ns >= limits::CHAIN_SYNC_NS && reader.latest_number() != synced {
            synced = reader.latest_number();
            syncer.sync()?;
            waited_ns = 0;
        }
    }
    Ok(())
}
