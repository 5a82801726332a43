//! Seeded blocks' worth of signed transactions: all four types, calls, creations, reverts, logs and delegations.
//!
//! Everything a block of [`Workload::round`] holds is valid to send; what fails, fails in the EVM. The same seed gives the
//! same bytes.

use alloy_consensus::{SignableTransaction, TxEip1559, TxEip2930, TxEip7702, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::Encodable2718;
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_eips::eip7702::{Authorization, SignedAuthorization};
use alloy_eips::{eip7002, eip7251};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, hex, keccak256};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use secp256k1::{Message, SECP256K1, SecretKey};
use serde_json::Value;

const CHAIN_ID: u64 = 61_972;
/// Transactions of one round: above the 100 that acceptance asks of a block, with room for the rounds' random mix.
pub const ROUND_TRANSACTIONS: usize = 130;

/// The keys of the well-known mnemonic "test test test test test test test test test test test junk".
pub const DEV_KEYS: [[u8; 32]; 10] = [
    hex!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"),
    hex!("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"),
    hex!("5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"),
    hex!("7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6"),
    hex!("47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a"),
    hex!("8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba"),
    hex!("92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e"),
    hex!("4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356"),
    hex!("dbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97"),
    hex!("2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6"),
];

/// Init code that stores what the block's context opcodes answer, and deploys nothing.
/// `BLOCKHASH(NUMBER - 1)`, then NUMBER, TIMESTAMP, PREVRANDAO, COINBASE, GASLIMIT, BASEFEE, CHAINID, BLOBBASEFEE.
const CONTEXT_INIT_CODE: [u8; 40] =
    hex!("6001430340 5f55 43600155 42600255 44600355 41600455 45600555 48600655 46600755 4a600855 00");

/// The input lengths that some precompile takes: pairs and sums of curve points, BLAKE2 (213), KZG proofs (192).
const PRECOMPILE_INPUT_BYTES: [usize; 12] = [0, 1, 64, 96, 128, 160, 192, 213, 256, 288, 384, 512];

/// A key and the next nonce of its account.
pub struct Account {
    key: SecretKey,
    pub address: Address,
    nonce: u64,
}

impl Account {
    pub fn new(key: [u8; 32]) -> Self {
        let key = SecretKey::from_byte_array(key).expect("a key of this file is in range");
        let public = key.public_key(SECP256K1).serialize_uncompressed();
        let address = Address::from_slice(&keccak256(&public[1..])[12..]);
        Self { key, address, nonce: 0 }
    }

    /// An account that no round has used before.
    fn fresh(rng: &mut StdRng) -> Self {
        // A random 256-bit number is outside the curve's order with probability 2^-128.
        Self::new(rng.random())
    }

    fn sign_hash(&self, hash: B256) -> Signature {
        let signature = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(hash.0), &self.key);
        let (recovery_id, bytes) = signature.serialize_compact();
        Signature::from_bytes_and_parity(&bytes, i32::from(recovery_id) == 1)
    }

    /// Signs a transaction made for the account's next nonce.
    pub fn sign<T>(&mut self, transaction: impl FnOnce(u64) -> T) -> Bytes
    where
        T: SignableTransaction<Signature>,
        TxEnvelope: From<alloy_consensus::Signed<T>>,
    {
        let transaction = transaction(self.nonce);
        self.nonce += 1;
        let signature = self.sign_hash(transaction.signature_hash());
        TxEnvelope::from(transaction.into_signed(signature)).encoded_2718().into()
    }

    /// A delegation to `target`, valid while the account has `nonce`.
    pub fn authorize(&self, target: Address, chain_id: u64, nonce: u64) -> SignedAuthorization {
        let authorization = Authorization { chain_id: U256::from(chain_id), address: target, nonce };
        let signature = self.sign_hash(authorization.signature_hash());
        authorization.into_signed(signature)
    }
}

/// The test contract of `tests/clients/contract.json`.
pub struct Contract {
    creation_code: Bytes,
}

impl Contract {
    fn load() -> Self {
        let document: Value = serde_json::from_str(include_str!("../../clients/contract.json")).expect("it is JSON");
        let code = document["bytecode"].as_str().expect("it has bytecode");
        Self { creation_code: code.parse().expect("bytecode is hex") }
    }

    fn call(signature: &str, arguments: &[U256]) -> Bytes {
        let mut data = keccak256(signature)[..4].to_vec();
        arguments.iter().for_each(|argument| data.extend_from_slice(&argument.to_be_bytes::<32>()));
        data.into()
    }
}

/// What one transaction does, before it has a type and a sender.
struct Action {
    to: TxKind,
    value: U256,
    input: Bytes,
    gas_limit: u64,
}

impl Action {
    fn call(to: Address, input: Bytes, gas_limit: u64) -> Self {
        Self { to: to.into(), value: U256::ZERO, input, gas_limit }
    }

    fn create(init_code: Bytes, gas_limit: u64) -> Self {
        Self { to: TxKind::Create, value: U256::ZERO, input: init_code, gas_limit }
    }
}

/// Generates rounds of transactions from the ten development accounts.
pub struct Workload {
    rng: StdRng,
    senders: Vec<Account>,
    contract: Contract,
    pub contract_address: Address,
    /// Accounts that a delegation was signed for, so that later rounds meet delegated code again.
    delegators: Vec<Account>,
    round_index: usize,
}

impl Workload {
    pub fn new(seed: u64) -> Self {
        let senders: Vec<Account> = DEV_KEYS.into_iter().map(Account::new).collect();
        let contract_address = senders[0].address.create(0);
        let rng = StdRng::seed_from_u64(seed);
        Self { rng, senders, contract: Contract::load(), contract_address, delegators: Vec::new(), round_index: 0 }
    }

    /// The first transaction: deploys the contract that the rounds call.
    pub fn deploy(&mut self) -> Bytes {
        let init_code = self.contract.creation_code.clone();
        self.sign_1559(0, Action::create(init_code, 1_000_000))
    }

    /// Sets a slot of the contract; 0 clears it.
    pub fn store(&mut self, sender: usize, slot: u64, value: u64) -> Bytes {
        let input = Contract::call("store(uint256,uint256)", &[U256::from(slot), U256::from(value)]);
        let action = Action::call(self.contract_address, input, 120_000);
        self.sign_1559(sender, action)
    }

    /// One block's worth: the kinds that a block must have, then a random mix.
    pub fn round(&mut self) -> Vec<Bytes> {
        self.round_index += 1;
        // Now and then more consolidations than a block gives out (two): the rest must come in the blocks after it.
        let consolidations = if self.round_index.is_multiple_of(10) { 4 } else { 1 };
        let mut raw = Vec::with_capacity(ROUND_TRANSACTIONS);
        for index in 0..ROUND_TRANSACTIONS {
            let sender = index % self.senders.len();
            // The first sixteen are one of each kind; later ones draw lots.
            let kind = if index < 16 { index as u32 } else { self.rng.random_range(0..16) };
            let transaction = match index {
                16 => self.sign_request(sender, eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS, 56),
                17.. if index < 17 + consolidations => {
                    self.sign_request(sender, eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS, 96)
                }
                _ if kind < 2 => self.delegate(sender),
                _ => {
                    let action = self.action(kind);
                    self.sign_any(sender, action)
                }
            };
            raw.push(transaction);
        }
        raw
    }

    fn action(&mut self, kind: u32) -> Action {
        let contract = self.contract_address;
        match kind {
            2..=4 => Action::call(contract, Contract::call("increment()", &[]), 120_000),
            5 | 6 => {
                // Few keys and many zeros: slots are made, changed, cleared and made again.
                let key = U256::from(self.rng.random_range(1..200u64));
                let value = U256::from(self.rng.random_range(0..3u64));
                Action::call(contract, Contract::call("store(uint256,uint256)", &[key, value]), 120_000)
            }
            7 => Action::call(contract, Contract::call("fail()", &[]), 60_000),
            8 => Action::call(contract, Contract::call("spawn()", &[]), 120_000),
            // One gas short of nothing useful: the call runs out in its first storage access.
            9 => Action::call(contract, Contract::call("increment()", &[]), 21_500),
            10 => self.creation(),
            11 => self.precompile(),
            12 => match self.rng.random_range(0..self.delegators.len().max(1)) {
                index if index < self.delegators.len() => {
                    Action::call(self.delegators[index].address, Contract::call("increment()", &[]), 120_000)
                }
                _ => self.transfer(),
            },
            _ => self.transfer(),
        }
    }

    fn transfer(&mut self) -> Action {
        let to = match self.rng.random_range(0..3) {
            0 => Address::with_last_byte(self.rng.random_range(0x20..0xf0)),
            1 => Address::from(self.rng.random::<[u8; 20]>()),
            _ => self.senders[self.rng.random_range(0..self.senders.len())].address,
        };
        // A transfer of nothing to an empty account touches it without creating it (EIP-161).
        let value = U256::from(self.rng.random_range(0..4u64) * 1_000_003);
        Action { to: to.into(), value, input: Bytes::new(), gas_limit: 60_000 }
    }

    fn creation(&mut self) -> Action {
        match self.rng.random_range(0..5) {
            0 => Action::create(self.contract.creation_code.clone(), 1_000_000),
            1 => Action::create(CONTEXT_INIT_CODE.into(), 600_000),
            // REVERT with no data.
            2 => Action::create(hex!("5f5ffd").into(), 100_000),
            // SELFDESTRUCT to a random account, in the transaction that created it (EIP-6780).
            3 => {
                let code = [&hex!("73")[..], &self.rng.random::<[u8; 20]>(), &hex!("ff")].concat();
                Action { value: U256::from(77u64), ..Action::create(code.into(), 200_000) }
            }
            // Deploys code that starts with 0xef, which EIP-3541 forbids.
            _ => Action::create(hex!("60ef5f5360015ff3").into(), 100_000),
        }
    }

    fn precompile(&mut self) -> Action {
        // 0x01 to 0x11 exist on both forks; 0x0100 (P256VERIFY) is a plain account on Prague.
        let to = match self.rng.random_range(1..=18u8) {
            18 => Address::left_padding_from(&[1, 0]),
            index => Address::with_last_byte(index),
        };
        // Zeros of the right length are valid input for most (points at infinity, no rounds); random bytes rarely are.
        let mut input = vec![0; PRECOMPILE_INPUT_BYTES[self.rng.random_range(0..PRECOMPILE_INPUT_BYTES.len())]];
        if self.rng.random_bool(0.5) {
            self.rng.fill(&mut input[..]);
        }
        Action::call(to, input.into(), 400_000)
    }

    /// A request to a predeploy: random validator keys (and an amount, for withdrawals), paid for with far more than the
    /// fee of a short queue.
    fn sign_request(&mut self, sender: usize, predeploy: Address, input_bytes: usize) -> Bytes {
        let mut input = vec![0; input_bytes];
        self.rng.fill(&mut input[..]);
        let action = Action { value: U256::from(1_000_000), ..Action::call(predeploy, input.into(), 300_000) };
        self.sign_any(sender, action)
    }

    fn sign_any(&mut self, sender: usize, action: Action) -> Bytes {
        match self.rng.random_range(0..4) {
            0 => self.sign_legacy(sender, action),
            1 => self.sign_2930(sender, action),
            _ => self.sign_1559(sender, action),
        }
    }

    fn sign_legacy(&mut self, sender: usize, action: Action) -> Bytes {
        let Action { to, value, input, gas_limit } = action;
        let gas_price = self.fee_cap();
        self.senders[sender].sign(|nonce| TxLegacy {
            chain_id: Some(CHAIN_ID),
            nonce,
            gas_price,
            gas_limit,
            to,
            value,
            input,
        })
    }

    fn sign_2930(&mut self, sender: usize, action: Action) -> Bytes {
        let Action { to, value, input, gas_limit } = action;
        let gas_price = self.fee_cap();
        let keys = self.rng.random_range(0..3u64);
        let storage_keys = (0..keys).map(|key| B256::from(U256::from(key))).collect();
        let access_list = AccessList(vec![AccessListItem { address: self.contract_address, storage_keys }]);
        let gas_limit = gas_limit + 2_400 + 1_900 * keys;
        self.senders[sender].sign(|nonce| TxEip2930 {
            chain_id: CHAIN_ID,
            nonce,
            gas_price,
            gas_limit,
            to,
            value,
            access_list,
            input,
        })
    }

    fn sign_1559(&mut self, sender: usize, action: Action) -> Bytes {
        let Action { to, value, input, gas_limit } = action;
        let (max_fee_per_gas, max_priority_fee_per_gas) = (self.fee_cap(), self.tip());
        self.senders[sender].sign(|nonce| TxEip1559 {
            chain_id: CHAIN_ID,
            nonce,
            gas_limit,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to,
            value,
            access_list: AccessList::default(),
            input,
        })
    }

    /// A set-code transaction: a fresh account runs the contract; beside it, now and then, an authorization that fails.
    fn delegate(&mut self, sender: usize) -> Bytes {
        let account = Account::fresh(&mut self.rng);
        let target = self.contract_address;
        let mut authorization_list = vec![account.authorize(target, CHAIN_ID, 0)];
        match self.rng.random_range(0..5) {
            // A wrong nonce and a foreign chain are skipped by the EVM, and the transaction goes on.
            0 => authorization_list.push(account.authorize(target, CHAIN_ID, 7)),
            1 => authorization_list.push(account.authorize(target, 1, 1)),
            // Taken back in the same transaction: the call then meets an account without code.
            2 => authorization_list.push(account.authorize(Address::ZERO, 0, 1)),
            _ => {}
        }
        let (max_fee_per_gas, max_priority_fee_per_gas) = (self.fee_cap(), self.tip());
        let to = account.address;
        self.delegators.push(account);
        self.senders[sender].sign(|nonce| TxEip7702 {
            chain_id: CHAIN_ID,
            nonce,
            gas_limit: 250_000,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to,
            value: U256::ZERO,
            access_list: AccessList::default(),
            authorization_list,
            input: Contract::call("increment()", &[]),
        })
    }

    /// 2 to 3 gwei: above any base fee that these chains reach.
    fn fee_cap(&mut self) -> u128 {
        self.rng.random_range(2_000_000_000..3_000_000_000)
    }

    /// Up to 1 gwei; distinct tips make the order of a block differ from the order of arrival.
    fn tip(&mut self) -> u128 {
        self.rng.random_range(1_000_000..1_000_000_000)
    }
}

/// What acceptance asks of a block, counted from what the chain shows.
#[derive(Debug, Default)]
pub struct Mix {
    pub transactions: usize,
    pub by_type: [usize; 5],
    pub contract_calls: usize,
    pub creations: usize,
    pub reverts: usize,
    pub logs: usize,
}

impl Mix {
    /// Counts a block with full transactions and its receipts. A contract call goes to `contract`, or to another account
    /// whose code wrote a log.
    pub fn count(block: &Value, receipts: &Value, contract: Address) -> Self {
        let mut mix = Self::default();
        let transactions = block["transactions"].as_array().expect("a list of transactions");
        let receipts = receipts.as_array().expect("a list of receipts");
        assert_eq!(transactions.len(), receipts.len(), "receipts of block {}", block["number"]);
        for (transaction, receipt) in transactions.iter().zip(receipts) {
            assert_eq!(transaction["hash"], receipt["transactionHash"], "order of the receipts");
            mix.transactions += 1;
            mix.by_type[super::rpc::quantity(&transaction["type"]) as usize] += 1;
            mix.reverts += usize::from(receipt["status"] == "0x0");
            let log_count = receipt["logs"].as_array().map_or(0, Vec::len);
            mix.logs += log_count;
            match transaction["to"].as_str() {
                None => mix.creations += 1,
                Some(to) => {
                    let to: Address = to.parse().expect("an address");
                    mix.contract_calls += usize::from(to == contract || log_count > 0);
                }
            }
        }
        mix
    }

    /// At least 100 transactions, all four types, a fifth contract calls, with creations, reverts and logs.
    pub fn qualifies(&self) -> bool {
        let types = [0, 1, 2, 4].iter().all(|&index| self.by_type[index] > 0);
        let calls = self.contract_calls * 5 >= self.transactions;
        self.transactions >= 100 && types && calls && self.creations > 0 && self.reverts > 0 && self.logs > 0
    }
}
