//! A sealed block → the parameters of `engine_newPayloadV4`, as JSON text.
//!
//! ```text
//! [ExecutionPayloadV3, versioned hashes, parentBeaconBlockRoot, executionRequests]
//! ```
//!
//! Written straight into the request's buffer: hex digits once, no tree of values in between. Blob
//! transactions are forbidden on this chain (EIP-8079), so the versioned hashes are always `[]`; withdrawals are `[]`, not null.
//! Source: execution-apis `prague.md`; the type byte alone as a request is -32602 in go-ethereum, empty requests are left out.

use alloy_consensus::Header;

use crate::builder::block::BlockContext;
use crate::codec::hex;
use crate::primitives::{B256, U256};

/// The facts of a block that a payload is made of.
pub struct PayloadParts<'a, T, R> {
    pub header: &'a Header,
    pub hash: B256,
    /// 2718 encodings, in order.
    pub transactions: T,
    /// EIP-7685 requests, type byte first, empty ones left out.
    pub requests: R,
}

/// Appends the four parameters of `engine_newPayloadV4`.
pub fn new_payload_params<'a>(
    parts: PayloadParts<'_, impl Iterator<Item = &'a [u8]>, impl Iterator<Item = &'a [u8]>>,
    out: &mut Vec<u8>,
) {
    let PayloadParts { header, hash, transactions, requests } = parts;
    out.push(b'[');
    out.push(b'{');
    data(out, "parentHash", header.parent_hash.as_slice());
    data(out, ",feeRecipient", header.beneficiary.as_slice());
    data(out, ",stateRoot", header.state_root.as_slice());
    data(out, ",receiptsRoot", header.receipts_root.as_slice());
    data(out, ",logsBloom", header.logs_bloom.as_slice());
    data(out, ",prevRandao", header.mix_hash.as_slice());
    quantity(out, ",blockNumber", header.number);
    quantity(out, ",gasLimit", header.gas_limit);
    quantity(out, ",gasUsed", header.gas_used);
    quantity(out, ",timestamp", header.timestamp);
    data(out, ",extraData", &header.extra_data);
    quantity(out, ",baseFeePerGas", header.base_fee_per_gas.unwrap_or_default());
    data(out, ",blockHash", hash.as_slice());
    name(out, ",transactions");
    list(out, transactions);
    name(out, ",withdrawals");
    out.extend_from_slice(b"[]");
    quantity(out, ",blobGasUsed", header.blob_gas_used.unwrap_or_default());
    quantity(out, ",excessBlobGas", header.excess_blob_gas.unwrap_or_default());
    out.extend_from_slice(b"},[],\"");
    hex::data_into(header.parent_beacon_block_root.unwrap_or_default().as_slice(), out);
    out.extend_from_slice(b"\",");
    list(out, requests);
    out.push(b']');
}

/// Appends the parameters of `engine_forkchoiceUpdatedV3`, without payload attributes: we build the blocks.
pub fn forkchoice_params(head: B256, safe: B256, finalized: B256, out: &mut Vec<u8>) {
    out.extend_from_slice(b"[{");
    data(out, "headBlockHash", head.as_slice());
    data(out, ",safeBlockHash", safe.as_slice());
    data(out, ",finalizedBlockHash", finalized.as_slice());
    out.extend_from_slice(b"},null]");
}

/// Appends `PayloadAttributesV3` of a block that the client is to build.
pub fn attributes(context: &BlockContext, out: &mut Vec<u8>) {
    out.push(b'{');
    quantity(out, "timestamp", context.timestamp);
    data(out, ",prevRandao", context.prev_randao.as_slice());
    data(out, ",suggestedFeeRecipient", context.coinbase.as_slice());
    name(out, ",withdrawals");
    out.extend_from_slice(b"[]");
    data(out, ",parentBeaconBlockRoot", context.parent_beacon_block_root.as_slice());
    out.push(b'}');
}

/// Appends the parameters of `engine_forkchoiceUpdatedV3` that let the client build on the block that is its head.
pub fn forkchoice_with_attributes(context: &BlockContext, out: &mut Vec<u8>) {
    out.extend_from_slice(b"[{");
    data(out, "headBlockHash", context.parent_hash.as_slice());
    data(out, ",safeBlockHash", B256::ZERO.as_slice());
    data(out, ",finalizedBlockHash", B256::ZERO.as_slice());
    out.extend_from_slice(b"},");
    attributes(context, out);
    out.push(b']');
}

/// `,name` puts the comma before the name.
fn name(out: &mut Vec<u8>, name: &str) {
    let bare = name.strip_prefix(',');
    if bare.is_some() {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(bare.unwrap_or(name).as_bytes());
    out.extend_from_slice(b"\":");
}

fn data(out: &mut Vec<u8>, member: &str, bytes: &[u8]) {
    name(out, member);
    string(out, bytes);
}

fn quantity(out: &mut Vec<u8>, member: &str, value: u64) {
    name(out, member);
    out.push(b'"');
    hex::quantity_into(U256::from(value), out);
    out.push(b'"');
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    hex::data_into(bytes, out);
    out.push(b'"');
}

fn list<'a>(out: &mut Vec<u8>, items: impl Iterator<Item = &'a [u8]>) {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        string(out, item);
    }
    out.push(b']');
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::primitives::{Address, Bytes};

    #[test]
    fn a_block_is_written_field_by_field() {
        let header = Header {
            parent_hash: B256::repeat_byte(1),
            beneficiary: Address::repeat_byte(2),
            number: 0x1234,
            gas_limit: 30_000_000,
            gas_used: 0,
            timestamp: 7,
            extra_data: Bytes::from_static(b"\x01\xff"),
            base_fee_per_gas: Some(1_000_000),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            parent_beacon_block_root: Some(B256::repeat_byte(3)),
            mix_hash: B256::repeat_byte(4),
            ..Header::default()
        };
        let mut out = Vec::new();
        let transactions: [&[u8]; 2] = [&[0x02, 0xf8], &[0xc0]];
        let requests: [&[u8]; 1] = [&[0x01, 0xaa]];
        let parts = PayloadParts {
            header: &header,
            hash: B256::repeat_byte(9),
            transactions: transactions.into_iter(),
            requests: requests.into_iter(),
        };
        new_payload_params(parts, &mut out);
        let value: Value = serde_json::from_slice(&out).unwrap();
        let payload = &value[0];
        assert_eq!(payload["parentHash"], json!(B256::repeat_byte(1)));
        assert_eq!(payload["feeRecipient"], json!("0x0202020202020202020202020202020202020202"));
        assert_eq!(payload["prevRandao"], json!(B256::repeat_byte(4)));
        assert_eq!(payload["blockNumber"], "0x1234");
        assert_eq!(payload["gasUsed"], "0x0");
        assert_eq!(payload["extraData"], "0x01ff");
        assert_eq!(payload["baseFeePerGas"], "0xf4240");
        assert_eq!(payload["blockHash"], json!(B256::repeat_byte(9)));
        assert_eq!(payload["transactions"], json!(["0x02f8", "0xc0"]));
        assert_eq!(payload["withdrawals"], json!([]));
        assert_eq!(payload["excessBlobGas"], "0x0");
        assert_eq!(payload["logsBloom"].as_str().unwrap().len(), 2 + 512);
        assert_eq!(payload.as_object().unwrap().len(), 17);
        assert_eq!(value[1], json!([]));
        assert_eq!(value[2], json!(B256::repeat_byte(3)));
        assert_eq!(value[3], json!(["0x01aa"]));
        assert_eq!(value.as_array().unwrap().len(), 4);
    }

    #[test]
    fn a_forkchoice_names_its_three_heads() {
        let mut out = Vec::new();
        forkchoice_params(B256::repeat_byte(1), B256::repeat_byte(2), B256::ZERO, &mut out);
        let expected = json!([{
            "headBlockHash": B256::repeat_byte(1), "safeBlockHash": B256::repeat_byte(2), "finalizedBlockHash": B256::ZERO,
        }, null]);
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
    }
}
