//! WebSocket handshakes and frames that the node must refuse.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Reply, connect};

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

pub fn check_all(port: u16) {
    check_handshake(port, "version 12", &HANDSHAKE.replace("Version: 13", "Version: 12"), 426);
    check_handshake(port, "short key", &HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"), 400);
    check_handshake(port, "wrong path", &HANDSHAKE.replace("GET / ", "GET /ws "), 404);
    check_handshake(port, "wrong host", &HANDSHAKE.replace("localhost", "evil.example"), 403);

    let text = br#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#;
    check_frames(port, "unmasked", &[&[0x81, text.len() as u8][..], text].concat(), 1002);
    check_frames(port, "reserved bit", &frame(0xc1, b"{}"), 1002);
    check_frames(port, "unknown opcode", &frame(0x83, b"{}"), 1002);
    check_frames(port, "invalid UTF-8", &frame(0x81, b"\xff\xfe"), 1007);
    check_frames(port, "ping over 125 bytes", &long_frame(0x89, &[0; 126]), 1002);
    check_frames(port, "fragmented ping", &frame(0x09, b"x"), 1002);
    check_frames(port, "continuation of nothing", &frame(0x80, b"x"), 1002);
    check_frames(port, "text inside a fragmented text", &[frame(0x01, b"["), frame(0x81, b"]")].concat(), 1002);
    check_frames(port, "announced length of 2^40", &[0x81, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4], 1009);
    check_frames(port, "length with the high bit", &[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 1002);
    check_endless_fragments(port);
    // web3.py sends its requests as binary messages, which go-ethereum takes as well.
    check_goodbye(port, 0x81);
    check_goodbye(port, 0x82);
}

/// A masked frame with a payload of at most 125 bytes; the mask is not zero, so that unmasking is seen to happen.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= 125);
    masked(vec![first, 0x80 | payload.len() as u8], payload)
}

/// A masked frame with a 16-bit length.
fn long_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a test's frame is short").to_be_bytes();
    masked(vec![first, 0xfe, length[0], length[1]], payload)
}

fn masked(mut head: Vec<u8>, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    head.extend_from_slice(&mask);
    head.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    head
}

fn check_handshake(port: u16, name: &str, request: &str, status: u16) {
    let mut connection = connect(port);
    connection.write_all(request.as_bytes()).expect("loopback takes a few bytes");
    let reply = Reply::read(&mut connection).unwrap_or_else(|error| panic!("{name}: no reply: {error}"));
    assert_eq!(reply.status, status, "{name}: {}", String::from_utf8_lossy(&reply.body));
}

fn open(port: u16) -> TcpStream {
    let mut connection = connect(port);
    connection.write_all(HANDSHAKE.as_bytes()).expect("loopback takes a few bytes");
    let reply = Reply::read(&mut connection).expect("the handshake is answered");
    assert_eq!(reply.status, 101, "{}", reply.head);
    // RFC 6455 section 1.3 gives this key's answer.
    assert!(reply.head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "accept key: {}", reply.head);
    assert!(reply.body.is_empty(), "bytes before the first request");
    connection
}

/// The node must answer with a close frame of this code, and end the connection.
#[track_caller]
fn check_frames(port: u16, name: &str, bytes: &[u8], code: u16) {
    let mut connection = open(port);
    connection.write_all(bytes).expect("loopback takes a few bytes");
    assert_eq!(close_code(&mut connection), Some(code), "{name}");
}

/// Reads to the end; the code of the close frame, which must be the first frame that comes.
fn close_code(connection: &mut TcpStream) -> Option<u16> {
    let mut bytes = Vec::new();
    // A reset after the close frame is an end as well.
    let _ = connection.read_to_end(&mut bytes);
    match bytes[..] {
        [0x88, length, high, low, ..] if length >= 2 => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

/// Fragments without end: the node closes the connection instead of keeping them all.
fn check_endless_fragments(port: u16) {
    let mut connection = open(port);
    let payload = vec![b' '; 60_000];
    let mut sent = connection.write_all(&long_frame(0x01, &payload));
    let mut frames = 1;
    // 600 MB would be a node without a limit.
    while sent.is_ok() && frames < 10_000 {
        sent = connection.write_all(&long_frame(0x00, &payload));
        frames += 1;
    }
    assert!(sent.is_err(), "{frames} fragments of 60,000 bytes and the connection is still open");
}

/// The good case beside the bad ones: a request over WebSocket as text or binary, a reply as text, then a close that is answered.
fn check_goodbye(port: u16, first: u8) {
    let mut connection = open(port);
    let text = br#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#;
    connection.write_all(&frame(first, text)).expect("loopback takes a few bytes");
    let mut head = [0; 2];
    connection.read_exact(&mut head).expect("a reply comes");
    assert_eq!(head[0], 0x81, "a whole text frame");
    let mut reply = vec![0; usize::from(head[1])];
    connection.read_exact(&mut reply).expect("a reply comes whole");
    let reply: serde_json::Value = serde_json::from_slice(&reply).expect("the reply is JSON");
    assert_eq!(reply["result"], "0xf214");
    connection.write_all(&frame(0x88, &1000u16.to_be_bytes())).expect("loopback takes a few bytes");
    assert_eq!(close_code(&mut connection), Some(1000));
}
