//! The `l1` thread without a thread: conductor, ledger and key, carried on as `settlement/driver.rs` carries them on, over a disk that tears.
//!
//! ```text
//!  L1's news, sealed blocks, outcomes ─► Settler ─► jobs, transactions to send, questions for the account
//! ```
//!
//! The caller is L1, the `settle` thread, the sender task and the clock: it takes what is asked for and answers when it likes, or never. The order of
//! steps and actions is the driver's; its sockets, rings and doorbells are not here.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use crate::config::genesis::ChainSpec;
use crate::crypto::keccak::keccak256;
use crate::derivation::types::CheckId;
use crate::journal::record::RollbackCause;
use crate::l1::block::{Account, BlockId, CheckedBlock};
use crate::l1::client::error::ClientError;
use crate::l1::client::follow::L1Event;
use crate::l1::execute_tx::Terms;
use crate::l1::profile::Profile;
use crate::l1::signer::{LocalKey, Signer};
use crate::l1::tx_manager::types::{Attempt, HeadView, Record, SendOutcome};
use crate::primitives::{B256, Bytes, U256};
use crate::settlement::Origin;
use crate::settlement::cells::Origin as ToldOrigin;
use crate::settlement::conductor::{Action, Conductor, Event, Replace};
use crate::settlement::jobs::{Job, checked};
use crate::settlement::ledger::{Entry, Ledger};
use crate::settlement::ledger_file::{LedgerError, group, image, read};
use crate::settlement::plan::ProfileFormats;
use crate::settlement::segment::{CutLimits, cut};
use crate::settlement::strict::DerivedBlock;
use crate::testing::rng::SimRng;
use crate::witness::Witness;
use crate::witness::validator::StatelessBlock;

/// A ledger's file. What was appended is durable; the append in which the machine stops is there in part.
#[derive(Clone)]
pub struct LedgerDisk {
    genesis: B256,
    bytes: Vec<u8>,
}

impl LedgerDisk {
    #[must_use]
    pub fn new(genesis: B256) -> Self {
        Self { genesis, bytes: Vec::new() }
    }

    /// Whether it holds the same as another.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }

    /// Reads the file and writes it anew, as a start does.
    ///
    /// # Errors
    /// A file that a start refuses.
    pub fn open(&mut self) -> Result<Ledger, LedgerError> {
        let ledger = match self.bytes.is_empty() {
            true => Ledger::default(),
            false => read(Path::new("settlement.log"), &self.bytes, self.genesis)?,
        };
        self.bytes = image(self.genesis, &ledger);
        Ok(ledger)
    }

    fn append(&mut self, entries: &[Entry]) {
        group(entries, &mut self.bytes);
    }

    /// The machine stops in the write: any of its first bytes are there, a sector of them may be missing.
    fn tear(&mut self, entries: &[Entry], rng: &mut SimRng) {
        let start = self.bytes.len();
        group(entries, &mut self.bytes);
        let length = (self.bytes.len() - start) as u64;
        let kept = rng.below(length + 1) as usize;
        self.bytes.truncate(start + kept);
        if kept > 512 && rng.chance(1, 2) {
            let at = start + rng.below((kept - 511) as u64) as usize;
            self.bytes[at..at + 512].fill(0);
        }
    }
}

/// What was carried out, for tests that look at the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    Batch { index: u64 },
    Signed { attempt: u64 },
    Withdrawn,
    Ended { nonce: u64 },
    Checkpoint { next_index: u64 },
    Sent { attempt: u64 },
    AskedCut { number: u64 },
}

/// Why the thread ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The machine stopped.
    Crashed,
    /// What the driver ends with as an error.
    Fatal(String),
}

/// See the module's text.
pub struct Settler {
    pub conductor: Conductor<ProfileFormats>,
    pub ledger: Ledger,
    pub disk: LedgerDisk,
    spec: ChainSpec,
    profile: Profile,
    key: Option<LocalKey>,
    cut_limits: CutLimits,
    actions: Vec<Action>,
    pub now_ns: u64,
    pub jobs: VecDeque<Job>,
    /// Signed transactions on their way out.
    pub sends: VecDeque<(u64, Bytes)>,
    /// The account is asked for at this head.
    pub asked: Option<BlockId>,
    /// What the builder was told.
    pub origin: Option<ToldOrigin>,
    pub replacement: Option<Replace>,
    /// Of a follower: the chain that it was told.
    pub adopted: Vec<DerivedBlock>,
    pub halted: Option<String>,
    /// Set once the thread has ended; nothing happens any more.
    pub end: Option<End>,
    /// Carried out until the machine stops in the action behind them.
    pub fuse: Option<u64>,
    pub rng: SimRng,
    pub done: Vec<Done>,
    /// Signatures for nonces that had one.
    pub dearer: u64,
    /// Between which steps the machine stopped.
    pub died: Option<&'static str>,
}

/// What a settler keeps for its life.
pub struct SettlerSeat {
    pub spec: ChainSpec,
    pub profile: Profile,
    pub key: Option<LocalKey>,
    pub cut_limits: CutLimits,
}

impl Settler {
    #[must_use]
    pub fn new(seat: SettlerSeat, conductor: Conductor<ProfileFormats>, ledger: Ledger, disk: LedgerDisk) -> Self {
        let SettlerSeat { spec, profile, key, cut_limits } = seat;
        Self {
            conductor,
            ledger,
            disk,
            spec,
            profile,
            key,
            cut_limits,
            actions: Vec::new(),
            now_ns: 0,
            jobs: VecDeque::new(),
            sends: VecDeque::new(),
            asked: None,
            origin: None,
            replacement: None,
            adopted: Vec::new(),
            halted: None,
            end: None,
            fuse: None,
            rng: SimRng::new(0),
            done: Vec::new(),
            dearer: 0,
            died: None,
        }
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        self.end.is_some()
    }

    // --- events ---

    /// One event, and everything that it leads to.
    pub fn event(&mut self, event: Event) {
        self.step(event);
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                if !self.is_over() {
                    self.carry_out(action);
                }
            }
        }
    }

    fn step(&mut self, event: Event) {
        if !self.is_over() {
            self.conductor.step(event, &self.ledger, self.now_ns, &mut self.actions);
        }
    }

    /// The next block of our own, which stands on the L1 block of this hash. Whether it was taken. As in the driver, what it leads to happens with the next event.
    pub fn sealed(&mut self, id: BlockId, origin_hash: B256, body_bytes: u64) -> bool {
        if self.is_over() || !self.conductor.takes_blocks() {
            return false;
        }
        let Some(origin) = self.origin_of(id.number, origin_hash) else { return false };
        let origin = BlockId { number: origin.number, hash: origin.hash };
        self.step(Event::Sealed { id, origin, body_bytes });
        self.conductor.unsafe_head() == id
    }

    fn origin_of(&mut self, number: u64, hash: B256) -> Option<Origin> {
        let known = self.ledger.origin(&hash).map(|block| Origin { number: block.number, hash });
        if known.is_none() {
            self.end = Some(End::Fatal(format!("block {number} stands on an L1 block that the ledger does not know")));
        }
        known
    }

    /// News of L1.
    pub fn heard(&mut self, news: Result<L1Event, ClientError>) {
        match news {
            Ok(L1Event::Block(block)) => self.event(Event::L1Block(Arc::<CheckedBlock>::new(*block))),
            Ok(L1Event::Rewound { to }) => self.event(Event::L1Rewound { to }),
            Ok(L1Event::Finalized(block)) => self.event(Event::L1Finalized { number: block.number }),
            Ok(L1Event::Head(head)) => {
                self.event(Event::L1Head { head });
                self.asked = self.key.is_some().then_some(head);
            }
            Err(ClientError::ReorgBelowFinalized { finalized, now }) => {
                let why = format!("L1 has {now} in the place of a block that was final ({finalized})");
                self.event(Event::L1Contradicts { why });
            }
            Err(error) => self.event(Event::L1Away { why: error.to_string() }),
        }
    }

    /// Answers the question for the account.
    pub fn account(&mut self, account: Account, tip_wei: u128) {
        let Account { at: block, nonce, nonce_pending, nonce_final, balance_wei, is_confirmed, .. } = account;
        let view = HeadView { block, nonce, nonce_pending, nonce_final, balance_wei, is_confirmed, tip_wei };
        self.event(Event::L1Account(view));
    }

    pub fn sent(&mut self, attempt: u64, outcome: SendOutcome) {
        self.event(Event::Sent { attempt, outcome });
    }

    /// Cuts a block as the `settle` thread does.
    pub fn answer_cut(&mut self, block: &StatelessBlock, witness: &Witness, origin: Origin, limits: &CutLimits) {
        let number = block.header.number;
        let result = cut(&self.spec, block, witness, origin, limits)
            .map_err(|error| format!("block {number} cannot be cut: {error}"));
        self.event(Event::Cut { number, result });
    }

    /// Re-executes a batch as the `settle` thread does.
    pub fn answer_check(&mut self, check: &crate::derivation::types::Check<crate::settlement::strict::Tip>) {
        let (id, result): (CheckId, _) = (check.id, checked(&self.spec, self.profile, check));
        self.event(Event::Checked { id, result });
    }

    // --- actions ---

    /// Whether the machine stops in this action.
    fn burns(&mut self, action: &Action) -> bool {
        match &mut self.fuse {
            None => false,
            Some(0) => {
                self.end = Some(End::Crashed);
                self.died = Some(crash_point(action, self.done.last()));
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    fn carry_out(&mut self, action: Action) {
        let stops = self.burns(&action);
        match action {
            Action::Append(entries) if stops => self.disk.tear(&entries, &mut self.rng),
            _ if stops => {}
            Action::Append(entries) => self.append(entries),
            Action::Check(check) => self.jobs.push_back(Job::Check(check)),
            // The origin is looked up by whoever has the header.
            Action::Cut { number, boundary, first_bytes_max } => {
                self.done.push(Done::AskedCut { number });
                let limits =
                    CutLimits { boundary_tx_index: boundary, first_tx_bytes_max: first_bytes_max, ..self.cut_limits };
                self.jobs.push_back(Job::Cut { number, origin: Origin::default(), limits });
            }
            Action::Sign(attempt) => self.sign(attempt),
            Action::Send { attempt, .. } => {
                self.done.push(Done::Sent { attempt });
                match self.raw(attempt) {
                    Some(raw) => self.sends.push_back((attempt, raw)),
                    None => self.end = Some(End::Fatal(format!("signature {attempt} is not in the ledger"))),
                }
            }
            Action::Replace(replace) => self.replacement = Some(replace),
            Action::Adopt(blocks) => self.adopted.extend(blocks),
            Action::Rewind { to } => self.adopted.retain(|block| block.header.number <= to),
            Action::Halt(why) => self.halted = Some(why),
        }
    }

    fn append(&mut self, entries: Vec<Entry>) {
        for entry in &entries {
            if let Entry::Signed(signed) = entry {
                let before = self.ledger.tx_records();
                let is_again =
                    |record: &Record| matches!(record, Record::Signed(it) if it.attempt.nonce == signed.nonce);
                self.dearer += u64::from(before.iter().any(is_again));
            }
            self.done.extend(match entry {
                Entry::Batch(batch) => Some(Done::Batch { index: batch.index }),
                Entry::Signed(signed) => Some(Done::Signed { attempt: signed.attempt }),
                Entry::Done(done) => Some(Done::Ended { nonce: done.nonce }),
                Entry::Withdrawn { .. } | Entry::WithdrawnOne { .. } => Some(Done::Withdrawn),
                Entry::Checkpoint(checkpoint) => Some(Done::Checkpoint { next_index: checkpoint.next_index }),
                Entry::Newest { .. } | Entry::Origin(_) => None,
            });
        }
        self.disk.append(&entries);
        for entry in entries {
            if let Err(error) = self.ledger.apply(entry) {
                self.end = Some(End::Fatal(error.to_string()));
            }
        }
        if let Some(origin) = self.conductor.origin()
            && self.ledger.origin(&origin.hash).is_some()
        {
            self.origin = Some(origin);
        }
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
        let (Some(batch), Some(key)) = (self.ledger.batch(attempt.payload.id), &self.key) else { return };
        let encoded = batch.payload.encoded(self.profile);
        let Attempt { id, payload, nonce, tip_cap_wei, fee_cap_wei } = attempt;
        let terms = self.terms(nonce, payload.gas, tip_cap_wei, fee_cap_wei, key.chain_id());
        let signature = key.sign(&encoded, &terms).expect("the key is of this chain");
        let hash = keccak256(&encoded.encode(&terms, &signature));
        self.step(Event::Signed { attempt: id, hash, signature });
    }

    fn raw(&self, attempt: u64) -> Option<Bytes> {
        let signed = self.ledger.signed(attempt)?;
        let batch = self.ledger.batch(signed.payload)?;
        let chain_id = self.key.as_ref()?.chain_id();
        let terms = self.terms(signed.nonce, batch.facts.gas, signed.tip_cap_wei, signed.fee_cap_wei, chain_id);
        let raw = batch.payload.encoded(self.profile).encode(&terms, &signed.signature);
        assert_eq!(keccak256(&raw), signed.hash);
        Some(raw)
    }
}

fn crash_point(action: &Action, before: Option<&Done>) -> &'static str {
    match action {
        Action::Append(entries) if entries.iter().any(|entry| matches!(entry, Entry::Batch(_))) => {
            "crash while a batch is journaled"
        }
        Action::Append(entries) if entries.iter().any(|entry| matches!(entry, Entry::Signed(_))) => {
            "crash between signing and journaling"
        }
        Action::Sign(_) => "crash between packing and signing",
        Action::Send { .. } => "crash between journaling and sending",
        _ if matches!(before, Some(Done::Sent { .. })) => "crash between sending and seeing the receipt",
        _ => "crash in another step",
    }
}

/// What a replacement asks for, in short.
#[must_use]
pub fn replaced(replace: &Replace) -> (u64, Option<RollbackCause>, Vec<B256>) {
    (replace.to_block, replace.cause, replace.blocks.iter().map(|block: &DerivedBlock| block.hash).collect())
}
