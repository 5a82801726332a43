//! The same blocks through our encoders and through go-ethereum v1.17.5 (`--dev`): equal JSON, field by field.
//!
//! The blocks hold types 0, 2 and 4, creations, logs with and without topics, and a failed transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use alloy_consensus::{Block, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Log, hex};
use alloy_rlp::Decodable;
use serde_json::Value;

use super::fixture::{MemoryBlock, MemoryHistory, MemoryTx, open_block, query, seal, state};
use crate::builder::block::{Heads, SealedBlock};
use crate::chain::sealed_record::Recorder;
use crate::chain::{ChainLimits, ChainWriter};
use crate::primitives::{Address, B256, Bytes, Tier};
use crate::rpc::Method;
use crate::rpc::history::{History, HistoryReceipt};

const ANSWERS: &str = include_str!("go_ethereum_1_17_5.json");

fn fixed<const N: usize>(value: &Value) -> [u8; N] {
    hex::decode_to_array(value.as_str().expect("data")).expect("hex of the right length")
}

fn data(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("data")).expect("hex")
}

fn quantity(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().expect("quantity").trim_start_matches("0x"), 16).expect("64 bits")
}

fn receipt(json: &Value) -> HistoryReceipt {
    let logs = json["logs"].as_array().expect("logs").iter().map(|log| {
        let topics = log["topics"].as_array().expect("topics").iter().map(|topic| B256::from(fixed(topic))).collect();
        Log::new_unchecked(Address::from(fixed(&log["address"])), topics, Bytes::from(data(&log["data"])))
    });
    HistoryReceipt {
        success: json["status"] == "0x1",
        cumulative_gas_used: quantity(&json["cumulativeGasUsed"]),
        gas_used: quantity(&json["gasUsed"]),
        contract_address: (!json["contractAddress"].is_null()).then(|| Address::from(fixed(&json["contractAddress"]))),
        logs: logs.collect(),
    }
}

fn block(answers: &Value) -> MemoryBlock {
    let raw = data(&answers["rawBlock"]);
    let decoded = Block::<TxEnvelope>::decode(&mut &raw[..]).expect("go-ethereum's blocks decode");
    let receipts = answers["receipts"].as_array().expect("receipts");
    let txs = decoded.body.transactions.iter().zip(receipts).map(|(tx, json)| MemoryTx {
        raw: tx.encoded_2718(),
        hash: B256::from(fixed(&json["transactionHash"])),
        sender: Address::from(fixed(&json["from"])),
        receipt: receipt(json),
        diffs: Vec::new(),
    });
    MemoryBlock { hash: B256::from(fixed(&answers["block"]["hash"])), txs: txs.collect(), header: decoded.header }
}

/// A directory that is removed with its database.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("sequencer-rpc-{}-{count}", std::process::id())))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left behind is a temporary file.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Chain {
    heads: Heads,
    history: Box<dyn History>,
    _directory: Option<Directory>,
}

/// The blocks in the files of a chain database.
fn database(sealed: &[Arc<SealedBlock>]) -> (Box<dyn History>, Directory) {
    let directory = Directory::new();
    std::fs::create_dir_all(&directory.0).expect("a temporary directory can be made");
    let limits = ChainLimits { map_window_bytes: 1 << 20, status_bytes_max: 1 << 20, ..ChainLimits::default() };
    let (mut writer, reader) = ChainWriter::open(&directory.0, limits).expect("an empty directory can be opened");
    let mut recorder = Recorder::default();
    for block in sealed {
        let (record, statuses) = recorder.record(block);
        writer.append(&record).expect("blocks are in order");
        writer.put_statuses(statuses).expect("there is room");
    }
    (Box::new(reader), directory)
}

/// The chain three times: in a list and in files, with only the newest block in memory; and all of it in memory.
fn chains() -> (Value, [Chain; 3]) {
    let answers: Value = serde_json::from_str(ANSWERS).expect("the file is JSON");
    let list = answers["blocks"].as_array().expect("blocks").clone();
    let blocks: Vec<MemoryBlock> = list.iter().map(block).collect();
    let state = state(Vec::new());
    let sealed = blocks.iter().zip(&list).map(|(block, answers)| {
        let (_, open) = open_block(&block.header, &block.txs, 1);
        seal(block, open, &state, 1, quantity(&answers["block"]["size"]))
    });
    let sealed: Vec<_> = sealed.collect();
    let newest = || Heads::new([Arc::clone(sealed.last().expect("a chain has a block"))].into(), None);
    let (files, directory) = database(&sealed);
    let listed = Chain { heads: newest(), history: Box::new(MemoryHistory { blocks }), _directory: None };
    let stored = Chain { heads: newest(), history: files, _directory: Some(directory) };
    let in_memory = Heads::new(sealed.into(), None);
    let recent = Chain { heads: in_memory, history: Box::new(MemoryHistory::default()), _directory: None };
    (answers, [listed, stored, recent])
}

#[track_caller]
fn check(chain: &Chain, method: Method, params: &str, expected: &Value) {
    let found = query(&chain.heads, chain.history.as_ref(), 1, method, params).expect("the query has a result");
    assert_eq!(&found, expected, "{} {params}", method.name());
}

#[test]
fn included_transactions_have_a_status_wherever_their_block_is() {
    let (answers, chains) = chains();
    let tx = &answers["blocks"][2]["block"]["transactions"][0];
    for (chain, times_known) in chains.iter().zip([false, true, true]) {
        let params = format!("[{}]", tx["hash"]);
        let status = query(&chain.heads, chain.history.as_ref(), 1, Method::GetTransactionStatus, &params);
        let status = status.expect("the query has a result");
        assert_eq!((&status["state"], &status["blockNumber"]), (&Value::from("finalized"), &Value::from("0x2")));
        assert_eq!(status["blockHash"], tx["blockHash"]);
        let sealed_at = if times_known { Value::from("0x9") } else { Value::Null };
        assert_eq!(status["sealedAtMs"], sealed_at);
    }
}

/// Times of settlement come from the block, and only those of tiers that it has now.
#[test]
fn a_status_has_the_times_that_its_block_got_from_l1() {
    let (answers, chains) = chains();
    let [_, stored, _] = chains;
    let block = &answers["blocks"][2]["block"];
    let directory = stored._directory.as_ref().expect("files");
    let tx = &block["transactions"][0];
    let history = stored.history;
    drop(history);
    let limits = ChainLimits { map_window_bytes: 1 << 20, status_bytes_max: 1 << 20, ..ChainLimits::default() };
    let (mut writer, reader) = ChainWriter::open(&directory.0, limits).expect("nobody else has it open");
    for (tier, unix_ms) in [(Tier::Posted, 100), (Tier::Safe, 200), (Tier::Finalized, 300)] {
        writer.put_settled(tier, 1, 2, unix_ms).expect("there is room");
    }
    let times = |safe: u64, finalized: u64| {
        let heads = Heads::new(Arc::clone(&stored.heads.recent), None).settled(safe, finalized);
        let status = query(&heads, &reader, 1, Method::GetTransactionStatus, &format!("[{}]", tx["hash"]));
        let status = status.expect("the query has a result");
        ["state", "sealedAtMs", "postedAtMs", "safeAtMs", "finalizedAtMs"].map(|name| status[name].clone())
    };
    let [posted, safe, finalized] = ["0x64", "0xc8", "0x12c"].map(Value::from);
    let (sealed, none) = (Value::from("0x9"), Value::Null);
    assert_eq!(times(0, 0), ["sealed".into(), sealed.clone(), posted.clone(), none.clone(), none.clone()]);
    assert_eq!(times(2, 1), ["safe".into(), sealed.clone(), posted.clone(), safe.clone(), none]);
    assert_eq!(times(3, 3), ["finalized".into(), sealed, posted, safe, finalized]);
}

#[test]
fn blocks_receipts_and_raw_forms_equal() {
    let (answers, chains) = chains();
    for chain in &chains {
        for (number, expected) in answers["blocks"].as_array().expect("blocks").iter().enumerate() {
            let hash = expected["block"]["hash"].as_str().expect("hash");
            check(chain, Method::GetBlockByNumber, &format!("[\"{number:#x}\",true]"), &expected["block"]);
            check(chain, Method::GetBlockByNumber, &format!("[\"{number:#x}\"]"), &expected["blockHashes"]);
            check(chain, Method::GetBlockByHash, &format!("[\"{hash}\",false]"), &expected["blockHashes"]);
            check(chain, Method::GetBlockReceipts, &format!("[\"{number:#x}\"]"), &expected["receipts"]);
            check(chain, Method::GetBlockReceipts, &format!("[{{\"blockHash\":\"{hash}\"}}]"), &expected["receipts"]);
            check(chain, Method::DebugGetRawBlock, &format!("[\"{hash}\"]"), &expected["rawBlock"]);
            check(chain, Method::DebugGetRawHeader, &format!("[\"{number:#x}\"]"), &expected["rawHeader"]);
            check(chain, Method::DebugGetRawReceipts, &format!("[\"{number:#x}\"]"), &expected["rawReceipts"]);
        }
    }
}

#[test]
fn transactions_and_their_receipts_equal() {
    let (answers, chains) = chains();
    for chain in &chains {
        for expected in answers["blocks"].as_array().expect("blocks") {
            let transactions = expected["block"]["transactions"].as_array().expect("transactions");
            let block_hash = expected["block"]["hash"].as_str().expect("hash");
            let count = Value::String(format!("{:#x}", transactions.len()));
            check(chain, Method::GetBlockTransactionCountByHash, &format!("[\"{block_hash}\"]"), &count);
            let none = Value::String("0x0".to_owned());
            check(chain, Method::GetUncleCountByBlockHash, &format!("[\"{block_hash}\"]"), &none);
            for (index, tx) in transactions.iter().enumerate() {
                let hash = tx["hash"].as_str().expect("hash");
                check(chain, Method::GetTransactionByHash, &format!("[\"{hash}\"]"), tx);
                check(chain, Method::GetTransactionReceipt, &format!("[\"{hash}\"]"), &expected["receipts"][index]);
                let place = format!("[\"{block_hash}\",\"{index:#x}\"]");
                check(chain, Method::GetTransactionByBlockHashAndIndex, &place, tx);
            }
            let behind = format!("[\"{block_hash}\",\"{:#x}\"]", transactions.len());
            check(chain, Method::GetTransactionByBlockHashAndIndex, &behind, &Value::Null);
        }
        let unknown = format!("[\"{}\"]", B256::repeat_byte(9));
        check(chain, Method::GetTransactionByHash, &unknown, &Value::Null);
        check(chain, Method::GetTransactionReceipt, &unknown, &Value::Null);
        check(chain, Method::GetBlockByHash, &unknown, &Value::Null);
        check(chain, Method::GetBlockByNumber, "[\"0x4\"]", &Value::Null);
        check(chain, Method::GetUncleCountByBlockNumber, "[\"0x4\"]", &Value::Null);
    }
}

#[test]
fn fee_history_and_logs_equal() {
    let (answers, chains) = chains();
    for chain in &chains {
        check(chain, Method::GetLogs, "[{\"fromBlock\":\"earliest\",\"toBlock\":\"latest\"}]", &answers["logs"]);
        let found =
            query(&chain.heads, chain.history.as_ref(), 1, Method::FeeHistory, "[\"0x4\",\"latest\",[0,25,50,75,100]]");
        let (found, expected) = (found.expect("fee history"), &answers["feeHistory"]);
        for name in ["oldestBlock", "reward", "baseFeePerGas", "baseFeePerBlobGas"] {
            assert_eq!(found[name], expected[name], "{name}");
        }
        for name in ["gasUsedRatio", "blobGasUsedRatio"] {
            let numbers = |value: &Value| -> Vec<f64> {
                value[name].as_array().expect(name).iter().map(|ratio| ratio.as_f64().expect("number")).collect()
            };
            assert_eq!(numbers(&found), numbers(expected), "{name}");
        }
    }
}
