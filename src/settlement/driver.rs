//! The `l1` thread: one current-thread runtime around [`Conductor`], with L1's client, the key and the ledger. No decisions of its own.
//!
//! ```text
//!  L1 ─► Follower ─┐                       ┌─► ledger (synced)
//!  settle thread ──┼─► Conductor ─► actions┼─► settle thread
//!  chain database ─┘       │               └─► sender task ─► L1
//!                          └─► cells ─► builder core
//! ```
//!
//! Sending and asking for the account are tasks beside it with connections of their own, so that a slow answer holds up neither what L1 says nor the other.

mod reached;
pub mod sender;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use alloy_consensus::Header;
use alloy_rlp::Decodable;
use crossbeam::channel::{Receiver, Sender, TrySendError};
use futures_lite::future::{or, pending, poll_fn};
use tokio::sync::mpsc::{Receiver as TaskReceiver, Sender as TaskSender, channel};
use tokio::sync::watch;

use crate::admin::cells::BatcherWish;
use crate::chain::{ChainError, ChainReader};
use crate::derivation::origins::OriginBlock;
use crate::journal::record::RollbackCause;
use crate::l1::block::BlockId;
use crate::l1::client::error::{ClientError, UrlError};
use crate::l1::client::follow::{Follower, L1Event};
use crate::l1::client::transport::Transport;
use crate::l1::client::{ClientSettings, L1Client};
use crate::l1::execute_tx::{EncodedPayload, Terms};
use crate::l1::profile::Profile;
use crate::l1::signer::{LocalKey, Signer};
use crate::l1::tx_manager::types::{Attempt, HeadView, SendOutcome};
use crate::limits;
use crate::primitives::{Address, B256, Bytes, U256};
use crate::ring::Doorbell;
use crate::runtime::clock;
use crate::settlement::Origin;
use crate::settlement::cells::Hold;
use crate::settlement::conductor::{Action, CheckedBatch, Conductor, Event, Replace};
use crate::settlement::follower::{FollowEnd, FollowMessage};
use crate::settlement::jobs::{Job, Outcome};
use crate::settlement::ledger::Entry;
use crate::settlement::ledger_file::{LedgerError, LedgerFile};
use crate::settlement::pass_on::{self, PassedOn};
use crate::settlement::plan::{Plan, PlanError, ProfileFormats};
use crate::settlement::segment::CutLimits;
use crate::settlement::status::{Condition, SettlementStatus};
use crate::settlement::strict;
use crate::state::files::sync::StateCells;
use crate::topology::Shared;
use crate::topology::replacement::{OpenBody, Replacement};
use reached::Reached;
use sender::{Answer, Outgoing};

/// How often the picture of settlement is shown anew, at most.
const STATUS_NS: u64 = 100_000_000;
/// Own blocks that are taken in one turn.
const SEALED_PER_TURN: u64 = 64;
/// News of L1 that wait to be taken. Full: `Stall`, L1 is not read further.
const L1_NEWS: usize = 4;
/// Pause between questions for EXECUTE while L1 does not answer.
const EXECUTE_RETRY_NS: u64 = 1_000_000_000;
/// Pause between questions for the L1 block where the chain begins.
const START_RETRY_NS: u64 = 100_000_000;

/// Which witnesses are written to files (`witness.*`).
#[derive(Clone, Copy, Debug)]
pub struct KeepSettings {
    /// Blocks behind the newest where a block that is not packed has its witness written: fewer than the states that are retained.
    pub behind_blocks: u64,
    /// Bytes of all files with which building waits.
    pub bytes_max: u64,
}

/// Everything that the thread owns.
pub struct L1Seat {
    pub keep: KeepSettings,
    pub plan: Plan,
    pub ledger: LedgerFile,
    pub client: ClientSettings,
    pub key: Option<LocalKey>,
    pub profile: Profile,
    pub cut_limits: CutLimits,
    pub start_without: bool,
    /// Where L1 has EXECUTE.
    pub execute_address: Address,
    pub chain: ChainReader,
    /// Told how far the chain is final.
    pub states: Arc<StateCells>,
    pub shared: Arc<Shared>,
    pub builder_bell: Arc<Doorbell>,
    pub jobs: Sender<Job>,
    pub outcomes: Receiver<Outcome>,
    pub replacements: SyncSender<Replacement>,
    /// To the follower's thread, where there is one in the place of a builder.
    pub follow: Option<FollowEnd>,
    /// L1 requests of the query pool: forwarded transactions, and questions about them.
    pub passed_on: TaskReceiver<PassedOn>,
}

/// Why the thread ended.
#[derive(Debug, thiserror::Error)]
pub enum L1Error {
    #[error("the runtime could not be started: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(
        "block {number} stands on L1 block {origin}, which the settlement ledger does not know: was settlement.log removed, or the chain built with l1.mode = off?"
    )]
    OriginUnknown { number: u64, origin: B256 },
    #[error("block {number} is not whole in the chain database")]
    BlockMissing { number: u64 },
}

/// Runs until the process closes.
///
/// # Errors
/// The ledger or the chain database cannot be used.
pub fn run(seat: L1Seat) -> Result<(), L1Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime.map_err(L1Error::Runtime)?, async {
        match Driver::begin(seat).await? {
            Some(driver) => driver.run().await,
            None => Ok(()),
        }
    })
}

struct Driver {
    conductor: Conductor<ProfileFormats>,
    ledger: LedgerFile,
    /// What L1 says, from the task that follows it.
    heard: TaskReceiver<Result<L1Event, ClientError>>,
    key: Option<LocalKey>,
    profile: Profile,
    cut_limits: CutLimits,
    chain: ChainReader,
    states: Arc<StateCells>,
    shared: Arc<Shared>,
    builder_bell: Arc<Doorbell>,
    jobs: Sender<Job>,
    outcomes: Receiver<Outcome>,
    replacements: SyncSender<Replacement>,
    follow: Option<FollowEnd>,
    outgoing: TaskSender<Outgoing>,
    /// L1's newest head, where the account is asked for.
    heads: watch::Sender<BlockId>,
    answers: TaskReceiver<Answer>,
    /// Jobs that the queue had no room for.
    waiting_jobs: Vec<Job>,
    actions: Vec<Action>,
    encoded: Option<(u64, EncodedPayload)>,
    shown_ns: u64,
    is_away: bool,
    keep: KeepSettings,
    /// Newest block whose witness is in a file.
    kept: u64,
    /// Newest block at the start.
    start_block: u64,
    /// What the operator wants of posting, as far as it is done.
    batcher: BatcherWish,
    reached: Reached,
}

enum News {
    L1(Box<Result<L1Event, ClientError>>),
    Sender(Answer),
    Bell,
    Time,
}

impl Driver {
    /// Asks for the block where L1 begins, if it has to; `None`: the process closes before there is an answer.
    async fn begin(mut seat: L1Seat) -> Result<Option<Self>, L1Error> {
        let mut client = L1Client::new(seat.client.clone())?;
        let start = match seat.plan.known_start(seat.ledger.ledger()) {
            Some(start) => start,
            None => match ask_start(&mut client, &seat).await {
                Some(start) => {
                    seat.ledger.append(vec![Entry::Origin(start)])?;
                    start
                }
                None => return Ok(None),
            },
        };
        let (news, heard) = channel(L1_NEWS);
        let follower = Follower::new(start.id(), &client);
        tokio::task::spawn_local(follow(follower, client, news));
        let conductor = seat.plan.conductor(start, seat.ledger.ledger())?;
        if seat.key.is_some() {
            let (client, shared) = (L1Client::new(seat.client.clone())?, Arc::clone(&seat.shared));
            tokio::task::spawn_local(look_for_execute(client, seat.execute_address, shared));
        }
        let (outgoing, outgoing_rx) = channel(limits::L1_REQUESTS);
        let (answer_tx, answers) = channel(limits::L1_REQUESTS);
        let (heads, heads_rx) = watch::channel(start.id());
        if let Some(key) = &seat.key {
            let client = L1Client::new(seat.client.clone())?;
            tokio::task::spawn_local(sender::accounts(client, key.address(), heads_rx, answer_tx.clone()));
        }
        tokio::task::spawn_local(sender::run(L1Client::new(seat.client.clone())?, outgoing_rx, answer_tx));
        tokio::task::spawn_local(pass_on::run(L1Client::new(seat.client)?, seat.passed_on));
        if seat.start_without {
            seat.shared.settlement.meet();
            seat.builder_bell.ring();
        }
        let start_block = own_tip(&seat.shared, &seat.chain);
        // Of a process that starts again in place: what was to be flushed was.
        let batcher = BatcherWish { is_stopped: false, ..seat.shared.controls.batcher() };
        Ok(Some(Self {
            conductor,
            ledger: seat.ledger,
            heard,
            key: seat.key,
            profile: seat.profile,
            cut_limits: seat.cut_limits,
            chain: seat.chain,
            states: seat.states,
            shared: seat.shared,
            builder_bell: seat.builder_bell,
            jobs: seat.jobs,
            outcomes: seat.outcomes,
            replacements: seat.replacements,
            follow: seat.follow,
            outgoing,
            heads,
            answers,
            waiting_jobs: Vec::new(),
            actions: Vec::new(),
            encoded: None,
            shown_ns: 0,
            is_away: false,
            keep: seat.keep,
            kept: 0,
            start_block,
            batcher,
            reached: Reached::default(),
        }))
    }

    async fn run(mut self) -> Result<(), L1Error> {
        while !self.shared.is_closed() {
            if self.follow.is_none() {
                self.take_sealed()?;
            }
            self.obey().await?;
            while !self.is_behind()
                && let Ok(outcome) = self.outcomes.try_recv()
            {
                let event = match outcome {
                    Outcome::Cut { number, result } => Event::Cut { number, result },
                    Outcome::Checked { id, result } => {
                        if let Ok(checked) = &result {
                            self.take_proved(checked)?;
                        }
                        Event::Checked { id, result }
                    }
                };
                self.step(event).await?;
            }
            self.step(Event::Tick).await?;
            self.push_jobs();
            self.keep_witnesses();
            self.push_followed()?;
            self.tell();
            match self.wait().await {
                News::L1(event) => self.heard(*event).await?,
                News::Sender(answer) => self.answered(answer).await?,
                News::Bell | News::Time => {}
            }
        }
        Ok(())
    }

    /// Takes over what the operator wants of posting.
    async fn obey(&mut self) -> Result<(), L1Error> {
        let wish = self.shared.controls.batcher();
        let before = std::mem::replace(&mut self.batcher, wish);
        if wish != before {
            self.conductor.set_paused(wish.is_stopped);
            if wish.flush_count != before.flush_count {
                self.step(Event::Flush).await?;
            }
        }
        self.shared.controls.obey_batcher(wish);
        Ok(())
    }

    // --- events ---

    async fn step(&mut self, event: Event) -> Result<(), L1Error> {
        let now_ns = clock::monotonic_ns();
        self.conductor.step(event, self.ledger.ledger(), now_ns, &mut self.actions);
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.carry_out(action).await?;
            }
        }
        Ok(())
    }

    async fn heard(&mut self, event: Result<L1Event, ClientError>) -> Result<(), L1Error> {
        match event {
            Ok(L1Event::Block(block)) => self.step(Event::L1Block(Arc::new(*block))).await,
            Ok(L1Event::Rewound { to }) => self.step(Event::L1Rewound { to }).await,
            Ok(L1Event::Finalized(block)) => self.step(Event::L1Finalized { number: block.number }).await,
            Ok(L1Event::Head(head)) => {
                if std::mem::take(&mut self.is_away) {
                    tracing::info!(%head, "L1 answers again");
                }
                // Derivation goes on without it; posting waits for the account.
                self.heads.send_replace(head);
                self.step(Event::L1Head { head }).await
            }
            Err(ClientError::ReorgBelowFinalized { finalized, now }) => {
                let why = format!("L1 has {now} in the place of a block that was final ({finalized})");
                self.step(Event::L1Contradicts { why }).await
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::warn!(%error, "L1 does not answer");
                }
                self.step(Event::L1Away { why: error.to_string() }).await
            }
        }
    }

    async fn answered(&mut self, answer: Answer) -> Result<(), L1Error> {
        match answer {
            Answer::Account { account, tip_wei } => {
                let view = HeadView {
                    block: account.at,
                    nonce: account.nonce,
                    nonce_pending: account.nonce_pending,
                    nonce_final: account.nonce_final,
                    balance_wei: account.balance_wei,
                    is_confirmed: account.is_confirmed,
                    tip_wei,
                };
                self.step(Event::L1Account(view)).await
            }
            Answer::Sent { attempt, outcome } => {
                self.shared.metrics.l1.sent.increment(label_of(&outcome));
                self.step(Event::Sent { attempt, outcome }).await
            }
        }
    }

    /// Our own blocks, once they are durable and nobody objects to them.
    fn take_sealed(&mut self) -> Result<(), L1Error> {
        let tip = own_tip(&self.shared, &self.chain);
        self.take_to(tip.min(self.conductor.unsafe_head().number + 1 + SEALED_PER_TURN))
    }

    /// Stored blocks that a batch on L1 proves are ours whatever the execution client has said of them: one that was adopted is in no client yet, and
    /// would be adopted again.
    fn take_proved(&mut self, checked: &CheckedBatch) -> Result<(), L1Error> {
        if self.follow.is_some() {
            return Ok(());
        }
        let mut proved = 0;
        for block in &checked.blocks {
            if self.chain.hash_by_number(block.header.number)? != Some(block.hash) {
                break;
            }
            proved = block.header.number;
        }
        self.take_to(proved)
    }

    fn take_to(&mut self, tip: u64) -> Result<(), L1Error> {
        if !self.conductor.takes_blocks() {
            return Ok(());
        }
        for number in self.conductor.unsafe_head().number + 1..=tip {
            let stored = self.chain.block_by_number(number)?.ok_or(L1Error::BlockMissing { number })?;
            let header = Header::decode(&mut stored.header_rlp()?).map_err(|_| L1Error::BlockMissing { number })?;
            let hash = header.parent_beacon_block_root.unwrap_or_default();
            let origin =
                self.ledger.ledger().origin(&hash).ok_or(L1Error::OriginUnknown { number, origin: hash })?.id();
            let id = BlockId { number, hash: stored.hash() };
            let body_bytes = stored.body()?.len() as u64;
            let now_ns = clock::monotonic_ns();
            let event = Event::Sealed { id, origin, body_bytes };
            self.conductor.step(event, self.ledger.ledger(), now_ns, &mut self.actions);
            if self.conductor.unsafe_head() != id {
                // It has to give way, or was built beside what replaces it.
                break;
            }
        }
        Ok(())
    }

    // --- actions ---

    async fn carry_out(&mut self, action: Action) -> Result<(), L1Error> {
        match action {
            Action::Append(entries) => {
                if let Some(follow) = &mut self.follow {
                    // A checkpoint, which names a block that the next start must find; one that comes meanwhile is not missed.
                    let newest = self.conductor.unsafe_head().number;
                    follow.held.get_or_insert((newest, entries));
                    return Ok(());
                }
                self.ledger.append(entries)?;
                // The builder may use an origin once it is on the disk.
                if let Some(origin) = self.conductor.origin()
                    && self.shared.settlement.origin().is_none_or(|told| told.hash != origin.hash)
                    && self.ledger.ledger().origin(&origin.hash).is_some()
                {
                    self.shared.settlement.set_origin(origin);
                    self.builder_bell.ring();
                }
            }
            Action::Check(check) => self.waiting_jobs.push(Job::Check(check)),
            Action::Cut { number, boundary, first_bytes_max } => {
                let origin = self.origin_of(number)?;
                let limits =
                    CutLimits { boundary_tx_index: boundary, first_tx_bytes_max: first_bytes_max, ..self.cut_limits };
                self.waiting_jobs.push(Job::Cut { number, origin, limits });
                self.waiting_jobs.push(Job::Forget { below: number });
            }
            Action::Sign(attempt) => self.sign(attempt),
            Action::Send { attempt, .. } => {
                if let Some(raw) = self.raw(attempt) {
                    // The sender lives as long as this: it ends when its requests end.
                    let _ = self.outgoing.send(Outgoing { attempt, raw }).await;
                }
            }
            Action::Replace(replace) => self.replace(replace),
            Action::Adopt(blocks) => self.tell_follower(FollowMessage::Adopt(blocks)),
            Action::Rewind { to } => self.tell_follower(FollowMessage::Rewind { to }),
            Action::Halt(why) => self.halt(&why),
        }
        Ok(())
    }

    fn origin_of(&self, number: u64) -> Result<Origin, L1Error> {
        let header = self.chain.header_rlp(number)?.ok_or(L1Error::BlockMissing { number })?;
        let header = Header::decode(&mut header.as_slice()).map_err(|_| L1Error::BlockMissing { number })?;
        let hash = header.parent_beacon_block_root.unwrap_or_default();
        let known = self.ledger.ledger().origin(&hash).ok_or(L1Error::OriginUnknown { number, origin: hash })?;
        Ok(Origin { number: known.number, hash })
    }

    fn terms(&self, nonce: u64, gas: u64, tip_cap_wei: u128, fee_cap_wei: u128, chain_id: u64) -> Terms {
        Terms {
            chain_id: U256::from(chain_id),
            nonce,
            tip_cap_wei: U256::from(tip_cap_wei),
            fee_cap_wei: U256::from(fee_cap_wei),
            gas,
        }
    }

    fn sign(&mut self, attempt: Attempt) {
        let Some(batch) = self.ledger.ledger().batch(attempt.payload.id) else { return };
        let Some(key) = &self.key else { return };
        let encoded = batch.payload.encoded(self.profile);
        let Attempt { id, payload, nonce, tip_cap_wei, fee_cap_wei } = attempt;
        let terms = self.terms(nonce, payload.gas, tip_cap_wei, fee_cap_wei, key.chain_id());
        match key.sign(&encoded, &terms) {
            Ok(signature) => {
                let hash = crate::crypto::keccak::keccak256(&encoded.encode(&terms, &signature));
                self.encoded = Some((payload.id.0, encoded));
                let now_ns = clock::monotonic_ns();
                let event = Event::Signed { attempt: id, hash, signature };
                self.conductor.step(event, self.ledger.ledger(), now_ns, &mut self.actions);
            }
            Err(error) => tracing::error!(%error, "a batch is not signed"),
        }
    }

    /// The transaction of a signature that is in the ledger.
    fn raw(&self, attempt: u64) -> Option<Bytes> {
        let ledger = self.ledger.ledger();
        let signed = ledger.signed(attempt)?;
        let batch = ledger.batch(signed.payload)?;
        let chain_id = self.key.as_ref()?.chain_id();
        let terms = self.terms(signed.nonce, batch.facts.gas, signed.tip_cap_wei, signed.fee_cap_wei, chain_id);
        let raw = match &self.encoded {
            Some((id, encoded)) if *id == signed.payload.0 => encoded.encode(&terms, &signed.signature),
            _ => batch.payload.encoded(self.profile).encode(&terms, &signed.signature),
        };
        debug_assert_eq!(crate::crypto::keccak::keccak256(&raw), signed.hash);
        Some(raw)
    }

    fn halt(&self, why: &str) {
        tracing::error!(why, "halted: nothing is built, admitted or posted, reads go on");
        self.shared.settlement.halt();
        self.builder_bell.ring();
    }

    fn replace(&self, replace: Replace) {
        let Replace { to_block, cause, why, blocks, open } = replace;
        tracing::warn!(to_block, why, adopted = blocks.len(), "L1 decides: blocks of ours are replaced");
        let replacement = Replacement {
            to_block,
            cause: cause.unwrap_or(RollbackCause::L1Differs),
            blocks,
            open: open.map(|part| open_body_of(*part)),
        };
        // One at a time: the process stops for the first.
        let _ = self.replacements.try_send(replacement);
    }

    // --- jobs and cells ---

    /// Writes witnesses of blocks that L1 is slow to take, before the state that they need is gone.
    fn keep_witnesses(&mut self) {
        // What has to be cut or checked goes before.
        if self.key.is_none() || !self.waiting_jobs.is_empty() {
            return;
        }
        let view = self.conductor.unsafe_head().number;
        let behind = self.keep.behind_blocks;
        // Until L1 was read to its head, nobody knows what of the blocks before the start it has; earlier processes kept theirs.
        let before = if self.conductor.is_met() { 0 } else { self.start_block.saturating_sub(behind) };
        let from = self.kept.max(self.conductor.packed_block()).max(before) + 1;
        if from + behind > view {
            return;
        }
        for number in from..=(view - behind) {
            match self.jobs.try_send(Job::Keep { number }) {
                Ok(()) => self.kept = number,
                Err(_) => return,
            }
        }
    }

    fn push_jobs(&mut self) {
        let mut jobs = std::mem::take(&mut self.waiting_jobs).into_iter();
        for job in jobs.by_ref() {
            if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = self.jobs.try_send(job) {
                self.waiting_jobs.push(job);
                break;
            }
        }
        self.waiting_jobs.extend(jobs);
    }

    fn tell_follower(&mut self, message: FollowMessage) {
        if let Some(follow) = &mut self.follow {
            follow.waiting.push_back(message);
        }
    }

    /// Whether L1 has to wait: for a follower, or until all of our own blocks are taken. A batch that was derived before would be adopted as if it
    /// were not ours, and what is built on it taken back.
    fn is_behind(&self) -> bool {
        match &self.follow {
            Some(follow) => !follow.waiting.is_empty(),
            None => {
                self.conductor.takes_blocks()
                    && own_tip(&self.shared, &self.chain) > self.conductor.unsafe_head().number
            }
        }
    }

    /// Hands derived blocks on, and once, when L1 was derived to its head, how far they go: what is stored above was taken back while nobody looked.
    fn push_followed(&mut self) -> Result<(), L1Error> {
        let Some(follow) = &mut self.follow else { return Ok(()) };
        let stored = self.chain.latest_number().unwrap_or(0);
        if let Some((_, entries)) = follow.held.take_if(|(number, _)| *number <= stored) {
            self.ledger.append(entries)?;
        }
        if self.conductor.is_met() && !std::mem::replace(&mut follow.is_met, true) {
            follow.waiting.push_back(FollowMessage::Rewind { to: self.conductor.unsafe_head().number });
        }
        if follow.push() {
            self.builder_bell.ring();
        }
        Ok(())
    }

    /// Shows everyone how L1 stands.
    fn tell(&mut self) {
        let cells = &self.shared.settlement;
        let (safe, finalized) = self.conductor.settled();
        let before = cells.view();
        cells.set_heads(self.conductor.posted(), safe, finalized);
        self.states.finalize(finalized);
        cells.set_hold(self.conductor.hold().or_else(|| self.witness_hold()));
        if self.conductor.is_met() {
            cells.meet();
        }
        if cells.view() != before {
            self.builder_bell.ring();
        }
        self.reached.look(&self.shared, self.conductor.status().posted_block, safe, finalized);
        let now_ns = clock::monotonic_ns();
        if now_ns - self.shown_ns >= STATUS_NS {
            self.shown_ns = now_ns;
            cells.show(self.conductor.status().clone().waiting_for_client(cells.client_wait()));
        }
    }

    /// Why building has to wait for the files of witnesses.
    fn witness_hold(&self) -> Option<Hold> {
        self.key.as_ref()?;
        let cells = &self.shared.settlement;
        let (have, max, block) = (cells.kept_bytes(), self.keep.bytes_max, cells.unwritten());
        // One that is in a batch meanwhile needs none.
        if block > self.conductor.packed_block() {
            return Some(Hold::Unwritten { block });
        }
        (have >= max).then_some(Hold::Witnesses { have, max })
    }

    async fn wait(&mut self) -> News {
        let now_ns = clock::monotonic_ns();
        let due_ns = self.conductor.wake_at_ns().map_or(u64::MAX, |at_ns| at_ns.saturating_sub(now_ns));
        let sleep = Duration::from_nanos(due_ns.clamp(1_000_000, limits::PARK_NS_MAX));
        let (chain, shared) = (self.chain.clone(), Arc::clone(&self.shared));
        let newest = if self.conductor.takes_blocks() { self.conductor.unsafe_head().number } else { u64::MAX };
        let (is_behind, follower) = (self.is_behind(), self.follow.as_ref().map(|follow| follow.to.clone()));
        let has_work = move || {
            let is_sealed = || own_tip(&shared, &chain) > newest;
            shared.is_closed()
                || match &follower {
                    None => is_sealed(),
                    Some(follower) => is_behind && !follower.is_full(),
                }
        };
        let (outcomes, shared) = (self.outcomes.clone(), Arc::clone(&self.shared));
        let is_full = self.conductor.is_full() || is_behind;
        let Self { heard, answers, .. } = self;
        let l1 = async {
            match is_full {
                true => pending().await,
                false => match heard.recv().await {
                    Some(event) => News::L1(Box::new(event)),
                    None => pending().await,
                },
            }
        };
        let sender = async {
            match answers.recv().await {
                Some(answer) => News::Sender(answer),
                None => pending().await,
            }
        };
        let bell = poll_fn(|ctx| {
            shared.settlement.bell.poll(ctx.waker(), || (!outcomes.is_empty() && !is_behind) || has_work())
        });
        let bell = async {
            bell.await;
            News::Bell
        };
        let time = async {
            tokio::time::sleep(sleep).await;
            News::Time
        };
        first(pin!(bell), pin!(sender), pin!(l1), pin!(time)).await
    }
}

/// The newest of our blocks that is durable, stored, and that nobody objects to.
fn own_tip(shared: &Shared, chain: &ChainReader) -> u64 {
    shared.heads.load().latest.header.number.min(chain.latest_number().unwrap_or(0))
}

/// Follows L1 in a task of its own: its pauses and calls go on whatever else happens. Ends when nobody listens, or when L1 contradicts itself.
pub async fn follow<T: Transport>(
    mut follower: Follower,
    mut client: L1Client<T>,
    news: TaskSender<Result<L1Event, ClientError>>,
) {
    loop {
        let event = follower.next(&mut client).await;
        let is_end = matches!(event, Err(ClientError::ReorgBelowFinalized { .. }));
        if news.send(event).await.is_err() || is_end {
            return;
        }
    }
}

/// The header of the genesis's `l1Start`, as soon as L1 answers.
async fn ask_start(client: &mut L1Client, seat: &L1Seat) -> Option<OriginBlock> {
    let wanted = seat.plan.rollup.l1_start;
    let mut told = String::new();
    while !seat.shared.is_closed() {
        let why = match client.header(wanted.number).await {
            Ok(header) if header.hash == wanted.hash => return Some(OriginBlock::of(&header)),
            Ok(header) => format!(
                "L1 has block {} with hash {}, the genesis begins at {}: this is another L1, or another genesis",
                wanted.number, header.hash, wanted.hash
            ),
            Err(error) => error.to_string(),
        };
        // Endpoints that do not answer say so in changing words: once is enough, but for another L1.
        if told.is_empty() || why != told && why.contains("another L1") {
            tracing::warn!(why, "waiting for the L1 block where the chain begins");
            let condition = Condition::Away;
            seat.shared.settlement.show(SettlementStatus {
                condition,
                why: why.clone(),
                ..SettlementStatus::default()
            });
            told = why;
        }
        tokio::time::sleep(Duration::from_nanos(START_RETRY_NS)).await;
    }
    None
}

/// Its place in `metrics::SEND_OUTCOMES`.
fn label_of(outcome: &SendOutcome) -> usize {
    match outcome {
        SendOutcome::Accepted => 0,
        SendOutcome::NonceTooLow => 1,
        SendOutcome::Underpriced => 2,
        SendOutcome::InsufficientFunds => 3,
        SendOutcome::Away => 4,
        SendOutcome::Refused { .. } => 5,
    }
}

/// Says so when L1 has nothing that could check what is posted.
async fn look_for_execute(mut client: L1Client, address: Address, shared: Arc<Shared>) {
    while !shared.is_closed() {
        match client.has_execute(address).await {
            Ok(true) => return,
            Ok(false) => {
                tracing::warn!(%address, "L1 has nothing at l1.execute-address: it includes batches and checks nothing");
                return;
            }
            Err(_) => tokio::time::sleep(Duration::from_nanos(EXECUTE_RETRY_NS)).await,
        }
    }
}

async fn first(
    bell: impl Future<Output = News>,
    sender: impl Future<Output = News>,
    l1: impl Future<Output = News>,
    time: impl Future<Output = News>,
) -> News {
    or(or(bell, sender), or(l1, time)).await
}

/// The beginning of a block in the same form.
#[must_use]
pub fn open_body_of(part: strict::OpenPart) -> OpenBody {
    OpenBody { context: part.context, transactions: part.transactions }
}
