//! What an operator moves while the process runs: made once, so that it outlives a start in place.

use std::sync::Arc;

use crate::admin::cells::ControlCells;
use crate::admin::limits::LimitCells;
use crate::config::Config;

/// Puts another filter in the place of the log's, or says what is wrong with it.
pub type SetLogFilter = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// See the module's text.
#[derive(Clone)]
pub struct Levers {
    pub controls: Arc<ControlCells>,
    pub limits: Arc<LimitCells>,
    pub set_log_filter: SetLogFilter,
}

impl Levers {
    /// Nothing is halted or stopped yet; the limits are the configured ones. `files`: how many the process may have open.
    #[must_use]
    pub fn new(config: &Config, files: u64, set_log_filter: SetLogFilter) -> Self {
        Self { controls: Arc::default(), limits: Arc::new(LimitCells::new(config, files)), set_log_filter }
    }
}
