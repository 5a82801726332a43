//! Calls that are too heavy for a shard, executed on a query thread: blocks, receipts, transactions, status, and the dispatch of the rest.

use alloy_consensus::Header;

use crate::builder::block::{BlockContext, OpenBlock, PlacedTx};
use crate::chain::sealed_record::EndReason;
use crate::messages::{QueryInput, QueryJob, QueryReply};
use crate::primitives::{Address, B256, Bytes, Fork, Sequence};
use crate::rpc::call_state::{BlockHashes, PendingIndex};
use crate::rpc::error::RpcError;
use crate::rpc::history::{History, HistoryEnd, HistoryStatus};
use crate::rpc::json::{self, Object};
use crate::rpc::limits::RESULT_BYTES_MAX;
use crate::rpc::method::Method;
use crate::rpc::params::{Argument, BlockId, Params};
use crate::rpc::plan::PointRead;
use crate::rpc::source::{BlockSource, TxView};
use crate::rpc::view::{StateAt, View};
use crate::rpc::{encode, query_call, query_fees, query_filters, query_logs, query_pool_content, query_witness};
use crate::state::Snapshot;

/// What a query reads.
pub struct QueryContext<'a> {
    pub view: View<'a>,
    pub history: &'a dyn History,
    pub bounds: QueryBounds,
    /// Monotonic clock.
    pub now_ns: &'a dyn Fn() -> u64,
    /// Wall clock in seconds: the timestamp of a `pending` block while none is open.
    pub now_unix_s: u64,
    /// The rules of a block with this timestamp.
    pub fork_at: &'a dyn Fn(u64) -> Fork,
    pub deposit_contract: Address,
    /// The state after a block of this number and root, of those that are not in memory any more but still in the state's files.
    pub kept_state: &'a dyn Fn(u64, &B256) -> Option<Snapshot>,
}

/// The state that a block tag names.
pub enum KeptState<'a> {
    /// Of a block in memory, or of the one that is open.
    Recent(StateAt<'a>),
    /// Of an older block: its header, and the state after it.
    Older(Box<Header>, Snapshot),
}

impl<'a> KeptState<'a> {
    /// As [`StateAt::snapshot`].
    #[must_use]
    pub fn snapshot<'s>(&'s self, view: &View<'a>) -> &'s Snapshot
    where
        'a: 's,
    {
        match self {
            Self::Recent(state_at) => state_at.snapshot(view),
            Self::Older(_, state) => state,
        }
    }
}

/// What one query may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryBounds {
    /// Gas of one execution of `eth_call` or `eth_estimateGas`.
    pub gas_max: u64,
    /// Time of a whole query.
    pub duration_ns_max: u64,
}

/// What a query thread keeps between jobs.
#[derive(Default)]
pub struct QueryCache {
    pub pending: PendingIndex,
}

/// Executes one job.
///
/// Runs on: query thread; may read files and take up to `QueryBounds::duration_ns_max`.
/// The reply's gate is the durable sequence that the view was read at, or that of a single newer entry, or of the block that stands for
/// `latest` where none in memory was durable.
#[must_use]
pub fn execute(context: &QueryContext<'_>, cache: &mut QueryCache, job: &QueryJob) -> QueryReply {
    let mut gate = Sequence(0);
    let mut told = None;
    let outcome = if (context.now_ns)() > job.deadline_ns {
        Err(RpcError::busy("the query waited too long for a free thread", 1_000))
    } else {
        let mut out = Vec::new();
        let done = match &job.input {
            QueryInput::Params => dispatch(context, cache, job.method, &job.params, &mut gate, &mut out),
            QueryInput::Filter(read) => query_filters::read(context, read, &mut out).map(|position| told = position),
            QueryInput::Pool(content) => query_pool_content::render(job.method, content, &mut out),
        };
        done.and_then(|()| {
            if out.len() > RESULT_BYTES_MAX {
                return Err(RpcError::limit(format!(
                    "result too large: {} bytes, limit {RESULT_BYTES_MAX}",
                    out.len()
                )));
            }
            Ok(out)
        })
    };
    let view = &context.view;
    QueryReply { token: job.token, outcome, told, gate: gate.max(view.durable).max(view.latest().sequence) }
}

fn dispatch(
    context: &QueryContext<'_>,
    cache: &mut QueryCache,
    method: Method,
    params: &[u8],
    gate: &mut Sequence,
    out: &mut Vec<u8>,
) -> Result<(), RpcError> {
    match method {
        Method::Call => query_call::call(context, cache, params, out),
        Method::EstimateGas => query_call::estimate_gas(context, cache, params, out),
        Method::CreateAccessList => query_call::create_access_list(context, cache, params, out),
        Method::GetBalance | Method::GetTransactionCount | Method::GetCode | Method::GetStorageAt => {
            point_read(context, method, params, out)
        }
        Method::GetLogs => query_logs::logs(context, params, out),
        Method::GetProof => query_witness::get_proof(context, params, out),
        Method::DebugExecutionWitness => query_witness::execution_witness(context, params, out),
        Method::DebugGenerateWitness => query_witness::generate_witness(context, params, out),
        Method::DebugGenerateBlockWitness => query_witness::generate_block_witness(context, params, out),
        Method::FeeHistory => query_fees::fee_history(context, params, out),
        Method::GetBlockByNumber | Method::GetBlockByHash => get_block(context, params, out),
        Method::GetBlockReceipts => get_block_receipts(context, params, out),
        Method::GetBlockTransactionCountByNumber | Method::GetBlockTransactionCountByHash => {
            let argument = Params::parse(params, 1)?.required(0, "block")?;
            match context.resolve(argument.block()?)? {
                Some(found) => json::quantity(found.tx_count() as u64, out),
                None => null(out),
            }
            Ok(())
        }
        Method::GetUncleCountByBlockNumber | Method::GetUncleCountByBlockHash => {
            let argument = Params::parse(params, 1)?.required(0, "block")?;
            match context.resolve(argument.block()?)? {
                Some(_) => json::quantity(0_u64, out),
                None => null(out),
            }
            Ok(())
        }
        Method::GetTransactionByBlockHashAndIndex | Method::GetTransactionByBlockNumberAndIndex => {
            get_transaction_by_index(context, params, out)
        }
        Method::GetTransactionByHash
        | Method::GetRawTransactionByHash
        | Method::DebugGetRawTransaction
        | Method::GetTransactionReceipt
        | Method::GetTransactionStatus => {
            let hash = Params::parse(params, 1)?.required(0, "transaction hash")?.hash()?;
            by_transaction_hash(context, method, &hash, gate, out)
        }
        Method::DebugGetRawBlock | Method::DebugGetRawHeader | Method::DebugGetRawReceipts => {
            let argument = Params::parse(params, 1)?.required(0, "block")?;
            raw_block_part(context, method, &argument, out)
        }
        _ => Err(RpcError::internal(format!("{} is not a query", method.name()))),
    }
}

fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(b"null");
}

impl<'a> QueryContext<'a> {
    /// The block that `id` names, as far as it may be shown; `None` when there is none.
    pub fn resolve(&self, id: BlockId) -> Result<Option<BlockSource<'a>>, RpcError> {
        let number = match self.view.number(id) {
            Ok(number) => number,
            Err(hash) => match self.view.recent_by_hash(&hash) {
                Some(sealed) => return Ok(Some(BlockSource::Sealed(sealed))),
                None => match self.history.number_by_hash(&hash)? {
                    Some(number) => number,
                    None => return Ok(None),
                },
            },
        };
        if id == BlockId::Pending {
            return Ok(Some(match self.view.pending() {
                Some(prefix) => BlockSource::Open(prefix),
                None => BlockSource::Unopened(Box::new(self.next_context())),
            }));
        }
        self.block(number)
    }

    /// A sealed block that may be shown: from memory, else from the chain database.
    pub fn block(&self, number: u64) -> Result<Option<BlockSource<'a>>, RpcError> {
        if number > self.view.latest_number() {
            return Ok(None);
        }
        if let Some(sealed) = self.view.recent(number) {
            return Ok(Some(BlockSource::Sealed(sealed)));
        }
        Ok(self.history.block_by_number(number)?.map(BlockSource::Stored))
    }

    /// The state after a block: of one in memory, else of an older one that the state's files still hold.
    ///
    /// # Errors
    /// -32000 for a block that does not exist, or whose state is not kept any more.
    pub fn state_at(&self, id: BlockId) -> Result<KeptState<'a>, RpcError> {
        let refused = match self.view.state_at(id) {
            Ok(state_at) => return Ok(KeptState::Recent(state_at)),
            Err(refused) => refused,
        };
        let Some(source) = self.resolve(id)? else { return Err(refused) };
        let Some((header, _)) = source.header() else { return Err(refused) };
        let state = (self.kept_state)(header.number, &header.state_root).ok_or(refused)?;
        Ok(KeptState::Older(Box::new(header.clone()), state))
    }

    /// What the next block would be opened with, as far as it is known.
    #[must_use]
    pub fn next_context(&self) -> BlockContext {
        let parent = self.view.tip();
        let header = &parent.header;
        let timestamp = self.now_unix_s.max(header.timestamp + 1);
        BlockContext {
            number: header.number + 1,
            parent_hash: parent.hash,
            timestamp,
            base_fee_per_gas_wei: self.view.next_base_fee_wei(),
            prev_randao: header.mix_hash,
            coinbase: header.beneficiary,
            gas_limit: header.gas_limit,
            extra_data: Bytes::new(),
            parent_beacon_block_root: header.parent_beacon_block_root.unwrap_or_default(),
            fork: (self.fork_at)(timestamp),
        }
    }

    /// When a query that starts now must end.
    #[must_use]
    pub fn deadline_ns(&self) -> u64 {
        (self.now_ns)().saturating_add(self.bounds.duration_ns_max)
    }

    pub fn check_deadline(&self, deadline_ns: u64) -> Result<(), RpcError> {
        if (self.now_ns)() < deadline_ns {
            return Ok(());
        }
        let limit_ms = self.bounds.duration_ns_max / 1_000_000;
        Err(RpcError::limit(format!("query took longer than {limit_ms} ms: ask for fewer blocks")))
    }

    /// Where a transaction is that left the pool.
    fn find(&self, hash: &B256) -> Result<Option<Found<'a>>, RpcError> {
        // The database first says how far it is: what was sealed since is in memory, because blocks leave memory later.
        let stored_number = self.history.latest_number();
        let newer = self.view.heads.recent.iter().rev();
        for sealed in newer.take_while(|sealed| stored_number.is_none_or(|stored| sealed.header.number > stored)) {
            if let Some((index, tx)) = position(&sealed.block, hash) {
                let shown = sealed.header.number <= self.view.latest_number();
                return Ok(Some(match shown {
                    true => Found::Mined { source: BlockSource::Sealed(sealed), index },
                    false => Found::Placed { block: &sealed.block, tx, index },
                }));
            }
        }
        if let Some(open) = &self.view.heads.open
            && let Some((index, tx)) = position(open, hash)
        {
            return Ok(Some(Found::Placed { block: open, tx, index }));
        }
        let Some(location) = self.history.transaction_by_hash(hash)? else { return Ok(None) };
        let index = location.index as usize;
        if let Some(source) = self.block(location.number)? {
            return Ok(Some(Found::Mined { source, index }));
        }
        // Stored already, but its block is above what may be shown: it is still in memory.
        let unshown = self.view.heads.recent_by_number(location.number);
        Ok(unshown.and_then(|sealed| {
            let tx = sealed.block.transactions.get(index)?;
            Some(Found::Placed { block: &sealed.block, tx, index })
        }))
    }
}

impl BlockHashes for QueryContext<'_> {
    fn block_hash(&self, number: u64) -> Result<B256, String> {
        // A call under `pending` stands on blocks that may not be `latest` yet.
        let is_durable = number <= self.view.tip().header.number;
        if let Some(sealed) = self.view.heads.recent_by_number(number).filter(|_| is_durable) {
            return Ok(sealed.hash);
        }
        match self.block(number) {
            Ok(Some(source)) => Ok(source.header().map_or(B256::ZERO, |(_, hash)| hash)),
            Ok(None) => Ok(B256::ZERO),
            Err(error) => Err(error.message),
        }
    }
}

enum Found<'a> {
    /// In a block that is shown.
    Mined { source: BlockSource<'a>, index: usize },
    /// In a block that has no hash yet, or one that must not be shown yet.
    Placed { block: &'a OpenBlock, tx: &'a PlacedTx, index: usize },
}

fn position<'a>(block: &'a OpenBlock, hash: &B256) -> Option<(usize, &'a PlacedTx)> {
    block.transactions.iter().enumerate().find(|(_, tx)| tx.hash == *hash)
}

/// A point read of a state that is older than what shards see.
fn point_read(context: &QueryContext<'_>, method: Method, params: &[u8], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let read = PointRead::parse(method, params)?;
    let found = context.state_at(read.block)?;
    read.answer(method, found.snapshot(&context.view), out)
}

fn get_block(context: &QueryContext<'_>, params: &[u8], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let arguments = Params::parse(params, 2)?;
    let id = arguments.required(0, "block")?.block()?;
    let full = arguments.optional(1, "full transactions").map(|argument| argument.boolean()).transpose()?;
    match context.resolve(id)? {
        Some(found) => encode::block(&found, full.unwrap_or(false), out),
        None => {
            null(out);
            Ok(())
        }
    }
}

fn get_block_receipts(context: &QueryContext<'_>, params: &[u8], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let id = Params::parse(params, 1)?.required(0, "block")?.block()?;
    let Some(source) = context.resolve(id)? else {
        null(out);
        return Ok(());
    };
    let place = source.place();
    out.push(b'[');
    let mut separator: &[u8] = b"";
    source.for_each_receipt(|receipt| {
        out.extend_from_slice(separator);
        separator = b",";
        encode::receipt(receipt, &place, out);
        Ok(())
    })?;
    out.push(b']');
    Ok(())
}

fn get_transaction_by_index(context: &QueryContext<'_>, params: &[u8], out: &mut Vec<u8>) -> Result<(), RpcError> {
    let arguments = Params::parse(params, 2)?;
    let id = arguments.required(0, "block")?.block()?;
    let index = arguments.required(1, "index")?.quantity_u64()?;
    let Some(source) = context.resolve(id)? else {
        null(out);
        return Ok(());
    };
    // An index that does not fit is above every count.
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    match source.transaction(index)? {
        Some(tx) => encode::transaction(&tx, encode::mined(&source.place(), index), out)?,
        None => null(out),
    }
    Ok(())
}

fn by_transaction_hash(
    context: &QueryContext<'_>,
    method: Method,
    hash: &B256,
    gate: &mut Sequence,
    out: &mut Vec<u8>,
) -> Result<(), RpcError> {
    let found = context.find(hash)?;
    if method == Method::GetTransactionStatus {
        return status(context, hash, found, gate, out);
    }
    match (method, &found) {
        (_, None) | (Method::GetTransactionReceipt, Some(Found::Placed { .. })) => null(out),
        (Method::GetTransactionReceipt, Some(Found::Mined { source, index })) => match source.receipt(*index)? {
            Some(receipt) => encode::receipt(&receipt, &source.place(), out),
            None => null(out),
        },
        (Method::GetTransactionByHash, Some(Found::Placed { block, tx, .. })) => {
            *gate = tx.sequence;
            let view = TxView { raw: block.raw(tx), hash: tx.hash, sender: tx.sender };
            encode::transaction(&view, None, out)?;
        }
        (Method::GetTransactionByHash, Some(Found::Mined { source, index })) => match source.transaction(*index)? {
            Some(tx) => encode::transaction(&tx, encode::mined(&source.place(), *index), out)?,
            None => null(out),
        },
        (_, Some(Found::Placed { block, tx, .. })) => {
            *gate = tx.sequence;
            json::data(block.raw(tx), out);
        }
        (_, Some(Found::Mined { source, index })) => match source.transaction(*index)? {
            Some(tx) => json::data(tx.raw, out),
            None => null(out),
        },
    }
    Ok(())
}

/// `sequencer_getTransactionStatus` of what is not in the pool (any more).
fn status(
    context: &QueryContext<'_>,
    hash: &B256,
    found: Option<Found<'_>>,
    gate: &mut Sequence,
    out: &mut Vec<u8>,
) -> Result<(), RpcError> {
    let record = context.history.status(hash)?;
    let ms = |unix_ns: u64| unix_ns / 1_000_000;
    match found {
        Some(Found::Placed { block, tx, index }) => {
            *gate = tx.sequence;
            let mut object = Object::begin(out);
            object.text("state", "preconfirmed");
            object.quantity("blockNumber", block.context.number);
            object.quantity("transactionIndex", index as u64);
            object.quantity("acceptedAtMs", ms(tx.accepted_unix_ns));
            object.quantity("preconfirmedAtMs", ms(tx.preconfirmed_unix_ns));
            object.end();
        }
        Some(Found::Mined { source, index }) => {
            let mut object = Object::begin(out);
            let place = source.place();
            let heads = context.view.heads;
            let tier = match place.block_number {
                number if number <= heads.finalized_number => "finalized",
                number if number <= heads.safe_number => "safe",
                _ => "sealed",
            };
            object.text("state", tier);
            object.quantity("blockNumber", place.block_number);
            object.data("blockHash", place.block_hash);
            object.quantity("transactionIndex", index as u64);
            match (placed_here(&source, index), record) {
                (Some((tx, sealed_unix_ns)), _) => {
                    object.quantity("acceptedAtMs", ms(tx.accepted_unix_ns));
                    object.quantity("preconfirmedAtMs", ms(tx.preconfirmed_unix_ns));
                    object.quantity("sealedAtMs", ms(sealed_unix_ns));
                }
                (None, Some(record)) => times(&record, "sealedAtMs", &mut object),
                (None, None) => {}
            }
            if let Some(block) = context.history.status(&place.block_hash)? {
                settled_times(&block, tier, &mut object);
            }
            object.end();
        }
        None => match record {
            Some(record) if record.end != HistoryEnd::Included => ended(&record, out),
            _ => null(out),
        },
    }
    Ok(())
}

/// A transaction of a block in memory, and when that was sealed. Not of one that the start executed again, which has no times of its own.
fn placed_here<'a>(source: &BlockSource<'a>, index: usize) -> Option<(&'a PlacedTx, u64)> {
    let BlockSource::Sealed(sealed) = source else { return None };
    let tx = sealed.block.transactions.get(index)?;
    (tx.accepted_unix_ns > 0).then_some((tx, sealed.sealed_unix_ns))
}

fn times(record: &HistoryStatus, ended_name: &str, object: &mut Object<'_>) {
    object.quantity("acceptedAtMs", record.accepted_unix_ms);
    let later = [("preconfirmedAtMs", record.preconfirmed_unix_ms), (ended_name, record.ended_unix_ms)];
    for (name, time) in later {
        if let Some(ms) = time {
            object.quantity(name, ms);
        }
    }
}

/// When the block got where it is: a tier that it fell back from has no time.
fn settled_times(block: &HistoryStatus, tier: &str, object: &mut Object<'_>) {
    let later = [
        ("postedAtMs", block.posted_unix_ms),
        ("safeAtMs", block.safe_unix_ms.filter(|_| tier != "sealed")),
        ("finalizedAtMs", block.finalized_unix_ms.filter(|_| tier == "finalized")),
    ];
    for (name, time) in later {
        if let Some(ms) = time {
            object.quantity(name, ms);
        }
    }
}

fn ended(record: &HistoryStatus, out: &mut Vec<u8>) {
    let mut object = Object::begin(out);
    match record.end {
        HistoryEnd::Included => object.text("state", "sealed"),
        HistoryEnd::Replaced { by } => {
            object.text("state", "replaced");
            object.data("replacedBy", by);
        }
        HistoryEnd::Dropped { reason } => {
            object.text("state", end_name(reason));
            object.text("reason", reason_text(reason));
        }
        HistoryEnd::Invalidated { reason, required, actual } => {
            object.text("state", end_name(reason));
            object.text("reason", reason_text(reason));
            object.quantity("required", required);
            object.quantity("actual", actual);
        }
    }
    times(record, "endedAtMs", &mut object);
    object.end();
}

/// The end state that a reason belongs to.
fn end_name(code: u8) -> &'static str {
    match EndReason::from_code(code) {
        Some(EndReason::Expired) => "expired",
        Some(EndReason::Evicted) => "evicted",
        Some(EndReason::Stopped) => "stopped",
        Some(EndReason::Operator) => "dropped",
        _ => "invalidated",
    }
}

fn reason_text(code: u8) -> &'static str {
    EndReason::from_code(code).map_or("unknown reason", EndReason::text)
}

fn raw_block_part(
    context: &QueryContext<'_>,
    method: Method,
    argument: &Argument<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RpcError> {
    let source = match context.resolve(argument.block()?)? {
        Some(found) if found.header().is_some() || method == Method::DebugGetRawReceipts => found,
        _ => return Err(RpcError::server("block not found")),
    };
    match (method, source.header()) {
        (Method::DebugGetRawBlock, _) => {
            let mut rlp = Vec::new();
            encode::block_rlp(&source, &mut rlp)?;
            json::data(&rlp, out);
        }
        (Method::DebugGetRawHeader, Some((header, _))) => json::data(&alloy_rlp::encode(header), out),
        _ => {
            let mut receipts = Vec::with_capacity(source.tx_count());
            source.for_each_receipt(|receipt| {
                receipts.push(encode::receipt_2718(receipt));
                Ok(())
            })?;
            json::array(receipts, out, |receipt, out| json::data(&receipt, out));
        }
    }
    Ok(())
}
