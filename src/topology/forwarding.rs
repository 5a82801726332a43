//! The threads that speak to the execution client in every mode that has one: control, and the forwarder with the wires of one more shard.

use std::sync::Arc;

use super::control::Verification;
use super::startup::Opened;
use super::{Cores, LaunchError, Shared, Worker, spawn, wire_shard};
use crate::builder::driver::ShardRings;
use crate::chain::ChainReader;
use crate::config::Config;
use crate::config::execution::ExecutionMode;
use crate::config::genesis::ChainSpec;
use crate::engine_api::blocking::BlockingSettings;
use crate::engine_api::forwarding::ForwardingSettings;
use crate::ingress::forwarder::{self, ForwarderSeat};
use crate::primitives::ShardId;
use crate::ring::Doorbell;
use crate::runtime::slab::SlabReader;
use crate::topology::RingEnds;

/// Its ends, before its seat is complete.
pub(super) struct Forwarding {
    id: ShardId,
    chain_id: u64,
    ends: RingEnds,
    pub doorbell: Arc<Doorbell>,
    settings: ForwardingSettings,
}

impl Forwarding {
    /// Wires it up behind the shards that are there; `None` where there is no pool to pull from.
    ///
    /// # Errors
    /// Memory that cannot be reserved.
    pub fn wire(
        config: &Config,
        chain_id: u64,
        shards: &mut Vec<ShardRings>,
        slabs: &mut Vec<SlabReader>,
        builder_bell: &Arc<Doorbell>,
    ) -> Result<Option<Self>, LaunchError> {
        let execution = &config.execution;
        if execution.mode == ExecutionMode::Embedded || execution.pool_poll_ns == 0 {
            return Ok(None);
        }
        let settings = ForwardingSettings {
            poll_ns: execution.pool_poll_ns,
            backoff_ns: execution.backoff_ns,
            backoff_ns_max: execution.backoff_ns_max,
        };
        // `http.shards` leaves it a number.
        let id = ShardId(shards.len() as u16);
        let doorbell = Arc::new(Doorbell::for_thread());
        let (ends, rings) = wire_shard(config, id, &doorbell, builder_bell)?;
        slabs.push(ends.slab.reader());
        shards.push(rings);
        Ok(Some(Self { id, chain_id, ends, doorbell, settings }))
    }

    /// Spawns its thread.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn spawn(
        self,
        client: BlockingSettings,
        chain: &ChainReader,
        shared: &Arc<Shared>,
        cores: &Cores,
    ) -> Result<Worker, LaunchError> {
        let Self { id, chain_id, ends, doorbell, settings } = self;
        let RingEnds { slab, to_builder, from_builder, freed, chunks_max } = ends;
        let seat = ForwarderSeat {
            id,
            chain_id,
            slab,
            to_builder,
            from_builder,
            freed,
            chunks_max,
            doorbell,
            shared: Arc::clone(shared),
            chain: chain.clone(),
            client,
            settings,
        };
        spawn("forwarder", cores.background(), move || forwarder::run(seat))
    }
}

/// Spawns the threads that speak to the execution client, where there is one.
pub(super) fn spawn_client(
    config: &Config,
    spec: &ChainSpec,
    opened: &Opened,
    shared: &Arc<Shared>,
    builder_bell: &Arc<Doorbell>,
    (verification, forwarding): (Option<Verification>, Option<Forwarding>),
    cores: &Cores,
) -> Result<Vec<Worker>, LaunchError> {
    let Some(verification) = verification else { return Ok(Vec::new()) };
    let reads = verification.reads(config);
    let forwarder = forwarding.map(|forwarding| forwarding.spawn(reads, &opened.reader, shared, cores)).transpose()?;
    let seat = verification.seat(config, spec, &opened.reader, shared, builder_bell);
    let control = spawn("control", cores.unpinned(), move || {
        crate::engine_api::driver::run(seat).map_err(|error| error.to_string())
    })?;
    Ok(forwarder.into_iter().chain([control]).collect())
}
