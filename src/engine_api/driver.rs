//! The control thread: one current-thread runtime that carries the session's calls and tells the process what is checked.
//!
//! No decisions of its own. While a call is under way the next block's payload is encoded, so that the execution client never waits for us.

use std::future::{Future, pending};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use alloy_rlp::Decodable;
use futures_lite::future::{or, poll_fn, poll_once};

use crate::builder::block::SealedBlock;
use crate::chain::{ChainError, ChainReader};
use crate::config::execution::ExecutionConfig;
use crate::config::genesis::ChainSpec;
use crate::engine_api::files::{CheckedMark, Evidence, FileError};
use crate::engine_api::jwt::Secret;
use crate::engine_api::payload::{PayloadParts, forkchoice_params, new_payload_params};
use crate::engine_api::session::{Action, Call, Halt, OurChain, Session, SessionSettings};
use crate::engine_api::status::{Condition, ExecutionStatus};
use crate::engine_api::transport::{JsonTransport, Prepared, Transport};
use crate::engine_api::types::{CallError, Method, Reply};
use crate::limits;
use crate::primitives::{B256, Bytes, Fork};
use crate::ring::Doorbell;
use crate::runtime::clock;
use crate::topology::Shared;

/// Between two runs of `execution.reset-command`: feeding a new database takes its time, and a loop would hide what is wrong.
const RESET_PAUSE_NS: u64 = 60_000_000_000;

/// Everything that the control thread owns.
pub struct ControlSeat {
    pub config: ExecutionConfig,
    pub secret: Secret,
    pub spec: ChainSpec,
    pub chain: ChainReader,
    pub shared: Arc<Shared>,
    /// Number of the newest block that was `latest`.
    pub checked: u64,
    pub mark: CheckedMark,
    pub evidence: Evidence,
    /// Number and hash of blocks that were rolled back.
    pub void: Vec<(u64, B256)>,
    pub builder_bell: Arc<Doorbell>,
}

/// Why the control thread ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the runtime could not be started: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    File(#[from] FileError),
}

type Answer = (JsonTransport, Place, Result<Reply, CallError>);
type InFlight = Pin<Box<dyn Future<Output = Answer>>>;

/// Which of the client's two ports a call goes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Engine,
    Rpc,
}

/// Runs until the process closes.
///
/// # Errors
/// The mark or the evidence cannot be written.
pub fn run(seat: ControlSeat) -> Result<(), ControlError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    runtime.map_err(ControlError::Runtime)?.block_on(Control::new(seat).run())
}

/// Our blocks as the session and the payloads need them.
struct Blocks {
    chain: ChainReader,
    shared: Arc<Shared>,
    spec: ChainSpec,
    void: Vec<(u64, B256)>,
}

impl OurChain for Blocks {
    fn tip(&self) -> u64 {
        self.chain.latest_number().unwrap_or(0)
    }

    fn hash(&self, number: u64) -> Option<B256> {
        if number > self.tip() {
            return None;
        }
        match self.shared.heads.load().recent_by_number(number) {
            Some(sealed) => Some(sealed.hash),
            // A damaged file ends the process where the chain thread meets it.
            None => self.chain.hash_by_number(number).ok().flatten(),
        }
    }

    fn is_void(&self, number: u64, hash: B256) -> bool {
        self.void.contains(&(number, hash))
    }

    fn settled(&self) -> (u64, u64) {
        let view = self.shared.settlement.view();
        // Without an L1 nothing is said to be final: go-ethereum never goes below a finalized block again.
        if self.shared.settlement.is_on() { (view.safe, view.finalized) } else { (0, 0) }
    }
}

impl Blocks {
    fn fork(&self, number: u64) -> Fork {
        let heads = self.shared.heads.load();
        let timestamp = match heads.recent_by_number(number) {
            Some(sealed) => Some(sealed.header.timestamp),
            None => self.chain.header_rlp(number).ok().flatten().and_then(|rlp| {
                alloy_consensus::Header::decode(&mut rlp.as_slice()).ok().map(|header| header.timestamp)
            }),
        };
        self.spec.fork_at(timestamp.unwrap_or(heads.latest.header.timestamp))
    }

    /// The parameters of `engine_newPayload` for one of our blocks: from memory, else from the chain database.
    fn payload(&self, number: u64) -> Result<Vec<u8>, CallError> {
        let sealed = self.shared.heads.load().recent_by_number(number).cloned();
        match sealed {
            Some(sealed) => Ok(sealed_payload(&sealed)),
            None => {
                self.stored_payload(number).map_err(|error| CallError::Payload { number, what: error.to_string() })?
            }
        }
    }

    fn stored_payload(&self, number: u64) -> Result<Result<Vec<u8>, CallError>, ChainError> {
        let fault = |what: String| Ok(Err(CallError::Payload { number, what }));
        let Some(stored) = self.chain.block_by_number(number)? else {
            return fault("not in the chain database".to_owned());
        };
        let header = match alloy_consensus::Header::decode(&mut stored.header_rlp()?) {
            Ok(header) => header,
            Err(error) => return fault(format!("its header does not decode: {error}")),
        };
        let requests = match stored.requests_rlp()? {
            [] => Vec::new(),
            mut rlp => match Vec::<Bytes>::decode(&mut rlp) {
                Ok(requests) => requests,
                Err(error) => return fault(format!("its requests do not decode: {error}")),
            },
        };
        let hash = crate::builder::execution::requests_hash(&requests);
        if header.requests_hash != Some(hash) {
            let expected = header.requests_hash.unwrap_or_default();
            return fault(format!("requests hash to {hash}, its header says {expected}"));
        }
        let transactions = stored.txs().map(|tx| tx.map(|tx| tx.raw)).collect::<Result<Vec<_>, _>>()?;
        let mut params = Vec::new();
        let parts = PayloadParts {
            header: &header,
            hash: stored.hash(),
            transactions: transactions.into_iter(),
            requests: requests.iter().map(AsRef::as_ref),
        };
        new_payload_params(parts, &mut params);
        Ok(Ok(params))
    }
}

/// Which of `metrics::EXECUTION_METHODS` a call counts as.
fn label_of(call: Call) -> usize {
    match call {
        Call::NewPayload { .. } => 0,
        Call::Forkchoice { .. } => 1,
        _ => 2,
    }
}

fn sealed_payload(sealed: &SealedBlock) -> Vec<u8> {
    let block = &sealed.block;
    let mut params = Vec::with_capacity(2 * block.body().len() + 4_096);
    let parts = PayloadParts {
        header: &sealed.header,
        hash: sealed.hash,
        transactions: block.transactions.iter().map(|tx| block.raw(tx)),
        requests: sealed.requests.iter().map(AsRef::as_ref),
    };
    new_payload_params(parts, &mut params);
    params
}

struct Control {
    config: ExecutionConfig,
    blocks: Blocks,
    session: Session,
    engine: Option<JsonTransport>,
    rpc: Option<JsonTransport>,
    /// The next block's payload, made while the client worked on the one before.
    ahead: Option<(u64, Vec<u8>)>,
    in_flight: Option<InFlight>,
    mark: CheckedMark,
    evidence: Evidence,
    builder_bell: Arc<Doorbell>,
    told: ExecutionStatus,
    /// `execution.reset-command` while it runs, when it was started last, and how often.
    reset: Option<Child>,
    reset_ns: Option<u64>,
    reset_count: u64,
}

impl Control {
    fn new(seat: ControlSeat) -> Self {
        let ControlSeat { config, secret, spec, chain, shared, checked, mark, evidence, void, builder_bell } = seat;
        let settings = SessionSettings {
            backoff_ns: config.backoff_ns,
            backoff_ns_max: config.backoff_ns_max,
            stall_ns: config.stall_ns,
            new_payload_retries: config.new_payload.retries,
            forkchoice_retries: config.forkchoice.retries,
            read_retries: config.read.retries,
        };
        let session = Session::new(settings, checked, clock::monotonic_ns());
        Self {
            told: session.status(),
            session,
            engine: Some(JsonTransport::new(&config.engine, Some(secret))),
            rpc: config.rpc.as_ref().map(|endpoint| JsonTransport::new(endpoint, None)),
            blocks: Blocks { chain, shared, spec, void },
            ahead: None,
            in_flight: None,
            config,
            mark,
            evidence,
            builder_bell,
            reset: None,
            reset_ns: None,
            reset_count: 0,
        }
    }

    async fn run(mut self) -> Result<(), ControlError> {
        let mut actions = Vec::new();
        loop {
            if self.shared().is_closed() {
                return Ok(());
            }
            self.session.tick(clock::monotonic_ns(), &self.blocks, &mut actions);
            self.carry_out(&mut actions)?;
            self.watch_reset();
            self.tell_status();
            self.encode_ahead().await;
            if let Some((transport, place, answer)) = self.wait().await {
                *self.place(place) = Some(transport);
                self.in_flight = None;
                self.session.answered(answer, clock::monotonic_ns(), &self.blocks, &mut actions);
                self.carry_out(&mut actions)?;
            }
        }
    }

    fn shared(&self) -> &Shared {
        &self.blocks.shared
    }

    fn place(&mut self, place: Place) -> &mut Option<JsonTransport> {
        match place {
            Place::Engine => &mut self.engine,
            Place::Rpc => &mut self.rpc,
        }
    }

    fn carry_out(&mut self, actions: &mut Vec<Action>) -> Result<(), ControlError> {
        for action in actions.drain(..) {
            match action {
                Action::Call(call) => self.begin(call),
                Action::Met => {
                    self.shared().execution.meet();
                    self.builder_bell.ring();
                }
                Action::Checked { number } => {
                    // The mark may lag; one with a wrong hash would stop the next start.
                    if let Some(hash) = self.blocks.hash(number) {
                        self.mark.set(number, hash)?;
                    }
                    self.shared().execution.set_checked(number);
                    self.builder_bell.ring();
                }
                Action::Halt(halt) => self.halt(&halt)?,
                Action::Stuck { why } => self.stuck(&why),
            }
        }
        Ok(())
    }

    /// Only a new database helps. Who manages the client is told, and it is fed again by itself.
    fn stuck(&mut self, why: &str) {
        let Some(command) = &self.config.reset_command else {
            tracing::error!(
                why,
                "the execution client needs a new database: stop it, wipe its data directory, `geth init`, start it; it is fed again by itself"
            );
            return;
        };
        let now_ns = clock::monotonic_ns();
        let is_running = self.reset.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if is_running || self.reset_ns.is_some_and(|reset_ns| now_ns < reset_ns + RESET_PAUSE_NS) {
            tracing::error!(why, "the execution client needs a new database again: the last reset was a moment ago");
            return;
        }
        self.reset_ns = Some(now_ns);
        let command = command.display();
        tracing::warn!(why, %command, "the execution client needs a new database: execution.reset-command is run");
        match Command::new(&*command.to_string()).stdin(Stdio::null()).stdout(Stdio::null()).spawn() {
            Ok(child) => {
                self.reset_count += 1;
                self.reset = Some(child);
            }
            Err(error) => tracing::error!(%error, %command, "execution.reset-command could not be started"),
        }
    }

    /// Says how the command ended, once.
    fn watch_reset(&mut self) {
        let Some(child) = &mut self.reset else { return };
        match child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) if status.success() => tracing::info!("execution.reset-command has ended"),
            Ok(Some(status)) => tracing::error!(%status, "execution.reset-command has failed"),
            Err(error) => tracing::error!(%error, "execution.reset-command cannot be watched"),
        }
        self.reset = None;
    }

    fn halt(&mut self, halt: &Halt) -> Result<(), ControlError> {
        tracing::error!(why = %halt, "halted: nothing is built or admitted, reads go on");
        if let Halt::Invalid { number, hash, .. } = halt {
            let request = self.blocks.payload(*number).unwrap_or_else(|error| error.to_string().into_bytes());
            let dir = self.evidence.write(*number, *hash, &request, &halt.to_string())?;
            let to_block = number.saturating_sub(1);
            tracing::error!(evidence = %dir.display(), "the way out: stop, `sequencer journal rollback --to-block {to_block}`");
        }
        self.shared().execution.halt();
        self.builder_bell.ring();
        Ok(())
    }

    /// Starts a call. The transport travels with it and comes back with the answer.
    fn begin(&mut self, call: Call) {
        let number = match call {
            Call::NewPayload { number } | Call::Forkchoice { number } | Call::ReadBlock { number } => number,
            _ => self.blocks.tip(),
        };
        let method = call.method(self.blocks.fork(number));
        let limits = match call {
            Call::NewPayload { .. } => self.config.new_payload,
            Call::Forkchoice { .. } => self.config.forkchoice,
            _ => self.config.read,
        };
        // go-ethereum's authenticated port knows `engine` and `eth` alone.
        let place = if method == Method::SetHead && self.rpc.is_some() { Place::Rpc } else { Place::Engine };
        let Some(mut transport) = self.place(place).take() else {
            unreachable!("the session has one call in flight at a time");
        };
        let params = self.params(call);
        let (shared, label) = (Arc::clone(&self.blocks.shared), label_of(call));
        self.in_flight = Some(Box::pin(async move {
            let start_ns = clock::monotonic_ns();
            let answer = match params {
                Err(error) => Err(error),
                Ok(params) => {
                    let unix_s = clock::wall_unix_ns() / 1_000_000_000;
                    let request = transport.call(Prepared { method, params }, unix_s);
                    let limit_ms = limits.timeout_ns / 1_000_000;
                    match tokio::time::timeout(Duration::from_nanos(limits.timeout_ns), request).await {
                        Ok(answer) => answer,
                        Err(_) => Err(CallError::TimedOut { method: method.name(), limit_ms }),
                    }
                }
            };
            let meter = &shared.metrics.execution;
            match &answer {
                Ok(_) => meter.calls[label].record(clock::monotonic_ns() - start_ns),
                Err(_) => meter.failed.increment(label),
            }
            (transport, place, answer)
        }));
    }

    fn params(&mut self, call: Call) -> Result<Vec<u8>, CallError> {
        Ok(match call {
            Call::ReadSync => b"[]".to_vec(),
            Call::ExchangeCapabilities => br#"[["engine_newPayloadV4","engine_forkchoiceUpdatedV3"]]"#.to_vec(),
            Call::ReadHead => br#"["latest",false]"#.to_vec(),
            Call::ReadBlock { number } => format!(r#"["{number:#x}",false]"#).into_bytes(),
            Call::SetHead { number } => format!(r#"["{number:#x}"]"#).into_bytes(),
            Call::NewPayload { number } => match self.ahead.take() {
                Some((ahead, params)) if ahead == number => params,
                _ => self.blocks.payload(number)?,
            },
            Call::Forkchoice { number } => {
                let missing = || CallError::Payload { number, what: "its hash cannot be read".to_owned() };
                let head = self.blocks.hash(number).ok_or_else(missing)?;
                let (safe, finalized) = self.blocks.settled();
                let settled = |block: u64| match block.min(number) {
                    0 => B256::ZERO,
                    block => self.blocks.hash(block).unwrap_or_default(),
                };
                let mut params = Vec::new();
                forkchoice_params(head, settled(safe), settled(finalized), &mut params);
                params
            }
        })
    }

    /// Encodes the payload that comes next while the client has work.
    async fn encode_ahead(&mut self) {
        let Some(call) = &mut self.in_flight else { return };
        // Lets the request out first.
        if let Some(answer) = poll_once(call).await {
            self.in_flight = Some(Box::pin(std::future::ready(answer)));
            return;
        }
        tokio::task::yield_now().await;
        let next = self.session.valid() + if self.session.is_feeding() { 2 } else { 1 };
        if next <= self.blocks.tip() && self.ahead.as_ref().is_none_or(|(ahead, _)| *ahead != next) {
            // A block that cannot be read is the session's to hear of, when its turn comes.
            self.ahead = self.blocks.payload(next).ok().map(|params| (next, params));
        }
    }

    /// Sleeps until the call has its answer, our chain has grown, or the session's time has come.
    async fn wait(&mut self) -> Option<Answer> {
        let tip = self.blocks.tip();
        let sleep_ns = self
            .session
            .wake_at_ns()
            .map_or(limits::PARK_NS_MAX, |at_ns| at_ns.saturating_sub(clock::monotonic_ns()).min(limits::PARK_NS_MAX));
        let Self { in_flight, blocks, .. } = self;
        let answer = async {
            match in_flight {
                Some(call) => Some(call.await),
                None => pending().await,
            }
        };
        let bell = &blocks.shared.execution.bell;
        let news = poll_fn(|context| {
            bell.poll(context.waker(), || blocks.tip() > tip || blocks.shared.is_closed()).map(|()| None)
        });
        let time = async {
            tokio::time::sleep(Duration::from_nanos(sleep_ns)).await;
            None
        };
        or(answer, or(news, time)).await
    }

    fn tell_status(&mut self) {
        let status = ExecutionStatus { reset_count: self.reset_count, ..self.session.status() };
        if status == self.told {
            return;
        }
        if (status.condition, &status.why) != (self.told.condition, &self.told.why) {
            let (condition, why) = (status.condition.name(), &status.why);
            if matches!(status.condition, Condition::Ready | Condition::Connecting) {
                tracing::info!(condition, head = status.head_number, "execution client");
            } else {
                tracing::warn!(condition, why, head = status.head_number, "execution client");
            }
        }
        self.told = status.clone();
        self.shared().execution.set_status(status);
    }
}
