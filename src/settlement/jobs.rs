//! The `settle` thread: what settlement computes for longer than a millisecond. One job after the other, none is waited for by builder or state.
//!
//! Cutting needs the state before a block, which is kept for the newest blocks only: of blocks that L1 is slow to take the witness is written to
//! a file of its own while the state is there. A block that was in a batch already and is cut once more has no such file: it comes from an
//! older state that is kept, with everything since executed again. While a file cannot be written building waits, and the state stays.
//! Where the state is an execution client's (`delegated`), it is asked: for the block's witness, and for
//! what a cut needs besides. A client that does not answer is asked again; other jobs go on meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alloy_consensus::Header;
use alloy_rlp::Decodable;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};

use crate::builder::block::BlockContext;
use crate::builder::block_execution::{
    BlockExecutionError, ExecutedBlock, PreparedTx, execute_block, recover_authorities,
};
use crate::builder::execution::{ExecutionError, Executor};
use crate::builder::world::{World, WorldError};
use crate::chain::ChainReader;
use crate::codec::transaction;
use crate::config::genesis::ChainSpec;
use crate::derivation::origins::OriginWindow;
use crate::derivation::skip::SkipReason;
use crate::derivation::types::{Check, CheckId, ClaimedOrigin, DerivedBlock, ValidBatch};
use crate::engine_api::blocking::BlockingClient;
use crate::engine_api::builder_thread::witness_of as client_witness;
use crate::engine_api::types::Method;
use crate::l1::block::BlockId;
use crate::l1::execute_tx::ExecuteTx;
use crate::l1::profile::Profile;
use crate::primitives::{B256, Bytes};
use crate::ring::Doorbell;
use crate::runtime::clock;
use crate::settlement::Origin;
use crate::settlement::conductor::CheckedBatch;
use crate::settlement::older;
use crate::settlement::segment::{CutError, CutLimits, Segment, cut};
use crate::settlement::siblings;
use crate::settlement::strict::{self, OriginAnswer, Origins};
use crate::state::files::sync::StateCells;
use crate::state::{Snapshot, StateReader};
use crate::topology::Shared;
use crate::witness::Witness;
use crate::witness::validator::trie::MissingSibling;
use crate::witness::validator::{StatelessBlock, Strictness, validate};

/// Blocks whose hashes `BLOCKHASH` gives.
const BLOCK_HASHES: u64 = 256;
/// Blocks that are executed again to make the witness of one: a state is kept for one in 64 of those that are not final.
const AGAIN_MAX: u64 = 256;
/// Pause between two questions to an execution client that does not answer.
const CLIENT_RETRY_NS: u64 = 500_000_000;
/// Pause between two tries to write a witness.
const DISK_RETRY_NS: u64 = 1_000_000_000;
/// How often a cut is tried again with the siblings that it lacked: each round lists all that show, so that two are enough but for rare blocks.
const SIBLING_ROUNDS: u32 = 256;
/// Nodes that are asked for in one request: a node has at most 532 bytes, so the answer stays far below what a client gives at once.
const SIBLINGS_PER_REQUEST: usize = 256;

/// What is asked for.
pub enum Job {
    /// A block's segments.
    Cut { number: u64, origin: Origin, limits: CutLimits },
    /// Strict re-execution of a batch.
    Check(Box<Check<strict::Tip>>),
    /// A block's witness, written to its file.
    Keep { number: u64 },
    /// Files of blocks below are not needed any more.
    Forget { below: u64 },
}

/// The answers; `Keep` and `Forget` have none, but for an error that ends the process.
pub enum Outcome {
    Cut { number: u64, result: Result<Vec<Segment>, String> },
    Checked { id: CheckId, result: Result<CheckedBatch, SkipReason> },
}

/// Who has the states that blocks were executed on.
pub enum StateSource {
    Own(Arc<StateCells>),
    /// The execution client's plain port.
    Client(Box<BlockingClient>),
}

/// Everything that the thread owns.
pub struct JobSeat {
    pub jobs: Receiver<Job>,
    pub outcomes: Sender<Outcome>,
    /// Of the `l1` thread.
    pub bell: Arc<Doorbell>,
    pub shared: Arc<Shared>,
    pub chain: ChainReader,
    pub source: StateSource,
    pub spec: ChainSpec,
    pub profile: Profile,
    /// Where witnesses are kept.
    pub dir: PathBuf,
}

/// Why a job has no outcome.
enum Fault {
    /// The execution client does not answer, or not yet: once more later.
    Away(String),
    /// The witness of this block cannot be written: once more later.
    Disk(u64, String),
    Failed(String),
}

/// Jobs that could not be done yet, each kind in its order.
#[derive(Default)]
struct Waiting {
    /// Those that the execution client has to do with.
    client: VecDeque<Job>,
    client_retry_ns: u64,
    is_away: bool,
    /// Blocks whose witnesses are not written. As many as are not settled at most: building waits for them.
    disk: VecDeque<u64>,
    disk_retry_ns: u64,
    is_full: bool,
}

impl Waiting {
    /// The next job that may be done; `None` when every sender of jobs is gone.
    fn next(&mut self, jobs: &Receiver<Job>) -> Option<Job> {
        loop {
            let client_ns = if self.client.is_empty() { u64::MAX } else { self.client_retry_ns };
            let disk_ns = if self.disk.is_empty() { u64::MAX } else { self.disk_retry_ns };
            let received = match client_ns.min(disk_ns) {
                u64::MAX => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                at_ns => jobs.recv_timeout(Duration::from_nanos(at_ns.saturating_sub(clock::monotonic_ns()))),
            };
            match received {
                // Behind those that wait: blocks are cut in their order.
                Ok(job @ (Job::Cut { .. } | Job::Keep { .. })) if !self.client.is_empty() => self.client.push_back(job),
                Ok(Job::Keep { number }) if !self.disk.is_empty() => self.disk.push_back(number),
                Ok(Job::Forget { below }) => {
                    self.disk.retain(|number| *number >= below);
                    return Some(Job::Forget { below });
                }
                Ok(job) => return Some(job),
                Err(RecvTimeoutError::Timeout) if client_ns <= disk_ns => return self.client.pop_front(),
                Err(RecvTimeoutError::Timeout) => return self.disk.pop_front().map(|number| Job::Keep { number }),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Takes note of a job that was done; answers whether it was the last that waited for the execution client.
    fn done(&mut self, job: &Job) -> bool {
        let is_back = self.client.is_empty() && std::mem::take(&mut self.is_away);
        if matches!(job, Job::Keep { .. }) {
            self.disk_retry_ns = 0;
        }
        if self.is_full && self.disk.is_empty() {
            self.is_full = false;
            tracing::info!("the witnesses of blocks that wait for L1 are written again");
        }
        is_back
    }

    fn away(&mut self, job: Job, why: &str) {
        if !std::mem::replace(&mut self.is_away, true) {
            tracing::warn!(why, "settlement waits for the execution client");
        }
        self.client.push_front(job);
        self.client_retry_ns = clock::monotonic_ns() + CLIENT_RETRY_NS;
    }

    fn full(&mut self, number: u64, why: &str) {
        if !std::mem::replace(&mut self.is_full, true) {
            tracing::error!(
                number,
                why,
                "the witness of a block that waits for L1 cannot be written: nothing is built until it can; tried again every second"
            );
        }
        self.disk.push_front(number);
        self.disk_retry_ns = clock::monotonic_ns() + DISK_RETRY_NS;
    }
}

/// Runs until every sender of jobs is gone.
///
/// # Errors
/// A block that cannot be read: it could never be settled.
pub fn run(mut seat: JobSeat) -> Result<(), String> {
    let mut waiting = Waiting::default();
    let mut kept = Kept::open(&seat.dir);
    kept.forget_others(|number| seat.chain.hash_by_number(number).ok().flatten());
    seat.shared.settlement.set_kept_bytes(kept.bytes());
    while let Some(job) = waiting.next(&seat.jobs) {
        match seat.carry_out(&job, &mut kept) {
            Ok(outcome) => {
                if waiting.done(&job) {
                    seat.shared.settlement.set_client_wait(None);
                }
                if let Some(outcome) = outcome {
                    if seat.outcomes.send(outcome).is_err() {
                        return Ok(());
                    }
                    seat.bell.ring();
                }
            }
            Err(Fault::Away(why)) => {
                waiting.away(job, &why);
                seat.shared.settlement.set_client_wait(Some(why));
            }
            Err(Fault::Disk(number, why)) => waiting.full(number, &why),
            Err(Fault::Failed(why)) => return Err(why),
        }
        let unwritten = waiting.disk.iter().copied().max().unwrap_or(0);
        if unwritten != seat.shared.settlement.unwritten() {
            seat.shared.settlement.set_unwritten(unwritten);
            seat.bell.ring();
        }
    }
    Ok(())
}

/// The files of a folder, by the number of their block.
struct Kept {
    dir: PathBuf,
    bytes: BTreeMap<u64, u64>,
    /// What could not be written last: it is not made again for each try.
    unwritten: Option<(u64, Vec<u8>)>,
}

impl Kept {
    fn open(dir: &Path) -> Self {
        // The folder is not there before the first is kept.
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let files = entries.filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_suffix(".witness")?.parse().ok()?;
            Some((number, entry.metadata().ok()?.len()))
        });
        Self { dir: dir.to_owned(), bytes: files.collect(), unwritten: None }
    }

    fn bytes(&self) -> u64 {
        self.bytes.values().sum()
    }

    fn write(&mut self, number: u64, bytes: Vec<u8>) -> Result<(), String> {
        let path = witness_path(&self.dir, number);
        let written = std::fs::create_dir_all(&self.dir).and_then(|()| std::fs::write(&path, &bytes));
        if let Err(error) = written {
            // Its beginning is of no use, and takes room.
            self.bytes.remove(&number);
            self.remove(number);
            self.unwritten = Some((number, bytes));
            return Err(format!("{}: {error}", path.display()));
        }
        self.bytes.insert(number, bytes.len() as u64);
        Ok(())
    }

    /// The bytes that could not be written for this block.
    fn take_unwritten(&mut self, number: u64) -> Option<Vec<u8>> {
        self.unwritten.take_if(|(at, _)| *at == number).map(|(_, bytes)| bytes)
    }

    fn forget(&mut self, below: u64) {
        let stays = self.bytes.split_off(&below);
        for number in std::mem::replace(&mut self.bytes, stays).into_keys() {
            self.remove(number);
        }
    }

    /// Removes those of blocks that are not in the chain any more: nothing else would, and their bytes count.
    fn forget_others(&mut self, hash_of: impl Fn(u64) -> Option<B256>) {
        let numbers: Vec<u64> = self.bytes.keys().copied().collect();
        for number in numbers {
            let mut hash = B256::ZERO;
            let file = std::fs::File::open(witness_path(&self.dir, number));
            let is_read = file.and_then(|mut file| file.read_exact(hash.as_mut_slice())).is_ok();
            if !is_read || hash_of(number) != Some(hash) {
                self.bytes.remove(&number);
                self.remove(number);
            }
        }
    }

    fn remove(&self, number: u64) {
        // One that stays costs space and nothing else.
        let _ = std::fs::remove_file(witness_path(&self.dir, number));
    }
}

impl JobSeat {
    fn carry_out(&mut self, job: &Job, kept: &mut Kept) -> Result<Option<Outcome>, Fault> {
        let start_ns = clock::monotonic_ns();
        let (label, outcome) = match job {
            Job::Cut { number, origin, limits } => {
                let result = match self.cut(*number, *origin, limits) {
                    Err(Fault::Away(why)) => return Err(Fault::Away(why)),
                    Err(Fault::Failed(why) | Fault::Disk(_, why)) => Err(why),
                    Ok(segments) => Ok(segments),
                };
                (0, Some(Outcome::Cut { number: *number, result }))
            }
            Job::Check(check) => {
                let id = check.id;
                (1, Some(Outcome::Checked { id, result: checked(&self.spec, self.profile, check) }))
            }
            Job::Keep { number } => {
                self.keep(kept, *number)?;
                self.shared.settlement.set_kept_bytes(kept.bytes());
                (2, None)
            }
            Job::Forget { below } => {
                kept.forget(*below);
                self.shared.settlement.set_kept_bytes(kept.bytes());
                return Ok(None);
            }
        };
        // By their places in `metrics::SETTLE_JOBS`.
        self.shared.metrics.settle.jobs[label].record(clock::monotonic_ns() - start_ns);
        Ok(outcome)
    }

    fn cut(&mut self, number: u64, origin: Origin, limits: &CutLimits) -> Result<Vec<Segment>, Fault> {
        let (block, mut witness) = self.witness(number)?;
        let cannot = |error: CutError| Fault::Failed(format!("block {number} cannot be cut: {error}"));
        for _ in 0..SIBLING_ROUNDS {
            let missing = match cut(&self.spec, &block, &witness, origin, limits) {
                Err(CutError::Siblings(missing)) => missing,
                cut => return cut.map_err(cannot),
            };
            // A witness with the reserve lacks none.
            let StateSource::Client(client) = &mut self.source else { return Err(cannot(CutError::Siblings(missing))) };
            let found = ask_siblings(client, &self.spec, &block, &witness, missing)?;
            witness.state.extend(found);
        }
        // Each round has brought a node that was missing: what waits is this block, and nothing is wrong with it.
        Err(Fault::Away(format!("block {number} is not cut after {SIBLING_ROUNDS} rounds of missing siblings")))
    }

    /// A block and its witness; with the reserve, where the state is our own.
    fn witness(&mut self, number: u64) -> Result<(StatelessBlock, Witness), Fault> {
        let block = self.block(number).map_err(Fault::Failed)?;
        let witness = match self.kept_witness(number, block.hash) {
            Some(witness) => witness,
            None => self.made_witness(&block)?,
        };
        Ok((block, witness))
    }

    fn kept_witness(&self, number: u64, hash: B256) -> Option<Witness> {
        let bytes = std::fs::read(witness_path(&self.dir, number)).ok()?;
        let witness = read_kept(&bytes, hash);
        if witness.is_none() {
            tracing::warn!(number, "the witness on the disk is of another block, or damaged");
        }
        witness
    }

    fn made_witness(&mut self, block: &StatelessBlock) -> Result<Witness, Fault> {
        match (self.generate(block), &self.source) {
            (Err(Fault::Failed(error)), StateSource::Own(states)) => {
                self.generate_by_older(states, block.header.number, error).map_err(Fault::Failed)
            }
            (witness, _) => witness,
        }
    }

    /// A block's witness by the newest state below it that is kept. `error`: why not by its parent's.
    fn generate_by_older(&self, states: &StateCells, number: u64, error: String) -> Result<Witness, String> {
        let is_of_chain = |state: &Snapshot| {
            let header = self.chain.header_rlp(state.stamp().number).ok().flatten();
            let header = header.and_then(|rlp| Header::decode(&mut rlp.as_slice()).ok());
            header.is_some_and(|header| header.state_root == state.root())
        };
        let below = states
            .retained_versions()
            .into_iter()
            .filter(|state| (number.saturating_sub(AGAIN_MAX)..number).contains(&state.stamp().number));
        let base = below.filter(is_of_chain).max_by_key(|state| state.stamp().number).ok_or(error)?;
        let base_number = base.stamp().number;
        tracing::warn!(
            number,
            base_number,
            "a block is cut once more whose state is gone: blocks since an older state are executed again"
        );
        let chain = older::Chain {
            block: &|at| self.block(at),
            hash: &|at| self.chain.hash_by_number(at).ok().flatten(),
            header: &|at| self.chain.header_rlp(at).ok().flatten().map(Bytes::from),
        };
        older::witness(&self.spec, number, (base_number, &base), &chain)
    }

    /// Writes a block's witness, unless an earlier process did. Without its state there is nothing to write: its cut says so, should it come to one.
    fn keep(&mut self, kept: &mut Kept, number: u64) -> Result<(), Fault> {
        let full = |why| Fault::Disk(number, why);
        if let Some(bytes) = kept.take_unwritten(number) {
            return kept.write(number, bytes).map_err(full);
        }
        let block = self.block(number).map_err(Fault::Failed)?;
        if self.kept_witness(number, block.hash).is_some() {
            return Ok(());
        }
        let witness = match self.made_witness(&block) {
            Ok(witness) => witness.encode(),
            Err(Fault::Failed(why)) => {
                tracing::warn!(number, why, "the witness of a block that waits for L1 cannot be kept");
                return Ok(());
            }
            Err(away) => return Err(away),
        };
        let mut bytes = Vec::with_capacity(witness.len() + 36);
        bytes.extend_from_slice(block.hash.as_slice());
        bytes.extend_from_slice(&crc32c::crc32c(&witness).to_le_bytes());
        bytes.extend_from_slice(&witness);
        kept.write(number, bytes).map_err(full)
    }

    fn block(&self, number: u64) -> Result<StatelessBlock, String> {
        let fault = |what: &dyn std::fmt::Display| format!("block {number} cannot be read: {what}");
        let stored = self.chain.block_by_number(number).map_err(|error| fault(&error))?;
        let stored = stored.ok_or_else(|| fault(&"it is not in the chain database"))?;
        let header = stored.header_rlp().map_err(|error| fault(&error))?;
        let header = Header::decode(&mut &*header).map_err(|error| fault(&error))?;
        let mut withdrawals = stored.withdrawals_rlp().map_err(|error| fault(&error))?;
        let withdrawals = if withdrawals.is_empty() {
            Vec::new()
        } else {
            Decodable::decode(&mut withdrawals).map_err(|error| fault(&error))?
        };
        let mut transactions = Vec::with_capacity(stored.tx_count() as usize);
        for tx in stored.txs() {
            let tx = tx.map_err(|error| fault(&error))?;
            let raw = Bytes::copy_from_slice(tx.raw);
            let decoded = transaction::decode(&raw).map_err(|error| fault(&error))?;
            let authorities = recover_authorities(&raw, &decoded);
            transactions.push(PreparedTx { raw, decoded, sender: tx.sender, authorities });
        }
        let mut rlp = Vec::new();
        stored.block_rlp(&mut rlp).map_err(|error| fault(&error))?;
        Ok(StatelessBlock { header, hash: stored.hash(), transactions, withdrawals, rlp_bytes: rlp.len() as u64 })
    }

    /// The state after a block.
    fn state(&self, states: &StateCells, number: u64) -> Result<Snapshot, String> {
        if let Some(sealed) = self.shared.heads.load().recent_by_number(number) {
            return Ok(sealed.state.clone());
        }
        let header = self.chain.header_rlp(number).ok().flatten();
        let header = header.and_then(|rlp| Header::decode(&mut rlp.as_slice()).ok());
        header.and_then(|header| states.retained(number, &header.state_root)).ok_or_else(|| {
            format!("the state after block {number} is not kept any more, nor one of the {AGAIN_MAX} before, and its successor is not settled")
        })
    }

    fn generate(&mut self, block: &StatelessBlock) -> Result<Witness, Fault> {
        let header = |asked| self.chain.header_rlp(asked).ok().flatten().map(Bytes::from);
        match &mut self.source {
            StateSource::Own(states) => {
                let states = Arc::clone(states);
                let parent = self.state(&states, block.header.number.saturating_sub(1)).map_err(Fault::Failed)?;
                let hash = |asked| self.chain.hash_by_number(asked).ok().flatten();
                witness_of(&self.spec, block, &parent, &hash, &header).map_err(Fault::Failed)
            }
            StateSource::Client(client) => {
                let source = client_witness(client, &block.hash).map_err(Fault::Away)?;
                let number = block.header.number;
                let witness = source.witness(number, &header).map_err(Fault::Away)?;
                // What it says now is no more than a claim: a cut that fails for it would halt us, for a fault that may pass.
                validate(&self.spec, block, &witness, Strictness::NORMAL)
                    .map_err(|what| Fault::Away(format!("the execution client's witness of block {number}: {what}")))?;
                Ok(witness)
            }
        }
    }
}

/// Asks the execution client for siblings that a cut of `block` needs; those that it gives. By their hashes first: that needs no search and
/// has no depth.
fn ask_siblings(
    client: &mut BlockingClient,
    spec: &ChainSpec,
    block: &StatelessBlock,
    witness: &Witness,
    missing: Vec<MissingSibling>,
) -> Result<Vec<Bytes>, Fault> {
    let number = block.header.number;
    let (asked, depth) = (missing.len(), siblings::depth_max(&missing));
    let mut found = Vec::with_capacity(asked);
    let mut trouble = None;
    for siblings in missing.chunks(SIBLINGS_PER_REQUEST) {
        let calls: Vec<_> =
            siblings.iter().map(|sibling| (Method::DatabaseEntry, siblings::key_params(sibling))).collect();
        match client.ask_batch(&calls) {
            // A client that does not have it, or not under its hash, says so.
            Ok(answers) => found.extend(
                siblings.iter().zip(answers).filter_map(|(sibling, answer)| siblings::node(&answer.ok()?, sibling)),
            ),
            // One that takes no such questions may still give proofs.
            Err(error) => trouble = Some(error),
        }
    }
    let by_hash = found.len();
    let missing = siblings::left(missing, &found);
    if !missing.is_empty() {
        let validated = validate(spec, block, witness, Strictness::NORMAL);
        let validated = validated.map_err(|error| Fault::Failed(format!("block {number}: {error}")))?;
        for question in siblings::questions(&missing, &validated.executed.accesses.accounts) {
            let answer = client.ask(Method::Proxied("eth_getProof"), question.params(number.saturating_sub(1)));
            let answer = answer.map_err(|error| Fault::Away(error.to_string()))?;
            found.extend(siblings::nodes(&answer, &missing));
        }
    }
    tracing::debug!(number, asked, depth, by_hash, found = found.len(), "siblings from the execution client");
    if found.is_empty() {
        if let Some(error) = trouble {
            return Err(Fault::Away(error.to_string()));
        }
        let (count, depth) = (missing.len(), siblings::depth_max(&missing));
        return Err(Fault::Away(format!(
            "block {number}: the execution client gives none of {count} trie nodes that are missing, up to {depth} nibbles deep; go-ethereum has them with --state.scheme hash --gcmode archive"
        )));
    }
    Ok(found)
}

/// Executes a block again on the state before it, and collects its witness with the reserve. `hash` and `header` (RLP) of the blocks before it.
///
/// # Errors
/// In words: a block that does not execute, or a state that cannot be read.
pub fn witness_of(
    spec: &ChainSpec,
    block: &StatelessBlock,
    parent: &Snapshot,
    hash: &dyn Fn(u64) -> Option<B256>,
    header: &dyn Fn(u64) -> Option<Bytes>,
) -> Result<Witness, String> {
    let number = block.header.number;
    let context = BlockContext::of_header(&block.header, spec.fork_at(block.header.timestamp));
    let executed = execute(spec, block, &context, parent, hash)?;
    Witness::of_block_with_reserve(number, parent, &executed.accesses, &executed.changes, header)
        .map_err(|error| format!("the witness of block {number}: {error}"))
}

/// Executes with the block hashes that the world asks for: at first none, which is what most blocks need.
///
/// # Errors
/// In words: it does not execute, or the state cannot be read.
pub fn execute<R: StateReader + Clone>(
    spec: &ChainSpec,
    block: &StatelessBlock,
    context: &BlockContext,
    parent: &R,
    hash: &dyn Fn(u64) -> Option<B256>,
) -> Result<ExecutedBlock, String> {
    let number = block.header.number;
    let execute = |hashes: &[(u64, B256)]| {
        let mut world = World::with_room(parent.clone(), 4 * block.transactions.len() + 64);
        hashes.iter().for_each(|(number, hash)| world.set_block_hash(*number, *hash));
        let mut executor = Executor::new(world, spec.chain_id, spec.deposit_contract, context.fork);
        execute_block(&mut executor, context, &block.transactions, &block.withdrawals)
    };
    let parent_hash = [(number - 1, block.header.parent_hash)];
    let outcome = match execute(&parent_hash) {
        Err(BlockExecutionError::Transaction {
            source: ExecutionError::World(WorldError::BlockHashUnknown(_)),
            ..
        }) => {
            let known =
                (number.saturating_sub(BLOCK_HASHES)..number).filter_map(|number| Some((number, hash(number)?)));
            execute(&known.collect::<Vec<_>>())
        }
        outcome => outcome,
    };
    outcome.map_err(|error| format!("block {number} cannot be executed again: {error}"))
}

fn witness_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}.witness"))
}

/// The witness in a file, when it is of this block.
fn read_kept(bytes: &[u8], hash: B256) -> Option<Witness> {
    let (head, witness) = bytes.split_at_checked(36)?;
    let is_whole = head[..32] == hash[..] && head[32..] == crc32c::crc32c(witness).to_le_bytes();
    is_whole.then(|| Witness::decode_run(&Bytes::copy_from_slice(witness)).ok()).flatten()
}

impl Origins for OriginWindow {
    fn mix_hash(&self, origin: &Origin) -> OriginAnswer {
        self.find(id(*origin)).map_or(OriginAnswer::Missing, |block| OriginAnswer::Known(block.mix_hash))
    }
}

fn id(origin: Origin) -> BlockId {
    BlockId { number: origin.number, hash: origin.hash }
}

/// Strict re-execution of a batch, as derivation wants it.
///
/// # Errors
/// The first broken rule: of an origin, or of the batch.
pub fn checked(spec: &ChainSpec, profile: Profile, check: &Check<strict::Tip>) -> Result<CheckedBatch, SkipReason> {
    let tx =
        ExecuteTx::decode(&check.raw, profile).map_err(|error| SkipReason::Undecodable { what: error.to_string() })?;
    let invalid =
        |defect: strict::Defect| SkipReason::Invalid { code: defect.code().to_owned(), what: defect.to_string() };
    let tip = &*check.tip.carry;
    let batch = strict::continues(tip, &tx.payload).map_err(invalid)?;
    // Before anything is executed: where blocks stand.
    let first = check.tip.block.number + 1;
    let claimed = batch.blocks.iter().zip(first..).map(|(block, number)| ClaimedOrigin {
        block: number,
        origin: id(block.origin),
        prev_randao: block.prev_randao,
    });
    let claimed: Vec<ClaimedOrigin> = claimed.collect();
    check.origins.judge_all(check.tip.origin, &claimed)?;
    let advance = strict::advance(spec, tip, &tx.payload, &check.origins).map_err(invalid)?;
    let blocks = advance.blocks.iter().map(|block| DerivedBlock {
        id: BlockId { number: block.header.number, hash: block.hash },
        origin: id(block.origin),
    });
    Ok(CheckedBatch {
        batch: ValidBatch {
            digest: advance.proof.digest,
            post_state: advance.proof.post_state_root,
            blocks: blocks.collect(),
            origins: claimed,
            is_open: advance.tip.open.is_some(),
            carry: Arc::new(advance.tip),
        },
        blocks: advance.blocks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::test_dir::TestDir;

    #[test]
    fn files_are_counted_across_a_start_and_forgotten_by_number() {
        let dir = TestDir::new("kept-witnesses");
        let folder = dir.path().join("witnesses");
        let mut kept = Kept::open(&folder);
        assert_eq!(kept.bytes(), 0, "the folder is not there yet");
        for number in [9, 10, 100] {
            kept.write(number, vec![7; 50]).expect("room");
        }
        // Of another block of the same number, after a reorganisation.
        kept.write(10, vec![7; 20]).expect("room");
        std::fs::write(folder.join("notes.txt"), "not ours").expect("room");
        assert_eq!((kept.bytes(), Kept::open(&folder).bytes()), (120, 120));
        kept.forget(100);
        assert_eq!((kept.bytes(), Kept::open(&folder).bytes()), (50, 50));
        assert!(folder.join("100.witness").exists() && folder.join("notes.txt").exists());
        assert!(!folder.join("9.witness").exists());
    }

    #[test]
    fn what_cannot_be_written_is_not_counted_and_tried_again() {
        let dir = TestDir::new("unwritten-witnesses");
        let folder = dir.path().join("witnesses");
        let mut kept = Kept::open(&folder);
        kept.write(8, vec![7; 50]).expect("room");
        // A disk without room for the next one.
        std::os::unix::fs::symlink("/dev/full", folder.join("9.witness")).expect("a link");
        let why = kept.write(9, vec![7; 20]).expect_err("no room");
        assert!(why.contains("9.witness: No space left"), "{why}");
        assert_eq!((kept.bytes(), folder.join("9.witness").exists()), (50, false));
        assert_eq!(kept.take_unwritten(8), None);
        let bytes = kept.take_unwritten(9).expect("it is not made again");
        kept.write(9, bytes).expect("room");
        assert_eq!((kept.bytes(), kept.take_unwritten(9)), (70, None));
    }

    #[test]
    fn a_witness_without_room_holds_up_no_cut_and_is_forgotten_when_it_is_not_needed() {
        let (sender, jobs) = crossbeam::channel::bounded(8);
        let mut waiting = Waiting::default();
        let keep = |number| sender.send(Job::Keep { number }).expect("it listens");
        let name = |job: Option<Job>| match job {
            Some(Job::Cut { number, .. }) => format!("cut {number}"),
            Some(Job::Keep { number }) => format!("keep {number}"),
            Some(Job::Forget { below }) => format!("forget {below}"),
            Some(Job::Check(_)) => "check".to_owned(),
            None => "end".to_owned(),
        };
        (4..=6).for_each(keep);
        assert_eq!(name(waiting.next(&jobs)), "keep 4");
        waiting.full(4, "no room");
        let (origin, limits) = (Origin::default(), CutLimits::default());
        sender.send(Job::Cut { number: 3, origin, limits }).expect("it listens");
        assert_eq!(name(waiting.next(&jobs)), "cut 3");
        assert_eq!(waiting.disk, [4, 5, 6]);
        sender.send(Job::Forget { below: 5 }).expect("it listens");
        assert_eq!(name(waiting.next(&jobs)), "forget 5");
        assert_eq!(name(waiting.next(&jobs)), "keep 5", "after a second");
        waiting.done(&Job::Keep { number: 5 });
        assert!(waiting.is_full);
        assert_eq!(name(waiting.next(&jobs)), "keep 6", "at once");
        waiting.done(&Job::Keep { number: 6 });
        assert!(!waiting.is_full);
        drop(sender);
        assert_eq!(name(waiting.next(&jobs)), "end");
    }
}
