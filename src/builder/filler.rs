//! The growing side of a block: executes transactions at their places and appends what everyone else reads.
//!
//! Shared by the builder core and by replay, so that a block is made in one way only.

use std::sync::Arc;

use alloy_primitives::Log;

use crate::builder::block::{BlockContext, BlockMemory, OpenBlock, OpenBlockWriter, PlacedTx};
use crate::builder::execution::{ExecutableTx, ExecutionError, Executor, Outcome, Trial};
use crate::builder::sealing::ClosedBlock;
use crate::builder::world::World;
use crate::limits;
use crate::primitives::{B256, Sequence, Span, TxFields};

/// What a place in the block records of its transaction beside the execution's outcome.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    pub hash: B256,
    pub sequence: Sequence,
    pub accepted_unix_ns: u64,
    pub preconfirmed_unix_ns: u64,
}

/// Whether the block has room for a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Fits,
    /// Smaller ones may still fit.
    NotThisOne,
    /// The block is full.
    None,
}

/// One open block and its writer's handles.
pub struct BlockFiller {
    block: Arc<OpenBlock>,
    writer: OpenBlockWriter,
    gas_used: u64,
    last_gas_used: u64,
    /// Memory that logs and codes point to.
    payload_bytes: u64,
}

impl BlockFiller {
    /// Opens a block: sets the executor's environment and makes the opening system calls.
    ///
    /// # Errors
    /// Fatal ones only.
    pub fn open(context: BlockContext, executor: &mut Executor, memory: &BlockMemory) -> Result<Self, ExecutionError> {
        let (mut writer, mut block) = OpenBlock::new(context, memory);
        executor.begin_block(&block.context, |world| append_diffs(world, &mut writer, 0))?;
        block.system_diff_count = writer.diffs.len();
        Ok(Self { block: Arc::new(block), writer, gas_used: 0, last_gas_used: 0, payload_bytes: 0 })
    }

    #[must_use]
    pub fn block(&self) -> &Arc<OpenBlock> {
        &self.block
    }

    #[must_use]
    pub fn tx_count(&self) -> usize {
        self.writer.transactions.len()
    }

    /// Gas of the last transaction that was placed.
    #[must_use]
    pub fn last_gas_used(&self) -> u64 {
        self.last_gas_used
    }

    /// Memory that the block holds at most.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let writer = &self.writer;
        let logs = writer.transactions.held_bytes() + writer.diffs.held_bytes() + writer.logs.held_bytes();
        (logs + writer.codes.held_bytes() + writer.bytes.held_bytes()) as u64 + self.payload_bytes
    }

    #[must_use]
    pub fn room_for(&self, fields: &TxFields, encoded_bytes: usize) -> Room {
        let gas_left = self.block.context.gas_limit - self.gas_used;
        let bytes_left = limits::BLOCK_BODY_BYTES_MAX - self.writer.bytes.len();
        let is_full = gas_left < limits::TX_GAS_MIN
            || bytes_left < limits::TX_BYTES_MIN
            || self.payload_bytes > limits::BLOCK_PAYLOAD_BYTES_MAX
            || self.writer.logs.len() + limits::TX_LOGS_MAX > limits::BLOCK_LOGS_MAX
            || self.writer.diffs.len() + limits::TX_DIFFS_MAX > limits::BLOCK_DIFFS_MAX;
        if is_full {
            return Room::None;
        }
        let fits = fields.gas_limit <= gas_left && encoded_bytes + limits::TX_ITEM_HEADER_BYTES_MAX <= bytes_left;
        if fits { Room::Fits } else { Room::NotThisOne }
    }

    /// Executes and appends a transaction that fits; returns its index.
    ///
    /// # Errors
    /// `Invalid` when it breaks a rule at this place, and nothing changed; everything else is fatal.
    pub fn place(
        &mut self,
        executor: &mut Executor,
        tx: &ExecutableTx<'_>,
        placement: Placement,
    ) -> Result<u32, ExecutionError> {
        let code_count = executor.world().new_codes().len();
        let outcome = executor.execute(tx)?;
        Ok(self.append(executor.world(), tx, placement, outcome, code_count))
    }

    /// As [`BlockFiller::place`], but only if `accepts` what the transaction would do; `Ok(None)` otherwise, and nothing changed.
    ///
    /// # Errors
    /// As [`BlockFiller::place`].
    pub fn place_if(
        &mut self,
        executor: &mut Executor,
        tx: &ExecutableTx<'_>,
        placement: Placement,
        accepts: impl FnOnce(&Trial<'_>) -> bool,
    ) -> Result<Option<u32>, ExecutionError> {
        let code_count = executor.world().new_codes().len();
        let outcome = executor.execute_if(tx, accepts)?;
        Ok(outcome.map(|outcome| self.append(executor.world(), tx, placement, outcome, code_count)))
    }

    /// Makes the closing system calls and takes the block's net changes.
    ///
    /// # Errors
    /// Fatal ones only.
    pub fn close(mut self, executor: &mut Executor, sequence: Sequence) -> Result<ClosedBlock, ExecutionError> {
        let code_count = executor.world().new_codes().len();
        let writer = &mut self.writer;
        let requests = executor.end_block(self.block.logs.iter(), |world| append_diffs(world, writer, code_count))?;
        let held_bytes = self.held_bytes();
        let changes = executor.world().take_changes();
        Ok(ClosedBlock { block: self.block, changes, requests, sequence, held_bytes })
    }

    fn append(
        &mut self,
        world: &World,
        tx: &ExecutableTx<'_>,
        placement: Placement,
        outcome: Outcome,
        code_count: usize,
    ) -> u32 {
        let fields = tx.fields;
        let tx_type = fields.tx_type as u8;
        let mut header = [0; limits::TX_ITEM_HEADER_BYTES_MAX];
        let header_bytes = if tx_type == 0 { 0 } else { string_header(tx.raw.len(), &mut header) };
        let item =
            self.writer.bytes.push(&[&header[..header_bytes], tx.raw]).expect("room_for left space for the item");
        let logs_start = self.writer.logs.len();
        for log in outcome.logs {
            self.payload_bytes += (size_of::<Log>() + log.topics().len() * 32 + log.data.data.len()) as u64;
            self.writer.logs.push(log);
        }
        let diffs_start = self.writer.diffs.len();
        append_diffs(world, &mut self.writer, code_count);
        self.payload_bytes += world.new_codes()[code_count..].iter().map(|(_, code)| code.len() as u64).sum::<u64>();
        self.gas_used += outcome.gas_used;
        self.last_gas_used = outcome.gas_used;
        let base_fee_wei = u128::from(self.block.context.base_fee_per_gas_wei);
        let tip_wei = fields.effective_tip_wei(base_fee_wei).unwrap_or_default();
        let index = self.writer.transactions.push(PlacedTx {
            hash: placement.hash,
            sender: tx.sender,
            contract_address: fields.to.is_none().then(|| tx.sender.create(fields.nonce)),
            effective_gas_price_wei: base_fee_wei + tip_wei,
            gas_used: outcome.gas_used,
            cumulative_gas_used: self.gas_used,
            sequence: placement.sequence,
            accepted_unix_ns: placement.accepted_unix_ns,
            preconfirmed_unix_ns: placement.preconfirmed_unix_ns,
            item,
            raw: Span { start: item.start + header_bytes as u32, len: tx.raw.len() as u32 },
            logs: span(logs_start, self.writer.logs.len()),
            diffs: span(diffs_start, self.writer.diffs.len()),
            tx_type,
            success: outcome.success,
        });
        index as u32
    }
}

/// Publishes what the last commit changed, new codes first.
fn append_diffs(world: &World, writer: &mut OpenBlockWriter, code_count: usize) {
    for (hash, code) in &world.new_codes()[code_count..] {
        writer.codes.push((*hash, code.clone()));
    }
    for diff in world.diffs() {
        writer.diffs.push(*diff);
    }
}

/// Both bounds are below 2^32 by the block's limits.
fn span(start: usize, end: usize) -> Span {
    Span { start: start as u32, len: (end - start) as u32 }
}

/// Writes the RLP header of a string of `len > 1` bytes; returns its length.
fn string_header(len: usize, out: &mut [u8; limits::TX_ITEM_HEADER_BYTES_MAX]) -> usize {
    let mut target = &mut out[..];
    alloy_rlp::Header { list: false, payload_length: len }.encode(&mut target);
    limits::TX_ITEM_HEADER_BYTES_MAX - target.len()
}
