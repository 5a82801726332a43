//! Blocks, transactions, receipts and logs as go-ethereum v1.17 writes them (`internal/ethapi/api.go`).

use alloy_consensus::transaction::Transaction as _;
use alloy_consensus::{Header, TxEnvelope};
use alloy_eips::eip2930::AccessList;
use alloy_eips::eip7702::SignedAuthorization;
use alloy_primitives::{Bloom, BloomInput, Log, Signature};
use alloy_rlp::Encodable;

use crate::builder::block::BlockContext;
use crate::builder::rewinds::RemovedLog;
use crate::primitives::{B256, U256};
use crate::rpc::error::RpcError;
use crate::rpc::json::{self, Object};
use crate::rpc::source::{BlockSource, OpenPrefix, Place, ReceiptView, TxView, decode_envelope, receiver};

/// Hash of an empty list: what `sha3Uncles` is in every block after the merge.
const UNCLES_HASH_EMPTY: B256 = alloy_consensus::EMPTY_OMMER_ROOT_HASH;

/// The block object; `full` writes transactions as objects, else as hashes.
///
/// A block without a hash has `hash`, `nonce` and `miner` null like go-ethereum's, and zero roots: they are not known yet.
pub fn block(source: &BlockSource<'_>, full: bool, out: &mut Vec<u8>) -> Result<(), RpcError> {
    let mut object = Object::begin(out);
    match source {
        BlockSource::Open(prefix) => open_fields(&prefix.block.context, Some(*prefix), &mut object),
        BlockSource::Unopened(context) => open_fields(context, None, &mut object),
        BlockSource::Sealed(sealed) => header_fields(&sealed.header, sealed.hash, &mut object),
        BlockSource::Stored(stored) => header_fields(stored.header(), stored.hash(), &mut object),
    }
    object.quantity("size", block_rlp_bytes(source)? as u64);
    let place = source.place();
    let list = object.member("transactions");
    list.push(b'[');
    for index in 0..source.tx_count() {
        if index > 0 {
            list.push(b',');
        }
        let Some(tx) = source.transaction(index)? else { break };
        match full {
            true => transaction(&tx, mined(&place, index), list)?,
            false => json::data(tx.hash.as_slice(), list),
        }
    }
    list.push(b']');
    object.member("uncles").extend_from_slice(b"[]");
    object.member("withdrawals").extend_from_slice(b"[]");
    object.end();
    Ok(())
}

/// What `newHeads` sends and the block object begins with.
pub fn header(header: &Header, hash: B256, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    header_fields(header, hash, &mut object);
    object.end();
}

fn header_fields(header: &Header, hash: B256, object: &mut Object<'_>) {
    object.quantity("number", header.number);
    object.data("hash", hash);
    object.data("parentHash", header.parent_hash);
    object.data("nonce", header.nonce);
    object.data("mixHash", header.mix_hash);
    object.data("sha3Uncles", header.ommers_hash);
    object.data("logsBloom", header.logs_bloom);
    object.data("stateRoot", header.state_root);
    object.data("miner", header.beneficiary);
    object.quantity("difficulty", header.difficulty);
    object.data("extraData", &header.extra_data);
    object.quantity("gasLimit", header.gas_limit);
    object.quantity("gasUsed", header.gas_used);
    object.quantity("timestamp", header.timestamp);
    object.data("transactionsRoot", header.transactions_root);
    object.data("receiptsRoot", header.receipts_root);
    if let Some(wei) = header.base_fee_per_gas {
        object.quantity("baseFeePerGas", wei);
    }
    if let Some(root) = header.withdrawals_root {
        object.data("withdrawalsRoot", root);
    }
    if let Some(gas) = header.blob_gas_used {
        object.quantity("blobGasUsed", gas);
    }
    if let Some(gas) = header.excess_blob_gas {
        object.quantity("excessBlobGas", gas);
    }
    if let Some(root) = header.parent_beacon_block_root {
        object.data("parentBeaconBlockRoot", root);
    }
    if let Some(hash) = header.requests_hash {
        object.data("requestsHash", hash);
    }
}

fn open_fields(context: &BlockContext, prefix: Option<OpenPrefix<'_>>, object: &mut Object<'_>) {
    let last = prefix.and_then(|prefix| prefix.last());
    let mut bloom = Bloom::ZERO;
    if let (Some(prefix), Some(last)) = (prefix, last) {
        let log_count = (last.logs.start + last.logs.len) as usize;
        prefix.block.logs.range(0..log_count).for_each(|log| bloom.accrue_log(log));
    }
    object.quantity("number", context.number);
    object.null("hash");
    object.data("parentHash", context.parent_hash);
    object.null("nonce");
    object.data("mixHash", context.prev_randao);
    object.data("sha3Uncles", UNCLES_HASH_EMPTY);
    object.data("logsBloom", bloom);
    object.data("stateRoot", B256::ZERO);
    object.null("miner");
    object.quantity("difficulty", 0_u64);
    object.data("extraData", &context.extra_data);
    object.quantity("gasLimit", context.gas_limit);
    object.quantity("gasUsed", last.map_or(0, |tx| tx.cumulative_gas_used));
    object.quantity("timestamp", context.timestamp);
    object.data("transactionsRoot", B256::ZERO);
    object.data("receiptsRoot", B256::ZERO);
    object.quantity("baseFeePerGas", context.base_fee_per_gas_wei);
    object.data("withdrawalsRoot", alloy_consensus::EMPTY_ROOT_HASH);
    object.quantity("blobGasUsed", 0_u64);
    object.quantity("excessBlobGas", 0_u64);
    object.data("parentBeaconBlockRoot", context.parent_beacon_block_root);
}

/// Where a transaction was mined; a block without a hash counts as not mined, as in go-ethereum.
#[derive(Clone, Copy, Debug)]
pub struct Mined {
    place: Place,
    index: usize,
}

/// The place of entry `index`, if its block has a hash.
#[must_use]
pub fn mined(place: &Place, index: usize) -> Option<Mined> {
    (!place.block_hash.is_zero()).then_some(Mined { place: *place, index })
}

/// The transaction object; `None` writes the form of a pending one.
pub fn transaction(tx: &TxView<'_>, mined: Option<Mined>, out: &mut Vec<u8>) -> Result<(), RpcError> {
    let envelope = decode_envelope(tx.raw)?;
    let mut object = Object::begin(out);
    match mined {
        Some(Mined { place, index }) => {
            object.data("blockHash", place.block_hash);
            object.quantity("blockNumber", place.block_number);
            object.quantity("blockTimestamp", place.timestamp);
            object.quantity("transactionIndex", index as u64);
        }
        None => {
            for name in ["blockHash", "blockNumber", "blockTimestamp", "transactionIndex"] {
                object.null(name);
            }
        }
    }
    object.data("hash", tx.hash);
    object.data("from", tx.sender);
    object.optional_data("to", envelope.to());
    object.quantity("nonce", envelope.nonce());
    object.quantity("gas", envelope.gas_limit());
    let gas_price = match mined {
        Some(Mined { place, .. }) => envelope.effective_gas_price(Some(place.base_fee_wei)),
        None => envelope.max_fee_per_gas(),
    };
    object.quantity("gasPrice", gas_price);
    if envelope.is_dynamic_fee() {
        object.quantity("maxFeePerGas", envelope.max_fee_per_gas());
        object.quantity("maxPriorityFeePerGas", envelope.max_priority_fee_per_gas().unwrap_or(0));
    }
    object.quantity("value", envelope.value());
    object.data("input", envelope.input());
    object.quantity("type", u64::from(u8::from(envelope.tx_type())));
    if let Some(list) = envelope.access_list() {
        access_list(list, object.member("accessList"));
    }
    if let Some(chain_id) = envelope.chain_id() {
        object.quantity("chainId", chain_id);
    }
    if let Some(list) = envelope.authorization_list() {
        json::array(list, object.member("authorizationList"), authorization);
    }
    signature(&envelope, &mut object);
    object.end();
    Ok(())
}

fn signature(envelope: &TxEnvelope, object: &mut Object<'_>) {
    let signature: &Signature = envelope.signature();
    let parity = u64::from(signature.v());
    let v = match envelope {
        TxEnvelope::Legacy(tx) => match tx.tx().chain_id {
            // EIP-155; a chain id near 2^64 needs more than 64 bits.
            Some(chain_id) => U256::from(chain_id) * U256::from(2) + U256::from(35 + parity),
            None => U256::from(27 + parity),
        },
        _ => {
            object.quantity("yParity", parity);
            U256::from(parity)
        }
    };
    object.quantity("v", v);
    object.quantity("r", signature.r());
    object.quantity("s", signature.s());
}

/// The array of an EIP-2930 list.
pub fn access_list(list: &AccessList, out: &mut Vec<u8>) {
    json::array(&list.0, out, |item, out| {
        let mut object = Object::begin(out);
        object.data("address", item.address);
        json::array(&item.storage_keys, object.member("storageKeys"), |key, out| json::data(key.as_slice(), out));
        object.end();
    });
}

fn authorization(signed: &SignedAuthorization, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    object.quantity("chainId", *signed.chain_id());
    object.data("address", signed.address());
    object.quantity("nonce", signed.nonce());
    object.quantity("yParity", u64::from(signed.y_parity()));
    object.quantity("r", signed.r());
    object.quantity("s", signed.s());
    object.end();
}

/// The receipt object. Of a block without a hash: the preconfirmed receipt, with 32 zero bytes as `blockHash`.
pub fn receipt(receipt: &ReceiptView<'_>, place: &Place, out: &mut Vec<u8>) {
    receipt_members(receipt, place, true, out);
}

/// The receipt without `logsBloom`: the bloom follows from the logs, and is more than half of a transfer's receipt.
pub fn preconfirmation(receipt: &ReceiptView<'_>, place: &Place, out: &mut Vec<u8>) {
    receipt_members(receipt, place, false, out);
}

fn receipt_members(receipt: &ReceiptView<'_>, place: &Place, with_bloom: bool, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    object.data("blockHash", place.block_hash);
    object.quantity("blockNumber", place.block_number);
    object.optional_data("contractAddress", receipt.contract_address);
    object.quantity("cumulativeGasUsed", receipt.cumulative_gas_used);
    object.quantity("effectiveGasPrice", receipt.effective_gas_price_wei);
    object.data("from", receipt.tx.sender);
    object.quantity("gasUsed", receipt.gas_used);
    let mut bloom = Bloom::ZERO;
    let list = object.member("logs");
    list.push(b'[');
    for (offset, entry) in receipt.logs().enumerate() {
        if offset > 0 {
            list.push(b',');
        }
        if with_bloom {
            bloom.accrue_log(entry);
        }
        log(entry, place, receipt, offset, list);
    }
    list.push(b']');
    if with_bloom {
        object.data("logsBloom", bloom);
    }
    object.quantity("status", u64::from(receipt.success));
    object.optional_data("to", receiver(receipt.tx.raw));
    object.data("transactionHash", receipt.tx.hash);
    object.quantity("transactionIndex", receipt.index as u64);
    object.quantity("type", u64::from(tx_type(receipt.tx.raw)));
    object.end();
}

/// One log of a receipt; `offset` counts within the receipt.
pub fn log(entry: &Log, place: &Place, receipt: &ReceiptView<'_>, offset: usize, out: &mut Vec<u8>) {
    let at = LogPlace {
        block_hash: place.block_hash,
        block_number: place.block_number,
        timestamp: place.timestamp,
        tx_hash: receipt.tx.hash,
        tx_index: receipt.index as u64,
        log_index: receipt.first_log_index + offset as u64,
    };
    log_at(entry, &at, false, out);
}

/// A log of a block that was `latest` and is not any more.
pub fn removed_log(removed: &RemovedLog, out: &mut Vec<u8>) {
    let &RemovedLog { block_hash, block_number, timestamp, tx_hash, tx_index, log_index, ref log } = removed;
    log_at(log, &LogPlace { block_hash, block_number, timestamp, tx_hash, tx_index, log_index }, true, out);
}

/// Where a log is, or was.
struct LogPlace {
    block_hash: B256,
    block_number: u64,
    timestamp: u64,
    tx_hash: B256,
    tx_index: u64,
    log_index: u64,
}

fn log_at(entry: &Log, at: &LogPlace, is_removed: bool, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    object.data("address", entry.address);
    json::array(entry.topics(), object.member("topics"), |topic, out| json::data(topic.as_slice(), out));
    object.data("data", &entry.data.data);
    object.quantity("blockNumber", at.block_number);
    object.data("transactionHash", at.tx_hash);
    object.quantity("transactionIndex", at.tx_index);
    object.data("blockHash", at.block_hash);
    object.quantity("blockTimestamp", at.timestamp);
    object.quantity("logIndex", at.log_index);
    object.boolean("removed", is_removed);
    object.end();
}

/// EIP-2718 type of a valid encoding: legacy ones start with an RLP list.
#[must_use]
pub fn tx_type(raw: &[u8]) -> u8 {
    raw.first().copied().filter(|&byte| byte < 0x80).unwrap_or(0)
}

/// Consensus encoding of a receipt: type byte, then the RLP of status, gas, bloom, logs.
#[must_use]
pub fn receipt_2718(receipt: &ReceiptView<'_>) -> Vec<u8> {
    let logs: Vec<Log> = receipt.logs().cloned().collect();
    let mut bloom = Bloom::ZERO;
    for entry in &logs {
        bloom.accrue_log(entry);
    }
    let payload_length =
        receipt.success.length() + receipt.cumulative_gas_used.length() + bloom.length() + logs.length();
    let mut out = Vec::with_capacity(payload_length + 8);
    match tx_type(receipt.tx.raw) {
        0 => {}
        kind => out.push(kind),
    }
    alloy_rlp::Header { list: true, payload_length }.encode(&mut out);
    receipt.success.encode(&mut out);
    receipt.cumulative_gas_used.encode(&mut out);
    bloom.encode(&mut out);
    logs.encode(&mut out);
    out
}

/// The block's RLP: header, transactions, no uncles, no withdrawals. The block has a hash.
pub fn block_rlp(source: &BlockSource<'_>, out: &mut Vec<u8>) -> Result<(), RpcError> {
    let Some((header, _)) = source.header() else { return Ok(()) };
    let list_bytes = transactions_rlp_bytes(source)?;
    let payload_length = header.length() + list_length(list_bytes) + 1 + usize::from(header.withdrawals_root.is_some());
    alloy_rlp::Header { list: true, payload_length }.encode(out);
    header.encode(out);
    alloy_rlp::Header { list: true, payload_length: list_bytes }.encode(out);
    for index in 0..source.tx_count() {
        let Some(tx) = source.transaction(index)? else { break };
        match tx_type(tx.raw) {
            0 => out.extend_from_slice(tx.raw),
            _ => tx.raw.encode(out),
        }
    }
    out.push(alloy_rlp::EMPTY_LIST_CODE);
    if header.withdrawals_root.is_some() {
        out.push(alloy_rlp::EMPTY_LIST_CODE);
    }
    Ok(())
}

/// Length of the block's RLP; of an open block, what its body has by now.
fn block_rlp_bytes(source: &BlockSource<'_>) -> Result<usize, RpcError> {
    if let BlockSource::Sealed(sealed) = source {
        return Ok(sealed.size_bytes as usize);
    }
    let list_bytes = transactions_rlp_bytes(source)?;
    let Some((header, _)) = source.header() else { return Ok(list_length(list_bytes)) };
    let payload = header.length() + list_length(list_bytes) + 1 + usize::from(header.withdrawals_root.is_some());
    Ok(list_length(payload))
}

fn transactions_rlp_bytes(source: &BlockSource<'_>) -> Result<usize, RpcError> {
    let mut bytes = 0;
    for index in 0..source.tx_count() {
        let Some(tx) = source.transaction(index)? else { break };
        bytes += if tx_type(tx.raw) == 0 { tx.raw.len() } else { tx.raw.length() };
    }
    Ok(bytes)
}

fn list_length(payload_length: usize) -> usize {
    alloy_rlp::Header { list: true, payload_length }.length_with_payload()
}

/// Whether a block with this bloom may hold a log of `address` or with `topic`.
#[must_use]
pub fn bloom_may_contain(bloom: &Bloom, input: &[u8]) -> bool {
    bloom.contains_input(BloomInput::Raw(input))
}
