//! A block while it is open and after it has its hash: written by the builder core, read by every other thread without locks.
//!
//! Shards, query threads and the state thread hold [`OpenBlock`] and see a growing prefix of it; nothing in it ever moves or changes.
//! Every entry carries the journal sequence that must be durable before anything derived from it leaves the process.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_eips::eip1559::{BaseFeeParams, calc_next_block_base_fee};
use alloy_primitives::Log;

use crate::builder::rewinds::Rewinds;
use crate::primitives::{Address, B256, Bytes, Fork, Sequence, Span, U256};
use crate::ring::append_log::{AppendReader, AppendStock, AppendWriter, append_log};
use crate::ring::byte_log::{ByteReader, ByteStock, ByteWriter};
use crate::state::Snapshot;

/// Everything of a block that is not derived from its transactions. Chosen when its first transaction is placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockContext {
    pub number: u64,
    pub parent_hash: B256,
    pub timestamp: u64,
    pub base_fee_per_gas_wei: u64,
    pub prev_randao: B256,
    pub coinbase: Address,
    pub gas_limit: u64,
    /// At most 32 bytes.
    pub extra_data: Bytes,
    /// Hash of the L1 origin's header, zero with `--l1 off`.
    pub parent_beacon_block_root: B256,
    pub fork: Fork,
}

impl BlockContext {
    /// Everything of a header that is not computed from its block's transactions.
    #[must_use]
    pub fn of_header(header: &Header, fork: Fork) -> Self {
        Self {
            number: header.number,
            parent_hash: header.parent_hash,
            timestamp: header.timestamp,
            base_fee_per_gas_wei: header.base_fee_per_gas.unwrap_or_default(),
            prev_randao: header.mix_hash,
            coinbase: header.beneficiary,
            gas_limit: header.gas_limit,
            extra_data: header.extra_data.clone(),
            parent_beacon_block_root: header.parent_beacon_block_root.unwrap_or_default(),
            fork,
        }
    }
}

/// One executed transaction at its fixed place, with what its receipt needs.
#[derive(Clone, Copy, Debug)]
pub struct PlacedTx {
    pub hash: B256,
    pub sender: Address,
    pub contract_address: Option<Address>,
    pub effective_gas_price_wei: u128,
    pub gas_used: u64,
    pub cumulative_gas_used: u64,
    /// Durable before anyone outside is shown this entry.
    pub sequence: Sequence,
    pub accepted_unix_ns: u64,
    pub preconfirmed_unix_ns: u64,
    /// The item of the block body in [`OpenBlock::bytes`]: for a typed transaction an RLP string around the 2718 encoding.
    pub item: Span,
    /// The 2718 encoding in [`OpenBlock::bytes`].
    pub raw: Span,
    /// Index range in [`OpenBlock::logs`].
    pub logs: Span,
    /// Index range in [`OpenBlock::diffs`].
    pub diffs: Span,
    pub tx_type: u8,
    pub success: bool,
}

/// What one transaction (or a system call) changed, in order; later entries win.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateDiff {
    Account { address: Address, nonce: u64, balance_wei: U256, code_hash: B256 },
    Slot { address: Address, slot: U256, value: U256 },
    Deleted { address: Address },
}

/// The readers' side of a block that is open, closing or sealed.
#[derive(Clone)]
pub struct OpenBlock {
    pub context: BlockContext,
    pub transactions: AppendReader<PlacedTx>,
    pub bytes: ByteReader,
    pub logs: AppendReader<Log>,
    pub diffs: AppendReader<StateDiff>,
    pub codes: AppendReader<(B256, Bytes)>,
    /// Entries of `diffs` that the opening system calls made, before the first transaction.
    pub system_diff_count: usize,
}

/// The builder core's side.
pub struct OpenBlockWriter {
    pub transactions: AppendWriter<PlacedTx>,
    pub bytes: ByteWriter,
    pub logs: AppendWriter<Log>,
    pub diffs: AppendWriter<StateDiff>,
    pub codes: AppendWriter<(B256, Bytes)>,
}

/// Memory of blocks that nobody reads any more, for the blocks to come: the builder core then meets no page fault, which takes
/// milliseconds where a virtual machine's host has to find the page first.
pub struct BlockMemory {
    transactions: Arc<AppendStock<PlacedTx>>,
    bytes: Arc<ByteStock>,
    logs: Arc<AppendStock<Log>>,
    diffs: Arc<AppendStock<StateDiff>>,
}

impl BlockMemory {
    /// Memory for at most `blocks` blocks, nothing of it taken yet; `body_bytes_max` bounds a block's encoded transactions.
    #[must_use]
    pub fn new(blocks: usize, body_bytes_max: usize) -> Self {
        Self {
            transactions: Arc::new(AppendStock::new(blocks)),
            bytes: Arc::new(ByteStock::new(blocks, body_bytes_max)),
            logs: Arc::new(AppendStock::new(blocks)),
            diffs: Arc::new(AppendStock::new(blocks)),
        }
    }

    /// Takes and touches what `blocks` blocks of a quarter more than `block` need. Runs on: a thread that may take milliseconds.
    pub fn prepare_like(&self, block: &OpenBlock, blocks: usize) {
        let more = |count: usize| count + count / 4;
        self.transactions.prepare(blocks, more(block.transactions.len()));
        self.bytes.prepare(blocks, more(block.bytes.len()));
        self.logs.prepare(blocks, more(block.logs.len()));
        self.diffs.prepare(blocks, more(block.diffs.len()));
    }
}

impl OpenBlock {
    /// An empty block. `system_diff_count` is set by the caller before it shares the block.
    #[must_use]
    pub fn new(context: BlockContext, memory: &BlockMemory) -> (OpenBlockWriter, Self) {
        let (transactions_w, transactions) = memory.transactions.append_log();
        let (bytes_w, bytes) = memory.bytes.byte_log();
        let (logs_w, logs) = memory.logs.append_log();
        let (diffs_w, diffs) = memory.diffs.append_log();
        let (codes_w, codes) = append_log();
        (
            OpenBlockWriter {
                transactions: transactions_w,
                bytes: bytes_w,
                logs: logs_w,
                diffs: diffs_w,
                codes: codes_w,
            },
            Self { context, transactions, bytes, logs, diffs, codes, system_diff_count: 0 },
        )
    }

    /// The 2718 encoding of a placed transaction.
    #[must_use]
    pub fn raw(&self, tx: &PlacedTx) -> &[u8] {
        self.bytes.get(tx.raw)
    }

    /// The logs of a placed transaction, in order.
    pub fn logs_of(&self, tx: &PlacedTx) -> impl Iterator<Item = &Log> + Clone {
        self.logs.range(tx.logs.start as usize..(tx.logs.start + tx.logs.len) as usize)
    }

    /// All body items one behind the other: the payload of the block's transaction list.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.bytes.get(Span { start: 0, len: self.bytes.len() as u32 })
    }
}

/// A block with its hash, and the state after it.
pub struct SealedBlock {
    pub header: Header,
    pub hash: B256,
    pub block: Arc<OpenBlock>,
    /// EIP-7685 requests, type byte first, empty ones left out.
    pub requests: Vec<Bytes>,
    /// Length of the block's RLP in bytes.
    pub size_bytes: u64,
    /// Memory that `block` holds at most.
    pub held_bytes: u64,
    pub state: Snapshot,
    /// Durable before anyone outside is shown this block.
    pub sequence: Sequence,
    pub sealed_unix_ns: u64,
}

/// What every thread may read of the chain's tip: replaced as a whole by the builder core, never changed.
pub struct Heads {
    pub latest: Arc<SealedBlock>,
    /// The newest sealed blocks, oldest first; bounded in blocks and bytes (`limits::RECENT_BLOCKS_MAX`). Those behind `latest` wait for the
    /// execution client's verdict (`verified` only).
    pub recent: Arc<[Arc<SealedBlock>]>,
    /// The block being filled, or the one waiting for its hash; `None` while no block is open.
    pub open: Option<Arc<OpenBlock>>,
    pub safe_number: u64,
    pub finalized_number: u64,
    /// Base fee of the block after the last of `recent`, in wei.
    pub next_base_fee_wei: u64,
    /// Shown blocks that were taken back (a follower's only).
    pub rewinds: Arc<Rewinds>,
}

impl Heads {
    /// The heads over `recent` (oldest first, not empty), with `open` behind the last of them.
    ///
    /// Without an L1 a sealed block is safe and final.
    #[must_use]
    pub fn new(recent: Arc<[Arc<SealedBlock>]>, open: Option<Arc<OpenBlock>>) -> Self {
        Self::checked(recent, open, u64::MAX)
    }

    /// As [`Heads::new`], with `latest` at most block `checked`; blocks in memory reach at least that far down.
    #[must_use]
    pub fn checked(recent: Arc<[Arc<SealedBlock>]>, open: Option<Arc<OpenBlock>>, checked: u64) -> Self {
        let tip = recent.last().expect("there is always block 0");
        let next_base_fee_wei = next_base_fee_wei(&tip.header);
        let above = usize::try_from(tip.header.number.saturating_sub(checked)).unwrap_or(usize::MAX);
        let latest = Arc::clone(&recent[recent.len().saturating_sub(above).max(1) - 1]);
        let number = latest.header.number;
        Self {
            latest,
            recent,
            open,
            safe_number: number,
            finalized_number: number,
            next_base_fee_wei,
            rewinds: Arc::default(),
        }
    }

    /// The same heads with blocks up to `safe` and `finalized` settled on L1.
    #[must_use]
    pub fn settled(mut self, safe: u64, finalized: u64) -> Self {
        let latest = self.latest.header.number;
        self.safe_number = latest.min(safe);
        self.finalized_number = self.safe_number.min(finalized);
        self
    }

    /// The same heads, which came after these blocks were taken back.
    #[must_use]
    pub fn rewound(mut self, rewinds: &Arc<Rewinds>) -> Self {
        self.rewinds = Arc::clone(rewinds);
        self
    }

    /// A recent sealed block by number; older ones are in the chain database.
    #[must_use]
    pub fn recent_by_number(&self, number: u64) -> Option<&Arc<SealedBlock>> {
        let first = self.recent.first()?.header.number;
        self.recent.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }
}

/// Base fee of the block after `parent` (EIP-1559).
#[must_use]
pub fn next_base_fee_wei(parent: &Header) -> u64 {
    let base_fee_wei = parent.base_fee_per_gas.unwrap_or_default();
    calc_next_block_base_fee(parent.gas_used, parent.gas_limit, base_fee_wei, BaseFeeParams::ethereum())
}
