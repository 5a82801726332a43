//! Whether an execution client keeps what `delegated` needs: states of some age, and where blocks are cut for L1, trie nodes by their hashes.
//!
//! Input → output: a way to ask, what is needed → nothing, or both values and the flags that help. Pure but for the asking. A client that is behind is
//! judged by what it has: it is fed, and keeps that as it keeps the rest.

use serde_json::{Value, json};

use crate::crypto::keccak::keccak256;
use crate::engine_api::types::{CallError, Method, remote_block};
use crate::primitives::{Address, B256, Bytes};

/// Blocks below the head where a root is looked for: go-ethereum without an archive writes the states of its head and of the block before when it ends.
const BELOW_HEAD: u64 = 2;

/// What is needed of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Number of the oldest block after which the state is read.
    pub oldest: u64,
    /// Trie nodes are asked for by their hashes (`debug_dbGet`).
    pub nodes_by_hash: bool,
}

/// Why a client does not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveFault {
    #[error(transparent)]
    Away(#[from] CallError),
    #[error(
        "the execution client has the states after block {kept} and newer ones, and the one after block {needed} is needed ({what}): go-ethereum keeps them all with --state.scheme hash --gcmode archive and a database that `geth init --state.scheme hash` made anew; it is fed again by itself"
    )]
    StateGone { needed: u64, kept: u64, what: String },
    #[error(
        "the execution client has {found} under the root of the state after block {number}, and {root} is needed there: blocks are cut for L1 with trie nodes by their hashes (debug_dbGet), which go-ethereum has with --state.scheme hash --gcmode archive, a database that `geth init --state.scheme hash` made, and `debug` in --http.api"
    )]
    NodesNotByHash { number: u64, root: B256, found: String },
}

/// Asks the client whether it keeps what is needed.
///
/// # Errors
/// See [`ArchiveFault`].
pub fn check(
    needs: Needs,
    ask: &mut dyn FnMut(Method, Vec<u8>) -> Result<Value, CallError>,
) -> Result<(), ArchiveFault> {
    let shown = ask(Method::ReadBlock, br#"["latest",false]"#.to_vec())?;
    let malformed =
        |shown: &Value| CallError::malformed(Method::ReadBlock, "a block that lacks a field", &shown.to_string());
    let head = remote_block(&shown).ok_or_else(|| malformed(&shown))?.number;
    let oldest = needs.oldest.min(head);
    // Block 0 stays whatever is kept: the next one tells.
    for needed in [oldest, (oldest + 1).min(head)] {
        if let Some(what) = missing(needed, ask)? {
            // Without a state at its head there is another trouble, which its session meets.
            if missing(head, ask)?.is_none() {
                return Err(ArchiveFault::StateGone { needed, kept: oldest_kept(needed, head, ask)?, what });
            }
        }
    }
    if !needs.nodes_by_hash {
        return Ok(());
    }
    let number = head.saturating_sub(BELOW_HEAD);
    let shown = ask(Method::ReadBlock, format!(r#"["{number:#x}",false]"#).into_bytes())?;
    let root: Option<B256> = shown["stateRoot"].as_str().and_then(|root| root.parse().ok());
    let root = root.ok_or_else(|| malformed(&shown))?;
    let found = match ask(Method::DatabaseEntry, json!([root]).to_string().into_bytes()) {
        Ok(answer) => match answer.as_str().and_then(|node| node.parse::<Bytes>().ok()) {
            Some(node) if keccak256(&node) == root => return Ok(()),
            _ => "another node".to_owned(),
        },
        Err(error) if error.code().is_some() => format!("nothing ({error})"),
        Err(error) => return Err(error.into()),
    };
    Err(ArchiveFault::NodesNotByHash { number, root, found })
}

/// The client's words where it has no state after a block.
fn missing(
    number: u64,
    ask: &mut dyn FnMut(Method, Vec<u8>) -> Result<Value, CallError>,
) -> Result<Option<String>, CallError> {
    match ask(Method::GetBalance, json!([Address::ZERO, format!("{number:#x}")]).to_string().into_bytes()) {
        Ok(_) => Ok(None),
        Err(error) if error.code().is_some() => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// The oldest block from which on there are states, between one without and one with.
fn oldest_kept(
    mut without: u64,
    mut with: u64,
    ask: &mut dyn FnMut(Method, Vec<u8>) -> Result<Value, CallError>,
) -> Result<u64, CallError> {
    while without + 1 < with {
        let middle = without + (with - without) / 2;
        match missing(middle, ask)? {
            Some(_) => without = middle,
            None => with = middle,
        }
    }
    Ok(with)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_api::types::ErrorCode;

    /// A client with this head, which has states from block `kept` on, and block 0's; its database holds nodes by hash or not.
    #[track_caller]
    fn check_client(head: u64, kept: u64, has_nodes: bool, needs: Needs, expected: &str) {
        let node = Bytes::from_static(b"a node");
        let error = |method: Method, message: &str| CallError::Rpc {
            method: method.name(),
            number: -32_000,
            code: ErrorCode::from(-32_000),
            message: message.to_owned(),
        };
        let mut asked = 0;
        let mut ask = |method: Method, params: Vec<u8>| {
            asked += 1;
            let params: Value = serde_json::from_slice(&params).expect("JSON");
            let number = |at: usize| match params[at].as_str().expect("a text") {
                "latest" => head,
                hex => u64::from_str_radix(&hex[2..], 16).expect("hex"),
            };
            match method {
                Method::ReadBlock => Ok(json!({
                    "number": format!("{:#x}", number(0)), "hash": B256::ZERO, "stateRoot": keccak256(&node),
                })),
                Method::GetBalance if number(1) == 0 || number(1) >= kept => Ok(json!("0x0")),
                Method::GetBalance => Err(error(method, "missing trie node")),
                _ if has_nodes => Ok(json!(node)),
                _ => Err(error(method, "pebble: not found")),
            }
        };
        let found = check(needs, &mut ask).map_or_else(|fault| fault.to_string(), |()| "kept".to_owned());
        assert!(found.starts_with(expected), "{found}");
        assert!(asked < 80, "{asked} questions");
    }

    #[test]
    fn what_is_kept_and_what_is_needed_are_compared() {
        let state = |oldest| Needs { oldest, nodes_by_hash: false };
        let nodes = Needs { oldest: 0, nodes_by_hash: true };
        check_client(0, 0, false, state(0), "kept");
        check_client(1_000, 1, false, state(0), "kept");
        check_client(1_000, 873, false, state(873), "kept");
        check_client(1_000, 873, false, state(999), "kept");
        // It is behind, and is fed.
        check_client(1_000, 873, false, state(5_000), "kept");
        let gone = "the execution client has the states after block 873 and newer ones, and the one after block";
        check_client(
            1_000,
            873,
            false,
            state(872),
            &format!("{gone} 872 is needed (eth_getBalance: error -32000: missing"),
        );
        check_client(1_000, 873, false, state(1), &format!("{gone} 1 is needed"));
        // Block 0 is always there.
        check_client(1_000, 873, false, state(0), &format!("{gone} 1 is needed"));
        check_client(1_000, 1_000, false, state(3), "the execution client has the states after block 1000 and newer");
        // Not even at its head: that is not a matter of age.
        check_client(1_000, 2_000, false, state(3), "kept");
        check_client(1_000, 0, true, nodes, "kept");
        let by_path = "the execution client has nothing (debug_dbGet: error -32000: pebble: not found) under the root of the state after block 998,";
        check_client(1_000, 0, false, nodes, by_path);
        check_client(
            1,
            0,
            false,
            nodes,
            "the execution client has nothing (debug_dbGet: error -32000: pebble: not found) under the root of the state after block 0,",
        );
    }

    #[test]
    fn who_does_not_answer_is_not_judged() {
        let timed_out = CallError::TimedOut { method: "eth_getBalance", limit_ms: 5 };
        let needs = Needs { oldest: 3, nodes_by_hash: true };
        let found = check(needs, &mut |_, _| Err(timed_out.clone()));
        assert_eq!(found, Err(ArchiveFault::Away(timed_out)));
    }
}
