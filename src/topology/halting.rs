//! Looks for what halts from outside the admin port: the setting, the operator's file, and what the process before this one remembered.

use std::path::Path;
use std::sync::Arc;

use crate::admin::cells::{ControlCells, HaltSource};
use crate::admin::halt::HaltFiles;
use crate::config::Config;
use crate::ring::Doorbell;
use crate::topology::LaunchError;

/// Runs on: main thread.
pub struct HaltWatch {
    files: HaltFiles,
    controls: Arc<ControlCells>,
    builder_bell: Arc<Doorbell>,
    is_failing: bool,
}

impl HaltWatch {
    /// Halts before the first thread starts, where something says so. `None`: a follower builds nothing.
    ///
    /// # Errors
    /// A file whose presence cannot be found out: a start that may be halted is none.
    pub fn open(
        config: &Config,
        data_dir: &Path,
        controls: &Arc<ControlCells>,
        builder_bell: &Arc<Doorbell>,
    ) -> Result<Option<Self>, LaunchError> {
        if config.follows {
            return Ok(None);
        }
        let files = HaltFiles::new(data_dir);
        let fault = |source| LaunchError::HaltFile { path: files.by_hand(), source };
        controls.set_halted(HaltSource::Setting, config.admin.emergency_halt);
        controls.set_halted(HaltSource::File, files.is_halted_by_hand().map_err(fault)?);
        let remembered = files.admin().map_err(fault)?;
        // Never taken back here: a process that starts again in place may be halted by a call whose file could not be written.
        if remembered.is_some() {
            controls.set_halted(HaltSource::Admin, true);
        }
        let wanted = controls.wanted();
        for source in HaltSource::ALL.into_iter().filter(|source| wanted.is_halted_by(*source)) {
            let reason = remembered.as_ref().filter(|_| source == HaltSource::Admin).map(|halt| halt.reason.as_str());
            tracing::error!(by = source.name(), reason, "halted: nothing is admitted or built, reads go on");
        }
        let (controls, builder_bell) = (Arc::clone(controls), Arc::clone(builder_bell));
        Ok(Some(Self { files, controls, builder_bell, is_failing: false }))
    }

    /// Takes over whether the operator's file is there.
    pub fn look(&mut self) {
        let is_there = match self.files.is_halted_by_hand() {
            Ok(is_there) => is_there,
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    let path = self.files.by_hand();
                    tracing::error!(%error, path = %path.display(), "whether the file of a halt is there is not known");
                }
                return;
            }
        };
        self.is_failing = false;
        let was_there = self.controls.wanted().is_halted_by(HaltSource::File);
        if is_there == was_there {
            return;
        }
        self.controls.set_halted(HaltSource::File, is_there);
        self.builder_bell.ring();
        let path = self.files.by_hand();
        match is_there {
            true => {
                tracing::error!(path = %path.display(), "halted by a file: nothing is admitted or built, reads go on")
            }
            false => {
                let is_halted = self.controls.wanted().is_halted();
                tracing::warn!(path = %path.display(), is_halted, "the file of a halt is gone");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use super::*;
    use crate::admin::halt::AdminHalt;
    use crate::config::RawConfig;

    fn config(halt: &str) -> Config {
        let flags = [("http.host", "127.0.0.1"), ("http.cors", "false"), ("admin.emergency-halt", halt)];
        let flags: Vec<_> = flags.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Config::from_raw(&RawConfig::layered(&flags, &[], None).unwrap()).unwrap()
    }

    #[test]
    fn a_start_is_halted_by_each_source_and_the_file_is_followed() {
        let dir = std::env::temp_dir().join(format!("sequencer-halting-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (controls, bell) = (Arc::new(ControlCells::default()), Arc::new(Doorbell::for_thread()));
        let files = HaltFiles::new(&dir);
        let open = |halt: &str| HaltWatch::open(&config(halt), &dir, &controls, &bell).unwrap().unwrap();
        open("false");
        assert!(controls.wanted().may_build());
        open("true");
        assert!(controls.wanted().is_halted_by(HaltSource::Setting));
        files.remember(&AdminHalt::default()).unwrap();
        open("false");
        assert!(controls.wanted().is_halted_by(HaltSource::Admin));
        assert!(!controls.wanted().is_halted_by(HaltSource::Setting), "the setting is what this start has");
        files.forget().unwrap();
        open("false");
        assert!(controls.wanted().is_halted_by(HaltSource::Admin), "a start in place ends no halt");
        controls.set_halted(HaltSource::Admin, false);
        let mut watch = open("false");
        assert!(!controls.wanted().is_halted());
        std::fs::write(files.by_hand(), "").unwrap();
        watch.look();
        assert!(controls.wanted().is_halted_by(HaltSource::File));
        open("false");
        assert!(controls.wanted().is_halted_by(HaltSource::File));
        std::fs::remove_file(files.by_hand()).unwrap();
        watch.look();
        assert!(controls.wanted().may_build());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_follower_is_not_halted() {
        let config = Config { follows: true, ..config("true") };
        let (controls, bell) = (Arc::new(ControlCells::default()), Arc::new(Doorbell::for_thread()));
        assert!(HaltWatch::open(&config, Path::new("/nowhere"), &controls, &bell).unwrap().is_none());
        assert!(controls.wanted().may_build());
    }
}
