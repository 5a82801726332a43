//! Senders that are stuck, because the pool refused or dropped one of their transactions: found and mended.
//!
//! A thread of its own with a connection of its own, so that nothing measured waits for it. For each sender it remembers the
//! first transaction that is in no block. When that one stands still for a while, the sender's nonce is read again
//! (`latest`), and the transaction with that nonce is sent again if the node does not know it. Latencies are those of the
//! first sending; what was sent again is counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::rpc::RpcClient;
use crate::client::{Endpoint, Protocol};
use crate::engine::Outcomes;
use crate::engine::replies::{Outcome, mask};
use crate::error::{Error, Result};
use crate::fate;
use crate::limits::{MEND_PAUSE_MS, MEND_SENDERS_MAX, RESENDS_MAX, STUCK_MS};
use crate::tiers::Arrived;
use crate::verify::{self, STATUS_METHOD};
use crate::workload::{ConnectionLoad, Meta, NONE, Plan};

/// Members of a group, and so how far ahead of the first open transaction the missing nonce can be.
const GROUP_TURNS_MAX: u64 = 4;

/// What was sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resent {
    pub sent: u64,
    pub accepted: u64,
    /// Why the node did not have them, with how often.
    pub reasons: BTreeMap<String, u64>,
    /// What the node said to those that it refused again.
    pub refusals: BTreeMap<String, u64>,
    /// What cut it short.
    pub problem: Option<String>,
}

/// Everything that the thread needs.
#[derive(Debug)]
pub struct Job {
    pub endpoint: Endpoint,
    pub protocol: Protocol,
    pub plan: Plan,
    pub addresses: Vec<Address>,
    /// Each sender's nonce before the run.
    pub nonces: Vec<u64>,
    pub metas: Arc<Vec<Meta>>,
    pub hashes: Arc<Vec<B256>>,
    pub loads: Vec<Arc<ConnectionLoad>>,
    pub outcomes: Arc<Outcomes>,
    pub sealed: Arrived,
}

#[derive(Debug)]
pub struct Mender {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Resent>,
}

impl Mender {
    pub fn start(job: Job) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || Mending::new(job).run(&stopped));
        Self { stop, thread }
    }

    pub fn finish(self) -> Resent {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().expect("mending does not panic")
    }
}

/// Where one sender stands.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// First turn that is in no block.
    turn: u64,
    since: Instant,
}

struct Mending {
    job: Job,
    turns: Vec<u64>,
    cursors: Vec<Cursor>,
    resends: BTreeMap<usize, u32>,
    resent: Resent,
}

/// A transaction that the node should know and may not.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    account: usize,
    index: usize,
}

impl Mending {
    fn new(job: Job) -> Self {
        let turns = job.plan.transactions_per_account();
        let cursors = vec![Cursor { turn: 0, since: Instant::now() }; job.plan.account_count];
        Self { job, turns, cursors, resends: BTreeMap::new(), resent: Resent::default() }
    }

    fn run(mut self, stop: &AtomicBool) -> Resent {
        let mut client = RpcClient::new(self.job.endpoint.clone());
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(MEND_PAUSE_MS));
            if let Err(error) = self.pass(&mut client) {
                self.resent.problem = Some(error.to_string());
                break;
            }
        }
        self.resent
    }

    fn pass(&mut self, client: &mut RpcClient) -> Result<()> {
        let stuck = self.stuck();
        if stuck.is_empty() {
            return Ok(());
        }
        let addresses: Vec<Address> = stuck.iter().map(|&account| self.job.addresses[account]).collect();
        let nonces = client.nonces(&addresses, "latest")?;
        let found = stuck.iter().zip(nonces).filter_map(|(&account, nonce)| self.suspect(account, nonce));
        let suspects: Vec<Suspect> = found.collect();
        let params: Vec<Value> = suspects.iter().map(|suspect| json!([self.job.hashes[suspect.index]])).collect();
        let known = client.batch("eth_getTransactionByHash", &params)?;
        for (suspect, known) in suspects.into_iter().zip(known) {
            if known.is_ok_and(|value| value.is_null()) {
                self.send_again(client, suspect)?;
            }
            // Whatever came of it: this sender gets time before it is looked at again.
            self.cursors[suspect.account].since = Instant::now();
        }
        Ok(())
    }

    /// Moves the cursors on; the senders that have not moved for long, at most as many as are looked after at once.
    fn stuck(&mut self) -> Vec<usize> {
        let mut stuck = Vec::new();
        for account in 0..self.cursors.len() {
            let before = self.cursors[account].turn;
            let mut turn = before;
            while turn < self.turns[account] && self.is_over(self.job.plan.index_of(account, turn)) {
                turn += 1;
            }
            let cursor = &mut self.cursors[account];
            let waits = turn < self.turns[account]
                && self.job.outcomes.get(self.job.plan.index_of(account, turn)) != Outcome::None;
            if turn > before || !waits {
                *cursor = Cursor { turn, since: Instant::now() };
            } else if cursor.since.elapsed() > Duration::from_millis(STUCK_MS) && stuck.len() < MEND_SENDERS_MAX {
                stuck.push(account);
            }
        }
        stuck
    }

    /// In a block, or replaced by one that is.
    fn is_over(&self, index: usize) -> bool {
        let replaced_by = self.job.metas[index].replaced_by;
        self.job.sealed.has(index) || (replaced_by != NONE && self.job.sealed.has(replaced_by as usize))
    }

    /// The transaction with the nonce that the chain waits for, if it has been answered; the newest where two have that nonce.
    fn suspect(&mut self, account: usize, nonce: u64) -> Option<Suspect> {
        let cursor = self.cursors[account];
        let offset = nonce.checked_sub(self.job.nonces[account])?;
        let first = u64::from(self.job.metas[self.job.plan.index_of(account, cursor.turn)].nonce_offset);
        let end = (cursor.turn + GROUP_TURNS_MAX).min(self.turns[account]);
        let mut found = None;
        for turn in cursor.turn..end {
            let index = self.job.plan.index_of(account, turn);
            if u64::from(self.job.metas[index].nonce_offset) == offset && self.job.outcomes.get(index) != Outcome::None
            {
                found = Some(Suspect { account, index });
            }
        }
        if found.is_none() && offset > first {
            // Its nonce is used, by whatever: this turn will be in no block.
            self.cursors[account] = Cursor { turn: cursor.turn + 1, since: Instant::now() };
        }
        found.filter(|suspect| self.resends.get(&suspect.index).is_none_or(|&count| count < RESENDS_MAX))
    }

    fn send_again(&mut self, client: &mut RpcClient, suspect: Suspect) -> Result<()> {
        let index = suspect.index;
        let (connection, request) = self.job.plan.request_of(index);
        // The protocol of the load, not of this connection: it says how the bytes were laid out.
        let call = self.job.loads[connection].call_of(request, index as u32, self.job.protocol);
        let call = call.ok_or_else(|| Error::Setup(format!("transaction {index} is not in its own request")))?;
        *self.resends.entry(index).or_default() += 1;
        let reason = self.reason(client, index)?;
        *self.resent.reasons.entry(reason).or_default() += 1;
        self.resent.sent += 1;
        let method = call["method"].as_str().unwrap_or_default();
        match client.try_call(method, call["params"].clone())? {
            Ok(_) => self.resent.accepted += 1,
            Err(error) => {
                let refusal = format!("{}: {}", error.code, mask(&error.message));
                *self.resent.refusals.entry(refusal).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Why the node does not know a transaction.
    fn reason(&self, client: &mut RpcClient, index: usize) -> Result<String> {
        match self.job.outcomes.get(index) {
            Outcome::Rejected => Ok("refused at first".to_owned()),
            Outcome::TransportError => Ok("its connection failed".to_owned()),
            Outcome::Accepted | Outcome::None if verify::choose_method(client)? == STATUS_METHOD => {
                let status = client.try_call(STATUS_METHOD, json!([self.job.hashes[index]]))?;
                Ok(status.map_or_else(|error| error.to_string(), |value| fate::of_status(&value)))
            }
            _ => Ok("accepted, then gone from the pool".to_owned()),
        }
    }
}
