//! With the gate frozen, no method shows anything that is not durable: every method over heads whose newest block is sealed and not durable,
//! over a block behind it, and over a chain database that has more than may be shown.
//!
//! The oracle is a second run: the same reads on heads that never had the later part. Whatever a client can tell apart must wait.

use std::sync::Arc;

use alloy_primitives::{Bytes, Log};
use serde_json::Value;

use super::fixture::{
    MemoryBlock, MemoryHistory, MemoryTx, account, context_of, filter_reply, heads, memory_block, memory_tx,
    open_block, place, query_reply, seal, settings, state,
};
use crate::builder::block::{Heads, OpenBlock, StateDiff, next_base_fee_wei};
use crate::primitives::{Address, B256, Sequence, ShardId, U256};
use crate::rpc::error::RpcError;
use crate::rpc::filter::LogCriteria;
use crate::rpc::log_filter::LogFilter;
use crate::rpc::params::BlockId;
use crate::rpc::{
    Class, ConnectionKey, FilterKind, FilterRead, Method, Plan, Position, SubscriptionKind, Subscriptions, View, plan,
};
use crate::state::Snapshot;

const HOLDER: Address = Address::repeat_byte(0xaa);
const TOKEN: Address = Address::repeat_byte(0x70);
const CALLER: Address = Address::repeat_byte(0xca);
/// How far the journal is durable.
const FROZEN: u64 = 20;
/// Of `HOLDER`: after the durable blocks, and at each step that must not be shown.
const BALANCE_SHOWN: u64 = 0x0dd_0001;
const BALANCE_HIDDEN: u64 = 0x0dd_5ec3;

/// Blocks 0 and 1 are durable. What is behind them is durable up to some entry of block 2.
struct Chain {
    blocks: Vec<MemoryBlock>,
    shown: Snapshot,
    hidden: Snapshot,
}

/// Which block is cut by the gate: a sealed one, or the open one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Sealed,
    Open,
}

fn log(topic: u8) -> Log {
    Log::new_unchecked(TOKEN, vec![B256::repeat_byte(topic)], Bytes::new())
}

fn with_diff(mut tx: MemoryTx, balance_wei: u64) -> MemoryTx {
    let code_hash = crate::state::CODE_HASH_EMPTY;
    tx.diffs = vec![StateDiff::Account { address: HOLDER, nonce: 7, balance_wei: U256::from(balance_wei), code_hash }];
    tx
}

/// Each block full enough that the base fee moves.
fn chain() -> Chain {
    let genesis = memory_block(None, Vec::new());
    let mut blocks = vec![genesis];
    for number in 1..=3_u64 {
        let txs = (0..3).map(|index| {
            let topic = (0x10 * number + index) as u8;
            let tx = memory_tx(100 * number + index, TOKEN, vec![log(topic)]);
            with_diff(tx, if number == 2 && index == 0 { BALANCE_SHOWN + 1 } else { BALANCE_HIDDEN })
        });
        let parent = blocks.last().expect("there is a parent");
        let base_fee_wei = next_base_fee_wei(&parent.header);
        let mut block = memory_block(Some(parent), txs.collect());
        block.header.base_fee_per_gas = Some(base_fee_wei);
        block.header.gas_used = if number == 2 { 29_999_999 } else { 21_000 * number };
        block.hash = block.header.hash_slow();
        blocks.push(block);
    }
    let holder = |balance_wei| state(vec![account(HOLDER, balance_wei, &[], &[(0, balance_wei)])]);
    Chain { blocks, shown: holder(BALANCE_SHOWN), hidden: holder(BALANCE_HIDDEN) }
}

impl Chain {
    /// Block 2: its first entry is durable, the others are not when `is_whole`, and missing else.
    fn second(&self, is_whole: bool) -> Arc<OpenBlock> {
        let second = &self.blocks[2];
        let (mut writer, open) = open_block(&second.header, &second.txs[..1], FROZEN);
        if is_whole {
            for (tx, sequence) in second.txs[1..].iter().zip(FROZEN + 1..) {
                place(&mut writer, &context_of(&second.header), tx, sequence);
            }
        }
        open
    }

    /// What would be there if nothing had happened after the gate froze.
    fn durable_heads(&self) -> Heads {
        heads(&self.blocks[..2], &self.shown, Some(self.second(false)))
    }

    fn heads(&self, cut: Cut) -> Heads {
        let durable = heads(&self.blocks[..2], &self.shown, None);
        if cut == Cut::Open {
            return Heads::new(durable.recent, Some(self.second(true)));
        }
        let sealed = seal(&self.blocks[2], self.second(true), &self.hidden, FROZEN + 4, 0);
        let (_, open) = open_block(&self.blocks[3].header, &self.blocks[3].txs, FROZEN + 6);
        Heads::new(durable.recent.iter().cloned().chain([sealed]).collect(), Some(open))
    }

    /// Transactions that are not durable, and the hash of a block that is not.
    fn hidden_hashes(&self) -> Vec<B256> {
        let late = self.blocks[2].txs[1..].iter().chain(&self.blocks[3].txs);
        late.map(|tx| tx.hash).chain([self.blocks[2].hash, self.blocks[3].hash]).collect()
    }
}

/// One way to answer.
#[derive(Debug, PartialEq)]
enum Answer {
    /// Leaves at once.
    Now(Result<Value, RpcError>),
    /// Waits at the gate, whatever it says.
    Waits,
    /// The builder core's, whose every answer has the gate of its newest record.
    Builder,
    Nothing,
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("results are JSON")
}

fn ask(heads: &Heads, history: &MemoryHistory, method: Method, params: &str) -> Answer {
    let settings = settings();
    let view = View { heads, durable: Sequence(FROZEN), settings: &settings };
    let mut out = Vec::new();
    match plan(method, params.as_bytes(), &view, &mut out) {
        Ok(Plan::Reply) => Answer::Now(Ok(json_of(&out))),
        Ok(Plan::Builder(_)) if method.class() == Class::Inline => Answer::Builder,
        // What the builder core does not hold any more is asked of the query pool.
        Ok(Plan::Builder(_)) if method == Method::TxpoolStatus || method.is_pool_content() => Answer::Builder,
        Ok(Plan::Builder(_) | Plan::Query) => {
            let reply = query_reply(heads, history, FROZEN, method, params);
            if reply.gate > Sequence(FROZEN) {
                return Answer::Waits;
            }
            Answer::Now(reply.outcome.map(|json| json_of(&json)))
        }
        Ok(Plan::ExecutionStatus) => {
            crate::rpc::render_execution_status(
                &crate::engine_api::status::ExecutionStatus::new(crate::engine_api::status::Condition::Connecting),
                &crate::engine_api::forwarding::ForwardingStatus::default(),
                &view,
                &mut out,
            );
            Answer::Now(Ok(json_of(&out)))
        }
        Ok(Plan::Submit(_) | Plan::Subscribe(_) | Plan::Unsubscribe(_) | Plan::Filter(_)) => Answer::Nothing,
        Err(error) => Answer::Now(Err(error)),
    }
}

const BLOCKS: [&str; 10] = ["latest", "pending", "safe", "finalized", "earliest", "0x0", "0x1", "0x2", "0x3", "0x4"];
const INDICES: [&str; 3] = ["0x0", "0x1", "0x2"];

/// Everything that names the part that is not durable, in every way.
impl Chain {
    fn with_blocks(&self, before: &str, after: &str) -> Vec<String> {
        BLOCKS.map(|block| format!("[{before}\"{block}\"{after}]")).to_vec()
    }

    fn with_hashes(&self, after: &str) -> Vec<String> {
        self.blocks.iter().map(|block| format!("[\"{}\"{after}]", block.hash)).collect()
    }

    fn states(&self, before: &str, after: &str) -> Vec<String> {
        let by_hash = self.blocks.iter().map(|block| format!("[{before}{{\"blockHash\":\"{}\"}}{after}]", block.hash));
        self.with_blocks(before, after).into_iter().chain(by_hash).collect()
    }

    fn by_transaction(&self) -> Vec<String> {
        let all = self.blocks.iter().flat_map(|block| block.txs.iter().map(|tx| tx.hash));
        all.chain([B256::repeat_byte(0x99)]).map(|hash| format!("[\"{hash}\"]")).collect()
    }

    /// Calls that answer with the balance of `HOLDER`, the base fee, the block's number and the hash of block 2, by code that they override.
    fn calls(&self) -> Vec<String> {
        let balance = format!("73{}31", alloy_primitives::hex::encode(HOLDER));
        let call = |opcodes: &str| {
            let code = format!(",{{\"{TOKEN}\":{{\"code\":\"0x{opcodes}5f5260205ff3\"}}}}");
            self.states(&format!("{{\"to\":\"{TOKEN}\"}},"), &code)
        };
        [balance.as_str(), "48", "43", "600240"].into_iter().flat_map(call).collect()
    }

    /// A slot and an account that depend on the balance of `HOLDER`: SLOAD of it, BALANCE of it as an address.
    fn access_lists(&self) -> Vec<String> {
        let code = format!("73{}318054503100", alloy_primitives::hex::encode(HOLDER));
        let overridden = format!(
            ",{{\"{TOKEN}\":{{\"code\":\"0x{code}\"}},\"{CALLER}\":{{\"balance\":\"0xffffffffffffffffffff\"}}}}"
        );
        self.states(&format!("{{\"from\":\"{CALLER}\",\"to\":\"{TOKEN}\"}},"), &overridden)
    }

    fn log_filters(&self) -> Vec<String> {
        let spans = BLOCKS.iter().flat_map(|from| {
            BLOCKS.iter().map(move |to| format!("[{{\"fromBlock\":\"{from}\",\"toBlock\":\"{to}\"}}]"))
        });
        spans.chain(self.states("", "").into_iter().filter(|row| row.contains("blockHash"))).collect()
    }
}

/// Parameters of every method.
fn rows(method: Method, chain: &Chain) -> Vec<String> {
    let address = format!("\"{HOLDER}\",");
    match method {
        Method::SendRawTransaction | Method::SendRawTransactionSync | Method::SendRawTransactionConditional => {
            vec!["[\"0x\"]".to_owned()]
        }
        Method::ChainId
        | Method::BlockNumber
        | Method::GasPrice
        | Method::MaxPriorityFeePerGas
        | Method::BlobBaseFee
        | Method::Syncing
        | Method::ExecutionStatus
        | Method::Accounts
        | Method::NetVersion
        | Method::NetListening
        | Method::ClientVersion
        | Method::RpcModules
        | Method::TxpoolStatus
        | Method::TxpoolContent
        | Method::TxpoolInspect => vec!["[]".to_owned()],
        Method::TxpoolContentFrom => vec![format!("[\"{HOLDER}\"]")],
        Method::GetBalance | Method::GetTransactionCount | Method::GetCode => chain.states(&address, ""),
        Method::GetStorageAt => chain.states(&format!("{address}\"0x0\","), ""),
        Method::GetProof => chain.states(&format!("{address}[\"0x0\"],"), ""),
        Method::GetTransactionByHash
        | Method::GetRawTransactionByHash
        | Method::GetTransactionReceipt
        | Method::GetTransactionStatus
        | Method::DebugGetRawTransaction => chain.by_transaction(),
        Method::Call => chain.calls(),
        // The same code, with its own gas: what it reads is in the list.
        Method::CreateAccessList => chain.access_lists(),
        Method::EstimateGas => {
            let transfer = format!("{{\"from\":\"{HOLDER}\",\"to\":\"{TOKEN}\",\"value\":\"{BALANCE_HIDDEN:#x}\"}},");
            chain.states(&transfer, "")
        }
        Method::FeeHistory => chain.with_blocks("\"0x4\",", ",[0,50,100]"),
        Method::GetLogs => chain.log_filters(),
        Method::GetBlockByNumber => {
            chain.with_blocks("", ",true").into_iter().chain(chain.with_blocks("", ",false")).collect()
        }
        Method::GetBlockByHash => chain.with_hashes(",true"),
        Method::GetBlockReceipts
        | Method::DebugGetRawBlock
        | Method::DebugGetRawHeader
        | Method::DebugGetRawReceipts
        | Method::DebugExecutionWitness
        | Method::DebugGenerateBlockWitness => chain.states("", "").into_iter().chain(chain.with_hashes("")).collect(),
        Method::GetBlockTransactionCountByNumber | Method::GetUncleCountByBlockNumber => chain.with_blocks("", ""),
        Method::GetBlockTransactionCountByHash | Method::GetUncleCountByBlockHash => chain.with_hashes(""),
        Method::GetTransactionByBlockHashAndIndex => {
            INDICES.iter().flat_map(|index| chain.with_hashes(&format!(",\"{index}\""))).collect()
        }
        Method::GetTransactionByBlockNumberAndIndex => {
            INDICES.iter().flat_map(|index| chain.with_blocks("", &format!(",\"{index}\""))).collect()
        }
        Method::DebugGenerateWitness => vec!["[\"0x00\"]".to_owned()],
        Method::Sha3 => vec!["[\"0x00\"]".to_owned()],
        _ => rows_of_others(method),
    }
}

/// Parameters of what depends on no block: the plan refuses it, hands it on, or others see to it that it shows nothing early.
fn rows_of_others(method: Method) -> Vec<String> {
    match method {
        // The execution client answers, and knows only what is durable here.
        Method::GetHeaderByNumber
        | Method::GetHeaderByHash
        | Method::GetRawTransactionByBlockHashAndIndex
        | Method::GetRawTransactionByBlockNumberAndIndex => vec!["[]".to_owned()],
        // The `l1` thread shows only blocks that are durable.
        Method::SettlementStatus | Method::GetBatchByBlock | Method::SyncStatus => vec!["[]".to_owned()],
        // What pollers are told: below.
        Method::NewFilter => vec!["[{}]".to_owned()],
        Method::NewBlockFilter | Method::NewPendingTransactionFilter => vec!["[]".to_owned()],
        Method::GetFilterChanges | Method::GetFilterLogs | Method::UninstallFilter => {
            vec![format!("[\"0x{}\"]", "00".repeat(16))]
        }
        // What subscribers hear: below.
        Method::Subscribe => vec!["[\"newHeads\"]".to_owned()],
        Method::Unsubscribe => vec!["[\"0x0000000000000001\"]".to_owned()],
        other => panic!("{} has no row", other.name()),
    }
}

#[test]
fn no_method_shows_what_is_not_durable() {
    let chain = chain();
    let durable = chain.durable_heads();
    let before = MemoryHistory { blocks: chain.blocks[..2].to_vec() };
    // The chain thread appends only what is durable, so the second history cannot be. A reader must not count on that: what it reads
    // of the database may be newer than the sequence that it read before.
    let histories =
        [MemoryHistory { blocks: chain.blocks[..2].to_vec() }, MemoryHistory { blocks: chain.blocks[..3].to_vec() }];
    let balance = format!("{BALANCE_HIDDEN:x}");
    let mut waiting_count = 0;
    for &method in Method::ALL {
        let rows = rows(method, &chain);
        assert!(!rows.is_empty(), "{} has no row", method.name());
        for params in rows {
            let expected = ask(&durable, &before, method, &params);
            for (cut, history) in
                [(Cut::Sealed, &histories[0]), (Cut::Sealed, &histories[1]), (Cut::Open, &histories[0])]
            {
                let what = || format!("{} {params}, the gate cuts the block that is {cut:?}", method.name());
                let found = ask(&chain.heads(cut), history, method, &params);
                if found == Answer::Waits {
                    waiting_count += 1;
                    continue;
                }
                let Answer::Now(outcome) = &found else { continue };
                let text = format!("{outcome:?}");
                // An error that names what was asked for shows nothing.
                let hidden = chain.hidden_hashes().into_iter().map(alloy_primitives::hex::encode);
                for hash in hidden.filter(|hash| !params.contains(hash.as_str())) {
                    assert!(!text.contains(&hash), "{}: {text}", what());
                }
                assert!(!text.contains(&balance), "{}: {text}", what());
                assert_eq!(found, expected, "{}", what());
            }
        }
    }
    assert!(waiting_count > 0, "what waits at the gate was asked for, too");
}

#[test]
fn subscribers_hear_nothing_that_is_not_durable() {
    let chain = chain();
    let key = ConnectionKey { connection: 1, generation: 1 };
    for cut in [Cut::Sealed, Cut::Open] {
        let mut subscriptions = Subscriptions::new(ShardId(0));
        let before = heads(&chain.blocks[..1], &chain.shown, None);
        let kinds = [
            SubscriptionKind::NewHeads,
            SubscriptionKind::Logs(Box::default()),
            SubscriptionKind::NewPendingTransactions { full: true },
            SubscriptionKind::NewPendingTransactions { full: false },
            SubscriptionKind::Preconfirmations,
        ];
        for kind in kinds {
            subscriptions.add(key, kind, &before, Sequence(1)).expect("room");
        }
        let heads = chain.heads(cut);
        let mut heard = String::new();
        let mut hear = |_: ConnectionKey, bytes: &[u8]| heard.push_str(&String::from_utf8_lossy(bytes));
        subscriptions.announce(&heads, Sequence(FROZEN), &mut hear);
        assert!(
            heard.contains(&chain.blocks[1].hash.to_string())
                && heard.contains(&chain.blocks[2].txs[0].hash.to_string())
        );
        for hash in chain.hidden_hashes() {
            assert!(!heard.contains(&hash.to_string()), "{cut:?}: {heard}");
        }
        assert!(!subscriptions.has_news(&heads, Sequence(FROZEN)));
        assert_eq!(subscriptions.awaited(&heads, Sequence(FROZEN)), Some(Sequence(FROZEN + 1)));
    }
}

/// The first that no filter was told, in each way to look: from the start of the chain, and from the block that is not durable.
#[test]
fn pollers_are_told_nothing_that_is_not_durable() {
    let chain = chain();
    let criteria = |from, to| LogCriteria { filter: LogFilter::default(), from, to };
    let kinds = [
        FilterKind::Blocks,
        FilterKind::PendingTransactions { full: true },
        FilterKind::PendingTransactions { full: false },
        FilterKind::Logs(criteria(BlockId::Latest, BlockId::Latest)),
        FilterKind::Logs(criteria(BlockId::Earliest, BlockId::Number(9))),
        FilterKind::Logs(criteria(BlockId::Number(2), BlockId::Latest)),
    ];
    let history = MemoryHistory { blocks: chain.blocks[..3].to_vec() };
    let starts = [None, Some((0, 0)), Some((2, 0)), Some((2, 1)), Some((3, 0)), Some((9, 9))];
    let mut heard = String::new();
    for (kind, from, cut) in kinds
        .iter()
        .flat_map(|kind| starts.iter().map(move |from| (kind, from)))
        .flat_map(|(kind, from)| [Cut::Sealed, Cut::Open].map(|cut| (kind, from, cut)))
    {
        let from = from.map(|(number, index)| Position { number, index, rewinds: 0 });
        if from.is_none() && !matches!(kind, FilterKind::Logs(_)) {
            continue;
        }
        let read = FilterRead { kind: Arc::new(kind.clone()), from };
        let reply = filter_reply(&chain.heads(cut), &history, FROZEN, read);
        assert!(reply.gate <= Sequence(FROZEN), "{kind:?} {from:?} waits");
        let Ok(json) = reply.outcome else { continue };
        let json = String::from_utf8(json).expect("results are text");
        for hash in chain.hidden_hashes() {
            assert!(!json.contains(&alloy_primitives::hex::encode(hash)), "{kind:?} {from:?} {cut:?}: {json}");
        }
        // Where the next poll starts is not behind what comes next.
        let bound = match kind {
            FilterKind::PendingTransactions { .. } => Position { number: 2, index: 1, rewinds: 0 },
            _ => Position { number: 2, index: 0, rewinds: 0 },
        };
        let bound = bound.max(from.filter(|from| from.number <= 2).unwrap_or_default());
        assert!(reply.told.is_none_or(|told| told <= bound), "{kind:?} {from:?} {cut:?}: {:?}", reply.told);
        heard.push_str(&json);
    }
    for hash in [chain.blocks[1].hash, chain.blocks[2].txs[0].hash] {
        assert!(heard.contains(&hash.to_string()), "what is durable is told");
    }
}

#[test]
fn without_a_durable_block_in_memory_the_oldest_is_shown() {
    let chain = chain();
    let sealed = |number: usize, sequence| seal(&chain.blocks[number], chain.second(true), &chain.hidden, sequence, 0);
    let heads = Heads::new([sealed(1, FROZEN + 1), sealed(2, FROZEN + 2)].into(), None);
    let settings = settings();
    assert_eq!(View { heads: &heads, durable: Sequence(FROZEN), settings: &settings }.latest_number(), 1);
    // A query's answer can wait for it.
    let none = MemoryHistory { blocks: Vec::new() };
    let reply = query_reply(&heads, &none, FROZEN, Method::GetBlockByNumber, "[\"latest\",false]");
    assert_eq!(reply.gate, Sequence(FROZEN + 1));
}
