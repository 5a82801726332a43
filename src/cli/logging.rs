//! The log: formatted where it is made, written by its own thread.
//!
//! Shards and the builder core have nothing to say of a single transaction: what happens to one is counted (`crate::metrics`).

use std::io::IsTerminal as _;

use std::sync::Arc;

use anyhow::{Context, Result};
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

use crate::config::Config;
use crate::metrics;
use crate::topology::levers::SetLogFilter;

/// Starts the log writer. Lines go to standard error; when the writer cannot keep up, new lines are dropped, and counted. Dropping the
/// guard writes what is left. The second answer puts another filter in the place of the configured one.
///
/// # Errors
/// A filter that does not parse.
pub fn start(config: &Config) -> Result<(WorkerGuard, SetLogFilter)> {
    let filter =
        EnvFilter::try_new(&config.log_level).with_context(|| format!("log.level = `{}`", config.log_level))?;
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let dropped = writer.error_counter();
    metrics::watch_log(move || dropped.dropped_lines() as u64);
    // Colours are for eyes: in a file or in journald they would stand between a field and its value.
    let is_coloured = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_coloured).with_writer(writer);
    let set: SetLogFilter = if config.log_json {
        let builder = builder.json().with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        Arc::new(move |text| handle.reload(parse(text)?).map_err(|error| error.to_string()))
    } else {
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        builder.init();
        Arc::new(move |text| handle.reload(parse(text)?).map_err(|error| error.to_string()))
    };
    Ok((guard, set))
}

fn parse(text: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(text).map_err(|error| error.to_string())
}
