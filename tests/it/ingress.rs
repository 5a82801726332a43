//! The whole process behind real sockets on loopback: what clients see of the ingress shards.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use native_sequencer::config::genesis::dev_genesis;
use native_sequencer::config::{Config, RawConfig};
use native_sequencer::primitives::{Address, Fork};
use native_sequencer::rpc::Settings;
use native_sequencer::testing::signing::TestKey;
use native_sequencer::topology::levers::Levers;
use native_sequencer::topology::startup::Kept;
use native_sequencer::topology::{Running, launch};

const CHAIN_ID: u64 = 61_972;
/// The first development account.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const CHAIN_ID_CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;
const CHAIN_ID_REPLY: &str = r#"{"jsonrpc":"2.0","id":1,"result":"0xf214"}"#;

fn start(flags: &[(&str, &str)]) -> Running {
    let mut all = vec![
        ("http.port", "0"),
        ("http.host", "127.0.0.1"),
        ("http.cors", "false"),
        ("block.interval-ms", "100"),
        ("metrics.port", "off"),
    ];
    all.extend_from_slice(flags);
    let flags: Vec<(String, String)> = all.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let config = Config::from_raw(&RawConfig::layered(&flags, &[], None).expect("known names")).expect("a good config");
    let spec = dev_genesis(Fork::Osaka, 10).expect("the development genesis");
    let settings = Settings {
        chain_id: CHAIN_ID,
        client_version: "test".to_owned(),
        debug_enabled: true,
        pool_content_enabled: true,
        proxy_enabled: false,
        state_is_remote: false,
        priority_fee_min_wei: 1,
    };
    let levers = Levers::new(&config, u64::MAX, Arc::new(|_| Ok(())));
    launch(&config, &spec, &settings, &levers, Kept::default()).expect("started")
}

fn connect(running: &Running) -> TcpStream {
    let stream = TcpStream::connect(running.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream
}

fn post(body: &str) -> String {
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ";
    format!("{head}{}\r\n\r\n{body}", body.len())
}

/// Reads one response and answers its body.
fn response(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).expect("in time"), 1, "closed: {}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    let head = String::from_utf8(text).expect("a head is text");
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    stream.read_exact(&mut body).expect("the whole body in time");
    String::from_utf8(body).expect("replies are text")
}

fn call(stream: &mut TcpStream, body: &str) -> String {
    stream.write_all(post(body).as_bytes()).expect("written");
    response(stream)
}

fn send(method: &str, nonce: u64) -> String {
    let raw = TestKey::from_hex(KEY).transfer(CHAIN_ID, nonce, Address::repeat_byte(7), 1);
    let hex = alloy_primitives::hex::encode(raw);
    format!(r#"{{"jsonrpc":"2.0","id":{nonce},"method":"{method}","params":["0x{hex}"]}}"#)
}

#[test]
fn transactions_are_answered_and_preconfirmed_over_one_connection() {
    let running = start(&[]);
    let mut stream = connect(&running);
    assert_eq!(call(&mut stream, CHAIN_ID_CALL), CHAIN_ID_REPLY);
    let receipt = call(&mut stream, &send("eth_sendRawTransactionSync", 0));
    assert!(receipt.contains(r#""status":"0x1""#), "{receipt}");
    let batch = call(&mut stream, &format!("[{},{}]", send("eth_sendRawTransaction", 1), CHAIN_ID_CALL));
    assert!(batch.starts_with(r#"[{"jsonrpc":"2.0","id":1,"result":"0x"#), "{batch}");
    assert!(batch.ends_with(&format!(",{CHAIN_ID_REPLY}]")), "{batch}");
    let again = call(&mut stream, &send("eth_sendRawTransaction", 0));
    assert!(again.contains("-32000"), "{again}");
    drop(stream);
    running.stop().expect("every thread ended well");
}

#[test]
fn requests_in_pieces_and_in_a_row_are_answered_in_order() {
    let running = start(&[]);
    let mut stream = connect(&running);
    stream.set_nodelay(true).expect("pieces leave as written");
    let request = post(CHAIN_ID_CALL).repeat(5);
    for piece in request.as_bytes().chunks(7) {
        stream.write_all(piece).expect("written");
    }
    for _ in 0..5 {
        assert_eq!(response(&mut stream), CHAIN_ID_REPLY);
    }
    // More pipelined requests than may be outstanding: the rest waits and none is lost.
    let hundred: String = (0..100).map(|nonce| post(&send("eth_sendRawTransaction", nonce))).collect();
    stream.write_all(hundred.as_bytes()).expect("written");
    for nonce in 0..100 {
        let reply = response(&mut stream);
        assert!(reply.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{nonce},"result":"0x"#)), "{reply}");
    }
    running.stop().expect("every thread ended well");
}

#[test]
fn a_peer_that_half_closes_still_gets_its_reply_and_bad_requests_end_the_connection() {
    let running = start(&[]);
    let mut stream = connect(&running);
    stream.write_all(post(CHAIN_ID_CALL).as_bytes()).expect("written");
    stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(response(&mut stream), CHAIN_ID_REPLY);
    assert_eq!(stream.read(&mut [0]).expect("closed in time"), 0);

    let mut stream = connect(&running);
    stream.write_all(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n").expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered and closed");
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    running.stop().expect("every thread ended well");
}

#[test]
fn connections_beyond_the_limit_are_refused_and_places_come_back() {
    let running = start(&[("http.connections-max", "2")]);
    let mut first = connect(&running);
    let mut second = connect(&running);
    assert_eq!(call(&mut first, CHAIN_ID_CALL), CHAIN_ID_REPLY);
    assert_eq!(call(&mut second, CHAIN_ID_CALL), CHAIN_ID_REPLY);
    let mut text = String::new();
    connect(&running).read_to_string(&mut text).expect("answered and closed");
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    drop(second);
    // The place is free when the shard has seen the end, so ask until then.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let mut third = connect(&running);
        let is_written = third.write_all(post(CHAIN_ID_CALL).as_bytes()).is_ok();
        let mut start = [0; 12];
        if is_written && third.read_exact(&mut start).is_ok() && &start == b"HTTP/1.1 200" {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the place never came back");
    }
    running.stop().expect("every thread ended well");
}

#[test]
fn subscribers_hear_of_heads_and_preconfirmations() {
    let running = start(&[]);
    let stream = connect(&running);
    let url = format!("ws://{}/", running.address);
    let (mut socket, _) = tungstenite::client(url, stream).expect("upgraded");
    let subscribe = |name: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["{name}"]}}"#);
    for name in ["newHeads", "sequencer_preconfirmations"] {
        socket.send(subscribe(name).into()).expect("sent");
        let reply = socket.read().expect("in time").into_text().expect("text").to_string();
        assert!(reply.contains(r#""result":"0x"#), "{reply}");
    }
    socket.send(send("eth_sendRawTransaction", 0).into()).expect("sent");
    let (mut has_head, mut has_receipt, mut has_reply) = (false, false, false);
    while !(has_head && has_receipt && has_reply) {
        let text = socket.read().expect("in time").into_text().expect("text").to_string();
        has_head |= text.contains("eth_subscription") && text.contains("parentHash");
        has_receipt |= text.contains("eth_subscription") && text.contains("transactionHash");
        has_reply |= text.contains(r#""id":0,"result""#);
    }
    running.stop().expect("every thread ended well");
}

/// Reads notifications of placed transactions until every nonce below `count` was seen, in order.
fn await_preconfirmations(socket: &mut tungstenite::WebSocket<TcpStream>, count: u64) {
    let mut next = 0;
    while next < count {
        let text = socket.read().expect("in time").into_text().expect("text").to_string();
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for receipt in json["params"]["result"].as_array().into_iter().flatten() {
            let hash = receipt["transactionHash"].as_str().expect("a hash");
            let raw = TestKey::from_hex(KEY).transfer(CHAIN_ID, next, Address::repeat_byte(7), 1);
            assert_eq!(hash, alloy_primitives::keccak256(raw).to_string());
            next += 1;
        }
    }
}

/// A subscriber, and the shard that its subscription's id names.
fn subscribe_with_shard(running: &Running, name: &str) -> (tungstenite::WebSocket<TcpStream>, String) {
    let (mut socket, _) =
        tungstenite::client(format!("ws://{}/", running.address), connect(running)).expect("upgraded");
    let call = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["{name}"]}}"#);
    socket.send(call.into()).expect("sent");
    let reply = socket.read().expect("in time").into_text().expect("text").to_string();
    let (_, id) = reply.split_once(r#""result":"0x"#).expect("an id");
    let shard = id[..4].to_owned();
    (socket, shard)
}

fn subscribe(running: &Running, name: &str) -> tungstenite::WebSocket<TcpStream> {
    subscribe_with_shard(running, name).0
}

#[test]
fn two_shards_serve_the_same_port_and_both_announce_everything() {
    let running = start(&[("http.shards", "2")]);
    // The kernel spreads connections by their ports, so that of many each shard has some.
    let (mut sockets, shards): (Vec<_>, Vec<_>) =
        (0..24).map(|_| subscribe_with_shard(&running, "sequencer_preconfirmations")).unzip();
    for shard in ["0000", "0001"] {
        assert!(shards.iter().any(|other| other == shard), "{shards:?}");
    }
    let mut streams: Vec<TcpStream> = (0..16).map(|_| connect(&running)).collect();
    for nonce in 0..64 {
        let index = usize::try_from(nonce).expect("small") % streams.len();
        let reply = call(&mut streams[index], &send("eth_sendRawTransaction", nonce));
        assert!(reply.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{nonce},"result":"0x"#)), "{reply}");
    }
    for socket in &mut sockets {
        await_preconfirmations(socket, 64);
    }
    running.stop().expect("every thread ended well");
}

#[test]
fn a_stop_answers_waiting_calls_and_closes_websockets_in_order() {
    let running = start(&[]);
    let mut socket = subscribe(&running, "newHeads");
    let mut stream = connect(&running);
    // Behind a gap, so that no receipt comes.
    let raw = TestKey::from_hex(KEY).transfer(CHAIN_ID, 0, Address::repeat_byte(7), 1);
    let hash = alloy_primitives::keccak256(raw);
    let body = format!(r#"{{"jsonrpc":"2.0","id":3,"method":"eth_getTransactionByHash","params":["{hash}"]}}"#);
    assert!(call(&mut stream, &body).contains(r#""result":null"#));
    let waiting = send("eth_sendRawTransactionSync", 0);
    stream.write_all(post(&waiting).as_bytes()).expect("written");
    running.stop().expect("every thread ended well");
    // Either it was placed before the stop or it was told (EIP-7966 code 5: not ready): never a cut.
    let reply = response(&mut stream);
    let is_told = ["-32000", "-32005", r#""code":5"#].iter().any(|code| reply.contains(code));
    assert!(is_told || reply.contains(r#""status":"0x1""#), "{reply}");
    let closed = loop {
        match socket.read() {
            Ok(tungstenite::Message::Close(frame)) => break frame,
            Ok(_) => {}
            Err(error) => panic!("cut instead of closed: {error}"),
        }
    };
    assert_eq!(closed.map(|frame| u16::from(frame.code)), Some(1001));
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_and_the_others_hear_everything() {
    let running = start(&[]);
    let mut slow = subscribe(&running, "sequencer_preconfirmations");
    // Many subscriptions on one connection: what the kernel buffers is soon full.
    for _ in 0..99 {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["sequencer_preconfirmations"]}"#;
        slow.send(call.into()).expect("sent");
        slow.read().expect("answered");
    }
    let mut good = subscribe(&running, "sequencer_preconfirmations");
    let reader = std::thread::spawn(move || await_preconfirmations(&mut good, 600));
    let mut stream = connect(&running);
    for batch in 0..6 {
        let calls: Vec<String> = (0..100).map(|item| send("eth_sendRawTransaction", batch * 100 + item)).collect();
        let reply = call(&mut stream, &format!("[{}]", calls.join(",")));
        assert_eq!(reply.matches(r#""result":"0x"#).count(), 100, "{reply}");
    }
    reader.join().expect("the other subscriber heard everything");
    // What was under way comes, then the end, long before the time-out of a read.
    let ended = loop {
        if let Err(error) = slow.read() {
            break error;
        }
    };
    assert!(!ended.to_string().contains("timed out"), "{ended}");
    running.stop().expect("every thread ended well");
}
