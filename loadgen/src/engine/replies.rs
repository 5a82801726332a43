//! What a reply says about each transaction of its request: HTTP reply → accepted, or classes of errors.

use std::collections::BTreeMap;

use alloy_primitives::{B256, hex};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::rpc::RpcError;
use crate::limits::ERROR_CLASSES_MAX;
use crate::workload::Request;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Outcome {
    /// Not sent, or sent and not answered when the run ended.
    #[default]
    None = 0,
    Accepted = 1,
    /// A JSON-RPC error.
    Rejected = 2,
    /// An HTTP status other than 200, a broken connection, a reply that makes no sense.
    TransportError = 3,
}

impl Outcome {
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Accepted,
            2 => Self::Rejected,
            3 => Self::TransportError,
            _ => Self::None,
        }
    }
}

/// Error texts with how often they came. Numbers and hashes in them are masked, so that texts fall into few classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorClasses(pub BTreeMap<String, u64>);

impl ErrorClasses {
    pub fn add(&mut self, class: String, count: u64) {
        let full = self.0.len() >= ERROR_CLASSES_MAX && !self.0.contains_key(&class);
        *self.0.entry(if full { "other".to_owned() } else { class }).or_default() += count;
    }

    pub fn merge(&mut self, other: Self) {
        for (class, count) in other.0 {
            self.add(class, count);
        }
    }
}

#[derive(Deserialize)]
struct Reply<'a> {
    id: Option<u64>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<RpcError>,
}

/// Reads the reply to `request`; calls `settle` with the index and outcome of each of its transactions, exactly once.
pub fn read_reply(
    status: u16,
    body: &[u8],
    request: Request,
    hashes: &[B256],
    errors: &mut ErrorClasses,
    mut settle: impl FnMut(u32, Outcome),
) {
    let indexes = request.first..request.first + request.count;
    if body.first() == Some(&b'[')
        && let Ok(replies) = serde_json::from_slice::<Vec<Reply<'_>>>(body)
    {
        let mut open = vec![true; request.count as usize];
        for reply in &replies {
            let index = reply.id.and_then(|id| u32::try_from(id).ok()).filter(|id| indexes.contains(id));
            match index.map(|index| (index, &mut open[(index - request.first) as usize])) {
                Some((index, slot)) if *slot => {
                    *slot = false;
                    settle(index, judge(reply, hashes[index as usize], errors));
                }
                _ => errors.add("a reply with an id that was not asked for, or twice".into(), 1),
            }
        }
        for index in indexes.filter(|index| open[(index - request.first) as usize]) {
            errors.add("no reply in the batch".into(), 1);
            settle(index, Outcome::TransportError);
        }
        return;
    }
    if let Ok(reply) = serde_json::from_slice::<Reply<'_>>(body) {
        if reply.id == Some(u64::from(request.first)) && request.count == 1 {
            settle(request.first, judge(&reply, hashes[request.first as usize], errors));
            return;
        }
        // A single object for a whole batch, or an error without an id: it speaks for every transaction.
        if let Some(error) = &reply.error {
            errors.add(rejection_class(error), request.count.into());
            indexes.for_each(|index| settle(index, Outcome::Rejected));
            return;
        }
    }
    let class = if status == 200 { "a reply that is not JSON-RPC".to_owned() } else { format!("HTTP status {status}") };
    errors.add(class, request.count.into());
    indexes.for_each(|index| settle(index, Outcome::TransportError));
}

fn judge(reply: &Reply<'_>, hash: B256, errors: &mut ErrorClasses) -> Outcome {
    if let Some(error) = &reply.error {
        errors.add(rejection_class(error), 1);
        return Outcome::Rejected;
    }
    let text = reply.result.map_or("", RawValue::get).as_bytes();
    let mut bytes = [0u8; 32];
    let equal = text.len() == 68
        && text.starts_with(b"\"0x")
        && hex::decode_to_slice(&text[3..67], &mut bytes).is_ok()
        && bytes == hash.0;
    if equal {
        return Outcome::Accepted;
    }
    errors.add("a result that is not the hash of the transaction".into(), 1);
    Outcome::TransportError
}

fn rejection_class(error: &RpcError) -> String {
    format!("{}: {}", error.code, mask(&error.message))
}

/// Where a masked text is cut.
const MASKED_BYTES_MAX: usize = 120;

/// Replaces hexadecimal words by `0x…` and numbers by `N`, and cuts long texts.
pub fn mask(message: &str) -> String {
    let mut masked = String::new();
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        if let Some(digits) = rest.strip_prefix("0x") {
            masked.push_str("0x…");
            rest = digits.trim_start_matches(|c: char| c.is_ascii_hexdigit());
        } else if first.is_ascii_digit() {
            masked.push('N');
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        } else {
            masked.push(first);
            rest = &rest[first.len_utf8()..];
        }
        if masked.len() > MASKED_BYTES_MAX {
            masked.push('…');
            break;
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: B256 = B256::repeat_byte(0xab);

    fn ok(id: u32) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{HASH}"}}"#)
    }

    #[track_caller]
    fn check(status: u16, body: &str, count: u32, outcomes: &[Outcome], classes: &[(&str, u64)]) {
        let mut seen = vec![None; count as usize];
        let mut errors = ErrorClasses::default();
        let request = Request { end: 0, first: 3, count };
        read_reply(status, body.as_bytes(), request, &[HASH; 10], &mut errors, |index, outcome| {
            assert_eq!(seen[index as usize - 3].replace(outcome), None, "settled twice");
        });
        assert_eq!(seen.into_iter().map(|o| o.expect("settled")).collect::<Vec<_>>(), outcomes, "{body}");
        let classes = classes.iter().map(|&(class, count)| (class.to_owned(), count)).collect();
        assert_eq!(errors.0, classes, "{body}");
    }

    #[test]
    fn single_replies() {
        use Outcome::{Accepted, Rejected, TransportError};
        check(200, &ok(3), 1, &[Accepted], &[]);
        check(200, &ok(4), 1, &[TransportError], &[("a reply that is not JSON-RPC", 1)]);
        let wrong = ok(3).replace("ab", "cd");
        check(200, &wrong, 1, &[TransportError], &[("a result that is not the hash of the transaction", 1)]);
        let error = r#"{"id":3,"error":{"code":-32000,"message":"nonce too low: tx 4, account 15"}}"#;
        check(200, error, 1, &[Rejected], &[("-32000: nonce too low: tx N, account N", 1)]);
        let error = r#"{"id":null,"error":{"code":-32005,"message":"busy"}}"#;
        check(200, error, 1, &[Rejected], &[("-32005: busy", 1)]);
        check(503, "try later", 1, &[TransportError], &[("HTTP status 503", 1)]);
        check(200, "", 1, &[TransportError], &[("a reply that is not JSON-RPC", 1)]);
    }

    #[test]
    fn batch_replies() {
        use Outcome::{Accepted, Rejected, TransportError};
        check(200, &format!("[{},{}]", ok(4), ok(3)), 2, &[Accepted; 2], &[]);
        check(200, &format!("[{}]", ok(4)), 2, &[TransportError, Accepted], &[("no reply in the batch", 1)]);
        let twice = ("a reply with an id that was not asked for, or twice", 1);
        check(200, &format!("[{},{},{}]", ok(4), ok(4), ok(3)), 2, &[Accepted; 2], &[twice]);
        check(200, &format!("[{},{}]", ok(9), ok(3)), 1, &[Accepted], &[twice]);
        let error = r#"{"id":null,"error":{"code":-32600,"message":"batch too large"}}"#;
        check(200, error, 3, &[Rejected; 3], &[("-32600: batch too large", 3)]);
    }

    #[test]
    fn texts_are_masked() {
        assert_eq!(mask("tx 0xabcdef has 12 wei, 3.5 needed"), "tx 0x… has N wei, N.N needed");
        assert_eq!(mask("0x"), "0x…");
        assert_eq!(mask("Überlauf 7"), "Überlauf N");
        assert!(mask(&"x".repeat(1_000)).len() < 130);
    }

    #[test]
    fn classes_are_bounded() {
        let mut errors = ErrorClasses::default();
        for index in 0..1_000 {
            errors.add(format!("{:?}", char::from_u32(0x4e00 + index)), 1);
        }
        assert_eq!(errors.0.len(), ERROR_CLASSES_MAX + 1);
        assert_eq!(errors.0.values().sum::<u64>(), 1_000);
    }
}
