//! An attacker's pass over the JSON-RPC port, and over those beside it (`side_ports`): what a page in a browser, a peer behind a proxy, and peers with much patience can try.
//!
//! `bad_input` has what is malformed; here every byte may be well-formed and the intention is not. docs/SECURITY.md names each test.

mod framing;
mod load;
mod names;
mod side_ports;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::bad_input::{connect, post};
use super::process::TempFolder;
use super::sequencer::Sequencer;

const CHAIN_ID_CALL: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#;
/// What a probe may take beside an attack, on a loaded machine with a debug build.
const HEALTH_LIMIT: Duration = Duration::from_secs(5);

/// A node as `run` would be: browsers of other origins get nothing.
fn start(settings: &[&str]) -> Sequencer {
    let all: Vec<&str> = ["--http.cors", "false"].into_iter().chain(settings.iter().copied()).collect();
    Sequencer::start_in(TempFolder::new("attack"), "osaka", &all)
}

/// Everything that comes until the peer closes, or resets; it must.
#[track_caller]
fn read_to_end(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let outcome = connection.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let is_open = outcome.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    assert!(!is_open, "the connection stays open after: {text:.300}");
    text
}

/// Sends bytes on a connection of their own and half-closes it; everything that comes back.
fn exchange(port: u16, bytes: &[u8]) -> String {
    let mut connection = connect(port);
    // The node may refuse and close before it has read everything.
    let _ = connection.write_all(bytes);
    let _ = connection.shutdown(std::net::Shutdown::Write);
    read_to_end(&mut connection)
}

/// Statuses of the responses in a text, in order.
fn statuses(text: &str) -> Vec<u16> {
    let starts = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..]);
    starts.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

/// A probe on a new connection, which must answer `status` within the limit.
#[track_caller]
fn check_probe(port: u16, path: &str, status: u16) {
    let start = Instant::now();
    let text =
        exchange(port, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes());
    assert_eq!(statuses(&text), [status], "{path}: {text}");
    assert!(start.elapsed() < HEALTH_LIMIT, "{path} took {:?}", start.elapsed());
}

/// A call on a new connection is answered.
#[track_caller]
fn check_served(port: u16) {
    let mut connection = connect(port);
    connection.write_all(&post(CHAIN_ID_CALL)).expect("loopback takes a few bytes");
    let reply = super::bad_input::Reply::read(&mut connection).expect("a good client is answered");
    assert_eq!(reply.json()["result"], "0xf214");
}
