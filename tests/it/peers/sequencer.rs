//! Our own binary as a process: the one place that knows its command line.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::{Process, TempFolder, free_port};
use super::rpc::Rpc;

/// A debug build on a loaded machine, which may have a long chain to execute again; what a user waits for is asserted where it is measured.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A development node. Fields drop in order: the process ends before its folder goes.
pub struct Sequencer {
    pub rpc: Rpc,
    pub port: u16,
    /// From the start of the process to its first answer.
    pub start_duration: Duration,
    process: Process,
    folder: TempFolder,
}

/// The binary under test.
pub fn binary() -> PathBuf {
    std::env::var_os("SEQUENCER_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_sequencer")), PathBuf::from)
}

/// Where `loadgen` lies: named by the environment, or beside our binary, where cargo builds the whole workspace.
pub fn loadgen_binary() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_BIN_EXE_sequencer")).with_file_name("loadgen");
    let path = std::env::var_os("SEQUENCER_LOADGEN").map_or_else(beside, PathBuf::from);
    path.exists().then_some(path)
}

/// The arguments of `sequencer dev` on a free port; without the development L1 unless the settings say something about L1.
fn dev_arguments(port: u16, data: &Path, fork: &str, settings: &[&str]) -> Vec<String> {
    let data = data.to_str().expect("the temporary folder's name is text");
    let port = port.to_string();
    let mut arguments = vec!["dev", "--dev.fork", fork, "--http.port", &port, "--data-dir", data];
    if !settings.iter().any(|setting| setting.starts_with("--l1")) {
        arguments.extend(["--l1", "off"]);
    }
    arguments.iter().chain(settings).map(|argument| (*argument).to_owned()).collect()
}

/// Settings that make blocks much faster than one a second. Timestamps still grow by one a block, so they run ahead of the clock.
pub const FAST_BLOCKS: [&str; 4] = ["--block.interval-ms", "150", "--block.timestamp-lead-s", "1000000"];

/// Our binary without the settings of the caller's environment: a test means what it says.
pub fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"SEQUENCER_") {
            command.env_remove(name);
        }
    }
    command
}

/// The genesis that `sequencer dev --fork` starts from, in go-ethereum's format.
pub fn genesis(fork: &str) -> Value {
    let output = command().args(["genesis", "--fork", fork]).output().expect("our binary starts");
    assert!(output.status.success(), "sequencer genesis: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the genesis is JSON")
}

/// The data directory of a node in `folder`.
pub fn data_of(folder: &TempFolder) -> PathBuf {
    folder.path().join("data")
}

impl Sequencer {
    /// Starts a development node on `fork` ("prague" or "osaka") with a fresh chain.
    pub fn start(fork: &str) -> Self {
        Self::start_in(TempFolder::new("sequencer"), fork, &[])
    }

    /// Starts a development node on what `folder` keeps of an earlier one, with more settings.
    pub fn start_in(folder: TempFolder, fork: &str, settings: &[&str]) -> Self {
        Self::start_with(folder, fork, settings, &[])
    }

    /// As [`Sequencer::start_in`], with variables in its environment.
    pub fn start_with(folder: TempFolder, fork: &str, settings: &[&str], environment: &[(&str, &str)]) -> Self {
        let port = free_port();
        let mut command = command();
        command.envs(environment.iter().copied()).args(dev_arguments(port, &data_of(&folder), fork, settings));
        let start = Instant::now();
        let mut process = Process::start("sequencer", folder.path(), command);
        let rpc = Rpc::new(format!("http://127.0.0.1:{port}"));
        let probe = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []});
        process.wait_until("answering", START_LIMIT, || rpc.post(&probe).ok());
        assert_eq!(rpc.quantity("eth_chainId", json!([])), 61_972);
        Self { rpc, port, start_duration: start.elapsed(), process, folder }
    }

    /// The same node's WebSocket address: HTTP and WebSocket share a port.
    pub fn ws_url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// SIGTERM must end the process with exit code 0, after a drain and without a panic. Returns the folder with its data.
    #[track_caller]
    pub fn stop(self) -> TempFolder {
        let Self { mut process, folder, .. } = self;
        assert!(process.is_running(), "the node ended by itself:\n{}", process.log_tail());
        let status = process.stop();
        let code = status.and_then(|status| status.code());
        assert_eq!(code, Some(0), "exit of the node, {status:?}:\n{}", process.log_tail());
        assert!(!process.log_text().contains("panicked at"), "a thread panicked:\n{}", process.log_tail());
        folder
    }

    /// Sends a signal by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Waits for the end of a node that was told to stop. Returns the folder with its data.
    #[track_caller]
    pub fn stopped(self, code: i32) -> TempFolder {
        let (status, text, folder) = self.wait_end(START_LIMIT);
        assert_eq!(status.code(), Some(code), "exit of the node, {status:?}:\n{text}");
        assert!(!text.contains("panicked at"), "a thread panicked:\n{text}");
        folder
    }

    /// `kill -9`. Returns the folder with its data.
    #[track_caller]
    pub fn kill(self) -> TempFolder {
        let Self { mut process, folder, .. } = self;
        assert!(process.is_running(), "the node ended by itself:\n{}", process.log_tail());
        process.kill();
        assert!(!process.log_text().contains("panicked at"), "a thread panicked:\n{}", process.log_tail());
        folder
    }

    /// Waits until the node ends by itself; its exit, everything that it wrote in this and earlier runs, and its folder.
    #[track_caller]
    pub fn wait_end(self, limit: Duration) -> (ExitStatus, String, TempFolder) {
        let Self { mut process, folder, .. } = self;
        let status = process.wait_end(limit);
        (status, process.log_text(), folder)
    }

    /// Starts a node on what `folder` keeps and kills it after `delay`, wherever its start has come to.
    pub fn start_and_kill(folder: &TempFolder, fork: &str, settings: &[&str], delay: Duration) {
        let mut command = command();
        command.args(dev_arguments(free_port(), &data_of(folder), fork, settings));
        let mut process = Process::start("sequencer", folder.path(), command);
        std::thread::sleep(delay);
        assert!(process.is_running(), "a start ended by itself:\n{}", process.log_tail());
        process.kill();
    }

    /// Starts a node that must refuse to run on what `folder` keeps; what it wrote.
    #[track_caller]
    pub fn start_refused(folder: &TempFolder, fork: &str, settings: &[&str]) -> String {
        Self::start_refused_on(&data_of(folder), fork, settings)
    }

    /// As [`Sequencer::start_refused`], on a data directory that another process may hold.
    #[track_caller]
    pub fn start_refused_on(data: &Path, fork: &str, settings: &[&str]) -> String {
        let mut command = command();
        command.args(dev_arguments(free_port(), data, fork, settings));
        let own = TempFolder::new("refused");
        let mut process = Process::start("refused", own.path(), command);
        let status = process.wait_end(START_LIMIT);
        let text = process.log_text();
        assert_eq!(status.code(), Some(1), "exit of a node that cannot start, {status:?}:\n{text}");
        assert!(!text.contains("panicked at"), "a thread panicked:\n{text}");
        text
    }

    /// Where it keeps its data.
    pub fn data(&self) -> PathBuf {
        data_of(&self.folder)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Resident memory of the process in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// Resident memory that no file stands behind.
    pub fn anonymous_bytes(&self) -> u64 {
        self.status_bytes("RssAnon:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("it runs on Linux");
        let line = status.lines().find(|line| line.starts_with(name)).expect("Linux names the resident size");
        let kib = line.split_whitespace().nth(1).and_then(|digits| digits.parse::<u64>().ok());
        kib.expect("the resident size is a number") * 1024
    }

    /// Everything that it has written.
    pub fn log_text(&self) -> String {
        self.process.log_text()
    }

    /// The end of its log, for a failure message.
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}
