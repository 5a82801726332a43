//! The machine: a batch is executed over its witness, segment by segment.
//!
//! With a tip it knows what an open block had before, and ends it like any other; without one, such a block has no header here.

use alloy_consensus::Header;
use alloy_consensus::constants::EMPTY_OMMER_ROOT_HASH;
use alloy_eips::eip4895::Withdrawal;

use super::defect::Defect;
use super::fields::Fields;
use super::tip::{DerivedBlock, OpenPart, Tip, block_rlp};
use super::{OriginAnswer, Origins, Proof, ProvedBlock, ProvedSegment};
use crate::builder::block::{BlockContext, next_base_fee_wei};
use crate::builder::block_execution::{BlockExecutionError, PreparedTx, Receipt, receipts_root};
use crate::builder::execution::{ExecutionError, Executor, requests_hash};
use crate::builder::world::{World, WorldError};
use crate::config::genesis::ChainSpec;
use crate::l1::execute_tx::Payload;
use crate::primitives::{B256, Bytes};
use crate::settlement::Origin;
use crate::settlement::batch::{ACCESSES_MAX, Batch, BatchBlock, BatchSegment, digest};
use crate::settlement::execution::{Known, RunReader, known_accounts, prepare, receipts_digest};
use crate::state::ListRoot;
use crate::witness::validator::live_state::LiveState;
use crate::witness::validator::partial_state::PartialState;
use crate::witness::validator::rules;

/// Transactions that are recovered before the first of them is executed.
const CHUNK_TXS: usize = 256;
/// The world tells the parts of a run apart by numbers; blocks have their own, which are below.
const PARTS_FIRST: u64 = 1 << 63;

/// What a run gives.
pub struct Outcome {
    pub proof: Proof,
    pub blocks: Vec<DerivedBlock>,
    /// With the index and the digest of the tip before.
    pub tip: Tip,
}

/// Executes a whole batch.
pub fn run(
    spec: &ChainSpec,
    payload: &Payload,
    batch: &Batch,
    origins: &impl Origins,
    tip: Option<&Tip>,
) -> Result<Outcome, Defect> {
    let fields = Fields::read(payload, batch)?;
    if let (Some(tip), Some(hash)) = (tip, fields.header_hashes.first())
        && *hash != tip.hash
    {
        return Err(Defect::ParentHash);
    }
    let state = PartialState::new(&payload.pre_state_root, &fields.witness);
    check_entries(payload, &fields, &state)?;
    let tx_count = batch.blocks.iter().flat_map(|block| &block.segments).map(|segment| segment.transactions.len());
    let mut run = Run::new(spec, payload, batch, &fields, &state, tx_count.sum(), tip);
    for (index, block) in batch.blocks.iter().enumerate() {
        run.block(block, origins, &fields.withdrawals[index])?;
    }
    Ok(run.finish(payload, batch))
}

/// No entry is there twice, and the root's node is in the field, whose nodes come first.
fn check_entries(payload: &Payload, fields: &Fields, state: &PartialState<'_>) -> Result<(), Defect> {
    let (nodes, codes) = (state.nodes(), state.codes());
    let count = nodes.entries.len() + codes.entries.len() - nodes.distinct_count() - codes.distinct_count();
    if count > 0 {
        return Err(Defect::EntryRepeated { count });
    }
    match nodes.find(&payload.pre_state_root) {
        Some(index) if (index as usize) < fields.field_nodes => Ok(()),
        _ => Err(Defect::RootNodeMissing),
    }
}

/// What is known of the block before.
struct Parent {
    /// Of a block that began in an earlier batch only what the next one's rules need is right.
    header: Header,
    hash: B256,
    origin: Option<Origin>,
}

/// The block that is being executed.
struct Open {
    context: BlockContext,
    origin: Origin,
    gas_used: u64,
    transactions: Vec<Bytes>,
    receipts: Vec<Receipt>,
    /// Everything of the block so far is here.
    is_whole: bool,
}

struct Run<'r, 'w> {
    spec: &'r ChainSpec,
    state: &'r PartialState<'w>,
    live: LiveState<'r, 'w>,
    executor: Executor<RunReader<'r, 'w>>,
    reader: RunReader<'r, 'w>,
    parent: Parent,
    /// What an earlier batch left, for the first block.
    before: Option<OpenPart>,
    open: Option<Open>,
    tip: Option<Tip>,
    next_number: u64,
    next_part: u64,
    access_count: usize,
    /// EIP-7685 requests of the block that was closed last.
    requests: Vec<Bytes>,
    segments: Vec<ProvedSegment>,
    proved: Vec<ProvedBlock>,
    blocks: Vec<DerivedBlock>,
}

impl<'r, 'w> Run<'r, 'w> {
    fn new(
        spec: &'r ChainSpec,
        payload: &Payload,
        batch: &Batch,
        fields: &Fields,
        state: &'r PartialState<'w>,
        tx_count: usize,
        tip: Option<&Tip>,
    ) -> Self
    where
        'w: 'r,
    {
        let live = LiveState::new(state.root(), state.nodes(), 2 * tx_count.min(fields.witness.state.len()) + 64);
        let reader = RunReader::new(state.reader(), Known::default());
        let mut world = World::with_room(reader.clone(), 2 * tx_count + 64);
        let oldest = payload.block_number;
        for (index, (header, hash)) in fields.headers.iter().zip(&fields.header_hashes).enumerate() {
            world.set_block_hash(oldest - 1 - index as u64, *hash);
            // At 256 back it would take the place of the block before the batch.
            if let Some(older) = header.number.checked_sub(1).filter(|older| oldest - older <= 256) {
                world.set_block_hash(older, header.parent_hash);
            }
        }
        let timestamp = batch.blocks.first().map_or(0, |block| block.timestamp);
        let executor = Executor::new(world, spec.chain_id, spec.deposit_contract, spec.fork_at(timestamp));
        let parent = Parent {
            header: fields.headers.first().cloned().unwrap_or_default(),
            hash: fields.header_hashes.first().copied().unwrap_or_default(),
            origin: tip.map(|tip| tip.origin),
        };
        Self {
            spec,
            state,
            live,
            executor,
            reader,
            parent,
            before: tip.and_then(|tip| tip.open.clone()),
            open: None,
            tip: tip.cloned(),
            next_number: payload.block_number,
            next_part: PARTS_FIRST,
            access_count: 0,
            requests: Vec::new(),
            segments: Vec::new(),
            proved: Vec::new(),
            blocks: Vec::new(),
        }
    }

    fn block(&mut self, block: &BatchBlock, origins: &impl Origins, withdrawals: &[Withdrawal]) -> Result<(), Defect> {
        let number = self.next_number;
        self.check_origin(number, block, origins)?;
        let mut open = self.begin(number, block)?;
        let last = block.segments.len() - 1;
        for (index, segment) in block.segments.iter().enumerate() {
            let opens = index == 0 && block.continued.is_none();
            let closes = index == last && block.hash.is_some();
            self.segment(&mut open, (index, segment), opens, closes.then_some(withdrawals))?;
        }
        let mut header = None;
        match block.hash {
            Some(hash) => header = self.end(open, hash, withdrawals)?,
            None => self.open = Some(open),
        }
        self.proved.push(ProvedBlock { number, origin: block.origin, hash: block.hash, header });
        self.next_number += 1;
        Ok(())
    }

    /// The origin as far as it can be judged here, and prev_randao, which follows from it.
    fn check_origin(&self, number: u64, block: &BatchBlock, origins: &impl Origins) -> Result<(), Defect> {
        let origin = block.origin;
        if let Some(before) = self.parent.origin {
            if origin.number < before.number {
                return Err(Defect::OriginDecreases { block: number, number: origin.number, before: before.number });
            }
            if origin.number == before.number && origin.hash != before.hash {
                return Err(Defect::OriginDiffers { block: number, number: origin.number });
            }
        }
        match origins.mix_hash(&origin) {
            OriginAnswer::Known(mix_hash) if mix_hash != block.prev_randao => {
                Err(Defect::PrevRandao { block: number, batch: block.prev_randao, origin: mix_hash })
            }
            OriginAnswer::Missing => Err(Defect::OriginUnknown { block: number, number: origin.number }),
            OriginAnswer::Known(_) | OriginAnswer::Unasked => Ok(()),
        }
    }

    /// The context of the next block, with what an earlier batch had of it.
    fn begin(&mut self, number: u64, block: &BatchBlock) -> Result<Open, Defect> {
        let base_fee_per_gas_wei =
            block.continued.map_or_else(|| next_base_fee_wei(&self.parent.header), |part| part.base_fee_wei);
        let context = BlockContext {
            number,
            parent_hash: self.parent.hash,
            timestamp: block.timestamp,
            base_fee_per_gas_wei,
            prev_randao: block.prev_randao,
            coinbase: block.coinbase,
            gas_limit: block.gas_limit,
            extra_data: block.extra_data.clone(),
            parent_beacon_block_root: block.origin.hash,
            fork: self.spec.fork_at(block.timestamp),
        };
        if block.continued.is_some() {
            let gas_used = block.segments[0].gas_used_before;
            let origin = block.origin;
            return Ok(match self.before.take() {
                Some(OpenPart { context, gas_used, transactions, receipts, .. }) => {
                    Open { context, origin, gas_used, transactions, receipts, is_whole: true }
                }
                None => {
                    let (transactions, receipts) = (Vec::new(), Vec::new());
                    Open { context, origin, gas_used, transactions, receipts, is_whole: false }
                }
            });
        }
        rules::check_header(&self.parent.header, &header_of(&context), context.fork, 0)
            .map_err(|source| Defect::Rule { block: number, source })?;
        let (transactions, receipts) = (Vec::new(), Vec::new());
        Ok(Open { context, origin: block.origin, gas_used: 0, transactions, receipts, is_whole: true })
    }

    /// Executes a segment and compares everything that the batch says of it. `closes`: with these withdrawals.
    fn segment(
        &mut self,
        open: &mut Open,
        (index, segment): (usize, &BatchSegment),
        opens: bool,
        closes: Option<&[Withdrawal]>,
    ) -> Result<(), Defect> {
        let block = open.context.number;
        if segment.gas_used_before != open.gas_used {
            let (batch, computed) = (segment.gas_used_before, open.gas_used);
            return Err(Defect::GasUsedBefore { block, segment: index, batch, computed });
        }
        let pre_state_root = self.live.root();
        if opens {
            let begun = self.executor.begin_block(&open.context, |_| ());
            begun.map_err(|error| self.fault(block, BlockExecutionError::System(error)))?;
        } else {
            self.executor.world().begin_block(self.next_part);
            self.next_part += 1;
            self.executor.continue_block(&open.context);
        }
        let first = open.receipts.len();
        for chunk in segment.transactions.chunks(CHUNK_TXS) {
            self.transactions(open, chunk)?;
        }
        if let Some(withdrawals) = closes {
            self.close(open, withdrawals).map_err(|error| self.fault(block, error))?;
        }
        let computed = receipts_digest(&open.receipts[first..]);
        if computed != segment.receipts_digest {
            return Err(Defect::ReceiptsDigest { block, segment: index, batch: segment.receipts_digest, computed });
        }
        let computed = self.commit(block)?;
        if computed != segment.post_state_root {
            return Err(Defect::PostStateRoot { block, segment: index, batch: segment.post_state_root, computed });
        }
        self.segments.push(ProvedSegment {
            block_number: block,
            pre_state_root,
            post_state_root: computed,
            tx_count: segment.transactions.len() as u32, // At most `TXS_MAX`.
            gas_used: open.gas_used - segment.gas_used_before,
        });
        Ok(())
    }

    fn transactions(&mut self, open: &mut Open, raws: &[Bytes]) -> Result<(), Defect> {
        let block = open.context.number;
        let behind = open.transactions.len();
        let prepared =
            prepare(raws).map_err(|(index, source)| Defect::Transaction { block, index: behind + index, source })?;
        let known = known_accounts(&mut self.live, &prepared, open.context.coinbase);
        self.reader = self.reader.after(&Default::default(), known);
        self.executor.world().stand_on(self.reader.clone());
        for tx in &prepared {
            self.transaction(open, tx).map_err(|error| self.fault(block, error))?;
        }
        open.transactions.extend_from_slice(raws);
        Ok(())
    }

    fn transaction(&mut self, open: &mut Open, tx: &PreparedTx) -> Result<(), BlockExecutionError> {
        let index = open.receipts.len();
        let gas_limit = tx.decoded.fields.gas_limit;
        let gas_left = open.context.gas_limit.saturating_sub(open.gas_used);
        if gas_limit > gas_left {
            return Err(BlockExecutionError::GasLimit { index, gas_limit, gas_left });
        }
        let outcome = self.executor.execute(&tx.executable());
        let outcome = outcome.map_err(|source| BlockExecutionError::Transaction { index, source })?;
        open.gas_used += outcome.gas_used;
        open.receipts.push(Receipt {
            tx_type: tx.decoded.fields.tx_type as u8,
            success: outcome.success,
            gas_used: outcome.gas_used,
            cumulative_gas_used: open.gas_used,
            logs: outcome.logs,
        });
        Ok(())
    }

    /// Requests are kept with the block; those of one that is not whole nobody asks for.
    fn close(&mut self, open: &mut Open, withdrawals: &[Withdrawal]) -> Result<(), BlockExecutionError> {
        let logs = open.receipts.iter().flat_map(|receipt| &receipt.logs);
        let requests = self.executor.end_block(logs, |_| ()).map_err(BlockExecutionError::System)?;
        self.requests = requests;
        for withdrawal in withdrawals {
            self.executor.world().withdraw(withdrawal)?;
        }
        Ok(())
    }

    /// The root after the open segment.
    fn commit(&mut self, block: u64) -> Result<B256, Defect> {
        let world = self.executor.world();
        let accesses = world.take_accesses().map_err(|error| {
            let source = BlockExecutionError::World(error);
            Defect::Execution { block, source }
        })?;
        self.access_count += accesses.accounts.len() + accesses.slots.len();
        if self.access_count > ACCESSES_MAX {
            return Err(Defect::TooManyAccesses);
        }
        let changes = world.take_changes();
        self.reader = self.reader.after(&changes, Known::default());
        world.stand_on(self.reader.clone());
        let root = self.live.commit(&changes)?;
        self.live.begin_round();
        Ok(root)
    }

    /// Ends a block: its header is made if everything of it is here, and its hash compared.
    fn end(&mut self, open: Open, hash: B256, withdrawals: &[Withdrawal]) -> Result<Option<Header>, Defect> {
        let number = open.context.number;
        let mut header = header_of(&open.context);
        (header.gas_used, header.state_root) = (open.gas_used, self.live.root());
        let mut made = None;
        if open.is_whole {
            let requests = std::mem::take(&mut self.requests);
            let mut list = ListRoot::new();
            open.transactions.iter().for_each(|raw| list.push(raw));
            header.transactions_root = list.finish();
            list.reset();
            withdrawals.iter().for_each(|withdrawal| list.push(&alloy_rlp::encode(withdrawal)));
            header.withdrawals_root = Some(list.finish());
            (header.receipts_root, header.logs_bloom) = receipts_root(&open.receipts);
            header.requests_hash = Some(requests_hash(&requests));
            let computed = header.hash_slow();
            if computed != hash {
                return Err(Defect::BlockHash { block: number, batch: hash, computed });
            }
            let rlp = block_rlp(&header, &open.transactions, withdrawals);
            let (receipts, origin) = (open.receipts, open.origin);
            self.check_size(&header, rlp.len(), &open.context)?;
            self.blocks.push(DerivedBlock { header: header.clone(), hash, origin, rlp, receipts, requests });
            made = Some(header.clone());
        }
        self.executor.world().set_block_hash(number, hash);
        self.parent = Parent { header, hash, origin: Some(open.origin) };
        Ok(made)
    }

    /// EIP-7934. Everything else of a header's rules was checked when the block began.
    fn check_size(&self, header: &Header, bytes: usize, context: &BlockContext) -> Result<(), Defect> {
        let bytes_max = crate::limits::BLOCK_RLP_BYTES_MAX;
        if context.fork >= crate::primitives::Fork::Osaka && bytes > bytes_max {
            let source = rules::RuleError::BlockBytes { bytes: bytes as u64, bytes_max };
            return Err(Defect::Rule { block: header.number, source });
        }
        Ok(())
    }

    /// Says whether the witness is at fault when something cannot be executed, and which of its entries.
    fn fault(&self, block: u64, source: BlockExecutionError) -> Defect {
        if let Some(fault) = self.state.fault() {
            return fault.into();
        }
        let world = match &source {
            BlockExecutionError::World(error)
            | BlockExecutionError::System(ExecutionError::World(error))
            | BlockExecutionError::Transaction { source: ExecutionError::World(error), .. } => Some(error),
            _ => None,
        };
        match world {
            Some(WorldError::CodeMissing(hash)) => Defect::CodeMissing { hash: *hash },
            Some(WorldError::BlockHashUnknown(asked)) => Defect::HeaderMissing { block, asked: *asked },
            _ => Defect::Execution { block, source },
        }
    }

    fn finish(self, payload: &Payload, batch: &Batch) -> Outcome {
        let post_state_root = self.live.root();
        let open = self.open.map(|open| OpenPart {
            context: open.context,
            origin: open.origin,
            gas_used: open.gas_used,
            state_root: post_state_root,
            transactions: open.transactions,
            receipts: open.receipts,
        });
        let origin = self.blocks.last().map(|block| block.origin);
        let mut tip = self.tip.unwrap_or_else(|| Tip::genesis(Header::default(), Origin::default()));
        if let Some(last) = self.blocks.last() {
            (tip.header, tip.hash) = (last.header.clone(), last.hash);
        }
        tip.origin = origin.unwrap_or(tip.origin);
        tip.open = open;
        let proof = Proof {
            batch_index: batch.index,
            previous_digest: batch.previous_digest,
            digest: digest(&payload.data),
            pre_state_root: payload.pre_state_root,
            post_state_root,
            segments: self.segments,
            blocks: self.proved,
        };
        Outcome { proof, blocks: self.blocks, tip }
    }
}

/// A header with everything that is not computed, and no transactions.
fn header_of(context: &BlockContext) -> Header {
    Header {
        parent_hash: context.parent_hash,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: context.coinbase,
        number: context.number,
        gas_limit: context.gas_limit,
        timestamp: context.timestamp,
        extra_data: context.extra_data.clone(),
        mix_hash: context.prev_randao,
        base_fee_per_gas: Some(context.base_fee_per_gas_wei),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(context.parent_beacon_block_root),
        ..Header::default()
    }
}
