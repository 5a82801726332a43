//! The admin port and the emergency halt, as an operator and as an attacker on the same machine meet them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use alloy_consensus::TxEip1559;
use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, Bytes, U256};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::limits::EndsLoad;
use super::process::{TempFolder, free_port, poll_until};
use super::rpc::{Rpc, RpcError};
use super::sequencer::{Sequencer, data_of};
use super::workload::{Account, DEV_KEYS};

const LIMIT: Duration = Duration::from_secs(20);
const JSON: &str = "Content-Type: application/json\r\n";
const ACTIVE: &str = r#"{"jsonrpc":"2.0","id":7,"method":"admin_sequencerActive","params":[]}"#;
const HALT: &str = r#"{"jsonrpc":"2.0","id":7,"method":"admin_haltSequencer","params":["an attacker"]}"#;

/// The admin port of a node.
pub struct Admin {
    pub port: u16,
    pub token: String,
}

impl Admin {
    /// Of a node with this data directory.
    pub fn of(data: &Path, port: u16) -> Self {
        Self { port, token: fs::read_to_string(data.join("admin.token")).expect("the node has made it") }
    }

    fn post(&self, body: &str) -> Value {
        let head = format!("{JSON}Authorization: Bearer {}\r\n", self.token);
        let text = exchange(self.port, "POST / HTTP/1.1", "127.0.0.1", &head, body);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        assert!(head.starts_with("HTTP/1.1 200 "), "{text}");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub fn try_call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let body = json!({ "jsonrpc": "2.0", "id": "a", "method": method, "params": params }).to_string();
        let reply = self.post(&body);
        assert_eq!(reply["id"], "a", "{reply}");
        match reply.get("error") {
            None => Ok(reply["result"].clone()),
            Some(error) => Err(RpcError {
                code: error["code"].as_i64().expect("a code"),
                message: error["message"].as_str().expect("a message").to_owned(),
            }),
        }
    }

    #[track_caller]
    pub fn call(&self, method: &str, params: Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error:?}"))
    }

    /// Names of the sources that halt.
    fn halted_by(&self) -> Vec<String> {
        let status = self.call("admin_status", json!([]));
        let by = status["haltedBy"].as_array().expect("an array").clone();
        assert_eq!(status["halted"], json!(!by.is_empty()), "{status}");
        by.iter().map(|source| source["source"].as_str().expect("a name").to_owned()).collect()
    }
}

/// One request on a connection of its own; everything that came back. `head`: lines with their ends.
fn exchange(port: u16, request_line: &str, host: &str, head: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    connection.set_read_timeout(Some(Duration::from_secs(60))).expect("a positive timeout is valid");
    let length = body.len();
    let request = format!("{request_line}\r\nHost: {host}\r\n{head}Content-Length: {length}\r\n\r\n{body}");
    let mut text = Vec::new();
    // A connection that is not wanted may be gone already; a refusal may reset it behind its answer.
    let _ = connection.write_all(request.as_bytes()).and_then(|()| connection.read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

/// A node with its admin port, and its data directory.
fn start(folder: TempFolder, settings: &[&str], environment: &[(&str, &str)]) -> (Sequencer, Admin, PathBuf) {
    let port = free_port();
    let data = data_of(&folder);
    let port_text = port.to_string();
    let settings = [settings, &["--admin.port", &port_text]].concat();
    let sequencer = Sequencer::start_with(folder, "osaka", &settings, environment);
    let admin = Admin::of(&data, port);
    (sequencer, admin, data)
}

/// The account's next transfer.
pub fn transfer(from: &mut Account) -> Bytes {
    from.sign(|nonce| TxEip1559 {
        chain_id: 61_972,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 1_000_000_000_000,
        max_priority_fee_per_gas: 1,
        to: Address::repeat_byte(0x77).into(),
        value: U256::from(1),
        access_list: AccessList::default(),
        input: Bytes::new(),
    })
}

fn send(rpc: &Rpc, raw: &Bytes) -> Result<Value, RpcError> {
    rpc.try_call("eth_sendRawTransaction", json!([raw]))
}

fn status_of(text: &str) -> u16 {
    text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

fn probe(port: u16, path: &str) -> u16 {
    status_of(&exchange(port, &format!("GET {path} HTTP/1.1"), "localhost", "Connection: close\r\n", ""))
}

/// The token where it does not count, or beside something else: what, request line, Host, lines, status.
fn token_elsewhere<'a>(token: &str, in_address: &'a str) -> Vec<(&'a str, &'a str, &'a str, String, u16)> {
    let (post, good) = ("POST / HTTP/1.1", format!("Authorization: Bearer {token}\r\n"));
    vec![
        ("the token in the address", in_address, "127.0.0.1", JSON.to_owned(), 401),
        ("the token in a cookie", post, "127.0.0.1", format!("{JSON}Cookie: token={}\r\n", token), 401),
        ("the token in a header of its own", post, "127.0.0.1", format!("{JSON}X-Admin-Token: {}\r\n", token), 401),
        ("the proxy's token", post, "127.0.0.1", format!("{JSON}Proxy-{good}"), 401),
        ("the token without a scheme", post, "127.0.0.1", format!("{JSON}Authorization: {}\r\n", token), 401),
        ("a wrong token and the right one", post, "127.0.0.1", format!("{JSON}Authorization: Bearer x\r\n{good}"), 401),
        ("the right token and a wrong one", post, "127.0.0.1", format!("{JSON}{good}Authorization: Bearer x\r\n"), 401),
        ("two names", post, "127.0.0.1", format!("{JSON}{good}Host: evil.example\r\n"), 403),
        (
            "a good name behind a forwarded one",
            post,
            "evil.example",
            format!("{JSON}{good}X-Forwarded-Host: localhost\r\n"),
            403,
        ),
        ("another name in the target", "POST http://evil.example/ HTTP/1.1", "127.0.0.1", format!("{JSON}{good}"), 403),
    ]
}

#[test]
fn without_the_token_or_from_a_page_nothing_is_reached() {
    let _turn = super::turn();
    let (sequencer, admin, _) = start(TempFolder::new("admin"), &[], &[]);
    let good = format!("Authorization: Bearer {}\r\n", admin.token);
    let bearer = |token: &str| format!("{JSON}Authorization: Bearer {token}\r\n");
    let last = if admin.token.ends_with('0') { '1' } else { '0' };
    let nearly = format!("{}{last}", &admin.token[..63]);
    let page = "Origin: http://localhost\r\n";
    let in_address = format!("POST /?token={} HTTP/1.1", admin.token);
    let post = "POST / HTTP/1.1";
    let rows: Vec<(&str, &str, &str, String, u16)> = vec![
        ("no token", post, "127.0.0.1", JSON.to_owned(), 401),
        ("an empty token", post, "127.0.0.1", bearer(""), 401),
        ("half of the token", post, "127.0.0.1", bearer(&admin.token[..32]), 401),
        ("nearly the token", post, "127.0.0.1", bearer(&nearly), 401),
        ("more than the token", post, "127.0.0.1", bearer(&format!("{}0", admin.token)), 401),
        ("another scheme", post, "127.0.0.1", format!("{JSON}Authorization: Basic {}\r\n", admin.token), 401),
        ("in the address", "POST /?token=x HTTP/1.1", "127.0.0.1", JSON.to_owned(), 401),
        ("a rebound name", post, "evil.example", format!("{JSON}{good}"), 403),
        ("a name that ends well", post, "evil.localhost", format!("{JSON}{good}"), 403),
        ("no name", post, "", format!("{JSON}{good}"), 403),
        ("a page", post, "127.0.0.1", format!("{JSON}{good}{page}"), 403),
        ("a form", post, "127.0.0.1", format!("Content-Type: text/plain\r\n{good}"), 415),
        ("no content type", post, "127.0.0.1", good.clone(), 415),
        ("another method", "GET / HTTP/1.1", "127.0.0.1", format!("{JSON}{good}"), 405),
        (
            "a preflight",
            "OPTIONS / HTTP/1.1",
            "127.0.0.1",
            "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n".to_owned(),
            405,
        ),
        (
            "a preflight of a page",
            "OPTIONS / HTTP/1.1",
            "127.0.0.1",
            format!("{page}Access-Control-Request-Method: POST\r\n"),
            403,
        ),
        ("another path", "POST /admin HTTP/1.1", "127.0.0.1", format!("{JSON}{good}"), 404),
    ];
    let elsewhere = token_elsewhere(&admin.token, &in_address);
    for (what, line, host, head, expected) in rows.into_iter().chain(elsewhere) {
        let text = exchange(admin.port, line, host, &head, HALT);
        assert_eq!(status_of(&text), expected, "{what}: {text}");
        let lower = text.to_lowercase();
        assert!(!lower.contains("access-control-allow") && !lower.contains(&admin.token), "{what}: {text}");
    }
    // Nor in the call itself.
    let call = HALT.replace(r#""params""#, &format!(r#""token":"{}","params""#, admin.token));
    assert_eq!(status_of(&exchange(admin.port, post, "127.0.0.1", JSON, &call)), 401);
    assert_eq!(admin.call("admin_sequencerActive", json!([])), json!(true), "somebody has halted it");
    // Names that are this machine.
    for host in ["localhost", "127.0.0.1:6198", "[::1]"] {
        let text = exchange(admin.port, post, host, &format!("{JSON}{good}"), ACTIVE);
        assert!(text.ends_with(r#"{"jsonrpc":"2.0","id":7,"result":true}"#), "{host}: {text}");
    }
    assert!(!sequencer.log_text().contains(&admin.token), "the token is in the log");
    sequencer.stop();
}

#[test]
fn strange_calls_get_errors_of_their_own() {
    let _turn = super::turn();
    let (sequencer, admin, _) = start(TempFolder::new("admin"), &[], &[]);
    for (body, code) in [
        ("", -32_700),
        ("{", -32_700),
        ("[]", -32_600),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"admin_status"}]"#, -32_600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"admin_status"}"#, -32_600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"admin_status"}"#, -32_600),
        (r#"{"jsonrpc":"2.0","id":1}"#, -32_600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"admin_nothing"}"#, -32_601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#, -32_601),
        (r#"{"jsonrpc":"2.0","id":1,"method":"admin_status","params":[1]}"#, -32_602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"admin_startSequencer","params":["0x12"]}"#, -32_602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"admin_haltSequencer","params":[7]}"#, -32_602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"admin_setLogLevel","params":[]}"#, -32_602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"admin_setLogLevel","params":["a=b=c"]}"#, -32_602),
        (r#"{"jsonrpc":"2.0","id":1,"method":"admin_startSequencer"}"#, -32_000),
    ] {
        assert_eq!(admin.post(body)["error"]["code"], json!(code), "{body}");
    }
    let long = format!("{}{}", " ".repeat(65 * 1_024), ACTIVE);
    let head = format!("{JSON}Authorization: Bearer {}\r\n", admin.token);
    assert_eq!(status_of(&exchange(admin.port, "POST / HTTP/1.1", "localhost", &head, &long)), 413);
    assert_eq!(admin.call("admin_sequencerActive", json!([])), json!(true));
    sequencer.stop();
}

/// Requests with bytes changed at random: none is carried out, and the port goes on.
#[test]
fn what_nobody_meant_as_a_call_changes_nothing() {
    let _turn = super::turn();
    let (sequencer, admin, _) = start(TempFolder::new("admin"), &[], &[]);
    let seed = 0x5eed;
    let mut rng = StdRng::seed_from_u64(seed);
    let length = HALT.len();
    let good = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\n{JSON}Authorization: Bearer {}\r\nContent-Length: {length}\r\n\r\n{HALT}",
        "5a".repeat(32)
    );
    for round in 0..400 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..rng.random_range(0..6) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..3) {
                0 => bytes[at] = rng.random(),
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, rng.random()),
            }
        }
        let mut connection = TcpStream::connect(("127.0.0.1", admin.port)).expect("it listens");
        connection.set_read_timeout(Some(LIMIT)).expect("a positive timeout is valid");
        let mut text = Vec::new();
        // What ends early is told so by the end of our side.
        let _ = connection.write_all(&bytes);
        let _ = connection.shutdown(std::net::Shutdown::Write);
        let _ = connection.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text);
        assert!(!text.starts_with("HTTP/1.1 2"), "seed {seed:#x}, round {round}: {text}");
    }
    assert_eq!(admin.call("admin_sequencerActive", json!([])), json!(true));
    sequencer.stop();
}

/// Who holds every place of the port without a token loses it to whoever comes.
#[test]
fn silent_connections_do_not_keep_the_operator_out() {
    let _turn = super::turn();
    let (sequencer, admin, _) = start(TempFolder::new("admin"), &[], &[]);
    let silent: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(("127.0.0.1", admin.port)).expect("the system takes it")).collect();
    let start = Instant::now();
    for _ in 0..100 {
        assert_eq!(admin.call("admin_sequencerActive", json!([])), json!(true));
    }
    assert!(start.elapsed() < Duration::from_secs(4), "a hundred calls took {:?}", start.elapsed());
    // The newest of the silent ones have their places still, and lose them in time.
    for mut connection in silent {
        connection.set_read_timeout(Some(LIMIT)).expect("a positive timeout is valid");
        let _ = connection.read(&mut [0]).expect("closed, not kept");
    }
    assert!(start.elapsed() < LIMIT, "places are kept for {:?}", start.elapsed());
    sequencer.stop();
}

#[test]
fn the_token_is_its_owners_or_the_node_does_not_start() {
    let _turn = super::turn();
    let (sequencer, admin, data) = start(TempFolder::new("admin"), &[], &[]);
    let path = data.join("admin.token");
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777, 0o600);
    let folder = sequencer.stop();
    let port = free_port();
    let text_of_port = port.to_string();
    let settings = ["--admin.port", text_of_port.as_str()];
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("our own file");
    let text = Sequencer::start_refused(&folder, "osaka", &settings);
    assert!(text.contains("has mode 0644: others may read it") && text.contains("chmod 600"), "{text}");
    assert!(!text.contains(&admin.token), "{text}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
    // A port that somebody has is an error, not a node without controls.
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port_taken = taken.local_addr().expect("bound").port().to_string();
    let text = Sequencer::start_refused(&folder, "osaka", &["--admin.port", &port_taken]);
    assert!(text.contains("the admin port cannot listen on 127.0.0.1:"), "{text}");
    let sequencer = Sequencer::start_in(folder, "osaka", &settings);
    let again = Admin { port, token: admin.token };
    assert_eq!(again.call("admin_sequencerActive", json!([])), json!(true), "the token stays");
    sequencer.stop();
}

/// Three sources, a crash in between; reads go on, transactions get an error of their own, and only when all three are clear a block is built.
#[test]
fn a_halt_outlives_a_crash_and_ends_when_all_three_sources_are_clear() {
    let _turn = super::turn();
    let mut account = Account::new(DEV_KEYS[0]);
    // So long that no block closes by its own time.
    let slow = ["--block.interval-ms", "600000"];
    let (sequencer, admin, data) = start(TempFolder::new("halt"), &slow, &[]);
    let first = send(&sequencer.rpc, &transfer(&mut account)).expect("a good transaction is taken");
    poll_until("placed", LIMIT, || {
        let status = sequencer.rpc.call("sequencer_getTransactionStatus", json!([first]));
        (status["state"] == "preconfirmed").then_some(())
    });
    let status = admin.call("admin_haltSequencer", json!(["a test"]));
    assert_eq!((&status["halted"], &status["active"]), (&json!(true), &json!(false)), "{status}");
    assert_eq!((&status["haltedBy"][0]["reason"], &status["atRest"]), (&json!("a test"), &json!(true)), "{status}");
    assert_eq!(status["head"]["number"], "0x1", "the open block is closed: {status}");
    let refused = transfer(&mut account);
    check_halted(&sequencer, &refused);

    let folder = sequencer.kill();
    fs::write(data.join("HALT"), "by hand\n").expect("the folder is writable");
    let (sequencer, admin, _) = start(folder, &[], &[("EMERGENCY_HALT", "true")]);
    assert_eq!(admin.halted_by(), ["setting", "file", "admin"]);
    assert_eq!(sequencer.rpc.call("eth_getTransactionReceipt", json!([first]))["status"], "0x1", "reads go on");
    check_halted(&sequencer, &refused);
    let status = admin.call("admin_resumeSequencer", json!([]));
    assert_eq!((&status["halted"], &status["atRest"]), (&json!(true), &json!(true)), "two are left: {status}");
    let started = admin.try_call("admin_startSequencer", json!([])).expect_err("halted");
    assert!(started.message.starts_with("halted by setting, file: "), "{started:?}");
    fs::remove_file(data.join("HALT")).expect("our own file");
    poll_until("seen", LIMIT, || (admin.halted_by() == ["setting"]).then_some(()));
    check_halted(&sequencer, &refused);

    let (sequencer, admin, _) = start(sequencer.stop(), &[], &[("EMERGENCY_HALT", "false")]);
    assert_eq!(admin.call("admin_sequencerActive", json!([])), json!(true));
    assert_eq!(probe(sequencer.port, "/readyz"), 200);
    let hash = send(&sequencer.rpc, &refused).expect("taken again");
    poll_until("included", LIMIT, || {
        let receipt = sequencer.rpc.call("eth_getTransactionReceipt", json!([hash]));
        (receipt["status"] == "0x1").then_some(())
    });
    // A file alone halts a running node, and ends.
    fs::write(data.join("HALT"), "").expect("the folder is writable");
    poll_until("halted", LIMIT, || (admin.halted_by() == ["file"]).then_some(()));
    check_halted(&sequencer, &transfer(&mut account));
    fs::remove_file(data.join("HALT")).expect("our own file");
    poll_until("active", LIMIT, || (admin.call("admin_sequencerActive", json!([])) == true).then_some(()));
    sequencer.stop();
}

/// Transactions are refused with the halt's own error, probes say so, reads and the process go on.
#[track_caller]
fn check_halted(sequencer: &Sequencer, raw: &Bytes) {
    let rpc = &sequencer.rpc;
    let error = send(rpc, raw).expect_err("halted");
    assert_eq!(error.code, -32_005, "{error:?}");
    assert!(error.message.starts_with("halted by the operator"), "{error:?}");
    let error = rpc.try_call("eth_sendRawTransactionSync", json!([raw])).expect_err("halted");
    assert_eq!(error.code, 5, "{error:?}");
    assert_eq!(probe(sequencer.port, "/readyz"), 503);
    assert_eq!(probe(sequencer.port, "/livez"), 200);
    let latest = rpc.quantity("eth_blockNumber", json!([]));
    assert!(rpc.call("eth_getBlockByNumber", json!([format!("{latest:#x}"), true])).is_object(), "reads go on");
    rpc.call("eth_getBalance", json!([Address::repeat_byte(0x77), "pending"]));
}

/// A halted process ends in order, without waiting for what nobody may place.
#[test]
fn sigterm_while_halted_ends_at_once_and_in_order() {
    let _turn = super::turn();
    let (sequencer, admin, data) = start(TempFolder::new("halt"), &["--block.interval-ms", "600000"], &[]);
    let mut account = Account::new(DEV_KEYS[1]);
    let raw: Vec<Bytes> = (0..3).map(|_| transfer(&mut account)).collect();
    // The second waits behind a gap until the start after this one.
    let hash = send(&sequencer.rpc, &raw[1]).expect("taken");
    admin.call("admin_haltSequencer", json!([]));
    let start_of_end = Instant::now();
    let folder = sequencer.stop();
    assert!(start_of_end.elapsed() < Duration::from_secs(4), "the end took {:?}", start_of_end.elapsed());
    fs::remove_file(data.join("HALT.admin")).expect("the halt was remembered");
    let sequencer = Sequencer::start_in(folder, "osaka", &[]);
    send(&sequencer.rpc, &raw[0]).expect("taken");
    poll_until("included", LIMIT, || {
        let receipt = sequencer.rpc.call("eth_getTransactionReceipt", json!([hash]));
        (receipt["status"] == "0x1").then_some(())
    });
    sequencer.stop();
}

/// Stop and start while transactions come: the hash is the head's, nothing is built behind it, nothing that was taken is lost.
#[test]
fn a_stop_under_load_names_the_head_and_a_start_goes_on_from_it() {
    let _turn = super::turn();
    let (sequencer, admin, _) = start(TempFolder::new("stop"), &["--block.interval-ms", "200"], &[]);
    let (is_over, rpc) = (AtomicBool::new(false), sequencer.rpc.clone());
    let hashes = thread::scope(|scope| {
        let _end = EndsLoad(&is_over);
        let load = scope.spawn(|| {
            let (mut account, mut hashes) = (Account::new(DEV_KEYS[2]), Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                let raw: Vec<Bytes> = (0..10).map(|_| transfer(&mut account)).collect();
                let answers = rpc.batch("eth_sendRawTransaction", raw.iter().map(|raw| json!([raw])));
                hashes.extend(answers.into_iter().map(|answer| answer.expect("taken, also while it is stopped")));
                // Far below what it takes, so that the pool never fills.
                thread::sleep(Duration::from_millis(20));
            }
            hashes
        });
        poll_until("building", LIMIT, || (rpc.quantity("eth_blockNumber", json!([])) > 2).then_some(()));
        for _ in 0..3 {
            stop_and_start(&sequencer.rpc, &admin);
        }
        is_over.store(true, Ordering::Relaxed);
        load.join().expect("the load ends in order")
    });
    println!("{} transactions", hashes.len());
    for part in hashes.chunks(100) {
        poll_until("included", LIMIT, || {
            let receipts = rpc.batch("eth_getTransactionReceipt", part.iter().map(|hash| json!([hash])));
            receipts.iter().all(|receipt| receipt.as_ref().is_ok_and(Value::is_object)).then_some(())
        });
    }
    sequencer.stop();
}

fn stop_and_start(rpc: &Rpc, admin: &Admin) {
    let hash = admin.call("admin_stopSequencer", json!([]));
    let head = rpc.call("eth_getBlockByNumber", json!(["latest", false]));
    assert_eq!(head["hash"], hash, "what stop says is the head");
    assert_eq!(admin.call("admin_sequencerActive", json!([])), json!(false));
    let again = admin.try_call("admin_stopSequencer", json!([])).expect_err("stopped");
    assert_eq!(again.message, "sequencer not running");
    let pooled = |rpc: &Rpc| rpc.call("txpool_status", json!([]))["pending"].clone();
    let before = pooled(rpc);
    thread::sleep(Duration::from_millis(600));
    assert_eq!(rpc.call("eth_getBlockByNumber", json!(["latest", false]))["hash"], hash, "nothing is built");
    assert_ne!(pooled(rpc), before, "what is sent waits in the pool");
    let other = admin.try_call("admin_startSequencer", json!([Address::ZERO.into_word()])).expect_err("another head");
    assert!(other.message.starts_with("block hash does not match"), "{other:?}");
    assert_eq!(admin.call("admin_startSequencer", json!([hash])), Value::Null);
    let number = super::rpc::quantity(&head["number"]);
    let next = poll_until("building", LIMIT, || {
        let block = rpc.call("eth_getBlockByNumber", json!([format!("{:#x}", number + 1), false]));
        block.is_object().then_some(block)
    });
    assert_eq!(next["parentHash"], hash, "the chain goes on from there");
    let again = admin.try_call("admin_startSequencer", json!([])).expect_err("running");
    assert_eq!(again.message, "sequencer already running");
}

#[test]
fn the_log_level_changes_while_it_runs() {
    let _turn = super::turn();
    for format in ["text", "json"] {
        let (sequencer, admin, _) = start(TempFolder::new("log"), &["--log.format", format], &[]);
        let count = || sequencer.log_text().matches("admin call").count();
        // `dev` shows warnings.
        admin.call("admin_resumeSequencer", json!([]));
        assert_eq!(count(), 0, "{format}");
        admin.call("admin_setLogLevel", json!(["info"]));
        admin.call("admin_resumeSequencer", json!([]));
        poll_until("written", LIMIT, || (count() == 1).then_some(()));
        admin.call("admin_setLogLevel", json!(["error"]));
        poll_until("written", LIMIT, || (count() == 2).then_some(()));
        admin.call("admin_resumeSequencer", json!([]));
        admin.call("admin_setLogLevel", json!(["info"]));
        admin.call("admin_setLogLevel", json!(["info"]));
        // The last one alone is heard.
        poll_until("written", LIMIT, || (count() == 3).then_some(()));
        sequencer.stop();
    }
}

/// Transactions that have no place are dropped for good; the same journal brings nothing of them back.
#[test]
fn dropped_transactions_end_as_such_and_stay_away() {
    let _turn = super::turn();
    let (sequencer, admin, _) = start(TempFolder::new("drop"), &["--block.interval-ms", "600000"], &[]);
    let rpc = &sequencer.rpc;
    let (mut one, mut two) = (Account::new(DEV_KEYS[4]), Account::new(DEV_KEYS[5]));
    let address = two.address;
    let placed = send(rpc, &transfer(&mut one)).expect("taken");
    let gap = transfer(&mut one);
    let waiting = send(rpc, &transfer(&mut one)).expect("taken");
    let first_of_two = transfer(&mut two);
    let of_two: Vec<Value> = (0..3).map(|_| send(rpc, &transfer(&mut two)).expect("taken")).collect();
    let state = |rpc: &Rpc, hash: &Value| rpc.call("sequencer_getTransactionStatus", json!([hash]))["state"].clone();
    poll_until("placed", LIMIT, || (state(rpc, &placed) == "preconfirmed").then_some(()));

    let error = admin.try_call("admin_dropTransaction", json!([placed])).expect_err("placed");
    assert!(error.message.starts_with("already preconfirmed in block 1"), "{error:?}");
    assert_eq!(admin.call("admin_dropTransaction", json!([waiting])), Value::Null);
    let error = admin.try_call("admin_dropTransaction", json!([waiting])).expect_err("gone");
    assert!(error.message.starts_with("not in the pool"), "{error:?}");
    assert_eq!(admin.call("admin_dropSender", json!([address])), json!("0x3"));
    assert_eq!(admin.call("admin_dropSender", json!([address])), json!("0x0"));
    poll_until("ended", LIMIT, || (state(rpc, &waiting) == "dropped").then_some(()));
    let status = rpc.call("sequencer_getTransactionStatus", json!([of_two[1]]));
    assert_eq!(status["reason"], "dropped by the operator", "{status}");

    // A crash: what the answers said is in the journal.
    let (sequencer, _, _) = start(sequencer.kill(), &["--block.interval-ms", "200"], &[]);
    let rpc = &sequencer.rpc;
    let filled: Vec<Value> = [&gap, &first_of_two].map(|raw| send(rpc, raw).expect("taken")).into();
    for hash in filled.iter().chain([&placed]) {
        poll_until("included", LIMIT, || {
            rpc.call("eth_getTransactionReceipt", json!([hash])).is_object().then_some(())
        });
    }
    for hash in of_two.iter().chain([&waiting]) {
        assert_eq!(state(rpc, hash), "dropped");
        assert!(rpc.call("eth_getTransactionReceipt", json!([hash])).is_null());
    }
    let status = rpc.call("txpool_status", json!([]));
    assert_eq!((&status["pending"], &status["queued"]), (&json!("0x0"), &json!("0x0")), "{status}");
    sequencer.stop();
}

/// Posting stops, goes on and is flushed; blocks go on meanwhile, and become safe afterwards.
#[test]
fn the_batcher_stops_starts_and_flushes() {
    let _turn = super::turn();
    let l1_port = free_port().to_string();
    let settings = [
        "--l1",
        "embedded",
        "--l1.dev-port",
        &l1_port,
        "--l1.dev-block-ms",
        "200",
        "--block.interval-ms",
        "200",
        "--settlement.batch-age-ms",
        "1000",
    ];
    let (sequencer, admin, _) = start(TempFolder::new("batcher"), &settings, &[]);
    let rpc = &sequencer.rpc;
    let mut account = Account::new(DEV_KEYS[6]);
    let number = |tag: &str| {
        let block = rpc.call("eth_getBlockByNumber", json!([tag, false]));
        super::rpc::quantity(&block["number"])
    };
    let block = |account: &mut Account| {
        let hash = send(rpc, &transfer(account)).expect("taken");
        poll_until("included", LIMIT, || {
            let receipt = rpc.call("eth_getTransactionReceipt", json!([hash]));
            receipt.is_object().then(|| super::rpc::quantity(&receipt["blockNumber"]))
        })
    };
    let first = block(&mut account);
    poll_until("safe", LIMIT, || (number("safe") >= first).then_some(()));
    admin.call("admin_stopBatcher", json!([]));
    let error = admin.try_call("admin_flushBatcher", json!([])).expect_err("stopped");
    assert_eq!(error.message, "batcher is not running");
    let held = block(&mut account);
    thread::sleep(Duration::from_secs(3));
    assert!(number("safe") < held, "something was posted while stopped");
    let status = rpc.call("sequencer_settlementStatus", json!([]));
    assert_eq!(status["condition"], "waiting", "{status}");
    assert!(status["why"].as_str().is_some_and(|why| why.starts_with("stopped by the operator")), "{status}");
    admin.call("admin_startBatcher", json!([]));
    let error = admin.try_call("admin_startBatcher", json!([])).expect_err("running");
    assert_eq!(error.message, "batcher is already running");
    poll_until("safe", LIMIT, || (number("safe") >= held).then_some(()));
    sequencer.stop();

    // A batch that would wait for an hour goes out when it is flushed.
    let l1_port = free_port().to_string();
    let hour = settings.map(|setting| match setting {
        "1000" => "600000",
        setting if setting == settings[3] => &l1_port,
        other => other,
    });
    let (sequencer, admin, _) = start(TempFolder::new("flush"), &hour, &[]);
    let rpc = &sequencer.rpc;
    let mut account = Account::new(DEV_KEYS[6]);
    let hash = send(rpc, &transfer(&mut account)).expect("taken");
    let included = poll_until("included", LIMIT, || {
        let receipt = rpc.call("eth_getTransactionReceipt", json!([hash]));
        receipt.is_object().then(|| super::rpc::quantity(&receipt["blockNumber"]))
    });
    let safe = || super::rpc::quantity(&rpc.call("eth_getBlockByNumber", json!(["safe", false]))["number"]);
    thread::sleep(Duration::from_secs(2));
    assert!(safe() < included, "it did not wait for its batch's age");
    admin.call("admin_flushBatcher", json!([]));
    poll_until("safe", LIMIT, || (safe() >= included).then_some(()));
    sequencer.stop();
}

#[test]
fn without_an_l1_there_is_no_batcher() {
    let _turn = super::turn();
    let (sequencer, admin, _) = start(TempFolder::new("batcher"), &[], &[]);
    for method in ["admin_startBatcher", "admin_stopBatcher", "admin_flushBatcher"] {
        let error = admin.try_call(method, json!([])).expect_err("no batcher");
        assert!(error.message.contains("there is no batcher"), "{error:?}");
    }
    // Every method of the document exists.
    for method in native_sequencer::admin::rpc::METHODS {
        let error = admin.try_call(method, json!([1, 2, 3, 4])).expect_err("too many arguments");
        assert_ne!(error.code, -32_601, "{method}: {error:?}");
    }
    sequencer.stop();
}
