//! The check that no acknowledged transaction is lost: accepted hashes → a count per end state.
//!
//! A transaction has ended when it is in a block, or when the node names an end state with
//! `sequencer_getTransactionStatus`. Against nodes without that method it has ended when it has a receipt.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::rpc::RpcClient;
use crate::error::{Error, Result};

pub const STATUS_METHOD: &str = "sequencer_getTransactionStatus";
const RECEIPT_METHOD: &str = "eth_getTransactionReceipt";

/// States in which the history of a transaction has ended: in a block, or given up with a reason. Every other state,
/// known or not, is none: a state that this list lacks fails the check instead of hiding a loss.
const END_STATES: [&str; 9] =
    ["sealed", "posted", "safe", "finalized", "replaced", "invalidated", "expired", "evicted", "stopped"];

/// Pause between rounds of questions.
const ROUND_MS: u64 = 250;

/// Hashes shown when transactions are lost.
const LOST_SHOWN_MAX: usize = 5;

/// JSON-RPC's code for a method that does not exist.
pub const METHOD_NOT_FOUND: i64 = -32601;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    pub method: String,
    pub accepted: u64,
    /// Accepted transactions by state; "sealed" also holds those that were seen in a block's list.
    pub states: BTreeMap<String, u64>,
    /// Accepted transactions without an end state: lost, or not ended within the wait.
    pub lost: u64,
    pub lost_examples: Vec<B256>,
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states: Vec<String> = self.states.iter().map(|(state, count)| format!("{state} {count}")).collect();
        write!(f, "end states of {} accepted ({}): {}", self.accepted, self.method, states.join(", "))?;
        if self.lost > 0 {
            let examples: Vec<String> = self.lost_examples.iter().map(B256::to_string).collect();
            write!(f, "\nLOST: {} acknowledged transactions have no end state, as {}", self.lost, examples.join(", "))?;
        }
        Ok(())
    }
}

/// Asks until every hash in `open` has ended or `wait` is over. `sealed` others were already seen in blocks.
pub fn verify(client: &mut RpcClient, mut open: Vec<B256>, sealed: u64, wait: Duration) -> Result<Verification> {
    let accepted = sealed + open.len() as u64;
    let mut states = BTreeMap::new();
    if sealed > 0 {
        states.insert("sealed".to_owned(), sealed);
    }
    let method = choose_method(client)?;
    let deadline = Instant::now() + wait;
    let mut last_states = Vec::new();
    while !open.is_empty() {
        last_states = ask(client, method, &open)?;
        let mut still_open = Vec::new();
        let mut still_states = Vec::new();
        for (hash, state) in open.into_iter().zip(last_states) {
            if END_STATES.contains(&state.as_str()) {
                *states.entry(state).or_insert(0) += 1;
            } else {
                still_open.push(hash);
                still_states.push(state);
            }
        }
        (open, last_states) = (still_open, still_states);
        if open.is_empty() || Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(ROUND_MS));
    }
    for state in last_states {
        *states.entry(format!("{state} (not an end)")).or_insert(0) += 1;
    }
    let lost_examples = open.iter().copied().take(LOST_SHOWN_MAX).collect();
    Ok(Verification { method: method.to_owned(), accepted, states, lost: open.len() as u64, lost_examples })
}

pub fn choose_method(client: &mut RpcClient) -> Result<&'static str> {
    match client.try_call(STATUS_METHOD, json!([B256::ZERO]))? {
        Err(error) if error.code == METHOD_NOT_FOUND || error.message.contains(STATUS_METHOD) => Ok(RECEIPT_METHOD),
        _ => Ok(STATUS_METHOD),
    }
}

/// The state of each hash, in order.
fn ask(client: &mut RpcClient, method: &'static str, hashes: &[B256]) -> Result<Vec<String>> {
    let params: Vec<Value> = hashes.iter().map(|hash| json!([hash])).collect();
    let replies = client.batch(method, &params)?;
    let read = |reply: std::result::Result<Value, _>| match reply {
        Ok(value) => state_of(method, &value),
        Err(error) => Err(Error::Rpc { method: method.to_owned(), error }),
    };
    replies.into_iter().map(read).collect()
}

fn state_of(method: &'static str, value: &Value) -> Result<String> {
    if value.is_null() {
        return Ok("null".into());
    }
    let state = match method {
        RECEIPT_METHOD => Some(if value["blockNumber"].is_string() { "sealed" } else { "pending" }),
        _ => value["status"].as_str().or_else(|| value["state"].as_str()),
    };
    let unexpected = || Error::Reply { method: method.to_owned(), detail: format!("no \"status\" in {value}") };
    state.map(str::to_lowercase).ok_or_else(unexpected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &'static str, value: Value, expected: Option<(&str, bool)>) {
        let state = state_of(method, &value).ok();
        let seen = state.as_deref().map(|state| (state, END_STATES.contains(&state)));
        assert_eq!(seen, expected, "{value}");
    }

    #[test]
    fn states() {
        check(STATUS_METHOD, json!({"status": "sealed"}), Some(("sealed", true)));
        check(STATUS_METHOD, json!({"status": "conditional"}), Some(("conditional", false)));
        check(STATUS_METHOD, json!({"state": "Finalized"}), Some(("finalized", true)));
        check(STATUS_METHOD, json!({"state": "replaced", "reason": "by 0x1"}), Some(("replaced", true)));
        check(STATUS_METHOD, json!({"state": "preconfirmed"}), Some(("preconfirmed", false)));
        check(STATUS_METHOD, json!({"state": "unknown"}), Some(("unknown", false)));
        check(STATUS_METHOD, Value::Null, Some(("null", false)));
        check(STATUS_METHOD, json!({}), None);
        check(RECEIPT_METHOD, json!({"blockNumber": "0x1", "status": "0x0"}), Some(("sealed", true)));
        check(RECEIPT_METHOD, Value::Null, Some(("null", false)));
    }

    #[test]
    fn losses_are_shown() {
        let verification = Verification {
            method: STATUS_METHOD.into(),
            accepted: 3,
            states: BTreeMap::from([("sealed".into(), 2), ("unknown (not an end)".into(), 1)]),
            lost: 1,
            lost_examples: vec![B256::ZERO],
        };
        let text = verification.to_string();
        assert!(text.contains("sealed 2, unknown (not an end) 1") && text.contains("LOST: 1"), "{text}");
    }
}
