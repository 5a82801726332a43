//! Reads a [`Snapshot`]: `/proc` and `/sys` below a root, so that tests bring their own, and a few system calls. Decides nothing.

use std::fs::{read_dir, read_to_string};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cpu_list;
use super::snapshot::{Cgroup, Cpu, Interrupt, IoUring, Place, Snapshot};
use crate::runtime::process::{self, Resource};

/// Parents of a control group that are looked at.
const CGROUP_DEPTH_MAX: usize = 32;
/// Interrupts that are looked at.
const INTERRUPTS_MAX: usize = 4_096;

/// What every start needs to know: quick, and without `/sys`.
#[must_use]
pub fn requirements() -> Snapshot {
    let root = Path::new("/");
    Snapshot {
        kernel: text(root, "proc/sys/kernel/osrelease"),
        uring: uring(root),
        locked_memory: process::limit(Resource::LockedMemoryBytes).ok(),
        may_lock_anything: text(root, "proc/self/status").is_some_and(|status| may_lock_anything(&status)),
        open_files: process::limit(Resource::OpenFiles).ok(),
        ..Snapshot::default()
    }
}

/// The whole host, and the directories `places` (setting and path).
#[must_use]
pub fn host(places: &[(&'static str, PathBuf)]) -> Snapshot {
    let root = Path::new("/");
    Snapshot {
        clock_error_us: process::clock_error_us().ok(),
        places: places.iter().map(|(name, path)| place(root, name, path)).collect(),
        ..files(root, requirements())
    }
}

/// What files below `root` say, on top of `known`.
fn files(root: &Path, known: Snapshot) -> Snapshot {
    let swaps = text(root, "proc/swaps").is_some_and(|text| text.lines().count() > 1);
    Snapshot {
        cpu: cpu(root),
        interrupts: interrupts(root),
        cgroup: cgroup(root),
        clock_source: text(root, "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        map_count_max: number(root, "proc/sys/vm/max_map_count"),
        listen_backlog_max: number(root, "proc/sys/net/core/somaxconn"),
        core_pattern: text(root, "proc/sys/kernel/core_pattern"),
        swappiness: number(root, "proc/sys/vm/swappiness").filter(|_| swaps),
        memory_bytes: text(root, "proc/meminfo").and_then(|text| memory_bytes(&text)),
        ..known
    }
}

fn uring(root: &Path) -> IoUring {
    match process::try_io_uring() {
        Ok(()) => IoUring::Works,
        Err(error) => IoUring::Refused {
            errno: error.raw_os_error().unwrap_or_default(),
            disabled: number(root, "proc/sys/kernel/io_uring_disabled"),
        },
    }
}

fn text(root: &Path, path: impl AsRef<Path>) -> Option<String> {
    Some(read_to_string(root.join(path)).ok()?.trim().to_owned())
}

fn number(root: &Path, path: impl AsRef<Path>) -> Option<u64> {
    text(root, path)?.parse().ok()
}

/// Bit of `CAP_IPC_LOCK` in the effective capabilities.
const CAP_IPC_LOCK: u32 = 14;

fn may_lock_anything(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1)
}

fn flag(root: &Path, path: impl AsRef<Path>) -> Option<bool> {
    number(root, path).map(|number| number != 0)
}

/// The word in brackets of `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

fn cpu(root: &Path) -> Cpu {
    let cores = Path::new("sys/devices/system/cpu");
    let mut numbers: Vec<usize> = read_dir(root.join(cores))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("cpu")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let of = |core: &usize, file: &str| text(root, cores.join(format!("cpu{core}/{file}")));
    let mut siblings: Vec<Vec<usize>> = numbers
        .iter()
        .filter_map(|core| cpu_list::parse(&of(core, "topology/thread_siblings_list")?))
        .filter(|list| list.len() > 1)
        .collect();
    siblings.sort();
    siblings.dedup();
    let huge = |file: &str| text(root, format!("sys/kernel/mm/transparent_hugepage/{file}"));
    Cpu {
        governors: numbers.iter().filter_map(|core| of(core, "cpufreq/scaling_governor")).collect(),
        smt_active: flag(root, cores.join("smt/active")),
        siblings,
        huge_pages: huge("enabled").and_then(|text| chosen(&text)),
        huge_pages_defrag: huge("defrag").and_then(|text| chosen(&text)),
        isolated: text(root, cores.join("isolated")).and_then(|text| cpu_list::parse(&text)).unwrap_or_default(),
    }
}

/// The numbered lines of `/proc/interrupts`: number, counts of each core, controller and name.
fn interrupts(root: &Path) -> Vec<Interrupt> {
    let Some(table) = text(root, "proc/interrupts") else { return Vec::new() };
    let core_count = table.lines().next().map_or(0, |head| head.split_whitespace().count());
    let line = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let number = number.trim().parse().ok()?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let counts: Vec<u64> = words.iter().take(core_count).map_while(|word| word.parse().ok()).collect();
        let name = words.get(counts.len()..).unwrap_or_default().join(" ");
        let affinity = text(root, format!("proc/irq/{number}/smp_affinity_list"));
        let affinity = affinity.and_then(|text| cpu_list::parse(&text)).unwrap_or_default();
        Some(Interrupt { number, name, counts, affinity })
    };
    table.lines().skip(1).take(INTERRUPTS_MAX).filter_map(line).collect()
}

/// The least of what the group of this process and its parents may have.
fn cgroup(root: &Path) -> Cgroup {
    let own = text(root, "proc/self/cgroup");
    let own = own.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::")));
    let base = Path::new("sys/fs/cgroup");
    let mut least = Cgroup::default();
    for group in Path::new(own.unwrap_or("/")).ancestors().take(CGROUP_DEPTH_MAX) {
        let dir = base.join(group.strip_prefix("/").unwrap_or(group));
        let cpu = text(root, dir.join("cpu.max")).and_then(|text| cpu_millis(&text));
        let memory = number(root, dir.join("memory.max"));
        let throttled = text(root, dir.join("cpu.stat")).and_then(|text| {
            text.lines().find_map(|line| line.strip_prefix("nr_throttled "))?.trim().parse::<u64>().ok()
        });
        least.cpu_millis = lesser(least.cpu_millis, cpu);
        least.memory_bytes = lesser(least.memory_bytes, memory);
        least.throttled_count = least.throttled_count.max(throttled);
    }
    least
}

fn lesser(left: Option<u64>, right: Option<u64>) -> Option<u64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}

/// `200000 100000` are two cores; `max 100000` is no limit.
fn cpu_millis(text: &str) -> Option<u64> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.trim().parse().ok()?);
    quota.checked_mul(1_000)?.checked_div(period)
}

fn place(root: &Path, name: &'static str, path: &Path) -> Place {
    // Before the first start it does not exist: what its parent lies on is what it will lie on.
    let existing = path.ancestors().find(|path| path.exists()).map_or_else(|| PathBuf::from("."), Path::to_owned);
    let existing = existing.canonicalize().unwrap_or(existing);
    let mounts = text(root, "proc/self/mountinfo").unwrap_or_default();
    let mount = mount_of(&mounts, &existing);
    let device = existing.metadata().ok().and_then(|metadata| block_device(root, metadata.dev()));
    let queue = |file: &str| device.as_ref().map(|device| format!("sys/block/{device}/queue/{file}"));
    Place {
        name,
        path: path.display().to_string(),
        file_system: mount.as_ref().map(|(kind, _)| kind.clone()),
        options: mount.map(|(_, options)| options),
        free_bytes: process::room(&existing).ok().map(|(_, free)| free),
        write_cache: queue("write_cache").and_then(|path| text(root, path)),
        fua: queue("fua").and_then(|path| flag(root, path)),
        rotational: queue("rotational").and_then(|path| flag(root, path)),
        device,
    }
}

/// Kind and options of the file system that `path` lies on: the longest mount point wins, the last one of equals.
fn mount_of(mountinfo: &str, path: &Path) -> Option<(String, String)> {
    let line = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let point = PathBuf::from(mount.next()?.replace("\\040", " "));
        let options = mount.next()?.to_owned();
        let kind = file_system.split(' ').next()?.to_owned();
        path.starts_with(&point).then(|| (point.components().count(), (kind, options)))
    };
    mountinfo.lines().filter_map(line).max_by_key(|(length, _)| *length).map(|(_, found)| found)
}

/// The disk below a device number, as `/sys/block` names it: a partition's disk is its parent folder.
fn block_device(root: &Path, device: u64) -> Option<String> {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    let link = std::fs::read_link(root.join(format!("sys/dev/block/{major}:{minor}"))).ok()?;
    let names: Vec<&str> = link.iter().filter_map(|part| part.to_str()).collect();
    let is_disk = |name: &&&str| root.join("sys/block").join(name).exists();
    names.iter().rev().find(is_disk).map(|name| (*name).to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use super::*;

    /// A root with these files.
    fn root(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("sequencer-doctor-{name}-{}", std::process::id()));
        for (path, content) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn files_are_read_where_the_kernel_has_them() {
        let root = root(
            "files",
            &[
                ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
                ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n"),
                ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0-1\n"),
                ("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-1\n"),
                ("sys/devices/system/cpu/cpufreq/ignored", ""),
                ("sys/devices/system/cpu/smt/active", "1\n"),
                ("sys/devices/system/cpu/isolated", "\n"),
                ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
                ("proc/interrupts", "      CPU0   CPU1\n 24:   5   7  PCI-MSI 1-edge  eth0-rx\nNMI:  1  1  x\n"),
                ("proc/irq/24/smp_affinity_list", "0-1\n"),
                ("proc/self/cgroup", "0::/a/b\n"),
                ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
                ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
                ("sys/fs/cgroup/a/cpu.stat", "usage_usec 1\nnr_throttled 3\n"),
                ("sys/fs/cgroup/a/b/memory.max", "1000\n"),
                ("sys/fs/cgroup/a/memory.max", "max\n"),
                ("proc/swaps", "Filename Type\n/swap file\n"),
                ("proc/sys/vm/swappiness", "60\n"),
                ("proc/meminfo", "MemTotal:       2048 kB\nMemFree: 1 kB\n"),
            ],
        );
        let seen = files(&root, Snapshot::default());
        let interrupt = Interrupt {
            number: 24,
            name: "PCI-MSI 1-edge eth0-rx".to_owned(),
            counts: vec![5, 7],
            affinity: vec![0, 1],
        };
        let expected = Snapshot {
            cpu: Cpu {
                governors: vec!["powersave".to_owned(), "performance".to_owned()],
                smt_active: Some(true),
                siblings: vec![vec![0, 1]],
                huge_pages: Some("madvise".to_owned()),
                ..Cpu::default()
            },
            interrupts: vec![interrupt],
            cgroup: Cgroup { cpu_millis: Some(1_500), memory_bytes: Some(1_000), throttled_count: Some(3) },
            swappiness: Some(60),
            memory_bytes: Some(2_048 * 1_024),
            ..Snapshot::default()
        };
        assert_eq!(seen, expected);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_capability_is_one_bit() {
        assert!(may_lock_anything("Name:\tx\nCapEff:\t0000000000004000\n"));
        assert!(!may_lock_anything("CapPrm:\t0000000000004000\nCapEff:\t000001ffffffbfff\n"));
        assert!(!may_lock_anything("CapEff:\tx\n"));
    }

    #[test]
    fn a_path_lies_on_the_longest_mount_point() {
        let mounts = "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            2 1 0:5 / /var\\040x rw - xfs /dev/sdb rw\n3 1 0:6 / /tmp rw,nosuid - tmpfs tmpfs rw\n";
        let of = |path: &str| mount_of(mounts, Path::new(path)).map(|(kind, _)| kind);
        assert_eq!(of("/tmp/a").as_deref(), Some("tmpfs"));
        assert_eq!(of("/tmpx").as_deref(), Some("ext4"));
        assert_eq!(of("/var x/y").as_deref(), Some("xfs"));
        assert_eq!(mount_of(mounts, Path::new("/tmp")).unwrap().1, "rw,nosuid");
    }

    #[test]
    fn a_partition_belongs_to_its_disk() {
        let root = root("disk", &[("sys/block/vda/queue/fua", "1\n")]);
        let link = root.join("sys/dev/block/253:17");
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("../../devices/pci0/virtio1/block/vda/vda1", &link).unwrap();
        assert_eq!(block_device(&root, 253 << 8 | 17).as_deref(), Some("vda"));
        assert_eq!(block_device(&root, 1 << 8), None);
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn this_host_can_be_read() {
        let seen = host(&[("data-dir", std::env::temp_dir().join("not/there"))]);
        assert!(seen.kernel.is_some() && seen.open_files.is_some() && seen.memory_bytes.is_some(), "{seen:?}");
        assert!(seen.places[0].free_bytes.is_some() && seen.places[0].file_system.is_some(), "{seen:?}");
    }
}
