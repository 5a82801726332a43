//! What a development L1 is: rules, clock, precompile; and its block 0, which is the same wherever these are.

use std::str::FromStr;

use alloy_consensus::Header;
use alloy_consensus::constants::{EMPTY_OMMER_ROOT_HASH, EMPTY_RECEIPTS, EMPTY_TRANSACTIONS, EMPTY_WITHDRAWALS};
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use revm::primitives::hardfork::SpecId;

use crate::config::genesis::DEV_ACCOUNTS;
use crate::crypto::keccak::keccak256;
use crate::primitives::{B256, Bytes, Fork, U256};
use crate::state::genesis::GenesisAccount;
use crate::state::{AccountChange, AccountInfo, CODE_HASH_EMPTY, ROOT_EMPTY, StateChanges};
use crate::witness::Witness;
use crate::witness::validator::partial_state::PartialState;

/// Chain id of the development L1.
pub const L1_CHAIN_ID: u64 = 61_971;
/// 2023-11-14T22:13:08Z: one default L1 block time before the development L2's genesis. Constant, so that the hash of block 0 is.
pub const GENESIS_TIMESTAMP: u64 = 1_699_999_988;
/// 1 gwei.
pub const GENESIS_BASE_FEE_WEI: u64 = 1_000_000_000;
/// 10,000 ETH each.
const DEV_BALANCE_WEI: u128 = 10_000_000_000_000_000_000_000;

/// Rules of the L1. Prague alone knows no EXECUTE precompile: an ExecuteTx is a plain call there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum L1Fork {
    Cancun,
    Prague,
    /// Prague and Osaka.
    #[default]
    Osaka,
}

impl L1Fork {
    pub const ALL: [Self; 3] = [Self::Cancun, Self::Prague, Self::Osaka];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancun => "cancun",
            Self::Prague => "prague",
            Self::Osaka => "osaka",
        }
    }

    #[must_use]
    pub const fn spec(self) -> SpecId {
        match self {
            Self::Cancun => SpecId::CANCUN,
            Self::Prague => SpecId::PRAGUE,
            Self::Osaka => SpecId::OSAKA,
        }
    }

    /// Whether 0x12 is the EXECUTE precompile.
    #[must_use]
    pub const fn has_execute(self) -> bool {
        !matches!(self, Self::Prague)
    }

    /// EIP-7623, EIP-2935, EIP-7685, EIP-7702.
    #[must_use]
    pub fn is_prague(self) -> bool {
        self >= Self::Prague
    }

    /// EIP-7825.
    #[must_use]
    pub const fn tx_gas_max(self) -> Option<u64> {
        match self {
            Self::Osaka => Some(16_777_216),
            Self::Cancun | Self::Prague => None,
        }
    }
}

impl FromStr for L1Fork {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|fork| fork.name() == name).ok_or_else(|| format!("no rules are called {name}"))
    }
}

impl From<Fork> for L1Fork {
    fn from(fork: Fork) -> Self {
        match fork {
            Fork::Prague => Self::Prague,
            Fork::Osaka => Self::Osaka,
        }
    }
}

/// What the EXECUTE precompile does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What EIP-8079 means: a batch is re-executed from the transaction alone, and a false one fails.
    #[default]
    Strict,
    /// What the L1 node does, quirk by quirk.
    Compat,
}

impl Mode {
    pub const ALL: [Self; 2] = [Self::Strict, Self::Compat];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Compat => "compat",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|mode| mode.name() == name).ok_or_else(|| format!("no mode is called {name}"))
    }
}

/// Rules and clock of one development L1. What is here decides its block 0, but for time and finality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainConfig {
    pub chain_id: u64,
    pub fork: L1Fork,
    pub mode: Mode,
    pub gas_limit: u64,
    /// Between the starts of two blocks.
    pub block_time_ms: u64,
    /// Blocks between the head and the finalized block; half as many, rounded up, between the head and the safe one.
    pub finality_blocks: u64,
}

impl Default for ChainConfig {
    fn default() -> Self {
        Self {
            chain_id: L1_CHAIN_ID,
            fork: L1Fork::default(),
            mode: Mode::default(),
            gas_limit: 600_000_000,
            block_time_ms: 1_000,
            finality_blocks: 8,
        }
    }
}

impl ChainConfig {
    /// Clock and gas limit of mainnet.
    #[must_use]
    pub fn mainnet_like() -> Self {
        Self { gas_limit: 60_000_000, block_time_ms: 12_000, finality_blocks: 64, ..Self::default() }
    }
}

/// The accounts of block 0: the ten well-known ones and the contracts that the rules call.
#[must_use]
pub fn genesis_accounts(fork: L1Fork) -> Vec<GenesisAccount> {
    let funded = DEV_ACCOUNTS.iter().map(|(address, _)| GenesisAccount {
        address: *address,
        balance_wei: U256::from(DEV_BALANCE_WEI),
        ..GenesisAccount::default()
    });
    let system = [
        (true, eip4788::BEACON_ROOTS_ADDRESS, &eip4788::BEACON_ROOTS_CODE),
        (fork.is_prague(), eip2935::HISTORY_STORAGE_ADDRESS, &eip2935::HISTORY_STORAGE_CODE),
        (fork.is_prague(), eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, &eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE),
        (
            fork.is_prague(),
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
            &eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE,
        ),
    ];
    let system = system.into_iter().filter(|(wanted, ..)| *wanted).map(|(_, address, code)| GenesisAccount {
        address,
        nonce: 1,
        code: Bytes::clone(code),
        ..GenesisAccount::default()
    });
    funded.chain(system).collect()
}

/// Block 0. Pure: the same wherever chain id, rules and gas limit are the same.
///
/// # Panics
/// Never: the state that it hashes begins empty, so nothing of it can be missing.
#[must_use]
pub fn genesis_header(config: &ChainConfig) -> Header {
    let mut changes = StateChanges::default();
    for account in genesis_accounts(config.fork) {
        let code_hash = if account.code.is_empty() { CODE_HASH_EMPTY } else { keccak256(&account.code) };
        let info = AccountInfo { nonce: account.nonce, balance_wei: account.balance_wei, code_hash };
        let (address, account) = (account.address, Some(info));
        changes.accounts.push(AccountChange { address, account, storage_cleared: false, storage: Vec::new() });
    }
    let (root, nothing) = (ROOT_EMPTY, Witness::default());
    let state_root = PartialState::new(&root, &nothing).root_after(&changes);
    Header {
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        state_root: state_root.expect("an empty state misses nothing"),
        transactions_root: EMPTY_TRANSACTIONS,
        receipts_root: EMPTY_RECEIPTS,
        gas_limit: config.gas_limit,
        timestamp: GENESIS_TIMESTAMP,
        // Two chains with other ids have other blocks 0.
        extra_data: Bytes::from(format!("dev L1 {}", config.chain_id).into_bytes()),
        base_fee_per_gas: Some(GENESIS_BASE_FEE_WEI),
        withdrawals_root: Some(EMPTY_WITHDRAWALS),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: config.fork.is_prague().then_some(EMPTY_REQUESTS_HASH),
        ..Header::default()
    }
}

/// Hash of block 0: what the L2 genesis file's `l1Start` names.
#[must_use]
pub fn genesis_hash(config: &ChainConfig) -> B256 {
    genesis_header(config).hash_slow()
}
