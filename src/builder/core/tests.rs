use alloy_consensus::proofs::{calculate_receipt_root, ordered_trie_root_with_encoder};
use alloy_consensus::{Eip658Value, Receipt, ReceiptEnvelope, TxEnvelope, TxType};
use alloy_eips::eip2718::Decodable2718;
use alloy_primitives::{Address, Bytes, U256, address};
use alloy_rlp::BufMut;
use alloy_trie::TrieAccount;
use alloy_trie::root::state_root_unsorted;

use super::*;
use crate::config::genesis::{DEV_ACCOUNTS, dev_genesis};
use crate::mempool::Reject;
use crate::messages::Refusal;
use crate::messages::SubmitWait;
use crate::primitives::Fork;
use crate::state::StateReader;
use crate::testing::bench_chain::BenchChain;
use crate::testing::signing::{DynamicFee, Legacy, SetCode, TestKey};

const ETHER_WEI: u128 = 1_000_000_000_000_000_000;

pub(super) fn chain(fork: Fork) -> (BenchChain, Vec<TestKey>) {
    let chain = BenchChain::new(dev_genesis(fork, 10).expect("built in"));
    let keys = DEV_ACCOUNTS.iter().map(|(_, secret)| TestKey::from_hex(secret)).collect();
    (chain, keys)
}

/// Everything that a header says of its transactions, from their bytes and outcomes alone.
pub(super) fn assert_header(sealed: &SealedBlock) {
    let block = &sealed.block;
    let header = &sealed.header;
    let mut receipts = Vec::new();
    let mut raws = Vec::new();
    for tx in block.transactions.iter() {
        let raw = block.raw(tx);
        let envelope = TxEnvelope::decode_2718(&mut &raw[..]).expect("what is in a block decodes");
        assert_eq!(*envelope.tx_hash(), tx.hash);
        raws.push(raw.to_vec());
        let receipt = Receipt {
            status: Eip658Value::Eip658(tx.success),
            cumulative_gas_used: tx.cumulative_gas_used,
            logs: block.logs_of(tx).cloned().collect(),
        }
        .with_bloom();
        receipts.push(match envelope.tx_type() {
            TxType::Legacy => ReceiptEnvelope::Legacy(receipt),
            TxType::Eip2930 => ReceiptEnvelope::Eip2930(receipt),
            TxType::Eip1559 => ReceiptEnvelope::Eip1559(receipt),
            TxType::Eip7702 => ReceiptEnvelope::Eip7702(receipt),
            TxType::Eip4844 => panic!("a blob transaction in a block"),
        });
    }
    let transactions_root = ordered_trie_root_with_encoder(&raws, |raw, out| out.put_slice(raw));
    assert_eq!(header.transactions_root, transactions_root);
    assert_eq!(header.receipts_root, calculate_receipt_root(&receipts));
    let bloom = receipts.iter().fold(alloy_primitives::Bloom::ZERO, |bloom, receipt| bloom | *receipt.logs_bloom());
    assert_eq!(header.logs_bloom, bloom);
    assert_eq!(header.gas_used, block.transactions.iter().map(|tx| tx.gas_used).sum::<u64>());
    assert_eq!(sealed.hash, header.hash_slow());
}

#[test]
fn transfers_land_in_one_block_with_the_right_roots() {
    let (mut chain, keys) = chain(Fork::Prague);
    let to = Address::repeat_byte(0x77);
    for nonce in 0..5 {
        for key in &keys {
            chain.submit(&key.transfer(chain.spec.chain_id, nonce, to, ETHER_WEI));
        }
    }
    let sealed = chain.finish_block();
    assert_eq!(sealed.block.transactions.len(), 50);
    assert_header(&sealed);
    let account = sealed.state.account(&to).expect("readable").expect("exists");
    assert_eq!(account.balance_wei, U256::from(50 * ETHER_WEI));
    assert!(chain.effects.replies.iter().all(|(_, reply)| matches!(reply, BuilderReply::Admitted { .. })));
    // What is sealed equals a state built from nothing but its accounts.
    let mut accounts: Vec<Address> = chain.spec.genesis.alloc.keys().copied().collect();
    accounts.extend([to, Address::ZERO]);
    let leaves = accounts.iter().filter_map(|address| {
        let account = sealed.state.account(address).expect("readable")?;
        let leaf = TrieAccount {
            nonce: account.nonce,
            balance: account.balance_wei,
            storage_root: account.storage_root,
            code_hash: account.code_hash,
        };
        Some((alloy_primitives::keccak256(address), leaf))
    });
    assert_eq!(state_root_unsorted(leaves), sealed.header.state_root);
}

/// Returns its calldata's first word to slot 0 of its own storage, logs once, or reverts when there is none.
const STORE_AND_LOG: &[u8] = &[
    0x36, 0x15, 0x60, 0x13, 0x57, // calldatasize iszero jumpi(revert)
    0x60, 0x00, 0x35, 0x60, 0x00, 0x55, // sstore(0, calldataload(0))
    0x60, 0x2a, 0x60, 0x00, 0x60, 0x00, 0xa1, 0x00, // log1(0, 0, 42) stop
    0x5b, 0x60, 0x00, 0x60, 0x00, 0xfd,
];

/// Init code that returns `code`.
fn init_code(code: &[u8]) -> Bytes {
    let len = u8::try_from(code.len()).expect("a short contract");
    let mut init = vec![0x60, len, 0x60, 0x0c, 0x60, 0x00, 0x39, 0x60, len, 0x60, 0x00, 0xf3];
    init.extend_from_slice(code);
    init.into()
}

#[test]
fn contracts_are_created_called_and_reverted() {
    for fork in [Fork::Prague, Fork::Osaka] {
        let (mut chain, keys) = chain(fork);
        let chain_id = chain.spec.chain_id;
        let base = DynamicFee {
            chain_id,
            gas_limit: 200_000,
            max_fee_per_gas: 1_000_000_000,
            max_priority_fee_per_gas: 7,
            ..DynamicFee::default()
        };
        let create = DynamicFee { input: init_code(STORE_AND_LOG), ..base.clone() };
        chain.submit(&keys[0].encode(create));
        let contract = keys[0].address.create(0);
        let call = |nonce: u64, input: Bytes| DynamicFee { nonce, to: contract.into(), input, ..base.clone() };
        chain.submit(&keys[0].encode(call(1, U256::from(9).to_be_bytes_vec().into())));
        chain.submit(&keys[0].encode(call(2, Bytes::new())));
        let delegation =
            alloy_eips::eip7702::Authorization { chain_id: U256::from(chain_id), address: contract, nonce: 0 };
        let set_code = SetCode {
            chain_id,
            gas_limit: 200_000,
            max_fee_per_gas: 1_000_000_000,
            to: keys[2].address,
            input: U256::from(5).to_be_bytes_vec().into(),
            authorization_list: vec![keys[2].authorize(delegation)],
            ..SetCode::default()
        };
        chain.submit(&keys[1].encode(set_code));
        let sealed = chain.finish_block();
        assert_header(&sealed);
        let status: Vec<bool> = sealed.block.transactions.iter().map(|tx| tx.success).collect();
        assert_eq!(status.len(), 4, "{:?}", chain.effects.replies.len());
        assert_eq!(sealed.block.transactions.iter().filter(|tx| !tx.success).count(), 1);
        assert_eq!(sealed.state.storage(&contract, U256::ZERO).expect("readable"), U256::from(9));
        assert_eq!(sealed.state.storage(&keys[2].address, U256::ZERO).expect("readable"), U256::from(5));
        assert_eq!(sealed.block.logs.len(), 2);
        assert_eq!(
            sealed
                .block
                .transactions
                .iter()
                .find(|tx| tx.contract_address.is_some())
                .and_then(|tx| tx.contract_address),
            Some(contract)
        );
    }
}

#[test]
fn a_waiting_sender_gets_its_place_and_a_gap_waits() {
    let (mut chain, keys) = chain(Fork::Osaka);
    let raw = keys[0].transfer(chain.spec.chain_id, 1, Address::ZERO, 1);
    chain.submit(&raw);
    chain.settle();
    assert_eq!(chain.effects.placed_count, 0, "a nonce gap has no place");
    let first = Legacy {
        chain_id: Some(chain.spec.chain_id),
        gas_limit: 21_000,
        gas_price: 2_000_000,
        to: Address::ZERO.into(),
        ..Legacy::default()
    };
    chain.submit_with(&keys[0].encode(first), SubmitWait::Preconfirmation, None);
    chain.settle();
    let places: Vec<u32> = chain
        .effects
        .replies
        .iter()
        .filter_map(|(_, reply)| match reply {
            BuilderReply::Preconfirmed { index, .. } => Some(*index),
            _ => None,
        })
        .collect();
    assert_eq!((places, chain.effects.placed_count), (vec![0], 2));
}

#[test]
fn a_refused_transaction_names_both_values_and_gives_its_chunk_back() {
    let (mut chain, keys) = chain(Fork::Osaka);
    let to = address!("0x00000000000000000000000000000000000000aa");
    chain.submit(&keys[0].transfer(chain.spec.chain_id, 0, to, 1));
    chain.finish_block();
    chain.effects.replies.clear();
    chain.submit(&keys[0].transfer(chain.spec.chain_id, 0, to, 2));
    let refusals: Vec<&Refusal> = chain
        .effects
        .replies
        .iter()
        .filter_map(|(_, reply)| match reply {
            BuilderReply::Refused { refusal, .. } => Some(refusal),
            _ => None,
        })
        .collect();
    assert_eq!(refusals, vec![&Refusal::Pool(Reject::NonceTooLow { tx: 0, account: 1 })]);
    assert_eq!(chain.effects.freed.len(), 2);
}

#[test]
fn timestamps_hold_a_full_chain_back_and_base_fee_follows_eip_1559() {
    let (mut chain, keys) = chain(Fork::Osaka);
    let first = {
        chain.submit(&keys[0].transfer(chain.spec.chain_id, 0, Address::ZERO, 1));
        chain.finish_block()
    };
    assert_eq!(first.header.timestamp, chain.spec.genesis.timestamp + 1);
    assert!(first.header.base_fee_per_gas.expect("set") < 1_000_000, "an empty parent lowers the base fee");
    chain.submit(&keys[0].transfer(chain.spec.chain_id, 1, Address::ZERO, 1));
    let second = chain.finish_block();
    assert_eq!(second.header.timestamp, first.header.timestamp + 1);
    // The clock stands two seconds after genesis: a third block must wait for it.
    chain.submit(&keys[0].transfer(chain.spec.chain_id, 2, Address::ZERO, 1));
    chain.advance(0);
    let expected = next_timestamp(second.header.timestamp, chain.now.unix_ns, 1);
    match (chain.settle(), expected) {
        (NextTurn::At(at_ns), Err(_)) => assert!(at_ns > chain.now.monotonic_ns),
        (next, Ok(_)) => assert_eq!(next, NextTurn::At(chain.now.monotonic_ns + 1_000_000_000)),
        (next, expected) => panic!("{next:?} {expected:?}"),
    }
}

#[test]
fn draining_refuses_newcomers_and_seals_what_is_ready() {
    let (mut chain, keys) = chain(Fork::Osaka);
    chain.submit(&keys[0].transfer(chain.spec.chain_id, 0, Address::ZERO, 1));
    chain.core.drain(chain.now.monotonic_ns + 1_000_000_000);
    chain.submit(&keys[1].transfer(chain.spec.chain_id, 0, Address::ZERO, 1));
    let last = chain.effects.replies.last().expect("a reply");
    assert!(matches!(last.1, BuilderReply::Refused { refusal: Refusal::Draining, .. }));
    assert_eq!(chain.settle(), NextTurn::Drained);
    assert_eq!(chain.core.heads().latest.block.transactions.len(), 1);
}
