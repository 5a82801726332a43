//! The same blocks through alloy-evm's block executor, over plain maps that nothing of ours has touched.

use std::collections::BTreeMap;
use std::convert::Infallible;

use alloy_consensus::transaction::SignerRecoverable;
use alloy_consensus::{ReceiptEnvelope, TxEnvelope};
use alloy_eips::eip2718::Decodable2718;
use alloy_evm::block::BlockExecutor;
use alloy_evm::eth::receipt_builder::AlloyReceiptBuilder;
use alloy_evm::eth::spec::EthSpec;
use alloy_evm::eth::{EthBlockExecutionCtx, EthBlockExecutor, EthEvmFactory};
use alloy_evm::{EvmEnv, EvmFactory};
use alloy_genesis::Genesis;
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_trie::TrieAccount;
use alloy_trie::root::{state_root_unhashed, storage_root_unhashed};
use revm::bytecode::Bytecode;
use revm::context::{BlockEnv, CfgEnv};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::database::State;
use revm::database::states::bundle_state::BundleRetention;
use revm::database_interface::Database;
use revm::primitives::KECCAK_EMPTY;
use revm::primitives::hardfork::SpecId;
use revm::state::AccountInfo;

use crate::builder::block::SealedBlock;
use crate::primitives::Fork;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OracleAccount {
    pub nonce: u64,
    pub balance_wei: U256,
    pub code_hash: B256,
    pub storage: BTreeMap<U256, U256>,
}

/// A whole state in maps, and the hashes of its blocks.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    pub accounts: BTreeMap<Address, OracleAccount>,
    pub codes: BTreeMap<B256, Bytecode>,
    pub block_hashes: BTreeMap<u64, B256>,
    pub chain_id: u64,
}

/// What the reference executor says of a block.
pub struct Expected {
    pub receipts: Vec<ReceiptEnvelope>,
    pub requests: Vec<Bytes>,
    pub gas_used: u64,
}

impl Oracle {
    pub fn from_genesis(genesis: &Genesis, hash: B256) -> Self {
        let mut oracle = Self { chain_id: genesis.config.chain_id, ..Self::default() };
        oracle.block_hashes.insert(0, hash);
        for (address, account) in &genesis.alloc {
            let code = account.code.clone().unwrap_or_default();
            let code_hash = keccak256(&code);
            if !code.is_empty() {
                oracle.codes.insert(code_hash, Bytecode::new_raw(code));
            }
            let storage = account.storage.iter().flatten().map(|(slot, value)| ((*slot).into(), (*value).into()));
            let account = OracleAccount {
                nonce: account.nonce.unwrap_or(0),
                balance_wei: account.balance,
                code_hash,
                storage: storage.collect(),
            };
            oracle.accounts.insert(*address, account);
        }
        oracle
    }

    /// Executes the transactions of `sealed` in their order, from their bytes alone.
    pub fn execute(&mut self, sealed: &SealedBlock) -> Expected {
        let header = &sealed.header;
        let env = self.env(sealed);
        let mut state = State::builder().with_database(std::mem::take(self)).with_bundle_update().build();
        let context = EthBlockExecutionCtx {
            parent_hash: header.parent_hash,
            parent_beacon_block_root: header.parent_beacon_block_root,
            ommers: &[],
            withdrawals: None,
            extra_data: header.extra_data.clone(),
            tx_count_hint: None,
            slot_number: None,
        };
        // Holesky has every fork up to Osaka behind it at the tests' timestamps, and proof of stake from block 0.
        let evm = EthEvmFactory::default().create_evm(&mut state, env);
        let mut executor = EthBlockExecutor::new(evm, context, EthSpec::holesky(), AlloyReceiptBuilder::default());
        executor.apply_pre_execution_changes().expect("system calls");
        for tx in sealed.block.transactions.iter() {
            let envelope = TxEnvelope::decode_2718(&mut sealed.block.raw(tx)).expect("what is in a block decodes");
            let recovered = envelope.try_into_recovered().expect("a signature");
            assert_eq!(recovered.signer(), tx.sender);
            executor.execute_transaction(recovered).expect("a block holds valid transactions only");
        }
        let (_, result) = executor.finish().expect("closing system calls");
        state.merge_transitions(BundleRetention::PlainState);
        let bundle = state.take_bundle();
        *self = state.database;
        for (hash, code) in bundle.contracts {
            self.codes.insert(hash, code);
        }
        for (address, account) in bundle.state {
            let Some(info) = &account.info else {
                self.accounts.remove(&address);
                continue;
            };
            let ours = self.accounts.entry(address).or_default();
            ours.nonce = info.nonce;
            ours.balance_wei = info.balance;
            ours.code_hash = info.code_hash;
            if account.was_destroyed() {
                ours.storage.clear();
            }
            for (slot, value) in account.storage {
                set_slot(ours, slot, value.present_value);
            }
        }
        self.block_hashes.insert(header.number, sealed.hash);
        Expected { receipts: result.receipts, requests: result.requests.to_vec(), gas_used: result.gas_used }
    }

    fn env(&self, sealed: &SealedBlock) -> EvmEnv {
        let header = &sealed.header;
        let spec = match sealed.block.context.fork {
            Fork::Prague => SpecId::PRAGUE,
            Fork::Osaka => SpecId::OSAKA,
        };
        EvmEnv {
            cfg_env: CfgEnv::new().with_chain_id(self.chain_id).with_spec_and_mainnet_gas_params(spec),
            block_env: BlockEnv {
                number: U256::from(header.number),
                beneficiary: header.beneficiary,
                timestamp: U256::from(header.timestamp),
                gas_limit: header.gas_limit,
                basefee: header.base_fee_per_gas.expect("London is long active"),
                prevrandao: Some(header.mix_hash),
                blob_excess_gas_and_price: Some(BlobExcessGasAndPrice { excess_blob_gas: 0, blob_gasprice: 1 }),
                ..BlockEnv::default()
            },
        }
    }

    /// The state root by alloy-trie, from nothing but the maps.
    pub fn root(&self) -> B256 {
        state_root_unhashed(self.accounts.iter().map(|(address, account)| {
            let leaf = TrieAccount {
                nonce: account.nonce,
                balance: account.balance_wei,
                storage_root: storage_root_unhashed(
                    account.storage.iter().map(|(slot, value)| (B256::from(*slot), *value)),
                ),
                code_hash: account.code_hash,
            };
            (*address, leaf)
        }))
    }
}

pub fn set_slot(account: &mut OracleAccount, slot: U256, value: U256) {
    if value.is_zero() {
        account.storage.remove(&slot);
    } else {
        account.storage.insert(slot, value);
    }
}

impl Database for Oracle {
    type Error = Infallible;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.accounts.get(&address).map(|account| AccountInfo {
            balance: account.balance_wei,
            nonce: account.nonce,
            code_hash: account.code_hash,
            // Asked for by hash, when it runs.
            code: None,
            ..AccountInfo::default()
        }))
    }

    fn code_by_hash(&mut self, hash: B256) -> Result<Bytecode, Infallible> {
        Ok(match hash == KECCAK_EMPTY {
            true => Bytecode::default(),
            false => self.codes.get(&hash).cloned().expect("an account names only codes that were deployed"),
        })
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, Infallible> {
        Ok(self.accounts.get(&address).and_then(|account| account.storage.get(&slot)).copied().unwrap_or_default())
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Infallible> {
        Ok(self.block_hashes.get(&number).copied().unwrap_or_default())
    }
}
