//! Blocking JSON-RPC calls for set-up, block reading and verification: never used for measured requests.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use alloy_primitives::{Address, B256, U256};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Endpoint, http};
use crate::error::{Error, Result};
use crate::limits::{CALL_DEADLINE_S, SETUP_BATCH_CALLS_MAX, SETUP_BUSY_PAUSE_MS, SETUP_BUSY_ROUNDS_MAX};

/// The `error` member of a JSON-RPC reply.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RpcError {
    pub code: i64,
    #[serde(default)]
    pub message: String,
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

/// What a call was answered with.
pub type Outcome = std::result::Result<Value, RpcError>;

/// The error of a node that sheds load.
const BUSY: i64 = -32_005;

/// One keep-alive connection with one call, or one batch, in flight.
#[derive(Debug)]
pub struct RpcClient {
    endpoint: Endpoint,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl RpcClient {
    /// Connects lazily: the first call opens the connection.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, stream: None, buffer: Vec::new() }
    }

    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// One call; an error of the node is an `Error::Rpc`.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.try_call(method, params)?.map_err(|error| Error::Rpc { method: method.to_owned(), error })
    }

    /// One call; an error of the node is the inner `Err`.
    pub fn try_call(&mut self, method: &str, params: Value) -> Result<Outcome> {
        let body = json!({"jsonrpc": "2.0", "id": 0, "method": method, "params": params});
        let reply = self.post(&body)?;
        parse_outcome(method, reply)
    }

    /// The same method with many parameter lists, in batches; results in the order of `params`. Calls that the node is too busy for
    /// ([`BUSY`]) are made again, until it takes none for [`SETUP_BUSY_ROUNDS_MAX`] rounds.
    pub fn batch(&mut self, method: &str, params: &[Value]) -> Result<Vec<Outcome>> {
        let mut results: Vec<Option<Outcome>> = vec![None; params.len()];
        let mut open: Vec<usize> = (0..params.len()).collect();
        let mut rounds_left = SETUP_BUSY_ROUNDS_MAX;
        while !open.is_empty() {
            let mut refused = Vec::new();
            for chunk in open.chunks(SETUP_BATCH_CALLS_MAX) {
                let replies = self.one_batch(method, chunk.iter().map(|index| &params[*index]))?;
                for (index, reply) in chunk.iter().zip(replies) {
                    if reply.as_ref().is_err_and(|error| error.code == BUSY) {
                        refused.push(*index);
                    }
                    results[*index] = Some(reply);
                }
            }
            rounds_left = if refused.len() < open.len() { SETUP_BUSY_ROUNDS_MAX } else { rounds_left - 1 };
            if refused.is_empty() || rounds_left == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(SETUP_BUSY_PAUSE_MS));
            open = refused;
        }
        Ok(results.into_iter().map(|result| result.expect("each was asked in the first round")).collect())
    }

    fn one_batch<'a>(&mut self, method: &str, params: impl Iterator<Item = &'a Value>) -> Result<Vec<Outcome>> {
        let calls: Vec<Value> = params
            .enumerate()
            .map(|(id, params)| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
            .collect();
        let mut slots: Vec<Option<Outcome>> = vec![None; calls.len()];
        let unexpected = |detail: String| Error::Reply { method: method.to_owned(), detail };
        let Value::Array(replies) = self.post(&Value::Array(calls))? else {
            return Err(unexpected("a batch was not answered by an array".into()));
        };
        for reply in replies {
            let id = reply.get("id").and_then(Value::as_u64).and_then(|id| usize::try_from(id).ok());
            let slot =
                id.and_then(|id| slots.get_mut(id)).ok_or_else(|| unexpected(format!("unknown id in {reply}")))?;
            *slot = Some(parse_outcome(method, reply)?);
        }
        let no_reply = || unexpected("a call of the batch got no reply".into());
        slots.into_iter().map(|slot| slot.ok_or_else(no_reply)).collect()
    }

    pub fn quantity(&mut self, method: &str, params: Value) -> Result<U256> {
        let value = self.call(method, params)?;
        quantity(&value).ok_or_else(|| Error::Reply { method: method.to_owned(), detail: value.to_string() })
    }

    /// As `quantity`, for values that must fit 64 bits.
    pub fn number(&mut self, method: &str, params: Value) -> Result<u64> {
        let value = self.quantity(method, params)?;
        u64::try_from(value).map_err(|_| Error::Reply { method: method.to_owned(), detail: value.to_string() })
    }

    /// Nonces of many accounts under `tag`.
    pub fn nonces(&mut self, addresses: &[Address], tag: &str) -> Result<Vec<u64>> {
        let values = self.quantities("eth_getTransactionCount", addresses, tag)?;
        Ok(values.into_iter().map(|value| value.saturating_to()).collect())
    }

    pub fn balances(&mut self, addresses: &[Address], tag: &str) -> Result<Vec<U256>> {
        self.quantities("eth_getBalance", addresses, tag)
    }

    fn quantities(&mut self, method: &str, addresses: &[Address], tag: &str) -> Result<Vec<U256>> {
        let params: Vec<Value> = addresses.iter().map(|address| json!([address, tag])).collect();
        let results = self.batch(method, &params)?;
        let read = |result: Outcome| {
            let value = result.map_err(|error| Error::Rpc { method: method.to_owned(), error })?;
            quantity(&value).ok_or_else(|| Error::Reply { method: method.to_owned(), detail: value.to_string() })
        };
        results.into_iter().map(read).collect()
    }

    fn post(&mut self, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let mut request = Vec::with_capacity(body.len() + 200);
        http::write_post(&mut request, &self.endpoint.authority, &self.endpoint.path, body.as_bytes());
        // A connection that was kept may have been closed by the node meanwhile: that is no error, a fresh one decides.
        let kept = self.stream.is_some();
        let reply = match self.exchange(&request) {
            Err(Error::Transport { .. }) if kept => self.exchange(&request),
            other => other,
        };
        let (status, body) = reply?;
        let broke = |reason: String| Error::Transport { url: self.endpoint.url.clone(), reason };
        serde_json::from_slice(&body).map_err(|_| {
            let text = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
            broke(format!("HTTP status {status} with a body that is not JSON: {text:?}"))
        })
    }

    fn exchange(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        let result = self.try_exchange(request);
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    fn try_exchange(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        let broke = |reason: String| Error::Transport { url: self.endpoint.url.clone(), reason };
        if self.stream.is_none() {
            let stream = self.endpoint.connect()?;
            let deadline = Some(Duration::from_secs(CALL_DEADLINE_S));
            stream.set_read_timeout(deadline).map_err(|e| broke(e.to_string()))?;
            stream.set_write_timeout(deadline).map_err(|e| broke(e.to_string()))?;
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut().expect("set just above");
        stream.write_all(request).map_err(|e| broke(e.to_string()))?;
        self.buffer.clear();
        let mut scratch = [0u8; 64 << 10];
        loop {
            let count = match stream.read(&mut scratch) {
                Ok(0) => return Err(broke("the node closed the connection before it answered".into())),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(broke(format!("no answer within {CALL_DEADLINE_S} s")));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(broke(error.to_string())),
            };
            self.buffer.extend_from_slice(&scratch[..count]);
            if let Some(reply) = http::parse_reply(&self.buffer).map_err(|e| broke(e.to_string()))? {
                return Ok((reply.status, reply.body.into_owned()));
            }
        }
    }
}

fn parse_outcome(method: &str, mut reply: Value) -> Result<Outcome> {
    let unexpected = |reply: &Value| Error::Reply { method: method.to_owned(), detail: reply.to_string() };
    if let Some(error) = reply.get("error").filter(|error| !error.is_null()) {
        let error = RpcError::deserialize(error).map_err(|_| unexpected(&reply))?;
        return Ok(Err(error));
    }
    match reply.get_mut("result") {
        Some(result) => Ok(Ok(result.take())),
        None => Err(unexpected(&reply)),
    }
}

/// Reads a hexadecimal quantity.
pub fn quantity(value: &Value) -> Option<U256> {
    let digits = value.as_str()?.strip_prefix("0x")?;
    U256::from_str_radix(digits, 16).ok()
}

/// Reads a 32-byte hash in hexadecimal.
pub fn hash(value: &Value) -> Option<B256> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::*;

    #[test]
    fn outcomes() {
        let outcome = |text: &str| parse_outcome("m", serde_json::from_str(text).unwrap()).ok();
        assert_eq!(outcome(r#"{"id":0,"result":"0x1"}"#), Some(Ok(json!("0x1"))));
        assert_eq!(outcome(r#"{"id":0,"result":null}"#), Some(Ok(Value::Null)));
        assert_eq!(outcome(r#"{"id":0,"error":null,"result":1}"#), Some(Ok(json!(1))));
        let error = RpcError { code: -32000, message: "nonce too low".into() };
        assert_eq!(outcome(r#"{"id":0,"error":{"code":-32000,"message":"nonce too low"}}"#), Some(Err(error)));
        assert_eq!(outcome(r#"{"id":0}"#), None);
    }

    #[test]
    fn quantities() {
        assert_eq!(quantity(&json!("0x2540be400")), Some(U256::from(10_000_000_000u64)));
        for bad in [json!("10"), json!("0xg"), json!(1), Value::Null] {
            assert_eq!(quantity(&bad), None, "{bad}");
        }
    }

    /// A node that takes `per_request` calls of each request and is too busy for the rest.
    fn busy_node(per_request: usize) -> Endpoint {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = Vec::new();
            let mut scratch = [0u8; 4096];
            loop {
                let count = stream.read(&mut scratch).expect("readable");
                if count == 0 {
                    return;
                }
                request.extend_from_slice(&scratch[..count]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                let Ok(Value::Array(calls)) = serde_json::from_str(body) else { continue };
                request.clear();
                let replies: Vec<Value> = calls
                    .iter()
                    .enumerate()
                    .map(|(index, call)| match index < per_request {
                        true => json!({"jsonrpc": "2.0", "id": call["id"], "result": call["params"][0]}),
                        false => {
                            json!({"jsonrpc": "2.0", "id": call["id"], "error": {"code": BUSY, "message": "busy"}})
                        }
                    })
                    .collect();
                let reply = Value::Array(replies).to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", reply.len());
                stream.write_all(format!("{head}{reply}").as_bytes()).expect("writable");
            }
        });
        Endpoint::parse(&url, Protocol::Http).expect("an address")
    }

    #[test]
    fn calls_that_a_busy_node_refuses_are_made_again() {
        let params: Vec<Value> = (0..5).map(|index| json!([format!("{index:#x}")])).collect();
        let results = RpcClient::new(busy_node(2)).batch("m", &params).expect("it answers");
        let values: Vec<Option<U256>> = results.iter().map(|result| quantity(result.as_ref().ok()?)).collect();
        assert_eq!(values, (0..5).map(|index| Some(U256::from(index))).collect::<Vec<_>>());
        let results = RpcClient::new(busy_node(0)).batch("m", &params[..1]).expect("it answers");
        assert_eq!(results[0].as_ref().expect_err("busy for good").code, BUSY);
    }
}
