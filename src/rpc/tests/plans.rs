//! Which thread answers, what a shard answers itself, and what is refused.

use serde_json::{Value, json};

use super::fixture::{MemoryHistory, account, heads, memory_block, memory_tx, open_block, query, settings, state};
use crate::builder::block::Heads;
use crate::mempool::{EndState, Impossible, Reject};
use crate::messages::{BuilderAnswer, BuilderRead, LiveStatus, PooledTx, Refusal, SubmitWait, Unready};
use crate::primitives::{Address, B256, Bytes, Sequence, U256};
use crate::rpc::params::BlockId;
use crate::rpc::{
    FilterCall, Method, Plan, Rendered, View, end_error, plan, refusal_error, render_builder_answer,
    render_preconfirmed, unready_error,
};

const HOLDER: Address = Address::repeat_byte(0xaa);

/// Blocks 3 to 5 in memory, 5 not durable before sequence 9.
fn chain() -> Heads {
    let mut blocks = vec![memory_block(None, Vec::new())];
    for _ in 0..5 {
        blocks.push(memory_block(blocks.last(), Vec::new()));
    }
    let state = state(vec![account(HOLDER, 500, &[0x60, 0x01], &[(0, 42)])]);
    let mut heads = heads(&blocks[3..5], &state, None);
    let (_, open) = open_block(&blocks[5].header, &[], 1);
    let newest = super::fixture::seal(&blocks[5], open, &state, 9, 0);
    heads = Heads::new(heads.recent.iter().cloned().chain([newest]).collect(), None);
    heads
}

/// The plan in words; a reply as JSON.
fn outcome(method: &str, params: &str, durable: u64) -> String {
    let (heads, settings) = (chain(), settings());
    let view = View { heads: &heads, durable: Sequence(durable), settings: &settings };
    let method = Method::from_name(method.as_bytes()).expect("the row names a method");
    let mut out = Vec::new();
    match plan(method, params.as_bytes(), &view, &mut out) {
        Ok(Plan::Reply) => serde_json::from_slice::<Value>(&out).expect("a reply is JSON").to_string(),
        Ok(Plan::Builder(BuilderRead::Account { .. })) => "builder account".to_owned(),
        Ok(Plan::Builder(BuilderRead::Slot { slot, .. })) => format!("builder slot {slot}"),
        Ok(Plan::Builder(read)) => format!("builder {read:?}").split_whitespace().take(2).collect::<Vec<_>>().join(" "),
        Ok(Plan::Query) => "query".to_owned(),
        Ok(Plan::ExecutionStatus) => "execution status".to_owned(),
        Ok(Plan::Submit(request)) => format!(
            "submit {} {:?} {} {}",
            request.raw_hex,
            request.wait,
            request.timeout_ms,
            request.conditions.is_some()
        ),
        Ok(Plan::Subscribe(kind)) => format!("{kind:?}"),
        Ok(Plan::Unsubscribe(id)) => format!("unsubscribe of shard {}", id.shard().0),
        Ok(Plan::Filter(FilterCall::New(kind))) => format!("new filter {kind:?}"),
        Ok(Plan::Filter(FilterCall::Ask { id, ask })) => {
            format!("filter of shard {:?}: {ask:?}", id.map(|id| id.shard().0))
        }
        Err(error) => format!("{} {}", error.code, error.message),
    }
}

#[test]
fn blocks_without_a_verdict_are_neither_latest_nor_pending() {
    let (newest, settings) = (chain(), settings());
    let heads = Heads::checked(std::sync::Arc::clone(&newest.recent), None, 3);
    let view = View { heads: &heads, durable: Sequence(9), settings: &settings };
    assert_eq!((view.latest_number(), view.tip().header.number), (3, 5));
    assert_eq!(view.number(BlockId::Pending), Ok(6));
    assert_eq!(view.number(BlockId::Safe), Ok(3));
    assert!(view.recent(3).is_some() && view.recent(4).is_none());
    let hidden = newest.recent[1].hash;
    assert!(view.recent_by_hash(&hidden).is_none());
    assert!(view.state_at(BlockId::Number(4)).is_err());
    // What waits for the journal waits, whoever has checked it.
    let all = Heads::checked(std::sync::Arc::clone(&newest.recent), None, u64::MAX);
    let view = View { heads: &all, durable: Sequence(8), settings: &settings };
    assert_eq!((view.latest_number(), view.tip().header.number), (4, 4));
    // Memory that does not reach down to what was checked shows its oldest block.
    assert_eq!(Heads::checked(std::sync::Arc::clone(&newest.recent), None, 1).latest.header.number, 3);
}

#[track_caller]
fn check(method: &str, params: &str, expected: &str) {
    let found = outcome(method, params, 9);
    assert!(found.starts_with(expected), "{method}{params}: {found}");
}

#[test]
fn constants() {
    check("eth_chainId", "", "\"0x539\"");
    check("eth_chainId", "[1]", "-32602 too many arguments, want at most 0");
    check("net_version", "[]", "\"1337\"");
    check("net_listening", "[]", "true");
    check("eth_syncing", "[]", "false");
    check("eth_accounts", "[]", "[]");
    check("eth_blockNumber", "[]", "\"0x5\"");
    check("eth_maxPriorityFeePerGas", "[]", "\"0x1\"");
    check("web3_clientVersion", "[]", "\"native-sequencer/test\"");
    check("web3_sha3", "[\"0x\"]", "\"0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470\"");
    check("web3_sha3", "[]", "-32602 missing value for required argument 0 (data)");
    check("rpc_modules", "[]", "{\"debug\":\"1.0\",\"eth\":\"1.0\"");
    assert_eq!(outcome("eth_blockNumber", "[]", 8), "\"0x4\"", "block 5 is not durable yet");
}

#[test]
fn point_reads() {
    let with = |rest: &str| format!("[\"{HOLDER}\"{rest}]");
    check("eth_getBalance", &with(""), "\"0x1f4\"");
    check("eth_getBalance", &with(",\"0x4\""), "\"0x1f4\"");
    check("eth_getBalance", &with(",\"pending\""), "builder account");
    check("eth_getBalance", &with(",{\"blockNumber\":\"pending\"}"), "builder account");
    check("eth_getBalance", &with(",\"earliest\""), "query");
    check("eth_getBalance", &with(&format!(",{{\"blockHash\":\"{}\"}}", B256::ZERO)), "query");
    check("eth_getBalance", &with(",\"0x6\""), "-32000 header not found");
    check("eth_getBalance", &with(",\"latest\",1"), "-32602 too many arguments");
    check("eth_getBalance", "[\"0xaa\"]", "-32602 invalid argument 0 (address): invalid value \"0xaa\"");
    check("eth_getBalance", &format!("[\"{}\"]", Address::ZERO), "\"0x0\"");
    check("eth_getTransactionCount", &with(",\"safe\""), "\"0x0\"");
    check("eth_getCode", &with(",\"latest\""), "\"0x6001\"");
    check("eth_getCode", &format!("[\"{}\"]", Address::ZERO), "\"0x\"");
    check("eth_getStorageAt", &with(",\"0x0\",\"latest\""), &format!("\"0x{:064x}\"", 42));
    check("eth_getStorageAt", &with(",\"0x1\""), &format!("\"0x{:064x}\"", 0));
    check("eth_getStorageAt", &with(",\"0x7\",\"pending\""), "builder slot 7");
    check("eth_getStorageAt", &with(""), "-32602 missing value for required argument 1 (slot)");
    assert!(outcome("eth_getBalance", &with(",\"0x5\""), 8).starts_with("-32000 header not found"));
}

#[test]
fn others() {
    let hash = B256::repeat_byte(1);
    check("eth_sendRawTransaction", "[\"0x02\"]", "submit 0x02 Admission 0 false");
    check("eth_sendRawTransaction", "[]", "-32602 missing value for required argument 0 (raw transaction)");
    check("eth_sendRawTransaction", "[2]", "-32602 invalid argument 0 (raw transaction): not a string");
    check("eth_sendRawTransactionSync", "[\"0x02\"]", "submit 0x02 Preconfirmation 2000 false");
    check("eth_sendRawTransactionSync", "[\"0x02\",\"0x64\"]", "submit 0x02 Preconfirmation 100 false");
    check("eth_sendRawTransactionSync", "[\"0x02\",99999999]", "submit 0x02 Preconfirmation 30000 false");
    check("eth_sendRawTransactionConditional", "[\"0x02\",{\"blockNumberMin\":1}]", "submit 0x02 Admission 0 true");
    check(
        "eth_sendRawTransactionConditional",
        "[\"0x02\",{\"nonsense\":1}]",
        "-32602 invalid argument 1 (conditional options)",
    );
    check("eth_getTransactionByHash", &format!("[\"{hash}\"]"), "builder Transaction");
    check("sequencer_executionStatus", "[]", "execution status");
    check("sequencer_executionStatus", "[1]", "-32602");
    check("sequencer_getTransactionStatus", &format!("[\"{hash}\"]"), "builder Status");
    check("txpool_status", "", "builder PoolStatus");
    check("eth_getTransactionReceipt", "[]", "query");
    check("eth_call", "[]", "query");
    check("debug_getRawBlock", "[]", "query");
    check("eth_subscribe", "[\"newHeads\"]", "NewHeads");
    check("eth_subscribe", "[\"logs\",{}]", "Logs");
    check("eth_subscribe", "[\"logs\",{\"address\":1}]", "-32602 invalid argument 1 (options), address");
    check("eth_subscribe", "[\"newPendingTransactions\",true]", "NewPendingTransactions { full: true }");
    check("eth_subscribe", "[\"sequencer_preconfirmations\"]", "Preconfirmations");
    check("eth_subscribe", "[\"syncing\"]", "-32602 invalid argument 0 (subscription): no \"syncing\" subscription");
    check("eth_unsubscribe", "[\"0x0007000000000001\"]", "unsubscribe of shard 7");
    check("eth_unsubscribe", "[\"0x07\"]", "-32602 invalid argument 0 (subscription id)");
    check("eth_newBlockFilter", "[]", "new filter Blocks");
    check("eth_newBlockFilter", "[1]", "-32602 too many arguments");
    check("eth_newPendingTransactionFilter", "[true]", "new filter PendingTransactions { full: true }");
    check("eth_newPendingTransactionFilter", "", "new filter PendingTransactions { full: false }");
    check("eth_newFilter", "[{}]", "new filter Logs");
    check("eth_newFilter", "[]", "-32602 missing value for required argument 0 (filter)");
    check("eth_newFilter", "[{\"address\":1}]", "-32602 invalid argument 0 (filter), address");
    let id = "[\"0x800007000000000000000000000000ff\"]";
    check("eth_getFilterChanges", id, "filter of shard Some(7): Changes");
    check("eth_getFilterLogs", id, "filter of shard Some(7): Logs");
    check("eth_uninstallFilter", id, "filter of shard Some(7): Uninstall");
    check("eth_getFilterChanges", "[\"0x1\"]", "filter of shard None: Changes");
    check("eth_getFilterChanges", "[1]", "-32602 invalid argument 0 (filter id)");
    check("txpool_content", "", "builder PoolContent");
    check("txpool_inspect", "[]", "builder PoolContent");
    check("txpool_contentFrom", &format!("[\"{HOLDER}\"]"), "builder PoolContent");
    check("txpool_contentFrom", "[]", "-32602 missing value for required argument 0 (address)");
    check("eth_createAccessList", "[]", "query");
}

#[test]
fn the_content_of_the_pool_can_be_off() {
    let (heads, mut settings) = (chain(), settings());
    settings.pool_content_enabled = false;
    let view = View { heads: &heads, durable: Sequence(9), settings: &settings };
    for method in [Method::TxpoolContent, Method::TxpoolContentFrom, Method::TxpoolInspect] {
        let error = plan(method, b"[]", &view, &mut Vec::new()).expect_err("it is off");
        assert_eq!(error.code, -32601);
    }
    assert!(plan(Method::TxpoolStatus, b"[]", &view, &mut Vec::new()).is_ok());
}

#[test]
fn debug_methods_can_be_off() {
    let (heads, mut settings) = (chain(), settings());
    settings.debug_enabled = false;
    let view = View { heads: &heads, durable: Sequence(9), settings: &settings };
    let error = plan(Method::DebugGetRawBlock, b"[]", &view, &mut Vec::new()).expect_err("it is off");
    assert_eq!(error.code, -32601);
}

#[test]
fn builder_answers_are_rendered() {
    let check = |method: Method, answer: BuilderAnswer, expected: Result<Value, Rendered>| {
        let mut out = Vec::new();
        let rendered = render_builder_answer(method, &answer, &mut out).expect("the answer fits");
        match expected {
            Ok(json) => assert_eq!(serde_json::from_slice::<Value>(&out).expect("JSON"), json),
            Err(expected) => assert_eq!((rendered, out.len()), (expected, 0)),
        }
    };
    let account = || BuilderAnswer::Account {
        nonce: 3,
        pool_nonce: 5,
        balance_wei: U256::from(9),
        code: Bytes::from_static(&[1]),
    };
    check(Method::GetBalance, account(), Ok(json!("0x9")));
    check(Method::GetTransactionCount, account(), Ok(json!("0x5")));
    check(Method::GetCode, account(), Ok(json!("0x01")));
    check(Method::GetStorageAt, BuilderAnswer::Slot(U256::from(7)), Ok(json!(format!("0x{:064x}", 7))));
    check(Method::GetTransactionByHash, BuilderAnswer::Transaction(None), Err(Rendered::AskQuery));
    check(Method::GetTransactionStatus, BuilderAnswer::Status(None), Err(Rendered::AskQuery));
    let status =
        LiveStatus::Placed { block_number: 4, index: 1, accepted_unix_ns: 5_000_000, preconfirmed_unix_ns: 6_999_999 };
    let expected = json!({
        "state": "preconfirmed", "blockNumber": "0x4", "transactionIndex": "0x1", "acceptedAtMs": "0x5", "preconfirmedAtMs": "0x6",
    });
    check(Method::GetTransactionStatus, BuilderAnswer::Status(Some(status)), Ok(expected));
    let pool = BuilderAnswer::PoolStatus { ready_count: 2, queued_count: 17, bytes: 9 };
    check(Method::TxpoolStatus, pool, Ok(json!({"pending": "0x2", "queued": "0x11"})));
    let tx = memory_tx(3, HOLDER, Vec::new());
    let pooled = || BuilderAnswer::Transaction(Some(PooledTx { raw: tx.raw.clone().into(), sender: HOLDER }));
    check(Method::GetRawTransactionByHash, pooled(), Ok(json!(Bytes::from(tx.raw.clone()).to_string())));
    let mut out = Vec::new();
    render_builder_answer(Method::GetTransactionByHash, &pooled(), &mut out).expect("it decodes");
    let found: Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!((&found["blockHash"], &found["hash"]), (&Value::Null, &json!(tx.hash.to_string())));
    assert!(render_builder_answer(Method::GetBalance, &pool_answer(), &mut Vec::new()).is_err());
}

fn pool_answer() -> BuilderAnswer {
    BuilderAnswer::PoolStatus { ready_count: 0, queued_count: 0, bytes: 0 }
}

#[test]
fn refusals_have_their_codes() {
    let hash = B256::repeat_byte(7);
    let check = |refusal: Refusal, wait: SubmitWait, expected: &str| {
        let error = refusal_error(&hash, &refusal, wait);
        assert_eq!(format!("{} {}", error.code, error.message), expected);
        assert_eq!(error.data == Some(format!("\"{hash}\"")), error.code == 5);
    };
    let low = Refusal::Pool(Reject::NonceTooLow { tx: 4, account: 5 });
    check(low.clone(), SubmitWait::Admission, "-32000 nonce too low: tx 4, account 5");
    check(low, SubmitWait::Preconfirmation, "-32000 nonce too low: tx 4, account 5");
    let gap = Refusal::Pool(Reject::NonceTooHigh { tx: 99, next: 5, gap_limit: 64 });
    check(gap.clone(), SubmitWait::Admission, "-32000 nonce too high: tx 99, next 5, gap limit 64");
    check(gap, SubmitWait::Preconfirmation, "6 nonce too high: tx 99, account 5");
    let full = Refusal::Pool(Reject::PoolFull { pooled: 9, limit: 9 });
    check(full, SubmitWait::Admission, "-32005 txpool is full: 9 transactions, limit 9");
    let condition = Refusal::Condition(Impossible::BlockNumber { now: 9, maximum: 8 });
    check(
        condition,
        SubmitWait::Admission,
        "-32003 transaction condition can never be met: block number 9 above maximum 8",
    );
    let unready = [
        (Refusal::Draining, "the sequencer is shutting down and admits nothing any more"),
        (Refusal::ChainBehind, "the chain database is behind: try again"),
        (Refusal::JournalBehind, "the journal is behind: its disk is slow, try again"),
        (Refusal::JournalFull, "the journal's disk is full: admission is stopped until there is space"),
        (
            Refusal::Unchecked { blocks: 64, blocks_max: 64 },
            "64 sealed blocks wait for the execution client, limit 64: try again (sequencer_executionStatus)",
        ),
        (
            Refusal::Halted,
            "halted: the execution client does not agree with this chain, only reads are served (sequencer_executionStatus)",
        ),
        (
            Refusal::HaltedByOperator,
            "halted by the operator: nothing is admitted or built until it is taken back, reads go on",
        ),
        (
            Refusal::Unsettled { what: "blocks", have: 9, max: 8 },
            "9 blocks wait to be settled on L1, limit 8: try again (sequencer_settlementStatus)",
        ),
        (
            Refusal::WitnessUnwritten { block: 9 },
            "the witness of block 9 cannot be written: admission is stopped until there is space (witness.dir)",
        ),
        (
            Refusal::SettlementHalted,
            "halted: what L1 holds is not this chain, or somebody else posts with its key, only reads are served (sequencer_settlementStatus)",
        ),
    ];
    for (refusal, text) in unready {
        check(refusal.clone(), SubmitWait::Admission, &format!("-32005 {text}"));
        let data = refusal_error(&B256::ZERO, &refusal, SubmitWait::Admission).data.unwrap_or_default();
        assert!(data.starts_with("{\"retryAfter\":"), "{text}: {data}");
        check(refusal, SubmitWait::Preconfirmation, &format!("5 {text}"));
    }
    let ended = end_error(&B256::ZERO, &EndState::Replaced { by: B256::repeat_byte(2) });
    assert_eq!((ended.code, ended.data), (-32000, Some(format!("\"{}\"", B256::ZERO))));
}

#[test]
fn what_is_admitted_and_not_next_has_its_codes() {
    let hash = B256::repeat_byte(7);
    let check = |reason: Unready, expected: &str| {
        let mut out = Vec::new();
        unready_error(&hash, &reason).write(&mut out);
        assert_eq!(String::from_utf8(out).expect("text"), expected.replace("HASH", &hash.to_string()));
    };
    check(
        Unready::NonceGap { tx: 19, next: 16 },
        r#"{"code":6,"message":"nonce too high: tx 19, account 16","data":"0x10"}"#,
    );
    let fee_cap = Unready::FeeCapBelowBaseFee { fee_cap_wei: 6, base_fee_wei: 7 };
    check(
        fee_cap,
        r#"{"code":5,"message":"The transaction is queued: max fee per gas less than block base fee: fee cap 6, base fee 7","data":"HASH"}"#,
    );
    check(
        Unready::NotExecuting,
        r#"{"code":5,"message":"The transaction is queued: this node does not execute transactions","data":"HASH"}"#,
    );
    check(
        Unready::Stopped,
        r#"{"code":5,"message":"The transaction is queued: the operator has stopped building: it waits in the pool","data":"HASH"}"#,
    );
}

#[test]
fn what_is_placed_is_pending_until_its_block_is_latest() {
    let parent = memory_block(None, Vec::new());
    let next = memory_block(Some(&parent), vec![memory_tx(0, HOLDER, Vec::new()), memory_tx(1, HOLDER, Vec::new())]);
    let (_, open) = open_block(&next.header, &next.txs, 2);
    let mut receipt = Vec::new();
    render_preconfirmed(&open, 1, None, &mut receipt).expect("entry 1 exists");
    assert!(render_preconfirmed(&open, 2, None, &mut Vec::new()).is_err());
    let receipt: Value = serde_json::from_slice(&receipt).expect("JSON");
    assert_eq!((&receipt["blockHash"], &receipt["blockNumber"]), (&json!(B256::ZERO.to_string()), &json!("0x1")));
    let snapshot = state(Vec::new());
    let open_heads = heads(std::slice::from_ref(&parent), &snapshot, Some(open));
    let history = MemoryHistory::default();
    let ask = |durable, method, params: &str| query(&open_heads, &history, durable, method, params).expect("a result");
    let by_hash = |index: usize| format!("[\"{}\"]", next.txs[index].hash);
    assert_eq!(ask(3, Method::GetTransactionReceipt, &by_hash(0)), Value::Null);
    assert_eq!(ask(3, Method::GetTransactionByHash, &by_hash(0))["blockHash"], Value::Null);
    assert_eq!(ask(3, Method::GetTransactionStatus, &by_hash(1))["state"], json!("preconfirmed"));
    let receipts = |durable| ask(durable, Method::GetBlockReceipts, "[\"pending\"]");
    assert_eq!(receipts(1), json!([]));
    assert_eq!(receipts(2).as_array().map(Vec::len), Some(1));
    assert_eq!(receipts(3)[1], receipt);
    let block = ask(3, Method::GetBlockByNumber, "[\"pending\",true]");
    assert_eq!(
        (&block["hash"], &block["number"], block["transactions"][1]["hash"].clone()),
        (&Value::Null, &json!("0x1"), json!(next.txs[1].hash.to_string()))
    );
    let reply = super::fixture::query_reply(&open_heads, &history, 1, Method::GetTransactionByHash, &by_hash(1));
    assert_eq!(reply.gate, Sequence(3), "the reply waits until the place is durable");
    let sealed = heads(&[parent, next.clone()], &snapshot, None);
    let mined = query(&sealed, &history, 9, Method::GetTransactionReceipt, &by_hash(1)).expect("a result");
    assert_eq!(mined["blockHash"], json!(next.hash.to_string()));
    let status = query(&sealed, &history, 9, Method::GetTransactionStatus, &by_hash(1)).expect("a result");
    assert_eq!((&status["state"], &status["acceptedAtMs"]), (&json!("finalized"), &json!("0x5")));
}
