//! A chain of sealed blocks without a builder: whoever tests or measures settlement chooses transactions, origins and withdrawals.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_consensus::constants::EMPTY_OMMER_ROOT_HASH;
use alloy_eips::eip4895::Withdrawal;
use alloy_genesis::GenesisAccount;

use crate::builder::block::{BlockContext, next_base_fee_wei};
use crate::builder::block_execution::{PreparedTx, execute_block};
use crate::builder::execution::{Executor, requests_hash};
use crate::builder::replay::genesis_block;
use crate::builder::world::World;
use crate::config::genesis::{ChainSpec, dev_genesis};
use crate::primitives::{Address, B256, Bytes, Fork, U256};
use crate::settlement::Origin;
use crate::state::{ListRoot, Snapshot, StateReader, StateStore, Store};
use crate::testing::bytecode::{
    Ending, Forward, block_hashes, child_of, factory, forward, init_code, log, store, words,
};
use crate::testing::rng::SimRng;
use crate::testing::signing::{DynamicFee, Legacy, TestKey};
use crate::witness::Witness;
use crate::witness::collect::collect;
use crate::witness::validator::StatelessBlock;

/// Contracts of the genesis.
pub const STORE: Address = Address::repeat_byte(0x51);
pub const LOG: Address = Address::repeat_byte(0x52);
pub const HASHES: Address = Address::repeat_byte(0x53);
pub const FORWARD: Address = Address::repeat_byte(0x54);
pub const FACTORY: Address = Address::repeat_byte(0x55);

/// A sealed block, its witness with the reserve, and its origin.
pub struct SealedTestBlock {
    pub block: StatelessBlock,
    pub witness: Witness,
    pub origin: Origin,
    /// The state before it.
    pub parent: Snapshot,
    /// How many of the witness's nodes are canonical: the first ones.
    canonical_count: usize,
}

impl SealedTestBlock {
    /// The witness without the reserve, as an execution client gives it.
    #[must_use]
    pub fn canonical(&self) -> Witness {
        Witness { state: self.witness.state[..self.canonical_count].to_vec(), ..self.witness.clone() }
    }
}

/// See the module's text.
pub struct SealedChain {
    pub spec: ChainSpec,
    pub genesis: Header,
    store: Store,
    state: Snapshot,
    /// From block 0 on, with their hashes.
    headers: Vec<(Header, B256)>,
    pub keys: Vec<TestKey>,
    nonces: Vec<u64>,
}

/// `mixHash` of an origin's header in tests.
#[must_use]
pub fn mix_hash_of(origin: &Origin) -> B256 {
    alloy_primitives::keccak256(origin.hash)
}

/// The origin with this number in tests.
#[must_use]
pub fn origin(number: u64) -> Origin {
    Origin { number, hash: alloy_primitives::keccak256(number.to_be_bytes()) }
}

impl SealedChain {
    /// A chain at its genesis, with `account_count` accounts beside `key_count` rich ones and a few contracts.
    ///
    /// # Panics
    /// When there is no memory: tests and benches only.
    #[must_use]
    pub fn new(account_count: usize, key_count: usize) -> Self {
        let keys: Vec<TestKey> = (0..key_count as u64).map(TestKey::nth).collect();
        let mut genesis = dev_genesis(Fork::Osaka, account_count).expect("built in").genesis;
        for key in &keys {
            let account = GenesisAccount::default().with_balance(U256::from(10_u128.pow(21)));
            genesis.alloc.insert(key.address, account);
        }
        let contracts = [
            (STORE, store(Ending::Stop)),
            (LOG, log(2)),
            (HASHES, block_hashes()),
            (FORWARD, forward(Forward::Call)),
            (FACTORY, factory()),
        ];
        for (address, code) in contracts {
            let account = GenesisAccount::default().with_nonce(Some(1)).with_code(Some(code.into()));
            genesis.alloc.insert(address, account);
        }
        let json = serde_json::to_string(&genesis).expect("a genesis serialises");
        let spec = ChainSpec::from_json(&json).expect("a valid genesis");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
        let mut store = crate::testing::state_disk::store(Arc::new(pool));
        let genesis = genesis_block(&spec, &mut store).expect("a genesis that commits");
        let nonces = vec![0; key_count];
        let headers = vec![(genesis.header.clone(), genesis.hash)];
        Self { spec, genesis: genesis.header, store, state: genesis.state, headers, keys, nonces }
    }

    #[must_use]
    pub fn tip(&self) -> &(Header, B256) {
        self.headers.last().expect("there is always block 0")
    }

    /// The state after the newest block.
    #[must_use]
    pub fn state(&self) -> Snapshot {
        self.state.clone()
    }

    /// A transfer of one wei from the `index`-th key.
    pub fn transfer(&mut self, index: usize, to: Address) -> Bytes {
        let nonce = self.nonces[index];
        self.nonces[index] += 1;
        self.keys[index].transfer(self.spec.chain_id, nonce, to, 1).into()
    }

    /// A call from the `index`-th key; `None`: a creation.
    pub fn call(&mut self, index: usize, to: Option<Address>, value: u64, input: Bytes) -> Bytes {
        let nonce = self.nonces[index];
        self.nonces[index] += 1;
        let to = to.map_or(alloy_primitives::TxKind::Create, alloy_primitives::TxKind::Call);
        let value = U256::from(value);
        let raw = if index.is_multiple_of(5) {
            let (gas_price, chain_id) = (2_000_000_000, Some(self.spec.chain_id));
            self.keys[index].encode(Legacy { chain_id, nonce, gas_price, gas_limit: 500_000, to, value, input })
        } else {
            self.keys[index].encode(DynamicFee {
                chain_id: self.spec.chain_id,
                nonce,
                gas_limit: 500_000,
                max_fee_per_gas: 2_000_000_000,
                max_priority_fee_per_gas: 1_000_000,
                to,
                value,
                input,
                ..DynamicFee::default()
            })
        };
        raw.into()
    }

    /// A transaction of any kind that this module knows.
    pub fn any_tx(&mut self, rng: &mut SimRng) -> Bytes {
        let index = rng.below(self.keys.len() as u64) as usize;
        let small = |rng: &mut SimRng, bound| U256::from(rng.below(bound));
        let salt = small(rng, 6);
        match rng.below(10) {
            0 => self.transfer(index, Address::from_word(B256::from(small(rng, 1 << 40)))),
            1 | 2 => {
                let to = self.keys[rng.below(self.keys.len() as u64) as usize].address;
                self.transfer(index, to)
            }
            // Values are small and often zero, so that slots come and go.
            3..6 => {
                let pairs = 1 + rng.below(4);
                let input: Vec<U256> = (0..pairs).flat_map(|_| [small(rng, 20), small(rng, 3)]).collect();
                self.call(index, Some(STORE), 0, words(&input))
            }
            6 => {
                let depth = U256::from(1 + rng.below(4));
                let to = if rng.chance(1, 2) { HASHES } else { LOG };
                self.call(index, Some(to), 0, words(&[depth, salt]))
            }
            7 => {
                // Prepares the address that the factory fills, so that destroying it deletes an account.
                self.call(index, Some(child_of(FACTORY, salt)), 1, Bytes::new())
            }
            8 => {
                let beneficiary = if rng.chance(1, 2) { U256::from(9) } else { U256::ZERO };
                self.call(index, Some(FACTORY), rng.below(2), words(&[salt, beneficiary]))
            }
            _ if rng.chance(1, 2) => {
                let code = log((salt.to::<u64>() % 3) as u8);
                self.call(index, None, 0, init_code(&code).into())
            }
            _ => {
                let callee = [STORE, LOG, HASHES, self.created(0)][rng.below(4) as usize];
                let callee = U256::from_be_slice(callee.as_slice());
                let one = U256::from(1);
                self.call(index, Some(FORWARD), 0, words(&[callee, U256::ZERO, one, one]))
            }
        }
    }

    /// Where the `index`-th key's first creation would be, were its nonce the one before.
    fn created(&self, index: usize) -> Address {
        self.keys[index].address.create(self.nonces[index].saturating_sub(1))
    }

    /// Executes and seals a block.
    ///
    /// # Panics
    /// When a transaction is invalid: tests and benches only.
    pub fn seal(&mut self, raws: Vec<Bytes>, origin: Origin, withdrawals: Vec<Withdrawal>) -> SealedTestBlock {
        let transactions: Vec<PreparedTx> =
            raws.into_iter().map(|raw| PreparedTx::recover(raw).expect("a signed transaction")).collect();
        let (parent, parent_hash) = self.tip().clone();
        let timestamp = parent.timestamp + 1;
        let context = BlockContext {
            number: parent.number + 1,
            parent_hash,
            timestamp,
            base_fee_per_gas_wei: next_base_fee_wei(&parent),
            prev_randao: mix_hash_of(&origin),
            coinbase: Address::repeat_byte(0xcb),
            gas_limit: parent.gas_limit,
            extra_data: Bytes::from_static(b"sequencer"),
            parent_beacon_block_root: origin.hash,
            fork: self.spec.fork_at(timestamp),
        };
        let mut world = World::new(self.state.clone());
        self.headers.iter().rev().take(256).for_each(|(header, hash)| world.set_block_hash(header.number, *hash));
        let mut executor = Executor::new(world, self.spec.chain_id, self.spec.deposit_contract, context.fork);
        let executed = execute_block(&mut executor, &context, &transactions, &withdrawals).expect("a valid block");
        let header_at = |number: u64| {
            let (header, _) = self.headers.get(usize::try_from(number).ok()?)?;
            Some(Bytes::from(alloy_rlp::encode(header)))
        };
        let witness = Witness::of_block_with_reserve(
            context.number,
            &self.state,
            &executed.accesses,
            &executed.changes,
            header_at,
        )
        .expect("a readable state");
        let canonical = collect(&self.state, &executed.accesses, &executed.changes).expect("a readable state");
        let parent = self.state.clone();
        self.state = self.store.commit(&self.state, &executed.changes).expect("commits");
        let mut transactions_root = ListRoot::new();
        transactions.iter().for_each(|tx| transactions_root.push(&tx.raw));
        let mut withdrawals_root = ListRoot::new();
        withdrawals.iter().for_each(|withdrawal| withdrawals_root.push(&alloy_rlp::encode(withdrawal)));
        let header = Header {
            parent_hash,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: context.coinbase,
            state_root: self.state.root(),
            transactions_root: transactions_root.finish(),
            receipts_root: executed.receipts_root,
            logs_bloom: executed.logs_bloom,
            number: context.number,
            gas_limit: context.gas_limit,
            gas_used: executed.gas_used,
            timestamp,
            extra_data: context.extra_data,
            mix_hash: context.prev_randao,
            base_fee_per_gas: Some(context.base_fee_per_gas_wei),
            withdrawals_root: Some(withdrawals_root.finish()),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            parent_beacon_block_root: Some(origin.hash),
            requests_hash: Some(requests_hash(&executed.requests)),
            ..Header::default()
        };
        let block = StatelessBlock::new(header, transactions, withdrawals);
        self.headers.push((block.header.clone(), block.hash));
        SealedTestBlock { block, witness, origin, parent, canonical_count: canonical.nodes.len() }
    }

    /// A block of `tx_count` random transactions.
    pub fn any_block(&mut self, rng: &mut SimRng, tx_count: u64) -> SealedTestBlock {
        let raws = (0..tx_count).map(|_| self.any_tx(rng)).collect();
        let number = self.tip().0.number;
        let withdrawals = (0..rng.below(3)).map(|index| Withdrawal {
            index,
            validator_index: 1,
            address: Address::from_word(B256::from(U256::from(rng.below(50) + 1_000))),
            amount: rng.below(3),
        });
        let withdrawals = withdrawals.collect();
        self.seal(raws, origin(5 + number / 2), withdrawals)
    }
}
