//! The state in files on the workload of `peers/state/workload.rs`: commits, durability, reads, space. A JSON line per row.
//!
//! ```sh
//! cargo bench --bench state -- load  --data DIR                  # makes the first state
//! cargo bench --bench state -- run   --data DIR --threads 2      # blocks, small blocks, reads; the same blocks as the peers
//! cargo bench --bench state -- close --data DIR                  # from a closed block of 10,000 transfers to its hash
//! cargo bench --bench state -- long  --data DIR --seconds 600    # a block a second with reclaim, and a reader beside it
//! cargo bench --bench state -- reads --data DIR                  # point reads right after opening, whatever is in memory
//! cargo bench --bench state -- fill  --data DIR --accounts 20000000   # a large state of accounts alone, commit by commit
//! cargo bench --bench state -- anonymous --data DIR --accounts 20000000   # anonymous memory while it serves and grows
//! ```
//!
//! Options: `--accounts`, `--slots` (1,000,000 each) of the state in `DIR`, `--series`, `--reads`, `--threads` of the hash pool, `--backend`
//! (`avx512`, `avx2`, `scalar`: the fastest that may be used). `benches/state-peers` runs all of it beside the peers. Without a command one small
//! round of `load`, `run` and `close` in a temporary folder.
//!
//! The time to the root is that of a whole commit less what it spends in calls that write, make and map files; those are in `written`. Durable is
//! what the syncer takes after that, with nothing else in flight.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, U256};
use native_sequencer::builder::core::{NextTurn, Now};
use native_sequencer::builder::replay::{self, from_journal::Resumed};
use native_sequencer::builder::world::World;
use native_sequencer::builder::world::access::Accesses;
use native_sequencer::config::genesis::{ChainSpec, dev_genesis};
use native_sequencer::crypto::keccak::{Backend, RATE_BYTES, keccak256, keccak256_each};
use native_sequencer::messages::SubmitWait;
use native_sequencer::primitives::Fork;
use native_sequencer::runtime::address_range::AddressRange;
use native_sequencer::state::files::disk::{Disk, SyncPoint};
use native_sequencer::state::files::file_disk::FileDisk;
use native_sequencer::state::files::recovery::StateSettings;
use native_sequencer::state::files::sync::{StateCells, Syncer};
use native_sequencer::state::genesis::{GenesisAccount, from_alloc};
use native_sequencer::state::{
    AccountChange, AccountInfo, CODE_HASH_EMPTY, Snapshot, Stamp, StateChanges, StateError, StateReader, StateStore,
    Store,
};
use native_sequencer::testing::bench_chain::{BenchChain, Standing};
use native_sequencer::testing::signing::TestKey;
use native_sequencer::witness::collect::collect;
use serde_json::{Value, json};

#[path = "peers/state/workload.rs"]
mod workload;

/// The binary's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use workload::{CONTRACT, FIRST_BLOCK, Kind, Series};

/// Reads between two looks at how long the thread had to wait for a core.
const READ_BATCH: u64 = 256;
/// Rest after a batch of a reader beside blocks: a tenth of a core is read with, and no pause longer than this is missed.
const READ_REST: Duration = Duration::from_millis(2);

/// What is asked for on the command line.
struct Options {
    data: PathBuf,
    accounts: u64,
    slots: u64,
    series: Vec<Series>,
    reads: u64,
    threads: usize,
    backend: Backend,
    seconds: u64,
}

impl Options {
    fn read(arguments: &[String]) -> Self {
        let text = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1).cloned()
        };
        let number = |name: &str, or: u64| text(name).map_or(or, |text| text.parse().expect("a number"));
        let series = text("--series").unwrap_or_else(|| "warm-10000x5,1000x40,10000x20,slots-10000x12".to_owned());
        let backend = text("--backend").unwrap_or_else(|| Backend::detect().name().to_owned());
        Self {
            data: text("--data").map_or_else(|| std::env::temp_dir().join("sequencer-state-bench"), PathBuf::from),
            accounts: number("--accounts", 1_000_000),
            slots: number("--slots", 1_000_000),
            series: Series::parse_list(&series).expect("series like 1000x40,slots-10000x12"),
            reads: number("--reads", 200_000),
            threads: number("--threads", 2) as usize,
            backend: Backend::ALL.into_iter().find(|known| known.name() == backend).expect("avx512, avx2 or scalar"),
            seconds: number("--seconds", 600),
        }
    }

    fn print(&self, row: &str, mut fields: Value) {
        fields["peer"] = "ours".into();
        fields["row"] = row.into();
        fields["backend"] = self.backend.name().into();
        fields["threads"] = self.threads.into();
        println!("{fields}");
    }
}

/// Adds up the time that the store spends in calls that change files.
struct TimedDisk {
    inner: FileDisk,
    ns: Arc<AtomicU64>,
}

impl TimedDisk {
    fn timed<T>(&mut self, body: impl FnOnce(&mut FileDisk) -> T) -> T {
        let start = Instant::now();
        let result = body(&mut self.inner);
        self.ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
}

impl Disk for TimedDisk {
    fn list(&mut self) -> Result<Vec<u32>, StateError> {
        self.inner.list()
    }

    fn create(&mut self, file: u32, bytes: u64) -> Result<(), StateError> {
        self.timed(|disk| disk.create(file, bytes))
    }

    fn write(&mut self, file: u32, offset: u64, parts: &[&[u64]]) -> Result<(), StateError> {
        self.timed(|disk| disk.write(file, offset, parts))
    }

    fn read(&mut self, file: u32, offset: u64, words: &mut [u64]) -> Result<(), StateError> {
        self.inner.read(file, offset, words)
    }

    fn sync(&mut self, file: u32, point: SyncPoint) -> Result<(), StateError> {
        self.inner.sync(file, point)
    }

    fn sync_directory(&mut self, point: SyncPoint) -> Result<(), StateError> {
        self.inner.sync_directory(point)
    }

    fn remove(&mut self, file: u32) -> Result<(), StateError> {
        self.timed(|disk| disk.remove(file))
    }

    fn map(&mut self, file: u32, range: &Arc<AddressRange>, at: usize, bytes: u64) -> Result<(), StateError> {
        self.timed(|disk| disk.map(file, range, at, bytes))
    }

    fn handle(&self) -> Box<dyn Disk> {
        self.inner.handle()
    }

    fn prepare(&mut self, bytes: u64) -> Result<bool, StateError> {
        self.inner.prepare(bytes)
    }
}

/// A store with what the process keeps beside it.
struct Bench {
    store: Store,
    reader: Snapshot,
    syncer: Syncer,
    preparer: Box<dyn Disk>,
    segment_bytes: u64,
    disk_ns: Arc<AtomicU64>,
    block: u64,
    accounts: u64,
    slots: u64,
}

/// What one block took.
#[derive(Clone, Copy, Default)]
struct Times {
    root_ms: f64,
    written_ms: f64,
    durable_ms: f64,
    reclaim_ms: f64,
    cpu_ms: f64,
}

impl Bench {
    fn open(options: &Options) -> Self {
        options.backend.limit();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).thread_name(|_| "hash".into()).build();
        let disk_ns = Arc::new(AtomicU64::new(0));
        let inner = FileDisk::open(&options.data, true).expect("the folder can be opened");
        let disk = Box::new(TimedDisk { inner, ns: Arc::clone(&disk_ns) });
        let pool = Arc::new(pool.expect("threads can be spawned"));
        let mut store = Store::open(pool, disk, StateSettings::default()).expect("the state can be opened");
        let reader = store.newest().cloned().unwrap_or_else(|| store.empty());
        let syncer = store.take_syncer().expect("nobody has taken it");
        let (preparer, segment_bytes) = store.preparer();
        let (accounts, slots) = (options.accounts, options.slots);
        Self { store, reader, syncer, preparer, segment_bytes, disk_ns, block: FIRST_BLOCK, accounts, slots }
    }

    fn changes(&mut self, kind: Kind, count: u64) -> StateChanges {
        let block = self.block;
        self.block += 1;
        let existing = if kind == Kind::Accounts { &mut self.accounts } else { &mut self.slots };
        let picks = workload::picks(kind, block, *existing, count);
        *existing += count / 10;
        let accounts = match kind {
            Kind::Accounts => picks.into_iter().map(|number| account_change(number, block)).collect(),
            Kind::Slots => {
                let slot = |number| (U256::from(number), U256::from(workload::slot_value(number, block)));
                vec![AccountChange { storage: picks.into_iter().map(slot).collect(), ..contract_change() }]
            }
        };
        StateChanges { accounts, codes: Vec::new() }
    }

    fn commit(&mut self, changes: &StateChanges) -> Times {
        // In the node a thread of its own does that.
        self.preparer.prepare(self.segment_bytes).expect("there is space");
        self.disk_ns.store(0, Ordering::Relaxed);
        let (cpu, start) = (cpu_ms(), Instant::now());
        let stamp = Stamp { number: self.block - 1, sequence: 0 };
        self.reader = self.store.commit_block(stamp, &self.reader, changes).expect("changes are sound");
        let commit_ms = ms(start);
        let written_ms = self.disk_ns.load(Ordering::Relaxed) as f64 / 1e6;
        Times { root_ms: commit_ms - written_ms, written_ms, cpu_ms: cpu_ms() - cpu, ..Times::default() }
    }

    /// A block from its changes to reclaim; also the bytes that its commit wrote.
    fn block(&mut self, kind: Kind, count: u64) -> (Times, u64) {
        let changes = self.changes(kind, count);
        let before = self.store.written_bytes();
        let times = self.commit(&changes);
        let committed_bytes = self.store.written_bytes() - before;
        let start = Instant::now();
        self.syncer.sync(u64::MAX).expect("the disk works");
        let durable_ms = ms(start);
        let start = Instant::now();
        self.store.reclaim().expect("nodes are sound");
        (Times { durable_ms, reclaim_ms: ms(start), ..times }, committed_bytes)
    }

    fn series(&mut self, options: &Options, series: &Series) {
        let written_before = self.store.written_bytes();
        let (all, committed): (Vec<Times>, Vec<u64>) =
            (0..series.blocks).map(|_| self.block(series.kind, series.count)).unzip();
        let committed_bytes: u64 = committed.iter().sum();
        let changes = (series.blocks * (series.count + series.count / 10)) as f64;
        let root = Figures::of(&all, |times| times.root_ms);
        let fields = json!({
            "blocks": series.blocks, "root_ms_min": root.min, "root_ms_median": root.median,
            "written_ms_median": Figures::of(&all, |times| times.written_ms).median,
            "commit_ms_median": Figures::of(&all, |times| times.root_ms + times.written_ms).median,
            "durable_ms_median": Figures::of(&all, |times| times.durable_ms).median,
            "reclaim_ms_median": Figures::of(&all, |times| times.reclaim_ms).median,
            "reclaim_ms_max": Figures::of(&all, |times| times.reclaim_ms).max,
            "cpu_ms_median": Figures::of(&all, |times| times.cpu_ms).median,
            "written_per_change": committed_bytes as f64 / changes,
            "written_per_change_with_reclaim": (self.store.written_bytes() - written_before) as f64 / changes,
            "root": self.reader.root(),
        });
        options.print(&series.name(), fields);
    }

    /// Blocks of few changes, at least 200 of each size.
    fn small(&mut self, options: &Options) {
        for count in [1, 10, 50, 200] {
            let times: Vec<Times> = (0..200).map(|_| self.block(Kind::Accounts, count).0).collect();
            let root = Figures::of(&times, |times| times.root_ms * 1e3);
            let commit = Figures::of(&times, |times| (times.root_ms + times.written_ms) * 1e3);
            let fields = json!({
                "blocks": times.len(), "root_us_min": root.min, "root_us_median": root.median, "root_us_p99": root.p99,
                "commit_us_median": commit.median,
            });
            options.print(&format!("small-{count}"), fields);
        }
    }

    /// The nodes that a verifier needs of blocks of 10,000 accounts, none of which is committed.
    fn witness(&mut self, options: &Options) {
        let (mut times, mut nodes, mut bytes) = (Vec::new(), 0, 0);
        let existing = self.accounts;
        for _ in 0..20 {
            self.accounts = existing;
            let changes = self.changes(Kind::Accounts, 10_000.min(options.accounts / 4));
            let touched = changes.accounts.iter().map(|change| change.address).collect();
            let accesses = Accesses { accounts: touched, ..Accesses::default() };
            let start = Instant::now();
            let found = collect(&self.reader, &accesses, &changes).expect("nodes are sound").nodes;
            times.push(ms(start));
            (nodes, bytes) = (found.len(), found.iter().map(|node| node.len()).sum());
        }
        self.accounts = existing;
        let figures = Figures::sorted(times);
        let fields = json!({ "ms_min": figures.min, "ms_median": figures.median, "nodes": nodes, "bytes": bytes });
        options.print("witness-10000", fields);
    }

    fn reads(&self, options: &Options, row: &str) {
        let numbers: Vec<u64> = (0..options.reads).map(|turn| workload::read_pick(turn, self.accounts)).collect();
        let addresses: Vec<Address> = numbers.iter().map(|number| address(*number)).collect();
        let keys: Vec<B256> = addresses.iter().map(|address| keccak256(address.as_slice())).collect();
        let measure = |read: &dyn Fn(usize) -> u64| {
            let mut times = Vec::with_capacity(numbers.len());
            for (index, number) in numbers.iter().enumerate() {
                let start = Instant::now();
                let nonce = read(index);
                times.push(start.elapsed().as_nanos() as f64 / 1e3);
                assert_eq!(nonce, workload::nonce(*number), "account {number} is what was written");
            }
            Figures::sorted(times)
        };
        let nonce = |found: Result<Option<native_sequencer::state::Account>, StateError>| {
            found.expect("nodes are sound").expect("the account exists").nonce
        };
        let by_key = measure(&|index| nonce(self.reader.account_by_key(&keys[index])));
        let by_address = measure(&|index| nonce(self.reader.account(&addresses[index])));
        let fields = json!({
            "reads": options.reads, "p50_us": by_key.median, "p99_us": by_key.p99, "max_us": by_key.max,
            "by_address_p50_us": by_address.median, "by_address_p99_us": by_address.p99,
        });
        options.print(row, fields);
    }

    /// Reads everything once, so that the pages are mapped.
    fn touch(&self) {
        for number in 0..self.accounts {
            self.reader.account(&address(number)).expect("nodes are sound");
        }
        let contract = address(CONTRACT);
        for number in 0..self.slots {
            self.reader.storage(&contract, U256::from(number)).expect("nodes are sound");
        }
    }
}

/// Bytes of what is alive: what moving it all writes, once the pass that is under way has ended.
fn live_bytes(store: &mut Store) -> u64 {
    store.compact().expect("nodes are sound");
    let before = store.written_bytes();
    store.compact().expect("nodes are sound");
    store.written_bytes() - before
}

fn address(number: u64) -> Address {
    workload::address(number).into()
}

fn account_change(number: u64, block: u64) -> AccountChange {
    let balance_wei = U256::from(workload::balance(number, block));
    let info = AccountInfo { nonce: workload::nonce(number), balance_wei, code_hash: CODE_HASH_EMPTY };
    AccountChange { address: address(number), account: Some(info), storage_cleared: false, storage: Vec::new() }
}

fn contract_change() -> AccountChange {
    let info = AccountInfo { nonce: 1, balance_wei: U256::ZERO, code_hash: CODE_HASH_EMPTY };
    AccountChange { address: address(CONTRACT), account: Some(info), storage_cleared: false, storage: Vec::new() }
}

/// Order statistics of a row.
struct Figures {
    min: f64,
    median: f64,
    p99: f64,
    max: f64,
}

impl Figures {
    fn of(times: &[Times], field: impl Fn(&Times) -> f64) -> Self {
        Self::sorted(times.iter().map(field).collect())
    }

    fn sorted(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: usize| values[(values.len() * share / 100).min(values.len() - 1)];
        Self { min: at(0), median: at(50), p99: at(99), max: at(100) }
    }
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// CPU time of all threads of the process: of each its first number in `schedstat`, in nanoseconds. The kernel brings that up to date when a thread
/// gives its core away, hence the sleep.
fn cpu_ms() -> f64 {
    std::thread::sleep(Duration::from_micros(200));
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let ns: u64 = tasks.filter_map(|task| schedstat(&task.ok()?.path()).map(|(ran_ns, _)| ran_ns)).sum();
    ns as f64 / 1e6
}

/// How long a thread ran, and how long it waited for a core.
fn schedstat(task: &Path) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
    let mut words = text.split_whitespace().map(|word| word.parse().ok());
    Some((words.next()??, words.next()??))
}

/// A number from a file of `/proc/self`.
fn proc_field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).expect("Linux");
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("every Linux has it");
    rest.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).expect("the folder exists");
    entries.map(|entry| entry.and_then(|entry| entry.metadata()).map_or(0, |found| found.blocks() * 512)).sum()
}

fn load(options: &Options) {
    let mut bench = Bench::open(options);
    let accounts = (0..options.accounts).map(|number| GenesisAccount {
        address: address(number),
        balance_wei: U256::from(workload::balance(number, 0)),
        nonce: workload::nonce(number),
        ..GenesisAccount::default()
    });
    let slot = |number| (U256::from(number), U256::from(workload::slot_value(number, 0)));
    let contract = GenesisAccount {
        address: address(CONTRACT),
        nonce: 1,
        storage: (0..options.slots).map(slot).collect(),
        ..GenesisAccount::default()
    };
    let alloc: Vec<GenesisAccount> = accounts.chain([contract]).collect();
    let start = Instant::now();
    bench.reader = from_alloc(&mut bench.store, alloc).expect("addresses are distinct");
    let load_ms = ms(start);
    // Twice: both slots then name it.
    bench.syncer.sync(u64::MAX).expect("the disk works");
    let (live_bytes, root) = (bench.store.written_bytes(), bench.reader.root());
    options.print("load", json!({ "ms": load_ms, "live_bytes": live_bytes, "root": root }));
}

/// Nanoseconds for each permutation of 128 full branches, the shortest of many: what the processor sets under every root.
fn permutation_ns() -> f64 {
    const BRANCH_BYTES: usize = 532;
    let branches = vec![[0x5a_u8; BRANCH_BYTES]; 128];
    let permutations = branches.len() * (BRANCH_BYTES / RATE_BYTES + 1);
    let hash_all = |_| {
        let (start, mut last) = (Instant::now(), B256::ZERO);
        keccak256_each(branches.len(), |index| &branches[index], |_, digest| last = digest);
        std::hint::black_box(last);
        start.elapsed().as_nanos() as f64 / permutations as f64
    };
    Figures::sorted((0..500).map(hash_all).collect()).min
}

fn run(options: &Options) {
    let start = Instant::now();
    let mut bench = Bench::open(options);
    let open_ms = ms(start);
    options.print("permutation", json!({ "ns_min": permutation_ns() }));
    bench.touch();
    bench.reads(options, "read-fresh");
    for series in &options.series {
        bench.series(options, series);
    }
    let root = bench.reader.root();
    bench.reads(options, "read");
    let (rss, anon) = (proc_field("status", "VmRSS") << 10, proc_field("status", "RssAnon") << 10);
    let space = disk_bytes(&options.data);
    bench.small(options);
    bench.witness(options);
    bench.touch();
    bench.reads(options, "read-aged");
    let fields = json!({
        "open_ms": open_ms, "disk_bytes": space, "rss_bytes": rss, "rss_anon_bytes": anon,
        "live_bytes": live_bytes(&mut bench.store), "root": root,
    });
    options.print("end", fields);
}

/// Accounts of one commit of [`fill`].
const FILL_ACCOUNTS: u64 = 200_000;

fn fill(options: &Options) {
    let start = Instant::now();
    let mut bench = Bench::open(options);
    for first in (0..options.accounts).step_by(FILL_ACCOUNTS as usize) {
        bench.preparer.prepare(bench.segment_bytes).expect("there is space");
        let numbers = first..options.accounts.min(first + FILL_ACCOUNTS);
        let changes =
            StateChanges { accounts: numbers.map(|number| account_change(number, 0)).collect(), codes: Vec::new() };
        let stamp = Stamp { number: first / FILL_ACCOUNTS, sequence: 0 };
        bench.reader = bench.store.commit_block(stamp, &bench.reader, &changes).expect("changes are sound");
        bench.syncer.sync(u64::MAX).expect("the disk works");
        bench.store.reclaim().expect("nodes are sound");
    }
    let fields = json!({
        "accounts": options.accounts, "ms": ms(start), "segment_bytes": bench.store.segment_bytes(),
        "rss_anon_bytes": proc_field("status", "RssAnon") << 10, "root": bench.reader.root(),
    });
    options.print("fill", fields);
}

/// Blocks of 10,000 accounts all over a large state, with reads of as many others: the most anonymous memory that is seen.
fn anonymous(options: &Options) {
    let mut bench = Bench::open(options);
    let blocks = 30;
    let (mut anon_max, mut file_max, mut commits) = (0, 0, Vec::new());
    for block in 0..blocks {
        let times = bench.block(Kind::Accounts, 10_000).0;
        commits.push(times.root_ms + times.written_ms);
        for turn in block * options.reads / blocks..(block + 1) * options.reads / blocks {
            let number = workload::read_pick(turn, options.accounts);
            bench.reader.account(&address(number)).expect("nodes are sound").expect("it exists");
        }
        anon_max = anon_max.max(proc_field("status", "RssAnon") << 10);
        file_max = file_max.max(proc_field("status", "RssFile") << 10);
    }
    let commit = Figures::sorted(commits);
    let segment_bytes = bench.store.segment_bytes();
    let live = live_bytes(&mut bench.store);
    let fields = json!({
        "accounts": options.accounts, "blocks": blocks, "reads": options.reads, "live_bytes": live, "segment_bytes": segment_bytes,
        "rss_anon_bytes_max": anon_max, "rss_file_bytes_max": file_max, "commit_ms_median": commit.median, "commit_ms_max": commit.max,
    });
    options.print("anonymous", fields);
}

fn reads(options: &Options) {
    let start = Instant::now();
    let bench = Bench::open(options);
    options.print("open", json!({ "ms": ms(start), "disk_bytes": disk_bytes(&options.data) }));
    let faults = major_faults();
    bench.reads(options, "read-opened");
    let fields =
        json!({ "major_faults": major_faults() - faults, "rss_anon_bytes": proc_field("status", "RssAnon") << 10 });
    options.print("end", fields);
}

/// Pages that had to come from the disk; field 12 of proc_pid_stat(5).
fn major_faults() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = text.rsplit(')').next().expect("a name").split_whitespace().collect();
    fields[9].parse().expect("a number")
}

/// What the reader beside the blocks has seen, in nanoseconds.
#[derive(Default)]
struct Pauses {
    reads: AtomicU64,
    longest: AtomicU64,
    /// Without the time that the thread was ready and had no core.
    longest_own: AtomicU64,
    is_over: AtomicBool,
}

fn read_beside(cells: &StateCells, accounts: u64, pauses: &Pauses) {
    let task = Path::new("/proc/thread-self");
    let mut turn = 0;
    while !pauses.is_over.load(Ordering::Relaxed) {
        let Some(newest) = cells.newest() else { continue };
        let waited_before = schedstat(task).map_or(0, |(_, waited)| waited);
        let mut longest = 0;
        for _ in 0..READ_BATCH {
            let account = address(workload::read_pick(turn, accounts));
            turn += 1;
            let start = Instant::now();
            newest.account(&account).expect("nodes are sound").expect("the account exists");
            longest = longest.max(start.elapsed().as_nanos() as u64);
        }
        let waited = schedstat(task).map_or(0, |(_, waited)| waited) - waited_before;
        pauses.reads.fetch_add(READ_BATCH, Ordering::Relaxed);
        pauses.longest.fetch_max(longest, Ordering::Relaxed);
        pauses.longest_own.fetch_max(longest.saturating_sub(waited), Ordering::Relaxed);
        std::thread::sleep(READ_REST);
    }
}

/// What the thread that commits has seen.
#[derive(Default)]
struct LongRun {
    commits_ms: Vec<f64>,
    reclaims_ms: Vec<f64>,
    changes: u64,
    committed_bytes: u64,
    space_bytes_max: u64,
}

/// A block of 10,000 accounts every second.
fn blocks_every_second(store: &mut Store, reader: &mut Snapshot, options: &Options) -> LongRun {
    let mut run = LongRun::default();
    let begin = Instant::now();
    for second in 0..options.seconds {
        let (block, existing) = (FIRST_BLOCK + second, options.accounts + second * 1_000);
        let picks = workload::picks(Kind::Accounts, block, existing, 10_000);
        run.changes += picks.len() as u64;
        let accounts = picks.into_iter().map(|number| account_change(number, block)).collect();
        let changes = StateChanges { accounts, codes: Vec::new() };
        let due = begin + Duration::from_secs(second);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (before, start) = (store.written_bytes(), Instant::now());
        let stamp = Stamp { number: block, sequence: 0 };
        *reader = store.commit_block(stamp, reader, &changes).expect("changes are sound");
        run.commits_ms.push(ms(start));
        run.committed_bytes += store.written_bytes() - before;
        let start = Instant::now();
        store.reclaim().expect("nodes are sound");
        run.reclaims_ms.push(ms(start));
        run.space_bytes_max = run.space_bytes_max.max(store.segment_bytes());
    }
    run
}

/// A block every second, made durable and reclaimed as in the node, with a reader beside it.
fn long(options: &Options) {
    let bench = Bench::open(options);
    bench.touch();
    let Bench { mut store, mut reader, mut syncer, mut preparer, segment_bytes, .. } = bench;
    let (cells, pauses) = (store.cells(), Pauses::default());
    let device_before = proc_field("io", "write_bytes");
    let run = std::thread::scope(|scope| {
        scope.spawn(|| read_beside(&cells, options.accounts, &pauses));
        scope.spawn(|| {
            while !pauses.is_over.load(Ordering::Relaxed) {
                if !syncer.sync(u64::MAX).expect("the disk works") {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        scope.spawn(|| {
            while !pauses.is_over.load(Ordering::Relaxed) {
                preparer.prepare(segment_bytes).expect("there is space");
                std::thread::sleep(Duration::from_millis(250));
            }
        });
        let run = blocks_every_second(&mut store, &mut reader, options);
        pauses.is_over.store(true, Ordering::Relaxed);
        run
    });
    let device_bytes = proc_field("io", "write_bytes") - device_before;
    let (written, space_bytes_end, root) = (store.written_bytes(), store.segment_bytes(), reader.root());
    let anon = proc_field("status", "RssAnon") << 10;
    drop(reader);
    store.put_syncer(syncer);
    let live = live_bytes(&mut store);
    let (commit, reclaim) = (Figures::sorted(run.commits_ms), Figures::sorted(run.reclaims_ms));
    let per_change = |bytes: u64| bytes as f64 / run.changes as f64;
    let us = |ns: &AtomicU64| ns.load(Ordering::Relaxed) as f64 / 1e3;
    let fields = json!({
        "blocks": options.seconds, "changes": run.changes, "root": root,
        "commit_ms_median": commit.median, "commit_ms_p99": commit.p99, "commit_ms_max": commit.max,
        "reclaim_ms_median": reclaim.median, "reclaim_ms_p99": reclaim.p99, "reclaim_ms_max": reclaim.max,
        "written_per_change": per_change(run.committed_bytes), "written_per_change_with_reclaim": per_change(written),
        "write_amplification": written as f64 / run.committed_bytes as f64,
        "device_written_per_change": per_change(device_bytes),
        "live_bytes": live, "space_bytes_max": run.space_bytes_max, "space_bytes_end": space_bytes_end,
        "space_max_of_live": run.space_bytes_max as f64 / live as f64, "rss_anon_bytes": anon,
        "reads": pauses.reads.load(Ordering::Relaxed), "longest_read_us": us(&pauses.longest),
        "longest_read_on_core_us": us(&pauses.longest_own),
    });
    options.print("long", fields);
}

/// A chain whose senders have money, on top of the accounts of the workload.
fn chain_on(mut store: Store, syncer: &mut Syncer, keys: &[TestKey], accounts: u64) -> BenchChain {
    let mut genesis = dev_genesis(Fork::Osaka, 10).expect("built in").genesis;
    let funded = alloy_genesis::GenesisAccount::default().with_balance(U256::from(10).pow(U256::from(24)));
    genesis.alloc.extend(keys.iter().map(|key| (key.address, funded.clone())));
    let filler = |number| {
        let balance = U256::from(workload::balance(number, 0));
        let account = alloy_genesis::GenesisAccount::default().with_balance(balance);
        (address(number), account.with_nonce(Some(workload::nonce(number))))
    };
    genesis.alloc.extend((0..accounts).map(filler));
    let json = serde_json::to_string(&genesis).expect("a genesis serialises");
    let spec = ChainSpec::from_json(&json).expect("as built in");
    let genesis = replay::genesis_block(&spec, &mut store).expect("a genesis that commits");
    syncer.sync(u64::MAX).expect("the disk works");
    let now = Now { monotonic_ns: 1_000_000_000, unix_ns: (genesis.header.timestamp + 1) * 1_000_000_000 };
    let mut world = World::new(genesis.state.clone());
    world.set_block_hash(0, genesis.hash);
    let recent = vec![Arc::new(genesis)];
    let standing = Standing { recent, world, store, resumed: Resumed::default(), settlement: None };
    BenchChain::resume(spec, standing, now, false, |_, _| {}).expect("nothing was under way")
}

/// Blocks of one transfer of each of 10,000 senders: what is left to do after the deadline, roots of three tries and the hash, on the whole state.
fn close(options: &Options) {
    const SENDERS: u64 = 10_000;
    let Bench { store, mut preparer, segment_bytes, mut syncer, .. } = Bench::open(options);
    let keys: Vec<TestKey> = (0..SENDERS).map(TestKey::nth).collect();
    let mut chain = chain_on(store, &mut syncer, &keys, options.accounts);
    let mut times = Vec::new();
    for round in 0..9 {
        preparer.prepare(segment_bytes).expect("there is space");
        for (index, key) in keys.iter().enumerate() {
            let to = keys[(index * 7 + round * 13 + 1) % keys.len()].address;
            let raw = key.transfer(chain.spec.chain_id, round as u64, to, 1);
            chain.submit_with(&raw, SubmitWait::Admission, None);
        }
        while chain.core.turn(chain.now, &mut chain.effects).expect("no fatal error") == NextTurn::Now {}
        chain.follow();
        chain.advance(1_000_000_000);
        chain.core.turn(chain.now, &mut chain.effects).expect("no fatal error");
        let (cpu, start) = (cpu_ms(), Instant::now());
        assert!(chain.seal(), "the block was closed");
        times.push(Times { root_ms: ms(start), cpu_ms: cpu_ms() - cpu, ..Times::default() });
        let sealed = &chain.core.heads().latest;
        assert_eq!(sealed.block.transactions.len(), keys.len());
        syncer.sync(u64::MAX).expect("the disk works");
        chain.effects.replies.clear();
        chain.free_chunks();
    }
    let (wall, cpu) = (Figures::of(&times, |times| times.root_ms), Figures::of(&times, |times| times.cpu_ms));
    let fields = json!({
        "blocks": times.len(), "transfers": SENDERS, "ms_min": wall.min, "ms_median": wall.median, "cpu_ms_median": cpu.median,
    });
    options.print("close", fields);
}

/// One small round of everything, in a folder that ends with it.
fn small_round() {
    let dir = std::env::temp_dir().join(format!("sequencer-state-bench-{}", std::process::id()));
    let part = |name: &str| Options {
        data: dir.join(name),
        accounts: 20_000,
        slots: 20_000,
        series: Series::parse_list("100x2,1000x2,slots-1000x2").expect("as written"),
        reads: 1_000,
        threads: 2,
        backend: Backend::detect(),
        seconds: 2,
    };
    load(&part("state"));
    run(&part("state"));
    close(&part("close"));
    std::fs::remove_dir_all(&dir).expect("it was made here");
}

fn main() {
    // cargo bench adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let options = || Options::read(&arguments);
    match arguments.first().map(String::as_str) {
        Some("load") => load(&options()),
        Some("run") => run(&options()),
        Some("close") => close(&options()),
        Some("long") => long(&options()),
        Some("reads") => reads(&options()),
        Some("fill") => fill(&options()),
        Some("anonymous") => anonymous(&options()),
        _ => small_round(),
    }
}
