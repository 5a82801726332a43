//! The clients' own books: what was acknowledged, what was shown, and whether a later process stands by it.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::B256;
use serde_json::{Value, json};

use super::super::rpc::{Rpc, quantity};
use super::super::workload::Account;
use super::observer::{Seen, hash};
use super::{lasting, place_of};

/// Calls in one batch.
const BATCH_CALLS: usize = 500;
/// Blocks whose hashes are compared after each kill; at the end all are.
const RECENT_BLOCKS: usize = 300;
/// Words of `sequencer_getTransactionStatus` for a transaction without a place that waits for one.
const WAITING: [&str; 3] = ["queued", "ready", "conditional"];
const SEALED: [&str; 3] = ["sealed", "safe", "finalized"];
/// How a transaction may end whose conditions cannot be met any more.
const DROPPED: [&str; 4] = ["expired", "stopped", "evicted", "invalidated"];

/// What a sender does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Everything that it sends must come into a block, or be replaced by its own hand.
    Plain,
    /// Its transactions have conditions, one at a time; they may end without a place.
    Conditional,
}

/// An account, and what it was told.
pub struct Sender {
    pub account: Account,
    pub kind: Kind,
    /// Of a plain sender: nonces of which a transaction was acknowledged.
    pub acknowledged: BTreeSet<u64>,
    /// The first nonce without one.
    pub next: u64,
    /// Sent, and no answer came.
    pub unsure: Vec<(u64, B256)>,
    /// Of a conditional sender: its newest transaction.
    pub newest: Option<B256>,
}

impl Sender {
    pub fn new(account: Account, kind: Kind) -> Self {
        Self { account, kind, acknowledged: BTreeSet::new(), next: 0, unsure: Vec::new(), newest: None }
    }

    pub fn acknowledge(&mut self, nonce: u64) {
        self.acknowledged.insert(nonce);
        while self.acknowledged.remove(&self.next) {
            self.next += 1;
        }
    }

    /// Whether a transaction with this nonce was acknowledged.
    pub fn has(&self, nonce: u64) -> bool {
        nonce < self.next || self.acknowledged.contains(&nonce)
    }

    /// Nonces below an acknowledged one without one of their own.
    pub fn gaps(&self) -> Vec<u64> {
        let Some(last) = self.acknowledged.last() else { return Vec::new() };
        (self.next..*last).filter(|nonce| !self.has(*nonce)).collect()
    }
}

/// What one client was told in one round.
#[derive(Default)]
pub struct Notes {
    pub acknowledged: Vec<B256>,
    pub conditional: Vec<B256>,
    /// Another transaction with the same nonce was sent: one of the two may be replaced.
    pub rivals: Vec<B256>,
    pub receipts: Vec<Value>,
}

/// Everything that was ever told, by any process on the data directory.
#[derive(Default)]
pub struct Ledger {
    pub acknowledged_count: usize,
    /// Preconfirmed receipts that were compared with the receipts of their blocks.
    pub compared_count: usize,
    /// Acknowledged and not known to have ended.
    waiting: BTreeSet<B256>,
    /// Acknowledged, and ended without a place.
    ended: BTreeSet<B256>,
    included: BTreeSet<B256>,
    conditional: BTreeSet<B256>,
    rivals: BTreeSet<B256>,
    /// Announced as placed.
    placed: BTreeSet<B256>,
    places: BTreeMap<B256, (u64, u64)>,
    /// Preconfirmed receipts that are not compared yet.
    receipts: BTreeMap<B256, Value>,
    blocks: BTreeMap<u64, B256>,
}

impl Ledger {
    pub fn acknowledge(&mut self, hash: B256) {
        self.acknowledged_count += usize::from(self.waiting.insert(hash));
    }

    pub fn add(&mut self, notes: Notes) {
        notes.acknowledged.into_iter().for_each(|hash| self.acknowledge(hash));
        self.conditional.extend(notes.conditional);
        self.rivals.extend(notes.rivals);
        notes.receipts.iter().for_each(|receipt| self.add_receipt(receipt));
    }

    pub fn add_seen(&mut self, seen: Seen) {
        seen.blocks.into_iter().for_each(|(number, hash)| self.add_block(number, hash));
        self.placed.extend(seen.placed);
        seen.receipts.iter().for_each(|receipt| self.add_receipt(receipt));
    }

    /// Somebody was shown this receipt.
    #[track_caller]
    pub fn add_receipt(&mut self, receipt: &Value) {
        let hash = hash(&receipt["transactionHash"]);
        self.add_place(hash, place_of(receipt));
        let receipt = lasting(receipt);
        let known = self.receipts.entry(hash).or_insert_with(|| receipt.clone());
        assert_eq!(*known, receipt, "two receipts of {hash}");
    }

    #[track_caller]
    fn add_place(&mut self, hash: B256, place: (u64, u64)) {
        let known = *self.places.entry(hash).or_insert(place);
        assert_eq!(known, place, "block and index of {hash}: first told, then told");
    }

    /// Somebody was shown that this is a block's hash.
    #[track_caller]
    pub fn add_block(&mut self, number: u64, hash: B256) {
        let known = *self.blocks.entry(number).or_insert(hash);
        assert_eq!(known, hash, "hash of block {number}: first told, then told");
    }

    pub fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Whether something with conditions has not ended.
    pub fn is_conditional_waiting(&self) -> bool {
        self.waiting.iter().any(|hash| self.conditional.contains(hash))
    }

    /// Whether every block with a preconfirmed receipt in it is sealed.
    pub fn has_compared_all(&self) -> bool {
        self.receipts.is_empty()
    }

    /// Asks the node for everything that it, or a process before it, stands for.
    pub fn check(&mut self, rpc: &Rpc, senders: &mut [Sender]) {
        self.resolve_unsure(rpc, senders);
        self.check_statuses(rpc);
        self.check_receipts(rpc);
        self.check_blocks(rpc, RECENT_BLOCKS);
        for receipt in rpc.call("eth_getBlockReceipts", json!(["pending"])).as_array().into_iter().flatten() {
            self.add_receipt(receipt);
        }
        let plain = senders.iter().filter(|sender| sender.kind == Kind::Plain);
        let params = plain.clone().map(|sender| json!([sender.account.address, "pending"]));
        let counts = rpc.batch("eth_getTransactionCount", params);
        for (sender, count) in plain.zip(counts) {
            let count = quantity(&count.expect("an address is valid"));
            let address = sender.account.address;
            assert!(count >= sender.next, "pending nonce of {address} is {count}, {} acknowledged", sender.next);
        }
    }

    /// A transaction that got no answer is there or not; from now on it counts as what it is.
    fn resolve_unsure(&mut self, rpc: &Rpc, senders: &mut [Sender]) {
        for sender in senders {
            let unsure = std::mem::take(&mut sender.unsure);
            let statuses = batch(rpc, "sequencer_getTransactionStatus", unsure.iter().map(|(_, hash)| *hash));
            for ((nonce, hash), status) in unsure.into_iter().zip(statuses) {
                if status.is_null() {
                    continue;
                }
                self.acknowledge(hash);
                match sender.kind {
                    Kind::Plain => sender.acknowledge(nonce),
                    Kind::Conditional => {
                        self.conditional.insert(hash);
                        sender.newest = Some(hash);
                    }
                }
            }
        }
    }

    fn check_statuses(&mut self, rpc: &Rpc) {
        let waiting: Vec<B256> = self.waiting.iter().copied().collect();
        let statuses = batch(rpc, "sequencer_getTransactionStatus", waiting.iter().copied());
        for (hash, status) in waiting.into_iter().zip(statuses) {
            assert!(status.is_object(), "{hash} was acknowledged and is unknown now: {status}");
            let state = status["state"].as_str().unwrap_or_default();
            let place = self.places.get(&hash);
            if WAITING.contains(&state) {
                assert!(place.is_none(), "{hash} was at {place:?} and is {state} now");
                assert!(!self.placed.contains(&hash), "{hash} was announced as placed and is {state} now");
            } else if state == "preconfirmed" {
                self.add_place(hash, place_of(&status));
            } else if SEALED.contains(&state) {
                self.add_place(hash, place_of(&status));
                self.add_block(quantity(&status["blockNumber"]), super::observer::hash(&status["blockHash"]));
                self.waiting.remove(&hash);
                self.included.insert(hash);
            } else {
                assert!(place.is_none(), "{hash} was at {place:?} and ended as {status}");
                let is_replaced = state == "replaced" && self.rivals.contains(&hash);
                let is_dropped = DROPPED.contains(&state) && self.conditional.contains(&hash);
                assert!(is_replaced || is_dropped, "{hash} ended without a reason that its sender gave: {status}");
                assert!(is_replaced || status["reason"].is_string(), "an end without a reason: {status}");
                self.waiting.remove(&hash);
                self.ended.insert(hash);
            }
        }
    }

    /// Compares preconfirmed receipts with those of the sealed blocks.
    fn check_receipts(&mut self, rpc: &Rpc) {
        let hashes: Vec<B256> = self.receipts.keys().copied().collect();
        let receipts = batch(rpc, "eth_getTransactionReceipt", hashes.iter().copied());
        for (hash, receipt) in hashes.into_iter().zip(receipts) {
            if receipt.is_object() {
                let shown = self.receipts.remove(&hash);
                assert_eq!(Some(lasting(&receipt)), shown, "receipt of {hash}: sealed, then as it was shown");
                self.add_block(place_of(&receipt).0, super::observer::hash(&receipt["blockHash"]));
                self.compared_count += 1;
            }
        }
    }

    /// Compares the hashes of the newest `count` blocks that anybody saw.
    fn check_blocks(&self, rpc: &Rpc, count: usize) {
        let seen: Vec<(u64, B256)> =
            self.blocks.iter().rev().take(count).map(|(number, hash)| (*number, *hash)).collect();
        for part in seen.chunks(BATCH_CALLS) {
            let numbers = part.iter().map(|(number, _)| json!([format!("{number:#x}"), false]));
            for ((number, shown), block) in part.iter().zip(rpc.batch("eth_getBlockByNumber", numbers)) {
                let block = block.expect("a number is valid");
                assert_eq!(block["hash"], json!(shown), "block {number} was shown with another hash");
            }
        }
    }

    /// After everything has ended: every block, every place, every transaction once. Returns how many blocks there are.
    pub fn check_whole_chain(&self, rpc: &Rpc) -> u64 {
        assert!(self.receipts.is_empty(), "preconfirmed receipts of no block: {:?}", self.receipts.keys());
        self.check_blocks(rpc, usize::MAX);
        let latest = rpc.quantity("eth_blockNumber", json!([]));
        let mut found = BTreeMap::new();
        let numbers: Vec<u64> = (1..=latest).collect();
        for part in numbers.chunks(100) {
            let blocks = rpc.batch("eth_getBlockByNumber", part.iter().map(|n| json!([format!("{n:#x}"), false])));
            for (number, block) in part.iter().zip(blocks) {
                let block = block.expect("a number is valid");
                for (index, tx) in (0..).zip(block["transactions"].as_array().expect("a list of transactions")) {
                    let earlier = found.insert(hash(tx), (*number, index));
                    assert_eq!(earlier, None, "{tx} is in two blocks");
                }
            }
        }
        for (hash, place) in &self.places {
            assert_eq!(found.get(hash), Some(place), "{hash}: in the chain, then as it was shown");
        }
        for hash in &self.included {
            assert!(found.contains_key(hash), "{hash} is in no block");
        }
        for hash in &self.ended {
            assert!(!found.contains_key(hash), "{hash} ended and is in a block");
        }
        for hash in &self.placed {
            assert!(found.contains_key(hash), "{hash} was announced as placed and is in no block");
        }
        latest
    }
}

/// One call for each hash, in batches that a node takes.
fn batch(rpc: &Rpc, method: &str, hashes: impl Iterator<Item = B256>) -> Vec<Value> {
    let hashes: Vec<B256> = hashes.collect();
    let mut results = Vec::with_capacity(hashes.len());
    for part in hashes.chunks(BATCH_CALLS) {
        let answers = rpc.batch(method, part.iter().map(|hash| json!([hash])));
        results.extend(answers.into_iter().map(|answer| answer.unwrap_or_else(|error| panic!("{method}: {error:?}"))));
    }
    results
}
