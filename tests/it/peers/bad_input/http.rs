//! HTTP framing and JSON-RPC envelopes that the node must refuse, one row each.

use std::io::Write;
use std::net::Shutdown;

use super::{Reply, check_error, connect, is_closed, post};

/// A body that is fine by itself, for rows whose fault lies in the head.
const BODY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#;

pub fn check_all(port: u16) {
    check_heads(port);
    check_bodies(port);
    check_envelopes(port);
    check_arguments(port);
    check_cut_connections(port);
}

/// Sends `head` (lines end in `\n` here, in CRLF on the wire unless a row says otherwise) and `BODY`; the status must be
/// `status`, and the connection must close.
#[track_caller]
fn check_head(port: u16, lines: &str, status: u16) {
    check_raw(port, lines, &format!("{}\r\n\r\n{BODY}", lines.replace('\n', "\r\n")).into_bytes(), status);
}

#[track_caller]
fn check_raw(port: u16, name: &str, bytes: &[u8], status: u16) {
    let mut connection = connect(port);
    // The node may close before it has read everything; what counts is its answer.
    let _ = connection.write_all(bytes);
    let reply = Reply::read(&mut connection).unwrap_or_else(|error| panic!("{name:.300}: no reply: {error}"));
    let body = String::from_utf8_lossy(&reply.body);
    assert_eq!(reply.status, status, "{name:.300}: {body}");
    assert!(!reply.body.is_empty(), "{name:.300}: a refusal without a reason");
    if status == 400 {
        assert!(is_closed(&mut connection), "{name:.300}: the connection stays open");
    }
}

fn check_heads(port: u16) {
    let length = BODY.len();
    let json = "Host: localhost\nContent-Type: application/json";
    let row = |lines: &str, status: u16| check_head(port, lines, status);
    // Request smuggling.
    row(&format!("POST / HTTP/1.1\n{json}\nContent-Length: {length}\nTransfer-Encoding: chunked"), 400);
    row(&format!("POST / HTTP/1.1\n{json}\nContent-Length: {length}\nContent-Length: {}", length + 1), 400);
    row(&format!("POST / HTTP/1.1\n{json}\nContent-Length: {length}\nX-Folded: a\n b"), 400);
    row(&format!("POST / HTTP/1.1\n{json}\nContent-Length : {length}"), 400);
    row(&format!("POST / HTTP/1.1\n{json}\nContent-Length: +{length}"), 400);
    row(&format!("POST / HTTP/1.1\n{json}\nContent-Length: -1"), 400);
    row(&format!("POST / HTTP/1.1\n{json}\nContent-Length: 99999999999999999999"), 400);
    row(&format!("POST / HTTP/1.1\n{json}\nTransfer-Encoding: gzip"), 501);
    let bare_lf = format!("POST / HTTP/1.1\nHost: localhost\nContent-Length: {length}\n\n{BODY}");
    check_raw(port, "bare LF", bare_lf.as_bytes(), 400);
    let chunked = format!("POST / HTTP/1.1\r\n{}\r\nTransfer-Encoding: chunked\r\n\r\n", json.replace('\n', "\r\n"));
    check_raw(port, "chunk size not hex", format!("{chunked}xyz\r\n{BODY}\r\n0\r\n\r\n").as_bytes(), 400);
    check_raw(port, "chunk longer than its size", format!("{chunked}5\r\n{BODY}\r\n0\r\n\r\n").as_bytes(), 400);
    // Malformed and unserved requests.
    row(&format!("POST /\n{json}\nContent-Length: {length}"), 400);
    row(&format!("POST / HTTP/3.0\n{json}\nContent-Length: {length}"), 505);
    row(&format!("P(ST / HTTP/1.1\n{json}\nContent-Length: {length}"), 400);
    row(&format!("POST / HTTP/1.1\nContent-Type: application/json\nContent-Length: {length}"), 400);
    row(&format!("POST / HTTP/1.1\n{json}\nHost: localhost\nContent-Length: {length}"), 400);
    row(&format!("POST / HTTP/1.1\nHost: evil.example\nContent-Type: application/json\nContent-Length: {length}"), 403);
    row(&format!("POST /other HTTP/1.1\n{json}\nContent-Length: {length}"), 404);
    row(&format!("PUT / HTTP/1.1\n{json}\nContent-Length: {length}"), 405);
    row(&format!("POST / HTTP/1.1\nHost: localhost\nContent-Type: text/plain\nContent-Length: {length}"), 415);
    // Too large.
    row(&format!("POST / HTTP/1.1\n{json}\nContent-Length: 4294967296"), 413);
    row(&format!("POST / HTTP/1.1\n{json}\nX-Large: {}\nContent-Length: {length}", "a".repeat(100_000)), 431);
}

/// Sends `body` as a well-formed request; the JSON-RPC error must be `expected` under status 200.
#[track_caller]
fn check_body(port: u16, name: &str, body: &[u8], expected: &str) {
    let mut connection = connect(port);
    connection.write_all(&post(body)).expect("the node reads bodies within its limit");
    let reply = Reply::read(&mut connection).unwrap_or_else(|error| panic!("{name}: no reply: {error}"));
    assert_eq!(reply.status, 200, "{name}: {}", String::from_utf8_lossy(&reply.body));
    check_error(name, &reply.json(), expected);
}

fn check_bodies(port: u16) {
    let row = |name: &str, body: &[u8], expected: &str| check_body(port, name, body, expected);
    row("empty", b"", "-32700");
    row("truncated", &BODY.as_bytes()[..30], "-32700");
    row("trailing bytes", format!("{BODY}x").as_bytes(), "-32700");
    row("invalid UTF-8", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_\xff\",\"params\":[]}", "-32700");
    row("control character", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_\x01\",\"params\":[]}", "-32700");
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":{}"#, "[".repeat(100_000));
    row("deep", deep.as_bytes(), "-32700");
    let closed = "]".repeat(100_000);
    row("deep and closed", format!("{deep}{closed}}}").as_bytes(), "-32700");
}

fn check_envelopes(port: u16) {
    let row = |body: &str, expected: &str| check_body(port, body, body.as_bytes(), expected);
    row("1", "-32600");
    row("null", "-32600");
    row("[]", "-32600");
    row(r#"{"id":1,"method":"eth_chainId","params":[]}"#, "-32600");
    row(r#"{"jsonrpc":"1.0","id":1,"method":"eth_chainId","params":[]}"#, "-32600");
    row(r#"{"jsonrpc":"2.0","id":1,"params":[]}"#, "-32600");
    row(r#"{"jsonrpc":"2.0","id":1,"method":7,"params":[]}"#, "-32600");
    row(r#"{"jsonrpc":"2.0","id":{},"method":"eth_chainId","params":[]}"#, "-32600");
    row(r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":7}"#, "-32602");
    row(r#"{"jsonrpc":"2.0","id":1,"method":"eth_noSuchMethod","params":[]}"#, "-32601 eth_noSuchMethod");
    row(r#"{"jsonrpc":"2.0","id":1,"method":"","params":[]}"#, "-32601");

    let batch = |count: usize| format!("[{}]", vec![BODY; count].join(","));
    check_body(port, "batch over the limit", batch(1_001).as_bytes(), "-32600 1000");
    let mut connection = connect(port);
    connection.write_all(&post(batch(1_000).as_bytes())).expect("the node reads bodies within its limit");
    let reply = Reply::read(&mut connection).expect("a batch at the limit is answered").json();
    assert_eq!(reply.as_array().map(Vec::len), Some(1_000), "replies to a batch at the limit");

    // Notifications get no reply: alone an empty body, in a batch only the others answer.
    let notification = r#"{"jsonrpc":"2.0","method":"eth_chainId","params":[]}"#;
    let mut connection = connect(port);
    connection.write_all(&post(notification.as_bytes())).expect("the node reads bodies within its limit");
    let reply = Reply::read(&mut connection).expect("a notification is answered by HTTP");
    assert_eq!((reply.status, reply.body.len()), (200, 0), "reply to a notification");
    connection.write_all(&post(format!("[{notification},7,{BODY}]").as_bytes())).expect("the connection stays open");
    let replies = Reply::read(&mut connection).expect("a mixed batch is answered").json();
    assert_eq!(replies.as_array().map(Vec::len), Some(2), "replies to a mixed batch: {replies}");
    check_error("number in a batch", &replies[0], "-32600");
    check_error("request in a batch", &replies[1], "ok");
}

/// Parameters of the wrong type, number or range.
fn check_arguments(port: u16) {
    let row = |method: &str, params: &str, expected: &str| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        check_body(port, &body, body.as_bytes(), expected);
    };
    let address = r#""0x00000000000000000000000000000000000000ff""#;
    row("eth_getBalance", "[]", "-32602");
    row("eth_getBalance", r#"["0x12","latest"]"#, "-32602");
    row("eth_getBalance", r#"[7,"latest"]"#, "-32602");
    row("eth_getBalance", &format!(r#"[{address},"newest"]"#), "-32602");
    row("eth_getBalance", &format!(r#"[{address},"0x01"]"#), "-32602");
    row("eth_getBalance", &format!(r#"[{address},"latest",1]"#), "-32602");
    row("eth_getBlockByNumber", r#"["0x0","yes"]"#, "-32602");
    row("eth_getBlockByNumber", r#"["0x10000000000000000",false]"#, "-32602");
    row("eth_getTransactionReceipt", r#"["0x1234"]"#, "-32602");
    row("eth_getLogs", r#"[{"fromBlock":"0x0","blockHash":"0x00"}]"#, "-32602");
    row("eth_feeHistory", r#"["0x3","latest",[50,25]]"#, "-32602");
    row("eth_call", r#"[{"to":"0x12"},"latest"]"#, "-32602");
    row("eth_sendRawTransaction", "[]", "-32602");
    row("eth_sendRawTransaction", "[7]", "-32602");
    row("eth_sendRawTransaction", r#"["0x123"]"#, "-32602");
    row("eth_sendRawTransaction", r#"["0xzz"]"#, "-32602");
    row("web3_sha3", r#"["0x0g"]"#, "-32602");
}

/// Peers that go away in mid-request, in different ways.
fn check_cut_connections(port: u16) {
    let request = post(BODY.as_bytes());
    for cut in (1..request.len()).step_by(7) {
        let mut connection = connect(port);
        connection.write_all(&request[..cut]).expect("loopback takes a few bytes");
        if cut % 2 == 0 {
            connection.shutdown(Shutdown::Write).expect("the connection is open");
            assert!(is_closed(&mut connection), "half-closed after {cut} bytes: the node keeps it");
        }
    }
    // A body that is announced and never comes whole.
    let mut connection = connect(port);
    let head =
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n";
    connection.write_all(head.as_bytes()).expect("loopback takes a few bytes");
    connection.write_all(&vec![b' '; 10_000]).expect("the node reads bodies within its limit");
}
