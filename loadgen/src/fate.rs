//! Why an accepted transaction is in no block: hash → the node's reason.
//!
//! Nodes with `sequencer_getTransactionStatus` give one; others say at least whether they still hold the transaction. What
//! the node neither holds nor explains is counted as unexplained: a drop without a reason.

use std::collections::BTreeMap;

use alloy_primitives::B256;
use serde_json::{Value, json};

use crate::client::rpc::RpcClient;
use crate::engine::replies::mask;
use crate::error::{Error, Result};
use crate::limits::FATES_ASKED_MAX;
use crate::verify::{self, STATUS_METHOD};

pub const UNEXPLAINED: &str = "accepted, unknown to the node afterwards, without a reason";

/// Asks for each hash; reasons with how often they came. They add up to the number of hashes.
pub fn explain(client: &mut RpcClient, hashes: &[B256]) -> Result<BTreeMap<String, u64>> {
    let mut reasons = BTreeMap::new();
    if hashes.is_empty() {
        return Ok(reasons);
    }
    let method = match verify::choose_method(client)? {
        STATUS_METHOD => STATUS_METHOD,
        _ => "eth_getTransactionByHash",
    };
    let asked = &hashes[..hashes.len().min(FATES_ASKED_MAX)];
    let params: Vec<Value> = asked.iter().map(|hash| json!([hash])).collect();
    for reply in client.batch(method, &params)? {
        let value = reply.map_err(|error| Error::Rpc { method: method.to_owned(), error })?;
        let reason = if method == STATUS_METHOD { of_status(&value) } else { of_transaction(&value) };
        *reasons.entry(reason).or_insert(0) += 1;
    }
    if hashes.len() > asked.len() {
        let reason = format!("accepted, not in a block yet (only {FATES_ASKED_MAX} were asked for)");
        reasons.insert(reason, (hashes.len() - asked.len()) as u64);
    }
    Ok(reasons)
}

/// From `sequencer_getTransactionStatus`.
pub fn of_status(value: &Value) -> String {
    let Some(state) = value["state"].as_str().or_else(|| value["status"].as_str()) else {
        return UNEXPLAINED.to_owned();
    };
    match state {
        "sealed" | "posted" | "safe" | "finalized" => "in a block that was seen too late".to_owned(),
        "replaced" => "replaced by another transaction of its sender".to_owned(),
        "queued" => "still behind a nonce gap when the run ended".to_owned(),
        "ready" | "conditional" | "preconfirmed" => format!("still {state} when the run ended"),
        _ => match value["reason"].as_str() {
            Some(reason) => format!("{state}: {}", mask(reason)),
            None => state.to_owned(),
        },
    }
}

/// From `eth_getTransactionByHash`.
fn of_transaction(value: &Value) -> String {
    match value {
        Value::Null => UNEXPLAINED.to_owned(),
        _ if value["blockNumber"].is_string() => "in a block that was seen too late".to_owned(),
        _ => "still in the pool when the run ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        let check = |value: Value, expected: &str| assert_eq!(of_status(&value), expected, "{value}");
        check(json!({"state": "sealed"}), "in a block that was seen too late");
        check(json!({"state": "queued"}), "still behind a nonce gap when the run ended");
        check(json!({"state": "preconfirmed"}), "still preconfirmed when the run ended");
        check(json!({"state": "replaced", "replacedBy": "0x1"}), "replaced by another transaction of its sender");
        check(json!({"state": "evicted", "reason": "pool full: tip 5 below 7"}), "evicted: pool full: tip N below N");
        check(json!({"state": "expired"}), "expired");
        check(Value::Null, UNEXPLAINED);
    }

    #[test]
    fn transactions() {
        assert_eq!(of_transaction(&Value::Null), UNEXPLAINED);
        assert_eq!(of_transaction(&json!({"blockNumber": "0x1"})), "in a block that was seen too late");
        assert_eq!(of_transaction(&json!({"blockNumber": null})), "still in the pool when the run ended");
    }
}
