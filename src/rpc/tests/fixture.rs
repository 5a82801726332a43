//! Blocks and heads made by hand, and a chain database in memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{Log, keccak256};

use crate::builder::block::{
    BlockContext, BlockMemory, Heads, OpenBlock, OpenBlockWriter, PlacedTx, SealedBlock, StateDiff,
};
use crate::chain::LogQuery;
use crate::messages::{QueryInput, QueryJob, QueryReply};
use crate::primitives::{Address, B256, Bytes, Fork, ReplyToken, Sequence, ShardId, Span, U256};
use crate::rpc::error::RpcError;
use crate::rpc::history::{History, HistoryBlock, HistoryError, HistoryReceipt, HistoryStatus, Location};
use crate::rpc::query::{QueryBounds, QueryCache, QueryContext, execute};
use crate::rpc::source::{decode_envelope, tx_price_wei};
use crate::rpc::{FilterRead, Method, Settings, View};
use crate::state::genesis::{GenesisAccount, from_alloc};
use crate::state::{Snapshot, StateReader, Store};

pub const CHAIN_ID: u64 = 1_337;

/// A signature that decodes; nothing here recovers it.
const LEGACY_TAIL: [u8; 3] = [37, 1, 1];

#[derive(Clone, Debug, Default)]
pub struct MemoryTx {
    pub raw: Vec<u8>,
    pub hash: B256,
    pub sender: Address,
    pub receipt: HistoryReceipt,
    pub diffs: Vec<StateDiff>,
}

#[derive(Clone, Debug, Default)]
pub struct MemoryBlock {
    pub header: Header,
    pub hash: B256,
    pub txs: Vec<MemoryTx>,
}

/// A chain database that is a list.
#[derive(Default)]
pub struct MemoryHistory {
    pub blocks: Vec<MemoryBlock>,
}

impl MemoryHistory {
    fn find(&self, number: u64) -> Option<&MemoryBlock> {
        let first = self.blocks.first()?.header.number;
        self.blocks.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }
}

struct Borrowed<'a>(&'a MemoryBlock);

impl HistoryBlock for Borrowed<'_> {
    fn header(&self) -> &Header {
        &self.0.header
    }

    fn hash(&self) -> B256 {
        self.0.hash
    }

    fn tx_count(&self) -> usize {
        self.0.txs.len()
    }

    fn transaction(&self, index: usize) -> Result<(&[u8], B256, Address), HistoryError> {
        let tx = &self.0.txs[index];
        Ok((&tx.raw, tx.hash, tx.sender))
    }

    fn receipt(&self, index: usize) -> Result<HistoryReceipt, HistoryError> {
        Ok(self.0.txs[index].receipt.clone())
    }

    fn first_log_index(&self, index: usize) -> Result<u64, HistoryError> {
        Ok(self.0.txs[..index].iter().map(|tx| tx.receipt.logs.len() as u64).sum())
    }
}

impl History for MemoryHistory {
    fn latest_number(&self) -> Option<u64> {
        self.blocks.last().map(|block| block.header.number)
    }

    fn status(&self, _hash: &B256) -> Result<Option<HistoryStatus>, HistoryError> {
        Ok(None)
    }

    fn block_by_number(&self, number: u64) -> Result<Option<Box<dyn HistoryBlock + '_>>, HistoryError> {
        let found = self.find(number);
        Ok(found.map(|block| Box::new(Borrowed(block)) as Box<dyn HistoryBlock>))
    }

    fn number_by_hash(&self, hash: &B256) -> Result<Option<u64>, HistoryError> {
        Ok(self.blocks.iter().find(|block| block.hash == *hash).map(|block| block.header.number))
    }

    fn transaction_by_hash(&self, hash: &B256) -> Result<Option<Location>, HistoryError> {
        let mut all = self.blocks.iter().flat_map(|block| {
            let number = block.header.number;
            block.txs.iter().enumerate().map(move |(index, tx)| (tx.hash, Location { number, index: index as u32 }))
        });
        Ok(all.find(|(found, _)| found == hash).map(|(_, location)| location))
    }

    fn may_have_logs(&self, number: u64, query: &LogQuery) -> Result<bool, HistoryError> {
        let found = self.find(number);
        Ok(found.is_some_and(|block| query.matches_bloom(&block.header.logs_bloom)))
    }
}

/// A legacy transaction to `to` that pays `price_wei`.
pub fn legacy_raw(nonce: u64, to: Address, price_wei: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    for value in [nonce, price_wei, 100_000] {
        alloy_rlp::Encodable::encode(&value, &mut payload);
    }
    alloy_rlp::Encodable::encode(&to, &mut payload);
    payload.extend_from_slice(&[0x80, 0x80]);
    payload.extend_from_slice(&LEGACY_TAIL);
    let mut raw = Vec::new();
    alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut raw);
    raw.extend_from_slice(&payload);
    raw
}

pub fn memory_tx(nonce: u64, to: Address, logs: Vec<Log>) -> MemoryTx {
    let raw = legacy_raw(nonce, to, 2_000_000_000);
    let receipt = HistoryReceipt { success: true, gas_used: 21_000, logs, ..HistoryReceipt::default() };
    MemoryTx { hash: keccak256(&raw), raw, sender: Address::repeat_byte(0x5e), receipt, diffs: Vec::new() }
}

/// A block whose hash is that of its header, over `parent`.
pub fn memory_block(parent: Option<&MemoryBlock>, mut txs: Vec<MemoryTx>) -> MemoryBlock {
    let number = parent.map_or(0, |parent| parent.header.number + 1);
    let mut gas_used = 0;
    let mut header = Header {
        number,
        parent_hash: parent.map_or(B256::ZERO, |parent| parent.hash),
        timestamp: 1_000 + number,
        base_fee_per_gas: Some(1_000_000_000),
        gas_limit: 30_000_000,
        withdrawals_root: Some(alloy_consensus::EMPTY_ROOT_HASH),
        ..Header::default()
    };
    for tx in &mut txs {
        gas_used += tx.receipt.gas_used;
        tx.receipt.cumulative_gas_used = gas_used;
        tx.receipt.logs.iter().for_each(|log| header.logs_bloom.accrue_log(log));
    }
    header.gas_used = gas_used;
    let hash = header.hash_slow();
    MemoryBlock { header, hash, txs }
}

pub fn context_of(header: &Header) -> BlockContext {
    BlockContext {
        number: header.number,
        parent_hash: header.parent_hash,
        timestamp: header.timestamp,
        base_fee_per_gas_wei: header.base_fee_per_gas.unwrap_or(0),
        prev_randao: header.mix_hash,
        coinbase: header.beneficiary,
        gas_limit: header.gas_limit,
        extra_data: header.extra_data.clone(),
        parent_beacon_block_root: header.parent_beacon_block_root.unwrap_or_default(),
        fork: Fork::Prague,
    }
}

/// Places `tx` as the builder core does.
pub fn place(writer: &mut OpenBlockWriter, context: &BlockContext, tx: &MemoryTx, sequence: u64) {
    let mut item_header = Vec::new();
    if tx.raw[0] < 0x80 {
        alloy_rlp::Header { list: false, payload_length: tx.raw.len() }.encode(&mut item_header);
    }
    let item = writer.bytes.push(&[&item_header, &tx.raw]).expect("test blocks are small");
    let header_bytes = item_header.len() as u32;
    let logs = Span { start: writer.logs.len() as u32, len: tx.receipt.logs.len() as u32 };
    for log in &tx.receipt.logs {
        writer.logs.push(log.clone());
    }
    let diffs = Span { start: writer.diffs.len() as u32, len: tx.diffs.len() as u32 };
    for diff in &tx.diffs {
        writer.diffs.push(*diff);
    }
    let envelope = decode_envelope(&tx.raw).expect("test transactions decode");
    writer.transactions.push(PlacedTx {
        hash: tx.hash,
        sender: tx.sender,
        contract_address: tx.receipt.contract_address,
        effective_gas_price_wei: tx_price_wei(&envelope, context.base_fee_per_gas_wei),
        gas_used: tx.receipt.gas_used,
        cumulative_gas_used: tx.receipt.cumulative_gas_used,
        sequence: Sequence(sequence),
        accepted_unix_ns: 5_000_000,
        preconfirmed_unix_ns: 7_000_000,
        item,
        raw: Span { start: item.start + header_bytes, len: item.len - header_bytes },
        logs,
        diffs,
        tx_type: crate::rpc::encode::tx_type(&tx.raw),
        success: tx.receipt.success,
    });
}

/// An open block with these transactions, which become durable at `first_sequence` and after.
pub fn open_block(header: &Header, txs: &[MemoryTx], first_sequence: u64) -> (OpenBlockWriter, Arc<OpenBlock>) {
    let context = context_of(header);
    let (mut writer, open) = OpenBlock::new(context.clone(), &BlockMemory::new(1, 1 << 20));
    for (offset, tx) in txs.iter().enumerate() {
        place(&mut writer, &context, tx, first_sequence + offset as u64);
    }
    (writer, Arc::new(open))
}

/// The block in memory, durable at `sequence`.
pub fn seal(
    block: &MemoryBlock,
    open: Arc<OpenBlock>,
    state: &Snapshot,
    sequence: u64,
    size_bytes: u64,
) -> Arc<SealedBlock> {
    Arc::new(SealedBlock {
        header: block.header.clone(),
        hash: block.hash,
        block: open,
        requests: Vec::new(),
        size_bytes,
        held_bytes: size_bytes,
        state: state.clone(),
        sequence: Sequence(sequence),
        sealed_unix_ns: 9_000_000,
    })
}

/// All of `blocks` sealed, durable at sequence 1 and before; `open` behind them.
pub fn heads(blocks: &[MemoryBlock], state: &Snapshot, open: Option<Arc<OpenBlock>>) -> Heads {
    let sealed = blocks.iter().map(|block| {
        let (_, open) = open_block(&block.header, &block.txs, 1);
        seal(block, open, state, 1, 0)
    });
    Heads::new(sealed.collect(), open)
}

pub fn store() -> Store {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread can be started");
    crate::testing::state_disk::store(Arc::new(pool))
}

pub fn account(address: Address, balance_wei: u64, code: &[u8], storage: &[(u64, u64)]) -> GenesisAccount {
    GenesisAccount {
        address,
        balance_wei: U256::from(balance_wei),
        nonce: 0,
        code: Bytes::copy_from_slice(code),
        storage: storage.iter().map(|&(slot, value)| (U256::from(slot), U256::from(value))).collect(),
    }
}

pub fn state(accounts: Vec<GenesisAccount>) -> Snapshot {
    from_alloc(&mut store(), accounts).expect("test accounts are distinct")
}

pub fn settings() -> Settings {
    Settings {
        chain_id: CHAIN_ID,
        client_version: "native-sequencer/test".to_owned(),
        debug_enabled: true,
        pool_content_enabled: true,
        proxy_enabled: false,
        state_is_remote: false,
        priority_fee_min_wei: 1,
    }
}

thread_local! {
    /// The monotonic clock, and how far a look at it moves it.
    static CLOCK_NS: Cell<(u64, u64)> = const { Cell::new((1, 0)) };
    static KEPT: RefCell<HashMap<(u64, B256), Snapshot>> = RefCell::default();
}

/// From now on every look at the clock, of the queries of this thread, moves it this far.
pub fn move_clock_by(step_ns: u64) {
    CLOCK_NS.set((1, step_ns));
}

/// From now on the state after this block is one that the state's files hold, for the queries of this thread.
pub fn keep_state(number: u64, state: &Snapshot) {
    KEPT.with_borrow_mut(|kept| kept.insert((number, state.root()), state.clone()));
}

/// Runs one query at `durable`; the answer as JSON.
pub fn query(
    heads: &Heads,
    history: &dyn History,
    durable: u64,
    method: Method,
    params: &str,
) -> Result<serde_json::Value, RpcError> {
    query_reply(heads, history, durable, method, params)
        .outcome
        .map(|json| serde_json::from_slice(&json).expect("results are JSON"))
}

pub fn query_reply(heads: &Heads, history: &dyn History, durable: u64, method: Method, params: &str) -> QueryReply {
    reply_to(heads, history, durable, method, params, QueryInput::Params)
}

/// What a filter is told at `durable`.
pub fn filter_reply(heads: &Heads, history: &dyn History, durable: u64, read: FilterRead) -> QueryReply {
    let method = if read.from.is_some() { Method::GetFilterChanges } else { Method::GetFilterLogs };
    reply_to(heads, history, durable, method, "", QueryInput::Filter(Box::new(read)))
}

pub fn reply_to(
    heads: &Heads,
    history: &dyn History,
    durable: u64,
    method: Method,
    params: &str,
    input: QueryInput,
) -> QueryReply {
    let settings = settings();
    let context = QueryContext {
        view: View { heads, durable: Sequence(durable), settings: &settings },
        history,
        bounds: QueryBounds { gas_max: 50_000_000, duration_ns_max: 2_000_000_000 },
        now_ns: &|| {
            let (now_ns, step_ns) = CLOCK_NS.get();
            CLOCK_NS.set((now_ns + step_ns, step_ns));
            now_ns
        },
        now_unix_s: 5_000,
        fork_at: &|_| Fork::Prague,
        deposit_contract: Address::ZERO,
        kept_state: &|number, root| KEPT.with_borrow(|kept| kept.get(&(number, *root)).cloned()),
    };
    let token = ReplyToken { connection: 1, generation: 2, request: 3, item: 4 };
    let params = params.as_bytes().to_vec();
    let job = QueryJob { shard: ShardId(0), token, method, params, input, deadline_ns: 10 };
    execute(&context, &mut QueryCache::default(), &job)
}
