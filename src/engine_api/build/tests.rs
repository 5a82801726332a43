//! The machine against a client that is played by rows: what it asks, and what it makes of each answer.

use serde_json::json;

use alloy_consensus::Header;

use super::*;
use crate::builder::block::BlockContext;
use crate::primitives::{Address, Fork};

const NUMBER: u64 = 9;

fn request(count: u8) -> BuildRequest {
    let context = BlockContext {
        number: NUMBER,
        parent_hash: B256::repeat_byte(1),
        timestamp: 77,
        base_fee_per_gas_wei: 7,
        prev_randao: B256::ZERO,
        coinbase: Address::repeat_byte(2),
        gas_limit: 30_000_000,
        extra_data: Bytes::new(),
        parent_beacon_block_root: B256::ZERO,
        fork: Fork::Osaka,
    };
    let tx = |byte: u8| BuildTx {
        hash: B256::repeat_byte(byte),
        raw: vec![0x02, byte].into(),
        sender: Address::repeat_byte(byte),
        authorities: Vec::new(),
    };
    BuildRequest { context, transactions: (1..=count).map(tx).collect(), is_given: false }
}

/// What the client would build of these transactions: an empty block's header fields, with its real hash.
fn envelope(transactions: &[Bytes], timestamp: u64) -> Value {
    let mut root = crate::state::ListRoot::new();
    transactions.iter().for_each(|raw| root.push(raw));
    let header = Header {
        parent_hash: B256::repeat_byte(1),
        beneficiary: Address::repeat_byte(2),
        transactions_root: root.finish(),
        number: NUMBER,
        gas_limit: 30_000_000,
        timestamp,
        base_fee_per_gas: Some(7),
        withdrawals_root: Some(alloy_consensus::constants::EMPTY_ROOT_HASH),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(alloy_eips::eip7685::EMPTY_REQUESTS_HASH),
        ..Header::default()
    };
    json!({
        "executionPayload": {
            "parentHash": header.parent_hash, "feeRecipient": header.beneficiary, "stateRoot": header.state_root,
            "receiptsRoot": header.receipts_root, "logsBloom": header.logs_bloom, "prevRandao": header.mix_hash,
            "blockNumber": format!("{NUMBER:#x}"), "gasLimit": "0x1c9c380", "gasUsed": "0x0",
            "timestamp": format!("{timestamp:#x}"), "extraData": "0x", "baseFeePerGas": "0x7",
            "blockHash": header.hash_slow(), "transactions": transactions, "withdrawals": [],
            "blobGasUsed": "0x0", "excessBlobGas": "0x0",
        },
        "executionRequests": [],
    })
}

fn raws(count: u8) -> Vec<Bytes> {
    (1..=count).map(|byte| vec![0x02, byte].into()).collect()
}

fn rpc_error(number: i64, message: &str) -> CallError {
    CallError::Rpc { method: "m", number, code: ErrorCode::from(number), message: message.to_owned() }
}

fn hash_of(envelope: &Value) -> Value {
    envelope["executionPayload"]["blockHash"].clone()
}

/// Lets `client` answer every question until the machine is done; the methods asked, and the end.
fn run(
    build: &mut Build,
    mut client: impl FnMut(Method, &Value) -> Result<Value, CallError>,
) -> (Vec<&'static str>, Step) {
    let mut asked = Vec::new();
    let mut step = build.step();
    loop {
        step = match step {
            Step::Ask { method, params } => {
                asked.push(method.name());
                assert!(asked.len() < 64, "{asked:?}");
                let params = serde_json::from_slice(&params).expect("parameters are JSON");
                let answer = client(method, &params);
                build.answered(answer)
            }
            Step::Wait => build.waited(),
            end => return (asked, end),
        };
    }
}

/// A client that takes every list but those with one of `bad` in them.
fn lists(bad: &'static [u8]) -> impl FnMut(Method, &Value) -> Result<Value, CallError> {
    move |method, params| match method {
        Method::BuildBlock => {
            assert_eq!((&params[0], &params[3]), (&json!(B256::repeat_byte(1)), &json!("0x")));
            assert_eq!(params[1]["timestamp"], "0x4d");
            let list: Vec<Bytes> = serde_json::from_value(params[2].clone()).expect("a list of data");
            match list.iter().find(|raw| bad.contains(&raw[1])) {
                Some(raw) => Err(rpc_error(-32_000, &format!("nonce too low: {}", raw[1]))),
                None => Ok(envelope(&list, 77)),
            }
        }
        Method::NewPayloadWithWitnessV4 => Ok(json!({
            "status": "VALID", "witness": "0xc3", "latestValidHash": params[0]["blockHash"], "validationError": null
        })),
        other => panic!("{other:?} was not expected"),
    }
}

#[track_caller]
fn check_refused(count: u8, bad: &'static [u8], expected: u8) {
    let mut build = Build::new(request(count), Offers::default());
    let (asked, end) = run(&mut build, lists(bad));
    let Step::Finish(BuildAnswer::Refused { hash, reason }) = end else { panic!("{end:?} after {asked:?}") };
    assert_eq!((hash, reason), (B256::repeat_byte(expected), format!("nonce too low: {expected}")));
    assert!(asked.len() <= 2 + 8, "{} questions for {count} transactions", asked.len());
}

#[test]
fn a_list_that_can_be_placed_is_built_checked_and_validated() {
    let mut build = Build::new(request(3), Offers::default());
    let (asked, end) = run(&mut build, lists(&[]));
    assert_eq!(asked, ["testing_buildBlockV1", "engine_newPayloadWithWitnessV4"]);
    let Step::Validate(checked) = end else { panic!("{end:?}") };
    assert_eq!(
        (checked.block.header.number, checked.block.transactions.clone(), checked.has_foreign),
        (NUMBER, raws(3), false)
    );
    assert_eq!(json!(checked.block.hash), hash_of(&envelope(&raws(3), 77)));
    assert!(matches!(&checked.witness, WitnessSource::Rlp(bytes) if bytes[..] == [0xc3]));
    assert!(build.known().contains_key(&B256::repeat_byte(2)));
}

#[test]
fn the_first_that_cannot_be_placed_is_found_by_halving() {
    check_refused(1, &[1], 1);
    check_refused(7, &[1, 2, 7], 1);
    check_refused(7, &[7], 7);
    check_refused(100, &[63, 64, 99], 63);
    for bad in [&[1_u8][..], &[2], &[3], &[4], &[5]] {
        check_refused(5, bad, bad[0]);
    }
}

#[test]
fn what_concerns_no_transaction_is_no_refusal() {
    let check = |message: &'static str, expected: &str| {
        let mut build = Build::new(request(4), Offers::default());
        let (asked, end) = run(&mut build, |_, _| Err(rpc_error(-32_000, message)));
        let Step::Finish(BuildAnswer::Failed { why }) = end else { panic!("{end:?}") };
        assert!(why.contains(expected), "{why}");
        assert!(asked.len() <= 2, "{asked:?}");
    };
    check("parentHash is not current head", "parentHash is not current head");
    // The list and the empty block.
    check("database closed", "database closed");
    let mut build = Build::new(request(4), Offers::default());
    let gone = || CallError::Unreachable { address: "el".to_owned(), what: "connection refused".to_owned() };
    let (_, end) = run(&mut build, |_, _| Err(gone()));
    assert!(matches!(end, Step::Finish(BuildAnswer::Failed { .. })), "{end:?}");
}

#[test]
fn a_client_without_lists_gets_its_pool_filled_and_builds_by_itself() {
    let mut build = Build::new(request(2), Offers::default());
    let foreign = [raws(2), vec![vec![0x02, 0x99].into()]].concat();
    let built = envelope(&foreign, 77);
    let (asked, end) = run(&mut build, |method, params| match method {
        Method::BuildBlock | Method::NewPayloadWithWitnessV4 => Err(rpc_error(-32_601, "not found")),
        Method::SendRawTransaction if params[0] == "0x0201" => Err(rpc_error(-32_000, "already known")),
        Method::SendRawTransaction => Err(rpc_error(-32_000, "txpool is full")),
        Method::ForkchoiceStartedV3 => {
            assert_eq!(params[0]["headBlockHash"], json!(B256::repeat_byte(1)));
            assert_eq!(params[1]["suggestedFeeRecipient"], json!(Address::repeat_byte(2)));
            Ok(
                json!({"payloadStatus": {"status": "VALID", "latestValidHash": B256::repeat_byte(1)}, "payloadId": "0x03aa"}),
            )
        }
        Method::GetPayloadV5 => {
            assert_eq!(params, &json!(["0x03aa"]));
            Ok(built.clone())
        }
        Method::NewPayloadValueV4 => Ok(json!({"status": "VALID", "latestValidHash": hash_of(&built)})),
        Method::ExecutionWitness => Ok(json!({
            "headers": [{"number": "0x7"}, {"number": "0x8"}], "codes": ["0x60"], "state": ["0xc0", "0xc1"], "keys": null
        })),
        other => panic!("{other:?} was not expected"),
    });
    assert_eq!(
        asked,
        [
            "testing_buildBlockV1",
            "eth_sendRawTransaction",
            "eth_sendRawTransaction",
            "engine_forkchoiceUpdatedV3",
            "engine_getPayloadV5",
            "engine_newPayloadWithWitnessV4",
            "engine_newPayloadV4",
            "debug_executionWitness",
        ]
    );
    let Step::Validate(checked) = end else { panic!("{end:?}") };
    assert!(checked.has_foreign && checked.block.transactions == foreign);
    let WitnessSource::Parts { lowest_header, codes, state } = &checked.witness else {
        panic!("{:?}", checked.witness)
    };
    assert_eq!((*lowest_header, codes.len(), state.len()), (7, 1, 2));
    assert_eq!(build.offers(), Offers { by_list: false, with_witness: false });
    // What the client's pool refuses is told with its words.
    let mut build = Build::new(request(2), Offers { by_list: false, with_witness: true });
    let (_, end) = run(&mut build, |_, _| Err(rpc_error(-32_000, "intrinsic gas too low")));
    assert!(matches!(end, Step::Finish(BuildAnswer::Refused { hash, .. }) if hash == B256::repeat_byte(1)), "{end:?}");
}

#[test]
fn another_block_than_was_asked_for_is_not_taken() {
    let check = |built: Value, expected: &str| {
        let mut build = Build::new(request(2), Offers::default());
        let (_, end) = run(&mut build, |method, _| match method {
            Method::BuildBlock => Ok(built.clone()),
            other => panic!("{other:?} was not expected"),
        });
        let Step::Finish(BuildAnswer::Failed { why }) = end else { panic!("{end:?}") };
        assert!(why.contains(expected), "{why}");
    };
    check(envelope(&raws(2), 78), "timestamp 78, asked for 77");
    check(envelope(&raws(1), 77), "1 transactions, or in another order; asked for 2");
    check(envelope(&[raws(2)[1].clone(), raws(2)[0].clone()], 77), "in another order");
    check(json!({}), "no executionPayload");
    let mut wrong = envelope(&raws(2), 77);
    wrong["executionPayload"]["gasUsed"] = json!("0x1");
    check(wrong, "its hash is 0x");
    let mut wrong = envelope(&raws(2), 77);
    wrong["executionPayload"]["stateRoot"] = json!("0x12");
    check(wrong, "stateRoot is malformed");
}

#[test]
fn a_verdict_on_its_own_block_counts_only_when_it_fits() {
    let check = |status: Value| {
        let mut build = Build::new(request(1), Offers::default());
        let (_, end) = run(&mut build, |method, _| match method {
            Method::BuildBlock => Ok(envelope(&raws(1), 77)),
            _ => Ok(status.clone()),
        });
        match end {
            Step::Finish(answer) => format!("{answer:?}"),
            Step::Accuse { block, why } => format!("block {}: {why}", block.header.number),
            other => panic!("{other:?}"),
        }
    };
    let invalid = json!({"status": "INVALID", "latestValidHash": null, "validationError": "bad root"});
    let accused = check(invalid);
    assert!(accused.starts_with("block ") && accused.ends_with("which it built: bad root"), "{accused}");
    assert!(check(json!({"status": "SYNCING", "latestValidHash": null})).starts_with("Failed"));
    assert!(check(json!({"status": "VALID", "latestValidHash": B256::repeat_byte(5)})).starts_with("Failed"));
}

#[test]
fn a_block_that_l1_has_begun_is_built_as_that_or_not_at_all() {
    let given = |gas_limit, extra: &'static [u8]| {
        let BuildRequest { context, transactions, .. } = request(2);
        let context = BlockContext { gas_limit, extra_data: Bytes::from_static(extra), ..context };
        BuildRequest { context, transactions, is_given: true }
    };
    let end = |request, offers| {
        let mut build = Build::new(request, offers);
        let client = |method, params: &Value| match method {
            Method::BuildBlock => {
                Ok(envelope(&serde_json::from_value::<Vec<Bytes>>(params[2].clone()).expect("data"), 77))
            }
            _ => {
                let hash = &params[0]["blockHash"];
                Ok(json!({"status": "VALID", "latestValidHash": hash, "validationError": null, "witness": "0xc0"}))
            }
        };
        match run(&mut build, client).1 {
            Step::Validate(checked) => format!("validate, foreign: {}", checked.has_foreign),
            Step::Finish(BuildAnswer::Failed { why }) => why,
            other => panic!("{other:?}"),
        }
    };
    let offers = Offers::default();
    assert_eq!(end(given(30_000_000, b""), offers), "validate, foreign: true");
    assert_eq!(end(request(2), offers), "validate, foreign: false");
    let other = "it built another block than was asked for: ";
    let limit = format!("{other}gas limit (--miner.gaslimit) 30000000, asked for 29999999");
    assert_eq!(end(given(29_999_999, b""), offers), limit);
    assert_eq!(end(given(30_000_000, b"a"), offers), format!("{other}extra data 0x, asked for 0x61"));
    let by_pool = end(given(30_000_000, b""), Offers { by_list: false, ..offers });
    assert!(by_pool.starts_with("block 9: L1 has the beginning of it, and only testing_buildBlockV1"), "{by_pool}");
}
