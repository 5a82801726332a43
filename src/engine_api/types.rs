//! What the Engine API says, as values: methods, statuses, error codes, answers read from JSON.
//!
//! Source: execution-apis `src/engine` (common, Prague, Osaka); go-ethereum v1.17.5 for what it answers beyond them. Anything that does not
//! have the shape of the specification is an [`CallError::Malformed`] that shows the beginning of what came.

use serde_json::Value;

use crate::primitives::{B256, Fork};

/// Bytes of a peer's text that are kept: more would let it choose the size of our log lines.
const SHOWN_BYTES_MAX: usize = 300;

/// What we call, by the name on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    ExchangeCapabilities,
    NewPayloadV4,
    ForkchoiceUpdatedV3,
    GetBlockByNumber,
    SetHead,
    /// `eth_getBlockByNumber`, for all that it shows.
    ReadBlock,
    GetPayloadBodiesByRangeV1,
    /// A read that a client of ours asked for, passed on by its name.
    Proxied(&'static str),
}

impl Method {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ExchangeCapabilities => "engine_exchangeCapabilities",
            Self::NewPayloadV4 => "engine_newPayloadV4",
            Self::ForkchoiceUpdatedV3 => "engine_forkchoiceUpdatedV3",
            Self::GetBlockByNumber | Self::ReadBlock => "eth_getBlockByNumber",
            Self::GetPayloadBodiesByRangeV1 => "engine_getPayloadBodiesByRangeV1",
            Self::Proxied(name) => name,
            Self::SetHead => "debug_setHead",
        }
    }

    /// The version that takes a block of this fork: Osaka changed neither payload nor parameters.
    #[must_use]
    pub fn new_payload(fork: Fork) -> Self {
        match fork {
            Fork::Prague | Fork::Osaka => Self::NewPayloadV4,
        }
    }

    /// The version that makes a block of this fork the head.
    #[must_use]
    pub fn forkchoice_updated(fork: Fork) -> Self {
        match fork {
            Fork::Prague | Fork::Osaka => Self::ForkchoiceUpdatedV3,
        }
    }
}

/// The engine methods without which a client cannot check our blocks. `engine_exchangeCapabilities` never names itself.
pub const REQUIRED: &[Method] = &[Method::NewPayloadV4, Method::ForkchoiceUpdatedV3];

/// JSON-RPC errors with a meaning of their own (execution-apis, `common.md`; -38006 by go-ethereum's `--engine.maxreorgdepth`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    Parse,
    InvalidRequest,
    MethodNotFound,
    InvalidParams,
    Internal,
    Server,
    UnknownPayload,
    InvalidForkchoiceState,
    InvalidPayloadAttributes,
    TooLargeRequest,
    UnsupportedFork,
    TooDeepReorg,
    Other(i64),
}

impl From<i64> for ErrorCode {
    fn from(code: i64) -> Self {
        match code {
            -32_700 => Self::Parse,
            -32_600 => Self::InvalidRequest,
            -32_601 => Self::MethodNotFound,
            -32_602 => Self::InvalidParams,
            -32_603 => Self::Internal,
            -32_000 => Self::Server,
            -38_001 => Self::UnknownPayload,
            -38_002 => Self::InvalidForkchoiceState,
            -38_003 => Self::InvalidPayloadAttributes,
            -38_004 => Self::TooLargeRequest,
            -38_005 => Self::UnsupportedFork,
            -38_006 => Self::TooDeepReorg,
            other => Self::Other(other),
        }
    }
}

/// Why a call has no answer that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("{address}: {what}")]
    Unreachable { address: String, what: String },
    #[error("{method}: no answer within {limit_ms} ms")]
    TimedOut { method: &'static str, limit_ms: u64 },
    #[error("HTTP {status}: {body}")]
    Http { status: u16, body: String },
    #[error("{method}: {what}: `{shown}`")]
    Malformed { method: &'static str, what: &'static str, shown: String },
    #[error("{method}: error {number}: {message}")]
    Rpc { method: &'static str, number: i64, code: ErrorCode, message: String },
    /// Our own side: the block could not be read or turned into a payload.
    #[error("block {number}: {what}")]
    Payload { number: u64, what: String },
}

impl CallError {
    #[must_use]
    pub fn malformed(method: Method, what: &'static str, shown: &str) -> Self {
        Self::Malformed { method: method.name(), what, shown: shortened(shown) }
    }

    /// The JSON-RPC error that the peer answered with, if that is what happened.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Rpc { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// The beginning of a text.
#[must_use]
pub fn shortened(text: &str) -> String {
    let mut end = text.len().min(SHOWN_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

/// The word of a `PayloadStatusV1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    Invalid,
    Syncing,
    Accepted,
    InvalidBlockHash,
}

impl Verdict {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "VALID",
            Self::Invalid => "INVALID",
            Self::Syncing => "SYNCING",
            Self::Accepted => "ACCEPTED",
            Self::InvalidBlockHash => "INVALID_BLOCK_HASH",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Valid, Self::Invalid, Self::Syncing, Self::Accepted, Self::InvalidBlockHash]
            .into_iter()
            .find(|verdict| verdict.name() == name)
    }
}

/// `PayloadStatusV1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadStatus {
    pub verdict: Verdict,
    pub latest_valid_hash: Option<B256>,
    pub validation_error: Option<String>,
}

/// A block of the execution client's canonical chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteBlock {
    pub number: u64,
    pub hash: B256,
}

/// A parsed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Capabilities(Vec<String>),
    /// `eth_getBlockByNumber`; `None` where the client has no such block.
    Block(Option<RemoteBlock>),
    /// `engine_newPayload`, or the status inside the answer of `engine_forkchoiceUpdated`.
    Status(PayloadStatus),
    Done,
    /// The result as it came.
    Value(Value),
}

/// Reads the `result` of a JSON-RPC answer in the shape that `method` gives it.
///
/// # Errors
/// The peer's error object, or [`CallError::Malformed`].
pub fn parse_reply(method: Method, body: &[u8]) -> Result<Reply, CallError> {
    let text = || String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN_BYTES_MAX)]).into_owned();
    let mut answer: Value =
        serde_json::from_slice(body).map_err(|_| CallError::malformed(method, "the answer is not JSON", &text()))?;
    if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
        let Some(number) = error.get("code").and_then(Value::as_i64) else {
            return Err(CallError::malformed(method, "an error without a code", &text()));
        };
        let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
        let (code, message) = (ErrorCode::from(number), shortened(message));
        return Err(CallError::Rpc { method: method.name(), number, code, message });
    }
    let Some(result) = answer.get_mut("result").map(Value::take) else {
        return Err(CallError::malformed(method, "neither result nor error", &text()));
    };
    match method {
        Method::ExchangeCapabilities => {
            let names = result.as_array().map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned));
            names
                .map(|names| Reply::Capabilities(names.collect()))
                .ok_or_else(|| CallError::malformed(method, "the result is not a list", &text()))
        }
        Method::NewPayloadV4 => payload_status(method, &result).map(Reply::Status),
        Method::ForkchoiceUpdatedV3 => payload_status(method, &result["payloadStatus"]).map(Reply::Status),
        Method::GetBlockByNumber if result.is_null() => Ok(Reply::Block(None)),
        Method::GetBlockByNumber => remote_block(&result)
            .map(|block| Reply::Block(Some(block)))
            .ok_or_else(|| CallError::malformed(method, "a block without number or hash", &text())),
        Method::SetHead => Ok(Reply::Done),
        Method::ReadBlock | Method::GetPayloadBodiesByRangeV1 | Method::Proxied(_) => Ok(Reply::Value(result)),
    }
}

fn payload_status(method: Method, status: &Value) -> Result<PayloadStatus, CallError> {
    let malformed = |what| CallError::malformed(method, what, &status.to_string());
    let name = status.get("status").and_then(Value::as_str).ok_or_else(|| malformed("no status"))?;
    let verdict = Verdict::from_name(name).ok_or_else(|| malformed("an unknown status"))?;
    let latest_valid_hash = match status.get("latestValidHash") {
        None | Some(Value::Null) => None,
        Some(value) => Some(parse_hash(value).ok_or_else(|| malformed("latestValidHash is not 32 bytes"))?),
    };
    let validation_error = status.get("validationError").and_then(Value::as_str).map(shortened);
    Ok(PayloadStatus { verdict, latest_valid_hash, validation_error })
}

/// Number and hash of a block; `None` where one is missing or malformed.
#[must_use]
pub fn remote_block(block: &Value) -> Option<RemoteBlock> {
    let number = block.get("number")?.as_str()?.strip_prefix("0x")?;
    Some(RemoteBlock { number: u64::from_str_radix(number, 16).ok()?, hash: parse_hash(block.get("hash")?)? })
}

fn parse_hash(value: &Value) -> Option<B256> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: Method, body: &str, expected: &str) {
        let shown = match parse_reply(method, body.as_bytes()) {
            Ok(Reply::Status(status)) => format!(
                "{} {} {}",
                status.verdict.name(),
                status.latest_valid_hash.map_or("-".to_owned(), |hash| format!("{:02x}", hash[31])),
                status.validation_error.unwrap_or_default()
            ),
            Ok(Reply::Block(block)) => block.map_or("none".to_owned(), |b| format!("{} {:02x}", b.number, b.hash[31])),
            Ok(Reply::Capabilities(names)) => names.join(","),
            Ok(Reply::Done) => "done".to_owned(),
            Ok(Reply::Value(value)) => value.to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn answers_are_read_in_the_shape_of_the_specification() {
        let hash = format!("0x{:064x}", 0x2a);
        let valid = format!(r#"{{"status":"VALID","latestValidHash":"{hash}","validationError":null}}"#);
        check(Method::NewPayloadV4, &format!(r#"{{"jsonrpc":"2.0","id":1,"result":{valid}}}"#), "VALID 2a ");
        let update = format!(r#"{{"id":1,"result":{{"payloadStatus":{valid},"payloadId":null}}}}"#);
        check(Method::ForkchoiceUpdatedV3, &update, "VALID 2a ");
        let invalid = r#"{"result":{"status":"INVALID","latestValidHash":null,"validationError":"invalid gas used"}}"#;
        check(Method::NewPayloadV4, invalid, "INVALID - invalid gas used");
        check(Method::NewPayloadV4, r#"{"result":{"status":"SYNCING"}}"#, "SYNCING - ");
        let block = format!(r#"{{"result":{{"number":"0x1f","hash":"{hash}","size":"0x2"}}}}"#);
        check(Method::GetBlockByNumber, &block, "31 2a");
        check(Method::GetBlockByNumber, r#"{"result":null}"#, "none");
        check(Method::ExchangeCapabilities, r#"{"result":["a","b"]}"#, "a,b");
        check(Method::SetHead, r#"{"result":null}"#, "done");
    }

    #[test]
    fn everything_else_is_named() {
        let new_payload = Method::NewPayloadV4;
        check(new_payload, "<html>", "engine_newPayloadV4: the answer is not JSON: `<html>`");
        check(new_payload, "{}", "engine_newPayloadV4: neither result nor error: `{}`");
        let fork = r#"{"error":{"code":-38005,"message":"Unsupported fork"}}"#;
        check(new_payload, fork, "engine_newPayloadV4: error -38005: Unsupported fork");
        let odd = r#"{"result":{"status":"FINE"}}"#;
        check(new_payload, odd, r#"engine_newPayloadV4: an unknown status: `{"status":"FINE"}`"#);
        let short = r#"{"result":{"status":"VALID","latestValidHash":"0x12"}}"#;
        let expected =
            r#"engine_newPayloadV4: latestValidHash is not 32 bytes: `{"latestValidHash":"0x12","status":"VALID"}`"#;
        check(new_payload, short, expected);
        let block = r#"{"result":{"number":"31"}}"#;
        check(
            Method::GetBlockByNumber,
            block,
            &format!("eth_getBlockByNumber: a block without number or hash: `{block}`"),
        );
    }

    #[test]
    fn codes_of_the_specification_are_told_apart() {
        for code in
            [-32_700, -32_600, -32_601, -32_602, -32_603, -32_000, -38_001, -38_002, -38_003, -38_004, -38_005, -38_006]
        {
            assert!(!matches!(ErrorCode::from(code), ErrorCode::Other(_)), "{code}");
        }
        assert_eq!(ErrorCode::from(-38_007), ErrorCode::Other(-38_007));
        assert_eq!(shortened(&"é".repeat(400)).chars().count(), 151);
    }
}
