//! The chain's rules and first state, from a go-ethereum genesis file; and the development genesis.

use std::collections::BTreeMap;

use alloy_consensus::Header;
use alloy_consensus::constants::{EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH};

use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_genesis::{ChainConfig, Genesis, GenesisAccount};

use super::native_rollup::{NativeRollup, NativeRollupError};
use crate::primitives::{Address, B256, Bytes, Fork, U256, address, b256};

/// Chain id of the development L1.
pub const DEV_L1_CHAIN_ID: u64 = 61_971;
/// Hash of the development L1's block 0, with its usual settings.
pub const DEV_L1_GENESIS_HASH: B256 = b256!("0xc24b67e183e440f9c8e48739680dad8809706b0c36cd77f8f0b47703de430a62");
/// Which of [`DEV_ACCOUNTS`] posts the development chain's batches.
pub const DEV_BATCHER: usize = 9;
/// Chain id of `sequencer dev`.
pub const DEV_CHAIN_ID: u64 = 61_972;
const DEV_GAS_LIMIT: u64 = 10_000_000_000;
const DEV_BASE_FEE_WEI: u128 = 1_000_000;
/// 2023-11-14T22:13:20Z. Constant, so that the genesis hash is.
const DEV_TIMESTAMP: u64 = 1_700_000_000;
const ETHER_WEI: u128 = 1_000_000_000_000_000_000;
const DEV_BALANCE_WEI: u128 = 10_000 * ETHER_WEI;

/// The first ten accounts of the mnemonic `test test test test test test test test test test test junk` (m/44'/60'/0'/0/i), public
/// knowledge everywhere: address and private key.
pub const DEV_ACCOUNTS: [(Address, &str); 10] = [
    (
        address!("0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
        "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
    ),
    (
        address!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    ),
    (
        address!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
        "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    ),
    (
        address!("0x90F79bf6EB2c4f870365E785982E1f101E93b906"),
        "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    ),
    (
        address!("0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"),
        "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    ),
    (
        address!("0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"),
        "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
    ),
    (
        address!("0x976EA74026E726554dB657fA54763abd0C3a0aa9"),
        "0x92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
    ),
    (
        address!("0x14dC79964da2C08b23698B3D3cc7Ca32193d9955"),
        "0x4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356",
    ),
    (
        address!("0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f"),
        "0xdbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97",
    ),
    (
        address!("0xa0Ee7A142d267C1f36714E4a8F75612F20a79720"),
        "0x2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6",
    ),
];

/// What makes a genesis file unfit for this sequencer.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    #[error("the genesis file is not a go-ethereum genesis in JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("pragueTime is {prague:?} and the genesis timestamp is {genesis}: Prague must be active at genesis")]
    PragueNotActive { prague: Option<u64>, genesis: u64 },
    #[error("{name} is set to {time}: forks after Osaka are not known here")]
    ForkUnknown { name: &'static str, time: u64 },
    #[error("baseFeePerGas is missing or above 2^64")]
    BaseFee,
    #[error(
        "the genesis allocates no code at the system contract {address} ({eip}), which every block from Prague on calls"
    )]
    SystemContractMissing { address: Address, eip: &'static str },
    #[error("excessBlobGas is {excess} and blobGasUsed {used}: blobs are forbidden here (EIP-8079), both must be zero")]
    BlobGas { excess: u64, used: u64 },
    #[error(transparent)]
    NativeRollup(#[from] NativeRollupError),
}

/// The rules of one chain.
#[derive(Clone, Debug)]
pub struct ChainSpec {
    pub chain_id: u64,
    osaka_time: Option<u64>,
    pub deposit_contract: Address,
    /// What it takes to derive the chain from L1; without it there is no L1.
    pub native_rollup: Option<NativeRollup>,
    pub genesis: Genesis,
}

impl ChainSpec {
    /// Reads and checks a go-ethereum genesis file.
    ///
    /// # Errors
    /// Names the field that does not fit.
    pub fn from_json(text: &str) -> Result<Self, GenesisError> {
        Self::new(serde_json::from_str(text)?)
    }

    fn new(genesis: Genesis) -> Result<Self, GenesisError> {
        let config = &genesis.config;
        if config.prague_time.is_none_or(|time| time > genesis.timestamp) {
            return Err(GenesisError::PragueNotActive { prague: config.prague_time, genesis: genesis.timestamp });
        }
        for (name, time) in [("amsterdamTime", config.amsterdam_time), ("bogotaTime", config.bogota_time)] {
            if let Some(time) = time {
                return Err(GenesisError::ForkUnknown { name, time });
            }
        }
        if genesis.base_fee_per_gas.is_none_or(|fee| u64::try_from(fee).is_err()) {
            return Err(GenesisError::BaseFee);
        }
        let (excess, used) = (genesis.excess_blob_gas.unwrap_or(0), genesis.blob_gas_used.unwrap_or(0));
        if excess > 0 || used > 0 {
            return Err(GenesisError::BlobGas { excess, used });
        }
        for (address, eip) in [
            (eip4788::BEACON_ROOTS_ADDRESS, "EIP-4788"),
            (eip2935::HISTORY_STORAGE_ADDRESS, "EIP-2935"),
            (eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, "EIP-7002"),
            (eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, "EIP-7251"),
        ] {
            let code = genesis.alloc.get(&address).and_then(|account| account.code.as_ref());
            if code.is_none_or(|code| code.is_empty()) {
                return Err(GenesisError::SystemContractMissing { address, eip });
            }
        }
        let native_rollup = config.extra_fields.get("nativeRollup").map(NativeRollup::from_json).transpose()?;
        Ok(Self {
            chain_id: config.chain_id,
            native_rollup,
            osaka_time: config.osaka_time,
            deposit_contract: config.deposit_contract_address.unwrap_or(Address::ZERO),
            genesis,
        })
    }

    /// The rules of a block with this timestamp.
    #[must_use]
    pub fn fork_at(&self, timestamp: u64) -> Fork {
        if self.osaka_time.is_some_and(|time| time <= timestamp) { Fork::Osaka } else { Fork::Prague }
    }

    /// The forks after Prague with their times, in words.
    #[must_use]
    pub fn fork_schedule(&self) -> Vec<(&'static str, u64)> {
        self.osaka_time.map(|time| ("osaka", time)).into_iter().collect()
    }

    /// Block 0 over the state root of the genesis allocation.
    #[must_use]
    pub fn genesis_header(&self, state_root: B256) -> Header {
        let genesis = &self.genesis;
        Header {
            parent_hash: B256::ZERO,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: genesis.coinbase,
            state_root,
            transactions_root: EMPTY_ROOT_HASH,
            receipts_root: EMPTY_ROOT_HASH,
            difficulty: genesis.difficulty,
            number: 0,
            gas_limit: genesis.gas_limit,
            gas_used: 0,
            timestamp: genesis.timestamp,
            extra_data: genesis.extra_data.clone(),
            mix_hash: genesis.mix_hash,
            nonce: genesis.nonce.to_be_bytes().into(),
            base_fee_per_gas: genesis.base_fee_per_gas.map(|fee| fee as u64),
            withdrawals_root: Some(EMPTY_ROOT_HASH),
            blob_gas_used: Some(genesis.blob_gas_used.unwrap_or(0)),
            excess_blob_gas: Some(genesis.excess_blob_gas.unwrap_or(0)),
            parent_beacon_block_root: Some(B256::ZERO),
            requests_hash: Some(EMPTY_REQUESTS_HASH),
            ..Header::default()
        }
    }
}

/// The genesis of `sequencer dev`: Prague, or Osaka as well, from the first block; `account_count` funded accounts, at most ten of them
/// the well-known ones, further ones at addresses derived from their index (nobody has their keys). It settles on the development L1 with its
/// usual settings.
///
/// # Errors
/// Never for the values built here; the check is the same as for a file.
pub fn dev_genesis(fork: Fork, account_count: usize) -> Result<ChainSpec, GenesisError> {
    dev_genesis_on(fork, account_count, DEV_L1_GENESIS_HASH)
}

/// As [`dev_genesis`], on a development L1 whose block 0 has this hash.
///
/// # Errors
/// As [`dev_genesis`].
pub fn dev_genesis_on(fork: Fork, account_count: usize, l1_genesis: B256) -> Result<ChainSpec, GenesisError> {
    let known = DEV_ACCOUNTS.iter().map(|(address, _)| *address);
    let derived = (DEV_ACCOUNTS.len()..).map(|index| {
        let digest = alloy_primitives::keccak256((index as u64).to_be_bytes());
        Address::from_slice(&digest[12..])
    });
    let mut alloc: BTreeMap<Address, GenesisAccount> = known
        .chain(derived)
        .take(account_count)
        .map(|address| (address, GenesisAccount::default().with_balance(U256::from(DEV_BALANCE_WEI))))
        .collect();
    for (address, code) in [
        (eip4788::BEACON_ROOTS_ADDRESS, &eip4788::BEACON_ROOTS_CODE),
        (eip2935::HISTORY_STORAGE_ADDRESS, &eip2935::HISTORY_STORAGE_CODE),
        (eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, &eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE),
        (eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, &eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE),
    ] {
        alloc.insert(address, GenesisAccount::default().with_nonce(Some(1)).with_code(Some((*code).clone())));
    }
    ChainSpec::new(Genesis {
        config: dev_chain_config(fork, l1_genesis),
        timestamp: DEV_TIMESTAMP,
        gas_limit: DEV_GAS_LIMIT,
        difficulty: U256::ZERO,
        extra_data: Bytes::new(),
        alloc,
        base_fee_per_gas: Some(DEV_BASE_FEE_WEI),
        ..Genesis::default()
    })
}

fn dev_chain_config(fork: Fork, l1_genesis: B256) -> ChainConfig {
    let rollup = serde_json::json!({
        "l1ChainId": DEV_L1_CHAIN_ID,
        "batchers": [{ "address": DEV_ACCOUNTS[DEV_BATCHER].0, "fromL1Block": 0 }],
        "l1Start": { "number": 0, "hash": l1_genesis },
        "profile": "execute-tx-v2",
    });
    ChainConfig {
        chain_id: DEV_CHAIN_ID,
        homestead_block: Some(0),
        eip150_block: Some(0),
        eip155_block: Some(0),
        eip158_block: Some(0),
        byzantium_block: Some(0),
        constantinople_block: Some(0),
        petersburg_block: Some(0),
        istanbul_block: Some(0),
        muir_glacier_block: Some(0),
        berlin_block: Some(0),
        london_block: Some(0),
        arrow_glacier_block: Some(0),
        gray_glacier_block: Some(0),
        merge_netsplit_block: Some(0),
        shanghai_time: Some(0),
        cancun_time: Some(0),
        prague_time: Some(0),
        osaka_time: (fork >= Fork::Osaka).then_some(0),
        terminal_total_difficulty: Some(U256::ZERO),
        terminal_total_difficulty_passed: true,
        deposit_contract_address: Some(Address::ZERO),
        blob_schedule: [
            ("cancun".to_owned(), alloy_eips::eip7840::BlobParams::cancun()),
            ("prague".to_owned(), alloy_eips::eip7840::BlobParams::prague()),
            ("osaka".to_owned(), alloy_eips::eip7840::BlobParams::osaka()),
        ]
        .into(),
        extra_fields: [("nativeRollup".to_owned(), rollup)].into_iter().collect(),
        ..ChainConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dev_genesis_reads_back_from_its_own_json() {
        for fork in [Fork::Prague, Fork::Osaka] {
            let spec = dev_genesis(fork, 12).expect("the built-in genesis passes its own check");
            let json = serde_json::to_string(&spec.genesis).expect("a genesis serialises");
            let read = ChainSpec::from_json(&json).expect("what we print is what we read");
            // The JSON leaves out what only later forks define of a blob schedule; nothing here uses it.
            assert_eq!(read.genesis.alloc, spec.genesis.alloc);
            assert_eq!(read.genesis_header(B256::ZERO), spec.genesis_header(B256::ZERO));
            assert_eq!((read.chain_id, read.fork_schedule()), (spec.chain_id, spec.fork_schedule()));
            assert_eq!(read.fork_at(DEV_TIMESTAMP), fork);
            assert_eq!(spec.genesis.alloc.len(), 12 + 4);
        }
    }

    #[test]
    fn unfit_files_are_refused_by_name() {
        let mut genesis = dev_genesis(Fork::Prague, 1).expect("built in").genesis;
        genesis.config.prague_time = Some(DEV_TIMESTAMP + 1);
        assert!(matches!(ChainSpec::new(genesis.clone()), Err(GenesisError::PragueNotActive { .. })));
        genesis.config.prague_time = Some(DEV_TIMESTAMP);
        genesis.config.amsterdam_time = Some(0);
        assert!(matches!(
            ChainSpec::new(genesis.clone()),
            Err(GenesisError::ForkUnknown { name: "amsterdamTime", time: 0 })
        ));
        genesis.config.amsterdam_time = None;
        genesis.alloc.remove(&eip2935::HISTORY_STORAGE_ADDRESS);
        assert!(matches!(ChainSpec::new(genesis), Err(GenesisError::SystemContractMissing { eip: "EIP-2935", .. })));
    }
}
