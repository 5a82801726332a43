//! The conversation with an execution client, as a state machine: answers and time in, calls and verdicts out.
//!
//! ```text
//!  offline ─► exchangeCapabilities ─► read its head ─► common with ours ─► feed newPayload ─► forkchoiceUpdated ─► read its head again
//!     ▲                                    │                                                                           │ it moved
//!     └── no answer, or a wrong one        └─► halted: a chain of its own                                              ▼ checked
//! ```
//!
//! Pure: no socket, no clock, no file. Our chain is asked through [`OurChain`]; it never changes below its tip. One call is in flight at a
//! time; encoding the next payload meanwhile is the driver's. Invariants, held by the simulation in `session/tests.rs`: a block is checked
//! only after VALID with its own hash and with the client's head read back on it; what is checked never goes back; a client that was
//! killed, frozen or emptied is fed again from the last block both have.
//!
//! go-ethereum answers VALID without moving its head, and SYNCING for ever, after it lost state (`kill -9`): the ladder out of that is
//! patience, then `debug_setHead` to the head that it still has, then the operator's wipe (`docs/L2_NODE_INTEGRATION.md`).

mod recovery;

use crate::engine_api::status::{Condition, ExecutionStatus};
use crate::engine_api::types::{CallError, Method, PayloadStatus, REQUIRED, RemoteBlock, Reply, SyncProgress, Verdict};
use crate::primitives::B256;
use recovery::Recovery;

/// Blocks that may be VALID before the head follows: one forkchoice update costs 4 to 25 ms beside 104 ms for a block of 1,000 transfers.
const BLOCKS_PER_FORKCHOICE_MAX: u64 = 8;
/// How often an idle client's head is read: how long its restart stays unnoticed while we have nothing to say.
const POLL_NS: u64 = 1_000_000_000;
/// How often it is asked whether it syncs with peers of its own.
const SYNC_POLL_NS: u64 = 5_000_000_000;

/// How long to wait and how often to try again. Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSettings {
    /// First pause after a failure; doubled with each.
    pub backoff_ns: u64,
    pub backoff_ns_max: u64,
    /// Without progress for this long a client that answers is helped (`debug_setHead`), and after as long again it is stuck.
    pub stall_ns: u64,
    pub new_payload_retries: u32,
    pub forkchoice_retries: u32,
    pub read_retries: u32,
}

/// Our side: blocks that are in the chain database.
pub trait OurChain {
    fn tip(&self) -> u64;

    /// `None` above the tip.
    fn hash(&self, number: u64) -> Option<B256>;

    /// Whether this was our block once and was rolled back: the client must give it up.
    fn is_void(&self, number: u64, hash: B256) -> bool;

    /// Numbers of the newest safe and of the newest final block; 0 where L1 has not said so.
    fn settled(&self) -> (u64, u64) {
        (0, 0)
    }
}

/// What to ask the execution client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    ExchangeCapabilities,
    /// `latest`.
    ReadHead,
    ReadBlock {
        number: u64,
    },
    NewPayload {
        number: u64,
    },
    Forkchoice {
        number: u64,
    },
    /// `debug_setHead`.
    SetHead {
        number: u64,
    },
    /// `eth_syncing`.
    ReadSync,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Call(Call),
    /// The client's head is one of our blocks: said once.
    Met,
    /// The block and all below it may be `latest`.
    Checked {
        number: u64,
    },
    /// Evidence on disk, nothing is built any more.
    Halt(Halt),
    /// Only a new database helps: said once each time it comes to that.
    Stuck {
        why: String,
    },
}

/// Why the process must not go on building.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The client called one of our blocks INVALID.
    Invalid { number: u64, hash: B256, status: PayloadStatus },
    /// The client's chain holds another block at a height where we have one.
    Diverged { number: u64, ours: B256, theirs: B256 },
    /// The client has blocks behind our newest.
    Ahead { ours: u64, theirs: RemoteBlock },
}

impl std::fmt::Display for Halt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid { number, hash, status } => {
                let error = status.validation_error.as_deref().unwrap_or("no reason given");
                write!(f, "the execution client says {} to block {number} {hash}: {error}", status.verdict.name())
            }
            Self::Diverged { number, ours, theirs } => {
                write!(f, "block {number} is {ours} here and {theirs} at the execution client")
            }
            Self::Ahead { ours, theirs } => write!(
                f,
                "the execution client's head is block {} {}, ours is {ours}: its blocks are not in our journal; a start reads them",
                theirs.number, theirs.hash
            ),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is known of the client.
    Offline {
        retry_at_ns: u64,
    },
    /// The same call once more.
    Again {
        call: Call,
        at_ns: u64,
    },
    Handshake,
    ReadingHead,
    /// Looks for the last common block: `low` is common, `high` is not.
    Searching {
        low: u64,
        high: u64,
        theirs: B256,
    },
    /// Our tip is its ancestor: is what lies above it ours, rolled back?
    Above {
        common: u64,
        theirs: RemoteBlock,
    },
    /// Its head is above our tip: is our tip its ancestor?
    Overtaken {
        theirs: RemoteBlock,
    },
    /// Feeding, or idle.
    Serving,
    /// A forkchoice update was VALID: did the head move?
    Confirming {
        number: u64,
    },
    Rewinding,
    /// Reads its head again at this time.
    Waiting {
        at_ns: u64,
    },
    Halted,
}

/// See the module's text.
pub struct Session {
    settings: SessionSettings,
    phase: Phase,
    in_flight: Option<Call>,
    /// Failures since the last useful answer.
    failure_count: u32,
    /// Newest block on the client's chain that it called VALID since we last read its head.
    valid: u64,
    /// The client's head, which is one of our blocks.
    head: u64,
    checked: u64,
    /// The client's head was one of our blocks since the start.
    is_met: bool,
    poll_at_ns: u64,
    sync_poll_at_ns: u64,
    /// What the last forkchoice update said to be safe and final.
    settled: (u64, u64),
    recovery: Recovery,
    /// An INVALID, while the VALID blocks below it still become the head.
    halting: Option<Halt>,
    status: ExecutionStatus,
}

impl Session {
    /// A session of a process whose blocks up to `checked` were `latest` before.
    #[must_use]
    pub fn new(settings: SessionSettings, checked: u64, now_ns: u64) -> Self {
        Self {
            settings,
            phase: Phase::Offline { retry_at_ns: now_ns },
            in_flight: None,
            failure_count: 0,
            valid: 0,
            head: 0,
            checked,
            is_met: false,
            poll_at_ns: now_ns,
            sync_poll_at_ns: now_ns,
            settled: (0, 0),
            recovery: Recovery::default(),
            halting: None,
            status: ExecutionStatus::new(Condition::Connecting),
        }
    }

    #[must_use]
    pub fn status(&self) -> ExecutionStatus {
        ExecutionStatus { head_number: self.head, valid_number: self.valid(), ..self.status.clone() }
    }

    /// Newest block that the client called VALID.
    #[must_use]
    pub fn valid(&self) -> u64 {
        self.valid.max(self.head)
    }

    /// Whether a payload is under way.
    #[must_use]
    pub fn is_feeding(&self) -> bool {
        matches!(self.in_flight, Some(Call::NewPayload { .. }))
    }

    /// When [`Session::tick`] has something to do although nothing happens.
    #[must_use]
    pub fn wake_at_ns(&self) -> Option<u64> {
        if self.in_flight.is_some() {
            return None;
        }
        match self.phase {
            Phase::Offline { retry_at_ns: at_ns } | Phase::Again { at_ns, .. } | Phase::Waiting { at_ns } => {
                Some(at_ns)
            }
            Phase::Serving => Some(self.poll_at_ns.min(self.sync_poll_at_ns)),
            _ => None,
        }
    }

    /// Time has passed, or our chain has grown.
    pub fn tick(&mut self, now_ns: u64, chain: &impl OurChain, out: &mut Vec<Action>) {
        if self.in_flight.is_some() {
            return;
        }
        match self.phase {
            Phase::Offline { retry_at_ns } if now_ns >= retry_at_ns => {
                self.phase = Phase::Handshake;
                self.call(Call::ExchangeCapabilities, out);
            }
            Phase::Again { call, at_ns } if now_ns >= at_ns => {
                self.phase = match call {
                    Call::ReadHead => Phase::ReadingHead,
                    _ => Phase::Serving,
                };
                self.call(call, out);
            }
            Phase::Waiting { at_ns } if now_ns >= at_ns => self.read_head(out),
            Phase::Serving => self.serve(now_ns, chain, out),
            _ => {}
        }
    }

    /// The call in flight has its answer.
    pub fn answered(
        &mut self,
        answer: Result<Reply, CallError>,
        now_ns: u64,
        chain: &impl OurChain,
        out: &mut Vec<Action>,
    ) {
        let Some(call) = self.in_flight.take() else { return };
        match (call, answer) {
            (Call::ExchangeCapabilities, Ok(Reply::Capabilities(names))) => self.greeted(&names, now_ns, out),
            (Call::ReadHead, Ok(Reply::Block(Some(theirs)))) => self.head_read(theirs, now_ns, chain, out),
            (Call::ReadBlock { number }, Ok(Reply::Block(theirs))) => {
                self.block_read(number, theirs, now_ns, chain, out);
            }
            (Call::NewPayload { number }, Ok(Reply::Status(status))) => {
                self.judged(number, status, now_ns, chain, out);
            }
            (Call::Forkchoice { number }, Ok(Reply::Status(status))) => {
                self.chosen(number, &status, now_ns, chain, out);
            }
            (Call::SetHead { .. }, Ok(Reply::Done)) => self.read_head(out),
            (Call::ReadSync, Ok(Reply::Sync(sync))) => self.sync_read(sync, now_ns, chain, out),
            // A port that does not tell, or tells nonsense, is no reason not to be fed.
            (Call::ReadSync, Err(error)) if error.code().is_some() || matches!(error, CallError::Malformed { .. }) => {
                self.sync_read(None, now_ns, chain, out);
            }
            (Call::SetHead { .. }, Err(error)) if error.code().is_some() => {
                self.recovery.cannot_rewind();
                self.stalled(format!("its head cannot be set: {error}"), now_ns, out);
            }
            // The client took the blocks and will not follow them: only its own database can tell why.
            (Call::Forkchoice { .. }, Err(error)) if error.code().is_some() => {
                self.recovery.hurry();
                self.stalled(error.to_string(), now_ns, out);
            }
            (_, Err(error)) => self.failed(call, error.to_string(), now_ns),
            (_, Ok(reply)) => self.failed(call, format!("an answer to another question: {reply:?}"), now_ns),
        }
        if self.in_flight.is_none()
            && let Some(halt) = self.halting.take()
        {
            self.halt(halt, out);
        }
    }

    // ---- the way to a common block ----------------------------------------------------------------------------------------------------

    fn greeted(&mut self, names: &[String], now_ns: u64, out: &mut Vec<Action>) {
        let missing = REQUIRED.iter().map(|method| method.name()).find(|name| !names.iter().any(|known| known == name));
        if let Some(missing) = missing {
            return self.offline(format!("the execution client does not offer {missing}"), now_ns);
        }
        self.status.connect_count += 1;
        self.recovery.reconnected();
        self.read_head(out);
    }

    fn read_head(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::ReadingHead;
        self.call(Call::ReadHead, out);
    }

    fn head_read(&mut self, theirs: RemoteBlock, now_ns: u64, chain: &impl OurChain, out: &mut Vec<Action>) {
        let is_ours = chain.hash(theirs.number) == Some(theirs.hash);
        if let Phase::Confirming { number } = self.phase {
            if is_ours && theirs.number == number {
                self.head = number;
                return self.advanced(now_ns, chain, out);
            }
            if is_ours {
                (self.head, self.valid) = (theirs.number, theirs.number);
                self.recovery.hurry();
                let why = format!("VALID to block {number}, and its head stays on block {}", theirs.number);
                return self.stalled(why, now_ns, out);
            }
        }
        if is_ours {
            if !std::mem::replace(&mut self.is_met, true) {
                out.push(Action::Met);
            }
            (self.head, self.valid) = (theirs.number, theirs.number);
            return self.advanced(now_ns, chain, out);
        }
        if theirs.number > chain.tip() {
            self.phase = Phase::Overtaken { theirs };
            return self.call(Call::ReadBlock { number: chain.tip() }, out);
        }
        self.phase = Phase::Searching { low: 0, high: theirs.number, theirs: theirs.hash };
        self.call(Call::ReadBlock { number: 0 }, out);
    }

    fn block_read(
        &mut self,
        number: u64,
        theirs: Option<RemoteBlock>,
        now_ns: u64,
        chain: &impl OurChain,
        out: &mut Vec<Action>,
    ) {
        if let (Phase::Above { common, theirs }, Some(block)) = (self.phase.clone(), theirs) {
            return match chain.is_void(number, block.hash) {
                true => self.rewind(common, out),
                false => self.halt(Halt::Ahead { ours: common, theirs }, out),
            };
        }
        let (Some(block), Some(ours)) = (theirs, chain.hash(number)) else {
            // Its chain became shorter between two questions.
            return self.offline(format!("the execution client has no block {number} any more"), now_ns);
        };
        let is_common = block.hash == ours;
        match self.phase.clone() {
            Phase::Overtaken { theirs } if is_common => {
                self.phase = Phase::Above { common: number, theirs };
                self.call(Call::ReadBlock { number: number + 1 }, out);
            }
            Phase::Overtaken { .. } => {
                self.phase = Phase::Searching { low: 0, high: number, theirs: block.hash };
                self.call(Call::ReadBlock { number: 0 }, out);
            }
            Phase::Searching { .. } if number == 0 && !is_common => {
                self.offline(format!("genesis is {ours} here and {} at the execution client", block.hash), now_ns);
            }
            Phase::Searching { low, high, theirs } => {
                let (low, high, theirs) =
                    if is_common { (number.max(low), high, theirs) } else { (low, number, block.hash) };
                if high - low > 1 {
                    self.phase = Phase::Searching { low, high, theirs };
                    return self.call(Call::ReadBlock { number: low + (high - low) / 2 }, out);
                }
                if chain.is_void(high, theirs) {
                    return self.rewind(low, out);
                }
                let ours = chain.hash(high).unwrap_or_default();
                self.halt(Halt::Diverged { number: high, ours, theirs }, out);
            }
            _ => self.offline(format!("block {number} was not asked for"), now_ns),
        }
    }

    // ---- feeding ----------------------------------------------------------------------------------------------------------------------

    /// The client's head is our block `head`.
    fn advanced(&mut self, now_ns: u64, chain: &impl OurChain, out: &mut Vec<Action>) {
        let is_caught_up = self.head >= chain.tip();
        if self.recovery.head_at(self.head, is_caught_up) {
            self.status.condition = Condition::Ready;
            self.status.why.clear();
        }
        if self.head > self.checked {
            self.checked = self.head;
            out.push(Action::Checked { number: self.head });
        }
        self.failure_count = 0;
        self.phase = Phase::Serving;
        self.poll_at_ns = now_ns + POLL_NS;
        self.serve(now_ns, chain, out);
    }

    fn serve(&mut self, now_ns: u64, chain: &impl OurChain, out: &mut Vec<Action>) {
        if self.halting.is_some() {
            return;
        }
        if now_ns >= self.sync_poll_at_ns {
            self.sync_poll_at_ns = now_ns + SYNC_POLL_NS;
            return self.call(Call::ReadSync, out);
        }
        let tip = chain.tip();
        if self.valid > self.head && (self.valid >= tip || self.valid - self.head >= BLOCKS_PER_FORKCHOICE_MAX) {
            self.choose(self.valid, chain, out);
        } else if self.valid < tip {
            self.call(Call::NewPayload { number: self.valid + 1 }, out);
        } else if now_ns >= self.poll_at_ns {
            // Without new blocks, too, the client hears of what L1 has made of the old ones.
            match settled_at(self.head, chain) == self.settled {
                true => self.read_head(out),
                false => self.choose(self.head, chain, out),
            }
        }
    }

    fn choose(&mut self, number: u64, chain: &impl OurChain, out: &mut Vec<Action>) {
        self.settled = settled_at(number, chain);
        self.call(Call::Forkchoice { number }, out);
    }

    fn sync_read(&mut self, sync: Option<SyncProgress>, now_ns: u64, chain: &impl OurChain, out: &mut Vec<Action>) {
        self.status.sync = sync;
        self.serve(now_ns, chain, out);
    }

    fn judged(
        &mut self,
        number: u64,
        status: PayloadStatus,
        now_ns: u64,
        chain: &impl OurChain,
        out: &mut Vec<Action>,
    ) {
        let Some(hash) = chain.hash(number) else { return };
        match status.verdict {
            Verdict::Valid if status.latest_valid_hash == Some(hash) => {
                self.valid = number;
                self.failure_count = 0;
                self.serve(now_ns, chain, out);
            }
            Verdict::Valid => {
                let call = Call::NewPayload { number };
                self.failed(call, wrong_latest_valid(number, hash, &status), now_ns);
            }
            Verdict::Invalid | Verdict::InvalidBlockHash => {
                self.halting = Some(Halt::Invalid { number, hash, status });
                if self.valid > self.head {
                    self.choose(self.valid, chain, out);
                }
            }
            Verdict::Syncing | Verdict::Accepted => {
                let why = format!("{} to block {number}, with its head on block {}", status.verdict.name(), self.head);
                self.stalled(why, now_ns, out);
            }
        }
    }

    fn chosen(
        &mut self,
        number: u64,
        status: &PayloadStatus,
        now_ns: u64,
        chain: &impl OurChain,
        out: &mut Vec<Action>,
    ) {
        let Some(hash) = chain.hash(number) else { return };
        match status.verdict {
            Verdict::Valid if status.latest_valid_hash == Some(hash) => {
                self.phase = Phase::Confirming { number };
                self.call(Call::ReadHead, out);
            }
            Verdict::Valid => {
                self.failed(Call::Forkchoice { number }, wrong_latest_valid(number, hash, status), now_ns);
            }
            verdict => {
                let error = status.validation_error.as_deref().unwrap_or("");
                let why = format!("{} to the forkchoice of block {number} {error}", verdict.name());
                self.stalled(why.trim_end().to_owned(), now_ns, out);
            }
        }
    }

    // ---- what goes wrong --------------------------------------------------------------------------------------------------------------

    /// The client answers and does not get on.
    fn stalled(&mut self, why: String, now_ns: u64, out: &mut Vec<Action>) {
        if self.halting.is_some() {
            return;
        }
        let step = self.recovery.stalled(self.head, now_ns, self.settings.stall_ns);
        self.status.condition = Condition::Stalled;
        self.status.why.clone_from(&why);
        match step {
            recovery::Step::Wait => self.phase = Phase::Waiting { at_ns: now_ns + self.settings.backoff_ns },
            recovery::Step::Rewind => self.rewind(self.head, out),
            recovery::Step::Stuck { is_new } => {
                self.status.condition = Condition::Stuck;
                self.phase = Phase::Waiting { at_ns: now_ns + self.settings.backoff_ns_max };
                if is_new {
                    out.push(Action::Stuck { why });
                }
            }
        }
    }

    fn rewind(&mut self, number: u64, out: &mut Vec<Action>) {
        self.phase = Phase::Rewinding;
        self.status.rewind_count += 1;
        self.call(Call::SetHead { number }, out);
    }

    /// A call without a usable answer: once more, a few times, then all over again.
    fn failed(&mut self, call: Call, why: String, now_ns: u64) {
        let retries = match call {
            Call::NewPayload { .. } => self.settings.new_payload_retries,
            Call::Forkchoice { .. } => self.settings.forkchoice_retries,
            Call::ReadHead if matches!(self.phase, Phase::ReadingHead) => self.settings.read_retries,
            _ => 0,
        };
        if self.failure_count >= retries {
            return self.offline(why, now_ns);
        }
        let pause_ns = self.pause_ns();
        self.failure_count += 1;
        self.status.condition = Condition::Unreachable;
        self.status.why = why;
        self.phase = Phase::Again { call, at_ns: now_ns + pause_ns };
    }

    fn offline(&mut self, why: String, now_ns: u64) {
        let pause_ns = self.pause_ns();
        self.failure_count = self.failure_count.saturating_add(1);
        self.status.condition = Condition::Unreachable;
        self.status.why = why;
        self.phase = Phase::Offline { retry_at_ns: now_ns + pause_ns };
    }

    fn pause_ns(&self) -> u64 {
        let doubled = self.settings.backoff_ns.saturating_mul(1 << self.failure_count.min(20));
        doubled.min(self.settings.backoff_ns_max)
    }

    fn halt(&mut self, halt: Halt, out: &mut Vec<Action>) {
        self.phase = Phase::Halted;
        self.status.condition = Condition::Halted;
        self.status.why = halt.to_string();
        out.push(Action::Halt(halt));
    }

    fn call(&mut self, call: Call, out: &mut Vec<Action>) {
        self.in_flight = Some(call);
        out.push(Action::Call(call));
    }
}

impl Call {
    /// What is called for a block of this fork.
    #[must_use]
    pub fn method(self, fork: crate::primitives::Fork) -> Method {
        match self {
            Self::ExchangeCapabilities => Method::ExchangeCapabilities,
            Self::ReadHead | Self::ReadBlock { .. } => Method::GetBlockByNumber,
            Self::NewPayload { .. } => Method::new_payload(fork),
            Self::Forkchoice { .. } => Method::forkchoice_updated(fork),
            Self::SetHead { .. } => Method::SetHead,
            Self::ReadSync => Method::Syncing,
        }
    }
}

/// What is safe and final when the client's head is our block `number`.
fn settled_at(number: u64, chain: &impl OurChain) -> (u64, u64) {
    let (safe, finalized) = chain.settled();
    (safe.min(number), finalized.min(number))
}

fn wrong_latest_valid(number: u64, hash: B256, status: &PayloadStatus) -> String {
    let said = status.latest_valid_hash.map_or_else(|| "null".to_owned(), |hash| hash.to_string());
    format!("VALID to block {number} {hash} with latestValidHash {said}")
}

#[cfg(test)]
mod tests;
