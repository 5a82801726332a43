//! What the rules hold: each table is a decision, and a changed line in it is what a reviewer looks at.

/// Module (the longest matching row counts) → modules of the crate that it may use beside its own.
pub const IMPORTS: &[(&str, &[&str])] = &[
    ("lib", &[]),
    ("limits", &[]),
    ("primitives", &[]),
    ("messages", &["builder", "mempool", "primitives", "rpc", "runtime"]),
    (
        "topology",
        &[
            "builder",
            "chain",
            "config",
            "ingress",
            "limits",
            "mempool",
            "messages",
            "primitives",
            "ring",
            "rpc",
            "runtime",
            "state",
        ],
    ),
    ("cli", &["config", "primitives", "rpc", "topology"]),
    ("config", &["primitives"]),
    ("codec", &["crypto", "primitives"]),
    ("crypto", &["primitives"]),
    ("ring", &["primitives"]),
    ("runtime", &["primitives"]),
    ("ingress", &["codec", "crypto", "limits", "mempool", "messages", "primitives", "rpc", "runtime"]),
    ("ingress::connection", &["codec"]),
    (
        "ingress::shard",
        &["codec", "config", "limits", "mempool", "messages", "primitives", "ring", "rpc", "runtime", "topology"],
    ),
    ("ingress::driver", &["config", "limits", "messages", "primitives", "ring", "rpc", "runtime", "topology"]),
    ("rpc", &["builder", "chain", "codec", "crypto", "limits", "mempool", "messages", "primitives", "state"]),
    ("rpc::query_pool", &["chain", "config", "messages", "primitives", "ring", "runtime", "topology"]),
    ("mempool", &["primitives"]),
    ("builder", &["mempool", "primitives", "ring", "state"]),
    ("builder::core", &["limits", "mempool", "messages", "primitives", "runtime"]),
    ("builder::filler", &["limits", "primitives"]),
    ("builder::sealing", &["primitives", "state"]),
    ("builder::execution", &["codec", "primitives"]),
    ("builder::world", &["limits", "primitives", "state"]),
    ("builder::driver", &["config", "limits", "messages", "primitives", "ring", "runtime", "topology"]),
    ("builder::replay", &["chain", "codec", "config", "crypto", "limits", "primitives", "runtime", "state"]),
    ("journal", &["builder", "chain", "mempool", "primitives"]),
    ("journal::rollback", &["codec", "primitives"]),
    ("state", &["crypto"]),
    ("state::memory", &["crypto"]),
    ("state::driver", &["builder", "limits", "messages", "ring", "runtime"]),
    ("chain", &["primitives"]),
    ("chain::thread", &["limits", "messages", "ring", "topology"]),
    ("chain::sealed_record", &["builder", "mempool", "primitives"]),
    ("testing", &["builder", "codec", "config", "crypto", "mempool", "messages", "primitives", "runtime", "state"]),
];

/// Modules that are being written: an edge of theirs may be listed before it is used.
pub const GROWING: &[&str] = &[];

/// A word of the code → the modules that may hold it, and why.
pub const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("glommio", &["ingress::driver"], "the runtime of the sockets can be replaced only while one file knows it"),
    ("rayon", &["state", "topology", "testing"], "the hash pool belongs to the state thread"),
    ("memmap2", &["runtime::slab", "chain"], "a map is safe only under its owner's contract"),
    ("thread::spawn", &["topology"], "every thread is declared in topology.rs"),
    ("thread::scope", &["topology"], "every thread is declared in topology.rs"),
    (
        "thread::Builder",
        &["topology", "chain::driver"],
        "topology.rs declares every thread; the index worker is the writer's own",
    ),
    (
        "thread::sleep",
        &["cli::run", "chain::thread", "topology"],
        "threads wait at a doorbell; the main thread and the syncer have none",
    ),
    ("thread::park", &["ring::doorbell"], "the wake protocol is in one place"),
    ("thread::park_timeout", &["ring::doorbell"], "the wake protocol is in one place"),
    ("Instant::now", &["runtime::clock", "builder::driver"], "time is an argument"),
    ("SystemTime", &["runtime::clock"], "time is an argument"),
    (
        "TcpListener",
        &["ingress::driver", "topology::startup"],
        "sockets are the shard driver's; the start asks whether the port is free",
    ),
    ("TcpStream", &["ingress::driver"], "sockets are the shard driver's"),
    ("UdpSocket", &[], "nothing here speaks UDP"),
    (
        "std::fs",
        &["chain", "cli", "config", "topology", "ingress::driver"],
        "files belong to the chain database and to start-up",
    ),
    ("env::var", &["cli"], "the environment is read once, at the command line"),
    ("env::vars", &["cli"], "the environment is read once, at the command line"),
    ("println", &["cli"], "only commands speak to a terminal; everything else logs"),
    ("eprintln", &["lib"], "only the binary speaks to a terminal; everything else logs"),
    ("libc", &["runtime"], "system calls have one door"),
    ("Mutex", &["chain"], "hot threads share no lock; the chain thread and its index worker do"),
    ("RwLock", &[], "readers load a published snapshot"),
    ("unbounded", &[], "every channel has a bound and a policy for when it is full"),
    ("mpsc::channel", &[], "every channel has a bound and a policy for when it is full"),
    ("tokio", &[], "the data plane has no second runtime"),
    ("anyhow", &["cli", "lib"], "stages have typed errors; words are made where they are shown"),
    ("transmute", &[], "there is a safe conversion"),
    ("static mut", &[], "a datum has one owner"),
];

/// Files that may hold unsafe code, and what for. STYLE.md says which folders can have entries.
pub const UNSAFE_FILES: &[(&str, &str)] = &[
    ("benches/builder.rs", "counting allocator"),
    ("benches/ingress.rs", "counting allocator"),
    ("benches/mempool.rs", "counting allocator"),
    ("src/ring/append_log.rs", "slots written once, read below a published length"),
    ("src/ring/byte_log.rs", "bytes written once, read below a published length"),
    ("src/runtime/affinity.rs", "sched_setaffinity, setpriority"),
    ("src/runtime/socket.rs", "recv without waiting"),
    ("src/runtime/slab.rs", "disjoint chunks of one mapping, written by the owner and read by others"),
    ("src/chain/map.rs", "maps of append-only files"),
    ("src/chain/writer.rs", "opens maps under the lock file"),
    ("src/chain/status.rs", "opens maps under the lock file"),
    ("src/chain/index_segment.rs", "opens a map of an immutable file"),
    ("src/codec/json_rpc/plain.rs", "SSE2 leaf"),
    ("src/crypto/keccak/scalar.rs", "BMI leaf"),
    ("src/state/memory/prefetch.rs", "prefetch instruction"),
    ("src/crypto/keccak/avx2.rs", "AVX2 leaf"),
    ("src/crypto/keccak/avx512.rs", "AVX-512 leaf"),
];

/// Functions that were longer than the limit when the rule came: file, function, lines. Only ever shorter, never more.
pub const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// Words that cannot be merged, in halves so that this table does not find itself, and what to do instead.
pub const FORBIDDEN: &[([&str; 2], &str)] = &[
    (["FIX", "ME"], "fix it, or open an issue and say what holds until then"),
    (["TO", "DO"], "do it, or open an issue"),
    (["XX", "X"], "say what is wrong, or fix it"),
    (["to", "do!"], "an unwritten branch is not merged"),
    (["unimple", "mented!"], "an unwritten branch is not merged"),
    (["db", "g!"], "remove it, or log it"),
    (["#[ign", "ore"], "a test runs; a slow one checks an environment variable and says that it skipped"),
    (["#[should_", "panic"], "assert on the value; release aborts on panic"),
];
