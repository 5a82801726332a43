//! One sequencer process over its disks: builder, journal, state and chain of [`Machine`], settlement of [`Settler`], and the real tasks that speak to L1.
//!
//! Turn for turn what `settlement/driver.rs` does: own blocks first, one outcome, a tick, what the builder is told, one piece of news. The process dies in
//! any write of its journal or ledger, or between two actions; what it was told to replace is written as `topology::replacement` writes it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use rayon::ThreadPool;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;

use super::net::{SharedNet, Wire};
use crate::builder::block_execution::PreparedTx;
use crate::config::genesis::ChainSpec;
use crate::derivation::origins::OriginBlock;
use crate::l1::block::BlockId;
use crate::l1::client::L1Client;
use crate::l1::client::error::ClientError;
use crate::l1::client::follow::{Follower, L1Event};
use crate::l1::profile::Profile;
use crate::l1::signer::{LocalKey, Signer};
use crate::l1::tx_manager::types::Settings as TxSettings;
use crate::primitives::{B256, Bytes, U256};
use crate::settlement::Origin;
use crate::settlement::cells::SettlementView;
use crate::settlement::conductor::{Conductor, ConductorSettings, Event, PostingSettings, Replace};
use crate::settlement::driver::sender::{self, Answer, Outgoing};
use crate::settlement::driver::{follow, open_body_of};
use crate::settlement::jobs::{Job, witness_of};
use crate::settlement::ledger::{Entry, Ledger};
use crate::settlement::packer::PackerSettings;
use crate::settlement::plan::{Plan, ProfileFormats};
use crate::settlement::segment::CutLimits;
use crate::testing::node::{Machine, Violation};
use crate::testing::rng::SimRng;
use crate::testing::settler::{End, LedgerDisk, Settler, SettlerSeat};
use crate::topology::replacement::Replacement;
use crate::witness::validator::StatelessBlock;

/// News of L1 that wait to be taken, as in the driver.
const L1_NEWS: usize = 4;
const REQUESTS: usize = 64;
/// Longest wait for one answer of L1, and pause between two looks at its head.
const CALL_NS_MAX: u64 = 5_000_000_000;
const POLL_NS: u64 = 500_000_000;
/// Own blocks that are taken in one turn.
const SEALED_PER_TURN: u64 = 64;

/// What stays the same in every life of a process.
#[derive(Clone)]
pub struct Shape {
    pub spec: ChainSpec,
    /// Hex digits of the key.
    pub secret: String,
    pub tx_bytes_max: usize,
    pub age_ns_max: u64,
    pub origin_depth: u64,
    pub unsafe_blocks_max: u64,
    pub manager: TxSettings,
    /// Number 0 of L1.
    pub l1_start: OriginBlock,
}

impl Shape {
    fn key(&self) -> LocalKey {
        LocalKey::from_hex(&self.secret, "", self.l1_chain_id()).expect("a key")
    }

    fn l1_chain_id(&self) -> u64 {
        self.spec.native_rollup.as_ref().expect("it settles").l1_chain_id
    }

    /// The conductor as a process of this shape begins with it. `posts`: else it only follows.
    ///
    /// # Panics
    /// When the ledger's checkpoint cannot be read: nothing here writes such a one.
    #[must_use]
    pub fn conductor(&self, genesis_root: B256, posts: bool, ledger: &mut Ledger) -> Conductor<ProfileFormats> {
        let rollup = self.spec.native_rollup.clone().expect("it settles");
        let packer = PackerSettings {
            tx_bytes_max: self.tx_bytes_max,
            age_ns_max: self.age_ns_max,
            ..PackerSettings::default()
        };
        let (chain_id, address) = (U256::from(rollup.l1_chain_id), self.key().address());
        let posting = PostingSettings { packer, profile: rollup.profile, chain_id, address };
        let plan = Plan {
            settings: ConductorSettings {
                origin_depth: self.origin_depth,
                unsafe_blocks_max: self.unsafe_blocks_max,
                backlog_bytes_max: 1 << 30,
                follows: !posts,
            },
            rollup,
            genesis: self.spec.genesis_header(genesis_root),
            posting: posts.then_some((posting, self.manager)),
        };
        let start = plan.known_start(ledger).unwrap_or(self.l1_start);
        plan.conductor(start, ledger).expect("a checkpoint that was written here")
    }

    /// A settler over a ledger.
    #[must_use]
    pub fn settler(&self, genesis_root: B256, posts: bool, mut ledger: Ledger, disk: LedgerDisk) -> Settler {
        let conductor = self.conductor(genesis_root, posts, &mut ledger);
        let cut_limits = CutLimits { tx_bytes_max: self.tx_bytes_max, ..CutLimits::default() };
        let key = posts.then(|| self.key());
        let (spec, profile) = (self.spec.clone(), Profile::default());
        Settler::new(SettlerSeat { spec, profile, key, cut_limits }, conductor, ledger, disk)
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks beside the thread.
pub struct Tasks {
    follow: Task,
    send: Task,
    accounts: Option<Task>,
    pub heard: Receiver<Result<L1Event, ClientError>>,
    outgoing: Sender<Outgoing>,
    heads: watch::Sender<BlockId>,
    answers: Receiver<Answer>,
    /// What the channel had no room for.
    waiting: VecDeque<Outgoing>,
    /// It ends when L1 contradicts itself.
    is_following: bool,
}

impl Tasks {
    /// Follows L1 behind `start` through both endpoints, and speaks for a key.
    #[must_use]
    pub fn new(net: &SharedNet, chain_id: u64, start: BlockId, key: Option<&LocalKey>) -> Self {
        let client = || {
            let wires = [0, 1].map(|endpoint| Wire { net: Rc::clone(net), endpoint });
            L1Client::over(wires, chain_id, CALL_NS_MAX, POLL_NS)
        };
        let (news, heard) = channel(L1_NEWS);
        let (outgoing, outgoing_rx) = channel(REQUESTS);
        let (answer_tx, answers) = channel(REQUESTS);
        let (heads, heads_rx) = watch::channel(start);
        let reader = client();
        let follow = Box::pin(follow(Follower::new(start, &reader), reader, news));
        let accounts =
            key.map(|key| -> Task { Box::pin(sender::accounts(client(), key.address(), heads_rx, answer_tx.clone())) });
        let send = Box::pin(sender::run(client(), outgoing_rx, answer_tx));
        let waiting = VecDeque::new();
        Self { follow, send, accounts, heard, outgoing, heads, answers, waiting, is_following: true }
    }

    pub fn poll(&mut self) {
        while let Some(outgoing) = self.waiting.pop_front() {
            if let Err(error) = self.outgoing.try_send(outgoing) {
                self.waiting.push_front(error.into_inner());
                break;
            }
        }
        let mut ctx = Context::from_waker(Waker::noop());
        self.is_following = self.is_following && self.follow.as_mut().poll(&mut ctx).is_pending();
        let _ = self.send.as_mut().poll(&mut ctx);
        if let Some(accounts) = &mut self.accounts {
            let _ = accounts.as_mut().poll(&mut ctx);
        }
    }
}

/// A sequencer and its disks.
pub struct Site {
    shape: Shape,
    pub machine: Machine,
    pub ledger: LedgerDisk,
    pub settler: Option<Settler>,
    tasks: Option<Tasks>,
    net: SharedNet,
    genesis_root: B256,
    view: SettlementView,
    told: Option<B256>,
    rng: SimRng,
    pub replacements: u64,
    pub adopted: u64,
    /// Blocks of which L1 had the beginning.
    pub begun: u64,
    /// Transactions of lives that have ended which were replaced by dearer ones, and halts.
    pub dearer: u64,
    pub halts: u64,
    /// Where lives ended in the middle.
    pub died: Vec<&'static str>,
}

impl Site {
    #[must_use]
    pub fn new(shape: Shape, pool: Arc<ThreadPool>, net: SharedNet, seed: u64) -> Self {
        let genesis_root = crate::builder::replay::genesis_root(&shape.spec, Arc::clone(&pool)).expect("a genesis");
        let genesis = shape.spec.genesis_header(genesis_root).hash_slow();
        let machine = Machine::new(shape.spec.clone(), pool, seed, None);
        let (ledger, view) = (LedgerDisk::new(genesis), SettlementView::OFF);
        let rng = SimRng::new(seed ^ 0x517e);
        Self {
            shape,
            machine,
            ledger,
            settler: None,
            tasks: None,
            net,
            genesis_root,
            view,
            told: None,
            rng,
            replacements: 0,
            adopted: 0,
            begun: 0,
            dearer: 0,
            halts: 0,
            died: Vec::new(),
        }
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.settler.is_some() && self.machine.is_running()
    }

    /// Starts the process. `Ok(false)`: the machine stopped meanwhile.
    ///
    /// # Errors
    /// What was seen and is not there any more; a start that is refused.
    pub fn start(&mut self) -> Result<bool, Violation> {
        let mut ledger = self.ledger.open().map_err(|error| format!("the ledger was refused: {error}"))?;
        let settled = ledger.checkpoint_block();
        self.view =
            SettlementView { posted: settled, safe: settled, finalized: settled, is_met: false, ..SettlementView::OFF };
        self.told = None;
        self.machine.settlement = Some(self.view);
        if !self.machine.start()? {
            return Ok(false);
        }
        if ledger.checkpoint().is_none() {
            ledger.apply(Entry::Origin(self.shape.l1_start)).expect("an origin goes anywhere");
        }
        let mut settler = self.shape.settler(self.genesis_root, true, ledger, self.ledger.clone());
        settler.rng = SimRng::new(self.rng.word());
        let start = settler.conductor.l1_head();
        let key = self.shape.key();
        self.tasks = Some(Tasks::new(&self.net, self.shape.l1_chain_id(), start, Some(&key)));
        self.settler = Some(settler);
        Ok(true)
    }

    /// The process is gone.
    pub fn crash(&mut self, is_power_cut: bool) {
        if let Some(settler) = self.settler.take() {
            self.dearer += settler.dearer;
            self.halts += u64::from(settler.halted.is_some());
            self.ledger = settler.disk;
        }
        self.tasks = None;
        self.machine.crash(is_power_cut);
    }

    /// One turn of the `l1` thread. `answers`: the `settle` thread has done a job meanwhile.
    ///
    /// # Errors
    /// An end of the thread that no fault explains.
    pub fn turn(&mut self, answers: bool) -> Result<(), Violation> {
        let now_ns = self.net.borrow().now_ns;
        let Some(settler) = &mut self.settler else { return Ok(()) };
        settler.now_ns = now_ns;
        self.take_sealed();
        if answers && !self.is_behind() {
            self.answer()?;
        }
        if let Some(settler) = &mut self.settler {
            settler.event(Event::Tick);
        }
        self.tell();
        self.listen();
        self.look_at_end()
    }

    fn take_sealed(&mut self) {
        let Some(settler) = &mut self.settler else { return };
        let from = settler.conductor.unsafe_head().number + 1;
        for number in from..=self.machine.stored_tip().min(from + SEALED_PER_TURN) {
            let Some(stored) = self.machine.stored(number) else { break };
            let origin = stored.header.parent_beacon_block_root.unwrap_or_default();
            let bytes = stored.txs.iter().map(|(raw, _)| raw.len() as u64).sum();
            if !settler.sealed(BlockId { number, hash: stored.hash }, origin, bytes) {
                break;
            }
        }
    }

    fn is_behind(&self) -> bool {
        self.settler.as_ref().is_some_and(|settler| {
            let conductor = &settler.conductor;
            conductor.takes_blocks() && self.machine.stored_tip() > conductor.unsafe_head().number
        })
    }

    fn answer(&mut self) -> Result<(), Violation> {
        let Some(settler) = &mut self.settler else { return Ok(()) };
        match settler.jobs.pop_front() {
            Some(Job::Check(check)) => settler.answer_check(&check),
            Some(Job::Cut { number, limits, .. }) => {
                let (block, hash) = self.block(number)?;
                let result = self.witness(&block);
                let Some(settler) = &mut self.settler else { return Ok(()) };
                let known = settler.ledger.origin(&hash).copied();
                let known = known.ok_or_else(|| format!("block {number} stands on {hash}, which nobody knows"))?;
                match result {
                    Ok(witness) => {
                        let origin = Origin { number: known.number, hash };
                        settler.answer_cut(&block, &witness, origin, &limits);
                    }
                    Err(error) => settler.event(Event::Cut { number, result: Err(error) }),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A stored block, and the L1 block that it stands on.
    fn block(&self, number: u64) -> Result<(StatelessBlock, B256), Violation> {
        let stored = self.machine.stored(number).ok_or_else(|| format!("block {number} is not stored"))?;
        let recover = |(raw, _): &(Vec<u8>, _)| PreparedTx::recover(Bytes::copy_from_slice(raw));
        let txs: Result<Vec<_>, _> = stored.txs.iter().map(recover).collect();
        let txs = txs.map_err(|error| format!("block {number}: {error}"))?;
        let origin = stored.header.parent_beacon_block_root.unwrap_or_default();
        Ok((StatelessBlock::new(stored.header.clone(), txs, Vec::new()), origin))
    }

    fn witness(&self, block: &StatelessBlock) -> Result<crate::witness::Witness, String> {
        let number = block.header.number;
        let parent = self.machine.state_after(number - 1);
        let parent = parent.ok_or_else(|| format!("the state after block {} is not kept any more", number - 1))?;
        let hash = |asked| self.machine.stored(asked).map(|stored| stored.hash);
        let header = |asked| self.machine.stored(asked).map(|stored| alloy_rlp::encode(&stored.header).into());
        witness_of(&self.shape.spec, block, &parent, &hash, &header)
    }

    /// The driver's cells, as the builder core reads them.
    fn tell(&mut self) {
        let Some(settler) = &self.settler else { return };
        let (safe, finalized) = settler.conductor.settled();
        let told = settler.origin.map(|origin| origin.hash);
        let is_new = told.is_some() && told != self.told;
        let view = SettlementView {
            posted: settler.conductor.posted(),
            safe,
            finalized,
            is_met: self.view.is_met || settler.conductor.is_met(),
            is_halted: settler.halted.is_some(),
            hold: settler.conductor.hold(),
            origin_version: self.view.origin_version + u64::from(is_new),
        };
        self.told = told;
        if view != self.view {
            self.view = view;
            self.machine.settled(view, settler.origin);
        }
    }

    /// Lets the tasks go on, hands them what is to be sent, and takes one piece of their news.
    fn listen(&mut self) {
        let is_behind = self.is_behind();
        let (Some(settler), Some(tasks)) = (&mut self.settler, &mut self.tasks) else { return };
        if let Some(head) = settler.asked.take() {
            tasks.heads.send_replace(head);
        }
        tasks.waiting.extend(settler.sends.drain(..).map(|(attempt, raw)| Outgoing { attempt, raw }));
        tasks.poll();
        if let Ok(answer) = tasks.answers.try_recv() {
            return match answer {
                Answer::Account { account, tip_wei } => settler.account(account, tip_wei),
                Answer::Sent { attempt, outcome } => settler.sent(attempt, outcome),
            };
        }
        if !settler.conductor.is_full()
            && !is_behind
            && let Ok(news) = tasks.heard.try_recv()
        {
            settler.heard(news);
        }
    }

    fn look_at_end(&mut self) -> Result<(), Violation> {
        let Some(settler) = &mut self.settler else { return Ok(()) };
        match settler.end.clone() {
            Some(End::Crashed) => {
                self.died.extend(settler.died);
                let is_power_cut = self.rng.chance(1, 2);
                self.crash(is_power_cut);
                return Ok(());
            }
            Some(End::Fatal(why)) => return Err(format!("the l1 thread ended: {why}")),
            None => {}
        }
        match settler.replacement.take() {
            Some(replace) => self.replace(replace),
            None => Ok(()),
        }
    }

    /// The process stops, puts other blocks in the place of ours, and starts again.
    fn replace(&mut self, replace: Replace) -> Result<(), Violation> {
        self.replacements += 1;
        self.adopted += replace.blocks.len() as u64;
        // An orderly end: what was recorded becomes durable.
        (0..8).for_each(|_| self.machine.journal());
        self.crash(false);
        let Replace { to_block, cause, blocks, open, .. } = replace;
        let open = open.map(|part| open_body_of(*part));
        self.begun += u64::from(open.is_some());
        let cause = cause.ok_or("a replacement without a cause")?;
        if self.machine.replace(&Replacement { to_block, cause, blocks, open })? {
            self.start()?;
        }
        Ok(())
    }
}
