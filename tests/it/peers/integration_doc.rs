//! Two terminals, with the commands of `docs/L2_NODE_INTEGRATION.md` as they stand there, but for the ports.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use serde_json::{Value, json};

use super::process::{Process, TempFolder, free_port, poll_until};
use super::rpc::{Rpc, quantity};
use super::sequencer;
use super::workload::{Account, DEV_KEYS, Workload};

const LIMIT: Duration = Duration::from_secs(120);

/// The first block of commands behind this line of the document.
#[track_caller]
fn commands(behind: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/L2_NODE_INTEGRATION.md");
    let text = std::fs::read_to_string(path).expect("the document");
    let (_, rest) = text.split_once(behind).unwrap_or_else(|| panic!("the document lacks `{behind}`"));
    let (_, rest) = rest.split_once("```sh\n").expect("commands follow");
    rest.split_once("```").expect("they end").0.to_owned()
}

/// An operator's folder, with both programs on the path, and free ports in the place of the document's.
struct Desk {
    folder: TempFolder,
    path: String,
    /// The document's port, ours.
    ports: [(&'static str, u16); 3],
}

impl Desk {
    fn new(geth: &Path) -> Self {
        let folder = TempFolder::new("two-terminals");
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).expect("the folder is writable");
        symlink(geth, bin.join("geth")).expect("the folder is writable");
        symlink(sequencer::binary(), bin.join("sequencer")).expect("the folder is writable");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("there is a path"));
        let ports = ["6197", "8545", "8551"].map(|port| (port, free_port()));
        Self { folder, path, ports }
    }

    fn rpc(&self, port: &str) -> Rpc {
        let (_, ours) = self.ports.iter().find(|(theirs, _)| *theirs == port).expect("a port of the document");
        Rpc::new(format!("http://127.0.0.1:{ours}"))
    }

    fn terminal(&self, name: &str, commands: &str) -> Process {
        let commands =
            self.ports.iter().fold(commands.to_owned(), |text, (theirs, ours)| text.replace(theirs, &ours.to_string()));
        let mut command = Command::new("sh");
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"SEQUENCER_") {
                command.env_remove(variable);
            }
        }
        command.current_dir(self.folder.path()).env("PATH", &self.path).args(["-ec", &format!("{commands}\n")]);
        Process::start(name, self.folder.path(), command)
    }
}

/// What terminal 2 has besides: our port, and times for a test.
fn with_test_settings(commands: &str, port: u16) -> String {
    let settings = [
        &["--http.port", &port.to_string(), "--execution.stall-ms", "1500", "--execution.backoff-max-ms", "500"],
        &sequencer::FAST_BLOCKS[..],
    ];
    // `exec`: the terminal is the sequencer, and hears SIGTERM.
    format!("exec {} {}", commands.trim_end(), settings.concat().join(" "))
}

fn start_both(desk: &Desk, terminal_1: &str, behind: &str) -> (Process, Process) {
    // `exec`: as for the other terminal.
    let mut client = desk.terminal("terminal-1", &terminal_1.replace("\n./run-el", "\nexec ./run-el"));
    let theirs = desk.rpc("8545");
    let probe = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []});
    client.wait_until("answering", LIMIT, || theirs.post(&probe).ok());
    let mut ours = desk.terminal("terminal-2", &with_test_settings(&commands(behind), desk.ports[0].1));
    ours.wait_until("answering", LIMIT, || desk.rpc("6197").post(&probe).ok());
    (client, ours)
}

/// Sends a round and waits until all of them are mined; the same `latest` on both sides.
#[track_caller]
fn settle(desk: &Desk, workload: &mut Workload, sent: &mut u64) {
    let (ours, theirs) = (desk.rpc("6197"), desk.rpc("8545"));
    let raw = if *sent == 0 { vec![workload.deploy()] } else { workload.round() };
    *sent += raw.len() as u64;
    let mut left = raw;
    let senders: Vec<Address> = DEV_KEYS.into_iter().map(|key| Account::new(key).address).collect();
    let start = Instant::now();
    loop {
        let answers = ours.batch("eth_sendRawTransaction", left.iter().map(|raw| json!([raw])));
        let refused =
            |answer: &Result<Value, _>| answer.as_ref().is_err_and(|error: &super::rpc::RpcError| error.code == -32005);
        left = left.into_iter().zip(&answers).filter(|(_, answer)| refused(answer)).map(|(raw, _)| raw).collect();
        let nonces = ours.batch("eth_getTransactionCount", senders.iter().map(|address| json!([address, "latest"])));
        let mined: u64 = nonces.iter().map(|nonce| quantity(nonce.as_ref().expect("a nonce"))).sum();
        if mined == *sent {
            break;
        }
        let status = ours.call("sequencer_executionStatus", json!([]));
        assert!(start.elapsed() < LIMIT, "{mined} of {sent} mined, {} refused: {status}", left.len());
        std::thread::sleep(Duration::from_millis(100));
    }
    let latest = ours.call("eth_getBlockByNumber", json!(["latest", false]));
    let block = theirs.call("eth_getBlockByNumber", json!(["latest", false]));
    assert_eq!(latest["hash"], block["hash"]);
}

/// Whoever follows the document has the automatic way out: go-ethereum's default state scheme, killed, is one that nothing else helps.
#[test]
fn following_the_document_gives_a_stuck_client_a_new_database_by_itself() {
    let name = "following_the_document_gives_a_stuck_client_a_new_database_by_itself";
    let Some(geth) = super::peer("SEQUENCER_GETH", name) else { return };
    let _turn = super::turn();
    let desk = Desk::new(&geth);
    let terminal_1 = commands("Terminal 1, the client:");
    let fragile = terminal_1.replace(" --state.scheme hash", "").replace(" --gcmode archive", "");
    assert_ne!(fragile, terminal_1);
    let (client, mut ours) = start_both(&desk, &fragile, "Terminal 2, the sequencer:");
    let (mut workload, mut sent) = (Workload::new(51), 0);
    for _ in 0..24 {
        settle(&desk, &mut workload, &mut sent);
    }
    let before = desk.rpc("6197").quantity("eth_blockNumber", json!([]));
    let pid = || std::fs::read_to_string(desk.folder.path().join("el.pid")).expect("run-el writes it");
    let killed = pid();
    let status = Command::new("sh").args(["-c", &format!("kill -9 {killed}")]).status();
    assert!(status.expect("sh starts").success());
    settle(&desk, &mut workload, &mut sent);
    let status = desk.rpc("6197").call("sequencer_executionStatus", json!([]));
    assert_eq!(status["resets"], "0x1", "{status}");
    assert!(client.log_text().contains("Writing custom genesis block") && pid() != killed);
    assert!(desk.rpc("8545").quantity("eth_blockNumber", json!([])) > before);
    assert!(ours.log_text().contains("execution.reset-command is run"), "{}", ours.log_tail());
    poll_until("ready", LIMIT, || {
        (desk.rpc("6197").call("sequencer_executionStatus", json!([]))["state"] == "ready").then_some(())
    });
    assert!(ours.stop().is_some_and(|status| status.success()), "{}", ours.log_tail());
}

/// The same folder in the other mode, where the client builds.
#[test]
fn following_the_document_the_client_builds() {
    let Some(geth) = super::peer("SEQUENCER_GETH", "following_the_document_the_client_builds") else { return };
    let _turn = super::turn();
    let desk = Desk::new(&geth);
    let terminal_1 = commands("Terminal 1, the client:");
    let last_line = commands("Terminal 1 as above, but for its last line");
    let terminal_1 = terminal_1.replace("\n./run-el\n", &format!("\n{last_line}"));
    let (_client, mut ours) = start_both(&desk, &terminal_1, &format!("{last_line}```\n"));
    let (mut workload, mut sent) = (Workload::new(52), 0);
    for _ in 0..3 {
        settle(&desk, &mut workload, &mut sent);
    }
    assert!(desk.folder.path().join("seq").exists() && !desk.folder.path().join("seq/state").exists());
    assert!(!ours.log_text().contains("lacks testing_buildBlockV1"), "{}", ours.log_tail());
    assert!(ours.stop().is_some_and(|status| status.success()), "{}", ours.log_tail());
}
