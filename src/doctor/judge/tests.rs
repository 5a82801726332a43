//! One row a judgement: what is changed in a host without fault, and what must come of it.

use super::*;
use crate::doctor::snapshot::{Cgroup, Cpu};
use crate::doctor::worst;

const GIB: u64 = 1 << 30;

/// A host without fault.
fn good() -> Snapshot {
    Snapshot {
        kernel: Some("6.1.0-28-amd64".to_owned()),
        uring: IoUring::Works,
        locked_memory: Some(Limit { soft: 8 << 20, hard: 8 << 20 }),
        may_lock_anything: false,
        open_files: Some(Limit { soft: 1_024, hard: 1 << 20 }),
        cpu: Cpu {
            governors: vec!["performance".to_owned(); 8],
            smt_active: Some(true),
            siblings: vec![vec![4, 5], vec![6, 7]],
            huge_pages: Some("madvise".to_owned()),
            huge_pages_defrag: Some("madvise".to_owned()),
            isolated: Vec::new(),
        },
        interrupts: vec![interrupt(24, vec![0, 0, 0, 0, 9_000, 0, 0, 0], vec![4, 5, 6, 7])],
        cgroup: Cgroup::default(),
        clock_error_us: Some(Some(1_500)),
        clock_source: Some("tsc".to_owned()),
        map_count_max: Some(65_530),
        listen_backlog_max: Some(4_096),
        core_pattern: Some("core".to_owned()),
        swappiness: None,
        memory_bytes: Some(16 * GIB),
        places: vec![place()],
    }
}

fn place() -> Place {
    Place {
        name: "data-dir",
        path: "/var/lib/sequencer".to_owned(),
        file_system: Some("ext4".to_owned()),
        options: Some("rw,relatime".to_owned()),
        free_bytes: Some(100 * GIB),
        device: Some("nvme0n1".to_owned()),
        write_cache: Some("write through".to_owned()),
        fua: Some(true),
        rotational: Some(false),
    }
}

fn interrupt(number: u32, counts: Vec<u64>, affinity: Vec<usize>) -> Interrupt {
    Interrupt { number, name: "eth0-rx".to_owned(), counts, affinity }
}

fn needs() -> Needs {
    Needs {
        connections_max: 10_000,
        ring_count: 4,
        pinned_cores: vec![0, 1],
        free_bytes_min: 8 * GIB,
        memory_bytes: 2 * GIB,
    }
}

/// After `change` exactly one check must not be `ok`: `<check> <level> <part of what was seen or of the command>`, or all must be (`ok`).
#[track_caller]
fn check(change: impl FnOnce(&mut Snapshot), expected: &str) {
    check_needs(|seen, _| change(seen), expected);
}

#[track_caller]
fn check_needs(change: impl FnOnce(&mut Snapshot, &mut Needs), expected: &str) {
    let (mut seen, mut needs) = (good(), needs());
    change(&mut seen, &mut needs);
    let findings = all(&seen, &needs);
    let bad: Vec<&Finding> = findings.iter().filter(|finding| finding.level != Level::Ok).collect();
    if expected == "ok" {
        assert!(bad.is_empty(), "{bad:#?}");
        return;
    }
    let [finding] = bad[..] else { panic!("expected {expected:?}, got {bad:#?}") };
    let mut words = expected.splitn(3, ' ');
    let level = match words.next().zip(words.next()) {
        Some((name, level)) if name == finding.check => level,
        _ => panic!("expected {expected:?}, got {finding:#?}"),
    };
    assert_eq!(format!("{:?}", finding.level).to_lowercase(), level, "{finding:#?}");
    let part = words.next().expect("what was seen");
    let command = finding.command.as_deref().expect("a command");
    assert!(finding.seen.contains(part) || command.contains(part), "expected {part:?} in {finding:#?}");
    assert!(finding.change.is_some_and(|change| !change.is_empty()) && !command.is_empty(), "{finding:#?}");
}

#[test]
fn a_good_host_has_no_fault_and_a_silent_one_neither() {
    check(|_| {}, "ok");
    let silent = all(&Snapshot::default(), &Needs::default());
    assert_eq!(worst(&silent), Level::Ok, "{silent:#?}");
}

#[test]
fn what_a_start_needs() {
    check(|seen| seen.kernel = Some("6.1.0".to_owned()), "ok");
    check(|seen| seen.kernel = Some("6.0.19-generic".to_owned()), "kernel fail Linux 6.0");
    check(|seen| seen.kernel = Some("4.18.0".to_owned()), "kernel fail Linux 4.18");
    check(|seen| seen.kernel = Some("10.0".to_owned()), "ok");
    let refused = |errno, disabled| move |seen: &mut Snapshot| seen.uring = IoUring::Refused { errno, disabled };
    check(refused(1, Some(2)), "io_uring fail kernel.io_uring_disabled=0");
    check(refused(1, Some(1)), "io_uring fail io_uring_disabled = 1");
    check(refused(1, Some(0)), "io_uring fail seccomp=tuning/deploy/seccomp.json");
    check(refused(1, None), "io_uring fail error 1");
    check(refused(38, None), "io_uring fail ENOSYS");
    check(refused(12, None), "io_uring fail LimitMEMLOCK=infinity");
    check(refused(22, None), "io_uring fail EINVAL");
    let locked = |bytes| move |seen: &mut Snapshot| seen.locked_memory = Some(Limit { soft: 0, hard: bytes });
    check(locked(512 << 10), "ok");
    check(locked((512 << 10) - 1), "memlock fail 511 KiB may be locked, 512 KiB are needed");
    check(locked(u64::MAX), "ok");
    check(|seen| (seen.locked_memory, seen.may_lock_anything) = (Some(Limit { soft: 0, hard: 0 }), true), "ok");
}

#[test]
fn limits_and_settings_of_the_kernel() {
    let files = |hard| move |seen: &mut Snapshot| seen.open_files = Some(Limit { soft: 10, hard });
    check(files(11_024), "ok");
    check(files(11_023), "open-files warn LimitNOFILE=11024");
    check_needs(|_, needs| needs.connections_max = 2_000_000, "open-files warn 2001024 may be needed");
    check(|seen| seen.map_count_max = Some(65_529), "map-count warn 65529");
    check(|seen| seen.listen_backlog_max = Some(1_023), "listen-backlog warn 1023");
    check(|seen| seen.listen_backlog_max = Some(1_024), "ok");
    check(|seen| seen.swappiness = Some(10), "ok");
    check(|seen| seen.swappiness = Some(60), "swap warn vm.swappiness = 60");
    check(|seen| seen.clock_error_us = Some(None), "clock warn nobody sets it");
    check(|seen| seen.clock_error_us = Some(Some(1_000_000)), "ok");
    check(|seen| seen.clock_error_us = Some(Some(1_000_001)), "clock warn 1000 ms");
    check(|seen| seen.clock_source = Some("kvm-clock".to_owned()), "ok");
    check(|seen| seen.clock_source = Some("hpet".to_owned()), "clock-source warn hpet");
    check(|seen| seen.cpu.huge_pages = Some("always".to_owned()), "transparent-huge-pages warn tuning/thp apply");
    check(|seen| seen.cpu.huge_pages = Some("never".to_owned()), "ok");
}

#[test]
fn cores() {
    check(|seen| seen.cpu.governors[3] = "powersave".to_owned(), "cpu-governor warn performance, powersave on 1 of 8");
    check(|seen| seen.cpu.governors.clear(), "ok");
    check(|seen| seen.cpu.siblings = vec![vec![1, 5], vec![4, 6]], "smt warn 1,5");
    check(|seen| seen.cpu.smt_active = Some(false), "ok");
    let on_core_1 =
        |count| move |seen: &mut Snapshot| seen.interrupts.push(interrupt(30, vec![0, count], vec![0, 1, 2]));
    check(on_core_1(999), "ok");
    check(on_core_1(1_000), "interrupts warn 30 (eth0-rx): 1000");
    check(|seen| seen.interrupts.push(interrupt(31, vec![0, 50_000], vec![4])), "ok");
    check_needs(
        |seen, needs| {
            seen.interrupts.push(interrupt(32, vec![50_000], vec![0]));
            needs.pinned_cores.clear();
        },
        "ok",
    );
    let quota = |millis| move |seen: &mut Snapshot| seen.cgroup.cpu_millis = Some(millis);
    check(quota(3_000), "ok");
    check(quota(2_990), "cgroup-cpu warn 2.99 cores");
    check(
        |seen| seen.cgroup = Cgroup { cpu_millis: Some(8_000), throttled_count: Some(1), ..Cgroup::default() },
        "cgroup-cpu warn throttled 1 times",
    );
    check(|seen| seen.cgroup.memory_bytes = Some(2 * GIB), "ok");
    check(|seen| seen.cgroup.memory_bytes = Some(2 * GIB - 1), "memory warn 2047 MiB");
    check(|seen| seen.memory_bytes = Some(GIB), "memory warn 1024 MiB");
}

#[test]
fn places() {
    let on = |kind: &str| {
        let kind = kind.to_owned();
        move |seen: &mut Snapshot| seen.places[0].file_system = Some(kind)
    };
    check(on("xfs"), "ok");
    check(on("tmpfs"), "file-system fail tmpfs");
    check(on("nfs4"), "file-system fail nfs4");
    check(on("overlay"), "file-system fail overlay");
    check(on("btrfs"), "file-system warn btrfs");
    check(|seen| seen.places[0].options = Some("rw,nobarrier".to_owned()), "file-system fail nobarrier");
    check(|seen| seen.places[0].rotational = Some(true), "write-cache warn rotating");
    check(|seen| (seen.places[0].rotational, seen.places[0].device) = (Some(true), Some("vda".to_owned())), "ok");
    check(
        |seen| {
            let place = &mut seen.places[0];
            (place.write_cache, place.fua) = (Some("write back".to_owned()), Some(false));
        },
        "ok",
    );
    let free = |bytes| move |seen: &mut Snapshot| seen.places[0].free_bytes = Some(bytes);
    check(free(8 * GIB), "ok");
    check(free(8 * GIB - 1), "free-space warn 8191 MiB free");
    check(free(2 * GIB - 1), "free-space fail df -h /var/lib/sequencer");
}

#[test]
fn findings_are_json() {
    let finding = Finding::bad("x", Level::Warn, "seen", "change", "command");
    let text = serde_json::to_string(&finding).expect("plain values");
    assert_eq!(text, r#"{"check":"x","level":"warn","seen":"seen","change":"change","command":"command"}"#);
    let text = serde_json::to_string(&Finding::ok("x", "seen")).expect("plain values");
    assert_eq!(text, r#"{"check":"x","level":"ok","seen":"seen"}"#);
}
