//! The log: formatted where it is made, written by its own thread.

use anyhow::{Context, Result};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// Starts the log writer. Lines go to standard error; when the writer cannot keep up, new lines are dropped. Dropping the guard writes
/// what is left.
///
/// # Errors
/// A filter that does not parse.
pub fn start(config: &Config) -> Result<WorkerGuard> {
    let filter =
        EnvFilter::try_new(&config.log_level).with_context(|| format!("log.level = `{}`", config.log_level))?;
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    if config.log_json {
        builder.json().init();
    } else {
        builder.init();
    }
    Ok(guard)
}
