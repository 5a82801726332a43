//! Patience and numbers: slow writers, slow readers, and thousands of connections; probes answer throughout.

use std::thread;

use super::*;
use crate::peers::bad_input::Reply;

/// From the first byte to the end of a head, and between two bytes of a body (`ingress::connection::Limits`), with slack for a loaded machine.
const SLOW_LIMIT: Duration = Duration::from_secs(25);

#[test]
fn slow_writers_are_ended_and_keep_nobody_out() {
    let _turn = crate::peers::turn();
    let sequencer = start(&[]);
    let port = sequencer.port;
    // Two thirds stay in their heads, the others in their bodies.
    let mut slow: Vec<(bool, TcpStream)> = (0..300).map(|index| (index % 3 > 0, connect(port))).collect();
    for (is_head, connection) in &mut slow {
        let start = if *is_head {
            "POST / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
        } else {
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        };
        connection.write_all(start.as_bytes()).expect("loopback takes a few bytes");
        connection.set_nonblocking(true).expect("a socket has the mode");
    }
    let start = Instant::now();
    while !slow.is_empty() {
        assert!(start.elapsed() < SLOW_LIMIT, "{} slow writers are still connected", slow.len());
        thread::sleep(Duration::from_millis(500));
        check_probe(port, "/readyz", 200);
        check_served(port);
        slow.retain_mut(|(is_head, connection)| {
            // A byte now and then keeps no head open; bodies stay silent.
            if *is_head {
                let _ = connection.write_all(b"a");
            }
            // What ends them is said: 408, then the end.
            let outcome = connection.read(&mut [0; 1_024]);
            outcome.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        });
    }
    println!("300 slow writers were ended after {:?}", start.elapsed());
    assert!(
        start.elapsed() > Duration::from_secs(5),
        "ended after {:?}: a slow network would be, too",
        start.elapsed()
    );
    sequencer.stop();
}

#[test]
fn a_reader_that_does_not_read_is_not_read_from() {
    let _turn = crate::peers::turn();
    let sequencer = start(&[]);
    let port = sequencer.port;
    let before = sequencer.resident_bytes();
    let call = std::str::from_utf8(CHAIN_ID_CALL).expect("text");
    let batch = post(format!("[{}]", vec![call; 1_000].join(",")).as_bytes());
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let batch = batch.clone();
            thread::spawn(move || {
                let mut connection = connect(port);
                connection.set_write_timeout(Some(Duration::from_secs(2))).expect("a positive timeout is valid");
                // 60 MB of requests, were they all taken.
                (
                    connection.try_clone().expect("a handle"),
                    (0..1_000).take_while(|_| connection.write_all(&batch).is_ok()).count(),
                )
            })
        })
        .collect();
    let readers: Vec<(TcpStream, usize)> = writers.into_iter().map(|writer| writer.join().expect("a count")).collect();
    let taken: Vec<usize> = readers.iter().map(|(_, taken)| *taken).collect();
    println!("batches taken of peers that do not read: {taken:?}");
    assert!(taken.iter().all(|count| *count < 1_000), "somebody was read from without end: {taken:?}");
    check_probe(port, "/readyz", 200);
    check_served(port);
    // A pause of each at 1 MiB unsent, one batch's replies, and the buffers of the allocator.
    let growth = sequencer.resident_bytes().saturating_sub(before);
    assert!(growth < 96 << 20, "memory grew by {growth} bytes");
    drop(readers);
    sequencer.stop();
}

/// Opens connections until the node refuses one, beside those that are `open`. Answers the refusal's status.
fn open_until_refused(port: u16, count_max: usize, open: &mut Vec<TcpStream>) -> Option<u16> {
    while open.len() < count_max {
        let mut connection = connect(port);
        // A place is only seen by an answer; a refusal comes without a request.
        let _ = connection.write_all(&post(CHAIN_ID_CALL));
        match Reply::read(&mut connection) {
            Ok(reply) if reply.status == 200 => open.push(connection),
            Ok(reply) => return Some(reply.status),
            // Reset: the refusal was lost behind the request that nobody read.
            Err(_) => {
                let text = read_to_end(&mut connect(port));
                return statuses(&text).first().copied();
            }
        }
        if open.len().is_multiple_of(500) {
            check_probe(port, "/readyz", 200);
        }
    }
    None
}

#[test]
fn thousands_of_connections_are_served_up_to_the_limit() {
    let _turn = crate::peers::turn();
    // One address has 1,024 places a shard, so that the long form needs many shards.
    let (shards, limit) = if crate::peers::is_long() { ("16", 10_000) } else { ("4", 2_000) };
    let limit_text = limit.to_string();
    let sequencer = start(&["--http.shards", shards, "--http.connections-max", &limit_text]);
    // What every shard needs once, and pages of 2 MiB that the allocator has begun, are there before the count begins.
    let mut open = Vec::new();
    assert_eq!(open_until_refused(sequencer.port, limit / 4, &mut open), None);
    let (first_count, before) = (open.len(), sequencer.anonymous_bytes());
    let refused = open_until_refused(sequencer.port, limit + 1, &mut open);
    assert_eq!(refused, Some(503), "after {} connections", open.len());
    // Those that were refused or are closing may hold a place for a moment.
    assert!(open.len() > limit - 10 && open.len() <= limit, "{} of {limit} connections", open.len());
    // Who has a place is served, whoever is refused.
    for connection in open.iter_mut().step_by(97) {
        connection.write_all(&post(CHAIN_ID_CALL)).expect("loopback takes a few bytes");
        assert_eq!(Reply::read(connection).expect("an answer").status, 200);
    }
    let (count, growth) = (open.len() - first_count, sequencer.anonymous_bytes().saturating_sub(before));
    println!("{count} connections: {} KiB each", growth as usize / count / 1_024);
    assert!(growth < count as u64 * 32 * 1_024, "{count} connections cost {growth} bytes");
    drop(open);
    // The places come back.
    crate::peers::process::poll_until("a place", Duration::from_secs(20), || {
        let mut connection = connect(sequencer.port);
        let _ = connection.write_all(&post(CHAIN_ID_CALL));
        Reply::read(&mut connection).ok().filter(|reply| reply.status == 200).map(drop)
    });
    sequencer.stop();
}

#[test]
fn one_address_cannot_take_all_places() {
    let _turn = crate::peers::turn();
    let sequencer = start(&["--http.shards", "1"]);
    let mut open = Vec::new();
    let refused = open_until_refused(sequencer.port, 1_100, &mut open);
    // A probe that is closing may hold a place for half a second.
    assert!(refused == Some(429) && (1_000..=1_024).contains(&open.len()), "{refused:?} after {}", open.len());
    drop(open);
    sequencer.stop();
}
