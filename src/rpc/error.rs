//! JSON-RPC errors: the one table of codes and texts.

use crate::primitives::B256;
use crate::rpc::json;

/// A JSON-RPC error as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcError {
    pub code: i32,
    pub message: String,
    /// Raw JSON of `data`, when there is any.
    pub data: Option<String>,
}

/// Codes of JSON-RPC 2.0, EIP-1474, EIP-7966 and, for reverts, go-ethereum.
pub mod code {
    pub const REVERTED: i32 = 3;
    pub const SYNC_TIMEOUT: i32 = 4;
    pub const SYNC_UNREADY: i32 = 5;
    pub const SYNC_NONCE_GAP: i32 = 6;
    pub const SERVER: i32 = -32_000;
    pub const NOT_FOUND: i32 = -32_001;
    pub const REJECTED: i32 = -32_003;
    pub const LIMIT: i32 = -32_005;
    pub const METHOD_NOT_FOUND: i32 = -32_601;
    pub const INVALID_PARAMS: i32 = -32_602;
    pub const INTERNAL: i32 = -32_603;
}

impl RpcError {
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(code::INVALID_PARAMS, message)
    }

    pub fn server(message: impl Into<String>) -> Self {
        Self::new(code::SERVER, message)
    }

    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(code::LIMIT, message)
    }

    /// A limit that time lifts: `data.retryAfter` says, in seconds, when it is worth to try again.
    pub fn busy(message: impl Into<String>, retry_ms: u64) -> Self {
        let retry_after = format!("{{\"retryAfter\":{}.{:03}}}", retry_ms / 1_000, retry_ms % 1_000);
        Self { data: Some(retry_after), ..Self::limit(message) }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(code::INTERNAL, message)
    }

    /// The method does not exist or is not enabled. `name` is as sent; at most 80 bytes of it are shown.
    #[must_use]
    pub fn method_not_found(name: &[u8]) -> Self {
        let shown = String::from_utf8_lossy(&name[..name.len().min(80)]);
        Self::new(code::METHOD_NOT_FOUND, format!("the method {shown} does not exist/is not available"))
    }

    /// A call that reverted: the text that Solidity gave, and the return data (go-ethereum's code 3).
    #[must_use]
    pub fn reverted(output: &[u8]) -> Self {
        let message = match revert_reason(output) {
            Some(reason) => format!("execution reverted: {reason}"),
            None => "execution reverted".to_owned(),
        };
        let mut data = Vec::new();
        json::data(output, &mut data);
        Self { code: code::REVERTED, message, data: String::from_utf8(data).ok() }
    }

    /// EIP-7966 code 4: admitted, but without a place when the time was over.
    #[must_use]
    pub fn sync_timeout(hash: &B256, waited_ms: u64) -> Self {
        Self {
            code: code::SYNC_TIMEOUT,
            message: format!("The transaction was sent to the transaction pool but wasn't processed in {waited_ms}ms"),
            data: Some(format!("\"{hash}\"")),
        }
    }

    /// EIP-7966 code 5: admitted, but it cannot be executed yet for another reason than its nonce.
    #[must_use]
    pub fn sync_unready(hash: &B256, reason: &str) -> Self {
        Self {
            code: code::SYNC_UNREADY,
            message: format!("The transaction is queued: {reason}"),
            data: Some(format!("\"{hash}\"")),
        }
    }

    /// EIP-7966 code 5: not admitted, because the node is not ready.
    #[must_use]
    pub fn sync_refused(hash: &B256, reason: &str) -> Self {
        Self { code: code::SYNC_UNREADY, message: reason.to_owned(), data: Some(format!("\"{hash}\"")) }
    }

    /// EIP-7966 code 6: transactions of the same sender are missing before this one; `data` is the nonce that comes next.
    #[must_use]
    pub fn sync_nonce_gap(tx: u64, expected: u64) -> Self {
        Self {
            code: code::SYNC_NONCE_GAP,
            message: format!("nonce too high: tx {tx}, account {expected}"),
            data: Some(format!("\"{expected:#x}\"")),
        }
    }

    /// Appends the JSON object.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut object = json::Object::begin(out);
        object.member("code").extend_from_slice(self.code.to_string().as_bytes());
        object.text("message", &self.message);
        if let Some(data) = &self.data {
            object.member("data").extend_from_slice(data.as_bytes());
        }
        object.end();
    }
}

/// The text of Solidity's `Error(string)` or the code of `Panic(uint256)`.
fn revert_reason(output: &[u8]) -> Option<String> {
    let (selector, arguments) = output.split_first_chunk::<4>()?;
    match selector {
        [0x08, 0xc3, 0x79, 0xa0] => {
            let offset = small_word(arguments.get(..32)?)?;
            let length_at = arguments.get(offset..)?;
            let length = small_word(length_at.get(..32)?)?;
            let text = length_at.get(32..)?.get(..length)?;
            Some(String::from_utf8_lossy(text).into_owned())
        }
        [0x4e, 0x48, 0x7b, 0x71] => Some(panic_reason(small_word(arguments.get(..32)?)?)),
        _ => None,
    }
}

/// The texts of go-ethereum's `abi.UnpackRevert`, from the Solidity documentation.
fn panic_reason(code: usize) -> String {
    let text = match code {
        0x00 => "generic panic",
        0x01 => "assert(false)",
        0x11 => "arithmetic underflow or overflow",
        0x12 => "division or modulo by zero",
        0x21 => "enum overflow",
        0x22 => "invalid encoded storage byte array accessed",
        0x31 => "out-of-bounds array access; popping on an empty array",
        0x32 => "out-of-bounds access of an array or bytesN",
        0x41 => "out of memory",
        0x51 => "uninitialized function",
        _ => return format!("unknown panic code: {code:#x}"),
    };
    text.to_owned()
}

/// A 32-byte big-endian word that fits 32 bits.
fn small_word(word: &[u8]) -> Option<usize> {
    let (zeros, value) = word.split_last_chunk::<4>()?;
    zeros.iter().all(|&byte| byte == 0).then_some(u32::from_be_bytes(*value) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(output: &str, expected: &str) {
        let bytes = alloy_primitives::hex::decode(output).expect("the row is hex");
        assert_eq!(RpcError::reverted(&bytes).message, expected);
    }

    #[test]
    fn revert_data_becomes_text() {
        let word = |value: u64| format!("{value:064x}");
        check("", "execution reverted");
        check("08c379a0", "execution reverted");
        check(&format!("08c379a0{}{}6e6f{}", word(32), word(2), "00".repeat(30)), "execution reverted: no");
        check(&format!("08c379a0{}{}6e6f", word(32), word(3)), "execution reverted");
        check(&format!("08c379a0{}{}", "ff".repeat(32), word(3)), "execution reverted");
        check(&format!("4e487b71{}", word(0x11)), "execution reverted: arithmetic underflow or overflow");
        check(&format!("4e487b71{}", word(0x99)), "execution reverted: unknown panic code: 0x99");
        check("12345678", "execution reverted");
    }

    #[test]
    fn an_error_is_a_json_object() {
        let mut out = Vec::new();
        RpcError::sync_nonce_gap(9, 5).write(&mut out);
        let expected = r#"{"code":6,"message":"nonce too high: tx 9, account 5","data":"0x5"}"#;
        assert_eq!(String::from_utf8(out).as_deref(), Ok(expected));
        let mut out = Vec::new();
        RpcError::busy("too many", 1_020).write(&mut out);
        let expected = r#"{"code":-32005,"message":"too many","data":{"retryAfter":1.020}}"#;
        assert_eq!(String::from_utf8(out).as_deref(), Ok(expected));
        let shown = RpcError::method_not_found(&[b'x'; 300]).message;
        assert_eq!(shown.len(), "the method  does not exist/is not available".len() + 80);
    }
}
