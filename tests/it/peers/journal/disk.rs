//! A disk that is full, and one that fails a write.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use serde_json::json;

use super::super::process::{TempFolder, poll_until};
use super::super::rpc::Rpc;
use super::super::sequencer::{FAST_BLOCKS, Sequencer, data_of};
use super::super::workload::Account;
use super::line::Line;
use super::{Draft, SEGMENT_BYTES, await_receipts, dev_accounts, hash_of, send, status, verify};

/// Of one slot, with room for the small files beside it and not for a second slot.
const DISK_SMALL: &str = "size=30m";
const DISK_LARGE: &str = "size=120m";
/// Until what was refused for lack of space is taken again: the disk is looked at every second.
const RESUME_LIMIT: Duration = Duration::from_secs(3);
/// Of calldata: the largest transaction has 64 KiB.
const LARGE_BYTES: usize = 60_000;
/// A refusal must not wait for anything.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);

/// A file system in memory, unmounted when this is dropped.
struct Disk(PathBuf);

impl Disk {
    /// `None` where mounting is not permitted.
    fn mount(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).expect("the temporary folder is writable");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(path).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| Self(path.to_owned()))
    }

    fn resize(&self, size: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{size}")]).arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()), "remount with {size}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a failing test may leave a process on it, which is about to end.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_admission_and_nothing_else() {
    let _turn = super::super::turn();
    let mount_point = TempFolder::new("journal-disk");
    let Some(disk) = Disk::mount(&mount_point.path().join("disk"), DISK_SMALL) else {
        assert!(!super::super::is_ci(), "tmpfs cannot be mounted");
        println!("skipped a_full_disk_stops_admission_and_nothing_else: tmpfs cannot be mounted");
        return;
    };
    let dir = disk.0.to_str().expect("the temporary folder's name is text").to_owned();
    let settings = [&FAST_BLOCKS[..], &["--journal.dir", &dir, "--journal.segment-bytes", SEGMENT_BYTES]].concat();
    let sequencer = Sequencer::start_in(TempFolder::new("full"), "osaka", &settings);
    let mut accounts = dev_accounts();
    let mut acknowledged = fill(&sequencer.rpc, &mut accounts[0]);
    println!("{} transactions of {LARGE_BYTES} bytes until the disk was full", acknowledged.len());
    check_full(&sequencer.rpc, &acknowledged, &mut accounts[1]);

    // A crash on the full disk: it starts again, and is as full as before.
    let sequencer = Sequencer::start_in(sequencer.kill(), "osaka", &settings);
    check_full(&sequencer.rpc, &acknowledged, &mut accounts[1]);

    disk.resize(DISK_LARGE);
    let start = Instant::now();
    let raw = Draft::transfer(0).sign(&mut accounts[1]);
    poll_until("taken again", RESUME_LIMIT, || sequencer.rpc.try_call("eth_sendRawTransaction", json!([raw])).ok());
    println!("taken again after {:?}", start.elapsed());
    acknowledged.push(hash_of(&raw));
    await_receipts(&sequencer.rpc, &acknowledged);
    let folder = sequencer.stop();
    verify(&data_of(&folder), &["--journal.dir", &dir]);
    let sequencer = Sequencer::start_in(folder, "osaka", &settings);
    await_receipts(&sequencer.rpc, &acknowledged);
    sequencer.stop();
}

/// Sends large transactions until the disk is full; what was acknowledged.
fn fill(rpc: &Rpc, account: &mut Account) -> Vec<B256> {
    let mut acknowledged = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(120) {
        let raw = Draft::large(acknowledged.len() as u64, LARGE_BYTES).sign(account);
        match rpc.try_call("eth_sendRawTransaction", json!([raw])) {
            Ok(hash) => {
                assert_eq!(hash, json!(hash_of(&raw)));
                acknowledged.push(hash_of(&raw));
            }
            Err(error) if error.message.contains("disk is full") => {
                assert_eq!(error.code, -32_005, "{error:?}");
                return acknowledged;
            }
            // The disk is slower than we are.
            Err(error) => assert_eq!(error.code, -32_005, "{error:?}"),
        }
    }
    panic!("{} transactions of {LARGE_BYTES} bytes did not fill the disk", acknowledged.len());
}

/// Nothing is admitted, at once; everything acknowledged is there, reads go on, and what has its place comes into a block.
fn check_full(rpc: &Rpc, acknowledged: &[B256], account: &mut Account) {
    let raw = Draft::transfer(0).sign(account);
    for method in ["eth_sendRawTransaction", "eth_sendRawTransactionSync"] {
        let start = Instant::now();
        let error = rpc.try_call(method, json!([raw])).expect_err("the disk is full");
        assert!(error.code == -32_005 && error.message.contains("disk is full"), "{method}: {error:?}");
        assert!(start.elapsed() < REFUSAL_LIMIT, "{method}: refused after {:?}", start.elapsed());
    }
    poll_until("the open block sealed", Duration::from_secs(10), || {
        let states = acknowledged.iter().map(|hash| status(rpc, *hash));
        states
            .inspect(|status| assert!(status.is_object(), "an acknowledged transaction is unknown"))
            .all(|status| status["state"] != "preconfirmed")
            .then_some(())
    });
    let latest = rpc.call("eth_getBlockByNumber", json!(["latest", false]));
    assert_ne!(latest["number"], "0x0", "{latest}");
    let in_blocks = acknowledged.iter().filter(|hash| status(rpc, **hash)["state"] != "ready").count();
    let balance = rpc.call("eth_getBalance", json!([account.address, "latest"]));
    assert_ne!(balance, "0x0");
    println!("full: {in_blocks} of {} in blocks", acknowledged.len());
}

#[test]
fn a_failed_write_ends_the_process() {
    let _turn = super::super::turn();
    let sequencer = Sequencer::start_in(TempFolder::new("failed-write"), "osaka", &FAST_BLOCKS);
    let mut accounts = dev_accounts();
    let acknowledged: Vec<B256> =
        (0..20).map(|nonce| send(&sequencer.rpc, &Draft::large(nonce, 20_000).sign(&mut accounts[0]))).collect();
    await_receipts(&sequencer.rpc, &acknowledged);
    // Below what the journal has reached, above what the process has logged.
    let limit = Command::new("prlimit").args(["--pid", &sequencer.pid().to_string(), "--fsize=65536"]).status();
    if !limit.is_ok_and(|status| status.success()) {
        assert!(!super::super::is_ci(), "prlimit is missing, or not permitted");
        println!("skipped a_failed_write_ends_the_process: prlimit is missing, or not permitted");
        return;
    }
    let mut lines: Vec<Line> = accounts[1..5]
        .iter_mut()
        .map(|account| {
            let mut line = Line::connect(sequencer.port);
            line.send("eth_sendRawTransaction", json!([Draft::transfer(0).sign(account)]));
            line
        })
        .collect();
    let (status, log, folder) = sequencer.wait_end(Duration::from_secs(20));
    for line in &mut lines {
        let reply = line.reply(Duration::from_millis(200));
        assert!(reply.as_ref().is_none_or(|reply| reply.get("result").is_none()), "acknowledged: {reply:?}");
    }
    verify(&data_of(&folder), &[]);
    let sequencer = Sequencer::start_in(folder, "osaka", &FAST_BLOCKS);
    await_receipts(&sequencer.rpc, &acknowledged);
    sequencer.stop();
    assert_eq!(status.code(), Some(1), "exit after a failed write, {status:?}:\n{log}");
    for part in ["slot-0000", "write"] {
        assert!(log.contains(part), "{part:?} is not in the log:\n{log}");
    }
}
