//! Workloads: (plan, accounts' nonces) → signed transactions laid out as ready HTTP requests, per connection.
//!
//! Transaction `t` belongs to request `t / batch`; request `j` goes over connection `j % connections`; each connection
//! owns the accounts with the same remainder and takes them in turn. So every transaction of a sender travels over one
//! connection, in nonce order, and everything is a function of the plan alone.

pub mod accounts;

pub mod contracts;

pub mod transaction;

use std::fmt;
use std::str::FromStr;

use alloy_primitives::{Address, B256, Bytes, U256, hex};
use serde::{Deserialize, Serialize};

use self::accounts::Account;
use self::transaction::Transaction;
use crate::client::{Endpoint, http};
use crate::rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Transfer,
    Erc20,
    Storage,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Transfer, Self::Erc20, Self::Storage];

    const fn name(self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::Erc20 => "erc20",
            Self::Storage => "storage",
        }
    }
}

/// Gas limits by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GasLimits {
    pub transfer: u64,
    pub erc20: u64,
    pub storage: u64,
}

impl GasLimits {
    pub const fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Transfer => self.transfer,
            Kind::Erc20 => self.erc20,
            Kind::Storage => self.storage,
        }
    }
}

impl Default for GasLimits {
    /// On Osaka: the intrinsic gas of a plain transfer, and about a tenth above the cost of a new recipient (52,000) and of
    /// a new slot (45,000).
    fn default() -> Self {
        Self { transfer: 21_000, erc20: 60_000, storage: 50_000 }
    }
}

/// Shares of the kinds in percent; the sum is 100.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Kind, u64)>);

impl Mix {
    pub fn contains(&self, kind: Kind) -> bool {
        self.0.iter().any(|&(k, _)| k == kind)
    }

    fn kind(&self, draw: u64) -> Kind {
        let mut below = 0;
        for &(kind, percent) in &self.0 {
            below += percent;
            if draw < below {
                return kind;
            }
        }
        unreachable!("draws are below 100 and shares add up to 100")
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kind = |name: &str| {
            let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
            found.ok_or_else(|| format!("{name:?} is not a workload; there are transfer, erc20, storage and mix:…"))
        };
        let Some(list) = text.strip_prefix("mix:") else { return Ok(Self(vec![(kind(text)?, 100)])) };
        let mut shares: Vec<(Kind, u64)> = Vec::new();
        for item in list.split(',') {
            let (name, percent) = item.split_once('=').ok_or("a mix looks like mix:transfer=70,erc20=20,storage=10")?;
            let kind = kind(name)?;
            if shares.iter().any(|&(k, _)| k == kind) {
                return Err(format!("{name} is named twice"));
            }
            let percent: u64 = percent.parse().map_err(|_| format!("{percent:?} is not a whole number of percent"))?;
            if percent > 0 {
                shares.push((kind, percent));
            }
        }
        match shares.iter().try_fold(0u64, |sum, &(_, percent)| sum.checked_add(percent)) {
            Some(100) => Ok(Self(shares)),
            sum => Err(format!("the shares of a mix must add up to 100, not {}", sum.unwrap_or(u64::MAX))),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(kind, _)] = self.0.as_slice() {
            return f.write_str(kind.name());
        }
        let shares: Vec<String> = self.0.iter().map(|(kind, percent)| format!("{}={percent}", kind.name())).collect();
        write!(f, "mix:{}", shares.join(","))
    }
}

/// What to send; everything but the accounts' state.
#[derive(Clone, Debug)]
pub struct Plan {
    pub mix: Mix,
    pub seed: u64,
    pub transaction_count: usize,
    pub account_count: usize,
    pub recipient_count: u64,
    pub storage_key_count: u64,
    pub connection_count: usize,
    /// Calls per request; 1 sends single calls, not batches of one.
    pub batch: usize,
}

impl Plan {
    pub fn request_count(&self) -> usize {
        self.transaction_count.div_ceil(self.batch)
    }

    /// Where transaction `index` belongs: its connection, account, and how many of the account come before it.
    fn place(&self, index: usize) -> Place {
        let request = index / self.batch;
        let connection = request % self.connection_count;
        let turn = request / self.connection_count * self.batch + index % self.batch;
        let owned = self.accounts_of(connection);
        Place { account: connection + turn % owned * self.connection_count, nonce_offset: (turn / owned) as u64 }
    }

    /// How many accounts a connection owns: those with its remainder.
    fn accounts_of(&self, connection: usize) -> usize {
        (self.account_count - connection).div_ceil(self.connection_count)
    }

    /// Transactions of each account, in account order.
    pub fn transactions_per_account(&self) -> Vec<u64> {
        let mut counts = vec![0; self.account_count];
        for index in 0..self.transaction_count {
            counts[self.place(index).account] += 1;
        }
        counts
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    account: usize,
    nonce_offset: u64,
}

/// The state of the chain that signing needs.
#[derive(Clone, Debug)]
pub struct Chain {
    pub chain_id: u64,
    pub max_fee_per_gas_wei: u128,
    pub tip_wei: u128,
    pub gas_limits: GasLimits,
    /// Next nonce of each account.
    pub nonces: Vec<u64>,
    pub token: Address,
    pub storage: Address,
}

/// One request in a connection's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where it ends in the connection's bytes; it starts where the one before ends.
    pub end: usize,
    /// Index of its first transaction; the others follow.
    pub first: u32,
    pub count: u32,
}

/// Everything that one connection sends, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionLoad {
    pub bytes: Vec<u8>,
    pub requests: Vec<Request>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub connections: Vec<ConnectionLoad>,
    /// Transaction hashes by index.
    pub hashes: Vec<B256>,
}

/// Signs everything and lays it out; uses every core, since nothing is measured yet.
pub fn prepare(plan: &Plan, chain: &Chain, accounts: &[Account], endpoint: &Endpoint) -> Prepared {
    assert_eq!(accounts.len(), plan.account_count, "one key per account");
    assert!(plan.connection_count <= plan.account_count, "each connection needs an account of its own");
    let thread_count = std::thread::available_parallelism().map_or(1, usize::from);
    let recipients: Vec<Address> = (0..plan.recipient_count).map(|i| accounts::recipient(plan.seed, i)).collect();
    let context = Context { plan, chain, accounts, recipients: &recipients, endpoint };
    let mut connections = vec![ConnectionLoad::default(); plan.connection_count];
    let mut hashes = vec![B256::ZERO; plan.transaction_count];
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..thread_count)
            .map(|worker| {
                let context = &context;
                scope.spawn(move || -> Vec<(usize, ConnectionLoad, Vec<B256>)> {
                    let own = (worker..context.plan.connection_count).step_by(thread_count);
                    own.map(|connection| context.prepare_connection(connection)).collect()
                })
            })
            .collect();
        for worker in workers {
            for (connection, load, own_hashes) in worker.join().expect("signing threads do not panic") {
                let indexes = load.requests.iter().flat_map(|r| r.first..r.first + r.count);
                for (index, hash) in indexes.zip(own_hashes) {
                    hashes[index as usize] = hash;
                }
                connections[connection] = load;
            }
        }
    });
    Prepared { connections, hashes }
}

struct Context<'a> {
    plan: &'a Plan,
    chain: &'a Chain,
    accounts: &'a [Account],
    recipients: &'a [Address],
    endpoint: &'a Endpoint,
}

impl Context<'_> {
    fn prepare_connection(&self, connection: usize) -> (usize, ConnectionLoad, Vec<B256>) {
        let plan = self.plan;
        let mut load = ConnectionLoad::default();
        let mut hashes = Vec::new();
        let mut body = Vec::new();
        for request in (connection..plan.request_count()).step_by(plan.connection_count) {
            let first = request * plan.batch;
            let last = (first + plan.batch).min(plan.transaction_count);
            body.clear();
            for index in first..last {
                if plan.batch > 1 {
                    body.push(if index == first { b'[' } else { b',' });
                }
                hashes.push(self.write_call(index, &mut body));
            }
            if plan.batch > 1 {
                body.push(b']');
            }
            http::write_post(&mut load.bytes, &self.endpoint.authority, &self.endpoint.path, &body);
            // `TRANSACTIONS_MAX` keeps indexes far below 2^32.
            load.requests.push(Request { end: load.bytes.len(), first: first as u32, count: (last - first) as u32 });
        }
        (connection, load, hashes)
    }

    /// Appends the call that sends transaction `index`; its id is the index.
    fn write_call(&self, index: usize, body: &mut Vec<u8>) -> B256 {
        let (transaction, account) = self.transaction(index);
        let (bytes, hash) = transaction.sign(&account.key);
        body.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        body.extend_from_slice(index.to_string().as_bytes());
        body.extend_from_slice(b",\"method\":\"eth_sendRawTransaction\",\"params\":[\"0x");
        body.extend_from_slice(hex::encode(&bytes).as_bytes());
        body.extend_from_slice(b"\"]}");
        hash
    }

    fn transaction(&self, index: usize) -> (Transaction, &Account) {
        let plan = self.plan;
        let place = plan.place(index);
        // Three draws per transaction: kind, recipient, storage key.
        let draw = |which: u64, bound: u64| rng::below(plan.seed, index as u64 * 3 + which, bound);
        let kind = plan.mix.kind(draw(0, 100));
        let recipient = self.recipients[draw(1, plan.recipient_count) as usize];
        let (to, value_wei, input) = match kind {
            Kind::Transfer => (recipient, U256::ONE, Bytes::new()),
            Kind::Erc20 => (self.chain.token, U256::ZERO, contracts::token_transfer(recipient, U256::ONE)),
            Kind::Storage => {
                let key = U256::from(draw(2, plan.storage_key_count));
                (self.chain.storage, U256::ZERO, contracts::storage_set(key, U256::from(index + 1)))
            }
        };
        let transaction = Transaction {
            chain_id: self.chain.chain_id,
            nonce: self.chain.nonces[place.account] + place.nonce_offset,
            max_priority_fee_per_gas_wei: self.chain.tip_wei,
            max_fee_per_gas_wei: self.chain.max_fee_per_gas_wei,
            gas_limit: self.chain.gas_limits.of(kind),
            to: Some(to),
            value_wei,
            input,
        };
        (transaction, &self.accounts[place.account])
    }
}

#[cfg(test)]
mod tests;
