//! Before the clock starts: node and seed → a chain that is ready for the workload.
//!
//! Deploys the contracts, gives every account what its transactions can cost at most, deals tokens, and waits until
//! the node shows all of it at `latest`. Accounts that still have enough from an earlier run with the same seed get
//! nothing.

use std::time::{Duration, Instant};

use alloy_primitives::{Address, Bytes, U256};
use serde_json::{Value, json};

use crate::client::rpc::{self, RpcClient};
use crate::error::{Error, Result};
use crate::limits::{DEAL_HOLDERS_MAX, SETUP_BATCH_CALLS_MAX, SETUP_STALL_S_MAX};
use crate::verify::METHOD_NOT_FOUND;
use crate::workload::accounts::{self, Account};
use crate::workload::transaction::Transaction;
use crate::workload::{self, Chain, GasLimits, Kind, Plan, contracts};

/// Fee cap of set-up transactions as a multiple of the base fee: they run for seconds, not for the whole run.
const SETUP_FEE_CAP_MULTIPLE: u128 = 100;

/// Gas limit for creating either contract; the token takes about 540,000 on Osaka, more where state costs more.
const CREATION_GAS: u64 = 4_000_000;

/// Gas of a `deal` where the node does not estimate: a new balance costs about 24,700 per holder (Osaka).
const DEAL_GAS_BASE: u64 = 60_000;
const DEAL_GAS_PER_HOLDER: u64 = 25_000;

/// Gas limit of a `deal` at most: below the cap of 2^24 (EIP-7825).
const DEAL_GAS_MAX: u64 = 16_000_000;

/// Tokens that each account gets: more than any run can send at one unit a transaction.
const TOKENS_PER_ACCOUNT: u64 = 1 << 60;

/// Pause between looks at the node.
const POLL_MS: u64 = 50;

/// How long set-up waits for transactions of an earlier run to leave the pool.
const LEFTOVER_WAIT_S: u64 = 15;

#[derive(Clone, Copy, Debug)]
pub struct Fees {
    pub tip_wei: u128,
    /// The fee cap of the workload as a multiple of the base fee at the start.
    pub cap_multiple: u64,
}

/// What the node says about itself.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub client: String,
    pub chain_id: u64,
    pub base_fee_wei: u128,
}

/// Waits until the node answers at all; its last error when it does not.
pub fn wait_for_target(client: &mut RpcClient, wait: Duration) -> Result<()> {
    let deadline = Instant::now() + wait;
    loop {
        match client.number("eth_chainId", json!([])) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(POLL_MS * 2)),
        }
    }
}

impl NodeInfo {
    pub fn read(client: &mut RpcClient) -> Result<Self> {
        let chain_id = client.number("eth_chainId", json!([]))?;
        let version = client.try_call("web3_clientVersion", json!([]))?.ok();
        let base_fee_wei = base_fee_wei(client)?;
        Ok(Self {
            client: version.as_ref().and_then(Value::as_str).unwrap_or("unknown").to_owned(),
            chain_id,
            base_fee_wei,
        })
    }
}

/// Base fee of the latest block.
pub fn base_fee_wei(client: &mut RpcClient) -> Result<u128> {
    let block = client.call("eth_getBlockByNumber", json!(["latest", false]))?;
    let fee = block.get("baseFeePerGas").and_then(rpc::quantity);
    let fee = fee.and_then(|fee| u128::try_from(fee).ok());
    fee.ok_or_else(|| Error::Setup("the latest block has no base fee: loadgen needs a chain with EIP-1559".into()))
}

/// The fee cap: a multiple of the base fee, plus the tip, which it may not fall below.
pub const fn fee_cap_wei(base_fee_wei: u128, multiple: u128, tip_wei: u128) -> u128 {
    base_fee_wei.saturating_mul(multiple).saturating_add(tip_wei)
}

/// Makes the chain ready and returns what signing needs.
pub fn set_up(
    client: &mut RpcClient,
    node: &NodeInfo,
    plan: &Plan,
    fees: Fees,
    accounts: &[Account],
    funder: &Account,
) -> Result<Chain> {
    let addresses: Vec<Address> = accounts.iter().map(|account| account.address).collect();
    wait_for_leftovers(client, &addresses)?;
    let (token, storage) = deploy(client, node, plan, fees, &addresses, funder)?;
    let gas_limits = gas_limits(client, plan, funder.address, token, storage)?;
    let max_fee_per_gas_wei = fee_cap_wei(node.base_fee_wei, fees.cap_multiple.into(), fees.tip_wei);
    let highest_fee_wei = if plan.mix.contains(Kind::Replacement) {
        workload::replacement_fee_wei(max_fee_per_gas_wei)
    } else {
        max_fee_per_gas_wei
    };
    let balances_wei = client.balances(&addresses, "latest")?;
    let mut transactions = SetupTransactions::start(client, node, fees, funder)?;
    let needs = plan.gas_per_account(&gas_limits).into_iter().zip(plan.transactions_per_account());
    for ((&address, (gas, count)), balance_wei) in addresses.iter().zip(needs).zip(balances_wei) {
        // One wei of value in each.
        let needed_wei = U256::from(gas) * U256::from(highest_fee_wei) + U256::from(count);
        let value_wei = needed_wei.saturating_sub(balance_wei);
        if value_wei > U256::ZERO {
            transactions.push(Some(address), value_wei, gas_limits.of(Kind::Transfer), Bytes::new());
        }
    }
    transactions.submit(client, fees.cap_multiple)?;
    let nonces = client.nonces(&addresses, "latest")?;
    let tip_wei = fees.tip_wei;
    let conditional = plan.mix.contains(Kind::Conditional) && offers_conditional(client)?;
    Ok(Chain { chain_id: node.chain_id, max_fee_per_gas_wei, tip_wei, gas_limits, nonces, token, storage, conditional })
}

/// Asked with bytes that are no transaction: a node that has the method says so, one that has not says -32601.
fn offers_conditional(client: &mut RpcClient) -> Result<bool> {
    let answer = client.try_call("eth_sendRawTransactionConditional", json!(["0x", {}]))?;
    Ok(!answer.is_err_and(|error| {
        error.code == METHOD_NOT_FOUND || error.message.contains("eth_sendRawTransactionConditional")
    }))
}

/// Creates the contracts that the mix needs and deals the tokens; the zero address where there is none.
fn deploy(
    client: &mut RpcClient,
    node: &NodeInfo,
    plan: &Plan,
    fees: Fees,
    addresses: &[Address],
    funder: &Account,
) -> Result<(Address, Address)> {
    let (mut token, mut storage) = (Address::ZERO, Address::ZERO);
    let mut creations = SetupTransactions::start(client, node, fees, funder)?;
    if plan.mix.kinds().any(Kind::needs_token) {
        token = creations.create(contracts::token_creation_code());
    }
    if plan.mix.kinds().any(Kind::needs_storage) {
        storage = creations.create(contracts::storage_creation_code());
    }
    creations.submit(client, fees.cap_multiple)?;
    // Who only reverts needs no tokens.
    if !plan.mix.contains(Kind::Erc20) {
        return Ok((token, storage));
    }
    // The funder gets tokens too: the gas of a transfer is estimated from its account.
    let holders: Vec<Address> = std::iter::once(funder.address).chain(addresses.iter().copied()).collect();
    let amount = U256::from(TOKENS_PER_ACCOUNT);
    let deal_gas = |client: &mut RpcClient, holders: &[Address]| {
        estimate_gas(client, funder.address, Some(token), U256::ZERO, contracts::token_deal(holders, amount))
    };
    let (base_gas, holder_gas) = match (deal_gas(client, &holders[..1])?, deal_gas(client, &holders[..2])?) {
        (Some(one), Some(two)) => (one, two.saturating_sub(one).max(1)),
        _ => (DEAL_GAS_BASE, DEAL_GAS_PER_HOLDER),
    };
    let holders_max = (DEAL_GAS_MAX * 4 / 5 / holder_gas).clamp(1, DEAL_HOLDERS_MAX as u64) as usize;
    let mut deals = SetupTransactions::start(client, node, fees, funder)?;
    for holders in holders.chunks(holders_max) {
        let gas_limit = (base_gas + holder_gas * holders.len() as u64) * 6 / 5;
        deals.push(Some(token), U256::ZERO, gas_limit.min(DEAL_GAS_MAX), contracts::token_deal(holders, amount));
    }
    deals.submit(client, fees.cap_multiple)?;
    check_tokens(client, token, &holders)?;
    Ok((token, storage))
}

/// Gas limits that hold on this chain: what the node estimates for a new recipient and a new slot, with a reserve of a
/// tenth; the usual ones where it estimates less, or nothing.
fn gas_limits(
    client: &mut RpcClient,
    plan: &Plan,
    from: Address,
    token: Address,
    storage: Address,
) -> Result<GasLimits> {
    let mut limits = GasLimits::default();
    // An index that no run reaches, so that nobody has paid for this account before.
    let stranger = accounts::recipient(plan.seed, u64::MAX);
    if let Some(gas) = estimate_gas(client, from, Some(stranger), U256::ONE, Bytes::new())? {
        for kind in [Kind::Transfer, Kind::Conditional, Kind::NonceGap, Kind::Replacement] {
            limits.raise(kind, gas);
        }
    }
    let calls = [
        (Kind::Erc20, Some(token), contracts::token_transfer(stranger, U256::ONE)),
        (Kind::Storage, Some(storage), contracts::storage_set(U256::MAX - U256::ONE, U256::MAX)),
        (Kind::Hot, Some(storage), contracts::storage_set(U256::MAX, U256::MAX)),
        (Kind::Deploy, None, contracts::storage_creation_code()),
    ];
    for (kind, to, input) in calls.into_iter().filter(|(kind, ..)| plan.mix.contains(*kind)) {
        if let Some(gas) = estimate_gas(client, from, to, U256::ZERO, input)? {
            limits.raise(kind, gas * 11 / 10);
        }
    }
    Ok(limits)
}

/// `None` where the node does not estimate.
fn estimate_gas(
    client: &mut RpcClient,
    from: Address,
    to: Option<Address>,
    value_wei: U256,
    input: Bytes,
) -> Result<Option<u64>> {
    let mut call = json!({"from": from, "value": format!("{value_wei:#x}"), "input": input});
    if let Some(to) = to {
        call["to"] = json!(to);
    }
    let estimate = client.try_call("eth_estimateGas", json!([call]))?.ok();
    Ok(estimate.as_ref().and_then(rpc::quantity).and_then(|gas| u64::try_from(gas).ok()))
}

/// Transactions left by an earlier run would take the nonces of this one.
fn wait_for_leftovers(client: &mut RpcClient, addresses: &[Address]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(LEFTOVER_WAIT_S);
    loop {
        let latest = client.nonces(addresses, "latest")?;
        let pending = client.nonces(addresses, "pending")?;
        let Some(at) = (0..addresses.len()).find(|&at| pending[at] > latest[at]) else { return Ok(()) };
        if Instant::now() > deadline {
            return Err(Error::Setup(format!(
                "account {} still has {} transactions of an earlier run in the pool; wait, or choose another --seed",
                addresses[at],
                pending[at] - latest[at]
            )));
        }
        std::thread::sleep(Duration::from_millis(POLL_MS * 4));
    }
}

/// Accounts without their tokens would make the whole run meaningless.
fn check_tokens(client: &mut RpcClient, token: Address, holders: &[Address]) -> Result<()> {
    let calls: Vec<Value> = holders
        .iter()
        .map(|&holder| json!([{"to": token, "input": contracts::token_balance_of(holder)}, "latest"]))
        .collect();
    for (holder, reply) in holders.iter().zip(client.batch("eth_call", &calls)?) {
        let value = reply.map_err(|error| Error::Rpc { method: "eth_call".into(), error })?;
        let balance = rpc::quantity(&value).unwrap_or_default();
        if balance < U256::from(TOKENS_PER_ACCOUNT) {
            return Err(Error::Setup(format!("account {holder} has {balance} tokens after they were dealt")));
        }
    }
    Ok(())
}

/// Transactions of the funding account, in nonce order.
struct SetupTransactions<'a> {
    funder: &'a Account,
    template: Transaction,
    balance_wei: U256,
    list: Vec<Transaction>,
}

impl<'a> SetupTransactions<'a> {
    fn start(client: &mut RpcClient, node: &NodeInfo, fees: Fees, funder: &'a Account) -> Result<Self> {
        wait_for_leftovers(client, &[funder.address])?;
        let nonce = client.nonces(&[funder.address], "latest")?[0];
        let balance_wei = client.balances(&[funder.address], "latest")?[0];
        let template = Transaction {
            chain_id: node.chain_id,
            nonce,
            max_priority_fee_per_gas_wei: fees.tip_wei,
            max_fee_per_gas_wei: fee_cap_wei(node.base_fee_wei, SETUP_FEE_CAP_MULTIPLE, fees.tip_wei),
            gas_limit: 0,
            to: None,
            value_wei: U256::ZERO,
            input: Bytes::new(),
        };
        Ok(Self { funder, template, balance_wei, list: Vec::new() })
    }

    fn push(&mut self, to: Option<Address>, value_wei: U256, gas_limit: u64, input: Bytes) {
        let nonce = self.template.nonce + self.list.len() as u64;
        self.list.push(Transaction { nonce, to, value_wei, gas_limit, input, ..self.template.clone() });
    }

    /// Creates a contract; returns the address it will have.
    fn create(&mut self, code: Bytes) -> Address {
        let address = self.funder.address.create(self.template.nonce + self.list.len() as u64);
        self.push(None, U256::ZERO, CREATION_GAS, code);
        address
    }

    /// Refuses a run that the funding account cannot pay for, naming both amounts.
    fn check_funds(&self, client: &mut RpcClient, multiple: u64) -> Result<()> {
        let cost = |tx: &Transaction| tx.value_wei + U256::from(tx.max_fee_per_gas_wei) * U256::from(tx.gas_limit);
        let needed_wei: U256 = self.list.iter().map(cost).sum();
        if needed_wei <= self.balance_wei || faucet(client, self.funder.address, needed_wei)? {
            return Ok(());
        }
        // Asking again shows the balance of now, in case another run is using the same account.
        let balance_wei = client.balances(&[self.funder.address], "latest")?[0];
        Err(Error::Funds {
            address: self.funder.address.to_string(),
            balance_eth: ether(balance_wei, false),
            needed_eth: ether(needed_wei, true),
            multiple,
        })
    }

    /// Sends everything in order and waits until `latest` shows it. A refused transaction is sent again, since a node
    /// may bound how many it holds for one sender; without progress for a minute this fails.
    fn submit(self, client: &mut RpcClient, multiple: u64) -> Result<()> {
        self.check_funds(client, multiple)?;
        let (signed, hashes): (Vec<Value>, Vec<Value>) = self
            .list
            .iter()
            .map(|tx| tx.sign(&self.funder.key))
            .map(|(bytes, hash)| (json!([alloy_primitives::hex::encode_prefixed(bytes)]), json!([hash])))
            .unzip();
        let goal = self.template.nonce + self.list.len() as u64;
        let (mut sent, mut mined, mut refusal) = (0, 0, None);
        let mut progress = Instant::now();
        loop {
            let nonce = client.nonces(&[self.funder.address], "latest")?[0];
            if nonce >= goal {
                return check_receipts(client, &hashes);
            }
            let now_mined = nonce.saturating_sub(self.template.nonce) as usize;
            if now_mined > mined {
                (mined, progress) = (now_mined, Instant::now());
            }
            sent = sent.max(mined);
            let end = (sent + SETUP_BATCH_CALLS_MAX).min(signed.len());
            let replies = client.batch("eth_sendRawTransaction", &signed[sent..end])?;
            let taken = replies.iter().take_while(|reply| reply.as_ref().map_or_else(is_known, |_| true)).count();
            if taken > 0 {
                (sent, progress) = (sent + taken, Instant::now());
            }
            if let Some(Err(error)) = replies.into_iter().nth(taken) {
                refusal = Some(error);
            }
            if progress.elapsed() > Duration::from_secs(SETUP_STALL_S_MAX) {
                let cause = refusal.map_or_else(|| "no block includes them".to_owned(), |error| error.to_string());
                return Err(Error::Setup(format!(
                    "set-up stands still: {mined} of {} transactions are in blocks; {cause}",
                    signed.len()
                )));
            }
            if sent == signed.len() || taken == 0 {
                std::thread::sleep(Duration::from_millis(POLL_MS));
            }
        }
    }
}

/// Development nodes hold an account themselves and sign for it (`geth --dev`): it pays where ours cannot. False where there is
/// none, or not enough in it.
fn faucet(client: &mut RpcClient, to: Address, value_wei: U256) -> Result<bool> {
    let accounts = client.try_call("eth_accounts", json!([]))?.unwrap_or_default();
    let parsed =
        accounts.as_array().into_iter().flatten().filter_map(|account| account.as_str()?.parse::<Address>().ok());
    let addresses: Vec<Address> = parsed.filter(|&address| address != to).collect();
    let balances_wei = client.balances(&addresses, "latest")?;
    let richest = addresses.into_iter().zip(balances_wei).max_by_key(|&(_, balance_wei)| balance_wei);
    let Some((from, _)) = richest.filter(|&(_, balance_wei)| balance_wei > value_wei) else { return Ok(false) };
    let transaction = json!([{"from": from, "to": to, "value": format!("{value_wei:#x}")}]);
    if client.try_call("eth_sendTransaction", transaction)?.is_err() {
        return Ok(false);
    }
    let deadline = Instant::now() + Duration::from_secs(LEFTOVER_WAIT_S);
    while Instant::now() < deadline {
        if client.balances(&[to], "latest")?[0] >= value_wei {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(POLL_MS));
    }
    Ok(false)
}

/// A set-up transaction that failed would make the whole run meaningless.
fn check_receipts(client: &mut RpcClient, hashes: &[Value]) -> Result<()> {
    let receipts = client.batch("eth_getTransactionReceipt", hashes)?;
    for (hash, receipt) in hashes.iter().zip(receipts) {
        let receipt = receipt.map_err(|error| Error::Rpc { method: "eth_getTransactionReceipt".into(), error })?;
        if receipt["status"].as_str() != Some("0x1") {
            return Err(Error::Setup(format!("the set-up transaction {} failed: its receipt is {receipt}", hash[0])));
        }
    }
    Ok(())
}

/// Whether a refusal means that the node has the transaction already.
fn is_known(error: &rpc::RpcError) -> bool {
    let message = error.message.to_ascii_lowercase();
    message.contains("already") || message.contains("known transaction") || message.contains("imported")
}

/// Ether with three decimals; `up` rounds up, otherwise down.
fn ether(wei: U256, up: bool) -> String {
    let unit = U256::from(1_000_000_000_000_000u64);
    let thousandths = if up { wei.div_ceil(unit) } else { wei / unit };
    let (whole, part) = thousandths.div_rem(U256::from(1_000));
    format!("{whole}.{:03}", part.to::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_in_ether() {
        let wei = U256::from(1_234_567_890_123_456_789u64);
        assert_eq!(ether(wei, false), "1.234");
        assert_eq!(ether(wei, true), "1.235");
        assert_eq!(ether(U256::ZERO, true), "0.000");
    }

    #[test]
    fn the_fee_cap_is_never_below_the_tip() {
        assert_eq!(fee_cap_wei(7, 1_000, 1_000_000_000), 1_000_007_000);
        assert_eq!(fee_cap_wei(u128::MAX, 1_000, 1), u128::MAX);
    }

    #[test]
    fn known_transactions_are_recognised() {
        let is_known = |message: &str| is_known(&rpc::RpcError { code: -32000, message: message.into() });
        assert!(is_known("already known"));
        assert!(is_known("transaction already imported"));
        assert!(!is_known("nonce too low: tx 4, account 5"));
    }
}
