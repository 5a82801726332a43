//! Workloads: (plan, accounts' nonces) → signed transactions laid out as ready HTTP requests, per connection.
//!
//! Transaction `t` belongs to request `t / batch`; request `j` goes over connection `j % connections`; each connection
//! owns the accounts with the same remainder and takes them in turn. So every transaction of a sender travels over one
//! connection, in nonce order (the groups of `nonce-gap` and `replacement` apart), and everything is a function of the plan alone.

pub mod accounts;

pub mod contracts;

pub mod mix;

pub mod transaction;

pub mod turns;

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, U256, hex};

use self::accounts::Account;
pub use self::mix::{GasLimits, Kind, Mix};
use self::transaction::Transaction;
use self::turns::{Part, Turn, Turns};
use crate::client::{Endpoint, Protocol, frames, http};
use crate::rng;

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

    /// The `turn`-th transaction of an account: the inverse of `place`.
    pub fn index_of(&self, account: usize, turn: u64) -> usize {
        let connection = account % self.connection_count;
        let on_connection = account / self.connection_count + turn as usize * self.accounts_of(connection);
        let request = on_connection / self.batch * self.connection_count + connection;
        request * self.batch + on_connection % self.batch
    }

    /// Where the request of a transaction lies: its connection, and its place on it.
    pub fn request_of(&self, index: usize) -> (usize, usize) {
        let request = index / self.batch;
        (request % self.connection_count, request / self.connection_count)
    }

    /// Calls `visit` with every transaction of a connection in the order sent: its index, its account and its turn.
    fn walk(&self, connection: usize, mut visit: impl FnMut(usize, usize, Turn)) {
        let counts = self.transactions_of(connection);
        let mut turns: Vec<Turns> = counts.into_iter().map(Turns::new).collect();
        for request in (connection..self.request_count()).step_by(self.connection_count) {
            let first = request * self.batch;
            for index in first..(first + self.batch).min(self.transaction_count) {
                let account = self.place(index).account;
                let draw = || self.mix.kind(rng::below(self.seed, index as u64 * 3, self.mix.draw_count()));
                visit(index, account, turns[account / self.connection_count].next(draw));
            }
        }
    }

    /// Transactions of each account of a connection.
    fn transactions_of(&self, connection: usize) -> Vec<u64> {
        let mut counts = vec![0; self.accounts_of(connection)];
        for request in (connection..self.request_count()).step_by(self.connection_count) {
            let first = request * self.batch;
            for index in first..(first + self.batch).min(self.transaction_count) {
                counts[self.place(index).account / self.connection_count] += 1;
            }
        }
        counts
    }

    /// Gas that each account pays for at most, by account.
    pub fn gas_per_account(&self, limits: &GasLimits) -> Vec<u64> {
        let mut gas = vec![0; self.account_count];
        for connection in 0..self.connection_count {
            self.walk(connection, |_, account, turn| gas[account] += limits.of(turn.kind));
        }
        gas
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
    /// Whether the node has `eth_sendRawTransactionConditional`; without it those transactions go without their conditions.
    pub conditional: bool,
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

/// No transaction.
pub const NONE: u32 = u32::MAX;

/// What the run has to know of a transaction beside its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Distance from the sender's first nonce.
    pub nonce_offset: u32,
    /// The transaction that fills the gap in front of this one; its own index where there is none.
    pub ready_with: u32,
    /// The transaction that takes its place; `NONE` where there is none.
    pub replaced_by: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub connections: Vec<Arc<ConnectionLoad>>,
    /// Transaction hashes by index.
    pub hashes: Vec<B256>,
    pub metas: Vec<Meta>,
}

impl ConnectionLoad {
    /// The call that sends transaction `index`, read back from the bytes of its request.
    pub fn call_of(&self, request: usize, index: u32, protocol: Protocol) -> Option<serde_json::Value> {
        let start = request.checked_sub(1).map_or(0, |before| self.requests[before].end);
        let bytes = &self.bytes[start..self.requests.get(request)?.end];
        let body = match protocol {
            Protocol::Http => bytes[bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4..].to_vec(),
            Protocol::WebSocket => frames::unmask(bytes),
        };
        let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
        match body {
            serde_json::Value::Array(calls) => calls.into_iter().find(|call| call["id"] == index),
            call => Some(call).filter(|call| call["id"] == index),
        }
    }
}

/// Signs everything and lays it out; uses every core, since nothing is measured yet. Connection c goes to target c modulo
/// their number.
pub fn prepare(plan: &Plan, chain: &Chain, accounts: &[Account], targets: &[Endpoint]) -> Prepared {
    assert_eq!(accounts.len(), plan.account_count, "one key per account");
    assert!(plan.connection_count <= plan.account_count, "each connection needs an account of its own");
    let thread_count = std::thread::available_parallelism().map_or(1, usize::from);
    let recipients: Vec<Address> = (0..plan.recipient_count).map(|i| accounts::recipient(plan.seed, i)).collect();
    let context = Context { plan, chain, accounts, recipients: &recipients, targets };
    let mut connections = vec![Arc::default(); plan.connection_count];
    let mut hashes = vec![B256::ZERO; plan.transaction_count];
    let mut metas = vec![Meta { nonce_offset: 0, ready_with: NONE, replaced_by: NONE }; plan.transaction_count];
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..thread_count)
            .map(|worker| {
                let context = &context;
                scope.spawn(move || -> Vec<(usize, ConnectionLoad, Vec<Signed>)> {
                    let own = (worker..context.plan.connection_count).step_by(thread_count);
                    own.map(|connection| context.prepare_connection(connection)).collect()
                })
            })
            .collect();
        for worker in workers {
            for (connection, load, signed) in worker.join().expect("signing threads do not panic") {
                for signed in signed {
                    hashes[signed.index] = signed.hash;
                    metas[signed.index] = signed.meta;
                }
                connections[connection] = Arc::new(load);
            }
        }
    });
    Prepared { connections, hashes, metas }
}

struct Signed {
    index: usize,
    hash: B256,
    meta: Meta,
}

struct Context<'a> {
    plan: &'a Plan,
    chain: &'a Chain,
    accounts: &'a [Account],
    recipients: &'a [Address],
    targets: &'a [Endpoint],
}

impl Context<'_> {
    fn prepare_connection(&self, connection: usize) -> (usize, ConnectionLoad, Vec<Signed>) {
        let plan = self.plan;
        let target = &self.targets[connection % self.targets.len()];
        let mut load = ConnectionLoad::default();
        let mut signed: Vec<Signed> = Vec::new();
        // Members of each account's group that has begun, as places in `signed`.
        let mut groups = vec![Vec::new(); plan.accounts_of(connection)];
        let mut body = Vec::new();
        plan.walk(connection, |index, account, turn| {
            let at = index % plan.batch;
            let is_last = at + 1 == plan.batch || index + 1 == plan.transaction_count;
            if plan.batch > 1 {
                body.push(if at == 0 { b'[' } else { b',' });
            }
            let hash = self.write_call(index, account, turn, &mut body);
            // `TRANSACTIONS_MAX` keeps indexes and nonces far below 2^32.
            let meta = Meta { nonce_offset: turn.nonce_offset as u32, ready_with: index as u32, replaced_by: NONE };
            let group = &mut groups[account / plan.connection_count];
            note_group(&mut signed, group, turn.part, index as u32);
            if matches!(turn.part, Part::Gapped | Part::Original | Part::Replacement) {
                group.push(signed.len());
            }
            signed.push(Signed { index, hash, meta });
            if is_last {
                if plan.batch > 1 {
                    body.push(b']');
                }
                write_request(&mut load.bytes, target, &body, rng::number(plan.seed, index as u64));
                let request = Request { end: load.bytes.len(), first: (index - at) as u32, count: at as u32 + 1 };
                load.requests.push(request);
                body.clear();
            }
        });
        (connection, load, signed)
    }

    /// Appends the call that sends transaction `index`; its id is the index.
    fn write_call(&self, index: usize, account: usize, turn: Turn, body: &mut Vec<u8>) -> B256 {
        let transaction = self.transaction(index, account, turn);
        let (bytes, hash) = transaction.sign(&self.accounts[account].key);
        let conditional = turn.kind == Kind::Conditional && self.chain.conditional;
        body.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        body.extend_from_slice(index.to_string().as_bytes());
        body.extend_from_slice(b",\"method\":\"eth_sendRawTransaction");
        body.extend_from_slice(if conditional { b"Conditional\",\"params\":[\"0x" } else { b"\",\"params\":[\"0x" });
        body.extend_from_slice(hex::encode(&bytes).as_bytes());
        body.push(b'"');
        if conditional {
            body.extend_from_slice(self.conditions().as_bytes());
        }
        body.extend_from_slice(b"]}");
        hash
    }

    /// Conditions that hold: both ranges, and a slot that nobody writes.
    fn conditions(&self) -> String {
        let (storage, slot, zero) = (self.chain.storage, B256::repeat_byte(0xff), B256::ZERO);
        format!(
            ",{{\"blockNumberMin\":\"0x0\",\"timestampMin\":\"0x0\",\"knownAccounts\":{{\"{storage:#x}\":{{\"{slot}\":\"{zero}\"}}}}}}"
        )
    }

    fn transaction(&self, index: usize, account: usize, turn: Turn) -> Transaction {
        let (plan, chain) = (self.plan, self.chain);
        // Three draws per transaction: kind (in `walk`), recipient, storage key.
        let draw = |which: u64, bound: u64| rng::below(plan.seed, index as u64 * 3 + which, bound);
        let recipient = self.recipients[draw(1, plan.recipient_count) as usize];
        let number = U256::from(index + 1);
        let (to, value_wei, input) = match turn.kind {
            Kind::Transfer | Kind::Conditional | Kind::NonceGap | Kind::Replacement => {
                (Some(recipient), U256::ONE, Bytes::new())
            }
            Kind::Erc20 => (Some(chain.token), U256::ZERO, contracts::token_transfer(recipient, U256::ONE)),
            Kind::Revert => (Some(chain.token), U256::ZERO, contracts::token_transfer(recipient, U256::MAX)),
            Kind::Storage => {
                let key = U256::from(draw(2, plan.storage_key_count));
                (Some(chain.storage), U256::ZERO, contracts::storage_set(key, number))
            }
            Kind::Hot => (Some(chain.storage), U256::ZERO, contracts::storage_set(U256::MAX, number)),
            Kind::Deploy => (None, U256::ZERO, contracts::storage_creation_code()),
        };
        let fee = |wei: u128| if turn.part == Part::Replacement { replacement_fee_wei(wei) } else { wei };
        Transaction {
            chain_id: chain.chain_id,
            nonce: chain.nonces[account] + turn.nonce_offset,
            max_priority_fee_per_gas_wei: fee(chain.tip_wei),
            max_fee_per_gas_wei: fee(chain.max_fee_per_gas_wei),
            gas_limit: chain.gas_limits.of(turn.kind),
            to,
            value_wei,
            input,
        }
    }
}

/// An eighth more, and more than nothing: nodes ask for a tenth more of both fees.
pub const fn replacement_fee_wei(wei: u128) -> u128 {
    wei.saturating_add(wei / 8).saturating_add(1)
}

/// When the last member of a group comes, the others learn what they wait for; a replacement tells its original.
fn note_group(signed: &mut [Signed], group: &mut Vec<usize>, part: Part, index: u32) {
    match part {
        Part::Replacement => {
            let original = *group.last().expect("a replacement follows its original");
            signed[original].meta.replaced_by = index;
        }
        Part::Filler => group.drain(..).for_each(|member| signed[member].meta.ready_with = index),
        Part::Single | Part::Gapped | Part::Original => {}
    }
}

fn write_request(out: &mut Vec<u8>, target: &Endpoint, body: &[u8], draw: u64) {
    match target.protocol {
        Protocol::Http => http::write_post(out, &target.authority, &target.path, body),
        // The upper half of the draw masks the frame.
        Protocol::WebSocket => frames::write(out, frames::TEXT, ((draw >> 32) as u32).to_be_bytes(), body),
    }
}

#[cfg(test)]
mod tests;
