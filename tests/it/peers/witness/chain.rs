//! A chain of random blocks, made by the block executor over the state, with all that the engine API wants to know of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_consensus::constants::EMPTY_OMMER_ROOT_HASH;
use alloy_eips::eip4895::Withdrawal;
use alloy_eips::eip7702::Authorization;
use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use native_sequencer::builder::block::{BlockContext, next_base_fee_wei};
use native_sequencer::builder::block_execution::{BlockExecutionError, BlockRun, ExecutedBlock, PreparedTx};
use native_sequencer::builder::execution::{ExecutionError, Executor, requests_hash};
use native_sequencer::builder::replay::genesis_block;
use native_sequencer::builder::world::World;
use native_sequencer::config::genesis::{ChainSpec, dev_genesis};
use native_sequencer::primitives::Fork;
use native_sequencer::state::{ListRoot, Snapshot, StateChanges, StateReader, StateStore, Store};
use native_sequencer::testing::bytecode::{self, Ending, Forward};
use native_sequencer::testing::rng::SimRng;
use native_sequencer::testing::signing::{AccessList, DynamicFee, Legacy, SetCode, TestKey};
use native_sequencer::witness::Witness;
use native_sequencer::witness::collect::collect;
use serde_json::{Value, json};

use super::program::{self, SLOTS};

const SENDERS: u64 = 12;
/// Accounts that only lie in the trie: neighbours of others.
const QUIET: u64 = 160;
/// Children of the factory beside which a quiet account lies in a branch of two, deep in the trie.
const LONELY_CHILDREN: usize = 24;
const STORE: Address = Address::repeat_byte(0xc1);
const STORE_REVERT: Address = Address::repeat_byte(0xc2);
const FACTORY: Address = Address::repeat_byte(0xc3);
const FORWARD: Address = Address::repeat_byte(0xc4);
const FORWARD_REVERT: Address = Address::repeat_byte(0xc5);
const DESTROY: Address = Address::repeat_byte(0xc6);
const EMPTY: [Address; 3] = [Address::repeat_byte(0xe1), Address::repeat_byte(0xe2), Address::repeat_byte(0xe3)];

/// A block, and everything that is said about it.
pub struct Made {
    pub header: Header,
    pub hash: B256,
    pub rlp: Bytes,
    pub payload: Value,
    pub requests: Vec<Bytes>,
    pub withdrawals: Vec<Withdrawal>,
    pub executed: ExecutedBlock,
    pub witness: Witness,
    /// Transactions that were tried and not included.
    pub dropped: usize,
    /// Nodes that only deletions need.
    pub account_siblings: usize,
    pub slot_siblings: usize,
    pub reserve: usize,
}

pub struct Chain {
    pub spec: ChainSpec,
    store: Store,
    executor: Executor,
    state: Snapshot,
    header: Header,
    hash: B256,
    headers: Vec<Bytes>,
    rng: SimRng,
    senders: Vec<TestKey>,
    /// Salts of the factory's children whose deletion leaves a branch with one child.
    salts: Vec<U256>,
    addresses: Vec<Address>,
}

impl Chain {
    pub fn new(fork: Fork, rng: SimRng) -> Self {
        let senders: Vec<TestKey> = (0..SENDERS).map(TestKey::nth).collect();
        let quiet: Vec<Address> = (0..QUIET).map(|index| Address::from_word(keccak256(index.to_be_bytes()))).collect();
        let salts = lonely_salts(&quiet);
        let spec = spec(fork, &senders, &quiet);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
        let mut store = native_sequencer::testing::state_disk::store(Arc::new(pool));
        let genesis = genesis_block(&spec, &mut store).expect("commits");
        let mut world = World::new(genesis.state.clone());
        world.set_block_hash(0, genesis.hash);
        let children = salts.iter().map(|salt| bytecode::child_of(FACTORY, *salt));
        let mut addresses = vec![STORE, STORE_REVERT, FACTORY, FORWARD, FORWARD_REVERT, DESTROY];
        addresses.extend(EMPTY);
        addresses.extend(senders.iter().map(|key| key.address));
        addresses.extend(quiet.iter().take(20).copied().chain(children.take(6)));
        Self {
            executor: Executor::new(world, spec.chain_id, spec.deposit_contract, fork),
            state: genesis.state.clone(),
            headers: vec![alloy_rlp::encode(&genesis.header).into()],
            header: genesis.header,
            hash: genesis.hash,
            spec,
            store,
            rng,
            senders,
            salts,
            addresses,
        }
    }

    /// Makes the next block and stands on it.
    pub fn next_block(&mut self) -> Made {
        let context = self.context();
        let mut run = BlockRun::open(&mut self.executor, &context).expect("the system contracts are there");
        let (mut txs, mut dropped) = (Vec::new(), 0);
        for _ in 0..self.rng.below(9) {
            let mut random = Random {
                rng: &mut self.rng,
                senders: &self.senders,
                salts: &self.salts,
                addresses: &self.addresses,
                chain_id: self.spec.chain_id,
            };
            let tx = PreparedTx::recover(random.tx(run.world()).into()).expect("well formed");
            match run.transaction(&tx.executable()) {
                Ok(_) => txs.push(tx),
                Err(BlockExecutionError::Transaction { source: ExecutionError::Invalid(_), .. }) => dropped += 1,
                Err(error) => panic!("block {}: {error}", context.number),
            }
        }
        let withdrawals = withdrawals(&mut self.rng, &self.addresses, context.number);
        let executed = run.close(&withdrawals).expect("the system contracts are there");
        self.finish(&context, &txs, withdrawals, executed, dropped)
    }

    fn context(&mut self) -> BlockContext {
        let rng = &mut self.rng;
        let coinbase = match rng.below(4) {
            0 => Address::left_padding_from(&rng.word().to_be_bytes()),
            1 => EMPTY[rng.below(3) as usize],
            _ => Address::repeat_byte(0xfe),
        };
        let timestamp = self.header.timestamp + 1 + rng.below(20);
        BlockContext {
            number: self.header.number + 1,
            parent_hash: self.hash,
            timestamp,
            base_fee_per_gas_wei: next_base_fee_wei(&self.header),
            prev_randao: keccak256(rng.word().to_be_bytes()),
            coinbase,
            gas_limit: self.header.gas_limit,
            extra_data: rng.word().to_be_bytes()[..rng.below(8) as usize].to_vec().into(),
            parent_beacon_block_root: keccak256(rng.word().to_be_bytes()),
            fork: self.spec.fork_at(timestamp),
        }
    }

    fn finish(
        &mut self,
        context: &BlockContext,
        txs: &[PreparedTx],
        withdrawals: Vec<Withdrawal>,
        executed: ExecutedBlock,
        dropped: usize,
    ) -> Made {
        let number = context.number;
        let header_of = |number: u64| self.headers.get(usize::try_from(number).ok()?).cloned();
        let witness = Witness::of_block(number, &self.state, &executed.accesses, &executed.changes, header_of);
        let witness = witness.expect("collects");
        let (account_siblings, slot_siblings, reserve) = siblings(&self.state, &executed);
        let state = self.store.commit(&self.state, &executed.changes).expect("commits");
        let header = header(context, txs, &withdrawals, &executed, state.root());
        let hash = header.hash_slow();
        self.executor.world().sealed(state.clone(), number, hash);
        self.headers.push(alloy_rlp::encode(&header).into());
        (self.state, self.header, self.hash) = (state, header.clone(), hash);
        Made {
            rlp: block_rlp(&header, txs, &withdrawals),
            payload: payload(&header, hash, txs, &withdrawals),
            requests: executed.requests.clone(),
            header,
            hash,
            withdrawals,
            executed,
            witness,
            dropped,
            account_siblings,
            slot_siblings,
            reserve,
        }
    }
}

/// Salts whose children share three nibbles of their hash with a quiet account, each with another one.
fn lonely_salts(quiet: &[Address]) -> Vec<U256> {
    let prefix = |address: &Address| {
        let hash = keccak256(address);
        u16::from_be_bytes([hash[0], hash[1]]) >> 4
    };
    let mut free: Vec<u16> = quiet.iter().map(prefix).collect();
    let mut salts = Vec::new();
    for salt in (0_u64..).map(U256::from) {
        let prefix = prefix(&bytecode::child_of(FACTORY, salt));
        if let Some(at) = free.iter().position(|free| *free == prefix) {
            free.swap_remove(at);
            salts.push(salt);
        }
        if salts.len() == LONELY_CHILDREN {
            break;
        }
    }
    salts
}

fn spec(fork: Fork, senders: &[TestKey], quiet: &[Address]) -> ChainSpec {
    let mut genesis = dev_genesis(fork, 2).expect("built in").genesis;
    let wei = |ether: u64| U256::from(ether) * U256::from(10).pow(U256::from(18));
    genesis.alloc.extend(senders.iter().map(|key| (key.address, GenesisAccount::default().with_balance(wei(1_000)))));
    genesis.alloc.extend(quiet.iter().map(|address| (*address, GenesisAccount::default().with_balance(U256::ONE))));
    // Accounts that EIP-161 would not let be made; the first touch deletes them.
    genesis.alloc.extend(EMPTY.map(|address| (address, GenesisAccount::default())));
    let storage: BTreeMap<B256, B256> =
        (0..SLOTS).filter(|slot| slot % 3 > 0).map(|slot| (U256::from(slot).into(), B256::with_last_byte(7))).collect();
    for (address, code) in [
        (STORE, bytecode::store(Ending::Stop)),
        (STORE_REVERT, bytecode::store(Ending::Revert)),
        (FACTORY, bytecode::factory()),
        (FORWARD, bytecode::forward(Forward::Call)),
        (FORWARD_REVERT, bytecode::forward(Forward::CallThenRevert)),
        (DESTROY, bytecode::destroy()),
    ] {
        let account = GenesisAccount::default().with_nonce(Some(1)).with_code(Some(code.into()));
        genesis.alloc.insert(address, account.with_storage(Some(storage.clone())));
    }
    ChainSpec::from_json(&serde_json::to_string(&genesis).expect("serialises")).expect("our own genesis")
}

/// What the next transaction is drawn from.
struct Random<'c> {
    rng: &'c mut SimRng,
    senders: &'c [TestKey],
    salts: &'c [U256],
    addresses: &'c [Address],
    chain_id: u64,
}

impl Random<'_> {
    fn any(&mut self) -> Address {
        self.addresses[self.rng.below(self.addresses.len() as u64) as usize]
    }

    fn word(&mut self, bound: u64) -> U256 {
        U256::from(self.rng.below(bound))
    }

    /// A signed transaction; one in twelve is invalid where it stands.
    fn tx(&mut self, world: &mut World) -> Vec<u8> {
        let key = self.senders[self.rng.below(SENDERS) as usize];
        let mut nonce = world.account(key.address).expect("readable").nonce;
        let (to, input, value) = self.call();
        let gas_limit = if to.is_create() || !input.is_empty() { 200_000 + self.rng.below(1_500_000) } else { 60_000 };
        let mut value = value;
        match self.rng.below(24) {
            0 => nonce += 1,
            1 => value = U256::MAX >> 4,
            _ => {}
        }
        let (chain_id, price) = (self.chain_id, 2_000_000_000 + u128::from(self.rng.below(1_000)));
        match (self.rng.below(6), to) {
            (0, _) => {
                let gas_price = price;
                key.encode(Legacy { chain_id: Some(chain_id), nonce, gas_price, gas_limit, to, value, input })
            }
            (1, _) => {
                let item = |address| alloy_eips::eip2930::AccessListItem { address, storage_keys: vec![B256::ZERO] };
                let access_list = alloy_eips::eip2930::AccessList(vec![item(self.any()), item(STORE)]);
                let gas_price = price;
                key.encode(AccessList { chain_id, nonce, gas_price, gas_limit, to, value, access_list, input })
            }
            (2 | 3, TxKind::Call(to)) => {
                let authorization_list = self.authorizations(world);
                key.encode(SetCode {
                    chain_id,
                    nonce,
                    gas_limit,
                    max_fee_per_gas: price,
                    max_priority_fee_per_gas: u128::from(self.rng.below(2)),
                    to,
                    value,
                    authorization_list,
                    input,
                    ..SetCode::default()
                })
            }
            _ => key.encode(DynamicFee {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: price,
                // Nothing for the coinbase at times: it is touched all the same.
                max_priority_fee_per_gas: u128::from(self.rng.below(2)),
                to,
                value,
                input,
                ..DynamicFee::default()
            }),
        }
    }

    /// Recipient, calldata, value.
    fn call(&mut self) -> (TxKind, Bytes, U256) {
        let salt = self.salts[self.rng.below(self.salts.len() as u64) as usize];
        match self.rng.below(16) {
            0 => (self.any().into(), Bytes::new(), U256::ZERO),
            1 => (self.any().into(), Bytes::new(), self.word(1_000)),
            2 => (Address::left_padding_from(&self.rng.word().to_be_bytes()).into(), Bytes::new(), self.word(2)),
            // Funded before it is made: the account is there, and gone when it is made and destroyed in one transaction.
            3 | 4 => (bytecode::child_of(FACTORY, salt).into(), Bytes::new(), U256::from(5)),
            5 | 6 => {
                let beneficiary = U256::from_be_slice(self.any().as_slice());
                (FACTORY.into(), bytecode::words(&[salt, beneficiary]), U256::ZERO)
            }
            7..10 => (STORE.into(), self.stores(), U256::ZERO),
            10 => {
                let target = U256::from_be_slice(self.any().as_slice());
                let mut words = bytecode::words(&[target, self.word(3)]).to_vec();
                words.extend_from_slice(&self.stores());
                let forward = if self.rng.chance(1, 2) { FORWARD } else { FORWARD_REVERT };
                (forward.into(), words.into(), self.word(4))
            }
            // The furthest block that can be asked for, once there are so many.
            12 => (TxKind::Create, Bytes::from_static(&program::FURTHEST_HASH), U256::ZERO),
            11 => (STORE_REVERT.into(), self.stores(), U256::ZERO),
            _ => (TxKind::Create, program::random(self.rng, self.addresses).into(), self.word(3)),
        }
    }

    /// Slots and values for the store contract: most of them clear, so that branches lose their children.
    fn stores(&mut self) -> Bytes {
        let count = 1 + self.rng.below(6);
        let words: Vec<U256> = (0..count)
            .flat_map(|_| [self.word(SLOTS), if self.rng.chance(2, 3) { U256::ZERO } else { self.word(4) }])
            .collect();
        bytecode::words(&words)
    }

    fn authorizations(&mut self, world: &mut World) -> Vec<alloy_eips::eip7702::SignedAuthorization> {
        let count = 1 + self.rng.below(3);
        let mut list = Vec::new();
        for _ in 0..count {
            let key = self.senders[self.rng.below(SENDERS) as usize];
            let nonce = world.account(key.address).expect("readable").nonce + self.rng.below(5) / 3;
            let address = if self.rng.chance(1, 4) { Address::ZERO } else { self.any() };
            let chain_id = U256::from([0, self.chain_id, 1][self.rng.below(8).min(2) as usize % 3]);
            list.push(key.authorize(Authorization { chain_id, address, nonce }));
        }
        list
    }
}

fn withdrawals(rng: &mut SimRng, addresses: &[Address], number: u64) -> Vec<Withdrawal> {
    let count = rng.below(4).saturating_sub(1);
    let one = |index| Withdrawal {
        index: number * 16 + index,
        validator_index: rng.below(1_000),
        address: match rng.below(3) {
            0 => Address::left_padding_from(&rng.word().to_be_bytes()),
            _ => addresses[rng.below(addresses.len() as u64) as usize],
        },
        amount: rng.below(3),
    };
    (0..count).map(one).collect()
}

/// Nodes that deletions add to what is on the paths: in the account trie, in storage tries; and the reserve.
fn siblings(parent: &Snapshot, executed: &ExecutedBlock) -> (usize, usize, usize) {
    let count = |changes: &StateChanges| collect(parent, &executed.accesses, changes).expect("collects").nodes.len();
    let mut accounts = executed.changes.clone();
    accounts.accounts.iter_mut().for_each(|change| change.storage.clear());
    let all = collect(parent, &executed.accesses, &executed.changes).expect("collects");
    let (none, accounts) = (count(&StateChanges::default()), count(&accounts));
    (accounts - none, all.nodes.len() - accounts, all.reserve.len())
}

fn header(
    context: &BlockContext,
    txs: &[PreparedTx],
    withdrawals: &[Withdrawal],
    executed: &ExecutedBlock,
    state_root: B256,
) -> Header {
    let mut transactions = ListRoot::new();
    txs.iter().for_each(|tx| transactions.push(&tx.raw));
    let mut withdrawal_list = ListRoot::new();
    withdrawals.iter().for_each(|withdrawal| withdrawal_list.push(&alloy_rlp::encode(withdrawal)));
    Header {
        parent_hash: context.parent_hash,
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        beneficiary: context.coinbase,
        state_root,
        transactions_root: transactions.finish(),
        receipts_root: executed.receipts_root,
        logs_bloom: executed.logs_bloom,
        number: context.number,
        gas_limit: context.gas_limit,
        gas_used: executed.gas_used,
        timestamp: context.timestamp,
        extra_data: context.extra_data.clone(),
        mix_hash: context.prev_randao,
        base_fee_per_gas: Some(context.base_fee_per_gas_wei),
        withdrawals_root: Some(withdrawal_list.finish()),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(context.parent_beacon_block_root),
        requests_hash: Some(requests_hash(&executed.requests)),
        ..Header::default()
    }
}

fn block_rlp(header: &Header, txs: &[PreparedTx], withdrawals: &[Withdrawal]) -> Bytes {
    use alloy_rlp::Encodable;
    let list = |payload: &[u8]| {
        let mut out = Vec::new();
        alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
        out.extend_from_slice(payload);
        out
    };
    let mut body = Vec::new();
    for tx in txs {
        match tx.decoded.fields.tx_type as u8 {
            0 => body.extend_from_slice(&tx.raw),
            _ => tx.raw.encode(&mut body),
        }
    }
    let mut encoded_withdrawals = Vec::new();
    withdrawals.iter().for_each(|withdrawal| withdrawal.encode(&mut encoded_withdrawals));
    let items = [alloy_rlp::encode(header), list(&body), list(&[]), list(&encoded_withdrawals)].concat();
    list(&items).into()
}

/// An `ExecutionPayloadV3`.
fn payload(header: &Header, hash: B256, txs: &[PreparedTx], withdrawals: &[Withdrawal]) -> Value {
    let number = |value: u64| format!("{value:#x}");
    let transactions: Vec<&Bytes> = txs.iter().map(|tx| &tx.raw).collect();
    let withdrawals: Vec<Value> = withdrawals
        .iter()
        .map(|one| {
            json!({"index": number(one.index), "validatorIndex": number(one.validator_index),
                "address": one.address, "amount": number(one.amount)})
        })
        .collect();
    json!({
        "parentHash": header.parent_hash, "feeRecipient": header.beneficiary, "stateRoot": header.state_root,
        "receiptsRoot": header.receipts_root, "logsBloom": header.logs_bloom, "prevRandao": header.mix_hash,
        "blockNumber": number(header.number), "gasLimit": number(header.gas_limit),
        "gasUsed": number(header.gas_used), "timestamp": number(header.timestamp), "extraData": header.extra_data,
        "baseFeePerGas": number(header.base_fee_per_gas.expect("London")), "blockHash": hash,
        "blobGasUsed": "0x0", "excessBlobGas": "0x0", "transactions": transactions, "withdrawals": withdrawals,
    })
}
