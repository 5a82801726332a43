//! Runs the workload of `../workload.rs` on firewood and prints a JSON line per row.
//!
//! `state-peer-firewood --data DIR --accounts N --slots N --series 1000x40,10000x20,slots-10000x12 --reads N`

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use firewood::api::{Db as _, DbView as _, Proposal as _};
use firewood::db::{BatchOp, Db, DbConfig};
use firewood::manager::RevisionManagerConfig;
use firewood_storage::NodeHashAlgorithm;
use sha3::{Digest, Keccak256};

#[allow(dead_code, reason = "shared")]
#[path = "../../workload.rs"]
mod workload;

use workload::{Kind, Series, CONTRACT, FIRST_BLOCK};

type Fault = Box<dyn Error>;
type Put = BatchOp<Vec<u8>, Vec<u8>>;

/// Nodes that firewood may keep in memory.
const CACHE_BYTES: usize = 1_500_000_000;
/// Changes of a commit while the first state is loaded.
const LOAD_CHUNK: u64 = 100_000;
/// Root of a trie without entries; firewood puts the real one in its place.
const ROOT_EMPTY: [u8; 32] = [
    0x56, 0xe8, 0x1f, 0x17, 0x1b, 0xcc, 0x55, 0xa6, 0xff, 0x83, 0x45, 0xe6, 0x92, 0xc0, 0xf8, 0x6e, 0x5b, 0x48, 0xe0,
    0x1b, 0x99, 0x6c, 0xad, 0xc0, 0x01, 0x62, 0x2f, 0xb5, 0xe3, 0x63, 0xb4, 0x21,
];
/// Keccak-256 of no bytes.
const CODE_HASH_EMPTY: [u8; 32] = [
    0xc5, 0xd2, 0x46, 0x01, 0x86, 0xf7, 0x23, 0x3c, 0x92, 0x7e, 0x7d, 0xb2, 0xdc, 0xc7, 0x03, 0xc0, 0xe5, 0x00, 0xb6,
    0x53, 0xca, 0x82, 0x27, 0x3b, 0x7b, 0xfa, 0xd8, 0x04, 0x5d, 0x85, 0xa4, 0x70,
];

struct Peer {
    db: Db,
    block: u64,
    accounts: u64,
    slots: u64,
}

fn keccak(bytes: &[u8]) -> Vec<u8> {
    Keccak256::digest(bytes).to_vec()
}

/// RLP of an integer below 2^128.
fn integer(value: u128, out: &mut Vec<u8>) {
    let bytes = value.to_be_bytes();
    let bytes = &bytes[value.leading_zeros() as usize / 8..];
    if !(bytes.len() == 1 && bytes[0] < 0x80) {
        out.push(0x80 + bytes.len() as u8);
    }
    out.extend_from_slice(bytes);
}

/// RLP of an account without code.
fn account(nonce: u64, balance: u128) -> Vec<u8> {
    let mut fields = Vec::with_capacity(96);
    integer(u128::from(nonce), &mut fields);
    integer(balance, &mut fields);
    for hash in [ROOT_EMPTY, CODE_HASH_EMPTY] {
        fields.push(0xa0);
        fields.extend_from_slice(&hash);
    }
    let mut out = vec![0xf8, fields.len() as u8];
    out.append(&mut fields);
    out
}

fn account_put(number: u64, block: u64) -> Put {
    let value = account(workload::nonce(number), workload::balance(number, block));
    BatchOp::Put { key: keccak(&workload::address(number)), value }
}

fn slot_put(contract: &[u8], number: u64, block: u64) -> Put {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&number.to_be_bytes());
    let mut value = Vec::new();
    integer(u128::from(workload::slot_value(number, block)), &mut value);
    BatchOp::Put { key: [contract, &keccak(&word)].concat(), value }
}

impl Peer {
    fn load(&mut self, accounts: u64, slots: u64) -> Result<(), Fault> {
        let contract = keccak(&workload::address(CONTRACT));
        for from in (0..accounts).step_by(LOAD_CHUNK as usize) {
            let puts: Vec<Put> = (from..accounts.min(from + LOAD_CHUNK)).map(|number| account_put(number, 0)).collect();
            self.db.propose(puts)?.commit()?;
        }
        self.db.propose(vec![BatchOp::Put { key: contract.clone(), value: account(1, 0) }])?.commit()?;
        for from in (0..slots).step_by(LOAD_CHUNK as usize) {
            let numbers = from..slots.min(from + LOAD_CHUNK);
            let puts: Vec<Put> = numbers.map(|number| slot_put(&contract, number, 0)).collect();
            self.db.propose(puts)?.commit()?;
        }
        (self.accounts, self.slots, self.block) = (accounts, slots, FIRST_BLOCK);
        Ok(())
    }

    fn root(&self) -> Result<String, Fault> {
        let root = self.db.root_hash().ok_or("there is no root")?;
        Ok(format!("0x{}", hex(&root.to_vec())))
    }

    fn puts(&mut self, series: &Series) -> Vec<Put> {
        let block = self.block;
        self.block += 1;
        if series.kind == Kind::Accounts {
            let picks = workload::picks(series.kind, block, self.accounts, series.count);
            self.accounts += series.count / 10;
            return picks.into_iter().map(|number| account_put(number, block)).collect();
        }
        let contract = keccak(&workload::address(CONTRACT));
        let picks = workload::picks(series.kind, block, self.slots, series.count);
        self.slots += series.count / 10;
        picks.into_iter().map(|number| slot_put(&contract, number, block)).collect()
    }

    fn series(&mut self, series: &Series, data: &Path) -> Result<(), Fault> {
        let (mut roots, mut commits, mut cpus) = (Vec::new(), Vec::new(), Vec::new());
        settle(Duration::from_millis(300));
        let written = field("io", "wchar")?;
        for _ in 0..series.blocks {
            let puts = self.puts(series);
            let (cpu_before, start) = (cpu(), Instant::now());
            let proposal = self.db.propose(puts)?;
            std::hint::black_box(proposal.root_hash());
            roots.push(start.elapsed().as_secs_f64() * 1e3);
            let start = Instant::now();
            proposal.commit()?;
            commits.push(start.elapsed().as_secs_f64() * 1e3);
            // What is queued to its thread is CPU of this block too.
            settle(Duration::from_millis(20));
            cpus.push((cpu() - cpu_before) * 1e3);
        }
        settle(Duration::from_millis(300));
        let changes = series.blocks * (series.count + series.count / 10);
        let per_change = (field("io", "wchar")? - written) as f64 / changes as f64;
        let fields = format!(
            "\"blocks\":{},\"root_ms_min\":{},\"root_ms_median\":{},\"commit_ms_median\":{},\"cpu_ms_median\":{},\
             \"written_per_change\":{per_change},\"disk_bytes\":{},\"root\":\"{}\"",
            series.blocks,
            roots.iter().copied().fold(f64::MAX, f64::min),
            median(&mut roots),
            median(&mut commits),
            median(&mut cpus),
            disk_bytes(data)?,
            self.root()?,
        );
        print(&series.name(), &fields);
        Ok(())
    }

    fn reads(&self, count: u64) -> Result<(), Fault> {
        let root = self.db.root_hash().ok_or("there is no root")?;
        let revision = self.db.revision(root)?;
        let mut times = Vec::with_capacity(count as usize);
        for turn in 0..count {
            let number = workload::read_pick(turn, self.accounts);
            let key = keccak(&workload::address(number));
            let start = Instant::now();
            let value = revision.val(&key)?;
            times.push(start.elapsed().as_nanos() as f64 / 1e3);
            if value.is_none_or(|value| value.len() < 70) {
                return Err(format!("account {number} is not what was written").into());
            }
        }
        times.sort_by(f64::total_cmp);
        let at = |share: u64| times[(count * share / 100) as usize];
        print("read", &format!("\"reads\":{count},\"p50_us\":{},\"p99_us\":{}", at(50), at(99)));
        Ok(())
    }
}

fn print(row: &str, fields: &str) {
    println!("{{\"peer\":\"firewood\",\"row\":\"{row}\",{fields}}}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU seconds of the threads of the process: of each its first number in `schedstat`, in nanoseconds.
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let ran = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    ran.sum::<u64>() as f64 / 1e9
}

/// Waits until the process does nothing.
fn settle(least: Duration) {
    let mut before = cpu();
    std::thread::sleep(least);
    loop {
        let now = cpu();
        if now - before < 0.001 {
            return;
        }
        before = now;
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A number from a file of `/proc/self`.
fn field(file: &str, name: &str) -> Result<u64, Fault> {
    let text = std::fs::read_to_string(format!("/proc/self/{file}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.and_then(|value| value.split_whitespace().next());
    Ok(value.ok_or_else(|| format!("/proc/self/{file} has no {name}"))?.parse()?)
}

fn disk_bytes(dir: &Path) -> Result<u64, Fault> {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let found = entry.metadata()?;
        total += if found.is_dir() { disk_bytes(&entry.path())? } else { found.blocks() * 512 };
    }
    Ok(total)
}

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).ok_or_else(|| format!("{name} is missing"))
    };
    let data = argument("--data")?;
    let manager = RevisionManagerConfig::builder()
        .node_cache_memory_limit(NonZeroUsize::new(CACHE_BYTES).ok_or("no cache")?)
        .build();
    let config = DbConfig::builder()
        .node_hash_algorithm(NodeHashAlgorithm::Ethereum)
        .truncate(true)
        .manager(manager)
        .build();
    let mut peer = Peer { db: Db::new(data, config)?, block: 0, accounts: 0, slots: 0 };
    peer.load(argument("--accounts")?.parse()?, argument("--slots")?.parse()?)?;
    print("load", &format!("\"disk_bytes\":{},\"root\":\"{}\"", disk_bytes(data.as_ref())?, peer.root()?));
    for series in Series::parse_list(argument("--series")?).ok_or("the series cannot be read")? {
        peer.series(&series, data.as_ref())?;
    }
    peer.reads(argument("--reads")?.parse()?)?;
    let (rss, anon) = (field("status", "VmRSS")? << 10, field("status", "RssAnon")? << 10);
    let sizes = format!("\"disk_bytes\":{},\"rss_bytes\":{rss},\"rss_anon_bytes\":{anon}", disk_bytes(data.as_ref())?);
    print("end", &format!("{sizes},\"root\":\"{}\"", peer.root()?));
    peer.db.close()?;
    Ok(())
}
