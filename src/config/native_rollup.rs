//! `config.nativeRollup` of the genesis file: with it and an L1 URL, everybody derives the same chain.
//!
//! | field | |
//! |---|---|
//! | `l1ChainId` | number |
//! | `batchers` | list of `{address, fromL1Block}`, who may post and from which L1 block on; not empty, each address once |
//! | `l1Start` | `{number, hash}`: batches are looked for behind this L1 block, and no block stands on one below it |
//! | `profile` | a format of L1: `execute-tx-v2` (default) or `execute-tx-v1` |
//! | `withdrawals` | `none` (default), or `dev`: blocks carry the withdrawals that the batch says |
//!
//! Numbers are JSON numbers or quantities (`0x…`). A field that is not in the table is an error.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::l1::profile::Profile;
use crate::primitives::{Address, B256};

/// See the module's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeRollup {
    pub l1_chain_id: u64,
    pub batchers: Vec<Batcher>,
    pub l1_start: L1Start,
    pub profile: Profile,
    pub withdrawals: Withdrawals,
}

/// Who may post batches, and from which L1 block on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batcher {
    pub address: Address,
    #[serde(deserialize_with = "number")]
    pub from_l1_block: u64,
}

/// The L1 block behind which the chain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct L1Start {
    #[serde(deserialize_with = "number")]
    pub number: u64,
    pub hash: B256,
}

/// Whether blocks may carry withdrawals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Withdrawals {
    #[default]
    None,
    Dev,
}

/// What is wrong with `config.nativeRollup`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NativeRollupError {
    #[error("config.nativeRollup: {0}")]
    Json(String),
    #[error("config.nativeRollup.profile: {0}")]
    Profile(String),
    #[error("config.nativeRollup.batchers is empty: nobody could post a batch")]
    NoBatcher,
    #[error("config.nativeRollup.batchers names {0} twice")]
    BatcherTwice(Address),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    #[serde(deserialize_with = "number")]
    l1_chain_id: u64,
    batchers: Vec<Batcher>,
    l1_start: L1Start,
    profile: Option<String>,
    #[serde(default)]
    withdrawals: Withdrawals,
}

impl NativeRollup {
    /// Reads the field's value.
    ///
    /// # Errors
    /// Names the field that does not fit.
    pub fn from_json(json: &Value) -> Result<Self, NativeRollupError> {
        let raw = Raw::deserialize(json).map_err(|error| NativeRollupError::Json(error.to_string()))?;
        let profile = raw.profile.as_deref().map_or(Ok(Profile::default()), str::parse);
        let profile = profile.map_err(|error| NativeRollupError::Profile(error.to_string()))?;
        if raw.batchers.is_empty() {
            return Err(NativeRollupError::NoBatcher);
        }
        for (index, batcher) in raw.batchers.iter().enumerate() {
            if raw.batchers[..index].iter().any(|before| before.address == batcher.address) {
                return Err(NativeRollupError::BatcherTwice(batcher.address));
            }
        }
        let Raw { l1_chain_id, batchers, l1_start, withdrawals, .. } = raw;
        Ok(Self { l1_chain_id, batchers, l1_start, profile, withdrawals })
    }
}

/// A JSON number, or a quantity as a string.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let parsed = match &value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok()),
        _ => None,
    };
    parsed.ok_or_else(|| serde::de::Error::custom(format!("{value} is no number of 64 bits")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "l1ChainId": 61_971,
            "batchers": [{ "address": Address::repeat_byte(1), "fromL1Block": "0x10" }],
            "l1Start": { "number": 7, "hash": B256::repeat_byte(2) },
        })
    }

    #[test]
    fn the_field_is_read() {
        let mut json = good();
        let expected = NativeRollup {
            l1_chain_id: 61_971,
            batchers: vec![Batcher { address: Address::repeat_byte(1), from_l1_block: 16 }],
            l1_start: L1Start { number: 7, hash: B256::repeat_byte(2) },
            profile: Profile::ExecuteTxV2,
            withdrawals: Withdrawals::None,
        };
        assert_eq!(NativeRollup::from_json(&json), Ok(expected.clone()));
        json["profile"] = "execute-tx-v1".into();
        json["withdrawals"] = "dev".into();
        let expected = NativeRollup { profile: Profile::ExecuteTxV1, withdrawals: Withdrawals::Dev, ..expected };
        assert_eq!(NativeRollup::from_json(&json), Ok(expected));
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Value), expected: &str) {
        let mut json = good();
        change(&mut json);
        let error = NativeRollup::from_json(&json).expect_err("it does not fit").to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        check(|json| json["extra"] = 1.into(), "unknown field `extra`");
        check(|json| json["l1ChainId"] = "61971".into(), "is no number of 64 bits");
        check(|json| json["batchers"] = json!([]), "batchers is empty");
        check(|json| json["batchers"] = json!([good()["batchers"][0], good()["batchers"][0]]), "twice");
        check(|json| json["profile"] = "stateless-ssz".into(), "profile");
        check(|json| json["withdrawals"] = "all".into(), "unknown variant `all`");
        check(|json| drop(json.as_object_mut().expect("an object").remove("l1Start")), "missing field `l1Start`");
    }
}
