//! Transactions that wait for a block, by the rules of the L1 node's pool (FORK in EXECUTE_TX of `docs/SPECS.md`).
//!
//! | rule | |
//! |---|---|
//! | size | at most 131,072 bytes |
//! | gas | at most the block's; under Osaka at most 16,777,216; at least what the *data* costs, though blocks charge for the calldata |
//! | price | tip at least 1 wei; gas × fee cap at most 1 ETH; balance for all of a sender's transactions together |
//! | nonce | gaps wait; a replacement pays at least 10 % more of both fees |
//! | bounds | 64 transactions of a sender behind a gap, 6,144 slots of 32 KiB in all; a full pool refuses |
//!
//! Words of refusals follow go-ethereum's, where clients look for them. Deliberately absent: eviction, lifetimes, journals of local transactions.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::config::L1Fork;
use super::transaction::L1Tx;
use crate::primitives::{Address, B256, U256};

/// Bytes of one transaction.
pub const TX_BYTES_MAX: usize = 131_072;
/// What a node's RPC lets a transaction cost: 1 ETH.
const FEE_WEI_MAX: u128 = 1_000_000_000_000_000_000;
/// What the miner takes: 0.001 gwei for each gas.
pub const MINER_TIP_WEI_MIN: u64 = 1_000_000;
/// The pool takes less than the miner.
const POOL_TIP_WEI_MIN: u64 = 1;
/// Transactions of one sender behind a nonce gap.
const QUEUED_PER_SENDER_MAX: usize = 64;
/// Slots of all transactions together: 5,120 and 1,024.
const SLOTS_MAX: usize = 6_144;
const SLOT_BYTES: usize = 32 * 1_024;
/// Senders whose transactions are kept away from blocks, or hashes that are swallowed: fault injection, bounded like everything.
pub const FAULTS_MAX: usize = 4_096;

/// Why a transaction is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("already known")]
    Known,
    #[error("oversized data: transaction size {bytes}, limit {bytes_max}")]
    Oversized { bytes: usize, bytes_max: usize },
    #[error("only replay-protected (EIP-155) transactions allowed over RPC")]
    Unprotected,
    #[error("invalid sender: invalid chain id for signer: have {found} want {expected}")]
    ChainId { found: U256, expected: u64 },
    #[error("exceeds block gas limit: tx {gas}, limit {gas_max}")]
    BlockGas { gas: u64, gas_max: u64 },
    #[error("transaction gas limit too high (cap: {gas_max}, tx: {gas})")]
    TxGas { gas: u64, gas_max: u64 },
    #[error(
        "max priority fee per gas higher than max fee per gas: maxPriorityFeePerGas: {tip_wei}, maxFeePerGas: {fee_wei}"
    )]
    TipAboveFee { tip_wei: U256, fee_wei: U256 },
    #[error("transaction underpriced: gas tip cap {tip_wei}, minimum needed {tip_wei_min}")]
    Underpriced { tip_wei: U256, tip_wei_min: u64 },
    #[error("intrinsic gas too low: gas {gas}, minimum needed {needed}")]
    IntrinsicGas { gas: u64, needed: u64 },
    #[error("tx fee ({fee_wei} wei) exceeds the configured cap ({fee_wei_max} wei)")]
    FeeCap { fee_wei: U256, fee_wei_max: u128 },
    #[error("nonce too low: next nonce {account}, tx nonce {tx}")]
    NonceTooLow { account: u64, tx: u64 },
    #[error("nonce has max value: tx nonce {tx}")]
    NonceMax { tx: u64 },
    #[error(
        "insufficient funds for gas * price + value: balance {balance_wei}, queued cost {queued_wei}, tx cost {cost_wei}"
    )]
    Funds { balance_wei: U256, queued_wei: U256, cost_wei: U256 },
    #[error(
        "replacement transaction underpriced: fees {tip_wei} and {fee_wei}, minimum needed {tip_wei_min} and {fee_wei_min}"
    )]
    Replacement { tip_wei: u128, fee_wei: u128, tip_wei_min: u128, fee_wei_min: u128 },
    #[error("txpool is full: {slots} slots, limit {slots_max}")]
    Full { slots: usize, slots_max: usize },
    #[error("account limit exceeded: {queued} transactions wait for a nonce, limit {queued_max}")]
    Queued { queued: usize, queued_max: usize },
}

/// What admission needs of the chain.
#[derive(Clone, Copy, Debug)]
pub struct Tip {
    pub chain_id: u64,
    pub fork: L1Fork,
    pub gas_limit: u64,
    pub account_nonce: u64,
    pub account_balance_wei: U256,
}

/// A transaction that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub tx: L1Tx,
    /// Counts arrivals.
    pub arrival: u64,
    /// No block below this number takes it.
    pub from_block: u64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Pool {
    senders: HashMap<Address, BTreeMap<u64, Waiting>>,
    by_hash: HashMap<B256, (Address, u64)>,
    arrivals: u64,
    slots: usize,
    /// Hashes that are said to be taken and are not.
    swallowed: HashSet<B256>,
    /// Hashes that wait until this block.
    delayed: HashMap<B256, u64>,
}

impl Pool {
    /// Takes a transaction, or says why not.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn add(&mut self, tx: L1Tx, tip: &Tip) -> Result<B256, Refusal> {
        let hash = tx.hash;
        if self.by_hash.contains_key(&hash) {
            return Err(Refusal::Known);
        }
        check_alone(&tx, tip)?;
        self.check_beside_others(&tx, tip)?;
        if self.swallowed.contains(&hash) {
            return Ok(hash);
        }
        self.insert(tx);
        Ok(hash)
    }

    fn check_beside_others(&self, tx: &L1Tx, tip: &Tip) -> Result<(), Refusal> {
        let own = self.senders.get(&tx.sender);
        let replaced = own.and_then(|own| own.get(&tx.nonce()));
        if let Some(old) = replaced {
            check_replacement(tx, &old.tx)?;
        }
        let others = own.into_iter().flat_map(BTreeMap::values).filter(|old| old.tx.nonce() != tx.nonce());
        let queued_wei = others.fold(U256::ZERO, |sum, old| sum.saturating_add(old.tx.cost_max_wei()));
        let (balance_wei, cost_wei) = (tip.account_balance_wei, tx.cost_max_wei());
        if queued_wei.saturating_add(cost_wei) > balance_wei {
            return Err(Refusal::Funds { balance_wei, queued_wei, cost_wei });
        }
        if replaced.is_some() {
            return Ok(());
        }
        let slots = self.slots + slots_of(tx);
        if slots > SLOTS_MAX {
            return Err(Refusal::Full { slots, slots_max: SLOTS_MAX });
        }
        let next = self.next_nonce(&tx.sender, tip.account_nonce);
        let queued = own.map_or(0, |own| own.range(next..).count());
        if tx.nonce() > next && queued >= QUEUED_PER_SENDER_MAX {
            return Err(Refusal::Queued { queued, queued_max: QUEUED_PER_SENDER_MAX });
        }
        Ok(())
    }

    fn insert(&mut self, tx: L1Tx) {
        self.arrivals += 1;
        let (sender, nonce, hash) = (tx.sender, tx.nonce(), tx.hash);
        let from_block = self.delayed.get(&hash).copied().unwrap_or(0);
        self.slots += slots_of(&tx);
        let waiting = Waiting { tx, arrival: self.arrivals, from_block };
        if let Some(old) = self.senders.entry(sender).or_default().insert(nonce, waiting) {
            self.slots -= slots_of(&old.tx);
            self.by_hash.remove(&old.tx.hash);
        }
        self.by_hash.insert(hash, (sender, nonce));
    }

    /// Puts transactions of blocks that are gone back: they were valid once, and are looked at again when a block is made.
    pub fn restore(&mut self, txs: impl IntoIterator<Item = L1Tx>) {
        for tx in txs {
            let is_taken = self.senders.get(&tx.sender).is_some_and(|own| own.contains_key(&tx.nonce()));
            if !is_taken && !self.swallowed.contains(&tx.hash) {
                self.insert(tx);
            }
        }
    }

    /// Takes a transaction out; `None` when it is not there.
    pub fn remove(&mut self, hash: &B256) -> Option<L1Tx> {
        let (sender, nonce) = self.by_hash.remove(hash)?;
        let own = self.senders.get_mut(&sender)?;
        let waiting = own.remove(&nonce)?;
        if own.is_empty() {
            self.senders.remove(&sender);
        }
        self.slots -= slots_of(&waiting.tx);
        Some(waiting.tx)
    }

    /// Forgets what an account with this nonce can never send any more.
    pub fn settle(&mut self, sender: &Address, account_nonce: u64) {
        let Some(own) = self.senders.get_mut(sender) else { return };
        let kept = own.split_off(&account_nonce);
        for old in std::mem::replace(own, kept).into_values() {
            self.slots -= slots_of(&old.tx);
            self.by_hash.remove(&old.tx.hash);
        }
        if self.senders.get(sender).is_some_and(BTreeMap::is_empty) {
            self.senders.remove(sender);
        }
    }

    /// From now on a transaction is said to be taken, and is not; one that waits goes. `false`: too many are.
    pub fn swallow(&mut self, hash: B256) -> bool {
        self.remove(&hash);
        let has_room = self.swallowed.len() < FAULTS_MAX;
        if has_room {
            self.swallowed.insert(hash);
        }
        has_room
    }

    /// A transaction waits at least until this block. `false`: too many do.
    pub fn delay(&mut self, hash: B256, from_block: u64) -> bool {
        if self.delayed.len() >= FAULTS_MAX {
            return false;
        }
        self.delayed.insert(hash, from_block);
        if let Some((sender, nonce)) = self.by_hash.get(&hash)
            && let Some(waiting) = self.senders.get_mut(sender).and_then(|own| own.get_mut(nonce))
        {
            waiting.from_block = from_block;
        }
        true
    }

    #[must_use]
    pub fn get(&self, hash: &B256) -> Option<&L1Tx> {
        let (sender, nonce) = self.by_hash.get(hash)?;
        Some(&self.senders.get(sender)?.get(nonce)?.tx)
    }

    /// The nonce behind everything that is ready.
    #[must_use]
    pub fn next_nonce(&self, sender: &Address, account_nonce: u64) -> u64 {
        let mut next = account_nonce;
        if let Some(own) = self.senders.get(sender) {
            while own.contains_key(&next) {
                next += 1;
            }
        }
        next
    }

    /// Everyone who has something here.
    #[must_use]
    pub fn senders(&self) -> Vec<Address> {
        let mut senders: Vec<Address> = self.senders.keys().copied().collect();
        senders.sort_unstable();
        senders
    }

    /// The transaction of a sender with this nonce.
    #[must_use]
    pub fn at(&self, sender: &Address, nonce: u64) -> Option<&Waiting> {
        self.senders.get(sender)?.get(&nonce)
    }

    /// Transactions that wait, and those of them that could be next.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }
}

fn slots_of(tx: &L1Tx) -> usize {
    tx.raw.len().div_ceil(SLOT_BYTES)
}

/// Rules about one transaction and its account.
fn check_alone(tx: &L1Tx, tip: &Tip) -> Result<(), Refusal> {
    if tx.raw.len() > TX_BYTES_MAX {
        return Err(Refusal::Oversized { bytes: tx.raw.len(), bytes_max: TX_BYTES_MAX });
    }
    let found = tx.chain_id().ok_or(Refusal::Unprotected)?;
    if found != U256::from(tip.chain_id) {
        return Err(Refusal::ChainId { found, expected: tip.chain_id });
    }
    let gas = tx.gas();
    if gas > tip.gas_limit {
        return Err(Refusal::BlockGas { gas, gas_max: tip.gas_limit });
    }
    if let Some(gas_max) = tip.fork.tx_gas_max().filter(|gas_max| gas > *gas_max) {
        return Err(Refusal::TxGas { gas, gas_max });
    }
    let (tip_wei, fee_wei) = (tx.tip_cap_wei(), tx.fee_cap_wei());
    if tip_wei > fee_wei {
        return Err(Refusal::TipAboveFee { tip_wei, fee_wei });
    }
    if tip_wei < U256::from(POOL_TIP_WEI_MIN) {
        return Err(Refusal::Underpriced { tip_wei, tip_wei_min: POOL_TIP_WEI_MIN });
    }
    let (intrinsic, floor) = tx.pool_gas();
    let needed = if tip.fork.is_prague() { intrinsic.max(floor) } else { intrinsic };
    if gas < needed {
        return Err(Refusal::IntrinsicGas { gas, needed });
    }
    let cost_wei = fee_wei.saturating_mul(U256::from(gas));
    if cost_wei > U256::from(FEE_WEI_MAX) {
        return Err(Refusal::FeeCap { fee_wei: cost_wei, fee_wei_max: FEE_WEI_MAX });
    }
    if tx.nonce() < tip.account_nonce {
        return Err(Refusal::NonceTooLow { account: tip.account_nonce, tx: tx.nonce() });
    }
    if tx.nonce() == u64::MAX {
        return Err(Refusal::NonceMax { tx: tx.nonce() });
    }
    Ok(())
}

/// A tenth more, rounded down, as go-ethereum rounds; and never the same.
fn raised(wei: U256) -> U256 {
    (wei * U256::from(110)) / U256::from(100)
}

fn check_replacement(tx: &L1Tx, old: &L1Tx) -> Result<(), Refusal> {
    let (tip_wei, fee_wei) = (tx.tip_cap_wei(), tx.fee_cap_wei());
    let (tip_wei_min, fee_wei_min) = (raised(old.tip_cap_wei()), raised(old.fee_cap_wei()));
    let is_more = tip_wei > old.tip_cap_wei() && fee_wei > old.fee_cap_wei();
    if is_more && tip_wei >= tip_wei_min && fee_wei >= fee_wei_min {
        return Ok(());
    }
    // Both transactions cost at most 1 ETH, so their fees have far fewer bits.
    let narrow = |wei: U256| u128::try_from(wei).unwrap_or(u128::MAX);
    Err(Refusal::Replacement {
        tip_wei: narrow(tip_wei),
        fee_wei: narrow(fee_wei),
        tip_wei_min: narrow(tip_wei_min),
        fee_wei_min: narrow(fee_wei_min),
    })
}

#[cfg(test)]
mod tests;
