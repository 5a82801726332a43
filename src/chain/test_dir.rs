//! A directory of its own for one test, removed at drop.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) struct TestDir(PathBuf);

impl TestDir {
    pub(crate) fn new(name: &str) -> TestDir {
        // Tests open databases by the thousand; memory makes their syncs free.
        let memory = Path::new("/dev/shm");
        TestDir::inside(&if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() }, name)
    }

    /// One where a disk is more likely, for tests of what only a disk does.
    pub(crate) fn on_disk(name: &str) -> TestDir {
        TestDir::inside(&std::env::temp_dir(), name)
    }

    fn inside(parent: &Path, name: &str) -> TestDir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("sequencer-test-{name}-{}-{id}", std::process::id()));
        std::fs::create_dir_all(&path).expect("temporary directory is writable");
        TestDir(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
