//! Raw transactions that the node must refuse, each for its own reason.

use alloy_consensus::{SignableTransaction, TxEip1559, TxEip7702, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_eips::eip2930::AccessList;
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256, uint};
use alloy_rlp::Encodable;
use serde_json::json;

use super::check_error;
use crate::peers::rpc::Rpc;
use crate::peers::workload::{Account, DEV_KEYS};

/// The order of secp256k1; signatures with s above half of it are refused (EIP-2).
const CURVE_ORDER: U256 = uint!(0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256);
const GWEI: u128 = 1_000_000_000;

pub fn check_all(rpc: &Rpc) {
    check_encodings(rpc);
    check_rules(rpc);
    check_pool(rpc);
}

#[track_caller]
fn check(rpc: &Rpc, name: &str, raw: &[u8], expected: &str) {
    let request = json!({
        "jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [Bytes::copy_from_slice(raw)],
    });
    let reply = rpc.post(&request).unwrap_or_else(|error| panic!("{name}: {error}"));
    check_error(name, &reply, expected);
}

/// A transfer that the node would take.
fn good(nonce: u64) -> TxEip1559 {
    TxEip1559 {
        chain_id: 61_972,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 2 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: TxKind::Call(Address::with_last_byte(0xdd)),
        value: U256::from(1),
        access_list: AccessList::default(),
        input: Bytes::new(),
    }
}

/// An account that this test alone uses.
fn account(index: usize) -> Account {
    Account::new(DEV_KEYS[index])
}

fn check_encodings(rpc: &Rpc) {
    let row = |name: &str, raw: &[u8], expected: &str| check(rpc, name, raw, expected);
    let raw = account(0).sign(|_| good(0));
    row("empty", b"", "-32000 empty");
    row("one byte", &[0x02], "-32000");
    row("not a type", &[0x7f, 0xc0], "-32000 0x7f");
    row("truncated", &raw[..raw.len() - 1], "-32000");
    row("trailing byte", &[&raw[..], &[0]].concat(), "-32000 after the end");
    row("unknown type", &[&[0x06], &raw[1..]].concat(), "-32000 0x06");
    row("blob transaction", &[&[0x03], &raw[1..]].concat(), "-32000 blob");

    // The same fields with one integer not minimal, then one byte string too long for its field.
    let fields = |nonce: &[u8], value: &[u8]| {
        let mut payload = vec![0x82, 0xf2, 0x14];
        payload.extend_from_slice(nonce);
        payload.extend_from_slice(&[0x01, 0x84, 0x77, 0x35, 0x94, 0x00, 0x82, 0x52, 0x08]);
        Address::with_last_byte(0xdd).encode(&mut payload);
        payload.extend_from_slice(value);
        payload.extend_from_slice(&[0x80, 0xc0, 0x01, 0x01, 0x01]);
        let mut raw = vec![0x02];
        alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut raw);
        raw.extend_from_slice(&payload);
        raw
    };
    row("nonce with a leading zero", &fields(&[0x82, 0x00, 0x01], &[0x01]), "-32000 nonce");
    row("nonce zero as a byte", &fields(&[0x00], &[0x01]), "-32000 nonce");
    row("one byte in long form", &fields(&[0x81, 0x01], &[0x01]), "-32000 nonce");
    let long_value = [&[0xa1][..], &[0xff; 33]].concat();
    row("value of 33 bytes", &fields(&[0x80], &long_value), "-32000 value");

    let transaction = good(0);
    let signed: Bytes = account(0).sign(|_| transaction.clone());
    let TxEnvelope::Eip1559(envelope) =
        alloy_eips::eip2718::Decodable2718::decode_2718(&mut &signed[..]).expect("alloy decodes what it encoded")
    else {
        panic!("a type 2 transaction decodes as type 2");
    };
    let signature = envelope.signature();
    let high = Signature::new(signature.r(), CURVE_ORDER - signature.s(), !signature.v());
    let raw = TxEnvelope::from(transaction.clone().into_signed(high)).encoded_2718();
    row("high s", &raw, "-32000");
    let zero = Signature::new(U256::ZERO, U256::from(1), false);
    row("r of zero", &TxEnvelope::from(transaction.into_signed(zero)).encoded_2718(), "-32000");
}

fn check_rules(rpc: &Rpc) {
    let row = |name: &str, raw: &[u8], expected: &str| check(rpc, name, raw, expected);
    let sign = |change: fn(&mut TxEip1559)| {
        account(1).sign(|nonce| {
            let mut transaction = good(nonce);
            change(&mut transaction);
            transaction
        })
    };
    row("wrong chain id", &sign(|tx| tx.chain_id = 1), "-32000 chain id");
    row("gas below intrinsic", &sign(|tx| tx.gas_limit = 20_999), "-32000 intrinsic gas too low");
    row(
        "gas below the data floor",
        &sign(|tx| (tx.input, tx.gas_limit) = (vec![1; 1_000].into(), 45_000)),
        "-32000 floor",
    );
    row("gas over the cap", &sign(|tx| tx.gas_limit = (1 << 24) + 1), "-32000 gas limit too high");
    row("tip above the fee cap", &sign(|tx| tx.max_priority_fee_per_gas = 3 * GWEI), "-32000 max priority fee");
    row(
        "fee cap of zero",
        &sign(|tx| (tx.max_fee_per_gas, tx.max_priority_fee_per_gas) = (0, 0)),
        "-32000 underpriced",
    );
    row("value above the balance", &sign(|tx| tx.value = U256::MAX >> 8), "-32000 insufficient funds");
    row("cost overflows", &sign(|tx| tx.value = U256::MAX), "-32000");
    let init_code = |bytes: usize| {
        account(1).sign(|nonce| TxEip1559 {
            to: TxKind::Create,
            input: vec![0; bytes].into(),
            gas_limit: 5_000_000,
            ..good(nonce)
        })
    };
    row("init code too large", &init_code(49_153), "-32000 initcode");
    row("transaction too large", &init_code(65_536), "-32000");
    row("nonce far ahead", &account(1).sign(|_| good(1_000_000_000)), "-32000 nonce too high");
    row("nonce at its maximum", &account(1).sign(|_| good(u64::MAX)), "-32000 nonce");
    let legacy = TxLegacy {
        chain_id: None,
        nonce: 0,
        gas_price: 2 * GWEI,
        gas_limit: 21_000,
        to: TxKind::Call(Address::with_last_byte(0xdd)),
        value: U256::from(1),
        input: Bytes::new(),
    };
    row("legacy without chain id", &account(1).sign(|_| legacy), "-32000 replay-protected");
    let no_authority = TxEip7702 {
        chain_id: 61_972,
        nonce: 0,
        gas_limit: 100_000,
        max_fee_per_gas: 2 * GWEI,
        max_priority_fee_per_gas: GWEI,
        to: Address::with_last_byte(0xdd),
        value: U256::ZERO,
        access_list: AccessList::default(),
        authorization_list: Vec::new(),
        input: Bytes::new(),
    };
    row("empty authorization list", &account(1).sign(|_| no_authority), "-32000 authorization list");
}

/// Refusals that depend on what the pool and the open block hold.
fn check_pool(rpc: &Rpc) {
    let row = |name: &str, raw: &[u8], expected: &str| check(rpc, name, raw, expected);
    let mut sender = account(2);
    let first = sender.sign(good);
    row("first of an account", &first, "ok");
    // Executed at once: its nonce is taken in the open block, or already in a sealed one.
    row("the same again", &first, "-32000 already known");
    row("nonce used", &account(2).sign(|_| TxEip1559 { value: U256::from(9), ..good(0) }), "-32000");

    // A gapped transaction waits in the queue, where it can be replaced at +10 % of both fees.
    let gapped = |fee: u128, tip: u128| {
        account(3).sign(|_| TxEip1559 { max_fee_per_gas: fee, max_priority_fee_per_gas: tip, ..good(2) })
    };
    row("gapped", &gapped(2 * GWEI, GWEI), "ok");
    row(
        "replacement at +10 % less 1",
        &gapped(2_200_000_000, 1_099_999_999),
        "-32000 replacement transaction underpriced",
    );
    row(
        "replacement of one fee only",
        &gapped(2_199_999_999, 1_100_000_000),
        "-32000 replacement transaction underpriced",
    );
    row("replacement at +10 %", &gapped(2_200_000_000, 1_100_000_000), "ok");

    // The balance must pay for everything queued, not for each transaction alone.
    let half = |nonce: u64| {
        let value = U256::from(6_000u64) * U256::from(10u64).pow(U256::from(18));
        account(4).sign(|_| TxEip1559 { value, ..good(nonce) })
    };
    row("more than half of the balance", &half(5), "ok");
    row("the same once more", &half(6), "-32000 insufficient funds");
}
