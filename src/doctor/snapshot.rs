//! What was seen of a host. `None` and empty: the host does not say (a container, an old kernel, another architecture).

/// A limit of the process: as it is, and as far as it can be raised without privileges. `u64::MAX`: none.
pub use crate::runtime::process::Limit;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// As in `uname -r`.
    pub kernel: Option<String>,
    pub uring: IoUring,
    pub locked_memory: Option<Limit>,
    /// Whether the process has `CAP_IPC_LOCK`, so that the limit does not count.
    pub may_lock_anything: bool,
    pub open_files: Option<Limit>,
    pub cpu: Cpu,
    pub interrupts: Vec<Interrupt>,
    pub cgroup: Cgroup,
    /// Microseconds of the clock's error, when somebody sets it.
    pub clock_error_us: Option<Option<u64>>,
    /// Where the kernel reads time from: `tsc`, `kvm-clock`, …
    pub clock_source: Option<String>,
    /// `vm.max_map_count`.
    pub map_count_max: Option<u64>,
    /// `net.core.somaxconn`.
    pub listen_backlog_max: Option<u64>,
    /// `kernel.core_pattern`.
    pub core_pattern: Option<String>,
    /// `vm.swappiness`, where there is swap at all.
    pub swappiness: Option<u64>,
    pub memory_bytes: Option<u64>,
    /// The directories that are written.
    pub places: Vec<Place>,
}

/// Whether an io_uring could be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IoUring {
    #[default]
    Works,
    /// The error's number, and `kernel.io_uring_disabled`.
    Refused { errno: i32, disabled: Option<u64> },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Governor of each core that has one.
    pub governors: Vec<String>,
    /// `/sys/devices/system/cpu/smt/active`.
    pub smt_active: Option<bool>,
    /// Hardware threads that share a core with another one, as lists: `0,4`.
    pub siblings: Vec<Vec<usize>>,
    /// The chosen word of `transparent_hugepage/enabled` and `…/defrag`.
    pub huge_pages: Option<String>,
    pub huge_pages_defrag: Option<String>,
    /// `isolcpus` of the kernel, as a list of cores.
    pub isolated: Vec<usize>,
}

/// An interrupt of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interrupt {
    pub number: u32,
    pub name: String,
    /// Interrupts on each core since the start.
    pub counts: Vec<u64>,
    /// Cores that it may come to.
    pub affinity: Vec<usize>,
}

/// Limits of the control group (v2), the least of it and its parents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
    /// Times that the group had to wait for its share.
    pub throttled_count: Option<u64>,
}

/// A directory that is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Which setting names it.
    pub name: &'static str,
    pub path: String,
    pub file_system: Option<String>,
    pub options: Option<String>,
    pub free_bytes: Option<u64>,
    /// Name of the block device, as under `/sys/block`.
    pub device: Option<String>,
    /// `queue/write_cache`.
    pub write_cache: Option<String>,
    /// `queue/fua`.
    pub fua: Option<bool>,
    pub rotational: Option<bool>,
}
