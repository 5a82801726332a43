//! The chain thread: takes sealed blocks and ended transactions off its ring and appends them, each when its journal record is durable.
//! It also takes the memory that the builder core's next blocks will fill. Beside it, a thread that syncs and says how far, so that the journal can reuse its slots.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::sealed_record::{Recorder, ended_record};
use super::{ChainError, ChainSyncer, ChainWriter};
use crate::builder::block::SealedBlock;
use crate::limits;
use crate::messages::ChainMessage;
use crate::metrics::ChainMeter;
use crate::metrics::block_times::Accepted;
use crate::primitives::Sequence;
use crate::ring::{Consumer, Doorbell};
use crate::runtime::clock;
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
    // Memory like that of this block is prepared when nothing else waits: by then the block that left for it has given its own back.
    let mut newest: Option<Arc<SealedBlock>> = None;
    loop {
        match inbox.pop() {
            Some(ChainMessage::Sealed(sealed)) => {
                wait_until_durable(sealed.sequence, doorbell, shared);
                let start_ns = clock::monotonic_ns();
                let (record, statuses) = recorder.record(&sealed);
                writer.append(&record)?;
                writer.put_statuses(statuses)?;
                shared.metrics.chain.append.record(clock::monotonic_ns() - start_ns);
                measure(&sealed, clock::wall_unix_ns(), &shared.metrics.chain);
                processed(sealed.sequence, shared);
                shared.execution.bell.ring();
                shared.settlement.bell.ring();
                newest = Some(sealed);
            }
            Some(ChainMessage::Forget(block)) => drop(block),
            Some(ChainMessage::Ended { hash, accepted_unix_ns, ended_unix_ns, end, gate }) => {
                wait_until_durable(gate, doorbell, shared);
                writer.put_status(&ended_record(hash, accepted_unix_ns, ended_unix_ns, &end))?;
                processed(gate, shared);
            }
            Some(ChainMessage::Settled { tier, first, last, unix_ns }) => {
                writer.put_settled(tier, first, last, unix_ns / 1_000_000)?;
            }
            // All before it was durable when it was appended.
            Some(ChainMessage::Stop) => {
                writer.sync()?;
                say_synced(shared.chain_processed.load(Ordering::Relaxed), shared);
                return Ok(());
            }
            None => match newest.take() {
                Some(sealed) => shared.block_memory.prepare_like(&sealed.block, limits::BLOCK_MEMORY_BLOCKS),
                None => doorbell.park(Some(Duration::from_nanos(limits::PARK_NS_MAX)), || !inbox.is_empty()),
            },
        }
    }
}

/// Counts what a block's transactions have waited for, by the clock that says when they were accepted. Its record is durable: `latest` shows it.
fn measure(sealed: &SealedBlock, now_unix_ns: u64, meter: &ChainMeter) {
    let mut accepted_ns_sum: u128 = 0;
    let mut count = 0;
    for tx in sealed.block.transactions.iter() {
        meter.preconfirmed.record(tx.preconfirmed_unix_ns.saturating_sub(tx.accepted_unix_ns));
        meter.sealed.record(now_unix_ns.saturating_sub(tx.accepted_unix_ns));
        accepted_ns_sum += u128::from(tx.accepted_unix_ns);
        count += 1;
    }
    meter.transactions.add(count);
    meter.gas.add(sealed.header.gas_used);
    if count > 0 {
        // A mean of 64-bit numbers.
        let unix_ns = (accepted_ns_sum / u128::from(count)) as u64;
        meter.block_times.put(sealed.header.number, Accepted { tx_count: count, unix_ns });
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::builder::block::Heads;
    use crate::builder::replay::genesis_block;
    use crate::chain::ChainLimits;
    use crate::chain::test_dir::TestDir;
    use crate::config::genesis::dev_genesis;
    use crate::mempool::EndState;
    use crate::primitives::{B256, Fork};
    use crate::ring::ring;

    #[track_caller]
    fn until(condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(20), "did not happen");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn blocks_and_ends_are_appended_when_they_are_durable_and_the_journal_hears_of_the_sync() {
        let dir = TestDir::new("chain-gate");
        let (writer, reader) = ChainWriter::open(dir.path(), ChainLimits::default()).unwrap();
        let syncer = writer.syncer();
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        let mut genesis =
            genesis_block(&dev_genesis(Fork::Osaka, 1).unwrap(), &mut crate::testing::state_disk::store(pool)).unwrap();
        genesis.sequence = Sequence(3);
        let genesis = Arc::new(genesis);
        let (bell, builder_bell) = (Arc::new(Doorbell::for_thread()), Arc::new(Doorbell::for_thread()));
        let heads = Arc::new(Heads::new([Arc::clone(&genesis)].into(), None));
        let shared = Arc::new(Shared::new(heads, Vec::new(), Arc::clone(&bell), builder_bell, Sequence(2)));
        let (mut to_chain, inbox) = ring(8, &bell);
        let hash = B256::repeat_byte(9);
        let end = EndState::Replaced { by: B256::repeat_byte(8) };
        let ended = ChainMessage::Ended { hash, accepted_unix_ns: 1, ended_unix_ns: 2, end, gate: Sequence(5) };
        for message in [ChainMessage::Sealed(genesis), ended, ChainMessage::Stop] {
            assert!(to_chain.push(message).is_ok());
        }
        let thread = std::thread::spawn({
            let (bell, shared) = (Arc::clone(&bell), Arc::clone(&shared));
            move || run(writer, inbox, &bell, &shared)
        });
        let processed = || shared.chain_processed.load(Ordering::Acquire);
        let chain_synced = || shared.journal.chain_synced.load(Ordering::Acquire);
        let mut synced = 0;
        std::thread::sleep(Duration::from_millis(120));
        assert_eq!((reader.latest_number(), processed()), (None, 0));
        assert!(!sync_new(&syncer, &mut synced, &shared).unwrap());
        shared.gate.advance(Sequence(4));
        until(|| processed() == 3);
        assert_eq!((reader.latest_number(), chain_synced()), (Some(0), 0));
        assert!(sync_new(&syncer, &mut synced, &shared).unwrap());
        std::thread::sleep(Duration::from_millis(120));
        assert_eq!((chain_synced(), processed(), reader.status(&hash).unwrap()), (3, 3, None));
        shared.gate.advance(Sequence(5));
        thread.join().unwrap().unwrap();
        assert!(reader.status(&hash).unwrap().is_some());
        // At the stop, the thread syncs itself.
        assert_eq!(chain_synced(), 5);
        assert!(sync_new(&syncer, &mut synced, &shared).unwrap());
        assert!(!sync_new(&syncer, &mut synced, &shared).unwrap());
    }
}
