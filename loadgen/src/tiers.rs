//! When transactions reach the tiers beyond *accepted*: subscriptions → arrival time per transaction.
//!
//! Each tier has a connection and a thread of its own, which stamps a notification when it has been read from the
//! socket. Blocks are fetched by another thread, so that fetching one never delays the stamp of the next.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use alloy_primitives::map::B256Map;
use alloy_primitives::{B256, U256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::Endpoint;
use crate::client::rpc::{self, RpcClient};
use crate::client::websocket::{Subscribed, Subscription, notification_result};
use crate::engine::queue::NEVER;
use crate::engine::sender::nanoseconds_since;
use crate::error::{Error, Result};
use crate::limits::{HEAD_POLL_MS, NOTIFICATIONS_MAX, SAFE_POLL_MS};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The reply to `eth_sendRawTransaction`.
    Accepted,
    /// A notification of the `sequencer_preconfirmations` subscription.
    Preconfirmed,
    /// The `newHeads` notification of the block that holds the transaction.
    Sealed,
    /// The `safe` tag has reached the block that holds the transaction.
    Safe,
}

impl Tier {
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Preconfirmed, Self::Sealed, Self::Safe];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Preconfirmed => "preconfirmed",
            Self::Sealed => "sealed",
            Self::Safe => "safe",
        }
    }
}

/// The tiers that are watched; *accepted* always is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierSet(Vec<Tier>);

impl TierSet {
    pub fn contains(&self, tier: Tier) -> bool {
        self.0.contains(&tier)
    }
}

impl std::str::FromStr for TierSet {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "all" {
            return Ok(Self(Tier::ALL.to_vec()));
        }
        let tier = |name: &str| {
            let found = Tier::ALL.into_iter().find(|tier| tier.name() == name);
            found.ok_or_else(|| {
                format!("{name:?} is not a tier; there are accepted, preconfirmed, sealed, safe, or all")
            })
        };
        Ok(Self(text.split(',').map(tier).collect::<std::result::Result<_, _>>()?))
    }
}

/// Times that a fetched block is asked for again: some nodes announce a block shortly before they can show it.
const BLOCK_TRIES: u32 = 50;

/// What the watched tiers share: hashes to indexes, and the run's transactions of each block that was fetched.
#[derive(Debug)]
pub struct Blocks {
    indexes: B256Map<u32>,
    by_number: Mutex<BTreeMap<u64, Vec<u32>>>,
}

impl Blocks {
    pub fn new(hashes: &[B256]) -> Arc<Self> {
        // `TRANSACTIONS_MAX` keeps indexes below 2^32.
        let indexes = hashes.iter().enumerate().map(|(index, &hash)| (hash, index as u32)).collect();
        Arc::new(Self { indexes, by_number: Mutex::default() })
    }

    fn known(&self, hashes: &[B256]) -> Vec<u32> {
        hashes.iter().filter_map(|hash| self.indexes.get(hash)).copied().collect()
    }

    fn put(&self, number: u64, indexes: &[u32]) {
        let mut blocks = self.by_number.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.insert(number, indexes.to_vec());
    }

    fn get(&self, number: u64) -> Option<Vec<u32>> {
        self.by_number.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }
}

/// What the threads of a tier share with the run.
#[derive(Debug)]
struct Shared {
    start: Instant,
    stop: AtomicBool,
    /// Transactions of the run that have arrived.
    seen: AtomicU64,
    /// Of them, those that were executed and reverted, where the tier tells.
    reverted: AtomicU64,
    /// Arrival times by transaction index, written by one thread.
    arrived_ns: Vec<AtomicU64>,
    blocks: Arc<Blocks>,
}

/// A tier being watched.
#[derive(Debug)]
pub struct Watch {
    pub tier: Tier,
    /// How arrivals are noticed, for the report.
    pub source: String,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// A tier that the node does not offer, with the node's answer.
#[derive(Debug)]
pub struct NotOffered(pub String);

/// Arrival times of a tier by transaction index (`NEVER` where there was none), and what went wrong while watching.
#[derive(Debug)]
pub struct Arrivals {
    pub arrived_ns: Vec<u64>,
    /// Executed and reverted, where the tier tells.
    pub reverted: Option<u64>,
    pub problem: Option<String>,
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
    blocks: Arc<Blocks>,
    start: Instant,
) -> Result<std::result::Result<Watch, NotOffered>> {
    let arrived_ns = (0..blocks.indexes.len()).map(|_| AtomicU64::new(NEVER)).collect();
    let (stop, seen, reverted) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let shared = Arc::new(Shared { start, stop, seen, reverted, arrived_ns, blocks });
    match tier {
        Tier::Accepted => unreachable!("the reply itself is this tier"),
        Tier::Preconfirmed => {
            let Some(endpoint) = websocket else {
                return Ok(Err(NotOffered("it needs a WebSocket; name one by --ws-url".into())));
            };
            Ok(match Subscription::open(endpoint, "sequencer_preconfirmations") {
                Ok(Subscribed::Yes(subscription)) => Ok(watch_preconfirmed(shared, *subscription)),
                Ok(Subscribed::No(error)) => Err(NotOffered(error.to_string())),
                Err(error) => Err(NotOffered(error.to_string())),
            })
        }
        Tier::Sealed => match websocket.map(|endpoint| Subscription::open(endpoint, "newHeads")) {
            Some(Ok(Subscribed::Yes(subscription))) => watch_sealed(shared, http, Some(*subscription)).map(Ok),
            _ => watch_sealed(shared, http, None).map(Ok),
        },
        Tier::Safe => watch_safe(shared, http),
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
    let parser = std::thread::spawn(move || {
        for (at_ns, message) in receiver {
            let (hashes, reverted): (Vec<B256>, Vec<bool>) = preconfirmed(&message).into_iter().unzip();
            parsing.arrive(at_ns, &parsing.blocks.known(&hashes));
            let reverted = hashes
                .iter()
                .zip(reverted)
                .filter(|(hash, reverted)| *reverted && parsing.blocks.indexes.contains_key(*hash));
            parsing.reverted.fetch_add(reverted.count() as u64, Ordering::Relaxed);
        }
        Ok(())
    });
    let source = "eth_subscribe sequencer_preconfirmations".into();
    Watch { tier: Tier::Preconfirmed, source, shared, threads: vec![reader, parser] }
}

/// The hashes of one notification, and whether each was reverted.
fn preconfirmed(message: &str) -> Vec<(B256, bool)> {
    #[derive(Deserialize)]
    struct Preconfirmation<'a> {
        #[serde(rename = "transactionHash")]
        transaction_hash: B256,
        status: Option<&'a str>,
    }
    let parsed =
        notification_result(message).and_then(|text| serde_json::from_str::<Vec<Preconfirmation<'_>>>(text).ok());
    parsed.into_iter().flatten().map(|item| (item.transaction_hash, item.status == Some("0x0"))).collect()
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
            let mut poller = RpcClient::new(http.clone());
            let source = format!("eth_blockNumber polled every {HEAD_POLL_MS} ms (no WebSocket there)");
            let ask = move || poller.number("eth_blockNumber", json!([]));
            (source, std::thread::spawn(move || poll_heads(&reading, ask, HEAD_POLL_MS, head, &sender)))
        }
    };
    let fetching = Arc::clone(&shared);
    let fetcher = std::thread::spawn(move || fetch_blocks(&fetching, client, head, receiver));
    Ok(Watch { tier: Tier::Sealed, source, shared, threads: vec![reader, fetcher] })
}

fn watch_safe(shared: Arc<Shared>, http: &Endpoint) -> Result<std::result::Result<Watch, NotOffered>> {
    let mut client = RpcClient::new(http.clone());
    let answer = client.try_call("eth_getBlockByNumber", json!(["safe", false]))?;
    let head = match answer {
        Ok(block) => block.get("number").and_then(rpc::quantity).map(|number: U256| number.saturating_to()),
        Err(error) => return Ok(Err(NotOffered(error.to_string()))),
    };
    let Some(head) = head else { return Ok(Err(NotOffered("the node has no block under the tag safe".into()))) };
    let (sender, receiver) = sync_channel(NOTIFICATIONS_MAX);
    let mut poller = RpcClient::new(http.clone());
    let ask = move || {
        let block = poller.call("eth_getBlockByNumber", json!(["safe", false]))?;
        // A node that loses its safe block in a restart tells the next one later.
        Ok(block.get("number").and_then(rpc::quantity).map_or(0, |number: U256| number.saturating_to()))
    };
    let (reading, fetching) = (Arc::clone(&shared), Arc::clone(&shared));
    let reader = std::thread::spawn(move || poll_heads(&reading, ask, SAFE_POLL_MS, head, &sender));
    let fetcher = std::thread::spawn(move || fetch_blocks(&fetching, client, head, receiver));
    let source = format!("the safe tag polled every {SAFE_POLL_MS} ms");
    Ok(Ok(Watch { tier: Tier::Safe, source, shared, threads: vec![reader, fetcher] }))
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

fn poll_heads(
    shared: &Shared,
    mut ask: impl FnMut() -> Result<u64>,
    pause_ms: u64,
    mut last: u64,
    heads: &SyncSender<Head>,
) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        let number = ask()?;
        if number > last {
            last = number;
            if heads.send(Head { number, hash: None, at_ns: nanoseconds_since(shared.start) }).is_err() {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(pause_ms));
    }
    Ok(())
}

/// Notes the transactions of every block up to each announced head, so that a head that was skipped is not a gap. A block
/// that another tier has fetched is not fetched again.
fn fetch_blocks(shared: &Shared, mut client: RpcClient, mut last: u64, heads: Receiver<Head>) -> Result<()> {
    for head in heads {
        for number in last + 1..=head.number {
            let hash = head.hash.filter(|_| number == head.number);
            let known = if hash.is_none() { shared.blocks.get(number) } else { None };
            let indexes = match known {
                Some(indexes) => indexes,
                None => shared.blocks.known(&block_transactions(&mut client, number, hash)?),
            };
            shared.blocks.put(number, &indexes);
            shared.arrive(head.at_ns, &indexes);
        }
        last = last.max(head.number);
    }
    Ok(())
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
    /// Notes the first arrival of each of these transactions. One thread of a tier does this.
    fn arrive(&self, at_ns: u64, indexes: &[u32]) {
        let mut fresh = 0;
        for &index in indexes {
            let slot = &self.arrived_ns[index as usize];
            if slot.load(Ordering::Relaxed) == NEVER {
                slot.store(at_ns, Ordering::Relaxed);
                fresh += 1;
            }
        }
        self.seen.fetch_add(fresh, Ordering::Relaxed);
    }
}

/// Whether a transaction has arrived at a tier yet, for who sends again.
#[derive(Clone, Debug)]
pub struct Arrived(Arc<Shared>);

impl Arrived {
    pub fn has(&self, index: usize) -> bool {
        self.0.arrived_ns[index].load(Ordering::Relaxed) != NEVER
    }
}

impl Watch {
    /// Transactions of the run that have arrived so far.
    pub fn seen(&self) -> u64 {
        self.shared.seen.load(Ordering::Relaxed)
    }

    pub fn arrived(&self) -> Arrived {
        Arrived(Arc::clone(&self.shared))
    }

    /// Whether a thread has ended early: nothing more will arrive.
    pub fn is_dead(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops watching and hands over what arrived.
    pub fn finish(self) -> Arrivals {
        self.shared.stop.store(true, Ordering::Relaxed);
        let ended: Vec<Result<()>> =
            self.threads.into_iter().map(|t| t.join().expect("watching threads do not panic")).collect();
        let problem = ended.into_iter().filter_map(Result::err).map(|error| error.to_string()).next();
        let arrived_ns = self.shared.arrived_ns.iter().map(|slot| slot.load(Ordering::Relaxed)).collect();
        let tells = self.tier == Tier::Preconfirmed;
        Arrivals { arrived_ns, reverted: tells.then(|| self.shared.reverted.load(Ordering::Relaxed)), problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preconfirmations_come_as_arrays() {
        let hash = B256::repeat_byte(7);
        let item = |status: &str| format!(r#"{{"transactionHash":"{hash}","status":"{status}"}}"#);
        let message = |result: &str| {
            format!(r#"{{"method":"eth_subscription","params":{{"subscription":"0x1","result":{result}}}}}"#)
        };
        let both = preconfirmed(&message(&format!("[{},{}]", item("0x1"), item("0x0"))));
        assert_eq!(both, [(hash, false), (hash, true)]);
        assert!(preconfirmed(&message("[]")).is_empty());
        assert!(preconfirmed(&message("{}")).is_empty());
    }

    #[test]
    fn the_first_arrival_counts() {
        let hashes: Vec<B256> = (0..3).map(B256::repeat_byte).collect();
        let blocks = Blocks::new(&hashes);
        let shared = Shared {
            start: Instant::now(),
            stop: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            reverted: AtomicU64::new(0),
            arrived_ns: (0..3).map(|_| AtomicU64::new(NEVER)).collect(),
            blocks: Arc::clone(&blocks),
        };
        shared.arrive(5, &blocks.known(&[hashes[1], B256::repeat_byte(9)]));
        shared.arrive(8, &blocks.known(&[hashes[1], hashes[2]]));
        let arrived: Vec<u64> = shared.arrived_ns.iter().map(|slot| slot.load(Ordering::Relaxed)).collect();
        assert_eq!(arrived, [NEVER, 5, 8]);
        assert_eq!(shared.seen.load(Ordering::Relaxed), 2);
        blocks.put(4, &[1]);
        assert_eq!((blocks.get(4), blocks.get(5)), (Some(vec![1]), None));
    }
}
