//! A JSON-RPC client over HTTP, with go-ethereum's JWT where the engine API asks for one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// A block of thousands of transactions with full bodies stays below this.
const REPLY_BYTES_MAX: u64 = 256 << 20;

/// A client of one node.
#[derive(Clone)]
pub struct Rpc {
    url: String,
    agent: ureq::Agent,
    jwt_secret: Option<[u8; 32]>,
}

/// What a node answers instead of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    pub code: i64,
    pub message: String,
}

impl Rpc {
    pub fn new(url: impl Into<String>) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(REQUEST_LIMIT));
        Self { url: url.into(), agent: config.build().new_agent(), jwt_secret: None }
    }

    /// A client that signs a fresh token for each request.
    pub fn with_jwt(url: impl Into<String>, jwt_secret: [u8; 32]) -> Self {
        Self { jwt_secret: Some(jwt_secret), ..Self::new(url) }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends `body` and returns the reply's JSON, or why there is none (nothing listens, not JSON).
    pub fn post(&self, body: &Value) -> Result<Value, String> {
        let mut request = self.agent.post(&self.url);
        if let Some(secret) = &self.jwt_secret {
            request = request.header("authorization", format!("Bearer {}", token(secret)));
        }
        let mut response = request.send_json(body).map_err(|error| error.to_string())?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(REPLY_BYTES_MAX).read_to_string();
        let text = text.map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| format!("status {status}, {error}: {text:.200}"))
    }

    /// One call; panics when no JSON-RPC reply comes.
    pub fn try_call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let reply = self.post(&request).unwrap_or_else(|error| panic!("{}: {method}: {error}", self.url));
        outcome(&reply)
    }

    /// One call; `None` when no JSON-RPC reply comes: the node is gone.
    pub fn ask(&self, method: &str, params: Value) -> Option<Result<Value, RpcError>> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        Some(outcome(&self.post(&request).ok()?))
    }

    /// As [`Rpc::batch`]; `None` when no reply comes: the node is gone.
    pub fn ask_batch(&self, method: &str, params: &[Value]) -> Option<Vec<Result<Value, RpcError>>> {
        let request = |(id, params)| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let requests: Vec<Value> = params.iter().enumerate().map(request).collect();
        let reply = self.post(&Value::Array(requests)).ok()?;
        let Value::Array(mut replies) = reply else { panic!("{method}: a batch got no array: {reply:.200}") };
        assert_eq!(replies.len(), params.len(), "{method}: replies to a batch");
        replies.sort_by_key(|reply| reply["id"].as_u64());
        Some(replies.iter().map(outcome).collect())
    }

    /// One call that must succeed.
    #[track_caller]
    pub fn call(&self, method: &str, params: Value) -> Value {
        match self.try_call(method, params) {
            Ok(result) => result,
            Err(error) => panic!("{}: {method}: {error:?}", self.url),
        }
    }

    /// Several calls of one method as one batch; results in the order of `params`.
    pub fn batch(&self, method: &str, params: impl IntoIterator<Item = Value>) -> Vec<Result<Value, RpcError>> {
        let request = |(id, params)| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let requests: Vec<Value> = params.into_iter().enumerate().map(request).collect();
        let count = requests.len();
        if count == 0 {
            // An empty batch is an invalid request.
            return Vec::new();
        }
        let reply =
            self.post(&Value::Array(requests)).unwrap_or_else(|error| panic!("{}: {method}: {error}", self.url));
        let Value::Array(mut replies) = reply else { panic!("{method}: a batch got no array: {reply:.200}") };
        assert_eq!(replies.len(), count, "{method}: replies to a batch");
        // The order of replies in a batch is free; ids bring them back into order.
        replies.sort_by_key(|reply| reply["id"].as_u64());
        replies.iter().map(outcome).collect()
    }

    /// A quantity such as the block number.
    #[track_caller]
    pub fn quantity(&self, method: &str, params: Value) -> u64 {
        quantity(&self.call(method, params))
    }
}

fn outcome(reply: &Value) -> Result<Value, RpcError> {
    match reply.get("error") {
        Some(error) if !error.is_null() => Err(RpcError {
            code: error["code"].as_i64().unwrap_or_else(|| panic!("an error without a code: {reply}")),
            message: error["message"].as_str().unwrap_or_default().to_owned(),
        }),
        _ => Ok(reply.get("result").unwrap_or_else(|| panic!("neither result nor error: {reply}")).clone()),
    }
}

/// Reads `"0x1f"`.
#[track_caller]
pub fn quantity(value: &Value) -> u64 {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_else(|| panic!("not a quantity: {value}"))
}

/// A JSON Web Token with the one claim that go-ethereum checks: `iat`, within a minute of its clock.
fn token(secret: &[u8; 32]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs();
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"iat":{now}}}"#));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(format!("{header}.{claims}").as_bytes());
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}
