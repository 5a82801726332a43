//! The whole process behind real sockets on loopback: what clients see of the ingress shards.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use native_sequencer::config::genesis::dev_genesis;
use native_sequencer::config::{Config, RawConfig};
use native_sequencer::primitives::{Address, Fork};
use native_sequencer::rpc::Settings;
use native_sequencer::testing::signing::TestKey;
use native_sequencer::topology::{Running, launch};

const CHAIN_ID: u64 = 61_972;
/// The first development account.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const CHAIN_ID_CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;
const CHAIN_ID_REPLY: &str = r#"{"jsonrpc":"2.0","id":1,"result":"0xf214"}"#;

fn start(flags: &[(&str, &str)]) -> Running {
    let mut all =
        vec![("http.port", "0"), ("http.host", "127.0.0.1"), ("http.cors", "false"), ("block.interval-ms", "100")];
    all.extend_from_slice(flags);
    let flags: Vec<(String, String)> = all.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let config = Config::from_raw(&RawConfig::layered(&flags, &[], None).expect("known names")).expect("a good config");
    let spec = dev_genesis(Fork::Osaka, 10).expect("the development genesis");
    let settings = Settings {
        chain_id: CHAIN_ID,
        client_version: "test".to_owned(),
        debug_enabled: true,
        priority_fee_min_wei: 1,
    };
    launch(&config, &spec, &settings).expect("started")
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
