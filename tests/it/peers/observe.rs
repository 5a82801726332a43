//! What an operator sees from outside: a scrape says what was sent, both ports give the same verdict, and the port of metrics is as closed as the other.

mod logs;
pub mod page;
mod promtool;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, Bytes, Signature, U256, uint};
use native_sequencer::config::genesis::DEV_ACCOUNTS;
use native_sequencer::ops::server::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX};
use native_sequencer::testing::signing::TestKey;
use serde_json::{Value, json};

use super::journal::freeze::Frozen;
use super::process::{TempFolder, free_port, poll_until};
use super::sequencer::{FAST_BLOCKS, Sequencer};
use super::settles::{self, L1, Wallet, start_on_l1};
use page::Page;

const LIMIT: Duration = Duration::from_secs(60);
const CHAIN_ID: u64 = 61_972;
const RECIPIENT: Address = Address::repeat_byte(0x78);
/// Of secp256k1; EIP-2 refuses s above half of it.
const CURVE_ORDER: U256 = uint!(0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141_U256);

/// Sends `head` on a new connection; status and body of what comes back.
fn exchange(port: u16, head: &str) -> Option<(u16, String)> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
    connection.set_read_timeout(Some(LIMIT)).ok()?;
    connection.write_all(head.as_bytes()).ok()?;
    let mut text = String::new();
    connection.read_to_string(&mut text).ok()?;
    let status = text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
}

pub fn get(port: u16, path: &str) -> (u16, String) {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    exchange(port, &head).unwrap_or_else(|| panic!("{path} is not answered"))
}

/// A page of metrics, checked.
pub fn scrape(port: u16) -> Page {
    let (status, text) = get(port, "/metrics");
    assert_eq!(status, 200, "{text}");
    Page::parse(&text)
}

/// A page that was begun after this call: one is shown for 100 ms, and its numbers are read one after the other.
fn next_page(port: u16) -> Page {
    std::thread::sleep(Duration::from_millis(150));
    scrape(port)
}

/// Status and reasons of a probe, which both ports must agree about.
fn probe(ports: [u16; 2], path: &str) -> String {
    let shown = ports.map(|port| {
        let (status, body) = get(port, path);
        let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        let reasons = body["reasons"].as_array().expect("an array");
        let names: Vec<&str> = reasons.iter().filter_map(|reason| reason["reason"].as_str()).collect();
        format!("{status} {} {}", body["status"].as_str().unwrap_or_default(), names.join(",")).trim_end().to_owned()
    });
    // Between the two questions the answer may change; then the next pair agrees.
    if shown[0] == shown[1] { shown[0].clone() } else { format!("{} and {}", shown[0], shown[1]) }
}

#[track_caller]
fn wait_for_probe(ports: [u16; 2], path: &str, expected: &str) {
    let mut last = String::new();
    let start = std::time::Instant::now();
    while start.elapsed() < LIMIT {
        last = probe(ports, path);
        if last == expected {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{path} says `{last}`, not `{expected}`");
}

/// A node, and the port of its metrics.
fn start(settings: &[&str]) -> (Sequencer, u16) {
    let port = free_port();
    let text = port.to_string();
    let settings = [&["--metrics.port", &text], settings].concat();
    (Sequencer::start_in(TempFolder::new("observe"), "osaka", &settings), port)
}

fn transfer(key: &TestKey, nonce: u64) -> Bytes {
    key.transfer(CHAIN_ID, nonce, RECIPIENT, 1).into()
}

/// The same transaction with the other s: EIP-2 refuses it.
fn malleable(key: &TestKey) -> Bytes {
    let tx = TxEip1559 { chain_id: CHAIN_ID, gas_limit: 21_000, to: RECIPIENT.into(), ..TxEip1559::default() };
    let signature = key.sign(tx.signature_hash());
    let high = Signature::new(signature.r(), CURVE_ORDER - signature.s(), !signature.v());
    tx.into_signed(high).encoded_2718().into()
}

/// Counts, histograms and gauges equal what was sent, answered and asked for by JSON-RPC.
#[test]
fn a_scrape_says_what_was_sent() {
    let _turn = super::turn();
    let (node, port) = start(&FAST_BLOCKS);
    let key = TestKey::from_hex(DEV_ACCOUNTS[0].1);
    let single = 5;
    for nonce in 0..single {
        node.rpc.call("eth_sendRawTransaction", json!([transfer(&key, nonce)]));
    }
    let sent = 60;
    let batch = (single..sent).map(|nonce| json!([transfer(&key, nonce)]));
    for answer in node.rpc.batch("eth_sendRawTransaction", batch) {
        answer.expect("a good transaction is taken");
    }
    let mined = || node.rpc.quantity("eth_getTransactionCount", json!([key.address, "latest"])) == sent;
    poll_until("all mined", LIMIT, || mined().then_some(()));
    // Refused, each by another reason. The page must say which and how often.
    let other_chain: Bytes = key.transfer(1, sent, RECIPIENT, 1).into();
    let poor: Bytes = TestKey::nth(7).transfer(CHAIN_ID, 0, RECIPIENT, 1).into();
    let refused: [(&str, Bytes, usize); 5] = [
        ("nonce_too_low", transfer(&key, 0), 3),
        ("chain_id_wrong", other_chain, 2),
        ("insufficient_funds", poor, 1),
        ("signature", malleable(&key), 2),
        ("undecodable", Bytes::from_static(&[0x02, 0xc0]), 4),
    ];
    for (reason, raw, count) in &refused {
        for _ in 0..*count {
            let error = node.rpc.try_call("eth_sendRawTransaction", json!([raw])).expect_err(reason);
            println!("{reason}: {error:?}");
        }
    }
    assert!(node.rpc.try_call("eth_sendRawTransaction", json!(["0xzz"])).is_err());
    // One that waits behind a nonce that is missing stays in the pool.
    node.rpc.call("eth_sendRawTransaction", json!([transfer(&key, sent + 1)]));
    let head = node.rpc.quantity("eth_blockNumber", json!([]));
    let appended = |page: &Page| page.value("seq_chain_tx_appended_total", &[]) == sent as f64;
    poll_until("the chain database has every block", LIMIT, || appended(&scrape(port)).then_some(()));
    let page = next_page(port);
    check_counts(&page, sent, &refused);
    assert_eq!(page.value("seq_chain_block_number", &["latest"]), head as f64);
    assert_eq!(page.value("seq_builder_block_sealed_total", &[]), head as f64);
    assert_eq!(page.sum("seq_builder_block_closed_total"), head as f64);
    assert_eq!(page.value("seq_chain_block_append_duration_seconds_count", &[]), head as f64);
    assert_eq!(page.value("seq_state_block_seal_duration_seconds_count", &[]), head as f64);
    assert_eq!(page.value("seq_pool_tx_pooled", &["queued"]), 1.0);
    assert_eq!(page.value("seq_pool_tx_pooled", &["ready"]), 0.0);
    let (recorded, durable) = (
        page.value("seq_journal_sequence_reached", &["recorded"]),
        page.value("seq_journal_sequence_reached", &["durable"]),
    );
    assert_eq!(recorded, durable, "everything that was answered is on the disk");
    // Per transaction one record for its admission and one for its place; per block three.
    assert_eq!(durable, (2 * sent + 1 + 3 * head) as f64);
    node.stop();
}

fn check_counts(page: &Page, sent: u64, refused: &[(&str, Bytes, usize)]) {
    let (sent, waiting) = (sent as f64, 1.0);
    assert_eq!(page.value("seq_builder_tx_admitted_total", &[]), sent + waiting);
    assert_eq!(page.value("seq_builder_tx_placed_total", &[]), sent);
    assert_eq!(page.sum("seq_builder_tx_dropped_total"), 0.0);
    for (tier, count) in
        [("accepted", sent + waiting), ("preconfirmed", sent), ("sealed", sent), ("posted", 0.0), ("safe", 0.0)]
    {
        let found = page.value("seq_tier_tx_reached_duration_seconds_count", &[tier]);
        assert_eq!(found, count, "transactions that are {tier}");
    }
    let sum = |tier| page.value("seq_tier_tx_reached_duration_seconds_sum", &[tier]);
    assert!(sum("accepted") > 0.0 && sum("preconfirmed") < sum("sealed"), "{} {}", sum("preconfirmed"), sum("sealed"));
    assert!(sum("sealed") < sent * 60.0, "{}", sum("sealed"));
    let of_shard = |reason: &str| matches!(reason, "chain_id_wrong" | "signature" | "undecodable");
    for (reason, _, count) in refused {
        let name = if of_shard(reason) { "seq_ingress_tx_rejected_total" } else { "seq_builder_tx_rejected_total" };
        assert_eq!(page.value(name, &[reason]), *count as f64, "{reason}");
    }
    assert_eq!(page.value("seq_ingress_tx_rejected_total", &["malformed"]), 1.0);
    let count = |is_counted: &dyn Fn(&str) -> bool| {
        refused.iter().filter(|(reason, ..)| is_counted(reason)).map(|(.., count)| *count).sum::<usize>() as f64
    };
    assert_eq!(page.sum("seq_ingress_tx_rejected_total"), count(&of_shard) + 1.0);
    assert_eq!(page.sum("seq_builder_tx_rejected_total"), count(&|reason| !of_shard(reason)));
    let asked = page.value("seq_ingress_request_received_total", &["eth_sendRawTransaction"]);
    assert_eq!(asked, sent + waiting + count(&|_| true) + 1.0);
    // What the shard takes is recovered, whatever becomes of it.
    let recovered = page.value("seq_ingress_signature_recovered_total", &[]);
    assert_eq!(recovered, sent + waiting + count(&|reason| !of_shard(reason)));
    assert!(page.value("seq_ingress_recover_duration_seconds_count", &[]) <= recovered);
    assert_eq!(page.value("seq_chain_block_used_gas_total", &[]), sent * 21_000.0);
    assert!(page.value("seq_journal_group_write_duration_seconds_count", &[]) > 0.0);
    assert!(page.value("seq_journal_group_written_bytes_total", &[]) >= 4_096.0);
    assert!(page.value("seq_builder_turn_duration_seconds_count", &[]) > 0.0);
}

/// Posted, safe and final, with a real development L1; then that L1 goes away and comes back.
#[test]
fn tiers_of_l1_are_counted_once_and_an_l1_that_is_away_is_told() {
    let _turn = super::turn();
    let (l1, port) = (L1::start(), free_port());
    let settings = [l1.settings(), vec!["--metrics.port".to_owned(), port.to_string()]].concat();
    let node = start_on_l1(TempFolder::new("observe"), &settings);
    let ports = [node.port, port];
    wait_for_probe(ports, "/readyz", "200 full");
    let mut wallet = Wallet::new(0);
    settles::blocks(&node, &mut wallet, 3);
    settles::settle(&node);
    let sent = wallet.sent.len() as f64;
    poll_until("every transaction is counted as safe", LIMIT, || {
        let page = scrape(port);
        let count = |tier| page.value("seq_tier_tx_reached_duration_seconds_count", &[tier]);
        // The picture of settlement is shown a moment after the heads.
        let is_shown = page.value("seq_settlement_batch_next", &[]) >= 1.0;
        (count("safe") == sent && count("posted") == sent && is_shown).then_some(())
    });
    let page = next_page(port);
    for tier in ["posted", "safe"] {
        assert_eq!(page.value("seq_tier_tx_reached_duration_seconds_count", &[tier]), sent, "{tier}");
    }
    let sum = |tier| page.value("seq_tier_tx_reached_duration_seconds_sum", &[tier]);
    assert!(
        sum("sealed") < sum("posted") && sum("posted") < sum("safe"),
        "{} {} {}",
        sum("sealed"),
        sum("posted"),
        sum("safe")
    );
    let safe = settles::number(&node.rpc, "safe");
    assert_eq!(page.value("seq_chain_block_number", &["safe"]), safe as f64);
    assert!(page.value("seq_settlement_batch_sent_total", &["accepted"]) >= 1.0);
    assert!(page.value("seq_settlement_job_run_duration_seconds_count", &["cut"]) >= 1.0);
    assert!(page.value("seq_settlement_job_run_duration_seconds_count", &["check"]) >= 1.0);
    assert!(page.value("seq_l1_call_duration_seconds_count", &[]) > 1.0);
    assert_eq!(page.value("seq_l1_settlement_condition", &["ready"]), 1.0);
    drop(l1);
    wait_for_probe(ports, "/readyz", "206 degraded l1_away");
    assert_eq!(probe(ports, "/livez"), "200 full");
    assert_eq!(probe(ports, "/healthz"), "206 degraded l1_away");
    // It is degraded, not down: transactions are taken and placed.
    let (key, nonce) = (wallet.key, wallet.nonce);
    let receipt = node.rpc.call("eth_sendRawTransactionSync", json!([transfer(&key, nonce)]));
    assert_eq!(receipt["status"], "0x1", "{receipt}");
    let page = poll_until("the failed calls are counted", LIMIT, || {
        let page = scrape(port);
        (page.value("seq_l1_call_failed_total", &["unreachable"]) >= 1.0).then_some(page)
    });
    assert_eq!(page.value("seq_health_reason", &["l1_away"]), 1.0);
    assert_eq!(page.value("seq_health_level", &["ready"]), 1.0);
    node.stop();
}

/// Full, then about to leave; both ports, until the end.
#[test]
fn both_ports_tell_the_same_of_a_process_that_ends() {
    let _turn = super::turn();
    let (node, port) = start(&["--stop.delay-ms", "2000"]);
    let ports = [node.port, port];
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(probe(ports, path), "200 full", "{path}");
    }
    node.signal("TERM");
    wait_for_probe(ports, "/readyz", "503 down leaving");
    assert_eq!(probe(ports, "/healthz"), "206 degraded leaving");
    assert_eq!(probe(ports, "/livez"), "200 full");
    node.stopped(0);
    assert!(exchange(port, "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").is_none(), "the port is still open");
}

/// Halted by its operator, and not by a fault: reads go on, and whoever asks is told.
#[test]
fn a_halt_is_told_by_both_ports() {
    let _turn = super::turn();
    let (node, port) = start(&["--admin.emergency-halt", "true"]);
    let ports = [node.port, port];
    wait_for_probe(ports, "/readyz", "503 down halted_by_operator");
    assert_eq!(probe(ports, "/livez"), "200 full");
    let raw = transfer(&TestKey::from_hex(DEV_ACCOUNTS[0].1), 0);
    let error = node.rpc.try_call("eth_sendRawTransaction", json!([raw])).expect_err("halted");
    assert_eq!(error.code, -32_005, "{error:?}");
    let page = scrape(port);
    assert_eq!(page.value("seq_builder_tx_rejected_total", &["halted_by_operator"]), 1.0);
    assert_eq!(page.value("seq_builder_tx_admitted_total", &[]), 0.0);
    node.stop();
}

/// A disk that does not answer: alive, and not ready until it does.
#[test]
fn a_disk_that_stands_still_is_told_within_seconds() {
    let _turn = super::turn();
    let (node, port) = start(&FAST_BLOCKS);
    let ports = [node.port, port];
    let key = TestKey::from_hex(DEV_ACCOUNTS[0].1);
    node.rpc.call("eth_sendRawTransaction", json!([transfer(&key, 0)]));
    let frozen = match Frozen::thread(node.pid(), "journal") {
        Ok(frozen) => frozen,
        Err(error) => {
            assert!(!super::is_ci(), "CI is set and a thread of a child cannot be stopped: {error}");
            println!("skipped a_disk_that_stands_still_is_told_within_seconds: no ptrace here: {error}");
            return;
        }
    };
    // Nobody waits for the answer, which cannot come.
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [transfer(&key, 1)]});
    let body = body.to_string();
    let mut sender = TcpStream::connect(("127.0.0.1", node.port)).expect("it listens");
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    sender.write_all(head.as_bytes()).expect("loopback takes a few bytes");
    wait_for_probe(ports, "/readyz", "503 down journal_stuck");
    assert_eq!(probe(ports, "/livez"), "200 full");
    let page = scrape(port);
    let reached = |stage| page.value("seq_journal_sequence_reached", &[stage]);
    assert!(reached("recorded") > reached("durable"), "{} {}", reached("recorded"), reached("durable"));
    drop(frozen);
    wait_for_probe(ports, "/readyz", "200 full");
    node.stop();
}

/// Reads only, of four paths, for those who name this machine; and one address cannot have every connection.
#[test]
fn the_port_of_metrics_is_as_closed_as_the_other() {
    let _turn = super::turn();
    let (node, port) = start(&["--http.vhosts", "node.example"]);
    let close = "Connection: close\r\n\r\n";
    let status = |head: String| exchange(port, &head).map(|(status, _)| status);
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: localhost", 200),
        ("GET /metrics?a=b HTTP/1.1\r\nHost: 127.0.0.1:9090", 200),
        ("HEAD /metrics HTTP/1.1\r\nHost: node.example", 200),
        ("GET /metrics HTTP/1.1\r\nHost: evil.example", 403),
        ("GET /readyz HTTP/1.1\r\nHost: evil.example", 403),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", 403),
        ("GET /metrics HTTP/1.1", 403),
        ("GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost", 403),
        ("GET /metrics/ HTTP/1.1\r\nHost: localhost", 404),
        ("GET /../etc/passwd HTTP/1.1\r\nHost: localhost", 404),
        ("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0", 405),
        ("OPTIONS /livez HTTP/1.1\r\nHost: localhost", 405),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: y\nContent-Length: z", 400),
    ] {
        assert_eq!(status(format!("{request}\r\n{close}")), Some(expected), "{request}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n{close}", "a".repeat(1 << 20));
    assert!(status(long).is_none_or(|status| matches!(status, 414 | 431)), "a head without end");
    // One address, many connections that say nothing: it keeps its share, the older ones are closed, and who comes now is served.
    let silent: Vec<TcpStream> =
        (0..2 * CONNECTIONS_MAX).filter_map(|_| TcpStream::connect(("127.0.0.1", port)).ok()).collect();
    let is_open = |stream: &TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a positive timeout is valid");
        let mut stream = stream;
        !matches!(stream.read(&mut [0; 1]), Ok(0)) && stream.take_error().is_ok_and(|error| error.is_none())
    };
    let open = silent.iter().filter(|stream| is_open(stream)).count();
    assert!(open <= CONNECTIONS_PER_ADDRESS_MAX, "{open} connections of one address are open");
    assert_eq!(get(port, "/livez").0, 200, "the oldest gives way");
    // JSON-RPC's own port and its probes do not suffer.
    assert_eq!(get(node.port, "/readyz").0, 200);
    drop(silent);
    poll_until("served again", LIMIT, || {
        exchange(port, "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    });
    // A taken port is told with its setting.
    let refusal = Sequencer::start_refused(&TempFolder::new("taken"), "osaka", &["--metrics.port", &port.to_string()]);
    assert!(refusal.contains("metrics.port names another port"), "{refusal}");
    node.stop();
}
