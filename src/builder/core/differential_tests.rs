//! Random histories through the core, and the same transactions in the same order through alloy-evm's own block executor.
//!
//! A failure prints its seed: `SIM_SEED=… cargo test --lib builder::core::differential`. `SIM_SEEDS=n` runs n seeds.

use std::collections::BTreeMap;

use alloy_eips::eip7702::Authorization;
use alloy_eips::{eip2935, eip7002, eip7251};
use alloy_genesis::GenesisAccount;
use alloy_primitives::{U256, address, keccak256};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use revm::primitives::KECCAK_EMPTY;

use super::tests::assert_header;
use super::*;
use crate::config::genesis::{ChainSpec, DEV_ACCOUNTS, dev_genesis};
use crate::messages::{BuilderAnswer, BuilderRead};
use crate::primitives::Fork;
use crate::state::StateReader;
use crate::testing::bench_chain::BenchChain;
use crate::testing::bytecode::{self, Ending, Forward};
use crate::testing::signing::{AccessList, DynamicFee, Legacy, SetCode, TestKey};
use oracle::{Oracle, OracleAccount, set_slot};

mod oracle;

/// Every fork up to Osaka is active there on every public network.
const TIMESTAMP: u64 = 1_800_000_000;
const DEPOSIT_CONTRACT: Address = address!("0x4242424242424242424242424242424242424242");

struct Contracts {
    stores: Vec<Address>,
    logs: Vec<Address>,
    block_hashes: Address,
    environment: Address,
    factory: Address,
    destroy: Address,
    forwards: Vec<Address>,
}

impl Contracts {
    fn all(&self) -> Vec<Address> {
        let mut all = vec![self.block_hashes, self.environment, self.factory, self.destroy];
        all.extend(self.stores.iter().chain(&self.logs).chain(&self.forwards));
        all
    }
}

/// The development genesis with contracts in it.
fn genesis(fork: Fork) -> (ChainSpec, Contracts) {
    let mut spec = dev_genesis(fork, 10).expect("built in");
    spec.genesis.timestamp = TIMESTAMP;
    spec.deposit_contract = DEPOSIT_CONTRACT;
    let mut count = 0_u8;
    let mut deploy = |code: Vec<u8>| {
        count += 1;
        let contract = Address::with_last_byte(count).create(u64::from(count));
        let storage = BTreeMap::from([(B256::with_last_byte(1), B256::with_last_byte(1))]);
        let account = GenesisAccount::default()
            .with_nonce(Some(1))
            .with_balance(U256::from(1_000_000))
            .with_code(Some(code.into()))
            .with_storage(Some(storage));
        spec.genesis.alloc.insert(contract, account);
        contract
    };
    let contracts = Contracts {
        stores: [Ending::Stop, Ending::Stop, Ending::Stop, Ending::Revert, Ending::Invalid]
            .map(|ending| deploy([bytecode::store(ending), vec![0]].concat()))
            .to_vec(),
        logs: (0..=4).map(|topics| deploy(bytecode::log(topics))).collect(),
        block_hashes: deploy(bytecode::block_hashes()),
        environment: deploy(bytecode::environment()),
        factory: deploy(bytecode::factory()),
        destroy: deploy(bytecode::destroy()),
        forwards: [Forward::Call, Forward::Delegate, Forward::CallThenRevert]
            .map(|how| deploy(bytecode::forward(how)))
            .to_vec(),
    };
    let deposit = GenesisAccount::default().with_code(Some(bytecode::log_under(bytecode::DEPOSIT_EVENT).into()));
    spec.genesis.alloc.insert(DEPOSIT_CONTRACT, deposit);
    (spec, contracts)
}

struct History {
    rng: StdRng,
    chain: BenchChain,
    oracle: Oracle,
    contracts: Contracts,
    keys: Vec<TestKey>,
    coinbase: Address,
    submitted_count: usize,
    seen: Seen,
}

/// What histories came across: a test that no longer reaches a corner says so.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    failed: usize,
    logs: usize,
    deposits: usize,
    withdrawals: usize,
    consolidations: usize,
    deleted: usize,
    delegated: usize,
    undelegated: usize,
    created: usize,
    slots_back: usize,
}

impl Seen {
    fn take(&mut self, sealed: &SealedBlock, before: &Oracle) {
        let block = &sealed.block;
        self.failed += block.transactions.iter().filter(|tx| !tx.success).count();
        self.logs += block.logs.len();
        self.created += block.codes.len();
        for (count, request_type) in
            [(&mut self.deposits, 0), (&mut self.withdrawals, 1), (&mut self.consolidations, 2)]
        {
            *count += sealed.requests.iter().filter(|request| request[0] == request_type).count();
        }
        let mut written = BTreeMap::new();
        for diff in block.diffs.iter() {
            match *diff {
                StateDiff::Deleted { .. } => self.deleted += 1,
                StateDiff::Slot { address, slot, value } => {
                    written.insert((address, slot), value);
                }
                StateDiff::Account { address, code_hash, .. } => {
                    let had_code =
                        before.accounts.get(&address).is_some_and(|account| account.code_hash != KECCAK_EMPTY);
                    let is_sender = DEV_ACCOUNTS.iter().any(|(sender, _)| *sender == address);
                    self.delegated += usize::from(is_sender && !had_code && code_hash != KECCAK_EMPTY);
                    self.undelegated += usize::from(is_sender && had_code && code_hash == KECCAK_EMPTY);
                }
            }
        }
        let is_back = |((address, slot), value): &((Address, U256), U256)| {
            let account = before.accounts.get(address);
            account.and_then(|account| account.storage.get(slot)).copied().unwrap_or_default() == *value
        };
        self.slots_back += written.into_iter().filter(is_back).count();
    }

    fn assert_all(&self) {
        for (count, what) in [
            (self.failed, "a failed transaction"),
            (self.logs, "a log"),
            (self.deposits, "a deposit"),
            (self.withdrawals, "a withdrawal request"),
            (self.consolidations, "a consolidation request"),
            (self.deleted, "a destroyed contract"),
            (self.delegated, "a delegation"),
            (self.undelegated, "a delegation taken back"),
            (self.created, "a creation"),
            (self.slots_back, "a slot back at its first value"),
        ] {
            assert!(count > 0, "no history reached {what}: {self:?}");
        }
    }
}

impl History {
    fn new(seed: u64, fork: Fork) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (spec, contracts) = genesis(fork);
        let keys: Vec<TestKey> = DEV_ACCOUNTS.iter().map(|(_, secret)| TestKey::from_hex(secret)).collect();
        let places = [Address::ZERO, keys[0].address, contracts.stores[0], Address::repeat_byte(0xcb)];
        let coinbase = *places.choose(&mut rng).expect("not empty");
        let chain = BenchChain::with(spec, |settings, _| settings.coinbase = coinbase);
        let hash = chain.core.heads().latest.hash;
        let oracle = Oracle::from_genesis(&chain.spec.genesis, hash);
        Self { rng, chain, oracle, contracts, keys, coinbase, submitted_count: 0, seen: Seen::default() }
    }

    fn block(&mut self, tx_count: usize) {
        for _ in 0..tx_count {
            let raw = self.transaction();
            self.chain.submit(&raw);
            self.submitted_count += 1;
            if self.rng.random_ratio(1, 2) {
                self.chain.settle();
            }
        }
        let before = self.oracle.clone();
        let sealed = self.chain.finish_block();
        self.compare(&sealed, before);
        self.chain.free_chunks();
        self.chain.effects.replies.clear();
    }

    fn compare(&mut self, sealed: &SealedBlock, mut before: Oracle) {
        assert_header(sealed);
        let expected = self.oracle.execute(sealed);
        let mut cumulative_gas = 0;
        for (tx, receipt) in sealed.block.transactions.iter().zip(&expected.receipts) {
            let gas_used = receipt.cumulative_gas_used() - cumulative_gas;
            cumulative_gas = receipt.cumulative_gas_used();
            assert_eq!((tx.success, tx.gas_used), (receipt.status(), gas_used), "{}", tx.hash);
            assert_eq!(tx.cumulative_gas_used, cumulative_gas);
            let logs: Vec<_> = sealed.block.logs_of(tx).cloned().collect();
            assert_eq!(logs, receipt.logs());
        }
        assert_eq!(sealed.block.transactions.len(), expected.receipts.len());
        assert_eq!(sealed.header.gas_used, expected.gas_used);
        assert_eq!(sealed.requests, expected.requests);
        self.compare_state(sealed);
        self.seen.take(sealed, &before);
        apply_diffs(&mut before, &sealed.block);
        assert_eq!(before.accounts, self.oracle.accounts, "the published diffs do not lead to the block's state");
        assert_eq!(sealed.header.state_root, self.oracle.root());
    }

    fn compare_state(&mut self, sealed: &SealedBlock) {
        let world = self.chain.core.executor.world();
        for (address, expected) in &self.oracle.accounts {
            let account = sealed.state.account(address).expect("readable").unwrap_or_else(|| panic!("no {address}"));
            assert_eq!(
                (account.nonce, account.balance_wei, account.code_hash),
                (expected.nonce, expected.balance_wei, expected.code_hash),
                "{address}"
            );
            let cached = world.peek_account(*address).expect("readable");
            assert_eq!((cached.nonce, cached.balance_wei), (expected.nonce, expected.balance_wei), "{address}");
            for slot in (0..50).map(U256::from).chain(expected.storage.keys().copied()) {
                let value = expected.storage.get(&slot).copied().unwrap_or_default();
                assert_eq!(sealed.state.storage(address, slot).expect("readable"), value, "{address} {slot}");
                assert_eq!(world.peek_slot(*address, slot).expect("readable"), value, "{address} {slot}");
            }
            if cached.has_code() {
                let code = sealed.state.code(&account.code_hash).expect("readable").expect("stored");
                assert_eq!(keccak256(code), account.code_hash);
            }
        }
    }

    // ---- transactions ------------------------------------------------------------------------------------------------------------

    fn transaction(&mut self) -> Vec<u8> {
        let key = *self.keys.choose(&mut self.rng).expect("not empty");
        let nonce = pool_nonce(&mut self.chain, key.address);
        if self.rng.random_ratio(1, 10) {
            return self.set_code(key, nonce);
        }
        let (to, value_wei, input) = self.call(key.address);
        let gas_limit = match self.rng.random_range(0..8) {
            0 => self.rng.random_range(21_000..120_000),
            _ => 1_500_000,
        };
        self.envelope(key, nonce, gas_limit, to, value_wei, input)
    }

    fn envelope(
        &mut self,
        key: TestKey,
        nonce: u64,
        gas_limit: u64,
        to: Option<Address>,
        value: U256,
        input: Bytes,
    ) -> Vec<u8> {
        let chain_id = self.chain.spec.chain_id;
        let to = to.map_or(alloy_primitives::TxKind::Create, alloy_primitives::TxKind::Call);
        let access_list = self.access_list();
        let max_priority_fee_per_gas = [0, 1, 1_000_000][self.rng.random_range(0..3)];
        match self.rng.random_range(0..3) {
            0 => key.encode(Legacy {
                chain_id: Some(chain_id),
                nonce,
                gas_price: 1_000_000 + max_priority_fee_per_gas,
                gas_limit,
                to,
                value,
                input,
            }),
            1 => key.encode(AccessList {
                chain_id,
                nonce,
                gas_price: 2_000_000,
                gas_limit,
                to,
                value,
                access_list,
                input,
            }),
            _ => key.encode(DynamicFee {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: 1_000_000_000,
                max_priority_fee_per_gas,
                to,
                value,
                access_list,
                input,
            }),
        }
    }

    fn access_list(&mut self) -> alloy_eips::eip2930::AccessList {
        let count = self.rng.random_range(0..3);
        let items = (0..count).map(|_| {
            let keys = (0..self.rng.random_range(0..4)).map(B256::with_last_byte).collect();
            alloy_eips::eip2930::AccessListItem { address: self.address(), storage_keys: keys }
        });
        alloy_eips::eip2930::AccessList(items.collect::<Vec<_>>())
    }

    /// Any address that a history knows: senders, contracts, the coinbase, precompiles, strangers, the absent.
    fn address(&mut self) -> Address {
        match self.rng.random_range(0..8) {
            0 | 1 => self.keys.choose(&mut self.rng).expect("not empty").address,
            2 | 3 => *self.contracts.all().choose(&mut self.rng).expect("not empty"),
            4 => self.coinbase,
            5 => Address::with_last_byte(self.rng.random_range(1..10)),
            6 => bytecode::child_of(self.contracts.factory, U256::from(self.rng.random_range(0..4))),
            _ => Address::repeat_byte(self.rng.random_range(0xa0..0xb0)),
        }
    }

    /// Slots and values out of so few that a block writes many back to what they were.
    fn store_words(&mut self) -> Bytes {
        let count = self.rng.random_range(1..5);
        let words: Vec<U256> = (0..count)
            .flat_map(|_| [self.rng.random_range(0..4), self.rng.random_range(0..3)])
            .map(U256::from)
            .collect();
        bytecode::words(&words)
    }

    fn call(&mut self, sender: Address) -> (Option<Address>, U256, Bytes) {
        let small = U256::from([0, 0, 1, 1_000][self.rng.random_range(0..4)]);
        match self.rng.random_range(0..20) {
            0..=3 => (Some(self.address()), small, Bytes::new()),
            4 => (Some(sender), small, Bytes::new()),
            5 => (None, small, self.creation()),
            6..=9 => (self.contracts.stores.choose(&mut self.rng).copied(), U256::ZERO, self.store_words()),
            10 => (self.contracts.logs.choose(&mut self.rng).copied(), U256::ZERO, self.store_words()),
            11 => {
                let depths: Vec<U256> = [0, 1, 2, 3, 5, 256, 257, 1_u64 << 40].map(U256::from).to_vec();
                (Some(self.contracts.block_hashes), U256::ZERO, bytecode::words(&depths))
            }
            12 => {
                let address = self.address();
                (Some(self.contracts.environment), small, bytecode::words(&[address.into_word().into()]))
            }
            13 | 14 => {
                let heir = if self.rng.random() { self.address() } else { Address::ZERO };
                let salt = U256::from(self.rng.random_range(0..4));
                (Some(self.contracts.factory), small, bytecode::words(&[salt, heir.into_word().into()]))
            }
            15 => {
                let salt = U256::from(self.rng.random_range(0..4));
                let targets = [self.contracts.destroy, bytecode::child_of(self.contracts.factory, salt)];
                let heir = if self.rng.random_ratio(1, 4) { targets[0] } else { self.address() };
                (targets.choose(&mut self.rng).copied(), small, bytecode::words(&[heir.into_word().into()]))
            }
            16..=18 => {
                let target = self.address();
                let mut input = bytecode::words(&[target.into_word().into(), small]).to_vec();
                input.extend(self.store_words());
                (self.contracts.forwards.choose(&mut self.rng).copied(), small, input.into())
            }
            _ => self.request(),
        }
    }

    fn creation(&mut self) -> Bytes {
        match self.rng.random_range(0..6) {
            0 => Bytes::new(),
            1 => Bytes::from_static(&[0xfe]),
            // Code that begins with 0xef cannot be deployed (EIP-3541).
            2 => Bytes::from_static(&[0x60, 0xef, 0x5f, 0x53, 0x60, 1, 0x5f, 0xf3]),
            // Destroys itself before it exists.
            3 => Bytes::from_static(&[0x60, 0x07, 0x60, 0x01, 0x55, 0x33, 0xff]),
            _ => bytecode::init_code(&bytecode::store(Ending::Stop)).into(),
        }
    }

    fn request(&mut self) -> (Option<Address>, U256, Bytes) {
        let fill = self.rng.random();
        match self.rng.random_range(0..3) {
            0 => (Some(eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS), U256::from(1_000), Bytes::from(vec![fill; 56])),
            1 => {
                (Some(eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS), U256::from(1_000), Bytes::from(vec![fill; 96]))
            }
            _ => (Some(DEPOSIT_CONTRACT), U256::ZERO, bytecode::deposit_event(fill)),
        }
    }

    fn set_code(&mut self, key: TestKey, nonce: u64) -> Vec<u8> {
        let chain_id = self.chain.spec.chain_id;
        let count = self.rng.random_range(1..4);
        let authorization_list = (0..count)
            .map(|_| {
                let authority = *self.keys[5..].choose(&mut self.rng).expect("not empty");
                let is_own = authority.address == key.address;
                let wrong = u64::from(self.rng.random_ratio(1, 6));
                let authority_nonce = pool_nonce(&mut self.chain, authority.address) + u64::from(is_own) + wrong;
                let address = match self.rng.random_range(0..4) {
                    0 => Address::ZERO,
                    1 => self.contracts.forwards[0],
                    2 => self.contracts.stores[0],
                    _ => self.address(),
                };
                let chain_id = [chain_id, 0, chain_id, chain_id + 1][self.rng.random_range(0..4)];
                authority.authorize(Authorization { chain_id: U256::from(chain_id), address, nonce: authority_nonce })
            })
            .collect();
        let to = self.address();
        key.encode(SetCode {
            chain_id,
            nonce,
            gas_limit: 1_500_000,
            max_fee_per_gas: 1_000_000_000,
            max_priority_fee_per_gas: 5,
            to,
            value: U256::from(self.rng.random_range(0..2)),
            access_list: self.access_list(),
            authorization_list,
            input: self.store_words(),
        })
    }
}

fn pool_nonce(chain: &mut BenchChain, address: Address) -> u64 {
    match chain.read(BuilderRead::Account { address }) {
        BuilderAnswer::Account { pool_nonce, .. } => pool_nonce,
        other => panic!("{other:?}"),
    }
}

/// What a reader of the open block makes of its diffs.
fn apply_diffs(state: &mut Oracle, block: &OpenBlock) {
    for diff in block.diffs.iter() {
        match *diff {
            StateDiff::Account { address, nonce, balance_wei, code_hash } => {
                let account = state.accounts.entry(address).or_default();
                *account =
                    OracleAccount { nonce, balance_wei, code_hash, storage: std::mem::take(&mut account.storage) };
            }
            StateDiff::Slot { address, slot, value } => {
                set_slot(state.accounts.entry(address).or_default(), slot, value);
            }
            StateDiff::Deleted { address } => {
                state.accounts.remove(&address);
            }
        }
    }
}

fn run(seed: u64, fork: Fork, seen: Seen) -> Seen {
    let mut history = History::new(seed, fork);
    history.seen = seen;
    let block_count = history.rng.random_range(3..6);
    let mut placed_count = 0;
    for _ in 0..block_count {
        let tx_count = history.rng.random_range(50..=300);
        history.block(tx_count);
        placed_count += history.chain.core.heads().latest.block.transactions.len();
    }
    assert!(placed_count * 2 > history.submitted_count, "{placed_count} of {}", history.submitted_count);
    history.seen
}

/// Names the seed when a history panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SIM_SEED={} cargo test --lib builder::core::differential", self.0);
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn random_histories_equal_those_of_alloy_evm() {
    let seeds = match variable("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("SIM_SEEDS").unwrap_or(8),
    };
    let is_single = seeds.end - seeds.start == 1;
    let mut seen = Seen::default();
    for seed in seeds {
        let _named = Named(seed);
        seen = run(seed, if seed % 2 == 0 { Fork::Osaka } else { Fork::Prague }, seen);
    }
    if !is_single {
        seen.assert_all();
    }
}

#[test]
fn block_hashes_reach_back_256_blocks_and_no_further() {
    let mut history = History::new(0, Fork::Osaka);
    let key = history.keys[1];
    for nonce in 0..262 {
        let before = history.oracle.clone();
        let depths: Vec<U256> = [0, 1, 2, 254, 255, 256, 257].map(U256::from).to_vec();
        let (to, input) = match nonce % 87 {
            86 => (history.contracts.block_hashes, bytecode::words(&depths)),
            _ => (key.address, Bytes::new()),
        };
        let raw = history.envelope(key, nonce, 1_500_000, Some(to), U256::ZERO, input);
        history.chain.submit(&raw);
        let sealed = history.chain.finish_block();
        history.compare(&sealed, before);
    }
    let stored = |depth: u64| history.oracle.accounts[&history.contracts.block_hashes].storage.get(&U256::from(depth));
    assert_eq!(stored(257), None);
    assert!(stored(256).is_some(), "block 261 sees block 5");
    let history_contract = &history.oracle.accounts[&eip2935::HISTORY_STORAGE_ADDRESS];
    assert_eq!(history_contract.storage.len(), 262);
}
