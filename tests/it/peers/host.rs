//! What the process asks of its host, and what it says when the host refuses: limits, io_uring, secrets that others may read, `doctor`.

#[cfg(target_arch = "x86_64")]
mod filter;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use super::admin::Admin;
use super::observe;
use super::process::{Process, TempFolder, free_port, poll_until};
use super::rpc::Rpc;
use super::sequencer::{FAST_BLOCKS, binary, command};
use super::workload::Workload;
#[cfg(target_arch = "x86_64")]
use filter::Profile;

const START_LIMIT: Duration = Duration::from_secs(60);
const MINED_LIMIT: Duration = Duration::from_secs(20);
#[cfg(target_arch = "x86_64")]
const PROFILE: &str = "tuning/deploy/seccomp.json";
#[cfg(target_arch = "x86_64")]
const RING_CALLS: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];

#[cfg(target_arch = "x86_64")]
fn profile() -> Profile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PROFILE);
    Profile::parse(&fs::read_to_string(path).expect("the profile"))
}

/// The binary's arguments for a development node in `folder`.
fn dev_arguments(folder: &TempFolder, port: u16) -> Vec<String> {
    let data = folder.path().join("data").display().to_string();
    ["dev", "--l1", "off", "--http.port", &port.to_string(), "--data-dir", &data].map(str::to_owned).to_vec()
}

/// Runs it to its end, which must be exit 1 with each of `parts` in what it says.
#[track_caller]
fn check_refused(command: &mut Command, parts: &[&str]) {
    let Output { status, stderr, .. } = command.output().expect("it starts");
    let text = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{status:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn under_the_containers_profile_it_serves_and_stops() {
    let _turn = super::turn();
    let folder = TempFolder::new("seccomp");
    let port = free_port();
    let mut command = command();
    let (metrics, admin_port) = (free_port(), free_port());
    command.args(dev_arguments(&folder, port)).args(FAST_BLOCKS);
    command.args(["--metrics.port", &metrics.to_string(), "--admin.port", &admin_port.to_string()]);
    profile().apply(&mut command);
    let mut process = Process::start("confined", folder.path(), command);
    let rpc = Rpc::new(format!("http://127.0.0.1:{port}"));
    let probe = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []});
    process.wait_until("answering", START_LIMIT, || rpc.post(&probe).ok());
    let mut workload = Workload::new(15);
    let answers = rpc.batch("eth_sendRawTransaction", [json!([workload.deploy()])]);
    let hash = answers[0].clone().expect("a good transaction is taken");
    poll_until("a receipt", MINED_LIMIT, || {
        (rpc.call("eth_getTransactionReceipt", json!([hash]))["status"] == "0x1").then_some(())
    });
    // Reads of the query pool, the state and the chain files.
    let block = rpc.call("eth_getBlockByNumber", json!(["latest", true]));
    assert_eq!(block["transactions"].as_array().map(Vec::len), Some(1), "{block}");
    rpc.call("eth_getLogs", json!([{"fromBlock": "0x0", "toBlock": "latest"}]));
    let page = observe::scrape(metrics);
    assert_eq!(page.value("seq_builder_tx_placed_total", &[]), 1.0);
    let admin = Admin::of(&folder.path().join("data"), admin_port);
    assert_eq!(admin.call("admin_sequencerActive", json!([])), true);
    // The profile is really there: mode 2 is a filter.
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).expect("it runs");
    assert!(status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2')), "{status}");
    let status = process.stop();
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{status:?}: {}", process.log_tail());
}

#[cfg(target_arch = "x86_64")]
#[test]
fn without_io_uring_it_says_what_to_do_and_exits_1() {
    let _turn = super::turn();
    let folder = TempFolder::new("no-uring");
    // What Docker's own profile does.
    let mut confined = command();
    confined.args(dev_arguments(&folder, free_port()));
    profile().without(&RING_CALLS).apply(&mut confined);
    let command_line = "docker run --security-opt seccomp=tuning/deploy/seccomp.json";
    check_refused(
        &mut confined,
        &["io_uring: refused: error 1", "allow io_uring_setup", command_line, "sequencer doctor"],
    );
    // What gVisor, or a kernel without it, does.
    let mut confined = command();
    confined.args(dev_arguments(&folder, free_port()));
    profile().without(&RING_CALLS).answering(38).apply(&mut confined);
    check_refused(&mut confined, &["io_uring: refused: the kernel has no io_uring (ENOSYS)", command_line]);
    assert!(!folder.path().join("data").exists(), "a refused start left something behind");
}

#[test]
fn without_locked_memory_it_says_what_to_do_and_exits_1() {
    let _turn = super::turn();
    let folder = TempFolder::new("no-memlock");
    // A user without privileges, who is held to his limits.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("our own folder");
    let arguments =
        |port: u16| [dev_arguments(&folder, port), ["--http.shards", "1"].map(str::to_owned).to_vec()].concat();
    match limited("ulimit -l 64") {
        Some(mut shell) => {
            let parts =
                ["memlock: 64 KiB may be locked, 128 KiB are needed", "ulimit -l unlimited", "LimitMEMLOCK=infinity"];
            check_refused(shell.args(arguments(free_port())), &parts);
        }
        None => {
            println!("skipped: this user may lock whatever it wants, and no other one may run {}", binary().display())
        }
    }
    // Just enough, and as a soft limit that the process may raise itself.
    let port = free_port();
    let Some(mut shell) = limited("ulimit -Sl 0; ulimit -Hl 128; ulimit -Sn 64") else { return };
    shell.args(arguments(port));
    let mut process = Process::start("limited", folder.path(), shell);
    let rpc = Rpc::new(format!("http://127.0.0.1:{port}"));
    let probe = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []});
    process.wait_until("answering", START_LIMIT, || rpc.post(&probe).ok());
    let (_, hard) = limit(std::process::id(), "Max open files").expect("every process has it");
    assert_eq!(limit(process.pid(), "Max open files"), Some((hard.clone(), hard)));
    assert_eq!(limit(process.pid(), "Max locked memory"), Some(("131072".to_owned(), "131072".to_owned())));
    assert!(process.stop().is_some_and(|status| status.success()), "{}", process.log_tail());
}

/// Our binary behind a shell that sets limits first, as a user whom they hold; its arguments follow. `None`: there is no such user here.
fn limited(limits: &str) -> Option<Command> {
    const NOBODY: [&str; 5] = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let mut may_run = Command::new("setpriv");
    may_run.args(NOBODY).args(["test", "-x"]).arg(binary());
    let mut shell = if may_run.output().is_ok_and(|output| output.status.success()) {
        let mut shell = Command::new("setpriv");
        shell.args(NOBODY).arg("bash");
        shell
    } else if fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0) {
        return None;
    } else {
        Command::new("bash")
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"SEQUENCER_")) {
        shell.env_remove(name);
    }
    shell.args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")]).arg(binary());
    Some(shell)
}

/// Soft and hard limit of a process.
fn limit(pid: u32, name: &str) -> Option<(String, String)> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let mut words = line.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.to_owned()))
}

/// A production node: no core file, no secret that others may read, no variable that is ignored in silence.
#[test]
fn a_production_start_is_careful() {
    let _turn = super::turn();
    let folder = TempFolder::new("run");
    let config = folder.path().join("sequencer.toml");
    let secret = folder.path().join("jwt.hex");
    let port = free_port();
    let text = format!(
        "data-dir = {:?}\n[admin]\nport = {}\n[http]\nhost = \"127.0.0.1\"\nport = {port}\n[l2]\nchain-id = 61972\n[execution]\njwt-secret = {:?}\n",
        folder.path().join("data"),
        free_port(),
        secret
    );
    fs::write(&config, text).expect("the folder is writable");
    fs::write(&secret, "5a".repeat(32)).expect("the folder is writable");
    let mode = |mode| fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).expect("our own file");
    mode(0o644);
    let run = || {
        let mut run = command();
        run.args(["run", "--config"]).arg(&config);
        run
    };
    let engine = ["--execution.mode", "verified", "--execution.engine-url", "http://127.0.0.1:1"];
    let told = ["has mode 0644: others may read it", "chmod 600"];
    check_refused(run().args(engine), &told);
    check_refused(command().args(["config", "check", "--config"]).arg(&config), &told);
    mode(0o600);
    let key = "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6";
    check_refused(run().env("EMERGENCY_HALT", "yes"), &["admin.emergency-halt", "expected true or false"]);

    // L1 is away; what is not read is told.
    let mut node = run();
    node.env("SEQUENCER_KEY", key).env("L1_RPC_URL", "http://127.0.0.1:1/secret-token");
    node.env("METRICS_PORT", "0");
    let mut process = Process::start("run", folder.path(), node);
    let rpc = Rpc::new(format!("http://127.0.0.1:{port}"));
    let probe = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []});
    process.wait_until("answering", START_LIMIT, || rpc.post(&probe).ok());
    assert_eq!(limit(process.pid(), "Max core file size"), Some(("0".to_owned(), "0".to_owned())));
    let log = process.log_text();
    assert!(!log.contains("METRICS_PORT") && log.contains("metrics"), "{log}");
    assert!(process.stop().is_some_and(|status| status.success()), "{}", process.log_tail());
    let log = process.log_text();
    assert!(log.contains("waiting for the L1 block where the chain begins"), "{log}");
    assert!(!log.contains("2a871d07") && !log.contains("secret-token"), "a secret is in the log: {log}");
}

#[test]
fn doctor_judges_this_host_and_config_shows_no_secret() {
    let _turn = super::turn();
    let output = command().args(["doctor", "--json"]).output().expect("our binary starts");
    let findings: Value = serde_json::from_slice(&output.stdout).expect("an array");
    let findings = findings.as_array().expect("an array");
    let names: Vec<&str> = findings.iter().filter_map(|finding| finding["check"].as_str()).collect();
    for name in [
        "kernel",
        "io_uring",
        "memlock",
        "open-files",
        "map-count",
        "listen-backlog",
        "cpu-governor",
        "smt",
        "transparent-huge-pages",
        "interrupts",
        "isolated-cores",
        "cgroup-cpu",
        "memory",
        "swap",
        "clock",
        "clock-source",
        "core-dumps",
        "file-system",
        "write-cache",
        "free-space",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    let has_failed = findings.iter().any(|finding| finding["level"] == "fail");
    assert_eq!(output.status.code(), Some(i32::from(has_failed)), "{findings:#?}");
    for finding in findings.iter().filter(|finding| finding["level"] != "ok") {
        assert!(finding["command"].is_string() && finding["change"].is_string(), "{finding}");
    }
    let text = command().args(["doctor", "--data-dir", "/dev/shm/x"]).output().expect("our binary starts");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("FAIL  file-system"), "a file system in memory is no place for a chain: {text}");

    let key = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    let print = command()
        .args(["config", "print", "--http.port", "7"])
        .env("SEQUENCER_KEY", key)
        .env("API_HOST", "::1")
        .output();
    let print = String::from_utf8(print.expect("our binary starts").stdout).expect("text");
    for line in
        ["http.port = \"7\"  # flag", "http.host = \"::1\"  # environment API_HOST", "query.threads = \"2\"  # default"]
    {
        assert!(print.lines().any(|found| found == line), "{line:?} is not in {print}");
    }
    let shown = "l1.key = \"<redacted>\"  # environment SEQUENCER_KEY";
    assert!(print.lines().any(|line| line == shown) && !print.contains("ac0974be"), "{print}");
}
