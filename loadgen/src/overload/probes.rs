//! How long health takes meanwhile: each probe on a connection of its own, ten times a second.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::sender::{Latency, histogram};
use crate::client::{Endpoint, http};
use crate::limits::LATENCY_NS_MAX;

/// From one round of probes to the next.
const PAUSE: Duration = Duration::from_millis(100);
/// A probe that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(10);

/// One path of one port.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Probe {
    pub count: u64,
    /// Without an answer.
    pub failed: u64,
    pub statuses: BTreeMap<u16, u64>,
    /// From before the connection is opened to the last byte.
    pub latency: Latency,
}

/// By URL.
pub type Probes = BTreeMap<String, Probe>;

/// The thread that asks.
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Probes>,
}

impl Prober {
    pub fn start(targets: Vec<(Endpoint, &'static str)>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut found: Vec<(Probe, Histogram<u64>)> =
                targets.iter().map(|_| (Probe::default(), histogram())).collect();
            while !stopped.load(Ordering::Relaxed) {
                for ((endpoint, path), (probe, histogram)) in targets.iter().zip(&mut found) {
                    let start = Instant::now();
                    match ask(endpoint, path) {
                        Ok(status) => {
                            let took_ns = start.elapsed().as_nanos() as u64;
                            histogram.record(took_ns.clamp(1_000, LATENCY_NS_MAX)).expect("within the bounds");
                            probe.count += 1;
                            *probe.statuses.entry(status).or_default() += 1;
                        }
                        Err(_) => probe.failed += 1,
                    }
                }
                std::thread::sleep(PAUSE);
            }
            let named = targets.iter().zip(found);
            named
                .map(|((endpoint, path), (probe, times))| {
                    (name(endpoint, path), Probe { latency: Latency::of(&times), ..probe })
                })
                .collect()
        });
        Self { stop, thread }
    }

    pub fn finish(self) -> Probes {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("probing does not panic")
    }
}

fn name(endpoint: &Endpoint, path: &str) -> String {
    format!("{}{path}", endpoint.url.trim_end_matches('/'))
}

fn ask(endpoint: &Endpoint, path: &str) -> std::io::Result<u16> {
    let mut stream = endpoint.connect().map_err(|error| std::io::Error::other(error.to_string()))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", endpoint.authority);
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let reply = http::parse_reply(&bytes).ok().flatten();
    reply.map(|reply| reply.status).ok_or_else(|| std::io::Error::other("no answer"))
}
