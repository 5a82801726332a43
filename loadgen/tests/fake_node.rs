//! Whole runs of the binary against a scripted node on loopback: what it counts, and how it exits.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails as it should")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_eips::Decodable2718;
use alloy_primitives::{B256, U256, hex, keccak256};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// What the node does beside answering.
#[derive(Clone, Copy, Default)]
struct Script {
    /// Refuses every n-th transaction.
    refuse_every: Option<usize>,
    /// Stops answering anything for a while when this many transactions have come.
    stall: Option<(usize, Duration)>,
    /// Closes the connection instead of answering every n-th transaction.
    close_every: Option<usize>,
    /// Never answers transactions from this one on.
    deaf_from: Option<usize>,
    /// Acknowledges transactions and forgets them.
    forgetful: bool,
    /// There is one sender, whose nonces count: a block takes what follows without a gap. Otherwise every nonce is 0.
    one_sender: bool,
    /// Acknowledges the n-th transaction and forgets it, once.
    forget: Option<usize>,
    chunked: bool,
}

#[derive(Default)]
struct Chain {
    received: usize,
    accepted: Vec<B256>,
    /// Nonce and hash.
    pending: Vec<(u64, B256)>,
    blocks: Vec<Vec<B256>>,
    /// With one sender: its next nonce.
    nonce: Option<u64>,
}

impl Chain {
    /// Puts what is pending into a block; true when there was something.
    fn seal(&mut self) -> bool {
        self.pending.sort_unstable();
        let ready = match &mut self.nonce {
            None => self.pending.len(),
            Some(next) => self
                .pending
                .iter()
                .take_while(|(nonce, _)| {
                    *nonce == *next && {
                        *next += 1;
                        true
                    }
                })
                .count(),
        };
        let block: Vec<B256> = self.pending.drain(..ready).map(|(_, hash)| hash).collect();
        let sealed = !block.is_empty();
        if sealed {
            self.blocks.push(block);
        }
        sealed
    }
}

/// Starts a node that lives as long as the test process; returns its URL.
fn start(script: Script) -> String {
    start_with_websocket(script).0
}

/// As `start`; also returns the URL of the node's WebSocket.
fn start_with_websocket(script: Script) -> (String, String) {
    let chain = Arc::new(Mutex::new(Chain { nonce: script.one_sender.then_some(0), ..Chain::default() }));
    let http = listen(&chain, move |stream, chain| serve(stream, script, chain));
    let websocket = listen(&chain, move |stream, chain| notify(stream, script, chain));
    (format!("http://{http}"), format!("ws://{websocket}"))
}

fn listen(chain: &Arc<Mutex<Chain>>, serve: impl Fn(TcpStream, &Mutex<Chain>) + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let chain = Arc::clone(chain);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let chain = Arc::clone(&chain);
            std::thread::spawn(move || serve(stream.unwrap(), &chain));
        }
    });
    address
}

/// One subscription: preconfirmations in arrays, or a head per block.
fn notify(stream: TcpStream, script: Script, chain: &Mutex<Chain>) {
    let mut socket = tungstenite::accept(stream).unwrap();
    let Ok(first) = socket.read() else { return };
    let call: Value = serde_json::from_str(first.to_text().unwrap()).unwrap();
    if call["method"] != "eth_subscribe" {
        return serve_websocket(socket, call, script, chain);
    }
    socket.send(json!({"jsonrpc": "2.0", "id": call["id"], "result": "0x1"}).to_string().into()).unwrap();
    let mut told = 0;
    loop {
        std::thread::sleep(Duration::from_millis(5));
        let result = {
            let mut chain = chain.lock().unwrap();
            if call["params"][0] == "sequencer_preconfirmations" {
                let fresh: Vec<Value> =
                    chain.accepted[told..].iter().map(|hash| json!({"transactionHash": hash})).collect();
                told += fresh.len();
                if fresh.is_empty() { continue } else { Value::Array(fresh) }
            } else if chain.seal() {
                let number = chain.blocks.len();
                json!({"number": format!("{number:#x}"), "hash": B256::from(U256::from(number))})
            } else {
                continue;
            }
        };
        let message = json!({"jsonrpc": "2.0", "method": "eth_subscription", "params": {"subscription": "0x1", "result": result}});
        if socket.send(message.to_string().into()).is_err() {
            return;
        }
    }
}

/// Calls by WebSocket. Every second reply is held back until the next one is out, or nothing comes for a while; pings come
/// in between.
fn serve_websocket(mut socket: WebSocket<TcpStream>, first: Value, script: Script, chain: &Mutex<Chain>) {
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let (mut held, mut call) = (None, Some(first));
    loop {
        if let Some(reply) = call.take().map(|call| reply(&call, script, chain).unwrap().to_string()) {
            if held.is_none() {
                held = Some(reply);
            } else {
                socket.send(reply.into()).unwrap();
                socket.send(Message::Ping("are you there".into())).unwrap();
            }
        }
        match socket.read() {
            Ok(Message::Text(text)) => call = Some(serde_json::from_str(&text).unwrap()),
            Ok(Message::Pong(payload)) => assert_eq!(payload, "are you there"),
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        if call.is_none()
            && let Some(reply) = held.take()
            && socket.send(reply.into()).is_err()
        {
            return;
        }
    }
}

fn serve(mut stream: TcpStream, script: Script, chain: &Mutex<Chain>) {
    let mut buffer = Vec::new();
    let mut scratch = [0; 65_536];
    loop {
        while let Some((body, consumed)) = take_request(&buffer) {
            buffer.drain(..consumed);
            let Some(reply) = reply(&body, script, chain) else { return };
            if reply == SILENCE {
                continue;
            }
            let text = reply.to_string();
            let message = if script.chunked {
                let (a, b) = text.split_at(text.len() / 2);
                let (a_bytes, b_bytes) = (a.len(), b.len());
                format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{a_bytes:x}\r\n{a}\r\n{b_bytes:x}\r\n{b}\r\n0\r\n\r\n"
                )
            } else {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
            };
            if stream.write_all(message.as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut scratch) {
            Ok(0) | Err(_) => return,
            Ok(count) => buffer.extend_from_slice(&scratch[..count]),
        }
    }
}

fn take_request(buffer: &[u8]) -> Option<(Value, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = request.parse(buffer).unwrap() else { return None };
    let length = request.headers.iter().find(|h| h.name == "Content-Length");
    // The WebSocket handshake has no body; this node answers it like a call that it does not understand.
    let length: usize = length.map_or(0, |h| std::str::from_utf8(h.value).unwrap().parse().unwrap());
    let body = buffer.get(head_bytes..head_bytes + length)?;
    Some((serde_json::from_slice(body).unwrap_or(Value::Null), head_bytes + length))
}

/// Stands for no reply at all.
const SILENCE: Value = Value::Null;

/// `None` closes the connection.
fn reply(body: &Value, script: Script, chain: &Mutex<Chain>) -> Option<Value> {
    // Held over the whole request, so that a stall holds up every connection.
    let mut chain = chain.lock().unwrap();
    match body {
        // In reverse, since a batch may be answered in any order.
        Value::Array(calls) => {
            calls.iter().map(|call| answer(call, script, &mut chain)).collect::<Option<Vec<_>>>().map(|mut replies| {
                replies.reverse();
                Value::Array(replies)
            })
        }
        call => answer(call, script, &mut chain),
    }
}

fn answer(call: &Value, script: Script, chain: &mut Chain) -> Option<Value> {
    let result = match call["method"].as_str() {
        Some("eth_chainId") => json!("0xf214"),
        Some("eth_getBalance") => json!("0xffffffffffffffffffffffff"),
        Some("eth_getTransactionCount") => json!(format!("{:#x}", chain.nonce.unwrap_or(0))),
        Some("eth_getTransactionByHash") => {
            let hash: B256 = call["params"][0].as_str().unwrap().parse().unwrap();
            let is_known = chain.pending.iter().any(|(_, known)| *known == hash);
            if is_known { json!({"blockNumber": null}) } else { Value::Null }
        }
        Some("eth_blockNumber") => {
            chain.seal();
            json!(format!("{:#x}", chain.blocks.len()))
        }
        Some("eth_getBlockByNumber") => {
            let tag = call["params"][0].as_str().unwrap();
            // What is safe is two blocks behind, as long as blocks come.
            let safe = chain.blocks.len().saturating_sub(2);
            let number =
                if tag == "safe" { Some(safe) } else { usize::from_str_radix(tag.trim_start_matches("0x"), 16).ok() };
            let hashes =
                number.and_then(|number| chain.blocks.get(number.wrapping_sub(1))).cloned().unwrap_or_default();
            let number = number.unwrap_or(chain.blocks.len());
            json!({"baseFeePerGas": "0xf4240", "number": format!("{number:#x}"), "transactions": hashes})
        }
        Some("eth_getBlockByHash") => {
            let hash: B256 = call["params"][0].as_str().unwrap().parse().unwrap();
            let number: usize = U256::from_be_bytes(hash.0).to();
            json!({"transactions": chain.blocks[number - 1]})
        }
        Some("eth_getTransactionReceipt") => {
            let hash: B256 = call["params"][0].as_str().unwrap().parse().unwrap();
            let number = chain.blocks.iter().position(|block| block.contains(&hash));
            number.map_or(Value::Null, |number| json!({"blockNumber": format!("{:#x}", number + 1), "status": "0x1"}))
        }
        Some("eth_sendRawTransaction") => return send(call, script, chain),
        _ => {
            return Some(
                json!({"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32601, "message": "no such method"}}),
            );
        }
    };
    Some(json!({"jsonrpc": "2.0", "id": call["id"], "result": result}))
}

/// `eth_sendRawTransaction`, with what the script makes of it.
fn send(call: &Value, script: Script, chain: &mut Chain) -> Option<Value> {
    chain.received += 1;
    let due = |every: Option<usize>| every.is_some_and(|every| chain.received.is_multiple_of(every));
    if let Some((at, pause)) = script.stall
        && at == chain.received
    {
        std::thread::sleep(pause);
    }
    if script.deaf_from.is_some_and(|from| chain.received >= from) {
        return Some(SILENCE);
    }
    if due(script.close_every) {
        return None;
    }
    if due(script.refuse_every) {
        let message = format!("nonce too low: tx {}, account 5", chain.received);
        return Some(json!({"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32000, "message": message}}));
    }
    let raw = hex::decode(call["params"][0].as_str().unwrap()).unwrap();
    let hash = keccak256(&raw);
    if !script.forgetful && script.forget != Some(chain.received) {
        let nonce = TxEnvelope::decode_2718_exact(&raw).unwrap().nonce();
        chain.accepted.push(hash);
        chain.pending.push((nonce, hash));
    }
    Some(json!({"jsonrpc": "2.0", "id": call["id"], "result": hash}))
}

struct Run {
    output: Output,
    report: Value,
}

impl Run {
    #[track_caller]
    fn new(url: &str, flags: &str) -> Self {
        let path = std::env::temp_dir().join(format!(
            "loadgen-{}-{}.json",
            std::process::id(),
            url.replace([':', '/', ','], "-")
        ));
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command.args(["run", "--url", url, "--no-progress"]);
        if !flags.contains("--accounts") {
            command.args(["--accounts", "20"]);
        }
        command.args(flags.split(' ')).arg("--report-json").arg(&path);
        let output = command.output().unwrap();
        let report = std::fs::read(&path).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
        let _ = std::fs::remove_file(&path);
        Self { output, report }
    }

    #[track_caller]
    fn check(&self, status: i32, counts: &[(&str, u64)]) {
        let text = [self.output.stdout.as_slice(), &self.output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(self.output.status.code(), Some(status), "{text}");
        for (name, expected) in counts {
            assert_eq!(self.report["counts"][name], *expected, "{name}: {text}");
        }
    }

    fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    fn accepted_ns(&self, statistic: &str) -> u64 {
        self.report["tiers"]["accepted"]["latency"][statistic].as_u64().unwrap()
    }
}

#[test]
fn everything_is_accepted_and_sealed() {
    let url = start(Script::default());
    let run = Run::new(
        &url,
        "--closed --connections 4 --outstanding 3 --transactions 1000 --verify --assert errors==0 --assert sealed.missing==0",
    );
    run.check(0, &[("planned", 1_000), ("accepted", 1_000), ("dropped", 0)]);
    assert_eq!(run.report["tiers"]["sealed"]["latency"]["count"], 1_000);
    assert_eq!(run.report["tiers"]["preconfirmed"]["status"], "not_offered");
    assert_eq!(run.report["verification"]["lost"], 0);
}

#[test]
fn batches_and_chunked_replies() {
    let url = start(Script { chunked: true, ..Script::default() });
    let run = Run::new(&url, "--closed --connections 3 --batch 7 --transactions 1000 --tiers accepted --threads 2");
    run.check(0, &[("accepted", 1_000)]);
}

#[test]
fn refusals_are_counted_by_class_and_fail_a_condition() {
    let url = start(Script { refuse_every: Some(10), ..Script::default() });
    let run = Run::new(&url, "--closed --connections 2 --transactions 500 --tiers accepted --assert errors<5%");
    run.check(3, &[("accepted", 450), ("rejected", 50)]);
    assert_eq!(run.report["rejections"]["-32000: nonce too low: tx N, account N"], 50);
    assert!(run.stdout().contains("FAIL  errors<5%  (measured 10.0000 %)"), "{}", run.stdout());
}

#[test]
fn a_stall_is_in_the_latency_of_everything_that_had_to_wait() {
    // 500/s for 0.5 s; the node stalls for 300 ms after a fifth. A closed loop sees one slow reply per connection; an
    // open loop must see it in all that were due meanwhile: 150 of 250.
    let stall = Some((50, Duration::from_millis(300)));
    let run = Run::new(
        &start(Script { stall, ..Script::default() }),
        "--rate 500 --transactions 250 --connections 2 --outstanding 1 --tiers accepted",
    );
    run.check(0, &[("accepted", 250)]);
    assert!(run.accepted_ns("p50_ns") > 20_000_000, "{}", run.stdout());
    assert!(run.accepted_ns("max_ns") > 290_000_000, "{}", run.stdout());
    let closed = Run::new(
        &start(Script { stall, ..Script::default() }),
        "--closed --transactions 250 --connections 2 --tiers accepted",
    );
    assert!(closed.accepted_ns("p50_ns") < 20_000_000, "{}", closed.stdout());
}

#[test]
fn a_node_that_closes_connections_loses_only_what_was_outstanding() {
    let url = start(Script { close_every: Some(50), ..Script::default() });
    let run = Run::new(&url, "--closed --connections 2 --transactions 1000 --tiers accepted");
    run.check(0, &[("planned", 1_000), ("sent", 1_000), ("dropped", 0), ("unanswered", 0), ("rejected", 0)]);
    assert_eq!(run.report["counts"]["transport_errors"], 20, "{}", run.stdout());
}

#[test]
fn a_deaf_node_ends_the_run_with_drops() {
    for pace in ["--rate 1000", "--closed"] {
        let url = start(Script { deaf_from: Some(10), ..Script::default() });
        let flags =
            "--transactions 100 --connections 1 --outstanding 1 --tiers accepted --drain 200ms --assert dropped==0";
        let run = Run::new(&url, &format!("{pace} {flags}"));
        run.check(3, &[("sent", 10), ("accepted", 9), ("unanswered", 1), ("dropped", 90)]);
    }
}

#[test]
fn a_closed_loop_can_end_in_time() {
    let url = start(Script::default());
    let flags = "--closed --duration 300ms --transactions 50000 --connections 2 --tiers accepted --assert dropped==0";
    let run = Run::new(&url, flags);
    run.check(0, &[("dropped", 0), ("unanswered", 0)]);
    let counts = &run.report["counts"];
    assert_eq!(counts["planned"], counts["sent"]);
    assert!(counts["sent"].as_u64().unwrap() > 10 && counts["sent"].as_u64().unwrap() < 50_000, "{counts}");
}

#[test]
fn tiers_come_by_subscription() {
    let (url, websocket) = start_with_websocket(Script::default());
    let run = Run::new(
        &url,
        &format!("--rate 1000 --arrival poisson --transactions 500 --connections 4 --ws-url {websocket} --verify"),
    );
    run.check(0, &[("accepted", 500)]);
    for (tier, topic) in [("preconfirmed", "sequencer_preconfirmations"), ("sealed", "newHeads")] {
        let report = &run.report["tiers"][tier];
        assert_eq!(report["latency"]["count"], 500, "{report}");
        assert_eq!(report["source"], format!("eth_subscribe {topic}"));
        assert!(report["latency"]["p50_ns"].as_u64().unwrap() < 1_000_000_000, "{report}");
    }
    assert_eq!(run.report["verification"]["states"], json!({"sealed": 500}));
}

#[test]
fn lost_transactions_are_found() {
    let url = start(Script { forgetful: true, ..Script::default() });
    let run = Run::new(&url, "--closed --connections 2 --transactions 20 --settle 100ms --verify --verify-wait 300ms");
    run.check(3, &[("accepted", 20)]);
    assert!(run.stdout().contains("LOST: 20 acknowledged transactions have no end state"), "{}", run.stdout());
}

#[test]
fn a_missing_node_is_explained() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let run = Run::new(&url, "--closed");
    run.check(1, &[]);
    let text = String::from_utf8_lossy(&run.output.stderr).into_owned();
    assert!(text.contains("Start one with: sequencer dev"), "{text}");
}

#[test]
fn wrong_usage_exits_with_2() {
    Run::new("https://127.0.0.1:1", "--closed").check(2, &[]);
    Run::new("http://127.0.0.1:1", "--closed --assert p99<10").check(2, &[]);
}

#[test]
fn transactions_go_by_websocket_and_replies_come_in_any_order() {
    let (url, websocket) = start_with_websocket(Script { refuse_every: Some(100), ..Script::default() });
    for batch in [1, 7] {
        let flags = format!(
            "--closed --transactions 700 --connections 3 --outstanding 4 --batch {batch} --transport ws --ws-url {websocket} --tiers accepted"
        );
        let run = Run::new(&url, &flags);
        run.check(0, &[("accepted", 693), ("rejected", 7), ("transport_errors", 0), ("unanswered", 0)]);
        assert_eq!(run.report["node"]["protocol"], "websocket");
        assert_eq!(run.report["ends"], json!({"accepted; blocks were not watched": 693, "refused": 7}));
    }
}

#[test]
fn connections_are_dealt_out_over_targets() {
    // The first refuses everything, and has half of the connections.
    let (first, second) = (start(Script { refuse_every: Some(1), ..Script::default() }), start(Script::default()));
    let flags = "--closed --transactions 400 --connections 4 --tiers accepted";
    Run::new(&format!("{first},{second}"), flags).check(0, &[("accepted", 200), ("rejected", 200)]);
}

#[test]
fn a_forgotten_transaction_is_sent_again() {
    let script = Script { one_sender: true, forget: Some(40), ..Script::default() };
    let (url, websocket) = start_with_websocket(script);
    let flags = format!(
        "--closed --transactions 100 --connections 1 --accounts 1 --ws-url {websocket} --tiers accepted,sealed"
    );
    let run = Run::new(&url, &flags);
    run.check(0, &[("accepted", 100)]);
    assert_eq!(run.report["resent"]["accepted"], 1, "{}", run.stdout());
    assert_eq!(run.report["resent"]["reasons"], json!({"accepted, then gone from the pool": 1}));
    assert_eq!((&run.report["ends"], &run.report["unexplained"]), (&json!({"in a block": 100}), &json!(0)));
    // Left alone it holds up its sender, and has no reason.
    let (url, websocket) = start_with_websocket(script);
    let flags = flags.replace(flags.split_once("--ws-url ").unwrap().1.split(' ').next().unwrap(), &websocket);
    let run = Run::new(&url, &format!("{flags} --no-resend --settle 200ms --assert unexplained==0"));
    run.check(3, &[("accepted", 100)]);
    assert_eq!(run.report["unexplained"], 1, "{}", run.stdout());
    assert_eq!(run.report["ends"]["still in the pool when the run ended"], 60, "{}", run.stdout());
}

#[test]
fn a_refused_transaction_is_sent_again() {
    let script = Script { one_sender: true, refuse_every: Some(60), ..Script::default() };
    let (url, websocket) = start_with_websocket(script);
    let flags = format!(
        "--closed --transactions 100 --connections 1 --accounts 1 --ws-url {websocket} --tiers accepted,sealed"
    );
    let run = Run::new(&url, &flags);
    run.check(0, &[("accepted", 99), ("rejected", 1)]);
    let expected = json!({"in a block": 99, "refused at first, in a block after it was sent again": 1});
    assert_eq!(run.report["ends"], expected, "{}", run.stdout());
}

#[test]
fn safe_is_a_tier_and_what_is_left_behind_is_missing() {
    let (url, websocket) = start_with_websocket(Script::default());
    let flags = format!("--rate 500 --duration 1s --connections 4 --ws-url {websocket} --tiers all --settle 400ms");
    let run = Run::new(&url, &flags);
    run.check(0, &[("accepted", 500)]);
    let safe = &run.report["tiers"]["safe"];
    let (count, missing) = (safe["latency"]["count"].as_u64().unwrap(), safe["missing"].as_u64().unwrap());
    assert!(count > 300 && missing > 0 && count + missing == 500, "{safe}");
}

#[test]
fn rates_can_grow() {
    for (arrival, more) in [("ramp", ""), ("step", " --steps 3")] {
        let url = start(Script::default());
        let flags = format!(
            "--rate 1000 --rate-from 200 --arrival {arrival}{more} --duration 1s --connections 4 --tiers accepted"
        );
        let run = Run::new(&url, &flags);
        run.check(0, &[("planned", 600), ("accepted", 600)]);
        let sent: Vec<u64> =
            run.report["series"]["sent"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert!(sent[..3].iter().sum::<u64>() * 2 < sent[7..].iter().sum::<u64>(), "{sent:?}");
    }
}

#[test]
fn the_page_stands_alone_and_answers_four_questions() {
    let page = std::env::temp_dir().join(format!("loadgen-page-{}.html", std::process::id()));
    let (url, websocket) = start_with_websocket(Script { refuse_every: Some(50), ..Script::default() });
    let flags =
        format!("--rate 500 --transactions 500 --connections 4 --ws-url {websocket} --report-html {}", page.display());
    Run::new(&url, &flags).check(0, &[("accepted", 490)]);
    let text = std::fs::read_to_string(&page).unwrap();
    let _ = std::fs::remove_file(&page);
    for question in ["How fast?", "How late?", "What failed?", "What was the bottleneck?"] {
        assert!(text.contains(question), "{question}");
    }
    for plot in ["latency by percentile", "rate over time", "latency over time"] {
        assert!(text.contains(&format!("aria-label=\"{plot}\"")), "{plot}");
    }
    assert!(text.contains("nonce too low: tx N, account N") && !text.contains("<script"), "{text}");
}

#[test]
fn a_target_that_starts_late_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        let chain = Arc::new(Mutex::new(Chain::default()));
        let listener = TcpListener::bind(address).unwrap();
        for stream in listener.incoming() {
            let chain = Arc::clone(&chain);
            std::thread::spawn(move || serve(stream.unwrap(), Script::default(), &chain));
        }
    });
    let run = Run::new(
        &format!("http://{address}"),
        "--closed --transactions 20 --connections 1 --tiers accepted --wait-for-target 20s",
    );
    run.check(0, &[("accepted", 20)]);
    assert!(!late.is_finished());
}
