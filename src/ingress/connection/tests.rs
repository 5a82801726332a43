//! Connections driven by hand: what goes in, what comes out, and when they close.

#![allow(clippy::unwrap_used, reason = "a failed test is the purpose")]

use proptest::prelude::*;

use super::*;

const SECOND_NS: u64 = 1_000_000_000;

fn policy() -> Policy {
    Policy {
        vhosts: vec!["node.example".into()],
        cors_origins: vec!["http://dapp.example".into()],
        ..Policy::default()
    }
}

/// Answers each body `b` by `<b>`, a body of digits as a batch of that many items, `n` not at all, probes as healthy.
struct Client {
    connection: Connection,
    output: Vec<u8>,
    now_ns: u64,
    /// Requests kept open instead of answered.
    held: Vec<u32>,
    hold: bool,
}

impl Client {
    fn new(policy: Policy) -> Self {
        Self {
            connection: Connection::new(Arc::new(policy), 0),
            output: Vec::new(),
            now_ns: 0,
            held: Vec::new(),
            hold: false,
        }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let mut bytes = bytes.as_ref().to_vec();
        self.turn(Input::new(&mut bytes));
        while self.connection.wants_resume() {
            self.turn(Input::empty());
        }
        self
    }

    fn turn(&mut self, mut input: Input<'_>) {
        while let Some((request, replies)) = self.connection.next_request(&mut input, self.now_ns) {
            let number = request.number;
            match request.content {
                Content::Probe(probe) => {
                    let (status, body) = if probe == Probe::Ready { (503, "false") } else { (200, "true") };
                    assert_eq!(replies.complete_probe(number, status, body), Completion::Taken);
                }
                Content::Body(_) if self.hold => self.held.push(number),
                Content::Body(body) => answer(replies, number, body),
            }
        }
        // As the shard does after each piece: what is counted is never more than what is there.
        assert!(self.connection.buffered_bytes() <= self.connection.held_bytes());
        self.write();
    }

    fn write(&mut self) {
        let output = self.connection.output().to_vec();
        self.connection.output_written(output.len(), self.now_ns);
        self.output.extend_from_slice(&output);
    }

    fn complete(&mut self, number: u32, text: &str) -> &mut Self {
        assert_eq!(
            self.connection.replies().complete(number, 0, |out| out.extend_from_slice(text.as_bytes())),
            Completion::Taken
        );
        self.write();
        self
    }

    /// Moves time and lets the connection act.
    fn wait(&mut self, seconds: f64) -> &mut Self {
        self.now_ns += (seconds * SECOND_NS as f64) as u64;
        if self.connection.deadline_ns() <= self.now_ns {
            self.connection.on_time(self.now_ns);
        }
        self.write();
        self
    }

    /// Statuses and bodies of what was written, then the phase unless it is open.
    fn summary(&self) -> String {
        let mut words = Vec::new();
        let mut rest = &self.output[..];
        while !rest.is_empty() {
            let mut headers = [httparse::EMPTY_HEADER; 16];
            let mut response = httparse::Response::new(&mut headers);
            let httparse::Status::Complete(head_bytes) = response.parse(rest).unwrap() else {
                panic!("incomplete head")
            };
            let header = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            let length = header("content-length")
                .map_or(0, |header| std::str::from_utf8(header.value).unwrap().parse().unwrap());
            let body = &rest[head_bytes..head_bytes + length];
            let close = if header("connection").is_some_and(|header| header.value == b"close") { "close" } else { "" };
            let code = response.code.unwrap().to_string();
            let text = String::from_utf8_lossy(body);
            let parts = [&code, text.trim_end(), close];
            words.push(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "));
            rest = &rest[head_bytes + length..];
            if response.code == Some(101) {
                words.extend((!rest.is_empty()).then(|| rest.escape_ascii().to_string()));
                break;
            }
        }
        if self.connection.phase() != Phase::Open {
            words.push(format!("{:?}", self.connection.phase()));
        }
        words.join(" | ")
    }
}

fn answer(replies: &mut Replies, number: u32, body: &[u8]) {
    let text = std::str::from_utf8(body).unwrap_or("?");
    if let Ok(item_count) = text.parse::<u32>() {
        replies.begin_batch(number, item_count as usize);
        // Answered from the last to the first; every fifth item is a notification.
        for item in (0..item_count).rev() {
            let text = if item % 5 == 4 { String::new() } else { item.to_string() };
            assert_eq!(replies.complete(number, item, |out| out.extend_from_slice(text.as_bytes())), Completion::Taken);
        }
    } else if text == "n" {
        assert_eq!(replies.complete(number, 0, |_| {}), Completion::Taken);
    } else {
        assert_eq!(
            replies.complete(number, 0, |out| out.extend_from_slice(format!("<{text}>").as_bytes())),
            Completion::Taken
        );
    }
}

fn post(body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[track_caller]
fn check(input: impl AsRef<[u8]>, expected: &str) {
    let input = input.as_ref();
    for portion in [input.len(), 1, 7, 100] {
        let mut client = Client::new(policy());
        for bytes in input.chunks(portion.max(1)) {
            client.send(bytes);
        }
        assert_eq!(client.summary(), expected, "portions of {portion}");
    }
}

#[test]
fn answers() {
    check(post("a"), "200 <a>");
    check(post("a") + &post("b") + &post("c"), "200 <a> | 200 <b> | 200 <c>");
    check(post("n"), "200");
    check(post("1"), "200 [0]");
    check(post("7"), "200 [0,1,2,3,5,6]");
    check(post("a").replace("1.1", "1.0"), "200 <a> close | Lingering");
    check(post("a").replace("Host", "Connection: close\r\nHost") + &post("b"), "200 <a> close | Lingering");
    check("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 true");
    check("GET /readyz HTTP/1.1\r\nHost: 127.0.0.1:6197\r\n\r\n", "503 false");
    check("GET /healthz HTTP/1.0\r\n\r\n", "200 true close | Lingering");
    let chunked = post("x")
        .replace("Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n");
    check(chunked + &post("f"), "200 <abcde> | 200 <f>");
    for length in [90, 97, 98, 990, 998, 9_998, 70_000] {
        let body = "y".repeat(length);
        check(post(&body), &format!("200 <{body}>"));
    }
}

#[test]
fn head_has_no_body() {
    let mut client = Client::new(policy());
    client.send("HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let text = String::from_utf8(client.output.clone()).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("Content-Length: 4\r\n\r\n"), "{text}");
}

#[test]
fn refusals() {
    let close = |text: &str| format!("{text} close | Lingering");
    check(post("a").replace("application/json", "text/plain"), &close("415 Content-Type must be application/json"));
    check(
        post("").replace("application/json", "text/plain") + &post("b"),
        "415 Content-Type must be application/json | 200 <b>",
    );
    check("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string() + &post("b"), "404 not found | 200 <b>");
    check("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "405 method not allowed");
    check("DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", "405 method not allowed");
    check("POST /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", "405 method not allowed");
    check(post("a").replace("localhost", "evil.example"), &close("403 invalid host specified"));
    check(post("a").replace("localhost", "node.example:80"), "200 <a>");
    check(post("a").replace("POST / ", "POST http://evil.example/ "), &close("403 invalid host specified"));
    check(post("a") + "GET /\nHost", &("200 <a> | ".to_string() + &close("400 line ends in LF without CR")));
    check(post("a").replace("Length: 1", "Length: 5242881"), &close("413 request body too large"));
    check(
        post("a").replace("Length: 1", "Length: 1\r\nTransfer-Encoding: chunked"),
        &close("400 Content-Length together with Transfer-Encoding"),
    );
    check("OPTIONS / HTTP/1.1\r\nHost: localhost\r\n\r\n", "405 method not allowed");
}

#[test]
fn cors() {
    let preflight = "OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://dapp.example\r\nAccess-Control-Request-Method: POST\r\n\r\n";
    let mut client = Client::new(policy());
    client.send(preflight).send(post("a").replace("Host", "Origin: http://dapp.example\r\nHost"));
    let text = String::from_utf8(client.output.clone()).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Origin: http://dapp.example\r\n"),
        "{text}"
    );
    assert_eq!(
        text.matches("Access-Control-Allow-Origin: http://dapp.example\r\nVary: Origin\r\n").count(),
        2,
        "{text}"
    );
    check(preflight.replace("dapp", "evil"), "405 method not allowed");
    let mut client = Client::new(policy());
    client.send(post("a").replace("Host", "Origin: http://evil.example\r\nHost"));
    assert!(!String::from_utf8(client.output.clone()).unwrap().contains("Allow-Origin"));
}

#[test]
fn replies_leave_in_request_order() {
    let mut client = Client::new(policy());
    client.hold = true;
    client.send(post("a") + &post("b") + &post("c"));
    client.hold = false;
    client.send(post("d")).send("GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.held, [0, 1, 2]);
    client.complete(2, "C").complete(1, "B");
    assert_eq!(client.summary(), "");
    client.complete(0, "A");
    assert_eq!(client.summary(), "200 A | 200 B | 200 C | 200 <d> | 404 not found");
    assert_eq!(client.connection.replies().complete(1, 0, |_| panic!("stale")), Completion::Stale);
    client.send(post("e"));
    assert!(client.summary().ends_with("200 <e>"));
}

#[test]
fn expect_continue_is_answered_in_order() {
    let mut client = Client::new(policy());
    let request = post("a").replace("Host", "Expect: 100-continue\r\nHost");
    client.send(&request[..request.len() - 1]);
    assert_eq!(client.summary(), "100");
    client.send("a");
    assert_eq!(client.summary(), "100 | 200 <a>");
}

#[test]
fn pipelining_stalls_at_its_bound() {
    let mut client = Client::new(policy());
    client.hold = true;
    let bound = Limits::default().requests_outstanding_max;
    client.send(post("a").repeat(bound - 1));
    assert!(client.connection.wants_read());
    client.send(post("b").repeat(5));
    assert_eq!(client.held.len(), bound);
    assert!(!client.connection.wants_read() && !client.connection.wants_resume());
    assert_eq!(client.connection.deadline_ns(), u64::MAX);
    client.complete(0, "A");
    assert!(client.connection.wants_resume());
    client.send("");
    assert_eq!(client.held.len(), bound + 1);
    client.hold = false;
    for number in 1..=bound as u32 {
        client.complete(number, "A").send("");
    }
    assert_eq!(client.summary().matches("200").count(), bound + 4);
    assert!(client.connection.wants_read());
}

#[test]
fn batch_in_parts() {
    let mut client =
        Client::new(Policy { limits: Limits { batch_reply_bytes_max: 14, ..Limits::default() }, ..policy() });
    client.hold = true;
    client.send(post("x"));
    let replies = client.connection.replies();
    replies.begin_batch(0, 3);
    let put = |text: &'static str| move |out: &mut Vec<u8>| out.extend_from_slice(text.as_bytes());
    assert_eq!(replies.complete(0, 2, put("22222")), Completion::Taken);
    assert_eq!(replies.complete(0, 2, put("2")), Completion::Stale);
    assert_eq!(replies.complete(0, 3, put("3")), Completion::Stale);
    // 14 bytes are brackets, two commas and ten more.
    assert_eq!(replies.complete(0, 0, put("000000")), Completion::TooLarge);
    assert_eq!(replies.complete(0, 0, put("00000")), Completion::Taken);
    assert_eq!(replies.complete(0, 1, put("1")), Completion::TooLarge);
    assert_eq!(replies.complete_short(0, 1, put("error")), Completion::Taken);
    client.write();
    assert_eq!(client.summary(), "200 [00000,error,22222]");
}

#[test]
fn items_of_a_large_batch_stall_what_follows() {
    let mut client = Client::new(policy());
    client.hold = true;
    client.send(post("x"));
    client.connection.replies().begin_batch(0, 1_000);
    client.send(post("y"));
    assert_eq!(client.held, [0]);
    assert_eq!(client.connection.replies().complete(0, 0, |_| {}), Completion::Taken);
    client.send("");
    assert_eq!(client.held, [0, 1]);
}

#[test]
fn time_outs() {
    let quiet = |bytes: &str, seconds: f64| {
        let mut client = Client::new(policy());
        client.send(bytes);
        client.wait(seconds);
        client.summary()
    };
    assert_eq!(quiet("", 29.9), "");
    assert_eq!(quiet("", 30.0), "Closed");
    assert_eq!(quiet("GET", 9.9), "");
    assert_eq!(quiet("GET", 10.0), "408 request not received in time close | Lingering");
    assert_eq!(quiet(&post("aa")[..post("aa").len() - 1], 10.0), "408 request not received in time close | Lingering");
    // Slow senders: one byte per 9 s ends with the head's time and the request's time.
    let mut client = Client::new(policy());
    client.send("G").wait(9.0).send("E").wait(2.0);
    assert!(client.summary().starts_with("408"));
    client.wait(1.0);
    assert_eq!(client.connection.phase(), Phase::Closed);
    let mut client = Client::new(policy());
    client.send(&post("0123456789")[..post("0123456789").len() - 10]);
    for _ in 0..6 {
        client.wait(9.0).send("x");
        assert_eq!(client.summary(), "");
    }
    assert!(client.wait(9.0).summary().starts_with("408"));
    // Idle after a reply, counted from the reply.
    let mut client = Client::new(policy());
    client.hold = true;
    client.send(post("a")).wait(500.0).complete(0, "A").wait(119.0);
    assert_eq!(client.summary(), "200 A");
    client.wait(1.0);
    assert_eq!(client.summary(), "200 A | Closed");
    // A peer that does not read.
    let mut client = Client::new(policy());
    client.hold = true;
    client.send(post("a"));
    assert_eq!(client.connection.replies().complete(0, 0, |out| out.push(b'A')), Completion::Taken);
    client.connection.output_written(0, 0);
    assert_eq!(client.connection.deadline_ns(), 30 * SECOND_NS);
    client.connection.on_time(30 * SECOND_NS);
    assert_eq!(client.connection.phase(), Phase::Closed);
}

#[test]
fn end_of_input() {
    let mut client = Client::new(policy());
    client.send("POST / HT");
    client.connection.on_end_of_input();
    assert_eq!(client.connection.phase(), Phase::Closed);
    // Half-closed by a client that still waits for its answer.
    let mut client = Client::new(policy());
    client.hold = true;
    client.send(post("a"));
    client.connection.on_end_of_input();
    assert_eq!(client.connection.phase(), Phase::Finishing);
    client.complete(0, "A");
    assert_eq!(client.summary(), "200 A | Closed");
}

/// What a shard's connections hold together is summed up from this: a wrong count of one would have the requests of all others refused.
#[test]
fn a_last_request_that_came_in_pieces_leaves_nothing_counted() {
    let chunked = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\na\r\n0\r\n\r\n";
    for request in [post("abc").replace("Host", "Connection: close\r\nHost"), chunked.to_owned()] {
        for cut in 1..request.len() {
            for hold in [false, true] {
                let mut client = Client::new(policy());
                client.hold = hold;
                client.send(&request[..cut]).send(&request[cut..]).send("more that nobody reads");
                assert_eq!(client.connection.buffered_bytes(), 0, "cut at {cut}");
                if hold {
                    client.complete(0, "late");
                }
                assert_eq!(client.connection.buffered_bytes(), 0, "cut at {cut}, answered");
            }
        }
    }
}

#[test]
fn idle_connection_holds_no_buffer() {
    assert!(size_of::<Connection>() <= 768, "{}", size_of::<Connection>());
    let mut client = Client::new(policy());
    client.send(&post("abc")[..20]).send(&post("abc")[20..]).send(post(&"z".repeat(5 << 20)));
    client.wait(1.0);
    assert_eq!(client.connection.held_bytes(), 0);
    assert!(client.summary().starts_with("200 <abc> | 200 <zzz"));
    assert_eq!(client.connection.deadline_ns(), 120 * SECOND_NS);
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= 125);
    let mut bytes = vec![first, 0x80 | payload.len() as u8, 1, 2, 3, 4];
    bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ (index % 4 + 1) as u8));
    bytes
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn websocket() {
    let one =
        [UPGRADE.as_bytes(), &frame(0x81, b"a"), &frame(0x89, b"p"), &frame(0x81, b"n"), &frame(0x81, b"3")].concat();
    check(&one, "101 | \\x81\\x03<a>\\x8a\\x01p\\x81\\x07[0,1,2]");
    check(
        [one, frame(0x88, b"\x03\xe8")].concat(),
        "101 | \\x81\\x03<a>\\x8a\\x01p\\x81\\x07[0,1,2]\\x88\\x02\\x03\\xe8 | Lingering",
    );
    check([UPGRADE.as_bytes(), b"\x81\x01a"].concat(), "101 | \\x88\\x02\\x03\\xea | Lingering");
    check([post("a").as_bytes(), UPGRADE.as_bytes()].concat(), "200 <a> | 101");
    check(UPGRADE.replace("Host", "Origin: http://evil.example\r\nHost"), "403 origin not allowed");
    check(UPGRADE.replace("Host", "Origin: http://dapp.example\r\nHost"), "101");
    check(UPGRADE.replace(": 13", ": 8"), "426 Sec-WebSocket-Version must be 13");
    check(UPGRADE.replace("ZQ==", "ZQ="), "400 Sec-WebSocket-Key is not 16 bytes of base64");
    let mut client = Client::new(policy());
    client.send(UPGRADE);
    assert!(
        String::from_utf8_lossy(&client.output).contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
    );
}

#[test]
fn websocket_waits_for_earlier_replies_and_then_answers_in_any_order() {
    let mut client = Client::new(policy());
    client.hold = true;
    client.send(post("a") + UPGRADE).send(frame(0x81, b"b")).send(frame(0x81, b"c"));
    assert_eq!(client.held, [0]);
    client.complete(0, "A").send("");
    assert_eq!(client.held, [0, 1, 2]);
    client.complete(2, "C").complete(1, "B");
    assert_eq!(client.summary(), "200 A | 101 | \\x81\\x01C\\x81\\x01B");
    assert_eq!(client.connection.replies().complete(2, 0, |_| {}), Completion::Stale);
}

#[test]
fn slow_subscriber_is_closed_after_a_write_was_tried() {
    let notify = |client: &mut Client, bytes: usize| {
        client.connection.replies().notify(|out| out.resize(out.len() + bytes, b'm'))
    };
    let mut client = Client::new(policy());
    client.send(UPGRADE);
    let sent = client.connection.output().len();
    client.connection.output_written(sent, 0);
    // One that reads is never too slow, however much comes at once.
    for _ in 0..5_000 {
        assert!(notify(&mut client, 1_000));
    }
    let sent = client.connection.output().len();
    client.connection.output_written(sent, 0);
    // Nor is one whose socket is full, up to the bound beside the largest message.
    for _ in 0..(1 << 20) / 1_004 + 1 {
        assert!(notify(&mut client, 1_000));
        client.connection.output_written(0, 0);
    }
    assert_eq!(client.connection.phase(), Phase::Open);
    assert!(notify(&mut client, 1_000));
    client.connection.output_written(0, 0);
    assert_eq!(client.connection.phase(), Phase::Closed);
    assert!(!notify(&mut client, 1));
    // A large reply that it asked for is not held against a subscriber.
    let mut client = Client::new(policy());
    client.hold = true;
    client.send(UPGRADE).send(frame(0x81, b"b"));
    let large = |out: &mut Vec<u8>| out.resize(out.len() + (5 << 20), b'r');
    assert_eq!(client.connection.replies().complete(0, 0, large), Completion::Taken);
    assert!(notify(&mut client, 1_000));
    client.connection.output_written(0, 0);
    assert_eq!(client.connection.phase(), Phase::Open);
}

#[test]
fn silent_websocket_is_pinged_then_closed() {
    let mut client = Client::new(policy());
    client.send(UPGRADE).wait(30.0);
    assert_eq!(client.summary(), "101 | \\x89\\x00");
    client.wait(29.0).send(frame(0x8a, b"")).wait(29.0);
    assert_eq!(client.connection.phase(), Phase::Open);
    client.wait(1.0).wait(30.0);
    assert_eq!(client.connection.phase(), Phase::Closed);
}

#[test]
fn drain_finishes_what_is_open() {
    let mut client = Client::new(policy());
    client.hold = true;
    client.send(post("a"));
    client.connection.drain();
    assert_eq!(client.connection.phase(), Phase::Finishing);
    client.send(post("b")).complete(0, "A");
    assert_eq!(client.summary(), "200 A | Lingering");
    let mut client = Client::new(policy());
    client.send(UPGRADE);
    client.connection.drain();
    client.write();
    assert_eq!(client.summary(), "101 | \\x88\\x02\\x03\\xe9 | Lingering");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is sent in whatever portions: the same answers, no panic, bounded memory.
    #[test]
    fn splits_do_not_matter(
        picks in prop::collection::vec(0_usize..10, 1..8),
        flip in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        portions in prop::collection::vec(1_usize..300, 1..6),
    ) {
        let kinds = [
            post("a").into_bytes(),
            post("12").into_bytes(),
            post("n").into_bytes(),
            post("x").replace("Content-Length: 1\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n").into_bytes(),
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            UPGRADE.as_bytes().to_vec(),
            frame(0x81, b"a"),
            frame(0x89, b"ping"),
            post("b").replace("1.1", "1.0").into_bytes(),
        ];
        let mut input: Vec<u8> = picks.iter().flat_map(|&pick| kinds[pick].clone()).collect();
        if let Some((at, value)) = flip {
            let at = at.index(input.len());
            input[at] = value;
        }
        let mut whole = Client::new(policy());
        whole.send(&input);
        let mut split = Client::new(policy());
        let (mut rest, mut sizes) = (&input[..], portions.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            split.send(now);
            rest = later;
        }
        prop_assert_eq!(split.output.escape_ascii().to_string(), whole.output.escape_ascii().to_string());
        prop_assert_eq!(split.connection.phase(), whole.connection.phase());
    }
}
