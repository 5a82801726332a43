//! Properties of whole workloads, read back by alloy.

use std::collections::BTreeMap;

use alloy_consensus::transaction::SignerRecoverable;
use alloy_consensus::{Transaction as _, TxEnvelope};
use alloy_eips::Decodable2718;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn plan(mix: &str, transaction_count: usize, account_count: usize, connection_count: usize, batch: usize) -> Plan {
    let mix = mix.parse().unwrap();
    let (recipient_count, storage_key_count) = (10, 10);
    Plan { mix, seed: 5, transaction_count, account_count, recipient_count, storage_key_count, connection_count, batch }
}

fn endpoint(protocol: Protocol) -> Endpoint {
    let url = if protocol == Protocol::Http { "http://127.0.0.1:6197" } else { "ws://127.0.0.1:6197" };
    Endpoint::parse(url, protocol).unwrap()
}

fn prepare_plan(plan: &Plan) -> (Prepared, Vec<Account>) {
    prepare_for(plan, Protocol::Http)
}

fn prepare_for(plan: &Plan, protocol: Protocol) -> (Prepared, Vec<Account>) {
    let accounts: Vec<Account> = (0..plan.account_count as u64).map(|i| Account::derive(plan.seed, i)).collect();
    let chain = Chain {
        chain_id: 61972,
        max_fee_per_gas_wei: 1_000,
        tip_wei: 1,
        gas_limits: GasLimits::default(),
        nonces: (0..plan.account_count as u64).collect(),
        token: Address::repeat_byte(1),
        storage: Address::repeat_byte(2),
        conditional: true,
    };
    (prepare(plan, &chain, &accounts, &[endpoint(protocol)]), accounts)
}

/// The transactions of a connection in the order sent, with their ids.
fn sent(load: &ConnectionLoad) -> Vec<(u64, TxEnvelope)> {
    let mut start = 0;
    let mut list = Vec::new();
    for request in &load.requests {
        let bytes = &load.bytes[start..request.end];
        start = request.end;
        let head_bytes = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let body: Value = serde_json::from_slice(&bytes[head_bytes..]).unwrap();
        let calls = body.as_array().cloned().unwrap_or_else(|| vec![body]);
        assert_eq!(calls.len(), request.count as usize);
        for call in calls {
            assert!(call["method"].as_str().unwrap().starts_with("eth_sendRawTransaction"));
            let raw = hex::decode(call["params"][0].as_str().unwrap()).unwrap();
            list.push((call["id"].as_u64().unwrap(), TxEnvelope::decode_2718_exact(&raw).unwrap()));
        }
    }
    assert_eq!(start, load.bytes.len());
    list
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Every transaction is sent once, each sender uses one connection, and its nonces come in order without a gap.
    #[test]
    fn senders_keep_to_one_connection_and_nonce_order(
        transaction_count in 1usize..80,
        account_count in 1usize..12,
        connection_count in 1usize..12,
        batch in 1usize..9,
    ) {
        let plan = plan("transfer", transaction_count, account_count, connection_count.min(account_count), batch);
        let (prepared, accounts) = prepare_plan(&plan);
        let mut ids = Vec::new();
        let mut next: BTreeMap<Address, (usize, u64)> = BTreeMap::new();
        for (connection, load) in prepared.connections.iter().enumerate() {
            for (id, tx) in sent(load) {
                ids.push(id);
                prop_assert_eq!(*tx.tx_hash(), prepared.hashes[id as usize]);
                prop_assert_eq!((prepared.metas[id as usize].ready_with, prepared.metas[id as usize].replaced_by), (id as u32, NONE));
                let sender = tx.recover_signer().unwrap();
                let account = accounts.iter().position(|a| a.address == sender).unwrap();
                let entry = next.entry(sender).or_insert((connection, account as u64));
                prop_assert_eq!(*entry, (connection, tx.nonce()));
                let turn = tx.nonce() - account as u64;
                prop_assert_eq!(plan.index_of(account, turn) as u64, id);
                prop_assert_eq!(u64::from(prepared.metas[id as usize].nonce_offset), turn);
                entry.1 += 1;
            }
        }
        ids.sort_unstable();
        prop_assert_eq!(ids, (0..transaction_count as u64).collect::<Vec<_>>());
        let counts = plan.transactions_per_account();
        for (account, count) in accounts.iter().zip(&counts) {
            let sent = next.get(&account.address).map_or(0, |entry| entry.1 - accounts.iter().position(|a| a.address == account.address).unwrap() as u64);
            prop_assert_eq!(sent, *count);
        }
    }
}

#[test]
fn a_seed_names_one_workload() {
    let first = plan("mix:transfer=70,erc20=20,storage=10", 300, 10, 4, 3);
    let second = Plan { seed: 6, ..first.clone() };
    assert_eq!(prepare_plan(&first).0, prepare_plan(&first).0);
    assert_ne!(prepare_plan(&first).0.hashes, prepare_plan(&second).0.hashes);
}

#[test]
fn mixes_have_their_shares() {
    let plan = plan("mix:transfer=70,erc20=20,storage=10", 2_000, 10, 1, 1);
    let (prepared, _) = prepare_plan(&plan);
    let mut counts = [0; 3];
    for (_, tx) in sent(&prepared.connections[0]) {
        let kind = if tx.to() == Some(Address::repeat_byte(1)) {
            1
        } else {
            2 * usize::from(tx.to() == Some(Address::repeat_byte(2)))
        };
        counts[kind] += 1;
        assert_eq!(tx.gas_limit(), GasLimits::default().of(Kind::ALL[kind]));
    }
    // Three standard deviations of 2,000 draws are 61, 54 and 40.
    assert!(
        (1_339..=1_461).contains(&counts[0]) && (346..=454).contains(&counts[1]) && (160..=240).contains(&counts[2]),
        "{counts:?}"
    );
}

/// The transactions of one sender in the order sent, as (index, nonce, meta).
fn of_one_sender(workload: &str, count: usize) -> Vec<(u64, TxEnvelope, Meta)> {
    let plan = plan(workload, count, 1, 1, 1);
    let (prepared, _) = prepare_plan(&plan);
    let list = sent(&prepared.connections[0]);
    list.into_iter().map(|(id, tx)| (id, tx, prepared.metas[id as usize])).collect()
}

#[test]
fn a_gap_is_filled_by_the_last_of_four() {
    let list = of_one_sender("nonce-gap", 9);
    let nonces: Vec<u64> = list.iter().map(|(_, tx, _)| tx.nonce()).collect();
    assert_eq!(nonces, [3, 2, 1, 0, 7, 6, 5, 4, 8]);
    let ready: Vec<u32> = list.iter().map(|(.., meta)| meta.ready_with).collect();
    assert_eq!(ready, [3, 3, 3, 3, 7, 7, 7, 7, 8]);
    assert!(list.iter().all(|(_, tx, meta)| meta.replaced_by == NONE && u64::from(meta.nonce_offset) == tx.nonce()));
}

#[test]
fn a_replacement_pays_more_than_a_tenth_more() {
    let list = of_one_sender("replacement", 6);
    let nonces: Vec<u64> = list.iter().map(|(_, tx, _)| tx.nonce()).collect();
    assert_eq!(nonces, [1, 1, 0, 3, 3, 2]);
    for group in list.chunks(3) {
        let [(_, original, old), (replacement_id, replacement, new), (filler_id, ..)] = group else { unreachable!() };
        assert_eq!(u64::from(old.replaced_by), *replacement_id);
        assert_eq!((u64::from(old.ready_with), u64::from(new.ready_with)), (*filler_id, *filler_id));
        assert!(replacement.max_fee_per_gas() * 10 > original.max_fee_per_gas() * 11);
        assert!(
            replacement.max_priority_fee_per_gas().unwrap() * 10 > original.max_priority_fee_per_gas().unwrap() * 11
        );
    }
    assert_eq!(replacement_fee_wei(0), 1);
}

#[test]
fn kinds_look_as_they_should() {
    let first = |workload: &str| of_one_sender(workload, 1).remove(0).1;
    assert_eq!(first("deploy").to(), None);
    assert_eq!(first("deploy").input(), &contracts::storage_creation_code());
    assert_eq!(first("hot").input(), &contracts::storage_set(U256::MAX, U256::ONE));
    assert_eq!(first("revert").to(), Some(Address::repeat_byte(1)));
    assert_eq!(first("revert").input()[36..], [0xff; 32]);
}

#[test]
fn every_kind_is_in_a_mixed_load_and_calls_are_read_back() {
    let plan = plan("mixed", 3_000, 20, 3, 7);
    for protocol in [Protocol::Http, Protocol::WebSocket] {
        let (prepared, _) = prepare_for(&plan, protocol);
        let mut conditional = 0;
        for index in 0..plan.transaction_count {
            let (connection, request) = plan.request_of(index);
            let call = prepared.connections[connection].call_of(request, index as u32, protocol).unwrap();
            let raw = hex::decode(call["params"][0].as_str().unwrap()).unwrap();
            assert_eq!(alloy_primitives::keccak256(raw), prepared.hashes[index]);
            if call["method"] == "eth_sendRawTransactionConditional" {
                conditional += 1;
                assert!(call["params"][1]["knownAccounts"].is_object(), "{call}");
            }
        }
        // 4 % of 3,000, within four standard deviations.
        assert!((77..=163).contains(&conditional), "{conditional}");
    }
    let mut kinds = BTreeMap::new();
    for connection in 0..plan.connection_count {
        plan.walk(connection, |_, _, turn| *kinds.entry(turn.kind).or_insert(0) += 1);
    }
    assert_eq!(kinds.len(), Kind::ALL.len(), "{kinds:?}");
    let gas: u64 = kinds.iter().map(|(&kind, &count)| GasLimits::default().of(kind) * count).sum();
    assert_eq!(plan.gas_per_account(&GasLimits::default()).iter().sum::<u64>(), gas);
}
