//! `eth_call` and `eth_estimateGas` on small contracts.

use std::cell::Cell;
use std::sync::Arc;

use alloy_primitives::hex;
use serde_json::json;

use super::fixture::{
    CHAIN_ID, MemoryHistory, account, context_of, heads, keep_state, memory_block, memory_tx, open_block, query, state,
};
use crate::builder::block::{Heads, StateDiff};
use crate::primitives::{Address, U256};
use crate::rpc::Method;
use crate::rpc::call::{CallEnvironment, call, estimate_gas};
use crate::rpc::call_request::{BlockOverrides, CallRequest};
use crate::rpc::call_state::CallState;
use crate::rpc::error::RpcError;
use crate::rpc::query::QueryBounds;
use crate::state::StateReader;

const RICH: Address = Address::repeat_byte(0xaa);
const POOR: Address = Address::repeat_byte(0xbb);
/// Returns slot 0.
const READER: Address = Address::repeat_byte(0x01);
/// Reverts with `Error("no")`.
const REVERTER: Address = Address::repeat_byte(0x02);
/// Loops for ever.
const LOOPER: Address = Address::repeat_byte(0x03);
/// Returns base fee, number and timestamp.
const BLOCK_READER: Address = Address::repeat_byte(0x04);
/// Writes 1 to slot 5.
const WRITER: Address = Address::repeat_byte(0x05);
/// Returns the balance of `POOR`.
const BALANCE_READER: Address = Address::repeat_byte(0x06);
/// Reverts unless a million gas is left.
const GAS_LOVER: Address = Address::repeat_byte(0x07);

fn code(text: &str) -> Vec<u8> {
    hex::decode(text).expect("code is hex")
}

fn accounts() -> Vec<crate::state::genesis::GenesisAccount> {
    let error_words = format!("08c379a0{:064x}{:064x}6e6f{}", 32, 2, "00".repeat(30));
    // Copies the data behind the code to memory and reverts with it.
    let reverter = format!("6064600c5f3960645ffd0000{error_words}");
    vec![
        account(RICH, 10_000_000_000_000_000_000, &[], &[]),
        account(POOR, 1_000, &[], &[]),
        account(READER, 0, &code("5f545f5260205ff3"), &[(0, 42)]),
        account(REVERTER, 0, &code(&reverter), &[]),
        account(LOOPER, 0, &code("5b5f56"), &[]),
        account(BLOCK_READER, 0, &code("485f52436020524260405260605ff3"), &[]),
        account(WRITER, 0, &code("600160055500"), &[]),
        account(BALANCE_READER, 0, &code(&format!("73{POOR:x}315f5260205ff3")), &[]),
        account(GAS_LOVER, 0, &code("5a620f424010600c575f5ffd5b00"), &[]),
    ]
}

fn chain() -> (Heads, MemoryHistory) {
    let block = memory_block(None, Vec::new());
    (heads(&[block], &state(accounts()), None), MemoryHistory::default())
}

#[track_caller]
fn check(method: Method, params: &str, expected: Result<&str, &str>) {
    let (heads, history) = chain();
    check_on(&heads, &history, 1, method, params, expected);
}

#[track_caller]
fn check_on(
    heads: &Heads,
    history: &MemoryHistory,
    durable: u64,
    method: Method,
    params: &str,
    expected: Result<&str, &str>,
) {
    match (query(heads, history, durable, method, params), expected) {
        (Ok(found), Ok(expected)) => assert_eq!(found, json!(expected), "{params}"),
        (Err(error), Err(expected)) => {
            let found = format!("{} {}", error.code, error.message);
            assert!(found.starts_with(expected), "{params}: {found}");
        }
        (found, expected) => panic!("{params}: {found:?} is not {expected:?}"),
    }
}

fn word(value: u64) -> String {
    format!("0x{value:064x}")
}

#[test]
fn calls_return_data_or_say_why_not() {
    let to = |address: Address| format!("[{{\"to\":\"{address}\"}},\"latest\"]");
    check(Method::Call, &to(READER), Ok(&word(42)));
    check(Method::Call, &to(POOR), Ok("0x"));
    check(Method::Call, &to(REVERTER), Err("3 execution reverted: no"));
    check(Method::Call, &to(LOOPER), Err("-32000 out of gas"));
    check(Method::Call, "[{\"data\":\"0xfe\"}]", Err("-32000 invalid opcode: INVALID"));
    check(Method::Call, "[{\"input\":\"0x60015ff3\"}]", Ok("0x00"));
    check(Method::Call, &format!("[{{\"to\":\"{READER}\",\"gas\":\"0x5000\"}}]"), Err("-32000 intrinsic gas too low"));
    // A contract may call, and a base fee of zero is what a call without a price sees.
    check(Method::Call, &format!("[{{\"from\":\"{READER}\",\"to\":\"{READER}\"}}]"), Ok(&word(42)));
    let block = format!("0x{:064x}{:064x}{:064x}", 0, 0, 1_000);
    check(Method::Call, &to(BLOCK_READER), Ok(&block));
    let priced =
        format!("[{{\"from\":\"{RICH}\",\"to\":\"{BLOCK_READER}\",\"gasPrice\":\"0x3b9aca00\",\"gas\":\"0x10000\"}}]");
    check(Method::Call, &priced, Ok(&format!("0x{:064x}{:064x}{:064x}", 1_000_000_000, 0, 1_000)));
    let cheap = format!("[{{\"from\":\"{RICH}\",\"to\":\"{READER}\",\"gasPrice\":\"0x1\",\"gas\":\"0x10000\"}}]");
    check(Method::Call, &cheap, Err("-32000 max fee per gas less than block base fee"));
    let expensive = format!("[{{\"from\":\"{POOR}\",\"to\":\"{READER}\",\"value\":\"0x3e9\"}}]");
    check(Method::Call, &expensive, Err("-32000 insufficient funds"));
}

#[test]
fn bad_parameters_are_named() {
    let bad = |member: &str, part: &str| {
        let (heads, history) = chain();
        let error = query(&heads, &history, 1, Method::Call, &format!("[{{{member}}}]")).expect_err("it is bad");
        assert_eq!(error.code, -32602);
        assert!(error.message.contains(part), "{}", error.message);
    };
    bad("\"to\":\"0x12\"", "argument 0 (transaction), to: invalid value \"0x12\"");
    bad("\"value\":\"12\"", "value: invalid value \"12\"");
    bad("\"gas\":true", "gas: not a string");
    bad("\"data\":\"0x1\"", "data: ");
    bad("\"data\":\"0x01\",\"input\":\"0x02\"", "both \"data\" and \"input\" are set");
    bad("\"chainId\":\"0x1\"", "chainId: tx 1, chain 1337");
    bad("\"gasPrice\":\"0x1\",\"maxFeePerGas\":\"0x1\"", "both gasPrice and");
    bad("\"maxFeePerGas\":\"0x1\",\"maxPriorityFeePerGas\":\"0x2\"", "maxFeePerGas (1) < maxPriorityFeePerGas (2)");
    bad("\"blobVersionedHashes\":[]", "blob transactions are not served");
    bad("\"accessList\":[{\"storageKeys\":[]}]", "address: missing");
    bad("\"accessList\":7", "accessList: not an array");
    check(Method::Call, "[]", Err("-32602 missing value for required argument 0 (transaction)"));
    check(Method::Call, "[7]", Err("-32602 invalid argument 0 (transaction)"));
    check(Method::Call, "[{},\"0x5\"]", Err("-32000 header not found"));
}

#[test]
fn overrides_replace_what_they_name() {
    let check = |to: Address, overrides: &str, expected: Result<&str, &str>| {
        check(Method::Call, &format!("[{{\"to\":\"{to}\"}},\"latest\",{overrides}]"), expected);
    };
    let (zero, nine) = (word(0), word(9));
    check(BALANCE_READER, &format!("{{\"{POOR}\":{{\"balance\":\"0x9\"}}}}"), Ok(&nine));
    check(READER, &format!("{{\"{READER}\":{{\"state\":{{\"{zero}\":\"{nine}\"}}}}}}"), Ok(&nine));
    check(READER, &format!("{{\"{READER}\":{{\"state\":{{\"{nine}\":\"{nine}\"}}}}}}"), Ok(&zero));
    check(READER, &format!("{{\"{READER}\":{{\"stateDiff\":{{\"{zero}\":\"{nine}\"}}}}}}"), Ok(&nine));
    check(READER, &format!("{{\"{READER}\":{{\"stateDiff\":{{\"{nine}\":\"{nine}\"}}}}}}"), Ok(&word(42)));
    check(POOR, &format!("{{\"{POOR}\":{{\"code\":\"0x60095f5260205ff3\"}}}}"), Ok(&nine));
    check(READER, &format!("{{\"{READER}\":{{\"code\":\"0x\"}}}}"), Ok("0x"));
    // Something that looks like a delegation but is none must not harm the thread.
    check(READER, &format!("{{\"{READER}\":{{\"code\":\"0xef0100\"}}}}"), Err("-32000 invalid opcode"));
    check(READER, &format!("{{\"{READER}\":{{\"state\":{{}},\"stateDiff\":{{}}}}}}"), Err("-32602"));
    check(READER, &format!("{{\"{READER}\":{{\"movePrecompileToAddress\":\"{POOR}\"}}}}"), Err("-32602"));
    check(READER, "{\"0x12\":{}}", Err("-32602"));
    let block = "{\"number\":\"0x7\",\"time\":\"0x8\",\"baseFeePerGas\":\"0x9\"}";
    let expected = format!("0x{:064x}{:064x}{:064x}", 0, 7, 8);
    check(BLOCK_READER, &format!("null,{block}"), Ok(&expected));
    check(BLOCK_READER, "null,{\"beaconRoot\":\"0x00\"}", Err("-32602"));
}

#[test]
fn pending_calls_see_the_open_block_up_to_the_durable_sequence() {
    let slot = |value: u64| StateDiff::Slot { address: READER, slot: U256::ZERO, value: U256::from(value) };
    let parent = memory_block(None, Vec::new());
    let mut txs = vec![memory_tx(0, POOR, Vec::new()), memory_tx(1, POOR, Vec::new()), memory_tx(2, POOR, Vec::new())];
    txs[0].diffs = vec![slot(50)];
    txs[1].diffs = vec![
        slot(51),
        StateDiff::Account {
            address: POOR,
            nonce: 0,
            balance_wei: U256::from(77),
            code_hash: crate::state::CODE_HASH_EMPTY,
        },
    ];
    txs[2].diffs = vec![
        StateDiff::Deleted { address: READER },
        StateDiff::Slot { address: READER, slot: U256::from(3), value: U256::from(4) },
    ];
    let next = memory_block(Some(&parent), txs.clone());
    let (_, open) = open_block(&next.header, &next.txs, 2);
    let heads = heads(&[parent], &state(accounts()), Some(Arc::clone(&open)));
    let history = MemoryHistory::default();
    let read = |address: Address, block: &str| format!("[{{\"to\":\"{address}\"}},\"{block}\"]");
    let check = |durable: u64, params: &str, expected: u64| {
        check_on(&heads, &history, durable, Method::Call, params, Ok(&word(expected)));
    };
    check(1, &read(READER, "pending"), 42);
    check(2, &read(READER, "pending"), 50);
    check(3, &read(READER, "pending"), 51);
    check(3, &read(READER, "latest"), 42);
    check(2, &read(BALANCE_READER, "pending"), 1_000);
    check(3, &read(BALANCE_READER, "pending"), 77);
    // Deleted with its code: the call reaches an empty account.
    check_on(&heads, &history, 4, Method::Call, &read(READER, "pending"), Ok("0x"));
    // With code pretended back, its storage is still gone.
    let again = format!("[{{\"to\":\"{READER}\"}},\"pending\",{{\"{READER}\":{{\"code\":\"0x5f545f5260205ff3\"}}}}]");
    check(4, &again, 0);
}

fn direct(request: &CallRequest, execute_estimate: bool, clock: &dyn Fn() -> u64) -> Result<u64, RpcError> {
    struct NoHashes;
    impl crate::rpc::call_state::BlockHashes for NoHashes {
        fn block_hash(&self, _number: u64) -> Result<crate::primitives::B256, String> {
            Ok(crate::primitives::B256::ZERO)
        }
    }
    let snapshot = state(accounts());
    let mut call_state = CallState::new(&snapshot, None, Vec::new(), &NoHashes);
    let context = context_of(&memory_block(None, Vec::new()).header);
    let bounds = QueryBounds { gas_max: 50_000_000, duration_ns_max: 1_000 };
    let environment = CallEnvironment::new(&context, BlockOverrides::default(), CHAIN_ID, bounds, clock);
    if execute_estimate {
        return estimate_gas(request, &mut call_state, &environment);
    }
    call(request, &mut call_state, &environment).map(|_| 0)
}

#[test]
fn the_time_limit_ends_a_loop() {
    let now = Cell::new(0);
    let clock = || now.replace(now.get() + 300);
    let request = CallRequest { to: Some(LOOPER), ..CallRequest::default() };
    let error = direct(&request, false, &clock).expect_err("the loop does not end by itself");
    assert_eq!((error.code, error.message.as_str()), (-32000, "execution aborted (timeout = 0ms)"));
    assert!(now.get() < 3_000, "it stops soon after its deadline");
}

#[test]
fn an_estimate_is_enough_and_not_much_more() {
    let clock = || 0;
    let needed = |request: &CallRequest| direct(request, true, &clock).expect("it can be executed");
    let request = |to: Address| CallRequest { from: RICH, to: Some(to), ..CallRequest::default() };
    let transfer = CallRequest { value_wei: U256::from(5), ..request(POOR) };
    assert_eq!(needed(&transfer), 21_000);
    for to in [WRITER, GAS_LOVER, READER] {
        let estimate = needed(&request(to));
        assert!(direct(&CallRequest { gas: Some(estimate), ..request(to) }, false, &clock).is_ok(), "{to}");
        let less = estimate - estimate * 16 / 1_000;
        assert!(direct(&CallRequest { gas: Some(less), ..request(to) }, false, &clock).is_err(), "{to}");
    }
    let message = |request: &CallRequest| direct(request, true, &clock).expect_err("it cannot be executed").message;
    assert_eq!(message(&request(REVERTER)), "execution reverted: no");
    assert_eq!(message(&request(LOOPER)), "gas required exceeds allowance (16777216)");
    let unpaid = CallRequest { from: POOR, gas_price_wei: Some(2_000_000_000), ..request(WRITER) };
    assert_eq!(message(&unpaid), "gas required exceeds allowance (0)");
    let broke = CallRequest { value_wei: U256::from(1_000), ..unpaid };
    assert!(message(&broke).starts_with("insufficient funds for transfer"));
}

/// Block 1 has left memory, and the state's files still hold what it left.
#[test]
fn states_that_left_memory_are_read_where_the_files_hold_them() {
    let old = state(vec![account(RICH, 77, &[], &[]), account(READER, 0, &code("5f545f5260205ff3"), &[(0, 43)])]);
    let mut blocks = vec![memory_block(None, Vec::new())];
    for _ in 0..5 {
        let mut block = memory_block(blocks.last(), Vec::new());
        if block.header.number == 1 {
            block.header.state_root = old.root();
            block.hash = block.header.hash_slow();
        }
        blocks.push(block);
    }
    let heads = heads(&blocks[4..], &state(accounts()), None);
    let one = blocks[1].hash;
    let history = MemoryHistory { blocks };
    let ask = |method, params: String| {
        query(&heads, &history, 1, method, &params).map_err(|error| format!("{} {}", error.code, error.message))
    };
    let gone = "-32000 historical state of block 1 is not available: the state of blocks 4 to 5 is";
    assert_eq!(ask(Method::GetBalance, format!("[\"{RICH}\",\"0x1\"]")), Err(gone.to_owned()));
    keep_state(1, &old);
    assert_eq!(ask(Method::GetBalance, format!("[\"{RICH}\",\"0x1\"]")), Ok(json!("0x4d")));
    assert_eq!(ask(Method::GetBalance, format!("[\"{RICH}\",{{\"blockHash\":\"{one}\"}}]")), Ok(json!("0x4d")));
    assert_eq!(ask(Method::GetTransactionCount, format!("[\"{POOR}\",\"0x1\"]")), Ok(json!("0x0")));
    assert_eq!(ask(Method::GetCode, format!("[\"{READER}\",\"0x1\"]")), Ok(json!("0x5f545f5260205ff3")));
    assert_eq!(ask(Method::GetStorageAt, format!("[\"{READER}\",\"0x0\",\"0x1\"]")), Ok(json!(word(43))));
    assert_eq!(ask(Method::Call, format!("[{{\"to\":\"{READER}\"}},\"0x1\"]")), Ok(json!(word(43))));
    let proof = ask(Method::GetProof, format!("[\"{RICH}\",[],\"0x1\"]")).expect("it is proved");
    assert_eq!((&proof["balance"], &proof["codeHash"]), (&json!("0x4d"), &json!(crate::state::CODE_HASH_EMPTY)));
    // Its neighbours are not there, whatever is kept of it; and what never was is not found.
    let gone = "-32000 historical state of block 2 is not available: the state of blocks 4 to 5 is";
    assert_eq!(ask(Method::GetBalance, format!("[\"{RICH}\",\"0x2\"]")), Err(gone.to_owned()));
    assert_eq!(ask(Method::GetBalance, format!("[\"{RICH}\",\"0x6\"]")), Err("-32000 header not found".to_owned()));
}
