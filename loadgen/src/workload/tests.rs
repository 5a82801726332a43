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

fn prepare_plan(plan: &Plan) -> (Prepared, Vec<Account>) {
    let accounts: Vec<Account> = (0..plan.account_count as u64).map(|i| Account::derive(plan.seed, i)).collect();
    let chain = Chain {
        chain_id: 61972,
        max_fee_per_gas_wei: 1_000,
        tip_wei: 1,
        gas_limits: GasLimits::default(),
        nonces: (0..plan.account_count as u64).collect(),
        token: Address::repeat_byte(1),
        storage: Address::repeat_byte(2),
    };
    let endpoint = Endpoint::parse("http://127.0.0.1:6197", "http").unwrap();
    (prepare(plan, &chain, &accounts, &endpoint), accounts)
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
            assert_eq!(call["method"], "eth_sendRawTransaction");
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
                let sender = tx.recover_signer().unwrap();
                let account = accounts.iter().position(|a| a.address == sender).unwrap();
                let entry = next.entry(sender).or_insert((connection, account as u64));
                prop_assert_eq!(*entry, (connection, tx.nonce()));
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

#[track_caller]
fn check(text: &str, expected: Result<&str, &str>) {
    let mix = text.parse::<Mix>().map(|mix| mix.to_string());
    match (mix, expected) {
        (Ok(mix), Ok(expected)) => assert_eq!(mix, expected),
        (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
        (mix, expected) => panic!("{text}: {mix:?}, not {expected:?}"),
    }
}

#[test]
fn mixes_are_parsed() {
    check("transfer", Ok("transfer"));
    check("erc20", Ok("erc20"));
    check("mix:transfer=70,erc20=20,storage=10", Ok("mix:transfer=70,erc20=20,storage=10"));
    check("mix:erc20=100,transfer=0", Ok("erc20"));
    check("mix:transfer=70,erc20=20", Err("not 90"));
    check("mix:transfer=50,transfer=50", Err("named twice"));
    check("mix:transfer", Err("looks like"));
    check("mix:transfer=x", Err("whole number"));
    check("swap", Err("not a workload"));
}
