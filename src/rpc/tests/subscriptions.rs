//! What subscribers hear while blocks are filled, sealed and become durable.

use std::sync::Arc;

use alloy_primitives::{Bytes, Log};
use serde_json::Value;

use super::filters::rewind;
use super::fixture::{MemoryBlock, context_of, heads, memory_block, memory_tx, open_block, place, seal, state};
use crate::builder::block::Heads;
use crate::builder::rewinds::Rewinds;
use crate::primitives::{Address, B256, Sequence, ShardId};
use crate::rpc::limits::{EVENT_PORTION_BYTES, SUBSCRIPTIONS_PER_CONNECTION_MAX};
use crate::rpc::log_filter::LogFilter;
use crate::rpc::{ConnectionKey, Progress, SubscriptionId, SubscriptionKind, Subscriptions};

const FIRST: ConnectionKey = ConnectionKey { connection: 1, generation: 1 };
const SECOND: ConnectionKey = ConnectionKey { connection: 2, generation: 1 };
const TOKEN: Address = Address::repeat_byte(0x70);

fn log() -> Log {
    Log::new_unchecked(TOKEN, vec![B256::repeat_byte(1)], Bytes::new())
}

fn next(parent: &MemoryBlock, tx_count: u64) -> MemoryBlock {
    let nonce = parent.header.number * 10_000;
    memory_block(Some(parent), (0..tx_count).map(|offset| memory_tx(nonce + offset, TOKEN, vec![log()])).collect())
}

/// Everything announced, as `kind:what` lines; connections without their names.
fn announce(subscriptions: &mut Subscriptions, heads: &Heads, durable: u64) -> (Vec<String>, Progress) {
    let mut lines = Vec::new();
    let progress = subscriptions.announce(heads, Sequence(durable), &mut |connection: ConnectionKey, bytes: &[u8]| {
        let json: Value = serde_json::from_slice(bytes).expect("a notification is JSON");
        assert_eq!((&json["jsonrpc"], &json["method"]), (&Value::from("2.0"), &Value::from("eth_subscription")));
        let text = json["params"]["subscription"].as_str().expect("an id");
        assert_eq!(SubscriptionId::parse(text).map(SubscriptionId::shard), Some(ShardId(7)));
        let result = &json["params"]["result"];
        lines.push(match result {
            Value::String(hash) => format!("{} tx {hash}", connection.connection),
            Value::Array(receipts) => {
                let places = receipts.iter().map(|receipt| {
                    assert_eq!(receipt["blockHash"], Value::from(B256::ZERO.to_string()));
                    format!("{}/{}", receipt["blockNumber"], receipt["transactionIndex"]).replace('"', "")
                });
                format!("{} placed {}", connection.connection, places.collect::<Vec<_>>().join(" "))
            }
            log if log["removed"] == true => {
                format!("{} removed {}/{}", connection.connection, log["blockNumber"], log["logIndex"])
            }
            log if log.get("logIndex").is_some() => format!("{} log {}", connection.connection, log["logIndex"]),
            head => format!("{} head {}", connection.connection, head["number"]),
        });
    });
    (lines.iter().map(|line| line.replace('"', "")).collect(), progress)
}

#[track_caller]
fn check(subscriptions: &mut Subscriptions, heads: &Heads, durable: u64, expected: &[&str]) {
    let (lines, progress) = announce(subscriptions, heads, durable);
    assert_eq!(lines, expected);
    assert_eq!(progress, Progress::Done);
}

#[test]
fn entries_are_heard_once_in_order_while_blocks_replace_one_another() {
    let snapshot = state(Vec::new());
    let genesis = memory_block(None, Vec::new());
    let first = next(&genesis, 3);
    let second = next(&first, 2);
    let mut subscriptions = Subscriptions::new(ShardId(7));
    let before = heads(std::slice::from_ref(&genesis), &snapshot, None);
    subscriptions.add(FIRST, SubscriptionKind::Preconfirmations, &before, Sequence(1)).expect("room");
    subscriptions.add(SECOND, SubscriptionKind::NewHeads, &before, Sequence(1)).expect("room");
    check(&mut subscriptions, &before, 1, &[]);

    // The first block grows: entries at sequences 2, 3 and 4.
    let context = context_of(&first.header);
    let (mut writer, open) = open_block(&first.header, &first.txs[..1], 2);
    let growing = heads(std::slice::from_ref(&genesis), &snapshot, Some(Arc::clone(&open)));
    check(&mut subscriptions, &growing, 1, &[]);
    check(&mut subscriptions, &growing, 2, &["1 placed 0x1/0x0"]);
    place(&mut writer, &context, &first.txs[1], 3);
    place(&mut writer, &context, &first.txs[2], 4);
    check(&mut subscriptions, &growing, 3, &["1 placed 0x1/0x1"]);

    // Before the third entry was heard the block is sealed and the next one opened.
    let sealed = seal(&first, open, &snapshot, 6, 0);
    let (_, open) = open_block(&second.header, &second.txs, 7);
    let recent = [Arc::clone(&before.latest), sealed];
    let replaced = Heads::new(recent.into(), Some(open));
    check(&mut subscriptions, &replaced, 5, &["1 placed 0x1/0x2"]);
    check(&mut subscriptions, &replaced, 6, &["2 head 0x1"]);
    check(&mut subscriptions, &replaced, 8, &["1 placed 0x2/0x0 0x2/0x1"]);
    check(&mut subscriptions, &replaced, 8, &[]);
}

#[test]
fn logs_are_filtered_and_pending_hashes_named() {
    let snapshot = state(Vec::new());
    let genesis = memory_block(None, Vec::new());
    let first = next(&genesis, 2);
    let mut subscriptions = Subscriptions::new(ShardId(7));
    let before = heads(std::slice::from_ref(&genesis), &snapshot, None);
    let filter = |address: Address| LogFilter { addresses: vec![address], topics: Vec::new() };
    let mut add = |connection, kind| subscriptions.add(connection, kind, &before, Sequence(1)).expect("room");
    add(FIRST, SubscriptionKind::Logs(Box::new(filter(TOKEN))));
    add(SECOND, SubscriptionKind::Logs(Box::new(filter(Address::ZERO))));
    add(SECOND, SubscriptionKind::Logs(Box::default()));
    add(SECOND, SubscriptionKind::NewPendingTransactions { full: false });
    let after = heads(&[genesis, first.clone()], &snapshot, None);
    let (hash0, hash1) = (format!("2 tx {}", first.txs[0].hash), format!("2 tx {}", first.txs[1].hash));
    let expected = [&hash0, &hash1, "1 log 0x0", "2 log 0x0", "1 log 0x1", "2 log 0x1"];
    check(&mut subscriptions, &after, 2, &expected.map(|line| line));
}

/// A follower took blocks back, and as many and more are in their place before the shard looked.
#[test]
fn replaced_blocks_are_heard_as_removed_and_then_those_in_their_place() {
    let snapshot = state(Vec::new());
    let genesis = memory_block(None, Vec::new());
    let (first, other) = (next(&genesis, 2), next(&genesis, 1));
    let (second, third) = (next(&first, 2), next(&other, 1));
    let fourth = next(&third, 1);
    let mut subscriptions = Subscriptions::new(ShardId(7));
    let before = heads(std::slice::from_ref(&genesis), &snapshot, None);
    subscriptions.add(FIRST, SubscriptionKind::Logs(Box::default()), &before, Sequence(1)).expect("room");
    subscriptions.add(SECOND, SubscriptionKind::NewHeads, &before, Sequence(1)).expect("room");
    check(
        &mut subscriptions,
        &heads(&[genesis.clone(), first.clone()], &snapshot, None),
        9,
        &["2 head 0x1", "1 log 0x0", "1 log 0x1"],
    );
    let rewinds = Arc::new(Rewinds::default().with(rewind(&[first, second])));
    let after = heads(&[genesis.clone(), other.clone(), third, fourth], &snapshot, None).rewound(&rewinds);
    assert!(subscriptions.has_news(&after, Sequence(0)));
    // Block 2 was never heard of.
    let gone = ["1 removed 0x1/0x0", "1 removed 0x1/0x1"];
    let come = ["2 head 0x1", "1 log 0x0", "2 head 0x2", "1 log 0x0", "2 head 0x3", "1 log 0x0"];
    check(&mut subscriptions, &after, 9, &[&gone[..], &come].concat());
    check(&mut subscriptions, &after, 9, &[]);
}

/// Portions until nothing is left: all lines, and the bytes of the largest portion.
fn announce_all(subscriptions: &mut Subscriptions, heads: &Heads) -> (Vec<String>, usize) {
    let (mut lines, mut largest_bytes) = (Vec::new(), 0);
    for _ in 0..10_000 {
        let mut bytes = 0;
        let mut sink = |_: ConnectionKey, notification: &[u8]| {
            bytes += notification.len();
            let json: Value = serde_json::from_slice(notification).expect("a notification is JSON");
            let result = &json["params"]["result"];
            lines.push(result.as_str().or(result["logIndex"].as_str()).unwrap_or("head").to_owned());
        };
        let progress = subscriptions.announce(heads, Sequence(u64::MAX), &mut sink);
        largest_bytes = largest_bytes.max(bytes);
        if progress == Progress::Done {
            return (lines, largest_bytes);
        }
    }
    panic!("never done");
}

#[test]
fn placed_transactions_come_in_small_portions() {
    let snapshot = state(Vec::new());
    let genesis = memory_block(None, Vec::new());
    let first = next(&genesis, 900);
    let before = heads(std::slice::from_ref(&genesis), &snapshot, None);
    for subscribers in [1, SUBSCRIPTIONS_PER_CONNECTION_MAX] {
        let mut subscriptions = Subscriptions::new(ShardId(7));
        for _ in 0..subscribers {
            subscriptions
                .add(FIRST, SubscriptionKind::NewPendingTransactions { full: false }, &before, Sequence(1))
                .expect("room");
        }
        let (_, open) = open_block(&first.header, &first.txs, 2);
        let heads = heads(std::slice::from_ref(&genesis), &snapshot, Some(open));
        let (lines, largest_bytes) = announce_all(&mut subscriptions, &heads);
        let expected: Vec<String> = first.txs.iter().flat_map(|tx| vec![tx.hash.to_string(); subscribers]).collect();
        assert_eq!(lines, expected);
        assert!((EVENT_PORTION_BYTES..2 * EVENT_PORTION_BYTES).contains(&largest_bytes), "{largest_bytes}");
    }
}

#[test]
fn the_logs_of_a_block_come_in_small_portions_behind_its_head() {
    let snapshot = state(Vec::new());
    let genesis = memory_block(None, Vec::new());
    let first = next(&genesis, 900);
    let before = heads(std::slice::from_ref(&genesis), &snapshot, None);
    let mut subscriptions = Subscriptions::new(ShardId(7));
    for kind in [SubscriptionKind::NewHeads, SubscriptionKind::Logs(Box::default())] {
        subscriptions.add(FIRST, kind, &before, Sequence(1)).expect("room");
    }
    let heads = heads(&[genesis, first], &snapshot, None);
    let (lines, largest_bytes) = announce_all(&mut subscriptions, &heads);
    let expected: Vec<String> =
        std::iter::once("head".to_owned()).chain((0..900).map(|index| format!("{index:#x}"))).collect();
    assert_eq!(lines, expected);
    assert!((EVENT_PORTION_BYTES / 2..2 * EVENT_PORTION_BYTES).contains(&largest_bytes), "{largest_bytes}");
}

#[test]
fn who_fell_behind_goes_on_with_the_oldest_block_in_memory() {
    let snapshot = state(Vec::new());
    let mut blocks = vec![memory_block(None, Vec::new())];
    for _ in 0..6 {
        blocks.push(next(blocks.last().expect("a block"), 1));
    }
    let mut subscriptions = Subscriptions::new(ShardId(7));
    let before = heads(&blocks[..1], &snapshot, None);
    subscriptions.add(FIRST, SubscriptionKind::NewHeads, &before, Sequence(1)).expect("room");
    let after = heads(&blocks[4..], &snapshot, None);
    check(&mut subscriptions, &after, 9, &["1 head 0x4", "1 head 0x5", "1 head 0x6"]);
    assert_eq!(subscriptions.skipped_block_count(), 3);
}

#[test]
fn subscriptions_are_counted_and_removed() {
    let heads = heads(&[memory_block(None, Vec::new())], &state(Vec::new()), None);
    let mut subscriptions = Subscriptions::new(ShardId(7));
    let mut ids = Vec::new();
    for _ in 0..SUBSCRIPTIONS_PER_CONNECTION_MAX {
        ids.push(subscriptions.add(FIRST, SubscriptionKind::NewHeads, &heads, Sequence(1)).expect("room"));
    }
    let full = subscriptions.add(FIRST, SubscriptionKind::NewHeads, &heads, Sequence(1)).expect_err("full");
    assert_eq!(full.code, -32005);
    let other =
        subscriptions.add(SECOND, SubscriptionKind::Preconfirmations, &heads, Sequence(1)).expect("another one");
    assert!(!ids.contains(&other));
    assert!(!subscriptions.remove(SECOND, ids[0]), "it belongs to another connection");
    assert!(subscriptions.remove(FIRST, ids[0]));
    assert!(!subscriptions.remove(FIRST, ids[0]));
    subscriptions.add(FIRST, SubscriptionKind::NewHeads, &heads, Sequence(1)).expect("room again");
    subscriptions.remove_connection(FIRST);
    assert_eq!(subscriptions.len(), 1);
    let mut text = Vec::new();
    other.write(&mut text);
    let text: String = serde_json::from_slice(&text).expect("a JSON string");
    assert_eq!(SubscriptionId::parse(&text), Some(other));
    for bad in ["", "0x", "0x1", "7000000000000001", "0x+000000000000001", "0x70000000000000001"] {
        assert_eq!(SubscriptionId::parse(bad), None);
    }
}

#[test]
fn a_head_is_announced_when_it_is_checked_and_its_transactions_before() {
    let genesis = memory_block(None, Vec::new());
    let blocks = [next(&genesis, 1), next(&next(&genesis, 1), 1)];
    let state = state(Vec::new());
    let sealed = heads(&[genesis, blocks[0].clone(), blocks[1].clone()], &state, None).recent;
    let at = |checked| Heads::checked(Arc::clone(&sealed), None, checked);
    let before = Heads::checked(sealed[..1].into(), None, 0);
    let mut subscriptions = Subscriptions::new(ShardId(7));
    for kind in [SubscriptionKind::NewHeads, SubscriptionKind::Preconfirmations] {
        subscriptions.add(FIRST, kind, &before, Sequence(99)).expect("few subscriptions");
    }
    check(&mut subscriptions, &at(0), 99, &["1 placed 0x1/0x0", "1 placed 0x2/0x0"]);
    assert!(!subscriptions.has_news(&at(0), Sequence(99)));
    assert_eq!(subscriptions.awaited(&at(0), Sequence(0)), None);
    assert!(subscriptions.has_news(&at(1), Sequence(99)));
    check(&mut subscriptions, &at(1), 99, &["1 head 0x1"]);
    check(&mut subscriptions, &at(2), 99, &["1 head 0x2"]);
    // Who comes while blocks wait hears of their heads, and not of their transactions again.
    let mut late = Subscriptions::new(ShardId(7));
    for kind in [SubscriptionKind::NewHeads, SubscriptionKind::Preconfirmations] {
        late.add(SECOND, kind, &at(1), Sequence(99)).expect("few subscriptions");
    }
    check(&mut late, &at(2), 99, &["2 head 0x2"]);
}
