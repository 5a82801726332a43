//! The ports beside JSON-RPC's, metrics and admin: many connections, garbage, giants and slow readers. JSON-RPC is served meanwhile, and so is whoever
//! comes to these ports with a good request.

use std::net::SocketAddr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::*;
use crate::peers::admin::Admin;
use crate::peers::process::free_port;
use crate::peers::sequencer::data_of;

/// Addresses of this machine that connections come from.
const ADDRESSES: usize = 40;
/// Open files of the node beyond what it has at rest: 64 places a port, and what is on its way.
const FILES_MAX: usize = 2 * 64 + 64;

/// A node with all its ports.
struct Target {
    sequencer: Sequencer,
    admin: Admin,
    metrics: u16,
}

impl Target {
    fn start() -> Self {
        let (metrics, admin) = (free_port(), free_port());
        let folder = TempFolder::new("side-ports");
        let data = data_of(&folder);
        let settings =
            ["--http.cors", "false", "--metrics.port", &metrics.to_string(), "--admin.port", &admin.to_string()];
        let sequencer = Sequencer::start_in(folder, "osaka", &settings);
        Self { sequencer, admin: Admin::of(&data, admin), metrics }
    }

    /// Whoever means well is served, on every port.
    #[track_caller]
    fn check_served(&self) {
        check_served(self.sequencer.port);
        check_probe(self.sequencer.port, "/readyz", 200);
        check_answers(self.metrics, "/readyz");
        check_answers(self.metrics, "/metrics");
        assert_eq!(self.admin.call("admin_sequencerActive", json!([])), json!(true));
    }

    fn file_count(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.sequencer.pid())).expect("it runs on Linux");
        files.count()
    }
}

/// A request to the port of metrics is answered.
#[track_caller]
fn check_answers(port: u16, path: &str) {
    let mut connection = connect(port);
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("loopback takes a few bytes");
    let text = read_to_end(&mut connection);
    assert_eq!(statuses(&text), [200], "{path}: {text:.300}");
}

/// A connection from one of the addresses 127.0.0.2 and up.
fn connect_from(index: usize, port: u16) -> TcpStream {
    let socket =
        Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket: raise the limit of open files");
    let last = u8::try_from(2 + index % ADDRESSES).expect("few addresses");
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).expect("all of 127.0.0.0/8 is this machine");
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("the system takes it");
    socket.into()
}

#[test]
fn thousands_of_connections_to_the_other_ports_keep_nobody_out() {
    let _turn = crate::peers::turn();
    let count: usize = if crate::peers::is_long() { 10_000 } else { 800 };
    let target = Target::start();
    target.check_served();
    let (files, memory) = (target.file_count(), target.sequencer.resident_bytes());
    for (port, start) in [
        (target.metrics, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: "),
        (target.admin.port, "POST / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "),
    ] {
        let mut open = Vec::new();
        for index in 0..count {
            let mut connection = connect_from(index, port);
            // Every second one has begun a head; who is not wanted is closed already.
            if index.is_multiple_of(2) {
                let _ = connection.write_all(start.as_bytes());
            }
            open.push(connection);
            if (index + 1).is_multiple_of(count / 8) {
                target.check_served();
                let held = target.file_count().saturating_sub(files);
                assert!(held < FILES_MAX, "{held} files are open after {index} connections");
            }
        }
    }
    let growth = target.sequencer.resident_bytes().saturating_sub(memory);
    println!("{count} connections to each port: {} KiB", growth / 1_024);
    assert!(growth < 32 << 20, "memory grew by {growth} bytes");
    target.check_served();
    target.sequencer.stop();
}

/// Requests that are no good, for any port.
fn garbage(rng: &mut StdRng) -> Vec<(&'static str, Vec<u8>)> {
    let head = |lines: &str| {
        format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{lines}\r\n").into_bytes()
    };
    let long = "a".repeat(1 << 20);
    let many: String = (0..20_000).map(|index| format!("X-{index}: y\r\n")).collect();
    let mut body = head("Content-Length: 10485760\r\n");
    body.resize(body.len() + (10 << 20), b' ');
    let mut chunks = head("Transfer-Encoding: chunked\r\n");
    chunks.extend_from_slice("1\r\na\r\n".repeat(100_000).as_bytes());
    let mut random = vec![0; 100_000];
    rng.fill(&mut random[..]);
    vec![
        ("a long line", format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()),
        ("a long header", head(&format!("X: {long}\r\n"))),
        ("a long token", head(&format!("Authorization: Bearer {long}\r\n"))),
        ("many headers", head(&many)),
        ("a large body", body),
        ("many chunks", chunks),
        ("a length beyond all", head("Content-Length: 99999999999999999999999\r\n")),
        ("two lengths", head("Content-Length: 1\r\nContent-Length: 2\r\n")),
        ("a length and chunks", head("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n")),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec()),
        ("no request", b"\r\n".repeat(50_000)),
        ("zeros", vec![0; 100_000]),
        ("random bytes", random),
        ("CONNECT", b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("no Host", b"GET /metrics HTTP/1.1\r\n\r\n".to_vec()),
        ("a fold", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n evil.example\r\n\r\n".to_vec()),
    ]
}

/// A good request with bytes changed at random.
fn mutated(rng: &mut StdRng, good: &str) -> Vec<u8> {
    let mut bytes = good.as_bytes().to_vec();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..3) {
            0 => bytes[at] = rng.random(),
            1 => bytes.truncate(at.max(1)),
            _ => bytes.insert(at, rng.random()),
        }
    }
    bytes
}

#[test]
fn garbage_and_giants_on_the_other_ports_end_and_change_nothing() {
    let _turn = crate::peers::turn();
    let target = Target::start();
    target.check_served();
    let memory = target.sequencer.resident_bytes();
    let mut rng = StdRng::seed_from_u64(0x51de);
    for round in 0..3 {
        for (what, bytes) in garbage(&mut rng) {
            for port in [target.metrics, target.admin.port] {
                let text = exchange(port, &bytes);
                // The only good thing that the port of metrics can make of these is a line that is too long for others.
                assert!(!statuses(&text).contains(&200), "{what}, port {port}, round {round}: {text:.200}");
            }
        }
        target.check_served();
    }
    let call = format!(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        "5a".repeat(32)
    );
    let rounds = if crate::peers::is_long() { 5_000 } else { 300 };
    for round in 0..rounds {
        for port in [target.metrics, target.admin.port] {
            let text = exchange(port, &mutated(&mut rng, &call));
            assert!(port == target.metrics || !statuses(&text).contains(&200), "round {round}: {text}");
        }
    }
    let growth = target.sequencer.resident_bytes().saturating_sub(memory);
    assert!(growth < 32 << 20, "memory grew by {growth} bytes");
    target.check_served();
    target.sequencer.stop();
}

/// Peers that ask for page after page and read none of them.
#[test]
fn slow_readers_of_metrics_hold_a_little_memory_and_nobody_up() {
    let _turn = crate::peers::turn();
    let target = Target::start();
    target.check_served();
    let memory = target.sequencer.resident_bytes();
    let pages = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(500);
    let readers: Vec<TcpStream> = (0..60)
        .map(|index| {
            let mut connection = connect_from(index, target.metrics);
            connection.set_nonblocking(true).expect("a socket has the mode");
            // What the node reads of it is its own affair.
            let _ = connection.write(pages.as_bytes());
            connection
        })
        .collect();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        target.check_served();
    }
    let growth = target.sequencer.resident_bytes().saturating_sub(memory);
    println!("60 slow readers: {} KiB", growth / 1_024);
    assert!(growth < 64 << 20, "memory grew by {growth} bytes");
    drop(readers);
    target.check_served();
    target.sequencer.stop();
}
