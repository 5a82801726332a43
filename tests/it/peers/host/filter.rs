#![allow(unsafe_code, reason = "a seccomp filter has no safe interface")]
//! Starts a child under a container's seccomp profile, without a container: the profile's JSON becomes a filter of the kernel.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

/// The audit name of the machine's instruction set; the kernel's numbers of system calls belong to it.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;
/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

macro_rules! system_calls {
    ($($name:ident),* $(,)?) => {
        /// Every system call that a profile may name, with its number on this machine.
        const SYSTEM_CALLS: &[(&str, libc::c_long)] = &[$((stringify!($name), libc::$name)),*];
    };
}

system_calls![
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_preadv,
    SYS_pwritev,
    SYS_preadv2,
    SYS_pwritev2,
    SYS_open,
    SYS_openat,
    SYS_openat2,
    SYS_close,
    SYS_close_range,
    SYS_stat,
    SYS_fstat,
    SYS_lstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_statfs,
    SYS_fstatfs,
    SYS_access,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_lseek,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fsync,
    SYS_fdatasync,
    SYS_sync_file_range,
    SYS_flock,
    SYS_fcntl,
    SYS_fadvise64,
    SYS_getdents64,
    SYS_mkdir,
    SYS_mkdirat,
    SYS_rmdir,
    SYS_unlink,
    SYS_unlinkat,
    SYS_rename,
    SYS_renameat,
    SYS_renameat2,
    SYS_link,
    SYS_linkat,
    SYS_symlinkat,
    SYS_readlink,
    SYS_readlinkat,
    SYS_chmod,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_umask,
    SYS_utimensat,
    SYS_getcwd,
    SYS_chdir,
    SYS_fchdir,
    SYS_copy_file_range,
    SYS_dup,
    SYS_dup2,
    SYS_dup3,
    SYS_pipe2,
    SYS_mmap,
    SYS_munmap,
    SYS_mremap,
    SYS_mprotect,
    SYS_madvise,
    SYS_mincore,
    SYS_msync,
    SYS_mlock,
    SYS_mlock2,
    SYS_munlock,
    SYS_membarrier,
    SYS_brk,
    SYS_socket,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_connect,
    SYS_getsockname,
    SYS_getpeername,
    SYS_setsockopt,
    SYS_getsockopt,
    SYS_sendto,
    SYS_recvfrom,
    SYS_sendmsg,
    SYS_recvmsg,
    SYS_shutdown,
    SYS_socketpair,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_wait,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_poll,
    SYS_ppoll,
    SYS_select,
    SYS_pselect6,
    SYS_eventfd2,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_timerfd_gettime,
    SYS_futex,
    SYS_futex_waitv,
    SYS_set_robust_list,
    SYS_get_robust_list,
    SYS_restart_syscall,
    SYS_rseq,
    SYS_set_tid_address,
    SYS_gettid,
    SYS_getpid,
    SYS_getppid,
    SYS_tgkill,
    SYS_tkill,
    SYS_kill,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_sched_setaffinity,
    SYS_sched_getattr,
    SYS_sched_setattr,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_getpriority,
    SYS_setpriority,
    SYS_getcpu,
    SYS_execve,
    SYS_exit,
    SYS_exit_group,
    SYS_wait4,
    SYS_waitid,
    SYS_arch_prctl,
    SYS_prctl,
    SYS_prlimit64,
    SYS_getrlimit,
    SYS_setrlimit,
    SYS_getrusage,
    SYS_sysinfo,
    SYS_uname,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_rt_sigtimedwait,
    SYS_rt_sigsuspend,
    SYS_sigaltstack,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_gettimeofday,
    SYS_time,
    SYS_times,
    SYS_adjtimex,
    SYS_getrandom,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getresuid,
    SYS_getresgid,
    SYS_getgroups,
    SYS_setuid,
    SYS_setgid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_setgroups,
    SYS_setsid,
    SYS_capget,
    SYS_capset,
    SYS_fchown,
    SYS_fchownat,
    SYS_clone,
    SYS_clone3,
];

/// What a profile does with one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Allow,
    /// Only while none of these bits of the first argument is set.
    AllowUnless(u32),
    Refuse(u32),
}

/// A profile in Docker's format, as far as ours uses it.
#[derive(Clone, Debug)]
pub struct Profile {
    rules: Vec<(String, Rule)>,
    errno: u32,
}

impl Profile {
    /// Panics at everything that the profile says and this does not understand: a test must not be laxer than a container.
    pub fn parse(text: &str) -> Self {
        let json: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(json["defaultAction"], "SCMP_ACT_ERRNO");
        let mut rules: Vec<(String, Rule)> = Vec::new();
        for group in json["syscalls"].as_array().expect("a list") {
            let known = ["comment", "names", "action", "args", "errnoRet"];
            assert!(group.as_object().expect("an object").keys().all(|key| known.contains(&key.as_str())), "{group}");
            let rule = match (group["action"].as_str(), group["args"].as_array()) {
                (Some("SCMP_ACT_ALLOW"), None) => Rule::Allow,
                (Some("SCMP_ACT_ALLOW"), Some(arguments)) => {
                    let [argument] = &arguments[..] else { panic!("one argument: {group}") };
                    assert_eq!(
                        (&argument["index"], &argument["op"]),
                        (&0.into(), &"SCMP_CMP_MASKED_EQ".into()),
                        "{group}"
                    );
                    assert!(argument.get("valueTwo").is_none(), "the masked bits must be zero: {group}");
                    Rule::AllowUnless(u32::try_from(argument["value"].as_u64().expect("a mask")).expect("32 bits"))
                }
                (Some("SCMP_ACT_ERRNO"), None) => {
                    Rule::Refuse(u32::try_from(group["errnoRet"].as_u64().expect("a number")).expect("small"))
                }
                _ => panic!("not understood: {group}"),
            };
            let names =
                group["names"].as_array().expect("a list").iter().map(|name| name.as_str().expect("a name").to_owned());
            rules.extend(names.map(|name| (name, rule.clone())));
        }
        Self { rules, errno: EPERM }
    }

    /// The profile without these calls.
    pub fn without(mut self, names: &[&str]) -> Self {
        self.rules.retain(|(name, _)| !names.contains(&name.as_str()));
        self
    }

    /// What is not allowed answers with this number.
    pub fn answering(mut self, errno: u32) -> Self {
        self.errno = errno;
        self
    }

    /// Has `command` run under the profile.
    pub fn apply(&self, command: &mut Command) {
        let filter = self.filter();
        // SAFETY: the closure runs between fork and exec and does nothing there but two system calls on memory made before.
        unsafe { command.pre_exec(move || install(&filter)) };
    }

    fn filter(&self) -> Vec<libc::sock_filter> {
        let refused = |errno: u32| libc::SECCOMP_RET_ERRNO | errno;
        let mut filter =
            vec![load(ARCHITECTURE_AT), jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0), answer(refused(ENOSYS)), load(NUMBER)];
        for (name, rule) in &self.rules {
            let known = SYSTEM_CALLS.iter().find(|(known, _)| known.strip_prefix("SYS_") == Some(name));
            let number = known.unwrap_or_else(|| panic!("`{name}` is not in the table of this test")).1;
            let number = u32::try_from(number).expect("numbers of system calls are small");
            match rule {
                Rule::Allow => filter.extend([jump(libc::BPF_JEQ, number, 0, 1), answer(libc::SECCOMP_RET_ALLOW)]),
                Rule::Refuse(errno) => filter.extend([jump(libc::BPF_JEQ, number, 0, 1), answer(refused(*errno))]),
                Rule::AllowUnless(mask) => filter.extend([
                    jump(libc::BPF_JEQ, number, 0, 4),
                    load(FIRST_ARGUMENT),
                    jump(libc::BPF_JSET, *mask, 1, 0),
                    answer(libc::SECCOMP_RET_ALLOW),
                    answer(refused(self.errno)),
                ]),
            }
        }
        filter.push(answer(refused(self.errno)));
        filter
    }
}

fn load(offset: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

/// Skips `yes` or `no` instructions.
fn jump(comparison: u32, with: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | comparison | libc::BPF_K) as u16, jt: yes, jf: no, k: with }
}

fn answer(with: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: with }
}

fn install(filter: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the call takes numbers only.
    let confined = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if confined != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `program` and the instructions that it points to are alive; the kernel copies them.
    let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if installed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
