//! Names: web pages that rebind their own name to this host, and pages of other origins.

use super::*;

/// A request with this Host line and these further lines; `head` without the two.
fn with_host(request_line: &str, host: &str, lines: &str, body: &str) -> String {
    format!("{request_line} HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len())
}

const JSON: &str = "Content-Type: application/json\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[test]
fn a_rebound_name_reaches_nothing() {
    let _turn = crate::peers::turn();
    let sequencer = start(&[]);
    let port = sequencer.port;
    let call = std::str::from_utf8(CHAIN_ID_CALL).expect("text");
    let own = format!("evil.example:{port}");
    for host in [
        own.as_str(),
        "evil.example",
        "localhost.evil.example",
        "localhost.",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "localhost:6197:80",
        "a@localhost",
        "localhost#.evil.example",
        "localhost/.evil.example",
        "localhost,evil.example",
        "localhost evil.example",
        "2130706433",
        "0x7f000001",
        "127.1",
        "[::1].evil.example",
        "[::ffff:evil.example]",
        "",
    ] {
        let forwarded = format!("{JSON}X-Forwarded-Host: localhost\r\nForwarded: host=localhost\r\n");
        for (what, request) in [
            ("call", with_host("POST /", host, &forwarded, call)),
            ("upgrade", with_host("GET /", host, UPGRADE, "")),
            (
                "preflight",
                with_host(
                    "OPTIONS /",
                    host,
                    "Origin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\n",
                    "",
                ),
            ),
            ("readiness", with_host("GET /readyz", host, "", "")),
            ("health", with_host("GET /healthz", host, "", "")),
        ] {
            let text = exchange(port, request.as_bytes());
            let found = statuses(&text);
            assert!(matches!(found[..], [400 | 403]), "{what} with Host {host:?}: {text}");
            assert!(!text.contains("0xf214") && !text.to_lowercase().contains("allow-origin"), "{what}: {text}");
        }
    }
    check_served(port);
    sequencer.stop();
}

#[test]
fn a_name_counts_where_it_is_configured_and_only_as_a_whole() {
    let _turn = crate::peers::turn();
    let sequencer = start(&["--http.vhosts", "rpc.example.org,second.example"]);
    let call = std::str::from_utf8(CHAIN_ID_CALL).expect("text");
    for (host, status) in [
        ("rpc.example.org", 200),
        ("RPC.Example.ORG:443", 200),
        ("second.example", 200),
        ("x.rpc.example.org", 403),
        ("rpc.example.org.evil.example", 403),
        ("example.org", 403),
        ("second.example,rpc.example.org", 403),
    ] {
        let lines = format!("{JSON}Connection: close\r\n");
        let text = exchange(sequencer.port, with_host("POST /", host, &lines, call).as_bytes());
        assert_eq!(statuses(&text), [status], "{host}: {text}");
    }
    sequencer.stop();
}

#[test]
fn a_page_of_another_origin_can_neither_read_nor_open_a_websocket() {
    let _turn = crate::peers::turn();
    let sequencer = start(&[]);
    let port = sequencer.port;
    let call = std::str::from_utf8(CHAIN_ID_CALL).expect("text");
    // The address itself is a good Host, so that only the origin speaks against these.
    for origin in ["http://evil.example", "https://evil.example", "null", "http://127.0.0.1.evil.example", "file://"] {
        let line = format!("Origin: {origin}\r\n");
        let upgrade = exchange(port, with_host("GET /", "127.0.0.1", &format!("{UPGRADE}{line}"), "").as_bytes());
        assert_eq!(statuses(&upgrade), [403], "{origin}: {upgrade}");
        // What a browser sends without asking first: forms, and text.
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json"]
        {
            let lines = format!("Content-Type: {kind}\r\n{line}");
            let text = exchange(port, with_host("POST /", "127.0.0.1", &lines, call).as_bytes());
            assert_eq!(statuses(&text), [415], "{kind}: {text}");
        }
        let without_kind = exchange(port, with_host("POST /", "127.0.0.1", &line, call).as_bytes());
        assert_eq!(statuses(&without_kind), [415], "{without_kind}");
        // What it asks for first.
        let lines =
            format!("{line}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n");
        let preflight = exchange(port, with_host("OPTIONS /", "127.0.0.1", &lines, "").as_bytes());
        assert_eq!(statuses(&preflight), [405], "{preflight}");
        for text in [upgrade, preflight] {
            assert!(!text.to_lowercase().contains("access-control-"), "{text}");
        }
    }
    sequencer.stop();
}
