//! An L1 endpoint on loopback that says what it is told to say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use alloy_consensus::{Header, Receipt, ReceiptWithBloom, proofs};
use alloy_primitives::{Address, B256, Bytes, Log, LogData, U256, hex, keccak256};
use alloy_rlp::{BufMut, Encodable};
use serde_json::{Value, json};

/// What an endpoint gets wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Every receipt says success.
    Receipts,
    /// One transaction is another.
    Transactions,
    /// The header's hash is another.
    Hash,
    /// The final block's hash is another.
    Finalized,
    ChainId,
    Http500,
    NotJson,
    /// The head is far above what it has.
    FarHead,
    /// A block names more transactions than any has.
    ManyHashes,
    /// A transaction asked for by its hash is another.
    OtherTransaction,
}

/// A block with all that an endpoint says of it.
#[derive(Clone, Debug)]
pub struct Block {
    pub header: Header,
    pub hash: B256,
    pub txs: Vec<Bytes>,
    pub receipts: Vec<ReceiptWithBloom<Receipt>>,
}

/// What is served.
#[derive(Debug, Default)]
pub struct Served {
    pub blocks: Vec<Block>,
    pub finalized: usize,
    pub fault: Fault,
    pub no_debug: bool,
    pub sent: Vec<Bytes>,
    /// The answer to `eth_sendRawTransaction` when it is an error.
    pub send_error: Option<&'static str>,
    pub calls: Vec<String>,
    /// Added to the account's nonces.
    pub nonce_more: u64,
}

/// Handle of a serving thread, which ends with the process.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    served: Arc<Mutex<Served>>,
}

/// The next block: a transaction of type 5 with each status, and one of type 2, when it has any.
pub fn block(parent: Option<&Block>, salt: u64, has_txs: bool) -> Block {
    let txs: Vec<Bytes> = match has_txs {
        true => [(5, 1), (2, 2), (5, 3)].map(|(kind, n): (u8, u64)| vec![kind, n as u8, salt as u8].into()).to_vec(),
        false => Vec::new(),
    };
    block_of(parent, salt, txs)
}

/// The next block, with these transactions.
pub fn block_of(parent: Option<&Block>, salt: u64, txs: Vec<Bytes>) -> Block {
    let log = Log {
        address: Address::repeat_byte(7),
        data: LogData::new_unchecked(vec![B256::repeat_byte(1)], Bytes::from_static(b"log")),
    };
    let receipt = |(index, _): (usize, &Bytes)| {
        let receipt = Receipt {
            status: (index != 2).into(),
            cumulative_gas_used: 50_000 * (index as u64 + 1),
            logs: if index == 1 { vec![log.clone()] } else { Vec::new() },
        };
        let logs_bloom = alloy_primitives::logs_bloom(&receipt.logs);
        ReceiptWithBloom { receipt, logs_bloom }
    };
    let receipts: Vec<_> = txs.iter().enumerate().map(receipt).collect();
    let numbered: Vec<_> = txs.iter().zip(&receipts).collect();
    let header = Header {
        number: parent.map_or(0, |parent| parent.header.number + 1),
        parent_hash: parent.map_or(B256::ZERO, |parent| parent.hash),
        timestamp: salt,
        mix_hash: keccak256(salt.to_be_bytes()),
        base_fee_per_gas: Some(1_000_000_000),
        gas_limit: 60_000_000,
        transactions_root: proofs::ordered_trie_root_with_encoder(&txs, |raw, out| out.put_slice(raw)),
        receipts_root: proofs::ordered_trie_root_with_encoder(&numbered, |(raw, receipt), out| {
            out.put_u8(raw[0]);
            receipt.encode(out);
        }),
        withdrawals_root: Some(B256::repeat_byte(3)),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::repeat_byte(4)),
        requests_hash: Some(B256::repeat_byte(5)),
        ..Header::default()
    };
    Block { hash: header.hash_slow(), header, txs, receipts }
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let served = Arc::new(Mutex::new(Served { blocks: vec![block(None, 0, false)], ..Served::default() }));
        let handle = Self { address, served: served.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || serve(stream, &served));
            }
        });
        handle
    }

    pub fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().expect("no panic while it is held")
    }

    /// Appends blocks; every second has transactions.
    pub fn mine(&self, count: u64, salt: u64) {
        let mut served = self.served();
        for index in 0..count {
            let next = block(served.blocks.last(), salt + index, index % 2 == 0);
            served.blocks.push(next);
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/key-that-is-not-printed", self.address)
    }
}

fn serve(stream: TcpStream, served: &Mutex<Served>) -> Option<()> {
    let mut out = stream.try_clone().ok()?;
    let mut input = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        input.read_exact(&mut body).ok()?;
        let request: Value = serde_json::from_slice(&body).ok()?;
        let (status, body) = {
            let mut served = served.lock().ok()?;
            let answer = answer(&mut served, &request);
            match served.fault {
                Fault::Http500 => ("500 Internal Server Error", "out of order".to_owned()),
                Fault::NotJson => ("200 OK", "<html>".to_owned()),
                _ => ("200 OK", answer.to_string()),
            }
        };
        write!(out, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).ok()?;
    }
}

/// The answer to a request of JSON-RPC.
pub fn answer(served: &mut Served, request: &Value) -> Value {
    let method = request["method"].as_str().unwrap_or_default();
    served.calls.push(method.to_owned());
    let result = call(served, method, &request["params"]);
    match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }),
        Err((code, message)) => {
            json!({ "jsonrpc": "2.0", "id": request["id"], "error": { "code": code, "message": message } })
        }
    }
}

fn call(served: &mut Served, method: &str, params: &Value) -> Result<Value, (i64, String)> {
    let first = params[0].as_str().unwrap_or_default();
    match method {
        "eth_chainId" => Ok(json!(if served.fault == Fault::ChainId { "0x1" } else { "0xf213" })),
        "eth_getBlockByNumber" => {
            Ok(find(served, first).map_or(Value::Null, |block| header_json(served, &block, first)))
        }
        "debug_getRawBlock" if served.no_debug => {
            Err((-32601, "the method debug_getRawBlock does not exist/is not available".to_owned()))
        }
        "debug_getRawBlock" => match find(served, first) {
            Some(block) => Ok(json!(hex::encode_prefixed(raw_block(served, &block)))),
            None => Err((-32000, format!("block {first} not found"))),
        },
        "eth_getRawTransactionByHash" => {
            let all = served.blocks.iter().flat_map(|block| &block.txs);
            let raw = all.clone().find(|raw| keccak256(raw).to_string() == first);
            let other = Bytes::from_static(b"\x02other");
            let raw = if served.fault == Fault::OtherTransaction { Some(&other) } else { raw };
            Ok(raw.map_or(Value::Null, |raw| json!(raw)))
        }
        "eth_getBlockReceipts" => {
            let block = served.blocks.iter().find(|block| block.hash.to_string() == first);
            Ok(block.map_or(Value::Null, |block| receipts_json(served, block)))
        }
        "eth_getTransactionCount" if params[1] == "finalized" => Err((-32000, "finalized block not found".to_owned())),
        "eth_getTransactionCount" | "eth_getBalance" if is_unknown(served, &params[1]) => {
            Err((-32000, "header for hash not found".to_owned()))
        }
        "eth_getTransactionCount" => {
            let nonce = served.nonce_more + if params[1] == "pending" { 9 } else { 7 };
            Ok(json!(format!("{nonce:#x}")))
        }
        "eth_getBalance" => Ok(json!(U256::from(5))),
        "eth_maxPriorityFeePerGas" => Ok(json!("0x3b9aca00")),
        "eth_sendRawTransaction" => match served.send_error {
            Some(message) => Err((-32000, message.to_owned())),
            None => {
                served.sent.push(first.parse().expect("hex"));
                Ok(json!(B256::ZERO))
            }
        },
        _ => Err((-32601, format!("the method {method} does not exist/is not available"))),
    }
}

fn find(served: &Served, tag: &str) -> Option<Block> {
    let index = match tag {
        "latest" => served.blocks.len() - 1,
        "finalized" => served.finalized,
        number => usize::from_str_radix(number.strip_prefix("0x")?, 16).ok()?,
    };
    served.blocks.get(index).cloned()
}

/// Whether a block is named (EIP-1898) that is not served.
fn is_unknown(served: &Served, block: &Value) -> bool {
    block["blockHash"].as_str().is_some_and(|hash| !served.blocks.iter().any(|block| block.hash.to_string() == hash))
}

fn raw_block(served: &Served, block: &Block) -> Vec<u8> {
    let mut txs = Vec::new();
    for (index, raw) in block.txs.iter().enumerate() {
        let is_other = served.fault == Fault::Transactions && index == 1;
        if is_other { Bytes::from_static(b"\x02other").encode(&mut txs) } else { raw.encode(&mut txs) }
    }
    let mut items = Vec::new();
    block.header.encode(&mut items);
    alloy_rlp::Header { list: true, payload_length: txs.len() }.encode(&mut items);
    items.extend_from_slice(&txs);
    items.extend_from_slice(&[0xc0, 0xc0]);
    let mut out = Vec::new();
    alloy_rlp::Header { list: true, payload_length: items.len() }.encode(&mut out);
    out.extend_from_slice(&items);
    out
}

fn header_json(served: &Served, block: &Block, tag: &str) -> Value {
    let header = &block.header;
    let is_lie = served.fault == Fault::Hash || (served.fault == Fault::Finalized && tag != "latest");
    let quantity = |value: u64| format!("{value:#x}");
    let is_far = served.fault == Fault::FarHead && tag == "latest";
    let named: Vec<B256> = match served.fault {
        Fault::ManyHashes => vec![B256::repeat_byte(9); 70_000],
        _ => block.txs.iter().map(keccak256).collect(),
    };
    json!({
        "hash": if is_lie { B256::repeat_byte(0xee) } else { block.hash },
        "parentHash": header.parent_hash, "sha3Uncles": header.ommers_hash, "miner": header.beneficiary,
        "stateRoot": header.state_root, "transactionsRoot": header.transactions_root,
        "receiptsRoot": header.receipts_root, "logsBloom": header.logs_bloom, "difficulty": "0x0",
        "number": quantity(if is_far { 1_000_000 } else { header.number }), "gasLimit": quantity(header.gas_limit), "gasUsed": "0x0",
        "timestamp": quantity(header.timestamp), "extraData": "0x", "mixHash": header.mix_hash,
        "nonce": "0x0000000000000000", "baseFeePerGas": quantity(header.base_fee_per_gas.expect("set")),
        "withdrawalsRoot": header.withdrawals_root, "blobGasUsed": "0x0", "excessBlobGas": "0x0",
        "parentBeaconBlockRoot": header.parent_beacon_block_root, "requestsHash": header.requests_hash,
        "transactions": named,
    })
}

fn receipts_json(served: &Served, block: &Block) -> Value {
    let all = block.txs.iter().zip(&block.receipts).map(|(raw, receipt)| {
        let success = receipt.receipt.status.coerce_status() || served.fault == Fault::Receipts;
        let logs = receipt
            .receipt
            .logs
            .iter()
            .map(|log| json!({ "address": log.address, "topics": log.data.topics(), "data": log.data.data }));
        json!({
            "type": format!("{:#x}", raw[0]),
            "status": if success { "0x1" } else { "0x0" },
            "cumulativeGasUsed": format!("{:#x}", receipt.receipt.cumulative_gas_used),
            "logsBloom": receipt.logs_bloom,
            "logs": logs.collect::<Vec<_>>(),
        })
    });
    all.collect()
}
