//! Answers of L1 endpoints, read and compared with the hashes that they must have. Pure.

use alloy_rlp::Encodable;
use serde_json::Value;

use crate::builder::sealing::{ReceiptFacts, encode_receipt};
use crate::codec::hex;
use crate::crypto::keccak::keccak256;
use crate::l1::block::{BlockId, CheckedBlock, EXECUTE_TX_TYPE, L1Header, L1Receipt};
use crate::l1::client::error::Lie;
use crate::primitives::{Address, B256, Bloom, Bytes, U256};
use crate::state::list_root::ListRoot;

/// A block whose transactions have the root of its header; its receipts are not there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawBlock {
    pub header: L1Header,
    pub transactions: Vec<Bytes>,
}

impl RawBlock {
    /// Whether its receipts are needed: nothing else than an ExecuteTx has one that anybody here looks at.
    #[must_use]
    pub fn needs_receipts(&self) -> bool {
        self.transactions.iter().any(|raw| raw.first() == Some(&EXECUTE_TX_TYPE))
    }

    /// The block without receipts, when none are needed.
    #[must_use]
    pub fn without_receipts(self) -> CheckedBlock {
        CheckedBlock { header: self.header, transactions: self.transactions, receipts: Vec::new() }
    }
}

/// Reads `debug_getRawBlock`: the hash is the header's own, whatever fields a fork has added.
///
/// # Errors
/// What does not decode, or a transactions root that is another.
pub fn raw_block(rlp: &[u8]) -> Result<RawBlock, Lie> {
    let fault = |why: String| Lie::Undecodable { what: "of debug_getRawBlock".to_owned(), why };
    let mut items = list(&mut { rlp }).map_err(|why| fault(why.to_owned()))?;
    let before = items;
    let mut fields = list(&mut items).map_err(|why| fault(why.to_owned()))?;
    let header = &before[..before.len() - items.len()];
    let header = header_fields(&mut fields, keccak256(header)).map_err(|why| fault(why.to_owned()))?;
    let mut txs = list(&mut items).map_err(|why| fault(why.to_owned()))?;
    let mut transactions = Vec::new();
    while !txs.is_empty() {
        let before = txs;
        let head = alloy_rlp::Header::decode(&mut txs).map_err(|error| fault(error.to_string()))?;
        let (payload, rest) = txs.split_at(head.payload_length);
        // A list is a legacy transaction, a string holds a typed one.
        let raw = if head.list { &before[..before.len() - rest.len()] } else { payload };
        transactions.push(Bytes::copy_from_slice(raw));
        txs = rest;
    }
    check_transactions(RawBlock { header, transactions })
}

/// Compares transactions with the header's root.
///
/// # Errors
/// `TransactionsRoot`.
pub fn check_transactions(block: RawBlock) -> Result<RawBlock, Lie> {
    let mut root = ListRoot::new();
    block.transactions.iter().for_each(|raw| root.push(raw));
    let (computed, header) = (root.finish(), block.header.transactions_root);
    if computed != header {
        return Err(Lie::TransactionsRoot { block: block.header.id(), header, computed });
    }
    Ok(block)
}

/// The payload of the list at the front of `rlp`, which is moved behind it.
fn list<'a>(rlp: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    alloy_rlp::Header::decode_bytes(rlp, true).map_err(|_| "a list was expected")
}

/// The fields of a header by their position, which no fork has changed.
fn header_fields(fields: &mut &[u8], hash: B256) -> Result<L1Header, &'static str> {
    let mut items = Vec::with_capacity(24);
    while !fields.is_empty() {
        items.push(alloy_rlp::Header::decode_bytes(fields, false).map_err(|_| "a header field is no string")?);
    }
    let word = |index: usize| {
        let item = items.get(index).copied().unwrap_or_default();
        <[u8; 32]>::try_from(item).map(B256::from).map_err(|_| "a hash in the header is not of 32 bytes")
    };
    let number = |index: usize| {
        let item = items.get(index).copied().unwrap_or_default();
        let mut bytes = [0; 8];
        let start = 8_usize.checked_sub(item.len()).ok_or("a number in the header is above 2^64")?;
        bytes[start..].copy_from_slice(item);
        Ok::<_, &'static str>(u64::from_be_bytes(bytes))
    };
    Ok(L1Header {
        number: number(8)?,
        hash,
        parent_hash: word(0)?,
        timestamp: number(11)?,
        gas_limit: number(9)?,
        base_fee_wei: number(15)?,
        mix_hash: word(13)?,
        transactions_root: word(4)?,
        receipts_root: word(5)?,
    })
}

/// Reads a block of `eth_getBlockByNumber` or `…ByHash` with its transactions as hashes, and compares its header with its hash. `None` for null.
///
/// # Errors
/// What is missing or malformed; `HeaderHash`.
pub fn json_header(json: &Value) -> Result<Option<(L1Header, Vec<B256>)>, Lie> {
    if json.is_null() {
        return Ok(None);
    }
    let fault = |why: String| Lie::Undecodable { what: "in JSON".to_owned(), why };
    let header = alloy_header(json).map_err(fault)?;
    let named = word(json, "hash").map_err(fault)?;
    let mut encoded = Vec::with_capacity(700);
    header.encode(&mut encoded);
    let computed = keccak256(&encoded);
    if computed != named {
        return Err(Lie::HeaderHash { number: header.number, named, computed });
    }
    let fields = L1Header {
        number: header.number,
        hash: computed,
        parent_hash: header.parent_hash,
        timestamp: header.timestamp,
        gas_limit: header.gas_limit,
        base_fee_wei: header.base_fee_per_gas.unwrap_or(0),
        mix_hash: header.mix_hash,
        transactions_root: header.transactions_root,
        receipts_root: header.receipts_root,
    };
    let hashes = json["transactions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let hash = |value: &Value| value.as_str().and_then(|text| hex::parse_fixed::<32>(text).ok()).map(B256::from);
    let hashes = hashes.iter().map(hash).collect::<Option<Vec<_>>>();
    Ok(Some((fields, hashes.ok_or_else(|| fault("transactions are not hashes".to_owned()))?)))
}

/// Number and hash of a block in JSON, as the endpoint says them: the hash may be of a header with fields that are not known here.
///
/// # Errors
/// What is missing or malformed.
pub fn json_id(json: &Value) -> Result<Option<BlockId>, Lie> {
    if json.is_null() {
        return Ok(None);
    }
    let fault = |why: String| Lie::Undecodable { what: "in JSON".to_owned(), why };
    let number = quantity(json, "number").map_err(fault)?;
    Ok(Some(BlockId { number, hash: word(json, "hash").map_err(fault)? }))
}

fn alloy_header(json: &Value) -> Result<alloy_consensus::Header, String> {
    let is_there = |name: &str| json.get(name).is_some_and(|value| !value.is_null());
    let number = |name: &str| is_there(name).then(|| quantity(json, name)).transpose();
    let hash = |name: &str| is_there(name).then(|| word(json, name)).transpose();
    let nonce = fixed::<8>(json, "nonce")?;
    Ok(alloy_consensus::Header {
        parent_hash: word(json, "parentHash")?,
        ommers_hash: word(json, "sha3Uncles")?,
        beneficiary: Address::from(fixed::<20>(json, "miner")?),
        state_root: word(json, "stateRoot")?,
        transactions_root: word(json, "transactionsRoot")?,
        receipts_root: word(json, "receiptsRoot")?,
        logs_bloom: Bloom::from(fixed::<256>(json, "logsBloom")?),
        difficulty: hex::parse_quantity_u256(text(json, "difficulty")?).map_err(|error| error.to_string())?,
        number: quantity(json, "number")?,
        gas_limit: quantity(json, "gasLimit")?,
        gas_used: quantity(json, "gasUsed")?,
        timestamp: quantity(json, "timestamp")?,
        extra_data: data(json, "extraData")?,
        mix_hash: word(json, "mixHash")?,
        nonce: nonce.into(),
        base_fee_per_gas: number("baseFeePerGas")?,
        withdrawals_root: hash("withdrawalsRoot")?,
        blob_gas_used: number("blobGasUsed")?,
        excess_blob_gas: number("excessBlobGas")?,
        parent_beacon_block_root: hash("parentBeaconBlockRoot")?,
        requests_hash: hash("requestsHash")?,
        ..alloy_consensus::Header::default()
    })
}

/// Reads `eth_getBlockReceipts`, encodes the receipts as the trie has them, and compares the root.
///
/// # Errors
/// What is missing or malformed; `Counts`, `ReceiptsRoot`.
pub fn receipts(block: RawBlock, json: &Value) -> Result<CheckedBlock, Lie> {
    let id = block.header.id();
    let fault = |why: String| Lie::Undecodable { what: format!("{id}'s receipts"), why };
    let list = json.as_array().ok_or_else(|| fault("not a list".to_owned()))?;
    if list.len() != block.transactions.len() {
        return Err(Lie::Counts { block: id, transactions: block.transactions.len(), receipts: list.len() });
    }
    let (mut root, mut encoded, mut gas_before) = (ListRoot::new(), Vec::new(), 0);
    let mut receipts = Vec::with_capacity(list.len());
    for json in list {
        let (facts, logs, bloom) = receipt(json).map_err(fault)?;
        encoded.clear();
        encode_receipt(&mut encoded, facts, &bloom, logs.iter());
        root.push(&encoded);
        let gas_used = facts.cumulative_gas_used.saturating_sub(gas_before);
        gas_before = facts.cumulative_gas_used;
        receipts.push(L1Receipt { tx_type: facts.tx_type, success: facts.success, gas_used });
    }
    let (computed, header) = (root.finish(), block.header.receipts_root);
    if computed != header {
        return Err(Lie::ReceiptsRoot { block: id, header, computed });
    }
    Ok(CheckedBlock { header: block.header, transactions: block.transactions, receipts })
}

fn receipt(json: &Value) -> Result<(ReceiptFacts, Vec<alloy_primitives::Log>, Bloom), String> {
    let tx_type = quantity(json, "type")?;
    let facts = ReceiptFacts {
        tx_type: u8::try_from(tx_type).map_err(|_| format!("type {tx_type}"))?,
        success: quantity(json, "status")? == 1,
        cumulative_gas_used: quantity(json, "cumulativeGasUsed")?,
    };
    let mut logs = Vec::new();
    for log in json["logs"].as_array().ok_or("no list of logs")? {
        let topics = log["topics"].as_array().ok_or("no list of topics")?;
        let topic = |value: &Value| value.as_str().and_then(|text| hex::parse_fixed::<32>(text).ok()).map(B256::from);
        let topics = topics.iter().map(topic).collect::<Option<Vec<_>>>().ok_or("a topic is no hash")?;
        let address = Address::from(fixed::<20>(log, "address")?);
        logs.push(alloy_primitives::Log::new(address, topics, data(log, "data")?).ok_or("more than four topics")?);
    }
    let bloom = alloy_primitives::logs_bloom(&logs);
    Ok((facts, logs, bloom))
}

/// An answer that is one quantity.
///
/// # Errors
/// Anything else.
pub fn quantity_answer(json: &Value) -> Result<U256, String> {
    let text = json.as_str().ok_or("not a string")?;
    hex::parse_quantity_u256(text).map_err(|error| error.to_string())
}

/// An answer that is data.
///
/// # Errors
/// Anything else.
pub fn data_answer(json: &Value) -> Result<Bytes, String> {
    let text = json.as_str().ok_or("not a string")?;
    hex::parse_data(text).map(Bytes::from).map_err(|error| error.to_string())
}

fn text<'a>(json: &'a Value, name: &str) -> Result<&'a str, String> {
    json[name].as_str().ok_or_else(|| format!("no {name}"))
}

fn quantity(json: &Value, name: &str) -> Result<u64, String> {
    hex::parse_quantity_u64(text(json, name)?).map_err(|error| format!("{name}: {error}"))
}

fn fixed<const N: usize>(json: &Value, name: &str) -> Result<[u8; N], String> {
    hex::parse_fixed(text(json, name)?).map_err(|error| format!("{name}: {error}"))
}

fn word(json: &Value, name: &str) -> Result<B256, String> {
    fixed::<32>(json, name).map(B256::from)
}

fn data(json: &Value, name: &str) -> Result<Bytes, String> {
    hex::parse_data(text(json, name)?).map(Bytes::from).map_err(|error| format!("{name}: {error}"))
}
