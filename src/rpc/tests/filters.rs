//! Filters by polling: the table of a shard, and what a poll is told while blocks grow, are sealed and leave memory.

use std::sync::Arc;

use alloy_primitives::{Bytes, Log};
use serde_json::Value;

use super::fixture::{
    MemoryBlock, MemoryHistory, filter_reply, heads, memory_block, memory_tx, move_clock_by, open_block, seal, state,
};
use crate::builder::block::Heads;
use crate::builder::rewinds::{REWINDS_MAX, RemovedLog, RemovedLogs, Rewind, Rewinds};
use crate::primitives::{Address, B256, Sequence, ShardId};
use crate::rpc::filter::LogCriteria;
use crate::rpc::limits::{
    FILTER_BLOCKS_PER_POLL_MAX, FILTER_LEASE_NS, FILTER_LIFE_NS, FILTERS_BYTES_MAX, FILTERS_PER_CONNECTION_MAX,
    FILTERS_PER_SHARD_MAX, LOGS_MAX,
};
use crate::rpc::log_filter::LogFilter;
use crate::rpc::params::{BlockId, Params};
use crate::rpc::{
    ConnectionKey, FilterAnswer, FilterAsk, FilterId, FilterKind, FilterRead, Filters, Lease, Position, RpcError,
};

const TOKEN: Address = Address::repeat_byte(0x70);

fn key(connection: u32) -> ConnectionKey {
    ConnectionKey { connection, generation: 1 }
}

fn log(topic: u8) -> Log {
    Log::new_unchecked(TOKEN, vec![B256::repeat_byte(topic)], Bytes::new())
}

fn next(parent: &MemoryBlock, tx_count: u64) -> MemoryBlock {
    let nonce = parent.header.number * 10_000;
    memory_block(Some(parent), (0..tx_count).map(|offset| memory_tx(nonce + offset, TOKEN, vec![log(1)])).collect())
}

fn genesis_heads() -> Heads {
    heads(&[memory_block(None, Vec::new())], &state(Vec::new()), None)
}

fn criteria(from: BlockId, to: BlockId) -> FilterKind {
    FilterKind::Logs(LogCriteria { filter: LogFilter::default(), from, to })
}

fn add(filters: &mut Filters, connection: u32, kind: FilterKind, now_ns: u64) -> Result<FilterId, RpcError> {
    filters.add(key(connection), Arc::new(kind), &genesis_heads(), Sequence(1), now_ns)
}

/// The lease and the position of a poll that is granted.
#[track_caller]
fn granted(answer: FilterAnswer) -> (Lease, Position) {
    match answer {
        FilterAnswer::Read { read, lease: Some(lease) } => (lease, read.from.expect("a poll starts somewhere")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ids_name_their_shard_and_differ() {
    let mut seen = std::collections::HashSet::new();
    for shard in [0, 7, u16::MAX] {
        let mut filters = Filters::new(ShardId(shard));
        for _ in 0..50 {
            let id = add(&mut filters, 1, FilterKind::Blocks, 0).expect("room");
            let mut text = Vec::new();
            id.write(&mut text);
            let text: String = serde_json::from_slice(&text).expect("a JSON string");
            assert_eq!((text.len(), FilterId::parse(&text), id.shard()), (34, Some(id), ShardId(shard)));
            assert!(!text.starts_with("0x0"), "{text} is no integer as JSON-RPC writes them");
            assert!(seen.insert(text), "an id came twice");
        }
    }
    // Two processes give their first filters different names.
    let first = |shard| add(&mut Filters::new(ShardId(shard)), 1, FilterKind::Blocks, 0).expect("room");
    assert_ne!(first(1), first(1));
    for text in ["", "0x", "0x01", "00112233445566778899aabbccddeeff", "0x00112233445566778899aabbccddeeff00"] {
        assert_eq!(FilterId::parse(text), None, "{text}");
    }
}

#[test]
fn a_poll_holds_a_lease_and_what_was_not_heard_is_told_again() {
    let mut filters = Filters::new(ShardId(3));
    let id = add(&mut filters, 1, FilterKind::Blocks, 0).expect("room");
    let (lease, from) = granted(filters.ask(id, FilterAsk::Changes, 1));
    assert_eq!(from, Position { number: 1, index: 0, rewinds: 0 });
    assert_eq!(filters.ask(id, FilterAsk::Changes, 2), FilterAnswer::Busy);
    filters.give_back(lease, None);
    let (lease, from) = granted(filters.ask(id, FilterAsk::Changes, 3));
    assert_eq!(from, Position { number: 1, index: 0, rewinds: 0 });
    filters.give_back(lease, Some(Position { number: 5, index: 0, rewinds: 0 }));
    let (late, from) = granted(filters.ask(id, FilterAsk::Changes, 4));
    assert_eq!(from, Position { number: 5, index: 0, rewinds: 0 });
    // Whoever holds it is gone: the lease ends by itself, and a late answer changes nothing.
    assert_eq!(filters.ask(id, FilterAsk::Changes, 3 + FILTER_LEASE_NS), FilterAnswer::Busy);
    let (lease, _) = granted(filters.ask(id, FilterAsk::Changes, 4 + FILTER_LEASE_NS));
    filters.give_back(late, Some(Position { number: 9, index: 0, rewinds: 0 }));
    assert_eq!(filters.ask(id, FilterAsk::Changes, 5 + FILTER_LEASE_NS), FilterAnswer::Busy);
    filters.give_back(lease, Some(Position { number: 6, index: 0, rewinds: 0 }));
    assert_eq!(granted(filters.ask(id, FilterAsk::Changes, 6 + FILTER_LEASE_NS)).1.number, 6);
}

#[test]
fn only_filters_of_logs_have_logs() {
    let mut filters = Filters::new(ShardId(0));
    let logs = add(&mut filters, 1, criteria(BlockId::Latest, BlockId::Latest), 0).expect("room");
    let blocks = add(&mut filters, 1, FilterKind::Blocks, 0).expect("room");
    assert!(matches!(
        filters.ask(logs, FilterAsk::Logs, 0),
        FilterAnswer::Read { read, lease: None } if read.from.is_none()
    ));
    assert_eq!(filters.ask(blocks, FilterAsk::Logs, 0), FilterAnswer::Unknown);
}

#[test]
fn a_filter_dies_when_nobody_polls() {
    let mut filters = Filters::new(ShardId(0));
    let polled = add(&mut filters, 1, FilterKind::Blocks, 0).expect("room");
    let forgotten = add(&mut filters, 1, FilterKind::Blocks, 0).expect("room");
    let (lease, from) = granted(filters.ask(polled, FilterAsk::Changes, FILTER_LIFE_NS - 1));
    filters.give_back(lease, Some(from));
    assert_eq!(filters.ask(forgotten, FilterAsk::Changes, FILTER_LIFE_NS), FilterAnswer::Unknown);
    granted(filters.ask(polled, FilterAsk::Changes, FILTER_LIFE_NS));
    assert_eq!(filters.len(), 1);
    filters.expire(2 * FILTER_LIFE_NS - 1);
    assert_eq!(filters.len(), 1);
    filters.expire(2 * FILTER_LIFE_NS);
    assert!(filters.is_empty());
    assert_eq!(filters.ask(polled, FilterAsk::Uninstall, 2 * FILTER_LIFE_NS), FilterAnswer::Unknown);
}

#[test]
fn filters_are_bounded_per_connection_and_in_all() {
    let mut filters = Filters::new(ShardId(0));
    let mut ids = Vec::new();
    for _ in 0..FILTERS_PER_CONNECTION_MAX {
        ids.push(add(&mut filters, 1, FilterKind::Blocks, 0).expect("room"));
    }
    let refused = add(&mut filters, 1, FilterKind::Blocks, 1).expect_err("one too many");
    assert_eq!(refused.code, -32_005);
    add(&mut filters, 2, FilterKind::Blocks, 1).expect("the limit is the other connection's");
    assert_eq!(filters.ask(ids[0], FilterAsk::Uninstall, 1), FilterAnswer::Uninstalled);
    assert_eq!(filters.ask(ids[0], FilterAsk::Uninstall, 1), FilterAnswer::Unknown);
    add(&mut filters, 1, FilterKind::Blocks, 1).expect("one was removed");
    // Those that are over make room.
    add(&mut filters, 1, FilterKind::Blocks, FILTER_LIFE_NS).expect("the others are over");
    assert_eq!(filters.len(), 3);
    let mut connection = 10;
    let mut ids = Vec::new();
    while filters.len() < FILTERS_PER_SHARD_MAX {
        ids.push(add(&mut filters, connection, FilterKind::Blocks, FILTER_LIFE_NS).expect("room"));
        connection += 1;
    }
    let refused = add(&mut filters, 5, FilterKind::Blocks, FILTER_LIFE_NS).expect_err("one too many");
    assert!(refused.code == -32_005 && refused.message.contains("8192"), "{refused:?}");
    // Connections that come and go do not multiply the limit of all: what they left behind gives way, and nobody else's does.
    filters.forget_connection(key(10));
    filters.forget_connection(key(11));
    for _ in 0..2 {
        add(&mut filters, 5, FilterKind::Blocks, FILTER_LIFE_NS).expect("one gave way");
    }
    assert_eq!(filters.len(), FILTERS_PER_SHARD_MAX);
    add(&mut filters, 5, FilterKind::Blocks, FILTER_LIFE_NS).expect_err("none is left behind");
    for (index, expected) in
        [FilterAnswer::Unknown, FilterAnswer::Unknown, FilterAnswer::Uninstalled].into_iter().enumerate()
    {
        assert_eq!(filters.ask(ids[index], FilterAsk::Uninstall, FILTER_LIFE_NS), expected);
    }
}

#[test]
fn the_bytes_of_all_criteria_are_bounded() {
    let mut filters = Filters::new(ShardId(0));
    let large = || {
        let filter = LogFilter { addresses: vec![TOKEN; 1_000], topics: vec![vec![B256::ZERO; 1_000]; 4] };
        FilterKind::Logs(LogCriteria { filter, from: BlockId::Latest, to: BlockId::Latest })
    };
    let count = FILTERS_BYTES_MAX / (1_000 * 20 + 4_000 * 32);
    let ids: Vec<_> = (0..count).map(|n| add(&mut filters, n as u32, large(), 0).expect("room")).collect();
    assert_eq!(add(&mut filters, 9_999, large(), 0).expect_err("too many bytes").code, -32_005);
    add(&mut filters, 9_999, FilterKind::Blocks, 0).expect("it has no criteria");
    filters.ask(ids[0], FilterAsk::Uninstall, 0);
    add(&mut filters, 9_999, large(), 0).expect("its bytes are free again");
}

#[track_caller]
fn check_criteria(json: &str, expected: Result<(BlockId, BlockId), &str>) {
    let raw = format!("[{json}]");
    let params = Params::parse(raw.as_bytes(), 1).expect("an array");
    let found = params.required(0, "filter").and_then(|argument| LogCriteria::parse(&argument));
    match (found, expected) {
        (Ok(found), Ok(expected)) => assert_eq!((found.from, found.to), expected, "{json}"),
        (Err(error), Err(expected)) => assert!(error.code == -32602 && error.message.contains(expected), "{error:?}"),
        (found, expected) => panic!("{json}: {found:?} is not {expected:?}"),
    }
}

/// The ranges of go-ethereum's `SubscribeLogs`.
#[test]
fn ranges_are_those_that_go_ethereum_takes() {
    use BlockId::{Earliest, Latest, Number};
    check_criteria("{}", Ok((Latest, Latest)));
    check_criteria(r#"{"fromBlock":"0x5"}"#, Ok((Number(5), Latest)));
    check_criteria(r#"{"fromBlock":"earliest","toBlock":"0x5"}"#, Ok((Earliest, Number(5))));
    check_criteria(r#"{"fromBlock":"0x5","toBlock":"0x5"}"#, Ok((Number(5), Number(5))));
    check_criteria(r#"{"fromBlock":"0x6","toBlock":"0x5"}"#, Err("invalid block range"));
    check_criteria(r#"{"toBlock":"0x5"}"#, Err("invalid block range"));
    check_criteria(r#"{"fromBlock":"safe"}"#, Err("invalid block range"));
    check_criteria(r#"{"fromBlock":"pending"}"#, Err("pending logs are not served"));
    check_criteria(&format!(r#"{{"blockHash":"{}"}}"#, B256::ZERO), Err("use eth_getLogs"));
}

/// One poll: what it is told, and where the next one starts.
#[track_caller]
fn poll(heads: &Heads, history: &MemoryHistory, durable: u64, kind: &FilterKind, from: Position) -> (Value, Position) {
    let read = FilterRead { kind: Arc::new(kind.clone()), from: Some(from) };
    let reply = filter_reply(heads, history, durable, read);
    let json = reply.outcome.expect("a poll is answered");
    (serde_json::from_slice(&json).expect("results are JSON"), reply.told.expect("a poll says how far it went"))
}

const START: Position = Position { number: 1, index: 0, rewinds: 0 };

#[test]
fn blocks_are_told_once_wherever_they_are() {
    let snapshot = state(Vec::new());
    let mut blocks = vec![memory_block(None, Vec::new())];
    for _ in 0..5 {
        blocks.push(next(blocks.last().expect("genesis"), 1));
    }
    let hashes = |range: std::ops::RangeInclusive<usize>| -> Value {
        blocks[range].iter().map(|block| block.hash.to_string()).collect()
    };
    let history = MemoryHistory { blocks: blocks.clone() };
    // Only the newest two are in memory.
    let tip = |number: usize| heads(&blocks[number - 1..=number], &snapshot, None);
    let (told, at) = poll(&tip(3), &history, 1, &FilterKind::Blocks, START);
    assert_eq!((told, at.number), (hashes(1..=3), 4));
    let (told, at) = poll(&tip(3), &history, 1, &FilterKind::Blocks, at);
    assert_eq!((told, at.number), (Value::Array(Vec::new()), 4));
    let (told, at) = poll(&tip(5), &history, 1, &FilterKind::Blocks, at);
    assert_eq!((told, at.number), (hashes(4..=5), 6));
    assert_eq!(poll(&tip(5), &history, 1, &FilterKind::Blocks, at), (Value::Array(Vec::new()), at));
}

#[test]
fn placed_transactions_are_told_once_while_their_block_is_sealed() {
    let snapshot = state(Vec::new());
    let genesis = memory_block(None, Vec::new());
    let first = next(&genesis, 3);
    let second = next(&first, 2);
    let none = MemoryHistory::default();
    let kind = FilterKind::PendingTransactions { full: false };
    let hash = |block: &MemoryBlock, index: usize| block.txs[index].hash.to_string();
    let (_, open) = open_block(&first.header, &first.txs, 2);
    let growing = heads(std::slice::from_ref(&genesis), &snapshot, Some(Arc::clone(&open)));
    let (told, at) = poll(&growing, &none, 1, &kind, START);
    assert_eq!((told, at), (Value::Array(Vec::new()), START), "nothing is durable");
    let (told, at) = poll(&growing, &none, 3, &kind, at);
    assert_eq!(told, Value::from(vec![hash(&first, 0), hash(&first, 1)]));
    assert_eq!(at, Position { number: 1, index: 2, rewinds: 0 });
    // The third one is durable and its block is sealed and not: then it is, and the next block has begun.
    let sealed = seal(&first, open, &snapshot, 6, 0);
    let (_, open) = open_block(&second.header, &second.txs, 7);
    let recent = [Arc::clone(&growing.latest), sealed];
    let replaced = Heads::new(recent.into(), Some(open));
    let (told, at) = poll(&replaced, &none, 5, &kind, at);
    assert_eq!((told, at), (Value::from(vec![hash(&first, 2)]), Position { number: 1, index: 3, rewinds: 0 }));
    let (told, at) = poll(&replaced, &none, 7, &kind, at);
    assert_eq!((told, at), (Value::from(vec![hash(&second, 0)]), Position { number: 2, index: 1, rewinds: 0 }));
    // Everything again from the start, as objects, and from the chain database.
    let full = FilterKind::PendingTransactions { full: true };
    let history = MemoryHistory { blocks: vec![genesis, first.clone(), second.clone()] };
    let newest = heads(std::slice::from_ref(&second), &snapshot, None);
    let (told, at) = poll(&newest, &history, 9, &full, START);
    let found: Vec<_> = told.as_array().expect("a list").iter().map(|tx| tx["hash"].clone()).collect();
    let all: Vec<Value> = first.txs.iter().chain(&second.txs).map(|tx| Value::from(tx.hash.to_string())).collect();
    assert_eq!((found, at), (all, Position { number: 3, index: 0, rewinds: 0 }));
    assert_eq!(told[0]["blockHash"], Value::Null);
}

#[test]
fn logs_are_told_once_within_the_range_of_the_filter() {
    let snapshot = state(Vec::new());
    let mut blocks = vec![memory_block(None, Vec::new())];
    for _ in 0..5 {
        blocks.push(next(blocks.last().expect("genesis"), 2));
    }
    let history = MemoryHistory { blocks: blocks.clone() };
    let tip = |number: usize| heads(&blocks[number..=number], &snapshot, None);
    let places = |told: &Value| -> Vec<String> {
        let logs = told.as_array().expect("a list").iter();
        logs.map(|log| format!("{} {}", log["blockNumber"], log["logIndex"]).replace('"', "")).collect()
    };
    let live = criteria(BlockId::Latest, BlockId::Latest);
    let (told, at) = poll(&tip(2), &history, 1, &live, START);
    assert_eq!(places(&told), ["0x1 0x0", "0x1 0x1", "0x2 0x0", "0x2 0x1"]);
    let (told, at) = poll(&tip(3), &history, 1, &live, at);
    assert_eq!(
        (places(&told), at),
        (vec!["0x3 0x0".to_owned(), "0x3 0x1".to_owned()], Position { number: 4, index: 0, rewinds: 0 })
    );
    let ranged = criteria(BlockId::Number(2), BlockId::Number(3));
    let (told, at) = poll(&tip(5), &history, 1, &ranged, START);
    assert_eq!(places(&told), ["0x2 0x0", "0x2 0x1", "0x3 0x0", "0x3 0x1"]);
    assert_eq!(
        (at, poll(&tip(5), &history, 1, &ranged, at).0),
        (Position { number: 6, index: 0, rewinds: 0 }, Value::Array(vec![]))
    );
    // A range that has not begun: its first block is told when it is there.
    let future = criteria(BlockId::Number(5), BlockId::Latest);
    let (told, at) = poll(&tip(3), &history, 1, &future, START);
    assert_eq!(places(&told), [""; 0]);
    assert_eq!(places(&poll(&tip(5), &history, 1, &future, at).0), ["0x5 0x0", "0x5 0x1"]);
    let other = LogFilter { addresses: vec![Address::ZERO], topics: Vec::new() };
    let other = FilterKind::Logs(LogCriteria { filter: other, from: BlockId::Latest, to: BlockId::Latest });
    assert_eq!(
        poll(&tip(5), &history, 1, &other, START),
        (Value::Array(vec![]), Position { number: 6, index: 0, rewinds: 0 })
    );
}

/// More than one answer may have, in one block and over blocks: every log once, in order.
#[test]
fn more_logs_than_an_answer_has_come_with_the_next_polls() {
    let snapshot = state(Vec::new());
    let genesis = memory_block(None, Vec::new());
    let many = |nonce: u64, count: usize| memory_tx(nonce, TOKEN, (0..count).map(|_| log(1)).collect());
    let first = memory_block(Some(&genesis), vec![many(1, LOGS_MAX - 1)]);
    let second = memory_block(Some(&first), vec![many(2, 2), many(3, LOGS_MAX), many(4, 3)]);
    let total = 2 * LOGS_MAX + 4;
    let heads = heads(&[genesis, first, second], &snapshot, None);
    let (none, kind) = (MemoryHistory::default(), criteria(BlockId::Latest, BlockId::Latest));
    let (mut seen, mut at, mut polls) = (Vec::new(), START, 0);
    loop {
        let (told, next) = poll(&heads, &none, 1, &kind, at);
        let told = told.as_array().expect("a list").clone();
        assert!(told.len() <= LOGS_MAX);
        if told.is_empty() {
            assert_eq!(next, Position { number: 3, index: 0, rewinds: 0 });
            break;
        }
        seen.extend(told.iter().map(|log| (log["blockNumber"].clone(), log["logIndex"].clone())));
        (at, polls) = (next, polls + 1);
    }
    assert_eq!((seen.len(), polls), (total, 3));
    seen.dedup();
    assert_eq!(seen.len(), total);
    assert_eq!(seen[LOGS_MAX - 1], (Value::from("0x2"), Value::from("0x0")));
}

/// What readers are told when these blocks go.
pub fn rewind(gone: &[MemoryBlock]) -> Rewind {
    let mut logs = RemovedLogs::default();
    for block in gone {
        let all = block
            .txs
            .iter()
            .enumerate()
            .flat_map(|(index, tx)| tx.receipt.logs.iter().map(move |log| (index, tx, log)));
        for (log_index, (tx_index, tx, log)) in all.enumerate() {
            logs.push(RemovedLog {
                block_hash: block.hash,
                block_number: block.header.number,
                timestamp: block.header.timestamp,
                tx_hash: tx.hash,
                tx_index: tx_index as u64,
                log_index: log_index as u64,
                log: log.clone(),
            });
        }
    }
    logs.end(gone[0].header.number - 1)
}

/// Between two polls a follower took blocks back and as many and more are in their place.
#[test]
fn replaced_blocks_are_told_as_removed_and_then_those_in_their_place() {
    let snapshot = state(Vec::new());
    let mut blocks = vec![memory_block(None, Vec::new())];
    for _ in 0..5 {
        blocks.push(next(blocks.last().expect("genesis"), 2));
    }
    let gone = blocks[4..].to_vec();
    let mut now = blocks[..4].to_vec();
    for _ in 4..=6 {
        now.push(next(now.last().expect("genesis"), 1));
    }
    assert_ne!(now[4].hash, gone[0].hash);
    let none = MemoryHistory::default();
    let before = heads(&blocks, &snapshot, None);
    let rewinds = Arc::new(Rewinds::default().with(rewind(&gone)));
    let after = heads(&now, &snapshot, None).rewound(&rewinds);

    let (_, at) = poll(&before, &none, 1, &FilterKind::Blocks, START);
    let hashes: Value = now[4..].iter().map(|block| block.hash.to_string()).collect();
    let (told, at) = poll(&after, &none, 1, &FilterKind::Blocks, at);
    assert_eq!((told, at), (hashes, Position { number: 7, index: 0, rewinds: 1 }));
    assert_eq!(poll(&after, &none, 1, &FilterKind::Blocks, at).0, Value::Array(Vec::new()));

    let places = |told: &Value| -> Vec<String> {
        let place = |log: &Value| {
            let removed = log["removed"] == true;
            let block = blocks.iter().chain(&now).find(|block| log["blockHash"] == block.hash.to_string());
            let block = block.expect("a block of one of the chains");
            assert_eq!(log["blockNumber"], format!("{:#x}", block.header.number));
            let tx = &block.txs[usize::from(log["transactionIndex"] == "0x1")];
            assert_eq!(log["transactionHash"], tx.hash.to_string());
            format!("{}{} {}", if removed { "-" } else { "" }, log["blockNumber"], log["logIndex"]).replace('"', "")
        };
        told.as_array().expect("a list").iter().map(place).collect()
    };
    let live = criteria(BlockId::Latest, BlockId::Latest);
    let (_, at) = poll(&before, &none, 1, &live, START);
    let (told, next) = poll(&after, &none, 1, &live, at);
    let replaced = ["0x4 0x0", "0x5 0x0", "0x6 0x0"];
    assert_eq!(places(&told), [&["-0x4 0x0", "-0x4 0x1", "-0x5 0x0", "-0x5 0x1"][..], &replaced].concat());
    assert_eq!(poll(&after, &none, 1, &live, next).0, Value::Array(Vec::new()));
    // What was not told is not taken back: of block 5 one log was.
    let (told, _) = poll(&after, &none, 1, &live, Position { number: 5, index: 1, rewinds: 0 });
    assert_eq!(places(&told), [&["-0x4 0x0", "-0x4 0x1", "-0x5 0x0"][..], &replaced].concat());
    let (told, _) = poll(&after, &none, 1, &live, Position { number: 4, index: 0, rewinds: 0 });
    assert_eq!(places(&told), replaced);
    // Nor what is outside of the range, or does not match.
    let ranged = criteria(BlockId::Number(1), BlockId::Number(4));
    assert_eq!(places(&poll(&after, &none, 1, &ranged, at).0), ["-0x4 0x0", "-0x4 0x1", "0x4 0x0"]);
    let filter = LogFilter { addresses: vec![Address::ZERO], topics: Vec::new() };
    let other = FilterKind::Logs(LogCriteria { filter, from: BlockId::Latest, to: BlockId::Latest });
    assert_eq!(poll(&after, &none, 1, &other, at).0, Value::Array(Vec::new()));
    // Once more, and back to what there was: each is told.
    let twice = Arc::new(rewinds.with(rewind(&now[5..])));
    let back = heads(&now[..5], &snapshot, None).rewound(&twice);
    let (told, _) = poll(&back, &none, 1, &live, at);
    assert_eq!(places(&told), ["-0x4 0x0", "-0x4 0x1", "-0x5 0x0", "-0x5 0x1", "0x4 0x0"]);
    assert_eq!(places(&poll(&back, &none, 1, &live, next).0), ["-0x5 0x0", "-0x6 0x0"]);
}

#[test]
fn who_can_not_be_told_what_went_away_makes_a_new_filter() {
    let snapshot = state(Vec::new());
    let genesis = memory_block(None, Vec::new());
    let first = next(&genesis, 1);
    let none = MemoryHistory::default();
    let mut rewinds = Rewinds::default().with(Rewind { to: 0, logs: None });
    let ask = |rewinds: &Rewinds, kind: FilterKind, rewinds_known| {
        let heads = heads(&[genesis.clone(), first.clone()], &snapshot, None).rewound(&Arc::new(rewinds.clone()));
        let from = Some(Position { number: 2, index: 0, rewinds: rewinds_known });
        filter_reply(&heads, &none, 1, FilterRead { kind: Arc::new(kind), from }).outcome
    };
    let live = || criteria(BlockId::Latest, BlockId::Latest);
    let lost = || Err(RpcError::server("filter not found"));
    assert_eq!(ask(&rewinds, live(), 0), lost());
    assert!(ask(&rewinds, live(), 1).is_ok());
    assert!(ask(&rewinds, FilterKind::Blocks, 0).is_ok(), "hashes are not needed to take them back");
    for _ in 0..REWINDS_MAX {
        rewinds = rewinds.with(rewind(std::slice::from_ref(&first)));
    }
    assert_eq!(ask(&rewinds, FilterKind::Blocks, 0), lost());
    assert!(ask(&rewinds, FilterKind::Blocks, 1).is_ok());
}

/// However far behind a filter is, one poll reads so many blocks and so long, and the next one goes on there.
#[test]
fn a_poll_is_bounded_in_blocks_and_in_time() {
    let snapshot = state(Vec::new());
    let mut blocks = vec![memory_block(None, Vec::new())];
    for _ in 0..FILTER_BLOCKS_PER_POLL_MAX + 5 {
        blocks.push(next(blocks.last().expect("genesis"), 0));
    }
    let newest = heads(&blocks[blocks.len() - 1..], &snapshot, None);
    let history = MemoryHistory { blocks };
    let live = criteria(BlockId::Latest, BlockId::Latest);
    for kind in [FilterKind::PendingTransactions { full: false }, FilterKind::Blocks, live] {
        move_clock_by(0);
        let (_, at) = poll(&newest, &history, 1, &kind, START);
        assert_eq!(at, START.before(1 + FILTER_BLOCKS_PER_POLL_MAX), "{kind:?}");
        let (_, at) = poll(&newest, &history, 1, &kind, at);
        assert_eq!(at, START.before(FILTER_BLOCKS_PER_POLL_MAX + 6), "{kind:?}");
        // The time of a query, two seconds, is over at the fifth look.
        move_clock_by(500_000_000);
        let (_, at) = poll(&newest, &history, 1, &kind, START);
        assert_eq!(at, START.before(256), "{kind:?}");
    }
    move_clock_by(0);
}
