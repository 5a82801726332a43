//! Rate limits reached by load, on real sockets: what is let through, what the others are told, and that probes answer meanwhile.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use super::admin::Admin;
use super::process::{TempFolder, free_port, poll_until};
use super::sequencer::{Sequencer, data_of};

const LIMIT: Duration = Duration::from_secs(20);
const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}"#;

/// A kept-alive connection from an address of this machine.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(from: [u8; 4], port: u16) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("all of 127.0.0.0/8 is this machine");
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("it listens");
        let stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(LIMIT)).expect("a positive timeout is valid");
        stream.set_nodelay(true).expect("a socket");
        Self { stream: BufReader::new(stream) }
    }

    fn send(&mut self, request: &str) -> Value {
        self.stream.get_mut().write_all(request.as_bytes()).expect("it reads");
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            assert!(self.stream.read_line(&mut line).expect("it answers") > 0, "it closed the connection");
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the whole body");
        serde_json::from_slice(&body).expect("JSON")
    }

    fn post(&mut self, body: &str) -> Value {
        let length = body.len();
        self.send(&format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    /// One call: `None` when it was answered, else the seconds to wait and the error's text.
    fn call(&mut self) -> Option<(f64, String)> {
        refusal(&self.post(CALL))
    }
}

fn refusal(reply: &Value) -> Option<(f64, String)> {
    let error = reply.get("error")?;
    assert_eq!(error["code"], -32_005, "{reply}");
    let message = error["message"].as_str().expect("a message").to_owned();
    Some((error["data"]["retryAfter"].as_f64().unwrap_or_else(|| panic!("{reply}")), message))
}

fn start(settings: &[&str]) -> (Sequencer, Admin) {
    start_on("1", settings)
}

/// A node on so many shards.
fn start_on(shards: &str, settings: &[&str]) -> (Sequencer, Admin) {
    let admin_port = free_port();
    let port_text = admin_port.to_string();
    let settings = [settings, &["--http.shards", shards, "--admin.port", &port_text]].concat();
    let folder = TempFolder::new("limits");
    let data = data_of(&folder);
    let sequencer = Sequencer::start_in(folder, "osaka", &settings);
    // The harness asked for the chain id.
    thread::sleep(Duration::from_millis(1_100));
    (sequencer, Admin::of(&data, admin_port))
}

/// Calls as fast as answers come for a while: how many were answered, how many refused.
fn flood(client: &mut Client, duration: Duration) -> (usize, usize) {
    let start = Instant::now();
    let (mut answered, mut refused) = (0, 0);
    while start.elapsed() < duration {
        match client.call() {
            None => answered += 1,
            Some(_) => refused += 1,
        }
    }
    (answered, refused)
}

#[test]
fn a_load_above_the_limit_gets_the_limit_and_the_time_to_wait() {
    let _turn = super::turn();
    let (sequencer, _) = start(&["--limits.requests-per-second-per-address", "100"]);
    let mut client = Client::connect([127, 0, 0, 1], sequencer.port);
    let duration = Duration::from_secs(3);
    let (answered, refused) = flood(&mut client, duration);
    println!("{answered} answered, {refused} refused in {duration:?}");
    // One second's worth at once, and what three seconds bring.
    assert!((380..=405).contains(&answered), "{answered} were answered, 400 are allowed");
    assert!(refused > answered, "the load of {refused} refusals did not reach the limit");
    // Who waits as long as it was told is let through.
    let (seconds, message) = loop {
        if let Some(refusal) = client.call() {
            break refusal;
        }
    };
    assert_eq!(message, "too many requests: limit 100 a second of one address");
    assert!(seconds > 0.0 && seconds <= 0.011, "{seconds}");
    thread::sleep(Duration::from_secs_f64(seconds));
    assert_eq!(client.call(), None, "it waited {seconds} s");
    // Another address has its own, and a new connection of the same has not.
    while client.call().is_none() {}
    assert_eq!(Client::connect([127, 0, 0, 2], sequencer.port).call(), None);
    let again: usize =
        (0..5).map(|_| usize::from(Client::connect([127, 0, 0, 1], sequencer.port).call().is_none())).sum();
    assert!(again <= 3, "{again} of five new connections were let through at once");
    sequencer.stop();
}

/// Each request on a connection of its own comes to any of the shards, and all of them count together.
#[test]
fn a_new_connection_for_each_request_on_many_shards_is_no_way_around() {
    let _turn = super::turn();
    let (sequencer, _) = start_on("8", &["--limits.requests-per-second-per-address", "100"]);
    let start = Instant::now();
    let (mut answered, mut refused) = (0, 0);
    while start.elapsed() < Duration::from_secs(3) {
        match Client::connect([127, 0, 0, 1], sequencer.port).call() {
            None => answered += 1,
            Some(_) => refused += 1,
        }
    }
    println!("{answered} answered, {refused} refused");
    assert!((360..=405).contains(&answered), "{answered} were answered, 400 are allowed");
    assert!(refused > 100, "the load of {refused} refusals did not reach the limit");
    sequencer.stop();
}

#[test]
fn a_batch_counts_its_items_and_what_is_malformed_counts() {
    let _turn = super::turn();
    let (sequencer, _) = start(&["--limits.requests-per-second-per-address", "50"]);
    let mut client = Client::connect([127, 0, 0, 1], sequencer.port);
    let batch = format!("[{}]", vec![CALL; 200].join(","));
    let reply = client.post(&batch);
    let items = reply.as_array().expect("a batch");
    assert_eq!(items.len(), 200);
    let answered = items.iter().take_while(|item| item.get("result").is_some()).count();
    assert!((50..=53).contains(&answered), "{answered} of 200 were answered, 50 a second are allowed");
    let waits: Vec<f64> = items[answered..].iter().map(|item| refusal(item).expect("refused").0).collect();
    assert!(waits.iter().all(|seconds| *seconds <= 0.021), "{waits:?}");
    thread::sleep(Duration::from_millis(1_100));
    for _ in 0..60 {
        client.post("{");
    }
    assert!(client.call().is_some(), "sixty bodies that are no JSON cost nothing");
    sequencer.stop();
}

/// Ends the load also where the test fails, which would wait for it for ever.
pub struct EndsLoad<'a>(pub &'a AtomicBool);

impl Drop for EndsLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// With every request refused, probes and the admin port answer, and each in time.
#[test]
fn probes_answer_while_a_load_is_refused_and_the_limit_changes_meanwhile() {
    let _turn = super::turn();
    let (sequencer, admin) = start(&["--limits.requests-per-second", "20"]);
    let (port, is_over) = (sequencer.port, AtomicBool::new(false));
    thread::scope(|scope| {
        let _end = EndsLoad(&is_over);
        let loads: Vec<_> = (1..=3_u8)
            .map(|index| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut client = Client::connect([127, 0, 0, index], port);
                    let (mut answered, mut refused) = (0, 0);
                    while !is_over.load(Ordering::Relaxed) {
                        let (more, others) = flood(&mut client, Duration::from_millis(50));
                        (answered, refused) = (answered + more, refused + others);
                    }
                    (answered, refused)
                })
            })
            .collect();
        let mut probe = Client::connect([127, 0, 0, 9], port);
        let mut slowest = Duration::ZERO;
        for _ in 0..100 {
            let start = Instant::now();
            let reply = probe.send("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(reply["status"], "full", "{reply}");
            slowest = slowest.max(start.elapsed());
            thread::sleep(Duration::from_millis(10));
        }
        println!("slowest probe {slowest:?}");
        assert!(slowest < Duration::from_millis(500), "a probe took {slowest:?}");
        // The limit is lifted under load; everything is answered from the next turn on.
        let limits = admin.call("admin_setLimits", json!([{ "limits.requests-per-second": 0 }]));
        assert_eq!(limits["limits.requests-per-second"], 0, "{limits}");
        let mut client = Client::connect([127, 0, 0, 8], port);
        poll_until("let through", LIMIT, || client.call().is_none().then_some(()));
        assert!((0..100).all(|_| client.call().is_none()), "no limit is left");
        let limits = admin.call("admin_setLimits", json!([{ "limits.requests-per-second-per-address": 10 }]));
        assert_eq!(limits["limits.requests-per-second-per-address"], 10, "{limits}");
        poll_until("refused", LIMIT, || client.call().map(|(_, message)| message))
            .contains("limit 10 a second of one address")
            .then_some(())
            .expect("the new limit");
        is_over.store(true, Ordering::Relaxed);
        for load in loads {
            let (_, refused) = load.join().expect("the load ends in order");
            assert!(refused > 0, "the load did not reach the limit");
        }
    });
    sequencer.stop();
}

/// Other limits that an operator changes while it runs, each reached afterwards.
#[test]
fn connections_and_the_pool_are_bounded_anew_while_it_runs() {
    let _turn = super::turn();
    let (sequencer, admin) = start(&["--block.interval-ms", "600000", "--mempool.transactions-max", "1000"]);
    for (name, expected) in [
        ("http.port", "`http.port` cannot be changed while it runs: admin_limits names what can be"),
        ("http.connection-max", "unknown setting `http.connection-max`; did you mean `http.connections-max`?"),
    ] {
        let refused = admin.try_call("admin_setLimits", json!([{ name: 1 }])).expect_err("no limit");
        assert_eq!(refused.code, -32_602);
        assert!(refused.message.contains(expected), "{}", refused.message);
    }
    let above =
        admin.try_call("admin_setLimits", json!([{ "http.connections-max": 5, "mempool.transactions-max": 1001 }]));
    assert!(above.expect_err("above").message.contains("mempool.transactions-max = 1001: expected 1 to 1000"));
    let before = admin.call("admin_limits", json!([]));
    assert_eq!((&before["http.connections-max"], &before["mempool.transactions-max"]), (&json!(10_000), &json!(1_000)));

    admin.call("admin_setLimits", json!([{ "http.connections-max": 6, "mempool.per-sender-max": 3 }]));
    let mut open: Vec<Client> = Vec::new();
    let refused = loop {
        let mut stream = TcpStream::connect(("127.0.0.1", sequencer.port)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a positive timeout is valid");
        let mut text = String::new();
        // Who has a place hears nothing unless it asks.
        if stream.read_to_string(&mut text).is_ok() {
            break text;
        }
        open.push(Client { stream: BufReader::new(stream) });
        assert!(open.len() < 8, "more connections than six are open");
    };
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: "), "{refused}");
    assert!(!open.is_empty());
    admin.call("admin_setLimits", json!([{ "http.connections-max": 10000 }]));
    let mut account = super::workload::Account::new(super::workload::DEV_KEYS[3]);
    // Behind a gap, so that they wait in the pool.
    let raw: Vec<_> = (0..5).map(|_| super::admin::transfer(&mut account)).collect();
    for raw in &raw[1..4] {
        sequencer.rpc.call("eth_sendRawTransaction", json!([raw]));
    }
    let reply = sequencer.rpc.post(&json!({
        "jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [raw[4]]
    }));
    let (seconds, message) = refusal(&reply.expect("an answer")).expect("refused");
    assert_eq!(message, "too many transactions of this sender: pooled 3, limit 3");
    assert!(seconds > 0.0);
    admin.call("admin_setLimits", json!([{ "mempool.per-sender-max": 4 }]));
    poll_until("taken", LIMIT, || sequencer.rpc.try_call("eth_sendRawTransaction", json!([raw[4]])).ok());
    sequencer.stop();
}
