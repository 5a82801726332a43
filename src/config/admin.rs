//! The admin port and the emergency halt.

use std::path::PathBuf;

use super::{ConfigError, RawConfig, redact};

#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// On 127.0.0.1; 0 takes any that is free. `None`: there is none.
    pub port: Option<u16>,
    /// `None`: `admin.token` in the data directory.
    pub token_file: Option<PathBuf>,
    /// Halted from the start on, for as long as the setting says so.
    pub emergency_halt: bool,
}

impl AdminConfig {
    pub(super) fn from_raw(raw: &RawConfig) -> Result<Self, ConfigError> {
        Ok(Self {
            port: raw.value("admin.port", "0 to 65535, or off", |value| match value {
                "" | "off" => Some(None),
                number => number.parse().ok().map(Some),
            })?,
            token_file: raw.optional("admin.token-file", "the file that holds the token, not the token", |value| {
                (redact::value("admin.token-file", value) == value).then(|| PathBuf::from(value))
            })?,
            // What is not understood ends the start: nobody believes in a halt that is none.
            emergency_halt: raw.value("admin.emergency-halt", "true or false", |value| match value.trim() {
                "true" | "on" | "1" => Some(true),
                "" | "false" | "off" | "0" => Some(false),
                _ => None,
            })?,
        })
    }
}
