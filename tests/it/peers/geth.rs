//! A real go-ethereum: made from a genesis file, driven by the engine API, stopped by its pid.

use std::fs;
use std::path::Path;
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

/// A running node. Fields drop in order: the process ends before its folder goes.
pub struct Geth {
    pub rpc: Rpc,
    engine: Rpc,
    process: Process,
    _folder: TempFolder,
}

impl Geth {
    /// Makes a data folder from `genesis` and starts go-ethereum on it; returns when both ports answer.
    pub fn start(binary: &Path, genesis: &Value) -> Self {
        let folder = TempFolder::new("geth");
        let data = folder.path().join("data");
        let genesis_file = folder.path().join("genesis.json");
        let jwt_file = folder.path().join("jwt.hex");
        fs::write(&genesis_file, genesis.to_string()).expect("the folder is writable");
        fs::write(&jwt_file, alloy_primitives::hex::encode(JWT_SECRET)).expect("the folder is writable");

        let mut init = Command::new(binary);
        init.arg("init").arg("--datadir").arg(&data).args(["--state.scheme", "hash"]).arg(&genesis_file);
        let output = init.output().unwrap_or_else(|error| panic!("{} does not start: {error}", binary.display()));
        assert!(output.status.success(), "geth init: {}", String::from_utf8_lossy(&output.stderr));

        let (http_port, engine_port) = (free_port(), free_port());
        let mut command = Command::new(binary);
        command.arg("--datadir").arg(&data).arg("--authrpc.jwtsecret").arg(&jwt_file);
        // Snap sync would leave every second block SYNCING; path-scheme state cannot be refed after a crash.
        command.args(["--syncmode", "full", "--state.scheme", "hash", "--gcmode", "archive"]);
        command.args(["--networkid", "61972", "--nodiscover", "--maxpeers", "0", "--port", "0", "--nat", "none"]);
        command.args(["--ipcdisable", "--http", "--http.addr", "127.0.0.1", "--http.port", &http_port.to_string()]);
        command.args(["--http.api", "eth,net,web3,debug,txpool,testing"]);
        command.args(["--authrpc.addr", "127.0.0.1", "--authrpc.port", &engine_port.to_string()]);
        command.args(["--authrpc.vhosts", "localhost,127.0.0.1"]);
        let mut process = Process::start("geth", folder.path(), command);

        let rpc = Rpc::new(format!("http://127.0.0.1:{http_port}"));
        let engine = Rpc::with_jwt(format!("http://127.0.0.1:{engine_port}"), JWT_SECRET);
        let probe = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []});
        process.wait_until("answering", START_LIMIT, || {
            (rpc.post(&probe).is_ok() && engine.post(&probe).is_ok()).then_some(())
        });
        Self { rpc, engine, process, _folder: folder }
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
        self.process.log_tail()
    }
}
