//! Blocks of the execution client that we do not have: read at a start, before the first thread runs.
//!
//! Input: the client's canonical chain. Output: what a block is made of, in a form that execution can repeat; nothing is believed, because
//! whoever adopts a block executes it and compares the hash. Runs on: the main thread, with a runtime of its own.

use std::time::Duration;

use serde_json::Value;

use crate::config::execution::ExecutionConfig;
use crate::engine_api::jwt::Secret;
use crate::engine_api::transport::{JsonTransport, Prepared, Transport};
use crate::engine_api::types::{CallError, Method, RemoteBlock, Reply, remote_block};
use crate::primitives::{Address, B256, Bytes};
use crate::runtime::clock;

/// A block as the client shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteBody {
    pub number: u64,
    pub hash: B256,
    pub parent_hash: B256,
    pub timestamp: u64,
    pub base_fee_per_gas_wei: u64,
    pub prev_randao: B256,
    pub coinbase: Address,
    pub gas_limit: u64,
    pub extra_data: Bytes,
    pub parent_beacon_block_root: B256,
    pub state_root: B256,
    pub receipts_root: B256,
    /// 2718 encodings, in order.
    pub transactions: Vec<Bytes>,
}

/// A client that is read, one question after the other.
pub struct RemoteChain {
    runtime: tokio::runtime::Runtime,
    transport: JsonTransport,
    limit: Duration,
}

impl RemoteChain {
    /// Connects when it is first asked.
    ///
    /// # Errors
    /// The runtime cannot be started.
    pub fn new(config: &ExecutionConfig, secret: Secret) -> std::io::Result<Self> {
        Ok(Self {
            runtime: tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?,
            transport: JsonTransport::new(&config.engine, Some(secret)),
            limit: Duration::from_nanos(config.read.timeout_ns),
        })
    }

    /// The client's head.
    ///
    /// # Errors
    /// As [`CallError`] has them.
    pub fn head(&mut self) -> Result<RemoteBlock, CallError> {
        let shown = self.ask(Method::ReadBlock, r#"["latest",false]"#.to_owned())?;
        remote_block(&shown).ok_or_else(|| {
            CallError::malformed(Method::ReadBlock, "a block without number or hash", &shown.to_string())
        })
    }

    /// A block of the canonical chain; `None` where there is none.
    ///
    /// # Errors
    /// As [`CallError`] has them; a block that lacks a field.
    pub fn block(&mut self, number: u64) -> Result<Option<RemoteBody>, CallError> {
        let shown = self.ask(Method::ReadBlock, format!(r#"["{number:#x}",false]"#))?;
        if shown.is_null() {
            return Ok(None);
        }
        let bodies = self.ask(Method::GetPayloadBodiesByRangeV1, format!(r#"["{number:#x}","0x1"]"#))?;
        let transactions = bodies[0]["transactions"]
            .as_array()
            .and_then(|list| list.iter().map(|raw| raw.as_str()?.parse::<Bytes>().ok()).collect::<Option<Vec<_>>>());
        let body = transactions.and_then(|transactions| remote_body(&shown, transactions));
        let malformed = || CallError::malformed(Method::ReadBlock, "a block that lacks a field", &shown.to_string());
        body.map(Some).ok_or_else(malformed)
    }

    fn ask(&mut self, method: Method, params: String) -> Result<Value, CallError> {
        let Self { runtime, transport, limit } = self;
        let unix_s = clock::wall_unix_ns() / 1_000_000_000;
        let request = transport.call(Prepared { method, params: params.into_bytes() }, unix_s);
        let answer = runtime.block_on(async { tokio::time::timeout(*limit, request).await });
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        match answer.unwrap_or(Err(CallError::TimedOut { method: method.name(), limit_ms }))? {
            Reply::Value(value) => Ok(value),
            other => Err(CallError::malformed(method, "an answer to another question", &format!("{other:?}"))),
        }
    }
}

fn remote_body(shown: &Value, transactions: Vec<Bytes>) -> Option<RemoteBody> {
    let text = |name: &str| shown.get(name).and_then(Value::as_str);
    let number = |name: &str| u64::from_str_radix(text(name)?.strip_prefix("0x")?, 16).ok();
    let hash = |name: &str| text(name)?.parse::<B256>().ok();
    Some(RemoteBody {
        number: number("number")?,
        hash: hash("hash")?,
        parent_hash: hash("parentHash")?,
        timestamp: number("timestamp")?,
        base_fee_per_gas_wei: number("baseFeePerGas")?,
        prev_randao: hash("mixHash")?,
        coinbase: text("miner")?.parse().ok()?,
        gas_limit: number("gasLimit")?,
        extra_data: text("extraData")?.parse().ok()?,
        parent_beacon_block_root: hash("parentBeaconBlockRoot")?,
        state_root: hash("stateRoot")?,
        receipts_root: hash("receiptsRoot")?,
        transactions,
    })
}
