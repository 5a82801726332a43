//! A builder core, a sealer and a state on one thread, driven by hand: what benches measure and tests look into.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::builder::block::{Heads, OpenBlock, SealedBlock};
use crate::builder::block_execution::recover_authorities;
use crate::builder::core::{Core, CoreSettings, Effects, JournalRoom, NextTurn, Now, Payload, StartError};
use crate::builder::execution::Executor;
use crate::builder::replay::{self, from_journal::Resumed};
use crate::builder::sealing::{ClosedBlock, Sealer};
use crate::builder::world::World;
use crate::codec::transaction;
use crate::config::genesis::ChainSpec;
use crate::crypto::keccak::keccak256;
use crate::crypto::recovery;
use crate::journal::record::Record;
use crate::mempool::{Conditions, Limits, Mempool, PriorityFee};
use crate::messages::{
    BuilderAnswer, BuilderRead, BuilderReply, ChainMessage, IngressMessage, MeasureJob, Submit, SubmitExtras,
    SubmitWait,
};
use crate::primitives::{Address, ReplyToken, Sequence, ShardId};
use crate::runtime::slab::{Slab, TxHandle};
use crate::settlement::cells::SettlementView;
use crate::state::{Snapshot, StateReader, Store};

const NS_PER_S: u64 = 1_000_000_000;

/// Everything that a core has said and that was not looked at yet.
#[derive(Default)]
pub struct Collected {
    pub replies: Vec<(ShardId, BuilderReply)>,
    pub freed: Vec<TxHandle>,
    pub published: Option<Arc<Heads>>,
    pub opened: VecDeque<Arc<OpenBlock>>,
    pub closed: VecDeque<ClosedBlock>,
    pub chain: Vec<ChainMessage>,
    pub chain_room: usize,
    pub placed_count: u64,
    /// Records in order, without checksums.
    pub records: Vec<u8>,
    /// Whether `records` is filled: benches of the core alone do without.
    pub keeps_records: bool,
    pub journal_room: Option<JournalRoom>,
    pub carry_below: Sequence,
    /// Witnesses that were asked for.
    pub measured: Vec<MeasureJob>,
    /// `None`: everything.
    pub durable: Option<Sequence>,
}

impl Effects for Collected {
    fn reply(&mut self, shard: ShardId, reply: BuilderReply) {
        self.replies.push((shard, reply));
    }

    fn free(&mut self, handle: TxHandle) {
        self.freed.push(handle);
    }

    fn publish(&mut self, heads: Arc<Heads>) {
        self.published = Some(heads);
    }

    fn placed(&mut self) {
        self.placed_count += 1;
    }

    fn open(&mut self, block: Arc<OpenBlock>) {
        self.opened.push_back(block);
    }

    fn close(&mut self, closed: ClosedBlock) {
        self.closed.push_back(closed);
    }

    fn chain(&mut self, message: ChainMessage) {
        self.chain.push(message);
    }

    fn chain_room(&self) -> usize {
        self.chain_room
    }

    fn record(&mut self, sequence: Sequence, record: &Record<'_>) {
        if self.keeps_records {
            record.encode(sequence, &mut self.records);
        }
    }

    fn journal_room(&self) -> JournalRoom {
        self.journal_room.unwrap_or(JournalRoom::Plenty)
    }

    fn durable(&self) -> Sequence {
        self.durable.unwrap_or(Sequence(u64::MAX))
    }

    fn measure(&mut self, job: MeasureJob) -> bool {
        self.measured.push(job);
        true
    }

    fn carry_below(&self) -> Sequence {
        self.carry_below
    }
}

/// What a core can stand on.
pub struct Standing {
    pub recent: Vec<Arc<SealedBlock>>,
    pub world: World,
    pub store: Store,
    pub resumed: Resumed,
    /// Blocks settle on an L1, which is as far as this.
    pub settlement: Option<SettlementView>,
}

/// One chain on one thread. Its clock stands still until it is moved.
pub struct BenchChain {
    pub core: Core,
    pub effects: Collected,
    pub slab: Slab,
    pub now: Now,
    pub spec: ChainSpec,
    sealer: Sealer,
    store: Store,
    parent: Snapshot,
    scratch: Vec<u8>,
    next_token: u32,
    following: Option<Arc<OpenBlock>>,
}

impl BenchChain {
    /// A chain at its genesis, one second after it, with blocks of one second.
    ///
    /// # Panics
    /// When the genesis or the memory for it is unfit: tests and benches only.
    #[must_use]
    pub fn new(spec: ChainSpec) -> Self {
        Self::with(spec, |_, _| {})
    }

    /// As [`BenchChain::new`], with settings and pool limits changed by `adjust`.
    ///
    /// # Panics
    /// As [`BenchChain::new`].
    #[must_use]
    pub fn with(spec: ChainSpec, adjust: impl FnOnce(&mut CoreSettings, &mut Limits)) -> Self {
        let hash_pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
        let mut store = crate::testing::state_disk::store(Arc::new(hash_pool));
        let genesis = replay::genesis_block(&spec, &mut store).expect("a genesis that commits");
        let now = Now { monotonic_ns: NS_PER_S, unix_ns: (genesis.header.timestamp + 1) * NS_PER_S };
        let mut world = World::new(genesis.state.clone());
        world.set_block_hash(0, genesis.hash);
        let recent = vec![Arc::new(genesis)];
        let standing = Standing { recent, world, store, resumed: Resumed::default(), settlement: None };
        Self::resume(spec, standing, now, false, adjust).expect("nothing was under way")
    }

    /// A chain that goes on where a journal ended. `keeps_records`: what the core records is collected.
    ///
    /// # Errors
    /// The core's, when it cannot take over.
    ///
    /// # Panics
    /// When there is no memory for it.
    pub fn resume(
        spec: ChainSpec,
        standing: Standing,
        now: Now,
        keeps_records: bool,
        adjust: impl FnOnce(&mut CoreSettings, &mut Limits),
    ) -> Result<Self, StartError> {
        let Standing { recent, world, store, resumed, settlement } = standing;
        let Resumed { start, sequence } = resumed;
        let latest = Arc::clone(recent.last().expect("there is always block 0"));
        let parent = start.unrecorded.as_ref().map_or_else(|| latest.state.clone(), |sealed| sealed.state.clone());
        let slab = Slab::new(ShardId(0), 1 << 30).expect("address space");
        let mut settings = CoreSettings {
            interval_ns: NS_PER_S,
            empty_interval_ns: 0,
            timestamp_lead_s: 1,
            gas_limit_target: latest.header.gas_limit,
            coinbase: Address::ZERO,
            extra_data: Default::default(),
            execute: true,
            settlement_bytes_max: None,
        };
        let mut limits = Limits { transactions_max: 200_000, ..Limits::new(spec.chain_id, latest.header.gas_limit) };
        adjust(&mut settings, &mut limits);
        limits.transactions_max = limits.transactions_max.max(start.pooled.len() as u32); // Tests pool far fewer.
        let pool: Mempool<Payload> = Mempool::new(limits, Box::new(PriorityFee), 0, 1);
        let executor =
            Executor::new(world, spec.chain_id, spec.deposit_contract, spec.fork_at(latest.header.timestamp));
        let rules = spec.clone();
        let fork_at = Box::new(move |timestamp| rules.fork_at(timestamp));
        let mut core = Core::new(settings, pool, executor, vec![slab.reader()], recent, sequence, fork_at, now);
        if let Some(view) = settlement {
            core.expect_settlement(view);
        }
        let mut effects = Collected { chain_room: usize::MAX, keeps_records, ..Collected::default() };
        core.start(start, now, &mut effects)?;
        Ok(Self {
            core,
            effects,
            slab,
            now,
            spec,
            sealer: Sealer::default(),
            store,
            parent,
            scratch: Vec::new(),
            next_token: 0,
            following: None,
        })
    }

    /// Decodes, recovers and submits; the replies are collected.
    ///
    /// # Panics
    /// When the bytes are no signed transaction: tests and benches only.
    pub fn submit(&mut self, raw: &[u8]) -> ReplyToken {
        self.submit_with(raw, SubmitWait::Admission, None)
    }

    /// As [`BenchChain::submit`], waiting for a receipt or under conditions.
    ///
    /// # Panics
    /// As [`BenchChain::submit`].
    pub fn submit_with(&mut self, raw: &[u8], wait: SubmitWait, conditions: Option<Conditions>) -> ReplyToken {
        let message = self.message(raw, wait, conditions);
        let IngressMessage::Submit(submit) = &message else { unreachable!("made as a submission") };
        let token = submit.token;
        self.core.on_message(ShardId(0), message, self.now, &mut self.effects).expect("the state can be read");
        token
    }

    /// What a shard would send for these bytes.
    ///
    /// # Panics
    /// As [`BenchChain::submit`].
    pub fn message(&mut self, raw: &[u8], wait: SubmitWait, conditions: Option<Conditions>) -> IngressMessage {
        let decoded = transaction::decode(raw).expect("a strict encoding");
        let digest = transaction::signing_hash(raw, &decoded, &mut self.scratch);
        let sender = recovery::recover(&decoded.recover_item(digest)).expect("a signature");
        let authorities = recover_authorities(raw, &decoded);
        let mut chunk = self.slab.alloc(raw.len()).expect("the slab is larger than any test");
        chunk.copy_from_slice(raw);
        let handle = chunk.freeze();
        self.next_token += 1;
        let token = ReplyToken { connection: 0, generation: 0, request: self.next_token, item: 0 };
        let has_extras = !authorities.is_empty() || conditions.is_some();
        IngressMessage::Submit(Submit {
            token,
            hash: keccak256(raw),
            sender,
            fields: decoded.fields,
            handle,
            extras: has_extras.then(|| Box::new(SubmitExtras { authorities, conditions })),
            wait,
        })
    }

    /// Asks the core, as a shard does for `pending`.
    ///
    /// # Panics
    /// When the state cannot be read.
    pub fn read(&mut self, read: BuilderRead) -> BuilderAnswer {
        self.next_token += 1;
        let token = ReplyToken { connection: 0, generation: 0, request: self.next_token, item: 0 };
        let message = IngressMessage::Read { token, read };
        self.core.on_message(ShardId(0), message, self.now, &mut self.effects).expect("the state can be read");
        match self.effects.replies.pop() {
            Some((_, BuilderReply::Answer { token: answered, answer, .. })) if answered == token => answer,
            _ => panic!("a read is answered at once"),
        }
    }

    /// Turns the core until it has nothing more to do now.
    ///
    /// # Panics
    /// On a fatal error.
    pub fn settle(&mut self) -> NextTurn {
        loop {
            let next = self.core.turn(self.now, &mut self.effects).expect("no fatal error");
            let did_seal = self.seal();
            if next != NextTurn::Now && !did_seal {
                return next;
            }
        }
    }

    /// Moves both clocks.
    pub fn advance(&mut self, ns: u64) {
        self.now.monotonic_ns += ns;
        self.now.unix_ns += ns;
    }

    /// Places everything ready, lets the block's time pass and seals it.
    ///
    /// # Panics
    /// When no block was open: tests only.
    pub fn finish_block(&mut self) -> Arc<SealedBlock> {
        self.settle();
        let before = self.core.heads().latest.header.number;
        self.advance(NS_PER_S);
        self.settle();
        let heads = self.core.heads();
        assert!(heads.latest.header.number > before);
        Arc::clone(&heads.latest)
    }

    /// Gives the chunks of ended transactions back, as a shard does.
    pub fn free_chunks(&mut self) {
        for handle in self.effects.freed.drain(..) {
            self.slab.free(handle);
        }
    }

    /// State of the last sealed block.
    #[must_use]
    pub fn state(&self) -> &Snapshot {
        &self.parent
    }

    /// Takes up what was placed since the last call, as the state thread does while a block is open.
    pub fn follow(&mut self) -> usize {
        if let Some(block) = self.effects.opened.pop_front() {
            self.sealer.begin();
            self.following = Some(block);
        }
        self.following.as_deref().map_or(0, |block| self.sealer.follow(block))
    }

    /// Seals the block that was closed, if there is one.
    ///
    /// # Panics
    /// When the state cannot be committed.
    pub fn seal(&mut self) -> bool {
        self.follow();
        let Some(closed) = self.effects.closed.pop_front() else { return false };
        let sealed = self
            .sealer
            .seal(closed, &self.parent, &mut self.store, self.now.unix_ns)
            .expect("a state in memory commits");
        assert_eq!(sealed.header.state_root, sealed.state.root());
        self.parent = sealed.state.clone();
        self.core.on_sealed(sealed, &mut self.effects);
        true
    }
}
