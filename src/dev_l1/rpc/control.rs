//! `dev_*`: what a test makes the node do. Only with the node's bearer token.

use serde_json::{Value, json};

use super::params::{Params, hash_of, u64_of};
use super::quantity;
use crate::dev_l1::faults::{Answer, Faults, HttpError, Lie};
use crate::dev_l1::node::{BLOCKS_PER_REQUEST_MAX, Node, Reorganisation};
use crate::primitives::B256;
use crate::rpc::error::RpcError;

/// Longest latency that can be asked for.
const LATENCY_MS_MAX: u64 = 600_000;

/// The first parameter of methods that take an object.
struct Options<'a>(&'a Value);

impl<'a> Options<'a> {
    fn of(params: &Params<'a>) -> Result<Self, RpcError> {
        match params.get(0) {
            Some(value) if value.is_object() => Ok(Self(value)),
            _ => Err(RpcError::invalid_params("invalid argument 0: an object is expected")),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, RpcError> {
        self.get(name).map(|value| u64_of(value, 0)).transpose()
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool) == Some(true)
    }

    fn text(&self, name: &str) -> Result<&'a str, RpcError> {
        let text = self.get(name).and_then(Value::as_str);
        text.ok_or_else(|| RpcError::invalid_params(format!("invalid argument 0: {name} is a string")))
    }

    /// The endpoints that the fault is for: one, or all.
    fn endpoints<'n>(&self, node: &'n mut Node) -> Result<&'n mut [Faults], RpcError> {
        let count = node.faults.len();
        match self.number("endpoint")? {
            None => Ok(&mut node.faults),
            Some(index) => {
                let index = usize::try_from(index).ok().filter(|index| *index < count);
                let index =
                    index.ok_or_else(|| RpcError::invalid_params(format!("there are {count} endpoints, from 0 on")))?;
                Ok(&mut node.faults[index..=index])
            }
        }
    }
}

pub fn call(node: &mut Node, now_ms: u64, method: &str, params: &Params<'_>) -> Result<Value, RpcError> {
    match method {
        "dev_mine" => {
            node.mine(now_ms, params.get(0).map_or(Ok(1), |value| u64_of(value, 0))?)?;
            Ok(json!(node.chain.head_hash()))
        }
        "dev_reorg" => reorganise(node, now_ms, &Options::of(params)?),
        "dev_stop" | "dev_resume" => {
            node.set_stopped(method == "dev_stop", now_ms);
            Ok(json!(node.chain.head_hash()))
        }
        "dev_dropTransaction" => {
            let hash = params.hash(0)?;
            done(node.pool.swallow(hash))
        }
        "dev_delayTransaction" => {
            let from_block = node.chain.head_number().saturating_add(1).saturating_add(params.quantity(1)?);
            done(node.pool.delay(params.hash(0)?, from_block))
        }
        "dev_setBaseFee" => {
            node.set_base_fee(params.quantity(0)?, params.get(1).map_or(Ok(1), |value| u64_of(value, 1))?);
            Ok(json!(true))
        }
        "dev_setLatency" => set_latency(node, &Options::of(params)?),
        "dev_setHttpError" => set_http_error(node, &Options::of(params)?),
        "dev_setAnswer" => set_answer(node, &Options::of(params)?),
        "dev_setLie" => set_lie(node, &Options::of(params)?),
        "dev_clearFaults" => {
            node.faults.iter_mut().for_each(|faults| *faults = Faults::default());
            Ok(json!(true))
        }
        "dev_status" => Ok(json!({
            "head": node.chain.head_hash(),
            "number": quantity(node.chain.head_number()),
            "pool": node.pool.len(),
            "isStopped": node.is_stopped(),
            "mode": node.chain.config().mode.name(),
            "fork": node.chain.config().fork.name(),
            "genesis": node.chain.hash_at(0),
        })),
        _ => Err(RpcError::method_not_found(method.as_bytes())),
    }
}

fn done(is_taken: bool) -> Result<Value, RpcError> {
    if is_taken { Ok(json!(true)) } else { Err(RpcError::limit("too many transactions have a fault already")) }
}

fn hashes(value: Option<&Value>) -> Result<Vec<B256>, RpcError> {
    match value.map(Value::as_array) {
        None => Ok(Vec::new()),
        Some(Some(list)) => list.iter().map(|hash| hash_of(hash, 0)).collect(),
        Some(None) => Err(RpcError::invalid_params("invalid argument 0: drop is an array of hashes")),
    }
}

fn reorganise(node: &mut Node, now_ms: u64, options: &Options<'_>) -> Result<Value, RpcError> {
    let depth =
        options.number("blocks")?.ok_or_else(|| RpcError::invalid_params("invalid argument 0: blocks is missing"))?;
    let new_blocks = options.number("newBlocks")?.unwrap_or(depth.saturating_add(1));
    if new_blocks > BLOCKS_PER_REQUEST_MAX {
        return Err(RpcError::limit(format!("{new_blocks} new blocks, at most {BLOCKS_PER_REQUEST_MAX}")));
    }
    let delayed = match options.get("delay").map(Value::as_object) {
        None => Vec::new(),
        Some(Some(object)) => object
            .iter()
            .map(|(hash, blocks)| Ok((hash_of(&json!(hash), 0)?, u64_of(blocks, 0)?)))
            .collect::<Result<_, RpcError>>()?,
        Some(None) => return Err(RpcError::invalid_params("invalid argument 0: delay maps hashes to blocks")),
    };
    let request = Reorganisation {
        depth,
        new_blocks,
        dropped: hashes(options.get("drop"))?,
        delayed,
        is_empty: options.flag("empty"),
        is_reversed: options.flag("reverse"),
    };
    Ok(node.reorganise(now_ms, &request)?)
}

fn set_latency(node: &mut Node, options: &Options<'_>) -> Result<Value, RpcError> {
    let latency_ms = options.number("ms")?.unwrap_or(0).min(LATENCY_MS_MAX);
    options.endpoints(node)?.iter_mut().for_each(|faults| faults.latency_ms = latency_ms);
    Ok(json!(true))
}

fn set_http_error(node: &mut Node, options: &Options<'_>) -> Result<Value, RpcError> {
    let error = match options.number("status")? {
        None => None,
        Some(status @ 400..=599) => Some(HttpError { status: status as u16, left: options.number("count")? }),
        Some(status) => return Err(RpcError::invalid_params(format!("status {status} is no error: 400 to 599 are"))),
    };
    let error = error.filter(|error| error.left != Some(0));
    options.endpoints(node)?.iter_mut().for_each(|faults| faults.http_error = error);
    Ok(json!(true))
}

fn set_answer(node: &mut Node, options: &Options<'_>) -> Result<Value, RpcError> {
    let method = options.text("method")?;
    let result = match options.get("error") {
        None => Ok(options.0.get("result").cloned().unwrap_or(Value::Null)),
        Some(error) => {
            let code = error.get("code").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok());
            let message = error.get("message").and_then(Value::as_str).unwrap_or("a test's error");
            Err((code.unwrap_or(-32_000), message.to_owned()))
        }
    };
    let answer = Answer { result, left: options.number("count")? };
    let is_taken = options.endpoints(node)?.iter_mut().all(|faults| faults.set_answer(method, answer.clone()));
    if is_taken { Ok(json!(true)) } else { Err(RpcError::limit("too many answers are prepared already")) }
}

fn set_lie(node: &mut Node, options: &Options<'_>) -> Result<Value, RpcError> {
    let name = options.text("kind")?;
    let lie = Lie::of_name(name);
    let lie = lie.ok_or_else(|| {
        RpcError::invalid_params(format!("no lie is called {name}: {:?} are", Lie::ALL.map(Lie::name)))
    })?;
    let is_on = options.get("on").is_none_or(|value| value.as_bool() == Some(true));
    options.endpoints(node)?.iter_mut().for_each(|faults| faults.set_lie(lie, is_on));
    Ok(json!(true))
}
