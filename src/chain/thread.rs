//! The chain thread: takes sealed blocks and ended transactions off its ring and appends them, each when its journal record is durable.
//! Beside it, a thread that syncs and says how far, so that the journal can reuse its slots.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::sealed_record::{Recorder, ended_record};
use super::{ChainError, ChainSyncer, ChainWriter};
use crate::limits;
use crate::messages::ChainMessage;
use crate::primitives::Sequence;
use crate::ring::{Consumer, Doorbell};
use crate::topology::Shared;

/// Appends until a `Stop` arrives, then syncs. What is not durable in the journal yet waits here, and all behind it.
///
/// # Errors
/// A failed write: what is sealed can no longer be kept, so the process must stop.
pub fn run(
    mut writer: ChainWriter,
    mut inbox: Consumer<ChainMessage>,
    doorbell: &Arc<Doorbell>,
    shared: &Shared,
) -> Result<(), ChainError> {
    doorbell.adopt_current_thread();
    let mut recorder = Recorder::default();
    loop {
        match inbox.pop() {
            Some(ChainMessage::Sealed(sealed)) => {
                wait_until_durable(sealed.sequence, doorbell, shared);
                let (record, statuses) = recorder.record(&sealed);
                writer.append(&record)?;
                writer.put_statuses(statuses)?;
                processed(sealed.sequence, shared);
            }
            Some(ChainMessage::Forget(block)) => drop(block),
            Some(ChainMessage::Ended { hash, accepted_unix_ns, ended_unix_ns, end, gate }) => {
                wait_until_durable(gate, doorbell, shared);
                writer.put_status(&ended_record(hash, accepted_unix_ns, ended_unix_ns, &end))?;
                processed(gate, shared);
            }
            // All before it was durable when it was appended.
            Some(ChainMessage::Stop) => {
                writer.sync()?;
                say_synced(shared.chain_processed.load(Ordering::Relaxed), shared);
                return Ok(());
            }
            None => doorbell.park(Some(Duration::from_nanos(limits::PARK_NS_MAX)), || !inbox.is_empty()),
        }
    }
}

/// Sleeps until the journal has `sequence` on the disk. When it never will, the journal's thread has ended, and with it the process ends.
fn wait_until_durable(sequence: Sequence, doorbell: &Doorbell, shared: &Shared) {
    let gate = &shared.gate;
    if gate.durable() >= sequence {
        return;
    }
    gate.want(shared.chain_waiter(), Some(sequence));
    while gate.durable() < sequence {
        doorbell.park(Some(Duration::from_nanos(limits::PARK_NS_MAX)), || gate.durable() >= sequence);
    }
    gate.want(shared.chain_waiter(), None);
}

fn processed(sequence: Sequence, shared: &Shared) {
    // ORDERING: Release, after the files were written; pairs with the Acquire of the thread that syncs them.
    shared.chain_processed.store(sequence.0, Ordering::Release);
}

/// Syncs what was appended, blocks and ends, every `limits::CHAIN_SYNC_NS`, so that the journal's slots are free again; ends with the
/// process.
///
/// # Errors
/// A failed sync: nobody knows what of the files is on the disk, so the process must stop.
pub fn run_syncer(syncer: &ChainSyncer, shared: &Shared) -> Result<(), ChainError> {
    let mut synced = 0;
    let mut waited_ns = 0;
    while !shared.is_closed() {
        std::thread::sleep(Duration::from_nanos(limits::PARK_NS_MAX));
        waited_ns += limits::PARK_NS_MAX;
        if waited_ns >= limits::CHAIN_SYNC_NS && sync_new(syncer, &mut synced, shared)? {
            waited_ns = 0;
        }
    }
    Ok(())
}

/// Syncs when something was appended since `synced`.
fn sync_new(syncer: &ChainSyncer, synced: &mut u64, shared: &Shared) -> Result<bool, ChainError> {
    // ORDERING: Acquire, before the sync: all that the chain thread wrote up to the sequence is in the files. Pairs with `processed`.
    let processed = shared.chain_processed.load(Ordering::Acquire);
    if processed == *synced {
        return Ok(false);
    }
    syncer.sync()?;
    *synced = processed;
    say_synced(processed, shared);
    Ok(true)
}

/// Two threads say it at a stop, so the larger one counts.
fn say_synced(sequence: u64, shared: &Shared) {
    // ORDERING: Release, after the sync; pairs with the Acquire of the journal thread, which then reuses slots.
    shared.journal.chain_synced.fetch_max(sequence, Ordering::Release);
}
