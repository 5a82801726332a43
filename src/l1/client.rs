//! L1 over JSON-RPC: several endpoints, none of them believed.
//!
//! ```text
//!  endpoints ─► wire ─► parse: hash, transactions root, receipts root ─► L1Client ─► Follower ─► blocks, rewinds, finality
//! ```
//!
//! Runs on: a tokio runtime of the control side. What derivation reads is proven by bytes: a header has the hash that its successor names,
//! transactions and receipts have the header's roots. What bytes cannot prove is which chain is L1's: the parent links begin at the genesis's
//! `l1Start`, and where there are several endpoints two have to agree: on every block ([`next`]), and on what else no bytes prove ([`agreement`]).
//! An endpoint that bytes disprove is not asked for ten minutes, and the evidence is logged; when nobody else is left, for three seconds. Errors
//! are values. One [`L1Client`] makes one call at a time: who follows and who sends have one each. Deliberately absent: proofs of accounts, light
//! clients.

mod agreement;

pub mod error;

mod next;

pub mod parse;

pub mod transport;

pub mod wire;

pub mod follow;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use tokio_rustls::TlsConnector;

use crate::crypto::keccak::keccak256;
use crate::l1::block::{BlockId, CheckedBlock, L1Header};
use crate::l1::tx_manager::types::SendOutcome;
use crate::metrics::L1ClientMeter;
use crate::primitives::{Address, B256, Bytes, U256};

use self::error::{ClientError, EndpointError, Lie, UrlError};
use self::next::{Found, Withheld};
use self::transport::Transport;
use self::wire::{Url, Wire};

pub use self::next::Successor;

const NS_PER_S: u64 = 1_000_000_000;
/// How long an endpoint that lied is not asked.
const QUARANTINE_NS: u64 = 600 * NS_PER_S;
/// The same when there is nobody else to ask.
const QUARANTINE_ALONE_NS: u64 = 3 * NS_PER_S;
/// First and longest pause after a call that did not arrive.
const BACKOFF_NS: u64 = NS_PER_S / 4;
const BACKOFF_NS_MAX: u64 = 5 * NS_PER_S;
/// Least calldata that EXECUTE reads: its fixed fields, and empty parts.
const EXECUTE_CALL_BYTES_MIN: usize = 180;
/// Endpoints of one client: each is asked in turn.
const ENDPOINTS_MAX: usize = 16;
/// Transactions and their bytes in a block that is read piece by piece: a block of 600 Mgas of transfers has 28,571.
const COLLECTED_TXS_MAX: usize = 65_536;
const COLLECTED_BYTES_MAX: usize = 128 << 20;
/// How long pieces of one block are asked for in one go, in longest waits for one answer.
const COLLECTED_CALLS_MAX: u32 = 12;

/// Where L1 is.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// `http` and `https` are asked, the first one first; `ws` and `wss` say when there is a new head.
    pub urls: Vec<Url>,
    pub chain_id: u64,
    /// Longest wait for one answer.
    pub call_ns_max: u64,
    /// How often the head is asked for when no WebSocket says that there is a new one.
    pub poll_ns: u64,
    /// Of the thread that all clients of these settings run on.
    pub meter: Arc<L1ClientMeter>,
}

struct Endpoint<T> {
    wire: T,
    /// It has said that it is on the right chain.
    is_known: bool,
    /// Whether it has `debug_getRawBlock`; asked once.
    has_raw_blocks: bool,
    lied_at_ns: Option<u64>,
    failures: u32,
    retry_at_ns: u64,
    /// Calls in a row that it did not answer, while another one answered: where nobody does, it is not the endpoint.
    missed: u32,
    /// The head that it named last.
    announced: Option<BlockId>,
    withheld: Option<Withheld>,
    /// It was too slow to be asked for its head beside others; for all else it is as good as before.
    slow_until_ns: u64,
    /// Transactions of a block that is read piece by piece, as far as its time went; the next try goes on behind them.
    collected: (B256, Vec<Bytes>),
}

/// See the module's text.
pub struct L1Client<T = Wire> {
    chain_id: u64,
    call_max: Duration,
    poll_ns: u64,
    endpoints: Vec<Endpoint<T>>,
    /// Blocks behind the newest that one endpoint each has.
    unseconded: Vec<Found>,
    /// For the subscription of a follower.
    watch: Option<(Url, TlsConnector)>,
    meter: Arc<L1ClientMeter>,
}

impl<T: Transport> Endpoint<T> {
    fn new(wire: T) -> Self {
        let collected = (B256::ZERO, Vec::new());
        let (is_known, has_raw_blocks, lied_at_ns) = (false, true, None);
        let (failures, retry_at_ns, missed, slow_until_ns) = (0, 0, 0, 0);
        Self {
            wire,
            is_known,
            has_raw_blocks,
            lied_at_ns,
            failures,
            retry_at_ns,
            missed,
            announced: None,
            withheld: None,
            slow_until_ns,
            collected,
        }
    }

    async fn json(&mut self, method: &str, params: &str, limit: Duration) -> Result<Value, EndpointError> {
        let raw = self.wire.call(method, params, limit).await?;
        serde_json::from_str(raw.get()).map_err(|error| self.malformed(method, error.to_string()))
    }

    fn malformed(&self, method: &str, what: String) -> EndpointError {
        EndpointError::Malformed { endpoint: self.wire.name(), method: method.to_owned(), what }
    }

    fn lied(&self, lie: Lie) -> EndpointError {
        EndpointError::Lied { endpoint: self.wire.name(), lie }
    }

    /// Asks once which chain it serves.
    async fn meet(&mut self, chain_id: u64, limit: Duration) -> Result<(), EndpointError> {
        if self.is_known {
            return Ok(());
        }
        let answer = self.quantity("eth_chainId", "[]", limit).await?;
        let got = u64::try_from(answer).unwrap_or(u64::MAX);
        if got != chain_id {
            return Err(self.lied(Lie::ChainId { expected: chain_id, got }));
        }
        self.is_known = true;
        Ok(())
    }

    async fn quantity(&mut self, method: &str, params: &str, limit: Duration) -> Result<U256, EndpointError> {
        let json = self.json(method, params, limit).await?;
        parse::quantity_answer(&json).map_err(|what| self.malformed(method, what))
    }

    /// The block of a number or a tag, as the endpoint names it.
    async fn id(&mut self, block: &str, limit: Duration) -> Result<Option<BlockId>, EndpointError> {
        let json = self.json("eth_getBlockByNumber", &format!(r#"["{block}",false]"#), limit).await?;
        parse::json_id(&json).map_err(|lie| self.lied(lie))
    }

    async fn block(&mut self, number: u64, limit: Duration) -> Result<Option<CheckedBlock>, EndpointError> {
        let raw = if self.has_raw_blocks { self.raw_block(number, limit).await } else { Ok(None) };
        let raw = match raw {
            Err(error) if error.is_method_missing() => {
                self.has_raw_blocks = false;
                None
            }
            raw => raw?,
        };
        let block = match raw {
            Some(block) => block,
            // What was missing may be the block or the method.
            None => match self.collected_block(number, limit).await? {
                Some(block) => block,
                None => return Ok(None),
            },
        };
        if block.header.number != number {
            return Err(self.lied(Lie::OtherBlock { asked: number.to_string(), got: block.header.id() }));
        }
        if !block.needs_receipts() {
            return Ok(Some(block.without_receipts()));
        }
        let params = format!(r#"["{}"]"#, block.header.hash);
        let json = self.json("eth_getBlockReceipts", &params, limit).await?;
        if json.is_null() {
            // Reorganised away between the two calls.
            return Ok(None);
        }
        parse::receipts(block, &json).map(Some).map_err(|lie| self.lied(lie))
    }

    async fn raw_block(&mut self, number: u64, limit: Duration) -> Result<Option<parse::RawBlock>, EndpointError> {
        let method = "debug_getRawBlock";
        let json = match self.json(method, &format!(r#"["{number:#x}"]"#), limit).await {
            // go-ethereum answers a number that it does not have with an error.
            Err(EndpointError::Rpc { message, .. }) if message.contains("not found") => return Ok(None),
            answer => answer?,
        };
        if json.is_null() {
            return Ok(None);
        }
        let bytes = parse::data_answer(&json).map_err(|what| self.malformed(method, what))?;
        parse::raw_block(&bytes).map(Some).map_err(|lie| self.lied(lie))
    }

    /// A block from its header in JSON and its transactions one by one, where `debug` is off.
    async fn collected_block(
        &mut self,
        number: u64,
        limit: Duration,
    ) -> Result<Option<parse::RawBlock>, EndpointError> {
        let deadline_ns = self.wire.now_ns().saturating_add(limit.as_nanos() as u64 * u64::from(COLLECTED_CALLS_MAX));
        let Some((header, hashes)) = self.header(number, limit).await? else { return Ok(None) };
        if hashes.len() > COLLECTED_TXS_MAX {
            return Err(self.lied(Lie::TooLarge { block: header.id(), transactions: hashes.len(), bytes: 0 }));
        }
        let (of, had) = std::mem::take(&mut self.collected);
        let mut transactions = if of == header.hash { had } else { Vec::with_capacity(hashes.len()) };
        let result = self.collect(header, &hashes, deadline_ns, limit, &mut transactions).await;
        if matches!(result, Err(EndpointError::TimedOut { .. })) {
            self.collected = (header.hash, transactions);
            return result.map(|_| None);
        }
        if !result? {
            return Ok(None);
        }
        let block = parse::check_transactions(parse::RawBlock { header, transactions });
        block.map(Some).map_err(|lie| self.lied(lie))
    }

    /// Asks for what is missing of `transactions`; `false`: the endpoint has one of them no longer.
    async fn collect(
        &mut self,
        header: L1Header,
        hashes: &[B256],
        deadline_ns: u64,
        limit: Duration,
        transactions: &mut Vec<Bytes>,
    ) -> Result<bool, EndpointError> {
        let method = "eth_getRawTransactionByHash";
        let mut bytes: usize = transactions.iter().map(|raw| raw.len()).sum();
        for hash in hashes.iter().skip(transactions.len()) {
            let left = Duration::from_nanos(deadline_ns.saturating_sub(self.wire.now_ns()));
            if left.is_zero() {
                let limit_ms = limit.as_millis() as u64 * u64::from(COLLECTED_CALLS_MAX);
                return Err(EndpointError::TimedOut {
                    endpoint: self.wire.name(),
                    method: method.to_owned(),
                    limit_ms,
                });
            }
            let json = self.json(method, &format!(r#"["{hash}"]"#), limit.min(left)).await?;
            if json.is_null() {
                return Ok(false);
            }
            let raw = parse::data_answer(&json).map_err(|what| self.malformed(method, what))?;
            bytes += raw.len();
            let (block, computed) = (header.id(), keccak256(&raw));
            if bytes > COLLECTED_BYTES_MAX {
                return Err(self.lied(Lie::TooLarge { block, transactions: hashes.len(), bytes }));
            }
            if computed != *hash {
                return Err(self.lied(Lie::TransactionHash { block, named: *hash, computed }));
            }
            transactions.push(raw);
        }
        Ok(true)
    }

    async fn header(&mut self, number: u64, limit: Duration) -> Result<Option<(L1Header, Vec<B256>)>, EndpointError> {
        let json = self.json("eth_getBlockByNumber", &format!(r#"["{number:#x}",false]"#), limit).await?;
        parse::json_header(&json).map_err(|lie| self.lied(lie))
    }

    /// When it may be asked again.
    fn usable_at_ns(&self, is_alone: bool) -> u64 {
        let quarantine_ns = if is_alone { QUARANTINE_ALONE_NS } else { QUARANTINE_NS };
        self.lied_at_ns.map_or(0, |at_ns| at_ns.saturating_add(quarantine_ns)).max(self.retry_at_ns)
    }

    /// Takes note of how a call ended.
    fn ended<A>(&mut self, result: &Result<A, EndpointError>) {
        let now_ns = self.wire.now_ns();
        match result {
            Err(EndpointError::Lied { endpoint, lie }) => {
                tracing::warn!(endpoint, %lie, "an L1 endpoint is not asked for a while: its answer is disproved");
                self.lied_at_ns = Some(now_ns);
            }
            Ok(_) | Err(EndpointError::Rpc { .. }) => (self.failures, self.missed) = (0, 0),
            Err(_) => {
                let pause_ns = BACKOFF_NS << self.failures.min(8);
                self.failures = self.failures.saturating_add(1);
                self.retry_at_ns = now_ns.saturating_add(pause_ns.min(BACKOFF_NS_MAX));
            }
        }
    }
}

impl L1Client {
    /// Connects when it is first used.
    ///
    /// # Errors
    /// No URL to ask, or too many.
    pub fn new(settings: ClientSettings) -> Result<Self, UrlError> {
        let tls = wire::tls();
        let (websockets, calls): (Vec<_>, Vec<_>) = settings.urls.into_iter().partition(Url::is_websocket);
        if calls.is_empty() {
            return Err(UrlError::None);
        }
        if let Some(url) = calls.get(ENDPOINTS_MAX) {
            let what = format!("more than {ENDPOINTS_MAX} endpoints");
            return Err(UrlError::Bad { url: url.to_string(), what });
        }
        let watch = websockets.into_iter().next().map(|url| (url, tls.clone()));
        let wires = calls.into_iter().map(|url| Wire::new(url, tls.clone()));
        let mut client = Self::over(wires, settings.chain_id, settings.call_ns_max, settings.poll_ns);
        client.watch = watch;
        client.meter = settings.meter;
        Ok(client)
    }
}

impl<T: Transport> L1Client<T> {
    /// A client over these endpoints, the first one first; at least one.
    pub fn over(wires: impl IntoIterator<Item = T>, chain_id: u64, call_ns_max: u64, poll_ns: u64) -> Self {
        let endpoints: Vec<_> = wires.into_iter().map(Endpoint::new).collect();
        assert!(!endpoints.is_empty());
        let call_max = Duration::from_nanos(call_ns_max);
        let unseconded = Vec::new();
        Self { chain_id, call_max, poll_ns, endpoints, unseconded, watch: None, meter: Arc::default() }
    }

    /// What became of its calls.
    #[must_use]
    pub fn meter(&self) -> &L1ClientMeter {
        &self.meter
    }

    fn now_ns(&self) -> u64 {
        self.endpoints[0].wire.now_ns()
    }

    async fn pause(&self, ns: u64) {
        self.endpoints[0].wire.pause(ns).await;
    }

    /// Which endpoints may be asked now, best first.
    fn usable(&self, now_ns: u64) -> Vec<usize> {
        let all = 0..self.endpoints.len();
        let is_usable = |index: &usize| self.endpoints[*index].usable_at_ns(false) <= now_ns;
        let usable: Vec<_> = all.clone().filter(is_usable).collect();
        if !usable.is_empty() || self.endpoints.iter().any(|endpoint| endpoint.is_trusted(now_ns)) {
            return usable;
        }
        all.filter(|index| self.endpoints[*index].usable_at_ns(true) <= now_ns).collect()
    }

    /// Asks one endpoint after the other until one has an answer.
    async fn ask<A>(
        &mut self,
        mut call: impl AsyncFnMut(&mut Endpoint<T>, Duration) -> Result<A, EndpointError>,
    ) -> Result<A, ClientError> {
        let mut last = None;
        for index in self.usable(self.now_ns()) {
            match self.ask_one(index, &mut call).await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(self.nobody(last))
    }

    /// Why nobody has an answer, by the last error.
    fn nobody(&self, last: Option<EndpointError>) -> ClientError {
        match last {
            Some(error @ EndpointError::Rpc { .. }) => ClientError::Refused(Box::new(error)),
            Some(error) => ClientError::Away(Box::new(error)),
            None => ClientError::Away(Box::new(self.resting())),
        }
    }

    async fn ask_one<A>(
        &mut self,
        index: usize,
        call: &mut impl AsyncFnMut(&mut Endpoint<T>, Duration) -> Result<A, EndpointError>,
    ) -> Result<A, EndpointError> {
        let (chain_id, limit) = (self.chain_id, self.call_max);
        let endpoint = &mut self.endpoints[index];
        let start_ns = endpoint.wire.now_ns();
        let result = match endpoint.meet(chain_id, limit).await {
            Ok(()) => call(endpoint, limit).await,
            Err(error) => Err(error),
        };
        let taken_ns = endpoint.wire.now_ns().saturating_sub(start_ns);
        match &result {
            Ok(_) => self.meter.call.record(taken_ns),
            Err(error) => self.meter.failed.increment(error.label()),
        }
        endpoint.ended(&result);
        if endpoint.failures > 0 && self.endpoints.iter().any(|other| other.failures == 0) {
            let missed = &mut self.endpoints[index].missed;
            *missed = missed.saturating_add(1);
        }
        result
    }

    /// Nobody may be asked right now.
    fn resting(&self) -> EndpointError {
        let soonest = self.endpoints.iter().min_by_key(|endpoint| endpoint.usable_at_ns(true));
        let endpoint = soonest.map(|endpoint| endpoint.wire.name()).unwrap_or_default();
        EndpointError::Unreachable { endpoint, what: "waits before it is asked again".to_owned() }
    }

    /// The header of this number, compared with its hash.
    ///
    /// # Errors
    /// `Away`, `Refused`, `NoBlock`.
    pub async fn header(&mut self, number: u64) -> Result<L1Header, ClientError> {
        let block = self.ask(async |endpoint, limit| {
            if endpoint.has_raw_blocks
                && let Ok(Some(block)) = endpoint.raw_block(number, limit).await
            {
                return Ok(Some(block.header));
            }
            Ok(endpoint.header(number, limit).await?.map(|(header, _)| header))
        });
        block.await?.filter(|header| header.number == number).ok_or_else(|| no_block(&number.to_string()))
    }

    /// The priority fee that an endpoint suggests; the caller has limits for it.
    ///
    /// # Errors
    /// `Away`, `Refused`.
    pub async fn tip_wei(&mut self) -> Result<u128, ClientError> {
        let answer = self.ask(async |endpoint, limit| endpoint.quantity("eth_maxPriorityFeePerGas", "[]", limit).await);
        Ok(u128::try_from(answer.await?).unwrap_or(u128::MAX))
    }

    /// Sends a signed transaction to every endpoint that may be asked. One that takes it is enough.
    pub async fn send_raw(&mut self, raw: &[u8]) -> SendOutcome {
        let mut params = Vec::with_capacity(2 * raw.len() + 6);
        params.extend_from_slice(b"[\"");
        crate::codec::hex::data_into(raw, &mut params);
        params.extend_from_slice(b"\"]");
        let params = String::from_utf8(params).unwrap_or_default();
        let mut outcome = SendOutcome::Away;
        for index in self.usable(self.now_ns()) {
            let send = async |endpoint: &mut Endpoint<T>, limit| {
                endpoint.wire.call("eth_sendRawTransaction", &params, limit).await.map(|_| ())
            };
            let next = match self.ask_one(index, &mut { send }).await {
                Ok(()) => SendOutcome::Accepted,
                Err(EndpointError::Rpc { message, .. }) => outcome_of(&message),
                Err(_) => SendOutcome::Away,
            };
            if rank(&next) < rank(&outcome) {
                outcome = next;
            }
        }
        outcome
    }

    /// Whether anything at this address answers calldata of EXECUTE: zeros of the least length, which ask for nothing. An account without code
    /// returns nothing; a refusal comes from something. Nothing proves the answer.
    ///
    /// # Errors
    /// `Away`.
    pub async fn has_execute(&mut self, address: Address) -> Result<bool, ClientError> {
        let data = Bytes::from(vec![0; EXECUTE_CALL_BYTES_MIN]);
        let params = format!(r#"[{{"to":"{address:#x}","data":"{data}"}},"latest"]"#);
        let answer = self.ask(async |endpoint, limit| match endpoint.json("eth_call", &params, limit).await {
            Ok(answer) => Ok(answer.as_str() != Some("0x")),
            Err(EndpointError::Rpc { .. }) => Ok(true),
            Err(error) => Err(error),
        });
        answer.await
    }

    /// Passes a call on: L1's own answer or error, word for word but for the length of an error's message.
    ///
    /// # Errors
    /// `Away`, `Refused` (an `EndpointError::Rpc`).
    pub async fn request(&mut self, method: &str, params: &RawValue) -> Result<Box<RawValue>, ClientError> {
        self.ask(async |endpoint, limit| endpoint.wire.call(method, params.get(), limit).await).await
    }
}

fn no_block(what: &str) -> ClientError {
    ClientError::NoBlock { what: what.to_owned() }
}

/// What an error of `eth_sendRawTransaction` says, in the words of go-ethereum, reth, Nethermind, Besu and Erigon.
fn outcome_of(message: &str) -> SendOutcome {
    let message = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if has(&["already known", "known transaction", "alreadyknown", "already imported"]) {
        SendOutcome::Accepted
    } else if has(&["nonce too low", "oldnonce", "nonce is too low"]) {
        SendOutcome::NonceTooLow
    } else if has(&[
        "underpriced",
        "less than block base fee",
        "feetoolow",
        "fee too low",
        "below the minimum",
        "below minimum",
    ]) {
        SendOutcome::Underpriced
    } else if has(&["insufficient funds", "insufficientfunds", "upfront cost exceeds"]) {
        SendOutcome::InsufficientFunds
    } else {
        SendOutcome::Refused { message }
    }
}

/// The smaller, the better.
fn rank(outcome: &SendOutcome) -> u8 {
    match outcome {
        SendOutcome::Accepted => 0,
        SendOutcome::NonceTooLow => 1,
        SendOutcome::Underpriced => 2,
        SendOutcome::InsufficientFunds => 3,
        SendOutcome::Refused { .. } => 4,
        SendOutcome::Away => 5,
    }
}
