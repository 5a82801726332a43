//! The methods of the admin port: a call in; a result, an error, or what has to happen first out. Names and parameters are op-node's where it has them.
//!
//! Owner: the `admin` thread. It writes cells and files and wakes who reads them; it never waits: what takes time is a [`Waiting`], which the server
//! looks at again. What each method does is said in docs/RPC.md, "Admin".

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use super::cells::HaltSource;
use super::halt::{AdminHalt, HaltFiles};
use super::limits::Limit;
use crate::builder::block::SealedBlock;
use crate::messages::{OperatorAnswer, OperatorJob, OperatorWish};
use crate::primitives::{Address, B256};
use crate::ring::Doorbell;
use crate::rpc::RpcError;
use crate::topology::Shared;
use crate::topology::levers::SetLogFilter;

/// Every method. docs/RPC.md names them, and no other.
pub const METHODS: &[&str] = &[
    "admin_sequencerActive",
    "admin_status",
    "admin_startSequencer",
    "admin_stopSequencer",
    "admin_haltSequencer",
    "admin_resumeSequencer",
    "admin_startBatcher",
    "admin_stopBatcher",
    "admin_flushBatcher",
    "admin_dropTransaction",
    "admin_dropSender",
    "admin_limits",
    "admin_setLimits",
    "admin_setLogLevel",
];

/// Of the text that `admin_haltSequencer` remembers.
const REASON_BYTES_MAX: usize = 1_024;
/// Of the filter that `admin_setLogLevel` takes.
const FILTER_BYTES_MAX: usize = 4_096;

/// Everything that the methods reach.
pub struct Admin {
    pub shared: Arc<Shared>,
    pub builder_bell: Arc<Doorbell>,
    pub files: HaltFiles,
    pub set_log_filter: SetLogFilter,
    /// There is no builder: blocks come from L1 alone.
    pub follows: bool,
    /// There is a key that signs for L1.
    pub posts: bool,
}

/// What came of a call.
pub enum Answer {
    Now(Result<Value, RpcError>),
    /// Not before [`Admin::look`] has an outcome.
    When(Waiting),
}

/// What an answer waits for.
#[derive(Clone, Debug)]
pub enum Waiting {
    /// The open block is closed, sealed and durable; the answer is its hash.
    Stopped,
    /// The same; the answer is the status.
    Halted,
    /// Posting goes by what is wanted now.
    Batcher,
    /// The builder core has dropped it, and the journal knows; the answer is how many left the pool. `is_one`: that one did.
    Dropped { answer: Arc<OnceLock<OperatorAnswer>>, is_one: bool },
}

/// Whether a method changes something, so that the log names it.
#[must_use]
pub fn is_change(method: &str) -> bool {
    !matches!(method, "admin_sequencerActive" | "admin_status" | "admin_limits")
}

impl Admin {
    /// Carries out a call, or begins to. `now_ms`: Unix milliseconds.
    pub fn call(&self, method: &str, params: &[Value], now_ms: u64) -> Answer {
        let outcome = match method {
            "admin_sequencerActive" => none(params).map(|()| json!(self.is_active())),
            "admin_status" => none(params).map(|()| self.status()),
            "admin_startSequencer" => self.start(params),
            "admin_stopSequencer" => return when(self.stop(params)),
            "admin_haltSequencer" => return when(self.halt(params, now_ms)),
            "admin_resumeSequencer" => return self.resume(params),
            "admin_startBatcher" => return when(self.set_batcher(params, BatcherCall::Start)),
            "admin_stopBatcher" => return when(self.set_batcher(params, BatcherCall::Stop)),
            "admin_flushBatcher" => return when(self.set_batcher(params, BatcherCall::Flush)),
            "admin_dropTransaction" => return when(self.drop_transaction(params)),
            "admin_dropSender" => return when(self.drop_sender(params)),
            "admin_limits" => none(params).map(|()| self.limits()),
            "admin_setLimits" => self.set_limits(params),
            "admin_setLogLevel" => self.set_log_level(params),
            other => Err(RpcError::method_not_found(other.as_bytes())),
        };
        Answer::Now(outcome)
    }

    /// The outcome of what was waited for, when there is one.
    pub fn look(&self, waiting: &Waiting) -> Option<Result<Value, RpcError>> {
        match waiting {
            Waiting::Stopped => self.look_for_rest().map(|rest| rest.map(|tip| json!(tip.hash))),
            // Somebody else has taken it back meanwhile: the status says so.
            Waiting::Halted if self.shared.controls.wanted().may_build() => Some(Ok(self.status())),
            Waiting::Halted => self.look_for_rest().map(|rest| rest.map(|_| self.status())),
            Waiting::Batcher => self.shared.controls.is_batcher_obeyed().then_some(Ok(Value::Null)),
            Waiting::Dropped { answer, is_one } => self.look_for_drop(*answer.get()?, *is_one),
        }
    }

    /// The newest block, when no other is under way and it is durable.
    fn look_for_rest(&self) -> Option<Result<Arc<SealedBlock>, RpcError>> {
        let controls = &self.shared.controls;
        if controls.wanted().may_build() {
            return Some(Err(RpcError::server("started again before the open block was sealed")));
        }
        if !controls.is_at_rest() {
            return None;
        }
        Some(self.tip()).filter(|tip| tip.sequence <= self.shared.gate.durable()).map(Ok)
    }

    fn look_for_drop(&self, answer: OperatorAnswer, is_one: bool) -> Option<Result<Value, RpcError>> {
        Some(match answer {
            OperatorAnswer::Dropped { gate, .. } if gate > self.shared.gate.durable() => return None,
            OperatorAnswer::Dropped { .. } if is_one => Ok(Value::Null),
            OperatorAnswer::Dropped { count, .. } => Ok(json!(format!("{count:#x}"))),
            OperatorAnswer::Placed { block_number } => {
                Err(RpcError::server(format!("already preconfirmed in block {block_number}: it has its place")))
            }
            OperatorAnswer::Unknown => Err(RpcError::server("not in the pool: ask sequencer_getTransactionStatus")),
            OperatorAnswer::JournalBehind => Err(RpcError::busy("the journal is behind: try again", 1_000)),
        })
    }

    /// What is said when the time for [`Admin::look`] is over.
    pub fn too_late(&self, waiting: &Waiting) -> RpcError {
        RpcError::server(match waiting {
            Waiting::Stopped => "stopped, but the open block is not sealed and durable yet: look at admin_status",
            Waiting::Halted => "halted, but the open block is not sealed and durable yet: look at admin_status",
            Waiting::Batcher => {
                "wanted, but the l1 thread has not taken it over yet: look at sequencer_settlementStatus"
            }
            Waiting::Dropped { .. } => "asked for, but it is not done and durable yet",
        })
    }

    fn is_active(&self) -> bool {
        let shared = &self.shared;
        !self.follows
            && shared.controls.wanted().may_build()
            && !shared.is_stopping()
            && !shared.execution.is_halted()
            && !shared.settlement.view().is_halted
    }

    /// The newest sealed block.
    fn tip(&self) -> Arc<SealedBlock> {
        let heads = self.shared.heads.load();
        Arc::clone(heads.recent.last().unwrap_or(&heads.latest))
    }

    fn status(&self) -> Value {
        let wanted = self.shared.controls.wanted();
        let tip = self.tip();
        let halted_by: Vec<Value> = HaltSource::ALL
            .into_iter()
            .filter(|source| wanted.is_halted_by(*source))
            .map(|source| self.halt_of(source))
            .collect();
        json!({
            "active": self.is_active(),
            "stopped": wanted.is_stopped(),
            "halted": wanted.is_halted(),
            "haltedBy": halted_by,
            "atRest": self.shared.controls.is_at_rest(),
            "head": { "number": format!("{:#x}", tip.header.number), "hash": tip.hash },
        })
    }

    fn halt_of(&self, source: HaltSource) -> Value {
        match source {
            HaltSource::Setting => json!({ "source": source.name(), "name": "admin.emergency-halt" }),
            HaltSource::File => json!({ "source": source.name(), "path": self.files.by_hand().display().to_string() }),
            HaltSource::Admin => {
                let halt = self.files.admin().ok().flatten().unwrap_or_default();
                json!({ "source": source.name(), "reason": halt.reason, "sinceMs": format!("{:#x}", halt.since_ms) })
            }
        }
    }

    fn require_builder(&self) -> Result<(), RpcError> {
        let why = "this node follows the chain from L1: there is no sequencer to control";
        if self.follows { Err(RpcError::server(why)) } else { Ok(()) }
    }

    /// As op-node, with the hash that the chain must have as head; without it whatever the head is.
    fn start(&self, params: &[Value]) -> Result<Value, RpcError> {
        self.require_builder()?;
        let expected: Option<B256> = optional(params, 0, "block hash")?;
        at_most(params, 1)?;
        let controls = &self.shared.controls;
        let wanted = controls.wanted();
        if wanted.is_halted() {
            let by: Vec<&str> = HaltSource::ALL
                .into_iter()
                .filter(|source| wanted.is_halted_by(*source))
                .map(HaltSource::name)
                .collect();
            let by = by.join(", ");
            return Err(RpcError::server(format!("halted by {by}: a start does not end that (admin_resumeSequencer)")));
        }
        if !wanted.is_stopped() {
            return Err(RpcError::server("sequencer already running"));
        }
        if let Some(expected) = expected {
            let head = self.tip().hash;
            if !controls.is_at_rest() || head != expected {
                return Err(RpcError::server(format!("block hash does not match: head {head}, received {expected}")));
            }
        }
        controls.set_stopped(false);
        self.builder_bell.ring();
        tracing::warn!("started by the operator: blocks are built");
        Ok(Value::Null)
    }

    fn stop(&self, params: &[Value]) -> Result<Waiting, RpcError> {
        self.require_builder()?;
        none(params)?;
        if self.shared.controls.set_stopped(true).is_stopped() {
            return Err(RpcError::server("sequencer not running"));
        }
        self.builder_bell.ring();
        tracing::warn!("stopped by the operator: no block is built, what is sent waits in the pool");
        Ok(Waiting::Stopped)
    }

    fn halt(&self, params: &[Value], now_ms: u64) -> Result<Waiting, RpcError> {
        self.require_builder()?;
        let reason: String = optional(params, 0, "reason")?.unwrap_or_default();
        at_most(params, 1)?;
        if reason.len() > REASON_BYTES_MAX {
            let bytes = reason.len();
            return Err(RpcError::invalid_params(format!(
                "invalid argument 0 (reason): {bytes} bytes, at most {REASON_BYTES_MAX}"
            )));
        }
        // At once; that it is remembered comes second.
        self.shared.controls.set_halted(HaltSource::Admin, true);
        self.builder_bell.ring();
        tracing::error!(reason, "halted by the operator: nothing is admitted or built, reads go on");
        self.files.remember(&AdminHalt { reason, since_ms: now_ms }).map_err(|error| {
            tracing::error!(%error, "a halt is not remembered: the next start is not halted");
            RpcError::internal(format!("halted, but a start after this one will not be: {error}"))
        })?;
        Ok(Waiting::Halted)
    }

    fn resume(&self, params: &[Value]) -> Answer {
        match self.take_back(params) {
            Err(error) => Answer::Now(Err(error)),
            // Others still halt or stop it: said when the builder core knows of this change.
            Ok(()) if !self.shared.controls.wanted().may_build() => Answer::When(Waiting::Halted),
            Ok(()) => Answer::Now(Ok(self.status())),
        }
    }

    fn take_back(&self, params: &[Value]) -> Result<(), RpcError> {
        self.require_builder()?;
        none(params)?;
        self.files.forget().map_err(|error| RpcError::internal(format!("still halted: {error}")))?;
        let controls = &self.shared.controls;
        controls.set_halted(HaltSource::Admin, false);
        self.builder_bell.ring();
        tracing::warn!(is_halted = controls.wanted().is_halted(), "the operator has taken a halt back");
        Ok(())
    }

    /// As op-batcher. What has a nonce goes on, whatever is wanted.
    fn set_batcher(&self, params: &[Value], call: BatcherCall) -> Result<Waiting, RpcError> {
        none(params)?;
        if !self.posts {
            return Err(RpcError::server(
                "this process posts nothing: there is no batcher (l1.mode, l1.key, settlement.post)",
            ));
        }
        let controls = &self.shared.controls;
        let mut wish = controls.batcher();
        match call {
            BatcherCall::Start if !wish.is_stopped => return Err(RpcError::server("batcher is already running")),
            BatcherCall::Stop | BatcherCall::Flush if wish.is_stopped => {
                return Err(RpcError::server("batcher is not running"));
            }
            BatcherCall::Start => wish.is_stopped = false,
            BatcherCall::Stop => wish.is_stopped = true,
            BatcherCall::Flush => wish.flush_count += 1,
        }
        controls.set_batcher(wish);
        self.shared.settlement.bell.ring();
        tracing::warn!(is_stopped = wish.is_stopped, "the operator has changed posting");
        Ok(Waiting::Batcher)
    }

    fn drop_transaction(&self, params: &[Value]) -> Result<Waiting, RpcError> {
        at_most(params, 1)?;
        let hash: B256 = required(params, 0, "transaction hash")?;
        self.ask_builder(OperatorWish::DropTransaction { hash }, true)
    }

    fn drop_sender(&self, params: &[Value]) -> Result<Waiting, RpcError> {
        at_most(params, 1)?;
        let address: Address = required(params, 0, "sender")?;
        self.ask_builder(OperatorWish::DropSender { address }, false)
    }

    fn ask_builder(&self, wish: OperatorWish, is_one: bool) -> Result<Waiting, RpcError> {
        self.require_builder()?;
        let answer = Arc::new(OnceLock::new());
        if !self.shared.operator.ask(OperatorJob { wish, answer: Arc::clone(&answer) }) {
            return Err(RpcError::busy("too many calls wait for the builder core: try again", 100));
        }
        self.builder_bell.ring();
        tracing::warn!(?wish, "the operator drops from the pool");
        Ok(Waiting::Dropped { answer, is_one })
    }

    fn limits(&self) -> Value {
        let limits = &self.shared.limits;
        Limit::ALL.into_iter().map(|limit| (limit.name().to_owned(), json!(limits.get(limit)))).collect()
    }

    fn set_limits(&self, params: &[Value]) -> Result<Value, RpcError> {
        at_most(params, 1)?;
        let invalid = |why: String| RpcError::invalid_params(format!("invalid argument 0 (limits): {why}"));
        let wanted: BTreeMap<String, u64> = required(params, 0, "limits")?;
        let changes = wanted
            .into_iter()
            .map(|(name, value)| Limit::from_name(&name).map(|limit| (limit, value)).map_err(invalid));
        let changes: Vec<(Limit, u64)> = changes.collect::<Result<_, _>>()?;
        self.shared.limits.set(&changes).map_err(|error| invalid(error.to_string()))?;
        for (limit, value) in changes {
            tracing::warn!(limit = limit.name(), value, "the operator has changed a limit");
        }
        Ok(self.limits())
    }

    fn set_log_level(&self, params: &[Value]) -> Result<Value, RpcError> {
        let filter: String = required(params, 0, "log level")?;
        at_most(params, 1)?;
        let invalid = |why: &str| RpcError::invalid_params(format!("invalid argument 0 (log level): {why}"));
        if filter.len() > FILTER_BYTES_MAX {
            return Err(invalid(&format!("{} bytes, at most {FILTER_BYTES_MAX}", filter.len())));
        }
        (self.set_log_filter)(&filter).map_err(|why| invalid(&why))?;
        tracing::info!(filter, "log level set");
        Ok(Value::Null)
    }
}

/// What an operator says of posting.
#[derive(Clone, Copy)]
enum BatcherCall {
    Start,
    Stop,
    Flush,
}

fn when(begun: Result<Waiting, RpcError>) -> Answer {
    match begun {
        Ok(waiting) => Answer::When(waiting),
        Err(error) => Answer::Now(Err(error)),
    }
}

fn required<T: serde::de::DeserializeOwned>(params: &[Value], index: usize, name: &str) -> Result<T, RpcError> {
    optional(params, index, name)?
        .ok_or_else(|| RpcError::invalid_params(format!("invalid argument {index} ({name}): missing")))
}

/// The argument at `index`; absent and `null` are the same.
fn optional<T: serde::de::DeserializeOwned>(params: &[Value], index: usize, name: &str) -> Result<Option<T>, RpcError> {
    match params.get(index) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value.clone())
            .map(Some)
            .map_err(|error| RpcError::invalid_params(format!("invalid argument {index} ({name}): {error}"))),
    }
}

fn at_most(params: &[Value], count: usize) -> Result<(), RpcError> {
    let given = params.len();
    if given <= count {
        return Ok(());
    }
    Err(RpcError::invalid_params(format!("too many arguments: {given}, at most {count}")))
}

fn none(params: &[Value]) -> Result<(), RpcError> {
    at_most(params, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_method() {
        let document = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/RPC.md"));
        let rows = document.lines().filter(|line| line.starts_with("| admin_"));
        let documented: Vec<&str> = rows.filter_map(|line| line.split('|').nth(1).map(str::trim)).collect();
        assert_eq!(documented, METHODS);
    }

    #[test]
    fn arguments_are_counted_and_named() {
        let shown = |error: RpcError| format!("{} {}", error.code, error.message);
        let null = optional::<String>(&[Value::Null], 0, "reason");
        assert_eq!(null, Ok(None));
        let number = optional::<String>(&[json!(7)], 0, "reason").expect_err("no text");
        assert!(shown(number).starts_with("-32602 invalid argument 0 (reason): "));
        let two = at_most(&[json!(1), json!(2)], 1).expect_err("one too many");
        assert_eq!(shown(two), "-32602 too many arguments: 2, at most 1");
    }
}
