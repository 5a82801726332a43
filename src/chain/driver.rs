//! The index worker thread: seals full index tables and merges segments, off the chain thread's path.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::error::ChainError;
use super::index_table::IndexTable;
use super::reader::Shared;

/// Full tables that may wait for the worker. On full: `Stall`, the chain thread waits; its own ring then holds the builder back.
const SEAL_JOBS_MAX: usize = 2;

/// A table to write out, and the range of `headers` it covers.
pub(super) struct SealJob {
    pub table: Arc<IndexTable>,
    pub start: u64,
    pub end: u64,
}

/// The chain thread's handle of the worker; joins it at drop.
pub(super) struct IndexWorker {
    jobs: Option<SyncSender<SealJob>>,
    thread: Option<JoinHandle<()>>,
    state: Arc<WorkerState>,
}

struct WorkerState {
    stop: AtomicBool,
    failed: AtomicBool,
    error: Mutex<Option<ChainError>>,
}

impl IndexWorker {
    pub(super) fn spawn(shared: Arc<Shared>) -> Result<IndexWorker, ChainError> {
        let (jobs, queue) = sync_channel(SEAL_JOBS_MAX);
        let state = Arc::new(WorkerState {
            stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            error: Mutex::new(None),
        });
        let worker_state = state.clone();
        let dir = shared.dir.clone();
        let thread = std::thread::Builder::new()
            .name("chain-index".into())
            .spawn(move || run(&shared, &queue, &worker_state))
            .map_err(|error| ChainError::io("start index worker for", &dir, &error))?;
        Ok(IndexWorker { jobs: Some(jobs), thread: Some(thread), state })
    }

    /// Queues a full table. Answers the error that ended the worker, if it has ended.
    pub(super) fn seal(&self, job: SealJob) -> Result<(), ChainError> {
        self.check()?;
        let jobs = self.jobs.as_ref().expect("taken only at drop");
        if jobs.send(job).is_err() {
            self.check()?;
        }
        Ok(())
    }

    /// The error that ended the worker, if it has ended.
    pub(super) fn check(&self) -> Result<(), ChainError> {
        // ORDERING: Acquire, pairs with the Release in `run`.
        if !self.state.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let error = self.state.error.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        error.clone().map_or(Ok(()), Err)
    }
}

impl Drop for IndexWorker {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the worker has been printed by then, and at drop there is nobody to tell.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, queue: &Receiver<SealJob>, state: &WorkerState) {
    if let Err(error) = merge_all(shared, state) {
        return fail(state, error);
    }
    for job in queue {
        // What is still unsealed at stop is indexed again at the next open.
        if state.stop.load(Ordering::Relaxed) {
            return;
        }
        if let Err(error) = work(shared, &job, state) {
            return fail(state, error);
        }
    }
}

fn work(shared: &Shared, job: &SealJob, state: &WorkerState) -> Result<(), ChainError> {
    // A segment must never name blocks that a power cut can take back.
    shared.sync()?;
    shared.index.prepare_spare();
    shared.index.seal(&job.table, job.start, job.end)?;
    merge_all(shared, state)
}

fn merge_all(shared: &Shared, state: &WorkerState) -> Result<(), ChainError> {
    loop {
        if state.stop.load(Ordering::Relaxed) || !shared.index.merge_once(&state.stop)? {
            return Ok(());
        }
    }
}

fn fail(state: &WorkerState, error: ChainError) {
    *state.error.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
    // ORDERING: Release publishes the error; pairs with the Acquire in `check`.
    state.failed.store(true, Ordering::Release);
}
