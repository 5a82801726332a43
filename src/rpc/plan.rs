//! Which thread answers a call, and the answers that a shard gives itself.

use std::borrow::Cow;
use std::sync::Arc;

use crate::crypto::keccak::keccak256;
use crate::limits::{POOL_CONTENT_BYTES_MAX, POOL_CONTENT_TXS_MAX};
use crate::mempool::Conditions;
use crate::messages::{BuilderAnswer, BuilderRead, LiveStatus, SubmitWait};
use crate::primitives::{Address, U256};
use crate::rpc::encode;
use crate::rpc::error::RpcError;
use crate::rpc::filter::{FilterAsk, FilterCall, FilterId, FilterKind, LogCriteria};
use crate::rpc::json::{self, Object};
use crate::rpc::limits::{SYNC_WAIT_MS_DEFAULT, SYNC_WAIT_MS_MAX};
use crate::rpc::log_filter::LogFilter;
use crate::rpc::method::{Class, Method};
use crate::rpc::params::{BlockId, Params};
use crate::rpc::source::TxView;
use crate::rpc::subscription::{SubscriptionId, SubscriptionKind};
use crate::rpc::view::{StateAt, View};
use crate::state::{CODE_HASH_EMPTY, Snapshot, StateError, StateReader};

/// What the shard does next.
#[derive(Debug)]
pub enum Plan<'p> {
    /// Nothing: the result is in `out`.
    Reply,
    /// Ask the builder core, then `render_builder_answer`.
    Builder(BuilderRead),
    /// Send method and params to the query pool.
    Query,
    /// `sequencer_executionStatus`: the shard has the cells, `render_execution_status` the form.
    ExecutionStatus,
    /// Decode and recover the transaction, then send it to the builder core.
    Submit(SubmitRequest<'p>),
    /// Register with `Subscriptions::add` and answer with the id; WebSocket connections only.
    Subscribe(SubscriptionKind),
    /// `Subscriptions::remove`, which answers true or false.
    Unsubscribe(SubscriptionId),
    /// Make a filter, or ask its owner.
    Filter(FilterCall),
}

/// A transaction on its way in.
#[derive(Debug)]
pub struct SubmitRequest<'p> {
    /// Hex text as sent.
    pub raw_hex: Cow<'p, str>,
    pub wait: SubmitWait,
    /// How long a waiting call waits; meaningless for `SubmitWait::Admission`.
    pub timeout_ms: u64,
    pub conditions: Option<Conditions>,
}

/// What became of a builder answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rendered {
    /// The result is in `out`.
    Done,
    /// The builder core does not hold it (any more): send the same method and params to the query pool.
    AskQuery,
}

/// Decides who answers. Writes the result to `out` when that is the shard itself.
///
/// Runs on: ingress shard; no disk, bounded work.
/// Errors:  -32602 naming the argument, -32601 for `debug_*` where it is off, -32000 for a state that is not kept.
pub fn plan<'p>(method: Method, params: &'p [u8], view: &View<'_>, out: &mut Vec<u8>) -> Result<Plan<'p>, RpcError> {
    if view.settings.state_is_remote && method.reads_state() {
        return remote_read(method, params, view);
    }
    match method {
        _ if method.is_debug() && !view.settings.debug_enabled => {
            Err(RpcError::method_not_found(method.name().as_bytes()))
        }
        _ if method.is_pool_content() && !view.settings.pool_content_enabled => {
            Err(RpcError::method_not_found(method.name().as_bytes()))
        }
        _ if method.class() == Class::Filter => filter(method, params).map(Plan::Filter),
        Method::SendRawTransaction | Method::SendRawTransactionSync | Method::SendRawTransactionConditional => {
            submit(method, params).map(Plan::Submit)
        }
        Method::GetBalance | Method::GetTransactionCount | Method::GetCode | Method::GetStorageAt => {
            point_read(method, params, view, out)
        }
        Method::GetTransactionByHash | Method::GetRawTransactionByHash => {
            let hash = Params::parse(params, 1)?.required(0, "transaction hash")?.hash()?;
            Ok(Plan::Builder(BuilderRead::Transaction { hash }))
        }
        Method::GetTransactionStatus => {
            let hash = Params::parse(params, 1)?.required(0, "transaction hash")?.hash()?;
            Ok(Plan::Builder(BuilderRead::Status { hash }))
        }
        Method::TxpoolStatus => {
            Params::parse(params, 0)?;
            Ok(Plan::Builder(BuilderRead::PoolStatus))
        }
        Method::TxpoolContent | Method::TxpoolInspect => {
            Params::parse(params, 0)?;
            Ok(Plan::Builder(BuilderRead::PoolContent { sender: None }))
        }
        Method::TxpoolContentFrom => {
            let sender = Params::parse(params, 1)?.required(0, "address")?.address()?;
            Ok(Plan::Builder(BuilderRead::PoolContent { sender: Some(sender) }))
        }
        Method::ExecutionStatus => Params::parse(params, 0).map(|_| Plan::ExecutionStatus),
        Method::Subscribe => subscribe(params).map(Plan::Subscribe),
        Method::Unsubscribe => {
            let argument = Params::parse(params, 1)?.required(0, "subscription id")?;
            let text = argument.text()?;
            SubscriptionId::parse(&text).map(Plan::Unsubscribe).ok_or_else(|| argument.invalid("not a subscription id"))
        }
        Method::Sha3 => {
            let input = Params::parse(params, 1)?.required(0, "data")?.data()?;
            json::data(keccak256(&input).as_slice(), out);
            Ok(Plan::Reply)
        }
        _ if method.class() == Class::Proxy && !view.settings.proxy_enabled => {
            Err(RpcError::method_not_found(method.name().as_bytes()))
        }
        _ if matches!(method.class(), Class::Query | Class::Proxy | Class::Settlement) => Ok(Plan::Query),
        _ => {
            Params::parse(params, 0)?;
            constant(method, view, out);
            Ok(Plan::Reply)
        }
    }
}

/// Who answers for the state where it is the execution client's: the client, but for a nonce under `pending`, which our pool knows first.
fn remote_read<'p>(method: Method, params: &'p [u8], view: &View<'_>) -> Result<Plan<'p>, RpcError> {
    match method {
        _ if method.is_debug() && !view.settings.debug_enabled => {
            Err(RpcError::method_not_found(method.name().as_bytes()))
        }
        Method::DebugGenerateWitness | Method::DebugGenerateBlockWitness => Err(RpcError::new(
            crate::rpc::error::code::REJECTED,
            format!("{}: unsupported in delegated execution", method.name()),
        )),
        Method::GetTransactionCount => {
            let PointRead { address, block, .. } = PointRead::parse(method, params)?;
            let is_pending = block == BlockId::Pending;
            Ok(if is_pending { Plan::Builder(BuilderRead::Account { address }) } else { Plan::Query })
        }
        _ => Ok(Plan::Query),
    }
}

/// Methods without parameters.
fn constant(method: Method, view: &View<'_>, out: &mut Vec<u8>) {
    match method {
        Method::ChainId => json::quantity(view.settings.chain_id, out),
        Method::BlockNumber => json::quantity(view.latest_number(), out),
        Method::MaxPriorityFeePerGas => json::quantity(view.priority_fee_wei(), out),
        Method::GasPrice => {
            json::quantity(view.priority_fee_wei().saturating_add(u128::from(view.next_base_fee_wei())), out);
        }
        // No block holds blobs, so the price never leaves its floor (EIP-4844: MIN_BASE_FEE_PER_BLOB_GAS).
        Method::BlobBaseFee => json::quantity(1_u64, out),
        Method::NetVersion => json::string(&view.settings.chain_id.to_string(), out),
        Method::NetListening => json::boolean(true, out),
        Method::ClientVersion => json::string(&view.settings.client_version, out),
        Method::Accounts => out.extend_from_slice(b"[]"),
        Method::RpcModules => {
            let mut object = Object::begin(out);
            for name in ["debug", "eth", "net", "optimism", "rpc", "sequencer", "txpool", "web3"] {
                if name != "debug" || view.settings.debug_enabled {
                    object.text(name, "1.0");
                }
            }
            object.end();
        }
        // `eth_syncing`: what we serve is always the newest that exists.
        _ => json::boolean(false, out),
    }
}

fn filter(method: Method, params: &[u8]) -> Result<FilterCall, RpcError> {
    let arguments = Params::parse(params, if method == Method::NewBlockFilter { 0 } else { 1 })?;
    let ask = match method {
        Method::NewFilter => {
            let criteria = LogCriteria::parse(&arguments.required(0, "filter")?)?;
            return Ok(FilterCall::New(Arc::new(FilterKind::Logs(criteria))));
        }
        Method::NewBlockFilter => return Ok(FilterCall::New(Arc::new(FilterKind::Blocks))),
        Method::NewPendingTransactionFilter => {
            let full = arguments.optional(0, "full transactions").map(|argument| argument.boolean()).transpose()?;
            let full = full.unwrap_or(false);
            return Ok(FilterCall::New(Arc::new(FilterKind::PendingTransactions { full })));
        }
        Method::GetFilterChanges => FilterAsk::Changes,
        Method::GetFilterLogs => FilterAsk::Logs,
        _ => FilterAsk::Uninstall,
    };
    // An id of another form is that of another node: as unknown as one that is over, and clients make a new filter then.
    Ok(FilterCall::Ask { id: FilterId::parse(&arguments.required(0, "filter id")?.text()?), ask })
}

fn submit<'p>(method: Method, params: &'p [u8]) -> Result<SubmitRequest<'p>, RpcError> {
    let arguments_max = if method == Method::SendRawTransaction { 1 } else { 2 };
    let arguments = Params::parse(params, arguments_max)?;
    let mut request = SubmitRequest {
        raw_hex: arguments.required(0, "raw transaction")?.text()?,
        wait: SubmitWait::Admission,
        timeout_ms: 0,
        conditions: None,
    };
    match method {
        Method::SendRawTransactionSync => {
            request.wait = SubmitWait::Preconfirmation;
            let wanted = arguments.optional(1, "timeout").map(|argument| argument.quantity_u64()).transpose()?;
            request.timeout_ms = wanted.filter(|&ms| ms > 0).unwrap_or(SYNC_WAIT_MS_DEFAULT).min(SYNC_WAIT_MS_MAX);
        }
        Method::SendRawTransactionConditional => {
            if let Some(argument) = arguments.optional(1, "conditional options") {
                let value = argument.value()?;
                request.conditions = Some(Conditions::from_json(&value).map_err(|error| argument.invalid(error))?);
            }
        }
        _ => {}
    }
    Ok(request)
}

/// Balance, nonce, code or slot at a block.
pub struct PointRead {
    address: Address,
    /// Of `eth_getStorageAt` only.
    slot: U256,
    pub block: BlockId,
}

impl PointRead {
    /// # Errors
    /// -32602 naming the argument.
    pub fn parse(method: Method, params: &[u8]) -> Result<Self, RpcError> {
        let is_slot = method == Method::GetStorageAt;
        let arguments = Params::parse(params, if is_slot { 3 } else { 2 })?;
        let address = arguments.required(0, "address")?.address()?;
        let slot = if is_slot { arguments.required(1, "slot")?.slot()? } else { U256::ZERO };
        let block = arguments.optional(if is_slot { 2 } else { 1 }, "block");
        let block = block.map_or(Ok(BlockId::Latest), |argument| argument.block())?;
        Ok(Self { address, slot, block })
    }

    /// Writes what a state says.
    ///
    /// # Errors
    /// -32603 when the state cannot be read.
    pub fn answer(&self, method: Method, state: &Snapshot, out: &mut Vec<u8>) -> Result<(), RpcError> {
        if method == Method::GetStorageAt {
            let value = state.storage(&self.address, self.slot).map_err(state_error)?;
            json::data(&value.to_be_bytes::<32>(), out);
            return Ok(());
        }
        let account = state.account(&self.address).map_err(state_error)?;
        match method {
            Method::GetBalance => json::quantity(account.map_or(U256::ZERO, |account| account.balance_wei), out),
            Method::GetTransactionCount => json::quantity(account.map_or(0, |account| account.nonce), out),
            _ => {
                let code_hash = account.map_or(CODE_HASH_EMPTY, |account| account.code_hash);
                let is_empty = code_hash == CODE_HASH_EMPTY;
                let code = if is_empty { None } else { state.code(&code_hash).map_err(state_error)? };
                json::data(&code.unwrap_or_default(), out);
            }
        }
        Ok(())
    }
}

/// Of a state in memory at once, of `pending` by the builder core, of an older one by the query pool.
fn point_read<'p>(method: Method, params: &'p [u8], view: &View<'_>, out: &mut Vec<u8>) -> Result<Plan<'p>, RpcError> {
    let read = PointRead::parse(method, params)?;
    let PointRead { address, slot, block } = read;
    let sealed = match view.state_at(block) {
        Ok(StateAt::Sealed(sealed)) => sealed,
        Ok(StateAt::Pending) if method == Method::GetStorageAt => {
            return Ok(Plan::Builder(BuilderRead::Slot { address, slot }));
        }
        Ok(StateAt::Pending) => return Ok(Plan::Builder(BuilderRead::Account { address })),
        Err(_) if view.may_be_older(block) => return Ok(Plan::Query),
        Err(error) => return Err(error),
    };
    read.answer(method, &sealed.state, out)?;
    Ok(Plan::Reply)
}

fn state_error(error: StateError) -> RpcError {
    RpcError::internal(error.to_string())
}

fn subscribe(params: &[u8]) -> Result<SubscriptionKind, RpcError> {
    let arguments = Params::parse(params, 2)?;
    let kind = arguments.required(0, "subscription")?;
    let option = arguments.optional(1, "options");
    match &*kind.text()? {
        "newHeads" => Ok(SubscriptionKind::NewHeads),
        "logs" => {
            let filter = option.map(|argument| LogFilter::parse(&argument.object()?)).transpose()?;
            Ok(SubscriptionKind::Logs(Box::new(filter.unwrap_or_default())))
        }
        "newPendingTransactions" => {
            let full = option.map(|argument| argument.boolean()).transpose()?.unwrap_or(false);
            Ok(SubscriptionKind::NewPendingTransactions { full })
        }
        "sequencer_preconfirmations" => Ok(SubscriptionKind::Preconfirmations),
        other => Err(kind.invalid(format!("no \"{other:.80}\" subscription"))),
    }
}

/// Writes what the builder core answered as the result of `method`.
///
/// Runs on: ingress shard, after the answer's gate is durable.
/// Errors:  -32603 when the answer does not fit the method: the shard mixed up its tokens.
pub fn render_builder_answer(method: Method, answer: &BuilderAnswer, out: &mut Vec<u8>) -> Result<Rendered, RpcError> {
    match (method, answer) {
        (Method::GetBalance, BuilderAnswer::Account { balance_wei, .. }) => json::quantity(*balance_wei, out),
        (Method::GetTransactionCount, BuilderAnswer::Account { pool_nonce, .. }) => json::quantity(*pool_nonce, out),
        (Method::GetCode, BuilderAnswer::Account { code, .. }) => json::data(code, out),
        (Method::GetTransactionCount, BuilderAnswer::PendingNonce(Some(nonce))) => json::quantity(*nonce, out),
        (_, BuilderAnswer::PendingNonce(_)) => return Ok(Rendered::AskQuery),
        (Method::GetStorageAt, BuilderAnswer::Slot(value)) => json::data(&value.to_be_bytes::<32>(), out),
        (Method::GetTransactionByHash, BuilderAnswer::Transaction(Some(pooled))) => {
            let tx = TxView { raw: &pooled.raw, hash: keccak256(&pooled.raw), sender: pooled.sender };
            encode::transaction(&tx, None, out)?;
        }
        (Method::GetRawTransactionByHash, BuilderAnswer::Transaction(Some(pooled))) => json::data(&pooled.raw, out),
        (Method::GetTransactionStatus, BuilderAnswer::Status(Some(status))) => live_status(status, out),
        (Method::GetTransactionByHash | Method::GetRawTransactionByHash, BuilderAnswer::Transaction(None))
        | (Method::GetTransactionStatus, BuilderAnswer::Status(None)) => return Ok(Rendered::AskQuery),
        (Method::TxpoolStatus, BuilderAnswer::PoolStatus { ready_count, queued_count, .. }) => {
            let mut object = Object::begin(out);
            object.quantity("pending", *ready_count);
            object.quantity("queued", *queued_count);
            object.end();
        }
        (_, BuilderAnswer::PoolTooLarge { transactions, bytes }) => {
            return Err(RpcError::limit(format!(
                "the pool holds more than one answer shows: {transactions} transactions, limit {POOL_CONTENT_TXS_MAX}, {bytes} bytes, limit {POOL_CONTENT_BYTES_MAX}: ask for one sender's (txpool_contentFrom)"
            )));
        }
        _ => return Err(RpcError::internal(format!("unexpected answer to {}", method.name()))),
    }
    Ok(Rendered::Done)
}

fn live_status(status: &LiveStatus, out: &mut Vec<u8>) {
    let ms = |unix_ns: u64| unix_ns / 1_000_000;
    let mut object = Object::begin(out);
    let (name, accepted_unix_ns) = match *status {
        LiveStatus::Ready { accepted_unix_ns } => ("ready", accepted_unix_ns),
        LiveStatus::Queued { accepted_unix_ns } => ("queued", accepted_unix_ns),
        LiveStatus::Conditional { accepted_unix_ns } => ("conditional", accepted_unix_ns),
        LiveStatus::Placed { block_number, index, accepted_unix_ns, preconfirmed_unix_ns } => {
            object.quantity("blockNumber", block_number);
            object.quantity("transactionIndex", u64::from(index));
            object.quantity("preconfirmedAtMs", ms(preconfirmed_unix_ns));
            ("preconfirmed", accepted_unix_ns)
        }
    };
    object.text("state", name);
    object.quantity("acceptedAtMs", ms(accepted_unix_ns));
    object.end();
}
