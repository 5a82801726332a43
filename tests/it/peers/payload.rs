//! A block as a node's `eth_` methods show it → the execution payload that the engine API takes.

use alloy_primitives::Bytes;
use serde_json::{Value, json};

use super::requests::requests_hash;
use super::rpc::Rpc;

/// Transactions asked for in one batch; well under everyone's limit.
const BATCH_CALLS: usize = 100;

/// An `ExecutionPayloadV3` and what travels beside it.
pub struct Payload {
    pub json: Value,
    pub parent_beacon_block_root: Value,
    pub requests: Vec<Bytes>,
}

/// (field of the payload, field of the block)
const FIELDS: [(&str, &str); 15] = [
    ("parentHash", "parentHash"),
    ("feeRecipient", "miner"),
    ("stateRoot", "stateRoot"),
    ("receiptsRoot", "receiptsRoot"),
    ("logsBloom", "logsBloom"),
    ("prevRandao", "mixHash"),
    ("blockNumber", "number"),
    ("gasLimit", "gasLimit"),
    ("gasUsed", "gasUsed"),
    ("timestamp", "timestamp"),
    ("extraData", "extraData"),
    ("baseFeePerGas", "baseFeePerGas"),
    ("blockHash", "hash"),
    ("blobGasUsed", "blobGasUsed"),
    ("excessBlobGas", "excessBlobGas"),
];

impl Payload {
    /// Packs a block with full transactions and its requests; raw transactions are read from the node.
    #[track_caller]
    pub fn pack(rpc: &Rpc, block: &Value, requests: Vec<Bytes>) -> Self {
        let transactions = block["transactions"].as_array().expect("a list of transactions");
        let hashes: Vec<&Value> = transactions.iter().map(|transaction| &transaction["hash"]).collect();
        let mut raw = Vec::with_capacity(hashes.len());
        for part in hashes.chunks(BATCH_CALLS) {
            let answers = rpc.batch("eth_getRawTransactionByHash", part.iter().map(|hash| json!([hash])));
            for (hash, answer) in part.iter().zip(answers) {
                raw.push(answer.unwrap_or_else(|error| panic!("raw transaction {hash}: {error:?}")));
            }
        }
        let mut payload = json!({"transactions": raw, "withdrawals": []});
        for (to, from) in FIELDS {
            assert!(block[from].is_string(), "block {} has no {from}: {block:.400}", block["number"]);
            payload[to] = block[from].clone();
        }
        assert_eq!(block["withdrawals"], json!([]), "withdrawals of block {}", block["number"]);
        let requests_hash = json!(requests_hash(&requests));
        assert_eq!(block["requestsHash"], requests_hash, "requestsHash of block {}: {requests:?}", block["number"]);
        Self { json: payload, parent_beacon_block_root: block["parentBeaconBlockRoot"].clone(), requests }
    }
}
