//! One block of the execution client's, from what we want in it to what our validator needs: answers in, questions out.
//!
//! ```text
//!  testing_buildBlockV1 ─► (refused: halve the list until the first that cannot be placed is found)
//!        │ not offered
//!        └─► eth_sendRawTransaction, each ─► forkchoiceUpdated with attributes ─► a pause ─► getPayload
//!  payload ─► compared with what was asked ─► newPayloadWithWitness ─► VALID and a witness ─► the validator
//!                                                   └ no witness: debug_executionWitness
//! ```
//!
//! Pure: no socket, no clock. The client's head stays where it is: whoever takes the block moves it later, when it is durable here. What the
//! client says of its own block is believed only as far as the validator repeats it; this decides what a wrong answer means: [`BuildAnswer::Failed`] for what may pass,
//! [`BuildAnswer::Contradicted`] where client and chain rules do not agree.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use serde_json::Value;

use crate::codec::hex;
use crate::engine_api::envelope::{Envelope, read_envelope};
use crate::engine_api::payload::{PayloadParts, attributes, forkchoice_with_attributes, new_payload_params};
use crate::engine_api::types::{CallError, ErrorCode, Method, Verdict, read_status};
use crate::messages::{BuildAnswer, BuildRequest, BuildTx};
use crate::primitives::{B256, Bytes};
use crate::witness::Witness;

/// What comes next.
#[derive(Debug)]
pub enum Step {
    Ask {
        method: Method,
        params: Vec<u8>,
    },
    /// The client's pool is given this long to be put into a block.
    Wait,
    /// Client and payload agree: the validator has the word.
    Validate(Box<Checked>),
    /// The client calls its own block INVALID.
    Accuse {
        block: Box<Envelope>,
        why: String,
    },
    Finish(BuildAnswer),
}

/// A block that the client called VALID, with its witness.
#[derive(Clone, Debug)]
pub struct Checked {
    pub block: Envelope,
    pub witness: WitnessSource,
    /// The client chose the transactions.
    pub has_foreign: bool,
}

/// In which form the client gave the witness.
#[derive(Clone, Debug)]
pub enum WitnessSource {
    /// RLP, of `engine_newPayloadWithWitness`.
    Rlp(Bytes),
    /// Of `debug_executionWitness`; the headers are ours, from this block on.
    Parts { lowest_header: u64, codes: Vec<Bytes>, state: Vec<Bytes> },
}

impl WitnessSource {
    /// The witness of block `number`; `header`: RLP of headers of ours.
    ///
    /// # Errors
    /// In words.
    pub fn witness(&self, number: u64, header: &dyn Fn(u64) -> Option<Bytes>) -> Result<Witness, String> {
        match self {
            Self::Rlp(bytes) => Witness::decode(bytes).map_err(|error| error.to_string()),
            Self::Parts { lowest_header, codes, state } => {
                let headers = (*lowest_header..number)
                    .map(|number| header(number).ok_or_else(|| format!("the header of block {number} is not here")));
                let headers = headers.collect::<Result<Vec<_>, _>>()?;
                Ok(Witness { headers, codes: codes.clone(), state: state.clone() })
            }
        }
    }
}

/// What is known of the client between blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offers {
    /// `testing_buildBlockV1`.
    pub by_list: bool,
    /// `engine_newPayloadWithWitness`.
    pub with_witness: bool,
}

impl Default for Offers {
    /// Tried first.
    fn default() -> Self {
        Self { by_list: true, with_witness: true }
    }
}

enum Stage {
    /// A block of the first `count` is asked for; `low` of them can be placed, of `high` not all, and why.
    List {
        count: usize,
        low: Option<usize>,
        high: Option<(usize, String)>,
    },
    Sending {
        index: usize,
    },
    Starting,
    Waiting {
        id: String,
    },
    Fetching,
    Checking(Box<Envelope>),
    Witness(Box<Envelope>),
    Over,
}

/// See the module's text.
pub struct Build {
    request: BuildRequest,
    offers: Offers,
    stage: Stage,
}

impl Build {
    #[must_use]
    pub fn new(request: BuildRequest, offers: Offers) -> Self {
        let stage = match offers.by_list {
            true => Stage::List { count: request.transactions.len(), low: None, high: None },
            false => Stage::Sending { index: 0 },
        };
        Self { request, offers, stage }
    }

    /// What was learnt of the client.
    #[must_use]
    pub fn offers(&self) -> Offers {
        self.offers
    }

    /// The transactions that were asked for.
    #[must_use]
    pub fn transactions(&self) -> &[BuildTx] {
        &self.request.transactions
    }

    /// The first question, or the next one.
    #[must_use]
    pub fn step(&mut self) -> Step {
        if self.request.is_given && !self.offers.by_list {
            let number = self.request.context.number;
            let what = "L1 has the beginning of it, and only testing_buildBlockV1 builds exactly that";
            return Step::Finish(failed(format!("block {number}: {what}")));
        }
        let context = &self.request.context;
        let (method, params) = match &self.stage {
            Stage::List { count, .. } => (Method::BuildBlock, self.list_params(*count)),
            Stage::Sending { index } => match self.request.transactions.get(*index) {
                Some(tx) => (Method::SendRawTransaction, one_string(&tx.raw)),
                None => {
                    self.stage = Stage::Starting;
                    return self.step();
                }
            },
            Stage::Starting => {
                let mut params = Vec::new();
                forkchoice_with_attributes(context, &mut params);
                (Method::forkchoice_started(context.fork), params)
            }
            Stage::Waiting { .. } => return Step::Wait,
            Stage::Fetching => return Step::Finish(failed("it was not waited for")),
            Stage::Checking(envelope) => {
                let mut params = Vec::new();
                let parts = PayloadParts {
                    header: &envelope.header,
                    hash: envelope.hash,
                    transactions: envelope.transactions.iter().map(AsRef::as_ref),
                    requests: envelope.requests.iter().map(AsRef::as_ref),
                };
                new_payload_params(parts, &mut params);
                let fork = context.fork;
                (
                    if self.offers.with_witness {
                        Method::new_payload_with_witness(fork)
                    } else {
                        Method::new_payload_value(fork)
                    },
                    params,
                )
            }
            Stage::Witness(envelope) => (Method::ExecutionWitness, one_string(envelope.hash.as_slice())),
            Stage::Over => return Step::Finish(failed("nothing is left to ask")),
        };
        Step::Ask { method, params }
    }

    /// The pause is over.
    #[must_use]
    pub fn waited(&mut self) -> Step {
        let Stage::Waiting { id } = &self.stage else { return self.step() };
        let params = Value::from(vec![id.as_str()]).to_string().into_bytes();
        self.stage = Stage::Fetching;
        Step::Ask { method: Method::get_payload(self.request.context.fork), params }
    }

    /// The answer to what [`Build::step`] or [`Build::waited`] asked.
    #[must_use]
    pub fn answered(&mut self, answer: Result<Value, CallError>) -> Step {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::List { count, low, high } => self.list_answered(count, low, high, answer),
            Stage::Sending { index } => self.sent(index, answer),
            Stage::Starting => match answer {
                Ok(answer) => self.started(&answer),
                Err(error) => Step::Finish(failed(error)),
            },
            Stage::Fetching | Stage::Waiting { .. } => match answer {
                Ok(answer) => self.built(&answer),
                Err(error) => Step::Finish(failed(error)),
            },
            Stage::Checking(envelope) => self.checked(envelope, answer),
            Stage::Witness(envelope) => match answer.map(|answer| read_witness(&answer)) {
                Ok(Some(witness)) => self.validate(*envelope, witness),
                Ok(None) => Step::Finish(failed("debug_executionWitness: not the shape of a witness")),
                Err(error) => Step::Finish(failed(error)),
            },
            Stage::Over => Step::Finish(failed("an answer to no question")),
        }
    }

    // ---- by list ----------------------------------------------------------------------------------------------------------------------

    fn list_params(&self, count: usize) -> Vec<u8> {
        let context = &self.request.context;
        let mut out = Vec::new();
        out.extend_from_slice(b"[\"");
        hex::data_into(context.parent_hash.as_slice(), &mut out);
        out.extend_from_slice(b"\",");
        attributes(context, &mut out);
        out.extend_from_slice(b",[");
        for (index, tx) in self.request.transactions[..count].iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
            hex::data_into(&tx.raw, &mut out);
            out.push(b'"');
        }
        out.extend_from_slice(b"],\"");
        hex::data_into(&context.extra_data, &mut out);
        out.extend_from_slice(b"\"]");
        out
    }

    fn list_answered(
        &mut self,
        count: usize,
        mut low: Option<usize>,
        mut high: Option<(usize, String)>,
        answer: Result<Value, CallError>,
    ) -> Step {
        match answer {
            Ok(answer) if high.is_none() => return self.built(&answer),
            Ok(_) => low = Some(count),
            Err(error) if error.code() == Some(ErrorCode::MethodNotFound) => {
                self.offers.by_list = false;
                self.stage = Stage::Sending { index: 0 };
                return self.step();
            }
            Err(CallError::Rpc { message, .. }) if count > 0 && !message.contains("current head") => {
                high = Some((count, message));
            }
            // Not even an empty block, or nothing that concerns a transaction.
            Err(error) => return Step::Finish(failed(error)),
        }
        let Some((first_bad, reason)) = high else { return Step::Finish(failed("a list without an end")) };
        let count = match low {
            // Whether it is about a transaction at all.
            None => 0,
            Some(low) if low + 1 == first_bad => {
                let hash = self.request.transactions[low].hash;
                return Step::Finish(BuildAnswer::Refused { hash, reason });
            }
            Some(low) => low + (first_bad - low) / 2,
        };
        self.stage = Stage::List { count, low, high: Some((first_bad, reason)) };
        self.step()
    }

    // ---- by the client's pool ---------------------------------------------------------------------------------------------------------

    fn sent(&mut self, index: usize, answer: Result<Value, CallError>) -> Step {
        match answer {
            Ok(_) => {}
            // It is there already, or its pool has no place for it now: it may be in a later block.
            Err(CallError::Rpc { message, .. }) if !is_final(&message) => {}
            Err(CallError::Rpc { message, .. }) => {
                let hash = self.request.transactions[index].hash;
                return Step::Finish(BuildAnswer::Refused { hash, reason: message });
            }
            Err(error) => return Step::Finish(failed(error)),
        }
        self.stage = Stage::Sending { index: index + 1 };
        self.step()
    }

    fn started(&mut self, answer: &Value) -> Step {
        let status = match read_status(Method::ForkchoiceUpdatedV3, &answer["payloadStatus"]) {
            Ok(status) => status,
            Err(error) => return Step::Finish(failed(error)),
        };
        match (status.verdict, answer["payloadId"].as_str()) {
            (Verdict::Valid, Some(id)) => {
                self.stage = Stage::Waiting { id: id.to_owned() };
                Step::Wait
            }
            (verdict, _) => {
                Step::Finish(failed(format!("{} to the start of a block, without its name", verdict.name())))
            }
        }
    }

    // ---- the block --------------------------------------------------------------------------------------------------------------------

    fn built(&mut self, answer: &Value) -> Step {
        let envelope = match read_envelope(answer, self.request.context.parent_beacon_block_root) {
            Ok(envelope) => envelope,
            Err(what) => return Step::Finish(failed(format!("the block that it built: {what}"))),
        };
        if let Some(what) = self.difference(&envelope) {
            return Step::Finish(failed(format!("it built another block than was asked for: {what}")));
        }
        self.stage = Stage::Checking(Box::new(envelope));
        self.step()
    }

    /// In what the block is not the one that was asked for.
    fn difference(&self, envelope: &Envelope) -> Option<String> {
        let (header, context) = (&envelope.header, &self.request.context);
        let differs = |what: &str, asked: &dyn std::fmt::Display, built: &dyn std::fmt::Display| {
            Some(format!("{what} {built}, asked for {asked}"))
        };
        if header.number != context.number {
            return differs("number", &context.number, &header.number);
        }
        if header.parent_hash != context.parent_hash {
            return differs("parent", &context.parent_hash, &header.parent_hash);
        }
        if header.timestamp != context.timestamp {
            return differs("timestamp", &context.timestamp, &header.timestamp);
        }
        if header.beneficiary != context.coinbase {
            return differs("coinbase", &context.coinbase, &header.beneficiary);
        }
        if header.mix_hash != context.prev_randao {
            return differs("prevRandao", &context.prev_randao, &header.mix_hash);
        }
        if self.request.is_given && header.gas_limit != context.gas_limit {
            return differs("gas limit (--miner.gaslimit)", &context.gas_limit, &header.gas_limit);
        }
        if self.request.is_given && header.extra_data != context.extra_data {
            return differs("extra data", &context.extra_data, &header.extra_data);
        }
        if self.offers.by_list {
            let asked = self.request.transactions.iter().map(|tx| &tx.raw);
            if !envelope.transactions.iter().eq(asked) {
                let (asked, built) = (self.request.transactions.len(), envelope.transactions.len());
                return Some(format!("{built} transactions, or in another order; asked for {asked}"));
            }
        }
        None
    }

    fn checked(&mut self, envelope: Box<Envelope>, answer: Result<Value, CallError>) -> Step {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if error.code() == Some(ErrorCode::MethodNotFound) && self.offers.with_witness => {
                self.offers.with_witness = false;
                self.stage = Stage::Checking(envelope);
                return self.step();
            }
            Err(error) => return Step::Finish(failed(error)),
        };
        let status = match read_status(Method::NewPayloadV4, &answer) {
            Ok(status) => status,
            Err(error) => return Step::Finish(failed(error)),
        };
        match status.verdict {
            Verdict::Valid if status.latest_valid_hash == Some(envelope.hash) => {}
            Verdict::Invalid | Verdict::InvalidBlockHash => {
                let error = status.validation_error.unwrap_or_default();
                let (number, hash) = (envelope.header.number, envelope.hash);
                let why = format!(
                    "the execution client says {} to block {number} {hash}, which it built: {error}",
                    status.verdict.name()
                );
                return Step::Accuse { block: envelope, why };
            }
            verdict => {
                let (number, hash) = (envelope.header.number, envelope.hash);
                let valid = match status.latest_valid_hash {
                    Some(valid) if verdict == Verdict::Valid => format!(" with latestValidHash {valid}"),
                    _ => String::new(),
                };
                let why = format!("{} to block {number} {hash}, which it built{valid}", verdict.name());
                return Step::Finish(failed(why));
            }
        }
        match answer.get("witness").and_then(Value::as_str).map(str::parse::<Bytes>) {
            Some(Ok(witness)) => self.validate(*envelope, WitnessSource::Rlp(witness)),
            Some(Err(_)) => Step::Finish(failed("its witness is not hexadecimal")),
            None => {
                self.stage = Stage::Witness(envelope);
                self.step()
            }
        }
    }

    fn validate(&mut self, block: Envelope, witness: WitnessSource) -> Step {
        let has_foreign = !self.offers.by_list || self.request.is_given;
        Step::Validate(Box::new(Checked { block, witness, has_foreign }))
    }

    /// Those who signed what we asked for, by hash: nobody has to be recovered twice.
    #[must_use]
    pub fn known(&self) -> HashMap<B256, &BuildTx, RandomState> {
        self.request.transactions.iter().map(|tx| (tx.hash, tx)).collect()
    }
}

/// Whether go-ethereum's pool would refuse the same bytes again, by its words.
fn is_final(message: &str) -> bool {
    const FINAL: [&str; 8] = [
        "nonce too low",
        "insufficient funds",
        "intrinsic gas too low",
        "exceeds block gas limit",
        "gas limit too high",
        "floor data gas",
        "oversized data",
        "max initcode size",
    ];
    FINAL.iter().any(|words| message.contains(words))
}

fn failed(why: impl std::fmt::Display) -> BuildAnswer {
    BuildAnswer::Failed { why: why.to_string() }
}

fn one_string(bytes: &[u8]) -> Vec<u8> {
    let mut out = b"[\"".to_vec();
    hex::data_into(bytes, &mut out);
    out.extend_from_slice(b"\"]");
    out
}

/// What `debug_executionWitness` says; `None` where its shape is another.
#[must_use]
pub fn read_witness(answer: &Value) -> Option<WitnessSource> {
    let list = |name: &str| -> Option<Vec<Bytes>> {
        match answer.get(name)? {
            Value::Null => Some(Vec::new()),
            items => items.as_array()?.iter().map(|item| item.as_str()?.parse().ok()).collect(),
        }
    };
    let number = |header: &Value| u64::from_str_radix(header.get("number")?.as_str()?.strip_prefix("0x")?, 16).ok();
    let headers: Option<Vec<u64>> = answer.get("headers")?.as_array()?.iter().map(number).collect();
    Some(WitnessSource::Parts {
        lowest_header: headers?.into_iter().min()?,
        codes: list("codes")?,
        state: list("state")?,
    })
}

#[cfg(test)]
mod tests;
