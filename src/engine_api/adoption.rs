//! Blocks of the execution client that we do not have: read at a start, before the first thread runs.
//!
//! Input: the client's canonical chain. Output: what a block is made of, in a form that execution can repeat; nothing is believed, because
//! whoever adopts a block executes it and compares the hash. Runs on: the main thread, with a runtime of its own.

use serde_json::Value;

use crate::config::execution::ExecutionConfig;
use crate::engine_api::blocking::{BlockingClient, BlockingSettings};
use crate::engine_api::jwt::Secret;
use crate::engine_api::types::{CallError, Method, RemoteBlock, remote_block};
use crate::primitives::{Address, B256, Bytes};

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
    client: BlockingClient,
}

impl RemoteChain {
    /// Connects when it is first asked.
    ///
    /// # Errors
    /// The runtime cannot be started.
    pub fn new(config: &ExecutionConfig, secret: Secret) -> std::io::Result<Self> {
        Ok(Self { client: BlockingClient::new(BlockingSettings::engine(config, secret))? })
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

    /// Hash of a block of the canonical chain; `None` where there is none.
    ///
    /// # Errors
    /// As [`CallError`] has them.
    pub fn hash(&mut self, number: u64) -> Result<Option<B256>, CallError> {
        let shown = self.ask(Method::ReadBlock, format!(r#"["{number:#x}",false]"#))?;
        Ok(remote_block(&shown).map(|block| block.hash))
    }

    /// A block of the canonical chain but block 0; `None` where there is none.
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
        self.client.ask(method, params.into_bytes())
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
