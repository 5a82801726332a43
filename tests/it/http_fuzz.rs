//! The HTTP request parser against httparse, and a whole connection against itself however its bytes are split.
//!
//! Short by default; `FUZZ_SECONDS` and `FUZZ_SEED` as in `codec`.

use std::sync::Arc;

use native_sequencer::codec::http::{HttpLimits, Progress, RequestParser};
use native_sequencer::codec::websocket::WebSocketLimits;
use native_sequencer::ingress::connection::{Connection, Content, Input, Limits, Phase, Policy};
use rand::Rng;
use rand::rngs::StdRng;

use crate::codec::{fuzz, mutate};

const BODY_BYTES_MAX: usize = 300;
const ALPHABET: &[u8] = b"\r\n\r\n :;,=/?\t\0aAfF0159xPOSTchunked";
const HEADERS: &[&str] = &[
    "Host: localhost\r\n",
    "Host: [::1]:8545\r\n",
    "Content-Type: application/json\r\n",
    "content-type: application/json; charset=utf-8\r\n",
    "Content-Type: text/plain\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, upgrade\r\n",
    "Upgrade: websocket\r\n",
    "Sec-WebSocket-Version: 13\r\n",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "Expect: 100-continue\r\n",
    "Origin: http://dapp.example\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\n",
    "X-Padding: \t some text \r\n",
];

/// One request that is often valid.
fn request(random: &mut StdRng, out: &mut Vec<u8>) {
    let pick = |random: &mut StdRng, words: &[&'static str]| words[random.random_range(0..words.len())];
    if random.random_bool(0.7) {
        out.extend_from_slice(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    } else {
        let method = pick(random, &["POST", "GET", "HEAD", "OPTIONS", "PUT"]);
        let target = pick(random, &["/", "/?a=b", "/livez", "/readyz", "/x", "http://localhost/"]);
        let version = pick(random, &["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
        out.extend_from_slice(format!("{method} {target} {version}\r\nHost: localhost\r\n").as_bytes());
        for _ in 0..random.random_range(0..3) {
            out.extend_from_slice(pick(random, HEADERS).as_bytes());
        }
    }
    let body: Vec<u8> = (0..random.random_range(0..40)).map(|_| random.random()).collect();
    if random.random_bool(0.7) {
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        out.extend_from_slice(&body);
        return;
    }
    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    for chunk in body.chunks(random.random_range(1..20)) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
}

/// A switch to WebSocket and some masked frames.
fn websocket(random: &mut StdRng, out: &mut Vec<u8>) {
    out.extend_from_slice(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n");
    out.extend_from_slice(b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
    out.extend_from_slice(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    for _ in 0..random.random_range(0..6) {
        let opcodes = [0x81_u8, 0x81, 0x81, 0x01, 0x80, 0x89, 0x8a, 0x82, 0x88];
        let payload: Vec<u8> = (0..random.random_range(0..140)).map(|_| random.random_range(b'a'..=b'z')).collect();
        let mask: [u8; 4] = random.random();
        out.push(opcodes[random.random_range(0..opcodes.len())]);
        match u8::try_from(payload.len()) {
            Ok(bytes) if bytes < 126 => out.push(0x80 | bytes),
            _ => {
                out.push(0x80 | 126);
                out.extend_from_slice(&u16::try_from(payload.len()).expect("below 140").to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}

fn stream(random: &mut StdRng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.random_range(1..5) {
        request(random, &mut bytes);
    }
    if random.random_bool(0.3) {
        websocket(random, &mut bytes);
    }
    if random.random_bool(0.5) {
        mutate(&mut bytes, random, ALPHABET);
    }
    bytes
}

#[test]
fn a_head_that_is_accepted_is_the_head_that_httparse_sees() {
    let (mut accepted_count, mut refused_count) = (0_u64, 0_u64);
    fuzz(20_000, |random| {
        let mut bytes = Vec::new();
        request(random, &mut bytes);
        if random.random_bool(0.8) {
            mutate(&mut bytes, random, ALPHABET);
        }
        let mut window = bytes.clone();
        let mut parser = RequestParser::default();
        let outcome = parser.advance(&mut window, &HttpLimits::default());
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut theirs = httparse::Request::new(&mut headers);
        let shown = || bytes.escape_ascii().to_string();
        match outcome {
            Ok(Progress::Head) => {}
            Ok(_) => return assert!(!matches!(theirs.parse(&bytes), Ok(httparse::Status::Complete(_))), "{}", shown()),
            Err(_) => return refused_count += 1,
        }
        accepted_count += 1;
        let status = theirs.parse(&bytes);
        let Ok(httparse::Status::Complete(head_bytes)) = status else { panic!("{status:?} {}", shown()) };
        let head = *parser.head();
        assert_eq!(theirs.version, Some(head.version_minor), "{}", shown());
        let values = |name: &str| -> Vec<&[u8]> {
            let same = theirs.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            same.map(|header| header.value.trim_ascii()).collect()
        };
        // What decides where the next request starts must never be seen differently: that is request smuggling.
        let lengths: Vec<u64> =
            values("content-length").iter().filter_map(|value| std::str::from_utf8(value).ok()?.parse().ok()).collect();
        assert_eq!(head.content_length, lengths.first().copied(), "{}", shown());
        assert_eq!(head.chunked, !values("transfer-encoding").is_empty(), "{}", shown());
        assert!(!(head.chunked && head.content_length.is_some()), "{}", shown());
        if theirs.path.is_some_and(|path| path.starts_with('/')) {
            assert_eq!(values("host").first().copied().unwrap_or_default(), head.host.of(&window), "{}", shown());
        }
        // With a body of known length, the next request starts right behind it.
        let length = usize::try_from(head.content_length.unwrap_or(0)).unwrap_or(usize::MAX);
        if !head.chunked
            && length <= bytes.len() - head_bytes
            && let Ok(Progress::Complete { consumed }) = parser.advance(&mut window, &HttpLimits::default())
        {
            assert_eq!(
                (consumed, parser.body()),
                (head_bytes + length, head_bytes..head_bytes + length),
                "{}",
                shown()
            );
        }
    });
    if std::env::var_os("FUZZ_SEED").is_none() {
        assert!(accepted_count > 1_000 && refused_count > 1_000, "{accepted_count} accepted, {refused_count} refused");
    }
}

fn policy() -> Policy {
    let http = HttpLimits { head_bytes_max: 600, body_bytes_max: BODY_BYTES_MAX, ..HttpLimits::default() };
    let websocket = WebSocketLimits { message_bytes_max: BODY_BYTES_MAX, ..WebSocketLimits::default() };
    let limits = Limits { http, websocket, requests_outstanding_max: 3, ..Limits::default() };
    Policy { limits, vhosts: Vec::new(), cors_origins: vec!["http://dapp.example".to_owned()] }
}

/// What a connection made of a stream: the bodies it found, all it wrote, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    bodies: Vec<Vec<u8>>,
    output: Vec<u8>,
    phase: Phase,
}

/// Feeds `bytes` in portions. `answer_late`: replies are given in reverse order when nothing more comes, else at once.
fn feed(bytes: &[u8], mut portion: impl FnMut() -> usize, answer_late: bool) -> Seen {
    let mut connection = Connection::new(Arc::new(policy()), 0);
    let mut seen = Seen { bodies: Vec::new(), output: Vec::new(), phase: Phase::Open };
    let mut rest = bytes;
    let mut open: Vec<(u32, usize)> = Vec::new();
    let mut rounds = 0;
    loop {
        rounds += 1;
        assert!(rounds < 10_000, "no progress: {}", bytes.escape_ascii());
        let mut buffer = Vec::new();
        if connection.wants_read() && !rest.is_empty() {
            let (now, later) = rest.split_at(portion().clamp(1, rest.len()));
            buffer.extend_from_slice(now);
            rest = later;
        }
        let is_idle = buffer.is_empty() && !connection.wants_resume();
        let mut input = Input::new(&mut buffer);
        while let Some((request, replies)) = connection.next_request(&mut input, 0) {
            match request.content {
                Content::Body(body) => {
                    assert!(body.len() <= BODY_BYTES_MAX, "the bound of a body holds");
                    seen.bodies.push(body.to_vec());
                    open.push((request.number, body.len()));
                }
                Content::Probe(_) => assert!(replies.complete_probe(request.number, 206, "{}") == completion_taken()),
            }
            if !answer_late {
                answer(replies, &mut open);
            }
        }
        if is_idle {
            let was_open = !open.is_empty();
            answer(connection.replies(), &mut open);
            if !was_open && !connection.wants_resume() && (rest.is_empty() || !connection.wants_read()) {
                break;
            }
        }
        let bound = 64 * 1024 + 4 * (BODY_BYTES_MAX + 600);
        assert!(connection.held_bytes() <= bound, "{} bytes are held", connection.held_bytes());
        let sent = connection.output().len();
        seen.output.extend_from_slice(connection.output());
        connection.output_written(sent, 0);
    }
    seen.output.extend_from_slice(connection.output());
    let sent = connection.output().len();
    connection.output_written(sent, 0);
    seen.phase = connection.phase();
    seen
}

fn completion_taken() -> native_sequencer::ingress::connection::Completion {
    native_sequencer::ingress::connection::Completion::Taken
}

fn answer(replies: &mut native_sequencer::ingress::connection::Replies, open: &mut Vec<(u32, usize)>) {
    while let Some((number, body_bytes)) = open.pop() {
        // A connection that ended by a bad frame forgot its requests.
        let _ = replies.complete(number, 0, |out| out.extend_from_slice(format!("\"{body_bytes}\"").as_bytes()));
    }
}

#[test]
fn a_connection_does_the_same_however_its_bytes_are_split() {
    let mut body_count = 0;
    fuzz(5_000, |random| {
        let bytes = stream(random);
        let whole = feed(&bytes, || usize::MAX, false);
        body_count += whole.bodies.len();
        let single = feed(&bytes, || 1, false);
        assert_eq!(single, whole, "{}", bytes.escape_ascii());
        let split = feed(&bytes, || random.random_range(1..60), false);
        assert_eq!(split, whole, "{}", bytes.escape_ascii());
        // Late answers change when the peer is read from, not what is found; HTTP replies keep their order.
        let late = feed(&bytes, || random.random_range(1..60), true);
        if !bytes.windows(9).any(|word| word.eq_ignore_ascii_case(b"websocket")) {
            assert_eq!(late, whole, "{}", bytes.escape_ascii());
        }
    });
    if std::env::var_os("FUZZ_SEED").is_none() {
        assert!(body_count > 3_000, "{body_count} bodies: the streams are mostly refused");
    }
}
