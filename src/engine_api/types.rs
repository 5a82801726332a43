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
    Syncing,
    NewPendingFilter,
    FilterChanges,
    PoolContent,
    RawTransaction,
    /// `engine_newPayload`, for all that it says.
    NewPayloadValueV4,
    NewPayloadWithWitnessV4,
    /// `engine_forkchoiceUpdated` with attributes, for all that it says.
    ForkchoiceStartedV3,
    GetPayloadV4,
    GetPayloadV5,
    BuildBlock,
    SendRawTransaction,
    ExecutionWitness,
    RawBlock,
    GetBalance,
    GetTransactionCount,
    GetCode,
    /// What the client's database has under a key.
    DatabaseEntry,
    /// A read that a client of ours asked for, passed on by its name.
    Proxied(&'static str),
}

impl Method {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ExchangeCapabilities => "engine_exchangeCapabilities",
            Self::NewPayloadV4 | Self::NewPayloadValueV4 => "engine_newPayloadV4",
            Self::NewPayloadWithWitnessV4 => "engine_newPayloadWithWitnessV4",
            Self::ForkchoiceUpdatedV3 | Self::ForkchoiceStartedV3 => "engine_forkchoiceUpdatedV3",
            Self::GetPayloadV4 => "engine_getPayloadV4",
            Self::GetPayloadV5 => "engine_getPayloadV5",
            Self::BuildBlock => "testing_buildBlockV1",
            Self::SendRawTransaction => "eth_sendRawTransaction",
            Self::ExecutionWitness => "debug_executionWitness",
            Self::RawBlock => "debug_getRawBlock",
            Self::GetBalance => "eth_getBalance",
            Self::GetTransactionCount => "eth_getTransactionCount",
            Self::GetCode => "eth_getCode",
            Self::DatabaseEntry => "debug_dbGet",
            Self::GetBlockByNumber | Self::ReadBlock => "eth_getBlockByNumber",
            Self::GetPayloadBodiesByRangeV1 => "engine_getPayloadBodiesByRangeV1",
            Self::Proxied(name) => name,
            Self::SetHead => "debug_setHead",
            Self::Syncing => "eth_syncing",
            Self::NewPendingFilter => "eth_newPendingTransactionFilter",
            Self::FilterChanges => "eth_getFilterChanges",
            Self::PoolContent => "txpool_content",
            Self::RawTransaction => "eth_getRawTransactionByHash",
        }
    }

    /// The version that takes a block of this fork: Osaka changed neither payload nor parameters.
    #[must_use]
    pub fn new_payload(fork: Fork) -> Self {
        match fork {
            Fork::Prague | Fork::Osaka => Self::NewPayloadV4,
        }
    }

    /// As [`Method::new_payload`], with the witness in the answer.
    #[must_use]
    pub fn new_payload_with_witness(fork: Fork) -> Self {
        match fork {
            Fork::Prague | Fork::Osaka => Self::NewPayloadWithWitnessV4,
        }
    }

    /// As [`Method::new_payload`]; the answer comes as it is.
    #[must_use]
    pub fn new_payload_value(fork: Fork) -> Self {
        match fork {
            Fork::Prague | Fork::Osaka => Self::NewPayloadValueV4,
        }
    }

    /// The version that lets the client build a block of this fork.
    #[must_use]
    pub fn forkchoice_started(fork: Fork) -> Self {
        match fork {
            Fork::Prague | Fork::Osaka => Self::ForkchoiceStartedV3,
        }
    }

    /// The version that hands over a built block of this fork.
    #[must_use]
    pub fn get_payload(fork: Fork) -> Self {
        match fork {
            Fork::Prague => Self::GetPayloadV4,
            Fork::Osaka => Self::GetPayloadV5,
        }
    }

    /// Whether a call that got lost may be made again without a word: not where the first one changed what the second would say.
    #[must_use]
    pub fn is_repeatable(self) -> bool {
        !matches!(self, Self::FilterChanges | Self::NewPendingFilter)
    }

    /// Whether the authenticated port serves it: go-ethereum has `engine` and `eth` there, and only there `engine`.
    #[must_use]
    pub fn is_engine(self) -> bool {
        self.name().starts_with("engine_")
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

/// How far a client is that fetches blocks from its own peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncProgress {
    pub current: u64,
    pub highest: u64,
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
    /// `eth_syncing`; `None`: it is not.
    Sync(Option<SyncProgress>),
    /// The result as it came.
    Value(Value),
}

/// Reads the `result` of a JSON-RPC answer in the shape that `method` gives it.
///
/// # Errors
/// The peer's error object, or [`CallError::Malformed`].
pub fn parse_reply(method: Method, body: &[u8]) -> Result<Reply, CallError> {
    let text = || String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN_BYTES_MAX)]).into_owned();
    let answer: Value =
        serde_json::from_slice(body).map_err(|_| CallError::malformed(method, "the answer is not JSON", &text()))?;
    let result = result_of(method, answer, &text)?;
    match method {
        Method::ExchangeCapabilities => {
            let names = result.as_array().map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned));
            names
                .map(|names| Reply::Capabilities(names.collect()))
                .ok_or_else(|| CallError::malformed(method, "the result is not a list", &text()))
        }
        Method::NewPayloadV4 => read_status(method, &result).map(Reply::Status),
        Method::ForkchoiceUpdatedV3 => read_status(method, &result["payloadStatus"]).map(Reply::Status),
        Method::GetBlockByNumber if result.is_null() => Ok(Reply::Block(None)),
        Method::GetBlockByNumber => remote_block(&result)
            .map(|block| Reply::Block(Some(block)))
            .ok_or_else(|| CallError::malformed(method, "a block without number or hash", &text())),
        Method::SetHead => Ok(Reply::Done),
        Method::Syncing => sync_progress(&result)
            .map(Reply::Sync)
            .ok_or_else(|| CallError::malformed(method, "neither false nor a progress", &text())),
        Method::ReadBlock
        | Method::GetPayloadBodiesByRangeV1
        | Method::NewPendingFilter
        | Method::FilterChanges
        | Method::PoolContent
        | Method::RawTransaction
        | Method::NewPayloadValueV4
        | Method::NewPayloadWithWitnessV4
        | Method::ForkchoiceStartedV3
        | Method::GetPayloadV4
        | Method::GetPayloadV5
        | Method::BuildBlock
        | Method::SendRawTransaction
        | Method::ExecutionWitness
        | Method::RawBlock
        | Method::GetBalance
        | Method::GetTransactionCount
        | Method::GetCode
        | Method::DatabaseEntry
        | Method::Proxied(_) => Ok(Reply::Value(result)),
    }
}

/// The result of one answer.
fn result_of(method: Method, mut answer: Value, text: &dyn Fn() -> String) -> Result<Value, CallError> {
    if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
        let Some(number) = error.get("code").and_then(Value::as_i64) else {
            return Err(CallError::malformed(method, "an error without a code", &text()));
        };
        let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
        let (code, message) = (ErrorCode::from(number), shortened(message));
        return Err(CallError::Rpc { method: method.name(), number, code, message });
    }
    let result = answer.get_mut("result").map(Value::take);
    result.ok_or_else(|| CallError::malformed(method, "neither result nor error", &text()))
}

/// Reads the answer to several requests, which may come in any order; `calls`: id and method of each.
///
/// # Errors
/// [`CallError::Malformed`] when it is no list, or one of them has no answer.
pub fn parse_batch(calls: &[(u64, Method)], body: &[u8]) -> Result<Vec<Result<Value, CallError>>, CallError> {
    let Some(&(_, first)) = calls.first() else { return Ok(Vec::new()) };
    let text = || String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN_BYTES_MAX)]).into_owned();
    let not_a_list = || CallError::malformed(first, "the answer to a batch is no list", &text());
    let answers: Vec<Value> = serde_json::from_slice(body).map_err(|_| not_a_list())?;
    let with_id = answers.into_iter().filter_map(|answer| Some((answer.get("id")?.as_u64()?, answer)));
    let mut by_id: std::collections::BTreeMap<u64, Value> = with_id.collect();
    let missing = |method| CallError::malformed(method, "an item of a batch has no answer", &text());
    calls
        .iter()
        .map(|(id, method)| {
            let answer = by_id.remove(id).ok_or_else(|| missing(*method))?;
            let shown = answer.to_string();
            Ok(result_of(*method, answer, &|| shown.clone()))
        })
        .collect()
}

/// Reads a `PayloadStatusV1`.
///
/// # Errors
/// [`CallError::Malformed`].
pub fn read_status(method: Method, status: &Value) -> Result<PayloadStatus, CallError> {
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

/// `None` where the shape is another. go-ethereum also answers with a progress while it indexes old transactions: it has every block then, and
/// that is not syncing.
fn sync_progress(result: &Value) -> Option<Option<SyncProgress>> {
    if result == &Value::Bool(false) {
        return Some(None);
    }
    let number = |name: &str| u64::from_str_radix(result.get(name)?.as_str()?.strip_prefix("0x")?, 16).ok();
    let progress = SyncProgress { current: number("currentBlock")?, highest: number("highestBlock")? };
    Some((progress.current < progress.highest).then_some(progress))
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
            Ok(Reply::Sync(None)) => "in sync".to_owned(),
            Ok(Reply::Sync(Some(SyncProgress { current, highest }))) => format!("block {current} of {highest}"),
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
        check(Method::Syncing, r#"{"result":false}"#, "in sync");
        let progress = r#"{"result":{"startingBlock":"0x0","currentBlock":"0x7","highestBlock":"0x1f4","txIndexRemainingBlocks":"0x2"}}"#;
        check(Method::Syncing, progress, "block 7 of 500");
        check(Method::Syncing, r#"{"result":{"currentBlock":"0x7","highestBlock":"0x7"}}"#, "in sync");
        check(Method::Syncing, r#"{"result":true}"#, r#"eth_syncing: neither false nor a progress: `{"result":true}`"#);
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
    fn a_batch_is_put_in_order_by_its_ids() {
        let calls = [(7, Method::GetBalance), (8, Method::GetCode), (9, Method::GetCode)];
        let body =
            r#"[{"id":9,"error":{"code":-32000,"message":"no"}},{"id":7,"result":"0x1"},{"id":8,"result":null}]"#;
        let answers = parse_batch(&calls, body.as_bytes()).expect("all are there");
        let shown: Vec<String> = answers
            .into_iter()
            .map(|answer| answer.map_or_else(|error| error.to_string(), |value| value.to_string()))
            .collect();
        assert_eq!(shown, ["\"0x1\"", "null", "eth_getCode: error -32000: no"]);
        let error = parse_batch(&calls, br#"[{"id":7,"result":1}]"#).expect_err("two are missing").to_string();
        assert!(error.starts_with("eth_getCode: an item of a batch has no answer"), "{error}");
        let error = parse_batch(&calls, br#"{"error":{"code":-32600}}"#).expect_err("no list").to_string();
        assert!(error.starts_with("eth_getBalance: the answer to a batch is no list"), "{error}");
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
