//! `txpool_content`, `txpool_contentFrom`, `txpool_inspect`: what the builder core copied out of its pool, in go-ethereum's form.
//!
//! As there, `pending` is what could be placed after the transactions of its sender before it and `queued` what waits for a nonce. What has
//! its place already has left the pool: it is in the block that is `pending`.

use alloy_consensus::transaction::Transaction as _;

use crate::crypto::keccak::keccak256;
use crate::messages::{PoolContent, PoolEntry};
use crate::rpc::encode;
use crate::rpc::error::RpcError;
use crate::rpc::json::{self, Object};
use crate::rpc::method::Method;
use crate::rpc::source::{TxView, decode_envelope};

/// Writes the result.
///
/// # Errors
/// -32603 when pooled bytes do not decode.
pub fn render(method: Method, content: &PoolContent, out: &mut Vec<u8>) -> Result<(), RpcError> {
    let mut entries: Vec<&PoolEntry> = content.entries.iter().collect();
    entries.sort_unstable_by_key(|entry| (entry.sender, entry.nonce));
    let mut object = Object::begin(out);
    for (name, is_ready) in [("pending", true), ("queued", false)] {
        let of_kind: Vec<&PoolEntry> = entries.iter().copied().filter(|entry| entry.is_ready == is_ready).collect();
        let out = object.member(name);
        match method {
            Method::TxpoolContentFrom => by_nonce(method, content, &of_kind, out)?,
            _ => by_sender(method, content, &of_kind, out)?,
        }
    }
    object.end();
    Ok(())
}

fn by_sender(method: Method, content: &PoolContent, entries: &[&PoolEntry], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let mut object = Object::begin(out);
    for of_sender in entries.chunk_by(|left, right| left.sender == right.sender) {
        by_nonce(method, content, of_sender, object.member(&of_sender[0].sender.to_checksum(None)))?;
    }
    object.end();
    Ok(())
}

fn by_nonce(method: Method, content: &PoolContent, entries: &[&PoolEntry], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let mut object = Object::begin(out);
    for entry in entries {
        let raw = content.raw(entry);
        let out = object.member(&entry.nonce.to_string());
        if method == Method::TxpoolInspect {
            json::string(&inspected(raw)?, out);
        } else {
            let view = TxView { raw, hash: keccak256(raw), sender: entry.sender };
            encode::transaction(&view, None, out)?;
        }
    }
    object.end();
    Ok(())
}

/// go-ethereum's one line: receiver, value, gas and the price that its `gasPrice` has.
fn inspected(raw: &[u8]) -> Result<String, RpcError> {
    let tx = decode_envelope(raw)?;
    let to = tx.to().map_or_else(|| "contract creation".to_owned(), |to| to.to_checksum(None));
    Ok(format!("{to}: {} wei + {} gas × {} wei", tx.value(), tx.gas_limit(), tx.max_fee_per_gas()))
}
