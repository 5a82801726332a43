//! What `tuning/` holds: scripts in a root of their own, the systemd unit, the container's files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use native_sequencer::config::settings::SETTINGS;
use serde_json::Value;

/// Scripts with the arguments that `check` and `apply` want.
const SCRIPTS: [(&str, &[&str]); 7] = [
    ("governor", &[]),
    ("smt", &[]),
    ("thp", &[]),
    ("irq", &["--keep-free", "0-1"]),
    ("limits", &[]),
    ("sysctl", &[]),
    ("isolation", &["--cores", "0-1"]),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning")
}

/// A host that has everything to be changed.
const HOST: [(&str, &str); 15] = [
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave"),
    ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "schedutil"),
    ("sys/devices/system/cpu/online", "0-3"),
    ("sys/devices/system/cpu/smt/control", "on"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always"),
    ("sys/kernel/mm/transparent_hugepage/defrag", "madvise"),
    ("proc/irq/24/smp_affinity_list", "0-3"),
    ("proc/irq/25/smp_affinity_list", "3"),
    ("proc/irq/26/smp_affinity_list", "1"),
    ("proc/sys/vm/max_map_count", "65530"),
    ("proc/sys/vm/swappiness", "60"),
    ("proc/sys/net/core/somaxconn", "8192"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "128"),
    ("proc/sys/kernel/io_uring_disabled", "2"),
    ("proc/cmdline", "quiet"),
];

/// A root of its own, removed with its owner.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("sequencer-tuning-{name}-{}", std::process::id()));
        for (path, content) in HOST {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("a writable temporary folder");
            fs::write(path, format!("{content}\n")).expect("a writable temporary folder");
        }
        Self(root)
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.0.join(path)).ok().map(|text| text.trim_end().to_owned())
    }

    /// Exit status and everything that the script said.
    #[track_caller]
    fn run(&self, script: &str, verb: &str, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(folder().join(script));
        let Output { status, stdout, stderr } =
            command.arg(verb).args(arguments).env("TUNING_ROOT", &self.0).output().expect("the script is executable");
        let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        (status.code().expect("no signal"), text)
    }

    /// Everything that the host of the test had at the start, as it is now.
    fn state(&self) -> Vec<(&'static str, Option<String>)> {
        HOST.iter().map(|(path, _)| (*path, self.read(path))).collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_knob_is_checked_applied_twice_and_undone() {
    for (script, arguments) in SCRIPTS {
        let root = Root::new(script);
        let before = root.state();
        let (status, text) = root.run(script, "check", arguments);
        assert_eq!(status, 1, "{script} check: {text}");
        assert!(text.contains("change: "), "{script} check: {text}");
        assert_eq!(root.state(), before, "{script} check changes something");
        let (status, text) = root.run(script, "apply", arguments);
        assert_eq!(status, 0, "{script} apply: {text}");
        let applied = root.state();
        let (status, text) = root.run(script, "apply", arguments);
        assert_eq!((status, root.state()), (0, applied), "{script}, a second apply: {text}");
        let (status, text) = root.run(script, "check", arguments);
        // Takes a boot: everything else holds at once.
        assert_eq!(status, i32::from(script == "isolation"), "{script} check after apply: {text}");
        for _ in 0..2 {
            let (status, text) = root.run(script, "undo", &[]);
            assert_eq!((status, root.state()), (0, before.clone()), "{script} undo: {text}");
        }
        for left in [
            "etc/security/limits.d/60-sequencer.conf",
            "etc/sysctl.d/60-sequencer.conf",
            "etc/default/grub.d/60-sequencer.cfg",
        ] {
            assert_eq!(root.read(left), None, "{script} leaves {left}");
        }
    }
}

/// What is written, and where.
#[test]
fn knobs_write_what_they_say() {
    let root = Root::new("writes");
    for (script, arguments) in SCRIPTS {
        root.run(script, "apply", arguments);
    }
    for (path, expected) in [
        ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance"),
        ("sys/devices/system/cpu/smt/control", "off"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "madvise"),
        ("proc/irq/24/smp_affinity_list", "2,3"),
        ("proc/irq/25/smp_affinity_list", "3"),
        ("proc/irq/26/smp_affinity_list", "2,3"),
        ("proc/sys/vm/max_map_count", "262144"),
        ("proc/sys/vm/swappiness", "1"),
        // Larger already.
        ("proc/sys/net/core/somaxconn", "8192"),
        ("proc/sys/kernel/io_uring_disabled", "0"),
        (
            "etc/default/grub.d/60-sequencer.cfg",
            "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX isolcpus=domain,managed_irq,0-1 nohz_full=0-1 rcu_nocbs=0-1\"",
        ),
    ] {
        assert_eq!(root.read(path).as_deref(), Some(expected), "{path}");
    }
    let limits = root.read("etc/security/limits.d/60-sequencer.conf").expect("written");
    assert!(limits.contains("sequencer - memlock unlimited") && limits.contains("sequencer hard core 0"), "{limits}");
    let sysctl = root.read("etc/sysctl.d/60-sequencer.conf").expect("written");
    assert!(sysctl.contains("vm.max_map_count = 262144") && !sysctl.contains("somaxconn"), "{sysctl}");
    fs::write(root.0.join("proc/cmdline"), "quiet isolcpus=domain,managed_irq,0-1 nohz_full=0-1 rcu_nocbs=0-1\n")
        .expect("ours");
    assert_eq!(root.run("isolation", "check", &["--cores", "0-1"]).0, 0);
}

#[test]
fn wrong_calls_of_the_scripts_change_nothing_and_exit_2() {
    let root = Root::new("wrong");
    let before = root.state();
    for (script, verb, arguments) in [
        ("governor", "frob", &[][..]),
        ("irq", "apply", &[]),
        ("irq", "apply", &["--keep-free", "0-1; rm -r x"]),
        ("irq", "apply", &["--keep-free", "0-3"]),
        ("isolation", "apply", &["--cores", "$(id)"]),
        ("isolation", "hint", &[]),
    ] {
        let (status, text) = root.run(script, verb, arguments);
        assert_eq!(status, 2, "{script} {verb} {arguments:?}: {text}");
        assert!(!text.is_empty());
    }
    assert_eq!(root.state(), before);
    let (status, text) = root.run("isolation", "hint", &["--cores", "2-3"]);
    assert_eq!((status, text.trim_end()), (0, "isolcpus=domain,managed_irq,2-3 nohz_full=2-3 rcu_nocbs=2-3"));
}

/// Runs a tool that may not be there: `None` is a printed skip.
fn tool(test: &str, command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("skipped {test}: {}: {error}", command.get_program().to_string_lossy());
            None
        }
    }
}

#[test]
fn scripts_are_clean() {
    let mut names: Vec<&str> = SCRIPTS.iter().map(|(name, _)| *name).collect();
    names.push("lib.sh");
    let listed = fs::read_dir(folder()).expect("tuning/").map(|entry| entry.expect("an entry").file_name());
    let mut listed: Vec<String> =
        listed.filter_map(|name| name.into_string().ok()).filter(|name| name != "deploy").collect();
    names.sort_unstable();
    listed.sort_unstable();
    assert_eq!(names, listed, "a script without a test, or a test without its script");
    let mut shellcheck = Command::new("shellcheck");
    shellcheck.current_dir(folder()).args(["-x", "-P", "SCRIPTDIR"]).args(&names);
    if let Some(output) = tool("scripts_are_clean", &mut shellcheck) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_unit_is_valid_and_hardened() {
    let unit = fs::read_to_string(folder().join("deploy/sequencer.service")).expect("the unit");
    // More than a stop may take by default.
    let limit = SETTINGS.iter().find(|setting| setting.name == "stop.limit-ms").expect("the setting").default;
    let limit_s: u64 = limit.parse::<u64>().expect("a number").div_ceil(1_000);
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).expect("a bound");
    assert!(stop.parse::<u64>().expect("seconds") > limit_s, "TimeoutStopSec={stop} is not above stop.limit-ms");
    // On this machine neither the program nor its user is installed.
    let root = Root::new("unit");
    let path = root.0.join("sequencer.service");
    let program = env!("CARGO_BIN_EXE_sequencer");
    let own = unit.replace("/usr/local/bin/sequencer", program).replace("User=sequencer\nGroup=sequencer\n", "");
    fs::write(&path, own).expect("ours");
    let mut verify = Command::new("systemd-analyze");
    if let Some(output) = tool("the_unit_is_valid_and_hardened", verify.arg("verify").arg(&path)) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.trim().is_empty(), "systemd-analyze verify: {text}");
        // 0 is nothing at all, 10 is no protection: 25 of 100 leaves the network and little else.
        let mut security = Command::new("systemd-analyze");
        fs::write(&path, unit.replace("/usr/local/bin/sequencer", program)).expect("ours");
        let output =
            security.args(["security", "--offline=true", "--threshold=25"]).arg(&path).output().expect("as above");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_image_is_built_from_what_is_there() {
    let root = folder().parent().expect("the repository").to_owned();
    let dockerfile = fs::read_to_string(folder().join("deploy/Dockerfile")).expect("the Dockerfile");
    let toolchain = fs::read_to_string(root.join("rust-toolchain.toml")).expect("the toolchain");
    let version = toolchain.split('"').nth(1).expect("a version");
    assert!(dockerfile.contains(&format!("FROM rust:{version}-")), "another toolchain than {version}");
    assert!(dockerfile.contains("\nUSER 10001:10001\n"), "it runs as root");
    let stages: Vec<&str> = dockerfile.lines().filter(|line| line.starts_with("FROM ")).collect();
    assert_eq!(stages.len(), 2, "{stages:?}");
    // The line that a user must add, with the file that it names.
    assert!(dockerfile.contains("--security-opt seccomp=tuning/deploy/seccomp.json"));
    let profile = fs::read_to_string(root.join("tuning/deploy/seccomp.json")).expect("the profile");
    let profile: Value = serde_json::from_str(&profile).expect("JSON");
    let allowed: Vec<&str> = profile["syscalls"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|group| group["action"] == "SCMP_ACT_ALLOW")
        .flat_map(|group| group["names"].as_array().expect("names").iter().filter_map(Value::as_str))
        .collect();
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register", "pwritev2"] {
        assert!(allowed.contains(&name), "{name} is needed");
    }
    // What a program that was taken over would want.
    for name in [
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "bpf",
        "mount",
        "umount2",
        "unshare",
        "setns",
        "keyctl",
        "add_key",
        "userfaultfd",
        "perf_event_open",
        "kexec_load",
        "init_module",
        "finit_module",
        "reboot",
        "swapon",
        "pivot_root",
        "chroot",
        "open_by_handle_at",
        "personality",
        "clone3",
        "acct",
        "settimeofday",
        "clock_settime",
        "quotactl",
        "iopl",
        "ioperm",
        "memfd_create",
        "execveat",
    ] {
        assert!(!allowed.contains(&name), "{name} is not needed");
    }
}
