//! A child process with its output in a file, stopped by its own pid; temporary folders; free ports; polling.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a process may take to end after SIGTERM; geth writes its state and needs a few seconds.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How much of a log a failure shows.
const TAIL_BYTES: usize = 6_000;

/// A running child; it gets SIGTERM, and after a while SIGKILL, when this is dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and error in one file under `folder`.
    pub fn start(name: &str, folder: &Path, mut command: Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).expect("the folder exists");
        let errors = output.try_clone().expect("a file handle can be cloned");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {command:?}: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    /// As [`Process::start`], with standard error in a pipe that nobody reads.
    pub fn start_unread(name: &str, folder: &Path, mut command: Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {command:?}: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    /// Polls until `ready` answers something; panics with the log when the process ends or `limit` passes before.
    pub fn wait_until<T>(&mut self, what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(value) = ready() {
                return value;
            }
            if let Some(status) = self.child.try_wait().expect("our own child") {
                panic!("{} ended with {status} before {what}:\n{}", self.name, self.log_tail());
            }
            assert!(start.elapsed() < limit, "{}: not {what} in {limit:?}:\n{}", self.name, self.log_tail());
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    /// Sends SIGTERM and waits; `None` when the process had to be killed.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Some(status);
        }
        self.signal("TERM");
        // One that is frozen hears it when it goes on.
        self.signal("CONT");
        let start = Instant::now();
        while start.elapsed() < STOP_LIMIT {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            thread::sleep(POLL_INTERVAL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }

    /// Ends the process at once, without a last word, as a crash or the kernel does.
    pub fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Waits for a process that ends by itself; panics with the log when it is still there after `limit`.
    #[track_caller]
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status;
            }
            assert!(start.elapsed() < limit, "{} runs after {limit:?}:\n{}", self.name, self.log_tail());
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Everything that the process has written.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of what the process has written, for a failure message.
    pub fn log_tail(&self) -> String {
        let text = self.log_text();
        let mut start = text.len().saturating_sub(TAIL_BYTES);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        format!("--- end of {} ---\n{}", self.log.display(), &text[start..])
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        self.stop();
    }
}

/// The shell's own `kill` needs neither unsafe code nor a package that a small image lacks.
fn signal(name: &str, pid: u32) {
    let command = format!("kill -{name} {pid}");
    let status = Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).status();
    assert!(status.is_ok(), "sh does not start: {status:?}");
}

/// A folder that is removed with its owner, unless a test is failing: its logs are evidence then.
pub struct TempFolder(PathBuf);

impl TempFolder {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sequencer-{}-{count}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary folder is writable");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A port that nothing listened on a moment ago, and no other caller was given.
pub fn free_port() -> u16 {
    // The system may name the same one twice while nobody listens there.
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        if given.insert(port) {
            return port;
        }
    }
}

/// Polls until `ready` answers something; panics, naming `what`, when `limit` passes before.
#[track_caller]
pub fn poll_until<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < limit, "not {what} in {limit:?}");
        thread::sleep(POLL_INTERVAL);
    }
}
