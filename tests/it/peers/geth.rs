//! A real go-ethereum: made from a genesis file, driven by the engine API, stopped, killed, frozen and emptied by its pid.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::payload::Payload;
use super::process::{Process, TempFolder, free_port};
use super::rpc::{Rpc, RpcError};

/// go-ethereum answers in under 3 s on an idle machine; a loaded one gets more.
const START_LIMIT: Duration = Duration::from_secs(60);
const JWT_SECRET: [u8; 32] = [0x5a; 32];
const ZERO_HASH: &str = "0x0000000000000000000000000000000000000000000000000000000000000000";

/// How go-ethereum keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// What `docs/L2_NODE_INTEGRATION.md` recommends: a `kill -9` costs the last few blocks.
    HashArchive,
    /// Its default: a `kill -9` costs everything since the last clean stop.
    Path,
}

/// A node. Fields drop in order: the process ends before its folder goes.
pub struct Geth {
    pub rpc: Rpc,
    engine: Rpc,
    /// `None` while it is down.
    process: Option<Process>,
    binary: PathBuf,
    scheme: Scheme,
    ports: (u16, u16),
    /// Namespaces of the plain port.
    apis: &'static str,
    folder: TempFolder,
}

impl Geth {
    /// Makes a data folder from `genesis` and starts go-ethereum on it; returns when both ports answer.
    pub fn start(binary: &Path, genesis: &Value) -> Self {
        Self::start_with(binary, genesis, Scheme::HashArchive)
    }

    /// As [`Geth::start`], with another way to keep the state.
    pub fn start_with(binary: &Path, genesis: &Value, scheme: Scheme) -> Self {
        Self::start_as(binary, genesis, scheme, "eth,net,web3,debug,txpool,testing")
    }

    /// As [`Geth::start`], without the namespace that builds a block of a list.
    pub fn start_without_testing(binary: &Path, genesis: &Value) -> Self {
        Self::start_as(binary, genesis, Scheme::HashArchive, "eth,net,web3,debug,txpool")
    }

    fn start_as(binary: &Path, genesis: &Value, scheme: Scheme, apis: &'static str) -> Self {
        let folder = TempFolder::new("geth");
        fs::write(folder.path().join("genesis.json"), genesis.to_string()).expect("the folder is writable");
        let secret = alloy_primitives::hex::encode(JWT_SECRET);
        let secret_file = folder.path().join("jwt.hex");
        fs::write(&secret_file, secret).expect("the folder is writable");
        // What others may read is no secret, and a node refuses it.
        fs::set_permissions(&secret_file, fs::Permissions::from_mode(0o600)).expect("our own file");
        let ports = (free_port(), free_port());
        let rpc = Rpc::new(format!("http://127.0.0.1:{}", ports.0));
        let engine = Rpc::with_jwt(format!("http://127.0.0.1:{}", ports.1), JWT_SECRET);
        let mut geth = Self { rpc, engine, process: None, binary: binary.to_owned(), scheme, ports, apis, folder };
        geth.init();
        geth.restart();
        geth
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The shared secret's file, for the node that drives this one.
    pub fn jwt_file(&self) -> PathBuf {
        self.folder.path().join("jwt.hex")
    }

    /// Address of the engine API.
    pub fn engine_url(&self) -> String {
        self.engine.url().to_owned()
    }

    fn init(&self) {
        let mut init = Command::new(&self.binary);
        init.arg("init").arg("--datadir").arg(self.data());
        if self.scheme == Scheme::HashArchive {
            init.args(["--state.scheme", "hash"]);
        }
        let output = init.arg(self.folder.path().join("genesis.json")).output();
        let output = output.unwrap_or_else(|error| panic!("{} does not start: {error}", self.binary.display()));
        assert!(output.status.success(), "geth init: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts the process on what its folder holds; returns when both ports answer.
    pub fn restart(&mut self) {
        let mut command = Command::new(&self.binary);
        command.arg("--datadir").arg(self.data()).arg("--authrpc.jwtsecret").arg(self.jwt_file());
        // Snap sync would leave every second block SYNCING; path-scheme state cannot be refed after a crash.
        command.args(["--syncmode", "full"]);
        if self.scheme == Scheme::HashArchive {
            command.args(["--state.scheme", "hash", "--gcmode", "archive"]);
        }
        command.args(["--networkid", "61972", "--nodiscover", "--maxpeers", "0", "--port", "0", "--nat", "none"]);
        command.args(["--http", "--http.addr", "127.0.0.1", "--http.port", &self.ports.0.to_string()]);
        command.args(["--http.api", self.apis]);
        command.args(["--authrpc.addr", "127.0.0.1", "--authrpc.port", &self.ports.1.to_string()]);
        command.args(["--authrpc.vhosts", "localhost,127.0.0.1", "--ipcpath", "geth.ipc"]);
        let mut process = Process::start("geth", self.folder.path(), command);
        let probe = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []});
        process.wait_until("answering", START_LIMIT, || {
            (self.rpc.post(&probe).is_ok() && self.engine.post(&probe).is_ok()).then_some(())
        });
        self.process = Some(process);
    }

    /// The Unix socket that serves every namespace.
    pub fn ipc_path(&self) -> PathBuf {
        self.data().join("geth.ipc")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// SIGTERM, after which nothing is lost.
    pub fn stop(&mut self) {
        let status = self.process.take().expect("it runs").stop();
        assert!(status.is_some(), "geth had to be killed");
    }

    /// SIGSTOP: sockets stay open, nothing is answered.
    pub fn freeze(&self) {
        self.process.as_ref().expect("it runs").signal("STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.process.as_ref().expect("it runs").signal("CONT");
    }

    /// As [`Geth::wipe`], with another way to keep the state from now on.
    pub fn wipe_to(&mut self, scheme: Scheme) {
        self.scheme = scheme;
        self.wipe();
    }

    /// Kills it and makes a new database of genesis alone; it does not run afterwards.
    pub fn wipe(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
        fs::remove_dir_all(self.data()).expect("the database is ours");
        self.init();
    }

    /// Ends it in order, keeps a copy of its database, and starts it again.
    pub fn keep_database(&mut self) {
        self.stop();
        copy_folder(&self.data(), &self.kept());
        self.restart();
    }

    /// `kill -9`, and the copy in the place of its database; it does not run afterwards.
    pub fn put_back_database(&mut self) {
        self.kill();
        fs::remove_dir_all(self.data()).expect("the database is ours");
        copy_folder(&self.kept(), &self.data());
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join("kept")
    }

    /// Any method of the engine API.
    pub fn engine_call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.engine.try_call(method, params)
    }

    /// `engine_newPayloadV4`: the payload's status object.
    pub fn new_payload(&self, payload: &Payload) -> Value {
        let params = json!([payload.json, [], payload.parent_beacon_block_root, payload.requests]);
        self.engine.call("engine_newPayloadV4", params)
    }

    /// `engine_forkchoiceUpdatedV3` to `head` with nothing safe or finalized.
    pub fn forkchoice_updated(&self, head: &Value) -> Result<Value, RpcError> {
        let state = json!({"headBlockHash": head, "safeBlockHash": ZERO_HASH, "finalizedBlockHash": ZERO_HASH});
        self.engine.try_call("engine_forkchoiceUpdatedV3", json!([state, null]))
    }

    /// Feeds one block: it must be VALID and become the head.
    #[track_caller]
    pub fn accept(&self, payload: &Payload) {
        let (number, hash) = (&payload.json["blockNumber"], &payload.json["blockHash"]);
        let status = self.new_payload(payload);
        assert_eq!(status["status"], "VALID", "block {number} {hash}: {status}");
        let update = self.forkchoice_updated(hash).unwrap_or_else(|error| panic!("block {number}: {error:?}"));
        assert_eq!(update["payloadStatus"]["status"], "VALID", "forkchoiceUpdated to {number} {hash}: {update}");
    }

    /// The names that `engine_exchangeCapabilities` answers.
    pub fn capabilities(&self) -> Vec<String> {
        let answer = self.engine.call("engine_exchangeCapabilities", json!([[]]));
        let names = answer.as_array().expect("an array of names");
        names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Builds a block of what its pool holds, inserts it and makes it the head; returns its hash.
    pub fn commit_block(&self, timestamp: u64) -> Value {
        let attributes = json!({
            "timestamp": format!("{timestamp:#x}"), "prevRandao": ZERO_HASH, "withdrawals": [],
            "suggestedFeeRecipient": "0x00000000000000000000000000000000000000fe",
            "parentBeaconBlockRoot": format!("{timestamp:#066x}"),
        });
        self.rpc.call("testing_commitBlockV1", json!([attributes, null, null]))
    }

    /// The end of its log, for a failure message.
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map_or_else(|| "geth does not run".to_owned(), Process::log_tail)
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status().expect("cp starts");
    assert!(status.success(), "cp -r {} {}: {status}", from.display(), to.display());
}
