//! The chain thread: takes sealed blocks and ended transactions off its ring and appends them.

use std::sync::Arc;
use std::time::Duration;

use super::sealed_record::{Recorder, ended_record};
use super::{ChainError, ChainWriter};
use crate::limits;
use crate::messages::ChainMessage;
use crate::ring::{Consumer, Doorbell};

/// Appends until a `Stop` arrives, then syncs.
///
/// # Errors
/// A failed write: what is sealed can no longer be kept, so the process must stop.
pub fn run(mut writer: ChainWriter, mut inbox: Consumer<ChainMessage>, doorbell: &Arc<Doorbell>) -> Result<(), ChainError> {
    doorbell.adopt_current_thread();
    let mut recorder = Recorder::default();
    loop {
        match inbox.pop() {
            Some(ChainMessage::Sealed(sealed)) => {
                let (record, statuses) = recorder.record(&sealed);
                writer.append(&record)?;
                writer.put_statuses(statuses)?;
            }
            Some(ChainMessage::Ended { hash, accepted_unix_ns, ended_unix_ns, end }) => {
                writer.put_status(&ended_record(hash, accepted_unix_ns, ended_unix_ns, &end))?;
            }
            Some(ChainMessage::Stop) => return writer.sync(),
            None => doorbell.park(Some(Duration::from_nanos(limits::PARK_NS_MAX)), || !inbox.is_empty()),
        }
    }
}
