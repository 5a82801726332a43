//! Every refusal by hand, agreement with httparse on generated requests, and independence from how bytes are split.

#![allow(clippy::unwrap_used, reason = "a failed test is the purpose")]

use proptest::prelude::*;

use super::*;

/// Small bounds, so that both sides of each can be tested with short inputs.
const SMALL: HttpLimits = HttpLimits {
    request_line_bytes_max: 64,
    head_bytes_max: 512,
    header_count_max: 8,
    body_bytes_max: 100,
    chunk_line_bytes_max: 32,
    chunk_extension_bytes_max: 40,
    trailer_bytes_max: 40,
};

/// Feeds `input` in portions, keeping a window as a connection does, and lists what came out. Ends at the first refusal.
fn outcomes(input: &[u8], portions: &[usize], limits: &HttpLimits) -> Vec<String> {
    let mut parser = RequestParser::default();
    let (mut window, mut rest, mut found) = (Vec::new(), input, Vec::new());
    let mut portion = portions.iter().copied().cycle();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(portion.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        window.extend_from_slice(now);
        rest = later;
        loop {
            match parser.advance(&mut window, limits) {
                Err(refusal) => {
                    found.push(format!("{} {}", refusal.status(), refusal.text()));
                    return found;
                }
                Ok(Progress::More { kept }) => {
                    window.truncate(kept);
                    let bound = limits.head_bytes_max + limits.body_bytes_max + limits.chunk_line_bytes_max + 64;
                    assert!(kept <= bound, "window of {kept} bytes");
                    break;
                }
                Ok(Progress::Head) => found.push(describe(parser.head(), &window)),
                Ok(Progress::Complete { consumed }) => {
                    found.push(format!("body {}", window[parser.body()].escape_ascii()));
                    window.drain(..consumed);
                    parser.reset();
                }
            }
        }
    }
    found
}

fn describe(head: &Head, window: &[u8]) -> String {
    let text = |span: Span| span.of(window).escape_ascii().to_string();
    let mut words = vec![format!("{:?} {} 1.{}", head.method, text(head.path), head.version_minor)];
    words.push(format!("host={}", text(head.host)));
    words.extend(head.content_length.map(|length| format!("length={length}")));
    for (flag, name) in [
        (head.chunked, "chunked"),
        (!head.keep_alive, "close"),
        (head.expect_continue, "expect"),
        (head.websocket, "websocket"),
        (head.websocket_version_13, "v13"),
        (head.preflight, "preflight"),
        (head.content_type == ContentType::Json, "json"),
        (head.content_type == ContentType::Other, "other-type"),
    ] {
        words.extend(flag.then(|| name.to_string()));
    }
    for (value, name) in [(head.origin, "origin"), (head.websocket_key, "key")] {
        words.extend((!value.is_empty()).then(|| format!("{name}={}", text(value))));
    }
    words.join(" ")
}

#[track_caller]
fn check(input: impl AsRef<[u8]>, expected: &str) {
    let input = input.as_ref();
    for portions in [vec![input.len().max(1)], vec![1], vec![2], vec![13, 1], vec![1, 1000]] {
        let found = outcomes(input, &portions, &SMALL).join("; ");
        assert_eq!(found, expected, "portions {portions:?} of {}", input.escape_ascii());
    }
}

/// The end of what a request with these header lines leads to, after a valid request line and Host.
#[track_caller]
fn check_lines(lines: &str, expected: &str) {
    check(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), expected);
}

#[test]
fn requests() {
    check("GET / HTTP/1.1\r\nHost: localhost:6197\r\n\r\n", "Get / 1.1 host=localhost:6197; body ");
    check("HEAD /healthz?x=1 HTTP/1.1\r\nhOsT:a\r\n\r\n", "Head /healthz 1.1 host=a; body ");
    check("GET / HTTP/1.0\r\n\r\n", "Get / 1.0 host= close; body ");
    check("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "Get / 1.0 host=; body ");
    check("PATCH / HTTP/1.1\r\nHost: a\r\n\r\n", "Other / 1.1 host=a; body ");
    check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "Get / 1.1 host=a; body ");
    check("\r\n\r\nGET / HTTP/1.1\r\n", "400 request line is not 'METHOD target HTTP/1.1'");
    check("GET http://b:1/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "Get /x 1.1 host=b:1; body ");
    check("GET http://b HTTP/1.1\r\nHost: a\r\n\r\n", "Get  1.1 host=b; body ");
    check("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "Options * 1.1 host=a; body ");
    check_lines(
        "Content-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n",
        "Post / 1.1 host=a length=2 json",
    );
    check_lines("Content-Type: text/plain\r\n", "Post / 1.1 host=a other-type; body ");
    check_lines("Content-Type: application/jsonx\r\n", "Post / 1.1 host=a other-type; body ");
    check_lines("Connection: foo, Close\r\n", "Post / 1.1 host=a close; body ");
    check_lines("Content-Length: 2\r\nExpect: 100-Continue\r\n", "Post / 1.1 host=a length=2 expect");
    check_lines(
        "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: k\r\nOrigin: http://o\r\n",
        "Post / 1.1 host=a websocket v13 origin=http://o key=k; body ",
    );
    check_lines("Access-Control-Request-Method: POST\r\n", "Post / 1.1 host=a preflight; body ");
    check_lines("X:\r\nY: \t \r\nZ: \u{e9} \t\r\n", "Post / 1.1 host=a; body ");
}

#[test]
fn pipelined_requests() {
    let one = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let two = "POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n";
    check(
        format!("{one}{two}{one}"),
        "Post / 1.1 host=a length=3; body abc; Post / 1.1 host=b chunked; body def; Post / 1.1 host=a length=3; body abc",
    );
}

#[test]
fn request_line_refusals() {
    for line in
        ["GET /", "GET  / HTTP/1.1", "GET / ", "/ HTTP/1.1", "", "GET / HTTP/1.1 ", "GET / http/1.1", "GET / HTTP/11"]
    {
        let input = if line.is_empty() { "\r\n\r\n".to_string() } else { format!("{line}\r\n") };
        let found = outcomes(input.as_bytes(), &[1], &SMALL);
        assert!(found.len() == 1 && found[0].starts_with("400 "), "{line}: {found:?}");
    }
    check("G@T / HTTP/1.1\r\n", "400 method is not a token");
    check(" / HTTP/1.1\r\n", "400 method is not a token");
    check("GET /\x7f HTTP/1.1\r\n", "400 request target is malformed");
    check("GET /\u{e9} HTTP/1.1\r\n", "400 request target is malformed");
    check("GET a b HTTP/1.1\r\n", "400 request target is malformed");
    check("GET https://a/ HTTP/1.1\r\n", "400 request target is malformed");
    check("GET /\0 HTTP/1.1\r\n", "400 NUL byte in the head");
    check("GET / HTTP/1.1\n", "400 line ends in LF without CR");
    check("\nGET / HTTP/1.1\r\n", "400 line ends in LF without CR");
    check("GET /\rx HTTP/1.1\r\n", "400 CR without LF");
    check("GET / HTTP/2.0\r\n", "505 HTTP version not supported");
    check("GET / HTTP/1.2\r\n", "505 HTTP version not supported");
    check("GET / HTTP/0.9\r\n", "505 HTTP version not supported");
    // 64 bytes with CRLF are taken, 65 are not, with or without an end in sight.
    check(
        format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(48)),
        &format!("Get /{} 1.0 host= close; body ", "a".repeat(48)),
    );
    check(format!("GET /{} HTTP/1.0\r\n\r\n", "a".repeat(49)), "414 request target too long");
    check("A".repeat(65), "414 request target too long");
    check("A".repeat(64), "");
}

#[test]
fn header_refusals() {
    check_lines("Content-Length : 2\r\n", "400 white space before the colon of a header");
    check_lines("Transfer-Encoding\t: chunked\r\n", "400 white space before the colon of a header");
    check_lines("X: a\r\n b\r\n", "400 folded header line");
    check("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "400 folded header line");
    check_lines("X: a\n", "400 line ends in LF without CR");
    check_lines("X: a\rb\r\n", "400 CR without LF");
    check_lines("X: a\r\r\n", "400 CR without LF");
    check_lines("X\ra: b\r\n", "400 CR without LF");
    check_lines("Xa\r\r\n", "400 CR without LF");
    check_lines("X: a\0b\r\n", "400 NUL byte in the head");
    check_lines("X\0: b\r\n", "400 NUL byte in the head");
    check_lines("X: a\x0bb\r\n", "400 control character in a header value");
    check_lines("X: a\x7f\r\n", "400 control character in a header value");
    check_lines(": b\r\n", "400 header line without a name or colon");
    check_lines("nonsense\r\n", "400 header line without a name or colon");
    check_lines("X Y: b\r\n", "400 header name is not a token");
    check_lines("X(: b\r\n", "400 header name is not a token");
    check_lines("X\u{e9}: b\r\n", "400 header name is not a token");
    check_lines("Host: a\r\n", "400 more than one Host header");
    check_lines("Origin: a\r\nOrigin: a\r\n", "400 header repeated that may occur once");
    check_lines("Sec-WebSocket-Key: a\r\nSec-WebSocket-Key: a\r\n", "400 header repeated that may occur once");
    check("GET / HTTP/1.1\r\n\r\n", "400 Host header missing");
    check_lines("Expect: 200-ok\r\n", "417 Expect is not 100-continue");
    // Count: Host and 7 more are taken.
    check_lines(&"X: y\r\n".repeat(7), "Post / 1.1 host=a; body ");
    check_lines(&"X: y\r\n".repeat(8), "431 request header fields too large");
    // Bytes: the head above takes 26 bytes and the last CRLF 2.
    let fits = 512 - 26 - 2 - "X: \r\n".len();
    check_lines(&format!("X: {}\r\n", "y".repeat(fits)), "Post / 1.1 host=a; body ");
    check_lines(&format!("X: {}\r\n", "y".repeat(fits + 1)), "431 request header fields too large");
    check(format!("POST / HTTP/1.1\r\nX: {}", "y".repeat(600)), "431 request header fields too large");
}

#[test]
fn lengths() {
    let malformed = "400 Content-Length is not a decimal number of at most 19 digits";
    for value in
        ["", "-1", "+1", "0x1", "1 2", "1,1", "1.0", "18446744073709551616", "99999999999999999999999", "\u{661}"]
    {
        check_lines(&format!("Content-Length: {value}\r\n"), malformed);
    }
    check_lines("Content-Length: 1\r\nContent-Length: 2\r\n", "400 differing Content-Length headers");
    check_lines("Content-Length: 0\r\nContent-Length: 00\r\n", "Post / 1.1 host=a length=0; body ");
    let both = "400 Content-Length together with Transfer-Encoding";
    check_lines("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", both);
    check_lines("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", both);
    check_lines("Content-Length: 101\r\n", "413 request body too large");
    check_lines("Content-Length: 9999999999999999999\r\n", "413 request body too large");
    check(
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{}", "b".repeat(100)),
        &format!("Post / 1.1 host=a length=100; body {}", "b".repeat(100)),
    );
    let unknown = "501 Transfer-Encoding is not chunked";
    for value in ["gzip", "gzip, chunked", "chunked, chunked", "identity", "chunked;q=1", "\x0bchunked", "", "xchunked"]
    {
        let expected = if value.contains('\x0b') { "400 control character in a header value" } else { unknown };
        check_lines(&format!("Transfer-Encoding: {value}\r\n"), expected);
    }
    check_lines(
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "400 header repeated that may occur once",
    );
    check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "400 Transfer-Encoding in HTTP/1.0");
}

#[track_caller]
fn check_chunks(chunks: &str, expected: &str) {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n";
    check(
        format!("{head}{chunks}"),
        &format!("Post / 1.1 host=a chunked{}{expected}", if expected.is_empty() { "" } else { "; " }),
    );
}

#[test]
fn chunks() {
    check_chunks("0\r\n\r\n", "body ");
    check_chunks("3\r\nabc\r\n0\r\n\r\n", "body abc");
    check_chunks("000003\r\nabc\r\nA\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "body abc01234567890123456789");
    check_chunks("1;x=y\r\na\r\n0;z\r\n\r\n", "body a");
    check_chunks("1\r\na\r\n0\r\nX-Trailer: b\r\n\r\n", "body a");
    check_chunks("1\r\na\r\n", "");
    let size = "400 chunk size is malformed";
    for line in
        ["", "-1", "+1", "0x1", " 1", "1 ", "1 ;x", "g", "1\0", "123456789", "ffffffffffffffff1", ";x", "1;\0", "1;\rx"]
    {
        check_chunks(&format!("{line}\r\n"), size);
    }
    check_chunks("1\na\r\n", "400 line ends in LF without CR");
    check_chunks("1\r\nab\r\n", "400 chunk data not followed by CRLF");
    check_chunks("1\r\na\n0\r\n\r\n", "400 chunk data not followed by CRLF");
    check_chunks("1\r\na\rx", "400 chunk data not followed by CRLF");
    check_chunks("ffffffff\r\n", "413 request body too large");
    check_chunks("65\r\n", "413 request body too large");
    check_chunks(&format!("64\r\n{}\r\n0\r\n\r\n", "c".repeat(100)), &format!("body {}", "c".repeat(100)));
    check_chunks(&format!("64\r\n{}\r\n1\r\n", "c".repeat(100)), "413 request body too large");
    check_chunks(&format!("1;{}\r\na\r\n0\r\n\r\n", "e".repeat(28)), "body a");
    check_chunks(&format!("1;{}\r\n", "e".repeat(29)), "400 chunk size line too long");
    check_chunks(&"1".repeat(33), "400 chunk size line too long");
    check_chunks(&format!("1;{}\r\na\r\n1;{}\r\na\r\n", "e".repeat(20), "e".repeat(18)), "");
    check_chunks(
        &format!("1;{}\r\na\r\n1;{}\r\na\r\n", "e".repeat(20), "e".repeat(19)),
        "400 chunk extensions too long",
    );
    check_chunks("0\r\n folded\r\n\r\n", "400 folded header line");
    check_chunks("0\r\nA : b\r\n\r\n", "400 white space before the colon of a header");
    check_chunks(&format!("0\r\nA: {}\r\n\r\n", "t".repeat(33)), "body ");
    check_chunks(&format!("0\r\nA: {}\r\n\r\n", "t".repeat(34)), "431 request header fields too large");
}

#[test]
fn many_small_chunks_stay_in_a_small_window() {
    let mut input = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    (0..100).for_each(|_| input.extend_from_slice(b"00000001\r\nx\r\n"));
    input.extend_from_slice(b"0\r\n\r\n");
    check(&input, &format!("Post / 1.1 host=a chunked; body {}", "x".repeat(100)));
}

#[test]
fn hosts() {
    let vhosts = ["node.example".to_string()];
    for (host, allowed) in [
        ("localhost", true),
        ("LOCALHOST:6197", true),
        ("127.0.0.1", true),
        ("10.1.2.3:80", true),
        ("[::1]", true),
        ("[::1]:6197", true),
        ("node.example", true),
        ("Node.Example:443", true),
        ("", false),
        (":80", false),
        ("evil.example", false),
        ("localhost.evil.example", false),
        ("localhost:80:80", false),
        ("localhost:http", false),
        ("localhost:123456", false),
        ("127.0.0.1.evil.example", false),
        ("0x7f.1", false),
        ("[::1", false),
        ("[::1]x", false),
        ("::1", false),
        ("a@localhost", false),
        ("localhost/", false),
    ] {
        assert_eq!(host_is_allowed(host.as_bytes(), &vhosts), allowed, "{host}");
    }
    assert!(!host_is_allowed(b"\xff", &vhosts));
    assert!(host_is_allowed(b"anything", &["*".to_string()]));
    assert!(!host_is_allowed(b"", &[String::new()]));
}

#[test]
fn refusals_are_distinct_and_documented() {
    let texts: std::collections::HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.text()).collect();
    assert_eq!(texts.len(), Refusal::ALL.len());
    for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
        assert_eq!(refusal as usize, index);
        assert_ne!(reason_phrase(refusal.status()), "Unknown");
    }
}

/// Lines that are likely to meet a rule, valid or not.
fn header_line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("Content-Length"),
        Just("Transfer-Encoding"),
        Just("Connection"),
        Just("Host"),
        Just("Origin"),
        Just("Expect"),
        Just("X-Other"),
        Just("content-type"),
        Just("X "),
        Just(" X"),
        Just("")
    ];
    let value = prop_oneof![
        Just("0".to_string()),
        Just("3".to_string()),
        Just("chunked".to_string()),
        Just("close".to_string()),
        Just("application/json".to_string()),
        Just("100-continue".to_string()),
        "[ -~]{0,12}",
        "\\PC{0,6}",
        Just("\x01".to_string())
    ];
    let separator = prop_oneof![8 => Just(": "), 1 => Just(":"), 1 => Just(" :"), 1 => Just("")];
    let end = prop_oneof![12 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\r\n")];
    (name, separator, value, end).prop_map(|(name, separator, value, end)| format!("{name}{separator}{value}{end}"))
}

/// A request that is often valid: request line, headers, body, then some bytes changed.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        6 => Just("POST / HTTP/1.1\r\nHost: localhost\r\n".to_string()),
        1 => Just("GET /healthz HTTP/1.0\r\n".to_string()),
        1 => "[A-Z]{1,4} /[a-z?]{0,5} HTTP/[0-2].[0-2]\r\n",
        1 => "[ -~]{0,20}\r\n",
    ];
    let body = prop_oneof![
        Just("abc".to_string()),
        Just("3\r\nabc\r\n0\r\n\r\n".to_string()),
        Just("1;e\r\na\r\n2\r\nbc\r\n0\r\nT: u\r\n\r\n".to_string()),
        Just("GET / HTTP/1.1\r\n\r\n".to_string()),
        "[ -~\r\n]{0,30}",
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    (line, prop::collection::vec(header_line(), 0..4), body, changes).prop_map(|(line, headers, body, changes)| {
        let mut bytes = format!("{line}{}\r\n{body}", headers.concat()).into_bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes
    })
}

/// Refusals of heads that httparse (a tokenizer) takes: framing and semantics that it leaves to its caller, and our stricter syntax:
/// LF alone as line end, white space before the colon of the request's first header or at a target, bytes outside ASCII in a target,
/// several empty lines first.
fn is_stricter_than_httparse(refusal: Refusal) -> bool {
    !matches!(
        refusal,
        Refusal::HeaderValueControl | Refusal::NulByte | Refusal::HeaderNameNotToken | Refusal::MethodNotToken
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn splits_do_not_matter(requests in prop::collection::vec(request(), 1..4), portions in prop::collection::vec(1_usize..40, 1..6)) {
        let input = requests.concat();
        let whole = outcomes(&input, &[input.len()], &SMALL);
        prop_assert_eq!(&outcomes(&input, &portions, &SMALL), &whole);
        prop_assert_eq!(&outcomes(&input, &[1], &SMALL), &whole);
    }

    #[test]
    fn heads_agree_with_httparse(input in request()) {
        let mut window = input.clone();
        let mut parser = RequestParser::default();
        let ours = parser.advance(&mut window, &HttpLimits::default());
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut theirs = httparse::Request::new(&mut headers);
        let status = theirs.parse(&input);
        match (ours, status) {
            (Ok(Progress::Head), Ok(httparse::Status::Complete(head_bytes))) => {
                prop_assert_eq!(parser.body().start, head_bytes);
                compare_heads(parser.head(), &window, &theirs)?;
            }
            (Ok(Progress::More { .. }), Ok(httparse::Status::Partial)) => {}
            // httparse may fault the incomplete last line, which we look at when it is complete.
            (Ok(Progress::More { .. }), Err(_)) => {}
            (Err(_), Err(_)) => {}
            (Err(refusal), Ok(_)) => prop_assert!(is_stricter_than_httparse(refusal), "{refusal:?} {}", input.escape_ascii()),
            (ours, theirs) => prop_assert!(false, "{ours:?} {theirs:?} {}", input.escape_ascii()),
        }
    }

    #[test]
    fn chunked_bodies_come_back(
        body in prop::collection::vec(any::<u8>(), 0..100),
        cuts in prop::collection::vec(1_usize..30, 1..6),
        portions in prop::collection::vec(1_usize..40, 1..6),
    ) {
        let mut input = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let (mut rest, mut cut) = (&body[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
            input.extend_from_slice(format!("{:x}\r\n", now.len()).as_bytes());
            input.extend_from_slice(now);
            input.extend_from_slice(b"\r\n");
            rest = later;
        }
        input.extend_from_slice(b"0\r\n\r\n");
        let expected = format!("body {}", body.escape_ascii());
        let found = outcomes(&input, &portions, &SMALL);
        prop_assert_eq!(found.last(), Some(&expected));
    }

    #[test]
    fn find_lf_equals_the_definition(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\x0b'), any::<u8>()], 0..40), from in 0_usize..50) {
        let expected = bytes.iter().enumerate().position(|(at, &byte)| at >= from && byte == b'\n');
        prop_assert_eq!(scan::find_lf(&bytes, from), expected);
    }
}

fn compare_heads(ours: &Head, window: &[u8], theirs: &httparse::Request<'_, '_>) -> Result<(), TestCaseError> {
    let method = match theirs.method {
        Some("POST") => Method::Post,
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("OPTIONS") => Method::Options,
        _ => Method::Other,
    };
    prop_assert_eq!(ours.method, method);
    prop_assert_eq!(Some(ours.version_minor), theirs.version);
    let target = theirs.path.unwrap_or_default();
    if target.starts_with('/') {
        prop_assert_eq!(ours.path.of(window), target.split('?').next().unwrap_or_default().as_bytes());
    }
    let last = |name: &str| {
        theirs.headers.iter().rev().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    };
    if target.starts_with('/') {
        prop_assert_eq!(ours.host.of(window), last("host").unwrap_or_default());
    }
    prop_assert_eq!(ours.origin.of(window), last("origin").unwrap_or_default());
    let length = last("content-length").map(|value| std::str::from_utf8(value).unwrap().parse::<u64>().unwrap());
    prop_assert_eq!(ours.content_length, length);
    prop_assert_eq!(ours.chunked, last("transfer-encoding").is_some());
    Ok(())
}
