//! What a test makes the node do wrong: one set for each endpoint, so that one of two can lie while the other does not.

use std::collections::BTreeMap;

use serde_json::Value;

/// Kinds of prepared answers that are kept at once, for each endpoint.
pub const ANSWERS_MAX: usize = 64;
/// The name under which prepared answers are counted.
pub const PREPARED: &str = "prepared";

/// An answer that is given instead of the true one.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub result: Result<Value, (i32, String)>,
    /// How many more times; `None`: always.
    pub left: Option<u64>,
}

/// HTTP errors instead of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpError {
    pub status: u16,
    /// How many more times; `None`: always.
    pub left: Option<u64>,
}

/// What of a true answer is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// Receipts with the other status and more gas.
    Receipts,
    /// Blocks with another parent.
    Parents,
    /// Blocks without their last transaction.
    Transactions,
    /// Blocks under another hash.
    Hashes,
}

impl Lie {
    pub const ALL: [Self; 4] = [Self::Receipts, Self::Parents, Self::Transactions, Self::Hashes];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receipts => "receipts",
            Self::Parents => "parents",
            Self::Transactions => "transactions",
            Self::Hashes => "hashes",
        }
    }

    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lie| lie.name() == name)
    }
}

/// Faults of one endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    pub latency_ms: u64,
    pub http_error: Option<HttpError>,
    answers: BTreeMap<String, Answer>,
    lies: Vec<Lie>,
    /// How many answers each lie has changed, and prepared answers have replaced.
    told: BTreeMap<&'static str, u64>,
}

/// Counts one use down; `false`: it was the last.
fn count_down(left: &mut Option<u64>) -> bool {
    match left {
        None => true,
        Some(count) => {
            *count = count.saturating_sub(1);
            *count > 0
        }
    }
}

impl Faults {
    /// The status of the answer to this request, if it is an error.
    pub fn take_http_error(&mut self) -> Option<u16> {
        let error = self.http_error.as_mut()?;
        let status = error.status;
        if !count_down(&mut error.left) {
            self.http_error = None;
        }
        Some(status)
    }

    /// The prepared answer of a method, used once.
    pub fn take_answer(&mut self, method: &str) -> Option<Result<Value, (i32, String)>> {
        let answer = self.answers.get_mut(method)?;
        *self.told.entry(PREPARED).or_default() += 1;
        let result = answer.result.clone();
        if !count_down(&mut answer.left) {
            self.answers.remove(method);
        }
        Some(result)
    }

    /// `false`: too many are prepared.
    pub fn set_answer(&mut self, method: &str, answer: Answer) -> bool {
        if answer.left == Some(0) {
            self.answers.remove(method);
            return true;
        }
        if self.answers.len() >= ANSWERS_MAX && !self.answers.contains_key(method) {
            return false;
        }
        self.answers.insert(method.to_owned(), answer);
        true
    }

    pub fn set_lie(&mut self, lie: Lie, is_on: bool) {
        self.lies.retain(|other| *other != lie);
        if is_on {
            self.lies.push(lie);
        }
    }

    /// How many answers were changed by this lie, or prepared ([`PREPARED`]).
    #[must_use]
    pub fn told(&self, name: &str) -> u64 {
        self.told.get(name).copied().unwrap_or(0)
    }

    /// Changes a true answer by the lies that are on.
    pub fn distort(&mut self, method: &str, result: &mut Value) {
        for lie in &self.lies {
            let truth = result.clone();
            match (lie, method) {
                (Lie::Receipts, "eth_getTransactionReceipt") => distort_receipt(result),
                (Lie::Receipts, "eth_getBlockReceipts") => {
                    result.as_array_mut().into_iter().flatten().for_each(distort_receipt);
                }
                (Lie::Parents, "eth_getBlockByNumber" | "eth_getBlockByHash") => flip_digit(result, "parentHash"),
                (Lie::Hashes, "eth_getBlockByNumber" | "eth_getBlockByHash") => flip_digit(result, "hash"),
                (Lie::Transactions, "eth_getBlockByNumber" | "eth_getBlockByHash") => {
                    result.get_mut("transactions").and_then(Value::as_array_mut).map(Vec::pop);
                }
                _ => continue,
            }
            *self.told.entry(lie.name()).or_default() += u64::from(*result != truth);
        }
    }
}

fn distort_receipt(receipt: &mut Value) {
    let Some(object) = receipt.as_object_mut() else { return };
    let other = if object.get("status").and_then(Value::as_str) == Some("0x1") { "0x0" } else { "0x1" };
    object.insert("status".to_owned(), other.into());
    let gas = object.get("gasUsed").and_then(Value::as_str).and_then(|hex| u64::from_str_radix(hex.get(2..)?, 16).ok());
    object.insert("gasUsed".to_owned(), format!("{:#x}", gas.unwrap_or(0) + 1).into());
}

/// Changes the last digit of a hash.
fn flip_digit(object: &mut Value, name: &str) {
    let Some(member) = object.get_mut(name) else { return };
    let Some(text) = member.as_str() else { return };
    let Some((rest, last)) = text.split_at_checked(text.len().saturating_sub(1)) else { return };
    *member = format!("{rest}{}", if last == "0" { "1" } else { "0" }).into();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_and_errors_are_counted_down() {
        let mut faults = Faults { http_error: Some(HttpError { status: 503, left: Some(2) }), ..Faults::default() };
        assert_eq!([(); 3].map(|()| faults.take_http_error()), [Some(503), Some(503), None]);
        assert!(faults.set_answer("eth_chainId", Answer { result: Ok(json!("0x1")), left: Some(1) }));
        assert!(faults.set_answer("eth_blockNumber", Answer { result: Err((-32_000, "no".to_owned())), left: None }));
        assert_eq!(faults.take_answer("eth_chainId"), Some(Ok(json!("0x1"))));
        assert_eq!(faults.take_answer("eth_chainId"), None);
        for _ in 0..3 {
            assert_eq!(faults.take_answer("eth_blockNumber"), Some(Err((-32_000, "no".to_owned()))));
        }
        assert!(faults.set_answer("eth_blockNumber", Answer { result: Ok(Value::Null), left: Some(0) }));
        assert_eq!(faults.take_answer("eth_blockNumber"), None);
    }

    #[test]
    fn lies_change_what_they_name_and_nothing_else() {
        let block = json!({ "hash": "0xa0", "parentHash": "0xb1", "transactions": ["0x1", "0x2"] });
        let receipt = json!({ "status": "0x1", "gasUsed": "0xff" });
        let told = |lies: &[Lie], method: &str, truth: &Value| {
            let mut faults = Faults::default();
            lies.iter().for_each(|lie| faults.set_lie(*lie, true));
            let mut result = truth.clone();
            faults.distort(method, &mut result);
            result
        };
        assert_eq!(
            told(&Lie::ALL, "eth_getBlockByHash", &block),
            json!({ "hash": "0xa1", "parentHash": "0xb0", "transactions": ["0x1"] })
        );
        assert_eq!(told(&[Lie::Receipts], "eth_getBlockByHash", &block), block);
        assert_eq!(
            told(&Lie::ALL, "eth_getTransactionReceipt", &receipt),
            json!({ "status": "0x0", "gasUsed": "0x100" })
        );
        assert_eq!(told(&[Lie::Receipts], "eth_getBlockReceipts", &json!([receipt]))[0]["status"], "0x0");
        assert_eq!(told(&[Lie::Parents], "eth_getTransactionReceipt", &receipt), receipt);
        assert_eq!(told(&Lie::ALL, "eth_getBlockByHash", &Value::Null), Value::Null);
        // What changes nothing is no lie.
        let mut faults = Faults::default();
        Lie::ALL.into_iter().for_each(|lie| faults.set_lie(lie, true));
        faults.distort("eth_getBlockByHash", &mut json!({ "hash": "0xa0", "transactions": [] }));
        faults.distort("eth_getBlockByHash", &mut Value::Null);
        assert_eq!(Lie::ALL.map(|lie| faults.told(lie.name())), [0, 0, 0, 1]);
        for lie in Lie::ALL {
            assert_eq!(Lie::of_name(lie.name()), Some(lie));
            let mut faults = Faults::default();
            faults.set_lie(lie, true);
            faults.set_lie(lie, false);
            assert_eq!(faults, Faults::default());
        }
    }
}
