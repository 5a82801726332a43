//! `eth_getLogs` over the canonical chain, with blooms before bodies.

use alloy_primitives::{BloomInput, Log};
use serde_json::Value;

use super::params::{Params, address_of, hash_of, number_of};
use super::shape;
use crate::dev_l1::node::Node;
use crate::primitives::{Address, B256, Bloom};
use crate::rpc::error::RpcError;

const BLOCKS_MAX: u64 = 10_000;
const LOGS_MAX: usize = 10_000;
const ALTERNATIVES_MAX: usize = 1_000;
/// A log has at most four topics.
const TOPICS_MAX: usize = 4;

/// What a log must be: empty lists take anything.
struct Filter {
    addresses: Vec<Address>,
    topics: Vec<Vec<B256>>,
}

impl Filter {
    fn may_be_in(&self, bloom: &Bloom) -> bool {
        let has = |bytes: &[u8]| bloom.contains_input(BloomInput::Raw(bytes));
        (self.addresses.is_empty() || self.addresses.iter().any(|address| has(address.as_slice())))
            && self.topics.iter().all(|topic| topic.is_empty() || topic.iter().any(|hash| has(hash.as_slice())))
    }

    fn takes(&self, log: &Log) -> bool {
        let topics = log.topics();
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && self.topics.len() <= topics.len()
            && self.topics.iter().zip(topics).all(|(wanted, topic)| wanted.is_empty() || wanted.contains(topic))
    }
}

/// One value, several, or null for any.
fn alternatives<T>(value: Option<&Value>, parse: impl Fn(&Value) -> Result<T, RpcError>) -> Result<Vec<T>, RpcError> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() > ALTERNATIVES_MAX => {
            Err(RpcError::invalid_params(format!("{} alternatives, at most {ALTERNATIVES_MAX}", list.len())))
        }
        Some(Value::Array(list)) => list.iter().map(parse).collect(),
        Some(single) => Ok(vec![parse(single)?]),
    }
}

/// `eth_getLogs(filter)`.
pub fn get(node: &Node, params: &Params<'_>) -> Result<Value, RpcError> {
    let filter = params.get(0).ok_or_else(|| RpcError::invalid_params("missing value for required argument 0"))?;
    let addresses = alternatives(filter.get("address"), |value| address_of(value, 0))?;
    let topics = match filter.get("topics") {
        Some(Value::Array(list)) if list.len() > TOPICS_MAX => {
            return Err(RpcError::invalid_params(format!("{} topics, a log has at most {TOPICS_MAX}", list.len())));
        }
        Some(Value::Array(list)) => {
            list.iter().map(|topic| alternatives(Some(topic), |value| hash_of(value, 0))).collect::<Result<_, _>>()?
        }
        _ => Vec::new(),
    };
    let wanted = Filter { addresses, topics };
    let mut found = Vec::new();
    for hash in blocks(node, filter)? {
        let is_possible = node.chain.header(&hash).is_some_and(|header| wanted.may_be_in(&header.logs_bloom));
        let Some(block) = (if is_possible { node.chain.block(&hash)? } else { None }) else { continue };
        let mut log_index = 0;
        for (tx_index, receipt) in block.receipts.iter().enumerate() {
            for log in &receipt.logs {
                if wanted.takes(log) {
                    found.push(shape::log(&block, tx_index, log_index, log));
                }
                log_index += 1;
            }
        }
        if found.len() > LOGS_MAX {
            return Err(RpcError::limit(format!("query returned more than {LOGS_MAX} logs")));
        }
    }
    Ok(Value::Array(found))
}

fn blocks(node: &Node, filter: &Value) -> Result<Vec<B256>, RpcError> {
    if let Some(value) = filter.get("blockHash").filter(|value| !value.is_null()) {
        let hash = hash_of(value, 0)?;
        return match node.chain.header(&hash) {
            Some(_) => Ok(vec![hash]),
            None => Err(RpcError::server("unknown block")),
        };
    }
    let bound = |name: &str, default: u64| match filter.get(name).filter(|value| !value.is_null()) {
        Some(value) => number_of(node, value, 0),
        None => Ok(default),
    };
    let head = node.chain.head_number();
    let (from, to) = (bound("fromBlock", head)?, bound("toBlock", head)?.min(head));
    if from > to {
        return Ok(Vec::new());
    }
    if to - from >= BLOCKS_MAX {
        return Err(RpcError::limit(format!("query spans {} blocks, at most {BLOCKS_MAX}", to - from + 1)));
    }
    Ok((from..=to).filter_map(|number| node.chain.hash_at(number)).collect())
}
