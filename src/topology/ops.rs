//! The thread of metrics and health: there before the files are read, so that a long start is seen as one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Cores, LaunchError, Shared, Worker, shard_count, spawn};
use crate::config::Config;
use crate::ops::collect::Known;
use crate::ops::server::{self, OpsSeat};
use crate::rpc::Settings;
use crate::runtime::{clock, listener};

/// The thread while the start may still fail: it ends when this is dropped.
pub(super) struct Ops {
    pub address: SocketAddr,
    shared: Arc<OnceLock<Arc<Shared>>>,
    is_over: Arc<AtomicBool>,
    worker: Option<Worker>,
}

/// Listens and spawns; `None` where there is no such port.
///
/// # Errors
/// A port that is taken, no thread.
pub(super) fn start(config: &Config, rpc: &Settings) -> Result<Option<Ops>, LaunchError> {
    let Some(address) = config.metrics.address else { return Ok(None) };
    let fault = |source| LaunchError::ListenMetrics { address, source };
    let listener = listener::listen(address).map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    let (shared, is_over) = (Arc::default(), Arc::default());
    let seat = OpsSeat {
        listener,
        vhosts: config.http.vhosts.clone(),
        known: Known { version: env!("CARGO_PKG_VERSION"), started_unix_ns: clock::wall_unix_ns(), rpc: rpc.clone() },
        shared: Arc::clone(&shared),
        is_over: Arc::clone(&is_over),
    };
    let worker = spawn("ops", Cores::of(config, shard_count(config)).closing(), move || server::run(seat))?;
    Ok(Some(Ops { address, shared, is_over, worker: Some(worker) }))
}

impl Ops {
    /// The process has its threads: from now on they are shown, and the thread ends when the process closes.
    pub(super) fn attach(mut self, shared: &Arc<Shared>) -> Option<Worker> {
        let was_empty = self.shared.set(Arc::clone(shared)).is_ok();
        debug_assert!(was_empty);
        self.worker.take()
    }
}

impl Drop for Ops {
    fn drop(&mut self) {
        if self.worker.is_some() {
            self.is_over.store(true, Ordering::Relaxed);
        }
    }
}
