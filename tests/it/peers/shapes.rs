//! The shape of every result that execution-apis describes: which members, and what each looks like.
//!
//! The table is the standard's, in words of our own; go-ethereum is held to it beside us where it is installed, so that the table cannot be ours.

use serde_json::{Value, json};

use super::breadth::Pair;
use super::process::TempFolder;
use super::rpc::Rpc;
use super::sequencer::{FAST_BLOCKS, Sequencer};
use super::workload::{Account, DEV_KEYS, Workload};

const HEADER: &str = "number uint, hash hash, parentHash hash, nonce bytes8, mixHash hash, sha3Uncles hash, logsBloom bloom, \
    stateRoot hash, miner address, difficulty uint, extraData bytes, gasLimit uint, gasUsed uint, timestamp uint, \
    transactionsRoot hash, receiptsRoot hash, baseFeePerGas uint, withdrawalsRoot hash, blobGasUsed uint, excessBlobGas uint, \
    parentBeaconBlockRoot hash, requestsHash hash, size uint, uncles [hash], withdrawals [withdrawal]";
const TRANSACTION: &str = "type uint, nonce uint, to address?, gas uint, value uint, input bytes, gasPrice uint, chainId uint, \
    v uint, r uint, s uint, blockHash hash?, blockNumber uint?, blockTimestamp uint?, from address, hash hash, transactionIndex uint?";
const LOG: &str = "removed bool, logIndex uint, transactionIndex uint, transactionHash hash, blockHash hash, blockNumber uint, \
    blockTimestamp uint, address address, data bytes, topics [hash]";
const RECEIPT: &str = "type uint, transactionHash hash, transactionIndex uint, blockHash hash, blockNumber uint, from address, \
    to address?, cumulativeGasUsed uint, gasUsed uint, contractAddress address?, logs [log], logsBloom bloom, status uint, \
    effectiveGasPrice uint";

/// The members of an object of this name.
fn members(name: &str, value: &Value) -> String {
    match name {
        "blockOfHashes" => format!("{HEADER}, transactions [hash]"),
        "block" => format!("{HEADER}, transactions [transaction]"),
        "transaction" => {
            let more = match value["type"].as_str() {
                Some("0x0") => "",
                Some("0x1") => ", accessList [accessEntry], yParity uint",
                Some("0x4") => {
                    ", maxFeePerGas uint, maxPriorityFeePerGas uint, accessList [accessEntry], yParity uint, authorizationList [authorization]"
                }
                _ => ", maxFeePerGas uint, maxPriorityFeePerGas uint, accessList [accessEntry], yParity uint",
            };
            format!("{TRANSACTION}{more}")
        }
        "accessEntry" => "address address, storageKeys [hash]".to_owned(),
        "authorization" => "chainId uint, nonce uint, address address, yParity uint, r uint, s uint".to_owned(),
        "log" => LOG.to_owned(),
        "receipt" => RECEIPT.to_owned(),
        "feeHistory" => "oldestBlock uint, baseFeePerGas [uint], baseFeePerBlobGas [uint], gasUsedRatio [ratio], \
            blobGasUsedRatio [ratio], reward [[uint]]"
            .to_owned(),
        "proof" => "address address, accountProof [bytes], balance uint, codeHash hash, nonce uint, storageHash hash, \
            storageProof [slotProof]"
            .to_owned(),
        "slotProof" => "key hash, value uint, proof [bytes]".to_owned(),
        "createdList" => {
            let error = if value.get("error").is_some() { ", error text" } else { "" };
            format!("accessList [accessEntry], gasUsed uint{error}")
        }
        other => panic!("no shape is called {other}"),
    }
}

/// What is wrong with a value, if anything is.
fn fault(value: &Value, shape: &str) -> Option<String> {
    if let Some(shape) = shape.strip_suffix('?') {
        return if value.is_null() { None } else { fault(value, shape) };
    }
    if let Some(item) = shape.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let Some(items) = value.as_array() else { return Some(format!("{value:.80} is no list")) };
        return items.iter().find_map(|value| fault(value, item));
    }
    let text = value.as_str();
    let digits = text.and_then(|text| text.strip_prefix("0x"));
    let is_hex = |count: Option<usize>| {
        digits.is_some_and(|digits| {
            let lower = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
            lower && count.map_or(digits.len() % 2 == 0, |count| digits.len() == count)
        })
    };
    let holds = match shape {
        "uint" => {
            is_hex(digits.map(str::len))
                && digits.is_some_and(|digits| digits == "0" || !digits.starts_with('0') && !digits.is_empty())
        }
        "hash" => is_hex(Some(64)),
        "address" => is_hex(Some(40)),
        "bytes8" => is_hex(Some(16)),
        "bloom" => is_hex(Some(512)),
        "bytes" => is_hex(None),
        "bool" => value.is_boolean(),
        "text" => text.is_some(),
        "ratio" => value.as_f64().is_some_and(|ratio| (0.0..=1.0).contains(&ratio)),
        name => return object_fault(value, name),
    };
    (!holds).then(|| format!("{value:.80} is no {shape}"))
}

fn object_fault(value: &Value, name: &str) -> Option<String> {
    let Some(object) = value.as_object() else { return Some(format!("{value:.80} is no {name}")) };
    let members = members(name, value);
    let members: Vec<(&str, &str)> = members.split(", ").filter_map(|member| member.trim().split_once(' ')).collect();
    for (member, shape) in &members {
        let Some(value) = object.get(*member) else { return Some(format!("{name} has no {member}")) };
        if let Some(why) = fault(value, shape) {
            return Some(format!("{name}.{member}: {why}"));
        }
    }
    let unknown = object.keys().find(|key| !members.iter().any(|(member, _)| member == key));
    unknown.map(|key| format!("{name} has {key}, which nobody describes"))
}

/// Every method with a call for it, and the shape of its result.
fn rows(rpc: &Rpc, contract: &Value) -> Vec<(&'static str, Value, &'static str)> {
    let block = rpc.call("eth_getBlockByNumber", json!(["latest", false]));
    let (hash, tx) = (&block["hash"], &block["transactions"][0]);
    let sender = Account::new(DEV_KEYS[0]).address;
    let call = json!({"from": sender, "to": contract, "input": "0xd09de08a"});
    let mut rows = vec![
        ("eth_chainId", json!([]), "uint"),
        ("eth_syncing", json!([]), "bool"),
        ("eth_accounts", json!([]), "[address]"),
        ("eth_blockNumber", json!([]), "uint"),
        ("eth_gasPrice", json!([]), "uint"),
        ("eth_maxPriorityFeePerGas", json!([]), "uint"),
        ("eth_blobBaseFee", json!([]), "uint"),
        ("eth_feeHistory", json!(["0x3", "latest", [10, 50]]), "feeHistory"),
        ("eth_call", json!([call, "latest"]), "bytes"),
        ("eth_estimateGas", json!([call]), "uint"),
        ("eth_createAccessList", json!([call, "latest"]), "createdList"),
        ("eth_createAccessList", json!([{"from": sender, "to": contract, "input": "0xa9cc4718"}]), "createdList"),
        ("eth_getBalance", json!([sender, "latest"]), "uint"),
        ("eth_getStorageAt", json!([contract, "0x0", "latest"]), "hash"),
        ("eth_getTransactionCount", json!([sender, "latest"]), "uint"),
        ("eth_getCode", json!([contract, "latest"]), "bytes"),
        ("eth_getProof", json!([contract, [format!("{:#066x}", 0)], "latest"]), "proof"),
        ("eth_getLogs", json!([{"fromBlock": "0x1", "toBlock": "latest"}]), "[log]"),
        ("eth_getBlockByHash", json!([hash, false]), "blockOfHashes"),
        ("eth_getBlockByHash", json!([hash, true]), "block"),
        ("eth_getBlockByNumber", json!(["0x0", true]), "block"),
        ("eth_getBlockByNumber", json!(["finalized", false]), "blockOfHashes?"),
        ("eth_getBlockByNumber", json!(["0xffffff", false]), "blockOfHashes?"),
        ("eth_getBlockReceipts", json!(["latest"]), "[receipt]"),
        ("eth_getBlockTransactionCountByHash", json!([hash]), "uint"),
        ("eth_getBlockTransactionCountByNumber", json!(["latest"]), "uint"),
        ("eth_getUncleCountByBlockHash", json!([hash]), "uint"),
        ("eth_getUncleCountByBlockNumber", json!(["latest"]), "uint"),
        ("eth_getTransactionByBlockHashAndIndex", json!([hash, "0x1"]), "transaction"),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["latest", "0x0"]), "transaction"),
        ("eth_getTransactionByHash", json!([tx]), "transaction"),
        ("eth_getTransactionReceipt", json!([tx]), "receipt"),
        ("eth_getTransactionReceipt", json!([format!("0x{}", "11".repeat(32))]), "receipt?"),
        ("eth_newFilter", json!([{"address": contract}]), "uint"),
        ("eth_newBlockFilter", json!([]), "uint"),
        ("eth_newPendingTransactionFilter", json!([]), "uint"),
        ("debug_getRawHeader", json!(["latest"]), "bytes"),
        ("debug_getRawBlock", json!(["latest"]), "bytes"),
        ("debug_getRawReceipts", json!(["latest"]), "[bytes]"),
        ("debug_getRawTransaction", json!([tx]), "bytes"),
        ("net_version", json!([]), "text"),
    ];
    for (made_by, params, shape) in [
        ("eth_newFilter", json!([{"fromBlock": "0x1"}]), "[log]"),
        ("eth_newBlockFilter", json!([]), "[hash]"),
        ("eth_newPendingTransactionFilter", json!([]), "[hash]"),
    ] {
        let id = rpc.call(made_by, params);
        rows.push(("eth_getFilterChanges", json!([id]), shape));
        if made_by == "eth_newFilter" {
            rows.push(("eth_getFilterLogs", json!([id]), shape));
        }
        rows.push(("eth_uninstallFilter", json!([id]), "bool"));
    }
    rows
}

#[track_caller]
fn check(rpc: &Rpc, contract: &Value) {
    let mut faults = Vec::new();
    for (method, params, shape) in rows(rpc, contract) {
        match rpc.try_call(method, params.clone()) {
            Ok(result) => faults.extend(fault(&result, shape).map(|why| format!("{method} {params}: {why}"))),
            // go-ethereum has no final block until somebody names one.
            Err(error) if method == "eth_getBlockByNumber" && error.message.contains("finalized block not found") => {}
            Err(error) => faults.push(format!("{method} {params}: {error:?}")),
        }
    }
    assert!(faults.is_empty(), "{}\n{}", rpc.url(), faults.join("\n"));
}

#[test]
fn results_have_the_shapes_of_execution_apis() {
    let _turn = super::turn();
    let mut workload = Workload::new(41);
    let contract = json!(workload.contract_address);
    let raw = [vec![workload.deploy()], workload.round()].concat();
    let Some(geth) = super::peer("SEQUENCER_GETH", "results_have_the_shapes_of_execution_apis, go-ethereum's part")
    else {
        let sequencer = Sequencer::start_in(TempFolder::new("shapes"), "osaka", &FAST_BLOCKS);
        let hashes = sequencer.rpc.batch("eth_sendRawTransaction", raw.iter().map(|raw| json!([raw])));
        super::process::poll_until("mined", std::time::Duration::from_secs(60), || {
            let last = hashes.last()?.as_ref().ok()?;
            (!sequencer.rpc.call("eth_getTransactionReceipt", json!([last])).is_null()).then_some(())
        });
        check(&sequencer.rpc, &contract);
        sequencer.stop();
        return;
    };
    let pair = Pair::start(&geth);
    pair.mine(&raw[..1]);
    pair.mine(&raw[1..]);
    for rpc in pair.both() {
        check(rpc, &contract);
    }
    for method in
        ["eth_coinbase", "eth_sign", "eth_signTransaction", "eth_sendTransaction", "eth_simulateV1", "eth_config"]
    {
        let error = pair.both()[0].try_call(method, json!([])).expect_err("docs/RPC.md says that it is not served");
        assert_eq!(error.code, -32601, "{method}");
    }
}

/// The checker finds what is wrong: a table that accepts everything would be worth nothing.
#[test]
fn a_wrong_shape_is_found() {
    for (value, shape) in [
        (json!("0x01"), "uint"),
        (json!("0x"), "uint"),
        (json!("0xG"), "uint"),
        (json!(1), "uint"),
        (json!(null), "hash"),
        (json!("0x00"), "hash"),
        (json!("0xABCDEF0123456789ABCDEF0123456789ABCDEF01"), "address"),
        (json!("0x123"), "bytes"),
        (json!({"address": "0x0000000000000000000000000000000000000001"}), "accessEntry"),
        (json!({"address": "0x0000000000000000000000000000000000000001", "storageKeys": [], "more": 1}), "accessEntry"),
        (json!([["0x1"], ["0x02"]]), "[[uint]]"),
    ] {
        assert!(fault(&value, shape).is_some(), "{value} passes as {shape}");
    }
    for (value, shape) in [(json!("0x0"), "uint"), (json!(null), "hash?"), (json!([]), "[log]"), (json!("0x"), "bytes")]
    {
        assert_eq!(fault(&value, shape), None);
    }
}
