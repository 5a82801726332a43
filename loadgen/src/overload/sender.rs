//! The schedule: what is due, who has room for it, what came back.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::connection::{Connection, Outcome};
use super::signer::{FastSigner, Terms};
use crate::client::Endpoint;
use crate::error::{Error, Result};
use crate::limits::{ERROR_CLASSES_MAX, LATENCY_NS_MAX};

/// Pause between two rounds over all connections: long enough for several requests a write, short beside what is measured.
const ROUND: Duration = Duration::from_millis(2);
/// Pause before a connection that was refused is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub rate_per_s: f64,
    pub duration: Duration,
    pub outstanding: usize,
    /// How long answers are waited for at the end.
    pub drain: Duration,
    pub chain_id: u64,
    pub fee_cap_wei: u128,
}

/// Quantiles in nanoseconds, from when the request was handed to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    pub count: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

impl Latency {
    pub fn of(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ns: u64| ns as f64 / 1e6;
        write!(
            f,
            "p50 {:.2} ms, p99 {:.2}, p99.9 {:.2}, max {:.2}",
            ms(self.p50_ns),
            ms(self.p99_ns),
            ms(self.p999_ns),
            ms(self.max_ns)
        )
    }
}

/// What was offered and what came of it.
#[derive(Debug, Default, Serialize)]
pub struct Offered {
    /// Rate times time: `sent` and `held_back`.
    pub offered: u64,
    pub sent: u64,
    /// Due while every connection had all that it may outstanding.
    pub held_back: u64,
    pub accepted: u64,
    pub refused: u64,
    pub others: BTreeMap<String, u64>,
    /// Sent without an answer: their connection was gone, or the end had come.
    pub unanswered: u64,
    pub reconnects: u64,
    pub accepted_latency: Latency,
    pub refused_latency: Latency,
    /// Accepted and refused in each second.
    pub accepted_per_s: Vec<u64>,
    pub refused_per_s: Vec<u64>,
}

struct Tally {
    offered: Offered,
    accepted: Histogram<u64>,
    refused: Histogram<u64>,
}

/// A histogram of times up to the longest that is told apart.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_NS_MAX, 3).expect("the bounds are in order")
}

impl Tally {
    fn count(&mut self, outcome: Outcome, took_ns: u64, second: usize) {
        let took_ns = took_ns.clamp(1_000, LATENCY_NS_MAX);
        let (histogram, total, series) = match outcome {
            Outcome::Accepted => (&mut self.accepted, &mut self.offered.accepted, &mut self.offered.accepted_per_s),
            Outcome::Refused => (&mut self.refused, &mut self.offered.refused, &mut self.offered.refused_per_s),
            Outcome::Other(text) => return self.other(text),
        };
        histogram.record(took_ns).expect("within the bounds");
        *total += 1;
        if series.len() <= second {
            series.resize(second + 1, 0);
        }
        series[second] += 1;
    }

    fn other(&mut self, text: String) {
        let others = &mut self.offered.others;
        let is_room = others.len() < ERROR_CLASSES_MAX || others.contains_key(&text);
        *others.entry(if is_room { text } else { "other".to_owned() }).or_default() += 1;
    }
}

/// Offers the load; answers what came of it, and the nonce behind the accepted transactions of each account.
///
/// # Errors
/// A node that takes no connection at the start, or none any more.
pub fn offer(
    endpoint: &Endpoint,
    plan: &Plan,
    connection_count: usize,
    signers: Vec<FastSigner>,
    nonces: Vec<u64>,
) -> Result<(Offered, Vec<u64>)> {
    let terms = Terms { chain_id: plan.chain_id, fee_cap_wei: plan.fee_cap_wei };
    let mut accounts = signers.into_iter().zip(nonces);
    let mut connections = Vec::with_capacity(connection_count);
    for _ in 0..connection_count {
        connections.push(Connection::open(endpoint, terms, accounts.by_ref().take(plan.outstanding).collect())?);
    }
    let mut tally = Tally { offered: Offered::default(), accepted: histogram(), refused: histogram() };
    let start = Instant::now();
    let now_ns = || start.elapsed().as_nanos() as u64;
    let mut first = 0;
    loop {
        let elapsed = start.elapsed();
        let is_sending = elapsed < plan.duration;
        let is_over = !is_sending && connections.iter().all(|connection| connection.waiting_count() == 0);
        if is_over || elapsed > plan.duration + plan.drain {
            break;
        }
        if is_sending {
            let mut due = (plan.rate_per_s * elapsed.as_secs_f64()) as u64 - tally.offered.offered;
            tally.offered.offered += due;
            // Each round begins with the next connection, so that what there is no room for is nobody's in particular.
            for at in 0..connections.len() {
                let index = (first + at) % connections.len();
                let share = due.div_ceil((connections.len() - at) as u64);
                let taken = connections[index].take(share, now_ns());
                tally.offered.sent += taken;
                due -= taken;
            }
            tally.offered.held_back += due;
            first = (first + 1) % connections.len();
        }
        for connection in &mut connections {
            let turned =
                connection.turn(now_ns, |outcome, took_ns| tally.count(outcome, took_ns, elapsed.as_secs() as usize));
            if let Err(why) = turned {
                tally.other(why);
                tally.offered.reconnects += 1;
                tally.offered.unanswered += reopen(connection, endpoint)?;
            }
        }
        std::thread::sleep(ROUND.saturating_sub(start.elapsed().saturating_sub(elapsed)));
    }
    let left = connections.iter().map(Connection::waiting_count).sum::<usize>() as u64;
    tally.offered.unanswered += left;
    tally.offered.accepted_latency = Latency::of(&tally.accepted);
    tally.offered.refused_latency = Latency::of(&tally.refused);
    let nonces = connections.iter().flat_map(Connection::nonces).collect();
    Ok((tally.offered, nonces))
}

/// Opens a connection again that the node has closed: at once, and once more after a pause.
fn reopen(connection: &mut Connection, endpoint: &Endpoint) -> Result<u64> {
    match connection.reopen() {
        Err(Error::Connect { .. }) => {
            std::thread::sleep(REOPEN_PAUSE);
            connection.reopen()
        }
        Ok(lost) => Ok(lost),
        Err(_) => Err(Error::Transport { url: endpoint.url.clone(), reason: "it takes no connection any more".into() }),
    }
}
