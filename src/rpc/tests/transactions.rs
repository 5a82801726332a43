//! Transaction objects of every type against the transaction they were made from.

use alloy_consensus::{Signed, TxEip1559, TxEip2930, TxEip7702, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_eips::eip7702::{Authorization, SignedAuthorization};
use alloy_primitives::{Signature, TxKind};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::primitives::{Address, B256, Bytes, U256};
use crate::rpc::encode;
use crate::rpc::source::{TxView, receiver};

#[derive(Clone, Debug)]
struct Parts {
    tx_type: u8,
    to: Option<Address>,
    nonce: u64,
    price_wei: u128,
    value_wei: U256,
    input: Vec<u8>,
    chain_id: u64,
    keys: Vec<B256>,
    parity: bool,
}

fn any_parts() -> impl Strategy<Value = Parts> {
    let words = (any::<[u8; 32]>(), proptest::collection::vec(any::<[u8; 32]>(), 0..3));
    let kind = (0_u8..4, proptest::option::of(any::<[u8; 20]>()), any::<bool>());
    let numbers = (0..u64::MAX, any::<u128>(), 1..u64::MAX);
    (kind, numbers, words, proptest::collection::vec(any::<u8>(), 0..80)).prop_map(|(kind, numbers, words, input)| {
        Parts {
            tx_type: [0, 1, 2, 4][usize::from(kind.0)],
            // A set code transaction cannot be a creation.
            to: if kind.0 == 3 { Some(Address::from(kind.1.unwrap_or([7; 20]))) } else { kind.1.map(Address::from) },
            nonce: numbers.0,
            price_wei: numbers.1,
            value_wei: U256::from_be_bytes(words.0),
            input,
            chain_id: numbers.2,
            keys: words.1.into_iter().map(B256::from).collect(),
            parity: kind.2,
        }
    })
}

fn envelope(parts: &Parts) -> TxEnvelope {
    let Parts { nonce, price_wei, value_wei: value, chain_id, .. } = *parts;
    let (to, input) = (parts.to.map_or(TxKind::Create, TxKind::Call), Bytes::from(parts.input.clone()));
    let address = Address::repeat_byte(3);
    let access_list = AccessList(vec![AccessListItem { address, storage_keys: parts.keys.clone() }]);
    let signature = Signature::new(U256::from(0x12), U256::from(0x34), parts.parity);
    let (max_fee_per_gas, max_priority_fee_per_gas, gas_limit) = (price_wei, price_wei / 2, 90_000);
    match parts.tx_type {
        0 => {
            let tx = TxLegacy { chain_id: Some(chain_id), nonce, gas_price: price_wei, gas_limit, to, value, input };
            TxEnvelope::Legacy(Signed::new_unhashed(tx, signature))
        }
        1 => {
            let tx = TxEip2930 { chain_id, nonce, gas_price: price_wei, gas_limit, to, value, access_list, input };
            TxEnvelope::Eip2930(Signed::new_unhashed(tx, signature))
        }
        2 => {
            let tx = TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas,
                max_priority_fee_per_gas,
                to,
                value,
                access_list,
                input,
            };
            TxEnvelope::Eip1559(Signed::new_unhashed(tx, signature))
        }
        _ => {
            let inner = Authorization { chain_id: U256::from(9), address, nonce: 5 };
            let authorization_list = vec![SignedAuthorization::new_unchecked(inner, 1, U256::from(6), U256::from(7))];
            let tx = TxEip7702 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas,
                max_priority_fee_per_gas,
                to: parts.to.unwrap_or_default(),
                value,
                access_list,
                authorization_list,
                input,
            };
            TxEnvelope::Eip7702(Signed::new_unhashed(tx, signature))
        }
    }
}

/// The object as go-ethereum documents it for a pending transaction.
fn expected(parts: &Parts, view: &TxView<'_>) -> Value {
    let number = |value: U256| format!("{value:#x}");
    let parity = U256::from(u8::from(parts.parity));
    let mut object = json!({
        "blockHash": null, "blockNumber": null, "blockTimestamp": null, "transactionIndex": null,
        "hash": view.hash, "from": view.sender.to_string().to_lowercase(),
        "to": parts.to.map(|to| to.to_string().to_lowercase()),
        "nonce": format!("{:#x}", parts.nonce), "gas": format!("{:#x}", 90_000), "gasPrice": format!("{:#x}", parts.price_wei),
        "value": number(parts.value_wei), "input": Bytes::from(parts.input.clone()).to_string(),
        "type": format!("{:#x}", parts.tx_type), "chainId": format!("{:#x}", parts.chain_id), "r": "0x12", "s": "0x34",
    });
    let mut set = |name: &str, value: Value| object[name] = value;
    if parts.tx_type == 0 {
        set("v", json!(number(U256::from(parts.chain_id) * U256::from(2) + U256::from(35) + parity)));
        return object;
    }
    let address = Address::repeat_byte(3).to_string();
    set("v", json!(number(parity)));
    set("yParity", json!(number(parity)));
    set("accessList", json!([{"address": address, "storageKeys": parts.keys}]));
    if parts.tx_type >= 2 {
        set("maxFeePerGas", json!(format!("{:#x}", parts.price_wei)));
        set("maxPriorityFeePerGas", json!(format!("{:#x}", parts.price_wei / 2)));
    }
    if parts.tx_type == 4 {
        let authorization =
            json!({"chainId": "0x9", "address": address, "nonce": "0x5", "yParity": "0x1", "r": "0x6", "s": "0x7"});
        set("authorizationList", json!([authorization]));
    }
    object
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn objects_say_what_was_signed(parts in any_parts()) {
        let raw = envelope(&parts).encoded_2718();
        prop_assert_eq!(receiver(&raw), parts.to);
        prop_assert_eq!(encode::tx_type(&raw), parts.tx_type);
        let view = TxView { raw: &raw, hash: B256::repeat_byte(0xcd), sender: Address::repeat_byte(0xef) };
        let mut out = Vec::new();
        encode::transaction(&view, None, &mut out).expect("it decodes");
        let found: Value = serde_json::from_slice(&out).expect("JSON");
        prop_assert_eq!(found, expected(&parts, &view));
    }

    #[test]
    fn the_receiver_of_any_bytes_is_found_or_not_without_a_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = receiver(&raw);
    }
}
