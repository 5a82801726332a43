//! A payload that the execution client built, as JSON → header, transactions, requests.
//!
//! Pure. The header is put together from the payload's fields and what this chain fixes (no ommers, no withdrawals, no blobs), and must hash to the
//! payload's own hash: a field that was read wrongly, or one that we do not know, cannot go unnoticed. Source: execution-apis
//! `prague.md`, `osaka.md`; the answers of `engine_getPayload` and `testing_buildBlockV1` have the same shape.

use alloy_consensus::Header;
use alloy_consensus::constants::{EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH};
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use serde_json::Value;

use crate::builder::execution::requests_hash;
use crate::primitives::{B256, Bytes};
use crate::state::ListRoot;

/// A block as the client built it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub header: Header,
    pub hash: B256,
    /// 2718 encodings, in order.
    pub transactions: Vec<Bytes>,
    /// EIP-7685 requests, type byte first, empty ones left out.
    pub requests: Vec<Bytes>,
}

/// Reads a payload of a block that was asked for with this `parentBeaconBlockRoot`, which is not in it.
///
/// # Errors
/// In words: the field that is missing or malformed, or both hashes.
pub fn read_envelope(answer: &Value, parent_beacon_block_root: B256) -> Result<Envelope, String> {
    let payload = answer.get("executionPayload").ok_or("no executionPayload")?;
    let text = |name: &str| payload.get(name).and_then(Value::as_str).ok_or_else(|| format!("{name} is missing"));
    let number = |name: &str| {
        let digits = text(name)?.strip_prefix("0x").unwrap_or_default();
        u64::from_str_radix(digits, 16).map_err(|_| format!("{name} is no quantity of 64 bits"))
    };
    let malformed = |name: &str| format!("{name} is malformed");
    let hash = |name: &str| text(name)?.parse::<B256>().map_err(|_| malformed(name));
    let transactions = bytes_list(payload, "transactions")?;
    let requests = match answer.get("executionRequests") {
        None | Some(Value::Null) => Vec::new(),
        Some(_) => bytes_list(answer, "executionRequests")?,
    };
    if payload.get("withdrawals").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        return Err("it has withdrawals, and this chain has none".to_owned());
    }
    let mut transactions_root = ListRoot::new();
    transactions.iter().for_each(|raw| transactions_root.push(raw));
    let header = Header {
        parent_hash: hash("parentHash")?,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: text("feeRecipient")?.parse().map_err(|_| malformed("feeRecipient"))?,
        state_root: hash("stateRoot")?,
        transactions_root: transactions_root.finish(),
        receipts_root: hash("receiptsRoot")?,
        logs_bloom: text("logsBloom")?.parse().map_err(|_| malformed("logsBloom"))?,
        number: number("blockNumber")?,
        gas_limit: number("gasLimit")?,
        gas_used: number("gasUsed")?,
        timestamp: number("timestamp")?,
        extra_data: text("extraData")?.parse().map_err(|_| malformed("extraData"))?,
        mix_hash: hash("prevRandao")?,
        base_fee_per_gas: Some(number("baseFeePerGas")?),
        withdrawals_root: Some(EMPTY_ROOT_HASH),
        blob_gas_used: Some(number("blobGasUsed")?),
        excess_blob_gas: Some(number("excessBlobGas")?),
        parent_beacon_block_root: Some(parent_beacon_block_root),
        requests_hash: Some(if requests.is_empty() { EMPTY_REQUESTS_HASH } else { requests_hash(&requests) }),
        ..Header::default()
    };
    let (said, computed) = (hash("blockHash")?, header.hash_slow());
    if said != computed {
        return Err(format!("its hash is {said}, its fields give {computed}"));
    }
    Ok(Envelope { header, hash: said, transactions, requests })
}

fn bytes_list(value: &Value, name: &str) -> Result<Vec<Bytes>, String> {
    let list = value.get(name).and_then(Value::as_array).ok_or_else(|| format!("{name} is no list"))?;
    let items: Option<Vec<Bytes>> = list.iter().map(|item| item.as_str()?.parse().ok()).collect();
    items.ok_or_else(|| format!("{name} has an item that is no data"))
}
