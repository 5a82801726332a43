//! The follower's thread, in the place of those of builder, journal, state and chain.

use std::sync::Arc;

use super::startup::{Opened, TemporaryDir};
use super::{CoreBells, Cores, LaunchError, Shared, Worker, spawn};
use crate::builder::driver::ShardRings;
use crate::config::genesis::ChainSpec;
use crate::ring::Doorbell;
use crate::settlement::follower::{self, FollowerSeat};

/// Spawns it.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn spawn_follower(
    spec: &ChainSpec,
    opened: Opened,
    sync_bell: Arc<Doorbell>,
    shards: Vec<ShardRings>,
    bells: &CoreBells,
    shared: &Arc<Shared>,
    cores: &Cores,
) -> Result<(Vec<Worker>, Option<TemporaryDir>), LaunchError> {
    let Opened { writer, reader, store, world, recent, follow, temporary_dir, .. } = opened;
    let (_, derived) = follow.expect("the caller looked");
    let seat = FollowerSeat {
        shards,
        derived,
        spec: spec.clone(),
        store,
        writer,
        reader,
        world,
        recent,
        doorbell: Arc::clone(&bells.builder),
        sync_bell,
        shared: Arc::clone(shared),
    };
    let follower = spawn("follower", cores.unpinned(), move || follower::run(seat).map_err(|error| error.to_string()))?;
    Ok((vec![follower], temporary_dir))
}
