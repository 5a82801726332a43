//! The options object in every form, and each condition on both sides.

#![allow(clippy::unwrap_used, reason = "a test may stop at a surprise")]

use std::collections::HashMap;

use alloy_primitives::{address, b256};
use proptest::prelude::*;

use super::*;

const ACCOUNT: Address = address!("00000000000000000000000000000000000000aa");
const OTHER: Address = address!("00000000000000000000000000000000000000bb");
const ROOT: B256 = b256!("00000000000000000000000000000000000000000000000000000000000000cc");
/// What is wrong with `code` values, in full.
const CODE_ERROR: &str = "conditional options: code is not hex bytes of a possible code";

struct State {
    nonce: u64,
    balance_wei: U256,
    code: CodeView,
    root: RootView,
    slots: HashMap<B256, B256>,
    reads: usize,
}

impl Default for State {
    fn default() -> Self {
        let slots = HashMap::from([(word("0x1").unwrap(), word("0x2a").unwrap())]);
        let code = CodeView { hash: KECCAK256_EMPTY, is_delegation: false };
        Self { nonce: 5, balance_wei: U256::from(1_000), code, root: RootView::Hashed(ROOT), slots, reads: 0 }
    }
}

/// Only `ACCOUNT` exists.
impl ConditionState for State {
    fn nonce(&mut self, address: &Address) -> u64 {
        self.reads += 1;
        if *address == ACCOUNT { self.nonce } else { 0 }
    }

    fn balance_wei(&mut self, address: &Address) -> U256 {
        self.reads += 1;
        if *address == ACCOUNT { self.balance_wei } else { U256::ZERO }
    }

    fn code(&mut self, address: &Address) -> CodeView {
        self.reads += 1;
        if *address == ACCOUNT { self.code } else { CodeView { hash: B256::ZERO, is_delegation: false } }
    }

    fn storage(&mut self, address: &Address, slot: &B256) -> B256 {
        self.reads += 1;
        if *address == ACCOUNT { self.slots.get(slot).copied().unwrap_or_default() } else { B256::ZERO }
    }

    fn storage_root(&mut self, _: &Address) -> RootView {
        self.reads += 1;
        self.root
    }
}

fn text(verdict: Verdict) -> String {
    match verdict {
        Verdict::Met => "met".to_owned(),
        Verdict::NotYet(reason) => format!("not yet: {reason}"),
        Verdict::Impossible(reason) => format!("impossible: {reason}"),
    }
}

/// Judges `options` (single quotes for double ones) at block 100, timestamp 1,000.
#[track_caller]
fn check_in(mut state: State, options: &str, expected: &str) {
    let options: Value = serde_json::from_str(&options.replace('\'', "\"")).unwrap();
    let actual = match Conditions::from_json(&options) {
        Ok(conditions) => text(conditions.evaluate(&mut state, 100, 1_000)),
        Err(error) => error.to_string(),
    };
    assert_eq!(actual, expected);
}

#[track_caller]
fn check(options: &str, expected: &str) {
    check_in(State::default(), options, expected);
}

/// `knownAccounts` with one entry for `ACCOUNT`.
fn known(entry: &str) -> String {
    format!("{{'knownAccounts': {{'{ACCOUNT}': {entry}}}}}")
}

#[test]
fn ranges() {
    check("{}", "met");
    check("{'blockNumberMin': 100, 'blockNumberMax': '0x64'}", "met");
    check("{'blockNumberMin': 101}", "not yet: block number 100 below minimum 101");
    check("{'blockNumberMax': '0x63'}", "impossible: block number 100 above maximum 99");
    check("{'timestampMin': '0x3e8', 'timestampMax': 1000}", "met");
    check("{'timestampMin': 1001}", "not yet: timestamp 1000 below minimum 1001");
    check("{'timestampMax': 999}", "impossible: timestamp 1000 above maximum 999");
    check("{'blockNumberMin': 101, 'timestampMax': 999}", "impossible: timestamp 1000 above maximum 999");
    check("{'blockNumberMin': 2, 'blockNumberMax': 1}", "conditional options: blockNumber minimum 2 above maximum 1");
    check("{'timestampMin': 2, 'timestampMax': 1}", "conditional options: timestamp minimum 2 above maximum 1");
}

#[test]
fn nonces_and_balances() {
    check(&known("{'nonce': 5}"), "met");
    check(&known("{'nonce': '0x6'}"), &format!("not yet: nonce of {ACCOUNT} is 5, expected 6"));
    check(&known("{'nonce': 4}"), &format!("impossible: nonce of {ACCOUNT} is 5, expected 4"));
    check(&known("{'balance': '0x3e8'}"), "met");
    check(&known("{'balance': 1000}"), "met");
    check(&known("{'balance': 999}"), &format!("not yet: balance of {ACCOUNT} is not the expected one"));
    check(&known("{'balance': 1001}"), &format!("not yet: balance of {ACCOUNT} is not the expected one"));
}

#[test]
fn code_of_accounts() {
    let coded = |code: &[u8], is_delegation| State {
        code: CodeView { hash: keccak256(code), is_delegation },
        ..State::default()
    };
    let not_yet = format!("not yet: code of {ACCOUNT} is not the expected one");
    let never = format!("impossible: code of {ACCOUNT} is not the expected one and cannot change");
    check(&known("{'code': ''}"), "met");
    check(&known("{'code': '0x'}"), "met");
    check(&known("{'code': '0x6001'}"), &not_yet);
    check(&format!("{{'knownAccounts': {{'{OTHER}': {{'code': ''}}}}}}"), "met");
    check_in(coded(&[0x60, 0x01], false), &known("{'code': '0x6001'}"), "met");
    check_in(coded(&[0x60, 0x02], false), &known("{'code': '0x6001'}"), &never);
    check_in(coded(&[0x60, 0x02], false), &known("{'code': ''}"), &never);

    let delegation = [&[0xef, 0x01, 0x00][..], OTHER.as_slice()].concat();
    let to_other = known(&format!("{{'code': '0xef0100{}'}}", &OTHER.to_string()[2..]));
    check_in(coded(&delegation, true), &to_other, "met");
    check_in(coded(&[0xef, 0x01, 0x00, 9], true), &to_other, &not_yet);
    check(&to_other, &not_yet);
    for wrong in ["0xef0100", "0xef", "0x1", "0xzz", "6001"] {
        check(&known(&format!("{{'code': '{wrong}'}}")), CODE_ERROR);
    }
    check(&known("{'code': 1}"), CODE_ERROR);
    check(&known(&format!("{{'code': '0x{}'}}", "60".repeat(24_576))), &not_yet);
    check(&known(&format!("{{'code': '0x{}'}}", "60".repeat(24_577))), CODE_ERROR);
}

#[test]
fn storage_by_slot_and_root() {
    check(&known("{'0x1': '0x2a'}"), "met");
    check(&known(&format!("{{'{}': '{}'}}", word("0x1").unwrap(), word("0x2A").unwrap())), "met");
    check(
        &known("{'0x1': '0x2b'}"),
        &format!("not yet: storage slot {} of {ACCOUNT} is not the expected one", word("0x1").unwrap()),
    );
    check(&known("{'0x2': '0x0'}"), "met");
    check(
        &known("{'0x1': '0x2a', '0x2': '0x1'}"),
        &format!("not yet: storage slot {} of {ACCOUNT} is not the expected one", word("0x2").unwrap()),
    );
    check(&known(&format!("'{ROOT}'")), "met");
    check(
        &known(&format!("'{}'", word("0xcd").unwrap())),
        &format!("not yet: storage root of {ACCOUNT} is not the expected one"),
    );
    let dirty = State { root: RootView::Dirty, ..State::default() };
    check_in(
        dirty,
        &known(&format!("'{ROOT}'")),
        &format!("not yet: storage root of {ACCOUNT} is not known yet: it changed in the open block"),
    );
}

#[test]
fn impossible_wins_over_not_yet() {
    let options = format!(
        "{{'blockNumberMin': 200, 'knownAccounts': {{'{OTHER}': {{'balance': 1}}, '{ACCOUNT}': {{'0x1': '0x0', 'nonce': 4}}}}}}"
    );
    check(&options, &format!("impossible: nonce of {ACCOUNT} is 5, expected 4"));
}

#[test]
fn malformed_options() {
    check("[]", "conditional options: options is not an object");
    check("{'knownAccounts': []}", "conditional options: knownAccounts is not an object");
    check("{'blockNumber': 1}", "conditional options: unknown member \"blockNumber\"");
    let integer = "conditional options: timestampMin is not a 64-bit integer or hex quantity";
    for wrong in ["-1", "1.5", "'1'", "'0x'", "'0xg'", "null", "'0x10000000000000000'", "18446744073709551616", "true"]
    {
        check(&format!("{{'timestampMin': {wrong}}}"), integer);
    }
    check("{'timestampMin': '0xffffffffffffffff'}", "not yet: timestamp 1000 below minimum 18446744073709551615");
    let address = "conditional options: knownAccounts is not keyed by 20-byte hex addresses";
    for wrong in ["0xadd1", "00000000000000000000000000000000000000aa", ""] {
        check(&format!("{{'knownAccounts': {{'{wrong}': {{}}}}}}"), address);
    }
    check(&known("'0xfedc'"), "conditional options: knownAccounts is not a 32-byte hex storage root or an object");
    check(&known("7"), "conditional options: knownAccounts entry is not an object");
    let slot = "conditional options: knownAccounts is not slots and values of 1 to 64 hex digits";
    for wrong in ["{'0x': '0x1'}", "{'storage': '0x1'}", "{'0x1': 1}", "{'0x1': '1'}"] {
        check(&known(wrong), slot);
    }
    check(&known(&format!("{{'0x{}': '0x0'}}", "0".repeat(64))), "met");
    check(&known(&format!("{{'0x{}': '0x0'}}", "0".repeat(65))), slot);
    check("{'paysCoinbase': 'much'}", "conditional options: paysCoinbase is not an integer or hex quantity");
}

#[test]
fn expectations_are_bounded() {
    let slots = |count: usize| (2..count + 2).map(|slot| format!("'{slot:#x}': '0x0'")).collect::<Vec<_>>().join(",");
    check(&known(&format!("{{{}}}", slots(1_000))), "met");
    check(&known(&format!("{{{}}}", slots(1_001))), "conditional options: 1001 expectations, limit 1000");
    check(&known(&format!("{{{}, 'nonce': 5}}", slots(1_000))), "conditional options: 1001 expectations, limit 1000");
    let accounts = |count: u64| {
        let entries: Vec<_> = (0..count)
            .map(|index| format!("'{}': {{'balance': 0}}", Address::from_word(U256::from(index + 1_000_000).into())))
            .collect();
        format!("{{'knownAccounts': {{{}}}}}", entries.join(","))
    };
    check(&accounts(1_000), "met");
    check(&accounts(1_001), "conditional options: 1001 expectations, limit 1000");
}

#[test]
fn payment_is_judged_by_the_execution() {
    let conditions = Conditions::from_json(&serde_json::json!({"paysCoinbase": "0x64"})).unwrap();
    assert_eq!(text(conditions.evaluate(&mut State::default(), 1, 1)), "met");
    assert_eq!(text(conditions.judge_payment(U256::from(99))), "not yet: pays 99 to the coinbase, declared 100");
    assert_eq!(conditions.judge_payment(U256::from(100)), Verdict::Met);
    assert_eq!(Conditions::default().judge_payment(U256::ZERO), Verdict::Met);
}

proptest! {
    /// `evaluate` against the definition, on one account with every kind of expectation; and its cost.
    #[test]
    fn verdict_follows_the_definition(
        block in (0_u64..4, 0_u64..4, 0_u64..4), time in (0_u64..4, 0_u64..4, 0_u64..4), nonce in (0_u64..3, 0_u64..3),
        balance in (0_u64..2, 0_u64..2), slots in prop::collection::vec((0_u8..3, 0_u8..2), 0..4),
    ) {
        let (block_number, timestamp) = (block.0, time.0);
        let slots: Vec<_> = slots.iter().map(|(slot, value)| (B256::with_last_byte(*slot), B256::with_last_byte(*value))).collect();
        let mut state = State { nonce: nonce.0, balance_wei: U256::from(balance.0), slots: HashMap::new(), ..State::default() };
        let account = KnownAccount {
            address: ACCOUNT, storage: StorageExpectation::Slots(slots.clone()), balance_wei: Some(U256::from(balance.1)), code: None,
            nonce: Some(nonce.1),
        };
        let conditions = Conditions {
            known_accounts: vec![account],
            block_number_min: Some(block.1), block_number_max: Some(block.2),
            timestamp_min: Some(time.1), timestamp_max: Some(time.2), pays_coinbase_wei: None,
        };
        let verdict = conditions.evaluate(&mut state, block_number, timestamp);
        let is_possible = block_number <= block.2 && timestamp <= time.2 && nonce.0 <= nonce.1;
        let is_met = is_possible && block_number >= block.1 && timestamp >= time.1 && nonce.0 == nonce.1 && balance.0 == balance.1
            && slots.iter().all(|(_, value)| value.is_zero());
        prop_assert_eq!(matches!(verdict, Verdict::Met), is_met);
        prop_assert_eq!(matches!(verdict, Verdict::Impossible(_)), !is_possible);
        prop_assert!(state.reads <= 2 + slots.len());
    }

    /// Hex of any length up to 32 bytes means the same as the integer.
    #[test]
    fn hex_equals_integer(value: u64, zeros in 0_usize..40) {
        let hex = format!("0x{}{value:x}", "0".repeat(zeros));
        let from_hex = Conditions::from_json(&serde_json::json!({"timestampMin": hex})).unwrap();
        prop_assert_eq!(&from_hex, &Conditions::from_json(&serde_json::json!({"timestampMin": value})).unwrap());
        prop_assert_eq!(from_hex.timestamp_min, Some(value));
    }

    #[test]
    fn any_json_is_an_answer(text in "\\{('knownAccounts'|'code'|'0x[0-9a-f]{0,40}'|[0-9]{1,20}|[:,{}\\[\\]]){0,12}\\}") {
        if let Ok(value) = serde_json::from_str::<Value>(&text.replace('\'', "\"")) {
            let _ = Conditions::from_json(&value);
        }
    }
}
