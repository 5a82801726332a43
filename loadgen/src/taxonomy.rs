//! What kind of failure an error is: (code, text) → category, with what to do about it.
//!
//! Codes come first, because they are meant to be stable; the nodes' texts only split -32000, under which every node
//! files whatever its pool refuses.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    Nonce,
    Funds,
    Fee,
    Known,
    Gas,
    Limit,
    Condition,
    NotReady,
    Malformed,
    Method,
    Internal,
    Refused,
    Http,
    Connection,
    Protocol,
}

impl Category {
    /// Name and meaning.
    pub const fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Nonce => (
                "nonce",
                "the sender's nonce was used, or is too far ahead: an earlier transaction was lost or refused",
            ),
            Self::Funds => ("funds", "the sender cannot pay"),
            Self::Fee => ("fee", "the fee is too low, or a replacement does not pay enough more"),
            Self::Known => ("known", "the node has this transaction already"),
            Self::Gas => ("gas", "the gas limit is too low, or above what the node takes"),
            Self::Limit => ("limit", "a limit of the node is full (pool, sender, rate): it sheds load"),
            Self::Condition => ("condition", "a condition of a conditional transaction cannot hold any more"),
            Self::NotReady => ("not ready", "admitted and not executed in time, or the node is not ready (EIP-7966)"),
            Self::Malformed => ("malformed", "the node did not understand the request"),
            Self::Method => ("method", "the node does not have this method"),
            Self::Internal => ("internal", "the node failed by itself"),
            Self::Refused => ("refused", "refused for another reason: see its text"),
            Self::Http => ("http", "an HTTP status other than 200"),
            Self::Connection => ("connection", "the connection broke, or was closed by the node"),
            Self::Protocol => ("protocol", "a reply that makes no sense"),
        }
    }

    /// Reads a class of the report's `rejections`: `code: masked text`.
    pub fn of_rejection(class: &str) -> Self {
        let (code, text) = class.split_once(": ").unwrap_or(("", class));
        Self::of_code(code.parse().unwrap_or(0), text)
    }

    fn of_code(code: i64, text: &str) -> Self {
        match code {
            -32_700 | -32_600 | -32_602 => Self::Malformed,
            -32_601 => Self::Method,
            -32_603 => Self::by_text(text, Self::Internal),
            -32_003 => Self::by_text(text, Self::Condition),
            -32_005 | -32_029 | 429 => Self::Limit,
            4..=6 => Self::NotReady,
            _ => Self::by_text(text, Self::Refused),
        }
    }

    fn by_text(text: &str, otherwise: Self) -> Self {
        let text = text.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        // From the particular to the general: "insufficient funds for gas" is about funds.
        if has(&["already known", "already imported", "already preconfirmed", "known transaction", "already in"]) {
            Self::Known
        } else if has(&["insufficient funds", "balance"]) {
            Self::Funds
        } else if has(&["underpriced", "fee", "tip", "gas price"]) {
            Self::Fee
        } else if has(&["nonce"]) {
            Self::Nonce
        } else if has(&["full", "limit exceeded", "too many", "rate limit", "busy", "overload", "behind"]) {
            Self::Limit
        } else if has(&["gas"]) {
            Self::Gas
        } else {
            otherwise
        }
    }

    /// Reads a class of the report's `transport_errors`.
    pub fn of_transport(class: &str) -> Self {
        if class.starts_with("HTTP status") {
            Self::Http
        } else if class.contains("connection") || class.contains("closed") {
            Self::Connection
        } else {
            Self::Protocol
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections() {
        let check = |class: &str, expected| assert_eq!(Category::of_rejection(class), expected, "{class}");
        check("-32000: nonce too low: tx N, account N", Category::Nonce);
        check("-32000: nonce too high", Category::Nonce);
        check("-32000: insufficient funds for gas * price + value", Category::Funds);
        check("-32000: replacement transaction underpriced", Category::Fee);
        check("-32000: max fee per gas less than block base fee", Category::Fee);
        check("-32000: already known", Category::Known);
        check("-32000: intrinsic gas too low: gas N, minimum gas needed N", Category::Gas);
        check("-32000: txpool is full", Category::Limit);
        check("-32005: anything", Category::Limit);
        check("-32003: block number N above maximum N", Category::Condition);
        check("-32003: Insufficient funds for gas * price + value", Category::Funds);
        check("4: not placed in time", Category::NotReady);
        check("-32601: the method does not exist", Category::Method);
        check("-32602: invalid argument N", Category::Malformed);
        check("-32603: broken", Category::Internal);
        check("-32000: blob transactions are not taken", Category::Refused);
        check("other", Category::Refused);
    }

    #[test]
    fn transport_errors() {
        let check = |class: &str, expected| assert_eq!(Category::of_transport(class), expected, "{class}");
        check("HTTP status 503", Category::Http);
        check("the node closed the connection", Category::Connection);
        check("connection: connection reset", Category::Connection);
        check("a connection was given up", Category::Connection);
        check("a reply that is not JSON-RPC", Category::Protocol);
    }
}
