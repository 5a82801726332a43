//! Which logs a caller wants: addresses and topics, as `eth_getLogs` and the `logs` subscription take them.

use alloy_primitives::{Bloom, BloomInput, Log};
use serde_json::Value;

use crate::chain::LogQuery;
use crate::codec::hex;
use crate::primitives::{Address, B256};
use crate::rpc::error::RpcError;
use crate::rpc::limits::FILTER_ALTERNATIVES_MAX;
use crate::rpc::params::{Argument, BlockId, Fields, parse_tag};

/// A log has at most this many topics (LOG4).
const TOPICS_MAX: usize = 4;

/// Why no filter may name `pending`.
pub const PENDING_LOGS: &str = "pending logs are not served, use eth_getBlockReceipts or sequencer_preconfirmations";

/// Conditions on one log; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Any of these; empty takes every address.
    pub addresses: Vec<Address>,
    /// Per position any of these; empty takes every topic. A log needs as many topics as there are positions.
    pub topics: Vec<Vec<B256>>,
}

/// Where `eth_getLogs` looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogRange {
    Block(B256),
    Span { from: BlockId, to: BlockId },
}

impl LogFilter {
    /// Reads the filter object of `eth_getLogs`.
    pub fn parse_ranged(argument: &Argument<'_>) -> Result<(Self, LogRange), RpcError> {
        let fields = argument.object()?;
        let filter = Self::parse(&fields)?;
        let bound = |member: &str| -> Result<Option<BlockId>, RpcError> {
            let Some(text) = fields.text(member)? else { return Ok(None) };
            parse_tag(text).map(Some).map_err(|error| fields.invalid(member, error))
        };
        let (from, to) = (bound("fromBlock")?, bound("toBlock")?);
        let range = match fields.hash("blockHash")? {
            Some(_) if from.is_some() || to.is_some() => {
                return Err(fields.invalid("blockHash", "cannot specify both blockHash and fromBlock/toBlock"));
            }
            Some(hash) => LogRange::Block(hash),
            None => LogRange::Span { from: from.unwrap_or(BlockId::Latest), to: to.unwrap_or(BlockId::Latest) },
        };
        Ok((filter, range))
    }

    /// Reads addresses and topics; every other member is ignored.
    pub fn parse(fields: &Fields) -> Result<Self, RpcError> {
        let addresses = match fields.value("address") {
            None => Vec::new(),
            Some(value) => alternatives(fields, "address", value, |text| {
                hex::parse_fixed::<20>(text).map(Address::from).map_err(|error| error.to_string())
            })?,
        };
        let positions = fields.array("topics")?.unwrap_or_default();
        if positions.len() > TOPICS_MAX {
            return Err(
                fields.invalid("topics", format!("{} positions, a log has at most {TOPICS_MAX}", positions.len()))
            );
        }
        let mut topics = Vec::with_capacity(positions.len());
        for position in positions {
            topics.push(alternatives(fields, "topics", position, |text| {
                hex::parse_fixed::<32>(text).map(B256::from).map_err(|error| error.to_string())
            })?);
        }
        Ok(Self { addresses, topics })
    }

    #[must_use]
    pub fn matches(&self, log: &Log) -> bool {
        if !self.addresses.is_empty() && !self.addresses.contains(&log.address) {
            return false;
        }
        let found = log.topics();
        self.topics.len() <= found.len()
            && self.topics.iter().zip(found).all(|(any_of, topic)| any_of.is_empty() || any_of.contains(topic))
    }

    /// The same conditions as the filters of blocks take them.
    #[must_use]
    pub fn query(&self) -> LogQuery {
        LogQuery::new(
            &self.addresses,
            std::array::from_fn(|position| self.topics.get(position).map_or(&[][..], Vec::as_slice)),
        )
    }

    /// Whether a block with this bloom can have a log that matches. False answers are certain.
    #[must_use]
    pub fn may_match(&self, bloom: &Bloom) -> bool {
        let holds = |bytes: &[u8]| bloom.contains_input(BloomInput::Raw(bytes));
        let any_address = self.addresses.is_empty() || self.addresses.iter().any(|address| holds(address.as_slice()));
        any_address
            && self.topics.iter().all(|any_of| any_of.is_empty() || any_of.iter().any(|topic| holds(topic.as_slice())))
    }
}

/// One value, a list of them, or `null`. A `null` inside a list takes everything, as in go-ethereum.
fn alternatives<T>(
    fields: &Fields,
    member: &str,
    value: &Value,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, RpcError> {
    let parse_text = |text: &str| parse(text).map_err(|why| fields.invalid(member, why));
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![parse_text(text)?]),
        Value::Array(items) if items.len() > FILTER_ALTERNATIVES_MAX => {
            let why = format!("{} alternatives, at most {FILTER_ALTERNATIVES_MAX}", items.len());
            Err(RpcError::limit(format!("{member}: {why}")))
        }
        Value::Array(items) => {
            let mut list = Vec::with_capacity(items.len());
            let mut takes_everything = false;
            for item in items {
                match item {
                    Value::Null => takes_everything = true,
                    Value::String(text) => list.push(parse_text(text)?),
                    _ => return Err(fields.invalid(member, "an alternative is not a string")),
                }
            }
            // A cleared list would keep memory that nobody counts.
            Ok(if takes_everything { Vec::new() } else { list })
        }
        _ => Err(fields.invalid(member, "not a string, a list or null")),
    }
}
