//! When transactions reach the tiers beyond *accepted*: subscriptions → arrival time per transaction.
//!
//! Each tier has a connection and a thread of its own, which stamps a notification when it has been read from the
//! socket. Blocks are fetched by another thread, so that fetching one never delays the stamp of the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use alloy_primitives::map::B256Map;
use alloy_primitives::{B256, U256};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Endpoint;
use crate::client::rpc::{self, RpcClient};
use crate::client::websocket::{Subscribed, Subscription, notification_result};
use crate::engine::queue::NEVER;
use crate::engine::sender::nanoseconds_since;
use crate::error::{Error, Result};
use crate::limits::{HEAD_POLL_MS, NOTIFICATIONS_MAX};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The reply to `eth_sendRawTransaction`.
    Accepted,
    /// A notification of the `sequencer_preconfirmations` subscription.
    Preconfirmed,
    /// The `newHeads` notification of the block that holds the transaction.
    Sealed,
}

impl Tier {
    pub const ALL: [Self; 3] = [Self::Accepted, Self::Preconfirmed, Self::Sealed];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Preconfirmed => "preconfirmed",
            Self::Sealed => "sealed",
        }
    }
}

/// Times that a fetched block is asked for again: some nodes announce a block shortly before they can show it.
const BLOCK_TRIES: u32 = 50;

/// What the threads of a tier share with the run.
#[derive(Debug)]
struct Shared {
    start: Instant,
    stop: AtomicBool,
    /// Transactions of the run that have arrived.
    seen: AtomicU64,
    indexes: Arc<B256Map<u32>>,
}

/// A tier being watched.
#[derive(Debug)]
pub struct Watch {
    pub tier: Tier,
    /// How arrivals are noticed, for the report.
    pub source: String,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
    arrivals: JoinHandle<Result<Vec<u64>>>,
}

/// A tier that the node does not offer, with the node's answer.
#[derive(Debug)]
pub struct NotOffered(pub String);

/// Arrival times of a tier by transaction index (`NEVER` where there was none), and what went wrong while watching.
#[derive(Debug)]
pub struct Arrivals {
    pub arrived_ns: Vec<u64>,
    pub problem: Option<String>,
}

/// Hashes to indexes, shared by the tiers.
pub fn index_of(hashes: &[B256]) -> Arc<B256Map<u32>> {
    // `TRANSACTIONS_MAX` keeps indexes below 2^32.
    Arc::new(hashes.iter().enumerate().map(|(index, &hash)| (hash, index as u32)).collect())
}

/// A block number or hash that a notification announced, with the time of the notification.
#[derive(Debug)]
struct Head {
    number: u64,
    hash: Option<B256>,
    at_ns: u64,
}

/// Starts to watch a tier; `websocket` is `None` where the node has none.
pub fn watch(
    tier: Tier,
    http: &Endpoint,
    websocket: Option<&Endpoint>,
    indexes: Arc<B256Map<u32>>,
    start: Instant,
) -> Result<std::result::Result<Watch, NotOffered>> {
    let shared = Arc::new(Shared { start, stop: AtomicBool::new(false), seen: AtomicU64::new(0), indexes });
    let topic = match tier {
        Tier::Preconfirmed => "sequencer_preconfirmations",
        Tier::Sealed => "newHeads",
        Tier::Accepted => unreachable!("the reply itself is this tier"),
    };
    let opened = websocket.map(|endpoint| Subscription::open(endpoint, topic));
    match (tier, opened) {
        (Tier::Preconfirmed, Some(Ok(Subscribed::Yes(subscription)))) => {
            Ok(Ok(watch_preconfirmed(shared, *subscription)))
        }
        (Tier::Preconfirmed, Some(Ok(Subscribed::No(error)))) => Ok(Err(NotOffered(error.to_string()))),
        (Tier::Preconfirmed, Some(Err(error))) => Ok(Err(NotOffered(error.to_string()))),
        (Tier::Preconfirmed, None) => Ok(Err(NotOffered("it needs a WebSocket; name one by --ws-url".into()))),
        (_, Some(Ok(Subscribed::Yes(subscription)))) => watch_sealed(shared, http, Some(*subscription)).map(Ok),
        _ => watch_sealed(shared, http, None).map(Ok),
    }
}

fn watch_preconfirmed(shared: Arc<Shared>, mut subscription: Subscription) -> Watch {
    let (sender, receiver) = sync_channel(NOTIFICATIONS_MAX);
    let (reading, parsing) = (Arc::clone(&shared), Arc::clone(&shared));
    let reader = std::thread::spawn(move || {
        while !reading.stop.load(Ordering::Relaxed) {
            if let Some(message) = subscription.next()? {
                let stamped = (nanoseconds_since(reading.start), message);
                if sender.send(stamped).is_err() {
                    break;
                }
            }
        }
        Ok(())
    });
    let arrivals = std::thread::spawn(move || {
        let mut arrived_ns = vec![NEVER; parsing.indexes.len()];
        for (at_ns, message) in receiver {
            parsing.arrive(&mut arrived_ns, at_ns, preconfirmed_hashes(&message));
        }
        Ok(arrived_ns)
    });
    let source = "eth_subscribe sequencer_preconfirmations".into();
    Watch { tier: Tier::Preconfirmed, source, shared, threads: vec![reader], arrivals }
}

/// The hashes of one notification; the reader needs nothing else of it.
fn preconfirmed_hashes(message: &str) -> Vec<B256> {
    #[derive(Deserialize)]
    struct Preconfirmation {
        #[serde(rename = "transactionHash")]
        transaction_hash: B256,
    }
    let parsed = notification_result(message).and_then(|text| serde_json::from_str::<Vec<Preconfirmation>>(text).ok());
    parsed.into_iter().flatten().map(|item| item.transaction_hash).collect()
}

fn watch_sealed(shared: Arc<Shared>, http: &Endpoint, subscription: Option<Subscription>) -> Result<Watch> {
    let mut client = RpcClient::new(http.clone());
    let head = client.number("eth_blockNumber", json!([]))?;
    let (sender, receiver) = sync_channel(NOTIFICATIONS_MAX);
    let reading = Arc::clone(&shared);
    let (source, reader) = match subscription {
        Some(subscription) => {
            ("eth_subscribe newHeads".into(), std::thread::spawn(move || read_heads(&reading, subscription, &sender)))
        }
        None => {
            let poller = RpcClient::new(http.clone());
            let source = format!("eth_blockNumber polled every {HEAD_POLL_MS} ms (no WebSocket there)");
            (source, std::thread::spawn(move || poll_heads(&reading, poller, head, &sender)))
        }
    };
    let fetching = Arc::clone(&shared);
    let arrivals = std::thread::spawn(move || fetch_blocks(&fetching, client, head, receiver));
    Ok(Watch { tier: Tier::Sealed, source, shared, threads: vec![reader], arrivals })
}

fn read_heads(shared: &Shared, mut subscription: Subscription, heads: &SyncSender<Head>) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        let Some(message) = subscription.next()? else { continue };
        let at_ns = nanoseconds_since(shared.start);
        let Some(header) = notification_result(&message).and_then(|text| serde_json::from_str::<Value>(text).ok())
        else {
            continue;
        };
        let number = header.get("number").and_then(rpc::quantity).map(|number: U256| number.saturating_to());
        let Some(number) = number else { continue };
        if heads.send(Head { number, hash: header.get("hash").and_then(rpc::hash), at_ns }).is_err() {
            break;
        }
    }
    Ok(())
}

fn poll_heads(shared: &Shared, mut client: RpcClient, mut last: u64, heads: &SyncSender<Head>) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        let number = client.number("eth_blockNumber", json!([]))?;
        if number > last {
            last = number;
            if heads.send(Head { number, hash: None, at_ns: nanoseconds_since(shared.start) }).is_err() {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(HEAD_POLL_MS));
    }
    Ok(())
}

/// Fetches every block up to each announced head, so that a head that was skipped is not a gap.
fn fetch_blocks(shared: &Shared, mut client: RpcClient, mut last: u64, heads: Receiver<Head>) -> Result<Vec<u64>> {
    let mut arrived_ns = vec![NEVER; shared.indexes.len()];
    for head in heads {
        for number in last + 1..=head.number {
            let hash = head.hash.filter(|_| number == head.number);
            let hashes = block_transactions(&mut client, number, hash)?;
            shared.arrive(&mut arrived_ns, head.at_ns, hashes);
        }
        last = last.max(head.number);
    }
    Ok(arrived_ns)
}

fn block_transactions(client: &mut RpcClient, number: u64, hash: Option<B256>) -> Result<Vec<B256>> {
    let (method, id) = match hash {
        Some(hash) => ("eth_getBlockByHash", json!(hash)),
        None => ("eth_getBlockByNumber", json!(format!("{number:#x}"))),
    };
    for _ in 0..BLOCK_TRIES {
        let block = client.call(method, json!([id, false]))?;
        if let Some(list) = block.get("transactions").and_then(Value::as_array) {
            return Ok(list.iter().filter_map(rpc::hash).collect());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Error::Reply { method: method.to_owned(), detail: format!("block {number} was announced, but is not there") })
}

impl Shared {
    /// Notes the first arrival of each of the run's transactions.
    fn arrive(&self, arrived_ns: &mut [u64], at_ns: u64, hashes: Vec<B256>) {
        let mut fresh = 0;
        for hash in hashes {
            let Some(&index) = self.indexes.get(&hash) else { continue };
            let slot = &mut arrived_ns[index as usize];
            if *slot == NEVER {
                *slot = at_ns;
                fresh += 1;
            }
        }
        self.seen.fetch_add(fresh, Ordering::Relaxed);
    }
}

impl Watch {
    /// Transactions of the run that have arrived so far.
    pub fn seen(&self) -> u64 {
        self.shared.seen.load(Ordering::Relaxed)
    }

    /// Whether a thread has ended early: nothing more will arrive.
    pub fn is_dead(&self) -> bool {
        self.arrivals.is_finished() || self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops watching and hands over what arrived.
    pub fn finish(self) -> Arrivals {
        self.shared.stop.store(true, Ordering::Relaxed);
        let count = self.shared.indexes.len();
        let readers = self.threads.into_iter().map(|t| t.join().expect("watching threads do not panic"));
        let mut problem = readers.filter_map(Result::err).map(|error| error.to_string()).next();
        let arrived_ns = self.arrivals.join().expect("watching threads do not panic").unwrap_or_else(|error| {
            problem = Some(error.to_string());
            vec![NEVER; count]
        });
        Arrivals { arrived_ns, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preconfirmations_come_as_arrays() {
        let hash = B256::repeat_byte(7);
        let item = format!(r#"{{"transactionHash":"{hash}","status":"0x1"}}"#);
        let message = |result: &str| {
            format!(r#"{{"method":"eth_subscription","params":{{"subscription":"0x1","result":{result}}}}}"#)
        };
        assert_eq!(preconfirmed_hashes(&message(&format!("[{item},{item}]"))), [hash, hash]);
        assert!(preconfirmed_hashes(&message("[]")).is_empty());
        assert!(preconfirmed_hashes(&message("{}")).is_empty());
    }

    #[test]
    fn the_first_arrival_counts() {
        let hashes: Vec<B256> = (0..3).map(B256::repeat_byte).collect();
        let shared = Shared {
            start: Instant::now(),
            stop: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            indexes: index_of(&hashes),
        };
        let mut arrived_ns = vec![NEVER; 3];
        shared.arrive(&mut arrived_ns, 5, vec![hashes[1], B256::repeat_byte(9)]);
        shared.arrive(&mut arrived_ns, 8, vec![hashes[1], hashes[2]]);
        assert_eq!(arrived_ns, [NEVER, 5, 8]);
        assert_eq!(shared.seen.load(Ordering::Relaxed), 2);
    }
}
