//! Parameters by position, with errors that name it.

use serde_json::Value;

use crate::codec::hex;
use crate::dev_l1::node::Node;
use crate::primitives::{Address, B256, U256};
use crate::rpc::error::RpcError;

/// Positional parameters of a request.
pub struct Params<'a>(&'a [Value]);

impl<'a> Params<'a> {
    /// # Errors
    /// Named parameters: no method has them.
    pub fn new(params: &'a Value) -> Result<Self, RpcError> {
        let list = params.as_array().ok_or_else(|| RpcError::invalid_params("parameters must be an array"))?;
        Ok(Self(list))
    }

    /// `None`: missing or null.
    pub fn get(&self, index: usize) -> Option<&'a Value> {
        self.0.get(index).filter(|value| !value.is_null())
    }

    fn needed(&self, index: usize) -> Result<&'a Value, RpcError> {
        self.get(index).ok_or_else(|| RpcError::invalid_params(format!("missing value for required argument {index}")))
    }

    pub fn text(&self, index: usize) -> Result<&'a str, RpcError> {
        text_of(self.needed(index)?, index)
    }

    pub fn hash(&self, index: usize) -> Result<B256, RpcError> {
        hash_of(self.needed(index)?, index)
    }

    pub fn address(&self, index: usize) -> Result<Address, RpcError> {
        address_of(self.needed(index)?, index)
    }

    pub fn quantity(&self, index: usize) -> Result<u64, RpcError> {
        u64_of(self.needed(index)?, index)
    }

    /// A slot: at most 32 bytes of hex, with or without leading zeros, as clients send it.
    pub fn word(&self, index: usize) -> Result<U256, RpcError> {
        word_of(self.needed(index)?, index)
    }

    pub fn slots(&self, index: usize) -> Result<Vec<U256>, RpcError> {
        let list = self.needed(index)?.as_array();
        let list = list.ok_or_else(|| invalid(index, "an array of slots is expected"))?;
        list.iter().map(|slot| word_of(slot, index)).collect()
    }

    /// `false` when it is missing.
    pub fn flag(&self, index: usize) -> Result<bool, RpcError> {
        match self.get(index) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| invalid(index, "a boolean is expected")),
        }
    }

    pub fn is_pending(&self, index: usize) -> bool {
        self.get(index).and_then(Value::as_str) == Some("pending")
    }

    /// The block that a number, a tag, a hash or an object names; the newest when it is missing, `None` when there is no such block.
    /// No block is pending here: `pending` is the newest.
    pub fn block(&self, node: &Node, index: usize) -> Result<Option<B256>, RpcError> {
        self.get(index).map_or(Ok(Some(node.chain.head_hash())), |value| block_of(node, value, index))
    }
}

fn invalid(index: usize, what: impl std::fmt::Display) -> RpcError {
    RpcError::invalid_params(format!("invalid argument {index}: {what}"))
}

pub fn block_of(node: &Node, value: &Value, index: usize) -> Result<Option<B256>, RpcError> {
    if let Some(object) = value.as_object() {
        let named = object.get("blockHash").or_else(|| object.get("blockNumber"));
        let hash = block_of(node, named.ok_or_else(|| invalid(index, "blockHash or blockNumber is expected"))?, index)?;
        let must_be_canonical = object.get("requireCanonical").and_then(Value::as_bool) == Some(true);
        return Ok(hash.filter(|hash| !must_be_canonical || node.chain.is_canonical(hash)));
    }
    let text = text_of(value, index)?;
    if text.len() == 66 {
        let hash = hash_of(value, index)?;
        return Ok(node.chain.header(&hash).map(|_| hash));
    }
    Ok(node.chain.hash_at(number_of(node, value, index)?))
}

/// A block number or a tag.
pub fn number_of(node: &Node, value: &Value, index: usize) -> Result<u64, RpcError> {
    Ok(match text_of(value, index)? {
        "latest" | "pending" => node.chain.head_number(),
        "safe" => node.chain.safe_number(),
        "finalized" => node.chain.finalized_number(),
        "earliest" => 0,
        _ => u64_of(value, index)?,
    })
}

fn text_of(value: &Value, index: usize) -> Result<&str, RpcError> {
    value.as_str().ok_or_else(|| invalid(index, "a string is expected"))
}

pub fn hash_of(value: &Value, index: usize) -> Result<B256, RpcError> {
    hex::parse_fixed(text_of(value, index)?).map(B256::from).map_err(|error| invalid(index, error))
}

pub fn address_of(value: &Value, index: usize) -> Result<Address, RpcError> {
    hex::parse_fixed(text_of(value, index)?).map(Address::from).map_err(|error| invalid(index, error))
}

/// A quantity, or a plain number.
pub fn u64_of(value: &Value, index: usize) -> Result<u64, RpcError> {
    if let Some(number) = value.as_u64() {
        return Ok(number);
    }
    hex::parse_quantity_u64(text_of(value, index)?).map_err(|error| invalid(index, error))
}

pub fn u256_of(value: &Value, index: usize) -> Result<U256, RpcError> {
    hex::parse_quantity_u256(text_of(value, index)?).map_err(|error| invalid(index, error))
}

fn word_of(value: &Value, index: usize) -> Result<U256, RpcError> {
    let digits =
        text_of(value, index)?.strip_prefix("0x").ok_or_else(|| invalid(index, "hex string without 0x prefix"))?;
    if digits.len() > 64 {
        return Err(invalid(index, format!("{} digits, at most 64 are a slot", digits.len())));
    }
    U256::from_str_radix(digits, 16).map_err(|error| invalid(index, error))
}
