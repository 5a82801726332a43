//! Bad input end to end: each case has its own error, and a connection beside it does not notice.

mod http;
mod transactions;
mod websocket;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::sequencer::Sequencer;

/// A reply on loopback; slow-sender deadlines of the node are longer and tested by its own unit tests.
const REPLY_LIMIT: Duration = Duration::from_secs(20);
/// What a whole run of bad input may add to the node's memory: what it sends at once, and the pages that the allocator of each thread keeps;
/// 70 to 107 MB were seen on different processors.
const GROWTH_BYTES_MAX: u64 = 160 << 20;
/// What the bystander's slowest answer may take, on a loaded machine.
const BYSTANDER_LIMIT: Duration = Duration::from_secs(5);
/// Answers of the bystander while bad input came; a fast processor ends the cases sooner, they are repeated then.
const BYSTANDER_ANSWERS_MIN: u64 = 50;
/// Rounds of the HTTP and WebSocket cases at most.
const ROUNDS_MAX: usize = 20;

#[test]
fn bad_input_gets_its_own_error_and_disturbs_nobody() {
    let _turn = super::turn();
    let sequencer = Sequencer::start("prague");
    let before = sequencer.resident_bytes();
    let stop = AtomicBool::new(false);
    let answers = AtomicU64::new(0);
    thread::scope(|scope| {
        let bystander = scope.spawn(|| watch(sequencer.port, &stop, &answers));
        let _slow: Vec<TcpStream> = (0..50).map(|_| half_a_request(sequencer.port)).collect();
        {
            // The scope waits for the bystander: the flag must be set even when a case fails.
            let _stop = SetOnDrop(&stop);
            transactions::check_all(&sequencer.rpc);
            for _ in 0..ROUNDS_MAX {
                http::check_all(sequencer.port);
                websocket::check_all(sequencer.port);
                if answers.load(Ordering::Relaxed) >= BYSTANDER_ANSWERS_MIN {
                    break;
                }
            }
        }
        let slowest = bystander.join().expect("the bystander saw every answer");
        assert!(slowest < BYSTANDER_LIMIT, "the bystander waited {slowest:?} for one answer");
    });
    assert!(answers.load(Ordering::Relaxed) >= BYSTANDER_ANSWERS_MIN, "the bystander got {answers:?} answers");
    let growth = sequencer.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "memory grew by {growth} bytes");
    sequencer.stop();
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A keep-alive connection that asks for the chain id all the time; returns its slowest answer.
fn watch(port: u16, stop: &AtomicBool, answers: &AtomicU64) -> Duration {
    let mut connection = connect(port);
    let request = post(br#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#);
    let mut slowest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        connection.write_all(&request).expect("the bystander's connection stays open");
        let reply = Reply::read(&mut connection).expect("the bystander gets an answer");
        assert_eq!(reply.json()["result"], "0xf214");
        answers.fetch_add(1, Ordering::Relaxed);
        slowest = slowest.max(start.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    slowest
}

/// A sender that stops in mid-request and keeps its connection.
fn half_a_request(port: u16) -> TcpStream {
    let mut connection = connect(port);
    connection.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Le").expect("loopback takes a few bytes");
    connection
}

pub fn connect(port: u16) -> TcpStream {
    let connection = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
    connection.set_read_timeout(Some(REPLY_LIMIT)).expect("a positive timeout is valid");
    connection.set_write_timeout(Some(REPLY_LIMIT)).expect("a positive timeout is valid");
    connection.set_nodelay(true).expect("a TCP socket has the option");
    connection
}

/// A well-formed request around `body`.
pub fn post(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An HTTP reply.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    /// Reads one reply; an error when the connection ends or nothing comes.
    pub fn read(connection: &mut TcpStream) -> io::Result<Self> {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(position) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break position + 4;
            }
            read_some(connection, &mut bytes)?;
        };
        let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
        let invalid = || io::Error::other(format!("not a reply: {head}"));
        let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(invalid)?;
        let length_line = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length_line.map_or(Ok(0), |text| text.trim().parse::<usize>()).map_err(io::Error::other)?;
        while status != 101 && bytes.len() < head_end + length {
            read_some(connection, &mut bytes)?;
        }
        Ok(Self { status, head, body: bytes.split_off(head_end) })
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in status {}: {text}", self.status))
    }
}

fn read_some(connection: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16_384];
    match connection.read(&mut buffer)? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed after {} bytes", bytes.len()))),
        count => {
            bytes.extend_from_slice(&buffer[..count]);
            Ok(())
        }
    }
}

/// Whether the peer closes the connection, with or without more bytes before.
pub fn is_closed(connection: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match connection.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Compares a JSON-RPC reply with `"<code> <part of the message>"`, or with `"ok"` for a result.
#[track_caller]
fn check_error(name: &str, reply: &Value, expected: &str) {
    let error = &reply["error"];
    if expected == "ok" {
        assert!(error.is_null() && reply.get("result").is_some(), "{name}: expected a result, got {reply}");
        return;
    }
    let (code, part) = expected.split_once(' ').unwrap_or((expected, ""));
    let message = error["message"].as_str().unwrap_or_default();
    let fits = error["code"].as_i64() == code.parse().ok() && message.contains(part) && !message.is_empty();
    assert!(fits, "{name}: expected {expected:?}, got {reply}");
}
