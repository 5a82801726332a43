//! What the control thread stands on: the secret, how far the chain was checked, and whether an earlier process was halted.

use std::path::Path;
use std::sync::Arc;

use super::startup::Opened;
use super::{LaunchError, Shared};
use crate::chain::ChainReader;
use crate::config::Config;
use crate::config::execution::ExecutionMode;
use crate::config::genesis::ChainSpec;
use crate::engine_api::blocking::BlockingSettings;
use crate::engine_api::driver::ControlSeat;
use crate::engine_api::files::{Accused, CheckedMark, Evidence};
use crate::engine_api::jwt::Secret;
use crate::engine_api::status::ExecutionCells;
use crate::primitives::B256;
use crate::ring::Doorbell;

/// Opened before the first thread starts.
pub struct Verification {
    secret: Secret,
    /// Number of the newest block that was `latest`.
    pub checked: u64,
    mark: CheckedMark,
    evidence: Evidence,
    void: Vec<(u64, B256)>,
    /// What was said of a block before, which halts this start too.
    halted_for: Option<String>,
}

/// `None` where nobody checks our blocks.
///
/// # Errors
/// A secret, mark or evidence that cannot be read or made.
pub fn open(config: &Config, opened: &Opened) -> Result<Option<Verification>, LaunchError> {
    if config.execution.mode == ExecutionMode::Embedded {
        return Ok(None);
    }
    let dir = &opened.data_dir;
    let secret = secret(config, dir)?;
    let hash = |number| opened.reader.hash_by_number(number).ok().flatten();
    let tip = opened.latest().header.number;
    let (mark, checked) = CheckedMark::open(dir, tip, hash)?;
    let evidence = Evidence::new(dir);
    let accused = evidence.invalid_block(tip, hash)?;
    if let Some(Accused { number, dir, .. }) = &accused {
        let (evidence, to_block) = (dir.display(), number.saturating_sub(1));
        tracing::error!(number, %evidence, "halted: evidence against this block; the way out: stop, `sequencer journal rollback --to-block {to_block}`");
    }
    let halted_for = accused.map(|accused| accused.verdict());
    Ok(Some(Verification { secret, checked, mark, evidence, void: opened.void.clone(), halted_for }))
}

/// The secret shared with the execution client.
///
/// # Errors
/// A file that cannot be read or made.
pub fn secret(config: &Config, data_dir: &Path) -> Result<Secret, LaunchError> {
    let path = config.execution.jwt_secret.clone().unwrap_or_else(|| data_dir.join("jwt.hex"));
    Ok(Secret::load_or_create(&path)?)
}

impl Verification {
    /// The cells as the process starts with them.
    pub fn cells(&self) -> ExecutionCells {
        let cells = ExecutionCells::verified(self.checked);
        if let Some(why) = &self.halted_for {
            cells.halt_for(why.clone());
        }
        cells
    }

    /// How query threads reach the client with reads that are not served here.
    pub fn reads(&self, config: &Config) -> BlockingSettings {
        BlockingSettings::reads(&config.execution, self.secret.clone())
    }

    /// The control thread's seat.
    pub fn seat(
        self,
        config: &Config,
        spec: &ChainSpec,
        chain: &ChainReader,
        shared: &Arc<Shared>,
        builder_bell: &Arc<Doorbell>,
    ) -> ControlSeat {
        ControlSeat {
            config: config.execution.clone(),
            secret: self.secret,
            spec: spec.clone(),
            chain: chain.clone(),
            shared: Arc::clone(shared),
            checked: self.checked,
            mark: self.mark,
            evidence: self.evidence,
            void: self.void,
            builder_bell: Arc::clone(builder_bell),
        }
    }
}
