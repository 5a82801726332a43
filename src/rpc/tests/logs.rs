//! `eth_getLogs` and the filter, against a search without any shortcut.

use alloy_primitives::{Bytes, Log};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::fixture::{MemoryBlock, MemoryHistory, heads, memory_block, memory_tx, query, state};
use crate::builder::block::Heads;
use crate::primitives::{Address, B256};
use crate::rpc::Method;
use crate::rpc::log_filter::LogFilter;

fn address(seed: u8) -> Address {
    Address::repeat_byte(0x40 + seed)
}

fn topic(seed: u8) -> B256 {
    B256::repeat_byte(0x80 + seed)
}

/// Three of seven blocks in memory, the others in the database; the two overlap by one, as they do while a block is being stored.
fn chain(blocks: &[Vec<Vec<Log>>]) -> (Heads, MemoryHistory, Vec<MemoryBlock>) {
    let mut all: Vec<MemoryBlock> = Vec::new();
    for receipts in blocks {
        let number = all.len() as u64;
        let txs = receipts.iter().zip(number * 100..).map(|(logs, nonce)| memory_tx(nonce, address(9), logs.clone()));
        let block = memory_block(all.last(), txs.collect());
        all.push(block);
    }
    let split = all.len().saturating_sub(3);
    let recent = heads(&all[split..], &state(Vec::new()), None);
    let stored = MemoryHistory { blocks: all[..(split + 1).min(all.len())].to_vec() };
    (recent, stored, all)
}

/// The rules of the execution API, written down plainly.
fn naive(filter: &LogFilter, log: &Log) -> bool {
    let mut address_matches = filter.addresses.is_empty();
    for wanted in &filter.addresses {
        address_matches |= *wanted == log.address;
    }
    let mut topics_match = true;
    for (position, wanted) in filter.topics.iter().enumerate() {
        let Some(found) = log.topics().get(position) else { return false };
        let mut position_matches = wanted.is_empty();
        for topic in wanted {
            position_matches |= topic == found;
        }
        topics_match &= position_matches;
    }
    address_matches && topics_match
}

fn any_log() -> impl Strategy<Value = Log> {
    let topics = proptest::collection::vec((0_u8..3).prop_map(topic), 0..=4);
    ((0_u8..3).prop_map(address), topics)
        .prop_map(|(address, topics)| Log::new_unchecked(address, topics, Bytes::from_static(b"x")))
}

fn any_filter() -> impl Strategy<Value = LogFilter> {
    let addresses = proptest::collection::vec((0_u8..4).prop_map(address), 0..3);
    let topics = proptest::collection::vec(proptest::collection::vec((0_u8..4).prop_map(topic), 0..3), 0..=4);
    (addresses, topics).prop_map(|(addresses, topics)| LogFilter { addresses, topics })
}

fn filter_json(filter: &LogFilter, from: usize, to: usize) -> String {
    let topics: Vec<Value> = filter
        .topics
        .iter()
        .map(|any_of| match any_of.as_slice() {
            [] => Value::Null,
            [one] => json!(one.to_string()),
            many => json!(many.iter().map(B256::to_string).collect::<Vec<_>>()),
        })
        .collect();
    let addresses: Vec<String> = filter.addresses.iter().map(Address::to_string).collect();
    let range = json!({"fromBlock": format!("{from:#x}"), "toBlock": format!("{to:#x}")});
    let mut object = range.as_object().expect("an object").clone();
    object.insert("topics".to_owned(), Value::Array(topics));
    object.insert("address".to_owned(), json!(addresses));
    Value::Array(vec![Value::Object(object)]).to_string()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn found_logs_equal_a_plain_search(
        blocks in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any_log(), 0..3), 0..3), 1..8),
        filter in any_filter(),
        bounds in (0_usize..8, 0_usize..8),
    ) {
        let (heads, history, all) = chain(&blocks);
        let (from, to) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
        let found = query(&heads, &history, 1, Method::GetLogs, &filter_json(&filter, from, to)).expect("in bounds");
        let mut expected = Vec::new();
        for block in all.iter().filter(|block| (from as u64..=to as u64).contains(&block.header.number)) {
            let mut log_index = 0_u64;
            for (tx_index, tx) in block.txs.iter().enumerate() {
                for log in &tx.receipt.logs {
                    if naive(&filter, log) {
                        expected.push(json!([block.hash, format!("{tx_index:#x}"), format!("{log_index:#x}"), tx.hash]));
                    }
                    log_index += 1;
                }
            }
        }
        let found: Vec<Value> = found.as_array().expect("a list").iter()
            .map(|log| json!([log["blockHash"], log["transactionIndex"], log["logIndex"], log["transactionHash"]]))
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn the_filter_and_its_bloom_agree_with_the_plain_rules(filter in any_filter(), log in any_log()) {
        prop_assert_eq!(filter.matches(&log), naive(&filter, &log));
        let mut bloom = alloy_primitives::Bloom::ZERO;
        bloom.accrue_log(&log);
        prop_assert!(filter.may_match(&bloom) || !naive(&filter, &log));
        prop_assert_eq!(filter.may_match(&bloom), filter.query().matches_bloom(&bloom));
    }
}

#[track_caller]
fn check(params: &str, expected: Result<usize, &str>) {
    let log = |seed| Log::new_unchecked(address(seed), vec![topic(seed)], Bytes::new());
    let blocks: Vec<_> = (0..5).map(|_| vec![vec![log(0)], vec![log(1), log(2)]]).collect();
    let (heads, history, _) = chain(&blocks);
    let found = query(&heads, &history, 1, Method::GetLogs, params);
    match (found, expected) {
        (Ok(found), Ok(count)) => assert_eq!(found.as_array().map(Vec::len), Some(count), "{params}"),
        (Err(error), Err(expected)) => {
            let text = format!("{} {}", error.code, error.message);
            assert!(text.starts_with(expected), "{params}: {text}");
        }
        (found, expected) => panic!("{params}: {found:?} is not {expected:?}"),
    }
}

#[test]
fn ranges_and_filters() {
    check("[{}]", Ok(3));
    check("[{\"fromBlock\":\"earliest\"}]", Ok(15));
    check("[{\"fromBlock\":\"0x1\",\"toBlock\":\"0x2\"}]", Ok(6));
    check("[{\"fromBlock\":\"0x1\",\"toBlock\":\"0xff\"}]", Ok(12));
    check("[{\"fromBlock\":\"0x6\",\"toBlock\":\"0xff\"}]", Ok(0));
    check("[{\"fromBlock\":\"earliest\",\"toBlock\":\"safe\"}]", Ok(15));
    check(&format!("[{{\"fromBlock\":\"0x0\",\"address\":\"{}\"}}]", address(1)), Ok(5));
    check(&format!("[{{\"fromBlock\":\"0x0\",\"topics\":[[null,\"{}\"]]}}]", topic(1)), Ok(15));
    check("[{\"fromBlock\":\"0x0\",\"topics\":[null,null]}]", Ok(0));
    check("[{\"fromBlock\":\"0x2\",\"toBlock\":\"0x1\"}]", Err("-32602 invalid block range: fromBlock 2, toBlock 1"));
    check("[{\"fromBlock\":\"pending\"}]", Err("-32602 invalid argument 0 (filter): pending logs"));
    check(&format!("[{{\"blockHash\":\"{}\"}}]", topic(1)), Err("-32000 unknown block"));
    check(
        &format!("[{{\"blockHash\":\"{}\",\"fromBlock\":\"0x1\"}}]", topic(1)),
        Err("-32602 invalid argument 0 (filter), blockHash"),
    );
    check("[{\"topics\":[null,null,null,null,null]}]", Err("-32602 invalid argument 0 (filter), topics: 5 positions"));
    check("[{\"topics\":\"0x00\"}]", Err("-32602 invalid argument 0 (filter), topics: not an array"));
    check("[{\"topics\":[[7]]}]", Err("-32602 invalid argument 0 (filter), topics"));
    check("[{\"address\":7}]", Err("-32602 invalid argument 0 (filter), address"));
    check("[{\"address\":\"0x00\"}]", Err("-32602 invalid argument 0 (filter), address"));
    let many = vec![format!("\"{}\"", topic(1)); 1_001].join(",");
    check(&format!("[{{\"topics\":[[{many}]]}}]"), Err("-32005 topics: 1001 alternatives, at most 1000"));
}

#[test]
fn too_much_is_refused() {
    let log = Log::new_unchecked(address(0), Vec::new(), Bytes::new());
    let (heads, history, _) = chain(&[vec![vec![log; 10_001]]]);
    let error = query(&heads, &history, 1, Method::GetLogs, "[{}]").expect_err("too many logs");
    assert_eq!((error.code, error.message.as_str()), (-32005, "query returned more than 10000 results"));
}
