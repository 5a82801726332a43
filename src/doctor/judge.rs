//! A snapshot and what the process needs in, findings out. Pure: no file, no clock, no system call.
//!
//! Thresholds stand here with their reason. A thing that the host does not say is `ok` when it can only be faster, and a warning when the process
//! might lose something.

use super::cpu_list;
use super::snapshot::{Interrupt, IoUring, Limit, Place, Snapshot};
use super::{Finding, Level, Needs};

/// The sockets' rings are of one thread and deferred (`IORING_SETUP_SINGLE_ISSUER`, `IORING_SETUP_DEFER_TASKRUN`), which came with Linux 6.1.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Locked memory of a ring with 256 entries and 4,096 completions: 84 KiB, tried with 64 KiB (refused) and 128 KiB (enough).
const RING_LOCKED_BYTES: u64 = 128 << 10;
/// Descriptors beside connections: journal slots, state segments, chain files, rings, doorbells, the log.
const OTHER_FILES: u64 = 1_024;
/// Maps: one a segment of the state (64 MiB by default), the chain's files, slabs, stacks. Linux's own default is enough.
const MAPS_MIN: u64 = 65_530;
/// Connections that may wait to be accepted; fewer and a burst of clients is reset.
const BACKLOG_MIN: u64 = 1_024;
/// An execution client refuses tokens that are 60 s old; block timestamps follow the clock.
const CLOCK_ERROR_US_WARN: u64 = 1_000_000;
/// Interrupts on a pinned core since the start of the host that are worth moving.
const INTERRUPTS_MIN: u64 = 1_000;
/// Control groups: less than this of a core is a broken limit.
const MILLIS_PER_CORE: u64 = 1_000;

/// What every start checks: without these nothing works, and the error says what to do.
#[must_use]
pub fn requirements(seen: &Snapshot, needs: &Needs) -> Vec<Finding> {
    vec![kernel(seen), uring(seen), locked_memory(seen, needs)]
}

/// Everything.
#[must_use]
pub fn all(seen: &Snapshot, needs: &Needs) -> Vec<Finding> {
    let mut findings = requirements(seen, needs);
    findings.extend([
        open_files(seen, needs),
        map_count(seen),
        backlog(seen),
        governor(seen),
        smt(seen, needs),
        huge_pages(seen),
        interrupts(seen, needs),
        isolation(seen, needs),
        cgroup_cpu(seen, needs),
        memory(seen, needs),
        swap(seen),
        clock(seen),
        clock_source(seen),
        core_dumps(seen),
    ]);
    for place in &seen.places {
        findings.extend([file_system(place), write_cache(place), room(place, needs)]);
    }
    findings
}

/// The two numbers of `6.1.0-28-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(seen: &Snapshot) -> Finding {
    let name = "kernel";
    match seen.kernel.as_deref().and_then(version) {
        None => Finding::ok(name, "the kernel does not say its version"),
        Some(found) if found >= KERNEL_MIN => Finding::ok(name, format!("Linux {}.{}", found.0, found.1)),
        Some((major, minor)) => Finding::bad(
            name,
            Level::Fail,
            format!("Linux {major}.{minor}"),
            "io_uring as it is needed here came with Linux 6.1: install a newer kernel",
            "apt-get install --only-upgrade linux-image-generic && reboot",
        ),
    }
}

/// `ENOSYS`, which a seccomp profile may answer as well as an old kernel.
const ENOSYS: i32 = 38;
const ENOMEM: i32 = 12;
/// What a kernel answers that does not know a kind of ring.
const EINVAL: i32 = 22;

fn uring(seen: &Snapshot) -> Finding {
    let name = "io_uring";
    let IoUring::Refused { errno, disabled } = seen.uring else { return Finding::ok(name, "works") };
    let bad = |seen: &str, change, command: &str| Finding::bad(name, Level::Fail, seen, change, command);
    match (errno, disabled) {
        (_, Some(2)) => bad(
            "refused: kernel.io_uring_disabled = 2",
            "io_uring is switched off for everybody: allow it",
            "sysctl -w kernel.io_uring_disabled=0 && echo kernel.io_uring_disabled=0 > /etc/sysctl.d/60-sequencer-io_uring.conf",
        ),
        (_, Some(1)) => bad(
            "refused: kernel.io_uring_disabled = 1",
            "io_uring is for root and one group only: allow it, or put the service's user into the group kernel.io_uring_group",
            "sysctl -w kernel.io_uring_disabled=0 && echo kernel.io_uring_disabled=0 > /etc/sysctl.d/60-sequencer-io_uring.conf",
        ),
        (ENOMEM, _) => bad(
            "refused: not enough memory may be locked",
            "each ingress thread has a ring: raise the limits of memory and of locked memory",
            "ulimit -l unlimited   (systemd: LimitMEMLOCK=infinity, MemoryMax=; Docker: --ulimit memlock=-1, --memory)",
        ),
        (EINVAL, _) => bad(
            "refused: this kernel does not know a ring of one thread, deferred (EINVAL)",
            "such rings came with Linux 6.1: install a newer kernel",
            "apt-get install --only-upgrade linux-image-generic && reboot",
        ),
        (ENOSYS, _) => bad(
            "refused: the kernel has no io_uring (ENOSYS)",
            "a kernel that was built without it, or a sandbox that hides it (gVisor, a seccomp profile): run outside it, or allow the calls",
            "docker run --security-opt seccomp=tuning/deploy/seccomp.json …",
        ),
        _ => bad(
            &format!("refused: error {errno}"),
            "a container's seccomp profile forbids it (Docker's default does): allow io_uring_setup, io_uring_enter and io_uring_register",
            "docker run --security-opt seccomp=tuning/deploy/seccomp.json …   (systemd: no SystemCallFilter without @io-event and io_uring_*)",
        ),
    }
}

fn show_limit(limit: u64, unit: u64, name: &str) -> String {
    if limit == u64::MAX { "unlimited".to_owned() } else { format!("{} {name}", limit / unit) }
}

fn locked_memory(seen: &Snapshot, needs: &Needs) -> Finding {
    let name = "memlock";
    let Some(Limit { hard, .. }) = seen.locked_memory else { return Finding::ok(name, "the kernel does not say") };
    let wanted = needs.ring_count.saturating_mul(RING_LOCKED_BYTES);
    let shown = format!("{} may be locked, {} KiB are needed", show_limit(hard, 1 << 10, "KiB"), wanted >> 10);
    // What is below the hard limit is raised at the start.
    if hard >= wanted || seen.may_lock_anything {
        return Finding::ok(name, shown);
    }
    Finding::bad(
        name,
        Level::Fail,
        shown,
        "each ingress thread's io_uring locks memory, and the limit is of all processes of the user together: raise it",
        "ulimit -l unlimited   (systemd: LimitMEMLOCK=infinity; Docker: --ulimit memlock=-1; for a login: tuning/limits apply)",
    )
}

fn open_files(seen: &Snapshot, needs: &Needs) -> Finding {
    let name = "open-files";
    let Some(Limit { hard, .. }) = seen.open_files else { return Finding::ok(name, "the kernel does not say") };
    let wanted = needs.connections_max.saturating_add(OTHER_FILES);
    if hard >= wanted {
        return Finding::ok(name, format!("{}, {wanted} may be needed", show_limit(hard, 1, "files")));
    }
    Finding::bad(
        name,
        Level::Warn,
        format!("{hard} files, {wanted} may be needed (http.connections-max and {OTHER_FILES} of our own)"),
        "connections beyond it wait until others close: raise the limit or lower http.connections-max",
        format!(
            "ulimit -n {wanted}   (systemd: LimitNOFILE={wanted}; Docker: --ulimit nofile={wanted}; for a login: tuning/limits apply)"
        ),
    )
}

fn map_count(seen: &Snapshot) -> Finding {
    let name = "map-count";
    match seen.map_count_max {
        Some(found) if found < MAPS_MIN => Finding::bad(
            name,
            Level::Warn,
            format!("vm.max_map_count = {found}"),
            "each segment of the state is a map: a large state cannot be opened",
            "tuning/sysctl apply   (or: sysctl -w vm.max_map_count=262144)",
        ),
        Some(found) => Finding::ok(name, format!("vm.max_map_count = {found}")),
        None => Finding::ok(name, "the kernel does not say"),
    }
}

fn backlog(seen: &Snapshot) -> Finding {
    let name = "listen-backlog";
    match seen.listen_backlog_max {
        Some(found) if found < BACKLOG_MIN => Finding::bad(
            name,
            Level::Warn,
            format!("net.core.somaxconn = {found}"),
            "a burst of new connections is reset",
            "tuning/sysctl apply   (or: sysctl -w net.core.somaxconn=4096)",
        ),
        Some(found) => Finding::ok(name, format!("net.core.somaxconn = {found}")),
        None => Finding::ok(name, "the kernel does not say"),
    }
}

fn governor(seen: &Snapshot) -> Finding {
    let name = "cpu-governor";
    let governors = &seen.cpu.governors;
    if governors.is_empty() {
        return Finding::ok(name, "the host decides (virtual machine, or no frequency scaling)");
    }
    let slow = governors.iter().filter(|governor| *governor != "performance").count();
    if slow == 0 {
        return Finding::ok(name, "performance on all cores");
    }
    let mut names: Vec<&str> = governors.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    Finding::bad(
        name,
        Level::Warn,
        format!("{} on {slow} of {} cores", names.join(", "), governors.len()),
        "a core that was clocked down takes milliseconds to come back: latency of the first requests after a pause",
        "tuning/governor apply   (or: echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor)",
    )
}

fn smt(seen: &Snapshot, needs: &Needs) -> Finding {
    let name = "smt";
    match seen.cpu.smt_active {
        None => return Finding::ok(name, "the kernel does not say"),
        Some(false) => return Finding::ok(name, "off"),
        Some(true) => {}
    }
    if needs.pinned_cores.is_empty() {
        return Finding::ok(name, "on; no thread is pinned, so nothing is shared that could be avoided");
    }
    let pinned = |list: &&Vec<usize>| list.iter().filter(|core| needs.pinned_cores.contains(core)).count() > 0;
    let shared: Vec<String> = seen.cpu.siblings.iter().filter(pinned).map(|list| cpu_list::show(list)).collect();
    if shared.is_empty() {
        return Finding::ok(name, "on; no pinned thread shares a core");
    }
    Finding::bad(
        name,
        Level::Warn,
        format!("on: pinned threads share the cores {}", shared.join("; ")),
        "what runs on the other half of a core takes up to half of the builder's or a shard's speed: switch it off, or keep the siblings idle (isolcpus)",
        "tuning/smt apply   (or: echo off > /sys/devices/system/cpu/smt/control)",
    )
}

fn huge_pages(seen: &Snapshot) -> Finding {
    let name = "transparent-huge-pages";
    match seen.cpu.huge_pages.as_deref() {
        None => Finding::ok(name, "the kernel does not say"),
        // A fault of 2 MiB zeroes 2 MiB while a core waits (ARCHITECTURE.md, memory of blocks to come).
        Some("always") => Finding::bad(
            name,
            Level::Warn,
            "always",
            "the kernel zeroes 2 MiB at a page fault and compacts memory while a pinned core waits: milliseconds at the tail",
            "tuning/thp apply   (or: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled)",
        ),
        Some(found) => Finding::ok(name, found),
    }
}

fn interrupts(seen: &Snapshot, needs: &Needs) -> Finding {
    let name = "interrupts";
    if needs.pinned_cores.is_empty() {
        return Finding::ok(name, "no thread is pinned");
    }
    let on_pinned = |interrupt: &Interrupt| -> u64 {
        needs.pinned_cores.iter().filter_map(|core| interrupt.counts.get(*core)).sum()
    };
    let mut disturbing: Vec<(&Interrupt, u64)> = seen
        .interrupts
        .iter()
        .filter(|interrupt| interrupt.affinity.iter().any(|core| needs.pinned_cores.contains(core)))
        .map(|interrupt| (interrupt, on_pinned(interrupt)))
        .filter(|(_, count)| *count >= INTERRUPTS_MIN)
        .collect();
    disturbing.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let Some((worst, count)) = disturbing.first() else {
        return Finding::ok(name, format!("none on the pinned cores {}", cpu_list::show(&needs.pinned_cores)));
    };
    let cores = cpu_list::show(&needs.pinned_cores);
    Finding::bad(
        name,
        Level::Warn,
        format!(
            "{} of devices come to the pinned cores {cores}, most of them {} ({}): {count} so far",
            disturbing.len(),
            worst.number,
            worst.name
        ),
        "each takes the builder or a shard away in mid-work: let them come to the other cores (interrupts of NVMe queues cannot be moved, which is fine)",
        format!("tuning/irq apply --keep-free {cores}   (and stop irqbalance: systemctl disable --now irqbalance)"),
    )
}

fn isolation(seen: &Snapshot, needs: &Needs) -> Finding {
    let name = "isolated-cores";
    let cores = cpu_list::show(&needs.pinned_cores);
    if needs.pinned_cores.is_empty() {
        return Finding::ok(name, "no thread is pinned");
    }
    if needs.pinned_cores.iter().all(|core| seen.cpu.isolated.contains(core)) {
        return Finding::ok(name, format!("the kernel keeps others off {cores}"));
    }
    // Worth it on a machine of its own only, so that it is no warning.
    Finding::ok(
        name,
        format!(
            "the scheduler may put others on the pinned cores {cores}; on a machine of its own: tuning/isolation hint --cores {cores}"
        ),
    )
}

fn cgroup_cpu(seen: &Snapshot, needs: &Needs) -> Finding {
    let name = "cgroup-cpu";
    let Some(millis) = seen.cgroup.cpu_millis else { return Finding::ok(name, "no limit") };
    let throttled = seen.cgroup.throttled_count.unwrap_or(0);
    let shown = format!("{}.{:02} cores, throttled {throttled} times", millis / 1_000, millis % 1_000 / 10);
    // Builder and one shard need a core each to be pinned to; one more serves state, chain and queries.
    let wanted = (needs.pinned_cores.len() as u64 + 1).max(2) * MILLIS_PER_CORE;
    if millis >= wanted && throttled == 0 {
        return Finding::ok(name, shown);
    }
    Finding::bad(
        name,
        Level::Warn,
        shown,
        "a group that has used its share stands still until the period is over, up to 100 ms: give it more, or no limit (CPUWeight shares without stopping)",
        "systemctl set-property sequencer CPUQuota=   (Docker: no --cpus; use --cpuset-cpus)",
    )
}

fn memory(seen: &Snapshot, needs: &Needs) -> Finding {
    let name = "memory";
    let all = [seen.memory_bytes, seen.cgroup.memory_bytes].into_iter().flatten().min();
    let Some(bytes) = all else { return Finding::ok(name, "the kernel does not say") };
    let shown =
        format!("{} MiB, about {} MiB at full load beside the state's pages", bytes >> 20, needs.memory_bytes >> 20);
    if bytes >= needs.memory_bytes {
        return Finding::ok(name, shown);
    }
    Finding::bad(
        name,
        Level::Warn,
        shown,
        "the kernel ends the process when memory is used up; the journal keeps what was acknowledged, and nobody is served meanwhile",
        "more memory, or less of mempool.bytes-max and mempool.transactions-max",
    )
}

fn swap(seen: &Snapshot) -> Finding {
    let name = "swap";
    match seen.swappiness {
        None => Finding::ok(name, "none"),
        Some(found) if found <= 10 => Finding::ok(name, format!("there is swap, vm.swappiness = {found}")),
        Some(found) => Finding::bad(
            name,
            Level::Warn,
            format!("there is swap, vm.swappiness = {found}"),
            "pages of the pool that were swapped out cost milliseconds each, on the builder core",
            "tuning/sysctl apply   (or: sysctl -w vm.swappiness=1)",
        ),
    }
}

fn clock(seen: &Snapshot) -> Finding {
    let name = "clock";
    let bad = |seen: String| {
        Finding::bad(
            name,
            Level::Warn,
            seen,
            "block timestamps follow this clock, execution clients refuse tokens that are 60 s old, and a clock behind the chain stops the start: let something set it",
            "timedatectl set-ntp true   (or: apt-get install chrony)",
        )
    };
    match seen.clock_error_us {
        None => Finding::ok(name, "the kernel does not say"),
        Some(None) => bad("nobody sets it".to_owned()),
        Some(Some(error_us)) if error_us > CLOCK_ERROR_US_WARN => {
            bad(format!("may be wrong by {} ms", error_us / 1_000))
        }
        Some(Some(error_us)) => Finding::ok(name, format!("set, wrong by at most {} ms", error_us.div_ceil(1_000))),
    }
}

fn clock_source(seen: &Snapshot) -> Finding {
    let name = "clock-source";
    match seen.clock_source.as_deref() {
        None => Finding::ok(name, "the kernel does not say"),
        Some(found @ ("hpet" | "acpi_pm" | "xen" | "jiffies")) => Finding::bad(
            name,
            Level::Warn,
            found,
            "reading the time is a system call, and it is read for every request",
            "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource   (if available_clocksource lists it)",
        ),
        Some(found) => Finding::ok(name, found),
    }
}

fn core_dumps(seen: &Snapshot) -> Finding {
    let name = "core-dumps";
    match seen.core_pattern.as_deref() {
        Some(pattern) => Finding::ok(name, format!("`run` forbids its own; the host's pattern is {pattern}")),
        None => Finding::ok(name, "`run` forbids its own"),
    }
}

fn file_system(place: &Place) -> Finding {
    let name = "file-system";
    let Some(kind) = place.file_system.as_deref() else {
        return Finding::ok(name, format!("{} ({}): the kernel does not say", place.name, place.path));
    };
    let options = place.options.as_deref().unwrap_or_default();
    let shown = format!("{} ({}): {kind}, {options}", place.name, place.path);
    let bad = |level, change| {
        let command = "put data-dir, journal.dir and state.dir on ext4 or xfs on a disk of this machine";
        Finding::bad(name, level, shown.clone(), change, command)
    };
    match kind {
        "tmpfs" | "ramfs" | "devtmpfs" => bad(Level::Fail, "memory: everything is gone after a power cut or a reboot"),
        "nfs" | "nfs4" | "cifs" | "smb3" | "fuse.sshfs" | "9p" | "ceph" => bad(
            Level::Fail,
            "a network: a sync may be answered by a cache, locks and maps behave differently, and it goes away with the network",
        ),
        "overlay" | "aufs" => bad(Level::Fail, "a container's own layer: gone with the container; mount a volume"),
        "btrfs" | "zfs" | "bcachefs" => bad(
            Level::Warn,
            "copies what is overwritten: journal slots lose their places, and a durable write costs several",
        ),
        _ if options.split(',').any(|option| option == "nobarrier" || option == "barrier=0") => {
            bad(Level::Fail, "barriers are switched off: a power cut loses what was acknowledged")
        }
        _ => Finding::ok(name, shown),
    }
}

fn write_cache(place: &Place) -> Finding {
    let name = "write-cache";
    let Some(device) = place.device.as_deref() else {
        return Finding::ok(name, format!("{} ({}): no disk of this machine", place.name, place.path));
    };
    let fua = place.fua.map_or("unknown", |fua| if fua { "yes" } else { "no" });
    let cache = place.write_cache.as_deref().unwrap_or("unknown");
    let shown = format!("{} on {device}: cache {cache}, FUA {fua}", place.name);
    // Virtual disks say so whatever they are.
    let is_virtual = ["vd", "xvd", "dm-", "loop"].iter().any(|prefix| device.starts_with(prefix));
    if place.rotational == Some(true) && !is_virtual {
        return Finding::bad(
            name,
            Level::Warn,
            format!("{shown}, rotating"),
            "each durable group waits for the platter: 4 to 10 ms for every acknowledgement",
            "journal.dir on an NVMe disk with power-loss protection",
        );
    }
    match (cache, place.fua) {
        ("write back", Some(false)) => Finding::ok(
            name,
            format!(
                "{shown}: every durable write flushes the whole cache; a disk with FUA or power-loss protection is faster"
            ),
        ),
        _ => Finding::ok(name, shown),
    }
}

fn room(place: &Place, needs: &Needs) -> Finding {
    let name = "free-space";
    let Some(free) = place.free_bytes else {
        return Finding::ok(name, format!("{} ({}): the kernel does not say", place.name, place.path));
    };
    let shown = format!("{} ({}): {} MiB free", place.name, place.path, free >> 20);
    if free >= needs.free_bytes_min {
        return Finding::ok(name, shown);
    }
    let level = if free < needs.free_bytes_min / 4 { Level::Fail } else { Level::Warn };
    Finding::bad(
        name,
        level,
        format!("{shown}, {} MiB are wanted", needs.free_bytes_min >> 20),
        "a full disk stops admission (-32005) until there is room again; nothing is lost",
        format!("df -h {path} && du -xh --max-depth=2 {path} | sort -h | tail", path = place.path),
    )
}

#[cfg(test)]
mod tests;
