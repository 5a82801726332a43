//! Raw JSON of `params` in, typed arguments out; every refusal is -32602 and names the argument.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::codec::hex::{self, ValueError};
use crate::primitives::{Address, B256, Bytes, U256};
use crate::rpc::error::RpcError;

/// More positional arguments than any method takes.
const ARGUMENTS_MAX: usize = 8;

/// The positional arguments of one call, not yet parsed. Borrows the request; never allocates.
#[derive(Clone, Copy, Debug)]
pub struct Params<'a> {
    items: [Option<&'a RawValue>; ARGUMENTS_MAX],
}

impl<'a> Params<'a> {
    /// Splits `raw`, the JSON of `params`; empty when absent.
    ///
    /// # Errors
    /// -32602 when it is not an array of at most `arguments_max` items.
    pub fn parse(raw: &'a [u8], arguments_max: usize) -> Result<Self, RpcError> {
        let raw = raw.trim_ascii();
        if raw.is_empty() || raw == b"null" || raw == b"[]" {
            return Ok(Self { items: [None; ARGUMENTS_MAX] });
        }
        if raw.first() == Some(&b'{') {
            return Err(RpcError::invalid_params("params must be an array: named parameters are not served"));
        }
        let mut deserializer = serde_json::Deserializer::from_slice(raw);
        let (items, count) = deserializer
            .deserialize_seq(ItemVisitor)
            .and_then(|found| deserializer.end().map(|()| found))
            .map_err(|error| RpcError::invalid_params(format!("params are not an array: {error}")))?;
        if count > arguments_max {
            return Err(RpcError::invalid_params(format!("too many arguments, want at most {arguments_max}")));
        }
        Ok(Self { items })
    }

    /// The argument at `index`; `null` and a missing one are `None`.
    #[must_use]
    pub fn optional(&self, index: usize, name: &'static str) -> Option<Argument<'a>> {
        let raw = self.items[index].filter(|raw| raw.get() != "null")?;
        Some(Argument { raw, index, name })
    }

    /// The argument at `index`.
    ///
    /// # Errors
    /// -32602 when it is missing or `null`.
    pub fn required(&self, index: usize, name: &'static str) -> Result<Argument<'a>, RpcError> {
        self.optional(index, name)
            .ok_or_else(|| RpcError::invalid_params(format!("missing value for required argument {index} ({name})")))
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = ([Option<&'de RawValue>; ARGUMENTS_MAX], usize);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut items = [None; ARGUMENTS_MAX];
        let mut count = 0;
        while let Some(raw) = sequence.next_element::<&'de RawValue>()? {
            if let Some(slot) = items.get_mut(count) {
                *slot = Some(raw);
            }
            count += 1;
        }
        Ok((items, count))
    }
}

/// One argument, with what an error says about it.
#[derive(Clone, Copy, Debug)]
pub struct Argument<'a> {
    pub raw: &'a RawValue,
    index: usize,
    name: &'static str,
}

impl<'a> Argument<'a> {
    /// The error that names this argument.
    pub fn invalid(&self, why: impl fmt::Display) -> RpcError {
        RpcError::invalid_params(format!("invalid argument {} ({}): {why}", self.index, self.name))
    }

    /// The text of a JSON string; borrowed unless it has escapes.
    pub fn text(&self) -> Result<Cow<'a, str>, RpcError> {
        let json = self.raw.get();
        match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            Some(plain) if !plain.contains('\\') => Ok(Cow::Borrowed(plain)),
            Some(_) => serde_json::from_str::<String>(json).map(Cow::Owned).map_err(|error| self.invalid(error)),
            None => Err(self.invalid("not a string")),
        }
    }

    pub fn address(&self) -> Result<Address, RpcError> {
        hex::parse_fixed::<20>(&self.text()?).map(Address::from).map_err(|error| self.invalid(error))
    }

    pub fn hash(&self) -> Result<B256, RpcError> {
        hex::parse_fixed::<32>(&self.text()?).map(B256::from).map_err(|error| self.invalid(error))
    }

    pub fn data(&self) -> Result<Bytes, RpcError> {
        hex::parse_data(&self.text()?).map(Bytes::from).map_err(|error| self.invalid(error))
    }

    /// A storage slot: a quantity, or up to 32 bytes of data with leading zeros, as go-ethereum takes it.
    pub fn slot(&self) -> Result<U256, RpcError> {
        parse_slot(&self.text()?).map_err(|why| self.invalid(why))
    }

    /// A hexadecimal quantity; a JSON number is taken too, as go-ethereum does for counts and indices.
    pub fn quantity_u64(&self) -> Result<u64, RpcError> {
        if let Ok(number) = self.raw.get().parse::<u64>() {
            return Ok(number);
        }
        hex::parse_quantity_u64(&self.text()?).map_err(|error| self.invalid(error))
    }

    pub fn boolean(&self) -> Result<bool, RpcError> {
        match self.raw.get() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.invalid("not a boolean")),
        }
    }

    /// The members of a JSON object.
    pub fn object(&self) -> Result<Fields, RpcError> {
        let map = serde_json::from_str::<Map<String, Value>>(self.raw.get()).map_err(|error| self.invalid(error))?;
        Ok(Fields { map, context: format!("argument {} ({})", self.index, self.name) })
    }

    /// Any JSON value.
    pub fn value(&self) -> Result<Value, RpcError> {
        serde_json::from_str(self.raw.get()).map_err(|error| self.invalid(error))
    }

    /// A block by tag, number, hash, or the object of EIP-1898.
    pub fn block(&self) -> Result<BlockId, RpcError> {
        if self.raw.get().starts_with('{') {
            return self.block_object();
        }
        if let Ok(number) = self.raw.get().parse::<u64>() {
            return Ok(BlockId::Number(number));
        }
        let text = self.text()?;
        if text.len() == 66
            && let Ok(hash) = hex::parse_fixed::<32>(&text)
        {
            return Ok(BlockId::Hash(B256::from(hash)));
        }
        parse_tag(&text).map_err(|error| self.invalid(error))
    }

    /// EIP-1898. `requireCanonical` changes nothing: every block that we know by hash is canonical.
    fn block_object(&self) -> Result<BlockId, RpcError> {
        let fields = self.object()?;
        fields.boolean("requireCanonical")?;
        match (fields.hash("blockHash")?, fields.text("blockNumber")?) {
            (Some(_), Some(_)) => {
                Err(self.invalid("cannot specify both blockHash and blockNumber, choose one or the other"))
            }
            (Some(hash), None) => Ok(BlockId::Hash(hash)),
            (None, Some(text)) => parse_tag(text).map_err(|error| self.invalid(error)),
            (None, None) => Err(self.invalid("blockHash or blockNumber is missing")),
        }
    }
}

/// Which block a call means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockId {
    Latest,
    Pending,
    Earliest,
    Safe,
    Finalized,
    Number(u64),
    Hash(B256),
}

/// A tag or a quantity.
pub fn parse_tag(text: &str) -> Result<BlockId, ValueError> {
    Ok(match text {
        "latest" => BlockId::Latest,
        "pending" => BlockId::Pending,
        "earliest" => BlockId::Earliest,
        "safe" => BlockId::Safe,
        "finalized" => BlockId::Finalized,
        _ => BlockId::Number(hex::parse_quantity_u64(text)?),
    })
}

fn parse_slot(text: &str) -> Result<U256, String> {
    let Some(digits) = text.strip_prefix("0x") else {
        return Err(format!("storage slot without 0x prefix: {:.80}", text));
    };
    if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("storage slot has {} characters after 0x, want 1 to 64 hex digits", digits.len()));
    }
    U256::from_str_radix(digits, 16).map_err(|error| error.to_string())
}

/// The members of an object argument. Every reader answers `None` for a missing member and for `null`.
#[derive(Clone, Debug)]
pub struct Fields {
    pub map: Map<String, Value>,
    context: String,
}

impl Fields {
    /// The same readers over a nested object; `path` says where it stands.
    pub fn nested(&self, path: &str, value: &Value) -> Result<Self, RpcError> {
        let context = format!("{}, {path}", self.context);
        match value {
            Value::Object(map) => Ok(Self { map: map.clone(), context }),
            _ => Err(RpcError::invalid_params(format!("invalid {context}: not an object"))),
        }
    }

    /// The error that names a member.
    pub fn invalid(&self, member: &str, why: impl fmt::Display) -> RpcError {
        RpcError::invalid_params(format!("invalid {}, {member}: {why}", self.context))
    }

    pub fn value(&self, member: &str) -> Option<&Value> {
        self.map.get(member).filter(|value| !value.is_null())
    }

    pub fn text(&self, member: &str) -> Result<Option<&str>, RpcError> {
        match self.value(member) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.invalid(member, "not a string")),
        }
    }

    fn parsed<T>(
        &self,
        member: &str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Result<Option<T>, RpcError> {
        self.text(member)?.map(|text| parse(text).map_err(|error| self.invalid(member, error))).transpose()
    }

    pub fn address(&self, member: &str) -> Result<Option<Address>, RpcError> {
        self.parsed(member, |text| hex::parse_fixed::<20>(text).map(Address::from))
    }

    pub fn hash(&self, member: &str) -> Result<Option<B256>, RpcError> {
        self.parsed(member, |text| hex::parse_fixed::<32>(text).map(B256::from))
    }

    pub fn data(&self, member: &str) -> Result<Option<Bytes>, RpcError> {
        self.parsed(member, |text| hex::parse_data(text).map(Bytes::from))
    }

    pub fn u64(&self, member: &str) -> Result<Option<u64>, RpcError> {
        if let Some(number) = self.value(member).and_then(Value::as_u64) {
            return Ok(Some(number));
        }
        self.parsed(member, hex::parse_quantity_u64)
    }

    pub fn u128(&self, member: &str) -> Result<Option<u128>, RpcError> {
        self.parsed(member, hex::parse_quantity_u128)
    }

    pub fn u256(&self, member: &str) -> Result<Option<U256>, RpcError> {
        self.parsed(member, hex::parse_quantity_u256)
    }

    pub fn boolean(&self, member: &str) -> Result<Option<bool>, RpcError> {
        match self.value(member) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(self.invalid(member, "not a boolean")),
        }
    }

    pub fn array(&self, member: &str) -> Result<Option<&[Value]>, RpcError> {
        match self.value(member) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(self.invalid(member, "not an array")),
        }
    }

    /// The members of a map from slots to words, such as `stateDiff`.
    pub fn slots(&self, member: &str) -> Result<Option<Vec<(U256, U256)>>, RpcError> {
        let Some(value) = self.value(member) else { return Ok(None) };
        let Value::Object(map) = value else { return Err(self.invalid(member, "not an object")) };
        let mut slots = Vec::with_capacity(map.len());
        for (slot, word) in map {
            let Value::String(word) = word else { return Err(self.invalid(member, "a word is not a string")) };
            let slot = parse_slot(slot).map_err(|why| self.invalid(member, why))?;
            let word = parse_slot(word).map_err(|why| self.invalid(member, why))?;
            slots.push((slot, word));
        }
        Ok(Some(slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_block(json: &str, expected: Result<BlockId, &str>) {
        let raw = format!("[{json}]");
        let params = Params::parse(raw.as_bytes(), 1).expect("an array");
        let found = params.required(0, "block").and_then(|argument| argument.block());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(part)) => {
                assert_eq!(error.code, -32602);
                assert!(error.message.contains(part), "{}", error.message);
            }
            (found, expected) => panic!("{json}: {found:?} is not {expected:?}"),
        }
    }

    #[test]
    fn blocks() {
        let hash = B256::repeat_byte(7);
        check_block("\"latest\"", Ok(BlockId::Latest));
        check_block("\"pending\"", Ok(BlockId::Pending));
        check_block("\"earliest\"", Ok(BlockId::Earliest));
        check_block("\"safe\"", Ok(BlockId::Safe));
        check_block("\"finalized\"", Ok(BlockId::Finalized));
        check_block("\"0x10\"", Ok(BlockId::Number(16)));
        check_block("\"\\u0030x10\"", Ok(BlockId::Number(16)));
        check_block("17", Ok(BlockId::Number(17)));
        check_block(&format!("\"{hash}\""), Ok(BlockId::Hash(hash)));
        check_block("{\"blockNumber\":\"0x2\"}", Ok(BlockId::Number(2)));
        check_block("{\"blockNumber\":\"pending\"}", Ok(BlockId::Pending));
        check_block(&format!("{{\"blockHash\":\"{hash}\",\"requireCanonical\":true}}"), Ok(BlockId::Hash(hash)));
        check_block("{}", Err("blockHash or blockNumber is missing"));
        check_block(&format!("{{\"blockHash\":\"{hash}\",\"blockNumber\":\"0x1\"}}"), Err("cannot specify both"));
        check_block("{\"blockHash\":\"0x12\"}", Err("blockHash: invalid value \"0x12\""));
        check_block("{\"blockNumber\":\"0x2\",\"requireCanonical\":1}", Err("requireCanonical: not a boolean"));
        check_block("\"newest\"", Err("invalid argument 0 (block): invalid value \"newest\""));
        check_block("\"0x01\"", Err("leading zero"));
        check_block("\"0x10000000000000000\"", Err("more than 64"));
        check_block("-1", Err("not a string"));
        check_block("[]", Err("not a string"));
        check_block("null", Err("missing value for required argument 0 (block)"));
    }

    #[track_caller]
    fn check_split(raw: &str, arguments_max: usize, expected: &str) {
        match Params::parse(raw.as_bytes(), arguments_max) {
            Ok(params) => {
                let found: Vec<_> =
                    (0..ARGUMENTS_MAX).filter_map(|i| params.optional(i, "x")).map(|a| a.raw.get()).collect();
                assert_eq!(found.join("|"), expected);
            }
            Err(error) => {
                assert_eq!(error.code, -32602);
                assert!(error.message.contains(expected), "{}", error.message);
            }
        }
    }

    #[test]
    fn arguments_are_split_without_being_parsed() {
        check_split("", 2, "");
        check_split("null", 2, "");
        check_split(" [ ] ", 2, "");
        check_split("[1,{\"a\":[2,3]}, \"x\"]", 3, "1|{\"a\":[2,3]}|\"x\"");
        check_split("[1,null,2]", 3, "1|2");
        check_split("[1,2,3]", 2, "too many arguments, want at most 2");
        check_split("[1,2,3,4,5,6,7,8,9,10]", 8, "too many arguments");
        check_split("{\"a\":1}", 2, "params must be an array");
        check_split("[1", 2, "params are not an array");
        check_split("[1]]", 2, "params are not an array");
        check_split("7", 2, "params are not an array");
    }

    #[track_caller]
    fn check_slot(json: &str, expected: Option<u64>) {
        let raw = format!("[{json}]");
        let params = Params::parse(raw.as_bytes(), 1).expect("an array");
        let found = params.required(0, "slot").and_then(|argument| argument.slot()).ok();
        assert_eq!(found, expected.map(U256::from), "{json}");
    }

    #[test]
    fn slots_take_quantities_and_padded_words() {
        check_slot("\"0x0\"", Some(0));
        check_slot("\"0x1f\"", Some(31));
        check_slot(&format!("\"0x{:064x}\"", 5), Some(5));
        check_slot(&format!("\"0x0{:064x}\"", 5), None);
        check_slot("\"0x\"", None);
        check_slot("\"1\"", None);
        check_slot("\"0x+1\"", None);
        check_slot("5", None);
    }
}
