//! Where a message ends: requests that a proxy and the node could read differently, chunks, fragments, and JSON without end.

use super::*;

/// Stands in what must not be taken as a request: its answer would show it.
const SMUGGLED_ID: &str = "7777";

fn smuggled() -> String {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{SMUGGLED_ID},"method":"eth_chainId","params":[]}}"#);
    let length = body.len();
    format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Sends a head (lines end in `\n` here, in CRLF on the wire) with a body and a second request behind it, which one of two readers would take
/// as part of the first. There must be one answer, a refusal, and the end of the connection.
#[track_caller]
fn check_pair(port: u16, lines: &str, body: &str) {
    let head =
        format!("POST / HTTP/1.1\nHost: localhost\nContent-Type: application/json\n{lines}\n\n").replace('\n', "\r\n");
    check_one_refusal(port, lines, &format!("{head}{body}{}", smuggled()));
}

#[track_caller]
fn check_one_refusal(port: u16, name: &str, bytes: &str) {
    let mut connection = connect(port);
    let _ = connection.write_all(bytes.as_bytes());
    // Not half-closed: the node itself must end it.
    let text = read_to_end(&mut connection);
    let found = statuses(&text);
    assert!(matches!(found[..], [400 | 413 | 501]), "{name:?}: {text}");
    assert!(!text.contains(SMUGGLED_ID), "{name:?}: the second request was answered: {text}");
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let _turn = crate::peers::turn();
    let sequencer = start(&[]);
    let port = sequencer.port;
    let chunked = "0\r\n\r\n";
    let row = |lines: &str, body: &str| check_pair(port, lines, body);
    // Two lengths.
    row("Content-Length: 5\nTransfer-Encoding: chunked", chunked);
    row("Transfer-Encoding: chunked\nContent-Length: 5", chunked);
    row("Content-Length: 0\nContent-Length: 5", "");
    row("Content-Length: 5\nContent-Length: 5, 0", "     ");
    row("Content-Length: 0, 5", "");
    row("Content-Length: 0x0", "");
    row("Content-Length: 0 0", "");
    row("Content-Length: +0", "");
    row("Content-Length: 0\u{b}", "");
    row("Content-Length: ٠", "");
    row("Content-Length: 18446744073709551616", "");
    // A coding that one of them does not see.
    for coding in [
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "chunked, chunked",
        "\u{b}chunked",
        "gzip, chunked",
        "chunked\u{0}",
    ] {
        row(&format!("Transfer-Encoding: {coding}"), chunked);
    }
    row("Transfer-Encoding: chunked\nTransfer-Encoding: identity", chunked);
    row("Transfer-Encoding: identity\nTransfer-Encoding: chunked", chunked);
    row("Transfer-Encoding : chunked", chunked);
    row("Transfer-Encoding\t: chunked", chunked);
    row(" Transfer-Encoding: chunked", chunked);
    row("X-Nothing: a\n Transfer-Encoding: chunked", chunked);
    row("Transfer_Encoding: chunked\nTransfer-Encoding:\n chunked", chunked);
    row("Content-Length: 0\nTransfer-Encoding:chunked", chunked);
    // Chunks.
    let size = "Transfer-Encoding: chunked";
    for chunk in [
        "0x0\r\n\r\n",
        "+0\r\n\r\n",
        "-0\r\n\r\n",
        "0\n\r\n",
        "0\r\r\n\r\n",
        "0;a\n\r\n",
        "10000000000000000\r\n\r\n",
        "1\r\n{0\r\n\r\n",
        "1\r\n{\n0\r\n\r\n",
        "0\r\nX: a\n\r\n",
        "\r\n0\r\n\r\n",
    ] {
        row(size, chunk);
    }
    // Lines that end differently, and a head of an older version.
    let smuggled = smuggled();
    let lf = "POST / HTTP/1.1\r\nHost: localhost\r\nX: a\nContent-Length: 5\r\n\r\n";
    check_one_refusal(port, "bare LF", &format!("{lf}{smuggled}"));
    let cr = "POST / HTTP/1.1\r\nHost: localhost\r\nX: a\rContent-Length: 5\r\n\r\n";
    check_one_refusal(port, "bare CR", &format!("{cr}{smuggled}"));
    let old = "POST / HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_one_refusal(port, "chunked in HTTP/1.0", &format!("{old}{chunked}{smuggled}"));
    check_served(port);
    sequencer.stop();
}

/// Bodies where nobody expects one are read as bodies, or the connection ends; what is behind an upgrade is no HTTP any more.
#[test]
fn a_body_is_never_the_next_request() {
    let _turn = crate::peers::turn();
    let sequencer = start(&[]);
    let smuggled = smuggled();
    let length = smuggled.len();
    for (head, name) in [
        (format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"), "a probe with a body"),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"), "GET with a body"),
        (format!("HEAD /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"), "HEAD with a body"),
        (format!("POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"), "a path that is not served"),
        (format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"), "text"),
        (format!("POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Length: {length}\r\n\r\n"), "another host"),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                .to_owned(),
            "behind an upgrade",
        ),
    ] {
        let text = exchange(sequencer.port, format!("{head}{smuggled}").as_bytes());
        assert_eq!(statuses(&text).len(), 1, "{name}: {text}");
        assert!(!text.contains(SMUGGLED_ID), "{name}: the body was answered: {text}");
    }
    sequencer.stop();
}

/// The statuses that come for a chunked body which `next` makes piece by piece, at most `pieces` of them, and how many were taken.
fn stream_chunks(port: u16, pieces: usize, next: impl Fn(usize) -> Vec<u8>) -> (Vec<u16>, usize) {
    let mut connection = connect(port);
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    connection.write_all(head.as_bytes()).expect("loopback takes a few bytes");
    let taken = (0..pieces).take_while(|index| connection.write_all(&next(*index)).is_ok()).count();
    (statuses(&read_to_end(&mut connection)), taken)
}

#[test]
fn chunks_are_bounded_in_number_size_and_ornament() {
    let _turn = crate::peers::turn();
    let sequencer = start(&[]);
    let port = sequencer.port;
    let before = sequencer.resident_bytes();
    // 64 MiB each, four of them, were there no bound.
    let endless = |piece: Vec<u8>| stream_chunks(port, 1_024, move |_| piece.clone());
    let (found, _) = endless(vec![b'0'; 65_536]);
    assert!(matches!(found[..], [] | [400]), "a size of zeros: {found:?}");
    let (found, _) = stream_chunks(port, 1_024, |index| if index == 0 { b"1;".to_vec() } else { vec![b'a'; 65_536] });
    assert!(matches!(found[..], [] | [400]), "an extension without end: {found:?}");
    let (found, _) =
        stream_chunks(port, 1_024, |index| if index == 0 { b"0\r\nX: ".to_vec() } else { vec![b'a'; 65_536] });
    assert!(matches!(found[..], [] | [400 | 431]), "a trailer without end: {found:?}");
    let (found, taken) = endless(b"1;a\r\n \r\n".repeat(8_192));
    assert!(matches!(found[..], [] | [400 | 413]), "{taken} times 8,192 chunks with an extension each: {found:?}");
    let (found, _) = stream_chunks(port, 1, |_| b"ffffffff\r\n".to_vec());
    assert_eq!(found, [413], "a chunk of 4 GiB");
    let (found, _) = stream_chunks(port, 1, |_| b"fffffffffffffff0\r\n".to_vec());
    assert!(matches!(found[..], [400 | 413]), "a chunk of 2^64 - 16: {found:?}");
    let growth = sequencer.resident_bytes().saturating_sub(before);
    assert!(growth < 96 << 20, "memory grew by {growth} bytes");
    // One byte a chunk is slow and allowed: half a megabyte of it is a request like any other.
    let call = std::str::from_utf8(CHAIN_ID_CALL).expect("text").to_owned() + &" ".repeat(500_000);
    let start = Instant::now();
    let chunks: Vec<u8> =
        call.bytes().flat_map(|byte| [&b"1\r\n"[..], &[byte], b"\r\n"].concat()).chain(*b"0\r\n\r\n").collect();
    let (found, _) = stream_chunks(port, 1, |_| chunks.clone());
    assert_eq!(found, [200], "half a million chunks");
    println!("half a million chunks: {:?}", start.elapsed());
    check_served(port);
    sequencer.stop();
}

#[test]
fn nothing_is_inflated() {
    let _turn = crate::peers::turn();
    let sequencer = start(&[]);
    // gzip of nothing but a header: an inflater would answer otherwise than JSON-RPC's parse error.
    let body = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03";
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Encoding: {encoding}\r\n\
             Accept-Encoding: gzip\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let text = exchange(sequencer.port, &[head.as_bytes(), body].concat());
        let is_parse_error = statuses(&text) == [200] && text.contains("-32700");
        assert!(is_parse_error || statuses(&text) == [415], "{encoding}: {text}");
        assert!(!text.to_lowercase().contains("content-encoding"), "{encoding}: {text}");
    }
    let upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    let text = exchange(sequencer.port, upgrade.as_bytes());
    assert_eq!(statuses(&text), [101], "{text}");
    assert!(!text.to_lowercase().contains("sec-websocket-extensions"), "{text}");
    sequencer.stop();
}

/// A WebSocket connection, its handshake done.
fn websocket(port: u16) -> TcpStream {
    let mut connection = connect(port);
    let upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    connection.write_all(upgrade.as_bytes()).expect("loopback takes a few bytes");
    let reply = crate::peers::bad_input::Reply::read(&mut connection).expect("the handshake is answered");
    assert_eq!(reply.status, 101);
    connection
}

#[test]
fn fragments_and_pings_without_end_are_closed() {
    let _turn = crate::peers::turn();
    let sequencer = start(&[]);
    let before = sequencer.resident_bytes();
    // Masked with zeros. Empty fragments never reach a bound of bytes.
    let frame = |first: u8, payload: &[u8]| [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0][..], payload].concat();
    for (name, first, repeated) in [
        ("empty fragments", frame(0x01, b""), frame(0x00, b"")),
        ("fragments of one byte", frame(0x01, b"["), frame(0x00, b"[")),
        ("pings inside of a message", frame(0x01, b"["), [frame(0x89, b"x"), frame(0x00, b"")].concat()),
    ] {
        let mut connection = websocket(sequencer.port);
        connection.write_all(&first).expect("loopback takes a few bytes");
        // Enough for every bound; what comes after the close frame is read and dropped for a moment.
        let _ = connection.write_all(&repeated.repeat(10_000));
        let text = read_to_end(&mut connection);
        assert!(!text.is_empty(), "{name}: ended without a close frame");
    }
    // Pings whose answers nobody reads: the node stops reading or closes, and holds little.
    let mut connection = websocket(sequencer.port);
    connection.set_write_timeout(Some(Duration::from_secs(2))).expect("a positive timeout is valid");
    let pings = frame(0x89, &[b'x'; 100]).repeat(10_000);
    let taken = (0..300).take_while(|_| connection.write_all(&pings).is_ok()).count();
    assert!(taken < 300, "{taken} MB of pings were taken");
    let growth = sequencer.resident_bytes().saturating_sub(before);
    assert!(growth < 96 << 20, "memory grew by {growth} bytes");
    check_served(sequencer.port);
    sequencer.stop();
}

#[test]
fn large_and_strange_json_is_answered_in_time() {
    let _turn = crate::peers::turn();
    let sequencer = start(&[]);
    let port = sequencer.port;
    let call = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":{params}}}"#);
    let mega = 4 << 20;
    for (name, body) in [
        ("deep lists", call(&format!("{}{}", "[".repeat(mega / 2), "]".repeat(mega / 2)))),
        ("deep objects", call(&r#"{"a":"#.repeat(mega / 5))),
        ("deep in a batch", format!("[{}]", vec![call(&"[".repeat(1_000)); 1_000].join(","))),
        ("many members", call(&format!("{{{}}}", vec![r#""a":1"#; mega / 6].join(",")))),
        ("many parameters", call(&format!("[{}]", vec!["0"; mega / 2].join(",")))),
        ("a long string", call(&format!("[\"{}\"]", "x".repeat(mega)))),
        ("escapes", call(&format!("[\"{}\"]", "\\u0041".repeat(mega / 6)))),
        ("half of a pair", call(r#"["\ud800"]"#)),
        ("a large number", call(&format!("[{}]", "9".repeat(mega)))),
        ("a large exponent", call("[1e999999999]")),
        ("a long id", format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"eth_chainId","params":[]}}"#, "i".repeat(mega))),
        ("a long method", format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}","params":[]}}"#, "m".repeat(mega))),
    ] {
        let start = Instant::now();
        let text = exchange(port, &post(body.as_bytes()));
        let duration = start.elapsed();
        assert_eq!(statuses(&text), [200], "{name}: {text:.300}");
        let is_answered = text.contains("\"error\"") || name == "a long id" && text.contains("\"result\"");
        assert!(is_answered, "{name}: {text:.300}");
        // No answer repeats what was sent but the id, which the caller needs.
        assert!(text.len() < 1 << 20 || name == "a long id", "{name}: an answer of {} bytes", text.len());
        assert!(duration < Duration::from_secs(10), "{name} took {duration:?}");
    }
    check_served(port);
    sequencer.stop();
}
